//! An order is paid if and only if its transaction is decided Commit, at every step and not only in the end; it is being checked out
//! only by a transaction that is staged and undecided. Source: "a decision and the order's `paid` are one step", in `shop::orders`.

use protocol::log::LogCommand;
use shop::orders::{OrderBook, OrderState, OrdersCommand};

use crate::oracle::{Check, Oracle, Violation};

fn broken(what: String) -> Check {
    Err(Violation::new("order_state", what))
}

/// After every change of the orders.
pub(crate) fn orders(oracle: &Oracle, book: &OrderBook, command: &OrdersCommand) -> Check {
    for (order, found) in book.orders() {
        match found.state {
            OrderState::Open => {}
            OrderState::Paid(id) => {
                let committed = match book.transactions().get(id) {
                    Some(record) => record.decision().is_some_and(protocol::Decision::is_commit),
                    None => oracle.decided(id) == Some(true),
                };
                if !committed {
                    return broken(format!("order {order} is paid by {id}, which is not committed"));
                }
            }
            OrderState::CheckingOut(id) => {
                if book.transactions().get(id).is_none_or(|record| record.decided.is_some()) {
                    return broken(format!("order {order} is being checked out by {id}, which is not under way"));
                }
            }
        }
    }
    let OrdersCommand::Log(LogCommand::Decide { id, .. }) = command else { return Ok(()) };
    let committed = book.transactions().get(*id).and_then(|record| record.decision()).is_some_and(|d| d.is_commit());
    let order = oracle.known.get(id).and_then(|known| known.order).filter(|_| committed);
    match order.and_then(|order| book.order(order)) {
        Some(order) if order.state != OrderState::Paid(*id) => {
            broken(format!("{id} is decided Commit, but its order is {:?}", order.state))
        }
        _ => Ok(()),
    }
}
