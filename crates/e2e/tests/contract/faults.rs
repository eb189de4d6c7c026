//! Fault injection: off unless it is switched on; and with every fault at every point, the answer and the state agree.

use std::time::{Duration, Instant};

use e2e::server::serve;
use e2e::{Client, Server};
use serde_json::{Value, json};

use crate::{assert_json, assert_refused, assert_text, shared};

const VERBS: [&str; 5] = ["prepare", "commit", "abort", "execute", "compensate"];

#[test]
fn nothing_can_be_injected_unless_it_is_switched_on() {
    let (plain, off) = (shared(), Server::start_with(&[], |command| _ = command.env("SETTLE_CHAOS", "0")));
    for server in [&*plain, &off] {
        let mut client = server.client();
        for service in ["stock", "payment"] {
            for answer in [
                client.post(&format!("/{service}/fault/set?point=before_prepare&action=crash")),
                client.post(&format!("/{service}/fault/clear")),
                client.get(&format!("/{service}/fault/rules")),
            ] {
                assert_refused(&answer, 403, "fault_injection_disabled", &[]);
            }
        }
    }
}

#[test]
fn it_can_be_switched_on_by_environment() {
    let server = Server::start_with(&[], |command| _ = command.env("SETTLE_CHAOS", "1"));
    let answer = server.client().post("/stock/fault/set?point=before_prepare&action=error");
    assert_json(&answer, &json!({ "status": "ok" }));
}

#[test]
fn faults_and_production_exclude_each_other() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let output = serve(&["--listen", "127.0.0.1:0", "--chaos", "--production", "--data", data.to_str().unwrap()])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(2), "{output:?}");
    assert!(String::from_utf8_lossy(&output.stderr).contains("--chaos and --production"), "{output:?}");
}

#[test]
fn rules_are_set_shown_and_cleared() {
    let server = Server::start(&["--chaos"]);
    let mut client = server.client();
    let ok = json!({ "status": "ok" });
    let shown =
        |client: &mut Client, service: &str| client.get(&format!("/{service}/fault/rules")).json()["rules"].clone();
    let body = r#"{"point":"after_commit","action":"delay","delay_ms":5,"times":3}"#;
    let json_type = [("content-type", "application/json")];
    assert_json(&client.send("POST", "/stock/fault/set", &json_type, body), &ok);
    assert_json(&client.post("/stock/fault/set?point=before_abort&action=error_after"), &ok);
    let rules = shown(&mut client, "stock");
    assert_eq!(rules.as_object().map(serde_json::Map::len), Some(2), "{rules}");
    assert_eq!(rules["after_commit"]["times"], 3, "{rules}");
    assert_eq!(shown(&mut client, "payment"), json!({}), "each service has its own");
    assert_json(&client.post("/payment/fault/set?point=before_prepare&action=error&percent=20"), &ok);
    let rated = shown(&mut client, "payment");
    assert_eq!((&rated["before_prepare"]["percent"], &rules["after_commit"]["percent"]), (&json!(20), &Value::Null));
    assert_json(&client.post("/payment/fault/clear"), &ok);
    assert_json(&client.post("/stock/fault/clear?point=after_commit"), &ok);
    assert_eq!(shown(&mut client, "stock").as_object().map(serde_json::Map::len), Some(1));
    assert_json(&client.post("/stock/fault/clear"), &ok);
    assert_eq!(shown(&mut client, "stock"), json!({}));
}

#[test]
fn a_rule_that_is_none_is_refused() {
    let server = Server::start(&["--chaos"]);
    let mut client = server.client();
    for target in [
        "/stock/fault/set",
        "/stock/fault/set?point=before_lunch&action=error",
        "/stock/fault/set?point=before_prepare",
        "/stock/fault/set?point=before_prepare&action=explode",
        "/stock/fault/set?point=before_prepare&action=delay",
        "/stock/fault/set?point=before_prepare&action=error&percent=0",
        "/stock/fault/set?point=before_prepare&action=error&percent=101",
        "/stock/fault/set?point=before_prepare&action=delay&delay_ms=0",
        "/stock/fault/set?point=before_prepare&action=delay&delay_ms=60001",
        "/stock/fault/set?point=before_prepare&action=error&times=0",
        // A slip of the pen, that would set it for ever.
        "/stock/fault/set?point=before_prepare&action=error&time=3",
        "/stock/fault/clear?point=before_lunch",
        "/stock/fault/set?point=%FF&action=error",
    ] {
        assert_refused(&client.post(target), 400, "bad_argument", &[]);
    }
    for body in ["{", "[]", "7", "{\"point\":{}}"] {
        let answer = client.send("POST", "/stock/fault/set", &[("content-type", "application/json")], body);
        assert_refused(&answer, 400, "bad_argument", &[]);
    }
    assert_eq!(client.get("/stock/fault/rules").json()["rules"], json!({}));
}

