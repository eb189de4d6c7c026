//! What the tests need beyond a Rust toolchain, in one place.
//!
//! | tool  | for                      | from                                             |
//! |-------|--------------------------|--------------------------------------------------|
//! | `cc`  | the allocator            | the system's package manager: `build-essential`  |
//! | `redis-server`, `redis-sentinel` | the ledger in Redis, started by the tests themselves | the system's package manager |
//! | `nats-server` | commands between services, started by the tests themselves | the system's package manager |
//! | `haproxy` | the gateway, started by the tests themselves | the system's package manager |
//! | `promtool` | the tests of the alerts | the system's package manager: `prometheus` |
//! | `chromium` | the page, in a real browser | the system's package manager |
//! | `tla` | the TLA+ specification   | `cargo install tla-checker`                      |
//! | `cargo-fuzz` | fuzzing, in a soak | `cargo install cargo-fuzz`                      |

use std::process::Command;

use anyhow::bail;

use crate::run::{cargo_with, is_installed, step};

/// The version of the checker that the specification was written for.
const TLA_CHECKER: &str = "0.24.11";

struct Tool {
    program: &'static str,
    package: &'static str,
}

/// Debian's packages.
const SYSTEM: [Tool; 7] = [
    Tool { program: "cc", package: "build-essential" },
    Tool { program: "redis-server", package: "redis-server" },
    Tool { program: "redis-sentinel", package: "redis-sentinel" },
    Tool { program: "nats-server", package: "nats-server" },
    Tool { program: "haproxy", package: "haproxy" },
    Tool { program: "promtool", package: "prometheus" },
    Tool { program: "chromium", package: "chromium" },
];

/// Installs what is missing, or says what is.
pub(crate) fn system_packages(install: bool) -> anyhow::Result<()> {
    let missing: Vec<&str> =
        SYSTEM.iter().filter(|tool| !is_installed(tool.program)).map(|tool| tool.package).collect();
    if missing.is_empty() {
        return Ok(());
    }
    if !install {
        bail!("missing: {}. Install with `apt-get install {}`", missing.join(", "), missing.join(" "));
    }
    println!("Installing {} with apt-get.", missing.join(", "));
    step("apt-get update", Command::new("apt-get").arg("update"))?;
    // What is merely recommended (exporters, mail) would start services of its own; and nobody is there to be asked.
    let mut install = Command::new("apt-get");
    install.args(["install", "-y", "--no-install-recommends"]).args(missing).env("DEBIAN_FRONTEND", "noninteractive");
    step("apt-get install", &mut install)
}

/// Installs the TLA+ checker if it is missing.
pub(crate) fn tla_checker(install: bool) -> anyhow::Result<()> {
    if is_installed("tla") {
        return Ok(());
    }
    if !install {
        bail!("missing: tla. Install with `cargo install tla-checker --version {TLA_CHECKER} --locked`");
    }
    println!("Installing the TLA+ checker with cargo.");
    let words = ["install", "tla-checker", "--version", TLA_CHECKER, "--locked"];
    step("cargo install tla-checker", &mut cargo_with(&words))
}

/// Installs the fuzzer if it is missing.
pub(crate) fn cargo_fuzz() -> anyhow::Result<()> {
    if is_installed("cargo-fuzz") {
        return Ok(());
    }
    println!("Installing the fuzzer with cargo.");
    step("cargo install cargo-fuzz", &mut cargo_with(&["install", "cargo-fuzz", "--locked"]))
}
