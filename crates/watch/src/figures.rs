//! What of a process's metrics is of interest here.
//!
//! | metric                                        | becomes                                     |
//! |-----------------------------------------------|---------------------------------------------|
//! | `settle_transactions_total`, `…_turned_away`  | outcomes a second                           |
//! | `settle_transaction_duration_seconds_bucket`  | percentiles                                 |
//! | `settle_http_requests_total`                  | requests and errors a second, without those of whoever watches |
//! | `settle_transactions_…` (gauges)              | in flight, queued, unsettled, in doubt; of the leader: stuck |
//! | `settle_store_…`                              | stores                                      |
//! | `settle_breaker_…`, `settle_protocol…`        | breakers, definitions                       |
//! | `settle_participant_…`, `…_dead_letters_total` | what services were asked, did not answer, were asked again, and would not acknowledge |
//! | `settle_recovered_transactions_total`         | what recovery took up                       |
//! | `settle_faults_…`                             | faults that are set, and that struck        |
//! | `settle_audit_…`                              | the continuous auditor's last word, of the leader |
//! | `process_…`                                   | processor, memory, and whether it began anew |
//! | `settle_start_time_seconds`                   | when it began: its process may be older     |

use std::collections::{BTreeMap, BTreeSet};

use crate::limits::{MAX_WORD_BYTES, MAX_WORDS};
use crate::openmetrics::{Exposition, Sample};
use crate::snapshot::Fault;

/// An upper bound of a histogram's bucket, which can be put in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Bound(u64);

impl Bound {
    /// Of a number that is not negative; `None` for any other.
    pub fn new(number: f64) -> Option<Self> {
        // Bits of floating point numbers that are not negative have the order of the numbers.
        (number >= 0.0).then(|| Self(number.abs().to_bits()))
    }

    /// The number.
    pub fn number(self) -> f64 {
        f64::from_bits(self.0)
    }
}

/// What is counted: it never falls while its process lives.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Counter {
    /// Outcomes of transactions.
    Outcome(Outcome),
    /// Requests of the contract.
    Requests,
    /// Of these, answered 5xx.
    Errors,
    /// Seconds of processor time.
    Processor,
    /// Commands that contradicted their branch.
    Violations,
    /// Commits that found no prepared branch.
    Repairs,
    /// Branches of a service that would not acknowledge.
    DeadLetters(String),
    /// Transactions taken up by recovery.
    Recovered,
    /// Transactions answered within so many seconds.
    Answered(Bound),
    /// Commands to a service that were answered, or were not.
    Asked(String),
    /// Of these, not answered.
    Unanswered(String),
    /// Of these, sent before.
    Retried(String),
    /// Times that a service's breaker opened.
    Trips(String),
    /// Changes of a definition's protocol.
    Switches(String),
    /// Times that an injected fault struck.
    Struck(Fault),
    /// Batches of a store.
    Flushes(String),
    /// Commands of a store.
    Commands(String),
    /// Batches of a store that were flushed within so many seconds.
    Flushed(String, Bound),
    /// Accounts and orders that the auditor looked at.
    Audited,
}

/// How a transaction ended for its caller.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Outcome {
    /// It committed.
    Committed,
    /// A service refused.
    Refused,
    /// It ran into another change of its order.
    Conflict,
    /// It was undone because a service did not answer.
    RolledBack,
    /// The caller was not told.
    InDoubt,
    /// It never began.
    TurnedAway,
}

/// What stands in the metrics of one process at one moment.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Figures {
    /// When the program began, in seconds since 1970; its process, if it does not say so.
    pub started: f64,
    /// What is counted.
    pub counters: BTreeMap<Counter, f64>,
    /// Begun and not answered.
    pub in_flight: u64,
    /// Queued behind them.
    pub queued: u64,
    /// Driven.
    pub unsettled: u64,
    /// Taken up by recovery and not decided.
    pub in_doubt: u64,
    /// With a dead letter, in the whole system; known by whoever leads.
    pub stuck: Option<u64>,
    /// Whether it leads.
    pub leads: bool,
    /// Resident memory.
    pub memory_bytes: Option<u64>,
    /// Whether each service's breaker is open.
    pub breakers: BTreeMap<String, bool>,
    /// Of each definition, the protocol of the next transaction.
    pub protocols: BTreeMap<String, String>,
    /// Whether that is so by configuration.
    pub fixed: BTreeMap<String, bool>,
    /// Of each definition, how many in a hundred abort.
    pub abort_percents: BTreeMap<String, u64>,
    /// Whether each store can be reached.
    pub stores: BTreeMap<String, bool>,
    /// What is set to be injected.
    pub faults: BTreeSet<Fault>,
    /// What the auditor said last, if there is one; known by whoever leads.
    pub audit: Option<AuditFigures>,
}

/// What the auditor said last.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct AuditFigures {
    /// What is off.
    pub findings: u64,
    /// How often it went through everything.
    pub runs: u64,
    /// When it was last done, in seconds since 1970.
    pub at: f64,
}

/// A number of things: never negative, never none.
fn whole(value: f64) -> u64 {
    // The conversion keeps to the bounds of its type, and takes what is no number for 0.
    value.round() as u64
}

impl Figures {
    /// Picks out what is of interest.
    pub fn of(exposition: &Exposition<'_>) -> Self {
        let mut figures = Self::default();
        for sample in &exposition.samples {
            figures.take(sample);
        }
        if !figures.leads {
            // Its business no longer, or never: a 0 would be no answer.
            (figures.stuck, figures.audit) = (None, None);
        }
        figures
    }

