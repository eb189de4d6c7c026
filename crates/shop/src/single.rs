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
//!
//! | the runtime has  | the one thread is   | a checkout begins               | a reply is written      |
//! |------------------|---------------------|---------------------------------|-------------------------|
//! | several threads  | one of its own      | when it is handed over          | with others, by the runtime |
//! | one thread       | the runtime's       | at once, by its connection's task | at once               |
//!
//! Where there are no processors for both, handing over costs more than it gains: the other thread sleeps when there is little to do, and has to be
//! woken, and the system puts it on the processor of whoever woke it.

use std::cell::Cell;
use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::thread::ThreadId;

use parking_lot::{Condvar, Mutex};
use tokio::runtime::{Handle as Runtime, RuntimeFlavor};
use tokio::sync::Notify;

/// Something to be done on the thread.
pub(crate) type Job = Box<dyn FnOnce() + Send>;

/// A handle to the thread. It ends, when nothing is left to do, with its last handle.
#[derive(Clone)]
pub(crate) struct Single {
    handle: Arc<Handle>,
}

struct Handle {
    shared: Arc<Shared>,
    /// The runtime's thread, if that is the one.
    home: Option<ThreadId>,
}

#[derive(Default)]
struct Shared {
    jobs: Mutex<Jobs>,
    /// Wakes a thread of its own.
    work: Condvar,
    /// Wakes the task on the runtime's thread.
    news: Notify,
}

#[derive(Default)]
struct Jobs {
    waiting: VecDeque<Job>,
    asleep: bool,
    closed: bool,
}

thread_local! {
    static IS_SINGLE: Cell<bool> = const { Cell::new(false) };
}

/// Whether this is a thread that does nothing but checkouts.
pub(crate) fn is_single() -> bool {
    IS_SINGLE.get()
}

impl Single {
    /// The thread of this runtime if it has but one; or else one that is started. That one calls `pause` whenever it has done what there was to do,
    /// before it looks again.
    ///
    /// # Errors
    /// If the operating system has no thread to give.
    pub(crate) fn start(pause: impl Fn() + Send + 'static) -> std::io::Result<Self> {
        let shared = Arc::<Shared>::default();
        let theirs = Arc::clone(&shared);
        let shares = matches!(Runtime::current().runtime_flavor(), RuntimeFlavor::CurrentThread);
        let home = if shares {
            tokio::spawn(theirs.run_among_others());
            Some(std::thread::current().id())
        } else {
            std::thread::Builder::new().name("checkouts".to_owned()).spawn(move || theirs.run(pause))?;
            None
        };
        Ok(Self { handle: Arc::new(Handle { shared, home }) })
    }

    /// Has something done soon. Jobs are done in the order in which they came.
    pub(crate) fn run(&self, job: Job) {
        let Handle { shared, home } = &*self.handle;
        let mut jobs = shared.jobs.lock();
        jobs.waiting.push_back(job);
        let asleep = std::mem::take(&mut jobs.asleep);
        drop(jobs);
        if asleep {
            if home.is_some() { shared.news.notify_one() } else { _ = shared.work.notify_one() }
        }
    }

    /// Does something that is to be done between two jobs, and is no part of one: at once, if this is the thread.
    pub(crate) fn run_between(&self, what: impl FnOnce() + Send + 'static) {
        if self.handle.home == Some(std::thread::current().id()) { attempt(what) } else { self.run(Box::new(what)) }
    }
}

/// A defect in one checkout must not take the others with it. What it held is dropped, and so given back.
fn attempt(job: impl FnOnce()) {
    if catch_unwind(AssertUnwindSafe(job)).is_err() {
        tracing::error!("a job panicked on the thread of the checkouts: this is a defect, please report it");
    }
}

impl Shared {
    fn run(&self, pause: impl Fn()) {
        IS_SINGLE.set(true);
        let mut taken = VecDeque::new();
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
            taken.drain(..).for_each(attempt);
            pause();
        }
    }

    /// Does the jobs as a task among a runtime's others. A job is all answers behind a flush: between two of them the others have their turn, and begin
    /// the checkouts that the next flush is for.
    async fn run_among_others(self: Arc<Self>) {
        loop {
            let next = self.next();
            match next {
                Next::Job(job) => {
                    attempt(job);
                    tokio::task::yield_now().await;
                }
                Next::Wait => self.news.notified().await,
                Next::End => return,
            }
        }
    }

    fn next(&self) -> Next {
        let mut jobs = self.jobs.lock();
        match jobs.waiting.pop_front() {
            Some(job) => Next::Job(job),
            None if jobs.closed => Next::End,
            None => {
                jobs.asleep = true;
                Next::Wait
            }
        }
    }
}

/// What the task does next.
enum Next {
    Job(Job),
    Wait,
    End,
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.shared.jobs.lock().closed = true;
        self.shared.work.notify_one();
        self.shared.news.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;

    use super::*;

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_thread_of_its_own_does_jobs_in_order_and_a_panic_stops_none_of_the_others() {
        let (pause, pauses) = channel();
        let single = Single::start(move || _ = pause.send(())).unwrap();
        let (send, receive) = channel();
        for n in 0..100 {
            let send = send.clone();
            let job = move || {
                assert!(n != 50, "on purpose");
                send.send((n, is_single(), std::thread::current().id())).unwrap();
            };
            if n % 2 == 0 { single.run(Box::new(job)) } else { single.run_between(job) }
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

    #[tokio::test]
    async fn the_only_thread_of_a_runtime_does_jobs_in_order_and_others_have_their_turn_between_them() {
        let here = std::thread::current().id();
        let single = Single::start(|| unreachable!("nothing waits for a pause")).unwrap();
        let done = Arc::new(Mutex::new(Vec::new()));
        let job = |n: u32| {
            let done = Arc::clone(&done);
            move || {
                assert!(n != 5, "on purpose");
                assert_eq!(std::thread::current().id(), here);
                assert!(!is_single(), "its replies are not kept for a pause");
                done.lock().push(n);
            }
        };
        single.run_between(job(100));
        assert_eq!(*done.lock(), [100], "at once");
        single.run_between(job(5));
        // The stores' threads have answers done here.
        let from_elsewhere: Vec<_> = (0..10).map(job).collect();
        let theirs = single.clone();
        let send = move || from_elsewhere.into_iter().for_each(|job| theirs.run(Box::new(job)));
        std::thread::spawn(send).join().unwrap();
        let theirs = single.clone();
        let between = job(200);
        std::thread::spawn(move || theirs.run_between(between)).join().unwrap();
        assert_eq!(*done.lock(), [100], "no job is begun before somebody waits");
        let mut turns = 0;
        while done.lock().len() < 11 {
            tokio::task::yield_now().await;
            turns += 1;
        }
        assert_eq!(*done.lock(), [100, 0, 1, 2, 3, 4, 6, 7, 8, 9, 200]);
        assert!(turns >= 10, "{turns} turns");
        // What is left is done, and then the task ends.
        single.run(Box::new(job(300)));
        let task = Arc::downgrade(&single.handle.shared);
        drop(single);
        while task.upgrade().is_some() {
            tokio::task::yield_now().await;
        }
        assert_eq!(done.lock().last(), Some(&300));
    }
}
