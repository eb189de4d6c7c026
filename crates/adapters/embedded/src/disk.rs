//! The few things a store asks of a disk, behind a trait so that tests can make each of them fail.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

use parking_lot::Mutex;

/// Everything that changes what is on the disk. Reading goes to `std::fs` directly: what a bad read
/// returns is caught by the checksums, whoever did the reading.
pub trait Disk: Send + Sync + 'static {
    /// Creates a file (or empties an existing one) and opens it for writing.
    fn create(&self, path: &Path) -> io::Result<Box<dyn DiskFile>>;
    /// Creates a file of `bytes` zeros that have really been written and flushed, so that a later
    /// flush of data written over them has no file size and no extents to record.
    fn create_zeroed(&self, path: &Path, bytes: u64) -> io::Result<Box<dyn DiskFile>>;
    /// Opens an existing file for writing.
    fn open(&self, path: &Path) -> io::Result<Box<dyn DiskFile>>;
    /// Gives a file its final name, replacing none that matters.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Removes a file.
    fn remove(&self, path: &Path) -> io::Result<()>;
    /// Makes the names in a folder durable.
    fn sync_folder(&self, folder: &Path) -> io::Result<()>;
}

/// A file open for writing at any place.
pub trait DiskFile: Send + Sync {
    /// Writes some of `bytes` at `offset` and says how many, as `pwrite` does.
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<usize>;
    /// Makes what was written durable, as `fdatasync` does.
    fn sync_data(&self) -> io::Result<()>;
}

/// Writes all of `bytes`, going on after short writes.
pub(crate) fn write_all_at(file: &dyn DiskFile, mut bytes: &[u8], mut offset: u64) -> io::Result<()> {
    while !bytes.is_empty() {
        match file.write_at(bytes, offset) {
            Ok(0) => {
                return Err(io::Error::new(io::ErrorKind::WriteZero, "the disk took no bytes"));
            }
            Ok(written) => {
                bytes = &bytes[written..];
                offset += written as u64;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// The operating system's files.
#[derive(Debug, Clone, Copy, Default)]
pub struct RealDisk;

/// Zeros are written and flushed in pieces of this size, so that a commit that has to be flushed
/// meanwhile never stands behind a whole segment of them.
const ZEROS: usize = 1 << 20;

impl Disk for RealDisk {
    fn create(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        Ok(Box::new(File::create(path)?))
    }

    fn create_zeroed(&self, path: &Path, bytes: u64) -> io::Result<Box<dyn DiskFile>> {
        let file = SectorFile::new(path, File::create(path)?);
        let zeros = vec![0; ZEROS.min(usize::try_from(bytes).unwrap_or(ZEROS))];
        let mut offset = 0;
        while offset < bytes {
            let piece = (bytes - offset).min(zeros.len() as u64);
            write_all_at(&file, &zeros[..piece as usize], offset)?;
            file.sync_data()?;
            offset += piece;
        }
        file.plain.sync_all()?;
        Ok(Box::new(file))
    }

    fn open(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        Ok(Box::new(SectorFile::new(path, OpenOptions::new().write(true).open(path)?)))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    fn sync_folder(&self, folder: &Path) -> io::Result<()> {
        File::open(folder)?.sync_all()
    }
}

/// What a direct write's place, length and memory are multiples of. Bytes.
const ALIGNMENT: usize = 512;

/// A file written in whole sectors, past the page cache where the file system allows it: what is flushed at once and not read until the
/// next start gains nothing from a copy, and a flush then has nothing to search for. It costs half the processor time.
struct SectorFile {
    direct: Option<File>,
    plain: File,
    /// A copy of what is being written, in memory that a direct write takes.
    aligned: Mutex<Vec<u8>>,
}

impl SectorFile {
    fn new(path: &Path, plain: File) -> Self {
        Self { direct: open_direct(path), plain, aligned: Mutex::default() }
    }
}

#[cfg(target_os = "linux")]
fn open_direct(path: &Path) -> Option<File> {
    use std::os::unix::fs::OpenOptionsExt;
    let flags = i32::try_from(rustix::fs::OFlags::DIRECT.bits()).ok()?;
    OpenOptions::new().write(true).custom_flags(flags).open(path).ok()
}

#[cfg(not(target_os = "linux"))]
fn open_direct(_: &Path) -> Option<File> {
    None
}

impl DiskFile for SectorFile {
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<usize> {
        let whole_sectors = bytes.len().is_multiple_of(ALIGNMENT) && offset.is_multiple_of(ALIGNMENT as u64);
        let Some(direct) = self.direct.as_ref().filter(|_| whole_sectors) else {
            return FileExt::write_at(&self.plain, bytes, offset);
        };
        let mut copy = self.aligned.lock();
        if copy.len() < bytes.len() + ALIGNMENT {
            copy.resize(bytes.len() + ALIGNMENT, 0);
        }
        let start = copy.as_ptr().align_offset(ALIGNMENT);
        let Some(aligned) = copy.get_mut(start..start.saturating_add(bytes.len())) else {
            return FileExt::write_at(&self.plain, bytes, offset);
        };
        aligned.copy_from_slice(bytes);
        match FileExt::write_at(direct, aligned, offset) {
            // Its sectors are larger, or the file system does not mean it. Nothing was written.
            Err(error) if error.kind() == io::ErrorKind::InvalidInput => FileExt::write_at(&self.plain, bytes, offset),
            done => done,
        }
    }

    fn sync_data(&self) -> io::Result<()> {
        self.plain.sync_data()
    }
}

impl DiskFile for File {
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<usize> {
        FileExt::write_at(self, bytes, offset)
    }

    fn sync_data(&self) -> io::Result<()> {
        File::sync_data(self)
    }
}
