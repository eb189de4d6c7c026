//! `settle`: the shop, and the tools to load, audit and repair it.
//!
//! | command          | file         | what it does                                               |
//! |------------------|--------------|------------------------------------------------------------|
//! | `serve`          | `serve.rs`   | the whole shop on one port; also what a bare `settle` does |
//! | `serve --restart` | `keeper.rs` | the same as a process that is started again whenever it ends |
//! | `order`, `stock`, `payment` | `service/` | one of the services as a process of its own     |
//! | `load`           | crate `load` | drives any server that speaks the contract, and audits it  |
//! | `bench report`   | crate `report` | plots what `load` measured                               |
//! | `audit`          | `audit.rs`   | whether a cent or an item is off                           |
//! | `tx`             | `tx.rs`      | transactions: list, show, retry, resolve                   |
//! | `log-level`      | `log_level.rs` | what a running shop logs                                 |
//! | `journal`        | `journal.rs` | what stands in a store's journal                           |
//! | `config`         | `config/`    | the configuration of the distributed services              |
//! | `doctor`         | `doctor/`    | what is wrong with a configuration, its servers, a machine |
//! | `top`            | `top/`       | what the page shows, in a terminal                         |
//! | `up`             | `up/`        | the whole distributed system on this machine               |
//! | `chaos`          | `chaos/`     | breaks its parts under load, and audits                    |
//!
//! `gateway/` makes the configuration of HAProxy, `compose/` the files for containers.
//!
//! `dashboard.rs` says where the page of a process has its figures from.
//!
//! The tools ask a running shop through `door.rs` and `admin_client.rs`, and read the stores themselves through `folder.rs` if none runs.

mod admin_client;
mod audit;
mod chaos;
mod compose;
mod config;
mod dashboard;
mod decode;
mod doctor;
mod door;
mod exit;
mod folder;
mod gateway;
mod history;
mod journal;
mod keeper;
mod listener;
mod log_level;
mod output;
mod runtime;
mod serve;
mod service;
mod top;
mod traces;
mod tx;
mod up;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::config::Service;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// A checkout that never loses a cent or an item.
///
/// Without a command it serves the shop at http://127.0.0.1:8000, with its data in ./settle-data.
#[derive(Debug, Parser)]
#[command(name = "settle", version, max_term_width = 110)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    serve: serve::ServeArgs,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve the whole shop on one port.
    Serve(serve::ServeArgs),
    /// Serve orders and checkouts, with the database in Redis and the other services behind NATS.
    Order(service::ServiceArgs),
    /// Serve stock, with its database in Redis.
    Stock(service::ServiceArgs),
    /// Serve payment, with its database in Redis.
    Payment(service::ServiceArgs),
    /// Drive a server with checkouts, measure it, and audit it to the last cent and item.
    Load(load::LoadArgs),
    /// Plot load runs, side by side.
    Bench(report::BenchArgs),
    /// Check the books: whether a cent or an item is off, and where.
    Audit(audit::BooksArgs),
    /// Look at transactions, and settle those that are stuck.
    Tx(tx::TxArgs),
    /// Say what a running shop logs, or have it log more, or less.
    LogLevel(log_level::LogLevelArgs),
    /// Read a store's journal.
    Journal(journal::JournalArgs),
    /// Check the configuration of the distributed services, or print an example.
    Config(config::command::ConfigCommand),
    /// Show live what a running shop or system does: throughput, latency, what is up, whether all is well.
    Top(top::TopArgs),
    /// Look for what is wrong with a configuration, the servers it names, and this machine, and say what to do.
    Doctor(doctor::DoctorArgs),
    /// Start the whole distributed system on this machine, from installed servers.
    Up(up::UpArgs),
    /// Break one part after another of what `settle up` or `settle serve --restart` runs, under load, and look for a lost cent, item or answer.
    Chaos(chaos::ChaosArgs),
    /// Become another program that ends with whoever started this one.
    #[command(hide = true)]
    AsChild(up::child::ChildArgs),
}

fn main() -> ExitCode {
    shop::metrics::began();
    let cli = Cli::parse();
    let result = match cli.command {
        None => serve::serve(cli.serve),
        Some(Command::Serve(args)) => serve::serve(args),
        Some(Command::Order(args)) => service::serve(Service::Orders, &args),
        Some(Command::Stock(args)) => service::serve(Service::Stock, &args),
        Some(Command::Payment(args)) => service::serve(Service::Payment, &args),
        Some(Command::Load(args)) => return load::main_load(&args),
        Some(Command::Bench(args)) => bench(&args),
        Some(Command::Audit(args)) => audit::audit(args),
        Some(Command::Tx(args)) => tx::tx(args),
        Some(Command::LogLevel(args)) => log_level::log_level(&args),
        Some(Command::Journal(args)) => journal::journal(args),
        Some(Command::Config(args)) => config::command::config(&args),
        Some(Command::Top(args)) => top::top(&args),
        Some(Command::Doctor(args)) => doctor::doctor(&args, &cli.serve),
        Some(Command::Up(args)) => up::up(args),
        Some(Command::Chaos(args)) => chaos::chaos(&args),
        Some(Command::AsChild(args)) => up::child::as_child(&args),
    };
    exit::code(result)
}

fn bench(args: &report::BenchArgs) -> anyhow::Result<ExitCode> {
    output::say(&report::main_bench(args)?)?;
    Ok(ExitCode::SUCCESS)
}
