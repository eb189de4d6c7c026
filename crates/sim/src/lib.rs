//! The simulator: one seed drives the whole of Settle through faults, on one thread, and everything that is promised is checked.
//!
//! ```text
//!            Conditions ◄── Random(seed) ──► faults: crashes, stalls, cuts, slow disks, skewed clocks
//!                                               │
//!   clients ──checkout──► instance 0..2 ───────►│ network: delays, losses, doubles, overtaking
//!      │                  HTTP layer (checkout) │
//!      │                  orchestrator::Engine ─┼─► Database<OrderBook>   orders and the transaction log
//!      └──addItem, create───────────────────────┼─► Database<Ledger> × 2  stock, payment
//!                                               │      applied │ journal │ durable
//!                         Schedule: what happens next         ▼
//!                         History: one line an event       Oracle ──► invariants/*: the first one broken ends the run
//! ```
//!
//! Engine, coordinators, barrier, ledgers, order book and log are the production code. Simulated are only what they stand on: the
//! engine's ports (`wires`), the disks (`database`), the network, the clocks, and the thin HTTP layer (`checkout`).
//!
//! | file                        | is                                                                    |
//! |-----------------------------|-----------------------------------------------------------------------|
//! | `world`, `schedule`     | the machines, and the loop that makes one thing happen after another  |
//! | `instance`, `wires`     | an engine, its ports, the calls it waits for                          |
//! | `storage`, `database`   | the databases: commands, flushes, sweeps, crashes                     |
//! | `network`, `faults`     | what gets lost and what breaks, at random and at the worst moments    |
//! | `client`, `checkout`    | who wants what                                                        |
//! | `cashier`, `seeding`    | deposits under idempotency keys; `batch_init`                         |
//! | `operator`              | who settles by hand what is stuck                                     |
//! | `oracle`, `invariants`    | what must be true                                                     |
//! | `conditions`, `random`  | what a run is like: all of it from the seed                           |
//! | [`mutations`]               | deliberate bugs: the simulator's own test                             |
//!
//! A run has two phases. While faults last, no rule may be broken (safety). Then they stop, everything restarts, and everything must be
//! settled within 90 simulated seconds (liveness), with books that balance.

mod cashier;
mod checkout;
mod client;
mod conditions;
mod database;
mod faults;
mod history;
mod instance;
mod invariants;
pub mod mutations;
mod network;
mod operator;
mod oracle;
mod random;
#[cfg(test)]
mod regressions;
mod schedule;
mod seeding;
mod storage;
mod wires;
mod world;

use std::collections::BTreeMap;

use protocol::simulation::{Mutation, activate};

pub use conditions::Conditions;
pub use oracle::Violation;
pub use random::Random;
pub use world::Ending;

/// A run, over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Run {
    /// How it ended.
    pub ending: Ending,
    /// One line an event, if it was to be kept.
    pub history: String,
    /// How often clients were told what.
    pub answers: BTreeMap<&'static str, u64>,
}

/// Runs one seed, with a deliberate bug if one is named. `record`: keep the history.
pub fn run(seed: u64, mutation: Option<Mutation>, record: bool) -> Run {
    run_with(seed, mutation, record, |_| {})
}

/// Runs one seed under adjusted conditions.
pub fn run_with(seed: u64, mutation: Option<Mutation>, record: bool, adjust: impl FnOnce(&mut Conditions)) -> Run {
    activate(mutation);
    let mut world = world::World::new(seed, adjust, record);
    let ending = world.run();
    activate(None);
    Run { ending, answers: world.tally(), history: world.history.take() }
}

/// A seed from the wall clock: for runs that are to be new every time. It is printed, and replays like any other.
pub fn fresh_seed() -> u64 {
    let since_epoch = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    // Below 2^53, so that it survives every tool that prints it.
    (since_epoch.as_nanos() as u64) >> 11
}
