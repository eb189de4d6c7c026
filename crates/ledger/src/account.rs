//! One account of the ledger, and the moves between its parts.
//!
//! ```text
//!   credit ──► available ──debit──► debited
//!                │   ▲  │
//!           hold │   │  └──charge──┐   (saga)
//!                ▼   │ release     ▼
//!               held ┴──capture──► settled ──restore──► available
//! ```
//!
//! Always: `credited = available + held + settled + debited`.

use serde::{Deserialize, Serialize};

use protocol::limits::MAX_AMOUNT;

/// A balance in the ledger's unit: items of stock, cents of credit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Account {
    /// Free to be held or debited. Never negative, except by a repair, which raises an alarm.
    pub available: i64,
    /// Held by prepared branches.
    pub held: i64,
    /// Captured by committed branches, or charged by executed ones.
    pub settled: i64,
    /// All that ever came in.
    pub credited: i64,
    /// All that was taken out directly.
    pub debited: i64,
    /// A number that the ledger's owner attaches; stock keeps an item's price here.
    pub price: i64,
}

/// Why an account can't be changed so.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[serde(rename_all = "snake_case")]
pub enum Denial {
    /// There is no such account.
    #[error("there is no such account")]
    UnknownAccount,
    /// Less is available than was asked for.
    #[error("not enough is available")]
    Insufficient,
    /// A balance would exceed [`MAX_AMOUNT`].
    #[error("the balance would exceed {MAX_AMOUNT}")]
    Overflow,
}

impl Account {
    /// Adds `amount`.
    ///
    /// # Errors
    /// [`Denial::Overflow`] if more than [`MAX_AMOUNT`] would ever have come in.
    pub fn credit(&mut self, amount: i64) -> Result<(), Denial> {
        let credited = self.credited.checked_add(amount).filter(|sum| *sum <= MAX_AMOUNT).ok_or(Denial::Overflow)?;
        self.credited = credited;
        self.available += amount;
        Ok(())
    }

    /// Takes `amount` out.
    ///
    /// # Errors
    /// [`Denial::Insufficient`] if less is available.
    pub fn debit(&mut self, amount: i64) -> Result<(), Denial> {
        self.take(amount)?;
        self.debited += amount;
        Ok(())
    }

    pub(crate) fn can_take(&self, amount: i64) -> Result<(), Denial> {
        if amount <= self.available { Ok(()) } else { Err(Denial::Insufficient) }
    }

    fn take(&mut self, amount: i64) -> Result<(), Denial> {
        self.can_take(amount)?;
        self.available -= amount;
        Ok(())
    }

    pub(crate) fn hold(&mut self, amount: i64) {
        self.available -= amount;
        self.held += amount;
    }

    pub(crate) fn release(&mut self, amount: i64) {
        self.held -= amount;
        self.available += amount;
    }

    pub(crate) fn capture(&mut self, amount: i64) {
        self.held -= amount;
        self.settled += amount;
    }

    pub(crate) fn charge(&mut self, amount: i64) {
        self.available -= amount;
        self.settled += amount;
    }

    pub(crate) fn restore(&mut self, amount: i64) {
        self.settled -= amount;
        self.available += amount;
    }

    /// What the account lacks of its invariant: zero in a sound ledger.
    pub fn discrepancy(&self) -> i128 {
        i128::from(self.credited)
            - (i128::from(self.available) + i128::from(self.held) + i128::from(self.settled) + i128::from(self.debited))
    }
}

/// Sums over many accounts. 128 bits: no sum overflows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Totals {
    /// Sum of [`Account::available`].
    pub available: i128,
    /// Sum of [`Account::held`].
    pub held: i128,
    /// Sum of [`Account::settled`].
    pub settled: i128,
    /// Sum of [`Account::credited`].
    pub credited: i128,
    /// Sum of [`Account::debited`].
    pub debited: i128,
}

impl Totals {
    /// Takes an account into the sums.
    pub fn add(&mut self, account: &Account) {
        self.available += i128::from(account.available);
        self.held += i128::from(account.held);
        self.settled += i128::from(account.settled);
        self.credited += i128::from(account.credited);
        self.debited += i128::from(account.debited);
    }
}
