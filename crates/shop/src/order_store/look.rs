//! What an audit that goes on meanwhile asks of the orders: little at a time, each answer seen at one moment.

use std::collections::BTreeMap;
use std::ops::Bound;

use ledger::EntityId;
use protocol::TransactionId;
use protocol::limits::MAX_AUDIT_PAGE;
use protocol::log::Record;

use super::OrderDiscrepancy;
use crate::orders::{Order, OrderBook, OrderState, Paid};

/// A question of an audit to the orders. Each is about a page of some [`MAX_AUDIT_PAGE`]: it begins at an empty text, then at what the page before
/// said. Who goes on until there is no next page meets each that was there all the while; one may be met twice.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OrdersLook {
    /// Orders that are paid or claimed.
    Orders {
        /// Where the page begins.
        after: String,
    },
    /// What paid orders came to that were replaced and are no longer among those.
    Replaced {
        /// Where the page begins.
        after: String,
    },
    /// Transactions that are finished, save those that were never staged.
    Ended {
        /// Where the page begins.
        after: String,
    },
}

/// The answer to an [`OrdersLook`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OrdersSeen {
    /// To [`OrdersLook::Orders`].
    Orders {
        /// The orders. Their versions may be left out.
        rows: Vec<(EntityId, Order)>,
        /// How many were looked at, those that are neither paid nor claimed included.
        looked: u64,
        /// Those that contradict the log.
        off: Vec<OrderDiscrepancy>,
        /// How many paid orders have gone over to what is replaced: if it is another number at the end, one may have been counted here and there.
        buried: u64,
        /// Where the next page begins.
        next: Option<String>,
    },
    /// To [`OrdersLook::Replaced`].
    Replaced {
        /// The sums.
        sums: Vec<(Sum, i128)>,
        /// As above.
        buried: u64,
        /// Where the next page begins.
        next: Option<String>,
    },
    /// To [`OrdersLook::Ended`].
    Ended {
        /// The transactions.
        records: Vec<(TransactionId, Record)>,
        /// Where the next page begins.
        next: Option<String>,
    },
}

/// What a sum is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Sum {
    /// What the paid orders of a user cost.
    User(EntityId),
    /// How many units of an item stand in paid orders.
    Item(EntityId),
}

/// Looks at an order book that is held in memory.
pub(super) fn look(book: &OrderBook, look: &OrdersLook) -> OrdersSeen {
    let slots = u32::try_from(MAX_AUDIT_PAGE).unwrap_or(u32::MAX);
    let slot = |after: &str| after.parse().unwrap_or(0);
    let text = |next: Option<u32>| next.map(|next| next.to_string());
    let buried = book.replaced().orders;
    match look {
        OrdersLook::Orders { after } => {
            let (found, next) = book.order_page(slot(after), slots);
            let mut looked = 0;
            let taken: Vec<_> =
                found.inspect(|_| looked += 1).filter(|(_, order)| order.state != OrderState::Open).collect();
            let off = taken.iter().filter_map(|(id, order)| book.contradiction(*id, order)).collect();
            let rows = taken.into_iter().map(|(id, order)| (id, order.clone())).collect();
            OrdersSeen::Orders { rows, looked, off, buried, next: text(next) }
        }
        OrdersLook::Replaced { after } => {
            let sums = replaced(book.replaced(), after);
            let next = (sums.len() >= MAX_AUDIT_PAGE).then(|| sums.last().map(|(sum, _)| word(*sum))).flatten();
            OrdersSeen::Replaced { sums, buried, next }
        }
        OrdersLook::Ended { after } => {
            let (found, next) = book.transactions().page(slot(after), slots);
            let ended =
                |(_, record): &(TransactionId, &Record)| record.finished.is_some() && record.transaction.is_some();
            let records = found.filter(ended).map(|(id, record)| (id, record.clone())).collect();
            OrdersSeen::Ended { records, next: text(next) }
        }
    }
}

/// A sum as a place to go on from.
fn word(sum: Sum) -> String {
    match sum {
        Sum::User(id) => format!("u{id}"),
        Sum::Item(id) => format!("i{id}"),
    }
}

/// A page of sums: those of users, then those of items.
fn replaced(paid: &Paid, after: &str) -> Vec<(Sum, i128)> {
    let (kind, id) = after.split_at_checked(1).unwrap_or_default();
    let from = id.parse::<EntityId>().map_or(Bound::Unbounded, Bound::Excluded);
    let behind = |of: &str, sums: &BTreeMap<EntityId, i128>, sum: fn(EntityId) -> Sum| {
        let from = if kind == of { from } else { Bound::Unbounded };
        let page = sums.range((from, Bound::Unbounded)).take(MAX_AUDIT_PAGE);
        page.map(|(id, amount)| (sum(*id), *amount)).collect::<Vec<_>>()
    };
    let mut page = if kind == "i" { Vec::new() } else { behind("u", &paid.by_user, Sum::User) };
    page.extend(behind("i", &paid.by_item, Sum::Item));
    page.truncate(MAX_AUDIT_PAGE);
    page
}
