//! Breakers at work in an engine: who is turned away, who is the probe, and what becomes of a probe that nobody used.

#![allow(clippy::unwrap_used, reason = "in a test a broken expectation is a failed test")]

mod common;

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use orchestrator::{
    Choice, Definition, Done, Engine, Executed, Log, LogAnswer, LogError, LogQuery, Name, Options, Outcome, Payload,
    Step, Transport, TurnedAway, Unobserved, memory,
};
use parking_lot::Mutex;
use protocol::limits::{BREAKER_COOL_DOWN_MS, BREAKER_FAILURES, BREAKER_SHORT_COOL_DOWN_MS, MAX_PAYLOAD_BYTES};
use protocol::log::{LogCommand, LogReply, StageRefusal};
use protocol::{BranchState, Command, Pacing, Refusal, Reply, Unknown, Verb};

use common::Hands;

const SOUND: Name = Name::literal("a-sound");
const SICK: Name = Name::literal("b-sick");
const TRIP: Name = Name::literal("trip");
/// Transactions that the engine drives at most.
const UNSETTLED: usize = 40;

/// Participants that do everything at once, save what the sick one does not do.
#[derive(Default)]
struct Ways {
    /// The sick one fails what begins a branch, and answers what finishes one.
    ill: AtomicBool,
    /// It does not answer what finishes one.
    deaf: AtomicBool,
    /// It does not answer what begins a branch either way, yet.
    silent: AtomicBool,
    unanswered: Mutex<VecDeque<Done<Reply>>>,
}

impl Transport for Ways {
    fn knows(&self, _: &Name) -> bool {
        true
    }

    fn is_connected(&self) -> bool {
        true
    }

