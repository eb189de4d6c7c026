//! The circuit breaker of one participant.
//!
//! | state           | beginning verb answered | beginning verb unknown | finishing verb answered        | may a transaction begin?                  |
//! |-----------------|-------------------------|------------------------|--------------------------------|-------------------------------------------|
//! | Closed(n)       | Closed(0)               | n + 1; the 5th opens   | -                              | yes                                       |
//! | Open(until)     | Closed(0)               | -                      | `until` at most 1 s behind the opening | no; from `until` on one probe → HalfOpen |
//! | HalfOpen(since) | Closed(0)               | Open anew              | -                              | no; a probe lost for as long as the cool-down is replaced |
//!
//! A probe that was not used, since its transaction came to nothing for another reason, is [given back](Breaker::give_back): HalfOpen →
//! Open, for the next one to take at once.
//!
//! **What counts.** Whether a participant may be given new work is told by its answers to new work alone. A refusal is an answer. Of a
//! branch only the first attempt counts as unknown: five attempts of one checkout say no more than one.
//!
//! **What an answered finishing verb tells** is that the participant can be reached: of one that was away, that it is back. So the probe need
//! not wait for the long cool-down. It does not close the breaker: a participant that fails only its prepares answers every clean-up
//! behind them, and each checkout would wait out its deadline again.
//!
//! **An unknown finishing verb counts nowhere.** It is sent again for as long as it takes, so one branch that can't be settled would by
//! itself keep everybody from a participant that is well. And whether a participant that promises, but can't settle yet, were shut out would
//! depend on how its answered prepares fall between. One that is away is noticed by the next checkouts soon enough.
//!
//! Asking for the state ([`Breaker::is_open`], [`Breaker::would_admit`]) never takes the probe; only [`Breaker::admit`] does. Commands that finish a branch pass in
//! every state.

use crate::ids::Timestamp;
use crate::limits::{BREAKER_COOL_DOWN_MS, BREAKER_FAILURES, BREAKER_SHORT_COOL_DOWN_MS};
use crate::message::Verb;

/// A breaker's state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Closed { failures: u32 },
    Open { opened: Timestamp, until: Timestamp },
    HalfOpen { probe: Probe, opened: Timestamp, since: Timestamp },
}

/// The right to try a participant whose breaker is open. There is one at a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Probe(u64);

/// What a breaker says to a transaction that wants to begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Admission {
    /// It may: the breaker is closed.
    Free,
    /// It may: it is the probe. If it never asks the participant, it [gives that back](Breaker::give_back).
    Probe(Probe),
    /// It may not.
    TurnedAway,
}

/// The breaker of one participant.
#[derive(Debug, Clone)]
pub struct Breaker {
    state: State,
    trips: u64,
    /// Probes taken so far: no two are the same.
    probes: u64,
}

impl Default for Breaker {
    fn default() -> Self {
        Self { state: State::Closed { failures: 0 }, trips: 0, probes: 0 }
    }
}

impl Breaker {
    /// Whether the participant is not known to be well. Takes nothing.
    pub fn is_open(&self) -> bool {
        !matches!(self.state, State::Closed { .. })
    }

    /// Whether [`admit`](Self::admit) would say yes. Takes nothing.
    pub fn would_admit(&self, now: Timestamp) -> bool {
        match self.state {
            State::Closed { .. } => true,
            State::Open { until, .. } => now >= until,
            State::HalfOpen { since, .. } => now.since(since) >= BREAKER_COOL_DOWN_MS,
        }
    }

    /// Whether a transaction may begin at this participant. In an open breaker whose time is over, the one who hears yes is the probe.
    pub fn admit(&mut self, now: Timestamp) -> Admission {
        let opened = match self.state {
            State::Closed { .. } => return Admission::Free,
            State::Open { opened, .. } | State::HalfOpen { opened, .. } => opened,
        };
        if !self.would_admit(now) {
            return Admission::TurnedAway;
        }
        self.probes += 1;
        let probe = Probe(self.probes);
        self.state = State::HalfOpen { probe, opened, since: now };
        Admission::Probe(probe)
    }

