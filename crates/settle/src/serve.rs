//! `settle serve`: the whole shop on one port.

use std::net::SocketAddr;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, bail};
use clap::{Args, ValueEnum};
use orchestrator::{Choice, StartError};
use shop::auditor::Pace;
use shop::guard::{Door, PASSWORD_VARIABLE, operators_own};
use shop::{Config, Found, OpenShopError, Shop};
use telemetry::logs::Origin;
use tokio::net::UnixListener;
use tokio::signal::unix::{SignalKind, signal};
use watch::About;

use crate::config::{self, LogFormat};
use crate::dashboard::{self, Own};
use crate::exit::Stopped;
use crate::keeper;
use crate::listener::{self, connections_that_fit};
use crate::output::tell;
use crate::runtime::{self, MAX_THREADS};
use crate::traces::{self, TracesArgs};

/// The one instance that there is.
const INSTANCE: &str = "shop";
/// How long a shutdown waits for the checkouts in flight.
const DRAIN: Duration = Duration::from_secs(20);

/// Which protocol checkouts use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum ProtocolArg {
    /// By the abort rate: sagas from 10 % aborts, two-phase commit again from 5 %.
    Auto,
    /// Two-phase commit: answers after one durable round.
    #[value(name = "2pc")]
    TwoPhase,
    /// Saga: does at once, and undoes if a step refuses.
    Saga,
}

/// What `settle serve` can be told, on the command line or by environment.
#[derive(Debug, Clone, Args)]
#[command(
    after_help = "Examples:\n  settle serve\n  settle serve --listen 127.0.0.1:9000 --data /var/lib/settle --production\n  SETTLE_PROTOCOL=saga settle serve --chaos\n  settle serve --chaos --restart      # for settle chaos, in another terminal"
)]
pub(crate) struct ServeArgs {
    /// Where to listen.
    #[arg(long, env = "SETTLE_LISTEN", default_value = "127.0.0.1:8000", value_name = "ADDR", value_parser = listener::place)]
    listen: SocketAddr,
    /// The data folder, made if absent. One process at a time.
    #[arg(long, env = "SETTLE_DATA", default_value = "settle-data", value_name = "DIR")]
    data: PathBuf,
    /// How checkouts become all or nothing.
    #[arg(long, env = "SETTLE_PROTOCOL", value_enum, default_value = "auto")]
    protocol: ProtocolArg,
    /// Attempts before a branch that a service won't acknowledge becomes a dead letter, for an operator to look at. It is
    /// tried at a slow pace even then.
    #[arg(long, env = "SETTLE_ATTEMPTS", default_value_t = 20, value_name = "N",
        value_parser = clap::value_parser!(u32).range(1..=1_000))]
    attempts: u32,
    /// Allow fault injection under /stock/fault and /payment/fault. Not for production.
    #[arg(long, env = "SETTLE_CHAOS", value_parser = clap::builder::FalseyValueParser::new())]
    chaos: bool,
    /// Names under which operators on this machine may ask, besides localhost and IP addresses, if there is no password: none but its own, or another
    /// site's page could pass for them.
    #[arg(long = "host", env = "SETTLE_HOSTS", value_name = "NAME", value_delimiter = ',')]
    hosts: Vec<String>,
    /// Refuse batch_init and fault injection, and operators on the public port without SETTLE_ADMIN__PASSWORD.
    #[arg(long, env = "SETTLE_PRODUCTION", value_parser = clap::builder::FalseyValueParser::new())]
    production: bool,
    /// What an answer rests on: `fsync` survives a power cut; `memory` only the end of the process, and is for comparisons.
    #[arg(long, env = "SETTLE_DURABILITY", value_enum, default_value = "fsync")]
    durability: DurabilityArg,
    /// Threads that read, parse and write requests. 1: that thread does the checkouts, too. More: those have a thread of their own. 0: one less than there
    /// are processors, at least 1.
    #[arg(long, env = "SETTLE_THREADS", default_value_t = 0, value_name = "N",
        value_parser = clap::value_parser!(u16).range(..=MAX_THREADS as i64))]
    threads: u16,
    /// Start the shop again whenever it ends without having been told to: killed, crashed, or stopped by a failing disk. Where nothing else does, and
    /// for `settle chaos`.
    #[arg(long, env = "SETTLE_RESTART", value_parser = clap::builder::FalseyValueParser::new())]
    restart: bool,
    /// How log lines look on standard error: `auto` is `pretty` on a terminal and `json` otherwise.
    #[arg(long, env = "SETTLE_LOG_FORMAT", value_enum, default_value = "auto", value_name = "FORMAT")]
    log_format: LogFormat,
    #[command(flatten)]
    traces: TracesArgs,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum DurabilityArg {
    Fsync,
    Memory,
}

