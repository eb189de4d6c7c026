//! Whole runs against a shop in memory that is right, or wrong in exactly one way.
#![allow(clippy::unwrap_used, reason = "in a test a broken expectation is a failed test")]

mod common;

use std::process::ExitCode;
use std::time::Duration;

use common::{Fault, Server};
use load::audit::{Finding, Verdict};
use load::interrupt::Interrupt;
use load::report::{Audit, OperationReport, Reason};
use load::tally::Operation;
use load::{LoadError, Report, run, run_until};

/// 200 orders over 10 items and 20 users: enough that every connection has work.
const SMALL: &str = "--orders 200 --items 10 --users 20 --price 5";

fn small_run(server: &Server, more: &str) -> Report {
    run(&server.args(&format!("{SMALL} {more}"))).unwrap()
}

fn verdict(report: &Report) -> &Verdict {
    match &report.audit {
        Audit::Done(verdict) => verdict,
        other => panic!("no audit: {other:?}"),
    }
}

fn checkouts(report: &Report) -> &OperationReport {
    report.operation(Operation::Checkout).unwrap()
}

fn assert_ok(report: &Report) {
    assert!(verdict(report).is_clean(), "{:?}", verdict(report).findings);
    assert_eq!(report.exit_code(), ExitCode::SUCCESS);
}

/// The run must end with exactly these findings and exit code 1.
fn assert_finds(report: &Report, findings: &[Finding]) {
    assert_eq!(verdict(report).findings, findings);
    assert_eq!(report.exit_code(), ExitCode::from(1));
    for finding in findings {
        assert!(report.to_text().contains(&finding.to_string()), "{}", report.to_text());
    }
}

#[test]
fn an_honest_server_sells_each_order_once_and_passes() {
    let server = Server::start(Fault::None);
    let report = small_run(&server, "--threads 2");
    assert_ok(&report);
    assert_eq!((server.checkouts(), report.committed, report.requests), (200, 200, 200));
    let verdict = verdict(&report);
    assert_eq!((verdict.newly_paid, verdict.money, verdict.units), (200, 2_000, 400));
    let checkouts = checkouts(&report);
    assert_eq!((checkouts.refused, checkouts.failed), (0, 0));
    let in_buckets: u64 = checkouts.committed_latency_us.histogram.iter().map(|(_, count)| count).sum();
    assert_eq!(in_buckets, 200);
    assert_eq!(report.seconds.iter().map(|second| second.committed).sum::<u64>(), 200);
}

#[test]
fn a_user_charged_twice_is_named_with_the_amount() {
    let server = Server::start(Fault::ChargeTwice("17"));
    let report = small_run(&server, "--credit 1000");
    let (user, cost) = server.payer("17");
    let expected = 1000 - 10 * i128::from(cost);
    let off_by = -i128::from(cost);
    assert_finds(&report, &[Finding::Credit { user: user.into(), expected, actual: expected + off_by, off_by }]);
}

