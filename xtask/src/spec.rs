//! Checks the specification under `spec/`: the configurations hold, and those with a planted bug do not.

use std::process::Command;
use std::sync::Mutex;
use std::time::Instant;

use anyhow::{Context, bail};

use crate::install;
use crate::run::root;

/// Far above what any configuration needs: the checker's own default would cut the larger ones off.
const MAX_STATES: &str = "20000000";
const MAX_DEPTH: &str = "10000";

struct Configuration {
    module: String,
    name: String,
    /// What must be violated; `None`: it holds.
    violates: Option<String>,
}

/// Checks every configuration; the large ones only if `deep`.
pub(crate) fn spec(deep: bool, install: bool) -> anyhow::Result<()> {
    install::tla_checker(install)?;
    let table = std::fs::read_to_string(root().join("spec/configurations.txt")).context("spec/configurations.txt")?;
    let mut configurations = Vec::new();
    for line in table.lines().filter(|line| !line.trim().is_empty() && !line.starts_with('#')) {
        let words: Vec<&str> = line.split_whitespace().collect();
        let (module, name, run, violates) = match words.as_slice() {
            [module, name, run, "holds"] => (module, name, run, None),
            [module, name, run, "violates", what] => (module, name, run, Some((*what).to_owned())),
            _ => bail!("spec/configurations.txt: cannot read `{line}`"),
        };
        if *run == "regular" || deep {
            configurations.push(Configuration { module: (*module).to_owned(), name: (*name).to_owned(), violates });
        }
    }
    let total = configurations.len();
    let queue = Mutex::new(configurations.into_iter());
    let failures = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                loop {
                    let next = queue.lock().map(|mut queue| queue.next());
                    let Ok(Some(configuration)) = next else { return };
                    if let Err(error) = check(&configuration)
                        && let Ok(mut failures) = failures.lock()
                    {
                        failures.push(format!("{}: {error:#}", configuration.name));
                    }
                }
            });
        }
    });
    let failures = failures.into_inner().unwrap_or_default();
    if !failures.is_empty() {
        bail!("{} of {total} configurations are not as expected:\n{}", failures.len(), failures.join("\n"));
    }
    println!("{total} passed, 0 failed");
    Ok(())
}

fn check(configuration: &Configuration) -> anyhow::Result<()> {
    let Configuration { module, name, violates } = configuration;
    let began = Instant::now();
    let output = Command::new("tla")
        .current_dir(root().join("spec"))
        .args([&format!("{module}.tla"), "--config", &format!("{name}.cfg")])
        .args(["--max-states", MAX_STATES, "--max-depth", MAX_DEPTH])
        .output()
        .context("cannot run tla")?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    let found = match violates {
        None => output.status.success() && text.contains("No errors found"),
        Some(property) => {
            !output.status.success()
                && (text.contains(&format!("({property}) violated"))
                    || text.contains(&format!("Liveness property violated: {property}")))
        }
    };
    let expected = violates.as_ref().map_or("holds".to_owned(), |property| format!("violates {property}"));
    if !found {
        let end: Vec<&str> = text.lines().rev().take(15).collect();
        bail!("expected: {expected}. The checker said:\n{}", end.into_iter().rev().collect::<Vec<_>>().join("\n"));
    }
    let states = text.lines().find(|line| line.to_lowercase().contains("states")).unwrap_or("").trim().to_owned();
    println!("{name}: {expected}, as expected ({:.0} s) {states}", began.elapsed().as_secs_f64());
    Ok(())
}
