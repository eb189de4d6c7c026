//! Draft.
mod configuration;
mod model;
mod parts;
mod world;
use configuration::{Configuration, Faults, Kind};
use model::Checked;
use stateright::{Checker, Model, HasDiscoveries};
fn main() {
    let f = Faults::default;
    use Kind::*;
    let list = vec![
        Configuration::new("2pc 2", TwoPhase, 2),
        Configuration::new("2pc 2 crash", TwoPhase, 2).with(Faults { process_crashes: 1, ..f() }),
        Configuration::new("2pc 2 crash refused", TwoPhase, 2).refused().with(Faults { process_crashes: 1, ..f() }),
        Configuration::new("2pc 2 take over", TwoPhase, 2).with(Faults { take_overs: 1, ..f() }),
        Configuration::new("2pc 2 loss", TwoPhase, 2).with(Faults { losses: 2, ..f() }),
        Configuration::new("2pc 2 log crash", TwoPhase, 2).with(Faults { log_crashes: 1, ..f() }),
        Configuration::new("2pc 2 log crash takeover", TwoPhase, 2).with(Faults { log_crashes: 1, take_overs:1, ..f() }),
        Configuration::new("saga 2 crash", SagaParallel, 2).with(Faults { process_crashes: 1, ..f() }),
        Configuration::new("saga 2 take over", SagaParallel, 2).with(Faults { take_overs: 1, ..f() }),
        Configuration::new("saga 2 log crash takeover", SagaParallel, 2).with(Faults { log_crashes: 1, take_overs:1, ..f() }),
        Configuration::new("saga 2 log crash takeover", SagaForward, 2).with(Faults { log_crashes: 1, take_overs:1, ..f() }),
        Configuration::new("saga 2 log crash takeover", SagaSequential, 2).refused().with(Faults { log_crashes: 1, take_overs:1, ..f() }),
    ];
    for c in list {
        let name = c.name;
        let t = std::time::Instant::now();
        let checker = Checked::new(c).checker().threads(2).finish_when(HasDiscoveries::AnyFailures).timeout(std::time::Duration::from_secs(20)).spawn_bfs().join();
        println!("{name}: {} {} depth {} {:?}", checker.state_count(), checker.unique_state_count(), checker.max_depth(), t.elapsed());
        let mut d: Vec<_> = checker.discoveries().into_iter().collect();
        d.sort_by_key(|x| x.0);
        for (p, path) in d {
            println!("   {p}");
            if checker.model().properties().iter().any(|q| q.name==p && q.expectation==stateright::Expectation::Always) {
                for a in path.into_actions() { println!("       {a:?}"); }
            }
        }
    }
}
