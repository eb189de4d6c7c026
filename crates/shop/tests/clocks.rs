//! A ledger service whose database's clock is set.

#![allow(clippy::unwrap_used, reason = "in a test a broken expectation is a failed test")]

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use ledger::{EntityId, Entry, LedgerCommand, LedgerReply, entries};
use orchestrator::{
    Clock, Done, LedgerAnswer, LedgerQuery, LedgerStore, LogError, Participant, StoreFailure, SystemClock, memory,
};
use protocol::limits::{ORPHAN_AGE_MS, TERMINATION_AGE_MS};
use protocol::log::Verdict;
use protocol::{BranchId, BranchState, Command, Reply, Timestamp, TransactionId, Verb};
use shop::checkout::STOCK;
use shop::faults::Faults;
use shop::ledger_service::{LedgerParts, LedgerService};
use shop::ports::{NoPeers, Verdicts};

const STEP_MS: u64 = 600_000;
/// It is looked after every half a second.
const SOON: Duration = Duration::from_millis(1_100);
/// Longer than a test takes.
const LONG_MS: u64 = 10_000;
const PATIENCE: Duration = Duration::from_secs(10);
const ITEM: EntityId = EntityId::number(7);

/// A ledger whose database has a clock of its own, which does not tell the time while it is set to none.
#[derive(Clone)]
struct OwnTime {
    ledger: memory::MemoryLedger,
    clock: Arc<SystemClock>,
    ahead: Arc<AtomicU64>,
}

const SILENT: u64 = u64::MAX;

impl LedgerStore for OwnTime {
    fn submit(&self, command: LedgerCommand, done: Done<Result<LedgerReply, StoreFailure>>) {
        self.ledger.submit(command, done);
    }

    fn read(&self, query: LedgerQuery, done: Done<Result<LedgerAnswer, StoreFailure>>) {
        LedgerStore::read(&self.ledger, query, done);
    }

    fn time(&self, done: Done<Result<Timestamp, StoreFailure>>) {
        done(match self.ahead.load(Ordering::Relaxed) {
            SILENT => Err(StoreFailure::Unknown("the connection broke".to_owned())),
            ahead => Ok(self.clock.now().plus(ahead)),
        });
    }

    fn stopped(&self) -> Option<String> {
        None
    }
}

/// Nothing was ever staged.
struct NeverStaged;

impl Verdicts for NeverStaged {
    fn ask(&self, ids: Vec<TransactionId>, done: Done<Result<Vec<Verdict>, LogError>>) {
        done(Ok(vec![Verdict::Aborted; ids.len()]));
    }
}

struct Stock {
    store: OwnTime,
    service: LedgerService,
    clock: Arc<SystemClock>,
}

impl Stock {
    fn start() -> Self {
        let store = OwnTime {
            ledger: memory::MemoryLedger::with_accounts([(ITEM, 5)]),
            clock: Arc::default(),
            ahead: Arc::default(),
        };
        let service = LedgerService::new(LedgerParts {
            name: STOCK,
            store: Arc::new(store.clone()),
            verdicts: Arc::new(NeverStaged),
            faults: Arc::new(Faults::new(false)),
            others: Arc::new(NoPeers),
            production: false,
        });
        let clock = Arc::<SystemClock>::default();
        tokio::spawn(service.clone().look_after(Arc::clone(&clock)));
        Self { store, service, clock }
    }

    /// The database's clock, and those of the order instances, are set to so much ahead of the machine's; and this is looked after with that.
    async fn set(&self, ahead: u64) {
        self.store.ahead.store(ahead, Ordering::Relaxed);
        // One that does not tell the time changes nothing, and that takes a while to be seen.
        let Some(known) = Some(ahead).filter(|ahead| *ahead != SILENT) else { return tokio::time::sleep(SOON).await };
        self.until(|stock| stock.clock.now().since(stock.store.clock.now()).abs_diff(known) < LONG_MS / 2).await;
    }

    async fn until(&self, holds: impl Fn(&Self) -> bool) {
        let until = std::time::Instant::now() + PATIENCE;
        while !holds(self) {
            assert!(std::time::Instant::now() < until, "{} are held, and it is {:?}", self.held(), self.clock.now());
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// Holds one unit, for a transaction of this birth.
    fn hold(&self, born: Timestamp) {
        let branch = BranchId { transaction: TransactionId::new(born, [1; 16]), step: 0 };
        let payload = entries::encode(&[Entry { account: ITEM, amount: 1 }]).unwrap();
        let prepared = |reply| assert_eq!(reply, Reply::Done(BranchState::Prepared));
        self.store.ledger.handle(Command { branch, verb: Verb::Prepare, payload }, Box::new(prepared));
    }

    fn held(&self) -> i64 {
        self.store.ledger.read(|ledger| ledger.account(ITEM).unwrap().held)
    }
}

/// Found by an attack: goods and credit of a checkout whose coordinator had died were held for as long as the step was.
#[tokio::test]
async fn what_nobody_comes_back_for_is_released_although_the_clocks_were_set_ahead() {
    let stock = Stock::start();
    stock.set(STEP_MS).await;
    let born = stock.store.clock.now().plus(STEP_MS);
    stock.hold(born.plus(LONG_MS));
    tokio::time::sleep(SOON).await;
    assert_eq!(stock.held(), 1, "it is young, by any clock");
    stock.hold(born.minus(TERMINATION_AGE_MS + 1));
    assert_eq!(stock.held(), 2);
    stock.until(|stock| stock.held() == 1).await;
    // An order instance says that one is gone. The database does not tell the time any more, which changes nothing.
    stock.set(SILENT).await;
    stock.hold(born.minus(ORPHAN_AGE_MS + 1));
    assert_eq!(stock.held(), 2);
    stock.service.terminate_orphans(stock.clock.now());
    assert_eq!(stock.held(), 1);
}

#[tokio::test]
async fn what_is_young_is_not_asked_about_once_clocks_that_were_ahead_are_right_again() {
    let stock = Stock::start();
    stock.set(STEP_MS).await;
    stock.set(0).await;
    stock.hold(stock.store.clock.now().plus(LONG_MS));
    tokio::time::sleep(SOON).await;
    stock.service.terminate_orphans(stock.clock.now());
    assert_eq!(stock.held(), 1);
}
