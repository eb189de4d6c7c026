//! A load run that somebody interrupts.

#![allow(clippy::unwrap_used, reason = "in a test a broken expectation is a failed test")]

use std::io::{BufRead, BufReader, Read};
use std::process::{Child, ChildStderr, Stdio};

use e2e::Server;
use e2e::server::settle;
use rustix::process::{Pid, Signal, kill_process};

/// A run of ten minutes that has begun to send.
fn running(server: &Server) -> (Child, BufReader<ChildStderr>) {
    let url = format!("http://{}", server.address());
    let words =
        ["--url", &url, "--duration", "10m", "--rate", "50", "--orders", "2000", "--timeout", "1m", "--progress"];
    let mut load = settle("load", &words).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut said = BufReader::new(load.stderr.take().unwrap());
    until(&mut said, |line| line.contains(" of 600 s: ") && !line.contains(" 0 committed"));
    (load, said)
}

/// Reads what is said until that is it.
fn until(said: &mut BufReader<ChildStderr>, is: impl Fn(&str) -> bool) {
    said.lines().find(|line| line.as_ref().is_ok_and(|line| is(line))).unwrap().unwrap();
}

/// Waits until nothing was answered for half a second, in which at 50 a second requests were sent.
fn until_requests_wait(said: &mut BufReader<ChildStderr>) {
    let (mut last, mut times) = (String::new(), 0);
    while times < 3 {
        let mut line = String::new();
        assert_ne!(said.read_line(&mut line).unwrap(), 0, "the run has ended");
        let (_, counted) = line.split_once(" s: ").unwrap_or_default();
        let (committed, _) = counted.split_once(" (").unwrap_or_default();
        times = if committed == last { times + 1 } else { 0 };
        committed.clone_into(&mut last);
    }
}

fn interrupt(load: &Child, signal: Signal) {
    kill_process(Pid::from_child(load), signal).unwrap();
}

/// Its exit code, and what it printed.
fn end((mut load, mut said): (Child, BufReader<ChildStderr>)) -> (Option<i32>, String) {
    let mut told = String::new();
    load.stdout.as_mut().unwrap().read_to_string(&mut told).unwrap();
    // Its pipe is read to the end, or the last words of the run have nowhere to go.
    std::io::copy(&mut said, &mut std::io::sink()).unwrap();
    (load.wait().unwrap().code(), told)
}

#[test]
fn the_first_signal_ends_the_sending_and_what_was_measured_is_told() {
    let server = Server::start(&[]);
    for signal in [Signal::INT, Signal::TERM] {
        let load = running(&server);
        interrupt(&load.0, signal);
        let (code, told) = end(load);
        assert_eq!(code, Some(0), "{told}");
        for part in ["uniform: ", "Interrupted after ", "Audit OK: "] {
            assert!(told.contains(part), "no {part:?} in {told}");
        }
        assert!(!told.contains("failed: "), "{told}");
    }
}

#[test]
fn the_second_signal_ends_it_at_once() {
    let server = Server::start(&[]);
    let (load, mut said) = running(&server);
    server.freeze();
    // Without one under way the run would have nothing to wait for, and go on to its audit.
    until_requests_wait(&mut said);
    interrupt(&load, Signal::INT);
    // Two signals of a kind that wait are one to the system.
    until(&mut said, |line| line.contains("interrupted: waiting"));
    interrupt(&load, Signal::INT);
    let (code, told) = end((load, said));
    server.thaw();
    assert_eq!((code, told.as_str()), (Some(2), ""));
}
