//! Redis: single servers, replicas, Sentinels.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use anyhow::Context;
use tempfile::TempDir;

use crate::process::{Process, free_port, wait_until};

/// How long a server may take to answer its first PING.
const PATIENCE: Duration = Duration::from_secs(10);
/// How often another port is tried when somebody was faster.
const TRIES: usize = 5;

/// How a server keeps what it is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Persistence {
    /// Nothing is written down.
    None,
    /// The append-only file, flushed about once a second.
    EverySecond,
    /// The append-only file, flushed before every answer.
    Always,
}

impl Persistence {
    fn settings(self) -> [&'static str; 4] {
        match self {
            Self::None => ["--appendonly", "no", "--appendfsync", "everysec"],
            Self::EverySecond => ["--appendonly", "yes", "--appendfsync", "everysec"],
            Self::Always => ["--appendonly", "yes", "--appendfsync", "always"],
        }
    }
}

/// A `redis-server`.
#[derive(Debug)]
pub struct Server {
    process: Process,
    port: u16,
    words: Vec<String>,
    folder: TempDir,
}

impl Server {
    /// Starts a server.
    ///
    /// # Errors
    /// If it is not installed, or does not come up.
    pub fn start(persistence: Persistence) -> anyhow::Result<Self> {
        Self::start_with(persistence, &[])
    }

    /// Starts a server with further words on its command line, such as `["--maxmemory", "1mb"]`.
    ///
    /// # Errors
    /// If it is not installed, or does not come up.
    pub fn start_with(persistence: Persistence, further: &[&str]) -> anyhow::Result<Self> {
        let mut last = None;
        for _ in 0..TRIES {
            match Self::try_start(persistence, further) {
                Ok(server) => return Ok(server),
                Err(error) => last = Some(error),
            }
        }
        Err(last.unwrap_or_else(|| anyhow::anyhow!("no port was tried")))
    }

    fn try_start(persistence: Persistence, further: &[&str]) -> anyhow::Result<Self> {
        let folder = tempfile::tempdir()?;
        let port = free_port()?;
        let words: Vec<String> = ["--save", "", "--bind", "127.0.0.1", "--repl-diskless-sync-delay", "0"]
            .into_iter()
            .chain(persistence.settings())
            .chain(further.iter().copied())
            .map(str::to_owned)
            .collect();
        let process = run(&folder, port, &words)?;
        Ok(Self { process, port, words, folder })
    }

    /// Starts a replica of this server, which keeps what it is told in the same way.
    ///
    /// # Errors
    /// If it is not installed, or does not come up.
    pub fn start_replica(&self, persistence: Persistence) -> anyhow::Result<Self> {
        Self::start_with(persistence, &["--replicaof", "127.0.0.1", &self.port.to_string()])
    }

    /// Starts it again after a [kill](Self::kill), on the same port, with the data that it had written down.
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

    /// Where it listens: `127.0.0.1:PORT`.
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
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

    /// The folder with its data.
    pub fn folder(&self) -> PathBuf {
        self.folder.path().to_owned()
    }

    /// Sends one command, its words parted by blanks, and returns the raw answer.
    ///
    /// # Errors
    /// If it can't be reached, or is silent for two seconds.
    pub fn ask(&self, command: &str) -> anyhow::Result<String> {
        ask(self.port, command)
    }
}

fn run(folder: &TempDir, port: u16, words: &[String]) -> anyhow::Result<Process> {
    let mut command = Command::new("redis-server");
    command.args(["--port", &port.to_string(), "--dir"]).arg(folder.path()).args(words);
    let mut process = Process::start("redis-server", &mut command, &folder.path().join("output.log"))?;
    process.wait_until_ready(PATIENCE, || ask(port, "PING").is_ok_and(|answer| answer.starts_with("+PONG")))?;
    Ok(process)
}

/// A `redis-sentinel`.
#[derive(Debug)]
pub struct Sentinel {
    process: Process,
    port: u16,
    _folder: TempDir,
}

impl Sentinel {
    /// Starts a Sentinel that watches `master` under `name`, agrees on its death with `quorum` Sentinels, and calls it dead when it has
    /// been silent for `down_after`.
    ///
    /// # Errors
    /// If it is not installed, or does not come up.
    pub fn start(name: &str, master: &Server, quorum: usize, down_after: Duration) -> anyhow::Result<Self> {
        let mut last = None;
        for _ in 0..TRIES {
            match Self::try_start(name, master.port, quorum, down_after) {
                Ok(sentinel) => return Ok(sentinel),
                Err(error) => last = Some(error),
            }
        }
        Err(last.unwrap_or_else(|| anyhow::anyhow!("no port was tried")))
    }

    fn try_start(name: &str, master: u16, quorum: usize, down_after: Duration) -> anyhow::Result<Self> {
        let folder = tempfile::tempdir()?;
        let port = free_port()?;
        let file = folder.path().join("sentinel.conf");
        let down_after = down_after.as_millis();
        let text = format!(
            "port {port}\nbind 127.0.0.1\nsentinel monitor {name} 127.0.0.1 {master} {quorum}\n\
             sentinel down-after-milliseconds {name} {down_after}\nsentinel failover-timeout {name} 4000\n"
        );
        std::fs::write(&file, text).with_context(|| format!("cannot write {}", file.display()))?;
        let mut command = Command::new("redis-sentinel");
        command.arg(&file).arg("--dir").arg(folder.path());
        let mut process = Process::start("redis-sentinel", &mut command, &folder.path().join("output.log"))?;
        process.wait_until_ready(PATIENCE, || ask(port, "PING").is_ok_and(|answer| answer.starts_with("+PONG")))?;
        Ok(Self { process, port, _folder: folder })
    }

