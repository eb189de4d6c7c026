//! One component while the system runs: its process, whether it is ready, and when it is started again.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use servers::Process;
use servers::redis::ask_within;

use super::child;
use super::held::{hold, is_in_force};
use super::page::{Stage, Told};
use super::plan::{Component, Kind, write_files};
use super::state::Entry;

/// How long one question about readiness may take.
const GLANCE: Duration = Duration::from_millis(300);
/// How soon something that ended is started again, at first and at most.
const PAUSES: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(5));
/// How long a database waits for a failover that the Sentinels are about, before it is started as it was.
const FAILOVER: Duration = Duration::from_secs(8);
/// How long one may take to be ready before it is told what it says about that.
const SLOW: Duration = Duration::from_secs(5);
/// How long it must have run for the pause to be short again.
const SOUND: Duration = Duration::from_secs(10);

/// The state of one that answers.
pub(super) const RUNNING: &str = "running";

/// Where a component is in its life.
#[derive(Debug)]
pub(super) enum Life {
    /// Not started yet.
    Planned,
    /// Its process runs, and does not answer yet.
    Starting(Process),
    /// It answers, or did when it was asked last.
    Running(Process),
    /// It ended like this: `was killed (SIGKILL)`.
    Ended(String),
}

/// One component and what became of it.
#[derive(Debug)]
pub(super) struct Member {
    pub(super) component: Component,
    pub(super) life: Life,
    pub(super) restarts: u32,
    log: PathBuf,
    started: Instant,
    pause: Duration,
    /// Whether it was told that it takes long.
    told_slow: bool,
}

impl Member {
    pub(super) fn new(component: Component, data: &Path) -> Self {
        let log = data.join(&component.name).join("output.log");
        let (life, pause) = (Life::Planned, PAUSES.0);
        Self { component, life, restarts: 0, log, started: Instant::now(), pause, told_slow: false }
    }

    pub(super) fn start(&mut self, data: &Path) -> anyhow::Result<()> {
        self.start_with(data, &[])
    }

    /// Starts it with further words on its command line.
    fn start_with(&mut self, data: &Path, further: &[String]) -> anyhow::Result<()> {
        write_files(&self.component, data)?;
        let mut command = child::command(&self.component.command)?;
        command.args(further);
        command.current_dir(data.join(&self.component.name));
        let process = Process::start(&self.component.name, &mut command, &self.log)?;
        self.started = Instant::now();
        self.told_slow = false;
        self.life = Life::Starting(process);
        Ok(())
    }

    /// Looks whether it ended, and says how if that is news.
    pub(super) fn look(&mut self) -> anyhow::Result<Option<String>> {
        let (Life::Starting(process) | Life::Running(process)) = &mut self.life else { return Ok(None) };
        let Some(status) = process.ended()? else { return Ok(None) };
        if self.started.elapsed() > SOUND {
            self.pause = PAUSES.0;
        }
        let how = how_it_ended(status);
        self.life = Life::Ended(how.clone());
        self.started = Instant::now();
        Ok(Some(how))
    }

    /// The file that holds it down, if one does.
    pub(super) fn held(&self, data: &Path) -> Option<PathBuf> {
        Some(hold(data, &self.component.name)).filter(|file| is_in_force(file))
    }

