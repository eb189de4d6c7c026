//! What is known of a system at one moment: the object that the page and `settle top` are given once a second.
//!
//! Every member is always there; what is not known is null.

use serde::{Deserialize, Serialize};

/// What is known of a system at one moment.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Snapshot {
    /// When, in milliseconds since 1970.
    pub at: u64,
    /// What is watched: `settle serve`, `settle up`, or the name of an instance.
    pub title: String,
    /// The version of whoever watches.
    pub version: String,
    /// Whether all is well.
    pub verdict: Verdict,
    /// What the continuous auditor said last; `None` if there is none.
    pub audit: Option<Audit>,
    /// A second, over the last few.
    pub rates: Rates,
    /// How many checkouts were answered how, ever, as far as was watched.
    #[serde(default)]
    pub answers: Answers,
    /// Of checkouts answered in the last ten seconds or so.
    pub latency_ms: Latency,
    /// Kinds of transactions.
    pub definitions: Vec<Definition>,
    /// Begun and not answered.
    pub in_flight: u64,
    /// Queued behind them.
    pub queued: u64,
    /// Driven, those behind their answer included.
    pub unsettled: u64,
    /// Taken up by recovery and not decided yet.
    pub in_doubt: u64,
    /// With a dead letter; `None` if no leader is seen: it alone knows.
    pub stuck: Option<u64>,
    /// Branches that would not acknowledge, ever.
    pub dead_letters: u64,
    /// Commands that contradicted their branch, ever.
    pub violations: u64,
    /// Commits that found no prepared branch, ever.
    pub repairs: u64,
    /// Services that transactions may be kept away from.
    pub breakers: Vec<Breaker>,
    /// Services that take part in transactions.
    pub services: Vec<Service>,
    /// Faults that are set to be injected.
    pub faults: Vec<Fault>,
    /// Faults that struck, ever, as far as was watched.
    pub struck: Vec<Struck>,
    /// Who looks after the log on behalf of all.
    pub leader: Option<String>,
    /// The processes.
    pub instances: Vec<Instance>,
    /// The databases, as the instances see them.
    pub stores: Vec<Store>,
    /// What happened, the newest last.
    pub marks: Vec<Mark>,
    /// What whoever asked may do.
    pub operators: Operators,
    /// Whether faults may be injected.
    pub chaos: bool,
    /// Whether seeding and faults are refused.
    pub production: bool,
    /// Where the back end shows a trace, with `{trace_id}` for its id; `None` if nothing is traced, or nobody said where.
    pub trace_url: Option<String>,
}

/// Whether all is well, and why not.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verdict {
    /// How well.
    pub level: Level,
    /// In words for people.
    pub text: String,
}

/// How well a system fares.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// Nothing is to be done.
    Good,
    /// Nothing is to be done, and nobody knows yet whether money and stock agree. Not [`Level::Good`], which says that they do.
    Unknown,
    /// Somebody should look.
    Warning,
    /// Somebody must look, now.
    Bad,
}

/// What the continuous auditor said last.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Audit {
    /// When, in milliseconds since 1970; 0 if it has never finished.
    pub at: u64,
    /// Accounts and orders looked at, ever.
    pub checked: u64,
    /// What is off.
    pub findings: u64,
    /// Whether it has gone through all of them at least once.
    pub complete: bool,
}

/// How often a second.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Rates {
    /// Checkouts that committed.
    pub committed: f64,
    /// That a service refused.
    pub refused: f64,
    /// That ran into another change of their order.
    pub conflict: f64,
    /// That were undone because a service did not answer.
    pub rolled_back: f64,
    /// Whose outcome the caller was not told.
    pub in_doubt: f64,
    /// Callers turned away before anything began.
    pub turned_away: f64,
    /// Requests of the contract.
    pub requests: f64,
    /// Of these, answered 5xx.
    pub errors: f64,
}

/// How many checkouts were answered how. What is less than before began anew, without a diary to go on from.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answers {
    /// Committed.
    pub committed: u64,
    /// Refused, or in conflict with another change of the order.
    pub refused: u64,
    /// Undone.
    pub rolled_back: u64,
    /// The caller was not told the outcome.
    pub in_doubt: u64,
    /// Turned away before anything began.
    pub turned_away: u64,
}

impl Answers {
    /// Those of both.
    #[must_use]
    pub(crate) fn and(mut self, more: Self) -> Self {
        self.rise(Self::default(), more);
        self
    }

    /// Adds what came between two counts of one instance.
    pub(crate) fn rise(&mut self, before: Self, now: Self) {
        self.committed += now.committed.saturating_sub(before.committed);
        self.refused += now.refused.saturating_sub(before.refused);
        self.rolled_back += now.rolled_back.saturating_sub(before.rolled_back);
        self.in_doubt += now.in_doubt.saturating_sub(before.in_doubt);
        self.turned_away += now.turned_away.saturating_sub(before.turned_away);
    }
}

