//! How an engine runs, and its bounds.

use protocol::Name;
use protocol::limits::{LEASE_MS, MAX_IN_FLIGHT, MAX_QUEUED, MAX_UNSETTLED, QUEUE_DEADLINE_MS};

/// How an engine runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// The name of this instance. Two instances of one name fence each other.
    pub instance: Name,
    /// How long its lease lasts without being renewed, in milliseconds: [`protocol::limits::MAX_LEASE_MS`] at most, whatever is asked for.
    /// `u64::MAX`: for ever, for a log that only one process can open; then nothing is renewed, and an idle instance writes nothing.
    pub lease: u64,
    /// Transactions in flight.
    pub in_flight: usize,
    /// Callers that may queue behind them.
    pub queued: usize,
    /// How long they may. Milliseconds.
    pub queue_deadline: u64,
    /// Transactions driven, those behind their answer included; beyond, callers are turned away.
    pub unsettled: usize,
    /// The seed of ids and jitter. Must differ from instance to instance and from start to start.
    pub seed: u64,
}

impl Options {
    /// The defaults, with a lease, for the instance of this name.
    pub fn new(instance: Name) -> Self {
        use std::hash::{BuildHasher, Hasher};
        Self {
            instance,
            lease: LEASE_MS,
            in_flight: MAX_IN_FLIGHT,
            queued: MAX_QUEUED,
            queue_deadline: QUEUE_DEADLINE_MS,
            unsettled: MAX_UNSETTLED,
            // The standard library seeds its hashers from the operating system's randomness.
            seed: std::hash::RandomState::new().build_hasher().finish(),
        }
    }

    /// The same for a log that only this process can open.
    #[must_use]
    pub fn sole(mut self) -> Self {
        self.lease = u64::MAX;
        self
    }
}
