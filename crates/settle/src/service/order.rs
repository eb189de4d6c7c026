//! The order service as a process of its own.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use nats::{Bytes, Nats, NatsTransport, Serving};
use orchestrator::{Builder, Clock, Done, Observation, Observer, Options, StartError, StoreFailure, SystemClock};
use protocol::limits::{LEASE_MS, LEASE_RENEWAL_MS};
use protocol::{Pacing, Timestamp, Transaction};
use serde_json::json;
use shop::Front;
use shop::auditor::{Auditor, Books, Pace};
use shop::checkout::{PAYMENT, STOCK, definition};
use shop::metrics::Metrics;
use shop::openapi::Api;
use shop::order_service::{OrderParts, OrderService};
use shop::order_store::{OrderStore, OrdersAnswer, OrdersQuery};
use shop::questions::answer_of_orders;
use shop::redis_orders::{ORDERS, RedisOrders};
use shop::vitals::{Ailment, Examination, Vitals};

use super::asking::Others;
use super::joining::{Ledgers, STRANGERS, ToJoined};
use super::{COMMAND_PATIENCE_MS, Draining, Running, figures, joining, start};
use crate::config::{Config, Service};
use crate::exit::Stopped;

/// Between processes a burst of checkouts waits longer for its turn than within one, and what is sent again meanwhile makes it wait longer
/// still. A command whose instance is gone is given to another by the broker, long before it is sent again.
const PACING: Pacing = Pacing {
    deadline: COMMAND_PATIENCE_MS,
    attempt_timeout: 1_500,
    backoff_base: 10,
    backoff_cap: 2_000,
    attempts: 20,
    slow_pace: 10_000,
    release_wait: 1_000,
};
/// How long `/health/deep` waits for somebody.
const HEALTH_PATIENCE: Duration = Duration::from_secs(1);
/// How long figures wait for the database: less than whoever watches waits for figures.
const FIGURES_PATIENCE: Duration = Duration::from_millis(400);
/// How long a start waits for the ledgers to say to which orders they belong.
const MEETING: Duration = Duration::from_secs(1);
/// How long recovery may take before it is told what it waits for.
const SLOW: Duration = Duration::from_secs(2);
/// How often it is looked whether the database has stopped, while recovery waits for it.
const GLANCE: Duration = Duration::from_millis(50);

/// Counts what happens, and tells of instances that were taken over.
struct Watch {
    metrics: Arc<Metrics>,
    others: Others,
}

impl Observer for Watch {
    fn observe(&self, observation: &Observation<'_>) {
        self.metrics.observe(observation);
        if let Observation::TookOver { .. } = observation {
            self.others.tell_of_orphans();
        }
    }

    fn within(&self, transaction: &Transaction, work: &mut dyn FnMut()) {
        self.metrics.within(transaction, work);
    }
}

/// The service, running.
pub(super) struct Order {
    vitals: Arc<OrderVitals>,
    clock: Arc<SystemClock>,
    questions: Serving,
}

struct OrderVitals {
    service: OrderService,
    store: RedisOrders,
    nats: Nats,
    others: Others,
    ledgers: Arc<Ledgers>,
    auditor: Arc<Auditor>,
    metrics: Arc<Metrics>,
    draining: Draining,
}

