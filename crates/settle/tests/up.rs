//! `settle up`, from outside: what it starts, what it says of it, and that nothing of it is left behind.

#![allow(clippy::unwrap_used, reason = "in a test a broken expectation is a failed test")]

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process, test_kill_process};
use serde_json::Value;

const PATIENCE: Duration = Duration::from_secs(60);

/// A running `settle up`, killed when dropped: its children must follow it by themselves.
struct Up(Child);

impl Drop for Up {
    fn drop(&mut self) {
        _ = self.0.kill();
        _ = self.0.wait();
    }
}

fn command(data: &Path, flags: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_settle"));
    command.arg("up").args(["--only", "infrastructure", "--small"]).arg("--data").arg(data).args(flags);
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    command.args(["--port", &free.local_addr().unwrap().port().to_string()]);
    command
}

fn start(data: &Path, flags: &[&str]) -> Up {
    let up = Up(command(data, flags).stdout(Stdio::null()).spawn().unwrap());
    let id = u64::from(up.0.id());
    wait_until("everything is ready", || {
        let Some(state) = state(data) else { return false };
        state["pid"] == id && components(&state).iter().all(|it| it["ready"] == true)
    });
    up
}

fn state(data: &Path) -> Option<Value> {
    serde_json::from_slice(&std::fs::read(data.join("up.json")).ok()?).ok()
}

fn components(state: &Value) -> &Vec<Value> {
    state["components"].as_array().unwrap()
}

fn pid(state: &Value, name: &str) -> Option<Pid> {
    let it = components(state).iter().find(|it| it["name"] == name).unwrap();
    Pid::from_raw(i32::try_from(it["pid"].as_u64()?).unwrap())
}

fn lives(pid: Pid) -> bool {
    test_kill_process(pid).is_ok()
}

