//! Seeding.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use e2e::Server;
use serde_json::json;

use crate::{assert_json, assert_refused, assert_text, visitor};

#[test]
fn makes_the_ids_from_0_to_n_less_1() {
    let server = Server::start(&[]);
    let mut client = server.client();
    assert_json(&client.post("/stock/batch_init/3/50/7"), &json!({ "msg": "Batch init for stock successful" }));
    assert_json(&client.post("/payment/batch_init/5/900"), &json!({ "msg": "Batch init for users successful" }));
    assert_json(&client.post("/orders/batch_init/200/3/5/7"), &json!({ "msg": "Batch init for orders successful" }));
    for item in 0..3 {
        assert_json(&client.get(&format!("/stock/find/{item}")), &json!({ "stock": 50, "price": 7 }));
    }
    for user in 0..5 {
        let user = user.to_string();
        assert_json(&client.get(&format!("/payment/find_user/{user}")), &json!({ "user_id": user, "credit": 900 }));
    }
    assert_refused(&client.get("/stock/find/3"), 404, "item_not_found", &[]);
    assert_refused(&client.get("/payment/find_user/5"), 404, "user_not_found", &[]);
    assert_refused(&client.get("/orders/find/200"), 404, "order_not_found", &[]);
    let (mut users, mut shapes) = ([0; 5], [0; 2]);
    for order in 0..200 {
        let found = client.order(&order.to_string());
        assert!(!found.paid);
        assert_eq!(found.total_cost, 14, "{found:?}");
        assert!(found.items.keys().all(|item| item.parse::<u64>().unwrap() < 3), "{found:?}");
        let quantities: Vec<i64> = found.items.values().copied().collect();
        assert!(quantities == [2] || quantities == [1, 1], "{found:?}");
        shapes[quantities.len() - 1] += 1;
        users[found.user.parse::<usize>().unwrap()] += 1;
    }
    // One in three on the average, of 200; the odds against these bounds are astronomical.
    assert!(shapes[0] > 20 && shapes[1] > 60, "{shapes:?}");
    assert!(users.iter().all(|orders| *orders > 5), "users are random: {users:?}");
}

#[test]
fn replaces_what_the_ids_held_history_included() {
    let server = Server::start(&[]);
    let mut client = server.client();
    for price in [7, 3] {
        client.done(&format!("/stock/batch_init/2/50/{price}"));
        client.done("/payment/batch_init/2/900");
        client.done(&format!("/orders/batch_init/4/2/2/{price}"));
        for order in 0..4 {
            let order = order.to_string();
            assert!(!client.order(&order).paid, "what was paid before is a new order now");
            assert_text(&client.check_out(&order), "Checkout successful");
        }
        assert_eq!(client.stock("0") + client.stock("1"), 2 * 50 - 8);
        assert_eq!(client.credit("0") + client.credit("1"), 2 * 900 - 8 * price);
        server.audit();
    }
    client.done("/stock/batch_init/1/5/9");
    assert_json(&client.get("/stock/find/0"), &json!({ "stock": 5, "price": 9 }));
    assert_eq!(client.get("/stock/find/1").json()["price"], 3, "ids from n on are left alone");
    server.audit();
}

#[test]
fn needs_something_to_choose_from() {
    let mut client = visitor();
    for target in [
        "/orders/batch_init/5/0/5/1",
        "/orders/batch_init/5/5/0/1",
        "/orders/batch_init/0/5/5/1",
        "/stock/batch_init/0/1/1",
        "/payment/batch_init/0/1",
        "/stock/batch_init/1000001/1/1",
        "/payment/batch_init/1000001/1",
        "/orders/batch_init/1000001/1/1/1",
    ] {
        let answer = client.post(target);
        assert_eq!(answer.status, 400, "{target}: {answer:?}");
        assert_refused(&answer, 400, "bad_argument", &[]);
    }
}

#[test]
fn stock_and_money_may_begin_at_nothing() {
    let server = Server::start(&[]);
    let mut client = server.client();
    client.done("/stock/batch_init/1/0/1");
    client.done("/payment/batch_init/1/0");
    assert_eq!((client.stock("0"), client.credit("0")), (0, 0));
}

#[test]
fn is_refused_in_production_and_changes_nothing() {
    let server = Server::start(&["--production"]);
    let mut client = server.client();
    for target in ["/stock/batch_init/1/1/1", "/payment/batch_init/1/1", "/orders/batch_init/1/1/1/1"] {
        assert_refused(&client.post(target), 403, "not_in_production", &[]);
    }
    assert_refused(&client.get("/stock/find/0"), 404, "item_not_found", &[]);
    let (item, user) = (client.new_item(5, 10), client.new_user(100));
    let order = client.new_order(&user, &[(&item, 3)]);
    assert_text(&client.check_out(&order), "Checkout successful");
}

#[test]
fn a_hundred_thousand_of_each_take_seconds_at_most() {
    let server = Server::start(&[]);
    let mut client = server.client();
    let began = Instant::now();
    client.done("/stock/batch_init/100000/1000/1");
    client.done("/payment/batch_init/100000/1000");
    client.done("/orders/batch_init/100000/100000/100000/1");
    let took = began.elapsed();
    println!("100,000 of each took {took:?}");
    assert!(took < Duration::from_secs(10), "{took:?}");
    assert_text(&client.check_out("99999"), "Checkout successful");
}

#[test]
fn under_load_it_works_or_says_that_it_is_busy() {
    for protocol in ["2pc", "saga"] {
        let server = Server::start(&["--protocol", protocol]);
        let seeds = ["/stock/batch_init/10/100/1", "/payment/batch_init/10/500", "/orders/batch_init/300/10/10/1"];
        let mut client = server.client();
        seeds.iter().for_each(|seed| _ = client.done(seed));
        let stop = AtomicBool::new(false);
        let work = |first: usize| {
            let mut client = server.client();
            for order in (0..300).cycle().skip(first) {
                if stop.load(Ordering::Relaxed) {
                    return;
                }
                let answer = client.check_out(&order.to_string());
                assert!(matches!(answer.status, 200 | 409), "{answer:?}");
            }
        };
        let done = std::thread::scope(|scope| {
            (0..4).for_each(|at| _ = scope.spawn(move || work(at * 75)));
            let mut done = 0;
            for seed in seeds.iter().cycle().take(30) {
                let answer = client.post(seed);
                match answer.status {
                    200 => done += 1,
                    _ => assert_refused(&answer, 409, "busy", &[]),
                }
            }
            stop.store(true, Ordering::Relaxed);
            done
        });
        println!("{protocol}: {done} of 30 went through under load");
        server.audit();
        seeds.iter().for_each(|seed| _ = client.done(seed));
        let stock: i64 = (0..10).map(|item| client.stock(&item.to_string())).sum();
        let credit: i64 = (0..10).map(|user| client.credit(&user.to_string())).sum();
        assert_eq!((stock, credit), (1_000, 5_000), "no late commit falls on a replaced account");
        server.audit();
    }
}
