//! The shop's HTTP layer in an instance, as far as checkouts go: read the order, or recall it as it was seen before; paid → ok; being checked out → wait for
//! that; else execute with a claim on what was read.

use ledger::EntityId;
use orchestrator::{Executed, Outcome};
use protocol::TransactionId;
use shop::checkout::{CHECKOUT, Claim, steps};
use shop::orders::{Order, OrderState, refusals};

use crate::invariants::no_lost_answer;
use crate::network::Node;
use crate::storage::VERSION_BITS;
use crate::wires::Notice;
use crate::world::{Event, MILLI, World};

/// How often a checkout looks at its order again. Microseconds.
const POLL_EVERY: u64 = 50 * MILLI;
/// How often it does so, and how often it starts over, before it says that it does not know.
const PATIENCE: u32 = 60;
/// How often, of a thousand times, it begins with an order as it has seen it before, if it has.
const RECALLS: u64 = 400;

/// A request that an instance is answering.
#[derive(Debug)]
pub(crate) struct Handler {
    client: usize,
    request: u64,
    order: EntityId,
    looks: u32,
}

impl World {
    pub(crate) fn on_checkout(&mut self, instance: usize, client: usize, request: u64, order: EntityId) {
        let node = Node::Instance(instance);
        if self.instances[instance].engine.is_none() {
            self.send(node, Node::Clients, Event::Answered { client, request, status: Some("connection refused") });
            return;
        }
        if self.is_stalled(instance) {
            let until = self.instances[instance].stalled_until;
            self.schedule.in_order(until, Event::Checkout { instance, client, request, order });
            return;
        }
        let handler = self.serial();
        self.instances[instance].handlers.insert(handler, Handler { client, request, order, looks: 0 });
        self.note(node, |_| format!("client {client} wants order {order} checked out (request {request})"));
        // It may begin with the order as it has seen it last.
        let recalled =
            if self.random.chance(RECALLS) { self.instances[instance].seen.get(&order).cloned() } else { None };
        match recalled {
            Some((seen, over)) => self.on_order(instance, handler, Some(seen), over),
            None => self.read_order(instance, handler),
        }
    }

    /// Looks at the order, again.
    pub(crate) fn read_order(&mut self, instance: usize, handler: u64) {
        let Some(found) = self.instances[instance].handlers.get_mut(&handler) else { return };
        found.looks += 1;
        let (order, looks) = (found.order, found.looks);
        if looks > PATIENCE {
            self.respond(instance, handler, "in doubt");
        } else {
            self.order_request(instance, order, handler);
        }
    }

    /// It has seen the order in this incarnation of the orders, just now or some time ago.
    pub(crate) fn on_order(&mut self, instance: usize, handler: u64, order: Option<Order>, over: u64) {
        let Some(id) = self.instances[instance].handlers.get(&handler).map(|found| found.order) else { return };
        let Some(order) = order else { return self.respond(instance, handler, "no such order") };
        let seen = &mut self.instances[instance].seen;
        if order.state == OrderState::Open {
            seen.insert(id, (order.clone(), over))
        } else {
            seen.remove(&id)
        };
        match order.state {
            OrderState::Paid(by) => {
                let check = no_lost_answer::told(&mut self.oracle, by, true);
                self.check(check);
                self.respond(instance, handler, "paid");
            }
            OrderState::CheckingOut(by) => {
                let mut watched = false;
                self.engine(instance, |engine, wires| {
                    let notice = move |outcome: Outcome| Notice::Watched(handler, by, outcome);
                    watched = engine.watch(by, wires.notify(notice)).is_ok();
                });
                if !watched {
                    let process = self.process(instance);
                    self.after(POLL_EVERY, Event::Poll(process, handler));
                }
            }
            OrderState::Open => {
                let claim = Claim { order: id, version: order.version | over << VERSION_BITS };
                let (Ok(steps), Ok(context)) = (steps(&order), claim.encode()) else {
                    return self.respond(instance, handler, "refused");
                };
                self.engine(instance, |engine, wires| {
                    let notice = move |executed: Executed| Notice::Executed(handler, executed);
                    engine.execute(CHECKOUT, steps, context, wires.notify(notice));
                });
            }
        }
    }

    pub(crate) fn on_executed(&mut self, instance: usize, handler: u64, executed: Executed) {
        match executed {
            Ok((id, outcome)) => self.on_outcome(instance, handler, id, &outcome),
            Err(_) => self.respond(instance, handler, "turned away"),
        }
    }

    pub(crate) fn on_outcome(&mut self, instance: usize, handler: u64, id: TransactionId, outcome: &Outcome) {
        let stale = |refusal: &protocol::Refusal| {
            [refusals::ORDER_CHANGED, refusals::ORDER_PAID, refusals::CHECKING_OUT].contains(&refusal.code)
        };
        if let Some(took_effect) = crate::oracle::tells(outcome) {
            let check = no_lost_answer::told(&mut self.oracle, id, took_effect);
            self.check(check);
        }
        match outcome {
            Outcome::Committed => self.respond(instance, handler, "paid"),
            Outcome::Conflict(refusal) if stale(refusal) => self.read_order(instance, handler),
            Outcome::Refused { .. } | Outcome::Conflict(_) => self.respond(instance, handler, "refused"),
            Outcome::RolledBack { .. } => self.respond(instance, handler, "rolled back"),
            Outcome::InDoubt => self.respond(instance, handler, "in doubt"),
        }
    }

    /// Sends the answer on its way to the client.
    pub(crate) fn respond(&mut self, instance: usize, handler: u64, status: &'static str) {
        let Some(Handler { client, request, order, .. }) = self.instances[instance].handlers.remove(&handler) else {
            return;
        };
        let node = Node::Instance(instance);
        self.note(node, |_| format!("to client {client} of order {order}: {status} (request {request})"));
        *self.oracle.answers.entry(status).or_default() += 1;
        self.send(node, Node::Clients, Event::Answered { client, request, status: Some(status) });
    }
}
