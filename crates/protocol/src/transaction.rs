//! A transaction as data: what is staged, what can be decided about it, and how a client hears of it.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::ids::{BranchId, Name, TransactionId};
use crate::limits::{MAX_CONTEXT_BYTES, MAX_PAYLOAD_BYTES, MAX_STEPS};
use crate::message::{Command, Payload, Refusal, Verb};

/// How a transaction reaches all or nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Protocol {
    /// Two-phase commit: hold everywhere, then decide.
    #[serde(rename = "2pc")]
    TwoPhase,
    /// Saga: do everywhere, and undo if one refuses.
    Saga,
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::TwoPhase => "2pc",
            Self::Saga => "saga",
        })
    }
}

/// In which order a saga's steps are done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Order {
    /// All at once.
    Parallel,
    /// One after another, as listed; undone one after another, from the last.
    Sequential,
}

/// Where a saga goes when the outcome of a step stays unknown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Recovery {
    /// Back: compensate.
    Backward,
    /// On: retry until it is done. Only a refusal goes back.
    Forward,
}

/// One participant's part.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Step {
    /// Which service takes part.
    pub service: Name,
    /// What it is asked for, in its own terms.
    pub payload: Payload,
}

/// A transaction as it is staged in the log.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Transaction {
    /// Its id, which carries its birth.
    pub id: TransactionId,
    /// The definition it was made by.
    pub definition: Name,
    /// Two-phase commit or saga.
    pub protocol: Protocol,
    /// The order of a saga's steps.
    pub order: Order,
    /// Where a saga goes when in doubt.
    pub recovery: Recovery,
    /// 1 to [`MAX_STEPS`] steps.
    pub steps: Arc<[Step]>,
    /// The application's own note, which a log that lives in the application's database reads: what the transaction claims when it
    /// is staged, and what becomes true when it commits. At most [`MAX_CONTEXT_BYTES`].
    pub context: Payload,
}

/// A transaction that exceeds a limit.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Oversized {
    /// No steps, or too many.
    #[error("a transaction has 1 to {MAX_STEPS} steps, this one has {0}")]
    Steps(usize),
    /// A payload is too long.
    #[error("the payload of step {step} has {bytes} bytes, the limit is {MAX_PAYLOAD_BYTES}")]
    Payload {
        /// The step.
        step: usize,
        /// Its payload's length.
        bytes: usize,
    },
    /// The context is too long.
    #[error("the context has {0} bytes, the limit is {MAX_CONTEXT_BYTES}")]
    Context(usize),
}

impl Transaction {
    /// Whether the transaction keeps within the limits.
    ///
    /// # Errors
    /// Names the limit that it breaks.
    pub fn check(&self) -> Result<(), Oversized> {
        if self.steps.is_empty() || self.steps.len() > MAX_STEPS {
            return Err(Oversized::Steps(self.steps.len()));
        }
        if let Some((step, bytes)) = self
            .steps
            .iter()
            .map(|step| step.payload.as_slice().len())
            .enumerate()
            .find(|&(_, n)| n > MAX_PAYLOAD_BYTES)
        {
            return Err(Oversized::Payload { step, bytes });
        }
        let context = self.context.as_slice().len();
        if context > MAX_CONTEXT_BYTES { Err(Oversized::Context(context)) } else { Ok(()) }
    }

    /// The positions of the steps.
    pub fn positions(&self) -> std::ops::Range<u8> {
        0..u8::try_from(self.steps.len()).unwrap_or(u8::MAX)
    }

    /// The command of `verb` for a step, or `None` if there is no such step.
    pub fn command(&self, step: u8, verb: Verb) -> Option<Command> {
        let payload = self.steps.get(usize::from(step))?.payload.clone();
        Some(Command { branch: BranchId { transaction: self.id, step }, verb, payload })
    }

    /// The steps as they are remembered of a finished transaction: without their payloads.
    pub fn bare_steps(&self) -> Arc<[Step]> {
        self.steps.iter().map(|step| Step { service: step.service, payload: Payload::EMPTY }).collect()
    }
}

/// All or nothing.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Decision {
    /// Every step takes effect.
    Commit,
    /// None does.
    Abort(Cause),
}

impl Decision {
    /// Whether both say the same, whatever the cause.
    pub fn agrees(&self, other: &Self) -> bool {
        self.is_commit() == other.is_commit()
    }

    /// Whether this is to commit.
    pub fn is_commit(&self) -> bool {
        matches!(self, Self::Commit)
    }
}

/// Why a transaction was aborted.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Cause {
    /// A participant refused.
    Refused {
        /// Which step.
        step: u8,
        /// Its reason.
        refusal: Box<Refusal>,
    },
    /// A participant's answer stayed unknown past the deadline.
    Unavailable {
        /// The first step that had not answered; `None` if it was the log itself.
        step: Option<u8>,
    },
    /// Recovery found it undecided after a crash.
    Recovered,
    /// A participant asked about it before it was staged.
    NeverStaged,
}

/// What became of a transaction, as its caller hears it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Outcome {
    /// Every step took effect.
    Committed,
    /// A participant refused; nothing took effect.
    Refused {
        /// Which step.
        step: u8,
        /// Its reason.
        refusal: Refusal,
    },
    /// The application's own data refused the transaction when it was staged; nothing took effect.
    Conflict(Refusal),
    /// A dependency was unavailable; the transaction was rolled back and nothing took effect.
    RolledBack {
        /// The service that didn't answer, if it was one.
        step: Option<u8>,
    },
    /// Not known yet: it will be settled without the caller, and can be looked up by its id.
    InDoubt,
}

impl From<&Decision> for Outcome {
    fn from(decision: &Decision) -> Self {
        match decision {
            Decision::Commit => Self::Committed,
            Decision::Abort(Cause::Refused { step, refusal }) => {
                Self::Refused { step: *step, refusal: Refusal::clone(refusal) }
            }
            Decision::Abort(Cause::Unavailable { step }) => Self::RolledBack { step: *step },
            Decision::Abort(Cause::Recovered | Cause::NeverStaged) => Self::RolledBack { step: None },
        }
    }
}
