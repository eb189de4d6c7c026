//! `settle serve --restart`: starts the shop as a process of its own, and starts it again whenever it ends without having been told to.
//!
//! ```text
//!   this process ── starts ──► settle serve …       ends with this one, however that ends
//!        │  ▲                        │
//!        │  └──── it ended ──────────┘  killed, crashed, or its disk failed: again, after a pause that grows
//!        └─► serve.json: who it is, for `settle chaos`       hold-shop: do not start it again while this file is in force
//! ```
//!
//! A shop that ends because it cannot be served (bad arguments, a damaged folder) would only do so again: this process then ends, too, with its code.

use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, ExitCode, ExitStatus};
use std::time::{Duration, Instant};

use anyhow::Context;
use rustix::process::{Pid, Signal, kill_process};
use tokio::signal::unix::{Signal as Signals, SignalKind, signal};

use crate::exit::UNUSABLE;
use crate::serve::ServeArgs;
use crate::up::child::own_file;
use crate::up::held::{hold, is_in_force};
use crate::up::member::{ask_service, is_frozen};
use crate::up::plan::Kind;
use crate::up::state::{Entry, State};

/// The shop's name in `serve.json`, and of the file that holds it down.
pub(crate) const SHOP: &str = "shop";
/// The variable that has a shop kept, which must not reach the shop itself.
const VARIABLE: &str = "SETTLE_RESTART";
/// How long it waits before it starts a shop again: at first, and at last if they keep ending before they serve.
const PAUSES: [Duration; 2] = [Duration::from_millis(100), Duration::from_secs(5)];
/// A shop that served for so long ended for a reason of its own: the next pause is short again.
const LONG: Duration = Duration::from_secs(1);
/// How often one that starts, or is not to be started yet, is looked at.
const BUSY: Duration = Duration::from_millis(50);
/// How often one that serves is looked at, besides when the system says that it ended.
const CALM: Duration = Duration::from_secs(1);
/// How long it may take to say that it serves.
const GLANCE: Duration = Duration::from_millis(300);

/// Keeps a shop served until it is told to stop, or the shop ends for good.
pub(crate) fn keep(args: &ServeArgs) -> anyhow::Result<ExitCode> {
    let port = args.address().port();
    anyhow::ensure!(port != 0, "--restart needs a port that stays: give one with --listen");
    // One thread: whoever starts a child must live as long as this process.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("cannot start")?;
    let state = State {
        pid: std::process::id(),
        gateway: format!("http://127.0.0.1:{port}"),
        restart: true,
        proxied: false,
        ports: [(SHOP.to_owned(), port)].into(),
        components: vec![Entry {
            name: SHOP.to_owned(),
            kind: Kind::Shop,
            pid: None,
            port,
            log: "/dev/stderr".into(),
            command: std::env::args().collect(),
            restarts: 0,
            ready: false,
        }],
    };
    runtime.block_on(Keeper { args, state, served_since: None }.run())
}

struct Keeper<'a> {
    args: &'a ServeArgs,
    state: State,
    /// Since when the present shop, or the last one, has served.
    served_since: Option<Instant>,
}

