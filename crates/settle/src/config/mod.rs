//! The configuration of the distributed services: one schema, read from a file, the environment and the command line.
//!
//! ```text
//!   defaults ◄── FILE (TOML) ◄── SETTLE_… (`__` between levels) ◄── flags        each over those before it
//!       └────────────┴───────── figment ─────────┴─────────────────┘
//!                                  │ unknown keys refused by name, types told with their source (extract.rs)
//!                                  ▼
//!                               Config ──► bounds and contradictions (check.rs), all of them at once
//!                                  │
//!                                  └─► redis_store::Options, …
//! ```
//!
//! | file         | what it is                                            |
//! |--------------|-------------------------------------------------------|
//! | `keys.rs`    | the table of keys: kind, default, what is allowed     |
//! | `sources.rs` | file, environment and flags as sources of values      |
//! | `extract.rs` | values into the schema, and all that are of a wrong kind |
//! | `check.rs`   | bounds and contradictions                             |
//! | `command.rs` | `settle config check`, `settle config example`        |
//!
//! Passwords come from the environment (`SETTLE_ORDERS__PASSWORD`) or from a file that the configuration names; never from the
//! configuration's own file or a flag.

mod check;
pub(crate) mod command;
mod extract;
mod keys;
mod sources;
#[cfg(test)]
mod tests;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use clap::{Args, ValueEnum};
use figment::Figment;
use orchestrator::Choice;
use protocol::Name;
use redis_store::{Credentials, Failover, Options, Place};
use serde::Deserialize;

use extract::{Extracted, Wrong};
use sources::{Source, address, name, one_or_many};

use crate::traces::{HEADERS, Told};

/// The annotated example, which also stands at `deploy/settle.example.toml`.
pub(crate) const EXAMPLE: &str = include_str!("example.toml");

/// How one service of the distributed system runs.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Config {
    /// This instance's name: no other's. Made up at every start unless given.
    #[serde(default = "some_name", deserialize_with = "name")]
    pub(crate) instance: Name,
    /// Where HTTP is served.
    #[serde(deserialize_with = "address")]
    pub(crate) listen: SocketAddr,
    /// Names that are this server's, besides localhost and its addresses.
    #[serde(default, deserialize_with = "one_or_many")]
    pub(crate) hosts: Vec<String>,
    /// How checkouts become all or nothing.
    pub(crate) protocol: Protocol,
    /// Whether seeding and faults are refused.
    pub(crate) production: bool,
    /// Whether faults may be injected.
    pub(crate) chaos: bool,
    /// Attempts before a branch that is not acknowledged becomes a dead letter.
    pub(crate) attempts: u32,
    /// Threads for requests and messages; 0: half as many as the machine has processors.
    pub(crate) threads: usize,
    /// How log lines look.
    pub(crate) log_format: LogFormat,
    /// The broker between the services.
    pub(crate) nats: Nats,
    /// Where traces go.
    telemetry: Option<Telemetry>,
    /// Where operators reach an order instance.
    admin: Option<Admin>,
    /// Whom an order instance's page shows beside itself.
    watch: Option<Watched>,
    orders: Option<Store>,
    stock: Option<Store>,
    payment: Option<Store>,
}

/// Which protocol checkouts use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Protocol {
    /// By the abort rate: sagas from 10 % aborts, two-phase commit again from 5 %.
    Auto,
    /// Two-phase commit: answers after one durable round.
    #[value(name = "2pc")]
    #[serde(rename = "2pc")]
    TwoPhase,
    /// Saga: does at once, and undoes if a step refuses.
    Saga,
}

impl From<Protocol> for Choice {
    fn from(protocol: Protocol) -> Self {
        match protocol {
            Protocol::Auto => Self::Auto,
            Protocol::TwoPhase => Self::TwoPhase,
            Protocol::Saga => Self::Saga,
        }
    }
}

/// How log lines look on standard error.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub(crate) enum LogFormat {
    /// `pretty` on a terminal, otherwise `json`.
    Auto,
    /// A JSON object a line.
    Json,
    /// For people.
    Pretty,
}

