//! What the services need of each other, whether they share a process or not.
//!
//! | port         | who asks          | in one process                        | as processes of their own              |
//! |--------------|-------------------|---------------------------------------|----------------------------------------|
//! | [`Verdicts`] | stock, payment    | the engine                            | any order instance                     |
//! | [`Prices`]   | orders            | the stock service                     | any stock instance                     |
//! | [`Peers`]    | orders            | [`NoPeers`]: nobody else drives anything | the order instance that drives it   |
//! | [`Looks`]    | orders, to audit  | [`LedgersHere`]                       | any instance of the service            |
//! | [`Spread`]   | stock, payment    | [`NoPeers`]: there is nobody else     | every other instance of the service    |

use std::sync::Arc;

use ledger::EntityId;
use orchestrator::{Done, Engine, LedgerAnswer, LedgerQuery, LedgerStore, LogError, Look, Retried, Seen, StoreFailure};
use protocol::limits::MAX_PAGE;
use protocol::log::Verdict;
use protocol::{Name, Sending, TransactionId};
use serde::{Deserialize, Serialize};

use crate::checkout::PAYMENT;
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

/// Someone who lets an audit look at the ledgers of stock and payment.
pub trait Looks: Send + Sync + 'static {
    /// Looks at the ledger of `service`; `done` hears what it shows, or why it shows nothing.
    fn look(&self, service: Name, look: Look, done: Done<Result<Seen, String>>);
}

/// The ledgers of this process: stock's and payment's.
#[derive(Clone)]
pub struct LedgersHere {
    /// Stock's.
    pub stock: Arc<dyn LedgerStore>,
    /// Payment's.
    pub payment: Arc<dyn LedgerStore>,
}

impl Looks for LedgersHere {
    fn look(&self, service: Name, look: Look, done: Done<Result<Seen, String>>) {
        let store = if service == PAYMENT { &self.payment } else { &self.stock };
        look_at(&**store, look, done);
    }
}

/// Looks at a ledger of this process.
pub fn look_at(store: &dyn LedgerStore, look: Look, done: Done<Result<Seen, String>>) {
    let told = |answer| match answer {
        Ok(LedgerAnswer::Seen(seen)) => done(Ok(seen)),
        Ok(_) => done(Err("an answer to another question".to_owned())),
        Err(failure) => done(Err(StoreFailure::to_string(&failure))),
    };
    store.read(LedgerQuery::Look(look), Box::new(told));
}

/// The other instances of the order service.
pub trait Peers: Send + Sync + 'static {
    /// Asks `owner` how far a transaction of its own is: now, or, with `waits`, once it can say [`Told::Answered`].
    fn ask(&self, owner: Name, id: TransactionId, waits: bool, done: Done<Told>);

    /// Has `owner` do what an operator wants of transactions that it drives; `done` hears `None` if it cannot be reached.
    fn operate(&self, owner: Name, operation: Operation, done: Done<Option<Operated>>);

    /// Asks `leader` for the last word of its continuous audit, as JSON; `done` hears `None` if it cannot be reached.
    fn auditor(&self, leader: Name, done: Done<Option<Vec<u8>>>);

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
    States(Vec<Option<Driven>>),
    /// To the others: whether the transaction is driven there.
    Driven(bool),
    /// To [`Operation::Retry`]: it is driven no longer, because nothing is left of it; its log may not have been told yet.
    Finished,
}

/// How far a transaction is, as whoever drives it says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Driven {
    /// What its coordinator is doing.
    pub state: String,
    /// How far each participant is.
    pub sendings: Vec<Sending>,
}

impl Driven {
    /// As an engine says, if it drives it.
    pub fn by(engine: &Engine, id: TransactionId) -> Option<Self> {
        engine.progress_of(id).map(|(state, sendings)| Self { state: state.to_owned(), sendings })
    }
}

impl Operation {
    /// Has an engine do it.
    pub fn at(self, engine: &Arc<Engine>) -> Operated {
        match self {
            Self::States(ids) => {
                Operated::States(ids.into_iter().take(MAX_PAGE).map(|id| Driven::by(engine, id)).collect())
            }
            Self::Retry(id) => match engine.retry(id) {
                Retried::SentAgain => Operated::Driven(true),
                Retried::NotDriven => Operated::Driven(false),
                Retried::Finished => Operated::Finished,
            },
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

    fn auditor(&self, _: Name, done: Done<Option<Vec<u8>>>) {
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
