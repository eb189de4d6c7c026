//! The same work on this store, on fjall and on redb, in one run:
//! `cargo run --release -p settle-embedded --example compare`
//!
//! - *batches*: one caller, 64 records of about 150 bytes each, one durable flush for all of them.
//! - *callers*: 64 callers, each with one record at a time, the next once the last is durable. fjall
//!   and redb have no group commit of their own, so each gets one thread that commits what has piled up,
//!   which is the best that can be done for them from outside.
//!
//! The stores take turns, and medians are printed, because a disk shared with others is noisy.

use std::collections::HashMap;
use std::io;
use std::path::Path;
use std::sync::mpsc::{self, Receiver, Sender};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use settle_embedded::{Applied, Machine, Options, Store};

type Failure = Box<dyn std::error::Error + Send + Sync>;

const BATCH: usize = 64;
const RECORD: usize = 140;
const ROUNDS: usize = 5;
const ROUND: Duration = Duration::from_secs(2);

#[derive(Clone, Serialize, Deserialize)]
struct Put {
    key: u64,
    value: Vec<u8>,
}

impl Put {
    fn numbered(number: u64) -> Put {
        Put {
            key: number % 100_000,
            value: vec![number as u8; RECORD],
        }
    }
}

#[derive(Default)]
struct Map(HashMap<u64, Vec<u8>>);

impl Machine for Map {
    type Command = Put;
    type Reply = u64;
    type Frozen = HashMap<u64, Vec<u8>>;

    const NAME: &'static str = "compare";
    const VERSION: u16 = 1;

    fn new() -> Self {
        Map::default()
    }

    fn apply(&mut self, command: &Put) -> Applied<u64> {
        self.0.insert(command.key, command.value.clone());
        Applied {
            reply: command.key,
            changed: true,
        }
    }

    fn freeze(&self) -> Self::Frozen {
        self.0.clone()
    }

    fn write_snapshot(frozen: &Self::Frozen, out: &mut dyn io::Write) -> io::Result<()> {
        frozen.iter().try_for_each(|(key, value)| {
            out.write_all(&key.to_le_bytes())?;
            out.write_all(value)
        })
    }

    fn read_snapshot(input: &mut dyn io::Read) -> io::Result<Self> {
        let mut map = Map::default();
        let mut record = [0; 8 + RECORD];
        loop {
            match input.read_exact(&mut record) {
                Ok(()) => {
                    let (key, value) = record.split_at(8);
                    let key = u64::from_le_bytes(key.try_into().map_err(io::Error::other)?);
                    map.0.insert(key, value.to_vec());
                }
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(map),
                Err(error) => return Err(error),
            }
        }
    }
}

/// Something that takes a record and tells when it is durable.
trait Contestant {
    fn put(&self, put: Put, done: Sender<usize>, caller: usize);
}

impl Contestant for Store<Map> {
    fn put(&self, put: Put, done: Sender<usize>, caller: usize) {
        self.submit(put, move |outcome| {
            if outcome.is_ok() {
                // Nobody listens any more once the round is over.
                let _over = done.send(caller);
            }
        });
    }
}

/// A thread that commits whatever has piled up.
struct GroupCommit(Sender<(Put, Sender<usize>, usize)>);

impl GroupCommit {
    fn start(
        commit: impl Fn(&mut dyn Iterator<Item = &Put>) -> Result<(), Failure> + Send + 'static,
    ) -> Self {
        let (send, receive): (_, Receiver<(Put, Sender<usize>, usize)>) = mpsc::channel();
        std::thread::spawn(move || {
            while let Ok(first) = receive.recv() {
                let batch: Vec<_> = std::iter::once(first)
                    .chain(receive.try_iter().take(4 * BATCH))
                    .collect();
                if let Err(error) = commit(&mut batch.iter().map(|(put, ..)| put)) {
                    eprintln!("a commit failed: {error}");
                    return;
                }
                for (_, done, caller) in batch {
                    let _over = done.send(caller);
                }
            }
        });
        GroupCommit(send)
    }
}

impl Contestant for GroupCommit {
    fn put(&self, put: Put, done: Sender<usize>, caller: usize) {
        let _over = self.0.send((put, done, caller));
    }
}

fn fjall(folder: &Path) -> Result<GroupCommit, Failure> {
    let database = fjall::Database::builder(folder).open()?;
    let keyspace = database.keyspace("compare", fjall::KeyspaceCreateOptions::default)?;
    Ok(GroupCommit::start(move |puts| {
        let mut batch = database
            .batch()
            .durability(Some(fjall::PersistMode::SyncData));
        puts.for_each(|put| batch.insert(&keyspace, put.key.to_be_bytes(), &put.value));
        Ok(batch.commit()?)
    }))
}

