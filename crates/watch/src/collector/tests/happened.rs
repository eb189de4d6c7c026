//! What happened, where one story ends and another begins.

use super::*;

/// What was told, with how many seconds behind the begin it began and was told last.
fn stories(snapshot: &Snapshot) -> Vec<(u64, u64, &str)> {
    let seconds = |at: u64| at.saturating_sub(BEGIN) / 1_000;
    snapshot.marks.iter().map(|mark| (seconds(mark.since), seconds(mark.at), mark.what.as_str())).collect()
}

fn of_kind(kind: Kind, seen: Seen) -> Seen {
    Seen { kind, ..seen }
}

/// A stock instance at which a fault is set, or not, and struck so often.
fn faulty(started: u64, set: u8, times: u64) -> Vec<Seen> {
    let of = "service=\"stock\",point=\"before_abort\",action=\"error\"";
    let text = format!("settle_faults_active{{{of}}} {set}\nsettle_faults_struck_total{{{of}}} {times}");
    vec![of_kind(Kind::Stock, says("stock-1", started, &text))]
}

#[test]
fn how_somebody_ended_is_told_also_if_it_is_known_a_look_later() {
    let mut history = History::new();
    history.second(vec![committed("order-1", 1, 1)]);
    let silent = history.second(vec![gone("order-1")]);
    assert_eq!(whats(&silent), ["order-1 is down"]);
    let killed = || vec![Seen { ended: Some("was killed (SIGKILL)".to_owned()), ..gone("order-1") }];
    let known = history.second(killed());
    assert_eq!(whats(&known), ["order-1 was killed (SIGKILL)"]);
    assert_eq!(known.marks[0].at, silent.at);
    assert_eq!(whats(&history.second(killed())), ["order-1 was killed (SIGKILL)"], "once");
    history.second(vec![committed("order-1", 2, 1)]);
    assert_eq!(
        whats(&history.second(killed())),
        ["order-1 was killed (SIGKILL)", "order-1 is back", "order-1 was killed (SIGKILL)"]
    );
}

#[test]
fn a_fault_that_strikes_again_long_after_is_another_story() {
    let mut history = History::new();
    // Seconds 1 to 3, and the first strike of the next story at 14.
    for times in [0, 1, 4] {
        history.second(faulty(1, 0, times));
    }
    history.at += 10_000;
    history.second(faulty(1, 0, 5));
    let last = history.second(faulty(1, 0, 6));
    let expected = [
        (2, 3, "a fault struck 4 times: stock before abort: fails"),
        (14, 15, "a fault struck 2 times: stock before abort: fails"),
    ];
    assert_eq!(stories(&last), expected);
    // Ten seconds after the last time, it is the same.
    history.at += 9_000;
    assert_eq!(stories(&history.second(faulty(1, 0, 7)))[1].0, 14);
}

#[test]
fn a_fault_that_was_cleared_and_is_set_anew_is_another_story() {
    let mut history = History::new();
    for (set, times) in [(0, 0), (1, 2), (0, 3), (1, 4), (1, 6)] {
        history.second(faulty(1, set, times));
    }
    let last = history.second(faulty(1, 1, 6));
    let expected = [
        (2, 2, "faults set: stock before abort: fails"),
        (2, 3, "a fault struck 3 times: stock before abort: fails"),
        (3, 3, "faults cleared: stock before abort: fails"),
        (4, 4, "faults set: stock before abort: fails"),
        (4, 5, "a fault struck 3 times: stock before abort: fails"),
    ];
    assert_eq!(stories(&last), expected);
}

