//! What a run tells: the progress line, the table, the JSON file and the exit code.

use std::io::IsTerminal;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use comfy_table::{CellAlignment, Table, presets};
use hdrhistogram::Histogram;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde::Serialize;

use crate::LoadError;
use crate::args::{LoadArgs, Plan};
use crate::audit::Verdict;
use crate::scenario::consistency::Sales;
use crate::scenario::{Live, Scenario};
use crate::tally::{Operation, OperationTally, Second, Tally};

/// Findings that are printed; the JSON file has more of them.
const PRINTED_FINDINGS: usize = 20;

/// Latency of one kind of request, in microseconds.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[expect(missing_docs, reason = "p50 is what it says")]
pub struct Latency {
    /// Number of requests.
    pub count: u64,
    pub mean: f64,
    pub p50: u64,
    pub p90: u64,
    pub p99: u64,
    pub p999: u64,
    pub p9999: u64,
    pub max: u64,
    /// The whole histogram: the highest latency of each non-empty bucket, and how many fell into it.
    pub histogram: Vec<(u64, u64)>,
}

impl Latency {
    fn new(histogram: &Histogram<u64>) -> Self {
        let at = |quantile| histogram.value_at_quantile(quantile);
        Self {
            count: histogram.len(),
            mean: histogram.mean(),
            p50: at(0.5),
            p90: at(0.9),
            p99: at(0.99),
            p999: at(0.999),
            p9999: at(0.9999),
            max: histogram.max(),
            histogram: histogram
                .iter_recorded()
                .map(|bucket| (bucket.value_iterated_to(), bucket.count_since_last_iteration()))
                .collect(),
        }
    }
}

/// How often one reason was given.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Reason {
    /// Status and problem code, or what happened to the connection.
    pub reason: String,
    /// How often.
    pub count: u64,
}

/// Everything about one kind of request.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct OperationReport {
    /// Which kind.
    pub operation: Operation,
    /// All of them, however they ended.
    pub requests: u64,
    /// Answered 2xx.
    pub committed: u64,
    /// Answered 4xx.
    pub refused: u64,
    /// Neither: another status, a lost connection, a timeout, or never sent.
    pub failed: u64,
    /// The refusals by reason, most frequent first.
    pub refused_by: Vec<Reason>,
    /// The failures by reason, most frequent first.
    pub failed_by: Vec<Reason>,
    /// Latency of those answered 2xx.
    pub committed_latency_us: Latency,
    /// Latency of all.
    pub all_latency_us: Latency,
}

impl OperationReport {
    fn new(operation: Operation, seen: &OperationTally) -> Self {
        let named = |reasons: &crate::tally::Reasons| {
            reasons.named().into_iter().map(|(reason, count)| Reason { reason, count }).collect()
        };
        Self {
            operation,
            requests: seen.total(),
            committed: seen.committed,
            refused: seen.refused.total(),
            failed: seen.failed.total(),
            refused_by: named(&seen.refused),
            failed_by: named(&seen.failed),
            committed_latency_us: Latency::new(&seen.committed_latency),
            all_latency_us: Latency::new(&seen.all_latency),
        }
    }
}

/// What became of the audit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Audit {
    /// A fixed request has nothing to audit.
    NotApplicable,
    /// The state was read and compared.
    Done(Verdict),
    /// The state could not be read; why.
    Impossible(String),
}

/// Everything that is known about a run.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// The version of this program.
    pub settle_version: &'static str,
    /// When the first request was sent, in milliseconds since 1970 (UTC).
    pub started_at_unix_ms: u128,
    /// What was asked for.
    pub config: Plan,
    /// From the start to the last answer, in seconds. All rates are per second of it.
    pub elapsed_seconds: f64,
    /// Requests of any kind.
    pub requests: u64,
    /// Requests of any kind per second.
    pub requests_per_second: f64,
    /// Checkouts (or fixed requests) answered 2xx.
    pub committed: u64,
    /// Checkouts (or fixed requests) answered 2xx, per second.
    pub committed_per_second: f64,
    /// Open loop: requests that were due and never sent, because every connection was busy to the end.
    pub overdue: u64,
    /// After how many seconds it was interrupted; `None` if it ran to its end.
    pub interrupted_after_seconds: Option<f64>,
    /// After how many seconds its last answer came, if nobody listened at the address any more at the end.
    pub server_gone_since_seconds: Option<f64>,
    /// Each kind of request.
    pub operations: Vec<OperationReport>,
    /// The run, second by second; the last one is usually not a whole one.
    pub seconds: Vec<Second>,
    /// Whether all orders, items and users agree.
    pub audit: Audit,
    /// The consistency scenario's own rule; `None` in the others, and when the run was interrupted.
    pub sales: Option<Sales>,
}

