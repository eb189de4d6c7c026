//! What is durably decided never changes, and no two are ever told different decisions. Source: "the log is where a decision becomes
//! one: a compare-and-set per transaction".

use protocol::TransactionId;

use crate::oracle::{Check, Oracle, Violation};

/// A decision was found durable, or was told to someone as durable.
pub(crate) fn seen(oracle: &mut Oracle, id: TransactionId, commit: bool, by: &str) -> Check {
    let known = oracle.known.entry(id).or_default();
    let word = |commit| if commit { "Commit" } else { "Abort" };
    if known.decided.is_some_and(|earlier| earlier != commit) {
        let what = format!("{id} was decided {}, and then {by} saw {}", word(!commit), word(commit));
        return Err(Violation::new("one_decision", what));
    }
    if known.told.is_some_and(|told| told != commit) {
        let what = format!("a client was told {} of {id}, and then {by} saw {}", word(!commit), word(commit));
        return Err(Violation::new("no_lost_answer", what));
    }
    known.decided = Some(commit);
    Ok(())
}
