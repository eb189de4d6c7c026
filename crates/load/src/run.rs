//! One run from flags to report: prepare, read the start, drive the connections, audit.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use tokio::runtime::Runtime;
use tokio::task::LocalSet;

use crate::LoadError;
use crate::args::{LoadArgs, Plan};
use crate::audit::{self, Ids, Reading, Snapshot, Verdict};
use crate::client::{Answer, Client};
use crate::contract::{Id, Kind};
use crate::interrupt::Interrupt;
use crate::pace::Pace;
use crate::report::{Audit, Progress, Report};
use crate::scenario::{Lane, Live, Scenario, Work};
use crate::seed;
use crate::tally::Tally;

/// Connections that read snapshots.
const READERS: usize = 64;
/// How long requests that nobody waits for any more may still be at work in the server.
const SETTLE_LIMIT: Duration = Duration::from_secs(10);
/// How long to wait before looking again whether they have ended.
const SETTLE_PAUSE: Duration = Duration::from_millis(250);

/// Makes a run and judges it. Writes the `--json` file; prints only the progress line.
///
/// Blocks its thread until the run is over and brings its own tokio runtimes: inside an async program call it
/// through `spawn_blocking`.
///
/// # Errors
/// Whatever keeps the run from being made: see [`LoadError`]. Money that is off is no error but part of the report.
pub fn run(args: &LoadArgs) -> Result<Report, LoadError> {
    run_until(args, &Interrupt::default())
}

/// The same as [`run`], but for an interrupt: it ends the sending, and what was measured until then is reported and judged.
///
/// # Errors
/// As for [`run`]; [`LoadError::Interrupted`] when the interrupt came before the load.
pub fn run_until(args: &LoadArgs, interrupt: &Interrupt) -> Result<Report, LoadError> {
    let plan = Plan::new(args)?;
    let progress = Progress::new(args);
    let runtime = runtime()?;
    progress.say("preparing the shop");
    let mut prepared = runtime.block_on(interrupt.before("preparing the shop", seed::prepare(&plan)))?;
    let is_audited = !matches!(prepared.work, Work::Fixed { .. });
    progress.say("reading the state at the start");
    let reading = read_start(&plan, &mut prepared.ids);
    let start = runtime.block_on(interrupt.before("reading the state at the start", reading))?;

    let started_at = SystemTime::now();
    let Driven { mut tally, overdue, interrupted_after } = drive(&plan, Arc::new(prepared.work), &progress, interrupt)?;

    progress.say("auditing");
    let answers: HashMap<Id, Answer> = std::mem::take(&mut tally.answers).into_iter().collect();
    let audit = if is_audited {
        match runtime.block_on(audit_end(&plan, &start, &answers, prepared.ids)) {
            Ok(verdict) => Audit::Done(verdict),
            Err(error) => Audit::Impossible(error.to_string()),
        }
    } else {
        Audit::NotApplicable
    };
    progress.finish();
    let report = Report::new(plan, started_at, &tally, overdue, interrupted_after, audit);
    if let Some(path) = &args.json {
        report.write_json(path)?;
    }
    Ok(report)
}

pub(crate) fn runtime() -> Result<Runtime, LoadError> {
    tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(|e| LoadError::Internal(e.to_string()))
}

fn reading(plan: &Plan) -> Reading {
    Reading { connections: READERS, timeout: plan.timeout }
}

/// Reads all that the run is about; every single thing must be there.
async fn read_start(plan: &Plan, ids: &mut Ids) -> Result<Snapshot, LoadError> {
    let start = audit::fetch(&plan.target, ids, reading(plan)).await;
    let start = start.map_err(|cause| LoadError::NoStart { cause: Box::new(cause) })?;
    let missing_order = ids.orders.iter().find(|&id| !start.orders.contains_key(id)).map(|id| (Kind::Order, id));
    let missing_item = ids.items.iter().find(|&id| !start.items.contains_key(id)).map(|id| (Kind::Item, id));
    let missing_user = ids.users.iter().find(|&id| !start.users.contains_key(id)).map(|id| (Kind::User, id));
    match missing_order.or(missing_item).or(missing_user) {
        None => Ok(start),
        Some((kind, id)) => {
            let hint = if plan.seeds {
                "the server said that it had made it"
            } else {
                "run without --no-seed, or say how many there are with --orders, --items and --users"
            };
            Err(LoadError::Missing { kind, id: id.clone(), hint })
        }
    }
}

/// Reads the state after the run and compares. Requests without an answer may still be at work: while any are, a
/// difference is only believed once it has lasted.
async fn audit_end(
    plan: &Plan,
    start: &Snapshot,
    answers: &HashMap<Id, Answer>,
    mut ids: Ids,
) -> Result<Verdict, LoadError> {
    if plan.scenario == Scenario::Mixed {
        ids.orders = answers.keys().cloned().collect();
    }
    let may_be_at_work = answers.values().any(|answer| matches!(answer, Answer::Unknown(_)));
    let settled_by = Instant::now() + SETTLE_LIMIT;
    loop {
        let end = audit::fetch(&plan.target, &mut ids, reading(plan)).await?;
        let verdict = audit::check(start, answers, &end);
        if verdict.is_clean() || !may_be_at_work || Instant::now() >= settled_by {
            return Ok(verdict);
        }
        tokio::time::sleep(SETTLE_PAUSE).await;
    }
}

