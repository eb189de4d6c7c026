//! Does the money add up? Pure checks over two [`Snapshot`]s, and the [`fetch()`] that reads one over HTTP.
//!
//! | what is compared | rule |
//! |---|---|
//! | each order and its checkout's answer | 2xx → paid; 4xx, never sent or never asked → unpaid; no final answer → either |
//! | each user | starting credit − credit = what his newly paid orders cost |
//! | each item | starting stock − stock = units in newly paid orders |
//! | each user and item | neither credit nor stock is below zero |
//!
//! "Newly paid" is paid now and not paid in the starting snapshot. The rules need nothing but the contract, so they
//! hold a server to account that nobody here wrote.

use std::collections::{BTreeMap, HashMap};
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::client::Answer;
use crate::contract::{Id, Item, Kind, Order, User};

mod fetch;

pub use fetch::{Reading, fetch};

/// How many findings a [`Verdict`] spells out; it counts them all.
pub const MAX_FINDINGS: usize = 100;

/// Orders, items and users at one moment, while no checkout is running.
#[derive(Debug, Default, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Snapshot {
    /// Orders by id.
    pub orders: BTreeMap<Id, Order>,
    /// Items by id.
    pub items: BTreeMap<Id, Item>,
    /// Users by id.
    pub users: BTreeMap<Id, User>,
}

impl Snapshot {
    /// The accounts before any sale, all alike as `batch_init` makes them, and no orders. Prices play no part in the
    /// checks and are 0.
    #[must_use]
    pub fn alike(ids: &Ids, stock: i64, credit: i64) -> Self {
        Self {
            orders: BTreeMap::new(),
            items: ids.items.iter().map(|id| (id.clone(), Item { stock, price: 0 })).collect(),
            users: ids.users.iter().map(|id| (id.clone(), User { credit })).collect(),
        }
    }
}

/// The ids "0" … "n-1" that `batch_init` makes.
#[must_use]
pub fn batch_ids(n: u64) -> Vec<Id> {
    (0..n).map(|number| number.to_string().into()).collect()
}

/// One thing that is off.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "finding", rename_all = "snake_case")]
pub enum Finding {
    /// The checkout was answered 2xx, but the order is unpaid.
    SoldButUnpaid {
        /// The order.
        order: Id,
    },
    /// The checkout was answered 4xx, but the order is paid.
    RefusedButPaid {
        /// The order.
        order: Id,
        /// The answer's status.
        status: u16,
    },
    /// Nobody sent a checkout for the order, but it is paid.
    PaidUnasked {
        /// The order.
        order: Id,
    },
    /// The order was paid at the start and no longer is.
    NoLongerPaid {
        /// The order.
        order: Id,
    },
    /// A user's credit differs from what his paid orders leave.
    Credit {
        /// The user.
        user: Id,
        /// Starting credit less the cost of his newly paid orders.
        expected: i128,
        /// The credit that the server tells.
        actual: i128,
        /// `actual - expected`: negative when he was charged too much.
        off_by: i128,
    },
    /// An item's stock differs from what the paid orders leave.
    Stock {
        /// The item.
        item: Id,
        /// Starting stock less the units in newly paid orders.
        expected: i128,
        /// The stock that the server tells.
        actual: i128,
        /// `actual - expected`: negative when units were lost.
        off_by: i128,
    },
    /// Credit or stock is below zero.
    Negative {
        /// A user or an item.
        kind: Kind,
        /// Its id.
        id: Id,
        /// What the server tells.
        amount: i128,
    },
    /// It was there at the start, or the server gave out its id, and now it cannot be found.
    Vanished {
        /// What it was.
        kind: Kind,
        /// Its id.
        id: Id,
    },
    /// A newly paid order names a user or an item whose starting state nobody read, so it cannot be checked.
    StartUnknown {
        /// A user or an item.
        kind: Kind,
        /// Its id.
        id: Id,
    },
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::SoldButUnpaid { order } => {
                write!(f, "order {order}: the checkout was answered 2xx, but it is unpaid")
            }
            Self::RefusedButPaid { order, status } => {
                write!(f, "order {order}: the checkout was answered {status}, but it is paid")
            }
            Self::PaidUnasked { order } => {
                write!(f, "order {order}: no checkout was sent, but it is paid")
            }
            Self::NoLongerPaid { order } => write!(f, "order {order}: it was paid at the start and no longer is"),
            Self::Credit { user, expected, actual, off_by } => {
                write!(f, "user {user}: credit is {actual} and should be {expected} (off by {off_by:+})")
            }
            Self::Stock { item, expected, actual, off_by } => {
                write!(f, "item {item}: stock is {actual} and should be {expected} (off by {off_by:+})")
            }
            Self::Negative { kind: Kind::Item, id, amount } => write!(f, "item {id}: stock is below zero ({amount})"),
            Self::Negative { kind, id, amount } => {
                write!(f, "{kind} {id}: credit is below zero ({amount})")
            }
            Self::Vanished { kind, id } => write!(f, "{kind} {id}: it can no longer be found"),
            Self::StartUnknown { kind, id } => {
                write!(f, "{kind} {id}: a paid order names it, but its starting state is not known")
            }
        }
    }
}