/// Percentiles in milliseconds; `None` if there were no checkouts.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Latency {
    /// Half were faster.
    pub p50: Option<f64>,
    /// 90 in 100 were.
    pub p90: Option<f64>,
    /// 99 in 100 were.
    pub p99: Option<f64>,
    /// 999 in 1,000 were.
    pub p999: Option<f64>,
    /// What the slowest took at most, of those answered since the last look: a few that wait move no percentile.
    #[serde(default)]
    pub slowest: Option<f64>,
}

/// A kind of transactions.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Definition {
    /// `checkout`, for example.
    pub name: String,
    /// `2pc` or `saga`: of the next transaction, at most instances.
    pub protocol: String,
    /// Whether it is that by configuration, whatever the abort rate.
    pub fixed: bool,
    /// Of the last hundred, how many aborted; the mean over the instances.
    pub abort_percent: u64,
    /// How often the protocol changed, ever.
    pub switches: u64,
}

/// What keeps transactions away from a service that does not answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Breaker {
    /// The service.
    pub service: String,
    /// Whether it keeps them away, at any instance.
    pub open: bool,
    /// How often it opened, ever.
    pub trips: u64,
}

/// A service that takes part in transactions.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Service {
    /// Its name.
    pub service: String,
    /// Commands to it, a second.
    pub commands: f64,
    /// Of these, not answered, a second.
    pub unanswered: f64,
    /// Of these, sent before and not answered then, a second.
    pub retries: f64,
    /// Branches there that would not acknowledge, ever.
    pub dead_letters: u64,
}

/// A fault that is set to be injected.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Fault {
    /// The service.
    pub service: String,
    /// Where in its work: `before_prepare`, for example.
    pub point: String,
    /// What it does: `crash`, `delay`, `error` or `error_after`; empty if that is not told.
    pub action: String,
    /// In how many of a hundred cases: 1 to 100. Of one that struck, 100: it did.
    pub percent: u8,
    /// All of that for people: `payment before prepare: waits in 20 % of cases`.
    pub words: String,
}

impl Fault {
    /// A fault, with its words, that strikes in so many of a hundred cases.
    pub fn new(service: String, point: String, action: String, percent: u8) -> Self {
        let does = match action.as_str() {
            "" => String::new(),
            "crash" => ": crashes the process".to_owned(),
            "delay" => ": waits".to_owned(),
            "error" => ": fails".to_owned(),
            "error_after" => ": does it, and fails".to_owned(),
            other => format!(": {}", other.replace('_', " ")),
        };
        let often = match (percent, action.as_str()) {
            (100.., _) => String::new(),
            // Without a comma it would read as if it were done always.
            (_, "error_after") => format!(", in {percent} % of cases"),
            (_, "") => format!(": in {percent} % of cases"),
            _ => format!(" in {percent} % of cases"),
        };
        let words = format!("{service} {}{does}{often}", point.replace('_', " "));
        Self { service, point, action, percent, words }
    }

    /// Whether it is at the same point as another: of these, there is one at a time.
    pub fn is_where(&self, other: &Self) -> bool {
        (&self.service, &self.point) == (&other.service, &other.point)
    }
}

/// A fault that struck.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Struck {
    /// What it was.
    pub fault: Fault,
    /// How often.
    pub times: u64,
}

/// A process.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Instance {
    /// Its name, such as `order-1`.
    pub name: String,
    /// What it is.
    pub kind: Kind,
    /// How it is.
    pub state: State,
    /// Since when, in milliseconds since 1970, as far as was watched.
    pub since: u64,
    /// When its process began, in milliseconds since 1970, if it says so.
    pub started: Option<u64>,
    /// `leader`, `master` or `replica`; `was master` of one that does not answer, or that others have left for another.
    pub role: Option<String>,
    /// Why it is not up, in a sentence.
    pub detail: Option<String>,
    /// How its process ended, if it did and somebody knows: `was killed (SIGKILL)`, `crashed (SIGABRT)`, `ended with exit code 2`.
    pub ended: Option<String>,
    /// Processor time, of one processor.
    pub cpu_percent: Option<f64>,
    /// Resident memory.
    pub memory_bytes: Option<u64>,
    /// Transactions that it took up because a process before it, or another one, had left them behind: ever, as far as was watched.
    pub recovered: u64,
}

/// What a process is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// The whole shop.
    Shop,
    /// The order service.
    Order,
    /// The stock service.
    Stock,
    /// The payment service.
    Payment,
    /// A database.
    Redis,
    /// What watches the databases.
    Sentinel,
    /// The broker.
    Nats,
    /// What clients connect to.
    Gateway,
    /// What watches everybody.
    Prometheus,
}

/// How a process is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// It answers.
    Up,
    /// It does not, or it is not there.
    Down,
    /// It finishes what it has in hand.
    Draining,
    /// It is not ready yet.
    Starting,
    /// It is stopped where it stands.
    Frozen,
}

