//! The transaction log as a pure state machine: where a decision becomes one.
//!
//! | record    | Stage                | Decide(Commit)    | Decide(Abort)       | Finish   | Ask (by a participant) |
//! |-----------|----------------------|-------------------|---------------------|----------|------------------------|
//! | none      | → staged             | not staged        | → tombstone         | -        | → tombstone: Aborted   |
//! | staged    | ok (a repeat)        | → decided Commit  | → decided Abort     | -        | Pending                |
//! | decided d | d = Abort: refused   | d                 | d                   | finished | d                      |
//! | finished d| refused              | d                 | d                   | ok       | d                      |
//! | forgotten | refused (expired)    | not staged        | Abort               | -        | Forgotten              |
//!
//! The record is looked at *before* the epoch, and the epoch before anything is changed: a repeat is a repeat even for a fenced
//! owner, but nobody changes anything under an old epoch. A *tombstone* is a record decided Abort that was never staged; a late
//! stage fails on it. A log that lives in the application's own database applies its part (the claim of an order, the order's
//! `paid`) in the same atomic step.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use table::{Frozen, Table};

use self::bare::BareSteps;
use crate::ids::{Epoch, Name, Timestamp, TransactionId};
use crate::limits::MAX_LEASE_MS;
use crate::rare::Rare;
use crate::simulation::{Mutation, mark, mutated};
use crate::transaction::{Cause, Decision, Transaction};

mod bare;
mod history;
mod vocabulary;

pub use history::{Handover, History, Tries};
pub use vocabulary::{
    DeadLetter, Lease, LogCommand, LogReply, Record, Resolution, StageCheck, StageRefusal, Standing, Verdict, Writer,
};

/// When a lease lapses that is granted for ever.
const NEVER: Timestamp = Timestamp(u64::MAX);

/// When a lease lapses that is granted now.
fn lapse(now: Timestamp, lease: u64) -> Timestamp {
    if lease == u64::MAX { NEVER } else { now.plus(lease.min(MAX_LEASE_MS)) }
}

/// The log's state.
#[derive(Debug, Clone, Default)]
pub struct LogState {
    records: Table<TransactionId, Record>,
    /// Not finished. Its order is that of the ids, and so of birth.
    open: BTreeMap<TransactionId, ()>,
    /// Finished ones and tombstones, in the order in which they became so.
    finished: VecDeque<TransactionId>,
    /// Finished with the help of an operator. Never forgotten: a participant that was away may still hold the branch, and must hear the
    /// decision when it asks, not that nobody knows.
    by_hand: BTreeSet<TransactionId>,
    instances: BTreeMap<Name, Lease>,
    /// What is left of the steps of those that are finished.
    bare: BareSteps,
    /// Transactions born at or before this and without a record are forgotten.
    floor: Timestamp,
}

/// A picture of a [`LogState`] that stands still.
#[derive(Debug)]
pub struct FrozenLog {
    /// The records.
    pub records: Frozen<TransactionId, Record>,
    /// The instances.
    pub instances: BTreeMap<Name, Lease>,
    /// The finished transactions in their order.
    pub finished: VecDeque<TransactionId>,
    /// The floor.
    pub floor: Timestamp,
}

