//! The simulator's own test: deliberate bugs, each of which it must catch.

use protocol::simulation::Mutation;

use crate::{Ending, run};

/// How many seeds are tried before a bug counts as not caught. The rarest, an order that is claimed as it was seen before its database lost it, shows
/// in one seed of some twenty thousand.
pub const SEEDS: u64 = 150_000;

/// How a deliberate bug was caught.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caught {
    /// How many seeds it took.
    pub seeds: u64,
    /// By which rule; `settling` if something was not settled in time.
    pub by: &'static str,
    /// What was found.
    pub what: String,
}

/// Looks for the first of so many seeds that catches a deliberate bug.
pub fn hunt(mutation: Mutation, seeds: u64) -> Option<Caught> {
    (0..seeds).find_map(|seed| {
        let (by, what) = match run(seed, Some(mutation), false).ending {
            Ending::Clean => return None,
            Ending::Unsafe(violation) => (violation.invariant, violation.what),
            Ending::Stuck(what) => ("settling", what),
        };
        Some(Caught { seeds: seed + 1, by, what })
    })
}
