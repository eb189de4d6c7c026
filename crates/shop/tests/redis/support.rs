//! Servers, stores on them, and calls that wait.

use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use orchestrator::{Log, LogAnswer, LogQuery, StoreFailure};
use redis_store::{Durability, OpenError, Options, Place};
use servers::redis::{Persistence, Server};
use shop::order_store::{OrderStore, OrdersAnswer, OrdersAudit, OrdersQuery};
use shop::orders::{OrdersCommand, OrdersReply};
use shop::redis_orders::RedisOrders;

/// How long an answer may take before it is called lost: longer than a store ever waits for its server.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

pub(crate) fn options(server: &Server) -> Options {
    Options::new(Place::Standalone { address: server.address() })
}

pub(crate) fn in_memory(server: &Server) -> Options {
    Options { durability: Durability::Memory, ..options(server) }
}

pub(crate) fn quick_server() -> Server {
    Server::start(Persistence::None).unwrap()
}

/// Opens the store once as many replicas are in touch as it asks for: they connect some time after they were started.
pub(crate) fn open(options: &Options) -> RedisOrders {
    let until = Instant::now() + PATIENCE;
    loop {
        match RedisOrders::open(options) {
            Err(OpenError::TooFewReplicas { .. }) if Instant::now() < until => {
                std::thread::sleep(Duration::from_millis(50));
            }
            opened => return opened.unwrap(),
        }
    }
}

pub(crate) fn begin(store: &dyn OrderStore, command: OrdersCommand) -> Receiver<Result<OrdersReply, StoreFailure>> {
    let (send, answer) = channel();
    store.submit(command, Box::new(move |reply| _ = send.send(reply)));
    answer
}

pub(crate) fn submit(store: &dyn OrderStore, command: OrdersCommand) -> Result<OrdersReply, StoreFailure> {
    begin(store, command).recv_timeout(PATIENCE).expect("every command is answered")
}

pub(crate) fn query(store: &dyn OrderStore, query: OrdersQuery) -> Result<OrdersAnswer, StoreFailure> {
    let (send, answer) = channel();
    store.query(query, Box::new(move |found| _ = send.send(found)));
    answer.recv_timeout(PATIENCE).expect("every question is answered")
}

pub(crate) fn read(store: &dyn Log, query: LogQuery) -> LogAnswer {
    let (send, answer) = channel();
    store.read(query, Box::new(move |found| _ = send.send(found)));
    answer.recv_timeout(PATIENCE).expect("every question is answered").unwrap()
}

pub(crate) fn audit(store: &dyn OrderStore) -> OrdersAudit {
    match query(store, OrdersQuery::Audit) {
        Ok(OrdersAnswer::Audit(found)) => *found,
        other => panic!("asked for an audit, answered {other:?}"),
    }
}
