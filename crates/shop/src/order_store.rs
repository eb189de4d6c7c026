//! The port of the orders' database: [`OrderBook`] kept durable, wherever that is. It is the transaction log, too: the claim of an order is
//! part of a stage, and its `paid` is part of a decision.
//!
//! | implementation                              | where the orders are                                      |
//! |---------------------------------------------|-----------------------------------------------------------|
//! | [`OrderLog`]                                | in this process, under a journal                          |
//! | [`RedisOrders`](crate::redis_orders::RedisOrders) | in a server that any number of processes share      |

use embedded::StoreError;
use ledger::{EntityId, IdempotencyKey};
use orchestrator::{Done, Log, StoreFailure};
use protocol::limits::MAX_PAGE;
use protocol::{Timestamp, TransactionId};
use serde::{Deserialize, Serialize};

use crate::orders::{Order, OrderBook, OrdersCommand, OrdersReply, Paid};
use crate::store::OrderLog;
use crate::trail::Entry;

mod conformance;
mod look;

pub use conformance::order_store;
pub use look::{OrdersLook, OrdersSeen, Sum};

/// The database of the order service: its orders, and the log of its transactions.
///
/// Contract, checked by [`order_store`]: that of [`Log`], and the same for all else. Every command gets the answer that [`OrderBook::apply`]
/// gives, at one moment between call and answer; each is applied at most once, never retried blindly, those of one caller in the order of its
/// calls; an answer is given once everything that it rests on is as durable as the database was asked to be, that of a query included. Callbacks run on
/// the database's own thread, or on the caller's before the call returns: they hand on and return.
pub trait OrderStore: Log {
    /// Carries a command out, to the orders or to the log.
    fn submit(&self, command: OrdersCommand, done: Done<Result<OrdersReply, StoreFailure>>);

    /// Reads what is durable. What concerns the log alone is asked with [`Log::read`].
    fn query(&self, query: OrdersQuery, done: Done<Result<OrdersAnswer, StoreFailure>>);

    /// Reads what is, durable or not, where that is cheaper: for a look that something durable follows.
    fn peek(&self, query: OrdersQuery, done: Done<Result<OrdersAnswer, StoreFailure>>) {
        self.query(query, done);
    }

    /// An open order with items as this process has seen it, where that spares a look: something durable follows, as after a [`peek`](Self::peek), and
    /// finds out if it is no longer so. Each is given once.
    fn recall(&self, _id: EntityId) -> Option<Order> {
        None
    }

    /// Why the database will never answer again, if that is so: the process should end, and start again.
    fn stopped(&self) -> Option<String>;
}

/// A question to the orders.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OrdersQuery {
    /// One order.
    Order(EntityId),
    /// Whether this key was used for another request.
    IsKeyReused(IdempotencyKey),
    /// The youngest birth of a transaction that the log knows of, its floor included.
    Youngest,
    /// How far the log has come: cheap, for asking whether it stood still.
    Progress,
    /// Everything that an audit asks of the orders.
    Audit,
    /// The latest entries of the operators' trail, so many at most: up to [`MAX_PAGE`].
    Trail(usize),
    /// A little of what an audit asks that goes on all the time.
    Look(OrdersLook),
}

/// The answer to a question to the orders.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OrdersAnswer {
    /// To [`OrdersQuery::Order`].
    Order(Option<Order>),
    /// To [`OrdersQuery::IsKeyReused`].
    IsKeyReused(bool),
    /// To [`OrdersQuery::Youngest`].
    Youngest(Timestamp),
    /// To [`OrdersQuery::Progress`].
    Progress(Progress),
    /// To [`OrdersQuery::Audit`].
    Audit(Box<OrdersAudit>),
    /// To [`OrdersQuery::Trail`], the latest first.
    Trail(Vec<Entry>),
    /// To [`OrdersQuery::Look`].
    Seen(OrdersSeen),
}

/// How far the log has come. Two that are equal, with nothing open, mean that no transaction was under way between them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Progress {
    /// Another number whenever a transaction was staged; the same database never goes back. It may rise for other reasons.
    pub sequence: u64,
    /// Transactions that are not finished.
    pub open: u64,
}

