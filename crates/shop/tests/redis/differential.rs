//! The scripts against the pure order book: the same random histories, every reply, and everything that can be seen of the state.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

use fastrand::Rng;
use ledger::{EntityId, IdempotencyKey};
use orchestrator::{Log, LogAnswer, LogQuery, answer};
use protocol::limits::{IDEMPOTENCY_KEY_MS, KEPT_IDEMPOTENCY_KEYS, MAX_AMOUNT, MAX_BATCH, MAX_HANDOVERS, MAX_LEASE_MS};
use protocol::log::{LogCommand, LogReply, StageRefusal, Standing, Verdict, Writer};
use protocol::{Decision, Epoch, Timestamp, Transaction, TransactionId};
use servers::redis::{Persistence, Server};
use shop::checkout::Claim;
use shop::order_store::{
    OrderDiscrepancy, OrdersAnswer, OrdersLook, OrdersQuery, OrdersSeen, Sum, answer_orders, audit_orders,
};
use shop::orders::{OrderBook, OrdersCommand, OrdersReply};
use shop::redis_orders::RedisOrders;

mod story;

use story::{INSTANCES, NAMED, Story, WORDS};

use crate::support::{audit, begin, in_memory, open, options, query, quick_server, read, submit};

const HISTORIES: u64 = 16;
const COMMANDS: usize = 2_000;
/// After so many commands the whole state is compared.
const LOOK_EVERY: usize = 250;

/// The orders that the histories tell of.
fn told_of() -> impl Iterator<Item = EntityId> {
    let numbers = (0..9).chain([MAX_BATCH - 1, MAX_BATCH, MAX_BATCH + 1, u64::MAX]);
    numbers.map(EntityId::number).chain([NAMED.parse().unwrap()])
}

fn compare(book: &OrderBook, store: &RedisOrders, used: &BTreeSet<TransactionId>, when: &str) {
    let mut questions: Vec<OrdersQuery> = told_of().map(OrdersQuery::Order).collect();
    questions.push(OrdersQuery::Youngest);
    questions.push(OrdersQuery::Trail(5));
    for (word, fingerprint) in WORDS.iter().flat_map(|word| [(word, 0), (word, u64::MAX)]) {
        questions.push(OrdersQuery::IsKeyReused(IdempotencyKey { key: (*word).into(), fingerprint, at: Timestamp(0) }));
    }
    for question in questions {
        let told = query(store, question.clone()).unwrap();
        assert_eq!(told, answer_orders(book, &question, 0), "{when}: {question:?}");
    }
    let OrdersAnswer::Progress(progress) = query(store, OrdersQuery::Progress).unwrap() else { panic!("{when}") };
    assert_eq!(progress.open, book.transactions().open_count() as u64, "{when}");
    let standings = [Standing::Undecided, Standing::Settling, Standing::Stuck, Standing::Finished];
    let mut questions = vec![LogQuery::Open];
    for standing in standings.into_iter().map(Some).chain([None]) {
        questions.extend([3, 1_000].map(|limit| LogQuery::Listing { standing, limit }));
    }
    questions.extend(used.iter().map(|id| LogQuery::Transaction(*id)));
    for question in questions {
        assert_eq!(read(store, question), answer(book.transactions(), question), "{when}: {question:?}");
    }
}

type Ended = BTreeMap<TransactionId, protocol::log::Record>;

/// Not as often: the pure one looks at every order, of which there may be a million.
fn compare_audits(book: &OrderBook, store: &RedisOrders, when: &str) {
    let (told, expected) = (audit(store), audit_orders(book, 0));
    assert_eq!((told.paid, told.discrepancies), (expected.paid, expected.discrepancies), "{when}: audit");
    assert_eq!((told.began, told.ended.open), (told.ended, expected.began.open), "{when}: progress");
    let pure = |look| match answer_orders(book, &OrdersQuery::Look(look), 0) {
        OrdersAnswer::Seen(seen) => seen,
        other => panic!("{when}: {other:?}"),
    };
    let told = |look| match query(store, OrdersQuery::Look(look)).unwrap() {
        OrdersAnswer::Seen(seen) => seen,
        other => panic!("{when}: {other:?}"),
    };
    assert_eq!(pages(told), pages(pure), "{when}: pages");
}

