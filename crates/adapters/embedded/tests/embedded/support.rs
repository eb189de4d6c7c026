//! A machine to keep, and a disk that can be held up and made to fail.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc;

use embedded::disk::{Disk, DiskFile, RealDisk};
use embedded::{Applied, Machine, Options, Store};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

/// Keys and values; a value never seen before is a change.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Map(pub(crate) BTreeMap<u32, Vec<u8>>);

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Command {
    Put { key: u32, value: Vec<u8> },
    Remove { key: u32 },
    Panic,
}

pub(crate) fn put(key: u32, bytes: usize) -> Command {
    Command::Put { key, value: (0..bytes).map(|n| (n as u32 ^ key) as u8).collect() }
}

impl Machine for Map {
    type Command = Command;
    type Reply = Option<Vec<u8>>;
    type Frozen = BTreeMap<u32, Vec<u8>>;

    const NAME: &'static str = "map";
    const VERSION: u16 = 1;

    fn new() -> Self {
        Map::default()
    }

    fn apply(&mut self, command: &Command) -> Applied<Self::Reply> {
        match command {
            Command::Put { key, value } => {
                if self.0.get(key) == Some(value) {
                    return Applied { reply: Some(value.clone()), changed: false };
                }
                Applied { reply: self.0.insert(*key, value.clone()), changed: true }
            }
            Command::Remove { key } => {
                let reply = self.0.remove(key);
                Applied { changed: reply.is_some(), reply }
            }
            Command::Panic => panic!("as told"),
        }
    }

    fn freeze(&self) -> Self::Frozen {
        self.0.clone()
    }

    fn write_snapshot(frozen: &Self::Frozen, out: &mut dyn io::Write) -> io::Result<()> {
        out.write_all(&(frozen.len() as u32).to_le_bytes())?;
        for (key, value) in frozen {
            out.write_all(&key.to_le_bytes())?;
            out.write_all(&(value.len() as u32).to_le_bytes())?;
            out.write_all(value)?;
        }
        Ok(())
    }

    fn read_snapshot(input: &mut dyn io::Read, _: u16) -> io::Result<Self> {
        let mut number = || -> io::Result<u32> {
            let mut bytes = [0; 4];
            input.read_exact(&mut bytes)?;
            Ok(u32::from_le_bytes(bytes))
        };
        let count = number()?;
        let mut map = BTreeMap::new();
        for _ in 0..count {
            let mut number = || -> io::Result<u32> {
                let mut bytes = [0; 4];
                input.read_exact(&mut bytes)?;
                Ok(u32::from_le_bytes(bytes))
            };
            let (key, length) = (number()?, number()?);
            let mut value = vec![0; length as usize];
            input.read_exact(&mut value)?;
            map.insert(key, value);
        }
        Ok(Map(map))
    }
}

/// Small segments, and snapshots only when asked for.
pub(crate) fn small() -> Options {
    Options { segment_bytes: 4096, snapshot_bytes: u64::MAX, ..Options::default() }
}

/// Submits and waits until the reply is durable.
pub(crate) fn run<M: Machine<Command = Command>>(
    store: &Store<M>,
    command: Command,
) -> Result<M::Reply, embedded::StoreError> {
    let (tell, hear) = mpsc::channel();
    store.submit(command, move |outcome| tell.send(outcome).unwrap());
    hear.recv().unwrap()
}

/// Submits all while the disk is held up, so that all but the first share batches, up to their limit.
pub(crate) fn run_batch(disk: &TestDisk, store: &Store<Map>, commands: Vec<Command>) {
    let (tell, hear) = mpsc::channel();
    let held = disk.state.gate.lock();
    let count = commands.len();
    let submit = |command: Command| {
        let tell = tell.clone();
        store.submit(command, move |outcome| tell.send(outcome.map(|_| ())).unwrap());
    };
    commands.into_iter().for_each(submit);
    drop(held);
    for _ in 0..count {
        hear.recv().unwrap().unwrap();
    }
}

