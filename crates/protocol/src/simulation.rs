//! Switches for the simulator: deliberate bugs, and marks that show which rare paths a run has reached.
//!
//! Without the feature `simulation` every function here is an empty constant and costs nothing; production never compiles it in. The tests of the
//! whole workspace are built once, with it: there it is off on every thread that has not called `activate`.

use crate::barrier::Memory;
use crate::message::Verb;

/// A deliberate bug, each of which the simulator must catch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Mutation {
    /// Barrier: an abort that finds nothing leaves nothing, so that a late prepare holds for ever.
    AbortOfNothingLeavesNoPoison,
    /// Barrier: an inquiry that finds nothing leaves nothing, so that a late prepare makes recovery's abort wrong.
    InquiryLeavesNoPoison,
    /// Barrier: a compensation that finds nothing leaves nothing, so that a late execute stays.
    CompensationOfNothingLeavesNoPoison,
    /// Barrier: a repeated commit captures again.
    RepeatedCommitCapturesAgain,
    /// Barrier: a prepare that comes after the abort holds.
    LatePrepareHoldsAfterAbort,
    /// Barrier: a repeated execute charges again.
    ExecuteChargesAgain,
    /// Ledger: the business rule is asked before the barrier.
    PredicateBeforeBarrier,
    /// Ledger: a prepared branch is released by a time-out.
    ReleaseByTimeout,
    /// Ledger: the floor rises over branches that are not final.
    FloorRisesOverOpenBranches,
    /// Coordinator: commits before the stage is durable.
    CommitBeforeStageIsDurable,
    /// Coordinator: sends aborts, and answers, on a deadline before the decision is durable.
    AbortBeforeIrrevocable,
    /// Coordinator: takes a missing vote for a yes.
    UnknownVoteIsYes,
    /// Coordinator: takes an unknown for a final no, and never releases that branch.
    UnknownIsNo,
    /// Saga: answers before the commit decision is durable.
    SagaAnswersBeforeDurable,
    /// Saga: compensates only what was surely done.
    CompensatesOnlyWhatIsKnown,
    /// Saga recovery: aborts with the two-phase command.
    SagaAbortedWithTwoPhaseCommand,
    /// Coordinator: retries exhausted are called finished.
    ExhaustedIsFinished,
    /// Log: decides whatever stands and whoever asks. (With the fence alone, no second decision ever comes: the two guard each other.)
    DecideWithoutCompareAndSet,
    /// Log: does not check the epoch of an append.
    UnfencedAppend,
    /// Log: asked about a transaction it doesn't know, says aborted but leaves no tombstone.
    NoTombstone,
    /// Recovery: takes over transactions whose owner's lease stands.
    TakesOverTheLiving,
    /// Recovery: guesses commit when someone is out of reach.
    RecoveryGuesses,
    /// Log: forgets what an operator has settled by hand like anything else, while the branch may still come and ask.
    ForgetsWhatWasResolved,
    /// Log: what an operator has settled by hand is remembered for good in memory, but no longer after a restart from a snapshot.
    ResolvedIsNotInSnapshots,
    /// Ledger and orders: a request that is repeated under its key is carried out again.
    KeyedRepeatChangesAgain,
    /// Ledger and orders: a snapshot holds no idempotency keys.
    KeysAreNotInSnapshots,
    /// Ledger: accounts are replaced while branches hold some of them.
    ReplacesHeldAccounts,
    /// Orders: orders are replaced while transactions are open.
    ReplacesClaimedOrders,
    /// Orders: what replaced orders had paid is not remembered.
    ReplacedOrdersNeverPaid,
    /// Shop: a checkout claims an order without looking whether it changed.
    ClaimIgnoresVersion,
    /// Shop: an order is claimed that was seen before the database lost it, and something else has its version.
    ClaimOutlivesConnection,
    /// Shop: a claim expires, and the next checkout charges again.
    ClaimExpires,
    /// Shop: the order is marked paid in a write of its own behind the decision.
    PaidApartFromDecision,
}

