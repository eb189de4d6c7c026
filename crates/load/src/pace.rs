//! When the next request may start, and when the run is over.
//!
//! | loop | a request starts | its latency counts from |
//! |---|---|---|
//! | closed | as soon as its connection is free | the moment it is sent |
//! | open (`--rate R`) | number k at k / R seconds | the moment it was *due*, however late it was sent |
//!
//! The second rule keeps a stall of the server from hiding itself: requests that had to wait for a free connection
//! carry their wait in their latency (otherwise called coordinated omission).

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio::sync::Semaphore;

use crate::interrupt::Interrupt;

/// The longest the pacer sleeps before it looks whether the run is over.
const PACER_SLICE: Duration = Duration::from_millis(20);
/// The shortest sleep of the pacer: requests due within it start together.
const PACER_STEP: Duration = Duration::from_micros(100);

/// Hands out the starts of one run, to all its workers.
#[derive(Debug)]
pub struct Pace {
    start: Instant,
    end: Instant,
    limit: u64,
    taken: AtomicU64,
    stopped: AtomicBool,
    interrupt: Interrupt,
    open: Option<OpenLoop>,
}

#[derive(Debug)]
struct OpenLoop {
    /// Requests per second, above 0.
    rate: f64,
    /// One permit for each request that is due. tokio's own timer is no use here: its ticks are whole milliseconds.
    due: Semaphore,
    overdue: AtomicU64,
}

impl Pace {
    /// A run that starts now, for at most `duration` and `limit` requests, at `rate` requests per second or, with
    /// `None`, as fast as the connections allow; and not beyond an interrupt.
    #[must_use]
    pub fn start(duration: Duration, limit: u64, rate: Option<f64>, interrupt: Interrupt) -> Self {
        let start = Instant::now();
        let open = rate.map(|rate| OpenLoop { rate, due: Semaphore::new(0), overdue: AtomicU64::new(0) });
        let (taken, stopped) = (AtomicU64::new(0), AtomicBool::new(false));
        Self { start, end: start + duration, limit, taken, stopped, interrupt, open }
    }

    /// When the run started.
    #[must_use]
    pub fn started(&self) -> Instant {
        self.start
    }

    /// When the run is over.
    fn end(&self) -> Instant {
        self.interrupt.at().map_or(self.end, |at| at.clamp(self.start, self.end))
    }

    /// After how long the run was interrupted, if it was before its time.
    #[must_use]
    pub fn interrupted_after(&self) -> Option<Duration> {
        self.interrupt.at().filter(|at| *at < self.end).map(|at| at.saturating_duration_since(self.start))
    }

    /// Waits until a request may start; the instant from which its latency counts. `None` when the run is over.
    pub async fn next(&self) -> Option<Instant> {
        if let Some(open) = &self.open {
            open.due.acquire().await.ok()?.forget();
            let number = self.taken.fetch_add(1, Ordering::Relaxed);
            return Some(self.start + open.due_after(number));
        }
        let now = Instant::now();
        if now >= self.end() {
            return None;
        }
        (self.taken.fetch_add(1, Ordering::Relaxed) < self.limit).then_some(now)
    }

    /// Tells the pacer that nobody takes starts any more, so that it need not wait for the end of the run.
    pub fn stop(&self) {
        self.stopped.store(true, Ordering::Relaxed);
    }

    /// How many requests were due (open loop only) but not sent when the time was over, because every connection
    /// was busy. Known once [`Self::release_when_due`] has returned.
    #[must_use]
    pub fn overdue(&self) -> u64 {
        self.open.as_ref().map_or(0, |open| open.overdue.load(Ordering::Relaxed))
    }

