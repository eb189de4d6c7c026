//! What the store does when all is well.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc;
use std::time::Duration;

use embedded::{AnswerOn, Applied, Machine, OpenError, Options, Store, StoreError, journal};

use crate::support::{Command, Map, TestDisk, files, put, run, small};

#[test]
fn replies_come_in_order_and_only_when_durable() {
    let folder = tempfile::tempdir().unwrap();
    let disk = TestDisk::default();
    let options = Options { disk: Arc::new(disk.clone()), ..small() };
    let (store, opened) = Store::<Map>::open(folder.path(), options).unwrap();
    assert_eq!((opened.sequence, opened.snapshot), (0, None));
    let (tell, hear) = mpsc::channel();
    let held = disk.state.gate.lock();
    for key in 0..20u32 {
        let tell = tell.clone();
        let reply = store.submit_applied(put(key / 2, 10), move |outcome| {
            outcome.unwrap();
            tell.send(key).unwrap();
        });
        // Every second command is a repeat: it changes nothing, yet must wait for what it repeats.
        assert_eq!(reply.unwrap().is_some(), key % 2 == 1);
    }
    assert_eq!(store.read(|map| map.0.len()), Ok(10));
    assert_eq!((store.applied_sequence(), store.durable_sequence()), (10, 0));
    assert!(hear.try_recv().is_err(), "nothing is durable yet");
    drop(held);
    assert_eq!((0..20).map(|_| hear.recv().unwrap()).collect::<Vec<_>>(), (0..20).collect::<Vec<_>>());
    // With nothing pending, a repeat and a read are answered before the call returns.
    store.submit(put(0, 10), {
        let tell = tell.clone();
        move |reply| tell.send(reply.unwrap().unwrap().len() as u32).unwrap()
    });
    assert_eq!(hear.try_recv(), Ok(10));
    store.read_durable(|map| map.0.len() as u32, move |count| tell.send(count.unwrap() + 1).unwrap());
    assert_eq!(hear.try_recv(), Ok(11));
    store.close().unwrap();
    assert_eq!(run(&store, put(1, 1)), Err(StoreError::Closed));
    // The repeats are not in the journal.
    let (_, opened) = Store::<Map>::open(folder.path(), small()).unwrap();
    assert_eq!((opened.sequence, opened.replayed), (10, 10));
}

#[test]
fn answers_are_given_where_the_owner_wants_it_in_order_and_hold_no_flush_up() {
    let folder = tempfile::tempdir().unwrap();
    let (hand, handed) = mpsc::channel::<Box<dyn FnOnce() + Send>>();
    let answer_on: AnswerOn = Arc::new(move |answers| hand.send(answers).unwrap());
    let (store, _) = Store::<Map>::open(folder.path(), Options { answer_on: Some(answer_on), ..small() }).unwrap();
    let (tell, hear) = mpsc::channel();
    let submit = |key: u32| {
        let tell = tell.clone();
        store.submit(put(key, 10), move |reply| tell.send(reply.map(|_| key)).unwrap());
    };
    for key in 0..3 {
        submit(key);
        while store.durable_sequence() <= u64::from(key) {
            std::thread::yield_now();
        }
    }
    assert!(hear.try_recv().is_err(), "all are durable, and nobody has been answered on the store's thread");
    handed.recv().unwrap()();
    assert_eq!((0..3).map(|_| hear.try_recv().unwrap()).collect::<Vec<_>>(), [Ok(0), Ok(1), Ok(2)]);
    submit(3);
    handed.recv().unwrap()();
    assert_eq!(hear.try_recv(), Ok(Ok(3)), "what comes later is handed over anew");
    store.close().unwrap();
}

#[test]
fn behind_a_crowd_a_flush_waits_until_as_many_are_there_again_and_no_longer() {
    let folder = tempfile::tempdir().unwrap();
    let disk = TestDisk::default();
    let gather = Duration::from_secs(3600);
    let (store, _) =
        Store::<Map>::open(folder.path(), Options { disk: Arc::new(disk.clone()), gather, ..small() }).unwrap();
    let (tell, hear) = mpsc::channel();
    let submit = |key: u32| {
        let tell = tell.clone();
        store.submit(put(key, 10), move |reply| tell.send(reply.map(|_| key)).unwrap());
    };
    let heard = |many: usize| {
        (0..many)
            .for_each(|_| _ = hear.recv_timeout(Duration::from_secs(10)).expect("nobody waits for an hour").unwrap());
    };
    let held = disk.state.gate.lock();
    let writes = || disk.state.writes.load(Ordering::SeqCst);
    let before = writes();
    submit(0);
    while writes() == before {
        std::thread::yield_now();
    }
    // The first goes alone, and five are behind it.
    (1..6).for_each(submit);
    drop(held);
    heard(6);
    let flushes = store.flush_count();
    (6..10).for_each(submit);
    // Time for the flusher to begin to wait: if it never has to be woken, less is tested.
    std::thread::sleep(Duration::from_millis(50));
    assert!(hear.try_recv().is_err(), "four of five are there");
    submit(10);
    heard(5);
    assert_eq!(store.flush_count(), flushes + 1);
    store.close().unwrap();
}

