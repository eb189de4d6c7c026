//! The audit of the whole shop: every ledger in itself, and every paid order against both.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use embedded::Store;
use ledger::audit::Discrepancy;
use ledger::{EntityId, Ledger};
use orchestrator::{LedgerAnswer, LedgerAudit, LedgerQuery, answer_ledger};
use protocol::{BranchId, BranchState, Name};
use serde::{Deserialize, Serialize};

use crate::auditor::word;
use crate::checkout::{PAYMENT, STOCK};
use crate::order_store::{OrderDiscrepancy, OrdersAudit, audit_orders};
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
    /// An order contradicts the log.
    Order(OrderDiscrepancy),
    /// A branch of a finished transaction is not what was decided.
    Branch {
        /// `stock` or `payment`.
        service: Name,
        /// The branch.
        branch: BranchId,
        /// Whether the transaction was committed; else it was aborted.
        committed: bool,
        /// What became of the branch; `None` if its service never heard of it.
        state: Option<BranchState>,
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
            Self::Order(OrderDiscrepancy::ClaimedInVain { order, transaction }) => {
                write!(f, "order {order} is claimed by transaction {transaction}, which is not undecided in the log")
            }
            Self::Order(OrderDiscrepancy::PaidInVain { order, transaction }) => {
                write!(
                    f,
                    "order {order} is paid by transaction {transaction}, which the log does not know as one that paid it"
                )
            }
            Self::Branch { service, branch: BranchId { transaction, step }, committed, state } => {
                let decided = if *committed { "committed" } else { "aborted" };
                write!(f, "transaction {transaction} was {decided}, and its branch at {service} (step {step}) ")?;
                match state {
                    Some(state) => write!(f, "is {}", word(*state)),
                    None => write!(f, "is missing"),
                }
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
    /// The same in words, in the same order.
    #[serde(default)]
    pub texts: Vec<String>,
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
    compare(audit_orders(orders, 0), audit_ledger(stock), audit_ledger(payment), true)
}

/// What an audit finds in one ledger, at one moment.
fn audit_ledger(ledger: &Ledger) -> LedgerAudit {
    match answer_ledger(ledger, &LedgerQuery::Audit) {
        LedgerAnswer::Audit(found) => *found,
        other => unreachable!("an audit is answered with one, not with {other:?}"),
    }
}

/// Puts together what audits found in the three databases.
///
/// They are taken one after another, the orders' first. Paid orders are compared with ledgers only if nothing was under way from then until
/// the last ledger was looked at. The caller finds that out and says so as `stood_still`: if the
/// [`Progress`](crate::order_store::OrdersQuery::Progress) at the end is that of the orders' audit.
pub fn compare(orders: OrdersAudit, stock: LedgerAudit, payment: LedgerAudit, stood_still: bool) -> AuditReport {
    let account = |service| move |discrepancy| Finding::Account { service, discrepancy };
    let mut findings: Vec<Finding> = stock.discrepancies.into_iter().map(account(STOCK)).collect();
    findings.extend(payment.discrepancies.into_iter().map(account(PAYMENT)));
    findings.extend(orders.discrepancies.into_iter().map(Finding::Order));
    let paid = orders.paid;
    let compared = stood_still && orders.ended.open == 0 && orders.began == orders.ended;
    if compared {
        let charged = difference(payment.settled, &paid.by_user);
        findings.extend(charged.map(|(user, off_by)| Finding::Charged { user, off_by }));
        let sold = difference(stock.settled, &paid.by_item);
        findings.extend(sold.map(|(item, off_by)| Finding::Sold { item, off_by }));
    }
    let off = findings.len();
    findings.truncate(LISTED);
    let paid_cost = paid.by_user.values().sum();
    let count = |number: u64| usize::try_from(number).unwrap_or(usize::MAX);
    AuditReport {
        off,
        texts: findings.iter().map(Finding::to_string).collect(),
        findings,
        paid_orders: paid.orders,
        paid_cost,
        items: count(stock.accounts),
        users: count(payment.accounts),
        open_transactions: count(orders.ended.open),
        compared,
    }
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
    // A checkout that came and went between the pictures stands in one and not in the other, even one that was aborted: a saga
    // charges before it undoes. None can without the log's sequence moving on.
    Some(compare(audit_orders(&book, 0), audit_ledger(&stock), audit_ledger(&payment), started_at == ended_at))
}