#[test]
fn a_restart_begins_another_story_of_what_strikes_there() {
    let begin = BEGIN / 1_000;
    let mut history = History::new();
    let others = |started| of_kind(Kind::Payment, says("payment-1", started, ""));
    for (started, of_others, times) in [(1, 1, 0), (1, 1, 2), (begin + 2, 1, 3), (begin + 2, begin + 4, 5)] {
        let mut seen = faulty(started, 0, times);
        seen.push(others(of_others));
        history.second(seen);
    }
    let mut seen = faulty(begin + 2, 0, 6);
    seen.push(others(begin + 4));
    let last = history.second(seen);
    let expected = [
        (2, 2, "a fault struck 2 times: stock before abort: fails"),
        (2, 2, "stock-1 started"),
        (4, 4, "payment-1 started"),
        (3, 5, "a fault struck 6 times: stock before abort: fails"),
    ];
    assert_eq!(stories(&last), expected, "a start of payment ends nothing at stock");
}

#[test]
fn a_protocol_that_goes_there_and_back_is_one_story_until_it_has_stayed_for_a_minute() {
    let uses = |started: u64, protocol: &str, switches: u64| {
        let text = format!(
            "settle_protocol{{definition=\"checkout\",protocol=\"{protocol}\"}} 1\nsettle_protocol_switches_total{{definition=\"checkout\"}} {switches}"
        );
        vec![says("order-1", started, &text)]
    };
    let begin = BEGIN / 1_000;
    let mut history = History::new();
    history.second(uses(1, "2pc", 0));
    history.second(uses(1, "saga", 3));
    // Started again, it begins with the first one: nobody chose that for what happens now.
    history.second(uses(begin + 2, "2pc", 0));
    for _ in 0..29 {
        history.second(uses(begin + 2, "2pc", 0));
    }
    history.second(uses(begin + 2, "saga", 1));
    for _ in 0..60 {
        history.second(uses(begin + 2, "saga", 1));
    }
    let last = history.second(uses(begin + 2, "2pc", 2));
    let expected = [
        (2, 2, "order-1 started"),
        (2, 33, "checkout: the protocol changed 5 times, now saga"),
        (94, 94, "checkout: saga → 2pc"),
    ];
    assert_eq!(stories(&last), expected);
}

fn recovered(name: &str, started: u64, count: u64) -> Seen {
    says(name, started, &format!("settle_recovered_transactions_total {count}"))
}

#[test]
fn what_recovery_took_up_is_told_with_who_did() {
    let begin = BEGIN / 1_000;
    let mut history = History::new();
    // What was taken up an hour ago is no news, and what a process does that has just started is.
    history.second(vec![recovered("order-1", begin - 3_600, 7), recovered("order-2", begin - 60, 1_200)]);
    let at_start = "order-2 took up 1,200 transactions that were left unfinished";
    history.second(vec![recovered("order-1", begin - 3_600, 7), recovered("order-2", begin - 60, 1_200)]);
    // The one is started again, and takes up what it left behind itself, page by page. The other takes over.
    history.second(vec![recovered("order-1", begin + 2, 100), recovered("order-2", begin - 60, 1_201)]);
    let last = history.second(vec![recovered("order-1", begin + 2, 149), recovered("order-2", begin - 60, 1_201)]);
    let expected = [
        (0, 0, "order-2 started"),
        (0, 0, at_start),
        (2, 2, "order-1 started"),
        (3, 3, "order-2 took up 1 transaction that was left unfinished"),
        (3, 4, "order-1 took up 149 transactions that were left unfinished"),
    ];
    assert_eq!(stories(&last), expected);
    assert_eq!(last.marks[1].at, BEGIN - 60_000, "with its start: nobody knows better");
}

