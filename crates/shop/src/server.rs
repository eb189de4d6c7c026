//! The whole shop in one process: three databases, three services, one orchestrator.
//!
//! ```text
//!   /orders  ─► orders_http ──► Orchestrator ──► OrderLog ──────────────► <data>/orders    orders + transaction log
//!                                    │
//!                                    └──► InProcess ───► LedgerParticipant ─► <data>/stock, <data>/payment
//!   /stock   ─► stock_http  ───────────────────────────► LedgerService ─────► <data>/stock
//!   /payment ─► payment_http ──────────────────────────► LedgerService ─────► <data>/payment
//! ```

use std::future::Future;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::http::StatusCode;
use axum::{Json, Router};
use embedded::{OpenError, Opened, Store};
use ledger::Ledger;
use orchestrator::{Builder, Choice, Clock, InProcess, Options, Orchestrator, StartError, SystemClock};
use protocol::{Name, Pacing, Timestamp};

use crate::answered::{Answered, answered_since};
use crate::audit::{AuditReport, audit_live};
use crate::auditor::{Auditor, Books, Pace};
use crate::checkout::{PAYMENT, STOCK, definition};
use crate::connection::send_replies;
use crate::faults::Faults;
use crate::front::Front;
use crate::label;
use crate::ledger_service::{LedgerParts, LedgerService};
use crate::ledger_store::EmbeddedLedger;
use crate::metrics::{Batches, Metrics, StoreFigures};
use crate::openapi::{Api, Description, schema};
use crate::order_service::{OrderParts, OrderService};
use crate::orders::OrderBook;
use crate::participant::LedgerParticipant;
use crate::ports::{LedgersHere, NoPeers, Verdicts};
use crate::problem::Problem;
use crate::request::called;
use crate::single::Single;
use crate::store::OrderLog;
use crate::vitals::{self, Ailment, Examination, Vitals};

/// The name of the only instance.
const INSTANCE: Name = Name::literal("shop");
/// How often the stores are looked at while they recover.
const STOP_WATCH: Duration = Duration::from_millis(50);
/// How long `/health/deep` waits for a store.
const HEALTH_PATIENCE: Duration = Duration::from_secs(1);

/// How a shop is run.
#[derive(Debug, Clone)]
pub struct Config {
    /// The folder with the three databases, made if absent.
    pub data: PathBuf,
    /// Which protocol checkouts use.
    pub protocol: Choice,
    /// Attempts before a branch that is not acknowledged becomes a dead letter: at least 1. See [`protocol::Pacing::attempts`].
    pub attempts: u32,
    /// Whether faults may be injected.
    pub chaos: bool,
    /// Whether seeding and faults are refused.
    pub production: bool,
    /// How the stores are kept.
    pub store: embedded::Options,
    /// How fast the continuous audit goes.
    pub audit: Pace,
}

impl Default for Config {
    /// A development shop in `settle-data`.
    fn default() -> Self {
        Self {
            data: PathBuf::from("settle-data"),
            protocol: Choice::Auto,
            attempts: Pacing::default().attempts,
            chaos: false,
            production: false,
            store: embedded::Options::default(),
            audit: Pace::HERE,
        }
    }
}

