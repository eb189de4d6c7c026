//! How soon everything is settled behind a crash.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, Instant};

use e2e::System;
use e2e::client::PATIENCE;
use e2e::world::Shop as _;

/// A lease, its renewal, and some seconds on a busy machine. A branch that nobody tells of is asked about when it is 10 s old.
const SOON: Duration = Duration::from_secs(9);

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
