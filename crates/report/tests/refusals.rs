//! Files that are no runs, and files that are nonsense.

#![allow(clippy::unwrap_used, reason = "in a test a broken expectation is a failed test")]

mod common;

use std::path::Path;

use clap::Parser;
use common::{known, parse, read};
use proptest::prelude::*;
use report::cli::{ReportArgs, make};
use report::limits::{MAX_FILE_BYTES, MAX_RUNS};
use report::{Latencies, Run, page, sheet};
use serde_json::{Value, json};

#[derive(Parser)]
struct Cli {
    #[command(flatten)]
    args: ReportArgs,
}

fn try_make(folder: &Path, words: &[&str]) -> Result<String, String> {
    let out = folder.join("report.html");
    let mut all = vec!["report", "--out", out.to_str().unwrap()];
    all.extend(words);
    make(&Cli::try_parse_from(all).unwrap().args).map_err(|error| error.to_string())
}

#[test]
fn what_is_no_run_is_refused_with_its_name_and_nothing_is_written() {
    let folder = tempfile::tempdir().unwrap();
    let good = folder.path().join("good.json");
    std::fs::write(&good, known().to_string()).unwrap();
    let changed = |place: &str, value: Value| {
        let mut file = known();
        *file.pointer_mut(place).unwrap() = value;
        file.to_string()
    };
    let latency = "/operations/0/committed_latency_us";
    for (content, words) in [
        (String::new(), "empty"),
        ("{\"elapsed".into(), "not JSON"),
        ("checkout refused".into(), "not JSON"),
        ("\u{0}\u{1}".into(), "not JSON"),
        ("[]".into(), "JSON, but not of a run"),
        ("{}".into(), "missing field `elapsed_seconds`"),
        (changed("/operations", json!("x")), "JSON, but not of a run"),
        (changed("/operations", json!([])), "an empty run"),
        (changed("/operations/0/operation", json!("find")), "an empty run"),
        (changed("/elapsed_seconds", json!(0.0)), "an empty run"),
        (changed("/elapsed_seconds", json!(-1.0)), "cannot have taken -1 seconds"),
        (changed("/elapsed_seconds", json!(1e300)), "cannot have taken"),
        (changed("/operations/0/committed", json!(-5)), "JSON, but not of a run"),
        (changed("/seconds", json!(vec![json!({"committed": 0}); 86_401])), "no run is longer than a day"),
        (changed(latency, json!({"count": 3, "histogram": [[5, 1], [4, 2]]})), "4 after 5"),
        (changed(latency, json!({"count": 4, "histogram": [[5, 1], [7, 2]]})), "3 answers, and `count` says 4"),
        (changed(latency, json!({"count": 4})), "no figure at all"),
    ] {
        let bad = folder.path().join("bad.json");
        std::fs::write(&bad, &content).unwrap();
        let said = try_make(folder.path(), &[good.to_str().unwrap(), bad.to_str().unwrap()]).unwrap_err();
        assert!(said.starts_with(&format!("{}: ", bad.display())) && said.contains(words), "{said}");
        assert!(!folder.path().join("report.html").exists());
    }
}

#[test]
fn what_cannot_be_read_or_is_too_long_is_refused_with_its_name() {
    let folder = tempfile::tempdir().unwrap();
    let absent = folder.path().join("absent.json");
    let said = try_make(folder.path(), &[absent.to_str().unwrap()]).unwrap_err();
    assert!(said.contains("absent.json: cannot be read: No such file"), "{said}");
    let said = try_make(folder.path(), &[folder.path().to_str().unwrap()]).unwrap_err();
    assert!(said.contains("cannot be read: Is a directory"), "{said}");
    let long = folder.path().join("long.json");
    std::fs::File::create(&long).unwrap().set_len(MAX_FILE_BYTES + 1).unwrap();
    let said = try_make(folder.path(), &[long.to_str().unwrap()]).unwrap_err();
    assert!(said.contains("long.json: longer than 64 MiB"), "{said}");
}

