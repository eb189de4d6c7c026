//! What this process has seen of orders that are likely to be checked out next: then a checkout begins without a look at the database.
//!
//! Another instance may have changed such an order meanwhile. Nothing hangs on that: the claim names the version that the checkout was planned from, and a
//! checkout of what is no more is refused there, and looks.
//!
//! **A version is used once, but what was lost with it may be followed by another of the same number**: a failover takes back what nobody was told is
//! durable. So whatever is seen goes for the connection over which it was seen, which leads to one run of one master; the claim names that, too.
//!
//! | what is remembered                            | learned from                        | until                                                     |
//! |-----------------------------------------------|-------------------------------------|-----------------------------------------------------------|
//! | an open order                                 | an item added to it, a look at it   | it is recalled, once; or many others were seen since      |
//! | those of a replacement that nobody has touched | a look at one of them               | a claim shows that somebody else has touched one          |
//! | all of it                                     |                                     | the connection is another, this instance replaces them, or a second went by without any use of it |
//!
//! The last is for an instance that stood still: the gateway has sent its orders to others meanwhile, and they may be paid. Claiming such an order is refused,
//! and yet holds for a moment what somebody else may want. An instance that had nothing to do loses a millisecond by it.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use ledger::EntityId;
use parking_lot::{Mutex, MutexGuard};
use protocol::limits::MAX_BATCH;

use crate::checkout::Claim;
use crate::orders::{Order, OrderState, seeded};

/// So many orders are remembered at least, once so many were seen; and twice that at most.
const REMEMBERED: usize = 8_192;
/// An order with more lines is not remembered: 11 MiB are enough for all.
const MAX_LINES: usize = 16;
/// After so long without any use everything is forgotten: less than the gateway takes to leave an instance that does not answer.
const STOOD_STILL: Duration = Duration::from_secs(1);
/// A version has so many bits, as many as the server's numbers; above them stands the connection.
const VERSION_BITS: u32 = 53;
/// So many connections are told apart there. A claim is on its way for seconds.
const CONNECTIONS: u64 = 2_047;

/// The version of an order that was seen over a connection.
pub(super) fn over(connection: u64, version: u64) -> u64 {
    version | (connection % CONNECTIONS + 1) << VERSION_BITS
}

/// The connection over which a version was seen, as `claim.lua` has it, 0 if it goes for any; and the version.
pub(super) fn parted(version: u64) -> (u64, u64) {
    (version >> VERSION_BITS, version & ((1 << VERSION_BITS) - 1))
}

/// A replacement of orders: what those are that nobody has touched since.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Replacement {
    /// Later ones have larger numbers.
    pub(super) generation: u64,
    /// It replaced the orders below this number.
    pub(super) count: u64,
    /// The last version before those of the orders.
    pub(super) before: u64,
    /// How many items and users there are.
    pub(super) ids: (u64, u64),
    /// What a unit costs.
    pub(super) price: i64,
    /// What all is drawn from.
    pub(super) seed: u64,
}

impl Replacement {
    fn version(&self, id: EntityId) -> Option<(u64, u64)> {
        let n = id.as_number().filter(|n| *n < self.count)?;
        Some((n, self.before + n + 1))
    }
}

/// An order as the database shows it, and what it is of if nobody has touched it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Shown {
    pub(super) order: Order,
    pub(super) untouched: Option<Replacement>,
}

#[derive(Debug, Default)]
struct Memory {
    /// The connection over which all of it was seen.
    connection: u64,
    /// When it was used last.
    used: Option<Instant>,
    /// When there are many young ones, the old ones are forgotten, and the young ones are old.
    young: HashMap<EntityId, Order>,
    old: HashMap<EntityId, Order>,
    replacement: Option<Replacement>,
    /// A bit for each order of the replacement: whether it was recalled, or is known to be touched.
    touched: Vec<u64>,
    /// Somebody else has touched an order of the replacement of this generation.
    distrusted: u64,
}

impl Memory {
    fn forget(&mut self, id: EntityId) -> Option<Order> {
        self.young.remove(&id).or_else(|| self.old.remove(&id))
    }

    fn remember(&mut self, id: EntityId, order: Order) {
        self.young.insert(id, order);
        if self.young.len() >= REMEMBERED {
            self.old = std::mem::take(&mut self.young);
        }
    }

    /// Takes an order of the replacement for touched. Whether it was not.
    fn touch(&mut self, n: u64) -> bool {
        let (word, bit) = (usize::try_from(n / 64).unwrap_or(usize::MAX), 1 << (n % 64));
        let untouched = self.touched.get(word).is_some_and(|word| word & bit == 0);
        if untouched {
            self.touched[word] |= bit;
        }
        untouched
    }

