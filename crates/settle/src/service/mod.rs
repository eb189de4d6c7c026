//! `settle order`, `settle stock`, `settle payment`: one service as a process of its own; any number of each.
//!
//! ```text
//!   HTTP ──► order ──commands──► NATS ──► stock, payment ──► their Redis
//!              │  ◄─questions──►
//!              └──► Redis: orders and transaction log
//! ```
//!
//! | file         | what it is                                                    |
//! |--------------|----------------------------------------------------------------|
//! | `order.rs`   | the order service                                              |
//! | `ledger.rs`  | stock, or payment                                              |
//! | `figures.rs` | what their databases and the broker say for the metrics         |
//! | `asking.rs`  | the ports of the services to each other, over NATS             |
//! | `joining.rs` | which databases belong together                                |
//! | `door.rs`    | the operators' door of an order instance                       |
//! | `start.rs`   | waiting for servers that are not there yet                     |
//!
//! A process takes requests when it has recovered. Told to stop, it says so at `/health` and goes on for a moment, so that nobody sends it
//! any more; then it finishes what it has in hand.

mod asking;
mod door;
mod figures;
mod joining;
mod ledger;
mod order;
mod start;

pub(crate) use joining::apart;
pub(crate) use start::connect_once;

use std::net::SocketAddr;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, bail};
use axum::Router;
use clap::Args;
use shop::Front;
use shop::checkout::{PAYMENT, STOCK};
use shop::guard::Door;
use shop::vitals::{Ailment, Vitals};
use telemetry::logs::Origin;
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::config::{Config, ConfigArgs, Service};
use crate::dashboard;
use crate::exit::Stopped;
use crate::gateway::program;
use crate::listener::{self, connections_that_fit};
use crate::output::tell;
use crate::runtime;
use crate::traces;

/// How long a command may go without any answer before it counts against the service that it was for. Milliseconds.
const COMMAND_PATIENCE_MS: u64 = 5_000;
/// How long requests are still taken after `/health` has begun to say that there should be none.
const NOTICE: Duration = Duration::from_secs(1);
/// How long a stop waits for what is in hand.
const DRAIN: Duration = Duration::from_secs(20);
/// How often it is looked whether the database has stopped.
const GLANCE: Duration = Duration::from_millis(100);

/// What one service is told.
#[derive(Debug, Clone, Args)]
#[command(
    after_help = "Examples:\n  settle config example > settle.toml\n  settle order --config settle.toml --listen 127.0.0.1:8001\n  \
    settle stock --listen 127.0.0.1:8011 --set stock.redis=127.0.0.1:6379 --set stock.durability=fsync"
)]
pub(crate) struct ServiceArgs {
    #[command(flatten)]
    config: ConfigArgs,
}

/// A service that has recovered and can be given requests.
trait Running: Send + Sync {
    /// What answers requests.
    fn front(&self) -> Front;

    /// What operators may ask, if anything.
    fn operators(&self) -> Option<Router> {
        None
    }

    /// What its page shows, if it has one.
    fn vitals(&self) -> Option<Arc<dyn Vitals>> {
        None
    }

    /// Why the process must end, if so: its database will never answer again.
    fn stopped(&self) -> Option<String>;

    /// Finishes what is in hand and lets go of everything. Whether all of it was finished.
    async fn shut_down(self, at_most: Duration) -> bool;
}

/// Serves until it is told to stop.
pub(crate) fn serve(service: Service, args: &ServiceArgs) -> anyhow::Result<ExitCode> {
    let config = args.config.load()?;
    let origin = Origin { service: format!("settle-{}", program(service)), instance: config.instance.to_string() };
    telemetry::logs::start(config.log_format.into(), origin.clone());
    traces::begin(config.traces().as_ref(), origin, true)?;
    runtime::of(threads(config.threads)).context("cannot start")?.block_on(async {
        match service {
            Service::Orders => run(service, &config, order::Order::start).await,
            Service::Stock => {
                run(service, &config, async |config, draining| ledger::Ledger::start(STOCK, config, draining).await)
                    .await
            }
            Service::Payment => {
                run(service, &config, async |config, draining| ledger::Ledger::start(PAYMENT, config, draining).await)
                    .await
            }
        }
    })
}

