//! What happens at the databases: commands, flushes, sweeps.

use std::sync::Arc;

use ledger::{Change, LedgerCommand, LedgerReply, Termination, terminate};
use orchestrator::{LogError, answer};
use protocol::limits::RETENTION_MS;
use protocol::log::{LogCommand, LogReply, StageRefusal, Verdict};
use protocol::simulation::{Mutation, mutated};
use protocol::{BranchId, BranchState, Command, Payload, Refusal, Reply, Timestamp, Transaction};
use shop::checkout::Claim;
use shop::orders::{Order, OrdersCommand, OrdersReply, refusals};

use crate::database::{Database, Machine};
use crate::faults::Moment;
use crate::invariants::{
    alarms, atomicity, by_hand, conservation, fencing, idempotency, no_double_charge, one_decision, order_state,
    replaced,
};
use crate::network::Node;
use crate::wires::{Asker, Notice};
use crate::world::{Event, LedgerWaiter, MILLI, OrdersWaiter, Process, Request, Returned, World};

/// How often a participant sweeps. Microseconds.
const SWEEP_EVERY: u64 = 200 * MILLI;
/// How often the orders forget. Microseconds.
const FORGET_EVERY: u64 = 500 * MILLI;
/// A version has so many bits; in a claim, the incarnation of the orders in which it was seen stands above them.
pub(crate) const VERSION_BITS: u32 = 53;
const NAMES: [&str; 2] = ["stock", "payment"];

impl World {
    fn flush_time(&mut self) -> u64 {
        let longest = self.conditions.flush;
        let longest = if self.calm { longest.min(20_000) } else { longest };
        self.random.between(1, longest)
    }

    fn flush_orders(&mut self) {
        if self.orders.start_flush() {
            let (after, incarnation) = (self.flush_time(), self.orders.incarnation());
            self.after(after, Event::Flushed(Node::Orders, incarnation));
        }
    }

    fn flush_ledger(&mut self, participant: usize) {
        if self.ledgers[participant].start_flush() {
            let (after, incarnation) = (self.flush_time(), self.ledgers[participant].incarnation());
            self.after(after, Event::Flushed(Node::Ledger(participant), incarnation));
        }
    }

    /// Carries a command out at the orders, under the oracle's eyes.
    pub(crate) fn apply_orders(&mut self, command: &OrdersCommand) -> OrdersReply {
        let before = match command {
            OrdersCommand::Log(command) => Some(fencing::before(self.orders.applied().transactions(), command)),
            _ => None,
        };
        let (reply, changed) = self.orders.apply(command);
        self.note(Node::Orders, |_| match command {
            OrdersCommand::Log(command) => format!("{} → {reply:?}", brief(command)),
            other => format!("{other:?} → {reply:?}"),
        });
        if let (Some(before), OrdersCommand::Log(command), OrdersReply::Log(reply)) = (before, command, &reply) {
            self.check(fencing::after(&before, command, reply, changed));
        }
        if let OrdersCommand::Log(LogCommand::Forget { .. }) = command {
            let check = by_hand::kept(&self.oracle, self.orders.applied().transactions());
            self.check(check);
        }
        if changed {
            let check = order_state::orders(&self.oracle, self.orders.applied(), command);
            self.check(check);
        }
        self.flush_orders();
        reply
    }

