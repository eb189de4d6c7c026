//! Idempotency keys: a repeat gives the same answer and changes nothing; a refusal is not remembered.

use e2e::Server;

use crate::{assert_refused, assert_text, shared, visitor};

#[test]
fn a_repeated_creation_gives_the_same_id() {
    let mut client = visitor();
    for target in ["/payment/create_user", "/stock/item/create/5", "/orders/create/1"] {
        let key = format!("same id {target} {}", client.new_user(0));
        let first = client.post_keyed(target, &key);
        assert_eq!(first.status, 200, "{first:?}");
        assert_eq!(client.post_keyed(target, &key).body, first.body, "{target}");
        assert_ne!(client.post_keyed(target, &format!("{key} 2")).body, first.body, "{target}");
        assert_ne!(client.post(target).body, first.body, "{target}");
    }
}

#[test]
fn a_repeated_change_gives_the_same_answer_and_changes_nothing() {
    let mut client = visitor();
    let (item, user) = (client.new_item(10, 1), client.new_user(10));
    let order = client.new_order(&user, &[]);
    for target in [
        format!("/stock/add/{item}/5"),
        format!("/stock/subtract/{item}/3"),
        format!("/payment/add_funds/{user}/5"),
        format!("/payment/pay/{user}/3"),
        format!("/orders/addItem/{order}/{item}/2"),
    ] {
        let first = client.post_keyed(&target, &target);
        assert_eq!(first.status, 200, "{first:?}");
        for _ in 0..3 {
            assert_eq!(client.post_keyed(&target, &target).body, first.body);
        }
    }
    assert_eq!((client.stock(&item), client.credit(&user), client.order(&order).items[&item]), (12, 12, 2));
}

#[test]
fn a_key_of_another_request_is_refused_and_changes_nothing() {
    let mut client = visitor();
    let (item, user) = (client.new_item(10, 1), client.new_user(10));
    let (order, other) = (client.new_order(&user, &[(&item, 1)]), client.new_order(&user, &[(&item, 1)]));
    for (first, reuse) in [
        (format!("/stock/add/{item}/5"), format!("/stock/add/{item}/6")),
        (format!("/stock/subtract/{item}/5"), format!("/stock/add/{item}/5")),
        (format!("/payment/add_funds/{user}/5"), format!("/payment/add_funds/{user}/50")),
        (format!("/payment/pay/{user}/5"), "/payment/create_user".to_owned()),
        (format!("/orders/addItem/{order}/{item}/1"), format!("/orders/addItem/{order}/{item}/2")),
        (format!("/orders/checkout/{order}"), format!("/orders/checkout/{other}")),
        (format!("/orders/create/{user}"), format!("/orders/checkout/{other}")),
    ] {
        assert_eq!(client.post_keyed(&first, &first).status, 200, "{first}");
        let answer = client.post_keyed(&reuse, &first);
        assert_eq!(answer.status, 422, "{reuse}: {answer:?}");
        assert_refused(&answer, 422, "idempotency_key_reused", &[]);
    }
    assert_eq!((client.stock(&item), client.credit(&user)), (10 - 2, 10 - 2));
    assert!(!client.order(&other).paid);
}

#[test]
fn a_refusal_is_not_remembered() {
    let mut client = visitor();
    let (item, user) = (client.new_item(1, 1), client.new_user(1));
    for (target, remedy, code) in [
        (format!("/stock/subtract/{item}/2"), format!("/stock/add/{item}/1"), "insufficient_stock"),
        (format!("/payment/pay/{user}/2"), format!("/payment/add_funds/{user}/1"), "insufficient_credit"),
    ] {
        for _ in 0..2 {
            assert_refused(&client.post_keyed(&target, &target), 409, code, &[]);
        }
        client.done(&remedy);
        assert_eq!(client.post_keyed(&target, &target).status, 200);
    }
    assert_eq!((client.stock(&item), client.credit(&user)), (0, 0));
}

#[test]
fn a_checkout_that_was_refused_under_a_key_succeeds_under_it_after_a_restock_and_charges_once() {
    let mut client = visitor();
    let (item, user) = (client.new_item(0, 1), client.new_user(9));
    let order = client.new_order(&user, &[(&item, 2)]);
    let target = format!("/orders/checkout/{order}");
    for _ in 0..2 {
        assert_refused(&client.post_keyed(&target, &order), 409, "insufficient_stock", &[("item_id", &item)]);
    }
    client.done(&format!("/stock/add/{item}/9"));
    for _ in 0..3 {
        assert_text(&client.post_keyed(&target, &order), "Checkout successful");
    }
    assert_eq!((client.stock(&item), client.credit(&user)), (7, 7));
}

#[test]
fn one_key_at_the_same_time_changes_once() {
    let server = shared();
    let mut client = server.client();
    let item = client.new_item(0, 1);
    let target = format!("/stock/add/{item}/5");
    let answers: Vec<String> = std::thread::scope(|scope| {
        let threads: Vec<_> =
            (0..16).map(|_| scope.spawn(|| server.client().post_keyed(&target, &target).body)).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    assert!(answers.iter().all(|answer| *answer == format!("Item: {item} stock updated to: 5")), "{answers:?}");
    assert_eq!(client.stock(&item), 5);
}

#[test]
fn a_key_has_1_to_255_bytes_of_plain_text() {
    let mut client = visitor();
    let item = client.new_item(0, 1);
    let target = format!("/stock/add/{item}/1");
    for key in ["", &"k".repeat(256), "schlüssel"] {
        assert_refused(&client.post_keyed(&target, key), 400, "bad_argument", &[]);
    }
    let (one, other) = (("idempotency-key", "one"), ("idempotency-key", "other"));
    assert_refused(&client.send("POST", &target, &[one, other], ""), 400, "bad_argument", &[]);
    assert_eq!(client.post_keyed(&target, &format!("{item}{}", "k".repeat(255 - item.len()))).status, 200);
    assert_eq!(client.stock(&item), 1);
}

#[test]
fn keys_are_remembered_across_a_crash() {
    let mut server = Server::start(&[]);
    let mut client = server.client();
    let (item, user) = (client.new_item(9, 1), client.new_user(9));
    let order = client.new_order(&user, &[(&item, 1)]);
    let targets = [
        "/payment/create_user".to_owned(),
        format!("/orders/create/{user}"),
        format!("/stock/add/{item}/5"),
        format!("/payment/pay/{user}/3"),
        format!("/orders/addItem/{order}/{item}/2"),
        format!("/orders/checkout/{order}"),
    ];
    let before: Vec<_> = targets.iter().map(|target| client.post_keyed(target, target).body).collect();
    server.kill();
    let server = server.restart();
    let mut client = server.client();
    let after: Vec<_> = targets.iter().map(|target| client.post_keyed(target, target).body).collect();
    assert_eq!(before, after);
    assert_eq!((client.stock(&item), client.credit(&user)), (9 + 5 - 3, 9 - 3 - 3));
    let reused = client.post_keyed(&format!("/payment/pay/{user}/2"), &targets[3]);
    assert_refused(&reused, 422, "idempotency_key_reused", &[]);
}
