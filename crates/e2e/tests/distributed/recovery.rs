//! How soon everything is settled behind a crash.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, Instant};

use e2e::System;
use e2e::client::PATIENCE;
use e2e::gate::Gate;
use e2e::world::Shop as _;

use super::joining::check_out_until_payment_waits;
use super::operators::fine;

/// A lease, its renewal, and some seconds on a busy machine. A branch that nobody tells of is asked about when it is 10 s old.
const SOON: Duration = Duration::from_secs(9);

/// A lease is renewed every 1.5 s for 5 s: at least so much of it is left when its owner dies.
const LEFT_OF_A_LEASE: Duration = Duration::from_secs(3);

/// Prepared at stock and payment, and never staged: the order instance and its database die at the same moment. Nobody but the participants knows of
/// these branches; they waited for a minute, since those that were younger than a lease when an instance was taken over were not asked about.
#[test]
fn what_a_killed_instance_prepared_and_did_not_stage_is_released_soon() {
    let mut system = System::start(2, &["--protocol", "2pc", "--chaos"]);
    let mut client = system.client();
    client.done("/stock/batch_init/10/1000000/1");
    client.done("/payment/batch_init/1000/1000000");
    client.done("/orders/batch_init/50000/10/1000/1");
    let (over, answered, mut victim) = (AtomicBool::new(false), AtomicU32::new(0), system.orders().remove(0));
    std::thread::scope(|scope| {
        for part in 0..32_u32 {
            let (over, answered, victim) = (&over, &answered, victim.client());
            scope.spawn(move || {
                let mut client = victim;
                for order in part * 1_000.. {
                    if over.load(Ordering::Relaxed) {
                        break;
                    }
                    if client.try_send("POST", &format!("/orders/checkout/{order}"), &[], "").is_ok() {
                        answered.fetch_add(1, Ordering::Relaxed);
                    }
                }
            });
        }
        let until = Instant::now() + PATIENCE;
        while answered.load(Ordering::Relaxed) < 500 {
            assert!(Instant::now() < until, "only {answered:?} were answered");
        }
        over.store(true, Ordering::Relaxed);
        // What was sent to the database and not carried out is lost with it: what is prepared from now on is not staged.
        system.databases[0].process().freeze().unwrap();
        while system.prepared() == 0 {
            assert!(Instant::now() < until, "nothing was prepared");
        }
        victim.kill();
        system.databases[0].kill().unwrap();
    });
    system.route();
    let orphans = system.prepared();
    assert!(orphans > 0, "nothing was under way");
    system.databases[0].restart().unwrap();
    let since = Instant::now();
    while system.prepared() > 0 {
        assert!(since.elapsed() < SOON, "{} of {orphans} branches are held still", system.prepared());
        std::thread::sleep(Duration::from_millis(50));
    }
    println!("{orphans} branches were settled within {:?}", since.elapsed());
}

/// The leader reaches its database and not the broker, and takes over an instance that dies. It could settle nothing of that, and kept it for as long as it was
/// cut off: the customer's money was held, and the order could not be checked out.
#[test]
fn what_a_leader_without_a_broker_takes_over_is_settled_by_another_instance() {
    let mut system = System::start(1, &["--protocol", "2pc", "--chaos"]);
    let gate = Gate::before(system.broker.address().trim_start_matches("nats://").parse().unwrap());
    let cut_off = system.spawn_with(0, "cut-off", &["--set", &format!("nats.url=nats://{}", gate.address())]);
    cut_off.wait_until_it_is_ready();
    let mut client = system.client();
    let (item, user) = (client.new_item(10, 30), client.new_user(100));
    let order = client.new_order(&user, &[(&item, 1)]);
    let waiting = check_out_until_payment_waits(&system, &order);
    // Only what the log has is taken over.
    let transactions = |system: &System| fine(&system.operate("cut-off", &["tx", "list", "--json"]));
    let until = Instant::now() + PATIENCE;
    while transactions(&system).lines().count() != 1 {
        assert!(Instant::now() < until, "it is not staged");
    }
    let killed = Instant::now();
    system.orders().remove(0).kill();
    // By its epoch the last one: the other leads.
    system.add(0, "well");
    waiting.join().unwrap();
    client.done("/payment/fault/clear");
    // The lease of the dead one has not lapsed yet; and the other will have what it takes over for long enough to be seen with it.
    std::thread::sleep(LEFT_OF_A_LEASE.saturating_sub(killed.elapsed()));
    gate.cut();
    let since = Instant::now();
    while !transactions(&system).contains(r#""owner":"cut-off""#) {
        assert!(since.elapsed() < SOON, "{} is not taken over: {}", transactions(&system), cut_off.said());
        std::thread::sleep(Duration::from_millis(20));
    }
    assert_eq!(cut_off.client().try_send("GET", "/health/deep", &[], "").unwrap().status, 503);
    while system.prepared() > 0 {
        assert!(since.elapsed() < 2 * SOON, "{} branches are held still: {}", system.prepared(), cut_off.said());
        std::thread::sleep(Duration::from_millis(50));
    }
    println!("settled {:?} later", since.elapsed());
    assert!(cut_off.said().contains("it is given what this one has not settled"), "{}", cut_off.said());
    let paid = client.get(&format!("/orders/find/{order}")).json()["paid"] == true;
    assert_eq!((client.stock(&item), client.credit(&user)), if paid { (9, 70) } else { (10, 100) });
    // Back, it does what any instance does.
    gate.open();
    cut_off.wait_until_it_is_ready();
    let until = Instant::now() + PATIENCE;
    while cut_off.client().check_out(&order).status != 200 {
        assert!(Instant::now() < until, "{order} is not paid");
        std::thread::sleep(Duration::from_millis(50));
    }
    assert_eq!((client.stock(&item), client.credit(&user)), (9, 70));
    system.audit();
}
