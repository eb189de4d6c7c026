//! Counters of a process that may begin anew, and how fast they rose of late.
//!
//! ```text
//!   read     7    9   12  │ 2    5      the process was started again: its counters began at 0
//!   kept     7    9   12  │ 14   17     what it counted before stays counted
//!   rate         how far the newest is above the one of five seconds ago, over the time between these two
//! ```

use std::collections::{BTreeMap, VecDeque};

use crate::figures::{Counter, Figures};
use crate::limits::{FIGURES_AGE_MS, LATENCY_WINDOW_MS};

type Counts = BTreeMap<Counter, f64>;

/// What one instance counted, over all its lives as far as they were watched.
#[derive(Debug, Clone, Default)]
pub struct Counters {
    /// When the process that was read last began.
    started: f64,
    /// What it said.
    read: Counts,
    /// What was kept of late, the newest last, each with its time in milliseconds.
    kept: VecDeque<(u64, Counts)>,
}

impl Counters {
    /// Takes what was read at a time, which must not be before the one of last time.
    pub fn take(&mut self, at: u64, figures: &Figures) {
        let mut kept = self.kept.back().map(|(_, counts)| counts.clone()).unwrap_or_default();
        // The time of its start is told in whole seconds: a counter that fell tells as much.
        let anew = figures.started != self.started;
        for (counter, now) in &figures.counters {
            let before = self.read.get(counter).copied().filter(|before| !anew && before <= now).unwrap_or_default();
            *kept.entry(counter.clone()).or_default() += now - before;
        }
        self.started = figures.started;
        self.read.clone_from(&figures.counters);
        self.kept.push_back((at, kept));
        // One beyond the longest window is kept to measure from.
        while self.kept.get(1).is_some_and(|(second, _)| second + LATENCY_WINDOW_MS <= at) {
            self.kept.pop_front();
        }
    }

    /// What was counted in all.
    pub fn total(&self, counter: &Counter) -> f64 {
        self.kept.back().and_then(|(_, counts)| counts.get(counter)).copied().unwrap_or_default()
    }

    /// Everything that was counted, in all.
    pub fn totals(&self) -> impl Iterator<Item = (&Counter, f64)> {
        self.kept.back().into_iter().flat_map(|(_, counts)| counts).map(|(counter, count)| (counter, *count))
    }

    /// What came in the last `window` milliseconds, if it was read lately.
    pub fn lately(&self, now: u64, window: u64) -> Option<Rise<'_>> {
        let (at, newest) = self.kept.back().filter(|(at, _)| now <= at + FIGURES_AGE_MS)?;
        let (since, oldest) =
            self.kept.iter().rev().find(|(kept, _)| kept + window <= *at).or_else(|| self.kept.front())?;
        let seconds = at.saturating_sub(*since) as f64 / 1e3;
        (seconds > 0.0).then_some(Rise { oldest, newest, seconds })
    }
}

/// How far counters rose.
#[derive(Debug, Clone, Copy)]
pub struct Rise<'a> {
    oldest: &'a Counts,
    newest: &'a Counts,
    seconds: f64,
}

impl<'a> Rise<'a> {
    /// How far one did.
    pub fn of(&self, counter: &Counter) -> f64 {
        let at = |counts: &Counts| counts.get(counter).copied().unwrap_or_default();
        (at(self.newest) - at(self.oldest)).max(0.0)
    }

    /// How far one did, a second.
    pub fn rate(&self, counter: &Counter) -> f64 {
        self.of(counter) / self.seconds
    }

    /// Everything that was counted, and how far it rose.
    pub fn all(&self) -> impl Iterator<Item = (&'a Counter, f64)> {
        let oldest = self.oldest;
        let before = move |counter: &Counter| oldest.get(counter).copied().unwrap_or_default();
        self.newest.iter().map(move |(counter, now)| (counter, (now - before(counter)).max(0.0)))
    }
}
