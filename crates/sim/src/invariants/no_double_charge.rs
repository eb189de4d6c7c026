//! Each order is paid by one transaction at most; and at rest every user has paid what their paid orders cost, and every item has
//! lost what they hold, replaced accounts and orders included. Source: the claim in `shop::orders`: "what is charged is exactly what the order then holds".

use std::collections::{BTreeMap, BTreeSet};

use ledger::{EntityId, Ledger};
use protocol::TransactionId;

use crate::oracle::{Check, Oracle, View, Violation};

/// A transaction is durably committed.
pub(crate) fn committed(oracle: &mut Oracle, id: TransactionId) -> Check {
    let Some(order) = oracle.known.get(&id).and_then(|known| known.order) else { return Ok(()) };
    let first = *oracle.paid_by.entry(order).or_insert(id);
    if first == id {
        return Ok(());
    }
    Err(Violation::new("no_double_charge", format!("order {order} was paid by {first}, and again by {id}")))
}

fn settled(what: &str, ledger: &Ledger, owed: &BTreeMap<EntityId, i128>) -> Check {
    let found = ledger.settled_by_account();
    let accounts: BTreeSet<EntityId> = found.keys().chain(owed.keys()).copied().collect();
    for id in accounts {
        let settled = found.get(&id).copied().unwrap_or_default();
        let owed = owed.get(&id).copied().unwrap_or_default();
        if settled != owed {
            let what = format!("{what} {id}: {settled} settled, but the paid orders come to {owed}");
            return Err(Violation::new("no_double_charge", what));
        }
    }
    Ok(())
}

/// Everything is settled.
pub(crate) fn at_rest(view: &View<'_>) -> Check {
    let paid = view.orders.paid();
    settled("item", view.ledgers[0], &paid.by_item)?;
    settled("user", view.ledgers[1], &paid.by_user)
}
