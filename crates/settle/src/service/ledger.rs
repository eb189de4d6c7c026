//! Stock or payment as a process of its own.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use axum::middleware::from_fn_with_state;
use nats::{Bytes, Nats, Serving};
use orchestrator::{Done, LedgerStore, Participant, SystemClock};
use protocol::{Name, Timestamp};
use redis_store::RedisLedger;
use serde_json::json;
use shop::Front;
use shop::checkout::STOCK;
use shop::faults::Faults;
use shop::ledger_service::{LedgerParts, LedgerService};
use shop::metrics::Metrics;
use shop::participant::LedgerParticipant;
use shop::questions::answer_of_ledger;
use shop::vitals::{Ailment, Examination, Vitals};
use tokio::task::JoinHandle;

use super::asking::{Colleagues, Others};
use super::joining::Joining;
use super::{Draining, Running, figures, joining, start};
use crate::config::{Config, Service};

/// How long `/health/deep` waits for somebody.
const HEALTH_PATIENCE: Duration = Duration::from_secs(1);

/// The service, running.
pub(super) struct Ledger {
    vitals: Arc<LedgerVitals>,
    clock: Arc<SystemClock>,
    /// Commands, then questions, once it is known to which orders they belong.
    servings: JoinHandle<Option<[Serving; 2]>>,
}

struct LedgerVitals {
    service: LedgerService,
    store: RedisLedger,
    nats: Nats,
    metrics: Arc<Metrics>,
    draining: Draining,
    others: Others,
    /// Why it takes no commands and never will, if that is so.
    unserved: OnceLock<String>,
    /// Why it must take no more, if that is so.
    parted: Arc<OnceLock<String>>,
}

impl Ledger {
    pub(super) async fn start(name: Name, config: &Config, draining: Draining) -> anyhow::Result<Self> {
        let (of, title) = if name == STOCK { (Service::Stock, "stock") } else { (Service::Payment, "payment") };
        let options = config.redis(of)?;
        let store = start::database(title, move || RedisLedger::open(name, &options)).await?;
        let nats = start::broker(config).await?;
        // The births that it compares with its clock are of the orders' clock, not of this one: nothing that it knows of moves it.
        let clock = start::clock(title, |done| store.time(done), |done| done(Ok(Timestamp(0)))).await?;
        let (metrics, clock) = (Arc::new(Metrics::default()), Arc::new(clock));
        let faults = Arc::new(Faults::new(config.chaos));
        let participant = LedgerParticipant::new(name, store.clone(), Arc::clone(&faults), Arc::clone(&metrics));
        let others = Others::new(nats.clone(), config.instance);
        let service = LedgerService::new(LedgerParts {
            name,
            store: Arc::new(store.clone()),
            verdicts: Arc::new(others.clone()),
            faults,
            others: Arc::new(Colleagues { others: others.clone(), service: name }),
            production: config.production,
        });
        tokio::spawn(service.clone().look_after(Arc::clone(&clock)));
        let participant = telemetry::traces::Traced::participant(name, Arc::new(participant));
        let unserved = OnceLock::new();
        let parted = Arc::default();
        let vitals = Arc::new(LedgerVitals { service, store, nats, metrics, draining, others, unserved, parted });
        let (serving, instance, time) = (Arc::clone(&vitals), config.instance, Arc::clone(&clock));
        // Beside the start: whoever starts first would wait for whoever waits for it.
        let servings = tokio::spawn(async move {
            match serving.serve(participant, instance, time).await {
                Ok(servings) => Some(servings),
                Err(why) => {
                    _ = serving.unserved.set(why);
                    None
                }
            }
        });
        Ok(Self { vitals, clock, servings })
    }
}

