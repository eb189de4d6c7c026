//! What becomes of orders and of their log when the server does not do what it should.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use ledger::EntityId;
use orchestrator::{Log, LogAnswer, LogError, LogQuery};
use protocol::log::{LogCommand, LogReply, StageRefusal, Writer};
use protocol::{
    Cause, Decision, Epoch, Name, Order as StepOrder, Payload, Protocol, Recovery, Step, Timestamp, Transaction,
    TransactionId,
};
use redis_store::{Durability, Failover, OpenError, Options, Place, RedisLedger, RedisLog};
use servers::redis::{Persistence, Server, Watched};
use servers::wait_until;
use shop::checkout::{CHECKOUT, Claim, STOCK};
use shop::order_store::{OrderStore, OrdersAnswer, OrdersQuery};
use shop::orders::{OrderState, OrdersCommand, OrdersReply};
use shop::redis_orders::{ORDERS, RedisOrders};

use crate::support::{PATIENCE, audit, begin, in_memory, open, options, query, quick_server, read, submit};

const WRITER: Writer = Writer { instance: Name::literal("order-1"), epoch: Epoch(1) };
const ORDERS_COUNT: u64 = 100_000;
/// How long a store may wait in these tests.
const SHORT: Duration = Duration::from_secs(1);
/// How long a failover, or the way back of a server, may take.
const FAILOVER: Duration = Duration::from_secs(40);

fn hasty(options: Options) -> Options {
    Options { wait: SHORT, patience: SHORT, ..options }
}

fn id(n: u64) -> TransactionId {
    let mut random = [0; 16];
    random[..8].copy_from_slice(&n.to_be_bytes());
    TransactionId::new(Timestamp(1_000 + n), random)
}

/// The stage of the nth transaction: it claims the nth order, which nobody has touched.
fn stage(n: u64) -> LogCommand {
    let context = Claim { order: EntityId::number(n), version: n + 1 }.encode().unwrap();
    let transaction = Transaction {
        id: id(n),
        definition: CHECKOUT,
        protocol: Protocol::TwoPhase,
        order: StepOrder::Parallel,
        recovery: Recovery::Backward,
        steps: [Step { service: STOCK, payload: Payload::from(&[1, 2, 3][..]) }].into(),
        context,
    };
    LogCommand::Stage { writer: WRITER, transaction: Arc::new(transaction) }
}

fn decide(n: u64, decision: Decision) -> LogCommand {
    LogCommand::Decide { writer: WRITER, id: id(n), decision, now: Timestamp(5) }
}

/// Registers the writer and makes orders, with the patience of a machine that has much else to do. Gives a store with these options.
fn seeded(options: &Options) -> RedisOrders {
    let store = open(&Options { wait: PATIENCE, patience: PATIENCE, ..options.clone() });
    let register = LogCommand::Register { instance: WRITER.instance, now: Timestamp(0), lease: u64::MAX };
    let told = submit(&store, OrdersCommand::Log(register));
    assert_eq!(told, Ok(OrdersReply::Log(LogReply::Registered(WRITER.epoch))));
    let replace = OrdersCommand::Replace { count: ORDERS_COUNT, items: 10, users: 10, price: 1, seed: 1 };
    assert_eq!(submit(&store, replace), Ok(OrdersReply::Done));
    open(options)
}

type Told = Receiver<Result<LogReply, LogError>>;

fn begin_decide(store: &RedisOrders, command: LogCommand) -> (Told, Told) {
    let ((first, readable), (second, durable)) = (channel(), channel());
    let (first, second) = (Box::new(move |told| _ = first.send(told)), Box::new(move |told| _ = second.send(told)));
    store.decide(command, first, second);
    (readable, durable)
}

