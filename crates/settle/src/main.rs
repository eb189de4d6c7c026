//! `settle`: the shop, and the tools to load, audit and repair it.
//!
//! | command          | file         | what it does                                             |
//! |------------------|--------------|----------------------------------------------------------|
//! | `serve`          | `serve.rs`   | the whole shop on one port; also what a bare `settle` does |
//! | `load`           | crate `load` | drives any server that speaks the contract, and audits it |

mod exit;
mod serve;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

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
    /// Drive a server with checkouts, measure it, and audit it to the last cent and item.
    Load(load::LoadArgs),
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let result = match cli.command {
        None => serve::serve(cli.serve),
        Some(Command::Serve(args)) => serve::serve(args),
        Some(Command::Load(args)) => return load::main_load(&args),
    };
    exit::code(result)
}
