//! Sectors, batches and segment headers as bytes. What they mean is told in [`crate::journal`].

use crate::error::{Damage, OpenError};
use std::path::Path;

/// The unit a disk writes as a whole or not at all; also the unit of every offset in a segment.
pub(crate) const SECTOR: usize = 512;
/// Stands at the end of every sector. Four bytes, none of them zero: one flipped byte cannot make a
/// sector look as if its end had never been written.
const MARK: [u8; 4] = *b"SETL";
const MARK_AT: usize = SECTOR - MARK.len();
/// Where a sector says in which version its batch is encoded.
pub(crate) const VERSION_AT: usize = 20;
const PAYLOAD_AT: usize = 24;
/// Bytes of a batch's records in each of its sectors but the last, which may hold fewer.
pub(crate) const PAYLOAD: usize = MARK_AT - PAYLOAD_AT;
/// Stands before each record's body: its length, a `u32`.
pub(crate) const RECORD_HEADER: usize = 4;

const MAGIC: [u8; 8] = *b"SETTLEJ\n";
/// The only segment layout this program knows.
const FORMAT: u16 = 1;
const FORMAT_AT: usize = 12;
const NAME_AT: usize = 33;
/// The longest [`Machine::NAME`](crate::Machine::NAME), in bytes.
pub(crate) const NAME_LIMIT: usize = 64;

pub(crate) fn u16_at(bytes: &[u8], at: usize) -> u16 {
    let mut field = [0; 2];
    field.copy_from_slice(&bytes[at..at + 2]);
    u16::from_le_bytes(field)
}

pub(crate) fn u32_at(bytes: &[u8], at: usize) -> u32 {
    let mut field = [0; 4];
    field.copy_from_slice(&bytes[at..at + 4]);
    u32::from_le_bytes(field)
}

pub(crate) fn u64_at(bytes: &[u8], at: usize) -> u64 {
    let mut field = [0; 8];
    field.copy_from_slice(&bytes[at..at + 8]);
    u64::from_le_bytes(field)
}

/// What each sector says of itself, apart from its payload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SectorHeader {
    /// The sequence of the first command in the sector's batch.
    pub(crate) sequence: u64,
    /// Which of the batch's sectors this is, from 0.
    pub(crate) index: u32,
    /// How many sectors the batch has.
    pub(crate) count: u32,
    /// In which version the batch's commands are encoded.
    pub(crate) version: u16,
    /// How many bytes of payload the sector holds.
    pub(crate) used: u16,
}

impl SectorHeader {
    /// A batch of one sector and no commands: the store was closed here, with all before it flushed.
    pub(crate) fn is_close_mark(&self) -> bool {
        self.count == 1 && self.used == 0
    }
}

/// How a sector is found.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Sector {
    /// Zeros throughout, as it was before anything was written to it.
    Blank,
    /// Its checksum holds.
    Whole(SectorHeader),
    /// Its checksum fails and its end is still blank: a write was begun here and did not get through.
    Unfinished,
    /// Its checksum fails although it was written to its end.
    Damaged {
        /// What was found, and what should have been.
        found: String,
    },
}

/// Judges one sector by nothing but itself.
pub(crate) fn judge(sector: &[u8]) -> Sector {
    if sector.iter().all(|byte| *byte == 0) {
        return Sector::Blank;
    }
    let stored = u32_at(sector, 0);
    let computed = crc32c::crc32c(&sector[4..MARK_AT]);
    if stored != computed {
        return if sector[MARK_AT..] == [0; MARK.len()] {
            Sector::Unfinished
        } else {
            Sector::Damaged {
                found: format!("a sector whose checksum is {stored:08x} although its content gives {computed:08x}"),
            }
        };
    }
    let header = SectorHeader {
        sequence: u64_at(sector, 4),
        index: u32_at(sector, 12),
        count: u32_at(sector, 16),
        version: u16_at(sector, VERSION_AT),
        used: u16_at(sector, 22),
    };
    let last = header.index.checked_add(1) == Some(header.count);
    let used = usize::from(header.used);
    let sound = header.sequence > 0
        && header.index < header.count
        && if last { used <= PAYLOAD && (used > 0 || header.count == 1) } else { used == PAYLOAD };
    if sound {
        Sector::Whole(header)
    } else {
        Sector::Damaged { found: format!("a sector that contradicts itself: {header:?}") }
    }
}

/// The payload of a sector judged whole.
pub(crate) fn payload<'a>(sector: &'a [u8], header: &SectorHeader) -> &'a [u8] {
    &sector[PAYLOAD_AT..PAYLOAD_AT + usize::from(header.used)]
}

/// Where in the segment a byte of a batch's payload stands.
pub(crate) fn payload_offset(batch_offset: u64, at: usize) -> u64 {
    batch_offset + (at / PAYLOAD * SECTOR + PAYLOAD_AT + at % PAYLOAD) as u64
}

/// How many bytes in a segment a batch with so much payload takes.
pub(crate) fn batch_bytes(payload: usize) -> usize {
    payload.div_ceil(PAYLOAD).max(1) * SECTOR
}

