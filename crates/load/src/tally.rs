//! What one worker saw: counts, latencies and answers, merged when the run is over.
//!
//! Each worker thread has its own [`Tally`], so nothing is shared on the hot path. Latencies are whole microseconds
//! in HDR histograms with three significant digits.

use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use serde::Serialize;

use crate::client::{Answer, Doubt};
use crate::contract::{Id, problem_code};

/// How many different reasons are counted by name; the rest counts as `other`.
const MAX_REASONS: usize = 64;

/// The kinds of request that a run measures, each with its own latencies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Operation {
    /// `POST /orders/checkout/…`.
    Checkout,
    /// `POST /orders/create/…`.
    Create,
    /// `POST /orders/addItem/…`.
    AddItem,
    /// `GET /orders/find/…`.
    Find,
    /// The one request of a `get:` or `post:` scenario.
    Fixed,
}

impl Operation {
    /// All of them, in the order of a report.
    pub const ALL: [Self; 5] = [Self::Checkout, Self::Create, Self::AddItem, Self::Find, Self::Fixed];

    /// The name in tables.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Checkout => "checkout",
            Self::Create => "create",
            Self::AddItem => "addItem",
            Self::Find => "find",
            Self::Fixed => "request",
        }
    }

    /// Whether this is what the run's throughput is about, and not a step on the way to it.
    #[must_use]
    pub fn is_goal(self) -> bool {
        matches!(self, Self::Checkout | Self::Fixed)
    }
}

/// Counts and latencies of one kind of request.
#[derive(Debug)]
pub struct OperationTally {
    /// Answered 2xx.
    pub committed: u64,
    /// Answered 4xx, by status and problem code.
    pub refused: Reasons,
    /// Neither: any other status, a lost connection, a timeout, or never sent.
    pub failed: Reasons,
    /// Latency of the 2xx answers, in microseconds.
    pub committed_latency: Histogram<u64>,
    /// Latency of all requests, the failed ones up to the moment they were given up, in microseconds.
    pub all_latency: Histogram<u64>,
}

/// How often each reason was given. A handful of different ones, so a list beats a map.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Reasons(Vec<(u16, String, u64)>);

impl Reasons {
    fn add(&mut self, status: u16, reason: &str, count: u64) {
        let is_full = self.0.len() >= MAX_REASONS;
        let known = self.0.iter_mut().find(|(s, r, _)| *s == status && r == reason);
        match known {
            Some((_, _, n)) => *n += count,
            None if is_full && (status, reason) != (0, "other") => self.add(0, "other", count),
            None => self.0.push((status, reason.to_owned(), count)),
        }
    }

    fn merge(&mut self, other: &Self) {
        for (status, reason, count) in &other.0 {
            self.add(*status, reason, *count);
        }
    }

    /// All of them together.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.0.iter().map(|(_, _, count)| count).sum()
    }

    /// Reason and count, most frequent first.
    #[must_use]
    pub fn named(&self) -> Vec<(String, u64)> {
        let mut named: Vec<_> = self
            .0
            .iter()
            .map(|(status, reason, count)| match (status, reason.as_str()) {
                (0, reason) => (reason.to_owned(), *count),
                (status, "") => (status.to_string(), *count),
                (status, code) => (format!("{status} {code}"), *count),
            })
            .collect();
        named.sort_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
        named
    }
}

/// What happened in one second of the run.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Second {
    /// Requests of any kind that ended in it.
    pub requests: u64,
    /// Checkouts (or fixed requests) answered 2xx.
    pub committed: u64,
    /// Checkouts (or fixed requests) answered 4xx.
    pub refused: u64,
    /// Checkouts (or fixed requests) without a final answer.
    pub failed: u64,
    /// The longest that a checkout (or fixed request) which ended in it had taken, however it ended. Microseconds.
    pub slowest_us: u64,
}

impl Second {
    fn add(&mut self, other: &Self) {
        self.requests += other.requests;
        self.committed += other.committed;
        self.refused += other.refused;
        self.failed += other.failed;
        self.slowest_us = self.slowest_us.max(other.slowest_us);
    }
}

/// What one worker saw.
#[derive(Debug)]
pub struct Tally {
    started: Instant,
    operations: [Option<OperationTally>; Operation::ALL.len()],
    /// The run, second by second, since its start.
    pub seconds: Vec<Second>,
    /// What each checkout was answered, for the audit.
    pub answers: Vec<(Id, Answer)>,
    /// From the start to the last answer.
    pub elapsed: Duration,
    /// From the start to the last answer that the server gave.
    answered: Duration,
    /// From the start to when it was found last that nobody listens.
    found_nobody: Option<Duration>,
}

