//! Opening: the newest snapshot, and the journal after it.
//!
//! Everything is read and judged before anything is changed: a store that is refused is left as it was.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::disk::{DiskFile, write_all_at};
use crate::error::{Damage, OpenError, io_error};
use crate::journal::format::{self, SECTOR};
use crate::journal::reader::{Batch, End, Segment, Step};
use crate::journal::writer::{Place, Writer};
use crate::journal::{self, Listing, segment_file};
use crate::lock::glance;
use crate::snapshot::{self, snapshot_file};
use crate::{Durability, Machine, Options};

/// What opening a store found and did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Opened {
    /// What the snapshot it began with covers, if there was one.
    pub snapshot: Option<u64>,
    /// Commands applied again from the journal.
    pub replayed: u64,
    /// The bytes of journal they took.
    pub replayed_bytes: u64,
    /// The sequence of the last command found; 0 in a new store.
    pub sequence: u64,
    /// Bytes cut off behind it: a batch that was being written when the machine went down, and so was
    /// never acknowledged. 0 if there was none.
    pub torn_bytes: u64,
    /// How long it took.
    pub took: Duration,
}

pub(crate) struct Recovered<M> {
    pub(crate) machine: M,
    pub(crate) writer: Writer,
    pub(crate) opened: Opened,
}

/// Where the journal goes on.
struct Tail {
    file: PathBuf,
    bytes: u64,
    end: End,
    /// The newest segment's last batch.
    last: Option<Batch>,
}

/// What a folder holds, read and judged whole.
struct Whole<M> {
    listing: Listing,
    machine: M,
    opened: Opened,
    tail: Option<Tail>,
}

/// Reads the store in a folder as [`Store::open`](crate::Store::open) would, and changes nothing: what would be found, or why it would not open.
///
/// # Errors
/// [`OpenError`]: the folder is in use, foreign or damaged, or the operating system refuses something.
pub fn examine<M: Machine>(folder: &Path) -> Result<Opened, OpenError> {
    let began = Instant::now();
    let _nobody_writes = glance(folder)?;
    let Whole { mut opened, tail, .. } = read::<M>(folder)?;
    opened.torn_bytes = tail.map_or(0, |tail| tail.end.torn);
    opened.took = began.elapsed();
    Ok(opened)
}

fn read<M: Machine>(folder: &Path) -> Result<Whole<M>, OpenError> {
    let listing = Listing::read(folder).map_err(io_error(folder, "list the folder"))?;
    let mut opened = Opened {
        snapshot: listing.snapshots.last().copied(),
        replayed: 0,
        replayed_bytes: 0,
        sequence: 0,
        torn_bytes: 0,
        took: Duration::ZERO,
    };
    let mut machine = match opened.snapshot {
        Some(covered) => snapshot::read::<M>(&folder.join(snapshot_file(covered)), covered)?,
        None => M::new(),
    };
    opened.sequence = opened.snapshot.unwrap_or(0);
    let tail = replay(folder, &listing, &mut machine, &mut opened)?;
    Ok(Whole { listing, machine, opened, tail })
}

pub(crate) fn recover<M: Machine>(folder: &Path, options: &Options) -> Result<Recovered<M>, OpenError> {
    let began = Instant::now();
    let Whole { listing, machine, mut opened, tail } = read::<M>(folder)?;

    // Nothing is damaged: from here on the folder may be changed.
    let disk = &*options.disk;
    for unfinished in &listing.unfinished {
        disk.remove(unfinished).map_err(io_error(unfinished, "remove the unfinished file"))?;
    }
    journal::drop_covered(disk, folder, opened.sequence.min(opened.snapshot.unwrap_or(0)))
        .map_err(io_error(folder, "remove what the snapshot makes needless"))?;
    let place = Arc::new(Place {
        folder: folder.to_owned(),
        disk: options.disk.clone(),
        durability: options.durability,
        name: M::NAME,
        version: M::VERSION,
        segment_bytes: options.segment_bytes,
    });
    let writer = match tail {
        Some(tail) => {
            opened.torn_bytes = tail.end.torn;
            let file = disk.open(&tail.file).map_err(io_error(&tail.file, "open the segment"))?;
            if options.durability == Durability::Fsync {
                vouch(&*file, &tail).map_err(io_error(&tail.file, "make the journal's end durable"))?;
                disk.sync_folder(folder).map_err(io_error(folder, "flush the folder"))?;
            }
            clear(&*file, &tail).map_err(io_error(&tail.file, "clear the journal's torn end"))?;
            Writer::resume(place, file, tail.end.offset, tail.bytes)
        }
        None => Writer::begin(place, 1).map_err(io_error(folder, "create the first journal segment"))?,
    };
    opened.took = began.elapsed();
    Ok(Recovered { machine, writer, opened })
}