/// What an audit found.
#[derive(Debug, Default, Clone, PartialEq, Eq, Serialize)]
pub struct Verdict {
    /// Orders looked at.
    pub orders: u64,
    /// Items looked at.
    pub items: u64,
    /// Users looked at.
    pub users: u64,
    /// Orders that are paid now and were not at the start.
    pub newly_paid: u64,
    /// What the newly paid orders cost together.
    pub money: i128,
    /// Units in the newly paid orders together.
    pub units: i128,
    /// How many things are off.
    pub findings_total: u64,
    /// The first [`MAX_FINDINGS`] of them.
    pub findings: Vec<Finding>,
}

impl Verdict {
    /// Whether nothing is off.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.findings_total == 0
    }

    fn add(&mut self, finding: Finding) {
        self.findings_total += 1;
        if self.findings.len() < MAX_FINDINGS {
            self.findings.push(finding);
        }
    }
}

/// Compares the state after a run with the state before it and the answers that the clients got.
///
/// `answers` holds the last checkout answer of each order; orders without one were never asked for. `start` may
/// leave out orders that did not exist yet. Both snapshots must be taken while no checkout is running.
#[must_use]
pub fn check(start: &Snapshot, answers: &HashMap<Id, Answer>, end: &Snapshot) -> Verdict {
    let mut verdict = check_sums(start, end);
    for (id, order) in &end.orders {
        let was_paid = start.orders.get(id).is_some_and(|order| order.paid);
        match (answers.get(id), order.paid) {
            (Some(Answer::Accepted), false) => verdict.add(Finding::SoldButUnpaid { order: id.clone() }),
            (_, false) if was_paid => verdict.add(Finding::NoLongerPaid { order: id.clone() }),
            (Some(&Answer::Refused(status)), true) if !was_paid => {
                verdict.add(Finding::RefusedButPaid { order: id.clone(), status });
            }
            (None | Some(Answer::Unsent), true) if !was_paid => verdict.add(Finding::PaidUnasked { order: id.clone() }),
            _ => {}
        }
    }
    let asked = answers.keys().filter(|&id| !start.orders.contains_key(id));
    for id in start.orders.keys().chain(asked) {
        if !end.orders.contains_key(id) {
            verdict.add(Finding::Vanished { kind: Kind::Order, id: id.clone() });
        }
    }
    verdict
}

/// The part of [`check`] that needs no answers: credit, stock and paid orders agree, and nothing is below zero.
#[must_use]
pub fn check_sums(start: &Snapshot, end: &Snapshot) -> Verdict {
    let mut verdict = check_signs(end);
    let mut spent: BTreeMap<&Id, i128> = BTreeMap::new();
    let mut sold: BTreeMap<&Id, i128> = BTreeMap::new();
    for (id, order) in &end.orders {
        if !order.paid || start.orders.get(id).is_some_and(|before| before.paid) {
            continue;
        }
        verdict.newly_paid += 1;
        verdict.money += i128::from(order.total_cost);
        *spent.entry(&order.user_id).or_default() += i128::from(order.total_cost);
        for (item, quantity) in &order.items {
            verdict.units += i128::from(*quantity);
            *sold.entry(item).or_default() += i128::from(*quantity);
        }
    }
    for (id, before) in &start.users {
        let expected = i128::from(before.credit) - spent.remove(id).unwrap_or(0);
        match end.users.get(id).map(|user| i128::from(user.credit)) {
            None => verdict.add(Finding::Vanished { kind: Kind::User, id: id.clone() }),
            Some(actual) if actual != expected => {
                let off_by = actual - expected;
                verdict.add(Finding::Credit { user: id.clone(), expected, actual, off_by });
            }
            Some(_) => {}
        }
    }
    for (id, before) in &start.items {
        let expected = i128::from(before.stock) - sold.remove(id).unwrap_or(0);
        match end.items.get(id).map(|item| i128::from(item.stock)) {
            None => verdict.add(Finding::Vanished { kind: Kind::Item, id: id.clone() }),
            Some(actual) if actual != expected => {
                let off_by = actual - expected;
                verdict.add(Finding::Stock { item: id.clone(), expected, actual, off_by });
            }
            Some(_) => {}
        }
    }
    for id in spent.into_keys() {
        verdict.add(Finding::StartUnknown { kind: Kind::User, id: id.clone() });
    }
    for id in sold.into_keys() {
        verdict.add(Finding::StartUnknown { kind: Kind::Item, id: id.clone() });
    }
    verdict
}

