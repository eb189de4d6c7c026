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
    // Apart from the workspace, and easily forgotten. Nothing is linked, so that the fuzzer's own library need not be built; in the workspace's folder, so
    // that dependencies are not checked again.
    let fuzz = [
        "clippy",
        "--manifest-path",
        "fuzz/Cargo.toml",
        "--target-dir",
        "target",
        "--locked",
        "--no-deps",
        "--quiet",
        "--",
        "--deny",
        "warnings",
    ];
    step("fuzz targets", cargo_with(&fuzz).env("CUSTOM_LIBFUZZER_PATH", "/nonexistent/libfuzzer.a"))?;
    let mut docs = cargo_with(&["doc", "--workspace", "--no-deps", "--quiet", "--document-private-items"]);
    step("documentation", docs.env("RUSTDOCFLAGS", "--deny warnings"))?;
    // One selection of packages for everything that runs: for each other one cargo builds what they share again, with other features. It is the
    // development build: the release build takes long, and leaves the assertions out. It has the simulator's switches in it, all off.
    let everything = ["--workspace", "--all-targets"];
    let built = |name: &str| root().join("target/debug").join(name);
    step("build", cargo_with(&["build", "--quiet"]).args(everything))?;
    let mut tests = cargo_with(&["test", "--workspace", "--quiet", "--no-fail-fast"]);
    let whole = "tests, up to those of whole systems and of the page in a browser";
    // Whole systems wait more than they work, some of them for a minute: two at a time leave two processors idle half of the time.
    let at_once = std::thread::available_parallelism().map_or(1, usize::from).max(3);
    tests.env("RUST_TEST_THREADS", at_once.to_string());
    step(whole, tests.env("SETTLE_BIN", built("settle")))?;
    step("the example", &mut Command::new(built("examples/trip")))?;
    step("the simulator finds planted bugs", Command::new(built("sim")).arg("--mutations"))?;
    step("model: exhaustive", &mut Command::new(built("model")))?;
    println!("\n── specification");
    spec::spec(false, install)?;
    println!("\nEverything holds, after {:.0} s.", began.elapsed().as_secs_f64());
    Ok(())
}
