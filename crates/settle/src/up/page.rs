//! The page of `settle up`: a listener of its own, on this machine alone, that shows every component and passes requests on.
//!
//! ```text
//!   System ──publish──► Told (name, process, where in its life) ──► Everybody: looks at all of them at once ──► crate watch ──► /, /dashboard/…
//!                                                                      /metrics, ROLE, PING, /proc
//!   /orders/… /stock/… /payment/… /api ──guard──► the gateway
//!   /admin/…                      ──guard──► the operators' socket of an order instance
//! ```
//!
//! On threads of its own, since the one that watches the components sleeps while nothing happens.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use axum::Router;
use futures_util::future::join_all;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::watch as channel;
use watch::limits::PATIENCE_MS;
use watch::scrape::Instance;
use watch::{About, Operators, OperatorsOf, Seen, Source, State, Watch, Watching};

use super::held;
use super::member::{is_frozen, usage};
use super::pass::{self, Ways};
use super::plan::Kind;
use crate::dashboard;
use crate::traces::trace_url_of_environment;

/// When nobody looks, what has no metrics is asked only every so many looks: its end is known without.
const SELDOM: u32 = 5;

const MASTER: &str = "master";
/// What a database says of itself that is master, and has no replica now; it is not shown so.
const FOLLOWED_BY_NOBODY: &str = "master, followed by nobody";

/// Where a component is in its life, as far as the page shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Stage {
    /// It was not started yet, or does not answer yet.
    Starting,
    /// It was ready.
    Running,
    /// It ended like this: see [`watch::snapshot::Instance::ended`].
    Ended(String),
}

/// What is told of a component.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Told {
    pub(super) name: String,
    pub(super) kind: Kind,
    pub(super) port: u16,
    pub(super) pid: Option<u32>,
    pub(super) stage: Stage,
    /// Whether its process stood still when it was looked at last: a reason to look again.
    pub(super) frozen: bool,
    /// The file that holds it down.
    pub(super) held: Option<PathBuf>,
}

/// The page, served. Dropped, it is closed.
#[derive(Debug)]
pub(super) struct Page {
    told: channel::Sender<Vec<Told>>,
    watching: Option<Watching>,
}

/// What the page is told at its start.
#[derive(Debug)]
pub(super) struct PageOptions {
    /// Where it is served, on the loopback address.
    pub(super) port: u16,
    /// Where requests of customers are passed on to; `None` if there is no gateway.
    pub(super) gateway: Option<u16>,
    /// The folder with the components' folders.
    pub(super) data: PathBuf,
    pub(super) chaos: bool,
}

impl Page {
    /// Begins to serve it.
    pub(super) fn serve(options: PageOptions) -> anyhow::Result<Self> {
        let PageOptions { port, gateway, data, chaos } = options;
        let listener = std::net::TcpListener::bind(("127.0.0.1", port))
            .with_context(|| format!("port {port}, which is for the page, is not free"))?;
        listener.set_nonblocking(true)?;
        let (told, components) = channel::channel(vec![]);
        let about = About { chaos, trace_url: trace_url_of_environment()?, ..dashboard::about("settle up") };
        let everybody = Everybody { told: components.clone(), known: vec![], looks: 0 };
        let (watch, watching) = dashboard::of_process(about, everybody, Some(&data))?;
        let routes = routes(&watch, Ways { gateway, components, data });
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let run = move || {
            runtime.block_on(async {
                match tokio::net::TcpListener::from_std(listener) {
                    Ok(listener) => _ = axum::serve(listener, routes).await,
                    Err(error) => eprintln!("settle: the page is not served: {error}"),
                }
            });
        };
        std::thread::Builder::new().name("page".to_owned()).spawn(run).context("cannot start a thread")?;
        Ok(Self { told, watching: Some(watching) })
    }

    /// Shows what was seen so far, and looks no more.
    pub(super) fn watch_no_more(&mut self) {
        self.watching = None;
    }

