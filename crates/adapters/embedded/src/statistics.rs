//! Numbers for whoever watches the store.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

/// How many buckets a distribution has. Bucket `n` counts values from 2ⁿ to 2ⁿ⁺¹ − 1, the first one
/// also 0, the last one also everything larger.
pub const BUCKETS: usize = 24;

/// What a store has done since it was opened.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Statistics {
    /// Batches made durable.
    pub flushes: u64,
    /// Commands made durable; those that changed nothing do not count.
    pub commands: u64,
    /// Bytes appended to the journal.
    pub journal_bytes: u64,
    /// Time spent writing and flushing batches, in nanoseconds.
    pub flush_nanoseconds: u64,
    /// How many batches had how many commands.
    pub batch_commands: [u64; BUCKETS],
    /// How many batches took how many microseconds to write and flush.
    pub flush_microseconds: [u64; BUCKETS],
    /// Snapshots installed.
    pub snapshots: u64,
    /// Snapshots given up because the disk refused something; the journal goes on without them.
    pub snapshot_failures: u64,
}

/// The same numbers while they are counted.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    flushes: AtomicU64,
    commands: AtomicU64,
    journal_bytes: AtomicU64,
    flush_nanoseconds: AtomicU64,
    batch_commands: [AtomicU64; BUCKETS],
    flush_microseconds: [AtomicU64; BUCKETS],
    snapshots: AtomicU64,
    snapshot_failures: AtomicU64,
}

fn bucket(value: u64) -> usize {
    (value.max(1).ilog2() as usize).min(BUCKETS - 1)
}

impl Counters {
    pub(crate) fn flushed(&self, commands: u64, bytes: u64, took: Duration) {
        let nanoseconds = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        self.flushes.fetch_add(1, Relaxed);
        self.commands.fetch_add(commands, Relaxed);
        self.journal_bytes.fetch_add(bytes, Relaxed);
        self.flush_nanoseconds.fetch_add(nanoseconds, Relaxed);
        self.batch_commands[bucket(commands)].fetch_add(1, Relaxed);
        self.flush_microseconds[bucket(nanoseconds / 1000)].fetch_add(1, Relaxed);
    }

    pub(crate) fn snapshot(&self, installed: bool) {
        let counter = if installed { &self.snapshots } else { &self.snapshot_failures };
        counter.fetch_add(1, Relaxed);
    }

    pub(crate) fn read(&self) -> Statistics {
        let all = |counters: &[AtomicU64; BUCKETS]| std::array::from_fn(|n| counters[n].load(Relaxed));
        Statistics {
            flushes: self.flushes.load(Relaxed),
            commands: self.commands.load(Relaxed),
            journal_bytes: self.journal_bytes.load(Relaxed),
            flush_nanoseconds: self.flush_nanoseconds.load(Relaxed),
            batch_commands: all(&self.batch_commands),
            flush_microseconds: all(&self.flush_microseconds),
            snapshots: self.snapshots.load(Relaxed),
            snapshot_failures: self.snapshot_failures.load(Relaxed),
        }
    }
}
