//! The suite of the port.

use std::sync::Arc;

use servers::redis::{Persistence, Server};
use shop::order_store::order_store;

use crate::support::{in_memory, open, options, quick_server};

#[test]
fn the_orders_in_memory_on_the_server() {
    let server = quick_server();
    order_store(|| {
        server.ask("FLUSHALL").unwrap();
        Arc::new(open(&in_memory(&server)))
    });
}

#[test]
fn the_orders_flushed_by_the_server() {
    let server = Server::start(Persistence::Always).unwrap();
    order_store(|| {
        server.ask("FLUSHALL").unwrap();
        Arc::new(open(&options(&server)))
    });
}
