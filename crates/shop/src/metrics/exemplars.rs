//! Exemplars: beside a bucket of a duration, the last trace that is kept and fell into it.
//!
//! ```text
//!   settle_transaction_duration_seconds_bucket{le="0.005",…} 17 # {trace_id="01a1fb…"} 0.0042 1763750000.123
//! ```
//!
//! They are put into the text when it is asked for: the library has them only together with what is counted, and whether a trace is kept is
//! known afterwards. Nothing is done for a request whose trace is not kept, and no more than one is remembered for each bucket: how many those
//! are is known when the program is written.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::time::{SystemTime, UNIX_EPOCH};

use parking_lot::Mutex;
use telemetry::TraceId;

use super::BUCKETS;

/// The last trace of a bucket.
#[derive(Debug, Clone, Copy)]
struct Exemplar {
    trace: TraceId,
    seconds: f64,
    at: SystemTime,
}

/// One for each bucket, the last being for what is beyond all bounds.
type OfBuckets = [Option<Exemplar>; BUCKETS.len() + 1];

/// By the name of a metric and the labels of one of its series.
#[derive(Debug, Default)]
pub(super) struct Exemplars(Mutex<BTreeMap<(&'static str, String), OfBuckets>>);

impl Exemplars {
    /// Remembers a trace that took so long, under labels as the text has them.
    pub(super) fn keep(&self, metric: &'static str, labels: String, seconds: f64, trace: TraceId, at: SystemTime) {
        let bucket = BUCKETS.iter().position(|bound| seconds <= *bound).unwrap_or(BUCKETS.len());
        self.0.lock().entry((metric, labels)).or_insert([None; BUCKETS.len() + 1])[bucket] =
            Some(Exemplar { trace, seconds, at });
    }

    /// Puts each behind the line of its bucket.
    pub(super) fn put_into(&self, text: String) -> String {
        let known = self.0.lock();
        if known.is_empty() {
            return text;
        }
        let mut with = String::with_capacity(text.len() + known.len() * BUCKETS.len() * 100);
        for line in text.lines() {
            with.push_str(line);
            let exemplar = known.iter().find_map(|((metric, labels), of_buckets)| {
                let bound = bound(line.strip_prefix(metric)?, labels)?;
                of_buckets[BUCKETS.iter().position(|known| *known >= bound).unwrap_or(BUCKETS.len())]
            });
            if let Some(Exemplar { trace, seconds, at }) = exemplar {
                let at = at.duration_since(UNIX_EPOCH).unwrap_or_default();
                write!(with, " # {{trace_id=\"{trace}\"}} {seconds} {}.{:03}", at.as_secs(), at.subsec_millis())
                    .expect("a string takes every text");
            }
            with.push('\n');
        }
        with
    }
}

/// The bound of the bucket that this line is about, if it is one of the series with these labels.
fn bound(line: &str, labels: &str) -> Option<f64> {
    let (bound, rest) = line.strip_prefix("_bucket{le=\"")?.split_once("\",")?;
    rest.strip_prefix(labels)?.strip_prefix("} ")?;
    bound.parse().ok()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const METRIC: &str = "settle_x_seconds";

    fn keep(exemplars: &Exemplars, seconds: f64, trace: u8) {
        let at = UNIX_EPOCH + Duration::from_millis(1_763_750_000_123);
        exemplars.keep(METRIC, "a=\"b\"".into(), seconds, TraceId([trace; 16]), at);
    }

    fn text() -> String {
        let line = |bound: &str, series: &str| format!("settle_x_seconds_bucket{{le=\"{bound}\",{series}}} 3\n");
        let bounds = ["0.0001", "0.00024", "0.001", "1.0", "30.0", "+Inf"];
        let lines: String = bounds.map(|bound| line(bound, "a=\"b\"") + &line(bound, "a=\"bc\"")).concat();
        format!("# TYPE settle_x_seconds histogram\nsettle_x_seconds_sum{{a=\"b\"}} 3\n{lines}# EOF\n")
    }

    #[test]
    fn an_exemplar_stands_beside_its_own_bucket_and_is_the_last() {
        let exemplars = Exemplars::default();
        assert_eq!(exemplars.put_into(text()), text());
        keep(&exemplars, 0.0008, 1);
        keep(&exemplars, 0.001, 2);
        keep(&exemplars, 0.00101, 3);
        keep(&exemplars, 31.0, 4);
        let with = exemplars.put_into(text());
        let marked: Vec<&str> = with.lines().filter(|line| line.contains('#') && !line.starts_with('#')).collect();
        assert_eq!(
            marked,
            [
                "settle_x_seconds_bucket{le=\"0.001\",a=\"b\"} 3 # {trace_id=\"02020202020202020202020202020202\"} 0.001 1763750000.123",
                "settle_x_seconds_bucket{le=\"+Inf\",a=\"b\"} 3 # {trace_id=\"04040404040404040404040404040404\"} 31 1763750000.123",
            ]
        );
    }

    #[test]
    fn no_more_is_remembered_than_one_for_each_bucket() {
        let exemplars = Exemplars::default();
        (0..100_000_u32).for_each(|n| keep(&exemplars, f64::from(n) / 1e3, 1));
        assert_eq!(exemplars.0.lock().len(), 1);
        assert_eq!(exemplars.put_into(text()).matches("trace_id").count(), 5);
    }
}
