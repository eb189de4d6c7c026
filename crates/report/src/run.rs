//! One run: the file that `settle load --json` wrote, read and checked.
//!
//! A file may come from an older version, or from another program that writes the same. What is not there is left out, and
//! [`Run::left_out`] says so; what contradicts itself is refused.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use serde::Deserialize;
use serde_json::Value;
use serde_json::error::Category;

use crate::Error;
use crate::limits::{MAX_FILE_BYTES, MAX_LABEL_CHARS, MAX_SECONDS};
use crate::words;

/// Which answers' latencies are drawn.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum Latencies {
    /// Of the sales alone
    #[default]
    Committed,
    /// Of all requests, the failed ones up to the moment they were given up
    All,
}

/// The percentiles that a report names, and how a file calls them.
pub const PERCENTILES: [(f64, &str); 5] =
    [(0.5, "p50"), (0.9, "p90"), (0.99, "p99"), (0.999, "p99.9"), (0.9999, "p99.99")];

/// A run that can be drawn.
#[derive(Debug, Clone, PartialEq)]
pub struct Run {
    /// What it is called in the report.
    pub label: String,
    /// The file that it is from.
    pub file: String,
    /// Facts about the run, in the order in which they are shown: what, and its value.
    pub facts: Vec<(&'static str, String)>,
    /// From the start to the last answer, in seconds. Above zero.
    pub elapsed: f64,
    /// Checkouts (or fixed requests) answered 2xx.
    pub committed: u64,
    /// Those answered 4xx.
    pub refused: u64,
    /// Those with neither.
    pub failed: u64,
    /// Refusals by reason, then failures by reason.
    pub reasons: [Vec<(String, u64)>; 2],
    /// Requests that were due and never sent.
    pub overdue: u64,
    /// How long answers took; `None` if the file does not say.
    pub latency: Option<Latency>,
    /// The run, second by second; empty if the file does not say.
    pub seconds: Vec<Second>,
    /// What became of the audit.
    pub audit: Audit,
    /// What the file does not say, in sentences.
    pub left_out: Vec<String>,
}

/// How long answers took, in microseconds.
#[derive(Debug, Clone, PartialEq)]
pub struct Latency {
    /// How many answers.
    pub count: u64,
    /// The longest.
    pub max: u64,
    /// Each of [`PERCENTILES`]; `None` where there were too few answers for it, or the file does not say.
    pub percentiles: [Option<u64>; PERCENTILES.len()],
    /// Rising latencies and how many answers took that long. Empty if the file does not say.
    pub histogram: Vec<(u64, u64)>,
}

/// What happened in one second.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub struct Second {
    /// Checkouts (or fixed requests) answered 2xx.
    pub committed: u64,
    /// The longest that one took which ended in it, in microseconds; `None` if the file does not say.
    pub slowest_us: Option<u64>,
}

/// What became of the audit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Audit {
    /// Not a cent and not a unit is off.
    Clean,
    /// So many things are off.
    Off(u64),
    /// The state could not be read.
    Impossible,
    /// There was none.
    None,
}

#[derive(Deserialize)]
struct Written {
    elapsed_seconds: f64,
    operations: Vec<Operation>,
    #[serde(default)]
    config: Config,
    started_at_unix_ms: Option<u64>,
    settle_version: Option<String>,
    overdue: Option<u64>,
    seconds: Option<Vec<Second>>,
    audit: Option<Value>,
}

#[derive(Deserialize, Default)]
struct Config {
    url: Option<String>,
    scenario: Option<String>,
    connections: Option<u64>,
    rate: Option<f64>,
}

#[derive(Deserialize)]
struct Operation {
    operation: String,
    committed: u64,
    refused: u64,
    failed: u64,
    #[serde(default)]
    refused_by: Vec<Reason>,
    #[serde(default)]
    failed_by: Vec<Reason>,
    committed_latency_us: Option<WrittenLatency>,
    all_latency_us: Option<WrittenLatency>,
}

#[derive(Deserialize)]
struct Reason {
    reason: String,
    count: u64,
}

