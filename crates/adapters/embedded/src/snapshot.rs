//! Snapshots: the machine's whole state up to one command, in one file.
//!
//! ```text
//! header  crc32c u32 | magic 8 | format u16 | version u16 | sequence u64 | name length u8, name 64
//! block   length u32 | crc32c u32 over (number u64, length u32, content) | content, 1 to 65536 bytes
//! ...
//! footer  length u32 = 0 | crc32c u32 over (number u64, length u32, content) | content: blocks u64, bytes u64
//! ```
//!
//! The file is written as `.tmp`, flushed, renamed, and its folder flushed; so a file with a snapshot's
//! name is whole, and anything else found in it is damage. There is nothing to fall back on: the
//! journal it covers is dropped once it is durable.

use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use crate::Machine;
use crate::disk::{Disk, DiskFile, write_all_at};
use crate::error::{Damage, OpenError, io_error};
use crate::journal::format::{NAME_LIMIT, check_identity, u16_at, u32_at, u64_at, write_name};

const MAGIC: [u8; 8] = *b"SETTLES\n";
const FORMAT: u16 = 1;
const FORMAT_AT: usize = 12;
const VERSION_AT: usize = 14;
const SEQUENCE_AT: usize = 16;
const NAME_AT: usize = 24;
const HEADER: usize = NAME_AT + 1 + NAME_LIMIT;
const BLOCK_HEADER: usize = 8;
const BLOCK: usize = 1 << 16;
const FOOTER: usize = 16;
/// A large snapshot is flushed piece by piece, so that a commit never stands behind all of it.
const FLUSH_BYTES: u64 = 1 << 20;

/// A snapshot's file name.
pub(crate) fn snapshot_file(sequence: u64) -> String {
    format!("snapshot-{sequence:020}.snap")
}

/// Where it lies while it is written.
pub(crate) fn unfinished_path(folder: &Path, sequence: u64) -> PathBuf {
    folder.join(format!("snapshot-{sequence:020}.tmp"))
}

/// Writes a snapshot under its unfinished name and makes it durable.
pub(crate) fn write<M: Machine>(
    disk: &dyn Disk,
    unfinished: &Path,
    sequence: u64,
    frozen: &M::Frozen,
) -> io::Result<()> {
    let file = disk.create(unfinished)?;
    let mut header = [0; HEADER];
    header[4..12].copy_from_slice(&MAGIC);
    header[FORMAT_AT..FORMAT_AT + 2].copy_from_slice(&FORMAT.to_le_bytes());
    header[VERSION_AT..VERSION_AT + 2].copy_from_slice(&M::VERSION.to_le_bytes());
    header[SEQUENCE_AT..SEQUENCE_AT + 8].copy_from_slice(&sequence.to_le_bytes());
    write_name(&mut header[NAME_AT..], M::NAME);
    let checksum = crc32c::crc32c(&header[4..]);
    header[..4].copy_from_slice(&checksum.to_le_bytes());
    write_all_at(&*file, &header, 0)?;
    let mut blocks = Blocks { file: &*file, offset: HEADER as u64, flushed: 0, number: 0, bytes: 0, block: Vec::new() };
    M::write_snapshot(frozen, &mut blocks)?;
    blocks.finish()?;
    file.sync_data()
}

/// Gives a durable snapshot its name.
pub(crate) fn install(disk: &dyn Disk, folder: &Path, unfinished: &Path, sequence: u64) -> io::Result<()> {
    disk.rename(unfinished, &folder.join(snapshot_file(sequence)))?;
    disk.sync_folder(folder)
}

fn block_checksum(number: u64, content: &[u8], length: u32) -> u32 {
    let checksum = crc32c::crc32c(&number.to_le_bytes());
    let checksum = crc32c::crc32c_append(checksum, &length.to_le_bytes());
    crc32c::crc32c_append(checksum, content)
}

/// Cuts what a machine writes into blocks.
struct Blocks<'a> {
    file: &'a dyn DiskFile,
    offset: u64,
    flushed: u64,
    number: u64,
    bytes: u64,
    block: Vec<u8>,
}

