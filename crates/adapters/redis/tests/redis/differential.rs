//! The script against the pure function: the same random histories, every reply, and everything that can be seen of the state.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use fastrand::Rng;
use ledger::{Change, EntityId, Entry, IdempotencyKey, Ledger, LedgerCommand, LedgerReply, entries};
use orchestrator::{
    AccountSeen, LedgerAnswer, LedgerAudit, LedgerQuery, LedgerStore, Look, Seen, StoreFailure, answer_ledger,
};
use protocol::limits::{IDEMPOTENCY_KEY_MS, KEPT_IDEMPOTENCY_KEYS, MAX_AMOUNT, MAX_BATCH, MAX_IDEMPOTENCY_KEYS};
use protocol::{BranchId, BranchState, Command, Payload, Reply, Timestamp, TransactionId, Verb};
use redis_store::RedisLedger;
use servers::redis::{Persistence, Server, ask_within};

use crate::support::{audit, begin, branch, in_memory, open, options, quick_server, read, submit};

const HISTORIES: u64 = 24;
const COMMANDS: usize = 2_500;
/// After so many commands the whole state is compared.
const LOOK_EVERY: usize = 250;
/// Branches that commands are about at one time. They move on with the history, so that old ones are forgotten and come back late.
const WINDOW: u64 = 30;
/// The account whose id is no number.
const NAMED: &str = "0190b6e2-7c1f-7c3a-8f00-000000000001";

/// Makes commands that meet each other: few accounts, few branches, few keys.
struct Story {
    random: Rng,
    told: u64,
    used: BTreeSet<BranchId>,
    /// Whether a million accounts are still to be replaced in it.
    a_million: bool,
}

impl Story {
    fn number(&mut self, below: u64) -> u64 {
        self.random.u64(0..below)
    }

    fn one_in(&mut self, n: u64) -> bool {
        self.number(n) == 0
    }

    fn account(&mut self) -> EntityId {
        match self.number(24) {
            0 => NAMED.parse().unwrap(),
            1 => EntityId::number(u64::MAX),
            2 => EntityId::number(MAX_BATCH + self.random.u64(0..2)),
            3 => EntityId::number(MAX_BATCH - 1),
            n => EntityId::number(n % 7),
        }
    }

    fn amount(&mut self) -> i64 {
        match self.number(200) {
            0 => MAX_AMOUNT,
            1 => MAX_AMOUNT - self.random.i64(0..20),
            2 => MAX_AMOUNT / 2 + self.random.i64(0..3),
            _ => self.random.i64(1..12),
        }
    }

    fn branch(&mut self) -> BranchId {
        let n = self.told / 8 + self.number(WINDOW);
        let transaction = TransactionId::new(Timestamp(1_000 + n / 2 * 10), [n as u8; 16]);
        let id = BranchId { transaction, step: [0, 3, 11][(n % 3) as usize] };
        self.used.insert(id);
        id
    }

    /// Most often what the branch always says; a branch that was lost may be told otherwise.
    fn payload(&mut self, id: BranchId) -> Payload {
        if self.one_in(30) {
            return [Payload::EMPTY, Payload::from(&[9, 9][..])][self.number(2) as usize].clone();
        }
        let seed = u64::from(id.transaction.as_bytes()[15]) + if self.one_in(10) { 1_000 } else { 0 };
        let mut of_branch = Self { random: Rng::with_seed(seed), told: 0, used: BTreeSet::new(), a_million: false };
        let count = 1 + of_branch.number(3);
        let mut wanted: Vec<Entry> = Vec::new();
        for _ in 0..count {
            let entry = Entry { account: of_branch.account(), amount: of_branch.amount() };
            if wanted.iter().all(|other| other.account != entry.account) || self.one_in(20) {
                wanted.push(entry);
            }
        }
        entries::encode(&wanted).unwrap()
    }

    fn key(&mut self) -> Option<IdempotencyKey> {
        (self.one_in(3)).then(|| IdempotencyKey {
            key: ["a", "b b", "c\r\n*1", "\u{fc}", "%s {x}", ""][self.number(6) as usize].into(),
            fingerprint: [0, u64::MAX][usize::from(self.one_in(6))],
            at: self.moment(),
        })
    }