/// Something a disk can be told to fail at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Deed {
    Create,
    CreateZeroed,
    Write,
    ShortWrite,
    SyncData,
    Rename,
    SyncFolder,
    Remove,
}

/// The real disk, which can be held up at each write and told to fail once, or from then on.
#[derive(Clone, Default)]
pub(crate) struct TestDisk {
    pub(crate) state: Arc<State>,
}

#[derive(Default)]
pub(crate) struct State {
    /// Whoever holds it keeps the disk from writing.
    pub(crate) gate: Mutex<()>,
    /// Writes that came, those that are kept waiting included.
    pub(crate) writes: AtomicU64,
    /// Which deed fails, after how many of its kind, and whether only once.
    pub(crate) plan: Mutex<Option<(Deed, u64, bool)>>,
}

impl State {
    fn fails(&self, deed: Deed) -> bool {
        let mut plan = self.plan.lock();
        match &mut *plan {
            Some((planned, left, once)) if *planned == deed => {
                if *left > 0 {
                    *left -= 1;
                    return false;
                }
                if *once {
                    *plan = None;
                }
                true
            }
            _ => false,
        }
    }

    fn check(&self, deed: Deed) -> io::Result<()> {
        if self.fails(deed) { Err(io::Error::other(format!("{deed:?} fails as planned"))) } else { Ok(()) }
    }
}

struct TestFile {
    file: Box<dyn DiskFile>,
    state: Arc<State>,
}

impl TestDisk {
    fn wrap(&self, file: Box<dyn DiskFile>) -> Box<dyn DiskFile> {
        Box::new(TestFile { file, state: self.state.clone() })
    }
}

impl Disk for TestDisk {
    fn create(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        self.state.check(Deed::Create)?;
        Ok(self.wrap(RealDisk.create(path)?))
    }

    fn create_zeroed(&self, path: &Path, bytes: u64) -> io::Result<Box<dyn DiskFile>> {
        self.state.check(Deed::CreateZeroed)?;
        Ok(self.wrap(RealDisk.create_zeroed(path, bytes)?))
    }

    fn open(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        Ok(self.wrap(RealDisk.open(path)?))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.state.check(Deed::Rename)?;
        RealDisk.rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.state.check(Deed::Remove)?;
        RealDisk.remove(path)
    }

    fn sync_folder(&self, folder: &Path) -> io::Result<()> {
        self.state.check(Deed::SyncFolder)?;
        RealDisk.sync_folder(folder)
    }
}

impl DiskFile for TestFile {
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<usize> {
        self.state.writes.fetch_add(1, Ordering::SeqCst);
        let _held_up = self.state.gate.lock();
        if self.state.fails(Deed::ShortWrite) {
            return self.file.write_at(&bytes[..bytes.len().div_ceil(2)], offset);
        }
        if self.state.fails(Deed::Write) {
            self.file.write_at(&bytes[..bytes.len() / 2], offset)?;
            return Err(io::Error::other("Write fails as planned, half done"));
        }
        self.file.write_at(bytes, offset)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.state.check(Deed::SyncData)?;
        self.file.sync_data()
    }
}

/// A folder's files and their content.
pub(crate) type Files = BTreeMap<String, Vec<u8>>;

pub(crate) fn files(folder: &Path) -> Files {
    let read = |entry: io::Result<std::fs::DirEntry>| {
        let entry = entry.unwrap();
        (entry.file_name().into_string().unwrap(), std::fs::read(entry.path()).unwrap())
    };
    std::fs::read_dir(folder).unwrap().map(read).collect()
}

/// Makes the folder hold these files and no others.
pub(crate) fn put_files(folder: &Path, files: &Files) {
    for entry in std::fs::read_dir(folder).unwrap() {
        std::fs::remove_file(entry.unwrap().path()).unwrap();
    }
    for (name, bytes) in files {
        std::fs::write(folder.join(name), bytes).unwrap();
    }
}