impl ServeArgs {
    /// Where it listens.
    pub(crate) fn address(&self) -> SocketAddr {
        self.listen
    }

    /// Whether a power cut takes back what it answered.
    pub(crate) fn is_volatile(&self) -> bool {
        matches!(self.durability, DurabilityArg::Memory)
    }

    /// Whether faults can be injected from elsewhere.
    pub(crate) fn is_open_to_faults(&self) -> bool {
        self.chaos && !self.listen.ip().is_loopback()
    }

    /// Whether it is told what excludes each other.
    pub(crate) fn contradicts_itself(&self) -> bool {
        self.chaos && self.production
    }

    /// Its data folder.
    pub(crate) fn data(&self) -> &Path {
        &self.data
    }
}

/// Serves until it is told to stop.
pub(crate) fn serve(args: ServeArgs) -> anyhow::Result<ExitCode> {
    let misspelt = misspelt_variables();
    if !misspelt.is_empty() {
        bail!(misspelt.join("; "));
    }
    let origin = Origin { service: "settle".to_owned(), instance: INSTANCE.to_owned() };
    let told = args.traces.told()?;
    telemetry::logs::start(args.log_format.into(), origin.clone());
    if args.restart {
        return keeper::keep(&args);
    }
    traces::begin(told.as_ref(), origin, false)?;
    runtime::of(threads(usize::from(args.threads))).context("cannot start")?.block_on(run(args))
}

/// A switch that is misspelt is off, and nobody would notice.
pub(crate) fn misspelt_variables() -> Vec<String> {
    let heeded = ServeArgs::augment_args(clap::Command::new("serve"));
    let heeded = heeded.get_arguments().filter_map(|argument| Some(argument.get_env()?.to_str()?.to_owned()));
    config::misspelt_variables(&heeded.collect::<Vec<_>>())
}

/// How many threads there are for requests, if so many are `wanted`. One processor is for the thread of the checkouts; where that leaves but one, one
/// thread does both.
fn threads(wanted: usize) -> usize {
    match wanted {
        0 => runtime::processors().saturating_sub(1).max(1),
        wanted => wanted,
    }
}

/// Makes the data folder, for this user's eyes alone; one that is there stays as it is.
fn make_folder(data: &Path) -> anyhow::Result<()> {
    let made = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(data);
    made.with_context(|| format!("{}: cannot make the data folder", data.display()))
}

