//! An instance: the real engine, its ports, and the calls that it waits for.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::sync::Arc;

use ledger::EntityId;
use orchestrator::{Done, Engine, LogAnswer, LogError, Options};
use protocol::log::{LogCommand, LogReply};
use protocol::{Name, Outcome, Reply, Timestamp, TransactionId, Unknown, Verb};
use shop::checkout::{STOCK, definition};
use shop::orders::Order;

use crate::checkout::Handler;
use crate::conditions::Conditions;
use crate::faults::Moment;
use crate::invariants::{alarms, no_lost_answer, read_your_writes};
use crate::network::{Fate, Node};
use crate::oracle::tells;
use crate::random::Random;
use crate::wires::{Notice, Out, Wires};
use crate::world::{Event, MILLI, Process, Request, Returned, World};

/// How often a busy engine is ticked, and an idle one. Microseconds.
const PULSE: (u64, u64) = (10 * MILLI, 250 * MILLI);
/// How long the way to the log waits for an answer at most. Microseconds.
const LOG_PATIENCE: (u64, u64) = (300 * MILLI, 3_000 * MILLI);
/// How long the way to a participant does. Microseconds.
const PARTICIPANT_PATIENCE: (u64, u64) = (100 * MILLI, 1_500 * MILLI);

/// A call that an instance waits for.
pub(crate) enum Pending {
    Log(Done<Result<LogReply, LogError>>),
    Read(Done<Result<LogAnswer, LogError>>),
    Branch(Done<Reply>),
    /// A checkout reads its order.
    Order(u64),
}

/// An instance: alive, or down.
pub(crate) struct Instance {
    pub(crate) name: Name,
    pub(crate) incarnation: u64,
    pub(crate) engine: Option<Arc<Engine>>,
    pub(crate) wires: Arc<Wires>,
    pub(crate) pending: BTreeMap<u64, Pending>,
    pub(crate) handlers: BTreeMap<u64, Handler>,
    /// It stands still until then.
    pub(crate) stalled_until: u64,
    /// Its clock: how far it is ahead, milliseconds; and how much it gains in a million.
    offset: i64,
    drift: i64,
    /// Requests to the orders arrive one behind another: the latest arrival.
    link: u64,
    /// When it first released a transaction's branches, by its own clock.
    releases: BTreeMap<TransactionId, Timestamp>,
    /// Open orders as it saw them last, and in which incarnation of the orders.
    pub(crate) seen: BTreeMap<EntityId, (Order, u64)>,
}

impl Instance {
    pub(crate) fn new(number: usize, conditions: &Conditions, random: &mut Random) -> Self {
        const NAMES: [Name; 3] = [Name::literal("shop-0"), Name::literal("shop-1"), Name::literal("shop-2")];
        let skew = conditions.skew;
        Self {
            name: NAMES[number % NAMES.len()],
            incarnation: 0,
            engine: None,
            wires: Arc::default(),
            pending: BTreeMap::new(),
            handlers: BTreeMap::new(),
            stalled_until: 0,
            offset: random.between(0, 2 * skew) as i64 - skew as i64,
            drift: if skew == 0 { 0 } else { random.below(2_001) as i64 - 1_000 },
            link: 0,
            releases: BTreeMap::new(),
            seen: BTreeMap::new(),
        }
    }

    /// The process ends: nothing of its memory is left, and nobody is called back.
    pub(crate) fn stop(&mut self) {
        self.wires.cut();
        self.incarnation += 1;
        self.handlers.clear();
        self.releases.clear();
        self.seen.clear();
        drop(std::mem::take(&mut self.pending));
        self.engine = None;
    }
}

impl World {
    pub(crate) fn process(&self, instance: usize) -> Process {
        Process { instance, incarnation: self.instances[instance].incarnation }
    }

    /// The time by an instance's own clock.
    pub(crate) fn clock_of(&self, instance: usize) -> Timestamp {
        let instance = &self.instances[instance];
        let elapsed = (self.schedule.now() / MILLI) as i64;
        let off = instance.offset + elapsed * instance.drift / 1_000_000;
        Timestamp(self.true_time().0.saturating_add_signed(off))
    }

    /// Starts an instance's process.
    pub(crate) fn start_instance(&mut self, number: usize) {
        if self.instances[number].engine.is_some() {
            return;
        }
        let wires: Arc<Wires> = Arc::default();
        let mut checkout = definition(self.conditions.protocol);
        checkout.order = self.conditions.order;
        checkout.recovery = self.conditions.recovery;
        checkout.pacing = self.conditions.pacing;
        let options = Options {
            instance: self.instances[number].name,
            lease: protocol::limits::LEASE_MS,
            in_flight: self.conditions.in_flight,
            queued: 2,
            queue_deadline: 500,
            unsettled: self.conditions.unsettled,
            seed: self.random.next(),
        };
        let (log, transport, clock, observer) = (wires.clone(), wires.clone(), wires.clone(), wires.clone());
        let engine = Engine::new(options, vec![checkout], log, transport, clock, observer)
            .expect("the shop's own definition works");
        let instance = &mut self.instances[number];
        instance.wires = wires;
        instance.engine = Some(engine);
        instance.stalled_until = 0;
        instance.link = 0;
        self.note(Node::Instance(number), |_| "starts".to_owned());
        self.register(number);
        let process = self.process(number);
        self.after(PULSE.0, Event::Tick(process));
    }

