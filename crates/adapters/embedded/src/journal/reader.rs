//! Reads a segment and tells a torn tail from damage.

use std::path::{Path, PathBuf};

use super::format::{self, PAYLOAD, RECORD_HEADER, SECTOR, Sector, SectorHeader};
use crate::error::{Damage, OpenError, io_error};

/// A whole batch.
#[derive(Debug)]
pub(crate) struct Batch {
    /// Where its first sector stands.
    pub(crate) offset: u64,
    /// The sequence of its first command.
    pub(crate) sequence: u64,
    /// The version its commands are encoded in.
    pub(crate) version: u16,
    /// Its records, each a length and a body.
    pub(crate) payload: Vec<u8>,
}

/// One command's bytes within a batch.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Record<'a> {
    /// Where its length stands in the file.
    pub(crate) offset: u64,
    pub(crate) sequence: u64,
    pub(crate) body: &'a [u8],
}

impl Batch {
    /// The batch's records in order. Checked when the batch was read, so none is missing here.
    pub(crate) fn records(&self) -> impl Iterator<Item = Record<'_>> {
        let mut at = 0;
        let mut sequence = self.sequence;
        std::iter::from_fn(move || {
            let body = record_body(&self.payload, at)?;
            let record = Record { offset: format::payload_offset(self.offset, at), sequence, body };
            at += RECORD_HEADER + body.len();
            sequence += 1;
            Some(record)
        })
    }

    /// How many bytes of the segment it takes.
    pub(crate) fn bytes(&self) -> u64 {
        format::batch_bytes(self.payload.len()) as u64
    }

    /// Counts the records, if they fill the payload exactly.
    fn count(&self) -> Result<u64, Damage> {
        let (mut at, mut count) = (0, 0);
        while at < self.payload.len() {
            let Some(body) = record_body(&self.payload, at) else {
                let offset = format::payload_offset(self.offset, at);
                return Err(Damage::new(offset, "a command's length that leads out of its batch"));
            };
            at += RECORD_HEADER + body.len();
            count += 1;
        }
        Ok(count)
    }
}

fn record_body(payload: &[u8], at: usize) -> Option<&[u8]> {
    let body_at = at.checked_add(RECORD_HEADER)?;
    let header = payload.get(at..body_at)?;
    payload.get(body_at..body_at.checked_add(format::u32_at(header, 0) as usize)?)
}

/// Where a segment's batches end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct End {
    /// The first byte after the last whole batch: where the next one goes.
    pub(crate) offset: u64,
    /// The sequence the next batch begins with.
    pub(crate) next: u64,
    /// From `offset` on, how far an unfinished batch left bytes behind; 0 if the rest is blank.
    pub(crate) torn: u64,
}

/// What stands next in a segment.
#[derive(Debug)]
pub(crate) enum Step {
    /// A whole batch.
    Batch(Batch),
    /// Nothing more.
    End(End),
}

/// A segment in memory, walked batch by batch.
#[derive(Debug)]
pub(crate) struct Segment {
    pub(crate) file: PathBuf,
    bytes: Vec<u8>,
    position: usize,
    next: u64,
    /// Only the newest segment can end in a batch that was being written.
    newest: bool,
}

impl Segment {
    /// Reads a segment and checks its header.
    pub(crate) fn read(file: &Path, name: &'static str, first: u64, newest: bool) -> Result<Segment, OpenError> {
        let bytes = std::fs::read(file).map_err(io_error(file, "read the segment"))?;
        format::check_segment_header(file, &bytes, name, first)?;
        if !bytes.len().is_multiple_of(SECTOR) {
            let found = format!("the file's length is no multiple of {SECTOR}");
            return Err(Damage::new(bytes.len() as u64, found).within(file));
        }
        Ok(Segment { file: file.to_owned(), bytes, position: SECTOR, next: first, newest })
    }

    /// Reads the file again, because it may have been written to since; the place in it is kept.
    /// `false` if nothing has changed.
    pub(crate) fn reread(&mut self) -> Result<bool, OpenError> {
        let bytes = std::fs::read(&self.file).map_err(io_error(&self.file, "read the segment again"))?;
        let changed = bytes.len() == self.bytes.len() && bytes != self.bytes;
        if changed {
            self.bytes = bytes;
        }
        Ok(changed)
    }

