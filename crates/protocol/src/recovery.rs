//! Recovery as a pure planner over the log's records.
//!
//! | record                            | plan                                                              |
//! |-----------------------------------|-------------------------------------------------------------------|
//! | staged, undecided, 2PC            | inquire of everyone, then decide what they say                    |
//! | staged, undecided, saga, backward | decide Abort, compensate everyone                                 |
//! | staged, undecided, saga, forward  | execute again until done or refused                               |
//! | decided, unfinished               | send the decision until everyone has acknowledged it              |
//! | finished, or another's            | leave alone                                                       |

use crate::ids::{Name, Timestamp, TransactionId};
use crate::log::{Lease, Record};
use crate::transaction::{Decision, Protocol, Recovery};

/// How to take a transaction up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Resume {
    /// Ask everyone what they hold.
    Inquire,
    /// Do every step again.
    Execute,
    /// Decide to abort.
    Abort,
    /// Carry out what was decided.
    Settle(Decision),
}

/// How to take this record up; `None` if there is nothing to do.
pub fn resume(record: &Record) -> Option<Resume> {
    let transaction = record.transaction.as_ref()?;
    if record.finished.is_some() {
        return None;
    }
    Some(match (record.decision(), transaction.protocol, transaction.recovery) {
        (Some(decision), ..) => Resume::Settle(decision.clone()),
        (None, Protocol::TwoPhase, _) => Resume::Inquire,
        (None, Protocol::Saga, Recovery::Backward) => Resume::Abort,
        (None, Protocol::Saga, Recovery::Forward) => Resume::Execute,
    })
}

/// What `instance` must take up: its own unfinished transactions, by age. The caller leaves out those that it already drives.
pub fn plan<'a>(
    records: impl Iterator<Item = (TransactionId, &'a Record)>,
    instance: &Name,
) -> Vec<(TransactionId, Resume)> {
    records
        .filter(|(_, record)| record.owner.as_ref() == Some(instance))
        .filter_map(|(id, record)| Some((id, resume(record)?)))
        .collect()
}

/// The instances whose lease has lapsed and whose transactions wait for someone to take them over.
pub fn lapsed<'a>(instances: impl Iterator<Item = (&'a Name, &'a Lease)>, own: &Name, now: Timestamp) -> Vec<Name> {
    instances
        .filter(|(name, lease)| *name != own && lease.expires.is_some_and(|expires| now > expires))
        .map(|(name, _)| *name)
        .collect()
}
