//! Which databases belong together. A service finds its database by an address, and the others by a broker, and either may be wrong: a database that came
//! back without its files, an address of the staging system, a second system on one broker. Each alone looks well, and a charge to the wrong one is lost.
//! So each database notes, once and for all, the identity of the one that it belongs to, and each side asks the other before anything moves.
//!
//! | who starts     | asks                  | and goes on if                                            | if it is otherwise            |
//! |----------------|-----------------------|-----------------------------------------------------------|-------------------------------|
//! | stock, payment | any order instance    | the orders have noted this ledger, and this ledger them   | takes nothing, and stops      |
//! | order          | stock, then payment   | a ledger says that it belongs to these orders             | sends no command, and stops   |
//!
//! Whoever has noted nothing yet, notes whom it meets first. A ledger that has belonged to a system goes on by itself if nobody answers: its database says
//! that it is the one. Commands and what is asked about them say whose they are, and are nobody else's: several systems may share a broker and not know.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use nats::{NatsTransport, To};
use orchestrator::{Done, StoreFailure, Transport};
use protocol::{Command, Name, Reply, Unknown};
use redis_store::ScriptStore;
use shop::checkout::{PAYMENT, STOCK};
use shop::problem::Problem;
use shop::questions::{Answer, Question};
use shop::redis_orders::ORDERS;

use super::asking::Others;

/// How soon somebody who has not answered is asked again.
const AGAIN: Duration = Duration::from_millis(100);
/// How long one of them may take to answer. One of several instances may be frozen, and another is asked the next time.
const ANSWER: Duration = Duration::from_millis(300);
/// How long a ledger that has belonged to a system asks before it goes on without an answer.
const ALONE: Duration = Duration::from_secs(1);
/// How long only strangers answer before an order instance takes that for a mistake of its own: others may share the broker.
const STRANGERS: Duration = Duration::from_millis(500);
/// How long a request to a ledger waits for that to be certain: longer than one that has belonged to a system asks.
const PATIENCE: Duration = Duration::from_secs(2);
/// The name under which a ledger notes its system.
const SYSTEM: &str = "system";

type Told = Result<String, StoreFailure>;

async fn told(ask: impl FnOnce(Done<Told>)) -> Told {
    let (send, answer) = tokio::sync::oneshot::channel();
    ask(Box::new(|told| _ = send.send(told)));
    answer.await.unwrap_or_else(|_| Err(StoreFailure::Unknown("the database is closed".to_owned())))
}

/// What a ledger has noted of its system: nothing, if it is new. Waits for its database.
async fn noted(ledger: &ScriptStore) -> Option<String> {
    loop {
        let (send, answer) = tokio::sync::oneshot::channel();
        ledger.noted(SYSTEM, Box::new(|told| _ = send.send(told)));
        if let Ok(Ok(noted)) = answer.await {
            return noted;
        }
        tokio::time::sleep(AGAIN).await;
    }
}

/// Waits until it is certain to which system a ledger belongs, and says to which.
///
/// # Errors
/// If it is not the ledger that the orders know, or they are not those that it knows: it must take no command.
pub(super) async fn join(service: Name, ledger: &ScriptStore, others: &Others) -> Result<String, String> {
    let belongs = noted(ledger).await;
    let own = ledger.identity();
    let (since, mut said) = (Instant::now(), false);
    loop {
        let question = Question::Join { service, ledger: own.to_owned(), system: belongs.clone() };
        match others.answer(To::Service(ORDERS), &question, ANSWER).await {
            Ok(Answer::Joined { ledger: known, .. }) if known != own => {
                return Err(another_ledger(service, own, &known));
            }
            Ok(Answer::Joined { system, .. }) => match told(|done| ledger.note_once(SYSTEM, &system, done)).await {
                Ok(stands) if stands == system => return Ok(system),
                Ok(stands) => return Err(other_orders(service, &stands, &system)),
                Err(why) => tracing::warn!(%why, "cannot note to which orders it belongs: tries again"),
            },
            Ok(_) | Err(_) if since.elapsed() < ALONE => {}
            Ok(_) | Err(_) => {
                if let Some(system) = belongs {
                    tracing::info!(system, "no order instance answers: goes on as what it was");
                    return Ok(system);
                }
                if !std::mem::replace(&mut said, true) {
                    tracing::warn!(
                        "takes no commands until an order instance has said that this is its ledger, and none answers"
                    );
                }
            }
        }
        tokio::time::sleep(AGAIN).await;
    }
}