impl Keeper<'_> {
    async fn run(mut self) -> anyhow::Result<ExitCode> {
        let mut stops =
            StopSignals { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? };
        let mut ended = signal(SignalKind::child())?;
        let mut pause = PAUSES[0];
        loop {
            self.served_since = None;
            match start() {
                Ok(mut shop) => {
                    let status = tokio::select! {
                        status = self.serves(&mut shop, &mut ended) => status?,
                        () = stops.recv() => return self.stop(&mut shop, &mut stops, &mut ended).await,
                    };
                    if let Some(code) = for_good(status) {
                        return self.end(code);
                    }
                    self.tell(status);
                }
                Err(error) if self.owns() => tracing::warn!(%error, "the shop cannot be started: it is tried again"),
                Err(error) => return Err(error),
            }
            pause = if self.served_since.is_some_and(|since| since.elapsed() >= LONG) { PAUSES[0] } else { pause };
            let not_before = Instant::now() + pause;
            pause = (2 * pause).min(PAUSES[1]);
            while Instant::now() < not_before || is_in_force(&self.hold()) {
                tokio::select! {
                    () = stops.recv() => return self.end(ExitCode::SUCCESS),
                    () = tokio::time::sleep(BUSY) => {}
                }
            }
            self.state.components[0].restarts += 1;
        }
    }

    /// Watches the shop until it has ended.
    async fn serves(&mut self, shop: &mut Child, ended: &mut Signals) -> anyhow::Result<ExitStatus> {
        self.is(Some(shop.id()), false);
        loop {
            if let Some(status) = shop.try_wait()? {
                self.is(None, false);
                return Ok(status);
            }
            if !self.is_ready() && ask_service(self.args.address().port(), "/health", GLANCE).is_some() {
                self.is(Some(shop.id()), true);
                self.served_since = Some(Instant::now());
            }
            tokio::select! {
                _ = ended.recv() => {}
                () = tokio::time::sleep(if self.is_ready() { CALM } else { BUSY }) => {}
            }
        }
    }

    fn is_ready(&self) -> bool {
        self.state.components[0].ready
    }

    /// Whether the data folder is its shop's: another may have taken it before its shop first served, or while that was down.
    fn owns(&self) -> bool {
        matches!(State::read_of_shop(self.args.data()), Ok(Some(noted)) if noted.pid == self.state.pid)
    }

    /// Notes how it is, in a folder that its shop has locked, or that nobody else has taken since.
    fn is(&mut self, pid: Option<u32>, ready: bool) {
        let shop = &mut self.state.components[0];
        (shop.pid, shop.ready) = (pid, ready);
        if (ready || self.owns())
            && let Err(error) = self.state.write_of_shop(self.args.data())
        {
            // A full disk, say. The shop is what matters.
            tracing::warn!(%error, "it could not be noted how the shop is: `settle chaos` goes by what was noted before");
        }
    }

    /// What keeps the shop from being started again.
    fn hold(&self) -> PathBuf {
        hold(self.args.data(), SHOP)
    }

    /// Says that it has ended without having been told to, and what comes of it.
    fn tell(&self, status: ExitStatus) {
        let hold = self.hold();
        if is_in_force(&hold) {
            let file = hold.display();
            tracing::warn!(%status, "the shop has ended without having been told to: it stays down while {file} is there");
        } else {
            tracing::warn!(%status, "the shop has ended without having been told to: it is started again");
        }
    }

    /// Tells it to stop, and waits until it has finished what it has in hand, or this is told to stop once more.
    async fn stop(
        &mut self,
        shop: &mut Child,
        stops: &mut StopSignals,
        ended: &mut Signals,
    ) -> anyhow::Result<ExitCode> {
        let id = shop.id();
        if let Some(pid) = i32::try_from(id).ok().and_then(Pid::from_raw) {
            if is_frozen(id) {
                tracing::warn!(process = id, "the shop is stopped where it stands: it goes on, to finish what it has");
            }
            // It may have ended by itself just now. One that is frozen hears nothing before it goes on.
            _ = kill_process(pid, Signal::TERM);
            _ = kill_process(pid, Signal::CONT);
        }
        let status = loop {
            if let Some(status) = shop.try_wait()? {
                break status;
            }
            tokio::select! {
                _ = ended.recv() => {}
                () = tokio::time::sleep(CALM) => {}
                () = stops.recv() => {
                    tracing::warn!("told to stop once more: the shop is killed; what it has answered is kept");
                    shop.kill()?;
                    break shop.wait()?;
                }
            }
        };
        self.end(for_good(status).unwrap_or(ExitCode::FAILURE))
    }

    fn end(&self, code: ExitCode) -> anyhow::Result<ExitCode> {
        if self.owns() {
            State::remove_of_shop(self.args.data());
        }
        Ok(code)
    }
}

/// The signals that have it stop.
struct StopSignals {
    terminate: Signals,
    interrupt: Signals,
}

impl StopSignals {
    async fn recv(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

/// Its code, if starting it again would be for nothing.
fn for_good(status: ExitStatus) -> Option<ExitCode> {
    match status.code() {
        Some(0) => Some(ExitCode::SUCCESS),
        Some(code) if code == i32::from(UNUSABLE) => Some(ExitCode::from(UNUSABLE)),
        _ => None,
    }
}

/// Starts the shop, as this process was told to serve it.
fn start() -> anyhow::Result<Child> {
    let this = own_file()?;
    let mut command = Command::new(&this);
    command.args(["as-child", &std::process::id().to_string(), "--"]).arg(&this);
    command.args(std::env::args_os().skip(1).filter(|word| word != "--restart")).env_remove(VARIABLE);
    // Ctrl-C in the terminal is for us, who stop it in order.
    command.process_group(0);
    command.spawn().context("cannot start the shop")
}
