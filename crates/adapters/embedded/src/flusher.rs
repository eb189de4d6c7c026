//! The thread that makes batches durable, and the one that writes snapshots.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex, MutexGuard};

use crate::disk::Disk;
use crate::journal::writer::Writer;
use crate::lock::FolderLock;
use crate::queue::{Batch, Phase, Queue, Waiter};
use crate::statistics::Counters;
use crate::{AnswerOn, Machine, StoreError, journal, snapshot};

/// What the handles, the flusher and a snapshot's thread have in common.
pub(crate) struct Shared<M: Machine> {
    pub(crate) queue: Mutex<Queue<M>>,
    /// Tells the flusher that there is something to do.
    pub(crate) work: Condvar,
    /// Tells whoever waits for it that a batch, or a snapshot, is through.
    pub(crate) progress: Condvar,
    pub(crate) counters: Counters,
    pub(crate) folder: PathBuf,
    pub(crate) disk: Arc<dyn Disk>,
    /// The largest command, and the size from which a batch takes no more; in bytes.
    pub(crate) batch_limit: usize,
    pub(crate) snapshot_bytes: u64,
    pub(crate) answer_on: Option<AnswerOn>,
    pub(crate) answers: Mutex<Answers>,
}

/// Answers that are due.
#[derive(Default)]
pub(crate) struct Answers {
    /// Batch by batch.
    waiting: Vec<Vec<Waiter>>,
    /// Somebody is giving them, and will look again.
    running: bool,
}

/// The thread that makes batches durable.
pub(crate) struct Flusher<M: Machine> {
    pub(crate) shared: Arc<Shared<M>>,
    pub(crate) writer: Writer,
    pub(crate) snapshot: Option<JoinHandle<()>>,
    /// When the last flush ended and how many waited for it, if those were so many that more are surely on their way.
    pub(crate) crowd: Option<(Instant, usize)>,
    /// How long a batch behind a crowd is gathered at most.
    pub(crate) gather: Duration,
    /// Given back when the thread ends, and with it everything that writes in the folder.
    pub(crate) _lock: FolderLock,
}

/// So many callers behind one flush are a crowd: batches are then gathered, not flushed one by one as they come.
const CROWD: usize = 4;

/// What the flusher does next.
enum Task<M: Machine> {
    Flush(Batch, u64),
    Snapshot(M::Frozen, u64),
    Close,
    Stop(Arc<str>),
}

impl<M: Machine> Flusher<M> {
    /// Runs until the store is closed or has stopped, and everyone has an answer.
    pub(crate) fn run(mut self) {
        let stopped = loop {
            match self.next_task() {
                Task::Flush(batch, sequence) => self.flush(batch, sequence),
                Task::Snapshot(frozen, sequence) => self.begin_snapshot(frozen, sequence),
                Task::Close => break None,
                Task::Stop(why) => break Some(why),
            }
        };
        if let Some(why) = stopped {
            self.shared.refuse_everyone(&why, Vec::new());
        }
        if let Some(snapshot) = self.snapshot.take() {
            // How it ended stands in the queue.
            let _ended = snapshot.join();
        }
        let queue = self.shared.queue.lock();
        if matches!(queue.phase, Phase::Stopped(_)) {
            return;
        }
        let next = queue.durable + 1;
        drop(queue);
        if let Err(error) = self.writer.close(next) {
            let why = format!("the journal could not be closed: {error}");
            let why = self.shared.queue.lock().stop(&why);
            self.shared.refuse_everyone(&why, Vec::new());
        }
    }

    /// Sleeps until there is something to do. Batches go first: a snapshot never delays a commit by
    /// more than it takes to freeze the state.
    fn next_task(&mut self) -> Task<M> {
        let mut queue = self.shared.queue.lock();
        loop {
            if let Phase::Stopped(why) = &queue.phase {
                return Task::Stop(why.clone());
            }
            if queue.snapshot_due(self.shared.snapshot_bytes) && matches!(queue.phase, Phase::Open) {
                queue.snapshot.running = true;
                queue.snapshot.wanted = false;
                queue.snapshot.journal_bytes = 0;
                return Task::Snapshot(queue.machine.freeze(), queue.applied);
            }
            if queue.has_batch()
                && matches!(queue.phase, Phase::Open)
                && let Some((ended, company)) = self.crowd.take()
            {
                // Whoever was answered by the last flush comes back soon, and shares the next one. When all are back there is nobody to wait for.
                let until = ended + self.gather;
                queue.awaited = Some(company);
                while Instant::now() < until && !queue.is_complete() && matches!(queue.phase, Phase::Open) {
                    self.shared.work.wait_until(&mut queue, until);
                }
                queue.awaited = None;
                continue;
            }
            if let Some(batch) = queue.next_batch() {
                queue.flushing = true;
                return Task::Flush(batch, queue.durable + 1);
            }
            if matches!(queue.phase, Phase::Closing) {
                return Task::Close;
            }
            queue.asleep = true;
            self.shared.work.wait(&mut queue);
            queue.asleep = false;
        }
    }

    fn flush(&mut self, mut batch: Batch, sequence: u64) {
        let began = Instant::now();
        let (company, records) = (batch.waiters.len(), batch.records);
        let written = self.writer.append(&batch.payload, sequence);
        let mut queue = self.shared.queue.lock();
        queue.flushing = false;
        match written {
            Ok(bytes) => {
                queue.durable += batch.records;
                queue.snapshot.journal_bytes += bytes;
                let mut waiters = std::mem::take(&mut batch.waiters);
                waiters.append(&mut queue.late);
                batch.payload.clear();
                batch.records = 0;
                queue.used = batch;
                drop(queue);
                self.shared.progress.notify_all();
                self.shared.counters.flushed(records, bytes, began.elapsed());
                Shared::answer_all(&self.shared, waiters);
                self.crowd = (company >= CROWD).then(|| (Instant::now(), company));
            }
            Err(error) => {
                let why = queue.stop(&format!("the journal could not be written: {error}"));
                drop(queue);
                self.shared.refuse_everyone(&why, batch.waiters);
            }
        }
    }

