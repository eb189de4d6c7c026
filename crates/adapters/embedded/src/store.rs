//! The store: callers apply commands under one lock; one thread makes them durable.

use std::collections::VecDeque;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Instant;

use parking_lot::{Condvar, Mutex, MutexGuard};

use crate::disk::Disk;
use crate::error::io_error;
use crate::journal::format::RECORD_HEADER;
use crate::journal::writer::Writer;
use crate::lock::FolderLock;
use crate::recovery::{self, Recovered};
use crate::statistics::Counters;
use crate::{Machine, OpenError, Opened, Options, Statistics, StoreError, journal, snapshot};

/// Called once, when everything its command depends on is durable or never will be.
type Waiter = Box<dyn FnOnce(Result<(), StoreError>) + Send>;

/// Called once, with the reason, when the store stops.
type StopHook = Box<dyn FnOnce(&str) + Send>;

/// A machine kept in a folder. A clone is another handle to the same store; the store is closed by
/// [`close`](Store::close) or with its last handle.
///
/// **Callbacks** run on the store's flusher thread, or on the calling thread before the call returns.
/// Every commit waits while one runs: hand the answer on and return. They may call the store, except
/// [`close`](Store::close) and [`snapshot`](Store::snapshot), which wait for that very thread.
pub struct Store<M: Machine> {
    handle: Arc<Handle<M>>,
}

impl<M: Machine> Clone for Store<M> {
    fn clone(&self) -> Self {
        Store { handle: self.handle.clone() }
    }
}

impl<M: Machine> std::fmt::Debug for Store<M> {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Store").field("folder", &self.handle.shared.folder).finish_non_exhaustive()
    }
}

/// Closes the store when the last `Store` is gone.
struct Handle<M: Machine> {
    shared: Arc<Shared<M>>,
    flusher: Mutex<Option<JoinHandle<()>>>,
}

/// What the handles, the flusher and a snapshot's thread have in common.
struct Shared<M: Machine> {
    queue: Mutex<Queue<M>>,
    /// Tells the flusher that there is something to do.
    work: Condvar,
    /// Tells whoever waits for it that a batch, or a snapshot, is through.
    progress: Condvar,
    counters: Counters,
    folder: PathBuf,
    disk: Arc<dyn Disk>,
    /// The largest command, and the size from which a batch takes no more; in bytes.
    batch_limit: usize,
    snapshot_bytes: u64,
}

/// Commands applied together, to be made durable together.
#[derive(Default)]
struct Batch {
    /// The records, as the journal wants them.
    payload: Vec<u8>,
    records: u64,
    waiters: Vec<Waiter>,
}

#[derive(Clone)]
enum Phase {
    Open,
    Closing,
    Stopped(Arc<str>),
}

struct Queue<M: Machine> {
    machine: M,
    phase: Phase,
    /// The sequence of the last command applied.
    applied: u64,
    /// The sequence of the last command durable.
    durable: u64,
    /// Batches that take no more commands, oldest first. Almost always empty.
    full: VecDeque<Batch>,
    /// The batch new commands go to. It has waiters only if it has records.
    open: Batch,
    /// A batch used before, kept for its memory.
    used: Batch,
    /// Whether a batch is being flushed.
    flushing: bool,
    /// Callers who saw what is being flushed, and nothing later.
    late: Vec<Waiter>,
    /// Whether the flusher sleeps, so that somebody has to wake it.
    asleep: bool,
    snapshot: Snapshot,
    on_stop: Vec<StopHook>,
}

/// How things stand with snapshots.
#[derive(Default)]
struct Snapshot {
    /// Somebody asked for one.
    wanted: bool,
    /// One is being written.
    running: bool,
    /// What the last one covers.
    covered: u64,
    /// Journal written since the last one was begun, in bytes.
    journal_bytes: u64,
    /// How many were tried and given up, and why the last one was.
    failures: u64,
    why: Arc<str>,
}

