//! Orders, together with the transaction log, as one deterministic state machine: a decision and the order's `paid` are one step.
//!
//! | state             | addItem | Stage (claim)                    | Decide(Commit) | Decide(Abort) |
//! |-------------------|---------|----------------------------------|----------------|---------------|
//! | Open              | ok      | → CheckingOut, if unchanged      | -              | -             |
//! | CheckingOut(t)    | refused | refused, naming t                | t: → Paid      | t: → Open     |
//! | Paid              | refused | refused                          | -              | -             |
//!
//! The claim fails if the order changed since its lines were read: what is charged is exactly what the order then holds.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use table::{Frozen, Table};

use ledger::idempotency::Recalled;
use ledger::{EntityId, FrozenKeys, IdempotencyKey, Keys};
use protocol::limits::{MAX_AMOUNT, MAX_BATCH, MAX_ORDER_LINES};
use protocol::log::{FrozenLog, LogCommand, LogReply, LogState, Record, StageCheck, StageRefusal};
use protocol::simulation::{Mutation, mark, mutated};
use protocol::{Decision, Name, Refusal, Transaction, TransactionId};

use crate::checkout::Claim;
use crate::order_store::OrderDiscrepancy;
use crate::trail::{Note, Trail};

/// So many units of one item, at one price.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Line {
    /// The item.
    pub item: EntityId,
    /// Units: 1 to [`MAX_AMOUNT`].
    pub quantity: i64,
    /// The price of one unit when it was added.
    pub price: i64,
}

/// What an order is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OrderState {
    /// Can be changed and checked out.
    Open,
    /// Claimed by this transaction.
    CheckingOut(TransactionId),
    /// Paid by this transaction.
    Paid(TransactionId),
}

/// An order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Order {
    /// Whose it is, and who will be charged.
    pub user: EntityId,
    /// Its lines, each item once at each price, at most [`MAX_ORDER_LINES`].
    pub lines: Box<[Line]>,
    /// What it is.
    pub state: OrderState,
    /// Another number after every change of its lines; never used twice.
    pub version: u64,
}

impl Order {
    /// What the order costs: at most [`MAX_AMOUNT`], for lines that would exceed it are refused.
    pub fn total_cost(&self) -> i64 {
        self.lines.iter().map(|line| line.quantity * line.price).sum()
    }

    /// Whether it is paid.
    pub fn is_paid(&self) -> bool {
        matches!(self.state, OrderState::Paid(_))
    }
}

/// A change of the orders, or of the log beside them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OrdersCommand {
    /// A new, empty order. A repeat changes nothing.
    Create {
        /// Its id, chosen by the caller.
        order: EntityId,
        /// Its user.
        user: EntityId,
        /// The client's key, if it sent one.
        key: Option<IdempotencyKey>,
    },
    /// Adds units of an item.
    AddItem {
        /// The order.
        order: EntityId,
        /// What, how much of it, and at which price.
        line: Line,
        /// The client's key, if it sent one.
        key: Option<IdempotencyKey>,
    },
    /// Remembers that a key was used for the checkout of an order.
    Remember {
        /// The order.
        order: EntityId,
        /// The client's key.
        key: IdempotencyKey,
    },
    /// Replaces the orders 0 to `count` - 1, each with a random user and two random items.
    Replace {
        /// How many orders, up to [`MAX_BATCH`].
        count: u64,
        /// Items are 0 to this - 1.
        items: u64,
        /// Users are 0 to this - 1.
        users: u64,
        /// The price of every item.
        price: i64,
        /// Where the randomness comes from.
        seed: u64,
    },
    /// A command to the log. A stage claims an order; a decision pays or reopens it.
    Log(LogCommand),
    /// Writes into the operators' trail what one of them is about to do.
    Note(Note),
    /// Writes behind it what came of that, once.
    NoteOutcome {
        /// The entry's number.
        number: u64,
        /// What came of it: at most [`MAX_TEXT_BYTES`](protocol::limits::MAX_TEXT_BYTES).
        outcome: Box<str>,
    },
}