#[test]
fn a_lost_unit_is_named_with_its_item() {
    let server = Server::start(Fault::LoseUnit("17"));
    let report = small_run(&server, "");
    let item = server.first_item("17");
    match verdict(&report).findings.as_slice() {
        [Finding::Stock { item: named, expected, actual, off_by: -1 }] => {
            assert_eq!((&**named, *actual), (item.as_str(), expected - 1));
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(report.exit_code(), ExitCode::from(1));
}

#[test]
fn a_sale_that_never_happened_is_named() {
    let server = Server::start(Fault::SayPaid("17"));
    assert_finds(&small_run(&server, ""), &[Finding::SoldButUnpaid { order: "17".into() }]);
}

#[test]
fn a_refusal_that_was_a_sale_is_named() {
    let server = Server::start(Fault::SayRefused("17"));
    let report = small_run(&server, "");
    assert_finds(&report, &[Finding::RefusedButPaid { order: "17".into(), status: 400 }]);
    assert_eq!(checkouts(&report).refused_by, [Reason { reason: "400 rolled_back".into(), count: 1 }]);
}

#[test]
fn a_connection_lost_in_mid_answer_is_neither_refused_nor_sent_again() {
    for (fault, sold) in [(Fault::BreakOff("17"), 200), (Fault::BreakOffUnsold("17"), 199)] {
        let server = Server::start(fault);
        let report = small_run(&server, "");
        assert_ok(&report);
        assert_eq!(server.checkouts(), 200, "sent once each, and the connection was made anew");
        let checkouts = checkouts(&report);
        assert_eq!((checkouts.committed, checkouts.refused, checkouts.failed), (199, 0, 1));
        assert_eq!(checkouts.failed_by, [Reason { reason: "connection lost".into(), count: 1 }]);
        assert_eq!(verdict(&report).newly_paid, sold);
    }
}

#[test]
fn a_500_is_no_refusal() {
    let server = Server::start(Fault::InternalError("17"));
    let report = small_run(&server, "");
    assert_ok(&report);
    let checkouts = checkouts(&report);
    assert_eq!((checkouts.committed, checkouts.refused, checkouts.failed), (199, 0, 1));
    assert_eq!(checkouts.failed_by, [Reason { reason: "500".into(), count: 1 }]);
}

#[test]
fn sold_out_refuses_about_half_and_leaks_nothing() {
    let server = Server::start(Fault::None);
    let report = small_run(&server, "--scenario sold-out");
    assert_ok(&report);
    let checkouts = checkouts(&report);
    assert!((70..=100).contains(&checkouts.committed), "{}", checkouts.committed);
    assert_eq!(checkouts.refused_by[0].reason, "409 insufficient_stock");
    assert_eq!(checkouts.refused, 200 - checkouts.committed);
}

#[test]
fn hot_item_sells_two_units_of_item_0_to_everyone() {
    let server = Server::start(Fault::None);
    let report = run(&server.args("--scenario hot-item --orders 200 --users 20")).unwrap();
    assert_ok(&report);
    assert_eq!((verdict(&report).items, verdict(&report).units, report.committed), (1, 400, 200));
}

#[test]
fn mixed_measures_each_kind_of_request() {
    let server = Server::start(Fault::None);
    let flags = "--scenario mixed --items 10 --users 20 --requests 503 --duration 60s";
    let report = run(&server.args(flags)).unwrap();
    assert_ok(&report);
    assert_eq!(report.requests, 503);
    let count = |operation| report.operation(operation).unwrap().requests;
    assert_eq!(report.committed, count(Operation::Checkout));
    assert!(count(Operation::AddItem) >= 2 * count(Operation::Find));
    assert_eq!(verdict(&report).orders, count(Operation::Create));
    assert_eq!(verdict(&report).units, 2 * i128::from(report.committed));
}

#[test]
fn mixed_finds_a_double_charge_too() {
    let server = Server::start(Fault::ChargeTwice("3"));
    let flags = "--scenario mixed --items 10 --users 20 --requests 500 --duration 60s --price 7";
    let report = run(&server.args(flags)).unwrap();
    match verdict(&report).findings.as_slice() {
        [Finding::Credit { user, off_by: -14, .. }] => assert_eq!(**user, *server.payer("3").0),
        other => panic!("{other:?}"),
    }
}

#[test]
fn ids_as_numbers_and_items_as_an_object_are_understood() {
    let server = Server::start(Fault::LooseTypes);
    assert_ok(&small_run(&server, ""));
    let report = run(&server.args("--scenario consistency --orders 50 --stock 7")).unwrap();
    assert_ok(&report);
    assert_eq!(report.committed, 7);
}

#[test]
fn consistency_sells_exactly_100() {
    let server = Server::start(Fault::None);
    // Fewer connections than orders: the limit of open files counts both ends in this process.
    let report = run(&server.args("--scenario consistency --connections 300")).unwrap();
    assert_ok(&report);
    let sales = report.sales.unwrap();
    assert_eq!((sales.expected, sales.sold, report.committed), (100, 100, 100));
    let checkouts = checkouts(&report);
    assert_eq!((checkouts.requests, checkouts.refused), (1000, 900));
    assert_eq!((verdict(&report).money, verdict(&report).units), (100, 100));
}

#[test]
fn a_server_that_sells_101_fails() {
    let server = Server::start(Fault::Oversell);
    let report = run(&server.args("--scenario consistency --connections 300")).unwrap();
    let sales = report.sales.unwrap();
    assert_eq!((sales.expected, sales.sold), (100, 101));
    assert!(!sales.is_exact());
    match verdict(&report).findings.as_slice() {
        [Finding::Stock { expected: -1, actual: 0, off_by: 1, .. }] => {}
        other => panic!("{other:?}"),
    }
    assert_eq!(report.exit_code(), ExitCode::from(1));
}

#[test]
fn an_open_loop_shows_a_stall_in_every_request_that_was_due_in_it() {
    let stall = Fault::StallOnce { at: 100, time: Duration::from_millis(300) };
    let server = Server::start(stall);
    let flags = "--scenario get:/fixed --connections 2 --rate 1000 --requests 1000 --duration 30s";
    let report = run(&server.args(flags)).unwrap();
    let latency = &report.operation(Operation::Fixed).unwrap().committed_latency_us;
    assert_eq!(latency.count, 1000);
    // 300 requests were due during the stall and waited 150 ms on average. Counted from when they were sent, two
    // would show it (one per connection), and neither p90 nor p99 would move.
    assert!(latency.max >= 290_000, "max {}", latency.max);
    assert!(latency.p99 >= 250_000, "p99 {}", latency.p99);
    assert!(latency.p90 >= 150_000, "p90 {}", latency.p90);
    assert_eq!(report.overdue, 0);
}

#[test]
fn a_closed_loop_shows_a_stall_once_per_connection() {
    let stall = Fault::StallOnce { at: 100, time: Duration::from_millis(300) };
    let server = Server::start(stall);
    let flags = "--scenario post:/fixed --connections 2 --requests 1000 --duration 30s";
    let report = run(&server.args(flags)).unwrap();
    let latency = &report.operation(Operation::Fixed).unwrap().committed_latency_us;
    let stalled = latency.histogram.iter().filter(|(us, _)| *us >= 250_000);
    let stalled: u64 = stalled.map(|(_, count)| count).sum();
    assert!((1..=2).contains(&stalled), "{stalled} of {latency:?}");
    assert_eq!(report.audit, Audit::NotApplicable);
}

#[test]
fn a_run_keeps_to_its_bounds() {
    let server = Server::start(Fault::None);
    let report = small_run(&server, "--requests 50");
    assert_ok(&report);
    assert_eq!((server.checkouts(), report.requests, verdict(&report).newly_paid), (50, 50, 50));
    let report = run(&server.args("--scenario get:/fixed --duration 200ms")).unwrap();
    assert!(report.requests > 0);
    assert!((0.1..2.0).contains(&report.elapsed_seconds), "{}", report.elapsed_seconds);
    let report = run(&server.args("--scenario get:/fixed --rate 100 --duration 300ms")).unwrap();
    assert!((1..=30).contains(&report.requests), "{}", report.requests);
}

/// A run that is interrupted as soon as so much has arrived.
fn run_interrupted(server: &Server, flags: &str, has_arrived: impl Fn() -> bool + Sync) -> Result<Report, LoadError> {
    let interrupt = Interrupt::default();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !has_arrived() {
                std::thread::sleep(Duration::from_millis(1));
            }
            interrupt.ask();
        });
        run_until(&server.args(flags), &interrupt)
    })
}

