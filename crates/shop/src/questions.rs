//! What the services ask each other when they are processes of their own, as bytes, and who answers. How the bytes travel is somebody else's
//! business: see [`ports`](crate::ports) for what is asked.
//!
//! | question                   | of whom                                | answer                      |
//! |----------------------------|----------------------------------------|-----------------------------|
//! | [`Question::Verdicts`]     | any order instance of its system       | [`Answer::Verdicts`]        |
//! | [`Question::Price`]        | any instance of that stock             | [`Answer::Price`]           |
//! | [`Question::Transaction`]  | the order instance that drives it      | [`Answer::Transaction`]     |
//! | [`Question::Operate`]      | the order instance that drives it      | [`Answer::Operated`]        |
//! | [`Question::Well`]         | any instance of a service              | [`Answer::Well`]            |
//! | [`Question::Faults`]       | every instance of a ledger's service   | none: it is told, not asked |
//! | [`Question::Look`]         | any instance of that ledger            | [`Answer::Seen`]            |
//! | [`Question::Auditor`]      | the order instance that leads          | [`Answer::Auditor`]         |
//! | [`Question::Orphans`]      | any instance of a ledger's service     | none: it is told, not asked |
//! | [`Question::LogFilter`]    | every instance of a service            | none: it is told, not asked |
//! | [`Question::Join`]         | any order instance                     | [`Answer::Joined`], or [`Answer::Stranger`] |
//! | [`Question::Whose`]        | any instance of a ledger's service     | [`Answer::Whose`]           |
//!
//! A *system* is an orders' database and the two ledgers that belong to it; it goes by the identity of the first.

use std::sync::Arc;
use std::time::{Duration, Instant};

use ledger::EntityId;
use orchestrator::{Clock, Done, Look, Seen, StoreFailure};
use parking_lot::Mutex;
use protocol::log::Verdict;
use protocol::record::{self, RecordError};
use protocol::{Name, TransactionId};
use redis_store::ScriptStore;
use serde::{Deserialize, Serialize};

use crate::auditor::Auditor;
use crate::checkout::{PAYMENT, STOCK};
use crate::faults::FaultChange;
use crate::ledger_service::LedgerService;
use crate::order_service::OrderService;
use crate::ports::{Operated, Operation, Price, Prices, Told, Verdicts, look_at};

/// How long a database may take to answer before its service does not call itself well.
const HEALTH_PATIENCE: Duration = Duration::from_secs(1);

/// A question, or, of all, a piece of news.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Question {
    /// What became of these transactions of this system? Whoever is of another knows nothing of them, and must not say that there are none.
    Verdicts {
        /// The system.
        system: String,
        /// The transactions.
        ids: Vec<TransactionId>,
    },
    /// What does this item of this ledger cost?
    Price {
        /// The identity of the ledger.
        ledger: String,
        /// The item.
        item: EntityId,
    },
    /// How far is this transaction?
    Transaction {
        /// Which.
        id: TransactionId,
        /// Whether to answer only once its caller has been answered.
        waits: bool,
    },
    /// What an operator wants.
    Operate(Operation),
    /// Could you do your part of a checkout?
    Well,
    /// Faults are to be injected.
    Faults {
        /// The instance that says so, which does so already.
        from: Name,
        /// What is to go wrong, or no longer.
        change: FaultChange,
    },
    /// An order instance is gone, and another has its transactions. What it had prepared and not staged, nobody has: ask now.
    Orphans,
    /// What do these accounts, or branches, of this ledger look like? An audit asks.
    Look {
        /// The identity of the ledger.
        ledger: String,
        /// Which.
        look: Look,
    },
    /// What is the last word of your continuous audit?
    Auditor,
    /// What is to be logged from now on.
    LogFilter(String),
    /// A ledger takes commands, or would: is it the one that belongs to the orders?
    Join {
        /// Its service.
        service: Name,
        /// The identity of its database.
        ledger: String,
        /// The system that it belongs to, if it has belonged to one.
        system: Option<String>,
    },
    /// Which ledger are you, and to which system do you belong?
    Whose,
}

/// An answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Answer {
    /// To [`Question::Verdicts`], in its order; or why there is none.
    Verdicts(Result<Vec<Verdict>, String>),
    /// To [`Question::Price`].
    Price(Price),
    /// To [`Question::Transaction`].
    Transaction(Told),
    /// To [`Question::Operate`].
    Operated(Operated),
    /// To [`Question::Well`].
    Well(bool),
    /// To [`Question::Look`]; or why there is none.
    Seen(Result<Seen, String>),
    /// To [`Question::Auditor`], as JSON.
    Auditor(Vec<u8>),
    /// To [`Question::Join`].
    Joined {
        /// The system of whoever answers.
        system: String,
        /// The identity of the database that belongs to it, of the service that asked.
        ledger: String,
    },
    /// To [`Question::Join`], if it has belonged to another system: this is the one of whoever answers.
    Stranger {
        /// The system.
        system: String,
    },
    /// To [`Question::Whose`].
    Whose {
        /// The system that it belongs to.
        system: String,
        /// The identity of its database.
        ledger: String,
    },
}

