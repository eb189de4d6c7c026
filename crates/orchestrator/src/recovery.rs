//! Recovery and upkeep, driven: registering, taking over, resuming, renewing, forgetting. What to do, and who does it for all, is
//! [planned](protocol::recovery) on the ground floor.
//!
//! | what                                             | who                  | when                                      |
//! |--------------------------------------------------|----------------------|-------------------------------------------|
//! | take up one's own unfinished transactions        | every instance       | at the start, and behind every renewal    |
//! | renew one's lease                                | every instance       | every [`LEASE_RENEWAL_MS`]                |
//! | take over instances whose lease has lapsed       | the leader           | behind every renewal                      |
//! | have the log forget                              | the leader           | every [`FORGET_EVERY_MS`]                 |
//! | hand over what one has                           | who is [cut off](CutOff) | while another lives                   |

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use protocol::limits::{KEPT_TRANSACTIONS, LEASE_RENEWAL_MS, MAX_CLOCK_SKEW_MS, MIN_RETENTION_MS, RETENTION_MS};
use protocol::log::{LogCommand, LogReply};
use protocol::recovery::{CutOff, lapsed, leader, plan};
use protocol::{Coordinator, Event, Name, Timestamp, TransactionId};

use crate::engine::{Engine, Pending};
use crate::observe::Observation;
use crate::ports::{Done, LogAnswer, LogError, LogQuery};

/// How many transactions recovery takes up at a time; the next follow as these are settled.
const RECOVERY_WINDOW: usize = 2_000;
/// How often the log is asked to forget. Milliseconds.
const FORGET_EVERY_MS: u64 = 500;

/// What recovery has yet to do.
#[derive(Default)]
pub(crate) struct Recovering {
    /// Planned, and waiting for a place in the window.
    pending: Pending,
    /// Taken up and not settled.
    pub(crate) active: BTreeSet<TransactionId>,
    /// How many times the log is being asked.
    asking: usize,
    /// What was let go of, or known to be finished, while the log was being asked: its answer may still show that as unfinished.
    let_go: BTreeSet<TransactionId>,
    /// What is done here, while the log has not answered that it knows. If it never does, that is found when it is asked again.
    finishing: BTreeSet<TransactionId>,
}

impl Recovering {
    /// A transaction is driven no longer. `finishing`: the log is about to be told that it is finished.
    pub(crate) fn lets_go(&mut self, id: TransactionId, finishing: bool) {
        self.active.remove(&id);
        if finishing {
            self.finishing.insert(id);
        }
        if self.asking > 0 {
            self.let_go.insert(id);
        }
    }

    /// The log has answered that these are finished; or it has not, and nothing more is to be expected.
    pub(crate) fn told_finished(&mut self, ids: &[TransactionId]) {
        for id in ids {
            if self.finishing.remove(id) && self.asking > 0 {
                self.let_go.insert(*id);
            }
        }
    }

    /// Whether it is done here, while the log has not answered that it knows.
    pub(crate) fn is_finishing(&self, id: TransactionId) -> bool {
        self.finishing.contains(&id)
    }

    fn answered(&mut self) {
        self.asking -= 1;
        if self.asking == 0 {
            self.let_go.clear();
        }
    }
}

/// When what was last done.
#[derive(Debug, Default)]
pub(crate) struct Upkeep {
    renewed: Timestamp,
    forgot: Timestamp,
    registering: bool,
    leads: bool,
    /// Whose take-over nobody answered: it may have been done.
    unsure: BTreeSet<Name>,
    /// Its clock is far from the log's.
    skewed: bool,
    /// It has given its lease up.
    resigned: bool,
    /// Another instance lives, by what the log said last.
    has_company: bool,
    cut_off: CutOff,
}

impl Engine {
    /// Registers this instance with its log, which fences whatever ran under its name before, and takes up what that left behind.
    /// `done` is called when the transactions to be taken up are known; they are then under way.
    pub fn register(self: &Arc<Self>, done: Done<Result<(), LogError>>) {
        let (now, lease) = (self.clock.now(), self.options.lease);
        let command = LogCommand::Register { instance: self.options.instance, now, lease };
        let engine = Arc::clone(self);
        let registered = move |answer: Result<LogReply, LogError>| {
            let mut upkeep = engine.upkeep.lock();
            upkeep.registering = false;
            upkeep.renewed = engine.clock.now();
            drop(upkeep);
            match answer {
                Ok(LogReply::Registered(epoch)) => {
                    engine.epoch.store(epoch.0, Ordering::Release);
                    engine.recover(done);
                }
                Ok(other) => done(Err(LogError(format!("an unexpected answer to registering: {other:?}")))),
                Err(error) => done(Err(error)),
            }
        };
        self.log.append(command, Box::new(registered));
    }

