//! The suite that every database of orders must pass. Its tests call it with a way to make a fresh, empty one.
//!
//! Every command is given to the database and to an [`OrderBook`], whose answer is the right one; what a rule is about is said beside it.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use ledger::{EntityId, IdempotencyKey};
use orchestrator::{Done, Log, LogAnswer, LogError, LogQuery, StoreFailure, answer, conformance};
use protocol::limits::{KEPT_TRAIL, MAX_AMOUNT, MAX_BATCH, MAX_ORDER_LINES, MAX_PAGE};
use protocol::log::{LogCommand, LogReply, StageRefusal, Writer};
use protocol::{
    Cause, Decision, Epoch, Name, Order as StepOrder, Payload, Protocol, Recovery, Step, Timestamp, Transaction,
    TransactionId,
};

use super::{OrderStore, OrdersAnswer, OrdersAudit, OrdersLook, OrdersQuery, OrdersSeen, answer_orders};
use crate::checkout::{CHECKOUT, Claim, STOCK};
use crate::orders::{Line, Order, OrderBook, OrderState, OrdersCommand, OrdersReply, refusals};
use crate::trail::{Act, Note};

/// How long a call may take before the suite calls it lost.
const PATIENCE: Duration = Duration::from_secs(30);
const WRITER: Writer = Writer { instance: Name::literal("suite"), epoch: Epoch(1) };

fn slot<T: Send + 'static>() -> (Done<T>, Receiver<T>) {
    let (send, receive) = channel();
    (Box::new(move |value| _ = send.send(value)), receive)
}

fn take<T>(receive: &Receiver<T>) -> T {
    receive.recv_timeout(PATIENCE).expect("every call is answered, once and in time")
}

fn submit(store: &dyn OrderStore, command: OrdersCommand) -> OrdersReply {
    let (done, answer) = slot();
    store.submit(command, done);
    take(&answer).expect("a healthy store answers")
}

fn query(store: &dyn OrderStore, query: OrdersQuery) -> OrdersAnswer {
    let (done, answer) = slot();
    store.query(query, done);
    take(&answer).expect("a healthy store answers")
}

fn audit(store: &dyn OrderStore) -> OrdersAudit {
    match query(store, OrdersQuery::Audit) {
        OrdersAnswer::Audit(found) => *found,
        other => panic!("asked for an audit, answered {other:?}"),
    }
}

/// The database, and what it should be.
struct Twins {
    store: Arc<dyn OrderStore>,
    book: OrderBook,
}

/// How many orders an audit that goes on says that it looked at: one may be met twice.
fn looked_at(store: &dyn OrderStore) -> u64 {
    let (mut page, mut all) = (Some(String::new()), 0);
    while let Some(after) = page {
        let OrdersAnswer::Seen(OrdersSeen::Orders { looked, next, .. }) =
            query(store, OrdersQuery::Look(OrdersLook::Orders { after }))
        else {
            panic!("no orders")
        };
        all += looked;
        page = next;
    }
    all
}

fn number(n: u64) -> EntityId {
    EntityId::number(n)
}

fn id(birth: u64, tag: u8) -> TransactionId {
    TransactionId::new(Timestamp(birth), [tag; 16])
}

fn transaction(id: TransactionId, context: Payload) -> Arc<Transaction> {
    Arc::new(Transaction {
        id,
        definition: CHECKOUT,
        protocol: Protocol::TwoPhase,
        order: StepOrder::Parallel,
        recovery: Recovery::Backward,
        steps: [Step { service: STOCK, payload: Payload::from(&[1, 2, 3][..]) }].into(),
        context,
    })
}

impl Twins {
    fn new(store: Arc<dyn OrderStore>) -> Self {
        let mut twins = Self { store, book: OrderBook::default() };
        let register = LogCommand::Register { instance: WRITER.instance, now: Timestamp(0), lease: u64::MAX };
        assert_eq!(twins.log(register), LogReply::Registered(WRITER.epoch));
        twins
    }

    fn tell(&mut self, command: OrdersCommand) -> OrdersReply {
        let (expected, _) = self.book.apply(&command);
        assert_eq!(submit(&*self.store, command.clone()), expected, "{command:?}");
        expected
    }

