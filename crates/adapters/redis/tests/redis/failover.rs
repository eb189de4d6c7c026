//! A master with replicas under Sentinel: discovery, and what a failover may and may not cost.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use ledger::{LedgerCommand, LedgerReply};
use orchestrator::StoreFailure;
use protocol::{BranchState, Verb};
use redis_store::{Durability, Failover, OpenError, Options, Place, RedisLedger};
use servers::redis::{Persistence, Watched};
use servers::wait_until;

use crate::support::{STOCK, account, audit, branch, is_done, open, seeded, submit};

const DOWN_AFTER: Duration = Duration::from_millis(700);
/// How long a failover, or the way back of a server, may take.
const FAILOVER: Duration = Duration::from_secs(40);

fn start() -> Watched {
    Watched::start(Persistence::Always, 2, 3, DOWN_AFTER).unwrap()
}

fn watched(servers: &Watched, replicas: u32, failover: Failover) -> Options {
    let place = Place::Sentinel { sentinels: servers.addresses(), master: servers.name.clone() };
    Options {
        durability: Durability::Replicated { replicas },
        failover,
        // A busy machine's replicas take their time; a test that they are late sets its own.
        wait: Duration::from_secs(2),
        patience: Duration::from_secs(2),
        ..Options::new(place)
    }
}