/// An order, and what must become of item and user when it is paid, or is not.
struct Case {
    order: String,
    item: String,
    user: String,
    stock: i64,
    credit: i64,
}

const QUANTITY: i64 = 2;
const PRICE: i64 = 5;

impl Case {
    fn new(client: &mut Client, stock: i64, credit: i64) -> Self {
        let (item, user) = (client.new_item(stock, PRICE), client.new_user(credit));
        let order = client.new_order(&user, &[(&item, QUANTITY)]);
        Self { order, item, user, stock, credit }
    }

    /// What is there is what there was, less what was paid for.
    #[track_caller]
    fn check(&self, client: &mut Client, paid: bool, when: &str) {
        let found = (client.order(&self.order).paid, client.stock(&self.item), client.credit(&self.user));
        let sold = if paid { QUANTITY } else { 0 };
        assert_eq!(found, (paid, self.stock - sold, self.credit - sold * PRICE), "{when}");
    }
}

/// The verbs that a protocol uses.
fn verbs(protocol: &str) -> &'static [&'static str] {
    if protocol == "2pc" { &VERBS[..3] } else { &VERBS[3..] }
}

fn points() -> impl Iterator<Item = (&'static str, String)> {
    VERBS.into_iter().flat_map(|verb| ["before", "after"].map(|moment| (verb, format!("{moment}_{verb}"))))
}

/// Every fault that passes, at every point: the answer is final all the same, and what is read right behind it shows it.
fn a_passing_fault_at_every_point(protocol: &str, service: &str) {
    let server = Server::start(&["--protocol", protocol, "--chaos"]);
    let mut client = server.client();
    let set = format!("/{service}/fault/set");
    for (verb, point) in points() {
        for action in ["action=delay&delay_ms=60&times=1", "action=error&times=2", "action=error_after&times=2"] {
            let what = format!("{protocol}, {service} {point}, {action}");
            client.done(&format!("{set}?point={point}&{action}"));
            // One that is paid, one that payment refuses, one that stock refuses: together they use every verb.
            let paid = Case::new(&mut client, 9, 90);
            assert_text(&client.check_out(&paid.order), "Checkout successful");
            paid.check(&mut client, true, &what);
            let poor = Case::new(&mut client, 9, 1);
            assert_refused(&client.check_out(&poor.order), 409, "insufficient_credit", &[]);
            poor.check(&mut client, false, &what);
            let scarce = Case::new(&mut client, 1, 90);
            assert_refused(&client.check_out(&scarce.order), 409, "insufficient_stock", &[]);
            scarce.check(&mut client, false, &what);
            client.wait_until_settled();
            let left = client.get(&format!("/{service}/fault/rules")).json()["rules"].clone();
            assert_eq!(
                left == json!({}),
                verbs(protocol).contains(&verb),
                "it struck if it could: {what}, left {left}"
            );
            client.done(&format!("/{service}/fault/clear"));
            paid.check(&mut client, true, &what);
        }
    }
    server.audit();
}

#[test]
fn a_passing_fault_at_every_point_of_stock_under_two_phase_commit() {
    a_passing_fault_at_every_point("2pc", "stock");
}

#[test]
fn a_passing_fault_at_every_point_of_payment_under_two_phase_commit() {
    a_passing_fault_at_every_point("2pc", "payment");
}

#[test]
fn a_passing_fault_at_every_point_of_stock_under_sagas() {
    a_passing_fault_at_every_point("saga", "stock");
}

#[test]
fn a_passing_fault_at_every_point_of_payment_under_sagas() {
    a_passing_fault_at_every_point("saga", "payment");
}

/// A fault that stays: the answer comes in time, and when the fault is gone, everything is as the answer said.
fn a_lasting_fault_at_every_point(protocol: &str, service: &str) {
    let server = Server::start(&["--protocol", protocol, "--chaos"]);
    let mut client = server.client();
    for (verb, point) in points().filter(|(verb, _)| verbs(protocol).contains(verb)) {
        for action in ["error", "error_after"] {
            let what = format!("{protocol}, {service} {point}, {action}");
            client.done(&format!("/{service}/fault/set?point={point}&action={action}"));
            let begins = matches!(verb, "prepare" | "execute");
            let undoes = matches!(verb, "abort" | "compensate");
            let (stock, credit) = match (undoes, service) {
                (false, _) => (9, 90),
                (true, "stock") => (9, 1),
                (true, _) => (1, 90),
            };
            let case = Case::new(&mut client, stock, credit);
            let answer = client.check_out(&case.order);
            match (begins, undoes) {
                (true, _) => assert_refused(&answer, 424, "service_unavailable", &[("order_id", &case.order)]),
                (_, true) => assert_eq!(answer.status, 409, "{what}: {answer:?}"),
                _ => assert_text(&answer, "Checkout successful"),
            }
            if !undoes {
                case.check(&mut client, answer.status == 200, &what);
            }
            client.done(&format!("/{service}/fault/clear"));
            client.wait_until_settled();
            case.check(&mut client, answer.status == 200, &what);
            if begins {
                assert_text(&client.check_out(&case.order), "Checkout successful");
                case.check(&mut client, true, &what);
            }
        }
    }
    server.audit();
}

