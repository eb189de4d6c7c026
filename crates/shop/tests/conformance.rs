//! The shop's adapters pass the orchestrator's suites, on a disk.

#![allow(clippy::unwrap_used, reason = "in a test a broken expectation is a failed test")]

use std::sync::Arc;
use std::sync::mpsc::channel;

use embedded::{Options, Store};
use ledger::{Change, EntityId, Ledger, LedgerCommand, LedgerReply};
use orchestrator::{
    Done, LedgerAnswer, LedgerQuery, LedgerStore, Log, LogAnswer, LogError, LogQuery, Participant, StoreFailure,
    conformance,
};
use protocol::Command;
use protocol::log::{LogCommand, LogReply};
use shop::checkout::STOCK;
use shop::ledger_store::EmbeddedLedger;
use shop::order_store::{OrderStore, OrdersAnswer, OrdersQuery, order_store};
use shop::orders::{OrdersCommand, OrdersReply};
use shop::participant::LedgerService;
use shop::store::OrderLog;
use tempfile::TempDir;

fn open<M: embedded::Machine>() -> (Store<M>, TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let options = Options { segment_bytes: 64 << 10, ..Options::default() };
    let (store, _) = Store::open(folder.path(), options).unwrap();
    (store, folder)
}

/// The order database, and the folder that goes with it.
struct OrdersOnDisk {
    orders: OrderLog,
    _folder: TempDir,
}

impl Log for OrdersOnDisk {
    fn append(&self, command: LogCommand, done: Done<Result<LogReply, LogError>>) {
        self.orders.append(command, done);
    }

    fn decide(
        &self,
        command: LogCommand,
        readable: Done<Result<LogReply, LogError>>,
        durable: Done<Result<LogReply, LogError>>,
    ) {
        self.orders.decide(command, readable, durable);
    }

    fn read(&self, query: LogQuery, done: Done<Result<LogAnswer, LogError>>) {
        self.orders.read(query, done);
    }
}

impl OrderStore for OrdersOnDisk {
    fn submit(&self, command: OrdersCommand, done: Done<Result<OrdersReply, StoreFailure>>) {
        self.orders.submit(command, done);
    }

    fn query(&self, query: OrdersQuery, done: Done<Result<OrdersAnswer, StoreFailure>>) {
        self.orders.query(query, done);
    }

    fn stopped(&self) -> Option<String> {
        self.orders.stopped()
    }
}

#[test]
fn the_orders_and_their_log_on_disk() {
    order_store(|| {
        let (store, folder) = open();
        Arc::new(OrdersOnDisk { orders: OrderLog(store), _folder: folder })
    });
}

struct OnDisk {
    service: LedgerService,
    _folder: TempDir,
}

impl Participant for OnDisk {
    fn handle(&self, command: Command, done: Done<protocol::Reply>) {
        self.service.handle(command, done);
    }
}

#[test]
fn the_ledger_service() {
    conformance::ledger_participant(|| {
        let (store, folder) = open::<Ledger>();
        let account = EntityId::number(1);
        for change in [Change::Open { account, price: 0 }, Change::Credit { account, amount: 1 }] {
            let (send, answer) = channel();
            store.submit(LedgerCommand::Change { change, key: None }, move |reply| _ = send.send(reply));
            assert!(matches!(answer.recv().unwrap(), Ok(LedgerReply::Account(..))));
        }
        Arc::new(OnDisk { service: LedgerService::new(STOCK, store, false, Arc::default()), _folder: folder })
    });
}

struct LedgerOnDisk {
    ledger: EmbeddedLedger,
    _folder: TempDir,
}

impl LedgerStore for LedgerOnDisk {
    fn submit(&self, command: LedgerCommand, done: Done<Result<LedgerReply, StoreFailure>>) {
        self.ledger.submit(command, done);
    }

    fn read(&self, query: LedgerQuery, done: Done<Result<LedgerAnswer, StoreFailure>>) {
        self.ledger.read(query, done);
    }

    fn stopped(&self) -> Option<String> {
        self.ledger.stopped()
    }
}

#[test]
fn the_ledger_store_on_disk() {
    conformance::ledger_store(|| {
        let (store, folder) = open();
        Arc::new(LedgerOnDisk { ledger: EmbeddedLedger(store), _folder: folder })
    });
}
