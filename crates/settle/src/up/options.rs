//! What `settle up` can be told.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

use crate::config::Protocol;

/// What an answer of the system rests on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Level {
    /// Nothing is written down. For comparisons.
    Memory,
    /// The master has flushed it: survives a power cut, but a failover may lose what was acknowledged last.
    Fsync,
    /// And both replicas have it: survives the loss of any two machines.
    Replicated,
}

impl Level {
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Memory => "memory",
            Self::Fsync => "fsync",
            Self::Replicated => "replicated",
        }
    }
}

/// A part of the system.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Part {
    /// The broker, the databases and the Sentinels.
    Infrastructure,
}

/// What `settle up` can be told, on the command line.
#[derive(Debug, Clone, Args)]
#[command(
    after_help = "Examples:\n  settle up\n  settle up --small --port 9000\n  settle up --restart --chaos --logs order-1 payment-2"
)]
pub(crate) struct UpArgs {
    /// The gateway's port: where clients connect.
    #[arg(long, default_value_t = 8000, value_name = "PORT", value_parser = clap::value_parser!(u16).range(1..))]
    port: u16,
    /// The other ports, from this one on. Free ones unless told; once chosen, they stay with the data.
    #[arg(long, value_name = "PORT", value_parser = clap::value_parser!(u16).range(1..))]
    base_port: Option<u16>,
    /// The folder with everybody's configuration, data and log; made if absent. One system at a time.
    #[arg(long, default_value = "settle-up", value_name = "DIR")]
    data: PathBuf,
    /// Instances of each service.
    #[arg(long, default_value_t = 2, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=16))]
    instances: u32,
    /// What an answer rests on; `replicated` unless --small, which has no replicas. Below `replicated` a failover may lose
    /// acknowledged checkouts.
    #[arg(long, value_enum)]
    durability: Option<Level>,
    /// One database a service, without replicas and Sentinels: for small machines.
    #[arg(long)]
    small: bool,
    /// How checkouts become all or nothing.
    #[arg(long, value_enum, default_value = "auto")]
    protocol: Protocol,
    /// Allow fault injection.
    #[arg(long)]
    chaos: bool,
    /// Start again what ends by itself or is killed.
    #[arg(long)]
    restart: bool,
    /// Start Prometheus too, with Settle's recording rules and alerts.
    #[arg(long)]
    observability: bool,
    /// Put a proxy before each database and the broker, so that `settle chaos` can part them from the others.
    #[arg(long)]
    proxied: bool,
    /// Follow the logs of these instead of showing the table; `all` for everybody's.
    #[arg(long, num_args = 1.., value_name = "NAME")]
    logs: Vec<String>,
    /// Start this part alone.
    #[arg(long, value_enum)]
    only: Option<Part>,
}

/// The same, as it is meant.
#[derive(Debug, Clone)]
pub(super) struct UpOptions {
    pub(super) port: u16,
    pub(super) base_port: Option<u16>,
    pub(super) data: PathBuf,
    pub(super) instances: u32,
    pub(super) durability: Level,
    pub(super) small: bool,
    pub(super) protocol: String,
    pub(super) chaos: bool,
    pub(super) restart: bool,
    pub(super) observability: bool,
    pub(super) proxied: bool,
    pub(super) logs: Vec<String>,
    pub(super) infrastructure_only: bool,
}

impl UpArgs {
    pub(super) fn options(self) -> anyhow::Result<UpOptions> {
        let durability = self.durability.unwrap_or(if self.small { Level::Fsync } else { Level::Replicated });
        anyhow::ensure!(
            !(self.small && durability == Level::Replicated),
            "--small has no replicas, so --durability replicated is not to be had: leave one of them out"
        );
        let protocol = self.protocol.to_possible_value().map_or_else(String::new, |word| word.get_name().to_owned());
        Ok(UpOptions {
            port: self.port,
            base_port: self.base_port,
            data: self.data,
            instances: self.instances,
            durability,
            small: self.small,
            protocol,
            chaos: self.chaos,
            restart: self.restart,
            observability: self.observability,
            proxied: self.proxied,
            logs: self.logs,
            infrastructure_only: self.only == Some(Part::Infrastructure),
        })
    }
}
