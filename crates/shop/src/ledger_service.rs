//! A service that keeps a ledger, beside its part in transactions: termination, retention, prices. `*_http` has its routes.
//!
//! It needs a database and somebody who knows what became of transactions, and does not care where either is.

use std::sync::Arc;
use std::time::Duration;

use axum::http::StatusCode;
use ledger::{EntityId, LedgerCommand, Termination, terminate};
use orchestrator::{Clock, Done, LedgerAnswer, LedgerQuery, LedgerStore, LogError, StoreFailure, SystemClock};
use protocol::limits::{
    EXECUTED_AGE_MS, KEPT_BRANCHES, MAX_CLOCK_SKEW_MS, MAX_TERMINATION_BATCH, MIN_RETENTION_MS, ORPHAN_AGE_MS,
    RETENTION_MS, TERMINATION_AGE_MS,
};
use protocol::log::Verdict;
use protocol::{BranchId, Command, Name, Payload, Timestamp, TransactionId};

use crate::checkout::STOCK;
use crate::faults::Faults;
use crate::openapi::Api;
use crate::ports::{Price, Prices, Spread, Verdicts};
use crate::problem::Problem;
use crate::request::called;
use crate::{payment_http, stock_http};

/// How often old branches and retention are looked after.
const UPKEEP: Duration = Duration::from_millis(500);

/// What a ledger service is made of.
pub struct LedgerParts {
    /// `stock` or `payment`.
    pub name: Name,
    /// Its database.
    pub store: Arc<dyn LedgerStore>,
    /// Who knows what became of transactions.
    pub verdicts: Arc<dyn Verdicts>,
    /// What is to go wrong.
    pub faults: Arc<Faults>,
    /// The other instances.
    pub others: Arc<dyn Spread>,
    /// Whether seeding and faults are refused.
    pub production: bool,
}

/// A service that keeps a ledger. Cheap to clone.
#[derive(Clone)]
pub struct LedgerService {
    parts: Arc<LedgerParts>,
}

impl LedgerService {
    /// Puts a service together.
    pub fn new(parts: LedgerParts) -> Self {
        Self { parts: Arc::new(parts) }
    }

    /// `stock` or `payment`.
    pub fn name(&self) -> Name {
        self.parts.name
    }

    /// Its database.
    pub fn store(&self) -> &Arc<dyn LedgerStore> {
        &self.parts.store
    }

    /// Its part of the public contract, without its name before the paths.
    pub fn routes(&self) -> Api {
        let routes = if self.name() == STOCK { stock_http::routes() } else { payment_http::routes() };
        routes.with_state(self.clone())
    }

    /// What is to go wrong.
    pub fn faults(&self) -> &Faults {
        &self.parts.faults
    }

    pub(crate) fn others(&self) -> &dyn Spread {
        &*self.parts.others
    }

    /// Whether seeding and faults are refused.
    pub fn is_production(&self) -> bool {
        self.parts.production
    }

    /// Asks the log about every prepared branch, however young; `done` is called when that is done as the log said.
    ///
    /// For the start of the only coordinator, when recovery has decided what it found: a prepare may have become durable and its
    /// transaction's stage not. Nobody comes back for such a branch, so there is nothing to wait for.
    pub fn terminate_prepared(&self, done: Done<()>) {
        self.terminate(Timestamp(u64::MAX), Timestamp(0), done);
    }

    /// Asks the log about prepared branches that are not quite young: an order instance is gone, and may have left some that it never staged.
    pub fn terminate_orphans(&self, now: Timestamp) {
        self.terminate(now.minus(ORPHAN_AGE_MS), Timestamp(0), Box::new(|()| {}));
    }

    /// Asks the log about every executed branch: whether it stands.
    pub fn terminate_executed(&self) {
        self.terminate(Timestamp(0), Timestamp(u64::MAX), Box::new(|()| {}));
    }

    /// Asks the log about the open branches born before these times, and does as it says.
    fn terminate(&self, prepared_before: Timestamp, executed_before: Timestamp, done: Done<()>) {
        let query = LedgerQuery::Open { prepared_before, executed_before, limit: MAX_TERMINATION_BATCH };
        let service = self.clone();
        let found = move |answer: Result<LedgerAnswer, StoreFailure>| match answer {
            Ok(LedgerAnswer::Open(open)) if !open.is_empty() => {
                let branches: Vec<BranchId> = open.into_iter().map(|(branch, _)| branch).collect();
                let ids: Vec<TransactionId> = branches.iter().map(|branch| branch.transaction).collect();
                let verdicts = Arc::clone(&service.parts.verdicts);
                let told = move |verdicts: Result<Vec<Verdict>, LogError>| match verdicts {
                    Ok(verdicts) => service.follow(branches, verdicts, done),
                    Err(_) => done(()),
                };
                verdicts.ask(ids, Box::new(told));
            }
            Ok(_) | Err(_) => done(()),
        };
        self.store().read(query, Box::new(found));
    }