#[test]
fn a_closed_store_opens_with_its_state_and_the_journal_can_be_listed() {
    let folder = tempfile::tempdir().unwrap();
    let mut expected = Vec::new();
    for round in 0..5u32 {
        let (store, opened) = Store::<Map>::open(folder.path(), small()).unwrap();
        assert_eq!(
            (opened.sequence, opened.replayed, opened.torn_bytes),
            (u64::from(round) * 9, u64::from(round) * 9, 0)
        );
        for key in 0..9 {
            let command = put(round * 9 + key, 200);
            run(&store, command.clone()).unwrap();
            expected.push(command);
            // While the store is open, too.
            let listed = journal::cat::<Map>(folder.path()).unwrap().map(Result::unwrap);
            assert_eq!(listed.map(|entry| entry.command).collect::<Vec<_>>(), expected);
        }
    }
    let listed: Vec<_> = journal::cat::<Map>(folder.path()).unwrap().map(Result::unwrap).collect();
    assert_eq!(listed.iter().map(|it| it.sequence).collect::<Vec<_>>(), (1..=45).collect::<Vec<_>>());
    for entry in listed {
        let bytes = std::fs::read(&entry.file).unwrap();
        let at = entry.offset as usize;
        let body = postcard::to_stdvec(&entry.command).unwrap();
        assert_eq!(bytes[at..at + 4], (body.len() as u32).to_le_bytes(), "the offset leads to the record");
    }
}

#[test]
fn commands_submitted_together_are_answered_together_and_flushed_once() {
    let folder = tempfile::tempdir().unwrap();
    let (store, _) = Store::<Map>::open(folder.path(), small()).unwrap();
    let submit = |commands: Vec<Command>| {
        let (tell, hear) = mpsc::channel();
        store.submit_all(commands, move |replies| tell.send(replies).unwrap());
        hear.recv().unwrap()
    };
    let replies = submit(vec![put(1, 1), put(1, 2), put(9, 5000), put(1, 2)]);
    assert_eq!((replies[0].as_ref(), replies[1].as_ref()), (Ok(&None), Ok(&Some(vec![1]))));
    assert!(matches!(replies[2], Err(StoreError::TooLarge { .. })));
    assert_eq!(replies[3], Ok(Some(vec![1, 0])));
    assert_eq!((store.flush_count(), store.durable_sequence()), (1, 2));
    // Nothing changed, so nothing is flushed.
    assert_eq!(submit(vec![put(1, 2)]).len(), 1);
    assert_eq!(store.flush_count(), 1);
    store.close().unwrap();
    assert_eq!(submit(vec![put(2, 2)]), [Err(StoreError::Closed)]);
}

#[test]
fn snapshots_keep_the_journal_bounded() {
    let folder = tempfile::tempdir().unwrap();
    let options = Options { snapshot_bytes: 8 << 10, segment_bytes: 8 << 10, ..Options::default() };
    let (store, _) = Store::<Map>::open(folder.path(), options).unwrap();
    let mut largest = 0;
    for number in 0..600u32 {
        run(&store, Command::Put { key: number % 7, value: number.to_le_bytes().repeat(50) }).unwrap();
        largest = largest.max(store.size_on_disk().unwrap());
    }
    store.snapshot().unwrap();
    let state = store.read(Map::clone).unwrap();
    let snapshots = store.statistics().snapshots;
    assert!(snapshots > 5, "only {snapshots} snapshots");
    assert!(largest < 200 << 10, "the folder grew to {largest} bytes for 300 KiB of journal");
    store.close().unwrap();
    let names: Vec<_> = files(folder.path()).into_keys().collect();
    assert_eq!(names.iter().filter(|name| name.starts_with("snapshot-")).count(), 1, "{names:?}");
    let (store, opened) = Store::<Map>::open(folder.path(), small()).unwrap();
    assert_eq!((opened.snapshot, opened.sequence, opened.replayed), (Some(600), 600, 0));
    assert_eq!(store.read(Map::clone).unwrap(), state);
}

