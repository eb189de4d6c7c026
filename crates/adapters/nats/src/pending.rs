//! What waits for an answer.

use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use orchestrator::Done;
use parking_lot::Mutex;
use protocol::{Reply, Unknown};
use tokio::sync::Notify;

use crate::error::Unanswered;
use crate::outbox::Place;
use crate::statistics::{Statistics, count, uncount};

/// How often time-outs are looked for, while anything waits.
const GLANCE: Duration = Duration::from_millis(10);

/// Who waits.
pub(crate) enum Waiting {
    /// A command, and its place among those under way.
    Command(Done<Reply>, Place),
    Question(Done<Result<Bytes, Unanswered>>),
}

/// Why there will be no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Lost {
    Timeout,
    Unreachable,
}

impl Waiting {
    /// Tells whoever waits that there is no answer.
    pub(crate) fn give_up(self, why: Lost, statistics: &Statistics) {
        match self {
            Self::Command(done, place) => {
                drop(place);
                let (counter, unknown) = match why {
                    Lost::Timeout => (&statistics.timed_out, Unknown::Timeout),
                    Lost::Unreachable => (&statistics.unreachable, Unknown::Unreachable),
                };
                count(counter);
                call(|| done(Reply::Unknown(unknown)));
            }
            Self::Question(done) => {
                count(&statistics.unanswered);
                let why = match why {
                    Lost::Timeout => Unanswered::Timeout,
                    Lost::Unreachable => Unanswered::Nobody,
                };
                call(|| done(Err(why)));
            }
        }
    }
}

/// Calls somebody else's callback: a panic in it is its own, and stops nothing here.
pub(crate) fn call(callback: impl FnOnce()) {
    if catch_unwind(AssertUnwindSafe(callback)).is_err() {
        tracing::error!("a callback for an answer panicked: what it was to do was not done");
    }
}

struct Entry {
    until: Instant,
    waiting: Waiting,
}

#[derive(Default)]
struct Table {
    entries: HashMap<u64, Entry>,
    closed: bool,
}

/// Everything of one process that waits for an answer. Whoever takes an entry out calls it; so each is called once.
pub(crate) struct Pending {
    table: Mutex<Table>,
    limit: usize,
    next: AtomicU64,
    some: Notify,
    statistics: Arc<Statistics>,
}

impl Pending {
    pub(crate) fn new(limit: usize, statistics: Arc<Statistics>) -> Self {
        Self { table: Mutex::default(), limit, next: AtomicU64::new(1), some: Notify::new(), statistics }
    }

    /// Puts somebody in.
    ///
    /// # Errors
    /// Gives it back if too many wait already, or nobody may wait any more.
    pub(crate) fn put(&self, until: Instant, waiting: Waiting) -> Result<u64, Waiting> {
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        let was_empty = {
            let mut table = self.table.lock();
            if table.closed || table.entries.len() >= self.limit {
                return Err(waiting);
            }
            table.entries.insert(id, Entry { until, waiting });
            table.entries.len() == 1
        };
        count(&self.statistics.pending);
        if was_empty {
            self.some.notify_one();
        }
        Ok(id)
    }

    /// Takes somebody out, unless an answer or the time-out was faster.
    pub(crate) fn take(&self, id: u64) -> Option<Waiting> {
        let entry = self.table.lock().entries.remove(&id)?;
        uncount(&self.statistics.pending);
        Some(entry.waiting)
    }

    /// Takes somebody out and tells it that there is no answer.
    pub(crate) fn give_up(&self, id: u64, why: Lost) {
        if let Some(waiting) = self.take(id) {
            waiting.give_up(why, &self.statistics);
        }
    }

    /// Tells everybody that there is no answer, and lets nobody in any more.
    pub(crate) fn close(&self) {
        let left: Vec<Entry> = {
            let mut table = self.table.lock();
            table.closed = true;
            table.entries.drain().map(|(_, entry)| entry).collect()
        };
        self.dismiss(left, Lost::Unreachable);
    }

    fn dismiss(&self, entries: Vec<Entry>, why: Lost) {
        for entry in entries {
            uncount(&self.statistics.pending);
            entry.waiting.give_up(why, &self.statistics);
        }
    }

    /// Dismisses whoever has waited too long; for ever.
    pub(crate) async fn watch(&self) {
        loop {
            if self.table.lock().entries.is_empty() {
                self.some.notified().await;
            }
            tokio::time::sleep(GLANCE).await;
            let now = Instant::now();
            let late: Vec<Entry> = {
                let mut table = self.table.lock();
                table.entries.extract_if(|_, entry| entry.until <= now).map(|(_, entry)| entry).collect()
            };
            self.dismiss(late, Lost::Timeout);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::outbox::Lane;
    use std::sync::mpsc::channel;

    fn command() -> (Waiting, std::sync::mpsc::Receiver<Reply>) {
        let (send, heard) = channel();
        let place = Lane::new("x".to_owned()).place();
        (Waiting::Command(Box::new(move |reply| _ = send.send(reply)), place), heard)
    }

    #[test]
    fn one_too_many_is_given_back() {
        let pending = Pending::new(1, Arc::default());
        let (first, heard) = command();
        let id = pending.put(Instant::now(), first).unwrap_or_else(|_| panic!("there is room for one"));
        assert!(pending.put(Instant::now(), command().0).is_err());
        pending.give_up(id, Lost::Unreachable);
        assert_eq!(heard.recv(), Ok(Reply::Unknown(Unknown::Unreachable)));
        assert!(pending.take(id).is_none(), "whoever takes it calls it, and nobody else");
        assert!(pending.put(Instant::now(), command().0).is_ok());
    }

    #[test]
    fn whoever_waits_at_the_end_hears_of_it_and_nobody_comes_in() {
        let pending = Pending::new(10, Arc::default());
        let (waiting, heard) = command();
        assert!(pending.put(Instant::now(), waiting).is_ok());
        pending.close();
        assert_eq!(heard.recv(), Ok(Reply::Unknown(Unknown::Unreachable)));
        assert!(pending.put(Instant::now(), command().0).is_err());
        assert_eq!(pending.statistics.pending.load(Ordering::Relaxed), 0);
    }

    #[tokio::test]
    async fn time_outs_come_in_time_and_to_those_that_are_due_only() {
        let pending = Arc::new(Pending::new(10, Arc::default()));
        let watched = Arc::clone(&pending);
        let watch = tokio::spawn(async move { watched.watch().await });
        let (soon, heard) = command();
        let (late, not_yet) = command();
        let now = Instant::now();
        assert!(pending.put(now + Duration::from_millis(20), soon).is_ok());
        assert!(pending.put(now + Duration::from_secs(3600), late).is_ok());
        let told = tokio::task::spawn_blocking(move || heard.recv_timeout(Duration::from_secs(10))).await;
        assert_eq!(told.expect("the task ends well"), Ok(Reply::Unknown(Unknown::Timeout)));
        assert!(not_yet.try_recv().is_err());
        assert_eq!(pending.statistics.timed_out.load(Ordering::Relaxed), 1);
        watch.abort();
    }
}