/// How many threads there are for requests and messages, if so many are `wanted`. Each that hands work to another wakes it, and the machine is shared
/// with databases, a broker and other instances.
fn threads(wanted: usize) -> usize {
    match wanted {
        0 => (runtime::processors() / 2).max(1),
        wanted => wanted,
    }
}

async fn run<R: Running>(
    service: Service,
    config: &Config,
    start: impl AsyncFnOnce(&Config, Draining) -> anyhow::Result<R>,
) -> anyhow::Result<ExitCode> {
    let mut signals = Signals::new()?;
    // The port first: whoever can't have it should hear so before a long wait. Requests wait until they are served.
    let listener =
        listener::bind(config.listen, "choose another place with --listen, or `listen` in the configuration").await?;
    let address = listener.local_addr()?;
    let door = match config.door().filter(|_| service == Service::Orders) {
        Some(door) => Some(door::Bound::bind(door).await?),
        None => None,
    };
    let draining = Draining::default();
    let running = tokio::select! {
        started = start(config, draining.clone()) => started?,
        // Whatever recovery has done stands, and others go on from there.
        () = signals.any() => return Ok(ExitCode::SUCCESS),
    };
    greet(service, config, address);
    tracing::info!(%address, version = env!("CARGO_PKG_VERSION"), "serves");
    // Without a password operators are let in at their own door only: whoever comes by a gateway comes from a machine of the house.
    let public = Door::public(address, false, config.operators_password()).known_as(config.hosts.clone());
    let mut front = running.front().known_as(config.hosts.clone());
    if let Some(routes) = running.operators() {
        front = front.with_operators(routes, public.clone());
    }
    let watching = match running.vitals() {
        Some(vitals) => {
            let (watch, watching) = dashboard::of_order(config, address.port(), vitals)?;
            front = front.beside(watch.routes(dashboard::operators_at(public)));
            tell(&format!("What it does: http://{address}/ in a browser, or settle top --url http://{address}"));
            Some(watching)
        }
        None => None,
    };
    let door = door.zip(running.operators()).map(|(door, routes)| {
        tell(&format!("Operators: settle tx list {}", door.flag()));
        door.open(routes, &config.hosts)
    });
    let (stop, stopping) = tokio::sync::watch::channel(false);
    let mut public = tokio::spawn(listener::serve(listener, connections_that_fit(), front, stopping));
    let mut glance = tokio::time::interval(GLANCE);
    let mut noticed = None;
    loop {
        tokio::select! {
            () = signals.any() => {
                // Told twice, it does not wait.
                if noticed.is_some() {
                    break;
                }
                draining.begin();
                noticed = Some(tokio::time::Instant::now());
            }
            ended = &mut public => {
                ended.context("the server ended")?;
                bail!(Stopped("the server ended by itself".to_owned()));
            }
            _ = glance.tick() => {
                if let Some(why) = running.stopped() {
                    // Another start finds what the database then holds.
                    bail!(Stopped(why));
                }
                if noticed.is_some_and(|since| since.elapsed() >= NOTICE) {
                    break;
                }
            }
        }
    }
    tracing::info!("told to stop: finishing what is in hand");
    _ = stop.send(true);
    let served = tokio::time::timeout(DRAIN, &mut public).await;
    drop((door, watching));
    let finished = running.shut_down(DRAIN).await;
    traces::end().await;
    if served.is_err() || !finished {
        tracing::warn!("not everything was finished in time; another instance takes the rest over");
    }
    Ok(ExitCode::SUCCESS)
}

fn greet(service: Service, config: &Config, address: SocketAddr) {
    let (section, instance) = (service.section(), config.instance);
    tell(&format!("Settle serves {section} at http://{address} as {instance}."));
}

/// Whether the process has been told to stop.
#[derive(Debug, Clone, Default)]
struct Draining(Arc<AtomicBool>);

impl Draining {
    fn begin(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    /// Why a service with a database that has `stopped`, or not, should be given no requests.
    fn ailment(&self, stopped: Option<String>) -> Option<Ailment> {
        let draining = || Ailment { status: "draining", detail: "this instance is shutting down".to_owned() };
        let down = |detail| Ailment { status: "down", detail };
        stopped.map(down).or_else(|| self.0.load(Ordering::Relaxed).then(draining))
    }
}

/// What tells a process to stop.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn new() -> anyhow::Result<Self> {
        Ok(Self { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? })
    }

    async fn any(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}
