//! Several instances on one log: one of them looks after it, and takes over whoever is gone.

#![allow(clippy::unwrap_used, reason = "in a test a broken expectation is a failed test")]

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use orchestrator::{
    Clock, Definition, Done, Engine, Log, LogAnswer, LogError, LogQuery, Name, Observation, Observer, Options, Outcome,
    Payload, Retried, Step, Transport, memory,
};
use parking_lot::Mutex;
use protocol::limits::{
    CUT_OFF_MS, GATHER_FINISHED_MS, LEASE_MS, LEASE_RENEWAL_MS, MAX_CUT_OFF_MS, MAX_FINISHED_TOGETHER,
};
use protocol::log::{LogCommand, LogReply, Resolution, Standing};
use protocol::{BranchState, Command, Reply, Verb};

use common::Hands;

const SEATS: Name = Name::literal("seats");
const TRIP: Name = Name::literal("trip");

/// Participants that never answer; or, if they are quick, do everything at once.
#[derive(Default)]
struct Silence {
    unanswered: Mutex<Vec<Done<Reply>>>,
    quick: AtomicBool,
    /// They prepare at once, and answer nothing else.
    begins: AtomicBool,
    /// They are out of reach.
    cut_off: AtomicBool,
}

impl Transport for Silence {
    fn knows(&self, _: &Name) -> bool {
        true
    }

    fn is_connected(&self) -> bool {
        !self.cut_off.load(Ordering::Relaxed)
    }

    fn send(&self, _: &Name, command: Command, done: Done<Reply>) {
        let begins = command.verb == Verb::Prepare && self.begins.load(Ordering::Relaxed);
        if !begins && !self.quick.load(Ordering::Relaxed) {
            return self.unanswered.lock().push(done);
        }
        done(Reply::Done(match command.verb {
            Verb::Prepare => BranchState::Prepared,
            Verb::Abort => BranchState::Aborted,
            _ => BranchState::Committed,
        }));
    }
}

type Answer = Done<Result<LogReply, LogError>>;

/// A log that notes who takes over whom, and who has it forget.
#[derive(Clone, Default)]
struct Noting {
    log: memory::MemoryLog,
    taken: Arc<Mutex<Vec<(Name, Name)>>>,
    forgets: Arc<AtomicU64>,
    finishes: Arc<AtomicU64>,
    /// The answers to take-overs get lost on their way back.
    loses_take_overs: Arc<AtomicBool>,
    /// What is finished is on its way to it for long.
    is_slow: Arc<AtomicBool>,
    underway: Arc<Mutex<Vec<Answer>>>,
}

