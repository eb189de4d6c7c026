//! Kinds of figures that the library lacks, and the list of everything that is exported.

use std::fmt::{Debug, Error};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::{Mutex, RwLock};
use prometheus_client::encoding::{EncodeMetric, MetricEncoder, NoLabelSet};
use prometheus_client::metrics::{MetricType, TypedMetric};
use prometheus_client::registry::{Metric, Registry};

/// One exported metric. docs/metrics.md lists these, and a test compares.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Known {
    /// Its whole name, without the suffixes that the text format adds (`_total`, `_bucket` …).
    pub name: String,
    /// `counter`, `gauge`, `histogram` or `info`.
    pub kind: &'static str,
    /// What it is split by.
    pub labels: &'static [&'static str],
    /// What it says.
    pub help: &'static str,
}

/// A registry that knows what was registered with it.
#[derive(Debug, Default)]
pub(crate) struct Register {
    pub(crate) registry: Registry,
    pub(crate) known: Vec<Known>,
}

impl Register {
    /// Registers a metric under its whole name, unit included.
    pub(crate) fn add<M: Metric + Clone>(
        &mut self,
        name: &str,
        labels: &'static [&'static str],
        help: &'static str,
        metric: M,
    ) -> M {
        let kind = match metric.metric_type() {
            MetricType::Counter => "counter",
            MetricType::Gauge => "gauge",
            MetricType::Histogram => "histogram",
            MetricType::Info => "info",
            MetricType::Unknown => "unknown",
        };
        self.known.push(Known { name: name.to_owned(), kind, labels, help });
        self.registry.register(name, help, metric.clone());
        metric
    }

    /// Registers what never changes.
    pub(crate) fn info(&mut self, name: &str, labels: &'static [&'static str], help: &'static str, info: impl Metric) {
        self.known.push(Known { name: name.to_owned(), kind: "info", labels, help });
        self.registry.register(name, help, info);
    }
}

/// A counter that somebody else counts: it is told where that one stands.
#[derive(Debug, Clone, Default)]
pub(crate) struct Told(Arc<AtomicU64>);

impl Told {
    pub(crate) fn tell(&self, value: u64) {
        self.0.store(value, Ordering::Relaxed);
    }
}

impl TypedMetric for Told {
    const TYPE: MetricType = MetricType::Counter;
}

impl EncodeMetric for Told {
    fn encode(&self, mut encoder: MetricEncoder<'_>) -> Result<(), Error> {
        encoder.encode_counter::<NoLabelSet, _, f64>(&self.0.load(Ordering::Relaxed), None)
    }

    fn metric_type(&self) -> MetricType {
        Self::TYPE
    }
}

/// A gauge of what the leader alone knows: elsewhere it is not exported, so that nobody takes a 0 for an answer.
#[derive(Debug, Clone, Default)]
pub(crate) struct OfLeader(Arc<Mutex<Option<i64>>>);

impl OfLeader {
    pub(crate) fn know(&self, value: i64) {
        *self.0.lock() = Some(value);
    }

    /// Knows it, unless it is known better already.
    pub(crate) fn begin_with(&self, value: i64) {
        self.0.lock().get_or_insert(value);
    }

    pub(crate) fn know_no_longer(&self) {
        *self.0.lock() = None;
    }
}

impl TypedMetric for OfLeader {
    const TYPE: MetricType = MetricType::Gauge;
}

impl EncodeMetric for OfLeader {
    fn encode(&self, mut encoder: MetricEncoder<'_>) -> Result<(), Error> {
        // It may have been forgotten since somebody looked whether it is there.
        (*self.0.lock()).map_or(Ok(()), |value| encoder.encode_gauge(&value))
    }

    fn metric_type(&self) -> MetricType {
        Self::TYPE
    }

    fn is_empty(&self) -> bool {
        self.0.lock().is_none()
    }
}

/// Seconds that somebody else counts: it is told where that one stands.
#[derive(Debug, Clone, Default)]
pub(crate) struct ToldSeconds(Arc<AtomicU64>);

impl ToldSeconds {
    pub(crate) fn tell(&self, seconds: f64) {
        self.0.store(seconds.to_bits(), Ordering::Relaxed);
    }
}

impl TypedMetric for ToldSeconds {
    const TYPE: MetricType = MetricType::Counter;
}

impl EncodeMetric for ToldSeconds {
    fn encode(&self, mut encoder: MetricEncoder<'_>) -> Result<(), Error> {
        encoder.encode_counter::<NoLabelSet, _, f64>(&f64::from_bits(self.0.load(Ordering::Relaxed)), None)
    }

    fn metric_type(&self) -> MetricType {
        Self::TYPE
    }
}

/// A distribution that somebody else counts, in buckets whose bounds double.
#[derive(Debug, Clone, Default)]
pub(crate) struct Distribution(Arc<Mutex<Counted>>);

#[derive(Debug, Default)]
struct Counted {
    sum: f64,
    buckets: Vec<(f64, u64)>,
}

impl Distribution {
    /// Takes what was counted: bucket `n` holds the values below `unit` × 2ⁿ⁺¹ that no bucket before it holds, the last one all others.
    pub(crate) fn tell(&self, sum: f64, unit: f64, buckets: &[u64]) {
        let last = buckets.len().saturating_sub(1);
        let bound = |n: usize| if n == last { f64::INFINITY } else { unit * 2_f64.powi(n as i32 + 1) };
        let buckets = buckets.iter().enumerate().map(|(n, count)| (bound(n), *count)).collect();
        *self.0.lock() = Counted { sum, buckets };
    }
}

impl TypedMetric for Distribution {
    const TYPE: MetricType = MetricType::Histogram;
}

impl EncodeMetric for Distribution {
    fn encode(&self, mut encoder: MetricEncoder<'_>) -> Result<(), Error> {
        let Counted { sum, buckets } = &*self.0.lock();
        let count = buckets.iter().map(|(_, count)| count).sum();
        encoder.encode_histogram::<NoLabelSet>(*sum, count, buckets, None)
    }

    fn metric_type(&self) -> MetricType {
        Self::TYPE
    }
}

/// Metrics found by a small key, without hashing a set of labels each time. There are few keys: words known when the program is written.
#[derive(Debug)]
pub(crate) struct Cached<K, V>(RwLock<Vec<(K, V)>>);

impl<K, V> Default for Cached<K, V> {
    fn default() -> Self {
        Self(RwLock::default())
    }
}

impl<K: PartialEq + Copy, V> Cached<K, V> {
    /// Has something done with the metrics of this key, made if there are none yet.
    pub(crate) fn with(&self, key: K, make: impl FnOnce() -> V, act: impl Fn(&V)) {
        if let Some((_, found)) = self.0.read().iter().find(|(known, _)| *known == key) {
            return act(found);
        }
        let made = make();
        act(&made);
        self.0.write().push((key, made));
    }
}
