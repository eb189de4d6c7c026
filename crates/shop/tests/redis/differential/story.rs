//! Random histories of everything that an order book is told.

use std::collections::BTreeSet;
use std::sync::Arc;

use fastrand::Rng;
use ledger::{EntityId, IdempotencyKey};
use protocol::limits::{MAX_AMOUNT, MAX_BATCH, MAX_LEASE_MS};
use protocol::log::{DeadLetter, LogCommand, Resolution, Tries, Writer};
use protocol::{
    Cause, Decision, Epoch, Name, Order as StepOrder, Payload, Protocol, Recovery, Refusal, Step, Timestamp,
    Transaction, TransactionId, Unknown, Verb,
};
use shop::checkout::{CHECKOUT, Claim, PAYMENT, STOCK};
use shop::orders::{Line, OrderBook, OrdersCommand};
use shop::trail::{Act, Note};

/// Transactions that commands are about at one time. They move on with the history, so that old ones are forgotten and come back late.
const WINDOW: u64 = 30;
/// An order whose id is no number.
pub(super) const NAMED: &str = "0190b6e2-7c1f-7c3a-8f00-000000000001";
pub(super) const INSTANCES: [Name; 4] =
    [Name::literal("a"), Name::literal("b.1"), Name::literal("-"), Name::literal("never")];
/// Text that would break a careless encoding.
pub(super) const WORDS: [&str; 6] = ["", "a|b", "c\r\n*1", "\u{fc}@5", "%s {x};", "7 8 9"];

/// Makes commands that meet each other: few orders, few transactions, few keys, few instances.
pub(super) struct Story {
    random: Rng,
    told: u64,
    /// Every transaction that it told of.
    pub(super) used: BTreeSet<TransactionId>,
    /// Whether a million orders are still to be replaced in it.
    a_million: bool,
}

impl Story {
    pub(super) fn new(seed: u64, a_million: bool) -> Self {
        Self { random: Rng::with_seed(seed), told: 0, used: BTreeSet::new(), a_million }
    }

    pub(super) fn number(&mut self, below: u64) -> u64 {
        self.random.u64(0..below)
    }

    fn one_in(&mut self, n: u64) -> bool {
        self.number(n) == 0
    }