impl From<LogFormat> for telemetry::logs::Format {
    fn from(format: LogFormat) -> Self {
        match format {
            LogFormat::Auto => Self::Auto,
            LogFormat::Json => Self::Json,
            LogFormat::Pretty => Self::Pretty,
        }
    }
}

/// How commands travel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Mode {
    /// Kept by the broker until they are acknowledged.
    Jetstream,
    /// Straight through, from who is there to who is there.
    Core,
}

/// Where the broker keeps what it has not delivered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Storage {
    /// In memory: gone with the broker, and sent again.
    Memory,
    /// In files.
    File,
}

/// The broker.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Nats {
    /// One address, or those of a cluster.
    #[serde(deserialize_with = "one_or_many")]
    pub(crate) url: Vec<String>,
    /// The first word of all subjects and streams: systems that share servers need different ones.
    pub(crate) prefix: Name,
    /// How commands travel.
    pub(crate) mode: Mode,
    /// Where undelivered commands are kept, with JetStream.
    pub(crate) storage: Storage,
    /// How many of a cluster's servers keep them: 1, 3 or 5.
    pub(crate) replicas: u32,
    /// Who Settle is there.
    pub(crate) username: Option<String>,
    password_file: Option<PathBuf>,
    #[serde(skip)]
    secret: Secret,
}

impl Nats {
    /// The password, if one is needed.
    pub(crate) fn password(&self) -> Option<&str> {
        self.secret.0.as_deref()
    }
}

/// Where traces go, and which.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
struct Telemetry {
    endpoint: Option<String>,
    protocol: String,
    sample_ratio: f64,
    slow_ms: u64,
    trace_url: Option<String>,
    service: Option<String>,
    #[serde(skip)]
    headers: Secret,
}

/// The operators' door.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Admin {
    listen: Option<String>,
    password_file: Option<PathBuf>,
    #[serde(skip)]
    secret: Secret,
}

/// Whom an order instance's page shows.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
struct Watched {
    /// Base URLs.
    #[serde(default, deserialize_with = "one_or_many")]
    instances: Vec<String>,
}

/// Where operators reach an order instance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Door {
    /// A Unix socket, which only this user can open.
    Socket(PathBuf),
    /// An address; whoever reaches it must know the password, if there is one.
    Address(SocketAddr, Option<String>),
}

/// What an answer rests on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Durability {
    Memory,
    Fsync,
    Replicated,
}

/// One service's database.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
struct Store {
    redis: Option<String>,
    #[serde(default, deserialize_with = "one_or_many")]
    sentinels: Vec<String>,
    master: Option<String>,
    durability: Durability,
    replicas: u32,
    may_lose_acknowledged_writes: bool,
    wait_ms: u64,
    patience_ms: u64,
    username: Option<String>,
    password_file: Option<PathBuf>,
    #[serde(skip)]
    secret: Secret,
}

/// A password, which is never printed.
#[derive(Clone, PartialEq, Eq, Default)]
struct Secret(Option<String>);

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(if self.0.is_some() { "hidden" } else { "none" })
    }
}

/// A service with a database of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Service {
    /// Orders and the transaction log.
    Orders,
    /// Items.
    Stock,
    /// Users.
    Payment,
}

impl Service {
    pub(crate) const ALL: [Self; 3] = [Self::Orders, Self::Stock, Self::Payment];

    /// Its section, which is also the first segment of its paths.
    pub(crate) fn section(self) -> &'static str {
        match self {
            Self::Orders => "orders",
            Self::Stock => "stock",
            Self::Payment => "payment",
        }
    }
}

/// Why there is no configuration: every problem that was found, each a line for people.
#[derive(Debug, thiserror::Error)]
#[error("{}", .0.join("\n        "))]
pub(crate) struct ConfigError(Vec<String>);