/// What the orders answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OrdersReply {
    /// The order was created.
    Created(EntityId),
    /// The order's total after the addition.
    Total(i64),
    /// There is no such order.
    NotFound,
    /// The order is paid, or being checked out.
    NotOpen(OrderState),
    /// The total would exceed [`MAX_AMOUNT`].
    Overflow,
    /// The order has [`MAX_ORDER_LINES`] lines already.
    TooManyLines,
    /// The idempotency key was used for another request.
    KeyReused,
    /// So many transactions are not settled; nothing was replaced.
    Busy(u64),
    /// Done.
    Done,
    /// The log's answer.
    Log(LogReply),
    /// The number of the entry in the operators' trail.
    Noted(u64),
}

/// Refusals of a claim.
pub mod refusals {
    use protocol::Name;

    /// There is no such order.
    pub const ORDER_NOT_FOUND: Name = Name::literal("order_not_found");
    /// The order changed after its lines were read.
    pub const ORDER_CHANGED: Name = Name::literal("order_changed");
    /// The order is paid.
    pub const ORDER_PAID: Name = Name::literal("order_paid");
    /// Another transaction, named in the detail, has claimed it.
    pub const CHECKING_OUT: Name = Name::literal("order_checking_out");
}

/// What the paid orders come to. 128 bits: there may be any number of them.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Paid {
    /// How many orders.
    pub orders: u64,
    /// What each user's cost.
    pub by_user: BTreeMap<EntityId, i128>,
    /// How many units of each item they hold.
    pub by_item: BTreeMap<EntityId, i128>,
}

impl Paid {
    /// Adds an order, if it is paid.
    pub(crate) fn add(&mut self, order: &Order) {
        if order.is_paid() {
            self.orders += 1;
            *self.by_user.entry(order.user).or_default() += i128::from(order.total_cost());
            for line in &order.lines {
                *self.by_item.entry(line.item).or_default() += i128::from(line.quantity);
            }
        }
    }
}

/// The state: orders and the log.
#[derive(Debug, Clone, Default)]
pub struct OrderBook {
    orders: Table<EntityId, Order>,
    log: LogState,
    /// The last version given.
    version: u64,
    /// The paid orders that a `Replace` did away with.
    replaced: Paid,
    keys: Keys<OrdersReply>,
    trail: Trail,
}

/// A picture of an [`OrderBook`] that stands still.
#[derive(Debug)]
pub struct FrozenOrders {
    /// The orders.
    pub orders: Frozen<EntityId, Order>,
    /// The log.
    pub log: FrozenLog,
    /// The idempotency keys.
    pub keys: FrozenKeys<OrdersReply>,
    /// What does not fit in a table.
    pub rest: OrdersRest,
    /// The operators' trail.
    pub trail: Trail,
}

/// The parts of an order book that are small.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct OrdersRest {
    version: u64,
    replaced: Paid,
}

impl OrderBook {
    /// Carries a command out. Returns the answer and whether anything changed.
    pub fn apply(&mut self, command: &OrdersCommand) -> (OrdersReply, bool) {
        match command {
            OrdersCommand::Create { order, user, key } => self.keyed(key.as_ref(), |book| book.create(*order, *user)),
            OrdersCommand::AddItem { order, line, key } => {
                self.keyed(key.as_ref(), |book| book.add_item(*order, *line))
            }
            OrdersCommand::Remember { key, order } => self.keyed(Some(key), |_| (OrdersReply::Created(*order), true)),
            OrdersCommand::Replace { count, items, users, price, seed } => {
                self.replace((*count, *items, *users), *price, *seed)
            }
            OrdersCommand::Log(command) => {
                let (reply, changed) = self.log(command);
                (OrdersReply::Log(reply), changed)
            }
            OrdersCommand::Note(note) => (OrdersReply::Noted(self.trail.write(note.clone())), true),
            OrdersCommand::NoteOutcome { number, outcome } => {
                let (found, changed) = self.trail.conclude(*number, outcome);
                (if found { OrdersReply::Done } else { OrdersReply::NotFound }, changed)
            }
        }
    }