impl State {
    /// In words that go behind a name: "order-1 is …".
    pub fn words(self) -> &'static str {
        match self {
            Self::Up => "up",
            Self::Down => "down",
            Self::Draining => "draining",
            Self::Starting => "starting",
            Self::Frozen => "frozen",
        }
    }
}

/// A database, as an instance sees it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Store {
    /// Whose: `orders`, `stock`, `payment`.
    pub service: String,
    /// Who says so.
    pub instance: String,
    /// Whether it can be reached.
    pub up: bool,
    /// Batches made durable, a second.
    pub flushes: f64,
    /// Commands made durable, a second.
    pub commands: f64,
    /// Writing and flushing one batch, in milliseconds; `None` if that is not known.
    pub flush_p99_ms: Option<f64>,
    /// Commands that shared a flush; `None` if there was none.
    pub batch_mean: Option<f64>,
}

/// Something that happened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mark {
    /// When, in milliseconds since 1970; the last time, if it happened again and again.
    pub at: u64,
    /// When it happened first: the same as `at` unless it happened again.
    pub since: u64,
    /// What, in a few words.
    pub what: String,
    /// What it is about, if that may happen again and again: a mark with `since` stands for all of its topic from then on.
    pub topic: Option<String>,
}

impl Mark {
    /// Of what happened once.
    pub fn new(at: u64, what: String) -> Self {
        Self { at, since: at, what, topic: None }
    }
}

/// What whoever asked may do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Operators {
    /// Whether they may settle transactions by hand.
    pub allowed: Allowed,
    /// How to be allowed to, in a sentence.
    pub why: Option<String>,
}

impl Operators {
    /// They may, at once.
    pub fn yes() -> Self {
        Self { allowed: Allowed::Yes, why: None }
    }

    /// They may not.
    pub fn no(why: impl Into<String>) -> Self {
        Self { allowed: Allowed::No, why: Some(why.into()) }
    }
}

/// Whether somebody may do what operators do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Allowed {
    /// At once.
    Yes,
    /// With the password.
    Password,
    /// Not here.
    No,
}

/// One second of history.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Point {
    /// When, in milliseconds since 1970.
    pub at: u64,
    /// A second; see [`Rates`].
    pub committed: f64,
    /// Answers of business, a second: refused, or in conflict with another change of the order.
    pub refused: f64,
    /// A second.
    pub rolled_back: f64,
    /// A second.
    pub in_doubt: f64,
    /// A second.
    pub turned_away: f64,
    /// Milliseconds; see [`Latency`].
    pub p50: Option<f64>,
    /// Milliseconds.
    pub p99: Option<f64>,
    /// Milliseconds.
    pub p999: Option<f64>,
    /// Milliseconds.
    #[serde(default)]
    pub slowest: Option<f64>,
    /// The highest of the definitions.
    pub abort_percent: u64,
    /// Begun and not answered.
    pub in_flight: u64,
    /// Queued behind them.
    pub queued: u64,
    /// How many were answered up to then: rates that look back some seconds do not add up where nobody looked.
    #[serde(default)]
    pub answers: Answers,
}

impl Point {
    /// What of a snapshot is kept for ten minutes.
    pub fn of(snapshot: &Snapshot) -> Self {
        let Snapshot { rates, latency_ms, .. } = snapshot;
        Self {
            at: snapshot.at,
            committed: rates.committed,
            refused: rates.refused + rates.conflict,
            rolled_back: rates.rolled_back,
            in_doubt: rates.in_doubt,
            turned_away: rates.turned_away,
            p50: latency_ms.p50,
            p99: latency_ms.p99,
            p999: latency_ms.p999,
            slowest: latency_ms.slowest,
            abort_percent: snapshot.definitions.iter().map(|it| it.abort_percent).max().unwrap_or_default(),
            in_flight: snapshot.in_flight,
            queued: snapshot.queued,
            answers: snapshot.answers,
        }
    }
}

/// What is sent first to whoever begins to listen.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct History {
    /// How far apart the points are meant to be. Milliseconds.
    pub every_ms: u64,
    /// The oldest first.
    pub points: Vec<Point>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::collector::{Collector, Titles};

    #[test]
    fn every_checkout_stands_in_a_point() {
        let mut snapshot = Collector::new(Titles::default()).blank(1);
        snapshot.rates = Rates {
            committed: 1.0,
            refused: 2.0,
            conflict: 4.0,
            rolled_back: 8.0,
            in_doubt: 16.0,
            turned_away: 32.0,
            ..Rates::default()
        };
        let Point { committed, refused, rolled_back, in_doubt, turned_away, .. } = Point::of(&snapshot);
        assert_eq!([committed, refused, rolled_back, in_doubt, turned_away], [1.0, 6.0, 8.0, 16.0, 32.0]);
    }
}