/// What paid orders come to, how many orders are claimed, what is off, and what is finished, by the pages of an audit that goes on.
fn pages(read: impl Fn(OrdersLook) -> OrdersSeen) -> (BTreeMap<Sum, i128>, usize, BTreeSet<OrderDiscrepancy>, Ended) {
    let (mut sums, mut seen, mut claimed, mut wrong, mut ended) =
        (BTreeMap::<Sum, i128>::new(), BTreeSet::new(), 0, BTreeSet::new(), BTreeMap::new());
    let mut page = Some(String::new());
    while let Some(after) = page {
        let OrdersSeen::Orders { rows, off, next, .. } = read(OrdersLook::Orders { after }) else {
            panic!("no orders")
        };
        wrong.extend(off);
        for (_, order) in rows.into_iter().filter(|(id, _)| seen.insert(*id)) {
            claimed += usize::from(!order.is_paid());
            if order.is_paid() {
                *sums.entry(Sum::User(order.user)).or_default() += i128::from(order.total_cost());
                for line in &order.lines {
                    *sums.entry(Sum::Item(line.item)).or_default() += i128::from(line.quantity);
                }
            }
        }
        page = next;
    }
    let (mut page, mut replaced) = (Some(String::new()), BTreeMap::new());
    while let Some(after) = page {
        let OrdersSeen::Replaced { sums, next, .. } = read(OrdersLook::Replaced { after }) else { panic!("no sums") };
        replaced.extend(sums);
        page = next;
    }
    for (sum, amount) in replaced {
        *sums.entry(sum).or_default() += amount;
    }
    let mut page = Some(String::new());
    while let Some(after) = page {
        let OrdersSeen::Ended { records, next } = read(OrdersLook::Ended { after }) else { panic!("no records") };
        ended.extend(records);
        page = next;
    }
    sums.retain(|_, amount| *amount != 0);
    (sums, claimed, wrong, ended)
}

/// Gives a command to both and compares. Returns the reply that they agree on.
fn tell(book: &mut OrderBook, store: &RedisOrders, command: &OrdersCommand, when: &str) -> OrdersReply {
    let (expected, _) = book.apply(command);
    if let OrdersCommand::Log(command @ LogCommand::Decide { .. }) = command {
        let (send, told) = channel();
        let durable = send.clone();
        let readable = Box::new(move |reply| _ = send.send(reply));
        store.decide(command.clone(), readable, Box::new(move |reply| _ = durable.send(reply)));
        for what in ["readable", "durable"] {
            let told = told.recv_timeout(crate::support::PATIENCE).unwrap();
            assert_eq!(told.map(OrdersReply::Log), Ok(expected.clone()), "{when}: {what}: {command:?}");
        }
    } else {
        assert_eq!(submit(store, command.clone()), Ok(expected.clone()), "{when}: {command:?}");
    }
    expected
}

/// What can be seen only by going on: in which order the finished transactions are forgotten.
fn compare_what_is_hidden(book: &mut OrderBook, store: &RedisOrders, used: &BTreeSet<TransactionId>, when: &str) {
    for keep in (0..book.transactions().finished().count()).rev() {
        let forget = LogCommand::Forget { finished_before: Timestamp(0), keep, spare_since: Timestamp(u64::MAX) };
        tell(book, store, &OrdersCommand::Log(forget), when);
        if keep.is_multiple_of(7) {
            for id in used {
                let question = LogQuery::Transaction(*id);
                assert_eq!(read(store, question), answer(book.transactions(), question), "{when}: {keep} kept");
            }
        }
    }
}

