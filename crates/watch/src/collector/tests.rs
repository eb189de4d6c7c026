//! Histories: what is told second by second of instances that count, die, come back and overlap.

use super::*;
use crate::openmetrics::parse;
use crate::snapshot::Mark;

mod happened;
mod latency;

/// One second after the other.
struct History {
    collector: Collector,
    at: u64,
}

/// It leads, and nothing is stuck.
const LEADS: &str = "settle_leader 1\nsettle_transactions_stuck 0\n";

const BEGIN: u64 = 1_763_750_000_000;

impl History {
    fn new() -> Self {
        Self { collector: Collector::new(Titles::default()), at: BEGIN }
    }

    fn second(&mut self, seen: Vec<Seen>) -> Snapshot {
        self.at += 1_000;
        self.collector.look(self.at, seen)
    }
}

/// An order instance that is up and says this. Processes that began at different times are different lives.
fn says(name: &str, started: u64, text: &str) -> Seen {
    let text = format!("process_start_time_seconds {started}\n{text}\n# EOF\n");
    let exposition = parse(&text);
    assert!(exposition.complete && exposition.unreadable == 0, "{text}");
    Seen { figures: Some(Figures::of(&exposition)), ..Seen::new(name, Kind::Order, State::Up) }
}

fn committed(name: &str, started: u64, count: u64) -> Seen {
    says(
        name,
        started,
        &format!("settle_transactions_total{{definition=\"checkout\",protocol=\"2pc\",outcome=\"committed\"}} {count}"),
    )
}

fn gone(name: &str) -> Seen {
    Seen { detail: Some("it ended".to_owned()), ..Seen::new(name, Kind::Order, State::Down) }
}

fn whats(snapshot: &Snapshot) -> Vec<&str> {
    snapshot.marks.iter().map(|mark| mark.what.as_str()).collect()
}

#[test]
fn what_was_counted_before_anybody_watched_is_no_rate() {
    let mut history = History::new();
    let first = history.second(vec![committed("order-1", 1, 1_000_000)]);
    assert_eq!(
        serde_json::to_string(&first.rates.committed).unwrap(),
        "0.0",
        "and not -0.0, which no numbers add up to"
    );
    assert_eq!(history.second(vec![committed("order-1", 1, 1_000_100)]).rates.committed, 100.0);
}

#[test]
fn a_rate_is_that_of_the_last_five_seconds() {
    let mut history = History::new();
    for n in 0..20 {
        history.second(vec![committed("order-1", 1, n * 10)]);
    }
    // 190 so far; from now on nothing.
    let rates: Vec<f64> = (0..6).map(|_| history.second(vec![committed("order-1", 1, 190)]).rates.committed).collect();
    assert_eq!(rates, [8.0, 6.0, 4.0, 2.0, 0.0, 0.0]);
}

#[test]
fn a_counter_that_begins_anew_adds_what_it_counts_and_takes_nothing_away() {
    for (started, why) in [(2, "its process says so"), (1, "it fell, within the second of its start")] {
        let mut history = History::new();
        for count in [1_000, 1_010, 1_020] {
            history.second(vec![committed("order-1", 1, count)]);
        }
        // Killed, started again: 5 since then.
        let snapshot = history.second(vec![committed("order-1", started, 5)]);
        // 10 + 10 + 5 in three seconds.
        assert_eq!(snapshot.rates.committed, 8.33, "{why}");
        assert_eq!(history.second(vec![committed("order-1", started, 15)]).rates.committed, 8.75, "{why}");
    }
}

#[test]
fn a_new_life_that_counted_more_than_the_old_one_is_a_new_life_all_the_same() {
    let mut history = History::new();
    history.second(vec![committed("order-1", 1, 10)]);
    let snapshot = history.second(vec![committed("order-1", 2, 50)]);
    assert_eq!(snapshot.rates.committed, 50.0, "not 40: the old life's ten are not part of the fifty");
}

#[test]
fn an_instance_that_vanishes_has_no_rate_and_one_that_was_away_no_burst() {
    let mut history = History::new();
    for n in 0..6 {
        history.second(vec![committed("order-1", 1, n * 10), committed("order-2", 1, n * 30)]);
    }
    let both = history.second(vec![committed("order-1", 1, 60), committed("order-2", 1, 180)]);
    assert_eq!(both.rates.committed, 40.0);
    let mut last = both;
    for n in 7..27 {
        last = history.second(vec![committed("order-1", 1, n * 10), gone("order-2")]);
    }
    assert_eq!(last.rates.committed, 10.0);
    // It comes back after twenty seconds, in which it had counted 400: it was cut off, not dead.
    let back = history.second(vec![committed("order-1", 1, 270), committed("order-2", 1, 580)]);
    assert_eq!(back.rates.committed, 29.05, "ten, and four hundred over the twenty-one seconds");
    assert_eq!(whats(&back), ["order-2 is down", "order-2 is back"]);
}

