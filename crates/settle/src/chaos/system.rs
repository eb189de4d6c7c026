//! The system under test, as `up.json` tells of it, or `serve.json`: who is who, and the signals they are sent.

use std::fs::{File, TryLockError};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, bail};
use rustix::process::{Signal, test_kill_process};
use watch::Notes;

use super::events::{How, Shape, Who, name};
use super::harm::{Harm, Harms, Lasting, pid, signal};
use crate::config::Service;
use crate::up::held::{self, hold, is_in_force, part};
use crate::up::member::{ask_service, is_frozen};
use crate::up::plan::Kind;
use crate::up::roles::role;
use crate::up::state::{Entry, State};

/// How often something that is waited for is looked at.
const GLANCE: Duration = Duration::from_millis(50);
/// How long a master must be away for its Sentinels to be sure to replace it.
const PROMOTED_AFTER: Duration = Duration::from_secs(5);
/// How long an instance may take to say how it is.
const PATIENCE: Duration = Duration::from_secs(3);

/// A running `settle up`, or a shop that `settle serve --restart` keeps.
#[derive(Debug)]
pub(super) struct System {
    data: PathBuf,
    harms: Harms,
    /// Locked while this runs: of two at a time each would find what the other does.
    alone: Option<File>,
}

/// Where the system is looked for that nobody names: that of `settle up`, or else that of `settle serve`.
const USUAL: [&str; 2] = ["settle-up", "settle-data"];

/// Somebody who was hit and is to be let go again. What was done is undone when it is dropped.
#[derive(Debug)]
pub(super) struct Victim {
    name: String,
    pid: u32,
    how: How,
    /// The service whose master it was, if it has replicas and there are Sentinels to promote one.
    master_of: Option<Service>,
    _lasting: Lasting,
}

impl Victim {
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// Whose process is another one once it is back, and which it was: that of somebody who was killed.
    pub(super) fn killed(&self) -> Option<(String, u32)> {
        let killed = matches!(self.how, How::Kill | How::Restart | How::Lose);
        killed.then(|| (self.name.clone(), self.pid))
    }

    /// The service whose Sentinels must promote a replica in its place before it is let go, since it is away for longer than they wait for it: if it
    /// was killed, or is away for as long as `down`.
    pub(super) fn replaced(&self, down: Duration) -> Option<Service> {
        let long = self.how == How::Kill || self.how.lasts() && down >= PROMOTED_AFTER;
        self.master_of.filter(|_| long)
    }
}

impl System {
    /// The system with its data in this folder; without one, whichever runs where it usually is. What is done to it is noted in `harms`.
    pub(super) fn at(data: Option<&Path>, harms: &Harms) -> anyhow::Result<Self> {
        let Some(data) = data else {
            let mut usual = USUAL.into_iter().filter_map(|data| Self::running_in(Path::new(data), harms).ok());
            return usual.next().with_context(|| {
                let [up, serve] = USUAL;
                format!(
                    "no system runs here, neither in {up} nor in {serve} (one that still starts is found once it serves): {}",
                    start(None)
                )
            });
        };
        Self::running_in(data, harms)
    }

    fn running_in(data: &Path, harms: &Harms) -> anyhow::Result<Self> {
        let shown = data.display().to_string();
        let start = start(Some(&shown));
        let data = data.canonicalize().with_context(|| format!("no system has its data in {shown}: {start}"))?;
        let Some(state) = read(&data)? else {
            bail!("no system has its data in {shown}, or none that is started again: {start}")
        };
        let runs = pid(state.pid).is_some_and(|pid| test_kill_process(pid).is_ok());
        anyhow::ensure!(runs, "the system in {shown} has stopped: {start}");
        anyhow::ensure!(state.restart, "the system in {shown} does not start again what is killed: {start}");
        let gateway = state.components.iter().any(|it| matches!(it.kind, Kind::Gateway | Kind::Shop));
        anyhow::ensure!(gateway, "the system in {shown} has no gateway to send checkouts to: {start}");
        Ok(Self { data, harms: harms.clone(), alone: None })
    }

