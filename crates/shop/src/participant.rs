//! Stock and payment as participants: a ledger in a store, with its faults.

use std::sync::Arc;

use ledger::{LedgerCommand, LedgerReply};
use orchestrator::{Done, LedgerStore, Participant};
use protocol::{Command, Name, Reply, Unknown};

use crate::faults::{Fault, Faults, Moment, crash, later};
use crate::metrics::Metrics;

/// A service that keeps a ledger, as transactions see it. This is in the way of every checkout: it is generic over its store, which is then
/// called directly.
#[derive(Clone)]
pub struct LedgerParticipant<S> {
    name: Name,
    store: S,
    faults: Arc<Faults>,
    metrics: Arc<Metrics>,
}

impl<S: LedgerStore + Clone> LedgerParticipant<S> {
    /// The service `name` that keeps its ledger in `store`.
    pub fn new(name: Name, store: S, faults: Arc<Faults>, metrics: Arc<Metrics>) -> Self {
        Self { name, store, faults, metrics }
    }

    /// Does the work and answers, with whatever fault is set to strike afterwards.
    fn work(&self, command: Command, fails_afterwards: bool, done: Done<Reply>) {
        let (branch, verb, name) = (command.branch, command.verb, self.name);
        let (faults, metrics) = (Arc::clone(&self.faults), Arc::clone(&self.metrics));
        self.store.submit_unboxed(LedgerCommand::Branch(command), move |answer| {
            let reply = match answer {
                Ok(LedgerReply::Branch { reply, repaired }) => {
                    if repaired {
                        metrics.repaired(name);
                        tracing::error!(participant = %name, transaction = %branch.transaction, step = branch.step,
                            "a commit found no prepared branch and captured anew: this store has lost data");
                    }
                    reply
                }
                Ok(_) | Err(_) => Reply::Unknown(Unknown::Failed),
            };
            let failed = Reply::Unknown(Unknown::Failed);
            match faults.strike(Moment::After, verb) {
                None => done(if fails_afterwards { failed } else { reply }),
                Some(Fault::Crash) => crash(name.as_str(), Moment::After, verb),
                Some(Fault::Delay { ms }) => later(ms, move || done(if fails_afterwards { failed } else { reply })),
                Some(Fault::Error | Fault::ErrorAfterwards) => done(failed),
            }
        });
    }
}

impl<S: LedgerStore + Clone> Participant for LedgerParticipant<S> {
    fn handle(&self, command: Command, done: Done<Reply>) {
        match self.faults.strike(Moment::Before, command.verb) {
            None => self.work(command, false, done),
            Some(Fault::Crash) => crash(self.name.as_str(), Moment::Before, command.verb),
            Some(Fault::Delay { ms }) => {
                let service = self.clone();
                later(ms, move || service.work(command, false, done));
            }
            Some(Fault::Error) => done(Reply::Unknown(Unknown::Failed)),
            Some(Fault::ErrorAfterwards) => self.work(command, true, done),
        }
    }
}
