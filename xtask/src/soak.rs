//! Looking for trouble for as long as asked.

use clap::Args;

use crate::run::{cargo_with, root, step};
use crate::{install, spec};

/// How long, and where to look.
#[derive(Debug, Args)]
pub(crate) struct SoakArgs {
    /// Minutes of fresh seeds in the simulator.
    #[arg(long, default_value_t = 10)]
    minutes: u64,
    /// How often the real binary is killed.
    #[arg(long, default_value_t = 500)]
    kills: u64,
    /// Seconds for each fuzz target.
    #[arg(long, default_value_t = 60)]
    fuzz_seconds: u64,
    /// Only the simulator.
    #[arg(long)]
    simulator_only: bool,
}

/// Runs the simulator on fresh seeds, the deeper models, the larger specifications, more kills.
pub(crate) fn soak(args: &SoakArgs) -> anyhow::Result<()> {
    if !args.simulator_only {
        install::cargo_fuzz()?;
    }
    let minutes = args.minutes.to_string();
    let seeds = ["run", "--quiet", "-p", "sim", "--", "--minutes", &minutes];
    step("fresh seeds", &mut cargo_with(&seeds))?;
    if args.simulator_only {
        return Ok(());
    }
    for target in ["records", "http"] {
        let seconds = format!("-max_total_time={}", args.fuzz_seconds);
        let mut fuzz = cargo_with(&["fuzz", "run", target, "--", &seconds]);
        // The sanitizers' flags are not stable; the fuzzer itself is.
        step(&format!("fuzzing: {target}"), fuzz.env("RUSTC_BOOTSTRAP", "1"))?;
    }
    let deep = ["run", "--quiet", "-p", "model", "--", "--deep"];
    step("deeper models", &mut cargo_with(&deep))?;
    spec::spec(true, true)?;
    step("the binary", &mut cargo_with(&["build", "--release", "--quiet", "-p", "settle"]))?;
    let mut kills = cargo_with(&["test", "--quiet", "-p", "e2e", "--test", "crash"]);
    kills.env("SETTLE_BIN", root().join("target/release/settle")).env("E2E_KILLS", args.kills.to_string());
    step("kills", &mut kills)
}
