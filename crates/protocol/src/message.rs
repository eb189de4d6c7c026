//! What a coordinator and a participant say to each other.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::ids::{BranchId, Name};
use crate::limits::MAX_TEXT_BYTES;

/// Bytes that the application put in and only the application reads. Cheap to clone.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Payload(Option<Arc<[u8]>>);

impl Payload {
    /// No bytes at all; costs no allocation.
    pub const EMPTY: Self = Self(None);

    /// The bytes.
    pub fn as_slice(&self) -> &[u8] {
        self.0.as_deref().unwrap_or_default()
    }
}

impl From<&[u8]> for Payload {
    fn from(bytes: &[u8]) -> Self {
        if bytes.is_empty() { Self::EMPTY } else { Self(Some(bytes.into())) }
    }
}

impl From<Vec<u8>> for Payload {
    fn from(bytes: Vec<u8>) -> Self {
        Self::from(bytes.as_slice())
    }
}

impl fmt::Debug for Payload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes", self.as_slice().len())
    }
}

impl Serialize for Payload {
    /// Bytes in binary records; hexadecimal text where people read.
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if serializer.is_human_readable() {
            let text: String = self.as_slice().iter().map(|byte| format!("{byte:02x}")).collect();
            serializer.serialize_str(&text)
        } else {
            serializer.serialize_bytes(self.as_slice())
        }
    }
}

impl<'de> Deserialize<'de> for Payload {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl de::Visitor<'_> for Visitor {
            type Value = Payload;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("bytes, or hexadecimal text")
            }
            fn visit_bytes<E: de::Error>(self, bytes: &[u8]) -> Result<Payload, E> {
                Ok(Payload::from(bytes))
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<Payload, E> {
                let digits = text.as_bytes();
                if !digits.len().is_multiple_of(2) {
                    return Err(E::custom("an odd number of hexadecimal digits"));
                }
                let byte = |pair: &[u8]| {
                    let digit = |d: u8| char::from(d).to_digit(16).ok_or_else(|| E::custom("not a hexadecimal digit"));
                    Ok::<u8, E>((digit(pair[0])? * 16 + digit(pair[1])?) as u8)
                };
                digits.chunks(2).map(byte).collect::<Result<Vec<u8>, E>>().map(Payload::from)
            }
        }
        if deserializer.is_human_readable() {
            deserializer.deserialize_str(Visitor)
        } else {
            deserializer.deserialize_bytes(Visitor)
        }
    }
}

/// What a participant is asked to do with a branch. Every verb may be repeated, reordered and duplicated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verb {
    /// Two-phase commit: hold what the step needs.
    Prepare,
    /// Two-phase commit: capture what was held.
    Commit,
    /// Two-phase commit: give back what was held, and see that nothing ever will be.
    Abort,
    /// Saga: do the step at once.
    Execute,
    /// Saga: undo the step, and see that it never will be done.
    Compensate,
    /// Recovery: say what the branch is; if there is none, see that there never will be.
    Inquire,
}

impl Verb {
    /// Every verb, in the order of the barrier's table.
    pub const ALL: [Self; 6] =
        [Self::Prepare, Self::Commit, Self::Abort, Self::Execute, Self::Compensate, Self::Inquire];

    /// The verb in lower case.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Prepare => "prepare",
            Self::Commit => "commit",
            Self::Abort => "abort",
            Self::Execute => "execute",
            Self::Compensate => "compensate",
            Self::Inquire => "inquire",
        }
    }

    /// Whether the verb begins a branch. The others finish one, and pass an open breaker.
    pub fn begins(self) -> bool {
        matches!(self, Self::Prepare | Self::Execute)
    }
}

impl fmt::Display for Verb {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// A command to a participant.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Command {
    /// The branch that is meant.
    pub branch: BranchId,
    /// What to do with it.
    pub verb: Verb,
    /// The step's payload. Every command carries it, so that a participant which lost a prepared branch can still repair it.
    pub payload: Payload,
}

/// What has become of a branch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BranchState {
    /// Held, and waiting for the decision.
    Prepared,
    /// Captured. Final.
    Committed,
    /// Released, refused, or never to be. Final.
    Aborted,
    /// Done by a saga.
    Executed,
    /// Undone by a saga, or never to be. Final.
    Compensated,
}

/// Why a participant, or the application's own data, said no. Final: the same request will not succeed as things stand.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Refusal {
    /// A stable word for machines, such as `insufficient_stock`.
    pub code: Name,
    /// What it is about, for people and for links: usually an id. At most [`MAX_TEXT_BYTES`].
    pub detail: Box<str>,
}

impl Refusal {
    /// The reason of a branch that was refused because its transaction is older than what the participant remembers.
    pub const EXPIRED: Name = Name::literal("expired");
    /// The reason of a branch that had been aborted before anything came for it.
    pub const ABORTED: Name = Name::literal("aborted");

    /// Whether this only says that the branch is forgotten. That is no vote: it may be forgotten because another owner committed it
    /// behind the back of a stalled one. Only the log knows.
    pub fn is_expiry(&self) -> bool {
        self.code == Self::EXPIRED
    }

    /// Makes a refusal; a `detail` that is too long is cut.
    pub fn new(code: Name, detail: &str) -> Self {
        Self { code, detail: bounded(detail).into() }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.detail.is_empty() { write!(f, "{}", self.code) } else { write!(f, "{} ({})", self.code, self.detail) }
    }
}

/// A participant's answer.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Reply {
    /// Done, durably: the branch is in this state.
    Done(BranchState),
    /// A final business refusal, durably remembered.
    Refused(Refusal),
    /// The command contradicts what the branch is. Nothing was changed. A bug or lost data: a person must look.
    Violation(BranchState),
    /// Nobody knows whether the command was carried out. Never to be taken for "no".
    Unknown(Unknown),
}

/// Why the outcome of a command is not known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Unknown {
    /// No answer came in time.
    Timeout,
    /// The participant can't be reached.
    Unreachable,
    /// The participant's own store failed.
    Failed,
}

impl fmt::Display for Unknown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Timeout => "no answer in time",
            Self::Unreachable => "cannot be reached",
            Self::Failed => "its store failed",
        })
    }
}

/// Cuts `text` to [`MAX_TEXT_BYTES`] at a character's boundary.
pub fn bounded(text: &str) -> &str {
    if text.len() <= MAX_TEXT_BYTES { text } else { &text[..text.floor_char_boundary(MAX_TEXT_BYTES)] }
}
