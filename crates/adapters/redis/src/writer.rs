//! The one who speaks to the server: takes whatever waits, sends it at once, and answers all of it.
//!
//! ```text
//!   callers ──► queue (bounded) ──► batch ──► EVALSHA of many … [INCR WAIT]  one write
//!                                      │
//!   callers ◄── their answers ◄────────┴──── answer answer … [n of replicas] then all of them at once
//! ```
//!
//! One batch is under way at a time: while it is, the next one fills. What became of a batch is decided in one place, [`Talk::exchange`].

use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use orchestrator::StoreFailure;
use parking_lot::Mutex;
use protocol::Name;
use redis::Value;

use crate::error::OpenError;
use crate::link::{Broken, Link, shown};
use crate::options::{Durability, Options};
use crate::queue::{Job, Shared, answer};
use crate::script::{Script, Words, write_all};
use crate::sentinel::{Compass, Seat};

/// How long after a connection that could not be made the next one is tried.
const PAUSE: Duration = Duration::from_millis(100);
/// Behind a batch of so many jobs, the next one waits a moment for company.
const CROWD: usize = 4;
/// After so long without a word it is asked first whether the server is still there: a batch that is not sent is not unknown.
const IDLE: Duration = Duration::from_millis(500);
/// The errors with which a server turns a script away before its first write, or our scripts do. Whatever has one of them was not done.
const CERTAIN: [&str; 12] = [
    "INEXACT",
    "LAYERS",
    "UNKNOWN",
    "READONLY",
    "LOADING",
    "MASTERDOWN",
    "BUSY",
    "NOREPLICAS",
    "MISCONF",
    "OOM",
    "NOAUTH",
    "NOPERM",
];

/// What a store is called.
pub(crate) struct Names {
    /// For people.
    pub(crate) service: Name,
    /// What is kept in it, and the version of how.
    pub(crate) kind: &'static str,
    /// What every key begins with.
    pub(crate) base: Arc<str>,
}

