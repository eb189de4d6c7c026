//! Operators over HTTP: who is let in, what they see, what they do, and that all of it is kept.

use e2e::http::Response;
use e2e::server::serve;
use e2e::{Client, Server};
use serde_json::{Value, json};

use crate::{assert_refused, shared};

const JSON: (&str, &str) = ("content-type", "application/json");

fn operators(client: &mut Client, target: &str) -> Value {
    let answer = client.get(&format!("/admin{target}"));
    assert_eq!(answer.status, 200, "{target}: {answer:?}");
    answer.json()
}

/// An order that is paid, while payment does not acknowledge it: the server, the order, and the transaction.
struct Stuck {
    server: Server,
    client: Client,
    order: String,
    user: String,
    id: String,
}

impl Stuck {
    fn new() -> Self {
        let server = Server::start(&["--chaos", "--protocol", "2pc", "--attempts", "3"]);
        let mut client = server.client();
        let (item, user) = (client.new_item(10, 30), client.new_user(100));
        let order = client.new_order(&user, &[(&item, 1)]);
        client.done("/payment/fault/set?point=before_commit&action=error");
        assert_eq!(client.check_out(&order).status, 200);
        let id = loop {
            match operators(&mut client, "/transactions?state=stuck").as_array().unwrap().as_slice() {
                [one] => break one["id"].as_str().unwrap().to_owned(),
                found => assert!(found.is_empty(), "{found:?}"),
            }
            std::thread::sleep(std::time::Duration::from_millis(20));
        };
        Self { server, client, order, user, id }
    }

    fn act(&mut self, what: &str, body: &Value) -> Response {
        let target = format!("/admin/transactions/{}/{what}", self.id);
        self.client.send("POST", &target, &[JSON], &body.to_string())
    }

    fn trail(&mut self) -> Vec<Value> {
        operators(&mut self.client, "/trail").as_array().unwrap().clone()
    }
}

