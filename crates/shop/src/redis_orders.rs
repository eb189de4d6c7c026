//! The orders and their transaction log in Redis or Valkey, for order services that are processes of their own, any number of them.
//!
//! ```text
//!   OrderStore ──► recall: what was seen before, from memory
//!                  book.lua: create, add, replace, questions ──┐
//!                  one order ───────────────────────────┐      ├──► one connection, one queue ──► {settle:orders:0}:…
//!   Log ─────────► stage and decide: commands.lua with ─┴──────┤
//!                  claim.lua and conclude.lua                  │
//!                  all else: log.lua                         ──┘
//! ```
//!
//! What a command does is decided by a script, so in one step; its word is that of [`crate::orders::OrderBook`], with which a test compares it on random
//! histories. The log's part of the scripts is the adapter's; see there for its keys, and for what an answer rests on. The orders'
//! own are:
//!
//! | key                 | what it is                                                                                             |
//! |---------------------|--------------------------------------------------------------------------------------------------------|
//! | `orders`            | hash: each order that anybody has touched, as one text                                                 |
//! | `book`              | hash: the last `version`; `seeds`, which say what the untouched ones are                               |
//! | `replaced`          | hash: what paid ones came to that were replaced and overwritten: how many, by user, by item            |
//! | `keys`, `key_order` | hash and list: idempotency keys, with the first answers; their times, each with its key                |
//! | `trail`, `trail_outcomes` | hashes: the operators' trail by number, the last of which is in `book`: what was to be done; what came of it |
//!
//! **Replacing** a million orders writes one line into `seeds`. What an order that nobody has changed since holds is drawn from it, with the
//! order book's own generator; the scripts have it, too, for when such an order is added to. A paid one that was replaced still counts, as it stands, until it is overwritten, and then in `replaced`.

use std::sync::{Arc, LazyLock};

use ledger::EntityId;
use orchestrator::{Done, Log, LogAnswer, LogError, LogQuery, StoreFailure};
use protocol::limits::MAX_PAGE;
use protocol::log::{LogCommand, LogReply, StageRefusal};
use protocol::{Name, Timestamp, Transaction};
use redis_store::answers::{Unreadable, only};
use redis_store::{
    KEYS_LUA, LOG_LUA, LogScripts, OpenError, Options, RedisLog, Script, ScriptStore, Statistics, Value, Words,
};

use crate::checkout::Claim;
use crate::order_store::{OrderStore, OrdersAnswer, OrdersQuery, Progress};
use crate::orders::{Order, OrdersCommand, OrdersReply};
use recollection::{Recollection, over, parted};

mod audit;
mod codec;
mod recollection;

/// What is kept, and the version of how.
const KIND: &str = "orders 2";
/// The name that the orders' keys have.
pub const ORDERS: Name = Name::literal("orders");

const ORDERS_LUA: &str = include_str!("scripts/orders.lua");

static LOG: LazyLock<LogScripts> = LazyLock::new(|| {
    LogScripts::new(&[ORDERS_LUA, include_str!("scripts/claim.lua"), include_str!("scripts/conclude.lua")])
});
static BOOK: LazyLock<Script> =
    LazyLock::new(|| Script::new(&[LOG_LUA, KEYS_LUA, ORDERS_LUA, include_str!("scripts/book.lua")]));

/// What a stage's script is told of the claim.
fn claim_words(transaction: &Transaction, words: &mut Words) {
    match Claim::decode(&transaction.context) {
        Ok(claim) => {
            let (connection, version) = parted(claim.version);
            words.word(&claim.order.to_string()).word(&version.to_string()).word(&connection.to_string())
        }
        Err(refusal) => words.word("malformed").word(refusal.code.as_str()).word(&*refusal.detail),
    };
}

/// The orders' database in Redis. A clone is another handle to the same connection.
///
/// **Callbacks** run on the store's own thread, or on the calling one before the call returns. Every batch waits while one runs: hand the
/// answer on and return.
#[derive(Debug, Clone)]
pub struct RedisOrders {
    store: ScriptStore,
    log: RedisLog,
    recollection: Arc<Recollection>,
}

impl RedisOrders {
    /// Opens the orders: connects, and asks the server whether it gives what `options` ask for. An empty server holds no orders.
    ///
    /// # Errors
    /// Those of [`ScriptStore::open`].
    pub fn open(options: &Options) -> Result<Self, OpenError> {
        let mut scripts = LOG.all();
        scripts.push(&BOOK);
        let store = ScriptStore::open(ORDERS, KIND, scripts, options)?;
        let log = RedisLog::within(store.clone(), &LOG, claim_words);
        Ok(Self { store, log, recollection: Arc::default() })
    }

    /// For tests that compare histories: leases go by the time that commands name, not by the server's.
    #[doc(hidden)]
    #[must_use]
    pub fn by_callers_time(self) -> Self {
        Self { log: self.log.by_callers_time(), ..self }
    }

    /// The time by the server's clock, which is the same for all processes that have the orders open.
    pub fn time(&self, done: Done<Result<Timestamp, StoreFailure>>) {
        self.store.time(done);
    }

    /// The store itself, for what is neither an order nor a transaction.
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

    fn call(&self, what: &str) -> Words {
        let mut words = self.store.call(&BOOK);
        words.word(what);
        words
    }

