//! What can be asked of an engine from outside: how it fares, what became of a transaction, and what operators do.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use protocol::limits::MAX_TERMINATION_BATCH;
use protocol::log::{LogCommand, LogReply, Resolution, Tries, Verdict, Writer};
use protocol::{Event, Name, Outcome, Protocol, Sending, Timestamp, TransactionId};

use crate::definition::Choice;
use crate::engine::{Engine, Live};
use crate::ports::{Done, LogAnswer, LogError, LogQuery};

impl Live {
    /// Under which epoch it was begun here, if it was, and nobody has been told an outcome here.
    pub(crate) fn untold_by(&self) -> Option<Writer> {
        let state = self.state.lock();
        let untold = self.admitted && state.outcome.is_none() && state.relinquished.is_none();
        untold.then_some(self.writer)
    }
}

/// What came of [trying a transaction again](Engine::retry).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Retried {
    /// What is left of it was sent again.
    SentAgain,
    /// Nothing is left of it, though the log may not have been told yet.
    Finished,
    /// This engine does not drive it.
    NotDriven,
}

impl Engine {
    /// The name of this instance.
    pub fn instance(&self) -> Name {
        self.options.instance
    }

    /// The time that this engine writes to its log.
    pub fn now(&self) -> Timestamp {
        self.in_log(self.clock.now())
    }

    /// Whether anything is under way that a tick could move.
    pub fn is_busy(&self) -> bool {
        self.shards.iter().any(|shard| !shard.lock().is_empty())
            || !self.finished.lock().is_empty()
            || self.admission.load().1 > 0
            || self.is_recovering()
    }

    /// Admits nobody from now on. Poll [`is_busy`](Engine::is_busy) to learn when everything has been settled.
    pub fn drain(&self) {
        self.draining.store(true, Ordering::Release);
        self.admission.drain();
    }