impl Question {
    /// The question as bytes.
    ///
    /// # Errors
    /// Never; see [`record::encode`].
    pub fn encode(&self) -> Result<Vec<u8>, RecordError> {
        record::encode(self, Vec::with_capacity(64))
    }
}

impl Answer {
    /// Reads an answer.
    ///
    /// # Errors
    /// If it is none: another version of the program, perhaps.
    pub fn decode(bytes: &[u8]) -> Result<Self, RecordError> {
        record::decode(bytes)
    }
}

/// Answers with bytes; or not at all, if the question was none for this service.
type Reply = Done<Option<Vec<u8>>>;

fn answer(done: Reply, answer: &Answer) {
    done(record::encode(answer, Vec::with_capacity(64)).ok());
}

fn read(question: &[u8]) -> Option<Question> {
    record::decode(question).inspect_err(|error| tracing::error!(%error, "a question cannot be read")).ok()
}

fn use_filter(filter: &str, done: Reply) {
    if let Err(bad) = telemetry::logs::set_filter(filter) {
        tracing::warn!(why = %bad, "another process asked for a filter that cannot be used");
    }
    done(None);
}

/// Says that there are strangers on the broker. They ask often.
fn say_now_and_then(service: Name) {
    const SECONDS: u64 = 10;
    static SAID: Mutex<Option<Instant>> = Mutex::new(None);
    let mut said = SAID.lock();
    if said.is_none_or(|said| said.elapsed() >= Duration::from_secs(SECONDS)) {
        *said = Some(Instant::now());
        tracing::error!(%service, "one that belongs to another orders' database asks on this broker: see nats.prefix");
    }
}

/// Answers a ledger that would join the system of these orders. Who belongs to it is noted once, by whoever comes first.
fn answer_to_ledger(orders: &ScriptStore, (service, ledger, of): (Name, &str, Option<String>), done: Reply) {
    let system = orders.identity().to_owned();
    if ![STOCK, PAYMENT].contains(&service) {
        return done(None);
    }
    if of.is_some_and(|of| of != system) {
        say_now_and_then(service);
        return answer(done, &Answer::Stranger { system });
    }
    let noted = move |noted: Result<String, StoreFailure>| match noted {
        Ok(ledger) => answer(done, &Answer::Joined { system, ledger }),
        Err(why) => {
            tracing::warn!(%service, %why, "cannot say whether it belongs to these orders");
            done(None);
        }
    };
    orders.note_once(&format!("ledger:{service}"), ledger, Box::new(noted));
}

/// Answers a question to the order service, whose database this is. Call it on a runtime. While it recovers there is no service yet: recovery waits for
/// ledgers, and those for who says that they belong here, which is all that is answered meanwhile.
pub fn answer_of_orders(
    service: Option<&(OrderService, Arc<Auditor>)>,
    store: &ScriptStore,
    question: &[u8],
    done: Reply,
) {
    let question = read(question);
    if let Some(Question::Join { service, ledger, system }) = question {
        return answer_to_ledger(store, (service, &ledger, system), done);
    }
    let Some((orders, auditor)) = service else { return done(None) };
    let engine = orders.orchestrator().engine();
    match question {
        Some(Question::Verdicts { system, .. }) if system != store.identity() => done(None),
        Some(Question::Verdicts { ids, .. }) => {
            let told = |verdicts: Result<_, orchestrator::LogError>| {
                answer(done, &Answer::Verdicts(verdicts.map_err(|error| error.to_string())));
            };
            Verdicts::ask(&**engine, ids, Box::new(told));
        }
        Some(Question::Transaction { id, waits: false }) => {
            let orders = orders.clone();
            tokio::spawn(async move { answer(done, &Answer::Transaction(orders.told_here(id).await)) });
        }
        Some(Question::Transaction { id, waits: true }) => {
            let orchestrator = orders.orchestrator().clone();
            tokio::spawn(async move {
                let outcome = orchestrator.watch(id).await;
                let told = if outcome.is_some() { Told::Answered } else { Told::Nothing };
                answer(done, &Answer::Transaction(told));
            });
        }
        Some(Question::Operate(operation)) => answer(done, &Answer::Operated(operation.at(engine))),
        Some(Question::Well) => {
            let orders = orders.clone();
            tokio::spawn(async move {
                answer(done, &Answer::Well(orders.answers(HEALTH_PATIENCE).await));
            });
        }
        Some(Question::LogFilter(filter)) => use_filter(&filter, done),
        Some(Question::Auditor) if engine.is_leader() => {
            answer(done, &Answer::Auditor(serde_json::to_vec(&auditor.view()).unwrap_or_default()));
        }
        Some(
            Question::Auditor
            | Question::Price { .. }
            | Question::Faults { .. }
            | Question::Orphans
            | Question::Look { .. }
            | Question::Join { .. }
            | Question::Whose,
        )
        | None => done(None),
    }
}