    /// What asks for an order, and what reads the answer. If it `goes_on`, the order is looked at in order to claim it.
    fn order_call(
        &self,
        id: EntityId,
        goes_on: bool,
    ) -> (Vec<Words>, impl FnOnce(Vec<Value>) -> Result<OrdersAnswer, Unreadable> + Send + 'static) {
        let (mut call, orders) = (self.log.look(), self.clone());
        call.word(&id.to_string());
        let read = move |values: Vec<Value>| {
            let Some(shown) = codec::order(id, only(&values)?)? else { return Ok(OrdersAnswer::Order(None)) };
            let connection = orders.store.connection();
            orders.recollection.saw(connection, id, &shown, goes_on);
            let mut order = shown.order;
            if goes_on {
                order.version = over(connection, order.version);
            }
            Ok(OrdersAnswer::Order(Some(order)))
        };
        (vec![call], read)
    }

    /// Takes in what the answer to a command says of an order.
    fn learn(&self, command: &OrdersCommand, answer: &Value) {
        match command {
            OrdersCommand::AddItem { order, .. } => {
                if let Some(shown) = codec::added_to(*order, answer) {
                    self.recollection.saw(self.store.connection(), *order, &shown, false);
                }
            }
            OrdersCommand::Replace { .. } => self.recollection.clear(),
            _ => {}
        }
    }

    /// How far the log has come, and how many replaced orders were overwritten: what an audit's sums hang on.
    fn progress(&self, done: Done<Result<Progress, StoreFailure>>) {
        let orders = self.clone();
        self.log.progress(Box::new(move |told| match told {
            Err(failure) => done(Err(failure)),
            Ok((ever, open)) => {
                let read = move |values: Vec<Value>| {
                    let buried: u64 = codec::number(only(&values)?)?;
                    Ok(Progress { sequence: ever + buried, open })
                };
                orders.store.ask(vec![orders.call("buried")], read, done);
            }
        }));
    }
}

impl OrderStore for RedisOrders {
    fn submit(&self, command: OrdersCommand, done: Done<Result<OrdersReply, StoreFailure>>) {
        if let OrdersCommand::Log(command) = command {
            return self.log.submit(command, Box::new(|answer| done(answer.map(OrdersReply::Log))));
        }
        let (orders, command) = (self.clone(), Arc::new(command));
        let (learning, told) = (self.clone(), Arc::clone(&command));
        let reply = move |values: &[Value]| {
            let answer = only(values)?;
            learning.learn(&told, answer);
            codec::reply(answer)
        };
        self.store.carry_out(move || orders.command_call(&command).map(|call| vec![call]), reply, done);
    }

    fn query(&self, query: OrdersQuery, done: Done<Result<OrdersAnswer, StoreFailure>>) {
        match query {
            OrdersQuery::Order(id) => {
                let (calls, read) = self.order_call(id, false);
                self.store.ask(calls, read, done);
            }
            OrdersQuery::IsKeyReused(key) => {
                let mut call = self.call("is_reused");
                call.word(&*key.key).word(&format!("{:x}", key.fingerprint));
                let read = |values: Vec<Value>| {
                    let reused: Result<u8, Unreadable> = codec::number(only(&values)?);
                    Ok(OrdersAnswer::IsKeyReused(reused? == 1))
                };
                self.store.ask(vec![call], read, done);
            }
            OrdersQuery::Youngest => self.log.youngest(Box::new(|told| done(told.map(OrdersAnswer::Youngest)))),
            OrdersQuery::Progress => self.progress(Box::new(|told| done(told.map(OrdersAnswer::Progress)))),
            OrdersQuery::Audit => audit::begin(self.clone(), done),
            OrdersQuery::Trail(limit) => {
                let mut call = self.call("trail");
                call.word(&limit.min(MAX_PAGE).to_string());
                let read = |values: Vec<Value>| codec::trail(only(&values)?).map(OrdersAnswer::Trail);
                self.store.ask(vec![call], read, done);
            }
            OrdersQuery::Look(look) => audit::look(self, &look, done),
        }
    }

    fn peek(&self, query: OrdersQuery, done: Done<Result<OrdersAnswer, StoreFailure>>) {
        match query {
            OrdersQuery::Order(id) => {
                let (calls, read) = self.order_call(id, true);
                self.store.peek(calls, read, done);
            }
            other => self.query(other, done),
        }
    }

    fn recall(&self, id: EntityId) -> Option<Order> {
        self.recollection.recall(self.store.connection(), id)
    }

    fn stopped(&self) -> Option<String> {
        self.store.stopped()
    }
}

impl Log for RedisOrders {
    fn append(&self, command: LogCommand, done: Done<Result<LogReply, LogError>>) {
        let LogCommand::Stage { transaction, .. } = &command else { return self.log.append(command, done) };
        let (orders, claim) = (self.clone(), Claim::decode(&transaction.context));
        if let Ok(claim) = claim {
            self.recollection.is_claimed(self.store.connection(), claim.order);
        }
        let told = move |answer| {
            if let (Ok(LogReply::StageRefused(StageRefusal::Application(_))), Ok(claim)) = (&answer, claim) {
                orders.recollection.was_wrong(orders.store.connection(), claim);
            }
            done(answer);
        };
        self.log.append(command, Box::new(told));
    }

    fn decide(
        &self,
        command: LogCommand,
        readable: Done<Result<LogReply, LogError>>,
        durable: Done<Result<LogReply, LogError>>,
    ) {
        self.log.decide(command, readable, durable);
    }

    fn read(&self, query: LogQuery, done: Done<Result<LogAnswer, LogError>>) {
        self.log.read(query, done);
    }
}
