//! The audit of one ledger: which account is off, and by how much.

use std::collections::BTreeMap;

use protocol::BranchState;
use serde::{Deserialize, Serialize};

use crate::id::EntityId;
use crate::ledger::Ledger;

/// What is wrong with an account.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Discrepancy {
    /// credited ≠ available + held + settled + debited.
    NotConserved {
        /// The account.
        account: EntityId,
        /// credited less the sum of the rest.
        off_by: i128,
    },
    /// held ≠ the sum over the prepared branches.
    HeldByNobody {
        /// The account.
        account: EntityId,
        /// held less that sum.
        off_by: i128,
    },
    /// Less than nothing is available.
    Overdrawn {
        /// The account.
        account: EntityId,
        /// How much is missing.
        off_by: i128,
    },
}

/// Checks every account. Empty in a sound ledger.
pub fn audit(ledger: &Ledger) -> Vec<Discrepancy> {
    let mut holds: BTreeMap<EntityId, i128> = BTreeMap::new();
    for (id, state) in ledger.open_branches() {
        if state == BranchState::Prepared
            && let Some(branch) = ledger.get_branch(id)
        {
            for entry in &branch.entries {
                *holds.entry(entry.account).or_default() += i128::from(entry.amount);
            }
        }
    }
    let mut found = Vec::new();
    for (id, account) in ledger.accounts() {
        let off_by = account.discrepancy();
        if off_by != 0 {
            found.push(Discrepancy::NotConserved { account: id, off_by });
        }
        let off_by = i128::from(account.held) - holds.remove(&id).unwrap_or_default();
        if off_by != 0 {
            found.push(Discrepancy::HeldByNobody { account: id, off_by });
        }
        if account.available < 0 {
            found.push(Discrepancy::Overdrawn { account: id, off_by: -i128::from(account.available) });
        }
    }
    found.extend(holds.into_iter().map(|(account, amount)| Discrepancy::HeldByNobody { account, off_by: -amount }));
    found
}