#[derive(Debug, Default)]
struct Met {
    claimed: usize,
    refused: usize,
    fenced: usize,
    late: usize,
    paid: usize,
    entombed: usize,
    taken: u64,
    by_hand: usize,
    forgotten: usize,
    replaced: usize,
    overwritten: usize,
    tried: usize,
}

impl Met {
    fn count(&mut self, command: &OrdersCommand, reply: &OrdersReply) {
        use LogReply::{Decided, Done, Fenced, StageRefused, Staged, Taken, Verdicts};
        match (command, reply) {
            (_, OrdersReply::Log(Staged)) => self.claimed += 1,
            (_, OrdersReply::Log(StageRefused(StageRefusal::Application(_)))) => self.refused += 1,
            (_, OrdersReply::Log(StageRefused(StageRefusal::Fenced) | Fenced)) => self.fenced += 1,
            (_, OrdersReply::Log(StageRefused(_))) => self.late += 1,
            (_, OrdersReply::Log(Decided { decision: Decision::Commit, first: true })) => self.paid += 1,
            (_, OrdersReply::Log(Taken(taken))) => self.taken += taken,
            (OrdersCommand::Log(LogCommand::Resolve { .. }), OrdersReply::Log(Done)) => self.by_hand += 1,
            (_, OrdersReply::Log(Verdicts(verdicts))) => {
                self.entombed += verdicts.iter().filter(|verdict| **verdict == Verdict::Aborted).count();
                self.forgotten += verdicts.iter().filter(|verdict| **verdict == Verdict::Forgotten).count();
            }
            (OrdersCommand::Log(LogCommand::Tried { .. }), OrdersReply::Log(Done)) => self.tried += 1,
            (OrdersCommand::Replace { .. }, OrdersReply::Done) => self.replaced += 1,
            _ => {}
        }
    }
}

#[test]
fn the_scripts_answer_as_the_pure_order_book_does() {
    let server = quick_server();
    let mut met = Met::default();
    for seed in 0..HISTORIES {
        server.ask("FLUSHALL").unwrap();
        // Two processes have it open: what one does, the other sees.
        let stores = [(); 2].map(|()| open(&in_memory(&server)).by_callers_time());
        let mut book = OrderBook::default();
        let mut story = Story::new(seed, seed == 3);
        for number in 0..COMMANDS {
            let when = format!("history {seed}, step {number}");
            for command in story.next(&book) {
                let reply = tell(&mut book, &stores[story.number(2) as usize], &command, &when);
                met.count(&command, &reply);
            }
            if number % LOOK_EVERY == 0 {
                compare(&book, &stores[0], &story.used, &when);
                compare_audits(&book, &stores[1], &when);
            }
        }
        let when = format!("history {seed}, at its end");
        compare(&book, &stores[0], &story.used, &when);
        compare_what_is_hidden(&mut book, &stores[0], &story.used, &when);
        compare(&book, &stores[1], &story.used, &when);
        compare_audits(&book, &stores[1], &when);
        let number = |command: &str| {
            let told = server.ask(command).unwrap();
            told.trim().trim_start_matches(':').parse::<usize>().unwrap_or_else(|_| panic!("{when}: {told}"))
        };
        met.overwritten +=
            number("EVAL \"return tonumber(redis.call('HGET',ARGV[1],'orders')or'0')\" 0 {settle:orders:0}:replaced");
        let open = book.transactions().open_count();
        assert_eq!(
            number("HLEN {settle:orders:0}:payloads"),
            open,
            "{when}: payloads go when a transaction is finished"
        );
        let by_hand = book.transactions().finished().count();
        assert_eq!(number("HLEN {settle:orders:0}:records"), open + by_hand, "{when}: forgotten ones are gone");
        let count = |has: fn(&protocol::log::Record) -> bool| {
            book.transactions().open().chain(book.transactions().finished()).filter(|(_, record)| has(record)).count()
        };
        for (beside, has) in [
            ("letters", (|record| !record.letters.is_empty()) as fn(&protocol::log::Record) -> bool),
            ("handovers", |record| !record.handovers().is_empty()),
            ("tries", |record| !record.tries().is_empty()),
        ] {
            let kept = number(&format!("HLEN {{settle:orders:0}}:{beside}"));
            assert_eq!(kept, count(has), "{when}: and their {beside}");
        }
    }
    println!("{met:?}");
    let Met { claimed, refused, fenced, late, paid, entombed, taken, by_hand, forgotten, replaced, overwritten, tried } =
        met;
    for (what, met) in [
        ("claimed", claimed),
        ("refused", refused),
        ("fenced", fenced),
        ("late", late),
        ("paid", paid),
        ("entombed", entombed),
        ("taken", taken as usize),
        ("by hand", by_hand),
        ("forgotten", forgotten),
        ("replaced", replaced),
        ("overwritten", overwritten),
        ("tried", tried),
    ] {
        assert!(met > 20, "the histories meet every rule: {what} {met} times");
    }
}

