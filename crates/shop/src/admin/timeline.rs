//! One transaction as everything that is known to have happened, in its order: what the log says, what whoever drives it says, and what operators did.
//!
//! The log keeps what decides, and when: the stage, the decision, dead letters, resolutions, the end; and through whose hands it went. It keeps no single vote
//! or acknowledgement; they follow from these (a commit was voted for by everybody, a finished transaction was acknowledged by everybody) and have no time of
//! their own. What took one attempt it does not keep, either: that has its place right behind what was asked for, and what took more, or may have, at the end
//! of it.

use std::collections::BTreeMap;

use protocol::log::{Record, Resolution, Tries};
use protocol::{Cause, Decision, Name, Order, Protocol, Sending, Step, Timestamp, Transaction, Verb};
use serde::{Deserialize, Serialize};

use super::TransactionView;
use crate::checkout::{asked, why_refused};
use crate::trail::{Act, Entry};

/// What happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum What {
    /// It was put into the log.
    Staged,
    /// A participant agreed: it holds, or has done, its part.
    Agreed,
    /// A participant refused.
    Refused,
    /// A participant, or the log, did not answer in time.
    Unanswered,
    /// A participant has been asked, and has not answered yet.
    Waiting,
    /// All or nothing: it was decided.
    Decided,
    /// Another instance took it over, because nothing was heard of the one that had it.
    TakenOver,
    /// Its instance, which had ended, took it up again when it started again.
    Resumed,
    /// A participant would not acknowledge that, so often that a person should look.
    DeadLetter,
    /// An operator had it tried again.
    Retried,
    /// An operator had a step counted as acknowledged.
    Resolved,
    /// A participant has acknowledged the decision.
    Acknowledged,
    /// Nothing is left to do.
    Finished,
    /// What a later program tells, and this one does not know.
    #[serde(other)]
    Other,
}

/// Something that happened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Happening {
    /// When; `None` if nobody wrote that down.
    pub at: Option<Timestamp>,
    /// What.
    pub what: What,
    /// At which service.
    pub service: Option<String>,
    /// To which step.
    pub step: Option<u8>,
    /// In which attempt; `None`: the first, as far as anybody told the log.
    pub attempt: Option<u32>,
    /// When it is tried again, of what is waited for.
    #[serde(default)]
    pub next: Option<Timestamp>,
    /// Who: an instance, or an operator.
    pub by: Option<String>,
    /// More, for people.
    pub detail: Option<String>,
}

/// A vote that took more than one attempt, of a transaction that is decided: whoever drives it tells it behind what is on its way.
fn vote_of(sending: &Sending) -> Option<Tries> {
    let Sending { step, verb, attempts, settled, failure, .. } = *sending;
    let tried = VOTES.contains(&verb) && attempts > 1;
    tried.then_some(Tries { step, verb, attempts, answered: settled, why: failure? })
}

/// What is answered with a vote.
const VOTES: [Verb; 3] = [Verb::Prepare, Verb::Execute, Verb::Inquire];

/// What is answered with an acknowledgement.
const SETTLING: [Verb; 3] = [Verb::Commit, Verb::Abort, Verb::Compensate];

struct Story<'a> {
    record: &'a Record,
    transaction: Option<&'a Transaction>,
    tries: Vec<Tries>,
    /// Who counted them, if it had the transaction from somebody else.
    counted_by: Option<Name>,
    told: Vec<(Timestamp, Happening)>,
}