impl Order {
    pub(super) async fn start(config: &Config, draining: Draining) -> anyhow::Result<Self> {
        let options = config.redis(Service::Orders)?;
        let store = start::database("orders", move || RedisOrders::open(&options)).await?;
        joining::keep_prefix(store.store(), config.nats.prefix).await?;
        let nats = start::broker(config).await?;
        let way = nats.transport([STOCK, PAYMENT]).await?;
        let others = Others::new(nats.clone(), config.instance);
        let (service, database) = (Arc::new(OnceLock::new()), store.store().clone());
        let answering = Arc::clone(&service);
        let answer = move |question: Bytes, done: Done<Option<Vec<u8>>>| {
            answer_of_orders(answering.get(), &database, &question, done);
        };
        let questions = nats.answer(ORDERS, Arc::new(answer)).await?;
        // Before recovery, which waits for what they say; and before the log hears of this instance, which may be a stranger to it.
        meet(&store, &others, &way).await?;
        let ledgers = Arc::clone(&others.ledgers);
        let transport = ToJoined { all: way, ledgers: Arc::clone(&ledgers) };
        let metrics = Arc::new(Metrics::default());
        let watch = Watch { metrics: Arc::clone(&metrics), others: others.clone() };
        // Ids that are born here must be younger than those that the log has forgotten.
        let clock = start::clock("orders", |done| store.time(done), |done| youngest(&store, done)).await?;
        let clock = Arc::new(clock);
        let mut checkout = definition(config.protocol.into());
        checkout.pacing = Pacing { attempts: config.attempts, ..PACING };
        let started = Builder::new(Options::new(config.instance), Arc::new(store.clone()), Arc::new(transport))
            .define(checkout)
            .clock(Arc::clone(&clock) as Arc<dyn Clock>)
            .observer(telemetry::traces::observing(Arc::new(watch), metrics.listener()))
            .start();
        let orchestrator = tokio::select! {
            started = started => started.map_err(unstarted)?,
            // Recovery would wait for ever for a database that has stopped, and for ledgers that are sent nothing.
            why = until_stopped(&store, &ledgers) => return Err(why),
        };
        let orders = OrderService::new(OrderParts {
            store: Arc::new(store.clone()),
            orchestrator,
            prices: Arc::new(others.clone()),
            peers: Arc::new(others.clone()),
            production: config.production,
        });
        let books = Books { orders: Arc::new(store.clone()), ledgers: Arc::new(others.clone()) };
        let by_clock = Arc::clone(&clock) as Arc<dyn Clock>;
        let auditor = Auditor::new(books, config.instance, Arc::clone(&metrics), by_clock, Pace::ELSEWHERE);
        let engine = Arc::clone(orders.orchestrator().engine());
        tokio::spawn(Arc::clone(&auditor).run(move || engine.is_leader()));
        _ = service.set((orders.clone(), Arc::clone(&auditor)));
        // An earlier life under this name may have prepared what it did not stage. Nobody takes that life over, so nobody else says so; and
        // stock and payment ask only about branches that are older than a lease.
        let earlier = others.clone();
        tokio::spawn(async move {
            tokio::time::sleep(Duration::from_millis(LEASE_MS + LEASE_RENEWAL_MS)).await;
            earlier.tell_of_orphans();
        });
        let vitals =
            Arc::new(OrderVitals { service: orders, store, nats, others, ledgers, auditor, metrics, draining });
        Ok(Self { vitals, clock, questions })
    }
}

/// Looks for the ledgers of these orders, and waits a little: those that are there answer at once, and without the others there is no checkout, and all
/// else there is.
async fn meet(store: &RedisOrders, others: &Others, way: &NatsTransport) -> anyhow::Result<()> {
    let meeting = [STOCK, PAYMENT].map(|service| {
        let (orders, others, way) = (store.store().clone(), others.clone(), way.clone());
        tokio::spawn(async move { others.ledgers.meet(service, &orders, &others, &way).await })
    });
    let (orders, ledgers) = (store.store().clone(), Arc::clone(&others.ledgers));
    tokio::spawn(async move { ledgers.watch(&orders).await });
    let mut meeting = futures_util::future::join_all(meeting);
    let met = tokio::time::timeout(MEETING, &mut meeting).await;
    if met.is_err() && others.ledgers.met_a_stranger() {
        _ = tokio::time::timeout(STRANGERS + MEETING, meeting).await;
    }
    others.ledgers.foreign().map_or(Ok(()), |why| Err(Stopped(why).into()))
}

/// A log that does not answer is the system's fault, not the caller's: a supervisor may try again.
fn unstarted(error: StartError) -> anyhow::Error {
    match error {
        StartError::Log(error) => Stopped(error.to_string()).into(),
        other @ StartError::Definition(_) => other.into(),
    }
}

fn youngest(store: &RedisOrders, done: Done<Result<Timestamp, StoreFailure>>) {
    let told = |answer| match answer {
        Ok(OrdersAnswer::Youngest(youngest)) => done(Ok(youngest)),
        Ok(_) => done(Err(StoreFailure::NotDone("an answer to another question".to_owned()))),
        Err(failure) => done(Err(failure)),
    };
    store.query(OrdersQuery::Youngest, Box::new(told));
}

