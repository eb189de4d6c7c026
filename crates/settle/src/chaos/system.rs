//! The system under test, as `up.json` tells of it: who is who, and the signals they are sent.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use rustix::process::{Pid, Signal, kill_process, test_kill_process};

use super::events::{How, Who};
use crate::up::member::{ask_service, hold};
use crate::up::plan::Kind;
use crate::up::proxy::part;
use crate::up::roles::role;
use crate::up::state::{Entry, State};

/// How often something that is waited for is looked at.
const GLANCE: Duration = Duration::from_millis(50);
/// How long an instance may take to say how it is.
const PATIENCE: Duration = Duration::from_secs(3);

/// A running `settle up`.
#[derive(Debug)]
pub(super) struct System {
    data: PathBuf,
}

/// Somebody who was hit and is to be let go again. What was done is undone when it is dropped.
#[derive(Debug)]
pub(super) struct Victim {
    name: String,
    pid: u32,
    how: How,
    /// What holds it down, or parts it.
    file: PathBuf,
}

impl Drop for Victim {
    fn drop(&mut self) {
        // It may be gone, which is what was wanted.
        match self.how {
            How::Freeze => _ = signal(self.pid, Signal::CONT),
            How::Kill | How::Restart | How::Part => _ = std::fs::remove_file(&self.file),
        }
    }
}

impl Victim {
    pub(super) fn name(&self) -> &str {
        &self.name
    }
}

impl System {
    /// The system with its data in this folder.
    pub(super) fn at(data: PathBuf) -> anyhow::Result<Self> {
        let shown = data.display().to_string();
        let start = format!("start one with `settle up --restart --chaos --data {shown}`");
        let data = data.canonicalize().with_context(|| format!("no system has its data in {shown}: {start}"))?;
        let Some(state) = State::read(&data)? else { bail!("no system has its data in {shown}: {start}") };
        let runs = pid(state.pid).is_some_and(|pid| test_kill_process(pid).is_ok());
        anyhow::ensure!(runs, "the system in {shown} has stopped: {start}");
        anyhow::ensure!(state.restart, "the system in {shown} does not start again what is killed: {start}");
        let gateway = state.components.iter().any(|it| it.kind == Kind::Gateway);
        anyhow::ensure!(gateway, "the system in {shown} has no gateway to send checkouts to: {start}");
        Ok(Self { data })
    }

    fn state(&self) -> anyhow::Result<State> {
        State::read(&self.data)?.context("`settle up` took its state file away")
    }

    /// Whether databases and broker can be parted from the others.
    pub(super) fn proxied(&self) -> anyhow::Result<bool> {
        Ok(self.state()?.proxied)
    }

    /// Where clients connect.
    pub(super) fn gateway(&self) -> anyhow::Result<String> {
        Ok(self.state()?.gateway)
    }

    /// Hits somebody; `None` if there is nobody of that kind.
    pub(super) fn hit(&self, who: Who, how: How, random: &mut fastrand::Rng) -> anyhow::Result<Option<Victim>> {
        let Some(entry) = self.find(who, random)? else { return Ok(None) };
        let Some(id) = entry.pid else { return Ok(None) };
        let file = if how == How::Part { part(&self.data, &entry.name) } else { hold(&self.data, &entry.name) };
        let victim = Victim { file, name: entry.name, pid: id, how };
        if matches!(how, How::Kill | How::Part) {
            std::fs::write(&victim.file, "").context("cannot write into the data folder")?;
        }
        if how == How::Part {
            return Ok(Some(victim));
        }
        signal(id, if how == How::Freeze { Signal::STOP } else { Signal::KILL })
            .with_context(|| format!("cannot reach {} (process {id})", victim.name))?;
        Ok(Some(victim))
    }

    fn find(&self, who: Who, random: &mut fastrand::Rng) -> anyhow::Result<Option<Entry>> {
        let entries = self.state()?.components.into_iter().filter(|it| it.pid.is_some());
        let of = |service: crate::config::Service, it: &Entry| {
            it.kind == Kind::Redis && it.name.starts_with(&format!("redis-{}-", service.section()))
        };
        let found: Vec<Entry> = match who {
            Who::Any(kind) => entries.filter(|it| it.kind == kind).collect(),
            Who::Leader => entries.filter(|it| it.kind == Kind::Order && role(it.kind, it.port) == "leader").collect(),
            Who::Follower => {
                entries.filter(|it| it.kind == Kind::Order && role(it.kind, it.port) != "leader").collect()
            }
            Who::Master(service) => {
                entries.filter(|it| of(service, it) && role(it.kind, it.port) == "master").collect()
            }
            Who::Replica(service) => {
                entries.filter(|it| of(service, it) && role(it.kind, it.port).starts_with("replica")).collect()
            }
        };
        Ok(if found.is_empty() { None } else { found.get(random.usize(..found.len())).cloned() })
    }

    /// Waits until everybody runs and is ready again, at most so long; says who is not.
    pub(super) fn wait_until_complete(&self, patience: Duration) -> anyhow::Result<Vec<String>> {
        let until = Instant::now() + patience;
        loop {
            let state = self.state()?;
            let missing: Vec<String> = state
                .components
                .iter()
                .filter(|it| {
                    let alive = it.pid.and_then(pid).is_some_and(|pid| test_kill_process(pid).is_ok());
                    !(it.ready && alive)
                })
                .map(|it| it.name.clone())
                .collect();
            if missing.is_empty() || Instant::now() > until {
                return Ok(missing);
            }
            std::thread::sleep(GLANCE);
        }
    }

    /// How many transactions the order instances still work on; `None` if one does not say.
    pub(super) fn unsettled(&self) -> anyhow::Result<Option<u64>> {
        let state = self.state()?;
        let orders = state.components.iter().filter(|it| it.kind == Kind::Order);
        Ok(orders
            .map(|it| {
                let said = ask_service(it.port, "/health/deep", PATIENCE)?;
                Some(said["unsettled"].as_u64()? + said["in_flight"].as_u64()?)
            })
            .sum())
    }
}

fn pid(id: u32) -> Option<Pid> {
    Pid::from_raw(i32::try_from(id).ok()?)
}

fn signal(id: u32, signal: Signal) -> anyhow::Result<()> {
    let pid = pid(id).context("no such process")?;
    Ok(kill_process(pid, signal)?)
}