/// The writer and its thread. Closed when it is dropped: what waits is still sent.
pub(crate) struct Writer {
    pub(crate) shared: Arc<Shared>,
    pub(crate) identity: String,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl Writer {
    /// Connects to the master, asks it who it is, and starts the thread.
    pub(crate) fn open(names: &Names, scripts: Vec<&'static Script>, options: &Options) -> Result<Self, OpenError> {
        options.check()?;
        let compass = Compass::new(options)?;
        let seat = compass.seat()?;
        let mut link = Link::open(&seat.address, options)?;
        if let Durability::Replicated { replicas: wanted } = options.durability
            && link.replicas < wanted
        {
            return Err(OpenError::TooFewReplicas { address: link.address, wanted, found: link.replicas });
        }
        compass.check_failover(options)?;
        link.load_all(&scripts)?;
        let known = link.identity(&names.base)?;
        let identity = match known.identity {
            Some(_) if known.kind.as_deref() != Some(names.kind) => {
                let found = known.kind.unwrap_or_default();
                let (address, base, wanted) = (link.address, names.base.to_string(), names.kind);
                return Err(OpenError::AnotherKind { address, base, found, wanted });
            }
            Some(identity) => identity,
            None => baptise(&mut link, names, options)?,
        };
        let shared = Arc::new(Shared::new(compass.failovers()));
        let name = names.service.as_str();
        tracing::info!(store = name, address = link.address, run_id = link.run_id, "opened a store in Redis");
        let talk = Talk {
            name: name.to_owned(),
            shared: Arc::clone(&shared),
            compass,
            options: options.clone(),
            known: scripts,
            base: names.base.to_string(),
            identity: identity.clone(),
            link: Some((link, seat)),
            failed: None,
            spoke: Instant::now(),
            bytes: Vec::new(),
            calls: Vec::new(),
        };
        let thread = thread::Builder::new()
            .name(format!("redis-{name}"))
            .spawn(move || talk.run())
            .map_err(|error| OpenError::Thread(error.to_string()))?;
        Ok(Self { shared, identity, thread: Mutex::new(Some(thread)) })
    }

    pub(crate) fn close(&self) {
        self.shared.close();
        if let Some(thread) = self.thread.lock().take() {
            // The last handle may be dropped by a callback; the thread then ends without being awaited.
            if thread.thread().id() != thread::current().id() {
                let ended = thread.join();
                debug_assert!(ended.is_ok(), "the thread catches every panic of a callback");
            }
        }
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.close();
    }
}

/// Gives a new store its identity, by which a server that has lost it is told apart. Another process may be faster: then it is theirs.
fn baptise(link: &mut Link, names: &Names, options: &Options) -> Result<String, OpenError> {
    // In this order: what has an identity has a kind.
    for (field, value) in [("kind", names.kind), ("identity", &*uuid::Uuid::now_v7().to_string())] {
        link.ask(Words::new().word("HSETNX").word(&format!("{}meta", names.base)).word(field).word(value))?;
    }
    if let Durability::Replicated { replicas } = options.durability {
        let mut words = Words::new();
        words.word("WAIT").number(i64::from(replicas)).number(millis(options.wait));
        match link.ask(&words)? {
            Value::Int(found) if found >= i64::from(replicas) => {}
            found => {
                let found = if let Value::Int(found) = found { u32::try_from(found).unwrap_or(0) } else { 0 };
                return Err(OpenError::TooFewReplicas { address: link.address.clone(), wanted: replicas, found });
            }
        }
    }
    let nothing = || OpenError::Strange {
        address: link.address.clone(),
        expected: "the identity just given".to_owned(),
        found: "none".to_owned(),
    };
    let unnamed = nothing();
    link.identity(&names.base)?.identity.ok_or(unnamed)
}

fn millis(time: Duration) -> i64 {
    i64::try_from(time.as_millis()).unwrap_or(i64::MAX)
}

/// What became of a batch.
enum Exchange {
    /// The server answered each script, and all that the answers rest on is as durable as was asked for.
    Answered(Vec<Value>),
    /// Nothing of it was sent.
    NotSent(String),
    /// It was sent, and nobody knows what came of it.
    Unknown(String),
}

/// The thread's own.
struct Talk {
    name: String,
    shared: Arc<Shared>,
    compass: Compass,
    options: Options,
    /// The scripts that every server is given.
    known: Vec<&'static Script>,
    base: String,
    identity: String,
    link: Option<(Link, Seat)>,
    /// When the last connection failed, and why.
    failed: Option<(Instant, String)>,
    spoke: Instant,
    /// What was sent last, and how many commands each call of it had; kept for their memory.
    bytes: Vec<u8>,
    calls: Vec<Option<usize>>,
}

impl Talk {
    fn run(mut self) {
        let mut crowd = false;
        while let Some(batch) = self.shared.take(self.options.batch, crowd) {
            crowd = batch.len() >= CROWD;
            self.serve(batch);
        }
    }

    fn serve(&mut self, mut batch: Vec<Job>) {
        let values = match self.exchange(&mut batch) {
            Exchange::Answered(values) => values,
            Exchange::NotSent(why) => return fail(batch, &StoreFailure::NotDone(why)),
            Exchange::Unknown(why) => return self.unknown(batch, why),
        };
        let mut values = values.into_iter();
        let told: Vec<(Job, Vec<Value>)> = batch
            .into_iter()
            .map(|job| {
                let values = values.by_ref().take(job.calls.len()).collect();
                (job, values)
            })
            .collect();
        // Those behind the last one that ran can be sent again in their order. One that others have overtaken can't.
        let from = told.iter().rposition(|(_, values)| !is_forgotten(values)).map_or(0, |last| last + 1);
        let mut forgotten = Vec::new();
        for (number, (job, values)) in told.into_iter().enumerate() {
            if number >= from {
                forgotten.push(job);
            } else if is_forgotten(&values) {
                let why = "the server had forgotten its script, and others ran meanwhile".to_owned();
                fail(vec![job], &StoreFailure::NotDone(why));
            } else {
                self.answer(job, values);
            }
        }
        if !forgotten.is_empty() {
            self.serve_forgotten(forgotten);
        }
    }

    /// The server had forgotten the scripts, so these jobs certainly did not run: it is given them again, and they are sent again, once.
    fn serve_forgotten(&mut self, mut batch: Vec<Job>) {
        tracing::warn!(store = self.name, "the server had forgotten its scripts: they are loaded again");
        let loaded = match &mut self.link {
            Some((link, _)) => link.load_all(&self.known).map_err(|error| error.to_string()),
            None => Err("the connection is gone".to_owned()),
        };
        if let Err(why) = loaded {
            self.link = None;
            return fail(batch, &StoreFailure::NotDone(why));
        }
        match self.exchange(&mut batch) {
            Exchange::Answered(values) => {
                let mut values = values.into_iter();
                for job in batch {
                    let values = values.by_ref().take(job.calls.len()).collect();
                    self.answer(job, values);
                }
            }
            Exchange::NotSent(why) => fail(batch, &StoreFailure::NotDone(why)),
            Exchange::Unknown(why) => self.unknown(batch, why),
        }
    }