    fn moment(&mut self) -> Timestamp {
        match self.number(8) {
            0 => Timestamp(0),
            1 => Timestamp(u64::MAX),
            _ => Timestamp(1_000 + (self.told / 16 + self.number(WINDOW / 2)) * 10),
        }
    }

    fn change(&mut self) -> Change {
        let account = self.account();
        match self.number(5) {
            0 => Change::Open { account, price: [0, 7, i64::MAX, -3][self.number(4) as usize] },
            1 | 2 => Change::Credit { account, amount: self.amount() },
            _ => Change::Debit { account, amount: self.amount() },
        }
    }

    fn replace(&mut self) -> LedgerCommand {
        let count = [0, 1, 2, 3, 5, 5, 7, MAX_BATCH + 1][self.number(8) as usize];
        // Once: the pure one makes each of them.
        let count = if std::mem::take(&mut self.a_million) { MAX_BATCH } else { count };
        let available = [0, 40, 1_000, 1_000, 2_000, MAX_AMOUNT, MAX_AMOUNT + 1, -1][self.number(8) as usize];
        LedgerCommand::Replace { count, available, price: [0, 5, -1][self.number(3) as usize] }
    }

    fn next(&mut self, ledger: &Ledger) -> Vec<LedgerCommand> {
        self.told += 1;
        match self.number(60) {
            0..=35 => {
                let branch = self.branch();
                // Mostly in the order in which a coordinator sends them, for otherwise everything is poisoned.
                let verb = match self.number(10) {
                    0..=2 => Verb::Prepare,
                    3 | 4 => Verb::Execute,
                    5 => Verb::Commit,
                    _ => Verb::ALL[self.number(6) as usize],
                };
                vec![LedgerCommand::Branch(Command { branch, verb, payload: self.payload(branch) })]
            }
            36..=51 => vec![LedgerCommand::Change { change: self.change(), key: self.key() }],
            52..=54 => {
                let ids = (0..self.number(6)).map(|_| self.branch()).collect();
                vec![LedgerCommand::Retire(ids)]
            }
            55 | 56 => {
                let keep = [0, 2, 5, 9, usize::MAX][self.number(5) as usize];
                let (born_before, spare_since) = (self.moment(), self.moment());
                vec![LedgerCommand::Forget { born_before, keep, spare_since }]
            }
            57 | 58 => vec![self.replace()],
            // Everything that is open is settled, so that accounts can be replaced.
            _ => {
                let end = |(branch, state): (BranchId, BranchState)| {
                    let verb = match (state, self.number(2)) {
                        (BranchState::Executed, 0) => return LedgerCommand::Retire(vec![branch]),
                        (BranchState::Executed, _) => Verb::Compensate,
                        (_, 0) => Verb::Commit,
                        (_, _) => Verb::Abort,
                    };
                    LedgerCommand::Branch(Command { branch, verb, payload: Payload::EMPTY })
                };
                let mut commands: Vec<LedgerCommand> = ledger.open_branches().map(end).collect();
                commands.push(self.replace());
                commands
            }
        }
    }
}

/// The accounts that the histories tell of.
fn told_of() -> impl Iterator<Item = EntityId> {
    let numbers = (0..8).chain([MAX_BATCH - 1, MAX_BATCH, MAX_BATCH + 1, u64::MAX]);
    numbers.map(EntityId::number).chain([NAMED.parse().unwrap()])
}

/// Whether an account is now beyond what the script holds exactly, which it refuses to go.
fn is_inexact(ledger: &Ledger) -> bool {
    let beyond = |number: i64| !(-MAX_AMOUNT..=MAX_AMOUNT).contains(&number);
    let mut told = told_of().filter_map(|id| ledger.account(id));
    told.any(|account| beyond(account.available) || beyond(account.held) || beyond(account.settled))
}

fn sorted(mut audit: LedgerAudit) -> LedgerAudit {
    audit.discrepancies.sort_by_key(|found| format!("{found:?}"));
    audit
}

