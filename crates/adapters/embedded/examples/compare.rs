//! The same work on this store, on fjall and on redb, in one run:
//! `cargo run --release -p settle-embedded --example compare`
//!
//! - *batches*: 64 records of about 150 bytes and one durable flush for all of them; then the next 64.
//! - *two batches*: the same on this store with a second batch applied while the first is flushed. fjall
//!   and redb hold the caller until their flush is done, so for them it is the same number again.
//! - *callers*: 64 callers, each with one record at a time, the next once the last is durable. fjall
//!   and redb have no group commit of their own, so each gets one thread that commits what has piled up,
//!   which is the best that can be done for them from outside.
//!
//! The stores take turns, and medians are printed, because a disk shared with others is noisy.

use std::collections::HashMap;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, Sender};
use std::time::{Duration, Instant};

use embedded::{Applied, Machine, Options, Store};
use serde::{Deserialize, Serialize};

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
        Put { key: number % 100_000, value: vec![number as u8; RECORD] }
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
        Applied { reply: command.key, changed: true }
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

    fn read_snapshot(input: &mut dyn io::Read, _: u16) -> io::Result<Self> {
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

type Commit = Box<dyn Fn(&[Put]) -> Result<(), Failure> + Send + Sync>;

/// Something that takes a record and tells when it is durable.
trait Contestant {
    fn put(&self, put: Put, done: Sender<usize>, caller: usize);
    /// Begins a batch; `done` hears when it is durable.
    fn put_all(&self, puts: Vec<Put>, done: Sender<usize>) -> Result<(), Failure>;
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

    fn put_all(&self, puts: Vec<Put>, done: Sender<usize>) -> Result<(), Failure> {
        self.submit_all(puts, move |replies| {
            if replies.iter().all(Result::is_ok) {
                let _over = done.send(replies.len());
            }
        });
        Ok(())
    }
}

/// A database, and a thread that commits to it whatever has piled up.
struct Database {
    commit: Arc<Commit>,
    queue: Sender<(Put, Sender<usize>, usize)>,
}

impl Database {
    fn start(commit: Commit) -> Self {
        let commit = Arc::new(commit);
        let (queue, receive): (_, Receiver<(Put, Sender<usize>, usize)>) = mpsc::channel();
        let database = Database { commit: commit.clone(), queue };
        std::thread::spawn(move || {
            while let Ok(first) = receive.recv() {
                let (mut puts, mut callers) = (Vec::new(), Vec::new());
                for (put, done, caller) in std::iter::once(first).chain(receive.try_iter().take(4 * BATCH)) {
                    puts.push(put);
                    callers.push((done, caller));
                }
                if let Err(error) = commit(&puts) {
                    eprintln!("a commit failed: {error}");
                    return;
                }
                for (done, caller) in callers {
                    let _over = done.send(caller);
                }
            }
        });
        database
    }
}

impl Contestant for Database {
    fn put(&self, put: Put, done: Sender<usize>, caller: usize) {
        let _over = self.queue.send((put, done, caller));
    }

    fn put_all(&self, puts: Vec<Put>, done: Sender<usize>) -> Result<(), Failure> {
        (self.commit)(&puts)?;
        let _over = done.send(puts.len());
        Ok(())
    }
}

fn fjall(folder: &Path) -> Result<Database, Failure> {
    let database = fjall::Database::builder(folder).open()?;
    let keyspace = database.keyspace("compare", fjall::KeyspaceCreateOptions::default)?;
    Ok(Database::start(Box::new(move |puts| {
        let mut batch = database.batch().durability(Some(fjall::PersistMode::SyncData));
        puts.iter().for_each(|put| batch.insert(&keyspace, put.key.to_be_bytes(), &put.value));
        Ok(batch.commit()?)
    })))
}

fn redb(folder: &Path) -> Result<Database, Failure> {
    const TABLE: redb::TableDefinition<u64, &[u8]> = redb::TableDefinition::new("compare");
    let database = redb::Database::create(folder.join("compare.redb"))?;
    Ok(Database::start(Box::new(move |puts| {
        let transaction = database.begin_write()?;
        {
            let mut table = transaction.open_table(TABLE)?;
            for put in puts {
                table.insert(put.key, put.value.as_slice())?;
            }
        }
        Ok(transaction.commit()?)
    })))
}

/// Records per second, 64 at a time, with so many batches under way at once.
fn batches(store: &dyn Contestant, under_way: usize) -> Result<f64, Failure> {
    let (done, durable) = mpsc::channel();
    let (began, mut begun, mut count) = (Instant::now(), 0u64, 0);
    let mut next = || {
        let puts = (begun..begun + BATCH as u64).map(Put::numbered).collect();
        begun += BATCH as u64;
        store.put_all(puts, done.clone())
    };
    for _ in 1..under_way {
        next()?;
    }
    while began.elapsed() < ROUND {
        next()?;
        count += durable.recv_timeout(Duration::from_secs(30))?;
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
    let base = tempfile::Builder::new().prefix("compare-").tempdir_in(".")?;
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

    let contestants: [(&str, &dyn Contestant); 3] = [("settle", &store), ("fjall", &fjall), ("redb", &redb)];
    let mut results = vec![[const { Vec::new() }; 3]; contestants.len()];
    for _ in 0..ROUNDS {
        for ((_, contestant), [one, two, many]) in contestants.iter().zip(&mut results) {
            one.push(batches(*contestant, 1)?);
            two.push(batches(*contestant, 2)?);
            many.push(callers(*contestant)?);
        }
    }
    let medians: Vec<_> = results.into_iter().map(|rounds| rounds.map(median)).collect();
    println!("records a second, and this store's lead over each");
    println!("{:8} {:>22} {:>22} {:>22}", "", "batches of 64", "two batches of 64", "64 callers");
    for ((name, _), row) in contestants.iter().zip(&medians) {
        print!("{name:8}");
        for (rate, ours) in row.iter().zip(&medians[0]) {
            print!(" {rate:>14.0} x{:>6.2}", ours / rate);
        }
        println!();
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