impl LogState {
    /// Carries a command out. Returns the answer and whether anything changed.
    pub fn apply(&mut self, command: &LogCommand) -> (LogReply, bool) {
        match command {
            LogCommand::Register { instance, now, lease } => {
                // Above every epoch that was ever given to anybody: so whoever is no longer listed can be forgotten.
                let epoch = Epoch(self.highest_epoch().0 + 1);
                self.instances.insert(*instance, Lease { epoch, expires: Some(lapse(*now, *lease)) });
                // What it left behind when it ended is its own again.
                self.hand_over(instance, *instance, *now);
                self.drop_taken_over();
                (LogReply::Registered(epoch), true)
            }
            LogCommand::Renew { writer, now, lease } => {
                if self.is_fenced(writer) {
                    return (LogReply::Fenced, false);
                }
                if let Some(entry) = self.instances.get_mut(&writer.instance) {
                    entry.expires = Some(lapse(*now, *lease));
                }
                self.cut_leases(*now);
                (LogReply::Done, true)
            }
            LogCommand::TakeOver { writer, from, now } => self.take_over(writer, from, *now),
            LogCommand::Stage { writer, transaction } => self.stage(writer, transaction),
            LogCommand::Decide { writer, id, decision, now } => self.decide(writer, *id, decision, *now),
            LogCommand::Finish { writer, ids, now } => self.finish(writer, ids, *now),
            LogCommand::Park { writer, id, letter } => {
                if self.is_fenced(writer) {
                    return (LogReply::Fenced, false);
                }
                match self.records.get_mut(id) {
                    Some(record) if record.finished.is_none() => {
                        record.letters.retain(|old| old.step != letter.step);
                        record.letters.push(letter.clone());
                        (LogReply::Done, true)
                    }
                    _ => (LogReply::NotFound, false),
                }
            }
            LogCommand::Resolve { id, resolution } => match self.records.get_mut(id) {
                None => (LogReply::NotFound, false),
                Some(record) => {
                    let stuck = record.open_letters().any(|letter| letter.step == resolution.step);
                    // What is acknowledged by hand is a decision: without one, nobody could know what it would be.
                    if !stuck || record.decided.is_none() {
                        return (LogReply::NotStuck, false);
                    }
                    mark("log.resolved");
                    record.resolutions.push(resolution.clone());
                    (LogReply::Done, true)
                }
            },
            LogCommand::Ask { ids, now } => {
                let mut changed = false;
                let verdicts = ids.iter().map(|&id| self.ask(id, *now, &mut changed)).collect();
                (LogReply::Verdicts(verdicts), changed)
            }
            LogCommand::Tried { writer, id, tries } => {
                if self.is_fenced(writer) {
                    return (LogReply::Fenced, false);
                }
                match self.records.get_mut(id) {
                    Some(record) if record.finished.is_none() => {
                        if !tries.is_empty() {
                            record.history.get_or_insert_default().tried(tries);
                        }
                        (LogReply::Done, !tries.is_empty())
                    }
                    _ => (LogReply::NotFound, false),
                }
            }
            LogCommand::Forget { finished_before, keep, spare_since } => {
                let before = self.finished.len();
                self.forget(*finished_before, *keep, *spare_since);
                (LogReply::Done, self.finished.len() != before)
            }
        }
    }

    /// Cuts the leases that stand for longer than any is granted for: the log's clock was set back since. Who lives renews its own in time; who
    /// is gone would seem to live until that clock has caught up.
    fn cut_leases(&mut self, now: Timestamp) {
        let latest = lapse(now, MAX_LEASE_MS);
        for expires in self.instances.values_mut().filter_map(|lease| lease.expires.as_mut()) {
            if *expires != NEVER {
                *expires = latest.min(*expires);
            }
        }
    }

    fn highest_epoch(&self) -> Epoch {
        self.instances.values().map(|lease| lease.epoch).max().unwrap_or_default()
    }

    /// Drops the instances that were taken over, which have nothing left: whoever is not listed is fenced. The one with the highest epoch
    /// stays, so that no epoch is ever given twice.
    fn drop_taken_over(&mut self) {
        let highest = self.highest_epoch();
        self.instances.retain(|_, lease| lease.expires.is_some() || lease.epoch == highest);
    }

    fn is_fenced(&self, writer: &Writer) -> bool {
        let current = self.instances.get(&writer.instance).map(|lease| lease.epoch);
        current != Some(writer.epoch) && !mutated(Mutation::UnfencedAppend)
    }

    fn take_over(&mut self, writer: &Writer, from: &Name, now: Timestamp) -> (LogReply, bool) {
        if self.is_fenced(writer) {
            return (LogReply::Fenced, false);
        }
        let Some(lease) = self.instances.get_mut(from) else { return (LogReply::NotFound, false) };
        let alive = lease.expires.is_some_and(|expires| now <= expires);
        if alive && !mutated(Mutation::TakesOverTheLiving) {
            return (LogReply::StillAlive, false);
        }
        mark("log.take_over");
        lease.epoch.0 += 1;
        lease.expires = None;
        let taken = self.hand_over(from, writer.instance, now);
        self.drop_taken_over();
        (LogReply::Taken(taken), true)
    }

