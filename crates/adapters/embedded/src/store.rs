//! The store as its callers see it.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::thread::{self, JoinHandle};

use parking_lot::{Condvar, Mutex};

use crate::error::io_error;
use crate::flusher::{Flusher, Shared};
use crate::lock::FolderLock;
use crate::queue::{Phase, Queue};
use crate::recovery::{self, Recovered};
use crate::statistics::Counters;
use crate::{Machine, OpenError, Opened, Options, Statistics, StoreError};

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
            queue: Mutex::new(Queue::new(machine, &opened)),
            work: Condvar::new(),
            progress: Condvar::new(),
            counters: Counters::default(),
            folder: folder.to_owned(),
            disk: options.disk,
            batch_limit,
            snapshot_bytes: options.snapshot_bytes,
            answer_on: options.answer_on,
            answers: Mutex::default(),
        });
        let flusher = Flusher {
            shared: shared.clone(),
            writer,
            snapshot: None,
            crowd: None,
            gather: options.gather,
            _lock: lock,
        };
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
    /// command may never have happened. `durable` is called with the same reply once it can be relied
    /// on, or with the reason why it cannot; possibly before this call returns.
    ///
    /// # Errors
    /// [`StoreError`]; `durable` is then not called.
    pub fn submit_applied(
        &self,
        command: M::Command,
        durable: impl FnOnce(Result<M::Reply, StoreError>) + Send + 'static,
    ) -> Result<M::Reply, StoreError>
    where
        M::Reply: Clone,
    {
        let shared = &*self.handle.shared;
        let mut queue = shared.queue.lock();
        match queue.apply(&command, shared.batch_limit) {
            Err(error) => {
                shared.unlock_and_wake(queue);
                Err(error)
            }
            Ok(reply) if queue.is_settled() => {
                drop(queue);
                durable(Ok(reply.clone()));
                Ok(reply)
            }
            Ok(reply) => {
                let later = reply.clone();
                queue.wait(Box::new(move |outcome| durable(outcome.map(|()| later))));
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
