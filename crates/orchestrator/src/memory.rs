//! A log and participants in memory: for examples, tests and trying things out. Nothing survives the process.

use std::sync::Arc;

use ledger::{Change, EntityId, Ledger, LedgerCommand, LedgerReply};
use parking_lot::Mutex;
use protocol::log::{LogCommand, LogReply, LogState};
use protocol::{Command, Reply};

use crate::ledger_store::{LedgerAnswer, LedgerQuery, LedgerStore, StoreFailure, answer_ledger};
use crate::ports::{Done, Log, LogAnswer, LogError, LogQuery, Participant, answer};

/// A log in memory.
#[derive(Debug, Default, Clone)]
pub struct MemoryLog {
    state: Arc<Mutex<LogState>>,
}

impl Log for MemoryLog {
    fn append(&self, command: LogCommand, done: Done<Result<LogReply, LogError>>) {
        let (reply, _) = self.state.lock().apply(&command);
        done(Ok(reply));
    }

    fn decide(
        &self,
        command: LogCommand,
        readable: Done<Result<LogReply, LogError>>,
        durable: Done<Result<LogReply, LogError>>,
    ) {
        let (reply, _) = self.state.lock().apply(&command);
        readable(Ok(reply.clone()));
        durable(Ok(reply));
    }

    fn read(&self, query: LogQuery, done: Done<Result<LogAnswer, LogError>>) {
        let found = answer(&self.state.lock(), query);
        done(Ok(found));
    }
}

/// A participant that keeps a [`Ledger`] in memory.
#[derive(Debug, Default, Clone)]
pub struct MemoryLedger {
    ledger: Arc<Mutex<Ledger>>,
}

impl MemoryLedger {
    /// A ledger with these accounts, each with so much available.
    pub fn with_accounts(accounts: impl IntoIterator<Item = (EntityId, i64)>) -> Self {
        let mut ledger = Ledger::default();
        for (account, amount) in accounts {
            for change in [Change::Open { account, price: 0 }, Change::Credit { account, amount }] {
                ledger.apply(&LedgerCommand::Change { change, key: None });
            }
        }
        Self { ledger: Arc::new(Mutex::new(ledger)) }
    }

    /// Looks at the ledger.
    pub fn read<R>(&self, look: impl FnOnce(&Ledger) -> R) -> R {
        look(&self.ledger.lock())
    }
}

impl LedgerStore for MemoryLedger {
    fn submit(&self, command: LedgerCommand, done: Done<Result<LedgerReply, StoreFailure>>) {
        let (reply, _) = self.ledger.lock().apply(&command);
        done(Ok(reply));
    }

    fn read(&self, query: LedgerQuery, done: Done<Result<LedgerAnswer, StoreFailure>>) {
        let found = answer_ledger(&self.ledger.lock(), &query);
        done(Ok(found));
    }

    fn stopped(&self) -> Option<String> {
        None
    }
}

impl Participant for MemoryLedger {
    fn handle(&self, command: Command, done: Done<Reply>) {
        let (reply, _) = self.ledger.lock().apply(&LedgerCommand::Branch(command));
        match reply {
            LedgerReply::Branch { reply, .. } => done(reply),
            _ => done(Reply::Unknown(protocol::Unknown::Failed)),
        }
    }
}