#[test]
fn what_overlaps_is_told_apart() {
    let mut history = History::new();
    history.second(vec![committed("order-1", 1, 100), committed("order-2", 1, 100)]);
    // The one is killed while the other comes back from its own end.
    history.second(vec![gone("order-1"), committed("order-2", 1, 110)]);
    let one = history.second(vec![gone("order-1"), gone("order-2")]);
    assert_eq!(one.verdict.text, "Nobody serves orders · not audited yet");
    let both = history.second(vec![committed("order-1", 5, 7), gone("order-2")]);
    assert_eq!(both.verdict.text, "order-2 is down · No leader is seen: what is stuck is not known · not audited yet");
    let well = history.second(vec![committed("order-1", 5, 17), committed("order-2", 6, 3)]);
    assert_eq!(whats(&well), ["order-1 is down", "order-2 is down", "order-1 is back", "order-2 is back"]);
    assert_eq!(well.instances[0].since, BEGIN + 4_000);
    // (7 + 10) in 4 s, and (10 + 3) in 4 s.
    assert_eq!(well.rates.committed, 7.5);
}

#[test]
fn the_leader_is_told_and_news_if_it_is_another() {
    let says = |name: &str, leads: bool| {
        says(
            name,
            1,
            &format!("settle_leader {}\nsettle_transactions_stuck {}", u8::from(leads), if leads { 40 } else { 0 }),
        )
    };
    let mut history = History::new();
    let first = history.second(vec![says("order-1", true), says("order-2", false)]);
    assert_eq!((first.leader.as_deref(), first.stuck, whats(&first).len()), (Some("order-1"), Some(40), 0));
    assert_eq!(first.instances[0].role.as_deref(), Some("leader"));
    let nobody = history.second(vec![gone("order-1"), says("order-2", false)]);
    assert_eq!((nobody.leader, nobody.stuck), (None, None));
    assert_eq!(nobody.verdict.level, Level::Warning, "{}", nobody.verdict.text);
    assert!(nobody.verdict.text.contains("No leader is seen"), "{}", nobody.verdict.text);
    let other = history.second(vec![gone("order-1"), says("order-2", true)]);
    assert_eq!(whats(&other), ["order-1 is down", "order-2 leads"]);
    let roles: Vec<_> = other.instances.iter().map(|it| it.role.as_deref()).collect();
    assert_eq!(roles, [Some("was leader"), Some("leader")]);
    // The old one comes back, and has not heard yet that it leads no more.
    let two = history.second(vec![says("order-1", true), says("order-2", true)]);
    assert_eq!(two.leader.as_deref(), Some("order-2"));
}

#[test]
fn a_master_that_does_not_answer_was_one() {
    let redis = |n: u8, state: State, role: Option<&str>| Seen {
        role: role.map(str::to_owned),
        ..Seen::new(format!("redis-stock-{n}"), Kind::Redis, state)
    };
    let (master, replica) = (Some("master"), Some("replica"));
    let mut history = History::new();
    let mut roles = |first: Seen, second: Seen| {
        let told = history.second(vec![first, second]).instances.into_iter().map(|it| it.role.unwrap_or_default());
        told.collect::<Vec<_>>().join(", ")
    };
    assert_eq!(roles(redis(1, State::Up, master), redis(2, State::Up, replica)), "master, replica");
    for state in [State::Frozen, State::Down] {
        assert_eq!(roles(redis(1, state, None), redis(2, State::Up, replica)), "was master, replica");
        assert_eq!(roles(redis(1, state, master), redis(2, State::Up, master)), "was master, master");
    }
    assert_eq!(roles(redis(1, State::Starting, None), redis(2, State::Up, master)), ", master");
    assert_eq!(roles(redis(1, State::Up, replica), redis(2, State::Up, master)), "replica, master");
}

