//! NATS: single servers, with JetStream or without.

use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use tempfile::TempDir;

use crate::process::{Process, free_port};

/// How long a server may take to answer its first PING.
const PATIENCE: Duration = Duration::from_secs(10);
/// How often another port is tried when somebody was faster.
const TRIES: usize = 5;

/// A `nats-server`.
#[derive(Debug)]
pub struct Server {
    process: Process,
    port: u16,
    words: Vec<String>,
    folder: TempDir,
}

impl Server {
    /// Starts a server with JetStream.
    ///
    /// # Errors
    /// If it is not installed, or does not come up.
    pub fn start() -> anyhow::Result<Self> {
        Self::start_with(true, &[])
    }

    /// Starts a server, with JetStream or without, and with further words on its command line, such as `["--user", "a", "--pass", "b"]`.
    ///
    /// # Errors
    /// If it is not installed, or does not come up.
    pub fn start_with(jetstream: bool, further: &[&str]) -> anyhow::Result<Self> {
        let mut last = None;
        for _ in 0..TRIES {
            match Self::try_start(jetstream, further) {
                Ok(server) => return Ok(server),
                Err(error) => last = Some(error),
            }
        }
        Err(last.unwrap_or_else(|| anyhow::anyhow!("no port was tried")))
    }

    fn try_start(jetstream: bool, further: &[&str]) -> anyhow::Result<Self> {
        let folder = tempfile::tempdir()?;
        let port = free_port()?;
        let store = folder.path().join("jetstream").display().to_string();
        let of_jetstream = if jetstream { vec!["--jetstream", "--store_dir", &store] } else { vec![] };
        let words: Vec<String> = ["--addr", "127.0.0.1"]
            .into_iter()
            .chain(of_jetstream)
            .chain(further.iter().copied())
            .map(str::to_owned)
            .collect();
        let process = run(&folder, port, &words)?;
        Ok(Self { process, port, words, folder })
    }

    /// Starts it again after a [kill](Self::kill), on the same port, with what it had written down.
    ///
    /// # Errors
    /// If it does not come up.
    pub fn restart(&mut self) -> anyhow::Result<()> {
        _ = self.process.kill();
        self.process = run(&self.folder, self.port, &self.words)?;
        Ok(())
    }

    /// The port it listens on.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Where it listens: `nats://127.0.0.1:PORT`.
    pub fn address(&self) -> String {
        format!("nats://127.0.0.1:{}", self.port)
    }

    /// Its process.
    pub fn process(&mut self) -> &mut Process {
        &mut self.process
    }

    /// Ends it at once, without a word.
    ///
    /// # Errors
    /// Those of the operating system.
    pub fn kill(&mut self) -> anyhow::Result<()> {
        self.process.kill()
    }

    /// Stops it where it stands: its connections stay, and nothing answers.
    ///
    /// # Errors
    /// Those of the operating system.
    pub fn freeze(&self) -> anyhow::Result<()> {
        self.process.freeze()
    }

    /// Lets a frozen one go on.
    ///
    /// # Errors
    /// Those of the operating system.
    pub fn thaw(&self) -> anyhow::Result<()> {
        self.process.thaw()
    }

    /// The folder with its data.
    pub fn folder(&self) -> PathBuf {
        self.folder.path().to_owned()
    }
}

fn run(folder: &TempDir, port: u16, words: &[String]) -> anyhow::Result<Process> {
    let mut command = Command::new("nats-server");
    command.args(["--port", &port.to_string()]).args(words);
    let mut process = Process::start("nats-server", &mut command, &folder.path().join("output.log"))?;
    process.wait_until_ready(PATIENCE, || answers(port))?;
    Ok(process)
}

/// Whether a server says who it is, and is done with its start: then it takes connections, JetStream and all.
fn answers(port: u16) -> bool {
    let attempt = || -> anyhow::Result<bool> {
        let stream = TcpStream::connect(("127.0.0.1", port))?;
        stream.set_read_timeout(Some(Duration::from_secs(2)))?;
        let (mut reader, mut line) = (BufReader::new(&stream), String::new());
        reader.read_line(&mut line)?;
        let greets = line.starts_with("INFO ");
        // Closed with a word, so that its log is not full of broken connections.
        _ = (&stream).write_all(b"PING\r\n");
        Ok(greets)
    };
    attempt().unwrap_or(false)
}