#[test]
fn many_threads_lose_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let options = Options { segment_bytes: 64 << 10, snapshot_bytes: 64 << 10, ..Options::default() };
    let (store, _) = Store::<Map>::open(folder.path(), options).unwrap();
    std::thread::scope(|scope| {
        for thread in 0..8u32 {
            let store = store.clone();
            scope.spawn(move || (0..200).for_each(|n| assert!(run(&store, put(thread * 1000 + n, 150)).is_ok())));
        }
    });
    let statistics = store.statistics();
    assert_eq!(statistics.commands, 1600);
    assert!(statistics.flushes < 1600, "nobody shared a flush");
    drop(store);
    let (store, opened) = Store::<Map>::open(folder.path(), small()).unwrap();
    assert_eq!((opened.sequence, store.read(|map| map.0.len())), (1600, Ok(1600)));
}

#[test]
fn a_folder_has_one_store_at_a_time() {
    let folder = tempfile::tempdir().unwrap();
    let (store, _) = Store::<Map>::open(folder.path(), small()).unwrap();
    let error = Store::<Map>::open(folder.path(), small()).unwrap_err();
    assert!(matches!(error, OpenError::InUse { .. }));
    let message = error.to_string();
    assert!(message.contains(&folder.path().display().to_string()), "{message}");
    assert!(message.contains(&std::process::id().to_string()), "{message}");
    // Who tidies up what looks like a left-over lock does not let a second one in.
    std::fs::remove_file(folder.path().join("LOCK")).unwrap();
    let error = Store::<Map>::open(folder.path(), small()).unwrap_err();
    assert!(matches!(error, OpenError::InUse { .. }));
    store.close().unwrap();
    Store::<Map>::open(folder.path(), small()).unwrap();
}

#[test]
fn the_last_handle_may_go_in_a_callback() {
    let folder = tempfile::tempdir().unwrap();
    let (store, _) = Store::<Map>::open(folder.path(), small()).unwrap();
    let (tell, hear) = mpsc::channel();
    let last = store.clone();
    store.submit(put(1, 1), move |outcome| {
        drop(last);
        tell.send(outcome.is_ok()).unwrap();
    });
    drop(store);
    assert!(hear.recv().unwrap());
}

#[test]
fn what_cannot_be_journalled_is_not_applied() {
    let folder = tempfile::tempdir().unwrap();
    let (store, _) = Store::<Map>::open(folder.path(), small()).unwrap();
    assert!(matches!(run(&store, put(1, 5000)), Err(StoreError::TooLarge { limit: 1024, .. })));
    assert_eq!(store.read(|map| map.0.len()), Ok(0));
    run(&store, put(1, 1000)).unwrap();
}

/// The map under another name, or in another encoding.
struct Other<const VERSION: u16>;

impl<const V: u16> Machine for Other<V> {
    type Command = Command;
    type Reply = ();
    type Frozen = ();

    const NAME: &'static str = if V == 1 { "other" } else { Map::NAME };
    const VERSION: u16 = V;

    fn new() -> Self {
        Other
    }

    fn apply(&mut self, _: &Command) -> Applied<()> {
        Applied { reply: (), changed: false }
    }

    fn freeze(&self) {}

    fn write_snapshot((): &(), _: &mut dyn io::Write) -> io::Result<()> {
        Ok(())
    }

    fn read_snapshot(input: &mut dyn io::Read, version: u16) -> io::Result<Self> {
        Map::read_snapshot(input, version).map(|_| Other)
    }
}

#[test]
fn a_store_of_another_machine_version_or_format_is_refused_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let open = |snapshot: bool| {
        let (store, _) = Store::<Map>::open(folder.path(), small()).unwrap();
        run(&store, put(u32::from(snapshot), 10)).unwrap();
        if snapshot {
            store.snapshot().unwrap();
        }
    };
    for snapshot in [false, true] {
        open(snapshot);
        let error = Store::<Other<1>>::open(folder.path(), small()).unwrap_err();
        assert!(matches!(error, OpenError::Foreign { .. }), "{error}");
        assert!(error.to_string().contains("\"map\"") && error.to_string().contains("\"other\""));
        let error = Store::<Other<2>>::open(folder.path(), small()).unwrap_err();
        assert!(matches!(error, OpenError::UnknownVersion { found: 1, known: (2, 2), .. }), "{error}");
        assert!(journal::cat::<Other<2>>(folder.path()).unwrap().next().is_none_or(|it| it.is_err()));
    }
    for (name, bytes) in files(folder.path()).into_iter().filter(|(name, _)| name != "LOCK") {
        let mut newer = bytes.clone();
        newer[12] = 9;
        let header = if name.starts_with("journal-") { 512 } else { 89 };
        let checksum = crc32c::crc32c(&newer[4..header]);
        newer[..4].copy_from_slice(&checksum.to_le_bytes());
        std::fs::write(folder.path().join(&name), newer).unwrap();
        let error = Store::<Map>::open(folder.path(), small()).unwrap_err();
        assert!(matches!(error, OpenError::UnknownFormat { found: 9, known: 1, .. }), "{error}");
        std::fs::write(folder.path().join(&name), bytes).unwrap();
    }
    Store::<Map>::open(folder.path(), small()).unwrap();
}

