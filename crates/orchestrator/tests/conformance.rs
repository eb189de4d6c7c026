//! The adapters in memory pass the suites.

use std::sync::Arc;

use ledger::EntityId;
use orchestrator::memory::{MemoryLedger, MemoryLog};
use orchestrator::{InProcess, conformance};

#[test]
fn the_log_in_memory() {
    conformance::log(|| Arc::new(MemoryLog::default()));
}

#[test]
fn the_ledger_in_memory() {
    conformance::ledger_participant(|| Arc::new(MemoryLedger::with_accounts([(EntityId::number(1), 1)])));
}

#[test]
fn the_ledger_store_in_memory() {
    conformance::ledger_store(|| Arc::new(MemoryLedger::default()));
}

#[test]
fn the_transport_within_a_process() {
    conformance::transport(|participants| {
        let transport = participants
            .into_iter()
            .fold(InProcess::default(), |transport, (service, participant)| transport.with(service, participant));
        Arc::new(transport)
    });
}
