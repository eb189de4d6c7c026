//! Sagas: do everywhere, undo if one refuses (Garcia-Molina and Salem, 1987).
//!
//! | state              | event                                     | becomes            | effects                                |
//! |--------------------|-------------------------------------------|--------------------|----------------------------------------|
//! | (begin)            |                                           | Staging            | stage                                  |
//! | Staging            | stage durable                             | Executing          | execute: all, or the first             |
//! | Staging            | stage refused                             | Over               | answer (nothing was sent)              |
//! | Staging            | stage unknown, or deadline                | Deciding(Abort)    | decide Abort                           |
//! | Executing          | done, others missing                      | Executing          | sequential: execute the next           |
//! | Executing          | all done                                  | Deciding(Commit)   | decide Commit                          |
//! | Executing          | a refusal                                 | Deciding(Abort)    | decide Abort                           |
//! | Executing          | deadline, backward                        | Deciding(Abort)    | decide Abort                           |
//! | Executing          | deadline, forward                         | Executing          | answer InDoubt; retries go on          |
//! | Deciding           | decided Commit                            | Committing         |                                        |
//! | Deciding           | decided Abort                             | Compensating       | compensate what was done or is unknown |
//! | Executing          | expired                                   | Deciding(Abort)    | decide Abort                           |
//! | Deciding           | fenced                                    | Relinquished       | relinquish                             |
//! | Committing, Compensating, not durable | the contrary was decided | Compensating, Committing | as if decided so at first |
//! | Committing, Compensating, not durable | fenced              | Relinquished       | relinquish                             |
//! | Committing         | decision durable                          | Over               | answer; finish                         |
//! | Compensating       | acknowledged                              | Compensating       | sequential: compensate the one before  |
//! | Compensating       | all acknowledged, or waited long enough   | Compensating       | answer                                 |
//! | Compensating       | all acknowledged, and decision durable    | Over               | finish                                 |
//! | (resume, backward) | staged, undecided                         | Deciding(Abort)    | decide Abort; later compensate all     |
//! | (resume, forward)  | staged, undecided                         | Executing          | execute again                          |
//!
//! A commit is answered only when it is durable, because recovery aborts an undecided backward saga. An abort may be answered as
//! soon as it is readable, for the same reason.