impl Mutation {
    /// Every mutation.
    pub const ALL: [Self; 33] = [
        Self::AbortOfNothingLeavesNoPoison,
        Self::InquiryLeavesNoPoison,
        Self::CompensationOfNothingLeavesNoPoison,
        Self::RepeatedCommitCapturesAgain,
        Self::LatePrepareHoldsAfterAbort,
        Self::ExecuteChargesAgain,
        Self::PredicateBeforeBarrier,
        Self::ReleaseByTimeout,
        Self::FloorRisesOverOpenBranches,
        Self::CommitBeforeStageIsDurable,
        Self::AbortBeforeIrrevocable,
        Self::UnknownVoteIsYes,
        Self::UnknownIsNo,
        Self::SagaAnswersBeforeDurable,
        Self::CompensatesOnlyWhatIsKnown,
        Self::SagaAbortedWithTwoPhaseCommand,
        Self::ExhaustedIsFinished,
        Self::DecideWithoutCompareAndSet,
        Self::UnfencedAppend,
        Self::NoTombstone,
        Self::TakesOverTheLiving,
        Self::RecoveryGuesses,
        Self::ForgetsWhatWasResolved,
        Self::ResolvedIsNotInSnapshots,
        Self::KeyedRepeatChangesAgain,
        Self::KeysAreNotInSnapshots,
        Self::ReplacesHeldAccounts,
        Self::ReplacesClaimedOrders,
        Self::ReplacedOrdersNeverPaid,
        Self::ClaimIgnoresVersion,
        Self::ClaimOutlivesConnection,
        Self::ClaimExpires,
        Self::PaidApartFromDecision,
    ];
}

#[cfg(feature = "simulation")]
mod switched {
    use std::cell::{Cell, RefCell};
    use std::collections::BTreeMap;

    use super::Mutation;

    thread_local! {
        static ACTIVE: Cell<Option<Mutation>> = const { Cell::new(None) };
        static SIMULATES: Cell<bool> = const { Cell::new(false) };
        static MARKS: RefCell<BTreeMap<String, u64>> = const { RefCell::new(BTreeMap::new()) };
    }

    /// Says that this thread simulates, with one deliberate bug or none: from now on it counts marks.
    pub fn activate(mutation: Option<Mutation>) {
        ACTIVE.set(mutation);
        SIMULATES.set(true);
    }

    /// Whether this thread counts marks.
    pub(crate) fn simulates() -> bool {
        SIMULATES.get()
    }

    /// Whether this deliberate bug is on.
    pub fn mutated(mutation: Mutation) -> bool {
        ACTIVE.get() == Some(mutation)
    }

    /// Counts that a rare path was reached.
    pub fn mark(name: &str) {
        if !simulates() {
            return;
        }
        MARKS.with_borrow_mut(|marks| match marks.get_mut(name) {
            Some(count) => *count += 1,
            None => {
                marks.insert(name.to_owned(), 1);
            }
        });
    }

    /// The marks reached on this thread since the last call, with their counts.
    pub fn take_marks() -> BTreeMap<String, u64> {
        MARKS.take()
    }
}

#[cfg(feature = "simulation")]
pub(crate) use switched::simulates;
#[cfg(feature = "simulation")]
pub use switched::{activate, mark, mutated, take_marks};

#[cfg(not(feature = "simulation"))]
pub(crate) const fn simulates() -> bool {
    false
}

/// Whether a deliberate bug is on: never, outside of the simulator.
#[cfg(not(feature = "simulation"))]
#[inline(always)]
pub const fn mutated(_: Mutation) -> bool {
    false
}

/// Counts that a rare path was reached: nothing, outside of the simulator.
#[cfg(not(feature = "simulation"))]
#[inline(always)]
pub const fn mark(_: &str) {}

/// Marks a cell of the barrier's table as reached.
#[inline(always)]
pub(crate) fn mark_barrier(memory: Memory, verb: Verb) {
    if simulates() {
        let row = match memory {
            Memory::None => "none".to_owned(),
            Memory::Forgotten => "forgotten".to_owned(),
            Memory::Known(state) => format!("{state:?}").to_lowercase(),
        };
        mark(&format!("barrier.{row}.{verb}"));
    }
}
