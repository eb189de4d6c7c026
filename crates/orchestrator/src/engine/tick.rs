//! What an engine does by the clock: wakes who is due, asks the log about what another owner has, tells it what is finished.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use protocol::limits::{GATHER_FINISHED_MS, MAX_FINISHED_TOGETHER};
use protocol::log::{LogCommand, Verdict};
use protocol::{Event, Outcome, Timestamp};

use super::{Engine, Live};
use crate::ports::{LogAnswer, LogError, LogQuery};

/// How often the log is asked for the decision of a transaction that another owner has. Milliseconds.
const LOOK_UP_EVERY_MS: u64 = 50;

impl Engine {
    /// Wakes whoever is due, flushes the finished, renews the lease, sweeps. Call it every few milliseconds while
    /// [busy](Engine::is_busy), and every second or so otherwise.
    pub fn tick(self: &Arc<Self>) {
        let now = self.clock.now();
        self.admission.expire(now);
        let mut due = Vec::new();
        for shard in &self.shards {
            due.extend(shard.lock().values().filter(|live| live.wake.load(Ordering::Relaxed) <= now.0).cloned());
        }
        for live in due {
            let relinquished = live.state.lock().relinquished;
            match relinquished {
                Some(until) => self.look_up(&live, until, now),
                None => self.handle(&live, Event::Wake),
            }
        }
        self.finish_gathered(now);
        self.keep_up(now);
    }

    /// Asks the log what another owner has decided.
    fn look_up(self: &Arc<Self>, live: &Arc<Live>, until: Timestamp, now: Timestamp) {
        live.wake.store(now.plus(LOOK_UP_EVERY_MS).0, Ordering::Relaxed);
        let (engine, of, id) = (Arc::clone(self), Arc::clone(live), live.id);
        let found = move |answer: Result<LogAnswer, LogError>| match answer {
            Ok(LogAnswer::Transaction(Some(record))) => {
                engine.conclude(&of, record.decision().map(Outcome::from), until);
            }
            // Never staged, or finished and forgotten: asking makes sure that it is not staged from now on.
            Ok(LogAnswer::Transaction(None)) => {
                let asking = Arc::clone(&engine);
                let asked = move |answer: Result<Vec<Verdict>, LogError>| {
                    let verdict = answer.ok().and_then(|verdicts| verdicts.first().copied());
                    let aborted = verdict == Some(Verdict::Aborted);
                    engine.conclude(&of, aborted.then_some(Outcome::RolledBack { step: None }), until);
                };
                asking.ask(vec![id], Box::new(asked));
            }
            Ok(_) | Err(_) => engine.conclude(&of, None, until),
        };
        self.log.read(LogQuery::Transaction(live.id), Box::new(found));
    }

    /// Lets a relinquished transaction go: with its outcome, or in doubt if that is not known in time.
    fn conclude(&self, live: &Live, outcome: Option<Outcome>, until: Timestamp) {
        let outcome = outcome.or_else(|| (self.clock.now() >= until).then_some(Outcome::InDoubt));
        if let Some(outcome) = outcome
            && self.let_go(live, false)
            && !live.state.lock().coordinator.is_answered()
        {
            self.answer(live, outcome);
        }
    }

    /// Tells the log what is finished: at once if nobody else writes to it; together, if each time costs a script and its replication.
    fn finish_gathered(&self, now: Timestamp) {
        let many = self.finished.lock().len();
        let waits = self.options.lease != u64::MAX
            && many < MAX_FINISHED_TOGETHER
            && now.0 < self.finish_at.load(Ordering::Relaxed);
        if many > 0 && !waits {
            self.finish_at.store(now.plus(GATHER_FINISHED_MS).0, Ordering::Relaxed);
            self.flush_finished();
        }
    }

    pub(super) fn flush_finished(&self) {
        let ids = std::mem::take(&mut *self.finished.lock());
        if !ids.is_empty() {
            let told = (self.options.lease != u64::MAX).then(|| ids.clone());
            let command = LogCommand::Finish { writer: self.writer(), ids, now: self.in_log(self.clock.now()) };
            let recovery = Arc::clone(&self.recovery);
            self.log.append(command, Box::new(move |_| _ = told.map(|ids| recovery.lock().told_finished(&ids))));
        }
    }
}
