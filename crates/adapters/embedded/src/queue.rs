//! The machine, and what is applied but not yet durable. All of it is under one lock.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use crate::journal::format::RECORD_HEADER;
use crate::{Machine, Opened, StoreError};

/// Called once, when everything its command depends on is durable or never will be.
pub(crate) type Waiter = Box<dyn FnOnce(Result<(), StoreError>) + Send>;

/// Called once, with the reason, when the store stops.
pub(crate) type StopHook = Box<dyn FnOnce(&str) + Send>;

/// Commands applied together, to be made durable together.
#[derive(Default)]
pub(crate) struct Batch {
    /// The records, as the journal wants them.
    pub(crate) payload: Vec<u8>,
    pub(crate) records: u64,
    pub(crate) waiters: Vec<Waiter>,
}

/// Whether commands are still taken.
#[derive(Clone)]
pub(crate) enum Phase {
    Open,
    Closing,
    Stopped(Arc<str>),
}

/// Everything the store's lock guards.
pub(crate) struct Queue<M: Machine> {
    pub(crate) machine: M,
    pub(crate) phase: Phase,
    /// The sequence of the last command applied.
    pub(crate) applied: u64,
    /// The sequence of the last command durable.
    pub(crate) durable: u64,
    /// Batches that take no more commands, oldest first. Almost always empty.
    pub(crate) full: VecDeque<Batch>,
    /// The batch new commands go to. It has waiters only if it has records.
    pub(crate) open: Batch,
    /// A batch used before, kept for its memory.
    pub(crate) used: Batch,
    /// Whether a batch is being flushed.
    pub(crate) flushing: bool,
    /// Callers who saw what is being flushed, and nothing later.
    pub(crate) late: Vec<Waiter>,
    /// Whether the flusher sleeps, so that somebody has to wake it.
    pub(crate) asleep: bool,
    /// How many callers the flusher waits for before it flushes, while it does.
    pub(crate) awaited: Option<usize>,
    pub(crate) snapshot: Snapshot,
    pub(crate) on_stop: Vec<StopHook>,
}

/// How things stand with snapshots.
#[derive(Default)]
pub(crate) struct Snapshot {
    /// Somebody asked for one.
    pub(crate) wanted: bool,
    /// One is being written.
    pub(crate) running: bool,
    /// What the last one covers.
    pub(crate) covered: u64,
    /// Journal written since the last one was begun, in bytes.
    pub(crate) journal_bytes: u64,
    /// How many were tried and given up, and why the last one was.
    pub(crate) failures: u64,
    pub(crate) why: Arc<str>,
}

impl<M: Machine> Queue<M> {
    pub(crate) fn new(machine: M, opened: &Opened) -> Self {
        Queue {
            machine,
            phase: Phase::Open,
            applied: opened.sequence,
            durable: opened.sequence,
            full: VecDeque::new(),
            open: Batch::default(),
            used: Batch::default(),
            flushing: false,
            late: Vec::new(),
            asleep: false,
            awaited: None,
            snapshot: Snapshot {
                covered: opened.snapshot.unwrap_or(0),
                journal_bytes: opened.replayed_bytes,
                ..Snapshot::default()
            },
            on_stop: Vec::new(),
        }
    }

    pub(crate) fn check(&self) -> Result<(), StoreError> {
        match &self.phase {
            Phase::Open => Ok(()),
            Phase::Closing => Err(StoreError::Closed),
            Phase::Stopped(why) => Err(StoreError::Stopped { why: why.clone() }),
        }
    }

    /// Applies a command and, if it changed anything, leaves its record in the open batch. The record
    /// is encoded first: a command that cannot be journalled must not be applied.
    pub(crate) fn apply(&mut self, command: &M::Command, limit: usize) -> Result<M::Reply, StoreError> {
        self.check()?;
        if self.open.payload.len() >= limit {
            let fresh = std::mem::take(&mut self.used);
            self.full.push_back(std::mem::replace(&mut self.open, fresh));
        }
        let payload = &mut self.open.payload;
        let start = payload.len();
        payload.extend_from_slice(&[0; RECORD_HEADER]);
        if let Err(error) = postcard::serialize_with_flavor(command, Tail(payload)) {
            payload.truncate(start);
            return Err(StoreError::Encode { why: error.to_string() });
        }
        let body = start + RECORD_HEADER;
        let bytes = payload.len() - body;
        let Some(length) = u32::try_from(bytes).ok().filter(|_| bytes <= limit) else {
            payload.truncate(start);
            return Err(StoreError::TooLarge { bytes, limit });
        };
        payload[start..body].copy_from_slice(&length.to_le_bytes());
        // A panic may leave the state half changed, so nothing may be read from it or added to it again.
        let Ok(applied) = catch_unwind(AssertUnwindSafe(|| self.machine.apply(command))) else {
            self.open.payload.truncate(start);
            let why: Arc<str> = format!("the machine \"{}\" panicked while it applied a command", M::NAME).into();
            self.phase = Phase::Stopped(why.clone());
            return Err(StoreError::Stopped { why });
        };
        if applied.changed {
            self.open.records += 1;
            self.applied += 1;
        } else {
            self.open.payload.truncate(start);
        }
        Ok(applied.reply)
    }

    /// From here on nobody is answered anything but why. The first reason stands.
    pub(crate) fn stop(&mut self, why: &str) -> Arc<str> {
        if let Phase::Stopped(why) = &self.phase {
            return why.clone();
        }
        let why: Arc<str> = why.into();
        self.phase = Phase::Stopped(why.clone());
        why
    }

    /// Whether everything applied is durable.
    pub(crate) fn is_settled(&self) -> bool {
        self.applied == self.durable
    }

    /// Puts a caller who has seen everything applied so far behind the batch that makes it durable.
    pub(crate) fn wait(&mut self, waiter: Waiter) {
        if self.open.records > 0 {
            self.open.waiters.push(waiter);
        } else if let Some(batch) = self.full.back_mut() {
            batch.waiters.push(waiter);
        } else {
            debug_assert!(self.flushing, "what is not durable is pending or being flushed");
            self.late.push(waiter);
        }
    }

    pub(crate) fn has_batch(&self) -> bool {
        self.open.records > 0 || !self.full.is_empty()
    }

    /// Whether waiting for more callers would be for nothing: a batch is full, or as many are there as are awaited.
    pub(crate) fn is_complete(&self) -> bool {
        !self.full.is_empty() || self.awaited.is_some_and(|awaited| self.open.waiters.len() >= awaited)
    }

    pub(crate) fn next_batch(&mut self) -> Option<Batch> {
        if let Some(batch) = self.full.pop_front() {
            return Some(batch);
        }
        if self.open.records == 0 {
            return None;
        }
        let fresh = std::mem::take(&mut self.used);
        Some(std::mem::replace(&mut self.open, fresh))
    }

    pub(crate) fn snapshot_due(&self, threshold: u64) -> bool {
        let wanted = self.snapshot.wanted || self.snapshot.journal_bytes >= threshold;
        wanted && !self.snapshot.running && self.applied > self.snapshot.covered
    }
}

/// Lets postcard write straight to the end of a batch.
struct Tail<'a>(&'a mut Vec<u8>);

impl postcard::ser_flavors::Flavor for Tail<'_> {
    type Output = ();

    fn try_push(&mut self, byte: u8) -> postcard::Result<()> {
        self.0.push(byte);
        Ok(())
    }

    fn try_extend(&mut self, bytes: &[u8]) -> postcard::Result<()> {
        self.0.extend_from_slice(bytes);
        Ok(())
    }

    fn finalize(self) -> postcard::Result<()> {
        Ok(())
    }
}
