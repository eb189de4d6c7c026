//! The port of a ledger's database: [`ledger::Ledger`] kept durable, wherever that is.

use std::collections::BTreeMap;

use ledger::audit::{Discrepancy, audit};
use ledger::{Account, Branch, EntityId, Ledger, LedgerCommand, LedgerReply, Totals};
use protocol::{BranchId, BranchState, Timestamp};

use crate::look::{Look, Seen};
use crate::ports::Done;

/// Why a ledger's database gave no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StoreFailure {
    /// The command was not carried out, and will not be: it may be given again.
    #[error("not done: {0}")]
    NotDone(String),
    /// Nobody knows whether the command was carried out, or will be. Never to be taken for "no", and never repeated blindly: a branch's
    /// command goes through the barrier again; a change of an account has its idempotency key for that.
    #[error("it is not known whether this was done: {0}")]
    Unknown(String),
}

/// The database of a service that keeps a ledger.
///
/// Contract, checked by [`crate::conformance::ledger_store`]: every command gets the answer that [`Ledger::apply`] gives, at one moment
/// between call and answer; each is applied at most once, never retried blindly; an answer is given once everything that it rests on is as
/// durable as the database was asked to be, that of a read included. Commands that are under way at the same time may be applied in any
/// order. Callbacks run on the database's own thread, or on the caller's before the call returns: they hand on and return.
pub trait LedgerStore: Send + Sync + 'static {
    /// Carries a command out.
    fn submit(&self, command: LedgerCommand, done: Done<Result<LedgerReply, StoreFailure>>);

    /// The same with a callback that is not in a box yet: a database that boxes it together with what is its own saves one.
    fn submit_unboxed(
        &self,
        command: LedgerCommand,
        done: impl FnOnce(Result<LedgerReply, StoreFailure>) + Send + 'static,
    ) where
        Self: Sized,
    {
        self.submit(command, Box::new(done));
    }

    /// Reads what is durable.
    fn read(&self, query: LedgerQuery, done: Done<Result<LedgerAnswer, StoreFailure>>);

    /// The time by the database's clock, which is the same for all processes that have it open.
    fn time(&self, done: Done<Result<Timestamp, StoreFailure>>) {
        done(Err(StoreFailure::NotDone(
            "only one process has this database open, and it has no clock of its own".to_owned(),
        )));
    }

    /// Why the database will never answer again, if that is so: the process should end, and start again.
    fn stopped(&self) -> Option<String>;
}

/// A question to a ledger.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LedgerQuery {
    /// One account.
    Account(EntityId),
    /// What is remembered of these branches: at most [`protocol::limits::MAX_TERMINATION_BATCH`].
    Branches(Vec<BranchId>),
    /// Open branches by the birth of their transactions, oldest first.
    Open {
        /// Prepared ones born before this; zero for none.
        prepared_before: Timestamp,
        /// Executed ones, not known to stand, born before this; zero for none.
        executed_before: Timestamp,
        /// How many at most, up to [`protocol::limits::MAX_TERMINATION_BATCH`].
        limit: usize,
    },
    /// The youngest birth of a transaction that the ledger knows of, its floor included.
    Youngest,
    /// Everything that an audit asks of one ledger.
    Audit,
    /// A little of what an audit asks that goes on all the time.
    Look(Look),
}

/// A ledger's answer to a question.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LedgerAnswer {
    /// To [`LedgerQuery::Account`].
    Account(Option<Account>),
    /// To [`LedgerQuery::Branches`]: in the order of the question.
    Branches(Vec<Option<Branch>>),
    /// To [`LedgerQuery::Open`].
    Open(Vec<(BranchId, BranchState)>),
    /// To [`LedgerQuery::Youngest`].
    Youngest(Timestamp),
    /// To [`LedgerQuery::Audit`].
    Audit(Box<LedgerAudit>),
    /// To [`LedgerQuery::Look`].
    Seen(Seen),
}

/// What an audit finds in one ledger.
///
/// A database may take it while commands go on. Then each account is seen at some moment of its own, and sums over accounts mean little;
/// but a discrepancy is one.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct LedgerAudit {
    /// How many accounts there are.
    pub accounts: u64,
    /// [`Ledger::totals`].
    pub totals: Totals,
    /// [`Ledger::settled_by_account`], without those that never settled anything.
    pub settled: BTreeMap<EntityId, i128>,
    /// [`audit`].
    pub discrepancies: Vec<Discrepancy>,
}

/// Answers a query from the state. For databases that hold a [`Ledger`] in memory.
pub fn answer_ledger(ledger: &Ledger, query: &LedgerQuery) -> LedgerAnswer {
    match query {
        LedgerQuery::Account(id) => LedgerAnswer::Account(ledger.account(*id).copied()),
        LedgerQuery::Branches(ids) => {
            LedgerAnswer::Branches(ids.iter().map(|id| ledger.get_branch(*id).cloned()).collect())
        }
        LedgerQuery::Open { prepared_before, executed_before, limit } => {
            let wanted = |(id, state): &(BranchId, BranchState)| {
                let before = if *state == BranchState::Executed { executed_before } else { prepared_before };
                id.transaction.birth() < *before
            };
            LedgerAnswer::Open(ledger.open_branches().filter(wanted).take(*limit).collect())
        }
        LedgerQuery::Youngest => LedgerAnswer::Youngest(ledger.youngest()),
        LedgerQuery::Look(look) => LedgerAnswer::Seen(crate::look::look(ledger, look)),
        LedgerQuery::Audit => {
            let mut settled = ledger.settled_by_account();
            settled.retain(|_, amount| *amount != 0);
            LedgerAnswer::Audit(Box::new(LedgerAudit {
                accounts: ledger.accounts().count() as u64,
                totals: ledger.totals(),
                settled,
                discrepancies: audit(ledger),
            }))
        }
    }
}