impl<M: Machine> Store<M> {
    /// Opens the store in `folder`, which is created if there is none, and recovers what it holds.
    /// `Opened` tells what recovery found.
    ///
    /// # Errors
    /// [`OpenError`]: the folder is in use, foreign or damaged, an option is out of bounds, or the
    /// operating system refuses something.
    pub fn open(folder: &Path, options: Options) -> Result<(Store<M>, Opened), OpenError> {
        const {
            assert!(M::NAME.len() <= crate::journal::format::NAME_LIMIT, "a machine's name has at most 64 bytes");
        }
        options.check()?;
        std::fs::create_dir_all(folder).map_err(io_error(folder, "create the folder"))?;
        let lock = FolderLock::take(folder)?;
        let Recovered { machine, writer, opened } = recovery::recover::<M>(folder, &options)?;
        let batch_limit =
            usize::try_from(options.segment_bytes / 4).expect("a segment's size is checked to be at most 1 GiB");
        let shared = Arc::new(Shared {
            queue: Mutex::new(Queue {
                machine,
                phase: Phase::Open,
                applied: opened.sequence,
                durable: opened.sequence,
                full: VecDeque::new(),
                open: Batch::default(),
                used: Batch::default(),
                flushing: false,
                late: Vec::new(),
                asleep: false,
                snapshot: Snapshot {
                    covered: opened.snapshot.unwrap_or(0),
                    journal_bytes: opened.replayed_bytes,
                    ..Snapshot::default()
                },
                on_stop: Vec::new(),
            }),
            work: Condvar::new(),
            progress: Condvar::new(),
            counters: Counters::default(),
            folder: folder.to_owned(),
            disk: options.disk,
            batch_limit,
            snapshot_bytes: options.snapshot_bytes,
        });
        let flusher = Flusher { shared: shared.clone(), writer, snapshot: None, _lock: lock };
        let thread = thread::Builder::new()
            .name(format!("flush-{}", M::NAME))
            .spawn(move || flusher.run())
            .map_err(io_error(folder, "start a thread for the store in it"))?;
        Ok((Store { handle: Arc::new(Handle { shared, flusher: Mutex::new(Some(thread)) }) }, opened))
    }

    /// Applies a command at once, on this thread, and calls `done` with the reply once it is durable,
    /// or with the reason why it is not known to be. A reply of a command that changed nothing waits
    /// until everything it may have seen is durable.
    ///
    /// `done` hears [`StoreError`]; of its variants only `Stopped` leaves open whether the command
    /// will be found after the next start.
    pub fn submit(&self, command: M::Command, done: impl FnOnce(Result<M::Reply, StoreError>) + Send + 'static) {
        let shared = &*self.handle.shared;
        let mut queue = shared.queue.lock();
        match queue.apply(&command, shared.batch_limit) {
            Err(error) => {
                shared.unlock_and_wake(queue);
                done(Err(error));
            }
            Ok(reply) if queue.is_settled() => {
                drop(queue);
                done(Ok(reply));
            }
            Ok(reply) => {
                queue.wait(Box::new(move |outcome| done(outcome.map(|()| reply))));
                shared.unlock_and_wake(queue);
            }
        }
    }

    /// Applies many commands at once, with nobody else's between them, and calls `done` with their
    /// replies in order once all of it is durable. Cheaper than one by one: one lock, one callback, and
    /// as a rule one flush.
    pub fn submit_all(
        &self,
        commands: impl IntoIterator<Item = M::Command>,
        done: impl FnOnce(Vec<Result<M::Reply, StoreError>>) + Send + 'static,
    ) {
        let shared = &*self.handle.shared;
        let mut queue = shared.queue.lock();
        let mut replies: Vec<_> =
            commands.into_iter().map(|command| queue.apply(&command, shared.batch_limit)).collect();
        if queue.is_settled() {
            shared.unlock_and_wake(queue);
            return done(replies);
        }
        queue.wait(Box::new(move |outcome| {
            if let Err(error) = outcome {
                // Of those applied it is not known whether they are durable; the others were refused.
                replies.iter_mut().filter(|reply| reply.is_ok()).for_each(|reply| *reply = Err(error.clone()));
            }
            done(replies);
        }));
        shared.unlock_and_wake(queue);
    }

