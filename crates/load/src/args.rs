//! The flags of `load`, and the checked [`Plan`] that they make.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;

use crate::LoadError;
use crate::client::Target;
use crate::scenario::{Scenario, Sizes};

const EXAMPLES: &str = "\
Examples:
  As fast as 64 connections get answers, for ten seconds, each order once:
    settle load

  2,000 checkouts per second whatever the server does; latency counts from when each was due:
    settle load --rate 2000 --duration 30s

  Everybody wants the same item; demand above supply; the course's consistency test:
    settle load --scenario hot-item
    settle load --scenario sold-out --orders 50000
    settle load --scenario consistency

  Another server, all numbers in a file:
    settle load --url http://127.0.0.1:9000 --json result.json

  What the client and an empty handler can do without any shop:
    settle load --scenario post:/empty --url http://127.0.0.1:8099

Exit code: 0 all is well; 1 money or stock is off by at least one, or the consistency scenario did not sell
exactly its stock; 2 bad input, or the run could not be made or judged.

Ctrl-C (SIGINT) or SIGTERM ends the sending: what is under way is answered, and what was measured until then is
printed, written to the --json file and audited; the exit code is that of its result. A second one ends it at once,
as the first one does before the load has begun: exit code 2.

CAUTION: without --no-seed the run replaces orders, items and users \"0\" to \"n-1\" of the server (batch_init). Two runs\nat a time, or one beside `settle chaos`, take each other's for a mistake in the books: run one after the other.";

/// Drives checkouts against any server that speaks the contract, then audits every order, user and item.
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct LoadArgs {
    /// Where the server listens; a path, if any, is put before every request's own
    #[arg(long, default_value = "http://127.0.0.1:8000")]
    pub url: String,

    /// What to ask for: uniform, hot-item, sold-out, mixed, consistency, or one fixed request as get:/path or
    /// post:/path
    #[arg(long, default_value = "uniform")]
    pub scenario: Scenario,

    /// How many connections, each with one request at a time, 1 to 10000 [default: 64; consistency: one per order]
    #[arg(long, value_name = "N")]
    pub connections: Option<usize>,

    /// Open loop: start this many requests per second, 0.1 to 1000000, and count latency from when each was due
    #[arg(long, value_name = "PER_SECOND")]
    pub rate: Option<f64>,

    /// The run ends after this time at the latest, for example 500ms, 10s or 2m; up to 24h [default: 10s;
    /// consistency: 60s]
    #[arg(long, value_parser = parse_duration)]
    pub duration: Option<Duration>,

    /// The run ends after this many requests at the latest, 1 to 1000000000
    #[arg(long, value_name = "N", default_value_t = 100_000_000)]
    pub requests: u64,

    /// How many orders there are, up to 10000000; each is checked out at most once [default: 100000;
    /// consistency: 1000]
    #[arg(long, value_name = "N")]
    pub orders: Option<u64>,

    /// How many items there are, up to 10000000 [default: 1000; hot-item and consistency: always 1]
    #[arg(long, value_name = "N")]
    pub items: Option<u64>,

    /// How many users there are, up to 10000000 [default: 1000; consistency: one per order]
    #[arg(long, value_name = "N")]
    pub users: Option<u64>,

    /// Units of each item at the start [default: plenty; sold-out: half the demand; consistency: 100]
    #[arg(long, value_name = "UNITS")]
    pub stock: Option<i64>,

    /// Credit of each user at the start [default: plenty; consistency: the price]
    #[arg(long, value_name = "AMOUNT")]
    pub credit: Option<i64>,

    /// Price of each item
    #[arg(long, value_name = "AMOUNT", default_value_t = 1)]
    pub price: i64,

    /// Take orders, items and users "0" to "n-1" as they are instead of replacing them
    #[arg(long)]
    pub no_seed: bool,

    /// Write configuration, counts, series, histograms and audit to this file
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,

    /// No progress line and no table: only the file and the exit code
    #[arg(long, conflicts_with = "progress")]
    pub quiet: bool,

    /// Show progress even if stderr is not a terminal
    #[arg(long)]
    pub progress: bool,

    /// Seed of the random choices: the same seed asks for the same things
    #[arg(long, value_name = "NUMBER", default_value_t = 1)]
    pub seed: u64,

    /// How long one request may take, connecting included, before its outcome counts as unknown; 1ms to 10m
    #[arg(long, default_value = "10s", value_parser = parse_duration)]
    pub timeout: Duration,

    /// Threads of the load generator; more than one takes cores from a server on the same machine
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub threads: usize,
}

