//! The world: the machines, what is on its way between them, and the loop that makes one thing happen after another.

use std::collections::BTreeMap;
use std::sync::Arc;

use ledger::{Change, EntityId, Ledger, LedgerCommand, LedgerReply};
use orchestrator::LogAnswer;
use protocol::log::{LogCommand, LogReply, Verdict};
use protocol::{BranchId, BranchState, Command, Reply, Timestamp};
use shop::orders::{Line, Order, OrderBook, OrdersCommand};

use crate::cashier::Deposit;
use crate::client::Client;
use crate::conditions::Conditions;
use crate::database::{Database, Machine};
use crate::history::History;
use crate::instance::Instance;
use crate::invariants::{atomicity, by_hand, idempotency, no_double_charge, no_lost_answer};
use crate::network::{Fate, Network, Node};
use crate::oracle::{Check, Oracle, View, Violation};
use crate::random::Random;
use crate::schedule::Schedule;

/// The simulated clock starts here, so that nothing lies before the beginning of time. Milliseconds.
const DAWN_MS: u64 = 1_000_000_000_000;
/// After the faults, everything must be settled within so much time. Microseconds.
const SETTLING_TIME: u64 = 90_000_000;
/// How often it is looked whether everything is settled. Microseconds.
const INSPECT_EVERY: u64 = 200_000;
pub(crate) const MILLI: u64 = 1_000;

/// One life of an instance.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Process {
    pub(crate) instance: usize,
    pub(crate) incarnation: u64,
}

/// Something that will happen.
#[derive(Debug)]
pub(crate) enum Event {
    /// An instance's timer.
    Tick(Process),
    /// A process starts.
    Start(Node),
    /// It crashes.
    Crash(Node),
    /// An instance's request reaches the orders.
    Request(Process, Request),
    /// An answer, or the lack of one, reaches an instance's call.
    Return(Process, u64, Returned),
    /// A command reaches a participant, and the call it belongs to.
    Command(usize, Command, Process, u64),
    /// A flush is done.
    Flushed(Node, u64),
    /// A participant forgets, and asks about its open branches.
    Sweep(usize),
    /// A participant's question reaches an instance.
    Question(usize, crate::wires::Asker),
    /// Its answer reaches the participant.
    Verdicts(crate::wires::Asker, Vec<Verdict>),
    /// The orders forget.
    Forget,
    /// Somebody changes an account without a transaction.
    TopUp,
    /// The cashier sends a deposit that is not confirmed yet, perhaps again.
    HandIn(u64),
    /// It reaches the participant.
    Deposit(usize, u64, LedgerCommand),
    /// It is confirmed.
    Confirmed(u64),
    /// An operator looks at what is stuck.
    Operate,
    /// Somebody wants a `batch_init`.
    Reseed,
    /// It is tried, for so many times yet.
    Replace(Node, u32),
    /// A client does something.
    Act(usize),
    /// A client's checkout reaches an instance.
    Checkout { instance: usize, client: usize, request: u64, order: EntityId },
    /// A client's change of an order reaches the orders.
    Edit { client: usize, request: u64, command: OrdersCommand },
    /// An answer reaches a client; `None`: it has waited long enough.
    Answered { client: usize, request: u64, status: Option<&'static str> },
    /// A checkout in an instance looks at its order again.
    Poll(Process, u64),
    /// The next fault.
    Fault,
    /// Faults stop.
    Calm,
    /// Is everything settled?
    Inspect,
}

/// What an instance wants of the orders, with the number of the call.
#[derive(Debug)]
pub(crate) enum Request {
    Append(LogCommand, u64),
    /// The calls that wait for it to be readable, and durable.
    Decide(LogCommand, u64, u64),
    Read(orchestrator::LogQuery, u64),
    /// An order, for a checkout.
    Order(EntityId, u64),
}

/// What a call comes back with.
#[derive(Debug)]
pub(crate) enum Returned {
    Log(LogReply),
    Read(LogAnswer),
    Branch(Reply),
    /// An order, and the incarnation of the orders that it was seen in.
    Order(Option<Order>, u64),
    /// No answer in time.
    TimedOut,
    /// The other side refuses connections.
    Unreachable,
}

/// Who waits for the orders to be flushed.
#[derive(Debug)]
pub(crate) enum OrdersWaiter {
    Return(Process, u64, Returned),
    /// A client; and what it is told under which key.
    Answered {
        client: usize,
        request: u64,
        status: &'static str,
        keyed: Option<(Arc<str>, String)>,
    },
}

/// Who waits for a ledger to be flushed.
#[derive(Debug)]
pub(crate) enum LedgerWaiter {
    Branch { process: Process, call: u64, reply: Reply },
    Deposit { number: u64, reply: LedgerReply },
}

/// How a run ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ending {
    /// Every rule was kept, and everything was settled.
    Clean,
    /// A rule was broken.
    Unsafe(Violation),
    /// Something was not settled in time.
    Stuck(String),
}

