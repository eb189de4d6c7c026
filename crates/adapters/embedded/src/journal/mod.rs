//! The journal.
//!
//! DOCS

pub(crate) mod format;
pub(crate) mod reader;
pub(crate) mod writer;

use std::collections::VecDeque;
use std::io;
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
            let number = |prefix: &str, suffix: &str| {
                file.strip_prefix(prefix)?
                    .strip_suffix(suffix)?
                    .parse::<u64>()
                    .ok()
            };
            if let Some(first) =
                number("journal-", ".seg").filter(|first| segment_file(*first) == file)
            {
                listing.segments.push(first);
            } else if let Some(covered) =
                number("snapshot-", ".snap").filter(|it| snapshot_file(*it) == file)
            {
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
        let reached = self
            .segments
            .partition_point(|first| *first <= covered.saturating_add(1));
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
        formatter
            .debug_struct("Entries")
            .field("folder", &self.folder)
            .finish_non_exhaustive()
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
                Segment::read(&file, M::NAME, first, self.segments.is_empty())?
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
pub(crate) fn check_succession(
    folder: &Path,
    first: u64,
    expected: Option<u64>,
) -> Result<(), OpenError> {
    match expected {
        Some(expected) if expected != first => {
            let found = format!(
                "the segment begins with sequence {first}, the one before it ends before {expected}"
            );
            Err(crate::error::Damage::new(SECTOR as u64, found)
                .within(&folder.join(segment_file(first))))
        }
        _ => Ok(()),
    }
}

/// Decodes a record's command; all of its bytes must belong to it.
pub(crate) fn decode<M: Machine>(
    file: &Path,
    batch: &Batch,
    record: Record<'_>,
) -> Result<M::Command, OpenError> {
    if batch.version != M::VERSION {
        return Err(OpenError::UnknownVersion {
            file: file.to_owned(),
            offset: batch.offset + format::VERSION_AT as u64,
            sequence: record.sequence,
            found: batch.version,
            known: M::VERSION,
        });
    }
    let found = match postcard::take_from_bytes::<M::Command>(record.body) {
        Ok((command, [])) => return Ok(command),
        Ok((_, rest)) => format!(
            "command {} is followed by {} bytes too many",
            record.sequence,
            rest.len()
        ),
        Err(error) => format!("command {} cannot be decoded: {error}", record.sequence),
    };
    Err(crate::error::Damage::new(record.offset + RECORD_HEADER as u64, found).within(file))
}
