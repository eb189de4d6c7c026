//! Random histories of a ledger: whatever comes, in whatever order, how often ever, it stays sound.

#![allow(clippy::unwrap_used, reason = "in a test a broken expectation is a failed test")]

use std::collections::BTreeMap;

use ledger::audit::audit;
use ledger::{
    Change, EntityId, Entry, IdempotencyKey, Keys, Ledger, LedgerCommand, LedgerReply, Termination, entries, terminate,
};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::Index;
use protocol::limits::MAX_AMOUNT;
use protocol::log::Verdict;
use protocol::{BranchId, BranchState, Command, Payload, Reply, Timestamp, TransactionId, Verb};
use table::Table;

const ACCOUNTS: u64 = 4;
const BRANCHES: u8 = 12;
/// Branches are born this many milliseconds apart.
const APART: u64 = 10;

/// Every branch has one payload, as a coordinator sends it: a repeat says the same.
fn payload(branch: u8) -> Payload {
    let n = u64::from(branch);
    let entry = |account, amount| Entry { account: EntityId::number(account), amount };
    let wanted = match branch % 4 {
        // One account beyond those that there are: refused.
        0 if branch >= 8 => vec![entry(ACCOUNTS, 1)],
        0 | 1 => vec![entry(n % ACCOUNTS, 1 + n as i64)],
        _ => vec![entry(n % ACCOUNTS, 2), entry((n + 1) % ACCOUNTS, 1 + n as i64)],
    };
    entries::encode(&wanted).unwrap()
}

fn branch_id(branch: u8) -> BranchId {
    let birth = Timestamp(1_000 + APART * u64::from(branch));
    BranchId { transaction: TransactionId::new(birth, [branch; 16]), step: branch % 2 }
}

fn branch_command(branch: u8, verb: Verb) -> LedgerCommand {
    LedgerCommand::Branch(Command { branch: branch_id(branch), verb, payload: payload(branch) })
}

fn verb() -> impl Strategy<Value = Verb> {
    proptest::sample::select(&Verb::ALL[..])
}

fn key() -> impl Strategy<Value = Option<IdempotencyKey>> {
    let some = (0..3_u8, 0..2_u64);
    proptest::option::weighted(
        0.2,
        some.prop_map(|(n, fingerprint)| {
            let key = format!("key {n}").into();
            IdempotencyKey { key, fingerprint, at: Timestamp(0) }
        }),
    )
}

fn change() -> impl Strategy<Value = Change> {
    let (account, amount) = (0..=ACCOUNTS, prop_oneof![9 => 1..30_i64, 1 => Just(MAX_AMOUNT)]);
    (0..5_u8, account, amount).prop_map(|(kind, account, amount)| {
        let account = EntityId::number(account);
        match kind {
            // Not the last one: branches that name it are refused.
            0 if account != EntityId::number(ACCOUNTS) => Change::Open { account, price: amount.min(9) },
            0..=2 => Change::Credit { account, amount },
            _ => Change::Debit { account, amount },
        }
    })
}

fn command() -> impl Strategy<Value = LedgerCommand> {
    let branches = || vec((0..BRANCHES).prop_map(branch_id), 0..4);
    let moment = || (0..u64::from(BRANCHES) + 2).prop_map(|at| Timestamp(1_000 + APART * at));
    prop_oneof![
        20 => (0..BRANCHES, verb()).prop_map(|(branch, verb)| branch_command(branch, verb)),
        6 => (change(), key()).prop_map(|(change, key)| LedgerCommand::Change { change, key }),
        2 => branches().prop_map(LedgerCommand::Retire),
        1 => (1..=ACCOUNTS, 0..50_i64, 0..9_i64)
            .prop_map(|(count, available, price)| LedgerCommand::Replace { count, available, price }),
        1 => (moment(), 0..8_usize, moment()).prop_map(|(born_before, keep, spare_since)| {
            LedgerCommand::Forget { born_before, keep, spare_since }
        }),
    ]
}

/// Histories that keep the protocol's promise that only prepared branches are committed: a commit that finds none is a repair, which
/// overdraws by design. And a branch is retired only if it is forgotten by its coordinator, so it is not compensated afterwards.
fn is_promised(ledger: &Ledger, command: &LedgerCommand) -> bool {
    match command {
        LedgerCommand::Branch(Command { branch, verb: Verb::Commit, .. }) => {
            ledger.get_branch(*branch).is_some() || branch.transaction.birth() <= ledger.floor()
        }
        LedgerCommand::Branch(Command { branch, verb: Verb::Compensate, .. }) => {
            let retired = |found: &ledger::Branch| found.state == BranchState::Executed && found.entries.is_empty();
            !ledger.get_branch(*branch).is_some_and(retired)
        }
        _ => true,
    }
}

