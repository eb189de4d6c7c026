//! Commands and questions between services, over NATS.

mod ask;
mod dead;
mod desk;
mod error;
mod link;
mod names;
mod options;
mod pending;
mod pull;
mod serve;
mod statistics;
mod streams;
mod trace;
mod transport;
mod wire;

pub use ask::{Answerer, To};
pub use bytes::Bytes;
pub use dead::DeadLetter;
pub use error::{StartError, Unanswered, Unreadable};
pub use link::Nats;
pub use options::{Credentials, DeadLetterHook, Mode, Options, Storage, Tls};
pub use serve::Serving;
pub use statistics::Statistics;
pub use trace::{TraceContext, Tracing};
pub use transport::NatsTransport;
