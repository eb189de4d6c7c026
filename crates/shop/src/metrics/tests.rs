use std::collections::BTreeSet;
use std::path::Path;

use orchestrator::{Observation, Observer, Outcome, TurnedAway};
use protocol::{BranchId, BranchState, Refusal, Reply, TransactionId};

use super::*;
use crate::faults::{Fault, Faults, Moment, Rule};

const BEGIN: &str = "<!-- METRICS BEGIN -->\n";
const END: &str = "<!-- METRICS END -->";

/// docs/metrics.md holds the list between two marks. `UPDATE_DOCS=1` writes it anew.
#[test]
fn every_metric_is_documented_and_every_documented_metric_exists() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/metrics.md");
    let text = std::fs::read_to_string(&path).unwrap();
    let (before, rest) = text.split_once(BEGIN).unwrap();
    let (listed, after) = rest.split_once(END).unwrap();
    let mut expected = "| metric | kind | labels | what it says |\n|---|---|---|---|\n".to_owned();
    for Known { name, kind, labels, help } in Metrics::default().known() {
        expected.push_str(&format!("| `{name}` | {kind} | {} | {help} |\n", labels.join(", ")));
    }
    if std::env::var_os("UPDATE_DOCS").is_some() {
        std::fs::write(&path, format!("{before}{BEGIN}{expected}{END}{after}")).unwrap();
        return;
    }
    assert_eq!(listed, expected, "docs/metrics.md is out of date: UPDATE_DOCS=1 cargo test -p settle-shop metrics");
}

/// Whatever people are told to look at is there to be looked at.
#[test]
fn what_documents_and_alerts_speak_of_is_exported() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let mut folders = vec![root.join("docs"), root.join("deploy")];
    let mut files = vec![root.join("README.md")];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
            if entry.is_dir() { folders.push(entry) } else { files.push(entry) }
        }
    }
    let metrics = Metrics::default();
    let known: BTreeSet<&str> = metrics.known().iter().map(|known| known.name.as_str()).collect();
    let is_known = |word: &str| {
        let suffixes = ["", "_total", "_bucket", "_sum", "_count", "_info"];
        suffixes.iter().any(|suffix| word.strip_suffix(suffix).is_some_and(|name| known.contains(name)))
    };
    let mut spoken_of = 0;
    for file in files {
        // Pictures are no text.
        let Ok(text) = std::fs::read_to_string(&file) else { continue };
        let words = text.split(|c: char| !(c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_'));
        for word in words.filter(|word| word.starts_with("settle_")) {
            assert!(is_known(word), "{}: nothing exports {word}", file.display());
            spoken_of += 1;
        }
    }
    assert!(spoken_of > 50, "{spoken_of}");
}

/// Every alert is tested both ways, and sends people to a section that exists. (`promtool` runs the tests.)
#[test]
fn every_alert_is_tested_and_has_a_section_in_the_handbook() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let read = |file: &str| std::fs::read_to_string(root.join(file)).unwrap();
    let (rules, tests) = (read("deploy/observability/rules.yml"), read("deploy/observability/rules.test.yml"));
    let alerts: Vec<&str> = rules.lines().filter_map(|line| line.trim().strip_prefix("- alert: ")).collect();
    assert!(alerts.len() > 10, "{alerts:?}");
    for alert in &alerts {
        for way in ["fires", "is silent"] {
            assert!(tests.contains(&format!("- name: {alert} {way}\n")), "no test in which {alert} {way}");
        }
    }
    let runbooks: Vec<&str> = rules.lines().filter_map(|line| line.trim().strip_prefix("runbook: ")).collect();
    assert_eq!(runbooks.len(), alerts.len(), "an alert without a runbook");
    for runbook in runbooks {
        let (file, section) = runbook.split_once('#').unwrap();
        let anchor = |title: &str| title.to_lowercase().replace(' ', "-").replace('`', "");
        let text = read(file);
        let mut titles =
            text.lines().filter_map(|line| line.strip_prefix('#')).map(|line| line.trim_start_matches('#').trim());
        assert!(titles.any(|title| anchor(title) == section), "{runbook} does not exist");
    }
}

