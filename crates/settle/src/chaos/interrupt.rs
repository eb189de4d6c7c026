//! Told to stop in the middle: whatever is being done to the system is undone first.

use std::path::PathBuf;
use std::process::exit;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use load::client::Target;
use tokio::signal::unix::{SignalKind, signal};

use super::books::clear_faults;
use super::harm::Harms;
use super::system::note;
use crate::exit::UNUSABLE;

/// How long a service may take to take its faults back. It may be down.
const PATIENCE: Duration = Duration::from_secs(3);

/// From now on, at SIGINT, SIGTERM or SIGHUP whatever is being done is undone, and this process ends with exit code 2; at a second one at once. `faults` is where
/// there may be faults to take back.
///
/// # Errors
/// If the system has no thread or no signals to give.
pub(super) fn heed(harms: Harms, data: PathBuf, faults: Option<Arc<Target>>) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let inside = runtime.enter();
    let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    // The terminal was closed.
    let mut hang_up = signal(SignalKind::hangup())?;
    drop(inside);
    let run = move || {
        runtime.block_on(async {
            let mut told = async || {
                tokio::select! {
                    _ = interrupt.recv() => {}
                    _ = terminate.recv() => {}
                    _ = hang_up.recv() => {}
                }
            };
            told().await;
            let undone = harms.undo_all();
            let whom = if undone.is_empty() { String::new() } else { format!("; let go again: {}", undone.join(", ")) };
            eprintln!("settle: interrupted: nobody is hit any more{whom}");
            note(&data, "settle chaos was interrupted");
            if let Some(target) = faults {
                let cleared = tokio::select! {
                    cleared = clear_faults(&target, PATIENCE) => cleared,
                    () = told() => Err(anyhow::anyhow!("not waited for")),
                };
                match cleared {
                    Ok(()) => eprintln!("settle: no fault is set any more"),
                    Err(error) => eprintln!(
                        "settle: faults may be set still ({error}): POST /stock/fault/clear and /payment/fault/clear, or start those services again"
                    ),
                }
            }
        });
        exit(i32::from(UNUSABLE));
    };
    std::thread::Builder::new().name("interrupt".to_owned()).spawn(run).context("cannot start a thread")?;
    Ok(())
}