/// Lays a batch out in sectors. An empty payload makes a close mark.
pub(crate) fn lay_out(payload: &[u8], sequence: u64, version: u16, image: &mut Vec<u8>) {
    let bytes = batch_bytes(payload.len());
    let count = u32::try_from(bytes / SECTOR).expect("a batch is smaller than a segment, so has few sectors");
    image.clear();
    image.resize(bytes, 0);
    let mut pieces = payload.chunks(PAYLOAD);
    for (index, sector) in (0..count).zip(image.chunks_exact_mut(SECTOR)) {
        let piece = pieces.next().unwrap_or_default();
        let used = u16::try_from(piece.len()).expect("a payload piece is shorter than a sector");
        sector[4..12].copy_from_slice(&sequence.to_le_bytes());
        sector[12..16].copy_from_slice(&index.to_le_bytes());
        sector[16..20].copy_from_slice(&count.to_le_bytes());
        sector[VERSION_AT..22].copy_from_slice(&version.to_le_bytes());
        sector[22..24].copy_from_slice(&used.to_le_bytes());
        sector[PAYLOAD_AT..PAYLOAD_AT + piece.len()].copy_from_slice(piece);
        sector[MARK_AT..].copy_from_slice(&MARK);
        let checksum = crc32c::crc32c(&sector[4..MARK_AT]);
        sector[..4].copy_from_slice(&checksum.to_le_bytes());
    }
}

/// A segment's first sector.
pub(crate) fn segment_header(name: &str, first: u64, bytes: u64) -> [u8; SECTOR] {
    let mut sector = [0; SECTOR];
    sector[4..12].copy_from_slice(&MAGIC);
    sector[FORMAT_AT..14].copy_from_slice(&FORMAT.to_le_bytes());
    sector[16..24].copy_from_slice(&first.to_le_bytes());
    sector[24..32].copy_from_slice(&bytes.to_le_bytes());
    write_name(&mut sector[NAME_AT - 1..], name);
    let checksum = crc32c::crc32c(&sector[4..]);
    sector[..4].copy_from_slice(&checksum.to_le_bytes());
    sector
}

/// A segment's first sector, if it is one and its checksum holds.
fn sound_header<'a>(file: &Path, bytes: &'a [u8]) -> Result<&'a [u8], OpenError> {
    let damaged = |offset, found: &str| Err(Damage::new(offset, found).within(file));
    let Some(sector) = bytes.get(..SECTOR) else {
        return damaged(bytes.len() as u64, "the file ends within its header");
    };
    if sector[4..12] != MAGIC {
        return damaged(4, "this is not the header of a journal segment");
    }
    // The checksum stands here in every format there will ever be, so that damage is told from novelty.
    if u32_at(sector, 0) != crc32c::crc32c(&sector[4..]) {
        return damaged(0, "the segment's header does not match its checksum");
    }
    Ok(sector)
}

/// The name of the machine that a segment belongs to.
pub(crate) fn segment_machine(file: &Path, bytes: &[u8]) -> Result<String, OpenError> {
    let sector = sound_header(file, bytes)?;
    check_format(file, sector, FORMAT_AT, FORMAT)?;
    Ok(read_name(sector, NAME_AT - 1))
}

/// Checks a segment's first sector against the file's name and length.
pub(crate) fn check_segment_header(file: &Path, bytes: &[u8], name: &'static str, first: u64) -> Result<(), OpenError> {
    let damaged = |offset, found: String| Err(Damage::new(offset, found).within(file));
    let sector = sound_header(file, bytes)?;
    check_identity(file, sector, FORMAT_AT, FORMAT, NAME_AT - 1, name)?;
    if u64_at(sector, 16) != first {
        let found = format!("the header says sequence {}, the file's name says {first}", u64_at(sector, 16));
        return damaged(16, found);
    }
    if u64_at(sector, 24) != bytes.len() as u64 {
        let found = format!("the header says {} bytes, the file has {}", u64_at(sector, 24), bytes.len());
        return damaged(24, found);
    }
    Ok(())
}

/// Writes a machine's name with its length before it.
pub(crate) fn write_name(field: &mut [u8], name: &str) {
    field[0] = u8::try_from(name.len()).expect("the name's length is checked when the program is compiled");
    field[1..=name.len()].copy_from_slice(name.as_bytes());
}

/// Reads what [`write_name`] wrote.
fn read_name(header: &[u8], name_at: usize) -> String {
    let length = usize::from(header[name_at]).min(NAME_LIMIT);
    String::from_utf8_lossy(&header[name_at + 1..name_at + 1 + length]).into_owned()
}

fn check_format(file: &Path, header: &[u8], format_at: usize, known: u16) -> Result<(), OpenError> {
    let found = u16_at(header, format_at);
    if found == known {
        return Ok(());
    }
    Err(OpenError::UnknownFormat { file: file.to_owned(), offset: format_at as u64, found, known })
}

/// Checks the format's number and the machine's name in a header whose checksum holds.
pub(crate) fn check_identity(
    file: &Path,
    header: &[u8],
    format_at: usize,
    known: u16,
    name_at: usize,
    expected: &'static str,
) -> Result<(), OpenError> {
    check_format(file, header, format_at, known)?;
    let found = read_name(header, name_at);
    if found != expected {
        return Err(OpenError::Foreign { file: file.to_owned(), offset: name_at as u64, found, expected });
    }
    Ok(())
}
