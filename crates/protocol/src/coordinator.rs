//! The coordinator of one transaction, sans-I/O.
//!
//! ```text
//!            events                                   effects
//!   Staged, StageUnknown       ┌─────────────┐   Stage, Decide, Finish      → log
//!   Replied{step, verb, …}  ─► │ Coordinator │ ─ Send{step, verb}           → participants
//!   Decided, DecisionDurable   │  two_phase  │   Answer(outcome)            → whoever waits
//!   Wake, Retry, Resolved      │  saga       │   DeadLetter, Alarm          → operators
//!                              └─────────────┘   Relinquish                 → another owner finishes
//! ```
//!
//! Call [`Coordinator::begin`] or [`Coordinator::resume`], carry out the effects in their order, and hand what comes of them back
//! through [`Coordinator::handle`]. Call it with [`Event::Wake`] when [`Coordinator::next_wake`] has come. An event may come twice
//! or late; one that is no news changes nothing.

use std::sync::Arc;

use crate::ids::Timestamp;
use crate::log::{StageRefusal, Tries};
use crate::message::{BranchState, Reply, Unknown, Verb};
use crate::pacing::{Delivery, Pacing, Sending};
use crate::recovery::Resume;
use crate::saga::Saga;
use crate::simulation::{Mutation, mark, mutated};
use crate::transaction::{Decision, Outcome, Protocol, Transaction};
use crate::two_phase::TwoPhase;

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// The stage is durable in the log, or was refused and will never be there.
    Staged(Result<(), StageRefusal>),
    /// Nobody knows whether the stage is in the log.
    StageUnknown,
    /// A participant answered.
    Replied {
        /// Whose branch.
        step: u8,
        /// To which verb.
        verb: Verb,
        /// What it said.
        reply: Reply,
    },
    /// The decision that stands is readable in the log: ours, or one that was there before.
    Decided(Decision),
    /// The log does not know the transaction and can't commit it: the stage was lost.
    NotStaged,
    /// Another owner has taken the transaction over.
    Fenced,
    /// Nobody knows whether the decision is in the log.
    DecideUnknown,
    /// The decision that stands has been flushed.
    DecisionDurable,
    /// The time of [`Coordinator::next_wake`] has come.
    Wake,
    /// An operator wants everything tried at once.
    Retry,
    /// An operator has settled this branch by hand.
    Resolved {
        /// Which step's.
        step: u8,
    },
}

/// What is to be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    /// Append the transaction to the log, at most once; then [`Event::Staged`] when it is durable.
    Stage,
    /// Send this command to the step's participant.
    Send {
        /// Which step's.
        step: u8,
        /// What it is asked.
        verb: Verb,
        /// 1 for the first attempt.
        attempt: u32,
    },
    /// Decide by compare-and-set; then [`Event::Decided`] when the decision is readable, [`Event::DecisionDurable`] when flushed.
    Decide(Decision),
    /// Everyone has acknowledged: the log may forget. May be batched and lost.
    Finish,
    /// Tell the caller. Given once.
    Answer(Outcome),
    /// Retries ran out: write a dead letter. The branch is still tried at a slow pace.
    DeadLetter {
        /// Which step's branch.
        step: u8,
        /// What it would not acknowledge.
        verb: Verb,
        /// Attempts so far.
        attempts: u32,
        /// Why the last one failed.
        why: Failure,
    },
    /// A participant answered that the command contradicts its branch: a bug or lost data.
    Alarm {
        /// Which step's branch.
        step: u8,
        /// What it was asked.
        verb: Verb,
        /// What it is.
        state: BranchState,
    },
    /// Another owner finishes this transaction: wait for its decision in the log.
    Relinquish,
}

/// Why a branch can't be settled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failure {
    /// Its participant's answers stay unknown.
    Unknown(Unknown),
    /// Its participant says that the command contradicts the branch's state.
    Violation(BranchState),
}

/// What both protocols share: the transaction, its pace, and the deliveries to its participants.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Common {
    pub(crate) transaction: Arc<Transaction>,
    pub(crate) pacing: Pacing,
    pub(crate) deadline: Timestamp,
    pub(crate) deliveries: Vec<Delivery>,
    pub(crate) answered: bool,
}

impl Common {
    fn new(transaction: Arc<Transaction>, pacing: Pacing, now: Timestamp, verb: Verb) -> Self {
        let deliveries = transaction.steps.iter().map(|_| Delivery::idle(verb)).collect();
        let deadline = now.plus(pacing.deadline);
        Self { transaction, pacing, deadline, deliveries, answered: false }
    }