/// What a service is told on its command line.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct ConfigArgs {
    /// The configuration, in TOML: `settle config example` prints one.
    #[arg(long, env = "SETTLE_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,
    /// This instance's name; no other instance's.
    #[arg(long, value_name = "NAME")]
    instance: Option<String>,
    /// Where to listen.
    #[arg(long, value_name = "ADDR")]
    listen: Option<String>,
    /// How checkouts become all or nothing.
    #[arg(long, value_name = "auto|2pc|saga")]
    protocol: Option<String>,
    /// Attempts before an unacknowledged branch becomes a dead letter.
    #[arg(long, value_name = "N")]
    attempts: Option<String>,
    /// How log lines look on standard error.
    #[arg(long, value_name = "auto|json|pretty")]
    log_format: Option<String>,
    /// Refuse batch_init and fault injection.
    #[arg(long)]
    production: bool,
    /// Allow fault injection. Not for production.
    #[arg(long)]
    chaos: bool,
    /// Set any other key, such as `--set stock.durability=fsync`.
    #[arg(long, value_name = "KEY=VALUE")]
    set: Vec<String>,
}

impl ConfigArgs {
    /// The configuration that a file alone gives.
    pub(crate) fn of_file(file: PathBuf) -> Self {
        Self { config: Some(file), ..Self::default() }
    }

    /// Reads the file, this process's environment and these flags.
    ///
    /// # Errors
    /// With everything that is wrong.
    pub(crate) fn load(&self) -> Result<Config, ConfigError> {
        self.load_with(&environment())
    }

    /// The same in this environment.
    fn load_with(&self, environment: &[(String, String)]) -> Result<Config, ConfigError> {
        let (figment, mut problems) = self.sources(environment);
        let Extracted { config, wrong } = Extracted::from(&figment);
        problems.extend(wrong.iter().map(|wrong| wrong.told.clone()));
        let Some(mut config) = config else { return Err(ConfigError(problems)) };
        let mut found = check::check(&config, &figment);
        found.extend(config.take_secrets(environment));
        found.extend(check::traces(&config, &figment));
        found.extend(check::open_door(&config));
        // Of what is wrong as it is, no more than that is said.
        let is_of = |found: &str, wrong: &Wrong| found.contains(&format!("`{}`", wrong.path));
        problems.extend(found.into_iter().filter(|found| !wrong.iter().any(|wrong| is_of(found, wrong))));
        if problems.is_empty() { Ok(config) } else { Err(ConfigError(problems)) }
    }

    /// All that is said, each over what was said before; and what cannot be taken in.
    fn sources(&self, environment: &[(String, String)]) -> (Figment, Vec<String>) {
        let (mut sources, mut problems) = (vec![], vec![]);
        for (name, text) in environment {
            match Source::standard(name, text) {
                Ok(source) => sources.extend(source),
                Err(problem) => problems.push(problem),
            }
        }
        if let Some(file) = &self.config {
            match Source::file(file) {
                Ok((source, unknown)) => {
                    sources.push(source);
                    problems.extend(unknown);
                }
                Err(problem) => problems.push(problem),
            }
        }
        for (name, text) in environment {
            match Source::variable(name, text) {
                Ok(source) => sources.extend(source),
                Err(problem) => problems.push(problem),
            }
        }
        for flag in self.flags() {
            match flag {
                Ok(source) => sources.push(source),
                Err(problem) => problems.push(problem),
            }
        }
        let mut figment = Figment::new();
        for (path, key) in keys::paths() {
            // A service whose section nobody gave has no database, not a default one.
            let stands = match path.split_once('.') {
                Some((section, _)) => section == "nats" || sources.iter().any(|source| source.says(section)),
                None => true,
            };
            if stands && !key.default.is_empty() {
                match Source::default(&path, key.default) {
                    Ok(source) => figment = figment.merge(source),
                    Err(problem) => problems.push(problem),
                }
            }
        }
        (sources.into_iter().fold(figment, Figment::merge), problems)
    }

