//! Several instances on one log: one of them looks after it, and takes over whoever is gone.

#![allow(clippy::unwrap_used, reason = "in a test a broken expectation is a failed test")]

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use orchestrator::{
    Clock, Definition, Done, Engine, Log, LogAnswer, LogError, LogQuery, Name, Observation, Observer, Options, Payload,
    Step, Transport, memory,
};
use parking_lot::Mutex;
use protocol::limits::{LEASE_MS, LEASE_RENEWAL_MS};
use protocol::log::{LogCommand, LogReply};
use protocol::{Command, Reply, Timestamp};

const SEATS: Name = Name::literal("seats");
const TRIP: Name = Name::literal("trip");

#[derive(Default)]
struct Hands(AtomicU64);

impl Clock for Hands {
    fn now(&self) -> Timestamp {
        Timestamp(1_000_000 + self.0.load(Ordering::Relaxed))
    }

    fn micros(&self) -> u64 {
        0
    }
}

/// Participants that never answer.
#[derive(Default)]
struct Silence(Mutex<Vec<Done<Reply>>>);

impl Transport for Silence {
    fn knows(&self, _: &Name) -> bool {
        true
    }

    fn send(&self, _: &Name, _: Command, done: Done<Reply>) {
        self.0.lock().push(done);
    }
}

/// A log that notes who takes over whom, and who has it forget.
#[derive(Clone, Default)]
struct Noting {
    log: memory::MemoryLog,
    taken: Arc<Mutex<Vec<(Name, Name)>>>,
    forgets: Arc<AtomicU64>,
}

impl Log for Noting {
    fn append(&self, command: LogCommand, done: Done<Result<LogReply, LogError>>) {
        match &command {
            LogCommand::TakeOver { writer, from, .. } => self.taken.lock().push((writer.instance, *from)),
            LogCommand::Forget { .. } => _ = self.forgets.fetch_add(1, Ordering::Relaxed),
            _ => {}
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
struct Eyes(Mutex<Vec<bool>>);

impl Observer for Eyes {
    fn observe(&self, observation: &Observation<'_>) {
        if let Observation::Leads { leads } = observation {
            self.0.lock().push(*leads);
        }
    }
}

struct Instance {
    engine: Arc<Engine>,
    seen: Arc<Eyes>,
}

impl Instance {
    fn start(name: &str, clock: &Arc<Hands>, log: &Noting) -> Self {
        let seen = Arc::<Eyes>::default();
        let engine = Engine::new(
            Options::new(name.parse().unwrap()),
            vec![Definition::new(TRIP, [SEATS])],
            Arc::new(log.clone()),
            Arc::new(Silence::default()),
            Arc::clone(clock) as Arc<dyn Clock>,
            Arc::clone(&seen) as Arc<dyn Observer>,
        );
        let engine = engine.unwrap();
        engine.register(Box::new(|result| result.unwrap()));
        Self { engine, seen }
    }
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
    assert_eq!(*b.seen.0.lock(), [true]);
    // It comes back under a later epoch, and follows.
    live_on(&clock, &[&a, &b], 3 * LEASE_RENEWAL_MS);
    assert_eq!(leaders(&[&a, &b]), [false, true]);
    assert_eq!(*a.seen.0.lock(), [true, false]);
    assert_eq!(a.engine.epoch(), 3, "taken over, and registered anew");
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