    fn log(&mut self, command: LogCommand) -> LogReply {
        match self.tell(OrdersCommand::Log(command)) {
            OrdersReply::Log(reply) => reply,
            other => panic!("a log's command is answered by the log, not by {other:?}"),
        }
    }

    fn create(&mut self, order: u64, user: u64) -> OrdersReply {
        self.tell(OrdersCommand::Create { order: number(order), user: number(user), key: None })
    }

    fn add(&mut self, order: u64, item: u64, quantity: i64, price: i64) -> OrdersReply {
        let line = Line { item: number(item), quantity, price };
        self.tell(OrdersCommand::AddItem { order: number(order), line, key: None })
    }

    fn order(&self, n: u64) -> Option<Order> {
        let expected = self.book.order(number(n)).cloned();
        assert_eq!(query(&*self.store, OrdersQuery::Order(number(n))), OrdersAnswer::Order(expected.clone()));
        expected
    }

    fn stage(&mut self, id: TransactionId, order: u64, version: u64) -> LogReply {
        let context = Claim { order: number(order), version }.encode().expect("a claim can be encoded");
        self.log(LogCommand::Stage { writer: WRITER, transaction: transaction(id, context) })
    }

    fn decide(&mut self, id: TransactionId, decision: Decision) -> LogReply {
        self.log(LogCommand::Decide { writer: WRITER, id, decision, now: Timestamp(3) })
    }

    fn finish(&mut self, ids: &[TransactionId]) {
        self.log(LogCommand::Finish { writer: WRITER, ids: ids.to_vec(), now: Timestamp(4) });
    }

    /// What can be seen of both is the same.
    fn compare(&self) {
        let (found, expected) = (audit(&*self.store), super::audit_orders(&self.book, 0));
        assert_eq!((&found.paid, &found.discrepancies), (&expected.paid, &expected.discrepancies));
        assert_eq!((found.began.open, found.ended.open), (expected.began.open, expected.ended.open));
        assert_eq!(found.began, found.ended, "nothing went on meanwhile");
        let youngest = answer_orders(&self.book, &OrdersQuery::Youngest, 0);
        assert_eq!(query(&*self.store, OrdersQuery::Youngest), youngest);
        for ask in [LogQuery::Open, LogQuery::Listing { standing: None, limit: 100 }] {
            let (done, told) = slot();
            self.store.read(ask, done);
            let mut told = take(&told);
            if let Ok(LogAnswer::Open { now, .. }) = &mut told {
                // A clock of its own, if it has one, is nobody else's.
                *now = None;
            }
            assert_eq!(told, Ok(answer(self.book.transactions(), ask)), "{ask:?}");
        }
    }
}

/// Every rule of the orders' table, and of the log beside them. `fresh` makes an empty store.
///
/// # Panics
/// If the store breaks one.
pub fn order_store(fresh: impl Fn() -> Arc<dyn OrderStore>) {
    conformance::log(|| Arc::new(Claiming(fresh())));
    lines(fresh());
    keys(fresh());
    checkouts(fresh());
    replacing(fresh());
    trail(fresh());
    in_the_order_of_the_calls(&fresh());
}