impl Report {
    /// Puts a report together from what the workers saw and the audit found.
    #[must_use]
    pub fn new(
        plan: Plan,
        started_at: SystemTime,
        tally: &Tally,
        overdue: u64,
        interrupted_after: Option<Duration>,
        audit: Audit,
    ) -> Self {
        let operations: Vec<_> = Operation::ALL
            .into_iter()
            .filter_map(|operation| Some(OperationReport::new(operation, tally.operation(operation)?)))
            .collect();
        let requests = operations.iter().map(|operation| operation.requests).sum();
        let committed = operations.iter().filter(|o| o.operation.is_goal()).map(|o| o.committed).sum();
        let sales = match &audit {
            // Where not everybody has asked, not everything is sold.
            Audit::Done(verdict) if plan.scenario == Scenario::Consistency && interrupted_after.is_none() => {
                Some(Sales::new(plan.sizes.stock, plan.sizes.orders, verdict))
            }
            _ => None,
        };
        let seconds = tally.elapsed.as_secs_f64();
        Self {
            settle_version: env!("CARGO_PKG_VERSION"),
            started_at_unix_ms: started_at.duration_since(UNIX_EPOCH).unwrap_or_default().as_millis(),
            config: plan,
            elapsed_seconds: seconds,
            requests,
            requests_per_second: per_second(requests, seconds),
            committed,
            committed_per_second: per_second(committed, seconds),
            overdue,
            interrupted_after_seconds: interrupted_after.map(|after| after.as_secs_f64()),
            server_gone_since_seconds: tally.gone_since().map(|since| since.as_secs_f64()),
            operations,
            seconds: tally.seconds.clone(),
            audit,
            sales,
        }
    }

    /// One kind of request; `None` when there was none.
    #[must_use]
    pub fn operation(&self, operation: Operation) -> Option<&OperationReport> {
        self.operations.iter().find(|report| report.operation == operation)
    }

    /// Whether money or stock is off by one or more, or the consistency scenario did not sell exactly its stock.
    #[must_use]
    pub fn is_off(&self) -> bool {
        matches!(&self.audit, Audit::Done(verdict) if !verdict.is_clean())
            || self.sales.is_some_and(|sales| !sales.is_exact())
    }

    /// 0 all is well, 1 something is off, 2 the run could not be judged.
    #[must_use]
    pub fn exit_code(&self) -> ExitCode {
        match self.audit {
            Audit::Impossible(_) => ExitCode::from(2),
            _ => ExitCode::from(u8::from(self.is_off())),
        }
    }

    /// Writes everything as one JSON object.
    ///
    /// # Errors
    /// [`LoadError::Write`] with the file's name.
    pub fn write_json(&self, path: &Path) -> Result<(), LoadError> {
        let failed = |cause| LoadError::Write { path: path.display().to_string(), cause };
        let text = serde_json::to_vec_pretty(self).map_err(|e| failed(e.into()))?;
        std::fs::write(path, text).map_err(failed)
    }

    /// The table and the sentences under it.
    #[must_use]
    pub fn to_text(&self) -> String {
        let mut table = Table::new();
        table.load_style(presets::UTF8_FULL_CONDENSED).set_header([
            "",
            "requests",
            "committed",
            "refused",
            "failed",
            "",
            "p50 ms",
            "p90 ms",
            "p99 ms",
            "p99.9 ms",
            "max ms",
        ]);
        for operation in &self.operations {
            let counts = [operation.requests, operation.committed, operation.refused, operation.failed];
            let head = std::iter::once(operation.operation.name().to_owned());
            let first = head.chain(counts.map(|count| count.to_string()));
            table.add_row(first.chain(latency_cells("committed", &operation.committed_latency_us)));
            let blank = std::iter::repeat_n(String::new(), 5);
            table.add_row(blank.chain(latency_cells("all", &operation.all_latency_us)));
        }
        for column in table.column_iter_mut().skip(1) {
            column.set_cell_alignment(CellAlignment::Right);
        }
        let mut lines = vec![table.to_string()];
        lines.push(format!(
            "{}: {:.0} committed per second ({} in {:.2} s), {:.0} requests per second, {}",
            self.config.scenario,
            self.committed_per_second,
            self.committed,
            self.elapsed_seconds,
            self.requests_per_second,
            match self.config.rate {
                None => format!("closed loop of {} connections", self.config.connections),
                Some(rate) => format!("open loop at {rate} per second, latency from when each request was due"),
            }
        ));
        if let Some(after) = self.interrupted_after_seconds {
            let whole = self.config.duration.as_secs_f64();
            lines.push(format!(
                "Interrupted after {after:.1} s, of {whole} s at most: all this is of what was sent until then."
            ));
        }
        for operation in &self.operations {
            for (what, reasons) in [("refused", &operation.refused_by), ("failed", &operation.failed_by)] {
                for Reason { reason, count } in reasons {
                    lines.push(format!("{} {what}: {count} × {reason}", operation.operation.name()));
                }
            }
        }
        if let Some(since) = self.server_gone_since_seconds {
            lines.push(format!(
                "Nobody listens at {} any more: the last answer came {since:.1} s into the run. See in the server's log \
                 why it ended, and start it again.",
                self.config.url
            ));
        }
        if self.overdue > 0 {
            let why = match self.server_gone_since_seconds {
                Some(_) => "there was nobody to send them to.",
                None => {
                    "every connection was busy. The server does not keep up with the rate, or --connections is too low."
                }
            };
            lines.push(format!("{} requests were due and never sent: {why}", self.overdue));
        }
        match &self.audit {
            Audit::NotApplicable => {}
            Audit::Done(verdict) => lines.push(verdict_text(verdict)),
            Audit::Impossible(why) => lines.push(format!("Audit IMPOSSIBLE: {why}")),
        }
        if self.config.scenario == Scenario::Consistency && self.interrupted_after_seconds.is_some() {
            lines.push("Consistency NOT JUDGED: the run was interrupted before everybody had asked".to_owned());
        }
        if let Some(sales) = self.sales {
            let word = if sales.is_exact() { "OK" } else { "WRONG" };
            lines.push(format!("Consistency {word}: {} orders sold, {} expected", sales.sold, sales.expected));
        }
        lines.join("\n")
    }
}