#[test]
fn an_interrupted_run_is_told_written_and_audited_as_far_as_it_went() {
    let server = Server::start(Fault::None);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("result.json");
    let flags = format!("{SMALL} --rate 100 --duration 10m --json {}", path.display());
    let report = run_interrupted(&server, &flags, || server.checkouts() >= 20).unwrap();
    assert_ok(&report);
    assert!((20..100).contains(&report.committed), "{}", report.committed);
    assert_eq!((server.checkouts(), verdict(&report).newly_paid), (report.committed, report.committed));
    let after = report.interrupted_after_seconds.unwrap();
    assert!((0.1..30.0).contains(&after), "{after}");
    let told = format!("Interrupted after {after:.1} s, of 600 s at most: all this is of what was sent until then.");
    assert!(report.to_text().contains(&told), "{}", report.to_text());
    assert_eq!(report.overdue, 0);
    let json: serde_json::Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    assert_eq!(json["interrupted_after_seconds"], after);
    assert!(json["elapsed_seconds"].as_f64().unwrap() < 30.0);
}

#[test]
fn what_is_under_way_when_a_run_is_interrupted_is_answered() {
    let server = Server::start(Fault::StallOnce { at: 100, time: Duration::from_millis(300) });
    let flags = "--scenario get:/fixed --duration 10m";
    let report = run_interrupted(&server, flags, || server.requests() >= 100).unwrap();
    let fixed = report.operation(Operation::Fixed).unwrap();
    assert_eq!((fixed.committed, fixed.failed), (server.requests(), 0), "{:?}", fixed.failed_by);
    assert!(fixed.committed_latency_us.max >= 200_000, "the stall was waited for");
}

