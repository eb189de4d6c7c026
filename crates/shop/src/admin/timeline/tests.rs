//! Who did what, when, in which order it is told, and what nobody wrote down.

use std::sync::Arc;

use ledger::{EntityId, Entry as Amount};
use protocol::log::{DeadLetter, Handover, History, Record};
use protocol::{Order, Payload, Rare, Recovery, Refusal, TransactionId, Unknown};

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
        steps: [step(STOCK), step(PAYMENT)].into(),
        context: Payload::EMPTY,
    };
    let record = Record {
        transaction: Some(Arc::new(transaction)),
        owner: Some(Name::literal("order-2")),
        decided: None,
        finished: None,
        letters: Rare::default(),
        resolutions: Rare::default(),
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
    // Stock acknowledged at once: long before payment was given up.
    let late = ["acknowledged stock", "1500 dead_letter payment #20", "1600 retried ann"];
    let stuck = [&before[..], &late].concat();
    let now = [&stuck[..], &["waiting payment #23"]].concat();
    assert_eq!(told(&view, &trail), now);
    let waiting = tell(&view, &trail).pop().unwrap();
    assert_eq!(waiting.detail.as_deref(), Some("commit; the last attempt: its store failed"));
    assert_eq!(waiting.next, Some(Timestamp(9_000)));

    let (operator, reason) = ("ann".into(), "ticket 4711".into());
    view.record.resolutions.push(Resolution { step: 1, operator, reason, at: Timestamp(1_700) });
    view.record.finished = Some(Timestamp(1_700));
    let end = ["1700 resolved payment ann", "1700 finished order-2"];
    assert_eq!(told(&view, &trail), [&stuck[..], &end[..]].concat());
}

#[test]
fn deeds_of_one_millisecond_stand_in_the_order_of_the_trail() {
    let mut view = view(Protocol::TwoPhase);
    view.record.decided = Some((Decision::Commit, Timestamp(1_010)));
    let entry = |number, act, step: Option<u8>, operator: &str| {
        let reason = step.map(|_| "ticket 4711".into());
        let note = Note { at: Timestamp(1_600), operator: operator.into(), act, transaction: view.id, step, reason };
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
        vec![resolution(1, "ann"), Resolution { at: Timestamp(1_550), ..resolution(0, "eve") }].into();
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
        let cause = Cause::Refused { step: 0, refusal: Box::new(Refusal::new(ledger::INSUFFICIENT, "7")) };
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
    Arc::make_mut(&mut transaction.steps)[0].payload = ledger::entries::encode(&[entry]).unwrap();
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
    view.record.decided =
        Some((Decision::Abort(Cause::Refused { step: 0, refusal: Box::new(refusal) }), Timestamp(1_500)));
    let tries = vec![tries(1, Verb::Prepare, 4, false)];
    view.record.history = Some(Box::new(History { handovers: vec![], tries }));
    let abort = ["1000 staged order-2", "unanswered payment #4", "refused stock", "1500 decided order-2"];
    assert_eq!(told(&view, &[])[..4], abort);
}

#[test]
fn what_was_answered_at_once_stands_before_what_was_not() {
    let mut view = view(Protocol::TwoPhase);
    let tries = |step, verb| Tries { step, verb, attempts: 3, answered: true, why: Unknown::Failed };
    view.record.decided = Some((Decision::Commit, Timestamp(1_010)));
    view.record.finished = Some(Timestamp(1_800));
    let history = |handovers, tries| Some(Box::new(History { handovers, tries }));
    view.record.history = history(vec![], vec![tries(0, Verb::Prepare), tries(0, Verb::Commit)]);
    let letter = |step| DeadLetter { step, verb: Verb::Commit, attempts: 2, error: "?".into(), at: Timestamp(1_500) };
    view.record.letters.push(letter(0));
    let whole = [
        "1000 staged order-2",
        "agreed payment",
        "agreed stock #3",
        "1010 decided order-2",
        "acknowledged payment",
        "1500 dead_letter stock #2",
        "acknowledged stock #3",
        "1800 finished order-2",
    ];
    assert_eq!(told(&view, &[]), whole);

    // A program that counted nothing wrote the letter, too.
    view.record.history = None;
    assert_eq!(told(&view, &[])[4..], ["acknowledged payment", whole[5], "acknowledged stock", whole[7]]);

    // Whoever has it since was answered at its first attempt, whatever became of those before.
    let (from, to) = (Name::literal("order-1"), Name::literal("order-2"));
    view.record.history = history(vec![Handover { from, to, at: Timestamp(1_600), decided: true }], vec![]);
    let end = ["1600 taken_over order-2", "acknowledged stock", "acknowledged payment", "1800 finished order-2"];
    assert_eq!(told(&view, &[])[5..], end);

    // One is undone behind the other: the first may have had to wait for the second.
    let mut saga = self::view(Protocol::Saga);
    let mut transaction = (**saga.record.transaction.as_ref().unwrap()).clone();
    transaction.order = Order::Sequential;
    saga.record.transaction = Some(Arc::new(transaction));
    saga.record.decided = Some((Decision::Abort(Cause::Recovered), Timestamp(1_010)));
    saga.record.finished = Some(Timestamp(1_800));
    saga.record.letters.push(letter(1));
    let end = ["1500 dead_letter payment #2", "acknowledged stock", "acknowledged payment", "1800 finished order-2"];
    assert_eq!(told(&saga, &[])[3..], end);
}

#[test]
fn a_step_that_was_settled_by_hand_is_not_told_to_have_acknowledged() {
    let mut view = view(Protocol::TwoPhase);
    view.record.decided = Some((Decision::Commit, Timestamp(1_010)));
    let (operator, reason) = ("ann".into(), "ticket 4711".into());
    view.record.resolutions.push(Resolution { step: 1, operator, reason, at: Timestamp(1_700) });
    let sending = |step, settled: bool| {
        let failure = (!settled).then_some(Unknown::Failed);
        Sending { step, verb: Verb::Commit, attempts: 22, next: None, settled, failure }
    };
    view.sendings = vec![sending(0, false), sending(1, true)];
    assert_eq!(told(&view, &[])[4..], ["1700 resolved payment ann", "waiting stock #22"]);
}

#[test]
fn one_under_way_shows_who_has_answered() {
    let mut view = view(Protocol::TwoPhase);
    let sending =
        |step, settled| Sending { step, verb: Verb::Prepare, attempts: 1, next: None, settled, failure: None };
    view.sendings = vec![sending(0, true), sending(1, false)];
    assert_eq!(told(&view, &[]), ["1000 staged order-2", "agreed stock", "waiting payment #1"]);
}