fn compare(ledger: &Ledger, store: &dyn LedgerStore, used: &BTreeSet<BranchId>, when: &str) {
    let mut questions: Vec<LedgerQuery> = told_of().map(LedgerQuery::Account).collect();
    questions.push(LedgerQuery::Branches(used.iter().copied().collect()));
    questions.push(LedgerQuery::Youngest);
    questions.push(LedgerQuery::Look(Look::Outcomes(used.iter().copied().collect())));
    questions.extend([told_of().collect(), Vec::new()].map(Look::Standing).map(LedgerQuery::Look));
    for limit in [3, 1_000] {
        for (prepared_before, executed_before) in [(u64::MAX, u64::MAX), (1_300, 0), (0, 1_300)] {
            let (prepared_before, executed_before) = (Timestamp(prepared_before), Timestamp(executed_before));
            questions.push(LedgerQuery::Open { prepared_before, executed_before, limit });
        }
    }
    for question in questions {
        let told = read(store, question.clone()).unwrap();
        assert_eq!(told, answer_ledger(ledger, &question), "{when}: {question:?}");
    }
}

/// Not as often: the pure one looks at every account, of which there may be a million.
fn compare_audits(ledger: &Ledger, store: &dyn LedgerStore, when: &str) {
    let expected = answer_ledger(ledger, &LedgerQuery::Audit);
    match (read(store, LedgerQuery::Audit).unwrap(), expected) {
        (LedgerAnswer::Audit(told), LedgerAnswer::Audit(expected)) => {
            assert_eq!(sorted(*told), sorted(*expected), "{when}: audit");
        }
        (told, _) => panic!("asked for an audit, answered {told:?}"),
    }
    compare_pages(ledger, store, when);
}

/// What each account settled, and those that stand, by the pages of an audit that goes on; and how many there are.
fn pages(read: impl Fn(Look) -> Seen) -> (BTreeMap<EntityId, i128>, BTreeMap<EntityId, ledger::Account>, u64) {
    let (mut settled, mut accounts, mut several) = (BTreeMap::new(), BTreeMap::new(), 0);
    let mut page = Some(String::new());
    while let Some(after) = page {
        let Seen::Accounts { rows, next, seeded } = read(Look::Accounts { after }) else { panic!("no accounts") };
        several = several.max(seeded);
        for AccountSeen { id, account, settled: amount, seeded } in rows {
            if settled.insert(id, amount).is_none() {
                several += u64::from(!seeded);
            }
            accounts.extend(account.map(|account| (id, account)));
        }
        page = next;
    }
    settled.retain(|_, amount| *amount != 0);
    (settled, accounts, several)
}

fn compare_pages(ledger: &Ledger, store: &dyn LedgerStore, when: &str) {
    let pure = |look| match answer_ledger(ledger, &LedgerQuery::Look(look)) {
        LedgerAnswer::Seen(seen) => seen,
        other => panic!("{when}: {other:?}"),
    };
    let told = |look| match read(store, LedgerQuery::Look(look)).unwrap() {
        LedgerAnswer::Seen(seen) => seen,
        other => panic!("{when}: {other:?}"),
    };
    let ((settled, accounts, several), expected) = (pages(told), pages(pure));
    assert_eq!((settled, several), (expected.0, expected.2), "{when}: pages");
    for (id, account) in accounts {
        assert_eq!(expected.1.get(&id), Some(&account), "{when}: {id}");
    }
}

/// Gives a command to both and compares. Returns the reply that they agree on, if there was one.
fn tell(ledger: &mut Ledger, store: &RedisLedger, command: &LedgerCommand, when: &str) -> Option<LedgerReply> {
    agree(ledger, submit(store, command.clone()), command, when)
}

/// Compares what the store said to a command with what the pure one says. Returns the reply that they agree on, if there was one.
fn agree(
    ledger: &mut Ledger,
    told: Result<LedgerReply, StoreFailure>,
    command: &LedgerCommand,
    when: &str,
) -> Option<LedgerReply> {
    match told {
        Err(StoreFailure::NotDone(why)) if why.contains("INEXACT") => {
            let mut beyond = ledger.clone();
            beyond.apply(command);
            assert!(is_inexact(&beyond), "{when}: refused for a reason that is none: {why}: {command:?}");
            None
        }
        told => {
            let (expected, _) = ledger.apply(command);
            assert_eq!(told, Ok(expected.clone()), "{when}: {command:?}");
            assert!(!is_inexact(ledger), "{when}: went beyond what it holds exactly: {command:?}");
            Some(expected)
        }
    }
}

