//! Whose a database folder is, written into it: two ledgers look alike, and a copy that was put back in the wrong place would sell on the wrong one.

use std::fs::File;
use std::io::{ErrorKind, Read, Write};
use std::path::Path;

/// The file's name.
const FILE: &str = "SERVICE";
/// A longer label is none of ours.
const MOST_BYTES: u64 = 64;

/// Checks that `folder` is that of `service`, and labels it if nobody has.
///
/// # Errors
/// What is wrong, and what to do.
pub(crate) fn check(folder: &Path, service: &str) -> Result<(), String> {
    if is_of(folder, service)? {
        return Ok(());
    }
    let path = folder.join(FILE);
    let failed = |error: std::io::Error| format!("{}: {error}", path.display());
    let mut file = File::create(&path).map_err(failed)?;
    writeln!(file, "{service}").and_then(|()| file.sync_all()).map_err(failed)
}

/// Whether `folder` is that of `service`; not, if nobody has labelled it.
///
/// # Errors
/// What is wrong, and what to do.
pub(crate) fn is_of(folder: &Path, service: &str) -> Result<bool, String> {
    let path = folder.join(FILE);
    let failed = |error: std::io::Error| format!("{}: {error}", path.display());
    let mut label = String::new();
    match File::open(&path) {
        Ok(file) => _ = file.take(MOST_BYTES).read_to_string(&mut label).map_err(failed)?,
        Err(error) if error.kind() == ErrorKind::NotFound => {}
        Err(error) => return Err(failed(error)),
    }
    match label.trim() {
        whose if whose == service => Ok(true),
        // An earlier build wrote none, and a power cut may have left an empty one.
        "" => Ok(false),
        whose => Err(format!(
            "{} is the database of {whose}, as the file {FILE} in it says: put each folder back into its own place",
            folder.display()
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_stays_its_services() {
        let folder = tempfile::tempdir().unwrap();
        check(folder.path(), "stock").unwrap();
        check(folder.path(), "stock").unwrap();
        let refused = check(folder.path(), "payment").unwrap_err();
        assert!(refused.contains("is the database of stock"), "{refused}");
        std::fs::write(folder.path().join(FILE), "").unwrap();
        check(folder.path(), "payment").unwrap();
        assert!(check(folder.path(), "stock").is_err());
        std::fs::write(folder.path().join(FILE), [0xff; 100]).unwrap();
        assert!(check(folder.path(), "stock").is_err(), "whatever that is, it is not ours");
    }
}
