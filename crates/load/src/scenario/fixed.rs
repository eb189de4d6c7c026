//! One fixed request, again and again: what the client and an HTTP layer can do without a shop. There is no audit.

use super::{Lane, Method};
use crate::tally::Operation;

/// Sends the request until the run is over.
pub async fn drive(lane: &mut Lane, method: Method, path: &str) {
    while lane.ask(Operation::Fixed, method, format_args!("{path}")).await.is_some() {}
}
