//! What must be true: everything promised and everything durable so far, held against what happens next.
//!
//! The oracle sees the world from above: every command as it is applied, every flush, every answer. It remembers what the system
//! itself may forget. Each rule is one file of [`crate::invariants`]; the oracle only remembers, and calls them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use ledger::{EntityId, Ledger};
use protocol::{BranchId, Outcome, Transaction, TransactionId};
use shop::checkout::Claim;
use shop::orders::OrderBook;

use crate::invariants::idempotency::Keyed;

/// A rule that was broken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// Which rule: the name of its file in `invariants`.
    pub invariant: &'static str,
    /// What happened, with ids.
    pub what: String,
}

impl Violation {
    pub(crate) fn new(invariant: &'static str, what: String) -> Self {
        Self { invariant, what }
    }
}

/// The result of a check.
pub(crate) type Check = Result<(), Violation>;

/// What was promised or is known of one transaction.
#[derive(Debug, Default, Clone)]
pub(crate) struct Known {
    /// As it was handed to the log.
    pub(crate) transaction: Option<Arc<Transaction>>,
    /// The order it is for.
    pub(crate) order: Option<EntityId>,
    /// What was durably decided, or durably told to a participant: whether to commit.
    pub(crate) decided: Option<bool>,
    /// What a client was told: whether it took effect.
    pub(crate) told: Option<bool>,
}

/// What the oracle remembers.
#[derive(Debug, Default)]
pub(crate) struct Oracle {
    pub(crate) known: BTreeMap<TransactionId, Known>,
    /// The transaction that paid each order.
    pub(crate) paid_by: BTreeMap<EntityId, TransactionId>,
    /// Branches that an operator has durably settled by hand.
    pub(crate) by_hand: BTreeSet<BranchId>,
    /// What is known of the idempotency keys.
    pub(crate) keys: BTreeMap<Arc<str>, Keyed>,
    /// All that ever came in, durably: stock, payment.
    pub(crate) credited: [i128; 2],
    /// Answers given, by status: for the report.
    pub(crate) answers: BTreeMap<&'static str, u64>,
}

/// The three databases as they are now.
pub(crate) struct View<'a> {
    /// The ledgers as they are readable: stock, payment.
    pub(crate) ledgers: [&'a Ledger; 2],
    /// What is durable of them.
    pub(crate) durable_ledgers: [&'a Ledger; 2],
    /// The orders as they are readable.
    pub(crate) orders: &'a OrderBook,
}

impl Oracle {
    /// A transaction is on its way to the log.
    pub(crate) fn staging(&mut self, transaction: &Arc<Transaction>) {
        let known = self.known.entry(transaction.id).or_default();
        known.order = Claim::decode(&transaction.context).ok().map(|claim| claim.order);
        known.transaction = Some(Arc::clone(transaction));
    }

    pub(crate) fn decided(&self, id: TransactionId) -> Option<bool> {
        self.known.get(&id).and_then(|known| known.decided)
    }
}

/// What an outcome says: whether the transaction took effect; `None` if it says nothing.
pub(crate) fn tells(outcome: &Outcome) -> Option<bool> {
    match outcome {
        Outcome::Committed => Some(true),
        Outcome::Refused { .. } | Outcome::Conflict(_) | Outcome::RolledBack { .. } => Some(false),
        Outcome::InDoubt => None,
    }
}
