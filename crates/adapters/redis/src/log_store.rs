//! The transaction log in Redis, and the part of it that is the application's.

use std::fmt;
use std::sync::{Arc, LazyLock};

use orchestrator::{Done, Log, LogAnswer, LogError, LogQuery, StoreFailure};
use parking_lot::Mutex;
use protocol::limits::MAX_PAGE;
use protocol::log::{LogCommand, LogReply, Record, StageRefusal, Standing};
use protocol::{Name, Timestamp, Transaction, TransactionId};
use redis::Value;

use crate::answers::{Unreadable, only};
use crate::error::OpenError;
use crate::options::Options;
use crate::queue::Answers;
use crate::script::{Script, Words};
use crate::store::{ScriptStore, not_done};

mod codec;

/// Lua that stands in front of every script of the log, and of those of an application that looks into it.
pub const LOG_LUA: &str = include_str!("scripts/log/records.lua");

/// What is kept in a log without an application, and the version of how.
const KIND: &str = "log 1";

static PLAIN: LazyLock<LogScripts> = LazyLock::new(|| {
    LogScripts::new(&["local function claim() return '' end local function conclude() end local function look() end"])
});

/// The scripts of a log, the application's part among them.
///
/// The application's part is Lua behind [`LOG_LUA`], so `call`, `base` and the functions of that are at hand. What it defines runs in the same
/// step as what the log does.
#[derive(Debug)]
pub struct LogScripts {
    pub(crate) commands: Script,
    pub(crate) log: Script,
}

impl LogScripts {
    /// The scripts with the application's part, which defines three functions. They see what the commands before them in the same call have
    /// done through `get(hash, field)`, and do with `put(hash, field, value)` what those behind them see; it is written at the end.
    ///
    /// `local function claim(id, at)` is called for a transaction that is about to be staged: what it is given of it, by the function handed
    /// to [`RedisLog::within`], stands in `ARGV` from `at` on, and the number of the connection ([`ScriptStore::connection`]) in `ARGV[1]`. It
    /// returns a note without a line feed, which is kept with the transaction; or, having written nothing, `nil`, a code and a detail: then
    /// the stage is refused.
    ///
    /// `local function conclude(id, note, commit)` is called once, when the transaction is decided.
    ///
    /// `local function look(at)` answers a question of the application's own, whose words ([`RedisLog::look`]) stand in `ARGV` from `at` on:
    /// nothing, a text, or a list of texts.
    pub fn new(application: &[&str]) -> Self {
        let commands = [&[LOG_LUA], application, &[include_str!("scripts/log/commands.lua")]].concat();
        let log = [LOG_LUA, include_str!("scripts/log/log.lua")];
        Self { commands: Script::new(&commands), log: Script::new(&log) }
    }

    /// All of them, for [`ScriptStore::open`].
    pub fn all(&'static self) -> Vec<&'static Script> {
        vec![&self.commands, &self.log]
    }
}

/// Finished transactions, and where the next page begins, if there is one.
pub type EndedPage = (Vec<(TransactionId, Record)>, Option<String>);

/// Adds to a stage's call what the application's `claim` is given of the transaction.
pub type ClaimWords = fn(&Transaction, &mut Words);

/// A transaction log in Redis or Valkey. **Leases go by the server's clock**, not by those of the instances. A clone is another handle to the
/// same connection; any number of processes may have the same log open, each writing under its own name and epoch.
#[derive(Clone)]
pub struct RedisLog {
    store: ScriptStore,
    scripts: &'static LogScripts,
    claim: ClaimWords,
    by_callers_time: bool,
}

impl fmt::Debug for RedisLog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisLog").field("store", &self.store).finish_non_exhaustive()
    }
}

fn log_error(failure: StoreFailure) -> LogError {
    LogError(failure.to_string())
}

impl RedisLog {
    /// Opens a log that has nothing to do with the application's data.
    ///
    /// # Errors
    /// Those of [`ScriptStore::open`].
    pub fn open(service: Name, options: &Options) -> Result<Self, OpenError> {
        let store = ScriptStore::open(service, KIND, PLAIN.all(), options)?;
        Ok(Self::within(store, &PLAIN, |_, _| {}))
    }

