//! Two-phase commit in one durable round.
//!
//! | state            | event                                         | becomes              | effects                               |
//! |------------------|-----------------------------------------------|----------------------|---------------------------------------|
//! | (begin)          |                                               | Voting               | stage; prepare to all                 |
//! | Voting           | stage durable / yes, others missing           | Voting               |                                       |
//! | Voting           | stage durable and every vote yes              | Deciding(Commit)     | decide Commit                         |
//! | Voting           | a no                                          | Deciding(Abort) *    | decide Abort                          |
//! | Voting           | deadline, or the stage unknown                | Deciding(Abort)      | decide Abort                          |
//! | Voting           | stage refused                                 | Withdrawing          | abort to all                          |
//! | Voting           | fenced                                        | Relinquished         | relinquish                            |
//! | (resume)         | staged, undecided                             | Inquiring            | inquire of all                        |
//! | Inquiring        | every branch prepared                         | Deciding(Commit)     | decide Commit                         |
//! | Inquiring        | one aborted                                   | Deciding(Abort) *    | decide Abort                          |
//! | Deciding         | decided Commit                                | Settling(Commit)     | answer                                |
//! | Deciding         | decided Abort                                 | Settling(Abort)      | if *: abort to all                    |
//! | Deciding         | fenced                                        | Relinquished         | relinquish                            |
//! | Settling, not durable | the contrary was decided (ours was lost)  | Settling(contrary)   | as if decided so at first             |
//! | Settling, not durable | fenced                                   | Relinquished         | relinquish                            |
//! | Settling(Commit) | decision durable                              | Settling(Commit)     | commit to all                         |
//! | Settling(Abort)  | decision durable                              | Settling(Abort) *    | abort to all, unless sent             |
//! | Settling(Abort) *| all acknowledged, or waited long enough       | Settling(Abort) *    | answer                                |
//! | Settling         | all acknowledged, and decision durable        | Over                 | finish                                |
//! | Withdrawing      | all acknowledged, or waited long enough       | Over                 | answer; participants ask for the rest |
//!
//! `*`: the abort is *irrevocable*: recovery could find nothing else, since a participant durably refused or the decision is
//! durable. Only then may anyone hear of it. A commit is irrevocable the moment the stage and every vote are durable.
//!
//! Presumed abort after Mohan, Lindsay and Obermarck (1986); the implicit commit after CockroachDB's parallel commits (2019).

