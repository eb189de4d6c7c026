//! The circuit breaker of one participant.
//!
//! | state               | success  | unknown                      | may a transaction begin?                |
//! |---------------------|----------|------------------------------|-----------------------------------------|
//! | Closed(n)           | Closed(0)| n + 1; the 5th opens         | yes                                     |
//! | Open(until)         | Closed(0)| -                            | no; after `until` one probe → HalfOpen  |
//! | HalfOpen(since)     | Closed(0)| Open again                   | no; a probe lost for as long as the cool-down is replaced |
//!
//! Refusals are answers, and count as success. Asking for the state ([`Breaker::is_open`]) never takes the probe; only
//! [`Breaker::admit`] does, and whoever takes it reports back. Commands that finish a branch pass in every state.

use crate::ids::Timestamp;
use crate::limits::{BREAKER_COOL_DOWN_MS, BREAKER_FAILURES};

/// A breaker's state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Closed { failures: u32 },
    Open { until: Timestamp },
    HalfOpen { since: Timestamp },
}

/// The breaker of one participant.
#[derive(Debug, Clone)]
pub struct Breaker {
    state: State,
    trips: u64,
}

impl Default for Breaker {
    fn default() -> Self {
        Self { state: State::Closed { failures: 0 }, trips: 0 }
    }
}

impl Breaker {
    /// Whether transactions are kept from this participant now. Takes nothing.
    pub fn is_open(&self) -> bool {
        !matches!(self.state, State::Closed { .. })
    }

    /// Whether [`admit`](Self::admit) would say yes. Takes nothing.
    pub fn would_admit(&self, now: Timestamp) -> bool {
        match self.state {
            State::Closed { .. } => true,
            State::Open { until } => now >= until,
            State::HalfOpen { since } => now.since(since) >= BREAKER_COOL_DOWN_MS,
        }
    }

    /// Whether a transaction may begin at this participant. In an open breaker whose time is over, the one who hears yes is the probe.
    pub fn admit(&mut self, now: Timestamp) -> bool {
        let admitted = self.would_admit(now);
        if admitted && self.is_open() {
            self.state = State::HalfOpen { since: now };
        }
        admitted
    }

    /// The participant answered, be it with a refusal.
    pub fn on_answer(&mut self) {
        self.state = State::Closed { failures: 0 };
    }

    /// The participant's answer is unknown.
    pub fn on_unknown(&mut self, now: Timestamp) {
        let opened = State::Open { until: now.plus(BREAKER_COOL_DOWN_MS) };
        match self.state {
            State::Closed { failures } if failures + 1 < BREAKER_FAILURES => {
                self.state = State::Closed { failures: failures + 1 };
            }
            State::Closed { .. } | State::HalfOpen { .. } => {
                self.state = opened;
                self.trips += 1;
            }
            State::Open { .. } => {}
        }
    }

    /// How often it has opened.
    pub fn trips(&self) -> u64 {
        self.trips
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn opened(now: Timestamp) -> Breaker {
        let mut breaker = Breaker::default();
        for _ in 0..BREAKER_FAILURES {
            breaker.on_unknown(now);
        }
        breaker
    }

    #[test]
    fn five_unknowns_in_a_row_open_it_and_an_answer_in_between_starts_over() {
        let now = Timestamp(0);
        let mut breaker = Breaker::default();
        for _ in 0..BREAKER_FAILURES - 1 {
            breaker.on_unknown(now);
        }
        breaker.on_answer();
        breaker.on_unknown(now);
        assert!(!breaker.is_open());
        assert!(opened(now).is_open());
    }

    #[test]
    fn asking_never_takes_the_probe() {
        let mut breaker = opened(Timestamp(0));
        let later = Timestamp(BREAKER_COOL_DOWN_MS);
        for _ in 0..1000 {
            assert!(breaker.is_open());
            assert!(breaker.would_admit(later));
        }
        assert!(breaker.admit(later), "the probe is still there");
        assert!(!breaker.admit(later), "and there is only one");
        breaker.on_answer();
        assert!(!breaker.is_open());
    }

    #[test]
    fn a_probe_that_is_lost_is_replaced() {
        let mut breaker = opened(Timestamp(0));
        assert!(breaker.admit(Timestamp(BREAKER_COOL_DOWN_MS)));
        assert!(breaker.admit(Timestamp(2 * BREAKER_COOL_DOWN_MS)));
    }

    #[test]
    fn a_failed_probe_opens_it_again() {
        let mut breaker = opened(Timestamp(0));
        assert!(breaker.admit(Timestamp(BREAKER_COOL_DOWN_MS)));
        breaker.on_unknown(Timestamp(BREAKER_COOL_DOWN_MS));
        assert!(!breaker.admit(Timestamp(2 * BREAKER_COOL_DOWN_MS - 1)));
        assert_eq!(breaker.trips(), 2);
    }
}