    /// The log that lives in a store with the application's data. The store was opened with these `scripts`, and more.
    pub fn within(store: ScriptStore, scripts: &'static LogScripts, claim: ClaimWords) -> Self {
        Self { store, scripts, claim, by_callers_time: false }
    }

    /// For tests that compare histories: leases go by the time that commands name, not by the server's.
    #[doc(hidden)]
    #[must_use]
    pub fn by_callers_time(mut self) -> Self {
        self.by_callers_time = true;
        self
    }

    /// The store that the log is in.
    pub fn store(&self) -> &ScriptStore {
        &self.store
    }

    /// A question to the application's part, to which its words are to be added. It goes with the commands of the log in one call.
    pub fn look(&self) -> Words {
        let mut words = Words::of(&self.scripts.commands);
        words.word("look");
        words
    }

    /// Carries a command out. [`Log::append`] is the same, with an error that says less.
    pub fn submit(&self, command: LogCommand, done: Done<Result<LogReply, StoreFailure>>) {
        let log = self.clone();
        self.store.carry_out(move || log.calls(&command), codec::reply, done);
    }

    /// The youngest birth of a transaction that the log knows of, its floor included.
    pub fn youngest(&self, done: Done<Result<Timestamp, StoreFailure>>) {
        self.store.ask(self.plain_call("youngest"), |values| codec::youngest(&values), done);
    }

    /// How many records there ever were, and how many transactions are not finished. If both are what they were, and nothing was open, then no transaction
    /// was under way in between.
    pub fn progress(&self, done: Done<Result<(u64, u64), StoreFailure>>) {
        self.store.ask(self.plain_call("progress"), |values| codec::progress(&values), done);
    }

    /// A page of about so many transactions that are finished, tombstones left out, and where the next one begins; the first at an empty cursor. Who
    /// goes on meets each that was there all the while; one may be met twice.
    pub fn ended(&self, after: &str, about: usize, done: Done<Result<EndedPage, StoreFailure>>) {
        let cursor = if after.is_empty() { "0" } else { after };
        self.store.ask(self.ended_call(cursor, about), |values| codec::ended(&values), done);
    }

    /// Reads the unfinished transactions page by page: what is open is bounded by what the instances have in flight, but a script should hold up
    /// nobody. So each of them is seen at a moment of its own.
    fn read_open(self, after: String, mut found: Found, done: Done<Result<LogAnswer, StoreFailure>>, go_on: bool) {
        let (calls, store) = (self.oldest_call(&after), self.store.clone());
        let turn = move |answer: Answers| {
            let page = answer.map_err(not_done).and_then(|values| codec::oldest(&values).map_err(unreadable));
            match page {
                Err(failure) => done(Err(failure)),
                Ok((page, instances, now)) => match page.last() {
                    None => {
                        let now = (!self.by_callers_time).then_some(now);
                        done(Ok(LogAnswer::Open { records: found, instances, now }));
                    }
                    Some((last, _)) => {
                        let after = last.to_string();
                        found.extend(page);
                        self.read_open(after, found, done, true);
                    }
                },
            }
        };
        send(&store, calls, Box::new(turn), go_on);
    }

