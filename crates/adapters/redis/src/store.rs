//! A ledger in Redis, as its service sees it.

use std::fmt;
use std::sync::Arc;

use ledger::{LedgerCommand, LedgerReply};
use orchestrator::{Done, LedgerAnswer, LedgerQuery, LedgerStore, StoreFailure};
use protocol::Name;
use redis::Value;

use crate::audit::Audit;
use crate::codec::{self, Unreadable};
use crate::error::OpenError;
use crate::options::Options;
use crate::script::{ACCOUNT, BRANCH, LEDGER};
use crate::writer::{Job, Shared, Statistics, Writer};

/// A service's ledger in Redis or Valkey. A clone is another handle to the same connection; any number of processes may have the same
/// ledger open.
///
/// **Callbacks** run on the store's own thread, or on the calling one before the call returns. Every batch waits while one runs: hand the
/// answer on and return.
#[derive(Clone)]
pub struct RedisLedger {
    writer: Arc<Writer>,
    base: Arc<str>,
}

impl fmt::Debug for RedisLedger {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisLedger").field("base", &self.base).finish_non_exhaustive()
    }
}

/// The one answer to one call.
fn only(values: &[Value]) -> Result<&Value, Unreadable> {
    match values {
        [value] => Ok(value),
        several => Err(Unreadable(format!("{} answers to one call", several.len()))),
    }
}

impl RedisLedger {
    /// Opens the ledger of `service`, such as `stock`: connects, and asks the server whether it gives what `options` ask for. An empty
    /// server holds an empty ledger.
    ///
    /// # Errors
    /// [`OpenError`]: an option is out of bounds, nobody answers, or the server cannot give what was asked for.
    pub fn open(service: Name, options: &Options) -> Result<Self, OpenError> {
        // One partition: a branch's accounts must be on one node, and a partition is what a node has.
        let base = format!("{{settle:{service}:0}}:");
        let writer = Writer::open(service.as_str(), &base, vec![&BRANCH, &ACCOUNT, &LEDGER], options)?;
        Ok(Self { writer: Arc::new(writer), base: base.into() })
    }

    /// Sends what waits, ends the thread, and answers whatever comes later with a failure.
    pub fn close(&self) {
        self.writer.close();
    }

    /// What the store has done since it was opened.
    pub fn statistics(&self) -> Statistics {
        self.writer.shared.statistics()
    }

    /// Why there is no connection to a master that can be used, if the last attempt to make one failed.
    pub fn trouble(&self) -> Option<String> {
        self.writer.shared.trouble()
    }

    fn ask<R: Send + 'static>(
        &self,
        calls: Vec<crate::script::Words>,
        read: impl FnOnce(Vec<Value>) -> Result<R, Unreadable> + Send + 'static,
        done: Done<Result<R, StoreFailure>>,
    ) {
        // A read changes nothing: one that got no answer was not done.
        let failed = |failure| match failure {
            StoreFailure::Unknown(why) | StoreFailure::NotDone(why) => StoreFailure::NotDone(why),
        };
        let done = move |answer: Result<Vec<Value>, StoreFailure>| {
            let values = answer.map_err(failed);
            done(values.and_then(|values| read(values).map_err(|Unreadable(why)| StoreFailure::NotDone(why))));
        };
        self.writer.shared.submit(Job { calls, done: Box::new(done) });
    }
}

/// Carries a command out that may want to go on: forgetting takes as many steps as there is to forget.
fn carry_out(shared: &Arc<Shared>, base: Arc<str>, command: LedgerCommand, again: bool, done: Answered) {
    let calls = match codec::calls(&base, &command) {
        Ok(calls) if calls.is_empty() => return done(Ok(LedgerReply::Done)),
        Ok(calls) => calls,
        Err(failure) => return done(Err(failure)),
    };
    let rest = Arc::clone(shared);
    let answered = move |answer: Result<Vec<Value>, StoreFailure>| {
        let values = match answer {
            Ok(values) => values,
            Err(failure) => return done(Err(failure)),
        };
        if values.iter().any(codec::wants_more) {
            return carry_out(&rest, base, command, true, done);
        }
        // Of several calls all answer the same: done.
        let reply = values.last().map_or(Ok(LedgerReply::Done), codec::reply);
        // It was carried out, and this program cannot tell how.
        done(reply.map_err(|Unreadable(why)| StoreFailure::Unknown(why)));
    };
    let job = Job { calls, done: Box::new(answered) };
    if again { shared.go_on(job) } else { shared.submit(job) }
}

type Answered = Done<Result<LedgerReply, StoreFailure>>;

impl LedgerStore for RedisLedger {
    fn submit(&self, command: LedgerCommand, done: Answered) {
        carry_out(&self.writer.shared, Arc::clone(&self.base), command, false, done);
    }

    fn read(&self, query: LedgerQuery, done: Done<Result<LedgerAnswer, StoreFailure>>) {
        let base = &self.base;
        match query {
            LedgerQuery::Account(id) => {
                let read = |values: Vec<Value>| codec::found_account(only(&values)?).map(LedgerAnswer::Account);
                self.ask(codec::account_call(base, id), read, done);
            }
            LedgerQuery::Branches(ids) => {
                if ids.is_empty() {
                    return done(Ok(LedgerAnswer::Branches(Vec::new())));
                }
                let read = |values: Vec<Value>| {
                    let parts = values.iter().map(codec::found_branches).collect::<Result<Vec<_>, _>>()?;
                    Ok(LedgerAnswer::Branches(parts.into_iter().flatten().collect()))
                };
                self.ask(codec::branches_calls(base, &ids), read, done);
            }
            LedgerQuery::Open { prepared_before, executed_before, limit } => {
                let read = move |values: Vec<Value>| codec::found_open(only(&values)?, limit).map(LedgerAnswer::Open);
                self.ask(codec::open_call(base, prepared_before, executed_before, limit), read, done);
            }
            LedgerQuery::Youngest => {
                let read = |values: Vec<Value>| codec::found_youngest(only(&values)?).map(LedgerAnswer::Youngest);
                self.ask(codec::youngest_call(base), read, done);
            }
            LedgerQuery::Audit => Audit::begin(Arc::clone(&self.writer.shared), Arc::clone(base), done),
        }
    }

    fn stopped(&self) -> Option<String> {
        self.writer.shared.stopped()
    }
}