/// The map as a later program has it, which still reads what the earlier one wrote.
struct Later(Map, Vec<u16>);

impl Machine for Later {
    type Command = Command;
    type Reply = Option<Vec<u8>>;
    type Frozen = <Map as Machine>::Frozen;

    const NAME: &'static str = Map::NAME;
    const VERSION: u16 = 2;
    const OLDEST_READ: u16 = 1;

    fn new() -> Self {
        Later(Map::new(), Vec::new())
    }

    fn apply(&mut self, command: &Command) -> Applied<Self::Reply> {
        self.0.apply(command)
    }

    fn freeze(&self) -> Self::Frozen {
        self.0.freeze()
    }

    fn write_snapshot(frozen: &Self::Frozen, out: &mut dyn io::Write) -> io::Result<()> {
        Map::write_snapshot(frozen, out)
    }

    fn read_snapshot(input: &mut dyn io::Read, version: u16) -> io::Result<Self> {
        Map::read_snapshot(input, version).map(|map| Later(map, vec![version]))
    }
}

#[test]
fn what_an_earlier_program_wrote_is_read_and_gone_on_with_and_is_then_closed_to_that_one() {
    let folder = tempfile::tempdir().unwrap();
    let earlier = || Store::<Map>::open(folder.path(), small());
    let (store, _) = earlier().unwrap();
    run(&store, put(1, 10)).unwrap();
    store.snapshot().unwrap();
    run(&store, put(2, 10)).unwrap();
    drop(store);
    for commands in [2, 3] {
        let (store, _) = Store::<Later>::open(folder.path(), small()).unwrap();
        let found = store.read(|later| (later.0.0.len(), later.1.clone())).unwrap();
        assert_eq!(found, (commands, vec![1]), "the snapshot is the earlier one's still, and says so");
        run(&store, put(commands as u32 + 1, 10)).unwrap();
    }
    assert!(journal::cat::<Later>(folder.path()).unwrap().all(|entry| entry.is_ok()), "segments of both encodings");
    let error = earlier().unwrap_err();
    assert!(matches!(error, OpenError::UnknownVersion { found: 2, known: (1, 1), .. }), "{error}");
    let (store, _) = Store::<Later>::open(folder.path(), small()).unwrap();
    store.snapshot().unwrap();
    drop(store);
    let (store, _) = Store::<Later>::open(folder.path(), small()).unwrap();
    assert_eq!(store.read(|later| later.1.clone()).unwrap(), [2]);
}

#[test]
fn a_machine_that_decides_otherwise_is_refused() {
    struct Stubborn;
    impl Machine for Stubborn {
        type Command = Command;
        type Reply = ();
        type Frozen = ();
        const NAME: &'static str = Map::NAME;
        const VERSION: u16 = Map::VERSION;
        fn new() -> Self {
            Stubborn
        }
        fn apply(&mut self, _: &Command) -> Applied<()> {
            Applied { reply: (), changed: false }
        }
        fn freeze(&self) {}
        fn write_snapshot((): &(), _: &mut dyn io::Write) -> io::Result<()> {
            Ok(())
        }
        fn read_snapshot(_: &mut dyn io::Read, _: u16) -> io::Result<Self> {
            Ok(Stubborn)
        }
    }
    let folder = tempfile::tempdir().unwrap();
    let (store, _) = Store::<Map>::open(folder.path(), small()).unwrap();
    run(&store, put(1, 10)).unwrap();
    drop(store);
    let error = Store::<Stubborn>::open(folder.path(), small()).unwrap_err();
    assert!(matches!(error, OpenError::Diverged { sequence: 1, .. }), "{error}");
}

#[test]
fn options_out_of_bounds_are_refused() {
    for options in [
        Options { segment_bytes: 100, ..Options::default() },
        Options { segment_bytes: 5000, ..Options::default() },
        Options { segment_bytes: 1 << 40, ..Options::default() },
        Options { snapshot_bytes: 0, ..Options::default() },
    ] {
        let error = Store::<Map>::open(Path::new("never-created"), options).unwrap_err();
        assert!(matches!(error, OpenError::Option { .. }), "{error}");
    }
    assert!(!Path::new("never-created").exists());
}
