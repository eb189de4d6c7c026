//! What is counted.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// Counters of one process, since its start. Read them whenever metrics are asked for.
#[derive(Debug, Default)]
pub struct Statistics {
    /// Whether there is a connection.
    pub connected: AtomicBool,
    /// Connections made after the first one.
    pub reconnects: AtomicU64,
    /// Messages that were dropped because this process did not take them in time.
    pub dropped: AtomicU64,

    /// Commands given to the server.
    pub sent: AtomicU64,
    /// Messages that they went in.
    pub messages: AtomicU64,
    /// Commands answered in time, whatever the answer.
    pub replied: AtomicU64,
    /// Commands that were not answered in time.
    pub timed_out: AtomicU64,
    /// Commands that were not sent, or not taken: no connection, a full queue, nobody there, no stream.
    pub unreachable: AtomicU64,
    /// Of those, the ones that the server refused, since the service's queue is full.
    pub refused: AtomicU64,
    /// Answers that nobody waits for any more.
    pub late: AtomicU64,
    /// Commands and questions that wait for an answer now.
    pub pending: AtomicU64,

    /// Commands that a participant was given.
    pub handled: AtomicU64,
    /// Of those, the ones that the server had given to somebody before.
    pub redelivered: AtomicU64,
    /// Commands whose participant panicked, or forgot to answer.
    pub failed: AtomicU64,
    /// Commands for another database than the participant's, which were not carried out.
    pub misdirected: AtomicU64,
    /// Commands that participants are at work on now.
    pub working: AtomicU64,
    /// Messages that could not be read.
    pub poison: AtomicU64,
    /// Dead letters that could not be written; each is tried again when the server gives the message out again.
    pub letters_failed: AtomicU64,

    /// Questions asked.
    pub asked: AtomicU64,
    /// Questions that got no answer.
    pub unanswered: AtomicU64,
    /// Questions that this process was asked.
    pub questions: AtomicU64,
    /// Of those, the ones it turned away, since it had too many.
    pub turned_away: AtomicU64,

    /// Streams and consumers made anew because they were gone.
    pub repairs: AtomicU64,
}

pub(crate) fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

pub(crate) fn uncount(counter: &AtomicU64) {
    counter.fetch_sub(1, Ordering::Relaxed);
}