    /// Starts it again if its pause is over and nobody holds it down.
    ///
    /// A database that is no longer the master is started as a replica of who is, as the Sentinels at these ports say. By itself it would come
    /// back as the master that it was, and the Sentinels would look at that for eight seconds before they demote it: eight seconds for which a
    /// replica is missing. While they are about to replace it, it waits for them.
    pub(super) fn start_again(&mut self, data: &Path, sentinels: &[u16]) -> anyhow::Result<bool> {
        let down = self.started.elapsed();
        let due = matches!(self.life, Life::Ended(_)) && down >= self.pause;
        if !due || self.held(data).is_some() {
            return Ok(false);
        }
        let service = service_of(&self.component.name).filter(|_| self.component.kind == Kind::Redis);
        let told = service.and_then(|service| Mastery::of(service, sentinels));
        let further = match told {
            Some(Mastery { port, .. }) if port != self.component.port => {
                vec!["--replicaof".to_owned(), "127.0.0.1".to_owned(), port.to_string()]
            }
            Some(Mastery { in_doubt: true, .. }) if down < self.pause + FAILOVER => return Ok(false),
            _ => vec![],
        };
        self.pause = (self.pause * 2).min(PAUSES.1);
        self.restarts += 1;
        self.start_with(data, &further)?;
        Ok(true)
    }

    /// Asks one that is starting whether it is ready, and says so if that is news.
    pub(super) fn become_ready(&mut self) -> bool {
        if !matches!(self.life, Life::Starting(_)) || !is_ready(self.component.kind, self.component.port) {
            return false;
        }
        if let Life::Starting(process) = std::mem::replace(&mut self.life, Life::Planned) {
            self.life = Life::Running(process);
        }
        true
    }

    /// Why one takes long to be ready, as far as it says, if that is news.
    pub(super) fn takes_long(&mut self) -> Option<String> {
        let slow = matches!(self.life, Life::Starting(_)) && self.started.elapsed() > SLOW;
        if !slow || std::mem::replace(&mut self.told_slow, true) {
            return None;
        }
        let (name, said) = (&self.component.name, self.said_last(1));
        Some(format!("{name} is not ready after {} s; it said last: {said}", SLOW.as_secs()))
    }

    /// The last lines of its log.
    pub(super) fn said_last(&self, lines: usize) -> String {
        let text = std::fs::read_to_string(&self.log).unwrap_or_default();
        let all: Vec<&str> = text.lines().collect();
        all[all.len().saturating_sub(lines)..].join("\n")
    }

    pub(super) fn process(&mut self) -> Option<&mut Process> {
        match &mut self.life {
            Life::Starting(process) | Life::Running(process) => Some(process),
            Life::Planned | Life::Ended(_) => None,
        }
    }

    pub(super) fn pid(&self) -> Option<u32> {
        match &self.life {
            Life::Starting(process) | Life::Running(process) => Some(process.id()),
            Life::Planned | Life::Ended(_) => None,
        }
    }

    /// What the page is told of it.
    pub(super) fn told(&self, data: &Path) -> Told {
        let stage = match &self.life {
            Life::Planned | Life::Starting(_) => Stage::Starting,
            Life::Running(_) => Stage::Running,
            Life::Ended(how) => Stage::Ended(how.clone()),
        };
        let Component { name, kind, port, .. } = &self.component;
        let pid = self.pid();
        let held = self.held(data).filter(|_| matches!(stage, Stage::Ended(_)));
        Told { name: name.clone(), kind: *kind, port: *port, pid, stage, frozen: pid.is_some_and(is_frozen), held }
    }

    /// Its state in words, for people: [`RUNNING`] or why not.
    pub(super) fn state(&self) -> String {
        match &self.life {
            Life::Planned => "planned".to_owned(),
            Life::Starting(process) if is_frozen(process.id()) => "frozen".to_owned(),
            Life::Running(process) if is_frozen(process.id()) => "frozen".to_owned(),
            Life::Starting(_) => "starting".to_owned(),
            Life::Running(_) => RUNNING.to_owned(),
            Life::Ended(how) => how.clone(),
        }
    }

    pub(super) fn log(&self) -> &Path {
        &self.log
    }

    pub(super) fn entry(&self) -> Entry {
        Entry {
            name: self.component.name.clone(),
            kind: self.component.kind,
            pid: self.pid(),
            port: self.component.port,
            log: self.log.clone(),
            command: self.component.command.clone(),
            restarts: self.restarts,
            ready: matches!(self.life, Life::Running(_)),
        }
    }
}

