//! What the store does when its server does not do what it should.

use std::time::{Duration, Instant};

use ledger::{LedgerReply, entries};
use orchestrator::{LedgerAnswer, LedgerQuery, LedgerStore, StoreFailure};
use protocol::limits::MAX_STORE_QUEUE;
use protocol::{BranchState, Reply, Verb};
use redis_store::{Durability, OpenError, Options, Place, RedisLedger};
use servers::redis::{Persistence, Server};
use servers::wait_until;

use crate::support::{
    STOCK, account, audit, begin, branch, in_memory, is_done, open, options, quick_server, read, seeded, submit,
};

/// How long a store may wait in these tests.
const SHORT: Duration = Duration::from_millis(200);

fn hasty(options: Options) -> Options {
    Options { wait: SHORT, patience: SHORT, ..options }
}

fn why_not(options: &Options) -> OpenError {
    RedisLedger::open(STOCK, options).expect_err("the server cannot give what was asked for")
}

#[test]
fn a_server_that_cannot_give_what_was_asked_for_is_refused() {
    let plain = quick_server();
    let error = why_not(&options(&plain));
    assert!(matches!(error, OpenError::NotDurable { setting: "appendonly", .. }), "{error}");
    let lazy = Server::start(Persistence::EverySecond).unwrap();
    let error = why_not(&options(&lazy));
    assert!(matches!(error, OpenError::NotDurable { setting: "appendfsync", .. }), "{error}");
    let alone = Server::start(Persistence::Always).unwrap();
    let replicated = Options { durability: Durability::Replicated { replicas: 1 }, ..options(&alone) };
    let error = why_not(&replicated);
    assert!(matches!(error, OpenError::TooFewReplicas { wanted: 1, found: 0, .. }), "{error}");
    let replica = alone.start_replica(Persistence::Always).unwrap();
    let error = why_not(&options(&replica));
    assert!(matches!(&error, OpenError::NotMaster { role, .. } if role == "slave"), "{error}");
    let waitless = Server::start_with(Persistence::Always, &["--rename-command", "WAIT", ""]).unwrap();
    let replicated = Options { durability: Durability::Replicated { replicas: 1 }, ..options(&waitless) };
    let error = why_not(&replicated);
    assert!(matches!(error, OpenError::NoWait { .. }), "{error}");
    let forgetful =
        Server::start_with(Persistence::None, &["--maxmemory", "10mb", "--maxmemory-policy", "allkeys-lru"]).unwrap();
    let error = why_not(&in_memory(&forgetful));
    assert!(matches!(error, OpenError::Evicts { .. }), "{error}");
    let error = why_not(&Options::new(Place::Standalone { address: "127.0.0.1:1".to_owned() }));
    assert!(matches!(error, OpenError::Unreachable { .. }), "{error}");
}

#[test]
fn a_server_that_loads_its_data_is_not_said_to_lack_a_command() {
    let mut server = Server::start_with(Persistence::Always, &["--key-load-delay", "400"]).unwrap();
    // It answers between one thousand commands and the next.
    let fill = "EVAL \"for i=1,16000 do redis.call('SET','key'..i,i) end return 'full'\" 0";
    assert!(server.ask(fill).unwrap().contains("full"));
    let replicated = Options { durability: Durability::Replicated { replicas: 1 }, ..options(&server) };
    server.kill().unwrap();
    std::thread::scope(|scope| {
        let restart = scope.spawn(|| server.restart());
        let mut loaded = false;
        let told = wait_until(Duration::from_secs(30), || {
            let error = why_not(&replicated);
            match error {
                OpenError::Loading { .. } => loaded = true,
                OpenError::Unreachable { .. } => {}
                OpenError::TooFewReplicas { .. } => return true,
                other => panic!("{other}"),
            }
            false
        });
        assert!(told, "it does not say what it lacks once its data is there");
        assert!(loaded, "nobody asked while it was loading");
        restart.join().unwrap().unwrap();
    });
}

#[test]
fn options_out_of_bounds_are_refused() {
    let place = Place::Standalone { address: "127.0.0.1:1".to_owned() };
    let good = Options::new(place);
    for bad in [
        Options { wait: Duration::ZERO, ..good.clone() },
        Options { patience: Duration::from_secs(61), ..good.clone() },
        Options { batch: 0, ..good.clone() },
        Options { durability: Durability::Replicated { replicas: 0 }, ..good.clone() },
        Options::new(Place::Standalone { address: "nowhere".to_owned() }),
        Options::new(Place::Sentinel { sentinels: vec![], master: "shop".to_owned() }),
    ] {
        let error = why_not(&bad);
        assert!(matches!(error, OpenError::Option { .. }), "{bad:?}: {error}");
    }
}

