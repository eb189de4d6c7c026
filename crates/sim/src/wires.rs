//! The ports of one engine: every call lands in an outbox that the world empties when the engine returns.
//!
//! So an engine never calls into the world, and the world is the only one that decides when anything happens.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use orchestrator::{Clock, Done, Executed, Log, LogAnswer, LogError, LogQuery, Observation, Observer, Transport};
use parking_lot::Mutex;
use protocol::log::{LogCommand, LogReply, Verdict};
use protocol::{BranchId, BranchState, Command, Name, Outcome, Reply, Timestamp, TransactionId};

/// What an engine wants of the world, or lets it know.
pub(crate) enum Out {
    Append(LogCommand, Done<Result<LogReply, LogError>>),
    Decide(LogCommand, Done<Result<LogReply, LogError>>, Done<Result<LogReply, LogError>>),
    Read(LogQuery, Done<Result<LogAnswer, LogError>>),
    Send(Name, Command, Done<Reply>),
    Notice(Notice),
}

/// What the world learns from an engine.
#[derive(Debug)]
pub(crate) enum Notice {
    Registered(bool),
    Executed(u64, Executed),
    Watched(u64, TransactionId, Outcome),
    Verdicts { asker: Asker, verdicts: Option<Vec<Verdict>> },
    Answered(TransactionId, Outcome),
    Alarm(String),
    Other(String),
}

/// A participant that asks about its open branches.
#[derive(Debug, Clone)]
pub(crate) struct Asker {
    pub(crate) participant: usize,
    pub(crate) incarnation: u64,
    pub(crate) branches: Vec<(BranchId, BranchState)>,
}

/// The ports of one life of one engine.
#[derive(Default)]
pub(crate) struct Wires {
    dead: AtomicBool,
    millis: AtomicU64,
    micros: AtomicU64,
    cut_off: AtomicBool,
    outbox: Mutex<Vec<Out>>,
}

impl Wires {
    pub(crate) fn set_clock(&self, now: Timestamp, micros: u64) {
        self.millis.store(now.0, Ordering::Relaxed);
        self.micros.store(micros, Ordering::Relaxed);
    }

    /// Whether no participant can be reached.
    pub(crate) fn set_cut_off(&self, cut_off: bool) {
        self.cut_off.store(cut_off, Ordering::Relaxed);
    }

    pub(crate) fn take(&self) -> Vec<Out> {
        std::mem::take(&mut *self.outbox.lock())
    }

    /// The process is gone: whatever is still called goes nowhere.
    pub(crate) fn cut(&self) {
        self.dead.store(true, Ordering::Relaxed);
        // Dropping a callback may drop the engine, which flushes what is finished: not while the outbox is locked.
        drop(self.take());
    }

    fn put(&self, out: Out) {
        if !self.dead.load(Ordering::Relaxed) {
            self.outbox.lock().push(out);
        }
    }

    /// A callback that lets the world know.
    pub(crate) fn notify<T: 'static>(self: &Arc<Self>, notice: impl FnOnce(T) -> Notice + Send + 'static) -> Done<T> {
        let wires = Arc::clone(self);
        Box::new(move |value| wires.put(Out::Notice(notice(value))))
    }
}

impl Clock for Wires {
    fn now(&self) -> Timestamp {
        Timestamp(self.millis.load(Ordering::Relaxed))
    }

    fn micros(&self) -> u64 {
        self.micros.load(Ordering::Relaxed)
    }
}

impl Log for Wires {
    fn append(&self, command: LogCommand, done: Done<Result<LogReply, LogError>>) {
        self.put(Out::Append(command, done));
    }

    fn decide(
        &self,
        command: LogCommand,
        readable: Done<Result<LogReply, LogError>>,
        durable: Done<Result<LogReply, LogError>>,
    ) {
        self.put(Out::Decide(command, readable, durable));
    }

    fn read(&self, query: LogQuery, done: Done<Result<LogAnswer, LogError>>) {
        self.put(Out::Read(query, done));
    }
}

impl Transport for Wires {
    fn knows(&self, _: &Name) -> bool {
        true
    }

    fn is_connected(&self) -> bool {
        !self.cut_off.load(Ordering::Relaxed)
    }

    fn send(&self, service: &Name, command: Command, done: Done<Reply>) {
        self.put(Out::Send(*service, command, done));
    }
}

impl Observer for Wires {
    fn observe(&self, observation: &Observation<'_>) {
        let notice = match observation {
            Observation::Answered { id, outcome, .. } => Notice::Answered(*id, (*outcome).clone()),
            Observation::Violation { branch, service, verb, state } => {
                Notice::Alarm(format!("{service} was asked to {verb} branch {branch}, which is {state:?}"))
            }
            Observation::Replied { .. } => return,
            Observation::Began { id, protocol, .. } => Notice::Other(format!("began {id} as {protocol}")),
            Observation::DeadLetter { branch, verb, error, .. } => {
                Notice::Other(format!("dead letter: {verb} of {branch}: {error}"))
            }
            other => Notice::Other(format!("{other:?}")),
        };
        self.put(Out::Notice(notice));
    }
}
