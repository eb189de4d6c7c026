//! One transaction's history in words.

use protocol::{Cause, Decision, Protocol, Timestamp, Transaction};
use shop::admin::TransactionView;
use shop::checkout::{asked, why_refused};

use crate::decode;
use crate::output::time;

/// The whole history, a line for everything that happened.
pub(crate) fn tell(view: &TransactionView, state: &str) -> String {
    let record = &view.record;
    let transaction = record.transaction.as_deref();
    let mut events = vec![(view.id.birth(), born(transaction))];
    if let Some((decision, at)) = &record.decided {
        events.push((*at, format!("decided: {}", decided(decision, transaction))));
    }
    for letter in &record.letters {
        let (step, verb, attempts) = (named(letter.step, transaction), letter.verb, letter.attempts);
        let what = format!(
            "dead letter: {step} did not acknowledge {verb} in {attempts} attempts; the last: {}",
            letter.error
        );
        events.push((letter.at, what));
    }
    for done in &record.resolutions {
        let what = format!("{} resolved {}: {}", done.operator, named(done.step, transaction), done.reason);
        events.push((done.at, what));
    }
    if let Some(at) = record.finished {
        let everyone = match record.decision() {
            _ if !record.resolutions.is_empty() => "nothing is left to do",
            Some(Decision::Abort(_)) => "nothing is held or done for it any more",
            _ => "every participant has acknowledged",
        };
        events.push((at, format!("finished: {everyone}")));
    }
    // What happened in the same millisecond stays in the order in which it can only have happened.
    events.sort_by_key(|(at, _)| *at);
    let mut text = format!("Transaction {}: {state}", view.id);
    for (at, what) in events {
        text.push_str(&line(at, &what));
    }
    if record.finished.is_none() {
        text.push_str(&format!("\n  now                       {}", now(view)));
    }
    text
}

fn line(at: Timestamp, what: &str) -> String {
    format!("\n  {}  {what}", time(at))
}

fn born(transaction: Option<&Transaction>) -> String {
    let Some(transaction) = transaction else { return "born, and never staged".to_owned() };
    let protocol = match transaction.protocol {
        Protocol::TwoPhase => "by two-phase commit",
        Protocol::Saga => "as a saga",
    };
    let order = decode::order(transaction).map(|order| format!(" of order {order}")).unwrap_or_default();
    let mut text = format!("born and staged: a {}{order}, {protocol}", transaction.definition);
    for (position, step) in transaction.steps.iter().enumerate() {
        let asked = asked(step).unwrap_or_else(|| "no longer known: dropped when it finished".to_owned());
        text.push_str(&format!("\n      step {position}, {}: {asked}", step.service));
    }
    text
}

fn named(step: u8, transaction: Option<&Transaction>) -> String {
    match transaction.and_then(|transaction| transaction.steps.get(usize::from(step))) {
        Some(found) => format!("step {step} ({})", found.service),
        None => format!("step {step}"),
    }
}

fn decided(decision: &Decision, transaction: Option<&Transaction>) -> String {
    match decision {
        Decision::Commit => "commit".to_owned(),
        Decision::Abort(Cause::Refused { step, refusal }) => {
            let service = transaction.and_then(|it| it.steps.get(usize::from(*step))).map(|step| step.service);
            format!("abort, because {} refused: {}", named(*step, transaction), why_refused(service, refusal))
        }
        Decision::Abort(Cause::Unavailable { step: Some(step) }) => {
            format!("abort, because {} did not answer in time", named(*step, transaction))
        }
        Decision::Abort(Cause::Unavailable { step: None }) => {
            "abort, because the log did not answer in time".to_owned()
        }
        Decision::Abort(Cause::Recovered) => "abort, because recovery found it undecided after a crash".to_owned(),
        Decision::Abort(Cause::NeverStaged) => {
            "abort, because a participant asked about it before it was staged: it never will be".to_owned()
        }
    }
}

fn now(view: &TransactionView) -> String {
    let mut text = match &view.driven {
        Some(doing) => format!("its coordinator is {doing}"),
        None => "nobody drives it: the next start of the shop will".to_owned(),
    };
    for sending in view.sendings.iter().filter(|it| it.attempts > 0 && !it.settled) {
        let step = named(sending.step, view.record.transaction.as_deref());
        let failure = sending.failure.map(|why| format!("; the last: {why}")).unwrap_or_default();
        text.push_str(&format!(
            "\n      {step} has not answered {}: attempt {}{failure}",
            sending.verb, sending.attempts
        ));
    }
    for letter in view.record.open_letters() {
        text.push_str(&format!(
            "\n      step {step} waits for a person: mend the cause and `settle tx retry {id}`; only if the \
             service cannot come back, `settle tx resolve {id} --step {step} --reason …`",
            step = letter.step,
            id = view.id
        ));
    }
    text
}