#[test]
fn transactions_are_found_by_state_service_order_user_and_age() {
    let Stuck { mut client, server, order, user, id, .. } = Stuck::new();
    client.done("/payment/fault/clear");
    let other_user = client.new_user(0);
    let item = client.new_item(1, 1);
    let other = client.new_order(&other_user, &[(&item, 1)]);
    assert_eq!(client.check_out(&other).status, 409);
    let mut ids = |filter: &str| -> Vec<String> {
        let found = operators(&mut client, &format!("/transactions?{filter}"));
        found.as_array().unwrap().iter().map(|view| view["order"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(ids("").len(), 2);
    assert_eq!(ids("limit=1").len(), 1);
    assert_eq!(ids(&format!("order={order}")), std::slice::from_ref(&order));
    assert_eq!(ids(&format!("user={user}")), std::slice::from_ref(&order));
    assert_eq!(ids(&format!("user={other_user}")), std::slice::from_ref(&other), "of a finished one, too");
    assert_eq!(ids("user=nobody-knows-0").len(), 0);
    assert_eq!(ids("state=stuck&service=stock").len(), 0, "it is stuck at payment");
    assert_eq!(ids("service=stock").len(), 2);
    assert_eq!(ids("min_age_ms=3600000").len(), 0);
    assert_eq!(ids("min_age_ms=0").len(), 2);
    for bad in ["state=lost", "limit=-1", "min_age_ms=soon", "colour=red"] {
        assert_refused(&client.get(&format!("/admin/transactions?{bad}")), 400, "bad_argument", &[]);
    }
    assert_refused(&client.get("/admin/transactions/7"), 400, "bad_argument", &[]);
    let nobody = "0190b6e2-7c1f-7c3a-8f00-000000000000";
    for (method, target) in [("GET", ""), ("POST", "/retry")] {
        let answer = client.send(method, &format!("/admin/transactions/{nobody}{target}"), &[], "");
        assert_refused(&answer, 404, "transaction_not_found", &[("transaction_id", nobody)]);
    }
    let own = server.ask_operator("GET", &format!("/transactions/{id}"));
    let own: Value = own.json();
    assert_eq!(own["order"], json!(order), "the operators' socket knows no prefix, as ever");
    assert_eq!(server.ask_operator("GET", &format!("/admin/transactions/{id}")).status, 200, "and knows it");
}

#[test]
fn what_operators_did_is_kept_through_a_crash() {
    let mut stuck = Stuck::new();
    let wrong = stuck.act("resolve", &json!({ "step": 0, "operator": "ann", "reason": "a slip" }));
    assert_refused(&wrong, 409, "not_stuck", &[]);
    assert_eq!(stuck.act("retry", &json!({ "operator": "bob" })).status, 200);
    assert_eq!(stuck.act("retry", &json!({})).status, 200);
    for nonsense in [json!({ "step": 1 }), json!({ "step": 1, "operator": "", "reason": "x" }), json!([])] {
        let answer = stuck.act("resolve", &nonsense);
        assert!((400..500).contains(&answer.status), "{answer:?}");
    }
    let resolved = stuck.act("resolve", &json!({ "step": 1, "operator": "ann", "reason": "ticket 4711" }));
    assert_eq!(resolved.status, 200, "{resolved:?}");
    let trail = stuck.trail();
    let line = |entry: &Value| {
        let note = &entry["note"];
        let word = |value: &Value| value.as_str().unwrap_or("-").split(':').next().unwrap_or_default().to_owned();
        format!("{} {} {} {}", word(&note["operator"]), word(&note["act"]), note["step"], word(&entry["outcome"]))
    };
    let expected = [
        "ann resolve 1 resolved",
        "not said retry null sent again",
        "bob retry null sent again",
        "ann resolve 0 not_stuck",
    ];
    assert_eq!(trail.iter().map(line).collect::<Vec<_>>(), expected, "the latest first, with what came of it");
    assert!(trail.iter().all(|entry| entry["note"]["transaction"] == json!(stuck.id)));
    stuck.server.kill();
    let Stuck { server, id, .. } = stuck;
    let server = server.restart();
    let mut client = server.client();
    assert_eq!(operators(&mut client, "/trail").as_array().unwrap(), &trail, "a crash takes nothing back");
    let view = operators(&mut client, &format!("/transactions/{id}"));
    // Nobody waits for the write of a finish, so the crash may take it: what follows from one, the acknowledgement of stock, has its place by that.
    let of_happening = |happening: &Value| happening["what"].as_str().unwrap().to_owned();
    let mut what: Vec<String> = view["timeline"].as_array().unwrap().iter().map(of_happening).collect();
    what.retain(|what| what != "acknowledged");
    let begins = ["staged", "agreed", "agreed", "decided", "dead_letter", "retried", "retried", "resolved"];
    assert_eq!(what[..begins.len()], begins, "{view}");
    // A clean stop writes a snapshot, and the trail is in it.
    server.tell_to_end();
    let mut server = server;
    assert!(server.wait().success());
    let server = server.restart();
    assert_eq!(operators(&mut server.client(), "/trail").as_array().unwrap(), &trail);
}

#[test]
fn in_production_operators_need_the_password() {
    let alone = Server::start(&["--production"]);
    assert_refused(&alone.client().get("/admin/transactions"), 403, "operators_only", &[]);
    assert_eq!(alone.ask_operator("GET", "/transactions").status, 200, "the socket is the owner's");
    let word = |command: &mut std::process::Command| _ = command.env("SETTLE_ADMIN__PASSWORD", "sesame");
    let server = Server::start_with(&["--production"], word);
    let mut client = server.client();
    let mut asked = |said: &str| client.send("GET", "/admin/transactions", &[("authorization", said)], "");
    assert_eq!(asked("Bearer sesame").status, 200);
    assert_refused(&asked("Bearer sesam"), 401, "unauthorized", &[]);
    assert_refused(&asked(""), 401, "unauthorized", &[]);
}

#[test]
fn another_sites_page_has_nothing_done_here() {
    let server = Server::start(&["--chaos"]);
    let mut client = server.client();
    client.done("/stock/batch_init/2/5/1");
    client.done("/payment/batch_init/2/5");
    client.done("/orders/batch_init/2/2/2/1");
    let own = "http://localhost";
    let foreign: [&[(&str, &str)]; 4] = [
        &[("origin", "http://evil.example")],
        &[("sec-fetch-site", "cross-site")],
        &[("sec-fetch-site", "same-site"), ("origin", own)],
        &[("origin", "null")],
    ];
    for target in [
        "/orders/checkout/0",
        "/stock/batch_init/2/5/1",
        "/stock/fault/set?point=before_prepare&action=crash",
        "/payment/add_funds/0/5",
        "/admin/audit",
    ] {
        for headers in foreign {
            let answer = client.send("POST", target, headers, "");
            assert_refused(&answer, 403, "cross_site", &[]);
        }
    }
    for headers in foreign {
        assert_refused(&client.send("GET", "/admin/trail", headers, ""), 403, "cross_site", &[]);
        assert_eq!(client.send("GET", "/orders/find/0", headers, "").status, 200, "reading is not refused");
    }
    assert!(!client.order("0").paid);
    assert_eq!(client.credit("0"), 5);
    let own = [("origin", own), ("sec-fetch-site", "same-origin")];
    let answer = client.send("POST", "/orders/checkout/0", &own, "");
    assert_eq!((answer.status, answer.body.as_str()), (200, "Checkout successful"));
    assert!(client.order("0").paid);
}

#[test]
fn another_sites_name_that_points_here_opens_no_door() {
    let server = shared();
    let mut client = server.client();
    let mut asked = |headers: &[(&str, &str)]| client.send("GET", "/admin/transactions?limit=1", headers, "");
    assert_eq!(asked(&[]).status, 200);
    for proxied in [("x-forwarded-for", "127.0.0.1"), ("forwarded", "for=127.0.0.1"), ("via", "1.1 a")] {
        assert_refused(&asked(&[proxied]), 403, "operators_only", &[]);
    }
    let asked_under = |what: &str, host: &str, more: &str| {
        let request = format!("{what} HTTP/1.1\r\nhost: {host}\r\n{more}content-length: 0\r\n\r\n");
        let mut stream = std::net::TcpStream::connect(server.address()).unwrap();
        e2e::http::exchange(&mut stream, request.as_bytes()).unwrap()
    };
    let clears = "POST /stock/fault/clear?point=before_compensate";
    for host in ["evil.example", "evil.example:8000", "localhost.evil.example"] {
        assert_refused(&asked_under("GET /admin/transactions", host, ""), 403, "strange_host", &[]);
        let page = format!("origin: http://{host}\r\nsec-fetch-site: same-origin\r\n");
        assert_refused(&asked_under(clears, host, &page), 403, "strange_host", &[]);
        let seeds = asked_under("POST /stock/batch_init/0/1/1", host, &page);
        assert_refused(&seeds, 403, "strange_host", &[]);
        // What is advised helps.
        let advice = seeds.json()["detail"].to_string();
        assert!(advice.contains("SETTLE_HOSTS") && advice.contains("a password does not help"), "{advice}");
        let tool = asked_under(clears, host, "");
        assert_ne!(tool.json()["code"], "strange_host", "what is no browser may use any name: {}", tool.body);
    }
    let help = String::from_utf8(serve(&["--help"]).output().unwrap().stdout).unwrap();
    assert!(help.contains("--host"), "{help}");
}