    fn send(&self, service: &Name, command: Command, done: Done<Reply>) {
        if *service == SICK && command.verb.begins() {
            if self.silent.load(Ordering::Relaxed) {
                return self.unanswered.lock().push_back(done);
            }
            if self.ill.load(Ordering::Relaxed) {
                return done(Reply::Unknown(Unknown::Failed));
            }
        }
        if *service == SICK && !command.verb.begins() && self.deaf.load(Ordering::Relaxed) {
            return done(Reply::Unknown(Unknown::Failed));
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

/// A log whose application can refuse every stage.
#[derive(Default)]
struct Refusing {
    log: memory::MemoryLog,
    refuses: AtomicBool,
}

impl Log for Refusing {
    fn append(&self, command: LogCommand, done: Done<Result<LogReply, LogError>>) {
        if self.refuses.load(Ordering::Relaxed) && matches!(command, LogCommand::Stage { .. }) {
            let refusal = StageRefusal::Application(Refusal::new(Name::literal("order_changed"), ""));
            return done(Ok(LogReply::StageRefused(refusal)));
        }
        self.log.append(command, done);
    }

    fn decide(
        &self,
        command: LogCommand,
        readable: Done<Result<LogReply, LogError>>,
        durable: Done<Result<LogReply, LogError>>,
    ) {
        self.log.decide(command, readable, durable);
    }

    fn read(&self, query: LogQuery, done: Done<Result<LogAnswer, LogError>>) {
        self.log.read(query, done);
    }
}

struct Bench {
    engine: Arc<Engine>,
    clock: Arc<Hands>,
    ways: Arc<Ways>,
    log: Arc<Refusing>,
}

impl Bench {
    fn new(protocol: Choice) -> Self {
        let (clock, ways, log) = (Arc::<Hands>::default(), Arc::<Ways>::default(), Arc::<Refusing>::default());
        let mut definition = Definition::new(TRIP, [SOUND, SICK]);
        definition.protocol = protocol;
        let options = Options { unsettled: UNSETTLED, ..Options::new(Name::literal("here")) };
        let ports = (log.clone(), ways.clone(), clock.clone());
        let engine = Engine::new(options, vec![definition], ports.0, ports.1, ports.2, Arc::new(Unobserved)).unwrap();
        engine.register(Box::new(|registered| registered.unwrap()));
        Self { engine, clock, ways, log }
    }

    fn step(service: Name) -> Step {
        Step { service, payload: Payload::EMPTY }
    }

    fn begin_with(&self, steps: Vec<Step>) -> Arc<Mutex<Option<Executed>>> {
        let heard = Arc::<Mutex<Option<Executed>>>::default();
        let tell = Arc::clone(&heard);
        self.engine.execute(TRIP, steps, Payload::EMPTY, Box::new(move |executed| *tell.lock() = Some(executed)));
        heard
    }

    fn begin(&self) -> Arc<Mutex<Option<Executed>>> {
        self.begin_with(vec![Self::step(SOUND), Self::step(SICK)])
    }

    /// Lets so many milliseconds go by.
    fn wait(&self, ms: u64) {
        for _ in 0..ms {
            self.clock.0.fetch_add(1, Ordering::Relaxed);
            self.engine.tick();
        }
    }

    fn turned_away(&self) -> bool {
        matches!(&*self.begin().lock(), Some(Err(TurnedAway::Unavailable(service))) if *service == SICK)
    }

    /// Opens the sick one's breaker.
    fn open(&self) {
        self.ways.ill.store(true, Ordering::Relaxed);
        let callers: Vec<_> = (0..BREAKER_FAILURES).map(|_| self.begin()).collect();
        assert!(self.turned_away(), "at once, while the others still wait for their deadline");
        self.wait(Pacing::default().deadline);
        for caller in callers {
            assert!(matches!(&*caller.lock(), Some(Ok((_, Outcome::RolledBack { step: Some(1) })))));
        }
    }
}

fn is_committed(heard: &Mutex<Option<Executed>>) -> bool {
    matches!(&*heard.lock(), Some(Ok((_, Outcome::Committed))))
}

#[test]
fn a_participant_that_fails_only_what_begins_costs_one_caller_at_a_time_the_deadline() {
    for protocol in [Choice::TwoPhase, Choice::Saga] {
        let bench = Bench::new(protocol);
        bench.open();
        let (mut slow, mut quick) = (0, 0);
        for _ in 0..1_000 {
            match &*bench.begin().lock() {
                Some(Err(TurnedAway::Unavailable(_))) => quick += 1,
                None => slow += 1,
                other => panic!("{other:?}"),
            }
            bench.wait(20);
        }
        // Twenty seconds, of which every probe takes the two of its deadline.
        assert!((6..=11).contains(&slow), "{protocol:?}: {slow} waited, {quick} did not");
        bench.wait(BREAKER_SHORT_COOL_DOWN_MS);
        bench.ways.ill.store(false, Ordering::Relaxed);
        bench.wait(Pacing::default().deadline + BREAKER_SHORT_COOL_DOWN_MS);
        assert!(is_committed(&bench.begin()), "{protocol:?}: what is mended is back soon");
        assert!((0..10).all(|_| is_committed(&bench.begin())), "{protocol:?}: for all");
    }
}

#[test]
fn one_branch_that_fails_keeps_nobody_else_away_however_often_it_is_tried() {
    let bench = Bench::new(Choice::TwoPhase);
    bench.ways.ill.store(true, Ordering::Relaxed);
    let caller = bench.begin();
    bench.wait(Pacing::default().deadline);
    assert!(matches!(&*caller.lock(), Some(Ok((_, Outcome::RolledBack { .. })))));
    bench.ways.ill.store(false, Ordering::Relaxed);
    assert!(is_committed(&bench.begin()), "a checkout that failed can be tried again at once");
}

#[test]
fn the_probe_of_a_transaction_that_came_to_nothing_is_there_for_the_next_one() {
    let bench = Bench::new(Choice::Saga);
    bench.open();
    bench.ways.ill.store(false, Ordering::Relaxed);
    bench.wait(BREAKER_COOL_DOWN_MS);
    let oversized = Step { service: SICK, payload: Payload::from(vec![1; MAX_PAYLOAD_BYTES + 1]) };
    assert!(matches!(&*bench.begin_with(vec![oversized]).lock(), Some(Err(TurnedAway::Oversized(_)))));
    bench.log.refuses.store(true, Ordering::Relaxed);
    for _ in 0..3 {
        let refused = bench.begin();
        assert!(matches!(&*refused.lock(), Some(Ok((_, Outcome::Conflict(_))))), "{:?}", refused.lock());
    }
    bench.log.refuses.store(false, Ordering::Relaxed);
    assert!(is_committed(&bench.begin()));
}

#[test]
fn a_probe_that_was_used_is_not_given_back_while_its_answer_is_awaited() {
    let bench = Bench::new(Choice::TwoPhase);
    bench.open();
    bench.ways.silent.store(true, Ordering::Relaxed);
    bench.wait(BREAKER_COOL_DOWN_MS / 2);
    let probe = bench.begin();
    assert!(probe.lock().is_none());
    bench.wait(Pacing::default().deadline);
    assert!(matches!(&*probe.lock(), Some(Ok((_, Outcome::RolledBack { .. })))));
    assert!(bench.turned_away(), "nobody knows yet whether the service is well");
    let done = bench.ways.unanswered.lock().pop_front().unwrap();
    done(Reply::Refused(Refusal::new(Refusal::ABORTED, "")));
    bench.ways.silent.store(false, Ordering::Relaxed);
    bench.ways.ill.store(false, Ordering::Relaxed);
    assert!(is_committed(&bench.begin()), "late is an answer too");
}

#[test]
fn answered_transactions_that_nobody_acknowledges_pile_up_to_a_bound_and_no_further() {
    let bench = Bench::new(Choice::TwoPhase);
    bench.ways.deaf.store(true, Ordering::Relaxed);
    assert!((0..UNSETTLED).all(|_| is_committed(&bench.begin())), "what is prepared is answered");
    for _ in 0..3 {
        let turned_away = bench.begin();
        assert!(matches!(&*turned_away.lock(), Some(Err(TurnedAway::Overloaded))), "{:?}", turned_away.lock());
    }
    assert_eq!(
        (bench.engine.live_count(), bench.engine.load()),
        (UNSETTLED, (0, 0)),
        "who is turned away leaves nothing"
    );
    bench.ways.deaf.store(false, Ordering::Relaxed);
    bench.wait(2 * Pacing::default().slow_pace);
    assert_eq!(bench.engine.live_count(), 0);
    assert!(is_committed(&bench.begin()));
}
