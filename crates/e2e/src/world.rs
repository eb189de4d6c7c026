//! A shop full of orders, clients that check each of them out, and what must be true whatever happened meanwhile.
//!
//! | a client heard | then the order is                          |
//! |----------------|--------------------------------------------|
//! | 200            | paid, for good                             |
//! | 4xx            | not paid, and nothing is held for it       |
//! | nothing        | either; whoever asks again is told which   |
//!
//! And item by item, user by user: what is there is what there was less what the paid orders hold.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use crate::client::{Client, Order};

/// A shop under test: one process, or many.
pub trait Shop {
    /// A client of its own connection.
    fn client(&self) -> Client;

    /// Waits until nothing is under way any more: every checkout that was answered is settled.
    fn wait_until_settled(&self);

    /// Waits until everything is settled and audits the shop by its own books, if it can.
    fn audit(&self);
}

/// What a client heard about a checkout.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Heard {
    /// 200.
    Paid,
    /// A 4xx.
    Refused,
    /// No answer.
    Nothing,
}

/// The sizes of a world. Item 0 is scarce and user 0 is poor, so that some checkouts are refused by either side.
#[derive(Debug, Clone, Copy)]
pub struct Size {
    /// Items.
    pub items: u64,
    /// Users.
    pub users: u64,
    /// Orders.
    pub orders: u64,
}

const STOCK: i64 = 1_000_000;
const SCARCE: i64 = 25;
const CREDIT: i64 = 1_000_000_000;
const POOR: i64 = 70;
const PRICE: i64 = 7;

/// What the test knows about the shop.
#[derive(Debug)]
pub struct World {
    size: Size,
    /// Orders that nobody has checked out yet begin here.
    next: AtomicU64,
    /// What was heard last of each order.
    heard: BTreeMap<u64, Heard>,
    /// Orders heard of since the last [`verify`](Self::verify).
    news: Vec<u64>,
    /// Orders that were found to be paid.
    paid: BTreeMap<u64, Order>,
}

impl World {
    /// Fills a shop.
    pub fn seed(client: &mut Client, size: Size) -> Self {
        let Size { items, users, orders } = size;
        client.done(&format!("/stock/batch_init/{items}/{STOCK}/{PRICE}"));
        client.done(&format!("/payment/batch_init/{users}/{CREDIT}"));
        client.done(&format!("/orders/batch_init/{orders}/{items}/{users}/{PRICE}"));
        client.done(&format!("/stock/subtract/0/{}", STOCK - SCARCE));
        client.done(&format!("/payment/pay/0/{}", CREDIT - POOR));
        Self { size, next: AtomicU64::new(0), heard: BTreeMap::new(), news: Vec::new(), paid: BTreeMap::new() }
    }

    /// How many checkouts were heard of so.
    pub fn count(&self, what: Heard) -> usize {
        self.heard.values().filter(|heard| **heard == what).count()
    }

    /// How many orders were found to be paid.
    pub fn paid_count(&self) -> usize {
        self.paid.len()
    }

    /// So many clients check out one order after another, first those that were left without an answer, until they get none, or
    /// the orders are at an end. `meanwhile` runs beside them.
    ///
    /// # Panics
    /// If an answer is neither 200 nor a 4xx, or if a paid order is refused.
    pub fn load<R>(&mut self, address: SocketAddr, clients: usize, meanwhile: impl FnOnce() -> R) -> R {
        self.load_until(address, clients, |_| meanwhile())
    }

    /// The same for no longer than `meanwhile` runs: for a shop that goes on when one of its processes does not.
    ///
    /// # Panics
    /// As [`load`](Self::load).
    pub fn load_while<R>(&mut self, address: SocketAddr, clients: usize, meanwhile: impl FnOnce() -> R) -> R {
        self.load_until(address, clients, |over| {
            let result = meanwhile();
            over.store(true, Ordering::Relaxed);
            result
        })
    }

