//! Load runs against a real server, and the report that is made of them.

#![allow(clippy::unwrap_used, reason = "in a test a broken expectation is a failed test")]

use std::path::Path;
use std::process::Output;

use e2e::Server;
use e2e::server::settle;
use serde_json::Value;

fn load(server: &Server, json: &Path, more: &[&str]) -> Value {
    let url = format!("http://{}", server.address());
    let mut arguments =
        vec!["--quiet", "--url", &url, "--duration", "1500ms", "--connections", "8", "--orders", "20000"];
    arguments.extend(["--json", json.to_str().unwrap()]);
    arguments.extend(more);
    let made = settle("load", &arguments).output().unwrap();
    assert!(made.status.success(), "{made:?}");
    serde_json::from_slice(&std::fs::read(json).unwrap()).unwrap()
}

fn report(arguments: &[&Path], more: &[&str]) -> Output {
    let words =
        ["report"].into_iter().chain(arguments.iter().map(|path| path.to_str().unwrap())).chain(more.iter().copied());
    settle("bench", &words.collect::<Vec<_>>()).output().unwrap()
}

/// A count as people write it: `12,345`.
fn count(count: &Value) -> String {
    let digits = count.as_u64().unwrap().to_string();
    let (head, tail) = digits.split_at(digits.len() % 3);
    let threes = tail.as_bytes().chunks(3).map(|three| std::str::from_utf8(three).unwrap());
    [head].into_iter().filter(|head| !head.is_empty()).chain(threes).collect::<Vec<_>>().join(",")
}

#[test]
fn two_runs_against_a_server_make_a_page_and_a_picture() {
    let folder = tempfile::tempdir().unwrap();
    let [first, second] = ["as-fast-as-it-can.json", "four-hundred.json"].map(|name| folder.path().join(name));
    let server = Server::start(&[]);
    let fast = load(&server, &first, &[]);
    let slow = load(&server, &second, &["--rate", "400", "--scenario", "sold-out"]);
    server.audit();
    for (name, begin) in [("report.html", "<!DOCTYPE html>"), ("report.svg", "<svg ")] {
        let out = folder.path().join(name);
        let made = report(&[&first, &second], &["--label", "as fast as it can", "--out", out.to_str().unwrap()]);
        let said = String::from_utf8(made.stdout).unwrap();
        assert!(made.status.success(), "{said}{}", String::from_utf8_lossy(&made.stderr));
        assert_eq!(said, format!("Wrote {}: as fast as it can, four-hundred.\n", out.display()));
        let text = std::fs::read_to_string(&out).unwrap();
        assert!(text.starts_with(begin) && !text.contains("<script"));
        for part in [
            "Latency by percentile",
            "Throughput over time",
            "Slowest answer over time",
            "Outcomes",
            "they differ in scenario and pace",
        ] {
            assert!(text.contains(part), "{name} has no {part}");
        }
        for line in ["line r0", "line r1"] {
            assert!(text.matches(line).count() >= 3, "{name} has no {line}");
        }
        for run in [&fast, &slow] {
            let committed = count(&run["operations"][0]["committed"]);
            assert!(text.contains(&format!(">{committed}<")), "{name} does not say that {committed} were committed");
        }
    }
}

#[test]
fn a_file_that_is_no_run_is_named_and_the_code_is_2() {
    let folder = tempfile::tempdir().unwrap();
    let notes = folder.path().join("notes.json");
    std::fs::write(&notes, "to do").unwrap();
    let out = folder.path().join("report.html");
    let refused = report(&[&notes], &["--out", out.to_str().unwrap()]);
    let said = String::from_utf8(refused.stderr).unwrap();
    assert_eq!(refused.status.code(), Some(2), "{said}");
    assert!(said.contains("notes.json: not JSON") && said.contains("`settle load --json FILE`"), "{said}");
    assert!(!out.exists());
}