impl Tally {
    /// An empty tally of a run that began at `started`.
    #[must_use]
    pub fn new(started: Instant) -> Self {
        Self {
            started,
            operations: [const { None }; Operation::ALL.len()],
            seconds: Vec::new(),
            answers: Vec::new(),
            elapsed: Duration::ZERO,
            answered: Duration::ZERO,
            found_nobody: None,
        }
    }

    /// Counts the request that was recorded last as one for which nobody listened.
    pub fn note_nobody(&mut self) {
        self.found_nobody = Some(self.elapsed);
    }

    /// How far into the run the last answer of the server came, if at the end nobody listened any more.
    #[must_use]
    pub fn gone_since(&self) -> Option<Duration> {
        self.found_nobody.filter(|found| *found > self.answered).map(|_| self.answered)
    }

    /// The counts of one kind of request; `None` when there was none.
    #[must_use]
    pub fn operation(&self, operation: Operation) -> Option<&OperationTally> {
        self.operations[operation as usize].as_ref()
    }

    /// Counts one answer (`body` is read for the reason of a refusal) to a request that was due at `due`.
    pub fn record(&mut self, operation: Operation, due: Instant, answer: Answer, body: &[u8]) {
        let now = Instant::now();
        let latency = u64::try_from(now.saturating_duration_since(due).as_micros()).unwrap_or(u64::MAX);
        self.elapsed = now.saturating_duration_since(self.started);
        if matches!(answer, Answer::Accepted | Answer::Refused(_) | Answer::Unknown(Doubt::Status(_))) {
            self.answered = self.elapsed;
        }
        let second = usize::try_from(self.elapsed.as_secs()).unwrap_or(usize::MAX).min(MAX_SECONDS - 1);
        if self.seconds.len() <= second {
            self.seconds.resize(second + 1, Second::default());
        }
        let seen = self.operations[operation as usize].get_or_insert_with(OperationTally::new);
        seen.all_latency.saturating_record(latency);
        let second = &mut self.seconds[second];
        second.requests += 1;
        let counts = operation.is_goal();
        if counts {
            second.slowest_us = second.slowest_us.max(latency);
        }
        match answer {
            Answer::Accepted => {
                seen.committed += 1;
                seen.committed_latency.saturating_record(latency);
                second.committed += u64::from(counts);
            }
            Answer::Refused(status) => {
                seen.refused.add(status, problem_code(body).unwrap_or(""), 1);
                second.refused += u64::from(counts);
            }
            Answer::Unknown(doubt) => {
                match doubt {
                    Doubt::Status(status) => seen.failed.add(status, "", 1),
                    other => seen.failed.add(0, other.name(), 1),
                }
                second.failed += u64::from(counts);
            }
            Answer::Unsent => {
                seen.failed.add(0, "no connection (never sent)", 1);
                second.failed += u64::from(counts);
            }
        }
    }

    /// Adds what another worker saw.
    pub fn merge(&mut self, other: Self) {
        for (mine, theirs) in self.operations.iter_mut().zip(other.operations) {
            match (mine, theirs) {
                (_, None) => {}
                (mine @ None, theirs) => *mine = theirs,
                (Some(mine), Some(theirs)) => mine.merge(&theirs),
            }
        }
        if self.seconds.len() < other.seconds.len() {
            self.seconds.resize(other.seconds.len(), Second::default());
        }
        for (mine, theirs) in self.seconds.iter_mut().zip(&other.seconds) {
            mine.add(theirs);
        }
        self.answers.extend(other.answers);
        self.elapsed = self.elapsed.max(other.elapsed);
        self.answered = self.answered.max(other.answered);
        self.found_nobody = self.found_nobody.max(other.found_nobody);
    }
}

/// Longer than the longest run; a latency above it counts as this.
const MAX_LATENCY_US: u64 = 25 * 3600 * 1_000_000;

/// The series stops growing after a day; no run is that long.
const MAX_SECONDS: usize = 86_400;

impl OperationTally {
    fn new() -> Self {
        // Bounds and not auto-resizing: `saturating_record` would clip to the size so far instead of growing.
        let histogram = || {
            Histogram::new_with_bounds(1, MAX_LATENCY_US, 3)
                .expect("1 to a day with three significant digits is a valid histogram")
        };
        Self {
            committed: 0,
            refused: Reasons::default(),
            failed: Reasons::default(),
            committed_latency: histogram(),
            all_latency: histogram(),
        }
    }

