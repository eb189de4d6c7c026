//! The process is killed at random moments, and at every point at which a fault can strike. Every answer given before stays true after
//! the restart, and every unit and cent is where it belongs.
//!
//! `E2E_KILLS` says how many kills at random moments (100), `E2E_SEED` repeats a run's moments.

#![allow(clippy::unwrap_used, reason = "in a test a broken expectation is a failed test")]

use std::time::{Duration, Instant};

use e2e::world::{Heard, Size};
use e2e::{Server, World};

/// How many kills the three tests share, unless `E2E_KILLS` says otherwise.
const KILLS: u64 = 100;
/// No restart may take longer than this, however slow the disk and unoptimised the binary: a start writes its journals' next segments.
const RECOVERY: Duration = Duration::from_secs(20);

fn number_from(variable: &str) -> Option<u64> {
    let text = std::env::var(variable).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{variable} must be a number, is `{text}`")))
}

/// With `threads` for requests: 1 does the checkouts, too; 2 leave them to a thread of their own; 0 is what the machine suggests.
fn kill_at_random_moments(protocol: &str, threads: &str, share: u64) {
    let seed = number_from("E2E_SEED").unwrap_or_else(|| fastrand::u64(..));
    let kills = number_from("E2E_KILLS").unwrap_or(KILLS).saturating_sub(share).div_ceil(3);
    println!("{protocol}: {kills} kills, E2E_SEED={seed}");
    let mut random = fastrand::Rng::with_seed(seed.wrapping_add(share));
    let mut server = Server::start(&["--protocol", protocol, "--threads", threads]);
    let mut world = World::seed(&mut server.client(), Size { items: 20, users: 50, orders: 100_000 });
    let mut recoveries = Vec::new();
    let mut killed = 0;
    while killed < kills {
        let moment = Duration::from_millis(random.u64(5..250));
        let address = server.address();
        world.load(address, 8, || {
            std::thread::sleep(moment);
            server.kill();
        });
        killed += 1;
        // Now and then the recovery is killed, too.
        while killed < kills && random.u8(..) < 50 {
            server = server.restart_and_kill(Duration::from_millis(random.u64(1..60)));
            killed += 1;
        }
        server = server.restart();
        recoveries.push(server.started_in());
        world.verify(&server);
    }
    // Those that were left without an answer are asked for again, and everything is looked at once more.
    world.ask_again(&server);
    world.verify_everything(&server);
    recoveries.sort();
    println!(
        "{protocol}: {killed} kills, {} paid, {} refused; recovery took {:?} at the median, {:?} at most",
        world.count(Heard::Paid),
        world.count(Heard::Refused),
        recoveries[recoveries.len() / 2],
        recoveries[recoveries.len() - 1],
    );
    assert!(world.count(Heard::Paid) > 0 && world.count(Heard::Refused) > 0, "there was load of either kind");
    assert!(recoveries[recoveries.len() - 1] < RECOVERY, "{recoveries:?}");
}

#[test]
fn kills_under_two_phase_commit() {
    kill_at_random_moments("2pc", "1", 0);
}

#[test]
fn kills_under_sagas() {
    kill_at_random_moments("saga", "2", 1);
}

#[test]
fn kills_under_the_adaptive_choice() {
    kill_at_random_moments("auto", "0", 2);
}

fn crash_at(protocol: &str, service: &str, point: &str) {
    let mut server = Server::start(&["--protocol", protocol, "--chaos"]);
    let mut client = server.client();
    let mut world = World::seed(&mut client, Size { items: 3, users: 3, orders: 500 });
    let (address, began) = (server.address(), Instant::now());
    world.load(address, 4, || {
        // The load may meet the crash before the word that it is set has left the server.
        if let Ok(answer) =
            client.try_send("POST", &format!("/{service}/fault/set?point={point}&action=crash"), &[], "")
        {
            assert_eq!(answer.status, 200, "{service} {point}: {answer:?}");
        }
        let status = server.wait();
        assert!(!status.success(), "{service} {point}: {status}");
    });
    let lasted = began.elapsed();
    server = server.restart();
    assert!(world.count(Heard::Nothing) > 0, "somebody was cut off");
    world.verify(&server);
    world.ask_again(&server);
    world.load(server.address(), 4, || {});
    world.verify_everything(&server);
    assert_eq!(world.count(Heard::Nothing), 0, "everybody is answered after the restart");
    println!("{protocol} {service} {point}: crashed after {lasted:?}, recovered in {:?}", server.started_in());
}

fn crash_at_every_point(protocol: &str, verbs: &[&str]) {
    for service in ["stock", "payment"] {
        for verb in verbs {
            for moment in ["before", "after"] {
                crash_at(protocol, service, &format!("{moment}_{verb}"));
            }
        }
    }
}

#[test]
fn crashes_at_every_point_of_two_phase_commit() {
    crash_at_every_point("2pc", &["prepare", "commit", "abort"]);
}

#[test]
fn crashes_at_every_point_of_sagas() {
    crash_at_every_point("saga", &["execute", "compensate"]);
}

/// The continuous audit begins anew with every start, looks while checkouts run, and finds nothing.
#[test]
fn the_audit_goes_on_after_every_restart_and_raises_no_false_alarm() {
    let mut server = Server::start(&[]);
    let mut world = World::seed(&mut server.client(), Size { items: 20, users: 50, orders: 20_000 });
    let word = |server: &Server| {
        let last = server.ask_operator("GET", "/admin/audit").json();
        assert_eq!(last["off"], 0, "{last}");
        last
    };
    for _ in 0..4 {
        let address = server.address();
        world.load(address, 8, || {
            let until = Instant::now() + Duration::from_secs(20);
            while word(&server)["runs"].as_u64() < Some(1) {
                assert!(Instant::now() < until, "no pass comes to its end: {}", word(&server));
                std::thread::sleep(Duration::from_millis(20));
            }
            server.kill();
        });
        server = server.restart();
        world.verify(&server);
    }
    let report = server.ask_operator("POST", "/admin/audit").json();
    assert_eq!((&report["off"], &report["users"]), (&0.into(), &50.into()), "{report}");
    let until = Instant::now() + Duration::from_secs(30);
    while word(&server)["complete"] != true {
        assert!(Instant::now() < until, "it is not complete at rest: {}", word(&server));
        std::thread::sleep(Duration::from_millis(50));
    }
    assert!(word(&server)["checked"].as_u64() > Some(70));
}
