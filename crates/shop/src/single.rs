//! One thread for all checkouts.
//!
//! ```text
//!   connections' tasks ── begin ──► ┌─────────────────┐ ── replies, many at once ──► the runtime, to be written
//!   stores' threads ──── answers ─► │ one thread      │
//!                                   │ engine, ledgers │ ── commands ──► the stores' batches
//!                                   └─────────────────┘
//! ```
//!
//! A checkout takes some thirty steps on state that all checkouts share. Two threads that do them side by side spend a third of their time
//! handing locks and cache lines to each other; one that does them in turn has everything at hand (the single writer of LMAX). What scales
//! with the processors is around it: reading, parsing and writing of requests, and the disks.

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use parking_lot::{Condvar, Mutex};

/// Something to be done on the thread.
pub(crate) type Job = Box<dyn FnOnce() + Send>;

/// A handle to the thread. It ends, when nothing is left to do, with its last handle.
#[derive(Clone)]
pub(crate) struct Single {
    handle: Arc<Handle>,
}

struct Handle {
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    jobs: Mutex<Jobs>,
    work: Condvar,
}

#[derive(Default)]
struct Jobs {
    waiting: Vec<Job>,
    asleep: bool,
    closed: bool,
}

thread_local! {
    static IS_SINGLE: Cell<bool> = const { Cell::new(false) };
}

/// Whether this is the one thread.
pub(crate) fn is_single() -> bool {
    IS_SINGLE.get()
}

impl Single {
    /// Starts the thread. It calls `pause` whenever it has done what there was to do, before it looks again.
    ///
    /// # Errors
    /// If the operating system has no thread to give.
    pub(crate) fn start(pause: impl Fn() + Send + 'static) -> std::io::Result<Self> {
        let shared = Arc::<Shared>::default();
        let theirs = Arc::clone(&shared);
        std::thread::Builder::new().name("checkouts".to_owned()).spawn(move || theirs.run(pause))?;
        Ok(Self { handle: Arc::new(Handle { shared }) })
    }

    /// Has something done soon. Jobs are done in the order in which they came.
    pub(crate) fn run(&self, job: Job) {
        let shared = &self.handle.shared;
        let mut jobs = shared.jobs.lock();
        jobs.waiting.push(job);
        let asleep = std::mem::take(&mut jobs.asleep);
        drop(jobs);
        if asleep {
            shared.work.notify_one();
        }
    }
}

impl Shared {
    fn run(&self, pause: impl Fn()) {
        IS_SINGLE.set(true);
        let mut taken = Vec::new();
        loop {
            let mut jobs = self.jobs.lock();
            while jobs.waiting.is_empty() {
                if jobs.closed {
                    return;
                }
                jobs.asleep = true;
                self.work.wait(&mut jobs);
                jobs.asleep = false;
            }
            std::mem::swap(&mut jobs.waiting, &mut taken);
            drop(jobs);
            for job in taken.drain(..) {
                // A defect in one checkout must not take the others with it. What it held is dropped, and so given back.
                if catch_unwind(AssertUnwindSafe(job)).is_err() {
                    tracing::error!(
                        "a job panicked on the thread of the checkouts: this is a defect, please report it"
                    );
                }
            }
            pause();
        }
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.shared.jobs.lock().closed = true;
        self.shared.work.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;

    use super::*;

    #[test]
    fn jobs_are_done_in_order_on_one_thread_and_a_panic_stops_none_of_the_others() {
        let (pause, pauses) = channel();
        let single = Single::start(move || _ = pause.send(())).unwrap();
        let (send, receive) = channel();
        for n in 0..100 {
            let send = send.clone();
            single.run(Box::new(move || {
                assert!(n != 50, "on purpose");
                send.send((n, is_single(), std::thread::current().id())).unwrap();
            }));
        }
        drop((send, single));
        let done: Vec<_> = receive.iter().collect();
        assert_eq!(
            done.iter().map(|(n, ..)| *n).collect::<Vec<_>>(),
            (0..100).filter(|n| *n != 50).collect::<Vec<_>>()
        );
        assert!(done.iter().all(|(_, single, thread)| *single && *thread == done[0].2));
        assert!(pauses.iter().count() > 0, "and the thread has ended");
        assert!(!is_single());
    }
}
