//! Which databases belong together. A service finds its database by an address, and the others by a broker, and either may be wrong: a database that came
//! back without its files, an address of the staging system, a second system on one broker, a database that was given up and is back. Each alone looks
//! well, and a charge to the wrong one is lost. So each database notes, once and for all, the identity of the one that it belongs to, and each side asks the
//! other: before anything moves, and again and again.
//!
//! | who            | asks                  | and goes on if                                            | if it is otherwise            |
//! |----------------|-----------------------|-----------------------------------------------------------|-------------------------------|
//! | stock, payment | any order instance    | the orders have noted this ledger, and this ledger them   | takes nothing, and stops      |
//! | order          | stock, then payment   | a ledger belongs to these orders, and they have noted it  | sends no command, and stops   |
//!
//! Whoever has noted nothing yet, notes whom it meets first. A ledger that has belonged to a system goes on by itself if nobody answers: its database says
//! that it is the one. Commands, and what is asked about them, say for whose they are: several systems may share a broker and not know. So strangers are a
//! reason to stop only if nobody else answers for [`STRANGERS`].

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use anyhow::bail;
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
use crate::exit::Stopped;

/// How soon somebody who has not answered is asked again.
const AGAIN: Duration = Duration::from_millis(100);
/// How often what was found is looked at again.
const CHECK: Duration = Duration::from_secs(2);
/// How long one of them may take to answer at first: one of several instances may be frozen, and another is asked the next time. It is doubled as long as
/// there is no answer, for all may be slow.
const ANSWER: Duration = Duration::from_millis(300);
/// How long one may take at most.
const MOST: Duration = Duration::from_secs(2);
/// How long a ledger that has belonged to a system asks before it goes on without an answer.
const ALONE: Duration = Duration::from_secs(1);
/// How long only strangers answer before that is taken for a mistake of one's own: longer than a restart takes, and long enough to ask some twenty times.
pub(super) const STRANGERS: Duration = Duration::from_secs(2);
/// How long a request to a ledger waits until it is certain whose that is: longer than one that has belonged to a system asks.
const PATIENCE: Duration = Duration::from_secs(2);
/// The name under which a ledger notes its system.
const SYSTEM: &str = "system";
/// The name under which orders note their system's prefix.
const PREFIX: &str = "prefix";

/// The name under which orders note the ledger of a service.
fn ledger_of(service: Name) -> String {
    format!("ledger:{service}")
}

async fn told<T: Send + 'static>(ask: impl FnOnce(Done<Result<T, StoreFailure>>)) -> Result<T, StoreFailure> {
    let (send, answer) = tokio::sync::oneshot::channel();
    ask(Box::new(|told| _ = send.send(told)));
    answer.await.unwrap_or_else(|_| Err(StoreFailure::Unknown("the database is closed".to_owned())))
}

/// What a database has noted under a name: nothing, if it is new. Waits for it.
async fn noted(store: &ScriptStore, name: &str) -> Option<String> {
    let mut said = false;
    loop {
        match told(|done| store.noted(name, done)).await {
            Ok(noted) => return noted,
            Err(why) if !std::mem::replace(&mut said, true) => {
                tracing::warn!(%why, field = name, "cannot read to which databases this one belongs: tries again");
            }
            Err(_) => {}
        }
        tokio::time::sleep(AGAIN).await;
    }
}

/// Has these orders note the prefix under which their system talks.
///
/// # Errors
/// If that is another: this instance would be alone with them, and might lead, and take over what it cannot finish. Or if their database has stopped.
pub(super) async fn keep_prefix(orders: &ScriptStore, prefix: Name) -> anyhow::Result<()> {
    let mut said = false;
    let stands = loop {
        match told(|done| orders.note_once(PREFIX, prefix.as_str(), done)).await {
            Ok(stands) => break stands,
            Err(why) if !std::mem::replace(&mut said, true) => {
                tracing::warn!(%why, "cannot note the `nats.prefix` of these orders: tries again");
            }
            Err(_) => {}
        }
        if let Some(why) = orders.stopped() {
            bail!(Stopped(format!("the orders database stopped: {why}")));
        }
        tokio::time::sleep(AGAIN).await;
    };
    if stands == prefix.as_str() {
        return Ok(());
    }
    bail!(
        "the orders' system talks under `nats.prefix` {stands}, and not under {prefix}: this instance is of another system, or the prefix was changed. Mend \
         the address of the orders' database, or the prefix. If that was changed on purpose: stop all services, `HSET {{settle:orders:0}}:meta {PREFIX} \
         {prefix}` in the orders' database, and start them again"
    )
}

/// A ledger that is to find out, and to keep an eye on, whose it is.
#[derive(Debug, Clone)]
pub(super) struct Joining {
    pub(super) service: Name,
    pub(super) ledger: ScriptStore,
    pub(super) others: Others,
}

