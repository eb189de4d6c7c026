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
use shop::checkout::{Claim, STOCK};
use shop::faults::Faults;
use shop::ledger_store::EmbeddedLedger;
use shop::orders::{OrderBook, OrderState, OrdersCommand};
use shop::participant::LedgerParticipant;
use shop::store::OrderLog;
use tempfile::TempDir;

fn open<M: embedded::Machine>() -> (Store<M>, TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let options = Options { segment_bytes: 64 << 10, ..Options::default() };
    let (store, _) = Store::open(folder.path(), options).unwrap();
    (store, folder)
}

/// The order book refuses a transaction that claims no order; the suite knows nothing of orders. Each transaction of the suite is
/// given an order of its own, and a claim on it. A repeated stage claims the same order at the same version.
struct ClaimingLog {
    log: OrderLog,
    _folder: TempDir,
}

impl ClaimingLog {
    fn with_claim(&self, command: LogCommand) -> LogCommand {
        let LogCommand::Stage { writer, transaction } = command else { return command };
        let order = EntityId::uuid(uuid::Uuid::from_bytes(*transaction.id.as_bytes()));
        let create = OrdersCommand::Create { order, user: EntityId::number(1), key: None };
        self.log.0.submit(create, |_| {});
        let version = self.log.0.read(|book| book.order(order).unwrap().version).unwrap();
        let mut transaction = (*transaction).clone();
        transaction.context = Claim { order, version }.encode().unwrap();
        LogCommand::Stage { writer, transaction: Arc::new(transaction) }
    }

    /// An order is claimed, paid or open again exactly as the log has it.
    fn check(&self) {
        let look = |book: &OrderBook| {
            for (id, order) in book.orders() {
                let of =
                    |transaction| book.transactions().get(transaction).and_then(|record| record.decision().cloned());
                match order.state {
                    OrderState::Open => {}
                    OrderState::CheckingOut(transaction) => assert_eq!(of(transaction), None, "{id}"),
                    OrderState::Paid(transaction) => {
                        let record = book.transactions().get(transaction);
                        // The record of a paid order may be forgotten.
                        assert!(
                            record.is_none() || of(transaction).is_some_and(|decision| decision.is_commit()),
                            "{id}"
                        );
                    }
                }
            }
        };
        self.log.0.read(look).unwrap();
    }
}

impl Log for ClaimingLog {
    fn append(&self, command: LogCommand, done: Done<Result<LogReply, LogError>>) {
        self.log.append(self.with_claim(command), done);
        self.check();
    }

    fn decide(
        &self,
        command: LogCommand,
        readable: Done<Result<LogReply, LogError>>,
        durable: Done<Result<LogReply, LogError>>,
    ) {
        self.log.decide(command, readable, durable);
        self.check();
    }

    fn read(&self, query: LogQuery, done: Done<Result<LogAnswer, LogError>>) {
        self.log.read(query, done);
    }
}

#[test]
fn the_log_that_lives_with_the_orders() {
    conformance::log(|| {
        let (store, folder) = open();
        Arc::new(ClaimingLog { log: OrderLog(store), _folder: folder })
    });
}

struct OnDisk {
    service: LedgerParticipant<EmbeddedLedger>,
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
        Arc::new(OnDisk {
            service: LedgerParticipant::new(STOCK, EmbeddedLedger(store), Arc::new(Faults::new(false)), Arc::default()),
            _folder: folder,
        })
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
