//! The checkout, defined once: which services take part, what each is asked for, and what the log is told.

use serde::{Deserialize, Serialize};

use ledger::{EntityId, Entry, entries};
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
    let mut steps = vec![Step { service: STOCK, payload: entries::encode(&units)? }];
    let amount = order.total_cost();
    if amount > 0 {
        let charge = Entry { account: order.user, amount };
        steps.push(Step { service: PAYMENT, payload: entries::encode(&[charge])? });
    }
    Ok(steps)
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
    /// Never for a claim; see [`record::encode`].
    pub fn encode(&self) -> Result<Payload, RecordError> {
        record::encode(self, Vec::with_capacity(32)).map(Payload::from)
    }

    /// Reads a transaction's context.
    ///
    /// # Errors
    /// A refusal, if it is no claim.
    pub fn decode(context: &Payload) -> Result<Self, Refusal> {
        record::decode(context.as_slice()).map_err(|error| Refusal::new(entries::MALFORMED, &error.to_string()))
    }
}

/// Does something as a part of a checkout: what is logged in it names the order.
pub(crate) fn within(transaction: &Transaction, work: &mut dyn FnMut()) {
    let order = Claim::decode(&transaction.context).ok().map(|claim| claim.order);
    // Not in the thread's own scope, which may be that of another checkout.
    Scope { order, ..Scope::default() }.within(work);
}