    pub(crate) fn on_request(&mut self, process: Process, request: Request) {
        if !self.orders.is_up() {
            let calls = match request {
                Request::Append(_, call) | Request::Read(_, call) | Request::Order(_, call) => vec![call],
                Request::Decide(_, readable, durable) => vec![readable, durable],
            };
            for call in calls {
                self.send(
                    Node::Orders,
                    Node::Instance(process.instance),
                    Event::Return(process, call, Returned::Unreachable),
                );
            }
            return;
        }
        match request {
            Request::Append(command, call) => {
                let moment = matches!(command, LogCommand::Stage { .. }).then_some(Moment::Staged(process.instance));
                let reply = match self.seen_here(command) {
                    Ok(command) => self.log(command),
                    Err(refusal) => Some(LogReply::StageRefused(StageRefusal::Application(refusal))),
                };
                if let Some(reply) = reply {
                    self.when_orders_durable(OrdersWaiter::Return(process, call, Returned::Log(reply)));
                }
                self.strike(moment);
            }
            Request::Decide(command, readable, durable) => {
                if let Some(reply) = self.log(command) {
                    let event = Event::Return(process, readable, Returned::Log(reply.clone()));
                    self.send(Node::Orders, Node::Instance(process.instance), event);
                    self.when_orders_durable(OrdersWaiter::Return(process, durable, Returned::Log(reply)));
                }
                self.strike(Some(Moment::Decided(process.instance)));
            }
            Request::Read(query, call) => {
                let found = answer(self.orders.applied().transactions(), query);
                self.when_orders_durable(OrdersWaiter::Return(process, call, Returned::Read(found)));
            }
            Request::Order(order, call) => {
                let found = self.orders.applied().order(order).cloned();
                let paid = found.as_ref().is_some_and(Order::is_paid);
                let returned = Returned::Order(found, self.orders.incarnation());
                // An order that is read as paid by a saga is paid only once that is durable: the read waits, like every answer. Others are
                // looked at as they are, for something durable follows.
                if paid {
                    self.when_orders_durable(OrdersWaiter::Return(process, call, returned));
                } else {
                    self.send(Node::Orders, Node::Instance(process.instance), Event::Return(process, call, returned));
                }
            }
        }
    }

    /// Takes the incarnation in which an order was seen out of its claim. Refuses the claim of what was seen in an earlier one.
    fn seen_here(&mut self, command: LogCommand) -> Result<LogCommand, Refusal> {
        let LogCommand::Stage { writer, transaction } = command else { return Ok(command) };
        let Claim { order, version } = Claim::decode(&transaction.context)?;
        let (over, version) = (version >> VERSION_BITS, version & ((1 << VERSION_BITS) - 1));
        let known = self.orders.applied().transactions().get(transaction.id).is_some();
        if over != self.orders.incarnation() && !known {
            self.note(Node::Orders, |_| format!("{} claims what was seen before a crash", transaction.id));
            if !mutated(Mutation::ClaimOutlivesConnection) {
                return Err(Refusal::new(refusals::ORDER_CHANGED, ""));
            }
        }
        let context = Claim { order, version }.encode().unwrap_or(Payload::EMPTY);
        let transaction = Arc::new(Transaction { context, ..Transaction::clone(&transaction) });
        Ok(LogCommand::Stage { writer, transaction })
    }

    fn log(&mut self, command: LogCommand) -> Option<LogReply> {
        match self.apply_orders(&OrdersCommand::Log(command)) {
            OrdersReply::Log(reply) => Some(reply),
            _ => None,
        }
    }

    pub(crate) fn on_edit(&mut self, client: usize, request: u64, command: &OrdersCommand) {
        if !self.orders.is_up() {
            return;
        }
        let reply = self.apply_orders(command);
        let done = matches!(reply, OrdersReply::Created(_) | OrdersReply::Total(_));
        let keyed = key_of(command).filter(|_| done).map(|key| (key, format!("{reply:?}")));
        let status = if done { "edited" } else { "edit refused" };
        self.when_orders_durable(OrdersWaiter::Answered { client, request, status, keyed });
    }

    fn when_orders_durable(&mut self, waiter: OrdersWaiter) {
        if let Some(waiter) = self.orders.wait(waiter) {
            self.answer_from_orders(waiter);
        }
    }

    fn answer_from_orders(&mut self, waiter: OrdersWaiter) {
        match waiter {
            OrdersWaiter::Return(process, call, returned) => {
                let to = Node::Instance(process.instance);
                self.send(Node::Orders, to, Event::Return(process, call, returned));
            }
            OrdersWaiter::Answered { client, request, status, keyed } => {
                if let Some((key, answer)) = keyed {
                    let check = idempotency::answered(&mut self.oracle, &key, answer);
                    self.check(check);
                }
                self.send(Node::Orders, Node::Clients, Event::Answered { client, request, status: Some(status) });
            }
        }
    }

