//! The checkout, defined once: which services take part, what each is asked for, and what the log is told.

use serde::{Deserialize, Serialize};

use ledger::entries::MALFORMED;
use ledger::{EntityId, Entry, INSUFFICIENT, UNKNOWN_ACCOUNT, entries};
use orchestrator::{Choice, Definition};
use protocol::record::{self, RecordError};
use protocol::{Name, Payload, Refusal, Step, Transaction};
use telemetry::Scope;

use crate::orders::Order;

/// The service that keeps the items.
pub const STOCK: Name = Name::literal("stock");
/// The service that keeps the users' credit.
pub const PAYMENT: Name = Name::literal("payment");
/// The definition of a checkout.
pub const CHECKOUT: Name = Name::literal("checkout");
/// So many entries of a step are told to people.
const MAX_NAMED: usize = 8;

/// The definition of a checkout: reserve the stock, charge the user.
pub fn definition(protocol: Choice) -> Definition {
    Definition::new(CHECKOUT, [STOCK, PAYMENT]).with_protocol(protocol)
}

/// The order's steps: its units of stock; its user's credit, unless it costs nothing.
///
/// # Errors
/// Never for an order that kept within its limits; see [`entries::encode`].
pub fn steps(order: &Order) -> Result<Vec<Step>, RecordError> {
    let mut units: Vec<Entry> = Vec::with_capacity(order.lines.len());
    for line in &order.lines {
        match units.iter_mut().find(|entry| entry.account == line.item) {
            Some(entry) => entry.amount = entry.amount.saturating_add(line.quantity),
            None => units.push(Entry { account: line.item, amount: line.quantity }),
        }
    }
    let amount = order.total_cost();
    // As many as there will be, and not four: the log remembers them.
    let mut steps = Vec::with_capacity(1 + usize::from(amount > 0));
    steps.push(Step { service: STOCK, payload: entries::encode(&units)? });
    if amount > 0 {
        let charge = Entry { account: order.user, amount };
        steps.push(Step { service: PAYMENT, payload: entries::encode(&[charge])? });
    }
    Ok(steps)
}

/// What a step asks its service for, in words; `None` if its payload is dropped or not a shop's. Of many entries the first are named.
pub fn asked(step: &Step) -> Option<String> {
    let entries = entries::decode(&step.payload).ok()?;
    let say = |Entry { account, amount }: &Entry| match step.service {
        STOCK => format!("{amount} of item {account}"),
        PAYMENT => format!("{amount} from user {account}"),
        _ => format!("{amount} of account {account}"),
    };
    let named: Vec<String> = entries.iter().take(MAX_NAMED).map(say).collect();
    let others = entries.len() - named.len();
    let others = if others > 0 { format!(", and {others} more") } else { String::new() };
    Some(named.join(", ") + &others)
}

/// Why a service refused its part, in words that go behind "refused: ".
pub fn why_refused(service: Option<Name>, refusal: &Refusal) -> String {
    let about = &refusal.detail;
    match (refusal.code, service) {
        (INSUFFICIENT, Some(STOCK)) => format!("not enough of item {about}"),
        (INSUFFICIENT, Some(PAYMENT)) => format!("user {about} has not enough credit"),
        (INSUFFICIENT, _) => format!("account {about} has not enough"),
        (UNKNOWN_ACCOUNT, Some(STOCK)) => format!("there is no item {about}"),
        (UNKNOWN_ACCOUNT, Some(PAYMENT)) => format!("there is no user {about}"),
        (UNKNOWN_ACCOUNT, _) => format!("there is no account {about}"),
        (MALFORMED, _) => format!("what it was asked for cannot be read: {about}"),
        (Refusal::ABORTED, _) => "its part was undone before it was asked for".to_owned(),
        (Refusal::EXPIRED, _) => "its part is so old that it is forgotten there".to_owned(),
        // A service of another version may have reasons that this one does not know.
        _ => refusal.to_string().replace('_', " "),
    }
}

/// What a checkout claims when it is staged: this order, if it is still what its lines were read from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claim {
    /// The order.
    pub order: EntityId,
    /// Its version when its lines were read.
    pub version: u64,
}

impl Claim {
    /// The claim as a transaction's context.
    ///
    /// # Errors
    /// Never for a claim; see [`record::payload`].
    pub fn encode(&self) -> Result<Payload, RecordError> {
        record::payload(self)
    }

    /// Reads a transaction's context.
    ///
    /// # Errors
    /// A refusal, if it is no claim.
    pub fn decode(context: &Payload) -> Result<Self, Refusal> {
        record::decode(context.as_slice()).map_err(|error| Refusal::new(MALFORMED, &error.to_string()))
    }
}

/// Does something as a part of a checkout: what is logged in it names the order.
pub(crate) fn within(transaction: &Transaction, work: &mut dyn FnMut()) {
    let order = Claim::decode(&transaction.context).ok().map(|claim| claim.order);
    // Not in the thread's own scope, which may be that of another checkout.
    Scope { order, ..Scope::default() }.within(work);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_to_refuse_is_told_in_words() {
        let told = |service, code, about| why_refused(service, &Refusal::new(code, about));
        for (service, code, about, words) in [
            (Some(STOCK), INSUFFICIENT, "7", "not enough of item 7"),
            (Some(PAYMENT), INSUFFICIENT, "12", "user 12 has not enough credit"),
            (None, INSUFFICIENT, "3", "account 3 has not enough"),
            (Some(STOCK), UNKNOWN_ACCOUNT, "7", "there is no item 7"),
            (Some(PAYMENT), UNKNOWN_ACCOUNT, "12", "there is no user 12"),
            (None, UNKNOWN_ACCOUNT, "3", "there is no account 3"),
            (Some(STOCK), MALFORMED, "an empty record", "what it was asked for cannot be read: an empty record"),
            (Some(STOCK), Refusal::ABORTED, "", "its part was undone before it was asked for"),
            (Some(STOCK), Refusal::EXPIRED, "", "its part is so old that it is forgotten there"),
            (Some(STOCK), Name::literal("closed_on_sundays"), "noon", "closed on sundays (noon)"),
        ] {
            assert_eq!(told(service, code, about), words);
        }
    }

    #[test]
    fn what_a_step_asks_for_is_told_but_not_all_of_a_long_list() {
        let units = |count: u64| {
            let entries: Vec<Entry> = (0..count).map(|n| Entry { account: EntityId::number(n), amount: 2 }).collect();
            Step { service: STOCK, payload: entries::encode(&entries).unwrap() }
        };
        assert_eq!(asked(&units(2)).unwrap(), "2 of item 0, 2 of item 1");
        assert!(asked(&units(500)).unwrap().ends_with("2 of item 7, and 492 more"));
        assert_eq!(asked(&Step { service: STOCK, payload: Payload::EMPTY }), None);
    }
}
