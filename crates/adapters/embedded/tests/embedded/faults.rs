//! The disk refuses: the store stops before it answers anything it does not have.

use std::sync::Arc;
use std::sync::mpsc;
use std::time::Duration;

use embedded::{Machine, Options, Store, StoreError};

use crate::support::{Command, Deed, Map, TestDisk, put, run, small};

const COMMANDS: u32 = 60;

/// Runs the same commands against a disk that fails at one deed, and checks what is left.
fn work(deed: Deed, after: u64, once: bool) -> (u32, bool) {
    let what = format!("{deed:?} fails after {after}, {}", if once { "once" } else { "for good" });
    let folder = tempfile::tempdir().unwrap();
    let disk = TestDisk::default();
    let options = Options { disk: Arc::new(disk.clone()), snapshot_bytes: 6000, ..small() };
    let (store, _) = Store::<Map>::open(folder.path(), options).unwrap();
    *disk.state.plan.lock() = Some((deed, after, once));
    let mut acknowledged = 0;
    let mut stopped = false;
    for key in 0..COMMANDS {
        match run(&store, put(key, 300)) {
            Ok(_) => {
                assert!(!stopped, "{what}: answered after it had stopped");
                assert_eq!(acknowledged, key);
                acknowledged += 1;
            }
            Err(StoreError::Stopped { .. }) => stopped = true,
            Err(other) => panic!("{what}: {other}"),
        }
    }
    assert_eq!(store.stopped().is_some(), stopped, "{what}");
    if stopped {
        let refused = |error| matches!(error, StoreError::Stopped { .. });
        assert!(refused(store.submit_applied(put(99, 1), |_| ()).unwrap_err()), "{what}");
        assert!(refused(store.read(|_| ()).unwrap_err()), "{what}");
        assert!(store.close().is_err());
    }
    drop(store);
    *disk.state.plan.lock() = None;

    let (store, _) = Store::<Map>::open(folder.path(), small()).unwrap_or_else(|error| {
        panic!("{what}: {error}");
    });
    let found = store.read(Map::clone).unwrap();
    let count = found.0.len() as u32;
    // The command that was being written may be there or not; an earlier one must be.
    assert!(acknowledged <= count && count <= acknowledged + 1, "{what}: {acknowledged} answered, {count} found");
    let mut model = Map::new();
    (0..count).for_each(|key| {
        model.apply(&put(key, 300));
    });
    assert_eq!(found, model, "{what}");
    (acknowledged, stopped)
}

#[test]
fn a_failed_write_or_flush_stops_the_store_and_loses_nothing_acknowledged() {
    for deed in [Deed::Write, Deed::SyncData] {
        let mut stops = 0;
        for after in 0..70 {
            let (acknowledged, stopped) = work(deed, after, true);
            // A snapshot's write or flush may be the one that fails; the store then goes on.
            assert_eq!(stopped, acknowledged < COMMANDS);
            stops += u32::from(stopped);
        }
        assert!(stops > 40, "{deed:?} stopped the store {stops} times");
    }
}

#[test]
fn a_disk_that_fails_for_good_stops_the_store() {
    for deed in [Deed::Write, Deed::SyncData, Deed::CreateZeroed, Deed::Rename, Deed::SyncFolder] {
        let (acknowledged, stopped) = work(deed, 1, false);
        assert!(stopped && acknowledged < COMMANDS, "{deed:?}");
    }
}

#[test]
fn a_failed_rename_folder_flush_or_preallocation_loses_nothing() {
    for deed in [Deed::Create, Deed::CreateZeroed, Deed::Rename, Deed::SyncFolder, Deed::Remove] {
        for after in 0..8 {
            work(deed, after, true);
        }
    }
}

#[test]
fn a_short_write_is_gone_on_with() {
    for after in 0..20 {
        assert_eq!(work(Deed::ShortWrite, after, true), (COMMANDS, false));
    }
}

#[test]
fn a_failed_snapshot_is_told_and_the_store_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let disk = TestDisk::default();
    let options = Options { disk: Arc::new(disk.clone()), ..small() };
    let (store, _) = Store::<Map>::open(folder.path(), options).unwrap();
    run(&store, put(1, 10)).unwrap();
    *disk.state.plan.lock() = Some((Deed::Create, 0, true));
    let error = store.snapshot().unwrap_err();
    assert!(matches!(&error, StoreError::Snapshot { why } if why.contains("Create")), "{error}");
    run(&store, put(2, 10)).unwrap();
    assert_eq!(store.snapshot(), Ok(2));
    assert_eq!((store.statistics().snapshots, store.statistics().snapshot_failures), (1, 1));
}