#[test]
fn scripts_that_the_server_forgot_are_loaded_again() {
    let server = quick_server();
    let store = seeded(&in_memory(&server));
    server.ask("SCRIPT FLUSH").unwrap();
    let answers: Vec<_> = (0..50).map(|n| begin(&store, branch(n, Verb::Prepare, 0, 1))).collect();
    for answer in answers {
        assert!(is_done(&answer.recv().unwrap(), BranchState::Prepared));
    }
    assert_eq!(account(&store, 0).held, 50, "each was done, and once");
    assert_eq!(store.statistics().unknown, 0);
}

#[test]
fn a_server_that_comes_back_with_its_data_is_used_again() {
    let mut server = Server::start(Persistence::Always).unwrap();
    let store = seeded(&hasty(options(&server)));
    assert!(is_done(&submit(&store, branch(1, Verb::Prepare, 0, 3)), BranchState::Prepared));
    server.kill().unwrap();
    let lost = submit(&store, branch(2, Verb::Prepare, 0, 5));
    assert!(lost.is_err(), "nobody was there: {lost:?}");
    assert!(store.trouble().is_some() || matches!(lost, Err(StoreFailure::Unknown(_))));
    server.restart().unwrap();
    let again = || is_done(&submit(&store, branch(1, Verb::Commit, 0, 3)), BranchState::Committed);
    assert!(wait_until(Duration::from_secs(5), again), "{:?}", store.trouble());
    assert_eq!((account(&store, 0).settled, account(&store, 0).held), (3, 0));
    assert_eq!(store.trouble(), None);
    assert_eq!(store.stopped(), None);
}

#[test]
fn a_server_that_comes_back_without_its_data_stops_the_store() {
    let mut server = quick_server();
    let store = seeded(&hasty(in_memory(&server)));
    assert!(is_done(&submit(&store, branch(1, Verb::Prepare, 0, 3)), BranchState::Prepared));
    server.kill().unwrap();
    server.restart().unwrap();
    let stopped = || {
        let told = submit(&store, branch(1, Verb::Commit, 0, 3));
        assert!(told.is_err(), "a commit of a branch that is lost must not be taken for a repair: {told:?}");
        store.stopped().is_some()
    };
    assert!(wait_until(Duration::from_secs(5), stopped));
    let kept = server.ask("DBSIZE").unwrap();
    assert!(kept.starts_with(":0"), "nothing was written: {kept}");
}

#[test]
fn a_batch_whose_answers_are_lost_is_unknown_and_goes_through_the_barrier_again() {
    let mut server = quick_server();
    let store = seeded(&hasty(in_memory(&server)));
    server.process().freeze().unwrap();
    let began = Instant::now();
    let told = submit(&store, branch(1, Verb::Prepare, 0, 3));
    assert!(matches!(told, Err(StoreFailure::Unknown(_))), "{told:?}");
    assert!(began.elapsed() < 10 * SHORT, "{:?}", began.elapsed());
    server.process().thaw().unwrap();
    let again = || is_done(&submit(&store, branch(1, Verb::Prepare, 0, 3)), BranchState::Prepared);
    assert!(wait_until(Duration::from_secs(5), again));
    assert_eq!(account(&store, 0).held, 3, "held once");
    assert_eq!(store.statistics().unknown, 1);
}

#[test]
fn what_finds_no_room_is_turned_away_and_not_done() {
    let mut server = quick_server();
    let store = seeded(&in_memory(&server));
    server.process().freeze().unwrap();
    let first = begin(&store, branch(0, Verb::Prepare, 0, 1));
    let answers: Vec<_> =
        (1..MAX_STORE_QUEUE as u64 + 500).map(|n| begin(&store, branch(n, Verb::Prepare, 0, 1))).collect();
    let last = answers.last().unwrap().try_recv();
    assert!(matches!(last, Ok(Err(StoreFailure::NotDone(_)))), "the last one is answered at once: {last:?}");
    server.process().thaw().unwrap();
    let done = |answer: &std::sync::mpsc::Receiver<_>| matches!(answer.recv().unwrap(), Ok(LedgerReply::Branch { .. }));
    let done = answers[..answers.len() - 1].iter().filter(|answer| done(answer)).count() + usize::from(done(&first));
    assert!(done >= MAX_STORE_QUEUE, "those that found room were done: {done}");
    let (account, held) = (account(&store, 0), done as i64);
    assert_eq!(account.held, held, "and the others were not");
}