impl Joining {
    /// What an order instance says of this ledger, which has belonged to that system, if to one.
    ///
    /// # Errors
    /// If it is not the ledger that the orders know: it must take no command.
    async fn ask(&self, belongs: Option<&String>, within: Duration) -> Result<Said, String> {
        let (service, own) = (self.service, self.ledger.identity());
        let question = Question::Join { service, ledger: own.to_owned(), system: belongs.cloned() };
        Ok(match (self.others.answer(To::Service(ORDERS), &question, within).await, belongs) {
            (Ok(Answer::Joined { ledger: known, .. }), _) if known != own => {
                return Err(another_ledger(service, own, &known));
            }
            (Ok(Answer::Joined { system, .. }), _) => Said::Belongs(system),
            (Ok(Answer::Stranger { system: theirs }), Some(ours)) => {
                Said::Stranger(other_orders(service, ours, &theirs))
            }
            _ => Said::Nothing,
        })
    }

    /// Waits until it is certain to which system this ledger belongs, and says to which.
    ///
    /// # Errors
    /// If it must take no command.
    pub(super) async fn join(&self) -> Result<Joined, String> {
        let belongs = noted(&self.ledger, SYSTEM).await;
        let (since, mut said, mut within, mut strangers) = (Instant::now(), false, ANSWER, Strangers::default());
        loop {
            match self.ask(belongs.as_ref(), within).await? {
                Said::Belongs(system) => match told(|done| self.ledger.note_once(SYSTEM, &system, done)).await {
                    Ok(stands) if stands == system => return Ok(Joined { system, confirmed: true }),
                    Ok(stands) => return Err(other_orders(self.service, &stands, &system)),
                    Err(why) => tracing::warn!(%why, "cannot note to which orders it belongs: tries again"),
                },
                Said::Stranger(why) => strangers.only(why)?,
                Said::Nothing if since.elapsed() < ALONE || strangers.came() => within = longer(within),
                Said::Nothing => {
                    within = longer(within);
                    if let Some(system) = belongs {
                        tracing::info!(system, "no order instance answers: goes on as what it was");
                        return Ok(Joined { system, confirmed: false });
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

    /// Looks again and again whether that is still so, and says why it is not. Orders may have been told to take another ledger for theirs, while
    /// this one went on alone or ran. Once they have said that it is theirs, strangers say nothing about that.
    pub(super) async fn until_parted(&self, joined: &Joined) -> String {
        let (mut confirmed, mut strangers, mut pause) = (joined.confirmed, Strangers::default(), CHECK);
        loop {
            tokio::time::sleep(pause).await;
            if let Ok(None) = told(|done| self.ledger.noted(SYSTEM, done)).await {
                return forgotten(self.service.as_str(), SYSTEM);
            }
            pause = CHECK;
            match self.ask(Some(&joined.system), MOST).await {
                Ok(Said::Belongs(_)) => confirmed = true,
                Ok(Said::Stranger(why)) if !confirmed => match strangers.only(why) {
                    Ok(()) => pause = AGAIN,
                    Err(why) => return why,
                },
                Ok(Said::Stranger(_) | Said::Nothing) => {}
                Err(why) => return why,
            }
        }
    }
}

/// To whom a ledger belongs.
#[derive(Debug, Clone)]
pub(super) struct Joined {
    pub(super) system: String,
    /// Whether these orders have said so in this life.
    confirmed: bool,
}

/// What somebody who was asked has said.
enum Said {
    /// It belongs to this system, which is the answerer's.
    Belongs(String),
    /// It belongs to another than the answerer's: what that would mean if nobody else answered.
    Stranger(String),
    Nothing,
}

/// Since when nobody but strangers has answered.
#[derive(Debug, Default)]
struct Strangers(Option<Instant>);

impl Strangers {
    fn came(&self) -> bool {
        self.0.is_some()
    }

    /// Takes another one in.
    ///
    /// # Errors
    /// Its reason, if that has gone on for too long.
    fn only(&mut self, why: String) -> Result<(), String> {
        if self.0.get_or_insert_with(Instant::now).elapsed() < STRANGERS { Ok(()) } else { Err(why) }
    }
}

fn longer(within: Duration) -> Duration {
    (within * 2).min(MOST)
}

fn another_ledger(service: Name, own: &str, known: &str) -> String {
    format!(
        "the {service} database is another one ({own}) than the orders know ({known}): this is the wrong server, or the right one has lost its data and is \
         empty now. Nothing was taken. Mend the address, or restore the data. If what it held is given up for good: stop all {service} instances, \
         `HDEL {{settle:orders:0}}:meta {}` in the orders' database, start its order instances again, then these",
        ledger_of(service)
    )
}

fn other_orders(service: Name, known: &str, found: &str) -> String {
    format!(
        "the {service} database belongs to other orders ({known}) than those on this broker ({found}): one of the two is of another system, or the orders' \
         database has lost its data and is empty now. No command was taken. Mend the address, give each system a `nats.prefix` of its own, or restore the \
         data. If the orders that it belonged to are given up for good: stop all {service} instances, `HDEL {{settle:{service}:0}}:meta {SYSTEM}` in the \
         {service} database, and start them again"
    )
}

fn forgotten(database: &str, field: &str) -> String {
    format!(
        "the {database} database has no `{field}` any more, which says to whom it belongs: it was emptied, or somebody removed that. Started again, this \
         finds out what there is"
    )
}

/// What a database says of itself, by field.
type Meta = BTreeMap<String, String>;

/// Why this ledger of this service and these orders do not belong together, as far as they say.
pub(crate) fn apart(service: Name, ledger: &Meta, orders: &Meta) -> Option<String> {
    let differ = |known: Option<&String>, found: Option<&String>| known.is_some() && known != found;
    let identity = |meta: &Meta| meta.get("identity").cloned().unwrap_or_else(|| "it has none yet".to_owned());
    if let Some(known) = orders.get(&ledger_of(service)).filter(|known| differ(Some(known), ledger.get("identity"))) {
        return Some(format!(
            "the orders know another {service} database ({known}) than this one ({})",
            identity(ledger)
        ));
    }
    let known = ledger.get(SYSTEM).filter(|known| differ(Some(known), orders.get("identity")))?;
    Some(format!("the {service} database belongs to other orders ({known}) than these ({})", identity(orders)))
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

/// The ledgers of an order instance: which belong to its orders.
#[derive(Debug, Default)]
pub(super) struct Ledgers {
    stock: OnceLock<String>,
    payment: OnceLock<String>,
    stranger: AtomicBool,
    foreign: OnceLock<String>,
}

impl Ledgers {
    fn place(&self, service: Name) -> &OnceLock<String> {
        if service == STOCK { &self.stock } else { &self.payment }
    }

    /// The identity of the ledger of this service, once that is known.
    pub(super) fn of(&self, service: Name) -> Option<&String> {
        self.place(service).get()
    }

    /// Those that are not known yet.
    pub(super) fn silent(&self) -> Vec<Name> {
        [STOCK, PAYMENT].into_iter().filter(|service| self.of(*service).is_none()).collect()
    }

    /// Whether one has said that it is not theirs: another may be.
    pub(super) fn met_a_stranger(&self) -> bool {
        self.stranger.load(Ordering::Acquire)
    }

    /// Why one of them must not be sent anything, if that is so.
    pub(super) fn foreign(&self) -> Option<String> {
        self.foreign.get().cloned()
    }

    /// Asks a service until the ledger has answered that belongs to these orders, and that they know.
    pub(super) async fn meet(&self, service: Name, orders: &ScriptStore, others: &Others, way: &NatsTransport) {
        let (system, mut within, mut strangers, mut said) = (orders.identity(), ANSWER, Strangers::default(), false);
        loop {
            match others.answer(To::Service(service), &Question::Whose, within).await {
                Ok(Answer::Whose { system: of, .. }) if of != system => {
                    self.stranger.store(true, Ordering::Release);
                    if let Err(why) = strangers.only(other_orders(service, &of, system)) {
                        _ = self.foreign.set(why);
                        return;
                    }
                }
                Ok(Answer::Whose { ledger, .. }) => match noted(orders, &ledger_of(service)).await {
                    Some(known) if known == ledger => {
                        match way.address(&service, &ledger) {
                            Ok(()) => _ = self.place(service).set(ledger),
                            Err(error) => _ = self.foreign.set(error.to_string()),
                        }
                        return;
                    }
                    // Given up for another one, and back. It hears of that from these orders, and stops; or somebody has had the orders forget it, and it
                    // or another asks again whether it is theirs.
                    known => {
                        if !std::mem::replace(&mut said, true) {
                            tracing::warn!(%service, ledger, ?known, "a ledger answers that is not the one that these orders know: it is sent nothing");
                        }
                    }
                },
                Ok(_) | Err(_) => within = longer(within),
            }
            tokio::time::sleep(AGAIN).await;
        }
    }

    /// Looks again and again whether the orders still know the ledgers that this instance sends commands to.
    pub(super) async fn watch(&self, orders: &ScriptStore) {
        loop {
            tokio::time::sleep(CHECK).await;
            for service in [STOCK, PAYMENT] {
                let Some(ledger) = self.of(service) else { continue };
                let field = ledger_of(service);
                let why = match told(|done| orders.noted(&field, done)).await {
                    Ok(None) => forgotten("orders", &field),
                    Ok(Some(known)) if known != *ledger => another_ledger(service, ledger, &known),
                    Ok(Some(_)) | Err(_) => continue,
                };
                _ = self.foreign.set(why);
                return;
            }
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

    fn is_connected(&self) -> bool {
        self.all.is_connected()
    }

    fn send(&self, service: &Name, command: Command, done: Done<Reply>) {
        if self.ledgers.of(*service).is_some() {
            self.all.send(service, command, done);
        } else {
            done(Reply::Unknown(Unknown::Unreachable));
        }
    }
}
