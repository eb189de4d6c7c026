//! The ledger in Redis, against real servers.

#![allow(clippy::unwrap_used, reason = "in a test a broken expectation is a failed test")]

mod differential;
mod failover;
mod faults;
mod leases;
mod suite;
mod support;