impl Log for Noting {
    fn append(&self, command: LogCommand, done: Done<Result<LogReply, LogError>>) {
        match &command {
            LogCommand::TakeOver { writer, from, .. } => self.taken.lock().push((writer.instance, *from)),
            LogCommand::Finish { .. } => _ = self.finishes.fetch_add(1, Ordering::Relaxed),
            LogCommand::Forget { .. } => _ = self.forgets.fetch_add(1, Ordering::Relaxed),
            _ => {}
        }
        if matches!(command, LogCommand::Finish { .. }) && self.is_slow.load(Ordering::Relaxed) {
            return self.underway.lock().push(done);
        }
        if matches!(command, LogCommand::TakeOver { .. }) && self.loses_take_overs.load(Ordering::Relaxed) {
            let lost = |_| done(Err(LogError("the connection broke".to_owned())));
            return self.log.append(command, Box::new(lost));
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

#[derive(Default)]
struct Eyes {
    leads: Mutex<Vec<bool>>,
    took_over: Mutex<Vec<Name>>,
    recoveries: AtomicU64,
    /// Whether it was recovered, of each that has an outcome.
    answered: Mutex<Vec<bool>>,
    letters: AtomicU64,
}

impl Observer for Eyes {
    fn observe(&self, observation: &Observation<'_>) {
        match observation {
            Observation::Leads { leads } => self.leads.lock().push(*leads),
            Observation::TookOver { from, .. } => self.took_over.lock().push(*from),
            Observation::DeadLetter { .. } => _ = self.letters.fetch_add(1, Ordering::Relaxed),
            Observation::Recovering { .. } => _ = self.recoveries.fetch_add(1, Ordering::Relaxed),
            Observation::Answered { recovered, .. } => self.answered.lock().push(*recovered),
            _ => {}
        }
    }
}

struct Instance {
    engine: Arc<Engine>,
    seen: Arc<Eyes>,
    ways: Arc<Silence>,
}

impl Instance {
    fn start(name: &str, clock: &Arc<Hands>, log: &Noting) -> Self {
        let (seen, ways) = (Arc::<Eyes>::default(), Arc::<Silence>::default());
        let engine = Engine::new(
            Options::new(name.parse().unwrap()),
            vec![Definition::new(TRIP, [SEATS])],
            Arc::new(log.clone()),
            Arc::clone(&ways) as Arc<dyn Transport>,
            Arc::clone(clock) as Arc<dyn Clock>,
            Arc::clone(&seen) as Arc<dyn Observer>,
        );
        let engine = engine.unwrap();
        engine.register(Box::new(|result| result.unwrap()));
        Self { engine, seen, ways }
    }
}

fn read(log: &Noting, query: LogQuery) -> LogAnswer {
    let (send, answer) = std::sync::mpsc::channel();
    log.read(query, Box::new(move |found| send.send(found).unwrap()));
    answer.try_recv().unwrap().unwrap()
}

/// Time passes in steps of a renewal, and these live on.
fn live_on(clock: &Hands, instances: &[&Instance], millis: u64) {
    let mut left = millis;
    while left > 0 {
        let step = left.min(LEASE_RENEWAL_MS);
        clock.0.fetch_add(step, Ordering::Relaxed);
        instances.iter().for_each(|instance| instance.engine.tick());
        left -= step;
    }
}

fn leaders(instances: &[&Instance]) -> Vec<bool> {
    instances.iter().map(|instance| instance.engine.is_leader()).collect()
}

#[test]
fn the_oldest_instance_takes_over_who_is_gone_and_the_next_one_takes_over_it() {
    let (clock, log) = (Arc::<Hands>::default(), Noting::default());
    let a = Instance::start("a", &clock, &log);
    let b = Instance::start("b", &clock, &log);
    let c = Instance::start("c", &clock, &log);
    assert_eq!(leaders(&[&a, &b, &c]), [true, false, false]);
    let steps = vec![Step { service: SEATS, payload: Payload::EMPTY }];
    c.engine.execute(TRIP, steps, Payload::EMPTY, Box::new(|_| {}));
    assert_eq!(c.engine.live_count(), 1);
    // c stands still.
    live_on(&clock, &[&b, &a], LEASE_MS + 2 * LEASE_RENEWAL_MS);
    let name = |instance: &Instance| instance.engine.instance();
    assert_eq!(*log.taken.lock(), [(name(&a), name(&c))], "only the leader takes over");
    assert_eq!((a.engine.live_count(), b.engine.live_count()), (1, 0));
    // Now the leader is gone.
    live_on(&clock, &[&b], LEASE_MS + 2 * LEASE_RENEWAL_MS);
    assert_eq!(log.taken.lock()[1..], [(name(&b), name(&a))]);
    assert!(b.engine.is_leader() && b.engine.live_count() == 1);
    assert_eq!(*b.seen.leads.lock(), [true]);
    // It comes back under a later epoch, and follows.
    live_on(&clock, &[&a, &b], 3 * LEASE_RENEWAL_MS);
    assert_eq!(leaders(&[&a, &b]), [false, true]);
    assert_eq!(*a.seen.leads.lock(), [true, false]);
    assert_eq!(a.engine.epoch(), 5, "taken over, and registered anew, behind everybody");
}

#[test]
fn only_the_leader_has_the_log_forget() {
    let (clock, log) = (Arc::<Hands>::default(), Noting::default());
    let a = Instance::start("a", &clock, &log);
    let b = Instance::start("b", &clock, &log);
    for _ in 0..4 {
        clock.0.fetch_add(600, Ordering::Relaxed);
        b.engine.tick();
    }
    assert_eq!(log.forgets.load(Ordering::Relaxed), 0);
    a.engine.tick();
    assert_eq!(log.forgets.load(Ordering::Relaxed), 1);
}

#[test]
fn who_resigns_is_taken_over_at_once_and_renews_no_more() {
    let (clock, log) = (Arc::<Hands>::default(), Noting::default());
    let a = Instance::start("a", &clock, &log);
    let b = Instance::start("b", &clock, &log);
    let steps = vec![Step { service: SEATS, payload: Payload::EMPTY }];
    a.engine.execute(TRIP, steps, Payload::EMPTY, Box::new(|_| {}));
    a.engine.resign(Box::new(|result| result.unwrap()));
    live_on(&clock, &[&a, &b], LEASE_RENEWAL_MS);
    assert_eq!(*log.taken.lock(), [(b.engine.instance(), a.engine.instance())]);
    assert_eq!(b.engine.live_count(), 1);
    live_on(&clock, &[&a, &b], LEASE_MS);
    assert!(!a.engine.is_leader() && b.engine.is_leader());
    assert_eq!(a.engine.epoch(), 1, "it has not registered anew");
}

/// Participants are told of orphans when an instance was taken over: a lost answer left them with prepared branches that nobody had staged, for a minute.
#[test]
fn an_instance_is_known_to_be_gone_even_if_the_answer_to_its_take_over_was_lost() {
    let (clock, log) = (Arc::<Hands>::default(), Noting::default());
    let a = Instance::start("a", &clock, &log);
    let b = Instance::start("b", &clock, &log);
    let steps = vec![Step { service: SEATS, payload: Payload::EMPTY }];
    b.engine.execute(TRIP, steps, Payload::EMPTY, Box::new(|_| {}));
    log.loses_take_overs.store(true, Ordering::Relaxed);
    live_on(&clock, &[&a], LEASE_MS + 2 * LEASE_RENEWAL_MS);
    assert_eq!(*a.seen.took_over.lock(), [b.engine.instance()], "told once, a renewal later");
    assert_eq!(a.engine.live_count(), 1, "and has its transaction");
    assert_eq!(log.taken.lock().len(), 1, "which was not taken over twice");
}

/// Found in review: an instance that was frozen showed an order as unpaid for up to a renewal, after another had taken it over, and told its client that it
/// is paid, and a failover of the log's database had taken the decision back.
#[test]
fn an_instance_that_was_taken_over_vouches_for_nothing_although_it_does_not_know_yet() {
    let (clock, log) = (Arc::<Hands>::default(), Noting::default());
    let a = Instance::start("a", &clock, &log);
    let b = Instance::start("b", &clock, &log);
    let steps = vec![Step { service: SEATS, payload: Payload::EMPTY }];
    b.engine.execute(TRIP, steps, Payload::EMPTY, Box::new(|_| {}));
    let LogAnswer::Open { records, .. } = read(&log, LogQuery::Open) else { panic!("it is asked what is open") };
    let id = records[0].0;
    let vouches = |instance: &Instance| {
        let (send, told) = std::sync::mpsc::channel();
        instance.engine.confirm_untold(id, Box::new(move |untold| send.send(untold).unwrap()));
        told.try_recv().unwrap()
    };
    assert!(vouches(&b) && !vouches(&a), "its own, and nobody was told");
    // b is frozen.
    live_on(&clock, &[&a], LEASE_MS + 2 * LEASE_RENEWAL_MS);
    assert_eq!(log.taken.lock().len(), 1);
    assert_eq!(b.engine.is_answered(id), Some(false), "it believes that nothing has happened");
    assert!(!vouches(&b), "but the log knows better");
    assert!(!vouches(&a), "and who took it over does not know whom the other has told");
    // Nor does whoever has it back, by whatever way, without having begun it anew.
    live_on(&clock, &[&b, &a], 3 * LEASE_RENEWAL_MS);
    assert!(!vouches(&b) && !vouches(&a));
}

/// Whoever takes over comes to its outcome, too, behind a caller who has heard it: whoever counts answers counts one.
#[test]
fn what_was_answered_before_it_was_taken_over_is_told_apart_from_an_answer() {
    let (clock, log) = (Arc::<Hands>::default(), Noting::default());
    let a = Instance::start("a", &clock, &log);
    let b = Instance::start("b", &clock, &log);
    b.ways.begins.store(true, Ordering::Relaxed);
    let steps = vec![Step { service: SEATS, payload: Payload::EMPTY }];
    b.engine.execute(TRIP, steps, Payload::EMPTY, Box::new(|told| assert_eq!(told.unwrap().1, Outcome::Committed)));
    assert_eq!(*b.seen.answered.lock(), [false]);
    // b is killed before anybody acknowledged.
    a.ways.quick.store(true, Ordering::Relaxed);
    live_on(&clock, &[&a], LEASE_MS + 2 * LEASE_RENEWAL_MS);
    assert_eq!(*a.seen.answered.lock(), [true]);
}

#[test]
fn what_is_finished_is_told_together_and_soon() {
    let (clock, log) = (Arc::<Hands>::default(), Noting::default());
    let a = Instance::start("a", &clock, &log);
    a.ways.quick.store(true, Ordering::Relaxed);
    let finish = |many: usize| {
        for _ in 0..many {
            let steps = vec![Step { service: SEATS, payload: Payload::EMPTY }];
            a.engine.execute(TRIP, steps, Payload::EMPTY, Box::new(|_| {}));
        }
    };
    let finishes = || {
        a.engine.tick();
        log.finishes.load(Ordering::Relaxed)
    };
    finish(1);
    assert_eq!(finishes(), 1, "a lone one at once");
    for _ in 0..3 {
        finish(10);
        clock.0.fetch_add(GATHER_FINISHED_MS / 4, Ordering::Relaxed);
        assert_eq!(finishes(), 1, "the log was told a moment ago");
    }
    assert!(a.engine.is_busy(), "it is not told of all");
    clock.0.fetch_add(GATHER_FINISHED_MS / 3, Ordering::Relaxed);
    assert_eq!((finishes(), a.engine.is_busy()), (2, false));
    finish(MAX_FINISHED_TOGETHER - 1);
    assert_eq!(finishes(), 2);
    finish(1);
    assert_eq!(finishes(), 3, "so many do not wait");
}

/// A busy instance took its own settled transactions up again with every renewal, and said each time that there had been a crash.
#[test]
fn what_the_log_has_not_been_told_of_yet_is_not_taken_up_again_unless_it_never_is() {
    let (clock, log) = (Arc::<Hands>::default(), Noting::default());
    let a = Instance::start("a", &clock, &log);
    a.ways.quick.store(true, Ordering::Relaxed);
    log.is_slow.store(true, Ordering::Relaxed);
    let steps = vec![Step { service: SEATS, payload: Payload::EMPTY }];
    a.engine.execute(TRIP, steps, Payload::EMPTY, Box::new(|_| {}));
    assert_eq!(a.engine.live_count(), 0, "it is settled");
    let taken_up = || a.seen.recoveries.load(Ordering::Relaxed);
    live_on(&clock, &[&a], 3 * LEASE_RENEWAL_MS);
    assert_eq!(taken_up(), 0, "the log will hear of it");
    let LogAnswer::Open { records, .. } = read(&log, LogQuery::Open) else { panic!("it is asked what is open") };
    let id = records[0].0;
    assert_eq!(a.engine.retry(id), Retried::Finished, "an operator who asks is told so, not that nobody drives it");
    log.is_slow.store(false, Ordering::Relaxed);
    let lost = std::mem::take(&mut *log.underway.lock());
    assert_eq!(lost.len(), 1);
    lost.into_iter().for_each(|done| done(Err(LogError("the connection broke".to_owned()))));
    live_on(&clock, &[&a], LEASE_RENEWAL_MS);
    assert_eq!(taken_up(), 1, "it will not hear of it by itself");
    live_on(&clock, &[&a], 4 * LEASE_RENEWAL_MS);
    assert_eq!(taken_up(), 1, "and now it has");
}

#[test]
fn a_resolution_in_the_log_is_heeded_by_an_owner_that_nobody_told_and_by_whoever_takes_over() {
    let (clock, log) = (Arc::<Hands>::default(), Noting::default());
    let a = Instance::start("a", &clock, &log);
    let b = Instance::start("b", &clock, &log);
    for owner_is_gone in [false, true] {
        b.ways.begins.store(true, Ordering::Relaxed);
        let steps = vec![Step { service: SEATS, payload: Payload::EMPTY }];
        b.engine.execute(TRIP, steps, Payload::EMPTY, Box::new(|_| {}));
        live_on(&clock, &[&a, &b], 120_000);
        let stuck = LogQuery::Listing { standing: Some(Standing::Stuck), limit: 10 };
        let LogAnswer::Listing(found) = read(&log, stuck) else { panic!("it is asked for a list") };
        let [(id, _)] = found.as_slice() else { panic!("one is stuck: {found:?}") };
        // By an instance that is not here: neither of these is told.
        let at = a.engine.now();
        let resolution = Resolution { step: 0, operator: "ann".into(), reason: "seen to".into(), at };
        log.append(LogCommand::Resolve { id: *id, resolution }, Box::new(|told| assert_eq!(told, Ok(LogReply::Done))));
        let left: &[&Instance] = if owner_is_gone { &[&a] } else { &[&a, &b] };
        live_on(&clock, left, LEASE_MS + 3 * LEASE_RENEWAL_MS);
        let LogAnswer::Transaction(Some(record)) = read(&log, LogQuery::Transaction(*id)) else { panic!("{id}") };
        assert_eq!(record.standing(), Standing::Finished, "owner is gone: {owner_is_gone}");
        assert_eq!(record.letters.len(), 1, "it is not called stuck once more");
        let owner = if owner_is_gone { &a } else { &b };
        assert_eq!((record.owner, owner.engine.live_count()), (Some(owner.engine.instance()), 0));
    }
}

/// It lives, as far as the log can tell, and can settle nothing: neither what it began, nor, as the leader, what another left behind.
#[test]
fn an_instance_that_reaches_no_participant_hands_over_what_it_has() {
    let (clock, log) = (Arc::<Hands>::default(), Noting::default());
    let a = Instance::start("a", &clock, &log);
    let b = Instance::start("b", &clock, &log);
    let c = Instance::start("c", &clock, &log);
    for instance in [&a, &c] {
        let steps = vec![Step { service: SEATS, payload: Payload::EMPTY }];
        instance.engine.execute(TRIP, steps, Payload::EMPTY, Box::new(|_| {}));
    }
    // a is cut off, and c dies.
    a.ways.cut_off.store(true, Ordering::Relaxed);
    b.ways.quick.store(true, Ordering::Relaxed);
    live_on(&clock, &[&a, &b], CUT_OFF_MS);
    let name = |instance: &Instance| instance.engine.instance();
    assert_eq!(*log.taken.lock(), [(name(&a), name(&c))]);
    assert_eq!((a.engine.live_count(), b.engine.live_count()), (2, 0), "which settles nothing there");
    live_on(&clock, &[&a, &b], 2 * LEASE_RENEWAL_MS);
    assert_eq!(log.taken.lock()[1..], [(name(&b), name(&a))]);
    assert_eq!(leaders(&[&a, &b]), [false, true]);
    live_on(&clock, &[&a, &b], GATHER_FINISHED_MS);
    let LogAnswer::Open { records, .. } = read(&log, LogQuery::Open) else { panic!("it is asked what is open") };
    assert!(records.is_empty(), "all of it is settled: {records:?}");
    // It goes on with nothing, and has nothing more to hand over; it knows of no stuck branch, either.
    live_on(&clock, &[&a, &b], 300_000);
    assert_eq!(log.taken.lock().len(), 2);
    assert_eq!(a.engine.epoch(), 5, "taken over, and registered anew, once");
    assert_eq!(a.seen.letters.load(Ordering::Relaxed), 0);
    // Back, and the other one is gone: it leads again.
    a.ways.cut_off.store(false, Ordering::Relaxed);
    live_on(&clock, &[&a], LEASE_MS + 2 * LEASE_RENEWAL_MS);
    assert_eq!(leaders(&[&a]), [true]);
}

#[test]
fn who_is_cut_off_and_alone_keeps_what_it_has_and_those_who_are_all_cut_off_lose_nothing() {
    let (clock, log) = (Arc::<Hands>::default(), Noting::default());
    let a = Instance::start("a", &clock, &log);
    a.ways.cut_off.store(true, Ordering::Relaxed);
    let steps = vec![Step { service: SEATS, payload: Payload::EMPTY }];
    a.engine.execute(TRIP, steps, Payload::EMPTY, Box::new(|_| {}));
    live_on(&clock, &[&a], 10 * CUT_OFF_MS);
    assert_eq!((a.engine.epoch(), a.engine.is_leader()), (1, true));
    let b = Instance::start("b", &clock, &log);
    b.ways.cut_off.store(true, Ordering::Relaxed);
    live_on(&clock, &[&a, &b], 600_000);
    let times = log.taken.lock().len();
    assert!((2..=12).contains(&times), "it goes back and forth, ever more seldom: {times} times");
    // b reaches them again.
    b.ways.cut_off.store(false, Ordering::Relaxed);
    b.ways.quick.store(true, Ordering::Relaxed);
    live_on(&clock, &[&a, &b], MAX_CUT_OFF_MS + LEASE_MS);
    let LogAnswer::Open { records, .. } = read(&log, LogQuery::Open) else { panic!("it is asked what is open") };
    assert!(records.is_empty(), "all of it is settled: {records:?}");
}