impl Story<'_> {
    /// Adds what happened `at`, if anybody wrote down when; it has its place among what happened at `place`.
    fn tell(&mut self, what: What, at: Option<Timestamp>, place: Timestamp) -> &mut Happening {
        let happening =
            Happening { at, what, service: None, step: None, attempt: None, next: None, by: None, detail: None };
        self.told.push((place, happening));
        &mut self.told.last_mut().expect("one was pushed just now").1
    }

    fn at_step(&mut self, what: What, step: u8, at: Option<Timestamp>, place: Timestamp) -> &mut Happening {
        let service = self.service(step).map(|service| service.to_string());
        let happening = self.tell(what, at, place);
        (happening.service, happening.step) = (service, Some(step));
        happening
    }

    /// A vote or an acknowledgement, with the attempts that the `verb`s took.
    fn answer(&mut self, what: What, step: u8, place: Timestamp, verbs: &[Verb]) -> &mut Happening {
        let tried = self.tries.iter().rfind(|it| it.step == step && verbs.contains(&it.verb)).cloned();
        let counted_by = self.counted_by;
        let happening = self.at_step(what, step, None, place);
        if let Some(Tries { attempts, answered, why, .. }) = tried {
            happening.attempt = Some(attempts);
            let which = if answered { "an attempt before" } else { "the last" };
            let counted = counted_by.map(|name| format!(", as {name} counted")).unwrap_or_default();
            happening.detail = Some(format!("{which}{counted}: {why}"));
        }
        happening
    }

    /// Whether whatever of `verbs` a step was sent was answered at the first attempt, as far as can be known; of a decision, or of what came before.
    fn is_at_once(&self, step: u8, decided: bool, verbs: &[Verb]) -> bool {
        let is_in_turn = |it: &Transaction| it.protocol == Protocol::Saga && it.order == Order::Sequential;
        // Whoever took it over asked again, and a step whose turn came late was asked late.
        let may_have_waited = self.record.handovers().iter().any(|it| it.decided == decided)
            || self.transaction.is_some_and(is_in_turn)
            || self.tries.iter().any(|it| it.step == step && verbs.contains(&it.verb))
            || decided && self.record.letters.iter().any(|it| it.step == step);
        !may_have_waited
    }

    /// The place of a vote: right behind the stage, if it came at once.
    fn place_of_vote(&self, step: u8, born: Timestamp, otherwise: Timestamp) -> Timestamp {
        if self.is_at_once(step, false, &VOTES) { born.min(otherwise) } else { otherwise }
    }

    /// The place of an acknowledgement: right behind the decision, if it came at once.
    fn place_of_acknowledgement(&self, step: u8, otherwise: Timestamp) -> Timestamp {
        let decided = self.record.decided.as_ref().map(|(_, at)| *at);
        decided.filter(|_| self.is_at_once(step, true, &SETTLING)).unwrap_or(otherwise)
    }

    fn service(&self, step: u8) -> Option<Name> {
        self.transaction.and_then(|it| it.steps.get(usize::from(step))).map(|step| step.service)
    }

    fn steps(&self) -> std::ops::Range<u8> {
        self.transaction.map_or(0..0, Transaction::positions)
    }
}

/// Tells it, the earliest first; the latest entry of the `trail` comes first.
pub fn tell(view: &TransactionView, trail: &[Entry]) -> Vec<Happening> {
    let record = &view.record;
    let born = view.id.birth();
    let mut story = Story {
        record,
        transaction: record.transaction.as_deref(),
        tries: record.tries().iter().cloned().chain(view.sendings.iter().filter_map(vote_of)).collect(),
        counted_by: record.owner.filter(|_| record.handovers().iter().any(|it| it.from != it.to)),
        told: Vec::new(),
    };
    if let Some(transaction) = story.transaction {
        let parts: Vec<String> = transaction.steps.iter().map(part).collect();
        let detail = format!("{} of {}", protocol_of(transaction), parts.join(", "));
        let staged = story.tell(What::Staged, Some(born), born);
        (staged.by, staged.detail) = (text(record.staged_by()), Some(detail));
    }
    handovers(&mut story, record, false);
    match &record.decided {
        Some((decision, at)) => {
            votes(&mut story, decision, born, *at);
            let decided = story.tell(What::Decided, Some(*at), *at);
            decided.by = text(record.decided_by());
            decided.detail = Some(if decision.is_commit() { "commit" } else { "abort" }.to_owned());
        }
        // What is going on now stands behind everything that was.
        None => sendings(&mut story, &view.sendings, born, What::Agreed),
    }
    handovers(&mut story, record, true);
    for letter in record.letters.iter() {
        let dead = story.at_step(What::DeadLetter, letter.step, Some(letter.at), letter.at);
        dead.attempt = Some(letter.attempts);
        dead.detail = Some(format!("{} was not acknowledged: {}", letter.verb, letter.error));
    }
    operators(&mut story, view, trail);
    match (&record.decided, record.finished) {
        (Some((decision, _)), Some(at)) => {
            acknowledgements(&mut story, decision, &record.resolutions, at);
            story.tell(What::Finished, Some(at), at).by = text(record.owner);
        }
        (Some(_), None) => sendings(&mut story, &view.sendings, born, What::Acknowledged),
        (None, _) => {}
    }
    // What happened in the same millisecond stays in the order in which it can only have happened.
    story.told.sort_by_key(|(at, _)| *at);
    story.told.into_iter().map(|(_, happening)| happening).collect()
}