fn lines(store: Arc<dyn OrderStore>) {
    let mut twins = Twins::new(store);
    assert_eq!(twins.order(1), None);
    assert_eq!(twins.add(1, 5, 2, 10), OrdersReply::NotFound);
    assert_eq!(twins.create(1, 7), OrdersReply::Created(number(1)));
    let empty = twins.order(1).expect("it was created");
    assert_eq!(twins.create(1, 8), OrdersReply::Created(number(1)), "a repeat");
    assert_eq!(twins.order(1), Some(empty), "changes nothing");
    assert_eq!(twins.add(1, 5, 2, 10), OrdersReply::Total(20));
    assert_eq!(twins.add(1, 5, 1, 10), OrdersReply::Total(30), "units of one item at one price stand in one line");
    assert_eq!(twins.add(1, 5, 1, 11), OrdersReply::Total(41), "at another price in another");
    assert_eq!(twins.order(1).map(|order| order.lines.len()), Some(2));
    assert_eq!(twins.add(1, 6, 2, MAX_AMOUNT), OrdersReply::Overflow);
    assert_eq!(twins.add(1, 6, 1, MAX_AMOUNT), OrdersReply::Overflow);
    assert_eq!(twins.add(1, 6, 1, MAX_AMOUNT - 41), OrdersReply::Total(MAX_AMOUNT), "to the last cent");
    twins.create(2, 7);
    assert_eq!(twins.add(2, 6, MAX_AMOUNT, 0), OrdersReply::Total(0));
    assert_eq!(twins.add(2, 6, 1, 0), OrdersReply::Overflow, "what costs nothing is counted, too");
    let uuid: EntityId = "0190b6e2-7c1f-7c3a-8f00-000000000001".parse().expect("an id");
    twins.tell(OrdersCommand::Create { order: uuid, user: number(u64::MAX), key: None });
    for item in 0..=MAX_ORDER_LINES as u64 {
        let line = Line { item: number(item), quantity: 1, price: 1 };
        let reply = twins.tell(OrdersCommand::AddItem { order: uuid, line, key: None });
        assert_eq!(reply == OrdersReply::TooManyLines, item == MAX_ORDER_LINES as u64, "{item}: {reply:?}");
    }
    let found = query(&*twins.store, OrdersQuery::Order(uuid));
    assert_eq!(found, OrdersAnswer::Order(twins.book.order(uuid).cloned()));
    twins.compare();
}

fn keys(store: Arc<dyn OrderStore>) {
    let mut twins = Twins::new(store);
    let key = |text: &str, fingerprint| IdempotencyKey { key: text.into(), fingerprint, at: Timestamp(7) };
    let add = |key| OrdersCommand::AddItem {
        order: number(1),
        line: Line { item: number(5), quantity: 1, price: 2 },
        key: Some(key),
    };
    assert_eq!(twins.tell(add(key("k\r\n|", 1))), OrdersReply::NotFound);
    let create = |order, user| OrdersCommand::Create {
        order: number(order),
        user: number(user),
        key: Some(key("new", u64::MAX)),
    };
    assert_eq!(twins.tell(create(1, 1)), OrdersReply::Created(number(1)));
    assert_eq!(twins.tell(create(2, 1)), OrdersReply::Created(number(1)), "the repeat hears of the first order");
    assert_eq!(twins.order(2), None);
    assert_eq!(twins.tell(add(key("k\r\n|", 1))), OrdersReply::Total(2), "a refusal is not remembered");
    assert_eq!(twins.add(1, 5, 1, 2), OrdersReply::Total(4));
    assert_eq!(twins.tell(add(key("k\r\n|", 1))), OrdersReply::Total(2), "a repeat gets the first answer");
    assert_eq!(twins.tell(add(key("k\r\n|", 2))), OrdersReply::KeyReused);
    let remember = OrdersCommand::Remember { order: number(1), key: key("checkout", 9) };
    assert_eq!(twins.tell(remember.clone()), OrdersReply::Created(number(1)));
    assert_eq!(twins.tell(remember), OrdersReply::Created(number(1)));
    for (name, fingerprint) in [("checkout", 9), ("checkout", 8), ("k\r\n|", 2), ("nobody's", 1)] {
        let ask = OrdersQuery::IsKeyReused(key(name, fingerprint));
        assert_eq!(query(&*twins.store, ask.clone()), answer_orders(&twins.book, &ask, 0), "{ask:?}");
    }
    assert_eq!(twins.order(1).map(|order| order.total_cost()), Some(4));
}