#[test]
fn a_crowd_of_files_is_refused_before_any_is_read() {
    let folder = tempfile::tempdir().unwrap();
    let files: Vec<String> = (0..5_000).map(|n| format!("run-{n}.json")).collect();
    let said = try_make(folder.path(), &files.iter().map(String::as_str).collect::<Vec<_>>()).unwrap_err();
    assert_eq!(
        said,
        format!(
            "run-{MAX_RUNS}.json: the report is full: 5000 runs were given, and no more than 8 can be told apart; give fewer"
        )
    );
}

#[test]
fn names_and_labels_that_do_not_fit_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let run = folder.path().join("run.html");
    std::fs::write(&run, known().to_string()).unwrap();
    let run = run.to_str().unwrap();
    for (words, problem) in [
        (&[run, "--out", "report"][..], "must end in .html"),
        (&[run, "--out", "report.png"], "--out report.png: the name must end in .html"),
        (&[run, "--out", run], "that is one of the runs"),
        (&[run, "--out", "/absent/report.svg"], "cannot write /absent/report.svg: No such file"),
        (&[run, "--label", "a", "--label", "b"], "--label \"b\": there is no run for it"),
    ] {
        let words: Vec<&str> = std::iter::once("report").chain(words.iter().copied()).collect();
        let said = make(&Cli::try_parse_from(words).unwrap().args).unwrap_err().to_string();
        assert!(said.contains(problem), "{said}");
    }
    assert_eq!(std::fs::read_to_string(run).unwrap(), known().to_string());
}

#[test]
fn what_is_left_out_is_said() {
    let folder = tempfile::tempdir().unwrap();
    let run = folder.path().join("old.json");
    let mut file = known();
    file.as_object_mut().unwrap().remove("seconds");
    std::fs::write(&run, file.to_string()).unwrap();
    let said = try_make(folder.path(), &[run.to_str().unwrap(), "--label", "before"]).unwrap();
    let (wrote, left_out) = said.split_once('\n').unwrap();
    assert_eq!(wrote, format!("Wrote {}: before.", folder.path().join("report.html").display()));
    assert!(left_out.ends_with("old.json: left out is throughput over time: the file has no `seconds`."), "{left_out}");
}

/// Every place in a value, as a JSON pointer.
fn places(value: &Value, place: &str, all: &mut Vec<String>) {
    all.push(place.to_owned());
    match value {
        Value::Object(members) => {
            members.iter().for_each(|(name, value)| places(value, &format!("{place}/{name}"), all))
        }
        Value::Array(items) => {
            items.iter().enumerate().for_each(|(n, value)| places(value, &format!("{place}/{n}"), all))
        }
        _ => {}
    }
}

fn nonsense() -> impl Strategy<Value = Value> {
    prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        (0_u64..5).prop_map(Value::from),
        Just(json!(u64::MAX)),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        any::<String>().prop_map(Value::from),
        Just(json!([])),
        Just(json!({})),
        Just(json!([[1, u64::MAX]])),
        Just(json!([[u64::MAX, 100]])),
        Just(json!([[1, 0], [2, 0], [3, 100]])),
        Just(json!([{"committed": u64::MAX, "slowest_us": u64::MAX}, {"committed": 0}])),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_run_with_nonsense_in_it_is_refused_or_drawn_whole(
        changes in prop::collection::vec((any::<prop::sample::Index>(), nonsense()), 0..4),
        label in any::<String>(),
        all in any::<bool>(),
    ) {
        let mut file = known();
        for (place, value) in changes {
            let mut all: Vec<String> = Vec::new();
            places(&file, "", &mut all);
            *file.pointer_mut(place.get(&all).as_str()).unwrap() = value;
        }
        let latencies = if all { Latencies::All } else { Latencies::Committed };
        match Run::parse(file.to_string().as_bytes(), &label, &label, latencies) {
            Err(problem) => prop_assert!(!problem.is_empty()),
            Ok(run) => {
                let other = parse(&known(), "other").unwrap();
                read(&page(&[run.clone(), other.clone()]), |_| ());
                read(&sheet(&[other, run]), |_| ());
            }
        }
    }

    #[test]
    fn bytes_are_refused(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        prop_assert!(Run::parse(&bytes, "f", "l", Latencies::All).is_err());
    }
}
