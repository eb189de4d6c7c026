//! What is said to the log, what it answers, and what it writes down.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::history::{History, Tries};
use crate::ids::{Epoch, Name, Timestamp, TransactionId};
use crate::message::{Refusal, Verb};
use crate::rare::Rare;
use crate::transaction::{Decision, Transaction};

/// A change of the log. Time is handed in by whoever asks; a log that several processes share goes by its own for leases.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LogCommand {
    /// An instance starts: it gets an epoch above all others, which fences whatever ran under its name before.
    Register {
        /// The instance.
        instance: Name,
        /// Now, by the instance's clock.
        now: Timestamp,
        /// How long its lease lasts: [`MAX_LEASE_MS`](crate::limits::MAX_LEASE_MS) at most, whatever is asked for. Milliseconds; `u64::MAX`: for ever,
        /// for a log that only one process can open.
        lease: u64,
    },
    /// An instance lives on. Leases that stand for longer than any is granted for, since the log's clock was set back, are cut.
    Renew {
        /// The instance, under its epoch.
        writer: Writer,
        /// Now, by the instance's clock.
        now: Timestamp,
        /// How long its lease lasts from now, as when it registers.
        lease: u64,
    },
    /// Takes the unfinished transactions of an instance whose lease lapsed, and raises that instance's epoch.
    TakeOver {
        /// Who takes.
        writer: Writer,
        /// Whose.
        from: Name,
        /// Now, by the taker's clock.
        now: Timestamp,
    },
    /// Inserts the transaction if absent.
    Stage {
        /// The owner.
        writer: Writer,
        /// The transaction.
        transaction: Arc<Transaction>,
    },
    /// Decides by compare-and-set.
    Decide {
        /// The owner.
        writer: Writer,
        /// The transaction.
        id: TransactionId,
        /// What to decide, if nothing is decided yet.
        decision: Decision,
        /// Now.
        now: Timestamp,
    },
    /// Every participant has acknowledged the decision.
    Finish {
        /// The owner.
        writer: Writer,
        /// The transactions.
        ids: Vec<TransactionId>,
        /// Now.
        now: Timestamp,
    },
    /// A branch will not acknowledge: its transaction is stuck.
    Park {
        /// The owner.
        writer: Writer,
        /// The transaction.
        id: TransactionId,
        /// What would not go through.
        letter: DeadLetter,
    },
    /// An operator has settled a branch of a decided transaction by hand. Whoever drives the transaction, now or later, counts that branch as
    /// having acknowledged the decision.
    Resolve {
        /// The transaction.
        id: TransactionId,
        /// Who, why and when.
        resolution: Resolution,
    },
    /// A participant asks what became of its open branches.
    Ask {
        /// Their transactions.
        ids: Vec<TransactionId>,
        /// Now.
        now: Timestamp,
    },
    /// Forgets finished transactions, oldest first: those that finished before `finished_before`, and those beyond `keep` that
    /// finished before `spare_since`.
    Forget {
        /// However few there are, forget those that finished before this.
        finished_before: Timestamp,
        /// How many to remember.
        keep: usize,
        /// However many there are, remember those that finished, or were born, at or after this.
        spare_since: Timestamp,
    },
    /// What took more than one attempt, for people; told before the transaction is finished.
    Tried {
        /// The owner.
        writer: Writer,
        /// The transaction.
        id: TransactionId,
        /// What did.
        tries: Vec<Tries>,
    },
}

/// An instance under an epoch: who appends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Writer {
    /// The instance.
    pub instance: Name,
    /// Its epoch.
    pub epoch: Epoch,
}

/// What the log answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LogReply {
    /// The instance writes under this epoch from now on.
    Registered(Epoch),
    /// Done.
    Done,
    /// The transactions now belong to the taker; so many.
    Taken(u64),
    /// The lease of that instance has not lapsed.
    StillAlive,
    /// The transaction is in the log.
    Staged,
    /// It is not, and will not be.
    StageRefused(StageRefusal),
    /// The decision that stands, and whether it stands since just now.
    Decided {
        /// The decision.
        decision: Decision,
        /// Whether this very command made it.
        first: bool,
    },
    /// A commit of a transaction that the log does not know.
    NotStaged,
    /// The epoch is old: another instance has taken over.
    Fenced,
    /// What became of the transactions asked about, in their order.
    Verdicts(Vec<Verdict>),
    /// There is no such transaction, or nothing of it to resolve.
    NotFound,
    /// That step's branch is no dead letter, or nothing is decided yet: there is nothing to settle by hand.
    NotStuck,
}