#[test]
fn a_failed_snapshot_leaves_nothing_lying_about() {
    for deed in [Deed::Write, Deed::SyncData, Deed::Rename] {
        let folder = tempfile::tempdir().unwrap();
        let disk = TestDisk::default();
        let options = Options { disk: Arc::new(disk.clone()), ..small() };
        let (store, _) = Store::<Map>::open(folder.path(), options).unwrap();
        run(&store, put(1, 10)).unwrap();
        *disk.state.plan.lock() = Some((deed, 0, true));
        let error = store.snapshot().unwrap_err();
        assert!(matches!(&error, StoreError::Snapshot { .. }), "{deed:?}: {error}");
        let names = std::fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name());
        let left: Vec<_> = names.filter(|name| name.to_string_lossy().starts_with("snapshot-")).collect();
        assert!(left.is_empty(), "{deed:?}: {left:?}");
        run(&store, put(2, 10)).unwrap();
        assert_eq!(store.snapshot(), Ok(2), "{deed:?}");
    }
}

#[test]
fn everyone_waiting_hears_that_the_store_stopped() {
    let folder = tempfile::tempdir().unwrap();
    let disk = TestDisk::default();
    let options = Options { disk: Arc::new(disk.clone()), ..small() };
    let (store, _) = Store::<Map>::open(folder.path(), options).unwrap();
    let (tell, hear) = mpsc::channel();
    let (tell_hook, hear_hook) = mpsc::channel();
    store.on_stop(move |why| tell_hook.send(why.to_owned()).unwrap());
    *disk.state.plan.lock() = Some((Deed::Write, 0, true));
    let held = disk.state.gate.lock();
    for key in 0..50 {
        let tell_too = tell.clone();
        store.submit(put(key, 100), move |outcome| tell_too.send(outcome.map(|_| ())).unwrap());
        // Changes nothing, but has seen what is not durable.
        let tell_too = tell.clone();
        store.submit(put(key, 100), move |outcome| tell_too.send(outcome.map(|_| ())).unwrap());
        let tell_too = tell.clone();
        store.read_durable(|_| (), move |outcome| tell_too.send(outcome).unwrap());
    }
    drop(held);
    for _ in 0..150 {
        assert!(matches!(hear.recv().unwrap(), Err(StoreError::Stopped { .. })));
    }
    assert!(hear_hook.recv().unwrap().contains("Write fails as planned"));
}

#[test]
fn a_machine_that_panics_stops_the_store_before_its_state_is_seen() {
    let folder = tempfile::tempdir().unwrap();
    let (store, _) = Store::<Map>::open(folder.path(), small()).unwrap();
    run(&store, put(1, 10)).unwrap();
    let error = run(&store, Command::Panic).unwrap_err();
    assert!(error.to_string().contains("panicked"), "{error}");
    assert!(store.read(|_| ()).is_err());
    drop(store);
    let (store, opened) = Store::<Map>::open(folder.path(), small()).unwrap();
    assert_eq!((opened.sequence, store.read(|map| map.0.len())), (1, Ok(1)));
}

#[test]
fn a_callback_that_panics_where_answers_are_given_stops_the_store_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let (hand, handed) = mpsc::channel::<Box<dyn FnOnce() + Send>>();
    let answer_on: embedded::AnswerOn = Arc::new(move |answers| hand.send(answers).unwrap());
    let (store, _) = Store::<Map>::open(folder.path(), Options { answer_on: Some(answer_on), ..small() }).unwrap();
    let (tell_hook, hear_hook) = mpsc::channel();
    store.on_stop(move |why| tell_hook.send(why.to_owned()).unwrap());
    store.submit(put(1, 10), |_| panic!("on purpose"));
    handed.recv().unwrap()();
    // Nobody asks the store for anything more, and its own thread has nothing to do.
    let why = hear_hook.recv_timeout(Duration::from_secs(10)).unwrap();
    assert!(why.contains("a callback panicked"), "{why}");
}