/// Why a shop could not start.
#[derive(Debug, thiserror::Error)]
pub enum OpenShopError {
    /// One of its databases.
    #[error("the {0} database: {1}")]
    Store(&'static str, #[source] OpenError),
    /// Databases are missing, and the others hold something.
    #[error(
        "{}: {} missing, and the others are there: new, empty ones would contradict them. Put the whole data folder back from a backup",
        data.display(), they_are(missing)
    )]
    Missing {
        /// The data folder.
        data: PathBuf,
        /// Whose.
        missing: Vec<&'static str>,
    },
    /// A database is not that of the service, or nobody can say whose it is.
    #[error("the {0} database: {1}")]
    Label(&'static str, String),
    /// The orchestrator.
    #[error(transparent)]
    Start(#[from] StartError),
    /// A database stopped while it recovered.
    #[error("{0}")]
    Stopped(String),
    /// The operating system has no thread to give.
    #[error("cannot start a thread: {0}")]
    Thread(#[source] std::io::Error),
    /// Faults are for development.
    #[error("--chaos and --production exclude each other: faults are not injected in production")]
    ChaosInProduction,
}

/// What opening the databases found.
#[derive(Debug)]
pub struct Found {
    /// `orders`, `stock`, `payment`.
    pub service: &'static str,
    /// What recovery did.
    pub opened: Opened,
}

/// The shop. Cheap to clone.
#[derive(Clone)]
pub struct Shop {
    inner: Arc<Inner>,
}

/// The databases of the two ledgers.
#[derive(Clone)]
pub struct Ledgers {
    /// The items.
    pub stock: Store<Ledger>,
    /// The users' credit.
    pub payment: Store<Ledger>,
}

struct Inner {
    config: Config,
    orders: Store<OrderBook>,
    stores: Ledgers,
    stock: LedgerService,
    payment: LedgerService,
    order_service: OrderService,
    auditor: Arc<Auditor>,
    metrics: Arc<Metrics>,
    clock: Arc<SystemClock>,
    single: Single,
    runtime: tokio::runtime::Handle,
}

/// The databases of a shop in one process, by their folders.
pub const SERVICES: [&str; 3] = ["orders", "stock", "payment"];

/// Opens one of the databases.
///
/// # Errors
/// [`OpenShopError::Store`], [`OpenShopError::Label`].
pub fn open_store<M: embedded::Machine>(
    data: &Path,
    service: &'static str,
    options: &embedded::Options,
) -> Result<(Store<M>, Found), OpenShopError> {
    let opened = Store::open(&data.join(service), options.clone());
    let (store, opened) = opened.map_err(|error| OpenShopError::Store(service, error))?;
    // Behind the lock: nobody else writes there.
    label::check(&data.join(service), service).map_err(|why| OpenShopError::Label(service, why))?;
    Ok((store, Found { service, opened }))
}

/// Looks at one of the databases while no shop runs, and changes nothing: what would be found, or why it would not open.
///
/// # Errors
/// [`OpenShopError::Store`], [`OpenShopError::Label`].
pub fn examine_store<M: embedded::Machine>(data: &Path, service: &'static str) -> Result<Found, OpenShopError> {
    let folder = data.join(service);
    let opened = embedded::examine::<M>(&folder).map_err(|error| OpenShopError::Store(service, error))?;
    label::is_of(&folder, service).map_err(|why| OpenShopError::Label(service, why))?;
    Ok(Found { service, opened })
}

fn they_are(services: &[&str]) -> String {
    match services {
        [one] => format!("the {one} database is"),
        several => format!("the databases of {} are", several.join(" and ")),
    }
}

/// The databases of which nothing is there: no folder, or one without a journal and a snapshot.
pub fn missing(data: &Path) -> Vec<&'static str> {
    let is_of_a_database = |file: &Path| file.extension().is_some_and(|it| it == "seg" || it == "snap");
    let is_there = |service: &&str| {
        let files = std::fs::read_dir(data.join(service)).into_iter().flatten().flatten();
        files.into_iter().any(|file| is_of_a_database(&file.path()))
    };
    SERVICES.into_iter().filter(|service| !is_there(service)).collect()
}

/// Refuses a data folder in which some databases are [`missing`] while others hold something. One that is missing beside empty ones is the first
/// start's, which came to its end half way, or is still under way; so is one where all are. What cannot be read holds something.
///
/// # Errors
/// [`OpenShopError::Missing`].
pub fn check_all_there(data: &Path) -> Result<(), OpenShopError> {
    let missing = missing(data);
    if missing.is_empty() {
        return Ok(());
    }
    let mut there = SERVICES.into_iter().filter(|service| !missing.contains(service));
    let is_empty = |service: &'static str| {
        let found = match service {
            "orders" => examine_store::<OrderBook>(data, service),
            _ => examine_store::<Ledger>(data, service),
        };
        match found {
            Ok(found) => found.opened.sequence == 0,
            // Whoever opens it is told who has it.
            Err(OpenShopError::Store(_, OpenError::InUse { .. })) => true,
            Err(_) => false,
        }
    };
    if there.all(is_empty) { Ok(()) } else { Err(OpenShopError::Missing { data: data.to_owned(), missing }) }
}