/// Answers a question to stock or payment, whose database has the identity `own` and belongs to `system`; `instance` is this one. Call it on a runtime.
pub fn answer_of_ledger(
    ledger: &LedgerService,
    (instance, own, system, clock): (Name, &str, &str, &dyn Clock),
    question: &[u8],
    done: Reply,
) {
    match read(question) {
        // An item of the same name in another database has another price.
        Some(Question::Price { ledger: of, .. } | Question::Look { ledger: of, .. }) if of != own => done(None),
        Some(Question::Price { item, .. }) => {
            ledger.price(item, Box::new(|price| answer(done, &Answer::Price(price))));
        }
        Some(Question::Well) => {
            let ledger = ledger.clone();
            tokio::spawn(async move {
                answer(done, &Answer::Well(ledger.answers(HEALTH_PATIENCE).await));
            });
        }
        Some(Question::Faults { from, change }) => {
            if from != instance {
                ledger.faults().change(&change);
            }
            done(None);
        }
        Some(Question::Orphans) => {
            ledger.terminate_orphans(clock.now());
            done(None);
        }
        Some(Question::LogFilter(filter)) => use_filter(&filter, done),
        Some(Question::Look { look, .. }) => {
            look_at(&**ledger.store(), look, Box::new(|seen| answer(done, &Answer::Seen(seen))))
        }
        Some(Question::Whose) => answer(done, &Answer::Whose { system: system.to_owned(), ledger: own.to_owned() }),
        Some(
            Question::Verdicts { .. }
            | Question::Transaction { .. }
            | Question::Operate(_)
            | Question::Auditor
            | Question::Join { .. },
        )
        | None => {
            done(None);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::faults::{Fault, Moment, Point};
    use protocol::limits::{MAX_MESSAGE_BYTES, MAX_TERMINATION_BATCH, MAX_TEXT_BYTES};
    use protocol::{Timestamp, Verb};

    #[test]
    fn questions_read_back() {
        let id = TransactionId::new(Timestamp(7), [1; 16]);
        let change = |fault, times| FaultChange::Set {
            point: Point { moment: Moment::After, verb: Verb::Execute },
            fault,
            times,
            percent: 20,
        };
        let from = Name::literal("stock-1");
        for question in [
            Question::Verdicts { system: "0190b6e2".to_owned(), ids: vec![id, id] },
            Question::Join { service: STOCK, ledger: "7".to_owned(), system: Some("8".to_owned()) },
            Question::Whose,
            Question::Price { ledger: "7".to_owned(), item: EntityId::number(7) },
            Question::Transaction { id, waits: true },
            Question::Operate(Operation::States(vec![id])),
            Question::Operate(Operation::Retry(id)),
            Question::Operate(Operation::Resolved { id, step: 3 }),
            Question::Well,
            Question::Orphans,
            Question::Look { ledger: "8".to_owned(), look: Look::Accounts { after: "17".to_owned() } },
            Question::Auditor,
            Question::LogFilter("warn,shop=debug".to_owned()),
            Question::Faults { from, change: change(Fault::Delay { ms: 5 }, Some(2)) },
            Question::Faults { from, change: change(Fault::Crash, None) },
            Question::Faults { from, change: FaultChange::Clear { point: None } },
        ] {
            assert_eq!(read(&question.encode().unwrap()), Some(question));
        }
        assert_eq!(read(b"what?"), None);
    }

    #[test]
    fn the_largest_question_and_answer_fit_in_a_message() {
        let ids = vec![TransactionId::new(Timestamp(u64::MAX), [255; 16]); MAX_TERMINATION_BATCH];
        let system = "0190b6e2-7c1f-7c3a-8f00-000000000000".to_owned();
        assert!(Question::Verdicts { system, ids }.encode().unwrap().len() + MAX_TEXT_BYTES < MAX_MESSAGE_BYTES);
        let verdicts = Answer::Verdicts(Ok(vec![Verdict::Forgotten; MAX_TERMINATION_BATCH]));
        assert!(record::encode(&verdicts, Vec::new()).unwrap().len() + MAX_TEXT_BYTES < MAX_MESSAGE_BYTES);
    }
}
