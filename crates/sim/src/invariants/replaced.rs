//! What `batch_init` made is what it says, and nothing from before falls on it: it replaces nothing that is still held or claimed. At rest
//! the other rules hold over what was replaced too. Source: "replaces what those ids held, history included", and "it first waits for the
//! branches in flight to settle", in `docs/api.md`.

use ledger::{Account, EntityId, Ledger};
use protocol::{BranchId, TransactionId};
use shop::orders::{OrderBook, OrderState};

use crate::oracle::{Check, Oracle, Violation};

fn broken(what: String) -> Check {
    Err(Violation::new("replaced", what))
}

/// Accounts were replaced. `open`: a branch that was open then.
pub(crate) fn accounts(open: Option<BranchId>, ledger: &Ledger, count: u64, available: i64) -> Check {
    if let Some(branch) = open {
        return broken(format!("accounts were replaced while branch {branch} was open"));
    }
    let fresh = Account { available, credited: available, ..Account::default() };
    match (0..count).find(|n| ledger.account(EntityId::number(*n)) != Some(&fresh)) {
        None => Ok(()),
        Some(n) => broken(format!("account {n} is {:?} after it was replaced", ledger.account(EntityId::number(n)))),
    }
}

/// Orders were replaced. `open`: a transaction that was open then.
pub(crate) fn orders(
    open: Option<TransactionId>,
    book: &OrderBook,
    (count, items, users): (u64, u64, u64),
    price: i64,
) -> Check {
    if let Some(id) = open {
        return broken(format!("orders were replaced while {id} was open"));
    }
    let below = |bound: u64, id: EntityId| (0..bound).any(|n| EntityId::number(n) == id);
    for n in 0..count {
        let sound = book.order(EntityId::number(n)).is_some_and(|order| {
            let units: i64 = order.lines.iter().map(|line| line.quantity).sum();
            order.state == OrderState::Open
                && (units, order.total_cost()) == (2, 2 * price)
                && below(users, order.user)
                && order.lines.iter().all(|line| below(items, line.item))
        });
        if !sound {
            return broken(format!("order {n} is {:?} after it was replaced", book.order(EntityId::number(n))));
        }
    }
    Ok(())
}

/// The replacement of the first `count` orders is durable: who paid them before has paid other orders.
pub(crate) fn orders_are_gone(oracle: &mut Oracle, count: u64) {
    for order in (0..count).map(EntityId::number) {
        oracle.paid_by.remove(&order);
        for known in oracle.known.values_mut().filter(|known| known.order == Some(order)) {
            if known.decided == Some(true) {
                known.order = None;
            }
        }
    }
}
