//! Counters and histograms in the Prometheus text format. Labels are words known when the program is written: no id ever is one.

use std::fmt::Debug;
use std::hash::Hash;

use axum::http::StatusCode;
use orchestrator::{Observation, Observer, Outcome};
use parking_lot::RwLock;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};
use protocol::{Name, Protocol, Reply, Verb};

/// Upper bounds of the duration buckets in seconds: 100 µs to 30 s.
const BUCKETS: [f64; 18] =
    [0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 20.0, 30.0];

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RequestLabels {
    route: &'static str,
    status: u16,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RouteLabels {
    route: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct TransactionLabels {
    definition: String,
    protocol: &'static str,
    outcome: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct CommandLabels {
    service: String,
    verb: &'static str,
    result: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ServiceLabels {
    service: String,
}

fn durations() -> Histogram {
    Histogram::new(BUCKETS)
}

/// A family's counters, found by a small key without hashing a label set.
struct Cached<L, K> {
    family: Family<L, Counter>,
    known: RwLock<Vec<(K, Counter)>>,
}

impl<L: Clone + Hash + Eq, K: PartialEq + Copy> Cached<L, K> {
    fn new(family: Family<L, Counter>) -> Self {
        Self { family, known: RwLock::default() }
    }

    fn count(&self, key: K, labels: impl FnOnce() -> L) {
        if let Some((_, counter)) = self.known.read().iter().find(|(known, _)| *known == key) {
            counter.inc();
            return;
        }
        let counter = self.family.get_or_create_owned(&labels());
        counter.inc();
        self.known.write().push((key, counter));
    }
}

/// What the shop counts.
pub struct Metrics {
    registry: RwLock<Registry>,
    requests: Cached<RequestLabels, (&'static str, u16)>,
    request_durations: Family<RouteLabels, Histogram, fn() -> Histogram>,
    transactions: Cached<TransactionLabels, (Name, Protocol, &'static str)>,
    transaction_durations: Histogram,
    commands: Cached<CommandLabels, (Name, Verb, &'static str)>,
    violations: Family<ServiceLabels, Counter>,
    repairs: Family<ServiceLabels, Counter>,
    dead_letters: Family<ServiceLabels, Counter>,
    breaker_trips: Family<ServiceLabels, Counter>,
    turned_away: Counter,
    protocol_switches: Counter,
    recovered: Counter,
    /// Transactions in flight.
    pub in_flight: Gauge,
    /// Callers queued behind them.
    pub queued: Gauge,
    /// 1 if this instance looks after the log on behalf of all.
    pub leader: Gauge,
    /// The epoch under which this instance appends to the log.
    pub epoch: Gauge,
    /// Flushes of each store.
    flushes: Family<ServiceLabels, Gauge>,
    /// Commands made durable by each store.
    flushed_commands: Family<ServiceLabels, Gauge>,
    /// Bytes on disk of each store.
    disk_bytes: Family<ServiceLabels, Gauge>,
}

impl Debug for Metrics {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Metrics").finish_non_exhaustive()
    }
}

impl Default for Metrics {
    fn default() -> Self {
        let mut registry = Registry::with_prefix("settle");
        let requests = Family::default();
        registry.register("http_requests", "HTTP requests answered, by route and status", requests.clone());
        let request_durations = Family::<RouteLabels, Histogram, fn() -> Histogram>::new_with_constructor(durations);
        registry.register_with_unit(
            "http_request_duration",
            "From a request's arrival to its answer, by route",
            Unit::Seconds,
            request_durations.clone(),
        );
        let transactions = Family::default();
        registry.register(
            "transactions",
            "Transactions answered, by definition, protocol and outcome",
            transactions.clone(),
        );
        let transaction_durations = durations();
        registry.register_with_unit(
            "transaction_duration",
            "From a transaction's begin to its answer",
            Unit::Seconds,
            transaction_durations.clone(),
        );
        let commands = Family::default();
        registry.register(
            "participant_commands",
            "Commands to participants answered, by service, verb and result",
            commands.clone(),
        );
        let family = |registry: &mut Registry, name: &str, help: &str| {
            let family = Family::<ServiceLabels, Counter>::default();
            registry.register(name, help, family.clone());
            family
        };
        let violations =
            family(&mut registry, "barrier_violations", "Commands that contradicted their branch: a bug or lost data");
        let repairs =
            family(&mut registry, "barrier_repairs", "Commits that found no prepared branch: the store lost data");
        let dead_letters = family(&mut registry, "dead_letters", "Branches that would not acknowledge");
        let breaker_trips = family(&mut registry, "breaker_trips", "Times a service's breaker opened");
        let counter = |registry: &mut Registry, name: &str, help: &str| {
            let counter = Counter::default();
            registry.register(name, help, counter.clone());
            counter
        };
        let turned_away = counter(&mut registry, "turned_away", "Callers turned away before anything began");
        let protocol_switches =
            counter(&mut registry, "protocol_switches", "Changes of the protocol by the abort rate");
        let recovered = counter(&mut registry, "recovered_transactions", "Transactions taken up by recovery");
        let gauge = |registry: &mut Registry, name: &str, help: &str| {
            let gauge = Gauge::default();
            registry.register(name, help, gauge.clone());
            gauge
        };
        let in_flight = gauge(&mut registry, "transactions_in_flight", "Transactions begun and not answered");
        let queued = gauge(&mut registry, "transactions_queued", "Callers queued behind those in flight");
        let leader = gauge(&mut registry, "leader", "Whether this instance looks after the log on behalf of all");
        let epoch = gauge(&mut registry, "epoch", "The epoch under which this instance appends to the log");
        let by_store = |registry: &mut Registry, name: &str, help: &str| {
            let family = Family::<ServiceLabels, Gauge>::default();
            registry.register(name, help, family.clone());
            family
        };
        let flushes = by_store(&mut registry, "store_flushes", "Batches made durable since the start");
        let flushed_commands = by_store(&mut registry, "store_commands", "Commands made durable since the start");
        let disk_bytes = by_store(&mut registry, "store_disk_bytes", "Size of the store's folder");
        Self {
            registry: RwLock::new(registry),
            requests: Cached::new(requests),
            request_durations,
            transactions: Cached::new(transactions),
            transaction_durations,
            commands: Cached::new(commands),
            violations,
            repairs,
            dead_letters,
            breaker_trips,
            turned_away,
            protocol_switches,
            recovered,
            in_flight,
            queued,
            leader,
            epoch,
            flushes,
            flushed_commands,
            disk_bytes,
        }
    }
}

impl Metrics {
    /// Counts an answered request.
    pub fn request(&self, route: &'static str, status: StatusCode, seconds: f64) {
        let status = status.as_u16();
        self.requests.count((route, status), || RequestLabels { route, status });
        self.request_durations.get_or_create(&RouteLabels { route }).observe(seconds);
    }

    /// Counts a commit that found no prepared branch.
    pub fn repaired(&self, service: Name) {
        self.repairs.get_or_create(&ServiceLabels { service: service.to_string() }).inc();
    }

    /// Takes the figures of a store in; `disk_bytes` if it has a folder of its own.
    pub fn store(&self, service: &str, flushes: u64, commands: u64, disk_bytes: Option<u64>) {
        let labels = ServiceLabels { service: service.to_owned() };
        let clamp = |value: u64| i64::try_from(value).unwrap_or(i64::MAX);
        self.flushes.get_or_create(&labels).set(clamp(flushes));
        self.flushed_commands.get_or_create(&labels).set(clamp(commands));
        if let Some(disk_bytes) = disk_bytes {
            self.disk_bytes.get_or_create(&labels).set(clamp(disk_bytes));
        }
    }

    /// Everything, as Prometheus reads it.
    pub fn text(&self) -> String {
        let mut text = String::new();
        match encode(&mut text, &self.registry.read()) {
            Ok(()) => text,
            Err(_) => String::new(),
        }
    }
}

fn outcome_word(outcome: &Outcome) -> &'static str {
    match outcome {
        Outcome::Committed => "committed",
        Outcome::Refused { .. } => "refused",
        Outcome::Conflict(_) => "conflict",
        Outcome::RolledBack { .. } => "rolled_back",
        Outcome::InDoubt => "in_doubt",
    }
}

fn result_word(reply: &Reply) -> &'static str {
    match reply {
        Reply::Done(_) => "done",
        Reply::Refused(_) => "refused",
        Reply::Violation(_) => "violation",
        Reply::Unknown(_) => "unknown",
    }
}

fn protocol_word(protocol: Protocol) -> &'static str {
    match protocol {
        Protocol::TwoPhase => "2pc",
        Protocol::Saga => "saga",
    }
}

impl Observer for Metrics {
    fn observe(&self, observation: &Observation<'_>) {
        let by = |service: &Name| ServiceLabels { service: service.to_string() };
        match observation {
            Observation::Answered { definition, protocol, outcome, micros, .. } => {
                let outcome = outcome_word(outcome);
                self.transactions.count((*definition, *protocol, outcome), || TransactionLabels {
                    definition: definition.to_string(),
                    protocol: protocol_word(*protocol),
                    outcome,
                });
                self.transaction_durations.observe(*micros as f64 / 1e6);
            }
            Observation::Replied { service, verb, reply, .. } => {
                let result = result_word(reply);
                self.commands.count((*service, *verb, result), || CommandLabels {
                    service: service.to_string(),
                    verb: verb.as_str(),
                    result,
                });
            }
            Observation::TurnedAway { .. } => _ = self.turned_away.inc(),
            Observation::Violation { service, .. } => _ = self.violations.get_or_create(&by(service)).inc(),
            Observation::DeadLetter { service, .. } => _ = self.dead_letters.get_or_create(&by(service)).inc(),
            Observation::BreakerOpened { service } => _ = self.breaker_trips.get_or_create(&by(service)).inc(),
            Observation::Switched { .. } => _ = self.protocol_switches.inc(),
            Observation::Recovering { transactions } => _ = self.recovered.inc_by(*transactions as u64),
            _ => {}
        }
    }
}