    /// Carries a command out at a participant, under the oracle's eyes.
    pub(crate) fn apply_ledger(&mut self, participant: usize, command: &LedgerCommand) -> LedgerReply {
        let branch = match command {
            LedgerCommand::Branch(command) => Some(command.branch),
            _ => None,
        };
        let state = |ledger: &ledger::Ledger| branch.and_then(|id| ledger.get_branch(id)).map(|found| found.state);
        let before = state(self.ledgers[participant].applied());
        let (reply, changed) = self.ledgers[participant].apply(command);
        let after = state(self.ledgers[participant].applied());
        if let LedgerCommand::Branch(command) = command {
            self.note(Node::Ledger(participant), |_| format!("{} {} → {reply:?}", command.verb, command.branch));
            self.check(alarms::reply(NAMES[participant], command, &reply));
            let check = atomicity::moved(&self.oracle, command.branch, before, after);
            self.check(check);
        } else if changed {
            self.note(Node::Ledger(participant), |_| format!("{command:?} → {reply:?}"));
        }
        if changed {
            let check = conservation::ledger(NAMES[participant], self.ledgers[participant].applied());
            self.check(check);
        }
        self.flush_ledger(participant);
        reply
    }

    pub(crate) fn on_command(&mut self, participant: usize, command: &Command, process: Process, call: u64) {
        let (node, from) = (Node::Ledger(participant), Node::Instance(process.instance));
        if !self.ledgers[participant].is_up() {
            self.send(node, from, Event::Return(process, call, Returned::Unreachable));
            return;
        }
        let reply = match self.apply_ledger(participant, &LedgerCommand::Branch(command.clone())) {
            LedgerReply::Branch { reply, .. } => reply,
            _ => Reply::Unknown(protocol::Unknown::Failed),
        };
        if let Some(waiter) = self.ledgers[participant].wait(LedgerWaiter::Branch { process, call, reply }) {
            self.answer_from_ledger(participant, waiter);
        }
        self.strike(Some(Moment::Applied(participant, process.instance)));
    }

    pub(crate) fn answer_from_ledger(&mut self, participant: usize, waiter: LedgerWaiter) {
        match waiter {
            LedgerWaiter::Branch { process, call, reply } => {
                let event = Event::Return(process, call, Returned::Branch(reply));
                self.send(Node::Ledger(participant), Node::Instance(process.instance), event);
            }
            LedgerWaiter::Deposit { number, reply } => self.confirm(participant, number, &reply),
        }
    }

    pub(crate) fn on_flushed(&mut self, node: Node, incarnation: u64) {
        match node {
            Node::Orders if incarnation == self.orders.incarnation() => {
                let (commands, ready) = self.orders.end_flush();
                self.orders_are_durable(&commands);
                self.flush_orders();
                for waiter in ready {
                    self.answer_from_orders(waiter);
                }
            }
            Node::Ledger(participant) if incarnation == self.ledgers[participant].incarnation() => {
                let (commands, ready) = self.ledgers[participant].end_flush();
                self.ledger_is_durable(participant, &commands);
                self.flush_ledger(participant);
                for waiter in ready {
                    self.answer_from_ledger(participant, waiter);
                }
            }
            _ => {}
        }
    }

    /// These commands to the orders have become durable: what they decided is decided.
    pub(crate) fn orders_are_durable(&mut self, commands: &[OrdersCommand]) {
        for command in commands {
            if let Some(key) = key_of(command) {
                let check = idempotency::took_effect(&mut self.oracle, &key);
                self.check(check);
            }
            if let OrdersCommand::Replace { count, .. } = command {
                replaced::orders_are_gone(&mut self.oracle, *count);
            }
            let OrdersCommand::Log(command) = command else { continue };
            if let LogCommand::Resolve { id, resolution } = command {
                by_hand::settled(&mut self.oracle, BranchId { transaction: *id, step: resolution.step });
            }
            let mut ids = match command {
                LogCommand::Decide { id, .. } => vec![*id],
                LogCommand::Ask { ids, .. } | LogCommand::Finish { ids, .. } => ids.clone(),
                _ => continue,
            };
            ids.retain(|id| {
                self.orders.durable().transactions().get(*id).is_some_and(|record| record.decided.is_some())
            });
            for id in ids {
                let record = self.orders.durable().transactions().get(id);
                let (Some(commit), finished) = (
                    record.and_then(|record| record.decision()).map(protocol::Decision::is_commit),
                    record.is_some_and(|record| record.finished.is_some() && record.transaction.is_some()),
                ) else {
                    continue;
                };
                let check = one_decision::seen(&mut self.oracle, id, commit, "the log, on disk,");
                self.check(check);
                if commit {
                    let check = no_double_charge::committed(&mut self.oracle, id);
                    self.check(check);
                }
                if finished && matches!(command, LogCommand::Finish { .. }) {
                    let check = atomicity::finished(&self.oracle, &self.view(), id);
                    self.check(check);
                }
            }
        }
    }