impl Shop {
    /// Opens the databases, recovers what a crash left behind, and returns when checkouts can be served.
    ///
    /// # Errors
    /// If a database can't be opened: in use, damaged, or written by another version.
    pub async fn open(config: Config) -> Result<(Self, Vec<Found>), OpenShopError> {
        if config.chaos && config.production {
            return Err(OpenShopError::ChaosInProduction);
        }
        check_all_there(&config.data)?;
        let metrics = Arc::new(Metrics::default());
        // A store's own thread is for its disk.
        let runtime = tokio::runtime::Handle::current();
        let sending = runtime.clone();
        let single = Single::start(move || send_replies(&sending)).map_err(OpenShopError::Thread)?;
        let answering = single.clone();
        let answer_on: embedded::AnswerOn = Arc::new(move |answers| answering.run(answers));
        let options = embedded::Options { answer_on: Some(answer_on), ..config.store.clone() };
        let (orders, orders_found) = open_store::<OrderBook>(&config.data, "orders", &options)?;
        let (stock, stock_found) = open_store::<Ledger>(&config.data, "stock", &options)?;
        let (payment, payment_found) = open_store::<Ledger>(&config.data, "payment", &options)?;
        let stores = Ledgers { stock, payment };
        let known = youngest(&orders, &stores).unwrap_or_default();
        let clock = Arc::new(SystemClock::later_than(known));
        let faults = [(); 2].map(|()| Arc::new(Faults::new(config.chaos)));
        let participant = |name, store: &Store<Ledger>, faults: &Arc<Faults>| {
            let store = EmbeddedLedger(store.clone());
            Arc::new(LedgerParticipant::new(name, store, Arc::clone(faults), Arc::clone(&metrics)))
        };
        let [stock_faults, payment_faults] = faults;
        let transport = InProcess::default()
            .with(STOCK, participant(STOCK, &stores.stock, &stock_faults))
            .with(PAYMENT, participant(PAYMENT, &stores.payment, &payment_faults));
        let mut checkout = definition(config.protocol);
        checkout.pacing.attempts = config.attempts;
        let options = Options::new(INSTANCE).sole();
        let started = Builder::new(options, Arc::new(OrderLog(orders.clone())), Arc::new(transport))
            .define(checkout)
            .clock(Arc::clone(&clock) as Arc<dyn Clock>)
            .observer(telemetry::traces::observing(
                Arc::clone(&metrics) as Arc<dyn orchestrator::Observer>,
                metrics.listener(),
            ))
            .start();
        let production = config.production;
        let recover = async {
            let orchestrator = started.await?;
            let service = |name, store: &Store<Ledger>, faults| {
                let store = Arc::new(EmbeddedLedger(store.clone()));
                let verdicts = Arc::clone(orchestrator.engine()) as Arc<dyn Verdicts>;
                LedgerService::new(LedgerParts { name, store, verdicts, faults, others: Arc::new(NoPeers), production })
            };
            let stock = service(STOCK, &stores.stock, stock_faults);
            let payment = service(PAYMENT, &stores.payment, payment_faults);
            for service in [&stock, &payment] {
                _ = called(|done| service.terminate_prepared(done)).await;
            }
            Ok::<_, OpenShopError>((orchestrator, stock, payment))
        };
        // Recovery would wait for ever for a store that has stopped.
        let (orchestrator, stock, payment) = tokio::select! {
            recovered = recover => recovered?,
            why = any_stopped(&orders, &stores) => return Err(OpenShopError::Stopped(why)),
        };
        for service in [&stock, &payment] {
            tokio::spawn(service.clone().look_after(Arc::clone(&clock)));
        }
        let order_service = OrderService::new(OrderParts {
            store: Arc::new(OrderLog(orders.clone())),
            orchestrator,
            prices: Arc::new(stock.clone()),
            peers: Arc::new(NoPeers),
            production,
        });
        let ledgers = LedgersHere { stock: Arc::clone(stock.store()), payment: Arc::clone(payment.store()) };
        let books = Books { orders: Arc::new(OrderLog(orders.clone())), ledgers: Arc::new(ledgers) };
        let by_clock = Arc::clone(&clock) as Arc<dyn Clock>;
        let auditor = Auditor::new(books, INSTANCE, Arc::clone(&metrics), by_clock, config.audit);
        // The only instance leads from the moment at which it serves.
        tokio::spawn(Arc::clone(&auditor).run(|| true));
        let inner =
            Inner { config, orders, stores, stock, payment, order_service, auditor, metrics, clock, single, runtime };
        Ok((Self { inner: Arc::new(inner) }, vec![orders_found, stock_found, payment_found]))
    }

