//! What waits for the writer, and what it answers with.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use orchestrator::{Done, StoreFailure};
use parking_lot::{Condvar, Mutex};
use protocol::limits::{MAX_STORE_BATCH_BYTES, MAX_STORE_QUEUE};
use redis::Value;

use crate::script::Words;
use crate::statistics::Statistics;

/// How long the next batch behind a crowd waits for company. A lone caller never waits.
const GATHER: Duration = Duration::from_micros(300);

/// What the server answered to each of the calls, or why nobody knows.
pub type Answers = Result<Vec<Value>, StoreFailure>;

/// Calls whose answers are wanted together. They are sent in one batch, in order, and others' scripts may run between them.
pub(crate) struct Job {
    pub(crate) calls: Vec<Words>,
    /// Called before `done`, or never: with what the server answered, before that is as durable as was asked for.
    pub(crate) readable: Option<Done<Vec<Value>>>,
    pub(crate) done: Done<Answers>,
    /// Whether it only looks at what may not be durable yet.
    pub(crate) peeks: bool,
}

impl Job {
    pub(crate) fn new(calls: Vec<Words>, done: Done<Answers>) -> Self {
        Self { calls, readable: None, done, peeks: false }
    }
}

enum Phase {
    Open,
    Closing,
    Stopped(String),
}

struct Queue {
    jobs: VecDeque<Job>,
    scripts: usize,
    phase: Phase,
    statistics: Statistics,
    /// Why there is no connection, while there is none.
    trouble: Option<String>,
}

/// What the writer's thread shares with its callers.
pub(crate) struct Shared {
    queue: Mutex<Queue>,
    work: Condvar,
    /// Counted by whoever listens to the Sentinels.
    failovers: Arc<AtomicU64>,
    /// How many connections were made.
    connection: AtomicU64,
}

impl Shared {
    /// An empty queue, of a store that is connected, and whose failovers are counted there.
    pub(crate) fn new(failovers: Arc<AtomicU64>) -> Self {
        let statistics = Statistics { connections: 1, ..Statistics::default() };
        let queue = Queue { jobs: VecDeque::new(), scripts: 0, phase: Phase::Open, statistics, trouble: None };
        Self { queue: Mutex::new(queue), work: Condvar::new(), failovers, connection: AtomicU64::new(1) }
    }

    /// Takes no more jobs in; those that wait are still to be done.
    pub(crate) fn close(&self) {
        let mut queue = self.queue.lock();
        if matches!(queue.phase, Phase::Open) {
            queue.phase = Phase::Closing;
        }
        drop(queue);
        self.work.notify_all();
    }

    /// There is a connection again.
    pub(crate) fn is_connected(&self) {
        let mut queue = self.queue.lock();
        queue.statistics.connections += 1;
        queue.trouble = None;
        self.connection.fetch_add(1, Ordering::Release);
    }

    pub(crate) fn connection(&self) -> u64 {
        self.connection.load(Ordering::Acquire)
    }

    /// There is no connection; `for_good`, if the store is gone.
    pub(crate) fn is_in_trouble(&self, why: &str, for_good: bool) {
        let mut queue = self.queue.lock();
        queue.trouble = Some(why.to_owned());
        if for_good {
            queue.phase = Phase::Stopped(why.to_owned());
        }
    }

    /// Counts.
    pub(crate) fn count(&self, change: impl FnOnce(&mut Statistics)) {
        change(&mut self.queue.lock().statistics);
    }

    /// Takes a job in, or turns it away if there is no room.
    pub(crate) fn submit(&self, job: Job) {
        let queue = self.queue.lock();
        if queue.scripts + job.calls.len() > MAX_STORE_QUEUE {
            let why = format!("{} scripts wait for the server already", queue.scripts);
            drop(queue);
            return answer(job.done, Err(StoreFailure::NotDone(why)));
        }
        if let Some(why) = closed(&queue.phase) {
            drop(queue);
            return answer(job.done, Err(StoreFailure::NotDone(why)));
        }
        self.push(queue, job);
    }

    /// Takes in what goes on with a job that was just answered: there is room for it.
    pub(crate) fn go_on(&self, job: Job) {
        let queue = self.queue.lock();
        if let Some(why) = closed(&queue.phase) {
            drop(queue);
            return answer(job.done, Err(StoreFailure::NotDone(why)));
        }
        self.push(queue, job);
    }

    fn push(&self, mut queue: parking_lot::MutexGuard<'_, Queue>, job: Job) {
        queue.scripts += job.calls.len();
        queue.jobs.push_back(job);
        let alone = queue.jobs.len() == 1;
        drop(queue);
        if alone {
            self.work.notify_one();
        }
    }

    pub(crate) fn stopped(&self) -> Option<String> {
        match &self.queue.lock().phase {
            Phase::Stopped(why) => Some(why.clone()),
            Phase::Open | Phase::Closing => None,
        }
    }

    pub(crate) fn trouble(&self) -> Option<String> {
        self.queue.lock().trouble.clone()
    }

    pub(crate) fn statistics(&self) -> Statistics {
        let failovers = self.failovers.load(Ordering::Relaxed);
        Statistics { failovers, ..self.queue.lock().statistics }
    }

    /// Waits for jobs and takes up to `most` scripts' worth; none when the store is to be closed. Behind a `crowd` it waits a moment longer: those
    /// who were just answered come back, and the first of them should not have the server's flush and its replicas to itself.
    pub(crate) fn take(&self, most: usize, crowd: bool) -> Option<Vec<Job>> {
        let mut queue = self.queue.lock();
        while queue.jobs.is_empty() {
            if !matches!(queue.phase, Phase::Open) {
                return None;
            }
            self.work.wait(&mut queue);
        }
        if crowd && queue.scripts < most && matches!(queue.phase, Phase::Open) {
            _ = self.work.wait_for(&mut queue, GATHER);
        }
        let (mut batch, mut scripts, mut bytes) = (Vec::new(), 0, 0);
        while let Some(job) = queue.jobs.front() {
            let weight: usize = job.calls.iter().map(Words::len).sum();
            let fits = scripts + job.calls.len() <= most && bytes + weight <= MAX_STORE_BATCH_BYTES;
            if !fits && !batch.is_empty() {
                break;
            }
            scripts += job.calls.len();
            bytes += weight;
            batch.extend(queue.jobs.pop_front());
        }
        queue.scripts -= scripts;
        Some(batch)
    }
}

fn closed(phase: &Phase) -> Option<String> {
    match phase {
        Phase::Open => None,
        Phase::Closing => Some("the store is closed".to_owned()),
        Phase::Stopped(why) => Some(why.clone()),
    }
}

/// A callback that panics is its owner's fault, and must not cost the others their answers.
pub(crate) fn answer<T>(done: Done<T>, value: T) {
    if catch_unwind(AssertUnwindSafe(|| done(value))).is_err() {
        tracing::error!("a callback of the store in Redis panicked");
    }
}
