//! Checkouts a second of one order database in Redis, by durability and by the size of a batch; and where the time goes.
//!
//! ```sh
//! cargo run --release -p settle-shop --example orders_in_redis            # two seconds a line
//! cargo run --release -p settle-shop --example orders_in_redis -- 10      # ten
//! ```
//!
//! A closed loop: twice as many callers as a batch takes, each staging a transaction that claims an order of its own, and deciding it, once that
//! is durable; then the next one. Finished in batches of 64, and forgotten. `pairs/s` are stages with their decisions. `script` is what the server
//! says it spends in a script, by the clock; `server` and `client` are processor time for each script.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::time::{Duration, Instant};

use anyhow::Context;
use hdrhistogram::Histogram;
use ledger::{EntityId, Entry, entries};
use orchestrator::Log;
use parking_lot::Mutex;
use protocol::limits::MAX_BATCH;
use protocol::log::{LogCommand, LogReply, Writer};
use protocol::{
    Decision, Epoch, Name, Order as StepOrder, Protocol, Recovery, Step, Timestamp, Transaction, TransactionId,
};
use redis_store::{Durability, Options, Place};
use servers::redis::{Persistence, Server};
use servers::wait_until;
use shop::checkout::{CHECKOUT, Claim, PAYMENT, STOCK};
use shop::order_store::OrderStore;
use shop::orders::OrdersCommand;
use shop::redis_orders::RedisOrders;

const WRITER: Writer = Writer { instance: Name::literal("order-1"), epoch: Epoch(1) };
/// Transactions finished with one command.
const FINISHED: usize = 64;

/// What callers share.
struct Loop {
    store: RedisOrders,
    number: AtomicU64,
    until: Instant,
    finished: Mutex<Vec<TransactionId>>,
}

/// One caller: the next transaction when the last one is decided.
struct Caller {
    shared: Arc<Loop>,
    began: Instant,
    latencies: Histogram<u64>,
    failures: u64,
    ended: Sender<(Histogram<u64>, u64)>,
}

fn transaction(n: u64) -> anyhow::Result<Transaction> {
    let mut random = [0; 16];
    random[..8].copy_from_slice(&n.to_be_bytes());
    let entry = |n| Entry { account: EntityId::number(n), amount: 1 };
    let steps = vec![
        Step { service: STOCK, payload: entries::encode(&[entry(n % 1_000), entry(n % 1_000 + 1)])? },
        Step { service: PAYMENT, payload: entries::encode(&[entry(n % 5_000)])? },
    ];
    let context = Claim { order: EntityId::number(n), version: n + 1 }.encode()?;
    Ok(Transaction {
        id: TransactionId::new(Timestamp(1_000_000 + n / 100), random),
        definition: CHECKOUT,
        protocol: Protocol::TwoPhase,
        order: StepOrder::Parallel,
        recovery: Recovery::Backward,
        steps: steps.into(),
        context,
    })
}

impl Caller {
    fn next(mut self) {
        let (n, now) = (self.shared.number.fetch_add(1, Ordering::Relaxed), Instant::now());
        let made = transaction(n).ok().filter(|_| now < self.shared.until && n < MAX_BATCH);
        let Some(made) = made else {
            // Nobody to tell means that the measurement was given up.
            _ = self.ended.send((self.latencies, self.failures));
            return;
        };
        self.began = now;
        let (id, shared) = (made.id, Arc::clone(&self.shared));
        let stage = LogCommand::Stage { writer: WRITER, transaction: Arc::new(made) };
        let staged = move |answer| {
            self.failures += u64::from(answer != Ok(LogReply::Staged));
            let decide = LogCommand::Decide { writer: WRITER, id, decision: Decision::Commit, now: Timestamp(5) };
            let shared = Arc::clone(&self.shared);
            let decided = move |answer: Result<LogReply, _>| {
                self.failures += u64::from(!matches!(answer, Ok(LogReply::Decided { first: true, .. })));
                // A latency beyond what the histogram holds cannot come: the store gives up long before.
                _ = self.latencies.record(self.began.elapsed().as_micros() as u64);
                self.finish(id);
                self.next();
            };
            shared.store.decide(decide, Box::new(|_| {}), Box::new(decided));
        };
        shared.store.append(stage, Box::new(staged));
    }

    fn finish(&self, id: TransactionId) {
        let mut finished = self.shared.finished.lock();
        finished.push(id);
        if finished.len() >= FINISHED {
            let ids = std::mem::take(&mut *finished);
            drop(finished);
            let finish = LogCommand::Finish { writer: WRITER, ids, now: Timestamp(6) };
            self.shared.store.append(finish, Box::new(|_| {}));
            let forget = LogCommand::Forget { finished_before: Timestamp(0), keep: 10_000, spare_since: Timestamp(7) };
            self.shared.store.append(forget, Box::new(|_| {}));
        }
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
    let store = RedisOrders::open(&Options { durability, batch, ..Options::new(place) })?;
    let register = LogCommand::Register { instance: WRITER.instance, now: Timestamp(0), lease: u64::MAX };
    let replace = OrdersCommand::Replace { count: MAX_BATCH, items: 1_000, users: 5_000, price: 1, seed: 7 };
    for command in [OrdersCommand::Log(register), replace] {
        let (send, told) = channel();
        store.submit(command, Box::new(move |reply| _ = send.send(reply)));
        told.recv()??;
    }
    let (before, spent, began) = (scripts(server)?, processor(server)?, Instant::now());
    let statistics = store.statistics();
    let shared = Arc::new(Loop {
        store: store.clone(),
        number: AtomicU64::new(0),
        until: began + lasting,
        finished: Mutex::default(),
    });
    let (ended, told) = channel();
    for _ in 0..2 * batch {
        let (shared, ended) = (Arc::clone(&shared), ended.clone());
        Caller { shared, began, latencies: Histogram::new(3)?, failures: 0, ended }.next();
    }
    drop(ended);
    let (mut latencies, mut failures) = (Histogram::<u64>::new(3)?, 0);
    for (of_one, failed) in told {
        latencies.add(of_one)?;
        failures += failed;
    }
    let (seconds, after, statistics_after) = (began.elapsed().as_secs_f64(), scripts(server)?, store.statistics());
    let spent_after = processor(server)?;
    let (calls, micros) = (after.0 - before.0, after.1 - before.1);
    let batches = (statistics_after.batches - statistics.batches) as f64;
    println!(
        "{:<24} {batch:>5} {:>10.0} {:>9.1} {:>9.0} {:>9.0} {:>9.1} {:>9.1} {:>9.1} {failures:>6}",
        format!("{durability:?}"),
        latencies.len() as f64 / seconds,
        calls / batches,
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
        "{:<24} {:>5} {:>10} {:>9} {:>9} {:>9} {:>9} {:>9} {:>9} {:>6}",
        "durability",
        "batch",
        "pairs/s",
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