    fn learn(&mut self, replacement: Replacement) {
        let newest = self.replacement.map_or(self.distrusted, |known| known.generation);
        if replacement.generation > newest && replacement.count <= MAX_BATCH {
            let words = usize::try_from(replacement.count / 64 + 1).unwrap_or_default();
            self.replacement = Some(replacement);
            self.touched = vec![0; words];
        }
    }

    /// One that nobody has touched, as far as is known here.
    fn draw(&mut self, id: EntityId) -> Option<Order> {
        let replacement = self.replacement?;
        let (n, version) = replacement.version(id)?;
        if !self.touch(n) {
            return None;
        }
        let (user, lines) = seeded(n, replacement.ids, replacement.price, replacement.seed);
        Some(Order { user, lines, state: OrderState::Open, version })
    }
}

/// What this process remembers.
#[derive(Debug, Default)]
pub(super) struct Recollection(Mutex<Memory>);

impl Recollection {
    /// What was seen over this connection, without standing still since.
    fn of(&self, connection: u64) -> MutexGuard<'_, Memory> {
        let (mut memory, now) = (self.0.lock(), Instant::now());
        let stood_still = memory.used.is_some_and(|used| now.saturating_duration_since(used) > STOOD_STILL);
        if memory.connection != connection || stood_still {
            *memory = Memory { connection, ..Memory::default() };
        }
        memory.used = Some(now);
        memory
    }

    /// Forgets everything.
    pub(super) fn clear(&self) {
        *self.0.lock() = Memory::default();
    }

    /// Takes in what was shown of an order. If it `goes_on`, whoever looked claims it now: there is nothing to recall.
    pub(super) fn saw(&self, connection: u64, id: EntityId, shown: &Shown, goes_on: bool) {
        let mut memory = self.of(connection);
        memory.forget(id);
        if let Some(replacement) = shown.untouched {
            memory.learn(replacement);
            if !goes_on {
                return;
            }
        }
        if let Some((n, _)) = memory.replacement.and_then(|replacement| replacement.version(id)) {
            memory.touch(n);
        }
        let lines = shown.order.lines.len();
        if !goes_on && shown.order.state == OrderState::Open && (1..=MAX_LINES).contains(&lines) {
            memory.remember(id, shown.order.clone());
        }
    }

    /// An open order with items, as it was seen last. It is given once: if it is claimed in vain, somebody looks.
    pub(super) fn recall(&self, connection: u64, id: EntityId) -> Option<Order> {
        let mut memory = self.of(connection);
        let mut order = memory.forget(id).or_else(|| memory.draw(id))?;
        order.version = over(connection, order.version);
        Some(order)
    }

    /// An order is being claimed.
    pub(super) fn is_claimed(&self, connection: u64, id: EntityId) {
        self.of(connection).forget(id);
    }

    /// An order was claimed in vain. If it was one that nobody had touched, others may be touched, too: none is recalled for that any more.
    pub(super) fn was_wrong(&self, connection: u64, claim: Claim) {
        let mut memory = self.of(connection);
        let replacement = memory.replacement.filter(|replacement| {
            let untouched = replacement.version(claim.order).map(|(_, version)| over(connection, version));
            untouched == Some(claim.version)
        });
        if let Some(replacement) = replacement {
            memory.distrusted = replacement.generation;
            memory.replacement = None;
            memory.touched = Vec::new();
        }
    }
}

#[cfg(test)]
mod tests {
    use protocol::{Timestamp, TransactionId};

    use super::*;
    use crate::orders::Line;

    fn order(version: u64, lines: usize) -> Shown {
        let line = |n| Line { item: EntityId::number(n), quantity: 1, price: 5 };
        let lines = (0..lines as u64).map(line).collect();
        Shown { order: Order { user: EntityId::number(9), lines, state: OrderState::Open, version }, untouched: None }
    }

    fn untouched(n: u64, replacement: Replacement) -> Shown {
        let (user, lines) = seeded(n, replacement.ids, replacement.price, replacement.seed);
        let order = Order { user, lines, state: OrderState::Open, version: replacement.before + n + 1 };
        Shown { order, untouched: Some(replacement) }
    }

    const FIRST: Replacement = Replacement { generation: 1, count: 100, before: 7, ids: (10, 20), price: 3, seed: 42 };

    #[test]
    fn an_order_is_recalled_once_as_it_was_seen_last_over_this_connection() {
        let (recollection, id) = (Recollection::default(), EntityId::number(1 << 40));
        recollection.saw(1, id, &order(4, 1), false);
        recollection.saw(1, id, &order(6, 2), false);
        let recalled = recollection.recall(1, id).unwrap();
        assert_eq!((recalled.lines.len(), parted(recalled.version)), (2, (2, 6)));
        assert_eq!(recollection.recall(1, id), None);
        recollection.saw(1, id, &order(6, 2), false);
        assert_eq!(recollection.recall(2, id), None, "another connection");
        assert_eq!(recollection.recall(1, id), None, "all is forgotten");
    }