    /// Tells how the components are, if that is news.
    pub(super) fn publish(&self, components: Vec<Told>) {
        self.told.send_if_modified(|before| {
            let news = *before != components;
            *before = components;
            news
        });
    }
}

fn routes(watch: &Watch, ways: Ways) -> Router {
    let operators: OperatorsOf = match ways.gateway {
        // Whoever reaches this listener is a user of this machine, as the guard sees to.
        Some(_) => Arc::new(|_| Operators::yes()),
        None => Arc::new(|_| Operators::no("no order instance runs")),
    };
    pass::routes(ways).merge(watch.routes(operators)).layer(axum::middleware::from_fn(pass::guarded))
}

/// Everybody that `settle up` runs.
struct Everybody {
    told: channel::Receiver<Vec<Told>>,
    known: Vec<Known>,
    looks: u32,
}

/// What is kept from one look to the next.
struct Known {
    name: String,
    /// Who is asked for metrics, if it has any.
    asked: Option<Instance>,
    /// What was found last of one without metrics.
    before: Option<(Option<u32>, Seen)>,
}

impl Source for Everybody {
    async fn news(&mut self) {
        if self.told.changed().await.is_err() {
            // Nobody tells any more: the system stops.
            std::future::pending::<()>().await;
        }
    }

    async fn look(&mut self, watched: bool) -> Vec<Seen> {
        let told = self.told.borrow_and_update().clone();
        if self.known.len() != told.len() {
            self.known = told.iter().map(Known::of).collect();
        }
        let thorough = watched || self.looks.is_multiple_of(SELDOM);
        self.looks = self.looks.wrapping_add(1);
        let mut found =
            join_all(self.known.iter_mut().zip(&told).map(|(known, told)| known.look(told, thorough))).await;
        tell_masters_apart(&mut found);
        found
    }
}

impl Known {
    fn of(told: &Told) -> Self {
        let address = format!("127.0.0.1:{}", told.port);
        let has_metrics = told.kind.service().is_some();
        let asked = has_metrics.then(|| Instance::new(&*told.name, kind(told.kind), address, ""));
        Self { name: told.name.clone(), asked, before: None }
    }

    async fn look(&mut self, told: &Told, thorough: bool) -> Seen {
        let seen = |state| Seen::new(&*self.name, kind(told.kind), state);
        let usage = told.pid.and_then(usage);
        let mut found = match (&told.stage, told.pid) {
            (Stage::Starting, _) => seen(State::Starting),
            (Stage::Ended(how), _) => {
                let held = held::told(told.held.as_deref());
                Seen { detail: Some(format!("it {how}{held}")), ended: Some(how.clone()), ..seen(State::Down) }
            }
            (Stage::Running, Some(pid)) if is_frozen(pid) => {
                let detail = format!("its process, {pid}, is stopped where it stands: kill -CONT {pid}");
                Seen { detail: Some(detail), ..seen(State::Frozen) }
            }
            (Stage::Running, _) => match (&mut self.asked, &self.before) {
                (Some(instance), _) => instance.look().await,
                (None, Some((pid, before))) if !thorough && *pid == told.pid && before.state == State::Up => {
                    before.clone()
                }
                (None, _) => {
                    let asked = tokio::time::timeout(Duration::from_millis(PATIENCE_MS), answers(told.kind, told.port));
                    let (state, role, detail) = match asked.await {
                        Ok(Ok(role)) => (State::Up, role, None),
                        Ok(Err(error)) => (State::Down, None, Some(error.to_string())),
                        Err(_) => (State::Down, None, Some(format!("it does not answer in {PATIENCE_MS} ms"))),
                    };
                    Seen { role, detail, ..seen(state) }
                }
            },
        };
        self.before = Some((told.pid, found.clone()));
        if let Some((seconds, bytes)) = usage {
            (found.processor_seconds, found.memory_bytes) = (Some(seconds), Some(bytes));
        }
        found
    }
}

