//! How long things may take and how often they are tried, and the delivery of one branch's command until it is acknowledged.

use serde::{Deserialize, Serialize};

use crate::ids::Timestamp;
use crate::log::Tries;
use crate::message::{Unknown, Verb};

/// Deadlines and retries of a definition. All times in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Pacing {
    /// From the start until every participant must have voted (or executed). Then the transaction is rolled back.
    pub deadline: u64,
    /// How long one attempt may go without any answer before it is sent again.
    pub attempt_timeout: u64,
    /// The first back-off; it doubles with every attempt, with full jitter, up to `backoff_cap`.
    pub backoff_base: u64,
    /// The longest back-off. Stays in seconds, so that the end of an outage is noticed at once.
    pub backoff_cap: u64,
    /// Attempts before an unacknowledged branch becomes a dead letter, and its transaction stuck.
    pub attempts: u32,
    /// The pace at which a dead letter is still tried.
    pub slow_pace: u64,
    /// How long an answer waits at most for the releases behind an abort, so that what is read next shows them.
    pub release_wait: u64,
}

impl Default for Pacing {
    fn default() -> Self {
        Self {
            deadline: 2_000,
            attempt_timeout: 500,
            backoff_base: 10,
            backoff_cap: 2_000,
            attempts: 20,
            slow_pace: 10_000,
            release_wait: 1_000,
        }
    }
}

impl Pacing {
    /// Exponential back-off with full jitter: evenly spread over 1 to min(cap, base × 2^attempt) milliseconds.
    ///
    /// After "Exponential Backoff And Jitter" (M. Brooker, 2015).
    pub fn backoff(&self, attempt: u32, entropy: u64) -> u64 {
        let doubled = self.backoff_base.saturating_mul(1_u64.checked_shl(attempt.min(32)).unwrap_or(u64::MAX));
        1 + entropy % doubled.clamp(1, self.backoff_cap.max(1))
    }
}

/// The delivery of one command to one participant.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Delivery {
    pub(crate) verb: Verb,
    /// Attempts so far; 0: not sent.
    pub(crate) attempts: u32,
    /// When to send it again; `None`: not sent, or settled.
    pub(crate) due: Option<Timestamp>,
    pub(crate) settled: bool,
    /// It has become a dead letter.
    pub(crate) parked: bool,
    /// Why the last attempt failed.
    pub(crate) why: Unknown,
}

/// How far the delivery of a command to one participant is, for people.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sending {
    /// Whose branch.
    pub step: u8,
    /// What it is asked.
    pub verb: Verb,
    /// Attempts so far; 0: it is not its turn yet.
    pub attempts: u32,
    /// When it is asked again; `None`: it has answered, or is not its turn yet.
    pub next: Option<Timestamp>,
    /// Whether it has answered, finally.
    pub settled: bool,
    /// Why the last attempt came to nothing, if so.
    pub failure: Option<Unknown>,
}

impl Delivery {
    /// For people.
    pub(crate) fn sending(&self, step: u8) -> Sending {
        let failed = !self.settled && (self.parked || self.attempts > 1);
        Sending {
            step,
            verb: self.verb,
            attempts: self.attempts,
            next: self.due,
            settled: self.settled,
            failure: failed.then_some(self.why),
        }
    }

    /// What it took, if that was more than one attempt.
    pub(crate) fn tries(&self, step: u8) -> Option<Tries> {
        let Self { verb, attempts, settled, why, .. } = *self;
        (attempts > 1).then_some(Tries { step, verb, attempts, answered: settled, why })
    }

    pub(crate) fn idle(verb: Verb) -> Self {
        Self { verb, attempts: 0, due: None, settled: false, parked: false, why: Unknown::Timeout }
    }

    pub(crate) fn settle(&mut self) {
        self.settled = true;
        self.due = None;
    }

    /// Whether an answer to `verb` is news.
    pub(crate) fn awaits(&self, verb: Verb) -> bool {
        !self.settled && self.attempts > 0 && self.verb == verb
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn backoff_stays_in_seconds_however_long_the_outage() {
        let pacing = Pacing::default();
        for attempt in 0..200 {
            let wait = pacing.backoff(attempt, u64::MAX / 3);
            assert!((1..=pacing.backoff_cap).contains(&wait), "attempt {attempt}: {wait}");
        }
    }

    #[test]
    fn the_first_retries_are_quick() {
        assert!(Pacing::default().backoff(0, u64::MAX) <= 10);
    }
}
