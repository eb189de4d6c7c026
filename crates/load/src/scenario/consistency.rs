//! 1,000 users with the price of one unit each, 1,000 orders of one unit, 100 units, all checkouts at once: exactly
//! 100 may succeed.
//!
//! Everything is made with the ordinary endpoints (`create`, `add`, `addItem`), under ids that the server chooses,
//! so the scenario works with any server of the contract and leaves its other accounts alone.

use serde::Serialize;

use crate::audit::Verdict;

/// Units in stock, unless `--stock` says otherwise.
pub const STOCK: i64 = 100;

/// How many orders were sold, and how many there should have been.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Sales {
    /// The stock, or the orders if they are fewer.
    pub expected: u64,
    /// Orders paid at the end.
    pub sold: u64,
}

impl Sales {
    /// Counts what the audit saw. That the paid orders are those answered 2xx is the audit's own rule.
    #[must_use]
    pub fn new(stock: i64, orders: u64, verdict: &Verdict) -> Self {
        Self { expected: orders.min(u64::try_from(stock).unwrap_or(0)), sold: verdict.newly_paid }
    }

    /// Whether exactly the stock was sold.
    #[must_use]
    pub fn is_exact(&self) -> bool {
        self.sold == self.expected
    }
}