    fn flags(&self) -> Vec<Result<Source, String>> {
        let named = [
            ("instance", self.instance.as_deref()),
            ("listen", self.listen.as_deref()),
            ("protocol", self.protocol.as_deref()),
            ("attempts", self.attempts.as_deref()),
            ("log_format", self.log_format.as_deref()),
            ("production", self.production.then_some("true")),
            ("chaos", self.chaos.then_some("true")),
        ];
        let named = named
            .into_iter()
            .filter_map(|(path, text)| Some(Source::flag(&format!("--{}", path.replace('_', "-")), path, text?)));
        let set = self.set.iter().map(|pair| match pair.split_once('=') {
            Some((path, text)) => Source::flag("--set", path.trim(), text.trim()),
            None => Err(format!("--set {pair}: expected KEY=VALUE, such as stock.durability=fsync")),
        });
        named.chain(set).collect()
    }
}

impl Config {
    /// How the database of a service is reached and kept.
    ///
    /// # Errors
    /// If nothing says where it is.
    pub(crate) fn redis(&self, service: Service) -> Result<Options, ConfigError> {
        let section = service.section();
        let store = self.store(service).ok_or_else(|| {
            ConfigError(vec![format!(
                "nothing says where the database of {section} is: set `{section}.redis`, or `{section}.sentinels` and \
                 `{section}.master`"
            )])
        })?;
        Ok(store.options())
    }

    /// Where traces go, and which, if anywhere.
    pub(crate) fn traces(&self) -> Option<Told> {
        let telemetry = self.telemetry.as_ref()?;
        Some(Told {
            endpoint: telemetry.endpoint.clone().filter(|endpoint| !endpoint.is_empty())?,
            protocol: telemetry.protocol.clone(),
            ratio: telemetry.sample_ratio,
            slow_ms: telemetry.slow_ms,
            service: telemetry.service.clone(),
            headers: telemetry.headers.0.clone(),
        })
    }

    /// Where traces are shown, if somebody said so.
    pub(crate) fn trace_url(&self) -> Option<&str> {
        self.telemetry.as_ref()?.trace_url.as_deref().filter(|url| !url.is_empty())
    }

    /// The files that passwords are read from.
    pub(crate) fn password_files(&self) -> impl Iterator<Item = &std::path::Path> {
        let stores = [&self.orders, &self.stock, &self.payment].into_iter().flatten();
        let admin = self.admin.iter().map(|admin| &admin.password_file);
        stores
            .map(|store| &store.password_file)
            .chain([&self.nats.password_file])
            .chain(admin)
            .flatten()
            .map(PathBuf::as_path)
    }

    /// Where operators reach an order instance, if anywhere.
    pub(crate) fn door(&self) -> Option<Door> {
        let admin = self.admin.as_ref()?;
        let listen = admin.listen.as_ref()?;
        Some(match listen.parse() {
            Ok(address) => Door::Address(address, admin.secret.0.clone()),
            Err(_) => Door::Socket(PathBuf::from(listen)),
        })
    }

    /// What operators must say at the address where the service is served, too; `None`: they are not let in there.
    pub(crate) fn operators_password(&self) -> Option<Arc<str>> {
        self.admin.as_ref()?.secret.0.as_deref().map(Arc::from)
    }

    /// The base URLs of the processes that an order instance's page shows beside itself.
    pub(crate) fn watched(&self) -> &[String] {
        self.watch.as_ref().map_or(&[], |watch| &watch.instances)
    }

    fn store(&self, service: Service) -> Option<&Store> {
        match service {
            Service::Orders => self.orders.as_ref(),
            Service::Stock => self.stock.as_ref(),
            Service::Payment => self.payment.as_ref(),
        }
    }

