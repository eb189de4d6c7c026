//! What a process counts, in the text format of OpenMetrics. [`Metrics::known`] lists it, docs/metrics.md explains it, and a test holds the
//! one against the other. Labels are words known when the program is written: no id ever is one.

mod classic;
mod exemplars;
mod figures;
mod observed;
mod process;
mod taken;

use std::fmt::Debug;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::SystemTime;

use axum::http::StatusCode;
use parking_lot::Mutex;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::Registry;
use protocol::{Name, Protocol, Timestamp, Verb};
use telemetry::TraceId;
use telemetry::traces::{Kept, Listener};

pub use figures::Known;

pub use classic::classic;
use exemplars::Exemplars;
use figures::{Cached, Distribution, OfLeader, Register, Told};
use observed::protocol_word;
use process::Process;
pub use process::began;

/// Upper bounds of the duration buckets in seconds: 100 µs to 30 s, eight a decade, so that a percentile is off by less than a fifth. To find the one of
/// a second takes 33 comparisons, some ten nanoseconds, which is nothing beside what took a second.
#[rustfmt::skip]
const BUCKETS: [f64; 45] = [
    0.0001, 0.00013, 0.00018, 0.00024, 0.00032, 0.00042, 0.00056, 0.00075,
    0.001, 0.0013, 0.0018, 0.0024, 0.0032, 0.0042, 0.0056, 0.0075,
    0.01, 0.013, 0.018, 0.024, 0.032, 0.042, 0.056, 0.075,
    0.1, 0.13, 0.18, 0.24, 0.32, 0.42, 0.56, 0.75,
    1.0, 1.3, 1.8, 2.4, 3.2, 4.2, 5.6, 7.5,
    10.0, 13.0, 18.0, 24.0, 30.0,
];

/// Of requests, as the text has it.
const REQUESTS: &str = "settle_http_request_duration_seconds";
/// Of transactions.
const TRANSACTIONS: &str = "settle_transaction_duration_seconds";

