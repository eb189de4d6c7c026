//! What the services need of each other, whether they share a process or not.
//!
//! | port         | who asks          | in one process                        | as processes of their own              |
//! |--------------|-------------------|---------------------------------------|----------------------------------------|
//! | [`Verdicts`] | stock, payment    | the engine                            | any order instance                     |
//! | [`Prices`]   | orders            | the stock service                     | any stock instance                     |
//! | [`Peers`]    | orders            | [`NoPeers`]: nobody else drives anything | the order instance that drives it   |
//! | [`Spread`]   | stock, payment    | [`NoPeers`]: there is nobody else     | every other instance of the service    |

use ledger::EntityId;
use orchestrator::{Done, Engine, LogError};
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
    /// Nobody has been told anything of it yet.
    Unanswered,
    /// It knows nothing of it, or cannot be reached.
    Nothing,
}

/// The other instances of the order service.
pub trait Peers: Send + Sync + 'static {
    /// Asks `owner` how far a transaction of its own is: now, or, with `waits`, once it can say [`Told::Answered`].
    fn ask(&self, owner: Name, id: TransactionId, waits: bool, done: Done<Told>);
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
}

impl Spread for NoPeers {
    fn spread(&self, _: &FaultChange, done: Done<Result<(), String>>) {
        done(Ok(()));
    }
}