use crate::coordinator::{Common, Effect, Event};
use crate::ids::Timestamp;
use crate::log::StageRefusal;
use crate::message::{BranchState, Reply, Verb};
use crate::recovery::Resume;
use crate::simulation::{Mutation, mark, mutated};
use crate::transaction::{Cause, Decision, Order, Outcome, Recovery};

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum State {
    Staging,
    Executing,
    Deciding { decision: Decision, retry: Option<Timestamp>, attempts: u32 },
    Committing { decide_again: Option<Timestamp> },
    Compensating(Compensating),
    Relinquished,
    Over,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Compensating {
    decision: Decision,
    durable: bool,
    /// Up to when the answer waits for the compensations; `None`: they have not begun.
    answer_by: Option<Timestamp>,
    decide_again: Option<Timestamp>,
    /// Steps yet to be compensated, the next one last. Only sequential sagas leave any here.
    waiting: Vec<u8>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Saga {
    state: State,
    /// Nobody knows which steps were sent, for this coordinator was not there: all count as unknown.
    resumed: bool,
    /// Steps that durably refused: there is nothing to undo.
    refused: Vec<u8>,
}

impl Saga {
    pub(crate) fn begin(_: &Common, _: Timestamp, out: &mut Vec<Effect>) -> Self {
        out.push(Effect::Stage);
        Self { state: State::Staging, resumed: false, refused: Vec::new() }
    }

    pub(crate) fn resume(common: &mut Common, plan: &Resume, now: Timestamp, out: &mut Vec<Effect>) -> Self {
        let mut machine = Self { state: State::Over, resumed: true, refused: Vec::new() };
        match plan {
            Resume::Settle(decision) => {
                mark("saga.resume_decided");
                machine.settle(common, decision.clone(), now, out);
                machine.on_durable(common, now, out);
            }
            Resume::Execute => {
                mark("saga.resume_forward");
                machine.execute(common, now, out);
            }
            Resume::Abort | Resume::Inquire => {
                mark("saga.resume_backward");
                machine.decide(Decision::Abort(Cause::Recovered), out);
            }
        }
        machine
    }

    pub(crate) fn handle(
        &mut self,
        common: &mut Common,
        now: Timestamp,
        event: Event,
        entropy: u64,
        out: &mut Vec<Effect>,
    ) {
        match event {
            Event::Staged(Ok(())) => {
                if matches!(self.state, State::Staging) {
                    self.execute(common, now, out);
                }
            }
            Event::Staged(Err(refusal)) => {
                if matches!(self.state, State::Staging) {
                    mark("saga.stage_refused");
                    let outcome = match refusal {
                        StageRefusal::Application(refusal) => Outcome::Conflict(refusal),
                        StageRefusal::Fenced
                        | StageRefusal::Expired
                        | StageRefusal::Decided
                        | StageRefusal::NotSent => Outcome::RolledBack { step: None },
                    };
                    common.answer(outcome, out);
                    self.state = State::Over;
                }
            }
            Event::StageUnknown => {
                if matches!(self.state, State::Staging) {
                    mark("saga.stage_unknown");
                    self.decide(Decision::Abort(Cause::Unavailable { step: None }), out);
                }
            }
            Event::Replied { step, verb, reply } => self.on_reply(common, (step, verb), reply, now, entropy, out),
            Event::Decided(decision) => {
                let overruled = match &self.state {
                    State::Committing { .. } => !decision.is_commit(),
                    State::Compensating(compensating) => !compensating.durable && decision.is_commit(),
                    _ => false,
                };
                if overruled {
                    // A crash of the log took back what was readable only, and another owner has decided since.
                    mark("saga.overruled");
                }
                if overruled || matches!(self.state, State::Deciding { .. }) {
                    self.settle(common, decision, now, out);
                }
            }
            Event::NotStaged => {
                if let State::Deciding { decision: Decision::Commit, .. } = self.state {
                    mark("saga.stage_lost");
                    self.decide(Decision::Abort(Cause::NeverStaged), out);
                }
            }
            Event::Fenced => {
                let undecided = matches!(self.state, State::Staging | State::Executing | State::Deciding { .. });
                let volatile = match &self.state {
                    State::Committing { .. } => true,
                    State::Compensating(compensating) => !compensating.durable,
                    _ => false,
                };
                if undecided || volatile {
                    mark("saga.fenced");
                    self.state = State::Relinquished;
                    out.push(Effect::Relinquish);
                }
            }
            Event::DecideUnknown => self.on_decide_unknown(common, now, entropy),
            Event::DecisionDurable => self.on_durable(common, now, out),
            Event::Wake => self.on_wake(common, now, out),
            Event::Retry => {
                common.retry_all_now(now);
                self.on_wake(common, now, out);
            }
            Event::Resolved { step } => {
                if matches!(self.state, State::Compensating(_)) && common.was_sent(step) {
                    common.settle(step);
                    self.progress(common, now, out);
                }
            }
        }
    }

    fn execute(&mut self, common: &mut Common, now: Timestamp, out: &mut Vec<Effect>) {
        self.state = State::Executing;
        match common.transaction.order {
            Order::Parallel => common.send_all(Verb::Execute, now, out),
            Order::Sequential => common.send(0, Verb::Execute, now, out),
        }
    }

    fn on_reply(
        &mut self,
        common: &mut Common,
        (step, verb): (u8, Verb),
        reply: Reply,
        now: Timestamp,
        entropy: u64,
        out: &mut Vec<Effect>,
    ) {
        if !common.is_news(step, verb, &reply) {
            return;
        }
        match (&self.state, verb, reply) {
            (State::Executing, Verb::Execute, Reply::Done(BranchState::Executed)) => {
                common.settle(step);
                if common.all_settled() {
                    self.decide(Decision::Commit, out);
                } else if common.transaction.order == Order::Sequential {
                    common.send(step + 1, Verb::Execute, now, out);
                }
            }
            (State::Executing, Verb::Execute, Reply::Refused(refusal)) if !refusal.is_expiry() => {
                mark("saga.refused");
                common.settle(step);
                self.refused.push(step);
                self.decide(Decision::Abort(Cause::Refused { step, refusal: Box::new(refusal) }), out);
            }
            (State::Executing, Verb::Execute, Reply::Refused(_)) => {
                // Expired: nothing can be done there any more, and only the log knows whether another owner has done it.
                mark("saga.expired");
                self.decide(Decision::Abort(Cause::Unavailable { step: Some(step) }), out);
            }
            (State::Executing, Verb::Execute, Reply::Violation(state)) => {
                out.push(Effect::Alarm { step, verb, state });
                common.retry_later(step, now, entropy);
            }
            (
                State::Compensating(_),
                Verb::Compensate,
                Reply::Done(BranchState::Compensated | BranchState::Aborted),
            ) => {
                common.settle(step);
                self.progress(common, now, out);
            }
            (State::Compensating(_), Verb::Abort, Reply::Done(_))
                if mutated(Mutation::SagaAbortedWithTwoPhaseCommand) =>
            {
                common.settle(step);
                self.progress(common, now, out);
            }
            (State::Compensating(_), _, Reply::Violation(_)) if mutated(Mutation::SagaAbortedWithTwoPhaseCommand) => {
                common.settle(step);
                self.progress(common, now, out);
            }
            // The compensations have not begun, and no execution is sent again.
            (State::Compensating(_), Verb::Execute, _) => {}
            (State::Compensating(_), _, Reply::Done(state) | Reply::Violation(state)) => {
                common.violated((step, verb), state, now, out);
            }
            (State::Over | State::Relinquished, ..) => {}
            // An unknown, or an answer that doesn't belong to the question.
            _ => common.retry_later(step, now, entropy),
        }
    }

    fn decide(&mut self, decision: Decision, out: &mut Vec<Effect>) {
        out.push(Effect::Decide(decision.clone()));
        self.state = State::Deciding { decision, retry: None, attempts: 1 };
    }

    /// The log holds a decision: ours, or the one that was there before.
    fn settle(&mut self, common: &mut Common, decision: Decision, now: Timestamp, out: &mut Vec<Effect>) {
        // Whoever was to tell that the decision is durable may have failed already: then it is asked for again.
        let decide_again = match &self.state {
            State::Deciding { retry, .. } => *retry,
            State::Committing { decide_again } => *decide_again,
            State::Compensating(compensating) => compensating.decide_again,
            _ => None,
        };
        if decision.is_commit() {
            self.state = State::Committing { decide_again };
            if mutated(Mutation::SagaAnswersBeforeDurable) {
                common.answer(Outcome::Committed, out);
            }
            return;
        }
        self.state = State::Compensating(Compensating {
            decision,
            durable: false,
            answer_by: None,
            decide_again,
            waiting: Vec::new(),
        });
        if self.is_irrevocable(common) {
            self.release(common, now, out);
        }
    }

    /// Whether no recovery can commit what is being aborted here. That of a backward saga aborts; that of a forward one executes
    /// again, and is stopped only by a durable refusal or by the durable decision.
    fn is_irrevocable(&self, common: &Common) -> bool {
        let durable = matches!(&self.state, State::Compensating(compensating) if compensating.durable);
        durable || !self.refused.is_empty() || common.transaction.recovery == Recovery::Backward
    }

    /// Begins to compensate, once.
    fn release(&mut self, common: &mut Common, now: Timestamp, out: &mut Vec<Effect>) {
        if !matches!(&self.state, State::Compensating(compensating) if compensating.answer_by.is_none()) {
            return;
        }
        let mut targets: Vec<u8> = common
            .transaction
            .positions()
            .filter(|step| !self.refused.contains(step) && (self.resumed || common.was_sent(*step)))
            .collect();
        if mutated(Mutation::CompensatesOnlyWhatIsKnown) && !self.resumed {
            targets.retain(|&step| common.deliveries.get(usize::from(step)).is_some_and(|delivery| delivery.settled));
        }
        for step in common.transaction.positions() {
            if !targets.contains(&step) {
                common.settle(step);
            }
        }
        let verb = if mutated(Mutation::SagaAbortedWithTwoPhaseCommand) { Verb::Abort } else { Verb::Compensate };
        match common.transaction.order {
            Order::Parallel => {
                for step in targets.drain(..).rev() {
                    common.send(step, verb, now, out);
                }
            }
            Order::Sequential => {
                // Not sent yet, and so not settled either: the delivery starts when its turn comes.
                for &step in &targets {
                    common.reset(step, verb);
                }
                if let Some(last) = targets.pop() {
                    common.send(last, verb, now, out);
                }
            }
        }
        if let State::Compensating(compensating) = &mut self.state {
            compensating.answer_by = Some(now.plus(common.pacing.release_wait));
            compensating.waiting = targets;
        }
        self.progress(common, now, out);
    }

    fn on_durable(&mut self, common: &mut Common, now: Timestamp, out: &mut Vec<Effect>) {
        match &mut self.state {
            State::Committing { .. } => {
                self.state = State::Over;
                common.answer(Outcome::Committed, out);
                out.push(Effect::Finish);
            }
            State::Compensating(compensating) => {
                compensating.durable = true;
                compensating.decide_again = None;
                self.release(common, now, out);
                self.progress(common, now, out);
            }
            _ => {}
        }
    }

    fn on_decide_unknown(&mut self, common: &Common, now: Timestamp, entropy: u64) {
        match &mut self.state {
            State::Deciding { retry, attempts, .. } => {
                *retry = Some(now.plus(common.pacing.backoff(*attempts, entropy)));
                *attempts = attempts.saturating_add(1);
            }
            State::Committing { decide_again } => {
                *decide_again = Some(now.plus(common.pacing.backoff(1, entropy)));
            }
            State::Compensating(compensating) if !compensating.durable => {
                compensating.decide_again = Some(now.plus(common.pacing.backoff(1, entropy)));
            }
            _ => {}
        }
    }

    fn on_wake(&mut self, common: &mut Common, now: Timestamp, out: &mut Vec<Effect>) {
        let backward = common.transaction.recovery == Recovery::Backward;
        match &mut self.state {
            State::Staging if now >= common.deadline => {
                self.decide(Decision::Abort(Cause::Unavailable { step: None }), out);
            }
            State::Executing if backward && now >= common.deadline => {
                mark("saga.deadline");
                let step = common.first_missing();
                self.decide(Decision::Abort(Cause::Unavailable { step }), out);
            }
            State::Executing => {
                if now >= common.deadline {
                    common.answer(Outcome::InDoubt, out);
                }
                common.resend_due(now, out);
            }
            State::Deciding { decision, retry, .. } => {
                if retry.is_some_and(|due| now >= due) {
                    *retry = None;
                    out.push(Effect::Decide(decision.clone()));
                }
            }
            State::Committing { decide_again } => {
                if decide_again.is_some_and(|due| now >= due) {
                    *decide_again = None;
                    out.push(Effect::Decide(Decision::Commit));
                }
            }
            State::Compensating(compensating) => {
                if compensating.decide_again.is_some_and(|due| now >= due) {
                    compensating.decide_again = None;
                    out.push(Effect::Decide(compensating.decision.clone()));
                }
                if compensating.answer_by.is_some() {
                    common.resend_due(now, out);
                }
                self.progress(common, now, out);
            }
            State::Staging | State::Relinquished | State::Over => {}
        }
    }

    /// Compensates the next, answers and finishes, as far as the acknowledgements allow.
    fn progress(&mut self, common: &mut Common, now: Timestamp, out: &mut Vec<Effect>) {
        let State::Compensating(compensating) = &mut self.state else { return };
        let Some(answer_by) = compensating.answer_by else { return };
        let none_in_flight = common.deliveries.iter().all(|delivery| delivery.settled || delivery.attempts == 0);
        if none_in_flight && let Some(step) = compensating.waiting.pop() {
            let verb = common.deliveries.get(usize::from(step)).map_or(Verb::Compensate, |delivery| delivery.verb);
            common.send(step, verb, now, out);
        }
        if common.all_settled() || now >= answer_by {
            common.answer(Outcome::from(&compensating.decision), out);
        }
        if common.all_settled() && compensating.durable {
            self.state = State::Over;
            out.push(Effect::Finish);
        }
    }

    pub(crate) fn next_wake(&self, common: &Common) -> Option<Timestamp> {
        let due = common.next_due();
        let earliest = |a: Option<Timestamp>, b: Option<Timestamp>| a.into_iter().chain(b).min();
        match &self.state {
            State::Staging => Some(common.deadline),
            State::Executing => {
                let deadline = Some(common.deadline).filter(|_| !common.answered);
                earliest(due, deadline)
            }
            State::Deciding { retry, .. } => *retry,
            State::Committing { decide_again } => *decide_again,
            State::Compensating(compensating) => {
                let answer_by = compensating.answer_by.filter(|_| !common.answered);
                let due = due.filter(|_| compensating.answer_by.is_some());
                earliest(earliest(due, compensating.decide_again), answer_by)
            }
            State::Relinquished | State::Over => None,
        }
    }

    pub(crate) fn is_over(&self) -> bool {
        matches!(self.state, State::Over)
    }

    pub(crate) fn state(&self) -> &'static str {
        match &self.state {
            State::Staging => "staging",
            State::Executing => "executing",
            State::Deciding { .. } => "deciding",
            State::Committing { .. } => "committing",
            State::Compensating(_) => "compensating",
            State::Relinquished => "relinquished",
            State::Over => "over",
        }
    }
}