#[test]
fn nothing_is_acknowledged_that_too_few_replicas_have() {
    let server = Server::start(Persistence::Always).unwrap();
    let mut replica = server.start_replica(Persistence::Always).unwrap();
    assert!(wait_until(Duration::from_secs(10), || server.ask("INFO replication").unwrap().contains("state=online")));
    let replicated = Options { durability: Durability::Replicated { replicas: 1 }, ..options(&server) };
    // One that is in touch may still be busy with the file that it was sent.
    assert!(wait_until(Duration::from_secs(10), || RedisLedger::open(STOCK, &replicated).is_ok()));
    let (one, other) = (seeded(&replicated), open(&replicated));
    assert!(is_done(&submit(&one, branch(1, Verb::Prepare, 0, 3)), BranchState::Prepared));
    replica.process().freeze().unwrap();
    let told: Vec<_> = (2..6).map(|n| begin(&one, branch(n, Verb::Prepare, 0, 1))).collect();
    for told in told {
        let told = told.recv().unwrap();
        assert!(matches!(told, Err(StoreFailure::Unknown(_))), "{told:?}");
    }
    // The master has it, so its barrier repeats; but the answer rests on a write that no replica has.
    let repeat = submit(&other, branch(2, Verb::Prepare, 0, 1));
    assert!(matches!(repeat, Err(StoreFailure::Unknown(_))), "a repeat over another connection: {repeat:?}");
    let seen = read(&other, LedgerQuery::Account(ledger::EntityId::number(0)));
    assert!(matches!(seen, Err(StoreFailure::NotDone(_))), "nor is it shown: {seen:?}");
    replica.process().thaw().unwrap();
    let again = || is_done(&submit(&other, branch(2, Verb::Prepare, 0, 1)), BranchState::Prepared);
    assert!(wait_until(Duration::from_secs(10), again));
    assert_eq!(audit(&one).discrepancies, []);
}

#[test]
fn what_the_script_does_not_hold_exactly_is_refused_before_anything_is_written() {
    let server = quick_server();
    let store = seeded(&in_memory(&server));
    let most = protocol::limits::MAX_AMOUNT;
    assert!(is_done(&submit(&store, branch(1, Verb::Commit, 0, most)), BranchState::Committed), "a repair");
    let before = (account(&store, 0), audit(&store));
    let told = submit(&store, branch(2, Verb::Commit, 0, most));
    assert!(matches!(&told, Err(StoreFailure::NotDone(why)) if why.contains("2^53")), "{told:?}");
    assert_eq!((account(&store, 0), audit(&store)), before);
    let seen = read(&store, LedgerQuery::Branches(vec![crate::support::branch_id(2)]));
    assert_eq!(seen, Ok(LedgerAnswer::Branches(vec![None])));
}

#[test]
fn a_closed_store_sends_what_waits_and_turns_the_rest_away() {
    let server = quick_server();
    let store = seeded(&in_memory(&server));
    let answers: Vec<_> = (0..100).map(|n| begin(&store, branch(n, Verb::Prepare, 0, 1))).collect();
    store.close();
    for answer in answers {
        assert!(is_done(&answer.recv().unwrap(), BranchState::Prepared));
    }
    let late = submit(&store, branch(0, Verb::Commit, 0, 1));
    assert!(matches!(late, Err(StoreFailure::NotDone(_))), "{late:?}");
    store.close();
}

#[test]
fn a_refusal_keeps_its_words_whatever_is_in_them() {
    let server = quick_server();
    let store = seeded(&in_memory(&server));
    let command = protocol::Command {
        branch: crate::support::branch_id(7),
        verb: Verb::Prepare,
        payload: protocol::Payload::from(&[1, 200, 200, 200][..]),
    };
    let expected = entries::decode(&command.payload).unwrap_err();
    for _ in 0..2 {
        let told = submit(&store, ledger::LedgerCommand::Branch(command.clone()));
        let refused = LedgerReply::Branch { reply: Reply::Refused(expected.clone()), repaired: false };
        assert_eq!(told, Ok(refused));
    }
}