fn wait_until(what: &str, mut condition: impl FnMut() -> bool) {
    let until = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < until, "waited in vain: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn children_end_with_it_even_if_it_is_killed() {
    let data = tempfile::tempdir().unwrap();
    let mut up = start(data.path(), &[]);
    let state = state(data.path()).unwrap();
    let names: Vec<&str> = components(&state).iter().map(|it| it["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["nats", "redis-orders-1", "redis-stock-1", "redis-payment-1"]);
    let children: Vec<Pid> = names.iter().map(|name| pid(&state, name).unwrap()).collect();
    assert!(children.iter().all(|child| lives(*child)));
    // One that is frozen, too.
    kill_process(children[1], Signal::STOP).unwrap();
    up.0.kill().unwrap();
    up.0.wait().unwrap();
    wait_until("the children are gone", || !children.iter().any(|child| lives(*child)));
}

#[test]
fn it_stops_everything_when_told_and_finds_its_ports_again() {
    let data = tempfile::tempdir().unwrap();
    let mut up = start(data.path(), &[]);
    let first = state(data.path()).unwrap();
    let twin = command(data.path(), &[]).output().unwrap();
    assert_eq!(twin.status.code(), Some(2));
    let said = String::from_utf8_lossy(&twin.stderr).into_owned();
    assert!(said.contains(&format!("in use by another `settle up` (process {})", up.0.id())), "{said}");

    let id = Pid::from_child(&up.0);
    kill_process(id, Signal::TERM).unwrap();
    assert_eq!(up.0.wait().unwrap().code(), Some(0));
    for it in components(&first) {
        assert!(!lives(pid(&first, it["name"].as_str().unwrap()).unwrap()), "{it}");
    }
    assert!(components(&state(data.path()).unwrap()).iter().all(|it| it["pid"].is_null()));
    drop(up);
    _ = start(data.path(), &[]);
    let ports = |state: &Value| components(state).iter().map(|it| it["port"].clone()).collect::<Vec<_>>();
    assert_eq!(ports(&state(data.path()).unwrap()), ports(&first));
}

#[test]
fn what_was_killed_is_started_again_if_asked_for_and_not_while_it_is_held_down() {
    let data = tempfile::tempdir().unwrap();
    let _up = start(data.path(), &["--restart"]);
    let now = || state(data.path()).unwrap();
    let first = pid(&now(), "redis-stock-1").unwrap();
    let hold = data.path().join("hold-redis-stock-1");
    std::fs::write(&hold, "").unwrap();
    kill_process(first, Signal::KILL).unwrap();
    wait_until("its end is told", || pid(&now(), "redis-stock-1").is_none());
    // Longer than the first pause before a start.
    std::thread::sleep(Duration::from_millis(700));
    assert_eq!(pid(&now(), "redis-stock-1"), None);
    std::fs::remove_file(&hold).unwrap();
    wait_until("it runs again", || {
        let state = now();
        let it = components(&state).iter().find(|it| it["name"] == "redis-stock-1").unwrap();
        it["ready"] == true && it["restarts"] == 1 && pid(&state, "redis-stock-1").is_some_and(|pid| pid != first)
    });
}

#[test]
fn it_says_what_is_not_installed() {
    let data = tempfile::tempdir().unwrap();
    let said = command(data.path(), &[]).env("PATH", data.path()).output().unwrap();
    assert_eq!(said.status.code(), Some(2));
    let said = String::from_utf8_lossy(&said.stderr).into_owned();
    assert!(said.contains("redis-server. On Debian or Ubuntu: apt install "), "{said}");
}

/// What the server at this port answers to a GET, as JSON.
fn get(port: u64, path: &str) -> Option<Value> {
    let mut stream = TcpStream::connect(("127.0.0.1", u16::try_from(port).unwrap())).ok()?;
    write!(stream, "GET {path} HTTP/1.0\r\nhost: 127.0.0.1\r\n\r\n").ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    serde_json::from_str(answer.split_once("\r\n\r\n")?.1).ok()
}

#[test]
fn prometheus_sees_every_instance_and_judges_by_the_rules() {
    let data = tempfile::tempdir().unwrap();
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port().to_string();
    let mut command = Command::new(env!("CARGO_BIN_EXE_settle"));
    command.args(["up", "--small", "--instances", "1", "--observability", "--port", &free, "--data"]).arg(data.path());
    let _up = Up(command.stdout(Stdio::null()).spawn().unwrap());
    wait_until("everything is ready", || {
        let ready = |state: &Value| components(state).iter().all(|it| it["ready"] == true);
        state(data.path()).is_some_and(|state| ready(&state))
    });
    let now = state(data.path()).unwrap();
    let port = now["ports"]["prometheus"].as_u64().unwrap();
    let health = |instance: &str| {
        let targets = get(port, "/api/v1/targets")?;
        let targets = targets["data"]["activeTargets"].as_array()?.clone();
        targets.iter().find(|it| it["labels"]["instance"] == instance)?["health"].as_str().map(str::to_owned)
    };
    for instance in ["order-1", "stock-1", "payment-1"] {
        wait_until("it is scraped", || health(instance).as_deref() == Some("up"));
    }
    let rules = get(port, "/api/v1/rules").unwrap().to_string();
    assert!(rules.contains("TransactionsStuck") && rules.contains("settle:checkouts:rate1m"), "{rules}");
    kill_process(pid(&now, "payment-1").unwrap(), Signal::KILL).unwrap();
    wait_until("it is missed", || health("payment-1").as_deref() == Some("down"));
}

#[test]
fn the_page_of_each_order_instance_shows_everybody_and_what_the_leader_knows() {
    let data = tempfile::tempdir().unwrap();
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let mut command = Command::new(env!("CARGO_BIN_EXE_settle"));
    command.args(["up", "--small", "--port", &free.to_string(), "--data"]).arg(data.path());
    let _up = Up(command.stdout(Stdio::null()).spawn().unwrap());
    wait_until("everything is ready", || {
        let ready = |state: &Value| components(state).iter().all(|it| it["ready"] == true);
        state(data.path()).is_some_and(|state| ready(&state))
    });
    let now = state(data.path()).unwrap();
    for order in ["order-1", "order-2"] {
        let port = now["ports"][order].as_u64().unwrap();
        let mut seen = Value::Null;
        wait_until("its page knows what the leader knows", || {
            seen = get(port, "/dashboard/snapshot").unwrap_or_default();
            seen["verdict"]["level"] == "good" && seen["stuck"] == 0 && seen["audit"].is_object()
        });
        let mut names: Vec<&str> =
            seen["instances"].as_array().unwrap().iter().map(|it| it["name"].as_str().unwrap()).collect();
        names.sort_unstable();
        assert_eq!(names, ["order-1", "order-2", "payment-1", "payment-2", "stock-1", "stock-2"], "at {order}");
        assert!(seen["leader"].as_str().unwrap().starts_with("order-"), "{seen}");
        // Services in Redis know how long a batch takes there.
        wait_until("a batch was timed", || {
            let seen = get(port, "/dashboard/snapshot").unwrap_or_default();
            let stores = seen["stores"].as_array().cloned().unwrap_or_default();
            stores.iter().any(|store| store["service"] == "orders" && store["flush_p99_ms"].is_number())
        });
    }
    // The API is described wherever the shop is reached.
    for port in [now["ports"]["gateway"].as_u64().unwrap(), now["ports"]["dashboard"].as_u64().unwrap()] {
        assert_eq!(get(port, "/openapi.json").unwrap()["openapi"], "3.1.0");
    }
}