#[test]
fn a_change_of_protocol_is_news_once_most_have_changed() {
    let uses = |name: &str, saga: u8, percent: u64| {
        let of = |protocol: &str, used: u8| {
            format!("settle_protocol{{definition=\"checkout\",protocol=\"{protocol}\"}} {used}\n")
        };
        let abort = format!(
            "settle_abort_percent{{definition=\"checkout\"}} {percent}\nsettle_protocol_switches_total{{definition=\"checkout\"}} {saga}"
        );
        says(name, 1, &(of("2pc", 1 - saga) + &of("saga", saga) + &abort))
    };
    let mut history = History::new();
    history.second(vec![uses("order-1", 0, 4), uses("order-2", 0, 4)]);
    let one = history.second(vec![uses("order-1", 1, 12), uses("order-2", 0, 6)]);
    assert_eq!((one.definitions[0].protocol.as_str(), one.definitions[0].abort_percent), ("2pc", 9));
    let both = history.second(vec![uses("order-1", 1, 12), uses("order-2", 1, 11)]);
    assert_eq!((both.definitions[0].protocol.as_str(), both.definitions[0].switches), ("saga", 2));
    assert_eq!(whats(&both), ["checkout: 2pc → saga"]);
    assert!(!both.definitions[0].fixed);
    let fixed =
        "settle_protocol{definition=\"checkout\",protocol=\"2pc\"} 1\nsettle_protocol_fixed{definition=\"checkout\"} 1";
    assert!(History::new().second(vec![says("order-1", 1, fixed)]).definitions[0].fixed);
}

#[test]
fn a_protocol_that_changes_there_and_back_between_two_looks_is_news_all_the_same() {
    let uses = |name: &str, protocol: &str, switches: u64| {
        let text = format!(
            "settle_protocol{{definition=\"checkout\",protocol=\"{protocol}\"}} 1\nsettle_protocol_switches_total{{definition=\"checkout\"}} {switches}"
        );
        says(name, 1, &text)
    };
    let mut history = History::new();
    history.second(vec![uses("order-1", "2pc", 7)]);
    assert_eq!(
        whats(&history.second(vec![uses("order-1", "2pc", 9)])),
        ["checkout: the protocol changed 2 times, now 2pc"]
    );
    assert_eq!(
        whats(&history.second(vec![uses("order-1", "saga", 10)])),
        ["checkout: the protocol changed 3 times, now saga"]
    );
    // Of two, each counts its own, and one that is heard for the first time brings what it counted before.
    let mut history = History::new();
    history.second(vec![uses("order-1", "2pc", 0)]);
    assert_eq!(whats(&history.second(vec![uses("order-1", "2pc", 0), uses("order-2", "2pc", 9)])), [""; 0]);
    let both = history.second(vec![uses("order-1", "saga", 3), uses("order-2", "saga", 12)]);
    assert_eq!(whats(&both), ["checkout: the protocol changed 3 times, now saga"]);
}

#[test]
fn what_must_not_be_forgotten_survives_the_end_of_who_said_it() {
    let violated = |started: u64, count: u64| {
        says("order-1", started, &format!("settle_barrier_violations_total{{service=\"stock\"}} {count}"))
    };
    let mut history = History::new();
    assert_eq!(history.second(vec![violated(1, 1)]).violations, 1);
    history.second(vec![gone("order-1")]);
    let after = history.second(vec![says("order-1", 2, "")]);
    assert_eq!((after.violations, after.verdict.level), (1, Level::Bad));
    assert_eq!(history.second(vec![violated(2, 1)]).violations, 2);
}

#[test]
fn the_audits_latest_word_counts_even_if_its_instance_is_gone() {
    let audited = |name: &str, at: u64, findings: u64, runs: u64| {
        says(
            name,
            1,
            &format!(
                "settle_leader 1\nsettle_audit_findings {findings}\nsettle_audit_runs_total {runs}\nsettle_audit_last_timestamp_seconds {at}\nsettle_audit_checked_total 50"
            ),
        )
    };
    let mut history = History::new();
    let now = BEGIN / 1_000;
    assert_eq!(history.second(vec![says("order-1", 1, "")]).audit, None);
    let begun = history.second(vec![audited("order-1", 0, 0, 0)]);
    assert_eq!(begun.audit, Some(Audit { at: 0, checked: 50, findings: 0, complete: false }));
    let found = history.second(vec![audited("order-1", now, 3, 1), audited("order-2", 0, 0, 0)]);
    assert_eq!(found.audit, Some(Audit { at: BEGIN, checked: 100, findings: 3, complete: true }));
    let gone = history.second(vec![gone("order-1"), audited("order-2", 0, 0, 0)]);
    assert_eq!(gone.audit.map(|it| (it.at, it.findings)), Some((BEGIN, 3)));
    // Nobody speaks of it any more.
    let dropped = history.second(vec![audited("order-2", 0, 0, 0)]);
    assert_eq!(dropped.audit.map(|it| (it.at, it.findings)), Some((BEGIN, 3)));
    let mended = history.second(vec![audited("order-1", now, 3, 1), audited("order-2", now + 9, 0, 1)]);
    assert_eq!(mended.audit.map(|it| (it.at, it.findings)), Some((BEGIN + 9_000, 0)));
}

