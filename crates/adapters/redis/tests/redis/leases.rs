//! Instances whose clocks are wrong share one log: leases go by the server's time.

use std::sync::Arc;
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

use ledger::{EntityId, Entry, entries};
use orchestrator::{
    Clock, Definition, Engine, InProcess, LogQuery, Observation, Observer, Options, Outcome, Payload, Step,
    SystemClock, memory,
};
use parking_lot::Mutex;
use protocol::limits::{LEASE_MS, LEASE_RENEWAL_MS, MAX_LEASE_MS};
use protocol::log::{LogCommand, LogReply, Writer};
use protocol::{Name, Timestamp};
use redis_store::RedisLog;

use crate::support::{LOG, PATIENCE, in_memory, quick_server};

const SEATS: Name = Name::literal("seats");
const TRIP: Name = Name::literal("trip");

/// A clock that is wrong by so much.
struct Wrong(SystemClock, i64);

impl Clock for Wrong {
    fn now(&self) -> Timestamp {
        let right = self.0.now();
        if self.1 < 0 { right.minus(self.1.unsigned_abs()) } else { right.plus(self.1.unsigned_abs()) }
    }

    fn micros(&self) -> u64 {
        self.0.micros()
    }
}

/// Who was taken over, and who found itself fenced.
#[derive(Default)]
struct Eyes(Mutex<Vec<String>>);

impl Observer for Eyes {
    fn observe(&self, observation: &Observation<'_>) {
        match observation {
            Observation::TookOver { from, .. } => self.0.lock().push(format!("{from} was taken over")),
            Observation::Fenced => self.0.lock().push("fenced".to_owned()),
            _ => {}
        }
    }
}

#[test]
fn instances_whose_clocks_are_wrong_leave_each_other_alone_and_execute() {
    let server = quick_server();
    let seats = Arc::new(memory::MemoryLedger::with_accounts([(EntityId::number(7), 1_000)]));
    let seen = Arc::<Eyes>::default();
    let start = |name: &str, wrong: i64| {
        let log = RedisLog::open(LOG, &in_memory(&server)).unwrap();
        let engine = Engine::new(
            Options::new(name.parse().unwrap()),
            vec![Definition::new(TRIP, [SEATS])],
            Arc::new(log),
            Arc::new(InProcess::default().with(SEATS, Arc::clone(&seats) as _)),
            Arc::new(Wrong(SystemClock::default(), wrong)),
            Arc::clone(&seen) as Arc<dyn Observer>,
        );
        let engine = engine.unwrap();
        let (done, registered) = channel();
        engine.register(Box::new(move |result| _ = done.send(result)));
        registered.recv_timeout(PATIENCE).unwrap().unwrap();
        engine
    };
    let right = start("right", 0);
    let engines = [right, start("late", -15_000), start("early", 15_000), start("an-hour-early", 3_600_000)];
    let (mut executed, until) = (0, Instant::now() + Duration::from_millis(3 * LEASE_RENEWAL_MS));
    while Instant::now() < until {
        for engine in &engines {
            engine.tick();
            let payload = entries::encode(&[Entry { account: EntityId::number(7), amount: 1 }]).unwrap();
            let (done, told) = channel();
            let steps = vec![Step { service: SEATS, payload }];
            engine.execute(TRIP, steps, Payload::EMPTY, Box::new(move |told| _ = done.send(told)));
            let told = told.recv_timeout(PATIENCE).unwrap();
            assert!(matches!(told, Ok((_, Outcome::Committed))), "{}: {told:?}", engine.instance());
            executed += 1;
        }
        std::thread::sleep(Duration::from_millis(40));
    }
    assert_eq!(*seen.0.lock(), [""; 0], "after {executed} transactions");
    let leaders: Vec<_> = engines.iter().filter(|engine| engine.is_leader()).map(|engine| engine.instance()).collect();
    assert_eq!(leaders, [engines[0].instance()], "all agree who is the oldest");
}

