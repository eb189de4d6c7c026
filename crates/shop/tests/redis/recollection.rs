//! What a process remembers of orders: it is never paid for once it is no more.

use std::sync::Arc;
use std::sync::mpsc::channel;

use ledger::EntityId;
use orchestrator::Log;
use protocol::log::{LogCommand, LogReply, StageRefusal, Writer};
use protocol::{Epoch, Name, Order as Sequence, Protocol, Recovery, Timestamp, Transaction, TransactionId};
use servers::redis::{Persistence, Server};
use shop::checkout::{CHECKOUT, Claim, steps};
use shop::order_store::{OrderStore, OrdersAnswer, OrdersQuery};
use shop::orders::{Line, Order, OrderState, OrdersCommand, OrdersReply, refusals};
use shop::redis_orders::RedisOrders;

use crate::support::{PATIENCE, in_memory, open, query, quick_server, submit};

const WRITER: Writer = Writer { instance: Name::literal("order-1"), epoch: Epoch(1) };

fn number(n: u64) -> EntityId {
    EntityId::number(n)
}

fn register(store: &RedisOrders) {
    let register = LogCommand::Register { instance: WRITER.instance, now: Timestamp(0), lease: u64::MAX };
    assert_eq!(submit(store, OrdersCommand::Log(register)), Ok(OrdersReply::Log(LogReply::Registered(WRITER.epoch))));
}

fn replace(store: &RedisOrders, seed: u64) {
    let replace = OrdersCommand::Replace { count: 100, items: 10, users: 10, price: 1, seed };
    assert_eq!(submit(store, replace), Ok(OrdersReply::Done));
}

fn create(store: &RedisOrders, order: u64) {
    let create = OrdersCommand::Create { order: number(order), user: number(3), key: None };
    assert_eq!(submit(store, create), Ok(OrdersReply::Created(number(order))));
}

fn add(store: &RedisOrders, order: u64, item: u64) {
    let line = Line { item: number(item), quantity: 1, price: 5 };
    let told = submit(store, OrdersCommand::AddItem { order: number(order), line, key: None });
    assert!(matches!(told, Ok(OrdersReply::Total(_))), "{told:?}");
}

fn look(store: &RedisOrders, order: u64) -> Order {
    let (send, answer) = channel();
    store.peek(OrdersQuery::Order(number(order)), Box::new(move |found| _ = send.send(found)));
    match answer.recv_timeout(PATIENCE).unwrap() {
        Ok(OrdersAnswer::Order(Some(order))) => order,
        other => panic!("no order {order}: {other:?}"),
    }
}

fn shown(store: &RedisOrders, order: u64) -> Order {
    match query(store, OrdersQuery::Order(number(order))) {
        Ok(OrdersAnswer::Order(Some(order))) => order,
        other => panic!("no order {order}: {other:?}"),
    }
}

/// Stages a checkout of an order that was planned from what it was.
fn stage(store: &RedisOrders, order: u64, was: &Order) -> LogReply {
    let transaction = Transaction {
        id: TransactionId::new(Timestamp(10 + order), [1; 16]),
        definition: CHECKOUT,
        protocol: Protocol::TwoPhase,
        order: Sequence::Parallel,
        recovery: Recovery::Backward,
        steps: steps(was).unwrap().into(),
        context: Claim { order: number(order), version: was.version }.encode().unwrap(),
    };
    let (send, answer) = channel();
    let command = LogCommand::Stage { writer: WRITER, transaction: Arc::new(transaction) };
    store.append(command, Box::new(move |told| _ = send.send(told)));
    answer.recv_timeout(PATIENCE).unwrap().unwrap()
}

fn is_changed(told: &LogReply) -> bool {
    matches!(told, LogReply::StageRefused(StageRefusal::Application(refusal)) if refusal.code == refusals::ORDER_CHANGED)
}

fn content(order: &Order) -> (EntityId, Vec<Line>) {
    (order.user, order.lines.to_vec())
}

#[test]
fn what_is_recalled_is_what_the_database_shows_and_can_be_claimed() {
    let server = quick_server();
    let store = open(&in_memory(&server));
    register(&store);
    create(&store, 1 << 40);
    assert_eq!(store.recall(number(1 << 40)), None, "an order without items is looked at");
    add(&store, 1 << 40, 7);
    add(&store, 1 << 40, 8);
    let recalled = store.recall(number(1 << 40)).unwrap();
    assert_eq!(content(&recalled), content(&shown(&store, 1 << 40)));
    assert_eq!(stage(&store, 1 << 40, &recalled), LogReply::Staged);
    assert_eq!(store.recall(number(1 << 40)), None);
}