    /// Answers one job out of a batch that the server answered.
    fn answer(&mut self, job: Job, values: Vec<Value>) {
        let mut failure = None;
        for value in &values {
            if let Value::ServerError(error) = value {
                let code = error.code();
                let why = format!("the server says: {}", shown(value));
                // Of several calls, one that came before may have been carried out.
                let certain = values.len() == 1 && (CERTAIN.contains(&code) || code == "NOSCRIPT");
                failure = Some(if certain { StoreFailure::NotDone(why) } else { StoreFailure::Unknown(why) });
                if matches!(code, "READONLY" | "MASTERDOWN") {
                    self.link = None;
                }
            }
        }
        match failure {
            None => answer(job.done, Ok(values)),
            Some(failure) => {
                tracing::warn!(store = self.name, %failure, "a script failed");
                answer(job.done, Err(failure));
            }
        }
    }

    fn unknown(&mut self, batch: Vec<Job>, why: String) {
        let scripts: usize = batch.iter().map(|job| job.calls.len()).sum();
        self.shared.count(|statistics| statistics.unknown += scripts as u64);
        tracing::warn!(store = self.name, scripts, why, "the outcome of a batch is unknown");
        fail(batch, &StoreFailure::Unknown(why));
    }

    /// Sends a batch to the master and reads every answer.
    ///
    /// From the first byte written to the last answer read, whatever goes wrong makes the whole batch unknown. It is answered only if the
    /// server is still the master when its answers are here, and its replicas have all that the answers rest on.
    fn exchange(&mut self, batch: &mut [Job]) -> Exchange {
        let (mut link, seat) = match self.connected() {
            Ok(connected) => connected,
            Err(why) => return Exchange::NotSent(why),
        };
        let mut bytes = std::mem::take(&mut self.bytes);
        bytes.clear();
        let mut calls = std::mem::take(&mut self.calls);
        calls.clear();
        let connection = self.shared.connection();
        write_all(batch.iter().flat_map(|job| &job.calls), &self.base, connection, &mut bytes, &mut calls);
        let scripts: usize = calls.iter().map(|joined| joined.unwrap_or(1)).sum();
        // Where looks are told early anyway, a batch of nothing else has nothing to wait for.
        let peeks = self.options.tells_early() && batch.iter().all(|job| job.peeks);
        let replicas = match self.options.durability {
            Durability::Replicated { replicas } if !peeks => Some(replicas),
            Durability::Memory | Durability::Fsync | Durability::Replicated { .. } => None,
        };
        if let Some(replicas) = replicas {
            // WAIT waits for what this connection wrote last. An answer may rest on what another one wrote, a repeat's for instance:
            // a write of our own behind the scripts makes it wait for all that was there when they ran.
            Words::new()
                .word("HINCRBY")
                .word(&format!("{}meta", self.base))
                .word("batches")
                .word("1")
                .write(&mut bytes);
            Words::new().word("WAIT").number(i64::from(replicas)).number(millis(self.options.wait)).write(&mut bytes);
        }
        let began = Instant::now();
        let sent = link.send(&bytes);
        self.bytes = bytes;
        let mut values = Vec::with_capacity(scripts);
        let read = || {
            sent?;
            for joined in &calls {
                let value = link.receive()?;
                match joined {
                    None => values.push(value),
                    Some(many) => part(value, *many, &mut values)?,
                }
            }
            Ok(())
        };
        let mut waited = read().map(|()| None);
        self.calls = calls;
        if let (Ok(_), Some(wanted)) = (&waited, replicas) {
            if self.options.tells_early() && self.compass.seat().ok().as_ref() == Some(&seat) {
                tell_early(batch, &values);
            }
            let mut read = || Ok((link.receive()?, link.receive()?, wanted));
            waited = read().map(Some);
        }
        let waited = match waited {
            Ok(waited) => waited,
            Err(Broken(why)) => return Exchange::Unknown(format!("{} gave no answer: {why}", link.address)),
        };
        self.spoke = Instant::now();
        let took = self.spoke - began;
        self.shared.count(|statistics| statistics.answered(scripts as u64, took));
        if self.compass.seat().ok().as_ref() != Some(&seat) {
            return Exchange::Unknown(format!("{} is no longer the master", link.address));
        }
        let address = link.address.clone();
        match waited {
            None => {}
            Some((Value::Int(_), Value::Int(acknowledged), wanted)) if acknowledged >= i64::from(wanted) => {}
            Some((Value::Int(_), Value::Int(acknowledged), wanted)) => {
                self.link = Some((link, seat));
                let within = self.options.wait;
                return Exchange::Unknown(format!(
                    "{acknowledged} of the {wanted} replicas of {address} that must have it acknowledged it within {within:?}"
                ));
            }
            Some((written, waited, _)) => {
                let said = if matches!(written, Value::Int(_)) { shown(&waited) } else { shown(&written) };
                return Exchange::Unknown(format!("{address} cannot wait for its replicas: {said}"));
            }
        }
        self.link = Some((link, seat));
        Exchange::Answered(values)
    }

