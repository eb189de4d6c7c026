//! A program that ends when whoever started it ends, however that ends.
//!
//! `settle as-child PARENT PROGRAM …` asks the system to be killed with its parent, then becomes the program: same process, same id. The request
//! survives the change of programs. It needs no code between fork and exec, which would be unsafe.

use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, ExitCode};

use super::member::located;
use anyhow::Context;
use clap::Args;
use rustix::process::{Pid, Signal, getppid, set_parent_process_death_signal};

/// A program to become.
#[derive(Debug, Args)]
pub(crate) struct ChildArgs {
    /// The process whose end is to be this one's.
    parent: u32,
    /// The program and its arguments.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, required = true)]
    command: Vec<String>,
}

/// This program's file. If another has been put in its place, that one: it is the same program, of another version.
pub(crate) fn own_file() -> anyhow::Result<PathBuf> {
    let file = std::env::current_exe().context("cannot find this program's own file")?;
    Ok(in_its_place(file))
}

fn in_its_place(file: PathBuf) -> PathBuf {
    // What Linux says of a file that was removed while it runs.
    let successor = file.to_str().and_then(|path| path.strip_suffix(" (deleted)")).map(PathBuf::from);
    successor.filter(|successor| !file.exists() && successor.exists()).unwrap_or(file)
}

/// A command that runs `program` as such a child of this process. The thread that starts it must live as long as this process: the system
/// watches the thread.
pub(super) fn command(program: &[String]) -> anyhow::Result<Command> {
    let this = own_file()?;
    let mut command = Command::new(&this);
    command.args(["as-child", &std::process::id().to_string(), "--"]);
    match program.split_first() {
        Some((first, rest)) if first == "settle" => command.arg(&this).args(rest),
        Some((first, rest)) => command.arg(located(first).unwrap_or_else(|| first.into())).args(rest),
        None => &mut command,
    };
    // What they go by stands in their files; a setting that is meant for this process must not reach them.
    for (name, _) in std::env::vars_os() {
        if name.to_str().is_some_and(|name| name.starts_with("SETTLE_") && name != "SETTLE_LOG") {
            command.env_remove(name);
        }
    }
    // What they print goes to a file.
    command.env("NO_COLOR", "1");
    // Ctrl-C in the terminal is for us, who stop them in order.
    command.process_group(0);
    Ok(command)
}

/// Becomes the program.
pub(crate) fn as_child(args: &ChildArgs) -> anyhow::Result<ExitCode> {
    set_parent_process_death_signal(Some(Signal::KILL)).context("cannot ask to end with the parent")?;
    // It may have ended before it was asked for.
    let parent = getppid().map(Pid::as_raw_nonzero).map(|pid| pid.get().unsigned_abs());
    anyhow::ensure!(parent == Some(args.parent), "process {}, which started this one, is gone", args.parent);
    let (program, rest) = args.command.split_first().context("no program is named")?;
    let error = Command::new(program).args(rest).exec();
    Err(error).with_context(|| format!("cannot start {program}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_that_was_put_in_the_place_of_this_one_is_its_successor() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("settle");
        let gone = folder.path().join("settle (deleted)");
        assert_eq!(in_its_place(gone.clone()), gone, "there is none");
        std::fs::write(&file, "").unwrap();
        assert_eq!(in_its_place(gone.clone()), file);
        assert_eq!(in_its_place(file.clone()), file);
        std::fs::write(&gone, "").unwrap();
        assert_eq!(in_its_place(gone.clone()), gone, "somebody calls it so");
    }
}
