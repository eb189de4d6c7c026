//! Who the master is: one address, or what the Sentinels say.
//!
//! ```text
//!   a thread for each Sentinel:  SUBSCRIBE +switch-master … ────┐ (at once)
//!                                SENTINEL MASTER, each second ─┴─► (epoch, address) ──► the highest epoch wins ──► Seat
//! ```
//!
//! A Sentinel that was cut off may name yesterday's master for long. Every failover has a higher configuration epoch than those before, so
//! the highest one that any Sentinel has told is believed, and never an older one again.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use redis::{Connection, Value};

use crate::error::OpenError;
use crate::link::{connect, shown};
use crate::options::{Credentials, Durability, Failover, Options, Place};
use crate::script::Words;

/// What a Sentinel says when a replica was promoted: the one that leads the failover when it sees that, which is well before the others follow
/// and it calls the failover over; the rest when they hear of it.
const NEWS: [&str; 3] = ["+failover-state-reconf-slaves", "+config-update-from", "+switch-master"];
/// How often every Sentinel is asked.
const POLL: Duration = Duration::from_secs(1);
/// How often a thread looks whether it should end.
const GLANCE: Duration = Duration::from_millis(100);

/// Who the master is, and since which failover. A connection made under one seat is not used under another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Seat {
    pub(crate) address: Arc<str>,
    pub(crate) epoch: u64,
}

/// Where the master is found.
pub(crate) enum Compass {
    Fixed(Seat),
    Sentinel(Watch),
}

impl Compass {
    /// Asks every Sentinel once, and keeps watching from then on.
    pub(crate) fn new(options: &Options) -> Result<Self, OpenError> {
        match &options.place {
            Place::Standalone { address } => Ok(Self::Fixed(Seat { address: address.as_str().into(), epoch: 0 })),
            Place::Sentinel { sentinels, master } => {
                Watch::new(sentinels, master, options.patience).map(Self::Sentinel)
            }
        }
    }

    pub(crate) fn seat(&self) -> Result<Seat, OpenError> {
        match self {
            Self::Fixed(seat) => Ok(seat.clone()),
            Self::Sentinel(watch) => {
                let seat = watch.shared.seat.lock().clone();
                seat.ok_or_else(|| OpenError::NoMaster {
                    master: watch.shared.master.clone(),
                    why: "none has answered yet".to_owned(),
                })
            }
        }
    }

    /// Where it is counted how often the master came to be at another address; never, if there are no Sentinels to say so.
    pub(crate) fn failovers(&self) -> Arc<AtomicU64> {
        match self {
            Self::Fixed(_) => Arc::default(),
            Self::Sentinel(watch) => Arc::clone(&watch.shared.failovers),
        }
    }

    /// Whether a failover could promote a replica that lacks what was acknowledged, unless the operator said that it may. By what the
    /// Sentinels said last: a replica that joins later counts, too.
    pub(crate) fn check_failover(&self, options: &Options) -> Result<(), OpenError> {
        let (Self::Sentinel(watch), Durability::Replicated { replicas }) = (self, options.durability) else {
            return Ok(());
        };
        let known = watch.shared.replicas.lock().iter().copied().max().unwrap_or(0);
        if options.failover == Failover::MayLoseAcknowledgedWrites || known <= replicas {
            return Ok(());
        }
        Err(OpenError::MayLose {
            why: format!(
                "Sentinel knows of {known} replicas, and {replicas} must have a write before it is acknowledged: the one that it \
                 promotes may be another"
            ),
            remedy: format!(
                "Ask for {known} replicas, or remove those that are gone with `SENTINEL RESET {}`. A `replica-priority 0` does not help: \
                 such a replica acknowledges in the place of one that can be promoted",
                watch.shared.master
            ),
        })
    }
}

/// What one Sentinel says of a master, for people.
pub(crate) struct Word {
    /// How many Sentinels watch it, this one included.
    pub(crate) sentinels: u32,
    /// How many must agree that it is dead.
    pub(crate) quorum: u32,
    /// How long it must be silent for that. Milliseconds.
    pub(crate) down_after: u64,
    /// `host:port` of each replica that could be promoted.
    pub(crate) replicas: Vec<String>,
}

/// Asks one Sentinel about a master.
///
/// # Errors
/// Why it did not say.
pub(crate) fn word(address: &str, master: &str, patience: Duration) -> Result<Word, String> {
    let mut sentinel = open(address, patience)?;
    let answer = ask(&mut sentinel, &["SENTINEL", "MASTER", master])?;
    let number = |name: &str| named(&answer, name)?.parse::<u64>().ok();
    let told = (number("num-other-sentinels"), number("quorum"), number("down-after-milliseconds"));
    let (Some(others), Some(quorum), Some(down_after)) = told else {
        return Err(format!("not what a Sentinel says of a master: {}", shown(&answer)));
    };
    let small = |number: u64| u32::try_from(number).unwrap_or(u32::MAX);
    let place = |replica: &Value| Some(format!("{}:{}", named(replica, "ip")?, named(replica, "port")?));
    let replicas = replicas(&mut sentinel, master)?.iter().filter_map(place).collect();
    Ok(Word { sentinels: small(others.saturating_add(1)), quorum: small(quorum), down_after, replicas })
}

