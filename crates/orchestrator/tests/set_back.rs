//! Several instances on one log whose own clock is set back.

#![allow(clippy::unwrap_used, reason = "in a test a broken expectation is a failed test")]

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use orchestrator::{
    Clock, Definition, Done, Engine, InProcess, Log, LogAnswer, LogError, LogQuery, Name, Observation, Observer,
    Options, memory,
};
use parking_lot::Mutex;
use protocol::Timestamp;
use protocol::limits::{LEASE_MS, LEASE_RENEWAL_MS, MAX_LEASE_MS};
use protocol::log::{LogCommand, LogReply};

use common::Hands;

const SEATS: Name = Name::literal("seats");
const TRIP: Name = Name::literal("trip");
const STEP_MS: u64 = 600_000;

/// A log whose leases go by its own clock.
#[derive(Clone)]
struct OwnTime {
    log: memory::MemoryLog,
    clock: Arc<Hands>,
    set_back: Arc<AtomicU64>,
}

impl OwnTime {
    fn time(&self) -> Timestamp {
        self.clock.now().minus(self.set_back.load(Ordering::Relaxed))
    }
}

impl Log for OwnTime {
    fn append(&self, mut command: LogCommand, done: Done<Result<LogReply, LogError>>) {
        if let LogCommand::Register { now, .. } | LogCommand::Renew { now, .. } | LogCommand::TakeOver { now, .. } =
            &mut command
        {
            *now = self.time();
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
        let time = self.time();
        let told = move |answer| {
            done(match answer {
                Ok(LogAnswer::Open { records, instances, .. }) => {
                    Ok(LogAnswer::Open { records, instances, now: Some(time) })
                }
                other => other,
            });
        };
        self.log.read(query, Box::new(told));
    }
}

/// Who was taken over by whom.
#[derive(Clone)]
struct Eyes(Name, Arc<Mutex<Vec<(Name, Name)>>>);

impl Observer for Eyes {
    fn observe(&self, observation: &Observation<'_>) {
        if let Observation::TookOver { from, .. } = observation {
            self.1.lock().push((self.0, *from));
        }
    }
}

/// Found by an attack: an instance that had died before the step was the leader for as long as that was, and nobody took anybody over.
#[test]
fn whoever_is_gone_is_taken_over_soon_behind_a_step_back_and_who_lives_is_not() {
    let (clock, set_back) = (Arc::<Hands>::default(), Arc::<AtomicU64>::default());
    let log = OwnTime { log: memory::MemoryLog::default(), clock: Arc::clone(&clock), set_back: Arc::clone(&set_back) };
    let taken = Arc::<Mutex<Vec<(Name, Name)>>>::default();
    let start = |name: &str| {
        let name = name.parse().unwrap();
        let engine = Engine::new(
            Options::new(name),
            vec![Definition::new(TRIP, [SEATS])],
            Arc::new(log.clone()),
            Arc::new(InProcess::default().with(SEATS, Arc::new(memory::MemoryLedger::default()))),
            Arc::clone(&clock) as Arc<dyn Clock>,
            Arc::new(Eyes(name, Arc::clone(&taken))),
        );
        let engine = engine.unwrap();
        engine.register(Box::new(|result| result.unwrap()));
        engine
    };
    let oldest = start("oldest");
    let others = [start("b"), start("c"), start("d")];
    assert!(oldest.is_leader());
    let live_on = |instances: &[Arc<Engine>], millis: u64| {
        for _ in 0..millis / 100 {
            clock.0.fetch_add(100, Ordering::Relaxed);
            instances.iter().for_each(|instance| instance.tick());
        }
    };
    live_on(&others, 1_000);
    // The oldest is killed, and right behind it the clock is set back.
    set_back.store(STEP_MS, Ordering::Relaxed);
    live_on(&others, MAX_LEASE_MS + 2 * LEASE_RENEWAL_MS);
    let name = |engine: &Engine| engine.instance();
    assert_eq!(*taken.lock(), [(name(&others[0]), name(&oldest))]);
    assert_eq!(others.each_ref().map(|engine| engine.is_leader()), [true, false, false]);
    assert_eq!(others.each_ref().map(|engine| engine.epoch()), [2, 3, 4], "nobody was fenced");
    // Who is gone later is taken over as ever.
    live_on(&others[1..], LEASE_MS + 2 * LEASE_RENEWAL_MS);
    assert_eq!(taken.lock()[1..], [(name(&others[1]), name(&others[0]))]);
}
