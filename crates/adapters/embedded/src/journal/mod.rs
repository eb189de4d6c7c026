//! The journal: every command that changed the state, in order, in files that can be judged.
//!
//! # Files
//!
//! | file | what it is |
//! |---|---|
//! | `journal-<first>.seg` | a segment: commands from sequence `first` on, up to where the next segment begins |
//! | `snapshot-<covered>.snap` | the whole state after command `covered`; makes earlier segments needless |
//! | `spare.tmp`, `snapshot-<covered>.tmp` | unfinished, worth nothing, removed at the next start |
//! | `LOCK` | locked while a store has the folder open; holds its process id for people to read |
//!
//! # Format of a segment
//!
//! All numbers are little-endian. A segment is made of sectors of 512 bytes and has its full length from
//! the start, all zeros, flushed. The first sector is its header; the others hold batches. A batch is
//! what was made durable by one flush; it begins at a sector and takes whole ones.
//!
//! ```text
//! segment   | header | batch 1 .. 4 | batch 5 | batch 6 .. 9 |          zeros          |
//!             sector   3 sectors      1 sector  2 sectors
//!
//! header    crc32c u32 | magic 8 | format u16 | - u16 | first sequence u64 | segment bytes u64
//!           | name length u8 | machine's name 64 | zeros              (checksum over all that follows it)
//!
//! sector    crc32c u32 | sequence u64 | index u32 | count u32 | version u16 | used u16
//!           | payload 484 | mark 4                       (checksum over all between it and the mark)
//!
//! payload   record | record | ...      of all the batch's sectors, one after the other
//! record    body length u32 | body: the command in postcard
//! ```
//!
//! Every sector says of which batch it is (`sequence`, that of the batch's first command), which of how
//! many (`index`, `count`), in which version its commands are encoded, and how many bytes of payload it
//! holds: 484 in all sectors of a batch but the last. A record's own sequence follows from its place. A
//! batch of one sector without payload is a *close mark*: the store was closed in good order here.
//!
//! # A torn end, or damage?
//!
//! A batch that was being written when the power failed is incomplete, and that is no error: nobody was
//! told that it is durable. A batch that was acknowledged and is no longer whole is a disaster, and must
//! never be taken for the former. Three things tell them apart.
//!
//! **Only one batch is ever in doubt.** A batch is written only after the flush of the one before it has
//! returned. So whatever was written after a batch vouches for it: a later batch, a close mark, a later
//! segment, a snapshot that reaches beyond it. Zeros are never taken for the end before the rest of the
//! segment has been searched for anything later.
//!
//! **Every sector can be judged by itself.**
//!
//! | the sector is | if | because |
//! |---|---|---|
//! | blank | all its bytes are zero | that is what it was before a batch was written there |
//! | whole | its checksum holds | whatever the mark says: the mark carries nothing |
//! | unfinished | its checksum fails and its mark is all zeros | a write was begun and did not get to its end |
//! | damaged | its checksum fails and its mark is not all zeros | it was written to its end and has changed since |
//!
//! **One flipped byte cannot turn a whole sector into a blank or unfinished one**: the mark is four bytes,
//! none of them zero, outside the checksum. A flip in the mark leaves the checksum right, so the sector
//! is whole; a flip elsewhere leaves the mark, so the sector is damaged. In blank space a flip makes the
//! sector unfinished, or damaged if it hits the mark; neither can be an acknowledged batch.
//!
//! So, where no whole batch begins with the sequence that is due, the end is
//!
//! - **torn**, and cut off, if this is the newest segment and each sector from here to the segment's end
//!   is blank, or unfinished, or a whole sector that stands exactly where the batch that is due would
//!   have it;
//! - **damage**, and refused, in every other case: any damaged sector, any whole sector of another
//!   batch, anything but blank sectors in a segment that another one follows, a journal that ends
//!   before the newest snapshot or begins after it.
//!
//! A batch that is whole is kept even if nobody was told of it: its commands were applied, and whoever
//! sent them has got no answer to the contrary. It is written again and flushed before the store opens, because after
//! a failed flush the system may hold it in memory and no longer owe it to the disk.
//!
//! ## What is assumed of the disk
//!
//! - A write that fails half-way leaves each sector either as it was, or as it was to be, or with its
//!   beginning written and its end as it was; in any mixture over the sectors, in any order.
//! - Rewriting neighbouring sectors with the bytes they hold does not harm them.
//! - What a flush has acknowledged stays, until something damages it; damage that turns several bytes
//!   of an acknowledged *last* batch into zeros just so that its mark is gone looks torn. Nothing on this disk can
//!   tell these two apart until something later vouches for the batch; a close does so at once.
//! - A newest segment, removed by hand together with all it held, is not missed.
//!
//! ## Where it is strict
//!
//! Damage in a batch that the newest snapshot covers, or in blank space, is refused too when it looks
//! like damage, although nothing would be lost by going on: a disk that changes bytes is to be replaced
//! before it holds more of them. There is no option to open a damaged journal: the way back is a copy of
//! the folder. [`cat`] lists what can still be read before the damage.
//!
//! # Segments follow one another
//!
//! A segment is prepared as `spare.tmp` by a thread of its own when the present one is half full: zeros
//! are written and flushed. To begin it, its header is written and flushed, then it gets its
//! name, then the folder is flushed; only then is a batch written there. So a file with a segment's name
//! has a whole header or is damaged. Segments are never reused: what is blank was never anything else.

