//! Commands a second over NATS, by mode and by how many are under way; how long one takes; and what the server's own word costs.
//!
//! ```sh
//! cargo run --release -p settle-nats --example measure            # two seconds a line
//! cargo run --release -p settle-nats --example measure -- 10      # ten
//! ```
//!
//! A closed loop: so many callers, each of which sends a command of 100 bytes when the one before was answered, by a participant that does
//! nothing. Order side, participant and server share the machine. `awaited` is what the transport does *not* do: it waits for the server's
//! acknowledgement of each command before it sends the next; measured with the client library alone, for comparison with `published`, the
//! same without waiting. Both are one way only: nobody takes the commands out.

use std::sync::Arc;
use std::sync::mpsc::{Sender, channel};
use std::time::{Duration, Instant};

use anyhow::Context;
use hdrhistogram::Histogram;
use nats::{Mode, Nats, NatsTransport, Options, Storage};
use orchestrator::{Done, Participant, Transport};
use protocol::{BranchId, BranchState, Command, Name, Payload, Reply, Timestamp, TransactionId, Verb};
use servers::nats::Server;

const STOCK: Name = Name::literal("stock");
const BYTES: usize = 100;

struct Willing;

impl Participant for Willing {
    fn handle(&self, _: Command, done: Done<Reply>) {
        done(Reply::Done(BranchState::Prepared));
    }
}

struct Caller {
    transport: Arc<NatsTransport>,
    until: Instant,
    latencies: Histogram<u64>,
    failures: u64,
    finished: Sender<(Histogram<u64>, u64)>,
}

impl Caller {
    fn next(mut self) {
        let sent = Instant::now();
        if sent >= self.until {
            // Nobody to tell means that the measurement was given up.
            _ = self.finished.send((self.latencies, self.failures));
            return;
        }
        let transport = Arc::clone(&self.transport);
        let branch = BranchId { transaction: TransactionId::new(Timestamp(1), [1; 16]), step: 0 };
        let command = Command { branch, verb: Verb::Prepare, payload: Payload::from(vec![7; BYTES]) };
        let answered = move |reply: Reply| {
            // A latency beyond what the histogram holds cannot come: the transport gives up long before.
            _ = self.latencies.record(sent.elapsed().as_nanos() as u64);
            self.failures += u64::from(reply != Reply::Done(BranchState::Prepared));
            self.next();
        };
        transport.send(&STOCK, command, Box::new(answered));
    }
}

async fn measure(server: &Server, mode: Mode, callers: usize, lasting: Duration) -> anyhow::Result<()> {
    let prefix = Name::new(&format!("m{}", fastrand::u32(..)))?;
    let options = |instance: &str| -> anyhow::Result<Options> {
        Ok(Options { mode, prefix, ..Options::new(Name::new(instance)?, server.address()) })
    };
    let stock = Nats::connect(options("stock-1")?).await?;
    let _serving = stock.serve(STOCK, Arc::new(Willing)).await?;
    let order = Nats::connect(options("order-1")?).await?;
    let transport = Arc::new(order.transport([STOCK]).await?);
    let (finished, ended) = channel();
    let began = Instant::now();
    for _ in 0..callers {
        let caller = Caller {
            transport: Arc::clone(&transport),
            until: began + lasting,
            latencies: Histogram::new(3)?,
            failures: 0,
            finished: finished.clone(),
        };
        caller.next();
    }
    drop(finished);
    let (mut latencies, mut failures) = (Histogram::<u64>::new(3)?, 0);
    let all = tokio::task::spawn_blocking(move || ended.into_iter().collect::<Vec<_>>()).await?;
    for (of_one, failed) in all {
        latencies.add(of_one)?;
        failures += failed;
    }
    let micros = |quantile| latencies.value_at_quantile(quantile) as f64 / 1e3;
    println!(
        "{:<18} {callers:>9} {:>12.0} {:>9.0} {:>9.0} {failures:>7}",
        name(mode),
        latencies.len() as f64 / began.elapsed().as_secs_f64(),
        micros(0.5),
        micros(0.99),
    );
    Ok(())
}

fn name(mode: Mode) -> &'static str {
    match mode {
        Mode::Core => "core",
        Mode::JetStream { storage: Storage::Memory, .. } => "jetstream, memory",
        Mode::JetStream { storage: Storage::File, .. } => "jetstream, file",
    }
}

/// Publishing to a stream that nobody reads, by the client library alone.
async fn publishing(
    server: &Server,
    file: bool,
    awaited: bool,
    callers: usize,
    lasting: Duration,
) -> anyhow::Result<()> {
    use async_nats::jetstream::stream::{Config, StorageType};
    let client = async_nats::connect(server.address()).await?;
    let jetstream = async_nats::jetstream::new(client.clone());
    let stream = Config {
        name: format!("p{}", fastrand::u32(..)),
        subjects: vec!["p".to_owned()],
        storage: if file { StorageType::File } else { StorageType::Memory },
        ..Config::default()
    };
    jetstream.create_stream(stream.clone()).await?;
    let began = Instant::now();
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..callers {
        let (client, jetstream) = (client.clone(), jetstream.clone());
        tasks.spawn(async move {
            let mut published = 0_u64;
            while began.elapsed() < lasting {
                let payload = bytes::Bytes::from_static(&[7; BYTES]);
                if awaited {
                    jetstream.publish("p", payload).await?.await?;
                } else {
                    client.publish("p", payload).await?;
                }
                published += 1;
            }
            anyhow::Ok(published)
        });
    }
    let mut published = 0;
    while let Some(of_one) = tasks.join_next().await {
        published += of_one??;
    }
    // What was published counts once the server has it.
    jetstream.publish("p", "".into()).await?.await?;
    let storage = if file { "file" } else { "memory" };
    let how = if awaited { "awaited" } else { "published" };
    let rate = published as f64 / began.elapsed().as_secs_f64();
    println!("{:<18} {callers:>9} {rate:>12.0}", format!("{how}, {storage}"));
    jetstream.delete_stream(stream.name).await?;
    Ok(())
}

fn main() -> anyhow::Result<()> {
    let seconds =
        std::env::args().nth(1).map_or(Ok(2), |word| word.parse()).context("the seconds a line, as a number")?;
    let lasting = Duration::from_secs(seconds);
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let memory = Mode::JetStream { storage: Storage::Memory, replicas: 1 };
    let file = Mode::JetStream { storage: Storage::File, replicas: 1 };
    println!("{:<18} {:>9} {:>12} {:>9} {:>9} {:>7}", "mode", "under way", "commands/s", "p50 µs", "p99 µs", "failed");
    runtime.block_on(async {
        for mode in [Mode::Core, memory, file] {
            for callers in [1, 16, 64, 256] {
                let server = Server::start()?;
                measure(&server, mode, callers, lasting).await?;
            }
        }
        for file in [false, true] {
            for awaited in [false, true] {
                for callers in [1, 16, 64] {
                    let server = Server::start()?;
                    publishing(&server, file, awaited, callers, lasting).await?;
                }
            }
        }
        Ok(())
    })
}
