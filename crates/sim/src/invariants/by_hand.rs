//! What an operator has settled by hand is never forgotten by the log: the participant may have been away, still hold the branch, and come
//! to ask. Source: "what an operator settled by hand is never forgotten", in `docs/protocol`.

use protocol::BranchId;
use protocol::log::LogState;

use crate::oracle::{Check, Oracle, Violation};

/// A resolution has become durable.
pub(crate) fn settled(oracle: &mut Oracle, branch: BranchId) {
    oracle.by_hand.insert(branch);
}

/// After the log has forgotten, and at rest.
pub(crate) fn kept(oracle: &Oracle, log: &LogState) -> Check {
    let kept = |branch: &&BranchId| log.get(branch.transaction).is_some_and(|record| !record.resolutions.is_empty());
    match oracle.by_hand.iter().find(|branch| !kept(branch)) {
        None => Ok(()),
        Some(branch) => {
            Err(Violation::new("by_hand", format!("branch {branch} was settled by hand, and the log has forgotten it")))
        }
    }
}