/// What became of a process, in words that go behind its name.
fn how_it_ended(status: ExitStatus) -> String {
    let Some(signal) = status.signal() else {
        return match status.code() {
            Some(0) => "ended in order".to_owned(),
            Some(code) => format!("ended with exit code {code}"),
            None => format!("ended ({status})"),
        };
    };
    let killed = |by: &str| format!("was killed ({by})");
    let crashed = |by: &str| format!("crashed ({by})");
    match Signal::from_named_raw(signal) {
        Some(Signal::KILL) => killed("SIGKILL"),
        Some(Signal::TERM) => killed("SIGTERM"),
        Some(Signal::INT) => killed("SIGINT"),
        Some(Signal::ABORT) => crashed("SIGABRT"),
        Some(Signal::SEGV) => crashed("SIGSEGV"),
        Some(Signal::BUS) => crashed("SIGBUS"),
        Some(Signal::ILL) => crashed("SIGILL"),
        _ => killed(&format!("signal {signal}")),
    }
}

/// The service whose database this is, by the name that Sentinels know its master by.
fn service_of(name: &str) -> Option<&str> {
    name.strip_prefix("redis-")?.rsplit_once('-').map(|(service, _)| service)
}

/// Who is a service's master, as most of its Sentinels say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Mastery {
    port: u16,
    /// One of them does not hear of it any more, or replaces it.
    in_doubt: bool,
}

impl Mastery {
    /// Asks the Sentinels at these ports.
    fn of(service: &str, sentinels: &[u16]) -> Option<Self> {
        let ask = |port: u16, what: &str| ask_within(GLANCE, port, &format!("SENTINEL {what} {service}")).ok();
        let said = |port: &u16| {
            let named = ask(*port, "GET-MASTER-ADDR-BY-NAME")?;
            let fields = ask(*port, "MASTER")?;
            let master = named.lines().last()?.trim().parse::<u16>().ok()?;
            // The name of a field, the length of what it says, and that.
            let flags = fields.lines().skip_while(|line| *line != "flags").nth(2)?;
            Some((master, flags.contains("down") || flags.contains("failover")))
        };
        Self::most(&sentinels.iter().filter_map(said).collect::<Vec<_>>(), sentinels.len())
    }

    /// What most of so many say.
    fn most(said: &[(u16, bool)], of: usize) -> Option<Self> {
        let votes = |port: u16| said.iter().filter(|(other, _)| *other == port).count();
        let (port, _) = said.iter().copied().find(|(port, _)| 2 * votes(*port) > of)?;
        Some(Self { port, in_doubt: said.iter().any(|(_, in_doubt)| *in_doubt) })
    }
}

/// Whether a process is stopped where it stands (SIGSTOP).
pub(crate) fn is_frozen(pid: u32) -> bool {
    // The state is the letter behind the name, which is in parentheses and may hold anything.
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with('T'))
}

/// What a process uses: seconds of processor time in all, and bytes of resident memory.
pub(super) fn usage(pid: u32) -> Option<(f64, u64)> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The state is the third field, the first behind the name.
    let fields: Vec<&str> = stat.rsplit_once(") ")?.1.split_whitespace().collect();
    let number = |field: usize| fields.get(field - 3)?.parse::<u64>().ok();
    let ticks = number(14)?.checked_add(number(15)?)?;
    let seconds = ticks as f64 / rustix::param::clock_ticks_per_second() as f64;
    Some((seconds, number(24)?.saturating_mul(rustix::param::page_size() as u64)))
}

