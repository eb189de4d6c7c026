//! The ledger as a deterministic state machine: accounts, branches, and the barrier between them.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use serde::{Deserialize, Serialize};
use table::{Frozen, Table};

use protocol::barrier::{Action, Memory, barrier};
use protocol::limits::{MAX_AMOUNT, MAX_BATCH};
use protocol::log::Verdict;
use protocol::simulation::{Mutation, mark, mutated};
use protocol::{BranchId, BranchState, Command, Name, Refusal, Reply, Timestamp, Verb};

use crate::account::{Account, Denial, Totals};
use crate::entries::{self, Entry};
use crate::id::EntityId;
use crate::idempotency::{FrozenKeys, IdempotencyKey, Keys, Recalled};

/// A change of the ledger.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LedgerCommand {
    /// Something about an account that is no part of a transaction.
    Change {
        /// What.
        change: Change,
        /// The client's key, if it sent one.
        key: Option<IdempotencyKey>,
    },
    /// A command of a coordinator.
    Branch(Command),
    /// Executed branches that stand, as the log said: they may be forgotten.
    Retire(Vec<BranchId>),
    /// Replaces the accounts 0 to `count` - 1, history included; refused while branches are open.
    Replace {
        /// How many accounts, up to [`MAX_BATCH`].
        count: u64,
        /// What each has available.
        available: i64,
        /// The price of each.
        price: i64,
    },
    /// Forgets final branches, oldest first: those born before `born_before`, and those beyond `keep` born before `spare_since`.
    Forget {
        /// However few there are, forget those of transactions born before this.
        born_before: Timestamp,
        /// How many to remember.
        keep: usize,
        /// However many there are, remember those of transactions born at or after this.
        spare_since: Timestamp,
    },
}

/// A change of one account.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Change {
    /// A new, empty account. A repeat changes nothing.
    Open {
        /// Its id, chosen by the caller.
        account: EntityId,
        /// Its price.
        price: i64,
    },
    /// Adds to an account.
    Credit {
        /// The account.
        account: EntityId,
        /// 1 to [`MAX_AMOUNT`].
        amount: i64,
    },
    /// Takes from an account.
    Debit {
        /// The account.
        account: EntityId,
        /// 1 to [`MAX_AMOUNT`].
        amount: i64,
    },
}

/// The ledger's answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LedgerReply {
    /// The account, as it is after the change.
    Account(EntityId, Account),
    /// The change was denied.
    Denied(Denial),
    /// The idempotency key was used for another request.
    KeyReused,
    /// A branch's answer.
    Branch {
        /// As the coordinator is told.
        reply: Reply,
        /// Whether a commit found no prepared branch and captured anew: this store has lost data.
        repaired: bool,
    },
    /// So many branches are open; nothing was replaced.
    Busy(u64),
    /// Done.
    Done,
}

/// What the ledger remembers of a branch.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Branch {
    /// What became of it.
    pub state: BranchState,
    /// Why it was refused, if it was.
    pub refusal: Option<Box<Refusal>>,
    /// What it holds or took. Empty once it is final, and only then: an open branch has at least one entry.
    pub entries: Box<[Entry]>,
}

impl Branch {
    fn finally(state: BranchState) -> Self {
        Self { state, refusal: None, entries: Box::default() }
    }
}

/// The ledger's state.
#[derive(Debug, Clone, Default)]
pub struct Ledger {
    accounts: Table<EntityId, Account>,
    branches: Table<BranchId, Branch>,
    /// Prepared, or executed and not known to stand.
    open: BTreeSet<BranchId>,
    /// Final, in the order in which they became so.
    finals: VecDeque<BranchId>,
    /// Branches of transactions born at or before this, and without a record, are forgotten.
    floor: Timestamp,
    /// The accounts that a `Replace` did away with, summed up.
    replaced: Totals,
    /// What they had settled, account by account. 128 bits: an account can be replaced without end.
    replaced_settled: BTreeMap<EntityId, i128>,
    keys: Keys<LedgerReply>,
}