/// What came of the sending.
struct Driven {
    /// What the workers saw together.
    tally: Tally,
    /// See [`Report::overdue`].
    overdue: u64,
    /// After how long it was interrupted, if it was.
    interrupted_after: Option<Duration>,
}

/// Runs the workers to their end.
fn drive(plan: &Plan, work: Arc<Work>, progress: &Progress, interrupt: &Interrupt) -> Result<Driven, LoadError> {
    let lives: Vec<Arc<Live>> = (0..plan.threads).map(|_| Arc::default()).collect();
    let (connected, all_connected) = mpsc::channel();
    let (ended, all_ended) = mpsc::channel();
    let mut starts = Vec::new();
    for (number, live) in lives.iter().enumerate() {
        let (start, started) = mpsc::channel();
        let worker = Worker { plan: plan.clone(), number, work: Arc::clone(&work), live: Arc::clone(live) };
        let (connected, ended) = (connected.clone(), ended.clone());
        spawn(format!("load-{number}"), move || {
            // The receivers are gone only when the run was given up because another worker failed.
            let (runtime, clients) = match worker.connect() {
                Ok(ready) => ready,
                Err(error) => return drop(connected.send(Err(error))),
            };
            if connected.send(Ok(())).is_ok()
                && let Ok(pace) = started.recv()
            {
                drop(ended.send(worker.run(&runtime, clients, &pace)));
            }
        })?;
        starts.push(start);
    }
    drop((connected, ended));
    let broke_off = |_| LoadError::Internal("a worker thread ended early".into());
    for _ in &lives {
        all_connected.recv().map_err(broke_off)??;
    }
    let pace = Arc::new(Pace::start(plan.duration, plan.requests, plan.rate, interrupt.clone()));
    for start in starts {
        start.send(Arc::clone(&pace)).map_err(|_| broke_off(mpsc::RecvError))?;
    }
    let pacer = spawn("load-pacer".into(), {
        let pace = Arc::clone(&pace);
        move || pace.release_when_due()
    })?;
    let mut tally = Tally::new(pace.started());
    for _ in &lives {
        let result = loop {
            match all_ended.recv_timeout(Duration::from_millis(200)) {
                Ok(result) => break result,
                Err(mpsc::RecvTimeoutError::Timeout) if pace.interrupted_after().is_some() => {
                    progress.say("interrupted: waiting for the answers under way; interrupt again to end at once");
                }
                Err(mpsc::RecvTimeoutError::Timeout) => progress.show(&lives, pace.started(), plan.duration),
                Err(mpsc::RecvTimeoutError::Disconnected) => {
                    return Err(broke_off(mpsc::RecvError));
                }
            }
        };
        tally.merge(result?);
    }
    // Later it interrupts no sending any more.
    let interrupted_after = pace.interrupted_after();
    pace.stop();
    pacer.join().map_err(|_| LoadError::Internal("the pacer panicked".into()))?;
    Ok(Driven { tally, overdue: pace.overdue(), interrupted_after })
}

pub(crate) fn spawn(name: String, body: impl FnOnce() + Send + 'static) -> Result<thread::JoinHandle<()>, LoadError> {
    thread::Builder::new().name(name).spawn(body).map_err(|e| LoadError::Internal(format!("no thread: {e}")))
}

/// One thread of the load generator with its share of the connections.
struct Worker {
    plan: Plan,
    number: usize,
    work: Arc<Work>,
    live: Arc<Live>,
}

impl Worker {
    /// Opens this worker's share of the connections, so that no measured request pays for it.
    fn connect(&self) -> Result<(Runtime, Vec<Client>), LoadError> {
        let runtime = runtime()?;
        let clients = runtime.block_on(async {
            let mut clients = Vec::new();
            for _ in (self.number..self.plan.connections).step_by(self.plan.threads) {
                let mut client = Client::new(Arc::clone(&self.plan.target), self.plan.timeout);
                client.connect().await?;
                clients.push(client);
            }
            Ok::<_, LoadError>(clients)
        })?;
        Ok((runtime, clients))
    }

    /// Drives the connections to the end of the run.
    fn run(self, runtime: &Runtime, clients: Vec<Client>, pace: &Arc<Pace>) -> Result<Tally, LoadError> {
        let tally = Rc::new(RefCell::new(Tally::new(pace.started())));
        LocalSet::new().block_on(runtime, async {
            let mut lanes = tokio::task::JoinSet::new();
            for (place, client) in clients.into_iter().enumerate() {
                // Its number among all connections: the same choices for the same seed and number of threads.
                let connection = self.number + place * self.plan.threads;
                let mut lane = Lane {
                    client,
                    pace: Arc::clone(pace),
                    tally: Rc::clone(&tally),
                    live: Arc::clone(&self.live),
                    random: fastrand::Rng::with_seed(self.plan.random_seed.wrapping_add(connection as u64)),
                };
                let work = Arc::clone(&self.work);
                lanes.spawn_local(async move { lane.drive(&work).await });
            }
            while let Some(ended) = lanes.join_next().await {
                ended.map_err(|e| LoadError::Internal(e.to_string()))?;
            }
            Ok::<(), LoadError>(())
        })?;
        Ok(tally.replace(Tally::new(pace.started())))
    }
}
