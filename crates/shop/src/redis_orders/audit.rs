//! The audit of orders that go on meanwhile: page by page, between two looks at how far the log has come.

use std::collections::{BTreeMap, HashSet};

use ledger::EntityId;
use orchestrator::{Done, StoreFailure};
use protocol::limits::MAX_SCRIPT_ITEMS;
use redis_store::answers::{Unreadable, list, only, text, unreadable, words};
use redis_store::{Answers, Value, not_done};

use super::{RedisOrders, codec};
use crate::order_store::{OrderDiscrepancy, OrdersAnswer, OrdersAudit, Progress};
use crate::orders::{Order, OrderState, Paid};

type Finished = Done<Result<OrdersAnswer, StoreFailure>>;

/// The lower part of a sum that is kept in two has so many bits.
const LOW_BITS: u32 = 40;

/// What is walked through.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Walk {
    Orders,
    Replaced,
}

/// One that is under way.
struct Audit {
    orders: RedisOrders,
    walk: Walk,
    /// Those counted: the server may show one twice.
    counted: HashSet<EntityId>,
    /// What the replaced ones came to, by the server's own name for each sum.
    replaced: BTreeMap<String, i128>,
    /// How many of them were overwritten.
    overwritten: u64,
    found: OrdersAudit,
    done: Finished,
}

pub(super) fn begin(orders: RedisOrders, done: Finished) {
    let asked = orders.clone();
    asked.progress(Box::new(move |told| match told {
        Err(failure) => done(Err(failure)),
        Ok(began) => {
            let found = OrdersAudit { began, ..OrdersAudit::default() };
            let (counted, replaced) = (HashSet::new(), BTreeMap::new());
            Audit { orders, walk: Walk::Orders, counted, replaced, overwritten: 0, found, done }.page("0");
        }
    }));
}

impl Audit {
    fn page(self, cursor: &str) {
        let mut call = self.orders.call(if self.walk == Walk::Orders { "page" } else { "replaced" });
        call.word(cursor).word(&MAX_SCRIPT_ITEMS.to_string());
        let store = self.orders.store.clone();
        store.go_on(vec![call], Box::new(move |answer| self.turn(answer)));
    }

    fn turn(mut self, answer: Answers) {
        let taken = answer.map_err(not_done).and_then(|values| {
            let taken = only(&values).and_then(|page| self.take(page));
            taken.map_err(|Unreadable(why)| StoreFailure::NotDone(why))
        });
        match taken {
            Err(failure) => (self.done)(Err(failure)),
            Ok(cursor) if cursor != "0" => self.page(&cursor),
            Ok(_) if self.walk == Walk::Orders => Self { walk: Walk::Replaced, ..self }.page("0"),
            Ok(_) => {
                let orders = self.orders.clone();
                orders.progress(Box::new(move |told| self.finish(told)));
            }
        }
    }

    /// Takes a page in, and says where the next one begins: at `0` if that was the last.
    fn take(&mut self, page: &Value) -> Result<String, Unreadable> {
        let [cursor, rows] = list(page)? else { return Err(unreadable(page)) };
        let cursor = text(cursor)?.ok_or_else(|| unreadable(page))?.to_owned();
        match self.walk {
            Walk::Orders => list(rows)?.iter().try_for_each(|row| self.add(row))?,
            Walk::Replaced => {
                for pair in words(rows)?.chunks(2) {
                    let sum = |word: Option<&str>| {
                        let (high, low) = word?.split_once(' ')?;
                        Some((high.parse::<i128>().ok()? << LOW_BITS) + low.parse::<i128>().ok()?)
                    };
                    let [Some(name), sum_words] = *pair else { return Err(unreadable(page)) };
                    let strange = || unreadable(page);
                    if name == "orders" {
                        self.overwritten = sum_words.and_then(|count| count.parse().ok()).ok_or_else(strange)?;
                    } else {
                        self.replaced.insert(name.to_owned(), sum(sum_words).ok_or_else(strange)?);
                    }
                }
            }
        }
        Ok(cursor)
    }

    /// Adds an order that is paid or claimed.
    fn add(&mut self, row: &Value) -> Result<(), Unreadable> {
        let parts = words(row)?;
        let [Some(id), Some(state), Some(user), Some(lines), decision] = parts[..] else { return Err(unreadable(row)) };
        let read = || {
            let order: EntityId = id.parse().ok()?;
            let (user, lines) = codec::content(order, user, lines)?;
            Some((order, Order { user, lines, state: codec::state(state)?, version: 0 }))
        };
        let (order, whole) = read().ok_or_else(|| unreadable(row))?;
        if !self.counted.insert(order) {
            return Ok(());
        }
        let found = &mut self.found;
        match (whole.state, decision) {
            (OrderState::CheckingOut(_), Some("")) | (OrderState::Open, _) => {}
            (OrderState::CheckingOut(transaction), _) => {
                found.discrepancies.push(OrderDiscrepancy::ClaimedInVain { order, transaction });
            }
            // The transaction of a paid order may be forgotten.
            (OrderState::Paid(_), None | Some("c")) => found.paid.add(&whole),
            (OrderState::Paid(transaction), Some(_)) => {
                found.discrepancies.push(OrderDiscrepancy::PaidInVain { order, transaction });
                found.paid.add(&whole);
            }
        }
        Ok(())
    }

    fn finish(mut self, told: Result<Progress, StoreFailure>) {
        let Paid { orders, by_user, by_item } = &mut self.found.paid;
        *orders += self.overwritten;
        for (name, sum) in &self.replaced {
            let (sums, id) = match name.split_at_checked(1) {
                Some(("u", user)) => (&mut *by_user, user.parse()),
                Some(("i", item)) => (&mut *by_item, item.parse()),
                _ => return (self.done)(Err(StoreFailure::NotDone(format!("`{name}` is no sum of orders")))),
            };
            match id {
                Ok(id) => *sums.entry(id).or_default() += sum,
                Err(_) => return (self.done)(Err(StoreFailure::NotDone(format!("`{name}` is no sum of orders")))),
            }
        }
        match told {
            Err(failure) => (self.done)(Err(failure)),
            Ok(ended) => {
                self.found.ended = ended;
                self.found.discrepancies.sort_unstable();
                (self.done)(Ok(OrdersAnswer::Audit(Box::new(self.found))));
            }
        }
    }
}
