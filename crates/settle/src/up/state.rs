//! `up.json`: what runs, for `settle chaos` and other tools; and the lock of the data folder. `serve.json` is the same of `settle serve --restart`.

use std::collections::BTreeMap;
use std::fs::{File, TryLockError};
use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use serde::{Deserialize, Serialize};

use super::plan::Kind;

/// The name of the state file in the data folder.
const FILE: &str = "up.json";
/// The same in that of a shop that is kept.
const OF_SHOP: &str = "serve.json";

/// A system that `settle up` runs, or ran.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct State {
    /// The process that runs it.
    pub(crate) pid: u32,
    /// Where clients connect.
    pub(crate) gateway: String,
    /// Whether what ends is started again.
    pub(crate) restart: bool,
    /// Whether databases and broker can be parted from the others.
    #[serde(default)]
    pub(crate) proxied: bool,
    /// Every port by its component: they stay with the data, since replicas and Sentinels know each other by them.
    pub(crate) ports: BTreeMap<String, u16>,
    /// What it consists of, in the order in which it was started.
    pub(crate) components: Vec<Entry>,
}

/// One process.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Entry {
    /// Its name, and that of its folder.
    pub(crate) name: String,
    /// What it is.
    pub(crate) kind: Kind,
    /// Its process id, while it runs.
    pub(crate) pid: Option<u32>,
    /// Where it listens on 127.0.0.1.
    pub(crate) port: u16,
    /// Where its output goes.
    pub(crate) log: PathBuf,
    /// How it is started.
    pub(crate) command: Vec<String>,
    /// How often it was started again.
    pub(crate) restarts: u32,
    /// Whether it is ready for others.
    pub(crate) ready: bool,
}

impl State {
    /// The state that stands in `data`; `None` if there is none.
    pub(crate) fn read(data: &Path) -> anyhow::Result<Option<Self>> {
        read(&data.join(FILE))
    }

    /// The state of the shop that `settle serve --restart` keeps on `data`; `None` if there is none.
    pub(crate) fn read_of_shop(data: &Path) -> anyhow::Result<Option<Self>> {
        read(&data.join(OF_SHOP))
    }

    /// Puts it in the place of what stood there, so that a reader finds either whole.
    pub(super) fn write(&self, data: &Path) -> anyhow::Result<()> {
        write(self, &data.join(FILE))
    }

    /// The same for a shop that is kept.
    pub(crate) fn write_of_shop(&self, data: &Path) -> anyhow::Result<()> {
        write(self, &data.join(OF_SHOP))
    }

    /// Says that no shop is kept any more.
    pub(crate) fn remove_of_shop(data: &Path) {
        // If it stays, it names a process that is gone.
        _ = std::fs::remove_file(data.join(OF_SHOP));
    }
}

fn read(file: &Path) -> anyhow::Result<Option<State>> {
    match std::fs::read(file) {
        Ok(text) => {
            let state = serde_json::from_slice(&text);
            Ok(Some(state.with_context(|| format!("{} is not what Settle writes", file.display()))?))
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).with_context(|| format!("cannot read {}", file.display())),
    }
}

fn write(state: &State, file: &Path) -> anyhow::Result<()> {
    let next = file.with_extension("json.next");
    let text = serde_json::to_vec_pretty(state).context("a state is JSON")?;
    let written = std::fs::write(&next, text).and_then(|()| std::fs::rename(&next, file));
    written.with_context(|| format!("cannot write {}", file.display()))
}

/// A data folder that no other `settle up` uses.
#[derive(Debug)]
pub(super) struct Folder {
    pub(super) path: PathBuf,
    _lock: File,
}

impl Folder {
    /// Makes it if need be, and locks it. The system gives the lock back when this process ends.
    pub(super) fn lock(path: &Path) -> anyhow::Result<Self> {
        std::fs::create_dir_all(path).with_context(|| format!("cannot make the folder {}", path.display()))?;
        // Components are told of their files by paths that hold wherever they are.
        let path = path.canonicalize().with_context(|| format!("cannot find {}", path.display()))?;
        anyhow::ensure!(
            !path.display().to_string().contains(['"', '\\', '\n']),
            "{}: the servers' configurations cannot name a folder with such characters; choose another with --data",
            path.display()
        );
        let file = path.join("LOCK");
        let mut lock = File::options().create(true).truncate(false).write(true).read(true).open(&file)?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let holder = std::fs::read_to_string(&file).unwrap_or_default();
                bail!(
                    "{} is in use by another `settle up` (process {}): stop that one, or choose another folder with --data",
                    path.display(),
                    holder.trim()
                );
            }
            Err(TryLockError::Error(error)) => return Err(error).context("cannot lock the data folder"),
        }
        lock.set_len(0)?;
        writeln!(lock, "{}", std::process::id())?;
        Ok(Self { path, _lock: lock })
    }
}