/// Applies what the journal holds beyond the snapshot.
fn replay<M: Machine>(
    folder: &Path,
    listing: &Listing,
    machine: &mut M,
    opened: &mut Opened,
) -> Result<Option<Tail>, OpenError> {
    let covered = opened.sequence;
    let needed = &listing.segments[listing.covered_segments(covered).len()..];
    let missing = |found: String| Err(Damage::new(0, found).within(&folder.join(segment_file(covered + 1))));
    match needed.first() {
        None if covered == 0 => return Ok(None),
        None => {
            return missing("there is a snapshot but no journal after it; a segment is missing".to_owned());
        }
        Some(first) if *first > covered + 1 => {
            return missing(format!("the journal begins only with sequence {first}; a segment is missing"));
        }
        Some(_) => {}
    }
    let mut tail: Option<Tail> = None;
    for (index, first) in needed.iter().enumerate() {
        journal::check_succession(folder, *first, tail.map(|tail| tail.end.next))?;
        let file = folder.join(segment_file(*first));
        let mut segment = Segment::read(&file, M::NAME, *first, index + 1 == needed.len())?;
        let mut last = None;
        let end = loop {
            match segment.step().map_err(|damage| damage.within(&file))? {
                Step::Batch(batch) => {
                    apply(machine, &file, &batch, covered, opened)?;
                    last = Some(batch);
                }
                Step::End(end) => break end,
            }
        };
        tail = Some(Tail { file, bytes: segment.length(), end, last });
    }
    if let Some(tail) = tail.as_ref().filter(|tail| tail.end.next <= covered) {
        let found = format!(
            "the journal ends before sequence {} although a snapshot was taken when it was durable up to {covered}",
            tail.end.next
        );
        return Err(Damage::new(tail.end.offset, found).within(&tail.file));
    }
    Ok(tail)
}

fn apply<M: Machine>(
    machine: &mut M,
    file: &Path,
    batch: &Batch,
    covered: u64,
    opened: &mut Opened,
) -> Result<(), OpenError> {
    let mut replayed = false;
    for record in batch.records().filter(|record| record.sequence > covered) {
        let command = journal::decode::<M>(file, batch, record)?;
        if !machine.apply(&command).changed {
            let (file, offset, sequence) = (file.to_owned(), record.offset, record.sequence);
            return Err(OpenError::Diverged { file, offset, sequence });
        }
        opened.replayed += 1;
        opened.sequence = record.sequence;
        replayed = true;
    }
    if replayed {
        opened.replayed_bytes += batch.bytes();
    }
    Ok(())
}

/// The last batch may have been read from the operating system's memory only: the process may have
/// been killed before its flush, or the flush may have failed, after which the system can take the
/// pages for written. Before anyone relies on it, it is written once more, byte for byte, and flushed.
fn vouch(file: &dyn DiskFile, tail: &Tail) -> std::io::Result<()> {
    if let Some(batch) = &tail.last {
        let mut image = Vec::new();
        format::lay_out(&batch.payload, batch.sequence, batch.version, &mut image);
        write_all_at(file, &image, batch.offset)?;
    }
    file.sync_data()
}

/// Behind the journal's end there must be zeros before a batch is written there: remains of another
/// would be taken for parts of it.
fn clear(file: &dyn DiskFile, tail: &Tail) -> std::io::Result<()> {
    let zeros = vec![0; 128 * SECTOR];
    let mut cleared = 0;
    while cleared < tail.end.torn {
        let piece = (tail.end.torn - cleared).min(zeros.len() as u64);
        write_all_at(file, &zeros[..piece as usize], tail.end.offset + cleared)?;
        cleared += piece;
    }
    if cleared > 0 { file.sync_data() } else { Ok(()) }
}
