//! What took more than one attempt is told to the log, votes and acknowledgements alike; what took one is not.

#![allow(clippy::unwrap_used, reason = "in a test a broken expectation is a failed test")]

mod common;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use orchestrator::{
    Choice, Definition, Done, Engine, Log, LogAnswer, LogQuery, Name, Options, Payload, Step, Transport, Unobserved,
    memory,
};
use parking_lot::Mutex;
use protocol::log::Tries;
use protocol::{BranchState, Command, Refusal, Reply, Unknown, Verb};

use common::Hands;

const SOUND: Name = Name::literal("a-sound");
const SICK: Name = Name::literal("b-sick");
const TRIP: Name = Name::literal("trip");

/// Participants of which the sick one fails so often at each verb, and the sound one refuses if it is to.
#[derive(Default)]
struct Ways {
    failures: Mutex<BTreeMap<Verb, u32>>,
    refuses: bool,
}

impl Transport for Ways {
    fn knows(&self, _: &Name) -> bool {
        true
    }

    fn is_connected(&self) -> bool {
        true
    }

    fn send(&self, service: &Name, command: Command, done: Done<Reply>) {
        if *service == SICK
            && let Some(left) = self.failures.lock().get_mut(&command.verb).filter(|left| **left > 0)
        {
            *left -= 1;
            return done(Reply::Unknown(Unknown::Failed));
        }
        if *service == SOUND && self.refuses && command.verb.begins() {
            return done(Reply::Refused(Refusal::new(Name::literal("insufficient"), "")));
        }
        done(Reply::Done(match command.verb {
            Verb::Prepare => BranchState::Prepared,
            Verb::Execute => BranchState::Executed,
            Verb::Commit => BranchState::Committed,
            Verb::Compensate => BranchState::Compensated,
            Verb::Abort | Verb::Inquire => BranchState::Aborted,
        }))
    }
}

/// What the log was told of one transaction, once it is finished.
fn told(protocol: Choice, refuses: bool, failures: &[(Verb, u32)]) -> Vec<(u8, Verb, u32, bool)> {
    let clock = Arc::<Hands>::default();
    let log = Arc::<memory::MemoryLog>::default();
    let ways = Arc::new(Ways { failures: Mutex::new(failures.iter().copied().collect()), refuses });
    let mut definition = Definition::new(TRIP, [SOUND, SICK]);
    definition.protocol = protocol;
    let options = Options::new(Name::literal("here"));
    let engine =
        Engine::new(options, vec![definition], log.clone(), ways, clock.clone(), Arc::new(Unobserved)).unwrap();
    engine.register(Box::new(|registered| registered.unwrap()));
    let steps = [SICK, SOUND].map(|service| Step { service, payload: Payload::EMPTY });
    let heard = Arc::<Mutex<_>>::default();
    let tell = Arc::clone(&heard);
    engine.execute(TRIP, steps.to_vec(), Payload::EMPTY, Box::new(move |executed| *tell.lock() = Some(executed)));
    for _ in 0..1_000 {
        clock.0.fetch_add(10, Ordering::Relaxed);
        engine.tick();
    }
    let (id, _) = heard.lock().clone().unwrap().unwrap();
    let found = Arc::<Mutex<Option<Vec<Tries>>>>::default();
    let keep = Arc::clone(&found);
    log.read(
        LogQuery::Transaction(id),
        Box::new(move |answer| match answer {
            Ok(LogAnswer::Transaction(Some(record))) if record.finished.is_some() => {
                *keep.lock() = Some(record.tries().to_vec());
            }
            other => panic!("not a finished transaction: {other:?}"),
        }),
    );
    let tries = found.lock().take().unwrap();
    assert!(tries.iter().all(|it| it.why == Unknown::Failed), "{tries:?}");
    tries.into_iter().map(|it| (it.step, it.verb, it.attempts, it.answered)).collect()
}

#[test]
fn what_took_more_than_one_attempt_is_told_and_what_took_one_is_not() {
    use Verb::{Abort, Commit, Compensate, Execute, Prepare};
    for protocol in [Choice::TwoPhase, Choice::Saga] {
        assert_eq!(told(protocol, false, &[]), []);
    }
    assert_eq!(
        told(Choice::TwoPhase, false, &[(Prepare, 2), (Commit, 3)]),
        [(0, Prepare, 3, true), (0, Commit, 4, true)]
    );
    assert_eq!(told(Choice::Saga, false, &[(Execute, 1)]), [(0, Execute, 2, true)]);
    // The other refuses: that it was asked once, and had not answered yet, is nothing to tell.
    assert_eq!(told(Choice::TwoPhase, true, &[(Prepare, 9), (Abort, 1)]), [(0, Abort, 2, true)]);
    assert_eq!(told(Choice::Saga, true, &[(Execute, 9), (Compensate, 2)]), [(0, Compensate, 3, true)]);
    // Nobody refuses, and one never votes.
    let in_vain = told(Choice::TwoPhase, false, &[(Prepare, u32::MAX)]);
    assert!(matches!(in_vain[..], [(0, Prepare, attempts, false)] if attempts > 2), "{in_vain:?}");
}