#[test]
fn orders_that_nobody_has_touched_are_known_from_one_of_them() {
    let server = quick_server();
    let (store, other) = (open(&in_memory(&server)), open(&in_memory(&server)));
    replace(&other, 1);
    register(&store);
    assert_eq!(store.recall(number(1)), None, "it has not seen one yet");
    let seen = look(&store, 0);
    assert_eq!(stage(&store, 0, &seen), LogReply::Staged);
    assert_eq!(store.recall(number(0)), None);
    for order in 1..50 {
        let recalled = store.recall(number(order)).unwrap();
        assert_eq!(content(&recalled), content(&shown(&other, order)));
        assert_eq!(stage(&store, order, &recalled), LogReply::Staged);
    }
    assert_eq!(store.recall(number(100)), None);
    // One that another instance has touched: it is not claimed, and the others are looked at from now on.
    add(&other, 60, 7);
    let recalled = store.recall(number(60)).unwrap();
    assert!(is_changed(&stage(&store, 60, &recalled)));
    assert_eq!(store.recall(number(61)), None);
    let seen = look(&store, 60);
    assert_eq!(content(&seen), content(&shown(&other, 60)));
    assert_eq!(stage(&store, 60, &seen), LogReply::Staged);
}

#[test]
fn an_order_that_changed_elsewhere_is_not_claimed_as_it_was() {
    let server = quick_server();
    let (store, other) = (open(&in_memory(&server)), open(&in_memory(&server)));
    register(&store);
    create(&store, 1 << 40);
    add(&store, 1 << 40, 7);
    add(&other, 1 << 40, 8);
    let recalled = store.recall(number(1 << 40)).unwrap();
    assert_eq!(recalled.lines.len(), 1);
    assert!(is_changed(&stage(&store, 1 << 40, &recalled)));
    assert_eq!(shown(&other, 1 << 40).state, OrderState::Open);
}

#[test]
fn orders_replaced_by_this_process_or_another_are_not_claimed_as_they_were() {
    let server = quick_server();
    let (store, other) = (open(&in_memory(&server)), open(&in_memory(&server)));
    replace(&store, 1);
    register(&store);
    _ = look(&store, 0);
    replace(&store, 2);
    assert_eq!(store.recall(number(1)), None);
    _ = look(&store, 0);
    replace(&other, 3);
    let recalled = store.recall(number(1)).unwrap();
    assert!(is_changed(&stage(&store, 1, &recalled)));
    assert_eq!(store.recall(number(2)), None);
    _ = look(&store, 0);
    let recalled = store.recall(number(2)).unwrap();
    assert_eq!(content(&recalled), content(&shown(&other, 2)), "the new ones are known from one of them");
    assert_eq!(stage(&store, 2, &recalled), LogReply::Staged);
}

/// A server that loses what it was told last gives the same version to what comes instead. Whoever saw what was lost must not pay for that.
#[test]
fn a_version_that_was_lost_and_is_used_again_claims_nothing() {
    let mut server = Server::start(Persistence::None).unwrap();
    let (store, other) = (open(&in_memory(&server)), open(&in_memory(&server)));
    register(&store);
    let (remembered, looked_at) = (1 << 40, (1 << 40) + 1);
    create(&store, remembered);
    create(&store, looked_at);
    assert_eq!(server.ask("SAVE").unwrap().trim(), "+OK");
    add(&store, remembered, 7);
    add(&other, looked_at, 7);
    let recalled = store.recall(number(remembered)).unwrap();
    let seen = look(&store, looked_at);
    add(&store, remembered, 7);
    server.kill().unwrap();
    server.restart().unwrap();
    // In the same order: each gets the version that was lost.
    let until = std::time::Instant::now() + PATIENCE;
    while query(&other, OrdersQuery::Progress).is_err() || query(&store, OrdersQuery::Progress).is_err() {
        assert!(std::time::Instant::now() < until, "{:?}", store.trouble());
    }
    assert_eq!(store.recall(number(remembered)), None, "what was seen over another connection is forgotten");
    add(&other, remembered, 8);
    add(&other, looked_at, 8);
    for (order, was) in [(remembered, recalled), (looked_at, seen)] {
        let is = shown(&other, order);
        // Without the connection that stands above it.
        assert_eq!(was.version % (1 << 53), is.version);
        assert_ne!(content(&was), content(&is));
        let told = stage(&store, order, &was);
        assert!(is_changed(&told), "{told:?}");
        assert_eq!(stage(&store, order, &look(&store, order)), LogReply::Staged);
    }
}
