//! Definitions of transactions, as data.

use serde::{Deserialize, Serialize};

use protocol::limits::MAX_STEPS;
use protocol::{Name, Order, Pacing, Recovery};

/// Which protocol a definition uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Choice {
    /// By the abort rate: see [`protocol::policy`].
    #[default]
    Auto,
    /// Always two-phase commit.
    #[serde(rename = "2pc")]
    TwoPhase,
    /// Always sagas.
    Saga,
}

/// A kind of transaction.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Definition {
    /// Its name, which stands in the log, in metrics and in traces.
    pub name: Name,
    /// The services that may take part.
    pub services: Vec<Name>,
    /// Which protocol.
    #[serde(default)]
    pub protocol: Choice,
    /// The order of a saga's steps.
    #[serde(default = "parallel")]
    pub order: Order,
    /// Where a saga goes when in doubt.
    #[serde(default = "backward")]
    pub recovery: Recovery,
    /// Deadlines and retries.
    #[serde(default)]
    pub pacing: Pacing,
}

fn parallel() -> Order {
    Order::Parallel
}

fn backward() -> Recovery {
    Recovery::Backward
}

/// A definition that can't work.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadDefinition {
    /// No service, or more than a transaction may have steps.
    #[error("definition `{0}` must name 1 to {MAX_STEPS} services")]
    Services(Name),
    /// The transport doesn't reach one of them.
    #[error("definition `{definition}` names service `{service}`, which the transport does not know")]
    UnknownService {
        /// The definition.
        definition: Name,
        /// The service.
        service: Name,
    },
    /// Two definitions of one name.
    #[error("there are two definitions named `{0}`")]
    Twice(Name),
}

impl Definition {
    /// A definition with the defaults: protocol by the abort rate, steps in parallel, backward recovery.
    pub fn new(name: Name, services: impl IntoIterator<Item = Name>) -> Self {
        Self {
            name,
            services: services.into_iter().collect(),
            protocol: Choice::Auto,
            order: Order::Parallel,
            recovery: Recovery::Backward,
            pacing: Pacing::default(),
        }
    }

    /// The same with another choice of protocol.
    #[must_use]
    pub fn with_protocol(mut self, protocol: Choice) -> Self {
        self.protocol = protocol;
        self
    }

    pub(crate) fn check(&self) -> Result<(), BadDefinition> {
        let fits = (1..=MAX_STEPS).contains(&self.services.len());
        if fits { Ok(()) } else { Err(BadDefinition::Services(self.name)) }
    }
}