    /// Applies a command at once and returns its reply, which is not durable yet: after a crash the
    /// command may never have happened. `durable` is called once the reply can be relied on, or with
    /// the reason why it cannot; possibly before this call returns.
    ///
    /// # Errors
    /// [`StoreError`]; `durable` is then not called.
    pub fn submit_applied(
        &self,
        command: M::Command,
        durable: impl FnOnce(Result<(), StoreError>) + Send + 'static,
    ) -> Result<M::Reply, StoreError> {
        let shared = &*self.handle.shared;
        let mut queue = shared.queue.lock();
        match queue.apply(&command, shared.batch_limit) {
            Err(error) => {
                shared.unlock_and_wake(queue);
                Err(error)
            }
            Ok(reply) if queue.is_settled() => {
                drop(queue);
                durable(Ok(()));
                Ok(reply)
            }
            Ok(reply) => {
                queue.wait(Box::new(durable));
                shared.unlock_and_wake(queue);
                Ok(reply)
            }
        }
    }

    /// Reads the state as it is applied: it may show what is not durable yet and what a crash may undo.
    /// Every caller waits while `look` runs.
    ///
    /// # Errors
    /// [`StoreError::Stopped`] or [`StoreError::Closed`].
    pub fn read<R>(&self, look: impl FnOnce(&M) -> R) -> Result<R, StoreError> {
        let queue = self.handle.shared.queue.lock();
        queue.check()?;
        Ok(look(&queue.machine))
    }

