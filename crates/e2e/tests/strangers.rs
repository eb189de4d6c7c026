//! A client that knows nothing but the contract. It counts 400 to 499 as a failure and anything else as a sale, and it reads the state
//! right after the last answer.

#![allow(clippy::unwrap_used, reason = "in a test a broken expectation is a failed test")]

use std::collections::BTreeMap;

use e2e::client::check_out_at_once;
use e2e::{Client, Server};

fn is_sale(status: &&u16) -> bool {
    !(400..500).contains(*status)
}

fn a_thousand_buyers_of_a_hundred_items(protocol: &str) {
    let server = Server::start(&["--protocol", protocol]);
    let mut client = server.client();
    client.done("/stock/batch_init/1/100/1");
    client.done("/payment/batch_init/1000/1");
    let orders: Vec<String> = (0..1_000).map(|user: u32| client.new_order(&user.to_string(), &[("0", 1)])).collect();
    let answers = check_out_at_once(server.address(), &orders);
    let statuses: Vec<u16> = answers.iter().map(|answer| answer.status).collect();
    let sales = statuses.iter().filter(is_sale).count();
    let (stock, credit) =
        (client.stock("0"), (0..1_000).map(|user: u32| client.credit(&user.to_string())).sum::<i64>());
    assert_eq!((sales, stock, credit), (100, 0, 900), "{protocol}");
    for (user, (order, status)) in orders.iter().zip(&statuses).enumerate() {
        let bought = is_sale(&status);
        assert_eq!(client.order(order).paid, bought, "order {order} was answered {status}");
        assert_eq!(client.credit(&user.to_string()), if bought { 0 } else { 1 });
    }
    server.audit();
}

#[test]
fn a_thousand_buyers_of_a_hundred_items_under_two_phase_commit() {
    a_thousand_buyers_of_a_hundred_items("2pc");
}

#[test]
fn a_thousand_buyers_of_a_hundred_items_under_sagas() {
    a_thousand_buyers_of_a_hundred_items("saga");
}

#[test]
fn a_thousand_buyers_of_a_hundred_items_under_the_adaptive_choice() {
    a_thousand_buyers_of_a_hundred_items("auto");
}

/// What one client did, as far as the sums go.
#[derive(Debug, Default, PartialEq, Eq)]
struct Moved {
    stock: i64,
    credit: i64,
}

/// Restocks, takes, funds, pays and checks out at random; says by how much stock and credit must have changed.
fn trade(client: &mut Client, seed: u64, orders: std::ops::Range<u64>, items: u64, users: u64) -> Moved {
    let mut random = fastrand::Rng::with_seed(seed);
    let mut moved = Moved::default();
    let succeeds = |client: &mut Client, target: String| is_sale(&&client.post(&target).status);
    for order in orders {
        let (item, user, amount) = (random.u64(..items), random.u64(..users), random.i64(1..20));
        match random.u8(..8) {
            0 if succeeds(client, format!("/stock/add/{item}/{amount}")) => moved.stock += amount,
            1 if succeeds(client, format!("/stock/subtract/{item}/{amount}")) => moved.stock -= amount,
            2 if succeeds(client, format!("/payment/add_funds/{user}/{amount}")) => moved.credit += amount,
            3 if succeeds(client, format!("/payment/pay/{user}/{amount}")) => moved.credit -= amount,
            _ => {}
        }
        let wanted = client.order(&order.to_string());
        if succeeds(client, format!("/orders/checkout/{order}")) {
            moved.stock -= wanted.items.values().sum::<i64>();
            moved.credit -= wanted.total_cost;
        }
    }
    moved
}

fn a_mixed_run_adds_up(protocol: &str) {
    const ITEMS: u64 = 10;
    const USERS: u64 = 20;
    const ORDERS: u64 = 800;
    const CLIENTS: u64 = 8;
    let seed = std::env::var("E2E_SEED").map_or_else(|_| fastrand::u64(..), |seed| seed.parse().unwrap());
    println!("{protocol}: E2E_SEED={seed}");
    let server = Server::start(&["--protocol", protocol]);
    let mut client = server.client();
    // Less stock and less credit than all orders want together: some are refused by either side.
    client.done(&format!("/stock/batch_init/{ITEMS}/100/3"));
    client.done(&format!("/payment/batch_init/{USERS}/180"));
    client.done(&format!("/orders/batch_init/{ORDERS}/{ITEMS}/{USERS}/3"));
    let share = ORDERS / CLIENTS;
    let moved: Vec<Moved> = std::thread::scope(|scope| {
        let spawn = |at: u64| {
            let mut client = server.client();
            scope.spawn(move || trade(&mut client, seed.wrapping_add(at), at * share..(at + 1) * share, ITEMS, USERS))
        };
        let threads: Vec<_> = (0..CLIENTS).map(spawn).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    let stock: BTreeMap<u64, i64> = (0..ITEMS).map(|item| (item, client.stock(&item.to_string()))).collect();
    let credit: BTreeMap<u64, i64> = (0..USERS).map(|user| (user, client.credit(&user.to_string()))).collect();
    assert!(stock.values().chain(credit.values()).all(|left| *left >= 0), "{stock:?} {credit:?}");
    let expected = Moved {
        stock: 100 * ITEMS as i64 + moved.iter().map(|moved| moved.stock).sum::<i64>(),
        credit: 180 * USERS as i64 + moved.iter().map(|moved| moved.credit).sum::<i64>(),
    };
    assert_eq!(Moved { stock: stock.values().sum(), credit: credit.values().sum() }, expected, "{protocol}");
    server.audit();
}

#[test]
fn a_mixed_run_adds_up_under_two_phase_commit() {
    a_mixed_run_adds_up("2pc");
}

#[test]
fn a_mixed_run_adds_up_under_sagas() {
    a_mixed_run_adds_up("saga");
}

#[test]
fn a_mixed_run_adds_up_under_the_adaptive_choice() {
    a_mixed_run_adds_up("auto");
}
