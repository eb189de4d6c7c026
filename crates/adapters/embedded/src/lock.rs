//! One store per folder: advisory locks the operating system gives back when the process ends,
//! however it ends. One is on the folder itself, which stays locked if somebody removes what is in it; one on a file,
//! as earlier builds have it, which says who holds it.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{ErrorKind, Read, Seek, Write};
use std::path::Path;

use crate::error::{OpenError, io_error};

/// The lock file's name. It stays in the folder; only the lock on it counts, not its presence.
pub(crate) const FILE: &str = "LOCK";

/// Held as long as it lives.
#[derive(Debug)]
pub(crate) struct FolderLock {
    _folder: File,
    _file: File,
}

impl FolderLock {
    pub(crate) fn take(folder: &Path) -> Result<FolderLock, OpenError> {
        let path = folder.join(FILE);
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path)
            .map_err(io_error(&path, "open the lock file"))?;
        let own = File::open(folder).map_err(io_error(folder, "open the folder"))?;
        match file.try_lock().and_then(|()| own.try_lock()) {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let mut pid = String::new();
                _ = file.read_to_string(&mut pid);
                return Err(OpenError::InUse { folder: folder.to_owned(), holder: holder(&pid) });
            }
            Err(TryLockError::Error(source)) => {
                return Err(io_error(&path, "lock the lock file")(source));
            }
        }
        file.set_len(0)
            .and_then(|()| file.rewind())
            .and_then(|()| writeln!(file, "{}", std::process::id()))
            .map_err(io_error(&path, "write the process id to the lock file"))?;
        Ok(FolderLock { _folder: own, _file: file })
    }
}

/// Keeps the folder from being opened while it is looked at, without a trace in it. Whoever else looks may do so.
pub(crate) fn glance(folder: &Path) -> Result<Vec<File>, OpenError> {
    let path = folder.join(FILE);
    let mut held = vec![File::open(folder).map_err(io_error(folder, "open the folder"))?];
    match File::open(&path) {
        Ok(file) => held.push(file),
        Err(error) if error.kind() == ErrorKind::NotFound => {}
        Err(error) => return Err(io_error(&path, "open the lock file")(error)),
    }
    for file in &held {
        match file.try_lock_shared() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let pid = std::fs::read_to_string(&path).unwrap_or_default();
                return Err(OpenError::InUse { folder: folder.to_owned(), holder: holder(&pid) });
            }
            Err(TryLockError::Error(source)) => return Err(io_error(&path, "lock the folder")(source)),
        }
    }
    Ok(held)
}

/// Who holds the lock, by what stands in its file. It is a courtesy: what cannot be read is no reason for another error.
fn holder(text: &str) -> String {
    match text.trim().parse::<u32>() {
        Ok(pid) => format!("process {pid}"),
        Err(_) => "another process".to_owned(),
    }
}