/// Whether a component answers as one that can be used.
pub(crate) fn is_ready(kind: Kind, port: u16) -> bool {
    match kind {
        Kind::Redis | Kind::Sentinel => {
            ask_within(GLANCE, port, "PING").is_ok_and(|answer| answer.starts_with("+PONG"))
        }
        Kind::Nats => first_line(port, "").is_some_and(|line| line.starts_with("INFO ")),
        Kind::Gateway => TcpStream::connect_timeout(&local(port), GLANCE).is_ok(),
        Kind::Prometheus => {
            let question = "GET /-/ready HTTP/1.1\r\nhost: settle\r\nconnection: close\r\n\r\n";
            first_line(port, question).is_some_and(|line| line.contains(" 200 "))
        }
        Kind::Order | Kind::Stock | Kind::Payment | Kind::Shop => {
            let prefix = kind.service().map_or_else(String::new, |service| format!("/{}", service.section()));
            let question = format!("GET {prefix}/health HTTP/1.1\r\nhost: settle\r\nconnection: close\r\n\r\n");
            first_line(port, &question).is_some_and(|line| line.contains(" 200 "))
        }
    }
}

fn local(port: u16) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], port))
}

fn first_line(port: u16, question: &str) -> Option<String> {
    let mut stream = TcpStream::connect_timeout(&local(port), GLANCE).ok()?;
    stream.set_read_timeout(Some(GLANCE)).ok()?;
    stream.write_all(question.as_bytes()).ok()?;
    let mut line = String::new();
    BufReader::new(stream.take(4096)).read_line(&mut line).ok()?;
    Some(line)
}

/// What a service on this machine answers to a GET, as JSON, whatever the status; `None` if it does not answer within `patience`.
pub(crate) fn ask_service(port: u16, path: &str, patience: Duration) -> Option<serde_json::Value> {
    let mut stream = TcpStream::connect_timeout(&local(port), patience).ok()?;
    stream.set_read_timeout(Some(patience)).ok()?;
    stream.write_all(format!("GET {path} HTTP/1.1\r\nhost: settle\r\nconnection: close\r\n\r\n").as_bytes()).ok()?;
    let mut text = String::new();
    stream.take(64 * 1024).read_to_string(&mut text).ok()?;
    serde_json::from_str(text.split_once("\r\n\r\n")?.1).ok()
}

/// The program that a component needs and that must be installed; Debian's packages have the same names.
pub(super) fn foreign(component: &Component) -> Option<&str> {
    component.command.first().map(String::as_str).filter(|program| *program != "settle")
}

/// Where a program is: where the shell would find it, or among the system's own, which are not on everybody's path.
pub(super) fn located(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let system = ["/usr/local/sbin", "/usr/sbin", "/sbin"].map(PathBuf::from);
    std::env::split_paths(&path).chain(system).map(|folder| folder.join(name)).find(|file| file.is_file())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_reads_of_an_end_reads_whether_somebody_meant_it() {
        let words = |raw| how_it_ended(ExitStatus::from_raw(raw));
        for (raw, expected) in [
            (9, "was killed (SIGKILL)"),
            (15, "was killed (SIGTERM)"),
            (6, "crashed (SIGABRT)"),
            (11 | 0x80, "crashed (SIGSEGV)"),
            (25, "was killed (signal 25)"),
            (0, "ended in order"),
            (2 << 8, "ended with exit code 2"),
        ] {
            assert_eq!(words(raw), expected);
        }
    }

    #[test]
    fn the_master_is_whom_most_sentinels_name_and_in_doubt_if_one_doubts() {
        let most = |said: &[(u16, bool)]| Mastery::most(said, 3).map(|it| (it.port, it.in_doubt));
        assert_eq!(most(&[(1, false), (1, false), (1, false)]), Some((1, false)));
        assert_eq!(most(&[(2, false), (1, true), (1, false)]), Some((1, true)), "its failover has begun");
        assert_eq!(most(&[(2, false), (2, false)]), Some((2, false)), "one is away");
        assert_eq!(most(&[(2, false)]), None, "one alone may be of yesterday");
        assert_eq!(most(&[(1, false), (2, false), (3, false)]), None);
        assert_eq!(service_of("redis-stock-3"), Some("stock"));
        assert_eq!(service_of("sentinel-1"), None);
    }
}