impl std::fmt::Display for Ending {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Clean => f.write_str("clean"),
            Self::Unsafe(violation) => write!(f, "{} is violated: {}", violation.invariant, violation.what),
            Self::Stuck(what) => write!(f, "not settled in time: {what}"),
        }
    }
}

/// One run.
pub(crate) struct World {
    pub(crate) conditions: Conditions,
    pub(crate) random: Random,
    pub(crate) schedule: Schedule<Event>,
    pub(crate) network: Network,
    pub(crate) instances: Vec<Instance>,
    pub(crate) orders: Database<OrderBook, OrdersWaiter>,
    /// Orders to which items were added that a crash of the orders lost.
    pub(crate) bereft: Vec<EntityId>,
    pub(crate) ledgers: [Database<Ledger, LedgerWaiter>; 2],
    pub(crate) clients: Vec<Client>,
    /// Not confirmed yet.
    pub(crate) deposits: BTreeMap<u64, Deposit>,
    pub(crate) oracle: Oracle,
    pub(crate) history: History,
    pub(crate) calm: bool,
    pub(crate) orders_made: u64,
    pub(crate) serial: u64,
    /// Commands on their way to a participant.
    pub(crate) commands_under_way: u64,
    pub(crate) broken: Option<Violation>,
    calm_since: u64,
}

impl World {
    pub(crate) fn new(seed: u64, adjust: impl FnOnce(&mut Conditions), record: bool) -> Self {
        let mut random = Random::new(seed);
        let mut conditions = Conditions::draw(&mut random);
        adjust(&mut conditions);
        let mut stock = Ledger::default();
        let mut payment = Ledger::default();
        let fill = |ledger: &mut Ledger, count: u64, amount: i64| {
            for account in (0..count).map(EntityId::number) {
                for change in [Change::Open { account, price: 0 }, Change::Credit { account, amount }] {
                    ledger.apply(&LedgerCommand::Change { change, key: None });
                }
            }
        };
        fill(&mut stock, conditions.items, conditions.stock);
        fill(&mut payment, conditions.users, conditions.credit);
        let instances = (0..conditions.instances).map(|n| Instance::new(n, &conditions, &mut random)).collect();
        let clients = (0..conditions.clients).map(|_| Client::new(conditions.operations)).collect();
        let mut world = Self {
            random,
            schedule: Schedule::default(),
            network: Network::default(),
            instances,
            orders: Database::new(OrderBook::default()),
            ledgers: [Database::new(stock), Database::new(payment)],
            clients,
            deposits: BTreeMap::new(),
            oracle: Oracle::default(),
            history: History::new(record),
            calm: false,
            orders_made: 0,
            bereft: Vec::new(),
            serial: 0,
            commands_under_way: 0,
            broken: None,
            calm_since: 0,
            conditions,
        };
        world.oracle.credited = world.view().ledgers.map(|ledger| ledger.totals().credited);
        world.prepare();
        world
    }

    fn prepare(&mut self) {
        let mut book = OrderBook::default();
        for _ in 0..self.conditions.orders {
            for command in self.new_order() {
                Machine::apply(&mut book, &command);
            }
        }
        self.orders = Database::new(book);
        for instance in 0..self.instances.len() {
            self.after(0, Event::Start(Node::Instance(instance)));
        }
        for client in 0..self.clients.len() {
            let after = self.random.between(10, 2_000) * MILLI;
            self.after(after, Event::Act(client));
        }
        for participant in 0..2 {
            self.after(100 * MILLI, Event::Sweep(participant));
        }
        self.after(300 * MILLI, Event::Forget);
        self.after(500 * MILLI, Event::TopUp);
        if self.conditions.operate > 0 {
            self.after(500 * MILLI, Event::Operate);
        }
        if self.conditions.reseed > 0 {
            self.after(1_000 * MILLI, Event::Reseed);
        }
        if self.conditions.fault_every > 0 {
            self.after(500 * MILLI, Event::Fault);
        }
        self.schedule.in_order(self.conditions.fault_until * MILLI, Event::Calm);
    }