    /// Starts the delivery of `verb` to a step, whatever was delivered to it before.
    pub(crate) fn send(&mut self, step: u8, verb: Verb, now: Timestamp, out: &mut Vec<Effect>) {
        if let Some(delivery) = self.deliveries.get_mut(usize::from(step)) {
            *delivery = Delivery {
                verb,
                attempts: 1,
                due: Some(now.plus(self.pacing.attempt_timeout)),
                settled: false,
                parked: false,
                why: Unknown::Timeout,
            };
            out.push(Effect::Send { step, verb, attempt: 1 });
        }
    }

    pub(crate) fn send_all(&mut self, verb: Verb, now: Timestamp, out: &mut Vec<Effect>) {
        for step in self.transaction.positions() {
            self.send(step, verb, now, out);
        }
    }

    pub(crate) fn all_settled(&self) -> bool {
        self.deliveries.iter().all(|delivery| delivery.settled)
    }

    pub(crate) fn settle(&mut self, step: u8) {
        if let Some(delivery) = self.deliveries.get_mut(usize::from(step)) {
            delivery.settle();
        }
    }

    /// Forgets what was delivered to a step: `verb` is to be sent later.
    pub(crate) fn reset(&mut self, step: u8, verb: Verb) {
        if let Some(delivery) = self.deliveries.get_mut(usize::from(step)) {
            *delivery = Delivery::idle(verb);
        }
    }

    /// Whether anything was ever sent to the step.
    pub(crate) fn was_sent(&self, step: u8) -> bool {
        self.deliveries.get(usize::from(step)).is_some_and(|delivery| delivery.attempts > 0)
    }

    /// Whether a reply answers what its step was asked last, and was not answered yet. Remembers why an attempt failed, for the dead
    /// letter that may come of it.
    pub(crate) fn is_news(&mut self, step: u8, verb: Verb, reply: &Reply) -> bool {
        let Some(delivery) = self.deliveries.get_mut(usize::from(step)).filter(|delivery| delivery.awaits(verb)) else {
            return false;
        };
        if let Reply::Unknown(why) = reply {
            delivery.why = *why;
        }
        true
    }

    /// The first step that has been asked and has not answered.
    pub(crate) fn first_missing(&self) -> Option<u8> {
        self.transaction
            .positions()
            .zip(&self.deliveries)
            .find(|(_, d)| d.attempts > 0 && !d.settled)
            .map(|(step, _)| step)
    }

    /// An attempt failed without an answer: back off.
    pub(crate) fn retry_later(&mut self, step: u8, now: Timestamp, entropy: u64) {
        let pacing = self.pacing;
        if let Some(delivery) = self.deliveries.get_mut(usize::from(step)) {
            let wait = if delivery.parked { pacing.slow_pace } else { pacing.backoff(delivery.attempts, entropy) };
            delivery.due = Some(now.plus(wait));
        }
    }

    /// Sends again what is due. Deliveries that finish a branch become dead letters when their attempts run out.
    pub(crate) fn resend_due(&mut self, now: Timestamp, out: &mut Vec<Effect>) {
        for step in self.transaction.positions() {
            let Some(delivery) = self.deliveries.get_mut(usize::from(step)) else { continue };
            if delivery.settled || delivery.due.is_none_or(|due| due > now) {
                continue;
            }
            if delivery.attempts >= self.pacing.attempts && !delivery.verb.begins() {
                if mutated(Mutation::ExhaustedIsFinished) {
                    delivery.settle();
                    continue;
                }
                if !delivery.parked && delivery.verb != Verb::Inquire {
                    let why = Failure::Unknown(delivery.why);
                    self.park(step, why, now, out);
                }
            }
            let Some(delivery) = self.deliveries.get_mut(usize::from(step)) else { continue };
            delivery.attempts = delivery.attempts.saturating_add(1);
            let wait = if delivery.parked { self.pacing.slow_pace } else { self.pacing.attempt_timeout };
            delivery.due = Some(now.plus(wait));
            out.push(Effect::Send { step, verb: delivery.verb, attempt: delivery.attempts });
        }
    }

    /// Writes a dead letter for the delivery, once; it goes on at the slow pace.
    pub(crate) fn park(&mut self, step: u8, why: Failure, now: Timestamp, out: &mut Vec<Effect>) {
        let slow_pace = self.pacing.slow_pace;
        let Some(delivery) = self.deliveries.get_mut(usize::from(step)) else { return };
        delivery.due = Some(now.plus(slow_pace));
        if !delivery.parked {
            delivery.parked = true;
            mark("coordinator.dead_letter");
            out.push(Effect::DeadLetter { step, verb: delivery.verb, attempts: delivery.attempts, why });
        }
    }

