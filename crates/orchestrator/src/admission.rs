//! Backpressure: so many transactions in flight, a bounded queue with a deadline behind them, then no.

use std::collections::VecDeque;

use parking_lot::Mutex;
use protocol::Timestamp;

use crate::ports::Done;

/// What a caller in the queue hears: whether it may start.
pub(crate) type Start = Done<bool>;

#[derive(Debug, Clone, Copy)]
pub(crate) struct Capacity {
    pub(crate) in_flight: usize,
    pub(crate) queued: usize,
    pub(crate) queue_deadline: u64,
}

pub(crate) struct Admission {
    capacity: Capacity,
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    in_flight: usize,
    queue: VecDeque<(Timestamp, Start)>,
    /// Admitted, and about to start.
    ready: VecDeque<Start>,
    /// Someone is starting those: starting one may answer another at once, on the same thread, and must not recurse.
    starting: bool,
    draining: bool,
}

impl Admission {
    pub(crate) fn new(capacity: Capacity) -> Self {
        Self { capacity, inner: Mutex::default() }
    }

    /// Calls `start` with `true` once there is room, with `false` if the queue is full or its deadline passes.
    pub(crate) fn enter(&self, now: Timestamp, start: impl FnOnce(bool) + Send + 'static) {
        let mut inner = self.inner.lock();
        if inner.draining {
            drop(inner);
            start(false);
        } else if inner.in_flight < self.capacity.in_flight {
            inner.in_flight += 1;
            drop(inner);
            start(true);
        } else if inner.queue.len() < self.capacity.queued {
            inner.queue.push_back((now.plus(self.capacity.queue_deadline), Box::new(start)));
        } else {
            drop(inner);
            start(false);
        }
    }

    /// One transaction has been answered: its place goes to the first in the queue.
    pub(crate) fn leave(&self) {
        let mut inner = self.inner.lock();
        match inner.queue.pop_front() {
            Some((_, start)) => inner.ready.push_back(start),
            None => inner.in_flight -= 1,
        }
        if inner.starting {
            return;
        }
        inner.starting = true;
        while let Some(start) = inner.ready.pop_front() {
            drop(inner);
            start(true);
            inner = self.inner.lock();
        }
        inner.starting = false;
    }

    /// Turns away whoever has queued too long.
    pub(crate) fn expire(&self, now: Timestamp) {
        loop {
            let mut inner = self.inner.lock();
            let late = inner.queue.front().is_some_and(|(until, _)| now >= *until);
            let Some((_, start)) = late.then(|| inner.queue.pop_front()).flatten() else { return };
            drop(inner);
            start(false);
        }
    }

    /// Admits nobody from now on; those in the queue still get their turn.
    pub(crate) fn drain(&self) {
        self.inner.lock().draining = true;
    }

    /// Transactions in flight, and callers in the queue.
    pub(crate) fn load(&self) -> (usize, usize) {
        let inner = self.inner.lock();
        (inner.in_flight, inner.queue.len())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[test]
    fn beyond_the_queue_and_beyond_its_deadline_callers_are_turned_away() {
        let admission = Admission::new(Capacity { in_flight: 2, queued: 3, queue_deadline: 100 });
        let (yes, no) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let enter = |now| {
            let (yes, no) = (Arc::clone(&yes), Arc::clone(&no));
            let start = move |admitted: bool| {
                if admitted { &yes } else { &no }.fetch_add(1, Ordering::Relaxed);
            };
            admission.enter(Timestamp(now), start);
        };
        let heard = || (yes.load(Ordering::Relaxed), no.load(Ordering::Relaxed));
        (0..6).for_each(|_| enter(0));
        assert_eq!(heard(), (2, 1));
        admission.leave();
        assert_eq!(heard(), (3, 1));
        admission.expire(Timestamp(99));
        assert_eq!(heard(), (3, 1));
        admission.expire(Timestamp(100));
        assert_eq!(heard(), (3, 3));
        assert_eq!(admission.load(), (2, 0));
    }
}
