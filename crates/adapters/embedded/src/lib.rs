//! A durable store: a deterministic state machine in memory under a journal of its own.
//!
//! ```text
//!  callers' threads                         the store's thread              the disk
//!  ────────────────                         ──────────────────              ────────
//!  submit ──► lock ─► apply to the machine
//!                     encode into the batch ──► take the whole batch
//!             unlock  (next batch fills)        one write, one flush ──────► journal-….seg
//!  done(reply) ◄──────────────────────────────── answer everyone in it
//!
//!                     freeze (cheap) ◄───────── enough journal?
//!                        └──────────────────────► a thread of its own ────► snapshot-….snap
//! ```
//!
//! - A [`Machine`] holds the state and decides; it knows nothing of disks.
//! - A [`Store`] keeps a machine in a folder: whatever it answered is there after the next start. While
//!   one batch is flushed, the next one is applied, so a flush is shared by all who came meanwhile.
//! - The [`journal`] is the truth; a snapshot only makes an early part of it needless. Starting reads the
//!   newest snapshot and applies the journal after it.
//! - What cannot be written stops the store for good, before anything of it is answered. What cannot be
//!   read back is refused, with file and offset; the rules are told in [`journal`].
//!
//! Two levels of truth: *applied* can be read and may be undone by a crash; *durable* will not be. Each
//! call says which one it gives.

pub mod disk;
mod error;
mod flusher;
pub mod journal;
mod ledger;
mod lock;
mod queue;
mod recovery;
pub mod rows;
mod snapshot;
mod statistics;
mod store;

use std::io;
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;

pub use error::{OpenError, StoreError};
pub use recovery::{Opened, examine};
pub use statistics::{BUCKETS, Statistics};
pub use store::Store;

/// A deterministic state machine: the same commands in the same order lead to the same state and the
/// same replies, on any machine, at any time. No clock, no randomness, no order of a hash map may
/// find its way into [`apply`](Machine::apply); what a command needs of them, it carries.
pub trait Machine: Sized + Send + 'static {
    /// What is journalled. On disk it is encoded with postcard.
    type Command: Serialize + DeserializeOwned + Send + 'static;
    /// What the caller is told.
    type Reply: Send + 'static;
    /// A consistent picture of the state, cheap to take and apart from the state ever after.
    type Frozen: Send + 'static;

    /// Stands in the header of every file, for instance `ledger`; at most 64 bytes.
    const NAME: &'static str;
    /// The version of the encoding of commands and snapshots. Give it the next number when either
    /// changes: what was written in a version that this one does not read is refused, not misread.
    const VERSION: u16;
    /// The oldest version that is still read. A variant that is new behind the others of a command leaves what was written before as
    /// it is; where a snapshot's encoding differs, [`read_snapshot`](Machine::read_snapshot) is told in which one it is.
    const OLDEST_READ: u16 = Self::VERSION;

    /// The state before the first command.
    fn new() -> Self;
    /// Decides a command and carries it out. `changed` may be `false` only if the state is exactly
    /// what it was; the command is then not journalled.
    fn apply(&mut self, command: &Self::Command) -> Applied<Self::Reply>;
    /// Takes a picture of the state. Every caller waits meanwhile, so it must be cheap.
    fn freeze(&self) -> Self::Frozen;
    /// Writes a picture; called on a thread of its own, while commands go on.
    ///
    /// # Errors
    /// Those of `out`.
    fn write_snapshot(frozen: &Self::Frozen, out: &mut dyn io::Write) -> io::Result<()>;
    /// Reads back exactly what [`write_snapshot`](Machine::write_snapshot) of that `version` wrote, to the last byte.
    ///
    /// # Errors
    /// Those of `input`, and whatever makes the bytes no state.
    fn read_snapshot(input: &mut dyn io::Read, version: u16) -> io::Result<Self>;
}

/// What became of a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Applied<R> {
    /// What the caller is told.
    pub reply: R,
    /// Whether the state is now another one, so that the command must be journalled. `false` for a
    /// refusal, or for the repeat of a command already carried out.
    pub changed: bool,
}

/// What "durable" means.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Durability {
    /// A batch is answered once the disk says it has it: it survives a power cut.
    #[default]
    Fsync,
    /// A batch is answered once the operating system has it: it survives the end of the process, not
    /// of the machine. For tests and comparisons.
    Memory,
}

/// Has something done soon, once, on a thread of its choice; for instance by handing it to a runtime.
pub type AnswerOn = Arc<dyn Fn(Box<dyn FnOnce() + Send>) + Send + Sync>;

/// How a store is kept. The defaults suit production.
#[derive(Clone)]
pub struct Options {
    /// What "durable" means; [`Durability::Fsync`] unless told.
    pub durability: Durability,
    /// The size of a journal segment in bytes: 4 KiB to 1 GiB, a multiple of 512; 64 MiB unless
    /// told. A command may take a quarter of it.
    pub segment_bytes: u64,
    /// A snapshot is taken once the journal written since the last one exceeds so many bytes; 128 MiB
    /// unless told, at least 1. The journal on disk stays below this plus what is written while a snapshot is, plus
    /// two segments.
    pub snapshot_bytes: u64,
    /// How long after a flush that several callers shared the next one waits until as many are there again, so that they share
    /// that one too; 500 µs at most unless told. A lone caller never waits. Costs a busy store this much latency at most, and
    /// saves it most of its flushes.
    pub gather: Duration,
    /// Where callers are answered once their commands are durable: a batch at a time, in order. On the store's own thread unless told;
    /// elsewhere, the next batch is flushed meanwhile. What is handed over must be done: if it is dropped, neither its callers nor any later
    /// ones are answered.
    pub answer_on: Option<AnswerOn>,
    /// The disk; the real one unless told.
    pub disk: Arc<dyn disk::Disk>,
}

impl Default for Options {
    fn default() -> Self {
        Options {
            durability: Durability::default(),
            segment_bytes: 64 << 20,
            snapshot_bytes: 128 << 20,
            gather: Duration::from_micros(500),
            answer_on: None,
            disk: Arc::new(disk::RealDisk),
        }
    }
}

impl std::fmt::Debug for Options {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("Options")
            .field("durability", &self.durability)
            .field("segment_bytes", &self.segment_bytes)
            .field("snapshot_bytes", &self.snapshot_bytes)
            .field("gather", &self.gather)
            .finish_non_exhaustive()
    }
}

impl Options {
    fn check(&self) -> Result<(), OpenError> {
        let (least, most) = (4 << 10, 1 << 30);
        if !(least..=most).contains(&self.segment_bytes) || !self.segment_bytes.is_multiple_of(512) {
            return Err(OpenError::Option {
                option: "segment_bytes",
                why: format!("must be {least} to {most} bytes and a multiple of 512, is {}", self.segment_bytes),
            });
        }
        if self.snapshot_bytes == 0 {
            return Err(OpenError::Option {
                option: "snapshot_bytes",
                why: "must be at least 1 byte, is 0".to_owned(),
            });
        }
        Ok(())
    }
}
