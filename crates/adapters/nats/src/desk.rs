//! Work in hand: how much there is, and the answers that go back.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use async_nats::{Client, Subject};
use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::{Notify, mpsc};

use crate::link::Shared;
use crate::statistics::{Statistics, count};

/// Answers that are sent in one go.
const BATCH: usize = 64;

/// An answer on its way out, and what it settles.
struct Outgoing {
    reply: Option<Subject>,
    payload: Bytes,
    acknowledge: Option<Subject>,
}

/// Hands out one [`Slip`] for each piece of work, up to a limit, and sends what comes back on them.
pub(crate) struct Desk {
    client: Client,
    statistics: Arc<Statistics>,
    limit: usize,
    taken: AtomicUsize,
    freed: Notify,
    /// What goes out when a slip is lost.
    without_answer: Bytes,
    outgoing: mpsc::Sender<Outgoing>,
    queue: Mutex<Option<mpsc::Receiver<Outgoing>>>,
    /// Work whose server waits for an acknowledgement, and since when it has heard nothing.
    unacknowledged: Mutex<HashMap<u64, (Subject, Instant)>>,
    next: std::sync::atomic::AtomicU64,
    answers_begin_with: String,
}

impl Desk {
    pub(crate) fn new(shared: &Shared, without_answer: Bytes) -> Arc<Self> {
        // A slip that is sent has its place until it is out, so the queue is never full.
        let (outgoing, queue) = mpsc::channel(shared.options.in_flight);
        Arc::new(Self {
            client: shared.client.clone(),
            statistics: Arc::clone(&shared.statistics),
            limit: shared.options.in_flight,
            taken: AtomicUsize::new(0),
            freed: Notify::new(),
            without_answer,
            outgoing,
            queue: Mutex::new(Some(queue)),
            unacknowledged: Mutex::default(),
            next: std::sync::atomic::AtomicU64::new(0),
            answers_begin_with: shared.names.replies(),
        })
    }

    /// How many slips are out.
    pub(crate) fn taken(&self) -> usize {
        self.taken.load(Ordering::Acquire)
    }

    /// How many more there are.
    pub(crate) fn free(&self) -> usize {
        self.limit.saturating_sub(self.taken())
    }

    /// Waits until a slip comes back.
    pub(crate) async fn freed(&self) {
        self.freed.notified().await;
    }

    fn take(&self) -> bool {
        let more = |taken| (taken < self.limit).then_some(taken + 1);
        self.taken.fetch_update(Ordering::AcqRel, Ordering::Acquire, more).is_ok()
    }

    /// Opens a slip for work whose answer goes to `reply`, and whose acknowledgement to `acknowledge`; waits for a free one.
    pub(crate) async fn open(self: &Arc<Self>, reply: Option<Subject>, acknowledge: Option<Subject>) -> Slip {
        loop {
            let freed = self.freed.notified();
            tokio::pin!(freed);
            freed.as_mut().enable();
            if self.take() {
                return self.slip(reply, acknowledge);
            }
            freed.await;
        }
    }

    /// Opens a slip, or turns the work away at once.
    pub(crate) fn open_if_free(self: &Arc<Self>, reply: Option<Subject>) -> Option<Slip> {
        if self.take() {
            return Some(self.slip(reply, None));
        }
        let (client, answer) = (self.client.clone(), self.without_answer.clone());
        if let Some(reply) = self.checked(reply) {
            // Not worth a task of its own: whoever asked has a time-out.
            use futures_util::FutureExt as _;
            _ = async { client.publish(reply, answer).await }.now_or_never();
        }
        None
    }

    /// Nobody's message makes this process publish to a subject that is not for answers.
    fn checked(&self, reply: Option<Subject>) -> Option<Subject> {
        reply.filter(|reply| reply.starts_with(&self.answers_begin_with))
    }

    fn slip(self: &Arc<Self>, reply: Option<Subject>, acknowledge: Option<Subject>) -> Slip {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        if let Some(subject) = &acknowledge {
            self.unacknowledged.lock().insert(number, (subject.clone(), Instant::now()));
        }
        let reply = self.checked(reply);
        Slip { desk: Arc::clone(self), number, reply, acknowledge, returned: false }
    }

    fn put_back(&self, many: usize) {
        self.taken.fetch_sub(many, Ordering::AcqRel);
        self.freed.notify_waiters();
        self.freed.notify_one();
    }

    /// Sends the answers, for ever. Called once.
    pub(crate) async fn send_all(&self) {
        let Some(mut queue) = self.queue.lock().take() else { return };
        let mut batch = Vec::with_capacity(BATCH);
        loop {
            let many = queue.recv_many(&mut batch, BATCH).await;
            if many == 0 {
                return;
            }
            for Outgoing { reply, payload, acknowledge } in batch.drain(..) {
                // A client that is closed has nobody to send to; whoever waits has a time-out.
                if let Some(reply) = reply {
                    _ = self.client.publish(reply, payload).await;
                }
                if let Some(acknowledge) = acknowledge {
                    _ = self.client.publish(acknowledge, Bytes::from_static(b"+ACK")).await;
                }
            }
            self.put_back(many);
        }
    }

    /// Tells the server about work that takes long that it is in hand, at least every `every`; for ever.
    pub(crate) async fn report_all(&self, every: Duration) {
        loop {
            tokio::time::sleep(every).await;
            let now = Instant::now();
            let long: Vec<Subject> = {
                let mut unacknowledged = self.unacknowledged.lock();
                let long = unacknowledged.values_mut().filter(|(_, since)| now.duration_since(*since) >= every / 2);
                long.map(|(subject, since)| {
                    *since = now;
                    subject.clone()
                })
                .collect()
            };
            for subject in long {
                _ = self.client.publish(subject, Bytes::from_static(b"+WPI")).await;
            }
        }
    }
}

/// A piece of work in hand. Finished once; one that is dropped unfinished (its participant panicked, or forgot to answer) is answered as failed.
pub(crate) struct Slip {
    desk: Arc<Desk>,
    number: u64,
    reply: Option<Subject>,
    acknowledge: Option<Subject>,
    returned: bool,
}

impl Slip {
    /// Answers, then acknowledges.
    pub(crate) fn finish(mut self, payload: Bytes) {
        self.send(payload);
    }

    /// Answers, and does not acknowledge: the server gives the message out again.
    pub(crate) fn abandon(mut self, payload: Bytes) {
        self.settle();
        self.acknowledge = None;
        self.send(payload);
    }

    fn settle(&self) {
        if self.acknowledge.is_some() {
            self.desk.unacknowledged.lock().remove(&self.number);
        }
    }

    fn send(&mut self, payload: Bytes) {
        self.returned = true;
        self.settle();
        let outgoing = Outgoing { reply: self.reply.take(), payload, acknowledge: self.acknowledge.take() };
        if self.desk.outgoing.try_send(outgoing).is_err() {
            // Only when serving has ended.
            self.desk.put_back(1);
        }
    }
}

impl Drop for Slip {
    fn drop(&mut self) {
        if !self.returned {
            count(&self.desk.statistics.failed);
            let payload = self.desk.without_answer.clone();
            self.send(payload);
        }
    }
}
