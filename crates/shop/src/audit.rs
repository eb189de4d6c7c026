//! The audit of the whole shop: every ledger in itself, and every paid order against both.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use embedded::Store;
use ledger::audit::{Discrepancy, audit as audit_ledger};
use ledger::{EntityId, Ledger};
use protocol::Name;
use serde::{Deserialize, Serialize};

use crate::checkout::{PAYMENT, STOCK};
use crate::orders::OrderBook;
use crate::server::Ledgers;

/// Findings listed; all are counted.
const LISTED: usize = 100;

/// One thing that is off.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Finding {
    /// An account contradicts itself.
    Account {
        /// `stock` or `payment`.
        service: Name,
        /// How.
        discrepancy: Discrepancy,
    },
    /// What a user was charged is not what his paid orders cost.
    Charged {
        /// The user.
        user: EntityId,
        /// Charged less cost.
        off_by: i128,
    },
    /// The units of an item that were sold are not those in paid orders.
    Sold {
        /// The item.
        item: EntityId,
        /// Sold less ordered.
        off_by: i128,
    },
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Charged { user, off_by } if *off_by > 0 => {
                write!(f, "user {user} was charged {off_by} more than the paid orders cost")
            }
            Self::Charged { user, off_by } => {
                write!(f, "user {user} was charged {} less than the paid orders cost", -off_by)
            }
            Self::Sold { item, off_by } if *off_by > 0 => {
                write!(f, "item {item}: {off_by} units more were sold than stand in paid orders")
            }
            Self::Sold { item, off_by } => {
                write!(f, "item {item}: {} units fewer were sold than stand in paid orders", -off_by)
            }
            Self::Account { service, discrepancy } => match discrepancy {
                Discrepancy::NotConserved { account, off_by } => {
                    write!(f, "{service} account {account} does not add up: off by {off_by}")
                }
                Discrepancy::HeldByNobody { account, off_by } => {
                    write!(f, "{service} account {account} holds {off_by} for no open branch")
                }
                Discrepancy::Overdrawn { account, off_by } => {
                    write!(f, "{service} account {account} is overdrawn by {off_by}")
                }
            },
        }
    }
}

/// What an audit found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuditReport {
    /// How many things are off.
    pub off: usize,
    /// The first of them.
    pub findings: Vec<Finding>,
    /// Orders that are paid, those replaced since included.
    pub paid_orders: u64,
    /// What they cost.
    pub paid_cost: i128,
    /// Accounts of the stock ledger, each of which was checked in itself.
    pub items: usize,
    /// Accounts of the payment ledger, likewise.
    pub users: usize,
    /// Transactions that were not settled. While there are any, orders cannot be compared with ledgers.
    pub open_transactions: usize,
    /// Whether orders were compared with ledgers.
    pub compared: bool,
}

impl AuditReport {
    /// Whether nothing is off.
    pub fn is_clean(&self) -> bool {
        self.off == 0
    }
}

/// Audits the shop's three databases.
pub fn audit(orders: &OrderBook, stock: &Ledger, payment: &Ledger) -> AuditReport {
    let account = |service| move |discrepancy| Finding::Account { service, discrepancy };
    let mut findings: Vec<Finding> = audit_ledger(stock).into_iter().map(account(STOCK)).collect();
    findings.extend(audit_ledger(payment).into_iter().map(account(PAYMENT)));
    let paid = orders.paid();
    let open_transactions = orders.transactions().open_count();
    let compared = open_transactions == 0;
    if compared {
        let charged = difference(payment.settled_by_account(), &paid.by_user);
        findings.extend(charged.map(|(user, off_by)| Finding::Charged { user, off_by }));
        let sold = difference(stock.settled_by_account(), &paid.by_item);
        findings.extend(sold.map(|(item, off_by)| Finding::Sold { item, off_by }));
    }
    let off = findings.len();
    findings.truncate(LISTED);
    let paid_cost = paid.by_user.values().sum();
    let (items, users) = (stock.accounts().count(), payment.accounts().count());
    AuditReport { off, findings, paid_orders: paid.orders, paid_cost, items, users, open_transactions, compared }
}

/// Where the two differ, and by how much.
fn difference(
    settled: BTreeMap<EntityId, i128>,
    ordered: &BTreeMap<EntityId, i128>,
) -> impl Iterator<Item = (EntityId, i128)> {
    let accounts: BTreeSet<EntityId> = settled.keys().chain(ordered.keys()).copied().collect();
    let off = move |id: EntityId| {
        let ordered = ordered.get(&id).copied().unwrap_or_default();
        let off_by = settled.get(&id).copied().unwrap_or_default() - ordered;
        (off_by != 0).then_some((id, off_by))
    };
    accounts.into_iter().filter_map(off).collect::<Vec<_>>().into_iter()
}

/// Audits a shop that is running, on pictures of its stores.
pub(crate) fn audit_live(orders: &Store<OrderBook>, Ledgers { stock, payment }: &Ledgers) -> Option<AuditReport> {
    let started_at = orders.applied_sequence();
    let book = orders.read(Clone::clone).ok()?;
    let (stock, payment) = (stock.read(Clone::clone).ok()?, payment.read(Clone::clone).ok()?);
    let ended_at = orders.applied_sequence();
    let mut report = audit(&book, &stock, &payment);
    // A checkout that came and went between the pictures stands in one and not in the other, even one that was aborted: a saga
    // charges before it undoes. None can without the log's sequence moving on.
    if report.compared && started_at != ended_at {
        report = audit_moving(&book, &stock, &payment);
    }
    Some(report)
}

fn audit_moving(orders: &OrderBook, stock: &Ledger, payment: &Ledger) -> AuditReport {
    let mut report = audit(orders, stock, payment);
    report.findings.retain(|finding| matches!(finding, Finding::Account { .. }));
    report.off = report.findings.len();
    report.compared = false;
    report
}