#[test]
fn an_interrupted_sale_to_everybody_is_not_judged_by_what_it_did_not_sell() {
    let server = Server::start(Fault::None);
    let flags = "--scenario consistency --connections 1 --orders 1000 --stock 900";
    let report = run_interrupted(&server, flags, || server.checkouts() >= 10).unwrap();
    assert_ok(&report);
    assert_eq!(report.sales, None);
    assert!(report.to_text().contains("Consistency NOT JUDGED"), "{}", report.to_text());
}

#[test]
fn a_run_that_is_interrupted_before_the_load_says_so() {
    let server = Server::start(Fault::None);
    let error = run_interrupted(&server, SMALL, || true);
    // Asked in the same moment, it may have got as far as the reading.
    let error = error.unwrap_err().to_string();
    assert!(error.starts_with("interrupted while ") && error.ends_with("nothing was measured"), "{error}");
    assert_eq!(server.checkouts(), 0);
}

#[test]
fn without_seeding_the_state_found_is_the_start() {
    let server = Server::start(Fault::None);
    assert_ok(&small_run(&server, "--requests 50"));
    server.set_stock("3", 12_345);
    // 50 orders are paid already: asked for again they are answered 200 and charged nothing.
    let report = small_run(&server, "--no-seed");
    assert_ok(&report);
    assert_eq!((report.committed, verdict(&report).newly_paid), (200, 150));
    match run(&server.args("--no-seed --orders 201 --items 10 --users 20")) {
        Err(LoadError::Missing { id, .. }) => assert_eq!(&*id, "200"),
        other => panic!("{other:?}"),
    }
}

/// A server may close a connection between two requests without a word; nothing was sent, so nothing is lost.
#[test]
fn an_idle_connection_that_the_server_closed_is_no_failure() {
    use std::io::{Read, Write};
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let server = std::thread::spawn(move || {
        // The first connection only shows the run that somebody is there.
        for number in 0..6 {
            let (mut connection, _) = listener.accept().unwrap();
            if number > 0 {
                assert!(connection.read(&mut [0; 1024]).unwrap() > 0);
                connection.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").unwrap();
            }
        }
    });
    let contract = Server::start(Fault::None);
    // Ten per second: the end of a connection has a tenth of a second to arrive before the next request is due.
    let flags = "--scenario get:/x --connections 1 --rate 10 --requests 5 --duration 60s";
    let mut args = contract.args(flags);
    args.url = url;
    let report = run(&args).unwrap();
    let fixed = report.operation(Operation::Fixed).unwrap();
    assert_eq!((fixed.committed, fixed.failed), (5, 0), "{:?}", fixed.failed_by);
    // Only now: with fewer connections than expected it would wait for the missing ones.
    server.join().unwrap();
}