/// Reads `10s`, `500ms`, `2m`, `1h` or a bare number of seconds.
///
/// # Errors
/// A sentence for the user.
pub(crate) fn parse_duration(text: &str) -> Result<Duration, String> {
    let unit_at = text.find(|c: char| c.is_ascii_alphabetic()).unwrap_or(text.len());
    let (number, unit) = text.split_at(unit_at);
    let seconds_per_unit = match unit {
        "ms" => 0.001,
        "" | "s" => 1.0,
        "m" => 60.0,
        "h" => 3600.0,
        _ => {
            return Err(format!("{unit:?} is not a unit of time; write for example 500ms, 10s, 2m or 1h"));
        }
    };
    let number: f64 = number.parse().map_err(|_| format!("{text:?} is not a time; write for example 500ms or 10s"))?;
    Duration::try_from_secs_f64(number * seconds_per_unit).map_err(|e| format!("{text:?}: {e}"))
}

/// A run, checked and with every default filled in.
#[derive(Debug, Clone, Serialize)]
pub struct Plan {
    /// The server.
    #[serde(skip)]
    pub target: Arc<Target>,
    /// The URL as given.
    pub url: String,
    /// What to ask for.
    pub scenario: Scenario,
    /// How many connections.
    pub connections: usize,
    /// How many worker threads; never more than connections.
    pub threads: usize,
    /// Requests per second of an open loop; `None` is a closed loop.
    pub rate: Option<f64>,
    /// The run's bound in time.
    #[serde(rename = "duration_seconds", serialize_with = "seconds")]
    pub duration: Duration,
    /// The run's bound in requests.
    pub requests: u64,
    /// How much of everything there is.
    pub sizes: Sizes,
    /// Whether the run fills the shop first.
    pub seeds: bool,
    /// Seed of the random choices.
    pub random_seed: u64,
    /// The bound of each request.
    #[serde(rename = "timeout_seconds", serialize_with = "seconds")]
    pub timeout: Duration,
}

fn seconds<S: serde::Serializer>(duration: &Duration, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_f64(duration.as_secs_f64())
}

impl Plan {
    /// Checks the flags against their bounds and each other, and looks up the server's address.
    ///
    /// # Errors
    /// [`LoadError::BadInput`] with the flag, its value and what is allowed.
    pub fn new(args: &LoadArgs) -> Result<Self, LoadError> {
        let scenario = args.scenario.clone();
        let sizes = Sizes::new(args)?;
        let is_consistency = scenario == Scenario::Consistency;
        if is_consistency && args.rate.is_some() {
            return Err(LoadError::BadInput("--rate: the consistency scenario sends everything at once".into()));
        }
        if is_consistency && args.no_seed {
            return Err(LoadError::BadInput("--no-seed: the consistency scenario makes its own accounts".into()));
        }
        let default_connections = if is_consistency { sizes.orders.min(10_000) } else { 64 };
        let connections = args.connections.unwrap_or(usize::try_from(default_connections).unwrap_or(10_000));
        let duration = args.duration.unwrap_or(Duration::from_secs(if is_consistency { 60 } else { 10 }));
        within("--connections", connections, 1, 10_000)?;
        within("--threads", args.threads, 1, 256)?;
        within("--requests", args.requests, 1, 1_000_000_000)?;
        if let Some(rate) = args.rate {
            within("--rate", rate, 0.1, 1_000_000.0)?;
        }
        let allowed = [
            ("--duration", duration, Duration::from_millis(1), Duration::from_hours(24), "1ms to 24h"),
            ("--timeout", args.timeout, Duration::from_millis(1), Duration::from_mins(10), "1ms to 10m"),
        ];
        for (flag, value, least, most, bounds) in allowed {
            if value < least || value > most {
                return Err(LoadError::BadInput(format!("{flag} {value:?}: it must be {bounds}")));
            }
        }
        Ok(Self {
            target: Arc::new(Target::new(&args.url)?),
            url: args.url.clone(),
            scenario,
            connections,
            threads: args.threads.min(connections),
            rate: args.rate,
            duration,
            requests: args.requests,
            sizes,
            seeds: !args.no_seed,
            random_seed: args.seed,
            timeout: args.timeout,
        })
    }
}

