//! Any byte may flip: the store then refuses to open, or opens with all it acknowledged.

use std::path::Path;

use embedded::{Durability, OpenError, Options, Store, journal};

use crate::support::{Command, Files, Map, TestDisk, files, put, put_files, run, run_batch, small};

/// A store with a snapshot and two segments after it, as it stands on the disk while it is open and
/// after it was closed, and its state.
fn store_files(folder: &Path) -> (Files, Files, Map) {
    let disk = TestDisk::default();
    let options = Options { disk: std::sync::Arc::new(disk.clone()), ..small() };
    let (store, _) = Store::<Map>::open(folder, options).unwrap();
    for key in 0..10 {
        run(&store, put(key, 100)).unwrap();
    }
    assert_eq!(store.snapshot(), Ok(10));
    // 700 bytes take two sectors each, so this goes on into a second segment after the snapshot.
    for key in 10..13 {
        run(&store, put(key, 700)).unwrap();
    }
    let flushes = store.flush_count();
    run_batch(&disk, &store, vec![put(13, 30), put(14, 300), Command::Remove { key: 3 }, put(15, 600)]);
    assert!(store.flush_count() <= flushes + 2, "some commands must share a batch");
    let state = store.read(Map::clone).unwrap();
    let killed = files(folder);
    store.close().unwrap();
    let segments = killed.keys().filter(|name| name.starts_with("journal-")).count();
    assert!(segments >= 2, "two segments are wanted, there are: {:?}", killed.keys());
    assert!(killed.keys().any(|name| name.starts_with("snapshot-")));
    (killed, files(folder), state)
}

/// Opens the files as they are, without waiting for a disk that is not the point here.
fn open(folder: &Path) -> Result<Map, OpenError> {
    let options = Options { durability: Durability::Memory, ..small() };
    let (store, _) = Store::<Map>::open(folder, options)?;
    Ok(store.read(Map::clone).unwrap())
}

fn cat(folder: &Path) -> Result<usize, OpenError> {
    journal::cat::<Map>(folder)?.try_fold(0, |count, entry| entry.map(|_| count + 1))
}

fn flip_every_byte(original: &Files, state: &Map) {
    // Tens of thousands of files are written here, and what a disk would do with them is not the point.
    let folder = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap();
    put_files(folder.path(), original);
    let entries = cat(folder.path()).unwrap();
    assert!(entries > 4);
    let (mut refused, mut harmless) = (0, 0);
    for (name, bytes) in original {
        let path = folder.path().join(name);
        let mut flipped = bytes.clone();
        for at in 0..bytes.len() {
            for pattern in [0x01, 0xFF, bytes[at]].into_iter().filter(|pattern| *pattern != 0) {
                flipped[at] = bytes[at] ^ pattern;
                std::fs::write(&path, &flipped).unwrap();
                let place = format!("{name}, byte {at}, pattern {pattern:#04x}");
                let listed = cat(folder.path());
                match open(folder.path()) {
                    Err(error) => {
                        refused += 1;
                        let OpenError::Damaged { file, offset, .. } = &error else {
                            panic!("{place}: {error}");
                        };
                        assert!(file.ends_with(name) && *offset <= bytes.len() as u64, "{place}: {error}");
                        assert!(error.to_string().contains(name.as_str()), "{place}: {error}");
                        if name.starts_with("journal-") {
                            assert!(listed.is_err(), "{place}: cat must report it too");
                        }
                        assert!(std::fs::read(&path).unwrap() == flipped, "{place}: a refusal changes nothing");
                    }
                    Ok(opened) => {
                        harmless += 1;
                        assert!(opened == *state, "{place}: opened with another state");
                        assert_eq!(listed.unwrap(), entries, "{place}");
                        put_files(folder.path(), original);
                    }
                }
                flipped[at] = bytes[at];
            }
        }
        std::fs::write(&path, bytes).unwrap();
    }
    assert!(refused > harmless / 4 && harmless > 0, "{refused} refused, {harmless} harmless");
}

#[test]
fn a_flipped_byte_of_a_killed_store_is_refused_or_harmless() {
    let folder = tempfile::tempdir().unwrap();
    let (killed, _, state) = store_files(folder.path());
    flip_every_byte(&killed, &state);
}

#[test]
fn a_flipped_byte_of_a_closed_store_is_refused_or_harmless() {
    let folder = tempfile::tempdir().unwrap();
    let (_, closed, state) = store_files(folder.path());
    flip_every_byte(&closed, &state);
}

#[test]
fn a_file_cut_short_or_missing_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let (_, closed, _) = store_files(folder.path());
    let copy = tempfile::tempdir().unwrap();
    for (name, bytes) in closed.iter().filter(|(name, _)| *name != "LOCK") {
        for length in (0..bytes.len()).step_by(97).chain([bytes.len() - 1]) {
            put_files(copy.path(), &closed);
            std::fs::write(copy.path().join(name), &bytes[..length]).unwrap();
            let error = open(copy.path()).unwrap_err();
            assert!(matches!(error, OpenError::Damaged { .. }), "{name} cut at {length}: {error}");
        }
        // A newest segment that is gone cannot be told from one never begun; any other file can.
        if Some(name) != closed.keys().rfind(|name| name.starts_with("journal-")) {
            put_files(copy.path(), &closed);
            std::fs::remove_file(copy.path().join(name)).unwrap();
            let error = open(copy.path()).unwrap_err();
            assert!(matches!(error, OpenError::Damaged { .. }), "{name} missing: {error}");
        }
    }
}

#[test]
fn a_closed_store_whose_last_sectors_are_blank_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let (_, closed, state) = store_files(folder.path());
    let (name, bytes) = closed.iter().rfind(|(name, _)| name.starts_with("journal-")).unwrap();
    let end = bytes.chunks(512).rposition(|sector| sector.iter().any(|byte| *byte != 0)).unwrap();
    // The close mark is the last sector; without it nothing is lost, without others behind it much is.
    for sector in 1..=end {
        let mut blanked = bytes.clone();
        blanked[sector * 512..(sector + 1) * 512].fill(0);
        std::fs::write(folder.path().join(name), &blanked).unwrap();
        if sector == end {
            assert_eq!(open(folder.path()).unwrap(), state);
        } else {
            let error = open(folder.path()).unwrap_err();
            assert!(matches!(error, OpenError::Damaged { .. }), "sector {sector}: {error}");
        }
    }
}
