//! What paid orders come to, beyond what 64 bits can count.

#![allow(clippy::unwrap_used, reason = "in a test a broken expectation is a failed test")]

use std::sync::Arc;

use ledger::EntityId;
use protocol::limits::MAX_AMOUNT;
use protocol::log::{LogCommand, LogReply, Writer};
use protocol::{Decision, Name, Order, Protocol, Recovery, Timestamp, Transaction, TransactionId};
use shop::checkout::{CHECKOUT, Claim, steps};
use shop::orders::{Line, OrderBook, OrdersCommand, OrdersReply};

#[test]
fn any_number_of_paid_orders_adds_up() {
    const ORDERS: u64 = 1_100;
    let (item, user, now) = (EntityId::number(7), EntityId::number(8), Timestamp(1));
    let mut book = OrderBook::default();
    let instance = Name::literal("test");
    let register = LogCommand::Register { instance, now, lease: u64::MAX };
    let OrdersReply::Log(LogReply::Registered(epoch)) = book.apply(&OrdersCommand::Log(register)).0 else {
        panic!("registering answers with an epoch")
    };
    let writer = Writer { instance, epoch };
    for n in 0..ORDERS {
        let order = EntityId::number(n);
        book.apply(&OrdersCommand::Create { order, user, key: None });
        // Many units of a cheap item in one order, one unit of a dear one in the next.
        let (quantity, price) = if n % 2 == 0 { (MAX_AMOUNT, 1) } else { (1, MAX_AMOUNT) };
        book.apply(&OrdersCommand::AddItem { order, line: Line { item, quantity, price }, key: None });
        let found = book.order(order).unwrap();
        let transaction = Transaction {
            id: TransactionId::new(Timestamp(1 + n), [1; 16]),
            definition: CHECKOUT,
            protocol: Protocol::TwoPhase,
            order: Order::Parallel,
            recovery: Recovery::Backward,
            steps: steps(found).unwrap().into(),
            context: Claim { order, version: found.version }.encode().unwrap(),
        };
        let id = transaction.id;
        book.apply(&OrdersCommand::Log(LogCommand::Stage { writer, transaction: Arc::new(transaction) }));
        book.apply(&OrdersCommand::Log(LogCommand::Decide { writer, id, decision: Decision::Commit, now }));
    }
    let (paid, all) = (book.paid(), i128::from(MAX_AMOUNT));
    assert_eq!(paid.orders, ORDERS);
    assert_eq!(paid.by_user[&user], i128::from(ORDERS) * all);
    assert_eq!(paid.by_item[&item], i128::from(ORDERS / 2) * (all + 1));
}