fn checkouts(store: Arc<dyn OrderStore>) {
    let mut twins = Twins::new(store);
    twins.create(1, 7);
    twins.add(1, 5, 2, 10);
    let read = twins.order(1).expect("it was created");
    let refused = |code, detail: &str| {
        let refusal = protocol::Refusal::new(code, detail);
        LogReply::StageRefused(StageRefusal::Application(refusal))
    };
    assert_eq!(twins.stage(id(10, 1), 2, 1), refused(refusals::ORDER_NOT_FOUND, "2"));
    assert_eq!(twins.stage(id(10, 1), 1, read.version + 1), refused(refusals::ORDER_CHANGED, "1"));
    let garbage = Payload::from(&[1, 200, 200][..]);
    let refusal = twins.log(LogCommand::Stage { writer: WRITER, transaction: transaction(id(10, 1), garbage) });
    assert!(matches!(refusal, LogReply::StageRefused(StageRefusal::Application(_))), "{refusal:?}");
    twins.compare();
    // A claim, its abort, and a claim once more.
    assert_eq!(twins.stage(id(10, 1), 1, read.version), LogReply::Staged);
    assert_eq!(
        twins.stage(id(10, 1), 1, read.version),
        LogReply::Staged,
        "a repeat is a repeat, whatever the order is"
    );
    assert_eq!(twins.order(1).map(|order| order.state), Some(OrderState::CheckingOut(id(10, 1))));
    assert_eq!(twins.add(1, 5, 1, 10), OrdersReply::NotOpen(OrderState::CheckingOut(id(10, 1))));
    let other = id(11, 2);
    assert_eq!(twins.stage(other, 1, read.version), refused(refusals::CHECKING_OUT, &id(10, 1).to_string()));
    assert_eq!(twins.log(LogCommand::Ask { ids: vec![other], now: Timestamp(2) }), {
        LogReply::Verdicts(vec![protocol::log::Verdict::Aborted])
    });
    twins.compare();
    let busy = OrdersCommand::Replace { count: 3, items: 2, users: 2, price: 1, seed: 1 };
    assert_eq!(twins.tell(busy.clone()), OrdersReply::Busy(1));
    let abort = Decision::Abort(Cause::Unavailable { step: None });
    assert!(matches!(twins.decide(id(10, 1), abort), LogReply::Decided { first: true, .. }));
    assert_eq!(twins.order(1), Some(read.clone()), "open again, and at the same version");
    assert_eq!(twins.stage(id(12, 3), 1, read.version), LogReply::Staged);
    assert!(matches!(twins.decide(id(12, 3), Decision::Commit), LogReply::Decided { first: true, .. }));
    assert_eq!(twins.order(1).map(|order| order.state), Some(OrderState::Paid(id(12, 3))), "in the same step");
    assert!(matches!(twins.decide(id(12, 3), Decision::Commit), LogReply::Decided { first: false, .. }));
    assert_eq!(twins.stage(id(13, 4), 1, read.version), refused(refusals::ORDER_PAID, "1"));
    assert_eq!(twins.add(1, 5, 1, 10), OrdersReply::NotOpen(OrderState::Paid(id(12, 3))));
    let before = audit(&*twins.store);
    assert_eq!((before.paid.orders, before.paid.by_user[&number(7)], before.paid.by_item[&number(5)]), (1, 20, 2));
    twins.finish(&[id(10, 1), id(12, 3)]);
    // A fenced writer claims nothing.
    twins.create(9, 1);
    let version = twins.order(9).expect("it was created").version;
    let fenced = Writer { epoch: Epoch(0), ..WRITER };
    let context = Claim { order: number(9), version }.encode().expect("a claim can be encoded");
    let stage = LogCommand::Stage { writer: fenced, transaction: transaction(id(20, 5), context) };
    assert_eq!(twins.log(stage), LogReply::StageRefused(StageRefusal::Fenced));
    assert_eq!(twins.order(9).map(|order| order.state), Some(OrderState::Open));
    let again = audit(&*twins.store);
    assert!(again.began.sequence >= before.ended.sequence, "the sequence never goes back");
    twins.stage(id(21, 6), 9, version);
    let OrdersAnswer::Progress(moved) = query(&*twins.store, OrdersQuery::Progress) else { panic!("not progress") };
    assert!(moved.open == 1 && moved.sequence > again.ended.sequence, "{moved:?} after {again:?}");
    twins.compare();
    assert_eq!(twins.tell(busy), OrdersReply::Busy(1));
}

