//! Recovery and upkeep, driven: registering, taking over, resuming, renewing, forgetting. What to do, and who does it for all, is
//! [planned](protocol::recovery) on the ground floor.
//!
//! | what                                             | who                  | when                                      |
//! |--------------------------------------------------|----------------------|-------------------------------------------|
//! | take up one's own unfinished transactions        | every instance       | at the start, and behind every renewal    |
//! | renew one's lease                                | every instance       | every [`LEASE_RENEWAL_MS`]                |
//! | take over instances whose lease has lapsed       | the leader           | behind every renewal                      |
//! | have the log forget                              | the leader           | every [`FORGET_EVERY_MS`]                 |

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use protocol::limits::{KEPT_TRANSACTIONS, LEASE_RENEWAL_MS, MIN_RETENTION_MS, RETENTION_MS};
use protocol::log::{LogCommand, LogReply};
use protocol::recovery::{lapsed, leader, plan};
use protocol::{Coordinator, Name, Timestamp, TransactionId};

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
    /// What was let go of while the log was being asked: its answer may still show that as unfinished.
    let_go: BTreeSet<TransactionId>,
}

impl Recovering {
    /// A transaction is driven no longer.
    pub(crate) fn lets_go(&mut self, id: TransactionId) {
        self.active.remove(&id);
        if self.asking > 0 {
            self.let_go.insert(id);
        }
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
    /// It has given its lease up.
    resigned: bool,
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
            Ok(LogAnswer::Open { records, instances }) => {
                let own = engine.options.instance;
                let by_id = records.iter().map(|(id, record)| (*id, record));
                let planned = plan(by_id, &own);
                engine.enqueue(planned, &records);
                engine.recovery.lock().answered();
                let leases = || instances.iter().map(|(name, lease)| (name, lease));
                let now = engine.clock.now();
                // A log that only one process can open has nobody else to look after it.
                let leads = engine.options.lease == u64::MAX || leader(leases(), now) == Some(own);
                engine.lead(leads);
                for from in lapsed(leases(), &own, now).into_iter().filter(|_| leads) {
                    engine.take_over(from);
                }
                engine.take_up();
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
            if known || self.drives(id) || recovery.let_go.contains(&id) {
                continue;
            }
            let at = records.binary_search_by_key(&id, |(id, _)| *id);
            let transaction = at.ok().and_then(|at| records[at].1.transaction.clone());
            if let Some(transaction) = transaction {
                recovery.pending.push_back((id, resume, transaction));
                taken += 1;
            }
        }
        drop(recovery);
        if taken > 0 {
            tracing::info!(transactions = taken, "recovering what a crash left behind");
            self.observer.observe(&Observation::Recovering { transactions: taken });
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

    fn take_over(self: &Arc<Self>, from: Name) {
        let command = LogCommand::TakeOver { writer: self.writer(), from, now: self.clock.now() };
        let engine = Arc::clone(self);
        let taken = move |answer: Result<LogReply, LogError>| {
            if let Ok(LogReply::Taken(transactions)) = answer {
                tracing::warn!(%from, transactions, "took over the transactions of an instance whose lease lapsed");
                engine.observer.observe(&Observation::TookOver { from, transactions });
                engine.recover(Box::new(|_| {}));
            }
        };
        self.log.append(command, Box::new(taken));
    }

    /// Takes up planned transactions as far as the window allows.
    fn take_up(self: &Arc<Self>) {
        loop {
            let mut recovery = self.recovery.lock();
            if recovery.active.len() >= RECOVERY_WINDOW {
                return;
            }
            let Some((id, resume, transaction)) = recovery.pending.pop_front() else { return };
            recovery.active.insert(id);
            drop(recovery);
            let pacing = self.pacing(&transaction.definition);
            let mut effects = Vec::with_capacity(8);
            let coordinator = Coordinator::resume(transaction, pacing, &resume, self.clock.now(), &mut effects);
            let over = coordinator.is_over();
            let live = self.adopt(coordinator, None, None);
            self.carry_out(&live, effects, over);
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
        let forget = upkeep.leads && now.since(upkeep.forgot) >= FORGET_EVERY_MS;
        if renew {
            upkeep.renewed = now;
        }
        if forget {
            upkeep.forgot = now;
        }
        drop(upkeep);
        if renew {
            self.renew(now);
        }
        if forget {
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
