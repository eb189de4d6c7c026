//! The shop: orders, stock and payment behind the public HTTP contract.

pub mod checkout;
pub mod orders;
