//! What the services need of each other, whether they share a process or not.
//!
//! | port         | who asks          | in one process                        | as processes of their own              |
//! |--------------|-------------------|---------------------------------------|----------------------------------------|
//! | [`Verdicts`] | stock, payment    | the engine                            | any order instance                     |
//! | [`Prices`]   | orders            | the stock service                     | any stock instance                     |
//! | [`Peers`]    | orders            | [`NoPeers`]: nobody else drives anything | the order instance that drives it   |
//! | [`Spread`]   | stock, payment    | [`NoPeers`]: there is nobody else     | every other instance of the service    |

use std::sync::Arc;

use ledger::EntityId;
use orchestrator::{Done, Engine, LogError};
use protocol::limits::MAX_PAGE;
use protocol::log::Verdict;
use protocol::{Name, TransactionId};
use serde::{Deserialize, Serialize};

use crate::faults::FaultChange;

/// Someone who knows what became of transactions.
pub trait Verdicts: Send + Sync + 'static {
    /// What became of these, in their order: at most [`protocol::limits::MAX_TERMINATION_BATCH`]. Asking makes sure that one that was never
    /// staged never will be.
    fn ask(&self, ids: Vec<TransactionId>, done: Done<Result<Vec<Verdict>, LogError>>);
}

impl Verdicts for Engine {
    fn ask(&self, ids: Vec<TransactionId>, done: Done<Result<Vec<Verdict>, LogError>>) {
        Self::ask(self, ids, done);
    }
}

/// What an item costs: `None` if there is no such item; or why nobody could say.
pub type Price = Result<Option<i64>, String>;

/// Someone who knows what items cost.
pub trait Prices: Send + Sync + 'static {
    /// The price of an item, when what it is read from is durable.
    fn price(&self, item: EntityId, done: Done<Price>);
}

/// What an instance says of a transaction that should be its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Told {
    /// Its caller has been answered. What the answer was stands in the log, or soon will.
    Answered,
    /// Nobody has been told anything of it yet, anywhere: it is still its own, by the log.
    Unanswered,
    /// It cannot say, or cannot be reached.
    Nothing,
}

/// The other instances of the order service.
pub trait Peers: Send + Sync + 'static {
    /// Asks `owner` how far a transaction of its own is: now, or, with `waits`, once it can say [`Told::Answered`].
    fn ask(&self, owner: Name, id: TransactionId, waits: bool, done: Done<Told>);

    /// Has `owner` do what an operator wants of transactions that it drives; `done` hears `None` if it cannot be reached.
    fn operate(&self, owner: Name, operation: Operation, done: Done<Option<Operated>>);

    /// Has every instance of a service use another filter for its log. `done` hears why they could not be told.
    fn set_log_filter(&self, service: Name, filter: String, done: Done<Result<(), String>>);
}

/// What an operator wants of whoever drives a transaction.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Operation {
    /// To hear what the coordinators of these are doing: at most [`protocol::limits::MAX_PAGE`].
    States(Vec<TransactionId>),
    /// To have everything tried at once that is left of it.
    Retry(TransactionId),
    /// To have heeded at once what the log says: that a step of it counts as acknowledged.
    Resolved {
        /// The transaction.
        id: TransactionId,
        /// The step.
        step: u8,
    },
}

/// What came of an [`Operation`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Operated {
    /// To [`Operation::States`], in its order; `None` for what is not driven there.
    States(Vec<Option<String>>),
    /// To the others: whether the transaction is driven there.
    Driven(bool),
}

impl Operation {
    /// Has an engine do it.
    pub fn at(self, engine: &Arc<Engine>) -> Operated {
        match self {
            Self::States(ids) => {
                let state = |id: TransactionId| engine.state_of(id).map(str::to_owned);
                Operated::States(ids.into_iter().take(MAX_PAGE).map(state).collect())
            }
            Self::Retry(id) => Operated::Driven(engine.retry(id)),
            Self::Resolved { id, step } => Operated::Driven(engine.resolved(id, step)),
        }
    }
}

/// The other instances of a service that keeps a ledger.
pub trait Spread: Send + Sync + 'static {
    /// Tells them all of a change of the faults to inject. `done` hears why they could not be told.
    fn spread(&self, change: &FaultChange, done: Done<Result<(), String>>);
}

/// There is one instance of the service.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoPeers;

impl Peers for NoPeers {
    fn ask(&self, _: Name, _: TransactionId, _: bool, done: Done<Told>) {
        done(Told::Nothing);
    }

    fn operate(&self, _: Name, _: Operation, done: Done<Option<Operated>>) {
        done(None);
    }

    fn set_log_filter(&self, service: Name, _: String, done: Done<Result<(), String>>) {
        done(Err(format!("there is no other process: {service} is a part of this one, which logs by one filter")));
    }
}

impl Spread for NoPeers {
    fn spread(&self, _: &FaultChange, done: Done<Result<(), String>>) {
        done(Ok(()));
    }
}