#[test]
fn stores_and_breakers_are_told_by_who_sees_them() {
    let says = |name: &str, up: u8, open: u8, flushes: u64, commands: u64| {
        let text = format!(
            "settle_store_up{{service=\"orders\"}} {up}\nsettle_store_flushes_total{{service=\"orders\"}} {flushes}\n\
             settle_store_commands_total{{service=\"orders\"}} {commands}\nsettle_breaker_open{{service=\"stock\"}} {open}\n\
             settle_breaker_trips_total{{service=\"stock\"}} {open}\nsettle_store_flush_duration_seconds_bucket{{le=\"0.5\",service=\"orders\"}} {flushes}"
        );
        says(name, 1, &text)
    };
    let mut history = History::new();
    history.second(vec![says("order-1", 1, 0, 0, 0), says("order-2", 1, 0, 0, 0)]);
    let now = history.second(vec![says("order-1", 1, 1, 4, 40), says("order-2", 0, 0, 0, 0)]);
    let told: Vec<_> = now
        .stores
        .iter()
        .map(|it| (it.instance.as_str(), it.up, it.flushes, it.commands, it.flush_p99_ms, it.batch_mean))
        .collect();
    assert_eq!(told, [("order-1", true, 4.0, 40.0, Some(495.0), Some(10.0)), ("order-2", false, 0.0, 0.0, None, None)]);
    assert_eq!((now.breakers[0].open, now.breakers[0].trips), (true, 1));
    assert_eq!(whats(&now), ["the breaker of stock opened"]);
}

#[test]
fn doubt_lasts_from_when_it_was_first_seen() {
    let doubts = |count: u64| vec![says("order-1", 1, &format!("{LEADS}settle_transactions_in_doubt {count}"))];
    let mut history = History::new();
    let levels: Vec<Level> = (0..12).map(|_| history.second(doubts(1)).verdict.level).collect();
    assert_eq!(levels.iter().position(|level| *level == Level::Warning), Some(10));
    history.second(doubts(0));
    assert_eq!(history.second(doubts(1)).verdict.level, Level::Unknown, "nobody audits");
}

#[test]
fn processor_time_is_told_by_whoever_knows_it_best() {
    let mut history = History::new();
    let told =
        |seconds: f64| vec![Seen { processor_seconds: Some(seconds), ..Seen::new("redis-1", Kind::Redis, State::Up) }];
    assert_eq!(history.second(told(10.0)).instances[0].cpu_percent, None);
    assert_eq!(history.second(told(10.25)).instances[0].cpu_percent, Some(25.0));
    // Started again.
    assert_eq!(history.second(told(0.1)).instances[0].cpu_percent, None);
    let own = |seconds: f64| {
        vec![says("shop", 1, &format!("process_cpu_seconds_total {seconds}\nprocess_resident_memory_bytes 4096"))]
    };
    let mut history = History::new();
    history.second(own(1.0));
    let snapshot = history.second(own(1.5));
    assert_eq!((snapshot.instances[0].cpu_percent, snapshot.instances[0].memory_bytes), (Some(50.0), Some(4096)));
}

#[test]
fn a_clock_that_is_set_back_turns_nothing_back() {
    let mut collector = Collector::new(Titles::default());
    collector.look(5_000, vec![committed("order-1", 1, 1)]);
    assert_eq!(collector.look(1_000, vec![committed("order-1", 1, 2)]).at, 5_000);
}