    /// Reads the state at once and calls `done` with the result once everything it may have seen is
    /// durable.
    pub fn read_durable<R: Send + 'static>(
        &self,
        look: impl FnOnce(&M) -> R,
        done: impl FnOnce(Result<R, StoreError>) + Send + 'static,
    ) {
        let shared = &*self.handle.shared;
        let mut queue = shared.queue.lock();
        if let Err(error) = queue.check() {
            drop(queue);
            return done(Err(error));
        }
        let result = look(&queue.machine);
        if queue.is_settled() {
            drop(queue);
            done(Ok(result));
        } else {
            queue.wait(Box::new(move |outcome| done(outcome.map(|()| result))));
        }
    }

    /// Takes a snapshot now and waits until it is durable; returns the sequence of the last command it
    /// covers.
    ///
    /// # Errors
    /// [`StoreError::Snapshot`]: the disk refused something, and the store goes on without the snapshot.
    /// [`StoreError::Closed`] and [`StoreError::Stopped`].
    pub fn snapshot(&self) -> Result<u64, StoreError> {
        let shared = &*self.handle.shared;
        let mut queue = shared.queue.lock();
        let (target, failures) = (queue.applied, queue.snapshot.failures);
        loop {
            queue.check()?;
            if queue.snapshot.covered >= target {
                return Ok(queue.snapshot.covered);
            }
            if queue.snapshot.failures > failures {
                return Err(StoreError::Snapshot { why: queue.snapshot.why.clone() });
            }
            queue.snapshot.wanted = true;
            if std::mem::take(&mut queue.asleep) {
                shared.work.notify_one();
            }
            shared.progress.wait(&mut queue);
        }
    }

    /// The sequence of the last command applied; 0 before the first. Commands that change nothing have
    /// no sequence.
    pub fn applied_sequence(&self) -> u64 {
        self.handle.shared.queue.lock().applied
    }

    /// The sequence of the last command durable; 0 before the first.
    pub fn durable_sequence(&self) -> u64 {
        self.handle.shared.queue.lock().durable
    }

    /// Why the store has stopped, if it has. A store that has stopped never goes on.
    pub fn stopped(&self) -> Option<String> {
        match &self.handle.shared.queue.lock().phase {
            Phase::Stopped(why) => Some(why.to_string()),
            Phase::Open | Phase::Closing => None,
        }
    }

    /// Calls `hook` with the reason when the store stops, or at once if it has; never if it is closed
    /// in good order. A process can do little better than end then.
    pub fn on_stop(&self, hook: impl FnOnce(&str) + Send + 'static) {
        let mut queue = self.handle.shared.queue.lock();
        match &queue.phase {
            Phase::Stopped(why) => {
                let why = why.clone();
                drop(queue);
                hook(&why);
            }
            Phase::Open | Phase::Closing => queue.on_stop.push(Box::new(hook)),
        }
    }

    /// What the store has done since it was opened.
    pub fn statistics(&self) -> Statistics {
        self.handle.shared.counters.read()
    }

    /// How many batches have been made durable since the store was opened.
    pub fn flush_count(&self) -> u64 {
        self.statistics().flushes
    }

    /// How many bytes the folder's files have.
    ///
    /// # Errors
    /// Those of the operating system.
    pub fn size_on_disk(&self) -> io::Result<u64> {
        let mut bytes = 0;
        for entry in std::fs::read_dir(&self.handle.shared.folder)? {
            match entry?.metadata() {
                Ok(metadata) => bytes += metadata.len(),
                // A snapshot may drop files meanwhile.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        Ok(bytes)
    }

    /// Makes durable what is pending, ends the store's threads and gives the folder back. Other handles
    /// hear [`StoreError::Closed`] from then on. Closing twice is harmless.
    ///
    /// # Errors
    /// [`StoreError::Stopped`] if the store has stopped, before or while it was closed.
    pub fn close(&self) -> Result<(), StoreError> {
        self.handle.close();
        match &self.handle.shared.queue.lock().phase {
            Phase::Stopped(why) => Err(StoreError::Stopped { why: why.clone() }),
            Phase::Open | Phase::Closing => Ok(()),
        }
    }
}

impl<M: Machine> Handle<M> {
    fn close(&self) {
        let mut queue = self.shared.queue.lock();
        if matches!(queue.phase, Phase::Open) {
            queue.phase = Phase::Closing;
        }
        queue.asleep = false;
        drop(queue);
        self.shared.work.notify_one();
        self.shared.progress.notify_all();
        if let Some(flusher) = self.flusher.lock().take() {
            // The last handle may be dropped by a callback; the flusher then ends without being awaited.
            if flusher.thread().id() != thread::current().id() {
                let ended = flusher.join();
                debug_assert!(ended.is_ok(), "the flusher catches every panic of a callback");
            }
        }
    }
}

impl<M: Machine> Drop for Handle<M> {
    fn drop(&mut self) {
        self.close();
    }
}

impl<M: Machine> Shared<M> {
    /// Unlocks first, so that the flusher does not wake up to a lock that is held.
    fn unlock_and_wake(&self, mut queue: MutexGuard<'_, Queue<M>>) {
        let asleep = std::mem::take(&mut queue.asleep);
        drop(queue);
        if asleep {
            self.work.notify_one();
        }
    }
}

impl<M: Machine> Queue<M> {
    fn check(&self) -> Result<(), StoreError> {
        match &self.phase {
            Phase::Open => Ok(()),
            Phase::Closing => Err(StoreError::Closed),
            Phase::Stopped(why) => Err(StoreError::Stopped { why: why.clone() }),
        }
    }

    /// Applies a command and, if it changed anything, leaves its record in the open batch. The record
    /// is encoded first: a command that cannot be journalled must not be applied.
    fn apply(&mut self, command: &M::Command, limit: usize) -> Result<M::Reply, StoreError> {
        self.check()?;
        if self.open.payload.len() >= limit {
            let fresh = std::mem::take(&mut self.used);
            self.full.push_back(std::mem::replace(&mut self.open, fresh));
        }
        let payload = &mut self.open.payload;
        let start = payload.len();
        payload.extend_from_slice(&[0; RECORD_HEADER]);
        if let Err(error) = postcard::serialize_with_flavor(command, Tail(payload)) {
            payload.truncate(start);
            return Err(StoreError::Encode { why: error.to_string() });
        }
        let body = start + RECORD_HEADER;
        let bytes = payload.len() - body;
        let Some(length) = u32::try_from(bytes).ok().filter(|_| bytes <= limit) else {
            payload.truncate(start);
            return Err(StoreError::TooLarge { bytes, limit });
        };
        payload[start..body].copy_from_slice(&length.to_le_bytes());
        // A panic may leave the state half changed, so nothing may be read from it or added to it again.
        let Ok(applied) = catch_unwind(AssertUnwindSafe(|| self.machine.apply(command))) else {
            self.open.payload.truncate(start);
            let why: Arc<str> = format!("the machine \"{}\" panicked while it applied a command", M::NAME).into();
            self.phase = Phase::Stopped(why.clone());
            return Err(StoreError::Stopped { why });
        };
        if applied.changed {
            self.open.records += 1;
            self.applied += 1;
        } else {
            self.open.payload.truncate(start);
        }
        Ok(applied.reply)
    }

    /// From here on nobody is answered anything but why. The first reason stands.
    fn stop(&mut self, why: &str) -> Arc<str> {
        if let Phase::Stopped(why) = &self.phase {
            return why.clone();
        }
        let why: Arc<str> = why.into();
        self.phase = Phase::Stopped(why.clone());
        why
    }

    /// Whether everything applied is durable.
    fn is_settled(&self) -> bool {
        self.applied == self.durable
    }

    /// Puts a caller who has seen everything applied so far behind the batch that makes it durable.
    fn wait(&mut self, waiter: Waiter) {
        if self.open.records > 0 {
            self.open.waiters.push(waiter);
        } else if let Some(batch) = self.full.back_mut() {
            batch.waiters.push(waiter);
        } else {
            debug_assert!(self.flushing, "what is not durable is pending or being flushed");
            self.late.push(waiter);
        }
    }

    fn next_batch(&mut self) -> Option<Batch> {
        if let Some(batch) = self.full.pop_front() {
            return Some(batch);
        }
        if self.open.records == 0 {
            return None;
        }
        let fresh = std::mem::take(&mut self.used);
        Some(std::mem::replace(&mut self.open, fresh))
    }

    fn snapshot_due(&self, threshold: u64) -> bool {
        let wanted = self.snapshot.wanted || self.snapshot.journal_bytes >= threshold;
        wanted && !self.snapshot.running && self.applied > self.snapshot.covered
    }
}

/// Lets postcard write straight to the end of a batch.
struct Tail<'a>(&'a mut Vec<u8>);

