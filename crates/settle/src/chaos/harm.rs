//! What is being done to the system, so that it is undone however the run ends.
//!
//! | the run            | who undoes it                                                                                    |
//! |--------------------|--------------------------------------------------------------------------------------------------|
//! | goes on            | the victim, when it is dropped                                                                   |
//! | is interrupted     | whoever hears the signal ([`Harms::undo_all`]), and nothing more is done to anybody               |
//! | is killed          | files are in force no longer than it lives ([`crate::up::held`]); the next run lets go who is frozen |

use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use anyhow::Context;
use rustix::process::{Pid, Signal, kill_process};

use super::events::How;

/// Something that is done to one component.
#[derive(Debug, Clone)]
pub(super) struct Harm {
    pub(super) name: String,
    pub(super) pid: u32,
    pub(super) how: How,
    /// What holds it down, or parts it, if something does.
    pub(super) file: Option<PathBuf>,
}

impl Harm {
    /// Whether it lasts until it is undone.
    fn lasts(&self) -> bool {
        self.how == How::Freeze || self.file.is_some()
    }

    fn undo(&self) {
        // The process may be gone, and the file, which is what was wanted.
        if self.how == How::Freeze {
            _ = signal(self.pid, Signal::CONT);
        }
        if let Some(file) = &self.file {
            _ = std::fs::remove_file(file);
        }
    }
}

#[derive(Debug, Default)]
struct Present {
    harms: Vec<(u64, Harm)>,
    /// The run was interrupted: nobody is hit any more.
    is_over: bool,
}

#[derive(Debug, Default)]
struct Shared {
    present: Mutex<Present>,
    /// How many harms there have been.
    numbers: AtomicU64,
}

/// All that is being done.
#[derive(Debug, Clone, Default)]
pub(super) struct Harms(Arc<Shared>);

/// One of them: undone when it is dropped.
#[derive(Debug)]
pub(super) struct Lasting {
    harms: Harms,
    number: u64,
}

impl Drop for Lasting {
    fn drop(&mut self) {
        let mut present = self.harms.present();
        if let Some(at) = present.harms.iter().position(|(number, _)| *number == self.number) {
            present.harms.swap_remove(at).1.undo();
        }
    }
}

impl Harms {
    fn present(&self) -> MutexGuard<'_, Present> {
        // Whatever somebody panicked over is to be undone all the same.
        self.0.present.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Does something to somebody.
    ///
    /// # Errors
    /// If it cannot be done, or the run was interrupted.
    pub(super) fn inflict(&self, harm: Harm, act: impl FnOnce(&Harm) -> anyhow::Result<()>) -> anyhow::Result<Lasting> {
        let number = self.0.numbers.fetch_add(1, Ordering::Relaxed);
        // Dropped behind the lock, which undoing takes.
        let lasting = Lasting { harms: self.clone(), number };
        let mut present = self.present();
        anyhow::ensure!(!present.is_over, "interrupted");
        // Noted first: an act of two halves may fail behind the first.
        present.harms.push((number, harm.clone()));
        let done = act(&harm);
        drop(present);
        done.map(|()| lasting)
    }

    /// Whether everything was undone for good.
    pub(super) fn is_over(&self) -> bool {
        self.present().is_over
    }

    /// Undoes everything for good, and says to whom something was being done.
    pub(super) fn undo_all(&self) -> Vec<String> {
        let mut present = self.present();
        present.is_over = true;
        let undone = std::mem::take(&mut present.harms);
        for (_, harm) in &undone {
            harm.undo();
        }
        undone.into_iter().filter(|(_, harm)| harm.lasts()).map(|(_, harm)| harm.name).collect()
    }
}

pub(super) fn pid(id: u32) -> Option<Pid> {
    Pid::from_raw(i32::try_from(id).ok()?)
}

/// Sends a process a signal.
///
/// # Errors
/// If there is no such process, or it is not ours.
pub(super) fn signal(id: u32, signal: Signal) -> anyhow::Result<()> {
    let pid = pid(id).context("no such process")?;
    Ok(kill_process(pid, signal)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_done_is_undone_once_and_nothing_more_is_done_behind_an_interruption() {
        let data = tempfile::tempdir().unwrap();
        let harm = |name: &str| Harm {
            name: name.to_owned(),
            pid: std::process::id(),
            how: How::Lose,
            file: Some(data.path().join(name)),
        };
        let write = |harm: &Harm| Ok(std::fs::write(harm.file.as_ref().unwrap(), "")?);
        let harms = Harms::default();
        let one = harms.inflict(harm("one"), write).unwrap();
        let two = harms.inflict(harm("two"), write).unwrap();
        drop(one);
        assert!(!data.path().join("one").exists() && data.path().join("two").exists());
        let halves = |harm: &Harm| {
            write(harm)?;
            anyhow::bail!("there is no such process")
        };
        assert!(harms.inflict(harm("three"), halves).is_err());
        assert!(!data.path().join("three").exists(), "the first half is undone");
        assert_eq!(harms.undo_all(), ["two"]);
        assert!(!data.path().join("two").exists());
        // Whoever holds the place down now is somebody else.
        std::fs::write(data.path().join("two"), "").unwrap();
        drop(two);
        assert!(data.path().join("two").exists());
        assert!(harms.inflict(harm("four"), write).is_err());
        assert!(!data.path().join("four").exists());
    }
}
