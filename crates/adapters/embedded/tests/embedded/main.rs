//! The store against its promises: nothing acknowledged is lost, damage is never read past.

#![expect(clippy::unwrap_used, reason = "everything here runs only in tests")]

mod crash;
mod damage;
mod faults;
mod store;
mod support;