#[derive(Deserialize)]
struct WrittenLatency {
    count: u64,
    p50: Option<u64>,
    p90: Option<u64>,
    p99: Option<u64>,
    p999: Option<u64>,
    p9999: Option<u64>,
    max: Option<u64>,
    #[serde(default)]
    histogram: Vec<(u64, u64)>,
}

impl Run {
    /// Reads a file.
    ///
    /// # Errors
    /// [`Error::Unusable`] with the file and what is wrong with it.
    pub fn read(file: &Path, label: &str, latencies: Latencies) -> Result<Self, Error> {
        let unusable = |problem: String| Error::Unusable { file: file.to_owned(), problem };
        let mut text = Vec::new();
        File::open(file)
            .and_then(|opened| opened.take(MAX_FILE_BYTES + 1).read_to_end(&mut text))
            .map_err(|error| unusable(format!("cannot be read: {error}")))?;
        if text.len() as u64 > MAX_FILE_BYTES {
            return Err(unusable(format!("longer than {} MiB: no run is as long as that", MAX_FILE_BYTES >> 20)));
        }
        Self::parse(&text, &file.display().to_string(), label, latencies).map_err(unusable)
    }

    /// Makes a run of a file's text. `file` and `label` are only remembered.
    ///
    /// # Errors
    /// A sentence that says what is wrong.
    pub fn parse(text: &[u8], file: &str, label: &str, latencies: Latencies) -> Result<Self, String> {
        let written: Written = serde_json::from_slice(text).map_err(|error| match error.classify() {
            Category::Data => format!("JSON, but not of a run ({error}); give what `settle load --json FILE` wrote"),
            _ if text.is_empty() => "empty; give what `settle load --json FILE` wrote".to_owned(),
            _ => format!("not JSON ({error}); give what `settle load --json FILE` wrote"),
        })?;
        if !(written.elapsed_seconds >= 0.0 && written.elapsed_seconds <= 2.0 * MAX_SECONDS as f64) {
            return Err(format!("a run cannot have taken {} seconds", written.elapsed_seconds));
        }
        let mut left_out = Vec::new();
        let seconds = written.seconds.unwrap_or_default();
        if seconds.len() > MAX_SECONDS {
            return Err(format!("{} seconds: no run is longer than a day", seconds.len()));
        }
        if seconds.is_empty() {
            left_out.push("throughput over time: the file has no `seconds`".to_owned());
        } else if seconds.iter().all(|second| second.slowest_us.is_none()) {
            left_out.push("the slowest answer of each second: the file has none, it is of an older version".to_owned());
        }
        let goal = written.operations.into_iter().find(|o| matches!(o.operation.as_str(), "checkout" | "fixed"));
        let total =
            goal.as_ref().map(|goal| u128::from(goal.committed) + u128::from(goal.refused) + u128::from(goal.failed));
        let Some(goal) = goal.filter(|_| total > Some(0) && written.elapsed_seconds > 0.0) else {
            return Err("an empty run: not one checkout was asked for, so there is nothing to draw".to_owned());
        };
        let (name, chosen) = match latencies {
            Latencies::Committed => ("committed_latency_us", goal.committed_latency_us),
            Latencies::All => ("all_latency_us", goal.all_latency_us),
        };
        let latency = match chosen {
            None => {
                left_out.push(format!("latency: the file has no `{name}`"));
                None
            }
            Some(latency) if latency.count == 0 => {
                left_out.push("latency: no answer was a sale; `--latency all` draws that of all answers".to_owned());
                None
            }
            Some(latency) => {
                if latency.histogram.is_empty() {
                    left_out.push("the latency between the percentiles: the file has no `histogram`".to_owned());
                }
                Some(latency.check().map_err(|problem| format!("`{name}` contradicts itself: {problem}"))?)
            }
        };
        let named = |reasons: Vec<Reason>| reasons.into_iter().map(|r| (visible(&r.reason), r.count)).collect();
        Ok(Self {
            label: words::shortened(&visible(label), MAX_LABEL_CHARS),
            file: visible(file),
            facts: facts(&written.config, written.elapsed_seconds, written.started_at_unix_ms, written.settle_version),
            elapsed: written.elapsed_seconds,
            committed: goal.committed,
            refused: goal.refused,
            failed: goal.failed,
            reasons: [named(goal.refused_by), named(goal.failed_by)],
            overdue: written.overdue.unwrap_or(0),
            latency,
            seconds,
            audit: Audit::from(written.audit.as_ref()),
            left_out,
        })
    }

