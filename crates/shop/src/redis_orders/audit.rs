//! The audit of orders that go on meanwhile: page by page, between two looks at how far the log has come.

use std::collections::{BTreeMap, HashSet};

use ledger::EntityId;
use orchestrator::{Done, StoreFailure};
use protocol::limits::{MAX_AUDIT_PAGE, MAX_SCRIPT_ITEMS};
use redis_store::answers::{Unreadable, list, only, text, unreadable, words};
use redis_store::{Answers, EndedPage, Value, not_done};

use super::{RedisOrders, codec};
use crate::order_store::{OrderDiscrepancy, OrdersAnswer, OrdersAudit, OrdersLook, OrdersSeen, Progress, Sum};
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
    /// What the replaced ones came to.
    replaced: BTreeMap<Sum, i128>,
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
        let Page { cursor, rows, buried, .. } = Page::read(page)?;
        match self.walk {
            Walk::Orders => list(rows)?.iter().try_for_each(|row| self.add(row))?,
            Walk::Replaced => {
                self.overwritten = buried;
                self.replaced.extend(sums(rows)?);
            }
        }
        Ok(cursor)
    }

    /// Adds an order that is paid or claimed.
    fn add(&mut self, row: &Value) -> Result<(), Unreadable> {
        let (order, whole, off) = order(row)?;
        if self.counted.insert(order) {
            self.found.paid.add(&whole);
            self.found.discrepancies.extend(off);
        }
        Ok(())
    }

    fn finish(mut self, told: Result<Progress, StoreFailure>) {
        let Paid { orders, by_user, by_item } = &mut self.found.paid;
        *orders += self.overwritten;
        for (sum, amount) in &self.replaced {
            let (sums, id) = match sum {
                Sum::User(id) => (&mut *by_user, id),
                Sum::Item(id) => (&mut *by_item, id),
            };
            *sums.entry(*id).or_default() += amount;
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

/// A page of the script's.
struct Page<'a> {
    /// Where the next one begins; `0` behind the last.
    cursor: String,
    rows: &'a Value,
    /// How many paid orders were overwritten.
    buried: u64,
    /// How many orders were looked at; 0 where it is about something else.
    looked: u64,
}

impl<'a> Page<'a> {
    fn read(page: &'a Value) -> Result<Self, Unreadable> {
        let [cursor, rows, buried, looked @ ..] = list(page)? else { return Err(unreadable(page)) };
        let cursor = text(cursor)?.ok_or_else(|| unreadable(page))?.to_owned();
        let looked = looked.first().map_or(Ok(0), codec::number)?;
        Ok(Self { cursor, rows, buried: codec::number(buried)?, looked })
    }

    fn next(self) -> Option<String> {
        Some(self.cursor).filter(|cursor| cursor != "0")
    }
}

/// An order that is paid or claimed, and how it contradicts the log.
fn order(row: &Value) -> Result<(EntityId, Order, Option<OrderDiscrepancy>), Unreadable> {
    let parts = words(row)?;
    let [Some(id), Some(state), Some(user), Some(lines), Some(word)] = parts[..] else { return Err(unreadable(row)) };
    let read = || {
        let order: EntityId = id.parse().ok()?;
        let (user, lines) = codec::content(order, user, lines)?;
        Some((order, Order { user, lines, state: codec::state(state)?, version: 0 }))
    };
    let (order, whole) = read().ok_or_else(|| unreadable(row))?;
    let off = match (whole.state, word) {
        (OrderState::Open, _) | (OrderState::CheckingOut(_), "") => None,
        // The transaction of a paid order may be forgotten.
        (OrderState::Paid(_), "f" | "c") => None,
        (OrderState::CheckingOut(transaction), _) => Some(OrderDiscrepancy::ClaimedInVain { order, transaction }),
        (OrderState::Paid(transaction), _) => Some(OrderDiscrepancy::PaidInVain { order, transaction }),
    };
    Ok((order, whole, off))
}

/// What replaced orders came to: the server's names of the sums, and each in two parts.
fn sums(rows: &Value) -> Result<Vec<(Sum, i128)>, Unreadable> {
    let mut sums = Vec::new();
    for pair in words(rows)?.chunks(2) {
        let [Some(name), Some(parts)] = *pair else { return Err(unreadable(rows)) };
        let read = || {
            let (high, low) = parts.split_once(' ')?;
            let sum = match name.split_at_checked(1)? {
                ("u", user) => Sum::User(user.parse().ok()?),
                ("i", item) => Sum::Item(item.parse().ok()?),
                _ => return None,
            };
            Some((sum, (high.parse::<i128>().ok()? << LOW_BITS) + low.parse::<i128>().ok()?))
        };
        if name != "orders" {
            sums.push(read().ok_or_else(|| unreadable(rows))?);
        }
    }
    Ok(sums)
}

/// Reads a page.
type Read = fn(&Value) -> Result<OrdersSeen, Unreadable>;

/// Looks at a page.
pub(super) fn look(orders: &RedisOrders, look: &OrdersLook, done: Finished) {
    let (what, after, read): (_, _, Read) = match look {
        OrdersLook::Orders { after } => ("page", after, seen_orders),
        OrdersLook::Replaced { after } => ("replaced", after, seen_sums),
        OrdersLook::Ended { after } => {
            let ended = |page: Result<EndedPage, StoreFailure>| {
                done(page.map(|(records, next)| OrdersAnswer::Seen(OrdersSeen::Ended { records, next })));
            };
            return orders.log.ended(after, MAX_AUDIT_PAGE, Box::new(ended));
        }
    };
    let mut call = orders.call(what);
    call.word(if after.is_empty() { "0" } else { after }).word(&MAX_AUDIT_PAGE.to_string());
    orders.store.ask(vec![call], move |values| read(only(&values)?).map(OrdersAnswer::Seen), done);
}

fn seen_orders(page: &Value) -> Result<OrdersSeen, Unreadable> {
    let page = Page::read(page)?;
    let (mut rows, mut off) = (Vec::new(), Vec::new());
    for row in list(page.rows)? {
        let (id, whole, contradiction) = order(row)?;
        rows.push((id, whole));
        off.extend(contradiction);
    }
    Ok(OrdersSeen::Orders { rows, looked: page.looked, off, buried: page.buried, next: page.next() })
}

fn seen_sums(page: &Value) -> Result<OrdersSeen, Unreadable> {
    let page = Page::read(page)?;
    Ok(OrdersSeen::Replaced { sums: sums(page.rows)?, buried: page.buried, next: page.next() })
}