/// Counts everything that can be counted, once.
fn full() -> Metrics {
    let metrics = Metrics::default();
    metrics.request("/health", StatusCode::OK, 0.001);
    let service = Name::literal("stock");
    metrics.repaired(service);
    let batches = Batches { commands: vec![1, 2, 3], microseconds: vec![0, 5, 1], seconds: 0.000_02 };
    let store = StoreFigures {
        up: true,
        connections: 2,
        flushes: 6,
        commands: 20,
        unknown: Some(1),
        failovers: Some(4),
        disk_bytes: Some(7),
        batches: Some(batches),
    };
    metrics.store("stock", &store);
    let faults = Faults::new(true);
    faults.set("before_commit".parse().unwrap(), Rule::always(Fault::Error, None));
    let sometimes = Rule { percent: 20, ..Rule::always(Fault::Crash, None) };
    faults.set("after_abort".parse().unwrap(), sometimes);
    for _ in 0..3 {
        faults.strike(Moment::Before, Verb::Commit);
    }
    metrics.faults(&service, &faults);
    metrics.broker("nats", true, &[("sent", 3)]);
    let definition = Name::literal("checkout");
    metrics.orchestrator(&OrchestratorFigures {
        stuck: Some(1),
        leader: true,
        breakers: vec![(service, true)],
        definitions: vec![DefinitionFigures { definition, protocol: Protocol::Saga, fixed: true, abort_percent: 12 }],
        ..OrchestratorFigures::default()
    });
    let id = TransactionId::new(protocol::Timestamp(1), [0; 16]);
    let branch = BranchId { transaction: id, step: 0 };
    let (protocol, outcome) =
        (Protocol::TwoPhase, Outcome::Refused { step: 0, refusal: Refusal::new(Name::literal("insufficient"), "") });
    for observation in [
        Observation::Began { id, definition, protocol },
        Observation::Answered { id, definition, protocol, outcome: &outcome, recovered: false, micros: 250 },
        Observation::Answered { id, definition, protocol, outcome: &outcome, recovered: true, micros: 250 },
        Observation::TurnedAway { definition, why: &TurnedAway::Overloaded },
        Observation::Replied {
            branch,
            service,
            verb: Verb::Prepare,
            attempt: 2,
            reply: &Reply::Unknown(protocol::Unknown::Timeout),
        },
        Observation::Violation { branch, service, verb: Verb::Commit, state: BranchState::Aborted },
        Observation::DeadLetter { branch, service, verb: Verb::Commit, error: "away" },
        Observation::BreakerOpened { service },
        Observation::Switched { definition, protocol },
        Observation::Recovering { transactions: 3 },
        Observation::TookOver { from: Name::literal("order-2"), transactions: 2 },
        Observation::Leads { leads: true },
        Observation::Fenced,
    ] {
        metrics.observe(&observation);
    }
    metrics
}

#[test]
fn every_metric_is_exported_under_its_name_with_its_labels() {
    let metrics = full();
    let text = metrics.text();
    let line = |name: &str| text.lines().find(|line| line.starts_with(name)).map(str::to_owned);
    for Known { name, kind, labels, .. } in metrics.known() {
        let suffix = match *kind {
            "counter" => "_total",
            "histogram" => "_count",
            "info" => "_info",
            _ => "",
        };
        let found = line(&format!("{name}{suffix}")).unwrap_or_else(|| panic!("{name} is not exported:\n{text}"));
        let given: BTreeSet<&str> = match found.split_once('{').and_then(|(_, rest)| rest.rsplit_once('}')) {
            Some((inner, _)) => inner.split("\",").filter_map(|pair| pair.split('=').next()).collect(),
            None => BTreeSet::new(),
        };
        assert_eq!(given, labels.iter().copied().collect(), "{found}");
    }
    let types = text.lines().filter(|line| line.starts_with("# TYPE")).count();
    assert_eq!(types, metrics.known().len(), "nothing else is exported");
}

