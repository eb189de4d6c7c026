//! The machine goes down in the midst of a batch: what was flushed is there, the rest is cut off.

use std::sync::Arc;

use embedded::{Durability, Machine, Options, Store};
use proptest::prelude::*;

use crate::support::{Command, Files, Map, TestDisk, files, put, put_files, run, run_batch, small};

const SECTOR: usize = 512;

/// Where two pictures of the newest segment differ; the earlier one may lack the file.
fn newest<'a>(before: &'a Files, after: &'a Files) -> (&'a String, Vec<u8>, &'a Vec<u8>) {
    let (name, new) = after.iter().rfind(|(name, _)| name.starts_with("journal-")).unwrap();
    let old = before.get(name).cloned().unwrap_or_else(|| {
        // A segment begun for this batch has its header before the batch is written.
        let mut blank = vec![0; new.len()];
        blank[..SECTOR].copy_from_slice(&new[..SECTOR]);
        blank
    });
    (name, old, new)
}

fn memory() -> Options {
    Options { durability: Durability::Memory, ..small() }
}

#[test]
fn a_last_batch_cut_anywhere_is_cut_off_and_all_before_it_kept() {
    let folder = tempfile::tempdir().unwrap();
    let (store, _) = Store::<Map>::open(folder.path(), memory()).unwrap();
    run(&store, put(1, 10)).unwrap();
    run(&store, put(2, 10)).unwrap();
    let kept = store.read(Map::clone).unwrap();
    let before = files(folder.path());
    run(&store, put(3, 950)).unwrap();
    let all = store.read(Map::clone).unwrap();
    let after = files(folder.path());
    let (name, old, new) = newest(&before, &after);
    let from = (0..new.len()).find(|at| old[*at] != new[*at]).unwrap();
    let to = (0..new.len()).rfind(|at| old[*at] != new[*at]).unwrap() + 1;
    assert!(to - from > SECTOR, "the batch must have several sectors");
    let copy = tempfile::tempdir().unwrap();
    let mut cut_off = 0;
    for length in from..=to {
        let mut torn = old.clone();
        torn[..length].copy_from_slice(&new[..length]);
        put_files(copy.path(), &after);
        std::fs::write(copy.path().join(name), &torn).unwrap();
        let (store, opened) = Store::<Map>::open(copy.path(), memory()).unwrap_or_else(|error| {
            panic!("cut at {length}: {error}");
        });
        let state = store.read(Map::clone).unwrap();
        if state == all {
            // Only the last sector's end, which carries nothing of the batch, may be missing.
            assert!(length > to - 64, "cut at {length}");
        } else {
            assert_eq!(state, kept, "cut at {length}");
            cut_off += 1;
            assert_eq!(opened.torn_bytes > 0, length > from, "cut at {length}");
        }
        // Nothing of the torn batch may get in the way of the next one, nor come back.
        run(&store, put(4, 10)).unwrap();
        // Killed, not closed: a close mark would write over the next sector.
        let killed = files(copy.path());
        store.close().unwrap();
        put_files(copy.path(), &killed);
        let (store, opened) = Store::<Map>::open(copy.path(), memory()).unwrap();
        assert_eq!(opened.torn_bytes, 0);
        let mut expected = state;
        expected.apply(&put(4, 10));
        assert_eq!(store.read(Map::clone).unwrap(), expected);
    }
    assert!(cut_off > SECTOR);
}

fn command() -> impl Strategy<Value = Command> {
    prop_oneof![
        4 => (0..20u32, prop_oneof![0..40usize, 0..1000usize]).prop_map(|(key, bytes)| put(key, bytes)),
        1 => (0..20u32).prop_map(|key| Command::Remove { key }),
        1 => (0..20u32).prop_map(|key| Command::Put { key, value: vec![0; 900] }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]
    #[test]
    fn whatever_of_the_last_batch_reached_the_disk(
        batches in prop::collection::vec(prop::collection::vec(command(), 1..6), 1..12),
        snapshots in any::<u16>(),
        last in prop::collection::vec(command(), 1..3),
        reached in any::<u64>(),
        all_reached in prop::bool::weighted(0.1),
    ) {
        let folder = tempfile::tempdir().unwrap();
        let disk = TestDisk::default();
        let options = Options { disk: Arc::new(disk.clone()), ..memory() };
        let (store, _) = Store::<Map>::open(folder.path(), options).unwrap();
        let mut model = Map::new();
        for (index, batch) in batches.into_iter().enumerate() {
            batch.iter().for_each(|command| { model.apply(command); });
            run_batch(&disk, &store, batch);
            if snapshots >> index & 1 == 1 {
                store.snapshot().unwrap();
            }
        }
        prop_assert_eq!(&store.read(Map::clone).unwrap(), &model);
        let mut reached = if all_reached { u64::MAX } else { reached };
        let before = files(folder.path());
        // One command, so that there is one batch in doubt, as there ever is only one.
        let Some(last) = last.into_iter().find(|it| model.clone().apply(it).changed) else { return Ok(()) };
        run(&store, last.clone()).unwrap();
        let after = files(folder.path());
        let (name, mut torn, new) = newest(&before, &after);
        let mut missed = false;
        for (old, new) in torn.chunks_mut(SECTOR).zip(new.chunks(SECTOR)) {
            if old != new {
                if reached & 1 == 1 { old.copy_from_slice(new) } else { missed = true }
                reached >>= 1;
            }
        }
        let copy = tempfile::tempdir().unwrap();
        put_files(copy.path(), &after);
        std::fs::write(copy.path().join(name), &torn).unwrap();
        if !missed {
            model.apply(&last);
        }
        for round in 0..2u32 {
            let (store, opened) = Store::<Map>::open(copy.path(), memory()).unwrap();
            prop_assert_eq!(&store.read(Map::clone).unwrap(), &model);
            prop_assert!(round == 0 || opened.torn_bytes == 0);
            let next = put(100 + round, 700);
            model.apply(&next);
            run(&store, next).unwrap();
        }
    }
}
