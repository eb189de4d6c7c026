//! Commands a second of one ledger in Redis, by durability and by the size of a batch; and where the time goes.
//!
//! ```sh
//! cargo run --release -p settle-redis --example measure            # two seconds a line
//! cargo run --release -p settle-redis --example measure -- 10      # ten
//! ```
//!
//! A closed loop: twice as many callers as a batch takes, each preparing and committing branches of one entry, on one of 10,000 accounts.
//! `script` is what the server says it spends in a script, by the clock; `server` and `client` are processor time for each command, which
//! hardly depends on what else the machine does. What is left of the time for a command is waiting: for the disk, or for a replica.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

use anyhow::Context;
use hdrhistogram::Histogram;
use ledger::{EntityId, Entry, LedgerCommand, LedgerReply, entries};
use orchestrator::{LedgerStore, StoreFailure};
use protocol::{BranchId, Command, Name, Payload, Timestamp, TransactionId, Verb};
use redis_store::{Durability, Options, Place, RedisLedger};
use servers::redis::{Persistence, Server};
use servers::wait_until;

const ACCOUNTS: u64 = 10_000;

/// One caller: the next command when the last one is answered.
struct Caller {
    store: RedisLedger,
    number: Arc<AtomicU64>,
    until: Instant,
    sent: Instant,
    latencies: Histogram<u64>,
    failures: u64,
    finished: std::sync::mpsc::Sender<(Histogram<u64>, u64)>,
}

fn payload(n: u64) -> Payload {
    let entry = Entry { account: EntityId::number(n.wrapping_mul(7_919) % ACCOUNTS), amount: 1 };
    entries::encode(&[entry]).unwrap_or(Payload::EMPTY)
}

impl Caller {
    fn next(mut self, n: u64, verb: Verb) {
        let now = Instant::now();
        if now >= self.until {
            // Nobody to tell means that the measurement was given up.
            _ = self.finished.send((self.latencies, self.failures));
            return;
        }
        self.sent = now;
        let mut random = [0; 16];
        random[..8].copy_from_slice(&n.to_be_bytes());
        let branch = BranchId { transaction: TransactionId::new(Timestamp(1_000_000 + n / 100), random), step: 0 };
        let command = LedgerCommand::Branch(Command { branch, verb, payload: payload(n) });
        let store = self.store.clone();
        let answered = move |reply: Result<LedgerReply, StoreFailure>| {
            // A latency beyond what the histogram holds cannot come: the store gives up long before.
            _ = self.latencies.record(self.sent.elapsed().as_micros() as u64);
            self.failures += u64::from(reply.is_err());
            match verb {
                Verb::Prepare => self.next(n, Verb::Commit),
                _ => {
                    let n = self.number.fetch_add(1, Ordering::Relaxed);
                    self.next(n, Verb::Prepare);
                }
            }
        };
        store.submit(command, Box::new(answered));
    }
}

/// Calls of scripts and microseconds in them, as the server counts.
fn scripts(server: &Server) -> anyhow::Result<(f64, f64)> {
    let told = server.ask("INFO commandstats")?;
    let line = told.lines().find(|line| line.starts_with("cmdstat_evalsha:")).unwrap_or_default();
    let number = |name: &str| {
        line.split([':', ',']).find_map(|field| field.strip_prefix(name)?.parse::<f64>().ok()).unwrap_or(0.0)
    };
    Ok((number("calls="), number("usec=")))
}

/// Microseconds of processor time: the server's, as it says, and this process's.
fn processor(server: &Server) -> anyhow::Result<(f64, f64)> {
    let told = server.ask("INFO cpu")?;
    let seconds =
        |name: &str| told.lines().find_map(|line| line.strip_prefix(name)?.parse::<f64>().ok()).unwrap_or(0.0);
    let of_server = seconds("used_cpu_sys:") + seconds("used_cpu_user:");
    // The 14th and 15th field, in hundredths of a second; the name before them is in parentheses.
    let told = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields: Vec<&str> = told.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    let ticks = |at: usize| fields.get(at).and_then(|field| field.parse::<f64>().ok()).unwrap_or(0.0);
    Ok((of_server * 1e6, (ticks(11) + ticks(12)) * 1e4))
}

fn measure(server: &Server, durability: Durability, batch: usize, lasting: Duration) -> anyhow::Result<()> {
    server.ask("FLUSHALL")?;
    let place = Place::Standalone { address: server.address() };
    let store = RedisLedger::open(Name::literal("stock"), &Options { durability, batch, ..Options::new(place) })?;
    let (send, seeded) = channel();
    let seed = LedgerCommand::Replace { count: ACCOUNTS, available: 1_000_000_000, price: 1 };
    store.submit(seed, Box::new(move |reply| _ = send.send(reply)));
    seeded.recv()??;
    let (before, spent, began) = (scripts(server)?, processor(server)?, Instant::now());
    let statistics = store.statistics();
    let (number, (finished, ended)) = (Arc::new(AtomicU64::new(0)), channel());
    for _ in 0..2 * batch {
        let n = number.fetch_add(1, Ordering::Relaxed);
        let caller = Caller {
            store: store.clone(),
            number: Arc::clone(&number),
            until: began + lasting,
            sent: began,
            latencies: Histogram::new(3)?,
            failures: 0,
            finished: finished.clone(),
        };
        caller.next(n, Verb::Prepare);
    }
    drop(finished);
    let (mut latencies, mut failures) = (Histogram::<u64>::new(3)?, 0);
    for (of_one, failed) in ended {
        latencies.add(of_one)?;
        failures += failed;
    }
    let (seconds, after, statistics_after) = (began.elapsed().as_secs_f64(), scripts(server)?, store.statistics());
    let spent_after = processor(server)?;
    let (calls, micros) = (after.0 - before.0, after.1 - before.1);
    let batches = (statistics_after.batches - statistics.batches) as f64;
    println!(
        "{:<24} {batch:>5} {:>12.0} {:>9.1} {:>10.0} {:>10.0} {:>9.1} {:>9.1} {:>9.1} {failures:>6}",
        format!("{durability:?}"),
        latencies.len() as f64 / seconds,
        latencies.len() as f64 / batches,
        latencies.value_at_quantile(0.5),
        latencies.value_at_quantile(0.99),
        micros / calls,
        (spent_after.0 - spent.0) / calls,
        (spent_after.1 - spent.1) / calls,
    );
    Ok(())
}

fn main() -> anyhow::Result<()> {
    let seconds =
        std::env::args().nth(1).map_or(Ok(2), |word| word.parse()).context("the seconds a line, as a number")?;
    let lasting = Duration::from_secs(seconds);
    println!(
        "{:<24} {:>5} {:>12} {:>9} {:>10} {:>10} {:>9} {:>9} {:>9} {:>6}",
        "durability",
        "batch",
        "commands/s",
        "a batch",
        "p50 µs",
        "p99 µs",
        "script µs",
        "server µs",
        "client µs",
        "failed"
    );
    for batch in [1, 16, 64] {
        let plain = Server::start(Persistence::None)?;
        measure(&plain, Durability::Memory, batch, lasting)?;
        drop(plain);
        let master = Server::start(Persistence::Always)?;
        measure(&master, Durability::Fsync, batch, lasting)?;
        let _replica = master.start_replica(Persistence::Always)?;
        let in_touch = || master.ask("INFO replication").is_ok_and(|told| told.contains("state=online"));
        anyhow::ensure!(wait_until(Duration::from_secs(10), in_touch), "the replica did not find its master");
        measure(&master, Durability::Replicated { replicas: 1 }, batch, lasting)?;
    }
    Ok(())
}