#[test]
fn of_a_transaction_that_went_through_very_many_hands_both_name_the_same_ones() {
    let server = quick_server();
    let store = open(&in_memory(&server)).by_callers_time();
    let (mut book, mut used) = (OrderBook::default(), BTreeSet::new());
    let mut story = Story::new(5, false);
    let transaction = {
        tell(
            &mut book,
            &store,
            &OrdersCommand::Create { order: EntityId::number(1), user: EntityId::number(1), key: None },
            "first",
        );
        let context = Claim { order: EntityId::number(1), version: 1 }.encode().unwrap();
        Arc::new(Transaction { context, ..(*story.transaction(&book)).clone() })
    };
    let id = transaction.id;
    used.insert(id);
    for hand in 0..2 * MAX_HANDOVERS {
        let when = format!("hand {hand}");
        let (now, instance) = (Timestamp(10 * hand as u64), INSTANCES[hand % 2]);
        let log = |book: &mut OrderBook, command| tell(book, &store, &OrdersCommand::Log(command), &when);
        let OrdersReply::Log(LogReply::Registered(epoch)) =
            log(&mut book, LogCommand::Register { instance, now, lease: 5 })
        else {
            panic!("{when}")
        };
        let writer = Writer { instance, epoch };
        if hand == 0 {
            log(&mut book, LogCommand::Stage { writer, transaction: Arc::clone(&transaction) });
        } else {
            let from = INSTANCES[(hand + 1) % 2];
            let taken = log(&mut book, LogCommand::TakeOver { writer, from, now });
            assert_eq!(taken, OrdersReply::Log(LogReply::Taken(1)), "{when}");
        }
        if hand == MAX_HANDOVERS + 3 {
            log(&mut book, LogCommand::Decide { writer, id, decision: Decision::Commit, now });
        }
        compare(&book, &store, &used, &when);
    }
    assert_eq!(book.transactions().get(id).unwrap().handovers().len(), MAX_HANDOVERS);
}

#[test]
fn both_cut_the_leases_from_before_the_clock_was_set_back_and_no_others() {
    let server = quick_server();
    let store = open(&in_memory(&server)).by_callers_time();
    let (mut book, used) = (OrderBook::default(), BTreeSet::new());
    let mut log = |command, when: &str| {
        let reply = tell(&mut book, &store, &OrdersCommand::Log(command), when);
        compare(&book, &store, &used, when);
        reply
    };
    let step = 600_000;
    let before = Timestamp(1_900_000_000_000);
    for (number, lease) in [5_000, 5_000, u64::MAX].into_iter().enumerate() {
        log(LogCommand::Register { instance: INSTANCES[number], now: before, lease }, "before");
    }
    let writer = Writer { instance: INSTANCES[1], epoch: Epoch(2) };
    for (now, is_alive) in [(before.minus(step), true), (before.minus(step - MAX_LEASE_MS - 1), false)] {
        let when = format!("at {now:?}");
        let renew = LogCommand::Renew { writer, now, lease: 5_000 };
        assert_eq!(
            log(renew, &when),
            OrdersReply::Log(LogReply::Done),
            "a lease is renewed although it stands for longer"
        );
        let take = |from| LogCommand::TakeOver { writer, from, now };
        let reply = if is_alive { LogReply::StillAlive } else { LogReply::Taken(0) };
        assert_eq!(log(take(INSTANCES[0]), &when), OrdersReply::Log(reply));
        assert_eq!(log(take(INSTANCES[2]), &when), OrdersReply::Log(LogReply::StillAlive), "it has a lease for ever");
    }
    assert_eq!(book.transactions().instances().len(), 2);
}

