//! What a real process logs: lines of JSON that say where they belong, by a filter that can be changed, and nothing that is nobody's business.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod common;

use std::io::{BufRead, BufReader};
use std::process::{Child, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Instant;

use common::{Folder, PATIENCE, Server, fine, settle, unusable};
use serde_json::Value;

type Lines = Arc<Mutex<Vec<String>>>;

/// What a process says on standard error, line by line.
fn collected(child: &mut Child) -> Lines {
    let lines = Lines::default();
    let (hear, stderr) = (Arc::clone(&lines), BufReader::new(child.stderr.take().unwrap()));
    std::thread::spawn(move || stderr.lines().map_while(Result::ok).for_each(|line| hear.lock().unwrap().push(line)));
    lines
}

/// Waits for a line with these words.
fn wait_for(lines: &Lines, words: &str) -> Value {
    let until = Instant::now() + PATIENCE;
    loop {
        if let Some(line) = lines.lock().unwrap().iter().find(|line| line.contains(words)) {
            return serde_json::from_str(line).unwrap();
        }
        assert!(Instant::now() < until, "`{words}` is not in {:#?}", lines.lock().unwrap());
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
}

/// A server whose lines are collected.
struct Told {
    folder: Folder,
    server: Server,
    lines: Lines,
}

impl Told {
    fn start(filter: &str, flags: &[&str]) -> Self {
        let folder = Folder::new();
        let mut child = settle()
            .env("SETTLE_LOG", filter)
            .args(["serve", "--listen", "127.0.0.1:0", "--data"])
            .arg(folder.data())
            .args(flags)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = collected(&mut child);
        Self { folder, server: Folder::greeted(child), lines }
    }

    fn lines(&self) -> Vec<String> {
        self.lines.lock().unwrap().clone()
    }

    fn wait_for(&self, words: &str) -> Value {
        wait_for(&self.lines, words)
    }

    fn has(&self, words: &str) -> bool {
        self.lines().iter().any(|line| line.contains(words))
    }
}

#[test]
fn every_line_of_a_process_is_an_object_that_says_whose_it_is_and_tells_no_payload() {
    let mut told = Told::start("trace", &["--chaos"]);
    // What nobody should find in a log: an amount, a price, a key.
    told.server.must("/stock/batch_init/2/7000123/7654321");
    told.server.must("/payment/batch_init/2/987654321");
    told.server.must("/orders/batch_init/2/2/2/7654321");
    told.server.must("/orders/checkout/0");
    let keyed = told.server.post_with("/orders/checkout/1", "Idempotency-Key: sesame-street\r\n");
    assert_eq!(keyed.0, 200, "{}", keyed.1);
    assert_eq!(told.server.post("/orders/checkout/nonsense").0, 404);
    let checked_out = told.wait_for("checked out");
    told.wait_for("nothing is left to do");
    told.server.end();
    let ended = told.wait_for("told to stop");
    assert_eq!((ended["level"].as_str(), ended["instance"].as_str()), (Some("info"), Some("shop")));
    let transaction = checked_out["transaction"].as_str().unwrap();
    assert_eq!((checked_out["order"].as_str(), checked_out["level"].as_str()), (Some("0"), Some("debug")));
    let lines = told.lines();
    for line in &lines {
        let object: Value = serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
        for member in ["time", "level", "service", "instance", "message", "target"] {
            assert!(object[member].is_string(), "no `{member}` in {line}");
        }
        assert_eq!(object["service"], "settle");
        for secret in ["7000123", "7654321", "987654321", "15308642", "sesame-street"] {
            assert!(!line.contains(secret), "`{secret}` in {line}");
        }
    }
    let story: Vec<_> = lines.iter().filter(|line| line.contains(transaction)).collect();
    assert!(story.len() >= 10, "begin, stage, commands, replies, decision, answer, end: {story:#?}");
}

#[test]
fn what_is_logged_changes_at_run_time() {
    let told = Told::start("info", &[]);
    told.server.seed();
    assert_eq!(fine(&told.folder.tool(&["log-level"])), "info\n");
    told.server.must("/orders/checkout/0");
    assert_eq!(fine(&told.folder.tool(&["log-level", "debug"])), "debug\n");
    told.wait_for("the log's filter was changed");
    assert!(!told.has("checked out"), "a checkout is no line at info");
    told.server.must("/orders/create/0");
    told.server.must("/orders/batch_init/1/1/1/5");
    told.server.must("/orders/checkout/0");
    told.wait_for("checked out");
    let part = &["log-level", "warn,orchestrator=debug"];
    assert_eq!(fine(&told.folder.tool(part)).trim().split(',').count(), 2);
    unusable(&told.folder.tool(&["log-level", "loud"]), &["`loud` does not end in a level", "warn,orchestrator=debug"]);
    unusable(&told.folder.tool(&["log-level", "debug", "--service", "stock"]), &["there is no other process"]);
    unusable(&told.folder.tool(&["log-level", "debug", "--service", "nobody"]), &["orders, stock or payment"]);
    assert_eq!(fine(&told.folder.tool(&["log-level"])).trim().split(',').count(), 2, "it stays as it was");
}

#[test]
fn a_filter_that_cannot_be_used_is_told_and_a_failure_is_a_line_too() {
    let told = Told::start("nonsense", &[]);
    let said = told.wait_for("is not used");
    assert_eq!(said["level"], "warn");
    told.wait_for("serves");
    let second = settle()
        .args(["serve", "--listen", "127.0.0.1:0", "--log-format", "json", "--data"])
        .arg(told.folder.data())
        .output()
        .unwrap();
    let line: Value = serde_json::from_str(String::from_utf8(second.stderr).unwrap().lines().last().unwrap()).unwrap();
    assert!(line["level"] == "error" && line["message"].as_str().unwrap().contains("in use"), "{line}");
    let pretty = settle()
        .args(["serve", "--listen", "127.0.0.1:0", "--log-format", "pretty", "--data"])
        .arg(told.folder.data())
        .output()
        .unwrap();
    assert!(String::from_utf8(pretty.stderr).unwrap().starts_with("settle: "));
}

/// Has the first order's commit not be acknowledged, and gives the line that says so.
fn line_of_a_stuck_order(told: &Told) -> Value {
    told.server.seed();
    told.server.must("/payment/fault/set?point=before_commit&action=error");
    told.server.must("/orders/checkout/0");
    told.wait_for("the branch is stuck")
}

#[test]
fn an_error_about_a_transaction_names_its_order_and_its_trace_where_there_is_one() {
    let line = line_of_a_stuck_order(&Told::start("info", &["--chaos", "--attempts", "2"]));
    assert_eq!((line["level"].as_str(), line["order"].as_str()), (Some("error"), Some("0")), "{line}");
    assert!(line["transaction"].is_string() && line["trace_id"].is_null() && line["span_id"].is_null(), "{line}");

    let traced = ["--chaos", "--attempts", "2", "--otlp-endpoint", "http://127.0.0.1:9"];
    let told = Told::start("info", &traced);
    let line = line_of_a_stuck_order(&told);
    let trace = line["transaction"].as_str().unwrap().replace('-', "");
    assert_eq!((line["order"].as_str(), line["trace_id"].as_str()), (Some("0"), Some(&*trace)), "{line}");
    assert!(line["span_id"].is_string(), "{line}");
}

#[test]
fn passwords_and_amounts_are_in_no_line_of_a_service() {
    let redis = servers::redis::Server::start(servers::redis::Persistence::Always).unwrap();
    // As one that has belonged to orders, of which nobody is up.
    redis.ask("HSET {settle:stock:0}:meta system orders").unwrap();
    redis.ask("CONFIG SET requirepass hunter2-redis").unwrap();
    let nats = servers::nats::Server::start_with(true, &["--user", "settle", "--pass", "hunter2-nats"]).unwrap();
    let address = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let (broker, database) = (format!("nats.url={}", nats.address()), format!("stock.redis={}", redis.address()));
    let mut child = settle()
        .args([
            "stock",
            "--instance",
            "stock-7",
            "--listen",
            &address.to_string(),
            "--set",
            &broker,
            "--set",
            &database,
        ])
        .args([
            "--set",
            "nats.username=settle",
            "--set",
            "stock.durability=fsync",
            "--set",
            "telemetry.endpoint=http://127.0.0.1:9",
        ])
        .env("SETTLE_NATS__PASSWORD", "hunter2-nats")
        .env("SETTLE_STOCK__PASSWORD", "hunter2-redis")
        .env("OTEL_EXPORTER_OTLP_HEADERS", "authorization=Bearer%20hunter2-traces")
        .env("SETTLE_LOG", "trace")
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = collected(&mut child);
    let service = Server::of(child, address.to_string());
    wait_for(&lines, "\"serves\"");
    service.must("/stock/batch_init/3/7000123/7654321");
    assert_eq!(service.post("/stock/subtract/0/7000124").0, 409);
    drop(service);
    let lines = lines.lock().unwrap();
    assert!(lines.len() > 2, "{lines:?}");
    for line in lines.iter() {
        let object: Value = serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
        assert_eq!((object["service"].as_str(), object["instance"].as_str()), (Some("settle-stock"), Some("stock-7")));
        for secret in ["hunter2", "7000123", "7654321"] {
            assert!(!line.contains(secret), "`{secret}` in {line}");
        }
    }
}
