//! `settle chaos` against a system that `settle up` runs: the smallest one, and the simplest events; and against one process that is kept.

#![allow(clippy::unwrap_used, reason = "in a test a broken expectation is a failed test")]

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

/// A running `settle up` or `settle serve --restart`, killed when dropped; its children follow it.
struct Up(Child);

impl Drop for Up {
    fn drop(&mut self) {
        _ = self.0.kill();
        _ = self.0.wait();
    }
}

fn settle() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_settle"));
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("SETTLE_")) {
        command.env_remove(name);
    }
    command
}

fn free_port() -> String {
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    free.local_addr().unwrap().port().to_string()
}

fn up(data: &Path, flags: &[&str]) -> Up {
    let mut command = settle();
    command.args(["up", "--restart", "--chaos", "--port", &free_port(), "--data"]).arg(data).args(flags);
    let up = Up(command.stdout(Stdio::null()).spawn().unwrap());
    until_ready(&data.join("up.json"));
    up
}

fn kept(data: &Path, port: &str) -> Up {
    let mut command = settle();
    let listen = format!("127.0.0.1:{port}");
    command.args(["serve", "--restart", "--chaos", "--listen", &listen, "--data"]).arg(data);
    Up(command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap())
}

/// What runs, once all of it is ready.
fn until_ready(file: &Path) -> Value {
    let until = Instant::now() + Duration::from_secs(90);
    loop {
        let text = std::fs::read(file).unwrap_or_default();
        let state: Value = serde_json::from_slice(&text).unwrap_or_default();
        let components = state["components"].as_array().cloned().unwrap_or_default();
        if !components.is_empty() && components.iter().all(|it| it["ready"] == true) {
            return state;
        }
        assert!(Instant::now() < until, "not ready: {components:?}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

fn chaos(data: &Path, flags: &[&str]) -> Output {
    settle().arg("chaos").arg("--data").arg(data).args(flags).output().unwrap()
}

#[test]
fn killed_services_and_databases_cost_time_and_nothing_else() {
    let data = tempfile::tempdir().unwrap();
    let file = data.path().join("chaos.json");
    let events = [
        "--only",
        "kill stock instance",
        "--only",
        "kill and restart the master of stock",
        "--only",
        "freeze a payment",
    ];
    let times = ["--times", "2", "--down", "1", "--json", file.to_str().unwrap()];
    {
        let _up = up(data.path(), &["--small"]);
        let rows = sound(&chaos(data.path(), &[&events[..], &times].concat()), &file);
        let hit: Vec<&str> = rows.iter().map(|row| row["hit"][0].as_str().unwrap()).collect();
        let once = ["stock-1", "stock-2", "redis-stock-1", "payment-"];
        assert_eq!(hit.len(), 8);
        for (hit, who) in hit.iter().zip(once.iter().cycle()) {
            assert!(hit.starts_with(who), "{hit:?}");
        }
        assert!(rows.iter().all(|row| row["promoted"].is_null()), "there is nobody to promote");
        // Those whose process is another one than before, and nobody else.
        let state: Value = serde_json::from_slice(&std::fs::read(data.path().join("up.json")).unwrap()).unwrap();
        for it in state["components"].as_array().unwrap() {
            let killed = hit.iter().filter(|hit| it["name"] == **hit && !hit.starts_with("payment")).count() as u64;
            assert_eq!(it["restarts"], killed, "{it}");
        }
        // Operators find their way in, and the books at the databases say the same.
        for (words, begins) in [(["tx", "list"], "TRANSACTION "), (["audit", "--json"], "{\"off\":0,")] {
            let told = settle().args(words).arg("--up").arg(data.path()).output().unwrap();
            let said = String::from_utf8_lossy(&told.stdout).into_owned();
            assert!(
                told.status.success() && said.starts_with(begins),
                "{said}{}",
                String::from_utf8_lossy(&told.stderr)
            );
        }
    }
    // The system is gone: there is nothing to break.
    let said = chaos(data.path(), &[]);
    assert_eq!(said.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&said.stderr).contains("has stopped: start one with `settle up --restart --chaos"));
}

/// What became of the events of a run that found nothing wrong.
fn sound(done: &Output, file: &Path) -> Vec<Value> {
    let said = String::from_utf8_lossy(&done.stdout).into_owned();
    assert_eq!(done.status.code(), Some(0), "{said}{}", String::from_utf8_lossy(&done.stderr));
    assert!(said.contains("Nothing was lost, and everything came back."), "{said}");
    let report: Value = serde_json::from_slice(&std::fs::read(file).unwrap()).unwrap();
    let rows = report["events"].as_array().unwrap().clone();
    for row in &rows {
        assert_eq!(row["hit"].as_array().unwrap().len(), 1, "nobody was hit: {row}");
        assert!(row["paid"].as_u64().unwrap() > 0 && row["settled_ms"].is_u64(), "{row}");
        assert!(row["goal_ms"].as_u64().unwrap() >= 5_000, "{row}");
    }
    rows
}

#[test]
fn a_shop_that_is_kept_comes_back_from_kills_and_crashes_and_ends_when_it_is_told_to() {
    let folder = tempfile::tempdir().unwrap();
    let (data, file) = (folder.path().join("data"), folder.path().join("chaos.json"));
    let mut shop = kept(&data, &free_port());
    until_ready(&data.join("serve.json"));
    let events = ["--only", "kill the shop", "--only", "stock crashes after_commit"];
    let times = ["--times", "1", "--down", "1", "--json", file.to_str().unwrap()];
    let said = chaos(&data, &[&events[..], &times].concat());
    let text = String::from_utf8_lossy(&said.stdout).into_owned();
    assert_eq!(said.status.code(), Some(0), "{text}{}", String::from_utf8_lossy(&said.stderr));
    assert!(text.contains("Nothing was lost, and everything came back."), "{text}");
    let report: Value = serde_json::from_slice(&std::fs::read(&file).unwrap()).unwrap();
    let rows = report["events"].as_array().unwrap();
    assert!(rows.len() == 2 && rows.iter().all(|row| row["paid"].as_u64().unwrap() > 0), "{rows:?}");
    let state = until_ready(&data.join("serve.json"));
    assert!(state["components"][0]["restarts"].as_u64().unwrap() >= 2, "killed, and crashed: {state}");
    // The page tells what was done beside what came of it.
    let address = state["gateway"].as_str().unwrap().strip_prefix("http://").unwrap();
    let marks = || {
        let mut stream = TcpStream::connect(address).unwrap();
        write!(stream, "GET /dashboard/snapshot HTTP/1.0\r\nhost: 127.0.0.1\r\n\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let shown: Value = serde_json::from_str(answer.split_once("\r\n\r\n").unwrap().1).unwrap();
        let what = |mark: &Value| mark["what"].as_str().unwrap().to_owned();
        shown["marks"].as_array().unwrap().iter().map(what).collect::<Vec<_>>()
    };
    let expected = [
        "settle chaos, 1 of 2: kill the shop",
        "settle serve was killed, or crashed",
        "settle chaos, 2 of 2: stock crashes after_commit",
        "settle serve ended by an injected fault: stock after commit",
        "settle chaos is through with 2 events: nothing was lost, and everything came back",
    ];
    // Behind the last, how many gaps were too long: a busy machine's may be.
    let of_these = |what: String| expected.iter().find(|it| what.starts_with(**it)).copied();
    let told = || marks().into_iter().filter_map(of_these).collect::<Vec<_>>();
    let until = Instant::now() + Duration::from_secs(10);
    while told() != expected {
        assert!(Instant::now() < until, "{:#?}", marks());
        std::thread::sleep(Duration::from_millis(100));
    }
    // Told to stop, it finishes what it has in hand, and is not started again.
    let pid = rustix::process::Pid::from_raw(i32::try_from(shop.0.id()).unwrap()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    assert!(shop.0.wait().unwrap().success());
    assert!(!data.join("serve.json").exists() && !data.join("admin.sock").exists());
    let told = settle().args(["audit", "--data"]).arg(&data).output().unwrap();
    assert!(told.status.success(), "{}", String::from_utf8_lossy(&told.stdout));
}

/// A run against the shop with this data, of one event that lasts for a minute; and once `began`, the run.
fn lasting(data: &Path, event: &str, began: impl Fn() -> bool) -> Child {
    let mut command = settle();
    command.arg("chaos").arg("--data").arg(data).args(["--only", event, "--times", "1", "--down", "60"]);
    let run = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    wait_until(began, event);
    run
}

fn wait_until(is: impl Fn() -> bool, what: &str) {
    let until = Instant::now() + Duration::from_secs(30);
    while !is() {
        assert!(Instant::now() < until, "never: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn tell(process: u32, signal: Signal) {
    kill_process(Pid::from_raw(i32::try_from(process).unwrap()).unwrap(), signal).unwrap();
}

#[test]
fn a_run_that_is_interrupted_or_killed_leaves_nobody_frozen_or_down() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let mut keeper = kept(&data, &free_port());
    let served =
        || u32::try_from(until_ready(&data.join("serve.json"))["components"][0]["pid"].as_u64().unwrap()).unwrap();
    let is_frozen = |pid: u32| {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
        stat.rsplit_once(") ").unwrap().1.starts_with('T')
    };
    let first = served();
    let hold = data.join("hold-shop");

    // Interrupted, it undoes what it has done; meanwhile it has the system to itself.
    for signal in [Signal::INT, Signal::TERM, Signal::HUP] {
        let run = lasting(&data, "freeze the shop", || is_frozen(first));
        let second = chaos(&data, &["--only", "freeze", "--times", "1"]);
        assert_eq!(second.status.code(), Some(2));
        assert!(String::from_utf8_lossy(&second.stderr).contains("another `settle chaos` is at work"), "{second:?}");
        tell(run.id(), signal);
        let run = run.wait_with_output().unwrap();
        let said = String::from_utf8_lossy(&run.stderr).into_owned();
        assert_eq!(run.status.code(), Some(2), "{said}");
        assert!(said.contains("interrupted: nobody is hit any more; let go again: shop"), "{said}");
        assert!(!is_frozen(first));
    }

    // Killed, it leaves files that are in force no longer.
    let mut run = lasting(&data, "lose the shop", || hold.exists());
    let is_down = || {
        let state: Value = serde_json::from_slice(&std::fs::read(data.join("serve.json")).unwrap()).unwrap_or_default();
        state["components"][0]["ready"] == false
    };
    wait_until(is_down, "it is down");
    run.kill().unwrap();
    run.wait().unwrap();
    wait_until(|| !hold.exists(), "it is let go");
    let second = served();
    assert_ne!(second, first);

    // And whom it has frozen, the next one lets go.
    let mut run = lasting(&data, "freeze the shop", || is_frozen(second));
    run.kill().unwrap();
    run.wait().unwrap();
    assert!(is_frozen(second));
    let next = chaos(&data, &["--only", "kill the shop", "--times", "1"]);
    let said = String::from_utf8_lossy(&next.stdout).into_owned();
    assert_eq!(next.status.code(), Some(0), "{said}{}", String::from_utf8_lossy(&next.stderr));
    assert!(said.starts_with("shop stood still (SIGSTOP)"), "{said}");

    // What a person holds down is that person's.
    std::fs::write(&hold, "").unwrap();
    let refused = chaos(&data, &["--only", "kill the shop", "--times", "1"]);
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(refused.status.code() == Some(2) && said.contains("hold-shop, which was made by hand"), "{said}");
    assert!(hold.exists());
    std::fs::remove_file(&hold).unwrap();

    // A keeper that is told to stop does not wait for a shop that stands still.
    tell(served(), Signal::STOP);
    tell(keeper.0.id(), Signal::INT);
    wait_until(|| !data.join("serve.json").exists(), "the keeper ends");
    assert!(keeper.0.wait().unwrap().success());
}

#[test]
fn a_shop_that_had_served_is_started_again_at_once_however_often_it_is_killed() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let _keeper = kept(&data, &free_port());
    let pid_of = |state: &Value| i32::try_from(state["components"][0]["pid"].as_u64().unwrap()).unwrap();
    let mut served = pid_of(&until_ready(&data.join("serve.json")));
    // Pauses that doubled every time would be of six seconds in the end.
    for time in 0..7 {
        // What had served for less than a second may be broken, and is given a longer pause.
        std::thread::sleep(Duration::from_millis(1_200));
        let killed = rustix::process::Pid::from_raw(served).unwrap();
        rustix::process::kill_process(killed, rustix::process::Signal::KILL).unwrap();
        let since = Instant::now();
        while pid_of(&until_ready(&data.join("serve.json"))) == served {
            assert!(since.elapsed() < Duration::from_secs(30), "it is not started again");
            std::thread::sleep(Duration::from_millis(20));
        }
        assert!(since.elapsed() < Duration::from_secs(3), "the {time}th took {:?}", since.elapsed());
        served = pid_of(&until_ready(&data.join("serve.json")));
    }
}

#[test]
fn a_shop_that_cannot_be_served_is_not_started_again_and_one_whose_keeper_is_killed_goes_with_it() {
    let folder = tempfile::tempdir().unwrap();
    let (data, port) = (folder.path().join("data"), free_port());
    let mut shop = kept(&data, &port);
    let state = until_ready(&data.join("serve.json"));
    let mut second = kept(&data, &free_port());
    assert_eq!(second.0.wait().unwrap().code(), Some(2), "the folder is in use");
    let pid = i32::try_from(state["components"][0]["pid"].as_u64().unwrap()).unwrap();
    let served = rustix::process::Pid::from_raw(pid).unwrap();
    shop.0.kill().unwrap();
    shop.0.wait().unwrap();
    let until = Instant::now() + Duration::from_secs(10);
    while rustix::process::test_kill_process(served).is_ok() {
        assert!(Instant::now() < until, "the shop outlives its keeper");
        std::thread::sleep(Duration::from_millis(20));
    }
    let said = chaos(&data, &[]);
    assert_eq!(said.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&said.stderr).contains("has stopped: start one with"));
}

#[test]
fn a_killed_master_is_replaced_and_comes_back_as_a_replica() {
    let data = tempfile::tempdir().unwrap();
    let file = data.path().join("chaos.json");
    let _up = up(data.path(), &["--instances", "1"]);
    let event = ["--only", "kill the master of payment", "--times", "1", "--json", file.to_str().unwrap()];
    let rows = sound(&chaos(data.path(), &event), &file);
    assert_eq!(rows.len(), 1);
    assert_eq!((&rows[0]["hit"][0], &rows[0]["promoted"]), (&Value::from("redis-payment-1"), &Value::from(true)));
    // It followed from its start: no Sentinel had to demote it.
    let log = std::fs::read_to_string(data.path().join("redis-payment-1/output.log")).unwrap();
    let life = log.rsplit("Redis is starting").next().unwrap();
    assert!(life.contains("Connecting to MASTER") && !life.contains("user request"), "{life}");
}

#[test]
fn without_a_system_it_says_how_to_start_one() {
    let said = chaos(Path::new("/nowhere/at/all"), &[]);
    assert_eq!(said.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&said.stderr).contains("start one with `settle up --restart --chaos"));
    let said = chaos(Path::new("/nowhere/at/all"), &["--only", "kill the king"]);
    assert!(String::from_utf8_lossy(&said.stderr).contains("`settle chaos --list`"));
}