/// A picture of a [`Ledger`] that stands still.
#[derive(Debug)]
pub struct FrozenLedger {
    /// The accounts.
    pub accounts: Frozen<EntityId, Account>,
    /// The branches.
    pub branches: Frozen<BranchId, Branch>,
    /// The idempotency keys.
    pub keys: FrozenKeys<LedgerReply>,
    /// What does not fit in a table.
    pub rest: LedgerRest,
}

/// The parts of a ledger that are small.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct LedgerRest {
    finals: VecDeque<BranchId>,
    floor: Timestamp,
    replaced: Totals,
    replaced_settled: BTreeMap<EntityId, i128>,
}

/// The reason of a branch that asks for more than is available.
pub const INSUFFICIENT: Name = Name::literal("insufficient");
/// The reason of a branch that names an account which does not exist.
pub const UNKNOWN_ACCOUNT: Name = Name::literal("unknown_account");

impl Ledger {
    /// Carries a command out. Returns the answer and whether anything changed.
    pub fn apply(&mut self, command: &LedgerCommand) -> (LedgerReply, bool) {
        match command {
            LedgerCommand::Change { change, key } => self.keyed(change, key.as_ref()),
            LedgerCommand::Branch(command) => self.branch(command),
            LedgerCommand::Retire(ids) => {
                let mut changed = false;
                for id in ids {
                    changed |= self.retire(*id);
                }
                (LedgerReply::Done, changed)
            }
            LedgerCommand::Replace { count, available, price } => self.replace(*count, *available, *price),
            LedgerCommand::Forget { born_before, keep, spare_since } => {
                let before = self.finals.len();
                self.forget(*born_before, *keep, *spare_since);
                (LedgerReply::Done, self.finals.len() != before)
            }
        }
    }

    fn keyed(&mut self, change: &Change, key: Option<&IdempotencyKey>) -> (LedgerReply, bool) {
        let Some(key) = key else { return self.change(change) };
        match self.keys.recall(key) {
            Recalled::Repeat(_) if mutated(Mutation::KeyedRepeatChangesAgain) => self.change(change),
            Recalled::Repeat(answer) => {
                mark("ledger.key_repeated");
                (answer.clone(), false)
            }
            Recalled::Reused => (LedgerReply::KeyReused, false),
            Recalled::Fresh => {
                let (reply, changed) = self.change(change);
                let succeeded = matches!(reply, LedgerReply::Account(..));
                if succeeded {
                    self.keys.remember(key, reply.clone());
                }
                (reply, changed || succeeded)
            }
        }
    }

    fn change(&mut self, change: &Change) -> (LedgerReply, bool) {
        let (id, result) = match *change {
            Change::Open { account, price } => {
                if let Some(present) = self.accounts.get(&account) {
                    return (LedgerReply::Account(account, *present), false);
                }
                let opened = Account { price, ..Account::default() };
                self.accounts.insert(account, opened);
                return (LedgerReply::Account(account, opened), true);
            }
            Change::Credit { account, amount } => (account, self.with(account, |found| found.credit(amount))),
            Change::Debit { account, amount } => (account, self.with(account, |found| found.debit(amount))),
        };
        match result {
            Ok(account) => (LedgerReply::Account(id, account), true),
            Err(denial) => (LedgerReply::Denied(denial), false),
        }
    }

    fn with(
        &mut self,
        id: EntityId,
        change: impl FnOnce(&mut Account) -> Result<(), Denial>,
    ) -> Result<Account, Denial> {
        let account = self.accounts.get_mut(&id).ok_or(Denial::UnknownAccount)?;
        change(account)?;
        Ok(*account)
    }