impl postcard::ser_flavors::Flavor for Tail<'_> {
    type Output = ();

    fn try_push(&mut self, byte: u8) -> postcard::Result<()> {
        self.0.push(byte);
        Ok(())
    }

    fn try_extend(&mut self, bytes: &[u8]) -> postcard::Result<()> {
        self.0.extend_from_slice(bytes);
        Ok(())
    }

    fn finalize(self) -> postcard::Result<()> {
        Ok(())
    }
}

/// The thread that makes batches durable.
struct Flusher<M: Machine> {
    shared: Arc<Shared<M>>,
    writer: Writer,
    snapshot: Option<JoinHandle<()>>,
    /// Given back when the thread ends, and with it everything that writes in the folder.
    _lock: FolderLock,
}

/// What the flusher does next.
enum Task<M: Machine> {
    Flush(Batch, u64),
    Snapshot(M::Frozen, u64),
    Close,
    Stop(Arc<str>),
}

impl<M: Machine> Flusher<M> {
    fn run(mut self) {
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
    fn next_task(&self) -> Task<M> {
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
        let written = self.writer.append(&batch.payload, sequence);
        let mut queue = self.shared.queue.lock();
        queue.flushing = false;
        match written {
            Ok(bytes) => {
                queue.durable += batch.records;
                queue.snapshot.journal_bytes += bytes;
                let mut late = std::mem::take(&mut queue.late);
                drop(queue);
                self.shared.progress.notify_all();
                self.shared.counters.flushed(batch.records, bytes, began.elapsed());
                self.shared.answer(batch.waiters.drain(..), Ok(()));
                self.shared.answer(late.drain(..), Ok(()));
                batch.payload.clear();
                batch.records = 0;
                let mut queue = self.shared.queue.lock();
                queue.used = batch;
                if queue.late.capacity() == 0 {
                    queue.late = late;
                }
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
    /// Answers in order. A callback that panics must not keep the others from their answer, but it is a
    /// defect in the program, so the store stops behind it.
    fn answer(&self, waiters: impl Iterator<Item = Waiter>, outcome: Result<(), StoreError>) {
        for waiter in waiters {
            let outcome = outcome.clone();
            if catch_unwind(AssertUnwindSafe(|| waiter(outcome))).is_err() {
                self.queue.lock().stop("a callback panicked on the store's thread");
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
        let unfinished = snapshot::write::<M>(disk, &self.folder, sequence, &frozen)?;
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
        snapshot::install(disk, &self.folder, &unfinished, sequence)?;
        journal::drop_covered(disk, &self.folder, sequence)
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