    /// The order database.
    pub fn orders(&self) -> &Store<OrderBook> {
        &self.inner.orders
    }

    /// The databases of stock and payment.
    pub fn ledgers(&self) -> &Ledgers {
        &self.inner.stores
    }

    /// The stock service.
    pub fn stock(&self) -> &LedgerService {
        &self.inner.stock
    }

    /// The payment service.
    pub fn payment(&self) -> &LedgerService {
        &self.inner.payment
    }

    /// The orchestrator.
    pub fn orchestrator(&self) -> &Orchestrator {
        self.inner.order_service.orchestrator()
    }

    /// Whether seeding and faults are refused.
    pub fn is_production(&self) -> bool {
        self.inner.config.production
    }

    /// Why the shop can't serve, if a store has stopped: the process should end, and start again.
    pub fn stopped(&self) -> Option<String> {
        stopped(&self.inner.orders, &self.inner.stores)
    }

    /// What the log says was answered since this moment; nothing if a store has stopped.
    pub fn answered_since(&self, since: Timestamp) -> Answered {
        self.inner.orders.read(|book| answered_since(book.transactions(), since)).unwrap_or_default()
    }

    /// The public contract, each service's routes under its name.
    pub fn front(&self) -> Front {
        let vitals: Arc<dyn Vitals> = Arc::new(self.clone());
        let common = || vitals::routes(Arc::clone(&vitals));
        let routes = Api::default()
            .nest("/orders", self.order_service().routes().merge(common()))
            .nest("/stock", self.stock().routes().merge(common()))
            .nest("/payment", self.payment().routes().merge(common()))
            .merge(common())
            .merge(vitals::deep_route(Arc::clone(&vitals)))
            .described_as("Settle", &["/"]);
        let Inner { metrics, clock, .. } = &*self.inner;
        Front::of_shop(self.clone(), vitals::finish(routes), Arc::clone(metrics), Arc::clone(clock))
    }

    /// The order service.
    pub fn order_service(&self) -> &OrderService {
        &self.inner.order_service
    }

    pub(crate) fn single(&self) -> &Single {
        &self.inner.single
    }

    pub(crate) fn runtime(&self) -> &tokio::runtime::Handle {
        &self.inner.runtime
    }

    pub(crate) fn clock(&self) -> &SystemClock {
        &self.inner.clock
    }

    /// Counts an answered request that came at `started` by the [clock](Self::clock).
    /// How many seconds it took is what was counted.
    pub(crate) fn count(&self, route: &'static str, status: StatusCode, started: u64) -> f64 {
        let seconds = self.inner.clock.micros().saturating_sub(started) as f64 / 1e6;
        self.inner.metrics.request(route, status, seconds);
        seconds
    }

    /// A request that took so long has a trace that is kept.
    pub(crate) fn exemplify(&self, route: &'static str, seconds: f64, trace: telemetry::TraceId) {
        self.inner.metrics.request_kept(route, seconds, trace);
    }

    /// The operators' routes, for [`SOCKET`](crate::admin::SOCKET).
    pub fn admin_router(&self) -> Router {
        let audits = Description::new("auditLive", "Audits everything, on pictures of the databases")
            .json(schema("AuditReport"))
            .reads();
        let live = Api::default().get("/audit/live", audit, audits).with_state(self.clone());
        self.order_service().admin_routes(&self.inner.auditor, live)
    }

