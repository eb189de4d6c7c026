//! A load generator and auditor for any server that speaks the checkout contract.
//!
//! A run seeds the shop, reads the state it starts from, sends checkouts as fast as they are answered (or at a fixed
//! rate), reads the state again and says whether a single cent or unit is off.
//!
//! ```text
//!  args ──▶ seed ──▶ audit::fetch ──▶ scenario × connections ──▶ audit::fetch ──▶ audit::check ──▶ report
//!  (flags)  (batch_init) (start)      │  one Client each         (end)            (pure)
//!                                     │  pace says when
//!                                     ▼
//!                                    tally, one per worker thread, merged at the end
//! ```
//!
//! | module | what it is |
//! |---|---|
//! | [`cli`] | the two subcommands, `load` and `audit`: flags in, exit code out |
//! | [`client`] | one HTTP/1.1 connection; a lost answer is unknown, never refused, never sent again |
//! | [`contract`] | orders, items and users as the contract shows them, read liberally |
//! | [`seed`] | fills the shop before a run |
//! | [`pace`] | closed and open loop; bounds in time and in requests |
//! | [`interrupt`] | a signal ends the run before its time |
//! | [`scenario`] | what the connections ask for: one file each |
//! | [`tally`] | counts and latencies of one worker |
//! | [`audit`] | the pure checks, and the reader of a state |
//! | [`report`] | the table, the JSON file, the exit code |
//!
//! What an answer means, whoever wrote the server: **any 2xx is a sale, any 4xx is a refusal, anything else is
//! unknown** (another status, a broken connection, a timeout). The three are counted apart.

use thiserror::Error;

mod args;
pub mod audit;
pub mod cli;
pub mod client;
pub mod contract;
pub mod interrupt;
pub mod pace;
pub mod report;
mod run;
pub mod scenario;
pub mod seed;
pub mod tally;

pub use cli::{AuditArgs, LoadArgs, main_audit, main_load};
pub use report::Report;
pub use run::{run, run_until};

/// Why a run could not be made, or could not be judged. Nothing here says that money is off: that is a finding of
/// the audit.
#[derive(Debug, Error)]
pub enum LoadError {
    /// A flag is out of its bounds or contradicts another.
    #[error("{0}")]
    BadInput(String),
    /// Nobody answers at the address.
    #[error("cannot connect to {url}: {cause}; start the server first, or give its address with --url")]
    Unreachable {
        /// The URL as given.
        url: String,
        /// What the last attempt said.
        cause: std::io::Error,
    },
    /// A request that prepares the run was not answered 2xx.
    #[error("cannot prepare the run: {request} was answered {answer}")]
    Seed {
        /// Method and path.
        request: String,
        /// Status and body, or why there was none.
        answer: String,
    },
    /// An order, item or user could not be read.
    #[error("cannot read {kind} {id}: {problem}")]
    Unreadable {
        /// What was to be read.
        kind: contract::Kind,
        /// Its id.
        id: contract::Id,
        /// What came instead.
        problem: String,
    },
    /// The state that the run was to start from could not be read.
    #[error(
        "{cause}, while reading orders, items and users before the load: no checkout was sent. See whether the server still \
         runs, and in its log what it says; `settle doctor` looks for what is wrong with a shop's configuration and databases"
    )]
    NoStart {
        /// What could not be.
        cause: Box<LoadError>,
    },
    /// Something that the run was to start from is not there.
    #[error("{kind} {id} is not there: {hint}")]
    Missing {
        /// What was to be read.
        kind: contract::Kind,
        /// Its id.
        id: contract::Id,
        /// What to do.
        hint: &'static str,
    },
    /// A signal came before there was anything to measure.
    #[error("interrupted while {doing}: the load had not begun, and nothing was measured")]
    Interrupted {
        /// What was going on.
        doing: &'static str,
    },
    /// The JSON file cannot be written.
    #[error("cannot write {path}: {cause}")]
    Write {
        /// The file.
        path: String,
        /// Why.
        cause: std::io::Error,
    },
    /// The operating system refused a thread, or a worker of this program broke off.
    #[error("the load generator itself failed: {0}")]
    Internal(String),
}