/// Refuses a value out of its bounds (both allowed themselves), in words.
pub(crate) fn within<T: PartialOrd + std::fmt::Display>(
    flag: &str,
    value: T,
    least: T,
    most: T,
) -> Result<T, LoadError> {
    if value >= least && value <= most {
        return Ok(value);
    }
    Err(LoadError::BadInput(format!("{flag} {value}: it must be {least} to {most}")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Cli {
        #[command(flatten)]
        args: LoadArgs,
    }

    fn plan(flags: &str) -> Result<Plan, LoadError> {
        let args = Cli::try_parse_from(std::iter::once("load").chain(flags.split_whitespace())).unwrap().args;
        Plan::new(&args)
    }

    #[test]
    fn defaults_are_a_closed_loop_of_64_for_ten_seconds() {
        let plan = plan("").unwrap();
        assert_eq!((plan.connections, plan.threads, plan.rate), (64, 1, None));
        assert_eq!((plan.duration, plan.requests, plan.seeds), (Duration::from_secs(10), 100_000_000, true));
        assert_eq!((plan.sizes.orders, plan.sizes.items, plan.sizes.users), (100_000, 1_000, 1_000));
    }

    #[test]
    fn consistency_is_a_thousand_orders_at_once() {
        let plan = plan("--scenario consistency").unwrap();
        assert_eq!((plan.connections, plan.sizes.orders, plan.sizes.stock, plan.sizes.credit), (1000, 1000, 100, 1));
    }

    #[test]
    fn out_of_bounds_is_refused_with_the_flag_and_the_bounds() {
        for (flags, words) in [
            ("--connections 0", "--connections 0: it must be 1 to 10000"),
            ("--requests 0", "--requests 0"),
            ("--rate NaN", "--rate NaN"),
            ("--rate 0", "--rate 0"),
            ("--duration 25h", "--duration 90000s: it must be 1ms to 24h"),
            ("--timeout 0s", "--timeout"),
            ("--orders 0", "--orders 0"),
            ("--items 10000001", "--items"),
            ("--price 0", "--price 0"),
            ("--credit -1", "--credit -1"),
            ("--scenario hot-item --items 2", "--items 2"),
            ("--scenario consistency --rate 5", "--rate"),
            ("--url ftp://x", "--url"),
        ] {
            let error = plan(&flags.replace(" -1", "=-1")).unwrap_err().to_string();
            assert!(error.contains(words), "{flags}: {error}");
        }
    }

    #[test]
    fn durations_have_units() {
        assert_eq!(parse_duration("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(parse_duration("1.5"), Ok(Duration::from_millis(1500)));
        assert_eq!(parse_duration("2m"), Ok(Duration::from_secs(120)));
        for bad in ["", "s", "5 days", "-1s", "1e99h"] {
            assert!(parse_duration(bad).is_err(), "{bad}");
        }
    }
}