    /// Takes up the unfinished transactions of this instance that it does not drive yet, and takes over those of lapsed ones.
    fn recover(self: &Arc<Self>, done: Done<Result<(), LogError>>) {
        self.recovery.lock().asking += 1;
        let engine = Arc::clone(self);
        let found = move |answer: Result<LogAnswer, LogError>| match answer {
            Ok(LogAnswer::Open { records, instances, now }) => {
                let own = engine.options.instance;
                let by_id = records.iter().map(|(id, record)| (*id, record));
                let planned = plan(by_id, &own);
                engine.enqueue(planned, &records);
                engine.recovery.lock().answered();
                let leases = || instances.iter().map(|(name, lease)| (name, lease));
                let now = now.inspect(|theirs| engine.compare_clocks(*theirs)).unwrap_or_else(|| engine.clock.now());
                // A log that only one process can open has nobody else to look after it.
                let leads = engine.options.lease == u64::MAX || leader(leases(), now) == Some(own);
                engine.lead(leads);
                engine.upkeep.lock().has_company = leader(leases().filter(|(name, _)| **name != own), now).is_some();
                let lapsed = lapsed(leases(), &own, now);
                engine.tell_who_is_gone(&lapsed);
                for from in lapsed.into_iter().filter(|_| leads) {
                    engine.take_over(from);
                }
                engine.take_up();
                engine.heed_operators(&records);
                done(Ok(()));
            }
            other => {
                engine.recovery.lock().answered();
                done(Err(other.err().unwrap_or_else(|| LogError("an answer to another question".to_owned()))));
            }
        };
        self.log.read(LogQuery::Open, Box::new(found));
    }

    fn enqueue(
        &self,
        planned: Vec<(TransactionId, protocol::recovery::Resume)>,
        records: &[(TransactionId, protocol::log::Record)],
    ) {
        let mut taken = 0;
        let mut recovery = self.recovery.lock();
        for (id, resume) in planned {
            let known = recovery.active.contains(&id) || recovery.pending.iter().any(|(other, ..)| *other == id);
            let over = recovery.let_go.contains(&id) || recovery.finishing.contains(&id);
            if known || over || self.drives(id) {
                continue;
            }
            let at = records.binary_search_by_key(&id, |(id, _)| *id);
            let Some((_, record)) = at.ok().and_then(|at| records.get(at)) else { continue };
            if let Some(transaction) = record.transaction.clone() {
                recovery.pending.push_back((id, resume, record.resolved_steps().collect(), transaction));
                taken += 1;
            }
        }
        drop(recovery);
        if taken > 0 {
            tracing::info!(transactions = taken, "recovering what a crash left behind");
            self.observer.observe(&Observation::Recovering { transactions: taken });
        }
    }

    /// A time that is written to the log: never before the log's own. So whatever is born is younger than what the log has forgotten, and what is
    /// finished is not forgotten at once, however late this instance's clock is.
    pub(crate) fn in_log(&self, now: Timestamp) -> Timestamp {
        now.plus(self.log_ahead.load(Ordering::Relaxed).max(0).unsigned_abs())
    }

    /// The log's own time, if it has one; ours if not.
    pub(crate) fn log_time(&self, now: Timestamp) -> Timestamp {
        let ahead = self.log_ahead.load(Ordering::Relaxed);
        if ahead < 0 { now.minus(ahead.unsigned_abs()) } else { now.plus(ahead.unsigned_abs()) }
    }

    /// Learns how far the log's clock is from this instance's, and says when they are far apart, and when they no longer are. Neither leases nor what
    /// is forgotten go by this instance's clock. But if it is ahead, so are the births of its transactions: participants ask about them, and
    /// forget them, later by as much.
    fn compare_clocks(&self, log: Timestamp) {
        let own = self.clock.now();
        let apart = own.since(log).max(log.since(own));
        let ahead = i64::try_from(log.0).unwrap_or(i64::MAX).saturating_sub(i64::try_from(own.0).unwrap_or(i64::MAX));
        self.log_ahead.store(ahead, Ordering::Relaxed);
        let far = apart > MAX_CLOCK_SKEW_MS;
        if std::mem::replace(&mut self.upkeep.lock().skewed, far) != far {
            let ahead = own > log;
            if far {
                tracing::warn!(
                    milliseconds = apart,
                    ahead,
                    "this instance's clock and that of the log's database are apart: mend the clocks of the machines"
                );
            } else {
                tracing::info!("this instance's clock and that of the log's database agree again");
            }
        }
    }