    /// Gives what one instance has unfinished to another, or to itself; and says how many that were.
    fn hand_over(&mut self, from: &Name, to: Name, now: Timestamp) -> u64 {
        let mut handed = 0;
        for id in self.open.keys() {
            if let Some(record) = self.records.get_mut(id)
                && record.owner.as_ref() == Some(from)
            {
                record.owner = Some(to);
                let handover = Handover { from: *from, to, at: now, decided: record.decided.is_some() };
                record.history.get_or_insert_default().hand_over(handover);
                handed += 1;
            }
        }
        handed
    }

    /// Whether a stage of this transaction would be accepted. A log that lives with the application's data asks before it
    /// carries out the application's part.
    pub fn check_stage(&self, writer: &Writer, id: TransactionId) -> StageCheck {
        match self.records.get(&id) {
            Some(record) if record.decided.is_none() => StageCheck::Repeat,
            Some(_) => StageCheck::Refused(StageRefusal::Decided),
            None if id.birth() <= self.floor => StageCheck::Refused(StageRefusal::Expired),
            None if self.is_fenced(writer) => StageCheck::Refused(StageRefusal::Fenced),
            None => StageCheck::Fresh,
        }
    }

    fn stage(&mut self, writer: &Writer, transaction: &Arc<Transaction>) -> (LogReply, bool) {
        match self.check_stage(writer, transaction.id) {
            StageCheck::Repeat => (LogReply::Staged, false),
            StageCheck::Refused(refusal) => {
                mark("log.stage_refused");
                (LogReply::StageRefused(refusal), false)
            }
            StageCheck::Fresh => {
                let record = Record {
                    transaction: Some(Arc::clone(transaction)),
                    owner: Some(writer.instance),
                    decided: None,
                    finished: None,
                    letters: Rare::default(),
                    resolutions: Rare::default(),
                    history: None,
                };
                self.records.insert(transaction.id, record);
                self.open.insert(transaction.id, ());
                (LogReply::Staged, true)
            }
        }
    }

    fn decide(&mut self, writer: &Writer, id: TransactionId, decision: &Decision, now: Timestamp) -> (LogReply, bool) {
        if let Some(standing) = self.records.get(&id).and_then(Record::decision)
            && !mutated(Mutation::DecideWithoutCompareAndSet)
        {
            if !standing.agrees(decision) {
                mark("log.decided_otherwise");
            }
            return (LogReply::Decided { decision: standing.clone(), first: false }, false);
        }
        if self.is_fenced(writer) && !mutated(Mutation::DecideWithoutCompareAndSet) {
            mark("log.decide_fenced");
            return (LogReply::Fenced, false);
        }
        match self.records.get_mut(&id) {
            Some(record) => {
                record.decided = Some((decision.clone(), now));
                (LogReply::Decided { decision: decision.clone(), first: true }, true)
            }
            None if decision.is_commit() => (LogReply::NotStaged, false),
            None => {
                let changed = id.birth() > self.floor;
                if changed {
                    self.entomb(id, decision.clone(), now);
                }
                (LogReply::Decided { decision: decision.clone(), first: changed }, changed)
            }
        }
    }

    /// Remembers as aborted what was never staged, so that a late stage fails.
    fn entomb(&mut self, id: TransactionId, decision: Decision, now: Timestamp) {
        mark("log.tombstone");
        let record = Record {
            transaction: None,
            owner: None,
            decided: Some((decision, now)),
            finished: Some(now),
            letters: Rare::default(),
            resolutions: Rare::default(),
            history: None,
        };
        self.records.insert(id, record);
        self.finished.push_back(id);
    }