    /// Releases the requests of an open loop as they fall due; returns when the run is over (at once for a closed
    /// loop). Blocks its thread: run it on one of its own.
    pub fn release_when_due(&self) {
        let Some(open) = &self.open else { return };
        let mut released = 0;
        while released < self.limit && !self.is_stopped() {
            let now = Instant::now();
            if now >= self.end() {
                break;
            }
            let due = open.due_by(now - self.start).min(self.limit);
            if due > released {
                // A stalled machine could owe more than a semaphore holds; the rest follows in the next round.
                let step = (due - released).min(1 << 20);
                open.due.add_permits(usize::try_from(step).unwrap_or(1 << 20));
                released += step;
            }
            let wait = (self.start + open.due_after(released)).min(self.end).saturating_duration_since(Instant::now());
            std::thread::sleep(wait.clamp(PACER_STEP, PACER_SLICE));
        }
        // The last ones released must still be sent, if there is time.
        while self.taken.load(Ordering::Relaxed) < released && Instant::now() < self.end() && !self.is_stopped() {
            std::thread::sleep(Duration::from_millis(1));
        }
        if !self.is_stopped() {
            // Nobody slept until an interrupt: what fell due just before it may not have been released yet, and is not missed.
            let margin = if self.interrupted_after().is_some() { 2 * PACER_SLICE } else { Duration::from_nanos(1) };
            let last_moment = (self.end() - self.start).checked_sub(margin);
            let due = last_moment.map_or(0, |moment| open.due_by(moment)).min(self.limit);
            open.overdue.store(due.saturating_sub(self.taken.load(Ordering::Relaxed)), Ordering::Relaxed);
        }
        open.due.close();
    }

    fn is_stopped(&self) -> bool {
        self.stopped.load(Ordering::Relaxed)
    }
}

impl OpenLoop {
    fn due_after(&self, number: u64) -> Duration {
        #[expect(clippy::cast_precision_loss, reason = "runs are bounded far below 2^53 requests")]
        Duration::from_secs_f64(number as f64 / self.rate)
    }

    /// How many requests are due by then: number 0 at once, number k after k / rate seconds.
    fn due_by(&self, elapsed: Duration) -> u64 {
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "not negative, far below 2^53")]
        let whole = (elapsed.as_secs_f64() * self.rate) as u64;
        whole + 1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn block_on<T>(work: impl Future<Output = T>) -> T {
        tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(work)
    }

    #[test]
    fn a_closed_loop_ends_after_its_requests_or_its_time() {
        let pace = Pace::start(Duration::from_secs(60), 2, None, Interrupt::default());
        assert!(block_on(pace.next()).is_some());
        assert!(block_on(pace.next()).is_some());
        assert!(block_on(pace.next()).is_none());
        let pace = Pace::start(Duration::ZERO, 2, None, Interrupt::default());
        assert!(block_on(pace.next()).is_none());
    }

    #[test]
    fn an_open_loop_counts_from_the_moment_a_request_was_due() {
        let pace = Pace::start(Duration::from_secs(2), 3, Some(1000.0), Interrupt::default());
        std::thread::scope(|scope| {
            scope.spawn(|| pace.release_when_due());
            for number in 0..3 {
                let due = block_on(pace.next()).unwrap();
                assert_eq!(due - pace.started(), Duration::from_millis(number));
                assert!(Instant::now() >= due, "never early");
            }
            assert!(block_on(pace.next()).is_none());
        });
        assert_eq!(pace.overdue(), 0);
    }

    #[test]
    fn an_interrupt_ends_either_loop_and_what_would_have_been_due_behind_it_is_not_missed() {
        for rate in [None, Some(100.0)] {
            let interrupt = Interrupt::default();
            let pace = Pace::start(Duration::from_mins(1), 1_000_000, rate, interrupt.clone());
            std::thread::scope(|scope| {
                scope.spawn(|| pace.release_when_due());
                while pace.started().elapsed() < Duration::from_millis(80) {
                    assert!(block_on(pace.next()).is_some());
                }
                assert_eq!(pace.interrupted_after(), None);
                interrupt.ask();
                while block_on(pace.next()).is_some() {}
            });
            let after = pace.interrupted_after().unwrap();
            assert!(after < Duration::from_secs(30), "{after:?}");
            assert_eq!(pace.overdue(), 0);
        }
    }

    #[test]
    fn what_was_due_but_never_sent_is_counted() {
        let pace = Pace::start(Duration::from_millis(30), 1_000_000, Some(10_000.0), Interrupt::default());
        pace.release_when_due();
        assert!(block_on(pace.next()).is_none());
        assert_eq!(pace.overdue(), 300);
    }
}