    fn lead(&self, leads: bool) {
        let before = std::mem::replace(&mut self.upkeep.lock().leads, leads);
        if before != leads {
            if self.options.lease != u64::MAX {
                tracing::info!(leads, "whether this instance looks after the log on behalf of all");
            }
            self.observer.observe(&Observation::Leads { leads });
        }
    }

    /// Whether this instance looks after the log on behalf of all, as far as it knows.
    pub fn is_leader(&self) -> bool {
        self.upkeep.lock().leads
    }

    /// The epoch under which this instance appends; 0 before it has registered.
    pub fn epoch(&self) -> u64 {
        self.epoch.load(Ordering::Acquire)
    }

    /// Gives the lease up, for good: what is left is taken over by another instance at once, instead of when the lease has lapsed. Call it
    /// when nothing more is begun.
    pub fn resign(self: &Arc<Self>, done: Done<Result<(), LogError>>) {
        {
            let mut upkeep = self.upkeep.lock();
            if self.options.lease == u64::MAX || std::mem::replace(&mut upkeep.resigned, true) {
                drop(upkeep);
                return done(Ok(()));
            }
            upkeep.leads = false;
        }
        let command = LogCommand::Renew { writer: self.writer(), now: self.clock.now(), lease: 0 };
        self.log.append(command, Box::new(|answer: Result<LogReply, LogError>| done(answer.map(|_| ()))));
    }

    /// Lets its lease lapse, and renews it when others have had the time to see that: whoever lives has then taken over what this one has, and this one goes on
    /// under a new epoch with nothing. No more than a lease that lapses under any living owner.
    fn hand_over(self: &Arc<Self>, now: Timestamp) {
        tracing::warn!(
            "no participant can be reached from here, and another instance lives: it is given what this one has not settled"
        );
        self.lead(false);
        let command = LogCommand::Renew { writer: self.writer(), now, lease: 0 };
        let engine = Arc::clone(self);
        let lapses = move |answer: Result<LogReply, LogError>| {
            if let Ok(LogReply::Fenced) = answer {
                engine.start_anew();
            }
        };
        self.log.append(command, Box::new(lapses));
    }

    fn take_over(self: &Arc<Self>, from: Name) {
        let command = LogCommand::TakeOver { writer: self.writer(), from, now: self.clock.now() };
        let engine = Arc::clone(self);
        let taken = move |answer: Result<LogReply, LogError>| match answer {
            Ok(LogReply::Taken(transactions)) => {
                tracing::warn!(%from, transactions, "took over the transactions of an instance whose lease lapsed");
                engine.upkeep.lock().unsure.remove(&from);
                engine.observer.observe(&Observation::TookOver { from, transactions });
                engine.recover(Box::new(|_| {}));
            }
            Ok(_) => {}
            Err(_) => _ = engine.upkeep.lock().unsure.insert(from),
        };
        self.log.append(command, Box::new(taken));
    }

    /// Take-overs without an answer were done if those who were to be taken over are no longer among the `lapsed`. Their transactions are found like any
    /// others; but who was told of nothing must hear of it now.
    fn tell_who_is_gone(&self, lapsed: &[Name]) {
        let mut upkeep = self.upkeep.lock();
        let (unsure, gone) = std::mem::take(&mut upkeep.unsure).into_iter().partition(|from| lapsed.contains(from));
        upkeep.unsure = unsure;
        drop(upkeep);
        let gone: BTreeSet<Name> = gone;
        for from in gone {
            tracing::warn!(%from, "an instance whose lease lapsed is taken over; nobody had said so");
            self.observer.observe(&Observation::TookOver { from, transactions: 0 });
        }
    }

