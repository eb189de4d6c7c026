//! A shopper's whole way: create an order, add two items, look at it, check out. Latency per kind of request.

use super::{Lane, Method};
use crate::client::{Answer, Segment};
use crate::contract::{Id, created_id};
use crate::tally::Operation;

/// Makes and checks out orders of random users until the run is over.
pub async fn drive(lane: &mut Lane, users: &[Id], items: &[Id]) {
    loop {
        let Some(user) = lane.random.choice(users) else {
            return;
        };
        let path = format_args!("/orders/create/{}", Segment(user));
        let Some(created) = lane.ask(Operation::Create, Method::Post, path).await else {
            return;
        };
        let order = created_id(lane.client.body(), "order_id").filter(|_| created == Answer::Accepted);
        // Without an order there is nothing to go on with; its answer is counted.
        let Some(order) = order else { continue };
        let checkout = fill_and_check_out(lane, &order, items).await;
        // Noted even if no checkout was sent: then the audit expects the order unpaid.
        lane.note(order, checkout.unwrap_or(Answer::Unsent));
        if checkout.is_none() {
            return;
        }
    }
}

/// `None` when the run ended before the checkout was sent.
async fn fill_and_check_out(lane: &mut Lane, order: &Id, items: &[Id]) -> Option<Answer> {
    let segment = Segment(order);
    for _ in 0..2 {
        let item = Segment(lane.random.choice(items)?);
        let path = format_args!("/orders/addItem/{segment}/{item}/1");
        lane.ask(Operation::AddItem, Method::Post, path).await?;
    }
    lane.ask(Operation::Find, Method::Get, format_args!("/orders/find/{segment}")).await?;
    lane.ask(Operation::Checkout, Method::Post, format_args!("/orders/checkout/{segment}")).await
}
