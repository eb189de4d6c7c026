//! What happens when servers and streams go away.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use nats::{Mode, Options};
use orchestrator::Transport as _;
use protocol::{Reply, Unknown};
use servers::wait_until;

use crate::support::{CORE, DONE, FILE, MEMORY, PATIENCE, Way, options, raw, reaches, read, server, willing};

/// Commands from two threads, one after the other each, until it is dropped; every one is answered.
struct Load {
    stop: Arc<AtomicBool>,
    done: Arc<AtomicU64>,
    unknown: Arc<AtomicU64>,
    odd: Arc<Mutex<Vec<Reply>>>,
    threads: Vec<std::thread::JoinHandle<()>>,
}

impl Load {
    fn on(way: &Way) -> Self {
        let (stop, done, unknown) = (Arc::default(), Arc::<AtomicU64>::default(), Arc::<AtomicU64>::default());
        let odd: Arc<Mutex<Vec<Reply>>> = Arc::default();
        let threads = (0..2_u64).map(|thread| {
            let (stop, done, unknown) = (Arc::clone(&stop), Arc::clone(&done), Arc::clone(&unknown));
            let (odd, transport) = (Arc::clone(&odd), Arc::clone(&way.transport));
            std::thread::spawn(move || {
                let mut number = (thread + 1) << 32;
                while !AtomicBool::load(&stop, Ordering::Relaxed) {
                    number += 1;
                    let answer = crate::support::send(&*transport, crate::support::command(number));
                    match answer.recv_timeout(PATIENCE).expect("every command is answered, whatever happens") {
                        DONE => _ = done.fetch_add(1, Ordering::Relaxed),
                        Reply::Unknown(_) => {
                            unknown.fetch_add(1, Ordering::Relaxed);
                            // As a coordinator would: not at once.
                            std::thread::sleep(Duration::from_millis(1));
                        }
                        other => odd.lock().unwrap().push(other),
                    }
                }
            })
        });
        let threads = threads.collect();
        Self { stop, done, unknown, odd, threads }
    }

    /// Waits until so many more were done.
    fn goes_on(&self) -> bool {
        let before = self.done.load(Ordering::Relaxed);
        wait_until(PATIENCE, || self.done.load(Ordering::Relaxed) > before + 100)
    }

    fn end(self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads {
            thread.join().expect("every command is answered");
        }
        assert_eq!(*self.odd.lock().unwrap(), []);
    }
}

fn survives_a_killed_server(mode: Mode) {
    let mut server = server();
    let way = Way::new(&options(&server, "order-1", mode), willing());
    let load = Load::on(&way);
    for round in 1..=3 {
        assert!(load.goes_on(), "{mode:?}");
        let before = read(&load.unknown);
        server.kill().unwrap();
        assert!(reaches(&load.unknown, before + 1), "{mode:?}: what is under way is unknown");
        server.restart().unwrap();
        assert!(load.goes_on(), "{mode:?}: it goes on by itself, round {round}");
        assert!(reaches(&way.order.statistics().reconnects, round));
    }
    load.end();
}

#[test]
fn a_killed_server_costs_core_nats_what_was_under_way() {
    survives_a_killed_server(CORE);
}

#[test]
fn a_killed_server_costs_a_stream_in_memory_what_was_under_way() {
    survives_a_killed_server(MEMORY);
}

#[test]
fn a_killed_server_costs_a_stream_in_files_little() {
    survives_a_killed_server(FILE);
}

#[test]
fn without_a_server_a_command_is_unreachable_at_once() {
    let mut server = server();
    let way = Way::new(&Options { timeout: PATIENCE, ..options(&server, "order-1", MEMORY) }, willing());
    assert!(way.transport.is_connected());
    server.kill().unwrap();
    assert!(wait_until(PATIENCE, || !way.order.is_connected()));
    assert!(!way.transport.is_connected());
    assert_eq!(way.ask(1), Reply::Unknown(Unknown::Unreachable));
    assert_eq!(read(&way.order.statistics().sent), 0);
}

#[test]
fn a_deleted_stream_and_a_deleted_consumer_come_back() {
    for mode in [MEMORY, FILE] {
        let server = server();
        let way = Way::new(&options(&server, "order-1", mode), willing());
        let (_, jetstream) = raw(&way.runtime, &server);
        let load = Load::on(&way);
        assert!(load.goes_on());
        way.runtime.block_on(jetstream.delete_stream("settle-command-stock")).unwrap();
        assert!(load.goes_on(), "{mode:?}: after the stream");
        let consumer = jetstream.delete_consumer_from_stream("instances", "settle-command-stock");
        way.runtime.block_on(consumer).unwrap();
        assert!(load.goes_on(), "{mode:?}: after the consumer");
        load.end();
        let repairs = read(&way.order.statistics().repairs) + read(&way.stock.statistics().repairs);
        assert!(repairs >= 2, "{mode:?}: {repairs} repairs");
    }
}

#[test]
fn a_frozen_server_costs_a_time_out_and_nothing_more() {
    for mode in [CORE, MEMORY] {
        let server = server();
        let way = Way::new(&options(&server, "order-1", mode), willing());
        assert_eq!(way.ask(1), DONE);
        server.freeze().unwrap();
        // The signal takes effect a moment after it was sent.
        let silent = wait_until(PATIENCE, || way.ask(2) == Reply::Unknown(Unknown::Timeout));
        assert!(silent, "{mode:?}");
        let gone = wait_until(PATIENCE, || !way.order.is_connected());
        let at_once = way.ask(3);
        server.thaw().unwrap();
        assert!(gone, "{mode:?}: a server that does not answer is taken for gone");
        assert_eq!(at_once, Reply::Unknown(Unknown::Unreachable));
        assert!(way.until_done(100), "{mode:?}");
    }
}

#[test]
fn a_backlog_is_worked_off() {
    for mode in [CORE, FILE] {
        let server = server();
        let options = Options { in_flight: 16, timeout: PATIENCE, ..options(&server, "order-1", mode) };
        let participant = willing();
        let way = Way::new(&options, participant.clone());
        let answers: Vec<_> = (0..10_000).map(|number| way.send(number)).collect();
        let done = answers.iter().filter(|answer| answer.recv_timeout(PATIENCE) == Ok(DONE)).count();
        assert_eq!(done, answers.len(), "{mode:?}");
        assert_eq!(read(&way.order.statistics().dropped) + read(&way.stock.statistics().dropped), 0);
    }
}
