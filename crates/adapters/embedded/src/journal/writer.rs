//! Appends batches to the newest segment and goes on to the next one.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread::{self, JoinHandle};

use super::format::{self, SECTOR};
use super::segment_file;
use crate::Durability;
use crate::disk::{Disk, DiskFile, write_all_at};

/// The next segment, while nobody may take it for one: zeros under a name recovery removes.
pub(crate) const SPARE_FILE: &str = "spare.tmp";

/// Where and how segments are written.
pub(crate) struct Place {
    pub(crate) folder: PathBuf,
    pub(crate) disk: Arc<dyn Disk>,
    pub(crate) durability: Durability,
    /// The machine's name, for the headers.
    pub(crate) name: &'static str,
    /// The version commands are encoded in.
    pub(crate) version: u16,
    pub(crate) segment_bytes: u64,
}

impl Place {
    fn create_spare(&self) -> io::Result<Box<dyn DiskFile>> {
        self.disk.create_zeroed(&self.folder.join(SPARE_FILE), self.segment_bytes)
    }

    fn sync(&self, file: &dyn DiskFile) -> io::Result<()> {
        match self.durability {
            Durability::Fsync => file.sync_data(),
            Durability::Memory => Ok(()),
        }
    }

    /// Turns a spare into the segment that begins with `first`. Its header is durable before the file
    /// gets its name, so a file with a segment's name always has a whole header.
    fn begin_segment(&self, spare: &dyn DiskFile, first: u64) -> io::Result<()> {
        write_all_at(spare, &format::segment_header(self.name, first, self.segment_bytes), 0)?;
        self.sync(spare)?;
        self.disk.rename(&self.folder.join(SPARE_FILE), &self.folder.join(segment_file(first)))?;
        match self.durability {
            Durability::Fsync => self.disk.sync_folder(&self.folder),
            Durability::Memory => Ok(()),
        }
    }
}

/// The journal's end, where batches are appended. There is one writer per store.
pub(crate) struct Writer {
    place: Arc<Place>,
    file: Box<dyn DiskFile>,
    /// Where the next batch goes.
    position: u64,
    /// The present segment's size: it may have been created under another `segment_bytes`.
    segment_bytes: u64,
    /// A batch laid out in sectors; kept to be used again.
    image: Vec<u8>,
    /// The next segment, being prepared by a thread of its own.
    spare: Option<JoinHandle<io::Result<Box<dyn DiskFile>>>>,
}

impl Writer {
    /// Begins a new segment, at the start of a journal or after a full segment.
    pub(crate) fn begin(place: Arc<Place>, first: u64) -> io::Result<Writer> {
        let file = place.create_spare()?;
        place.begin_segment(&*file, first)?;
        let segment_bytes = place.segment_bytes;
        Ok(Writer { place, file, position: SECTOR as u64, segment_bytes, image: Vec::new(), spare: None })
    }

    /// Goes on in a segment that recovery has read to its end.
    pub(crate) fn resume(place: Arc<Place>, file: Box<dyn DiskFile>, position: u64, segment_bytes: u64) -> Writer {
        Writer { place, file, position, segment_bytes, image: Vec::new(), spare: None }
    }

    /// Writes one batch and makes it durable; says how many bytes of the segment it took. After an
    /// error nothing more may be appended: what is on the disk is then unknown.
    pub(crate) fn append(&mut self, payload: &[u8], sequence: u64) -> io::Result<u64> {
        let bytes = self.write(payload, sequence)?;
        if self.spare.is_none() && self.position > self.segment_bytes / 2 {
            let place = self.place.clone();
            let thread = thread::Builder::new().name("journal-spare".to_owned());
            // If the thread cannot be had now, the segment is prepared when it is needed.
            self.spare = thread.spawn(move || place.create_spare()).ok();
        }
        Ok(bytes)
    }

    /// Marks that the store was closed with everything before the mark durable.
    pub(crate) fn close(mut self, next: u64) -> io::Result<()> {
        self.write(&[], next)?;
        if self.join_spare().is_some() {
            // Left behind, it would only take space: the next start removes it unread.
            self.place.disk.remove(&self.place.folder.join(SPARE_FILE))?;
        }
        Ok(())
    }

    fn write(&mut self, payload: &[u8], sequence: u64) -> io::Result<u64> {
        format::lay_out(payload, sequence, self.place.version, &mut self.image);
        let bytes = self.image.len() as u64;
        if self.position + bytes > self.segment_bytes {
            self.roll(sequence)?;
        }
        write_all_at(&*self.file, &self.image, self.position)?;
        self.place.sync(&*self.file)?;
        self.position += bytes;
        Ok(bytes)
    }

    fn roll(&mut self, first: u64) -> io::Result<()> {
        let file = match self.join_spare() {
            Some(file) => file,
            // Whatever kept the thread from it, the disk gets one more chance before the store stops.
            None => self.place.create_spare()?,
        };
        self.place.begin_segment(&*file, first)?;
        self.file = file;
        self.position = SECTOR as u64;
        self.segment_bytes = self.place.segment_bytes;
        Ok(())
    }

    fn join_spare(&mut self) -> Option<Box<dyn DiskFile>> {
        self.spare.take()?.join().ok()?.ok()
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        // The folder's lock is given back after this: no thread may still write in the folder then.
        self.join_spare();
    }
}
