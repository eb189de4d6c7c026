//! Every check, in the order in which a failure is cheapest to hear of.

use std::process::Command;
use std::time::Instant;

use crate::run::{cargo_with, root, step};
use crate::{install, spec, tidy};

/// Runs every check.
pub(crate) fn test(install: bool) -> anyhow::Result<()> {
    let began = Instant::now();
    install::system_packages(install)?;
    install::tla_checker(install)?;
    tidy::tidy()?;
    step("format", &mut cargo_with(&["fmt", "--all", "--check"]))?;
    let mut alerts = Command::new("promtool");
    alerts.current_dir(root().join("deploy/observability")).args(["test", "rules", "rules.test.yml"]);
    step("alerts", &mut alerts)?;
    let clippy = ["clippy", "--workspace", "--all-targets", "--quiet", "--", "--deny", "warnings"];
    step("clippy", &mut cargo_with(&clippy))?;
    let mut docs = cargo_with(&["doc", "--workspace", "--no-deps", "--quiet", "--document-private-items"]);
    step("documentation", docs.env("RUSTDOCFLAGS", "--deny warnings"))?;
    let unit = ["test", "--workspace", "--quiet", "--exclude", "sim", "--exclude", "model", "--exclude", "e2e"];
    step("unit, property and conformance tests", &mut cargo_with(&unit))?;
    step("the example", &mut cargo_with(&["run", "--quiet", "-p", "settle-orchestrator", "--example", "trip"]))?;
    step("simulation", &mut cargo_with(&["test", "--quiet", "-p", "sim"]))?;
    let mutations = ["run", "--quiet", "-p", "sim", "--", "--mutations"];
    step("the simulator finds planted bugs", &mut cargo_with(&mutations))?;
    step("model: tests", &mut cargo_with(&["test", "--quiet", "-p", "model"]))?;
    step("model: exhaustive", &mut cargo_with(&["run", "--quiet", "-p", "model"]))?;
    println!("\n── specification");
    spec::spec(false, install)?;
    // Not the release build: that takes long, and leaves the assertions out.
    step("the binary", &mut cargo_with(&["build", "--quiet", "-p", "settle"]))?;
    let binary = root().join("target/debug/settle");
    let parts = ["contract", "crash", "shutdown", "strangers", "traces", "distributed"];
    let mut end_to_end = cargo_with(&["test", "--quiet", "-p", "e2e", "--lib"]);
    parts.into_iter().for_each(|part| _ = end_to_end.args(["--test", part]));
    step("end to end, and crashes", end_to_end.env("SETTLE_BIN", &binary))?;
    let mut browser = cargo_with(&["test", "--quiet", "-p", "e2e", "--test", "browser"]);
    step("the page, in a browser", browser.env("SETTLE_BIN", &binary))?;
    println!("\nEverything holds, after {:.0} s.", began.elapsed().as_secs_f64());
    Ok(())
}