    /// Where it listens: `127.0.0.1:PORT`.
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// Its process.
    pub fn process(&mut self) -> &mut Process {
        &mut self.process
    }

    /// Sends one command, its words parted by blanks, and returns the raw answer.
    ///
    /// # Errors
    /// If it can't be reached, or is silent for two seconds.
    pub fn ask(&self, command: &str) -> anyhow::Result<String> {
        ask(self.port, command)
    }
}

/// One inline command to a server or Sentinel on this machine, and its raw answer.
///
/// # Errors
/// If it can't be reached, or is silent for two seconds.
pub fn ask(port: u16, command: &str) -> anyhow::Result<String> {
    ask_within(Duration::from_secs(2), port, command)
}

/// The same, with a patience of one's own for each read.
///
/// # Errors
/// If it can't be reached, or is silent for so long.
pub fn ask_within(patience: Duration, port: u16, command: &str) -> anyhow::Result<String> {
    let stream = TcpStream::connect_timeout(&SocketAddr::from(([127, 0, 0, 1], port)), patience)?;
    stream.set_read_timeout(Some(patience))?;
    (&stream).write_all(format!("{command}\r\n").as_bytes())?;
    let (mut reader, mut answer) = (BufReader::new(&stream), Vec::new());
    // A list announces how many answers follow it, a text how many bytes.
    let mut expected = 1;
    while expected > 0 {
        expected -= 1;
        let from = answer.len();
        anyhow::ensure!(reader.read_until(b'\n', &mut answer)? > 0, "the server closed the connection");
        let line = String::from_utf8_lossy(&answer[from..]).into_owned();
        let length =
            line.get(1..).and_then(|rest| rest.trim().parse::<i64>().ok()).and_then(|n| usize::try_from(n).ok());
        match (line.as_bytes()[0], length) {
            (b'*', Some(parts)) => expected += parts,
            (b'$', Some(bytes)) => {
                let from = answer.len();
                answer.resize(from + bytes + 2, 0);
                reader.read_exact(&mut answer[from..])?;
            }
            _ => {}
        }
    }
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

/// A master with replicas, and Sentinels that watch them.
#[derive(Debug)]
pub struct Watched {
    /// The name that the Sentinels know the master by.
    pub name: String,
    /// The master of the beginning, and its replicas.
    pub servers: Vec<Server>,
    /// The Sentinels.
    pub sentinels: Vec<Sentinel>,
}

impl Watched {
    /// Starts a master, `replicas` replicas and `sentinels` Sentinels, a majority of which must agree, and waits until they all know each
    /// other.
    ///
    /// # Errors
    /// If one is not installed, or they do not find each other.
    pub fn start(
        persistence: Persistence,
        replicas: usize,
        sentinels: usize,
        down_after: Duration,
    ) -> anyhow::Result<Self> {
        let name = "shop".to_owned();
        let master = Server::start(persistence)?;
        let mut servers = vec![];
        for _ in 0..replicas {
            servers.push(master.start_replica(persistence)?);
        }
        let in_touch = || {
            let told = master.ask("INFO replication").unwrap_or_default();
            told.matches("state=online").count() == replicas
        };
        anyhow::ensure!(wait_until(PATIENCE, in_touch), "the replicas did not find their master");
        let started: anyhow::Result<Vec<Sentinel>> =
            (0..sentinels).map(|_| Sentinel::start(&name, &master, sentinels / 2 + 1, down_after)).collect();
        servers.insert(0, master);
        let watched = Self { name, servers, sentinels: started? };
        let know_each_other = || watched.sentinels.iter().all(|sentinel| watched.is_known_to(sentinel));
        anyhow::ensure!(wait_until(Duration::from_secs(30), know_each_other), "the Sentinels did not find each other");
        Ok(watched)
    }

    /// A number that the Sentinel tells of the master, by the name that it gives it.
    fn told(&self, sentinel: &Sentinel, number: &str) -> Option<u64> {
        let told = sentinel.ask(&format!("SENTINEL MASTER {}", self.name)).unwrap_or_default();
        let words: Vec<&str> = told.lines().collect();
        // A name, the length of its value, the value.
        words.iter().position(|word| *word == number).and_then(|at| words.get(at + 2)?.parse().ok())
    }

    fn is_known_to(&self, sentinel: &Sentinel) -> bool {
        let others = |all: usize| u64::try_from(all - 1).ok();
        self.told(sentinel, "num-slaves") == others(self.servers.len())
            && self.told(sentinel, "num-other-sentinels") == others(self.sentinels.len())
    }

    /// The newest epoch in which a Sentinel says that a master was promoted: each failover has a later one than those before it, and
    /// one that failed leaves a gap. So there were at most that many.
    pub fn epoch(&self) -> u64 {
        self.sentinels.iter().filter_map(|sentinel| self.told(sentinel, "config-epoch")).max().unwrap_or(0)
    }

    /// Where the Sentinels listen.
    pub fn addresses(&self) -> Vec<String> {
        self.sentinels.iter().map(Sentinel::address).collect()
    }

    /// Which of the servers says that it is a master and answers at all; the last, should there be several.
    pub fn master(&self) -> Option<usize> {
        self.servers.iter().rposition(|server| server.ask("ROLE").is_ok_and(|role| role.contains("master")))
    }
}
