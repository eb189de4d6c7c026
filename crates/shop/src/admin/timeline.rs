//! One transaction as everything that is known to have happened, in its order: what the log says, what whoever drives it says, and what operators did.
//!
//! The log keeps what decides, and when: the stage, the decision, dead letters, resolutions, the end; and through whose hands it went. It keeps no single vote
//! or acknowledgement; they follow from these (a commit was voted for by everybody, a finished transaction was acknowledged by everybody) and have no time of
//! their own. What took one attempt it does not keep, either.

use std::collections::BTreeMap;

use protocol::log::{Record, Resolution, Tries};
use protocol::{Cause, Decision, Name, Protocol, Sending, Step, Timestamp, Transaction, Verb};
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

struct Story<'a> {
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
            votes(&mut story, decision, *at);
            let decided = story.tell(What::Decided, Some(*at), *at);
            decided.by = text(record.decided_by());
            decided.detail = Some(if decision.is_commit() { "commit" } else { "abort" }.to_owned());
        }
        // What is going on now stands behind everything that was.
        None => sendings(&mut story, &view.sendings, Timestamp(u64::MAX), What::Agreed),
    }
    handovers(&mut story, record, true);
    for letter in &record.letters {
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
        (Some(_), None) => sendings(&mut story, &view.sendings, Timestamp(u64::MAX), What::Acknowledged),
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
fn votes(story: &mut Story<'_>, decision: &Decision, at: Timestamp) {
    let told = |story: &mut Story<'_>, what: What, step: u8| {
        story.answer(what, step, at, &VOTES);
    };
    match decision {
        Decision::Commit => story.steps().for_each(|step| told(story, What::Agreed, step)),
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
fn sendings(story: &mut Story<'_>, sendings: &[Sending], not_before: Timestamp, done: What) {
    for Sending { step, verb, attempts, next, settled, failure } in sendings {
        // Until a decision is sent, what is remembered is the vote.
        if (*attempts == 0 && !settled) || VOTES.contains(verb) == (done == What::Acknowledged) {
            continue;
        }
        let what = if *settled { done } else { What::Waiting };
        let happening = story.at_step(what, *step, None, not_before);
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
        let acknowledged = story.answer(What::Acknowledged, step, at, &[Verb::Commit, Verb::Abort, Verb::Compensate]);
        let tried = acknowledged.detail.take().map(|tried| format!("; {tried}")).unwrap_or_default();
        acknowledged.detail = Some(format!("{fate}{tried}"));
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use ledger::{EntityId, Entry as Amount};
    use protocol::log::{DeadLetter, Handover, History, Record};
    use protocol::{Order, Payload, Recovery, Refusal, TransactionId, Unknown};

    use super::*;
    use crate::checkout::{CHECKOUT, PAYMENT, STOCK};
    use crate::trail::Note;

    fn view(protocol: Protocol) -> TransactionView {
        let id = TransactionId::new(Timestamp(1_000), [7; 16]);
        let step = |service| Step { service, payload: Payload::EMPTY };
        let transaction = Transaction {
            id,
            definition: CHECKOUT,
            protocol,
            order: Order::Parallel,
            recovery: Recovery::Backward,
            steps: vec![step(STOCK), step(PAYMENT)],
            context: Payload::EMPTY,
        };
        let record = Record {
            transaction: Some(Arc::new(transaction)),
            owner: Some(Name::literal("order-2")),
            decided: None,
            finished: None,
            letters: vec![],
            resolutions: vec![],
            history: None,
        };
        TransactionView::undriven(id, record)
    }

    /// Each happening as `at what service attempt by`, with what is not known left out.
    fn told(view: &TransactionView, trail: &[Entry]) -> Vec<String> {
        let line = |it: Happening| {
            let at = it.at.map(|at| at.0.to_string());
            let what = serde_json::to_value(it.what).unwrap().as_str().map(str::to_owned);
            let attempt = it.attempt.map(|attempt| format!("#{attempt}"));
            [at, what, it.service, attempt, it.by].into_iter().flatten().collect::<Vec<_>>().join(" ")
        };
        tell(view, trail).into_iter().map(line).collect()
    }

    #[test]
    fn a_commit_that_got_stuck_and_was_helped() {
        let mut view = view(Protocol::TwoPhase);
        view.record.decided = Some((Decision::Commit, Timestamp(1_010)));
        let (verb, error) = (Verb::Commit, "its store failed".into());
        view.record.letters.push(DeadLetter { step: 1, verb, attempts: 20, error, at: Timestamp(1_500) });
        view.driven = Some("committing".to_owned());
        let sending = |step, settled: bool, attempts| Sending {
            step,
            verb,
            attempts,
            next: (!settled).then_some(Timestamp(9_000)),
            settled,
            failure: (!settled).then_some(Unknown::Failed),
        };
        view.sendings = vec![sending(0, true, 1), sending(1, false, 23)];
        let note = Note {
            at: Timestamp(1_600),
            operator: "ann".into(),
            act: Act::Retry,
            transaction: view.id,
            step: None,
            reason: None,
        };
        let entry = Entry { number: 1, note: note.clone(), outcome: Some("sent_again".into()) };
        let other = Note { transaction: TransactionId::new(Timestamp(2), [1; 16]), ..note };
        let trail = [entry, Entry { number: 2, note: other, outcome: None }];
        let before = ["1000 staged order-2", "agreed stock", "agreed payment", "1010 decided order-2"];
        let stuck = [&before[..], &["1500 dead_letter payment #20", "1600 retried ann"]].concat();
        let now = [&stuck[..], &["acknowledged stock", "waiting payment #23"]].concat();
        assert_eq!(told(&view, &trail), now);
        let waiting = tell(&view, &trail).pop().unwrap();
        assert_eq!(waiting.detail.as_deref(), Some("commit; the last attempt: its store failed"));
        assert_eq!(waiting.next, Some(Timestamp(9_000)));

        let (operator, reason) = ("ann".into(), "ticket 4711".into());
        view.record.resolutions.push(Resolution { step: 1, operator, reason, at: Timestamp(1_700) });
        view.record.finished = Some(Timestamp(1_700));
        let end = ["1700 resolved payment ann", "acknowledged stock", "1700 finished order-2"];
        assert_eq!(told(&view, &trail), [&stuck[..], &end[..]].concat());
    }

    #[test]
    fn deeds_of_one_millisecond_stand_in_the_order_of_the_trail() {
        let mut view = view(Protocol::TwoPhase);
        view.record.decided = Some((Decision::Commit, Timestamp(1_010)));
        let entry = |number, act, step: Option<u8>, operator: &str| {
            let reason = step.map(|_| "ticket 4711".into());
            let note =
                Note { at: Timestamp(1_600), operator: operator.into(), act, transaction: view.id, step, reason };
            Entry { number, note, outcome: None }
        };
        let resolution = |step, operator: &str| Resolution {
            step,
            operator: operator.into(),
            reason: "ticket 4711".into(),
            at: Timestamp(1_600),
        };
        // The entry of Eve's resolution is so old that the trail keeps it no more.
        let trail = [
            entry(12, Act::Retry, None, "carl"),
            entry(11, Act::Resolve, Some(1), "ann"),
            entry(10, Act::Retry, None, "bob"),
            entry(9, Act::Retry, None, "not said"),
        ];
        view.record.resolutions =
            vec![resolution(1, "ann"), Resolution { at: Timestamp(1_550), ..resolution(0, "eve") }];
        let deeds = [
            "1550 resolved stock eve",
            "1600 retried not said",
            "1600 retried bob",
            "1600 resolved payment ann",
            "1600 retried carl",
        ];
        assert_eq!(told(&view, &trail)[4..], deeds);
    }

    #[test]
    fn an_abort_names_who_refused_and_why_and_what_became_of_each_branch() {
        let refused = |protocol| {
            let mut view = view(protocol);
            let cause = Cause::Refused { step: 0, refusal: Refusal::new(ledger::INSUFFICIENT, "7") };
            view.record.decided = Some((Decision::Abort(cause), Timestamp(1_010)));
            view.record.finished = Some(Timestamp(1_020));
            view
        };
        let details = |view: &TransactionView| -> Vec<String> {
            tell(view, &[]).into_iter().filter_map(|it| Some(format!("{}: {}", it.service?, it.detail?))).collect()
        };
        let begin = ["1000 staged order-2", "refused stock", "1010 decided order-2"];
        let saga = refused(Protocol::Saga);
        // Who refused did nothing that had to be undone: a saga does not ask.
        assert_eq!(told(&saga, &[]), [&begin[..], &["acknowledged payment", "1020 finished order-2"]].concat());
        let undone = "payment: compensate: if it had done its part, that is undone";
        assert_eq!(details(&saga), ["stock: not enough of item 7", undone]);
        let two_phase = refused(Protocol::TwoPhase);
        let end = ["acknowledged stock", "acknowledged payment", "1020 finished order-2"];
        assert_eq!(told(&two_phase, &[]), [&begin[..], &end].concat());
        let fates = ["stock: abort: it held nothing", "payment: abort: if it held anything, that is released"];
        assert_eq!(details(&two_phase), [&["stock: not enough of item 7"], &fates[..]].concat());
    }

    #[test]
    fn the_stage_names_the_steps_and_what_they_ask_for_while_the_log_keeps_it() {
        let mut view = view(Protocol::TwoPhase);
        assert_eq!(tell(&view, &[])[0].detail.as_deref(), Some("two-phase commit of stock, payment"));
        let entry = Amount { account: EntityId::number(7), amount: 2 };
        let mut transaction = (**view.record.transaction.as_ref().unwrap()).clone();
        transaction.steps[0].payload = ledger::entries::encode(&[entry]).unwrap();
        view.record.transaction = Some(Arc::new(transaction));
        let staged = tell(&view, &[])[0].detail.clone();
        assert_eq!(staged.as_deref(), Some("two-phase commit of stock (2 of item 7), payment"));
    }

    #[test]
    fn hands_and_attempts_are_told_in_their_order_whatever_the_clocks_say() {
        let mut view = view(Protocol::TwoPhase);
        let tries = |step, verb, attempts, answered| Tries { step, verb, attempts, answered, why: Unknown::Failed };
        let hand = |from, to, at, decided| {
            let (from, to) = (Name::literal(from), Name::literal(to));
            Handover { from, to, at: Timestamp(at), decided }
        };
        view.record.decided = Some((Decision::Commit, Timestamp(1_500)));
        view.record.finished = Some(Timestamp(1_800));
        // The clock of whoever took it over first was ahead; that of the other is late.
        view.record.history = Some(Box::new(History {
            handovers: vec![hand("order-1", "order-3", 1_600, false), hand("order-3", "order-2", 1_400, true)],
            tries: vec![tries(1, Verb::Inquire, 2, true), tries(0, Verb::Commit, 3, true)],
        }));
        let whole = [
            "1000 staged order-1",
            "1600 taken_over order-3",
            "agreed stock",
            "agreed payment #2",
            "1500 decided order-3",
            "1400 taken_over order-2",
            "acknowledged stock #3",
            "acknowledged payment",
            "1800 finished order-2",
        ];
        assert_eq!(told(&view, &[]), whole);
        let details: Vec<_> = tell(&view, &[]).into_iter().filter_map(|it| it.detail).collect();
        assert_eq!(details[1], "order-1 had it, and its lease had lapsed");
        assert_eq!(details[2], "an attempt before, as order-2 counted: its store failed");
        assert_eq!(
            details[5],
            "commit: what it held is taken for good; an attempt before, as order-2 counted: its store failed"
        );

        view.record.history =
            Some(Box::new(History { handovers: vec![hand("order-2", "order-2", 1_200, false)], tries: vec![] }));
        assert_eq!(told(&view, &[])[1], "1200 resumed order-2");
        assert_eq!(tell(&view, &[])[1].detail.as_deref(), Some("it had ended, and started again"));

        // Who was asked in vain is told beside who made it an abort.
        let refusal = Refusal::new(ledger::INSUFFICIENT, "7");
        view.record.decided = Some((Decision::Abort(Cause::Refused { step: 0, refusal }), Timestamp(1_500)));
        let tries = vec![tries(1, Verb::Prepare, 4, false)];
        view.record.history = Some(Box::new(History { handovers: vec![], tries }));
        let abort = ["1000 staged order-2", "unanswered payment #4", "refused stock", "1500 decided order-2"];
        assert_eq!(told(&view, &[])[..4], abort);
    }

    #[test]
    fn one_under_way_shows_who_has_answered() {
        let mut view = view(Protocol::TwoPhase);
        let sending =
            |step, settled| Sending { step, verb: Verb::Prepare, attempts: 1, next: None, settled, failure: None };
        view.sendings = vec![sending(0, true), sending(1, false)];
        assert_eq!(told(&view, &[]), ["1000 staged order-2", "agreed stock", "waiting payment #1"]);
    }
}