    /// Reads unfinished transactions, the latest first, until there are enough that stand as asked; and finished ones behind them.
    fn list(self, listing: Listing, mut found: Found, done: Done<Result<LogAnswer, StoreFailure>>, go_on: bool) {
        let finished = matches!(listing.standing, None | Some(Standing::Finished));
        if found.len() >= listing.limit || (listing.before.is_none() && !finished) {
            found.truncate(listing.limit);
            return done(Ok(LogAnswer::Listing(found)));
        }
        let store = self.store.clone();
        let calls = match &listing.before {
            Some(before) => self.latest_call(before),
            None => self.finished_call(listing.limit - found.len()),
        };
        let turn = move |answer: Answers| {
            let page =
                answer.map_err(not_done).and_then(|values| only(&values).and_then(codec::rows).map_err(unreadable));
            let page = match page {
                Ok(page) => page,
                Err(failure) => return done(Err(failure)),
            };
            let before = page.last().map(|(id, _)| id.to_string());
            let wanted = |record: &Record| listing.standing.is_none_or(|standing| record.standing() == standing);
            if listing.before.is_none() {
                // One may have finished since it was seen unfinished.
                let fresh: Vec<_> =
                    page.into_iter().filter(|(id, _)| !found.iter().any(|(seen, _)| seen == id)).collect();
                found.extend(fresh);
                return done(Ok(LogAnswer::Listing(found)));
            }
            found.extend(page.into_iter().filter(|(_, record)| wanted(record)));
            self.list(Listing { before, ..listing }, found, done, true);
        };
        send(&store, calls, Box::new(turn), go_on);
    }
}

fn send(store: &ScriptStore, calls: Vec<Words>, done: Done<Answers>, go_on: bool) {
    if go_on { store.go_on(calls, done) } else { store.submit(calls, done) }
}

fn unreadable(Unreadable(why): Unreadable) -> StoreFailure {
    StoreFailure::NotDone(why)
}

type Found = Vec<(TransactionId, Record)>;

/// How far a listing has come.
struct Listing {
    standing: Option<Standing>,
    limit: usize,
    /// The unfinished ones below this are next; when there are none left, the finished ones.
    before: Option<String>,
}

impl Log for RedisLog {
    fn append(&self, command: LogCommand, done: Done<Result<LogReply, LogError>>) {
        let stage = matches!(command, LogCommand::Stage { .. });
        let told = move |answer| {
            done(match answer {
                // A stage that certainly did not leave is known not to be there: nobody has to wait until the log can be asked.
                Err(StoreFailure::NotDone(_)) if stage => Ok(LogReply::StageRefused(StageRefusal::NotSent)),
                other => other.map_err(log_error),
            });
        };
        self.submit(command, Box::new(told));
    }

    fn decide(
        &self,
        command: LogCommand,
        readable: Done<Result<LogReply, LogError>>,
        durable: Done<Result<LogReply, LogError>>,
    ) {
        let calls = match self.calls(&command) {
            Ok(calls) => calls,
            Err(failure) => {
                readable(Err(log_error(failure.clone())));
                return durable(Err(log_error(failure)));
            }
        };
        let read = |values: &[Value]| {
            codec::reply(values)
                .map_err(|Unreadable(why)| LogError(format!("it is not known whether this was done: {why}")))
        };
        // Whoever comes first takes it.
        let waiting = Arc::new(Mutex::new(Some(readable)));
        let early = Arc::clone(&waiting);
        let tell_early = move |values: Vec<Value>| {
            let readable = early.lock().take();
            if let Some(readable) = readable {
                readable(read(&values));
            }
        };
        let tell = move |answer: Answers| {
            let answer = answer.map_err(log_error).and_then(|values| read(&values));
            let readable = waiting.lock().take();
            if let Some(readable) = readable {
                readable(answer.clone());
            }
            durable(answer);
        };
        self.store.submit_readable(calls, Box::new(tell_early), Box::new(tell));
    }

    fn read(&self, query: LogQuery, done: Done<Result<LogAnswer, LogError>>) {
        let done: Done<Result<LogAnswer, StoreFailure>> = Box::new(|found| done(found.map_err(log_error)));
        match query {
            LogQuery::Open => self.clone().read_open(String::new(), Vec::new(), done, false),
            LogQuery::Transaction(id) => {
                let read = |values: Vec<Value>| {
                    let found = codec::rows(only(&values)?)?.pop();
                    Ok(LogAnswer::Transaction(found.map(|(_, record)| Box::new(record))))
                };
                self.store.ask(self.transaction_call(id), read, done);
            }
            LogQuery::Listing { standing, limit } => {
                let before = (standing != Some(Standing::Finished)).then(String::new);
                let listing = Listing { standing, limit: limit.min(MAX_PAGE), before };
                self.clone().list(listing, Vec::new(), done, false);
            }
        }
    }
}
