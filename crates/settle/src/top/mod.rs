//! `settle top`: what the page shows, in a terminal.
//!
//! ```text
//!   GET /dashboard/events ──► events.rs (history, snapshots) ──► view.rs (lines) ──► screen.rs (a terminal), or one line a second
//! ```
//!
//! | file        | what it is                                                       |
//! |-------------|------------------------------------------------------------------|
//! | `events.rs` | listens to whoever serves a page                                  |
//! | `view.rs`   | a snapshot and its history as lines: the same with a terminal and without |
//! | `screen.rs` | the terminal: borrowed, and given back as it was                  |

mod events;
mod screen;
mod view;

use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, bail};
use clap::Args;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::{Instant, timeout};
use watch::Snapshot;

use crate::output::say;
use crate::up::DASHBOARD;
use crate::up::state::State;
use events::{Events, get};
use screen::{Key, Screen};
use view::Seen;

/// How long whoever is asked may take to answer, at first.
const PATIENCE: Duration = Duration::from_secs(3);
/// How soon somebody who is gone is asked again.
const AGAIN: Duration = Duration::from_secs(1);

/// Where to look, and how to show it.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  settle top\n  settle top --url http://10.0.0.7:8001\n  settle top --up settle-up\n  settle top --once\n  settle top --json | jq .verdict\n\nIn the terminal: q ends it."
)]
pub(crate) struct TopArgs {
    /// A listener that serves the page: that of `settle serve`, of `settle order`, or the one that `settle up` names.
    #[arg(long, default_value = "http://127.0.0.1:8000", value_name = "URL")]
    url: String,
    /// The data folder of a running `settle up`: its page is asked.
    #[arg(long, value_name = "DIR", conflicts_with = "url")]
    up: Option<PathBuf>,
    /// Print how it is now, and end.
    #[arg(long)]
    once: bool,
    /// Print what is known now as JSON, and end.
    #[arg(long, conflicts_with = "once")]
    json: bool,
}

/// Shows it until it is told to stop.
pub(crate) fn top(args: &TopArgs) -> anyhow::Result<ExitCode> {
    let url = match &args.up {
        Some(data) => page_of_up(data)?,
        None => args.url.clone(),
    };
    let (address, prefix) = watch::scrape::base_url(&url).map_err(anyhow::Error::msg)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("cannot start")?;
    runtime.block_on(async {
        let nobody = || {
            format!(
                "{url} shows nothing: is it a running `settle serve`, `settle order` or the page of a `settle up`? Name another with --url URL \
                 or --up DIR"
            )
        };
        if args.json {
            let asked = timeout(PATIENCE, get(&address, &format!("{prefix}/dashboard/snapshot"))).await;
            let text = asked.context("no answer").and_then(|text| text).with_context(nobody)?;
            // What is printed is one, and on one line.
            let snapshot: Snapshot = serde_json::from_str(&text).context("not a snapshot").with_context(nobody)?;
            _ = say(&serde_json::to_string(&snapshot)?)?;
            return Ok(ExitCode::SUCCESS);
        }
        let mut seen = Seen::default();
        let mut events = Some(first(&address, &prefix, &mut seen).await.with_context(nobody)?);
        if args.once {
            let (_, columns) = screen::size().unwrap_or((usize::MAX, WIDTH));
            for line in view::view(&seen, columns, usize::MAX) {
                if !say(&line)? {
                    break;
                }
            }
            return Ok(ExitCode::SUCCESS);
        }
        let mut out = Out::new()?;
        let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
        let mut resized = signal(SignalKind::window_change())?;
        out.show(&seen)?;
        loop {
            let next = async {
                match &mut events {
                    Some(events) => events.next(&mut seen).await,
                    None => {
                        tokio::time::sleep(AGAIN).await;
                        events = Some(timeout(PATIENCE, Events::listen(&address, &prefix)).await??);
                        Ok(())
                    }
                }
            };
            tokio::select! {
                _ = terminate.recv() => break,
                _ = interrupt.recv() => break,
                _ = resized.recv() => {}
                key = out.key() => if key == Key::Quit { break },
                heard = timeout(PATIENCE, next) => match heard.map_err(anyhow::Error::new).and_then(|heard| heard) {
                    Ok(()) => {}
                    Err(error) => {
                        events = None;
                        seen.lost.get_or_insert((Instant::now().into_std(), error.root_cause().to_string()));
                    }
                },
            }
            if !out.show(&seen)? {
                break;
            }
        }
        Ok(ExitCode::SUCCESS)
    })
}

/// How wide lines are where there is no terminal.
const WIDTH: usize = 120;

/// Listens, and hears the first snapshot.
async fn first(address: &str, prefix: &str, seen: &mut Seen) -> anyhow::Result<Events> {
    let first = async {
        let mut events = Events::listen(address, prefix).await?;
        while seen.snapshot.is_none() {
            events.next(seen).await?;
        }
        Ok(events)
    };
    timeout(PATIENCE, first).await.with_context(|| format!("{address} does not answer in {} s", PATIENCE.as_secs()))?
}

/// The page of a running `settle up`.
fn page_of_up(data: &Path) -> anyhow::Result<String> {
    let shown = data.display();
    let state = State::read(data)?;
    let state = state.with_context(|| format!("{shown} is no data folder of `settle up`: it has no up.json"))?;
    match state.ports.get(DASHBOARD) {
        Some(port) => Ok(format!("http://127.0.0.1:{port}")),
        None => bail!("the `settle up` in {shown} serves no page: it is of an earlier version, start it again"),
    }
}

/// Where it is shown.
enum Out {
    Screen(Screen),
    /// A line for each snapshot, and the time of the last one.
    Lines(u64),
}

impl Out {
    fn new() -> anyhow::Result<Self> {
        Ok(if std::io::stdout().is_terminal() { Self::Screen(Screen::borrow()?) } else { Self::Lines(0) })
    }

    /// `false`: nobody reads any more.
    fn show(&mut self, seen: &Seen) -> anyhow::Result<bool> {
        match self {
            Self::Screen(screen) => {
                let (lines, columns) = screen::size().unwrap_or((24, 80));
                screen.draw(&view::view(seen, columns, lines))?;
                Ok(true)
            }
            Self::Lines(last) => {
                let at = seen.snapshot.as_ref().map_or(0, |snapshot| snapshot.at);
                if at == *last && seen.lost.is_none() {
                    return Ok(true);
                }
                *last = at;
                say(&view::line(seen))
            }
        }
    }

    /// Waits for a key.
    async fn key(&mut self) -> Key {
        match self {
            Self::Screen(screen) => screen.key().await,
            Self::Lines(_) => std::future::pending().await,
        }
    }
}
