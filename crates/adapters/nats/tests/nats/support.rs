//! Servers, both ends of a way, and participants that do as they are told.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_nats::jetstream;
use nats::{Mode, Nats, NatsTransport, Options, Serving, Storage};
use orchestrator::{Done, Participant, Transport};
use protocol::{BranchId, BranchState, Command, Name, Payload, Reply, Timestamp, TransactionId, Verb};
use servers::nats::Server;
use servers::wait_until;
use tokio::runtime::Runtime;

pub(crate) const STOCK: Name = Name::literal("stock");

/// How long anything may take before it is called lost.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

pub(crate) const CORE: Mode = Mode::Core;
pub(crate) const MEMORY: Mode = Mode::JetStream { storage: Storage::Memory, replicas: 1 };
pub(crate) const FILE: Mode = Mode::JetStream { storage: Storage::File, replicas: 1 };

pub(crate) fn runtime() -> Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap()
}

pub(crate) fn server() -> Server {
    Server::start().unwrap()
}

pub(crate) fn options(server: &Server, instance: &str, mode: Mode) -> Options {
    Options { mode, ..Options::new(Name::new(instance).unwrap(), server.address()) }
}

pub(crate) fn connect(runtime: &Runtime, options: Options) -> Nats {
    runtime.block_on(Nats::connect(options)).unwrap()
}

/// The server as somebody else's client sees it.
pub(crate) fn raw(runtime: &Runtime, server: &Server) -> (async_nats::Client, jetstream::Context) {
    let client = runtime.block_on(async_nats::connect(server.address())).unwrap();
    let _within = runtime.enter();
    (client.clone(), jetstream::new(client))
}

/// One participant and somebody who sends it commands, each with a connection of its own.
pub(crate) struct Way {
    pub(crate) order: Nats,
    pub(crate) transport: Arc<NatsTransport>,
    pub(crate) stock: Nats,
    pub(crate) serving: Option<Serving>,
    pub(crate) runtime: Runtime,
}

impl Way {
    pub(crate) fn new(options: &Options, participant: Arc<dyn Participant>) -> Self {
        let runtime = runtime();
        let stock = connect(&runtime, Options { instance: Name::literal("stock-1"), ..options.clone() });
        let serving = Some(runtime.block_on(stock.serve(STOCK, participant)).unwrap());
        let order = connect(&runtime, options.clone());
        let transport = Arc::new(runtime.block_on(order.transport([STOCK])).unwrap());
        Self { order, transport, stock, serving, runtime }
    }

    pub(crate) fn send(&self, number: u64) -> Receiver<Reply> {
        send(&*self.transport, command(number))
    }

    pub(crate) fn ask(&self, number: u64) -> Reply {
        self.send(number).recv_timeout(PATIENCE).expect("every command is answered")
    }

    /// Sends commands, numbered from `from`, one after the other, until one is done.
    pub(crate) fn until_done(&self, from: u64) -> bool {
        let mut number = from;
        wait_until(PATIENCE, || {
            number += 1;
            self.ask(number) == DONE
        })
    }
}

pub(crate) const DONE: Reply = Reply::Done(BranchState::Prepared);

pub(crate) fn branch_id(number: u64) -> BranchId {
    let mut random = [0; 16];
    random[..8].copy_from_slice(&number.to_be_bytes());
    BranchId { transaction: TransactionId::new(Timestamp(1_000), random), step: 0 }
}

pub(crate) fn command(number: u64) -> Command {
    Command { branch: branch_id(number), verb: Verb::Prepare, payload: Payload::from(&number.to_be_bytes()[..]) }
}

pub(crate) fn number_of(command: &Command) -> u64 {
    u64::from_be_bytes(command.payload.as_slice().try_into().unwrap())
}

pub(crate) fn send(transport: &dyn Transport, command: Command) -> Receiver<Reply> {
    let (send, heard) = channel();
    transport.send(&STOCK, command, Box::new(move |reply| _ = send.send(reply)));
    heard
}

/// Counts how often each command comes, and does with it as it is told.
pub(crate) struct Doing<F> {
    pub(crate) seen: Mutex<BTreeMap<u64, u64>>,
    what: F,
}

impl<F: Fn(u64, Done<Reply>) + Send + Sync + 'static> Doing<F> {
    pub(crate) fn new(what: F) -> Arc<Self> {
        Arc::new(Self { seen: Mutex::default(), what })
    }

    pub(crate) fn times(&self, number: u64) -> u64 {
        self.seen.lock().unwrap().get(&number).copied().unwrap_or(0)
    }

    pub(crate) fn total(&self) -> u64 {
        self.seen.lock().unwrap().values().sum()
    }
}

impl<F: Fn(u64, Done<Reply>) + Send + Sync + 'static> Participant for Doing<F> {
    fn handle(&self, command: Command, done: Done<Reply>) {
        let number = number_of(&command);
        *self.seen.lock().unwrap().entry(number).or_default() += 1;
        (self.what)(number, done);
    }
}

/// A participant that says yes at once.
pub(crate) fn willing() -> Arc<Doing<impl Fn(u64, Done<Reply>) + Send + Sync + 'static>> {
    Doing::new(|_, done: Done<Reply>| done(DONE))
}

pub(crate) fn read(counter: &AtomicU64) -> u64 {
    counter.load(Ordering::Relaxed)
}

/// Waits until a counter is at least `least`.
pub(crate) fn reaches(counter: &AtomicU64, least: u64) -> bool {
    wait_until(PATIENCE, || read(counter) >= least)
}
