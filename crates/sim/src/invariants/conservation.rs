//! Nothing appears and nothing vanishes: `credited = available + held + settled + debited` in every account, `held` is what the
//! prepared branches hold, and nothing is overdrawn. Source: the table in the `ledger` crate; the rule is the ledger's own audit.

use ledger::Ledger;
use ledger::audit::audit;

use crate::oracle::{Check, Violation};

/// After every change of a ledger.
pub(crate) fn ledger(name: &str, ledger: &Ledger) -> Check {
    match audit(ledger).first() {
        None => Ok(()),
        Some(found) => Err(Violation::new("conservation", format!("{name}: {found:?}"))),
    }
}
