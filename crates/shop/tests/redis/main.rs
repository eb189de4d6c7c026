//! The orders and their log in Redis, against real servers.

#![allow(clippy::unwrap_used, reason = "in a test a broken expectation is a failed test")]

mod differential;
mod faults;
mod recollection;
mod suite;
mod support;
mod trail;
