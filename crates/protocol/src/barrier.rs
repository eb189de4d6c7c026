//! The barrier: what a command does to a branch, given what the branch is.
//!
//! | state     | Prepare           | Commit  | Abort     | Execute           | Compensate    | Inquire     |
//! |-----------|-------------------|---------|-----------|-------------------|---------------|-------------|
//! | none      | hold, or refuse   | repair  | → Aborted | charge, or refuse | → Compensated | → Aborted   |
//! | Prepared  | ok                | capture | release   | violation         | violation     | Prepared    |
//! | Committed | ok                | ok      | violation | violation         | violation     | Committed   |
//! | Aborted   | refused           | violation | ok      | refused           | ok            | Aborted     |
//! | Executed  | violation         | violation | violation | ok              | restore       | Executed    |
//! | Compensated | refused         | violation | ok      | refused           | ok            | Compensated |
//! | forgotten | refused (expired) | ok      | ok        | refused (expired) | ok            | Aborted     |
//!
//! The caller looks the branch up *before* any business predicate, asks [`barrier`], and carries the action out in one atomic
//! write. After the "sub-transaction barrier" of DTM (duplicate, empty and dangling compensation), extended by the two-phase
//! commands, by the inquiry that poisons, and by the floor under which branches are forgotten.

use crate::message::{BranchState, Verb};
use crate::simulation::{Mutation, mutated};

/// What is remembered of a branch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Memory {
    /// Nothing came for it yet.
    None,
    /// Nothing is remembered, and its transaction is too old for anything to begin: it was final, or never was.
    Forgotten,
    /// It is in this state.
    Known(BranchState),
}

/// What the participant must do, atomically with remembering the new state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Hold the entries and become Prepared; or, if a business rule says no, become Aborted and refuse.
    Hold,
    /// Take the entries at once and become Executed; or, if a business rule says no, become Aborted and refuse.
    Charge,
    /// Turn what is held into settled and become Committed.
    Capture,
    /// The prepared branch is gone although the decision is to commit: capture from the command's payload, become Committed, alarm.
    Repair,
    /// Give back what is held and become Aborted.
    Release,
    /// Give back what was settled and become Compensated.
    Restore,
    /// Change no account; remember the branch in this state, so that whatever comes late finds it.
    Poison(BranchState),
    /// Change nothing; answer that the branch is in this state.
    Repeat(BranchState),
    /// Change nothing; refuse, with the reason remembered.
    Refuse,
    /// Change nothing; refuse, for the transaction is older than what is remembered.
    RefuseExpired,
    /// Change nothing; answer that the command contradicts the state.
    Violate(BranchState),
}

/// The table above.
pub fn barrier(memory: Memory, verb: Verb) -> Action {
    use Action::{Capture, Charge, Hold, Poison, Refuse, RefuseExpired, Release, Repair, Repeat, Restore, Violate};
    use BranchState::{Aborted, Committed, Compensated, Executed, Prepared};
    use Verb::{Abort, Commit, Compensate, Execute, Inquire, Prepare};

    crate::simulation::mark_barrier(memory, verb);
    match memory {
        Memory::None => match verb {
            Prepare => Hold,
            Commit => Repair,
            Abort if mutated(Mutation::AbortOfNothingLeavesNoPoison) => Repeat(Aborted),
            Inquire if mutated(Mutation::InquiryLeavesNoPoison) => Repeat(Aborted),
            Compensate if mutated(Mutation::CompensationOfNothingLeavesNoPoison) => Repeat(Compensated),
            Abort | Inquire => Poison(Aborted),
            Execute => Charge,
            Compensate => Poison(Compensated),
        },
        Memory::Forgotten => match verb {
            Prepare | Execute => RefuseExpired,
            Commit => Repeat(Committed),
            Abort | Inquire => Repeat(Aborted),
            Compensate => Repeat(Compensated),
        },
        Memory::Known(Prepared) => match verb {
            Prepare | Inquire => Repeat(Prepared),
            Commit => Capture,
            Abort => Release,
            Execute | Compensate => Violate(Prepared),
        },
        Memory::Known(Committed) => match verb {
            Commit if mutated(Mutation::RepeatedCommitCapturesAgain) => Repair,
            Prepare | Commit | Inquire => Repeat(Committed),
            Abort | Execute | Compensate => Violate(Committed),
        },
        Memory::Known(Aborted) => match verb {
            Prepare if mutated(Mutation::LatePrepareHoldsAfterAbort) => Hold,
            Prepare | Execute => Refuse,
            Commit => Violate(Aborted),
            Abort | Compensate | Inquire => Repeat(Aborted),
        },
        Memory::Known(Executed) => match verb {
            Execute if mutated(Mutation::ExecuteChargesAgain) => Charge,
            Execute | Inquire => Repeat(Executed),
            Compensate => Restore,
            Prepare | Commit | Abort => Violate(Executed),
        },
        Memory::Known(Compensated) => match verb {
            Prepare | Execute => Refuse,
            Commit => Violate(Compensated),
            Abort | Compensate | Inquire => Repeat(Compensated),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The table as the documentation prints it, so that a changed rule shows as a changed table.
    #[test]
    fn the_table_is_the_documented_one() {
        let memories = [
            ("none", Memory::None),
            ("prepared", Memory::Known(BranchState::Prepared)),
            ("committed", Memory::Known(BranchState::Committed)),
            ("aborted", Memory::Known(BranchState::Aborted)),
            ("executed", Memory::Known(BranchState::Executed)),
            ("compensated", Memory::Known(BranchState::Compensated)),
            ("forgotten", Memory::Forgotten),
        ];
        let mut table = String::new();
        for (name, memory) in memories {
            table.push_str(name);
            for verb in Verb::ALL {
                table.push_str(&format!(" | {:?}", barrier(memory, verb)));
            }
            table.push('\n');
        }
        assert_eq!(
            table,
            "\
none | Hold | Repair | Poison(Aborted) | Charge | Poison(Compensated) | Poison(Aborted)
prepared | Repeat(Prepared) | Capture | Release | Violate(Prepared) | Violate(Prepared) | Repeat(Prepared)
committed | Repeat(Committed) | Repeat(Committed) | Violate(Committed) | Violate(Committed) | Violate(Committed) | Repeat(Committed)
aborted | Refuse | Violate(Aborted) | Repeat(Aborted) | Refuse | Repeat(Aborted) | Repeat(Aborted)
executed | Violate(Executed) | Violate(Executed) | Violate(Executed) | Repeat(Executed) | Restore | Repeat(Executed)
compensated | Refuse | Violate(Compensated) | Repeat(Compensated) | Refuse | Repeat(Compensated) | Repeat(Compensated)
forgotten | RefuseExpired | Repeat(Committed) | Repeat(Aborted) | RefuseExpired | Repeat(Compensated) | Repeat(Aborted)
"
        );
    }
}