    fn finish(&mut self, writer: &Writer, ids: &[TransactionId], now: Timestamp) -> (LogReply, bool) {
        if self.is_fenced(writer) {
            return (LogReply::Fenced, false);
        }
        let mut changed = false;
        for id in ids {
            if let Some(record) = self.records.get_mut(id)
                && record.decided.is_some()
                && record.finished.is_none()
            {
                record.finished = Some(now);
                // Whoever lost it goes on with what was decided, and may be the first at its end.
                record.owner = Some(writer.instance);
                if let Some(whole) = &mut record.transaction {
                    self.bare.strip(whole);
                }
                self.open.remove(id);
                // What was settled by hand is remembered for good: its branch may still come and ask.
                if record.resolutions.is_empty() || mutated(Mutation::ForgetsWhatWasResolved) {
                    self.finished.push_back(*id);
                } else {
                    self.by_hand.insert(*id);
                }
                changed = true;
            }
        }
        (LogReply::Done, changed)
    }

    fn ask(&mut self, id: TransactionId, now: Timestamp, changed: &mut bool) -> Verdict {
        match self.records.get(&id) {
            Some(record) => {
                if record.finished.is_some() && !record.resolutions.is_empty() {
                    mark("log.asked_after_resolution");
                }
                match record.decision() {
                    None => Verdict::Pending,
                    Some(Decision::Commit) => Verdict::Committed,
                    Some(Decision::Abort(_)) => Verdict::Aborted,
                }
            }
            None if id.birth() <= self.floor => Verdict::Forgotten,
            None => {
                if !mutated(Mutation::NoTombstone) {
                    self.entomb(id, Decision::Abort(Cause::NeverStaged), now);
                    *changed = true;
                }
                Verdict::Aborted
            }
        }
    }

    fn forget(&mut self, finished_before: Timestamp, keep: usize, spare_since: Timestamp) {
        while let Some(id) = self.finished.front().copied() {
            let finished = self.records.get(&id).and_then(|record| record.finished).unwrap_or_default();
            let old = finished < finished_before;
            let surplus = self.finished.len() > keep && finished < spare_since && id.birth() < spare_since;
            if !old && !surplus {
                return;
            }
            self.finished.pop_front();
            self.records.remove(&id);
            self.floor = self.floor.max(id.birth());
        }
    }

    /// The record of a transaction.
    pub fn get(&self, id: TransactionId) -> Option<&Record> {
        self.records.get(&id)
    }

    /// The transactions that are not finished, oldest birth first.
    pub fn open(&self) -> impl Iterator<Item = (TransactionId, &Record)> {
        self.open.keys().filter_map(|id| Some((*id, self.records.get(id)?)))
    }

    /// Finished transactions and tombstones, the latest first.
    pub fn finished(&self) -> impl Iterator<Item = (TransactionId, &Record)> {
        self.finished.iter().rev().chain(self.by_hand.iter().rev()).filter_map(|id| Some((*id, self.records.get(id)?)))
    }

    /// All records page by page, as [`Table::page`] has it.
    pub fn page(&self, from: u32, slots: u32) -> (impl Iterator<Item = (TransactionId, &Record)>, Option<u32>) {
        let (rows, next) = self.records.page(from, slots);
        (rows.map(|(id, record)| (*id, record)), next)
    }

    /// The youngest birth that the log knows of, its floor included.
    pub fn youngest(&self) -> Timestamp {
        let births = self.records.iter().map(|(id, _)| id.birth());
        births.chain([self.floor]).max().unwrap_or_default()
    }

    /// How many transactions are not finished.
    pub fn open_count(&self) -> usize {
        self.open.len()
    }

    /// The instances and their leases.
    pub fn instances(&self) -> &BTreeMap<Name, Lease> {
        &self.instances
    }

    /// Transactions born at or before this, and without a record, are forgotten.
    pub fn floor(&self) -> Timestamp {
        self.floor
    }

    /// A picture that stands still.
    pub fn freeze(&self) -> FrozenLog {
        FrozenLog {
            records: self.records.freeze(),
            instances: self.instances.clone(),
            finished: self.finished.clone(),
            floor: self.floor,
        }
    }

