//! Commands and questions over NATS, against real servers.

#![allow(clippy::unwrap_used, reason = "in a test a broken expectation is a failed test")]

mod commands;
mod faults;
mod poison;
mod questions;
mod start;
mod suite;
mod support;
