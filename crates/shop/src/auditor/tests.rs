//! A pass among checkouts, whose steps and the pass's questions come in every order that chance brings.

use std::collections::BTreeMap;
use std::sync::Arc;

use fastrand::Rng;
use ledger::audit::Discrepancy;
use ledger::{Account, Branch, EntityId, Keys, Ledger, LedgerCommand, LedgerReply};
use orchestrator::{LedgerAnswer, LedgerQuery, answer_ledger};
use protocol::log::{LogCommand, LogReply, LogState, Writer};
use protocol::{
    BranchId, BranchState, Command, Decision, Name, Order as Sequence, Protocol, Recovery, Reply, Timestamp,
    Transaction, TransactionId, Verb,
};
use table::Table;

use super::finding::Named;
use super::pass::{Ask, Part, Pass, Told, Yield};
use crate::audit::Finding;
use crate::checkout::{CHECKOUT, Claim, PAYMENT, STOCK, steps};
use crate::order_store::{OrderDiscrepancy, OrdersAnswer, OrdersLook, OrdersQuery, Sum, answer_orders};
use crate::orders::{Line, Order, OrderBook, OrderState, OrdersCommand, OrdersReply};

const ITEMS: u64 = 4;
const USERS: u64 = 5;
const ORDERS: u64 = 150;
const SEEDS: u64 = 60;

/// The three databases, and checkouts that are under way.
struct World {
    random: Rng,
    book: OrderBook,
    ledgers: BTreeMap<Name, Ledger>,
    writer: Writer,
    now: u64,
    orders: u64,
    under_way: Vec<Checkout>,
    paid: usize,
    aborted: usize,
    replaced: usize,
}

/// One that is under way: what its participants said, and what is left to do.
struct Checkout {
    transaction: Arc<Transaction>,
    staged: Option<bool>,
    votes: Vec<Option<bool>>,
    decided: Option<bool>,
    acknowledged: Vec<bool>,
    /// Its coordinator is gone for a while.
    stalls: u32,
}

impl World {
    fn new(seed: u64) -> Self {
        let mut book = OrderBook::default();
        let instance = Name::literal("test");
        let register = LogCommand::Register { instance, now: Timestamp(1), lease: u64::MAX };
        let OrdersReply::Log(LogReply::Registered(epoch)) = book.apply(&OrdersCommand::Log(register)).0 else {
            panic!("registering answers with an epoch")
        };
        let mut ledgers = BTreeMap::new();
        for (service, count, available) in [(STOCK, ITEMS, 60), (PAYMENT, USERS, 400)] {
            let mut ledger = Ledger::default();
            ledger.apply(&LedgerCommand::Replace { count, available, price: 3 });
            ledgers.insert(service, ledger);
        }
        let writer = Writer { instance, epoch };
        let random = Rng::with_seed(seed);
        let (orders, under_way) = (0, Vec::new());
        Self { random, book, ledgers, writer, now: 1_000, orders, under_way, paid: 0, aborted: 0, replaced: 0 }
    }

    fn log(&mut self, command: LogCommand) -> LogReply {
        match self.book.apply(&OrdersCommand::Log(command)).0 {
            OrdersReply::Log(reply) => reply,
            other => panic!("{other:?}"),
        }
    }

    fn begin(&mut self) {
        self.orders += 1;
        self.now += 1;
        let (order, user) = (EntityId::number(1_000 + self.orders), EntityId::number(self.random.u64(..USERS)));
        self.book.apply(&OrdersCommand::Create { order, user, key: None });
        for _ in 0..self.random.u64(1..3) {
            let item = EntityId::number(self.random.u64(..ITEMS));
            let line = Line { item, quantity: self.random.i64(1..4), price: self.random.i64(1..3) };
            self.book.apply(&OrdersCommand::AddItem { order, line, key: None });
        }
        let found = self.book.order(order).unwrap();
        let id = TransactionId::new(Timestamp(self.now), [u8::try_from(self.orders % 250).unwrap(); 16]);
        let transaction = Arc::new(Transaction {
            id,
            definition: CHECKOUT,
            protocol: if self.random.bool() { Protocol::TwoPhase } else { Protocol::Saga },
            order: Sequence::Parallel,
            recovery: Recovery::Backward,
            steps: steps(found).unwrap().into(),
            context: Claim { order, version: found.version }.encode().unwrap(),
        });
        let several = transaction.steps.len();
        let (votes, acknowledged) = (vec![None; several], vec![false; several]);
        self.under_way.push(Checkout { transaction, staged: None, votes, decided: None, acknowledged, stalls: 0 });
    }