    fn load_until<R>(&mut self, address: SocketAddr, clients: usize, meanwhile: impl FnOnce(&AtomicBool) -> R) -> R {
        let over = AtomicBool::new(false);
        let again: Vec<u64> =
            self.heard.iter().filter(|(_, heard)| **heard == Heard::Nothing).map(|(order, _)| *order).collect();
        let again = Mutex::new(again);
        let heard = Mutex::new(Vec::new());
        let work = || {
            let mut client = Client::new(address);
            while !over.load(Ordering::Relaxed) {
                let left = again.lock().unwrap().pop();
                let order = left.unwrap_or_else(|| self.next.fetch_add(1, Ordering::Relaxed));
                if order >= self.size.orders {
                    return;
                }
                let what = match client.try_send("POST", &format!("/orders/checkout/{order}"), &[], "") {
                    Ok(answer) if answer.status == 200 => Heard::Paid,
                    Ok(answer) if (400..500).contains(&answer.status) => Heard::Refused,
                    Ok(answer) => panic!("order {order}: {answer:?}"),
                    Err(_) => Heard::Nothing,
                };
                heard.lock().unwrap().push((order, what));
                if what == Heard::Nothing {
                    return;
                }
            }
        };
        let result = std::thread::scope(|scope| {
            (0..clients).for_each(|_| _ = scope.spawn(work));
            meanwhile(&over)
        });
        for (order, what) in heard.into_inner().unwrap() {
            assert!(
                !(self.paid.contains_key(&order) && what == Heard::Refused),
                "order {order} was paid and is refused now"
            );
            self.heard.insert(order, what);
            self.news.push(order);
        }
        result
    }

    /// Asks again for every order that was left without an answer.
    ///
    /// # Panics
    /// As [`load`](Self::load), and if there is no answer now.
    pub fn ask_again(&mut self, server: &impl Shop) {
        let mut client = server.client();
        for (order, heard) in self.heard.iter_mut().filter(|(_, heard)| **heard == Heard::Nothing) {
            let answer = client.check_out(&order.to_string());
            *heard = if answer.status == 200 { Heard::Paid } else { Heard::Refused };
            assert!(
                *heard == Heard::Paid || !self.paid.contains_key(order),
                "order {order} was paid and is refused now: {answer:?}"
            );
            self.news.push(*order);
        }
    }

    /// Compares what the server says now with what it answered since the last time, and with the sums.
    ///
    /// # Panics
    /// If an answer is not true any more, or a unit or a cent is not where it belongs.
    pub fn verify(&mut self, server: &impl Shop) {
        let news = std::mem::take(&mut self.news);
        self.verify_orders(server, &news);
        self.verify_sums(server);
    }

    /// The same for every order that was ever heard of, not only for those since the last time.
    pub fn verify_everything(&mut self, server: &impl Shop) {
        let all: Vec<u64> = self.heard.keys().copied().collect();
        self.verify_orders(server, &all);
        self.verify_sums(server);
    }

    fn verify_orders(&mut self, server: &impl Shop, orders: &[u64]) {
        let mut client = server.client();
        for order in orders {
            let found = client.order(&order.to_string());
            match self.heard[order] {
                Heard::Paid => assert!(found.paid, "order {order} was answered 200 and is not paid"),
                Heard::Refused => assert!(!found.paid, "order {order} was answered with a 4xx and is paid"),
                Heard::Nothing => {}
            }
            if found.paid {
                self.paid.insert(*order, found);
            } else {
                assert!(!self.paid.contains_key(order), "order {order} was paid and is not any more");
            }
        }
    }

    fn verify_sums(&self, server: &impl Shop) {
        let mut client = server.client();
        server.wait_until_settled();
        let mut off = Vec::new();
        for item in 0..self.size.items {
            let sold: i64 = self.paid.values().filter_map(|order| order.items.get(&item.to_string())).sum();
            let expected = if item == 0 { SCARCE } else { STOCK } - sold;
            let found = client.stock(&item.to_string());
            if found != expected {
                off.push(format!("item {item} has {found}, expected {expected}"));
            }
        }
        let mut charged: BTreeMap<&str, i64> = BTreeMap::new();
        for order in self.paid.values() {
            *charged.entry(&order.user).or_default() += order.total_cost;
        }
        for user in 0..self.size.users {
            let name = user.to_string();
            let expected = if user == 0 { POOR } else { CREDIT } - charged.get(&*name).copied().unwrap_or_default();
            let found = client.credit(&name);
            if found != expected {
                off.push(format!("user {user} has {found}, expected {expected}"));
            }
        }
        assert!(off.is_empty(), "{}", off.join("; "));
        server.audit();
    }
}