/// What can be seen only by going on: which keys are remembered, and in which order the final branches are forgotten.
fn compare_what_is_hidden(ledger: &mut Ledger, store: &RedisLedger, story: &mut Story, when: &str) {
    for _ in 0..60 {
        let change = Change::Debit { account: EntityId::number(MAX_BATCH + 5), amount: 1 };
        tell(ledger, store, &LedgerCommand::Change { change, key: story.key() }, when);
    }
    for keep in (0..ledger.branch_count()).rev() {
        let forget = LedgerCommand::Forget { born_before: Timestamp(0), keep, spare_since: Timestamp(u64::MAX) };
        tell(ledger, store, &forget, when);
        if keep.is_multiple_of(7) {
            let question = LedgerQuery::Branches(story.used.iter().copied().collect());
            assert_eq!(read(store, question.clone()).unwrap(), answer_ledger(ledger, &question), "{when}: {keep} kept");
        }
    }
}

#[test]
fn the_script_answers_as_the_pure_ledger_does() {
    let server = quick_server();
    let (mut repaired, mut denied, mut replaced, mut held) = (0, 0, 0, 0);
    for seed in 0..HISTORIES {
        server.ask("FLUSHALL").unwrap();
        // Two processes have it open: what one does, the other sees.
        let stores = [open(&in_memory(&server)), open(&in_memory(&server))];
        let mut ledger = Ledger::default();
        let mut story = Story { random: Rng::with_seed(seed), told: 0, used: BTreeSet::new(), a_million: seed == 3 };
        for number in 0..COMMANDS {
            let when = format!("history {seed}, step {number}");
            for command in story.next(&ledger) {
                let store = &stores[story.number(2) as usize];
                match tell(&mut ledger, store, &command, &when) {
                    Some(LedgerReply::Branch { repaired: true, .. }) => repaired += 1,
                    Some(LedgerReply::Denied(_) | LedgerReply::KeyReused) => denied += 1,
                    Some(LedgerReply::Done) if matches!(command, LedgerCommand::Replace { .. }) => replaced += 1,
                    Some(LedgerReply::Branch { reply: Reply::Done(BranchState::Prepared), .. }) => held += 1,
                    _ => {}
                }
            }
            if number % LOOK_EVERY == 0 {
                compare(&ledger, &stores[0], &story.used, &when);
                compare_audits(&ledger, &stores[1], &when);
            }
        }
        let when = format!("history {seed}, at its end");
        compare_what_is_hidden(&mut ledger, &stores[0], &mut story, &when);
        compare(&ledger, &stores[0], &story.used, &when);
        compare_audits(&ledger, &stores[1], &when);
        let left = server.ask("HLEN {settle:stock:0}:branches").unwrap();
        let open = ledger.open_branches().count();
        assert!(left.contains(&format!(":{open}\r\n")), "{when}: forgotten branches are gone, {open} are open: {left}");
    }
    println!("{repaired} repaired, {denied} denied, {replaced} replaced, {held} prepared");
    assert!(repaired > 100 && denied > 100 && replaced > 100 && held > 100, "the histories meet every rule");
}

#[test]
fn a_whole_batch_answers_as_the_pure_ledger_does() {
    let server = quick_server();
    let (mut batches, mut scripts, mut repaired, mut inexact, mut held) = (0, 0, 0, 0, 0);
    for seed in 100..100 + HISTORIES {
        server.ask("FLUSHALL").unwrap();
        let store = open(&in_memory(&server));
        let mut ledger = Ledger::default();
        let mut story = Story { random: Rng::with_seed(seed), told: 0, used: BTreeSet::new(), a_million: false };
        let mut told = 0;
        while told < COMMANDS {
            let when = format!("history {seed}, behind step {told}");
            // What is told at once is carried out in that order. The first goes alone, the rest in one batch behind it.
            let many = 1 + story.number(100) as usize;
            let mut commands = Vec::new();
            while commands.len() < many {
                commands.extend(story.next(&ledger));
            }
            let answers: Vec<_> = commands.iter().map(|command| begin(&store, command.clone())).collect();
            for (command, answer) in commands.iter().zip(answers) {
                match agree(&mut ledger, answer.recv().unwrap(), command, &when) {
                    None => inexact += 1,
                    Some(LedgerReply::Branch { repaired: true, .. }) => repaired += 1,
                    Some(LedgerReply::Branch { reply: Reply::Done(BranchState::Prepared), .. }) => held += 1,
                    Some(_) => {}
                }
            }
            told += commands.len();
            compare(&ledger, &store, &story.used, &when);
        }
        compare_audits(&ledger, &store, &format!("history {seed}, at its end"));
        let statistics = store.statistics();
        (batches, scripts) = (batches + statistics.batches, scripts + statistics.scripts);
    }
    println!("{scripts} commands in {batches} batches; {repaired} repaired, {inexact} inexact, {held} prepared");
    assert!(scripts > 2 * batches && repaired > 100 && inexact > 10 && held > 100, "the batches meet every rule");
}