    fn branch(&mut self, command: &Command) -> (LedgerReply, bool) {
        let id = command.branch;
        if mutated(Mutation::PredicateBeforeBarrier)
            && command.verb.begins()
            && let Ok(wanted) = entries::decode(&command.payload)
            && let Err(refusal) = self.admit(&wanted)
        {
            return (LedgerReply::Branch { reply: Reply::Refused(refusal), repaired: false }, false);
        }
        let memory = match self.branches.get(&id) {
            Some(branch) => Memory::Known(branch.state),
            None if id.transaction.birth() <= self.floor => Memory::Forgotten,
            None => Memory::None,
        };
        let action = barrier(memory, command.verb);
        let (reply, changed) = match action {
            Action::Hold => self.begin(command, BranchState::Prepared),
            Action::Charge => self.begin(command, BranchState::Executed),
            Action::Capture => self.finish(id, BranchState::Committed, Account::capture),
            Action::Release => self.finish(id, BranchState::Aborted, Account::release),
            Action::Restore => self.finish(id, BranchState::Compensated, Account::restore),
            Action::Repair => self.repair(command),
            Action::Poison(state) => {
                self.conclude(id, Branch::finally(state));
                (Reply::Done(state), true)
            }
            Action::Repeat(state) => (Reply::Done(state), false),
            Action::Refuse => (Reply::Refused(self.refusal_of(id)), false),
            Action::RefuseExpired => (Reply::Refused(Refusal::new(Refusal::EXPIRED, "")), false),
            Action::Violate(state) => (Reply::Violation(state), false),
        };
        let repaired = action == Action::Repair && matches!(reply, Reply::Done(_));
        (LedgerReply::Branch { reply, repaired }, changed)
    }

    fn refusal_of(&self, id: BranchId) -> Refusal {
        let remembered = self.branches.get(&id).and_then(|branch| branch.refusal.as_deref());
        remembered.cloned().unwrap_or_else(|| Refusal::new(Refusal::ABORTED, ""))
    }

    /// Holds or charges, or refuses; and remembers which.
    fn begin(&mut self, command: &Command, state: BranchState) -> (Reply, bool) {
        let admitted = entries::decode(&command.payload).and_then(|wanted| self.admit(&wanted).map(|()| wanted));
        match admitted {
            Ok(wanted) => {
                for entry in &wanted {
                    if let Some(account) = self.accounts.get_mut(&entry.account) {
                        match state {
                            BranchState::Prepared => account.hold(entry.amount),
                            _ => account.charge(entry.amount),
                        }
                    }
                }
                self.open.insert(command.branch);
                self.branches.insert(command.branch, Branch { state, refusal: None, entries: wanted });
                (Reply::Done(state), true)
            }
            Err(refusal) => {
                let refused = Branch {
                    state: BranchState::Aborted,
                    refusal: Some(Box::new(refusal.clone())),
                    entries: Box::default(),
                };
                self.conclude(command.branch, refused);
                (Reply::Refused(refusal), true)
            }
        }
    }

    /// The one business rule: all of it must be available.
    fn admit(&self, wanted: &[Entry]) -> Result<(), Refusal> {
        for entry in wanted {
            let refuse = |why| Refusal::new(why, &entry.account.to_string());
            let account = self.accounts.get(&entry.account).ok_or_else(|| refuse(UNKNOWN_ACCOUNT))?;
            account.can_take(entry.amount).map_err(|_| refuse(INSUFFICIENT))?;
        }
        Ok(())
    }

    /// Moves what an open branch holds, and makes it final.
    fn finish(&mut self, id: BranchId, state: BranchState, shift: fn(&mut Account, i64)) -> (Reply, bool) {
        let open = self.branches.get_mut(&id).map(|branch| std::mem::replace(branch, Branch::finally(state)));
        for entry in open.iter().flat_map(|branch| &branch.entries) {
            if let Some(account) = self.accounts.get_mut(&entry.account) {
                shift(account, entry.amount);
            }
        }
        self.open.remove(&id);
        self.finals.push_back(id);
        (Reply::Done(state), true)
    }

    /// The decision is to commit and the prepared branch is gone: what it held is captured from the command's payload, whatever is
    /// available, for the decision is irrevocable.
    fn repair(&mut self, command: &Command) -> (Reply, bool) {
        let Ok(wanted) = entries::decode(&command.payload) else {
            return (Reply::Violation(BranchState::Aborted), false);
        };
        mark("ledger.repair");
        for entry in &wanted {
            let mut account = self.accounts.get(&entry.account).copied().unwrap_or_default();
            account.charge(entry.amount);
            self.accounts.insert(entry.account, account);
        }
        self.conclude(command.branch, Branch::finally(BranchState::Committed));
        (Reply::Done(BranchState::Committed), true)
    }