    /// Lets the checkouts in flight finish, then closes the databases. Whether everything was settled in time.
    pub async fn shut_down(self, at_most: Duration) -> bool {
        let settled = self.orchestrator().drain(at_most).await;
        let shop = self;
        let close = move || {
            let Ledgers { stock, payment } = shop.ledgers();
            let results = [shop.orders().close(), stock.close(), payment.close()];
            results.into_iter().all(|result| result.is_ok())
        };
        let closed = tokio::task::spawn_blocking(close).await.unwrap_or(false);
        settled && closed
    }
}

/// The youngest birth that any of the databases knows of.
fn youngest(orders: &Store<OrderBook>, ledgers: &Ledgers) -> Option<Timestamp> {
    let log = orders.read(|book| book.transactions().youngest()).ok();
    let ledgers = [&ledgers.stock, &ledgers.payment].into_iter().filter_map(|store| store.read(Ledger::youngest).ok());
    ledgers.chain(log).max()
}

fn stopped(orders: &Store<OrderBook>, Ledgers { stock, payment }: &Ledgers) -> Option<String> {
    let stores = [("orders", orders.stopped()), ("stock", stock.stopped()), ("payment", payment.stopped())];
    stores.into_iter().find_map(|(name, why)| why.map(|why| format!("the {name} database stopped: {why}")))
}

fn store_figures<M: embedded::Machine>(store: &Store<M>) -> StoreFigures {
    let statistics = store.statistics();
    StoreFigures {
        up: store.stopped().is_none(),
        connections: 0,
        flushes: statistics.flushes,
        commands: statistics.commands,
        unknown: None,
        failovers: None,
        disk_bytes: store.size_on_disk().ok(),
        batches: Some(Batches {
            commands: statistics.batch_commands.to_vec(),
            microseconds: statistics.flush_microseconds.to_vec(),
            seconds: statistics.flush_nanoseconds as f64 / 1e9,
        }),
    }
}

/// Waits until one of the stores stops.
async fn any_stopped(orders: &Store<OrderBook>, ledgers: &Ledgers) -> String {
    loop {
        if let Some(why) = stopped(orders, ledgers) {
            return why;
        }
        tokio::time::sleep(STOP_WATCH).await;
    }
}

async fn audit(State(shop): State<Shop>) -> Result<Json<AuditReport>, Problem> {
    let picture = move || audit_live(shop.orders(), shop.ledgers());
    let report = tokio::task::spawn_blocking(picture).await.ok().flatten();
    report.map(Json).ok_or_else(|| Problem::unavailable("a store has stopped"))
}

impl Vitals for Shop {
    fn ailment(&self) -> Option<Ailment> {
        let draining = || Ailment { status: "draining", detail: "the shop is shutting down".to_owned() };
        let down = |detail| Ailment { status: "down", detail };
        self.stopped().map(down).or_else(|| self.orchestrator().engine().is_draining().then(draining))
    }

    /// Whether a checkout could be served: every store answers durably, and no breaker turns it away.
    fn examine(&self) -> Pin<Box<dyn Future<Output = Examination> + Send + '_>> {
        Box::pin(async {
            let (orders, stock, payment) = tokio::join!(
                self.order_service().answers(HEALTH_PATIENCE),
                self.stock().answers(HEALTH_PATIENCE),
                self.payment().answers(HEALTH_PATIENCE)
            );
            let answered = [("orders", orders), ("stock", stock), ("payment", payment)];
            self.order_service().examination(&answered)
        })
    }

    fn figures(&self) -> Pin<Box<dyn Future<Output = String> + Send + '_>> {
        Box::pin(async {
            let Inner { orders, stores: Ledgers { stock, payment }, metrics, .. } = &*self.inner;
            metrics.store("orders", &store_figures(orders));
            metrics.store("stock", &store_figures(stock));
            metrics.store("payment", &store_figures(payment));
            for service in [self.stock(), self.payment()] {
                metrics.faults(&service.name(), service.faults());
            }
            metrics.orchestrator(&self.order_service().measure(HEALTH_PATIENCE).await);
            metrics.text()
        })
    }
}