impl Blocks<'_> {
    fn put(&mut self, content: &[u8], length: u32) -> io::Result<()> {
        let mut header = [0; BLOCK_HEADER];
        header[..4].copy_from_slice(&length.to_le_bytes());
        header[4..].copy_from_slice(&block_checksum(self.number, content, length).to_le_bytes());
        write_all_at(self.file, &header, self.offset)?;
        write_all_at(self.file, content, self.offset + BLOCK_HEADER as u64)?;
        self.offset += (BLOCK_HEADER + content.len()) as u64;
        if self.offset - self.flushed >= FLUSH_BYTES {
            self.file.sync_data()?;
            self.flushed = self.offset;
        }
        Ok(())
    }

    fn put_block(&mut self) -> io::Result<()> {
        if self.block.is_empty() {
            return Ok(());
        }
        let block = std::mem::take(&mut self.block);
        let length = u32::try_from(block.len()).expect("a block is at most 64 KiB");
        self.put(&block, length)?;
        self.number += 1;
        self.bytes += block.len() as u64;
        self.block = block;
        self.block.clear();
        Ok(())
    }

    fn finish(mut self) -> io::Result<()> {
        self.put_block()?;
        let mut totals = [0; FOOTER];
        totals[..8].copy_from_slice(&self.number.to_le_bytes());
        totals[8..].copy_from_slice(&self.bytes.to_le_bytes());
        self.put(&totals, 0)
    }
}

impl Write for Blocks<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let taken = bytes.len().min(BLOCK - self.block.len());
        self.block.extend_from_slice(&bytes[..taken]);
        if self.block.len() == BLOCK {
            self.put_block()?;
        }
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Reads the snapshot that covers everything up to `sequence`.
pub(crate) fn read<M: Machine>(path: &Path, sequence: u64) -> Result<M, OpenError> {
    let file = std::fs::File::open(path).map_err(io_error(path, "open the snapshot"))?;
    let mut input = io::BufReader::with_capacity(BLOCK, file);
    let mut header = [0; HEADER];
    let got = read_up_to(&mut input, &mut header).map_err(io_error(path, "read the snapshot"))?;
    let damaged = |offset: usize, found: String| Err(Damage::new(offset as u64, found).within(path));
    if got < HEADER {
        return damaged(got, "the file ends within its header".to_owned());
    }
    if header[4..12] != MAGIC {
        return damaged(4, "this is not the header of a snapshot".to_owned());
    }
    if u32_at(&header, 0) != crc32c::crc32c(&header[4..]) {
        return damaged(0, "the snapshot's header does not match its checksum".to_owned());
    }
    check_identity(path, &header, FORMAT_AT, FORMAT, NAME_AT, M::NAME)?;
    let written = u64_at(&header, SEQUENCE_AT);
    if written != sequence {
        let found = format!("the header says sequence {written}, the file's name says {sequence}");
        return damaged(SEQUENCE_AT, found);
    }
    let found = u16_at(&header, VERSION_AT);
    if !(M::OLDEST_READ..=M::VERSION).contains(&found) {
        return Err(OpenError::UnknownVersion {
            file: path.to_owned(),
            offset: VERSION_AT as u64,
            sequence,
            found,
            known: (M::OLDEST_READ, M::VERSION),
        });
    }
    let mut blocks = BlockReader {
        input,
        offset: HEADER as u64,
        number: 0,
        bytes: 0,
        block: Vec::new(),
        taken: 0,
        finished: false,
        fault: None,
    };
    let machine = M::read_snapshot(&mut blocks, found);
    // A machine may have swallowed an error of the reader, so the reader is asked, not the machine.
    let leftover = if blocks.fault.is_none() { blocks.drain() } else { 0 };
    match (blocks.fault, machine) {
        (Some(Fault::Damage(damage)), _) => Err(damage.within(path)),
        (Some(Fault::Io(source)), _) => Err(io_error(path, "read the snapshot")(source)),
        (None, Err(error)) => damaged(HEADER, format!("a state that cannot be decoded: {error}")),
        (None, Ok(_)) if leftover > 0 => damaged(HEADER, format!("{leftover} bytes more than the state takes")),
        (None, Ok(machine)) => Ok(machine),
    }
}