    fn tell(&mut self, checkout: &Checkout, at: usize, verb: Verb) -> Reply {
        let step = &checkout.transaction.steps[at];
        let branch = BranchId { transaction: checkout.transaction.id, step: u8::try_from(at).unwrap() };
        let command = LedgerCommand::Branch(Command { branch, verb, payload: step.payload.clone() });
        match self.ledgers.get_mut(&step.service).unwrap().apply(&command).0 {
            LedgerReply::Branch { reply, .. } => reply,
            other => panic!("{other:?}"),
        }
    }

    /// Something happens somewhere.
    fn step(&mut self) {
        match self.random.u32(..100) {
            0..10 if self.orders < ORDERS => self.begin(),
            10..12 => self.replace(),
            12..16 => self.forget(),
            16..20 => self.retire(),
            _ if self.under_way.is_empty() => {}
            _ => {
                let at = self.random.usize(..self.under_way.len());
                let checkout = self.under_way.swap_remove(at);
                let left = self.advance(checkout);
                self.under_way.extend(left);
            }
        }
    }

    /// Does one thing of a checkout; nothing is left of one that is finished.
    fn advance(&mut self, mut checkout: Checkout) -> Option<Checkout> {
        if self.random.u32(..100) == 0 {
            checkout.stalls = 30;
        }
        if checkout.stalls > 0 {
            checkout.stalls -= 1;
            return Some(checkout);
        }
        let id = checkout.transaction.id;
        let is_saga = checkout.transaction.protocol == Protocol::Saga;
        let (begin, undo) = if is_saga { (Verb::Execute, Verb::Compensate) } else { (Verb::Prepare, Verb::Abort) };
        let any = |random: &mut Rng, open: Vec<usize>| open.get(random.usize(..open.len().max(1))).copied();
        let unvoted: Vec<usize> = (0..checkout.votes.len()).filter(|at| checkout.votes[*at].is_none()).collect();
        let Some(decided) = checkout.decided else {
            let stages = checkout.staged.is_none() && (is_saga || self.random.bool() || unvoted.is_empty());
            if stages {
                let stage = LogCommand::Stage { writer: self.writer, transaction: Arc::clone(&checkout.transaction) };
                if self.log(stage) != LogReply::Staged {
                    // The order was replaced meanwhile: nothing was staged, and whatever was prepared is given back.
                    (0..checkout.votes.len()).for_each(|at| _ = self.tell(&checkout, at, undo));
                    return None;
                }
                checkout.staged = Some(true);
            } else if let Some(at) = any(&mut self.random, unvoted) {
                checkout.votes[at] = Some(matches!(self.tell(&checkout, at, begin), Reply::Done(_)));
            } else {
                let commits = checkout.votes.iter().all(|vote| *vote == Some(true)) && self.random.u32(..20) > 0;
                let decision = if commits { Decision::Commit } else { Decision::Abort(protocol::Cause::NeverStaged) };
                let now = Timestamp(self.now);
                self.log(LogCommand::Decide { writer: self.writer, id, decision, now });
                checkout.decided = Some(commits);
                *if commits { &mut self.paid } else { &mut self.aborted } += 1;
            }
            return Some(checkout);
        };
        let open: Vec<usize> = (0..checkout.votes.len()).filter(|at| !checkout.acknowledged[*at]).collect();
        if let Some(at) = any(&mut self.random, open) {
            if !(decided && is_saga) {
                let told = self.tell(&checkout, at, if decided { Verb::Commit } else { undo });
                assert!(matches!(told, Reply::Done(_)), "{told:?}");
            }
            checkout.acknowledged[at] = true;
            return Some(checkout);
        }
        let finish = LogCommand::Finish { writer: self.writer, ids: vec![id], now: Timestamp(self.now) };
        assert_eq!(self.log(finish), LogReply::Done);
        None
    }

