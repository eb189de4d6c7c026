//! What a client was told stays true: after "paid" the order is paid and stays so; after a refusal that transaction never settles.
//! Source: "an abort is irrevocable before anyone hears of it"; two-phase commit's answer before its flush; the saga's behind it.
//!
//! An answer that is lost on its way to the client was given all the same.

use protocol::TransactionId;
use shop::orders::OrderState;

use crate::oracle::{Check, Oracle, View, Violation};

fn broken(what: String) -> Check {
    Err(Violation::new("no_lost_answer", what))
}

/// A client is told whether a transaction took effect.
pub(crate) fn told(oracle: &mut Oracle, id: TransactionId, took_effect: bool) -> Check {
    let known = oracle.known.entry(id).or_default();
    let word = |effect| if effect { "committed" } else { "rolled back" };
    if known.told.is_some_and(|earlier| earlier != took_effect) {
        return broken(format!("of {id}, one client was told {}, another {}", word(!took_effect), word(took_effect)));
    }
    if known.decided.is_some_and(|commit| commit != took_effect) {
        return broken(format!("a client was told that {id} is {}, which it is not", word(took_effect)));
    }
    known.told = Some(took_effect);
    Ok(())
}

/// Everything is settled.
pub(crate) fn at_rest(oracle: &Oracle, view: &View<'_>) -> Check {
    for (&id, known) in &oracle.known {
        let committed = known.decided == Some(true);
        if known.told == Some(true) && !committed {
            return broken(format!("a client was told that {id} is committed, which it is not"));
        }
        if let Some(order) = known.order.filter(|_| committed)
            && view.orders.order(order).map(|order| order.state) != Some(OrderState::Paid(id))
        {
            return broken(format!("{id} is committed, but order {order} is not paid by it"));
        }
    }
    Ok(())
}
