//! What is read behind an answer shows what the answer said. After "committed" nothing of it is available any more; after a refusal
//! that did not run out of its release wait, nothing of it is held. Source: `release_wait` in [`protocol::Pacing`].

use protocol::{BranchState, TransactionId};

use crate::invariants::atomicity::{branch_in, branch_not_in};
use crate::oracle::{Check, Oracle, View, Violation};

/// An engine answers. `waited_out`: so long after its first release that it need not wait any more, or it released nothing itself.
pub(crate) fn answered(
    oracle: &Oracle,
    view: &View<'_>,
    id: TransactionId,
    took_effect: bool,
    waited_out: bool,
) -> Check {
    use BranchState::{Committed, Executed, Prepared};
    let Some(known) = oracle.known.get(&id) else { return Ok(()) };
    let found = if took_effect {
        branch_not_in(view.durable_ledgers, known, id, &[Prepared, Committed, Executed])
            .map(|(branch, state)| format!("{id} was answered as committed while its branch {branch} is {state:?}"))
    } else if waited_out {
        None
    } else {
        branch_in(view.ledgers, known, id, &[Prepared, Executed])
            .filter(|(branch, _)| !oracle.by_hand.contains(branch))
            .map(|(branch, state)| format!("{id} was answered as rolled back while its branch {branch} is {state:?}"))
    };
    found.map_or(Ok(()), |what| Err(Violation::new("read_your_writes", what)))
}
