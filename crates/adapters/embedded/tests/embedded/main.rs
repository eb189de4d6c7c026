//! The store against its promises: nothing acknowledged is lost, damage is never read past.

mod crash;
mod damage;
mod faults;
mod store;
mod support;