/// Gives a command until it is answered. What was unknown goes through the barrier again.
fn insist(store: &RedisLedger, command: &LedgerCommand) -> LedgerReply {
    let until = Instant::now() + FAILOVER;
    loop {
        match submit(store, command.clone()) {
            Ok(reply) => return reply,
            Err(failure) => assert!(Instant::now() < until, "still {failure}"),
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Branches one after another, each prepared and committed as often as it takes, while `strike` does its worst. Returns how many.
fn work_through(store: &RedisLedger, strike: impl FnOnce()) -> i64 {
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let worker = scope.spawn(|| {
            let mut n = 0;
            while !stop.load(Ordering::Relaxed) {
                for (verb, state) in [(Verb::Prepare, BranchState::Prepared), (Verb::Commit, BranchState::Committed)] {
                    let reply = insist(store, &branch(n, verb, n % 3, 1));
                    // No repair among them: a commit that finds no branch means that an acknowledged prepare was lost.
                    let whole = !matches!(reply, LedgerReply::Branch { repaired: true, .. });
                    assert!(whole && is_done(&Ok(reply.clone()), state), "branch {n}: {verb} is answered {reply:?}");
                }
                n += 1;
            }
            n
        });
        strike();
        stop.store(true, Ordering::Relaxed);
        i64::try_from(worker.join().unwrap()).unwrap()
    })
}

fn check(store: &RedisLedger, branches: i64) {
    let settled: i64 = (0..3).map(|n| account(store, n).settled).sum();
    assert_eq!(settled, branches, "each was captured, and once");
    let found = audit(store);
    assert_eq!((found.discrepancies, found.totals.held), (vec![], 0));
}

/// One failover was provoked. A machine so busy that a master is silent for [`DOWN_AFTER`] has more; the Sentinels know how many.
fn assert_failovers_counted(servers: &Watched, store: &RedisLedger) {
    let (counted, epoch) = (store.statistics().failovers, servers.epoch());
    assert!((1..=epoch).contains(&counted), "{counted} failovers counted in {epoch} epochs");
}

#[test]
fn a_level_that_a_failover_could_undo_must_be_asked_for_in_as_many_words() {
    let servers = start();
    let strict = watched(&servers, 2, Failover::LosesNothing);
    for durability in [Durability::Memory, Durability::Fsync, Durability::Replicated { replicas: 1 }] {
        let weak = Options { durability, ..strict.clone() };
        let error = RedisLedger::open(STOCK, &weak).expect_err("a failover could lose what was acknowledged");
        assert!(matches!(error, OpenError::MayLose { .. }), "{durability:?}: {error}");
        open(&Options { failover: Failover::MayLoseAcknowledgedWrites, ..weak });
    }
    open(&strict);
    let place = Place::Sentinel { sentinels: servers.addresses(), master: "another".to_owned() };
    let error = RedisLedger::open(STOCK, &Options { place, ..strict.clone() }).expect_err("there is no such master");
    assert!(matches!(error, OpenError::NoMaster { .. }), "{error}");
    // One Sentinel that answers is enough.
    let mut sentinels = servers.addresses();
    sentinels[0] = "127.0.0.1:1".to_owned();
    sentinels[2] = "127.0.0.1:2".to_owned();
    let place = Place::Sentinel { sentinels, master: servers.name.clone() };
    let error = RedisLedger::open(STOCK, &Options { place, ..strict }).err();
    assert_eq!(error, None);
    // A replica that joins, and could be promoted, must have every write from then on.
    let store = seeded(&watched(&servers, 2, Failover::LosesNothing));
    let _third = servers.servers[0].start_replica(Persistence::Always).unwrap();
    let refused = || match submit(&store, branch(1, Verb::Inquire, 0, 1)) {
        Err(StoreFailure::NotDone(why)) => why.contains("3 replicas"),
        _ => false,
    };
    assert!(wait_until(FAILOVER, refused), "a failover could promote the third one");
}

#[test]
fn a_killed_master_costs_nothing_that_was_acknowledged() {
    let mut servers = start();
    let store = seeded(&watched(&servers, 2, Failover::LosesNothing));
    let branches = work_through(&store, || {
        let done = || store.statistics().scripts > 200;
        assert!(wait_until(FAILOVER, done));
        servers.servers[0].kill().unwrap();
        assert!(wait_until(FAILOVER, || servers.master().is_some_and(|master| master != 0)), "nobody was promoted");
        // Every replica must have every write, and one of them is gone.
        let told = submit(&store, branch(1_000_000, Verb::Prepare, 0, 1));
        assert!(told.is_err(), "one of the replicas is gone: {told:?}");
        servers.servers[0].restart().unwrap();
        let before = store.statistics().scripts;
        assert!(wait_until(FAILOVER, || store.statistics().scripts > before + 200), "{:?}", store.trouble());
    });
    let statistics = store.statistics();
    assert_failovers_counted(&servers, &store);
    // Every batch is in both distributions, and none took longer than whoever waits for replicas may.
    for counted in [statistics.batch_scripts, statistics.batch_microseconds] {
        assert_eq!(counted.iter().sum::<u64>(), statistics.batches);
    }
    assert!(statistics.batch_nanoseconds > 0 && statistics.batch_scripts[0] > 0, "{statistics:?}");
    assert!(store.statistics().connections >= 2);
    let reply = insist(&store, &branch(1_000_000, Verb::Abort, 0, 1));
    assert!(is_done(&Ok(reply), BranchState::Aborted));
    check(&store, branches);
}

#[test]
fn one_replica_of_two_goes_on_without_the_killed_master() {
    let mut servers = start();
    // Both have the accounts; of what one alone has acknowledged, nothing is asked again.
    drop(seeded(&watched(&servers, 2, Failover::LosesNothing)));
    let store = open(&watched(&servers, 1, Failover::MayLoseAcknowledgedWrites));
    servers.servers[0].kill().unwrap();
    for n in 0..20 {
        let reply = insist(&store, &branch(n, Verb::Prepare, n % 3, 1));
        assert!(is_done(&Ok(reply.clone()), BranchState::Prepared), "branch {n} is answered {reply:?}");
    }
    assert_failovers_counted(&servers, &store);
    assert!(audit(&store).discrepancies.is_empty());
}

#[test]
fn a_frozen_master_that_wakes_up_demoted_acknowledges_nothing() {
    let mut servers = start();
    let store = seeded(&watched(&servers, 2, Failover::LosesNothing));
    // It knows only the old master, and stays connected to it.
    let place = Place::Standalone { address: servers.servers[0].address() };
    let astray = Options {
        place,
        wait: Duration::from_secs(1),
        patience: Duration::from_secs(30),
        ..watched(&servers, 2, Failover::LosesNothing)
    };
    let astray = open(&astray);
    assert!(is_done(&submit(&astray, branch(2_000_000, Verb::Inquire, 0, 1)), BranchState::Aborted));
    let mut late = None;
    let branches = work_through(&store, || {
        assert!(wait_until(FAILOVER, || store.statistics().scripts > 200));
        servers.servers[0].process().freeze().unwrap();
        late = Some(crate::support::begin(&astray, branch(3_000_000, Verb::Prepare, 0, 1)));
        let promoted = || {
            let others = &servers.servers[1..];
            others.iter().any(|server| server.ask("ROLE").is_ok_and(|role| role.contains("master")))
        };
        assert!(wait_until(FAILOVER, promoted), "nobody was promoted");
        servers.servers[0].process().thaw().unwrap();
        let demoted = || servers.servers[0].ask("ROLE").is_ok_and(|role| role.contains("slave"));
        assert!(wait_until(FAILOVER, demoted), "the old master was not demoted");
        let before = store.statistics().scripts;
        assert!(wait_until(FAILOVER, || store.statistics().scripts > before + 200), "{:?}", store.trouble());
    });
    let told = late.unwrap().recv_timeout(FAILOVER).unwrap();
    assert!(matches!(told, Err(StoreFailure::Unknown(_) | StoreFailure::NotDone(_))), "the old master said {told:?}");
    check(&store, branches);
    let told = submit(&astray, branch(4_000_000, Verb::Prepare, 0, 1));
    assert!(told.is_err(), "a replica took a write: {told:?}");
}