/// What an audit finds among the orders.
///
/// A database may take it while commands go on. Then each order is seen at some moment of its own, and sums over orders mean little; but a
/// discrepancy is one.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct OrdersAudit {
    /// What the paid orders come to, those replaced since included.
    pub paid: Paid,
    /// How far the log had come when the audit began.
    pub began: Progress,
    /// And when it ended.
    pub ended: Progress,
    /// Orders that contradict the log.
    pub discrepancies: Vec<OrderDiscrepancy>,
}

/// An order that contradicts the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OrderDiscrepancy {
    /// It is claimed by a transaction that the log does not know, or that is decided.
    ClaimedInVain {
        /// The order.
        order: EntityId,
        /// The transaction.
        transaction: TransactionId,
    },
    /// It is paid by a transaction that the log knows, and not as one that committed it; or that the log never knew.
    PaidInVain {
        /// The order.
        order: EntityId,
        /// The transaction.
        transaction: TransactionId,
    },
}

/// What an audit finds in an order book, at one moment.
pub fn audit_orders(book: &OrderBook, sequence: u64) -> OrdersAudit {
    let progress = Progress { sequence, open: book.transactions().open_count() as u64 };
    OrdersAudit { paid: book.paid(), began: progress, ended: progress, discrepancies: book.discrepancies() }
}

/// Answers a question from the state. `sequence` rises with every change. For databases that hold an [`OrderBook`] in memory.
pub fn answer_orders(book: &OrderBook, query: &OrdersQuery, sequence: u64) -> OrdersAnswer {
    match query {
        OrdersQuery::Order(id) => OrdersAnswer::Order(book.order(*id).cloned()),
        OrdersQuery::IsKeyReused(key) => OrdersAnswer::IsKeyReused(book.is_key_reused(key)),
        OrdersQuery::Youngest => OrdersAnswer::Youngest(book.transactions().youngest()),
        OrdersQuery::Progress => {
            OrdersAnswer::Progress(Progress { sequence, open: book.transactions().open_count() as u64 })
        }
        OrdersQuery::Look(asked) => OrdersAnswer::Seen(look::look(book, asked)),
        OrdersQuery::Audit => OrdersAnswer::Audit(Box::new(audit_orders(book, sequence))),
        OrdersQuery::Trail(limit) => {
            OrdersAnswer::Trail(book.trail().latest((*limit).min(MAX_PAGE)).cloned().collect())
        }
    }
}

fn failure(error: &StoreError) -> StoreFailure {
    match error {
        // What the last batch left behind is known at the next start only.
        StoreError::Stopped { .. } => StoreFailure::Unknown(error.to_string()),
        certain => StoreFailure::NotDone(certain.to_string()),
    }
}

impl OrderStore for OrderLog {
    fn submit(&self, command: OrdersCommand, done: Done<Result<OrdersReply, StoreFailure>>) {
        self.0.submit(command, |answer| done(answer.map_err(|error| failure(&error))));
    }

    fn query(&self, query: OrdersQuery, done: Done<Result<OrdersAnswer, StoreFailure>>) {
        // Before the state is looked at: what is applied in between looks like progress, and that is the safe side.
        let sequence = self.0.applied_sequence();
        if query == OrdersQuery::Audit {
            // It looks at every order: on a picture, so that nobody waits meanwhile.
            self.0.read_durable(OrderBook::clone, move |picture| {
                let answer = |book: OrderBook| answer_orders(&book, &query, sequence);
                done(picture.map(answer).map_err(|error| failure(&error)));
            });
        } else {
            let look = move |book: &OrderBook| answer_orders(book, &query, sequence);
            self.0.read_durable(look, |found| done(found.map_err(|error| failure(&error))));
        }
    }

    fn peek(&self, query: OrdersQuery, done: Done<Result<OrdersAnswer, StoreFailure>>) {
        let sequence = self.0.applied_sequence();
        let look = |book: &OrderBook| answer_orders(book, &query, sequence);
        done(self.0.read(look).map_err(|error| failure(&error)));
    }

    fn stopped(&self) -> Option<String> {
        self.0.stopped()
    }
}