    /// The file's length in bytes.
    pub(crate) fn length(&self) -> u64 {
        self.bytes.len() as u64
    }

    fn sector(&self, at: usize) -> Option<&[u8]> {
        self.bytes.get(at..at.checked_add(SECTOR)?)
    }

    fn judge(&self, at: usize) -> Result<Option<Sector>, Damage> {
        match self.sector(at).map(format::judge) {
            Some(Sector::Damaged { found }) => Err(Damage::new(at as u64, found)),
            judged => Ok(judged),
        }
    }

    /// The next whole batch, or the end.
    pub(crate) fn step(&mut self) -> Result<Step, Damage> {
        loop {
            let first = match self.judge(self.position)? {
                Some(Sector::Whole(header)) if header.sequence == self.next && header.index == 0 => header,
                Some(_) => return self.end().map(Step::End),
                None => {
                    return Ok(Step::End(End { offset: self.position as u64, next: self.next, torn: 0 }));
                }
            };
            if first.is_close_mark() {
                self.position += SECTOR;
                continue;
            }
            let Some(batch) = self.batch(first)? else {
                return self.end().map(Step::End);
            };
            self.next += batch.count()?;
            self.position += batch.payload.len().div_ceil(PAYLOAD) * SECTOR;
            return Ok(Step::Batch(batch));
        }
    }

    /// The batch that begins here with `first`, or none if one of its sectors never got through.
    fn batch(&self, first: SectorHeader) -> Result<Option<Batch>, Damage> {
        let sectors = (self.bytes.len() - self.position) / SECTOR;
        if first.count as usize > sectors {
            let found = format!("a batch of {} sectors where {sectors} are left", first.count);
            return Err(Damage::new(self.position as u64, found));
        }
        let mut payload = Vec::with_capacity(first.count as usize * PAYLOAD);
        for index in 0..first.count {
            let at = self.position + index as usize * SECTOR;
            match self.judge(at)? {
                Some(Sector::Whole(header)) if header == (SectorHeader { index, used: header.used, ..first }) => {
                    payload.extend_from_slice(format::payload(&self.bytes[at..at + SECTOR], &header));
                }
                _ => return Ok(None),
            }
        }
        Ok(Some(Batch { offset: self.position as u64, sequence: first.sequence, version: first.version, payload }))
    }

    /// No whole batch begins here: makes sure that what follows is blank, or one unfinished batch.
    fn end(&self) -> Result<End, Damage> {
        let mut unfinished: Option<SectorHeader> = None;
        let mut torn = 0;
        let rest = (self.bytes.len() - self.position) / SECTOR;
        for index in 0..rest {
            let at = self.position + index * SECTOR;
            match self.judge(at)? {
                None | Some(Sector::Blank) => continue,
                Some(_) if !self.newest => {
                    let found = format!(
                        "the batch that begins with sequence {} is not whole although a later segment follows",
                        self.next
                    );
                    return Err(Damage::new(self.position as u64, found));
                }
                Some(Sector::Whole(header)) => {
                    let known = unfinished.unwrap_or(header);
                    let fits = header.sequence == self.next
                        && header.index as usize == index
                        && header.count == known.count
                        && header.version == known.version;
                    if !fits {
                        let found = format!(
                            "no whole batch begins with sequence {} here, although what byte {at} holds (of the \
                             batch from sequence {}) was written after it",
                            self.next, header.sequence
                        );
                        return Err(Damage::new(self.position as u64, found));
                    }
                    unfinished = Some(header);
                }
                // Whether nothing but a write cut short or a byte flipped in blank space: nothing that
                // was acknowledged can stand in a sector whose end is blank.
                Some(Sector::Unfinished | Sector::Damaged { .. }) => {}
            }
            torn = ((index + 1) * SECTOR) as u64;
        }
        Ok(End { offset: self.position as u64, next: self.next, torn })
    }
}