    pub(crate) fn register(&mut self, number: usize) {
        self.engine(number, |engine, wires| {
            engine.register(wires.notify(|result: Result<(), LogError>| Notice::Registered(result.is_ok())));
        });
    }

    /// Does something with a running engine, and carries out what it wants.
    pub(crate) fn engine(&mut self, number: usize, act: impl FnOnce(&Arc<Engine>, &Arc<Wires>)) {
        let now = self.clock_of(number);
        let micros = self.schedule.now();
        let instance = &self.instances[number];
        let (Some(engine), wires) = (instance.engine.clone(), Arc::clone(&instance.wires)) else { return };
        wires.set_clock(now, micros);
        let node = Node::Instance(number);
        wires.set_cut_off([0, 1].iter().all(|ledger| self.network.is_cut(node, Node::Ledger(*ledger), micros)));
        act(&engine, &wires);
        drop(engine);
        for out in wires.take() {
            self.carry_out(number, now, out);
        }
    }

    /// Whether this life of an instance is still going on. If it stalls, the event is put off to when it wakes.
    fn reaches(&mut self, process: Process, event: impl FnOnce() -> Event) -> bool {
        let instance = &self.instances[process.instance];
        if instance.engine.is_none() || instance.incarnation != process.incarnation {
            return false;
        }
        let until = instance.stalled_until;
        if until > self.schedule.now() {
            self.schedule.in_order(until, event());
            return false;
        }
        true
    }

    pub(crate) fn is_stalled(&self, number: usize) -> bool {
        self.instances[number].stalled_until > self.schedule.now()
    }

    pub(crate) fn on_tick(&mut self, process: Process) {
        if !self.reaches(process, || Event::Tick(process)) {
            return;
        }
        let mut pulse = PULSE.1;
        self.engine(process.instance, |engine, _| {
            engine.tick();
            if engine.is_busy() {
                pulse = PULSE.0;
            }
        });
        self.after(pulse, Event::Tick(process));
    }

    pub(crate) fn on_poll(&mut self, process: Process, handler: u64) {
        if self.reaches(process, || Event::Poll(process, handler)) {
            self.read_order(process.instance, handler);
        }
    }

    pub(crate) fn on_return(&mut self, process: Process, call: u64, returned: Returned) {
        let instance = &self.instances[process.instance];
        if instance.incarnation != process.incarnation || !instance.pending.contains_key(&call) {
            return;
        }
        let until = instance.stalled_until;
        if until > self.schedule.now() {
            self.schedule.in_order(until, Event::Return(process, call, returned));
            return;
        }
        let number = process.instance;
        let Some(pending) = self.instances[number].pending.remove(&call) else { return };
        let nobody = |why: &str| LogError(why.to_owned());
        match (pending, returned) {
            (Pending::Log(done), Returned::Log(reply)) => self.engine(number, |_, _| done(Ok(reply))),
            (Pending::Read(done), Returned::Read(answer)) => self.engine(number, |_, _| done(Ok(answer))),
            (Pending::Branch(done), Returned::Branch(reply)) => self.engine(number, |_, _| done(reply)),
            (Pending::Order(handler), Returned::Order(order, over)) => self.on_order(number, handler, order, over),
            (Pending::Log(done), _) => self.engine(number, |_, _| done(Err(nobody("no answer")))),
            (Pending::Read(done), _) => self.engine(number, |_, _| done(Err(nobody("no answer")))),
            (Pending::Branch(done), Returned::Unreachable) => {
                self.engine(number, |_, _| done(Reply::Unknown(Unknown::Unreachable)));
            }
            (Pending::Branch(done), _) => self.engine(number, |_, _| done(Reply::Unknown(Unknown::Timeout))),
            (Pending::Order(handler), _) => self.respond(number, handler, "unavailable"),
        }
    }

    /// Opens a call: it comes back with an answer, or with none when patience is over.
    pub(crate) fn call(&mut self, number: usize, pending: Pending) -> u64 {
        let (from, to) = if matches!(pending, Pending::Branch(_)) { PARTICIPANT_PATIENCE } else { LOG_PATIENCE };
        let call = self.serial();
        self.instances[number].pending.insert(call, pending);
        let patience = self.random.between(from, to);
        let process = self.process(number);
        self.after(patience, Event::Return(process, call, Returned::TimedOut));
        call
    }