async fn run(args: ServeArgs) -> anyhow::Result<ExitCode> {
    let config = Config {
        data: args.data.clone(),
        protocol: match args.protocol {
            ProtocolArg::Auto => Choice::Auto,
            ProtocolArg::TwoPhase => Choice::TwoPhase,
            ProtocolArg::Saga => Choice::Saga,
        },
        attempts: args.attempts,
        chaos: args.chaos,
        production: args.production,
        store: embedded::Options {
            durability: match args.durability {
                DurabilityArg::Fsync => embedded::Durability::Fsync,
                DurabilityArg::Memory => embedded::Durability::Memory,
            },
            ..embedded::Options::default()
        },
        audit: Pace::HERE,
    };
    let trace_url = args.traces.trace_url()?;
    // Nothing is made in a folder that could not be served from.
    let socket = args.data.join(shop::admin::SOCKET);
    std::os::unix::net::SocketAddr::from_pathname(&socket).with_context(|| {
        format!(
            "the data folder's path is too long for the operators' socket {}: choose a shorter one",
            socket.display()
        )
    })?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    // The port first: whoever can't have it should hear so before a long recovery.
    let listener = listener::bind(args.listen, "choose another place with --listen").await?;
    let address = listener.local_addr()?;
    make_folder(&args.data)?;
    let (shop, found) = tokio::select! {
        opened = Shop::open(config) => opened.map_err(unopened)?,
        // Whatever recovery has done stands, and the next start goes on from there.
        _ = terminate.recv() => return Ok(ExitCode::SUCCESS),
        _ = interrupt.recv() => return Ok(ExitCode::SUCCESS),
    };
    let admin = bind_admin(&args.data)?;
    dashboard::note_crashes(&args.data);
    let (watch, watching) = dashboard::of_process(
        About { chaos: args.chaos, production: args.production, trace_url, ..dashboard::about("settle serve") },
        Own::of_shop(&shop),
        Some(&args.data),
    )?;
    tell(&greeting(address, &args, &found));
    tracing::info!(%address, version = env!("CARGO_PKG_VERSION"), "serves");

    let (stop, stopping) = tokio::sync::watch::channel(false);
    let until_stopped = |mut stopping: tokio::sync::watch::Receiver<bool>| async move {
        _ = stopping.wait_for(|stop| *stop).await;
    };
    let own = operators_own(Door::socket(), shop.admin_router());
    let operators = axum::serve(admin, own).with_graceful_shutdown(until_stopped(stopping.clone()));
    let password = std::env::var(PASSWORD_VARIABLE).ok().filter(|password| !password.is_empty()).map(Into::into);
    let door = Door::public(address, !args.production, password).known_as(args.hosts.clone());
    let front = shop.front().with_operators(shop.admin_router(), door.clone());
    let front = front.beside(watch.routes(dashboard::operators_at(door)));
    let mut public = tokio::spawn(listener::serve(listener, connections_that_fit(), front, stopping));
    let operators = tokio::spawn(operators.into_future());

    let mut watch = tokio::time::interval(Duration::from_millis(100));
    loop {
        tokio::select! {
            _ = terminate.recv() => break,
            _ = interrupt.recv() => break,
            ended = &mut public => {
                ended.context("the server ended")?;
                bail!(Stopped("the server ended by itself".to_owned()));
            }
            _ = watch.tick() => {
                if let Some(why) = shop.stopped() {
                    // Nothing was answered that is not on disk; the next start recovers.
                    bail!(Stopped(why));
                }
            }
        }
    }
    tracing::info!("told to stop: finishing the checkouts in flight");
    _ = stop.send(true);
    let served = tokio::time::timeout(DRAIN, &mut public).await;
    operators.abort();
    drop(watching);
    // While the folder is still ours: a successor makes a socket of its own.
    _ = std::fs::remove_file(args.data.join(shop::admin::SOCKET));
    let settled = shop.shut_down(DRAIN).await;
    traces::end().await;
    if served.is_err() || !settled {
        tracing::warn!("not everything was settled in time; the next start recovers the rest");
    }
    dashboard::note_stop(&args.data);
    Ok(ExitCode::SUCCESS)
}

/// A database that stops while it recovers, on a full disk for instance, is no mistake of the caller's: a supervisor may try again.
fn unopened(error: OpenShopError) -> anyhow::Error {
    match error {
        OpenShopError::Start(StartError::Log(error)) => Stopped(error.to_string()).into(),
        OpenShopError::Stopped(why) => Stopped(why).into(),
        other => other.into(),
    }
}

/// Binds the operators' socket, which only the folder's owner can open.
fn bind_admin(data: &Path) -> anyhow::Result<UnixListener> {
    use std::os::unix::fs::PermissionsExt;
    let path = data.join(shop::admin::SOCKET);
    // The data folder is locked by this process: a socket there was left behind by one that was killed.
    _ = std::fs::remove_file(&path);
    let listener = UnixListener::bind(&path).with_context(|| format!("cannot make the socket {}", path.display()))?;
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600))?;
    Ok(listener)
}

/// What it says once it serves: where, and what to try.
fn greeting(address: SocketAddr, args: &ServeArgs, found: &[Found]) -> String {
    let torn = found.iter().filter(|found| found.opened.torn_bytes > 0).map(|Found { service, opened }| {
        let torn = opened.torn_bytes;
        format!("The {service} journal ended in {torn} bytes that were never acknowledged; they were cut off.\n")
    });
    let replayed: u64 = found.iter().map(|found| found.opened.replayed).sum();
    let data = args.data.display();
    let mut text: String = torn.collect();
    text += &format!(
        "Settle serves the shop at http://{address}, with its data in {data} ({replayed} commands replayed).\n"
    );
    if args.production {
        text += "Production: batch_init and fault injection are refused.\n";
    }
    text += &format!("What it does: http://{address}/ in a browser, or settle top --url http://{address}\n");
    text += "\nTry this in another terminal:\n";
    let tries: &[&str] = if args.production {
        &["-X POST {}/payment/create_user", "-X POST {}/stock/item/create/5", "{}/health/deep"]
    } else {
        &[
            "-X POST {}/stock/batch_init/10/100/5 {}/payment/batch_init/10/1000 {}/orders/batch_init/10/10/10/5",
            "-X POST {}/orders/checkout/0",
            "{}/orders/find/0",
        ]
    };
    for words in tries {
        text += &format!("  curl -sw '\\n' {}\n", words.replace("{}", &format!("http://{address}")));
    }
    text
}
