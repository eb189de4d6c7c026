//! The suite of the port.

use orchestrator::conformance;
use std::sync::Arc;

use crate::support::{in_memory, open, options, quick_server};
use servers::redis::{Persistence, Server};

#[test]
fn the_ledger_in_memory_on_the_server() {
    let server = quick_server();
    conformance::ledger_store(|| {
        server.ask("FLUSHALL").unwrap();
        Arc::new(open(&in_memory(&server)))
    });
}

#[test]
fn the_ledger_flushed_by_the_server() {
    let server = Server::start(Persistence::Always).unwrap();
    conformance::ledger_store(|| {
        server.ask("FLUSHALL").unwrap();
        Arc::new(open(&options(&server)))
    });
}
