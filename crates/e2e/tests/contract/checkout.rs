//! What a checkout answers, and that the answer is final.

use std::time::{Duration, Instant};

use e2e::client::check_out_at_once;
use e2e::http::Response;
use e2e::{Client, Server};
use serde_json::json;

use crate::{assert_json, assert_refused, assert_text, visitor};

const PROTOCOLS: [&str; 3] = ["2pc", "saga", "auto"];

#[test]
fn a_checkout_pays_the_order_and_takes_what_it_holds() {
    let mut client = visitor();
    let (item, user) = (client.new_item(5, 10), client.new_user(100));
    let order = client.new_order(&user, &[(&item, 3)]);
    assert_text(&client.check_out(&order), "Checkout successful");
    assert!(client.order(&order).paid);
    assert_eq!((client.stock(&item), client.credit(&user)), (2, 70));
}

#[test]
fn a_checkout_answers_in_json_to_who_accepts_it() {
    let mut client = visitor();
    let (item, user) = (client.new_item(5, 10), client.new_user(100));
    let order = client.new_order(&user, &[(&item, 3)]);
    let answer = client.send("POST", &format!("/orders/checkout/{order}"), &[("accept", "application/json")], "");
    assert_json(&answer, &json!({ "order_id": order, "paid": true }));
}

#[test]
fn an_empty_order_is_not_checked_out() {
    let mut client = visitor();
    let user = client.new_user(1);
    let order = client.new_order(&user, &[]);
    assert_refused(&client.check_out(&order), 409, "order_empty", &[("order_id", &order)]);
    assert!(!client.order(&order).paid);
}

#[test]
fn an_order_that_costs_nothing_is_paid_without_credit() {
    let mut client = visitor();
    let (item, user) = (client.new_item(5, 0), client.new_user(0));
    let order = client.new_order(&user, &[(&item, 3)]);
    assert_text(&client.check_out(&order), "Checkout successful");
    assert_eq!((client.stock(&item), client.credit(&user)), (2, 0));
}

#[test]
fn without_stock_nothing_is_taken_and_after_a_restock_the_checkout_succeeds_at_once() {
    for protocol in PROTOCOLS {
        let server = Server::start(&["--protocol", protocol]);
        let mut client = server.client();
        let (plenty, scarce, user) = (client.new_item(5, 10), client.new_item(1, 10), client.new_user(100));
        let order = client.new_order(&user, &[(&plenty, 2), (&scarce, 2)]);
        for _ in 0..3 {
            let answer = client.check_out(&order);
            assert_refused(&answer, 409, "insufficient_stock", &[("item_id", &scarce), ("order_id", &order)]);
            assert!(answer.member("transaction_id").is_some_and(|id| id.len() == 36), "{answer:?}");
            let after = (client.stock(&plenty), client.stock(&scarce), client.credit(&user), client.order(&order).paid);
            assert_eq!(after, (5, 1, 100, false), "{protocol}");
        }
        client.done(&format!("/stock/add/{scarce}/1"));
        assert_text(&client.check_out(&order), "Checkout successful");
        let after = (client.stock(&plenty), client.stock(&scarce), client.credit(&user), client.order(&order).paid);
        assert_eq!(after, (3, 0, 60, true), "{protocol}");
        server.audit();
    }
}

#[test]
fn without_credit_nothing_is_taken_and_with_more_funds_the_checkout_succeeds_at_once() {
    for protocol in PROTOCOLS {
        let server = Server::start(&["--protocol", protocol]);
        let mut client = server.client();
        let (item, user) = (client.new_item(5, 10), client.new_user(19));
        let order = client.new_order(&user, &[(&item, 2)]);
        for _ in 0..3 {
            let answer = client.check_out(&order);
            assert_refused(&answer, 409, "insufficient_credit", &[("user_id", &user), ("order_id", &order)]);
            assert!(answer.member("transaction_id").is_some_and(|id| id.len() == 36), "{answer:?}");
            let after = (client.stock(&item), client.credit(&user), client.order(&order).paid);
            assert_eq!(after, (5, 19, false), "{protocol}");
        }
        client.done(&format!("/payment/add_funds/{user}/1"));
        assert_text(&client.check_out(&order), "Checkout successful");
        assert_eq!((client.stock(&item), client.credit(&user), client.order(&order).paid), (3, 0, true), "{protocol}");
        server.audit();
    }
}

