//! The suite of the port.

use orchestrator::conformance;
use redis_store::RedisLog;
use std::sync::Arc;

use crate::support::{LOG, in_memory, open, options, quick_server};
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

#[test]
fn the_log_in_memory_on_the_server() {
    let server = quick_server();
    conformance::log(|| {
        server.ask("FLUSHALL").unwrap();
        Arc::new(RedisLog::open(LOG, &in_memory(&server)).unwrap())
    });
}

#[test]
fn the_log_flushed_by_the_server() {
    let server = Server::start(Persistence::Always).unwrap();
    conformance::log(|| {
        server.ask("FLUSHALL").unwrap();
        Arc::new(RedisLog::open(LOG, &options(&server)).unwrap())
    });
}
