//! The operators' tools against the real server: what they print, what they change, and their exit codes.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use embedded::Store;
use ledger::{EntityId, Entry, Ledger, LedgerCommand, entries};
use protocol::{BranchId, Timestamp, TransactionId, Verb};
use serde_json::Value;
use tempfile::TempDir;

/// How long a test waits for what must come.
const PATIENCE: Duration = Duration::from_secs(30);

fn settle() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_settle"));
    // Nothing of the machine's own settings may reach the program under test.
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("SETTLE_")) {
        command.env_remove(name);
    }
    command
}

/// A shop in a folder of its own; whatever it still runs is killed at the end.
struct Folder {
    folder: TempDir,
}

impl Folder {
    fn new() -> Self {
        Self { folder: tempfile::tempdir().unwrap() }
    }

    fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    /// Serves with `flags`, and returns when it does.
    fn serve(&self, flags: &[&str]) -> Server {
        let mut child = settle()
            .args(["serve", "--listen", "127.0.0.1:0", "--data"])
            .arg(self.data())
            .args(flags)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        let address = loop {
            line.clear();
            assert!(stdout.read_line(&mut line).unwrap() > 0, "the server ended before it served");
            if let Some((_, rest)) = line.split_once("Settle serves the shop at http://") {
                break rest.split(',').next().unwrap().to_owned();
            }
        };
        Server { child, address, _stdout: stdout }
    }

    /// Runs a tool on this folder.
    fn tool(&self, arguments: &[&str]) -> Output {
        settle().args(arguments).arg("--data").arg(self.data()).stdin(Stdio::null()).output().unwrap()
    }