    fn begin_snapshot(&mut self, frozen: M::Frozen, sequence: u64) {
        if let Some(previous) = self.snapshot.take() {
            let _ended = previous.join();
        }
        let shared = self.shared.clone();
        let thread = thread::Builder::new().name(format!("snap-{}", M::NAME));
        match thread.spawn(move || shared.snapshot(frozen, sequence)) {
            Ok(thread) => self.snapshot = Some(thread),
            Err(error) => self.shared.snapshot_ended(Err(error)),
        }
    }
}

impl<M: Machine> Shared<M> {
    /// Unlocks first, so that the flusher does not wake up to a lock that is held.
    pub(crate) fn unlock_and_wake(&self, mut queue: MutexGuard<'_, Queue<M>>) {
        let wakes = std::mem::take(&mut queue.asleep) || queue.awaited.is_some() && queue.is_complete();
        drop(queue);
        if wakes {
            self.work.notify_one();
        }
    }

    /// Answers those whose commands are durable, where the owner of the store wants it done, one batch after the other.
    fn answer_all(shared: &Arc<Self>, waiters: Vec<Waiter>) {
        let Some(answer_on) = &shared.answer_on else { return shared.answer(waiters.into_iter(), Ok(())) };
        let mut answers = shared.answers.lock();
        answers.waiting.push(waiters);
        if !std::mem::replace(&mut answers.running, true) {
            drop(answers);
            let shared = Arc::clone(shared);
            answer_on(Box::new(move || shared.answer_waiting()));
        }
    }

    fn answer_waiting(&self) {
        loop {
            let mut answers = self.answers.lock();
            let waiting = std::mem::take(&mut answers.waiting);
            if waiting.is_empty() {
                answers.running = false;
                return;
            }
            drop(answers);
            self.answer(waiting.into_iter().flatten(), Ok(()));
        }
    }

    /// Answers in order. A callback that panics must not keep the others from their answer, but it is a
    /// defect in the program, so the store stops behind it.
    fn answer(&self, waiters: impl Iterator<Item = Waiter>, outcome: Result<(), StoreError>) {
        for waiter in waiters {
            let outcome = outcome.clone();
            if catch_unwind(AssertUnwindSafe(|| waiter(outcome))).is_err() {
                self.queue.lock().stop("a callback panicked on the store's thread");
                // Where answers are given elsewhere, the thread may be asleep, and it is the one that tells that the store has stopped.
                self.work.notify_one();
            }
        }
    }

    fn refuse_everyone(&self, why: &Arc<str>, mut waiters: Vec<Waiter>) {
        let mut queue = self.queue.lock();
        waiters.append(&mut queue.late);
        while let Some(mut batch) = queue.next_batch() {
            waiters.append(&mut batch.waiters);
        }
        let hooks = std::mem::take(&mut queue.on_stop);
        drop(queue);
        self.progress.notify_all();
        self.answer(waiters.into_iter(), Err(StoreError::Stopped { why: why.clone() }));
        for hook in hooks {
            // The store has stopped already; there is nothing left a panicking hook could harm.
            let _outcome = catch_unwind(AssertUnwindSafe(|| hook(why)));
        }
    }

    fn snapshot(&self, frozen: M::Frozen, sequence: u64) {
        // A panic in the machine's writing must not leave everybody waiting for the snapshot's end.
        let written = catch_unwind(AssertUnwindSafe(|| self.write_snapshot(frozen, sequence)));
        let panicked = || io::Error::other("the machine panicked while it wrote its state");
        self.snapshot_ended(written.unwrap_or_else(|_| Err(panicked())).map(|()| sequence));
    }

    fn write_snapshot(&self, frozen: M::Frozen, sequence: u64) -> io::Result<()> {
        let disk = &*self.disk;
        let unfinished = snapshot::unfinished_path(&self.folder, sequence);
        let installed = self.write_and_install(frozen, sequence, &unfinished);
        if installed.is_err() {
            // A full disk would stay full of it. What cannot be removed either is written over by the next, or removed at the next start.
            _ = disk.remove(&unfinished);
        }
        installed?;
        journal::drop_covered(disk, &self.folder, sequence)
    }

    fn write_and_install(&self, frozen: M::Frozen, sequence: u64, unfinished: &Path) -> io::Result<()> {
        let disk = &*self.disk;
        snapshot::write::<M>(disk, unfinished, sequence, &frozen)?;
        drop(frozen);
        // A snapshot must not show what the journal may yet lose: the sequences would be given twice.
        let mut queue = self.queue.lock();
        while queue.durable < sequence {
            if let Phase::Stopped(why) = &queue.phase {
                return Err(io::Error::other(why.to_string()));
            }
            self.progress.wait(&mut queue);
        }
        drop(queue);
        snapshot::install(disk, &self.folder, unfinished, sequence)
    }

    fn snapshot_ended(&self, ended: io::Result<u64>) {
        self.counters.snapshot(ended.is_ok());
        let mut queue = self.queue.lock();
        queue.snapshot.running = false;
        match ended {
            Ok(covered) => queue.snapshot.covered = covered,
            Err(error) => {
                queue.snapshot.failures += 1;
                queue.snapshot.why = error.to_string().into();
            }
        }
        // Somebody may have asked for the next one meanwhile.
        let asleep = std::mem::take(&mut queue.asleep);
        drop(queue);
        if asleep {
            self.work.notify_one();
        }
        self.progress.notify_all();
    }
}