#[test]
fn a_user_or_item_that_does_not_exist_is_named() {
    let mut client = visitor();
    let item = client.new_item(5, 10);
    let nobody = "0190b6e2-7c1f-7c3a-8f00-000000000009";
    let order = client.new_order(nobody, &[(&item, 2)]);
    assert_refused(&client.check_out(&order), 409, "user_not_found", &[("user_id", nobody), ("order_id", &order)]);
    assert_eq!(client.stock(&item), 5);
}

#[test]
fn a_paid_order_can_be_checked_out_again_and_is_not_charged_again() {
    let mut client = visitor();
    let (item, user) = (client.new_item(5, 10), client.new_user(100));
    let order = client.new_order(&user, &[(&item, 2)]);
    for _ in 0..5 {
        assert_text(&client.check_out(&order), "Checkout successful");
        assert_eq!((client.stock(&item), client.credit(&user)), (3, 80));
    }
}

#[test]
fn what_is_read_right_after_the_answer_shows_it() {
    for protocol in PROTOCOLS {
        let server = Server::start(&["--protocol", protocol]);
        let mut client = server.client();
        let (item, user) = (client.new_item(40, 1), client.new_user(1_000));
        let (mut stock, mut credit) = (40, 1_000);
        for round in 0..60 {
            let order = client.new_order(&user, &[(&item, 1)]);
            let answer = client.check_out(&order);
            // Another connection, so that nothing but the answer orders the reads behind the checkout.
            let mut reader = server.client();
            if round < 40 {
                assert_eq!(answer.status, 200, "{answer:?}");
                (stock, credit) = (stock - 1, credit - 1);
            } else {
                assert_refused(&answer, 409, "insufficient_stock", &[]);
            }
            let read = (reader.stock(&item), reader.credit(&user), reader.order(&order).paid);
            assert_eq!(read, (stock, credit, round < 40), "{protocol}, round {round}");
        }
    }
}

#[test]
fn checkouts_of_one_order_at_the_same_time_all_succeed_and_charge_once() {
    for protocol in PROTOCOLS {
        let server = Server::start(&["--protocol", protocol]);
        let mut client = server.client();
        for _ in 0..20 {
            let (item, user) = (client.new_item(50, 10), client.new_user(1_000));
            let order = client.new_order(&user, &[(&item, 2)]);
            for answer in check_out_at_once(server.address(), &[&*order; 8]) {
                assert_text(&answer, "Checkout successful");
            }
            assert_eq!((client.stock(&item), client.credit(&user)), (48, 980), "{protocol}");
        }
        server.audit();
    }
}

#[test]
fn twin_checkouts_with_credit_and_stock_for_exactly_one_are_both_told_that_it_is_paid() {
    for protocol in PROTOCOLS {
        let server = Server::start(&["--protocol", protocol]);
        let mut client = server.client();
        for _ in 0..30 {
            let (item, user) = (client.new_item(2, 10), client.new_user(20));
            let order = client.new_order(&user, &[(&item, 2)]);
            for answer in check_out_at_once(server.address(), &[&*order; 6]) {
                assert_text(&answer, "Checkout successful");
            }
            assert_eq!((client.stock(&item), client.credit(&user)), (0, 0), "{protocol}");
        }
        server.audit();
    }
}

