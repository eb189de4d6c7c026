//! Clients that check out one order after another, on a thread of their own, and remember every answer.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::Context;
use load::client::{Answer, Client, Target};

/// How long a client waits for an answer. Longer than the gateway does.
const PATIENCE: Duration = Duration::from_secs(35);
/// How long a client does nothing after it could not connect or was turned away, or while it is told to wait.
const PAUSE: Duration = Duration::from_millis(20);
/// How long it does nothing after it was told that nobody knows: every such order is asked for again afterwards.
const DOUBT: Duration = Duration::from_millis(100);

/// What was heard of one order, and when.
#[derive(Debug, Clone, Copy)]
pub(super) struct Heard {
    pub(super) order: u64,
    pub(super) answer: Answer,
    pub(super) at: Instant,
}

#[derive(Debug, Default)]
struct Shared {
    ended: AtomicBool,
    waits: AtomicBool,
    /// Clients that have a request under way.
    busy: AtomicUsize,
    next: AtomicU64,
    /// Orders whose outcome nobody was told.
    again: Mutex<Vec<u64>>,
    heard: Mutex<Vec<Heard>>,
}

/// The clients.
#[derive(Debug)]
pub(super) struct Clients {
    shared: Arc<Shared>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Clients {
    /// So many clients, who wait until they are told to [`go`](Self::go).
    pub(super) fn start(target: Arc<Target>, clients: usize, orders: u64) -> anyhow::Result<Self> {
        let shared = Arc::new(Shared { waits: AtomicBool::new(true), ..Shared::default() });
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let of_thread = Arc::clone(&shared);
        let run = move || {
            let local = tokio::task::LocalSet::new();
            for _ in 0..clients {
                local.spawn_local(Arc::clone(&of_thread).work(Arc::clone(&target), orders));
            }
            runtime.block_on(local);
        };
        let thread =
            std::thread::Builder::new().name("clients".to_owned()).spawn(run).context("cannot start a thread")?;
        Ok(Self { shared, thread: Some(thread) })
    }

    /// Lets them go on.
    pub(super) fn go(&self) {
        self.shared.waits.store(false, Ordering::SeqCst);
    }

    /// Has them wait, and waits until none has a request under way.
    pub(super) fn wait(&self) {
        self.shared.waits.store(true, Ordering::SeqCst);
        while self.shared.busy.load(Ordering::SeqCst) > 0 {
            std::thread::sleep(PAUSE);
        }
    }

    /// What they heard since this was asked last.
    pub(super) fn heard(&self) -> Vec<Heard> {
        std::mem::take(&mut *self.shared.heard.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Whether a checkout has succeeded since then, and its client has said so.
    pub(super) fn succeeded_since(&self, moment: Instant) -> bool {
        let heard = self.shared.heard.lock().unwrap_or_else(PoisonError::into_inner);
        heard.iter().rev().any(|heard| heard.answer == Answer::Accepted && heard.at > moment)
    }

    /// Takes the orders whose outcome nobody was told; they are not asked for again unless the caller does.
    pub(super) fn open_questions(&self) -> Vec<u64> {
        std::mem::take(&mut *self.shared.again.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// How many orders were begun.
    pub(super) fn begun(&self) -> u64 {
        self.shared.next.load(Ordering::SeqCst)
    }
}

impl Drop for Clients {
    fn drop(&mut self) {
        self.shared.ended.store(true, Ordering::SeqCst);
        if let Some(thread) = self.thread.take() {
            // A panic of its was told on standard error.
            _ = thread.join();
        }
    }
}

impl Shared {
    async fn work(self: Arc<Self>, target: Arc<Target>, orders: u64) {
        let mut client = Client::new(target, PATIENCE);
        while !self.ended.load(Ordering::SeqCst) {
            self.busy.fetch_add(1, Ordering::SeqCst);
            // Looked at after it counts as busy, so that nobody who waits for it overlooks a request.
            if self.waits.load(Ordering::SeqCst) {
                self.busy.fetch_sub(1, Ordering::SeqCst);
                tokio::time::sleep(PAUSE).await;
                continue;
            }
            let order = self.next.fetch_add(1, Ordering::SeqCst);
            if order >= orders {
                self.busy.fetch_sub(1, Ordering::SeqCst);
                return;
            }
            let answer = client.post(format_args!("/orders/checkout/{order}")).await;
            let heard = Heard { order, answer, at: Instant::now() };
            self.heard.lock().unwrap_or_else(PoisonError::into_inner).push(heard);
            if matches!(answer, Answer::Unknown(_)) {
                self.again.lock().unwrap_or_else(PoisonError::into_inner).push(order);
            }
            self.busy.fetch_sub(1, Ordering::SeqCst);
            // Refused by the gateway or not even that: no use in asking at full speed.
            match answer {
                Answer::Unsent | Answer::Refused(424 | 429) => tokio::time::sleep(PAUSE).await,
                Answer::Unknown(_) => tokio::time::sleep(DOUBT).await,
                Answer::Accepted | Answer::Refused(_) => {}
            }
        }
    }
}