    /// A participant says that a finishing command contradicts its branch.
    pub(crate) fn violated(
        &mut self,
        (step, verb): (u8, Verb),
        state: BranchState,
        now: Timestamp,
        out: &mut Vec<Effect>,
    ) {
        out.push(Effect::Alarm { step, verb, state });
        self.park(step, Failure::Violation(state), now, out);
    }

    pub(crate) fn retry_all_now(&mut self, now: Timestamp) {
        for delivery in &mut self.deliveries {
            if delivery.due.is_some() {
                delivery.due = Some(now);
            }
        }
    }

    pub(crate) fn answer(&mut self, outcome: Outcome, out: &mut Vec<Effect>) {
        if !self.answered {
            self.answered = true;
            out.push(Effect::Answer(outcome));
        }
    }

    pub(crate) fn next_due(&self) -> Option<Timestamp> {
        self.deliveries.iter().filter_map(|delivery| delivery.due).min()
    }
}

/// The coordinator of one transaction.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Coordinator {
    common: Common,
    protocol: Machine,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Machine {
    TwoPhase(TwoPhase),
    Saga(Saga),
}

impl Coordinator {
    /// Starts a new transaction.
    pub fn begin(transaction: Arc<Transaction>, pacing: Pacing, now: Timestamp, out: &mut Vec<Effect>) -> Self {
        let protocol = transaction.protocol;
        let mut common = Common::new(transaction, pacing, now, Verb::Prepare);
        let protocol = match protocol {
            Protocol::TwoPhase => Machine::TwoPhase(TwoPhase::begin(&mut common, now, out)),
            Protocol::Saga => Machine::Saga(Saga::begin(&common, now, out)),
        };
        Self { common, protocol }
    }

    /// Takes up a transaction that recovery found, as [planned](crate::recovery::plan).
    pub fn resume(
        transaction: Arc<Transaction>,
        pacing: Pacing,
        plan: &Resume,
        now: Timestamp,
        out: &mut Vec<Effect>,
    ) -> Self {
        let protocol = transaction.protocol;
        let mut common = Common::new(transaction, pacing, now, Verb::Inquire);
        let protocol = match protocol {
            Protocol::TwoPhase => Machine::TwoPhase(TwoPhase::resume(&mut common, plan, now, out)),
            Protocol::Saga => Machine::Saga(Saga::resume(&mut common, plan, now, out)),
        };
        Self { common, protocol }
    }

    /// Takes an event in and appends what is to be done to `out`. `entropy` is fresh randomness for the jitter of retries.
    pub fn handle(&mut self, now: Timestamp, event: Event, entropy: u64, out: &mut Vec<Effect>) {
        match &mut self.protocol {
            Machine::TwoPhase(machine) => machine.handle(&mut self.common, now, event, entropy, out),
            Machine::Saga(machine) => machine.handle(&mut self.common, now, event, entropy, out),
        }
    }

    /// When [`Event::Wake`] is wanted; `None` while there is nothing to wait for.
    pub fn next_wake(&self) -> Option<Timestamp> {
        match &self.protocol {
            Machine::TwoPhase(machine) => machine.next_wake(&self.common),
            Machine::Saga(machine) => machine.next_wake(&self.common),
        }
    }

    /// Whether nothing is left to do here: finished or withdrawn. One in another owner's hands still waits for that one's decision.
    pub fn is_over(&self) -> bool {
        match &self.protocol {
            Machine::TwoPhase(machine) => machine.is_over(),
            Machine::Saga(machine) => machine.is_over(),
        }
    }

    /// The transaction.
    pub fn transaction(&self) -> &Arc<Transaction> {
        &self.common.transaction
    }

    /// How far each participant is with what it was asked last.
    pub fn sendings(&self) -> impl Iterator<Item = Sending> {
        self.common.transaction.positions().zip(&self.common.deliveries).map(|(step, delivery)| delivery.sending(step))
    }

    /// What took more than one attempt, of what each participant was asked last.
    pub fn tries(&self) -> impl Iterator<Item = Tries> {
        let deliveries = self.common.transaction.positions().zip(&self.common.deliveries);
        deliveries.filter_map(|(step, delivery)| delivery.tries(step))
    }

    /// Whether the caller has been answered.
    pub fn is_answered(&self) -> bool {
        self.common.answered
    }

    /// A short name of the state, for people.
    pub fn state(&self) -> &'static str {
        match &self.protocol {
            Machine::TwoPhase(machine) => machine.state(),
            Machine::Saga(machine) => machine.state(),
        }
    }
}