/// Starts a checkout that takes a while, does something meanwhile, and gives the checkout's answer.
fn during_a_checkout<R>(server: &Server, order: &str, meanwhile: impl FnOnce(&mut Client) -> R) -> (Response, R) {
    let mut client = server.client();
    for verb in ["prepare", "execute"] {
        client.done(&format!("/stock/fault/set?point=before_{verb}&action=delay&delay_ms=300&times=1"));
    }
    std::thread::scope(|scope| {
        let slow = scope.spawn(|| server.client().check_out(order));
        let until = Instant::now() + Duration::from_secs(10);
        while client.get("/health/deep").json()["in_flight"] == 0 {
            assert!(Instant::now() < until, "the checkout does not begin");
        }
        let result = meanwhile(&mut client);
        (slow.join().unwrap(), result)
    })
}

#[test]
fn a_second_checkout_waits_for_the_first_and_hears_the_same() {
    for protocol in ["2pc", "saga"] {
        let server = Server::start(&["--protocol", protocol, "--chaos"]);
        let mut client = server.client();
        let (item, user) = (client.new_item(1, 10), client.new_user(100));
        let order = client.new_order(&user, &[(&item, 1)]);
        let (first, second) = during_a_checkout(&server, &order, |client| client.check_out(&order));
        assert_text(&first, "Checkout successful");
        assert_text(&second, "Checkout successful");
        assert_eq!((client.stock(&item), client.credit(&user)), (0, 90));
        let order = client.new_order(&user, &[(&item, 1)]);
        let (first, second) = during_a_checkout(&server, &order, |client| client.check_out(&order));
        assert_refused(&first, 409, "insufficient_stock", &[("item_id", &item)]);
        assert_eq!(first.json(), second.json(), "it is the same transaction's answer");
        assert_eq!((client.stock(&item), client.credit(&user)), (0, 90));
        server.audit();
    }
}

#[test]
fn nothing_is_added_to_an_order_while_it_is_checked_out() {
    let server = Server::start(&["--chaos"]);
    let mut client = server.client();
    let (item, user) = (client.new_item(9, 10), client.new_user(100));
    let order = client.new_order(&user, &[(&item, 1)]);
    let add = |client: &mut Client| client.post(&format!("/orders/addItem/{order}/{item}/1"));
    let (paid, added) = during_a_checkout(&server, &order, add);
    assert_refused(&added, 409, "order_checking_out", &[("order_id", &order)]);
    assert_text(&paid, "Checkout successful");
    assert_eq!((client.stock(&item), client.credit(&user)), (8, 90));
}

#[test]
fn beyond_what_the_shop_can_carry_callers_are_told_to_come_back() {
    let server = Server::start(&["--protocol", "2pc", "--chaos"]);
    let mut client = server.client();
    client.done("/stock/batch_init/1/1000000/1");
    client.done("/payment/batch_init/1/1000000");
    client.done("/orders/batch_init/800/1/1/1");
    // Nobody's checkout gets on, until those that wait for a place have waited for too long.
    client.done("/stock/fault/set?point=before_prepare&action=delay&delay_ms=4000");
    client.done("/stock/fault/set?point=before_abort&action=delay&delay_ms=1500");
    let orders: Vec<String> = (0..800).map(|order| order.to_string()).collect();
    let answers = check_out_at_once(server.address(), &orders.iter().map(String::as_str).collect::<Vec<_>>());
    let overloaded: Vec<_> = answers.iter().filter(|answer| answer.status == 429).collect();
    assert!(!overloaded.is_empty(), "more came than there is room for");
    for answer in overloaded {
        assert_refused(answer, 429, "overloaded", &[]);
        assert!(answer.header("retry-after").parse::<u32>().is_ok(), "{answer:?}");
    }
    for answer in answers.iter().filter(|answer| answer.status != 429) {
        assert_refused(answer, 424, "service_unavailable", &[]);
    }
    client.done("/stock/fault/clear");
    client.wait_until_settled();
    assert_eq!((client.stock("0"), client.credit("0")), (1_000_000, 1_000_000));
    server.audit();
}