    /// Does as the log said of these branches: of what they are now, not of what they were when the question was asked.
    fn follow(self, branches: Vec<BranchId>, verdicts: Vec<Verdict>, done: Done<()>) {
        let service = self.clone();
        let asked = branches.clone();
        let found = move |answer: Result<LedgerAnswer, StoreFailure>| {
            let Ok(LedgerAnswer::Branches(found)) = answer else { return done(()) };
            let store = service.store();
            let (mut retired, mut applied) = (Vec::new(), 0_usize);
            for ((branch, verdict), now) in asked.into_iter().zip(verdicts).zip(found) {
                let Some(now) = now else { continue };
                match terminate(now.state, verdict) {
                    None => {}
                    Some(Termination::Retire) => retired.push(branch),
                    Some(Termination::Apply(verb)) => {
                        tracing::debug!(transaction = %branch.transaction, step = branch.step, %verb, "the log said what became of a branch that nobody came back for");
                        applied += 1;
                        // The branch is open, so its entries are known: no payload is needed.
                        let command = Command { branch, verb, payload: Payload::EMPTY };
                        store.submit(LedgerCommand::Branch(command), Box::new(|_| {}));
                    }
                }
            }
            if applied > 0 {
                let service = service.name();
                tracing::warn!(participant = %service, branches = applied, "settled branches that nobody came back for, as the log said");
            }
            if !retired.is_empty() {
                store.submit(LedgerCommand::Retire(retired), Box::new(|_| {}));
            }
            done(());
        };
        self.store().read(LedgerQuery::Branches(branches), Box::new(found));
    }

    /// Asks about branches that have been open for long, and forgets final ones beyond what is kept; until the database stops. `clock` follows the
    /// database's meanwhile: what is born may do so, and would seem young otherwise for as long as all clocks were set ahead.
    pub async fn look_after(self, clock: Arc<SystemClock>) {
        let mut far = false;
        let mut interval = tokio::time::interval(UPKEEP);
        interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        while self.store().stopped().is_none() {
            interval.tick().await;
            self.follow_database(&clock, &mut far).await;
            let now = clock.now();
            // Born so long ago, or longer.
            let before = |age: u64| now.minus(age).plus(1);
            let (prepared, executed) = (before(TERMINATION_AGE_MS), before(EXECUTED_AGE_MS));
            // One question at a time, however long its answer takes.
            _ = called(|done| self.terminate(prepared, executed, done)).await;
            let command = LedgerCommand::Forget {
                born_before: now.minus(RETENTION_MS),
                keep: KEPT_BRANCHES,
                spare_since: now.minus(MIN_RETENTION_MS),
            };
            self.store().submit(command, Box::new(|_| {}));
        }
    }

    /// Has the clock follow the database's, and says when the two come apart, and when they no longer are. As long as the database does not tell the time,
    /// it goes by what is known.
    async fn follow_database(&self, clock: &SystemClock, far: &mut bool) {
        let Ok(Ok(time)) = called(|done| self.store().time(done)).await else { return };
        let ahead = clock.follow(time);
        let is_far = ahead.unsigned_abs() > MAX_CLOCK_SKEW_MS;
        if std::mem::replace(far, is_far) == is_far {
            return;
        }
        let database = self.name();
        if is_far {
            tracing::warn!(%database, milliseconds = ahead.unsigned_abs(), ahead = ahead < 0, "this instance's clock and the database's are apart: one of them was set, or is wrong. Mend the clocks of the machines");
        } else {
            tracing::info!(%database, "this instance's clock and the database's agree again");
        }
    }

    /// Whether the database answers, durably.
    pub async fn answers(&self, within: Duration) -> bool {
        let query = LedgerQuery::Account(EntityId::number(0));
        let answer = called(|done| self.store().read(query, done));
        matches!(tokio::time::timeout(within, answer).await, Ok(Ok(Ok(_))))
    }

    /// How many branches are prepared and not decided, as far as counting goes.
    ///
    /// # Errors
    /// Why the database does not say.
    pub async fn prepared(&self) -> Result<usize, String> {
        let query = LedgerQuery::Open {
            prepared_before: Timestamp(u64::MAX),
            executed_before: Timestamp(0),
            limit: MAX_TERMINATION_BATCH,
        };
        match called(|done| self.store().read(query, done)).await {
            Ok(Ok(LedgerAnswer::Open(open))) => Ok(open.len()),
            Ok(Ok(_)) | Err(_) => Err("no answer".to_owned()),
            Ok(Err(failure)) => Err(failure.to_string()),
        }
    }

    pub(crate) fn check_development(&self, what: &str) -> Result<(), Problem> {
        check_development(self.is_production(), what)
    }
}

/// 403 in production.
pub(crate) fn check_development(production: bool, what: &str) -> Result<(), Problem> {
    if production {
        let detail = format!("{what} is refused in production");
        return Err(Problem::new(StatusCode::FORBIDDEN, "not_in_production", detail));
    }
    Ok(())
}

impl Prices for LedgerService {
    fn price(&self, item: EntityId, done: Done<Price>) {
        let found = |answer: Result<LedgerAnswer, StoreFailure>| {
            done(match answer {
                Ok(LedgerAnswer::Account(account)) => Ok(account.map(|account| account.price)),
                Ok(_) => Err("an answer to another question".to_owned()),
                Err(failure) => Err(failure.to_string()),
            });
        };
        self.store().read(LedgerQuery::Account(item), Box::new(found));
    }
}
