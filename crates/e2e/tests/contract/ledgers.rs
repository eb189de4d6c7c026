//! Stock and payment.

use serde_json::json;

use crate::{assert_json, assert_refused, assert_text, visitor};

const NOBODY: &str = "0190b6e2-7c1f-7c3a-8f00-000000000003";

#[test]
fn an_item_begins_without_stock() {
    let mut client = visitor();
    let created = client.done("/stock/item/create/7");
    let item = created.member("item_id").unwrap();
    assert_json(&created, &json!({ "item_id": item }));
    assert_json(&client.get(&format!("/stock/find/{item}")), &json!({ "stock": 0, "price": 7 }));
}

#[test]
fn a_user_begins_without_credit() {
    let mut client = visitor();
    let created = client.done("/payment/create_user");
    let user = created.member("user_id").unwrap();
    assert_json(&created, &json!({ "user_id": user }));
    assert_json(&client.get(&format!("/payment/find_user/{user}")), &json!({ "user_id": user, "credit": 0 }));
}

#[test]
fn stock_is_added_and_subtracted() {
    let mut client = visitor();
    let item = client.new_item(0, 1);
    let answer = client.post(&format!("/stock/add/{item}/5"));
    assert_text(&answer, &format!("Item: {item} stock updated to: 5"));
    let answer = client.post(&format!("/stock/subtract/{item}/3"));
    assert_text(&answer, &format!("Item: {item} stock updated to: 2"));
    let accept = [("accept", "application/json")];
    let answer = client.send("POST", &format!("/stock/add/{item}/5"), &accept, "");
    assert_json(&answer, &json!({ "item_id": item, "stock": 7 }));
    let answer = client.send("POST", &format!("/stock/subtract/{item}/7"), &accept, "");
    assert_json(&answer, &json!({ "item_id": item, "stock": 0 }));
}

#[test]
fn credit_is_added_and_paid() {
    let mut client = visitor();
    let user = client.new_user(0);
    let answer = client.post(&format!("/payment/add_funds/{user}/5"));
    assert_text(&answer, &format!("User: {user} credit updated to: 5"));
    let answer = client.post(&format!("/payment/pay/{user}/3"));
    assert_text(&answer, &format!("User: {user} credit updated to: 2"));
    let accept = [("accept", "application/json")];
    let answer = client.send("POST", &format!("/payment/add_funds/{user}/5"), &accept, "");
    assert_json(&answer, &json!({ "user_id": user, "credit": 7, "done": true }));
    let answer = client.send("POST", &format!("/payment/pay/{user}/7"), &accept, "");
    assert_json(&answer, &json!({ "user_id": user, "credit": 0 }));
}

#[test]
fn what_is_not_there_is_not_taken() {
    let mut client = visitor();
    let (item, user) = (client.new_item(2, 1), client.new_user(2));
    let answer = client.post(&format!("/stock/subtract/{item}/3"));
    assert_refused(&answer, 409, "insufficient_stock", &[("item_id", &item)]);
    let answer = client.post(&format!("/payment/pay/{user}/3"));
    assert_refused(&answer, 409, "insufficient_credit", &[("user_id", &user)]);
    assert_eq!((client.stock(&item), client.credit(&user)), (2, 2));
}

#[test]
fn unknown_items_and_users_are_not_found() {
    let mut client = visitor();
    for target in [format!("/stock/add/{NOBODY}/1"), format!("/stock/subtract/{NOBODY}/1")] {
        assert_refused(&client.post(&target), 404, "item_not_found", &[("item_id", NOBODY)]);
    }
    for target in [format!("/payment/add_funds/{NOBODY}/1"), format!("/payment/pay/{NOBODY}/1")] {
        assert_refused(&client.post(&target), 404, "user_not_found", &[("user_id", NOBODY)]);
    }
    let item = client.get(&format!("/stock/find/{NOBODY}"));
    assert_refused(&item, 404, "item_not_found", &[("item_id", NOBODY)]);
    let user = client.get(&format!("/payment/find_user/{NOBODY}"));
    assert_refused(&user, 404, "user_not_found", &[("user_id", NOBODY)]);
}