    fn conclude(&mut self, id: BranchId, branch: Branch) {
        self.branches.insert(id, branch);
        self.open.remove(&id);
        self.finals.push_back(id);
    }

    fn retire(&mut self, id: BranchId) -> bool {
        let executed = self.branches.get(&id).is_some_and(|branch| branch.state == BranchState::Executed);
        let retires = executed && self.open.remove(&id);
        if retires {
            if let Some(branch) = self.branches.get_mut(&id) {
                branch.entries = Box::default();
            }
            self.finals.push_back(id);
        }
        retires
    }

    fn replace(&mut self, count: u64, available: i64, price: i64) -> (LedgerReply, bool) {
        if !self.open.is_empty() && !mutated(Mutation::ReplacesHeldAccounts) {
            return (LedgerReply::Busy(self.open.len() as u64), false);
        }
        let fits = (0..=MAX_AMOUNT).contains(&available) && count <= MAX_BATCH;
        if !fits {
            return (LedgerReply::Denied(Denial::Overflow), false);
        }
        mark("ledger.replaced");
        for n in 0..count {
            let fresh = Account { available, credited: available, price, ..Account::default() };
            if let Some(old) = self.accounts.insert(EntityId::number(n), fresh) {
                self.replaced.add(&old);
                if old.settled != 0 {
                    *self.replaced_settled.entry(EntityId::number(n)).or_default() += i128::from(old.settled);
                }
            }
        }
        (LedgerReply::Done, true)
    }

    fn forget(&mut self, born_before: Timestamp, keep: usize, spare_since: Timestamp) {
        while let Some(id) = self.finals.front().copied() {
            let birth = id.transaction.birth();
            let surplus = self.finals.len() > keep && birth < spare_since;
            if birth >= born_before && !surplus {
                break;
            }
            self.finals.pop_front();
            self.branches.remove(&id);
            self.floor = self.floor.max(birth);
        }
        if mutated(Mutation::FloorRisesOverOpenBranches) {
            for id in std::mem::take(&mut self.open) {
                if id.transaction.birth() < spare_since {
                    self.branches.remove(&id);
                    self.floor = self.floor.max(id.transaction.birth());
                } else {
                    self.open.insert(id);
                }
            }
        }
        if mutated(Mutation::ReleaseByTimeout) {
            let old: Vec<BranchId> =
                self.open.iter().filter(|id| id.transaction.birth() < spare_since).copied().collect();
            for id in old {
                if self.branches.get(&id).is_some_and(|branch| branch.state == BranchState::Prepared) {
                    self.finish(id, BranchState::Aborted, Account::release);
                }
            }
        }
    }

    /// An account.
    pub fn account(&self, id: EntityId) -> Option<&Account> {
        self.accounts.get(&id)
    }

    /// The accounts, in no order that means anything.
    pub fn accounts(&self) -> impl Iterator<Item = (EntityId, &Account)> {
        self.accounts.iter().map(|(id, account)| (*id, account))
    }

    /// The accounts page by page, as [`Table::page`] has it.
    pub fn account_page(&self, from: u32, slots: u32) -> (impl Iterator<Item = (EntityId, &Account)>, Option<u32>) {
        let (rows, next) = self.accounts.page(from, slots);
        (rows.map(|(id, account)| (*id, account)), next)
    }

    /// What an account has settled, that of its replaced predecessors included.
    pub fn settled_ever(&self, id: EntityId) -> i128 {
        let before = self.replaced_settled.get(&id).copied().unwrap_or_default();
        before + self.accounts.get(&id).map_or(0, |account| i128::from(account.settled))
    }

    /// How many branches are open.
    pub fn open_count(&self) -> usize {
        self.open.len()
    }

    /// A branch.
    pub fn get_branch(&self, id: BranchId) -> Option<&Branch> {
        self.branches.get(&id)
    }