    /// Whether [`drain`](Engine::drain) was called.
    pub fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Acquire)
    }

    /// Transactions in flight, and callers queued behind them.
    pub fn load(&self) -> (usize, usize) {
        self.admission.load()
    }

    /// How many transactions this engine drives, those behind their answer included.
    pub fn live_count(&self) -> usize {
        self.driven.load(Ordering::Relaxed)
    }

    /// The state of a transaction's coordinator, if this engine drives it.
    pub fn state_of(&self, id: TransactionId) -> Option<&'static str> {
        self.live(id).map(|live| live.state.lock().coordinator.state())
    }

    /// The state of a transaction's coordinator, and how far each participant is, if this engine drives it.
    pub fn progress_of(&self, id: TransactionId) -> Option<(&'static str, Vec<Sending>)> {
        let live = self.live(id)?;
        let state = live.state.lock();
        // Behind what is on its way stand the votes that took more than one attempt.
        let votes = state.tries.iter().map(|&Tries { step, verb, attempts, answered, why }| Sending {
            step,
            verb,
            attempts,
            next: None,
            settled: answered,
            failure: Some(why),
        });
        Some((state.coordinator.state(), state.coordinator.sendings().chain(votes).collect()))
    }

    /// Whether this engine has told an outcome of a transaction; `None` if it does not drive it. If it has not, another may have: see
    /// [`confirm_untold`](Engine::confirm_untold).
    pub fn is_answered(&self, id: TransactionId) -> Option<bool> {
        self.live(id).map(|live| live.state.lock().outcome.is_some())
    }

    /// Calls `done` with whether it is certain that nobody, anywhere, has been told an outcome of a transaction: this engine began it and has told
    /// nobody, and the log says that it is its own still. What this engine knows by itself does not suffice: one that was frozen does not know that
    /// another took the transaction over, and told somebody.
    pub fn confirm_untold(&self, id: TransactionId, done: Done<bool>) {
        let Some(writer) = self.live(id).and_then(|live| live.untold_by()) else { return done(false) };
        if self.options.lease == u64::MAX {
            // Nobody else can have taken it over.
            return done(true);
        }
        // Finishes nothing; whoever is fenced is told so.
        let command = LogCommand::Finish { writer, ids: Vec::new(), now: self.in_log(self.clock.now()) };
        self.log.append(command, Box::new(|answer| done(answer == Ok(LogReply::Done))));
    }

    /// Calls `done` with the outcome of a transaction that this engine drives, at once if it has been answered. Gives `done` back
    /// if it drives no such transaction.
    ///
    /// # Errors
    /// `done`, unused.
    pub fn watch(&self, id: TransactionId, done: Done<Outcome>) -> Result<(), Done<Outcome>> {
        let Some(live) = self.live(id) else { return Err(done) };
        let mut state = live.state.lock();
        match state.outcome.clone() {
            Some(outcome) => {
                drop(state);
                done(outcome);
            }
            None => state.waiters.push(done),
        }
        Ok(())
    }

    /// Tries everything that is left of a transaction at once.
    pub fn retry(self: &Arc<Self>, id: TransactionId) -> Retried {
        if let Some(live) = self.live(id) {
            self.handle(&live, Event::Retry);
            return Retried::SentAgain;
        }
        if self.recovery.lock().is_finishing(id) { Retried::Finished } else { Retried::NotDriven }
    }

    /// Records that an operator has settled a branch by hand, and counts it as acknowledged if this engine drives the transaction. The log decides
    /// whether there is anything to settle. Another engine that drives it hears of it from the log, within a renewal, or at once by
    /// [`resolved`](Engine::resolved).
    ///
    /// A resolution's time is at least that of the dead letter it is about, whatever the clocks of those who wrote them say.
    pub fn resolve(
        self: &Arc<Self>,
        id: TransactionId,
        mut resolution: Resolution,
        done: Done<Result<LogReply, LogError>>,
    ) {
        let engine = Arc::clone(self);
        let found = move |answer: Result<LogAnswer, LogError>| {
            let record = match answer {
                Ok(LogAnswer::Transaction(Some(record))) => record,
                Ok(_) => return done(Ok(LogReply::NotFound)),
                Err(error) => return done(Err(error)),
            };
            let step = resolution.step;
            let letters = record.open_letters().filter(|letter| letter.step == step).map(|letter| letter.at);
            resolution.at = letters.chain([resolution.at]).max().unwrap_or_default();
            let told = Arc::clone(&engine);
            let resolved = move |answer: Result<LogReply, LogError>| {
                if let Ok(LogReply::Done) = answer {
                    told.resolved(id, step);
                }
                done(answer);
            };
            engine.log.append(LogCommand::Resolve { id, resolution }, Box::new(resolved));
        };
        self.log.read(LogQuery::Transaction(id), Box::new(found));
    }

    /// The log says that an operator has settled a branch by hand: it counts as acknowledged. Whether this engine drives the transaction.
    pub fn resolved(self: &Arc<Self>, id: TransactionId, step: u8) -> bool {
        let live = self.live(id);
        if let Some(live) = &live {
            self.handle(live, Event::Resolved { step });
        }
        live.is_some()
    }

    /// A participant asks what became of its open branches: at most [`MAX_TERMINATION_BATCH`] at a time; the answers are in order.
    pub fn ask(&self, mut ids: Vec<TransactionId>, done: Done<Result<Vec<Verdict>, LogError>>) {
        ids.truncate(MAX_TERMINATION_BATCH);
        let answered = move |answer: Result<LogReply, LogError>| {
            done(match answer {
                Ok(LogReply::Verdicts(verdicts)) => Ok(verdicts),
                Ok(other) => Err(LogError(format!("an unexpected answer: {other:?}"))),
                Err(error) => Err(error),
            });
        };
        self.log.append(LogCommand::Ask { ids, now: self.in_log(self.clock.now()) }, Box::new(answered));
    }

    /// Whether a definition's transactions use the same protocol whatever their abort rate; `None` if there is no such definition.
    pub fn is_protocol_fixed(&self, definition: &Name) -> Option<bool> {
        self.definitions.get(definition).map(|defined| defined.definition.protocol != Choice::Auto)
    }

    /// The services and whether their breakers keep transactions away now, with how often each has opened. One that waits for a probe
    /// keeps nobody away: nothing but a transaction can close it.
    pub fn breakers(&self) -> Vec<(Name, bool, u64)> {
        self.gates.states(self.clock.now())
    }

    /// The protocol that the next transaction of a definition would use, and the abort rate in percent.
    pub fn current_protocol(&self, definition: &Name) -> Option<(Protocol, usize)> {
        let defined = self.definitions.get(definition)?;
        let policy = defined.policy.lock();
        let protocol = match defined.definition.protocol {
            Choice::TwoPhase => Protocol::TwoPhase,
            Choice::Saga => Protocol::Saga,
            Choice::Auto => policy.choose(self.gates.any_open()),
        };
        Some((protocol, policy.abort_percent()))
    }
}