    /// What executed and stands is known to stand once its participant asks.
    fn retire(&mut self) {
        let ledgers: Vec<Name> = self.ledgers.keys().copied().collect();
        for service in ledgers {
            let open: Vec<BranchId> = self.ledgers[&service]
                .open_branches()
                .filter(|(_, state)| *state == BranchState::Executed)
                .map(|(id, _)| id)
                .filter(|id| {
                    let record = self.book.transactions().get(id.transaction);
                    record.is_none_or(|record| record.decision().is_some_and(Decision::is_commit))
                })
                .collect();
            self.ledgers.get_mut(&service).unwrap().apply(&LedgerCommand::Retire(open));
        }
    }

    /// Everything is seeded anew, if it can be.
    fn replace(&mut self) {
        if self.random.u32(..3) > 0 {
            return;
        }
        let seed = self.random.u64(..);
        let orders = OrdersCommand::Replace { count: 1_000 + ORDERS, items: ITEMS, users: USERS, price: 2, seed };
        self.replaced += usize::from(self.book.apply(&orders).0 == OrdersReply::Done);
        let which = if self.random.bool() { STOCK } else { PAYMENT };
        let replace = LedgerCommand::Replace { count: 3, available: 100, price: 3 };
        self.ledgers.get_mut(&which).unwrap().apply(&replace);
    }

    fn forget(&mut self) {
        let keep = self.random.usize(..20);
        let spare_since = Timestamp(self.now.saturating_sub(5));
        self.log(LogCommand::Forget { finished_before: Timestamp(0), keep, spare_since });
        for ledger in self.ledgers.values_mut() {
            ledger.apply(&LedgerCommand::Forget { born_before: Timestamp(0), keep, spare_since });
        }
    }

    fn answer(&self, ask: &Ask) -> Told {
        match ask {
            Ask::Ledger(service, look) => {
                match answer_ledger(&self.ledgers[service], &LedgerQuery::Look(look.clone())) {
                    LedgerAnswer::Seen(seen) => Told::Ledger(seen),
                    other => panic!("{other:?}"),
                }
            }
            Ask::Orders(look) => match answer_orders(&self.book, &OrdersQuery::Look(look.clone()), 0) {
                OrdersAnswer::Seen(seen) => Told::Orders(seen),
                other => panic!("{other:?}"),
            },
        }
    }

    /// A pass with this much going on between its questions.
    fn pass(&mut self, suspects: BTreeMap<Sum, i128>, part: Part, between: u32) -> Yield {
        let mut pass = Pass::begin(suspects, part);
        while let Some(ask) = pass.ask() {
            for _ in 0..self.random.u32(..=between) {
                self.step();
            }
            let told = self.answer(&ask);
            for _ in 0..self.random.u32(..=between) {
                self.step();
            }
            pass.take(told).unwrap();
        }
        pass.end(1)
    }

    /// Brings everything to rest.
    fn rest(&mut self) {
        while let Some(checkout) = self.under_way.pop() {
            let left = self.advance(checkout);
            self.under_way.extend(left);
        }
        self.retire();
    }

    /// What is found at rest, by two passes.
    fn found(&mut self) -> BTreeMap<String, (Finding, Vec<Named>)> {
        let suspects = self.pass(BTreeMap::new(), Part::WHOLE, 0).suspects;
        self.pass(suspects, Part::WHOLE, 0).found
    }

    fn change_account(&mut self, service: Name, id: EntityId, change: impl Fn(&mut Account)) {
        self.tamper(service, |accounts, _| change(accounts.get_mut(&id).unwrap()));
    }

    /// Changes a ledger behind its back.
    fn tamper(
        &mut self,
        service: Name,
        change: impl FnOnce(&mut Table<EntityId, Account>, &mut Table<BranchId, Branch>),
    ) {
        let frozen = self.ledgers[&service].freeze();
        let mut accounts: Table<_, _> = frozen.accounts.iter().map(|(id, account)| (*id, *account)).collect();
        let mut branches: Table<_, _> = frozen.branches.iter().map(|(id, branch)| (*id, branch.clone())).collect();
        change(&mut accounts, &mut branches);
        self.ledgers.insert(service, Ledger::thaw(accounts, branches, Keys::default(), frozen.rest));
    }

