//! The adaptive choice between two-phase commit and saga.
//!
//! Two-phase commit answers after one durable round and takes a refusal lightly for those who hold; a saga takes a refusal early,
//! before anything else was held. So: many refusals → saga, few → two-phase commit, with a gap between the thresholds
//! against flapping. While a breaker is open, two-phase commit: a prepared branch can be released by anyone.

use std::collections::VecDeque;

use crate::limits::{POLICY_SAGA_FROM_PERCENT, POLICY_TWO_PHASE_UNTIL_PERCENT, POLICY_WINDOW};
use crate::transaction::Protocol;

/// Chooses by the outcome of the last [`POLICY_WINDOW`] transactions of one definition.
#[derive(Debug, Clone)]
pub struct Policy {
    window: VecDeque<bool>,
    aborted: usize,
    current: Protocol,
    switches: u64,
}

impl Default for Policy {
    fn default() -> Self {
        Self { window: VecDeque::with_capacity(POLICY_WINDOW), aborted: 0, current: Protocol::TwoPhase, switches: 0 }
    }
}

impl Policy {
    /// Which protocol the next transaction should use.
    pub fn choose(&self, breaker_open: bool) -> Protocol {
        if breaker_open { Protocol::TwoPhase } else { self.current }
    }

    /// Takes a finished transaction into the window.
    pub fn record(&mut self, aborted: bool) {
        if self.window.len() == POLICY_WINDOW && self.window.pop_front() == Some(true) {
            self.aborted -= 1;
        }
        self.window.push_back(aborted);
        self.aborted += usize::from(aborted);
        if self.window.len() < POLICY_WINDOW {
            return;
        }
        let percent = self.abort_percent();
        let next = if percent >= POLICY_SAGA_FROM_PERCENT {
            Protocol::Saga
        } else if percent <= POLICY_TWO_PHASE_UNTIL_PERCENT {
            Protocol::TwoPhase
        } else {
            self.current
        };
        if next != self.current {
            self.current = next;
            self.switches += 1;
        }
    }

    /// Aborted transactions in the window, in percent, rounded down.
    pub fn abort_percent(&self) -> usize {
        if self.window.is_empty() { 0 } else { self.aborted * 100 / self.window.len() }
    }

    /// How often the choice has changed.
    pub fn switches(&self) -> u64 {
        self.switches
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn feed(policy: &mut Policy, aborted: usize, of: usize) {
        for at in 0..of {
            policy.record(at < aborted);
        }
    }

    #[test]
    fn ten_percent_aborts_choose_saga_and_five_percent_choose_two_phase_again() {
        let mut policy = Policy::default();
        feed(&mut policy, 9, 100);
        assert_eq!(policy.choose(false), Protocol::TwoPhase);
        feed(&mut policy, 10, 100);
        assert_eq!(policy.choose(false), Protocol::Saga);
        feed(&mut policy, 6, 100);
        assert_eq!(policy.choose(false), Protocol::Saga, "between the thresholds nothing changes");
        feed(&mut policy, 5, 100);
        assert_eq!(policy.choose(false), Protocol::TwoPhase);
        assert!(policy.switches() >= 2);
    }

    #[test]
    fn an_open_breaker_means_two_phase() {
        let mut policy = Policy::default();
        feed(&mut policy, 100, 100);
        assert_eq!(policy.choose(true), Protocol::TwoPhase);
    }

    #[test]
    fn a_half_filled_window_decides_nothing() {
        let mut policy = Policy::default();
        feed(&mut policy, 99, 99);
        assert_eq!(policy.choose(false), Protocol::TwoPhase);
    }
}