pub(crate) mod format;
pub(crate) mod reader;
pub(crate) mod writer;

use std::collections::VecDeque;
use std::io::{self, Read};
use std::marker::PhantomData;
use std::path::{Path, PathBuf};

use crate::Machine;
use crate::disk::Disk;
use crate::error::{OpenError, io_error};
use crate::snapshot::snapshot_file;
use format::{RECORD_HEADER, SECTOR};
use reader::{Batch, Record, Segment, Step};

/// A segment's file name: it says with which sequence the segment begins.
pub(crate) fn segment_file(first: u64) -> String {
    format!("journal-{first:020}.seg")
}

/// The files of a store, by their names.
#[derive(Debug, Default)]
pub(crate) struct Listing {
    /// The sequences the segments begin with, ascending.
    pub(crate) segments: Vec<u64>,
    /// The sequences the snapshots cover, ascending.
    pub(crate) snapshots: Vec<u64>,
    /// What somebody left unfinished.
    pub(crate) unfinished: Vec<PathBuf>,
}

impl Listing {
    pub(crate) fn read(folder: &Path) -> io::Result<Listing> {
        let mut listing = Listing::default();
        for entry in std::fs::read_dir(folder)? {
            let entry = entry?;
            let file = entry.file_name();
            let file = file.to_string_lossy();
            let number =
                |prefix: &str, suffix: &str| file.strip_prefix(prefix)?.strip_suffix(suffix)?.parse::<u64>().ok();
            if let Some(first) = number("journal-", ".seg").filter(|first| segment_file(*first) == file) {
                listing.segments.push(first);
            } else if let Some(covered) = number("snapshot-", ".snap").filter(|it| snapshot_file(*it) == file) {
                listing.snapshots.push(covered);
            } else if *file == *writer::SPARE_FILE || number("snapshot-", ".tmp").is_some() {
                listing.unfinished.push(entry.path());
            }
        }
        listing.segments.sort_unstable();
        listing.snapshots.sort_unstable();
        Ok(listing)
    }

    /// The segments a snapshot makes needless: those after which another begins that it reaches.
    pub(crate) fn covered_segments(&self, covered: u64) -> &[u64] {
        let reached = self.segments.partition_point(|first| *first <= covered.saturating_add(1));
        &self.segments[..reached.saturating_sub(1)]
    }
}

/// Removes the snapshots and segments that a durable snapshot makes needless.
pub(crate) fn drop_covered(disk: &dyn Disk, folder: &Path, covered: u64) -> io::Result<()> {
    let listing = Listing::read(folder)?;
    for older in listing.snapshots.iter().filter(|older| **older < covered) {
        disk.remove(&folder.join(snapshot_file(*older)))?;
    }
    for first in listing.covered_segments(covered) {
        disk.remove(&folder.join(segment_file(*first)))?;
    }
    Ok(())
}

/// A command as it stands in the journal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry<C> {
    /// The segment it stands in.
    pub file: PathBuf,
    /// Where its record begins, in bytes from the file's start.
    pub offset: u64,
    /// Its place in the order of all commands; the first has 1.
    pub sequence: u64,
    /// The version it is encoded in.
    pub version: u16,
    /// The command.
    pub command: C,
}

/// The [`Machine::NAME`] of the store that `folder` belongs to, as its oldest segment says; `None` if the folder has no
/// segment. It takes no lock, like [`cat`].
///
/// # Errors
/// [`OpenError`]: the folder or the segment cannot be read, its header is damaged, or its format unknown.
pub fn machine_name(folder: &Path) -> Result<Option<String>, OpenError> {
    for first in Listing::read(folder).map_err(io_error(folder, "list the folder"))?.segments {
        let file = folder.join(segment_file(first));
        let mut header = Vec::with_capacity(SECTOR);
        match std::fs::File::open(&file).and_then(|file| file.take(SECTOR as u64).read_to_end(&mut header)) {
            Ok(_) => return format::segment_machine(&file, &header).map(Some),
            // A snapshot may drop the oldest segments meanwhile.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(io_error(&file, "read the segment's header")(error)),
        }
    }
    Ok(None)
}

