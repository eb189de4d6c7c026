//! Traces: spans made of what is noted about a request or a transaction, once it is known whether anybody wants them.
//!
//! ```text
//!   HTTP ──► Request ───────────────────────────────┐ answered: sampled, failed or slow?
//!              │ origin                             ├──► spans ──► queue (bounded) ──► one thread ──► OTLP over HTTP or gRPC
//!              ▼                                    │               full: dropped and counted
//!   engine ──► Following (an orchestrator::Follower)┤ answered, stuck, let go
//!              │ context, with each command         │
//!              ▼                                    │
//!   NATS ────► Traced (a participant) ──────────────┘ replied
//! ```
//!
//! | file         | what it is                                                                     |
//! |--------------|---------------------------------------------------------------------------------|
//! | `request.rs` | a request under way                                                            |
//! | `following.rs` | a transaction under way, as the engine tells it                              |
//! | `participant.rs` | a participant behind a message                                             |
//! | `remembered.rs` | which transactions' traces were sent on                                     |
//! | `span.rs`    | a span, and what OTLP makes of it                                              |
//! | `export.rs`  | the queue and the thread behind it                                             |
//! | `send.rs`    | a batch on its way: HTTP or gRPC                                               |
//!
//! Unless a client says otherwise, the id of a trace is that of its transaction: whoever knows the one finds the other, and an instance that takes
//! a transaction over goes on in the same trace without having been told.

mod export;
mod following;
mod participant;
mod remembered;
mod request;
mod send;
mod span;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

pub use following::{Kept, Listener, observing};
pub use participant::Traced;
pub use remembered::TraceOf;
pub use request::{Answered, Request};
pub use send::{BadEndpoint, Endpoint, Protocol};

use export::Exporter;
use protocol::TransactionId;
use remembered::Remembered;
use span::Span;

use crate::ids::SpanId;
use crate::logs::Origin;

/// How a process traces.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Where spans go.
    pub endpoint: Endpoint,
    /// Sent along with each batch: names and values, a token perhaps. Never printed.
    pub headers: Vec<(String, String)>,
    /// Of the requests whose client does not say, which part is traced: 0 to 1.
    pub ratio: f64,
    /// What takes so long is kept in any case.
    pub slow: Duration,
    /// Whose spans they are.
    pub origin: Origin,
    /// Whether commands go to other processes.
    pub remote: bool,
}

/// What became of spans.
#[derive(Debug, Default)]
pub struct Statistics {
    /// Taken by the back end.
    pub exported: AtomicU64,
    /// Lost: the queue was full, or the back end did not take them.
    pub dropped: AtomicU64,
    /// Batches that the back end did not take.
    pub failures: AtomicU64,
}

/// Makes spans, and has them exported.
#[derive(Debug)]
pub struct Tracer {
    /// What is below is sampled, of all 64-bit numbers.
    threshold: u64,
    everything: bool,
    slow: u64,
    remote: bool,
    anchor: (u64, Instant),
    /// What the coarse clock said at the anchor.
    coarse: u64,
    random: AtomicU64,
    exporter: Exporter,
    remembered: Remembered,
}

static TRACER: OnceLock<Arc<Tracer>> = OnceLock::new();

/// This process's tracer; `None` if it does not trace.
pub fn tracer() -> Option<&'static Arc<Tracer>> {
    TRACER.get()
}

/// What became of this process's spans: exported, dropped, failures.
pub fn figures() -> [u64; 3] {
    tracer().map_or([0; 3], |tracer| {
        let Statistics { exported, dropped, failures } = tracer.statistics();
        [exported, dropped, failures].map(|counter| counter.load(Ordering::Relaxed))
    })
}

/// The trace of a transaction, unless this process does not trace, or knows that it was not kept; `driven_here`: no other process can have kept it.
pub fn trace_of(id: TransactionId, driven_here: bool) -> Option<TraceOf> {
    tracer()?.remembered.trace_of(id, driven_here)
}