    /// The commands that make a new order with a few lines.
    pub(crate) fn new_order(&mut self) -> Vec<OrdersCommand> {
        let order = EntityId::number(self.orders_made);
        self.orders_made += 1;
        let user = EntityId::number(self.random.below(self.conditions.users));
        let mut commands = vec![OrdersCommand::Create { order, user, key: None }];
        for _ in 0..self.random.between(0, 3) {
            commands.push(self.add_item(order));
        }
        commands
    }

    pub(crate) fn add_item(&mut self, order: EntityId) -> OrdersCommand {
        let item = self.random.below(self.conditions.items);
        let line = Line {
            item: EntityId::number(item),
            quantity: self.random.between(1, 2) as i64,
            // The first item is free: orders that hold nothing else have one step only.
            price: (item * 3) as i64,
        };
        OrdersCommand::AddItem { order, line, key: None }
    }

    pub(crate) fn after(&mut self, micros: u64, event: Event) {
        self.schedule.after(micros, &mut self.random, event);
    }

    /// Sends a message, unless it gets lost. Whether it was sent.
    pub(crate) fn send(&mut self, from: Node, to: Node, event: Event) -> bool {
        match self.network.fate(from, to, self.schedule.now(), &self.conditions, &mut self.random) {
            Fate::Comes(after) => {
                self.after(after, event);
                true
            }
            Fate::Lost => {
                self.note(from, |_| format!("a message to {to} is lost"));
                false
            }
        }
    }

    pub(crate) fn serial(&mut self) -> u64 {
        self.serial += 1;
        self.serial
    }

    /// The true time; every machine's own clock may be off.
    pub(crate) fn true_time(&self) -> Timestamp {
        Timestamp(DAWN_MS + self.schedule.now() / MILLI)
    }

    pub(crate) fn note(&mut self, who: Node, what: impl FnOnce(&Self) -> String) {
        if self.history.is_kept() {
            let line = what(self);
            self.history.add(self.schedule.now(), who, &line);
        }
    }

