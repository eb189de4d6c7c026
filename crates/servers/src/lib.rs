//! Starts other people's servers on free ports of 127.0.0.1, with their data in a temporary folder, and stops them by process id.
//!
//! ```text
//!   redis::Server::start ──► Process ──► redis-server   (a folder of its own: configuration, data, output)
//!   redis::Sentinel::start ─► Process ─► redis-sentinel
//!   nats::Server::start ────► Process ─► nats-server
//!                                │
//!                                └─ kill (as a power cut would), freeze, thaw, start again in the same folder on the same port
//! ```
//!
//! For tests, benchmarks and `settle`'s own ways of trying things out; nothing in production depends on it. A server that is dropped is
//! killed, and its folder removed.

pub mod nats;
mod process;
pub mod redis;

pub use process::{Process, free_port, wait_until};
