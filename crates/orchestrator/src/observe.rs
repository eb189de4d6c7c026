//! What can be observed, for metrics, traces and logs. The orchestrator itself exports nothing.

use std::sync::Arc;

use protocol::{BranchId, BranchState, Name, Outcome, Protocol, Reply, Transaction, TransactionId, Verb};

use crate::follower::{Followed, Follower, Origin};

/// Something that happened.
#[derive(Debug)]
#[non_exhaustive]
pub enum Observation<'a> {
    /// A transaction began.
    Began {
        /// Its id.
        id: TransactionId,
        /// Its definition.
        definition: Name,
        /// The protocol it uses.
        protocol: Protocol,
    },
    /// It has an outcome, and its caller was answered if there is one.
    Answered {
        /// Its id.
        id: TransactionId,
        /// Its definition.
        definition: Name,
        /// The protocol it used.
        protocol: Protocol,
        /// What the caller heard.
        outcome: &'a Outcome,
        /// Whether recovery took it up: then whoever had begun it is gone, or is answered where it began, and nobody is here.
        recovered: bool,
        /// From its begin. Microseconds.
        micros: u64,
    },
    /// A caller was turned away before anything began.
    TurnedAway {
        /// The definition.
        definition: Name,
        /// Why.
        why: &'a crate::TurnedAway,
    },
    /// A participant answered, or did not.
    Replied {
        /// Whose branch.
        branch: BranchId,
        /// The service.
        service: Name,
        /// What it was asked.
        verb: Verb,
        /// Which attempt at it was answered, from 1.
        attempt: u32,
        /// What it said.
        reply: &'a Reply,
    },
    /// A participant's answer contradicts the protocol: a bug or lost data. A person must look.
    Violation {
        /// Whose branch.
        branch: BranchId,
        /// The service.
        service: Name,
        /// What it was asked.
        verb: Verb,
        /// What the branch is.
        state: BranchState,
    },
    /// A branch became a dead letter.
    DeadLetter {
        /// Whose branch.
        branch: BranchId,
        /// The service.
        service: Name,
        /// What it would not acknowledge.
        verb: Verb,
        /// Why.
        error: &'a str,
    },
    /// A breaker opened.
    BreakerOpened {
        /// The service.
        service: Name,
    },
    /// A definition changed its protocol.
    Switched {
        /// The definition.
        definition: Name,
        /// The protocol from now on.
        protocol: Protocol,
    },
    /// Recovery found so many transactions of this instance to take up.
    Recovering {
        /// How many.
        transactions: usize,
    },
    /// Another instance's lease had lapsed, and its transactions are now ours.
    TookOver {
        /// Whose.
        from: Name,
        /// How many; 0 also if the answer was lost.
        transactions: u64,
    },
    /// This instance looks after the log on behalf of all from now on, or does so no longer.
    Leads {
        /// Whether it does.
        leads: bool,
    },
    /// Another instance has taken ours.
    Fenced,
}

/// Takes observations. Called on the hot path: count, and return.
pub trait Observer: Send + Sync + 'static {
    /// Something happened.
    fn observe(&self, observation: &Observation<'_>);

    /// What the thread that asks for a transaction is at: handed to [`follow`](Self::follow) when that begins.
    fn origin(&self) -> Origin {
        None
    }

    /// Follows a transaction that begins, or is taken up, if it wants to.
    fn follow(&self, _: &Followed<'_>, _: Origin) -> Option<Arc<dyn Follower>> {
        None
    }

    /// Calls `work`, once, as a part of a transaction, followed or not: what is logged in it says what the transaction is about, which is written
    /// in a context that only the application can read. Called when a person is to be told of a transaction, never on the hot path.
    fn within(&self, _: &Transaction, work: &mut dyn FnMut()) {
        work();
    }
}

/// Observes nothing.
#[derive(Debug, Default, Clone, Copy)]
pub struct Unobserved;

impl Observer for Unobserved {
    fn observe(&self, _: &Observation<'_>) {}
}