fn text(name: Option<Name>) -> Option<String> {
    name.map(|name| name.to_string())
}

/// Who took it over from whom, or took up its own again, before it was decided or since.
fn handovers(story: &mut Story<'_>, record: &Record, decided: bool) {
    let hands = record.handovers();
    for (at, handover) in hands.iter().enumerate().filter(|(_, handover)| handover.decided == decided) {
        // The log knows which came first, whatever the clocks of two machines say.
        let place = match &record.decided {
            Some((_, at)) if decided => handover.at.max(*at),
            Some((_, at)) => handover.at.min(*at),
            None => handover.at,
        };
        let again = handover.from == handover.to;
        let taken = story.tell(if again { What::Resumed } else { What::TakenOver }, Some(handover.at), place);
        taken.by = text(Some(handover.to));
        let why = match again {
            true => "it had ended, and started again".to_owned(),
            false => format!("{} had it, and its lease had lapsed", handover.from),
        };
        let last = at + 1 == hands.len() && record.has_nameless_owners();
        taken.detail = Some(if last { format!("{why}; others may have had it before that") } else { why });
    }
}

fn protocol_of(transaction: &Transaction) -> &'static str {
    match transaction.protocol {
        Protocol::TwoPhase => "two-phase commit",
        Protocol::Saga => "saga",
    }
}

/// A step: its service, and what that is asked for, as long as the log keeps it.
fn part(step: &Step) -> String {
    match asked(step) {
        Some(asked) => format!("{} ({asked})", step.service),
        None => step.service.to_string(),
    }
}

/// What a decision says of the votes before it.
fn votes(story: &mut Story<'_>, decision: &Decision, born: Timestamp, at: Timestamp) {
    let told = |story: &mut Story<'_>, what: What, step: u8| {
        story.answer(what, step, at, &VOTES);
    };
    match decision {
        Decision::Commit => story.steps().for_each(|step| {
            let place = story.place_of_vote(step, born, at);
            story.answer(What::Agreed, step, place, &VOTES);
        }),
        Decision::Abort(Cause::Refused { step, refusal }) => {
            others(story, Some(*step), at);
            let service = story.service(*step);
            story.answer(What::Refused, *step, at, &VOTES).detail = Some(why_refused(service, refusal));
        }
        Decision::Abort(Cause::Unavailable { step: Some(step) }) => {
            others(story, Some(*step), at);
            told(story, What::Unanswered, *step);
        }
        Decision::Abort(Cause::Unavailable { step: None }) => {
            others(story, None, at);
            story.tell(What::Unanswered, None, at).detail = Some("the log did not answer in time".to_owned());
        }
        Decision::Abort(Cause::Recovered) => {
            others(story, None, at);
            let why = "recovery found it undecided after a crash".to_owned();
            story.tell(What::Unanswered, None, at).detail = Some(why);
        }
        Decision::Abort(Cause::NeverStaged) => {
            let why = "a participant asked about it before it was staged: it never will be".to_owned();
            story.tell(What::Unanswered, None, at).detail = Some(why);
        }
    }
}

/// What was asked of the others more than once, beside the one that made it an abort, if one did.
fn others(story: &mut Story<'_>, but: Option<u8>, at: Timestamp) {
    let tried: Vec<_> = story.tries.iter().filter(|it| Some(it.step) != but && VOTES.contains(&it.verb)).collect();
    let told: BTreeMap<u8, bool> = tried.into_iter().map(|it| (it.step, it.answered)).collect();
    for (step, answered) in told {
        story.answer(if answered { What::Agreed } else { What::Unanswered }, step, at, &VOTES);
    }
}

