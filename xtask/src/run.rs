//! Running commands, from the root of the project.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use rustix::process::{Pid, Signal, kill_process};

/// The root of the project.
pub(crate) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().map(Path::to_path_buf).unwrap_or_default()
}

/// The cargo that runs this.
pub(crate) fn cargo() -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(root());
    // What is built once and thrown away gains nothing from being built in pieces that could be built again.
    if std::env::var_os("CI").is_some() {
        command.env("CARGO_INCREMENTAL", "0");
    }
    command
}

/// Runs cargo with these words.
pub(crate) fn cargo_with(words: &[&str]) -> Command {
    let mut command = cargo();
    command.args(words);
    command
}

/// How long a step may take. Twice what the longest takes: whatever runs longer hangs, and would keep the machine until someone looks.
const STEP_LIMIT: Duration = Duration::from_secs(30 * 60);

/// Runs a step, saying which and how long it took. One that hangs is killed, after it was said which of its processes were left.
pub(crate) fn step(what: &str, command: &mut Command) -> anyhow::Result<()> {
    println!("\n── {what}");
    let began = Instant::now();
    let mut child = command.spawn().with_context(|| format!("{what}: cannot run {:?}", command.get_program()))?;
    let status = loop {
        if let Some(status) = child.try_wait()? {
            break status;
        }
        if began.elapsed() > STEP_LIMIT {
            let left = descendants(child.id());
            for (process, command_line) in left.iter().rev() {
                println!("left running: process {}: {command_line}", process.as_raw_nonzero());
                _ = kill_process(*process, Signal::KILL);
            }
            child.kill()?;
            child.wait()?;
            bail!("{what} did not end within {} s: {command:?}", STEP_LIMIT.as_secs());
        }
        std::thread::sleep(Duration::from_millis(50));
    };
    if !status.success() {
        bail!("{what} failed ({status}): {command:?}");
    }
    println!("── {what}: ok, {:.0} s", began.elapsed().as_secs_f64());
    Ok(())
}

/// The processes below this one, parents first, with their command lines.
fn descendants(process: u32) -> Vec<(Pid, String)> {
    let read = |process: Pid, file: &str| std::fs::read_to_string(format!("/proc/{}/{file}", process.as_raw_nonzero()));
    let parent = |process: Pid| {
        let status = read(process, "status").ok()?;
        status.lines().find_map(|line| line.strip_prefix("PPid:"))?.trim().parse::<i32>().ok()
    };
    let running: Vec<(Pid, i32)> = std::fs::read_dir("/proc")
        .into_iter()
        .flatten()
        .filter_map(|entry| Pid::from_raw(entry.ok()?.file_name().to_str()?.parse().ok()?))
        .filter_map(|process| Some((process, parent(process)?)))
        .collect();
    let mut parents = vec![process as i32];
    let mut found = Vec::new();
    while let Some(parent) = parents.pop() {
        for (child, _) in running.iter().filter(|(_, its_parent)| *its_parent == parent) {
            parents.push(child.as_raw_nonzero().get());
            found.push((*child, read(*child, "cmdline").unwrap_or_default().replace('\0', " ")));
        }
    }
    found
}

/// Whether a program is there. Not whether it likes `--version`: haproxy does not.
pub(crate) fn is_installed(program: &str) -> bool {
    Command::new(program).arg("--version").output().is_ok()
}
