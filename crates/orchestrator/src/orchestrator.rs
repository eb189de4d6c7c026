//! The engine with a pulse: what an application on tokio uses.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use protocol::{Name, Outcome, Payload, Step};

use crate::definition::{BadDefinition, Definition};
use crate::engine::{Engine, Executed, TurnedAway};
use crate::observe::{Observer, Unobserved};
use crate::options::Options;
use crate::ports::{Clock, Log, LogError, SystemClock, Transport};

/// How often a busy engine is ticked.
const PULSE: Duration = Duration::from_millis(10);
/// How often an idle one is.
const IDLE_PULSE: Duration = Duration::from_millis(250);

/// How long a drain waits for the commands behind the last answers.
const SETTLING: Duration = Duration::from_secs(3);

/// Why an orchestrator could not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A definition can't work.
    #[error(transparent)]
    Definition(#[from] BadDefinition),
    /// The log does not answer.
    #[error(transparent)]
    Log(#[from] LogError),
}

/// Builds an [`Orchestrator`].
pub struct Builder {
    options: Options,
    definitions: Vec<Definition>,
    log: Arc<dyn Log>,
    transport: Arc<dyn Transport>,
    clock: Arc<dyn Clock>,
    observer: Arc<dyn Observer>,
}

impl Builder {
    /// Starts with what can't be left out.
    pub fn new(options: Options, log: Arc<dyn Log>, transport: Arc<dyn Transport>) -> Self {
        let clock = Arc::new(SystemClock::default());
        Self { options, definitions: Vec::new(), log, transport, clock, observer: Arc::new(Unobserved) }
    }

    /// Adds a kind of transaction.
    #[must_use]
    pub fn define(mut self, definition: Definition) -> Self {
        self.definitions.push(definition);
        self
    }

    /// Uses another clock.
    #[must_use]
    pub fn clock(mut self, clock: Arc<dyn Clock>) -> Self {
        self.clock = clock;
        self
    }

    /// Has everything observed.
    #[must_use]
    pub fn observer(mut self, observer: Arc<dyn Observer>) -> Self {
        self.observer = observer;
        self
    }

    /// Registers with the log, takes up what a crash left behind, and returns once all of that is decided; what is decided is
    /// settled in the background.
    ///
    /// # Errors
    /// If a definition can't work, or the log doesn't answer.
    pub async fn start(self) -> Result<Orchestrator, StartError> {
        let Self { options, definitions, log, transport, clock, observer } = self;
        let engine = Engine::new(options, definitions, log, transport, clock, observer)?;
        let (done, registered) = oneshot::channel();
        engine.register(Box::new(|result| _ = done.send(result)));
        registered.await.map_err(|_| LogError("it dropped the question".to_owned()))??;
        let pulse = tokio::spawn(beat(Arc::clone(&engine)));
        let orchestrator = Orchestrator { engine, pulse: Arc::new(Pulse(pulse)) };
        while orchestrator.engine.undecided_recoveries() > 0 {
            tokio::time::sleep(PULSE).await;
        }
        Ok(orchestrator)
    }
}

async fn beat(engine: Arc<Engine>) {
    loop {
        tokio::time::sleep(if engine.is_busy() { PULSE } else { IDLE_PULSE }).await;
        engine.tick();
    }
}

struct Pulse(JoinHandle<()>);

impl Drop for Pulse {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Executes transactions. Cheap to clone; the last clone stops the pulse.
#[derive(Clone)]
pub struct Orchestrator {
    engine: Arc<Engine>,
    pulse: Arc<Pulse>,
}

impl Orchestrator {
    /// Executes a transaction of a definition and waits for its outcome.
    ///
    /// `context` is the application's own note; [`Payload::EMPTY`] if its log has no use for one.
    ///
    /// # Errors
    /// [`TurnedAway`] if nothing was begun, or [`TurnedAway::Lost`] if nobody is left to say. Every [`Outcome`] is an `Ok`, with the transaction's id.
    pub async fn execute(&self, definition: Name, steps: Vec<Step>, context: Payload) -> Executed {
        let (done, executed) = oneshot::channel();
        self.engine.execute(definition, steps, context, Box::new(|result| _ = done.send(result)));
        executed.await.unwrap_or(Err(TurnedAway::Lost))
    }

    /// Waits for the outcome of a transaction that this instance drives; `None` if it drives no such transaction.
    pub async fn watch(&self, id: protocol::TransactionId) -> Option<Outcome> {
        let (done, outcome) = oneshot::channel();
        self.engine.watch(id, Box::new(|outcome| _ = done.send(outcome))).ok()?;
        outcome.await.ok()
    }

    /// The engine, for everything else.
    pub fn engine(&self) -> &Arc<Engine> {
        &self.engine
    }

    /// Admits nobody any more, waits until everyone in flight has been answered, or the time is over, and then a moment longer for what
    /// goes on behind the answers. Whether all was settled; if not, recovery will find the rest.
    pub async fn drain(&self, at_most: Duration) -> bool {
        self.engine.drain();
        let now = tokio::time::Instant::now();
        let until = |limit: Duration| now + limit.min(at_most);
        while self.engine.is_busy() {
            let answered = self.engine.load() == (0, 0);
            // A stuck transaction would be waited for in vain.
            let until = if answered { until(SETTLING) } else { until(at_most) };
            if tokio::time::Instant::now() >= until || self.pulse.0.is_finished() {
                return false;
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        true
    }
}
