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

/// Who looks after the log on behalf of all: of the instances whose lease has not lapsed, that with the lowest epoch, and of those the first
/// by name. Everybody who looks finds the same. Nothing depends on that: whoever takes over is fenced by its own epoch, and may be
/// one of several that try.
pub fn leader<'a>(instances: impl Iterator<Item = (&'a Name, &'a Lease)>, now: Timestamp) -> Option<Name> {
    instances
        .filter(|(_, lease)| lease.expires.is_some_and(|expires| now <= expires))
        .min_by_key(|(name, lease)| (lease.epoch, **name))
        .map(|(name, _)| *name)
}

/// The instances whose lease has lapsed and whose transactions wait for someone to take them over.
pub fn lapsed<'a>(instances: impl Iterator<Item = (&'a Name, &'a Lease)>, own: &Name, now: Timestamp) -> Vec<Name> {
    instances
        .filter(|(name, lease)| *name != own && lease.expires.is_some_and(|expires| now > expires))
        .map(|(name, _)| *name)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::Epoch;

    #[test]
    fn the_leader_is_alive_and_the_oldest_by_its_epoch() {
        const NAMES: [Name; 4] = [Name::literal("a"), Name::literal("b"), Name::literal("c"), Name::literal("d")];
        let lease = |epoch, expires: Option<u64>| Lease { epoch: Epoch(epoch), expires: expires.map(Timestamp) };
        let leads = |leases: &[Lease], now| leader(NAMES.iter().zip(leases), Timestamp(now));
        let all = [lease(4, Some(90)), lease(2, None), lease(3, Some(50)), lease(3, Some(80))];
        assert_eq!(leads(&all, 50), Some(NAMES[2]), "of two with one epoch, the first by name");
        assert_eq!(leads(&all, 51), Some(NAMES[3]), "one whose lease has lapsed does not lead");
        assert_eq!(leads(&all, 81), Some(NAMES[0]));
        assert_eq!(leads(&all, 91), None, "nor does one that was taken over");
        let lapsed = |now| lapsed(NAMES.iter().zip(&all), &NAMES[0], Timestamp(now));
        assert_eq!((lapsed(50), lapsed(51)), (vec![], vec![NAMES[2]]));
    }
}
