//! Each order is checked out at most once, in random sequence: two random items each, as `batch_init` makes them.
//!
//! The run ends when the orders run out, or at its bounds. `hot-item`, `sold-out` and `consistency` drive their
//! connections the same way; they differ in what the shop holds.

use super::{Lane, Method, Queue};
use crate::client::Segment;
use crate::tally::Operation;

/// Checks orders out until none is left or the run is over.
pub async fn drive(lane: &mut Lane, queue: &Queue) {
    while let Some(order) = queue.take() {
        let path = format_args!("/orders/checkout/{}", Segment(&order));
        let Some(answer) = lane.ask(Operation::Checkout, Method::Post, path).await else {
            return;
        };
        lane.note(order, answer);
    }
}
