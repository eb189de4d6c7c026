//! The operators' trail: who did what, when, to which transaction, and what came of it.
//!
//! An entry is written, durably, *before* the deed, and its outcome behind it: so nothing is done that is not in the trail, and an entry without an
//! outcome says that the process ended in between, and that the transaction itself must be looked at. It changes no transaction and no order.
//!
//! It is part of the [order book](crate::orders), and kept wherever that is: under its journal, or in Redis.

use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;

use protocol::limits::KEPT_TRAIL;
use protocol::{Timestamp, TransactionId};
use serde::{Deserialize, Serialize};

/// What an operator did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Act {
    /// Had everything tried at once that was left of the transaction.
    Retry,
    /// Had a step counted as acknowledged.
    Resolve,
}

impl fmt::Display for Act {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Retry => "retry",
            Self::Resolve => "resolve",
        })
    }
}

/// What an operator is about to do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Note {
    /// When, by the clock of the instance that was asked.
    pub at: Timestamp,
    /// Who, as they said themselves: at most [`MAX_TEXT_BYTES`](protocol::limits::MAX_TEXT_BYTES).
    pub operator: Box<str>,
    /// What.
    pub act: Act,
    /// To which transaction.
    pub transaction: TransactionId,
    /// To which of its steps, if it is about one.
    pub step: Option<u8>,
    /// Why: at most [`MAX_TEXT_BYTES`](protocol::limits::MAX_TEXT_BYTES).
    pub reason: Option<Box<str>>,
}

/// An entry of the trail.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// Its number, from 1: each one higher than the one before.
    pub number: u64,
    /// What an operator was about to do.
    pub note: Note,
    /// What came of it; `None`: the process ended before it could say.
    pub outcome: Option<Box<str>>,
}

/// The last [`KEPT_TRAIL`] entries.
#[derive(Debug, Clone, Default)]
pub struct Trail {
    /// The number of the last entry.
    last: u64,
    entries: VecDeque<Arc<Entry>>,
}

impl Trail {
    /// Writes an entry, and returns its number. The oldest goes if there are more than [`KEPT_TRAIL`].
    pub fn write(&mut self, note: Note) -> u64 {
        self.last += 1;
        self.entries.push_back(Arc::new(Entry { number: self.last, note, outcome: None }));
        if self.entries.len() > KEPT_TRAIL {
            self.entries.pop_front();
        }
        self.last
    }

    /// Writes what came of it, once. Returns whether there is such an entry, and whether it was changed.
    pub fn conclude(&mut self, number: u64, outcome: &str) -> (bool, bool) {
        let Ok(at) = self.entries.binary_search_by_key(&number, |entry| entry.number) else { return (false, false) };
        let Some(entry) = self.entries.get_mut(at) else { return (false, false) };
        let fresh = entry.outcome.is_none();
        if fresh {
            Arc::make_mut(entry).outcome = Some(outcome.into());
        }
        (true, fresh)
    }

    /// The last entries, the latest first.
    pub fn latest(&self, limit: usize) -> impl Iterator<Item = &Entry> {
        self.entries.iter().rev().take(limit).map(|entry| &**entry)
    }

    /// All entries, the oldest first: cheap to clone.
    pub fn entries(&self) -> &VecDeque<Arc<Entry>> {
        &self.entries
    }

    /// The trail of these entries, the oldest first.
    pub fn of(entries: impl IntoIterator<Item = Arc<Entry>>) -> Self {
        let entries: VecDeque<_> = entries.into_iter().collect();
        Self { last: entries.back().map_or(0, |entry| entry.number), entries }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn note(at: u64) -> Note {
        Note {
            at: Timestamp(at),
            operator: "ann".into(),
            act: Act::Retry,
            transaction: TransactionId::new(Timestamp(1), [2; 16]),
            step: None,
            reason: None,
        }
    }

    #[test]
    fn it_keeps_so_many_and_the_oldest_go() {
        let mut trail = Trail::default();
        for at in 0..KEPT_TRAIL as u64 + 3 {
            assert_eq!(trail.write(note(at)), at + 1);
        }
        assert_eq!(trail.entries().len(), KEPT_TRAIL);
        assert_eq!(trail.conclude(3, "gone"), (false, false));
        assert_eq!(trail.conclude(4, "sent"), (true, true));
        assert_eq!(trail.conclude(4, "otherwise"), (true, false), "an outcome stands");
        assert_eq!(trail.entries()[0].outcome.as_deref(), Some("sent"));
        let latest: Vec<u64> = trail.latest(2).map(|entry| entry.number).collect();
        assert_eq!(latest, [KEPT_TRAIL as u64 + 3, KEPT_TRAIL as u64 + 2]);
        let again = Trail::of(trail.entries().iter().cloned());
        assert_eq!((again.last, again.entries()), (trail.last, trail.entries()));
    }
}