    /// Checkouts (or fixed requests) answered 2xx, per second.
    #[must_use]
    #[expect(clippy::cast_precision_loss, reason = "a count is drawn, not summed up")]
    pub fn committed_per_second(&self) -> f64 {
        self.committed as f64 / self.elapsed
    }
}

impl WrittenLatency {
    fn check(self) -> Result<Latency, String> {
        let named = [self.p50, self.p90, self.p99, self.p999, self.p9999];
        let histogram = self.histogram;
        if let Some([(before, _), (after, _)]) = histogram.array_windows().find(|[before, after]| after.0 <= before.0) {
            return Err(format!("its histogram has {after} after {before}"));
        }
        let counted = histogram.iter().map(|&(_, count)| u128::from(count)).sum::<u128>();
        if !histogram.is_empty() && counted != u128::from(self.count) {
            return Err(format!("its histogram has {counted} answers, and `count` says {}", self.count));
        }
        let is_known = |quantile: f64| (self.count as f64) * (1.0 - quantile) > 1.0 - 1e-6;
        let mut percentiles = [None; PERCENTILES.len()];
        for (place, (quantile, _)) in PERCENTILES.iter().enumerate() {
            let value = if histogram.is_empty() { named[place] } else { at(&histogram, counted, *quantile) };
            percentiles[place] = value.filter(|_| is_known(*quantile));
        }
        let highest = histogram.iter().rev().find(|(_, count)| *count > 0).map(|(latency, _)| *latency);
        let max = highest.or(self.max).or(named.into_iter().flatten().max()).ok_or("it has no figure at all")?;
        Ok(Latency { count: self.count, max, percentiles, histogram })
    }
}

/// The lowest latency that this part of the answers did not exceed.
fn at(histogram: &[(u64, u64)], total: u128, quantile: f64) -> Option<u64> {
    // A product such as 0.9 × 10 may come out a little above the whole number that it is.
    let rank = (total as f64 * quantile - 1e-9 * total as f64).ceil().max(1.0);
    let mut below = 0_u128;
    histogram
        .iter()
        .find(|(_, count)| {
            below += u128::from(*count);
            below as f64 >= rank
        })
        .map(|(latency, _)| *latency)
}

impl From<Option<&Value>> for Audit {
    fn from(audit: Option<&Value>) -> Self {
        let Some(audit) = audit else { return Self::None };
        match audit.pointer("/done/findings_total").and_then(Value::as_u64) {
            Some(0) => Self::Clean,
            Some(findings) => Self::Off(findings),
            None if audit.get("impossible").is_some() => Self::Impossible,
            None => Self::None,
        }
    }
}

fn facts(config: &Config, elapsed: f64, started: Option<u64>, version: Option<String>) -> Vec<(&'static str, String)> {
    let pace = match (config.rate, config.connections) {
        (Some(rate), Some(connections)) => {
            Some(format!("{} due per second, {connections} connections", words::rate(rate)))
        }
        (Some(rate), None) => Some(format!("{} due per second", words::rate(rate))),
        (None, Some(connections)) => Some(format!("{connections} connections, each as fast as it is answered")),
        (None, None) => None,
    };
    let facts = [
        ("scenario", config.scenario.clone()),
        ("pace", pace),
        ("took", Some(words::span(elapsed))),
        ("server", config.url.clone()),
        ("started", started.and_then(words::date)),
        ("settle", version),
    ];
    facts.into_iter().filter_map(|(what, value)| Some((what, visible(&value?)))).collect()
}

/// The text with every character that is not seen, or that changes how others are read, replaced: neither kind of file may have
/// control characters, and none of those that turn the direction of what follows are to reach what stands beside a label.
#[must_use]
pub fn visible(text: &str) -> String {
    let is_hidden = |c: char| {
        c.is_control()
            || matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}' | '\u{fffe}' | '\u{ffff}')
    };
    text.chars().map(|c| if is_hidden(c) { '\u{fffd}' } else { c }).collect()
}
