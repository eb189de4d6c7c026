//! One child process, its output, and the signals it is sent.

use std::fs::File;
use std::io;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use rustix::process::{Pid, Signal, kill_process};

/// How often a condition is looked at.
const GLANCE: Duration = Duration::from_millis(5);

/// A server that runs as a child of this process. It is killed when it is dropped.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    output: PathBuf,
}

impl Process {
    /// Starts `command`; what it prints is appended to `output`.
    ///
    /// # Errors
    /// If the program is not installed, or `output` cannot be written.
    pub fn start(name: &str, command: &mut Command, output: &Path) -> anyhow::Result<Self> {
        let open = || File::options().create(true).append(true).open(output);
        let to = open().with_context(|| format!("cannot write {}", output.display()))?;
        let errors = to.try_clone()?;
        let program = command.get_program().to_string_lossy().into_owned();
        let child = command.stdin(Stdio::null()).stdout(to).stderr(errors).spawn().map_err(|error| {
            if error.kind() == io::ErrorKind::NotFound {
                anyhow::anyhow!("{program} is not installed: `cargo xtask test` installs what the tests need")
            } else {
                anyhow::anyhow!("cannot start {program}: {error}")
            }
        })?;
        Ok(Self { name: name.to_owned(), child, output: output.to_owned() })
    }

    /// Waits until `ready` says so.
    ///
    /// # Errors
    /// If the process ends, or `patience` does, before that; with the last of what it printed.
    pub fn wait_until_ready(&mut self, patience: Duration, mut ready: impl FnMut() -> bool) -> anyhow::Result<()> {
        let until = Instant::now() + patience;
        loop {
            if ready() {
                return Ok(());
            }
            if let Some(status) = self.child.try_wait()? {
                bail!("{} ended ({status}) before it was ready. Its last words:\n{}", self.name, self.last_words());
            }
            if Instant::now() > until {
                bail!("{} was not ready within {patience:?}. Its last words:\n{}", self.name, self.last_words());
            }
            std::thread::sleep(GLANCE);
        }
    }

    /// The process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// How it ended, if it has.
    ///
    /// # Errors
    /// Those of the operating system.
    pub fn ended(&mut self) -> anyhow::Result<Option<ExitStatus>> {
        Ok(self.child.try_wait()?)
    }

    /// Asks it to end (SIGTERM). One that is frozen hears of it when it thaws.
    ///
    /// # Errors
    /// Those of the operating system.
    pub fn terminate(&self) -> anyhow::Result<()> {
        self.signal(Signal::TERM)
    }

    /// Ends it at once, as the end of its machine would, and waits until it is gone.
    ///
    /// # Errors
    /// Those of the operating system.
    pub fn kill(&mut self) -> anyhow::Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    /// Stops it where it stands (SIGSTOP): its connections stay, and nothing answers.
    ///
    /// # Errors
    /// Those of the operating system.
    pub fn freeze(&self) -> anyhow::Result<()> {
        self.signal(Signal::STOP)
    }

    /// Lets a frozen one go on.
    ///
    /// # Errors
    /// Those of the operating system.
    pub fn thaw(&self) -> anyhow::Result<()> {
        self.signal(Signal::CONT)
    }

    fn signal(&self, signal: Signal) -> anyhow::Result<()> {
        Ok(kill_process(Pid::from_child(&self.child), signal)?)
    }

    /// The last lines that it printed.
    pub fn last_words(&self) -> String {
        let text = std::fs::read_to_string(&self.output).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(15)..].join("\n")
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended of its own accord; there is nobody to tell of anything else.
        _ = self.kill();
    }
}

/// A port of 127.0.0.1 that nobody listens on. Another process may take it before it is used: whoever uses it tries again then.
///
/// # Errors
/// If there is none left.
pub fn free_port() -> io::Result<u16> {
    Ok(TcpListener::bind(("127.0.0.1", 0))?.local_addr()?.port())
}

/// Waits until `condition` holds, and says whether it did within `patience`.
pub fn wait_until(patience: Duration, mut condition: impl FnMut() -> bool) -> bool {
    let until = Instant::now() + patience;
    while !condition() {
        if Instant::now() > until {
            return false;
        }
        std::thread::sleep(GLANCE);
    }
    true
}
