//! All or nothing across services: two-phase commit and sagas, with recovery, fencing, dead letters and backpressure.
//!
//! ```text
//!        execute(definition, steps)
//!   you ───────────────────────────► Orchestrator ──► Engine ──► Log         your database, or one of the adapters
//!                                                       │
//!                                                       └──────► Transport   in-process, or one of the adapters
//!                                                                    │
//!                                                                    ▼
//!                                                               Participant  your service: prepare, commit, abort, …
//! ```
//!
//! # A guide
//!
//! **0. Depend on it.** The package is `settle-orchestrator`, the library `orchestrator`; that of [`ledger`] is `settle-ledger`, and needed beside it
//! only for services whose state is balances. Neither is on crates.io: name them by path or by Git.
//!
//! **1. Say what kinds of transactions there are.** A [`Definition`] is data: a name, the services that may take part, the protocol
//! (`auto`, `2pc` or `saga`), the order of a saga's steps, what it does when in doubt, and its [pacing](protocol::Pacing). It can be
//! deserialized from a configuration file.
//!
//! **2. Give every service a [`Participant`].** It gets a [`Command`](protocol::Command) (a branch's id, a verb, your payload) and answers
//! with a [`Reply`](protocol::Reply) once that is durable. The rules for repeats, late and lost messages are those of
//! [`protocol::barrier`]: look the branch up, ask `barrier`, and write the branch's state and your own change in one atomic write. A service whose state is
//! balances gets all of that from [`ledger::Ledger`], as [`memory::MemoryLedger`] shows.
//!
//! **3. Choose a [`Log`].** [`memory::MemoryLog`] to try things out; an adapter, or your own database, in production. It must pass the suite in
//! [`conformance`].
//!
//! **4. Execute.** [`Orchestrator::execute`] returns a [`TurnedAway`] if nothing was begun, or the transaction's id and its
//! [`Outcome`]:
//!
//! | outcome      | what took effect | what to tell the user                                       |
//! |--------------|------------------|-------------------------------------------------------------|
//! | `Committed`  | everything       | done                                                        |
//! | `Refused`    | nothing          | which step said no, and why: final as things stand          |
//! | `Conflict`   | nothing          | your own data, in the log's database, said no               |
//! | `RolledBack` | nothing          | a service was unavailable: try again                        |
//! | `InDoubt`    | not known yet    | it will be settled without you; look it up by its id        |
//!
//! Adding a service means adding a `Participant` and naming it in a definition. Nothing here changes.
//!
//! ```
//! # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
//! use std::sync::Arc;
//! use orchestrator::{Definition, InProcess, Name, Options, Builder, Outcome, Payload, Step, memory};
//! use ledger::{EntityId, Entry, entries};
//!
//! let seats = Name::literal("seats");
//! let ledger = memory::MemoryLedger::with_accounts([(EntityId::number(7), 1)]);
//! let orchestrator = Builder::new(
//!     Options::new(Name::literal("here")),
//!     Arc::new(memory::MemoryLog::default()),
//!     Arc::new(InProcess::default().with(seats, Arc::new(ledger))),
//! )
//! .define(Definition::new(Name::literal("booking"), [seats]))
//! .start()
//! .await?;
//!
//! let payload = entries::encode(&[Entry { account: EntityId::number(7), amount: 1 }])?;
//! let steps = vec![Step { service: seats, payload }];
//! let (_, outcome) = orchestrator.execute(Name::literal("booking"), steps, Payload::EMPTY).await?;
//! assert_eq!(outcome, Outcome::Committed);
//! # Ok::<_, Box<dyn std::error::Error>>(()) }).unwrap();
//! ```

mod admission;
pub mod conformance;
mod definition;
mod engine;
mod entropy;
mod follower;
mod gates;
mod ledger_store;
mod look;
pub mod memory;
mod observe;
mod operate;
mod options;
mod orchestrator;
mod ports;
mod recovery;
mod transport;

pub use definition::{BadDefinition, Choice, Definition};
pub use engine::{Engine, Executed, TurnedAway};
pub use follower::{Followed, Follower, Mark, Origin, outcome_word};
pub use ledger_store::{LedgerAnswer, LedgerAudit, LedgerQuery, LedgerStore, StoreFailure, answer_ledger};
pub use look::{AccountSeen, Look, Seen, Standing};
pub use observe::{Observation, Observer, Unobserved};
pub use operate::Retried;
pub use options::Options;
pub use orchestrator::{Builder, Orchestrator, StartError};
pub use ports::{
    Clock, ClockBehind, Done, Log, LogAnswer, LogError, LogQuery, Participant, SystemClock, Transport, answer,
};
pub use protocol::{Name, Outcome, Payload, Step};
pub use transport::InProcess;