fn seeded() -> Ledger {
    let mut ledger = Ledger::default();
    ledger.apply(&LedgerCommand::Replace { count: ACCOUNTS, available: 20, price: 1 });
    ledger
}

/// Everything that can be seen of a ledger.
fn visible(ledger: &Ledger) -> (BTreeMap<EntityId, ledger::Account>, BTreeMap<BranchId, ledger::Branch>, String) {
    let frozen = ledger.freeze();
    let accounts = frozen.accounts.iter().map(|(id, account)| (*id, *account)).collect();
    let branches = frozen.branches.iter().map(|(id, branch)| (*id, branch.clone())).collect();
    let open: Vec<_> = ledger.open_branches().collect();
    let keys: BTreeMap<_, _> = frozen.keys.iter().collect();
    let rest = format!("{:?} {keys:?} {open:?} {:?} {:?}", frozen.rest, ledger.totals(), ledger.settled_by_account());
    (accounts, branches, rest)
}

/// What a store does with a snapshot.
fn thawed(ledger: &Ledger) -> Ledger {
    let frozen = ledger.freeze();
    let (mut accounts, mut branches) = (Table::default(), Table::default());
    for (id, account) in frozen.accounts.iter() {
        accounts.insert(*id, *account);
    }
    for (id, branch) in frozen.branches.iter() {
        branches.insert(*id, branch.clone());
    }
    let keys = frozen.keys.iter().map(|(key, found)| (key.clone(), found.clone())).collect();
    Ledger::thaw(accounts, branches, Keys::thaw(keys), frozen.rest)
}