fn replacing(store: Arc<dyn OrderStore>) {
    let mut twins = Twins::new(store);
    let replace = |count, items, users, price, seed| OrdersCommand::Replace { count, items, users, price, seed };
    for bad in [
        replace(MAX_BATCH + 1, 1, 1, 1, 1),
        replace(1, 0, 1, 1, 1),
        replace(1, 1, 0, 1, 1),
        replace(1, 1, 1, -1, 1),
        replace(1, 1, 1, MAX_AMOUNT / 2 + 1, 1),
    ] {
        assert_eq!(twins.tell(bad), OrdersReply::Overflow);
    }
    twins.create(3, 99);
    twins.create(500, 99);
    assert!(looked_at(&*twins.store) >= 2, "neither is paid nor claimed, and both are looked at");
    assert_eq!(twins.tell(replace(400, 10, 20, 3, 0xfeed_f00d_dead_beef)), OrdersReply::Done);
    for n in [0, 1, 2, 3, 4, 5, 77, 398, 399, 400, 500] {
        twins.order(n);
    }
    assert_eq!(twins.create(4, 1), OrdersReply::Created(number(4)), "it exists");
    twins.add(5, 1_000, 1, 4);
    twins.order(5);
    // Some are paid, and replaced by fewer: what they came to still counts.
    let mut paid = Vec::new();
    for (tag, n) in [(1, 0), (2, 5), (3, 399)] {
        let version = twins.order(n).expect("it was seeded").version;
        let id = id(100 + n, tag);
        assert_eq!(twins.stage(id, n, version), LogReply::Staged);
        twins.decide(id, Decision::Commit);
        paid.push(id);
    }
    twins.finish(&paid);
    twins.compare();
    assert_eq!(audit(&*twins.store).paid.orders, 3);
    assert_eq!(twins.tell(replace(6, 1, 3, MAX_AMOUNT / 2, u64::MAX)), OrdersReply::Done);
    for n in [0, 5, 6, 399] {
        twins.order(n);
    }
    twins.compare();
    // The paid one is overwritten now, and paid again.
    let version = twins.order(5).expect("it was seeded").version;
    assert_eq!(twins.stage(id(200, 9), 5, version), LogReply::Staged);
    twins.compare();
    twins.decide(id(200, 9), Decision::Commit);
    twins.finish(&[id(200, 9)]);
    twins.compare();
    assert_eq!(audit(&*twins.store).paid.orders, 4);
    twins.add(0, 1, 1, 1);
    twins.order(0);
    assert_eq!(twins.tell(replace(0, 1, 1, 1, 1)), OrdersReply::Done, "nothing is replaced by nothing");
    twins.compare();
}

fn trail(store: Arc<dyn OrderStore>) {
    let mut twins = Twins::new(store);
    let compare = |twins: &Twins, limit| {
        let ask = OrdersQuery::Trail(limit);
        assert_eq!(query(&*twins.store, ask.clone()), answer_orders(&twins.book, &ask, 0), "{ask:?}");
    };
    compare(&twins, 10);
    let outcome = |number, outcome: &str| OrdersCommand::NoteOutcome { number, outcome: outcome.into() };
    assert_eq!(twins.tell(outcome(1, "sent again")), OrdersReply::NotFound);
    let note = |at, act, step| Note {
        at: Timestamp(at),
        operator: "ann \"|\r\n*1\u{fc}".into(),
        act,
        transaction: id(1, 1),
        step,
        reason: step.map(|_| "because {x};".into()),
    };
    assert_eq!(twins.tell(OrdersCommand::Note(note(1, Act::Retry, None))), OrdersReply::Noted(1));
    assert_eq!(twins.tell(OrdersCommand::Note(note(2, Act::Resolve, Some(1)))), OrdersReply::Noted(2));
    compare(&twins, 10);
    assert_eq!(twins.tell(outcome(1, "not_driven: \u{fc}|")), OrdersReply::Done);
    assert_eq!(twins.tell(outcome(1, "otherwise")), OrdersReply::Done, "the first word stands");
    assert_eq!(twins.tell(outcome(3, "sent again")), OrdersReply::NotFound);
    (0..3).for_each(|limit| compare(&twins, limit));
    // So many are kept: the oldest are gone, with their outcomes.
    let (mut last, count) = (None, KEPT_TRAIL as u64);
    for at in 3..=count + 1 {
        let command = OrdersCommand::Note(note(at, Act::Retry, None));
        let (done, answer) = slot();
        twins.store.submit(command.clone(), done);
        last = Some((answer, twins.book.apply(&command).0));
        if at % 1_000 == 0 {
            take_last(&mut last);
        }
    }
    take_last(&mut last);
    assert_eq!(twins.tell(outcome(1, "gone")), OrdersReply::NotFound);
    assert_eq!(twins.tell(outcome(2, "the oldest")), OrdersReply::Done);
    compare(&twins, MAX_PAGE);
    twins.compare();
}