#[test]
fn what_comes_up_for_the_first_time_is_not_back() {
    let is = |state| vec![Seen::new("redis-1", Kind::Redis, state)];
    let mut history = History::new();
    history.second(is(State::Starting));
    assert_eq!(whats(&history.second(is(State::Up))), [""; 0]);
    for state in [State::Frozen, State::Up, State::Draining, State::Down, State::Starting] {
        history.second(is(state));
    }
    let last = history.second(is(State::Up));
    let expected =
        ["redis-1 is frozen", "redis-1 is back", "redis-1 is draining", "redis-1 is down", "redis-1 is back"];
    assert_eq!(whats(&last), expected);
    // Marks are kept for ten minutes.
    history.at += 596_000;
    assert_eq!(whats(&history.second(is(State::Up))), expected[2..]);
}

#[test]
fn a_program_that_another_one_became_began_later_than_its_process() {
    let told = "settle_start_time_seconds 1763749990.5";
    let earlier = says("order-1", BEGIN / 1_000 - 300, told);
    assert_eq!(History::new().second(vec![earlier]).instances[0].started, Some(BEGIN - 9_500));
    // In whichever sequence they are told.
    let text = format!("{told}\nprocess_start_time_seconds 1763740000\n# EOF\n");
    assert_eq!(Figures::of(&parse(&text)).started, 1_763_749_990.5);
}

#[test]
fn a_process_that_began_lately_has_its_start_told_and_so_has_one_that_began_anew() {
    let begin = BEGIN / 1_000;
    let mut history = History::new();
    let first = history.second(vec![committed("order-1", begin - 60, 1), committed("order-2", begin - 3_600, 1)]);
    assert_eq!(first.instances[0].started, Some(BEGIN - 60_000));
    assert_eq!(first.marks, [Mark::new(BEGIN - 60_000, "order-1 started".to_owned())], "the other is old");
    // The other is killed and started again within a second: nobody saw it down.
    let last = history.second(vec![committed("order-1", begin - 60, 1), committed("order-2", begin + 1, 1)]);
    assert_eq!(whats(&last), ["order-1 started", "order-2 started"]);
    assert_eq!(last.marks[1].at, BEGIN + 1_000);
    history.at += 600_000;
    let later = vec![committed("order-1", begin - 60, 1), committed("order-2", begin + 1, 1)];
    assert_eq!(whats(&history.second(later)), [""; 0], "once each");
}

#[test]
fn a_process_is_not_said_to_start_before_the_one_that_it_replaces_is_down() {
    let mut history = History { collector: Collector::new(Titles::default()), at: BEGIN + 500 };
    history.second(vec![committed("order-1", 1, 1)]);
    history.second(vec![gone("order-1")]);
    // It began behind that look, and tells the whole second before it.
    let last = history.second(vec![committed("order-1", (BEGIN + 2_000) / 1_000, 1)]);
    assert_eq!(whats(&last), ["order-1 is down", "order-1 started", "order-1 is back"]);
    assert!(last.marks.is_sorted_by_key(|mark| mark.at));
}

#[test]
fn what_was_told_before_a_crash_goes_on_behind_it() {
    let says = |started: u64, trips: u64| {
        let text = format!(
            "settle_breaker_open{{service=\"stock\"}} 0\nsettle_breaker_trips_total{{service=\"stock\"}} {trips}"
        );
        says("shop", started, &text)
    };
    let mut before = History { collector: Collector::new(Titles::default()), at: BEGIN + 500 };
    for trips in [0, 2, 2] {
        before.second(vec![says(1, trips)]);
    }
    let last = before.at;
    let titles = Titles { title: "settle serve".to_owned(), ..Titles::default() };
    let mut after = History { collector: Collector::new(titles), at: last + 4_000 };
    after.collector.resume(before.collector.told().clone(), last + 1_000, None, Answers::default());
    // It began in the second in which the other ended, and tells that second in whole.
    let first = after.second(vec![says(last / 1_000 + 1, 0)]);
    let expected = ["stock: breaker opened 2 times, now closed", "settle serve was killed, or crashed", "shop started"];
    assert_eq!(whats(&first), expected);
    assert_eq!(first.marks[1].at, last + 1_000);
    assert!(first.marks.is_sorted_by_key(|mark| mark.at), "{:?}", first.marks);
    // What is counted by topic is counted on.
    let next = after.second(vec![says(last / 1_000 + 1, 1)]);
    assert_eq!(whats(&next).last(), Some(&"stock: breaker opened 3 times, now closed"));
}

