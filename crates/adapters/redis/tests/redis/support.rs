//! Servers, stores on them, and calls that wait.

use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use ledger::{Account, EntityId, Entry, LedgerCommand, LedgerReply, entries};
use orchestrator::{LedgerAnswer, LedgerAudit, LedgerQuery, LedgerStore, StoreFailure};
use protocol::{BranchId, BranchState, Command, Name, Reply, Timestamp, TransactionId, Verb};
use redis_store::{Durability, Options, Place, RedisLedger};
use servers::redis::{Persistence, Server};

pub(crate) const STOCK: Name = Name::literal("stock");
pub(crate) const LOG: Name = Name::literal("trips");

/// How long an answer may take before it is called lost: longer than a store ever waits for its server.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

pub(crate) fn options(server: &Server) -> Options {
    Options::new(Place::Standalone { address: server.address() })
}

pub(crate) fn in_memory(server: &Server) -> Options {
    Options { durability: Durability::Memory, ..options(server) }
}

pub(crate) fn quick_server() -> Server {
    Server::start(Persistence::None).unwrap()
}

pub(crate) fn open(options: &Options) -> RedisLedger {
    RedisLedger::open(STOCK, options).unwrap()
}

pub(crate) fn begin(store: &dyn LedgerStore, command: LedgerCommand) -> Receiver<Result<LedgerReply, StoreFailure>> {
    let (send, answer) = channel();
    store.submit(command, Box::new(move |reply| _ = send.send(reply)));
    answer
}

pub(crate) fn submit(store: &dyn LedgerStore, command: LedgerCommand) -> Result<LedgerReply, StoreFailure> {
    begin(store, command).recv_timeout(PATIENCE).expect("every command is answered")
}

pub(crate) fn read(store: &dyn LedgerStore, query: LedgerQuery) -> Result<LedgerAnswer, StoreFailure> {
    let (send, answer) = channel();
    store.read(query, Box::new(move |found| _ = send.send(found)));
    answer.recv_timeout(PATIENCE).expect("every question is answered")
}

pub(crate) fn audit(store: &dyn LedgerStore) -> LedgerAudit {
    match read(store, LedgerQuery::Audit) {
        Ok(LedgerAnswer::Audit(found)) => *found,
        other => panic!("asked for an audit, answered {other:?}"),
    }
}

pub(crate) fn branch_id(n: u64) -> BranchId {
    let mut random = [0; 16];
    random[..8].copy_from_slice(&n.to_be_bytes());
    BranchId { transaction: TransactionId::new(Timestamp(1_000 + n), random), step: 0 }
}

pub(crate) fn branch(n: u64, verb: Verb, account: u64, amount: i64) -> LedgerCommand {
    let payload = entries::encode(&[Entry { account: EntityId::number(account), amount }]).unwrap();
    LedgerCommand::Branch(Command { branch: branch_id(n), verb, payload })
}

/// An open store with three accounts that have plenty.
pub(crate) fn seeded(options: &Options) -> RedisLedger {
    let store = open(options);
    let replace = LedgerCommand::Replace { count: 3, available: 1_000_000_000, price: 1 };
    assert_eq!(submit(&store, replace), Ok(LedgerReply::Done));
    store
}

pub(crate) fn account(store: &dyn LedgerStore, n: u64) -> Account {
    match read(store, LedgerQuery::Account(EntityId::number(n))) {
        Ok(LedgerAnswer::Account(Some(account))) => account,
        other => panic!("asked for account {n}, answered {other:?}"),
    }
}

/// Whether a branch was answered that it is in `state`.
pub(crate) fn is_done(told: &Result<LedgerReply, StoreFailure>, state: BranchState) -> bool {
    matches!(told, Ok(LedgerReply::Branch { reply: Reply::Done(told), .. }) if *told == state)
}