fn run(commands: &[LedgerCommand]) -> Ledger {
    let mut ledger = seeded();
    for command in commands {
        if is_promised(&ledger, command) {
            ledger.apply(command);
        }
    }
    ledger
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    /// The invariants hold after every step, and what is said to be unchanged is.
    #[test]
    fn every_step_leaves_the_ledger_sound(commands in vec(command(), 1..120)) {
        let mut ledger = seeded();
        for command in &commands {
            if !is_promised(&ledger, command) {
                continue;
            }
            let before = ledger.clone();
            let (reply, changed) = ledger.apply(command);
            prop_assert_eq!(audit(&ledger), vec![], "{:?}", command);
            prop_assert!(ledger.accounts().all(|(_, account)| account.available >= 0), "{:?}", command);
            let totals = ledger.totals();
            prop_assert_eq!(totals.credited, totals.available + totals.held + totals.settled + totals.debited);
            prop_assert!(!matches!(reply, LedgerReply::Branch { repaired: true, .. }), "{:?}", command);
            if !changed {
                prop_assert_eq!(visible(&ledger), visible(&before), "{:?}", command);
            }
        }
    }

    /// A coordinator's command may come twice, and a client's under its key: the second changes nothing and hears the same.
    #[test]
    fn a_repeat_changes_nothing_and_hears_the_same(commands in vec(command(), 1..120)) {
        let mut ledger = seeded();
        for command in commands.iter().filter(|command| !matches!(command, LedgerCommand::Replace { .. })) {
            if !is_promised(&ledger, command) {
                continue;
            }
            let (first, _) = ledger.apply(command);
            let is_repeatable = match command {
                LedgerCommand::Change { change, key } => key.is_some() || matches!(change, Change::Open { .. }),
                _ => true,
            };
            if is_repeatable && is_promised(&ledger, command) {
                let before = visible(&ledger);
                let (second, changed) = ledger.apply(command);
                prop_assert_eq!(&second, &first, "{:?}", command);
                // A second forgetting may go on where a branch too young stopped the first; it says so.
                prop_assert!(!changed, "{:?}", command);
                prop_assert_eq!(visible(&ledger), before, "{:?}", command);
            }
        }
    }

    /// Commands of different branches that were all carried out commute: what counts is which happened, not when.
    #[test]
    fn reservations_that_fit_commute(order in Just((0..8_u8).collect::<Vec<_>>()).prop_shuffle(), ends in vec(any::<bool>(), 8)) {
        let end = |ledger: &mut Ledger, branch: u8| {
            let verb = if ends[usize::from(branch)] { Verb::Commit } else { Verb::Abort };
            ledger.apply(&branch_command(branch, verb));
        };
        let history = |branches: &[u8]| {
            let mut ledger = Ledger::default();
            ledger.apply(&LedgerCommand::Replace { count: ACCOUNTS, available: 1_000, price: 1 });
            branches.iter().for_each(|branch| _ = ledger.apply(&branch_command(*branch, Verb::Prepare)));
            branches.iter().rev().for_each(|branch| end(&mut ledger, *branch));
            visible(&ledger).0
        };
        let sorted: Vec<u8> = (0..8).collect();
        prop_assert_eq!(history(&order), history(&sorted));
    }

    /// A snapshot loses nothing: the ledger read back from one answers whatever comes next in the same way.
    #[test]
    fn a_thawed_ledger_behaves_the_same(commands in vec(command(), 1..80), after in vec(command(), 1..40)) {
        let mut one = run(&commands);
        let mut other = thawed(&one);
        prop_assert_eq!(visible(&other), visible(&one));
        for command in after {
            prop_assert_eq!(one.apply(&command), other.apply(&command), "{:?}", command);
        }
        prop_assert_eq!(visible(&other), visible(&one));
    }

    /// Forgetting takes final branches away, oldest first, and nothing else; none of those can begin again.
    #[test]
    fn forgetting_takes_only_final_branches_away(
        commands in vec(command(), 1..120),
        (born_before, keep, spare_since) in (0..14_u64, 0..8_usize, 0..14_u64),
    ) {
        let before = run(&commands);
        let mut ledger = before.clone();
        let at = |n: u64| Timestamp(1_000 + APART * n);
        let (born_before, spare_since) = (at(born_before), at(spare_since));
        ledger.apply(&LedgerCommand::Forget { born_before, keep, spare_since });
        let ((old_accounts, mut old_branches, _), (accounts, branches, _)) = (visible(&before), visible(&ledger));
        prop_assert_eq!(accounts, old_accounts);
        prop_assert_eq!(ledger.totals(), before.totals());
        prop_assert!(ledger.open_branches().eq(before.open_branches()));
        old_branches.retain(|id, _| !branches.contains_key(id));
        let open: Vec<BranchId> = before.open_branches().map(|(id, _)| id).collect();
        for id in old_branches.keys() {
            prop_assert!(!open.contains(id), "an open branch was forgotten: {id}");
            let birth = id.transaction.birth();
            prop_assert!(birth < born_before || birth < spare_since, "{id} was too young");
            prop_assert!(birth <= ledger.floor(), "{id} could begin again");
            for verb in [Verb::Prepare, Verb::Execute] {
                let (reply, changed) = ledger.apply(&branch_command(id.transaction.as_bytes()[15], verb));
                let expired = |reply: &LedgerReply| {
                    matches!(reply, LedgerReply::Branch { reply: Reply::Refused(why), .. } if why.is_expiry())
                };
                prop_assert!(expired(&reply) && !changed, "{verb} of forgotten {id}: {reply:?}");
            }
        }
        prop_assert_eq!(audit(&ledger), vec![]);
    }

    /// Whatever the log says of the branches left open, doing it settles every one of them and leaves a sound ledger.
    #[test]
    fn termination_settles_every_open_branch(commands in vec(command(), 1..120), verdicts in vec(any::<Index>(), 12)) {
        let mut ledger = run(&commands);
        let open: Vec<(BranchId, BranchState)> = ledger.open_branches().collect();
        for ((branch, state), verdict) in open.into_iter().zip(verdicts) {
            let verdict = *verdict.get(&[Verdict::Committed, Verdict::Aborted, Verdict::Forgotten]);
            let command = match terminate(state, verdict) {
                Some(Termination::Apply(verb)) => {
                    LedgerCommand::Branch(Command { branch, verb, payload: Payload::EMPTY })
                }
                Some(Termination::Retire) => LedgerCommand::Retire(vec![branch]),
                None => return Err(TestCaseError::fail("a final verdict leaves nothing to wait for")),
            };
            ledger.apply(&command);
            prop_assert_eq!(audit(&ledger), vec![]);
        }
        prop_assert_eq!(ledger.open_branches().count(), 0);
        prop_assert_eq!(ledger.totals().held, 0);
    }
}

/// More passes through one account than 64 bits can count, for it is replaced again and again.
#[test]
fn sums_over_replaced_accounts_never_overflow() {
    const TIMES: u16 = 1_100;
    let account = EntityId::number(0);
    let all = entries::encode(&[Entry { account, amount: MAX_AMOUNT }]).unwrap();
    let mut ledger = Ledger::default();
    for n in 0..TIMES {
        ledger.apply(&LedgerCommand::Replace { count: 1, available: MAX_AMOUNT, price: 0 });
        let branch = BranchId { transaction: TransactionId::new(Timestamp(1 + u64::from(n)), [1; 16]), step: 0 };
        for verb in [Verb::Prepare, Verb::Commit] {
            ledger.apply(&LedgerCommand::Branch(Command { branch, verb, payload: all.clone() }));
        }
    }
    assert_eq!(ledger.settled_by_account()[&account], i128::from(TIMES) * i128::from(MAX_AMOUNT));
    assert_eq!(audit(&ledger), vec![]);
}
