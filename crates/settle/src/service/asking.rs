//! The ports of the services to each other, over NATS. What is asked, and who answers, stands in `shop::questions`.

use std::sync::Arc;
use std::time::Duration;

use ledger::EntityId;
use nats::{Bytes, Nats, To, Unanswered};
use orchestrator::{Done, LogError, Look, Seen};
use protocol::log::Verdict;
use protocol::{Name, TransactionId};
use shop::checkout::{PAYMENT, STOCK};
use shop::faults::FaultChange;
use shop::ports::{Looks, Operated, Operation, Peers, Price, Prices, Spread, Told, Verdicts};
use shop::questions::{Answer, Question};
use shop::redis_orders::ORDERS;
use tokio::sync::SetOnce;

use super::joining::Ledgers;

/// How long an answer may take that somebody can give at once.
const AT_ONCE: Duration = Duration::from_secs(2);
/// How long one that waits for a checkout may take.
const WAITING: Duration = Duration::from_secs(10);

/// The other processes.
#[derive(Debug, Clone)]
pub(super) struct Others {
    nats: Nats,
    instance: Name,
    /// The system that this one belongs to, once that is known.
    pub(super) system: Arc<SetOnce<String>>,
    /// The ledgers of an order instance.
    pub(super) ledgers: Arc<Ledgers>,
}

impl Others {
    /// The others, as `instance` asks them.
    pub(super) fn new(nats: Nats, instance: Name) -> Self {
        Self { nats, instance, system: Arc::default(), ledgers: Arc::default() }
    }

    /// Asks; `done` hears the answer, or why there is none.
    fn ask(
        &self,
        to: To,
        question: &Question,
        within: Duration,
        done: impl FnOnce(Result<Answer, String>) + Send + 'static,
    ) {
        let question = match question.encode() {
            Ok(question) => question,
            Err(error) => return done(Err(error.to_string())),
        };
        let heard = |answer: Result<Bytes, Unanswered>| {
            let answer = answer.map_err(|why| why.to_string());
            done(answer.and_then(|bytes| Answer::decode(&bytes).map_err(|error| error.to_string())));
        };
        self.nats.ask_then(to, &question, within, Box::new(heard));
    }

    /// The same, and waits for it.
    pub(super) async fn answer(&self, to: To, question: &Question, within: Duration) -> Result<Answer, String> {
        let (send, answer) = tokio::sync::oneshot::channel();
        self.ask(to, question, within, |answer| _ = send.send(answer));
        answer.await.unwrap_or_else(|_| Err("nobody answers any more".to_owned()))
    }

    /// Tells the services that keep ledgers that an order instance is gone, and may have left prepared branches behind that it never staged.
    /// Whom this does not reach asks by itself, later.
    pub(super) fn tell_of_orphans(&self) {
        for service in [STOCK, PAYMENT] {
            self.ask(To::Service(service), &Question::Orphans, AT_ONCE, |_| {});
        }
    }

    /// Tells every instance of a service something.
    fn tell(&self, service: Name, news: &Question, done: Done<Result<(), String>>) {
        let nats = self.nats.clone();
        match news.encode() {
            Ok(news) => {
                tokio::spawn(async move { done(nats.tell(service, &news).await.map_err(|why| why.to_string())) });
            }
            Err(error) => done(Err(error.to_string())),
        }
    }

    /// Whether some instance of a service answers, and says that it is well.
    pub(super) async fn is_well(&self, service: Name, within: Duration) -> bool {
        let (send, answer) = tokio::sync::oneshot::channel();
        self.ask(To::Service(service), &Question::Well, within, |answer| _ = send.send(answer));
        matches!(answer.await, Ok(Ok(Answer::Well(true))))
    }
}

fn unmet(service: Name) -> String {
    format!("no instance of {service} has said yet that it belongs to these orders")
}

fn another() -> String {
    "an answer to another question".to_owned()
}

impl Verdicts for Others {
    fn ask(&self, ids: Vec<TransactionId>, done: Done<Result<Vec<Verdict>, LogError>>) {
        let Some(system) = self.system.get().cloned() else {
            return done(Err(LogError("it is not known yet to which orders this ledger belongs".to_owned())));
        };
        self.ask(To::Service(ORDERS), &Question::Verdicts { system, ids }, AT_ONCE, |answer| {
            done(match answer {
                Ok(Answer::Verdicts(verdicts)) => verdicts.map_err(LogError),
                Ok(_) => Err(LogError(another())),
                Err(why) => Err(LogError(why)),
            });
        });
    }
}

impl Prices for Others {
    fn price(&self, item: EntityId, done: Done<Price>) {
        let Some(ledger) = self.ledgers.of(STOCK).cloned() else { return done(Err(unmet(STOCK))) };
        self.ask(To::Service(STOCK), &Question::Price { ledger, item }, AT_ONCE, |answer| {
            done(match answer {
                Ok(Answer::Price(price)) => price,
                Ok(_) => Err(another()),
                Err(why) => Err(why),
            });
        });
    }
}

impl Looks for Others {
    fn look(&self, service: Name, look: Look, done: Done<Result<Seen, String>>) {
        let Some(ledger) = self.ledgers.of(service).cloned() else { return done(Err(unmet(service))) };
        self.ask(To::Service(service), &Question::Look { ledger, look }, AT_ONCE, move |answer| {
            done(match answer {
                Ok(Answer::Seen(seen)) => seen,
                Ok(_) => Err(another()),
                Err(why) => Err(format!("{service}: {why}")),
            });
        });
    }
}

impl Peers for Others {
    fn ask(&self, owner: Name, id: TransactionId, waits: bool, done: Done<Told>) {
        let within = if waits { WAITING } else { AT_ONCE };
        self.ask(To::Instance(owner), &Question::Transaction { id, waits }, within, |answer| {
            done(if let Ok(Answer::Transaction(told)) = answer { told } else { Told::Nothing });
        });
    }

    fn operate(&self, owner: Name, operation: Operation, done: Done<Option<Operated>>) {
        self.ask(To::Instance(owner), &Question::Operate(operation), AT_ONCE, |answer| {
            done(if let Ok(Answer::Operated(operated)) = answer { Some(operated) } else { None });
        });
    }

    fn auditor(&self, leader: Name, done: Done<Option<Vec<u8>>>) {
        self.ask(To::Instance(leader), &Question::Auditor, AT_ONCE, |answer| {
            done(if let Ok(Answer::Auditor(view)) = answer { Some(view) } else { None });
        });
    }

    fn set_log_filter(&self, service: Name, filter: String, done: Done<Result<(), String>>) {
        self.tell(service, &Question::LogFilter(filter), done);
    }
}

/// The other instances of a service that keeps a ledger.
pub(super) struct Colleagues {
    /// The way to them.
    pub(super) others: Others,
    /// The service.
    pub(super) service: Name,
}

impl Spread for Colleagues {
    fn spread(&self, change: &FaultChange, done: Done<Result<(), String>>) {
        self.others.tell(self.service, &Question::Faults { from: self.others.instance, change: *change }, done);
    }
}
