//! The project's own commands: `cargo xtask test`, `bench`, `soak`, `spec`, `tidy`.
//!
//! | command | what it does                                                                      | about                      |
//! |---------|-----------------------------------------------------------------------------------|----------------------------|
//! | `test`  | everything that must hold before a commit lands; what CI runs                     | 20 minutes                 |
//! | `bench` | the figures of docs/benchmarks.md, as ratios within one run                       | a quarter of an hour, more |
//! | `soak`  | fresh seeds, deeper models, more kills, fuzzing: for as long as asked             | as asked                   |
//! | `spec`  | checks the TLA+ specification, and that the checker finds the bugs planted in it  | 3 minutes                  |
//! | `tidy`  | what no compiler checks: file sizes, the map in ARCHITECTURE.md, links            | a second                   |

mod bench;
mod install;
mod run;
mod server;
mod soak;
mod spec;
mod test;
mod tidy;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// The project's commands.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run every check: format, clippy, unit, property, conformance, simulation, model, end-to-end, crash tests, specification.
    Test {
        /// Say what is missing instead of installing it.
        #[arg(long)]
        no_install: bool,
    },
    /// Measure, as ratios within one run on this machine.
    Bench(bench::BenchArgs),
    /// Look for trouble for as long as asked.
    Soak(soak::SoakArgs),
    /// Check the TLA+ specification under spec/.
    Spec {
        /// Check the large configurations too: minutes.
        #[arg(long)]
        deep: bool,
        /// Say what is missing instead of installing it.
        #[arg(long)]
        no_install: bool,
    },
    /// Check what no compiler checks.
    Tidy,
}

fn main() -> ExitCode {
    let result = match Cli::parse().command {
        Command::Test { no_install } => test::test(!no_install),
        Command::Bench(args) => bench::bench(&args),
        Command::Soak(args) => soak::soak(&args),
        Command::Spec { deep, no_install } => spec::spec(deep, !no_install),
        Command::Tidy => tidy::tidy(),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("\nxtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}