    /// Takes the passwords from the environment and from the files that are named; says what is wrong with them.
    fn take_secrets(&mut self, environment: &[(String, String)]) -> Vec<String> {
        let admins = keys::variable(&format!("admin.{}", sources::SECRET));
        if environment.iter().any(|(name, text)| *name == admins && !text.is_empty()) {
            // A password alone lets operators in at the service's own address.
            self.admin.get_or_insert_default();
        }
        let stores = [("orders", &mut self.orders), ("stock", &mut self.stock), ("payment", &mut self.payment)];
        let stores = stores.into_iter().filter_map(|(section, store)| {
            let store = store.as_mut()?;
            Some((section, &store.password_file, &mut store.secret))
        });
        let nats = ("nats", &self.nats.password_file, &mut self.nats.secret);
        let admin = self.admin.as_mut().map(|admin| ("admin", &admin.password_file, &mut admin.secret));
        let headers = environment.iter().find(|(name, _)| name == HEADERS);
        if let (Some(telemetry), Some((_, headers))) = (&mut self.telemetry, headers) {
            telemetry.headers.0 = Some(headers.clone());
        }
        let mut problems = vec![];
        for (section, file, secret) in stores.chain([nats]).chain(admin) {
            let variable = keys::variable(&format!("{section}.{}", sources::SECRET));
            let given = environment.iter().find(|(name, text)| *name == variable && !text.is_empty());
            match (given, file) {
                (Some(_), Some(file)) => {
                    let file = file.display();
                    problems.push(format!("{variable} and `{section}.password_file` ({file}) exclude each other"));
                }
                (Some((_, password)), None) => secret.0 = Some(password.clone()),
                (None, Some(file)) => match std::fs::read_to_string(file) {
                    // What editors and `echo` put behind a password.
                    Ok(text) => secret.0 = Some(text.trim_end_matches(['\n', '\r']).to_owned()),
                    Err(error) => {
                        let file = file.display();
                        problems.push(format!("`{section}.password_file`: cannot read {file}: {error}"));
                    }
                },
                (None, None) => {}
            }
        }
        problems
    }
}

impl Store {
    fn options(&self) -> Options {
        let place = match &self.redis {
            Some(address) => Place::Standalone { address: address.clone() },
            None => {
                Place::Sentinel { sentinels: self.sentinels.clone(), master: self.master.clone().unwrap_or_default() }
            }
        };
        Options {
            credentials: Credentials { username: self.username.clone(), password: self.secret.0.clone() },
            durability: match self.durability {
                Durability::Memory => redis_store::Durability::Memory,
                Durability::Fsync => redis_store::Durability::Fsync,
                Durability::Replicated => redis_store::Durability::Replicated { replicas: self.replicas },
            },
            failover: if self.may_lose_acknowledged_writes {
                Failover::MayLoseAcknowledgedWrites
            } else {
                Failover::LosesNothing
            },
            wait: Duration::from_millis(self.wait_ms),
            patience: Duration::from_millis(self.patience_ms),
            ..Options::new(place)
        }
    }
}

/// The configuration that these variables alone give.
#[cfg(test)]
pub(crate) fn read_variables(environment: &[(String, String)]) -> Result<Config, ConfigError> {
    ConfigArgs::default().load_with(environment)
}

/// This process's variables that may be ours.
fn environment() -> Vec<(String, String)> {
    // One that is no text is none of ours.
    let texts =
        std::env::vars_os().filter_map(|(name, text)| Some((name.into_string().ok()?, text.into_string().ok()?)));
    texts.filter(|(name, _)| name.starts_with("SETTLE_") || name.starts_with("OTEL_")).collect()
}

/// What is wrong with the names of this process's variables, where it heeds those of `heeded`.
pub(crate) fn misspelt_variables(heeded: &[String]) -> Vec<String> {
    environment().iter().filter_map(|(name, _)| sources::misspelt(name, heeded)).collect()
}

/// A name that no other instance has: `settle-` and twelve random digits.
fn some_name() -> Name {
    use std::hash::{BuildHasher, Hasher};
    // The standard library seeds its hashers from the operating system's randomness.
    let random = std::hash::RandomState::new().build_hasher().finish();
    let text = format!("settle-{:012x}", random & 0xffff_ffff_ffff);
    Name::new(&text).expect("19 letters and digits are a name")
}