/// Waits for the last of many calls.
fn take_last(last: &mut Option<(Receiver<Result<OrdersReply, StoreFailure>>, OrdersReply)>) {
    if let Some((answer, expected)) = last.take() {
        assert_eq!(take(&answer), Ok(expected));
    }
}

/// Many at once, by one caller, without waiting: each is applied behind those before it.
fn in_the_order_of_the_calls(store: &Arc<dyn OrderStore>) {
    const EACH: u64 = 200;
    let mut book = OrderBook::default();
    let mut answers = Vec::new();
    let mut tell = |command: OrdersCommand| {
        let (expected, _) = book.apply(&command);
        let (done, answer) = slot();
        store.submit(command, done);
        answers.push((answer, expected));
    };
    tell(OrdersCommand::Log(LogCommand::Register { instance: WRITER.instance, now: Timestamp(0), lease: 1 }));
    for n in 0..EACH {
        tell(OrdersCommand::Create { order: number(n), user: number(n), key: None });
        for price in 1..4 {
            let line = Line { item: number(n), quantity: 1, price };
            tell(OrdersCommand::AddItem { order: number(n), line, key: None });
        }
        let transaction = |version| {
            let context = Claim { order: number(n), version }.encode().expect("a claim can be encoded");
            transaction(id(1_000 + n, n as u8), context)
        };
        tell(OrdersCommand::Log(LogCommand::Stage { writer: WRITER, transaction: transaction(4 * (n + 1)) }));
        let decision = if n % 3 == 0 { Decision::Abort(Cause::Recovered) } else { Decision::Commit };
        let decide = LogCommand::Decide { writer: WRITER, id: id(1_000 + n, n as u8), decision, now: Timestamp(1) };
        tell(OrdersCommand::Log(decide));
    }
    for (answer, expected) in answers {
        assert_eq!(take(&answer), Ok(expected));
    }
    assert_eq!(audit(&**store).paid, book.paid());
}

/// A log whose transactions claim something. The orders refuse a transaction that claims no order, and the suite of logs knows nothing of orders.
/// So each of its transactions is given an order of its own, and a claim on it. A repeated stage claims the same order at the same version.
struct Claiming(Arc<dyn OrderStore>);

impl Claiming {
    fn with_claim(&self, command: LogCommand) -> LogCommand {
        let LogCommand::Stage { writer, transaction } = command else { return command };
        let order = EntityId::uuid(uuid::Uuid::from_bytes(*transaction.id.as_bytes()));
        submit(&*self.0, OrdersCommand::Create { order, user: number(1), key: None });
        let OrdersAnswer::Order(Some(found)) = query(&*self.0, OrdersQuery::Order(order)) else {
            panic!("the order was just created")
        };
        let mut transaction = (*transaction).clone();
        let claim = Claim { order, version: found.version };
        transaction.context = claim.encode().expect("a claim can be encoded");
        LogCommand::Stage { writer, transaction: Arc::new(transaction) }
    }

    /// An order is claimed, paid or open again exactly as the log has it.
    fn check(&self) {
        assert_eq!(audit(&*self.0).discrepancies, []);
    }
}

impl Log for Claiming {
    fn append(&self, command: LogCommand, done: Done<Result<LogReply, LogError>>) {
        // The suite waits for every answer: so it is here that the orders are looked at behind it.
        let (told, answer) = slot();
        self.0.append(self.with_claim(command), told);
        let answer = take(&answer);
        self.check();
        done(answer);
    }

    fn decide(
        &self,
        command: LogCommand,
        readable: Done<Result<LogReply, LogError>>,
        durable: Done<Result<LogReply, LogError>>,
    ) {
        let (told, answer) = slot();
        self.0.decide(command, readable, told);
        let answer = take(&answer);
        self.check();
        durable(answer);
    }

    fn read(&self, query: LogQuery, done: Done<Result<LogAnswer, LogError>>) {
        self.0.read(query, done);
    }
}