#[test]
fn orders_that_nobody_touched_are_the_same_from_every_seed() {
    let server = quick_server();
    let store = open(&in_memory(&server));
    let mut random = Rng::with_seed(7);
    for round in 0..60 {
        let mut book = OrderBook::default();
        server.ask("FLUSHALL").unwrap();
        // The identity that the store was opened with is gone, and nobody asks for it while the connection stands.
        let bound = |random: &mut Rng| 1 + random.u64(..) % (1 << random.u32(1..54)).min(MAX_AMOUNT as u64);
        let (items, users) = (bound(&mut random), bound(&mut random));
        let seed = [0, u64::MAX, 1 << 32, random.u64(..)][(round % 4) as usize];
        let replace = OrdersCommand::Replace { count: 50, items, users, price: 3, seed };
        tell(&mut book, &store, &replace, "at first");
        for n in 0..50 {
            let question = OrdersQuery::Order(EntityId::number(n));
            let told = query(&store, question.clone()).unwrap();
            assert_eq!(told, answer_orders(&book, &question, 0), "{n} of {items} items, {users} users, seed {seed}");
        }
    }
}

/// More keys than are kept however old they are.
const RUSH: usize = KEPT_IDEMPOTENCY_KEYS + 50;

#[test]
fn the_oldest_idempotency_keys_are_forgotten() {
    let server = quick_server();
    let store = open(&in_memory(&server));
    let mut book = OrderBook::default();
    // A rush of keys; and what comes when the first of them are young no longer.
    let at = |n: usize| if n < RUSH { n as u64 % 7 } else { IDEMPOTENCY_KEY_MS + (n - RUSH) as u64 / 5 };
    let remember = |n: usize| OrdersCommand::Remember {
        order: EntityId::number(n as u64),
        key: IdempotencyKey { key: format!("key {n}").into(), fingerprint: 1, at: Timestamp(at(n)) },
    };
    let mut answers = std::collections::VecDeque::new();
    for n in 0..RUSH + 40 {
        book.apply(&remember(n));
        answers.push_back(begin(&store, remember(n)));
        if answers.len() > 1_000 {
            assert!(matches!(answers.pop_front().unwrap().recv().unwrap(), Ok(OrdersReply::Created(_))));
        }
    }
    for answer in answers {
        assert!(matches!(answer.recv().unwrap(), Ok(OrdersReply::Created(_))));
    }
    let mut forgotten = 0;
    for n in 0..RUSH + 40 {
        if n > 100 && n < RUSH {
            continue;
        }
        let key = IdempotencyKey { key: format!("key {n}").into(), fingerprint: 2, at: Timestamp(0) };
        let question = OrdersQuery::IsKeyReused(key);
        let told = query(&store, question.clone()).unwrap();
        assert_eq!(told, answer_orders(&book, &question, 0), "{n}");
        forgotten += usize::from(told == OrdersAnswer::IsKeyReused(false));
    }
    assert!((1..=80).contains(&forgotten), "{forgotten}");
}

