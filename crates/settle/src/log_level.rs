//! `settle log-level`: what a running shop logs.

use std::process::ExitCode;

use clap::Args;
use serde_json::Value;
use shop::log_level::FilterRequest;

use crate::door::Door;
use crate::output::say;

const EXAMPLES: &str = "\
Examples:
  settle log-level
  settle log-level debug
  settle log-level warn,orchestrator=debug
  settle log-level info
Of the distributed system:
  settle log-level debug --socket /run/settle/order-1.sock
  settle log-level debug --service stock --up settle-up

A filter is a level (error, warn, info, debug, trace, off), or several with the parts of the program that they are for. It lasts until it is changed
again, or the process ends: SETTLE_LOG says what it starts with.
Exit code: 0 done; 2 it could not be done, and the message says why.";

/// Says what a running shop logs, or changes it.
#[derive(Debug, Clone, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct LogLevelArgs {
    /// What to log from now on; left out: only say what is logged.
    filter: Option<String>,
    /// Tell every instance of this service instead of the one that is asked: orders, stock or payment.
    #[arg(long, value_name = "SERVICE", requires = "filter")]
    service: Option<String>,
    #[command(flatten)]
    door: Door,
}

/// Carries it out.
pub(crate) fn log_level(args: &LogLevelArgs) -> anyhow::Result<ExitCode> {
    let mut client = args.door.must_run("say what it logs")?;
    let answer: Value = match &args.filter {
        None => client.get("/log-level")?,
        Some(filter) => {
            let request = FilterRequest { filter: filter.clone(), service: args.service.clone() };
            client.put("/log-level", &request)?
        }
    };
    say(answer["filter"].as_str().unwrap_or_default())?;
    Ok(ExitCode::SUCCESS)
}