#[test]
fn a_replica_that_is_promoted_is_news() {
    let is = |role: &str| vec![Seen { role: Some(role.to_owned()), ..Seen::new("redis-2", Kind::Redis, State::Up) }];
    let mut history = History::new();
    history.second(is("replica"));
    assert_eq!(whats(&history.second(is("master"))), ["redis-2 is master"]);
    assert_eq!(whats(&history.second(is("replica"))).len(), 1, "that it is one no more is the other's news");
}

#[test]
fn a_breaker_that_opened_and_closed_between_two_looks_is_news_all_the_same() {
    let says = |started: u64, trips: u64, open: u8| {
        let text = format!(
            "settle_breaker_open{{service=\"stock\"}} {open}\nsettle_breaker_trips_total{{service=\"stock\"}} {trips}"
        );
        says("order-1", started, &text)
    };
    let mut history = History::new();
    history.second(vec![Seen::new("order-1", Kind::Order, State::Down)]);
    assert_eq!(whats(&history.second(vec![says(1, 6, 0)])), [""; 0], "what it counted before is no news");
    assert_eq!(
        whats(&history.second(vec![says(1, 7, 0)])),
        ["the breaker of stock opened", "the breaker of stock closed"]
    );
    let opened = history.at;
    // What happens again stands in one mark with the first time, and nothing else is pushed out.
    history.second(vec![says(1, 7, 0)]);
    let often = history.second(vec![says(1, 10, 1)]);
    assert_eq!(whats(&often), ["stock: breaker opened 4 times, now open"]);
    assert_eq!((often.marks[0].since, often.marks[0].at), (opened, history.at));
    assert_eq!(whats(&history.second(vec![says(1, 10, 0)])), ["stock: breaker opened 4 times, now closed"]);
    // Started again, its counter begins at 0: once is once.
    let others =
        |snapshot: &Snapshot| whats(snapshot).into_iter().rfind(|it| it.contains("breaker")).map(str::to_owned);
    let anew = history.second(vec![says(2, 1, 1)]);
    assert_eq!(others(&anew).as_deref(), Some("stock: breaker opened 5 times, now open"));
    // Long after, it is news of its own again.
    history.at += 700_000;
    history.second(vec![says(2, 1, 0)]);
    history.at += 700_000;
    history.second(vec![says(2, 1, 0)]);
    assert_eq!(whats(&history.second(vec![says(2, 2, 1)])), ["the breaker of stock opened"]);
}

#[test]
fn what_gets_stuck_and_is_settled_again_is_told_and_not_every_second() {
    let stuck = |count: u64| vec![says("shop", 1, &format!("settle_leader 1\nsettle_transactions_stuck {count}"))];
    let mut history = History::new();
    for count in [0, 1, 5, 9, 400, 1_000, 1_000, 12, 0, 0] {
        history.second(stuck(count));
    }
    let last = history.second(stuck(2));
    assert_eq!(
        whats(&last),
        [
            "1,000 or more transactions became stuck",
            "nothing is stuck any more; 1,000 or more transactions were",
            "2 transactions became stuck"
        ]
    );
    // Nobody leads: nobody counts, and nothing is said to be settled.
    history.second(vec![says("shop", 1, "settle_leader 0\nsettle_transactions_stuck 0")]);
    assert_eq!(history.second(stuck(2)).marks.len(), 3);
}

#[test]
fn a_fault_that_struck_and_was_used_up_between_two_looks_is_told_all_the_same() {
    let is = |name: &str, times: u64| {
        says(
            name,
            1,
            &format!(
                "settle_faults_struck_total{{service=\"stock\",point=\"before_abort\",action=\"error\"}} {times}\n"
            ),
        )
    };
    let mut history = History::new();
    assert_eq!(whats(&history.second(vec![is("stock-1", 7), is("stock-2", 0)])), [""; 0], "of before");
    let once = history.second(vec![is("stock-1", 7), is("stock-2", 1)]);
    assert_eq!(whats(&once), ["a fault struck: stock before abort: fails"]);
    let often = history.second(vec![is("stock-1", 17), is("stock-2", 10)]);
    assert_eq!(whats(&often), ["a fault struck 20 times: stock before abort: fails"]);
    assert_eq!((often.struck.len(), often.struck[0].times), (1, 27));
}

#[test]
fn whoever_watches_and_stood_still_says_so() {
    let mut history =
        History { collector: Collector::new(Titles { title: "settle up".to_owned(), ..Titles::default() }), at: BEGIN };
    let last = history.second(vec![committed("order-1", 1, 1)]).at;
    history.collector.stood_still(last, 6_400);
    history.at += 6_000;
    let now = history.second(vec![committed("order-1", 1, 1)]);
    assert_eq!(now.marks, [Mark::new(last + 500, "settle up stood still for about 6 s".to_owned())]);
}