/// More keys than are kept however old they are.
const RUSH: usize = KEPT_IDEMPOTENCY_KEYS + 50;

#[test]
fn the_oldest_idempotency_keys_are_forgotten() {
    let server = quick_server();
    let store = open(&in_memory(&server));
    let mut ledger = Ledger::default();
    let account = EntityId::number(1);
    // A rush of keys; and what comes when the first of them are young no longer.
    let at = |n: usize| if n < RUSH { n as u64 % 7 } else { IDEMPOTENCY_KEY_MS + (n - RUSH) as u64 / 5 };
    let keyed = |n: usize| LedgerCommand::Change {
        change: Change::Credit { account, amount: 1 },
        key: Some(IdempotencyKey { key: format!("key {n}").into(), fingerprint: 1, at: Timestamp(at(n)) }),
    };
    tell(
        &mut ledger,
        &store,
        &LedgerCommand::Change { change: Change::Open { account, price: 0 }, key: None },
        "at first",
    );
    let mut answers = std::collections::VecDeque::new();
    for n in 0..RUSH + 40 {
        ledger.apply(&keyed(n));
        answers.push_back(begin(&store, keyed(n)));
        if answers.len() > 1_000 {
            assert!(matches!(answers.pop_front().unwrap().recv().unwrap(), Ok(LedgerReply::Account(..))));
        }
    }
    for answer in answers {
        assert!(matches!(answer.recv().unwrap(), Ok(LedgerReply::Account(..))));
    }
    let many = || -> usize { server.ask("LLEN {settle:stock:0}:key_order").unwrap()[1..].trim().parse().unwrap() };
    assert!((KEPT_IDEMPOTENCY_KEYS..RUSH + 40).contains(&many()), "some are forgotten, and no more: {}", many());
    // Repeats change nothing, so begin with those that are remembered.
    for n in (RUSH..RUSH + 40).chain((0..100).rev()) {
        tell(&mut ledger, &store, &keyed(n), "once more");
    }
    // There is an end to that, however young they are.
    let fill = "EVAL \"for n = 1, ARGV[1] do redis.call('RPUSH', KEYS[1], '1200000 x' .. n) end\" 1 {settle:stock:0}:key_order";
    let fill = format!("{fill} {}", MAX_IDEMPOTENCY_KEYS - many() + 1);
    // Nine hundred thousand of them: a machine with much to do takes seconds.
    ask_within(Duration::from_secs(60), server.port(), &fill).unwrap();
    let one_more = |n: usize| LedgerCommand::Change {
        change: Change::Credit { account, amount: 1 },
        key: Some(IdempotencyKey { key: format!("late {n}").into(), fingerprint: 1, at: Timestamp(0) }),
    };
    for n in 0..3 {
        assert!(matches!(begin(&store, one_more(n)).recv().unwrap(), Ok(LedgerReply::Account(..))));
        assert_eq!(many(), MAX_IDEMPOTENCY_KEYS);
    }
}

#[test]
fn a_million_accounts_are_replaced_in_a_moment() {
    let server = Server::start(Persistence::Always).unwrap();
    let store = open(&options(&server));
    let replace = |available| LedgerCommand::Replace { count: MAX_BATCH, available, price: 1 };
    assert_eq!(submit(&store, replace(5)), Ok(LedgerReply::Done));
    for n in 0..2_000 {
        submit(&store, branch(n, Verb::Prepare, n * 499, 1)).unwrap();
        submit(&store, branch(n, Verb::Commit, n * 499, 1)).unwrap();
    }
    let began = Instant::now();
    assert_eq!(submit(&store, replace(7)), Ok(LedgerReply::Done));
    assert!(began.elapsed() < Duration::from_secs(1), "it took {:?}", began.elapsed());
    let found = audit(&store);
    assert_eq!((found.accounts, found.totals.settled, found.discrepancies.len()), (MAX_BATCH, 2_000, 0));
    assert_eq!(found.totals.available, 12 * i128::from(MAX_BATCH) - 2_000);
}