    /// These commands to a ledger have become durable.
    fn ledger_is_durable(&mut self, participant: usize, commands: &[LedgerCommand]) {
        for command in commands {
            match command {
                LedgerCommand::Change { change, key } => {
                    if let Change::Credit { amount, .. } = change {
                        self.oracle.credited[participant] += i128::from(*amount);
                    }
                    if let Some(key) = key {
                        let check = idempotency::took_effect(&mut self.oracle, &key.key);
                        self.check(check);
                    }
                }
                LedgerCommand::Replace { count, available, .. } => {
                    self.oracle.credited[participant] += i128::from(*count) * i128::from(*available);
                }
                LedgerCommand::Branch(_) | LedgerCommand::Retire(_) | LedgerCommand::Forget { .. } => {}
            }
        }
    }

    /// A participant's clock.
    fn participant_clock(&self, participant: usize) -> Timestamp {
        let skew = self.conditions.skew / 2;
        let now = self.true_time();
        if participant == 0 { now.plus(skew) } else { now.minus(skew) }
    }

    pub(crate) fn on_sweep(&mut self, participant: usize) {
        self.after(SWEEP_EVERY, Event::Sweep(participant));
        if !self.ledgers[participant].is_up() {
            return;
        }
        let now = self.participant_clock(participant);
        let (keep, spare_since) = (self.conditions.keep, now.minus(self.conditions.retention));
        let forget = LedgerCommand::Forget { born_before: now.minus(RETENTION_MS), keep, spare_since };
        self.apply_ledger(participant, &forget);
        let ages = (self.conditions.termination_age, self.conditions.executed_age);
        let old = |(id, state): &(protocol::BranchId, BranchState)| {
            let age = if *state == BranchState::Prepared { ages.0 } else { ages.1 };
            now.since(id.transaction.birth()) >= age
        };
        let branches: Vec<_> = self.ledgers[participant].applied().open_branches().filter(old).collect();
        if branches.is_empty() {
            return;
        }
        let asker = Asker { participant, incarnation: self.ledgers[participant].incarnation(), branches };
        let instance = self.random.index(self.instances.len());
        self.send(Node::Ledger(participant), Node::Instance(instance), Event::Question(instance, asker));
    }

    pub(crate) fn on_question(&mut self, instance: usize, asker: Asker) {
        if self.is_stalled(instance) {
            return;
        }
        let ids = asker.branches.iter().map(|(id, _)| id.transaction).collect();
        self.engine(instance, |engine, wires| {
            let notice = |result: Result<Vec<Verdict>, LogError>| Notice::Verdicts { asker, verdicts: result.ok() };
            engine.ask(ids, wires.notify(notice));
        });
    }

    /// What the log says to a participant is a decision that was seen.
    pub(crate) fn told_participant(&mut self, asker: &Asker, verdicts: &[Verdict]) {
        for ((id, _), verdict) in asker.branches.iter().zip(verdicts) {
            let commit = match verdict {
                Verdict::Committed => true,
                Verdict::Aborted => false,
                Verdict::Pending | Verdict::Forgotten => continue,
            };
            let check = one_decision::seen(&mut self.oracle, id.transaction, commit, NAMES[asker.participant]);
            self.check(check);
        }
    }