#[test]
fn faults_that_are_set_are_told_once_for_all_instances() {
    let is = |name: &str, prepare: u8, commit: u8| {
        let of = |point: &str, action: &str, set: u8| {
            format!("settle_faults_active{{service=\"payment\",point=\"{point}\",action=\"{action}\"}} {set}\n")
        };
        let never = of("before_prepare", "crash", 0);
        says(name, 1, &(of("before_prepare", "delay", prepare) + &never + &of("after_commit", "error", commit)))
    };
    let mut history = History::new();
    assert_eq!(history.second(vec![is("payment-1", 0, 0), is("payment-2", 0, 0)]).faults, []);
    let set = history.second(vec![is("payment-1", 1, 1), is("payment-2", 1, 1)]);
    let words: Vec<String> = set.faults.into_iter().map(|it| it.words).collect();
    assert_eq!(words, ["payment after commit: fails", "payment before prepare: waits"]);
    let last = history.second(vec![is("payment-1", 1, 0), is("payment-2", 1, 0)]);
    assert_eq!(
        whats(&last),
        [
            "faults set: payment after commit: fails, payment before prepare: waits",
            "faults cleared: payment after commit: fails"
        ]
    );
}

#[test]
fn a_fault_that_strikes_by_chance_says_how_often_and_one_in_its_place_clears_nothing() {
    let is = |action: &str, share: f64| {
        let of = format!("service=\"payment\",point=\"before_prepare\",action=\"{action}\"");
        vec![says("payment-1", 1, &format!("settle_faults_active{{{of}}} {share}"))]
    };
    let mut history = History::new();
    for (action, share) in [("error", 0.0), ("error", 0.2), ("delay", 0.07), ("delay", 0.001), ("delay", 1.0)] {
        history.second(is(action, share));
    }
    let last = history.second(is("delay", 0.0));
    assert_eq!(
        whats(&last),
        [
            "faults set: payment before prepare: fails in 20 % of cases",
            "faults set: payment before prepare: waits in 7 % of cases",
            "faults set: payment before prepare: waits in 1 % of cases",
            "faults set: payment before prepare: waits",
            "faults cleared: payment before prepare: waits"
        ]
    );
}

#[test]
fn a_fault_says_what_it_does() {
    for (action, words) in [
        ("crash", "stock before prepare: crashes the process"),
        ("delay", "stock before prepare: waits"),
        ("error", "stock before prepare: fails"),
        ("error_after", "stock before prepare: does it, and fails"),
        ("of_a_later_version", "stock before prepare: of a later version"),
        ("", "stock before prepare"),
    ] {
        let [service, point, action] = ["stock", "before_prepare", action].map(str::to_owned);
        assert_eq!(Fault::new(service, point, action, 100).words, words);
    }
    for (action, words) in [
        ("crash", "stock before prepare: crashes the process in 20 % of cases"),
        ("error_after", "stock before prepare: does it, and fails, in 20 % of cases"),
        ("", "stock before prepare: in 20 % of cases"),
    ] {
        let [service, point, action] = ["stock", "before_prepare", action].map(str::to_owned);
        assert_eq!(Fault::new(service, point, action, 20).words, words);
    }
}

#[test]
fn what_services_do_not_answer_and_are_asked_again_is_told() {
    let is = |name: &str, done: u64, unknown: u64, retried: u64| {
        let of = |result: &str, count: u64| {
            format!(
                "settle_participant_commands_total{{service=\"payment\",verb=\"prepare\",result=\"{result}\"}} {count}\n"
            )
        };
        let retries = format!("settle_participant_retries_total{{service=\"payment\"}} {retried}");
        says(name, 1, &(of("done", done) + &of("unknown", unknown) + &retries))
    };
    let mut history = History::new();
    history.second(vec![is("order-1", 0, 0, 0), is("order-2", 10, 10, 10)]);
    let now = history.second(vec![is("order-1", 80, 20, 7), is("order-2", 90, 15, 11)]);
    let expected =
        Service { service: "payment".to_owned(), commands: 185.0, unanswered: 25.0, retries: 8.0, dead_letters: 0 };
    assert_eq!(now.services, [expected]);
}