#[test]
fn figures_are_exported_as_they_are() {
    let text = full().text();
    for line in [
        "settle_http_requests_total{route=\"/health\",status=\"200\"} 1",
        "settle_transactions_total{definition=\"checkout\",protocol=\"2pc\",outcome=\"refused\"} 1",
        "settle_transaction_duration_seconds_bucket{le=\"0.00032\",definition=\"checkout\",protocol=\"2pc\",outcome=\"refused\"} 1",
        "settle_participant_commands_total{service=\"stock\",verb=\"prepare\",result=\"unknown\"} 1",
        "settle_turned_away_total{definition=\"checkout\",why=\"overloaded\"} 1",
        "settle_recovered_transactions_total 3",
        "settle_recovery_runs_total 1",
        "settle_breaker_open{service=\"stock\"} 1",
        "settle_protocol{definition=\"checkout\",protocol=\"saga\"} 1",
        "settle_protocol{definition=\"checkout\",protocol=\"2pc\"} 0",
        "settle_abort_percent{definition=\"checkout\"} 12",
        "settle_faults_active{service=\"stock\",point=\"before_commit\",action=\"error\"} 1.0",
        "settle_faults_active{service=\"stock\",point=\"before_commit\",action=\"error_after\"} 0.0",
        "settle_faults_active{service=\"stock\",point=\"after_abort\",action=\"crash\"} 0.2",
        "settle_faults_struck_total{service=\"stock\",point=\"before_commit\",action=\"error\"} 3",
        "settle_store_batch_commands_bucket{le=\"2.0\",service=\"stock\"} 1",
        "settle_store_batch_commands_bucket{le=\"4.0\",service=\"stock\"} 3",
        "settle_store_batch_commands_bucket{le=\"+Inf\",service=\"stock\"} 6",
        "settle_store_batch_commands_sum{service=\"stock\"} 20.0",
        "settle_store_flush_duration_seconds_count{service=\"stock\"} 6",
        "settle_store_failovers_total{service=\"stock\"} 4",
        "settle_store_connections_total{service=\"stock\"} 2",
        "settle_broker_events_total{broker=\"nats\",event=\"sent\"} 3",
    ] {
        assert!(text.lines().any(|found| found == line), "{line} is not in\n{text}");
    }
}

#[test]
fn the_process_is_measured() {
    let text = Metrics::default().text();
    let value = |name: &str| {
        let line = text.lines().find(|line| line.starts_with(&format!("{name} "))).unwrap();
        line.rsplit(' ').next().unwrap().parse::<f64>().unwrap()
    };
    assert!(value("process_resident_memory_bytes") > 1e6);
    assert!(value("process_open_fds") >= 3.0);
    assert!(value("process_max_fds") >= value("process_open_fds"));
    assert!(value("process_threads") >= 1.0);
    // Some time in this century, and not in the future.
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs_f64();
    assert!((1e9..=now + 0.1).contains(&value("process_start_time_seconds")));
    assert!((now - 600.0..=now).contains(&value("settle_start_time_seconds")));
}

/// From 100 µs to 30 s, a value told as the geometric middle of its bucket is off by less than a fifth; and a second, the goal, is a bound.
#[test]
fn buckets_are_fine_enough_to_tell_percentiles_and_few_enough_to_export() {
    assert_eq!((BUCKETS[0], BUCKETS[BUCKETS.len() - 1]), (0.0001, 30.0));
    assert!(BUCKETS.contains(&1.0) && BUCKETS.len() <= 45);
    for pair in BUCKETS.windows(2) {
        let off = (pair[1] / pair[0]).sqrt();
        assert!(off > 1.0 && off < 1.2, "{pair:?} is off by a factor of {off}");
    }
}

#[test]
fn what_the_leader_alone_knows_is_exported_by_the_leader_alone() {
    let metrics = Metrics::default();
    let [leads, follows] = [true, false].map(|leader| OrchestratorFigures {
        stuck: leader.then_some(40),
        leader,
        ..OrchestratorFigures::default()
    });
    let told = || {
        let text = metrics.text();
        let told = ["settle_transactions_stuck ", "settle_audit_findings ", "settle_audit_last_timestamp_seconds "];
        told.map(|name| text.lines().find_map(|line| line.strip_prefix(name)).map(str::to_owned))
    };
    let said = |values: [&str; 3]| values.map(|value| Some(value.to_owned()));
    metrics.orchestrator(&follows);
    assert_eq!(told(), [None, None, None]);
    metrics.orchestrator(&leads);
    assert_eq!(told(), said(["40", "0", "0"]));
    metrics.audited(2, Timestamp(7_000));
    metrics.orchestrator(&OrchestratorFigures { stuck: None, ..leads });
    assert_eq!(told(), said(["40", "2", "7"]), "what the log did not say is as it was");
    metrics.orchestrator(&follows);
    assert_eq!(told(), [None, None, None]);
}
