//! The settle binary seen from outside: as a process that can be killed, and as a port that speaks HTTP.
//!
//! | file       | what it is                                                                  |
//! |------------|-----------------------------------------------------------------------------|
//! | [`server`] | `settle serve` as a child process: start, kill, terminate, restart, audit   |
//! | [`http`]   | HTTP/1.1 over any stream, small enough that a test decides about every byte |
//! | [`client`] | the shop's calls as a client of the contract makes them                     |
//! | [`system`] | the services as processes of their own, with their servers, behind a gateway |
//! | [`gateway`] | who stands in for HAProxy: an instance for every request, in turn             |
//! | [`browser`] | a headless Chromium at the page                                             |
//! | [`gate`]   | a way to a server on which answers can be held back                             |
//! | [`otlp`]   | a back end for traces                                                       |
//! | [`world`]  | many orders, clients that check them out, and what must be true afterwards  |
//!
//! | tests                | what they show                                                                    |
//! |----------------------|-----------------------------------------------------------------------------------|
//! | `tests/contract`     | every line and every rule of the HTTP contract                                    |
//! | `tests/strangers.rs` | a client that knows nothing but the contract sells what there is, and no more     |
//! | `tests/shutdown.rs`  | SIGTERM under load: everyone is answered, and nothing is lost                     |
//! | `tests/browser`      | the page in Chromium: each tab, each action, contrast, the keyboard, a killed server |
//! | `tests/distributed`  | the services as processes of their own: twins, kills, take-over, a drain           |
//! | `tests/traces.rs`    | what a back end for traces is sent by one process and by many                     |
//! | `tests/report.rs`    | load runs against a real server, and the report that is made of them               |
//! | `tests/crash.rs`     | `kill -9` at random moments and at every fault point: every answer given stays true |
//!
//! | variable     | meaning                                                                                   |
//! |--------------|-------------------------------------------------------------------------------------------|
//! | `SETTLE_BIN` | the binary under test; unless it is set, cargo builds it in the profile of the tests      |
//! | `E2E_KILLS`  | how many kills at random moments; 100 unless it is set                                    |
//! | `E2E_SEED`   | repeats the moments and choices of a run, which prints it                                 |
//! | `TMPDIR`     | where the data goes: every fresh server writes its journals' zeros, so a slow disk is felt |
//!
//! Nothing here links the shop: what these tests know of Settle is what any client can know.

#![allow(clippy::unwrap_used, reason = "in a test a broken expectation is a failed test")]

pub mod browser;
pub mod client;
pub mod gate;
pub mod gateway;
pub mod http;
pub mod otlp;
pub mod server;
pub mod system;
pub mod world;

pub use client::Client;
pub use server::{Server, settle};
pub use system::{Instance, System};
pub use world::World;

/// Lets this process have as many files open as the system allows it at all: some systems begin with 1,024, and some tests hold a
/// thousand connections.
pub fn allow_many_connections() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let maximum = getrlimit(Resource::Nofile).maximum;
    setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }).unwrap();
}