#[test]
fn what_is_born_is_never_behind_the_logs_clock() {
    let server = quick_server();
    let log = RedisLog::open(LOG, &in_memory(&server)).unwrap();
    let late = Arc::new(Wrong(SystemClock::default(), -3_600_000));
    let engine = Engine::new(
        Options::new(Name::literal("late")),
        vec![Definition::new(TRIP, [SEATS])],
        Arc::new(log.clone()),
        Arc::new(InProcess::default().with(SEATS, Arc::new(memory::MemoryLedger::default()))),
        late,
        Arc::new(orchestrator::Unobserved),
    )
    .unwrap();
    let (done, registered) = channel();
    engine.register(Box::new(move |result| _ = done.send(result)));
    registered.recv_timeout(PATIENCE).unwrap().unwrap();
    let payload = entries::encode(&[Entry { account: EntityId::number(7), amount: 1 }]).unwrap();
    let (done, told) = channel();
    engine.execute(
        TRIP,
        vec![Step { service: SEATS, payload }],
        Payload::EMPTY,
        Box::new(move |told| _ = done.send(told)),
    );
    let (id, outcome) = told.recv_timeout(PATIENCE).unwrap().unwrap();
    assert!(matches!(outcome, Outcome::Refused { .. }), "{outcome:?}");
    let right = SystemClock::default().now();
    assert!(
        id.birth().since(right) < 1_000 && right.since(id.birth()) < 1_000,
        "born at {:?}, not {right:?}",
        id.birth()
    );
    let (done, found) = channel();
    orchestrator::Log::read(&log, LogQuery::Transaction(id), Box::new(move |told| _ = done.send(told)));
    let Ok(orchestrator::LogAnswer::Transaction(Some(record))) = found.recv_timeout(PATIENCE).unwrap() else {
        panic!("it is in the log");
    };
    let (_, at) = record.decided.unwrap();
    assert!(right.since(at) < 1_000, "decided at {at:?}: an hour back it would be forgotten at once");
}

/// What a step back of the server's clock leaves behind is a lease that ends too far ahead of it.
#[test]
fn a_renewal_cuts_the_leases_that_end_too_far_ahead_of_the_servers_clock() {
    let server = quick_server();
    let log = RedisLog::open(LOG, &in_memory(&server)).unwrap();
    let append = |command| {
        let (done, told) = channel();
        orchestrator::Log::append(&log, command, Box::new(move |reply| _ = done.send(reply)));
        told.recv_timeout(PATIENCE).unwrap().unwrap()
    };
    let leases = || {
        let (done, found) = channel();
        orchestrator::Log::read(&log, LogQuery::Open, Box::new(move |told| _ = done.send(told)));
        let Ok(orchestrator::LogAnswer::Open { instances, now: Some(now), .. }) = found.recv_timeout(PATIENCE).unwrap()
        else {
            panic!("it goes by the server's time");
        };
        instances.into_iter().map(|(_, lease)| lease.expires.unwrap().since(now)).collect::<Vec<_>>()
    };
    let [dead, alive] = [Name::literal("a-dead"), Name::literal("b-alive")];
    let mut epoch = Default::default();
    for (instance, lease) in [(dead, LEASE_MS), (alive, u64::MAX - 1)] {
        let LogReply::Registered(given) = append(LogCommand::Register { instance, now: Timestamp(0), lease }) else {
            panic!("it registers");
        };
        epoch = given;
    }
    assert!(leases()[1] <= MAX_LEASE_MS, "no lease is granted for longer than any may last: {:?}", leases());
    let ahead = SystemClock::default().now().plus(600_000);
    server.ask(&format!("HSET {{settle:{LOG}:0}}:instances {dead} \"1 {}\"", ahead.0)).unwrap();
    assert!(leases()[0] > 500_000);
    let writer = Writer { instance: alive, epoch };
    assert_eq!(append(LogCommand::Renew { writer, now: Timestamp(0), lease: LEASE_MS }), LogReply::Done);
    let left = leases();
    assert!(left[1] <= LEASE_MS, "its own, of longer, does not stand: {left:?}");
    assert!((LEASE_MS..=MAX_LEASE_MS).contains(&left[0]), "who lives has time to renew: {left:?}");
}
