//! The adapters in memory pass the suites.

use std::sync::Arc;

use ledger::EntityId;
use orchestrator::conformance;
use orchestrator::memory::{MemoryLedger, MemoryLog};

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