    fn keyed(
        &mut self,
        key: Option<&IdempotencyKey>,
        change: impl FnOnce(&mut Self) -> (OrdersReply, bool),
    ) -> (OrdersReply, bool) {
        let Some(key) = key else { return change(self) };
        match self.keys.recall(key) {
            Recalled::Repeat(_) if mutated(Mutation::KeyedRepeatChangesAgain) => change(self),
            Recalled::Repeat(answer) => {
                mark("orders.key_repeated");
                (answer.clone(), false)
            }
            Recalled::Reused => (OrdersReply::KeyReused, false),
            Recalled::Fresh => {
                let (reply, changed) = change(self);
                let succeeded = matches!(reply, OrdersReply::Created(_) | OrdersReply::Total(_));
                if succeeded {
                    self.keys.remember(key, reply.clone());
                }
                (reply, changed || succeeded)
            }
        }
    }

    fn next_version(&mut self) -> u64 {
        self.version += 1;
        self.version
    }

    fn create(&mut self, id: EntityId, user: EntityId) -> (OrdersReply, bool) {
        if self.orders.contains(&id) {
            return (OrdersReply::Created(id), false);
        }
        let version = self.next_version();
        self.orders.insert(id, Order { user, lines: Box::default(), state: OrderState::Open, version });
        (OrdersReply::Created(id), true)
    }

    fn add_item(&mut self, id: EntityId, added: Line) -> (OrdersReply, bool) {
        let version = self.version + 1;
        let Some(order) = self.orders.get_mut(&id) else { return (OrdersReply::NotFound, false) };
        if order.state != OrderState::Open {
            return (OrdersReply::NotOpen(order.state), false);
        }
        let total = added.quantity.checked_mul(added.price).and_then(|cost| cost.checked_add(order.total_cost()));
        let Some(total) = total.filter(|total| *total <= MAX_AMOUNT) else { return (OrdersReply::Overflow, false) };
        let mut lines = std::mem::take(&mut order.lines).into_vec();
        // Units of one item at another price stand in a line of their own: one line would lie about what they cost.
        let same = lines.iter().position(|line| line.item == added.item && line.price == added.price);
        let full = lines.len() >= MAX_ORDER_LINES;
        let refused = match same.and_then(|at| lines.get_mut(at)) {
            Some(line) if line.quantity.checked_add(added.quantity).is_none_or(|sum| sum > MAX_AMOUNT) => {
                Some(OrdersReply::Overflow)
            }
            Some(line) => {
                line.quantity += added.quantity;
                None
            }
            None if full => Some(OrdersReply::TooManyLines),
            None => {
                lines.push(added);
                None
            }
        };
        order.lines = lines.into_boxed_slice();
        if let Some(reply) = refused {
            return (reply, false);
        }
        order.version = version;
        self.version = version;
        (OrdersReply::Total(total), true)
    }

    fn replace(&mut self, (count, items, users): (u64, u64, u64), price: i64, seed: u64) -> (OrdersReply, bool) {
        if self.log.open_count() > 0 && !mutated(Mutation::ReplacesClaimedOrders) {
            return (OrdersReply::Busy(self.log.open_count() as u64), false);
        }
        if count > MAX_BATCH || items == 0 || users == 0 || !(0..=MAX_AMOUNT / 2).contains(&price) {
            return (OrdersReply::Overflow, false);
        }
        mark("orders.replaced");
        for n in 0..count {
            let (user, lines) = seeded(n, (items, users), price, seed);
            let order = Order { user, lines, state: OrderState::Open, version: self.next_version() };
            if let Some(old) = self.orders.insert(EntityId::number(n), order)
                && !mutated(Mutation::ReplacedOrdersNeverPaid)
            {
                self.replaced.add(&old);
            }
        }
        (OrdersReply::Done, true)
    }