    /// The connection to the master that is, taken out; a new one, asked who it is, if there was none or its server is no longer the
    /// master.
    fn connected(&mut self) -> Result<(Link, Seat), String> {
        let seat = self.compass.seat().map_err(|error| error.to_string())?;
        self.compass.check_failover(&self.options).map_err(|error| error.to_string())?;
        if let Some((mut link, of)) = self.link.take()
            && of == seat
        {
            let idle = self.spoke.elapsed() >= IDLE;
            if !idle || matches!(link.ask(Words::new().word("PING")), Ok(value) if shown(&value) == "PONG") {
                return Ok((link, seat));
            }
        }
        if let Some((at, why)) = &self.failed
            && at.elapsed() < PAUSE
        {
            return Err(why.clone());
        }
        match self.connect(&seat) {
            Ok(link) => {
                self.failed = None;
                self.shared.is_connected();
                tracing::info!(store = self.name, address = link.address, run_id = link.run_id, "connected again");
                Ok((link, seat))
            }
            Err(error) => {
                let why = error.to_string();
                let for_good = matches!(error, OpenError::Strange { .. });
                self.shared.is_in_trouble(&why, for_good);
                if for_good {
                    tracing::error!(store = self.name, why, "the store is gone: nothing more is written");
                }
                tracing::warn!(
                    store = self.name,
                    why,
                    "no connection to the database: nothing of what waits for it was sent, its callers are told so, and the next one tries again"
                );
                self.failed = Some((Instant::now(), why.clone()));
                Err(why)
            }
        }
    }

    fn connect(&self, seat: &Seat) -> Result<Link, OpenError> {
        let mut link = Link::open(&seat.address, &self.options)?;
        let found = link.identity(&self.base)?.identity;
        if found.as_deref() != Some(&*self.identity) {
            return Err(OpenError::Strange {
                address: link.address,
                expected: self.identity.clone(),
                found: found.map_or_else(|| "nothing".to_owned(), |found| format!("`{found}`")),
            });
        }
        link.load_all(&self.known)?;
        Ok(link)
    }
}

/// The answers to the commands of one call: what the server said against the call concerns each of them.
fn part(value: Value, many: usize, values: &mut Vec<Value>) -> Result<(), Broken> {
    match value {
        Value::Array(parts) if parts.len() == many => values.extend(parts),
        Value::ServerError(error) => values.extend(std::iter::repeat_n(Value::ServerError(error), many)),
        other => return Err(Broken(format!("{many} commands were answered with {}", shown(&other)))),
    }
    Ok(())
}

/// Tells whoever wants to know before the replicas do.
fn tell_early(batch: &mut [Job], values: &[Value]) {
    let mut from = 0;
    for job in batch {
        let to = from + job.calls.len();
        let values = &values[from..to];
        from = to;
        if !values.iter().any(|value| matches!(value, Value::ServerError(_)))
            && let Some(readable) = job.readable.take()
        {
            answer(readable, values.to_vec());
        }
    }
}

/// Whether none of a job's calls ran, because the server did not have their scripts.
fn is_forgotten(values: &[Value]) -> bool {
    values.iter().all(|value| matches!(value, Value::ServerError(error) if error.code() == "NOSCRIPT"))
}

fn fail(batch: Vec<Job>, failure: &StoreFailure) {
    for job in batch {
        answer(job.done, Err(failure.clone()));
    }
}