use crate::coordinator::{Common, Effect, Event};
use crate::ids::Timestamp;
use crate::log::StageRefusal;
use crate::message::{BranchState, Reply, Verb};
use crate::recovery::Resume;
use crate::simulation::{Mutation, mark, mutated};
use crate::transaction::{Cause, Decision, Outcome};

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum State {
    Voting { staged: bool },
    Inquiring,
    Withdrawing { refusal: Outcome, answer_by: Timestamp },
    Deciding { decision: Decision, irrevocable: bool, retry: Option<Timestamp>, attempts: u32 },
    Settling(Settling),
    Relinquished,
    Over,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Settling {
    decision: Decision,
    durable: bool,
    /// Recovery could find no other decision.
    irrevocable: bool,
    /// When the answer stops waiting for the releases; `None` until they are sent.
    answer_by: Option<Timestamp>,
    /// When to ask the log again, after an unknown flush.
    decide_again: Option<Timestamp>,
}

impl Settling {
    /// Whether the decision is on its way to the participants.
    fn delivers(&self) -> bool {
        self.durable || self.answer_by.is_some()
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct TwoPhase {
    state: State,
}

impl TwoPhase {
    pub(crate) fn begin(common: &mut Common, now: Timestamp, out: &mut Vec<Effect>) -> Self {
        out.push(Effect::Stage);
        common.send_all(Verb::Prepare, now, out);
        Self { state: State::Voting { staged: mutated(Mutation::CommitBeforeStageIsDurable) } }
    }

    pub(crate) fn resume(common: &mut Common, plan: &Resume, now: Timestamp, out: &mut Vec<Effect>) -> Self {
        match plan {
            Resume::Settle(decision) => {
                mark("two_phase.resume_decided");
                let mut machine = Self { state: State::Over };
                machine.settle(common, decision.clone(), true, now, out);
                machine.on_durable(common, now, out);
                machine
            }
            Resume::Inquire | Resume::Abort | Resume::Execute => {
                mark("two_phase.resume_in_doubt");
                common.send_all(Verb::Inquire, now, out);
                Self { state: State::Inquiring }
            }
        }
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
                if let State::Voting { staged } = &mut self.state {
                    *staged = true;
                    self.count_votes(common, out);
                }
            }
            Event::Staged(Err(refusal)) => self.on_stage_refused(common, refusal, now, out),
            Event::StageUnknown => {
                if matches!(self.state, State::Voting { .. }) {
                    mark("two_phase.stage_unknown");
                    self.decide(Decision::Abort(Cause::Unavailable { step: None }), false, out);
                }
            }
            Event::Replied { step, verb, reply } => self.on_reply(common, (step, verb), reply, now, entropy, out),
            Event::Decided(decision) => match &self.state {
                State::Deciding { decision: ours, irrevocable, .. } => {
                    // What makes our decision irrevocable says nothing about another's.
                    let irrevocable = *irrevocable && ours.agrees(&decision);
                    self.settle(common, decision, irrevocable, now, out);
                }
                // A crash of the log took back what was readable only, and another owner has decided since.
                State::Settling(settling) if !settling.durable && !settling.decision.agrees(&decision) => {
                    mark("two_phase.overruled");
                    self.settle(common, decision, false, now, out);
                }
                _ => {}
            },
            Event::NotStaged => {
                if let State::Deciding { decision: Decision::Commit, .. } = self.state {
                    mark("two_phase.stage_lost");
                    self.decide(Decision::Abort(Cause::NeverStaged), false, out);
                }
            }
            Event::Fenced => {
                let settled = matches!(&self.state, State::Settling(settling) if !settling.durable);
                if settled || matches!(self.state, State::Voting { .. } | State::Deciding { .. }) {
                    mark("two_phase.fenced");
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
                if matches!(self.state, State::Settling(_)) {
                    common.settle(step);
                    self.progress(common, now, out);
                }
            }
        }
    }

    fn on_stage_refused(&mut self, common: &mut Common, refusal: StageRefusal, now: Timestamp, out: &mut Vec<Effect>) {
        if !matches!(self.state, State::Voting { .. }) {
            return;
        }
        mark("two_phase.stage_refused");
        // Nothing is in the log, nor ever will be: no recovery can commit this, so the aborts may go at once.
        let refusal = match refusal {
            StageRefusal::Application(refusal) => Outcome::Conflict(refusal),
            StageRefusal::Fenced | StageRefusal::Expired | StageRefusal::Decided | StageRefusal::NotSent => {
                Outcome::RolledBack { step: None }
            }
        };
        common.send_all(Verb::Abort, now, out);
        self.state = State::Withdrawing { refusal, answer_by: now.plus(common.pacing.release_wait) };
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
            (State::Voting { .. }, Verb::Prepare, Reply::Done(BranchState::Prepared | BranchState::Committed)) => {
                common.settle(step);
                self.count_votes(common, out);
            }
            (State::Voting { .. }, Verb::Prepare, Reply::Refused(refusal)) if !refusal.is_expiry() => {
                mark("two_phase.refused");
                common.settle(step);
                self.decide(Decision::Abort(Cause::Refused { step, refusal: Box::new(refusal) }), true, out);
            }
            (State::Voting { .. }, Verb::Prepare, Reply::Unknown(_)) if mutated(Mutation::UnknownVoteIsYes) => {
                common.settle(step);
                self.count_votes(common, out);
            }
            (State::Voting { .. }, Verb::Prepare, Reply::Unknown(_)) if mutated(Mutation::UnknownIsNo) => {
                self.decide(Decision::Abort(Cause::Unavailable { step: Some(step) }), true, out);
                common.settle(step);
            }
            (State::Inquiring, Verb::Inquire, Reply::Done(BranchState::Prepared | BranchState::Committed)) => {
                common.settle(step);
                if common.all_settled() {
                    mark("two_phase.inquiry_commits");
                    self.decide(Decision::Commit, true, out);
                }
            }
            (State::Inquiring, Verb::Inquire, Reply::Done(BranchState::Aborted | BranchState::Compensated)) => {
                mark("two_phase.inquiry_aborts");
                self.decide(Decision::Abort(Cause::Recovered), true, out);
            }
            (State::Inquiring, Verb::Inquire, Reply::Unknown(_)) if mutated(Mutation::RecoveryGuesses) => {
                common.settle(step);
                if common.all_settled() {
                    self.decide(Decision::Commit, true, out);
                }
            }
            (State::Inquiring, Verb::Inquire, Reply::Done(BranchState::Executed)) => {
                common.violated((step, verb), BranchState::Executed, now, out);
            }
            (State::Settling(settling), Verb::Commit | Verb::Abort, Reply::Done(state)) => {
                let wanted = if settling.decision.is_commit() { BranchState::Committed } else { BranchState::Aborted };
                let undone = !settling.decision.is_commit() && state == BranchState::Compensated;
                if state == wanted || undone {
                    common.settle(step);
                    self.progress(common, now, out);
                } else {
                    common.violated((step, verb), state, now, out);
                }
            }
            (State::Withdrawing { .. }, Verb::Abort, Reply::Done(_)) => {
                common.settle(step);
                self.progress(common, now, out);
            }
            (State::Settling(_) | State::Withdrawing { .. } | State::Inquiring, _, Reply::Violation(state)) => {
                common.violated((step, verb), state, now, out);
            }
            (State::Voting { .. }, Verb::Prepare, Reply::Violation(state)) => {
                // Not a vote: the deadline will abort. A person must look all the same.
                out.push(Effect::Alarm { step, verb, state });
                common.retry_later(step, now, entropy);
            }
            (State::Over | State::Relinquished, ..) => {}
            // An unknown, an expired branch, or an answer that doesn't belong to the question.
            _ => common.retry_later(step, now, entropy),
        }
    }

    fn count_votes(&mut self, common: &Common, out: &mut Vec<Effect>) {
        if matches!(self.state, State::Voting { staged: true }) && common.all_settled() {
            self.decide(Decision::Commit, true, out);
        }
    }

    fn decide(&mut self, decision: Decision, irrevocable: bool, out: &mut Vec<Effect>) {
        out.push(Effect::Decide(decision.clone()));
        self.state = State::Deciding { decision, irrevocable, retry: None, attempts: 1 };
    }

    /// The log holds a decision: ours, or the one that another owner or a tombstone put there first.
    fn settle(
        &mut self,
        common: &mut Common,
        decision: Decision,
        irrevocable: bool,
        now: Timestamp,
        out: &mut Vec<Effect>,
    ) {
        let commit = decision.is_commit();
        let irrevocable = irrevocable || mutated(Mutation::AbortBeforeIrrevocable);
        if commit {
            common.answer(Outcome::Committed, out);
        }
        // Whoever was to tell that the decision is durable may have failed already: then it is asked for again.
        let decide_again = match &self.state {
            State::Deciding { retry, .. } => *retry,
            State::Settling(settling) => settling.decide_again,
            _ => None,
        };
        self.state = State::Settling(Settling { decision, durable: false, irrevocable, answer_by: None, decide_again });
        if irrevocable && !commit {
            self.release(common, now, out);
        }
    }

    /// Sends the aborts, once, and sets the time up to which the answer waits for them.
    fn release(&mut self, common: &mut Common, now: Timestamp, out: &mut Vec<Effect>) {
        let release_wait = common.pacing.release_wait;
        if let State::Settling(settling) = &mut self.state
            && settling.answer_by.is_none()
        {
            settling.answer_by = Some(now.plus(release_wait));
            if mutated(Mutation::UnknownIsNo) {
                for step in common.transaction.positions() {
                    if common.deliveries.get(usize::from(step)).is_some_and(|delivery| delivery.settled) {
                        common.send(step, Verb::Abort, now, out);
                    }
                }
            } else {
                common.send_all(Verb::Abort, now, out);
            }
        }
    }

    fn on_durable(&mut self, common: &mut Common, now: Timestamp, out: &mut Vec<Effect>) {
        let State::Settling(settling) = &mut self.state else { return };
        if settling.durable {
            return;
        }
        settling.durable = true;
        settling.irrevocable = true;
        settling.decide_again = None;
        if settling.decision.is_commit() {
            common.send_all(Verb::Commit, now, out);
        } else {
            self.release(common, now, out);
        }
        self.progress(common, now, out);
    }

    fn on_decide_unknown(&mut self, common: &Common, now: Timestamp, entropy: u64) {
        match &mut self.state {
            State::Deciding { retry, attempts, .. } => {
                *retry = Some(now.plus(common.pacing.backoff(*attempts, entropy)));
                *attempts = attempts.saturating_add(1);
            }
            State::Settling(settling) if !settling.durable => {
                settling.decide_again = Some(now.plus(common.pacing.backoff(1, entropy)));
            }
            _ => {}
        }
    }

    fn on_wake(&mut self, common: &mut Common, now: Timestamp, out: &mut Vec<Effect>) {
        match &mut self.state {
            State::Voting { .. } if now >= common.deadline => {
                mark("two_phase.deadline");
                let step = common.first_missing();
                self.decide(Decision::Abort(Cause::Unavailable { step }), false, out);
            }
            State::Deciding { decision, retry, .. } => {
                if retry.is_some_and(|due| now >= due) {
                    *retry = None;
                    out.push(Effect::Decide(decision.clone()));
                }
            }
            State::Voting { .. } | State::Inquiring => common.resend_due(now, out),
            State::Settling(settling) => {
                if settling.decide_again.is_some_and(|due| now >= due) {
                    settling.decide_again = None;
                    out.push(Effect::Decide(settling.decision.clone()));
                }
                // Until then it is the prepares that are due, and nobody needs those any more.
                if settling.delivers() {
                    common.resend_due(now, out);
                }
                self.progress(common, now, out);
            }
            State::Withdrawing { .. } => {
                common.resend_due(now, out);
                self.progress(common, now, out);
            }
            State::Relinquished | State::Over => {}
        }
    }

    /// Answers and finishes as far as the acknowledgements allow.
    fn progress(&mut self, common: &mut Common, now: Timestamp, out: &mut Vec<Effect>) {
        match &self.state {
            State::Settling(settling) => {
                let waited = settling.answer_by.is_some_and(|by| now >= by);
                let released = settling.answer_by.is_some() && common.all_settled();
                if !settling.decision.is_commit() && settling.irrevocable && (released || waited) {
                    common.answer(Outcome::from(&settling.decision), out);
                }
                if settling.durable && common.all_settled() {
                    self.state = State::Over;
                    out.push(Effect::Finish);
                }
            }
            State::Withdrawing { refusal, answer_by } if common.all_settled() || now >= *answer_by => {
                // What was not reached asks the log, which knows nothing, and is released.
                common.answer(refusal.clone(), out);
                self.state = State::Over;
            }
            _ => {}
        }
    }

    pub(crate) fn next_wake(&self, common: &Common) -> Option<Timestamp> {
        let due = common.next_due();
        let earliest = |a: Option<Timestamp>, b: Option<Timestamp>| a.into_iter().chain(b).min();
        match &self.state {
            State::Voting { .. } => earliest(due, Some(common.deadline)),
            State::Inquiring => due,
            State::Deciding { retry, .. } => *retry,
            State::Settling(settling) => {
                let answer_by = settling.answer_by.filter(|_| !common.answered);
                let due = due.filter(|_| settling.delivers());
                earliest(earliest(due, settling.decide_again), answer_by)
            }
            State::Withdrawing { answer_by, .. } => earliest(due, Some(*answer_by)),
            State::Relinquished | State::Over => None,
        }
    }

    pub(crate) fn is_over(&self) -> bool {
        matches!(self.state, State::Over)
    }

    pub(crate) fn state(&self) -> &'static str {
        match &self.state {
            State::Voting { .. } => "voting",
            State::Inquiring => "inquiring",
            State::Withdrawing { .. } => "withdrawing",
            State::Deciding { .. } => "deciding",
            State::Settling(settling) if settling.decision.is_commit() => "committing",
            State::Settling(_) => "aborting",
            State::Relinquished => "relinquished",
            State::Over => "over",
        }
    }
}
