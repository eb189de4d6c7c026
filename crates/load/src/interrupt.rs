//! Somebody wants the run to end before its time.
//!
//! | signal (SIGINT, SIGTERM) | while it prepares | while it sends | while it audits |
//! |---|---|---|---|
//! | the first | the run is given up: nothing was measured | no further request is sent, those under way are answered, the audit follows | the audit goes on |
//! | the second | – | the program ends at once | the program ends at once |

use std::sync::{Arc, OnceLock};
use std::time::Instant;

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::Notify;

use crate::LoadError;
use crate::run::{runtime, spawn};

/// Whether somebody wants the run to end, and since when. Clones are the same one.
#[derive(Debug, Clone, Default)]
pub struct Interrupt(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    at: OnceLock<Instant>,
    asked: Notify,
}

impl Interrupt {
    /// One that the signals ask, and behind it whatever `again` does with the second of them.
    ///
    /// # Errors
    /// [`LoadError::Internal`] when the system has no thread, or no handler, to give.
    pub fn by_signals(again: impl FnOnce() + Send + 'static) -> Result<Self, LoadError> {
        let interrupt = Self::default();
        let asked = interrupt.clone();
        let runtime = runtime()?;
        let listen = |kind| {
            let _inside = runtime.enter();
            signal(kind).map_err(|e| LoadError::Internal(format!("no signal handler: {e}")))
        };
        let (mut keys, mut terminate) = (listen(SignalKind::interrupt())?, listen(SignalKind::terminate())?);
        spawn("load-signals".into(), move || {
            runtime.block_on(async {
                for is_first in [true, false] {
                    tokio::select! {
                        _ = keys.recv() => {}
                        _ = terminate.recv() => {}
                    }
                    if is_first {
                        asked.ask();
                    }
                }
            });
            again();
        })?;
        Ok(interrupt)
    }

    /// Asks the run to end.
    pub fn ask(&self) {
        // Asked twice, it was to end from the first time on.
        _ = self.0.at.set(Instant::now());
        self.0.asked.notify_waiters();
    }

    /// When it was asked to.
    pub(crate) fn at(&self) -> Option<Instant> {
        self.0.at.get().copied()
    }

    /// What comes of the work, unless it was asked to end first.
    pub(crate) async fn before<T>(
        &self,
        doing: &'static str,
        work: impl Future<Output = Result<T, LoadError>>,
    ) -> Result<T, LoadError> {
        let asked = self.0.asked.notified();
        if self.at().is_some() {
            return Err(LoadError::Interrupted { doing });
        }
        tokio::select! {
            done = work => done,
            () = asked => Err(LoadError::Interrupted { doing }),
        }
    }
}
