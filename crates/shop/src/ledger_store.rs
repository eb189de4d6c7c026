//! A ledger in the embedded store, as the orchestrator's port.

use embedded::{Store, StoreError};
use ledger::{Ledger, LedgerCommand, LedgerReply};
use orchestrator::{Done, LedgerAnswer, LedgerQuery, LedgerStore, StoreFailure, answer_ledger};

/// The ledger of a service that runs in one process with its database.
#[derive(Clone, Debug)]
pub struct EmbeddedLedger(pub Store<Ledger>);

fn failure(error: &StoreError) -> StoreFailure {
    match error {
        // What the last batch left behind is known at the next start only.
        StoreError::Stopped { .. } => StoreFailure::Unknown(error.to_string()),
        certain => StoreFailure::NotDone(certain.to_string()),
    }
}

impl LedgerStore for EmbeddedLedger {
    fn submit(&self, command: LedgerCommand, done: Done<Result<LedgerReply, StoreFailure>>) {
        self.submit_unboxed(command, done);
    }

    fn submit_unboxed(
        &self,
        command: LedgerCommand,
        done: impl FnOnce(Result<LedgerReply, StoreFailure>) + Send + 'static,
    ) {
        self.0.submit(command, |answer| done(answer.map_err(|error| failure(&error))));
    }

    fn read(&self, query: LedgerQuery, done: Done<Result<LedgerAnswer, StoreFailure>>) {
        if query == LedgerQuery::Audit {
            // It looks at every account: on a picture, so that nobody waits meanwhile.
            self.0.read_durable(Ledger::clone, move |picture| {
                done(picture.map(|ledger| answer_ledger(&ledger, &query)).map_err(|error| failure(&error)));
            });
        } else {
            let look = move |ledger: &Ledger| answer_ledger(ledger, &query);
            self.0.read_durable(look, |found| done(found.map_err(|error| failure(&error))));
        }
    }

    fn stopped(&self) -> Option<String> {
        self.0.stopped()
    }
}