/// What an audit found, in words.
#[must_use]
pub fn verdict_text(verdict: &Verdict) -> String {
    let Verdict { orders, items, users, newly_paid, money, units, findings_total, .. } = verdict;
    let scope = format!(
        "{orders} orders ({newly_paid} newly paid, for {money} of credit and {units} units), {items} items, {users} users"
    );
    if verdict.is_clean() {
        return format!("Audit OK: not one cent or unit is off in {scope}");
    }
    let mut text = format!("Audit FAILED: {findings_total} findings in {scope}");
    for finding in verdict.findings.iter().take(PRINTED_FINDINGS) {
        text.push_str(&format!("\n  {finding}"));
    }
    if verdict.findings_total > PRINTED_FINDINGS as u64 {
        text.push_str(&format!("\n  … and {} more", verdict.findings_total - PRINTED_FINDINGS as u64));
    }
    text
}

fn per_second(count: u64, seconds: f64) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "counts are far below 2^53")]
    if seconds > 0.0 { count as f64 / seconds } else { 0.0 }
}

fn latency_cells(of: &str, latency: &Latency) -> Vec<String> {
    let values = [latency.p50, latency.p90, latency.p99, latency.p999, latency.max];
    let as_ms = |us: u64| {
        if latency.count == 0 { "–".to_owned() } else { format!("{}.{:03}", us / 1000, us % 1000) }
    };
    std::iter::once(of.to_owned()).chain(values.map(as_ms)).collect()
}

/// The line on stderr while a run is going on.
pub(crate) struct Progress(Option<ProgressBar>);

impl Progress {
    pub(crate) fn new(args: &LoadArgs) -> Self {
        let is_wanted = !args.quiet && (args.progress || std::io::stderr().is_terminal());
        Self(is_wanted.then(|| {
            let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
            // The template is a constant; the bar's own default is good enough if a new version dislikes it.
            bar.with_style(
                ProgressStyle::with_template("{spinner} {msg}").unwrap_or_else(|_| ProgressStyle::default_spinner()),
            )
        }))
    }

    pub(crate) fn say(&self, message: &str) {
        if let Some(bar) = &self.0 {
            bar.set_message(message.to_owned());
            bar.tick();
            if bar.is_hidden() {
                eprintln!("{message}");
            }
        }
    }

    pub(crate) fn show(&self, lives: &[Arc<Live>], started: Instant, duration: Duration) {
        if self.0.is_none() {
            return;
        }
        let sum = |count: fn(&Live) -> &AtomicU64| lives.iter().map(|l| count(l).load(Ordering::Relaxed)).sum::<u64>();
        let elapsed = started.elapsed().as_secs_f64();
        let committed = sum(|live| &live.committed);
        self.say(&format!(
            "{elapsed:.1} of {:.0} s: {} requests, {committed} committed ({:.0}/s), {} refused, {} failed",
            duration.as_secs_f64(),
            sum(|live| &live.requests),
            per_second(committed, elapsed),
            sum(|live| &live.refused),
            sum(|live| &live.failed),
        ));
    }

    pub(crate) fn finish(&self) {
        if let Some(bar) = &self.0 {
            bar.finish_and_clear();
        }
    }
}