type Labels = Vec<(&'static str, String)>;
type Durations = Family<Labels, Histogram, fn() -> Histogram>;

fn labels<const N: usize>(pairs: [(&'static str, &str); N]) -> Labels {
    pairs.map(|(name, value)| (name, value.to_owned())).to_vec()
}

fn by_service(service: &Name) -> Labels {
    labels([("service", service.as_str())])
}

fn durations() -> Durations {
    Family::new_with_constructor(|| Histogram::new(BUCKETS))
}

fn clamp(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

/// How a store fares.
#[derive(Debug, Clone, Default)]
pub struct StoreFigures {
    /// Whether it can be reached.
    pub up: bool,
    /// Connections made to it, if it is elsewhere.
    pub connections: u64,
    /// Batches made durable.
    pub flushes: u64,
    /// Commands in them.
    pub commands: u64,
    /// Commands of which nobody knows whether they were carried out, if that can be.
    pub unknown: Option<u64>,
    /// How often its master came to be at another address, if it can.
    pub failovers: Option<u64>,
    /// Bytes on disk, if it has a folder of its own.
    pub disk_bytes: Option<u64>,
    /// How batches were spread, if it keeps count.
    pub batches: Option<Batches>,
}

/// Distributions over the batches of a store. Bucket `n` counts values from 2ⁿ to 2ⁿ⁺¹ − 1.
#[derive(Debug, Clone, Default)]
pub struct Batches {
    /// Commands in a batch.
    pub commands: Vec<u64>,
    /// Microseconds of making one durable.
    pub microseconds: Vec<u64>,
    /// The sum of those, in seconds.
    pub seconds: f64,
}

/// How the orchestrator of a process fares.
#[derive(Debug, Clone, Default)]
pub struct OrchestratorFigures {
    /// Begun and not answered.
    pub in_flight: usize,
    /// Queued behind them.
    pub queued: usize,
    /// Driven by this instance, those behind their answer included.
    pub unsettled: usize,
    /// Taken up by recovery and not decided yet.
    pub in_doubt: usize,
    /// In the whole log; `None` if it did not say, or was not asked: the leader asks it for all.
    pub stuck: Option<usize>,
    /// Whether this instance looks after the log on behalf of all.
    pub leader: bool,
    /// The epoch under which it appends.
    pub epoch: u64,
    /// Each service, and whether its breaker is open.
    pub breakers: Vec<(Name, bool)>,
    /// The kinds of transactions.
    pub definitions: Vec<DefinitionFigures>,
}

/// How transactions of one kind fare.
#[derive(Debug, Clone)]
pub struct DefinitionFigures {
    /// Its name.
    pub definition: Name,
    /// The protocol of the next transaction.
    pub protocol: Protocol,
    /// Whether it is that whatever the abort rate.
    pub fixed: bool,
    /// The abort rate.
    pub abort_percent: usize,
}

/// What a process counts.
pub struct Metrics {
    registry: Mutex<Registry>,
    exemplars: Exemplars,
    known: Vec<Known>,
    process: Process,

    requests: Cached<(&'static str, u16), (Counter, Histogram)>,
    http_requests: Family<Labels, Counter>,
    http_durations: Durations,

    transactions: Cached<(Name, Protocol, &'static str), (Counter, Histogram)>,
    transaction_counts: Family<Labels, Counter>,
    transaction_durations: Durations,
    turned_away: Family<Labels, Counter>,
    in_flight: Gauge,
    queued: Gauge,
    unsettled: Gauge,
    in_doubt: Gauge,
    stuck: OfLeader,

    commands: Cached<(Name, Verb, &'static str), Counter>,
    command_counts: Family<Labels, Counter>,
    retries: Family<Labels, Counter>,
    violations: Family<Labels, Counter>,
    repairs: Family<Labels, Counter>,
    dead_letters: Family<Labels, Counter>,

    abort_percent: Family<Labels, Gauge>,
    protocol: Family<Labels, Gauge>,
    protocol_fixed: Family<Labels, Gauge>,
    protocol_switches: Family<Labels, Counter>,
    breaker_open: Family<Labels, Gauge>,
    breaker_trips: Family<Labels, Counter>,
    faults_set: Family<Labels, Gauge<f64, AtomicU64>>,
    faults_struck: Family<Labels, Told>,

    leader: Gauge,
    epoch: Gauge,
    recoveries: Counter,
    recovered: Counter,
    takeovers: Counter,
    fenced: Counter,

    store_up: Family<Labels, Gauge>,
    store_connections: Family<Labels, Told>,
    store_flushes: Family<Labels, Told>,
    store_commands: Family<Labels, Told>,
    store_unknown: Family<Labels, Told>,
    store_failovers: Family<Labels, Told>,
    store_batch_commands: Family<Labels, Distribution>,
    store_flush_seconds: Family<Labels, Distribution>,
    store_disk_bytes: Family<Labels, Gauge>,

    spans: [Told; 2],
    export_failures: Told,

    broker_up: Family<Labels, Gauge>,
    broker_events: Family<Labels, Told>,

    audit_findings: OfLeader,
    audit_runs: Counter,
    audit_ended: OfLeader,
    audit_checked: Counter,
}

impl Debug for Metrics {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Metrics").finish_non_exhaustive()
    }
}

impl Default for Metrics {
    fn default() -> Self {
        const SERVICE: &[&str] = &["service"];
        const DEFINITION: &[&str] = &["definition"];
        let mut all = Register::default();
        let process = Process::register(&mut all);
        let version = Info::new(vec![("version", env!("CARGO_PKG_VERSION"))]);
        all.info("settle_build", &["version"], "Always 1: the version that runs", version);
        macro_rules! add {
            ($kind:expr, $name:literal, $labels:expr, $help:literal) => {
                all.add(concat!("settle_", $name), $labels, $help, $kind)
            };
        }
        let http_requests =
            add!(Family::default(), "http_requests", &["route", "status"], "Requests answered; a route is never an id");
        let http_durations =
            add!(durations(), "http_request_duration_seconds", &["route"], "From a request's arrival to its answer");
        let transaction_counts = add!(
            Family::default(),
            "transactions",
            &["definition", "protocol", "outcome"],
            "Transactions answered: committed, refused, conflict, rolled_back or in_doubt"
        );
        let transaction_durations = add!(
            durations(),
            "transaction_duration_seconds",
            &["definition", "protocol", "outcome"],
            "From a transaction's begin to its answer"
        );
        let turned_away = add!(
            Family::default(),
            "turned_away",
            &["definition", "why"],
            "Callers turned away before anything began: overloaded, unavailable (a breaker is open), not_ready or other"
        );
        Self {
            in_flight: add!(Gauge::default(), "transactions_in_flight", &[], "Transactions begun and not answered"),
            queued: add!(Gauge::default(), "transactions_queued", &[], "Callers queued behind those in flight"),
            unsettled: add!(
                Gauge::default(),
                "transactions_unsettled",
                &[],
                "Transactions that this instance drives, those behind their answer included"
            ),
            in_doubt: add!(
                Gauge::default(),
                "transactions_in_doubt",
                &[],
                "Transactions taken up by recovery and not decided yet"
            ),
            stuck: add!(
                OfLeader::default(),
                "transactions_stuck",
                &[],
                "Transactions with a dead letter, in the whole log; at most 1,000 are counted, by the leader: no other instance exports it"
            ),
            commands: Cached::default(),
            command_counts: add!(
                Family::default(),
                "participant_commands",
                &["service", "verb", "result"],
                "Commands to participants answered: done, refused, violation or unknown"
            ),
            retries: add!(
                Family::default(),
                "participant_retries",
                SERVICE,
                "Of these commands, those that had been sent before and not been answered"
            ),
            violations: add!(
                Family::default(),
                "barrier_violations",
                SERVICE,
                "Commands that contradicted their branch: a bug or lost data"
            ),
            repairs: add!(
                Family::default(),
                "barrier_repairs",
                SERVICE,
                "Commits that found no prepared branch: the store lost data"
            ),
            dead_letters: add!(Family::default(), "dead_letters", SERVICE, "Branches that would not acknowledge"),
            abort_percent: add!(
                Family::default(),
                "abort_percent",
                DEFINITION,
                "Of the last 100 transactions of a definition, how many in a hundred aborted"
            ),
            protocol: add!(
                Family::default(),
                "protocol",
                &["definition", "protocol"],
                "1 for the protocol that the next transaction uses, 0 for the other"
            ),
            protocol_fixed: add!(
                Family::default(),
                "protocol_fixed",
                DEFINITION,
                "1 if the configuration says which protocol is used, 0 if the abort rate does"
            ),
            protocol_switches: add!(
                Family::default(),
                "protocol_switches",
                DEFINITION,
                "Changes of the protocol by the abort rate"
            ),
            breaker_open: add!(
                Family::default(),
                "breaker_open",
                SERVICE,
                "Whether a service's breaker keeps transactions away"
            ),
            breaker_trips: add!(Family::default(), "breaker_trips", SERVICE, "Times a service's breaker opened"),
            faults_set: add!(
                Family::default(),
                "faults_active",
                &["service", "point", "action"],
                "Above 0 where a fault is set that does this (crash, delay, error, error_after): in which share of cases, 1 for all; 0 where none is; nothing without `--chaos`"
            ),
            faults_struck: add!(
                Family::default(),
                "faults_struck",
                &["service", "point", "action"],
                "Times that an injected fault struck; one that crashes the process is not counted any more"
            ),
            leader: add!(Gauge::default(), "leader", &[], "Whether this instance looks after the log on behalf of all"),
            epoch: add!(Gauge::default(), "epoch", &[], "The epoch under which this instance appends to the log"),
            recoveries: add!(
                Counter::default(),
                "recovery_runs",
                &[],
                "Times that recovery found something to take up"
            ),
            recovered: add!(Counter::default(), "recovered_transactions", &[], "Transactions taken up by recovery"),
            takeovers: add!(
                Counter::default(),
                "takeovers",
                &[],
                "Instances whose lease had lapsed and whose transactions this one took over"
            ),
            fenced: add!(
                Counter::default(),
                "fenced",
                &[],
                "Times that another instance had taken over this one's transactions"
            ),
            store_up: add!(Family::default(), "store_up", SERVICE, "Whether the store can be reached"),
            store_connections: add!(
                Family::default(),
                "store_connections",
                SERVICE,
                "Connections made to the store, the first included: each further one is a loss, or a failover"
            ),
            store_flushes: add!(Family::default(), "store_flushes", SERVICE, "Batches made durable"),
            store_commands: add!(Family::default(), "store_commands", SERVICE, "Commands made durable"),
            store_unknown: add!(
                Family::default(),
                "store_unknown",
                SERVICE,
                "Commands that the store did not acknowledge: away, or replication below the wanted level"
            ),
            store_failovers: add!(
                Family::default(),
                "store_failovers",
                SERVICE,
                "Times that this process heard of a master at another address, since it started"
            ),
            store_batch_commands: add!(
                Family::default(),
                "store_batch_commands",
                SERVICE,
                "Commands that shared one flush: in Redis, one exchange with it"
            ),
            store_flush_seconds: add!(
                Family::default(),
                "store_flush_duration_seconds",
                SERVICE,
                "Making one batch durable: writing and flushing it; in Redis, from the first byte sent to the last answer, the wait for replicas included"
            ),
            store_disk_bytes: add!(Family::default(), "store_disk_bytes", SERVICE, "Size of the store's folder"),
            spans: [
                add!(Told::default(), "trace_spans_exported", &[], "Spans that the back end for traces has taken"),
                add!(
                    Told::default(),
                    "trace_spans_dropped",
                    &[],
                    "Spans that are lost: too many waited, or the back end did not take them"
                ),
            ],
            export_failures: add!(
                Told::default(),
                "trace_export_failures",
                &[],
                "Batches of spans that the back end did not take"
            ),
            broker_up: add!(Family::default(), "broker_up", &["broker"], "Whether there is a connection to the broker"),
            broker_events: add!(
                Family::default(),
                "broker_events",
                &["broker", "event"],
                "What happened to messages, and to the connection"
            ),
            audit_findings: add!(
                OfLeader::default(),
                "audit_findings",
                &[],
                "Things that the continuous audit found to be off; looked for by the leader: no other instance exports it"
            ),
            audit_runs: add!(Counter::default(), "audit_runs", &[], "Full passes of the continuous audit"),
            audit_ended: add!(
                OfLeader::default(),
                "audit_last_timestamp_seconds",
                &[],
                "When the last full pass of the continuous audit ended, in seconds since 1970; 0 before the first; no other instance than the leader exports it"
            ),
            audit_checked: add!(
                Counter::default(),
                "audit_checked",
                &[],
                "Accounts, orders and transactions that the continuous audit looked at"
            ),
            exemplars: Exemplars::default(),
            requests: Cached::default(),
            http_requests,
            http_durations,
            transactions: Cached::default(),
            transaction_counts,
            transaction_durations,
            turned_away,
            process,
            registry: Mutex::new(all.registry),
            known: all.known,
        }
    }
}

impl Metrics {
    /// Everything that can be exported.
    pub fn known(&self) -> &[Known] {
        &self.known
    }

    /// Counts an answered request.
    pub fn request(&self, route: &'static str, status: StatusCode, seconds: f64) {
        let status = status.as_u16();
        let make = || {
            let counter = labels([("route", route), ("status", &status.to_string())]);
            let duration = labels([("route", route)]);
            (self.http_requests.get_or_create_owned(&counter), self.http_durations.get_or_create_owned(&duration))
        };
        self.requests.with((route, status), make, |(counter, durations)| {
            counter.inc();
            durations.observe(seconds);
        });
    }

    /// A request that was counted with this duration has a trace that is kept.
    pub fn request_kept(&self, route: &'static str, seconds: f64, trace: TraceId) {
        self.exemplars.keep(REQUESTS, format!("route=\"{route}\""), seconds, trace, SystemTime::now());
    }

    /// Whom tracing tells of transactions whose trace is kept.
    pub fn listener(self: &Arc<Self>) -> Listener {
        let metrics = Arc::clone(self);
        Arc::new(move |kept| {
            let Kept { trace, definition, protocol, outcome, micros } = *kept;
            let protocol = protocol_word(protocol);
            let labels = format!("definition=\"{definition}\",protocol=\"{protocol}\",outcome=\"{outcome}\"");
            metrics.exemplars.keep(TRANSACTIONS, labels, micros as f64 / 1e6, trace, SystemTime::now());
        })
    }

    /// Counts a commit that found no prepared branch.
    pub fn repaired(&self, service: Name) {
        self.repairs.get_or_create(&by_service(&service)).inc();
    }

    /// The continuous audit looked at so many more accounts, orders and transactions.
    pub fn audit_looked(&self, more: u64) {
        self.audit_checked.inc_by(more);
    }

    /// A full pass of the continuous audit ended, and so many things are off.
    pub fn audited(&self, off: usize, now: Timestamp) {
        self.audit_runs.inc();
        self.audit_findings.know(clamp(off as u64));
        self.audit_ended.know(clamp(now.0 / 1000));
    }

    /// The audit is another instance's business from now on.
    pub fn audits_no_longer(&self) {
        self.audit_findings.know_no_longer();
        self.audit_ended.know_no_longer();
    }

    /// Everything, as Prometheus reads it, with exemplars: see [`classic()`] for the older format.
    pub fn text(&self) -> String {
        self.process.look();
        let [exported, dropped, failures] = telemetry::traces::figures();
        self.spans[0].tell(exported);
        self.spans[1].tell(dropped);
        self.export_failures.tell(failures);
        let mut text = String::new();
        match encode(&mut text, &self.registry.lock()) {
            Ok(()) => self.exemplars.put_into(text),
            Err(_) => String::new(),
        }
    }
}

#[cfg(test)]
mod tests;