    #[test]
    fn an_instance_that_stood_still_forgets() {
        let (recollection, id) = (Recollection::default(), EntityId::number(1 << 40));
        for (pause, recalls) in [(STOOD_STILL / 2, true), (2 * STOOD_STILL, false)] {
            recollection.saw(1, id, &order(4, 1), false);
            recollection.saw(1, EntityId::number(5), &untouched(5, FIRST), false);
            let used = recollection.0.lock().used.and_then(|used| used.checked_sub(pause));
            assert!(used.is_some());
            recollection.0.lock().used = used;
            assert_eq!(recollection.recall(1, id).is_some(), recalls);
            assert_eq!(recollection.recall(1, EntityId::number(5)).is_some(), recalls);
        }
    }

    #[test]
    fn what_cannot_be_checked_out_at_once_is_not_recalled() {
        let (recollection, id) = (Recollection::default(), EntityId::number(1 << 40));
        let transaction = TransactionId::new(Timestamp(1), [1; 16]);
        let order_of = |state| Order { state, ..order(4, 1).order };
        let paid = Shown { order: order_of(OrderState::Paid(transaction)), untouched: None };
        for shown in [order(4, 0), order(4, MAX_LINES + 1), paid] {
            recollection.saw(1, id, &order(3, 1), false);
            recollection.saw(1, id, &shown, false);
            assert_eq!(recollection.recall(1, id), None, "{shown:?}");
        }
        recollection.saw(1, id, &order(3, 1), true);
        assert_eq!(recollection.recall(1, id), None, "whoever looked claims it");
    }

    #[test]
    fn the_memory_is_bounded() {
        let recollection = Recollection::default();
        let id = |n: usize| EntityId::number((1 << 40) + n as u64);
        for n in 0..3 * REMEMBERED {
            recollection.saw(1, id(n), &order(1, 1), false);
        }
        let memory = recollection.0.lock();
        assert!(memory.young.len() + memory.old.len() <= 2 * REMEMBERED);
        drop(memory);
        assert_eq!(recollection.recall(1, id(0)), None);
        assert!(recollection.recall(1, id(3 * REMEMBERED - 1)).is_some());
    }

    #[test]
    fn those_that_nobody_has_touched_are_known_from_one_of_them() {
        let recollection = Recollection::default();
        let recall = |n| recollection.recall(1, EntityId::number(n));
        recollection.saw(1, EntityId::number(5), &untouched(5, FIRST), true);
        assert_eq!(recall(5), None, "it is being claimed");
        let mut expected = untouched(6, FIRST).order;
        expected.version = over(1, expected.version);
        assert_eq!(recall(6), Some(expected));
        assert_eq!(recall(6), None);
        recollection.saw(1, EntityId::number(7), &order(200, 1), false);
        assert_eq!(recall(7).map(|order| parted(order.version).1), Some(200), "it has been touched");
        assert_eq!(recall(7), None);
        assert_eq!(recall(100), None, "it is not of the replacement");
        // A newer replacement of fewer.
        let second = Replacement { generation: 2, count: 10, before: 500, seed: 43, ..FIRST };
        recollection.saw(1, EntityId::number(8), &untouched(8, second), false);
        assert_eq!(recall(8).map(|order| parted(order.version).1), Some(509));
        assert_eq!(recall(6).map(|order| parted(order.version).1), Some(507));
    }

    #[test]
    fn one_that_was_touched_elsewhere_ends_that() {
        let recollection = Recollection::default();
        recollection.saw(1, EntityId::number(5), &untouched(5, FIRST), true);
        let claim = |n| {
            let order = EntityId::number(n);
            Claim { order, version: recollection.recall(1, order).unwrap().version }
        };
        let (one, other) = (claim(1), claim(2));
        recollection.was_wrong(1, Claim { version: other.version + 1, ..other });
        assert!(recollection.recall(1, EntityId::number(3)).is_some(), "that was no untouched one");
        recollection.was_wrong(1, one);
        assert_eq!(recollection.recall(1, EntityId::number(4)), None);
        recollection.saw(1, EntityId::number(6), &untouched(6, FIRST), true);
        assert_eq!(recollection.recall(1, EntityId::number(7)), None, "the same is not trusted again");
        let second = Replacement { generation: 2, ..FIRST };
        recollection.saw(1, EntityId::number(6), &untouched(6, second), true);
        assert!(recollection.recall(1, EntityId::number(7)).is_some(), "a later one is");
    }
}