/// Begins to trace, for the rest of the process. Only the first call has an effect.
///
/// # Errors
/// If the operating system has no thread to give.
pub fn start(settings: Settings) -> std::io::Result<()> {
    if TRACER.get().is_none() {
        _ = TRACER.set(Tracer::start(settings)?);
    }
    Ok(())
}

/// Exports what is left, for as long as this. Blocks.
pub fn stop(at_most: Duration) {
    if let Some(tracer) = tracer() {
        tracer.exporter.stop(at_most);
    }
}

impl Tracer {
    /// A tracer of its own.
    ///
    /// # Errors
    /// If the operating system has no thread to give.
    pub fn start(settings: Settings) -> std::io::Result<Arc<Self>> {
        let (ratio, slow, remote) = (settings.ratio.clamp(0.0, 1.0), settings.slow, settings.remote);
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        use std::hash::{BuildHasher, Hasher};
        // The standard library seeds its hashers from the operating system's randomness.
        let seed = std::hash::RandomState::new().build_hasher().finish();
        Ok(Arc::new(Self {
            // Saturates where it should.
            threshold: (ratio * 2_f64.powi(64)) as u64,
            everything: ratio >= 1.0,
            slow: u64::try_from(slow.as_nanos()).unwrap_or(u64::MAX),
            remote,
            coarse: coarse_nanos(),
            anchor: (u64::try_from(since.as_nanos()).unwrap_or(0), Instant::now()),
            random: AtomicU64::new(seed),
            exporter: Exporter::start(settings)?,
            remembered: Remembered::default(),
        }))
    }

    /// What became of its spans.
    pub fn statistics(&self) -> &Statistics {
        self.exporter.statistics()
    }

    /// Exports what is left, for as long as this. Blocks.
    pub fn stop(&self, at_most: Duration) {
        self.exporter.stop(at_most);
    }

    /// Nanoseconds since 1970, monotonic.
    fn now(&self) -> u64 {
        let (epoch, since) = self.anchor;
        epoch.saturating_add(u64::try_from(since.elapsed().as_nanos()).unwrap_or(u64::MAX))
    }

    /// The same, if it need not be `exact` right to a tick of the kernel, some milliseconds: what is noted of every transaction must cost next to
    /// nothing, and what is kept for being slow took longer by far.
    fn time(&self, exact: bool) -> u64 {
        if exact { self.now() } else { self.anchor.0.saturating_add(coarse_nanos().saturating_sub(self.coarse)) }
    }

    fn random(&self) -> u64 {
        mix(self.random.fetch_add(0x9e37_79b9_7f4a_7c15, Ordering::Relaxed))
    }

    fn new_span(&self) -> SpanId {
        span_id(self.random())
    }

    /// Whether what drew this number is sampled.
    fn samples(&self, drawn: u64) -> bool {
        self.everything || drawn < self.threshold
    }

    fn is_slow(&self, began: u64, ended: u64) -> bool {
        ended.saturating_sub(began) >= self.slow
    }

    /// Whether it is on its way: there may be too many.
    fn export(&self, span: Span) -> bool {
        self.exporter.take(span)
    }
}

#[cfg(target_os = "linux")]
fn coarse_nanos() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::MonotonicCoarse);
    let (seconds, nanos) = (u64::try_from(now.tv_sec).unwrap_or(0), u64::try_from(now.tv_nsec).unwrap_or(0));
    seconds.saturating_mul(1_000_000_000).saturating_add(nanos)
}

#[cfg(not(target_os = "linux"))]
fn coarse_nanos() -> u64 {
    static SINCE: std::sync::LazyLock<Instant> = std::sync::LazyLock::new(Instant::now);
    u64::try_from(SINCE.elapsed().as_nanos()).unwrap_or(u64::MAX)
}

/// The finalizer of SplitMix64.
fn mix(mut n: u64) -> u64 {
    n = (n ^ (n >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    n = (n ^ (n >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    n ^ (n >> 31)
}

fn span_id(random: u64) -> SpanId {
    SpanId(random.max(1).to_be_bytes())
}
