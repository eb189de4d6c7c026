//! HAProxy.

use std::net::TcpStream;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, bail};
use tempfile::TempDir;

use crate::process::Process;

/// How long it may take to accept its first connection.
const PATIENCE: Duration = Duration::from_secs(10);

/// A `haproxy` in the foreground.
#[derive(Debug)]
pub struct Haproxy {
    process: Process,
    _folder: TempDir,
}

impl Haproxy {
    /// Starts one by the `haproxy.cfg` in `folder`, which it then owns; it binds `port` of 127.0.0.1.
    ///
    /// # Errors
    /// If it is not installed, refuses the configuration, or does not come up.
    pub fn start(folder: TempDir, port: u16) -> anyhow::Result<Self> {
        let mut command = Command::new("haproxy");
        command.args(["-db", "-f"]).arg(folder.path().join("haproxy.cfg"));
        let mut process = Process::start("haproxy", &mut command, &folder.path().join("output.log"))?;
        process.wait_until_ready(PATIENCE, || TcpStream::connect(("127.0.0.1", port)).is_ok())?;
        Ok(Self { process, _folder: folder })
    }

    /// Its process.
    pub fn process(&mut self) -> &mut Process {
        &mut self.process
    }
}

/// Has HAProxy look at a configuration without starting.
///
/// # Errors
/// With what it has against it; warnings count.
pub fn check(file: &Path) -> anyhow::Result<()> {
    let mut command = Command::new("haproxy");
    command.args(["-c", "-dW", "-f"]).arg(file);
    let checked = command.output().context("cannot run haproxy: is it installed?")?;
    if !checked.status.success() {
        let said = String::from_utf8_lossy(&checked.stderr);
        bail!("haproxy refuses {}:\n{said}", file.display());
    }
    Ok(())
}
