//! create, find and addItem.

use serde_json::json;

use crate::{MAX_AMOUNT, assert_json, assert_refused, assert_text, visitor};

#[test]
fn create_answers_with_the_id_of_an_empty_order() {
    let mut client = visitor();
    let user = client.new_user(0);
    let created = client.done(&format!("/orders/create/{user}"));
    let order = created.member("order_id").unwrap();
    assert_json(&created, &json!({ "order_id": order }));
    let found = client.get(&format!("/orders/find/{order}"));
    let members = json!({ "order_id": order, "paid": false, "items": [], "user_id": user, "total_cost": 0 });
    assert_json(&found, &members);
}

#[test]
fn an_order_may_be_created_for_a_user_that_payment_does_not_know() {
    let mut client = visitor();
    let order = client.new_order("4711", &[]);
    assert_eq!(client.order(&order).user, "4711");
}

#[test]
fn find_shows_the_order_in_full_before_and_after_it_is_paid() {
    let mut client = visitor();
    let (one, other, user) = (client.new_item(9, 5), client.new_item(9, 3), client.new_user(100));
    let order = client.new_order(&user, &[(&one, 2), (&other, 1)]);
    let found = client.get(&format!("/orders/find/{order}"));
    let text = format!(
        r#"{{"order_id":"{order}","paid":false,"items":[["{one}",2],["{other}",1]],"user_id":"{user}","total_cost":13}}"#
    );
    assert_json(&found, &serde_json::from_str(&text).unwrap());
    assert_eq!(found.body, text, "members stand in the order in which the contract lists them");
    client.check_out(&order);
    let paid = client.get(&format!("/orders/find/{order}"));
    assert_eq!(paid.body, text.replace("false", "true"));
}

#[test]
fn an_unknown_order_is_not_found() {
    let mut client = visitor();
    let order = "0190b6e2-7c1f-7c3a-8f00-000000000001";
    for answer in [client.get(&format!("/orders/find/{order}")), client.check_out(order)] {
        assert_refused(&answer, 404, "order_not_found", &[("order_id", order)]);
    }
}

#[test]
fn add_item_answers_with_the_orders_total() {
    let mut client = visitor();
    let (one, other) = (client.new_item(0, 5), client.new_item(0, 100));
    let order = client.new_order("1", &[]);
    let first = client.post(&format!("/orders/addItem/{order}/{one}/2"));
    assert_text(&first, &format!("Item: {one} added to: {order} price updated to: 10"));
    let second = client.post(&format!("/orders/addItem/{order}/{other}/3"));
    assert_text(&second, &format!("Item: {other} added to: {order} price updated to: 310"));
    let third = client.post(&format!("/orders/addItem/{order}/{one}/1"));
    assert_text(&third, &format!("Item: {one} added to: {order} price updated to: 315"));
    let items = [(one, 3), (other, 3)].into_iter().collect();
    assert_eq!(client.order(&order).items, items, "units of one item are one line");
}

#[test]
fn add_item_answers_in_json_to_who_accepts_it() {
    let mut client = visitor();
    let item = client.new_item(0, 5);
    let order = client.new_order("1", &[]);
    let accept = [("accept", "text/html, application/json;q=0.9")];
    let answer = client.send("POST", &format!("/orders/addItem/{order}/{item}/2"), &accept, "");
    assert_json(&answer, &json!({ "order_id": order, "item_id": item, "total_cost": 10 }));
}

#[test]
fn add_item_is_refused_for_what_is_unknown() {
    let mut client = visitor();
    let (item, nothing) = (client.new_item(0, 5), "0190b6e2-7c1f-7c3a-8f00-000000000002");
    let order = client.new_order("1", &[]);
    let answer = client.post(&format!("/orders/addItem/{nothing}/{item}/1"));
    assert_refused(&answer, 404, "order_not_found", &[("order_id", nothing)]);
    let answer = client.post(&format!("/orders/addItem/{order}/{nothing}/1"));
    assert_refused(&answer, 404, "item_not_found", &[("item_id", nothing)]);
    assert_eq!(client.order(&order).total_cost, 0);
}

#[test]
fn add_item_is_refused_when_the_order_is_paid() {
    let mut client = visitor();
    let (item, user) = (client.new_item(9, 5), client.new_user(10));
    let order = client.new_order(&user, &[(&item, 1)]);
    client.check_out(&order);
    let answer = client.post(&format!("/orders/addItem/{order}/{item}/1"));
    assert_refused(&answer, 409, "order_paid", &[("order_id", &order)]);
    assert_eq!(client.order(&order).total_cost, 5);
}

#[test]
fn an_orders_total_never_overflows() {
    let mut client = visitor();
    let item = client.new_item(0, MAX_AMOUNT);
    let order = client.new_order("1", &[(&item, 1)]);
    for quantity in [1, 2, MAX_AMOUNT] {
        let answer = client.post(&format!("/orders/addItem/{order}/{item}/{quantity}"));
        assert_refused(&answer, 400, "bad_argument", &[("order_id", &order)]);
    }
    assert_eq!(client.order(&order).total_cost, MAX_AMOUNT);
    let gratis = client.new_item(0, 0);
    let order = client.new_order("1", &[(&gratis, MAX_AMOUNT)]);
    let answer = client.post(&format!("/orders/addItem/{order}/{gratis}/1"));
    assert_refused(&answer, 400, "bad_argument", &[("order_id", &order)]);
    assert_eq!(client.order(&order).items[&gratis], MAX_AMOUNT);
}
