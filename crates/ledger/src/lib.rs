//! The escrow ledger: accounts with integer balances and one bound, and the barrier that makes their changes part of transactions.
//!
//! ```text
//!   Command (prepare, commit, abort, execute, compensate, inquire)
//!      │
//!      ▼  the branch is looked at first ...              protocol::barrier
//!   ┌────────┐   hold · charge · capture · release · restore · poison
//!   │ Ledger │ ─────────────────────────────────────────────────────► accounts: available | held | settled
//!   └────────┘   ... then, and only to begin, the one rule: available ≥ 0
//!      │
//!      ▼
//!   Reply
//! ```
//!
//! A ledger is a value: [`Ledger::apply`] takes a command and returns the answer and whether anything changed. Whoever keeps it
//! durable writes the command down before the answer leaves. Reservations commute (O'Neil's escrow method, 1986), so a hot
//! account needs no lock that is held across messages.
//!
//! | invariant, always                                          | checked by |
//! |------------------------------------------------------------|------------|
//! | credited = available + held + settled + debited            | [`audit`]  |
//! | held = the sum over the prepared branches, account by account | [`audit`] |
//! | available ≥ 0 (unless a repair, which raises an alarm)     | [`audit`]  |

pub mod account;
pub mod audit;
pub mod entries;
mod id;
pub mod idempotency;
mod ledger;

pub use account::{Account, Denial, Totals};
pub use entries::Entry;
pub use id::{EntityId, NotAnId};
pub use idempotency::{FrozenKeys, IdempotencyKey, Keys, Remembered};
pub use ledger::{
    Branch, Change, FrozenLedger, INSUFFICIENT, Ledger, LedgerCommand, LedgerReply, LedgerRest, Termination,
    UNKNOWN_ACCOUNT, terminate,
};
