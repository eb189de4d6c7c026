//! Work in hand: how much there is, and the answers that go back.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use async_nats::{Client, Subject};
use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::{Notify, mpsc};

use crate::link::Shared;
use crate::statistics::{Statistics, count};
use crate::wire::Filling;

/// Answers that are sent in one go.
const BATCH: usize = 256;

/// Where an answer goes.
pub(crate) enum Address {
    /// To whoever asked, in a message of its own.
    Subject(Subject),
    /// To a process that sent many commands, under this command's number, in a message with others.
    Inbox(Subject, u64),
    Nobody,
}

/// An answer on its way out, and what it settles.
struct Outgoing {
    to: Address,
    payload: Bytes,
    letter: Option<Arc<Letter>>,
}

/// A message with work in it: the server waits for an acknowledgement of all of it.
pub(crate) struct Letter {
    desk: Arc<Desk>,
    number: u64,
    acknowledge: Subject,
    /// Pieces of work that are not done.
    left: AtomicUsize,
    /// Whether the server is to give it out again.
    abandoned: AtomicBool,
}

impl Drop for Letter {
    fn drop(&mut self) {
        self.desk.unacknowledged.lock().remove(&self.number);
    }
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

    /// Notes a message with so many pieces of work, for which the server waits.
    pub(crate) fn letter(self: &Arc<Self>, acknowledge: Subject, pieces: usize) -> Arc<Letter> {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        self.unacknowledged.lock().insert(number, (acknowledge.clone(), Instant::now()));
        let (left, abandoned) = (AtomicUsize::new(pieces), AtomicBool::new(false));
        Arc::new(Letter { desk: Arc::clone(self), number, acknowledge, left, abandoned })
    }

    /// Opens a slip for a piece of work of `letter`; waits for a free one.
    pub(crate) async fn open(self: &Arc<Self>, to: Address, letter: Option<Arc<Letter>>) -> Slip {
        loop {
            let freed = self.freed.notified();
            tokio::pin!(freed);
            freed.as_mut().enable();
            if self.take() {
                return self.slip(to, letter);
            }
            freed.await;
        }
    }

    /// Opens a slip, or turns the work away at once.
    pub(crate) fn open_if_free(self: &Arc<Self>, reply: Option<Subject>) -> Option<Slip> {
        if self.take() {
            return Some(self.slip(reply.map_or(Address::Nobody, Address::Subject), None));
        }
        let (client, answer) = (self.client.clone(), self.without_answer.clone());
        if let Some(reply) = reply.filter(|reply| self.takes_answers(reply)) {
            // Not worth a task of its own: whoever asked has a time-out.
            use futures_util::FutureExt as _;
            _ = async { client.publish(reply, answer).await }.now_or_never();
        }
        None
    }

    /// Nobody's message makes this process publish to a subject that is not for answers.
    fn takes_answers(&self, subject: &Subject) -> bool {
        subject.starts_with(&self.answers_begin_with)
    }

    fn slip(self: &Arc<Self>, to: Address, letter: Option<Arc<Letter>>) -> Slip {
        let to = match &to {
            Address::Subject(subject) | Address::Inbox(subject, _) if self.takes_answers(subject) => to,
            _ => Address::Nobody,
        };
        Slip { desk: Arc::clone(self), to: Some(to), letter, returned: false }
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
            let (mut letters, mut inboxes) = (Vec::new(), Vec::<(Subject, Filling)>::new());
            for Outgoing { to, payload, letter } in batch.drain(..) {
                letters.extend(letter);
                // A client that is closed has nobody to send to; whoever waits has a time-out.
                match to {
                    Address::Nobody => {}
                    Address::Subject(subject) => _ = self.client.publish(subject, payload).await,
                    Address::Inbox(inbox, number) => {
                        let at = inboxes.iter().position(|(of, filling)| *of == inbox && filling.fits(payload.len()));
                        let at = at.unwrap_or_else(|| {
                            inboxes.push((inbox, Filling::of_replies()));
                            inboxes.len() - 1
                        });
                        // Nothing of postcard's fails on numbers and bytes; if it did, whoever waits has a time-out.
                        _ = inboxes[at].1.add(&(number, &payload[..]));
                    }
                }
            }
            for (inbox, replies) in inboxes {
                _ = self.client.publish(inbox, replies.finish()).await;
            }
            // Behind the answers, and a letter whose last piece this was.
            for letter in letters {
                if letter.left.fetch_sub(1, Ordering::AcqRel) == 1 && !letter.abandoned.load(Ordering::Acquire) {
                    _ = self.client.publish(letter.acknowledge.clone(), Bytes::from_static(b"+ACK")).await;
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
    to: Option<Address>,
    letter: Option<Arc<Letter>>,
    returned: bool,
}

impl Slip {
    /// Answers; and acknowledges its letter, if that is all of it.
    pub(crate) fn finish(mut self, payload: Bytes) {
        self.send(payload);
    }

    /// Answers that it failed, for a reason that is not the participant's.
    pub(crate) fn turn_away(mut self) {
        let payload = self.desk.without_answer.clone();
        self.send(payload);
    }

    /// Answers, and sees that the letter is not acknowledged: the server gives it out again.
    pub(crate) fn abandon(mut self, payload: Bytes) {
        if let Some(letter) = &self.letter {
            letter.abandoned.store(true, Ordering::Release);
            // Nor is the server told that it is in hand.
            self.desk.unacknowledged.lock().remove(&letter.number);
        }
        self.send(payload);
    }

    fn send(&mut self, payload: Bytes) {
        self.returned = true;
        let to = self.to.take().unwrap_or(Address::Nobody);
        let outgoing = Outgoing { to, payload, letter: self.letter.take() };
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
