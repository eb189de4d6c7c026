//! The queue of spans, and the thread that sends them on. Whoever makes spans never waits: what does not fit is dropped and counted.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use parking_lot::Mutex;
use protocol::limits::{MAX_QUEUED_SPANS, MAX_SPANS_TOGETHER};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;

use super::send::Sender;
use super::span::{Span, request};
use super::{Settings, Statistics};

/// How long the first of them waits for others.
const GATHER: Duration = Duration::from_millis(200);
/// How often it looks for others meanwhile. Were it woken by each of them, the waking would cost more than the making.
const LOOK: Duration = Duration::from_millis(10);
/// How long a back end may take for a batch.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long a back end that failed is left alone: at first, and at most. Meanwhile the queue fills, and what does not fit is dropped.
const PAUSES: [Duration; 2] = [Duration::from_millis(500), Duration::from_secs(10)];

/// The way out.
#[derive(Debug)]
pub(super) struct Exporter {
    queue: mpsc::Sender<Span>,
    statistics: Arc<Statistics>,
    stop: watch::Sender<bool>,
    ended: Mutex<Option<oneshot::Receiver<()>>>,
}

impl Exporter {
    pub(super) fn start(settings: Settings) -> std::io::Result<Self> {
        let (queue, spans) = mpsc::channel(MAX_QUEUED_SPANS);
        let (stop, stopping) = watch::channel(false);
        let (end, ended) = oneshot::channel();
        let statistics = Arc::<Statistics>::default();
        let counted = Arc::clone(&statistics);
        // A runtime of its own: nothing of this is ever in the way of a checkout.
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        std::thread::Builder::new().name("traces".to_owned()).spawn(move || {
            runtime.block_on(Line { settings, counted, stopping, pause: PAUSES[0], failing: false }.run(spans));
            // Whoever waits may be gone.
            _ = end.send(());
        })?;
        Ok(Self { queue, statistics, stop, ended: Mutex::new(Some(ended)) })
    }

    pub(super) fn statistics(&self) -> &Statistics {
        &self.statistics
    }

    pub(super) fn take(&self, span: Span) -> bool {
        let taken = self.queue.try_send(span).is_ok();
        if !taken {
            self.statistics.dropped.fetch_add(1, Ordering::Relaxed);
        }
        taken
    }

    /// Blocks until what is queued is sent, or the time is over.
    pub(super) fn stop(&self, at_most: Duration) {
        _ = self.stop.send(true);
        let Some(mut ended) = self.ended.lock().take() else { return };
        let until = std::time::Instant::now() + at_most;
        while ended.try_recv() == Err(oneshot::error::TryRecvError::Empty) && std::time::Instant::now() < until {
            std::thread::sleep(Duration::from_millis(2));
        }
    }
}

struct Line {
    settings: Settings,
    counted: Arc<Statistics>,
    stopping: watch::Receiver<bool>,
    pause: Duration,
    failing: bool,
}

impl Line {
    async fn run(mut self, mut spans: mpsc::Receiver<Span>) {
        let mut sender = Sender::new(self.settings.endpoint.clone(), self.settings.headers.clone());
        let mut batch = Vec::with_capacity(MAX_SPANS_TOGETHER);
        let mut stopping = self.stopping.clone();
        loop {
            tokio::select! {
                biased;
                many = spans.recv_many(&mut batch, MAX_SPANS_TOGETHER) => if many == 0 { return },
                _ = stopping.wait_for(|stop| *stop) => return,
            }
            let until = Instant::now() + GATHER;
            loop {
                while batch.len() < MAX_SPANS_TOGETHER
                    && let Ok(span) = spans.try_recv()
                {
                    batch.push(span);
                }
                if batch.len() >= MAX_SPANS_TOGETHER || Instant::now() >= until {
                    break;
                }
                tokio::select! {
                    () = tokio::time::sleep(LOOK) => {}
                    _ = stopping.wait_for(|stop| *stop) => break,
                }
            }
            let lost = self.send(&mut sender, std::mem::take(&mut batch)).await;
            if lost {
                tokio::select! {
                    () = tokio::time::sleep(self.pause) => {}
                    _ = stopping.wait_for(|stop| *stop) => return,
                }
                self.pause = (2 * self.pause).min(PAUSES[1]);
            }
        }
    }

    /// Sends a batch; whether it was lost. It is not sent again: a trace is not worth what that would take.
    async fn send(&mut self, sender: &mut Sender, batch: Vec<Span>) -> bool {
        let many = batch.len() as u64;
        let request = request(&self.settings.origin, batch);
        let sent = tokio::time::timeout(PATIENCE, sender.send(&request)).await;
        let sent = sent.unwrap_or_else(|_| Err(format!("no answer in {} s", PATIENCE.as_secs())));
        match sent {
            Ok(rejected) => {
                let rejected = rejected.min(many);
                self.counted.exported.fetch_add(many - rejected, Ordering::Relaxed);
                self.counted.dropped.fetch_add(rejected, Ordering::Relaxed);
                self.pause = PAUSES[0];
                if std::mem::take(&mut self.failing) {
                    tracing::info!("traces are exported again");
                }
                false
            }
            Err(why) => {
                sender.hang_up();
                self.counted.failures.fetch_add(1, Ordering::Relaxed);
                self.counted.dropped.fetch_add(many, Ordering::Relaxed);
                if !std::mem::replace(&mut self.failing, true) {
                    let endpoint = self.settings.endpoint.to_string();
                    tracing::warn!(endpoint, why, "traces cannot be exported: they are dropped until they can");
                }
                true
            }
        }
    }
}
