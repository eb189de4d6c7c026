//! What is checked: small worlds, each with its own faults.

use std::fmt;
use std::sync::Arc;

use protocol::{Order, Pacing, Protocol, Recovery, Transaction};

use crate::parts::{AMOUNT, pacing, transaction};

/// Which protocol, in short.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    TwoPhase,
    SagaParallel,
    SagaSequential,
    SagaForward,
}

impl Kind {
    const ALL: [Self; 4] = [Self::TwoPhase, Self::SagaParallel, Self::SagaSequential, Self::SagaForward];
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::TwoPhase => "2pc",
            Self::SagaParallel => "saga, parallel",
            Self::SagaSequential => "saga, sequential",
            Self::SagaForward => "saga, forward",
        })
    }
}

/// How often each fault may happen in one run.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub(crate) struct Faults {
    /// The process that holds coordinator and log dies; the log loses what is not flushed.
    pub(crate) process_crashes: u8,
    /// An instance dies alone; the log goes on, and the instance's last calls may still reach it.
    pub(crate) instance_crashes: u8,
    /// The log dies alone and loses what is not flushed; its callers go on.
    pub(crate) log_crashes: u8,
    /// A message is lost for good: only sending it again helps.
    pub(crate) losses: u8,
    /// A call to the log breaks, before or after it was carried out.
    pub(crate) broken_calls: u8,
    /// B takes over A's transactions, whether A is dead or merely slow.
    pub(crate) take_overs: u8,
}

/// One world to be checked.
#[derive(Debug, Clone)]
pub(crate) struct Configuration {
    kind: Kind,
    pub(crate) transaction: Arc<Transaction>,
    /// What each participant has; a step takes [`AMOUNT`].
    pub(crate) available: Vec<i64>,
    pub(crate) pacing: Pacing,
    pub(crate) faults: Faults,
    /// The transport reports unknown outcomes. (Otherwise a lost message is noticed by its timer alone.)
    pub(crate) unknowns: bool,
    /// Participants ask the log at any moment. (Otherwise only when nothing else is going on, as their patience makes likely.)
    pub(crate) eager_asks: bool,
    /// Participants and the log forget what is final at once.
    pub(crate) forgets: bool,
}

const ENOUGH: i64 = AMOUNT + 1;
const TOO_LITTLE: i64 = AMOUNT - 1;

impl Configuration {
    /// `steps` participants which all have enough, and no faults at all.
    pub(crate) fn new(kind: Kind, steps: usize) -> Self {
        let (protocol, order, recovery) = match kind {
            Kind::TwoPhase => (Protocol::TwoPhase, Order::Parallel, Recovery::Backward),
            Kind::SagaParallel => (Protocol::Saga, Order::Parallel, Recovery::Backward),
            Kind::SagaSequential => (Protocol::Saga, Order::Sequential, Recovery::Backward),
            Kind::SagaForward => (Protocol::Saga, Order::Parallel, Recovery::Forward),
        };
        Self {
            kind,
            transaction: transaction(protocol, order, recovery, steps),
            available: vec![ENOUGH; steps],
            pacing: pacing(2),
            faults: Faults::default(),
            unknowns: false,
            eager_asks: false,
            forgets: false,
        }
    }

    pub(crate) fn is_saga(&self) -> bool {
        self.transaction.protocol == Protocol::Saga
    }

    /// Whether some participant has too little.
    pub(crate) fn is_refused(&self) -> bool {
        self.available.contains(&TOO_LITTLE)
    }

    /// The last participant has too little.
    #[must_use]
    pub(crate) fn refused(mut self) -> Self {
        if let Some(last) = self.available.last_mut() {
            *last = TOO_LITTLE;
        }
        self
    }

    /// Every participant has just what its step takes.
    #[cfg(test)]
    #[must_use]
    pub(crate) fn exactly_enough(mut self) -> Self {
        self.available.fill(AMOUNT);
        self
    }

    #[must_use]
    pub(crate) fn with(mut self, faults: Faults) -> Self {
        self.faults = faults;
        self
    }

    #[must_use]
    pub(crate) fn attempts(mut self, attempts: u32) -> Self {
        self.pacing = pacing(attempts);
        self
    }

    #[must_use]
    pub(crate) fn unknowns(mut self) -> Self {
        self.unknowns = true;
        self
    }

    #[must_use]
    pub(crate) fn eager_asks(mut self) -> Self {
        self.eager_asks = true;
        self
    }

    #[must_use]
    pub(crate) fn forgets(mut self) -> Self {
        self.forgets = true;
        self
    }
}

impl fmt::Display for Configuration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} x{}", self.kind, self.available.len())?;
        let faults = &self.faults;
        let counted = [
            (faults.process_crashes, "process crash"),
            (faults.instance_crashes, "instance crash"),
            (faults.log_crashes, "log crash"),
            (faults.losses, "loss"),
            (faults.broken_calls, "broken call"),
            (faults.take_overs, "take-over"),
        ];
        for (times, what) in counted.into_iter().filter(|(times, _)| *times > 0) {
            write!(f, ", {times} {what}")?;
        }
        let flags = [
            (self.is_refused(), "one refuses"),
            (self.unknowns, "unknowns"),
            (self.eager_asks, "eager asks"),
            (self.forgets, "forgets"),
        ];
        for (_, what) in flags.into_iter().filter(|(on, _)| *on) {
            write!(f, ", {what}")?;
        }
        Ok(())
    }
}

/// What is checked on every change: about a minute and a half.
pub(crate) fn regular() -> Vec<Configuration> {
    let none = Faults::default;
    let mut all = Vec::new();
    for kind in Kind::ALL {
        let of = |steps| Configuration::new(kind, steps);
        let crash = Faults { process_crashes: 1, ..none() };
        all.extend([
            of(2).with(crash.clone()).unknowns().eager_asks(),
            of(2).with(crash.clone()).refused().eager_asks(),
            of(2).with(Faults { process_crashes: 2, ..none() }),
            of(2).with(Faults { losses: 2, ..none() }).attempts(1),
            of(2).with(Faults { losses: 1, ..none() }).refused(),
            of(2).with(Faults { instance_crashes: 1, broken_calls: 1, ..none() }),
            of(2).with(Faults { log_crashes: 1, ..none() }),
            of(2).with(Faults { take_overs: 1, ..none() }),
            of(2).with(Faults { take_overs: 1, log_crashes: 1, ..none() }),
            of(2).with(Faults { take_overs: 1, ..none() }).refused().forgets(),
            of(2).with(crash.clone()).forgets(),
            of(3).with(crash.clone()).eager_asks(),
            of(3).with(Faults { losses: 1, ..crash.clone() }).refused(),
        ]);
    }
    all
}

/// What is checked besides when there is time.
pub(crate) fn deep() -> Vec<Configuration> {
    let none = Faults::default;
    let mut all = Vec::new();
    for kind in Kind::ALL {
        let of = |steps| Configuration::new(kind, steps);
        all.extend([
            of(2).with(Faults { process_crashes: 2, losses: 1, ..none() }).eager_asks().forgets(),
            of(2).with(Faults { instance_crashes: 2, take_overs: 1, log_crashes: 1, ..none() }),
            of(2).with(Faults { instance_crashes: 1, take_overs: 1, broken_calls: 1, ..none() }).forgets(),
            of(3).with(Faults { process_crashes: 1, losses: 1, ..none() }).eager_asks().forgets(),
            of(3).with(Faults { take_overs: 1, ..none() }),
        ]);
    }
    all
}
