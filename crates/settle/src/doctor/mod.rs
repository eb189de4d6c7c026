//! `settle doctor`: looks at what Settle runs on, and says what is wrong or will be, and what to do.
//!
//! | file          | what it looks at                                                                                 |
//! |---------------|--------------------------------------------------------------------------------------------------|
//! | `services.rs` | the configuration of distributed services, their databases, Sentinels and broker, and their clocks |
//! | `places.rs`   | where they would listen, and who listens where they would look                                    |
//! | `machine.rs`  | the data folder of the single process, its disk, and this machine                                  |
//! | `databases.rs` | the databases in that folder                                                                      |
//! | `environment.rs` | what the environment tells a `settle serve`                                                     |
//!
//! It changes nothing that stays.

mod databases;
mod environment;
mod machine;
mod places;
mod services;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use serde::Serialize;

use crate::exit::OFF;
use crate::output::say;
use crate::serve::ServeArgs;

/// What to look at.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  settle doctor\n  settle doctor --data /var/lib/settle\n  settle doctor --config settle.toml --json\n\n\
                  Exit code 0: nothing is wrong (there may be warnings). 1: something is."
)]
pub(crate) struct DoctorArgs {
    /// The configuration of a distributed service: it, and every server that it names, is looked at.
    #[arg(long, env = "SETTLE_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,
    /// The data folder of the single process; `settle-data` unless a configuration is given.
    #[arg(long, env = "SETTLE_DATA", value_name = "DIR")]
    data: Option<PathBuf>,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// How bad a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
enum Verdict {
    /// As it should be.
    Ok,
    /// It works, and will not when something fails.
    Warning,
    /// It does not work, or is not safe.
    Wrong,
}

#[derive(Debug, Serialize)]
struct Finding {
    verdict: Verdict,
    /// Such as `stock database`.
    about: String,
    /// What is so, and what to do if it should not be.
    what: String,
}

/// What was found so far.
#[derive(Debug, Default)]
struct Findings(Vec<Finding>);

impl Findings {
    fn add(&mut self, verdict: Verdict, about: &str, what: impl Into<String>) {
        self.0.push(Finding { verdict, about: about.to_owned(), what: what.into() });
    }

    fn ok(&mut self, about: &str, what: impl Into<String>) {
        self.add(Verdict::Ok, about, what);
    }

    fn warning(&mut self, about: &str, what: impl Into<String>) {
        self.add(Verdict::Warning, about, what);
    }

    fn wrong(&mut self, about: &str, what: impl Into<String>) {
        self.add(Verdict::Wrong, about, what);
    }
}

/// Looks, and tells. `shop` is what a `settle serve` is told by the environment alone.
pub(crate) fn doctor(args: &DoctorArgs, shop: &ServeArgs) -> anyhow::Result<ExitCode> {
    let mut findings = Findings::default();
    machine::limits(&mut findings);
    if let Some(file) = &args.config {
        services::examine(file, &mut findings);
    }
    match (&args.data, &args.config) {
        (Some(data), _) => machine::data(data, &mut findings),
        (None, None) => machine::data("settle-data".as_ref(), &mut findings),
        (None, Some(_)) => {}
    }
    if args.config.is_none() {
        environment::examine(shop, args.data.as_deref(), &mut findings);
    }
    let Findings(findings) = findings;
    let worst = findings.iter().map(|finding| finding.verdict).max();
    let count = |verdict| findings.iter().filter(|finding| finding.verdict == verdict).count();
    let (wrong, warnings) = (count(Verdict::Wrong), count(Verdict::Warning));
    if args.json {
        let report = serde_json::json!({ "wrong": wrong, "warnings": warnings, "findings": findings });
        say(&serde_json::to_string_pretty(&report)?)?;
    } else {
        for Finding { verdict, about, what } in &findings {
            let word = match verdict {
                Verdict::Ok => "ok     ",
                Verdict::Warning => "warning",
                Verdict::Wrong => "WRONG  ",
            };
            say(&format!("{word}  {about}: {what}"))?;
        }
        say(&match (wrong, warnings) {
            (0, 0) => "Nothing is wrong.".to_owned(),
            (0, warnings) => format!("Nothing is wrong; {warnings} to think about."),
            (wrong, warnings) => format!("{wrong} wrong, {warnings} to think about."),
        })?;
    }
    Ok(if worst == Some(Verdict::Wrong) { ExitCode::from(OFF) } else { ExitCode::SUCCESS })
}