    /// The open branches, oldest transaction first: prepared ones, and executed ones not known to stand.
    pub fn open_branches(&self) -> impl Iterator<Item = (BranchId, BranchState)> {
        self.open.iter().filter_map(|id| Some((*id, self.branches.get(id)?.state)))
    }

    /// How many branches are remembered, open ones included.
    pub fn branch_count(&self) -> usize {
        self.branches.len()
    }

    /// Branches of transactions born at or before this, and without a record, are forgotten.
    pub fn floor(&self) -> Timestamp {
        self.floor
    }

    /// The youngest birth of a transaction that the ledger knows of, its floor included.
    pub fn youngest(&self) -> Timestamp {
        let births = self.branches.iter().map(|(id, _)| id.transaction.birth());
        births.chain([self.floor]).max().unwrap_or_default()
    }

    /// The sums over all accounts that ever were, those replaced since included.
    pub fn totals(&self) -> Totals {
        let mut totals = self.replaced;
        self.accounts.iter().for_each(|(_, account)| totals.add(account));
        totals
    }

    /// What every account has settled, that of its replaced predecessors included. Accounts that never settled anything may be left out.
    pub fn settled_by_account(&self) -> BTreeMap<EntityId, i128> {
        let mut settled = self.replaced_settled.clone();
        for (id, account) in self.accounts.iter().filter(|(_, account)| account.settled != 0) {
            *settled.entry(*id).or_default() += i128::from(account.settled);
        }
        settled
    }

    /// A picture that stands still.
    pub fn freeze(&self) -> FrozenLedger {
        FrozenLedger {
            accounts: self.accounts.freeze(),
            branches: self.branches.freeze(),
            keys: if mutated(Mutation::KeysAreNotInSnapshots) { Table::default().freeze() } else { self.keys.freeze() },
            rest: LedgerRest {
                finals: self.finals.clone(),
                floor: self.floor,
                replaced: self.replaced,
                replaced_settled: self.replaced_settled.clone(),
            },
        }
    }

    /// Rebuilds the state from what a picture held.
    pub fn thaw(
        accounts: Table<EntityId, Account>,
        branches: Table<BranchId, Branch>,
        keys: Keys<LedgerReply>,
        rest: LedgerRest,
    ) -> Self {
        let open = branches
            .iter()
            .filter(|(_, branch)| match branch.state {
                BranchState::Prepared => true,
                BranchState::Executed => !branch.entries.is_empty(),
                BranchState::Committed | BranchState::Aborted | BranchState::Compensated => false,
            })
            .map(|(id, _)| *id)
            .collect();
        Self {
            accounts,
            branches,
            open,
            finals: rest.finals,
            floor: rest.floor,
            replaced: rest.replaced,
            replaced_settled: rest.replaced_settled,
            keys,
        }
    }
}

/// What a participant does about an open branch, given what the log said of its transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Termination {
    /// Carry this verb out on the branch.
    Apply(Verb),
    /// The executed branch stands.
    Retire,
}

/// The participant's own termination: no timeout ever releases a branch, only the log's word does.
///
/// `state` is what the branch is when the verdict comes, not what it was when the question was asked: its coordinator may have settled it
/// meanwhile, and an abort of a committed branch would raise an alarm.
///
/// | branch   | Committed | Aborted    | Forgotten | Pending   |
/// |----------|-----------|------------|-----------|-----------|
/// | Prepared | commit    | abort      | abort     | ask again |
/// | Executed | stands    | compensate | stands    | ask again |
pub fn terminate(state: BranchState, verdict: Verdict) -> Option<Termination> {
    match (state, verdict) {
        (BranchState::Prepared, Verdict::Committed) => Some(Termination::Apply(Verb::Commit)),
        (BranchState::Prepared, Verdict::Aborted | Verdict::Forgotten) => Some(Termination::Apply(Verb::Abort)),
        (BranchState::Executed, Verdict::Committed | Verdict::Forgotten) => Some(Termination::Retire),
        (BranchState::Executed, Verdict::Aborted) => Some(Termination::Apply(Verb::Compensate)),
        (_, Verdict::Pending) => None,
        (BranchState::Committed | BranchState::Aborted | BranchState::Compensated, _) => None,
    }
}