    /// Has it to itself and whole: nobody else breaks it, everybody runs and is ready at the latest in so long. Says whom a run that was killed
    /// had left frozen.
    ///
    /// # Errors
    /// If another run is at work, or somebody is held down or parted by hand, or not ready: what chaos would find would be that.
    pub(super) fn begin(&mut self, patience: Duration) -> anyhow::Result<Vec<String>> {
        let file = self.data.join("chaos.lock");
        let lock = File::create(&file).with_context(|| format!("cannot write {}", file.display()))?;
        match lock.try_lock() {
            Ok(()) => self.alone = Some(lock),
            Err(TryLockError::WouldBlock) => {
                bail!("another `settle chaos` is at work on this system: wait until it ends")
            }
            Err(TryLockError::Error(error)) => {
                return Err(error).with_context(|| format!("cannot lock {}", file.display()));
            }
        }
        let mut frozen = vec![];
        for it in self.state()?.components {
            for (file, what) in [(hold(&self.data, &it.name), "held down"), (part(&self.data, &it.name), "parted")] {
                let (name, file_shown) = (&it.name, file.display());
                anyhow::ensure!(
                    !is_in_force(&file),
                    "{name} is {what} by the file {file_shown}, which was made by hand: remove it first"
                );
            }
            if it.pid.is_some_and(|id| is_frozen(id) && signal(id, Signal::CONT).is_ok()) {
                frozen.push(it.name);
            }
        }
        let missing = self.wait_until_complete(&[], patience)?;
        anyhow::ensure!(
            missing.is_empty(),
            "not ready for {} s: {}; look at their logs, or ask `settle doctor`",
            patience.as_secs(),
            missing.join(", ")
        );
        Ok(frozen)
    }

    /// Says on the system's page what is done to it, if that can be written: what is found does not depend on it.
    pub(super) fn note(&self, what: &str) {
        note(&self.data, what);
    }

    /// The data folder.
    pub(super) fn data(&self) -> &Path {
        &self.data
    }

    fn state(&self) -> anyhow::Result<State> {
        read(&self.data)?.context("whoever runs the system took its state file away")
    }

    /// How many there are of what is hit one by one.
    pub(super) fn shape(&self) -> anyhow::Result<Shape> {
        let state = self.state()?;
        let many =
            |is: fn(&Entry) -> bool| u32::try_from(state.components.iter().filter(|it| is(it)).count()).unwrap_or(0);
        Ok(Shape {
            shop: many(|it| it.kind == Kind::Shop) > 0,
            instances: many(|it| it.kind == Kind::Order),
            replicas: many(|it| it.name.starts_with("redis-orders-")).saturating_sub(1),
            sentinels: many(|it| it.kind == Kind::Sentinel),
            proxied: state.proxied,
        })
    }

    /// Where clients connect.
    pub(super) fn gateway(&self) -> anyhow::Result<String> {
        Ok(self.state()?.gateway)
    }

    /// Hits somebody; `None` if there is nobody of that kind.
    pub(super) fn hit(&self, who: Who, how: How, random: &mut fastrand::Rng) -> anyhow::Result<Option<Victim>> {
        let Some(entry) = self.find(who, random)? else { return Ok(None) };
        let Some(id) = entry.pid else { return Ok(None) };
        let master_of = match who {
            Who::Master(service) if self.shape()?.sentinels > 0 => Some(service),
            _ => None,
        };
        let file = match how {
            How::Part => Some(part(&self.data, &entry.name)),
            How::Lose => Some(hold(&self.data, &entry.name)),
            How::Kill if master_of.is_some() => Some(hold(&self.data, &entry.name)),
            How::Kill | How::Restart | How::Freeze => None,
        };
        let harm = Harm { name: entry.name.clone(), pid: id, how, file };
        let lasting = self.harms.inflict(harm, |harm| {
            if let Some(file) = &harm.file {
                held::make(file).context("cannot write into the data folder")?;
            }
            let sent = match how {
                How::Part => return Ok(()),
                How::Freeze => Signal::STOP,
                How::Kill | How::Restart | How::Lose => Signal::KILL,
            };
            signal(id, sent).with_context(|| format!("cannot reach {} (process {id})", harm.name))
        })?;
        Ok(Some(Victim { name: entry.name, pid: id, how, master_of, _lasting: lasting }))
    }

