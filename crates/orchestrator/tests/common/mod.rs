//! What several of these tests need.

use std::sync::atomic::{AtomicU64, Ordering};

use orchestrator::Clock;
use protocol::Timestamp;

/// Time, moved on by hand. Milliseconds.
#[derive(Default)]
pub(crate) struct Hands(pub(crate) AtomicU64);

impl Clock for Hands {
    fn now(&self) -> Timestamp {
        Timestamp(1_000_000 + self.0.load(Ordering::Relaxed))
    }

    fn micros(&self) -> u64 {
        1_000 * self.0.load(Ordering::Relaxed)
    }
}
