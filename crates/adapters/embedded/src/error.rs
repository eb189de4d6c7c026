//! What can go wrong, told so that a person can act on it.

use std::path::PathBuf;
use std::sync::Arc;

/// Why a store did not open. Unless the message says otherwise, nothing in the folder was changed.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The operating system refused a file operation.
    #[error("{path}: cannot {what}: {source}", path = path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What was tried, in words that follow "cannot".
        what: &'static str,
        /// What the operating system said.
        source: std::io::Error,
    },
    /// Another process, or another store of this process, has the folder open.
    #[error("{folder} is in use by {holder}; stop it first: a folder has one store at a time", folder = folder.display())]
    InUse {
        /// The folder.
        folder: PathBuf,
        /// Who holds it: `process 4711`, or `another process` when its id cannot be read.
        holder: String,
    },
    /// A file does not hold what was written to it, and acknowledged commands may be among what is lost.
    #[error(
        "{file} is damaged at byte {offset}: {found}. The store will not open with less than it \
         acknowledged, and nothing in the folder was changed: put the whole folder back from a copy",
        file = file.display()
    )]
    Damaged {
        /// The damaged file.
        file: PathBuf,
        /// Where in the file, in bytes from its start.
        offset: u64,
        /// What was found, and what should have been.
        found: String,
    },
    /// The file is whole, but it is the journal or snapshot of another kind of machine.
    #[error(
        "{file} is damaged or foreign at byte {offset}: it belongs to a store of \"{found}\", not of \
         \"{expected}\"; check the folder's name",
        file = file.display()
    )]
    Foreign {
        /// The foreign file.
        file: PathBuf,
        /// Where the name stands, in bytes from the file's start.
        offset: u64,
        /// The name found, see [`Machine::NAME`](crate::Machine::NAME).
        found: String,
        /// The name of the machine that was to be opened.
        expected: &'static str,
    },
    /// The file is whole, but laid out in a way this program does not know.
    #[error(
        "{file} has file format {found} (byte {offset}); this program knows only format {known}: \
         open it with the program version that wrote it",
        file = file.display()
    )]
    UnknownFormat {
        /// The file.
        file: PathBuf,
        /// Where the format's number stands, in bytes from the file's start.
        offset: u64,
        /// The format's number found.
        found: u16,
        /// The only one known.
        known: u16,
    },
    /// The file is whole, but its commands or its state are encoded in a way this program does not know.
    #[error(
        "{file}, byte {offset}: sequence {sequence} is in encoding {found}; this program reads {known}: open it with the \
         program version that wrote it",
        file = file.display(),
        known = encodings(*known)
    )]
    UnknownVersion {
        /// The file.
        file: PathBuf,
        /// Where the version stands, in bytes from the file's start.
        offset: u64,
        /// The first command concerned, or the last one a snapshot covers.
        sequence: u64,
        /// The version found, see [`Machine::VERSION`](crate::Machine::VERSION).
        found: u16,
        /// The oldest one read, and the one written.
        known: (u16, u16),
    },
    /// A journalled command, applied again, changed nothing: the machine that wrote it was another one.
    #[error(
        "{file}, byte {offset}: command {sequence} changed the state when it was journalled and changes \
         nothing now; this program decides differently from the one that wrote it: open it with that one",
        file = file.display()
    )]
    Diverged {
        /// The journal segment.
        file: PathBuf,
        /// Where the command stands, in bytes from the file's start.
        offset: u64,
        /// The command.
        sequence: u64,
    },
    /// An option is out of its bounds.
    #[error("option {option}: {why}")]
    Option {
        /// The option's name.
        option: &'static str,
        /// Its bounds, and what was given.
        why: String,
    },
}

fn encodings((oldest, latest): (u16, u16)) -> String {
    if oldest == latest { format!("only encoding {latest}") } else { format!("encodings {oldest} to {latest}") }
}

/// Why a command or a read got no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// The store has stopped for good. A command that gets this may or may not be found after the next
    /// start; one that was answered before is certainly found.
    #[error("the store has stopped: {why}; start the process again once the cause is mended")]
    Stopped {
        /// What made it stop.
        why: Arc<str>,
    },
    /// The store was closed before the command was applied: it had no effect.
    #[error("the store is closed")]
    Closed,
    /// The snapshot asked for could not be taken; the journal goes on without it.
    #[error("a snapshot could not be taken: {why}")]
    Snapshot {
        /// What the disk refused.
        why: Arc<str>,
    },
    /// The command cannot be encoded; it had no effect.
    #[error("the command cannot be encoded: {why}")]
    Encode {
        /// What the encoder said.
        why: String,
    },
    /// The encoded command is too large; it had no effect.
    #[error("the command takes {bytes} bytes; a command may take at most {limit}")]
    TooLarge {
        /// Its size encoded, in bytes.
        bytes: usize,
        /// The largest size allowed, a quarter of [`Options::segment_bytes`](crate::Options::segment_bytes).
        limit: usize,
    },
}

/// Damage found in a file whose name the caller knows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Damage {
    pub(crate) offset: u64,
    pub(crate) found: String,
}

impl Damage {
    pub(crate) fn new(offset: u64, found: impl Into<String>) -> Self {
        Damage { offset, found: found.into() }
    }

    pub(crate) fn within(self, file: &std::path::Path) -> OpenError {
        OpenError::Damaged { file: file.to_owned(), offset: self.offset, found: self.found }
    }
}

/// Names the file and the deed in an error of the operating system.
pub(crate) fn io_error(path: &std::path::Path, what: &'static str) -> impl FnOnce(std::io::Error) -> OpenError {
    let path = path.to_owned();
    move |source| OpenError::Io { path, what, source }
}