/// What operators did, in the order of their trail: two deeds of one millisecond have no other.
fn operators(story: &mut Story<'_>, view: &TransactionView, trail: &[Entry]) {
    let mut untold: Vec<&Resolution> = view.record.resolutions.iter().collect();
    for Entry { note, outcome, .. } in trail.iter().rev().filter(|entry| entry.note.transaction == view.id) {
        match note.act {
            Act::Retry => {
                let retried = story.tell(What::Retried, Some(note.at), note.at);
                retried.by = Some(note.operator.to_string());
                retried.detail = outcome.as_deref().map(str::to_owned);
            }
            Act::Resolve => {
                let of_note = |it: &&Resolution| note.step == Some(it.step) && note.reason.as_ref() == Some(&it.reason);
                if let Some(found) = untold.iter().position(of_note) {
                    resolved(story, untold.remove(found));
                }
            }
        }
    }
    // The trail keeps only the latest entries; the log keeps every resolution of a transaction.
    untold.into_iter().for_each(|resolution| resolved(story, resolution));
}

fn resolved(story: &mut Story<'_>, resolution: &Resolution) {
    let resolved = story.at_step(What::Resolved, resolution.step, Some(resolution.at), resolution.at);
    resolved.by = Some(resolution.operator.to_string());
    resolved.detail = Some(resolution.reason.to_string());
}

/// How far each participant is, as whoever drives the transaction says.
fn sendings(story: &mut Story<'_>, sendings: &[Sending], born: Timestamp, done: What) {
    let last = Timestamp(u64::MAX);
    for Sending { step, verb, attempts, next, settled, failure } in sendings {
        // Until a decision is sent, what is remembered is the vote.
        if (*attempts == 0 && !settled) || VOTES.contains(verb) == (done == What::Acknowledged) {
            continue;
        }
        // What an operator settled is told as that.
        if *settled && done == What::Acknowledged && story.record.resolutions.iter().any(|it| it.step == *step) {
            continue;
        }
        let what = if *settled { done } else { What::Waiting };
        let place = match done {
            _ if !settled || *attempts > 1 => last,
            What::Acknowledged => story.place_of_acknowledgement(*step, last),
            _ => story.place_of_vote(*step, born, last),
        };
        let happening = story.at_step(what, *step, None, place);
        // Whoever answered at once is no news.
        happening.attempt = Some(*attempts).filter(|attempts| *attempts > 1 || !settled);
        if !settled {
            let failure = failure.map(|why| format!("; the last attempt: {why}")).unwrap_or_default();
            happening.detail = Some(format!("{verb}{failure}"));
            happening.next = *next;
        }
    }
}

/// What the end of a transaction says of the acknowledgements before it, and of what became of each branch.
fn acknowledgements(story: &mut Story<'_>, decision: &Decision, resolutions: &[Resolution], at: Timestamp) {
    let saga = story.transaction.is_some_and(|transaction| transaction.protocol == Protocol::Saga);
    if saga && decision.is_commit() {
        return;
    }
    let refused = match decision {
        Decision::Abort(Cause::Refused { step, .. }) => Some(*step),
        _ => None,
    };
    let resolved = |step: u8| resolutions.iter().any(|done| done.step == step);
    for step in story.steps().filter(|step| !resolved(*step)) {
        let fate = match (decision, refused == Some(step)) {
            (Decision::Commit, _) => "commit: what it held is taken for good",
            // Nothing was done there, and a saga does not ask to have that undone.
            (_, true) if saga => continue,
            (_, true) => "abort: it held nothing",
            _ if saga => "compensate: if it had done its part, that is undone",
            _ => "abort: if it held anything, that is released",
        };
        let place = story.place_of_acknowledgement(step, at);
        let acknowledged = story.answer(What::Acknowledged, step, place, &SETTLING);
        let tried = acknowledged.detail.take().map(|tried| format!("; {tried}")).unwrap_or_default();
        acknowledged.detail = Some(format!("{fate}{tried}"));
    }
}

#[cfg(test)]
mod tests;
