//! The simulator catches what it is there for.

use protocol::simulation::Mutation;
use sim::mutations::{HARMLESS, SEEDS, hunt};

#[test]
fn every_deliberate_bug_is_caught() {
    for mutation in Mutation::ALL {
        if HARMLESS.iter().all(|(harmless, _)| *harmless != mutation) {
            assert!(hunt(mutation, SEEDS).is_some(), "{mutation:?} lives through {SEEDS} seeds");
        }
    }
}

/// If one of these is caught one day, it is no longer harmless: then it belongs to the others.
#[test]
fn what_is_called_harmless_is() {
    for (mutation, why) in HARMLESS {
        assert_eq!(hunt(mutation, 500), None, "{mutation:?} was called harmless: {why}");
    }
}