    fn change_order(&mut self, id: EntityId, change: impl FnOnce(&mut Order)) {
        let frozen = self.book.freeze();
        let mut orders: Table<_, _> = frozen.orders.iter().map(|(id, order)| (*id, order.clone())).collect();
        change(orders.get_mut(&id).unwrap());
        let records = frozen.log.records.iter().map(|(id, record)| (*id, record.clone())).collect();
        let log = LogState::thaw(records, frozen.log.instances, frozen.log.finished, frozen.log.floor);
        self.book = OrderBook::thaw(orders, log, Keys::default(), frozen.rest, frozen.trail);
    }

    /// A paid order whose transaction is remembered everywhere, of this protocol, and that transaction.
    fn a_paid_order(&self, protocol: Protocol) -> (EntityId, Order, TransactionId) {
        let remembered = |id| {
            let is_paid = self.book.transactions().get(id).is_some_and(|record| {
                record.finished.is_some()
                    && record.transaction.as_ref().is_some_and(|transaction| transaction.protocol == protocol)
            });
            let branch = |service: &Name, step| self.ledgers[service].get_branch(BranchId { transaction: id, step });
            is_paid && branch(&STOCK, 0).is_some() && branch(&PAYMENT, 1).is_some()
        };
        let paid = |(id, order): (EntityId, &Order)| match order.state {
            OrderState::Paid(transaction) if remembered(transaction) => Some((id, order.clone(), transaction)),
            _ => None,
        };
        self.book.orders().find_map(paid).expect("a paid order")
    }
}

/// A world at rest in which much has happened, and both protocols have a paid order that is remembered.
fn lived_in(seed: u64) -> World {
    let mut world = World::new(seed);
    while world.orders < ORDERS {
        world.step();
    }
    world.rest();
    // Some are left to look at.
    for (service, several) in [(STOCK, ITEMS), (PAYMENT, USERS)] {
        for account in (0..several).map(EntityId::number) {
            let change = ledger::Change::Credit { account, amount: 1_000 };
            world.ledgers.get_mut(&service).unwrap().apply(&LedgerCommand::Change { change, key: None });
        }
    }
    (0..20).for_each(|_| world.begin());
    world.rest();
    world
}

#[test]
fn no_false_alarm_whatever_goes_on_between_the_questions() {
    let (mut paid, mut aborted, mut replaced, mut suspected, mut certain) = (0, 0, 0, 0, 0);
    for seed in 0..SEEDS {
        let mut world = World::new(seed);
        let between = [2, 6, 20][(seed % 3) as usize];
        let part = if seed % 4 == 0 { Part { number: 1, of: 2 } } else { Part::WHOLE };
        let mut suspects = BTreeMap::new();
        for number in 0..60 {
            let brought = world.pass(suspects, part, between);
            assert!(brought.found.is_empty(), "seed {seed}, pass {number}: {:?}", brought.found);
            suspected += brought.suspects.len();
            certain += brought.certain.len();
            suspects = brought.suspects;
        }
        world.rest();
        let last = world.pass(suspects, part, 0);
        assert!(last.found.is_empty() && last.suspects.is_empty(), "seed {seed}, at rest: {last:?}");
        paid += world.paid;
        aborted += world.aborted;
        replaced += world.replaced;
    }
    println!(
        "{paid} paid, {aborted} aborted, {replaced} replaced, {suspected} suspected, {certain} compared for certain"
    );
    for (what, met) in
        [("paid", paid), ("aborted", aborted), ("replaced", replaced), ("suspected", suspected), ("certain", certain)]
    {
        assert!(met > 100, "{what} {met} times only");
    }
}