    fn word(&mut self) -> &'static str {
        WORDS[self.number(6) as usize]
    }

    fn order(&mut self) -> EntityId {
        match self.number(24) {
            0 => NAMED.parse().unwrap(),
            1 => EntityId::number(u64::MAX),
            2 => EntityId::number(MAX_BATCH + self.random.u64(0..2)),
            3 => EntityId::number(MAX_BATCH - 1),
            n => EntityId::number(n % 8),
        }
    }

    fn account(&mut self) -> EntityId {
        if self.one_in(6) { NAMED.parse().unwrap() } else { EntityId::number(self.random.u64(0..4)) }
    }

    fn id(&mut self) -> TransactionId {
        let n = self.told / 8 + self.number(WINDOW);
        let id = TransactionId::new(Timestamp(1_000 + n / 2 * 10), [n as u8; 16]);
        self.used.insert(id);
        id
    }

    fn ids(&mut self, book: &OrderBook) -> Vec<TransactionId> {
        let open: Vec<_> = book.transactions().open().map(|(id, _)| id).collect();
        let count = self.number(7);
        let one = |story: &mut Self| match open.len() {
            0 => story.id(),
            _ if story.one_in(4) => story.id(),
            len => open[story.number(len as u64) as usize],
        };
        (0..count).map(|_| one(self)).collect()
    }

    fn now(&mut self) -> Timestamp {
        match self.number(40) {
            0 => Timestamp(0),
            1 => Timestamp(u64::MAX),
            _ => Timestamp(1_000 + (self.told / 16 + self.number(WINDOW / 2)) * 10),
        }
    }

    fn instance(&mut self) -> Name {
        INSTANCES[if self.one_in(20) { 3 } else { self.number(3) as usize }]
    }

    /// Mostly one that may write.
    fn writer(&mut self, book: &OrderBook) -> Writer {
        let instance = self.instance();
        let epoch = book.transactions().instances().get(&instance).map_or(0, |lease| lease.epoch.0);
        let epoch = match self.number(12) {
            0 => epoch.saturating_sub(1),
            1 => epoch + 1,
            _ => epoch,
        };
        Writer { instance, epoch: Epoch(epoch) }
    }

    /// Something for the operators' trail.
    fn note(&mut self) -> OrdersCommand {
        if self.one_in(2) {
            return OrdersCommand::NoteOutcome { number: self.number(12), outcome: self.word().into() };
        }
        OrdersCommand::Note(Note {
            at: self.now(),
            operator: self.word().into(),
            act: if self.one_in(2) { Act::Retry } else { Act::Resolve },
            transaction: self.id(),
            step: self.one_in(2).then_some(3),
            reason: self.one_in(2).then(|| self.word().into()),
        })
    }

    fn key(&mut self) -> Option<IdempotencyKey> {
        self.one_in(3).then(|| self.certain_key())
    }

    fn certain_key(&mut self) -> IdempotencyKey {
        let fingerprint = [0, u64::MAX][usize::from(self.one_in(6))];
        IdempotencyKey { key: self.word().into(), fingerprint, at: Timestamp(self.number(9)) }
    }

    fn line(&mut self) -> Line {
        let quantity = match self.number(60) {
            0 => MAX_AMOUNT,
            1 => MAX_AMOUNT / 2,
            n => n as i64 % 5 + 1,
        };
        let price = match self.number(60) {
            0 => MAX_AMOUNT,
            1 => MAX_AMOUNT / 3,
            n => n as i64 % 4,
        };
        Line { item: self.account(), quantity, price }
    }

    pub(super) fn transaction(&mut self, book: &OrderBook) -> Arc<Transaction> {
        let (id, order) = (self.id(), self.order());
        let version = book.order(order).map_or(7, |order| order.version);
        let version = if self.one_in(10) { version.wrapping_sub(1) } else { version };
        let context = match self.number(40) {
            0 => Payload::EMPTY,
            1 => Payload::from(&[1, 200, 200, 200][..]),
            _ => Claim { order, version }.encode().unwrap(),
        };
        let payload = |story: &mut Self| {
            let bytes: Vec<u8> = (0..story.number(40)).map(|_| story.random.u8(..)).collect();
            Payload::from(bytes)
        };
        let mut steps = vec![Step { service: STOCK, payload: payload(self) }];
        if self.one_in(2) {
            steps.push(Step { service: PAYMENT, payload: payload(self) });
        }
        Arc::new(Transaction {
            id,
            definition: CHECKOUT,
            protocol: [Protocol::TwoPhase, Protocol::Saga][self.number(2) as usize],
            order: StepOrder::Parallel,
            recovery: Recovery::Backward,
            steps: steps.into(),
            context,
        })
    }

    fn decision(&mut self) -> Decision {
        match self.number(8) {
            0..=3 => Decision::Commit,
            4 => Decision::Abort(Cause::Recovered),
            5 => Decision::Abort(Cause::Unavailable { step: Some(1) }),
            6 => Decision::Abort(Cause::NeverStaged),
            _ => {
                let refusal = Box::new(Refusal::new(Name::literal("insufficient"), self.word()));
                Decision::Abort(Cause::Refused { step: 0, refusal })
            }
        }
    }

    fn decide(&mut self, book: &OrderBook) -> LogCommand {
        let id = self.ids(book).first().copied().unwrap_or_else(|| self.id());
        LogCommand::Decide { writer: self.writer(book), id, decision: self.decision(), now: self.now() }
    }

    fn replace(&mut self) -> OrdersCommand {
        let count = [0, 1, 2, 3, 5, 5, 8, MAX_BATCH + 1][self.number(8) as usize];
        // Once: the pure one makes each of them.
        let count = if std::mem::take(&mut self.a_million) { MAX_BATCH } else { count };
        let items = [1, 2, 3, 1_000_000, 0, (1 << 53) - 1][self.number(6) as usize];
        let users = [1, 3, 70_000, 1, 0, (1 << 53) - 1][self.number(6) as usize];
        let price = [0, 1, 5, MAX_AMOUNT / 2, MAX_AMOUNT / 2 + 1, -1][self.number(6) as usize];
        OrdersCommand::Replace { count, items, users, price, seed: self.random.u64(..) }
    }

    fn of_log(&mut self, book: &OrderBook) -> LogCommand {
        match self.number(44) {
            0..=11 => LogCommand::Stage { writer: self.writer(book), transaction: self.transaction(book) },
            12..=21 => self.decide(book),
            22..=25 => LogCommand::Finish { writer: self.writer(book), ids: self.ids(book), now: self.now() },
            26 | 27 => LogCommand::Ask { ids: self.ids(book), now: self.now() },
            28 | 29 => {
                let (id, step) = (self.ids(book).pop().unwrap_or_else(|| self.id()), self.random.u8(0..2));
                let (error, at) = (self.word().into(), self.now());
                let letter = DeadLetter { step, verb: Verb::Commit, attempts: self.random.u32(..), error, at };
                LogCommand::Park { writer: self.writer(book), id, letter }
            }
            30..=33 => {
                let (id, step) = (self.ids(book).pop().unwrap_or_else(|| self.id()), self.random.u8(0..2));
                let resolution =
                    Resolution { step, operator: self.word().into(), reason: self.word().into(), at: self.now() };
                LogCommand::Resolve { id, resolution }
            }
            34 => {
                let keep = [0, 2, 5, 9, usize::MAX][self.number(5) as usize];
                let (finished_before, spare_since) = (self.now(), self.now());
                LogCommand::Forget { finished_before, keep, spare_since }
            }
            35 | 36 => {
                let lease = [5, 60, 2 * MAX_LEASE_MS, u64::MAX][self.number(4) as usize];
                LogCommand::Register { instance: INSTANCES[self.number(3) as usize], now: self.now(), lease }
            }
            37 | 38 => LogCommand::Renew { writer: self.writer(book), now: self.now(), lease: self.number(60) },
            39 | 40 => LogCommand::TakeOver { writer: self.writer(book), from: self.instance(), now: self.now() },
            _ => {
                let id = self.ids(book).pop().unwrap_or_else(|| self.id());
                let tries = (0..self.number(4)).map(|_| self.tries()).collect();
                LogCommand::Tried { writer: self.writer(book), id, tries }
            }
        }
    }

    fn tries(&mut self) -> Tries {
        let verb = [Verb::Prepare, Verb::Commit, Verb::Compensate][self.number(3) as usize];
        let why = [Unknown::Timeout, Unknown::Unreachable, Unknown::Failed][self.number(3) as usize];
        let (step, attempts, answered) = (self.random.u8(0..2), self.random.u32(..), self.one_in(2));
        Tries { step, verb, attempts, answered, why }
    }

    pub(super) fn next(&mut self, book: &OrderBook) -> Vec<OrdersCommand> {
        self.told += 1;
        match self.number(60) {
            0..=37 => vec![OrdersCommand::Log(self.of_log(book))],
            38..=43 => vec![OrdersCommand::Create { order: self.order(), user: self.account(), key: self.key() }],
            44..=55 => vec![OrdersCommand::AddItem { order: self.order(), line: self.line(), key: self.key() }],
            56 if self.one_in(2) => vec![self.note()],
            56 => vec![OrdersCommand::Remember { order: self.order(), key: self.certain_key() }],
            57 => vec![self.replace()],
            // Everything that is open is settled, so that orders can be replaced.
            _ => {
                let now = self.now();
                let register = LogCommand::Register { instance: INSTANCES[0], now, lease: 60 };
                let epochs = book.transactions().instances().values().map(|lease| lease.epoch.0);
                let epoch = epochs.max().unwrap_or(0) + 1;
                let writer = Writer { instance: INSTANCES[0], epoch: Epoch(epoch) };
                let ids: Vec<_> = book.transactions().open().map(|(id, _)| id).collect();
                let mut commands = vec![register];
                for &id in &ids {
                    commands.push(LogCommand::Decide { writer, id, decision: self.decision(), now });
                }
                commands.push(LogCommand::Finish { writer, ids, now });
                let mut commands: Vec<_> = commands.into_iter().map(OrdersCommand::Log).collect();
                commands.push(self.replace());
                commands
            }
        }
    }
}