fn read_up_to(input: &mut impl Read, buffer: &mut [u8]) -> io::Result<usize> {
    let mut got = 0;
    while got < buffer.len() {
        match input.read(&mut buffer[got..]) {
            Ok(0) => break,
            Ok(more) => got += more,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(got)
}

enum Fault {
    Damage(Damage),
    Io(io::Error),
}

/// Gives out the content of blocks whose checksum holds, and nothing else.
struct BlockReader<R> {
    input: R,
    offset: u64,
    number: u64,
    bytes: u64,
    block: Vec<u8>,
    taken: usize,
    finished: bool,
    fault: Option<Fault>,
}

impl<R: Read> BlockReader<R> {
    /// Reads what the machine did not take, so that the footer is always seen; says how many bytes.
    fn drain(&mut self) -> u64 {
        let mut leftover = (self.block.len() - self.taken) as u64;
        while !self.finished && self.fault.is_none() {
            if let Err(fault) = self.next_block() {
                self.fault = Some(fault);
            } else {
                leftover += self.block.len() as u64;
            }
        }
        leftover
    }

    fn next_block(&mut self) -> Result<(), Fault> {
        self.block.clear();
        self.taken = 0;
        let mut header = [0; BLOCK_HEADER];
        self.fill(&mut header, self.offset)?;
        let length = u32_at(&header, 0);
        let footer = length == 0;
        let size = if footer { FOOTER } else { length as usize };
        if size > BLOCK {
            return Err(self.damage(format!("a block of {size} bytes; the largest there is has {BLOCK}")));
        }
        let mut block = std::mem::take(&mut self.block);
        block.resize(size, 0);
        self.fill(&mut block, self.offset + BLOCK_HEADER as u64)?;
        let computed = block_checksum(self.number, &block, length);
        if computed != u32_at(&header, 4) {
            let number = self.number;
            return Err(self.damage(format!("block {number} does not match its checksum")));
        }
        if footer {
            if (u64_at(&block, 0), u64_at(&block, 8)) != (self.number, self.bytes) {
                return Err(self.damage("a footer that counts other blocks than there are".to_owned()));
            }
            self.offset += (BLOCK_HEADER + FOOTER) as u64;
            let more = read_up_to(&mut self.input, &mut [0]).map_err(Fault::Io)?;
            if more > 0 {
                return Err(self.damage("bytes after the footer".to_owned()));
            }
            self.finished = true;
            return Ok(());
        }
        self.offset += (BLOCK_HEADER + size) as u64;
        self.number += 1;
        self.bytes += size as u64;
        self.block = block;
        Ok(())
    }

    fn fill(&mut self, buffer: &mut [u8], offset: u64) -> Result<(), Fault> {
        let got = read_up_to(&mut self.input, buffer).map_err(Fault::Io)?;
        if got < buffer.len() {
            let found = "the file ends before its footer";
            return Err(Fault::Damage(Damage::new(offset + got as u64, found)));
        }
        Ok(())
    }

    fn damage(&self, found: String) -> Fault {
        Fault::Damage(Damage::new(self.offset, found))
    }
}

impl<R: Read> Read for BlockReader<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.fault.is_some() {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "the snapshot is damaged"));
        }
        if self.taken == self.block.len()
            && !self.finished
            && let Err(fault) = self.next_block()
        {
            self.fault = Some(fault);
            return Err(io::Error::new(io::ErrorKind::InvalidData, "the snapshot is damaged"));
        }
        let given = buffer.len().min(self.block.len() - self.taken);
        buffer[..given].copy_from_slice(&self.block[self.taken..self.taken + given]);
        self.taken += given;
        Ok(given)
    }
}
