//! What the continuous audit says of what it found: since when, and which transaction and branch it goes back to.

use std::collections::BTreeMap;

use ledger::EntityId;
use ledger::audit::Discrepancy;
use protocol::limits::MAX_AUDIT_NAMED;
use protocol::{BranchId, BranchState, Name, Timestamp, TransactionId};
use serde::{Deserialize, Serialize};

use crate::audit::Finding;
use crate::checkout::{PAYMENT, STOCK};
use crate::order_store::{OrderDiscrepancy, Sum};

/// Something that is off.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Found {
    /// What.
    pub finding: Finding,
    /// The same in words.
    pub text: String,
    /// When it was first seen. Milliseconds since 1970.
    pub since: Timestamp,
    /// The transactions that it may go back to, as far as they are remembered: what fits best first.
    pub transactions: Vec<Named>,
}

/// A transaction and its branch that something may go back to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Named {
    /// The transaction.
    pub transaction: TransactionId,
    /// The order that it is about, if that is known.
    pub order: Option<EntityId>,
    /// The service that has the branch.
    pub service: Name,
    /// The branch's step.
    pub step: u8,
    /// What the service says that became of the branch: `committed`, `aborted` …; `forgotten`, if it does not say any more; `missing`, if it never was.
    pub branch: String,
    /// Whether this one explains what is off: its branch contradicts the log, or its amount is what is off.
    pub caused: bool,
}

impl Named {
    pub(super) fn of_branch(
        service: Name,
        BranchId { transaction, step }: BranchId,
        order: Option<EntityId>,
        state: Option<BranchState>,
    ) -> Self {
        let branch = state.map_or("missing", word).to_owned();
        Self { transaction, order, service, step, branch, caused: true }
    }

    /// Both branches of the transaction that an order names in vain.
    pub(super) fn of_order(off: OrderDiscrepancy) -> [Self; 2] {
        let (OrderDiscrepancy::ClaimedInVain { order, transaction }
        | OrderDiscrepancy::PaidInVain { order, transaction }) = off;
        [STOCK, PAYMENT].map(|service| Self {
            transaction,
            order: Some(order),
            service,
            step: step_of(service),
            branch: String::new(),
            caused: true,
        })
    }

    /// Where its branch is, and what became of it, in words.
    pub(super) fn place(&self) -> String {
        format!("step {} at {}: {}", self.step, self.service, self.branch)
    }

    pub(super) fn branch(&self) -> BranchId {
        BranchId { transaction: self.transaction, step: self.step }
    }

    /// Takes in what became of its branch, if it is among these.
    pub(super) fn trace(&mut self, states: &BTreeMap<BranchId, Option<BranchState>>, floor: Timestamp) {
        let Some(state) = states.get(&self.branch()).filter(|_| self.branch.is_empty()) else { return };
        let forgotten = self.transaction.birth() <= floor;
        self.branch = state.map_or(if forgotten { "forgotten" } else { "missing" }, word).to_owned();
        // It stands in a paid order: it must have taken effect.
        self.caused |= match state {
            Some(BranchState::Committed | BranchState::Executed | BranchState::Prepared) => false,
            Some(BranchState::Aborted | BranchState::Compensated) => true,
            None => !forgotten,
        };
    }
}

/// A branch's state in a word.
pub(crate) fn word(state: BranchState) -> &'static str {
    match state {
        BranchState::Prepared => "prepared",
        BranchState::Committed => "committed",
        BranchState::Aborted => "aborted",
        BranchState::Executed => "executed",
        BranchState::Compensated => "compensated",
    }
}

/// The step of a checkout that is a service's; see [`crate::checkout::steps`].
fn step_of(service: Name) -> u8 {
    u8::from(service == PAYMENT)
}

pub(super) fn sum_of(service: Name, id: EntityId) -> Sum {
    if service == PAYMENT { Sum::User(id) } else { Sum::Item(id) }
}

/// What a finding is about: the same as long as that is off, by however much.
pub(super) fn key_of(finding: &Finding) -> String {
    match finding {
        Finding::Account { service, discrepancy } => match discrepancy {
            Discrepancy::NotConserved { account, .. } => format!("{service} {account} adds"),
            Discrepancy::HeldByNobody { account, .. } => format!("{service} {account} holds"),
            Discrepancy::Overdrawn { account, .. } => format!("{service} {account} overdrawn"),
        },
        Finding::Charged { user, .. } => format!("charged {user}"),
        Finding::Sold { item, .. } => format!("sold {item}"),
        Finding::Order(OrderDiscrepancy::ClaimedInVain { order, .. } | OrderDiscrepancy::PaidInVain { order, .. }) => {
            format!("order {order}")
        }
        Finding::Branch { service, branch, .. } => format!("branch {service} {branch}"),
    }
}

/// Transactions of orders that name an account which is off.
#[derive(Debug)]
pub(super) struct Watch {
    off: i128,
    /// Those whose amount is what is off; then the latest.
    fitting: BTreeMap<TransactionId, Named>,
    latest: BTreeMap<TransactionId, Named>,
}

impl Watch {
    pub(super) fn new(off: i128) -> Self {
        Self { off, fitting: BTreeMap::new(), latest: BTreeMap::new() }
    }

    /// An order that names the account.
    pub(super) fn meet(&mut self, sum: Sum, transaction: TransactionId, order: EntityId, amount: i128) {
        let service = if matches!(sum, Sum::User(_)) { PAYMENT } else { STOCK };
        let fits = amount == self.off.abs();
        let named = Named {
            transaction,
            order: Some(order),
            service,
            step: step_of(service),
            branch: String::new(),
            caused: fits,
        };
        let among = if fits { &mut self.fitting } else { &mut self.latest };
        among.insert(transaction, named);
        if among.len() > MAX_AUDIT_NAMED {
            among.pop_first();
        }
    }

    pub(super) fn named(&self) -> Vec<Named> {
        let all = self.fitting.values().rev().chain(self.latest.values().rev());
        let mut named: Vec<_> = all.take(MAX_AUDIT_NAMED).cloned().collect();
        // Of several that fit, none is known to be it.
        if self.fitting.len() > 1 {
            named.iter_mut().for_each(|named| named.caused = false);
        }
        named
    }
}
