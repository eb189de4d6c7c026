//! One store per folder: advisory locks the operating system gives back when the process ends,
//! however it ends. One is on the folder itself, which stays locked if somebody removes what is in it; one on a file,
//! as earlier builds have it, which says who holds it.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read, Seek, Write};
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
                // Who holds it is a courtesy: an unreadable answer is no reason for another error.
                let holder = match file.read_to_string(&mut pid) {
                    Ok(_) if pid.trim().parse::<u32>().is_ok() => format!("process {}", pid.trim()),
                    _ => "another process".to_owned(),
                };
                return Err(OpenError::InUse { folder: folder.to_owned(), holder });
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
