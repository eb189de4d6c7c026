//! What the connections of a run ask for.
//!
//! | scenario | orders | what it shows |
//! |---|---|---|
//! | [`uniform`] | two random items each | throughput without contention |
//! | [`hot_item`] | two units of the same item each | throughput when all want one item |
//! | [`sold_out`] | as uniform, with stock for half of them | refusals, and that none of them leaks |
//! | [`mixed`] | made on the way: create, addItem ×2, find, checkout | latency of each kind of request |
//! | [`consistency`] | 1,000 at once for 100 units | exactly 100 sales |
//! | [`fixed`] | none: one fixed request | what client and HTTP layer alone can do |

use std::cell::RefCell;
use std::fmt;
use std::rc::Rc;
use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use serde::Serialize;

use crate::LoadError;
use crate::args::{LoadArgs, within};
use crate::client::{Answer, Client};
use crate::contract::Id;
use crate::pace::Pace;
use crate::tally::{Operation, Tally};

pub mod consistency;
pub mod fixed;
pub mod hot_item;
pub mod mixed;
pub mod sold_out;
pub mod uniform;

/// The most orders, items or users of a run: the audit holds them all in memory.
const MAX_ACCOUNTS: u64 = 10_000_000;
/// The most of stock, credit or price: far from overflow even in a server that counts in 64 bits.
const MAX_AMOUNT: i64 = 1_000_000_000_000;
/// Stock and credit when they are not to run out.
const PLENTY: i64 = 1_000_000;

/// What a run asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Scenario {
    /// See [`uniform`].
    Uniform,
    /// See [`hot_item`].
    HotItem,
    /// See [`sold_out`].
    SoldOut,
    /// See [`mixed`].
    Mixed,
    /// See [`consistency`].
    Consistency,
    /// See [`fixed`].
    Fixed {
        /// The method.
        method: Method,
        /// The path, with its leading slash.
        path: Arc<str>,
    },
}

/// The method of a fixed request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Method {
    /// GET.
    Get,
    /// POST, with an empty body.
    Post,
}

impl FromStr for Scenario {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (method, path) = match text.split_once(':') {
            None => {
                return match text {
                    "uniform" => Ok(Self::Uniform),
                    "hot-item" => Ok(Self::HotItem),
                    "sold-out" => Ok(Self::SoldOut),
                    "mixed" => Ok(Self::Mixed),
                    "consistency" => Ok(Self::Consistency),
                    _ => Err("choose uniform, hot-item, sold-out, mixed, consistency, get:/path or post:/path".into()),
                };
            }
            Some(("get", path)) => (Method::Get, path),
            Some(("post", path)) => (Method::Post, path),
            Some(_) => return Err("a fixed request is get:/path or post:/path".into()),
        };
        if !path.starts_with('/') || !path.bytes().all(|b| b.is_ascii_graphic()) {
            return Err(format!("the path {path:?} must start with / and have no blanks in it"));
        }
        Ok(Self::Fixed { method, path: path.into() })
    }
}

impl fmt::Display for Scenario {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Uniform => f.write_str("uniform"),
            Self::HotItem => f.write_str("hot-item"),
            Self::SoldOut => f.write_str("sold-out"),
            Self::Mixed => f.write_str("mixed"),
            Self::Consistency => f.write_str("consistency"),
            Self::Fixed { method: Method::Get, path } => write!(f, "get:{path}"),
            Self::Fixed { method: Method::Post, path } => write!(f, "post:{path}"),
        }
    }
}

impl Serialize for Scenario {
    fn serialize<S: serde::Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(self)
    }
}

/// How much of everything a run starts from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Sizes {
    /// Orders, each checked out at most once.
    pub orders: u64,
    /// Items.
    pub items: u64,
    /// Users.
    pub users: u64,
    /// Units of each item.
    pub stock: i64,
    /// Credit of each user.
    pub credit: i64,
    /// Price of each item.
    pub price: i64,
}

impl Sizes {
    /// The flags, each scenario's defaults for those not given, and the bounds of both.
    ///
    /// # Errors
    /// [`LoadError::BadInput`] with the flag, its value and what is allowed.
    pub fn new(args: &LoadArgs) -> Result<Self, LoadError> {
        let is_consistency = args.scenario == Scenario::Consistency;
        let orders = args.orders.unwrap_or(if is_consistency { 1_000 } else { 100_000 });
        within("--orders", orders, 1, MAX_ACCOUNTS)?;
        let price = within("--price", args.price, 1, MAX_AMOUNT)?;
        let has_one_item = is_consistency || args.scenario == Scenario::HotItem;
        let most_items = if has_one_item { 1 } else { MAX_ACCOUNTS };
        let items = within("--items", args.items.unwrap_or(most_items.min(1_000)), 1, most_items)?;
        let users = args.users.unwrap_or(if is_consistency { orders } else { 1_000 });
        let users = if is_consistency { within("--users", users, orders, orders)? } else { users };
        within("--users", users, 1, MAX_ACCOUNTS)?;
        let stock = args.stock.unwrap_or(match args.scenario {
            Scenario::HotItem => hot_item::stock(orders),
            Scenario::SoldOut => sold_out::stock(orders, items),
            Scenario::Consistency => consistency::STOCK,
            _ => PLENTY,
        });
        // All orders of one user are never more than all orders, of two units each.
        let spent_at_most = i64::try_from(orders).unwrap_or(i64::MAX).saturating_mul(2).saturating_mul(price);
        let credit = args.credit.unwrap_or(match args.scenario {
            Scenario::Consistency => price,
            _ => spent_at_most.clamp(PLENTY, MAX_AMOUNT),
        });
        within("--stock", stock, 0, MAX_AMOUNT)?;
        within("--credit", credit, 0, MAX_AMOUNT)?;
        Ok(Self { orders, items, users, stock, credit, price })
    }
}