    fn log(&mut self, command: &LogCommand) -> (LogReply, bool) {
        match command {
            LogCommand::Stage { writer, transaction } => {
                if self.log.check_stage(writer, transaction.id) == StageCheck::Fresh
                    && let Err(refusal) = self.claim(transaction)
                {
                    mark("orders.claim_refused");
                    return (LogReply::StageRefused(StageRefusal::Application(refusal)), false);
                }
                self.log.apply(command)
            }
            LogCommand::Decide { id, .. } => {
                let (reply, changed) = self.log.apply(command);
                if let LogReply::Decided { decision, first: true } = &reply
                    && !(decision.is_commit() && mutated(Mutation::PaidApartFromDecision))
                {
                    self.conclude(*id, decision);
                }
                (reply, changed)
            }
            LogCommand::Finish { ids, .. } if mutated(Mutation::PaidApartFromDecision) => {
                for id in ids {
                    self.conclude(*id, &Decision::Commit);
                }
                self.log.apply(command)
            }
            _ => self.log.apply(command),
        }
    }

    fn claim(&mut self, transaction: &Transaction) -> Result<(), Refusal> {
        let claim = Claim::decode(&transaction.context)?;
        let refuse = |code: Name| Err(Refusal::new(code, &claim.order.to_string()));
        let Some(order) = self.orders.get_mut(&claim.order) else { return refuse(refusals::ORDER_NOT_FOUND) };
        match order.state {
            OrderState::Paid(_) => return refuse(refusals::ORDER_PAID),
            OrderState::CheckingOut(other) if !mutated(Mutation::ClaimExpires) => {
                return Err(Refusal::new(refusals::CHECKING_OUT, &other.to_string()));
            }
            OrderState::CheckingOut(_) | OrderState::Open => {}
        }
        if order.version != claim.version && !mutated(Mutation::ClaimIgnoresVersion) {
            return refuse(refusals::ORDER_CHANGED);
        }
        order.state = OrderState::CheckingOut(transaction.id);
        Ok(())
    }

    /// Pays or reopens the order that a transaction has claimed.
    fn conclude(&mut self, id: TransactionId, decision: &Decision) {
        let transaction = self.log.get(id).and_then(|record| record.transaction.as_ref());
        let Some(Ok(claim)) = transaction.map(|transaction| Claim::decode(&transaction.context)) else { return };
        if let Some(order) = self.orders.get_mut(&claim.order)
            && order.state == OrderState::CheckingOut(id)
        {
            order.state = if decision.is_commit() { OrderState::Paid(id) } else { OrderState::Open };
        }
    }

    /// An order.
    pub fn order(&self, id: EntityId) -> Option<&Order> {
        self.orders.get(&id)
    }

    /// The orders, in no order that means anything.
    pub fn orders(&self) -> impl Iterator<Item = (EntityId, &Order)> {
        self.orders.iter().map(|(id, order)| (*id, order))
    }

    /// Whether this key was used for another request.
    pub fn is_key_reused(&self, key: &IdempotencyKey) -> bool {
        self.keys.recall(key) == Recalled::Reused
    }

    /// The transaction log.
    pub fn transactions(&self) -> &LogState {
        &self.log
    }

    /// The operators' trail.
    pub fn trail(&self) -> &Trail {
        &self.trail
    }

    /// What all paid orders that ever were come to, those replaced since included.
    pub fn paid(&self) -> Paid {
        let mut paid = self.replaced.clone();
        self.orders.iter().for_each(|(_, order)| paid.add(order));
        paid
    }