/// Why a stage was refused. The transaction is not in the log, or is decided Abort.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StageRefusal {
    /// The application's own data refused it, for instance because the order has changed.
    Application(Refusal),
    /// Another instance has taken over.
    Fenced,
    /// It is older than what the log remembers.
    Expired,
    /// It has been decided already: a tombstone.
    Decided,
    /// It never reached the log, for certain, and is not sent again.
    NotSent,
}

/// What became of a transaction, told to a participant that asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// Committed: capture; an executed branch stands.
    Committed,
    /// Aborted: release, or compensate.
    Aborted,
    /// Not decided yet, or its decision is still on its way: ask again.
    Pending,
    /// Finished and forgotten, or never staged: a prepared branch is released, an executed one stands.
    Forgotten,
}

/// A branch whose participant will not acknowledge.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct DeadLetter {
    /// Which step's.
    pub step: u8,
    /// What it will not acknowledge.
    pub verb: Verb,
    /// Attempts when it was written.
    pub attempts: u32,
    /// Why the last attempt failed.
    pub error: Box<str>,
    /// When it was written.
    pub at: Timestamp,
}

/// What an operator did about a dead letter.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Resolution {
    /// Which step's.
    pub step: u8,
    /// Who.
    pub operator: Box<str>,
    /// Why this is right.
    pub reason: Box<str>,
    /// When.
    pub at: Timestamp,
}

/// One transaction in the log.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Record {
    /// The transaction; without its payloads once finished; `None` in a tombstone.
    pub transaction: Option<Arc<Transaction>>,
    /// Who drives it; of a finished one, who said that it is.
    pub owner: Option<Name>,
    /// What was decided, and when.
    pub decided: Option<(Decision, Timestamp)>,
    /// When every participant had acknowledged.
    pub finished: Option<Timestamp>,
    /// Dead letters, oldest first, resolved ones included.
    pub letters: Rare<DeadLetter>,
    /// What operators did.
    pub resolutions: Rare<Resolution>,
    /// Through whose hands it went, and what did not succeed at the first attempt, if there is anything of the kind.
    #[serde(default)]
    pub history: Option<Box<History>>,
}

/// Where a transaction stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Standing {
    /// Staged, not decided.
    Undecided,
    /// Decided, not acknowledged by everyone.
    Settling,
    /// A branch is a dead letter.
    Stuck,
    /// Decided and acknowledged.
    Finished,
}

impl Record {
    /// The decision, if one stands.
    pub fn decision(&self) -> Option<&Decision> {
        self.decided.as_ref().map(|(decision, _)| decision)
    }

    /// The dead letters that nobody has resolved.
    pub fn open_letters(&self) -> impl Iterator<Item = &DeadLetter> {
        let open = self.finished.is_none();
        // A letter written after the resolution is a new one.
        let resolved = |letter: &DeadLetter, done: &Resolution| done.step == letter.step && done.at >= letter.at;
        let unresolved = move |letter: &&DeadLetter| !self.resolutions.iter().any(|done| resolved(letter, done));
        self.letters.iter().filter(move |_| open).filter(unresolved)
    }

    /// The steps that count as acknowledged because an operator said so.
    pub fn resolved_steps(&self) -> impl Iterator<Item = u8> {
        let again = |step: u8| self.open_letters().any(|letter| letter.step == step);
        self.resolutions.iter().map(|done| done.step).filter(move |step| !again(*step))
    }

    /// Where the transaction stands.
    pub fn standing(&self) -> Standing {
        if self.finished.is_some() {
            Standing::Finished
        } else if self.open_letters().next().is_some() {
            Standing::Stuck
        } else if self.decided.is_some() {
            Standing::Settling
        } else {
            Standing::Undecided
        }
    }
}

/// An instance as the log knows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Lease {
    /// The epoch under which it may append.
    pub epoch: Epoch,
    /// When its lease lapses; `None` once it was taken over.
    pub expires: Option<Timestamp>,
}

/// What a stage would meet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StageCheck {
    /// Nothing: it would be inserted.
    Fresh,
    /// Itself, undecided.
    Repeat,
    /// A reason to refuse it.
    Refused(StageRefusal),
}
