//! The simulator over a fixed set of seeds and over fresh ones, and what the fixed ones reach.

use std::collections::BTreeSet;

use protocol::Verb;
use protocol::simulation::take_marks;
use sim::{Ending, fresh_seed, run};

/// The fixed seeds. Enough of them for every path below to be taken.
const FIXED: u64 = 2_000;
const FRESH: u64 = 500;

/// Runs a seed. How many clients were told that their order is paid.
fn assert_clean(seed: u64) -> u64 {
    let run = run(seed, None, false);
    assert_eq!(run.ending, Ending::Clean, "replay with: cargo run -p sim -- --seed {seed}");
    run.answers.get("paid").copied().unwrap_or_default()
}

/// Cells of the barrier's table that only a bug could reach, and why.
const OUT_OF_REACH: [(&str, &str); 15] = [
    (
        "none.commit",
        "a commit follows a durable decision, and that follows a durable prepare: the store would have lost data",
    ),
    ("prepared.execute", "a transaction has one protocol"),
    ("prepared.compensate", "a transaction has one protocol"),
    ("committed.abort", "the decision is one"),
    ("committed.execute", "a transaction has one protocol"),
    ("committed.compensate", "a transaction has one protocol"),
    ("aborted.commit", "the decision is one, and a refusal or a poison forbids Commit"),
    ("executed.prepare", "a transaction has one protocol"),
    ("executed.commit", "a transaction has one protocol"),
    ("executed.abort", "a transaction has one protocol"),
    ("executed.inquire", "a saga's recovery asks the log only"),
    ("compensated.prepare", "a transaction has one protocol"),
    ("compensated.commit", "a transaction has one protocol"),
    ("compensated.abort", "a transaction has one protocol"),
    ("compensated.inquire", "a saga's recovery asks the log only"),
];

/// Paths outside of the barrier that the fixed seeds must take.
const PATHS: [&str; 34] = [
    "coordinator.dead_letter",
    "ledger.key_repeated",
    "ledger.replaced",
    "log.asked_after_resolution",
    "log.decide_fenced",
    "log.decided_otherwise",
    "log.stage_refused",
    "log.resolved",
    "log.take_over",
    "log.tombstone",
    "orders.claim_refused",
    "orders.key_repeated",
    "orders.replaced",
    "recovery.hands_over",
    "saga.deadline",
    "saga.fenced",
    "saga.refused",
    "saga.resume_backward",
    "saga.resume_decided",
    "saga.resume_forward",
    "saga.stage_refused",
    "saga.stage_unknown",
    "two_phase.deadline",
    "two_phase.fenced",
    "two_phase.inquiry_aborts",
    "two_phase.inquiry_commits",
    "two_phase.refused",
    "two_phase.resume_decided",
    "two_phase.resume_in_doubt",
    "two_phase.stage_refused",
    "two_phase.stage_unknown",
    "barrier.forgotten.prepare",
    "barrier.forgotten.commit",
    "barrier.forgotten.compensate",
];

#[test]
fn the_fixed_seeds_are_clean_and_reach_every_path() {
    take_marks();
    let paid: u64 = (0..FIXED).map(assert_clean).sum();
    assert!(paid > FIXED, "faults must not keep everyone from paying: {paid} did");
    let marks = take_marks();
    let rows = ["none", "prepared", "committed", "aborted", "executed", "compensated", "forgotten"];
    let out_of_reach: BTreeSet<&str> = OUT_OF_REACH.iter().map(|(cell, _)| *cell).collect();
    for cell in rows.iter().flat_map(|row| Verb::ALL.map(|verb| format!("{row}.{verb}"))) {
        let reached = marks.contains_key(&format!("barrier.{cell}"));
        assert_eq!(reached, !out_of_reach.contains(cell.as_str()), "cell {cell} of the barrier: reached: {reached}");
    }
    for path in PATHS {
        assert!(marks.contains_key(path), "{path} was never reached");
    }
    assert!(!marks.contains_key("ledger.repair"), "nothing was ever lost behind an acknowledgement");
}

#[test]
fn fresh_seeds_are_clean() {
    let first = fresh_seed();
    println!("fresh seeds from {first}");
    let paid: u64 = (first..first + FRESH).map(assert_clean).sum();
    assert!(paid > 0, "somebody paid");
}

#[test]
fn the_same_seed_gives_the_same_history_byte_for_byte() {
    let mut different = BTreeSet::new();
    for seed in 0..50 {
        let (once, again) = (run(seed, None, true), run(seed, None, true));
        assert!(once.history.len() > 1_000, "seed {seed}: there is a history");
        assert_eq!(once, again, "seed {seed}");
        assert_eq!(once.ending, run(seed, None, false).ending, "keeping the history changes nothing");
        different.insert(once.history);
    }
    assert_eq!(different.len(), 50, "another seed gives another history");
}