#[test]
fn what_is_stuck_is_told_with_the_services_that_do_not_acknowledge() {
    let is = |stuck: u64, payment: u64, stock: u64| {
        let dead = |service: &str, count: u64| format!("settle_dead_letters_total{{service=\"{service}\"}} {count}\n");
        let text = format!("settle_leader 1\nsettle_transactions_stuck {stuck}\n");
        vec![says("shop", 1, &(text + &dead("payment", payment) + &dead("stock", stock)))]
    };
    let mut history = History::new();
    // What it counted before anybody watched names nobody, and the leader counts some seconds later.
    for (stuck, payment, stock) in [(0, 0, 9), (0, 1, 9), (0, 1, 9), (1, 1, 9), (0, 1, 9), (0, 3, 10), (3, 3, 10)] {
        history.second(is(stuck, payment, stock));
    }
    // More get stuck a moment later, and one is settled.
    let grown = history.second(is(4, 3, 10));
    assert_eq!(whats(&grown).last(), Some(&"4 transactions became stuck: payment and stock do not acknowledge"));
    let mark = grown.marks.last().unwrap();
    assert_eq!(mark.at - mark.since, 1_000);
    history.second(is(3, 3, 10));
    history.second(is(0, 3, 10));
    let last = history.second(is(2, 3, 10));
    assert_eq!(
        whats(&last),
        [
            "1 transaction became stuck: payment does not acknowledge",
            "nothing is stuck any more; 1 transaction was",
            "4 transactions became stuck: payment and stock do not acknowledge",
            "nothing is stuck any more; 4 transactions were",
            "2 transactions became stuck"
        ]
    );
    assert_eq!((last.dead_letters, last.services.len()), (13, 2));
    // What did not acknowledge long ago says nothing of what gets stuck now.
    history.second(is(0, 4, 10));
    history.second(is(0, 5, 10));
    history.at += 60_000;
    assert_eq!(whats(&history.second(is(1, 5, 10))).last(), Some(&"1 transaction became stuck"));
}

#[test]
fn what_was_answered_adds_up_over_lives_and_over_time_in_which_nobody_looked() {
    let mut history = History::new();
    let young = BEGIN / 1_000;
    // Whoever was there before anybody watched has counted for itself; whoever began a moment ago, for us, too.
    let first = history.second(vec![committed("order-1", 1, 1_000_000), committed("order-2", young, 7)]);
    assert_eq!(first.answers.committed, 7);
    let second = history.second(vec![committed("order-1", 1, 1_000_010), gone("order-2")]);
    assert_eq!(second.answers.committed, 17);
    history.at += 60_000;
    let later = history.second(vec![committed("order-1", 1, 1_005_010), committed("order-2", young + 60, 3)]);
    assert_eq!(later.answers.committed, 5_020, "a minute's, and three of another life");
}

#[test]
fn what_the_audit_finds_is_news_and_that_it_is_gone_too() {
    let now = BEGIN / 1_000;
    let found = |count: u64| {
        let text = format!(
            "settle_leader 1\nsettle_audit_findings {count}\nsettle_audit_runs_total 1\nsettle_audit_last_timestamp_seconds {now}"
        );
        vec![says("shop", 1, &text)]
    };
    let mut history = History::new();
    for count in [0, 1, 1, 3, 0] {
        history.second(found(count));
    }
    let expected = [
        "the audit found 1 thing that is off",
        "the audit: 3 things are off by now",
        "the audit: nothing is off any more",
    ];
    assert_eq!(whats(&history.second(found(0))), expected);
}

#[test]
fn each_answer_is_counted_once_as_what_it_was() {
    let said = |counts: [u64; 6]| {
        let outcomes = ["committed", "refused", "conflict", "rolled_back", "in_doubt"];
        let of = |outcome: &str, count: u64| {
            format!(
                "settle_transactions_total{{definition=\"checkout\",protocol=\"2pc\",outcome=\"{outcome}\"}} {count}\n"
            )
        };
        let lines: String = outcomes.iter().zip(counts).map(|(outcome, count)| of(outcome, count)).collect();
        let away = format!("settle_turned_away_total{{definition=\"checkout\",why=\"unavailable\"}} {}", counts[5]);
        says("order-1", 1, &(lines + &away))
    };
    let mut history = History::new();
    history.second(vec![said([100; 6])]);
    // Five of 621 find the service away, and behind these the breaker is open.
    let Answers { committed, refused, rolled_back, in_doubt, turned_away } =
        history.second(vec![said([101, 102, 104, 105, 100, 716])]).answers;
    assert_eq!([committed, refused, rolled_back, in_doubt, turned_away], [1, 6, 5, 0, 616]);
}