/// What the connections of one run share.
#[derive(Debug)]
pub enum Work {
    /// Orders to check out, each once.
    Checkouts(Queue),
    /// Users and items to make orders from.
    Mixed {
        /// Who may order.
        users: Vec<Id>,
        /// What may be ordered.
        items: Vec<Id>,
    },
    /// One request, again and again.
    Fixed {
        /// The method.
        method: Method,
        /// The path, with its leading slash.
        path: Arc<str>,
    },
}

/// Orders, each handed out once.
#[derive(Debug)]
pub struct Queue {
    orders: Vec<Id>,
    next: AtomicUsize,
}

impl Queue {
    /// Hands the orders out in this sequence.
    #[must_use]
    pub fn new(orders: Vec<Id>) -> Self {
        Self { orders, next: AtomicUsize::new(0) }
    }

    fn take(&self) -> Option<Id> {
        self.orders.get(self.next.fetch_add(1, Ordering::Relaxed)).cloned()
    }
}

/// What a worker has done so far, for the progress line. One per worker, so that no two cores write the same line.
#[derive(Debug, Default)]
pub struct Live {
    /// Requests of any kind.
    pub requests: AtomicU64,
    /// Checkouts (or fixed requests) answered 2xx.
    pub committed: AtomicU64,
    /// Checkouts (or fixed requests) answered 4xx.
    pub refused: AtomicU64,
    /// Checkouts (or fixed requests) without a final answer.
    pub failed: AtomicU64,
}

/// One connection of a run, with all it needs; it stays on its worker's thread.
pub struct Lane {
    /// The connection.
    pub client: Client,
    /// Says when.
    pub pace: Arc<Pace>,
    /// The worker's counts.
    pub tally: Rc<RefCell<Tally>>,
    /// The worker's progress.
    pub live: Arc<Live>,
    /// This connection's random choices.
    pub random: fastrand::Rng,
}

impl Lane {
    /// Asks until the run is over.
    pub async fn drive(&mut self, work: &Work) {
        match work {
            Work::Checkouts(queue) => uniform::drive(self, queue).await,
            Work::Mixed { users, items } => mixed::drive(self, users, items).await,
            Work::Fixed { method, path } => fixed::drive(self, *method, path).await,
        }
    }

    /// Waits for its turn, sends one request and counts the answer; `None` when the run is over.
    async fn ask(&mut self, operation: Operation, method: Method, path: fmt::Arguments<'_>) -> Option<Answer> {
        let due = self.pace.next().await?;
        let answer = match method {
            Method::Get => self.client.get(path).await,
            Method::Post => self.client.post(path).await,
        };
        self.tally.borrow_mut().record(operation, due, answer, self.client.body());
        if answer == Answer::Unsent && self.client.found_nobody() {
            self.tally.borrow_mut().note_nobody();
        }
        self.live.requests.fetch_add(1, Ordering::Relaxed);
        if operation.is_goal() {
            let count = match answer {
                Answer::Accepted => &self.live.committed,
                Answer::Refused(_) => &self.live.refused,
                Answer::Unknown(_) | Answer::Unsent => &self.live.failed,
            };
            count.fetch_add(1, Ordering::Relaxed);
        }
        Some(answer)
    }

    /// Notes what a checkout was answered, for the audit.
    fn note(&self, order: Id, answer: Answer) {
        self.tally.borrow_mut().answers.push((order, answer));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scenario_reads_back_as_it_was_written() {
        for text in ["uniform", "hot-item", "sold-out", "mixed", "consistency", "get:/health", "post:/a/b?c=d"] {
            assert_eq!(text.parse::<Scenario>().unwrap().to_string(), text);
        }
        for bad in ["", "Uniform", "put:/x", "get:x", "post:/a b", "get:/\r\n"] {
            assert!(bad.parse::<Scenario>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_queue_hands_each_order_out_once() {
        let queue = Queue::new(vec!["a".into(), "b".into()]);
        assert_eq!([queue.take(), queue.take(), queue.take()], [Some("a".into()), Some("b".into()), None]);
    }
}