    pub(crate) fn on_verdicts(&mut self, asker: &Asker, verdicts: &[Verdict]) {
        let participant = asker.participant;
        if !self.ledgers[participant].is_up() || self.ledgers[participant].incarnation() != asker.incarnation {
            return;
        }
        for ((id, _), verdict) in asker.branches.iter().zip(verdicts) {
            // What the branch is now: since it was asked about, the coordinator may have settled it.
            let Some(state) = self.ledgers[participant].applied().get_branch(*id).map(|branch| branch.state) else {
                continue;
            };
            match terminate(state, *verdict) {
                Some(Termination::Apply(verb)) => {
                    let command = Command { branch: *id, verb, payload: Payload::EMPTY };
                    self.apply_ledger(participant, &LedgerCommand::Branch(command));
                }
                Some(Termination::Retire) => {
                    self.apply_ledger(participant, &LedgerCommand::Retire(vec![*id]));
                }
                None => {}
            }
        }
    }

    pub(crate) fn on_forget(&mut self) {
        self.after(FORGET_EVERY, Event::Forget);
        if self.orders.is_up() {
            let now = self.true_time();
            let command = LogCommand::Forget {
                finished_before: now.minus(RETENTION_MS),
                keep: self.conditions.keep,
                spare_since: now.minus(self.conditions.retention),
            };
            self.apply_orders(&OrdersCommand::Log(command));
        }
    }

    /// Crashes a database; of what it had not flushed, a part may have reached the disk all the same.
    pub(crate) fn crash_database(&mut self, node: Node) {
        fn survive<M: Machine, W>(database: &Database<M, W>, random: &mut crate::random::Random) -> usize {
            if random.chance(500) { 0 } else { random.between(0, database.unflushed() as u64) as usize }
        }
        match node {
            Node::Orders if self.orders.is_up() => {
                let count = survive(&self.orders, &mut self.random);
                let lost = self.orders.unflushed() - count;
                self.note(node, |_| format!("crashes; {count} unflushed commands survive, {lost} are lost"));
                let added_to = |command: &OrdersCommand| match command {
                    OrdersCommand::AddItem { order, .. } => Some(*order),
                    _ => None,
                };
                self.bereft = self.orders.behind(count).filter_map(added_to).take(2).collect();
                let survivors = self.orders.crash(count);
                self.orders_are_durable(&survivors);
            }
            Node::Ledger(participant) if self.ledgers[participant].is_up() => {
                let count = survive(&self.ledgers[participant], &mut self.random);
                let lost = self.ledgers[participant].unflushed() - count;
                self.note(node, |_| format!("crashes; {count} unflushed commands survive, {lost} are lost"));
                let survivors = self.ledgers[participant].crash(count);
                self.ledger_is_durable(participant, &survivors);
            }
            _ => {}
        }
    }

    pub(crate) fn restart_database(&mut self, node: Node) {
        let from_snapshot = self.random.chance(500);
        match node {
            Node::Orders if !self.orders.is_up() => {
                self.orders.restart(from_snapshot);
                self.make_up_for_the_lost();
            }
            Node::Ledger(participant) if !self.ledgers[participant].is_up() => {
                self.ledgers[participant].restart(from_snapshot);
            }
            _ => return,
        }
        self.note(node, |_| format!("is up again{}", if from_snapshot { ", from a snapshot" } else { "" }));
    }
}

/// The key under which a change of the orders was sent.
fn key_of(command: &OrdersCommand) -> Option<Arc<str>> {
    match command {
        OrdersCommand::Create { key, .. } | OrdersCommand::AddItem { key, .. } => key.as_ref(),
        OrdersCommand::Remember { key, .. } => Some(key),
        OrdersCommand::Replace { .. }
        | OrdersCommand::Log(_)
        | OrdersCommand::Note(_)
        | OrdersCommand::NoteOutcome { .. } => None,
    }
    .map(|key| Arc::clone(&key.key))
}

/// A command to the log, in few words.
fn brief(command: &LogCommand) -> String {
    match command {
        LogCommand::Stage { writer, transaction } => {
            format!("stage {} by {}@{}", transaction.id, writer.instance, writer.epoch.0)
        }
        LogCommand::Decide { writer, id, decision, .. } => {
            format!("decide {id} {decision:?} by {}@{}", writer.instance, writer.epoch.0)
        }
        LogCommand::Finish { writer, ids, .. } => format!("finish {ids:?} by {}@{}", writer.instance, writer.epoch.0),
        LogCommand::Ask { ids, .. } => format!("asked about {ids:?}"),
        LogCommand::Forget { .. } => "forget".to_owned(),
        other => format!("{other:?}"),
    }
}