/// One that thaws behind a failover, or is started again, takes itself for the master until a Sentinel tells it otherwise. Those that follow
/// know better.
fn tell_masters_apart(found: &mut [Seen]) {
    let of = |it: &Seen| it.name.rsplit_once('-').map(|(database, _)| database.to_owned());
    let followed: Vec<_> = found.iter().filter(|it| it.role.as_deref() == Some(MASTER)).map(of).collect();
    for it in found.iter_mut().filter(|it| it.role.as_deref() == Some(FOLLOWED_BY_NOBODY)) {
        let role = if followed.contains(&of(it)) { "was master" } else { MASTER };
        it.role = Some(role.to_owned());
    }
}

fn kind(kind: Kind) -> watch::Kind {
    match kind {
        Kind::Nats => watch::Kind::Nats,
        Kind::Redis => watch::Kind::Redis,
        Kind::Sentinel => watch::Kind::Sentinel,
        Kind::Order => watch::Kind::Order,
        Kind::Stock => watch::Kind::Stock,
        Kind::Payment => watch::Kind::Payment,
        Kind::Gateway => watch::Kind::Gateway,
        Kind::Prometheus => watch::Kind::Prometheus,
        Kind::Shop => watch::Kind::Shop,
    }
}

/// Whether a component without metrics answers, and the role that it says it has.
async fn answers(kind: Kind, port: u16) -> std::io::Result<Option<String>> {
    let strange = |said: &str| std::io::Error::other(format!("it answers strangely: {}", said.escape_debug()));
    let question = match kind {
        Kind::Redis => "ROLE\r\n",
        Kind::Sentinel => "PING\r\n",
        // It speaks first.
        Kind::Nats => "",
        _ => return TcpStream::connect(("127.0.0.1", port)).await.map(|_| None),
    };
    let mut stream = TcpStream::connect(("127.0.0.1", port)).await?;
    stream.write_all(question.as_bytes()).await?;
    let mut said = vec![];
    let mut piece = [0; 256];
    // What is of interest stands at the beginning.
    while said.len() < 16 {
        let bytes = stream.read(&mut piece).await?;
        if bytes == 0 {
            break;
        }
        said.extend(piece.iter().take(bytes));
        if kind == Kind::Sentinel {
            break;
        }
    }
    let said = String::from_utf8_lossy(&said);
    let first: String = said.chars().take(40).collect();
    match kind {
        Kind::Redis if said.contains("\r\nmaster\r\n") => {
            // master, how far it has come, and a list of those who follow.
            let role = if said.contains("\r\n*0\r\n") { FOLLOWED_BY_NOBODY } else { MASTER };
            Ok(Some(role.to_owned()))
        }
        Kind::Redis if said.contains("\r\nslave\r\n") => Ok(Some("replica".to_owned())),
        Kind::Sentinel if said.starts_with("+PONG") => Ok(None),
        Kind::Nats if said.starts_with("INFO ") => Ok(None),
        _ => Err(strange(&first)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_two_that_take_themselves_for_the_master_it_is_the_one_that_others_follow() {
        let told = |roles: [Option<&str>; 4]| {
            let names = ["redis-stock-1", "redis-stock-2", "redis-stock-3", "redis-orders-1"];
            let one = |(name, role): (&str, Option<&str>)| Seen {
                role: role.map(str::to_owned),
                ..Seen::new(name, watch::Kind::Redis, State::Up)
            };
            let mut found: Vec<Seen> = names.into_iter().zip(roles).map(one).collect();
            tell_masters_apart(&mut found);
            found.into_iter().map(|it| it.role.unwrap_or_default()).collect::<Vec<_>>()
        };
        let (alone, replica) = (Some(FOLLOWED_BY_NOBODY), Some("replica"));
        assert_eq!(told([alone, Some(MASTER), replica, alone]), ["was master", "master", "replica", "master"]);
        assert_eq!(told([alone, None, None, Some(MASTER)]), ["master", "", "", "master"], "of another database");
    }
}