    /// The probe was not used: the participant was asked nothing. One that has been replaced or judged meanwhile changes nothing.
    pub fn give_back(&mut self, unused: Probe) {
        if let State::HalfOpen { probe, opened, since } = self.state
            && probe == unused
        {
            self.state = State::Open { opened, until: since };
        }
    }

    /// The participant answered, be it with a refusal.
    pub fn on_answer(&mut self, verb: Verb) {
        match &mut self.state {
            state if verb.begins() => *state = State::Closed { failures: 0 },
            State::Open { opened, until } => *until = (*until).min(opened.plus(BREAKER_SHORT_COOL_DOWN_MS)),
            State::Closed { .. } | State::HalfOpen { .. } => {}
        }
    }

    /// The participant's answer to this attempt (1 for the first) is unknown.
    pub fn on_unknown(&mut self, verb: Verb, attempt: u32, now: Timestamp) {
        if !verb.begins() || attempt > 1 {
            return;
        }
        match self.state {
            State::Closed { failures } if failures + 1 < BREAKER_FAILURES => {
                self.state = State::Closed { failures: failures + 1 };
            }
            State::Closed { .. } | State::HalfOpen { .. } => {
                self.state = State::Open { opened: now, until: now.plus(BREAKER_COOL_DOWN_MS) };
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
    use crate::limits::{BREAKER_COOL_DOWN_MS as LONG, BREAKER_SHORT_COOL_DOWN_MS as SHORT};

    const BEGINNING: [Verb; 2] = [Verb::Prepare, Verb::Execute];
    const FINISHING: [Verb; 4] = [Verb::Commit, Verb::Abort, Verb::Compensate, Verb::Inquire];

    fn opened(now: Timestamp) -> Breaker {
        let mut breaker = Breaker::default();
        for _ in 0..BREAKER_FAILURES {
            breaker.on_unknown(Verb::Prepare, 1, now);
        }
        assert!(breaker.is_open());
        breaker
    }

    /// The first moment, in milliseconds, at which somebody is admitted.
    fn admits_from(breaker: &Breaker) -> u64 {
        (0..3 * LONG).find(|now| breaker.would_admit(Timestamp(*now))).unwrap()
    }

    fn probe(breaker: &mut Breaker, now: u64) -> Probe {
        match breaker.admit(Timestamp(now)) {
            Admission::Probe(probe) => probe,
            other => panic!("no probe at {now}: {other:?}"),
        }
    }

    #[test]
    fn five_unknowns_in_a_row_open_it_and_an_answer_in_between_starts_over() {
        let now = Timestamp(0);
        for verb in BEGINNING {
            let mut breaker = Breaker::default();
            for _ in 0..BREAKER_FAILURES - 1 {
                breaker.on_unknown(verb, 1, now);
            }
            breaker.on_answer(verb);
            for _ in 0..BREAKER_FAILURES - 1 {
                breaker.on_unknown(verb, 1, now);
            }
            assert!(!breaker.is_open());
            breaker.on_unknown(verb, 1, now);
            assert!(breaker.is_open());
            assert_eq!((breaker.trips(), breaker.admit(now)), (1, Admission::TurnedAway));
        }
    }

    #[test]
    fn the_attempts_of_one_branch_count_once() {
        let mut breaker = Breaker::default();
        for attempt in 1..100 {
            breaker.on_unknown(Verb::Prepare, attempt, Timestamp(0));
        }
        assert!(!breaker.is_open());
    }

    #[test]
    fn finishing_verbs_neither_open_nor_close_it_nor_start_the_count_over() {
        for verb in FINISHING {
            let mut breaker = Breaker::default();
            for _ in 0..100 {
                breaker.on_unknown(verb, 1, Timestamp(0));
            }
            assert!(!breaker.is_open(), "a branch that can't be settled keeps nobody away: {verb}");
            for _ in 0..BREAKER_FAILURES {
                breaker.on_unknown(Verb::Prepare, 1, Timestamp(0));
                breaker.on_answer(verb);
            }
            assert!(breaker.is_open(), "a clean-up behind failed prepares excuses none of them: {verb}");
            breaker.on_answer(verb);
            assert!(breaker.is_open(), "{verb}");
            let _probe = probe(&mut breaker, LONG);
            breaker.on_answer(verb);
            breaker.on_unknown(verb, 1, Timestamp(LONG));
            assert_eq!(breaker.admit(Timestamp(LONG)), Admission::TurnedAway, "the probe is not judged by {verb}");
            assert_eq!(breaker.trips(), 1);
        }
    }

    #[test]
    fn an_answered_finishing_verb_brings_the_probe_forward_and_an_unknown_one_does_not() {
        for verb in FINISHING {
            let mut breaker = opened(Timestamp(0));
            breaker.on_unknown(verb, 1, Timestamp(10));
            assert_eq!(admits_from(&breaker), LONG, "{verb}");
            breaker.on_answer(verb);
            assert_eq!(admits_from(&breaker), SHORT, "{verb}");
            breaker.on_answer(verb);
            assert_eq!(admits_from(&breaker), SHORT, "a second one changes nothing: {verb}");
        }
    }

    #[test]
    fn an_answered_beginning_verb_closes_it_in_every_state() {
        for verb in BEGINNING {
            let mut open = opened(Timestamp(0));
            let mut half_open = opened(Timestamp(0));
            let _probe = probe(&mut half_open, LONG);
            for breaker in [&mut open, &mut half_open] {
                breaker.on_answer(verb);
                assert!(!breaker.is_open());
                assert_eq!(breaker.admit(Timestamp(0)), Admission::Free);
            }
        }
    }

    #[test]
    fn asking_never_takes_the_probe_and_there_is_only_one() {
        let mut breaker = opened(Timestamp(0));
        assert!((0..1000).all(|_| breaker.is_open() && breaker.would_admit(Timestamp(LONG))));
        assert_eq!(breaker.admit(Timestamp(LONG - 1)), Admission::TurnedAway);
        let _probe = probe(&mut breaker, LONG);
        assert_eq!(breaker.admit(Timestamp(LONG)), Admission::TurnedAway);
    }

    #[test]
    fn a_probe_that_is_lost_is_replaced() {
        let mut breaker = opened(Timestamp(0));
        let _lost = probe(&mut breaker, LONG);
        assert_eq!(breaker.admit(Timestamp(2 * LONG - 1)), Admission::TurnedAway);
        let _next = probe(&mut breaker, 2 * LONG);
    }

    #[test]
    fn a_failed_probe_opens_it_again() {
        let mut breaker = opened(Timestamp(0));
        let _probe = probe(&mut breaker, LONG);
        breaker.on_unknown(Verb::Prepare, 2, Timestamp(LONG));
        assert_eq!(breaker.trips(), 1, "an older branch's later attempt is not the probe's");
        breaker.on_unknown(Verb::Prepare, 1, Timestamp(LONG));
        assert_eq!((breaker.trips(), admits_from(&breaker)), (2, 2 * LONG));
        breaker.on_answer(Verb::Abort);
        assert_eq!(admits_from(&breaker), LONG + SHORT, "counted from the new opening");
    }

    #[test]
    fn a_probe_given_back_is_there_for_the_next_one_at_once() {
        let mut breaker = opened(Timestamp(0));
        let unused = probe(&mut breaker, LONG);
        breaker.give_back(unused);
        assert!(breaker.is_open());
        let next = probe(&mut breaker, LONG);
        breaker.give_back(unused);
        assert_eq!(breaker.admit(Timestamp(LONG)), Admission::TurnedAway, "nobody gives back another's probe");
        breaker.on_unknown(Verb::Prepare, 1, Timestamp(LONG));
        breaker.give_back(next);
        assert_eq!(breaker.admit(Timestamp(LONG)), Admission::TurnedAway, "nor one that was judged");
    }
}
