//! Waiting for servers that are not there yet: processes of a system start in any order.

use std::sync::Arc;
use std::time::{Duration, Instant};

use nats::{Credentials, Mode, Nats, Options, Storage};
use orchestrator::{Clock, Done, StoreFailure, SystemClock};
use protocol::Timestamp;
use protocol::limits::MAX_CLOCK_SKEW_MS;
use redis_store::OpenError;

use super::COMMAND_PATIENCE_MS;
use crate::config::{self, Config};
use crate::exit::Stopped;
use crate::traces::AlongNats;

/// How long a server that is not there is waited for.
const PATIENCE: Duration = Duration::from_secs(60);
/// How soon it is looked for again.
const AGAIN: Duration = Duration::from_millis(250);

/// Whether waiting may help.
fn may_come(error: &OpenError) -> bool {
    match error {
        OpenError::Unreachable { .. }
        | OpenError::NoMaster { .. }
        | OpenError::NotMaster { .. }
        | OpenError::Loading { .. }
        | OpenError::Silent { .. }
        | OpenError::TooFewReplicas { .. } => true,
        OpenError::Option { .. }
        | OpenError::NotDurable { .. }
        | OpenError::NoWait { .. }
        | OpenError::Evicts { .. }
        | OpenError::Cluster { .. }
        | OpenError::MayLose { .. }
        | OpenError::Strange { .. }
        | OpenError::Thread(_) => false,
        _ => false,
    }
}

/// Opens a database, as soon as its server is there.
///
/// # Errors
/// If it is not there in time, or if waiting cannot help.
pub(super) async fn database<S: Send + 'static>(
    name: &'static str,
    open: impl Fn() -> Result<S, OpenError> + Clone + Send + 'static,
) -> anyhow::Result<S> {
    let until = Instant::now() + PATIENCE;
    let mut said = false;
    loop {
        let attempt = open.clone();
        let error = match tokio::task::spawn_blocking(attempt).await? {
            Ok(store) => return Ok(store),
            Err(error) => error,
        };
        if !may_come(&error) {
            return Err(anyhow::Error::new(error).context(format!("the {name} database")));
        }
        if Instant::now() >= until {
            let why = format!("the {name} database, after {} s: {error}", PATIENCE.as_secs());
            return Err(Stopped(why).into());
        }
        if !std::mem::replace(&mut said, true) {
            tracing::warn!(database = name, %error, "waiting for it, {} s at most", PATIENCE.as_secs());
        }
        tokio::time::sleep(AGAIN).await;
    }
}

/// The clock of a service: the database's, by which all of its instances go, and never before what that knows of.
///
/// # Errors
/// If the database does not answer, or its clock and what it knows of contradict each other.
pub(super) async fn clock(
    name: &'static str,
    time: impl FnOnce(Done<Result<Timestamp, StoreFailure>>),
    youngest: impl FnOnce(Done<Result<Timestamp, StoreFailure>>),
) -> anyhow::Result<SystemClock> {
    let stopped = |why: String| Stopped(format!("the {name} database: {why}"));
    let (database, known) = tokio::join!(told(time), told(youngest));
    let (database, known) = (database.map_err(stopped)?, known.map_err(stopped)?);
    let machine = SystemClock::default().now();
    let apart = machine.since(database).max(database.since(machine));
    if apart > MAX_CLOCK_SKEW_MS {
        tracing::warn!(
            database = name,
            milliseconds = apart,
            ahead = machine > database,
            "this machine's clock and the database's are apart: this instance goes by the database's. Mend the machine's"
        );
    }
    SystemClock::shared(database, known).map_err(|behind| stopped(behind.to_string()).into())
}

async fn told(ask: impl FnOnce(Done<Result<Timestamp, StoreFailure>>)) -> Result<Timestamp, String> {
    let (send, answer) = tokio::sync::oneshot::channel();
    ask(Box::new(|told| _ = send.send(told)));
    match answer.await {
        Ok(told) => told.map_err(|failure| failure.to_string()),
        Err(_) => Err("no answer".to_owned()),
    }
}

/// Connects to NATS, as soon as it is there.
///
/// # Errors
/// If it is not there in time, or if waiting cannot help.
pub(super) async fn broker(config: &Config) -> anyhow::Result<Nats> {
    tracing::info!(servers = ?config.nats.url, "connecting to NATS, {} s at most", PATIENCE.as_secs());
    match connect_once(config, PATIENCE).await {
        Ok(nats) => Ok(nats),
        Err(error @ nats::StartError::Unreachable { .. }) => Err(Stopped(error.to_string()).into()),
        Err(error) => Err(error.into()),
    }
}

/// Connects to NATS.
///
/// # Errors
/// If it is not there within `patience`, or not what is needed.
pub(crate) async fn connect_once(config: &Config, patience: Duration) -> Result<Nats, nats::StartError> {
    let told = &config.nats;
    let mut options = Options::new(config.instance, "");
    options.servers.clone_from(&told.url);
    options.prefix = told.prefix;
    options.mode = match told.mode {
        config::Mode::Core => Mode::Core,
        config::Mode::Jetstream => Mode::JetStream {
            storage: match told.storage {
                config::Storage::Memory => Storage::Memory,
                config::Storage::File => Storage::File,
            },
            replicas: u8::try_from(told.replicas).unwrap_or(u8::MAX),
        },
    };
    if let Some(password) = told.password() {
        let user = told.username.clone().unwrap_or_default();
        options.credentials = Credentials::Password { user, password: password.to_owned() };
    }
    if telemetry::traces::tracer().is_some() {
        options.tracing = Some(Arc::new(AlongNats));
    }
    options.patience = patience;
    options.timeout = Duration::from_millis(COMMAND_PATIENCE_MS);
    Nats::connect(options).await
}
