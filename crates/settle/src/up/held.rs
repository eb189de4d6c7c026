//! Files in the data folder of a system that hold a component down, or part it from the others.
//!
//! | file        | while it is in force                                                      |
//! |-------------|---------------------------------------------------------------------------|
//! | `hold-NAME` | the component is not started again                                        |
//! | `part-NAME` | nothing passes to or from it, if `settle up --proxied` has put it behind a proxy |
//!
//! One that a person makes is in force until it is removed. One of `settle chaos` names its process, and is in force no longer than that lives: a run that
//! is killed leaves nobody down.

use std::path::{Path, PathBuf};

use rustix::io::Errno;
use rustix::process::{Pid, test_kill_process};

/// What holds a component down.
pub(crate) fn hold(data: &Path, name: &str) -> PathBuf {
    data.join(format!("hold-{name}"))
}

/// What parts a component from the others.
pub(crate) fn part(data: &Path, name: &str) -> PathBuf {
    data.join(format!("part-{name}"))
}

/// Makes one that is in force until it is removed, or this process has ended.
///
/// # Errors
/// If nothing can be written there.
pub(crate) fn make(file: &Path) -> std::io::Result<()> {
    std::fs::write(file, format!("{}\n", std::process::id()))
}

/// Whether it is there and in force. One whose maker has ended is removed.
pub(crate) fn is_in_force(file: &Path) -> bool {
    if !file.exists() {
        return false;
    }
    let said = std::fs::read_to_string(file).unwrap_or_default();
    // Whoever writes into it by hand may write anything.
    let maker = said.trim().parse().ok().filter(|id: &i32| *id > 0).and_then(Pid::from_raw);
    let Some(maker) = maker else { return true };
    let is_left_over = test_kill_process(maker) == Err(Errno::SRCH);
    if is_left_over {
        tracing::warn!(file = %file.display(), "a `settle chaos` that was killed has left this file behind: it is removed");
        // Somebody else may have, or will at the next look.
        _ = std::fs::remove_file(file);
    }
    !is_left_over
}

/// What people are told behind the end of a component, if a file holds it down.
pub(crate) fn told(hold: Option<&Path>) -> String {
    hold.map_or_else(String::new, |file| format!("; it stays down while {} is there", file.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_person_makes_stays_and_what_a_run_makes_ends_with_it() {
        let data = tempfile::tempdir().unwrap();
        let file = hold(data.path(), "stock-1");
        assert!(!is_in_force(&file));
        for by_hand in ["", "do not start, disk is being replaced\n", "0", "-1", "99999999999"] {
            std::fs::write(&file, by_hand).unwrap();
            assert!(is_in_force(&file) && file.exists());
        }
        make(&file).unwrap();
        assert!(is_in_force(&file), "this process lives");
        let mut ended = std::process::Command::new("true").spawn().unwrap();
        ended.wait().unwrap();
        std::fs::write(&file, format!("{}\n", ended.id())).unwrap();
        assert!(!is_in_force(&file));
        assert!(!file.exists(), "it is removed, lest another process gets that number");
    }
}
