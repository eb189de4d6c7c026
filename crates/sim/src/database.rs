//! A database: a state machine, the part of it that is on disk, and the part that a crash forgets.
//!
//! ```text
//!   command ──► applied (readable at once) ──► journal ──flush──► durable
//!                                                │                  │
//!                                  crash: lost ◄─┘                  └─► restart: applied = durable,
//!                                  (or a prefix of it survives unnoticed)         often by way of a snapshot
//! ```
//!
//! Whoever waits for an answer gets it when everything before it is durable, also if the command itself changed nothing.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use ledger::{Keys, Ledger, LedgerCommand, LedgerReply};
use protocol::log::LogState;
use shop::orders::{OrderBook, OrdersCommand, OrdersReply};

/// A deterministic state machine of the system under test.
pub(crate) trait Machine: Clone + Default {
    type Command: Clone;
    type Reply;

    fn apply(&mut self, command: &Self::Command) -> (Self::Reply, bool);

    /// The same state, written to a snapshot and read back.
    fn through_snapshot(&self) -> Self;
}

impl Machine for Ledger {
    type Command = LedgerCommand;
    type Reply = LedgerReply;

    fn apply(&mut self, command: &LedgerCommand) -> (LedgerReply, bool) {
        Ledger::apply(self, command)
    }

    fn through_snapshot(&self) -> Self {
        let picture = self.freeze();
        let accounts = picture.accounts.iter().map(|(id, account)| (*id, *account)).collect();
        let branches = picture.branches.iter().map(|(id, branch)| (*id, branch.clone())).collect();
        let keys = picture.keys.iter().map(|(key, found)| (Arc::clone(key), found.clone())).collect();
        Ledger::thaw(accounts, branches, Keys::thaw(keys), picture.rest)
    }
}

impl Machine for OrderBook {
    type Command = OrdersCommand;
    type Reply = OrdersReply;

    fn apply(&mut self, command: &OrdersCommand) -> (OrdersReply, bool) {
        OrderBook::apply(self, command)
    }

    fn through_snapshot(&self) -> Self {
        let picture = self.freeze();
        let orders = picture.orders.iter().map(|(id, order)| (*id, order.clone())).collect();
        let records = picture.log.records.iter().map(|(id, record)| (*id, record.clone())).collect();
        let instances: BTreeMap<_, _> = picture.log.instances;
        let log = LogState::thaw(records, instances, picture.log.finished, picture.log.floor);
        let keys = picture.keys.iter().map(|(key, found)| (Arc::clone(key), found.clone())).collect();
        OrderBook::thaw(orders, log, Keys::thaw(keys), picture.rest, picture.trail)
    }
}

/// A state machine kept durable. `W` is what is known of whoever waits for a flush.
#[derive(Debug)]
pub(crate) struct Database<M: Machine, W> {
    durable: M,
    applied: M,
    /// Applied, in order, and not durable.
    journal: Vec<M::Command>,
    /// How much of the journal the running flush covers; 0: none is running.
    flushing: usize,
    /// Who waits, each with how many commands must have become durable, ever.
    waiting: VecDeque<(u64, W)>,
    /// How many commands have become durable, ever.
    flushed: u64,
    up: bool,
    incarnation: u64,
}

impl<M: Machine, W> Database<M, W> {
    /// A database that is up and holds a state already durable.
    pub(crate) fn new(state: M) -> Self {
        Self {
            durable: state.clone(),
            applied: state,
            journal: Vec::new(),
            flushing: 0,
            waiting: VecDeque::new(),
            flushed: 0,
            up: true,
            incarnation: 0,
        }
    }

    pub(crate) fn is_up(&self) -> bool {
        self.up
    }

    /// Counts the crashes: what was addressed to an earlier life does not concern this one.
    pub(crate) fn incarnation(&self) -> u64 {
        self.incarnation
    }

    /// What is readable.
    pub(crate) fn applied(&self) -> &M {
        &self.applied
    }

    /// What a crash leaves.
    pub(crate) fn durable(&self) -> &M {
        &self.durable
    }

    /// Carries a command out. It is readable at once.
    pub(crate) fn apply(&mut self, command: &M::Command) -> (M::Reply, bool) {
        let (reply, changed) = self.applied.apply(command);
        if changed {
            self.journal.push(command.clone());
        }
        (reply, changed)
    }

    /// Lets someone wait until all that is applied now is durable; gives them back if it is.
    pub(crate) fn wait(&mut self, who: W) -> Option<W> {
        if self.journal.is_empty() {
            return Some(who);
        }
        self.waiting.push_back((self.flushed + self.journal.len() as u64, who));
        None
    }

    /// Starts a flush if there is anything to flush and none is running.
    pub(crate) fn start_flush(&mut self) -> bool {
        let starts = self.flushing == 0 && !self.journal.is_empty();
        if starts {
            self.flushing = self.journal.len();
        }
        starts
    }

    /// The running flush is done: what became durable, and who need not wait any more.
    pub(crate) fn end_flush(&mut self) -> (Vec<M::Command>, Vec<W>) {
        let count = std::mem::take(&mut self.flushing);
        let commands = self.harden(count);
        let mut ready = Vec::new();
        while self.waiting.front().is_some_and(|(needs, _)| *needs <= self.flushed) {
            ready.extend(self.waiting.pop_front().map(|(_, who)| who));
        }
        (commands, ready)
    }

    fn harden(&mut self, count: usize) -> Vec<M::Command> {
        let commands: Vec<_> = self.journal.drain(..count).collect();
        for command in &commands {
            self.durable.apply(command);
        }
        self.flushed += count as u64;
        commands
    }

    /// How many commands a crash would lose at most.
    pub(crate) fn unflushed(&self) -> usize {
        self.journal.len()
    }

    /// What is lost if so many of those survive.
    pub(crate) fn behind(&self, survive: usize) -> impl Iterator<Item = &M::Command> {
        self.journal.iter().skip(survive)
    }

    /// Everything in memory is gone. The first `survive` of the unflushed commands had reached the disk all the same; they are
    /// returned.
    pub(crate) fn crash(&mut self, survive: usize) -> Vec<M::Command> {
        let survivors = self.harden(survive.min(self.journal.len()));
        self.journal.clear();
        self.flushing = 0;
        self.waiting.clear();
        self.flushed = 0;
        self.up = false;
        self.incarnation += 1;
        survivors
    }

    /// Comes up again with what is on disk.
    pub(crate) fn restart(&mut self, from_snapshot: bool) {
        if from_snapshot {
            self.durable = self.durable.through_snapshot();
        }
        self.applied = self.durable.clone();
        self.up = true;
    }
}