#[test]
fn a_lasting_fault_at_every_point_of_stock_under_two_phase_commit() {
    a_lasting_fault_at_every_point("2pc", "stock");
}

#[test]
fn a_lasting_fault_at_every_point_of_payment_under_two_phase_commit() {
    a_lasting_fault_at_every_point("2pc", "payment");
}

#[test]
fn a_lasting_fault_at_every_point_of_stock_under_sagas() {
    a_lasting_fault_at_every_point("saga", "stock");
}

#[test]
fn a_lasting_fault_at_every_point_of_payment_under_sagas() {
    a_lasting_fault_at_every_point("saga", "payment");
}

/// Clients that check out one order of their own after another until the time is over. Each checkout's status, and how long it took.
fn check_out_for(server: &Server, clients: usize, time: Duration, (item, user): (&str, &str)) -> Vec<(u16, Duration)> {
    let until = Instant::now() + time;
    let shopper = || {
        let mut client = server.client();
        let mut heard = Vec::new();
        while Instant::now() < until {
            let order = client.new_order(user, &[(item, 1)]);
            let began = Instant::now();
            heard.push((client.check_out(&order).status, began.elapsed()));
        }
        heard
    };
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..clients).map(|_| scope.spawn(shopper)).collect();
        threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
    })
}

/// A service that fails all that is new and cleans up behind it: it can be reached, and is of no use.
fn a_service_that_only_begins_nothing_makes_few_wait(protocol: &str, verb: &str) {
    const CLIENTS: usize = 8;
    let server = Server::start(&["--protocol", protocol, "--chaos"]);
    let mut client = server.client();
    let (item, user) = (client.new_item(100_000, 1), client.new_user(100_000));
    client.done(&format!("/payment/fault/set?point=before_{verb}&action=error"));
    let heard = check_out_for(&server, CLIENTS, Duration::from_secs(8), (&item, &user));
    assert!(heard.iter().all(|(status, _)| *status == 424), "{heard:?}");
    let slow = heard.iter().filter(|(_, took)| *took > Duration::from_millis(500)).count();
    println!("{protocol}: {slow} of {} checkouts had to wait", heard.len());
    // Those that were first, all at once; then one probe after the other, of two seconds each.
    assert!((1..=CLIENTS + 6).contains(&slow), "{slow} of {} had to wait", heard.len());
    assert!(heard.len() > 20 * slow, "the others are turned away at once: {} checkouts, {slow} slow", heard.len());

    client.done("/payment/fault/clear");
    let cleared = Instant::now();
    let order = client.new_order(&user, &[(&item, 1)]);
    while client.check_out(&order).status != 200 {
        assert!(cleared.elapsed() < Duration::from_secs(3), "the service is well, and nobody is let through");
        std::thread::sleep(Duration::from_millis(10));
    }
    println!("{protocol}: back after {:?}", cleared.elapsed());
    let heard = check_out_for(&server, CLIENTS, Duration::from_millis(300), (&item, &user));
    assert!(heard.iter().all(|(status, _)| *status == 200), "{heard:?}");
    let sold = heard.len() as i64 + 1;
    client.wait_until_settled();
    assert_eq!((client.stock(&item), client.credit(&user)), (100_000 - sold, 100_000 - sold));
    server.audit();
}

#[test]
fn a_service_that_begins_nothing_makes_few_wait_under_two_phase_commit() {
    a_service_that_only_begins_nothing_makes_few_wait("2pc", "prepare");
}

#[test]
fn a_service_that_begins_nothing_makes_few_wait_under_sagas() {
    a_service_that_only_begins_nothing_makes_few_wait("saga", "execute");
}

#[test]
fn a_single_checkout_that_a_fault_has_failed_can_be_tried_again_at_once() {
    let server = Server::start(&["--protocol", "2pc", "--chaos"]);
    let mut client = server.client();
    let case = Case::new(&mut client, 9, 90);
    client.done("/payment/fault/set?point=before_prepare&action=error");
    assert_refused(&client.check_out(&case.order), 424, "service_unavailable", &[("order_id", &case.order)]);
    client.done("/payment/fault/clear");
    assert_text(&client.check_out(&case.order), "Checkout successful");
    case.check(&mut client, true, "tried again");
}
