//! One transaction's history in words.

use protocol::{Protocol, Transaction};
use shop::admin::{Happening, TransactionView, What};
use shop::checkout::asked;

use crate::decode;
use crate::output::time;

/// The whole history: what it is, a line for everything that happened, and what is going on.
pub(crate) fn tell(view: &TransactionView, state: &str) -> String {
    let mut text = format!("Transaction {}: {state}\n  {}", view.id, what_it_is(view.record.transaction.as_deref()));
    for happening in view.timeline.iter().flatten() {
        let when = match happening.at {
            Some(at) => time(at),
            None if happening.what == What::Waiting => "now".to_owned(),
            // Nobody wrote down when.
            None => String::new(),
        };
        text.push_str(&format!("\n  {when:24}  {}", line(happening)));
    }
    if view.record.finished.is_none() {
        text.push_str(&format!("\n  {:24}  {}", "now", now(view)));
    }
    text
}

fn what_it_is(transaction: Option<&Transaction>) -> String {
    let Some(transaction) = transaction else { return "born, and never staged".to_owned() };
    let protocol = match transaction.protocol {
        Protocol::TwoPhase => "by two-phase commit",
        Protocol::Saga => "as a saga",
    };
    let order = decode::order(transaction).map(|order| format!(" of order {order}")).unwrap_or_default();
    let mut text = format!("a {}{order}, {protocol}", transaction.definition);
    for (position, step) in transaction.steps.iter().enumerate() {
        let asked = asked(step).unwrap_or_else(|| "no longer known: dropped when it finished".to_owned());
        text.push_str(&format!("\n      step {position}, {}: {asked}", step.service));
    }
    text
}

fn line(happening: &Happening) -> String {
    let Happening { what, service, step, attempt, next, by, detail, .. } = happening;
    let whose = match (step, service) {
        (Some(step), Some(service)) => format!("step {step} ({service}) "),
        (Some(step), None) => format!("step {step} "),
        (None, _) => String::new(),
    };
    let title = title(*what);
    let attempt = attempt.map(|attempt| format!(" · attempt {attempt}")).unwrap_or_default();
    let by = by.as_ref().map(|by| format!(" · by {by}")).unwrap_or_default();
    // The steps, and what they ask for, stand at the top.
    let detail = detail.as_ref().filter(|_| *what != What::Staged);
    let next = next.map(|at| format!("; next {}", time(at))).unwrap_or_default();
    match (what, detail) {
        (What::Decided, Some(decision)) => format!("decided: {decision}{by}"),
        (_, Some(detail)) => format!("{whose}{title}{attempt}{by}: {detail}{next}"),
        (_, None) => format!("{whose}{title}{attempt}{by}{next}"),
    }
}

/// What happened, in the page's words.
fn title(what: What) -> &'static str {
    match what {
        What::Staged => "staged in the log",
        What::Agreed => "agreed",
        What::Refused => "refused",
        What::Unanswered => "did not answer in time",
        What::Waiting => "has not answered yet",
        What::Decided => "decided",
        What::TakenOver => "taken over",
        What::Resumed => "taken up again",
        What::DeadLetter => "became a dead letter",
        What::Retried => "tried again by an operator",
        What::Resolved => "settled by hand",
        What::Acknowledged => "acknowledged",
        What::Finished => "finished: nothing is left to do",
        What::Other => "something that this program does not know: ask with one of the shop's version",
    }
}

fn now(view: &TransactionView) -> String {
    let mut text = match &view.driven {
        Some(doing) => format!("its coordinator is {doing}"),
        None => "nobody drives it at this moment: recovery takes it up, when its instance or the shop starts again, or when another instance takes over".to_owned(),
    };
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_and_the_terminal_have_the_same_words() {
        let page = include_str!("../../watch/page/timeline.js");
        let all = [
            What::Staged,
            What::Agreed,
            What::Refused,
            What::Unanswered,
            What::Waiting,
            What::Decided,
            What::TakenOver,
            What::Resumed,
            What::DeadLetter,
            What::Retried,
            What::Resolved,
            What::Acknowledged,
            What::Finished,
        ];
        for what in all {
            let code = serde_json::to_value(what).unwrap();
            let line = format!("  {}: \"{}\",", code.as_str().unwrap(), title(what));
            assert!(page.contains(&line), "`{line}` is missing in timeline.js");
        }
    }
}
