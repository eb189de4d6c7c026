//! The two subcommands without the rest of `settle`, for when only a load generator is wanted:
//!
//! ```text
//! cargo run --release -p settle-load --example load -- load --help
//! ```

use std::process::ExitCode;

use clap::Parser;
use load::{AuditArgs, LoadArgs, main_audit, main_load};

/// Drives and audits a server that speaks the checkout contract.
#[derive(Parser)]
enum Command {
    Load(LoadArgs),
    Audit(AuditArgs),
}

fn main() -> ExitCode {
    match Command::parse() {
        Command::Load(args) => main_load(&args),
        Command::Audit(args) => main_audit(&args),
    }
}
