//! The two subcommands: flags in, a table on stdout, an exit code out.
//!
//! | exit code | meaning |
//! |---|---|
//! | 0 | all is well |
//! | 1 | money or stock is off by at least one, or the consistency scenario did not sell exactly its stock |
//! | 2 | bad input, or the run could not be made or judged; also: interrupted before the load, or twice |
//!
//! A run that is interrupted under load is judged by what was sent until then.

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

pub use crate::args::{LoadArgs, Plan};

use crate::LoadError;
use crate::args::parse_duration;
use crate::audit::{self, Ids, Reading, Snapshot, Verdict};
use crate::client::Target;
use crate::interrupt::Interrupt;
use crate::report::verdict_text;
use crate::run::{run_until, runtime};

/// The exit code of what could not be made or judged.
const UNUSABLE: u8 = 2;

const AUDIT_EXAMPLES: &str = "\
Examples:
  Nothing is below zero in orders, items and users \"0\" to \"n-1\":
    settle audit --orders 100000 --items 1000 --users 1000

  And every unit and cent is accounted for, given what each item and user started with (batch_init):
    settle audit --orders 100000 --items 1000 --users 1000 --stock 1000000 --credit 1000000

Exit code: 0 all is well; 1 money or stock is off by at least one; 2 bad input, or the server could not be read.
Run it while no checkout is running.";

/// Reads orders, items and users of any server that speaks the contract and checks that they add up.
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = AUDIT_EXAMPLES)]
pub struct AuditArgs {
    /// Where the server listens
    #[arg(long, default_value = "http://127.0.0.1:8000")]
    pub url: String,
    /// Read the orders "0" to "n-1", and the users and items that they name
    #[arg(long, value_name = "N", default_value_t = 0, value_parser = clap::value_parser!(u64).range(..=10_000_000))]
    pub orders: u64,
    /// Read the items "0" to "n-1"
    #[arg(long, value_name = "N", default_value_t = 0, value_parser = clap::value_parser!(u64).range(..=10_000_000))]
    pub items: u64,
    /// Read the users "0" to "n-1"
    #[arg(long, value_name = "N", default_value_t = 0, value_parser = clap::value_parser!(u64).range(..=10_000_000))]
    pub users: u64,
    /// Units that each item started with; checks that stock and paid orders agree
    #[arg(long, value_name = "UNITS", requires = "credit")]
    pub stock: Option<i64>,
    /// Credit that each user started with; checks that credit and paid orders agree
    #[arg(long, value_name = "AMOUNT", requires = "stock")]
    pub credit: Option<i64>,
    /// How long one read may take
    #[arg(long, default_value = "10s", value_parser = parse_duration)]
    pub timeout: Duration,
}

/// `settle load`: makes the run, prints the report, and says with its exit code whether all is well.
///
/// Blocks; brings its own runtimes (see [`run`](crate::run())), and takes SIGINT and SIGTERM for itself.
#[must_use]
pub fn main_load(args: &LoadArgs) -> ExitCode {
    let ended_at_once = || {
        eprintln!("error: interrupted twice: ended at once, without figures and without an audit");
        std::process::exit(UNUSABLE.into());
    };
    match Interrupt::by_signals(ended_at_once).and_then(|interrupt| run_until(args, &interrupt)) {
        Ok(report) => {
            if !args.quiet {
                println!("{}", report.to_text());
            }
            report.exit_code()
        }
        Err(error) => give_up(&error),
    }
}

/// `settle audit` over HTTP: reads, checks, prints.
///
/// Blocks; brings its own runtime.
#[must_use]
pub fn main_audit(args: &AuditArgs) -> ExitCode {
    match audit_over_http(args) {
        Ok(verdict) => {
            println!("{}", verdict_text(&verdict));
            ExitCode::from(u8::from(!verdict.is_clean()))
        }
        Err(error) => give_up(&error),
    }
}

/// Reads the ranges that the flags name and checks them.
///
/// # Errors
/// [`LoadError::BadInput`] for a bad URL or empty ranges, [`LoadError::Unreadable`] when the server does not answer.
pub fn audit_over_http(args: &AuditArgs) -> Result<Verdict, LoadError> {
    let target = Arc::new(Target::new(&args.url)?);
    let mut ids = Ids::batch(args.orders, args.items, args.users);
    if ids == Ids::default() {
        return Err(LoadError::BadInput(
            "nothing to audit: say how many --orders, --items or --users there are".into(),
        ));
    }
    let reading = Reading { connections: 64, timeout: args.timeout };
    let now = runtime()?.block_on(audit::fetch(&target, &mut ids, reading))?;
    Ok(match (args.stock, args.credit) {
        (Some(stock), Some(credit)) => {
            let start = Snapshot::alike(&ids, stock, credit);
            audit::check_sums(&start, &now)
        }
        _ => audit::check_signs(&now),
    })
}

fn give_up(error: &LoadError) -> ExitCode {
    eprintln!("error: {error}");
    ExitCode::from(UNUSABLE)
}
