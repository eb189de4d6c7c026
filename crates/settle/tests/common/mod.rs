//! A shop in a folder of its own, served by the real program, and the operators' tools on it.

#![allow(dead_code, reason = "each test program uses a part")]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;

/// How long a test waits for what must come.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

pub(crate) fn settle() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_settle"));
    // Nothing of the machine's own settings may reach the program under test.
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("SETTLE_")) {
        command.env_remove(name);
    }
    command
}

/// A shop in a folder of its own; whatever it still runs is killed at the end.
pub(crate) struct Folder {
    pub(crate) folder: TempDir,
}

impl Folder {
    pub(crate) fn new() -> Self {
        Self { folder: tempfile::tempdir().unwrap() }
    }

    pub(crate) fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    /// Serves with `flags`, and returns when it does.
    pub(crate) fn serve(&self, flags: &[&str]) -> Server {
        let child = settle()
            .args(["serve", "--listen", "127.0.0.1:0", "--data"])
            .arg(self.data())
            .args(flags)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        Self::greeted(child)
    }

    /// Waits until a server says where it serves.
    pub(crate) fn greeted(mut child: Child) -> Server {
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
    pub(crate) fn tool(&self, arguments: &[&str]) -> Output {
        settle().args(arguments).arg("--data").arg(self.data()).stdin(Stdio::null()).output().unwrap()
    }

    pub(crate) fn transactions(&self, arguments: &[&str]) -> Vec<Value> {
        let output = self.tool(&[&["tx", "list", "--json"], arguments].concat());
        assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
        stdout(&output).lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    /// Waits until exactly one transaction is in this state, and gives its id.
    pub(crate) fn the_one(&self, state: &str) -> String {
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

pub(crate) struct Server {
    pub(crate) child: Child,
    pub(crate) address: String,
    /// Kept open: the server may still print.
    _stdout: BufReader<std::process::ChildStdout>,
}

impl Server {
    /// One that serves at this address.
    pub(crate) fn of(mut child: Child, address: String) -> Self {
        let stdout = BufReader::new(child.stdout.take().unwrap());
        Self { child, address, _stdout: stdout }
    }

    /// Posts, and gives the status and the body.
    pub(crate) fn post(&self, path: &str) -> (u16, String) {
        self.post_with(path, "")
    }

    /// The same, with these further header fields, each with its end.
    pub(crate) fn post_with(&self, path: &str, fields: &str) -> (u16, String) {
        let mut stream = TcpStream::connect(&self.address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let head =
            format!("POST {path} HTTP/1.1\r\nHost: test\r\nContent-Length: 0\r\n{fields}Connection: close\r\n\r\n");
        stream.write_all(head.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
    }

    pub(crate) fn must(&self, path: &str) {
        let (status, body) = self.post(path);
        assert_eq!(status, 200, "{path}: {body}");
    }

    /// Waits until it has ended by itself.
    pub(crate) fn wait(&mut self) {
        self.child.wait().unwrap();
    }

    /// One order, "0", of the only user, "0", for 10 in all; nothing else.
    pub(crate) fn seed(&self) {
        self.must("/stock/batch_init/1/100/5");
        self.must("/payment/batch_init/1/1000");
        self.must("/orders/batch_init/1/1/1/5");
    }

    /// Stops in good order.
    pub(crate) fn stop(mut self) {
        self.end();
    }

    /// The same, for one that is still looked at.
    pub(crate) fn end(&mut self) {
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

pub(crate) fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

pub(crate) fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

/// The tool said it is fine, and this.
pub(crate) fn fine(output: &Output) -> String {
    assert_eq!(output.status.code(), Some(0), "{}{}", stdout(output), stderr(output));
    stdout(output)
}

/// The tool ended with 2 and said all of this on stderr.
pub(crate) fn unusable(output: &Output, words: &[&str]) {
    let said = stderr(output);
    assert_eq!(output.status.code(), Some(2), "{}{said}", stdout(output));
    for word in words {
        assert!(said.contains(word), "`{word}` is missing in: {said}");
    }
    assert!(!said.contains("panicked"), "{said}");
}

pub(crate) fn journal_cat(folder: &Path, flags: &[&str]) -> Output {
    settle().args(["journal", "cat"]).arg(folder).args(flags).output().unwrap()
}

/// A shop whose payment refuses to commit, with one transaction stuck by that.
pub(crate) fn stuck() -> (Folder, Server, String) {
    let folder = Folder::new();
    let server = folder.serve(&["--protocol", "2pc", "--chaos", "--attempts", "2"]);
    server.seed();
    server.must("/payment/fault/set?point=before_commit&action=error");
    // The decision is durable: the client has its answer whatever payment does.
    server.must("/orders/checkout/0");
    let id = folder.the_one("stuck");
    (folder, server, id)
}