    fn find(&self, who: Who, random: &mut fastrand::Rng) -> anyhow::Result<Option<Entry>> {
        let entries = self.state()?.components.into_iter().filter(|it| it.pid.is_some());
        let of = |service: Service, it: &Entry| {
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
            Who::Number(kind, number) => entries.filter(|it| it.name == name(kind, number)).collect(),
            Who::Replica(service, number) => {
                let replicas = entries.filter(|it| of(service, it) && role(it.kind, it.port).starts_with("replica"));
                replicas.skip(number.saturating_sub(1) as usize).take(1).collect()
            }
        };
        Ok(if found.is_empty() { None } else { found.get(random.usize(..found.len())).cloned() })
    }

    /// Waits until another server than `before` is a service's master, at most so long.
    pub(super) fn wait_for_promotion(
        &self,
        service: Service,
        before: &str,
        patience: Duration,
    ) -> anyhow::Result<bool> {
        let until = Instant::now() + patience;
        let prefix = format!("redis-{}-", service.section());
        loop {
            let promoted = self
                .state()?
                .components
                .iter()
                .any(|it| it.name.starts_with(&prefix) && it.name != before && role(it.kind, it.port) == "master");
            if promoted || Instant::now() > until {
                return Ok(promoted);
            }
            std::thread::sleep(GLANCE);
        }
    }

    /// Waits until everybody runs and is ready again, at most so long; says who is not. Of those who were killed another process must run.
    pub(super) fn wait_until_complete(
        &self,
        killed: &[(String, u32)],
        patience: Duration,
    ) -> anyhow::Result<Vec<String>> {
        let until = Instant::now() + patience;
        loop {
            let state = self.state()?;
            let missing: Vec<String> = state
                .components
                .iter()
                .filter(|it| {
                    let alive = it.pid.and_then(pid).is_some_and(|pid| test_kill_process(pid).is_ok());
                    let of_before = killed.iter().any(|(name, before)| *name == it.name && Some(*before) == it.pid);
                    !(it.ready && alive) || of_before
                })
                .map(|it| it.name.clone())
                .collect();
            if missing.is_empty() || Instant::now() > until {
                return Ok(missing);
            }
            std::thread::sleep(GLANCE);
        }
    }

    /// How many transactions are still worked on; `None` if one does not say.
    pub(super) fn unsettled(&self) -> anyhow::Result<Option<u64>> {
        let state = self.state()?;
        let orders = state.components.iter().filter(|it| matches!(it.kind, Kind::Order | Kind::Shop));
        Ok(orders
            .map(|it| {
                let said = ask_service(it.port, "/health/deep", PATIENCE)?;
                Some(said["unsettled"].as_u64()? + said["in_flight"].as_u64()?)
            })
            .sum())
    }
}

/// Says on the page of the system with this data folder what is done to it.
pub(super) fn note(data: &Path, what: &str) {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let at = u64::try_from(now.as_millis()).unwrap_or(u64::MAX);
    _ = Notes::say(data, at, what);
}

/// How to start what can be broken.
fn start(data: Option<&str>) -> String {
    let at = data.map(|data| format!(" --data {data}")).unwrap_or_default();
    format!(
        "start one with `settle up --restart --chaos{at}`, or a single process with `settle serve --restart --chaos{at}`"
    )
}

fn read(data: &Path) -> anyhow::Result<Option<State>> {
    Ok(match State::read(data)? {
        Some(state) => Some(state),
        None => State::read_of_shop(data)?,
    })
}