#[test]
fn a_loss_is_found_while_checkouts_go_on() {
    let mut found = 0;
    for seed in 0..SEEDS {
        let mut world = World::new(seed);
        for _ in 0..400 {
            world.step();
        }
        // Money is given back that was charged: the account adds up as before.
        let charged = |world: &World| {
            let all = world.ledgers[&PAYMENT].accounts();
            all.filter(|(_, account)| account.settled > 3).map(|(id, _)| id).next()
        };
        let Some(user) = charged(&world) else { continue };
        world.change_account(PAYMENT, user, |account| {
            account.settled -= 3;
            account.available += 3;
        });
        let mut suspects = BTreeMap::new();
        for _ in 0..40 {
            let brought = world.pass(suspects, Part::WHOLE, 1);
            for (finding, _) in brought.found.values() {
                assert_eq!(*finding, Finding::Charged { user, off_by: -3 }, "seed {seed}");
            }
            if !brought.found.is_empty() {
                found += 1;
                break;
            }
            suspects = brought.suspects;
        }
    }
    assert!(found > SEEDS / 2, "{found} of {SEEDS} while it went on");
}

fn names(named: &[Named], transaction: TransactionId, service: Name) -> bool {
    named.iter().any(|it| it.transaction == transaction && it.service == service && it.caused)
}

#[test]
fn an_account_that_was_changed_is_found_with_the_transactions_that_touched_it() {
    for seed in 0..10 {
        let mut world = lived_in(seed);
        let (_, order, transaction) = world.a_paid_order(Protocol::TwoPhase);
        let amount = order.total_cost();
        world.change_account(PAYMENT, order.user, |account| account.available += amount);
        let found = world.found();
        let discrepancy = Discrepancy::NotConserved { account: order.user, off_by: -i128::from(amount) };
        let [(finding, named)] = &found.values().collect::<Vec<_>>()[..] else { panic!("{found:?}") };
        assert_eq!(*finding, Finding::Account { service: PAYMENT, discrepancy });
        let it = named.iter().find(|it| it.transaction == transaction).unwrap_or_else(|| panic!("{named:?}"));
        assert_eq!((it.service, it.step, &*it.branch), (PAYMENT, 1, "committed"));
    }
}

#[test]
fn what_is_held_for_nobody_and_what_nobody_holds_is_found() {
    let mut world = lived_in(3);
    let (_, order, _) = world.a_paid_order(Protocol::TwoPhase);
    let item = order.lines[0].item;
    world.change_account(STOCK, item, |account| {
        account.available -= 1;
        account.held += 1;
    });
    let found = world.found();
    let discrepancy = Discrepancy::HeldByNobody { account: item, off_by: 1 };
    assert_eq!(found.values().next().unwrap().0, Finding::Account { service: STOCK, discrepancy });
    // A branch is open whose account is gone.
    let (mut world, gone) = (lived_in(4), EntityId::number(77));
    world.tamper(PAYMENT, |_, branches| {
        let entries = [ledger::Entry { account: gone, amount: 5 }].into();
        let id = BranchId { transaction: TransactionId::new(Timestamp(900_000), [9; 16]), step: 1 };
        branches.insert(id, Branch { state: BranchState::Prepared, refusal: None, entries });
    });
    let found = world.found();
    let discrepancy = Discrepancy::HeldByNobody { account: gone, off_by: -5 };
    assert_eq!(found.values().next().unwrap().0, Finding::Account { service: PAYMENT, discrepancy });
}

#[test]
fn an_order_marked_paid_without_a_charge_is_found_and_named() {
    for seed in 0..10 {
        let mut world = lived_in(seed);
        let user = EntityId::number(1);
        let order = EntityId::number(5_000);
        world.book.apply(&OrdersCommand::Create { order, user, key: None });
        let line = Line { item: EntityId::number(2), quantity: 7, price: 11 };
        world.book.apply(&OrdersCommand::AddItem { order, line, key: None });
        // By one that never was.
        let never = TransactionId::new(Timestamp(world.now + 50), [7; 16]);
        world.change_order(order, |order| order.state = OrderState::Paid(never));
        let found = world.found();
        let (finding, named) = &found[&format!("order {order}")];
        assert_eq!(*finding, Finding::Order(OrderDiscrepancy::PaidInVain { order, transaction: never }));
        assert!(names(named, never, PAYMENT) && named.iter().all(|it| it.branch == "missing"), "{named:?}");
        assert_eq!(found[&format!("charged {user}")].0, Finding::Charged { user, off_by: -77 });
        // By one that is about another order.
        let (_, _, others) = world.a_paid_order(Protocol::Saga);
        world.change_order(order, |order| order.state = OrderState::Paid(others));
        let found = world.found();
        let (finding, _) = &found[&format!("order {order}")];
        assert_eq!(*finding, Finding::Order(OrderDiscrepancy::PaidInVain { order, transaction: others }));
        // By one that is said to be forgotten: only the sums tell.
        let forgotten = TransactionId::new(Timestamp(2), [8; 16]);
        assert!(forgotten.birth() <= world.book.transactions().floor());
        world.change_order(order, |order| order.state = OrderState::Paid(forgotten));
        let found = world.found();
        assert!(!found.contains_key(&format!("order {order}")), "{found:?}");
        let (finding, named) = &found[&format!("charged {user}")];
        assert_eq!(*finding, Finding::Charged { user, off_by: -77 });
        assert!(names(named, forgotten, PAYMENT), "{named:?}");
    }
}