impl LedgerVitals {
    /// Takes commands and questions, once it is certain whose.
    async fn serve(
        &self,
        participant: Arc<dyn Participant>,
        instance: Name,
        clock: Arc<SystemClock>,
    ) -> Result<[Serving; 2], String> {
        let (name, service) = (self.service.name(), self.service.clone());
        let joining = Joining { service: name, ledger: self.store.store().clone(), others: self.others.clone() };
        let joined = joining.join().await?;
        let system = joined.system.clone();
        let own = joining.ledger.identity().to_owned();
        self.nats.go_by(&own).map_err(|error| error.to_string())?;
        _ = self.others.system.set(system.clone());
        let parted = Arc::clone(&self.parted);
        tokio::spawn(async move { _ = parted.set(joining.until_parted(&joined).await) });
        let answer = move |question: Bytes, done: Done<Option<Vec<u8>>>| {
            answer_of_ledger(&service, (instance, &own, &system, &*clock), &question, done);
        };
        let questions = self.nats.answer(name, Arc::new(answer)).await.map_err(|error| error.to_string())?;
        let commands = self.nats.serve(name, participant).await.map_err(|error| error.to_string())?;
        Ok([commands, questions])
    }
}

impl Running for Ledger {
    fn front(&self) -> Front {
        let LedgerVitals { service, metrics, .. } = &*self.vitals;
        let prefix = if service.name() == STOCK { "/stock" } else { "/payment" };
        let vitals = Arc::clone(&self.vitals) as Arc<dyn Vitals>;
        // A charge in a database that is not the one of the orders is lost.
        let once_joined = from_fn_with_state(self.vitals.others.clone(), joining::once_joined);
        let routes = service.routes().wrapped(|routes| routes.layer(once_joined));
        Front::of_service(prefix, routes, vitals, Arc::clone(metrics), Arc::clone(&self.clock))
    }

    fn stopped(&self) -> Option<String> {
        let name = self.vitals.service.name();
        let stopped = self.vitals.store.stopped().map(|why| format!("the {name} database stopped: {why}"));
        stopped.or_else(|| self.vitals.unserved.get().or_else(|| self.vitals.parted.get()).cloned())
    }

    async fn shut_down(self, at_most: Duration) -> bool {
        // What is not taken in hand any more, another instance is given.
        self.servings.abort();
        let servings = self.servings.await.ok().flatten();
        let stopped = async {
            let Some([commands, questions]) = servings else { return (true, true) };
            tokio::join!(commands.stop(), questions.stop())
        };
        let finished = matches!(tokio::time::timeout(at_most, stopped).await, Ok((true, true)));
        let store = self.vitals.store.clone();
        let closed = tokio::task::spawn_blocking(move || store.close()).await.is_ok();
        finished && closed
    }
}

impl Vitals for LedgerVitals {
    fn ailment(&self) -> Option<Ailment> {
        self.draining.ailment(self.store.stopped())
    }

    fn examine(&self) -> Pin<Box<dyn Future<Output = Examination> + Send + '_>> {
        Box::pin(async {
            let (store, nats) = (self.service.answers(HEALTH_PATIENCE).await, self.nats.is_connected());
            let word = |well| if well { "ok" } else { "down" };
            let mut services = serde_json::Map::new();
            services.insert(self.service.name().to_string(), json!(word(store)));
            services.insert("nats".to_owned(), json!(word(nats)));
            let mut findings = serde_json::Map::new();
            findings.insert("services".to_owned(), services.into());
            if let (true, Ok(Ok(prepared))) =
                (store, tokio::time::timeout(HEALTH_PATIENCE, self.service.prepared()).await)
            {
                findings.insert("prepared".to_owned(), json!(prepared));
            }
            let joined = self.others.system.get().is_some();
            let alone = || (!joined).then(|| "no order instance has said yet that this is its ledger".to_owned());
            if let Some(trouble) = self.store.trouble().or_else(alone) {
                findings.insert("detail".to_owned(), json!(trouble));
            }
            Examination { well: store && nats && joined, findings }
        })
    }

    fn figures(&self) -> Pin<Box<dyn Future<Output = String> + Send + '_>> {
        Box::pin(async {
            let database = figures::database(self.store.statistics(), self.store.trouble().is_none());
            self.metrics.store(self.service.name().as_str(), &database);
            self.metrics.faults(&self.service.name(), self.service.faults());
            figures::broker(&self.metrics, &self.nats);
            self.metrics.text()
        })
    }
}