#[test]
fn nobody_at_the_address_is_said_so() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    drop(listener);
    let server = Server::start(Fault::None);
    let mut args = server.args("--timeout 100ms --threads 2");
    args.url = url.clone();
    let error = run(&args).unwrap_err();
    assert!(matches!(error, LoadError::Unreachable { .. }), "{error}");
    assert!(error.to_string().contains(&url));
}

/// A run whose server is killed under load, and never comes back.
fn run_until_the_server_is_gone(flags: &str) -> (Report, Server) {
    let server = Server::start(Fault::None);
    let report = std::thread::scope(|scope| {
        scope.spawn(|| {
            while server.checkouts() < 20 {
                std::thread::sleep(Duration::from_millis(1));
            }
            server.kill();
        });
        small_run(&server, flags)
    });
    (report, server)
}

#[test]
fn a_server_that_is_gone_is_not_one_that_does_not_keep_up() {
    let (report, server) = run_until_the_server_is_gone("--rate 100 --duration 1s --timeout 300ms");
    let gone = report.server_gone_since_seconds.unwrap();
    assert!((0.1..1.0).contains(&gone), "{gone}");
    assert!(report.overdue > 0 && checkouts(&report).failed > 0);
    let text = report.to_text();
    for line in [
        format!("Nobody listens at {} any more: the last answer came {gone:.1} s into the run.", server.url),
        format!("{} requests were due and never sent: there was nobody to send them to.", report.overdue),
    ] {
        assert!(text.contains(&line), "{line}\nis not in\n{text}");
    }
    assert!(!text.contains("does not keep up"), "{text}");
    assert!(
        matches!(&report.audit, Audit::Impossible(why) if why.ends_with("nobody listens any more")),
        "{:?}",
        report.audit
    );
}

#[test]
fn a_state_that_cannot_be_read_before_the_load_says_when_and_what_to_do() {
    let server = Server::start(Fault::Unreadable("17"));
    let error = run(&server.args(SMALL)).unwrap_err().to_string();
    assert!(error.starts_with("cannot read order 17: answered 424 order_unavailable, while reading "), "{error}");
    assert!(error.contains("before the load: no checkout was sent") && error.contains("`settle doctor`"), "{error}");
}

#[test]
fn the_file_holds_the_whole_run() {
    let server = Server::start(Fault::ChargeTwice("17"));
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("result.json");
    small_run(&server, &format!("--json {}", path.display()));
    let text = std::fs::read_to_string(&path).unwrap();
    let json: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(json["config"]["scenario"], "uniform");
    assert_eq!(json["config"]["sizes"]["orders"], 200);
    assert_eq!(json["committed"], 200);
    assert_eq!(json["operations"][0]["operation"], "checkout");
    assert_eq!(json["audit"]["done"]["findings"][0]["finding"], "credit");
    assert_eq!(json["audit"]["done"]["findings"][0]["off_by"], -10);
    assert!(json["started_at_unix_ms"].as_u64().unwrap() > 1_600_000_000_000);
    let buckets = json["operations"][0]["all_latency_us"]["histogram"].as_array().unwrap();
    assert_eq!(buckets.iter().map(|bucket| bucket[1].as_u64().unwrap()).sum::<u64>(), 200);
    assert_eq!(json["seconds"][0]["requests"].as_u64().map(|n| n > 0), Some(true));
    let slowest = json["seconds"].as_array().unwrap().iter().map(|second| second["slowest_us"].as_u64().unwrap()).max();
    // The histogram knows a latency to three digits, the second to the microsecond.
    let highest = buckets.last().unwrap()[0].as_u64().unwrap();
    assert!(slowest.unwrap() <= highest && slowest.unwrap() >= highest - highest / 500, "{slowest:?}, {highest}");
    assert!(json["operations"][0]["all_latency_us"]["p9999"].as_u64().unwrap() <= highest);
    assert_eq!(json["settle_version"], env!("CARGO_PKG_VERSION"));
}
