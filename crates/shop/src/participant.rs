//! Stock and payment as participants: a ledger in a store, with its faults, its termination and its retention.

use std::sync::Arc;

use embedded::Store;
use ledger::{EntityId, Ledger, LedgerCommand, LedgerReply, Termination, terminate};
use orchestrator::{Done, Engine, Participant};
use protocol::limits::{
    EXECUTED_AGE_MS, KEPT_BRANCHES, MAX_TERMINATION_BATCH, MIN_RETENTION_MS, RETENTION_MS, TERMINATION_AGE_MS,
};
use protocol::{BranchId, BranchState, Command, Name, Payload, Reply, Timestamp, TransactionId, Unknown};

use crate::faults::{Fault, Faults, Moment, crash, later};
use crate::metrics::Metrics;

/// A service that keeps a ledger.
#[derive(Clone)]
pub struct LedgerService {
    /// `stock` or `payment`.
    pub name: Name,
    /// Its database.
    pub store: Store<Ledger>,
    /// What is to go wrong.
    pub faults: Arc<Faults>,
    pub(crate) metrics: Arc<Metrics>,
}

impl LedgerService {
    /// A service that keeps its ledger in `store`. Faults can be set only if `chaos` allows it.
    pub fn new(name: Name, store: Store<Ledger>, chaos: bool, metrics: Arc<Metrics>) -> Self {
        Self { name, store, faults: Arc::new(Faults::new(chaos)), metrics }
    }

    /// Does the work and answers, with whatever fault is set to strike afterwards.
    fn work(&self, command: Command, fails_afterwards: bool, done: Done<Reply>) {
        let (verb, name) = (command.verb, self.name);
        let (faults, metrics) = (Arc::clone(&self.faults), Arc::clone(&self.metrics));
        self.store.submit(LedgerCommand::Branch(command), move |answer| {
            let reply = match answer {
                Ok(LedgerReply::Branch { reply, repaired }) => {
                    if repaired {
                        metrics.repaired(name);
                        tracing::error!(service = %name,
                            "a commit found no prepared branch and captured anew: this store has lost data");
                    }
                    reply
                }
                Ok(_) | Err(_) => Reply::Unknown(Unknown::Failed),
            };
            let failed = Reply::Unknown(Unknown::Failed);
            match faults.strike(Moment::After, verb) {
                None => done(if fails_afterwards { failed } else { reply }),
                Some(Fault::Crash) => crash(),
                Some(Fault::Delay { ms }) => later(ms, move || done(if fails_afterwards { failed } else { reply })),
                Some(Fault::Error | Fault::ErrorAfterwards) => done(failed),
            }
        });
    }

    /// Asks the log about branches that have been open for long, and does as it says.
    pub fn terminate_old(&self, engine: &Arc<Engine>, now: Timestamp) {
        let is_old = move |id: &BranchId, state| {
            let age = now.since(id.transaction.birth());
            age >= if state == BranchState::Executed { EXECUTED_AGE_MS } else { TERMINATION_AGE_MS }
        };
        self.terminate_where(engine, is_old, Box::new(|()| {}));
    }

    /// Asks the log about every prepared branch, however young; `done` is called when that is done as the log said.
    ///
    /// For the start of the only coordinator, when recovery has decided what it found: a prepare may have become durable and its
    /// transaction's stage not. Nobody comes back for such a branch, so there is nothing to wait for.
    pub fn terminate_prepared(&self, engine: &Arc<Engine>, done: Done<()>) {
        self.terminate_where(engine, |_, state| state == BranchState::Prepared, done);
    }

    /// Asks the log about every executed branch: whether it stands.
    pub fn terminate_executed(&self, engine: &Arc<Engine>) {
        self.terminate_where(engine, |_, state| state == BranchState::Executed, Box::new(|()| {}));
    }

    fn terminate_where(&self, engine: &Arc<Engine>, wanted: impl Fn(&BranchId, BranchState) -> bool, done: Done<()>) {
        let look = |ledger: &Ledger| -> Vec<(BranchId, BranchState)> {
            let open = ledger.open_branches().filter(|(id, state)| wanted(id, *state));
            open.take(MAX_TERMINATION_BATCH).collect()
        };
        let open = self.store.read(look).unwrap_or_default();
        if open.is_empty() {
            return done(());
        }
        let ids: Vec<TransactionId> = open.iter().map(|(id, _)| id.transaction).collect();
        let (store, service) = (self.store.clone(), self.name);
        let answered = move |verdicts: Result<Vec<protocol::log::Verdict>, orchestrator::LogError>| {
            let Ok(verdicts) = verdicts else { return done(()) };
            let (mut retired, mut applied) = (Vec::new(), 0_usize);
            for ((branch, _), verdict) in open.into_iter().zip(verdicts) {
                // What the branch is now, not what it was when the question was asked.
                let state = store.read(|ledger| ledger.get_branch(branch).map(|branch| branch.state));
                let Ok(Some(state)) = state else { continue };
                match terminate(state, verdict) {
                    None => {}
                    Some(Termination::Retire) => retired.push(branch),
                    Some(Termination::Apply(verb)) => {
                        tracing::debug!(%branch, %verb, "the log said what became of a branch that nobody came back for");
                        applied += 1;
                        // The branch is open, so its entries are known: no payload is needed.
                        let command = Command { branch, verb, payload: Payload::EMPTY };
                        store.submit(LedgerCommand::Branch(command), |_| {});
                    }
                }
            }
            if applied > 0 {
                tracing::warn!(%service, branches = applied, "settled branches that nobody came back for, as the log said");
            }
            if !retired.is_empty() {
                store.submit(LedgerCommand::Retire(retired), |_| {});
            }
            done(());
        };
        engine.ask(ids, Box::new(answered));
    }

    /// Forgets final branches beyond what is kept.
    pub fn forget(&self, now: Timestamp) {
        let command = LedgerCommand::Forget {
            born_before: now.minus(RETENTION_MS),
            keep: KEPT_BRANCHES,
            spare_since: now.minus(MIN_RETENTION_MS),
        };
        self.store.submit(command, |_| {});
    }

    /// The price of an item, when what it is read from is durable.
    pub fn price(&self, item: EntityId, done: Done<Option<Option<i64>>>) {
        let look = move |ledger: &Ledger| ledger.account(item).map(|account| account.price);
        self.store.read_durable(look, |found| done(found.ok()));
    }
}

impl Participant for LedgerService {
    fn handle(&self, command: Command, done: Done<Reply>) {
        match self.faults.strike(Moment::Before, command.verb) {
            None => self.work(command, false, done),
            Some(Fault::Crash) => crash(),
            Some(Fault::Delay { ms }) => {
                let service = self.clone();
                later(ms, move || service.work(command, false, done));
            }
            Some(Fault::Error) => done(Reply::Unknown(Unknown::Failed)),
            Some(Fault::ErrorAfterwards) => self.work(command, true, done),
        }
    }
}