    pub(crate) fn view(&self) -> View<'_> {
        View {
            ledgers: [self.ledgers[0].applied(), self.ledgers[1].applied()],
            durable_ledgers: [self.ledgers[0].durable(), self.ledgers[1].durable()],
            orders: self.orders.applied(),
        }
    }

    /// Takes the result of a check: the first rule broken ends the run.
    pub(crate) fn check(&mut self, check: Check) {
        if let Err(violation) = check
            && self.broken.is_none()
        {
            self.note(Node::Clients, |_| format!("VIOLATION of {}: {}", violation.invariant, violation.what));
            self.broken = Some(violation);
        }
    }

    /// Runs to the end.
    pub(crate) fn run(&mut self) -> Ending {
        let ending = loop {
            let Some(event) = self.schedule.next() else {
                break Ending::Stuck("nothing happens any more".to_owned());
            };
            if let Event::Inspect = event {
                if let Some(ending) = self.inspect() {
                    break ending;
                }
                continue;
            }
            self.happen(event);
            if let Some(violation) = self.broken.take() {
                break Ending::Unsafe(violation);
            }
        };
        // Callbacks keep engines alive and engines keep callbacks: cut the knot.
        self.instances.iter_mut().for_each(Instance::stop);
        self.schedule.clear();
        ending
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Tick(process) => self.on_tick(process),
            Event::Start(node) => self.start(node),
            Event::Crash(node) => self.crash(node),
            Event::Request(process, request) => self.on_request(process, request),
            Event::Return(process, call, returned) => self.on_return(process, call, returned),
            Event::Command(participant, command, process, call) => {
                self.commands_under_way -= 1;
                self.on_command(participant, &command, process, call);
            }
            Event::Flushed(node, incarnation) => self.on_flushed(node, incarnation),
            Event::Sweep(participant) => self.on_sweep(participant),
            Event::Question(instance, asker) => self.on_question(instance, asker),
            Event::Verdicts(asker, verdicts) => self.on_verdicts(&asker, &verdicts),
            Event::Forget => self.on_forget(),
            Event::TopUp => self.on_top_up(),
            Event::HandIn(deposit) => self.on_hand_in(deposit),
            Event::Deposit(participant, number, command) => self.on_deposit(participant, number, &command),
            Event::Confirmed(deposit) => _ = self.deposits.remove(&deposit),
            Event::Operate => self.on_operate(),
            Event::Reseed => self.on_reseed(),
            Event::Replace(node, tries) => self.on_replace(node, tries),
            Event::Act(client) => self.act(client),
            Event::Checkout { instance, client, request, order } => self.on_checkout(instance, client, request, order),
            Event::Edit { client, request, command } => self.on_edit(client, request, &command),
            Event::Answered { client, request, status } => self.on_answered(client, request, status),
            Event::Poll(process, handler) => self.on_poll(process, handler),
            Event::Fault => self.on_fault(),
            Event::Calm => self.on_calm(),
            Event::Inspect => {}
        }
    }

    fn on_calm(&mut self) {
        self.note(Node::Clients, |_| "the faults are over".to_owned());
        self.calm = true;
        self.calm_since = self.schedule.now();
        self.network.heal();
        self.restart_everything();
        self.after(INSPECT_EVERY, Event::Inspect);
    }

    /// Whether everything is settled, and if so whether it is settled as it should be.
    fn inspect(&mut self) -> Option<Ending> {
        let Some(open) = self.open_ends() else { return Some(self.at_rest()) };
        if self.schedule.now() > self.calm_since + SETTLING_TIME {
            self.note(Node::Clients, |_| format!("STUCK: {open}"));
            return Some(Ending::Stuck(open));
        }
        self.after(INSPECT_EVERY, Event::Inspect);
        None
    }

    /// What is not settled yet.
    fn open_ends(&self) -> Option<String> {
        if let Some(n) = self.clients.iter().position(|client| !client.is_done()) {
            return Some(format!("client {n} is not done"));
        }
        if let Some(deposit) = self.deposits.keys().next() {
            return Some(format!("deposit {deposit} is not confirmed"));
        }
        if let Some((id, record)) = self.orders.applied().transactions().open().next() {
            return Some(format!("transaction {id} is {:?}, owned by {:?}", record.standing(), record.owner));
        }
        for (name, ledger) in ["stock", "payment"].iter().zip(&self.ledgers) {
            // An executed branch of what is not committed is to be undone, be it that an operator has settled it by hand.
            let open = |(id, state): &(BranchId, BranchState)| {
                *state == BranchState::Prepared || self.oracle.decided(id.transaction) != Some(true)
            };
            if let Some((id, state)) = ledger.applied().open_branches().find(open) {
                return Some(format!("branch {id} of {name} is {state:?}"));
            }
        }
        if let Some(n) = self.instances.iter().position(|instance| instance.engine.as_ref().is_none_or(|e| e.is_busy()))
        {
            let engine = self.instances[n].engine.as_ref();
            let known = self.oracle.known.keys().filter_map(|id| Some((*id, engine?.state_of(*id)?)));
            let live: Vec<String> = known.map(|(id, state)| format!("{id} {state}")).collect();
            return Some(format!("shop-{n} is busy with {live:?}"));
        }
        let unflushed = self.orders.unflushed() + self.ledgers.iter().map(Database::unflushed).sum::<usize>();
        if unflushed > 0 || self.commands_under_way > 0 {
            return Some("something is under way".to_owned());
        }
        let asked = |event: &Event| matches!(event, Event::Verdicts(..) | Event::Request(..));
        self.schedule.any(asked).then(|| "something is under way".to_owned())
    }

    fn at_rest(&mut self) -> Ending {
        let view = self.view();
        let checks = [
            no_lost_answer::at_rest(&self.oracle, &view),
            atomicity::at_rest(&self.oracle, &view),
            no_double_charge::at_rest(&view),
            idempotency::at_rest(&self.oracle, &view),
            by_hand::kept(&self.oracle, self.orders.durable().transactions()),
        ];
        for check in checks {
            self.check(check);
        }
        match self.broken.take() {
            Some(violation) => Ending::Unsafe(violation),
            None => Ending::Clean,
        }
    }

    /// How often clients were told what.
    pub(crate) fn tally(&self) -> BTreeMap<&'static str, u64> {
        self.oracle.answers.clone()
    }
}