    fn transactions(&self, arguments: &[&str]) -> Vec<Value> {
        let output = self.tool(&[&["tx", "list", "--json"], arguments].concat());
        assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
        stdout(&output).lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    /// Waits until exactly one transaction is in this state, and gives its id.
    fn the_one(&self, state: &str) -> String {
        let until = Instant::now() + PATIENCE;
        loop {
            let found = self.transactions(&["--state", state]);
            if let [only] = found.as_slice() {
                return only["id"].as_str().unwrap().to_owned();
            }
            assert!(Instant::now() < until, "no transaction became {state}: {found:?}");
        }
    }
}

struct Server {
    child: Child,
    address: String,
    /// Kept open: the server may still print.
    _stdout: BufReader<std::process::ChildStdout>,
}

impl Server {
    /// Posts, and gives the status and the body.
    fn post(&self, path: &str) -> (u16, String) {
        let mut stream = TcpStream::connect(&self.address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let head = format!("POST {path} HTTP/1.1\r\nHost: test\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
        stream.write_all(head.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
    }

    fn must(&self, path: &str) {
        let (status, body) = self.post(path);
        assert_eq!(status, 200, "{path}: {body}");
    }

    /// One order, "0", of the only user, "0", for 10 in all; nothing else.
    fn seed(&self) {
        self.must("/stock/batch_init/1/100/5");
        self.must("/payment/batch_init/1/1000");
        self.must("/orders/batch_init/1/1/1/5");
    }

    /// Stops in good order.
    fn stop(mut self) {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
        assert!(self.child.wait().unwrap().success());
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        _ = self.child.kill();
        _ = self.child.wait();
    }
}

fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

/// The tool said it is fine, and this.
fn fine(output: &Output) -> String {
    assert_eq!(output.status.code(), Some(0), "{}{}", stdout(output), stderr(output));
    stdout(output)
}

/// The tool ended with 2 and said all of this on stderr.
fn unusable(output: &Output, words: &[&str]) {
    let said = stderr(output);
    assert_eq!(output.status.code(), Some(2), "{}{said}", stdout(output));
    for word in words {
        assert!(said.contains(word), "`{word}` is missing in: {said}");
    }
    assert!(!said.contains("panicked"), "{said}");
}

fn journal_cat(folder: &Path, flags: &[&str]) -> Output {
    settle().args(["journal", "cat"]).arg(folder).args(flags).output().unwrap()
}

#[test]
fn a_finished_transaction_is_told_whole_live_and_offline() {
    let folder = Folder::new();
    let server = folder.serve(&["--protocol", "2pc"]);
    server.seed();
    server.must("/orders/checkout/0");
    let id = folder.the_one("finished");

    let tell = || {
        let listed = fine(&folder.tool(&["tx", "list"]));
        assert!(listed.lines().any(|line| line.starts_with(&id) && line.contains("finished   commit")), "{listed}");
        assert_eq!(fine(&folder.tool(&["tx", "list", "--state", "stuck"])), "No stuck transactions.\n");
        let told = fine(&folder.tool(&["tx", "show", &id]));
        for words in [
            "a checkout of order 0, by two-phase commit",
            "step 0, stock: 2 of item 0",
            "step 1, payment: 10 from user 0",
            "decided: commit",
            "finished: every participant has acknowledged",
        ] {
            assert!(told.contains(words), "`{words}` is missing in: {told}");
        }
        let json: Value = serde_json::from_str(&fine(&folder.tool(&["tx", "show", &id, "--json"]))).unwrap();
        assert_eq!(json["record"]["transaction"]["claim"]["order"], "0");
        assert_eq!(json["record"]["transaction"]["steps"][1]["entries"][0]["amount"], 10);
        assert_eq!(json["state"], "finished");
        told
    };
    let live = tell();
    unusable(&folder.tool(&["tx", "retry", &id]), &["finished", "nothing to try again"]);
    unusable(
        &folder.tool(&["tx", "resolve", &id, "--step", "1", "--reason", "because", "--operator", "ann"]),
        &["no dead letter"],
    );
    server.stop();
    assert_eq!(tell(), live);
    unusable(&folder.tool(&["tx", "retry", &id]), &["no shop is running", "settle serve --data"]);
    unusable(
        &folder.tool(&["tx", "show", "0190b6e2-7c1f-7c3a-8f00-000000000000"]),
        &["there is no transaction `0190b6e2-7c1f-7c3a-8f00-000000000000`"],
    );
}

/// A shop whose payment refuses to commit, with one transaction stuck by that.
fn stuck() -> (Folder, Server, String) {
    let folder = Folder::new();
    let server = folder.serve(&["--protocol", "2pc", "--chaos", "--attempts", "2"]);
    server.seed();
    server.must("/payment/fault/set?point=before_commit&action=error");
    // The decision is durable: the client has its answer whatever payment does.
    server.must("/orders/checkout/0");
    let id = folder.the_one("stuck");
    (folder, server, id)
}

#[test]
fn a_stuck_transaction_is_settled_by_a_retry_once_the_cause_is_mended() {
    let (folder, server, id) = stuck();
    let told = fine(&folder.tool(&["tx", "show", &id]));
    assert!(told.contains("dead letter: step 1 (payment) did not acknowledge commit in 2 attempts"), "{told}");
    assert!(told.contains(&format!("settle tx retry {id}")), "{told}");
    let audit = folder.tool(&["audit", "--wait", "0"]);
    assert_eq!(audit.status.code(), Some(2), "an audit that could not compare must not say that all is well");
    assert!(stdout(&audit).contains("1 transactions are not settled yet"), "{}", stdout(&audit));

    server.must("/payment/fault/clear");
    fine(&folder.tool(&["tx", "retry", &id]));
    assert_eq!(folder.the_one("finished"), id);
    let record = &folder.transactions(&[])[0]["record"];
    let parked_for = record["finished"].as_u64().unwrap() - record["letters"][0]["at"].as_u64().unwrap();
    assert!(parked_for < protocol::Pacing::default().slow_pace, "the retry did nothing: it took {parked_for} ms");
    assert!(fine(&folder.tool(&["audit"])).starts_with("Audit OK: 1 paid orders for 10"));
    server.stop();
}

#[test]
fn a_resolution_is_kept_with_who_and_why() {
    let (folder, server, id) = stuck();
    let resolve = |reason: &[&str]| {
        let flags = [&["tx", "resolve", &id, "--step", "1", "--operator", "ann"], reason].concat();
        folder.tool(&flags)
    };
    unusable(&resolve(&[]), &["without a reason"]);
    assert_eq!(folder.the_one("stuck"), id);
    assert!(fine(&resolve(&["--reason", "payment is gone for good, ticket 4711"])).contains("By ann"));
    assert_eq!(folder.the_one("finished"), id);
    let told = fine(&folder.tool(&["tx", "show", &id]));
    assert!(told.contains("ann resolved step 1 (payment): payment is gone for good, ticket 4711"), "{told}");
    // Payment has not done its part yet, and will not for a minute: the books say so, in the right place.
    drop(server);
    let audit = folder.tool(&["audit"]);
    assert_eq!(audit.status.code(), Some(1));
    assert!(stdout(&audit).contains("user 0 was charged 10 less"), "{}", stdout(&audit));
}

#[test]
fn a_journal_is_printed_as_json_with_the_claim_while_the_shop_runs() {
    let folder = Folder::new();
    let server = folder.serve(&["--protocol", "2pc"]);
    server.seed();
    server.must("/orders/checkout/0");
    let id = folder.the_one("finished");
    let lines = |store: &str, flags: &[&str]| -> Vec<Value> {
        let text = fine(&journal_cat(&folder.data().join(store), flags));
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    };
    let orders = lines("orders", &[]);
    let sequences: Vec<u64> = orders.iter().map(|line| line["sequence"].as_u64().unwrap()).collect();
    assert!(sequences.iter().copied().eq(1..=sequences.len() as u64), "{sequences:?}");
    let staged = orders.iter().map(|line| &line["command"]["log"]["stage"]["transaction"]).find(|it| it.is_object());
    let staged = staged.expect("a checkout stages a transaction");
    assert_eq!(staged["id"], id.as_str());
    assert_eq!(staged["claim"]["order"], "0");
    assert_eq!(staged["steps"][0]["entries"][0]["account"], "0");

    let prepared = lines("payment", &[]);
    assert!(prepared.iter().any(|line| line["command"]["branch"]["entries"][0]["amount"] == 10), "{prepared:?}");
    let some = lines("orders", &["--from", "2", "--limit", "2"]);
    assert_eq!(some.iter().map(|line| line["sequence"].as_u64().unwrap()).collect::<Vec<_>>(), [2, 3]);
    unusable(&journal_cat(&folder.data(), &[]), &["three stores", "/orders"]);
    unusable(&journal_cat(folder.folder.path(), &[]), &["no journal-"]);

    // Whoever reads may stop reading: more lines than a pipe holds, and nobody to take them.
    for _ in 0..300 {
        server.must("/payment/add_funds/0/1");
    }
    let mut child = settle()
        .args(["journal", "cat"])
        .arg(folder.data().join("payment"))
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let closed = child.wait_with_output().unwrap();
    assert_eq!((closed.status.code(), stderr(&closed)), (Some(0), String::new()));
    server.stop();
}

#[test]
fn sound_books_are_ok_and_tampered_ones_are_not() {
    let folder = Folder::new();
    let server = folder.serve(&["--protocol", "2pc"]);
    server.seed();
    server.must("/orders/checkout/0");
    assert!(fine(&folder.tool(&["audit"])).starts_with("Audit OK: 1 paid orders for 10 in all; 1 items and 1 users"));
    let url = format!("http://{}", server.address);
    let over_http = ["audit", "--url", &url, "--orders", "1", "--items", "1", "--users", "1", "--stock", "100"];
    fine(&settle().args(over_http).args(["--credit", "1000"]).output().unwrap());
    let off = settle().args(over_http).args(["--credit", "1001"]).output().unwrap();
    assert_eq!(off.status.code(), Some(1), "{}", stdout(&off));
    server.stop();
    fine(&folder.tool(&["audit"]));

    // A commit of a branch that no order stands behind: the ledger captures it, and the books no longer match.
    let (payment, _) = Store::<Ledger>::open(&folder.data().join("payment"), embedded::Options::default()).unwrap();
    let millis = std::time::UNIX_EPOCH.elapsed().unwrap().as_millis();
    let transaction = TransactionId::new(Timestamp(u64::try_from(millis).unwrap()), [7; 16]);
    let payload = entries::encode(&[Entry { account: EntityId::number(0), amount: 7 }]).unwrap();
    let branch = BranchId { transaction, step: 1 };
    payment.submit(LedgerCommand::Branch(protocol::Command { branch, verb: Verb::Commit, payload }), |_| {});
    payment.close().unwrap();

    let found = "user 0 was charged 7 more than the paid orders cost";
    let offline = folder.tool(&["audit"]);
    assert_eq!(offline.status.code(), Some(1));
    assert!(stdout(&offline).contains(found), "{}", stdout(&offline));
    let server = folder.serve(&[]);
    let live = folder.tool(&["audit"]);
    assert_eq!((live.status.code(), stdout(&live)), (Some(1), stdout(&offline)));
    let json: Value = serde_json::from_str(&stdout(&folder.tool(&["audit", "--json"]))).unwrap();
    assert_eq!(json["findings"][0]["charged"], serde_json::json!({ "user": "0", "off_by": 7 }));
    server.stop();
}

#[test]
fn a_folder_serves_one_shop_at_a_time() {
    let folder = Folder::new();
    let server = folder.serve(&[]);
    let second = settle().args(["serve", "--listen", "127.0.0.1:0", "--data"]).arg(folder.data()).output().unwrap();
    let holder = format!("in use by process {}", server.child.id());
    unusable(&second, &["orders", &holder, "stop it first"]);
    // The first goes on as if nothing had been.
    server.must("/payment/create_user");
    fine(&folder.tool(&["tx", "list"]));
    server.stop();
}

#[test]
fn a_damaged_journal_is_refused_with_file_and_offset() {
    let folder = Folder::new();
    let server = folder.serve(&[]);
    server.seed();
    server.stop();
    let payment = folder.data().join("payment");
    let segment = payment.join("journal-00000000000000000001.seg");
    let mut bytes = std::fs::read(&segment).unwrap();
    // In the first batch, which begins at the second sector.
    bytes[512 + 40] ^= 1;
    std::fs::write(&segment, &bytes).unwrap();

    let words = [segment.to_str().unwrap(), "is damaged at byte 512", "put the whole folder back from a copy"];
    let serve = settle().args(["serve", "--listen", "127.0.0.1:0", "--data"]).arg(folder.data()).output().unwrap();
    unusable(&serve, &words);
    unusable(&folder.tool(&["audit"]), &words);
    unusable(&journal_cat(&payment, &[]), &words);
    assert_eq!(std::fs::read(&segment).unwrap(), bytes, "nothing in the folder was changed");
}
