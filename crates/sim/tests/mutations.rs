//! The simulator catches what it is there for.

use protocol::simulation::Mutation;
use sim::mutations::{SEEDS, hunt};

#[test]
fn every_deliberate_bug_is_caught() {
    for mutation in Mutation::ALL {
        assert!(hunt(mutation, SEEDS).is_some(), "{mutation:?} lives through {SEEDS} seeds");
    }
}