struct Shared {
    master: String,
    seat: Mutex<Option<Seat>>,
    /// How often that was at another address than before.
    failovers: Arc<AtomicU64>,
    /// How many replicas there are, as each of the Sentinels said last.
    replicas: Mutex<Vec<u32>>,
    ended: AtomicBool,
}

impl Shared {
    /// Takes in what the Sentinel of that number says.
    fn learn(&self, sentinel: usize, (seat, known): (Seat, u32)) {
        if let Some(said) = self.replicas.lock().get_mut(sentinel) {
            *said = known;
        }
        let mut known = self.seat.lock();
        let newer = known.as_ref().is_none_or(|known| seat.epoch > known.epoch);
        if newer {
            if let Some(before) = known.as_ref().filter(|before| before.address != seat.address) {
                self.failovers.fetch_add(1, Ordering::Relaxed);
                tracing::warn!(
                    master = self.master,
                    from = &*before.address,
                    to = &*seat.address,
                    "Sentinel names another master"
                );
            }
            *known = Some(seat);
        }
    }
}

/// The threads that listen to the Sentinels. They end soon after it is dropped.
pub(crate) struct Watch {
    shared: Arc<Shared>,
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.shared.ended.store(true, Ordering::Relaxed);
    }
}

impl Watch {
    fn new(sentinels: &[String], master: &str, patience: Duration) -> Result<Self, OpenError> {
        let shared = Arc::new(Shared {
            master: master.to_owned(),
            seat: Mutex::new(None),
            failovers: Arc::default(),
            replicas: Mutex::new(vec![0; sentinels.len()]),
            ended: AtomicBool::new(false),
        });
        let mut silent = Vec::new();
        for (number, address) in sentinels.iter().enumerate() {
            match open(address, patience).and_then(|mut sentinel| look(&mut sentinel, master)) {
                Ok(said) => shared.learn(number, said),
                Err(why) => silent.push(format!("{address}: {why}")),
            }
        }
        if shared.seat.lock().is_none() {
            return Err(OpenError::NoMaster { master: master.to_owned(), why: silent.join("; ") });
        }
        for (number, address) in sentinels.iter().enumerate() {
            let (shared, address) = (Arc::clone(&shared), address.clone());
            thread::Builder::new()
                .name(format!("sentinel-{number}"))
                .spawn(move || listen(&shared, number, &address, patience))
                .map_err(|error| OpenError::Thread(error.to_string()))?;
        }
        Ok(Self { shared })
    }
}

/// Asks one Sentinel each second, and at once when it says that the master has changed.
fn listen(shared: &Shared, number: usize, address: &str, patience: Duration) {
    while !shared.ended.load(Ordering::Relaxed) {
        // It may be gone for long, and the others go on: this one is tried again each second.
        _ = listen_until_it_fails(shared, number, address, patience);
        for _ in 0..POLL.as_millis() / GLANCE.as_millis() {
            if !shared.ended.load(Ordering::Relaxed) {
                thread::sleep(GLANCE);
            }
        }
    }
}

fn listen_until_it_fails(shared: &Shared, number: usize, address: &str, patience: Duration) -> Result<(), String> {
    let told = |error: redis::RedisError| error.to_string();
    let (mut listening, mut asking) = (open(address, patience)?, open(address, patience)?);
    let mut pushes = listening.as_pubsub();
    pushes.subscribe(&NEWS).map_err(told)?;
    pushes.set_read_timeout(Some(GLANCE)).map_err(told)?;
    let mut asked: Option<Instant> = None;
    while !shared.ended.load(Ordering::Relaxed) {
        if asked.is_none_or(|at| at.elapsed() >= POLL) {
            asked = Some(Instant::now());
            shared.learn(number, look(&mut asking, &shared.master)?);
        }
        match pushes.get_message() {
            Ok(_) => asked = None,
            Err(error) if error.is_timeout() => {}
            Err(error) => return Err(told(error)),
        }
    }
    Ok(())
}

fn open(address: &str, patience: Duration) -> Result<Connection, String> {
    connect(address, &Credentials::default(), patience).map_err(|error| error.to_string())
}

/// Who the master is, and how many replicas could be promoted.
fn look(sentinel: &mut Connection, name: &str) -> Result<(Seat, u32), String> {
    let seat = master(sentinel, name)?;
    Ok((seat, u32::try_from(replicas(sentinel, name)?.len()).unwrap_or(u32::MAX)))
}

fn ask(sentinel: &mut Connection, words: &[&str]) -> Result<Value, String> {
    let (mut command, mut bytes) = (Words::new(), Vec::new());
    words.iter().for_each(|word| _ = command.word(word));
    command.write(&mut bytes);
    sentinel.send_packed_command(&bytes).map_err(|error| error.to_string())?;
    match sentinel.recv_response().map_err(|error| error.to_string())? {
        error @ Value::ServerError(_) => Err(shown(&error)),
        value => Ok(value),
    }
}

