//! The decisions of Settle, sans-I/O: no clock, no randomness, no sockets, no threads.
//!
//! | file            | decides                                                             |
//! |-----------------|---------------------------------------------------------------------|
//! | [`barrier`]     | what a command does to a branch                                     |
//! | `two_phase`     | two-phase commit in one durable round                               |
//! | `saga`          | sagas: parallel or sequential, backward or forward                  |
//! | [`coordinator`] | what both share: events in, effects out                             |
//! | [`log`]         | who may append, and which decision stands                           |
//! | [`recovery`]    | how to take up what a crash left behind                             |
//! | [`policy`]      | two-phase commit or saga, by the abort rate                         |
//! | [`breaker`]     | when to keep away from a participant                                |
//! | [`pacing`]      | deadlines, retries, back-off                                        |
//! | [`record`]      | versioned binary records                                            |
//! | [`limits`]      | every maximum                                                       |
//! | [`simulation`]  | deliberate bugs and coverage marks; empty outside of the simulator  |
//!
//! The protocol itself, with its reasons and its crash points, is told in `docs/protocol/`.

pub mod barrier;
pub mod breaker;
pub mod coordinator;
pub mod ids;
pub mod limits;
pub mod log;
pub mod message;
pub mod pacing;
pub mod policy;
mod rare;
pub mod record;
pub mod recovery;
mod saga;
pub mod simulation;
pub mod transaction;
mod two_phase;

pub use coordinator::{Coordinator, Effect, Event};
pub use ids::{BranchId, Epoch, Name, Timestamp, TransactionId};
pub use message::{BranchState, Command, Payload, Refusal, Reply, Unknown, Verb};
pub use pacing::{Pacing, Sending};
pub use rare::Rare;
pub use transaction::{Cause, Decision, Order, Outcome, Protocol, Recovery, Step, Transaction};
