//! The real log and the real ledger as values that can be compared and hashed, and the one transaction that is checked.

use std::hash::{Hash, Hasher};
use std::sync::Arc;

use ledger::{Account, Change, EntityId, Entry, Ledger, LedgerCommand, LedgerReply};
use protocol::limits::TERMINATION_AGE_MS;
use protocol::log::{Lease, LogCommand, LogReply, LogState, Record, Writer};
use protocol::{
    BranchId, BranchState, Name, Order, Pacing, Payload, Protocol, Recovery, Reply, Step, Timestamp, Transaction,
    TransactionId, Verb,
};

/// The time of everything but timers.
pub(crate) const NOW: Timestamp = Timestamp(0);
/// How long an attempt goes without an answer; also every back-off, so that a failed attempt and one that hangs look the same.
const PACE: u64 = 200;
/// Gives the longest back-off.
pub(crate) const ENTROPY: u64 = PACE - 1;
/// When every attempt made at [`NOW`] has timed out.
pub(crate) const ATTEMPT_OVER: Timestamp = Timestamp(PACE);
/// When every timer has run out.
pub(crate) const LATE: Timestamp = Timestamp(1_000_000);
/// How much every step takes.
pub(crate) const AMOUNT: i64 = 2;
/// The one account of every participant.
pub(crate) const ACCOUNT: EntityId = EntityId::number(0);

/// Timers in the order in which they run out; how long they are means nothing here.
pub(crate) const fn pacing(attempts: u32) -> Pacing {
    Pacing {
        release_wait: PACE / 2,
        attempt_timeout: PACE,
        backoff_base: PACE,
        backoff_cap: PACE,
        slow_pace: PACE,
        deadline: 5 * PACE,
        attempts,
    }
}

/// The transaction: `steps` steps, each takes [`AMOUNT`] from its participant's only account.
pub(crate) fn transaction(protocol: Protocol, order: Order, recovery: Recovery, steps: usize) -> Arc<Transaction> {
    let payload = ledger::entries::encode(&[Entry { account: ACCOUNT, amount: AMOUNT }])
        .expect("an entry of constants can be encoded");
    let service = Name::literal("participant");
    Arc::new(Transaction {
        id: TransactionId::new(Timestamp(1), [7; 16]),
        definition: Name::literal("checked"),
        protocol,
        order,
        recovery,
        steps: (0..steps).map(|_| Step { service, payload: payload.clone() }).collect(),
        context: Payload::EMPTY,
    })
}

/// A state of the log. Two are equal if they agree on the transaction, the instances and the floor: the rest follows from these.
#[derive(Clone)]
pub(crate) struct Log {
    state: Arc<LogState>,
    id: TransactionId,
}

impl Log {
    pub(crate) fn new(id: TransactionId) -> Self {
        Self { state: Arc::default(), id }
    }

    pub(crate) fn apply(&mut self, command: &LogCommand) -> (LogReply, bool) {
        let mut next = (*self.state).clone();
        let (reply, changed) = next.apply(command);
        if changed {
            self.state = Arc::new(next);
        }
        (reply, changed)
    }

    pub(crate) fn record(&self) -> Option<&Record> {
        self.state.get(self.id)
    }

    pub(crate) fn state(&self) -> &LogState {
        &self.state
    }

    /// The epoch of an instance; `None` if it never registered.
    pub(crate) fn writer(&self, instance: Name) -> Option<Writer> {
        self.state.instances().get(&instance).map(|lease| Writer { instance, epoch: lease.epoch })
    }

    fn essence(&self) -> (Option<&Record>, &std::collections::BTreeMap<Name, Lease>, Timestamp) {
        (self.record(), self.state.instances(), self.state.floor())
    }
}

impl PartialEq for Log {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.state, &other.state) || self.essence() == other.essence()
    }
}

impl Eq for Log {}

impl Hash for Log {
    fn hash<H: Hasher>(&self, hasher: &mut H) {
        let (record, instances, floor) = self.essence();
        record.hash(hasher);
        floor.hash(hasher);
        for (name, lease) in instances {
            (name, lease.epoch, lease.expires).hash(hasher);
        }
    }
}

/// A participant: a ledger with one account and at most one branch.
#[derive(Clone)]
pub(crate) struct Participant {
    ledger: Arc<Ledger>,
    branch: BranchId,
}

impl Participant {
    /// A participant that has enough for its step, or too little.
    pub(crate) fn new(branch: BranchId, available: i64) -> Self {
        let mut ledger = Ledger::default();
        for change in
            [Change::Open { account: ACCOUNT, price: 1 }, Change::Credit { account: ACCOUNT, amount: available }]
        {
            ledger.apply(&LedgerCommand::Change { change, key: None });
        }
        Self { ledger: Arc::new(ledger), branch }
    }

    /// Carries a verb out. The answer, and whether the ledger had to repair lost data.
    pub(crate) fn carry_out(&mut self, transaction: &Transaction, verb: Verb) -> Option<(Reply, bool)> {
        let command = transaction.command(self.branch.step, verb)?;
        match self.apply(&LedgerCommand::Branch(command)) {
            LedgerReply::Branch { reply, repaired } => Some((reply, repaired)),
            _ => None,
        }
    }

    /// The log says that the executed branch stands.
    pub(crate) fn retire(&mut self) {
        self.apply(&LedgerCommand::Retire(vec![self.branch]));
    }

    /// Forgets the branch if it is final.
    pub(crate) fn forget(&mut self) {
        let after = Timestamp(TERMINATION_AGE_MS);
        let forget = LedgerCommand::Forget { born_before: after, keep: 0, spare_since: after };
        Arc::make_mut(&mut self.ledger).apply(&forget);
    }

    fn apply(&mut self, command: &LedgerCommand) -> LedgerReply {
        let mut next = (*self.ledger).clone();
        let (reply, changed) = next.apply(command);
        if changed {
            self.ledger = Arc::new(next);
        }
        reply
    }

    /// What the branch is; `None`: nothing is remembered of it.
    pub(crate) fn state(&self) -> Option<BranchState> {
        self.ledger.get_branch(self.branch).map(|branch| branch.state)
    }

    /// The state of the branch while its participant would ask the log about it.
    pub(crate) fn open(&self) -> Option<BranchState> {
        self.ledger.open_branches().next().map(|(_, state)| state)
    }

    pub(crate) fn account(&self) -> Account {
        self.ledger.account(ACCOUNT).copied().unwrap_or_default()
    }

    /// Whether the ledger's own audit finds nothing.
    pub(crate) fn is_sound(&self) -> bool {
        ledger::audit::audit(&self.ledger).is_empty()
    }

    fn essence(&self) -> Essence {
        let branch = self.ledger.get_branch(self.branch);
        let account = self.account();
        Essence {
            branch: branch.map(|branch| branch.state),
            refused: branch.is_some_and(|branch| branch.refusal.is_some()),
            open: self.open().is_some(),
            amounts: [account.available, account.held, account.settled],
            floor: self.ledger.floor(),
        }
    }
}

/// What tells two ledgers of one branch apart.
#[derive(PartialEq, Eq, Hash)]
struct Essence {
    branch: Option<BranchState>,
    refused: bool,
    open: bool,
    amounts: [i64; 3],
    floor: Timestamp,
}

impl PartialEq for Participant {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.ledger, &other.ledger) || self.essence() == other.essence()
    }
}

impl Eq for Participant {}

impl Hash for Participant {
    fn hash<H: Hasher>(&self, hasher: &mut H) {
        self.essence().hash(hasher);
    }
}