/// The master and the epoch since when it is, as one Sentinel says.
///
/// In this order. The Sentinel that leads a failover raises the epoch when the replica is promoted, and shows the old address among the
/// master's fields until every other replica follows: the new epoch with the old address would never be corrected. The other question is
/// answered with the promoted one from that moment on. An old epoch with a new address is corrected by the next answer.
fn master(sentinel: &mut Connection, name: &str) -> Result<Seat, String> {
    let answer = ask(sentinel, &["SENTINEL", "MASTER", name])?;
    let epoch = named(&answer, "config-epoch").and_then(|epoch| epoch.parse().ok());
    let epoch = epoch.ok_or_else(|| format!("not what a Sentinel says of a master: {}", shown(&answer)))?;
    match ask(sentinel, &["SENTINEL", "GET-MASTER-ADDR-BY-NAME", name])? {
        Value::Array(parts) if parts.len() == 2 => {
            Ok(Seat { address: format!("{}:{}", shown(&parts[0]), shown(&parts[1])).into(), epoch })
        }
        other => Err(format!("not where a master is: {}", shown(&other))),
    }
}

/// What the Sentinel says of each replica. Those with priority 0, which it would never promote, count too: `WAIT` takes their
/// acknowledgement for that of one that could be.
fn replicas(sentinel: &mut Connection, name: &str) -> Result<Vec<Value>, String> {
    match ask(sentinel, &["SENTINEL", "REPLICAS", name])? {
        Value::Array(replicas) => Ok(replicas),
        other => Err(shown(&other)),
    }
}

/// The field of that name in what a Sentinel says.
fn named(said: &Value, name: &str) -> Option<String> {
    match said {
        Value::Array(parts) => parts.chunks_exact(2).find(|pair| shown(&pair[0]) == name).map(|pair| shown(&pair[1])),
        Value::Map(pairs) => pairs.iter().find(|(field, _)| shown(field) == name).map(|(_, value)| shown(value)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::TcpListener;

    use super::*;

    /// A Sentinel that answers every connection alike: `answer` is given what came, which is one command or several at once.
    fn pretend(answer: fn(&str) -> String) -> String {
        let listener = TcpListener::bind(("127.0.0.1", 0)).expect("there is a port left");
        let address = listener.local_addr().expect("it was bound").to_string();
        thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.expect("a connection comes whole");
                let mut buffer = [0; 4096];
                while let Ok(bytes @ 1..) = stream.read(&mut buffer) {
                    let told = String::from_utf8_lossy(&buffer[..bytes]).into_owned();
                    // What the library says of itself, several commands at once.
                    let greetings = told.matches("SETINFO").count();
                    let said = if greetings > 0 { "+OK\r\n".repeat(greetings) } else { answer(&told) };
                    if stream.write_all(said.as_bytes()).is_err() {
                        break;
                    }
                }
            }
        });
        address
    }

    /// As the leader of a failover answers between the promotion and its end.
    fn promoting(told: &str) -> String {
        if told.contains("GET-MASTER-ADDR") {
            "*2\r\n$3\r\nnew\r\n$1\r\n1\r\n".to_owned()
        } else if told.contains("REPLICAS") {
            "*2\r\n*2\r\n$14\r\nslave-priority\r\n$3\r\n100\r\n*2\r\n$14\r\nslave-priority\r\n$1\r\n0\r\n".to_owned()
        } else {
            "*6\r\n$2\r\nip\r\n$3\r\nold\r\n$4\r\nport\r\n$1\r\n1\r\n$12\r\nconfig-epoch\r\n$1\r\n7\r\n".to_owned()
        }
    }

    #[test]
    fn the_address_told_with_a_new_epoch_is_that_of_the_promoted_one() {
        let mut sentinel = open(&pretend(promoting), Duration::from_secs(5)).expect("it listens");
        let (seat, known) = look(&mut sentinel, "shop").expect("it answers");
        assert_eq!(seat, Seat { address: "new:1".into(), epoch: 7 });
        assert_eq!(known, 2, "one with priority 0 acknowledges as well as any");
    }

    #[test]
    fn an_older_epoch_never_takes_the_seat_back() {
        let seat = |address: &str, epoch| Seat { address: address.into(), epoch };
        let shared = Shared {
            master: "shop".to_owned(),
            seat: Mutex::new(None),
            failovers: Arc::default(),
            replicas: Mutex::new(vec![0; 2]),
            ended: AtomicBool::new(false),
        };
        shared.learn(0, (seat("a:1", 3), 2));
        shared.learn(1, (seat("b:1", 2), 1));
        shared.learn(1, (seat("c:1", 3), 1));
        assert_eq!(*shared.seat.lock(), Some(seat("a:1", 3)));
        shared.learn(1, (seat("b:1", 4), 1));
        assert_eq!(*shared.seat.lock(), Some(seat("b:1", 4)));
        assert_eq!(*shared.replicas.lock(), [2, 1]);
        assert_eq!(shared.failovers.load(Ordering::Relaxed), 1, "the first is no failover, and one is told by many");
        shared.learn(0, (seat("b:1", 5), 2));
        assert_eq!(shared.failovers.load(Ordering::Relaxed), 1, "and of a failed one, only the epoch is left");
    }
}