    /// Sends a request to the orders, behind those sent before.
    pub(crate) fn request(&mut self, number: usize, request: Request) {
        let node = Node::Instance(number);
        match self.network.fate(node, Node::Orders, self.schedule.now(), &self.conditions, &mut self.random) {
            Fate::Comes(after) => {
                let at = (self.schedule.now() + after).max(self.instances[number].link + 1);
                self.instances[number].link = at;
                let process = self.process(number);
                self.schedule.in_order(at, Event::Request(process, request));
            }
            Fate::Lost => self.note(node, |_| format!("lost on the way to the orders: {request:?}")),
        }
    }

    fn carry_out(&mut self, number: usize, now: Timestamp, out: Out) {
        let node = Node::Instance(number);
        match out {
            Out::Append(command, done) => {
                if let LogCommand::Stage { transaction, .. } = &command {
                    self.oracle.staging(transaction);
                }
                let call = self.call(number, Pending::Log(done));
                self.request(number, Request::Append(command, call));
            }
            Out::Decide(command, readable, durable) => {
                let readable = self.call(number, Pending::Log(readable));
                let durable = self.call(number, Pending::Log(durable));
                self.request(number, Request::Decide(command, readable, durable));
            }
            Out::Read(query, done) => {
                let call = self.call(number, Pending::Read(done));
                self.request(number, Request::Read(query, call));
            }
            Out::Send(service, command, done) => {
                let mut released = false;
                if matches!(command.verb, Verb::Abort | Verb::Compensate)
                    && let Entry::Vacant(first) = self.instances[number].releases.entry(command.branch.transaction)
                {
                    first.insert(now);
                    released = true;
                }
                let participant = usize::from(service != STOCK);
                let call = self.call(number, Pending::Branch(done));
                let process = self.process(number);
                let again = !self.calm && self.random.chance(self.conditions.duplicate);
                let command_again = command.clone();
                if self.send(node, Node::Ledger(participant), Event::Command(participant, command, process, call)) {
                    self.commands_under_way += 1;
                }
                if again {
                    let late = if self.random.chance(300) { 25_000 } else { 800 };
                    let after = self.random.between(1, late) * MILLI;
                    self.commands_under_way += 1;
                    self.after(after, Event::Command(participant, command_again, process, call));
                }
                self.strike(released.then_some(Moment::Released(number)));
            }
            Out::Notice(notice) => self.on_notice(number, now, notice),
        }
    }

    fn on_notice(&mut self, number: usize, now: Timestamp, notice: Notice) {
        let node = Node::Instance(number);
        match notice {
            Notice::Registered(true) => self.note(node, |_| "has registered".to_owned()),
            Notice::Registered(false) => {
                // As a process does whose orchestrator does not start.
                self.note(node, |_| "could not register, and starts anew".to_owned());
                self.instances[number].stop();
                let after = self.random.between(50, 500) * MILLI;
                self.after(after, Event::Start(node));
            }
            Notice::Executed(handler, executed) => self.on_executed(number, handler, executed),
            Notice::Watched(handler, id, outcome) => self.on_outcome(number, handler, id, &outcome),
            Notice::Verdicts { asker, verdicts: Some(verdicts) } => {
                self.told_participant(&asker, &verdicts);
                self.send(node, Node::Ledger(asker.participant), Event::Verdicts(asker, verdicts));
            }
            Notice::Verdicts { verdicts: None, .. } => {}
            Notice::Answered(id, outcome) => self.on_outcome_answered(number, now, id, &outcome),
            Notice::Alarm(what) => {
                self.note(node, |_| format!("ALARM: {what}"));
                self.check(alarms::raised(what));
            }
            Notice::Other(what) => self.note(node, |_| what),
        }
    }

    /// An engine answers: what it says must be so, and stay so.
    fn on_outcome_answered(&mut self, number: usize, now: Timestamp, id: TransactionId, outcome: &Outcome) {
        self.note(Node::Instance(number), |_| format!("answers of {id}: {outcome:?}"));
        let Some(took_effect) = tells(outcome) else { return };
        let released = self.instances[number].releases.get(&id);
        let waited_out = released.is_none_or(|at| now.since(*at) >= self.conditions.pacing.release_wait);
        let check = read_your_writes::answered(&self.oracle, &self.view(), id, took_effect, waited_out);
        self.check(check);
        let check = no_lost_answer::told(&mut self.oracle, id, took_effect);
        self.check(check);
    }

    pub(crate) fn order_request(&mut self, number: usize, order: EntityId, handler: u64) {
        let call = self.call(number, Pending::Order(handler));
        self.request(number, Request::Order(order, call));
    }
}
