//! All or nothing. While things move: a branch is captured only under a durable Commit, and never given back under one; a
//! transaction is finished only when every branch is final. At rest: every branch of every transaction is what was decided.
//! Source: "`Commit` follows the durable decision" and the barrier's table in `docs/protocol`.

use ledger::Ledger;
use protocol::{BranchId, BranchState, TransactionId};
use shop::checkout::STOCK;

use crate::oracle::{Check, Known, Oracle, View, Violation};

fn broken(what: String) -> Check {
    Err(Violation::new("atomicity", what))
}

/// A branch became something else.
pub(crate) fn moved(oracle: &Oracle, id: BranchId, before: Option<BranchState>, after: Option<BranchState>) -> Check {
    use BranchState::{Aborted, Committed, Compensated, Executed, Prepared};
    if before == after {
        return Ok(());
    }
    match (before, after, oracle.decided(id.transaction)) {
        (Some(Prepared), Some(Aborted), Some(true)) | (Some(Executed), Some(Compensated), Some(true)) => {
            broken(format!("branch {id} was given back although its transaction is decided Commit"))
        }
        (_, Some(Committed), decided) if decided != Some(true) => {
            broken(format!("branch {id} was captured without a durable Commit"))
        }
        (Some(Prepared | Executed), None, _) => broken(format!("branch {id} was open and is forgotten")),
        _ => Ok(()),
    }
}

/// Which of the two ledgers keeps a step.
fn ledger_of<'a>(ledgers: [&'a Ledger; 2], known: &Known, step: u8) -> &'a Ledger {
    let service = known.transaction.as_ref().and_then(|tx| tx.steps.get(usize::from(step))).map(|step| step.service);
    ledgers[usize::from(service != Some(STOCK))]
}

fn states<'a>(
    ledgers: [&'a Ledger; 2],
    known: &'a Known,
    id: TransactionId,
) -> impl Iterator<Item = (BranchId, Option<BranchState>, bool)> + 'a {
    let positions = known.transaction.iter().flat_map(|transaction| transaction.positions());
    positions.map(move |step| {
        let branch = BranchId { transaction: id, step };
        let ledger = ledger_of(ledgers, known, step);
        (branch, ledger.get_branch(branch).map(|found| found.state), id.birth() <= ledger.floor())
    })
}

/// The branches of a transaction that neither have nor hold anything, where `wanted` are those states which do.
pub(crate) fn branch_not_in(
    ledgers: [&Ledger; 2],
    known: &Known,
    id: TransactionId,
    wanted: &[BranchState],
) -> Option<(BranchId, Option<BranchState>)> {
    states(ledgers, known, id)
        .find(|(_, state, forgotten)| match state {
            Some(state) => !wanted.contains(state),
            None => !forgotten,
        })
        .map(|(branch, state, _)| (branch, state))
}

/// The first branch of a transaction that is in one of these states.
pub(crate) fn branch_in(
    ledgers: [&Ledger; 2],
    known: &Known,
    id: TransactionId,
    unwanted: &[BranchState],
) -> Option<(BranchId, BranchState)> {
    states(ledgers, known, id)
        .find_map(|(branch, state, _)| Some((branch, state?)).filter(|(_, state)| unwanted.contains(state)))
}

/// The log durably calls a transaction finished.
pub(crate) fn finished(oracle: &Oracle, view: &View<'_>, id: TransactionId) -> Check {
    let Some(known) = oracle.known.get(&id) else { return Ok(()) };
    let unwanted: &[BranchState] = match known.decided {
        Some(true) => &[BranchState::Prepared, BranchState::Aborted, BranchState::Compensated],
        _ => &[BranchState::Prepared, BranchState::Executed, BranchState::Committed],
    };
    // What an operator has settled by hand counts as final, whatever the branch is: it will come and ask.
    let open = |(branch, state): &(BranchId, BranchState)| unwanted.contains(state) && !oracle.by_hand.contains(branch);
    let found =
        states(view.durable_ledgers, known, id).find_map(|(branch, state, _)| Some((branch, state?)).filter(open));
    match found {
        None => Ok(()),
        Some((branch, state)) => broken(format!("{id} is called finished, but its branch {branch} is {state:?}")),
    }
}

/// Everything is settled.
pub(crate) fn at_rest(oracle: &Oracle, view: &View<'_>) -> Check {
    use BranchState::{Committed, Executed, Prepared};
    for (&id, known) in &oracle.known {
        if known.decided == Some(true) {
            if let Some((branch, state)) = branch_not_in(view.ledgers, known, id, &[Committed, Executed]) {
                return broken(format!("{id} is committed, but its branch {branch} is {state:?}"));
            }
        } else if let Some((branch, state)) = branch_in(view.ledgers, known, id, &[Prepared, Committed, Executed]) {
            return broken(format!("{id} is not committed, but its branch {branch} is {state:?}"));
        }
    }
    Ok(())
}