    fn merge(&mut self, other: &Self) {
        self.committed += other.committed;
        self.refused.merge(&other.refused);
        self.failed.merge(&other.failed);
        for (mine, theirs) in
            [(&mut self.committed_latency, &other.committed_latency), (&mut self.all_latency, &other.all_latency)]
        {
            mine.add(theirs).expect("all histograms have the same bounds");
        }
    }

    /// How many requests there were, however they ended.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.committed + self.refused.total() + self.failed.total()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn merging_two_workers_keeps_every_count() {
        let started = Instant::now();
        let mut one = Tally::new(started);
        let mut two = Tally::new(started);
        one.record(Operation::Checkout, started, Answer::Accepted, b"");
        two.record(Operation::Checkout, started, Answer::Refused(409), br#"{"code":"insufficient_stock"}"#);
        two.record(Operation::Checkout, started, Answer::Refused(404), b"plain");
        two.record(Operation::Checkout, started, Answer::Unknown(Doubt::Status(500)), b"");
        two.record(Operation::Find, started, Answer::Unsent, b"");
        one.merge(two);
        let checkout = one.operation(Operation::Checkout).unwrap();
        assert_eq!((checkout.committed, checkout.total()), (1, 4));
        assert_eq!(checkout.refused.named(), [("404".into(), 1), ("409 insufficient_stock".into(), 1)]);
        assert_eq!(checkout.failed.named(), [("500".into(), 1)]);
        assert_eq!((checkout.committed_latency.len(), checkout.all_latency.len()), (1, 4));
        assert_eq!(one.operation(Operation::Find).unwrap().failed.total(), 1);
        let series = one.seconds.iter().fold((0, 0, 0, 0), |sum, s| {
            (sum.0 + s.requests, sum.1 + s.committed, sum.2 + s.refused, sum.3 + s.failed)
        });
        assert_eq!(series, (5, 1, 2, 1), "a find is a request, but neither sale nor refusal");
    }

    #[test]
    fn a_long_latency_is_kept_as_long_as_it_was() {
        let started = Instant::now();
        let mut tally = Tally::new(started);
        for seconds in [0, 3, 30] {
            let due = started.checked_sub(Duration::from_secs(seconds)).unwrap();
            tally.record(Operation::Fixed, due, Answer::Accepted, b"");
        }
        let latency = &tally.operation(Operation::Fixed).unwrap().committed_latency;
        assert!(latency.max() >= 29_990_000, "{}", latency.max());
        assert!((2_990_000..20_000_000).contains(&latency.value_at_quantile(0.5)));
    }

    #[test]
    fn a_second_remembers_its_slowest_checkout_whoever_saw_it() {
        let started = Instant::now();
        let ago = |seconds| started.checked_sub(Duration::from_secs(seconds)).unwrap();
        let mut one = Tally::new(started);
        let mut two = Tally::new(started);
        one.record(Operation::Checkout, ago(2), Answer::Refused(409), b"");
        one.record(Operation::Find, ago(50), Answer::Accepted, b"");
        two.record(Operation::Checkout, ago(5), Answer::Accepted, b"");
        two.record(Operation::Checkout, ago(3), Answer::Accepted, b"");
        assert!((2_000_000..3_000_000).contains(&one.seconds[0].slowest_us), "{:?}", one.seconds);
        one.merge(two);
        assert!((5_000_000..6_000_000).contains(&one.seconds[0].slowest_us), "{:?}", one.seconds);
    }

    #[test]
    fn a_server_is_gone_if_nobody_listens_behind_its_last_answer_to_anybody() {
        let started = Instant::now();
        let mut one = Tally::new(started);
        one.record(Operation::Checkout, started, Answer::Accepted, b"");
        let answered = one.elapsed;
        std::thread::sleep(Duration::from_millis(2));
        one.record(Operation::Checkout, started, Answer::Unsent, b"");
        assert_eq!(one.gone_since(), None, "it may be too busy to be connected to");
        one.note_nobody();
        assert_eq!(one.gone_since(), Some(answered));
        let mut two = Tally::new(started);
        std::thread::sleep(Duration::from_millis(2));
        two.record(Operation::Checkout, started, Answer::Refused(409), b"");
        one.merge(two);
        assert_eq!(one.gone_since(), None, "it is back");
    }

    #[test]
    fn a_server_that_invents_reasons_cannot_grow_the_list() {
        let mut reasons = Reasons::default();
        for status in 400..500 {
            reasons.add(status, "x", 1);
        }
        assert_eq!(reasons.total(), 100);
        assert_eq!(reasons.named().len(), MAX_REASONS + 1);
        assert_eq!(reasons.named()[0], ("other".into(), 36));
    }
}