    /// Takes up planned transactions as far as the window allows.
    fn take_up(self: &Arc<Self>) {
        loop {
            let mut recovery = self.recovery.lock();
            if recovery.active.len() >= RECOVERY_WINDOW {
                return;
            }
            let Some((id, resume, resolved, transaction)) = recovery.pending.pop_front() else { return };
            recovery.active.insert(id);
            drop(recovery);
            let pacing = self.pacing(&transaction.definition);
            let mut effects = Vec::with_capacity(8);
            let now = self.clock.now();
            let mut coordinator = Coordinator::resume(transaction, pacing, &resume, now, &mut effects);
            // What an operator has said stands, whoever drives the transaction.
            for step in resolved {
                coordinator.handle(now, Event::Resolved { step }, self.random(), &mut effects);
            }
            let over = coordinator.is_over();
            let live = self.adopt(coordinator, None, None);
            self.carry_out(&live, effects, over);
        }
    }

    /// Tells coordinators what operators have said in the log: at another instance, perhaps, whose word of it was lost on the way here.
    fn heed_operators(self: &Arc<Self>, records: &[(TransactionId, protocol::log::Record)]) {
        for (id, record) in records.iter().filter(|(_, record)| !record.resolutions.is_empty()) {
            for step in record.resolved_steps() {
                self.resolved(*id, step);
            }
        }
    }

    /// Whether transactions found by recovery are not settled yet.
    pub fn is_recovering(&self) -> bool {
        let recovery = self.recovery.lock();
        recovery.asking > 0 || !recovery.pending.is_empty() || !recovery.active.is_empty()
    }

    /// How many transactions found by recovery are still undecided. A service that shows what transactions change serves only when
    /// this is zero.
    pub fn undecided_recoveries(&self) -> usize {
        let (pending, active) = {
            let recovery = self.recovery.lock();
            (recovery.pending.len() + recovery.asking, recovery.active.clone())
        };
        let undecided =
            |id: &&TransactionId| matches!(self.state_of(**id), Some("inquiring" | "deciding" | "executing"));
        pending + active.iter().filter(undecided).count()
    }

    /// Renews the lease, takes over lapsed instances, and has the log forget.
    pub(crate) fn keep_up(self: &Arc<Self>, now: Timestamp) {
        self.take_up();
        if self.epoch.load(Ordering::Acquire) == 0 {
            return;
        }
        let mut upkeep = self.upkeep.lock();
        let renew =
            self.options.lease != u64::MAX && !upkeep.registering && now.since(upkeep.renewed) >= LEASE_RENEWAL_MS;
        let renew = renew && !upkeep.resigned;
        let hand_over = self.options.lease != u64::MAX && !upkeep.registering && !upkeep.resigned && {
            let Upkeep { leads, has_company, .. } = *upkeep;
            let useful = || has_company && (leads || self.has_unsettled());
            upkeep.cut_off.hands_over(self.transport.is_connected(), useful, now)
        };
        let forget = upkeep.leads && now.since(upkeep.forgot) >= FORGET_EVERY_MS;
        if hand_over {
            // Renewed again in two of these: the others look in each.
            upkeep.renewed = now.plus(LEASE_RENEWAL_MS);
        } else if renew {
            upkeep.renewed = now;
        }
        if forget {
            upkeep.forgot = now;
        }
        drop(upkeep);
        if hand_over {
            self.hand_over(now);
        } else if renew {
            self.renew(now);
        }
        if forget {
            let now = self.log_time(now);
            let command = LogCommand::Forget {
                finished_before: now.minus(RETENTION_MS),
                keep: KEPT_TRANSACTIONS,
                spare_since: now.minus(MIN_RETENTION_MS),
            };
            self.log.append(command, Box::new(|_| {}));
        }
    }

    fn renew(self: &Arc<Self>, now: Timestamp) {
        let command = LogCommand::Renew { writer: self.writer(), now, lease: self.options.lease };
        let engine = Arc::clone(self);
        let renewed = move |answer: Result<LogReply, LogError>| match answer {
            Ok(LogReply::Fenced) => engine.start_anew(),
            Ok(_) => engine.recover(Box::new(|_| {})),
            Err(_) => {}
        };
        self.log.append(command, Box::new(renewed));
    }

    /// Another instance took ours for dead and has our transactions. What was under way finds itself fenced and waits for the
    /// taker's decisions; new transactions go on under a new epoch.
    fn start_anew(self: &Arc<Self>) {
        let mut upkeep = self.upkeep.lock();
        if std::mem::replace(&mut upkeep.registering, true) {
            return;
        }
        drop(upkeep);
        tracing::warn!(
            "this instance's lease lapsed and another took its transactions over; it goes on under a new epoch"
        );
        self.observer.observe(&Observation::Fenced);
        self.register(Box::new(|_| {}));
    }
}
