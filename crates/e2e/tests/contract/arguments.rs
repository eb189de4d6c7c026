//! Numbers that are none, sums that overflow, ids of nothing: for every route that takes them.

use e2e::Client;

use crate::{MAX_AMOUNT, assert_refused, visitor};

/// What is no number at all, or too large for any: whatever the route.
const NO_NUMBERS: [&str; 15] = [
    "-1",
    "1.5",
    "+5",
    "1e3",
    "abc",
    "NaN",
    "0x10",
    "%20",
    "1%2F2",
    "%EF%BC%91",
    "9007199254740992",
    "9223372036854775807",
    "9223372036854775808",
    "18446744073709551617",
    "999999999999999999999999999999999999999999999999999999999999",
];

fn refuses_every(client: &mut Client, numbers: &[&str], target: impl Fn(&str) -> String) {
    for number in numbers {
        let target = target(number);
        let answer = client.post(&target);
        assert_eq!(answer.status, 400, "{target}: {answer:?}");
        assert_refused(&answer, 400, "bad_argument", &[]);
    }
}

#[test]
fn prices_must_be_numbers() {
    let mut client = visitor();
    refuses_every(&mut client, &NO_NUMBERS, |price| format!("/stock/item/create/{price}"));
}

#[test]
fn amounts_of_stock_and_credit_must_be_positive_numbers() {
    let mut client = visitor();
    let (item, user) = (client.new_item(5, 1), client.new_user(5));
    for numbers in [&NO_NUMBERS[..], &["0", "-0", "00"]] {
        refuses_every(&mut client, numbers, |amount| format!("/stock/add/{item}/{amount}"));
        refuses_every(&mut client, numbers, |amount| format!("/stock/subtract/{item}/{amount}"));
        refuses_every(&mut client, numbers, |amount| format!("/payment/add_funds/{user}/{amount}"));
        refuses_every(&mut client, numbers, |amount| format!("/payment/pay/{user}/{amount}"));
    }
    assert_eq!((client.stock(&item), client.credit(&user)), (5, 5));
}

#[test]
fn quantities_must_be_positive_numbers() {
    let mut client = visitor();
    let item = client.new_item(5, 1);
    let order = client.new_order("1", &[]);
    for numbers in [&NO_NUMBERS[..], &["0"]] {
        refuses_every(&mut client, numbers, |quantity| format!("/orders/addItem/{order}/{item}/{quantity}"));
    }
    assert!(client.order(&order).items.is_empty());
}

#[test]
fn what_batch_init_is_told_must_be_numbers() {
    let mut client = visitor();
    refuses_every(&mut client, &NO_NUMBERS, |n| format!("/orders/batch_init/{n}/1/1/1"));
    refuses_every(&mut client, &NO_NUMBERS, |n| format!("/orders/batch_init/1/{n}/1/1"));
    refuses_every(&mut client, &NO_NUMBERS, |n| format!("/orders/batch_init/1/1/{n}/1"));
    refuses_every(&mut client, &NO_NUMBERS, |n| format!("/orders/batch_init/1/1/1/{n}"));
    refuses_every(&mut client, &NO_NUMBERS, |n| format!("/stock/batch_init/{n}/1/1"));
    refuses_every(&mut client, &NO_NUMBERS, |n| format!("/stock/batch_init/1/{n}/1"));
    refuses_every(&mut client, &NO_NUMBERS, |n| format!("/stock/batch_init/1/1/{n}"));
    refuses_every(&mut client, &NO_NUMBERS, |n| format!("/payment/batch_init/{n}/1"));
    refuses_every(&mut client, &NO_NUMBERS, |n| format!("/payment/batch_init/1/{n}"));
    // Two items must not cost more than any order may.
    refuses_every(&mut client, &[&MAX_AMOUNT.to_string()], |price| format!("/orders/batch_init/1/1/1/{price}"));
}

#[test]
fn balances_never_overflow() {
    let mut client = visitor();
    let (item, user) = (client.new_item(MAX_AMOUNT, 1), client.new_user(MAX_AMOUNT - 1));
    for amount in [1, MAX_AMOUNT] {
        assert_refused(&client.post(&format!("/stock/add/{item}/{amount}")), 400, "bad_argument", &[]);
    }
    for amount in [2, MAX_AMOUNT] {
        assert_refused(&client.post(&format!("/payment/add_funds/{user}/{amount}")), 400, "bad_argument", &[]);
    }
    assert_eq!((client.stock(&item), client.credit(&user)), (MAX_AMOUNT, MAX_AMOUNT - 1));
    client.done(&format!("/payment/add_funds/{user}/1"));
    assert_eq!(client.credit(&user), MAX_AMOUNT);
}

/// Texts that are the id of nothing: other ways of writing a number, other scripts, other folders, bytes that are no text.
fn ids_of_nothing() -> Vec<String> {
    let known = [
        "007",
        "-1",
        "+1",
        "1.0",
        "18446744073709551616",
        "null",
        "undefined",
        "00000000-0000-0000-0000-000000000007",
        "0190B6E2-7C1F-7C3A-8F00-00000000000G",
        "%F0%9F%9B%92",
        "%D0%B7%D0%B0%D0%BA%D0%B0%D0%B7",
        "a%2Fb",
        "..%2F..%2Fetc%2Fpasswd",
        "%00",
        "%0d%0aset-cookie:x",
        "%FF%FE",
        "%",
        "'%20OR%201=1--",
        "%22%3E%3Cscript%3E",
    ];
    known.into_iter().map(str::to_owned).chain([10, 36, 37, 4_000].map(|length| "x".repeat(length))).collect()
}

#[test]
fn the_ids_of_nothing_are_unknown_everywhere() {
    let mut client = visitor();
    let item = client.new_item(5, 1);
    let order = client.new_order("1", &[]);
    for id in ids_of_nothing() {
        for (target, code) in [
            (format!("/orders/find/{id}"), "order_not_found"),
            (format!("/stock/find/{id}"), "item_not_found"),
            (format!("/payment/find_user/{id}"), "user_not_found"),
        ] {
            assert_unknown(&client.get(&target), &target, code);
        }
        for (target, code) in [
            (format!("/orders/create/{id}"), "user_not_found"),
            (format!("/orders/addItem/{id}/{item}/1"), "order_not_found"),
            (format!("/orders/addItem/{order}/{id}/1"), "item_not_found"),
            (format!("/orders/checkout/{id}"), "order_not_found"),
            (format!("/stock/add/{id}/1"), "item_not_found"),
            (format!("/stock/subtract/{id}/1"), "item_not_found"),
            (format!("/payment/add_funds/{id}/1"), "user_not_found"),
            (format!("/payment/pay/{id}/1"), "user_not_found"),
        ] {
            assert_unknown(&client.post(&target), &target, code);
        }
    }
}

/// 404; or 400 for bytes that are no text at all.
fn assert_unknown(answer: &e2e::http::Response, target: &str, code: &str) {
    let garbled = target.contains("%FF");
    let (status, code) = if garbled { (400, "bad_argument") } else { (404, code) };
    assert_eq!(answer.status, status, "{target}: {answer:?}");
    assert_refused(answer, status, code, &[]);
}