fn another_ledger(service: Name, own: &str, known: &str) -> String {
    format!(
        "the {service} database is another one ({own}) than the orders know ({known}): this is the wrong server, or the right one has lost its data and is \
         empty now. Nothing was taken. Mend the address, or restore the data. If what it held is given up for good: \
         `HDEL {{settle:orders:0}}:meta ledger:{service}` in the orders' database, and start this again"
    )
}

fn other_orders(service: Name, known: &str, found: &str) -> String {
    format!(
        "the {service} database belongs to other orders ({known}) than those on this broker ({found}): one of the two is of another system, or the orders' \
         database has lost its data and is empty now. No command was taken. Mend the address, give each system a `nats.prefix` of its own, or restore the \
         data. If the orders that it belonged to are given up for good: `HDEL {{settle:{service}:0}}:meta {SYSTEM}` in this database, and start this again"
    )
}

/// Has a request to a ledger wait until it is certain to which system that belongs.
pub(super) async fn once_joined(State(others): State<Others>, request: Request, next: Next) -> Response {
    if others.system.get().is_none() && tokio::time::timeout(PATIENCE, others.system.wait()).await.is_err() {
        let why =
            "no order instance has said yet that this database is the one that belongs to the orders. Nothing was done";
        return Problem::unavailable(why).retry_later().into_response();
    }
    next.run(request).await
}

/// The ledgers of an order instance: which have said that they belong to its orders.
pub(super) struct Ledgers {
    joined: [(Name, AtomicBool); 2],
    stranger: AtomicBool,
    foreign: OnceLock<String>,
}

impl Ledgers {
    pub(super) fn new() -> Self {
        let joined = [STOCK, PAYMENT].map(|service| (service, AtomicBool::new(false)));
        Self { joined, stranger: AtomicBool::new(false), foreign: OnceLock::new() }
    }

    /// Whether the ledger of this service has said so.
    pub(super) fn has(&self, service: Name) -> bool {
        self.joined.iter().any(|(name, joined)| *name == service && joined.load(Ordering::Acquire))
    }

    /// Those that have not said so yet.
    pub(super) fn silent(&self) -> Vec<&str> {
        let silent = self.joined.iter().filter(|(_, joined)| !joined.load(Ordering::Acquire));
        silent.map(|(name, _)| name.as_str()).collect()
    }

    /// Whether one has said that it is not theirs: another may be.
    pub(super) fn met_a_stranger(&self) -> bool {
        self.stranger.load(Ordering::Acquire)
    }

    /// Why one of them must not be sent anything, if that is so.
    pub(super) fn foreign(&self) -> Option<String> {
        self.foreign.get().cloned()
    }

    /// Asks a service until it has said to which system it belongs.
    pub(super) async fn meet(self: Arc<Self>, service: Name, system: String, others: Others) {
        let mut stranger = None;
        loop {
            match others.answer(To::Service(service), &Question::System, ANSWER).await {
                Ok(Answer::System(said)) if said == system => {
                    let found = self.joined.iter().find(|(name, _)| *name == service);
                    return found.into_iter().for_each(|(_, joined)| joined.store(true, Ordering::Release));
                }
                Ok(Answer::System(said)) => {
                    self.stranger.store(true, Ordering::Release);
                    if stranger.get_or_insert_with(Instant::now).elapsed() >= STRANGERS {
                        _ = self.foreign.set(other_orders(service, &said, &system));
                        return;
                    }
                }
                Ok(_) | Err(_) => {}
            }
            tokio::time::sleep(AGAIN).await;
        }
    }
}

/// The way to the participants that are known to be the right ones. The others count as not there.
pub(super) struct ToJoined {
    /// The way to all.
    pub(super) all: NatsTransport,
    /// Which are known.
    pub(super) ledgers: Arc<Ledgers>,
}

impl Transport for ToJoined {
    fn knows(&self, service: &Name) -> bool {
        self.all.knows(service)
    }

    fn send(&self, service: &Name, command: Command, done: Done<Reply>) {
        if self.ledgers.has(*service) {
            self.all.send(service, command, done);
        } else {
            done(Reply::Unknown(Unknown::Unreachable));
        }
    }
}