async fn until_stopped(store: &RedisOrders, ledgers: &Ledgers) -> anyhow::Error {
    let (since, mut said) = (Instant::now(), false);
    loop {
        if since.elapsed() > SLOW && !std::mem::replace(&mut said, true) {
            let silent = ledgers.silent();
            tracing::warn!(
                ?silent,
                "recovery is not done yet: it waits for what an earlier life left undecided, and for services that have not answered"
            );
        }
        if let Some(why) = ledgers.foreign() {
            return Stopped(why).into();
        }
        if let Some(why) = store.stopped() {
            return Stopped(format!("the orders database stopped: {why}")).into();
        }
        tokio::time::sleep(GLANCE).await;
    }
}

impl Running for Order {
    fn front(&self) -> Front {
        let OrderVitals { service, metrics, .. } = &*self.vitals;
        let vitals = Arc::clone(&self.vitals) as Arc<dyn Vitals>;
        Front::of_service("/orders", service.routes(), vitals, Arc::clone(metrics), Arc::clone(&self.clock))
    }

    fn operators(&self) -> Option<axum::Router> {
        let OrderVitals { service, auditor, .. } = &*self.vitals;
        Some(service.admin_routes(auditor, Api::default()))
    }

    fn vitals(&self) -> Option<Arc<dyn Vitals>> {
        Some(Arc::clone(&self.vitals) as Arc<dyn Vitals>)
    }

    fn stopped(&self) -> Option<String> {
        let stopped = self.vitals.store.stopped().map(|why| format!("the orders database stopped: {why}"));
        stopped.or_else(|| self.vitals.ledgers.foreign())
    }

    async fn shut_down(self, at_most: Duration) -> bool {
        let orchestrator = self.vitals.service.orchestrator().clone();
        let settled = orchestrator.drain(at_most).await;
        // What is left is another instance's from now on.
        let (done, resigned) = tokio::sync::oneshot::channel();
        orchestrator.engine().resign(Box::new(|result| _ = done.send(result.is_ok())));
        let resigned = matches!(tokio::time::timeout(at_most, resigned).await, Ok(Ok(true)));
        let answered = matches!(tokio::time::timeout(at_most, self.questions.stop()).await, Ok(true));
        let store = self.vitals.store.clone();
        let closed = tokio::task::spawn_blocking(move || store.close()).await.is_ok();
        settled && resigned && answered && closed
    }
}

impl Vitals for OrderVitals {
    fn ailment(&self) -> Option<Ailment> {
        self.draining.ailment(self.store.stopped())
    }

    /// Whether a checkout could be served: the database answers, an instance of either other service does, and no breaker turns it away.
    fn examine(&self) -> Pin<Box<dyn Future<Output = Examination> + Send + '_>> {
        Box::pin(async {
            let (orders, stock, payment) = tokio::join!(
                self.service.answers(HEALTH_PATIENCE),
                self.others.is_well(STOCK, HEALTH_PATIENCE),
                self.others.is_well(PAYMENT, HEALTH_PATIENCE)
            );
            let nats = self.nats.is_connected();
            let (stock, payment) =
                (stock && self.ledgers.of(STOCK).is_some(), payment && self.ledgers.of(PAYMENT).is_some());
            let answered = [("orders", orders), ("stock", stock), ("payment", payment), ("nats", nats)];
            let mut examination = self.service.examination(&answered);
            let engine = self.service.orchestrator().engine();
            examination.findings.insert("instance".to_owned(), json!(engine.instance().as_str()));
            examination.findings.insert("leader".to_owned(), json!(engine.is_leader()));
            if let Some(trouble) = self.store.trouble() {
                examination.findings.insert("detail".to_owned(), json!(trouble));
            }
            examination
        })
    }

    fn figures(&self) -> Pin<Box<dyn Future<Output = String> + Send + '_>> {
        Box::pin(async {
            self.metrics.store("orders", &figures::database(self.store.statistics(), self.store.trouble().is_none()));
            figures::broker(&self.metrics, &self.nats);
            self.metrics.orchestrator(&self.service.measure(FIGURES_PATIENCE).await);
            self.metrics.text()
        })
    }
}
