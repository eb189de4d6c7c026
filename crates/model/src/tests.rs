//! The check in small, and the proof that it can fail: every deliberate bug within its reach must yield a counterexample.

use protocol::simulation::Mutation;

use crate::configuration::{Configuration, Faults, Kind};
use crate::model::Checked;
use crate::report::check;

fn none() -> Faults {
    Faults::default()
}

fn one_crash() -> Faults {
    Faults { process_crashes: 1, ..none() }
}

#[track_caller]
fn holds(configuration: Configuration) {
    let name = configuration.to_string();
    let verdict = check(Checked::new(configuration));
    assert!(verdict.failed.is_empty(), "{name}: {:?}; see `cargo run -p model`", verdict.failed);
    assert!(verdict.unique > 100, "{name}: {} states are hardly a check", verdict.unique);
}

/// A broken property, for a world in which the code is wrong.
#[track_caller]
fn caught(mutation: Mutation, configuration: Configuration) {
    let name = configuration.to_string();
    let sound = check(Checked::new(configuration.clone()));
    assert!(sound.failed.is_empty(), "{name}, without {mutation:?}: {:?}", sound.failed);
    let verdict = check(Checked { configuration, mutation: Some(mutation) });
    let examples = ["an abort", "a commit", "recovery", "a tombstone", "a dead letter"];
    let broken = verdict.failed.iter().any(|name| !examples.iter().any(|example| name.starts_with(example)));
    assert!(broken, "{name}: {mutation:?} was not caught in {} states; {:?}", verdict.states, verdict.failed);
}

#[test]
fn two_phase_commit_holds() {
    holds(Configuration::new(Kind::TwoPhase, 2).with(one_crash()));
    holds(Configuration::new(Kind::TwoPhase, 2).with(one_crash()).refused());
}

#[test]
fn sagas_hold() {
    for kind in [Kind::SagaParallel, Kind::SagaSequential, Kind::SagaForward] {
        holds(Configuration::new(kind, 2).with(one_crash()));
        holds(Configuration::new(kind, 2).with(one_crash()).refused());
    }
}

/// Each of these was broken when the check first ran.
#[test]
fn what_the_check_has_found_stays_mended() {
    let log_crash = Faults { log_crashes: 1, ..none() };
    let taken_over = Faults { take_overs: 1, ..log_crash.clone() };
    for kind in [Kind::TwoPhase, Kind::SagaParallel, Kind::SagaForward] {
        // A flush that fails before the coordinator hears that its decision is readable.
        holds(Configuration::new(kind, 2).with(log_crash.clone()));
        // A readable decision that was lost, and made otherwise by another owner; or that finds its owner fenced.
        holds(Configuration::new(kind, 1).with(taken_over.clone()));
    }
    // A forward saga's abort that was answered, and lost before it was flushed.
    holds(Configuration::new(Kind::SagaForward, 2).with(one_crash()));
    // A forward saga's refused branch that was forgotten before anybody heard of the refusal.
    holds(Configuration::new(Kind::SagaForward, 2).with(one_crash()).refused().forgets());
}

macro_rules! caught {
    ($($test:ident: $mutation:ident, $configuration:expr;)*) => {$(
        #[test]
        fn $test() {
            caught(Mutation::$mutation, $configuration);
        }
    )*};
}

fn two_phase() -> Configuration {
    Configuration::new(Kind::TwoPhase, 2)
}

fn saga() -> Configuration {
    Configuration::new(Kind::SagaParallel, 2)
}

fn two_crashes() -> Faults {
    Faults { process_crashes: 2, ..none() }
}

fn take_over() -> Faults {
    Faults { take_overs: 1, ..none() }
}

fn one_loss() -> Faults {
    Faults { losses: 1, ..none() }
}

caught! {
    an_abort_of_nothing_leaves_poison: AbortOfNothingLeavesNoPoison, two_phase();
    an_inquiry_leaves_poison: InquiryLeavesNoPoison, two_phase().with(two_crashes());
    a_compensation_of_nothing_leaves_poison: CompensationOfNothingLeavesNoPoison, saga();
    execute_charges_once: ExecuteChargesAgain, saga();
    the_barrier_comes_before_the_predicate: PredicateBeforeBarrier, saga().exactly_enough();
    no_branch_is_released_by_a_timeout: ReleaseByTimeout, two_phase().forgets();
    the_floor_spares_open_branches: FloorRisesOverOpenBranches, two_phase().forgets();
    a_commit_waits_for_the_stage: CommitBeforeStageIsDurable, two_phase().with(one_crash());
    an_abort_is_irrevocable_before_it_is_heard_of: AbortBeforeIrrevocable, two_phase().with(one_crash());
    an_unknown_vote_is_no_yes: UnknownVoteIsYes, two_phase().unknowns();
    an_unknown_vote_is_no_no: UnknownIsNo, two_phase().unknowns().with(one_crash());
    a_saga_answers_a_durable_commit: SagaAnswersBeforeDurable, saga().with(one_crash());
    a_saga_compensates_what_is_unknown: CompensatesOnlyWhatIsKnown, saga();
    a_saga_is_not_aborted_like_two_phase_commit: SagaAbortedWithTwoPhaseCommand, saga();
    exhausted_is_not_finished: ExhaustedIsFinished, two_phase().attempts(1).with(one_loss());
    appends_are_fenced: UnfencedAppend, Configuration::new(Kind::TwoPhase, 1).forgets().with(take_over());
    an_ask_leaves_a_tombstone: NoTombstone, two_phase().eager_asks();
    recovery_does_not_guess: RecoveryGuesses, two_phase().unknowns().with(one_crash());
}