    fn take(&mut self, sample: &Sample<'_>) {
        let value = sample.value;
        // Without this, one series that is no number would make every sum none.
        if !value.is_finite() {
            return;
        }
        match sample.name {
            "settle_start_time_seconds" => self.started = value,
            "process_start_time_seconds" if self.started == 0.0 => self.started = value,
            "process_cpu_seconds_total" => self.add(Counter::Processor, value),
            "process_resident_memory_bytes" => self.memory_bytes = Some(whole(value)),
            "settle_transactions_total" => {
                if let Some(outcome) = outcome(sample.label("outcome")) {
                    self.add(Counter::Outcome(outcome), value);
                }
            }
            "settle_turned_away_total" => self.add(Counter::Outcome(Outcome::TurnedAway), value),
            "settle_http_requests_total" => {
                // What nobody but watchers and balancers asks for would look like customers.
                if !matches!(sample.label("route"), "other" | "/health") {
                    self.add(Counter::Requests, value);
                    if sample.label("status").starts_with('5') {
                        self.add(Counter::Errors, value);
                    }
                }
            }
            "settle_transaction_duration_seconds_bucket" => {
                if let Some(bound) = bound(sample) {
                    self.add(Counter::Answered(bound), value);
                }
            }
            "settle_transactions_in_flight" => self.in_flight = whole(value),
            "settle_transactions_queued" => self.queued = whole(value),
            "settle_transactions_unsettled" => self.unsettled = whole(value),
            "settle_transactions_in_doubt" => self.in_doubt = whole(value),
            "settle_transactions_stuck" => self.stuck = Some(whole(value)),
            "settle_barrier_violations_total" => self.add(Counter::Violations, value),
            "settle_barrier_repairs_total" => self.add(Counter::Repairs, value),
            "settle_recovered_transactions_total" => self.add(Counter::Recovered, value),
            "settle_leader" => self.leads = value > 0.0,
            "settle_audit_findings" => self.audit().findings = whole(value),
            "settle_audit_runs_total" => self.audit().runs = whole(value),
            "settle_audit_last_timestamp_seconds" => self.audit().at = value,
            "settle_audit_checked_total" => self.add(Counter::Audited, value),
            _ => self.take_of_somebody(sample),
        }
    }

    fn take_of_somebody(&mut self, sample: &Sample<'_>) {
        let (name, value) = (sample.name, sample.value);
        let label = if name == "settle_abort_percent" || name.starts_with("settle_protocol") {
            sample.label("definition")
        } else {
            sample.label("service")
        };
        if label.is_empty() || label.len() > MAX_WORD_BYTES {
            return;
        }
        let of = || label.to_owned();
        match name {
            "settle_breaker_open" => put(&mut self.breakers, label, value > 0.0),
            "settle_participant_commands_total" => {
                self.add(Counter::Asked(of()), value);
                if sample.label("result") == "unknown" {
                    self.add(Counter::Unanswered(of()), value);
                }
            }
            "settle_participant_retries_total" => self.add(Counter::Retried(of()), value),
            "settle_faults_active" if value > 0.0 && self.faults.len() < MAX_WORDS => {
                let (point, action) = (sample.label("point"), sample.label("action"));
                if point.len() <= MAX_WORD_BYTES && action.len() <= MAX_WORD_BYTES {
                    // The value is the share of cases. What is set and next to never strikes is set all the same.
                    let percent = (value.min(1.0) * 100.0).round().max(1.0) as u8;
                    self.faults.insert(Fault::new(of(), point.to_owned(), action.to_owned(), percent));
                }
            }
            "settle_faults_struck_total" => {
                let (point, action) = (sample.label("point"), sample.label("action"));
                if point.len() <= MAX_WORD_BYTES && action.len() <= MAX_WORD_BYTES {
                    self.add(Counter::Struck(Fault::new(of(), point.to_owned(), action.to_owned(), 100)), value);
                }
            }
            "settle_dead_letters_total" => self.add(Counter::DeadLetters(of()), value),
            "settle_breaker_trips_total" => self.add(Counter::Trips(of()), value),
            "settle_protocol" if value > 0.0 => {
                let protocol = sample.label("protocol");
                if protocol.len() <= MAX_WORD_BYTES {
                    put(&mut self.protocols, label, protocol.to_owned());
                }
            }
            "settle_protocol_fixed" => put(&mut self.fixed, label, value > 0.0),
            "settle_protocol_switches_total" => self.add(Counter::Switches(of()), value),
            "settle_abort_percent" => put(&mut self.abort_percents, label, whole(value)),
            "settle_store_up" => put(&mut self.stores, label, value > 0.0),
            "settle_store_flushes_total" => self.add(Counter::Flushes(of()), value),
            "settle_store_commands_total" => self.add(Counter::Commands(of()), value),
            "settle_store_flush_duration_seconds_bucket" => {
                if let Some(bound) = bound(sample) {
                    self.add(Counter::Flushed(of(), bound), value);
                }
            }
            _ => {}
        }
    }

    fn add(&mut self, counter: Counter, value: f64) {
        *self.counters.entry(counter).or_default() += value.max(0.0);
    }

    fn audit(&mut self) -> &mut AuditFigures {
        self.audit.get_or_insert_default()
    }
}

fn put<V>(map: &mut BTreeMap<String, V>, name: &str, value: V) {
    if map.len() < MAX_WORDS || map.contains_key(name) {
        map.insert(name.to_owned(), value);
    }
}

fn bound(sample: &Sample<'_>) -> Option<Bound> {
    Bound::new(sample.label("le").parse().ok()?)
}

fn outcome(word: &str) -> Option<Outcome> {
    Some(match word {
        "committed" => Outcome::Committed,
        "refused" => Outcome::Refused,
        "conflict" => Outcome::Conflict,
        "rolled_back" => Outcome::RolledBack,
        "in_doubt" => Outcome::InDoubt,
        _ => return None,
    })
}