fn redb(folder: &Path) -> Result<GroupCommit, Failure> {
    const TABLE: redb::TableDefinition<u64, &[u8]> = redb::TableDefinition::new("compare");
    let database = redb::Database::create(folder.join("compare.redb"))?;
    Ok(GroupCommit::start(move |puts| {
        let transaction = database.begin_write()?;
        {
            let mut table = transaction.open_table(TABLE)?;
            for put in puts {
                table.insert(put.key, put.value.as_slice())?;
            }
        }
        Ok(transaction.commit()?)
    }))
}

/// Records per second, one caller committing 64 at a time.
fn batches(store: &dyn Contestant) -> Result<f64, Failure> {
    let (done, durable) = mpsc::channel();
    let (began, mut count) = (Instant::now(), 0u64);
    while began.elapsed() < ROUND {
        for _ in 0..BATCH {
            store.put(Put::numbered(count), done.clone(), 0);
            count += 1;
        }
        for _ in 0..BATCH {
            durable.recv_timeout(Duration::from_secs(30))?;
        }
    }
    Ok(count as f64 / began.elapsed().as_secs_f64())
}

/// Records per second, 64 callers in a closed loop. One thread plays them all: 64 threads on few cores
/// would measure the scheduler.
fn callers(store: &dyn Contestant) -> Result<f64, Failure> {
    let (done, durable) = mpsc::channel();
    let (began, mut count) = (Instant::now(), 0u64);
    (0..BATCH).for_each(|caller| store.put(Put::numbered(caller as u64), done.clone(), caller));
    while began.elapsed() < ROUND {
        let caller = durable.recv_timeout(Duration::from_secs(30))?;
        count += 1;
        store.put(Put::numbered(count), done.clone(), caller);
    }
    Ok(count as f64 / began.elapsed().as_secs_f64())
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn main() -> Result<(), Failure> {
    let base = tempfile::Builder::new()
        .prefix("compare-")
        .tempdir_in(".")?;
    let folder = |name: &str| -> io::Result<std::path::PathBuf> {
        let folder = base.path().join(name);
        std::fs::create_dir_all(&folder)?;
        Ok(folder)
    };
    let (store, _) = Store::<Map>::open(&folder("settle")?, Options::default())?;
    let (fjall, redb) = (fjall(&folder("fjall")?)?, redb(&folder("redb")?)?);

    let (done, durable) = mpsc::channel();
    let began = Instant::now();
    (0..100_000).for_each(|number| store.put(Put::numbered(number), done.clone(), 0));
    let submitted = began.elapsed();
    durable.iter().take(100_000).for_each(drop);
    println!(
        "submit, without waiting: {:.2} µs each; durable after {:.2} µs each",
        submitted.as_secs_f64() * 10.0,
        began.elapsed().as_secs_f64() * 10.0
    );

    let contestants: [(&str, &dyn Contestant); 3] =
        [("settle", &store), ("fjall", &fjall), ("redb", &redb)];
    let mut results = vec![(Vec::new(), Vec::new()); contestants.len()];
    for _ in 0..ROUNDS {
        for ((_, contestant), (in_batches, by_callers)) in contestants.iter().zip(&mut results) {
            in_batches.push(batches(*contestant)?);
            by_callers.push(callers(*contestant)?);
        }
    }
    let medians: Vec<_> = results
        .into_iter()
        .map(|(one, other)| (median(one), median(other)))
        .collect();
    println!(
        "{:8} {:>14} {:>8} {:>14} {:>8}",
        "", "batches of 64", "ratio", "64 callers", "ratio"
    );
    for ((name, _), (in_batches, by_callers)) in contestants.iter().zip(&medians) {
        println!(
            "{name:8} {in_batches:>12.0}/s {:>8.2} {by_callers:>12.0}/s {:>8.2}",
            medians[0].0 / in_batches,
            medians[0].1 / by_callers
        );
    }
    let statistics = store.statistics();
    println!(
        "settle: {} flushes of {:.1} records and {:.0} µs on average, {} snapshots",
        statistics.flushes,
        statistics.commands as f64 / statistics.flushes.max(1) as f64,
        statistics.flush_nanoseconds as f64 / 1000.0 / statistics.flushes.max(1) as f64,
        statistics.snapshots
    );
    Ok(())
}