#[test]
fn a_branch_that_became_another_than_was_decided_is_found_and_named() {
    for (seed, protocol, other) in [
        (1, Protocol::TwoPhase, BranchState::Aborted),
        (2, Protocol::TwoPhase, BranchState::Executed),
        (3, Protocol::Saga, BranchState::Compensated),
        (4, Protocol::Saga, BranchState::Committed),
    ] {
        let mut world = lived_in(seed);
        let (order, what, transaction) = world.a_paid_order(protocol);
        let branch = BranchId { transaction, step: 1 };
        let gone = matches!(other, BranchState::Aborted | BranchState::Compensated);
        world.tamper(PAYMENT, |accounts, branches| {
            branches.insert(branch, Branch { state: other, refusal: None, entries: Box::default() });
            if gone {
                let account = accounts.get_mut(&what.user).unwrap();
                account.settled -= what.total_cost();
                account.available += what.total_cost();
            }
        });
        let found = world.found();
        let (finding, named) = &found[&format!("branch payment {branch}")];
        let expected = Finding::Branch { service: PAYMENT, branch, committed: true, state: Some(other) };
        assert_eq!(*finding, expected);
        assert_eq!((named[0].transaction, named[0].order, named[0].service), (transaction, Some(order), PAYMENT));
        assert_eq!(found.contains_key(&format!("charged {}", what.user)), gone);
        if gone {
            assert!(names(&found[&format!("charged {}", what.user)].1, transaction, PAYMENT), "{found:?}");
        }
    }
    // One that is not there, and is not forgotten either.
    let mut world = lived_in(5);
    let (_, _, transaction) = world.a_paid_order(Protocol::TwoPhase);
    let branch = BranchId { transaction, step: 0 };
    world.tamper(STOCK, |_, branches| _ = branches.remove(&branch));
    let found = world.found();
    let expected = Finding::Branch { service: STOCK, branch, committed: true, state: None };
    assert_eq!(found[&format!("branch stock {branch}")].0, expected);
}

/// Whoever watches a first pass sees it go on: an order that nobody paid yet takes as long as a paid one.
#[test]
fn every_page_of_orders_counts_also_of_those_that_are_open() {
    let mut world = World::new(1);
    let orders = OrdersCommand::Replace { count: 350, items: ITEMS, users: USERS, price: 2, seed: 1 };
    assert_eq!(world.book.apply(&orders).0, OrdersReply::Done);
    let mut pass = Pass::begin(BTreeMap::new(), Part::WHOLE);
    let (mut before, mut rises) = (0, Vec::new());
    while let Some(ask) = pass.ask() {
        pass.take(world.answer(&ask)).unwrap();
        if matches!(ask, Ask::Orders(OrdersLook::Orders { .. })) {
            rises.push(pass.yield_.checked - before);
        }
        before = pass.yield_.checked;
    }
    assert_eq!(rises, [100, 100, 100, 50]);
}

#[test]
fn an_answer_to_another_question_is_an_error_and_no_finding() {
    let world = World::new(1);
    let mut pass = Pass::begin(BTreeMap::new(), Part::WHOLE);
    let first = pass.ask().unwrap();
    let Told::Ledger(_) = world.answer(&first) else { panic!("{first:?}") };
    let other = Ask::Orders(OrdersLook::Ended { after: String::new() });
    assert!(pass.take(world.answer(&other)).is_err());
}
