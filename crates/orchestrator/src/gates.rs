//! The breakers of all participants: whether a transaction that needs several of them may begin.
//!
//! All or nothing: a transaction that is turned away by one breaker takes no other one's probe. And a probe that its transaction did
//! not use, because it came to nothing before, is there again at once: a [`Pass`] gives back what is left of it when it is dropped.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::Mutex;
use protocol::breaker::{Admission, Breaker, Probe};
use protocol::{Name, Reply, Step, Timestamp, Verb};

/// A breaker for each participant.
#[derive(Debug, Default)]
pub(crate) struct Gates {
    breakers: BTreeMap<Name, Mutex<Breaker>>,
}

/// The leave to begin a transaction, with the probes that it took.
#[derive(Debug)]
pub(crate) struct Pass {
    gates: Arc<Gates>,
    probes: Vec<(Name, Probe)>,
}

impl Gates {
    pub(crate) fn new(services: impl IntoIterator<Item = Name>) -> Arc<Self> {
        Arc::new(Self { breakers: services.into_iter().map(|service| (service, Mutex::default())).collect() })
    }

    /// Lets a transaction of these steps begin.
    ///
    /// # Errors
    /// The service that keeps it away.
    pub(crate) fn admit(self: &Arc<Self>, steps: &[Step], now: Timestamp) -> Result<Pass, Name> {
        let mut pass = Pass { gates: Arc::clone(self), probes: Vec::new() };
        // In the order of their names: two transactions that want the same probes can't each get half of them.
        for (service, breaker) in &self.breakers {
            if !steps.iter().any(|step| step.service == *service) {
                continue;
            }
            match breaker.lock().admit(now) {
                Admission::Free => {}
                Admission::Probe(probe) => pass.probes.push((*service, probe)),
                Admission::TurnedAway => return Err(*service),
            }
        }
        Ok(pass)
    }

    /// Takes in what came of an attempt. Whether that opened the breaker.
    pub(crate) fn hear(
        &self,
        service: &Name,
        (verb, attempt): (Verb, u32),
        reply: &Reply,
        now: impl Fn() -> Timestamp,
    ) -> bool {
        let Some(breaker) = self.breakers.get(service) else { return false };
        let mut breaker = breaker.lock();
        let trips = breaker.trips();
        match reply {
            Reply::Unknown(_) => breaker.on_unknown(verb, attempt, now()),
            Reply::Done(_) | Reply::Refused(_) | Reply::Violation(_) => breaker.on_answer(verb),
        }
        breaker.trips() != trips
    }

    /// Whether any participant is not known to be well.
    pub(crate) fn any_open(&self) -> bool {
        self.breakers.values().any(|breaker| breaker.lock().is_open())
    }

    /// The services, whether their breakers keep transactions away now, and how often each has opened.
    pub(crate) fn states(&self, now: Timestamp) -> Vec<(Name, bool, u64)> {
        let state = |(name, breaker): (&Name, &Mutex<Breaker>)| {
            let breaker = breaker.lock();
            (*name, !breaker.would_admit(now), breaker.trips())
        };
        self.breakers.iter().map(state).collect()
    }
}

impl Pass {
    /// Whether the transaction is a probe of some participant.
    pub(crate) fn is_probe(&self) -> bool {
        !self.probes.is_empty()
    }

    /// The participant is asked: what it answers judges the probe.
    pub(crate) fn use_up(&mut self, service: &Name) {
        self.probes.retain(|(of, _)| of != service);
    }
}

impl Drop for Pass {
    fn drop(&mut self) {
        for (service, probe) in &self.probes {
            if let Some(breaker) = self.gates.breakers.get(service) {
                breaker.lock().give_back(*probe);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use protocol::limits::{BREAKER_COOL_DOWN_MS, BREAKER_FAILURES};
    use protocol::{BranchState, Payload, Unknown};

    const A: Name = Name::literal("a");
    const B: Name = Name::literal("b");
    const LATER: Timestamp = Timestamp(BREAKER_COOL_DOWN_MS);

    fn steps(services: &[Name]) -> Vec<Step> {
        services.iter().map(|service| Step { service: *service, payload: Payload::EMPTY }).collect()
    }

    fn fail(gates: &Gates, service: &Name, now: Timestamp) {
        for _ in 0..BREAKER_FAILURES {
            gates.hear(service, (Verb::Prepare, 1), &Reply::Unknown(Unknown::Timeout), || now);
        }
    }

    #[test]
    fn who_is_turned_away_by_one_breaker_takes_no_other_ones_probe() {
        for wanted in [[A, B], [B, A]] {
            let gates = Gates::new([A, B]);
            fail(&gates, &A, Timestamp(0));
            fail(&gates, &B, Timestamp(1));
            assert_eq!(gates.admit(&steps(&wanted), LATER).unwrap_err(), B, "B's time is not over yet");
            let pass = gates.admit(&steps(&[A]), LATER).expect("the probe of A is still there");
            assert!(pass.is_probe());
            assert_eq!(gates.admit(&steps(&[A]), LATER).unwrap_err(), A, "and there is only one");
        }
    }

    #[test]
    fn what_is_not_used_of_a_pass_is_given_back_with_it() {
        let gates = Gates::new([A, B]);
        fail(&gates, &A, Timestamp(0));
        fail(&gates, &B, Timestamp(0));
        drop(gates.admit(&steps(&[A, B]), LATER).unwrap());
        let mut pass = gates.admit(&steps(&[A, B]), LATER).unwrap();
        pass.use_up(&A);
        drop(pass);
        assert_eq!(gates.admit(&steps(&[A]), LATER).unwrap_err(), A, "A was asked, and has not answered");
        assert!(gates.admit(&steps(&[B]), LATER).is_ok());
        gates.hear(&A, (Verb::Prepare, 1), &Reply::Done(BranchState::Prepared), || LATER);
        assert!(!gates.admit(&steps(&[A]), LATER).unwrap().is_probe());
    }

    #[test]
    fn a_step_at_the_same_service_twice_takes_one_probe() {
        let gates = Gates::new([A]);
        fail(&gates, &A, Timestamp(0));
        assert!(gates.admit(&steps(&[A, A]), LATER).is_ok());
    }
}