    /// The orders that contradict the log.
    pub fn discrepancies(&self) -> Vec<OrderDiscrepancy> {
        let mut found: Vec<_> = self.orders.iter().filter_map(|(id, order)| self.contradiction(*id, order)).collect();
        found.sort_unstable();
        found
    }

    /// How an order contradicts the log: claimed by no undecided transaction of it, or paid by one that it knows otherwise, or never knew.
    pub(crate) fn contradiction(&self, order: EntityId, found: &Order) -> Option<OrderDiscrepancy> {
        let about = |record: &Record| {
            let claim = record.transaction.as_ref().and_then(|transaction| Claim::decode(&transaction.context).ok());
            claim.is_some_and(|claim| claim.order == order)
        };
        match found.state {
            OrderState::Open => None,
            OrderState::CheckingOut(transaction) => {
                let record = self.log.get(transaction);
                let undecided = record.is_some_and(|record| record.decided.is_none() && about(record));
                (!undecided).then_some(OrderDiscrepancy::ClaimedInVain { order, transaction })
            }
            OrderState::Paid(transaction) => {
                let committed = match self.log.get(transaction) {
                    Some(record) => record.decision().is_some_and(Decision::is_commit) && about(record),
                    // The transaction of a paid order may be forgotten.
                    None => transaction.birth() <= self.log.floor(),
                };
                (!committed).then_some(OrderDiscrepancy::PaidInVain { order, transaction })
            }
        }
    }

    /// The orders page by page, as [`Table::page`] has it.
    pub(crate) fn order_page(&self, from: u32, slots: u32) -> (impl Iterator<Item = (EntityId, &Order)>, Option<u32>) {
        let (rows, next) = self.orders.page(from, slots);
        (rows.map(|(id, order)| (*id, order)), next)
    }

    /// What the paid orders came to that were replaced since.
    pub(crate) fn replaced(&self) -> &Paid {
        &self.replaced
    }

    /// A picture that stands still.
    pub fn freeze(&self) -> FrozenOrders {
        FrozenOrders {
            orders: self.orders.freeze(),
            log: self.log.freeze(),
            keys: if mutated(Mutation::KeysAreNotInSnapshots) { Table::default().freeze() } else { self.keys.freeze() },
            rest: OrdersRest { version: self.version, replaced: self.replaced.clone() },
            trail: self.trail.clone(),
        }
    }

    /// Rebuilds the state from what a picture held.
    pub fn thaw(
        orders: Table<EntityId, Order>,
        log: LogState,
        keys: Keys<OrdersReply>,
        rest: OrdersRest,
        trail: Trail,
    ) -> Self {
        Self { orders, log, version: rest.version, replaced: rest.replaced, keys, trail }
    }
}

/// The user and the lines that [`OrdersCommand::Replace`] gives to the order of this number.
pub(crate) fn seeded(n: u64, (items, users): (u64, u64), price: i64, seed: u64) -> (EntityId, Box<[Line]>) {
    // Three numbers are drawn for each order.
    let mut random = SplitMix(seed.wrapping_add(GOLDEN.wrapping_mul(n.wrapping_mul(3))));
    let user = EntityId::number(random.below(users));
    let (one, other) = (random.below(items), random.below(items));
    let line = |item, quantity| Line { item: EntityId::number(item), quantity, price };
    let lines = if one == other { vec![line(one, 2)] } else { vec![line(one, 1), line(other, 1)] };
    (user, lines.into_boxed_slice())
}

/// What SplitMix64 adds to its state for each number.
const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;

/// SplitMix64 (Steele, Lea, Flood 2014): the same seed gives the same orders on every replay.
struct SplitMix(u64);

impl SplitMix {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(GOLDEN);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Evenly spread over 0 to `bound` - 1, by a multiplication (Lemire, 2019).
    fn below(&mut self, bound: u64) -> u64 {
        ((u128::from(self.next()) * u128::from(bound)) >> 64) as u64
    }
}