/// Decides until somebody knows how: a decision is a compare-and-set, so it may be asked for again.
fn insist(store: &RedisOrders, n: u64, decision: &Decision) -> LogReply {
    let until = Instant::now() + FAILOVER;
    loop {
        let (_, durable) = begin_decide(store, decide(n, decision.clone()));
        match durable.recv_timeout(PATIENCE).unwrap() {
            Ok(reply) => return reply,
            Err(error) => assert!(Instant::now() < until, "still {error}"),
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Checks one order out, as a coordinator does whose participants all say yes. Whether it was paid.
fn check_out(store: &RedisOrders, n: u64) -> bool {
    let abort = Decision::Abort(Cause::Unavailable { step: None });
    match submit(store, OrdersCommand::Log(stage(n))) {
        Ok(OrdersReply::Log(LogReply::Staged)) => {
            // What is readable may be told to the client, for the stage is durable.
            let (readable, _) = begin_decide(store, decide(n, Decision::Commit));
            _ = readable.recv_timeout(PATIENCE).unwrap();
            let reply = insist(store, n, &Decision::Commit);
            assert!(matches!(reply, LogReply::Decided { decision: Decision::Commit, .. }), "{n}: {reply:?}");
            true
        }
        Ok(other) => panic!("{n}: {other:?}"),
        // It may be in the log, or come there late: so it is aborted, and never staged again.
        Err(_) => {
            let reply = insist(store, n, &abort);
            assert!(matches!(reply, LogReply::Decided { decision: Decision::Abort(_), .. }), "{n}: {reply:?}");
            false
        }
    }
}

/// Checks orders out, one after another, while `strike` does its worst. Returns which were paid.
fn work_through(store: &RedisOrders, strike: impl FnOnce()) -> Vec<bool> {
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let worker = scope.spawn(|| {
            let mut paid = Vec::new();
            while !stop.load(Ordering::Relaxed) {
                paid.push(check_out(store, paid.len() as u64));
            }
            paid
        });
        strike();
        stop.store(true, Ordering::Relaxed);
        worker.join().unwrap()
    })
}

fn check(store: &RedisOrders, paid: &[bool]) {
    let found = audit(store);
    assert_eq!(found.discrepancies, []);
    assert_eq!(found.paid.orders, paid.iter().filter(|paid| **paid).count() as u64, "all that was told, and no more");
    for (n, paid) in paid.iter().enumerate() {
        let n = n as u64;
        let state = match query(store, OrdersQuery::Order(EntityId::number(n))) {
            Ok(OrdersAnswer::Order(Some(order))) => order.state,
            other => panic!("{n}: {other:?}"),
        };
        assert_eq!(state, if *paid { OrderState::Paid(id(n)) } else { OrderState::Open }, "{n}");
    }
}

#[test]
fn whatever_was_acknowledged_survives_the_kill_of_the_server() {
    let mut server = Server::start(Persistence::Always).unwrap();
    let store = seeded(&hasty(options(&server)));
    // Many under way when it ends.
    let mut answers = Vec::new();
    for n in 0..3_000 {
        answers
            .push((begin(&store, OrdersCommand::Log(stage(n))), begin_decide(&store, decide(n, Decision::Commit)).1));
        if n == 1_500 {
            assert!(wait_until(PATIENCE, || store.statistics().scripts > 300));
            server.kill().unwrap();
        }
    }
    let told: Vec<_> = answers
        .into_iter()
        .map(|(staged, decided)| (staged.recv_timeout(PATIENCE).unwrap(), decided.recv_timeout(PATIENCE).unwrap()))
        .collect();
    server.restart().unwrap();
    let back = || query(&store, OrdersQuery::Progress).is_ok();
    assert!(wait_until(FAILOVER, back), "{:?}", store.trouble());
    let (mut acknowledged, mut unknown, mut paid) = (0, 0, Vec::new());
    for (n, (staged, decided)) in told.into_iter().enumerate() {
        let n = n as u64;
        let LogAnswer::Transaction(record) = read(&store, LogQuery::Transaction(id(n))) else { panic!("{n}") };
        if staged.is_ok() {
            assert!(record.is_some(), "{n}: staged, and gone");
        }
        if decided.is_ok() {
            let decision = record.as_ref().and_then(|record| record.decision());
            assert_eq!(decision, Some(&Decision::Commit), "{n}: decided, and gone");
            acknowledged += 1;
            paid.push(true);
        } else {
            unknown += 1;
            // Found staged, and every branch prepared: recovery would commit. Not found: it never will be.
            let decision = if record.is_some() { Decision::Commit } else { Decision::Abort(Cause::Recovered) };
            let reply = insist(&store, n, &decision);
            assert!(matches!(&reply, LogReply::Decided { decision: told, .. } if *told == decision), "{n}: {reply:?}");
            paid.push(decision.is_commit());
        }
    }
    println!("{acknowledged} acknowledged, {unknown} not");
    assert!(acknowledged > 100 && unknown > 100, "{acknowledged} acknowledged, {unknown} not");
    check(&store, &paid);
}

#[test]
fn a_killed_master_costs_nothing_that_was_acknowledged() {
    let mut servers = Watched::start(Persistence::Always, 1, 3, Duration::from_millis(700)).unwrap();
    let place = Place::Sentinel { sentinels: servers.addresses(), master: servers.name.clone() };
    let strict = Options {
        durability: Durability::Replicated { replicas: 1 },
        failover: Failover::LosesNothing,
        ..hasty(Options::new(place))
    };
    let store = seeded(&strict);
    let paid = work_through(&store, || {
        assert!(wait_until(FAILOVER, || store.statistics().scripts > 200));
        servers.servers[0].kill().unwrap();
        assert!(wait_until(FAILOVER, || servers.master().is_some_and(|master| master != 0)), "nobody was promoted");
        // Nothing is acknowledged until there is a replica again.
        servers.servers[0].restart().unwrap();
        let before = store.statistics().scripts;
        assert!(wait_until(FAILOVER, || store.statistics().scripts > before + 400), "{:?}", store.trouble());
    });
    assert!(store.statistics().connections >= 2);
    println!("{} checked out, {} paid", paid.len(), paid.iter().filter(|paid| **paid).count());
    let until = Instant::now() + FAILOVER;
    while query(&store, OrdersQuery::Progress).is_err() {
        assert!(Instant::now() < until, "{:?}", store.trouble());
        std::thread::sleep(Duration::from_millis(50));
    }
    check(&store, &paid);
}

#[test]
fn a_decision_is_told_before_the_replicas_have_it_and_nothing_else_is() {
    let server = Server::start(Persistence::Always).unwrap();
    let mut replica = server.start_replica(Persistence::Always).unwrap();
    assert!(wait_until(PATIENCE, || server.ask("INFO replication").unwrap().contains("state=online")));
    let replicated = Options { durability: Durability::Replicated { replicas: 1 }, ..options(&server) };
    let store = seeded(&Options { wait: Duration::from_secs(3), ..replicated.clone() });
    assert_eq!(submit(&store, OrdersCommand::Log(stage(1))), Ok(OrdersReply::Log(LogReply::Staged)));
    replica.process().freeze().unwrap();
    let (readable, durable) = begin_decide(&store, decide(1, Decision::Commit));
    let told = readable.recv_timeout(Duration::from_secs(2)).expect("as soon as it is applied");
    assert_eq!(told, Ok(LogReply::Decided { decision: Decision::Commit, first: true }));
    assert!(durable.try_recv().is_err(), "no replica has it");
    assert!(durable.recv_timeout(PATIENCE).unwrap().is_err(), "nor within the time");
    let other = open(&hasty(replicated));
    let told = submit(&other, OrdersCommand::Log(stage(2)));
    assert!(told.is_err(), "a stage is told when the replica has it: {told:?}");
    replica.process().thaw().unwrap();
    assert_eq!(insist(&other, 1, &Decision::Commit), LogReply::Decided { decision: Decision::Commit, first: false });
}

/// A look waited for the replicas behind its back, and the stage that follows it waited for the look.
#[test]
fn a_look_at_what_may_not_be_durable_holds_up_nobody_behind_it() {
    let server = Server::start(Persistence::Always).unwrap();
    let mut replica = server.start_replica(Persistence::Always).unwrap();
    assert!(wait_until(PATIENCE, || server.ask("INFO replication").unwrap().contains("state=online")));
    let replicated = Options { durability: Durability::Replicated { replicas: 1 }, ..options(&server) };
    let store = seeded(&Options { wait: Duration::from_secs(30), ..replicated });
    replica.process().freeze().unwrap();
    let look = || {
        let (send, answer) = channel();
        store.peek(OrdersQuery::Order(EntityId::number(1)), Box::new(move |found| _ = send.send(found)));
        answer.recv_timeout(PATIENCE).expect("it waits for no replica")
    };
    for _ in 0..3 {
        assert!(matches!(look(), Ok(OrdersAnswer::Order(Some(_)))));
    }
    let (send, shown) = channel();
    store.query(OrdersQuery::Order(EntityId::number(1)), Box::new(move |found| _ = send.send(found)));
    assert!(shown.recv_timeout(Duration::from_millis(500)).is_err(), "what is shown is durable");
    replica.process().thaw().unwrap();
    assert!(matches!(shown.recv_timeout(PATIENCE).unwrap(), Ok(OrdersAnswer::Order(Some(_)))));
}

#[test]
fn nothing_is_told_early_where_a_failover_may_lose_what_it_rests_on() {
    let mut servers = Watched::start(Persistence::Always, 1, 1, Duration::from_secs(30)).unwrap();
    let place = Place::Sentinel { sentinels: servers.addresses(), master: servers.name.clone() };
    let lax = Options {
        durability: Durability::Replicated { replicas: 1 },
        failover: Failover::MayLoseAcknowledgedWrites,
        ..hasty(Options::new(place))
    };
    let store = seeded(&lax);
    assert_eq!(submit(&store, OrdersCommand::Log(stage(1))), Ok(OrdersReply::Log(LogReply::Staged)));
    servers.servers[1].process().freeze().unwrap();
    let (readable, durable) = begin_decide(&store, decide(1, Decision::Commit));
    assert!(durable.recv_timeout(PATIENCE).unwrap().is_err(), "no replica has it");
    assert!(readable.recv_timeout(PATIENCE).unwrap().is_err(), "and it was not told before");
    servers.servers[1].process().thaw().unwrap();
}

/// A stage that certainly never left is refused, so that its transaction is rolled back at once. One of which nobody knows whether it is there is
/// not: whoever took that for "no" would release what recovery may find staged, prepared, and so committed.
#[test]
fn a_stage_is_refused_if_it_never_left_and_unknown_if_it_may_have() {
    let mut server = Server::start(Persistence::Always).unwrap();
    let store = seeded(&hasty(options(&server)));
    let log = &store as &dyn Log;
    let staged = |n| {
        let (told, answer) = channel();
        log.append(stage(n), Box::new(move |reply| _ = told.send(reply)));
        answer.recv_timeout(PATIENCE).unwrap()
    };
    assert_eq!(staged(1), Ok(LogReply::Staged));
    server.process().freeze().unwrap();
    let unknown = staged(2);
    assert!(unknown.is_err(), "it may have arrived: {unknown:?}");
    server.process().thaw().unwrap();
    server.process().kill().unwrap();
    // The first one finds the connection broken, perhaps when it was written to already; those behind it find no server.
    let until = Instant::now() + PATIENCE;
    let mut n = 3;
    while staged(n) != Ok(LogReply::StageRefused(StageRefusal::NotSent)) {
        assert!(Instant::now() < until, "nobody is there to send it to");
        n += 1;
    }
    server.restart().unwrap();
    let order = loop {
        match query(&store, OrdersQuery::Order(EntityId::number(n))) {
            Ok(OrdersAnswer::Order(Some(order))) => break order,
            other => assert!(Instant::now() < until, "{other:?}"),
        }
    };
    assert_eq!(order.state, OrderState::Open, "what was refused is not there");
}

#[test]
fn the_order_of_the_calls_outlives_that_the_server_forgets_the_scripts() {
    let server = quick_server();
    let store = seeded(&in_memory(&server));
    for round in 0..20 {
        let mut answers = Vec::new();
        for n in round * 100..round * 100 + 100 {
            answers.push((
                begin(&store, OrdersCommand::Log(stage(n))),
                begin_decide(&store, decide(n, Decision::Commit)).1,
            ));
            if n % 100 == round {
                server.ask("SCRIPT FLUSH").unwrap();
            }
        }
        for (staged, decided) in answers {
            let (staged, decided) = (staged.recv_timeout(PATIENCE).unwrap(), decided.recv_timeout(PATIENCE).unwrap());
            // Not done, at worst; and then what came behind it finds nothing staged.
            match staged {
                Ok(reply) => {
                    assert_eq!(reply, OrdersReply::Log(LogReply::Staged));
                    let committed = LogReply::Decided { decision: Decision::Commit, first: true };
                    assert!(decided.is_err() || decided == Ok(committed), "{decided:?}");
                }
                Err(_) => assert!(matches!(decided, Ok(LogReply::NotStaged) | Err(_)), "{decided:?}"),
            }
        }
    }
    assert_eq!(store.statistics().unknown, 0);
    assert_eq!(audit(&store).discrepancies, []);
}

#[test]
fn a_server_without_its_data_stops_the_store_and_one_with_another_kind_is_refused() {
    let mut server = quick_server();
    let store = seeded(&hasty(in_memory(&server)));
    for refused in [
        RedisLedger::open(ORDERS, &in_memory(&server)).map(|_| ()),
        RedisLog::open(ORDERS, &in_memory(&server)).map(|_| ()),
    ] {
        let error = refused.expect_err("orders are kept there");
        assert!(matches!(&error, OpenError::AnotherKind { found, .. } if found == "orders 2"), "{error}");
    }
    assert_eq!(submit(&store, OrdersCommand::Log(stage(1))), Ok(OrdersReply::Log(LogReply::Staged)));
    server.kill().unwrap();
    server.restart().unwrap();
    let stopped = || {
        let (_, durable) = begin_decide(&store, decide(1, Decision::Commit));
        let told = durable.recv_timeout(PATIENCE).unwrap();
        assert!(told.is_err(), "a log that is lost must not be taken for one without the transaction: {told:?}");
        store.stopped().is_some()
    };
    assert!(wait_until(FAILOVER, stopped));
}
