//! One transaction, followed: for traces, and for its story in the log at `debug`.
//!
//! ```text
//!   Observer::origin ── on the thread that asks for a transaction ──┐
//!   Observer::follow ◄── when it begins, perhaps on another ────────┘
//!        └──► Follower: mark, mark, … from any thread, until it is let go
//! ```
//!
//! Nothing is followed unless the observer wants to; then nothing is spent on it.

use std::any::Any;
use std::sync::Arc;

use protocol::{Decision, Name, Outcome, Reply, Transaction, TransactionId, Verb};
use tracing::{Level, debug};

use crate::engine::Live;
use crate::observe::Observer;

/// Something of the observer's own that goes along from whoever asks for a transaction to its begin.
pub type Origin = Option<Arc<dyn Any + Send + Sync>>;

/// What is followed.
#[derive(Debug, Clone, Copy)]
pub struct Followed<'a> {
    /// The transaction. What its steps carry is nobody's business but the participants'.
    pub transaction: &'a Arc<Transaction>,
    /// Whether recovery took it up: somebody began it before.
    pub recovered: bool,
}

/// Something that happened to a transaction.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub enum Mark<'a> {
    /// It began, or was taken up.
    Began {
        /// How many steps it has.
        steps: usize,
    },
    /// The log is given its stage.
    Staging,
    /// The log answered: `None` if it gave no answer.
    Staged(Option<bool>),
    /// A command is sent.
    Sent {
        /// Of this step.
        step: u8,
        /// To this service.
        service: Name,
        /// What it is asked.
        verb: Verb,
        /// Which attempt, from 1.
        attempt: u32,
    },
    /// The participant answered, or did not.
    Replied {
        /// Of this step.
        step: u8,
        /// The service.
        service: Name,
        /// What it was asked.
        verb: Verb,
        /// In which attempt.
        attempt: u32,
        /// What it said.
        reply: &'a Reply,
    },
    /// The log is given the decision.
    Deciding,
    /// A decision stands in the log.
    Decided(&'a Decision),
    /// And is durable.
    Durable,
    /// Its caller is answered.
    Answered {
        /// What it hears.
        outcome: &'a Outcome,
        /// From the transaction's begin, as [`Observation::Answered`](crate::Observation::Answered) has it. Microseconds.
        micros: u64,
    },
    /// A participant will not acknowledge: the transaction is stuck.
    Stuck {
        /// Of this step.
        step: u8,
    },
    /// Nothing is left to do, or another instance does it.
    LetGo,
}

/// Follows one transaction. Called on the hot path, from any thread: note, and return.
pub trait Follower: Send + Sync + 'static {
    /// Something happened.
    fn mark(&self, mark: &Mark<'_>);

    /// Calls `work`, once, as a part of the transaction: with a command that is about to be sent, if it is that one.
    fn within(&self, command: Option<(u8, Verb, u32)>, work: &mut dyn FnMut());
}

impl Live {
    /// Notes that something happened.
    pub(crate) fn mark(&self, mark: &Mark<'_>) {
        if tracing::enabled!(Level::DEBUG) {
            self.within(|| tell(self.id, mark));
        }
        if let Some(follower) = &self.follower {
            follower.mark(mark);
        }
    }

    /// Does something as a part of the transaction, if it is followed.
    fn within(&self, work: impl FnOnce()) {
        run(self.follower.as_deref(), None, work);
    }

    /// Tells a person of the transaction: with what it is about, which the observer knows, and its place in a trace, if it is followed.
    pub(crate) fn telling(&self, observer: &dyn Observer, tell: impl FnOnce()) {
        let mut tell = Some(|| self.within(tell));
        let mut once = || {
            if let Some(tell) = tell.take() {
                tell();
            }
        };
        observer.within(&self.transaction, &mut once);
        // What an observer forgot is told all the same.
        once();
    }

    /// Has a command sent as a part of the transaction.
    pub(crate) fn sending(&self, command: (u8, Verb, u32), send: impl FnOnce()) {
        run(self.follower.as_deref(), Some(command), send);
    }
}

fn run(follower: Option<&dyn Follower>, command: Option<(u8, Verb, u32)>, work: impl FnOnce()) {
    match follower {
        None => work(),
        Some(follower) => {
            let mut work = Some(work);
            let mut once = || {
                if let Some(work) = work.take() {
                    work();
                }
            };
            follower.within(command, &mut once);
            // What a follower forgot is done all the same.
            once();
        }
    }
}

/// The story of a transaction. Nothing of what it carries.
fn tell(transaction: TransactionId, mark: &Mark<'_>) {
    match *mark {
        Mark::Began { steps } => debug!(%transaction, steps, "begins"),
        Mark::Staging => debug!(%transaction, "the log is given its stage"),
        Mark::Staged(answer) => debug!(%transaction, ?answer, "the log answered to its stage"),
        Mark::Sent { step, service, verb, attempt } => {
            debug!(%transaction, step, participant = %service, %verb, attempt, "a command is sent");
        }
        Mark::Replied { step, service, verb, attempt, reply } => {
            let said = match reply {
                Reply::Done(_) => "done",
                Reply::Refused(refusal) => refusal.code.as_str(),
                Reply::Violation(_) => "violation",
                Reply::Unknown(_) => "unknown",
            };
            debug!(%transaction, step, participant = %service, %verb, attempt, said, "a participant answered, or did not");
        }
        Mark::Deciding => debug!(%transaction, "the log is given the decision"),
        Mark::Decided(Decision::Commit) => debug!(%transaction, "decided: commit"),
        Mark::Decided(Decision::Abort(_)) => debug!(%transaction, "decided: abort"),
        Mark::Durable => debug!(%transaction, "the decision is durable"),
        Mark::Answered { outcome, .. } => {
            debug!(%transaction, outcome = outcome_word(outcome), "its caller is answered")
        }
        Mark::Stuck { step } => debug!(%transaction, step, "stuck"),
        Mark::LetGo => debug!(%transaction, "nothing is left to do here"),
    }
}

/// An outcome in a word.
pub fn outcome_word(outcome: &Outcome) -> &'static str {
    match outcome {
        Outcome::Committed => "committed",
        Outcome::Refused { .. } => "refused",
        Outcome::Conflict(_) => "conflict",
        Outcome::RolledBack { .. } => "rolled_back",
        Outcome::InDoubt => "in_doubt",
    }
}
