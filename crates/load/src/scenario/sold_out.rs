//! Demand above supply: about half of the orders can be sold, and no refusal may leak a unit or a cent.

/// Stock per item for about half of the demand: orders want two units each, spread over the items.
#[must_use]
pub fn stock(orders: u64, items: u64) -> i64 {
    i64::try_from(orders.div_ceil(items.max(1))).unwrap_or(i64::MAX)
}
