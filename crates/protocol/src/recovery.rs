//! Recovery as a pure planner over the log's records.
//!
//! | record                            | plan                                                              |
//! |-----------------------------------|-------------------------------------------------------------------|
//! | staged, undecided, 2PC            | inquire of everyone, then decide what they say                    |
//! | staged, undecided, saga, backward | decide Abort, compensate everyone                                 |
//! | staged, undecided, saga, forward  | execute again until done or refused                               |
//! | decided, unfinished               | send the decision until everyone has acknowledged it              |
//! | finished, or another's            | leave alone                                                       |
//!
//! An instance that reaches the log and no participant can settle nothing, and nobody takes it for dead. So it hands over what it has, by a lease that lapses at
//! once, when [`CutOff`] says so.

use crate::ids::{Name, Timestamp, TransactionId};
use crate::limits::{CUT_OFF_MS, MAX_CUT_OFF_MS};
use crate::log::{Lease, Record};
use crate::simulation::mark;
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

/// When an instance that reaches no participant hands over what it has.
///
/// | participants can be reached | for so long not           | another could go on with what it has | then                                   |
/// |-----------------------------|---------------------------|--------------------------------------|----------------------------------------|
/// | yes                         | –                         | –                                    | starts anew                            |
/// | no                          | less than its patience    | –                                    | waits                                  |
/// | no                          | its patience              | no                                   | waits for one that can                 |
/// | no                          | its patience              | yes                                  | hands over; its patience is twice that |
///
/// The other one may be cut off as well, which nobody can see. Patience grows, so that what they have does not go back and forth all the time.
#[derive(Debug, Clone, Default)]
pub struct CutOff {
    /// Since when, or since it last handed over.
    since: Option<Timestamp>,
    handed_over: u32,
}

impl CutOff {
    /// Whether it hands over now: `reaches` a participant or not, and it is `useful` if there is something to hand over, and somebody to take it.
    pub fn hands_over(&mut self, reaches: bool, useful: impl FnOnce() -> bool, now: Timestamp) -> bool {
        if reaches {
            *self = Self::default();
            return false;
        }
        let patience = CUT_OFF_MS.saturating_mul(1 << self.handed_over.min(16)).min(MAX_CUT_OFF_MS);
        let hands_over = now.since(*self.since.get_or_insert(now)) >= patience && useful();
        if hands_over {
            mark("recovery.hands_over");
            self.since = Some(now);
            self.handed_over = self.handed_over.saturating_add(1);
        }
        hands_over
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_cut_off_hands_over_once_in_a_while() {
        let mut cut_off = CutOff::default();
        let mut at = |reaches, useful, millis| cut_off.hands_over(reaches, || useful, Timestamp(millis));
        assert!(!at(true, true, 0) && !at(false, true, 10));
        assert!(!at(false, true, 9 + CUT_OFF_MS), "not yet");
        assert!(!at(false, false, 10 + CUT_OFF_MS) && at(false, true, 20 + CUT_OFF_MS), "as soon as that is of use");
        assert!(!at(false, true, 19 + 3 * CUT_OFF_MS) && at(false, true, 20 + 3 * CUT_OFF_MS), "twice as long");
        assert!(!at(true, true, 21 + 3 * CUT_OFF_MS));
        assert!(!at(false, true, 100_000) && at(false, true, 100_000 + CUT_OFF_MS), "patience as at first");
        let mut last = 200_000;
        let waited: Vec<_> = (200_000..8_000_000).step_by(1_000).filter(|now| at(false, true, *now)).collect();
        for now in waited {
            assert!(now - last <= MAX_CUT_OFF_MS);
            last = now;
        }
        assert!(last > 7_000_000, "it never gives up");
    }
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