    /// Rebuilds the state from what a picture held.
    pub fn thaw(
        mut records: Vec<(TransactionId, Record)>,
        instances: BTreeMap<Name, Lease>,
        finished: VecDeque<TransactionId>,
        floor: Timestamp,
    ) -> Self {
        let mut bare = BareSteps::default();
        for (_, record) in records.iter_mut().filter(|(_, record)| record.finished.is_some()) {
            if let Some(whole) = &mut record.transaction {
                bare.strip(whole);
            }
        }
        let open = records.iter().filter(|(_, record)| record.finished.is_none()).map(|(id, _)| (*id, ())).collect();
        let by_hand =
            |(_, record): &&(TransactionId, Record)| record.finished.is_some() && !record.resolutions.is_empty();
        let by_hand: BTreeSet<_> = records.iter().filter(by_hand).map(|(id, _)| *id).collect();
        let (mut finished, mut by_hand) = (finished, by_hand);
        if mutated(Mutation::ResolvedIsNotInSnapshots) {
            finished.extend(std::mem::take(&mut by_hand));
        }
        Self { records: records.into_iter().collect(), open, finished, by_hand, instances, bare, floor }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEAD: Name = Name::literal("dead");
    const ALIVE: Name = Name::literal("alive");
    const LATER: Name = Name::literal("later");
    const SOLE: Name = Name::literal("sole");

    /// Found by an attack: behind a step back of ten minutes, whoever was gone was thought to live for ten minutes, and led.
    #[test]
    fn leases_from_before_the_clock_was_set_back_are_cut_and_no_living_instance_is_taken_over() {
        let mut log = LogState::default();
        let (before, now) = (Timestamp(1_000_000), Timestamp(400_000));
        let mut register = |instance, now, lease| match log.apply(&LogCommand::Register { instance, now, lease }).0 {
            LogReply::Registered(epoch) => Writer { instance, epoch },
            other => panic!("registering answers with an epoch, not {other:?}"),
        };
        register(DEAD, before, 5_000);
        let alive = register(ALIVE, before, 5_000);
        register(LATER, before, 5_000);
        register(SOLE, before, u64::MAX);
        let lapses = |log: &LogState, name: Name| log.instances()[&name].expires;
        log.apply(&LogCommand::Renew { writer: alive, now, lease: 5_000 });
        assert_eq!(lapses(&log, ALIVE), Some(now.plus(5_000)), "its old lease, of longer, does not stand");
        for cut in [DEAD, LATER] {
            assert_eq!(lapses(&log, cut), Some(now.plus(MAX_LEASE_MS)), "{cut}");
        }
        assert_eq!(lapses(&log, SOLE), Some(NEVER), "for ever is for ever");
        let take = |from, now| LogCommand::TakeOver { writer: alive, from, now };
        assert_eq!(log.apply(&take(LATER, now)).0, LogReply::StillAlive, "it has yet to renew");
        log.apply(&LogCommand::Renew { writer: alive, now: now.plus(MAX_LEASE_MS), lease: 5_000 });
        assert_eq!(log.apply(&take(DEAD, now.plus(MAX_LEASE_MS))).0, LogReply::StillAlive);
        assert_eq!(log.apply(&take(DEAD, now.plus(MAX_LEASE_MS + 1))).0, LogReply::Taken(0));
    }

    #[test]
    fn no_lease_is_granted_for_longer_than_any_may_last() {
        let mut log = LogState::default();
        let now = Timestamp(7);
        log.apply(&LogCommand::Register { instance: ALIVE, now, lease: MAX_LEASE_MS + 1 });
        let longest = Some(now.plus(MAX_LEASE_MS));
        assert_eq!(log.instances()[&ALIVE].expires, longest);
        let writer = Writer { instance: ALIVE, epoch: Epoch(1) };
        log.apply(&LogCommand::Renew { writer, now, lease: u64::MAX - 1 });
        assert_eq!(log.instances()[&ALIVE].expires, longest);
    }
}