/// What one snapshot tells without any other: neither credit nor stock is below zero.
#[must_use]
pub fn check_signs(snapshot: &Snapshot) -> Verdict {
    let mut verdict = Verdict {
        orders: snapshot.orders.len() as u64,
        items: snapshot.items.len() as u64,
        users: snapshot.users.len() as u64,
        ..Verdict::default()
    };
    for (id, user) in &snapshot.users {
        if user.credit < 0 {
            verdict.add(Finding::Negative { kind: Kind::User, id: id.clone(), amount: user.credit.into() });
        }
    }
    for (id, item) in &snapshot.items {
        if item.stock < 0 {
            verdict.add(Finding::Negative { kind: Kind::Item, id: id.clone(), amount: item.stock.into() });
        }
    }
    verdict
}

/// Which ids a snapshot is to hold.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Ids {
    /// Orders to read.
    pub orders: Vec<Id>,
    /// Items to read.
    pub items: Vec<Id>,
    /// Users to read.
    pub users: Vec<Id>,
}

impl Ids {
    /// The ranges "0" … "n-1" of `batch_init`.
    #[must_use]
    pub fn batch(orders: u64, items: u64, users: u64) -> Self {
        Self { orders: batch_ids(orders), items: batch_ids(items), users: batch_ids(users) }
    }