#[test]
fn a_million_orders_are_replaced_and_ten_thousand_transactions_taken_over_in_a_moment() {
    let server = Server::start(Persistence::Always).unwrap();
    let store = open(&options(&server));
    let replace = |seed| OrdersCommand::Replace { count: MAX_BATCH, items: 100, users: 100, price: 1, seed };
    assert_eq!(submit(&store, replace(5)), Ok(OrdersReply::Done));
    let log = |command| submit(&store, OrdersCommand::Log(command));
    for (instance, epoch) in [(INSTANCES[0], 1), (INSTANCES[1], 2)] {
        let told = log(LogCommand::Register { instance, now: Timestamp(0), lease: 0 });
        assert_eq!(told, Ok(OrdersReply::Log(LogReply::Registered(Epoch(epoch)))));
    }
    let [one, other] = [0, 1].map(|n| Writer { instance: INSTANCES[n], epoch: Epoch(n as u64 + 1) });
    let mut story = Story::new(1, false);
    let mut answers = Vec::new();
    let mut ids = Vec::new();
    for n in 0..10_000_u64 {
        let mut random = [0; 16];
        random[..8].copy_from_slice(&n.to_be_bytes());
        let id = TransactionId::new(Timestamp(1_000 + n), random);
        let context = Claim { order: EntityId::number(n * 7), version: n * 7 + 1 }.encode().unwrap();
        let transaction = Transaction { id, context, ..(*story.transaction(&OrderBook::default())).clone() };
        let stage = LogCommand::Stage { writer: one, transaction: Arc::new(transaction) };
        answers.push(begin(&store, OrdersCommand::Log(stage)));
        ids.push(id);
        if answers.len() > 5_000 {
            assert_eq!(answers.remove(0).recv().unwrap(), Ok(OrdersReply::Log(LogReply::Staged)));
        }
    }
    for answer in answers {
        assert_eq!(answer.recv().unwrap(), Ok(OrdersReply::Log(LogReply::Staged)));
    }
    let began = Instant::now();
    let take = LogCommand::TakeOver { writer: other, from: one.instance, now: Timestamp(11) };
    assert_eq!(log(take), Ok(OrdersReply::Log(LogReply::Taken(10_000))));
    println!("taken over in {:?}", began.elapsed());
    assert!(began.elapsed() < Duration::from_secs(2), "it took {:?}", began.elapsed());
    let LogAnswer::Open { records, .. } = read(&store, LogQuery::Open) else { panic!("not what is open") };
    assert_eq!(records.iter().map(|(id, _)| *id).collect::<Vec<_>>(), ids, "page by page, in the order of birth");
    assert!(records.iter().all(|(_, record)| record.owner == Some(other.instance)));
    let decide = |id| LogCommand::Decide { writer: other, id, decision: Decision::Commit, now: Timestamp(12) };
    let decided: Vec<_> = ids.iter().map(|id| begin(&store, OrdersCommand::Log(decide(*id)))).collect();
    // All of them: with as many that wait, there is no room for another command.
    for answer in decided {
        assert!(matches!(answer.recv().unwrap(), Ok(OrdersReply::Log(LogReply::Decided { first: true, .. }))));
    }
    let finish = LogCommand::Finish { writer: other, ids, now: Timestamp(13) };
    assert_eq!(log(finish), Ok(OrdersReply::Log(LogReply::Done)));
    let began = Instant::now();
    assert_eq!(submit(&store, replace(7)), Ok(OrdersReply::Done));
    println!("replaced in {:?}", began.elapsed());
    assert!(began.elapsed() < Duration::from_secs(1), "it took {:?}", began.elapsed());
    let found = audit(&store);
    assert_eq!((found.paid.orders, found.discrepancies.len()), (10_000, 0));
    assert_eq!(found.paid.by_item.values().sum::<i128>(), 20_000);
    let began = Instant::now();
    let forget = LogCommand::Forget { finished_before: Timestamp(14), keep: 0, spare_since: Timestamp(0) };
    assert_eq!(log(forget), Ok(OrdersReply::Log(LogReply::Done)));
    println!("forgotten in {:?}", began.elapsed());
    let listing = LogQuery::Listing { standing: None, limit: 10 };
    assert_eq!(read(&store, listing), LogAnswer::Listing(Vec::new()));
    assert_eq!(audit(&store).paid.orders, 10_000, "what is paid is paid, whether the log remembers it or not");
}