/// Lists the commands still in the journal of `folder`, oldest first. It takes no lock and changes
/// nothing, so it may be used while a store has the folder open; it then ends where it meets the end.
/// What a snapshot has made needless is gone from the journal.
///
/// # Errors
/// [`OpenError`]: the folder cannot be read. Damage is reported by the iterator, where it stands, just
/// as opening the store would report it; the iterator ends there.
pub fn cat<M: Machine>(folder: &Path) -> Result<Entries<M>, OpenError> {
    let listing = Listing::read(folder).map_err(io_error(folder, "list the folder"))?;
    Ok(Entries {
        folder: folder.to_owned(),
        segments: listing.segments.into(),
        expected: None,
        segment: None,
        read: VecDeque::new(),
        machine: PhantomData,
    })
}

/// The commands of a journal, see [`cat`].
pub struct Entries<M: Machine> {
    folder: PathBuf,
    segments: VecDeque<u64>,
    /// What the next segment must begin with.
    expected: Option<u64>,
    segment: Option<Segment>,
    read: VecDeque<Entry<M::Command>>,
    machine: PhantomData<fn() -> M>,
}

impl<M: Machine> std::fmt::Debug for Entries<M> {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Entries").field("folder", &self.folder).finish_non_exhaustive()
    }
}

impl<M: Machine> Entries<M> {
    /// Reads the next batch, or `false` at the journal's end.
    fn advance(&mut self) -> Result<bool, OpenError> {
        let mut segment = match self.segment.take() {
            Some(segment) => segment,
            None => {
                let Some(first) = self.segments.pop_front() else {
                    return Ok(false);
                };
                check_succession(&self.folder, first, self.expected)?;
                let file = self.folder.join(segment_file(first));
                match Segment::read(&file, M::NAME, first, self.segments.is_empty()) {
                    Ok(segment) => segment,
                    // It was there when the folder was listed: a snapshot has made it needless meanwhile.
                    Err(OpenError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
                        self.expected = None;
                        return Ok(true);
                    }
                    Err(error) => return Err(error),
                }
            }
        };
        loop {
            match segment.step() {
                Ok(Step::Batch(batch)) => {
                    for record in batch.records() {
                        self.read.push_back(Entry {
                            file: segment.file.clone(),
                            offset: record.offset,
                            sequence: record.sequence,
                            version: batch.version,
                            command: decode::<M>(&segment.file, &batch, record)?,
                        });
                    }
                    self.segment = Some(segment);
                    return Ok(true);
                }
                Ok(Step::End(end)) => {
                    self.expected = Some(end.next);
                    return Ok(true);
                }
                // A store may be writing: what looks like damage in a file read piece by piece may be
                // its next batches. Damage stays; a file that has changed is judged again.
                Err(damage) => {
                    if !segment.reread()? {
                        return Err(damage.within(&segment.file));
                    }
                }
            }
        }
    }
}

impl<M: Machine> Iterator for Entries<M> {
    type Item = Result<Entry<M::Command>, OpenError>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some(entry) = self.read.pop_front() {
                return Some(Ok(entry));
            }
            match self.advance() {
                Ok(true) => {}
                Ok(false) => return None,
                Err(error) => {
                    self.segment = None;
                    self.segments.clear();
                    return Some(Err(error));
                }
            }
        }
    }
}

/// Each segment begins where the one before it ends.
pub(crate) fn check_succession(folder: &Path, first: u64, expected: Option<u64>) -> Result<(), OpenError> {
    match expected {
        Some(expected) if expected != first => {
            let found = format!("the segment begins with sequence {first}, the one before it ends before {expected}");
            Err(crate::error::Damage::new(SECTOR as u64, found).within(&folder.join(segment_file(first))))
        }
        _ => Ok(()),
    }
}

/// Decodes a record's command; all of its bytes must belong to it.
pub(crate) fn decode<M: Machine>(file: &Path, batch: &Batch, record: Record<'_>) -> Result<M::Command, OpenError> {
    if !(M::OLDEST_READ..=M::VERSION).contains(&batch.version) {
        return Err(OpenError::UnknownVersion {
            file: file.to_owned(),
            offset: batch.offset + format::VERSION_AT as u64,
            sequence: record.sequence,
            found: batch.version,
            known: (M::OLDEST_READ, M::VERSION),
        });
    }
    let found = match postcard::take_from_bytes::<M::Command>(record.body) {
        Ok((command, [])) => return Ok(command),
        Ok((_, rest)) => format!("command {} is followed by {} bytes too many", record.sequence, rest.len()),
        Err(error) => format!("command {} cannot be decoded: {error}", record.sequence),
    };
    Err(crate::error::Damage::new(record.offset + RECORD_HEADER as u64, found).within(file))
}
