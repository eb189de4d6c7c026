//! A ledger in Redis, as its service sees it.

use std::fmt;
use std::sync::Arc;

use ledger::{LedgerCommand, LedgerReply};
use orchestrator::{Done, LedgerAnswer, LedgerQuery, LedgerStore, StoreFailure};
use protocol::{Name, Timestamp};
use redis::Value;

use crate::answers::only;
use crate::error::OpenError;
use crate::options::Options;
use crate::statistics::Statistics;
use crate::store::ScriptStore;

mod audit;
mod codec;
mod look;

use audit::Audit;
use codec::{ACCOUNT, BRANCHES, LEDGER};

/// What is kept, and the version of how.
const KIND: &str = "ledger 3";

/// A service's ledger in Redis or Valkey. A clone is another handle to the same connection; any number of processes may have the same
/// ledger open.
///
/// **Callbacks** run on the store's own thread, or on the calling one before the call returns. Every batch waits while one runs: hand the
/// answer on and return.
#[derive(Clone)]
pub struct RedisLedger {
    store: ScriptStore,
}

impl fmt::Debug for RedisLedger {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisLedger").field("base", &self.store.base()).finish_non_exhaustive()
    }
}

impl RedisLedger {
    /// Opens the ledger of `service`, such as `stock`: connects, and asks the server whether it gives what `options` ask for. An empty
    /// server holds an empty ledger.
    ///
    /// # Errors
    /// [`OpenError`]: an option is out of bounds, nobody answers, or the server cannot give what was asked for.
    pub fn open(service: Name, options: &Options) -> Result<Self, OpenError> {
        let store = ScriptStore::open(service, KIND, vec![&BRANCHES, &ACCOUNT, &LEDGER], options)?;
        Ok(Self { store })
    }

    /// The store itself, for what is not the ledger's.
    pub fn store(&self) -> &ScriptStore {
        &self.store
    }

    /// Sends what waits, ends the thread, and answers whatever comes later with a failure.
    pub fn close(&self) {
        self.store.close();
    }

    /// What the store has done since it was opened.
    pub fn statistics(&self) -> Statistics {
        self.store.statistics()
    }

    /// Why there is no connection to a master that can be used, if the last attempt to make one failed.
    pub fn trouble(&self) -> Option<String> {
        self.store.trouble()
    }
}

type Answered = Done<Result<LedgerReply, StoreFailure>>;

impl LedgerStore for RedisLedger {
    fn submit(&self, command: LedgerCommand, done: Answered) {
        let base = Arc::clone(self.store.base());
        let calls = move || codec::calls(&base, &command);
        // Of several calls all answer the same: done.
        let reply = |values: &[Value]| values.last().map_or(Ok(LedgerReply::Done), codec::reply);
        self.store.carry_out(calls, reply, done);
    }

    fn read(&self, query: LedgerQuery, done: Done<Result<LedgerAnswer, StoreFailure>>) {
        let base = self.store.base();
        match query {
            LedgerQuery::Account(id) => {
                let read = |values: Vec<Value>| codec::found_account(only(&values)?).map(LedgerAnswer::Account);
                self.store.ask(codec::account_call(base, id), read, done);
            }
            LedgerQuery::Branches(ids) => {
                if ids.is_empty() {
                    return done(Ok(LedgerAnswer::Branches(Vec::new())));
                }
                let read = |values: Vec<Value>| {
                    let parts = values.iter().map(codec::found_branches).collect::<Result<Vec<_>, _>>()?;
                    Ok(LedgerAnswer::Branches(parts.into_iter().flatten().collect()))
                };
                self.store.ask(codec::branches_calls(base, &ids), read, done);
            }
            LedgerQuery::Open { prepared_before, executed_before, limit } => {
                let read = move |values: Vec<Value>| codec::found_open(only(&values)?, limit).map(LedgerAnswer::Open);
                self.store.ask(codec::open_call(base, prepared_before, executed_before, limit), read, done);
            }
            LedgerQuery::Youngest => {
                let read = |values: Vec<Value>| codec::found_youngest(only(&values)?).map(LedgerAnswer::Youngest);
                self.store.ask(codec::youngest_call(base), read, done);
            }
            LedgerQuery::Look(look) => {
                let (calls, read) = look::ask(base, look);
                self.store.ask(calls, move |values| read(only(&values)?).map(LedgerAnswer::Seen), done);
            }
            LedgerQuery::Audit => Audit::begin(Arc::clone(self.store.shared()), Arc::clone(base), done),
        }
    }

    fn time(&self, done: Done<Result<Timestamp, StoreFailure>>) {
        self.store.time(done);
    }

    fn stopped(&self) -> Option<String> {
        self.store.stopped()
    }
}