    /// Adds the users and items that the orders name and the lists do not hold yet.
    pub fn add_named_by(&mut self, orders: &BTreeMap<Id, Order>) {
        self.users.extend(orders.values().map(|order| order.user_id.clone()));
        self.items.extend(orders.values().flat_map(|order| order.items.iter().map(|(item, _)| item.clone())));
        for list in [&mut self.users, &mut self.items] {
            list.sort_unstable();
            list.dedup();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::Doubt;

    fn order(paid: bool, user: &str, items: &[(&str, i64)], total_cost: i64) -> Order {
        let items = items.iter().map(|&(item, quantity)| (item.into(), quantity)).collect();
        Order { paid, items, user_id: user.into(), total_cost }
    }

    /// Two users with 100, two items with 10 in stock at 5 each, three unpaid orders; then order 0 is sold.
    fn sale() -> (Snapshot, HashMap<Id, Answer>, Snapshot) {
        let mut start = Snapshot::alike(&Ids::batch(0, 2, 2), 10, 100);
        start.orders.insert("0".into(), order(false, "1", &[("0", 1), ("1", 1)], 10));
        start.orders.insert("1".into(), order(false, "0", &[("1", 2)], 10));
        start.orders.insert("2".into(), order(false, "0", &[("1", 2)], 10));
        let mut end = start.clone();
        end.orders.get_mut("0").unwrap().paid = true;
        end.users.get_mut("1").unwrap().credit = 90;
        end.items.get_mut("0").unwrap().stock = 9;
        end.items.get_mut("1").unwrap().stock = 9;
        let answers = HashMap::from([("0".into(), Answer::Accepted), ("1".into(), Answer::Refused(409))]);
        (start, answers, end)
    }

    fn findings(start: &Snapshot, answers: &HashMap<Id, Answer>, end: &Snapshot) -> Vec<Finding> {
        let verdict = check(start, answers, end);
        assert_eq!(verdict.findings_total, verdict.findings.len() as u64);
        verdict.findings
    }

    #[test]
    fn an_honest_sale_is_clean() {
        let (start, answers, end) = sale();
        let verdict = check(&start, &answers, &end);
        assert!(verdict.is_clean(), "{:?}", verdict.findings);
        assert_eq!((verdict.newly_paid, verdict.money, verdict.units), (1, 10, 2));
        assert_eq!((verdict.orders, verdict.items, verdict.users), (3, 2, 2));
    }

    #[test]
    fn an_answer_that_the_order_contradicts_is_named() {
        let (start, mut answers, mut end) = sale();
        answers.insert("2".into(), Answer::Accepted);
        assert_eq!(findings(&start, &answers, &end), [Finding::SoldButUnpaid { order: "2".into() }]);
        answers.insert("0".into(), Answer::Refused(424));
        answers.remove("2");
        assert_eq!(findings(&start, &answers, &end), [Finding::RefusedButPaid { order: "0".into(), status: 424 }]);
        for unasked in [None, Some(Answer::Unsent)] {
            answers.remove("0");
            answers.extend(unasked.map(|answer| ("0".into(), answer)));
            assert_eq!(findings(&start, &answers, &end), [Finding::PaidUnasked { order: "0".into() }]);
        }
        answers.insert("0".into(), Answer::Unknown(Doubt::Lost));
        assert_eq!(findings(&start, &answers, &end), [], "an unknown answer may have been carried out");
        end.orders.remove("1");
        assert_eq!(findings(&start, &answers, &end), [Finding::Vanished { kind: Kind::Order, id: "1".into() }]);
    }

    #[test]
    fn money_and_stock_that_are_off_are_named_with_the_amount() {
        let (start, answers, mut end) = sale();
        end.users.get_mut("1").unwrap().credit = 80;
        end.items.get_mut("1").unwrap().stock = 10;
        assert_eq!(
            findings(&start, &answers, &end),
            [
                Finding::Credit { user: "1".into(), expected: 90, actual: 80, off_by: -10 },
                Finding::Stock { item: "1".into(), expected: 9, actual: 10, off_by: 1 },
            ]
        );
        end.users.remove("1");
        end.items.remove("1");
        assert_eq!(
            findings(&start, &answers, &end),
            [
                Finding::Vanished { kind: Kind::User, id: "1".into() },
                Finding::Vanished { kind: Kind::Item, id: "1".into() },
            ]
        );
    }

    #[test]
    fn an_order_paid_before_the_run_charges_nothing_again() {
        let (start, mut answers, end) = sale();
        let again = end.clone();
        assert_eq!(findings(&end, &answers, &again), [], "asking for a paid order again is answered 2xx");
        answers.insert("0".into(), Answer::Refused(409));
        assert_eq!(findings(&end, &answers, &again), [], "it may stay paid whatever the answer");
        let unpaid = Snapshot { orders: start.orders, ..again };
        assert_eq!(findings(&end, &answers, &unpaid), [Finding::NoLongerPaid { order: "0".into() }]);
    }

    #[test]
    fn below_zero_and_unknown_starts_are_named() {
        let (mut start, answers, mut end) = sale();
        start.users.get_mut("0").unwrap().credit = -3;
        end.users.get_mut("0").unwrap().credit = -3;
        start.users.remove("1");
        start.items.remove("0");
        assert_eq!(
            findings(&start, &answers, &end),
            [
                Finding::Negative { kind: Kind::User, id: "0".into(), amount: -3 },
                Finding::StartUnknown { kind: Kind::User, id: "1".into() },
                Finding::StartUnknown { kind: Kind::Item, id: "0".into() },
            ]
        );
    }

    #[test]
    fn sums_beyond_64_bits_do_not_wrap_and_the_list_is_bounded() {
        let mut start = Snapshot::alike(&Ids::batch(0, 0, 1), 0, i64::MAX);
        let mut end = start.clone();
        for number in 0..300 {
            end.orders.insert(number.to_string().into(), order(true, "0", &[], i64::MAX));
        }
        let verdict = check(&start, &HashMap::new(), &end);
        assert_eq!(verdict.money, i128::from(i64::MAX) * 300);
        assert_eq!((verdict.findings_total, verdict.findings.len()), (301, MAX_FINDINGS));
        start.users.clear();
        assert_eq!(check_sums(&start, &end).findings_total, 1);
    }
}
