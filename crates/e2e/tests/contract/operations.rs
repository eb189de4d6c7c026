//! Health, metrics, dead letters.

use std::io::Write;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use e2e::http::Response;
use e2e::{Client, Server};
use serde_json::json;

use crate::{assert_json, assert_refused, assert_text, visitor};

#[test]
fn every_service_says_that_it_is_well() {
    let mut client = visitor();
    for target in ["/health", "/orders/health", "/stock/health", "/payment/health"] {
        assert_json(&client.get(target), &json!({ "status": "ok" }));
    }
    let deep = client.get("/health/deep");
    assert!(deep.body.starts_with(r#"{"status":"ok""#), "the status comes first: {deep:?}");
    assert_eq!(deep.json()["services"], json!({ "orders": "ok", "stock": "ok", "payment": "ok" }));
}

/// Cargo builds the shop, and then becomes it.
#[test]
fn a_shop_that_another_program_became_began_when_it_became_it() {
    const BEFORE: Duration = Duration::from_secs(3);
    let server = Server::start_with(&[], |command| {
        let mut another = Command::new("sh");
        another.args(["-c", &format!("sleep {}; exec \"$0\" \"$@\"", BEFORE.as_secs())]);
        another.arg(command.get_program()).args(command.get_args());
        for (name, value) in command.get_envs() {
            match value {
                Some(value) => another.env(name, value),
                None => another.env_remove(name),
            };
        }
        another.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        *command = another;
    });
    let mut client = server.client();
    let deadline = Instant::now() + Duration::from_secs(10);
    let shop = loop {
        let snapshot = client.get("/dashboard/snapshot").json();
        match snapshot["instances"].get(0) {
            Some(shop) => break shop.clone(),
            None => assert!(Instant::now() < deadline, "{snapshot}"),
        }
    };
    let [since, started] = ["since", "started"].map(|name| shop[name].as_u64().unwrap());
    assert!(started <= since && since - started < BEFORE.as_millis() as u64 - 500, "{shop}");
}

#[test]
fn every_service_has_metrics_and_they_count() {
    let server = Server::start(&[]);
    let mut client = server.client();
    let (item, user) = (client.new_item(1, 1), client.new_user(9));
    let order = client.new_order(&user, &[(&item, 1)]);
    client.check_out(&order);
    let refused = client.new_order(&user, &[(&item, 1)]);
    client.check_out(&refused);
    client.wait_until_settled();
    for target in ["/metrics", "/orders/metrics", "/stock/metrics", "/payment/metrics"] {
        let answer = client.get(target);
        assert_eq!(answer.status, 200);
        assert!(answer.header("content-type").starts_with("text/plain; version=0.0.4"), "{answer:?}");
        for sample in [
            r#"settle_http_requests_total{route="/orders/checkout/",status="200"} 1"#,
            r#"settle_http_requests_total{route="/orders/checkout/",status="409"} 1"#,
            r#"settle_transactions_total{definition="checkout",protocol="2pc",outcome="committed"} 1"#,
            r#"settle_transactions_total{definition="checkout",protocol="2pc",outcome="refused"} 1"#,
            "settle_transactions_in_flight 0",
            "# TYPE settle_http_request_duration_seconds histogram",
        ] {
            assert!(answer.body.contains(sample), "{target} lacks {sample}: {}", answer.body);
        }
        assert!(!answer.body.contains(&order), "no id is a label");
    }
    let newer = client.send("GET", "/metrics", &[("accept", "application/openmetrics-text; version=1.0.0")], "");
    assert!(
        newer.header("content-type").starts_with("application/openmetrics-text") && newer.body.ends_with("# EOF\n")
    );
    // Prometheus's own linter has nothing to say.
    let mut linter = Command::new("promtool");
    let mut linter = linter.args(["check", "metrics"]).stdin(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    linter.stdin.take().unwrap().write_all(client.get("/metrics").body.as_bytes()).unwrap();
    let said = linter.wait_with_output().unwrap();
    assert!(said.status.success(), "{}", String::from_utf8_lossy(&said.stderr));
}

#[test]
fn the_server_describes_itself() {
    let server = Server::start(&[]);
    let mut client = server.client();
    let document = client.get("/openapi.json");
    assert_eq!((document.status, document.header("content-type")), (200, "application/json"));
    let described = document.json();
    assert_eq!(described["openapi"], "3.1.0");
    assert!(described["paths"]["/orders/checkout/{order}"]["post"]["responses"]["409"].is_object(), "{described}");
    let page = client.get("/api");
    assert_eq!((page.status, page.header("content-type")), (200, "text/html; charset=utf-8"));
    // What a page loads from elsewhere is not there in an emergency, and tells others who looks.
    assert!(!page.body.contains("://"), "the page loads something from elsewhere");
    let operators = server.ask_operator("GET", "/openapi.json").json();
    assert!(operators["paths"]["/audit"]["post"].is_object(), "{operators}");
}

#[test]
fn without_dead_letters_there_are_none() {
    let mut client = visitor();
    let answer = client.get("/orders/dlq/status");
    assert_json(&answer, &json!({ "count": 0, "latest": [] }));
    assert_eq!(answer.body, r#"{"count":0,"latest":[]}"#);
}

/// Asks until the answer is as wanted.
fn wait_for(client: &mut Client, target: &str, wanted: impl Fn(&Response) -> bool) -> Response {
    let until = Instant::now() + Duration::from_secs(60);
    loop {
        let answer = client.try_send("GET", target, &[], "").unwrap();
        if wanted(&answer) {
            return answer;
        }
        assert!(Instant::now() < until, "{target} never became so: {answer:?}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn a_service_that_fails_is_seen_turned_away_and_listed_and_everything_settles_when_it_is_back() {
    let server = Server::start(&["--protocol", "2pc", "--chaos"]);
    let mut client = server.client();
    let (item, user) = (client.new_item(20, 1), client.new_user(100));
    let orders: Vec<_> = (0..12).map(|_| client.new_order(&user, &[(&item, 1)])).collect();
    client.done("/payment/fault/set?point=before_commit&action=error");
    let began = Instant::now();
    let check_out = |order: &String| server.client().check_out(order).status;
    let answers: Vec<u16> = std::thread::scope(|scope| {
        let threads: Vec<_> = orders.iter().map(|order| scope.spawn(|| check_out(order))).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    let paid = answers.iter().filter(|status| **status == 200).count();
    assert!(paid > 0, "the decision is made, whatever becomes of the commits: {answers:?}");

    // It answers nothing at all any more, and its breaker opens: the shop is up, and says that checkouts would fail.
    client.done("/payment/fault/set?point=before_prepare&action=error");
    client.done("/payment/fault/set?point=before_abort&action=error");
    let late: Vec<_> = (0..5).map(|_| client.new_order(&user, &[(&item, 1)])).collect();
    std::thread::scope(|scope| {
        let threads: Vec<_> = late.iter().map(|order| scope.spawn(|| check_out(order))).collect();
        assert!(threads.into_iter().all(|thread| thread.join().unwrap() == 424));
    });
    let deep = wait_for(&mut client, "/health/deep", |answer| answer.status == 503);
    assert!(deep.body.starts_with(r#"{"status":"down""#), "{deep:?}");
    assert_eq!(deep.json()["services"]["payment"], "breaker open", "{deep:?}");
    assert_eq!(client.get("/health").status, 200);
    let order = client.new_order(&user, &[(&item, 1)]);
    assert_refused(&client.check_out(&order), 424, "service_unavailable", &[("service", "payment")]);
    assert!(!client.order(&order).paid);

    // After many attempts the branches are dead letters; at most ten are shown.
    let stuck = paid + late.len();
    let all = |answer: &Response| answer.json()["count"] == stuck;
    let listed = wait_for(&mut client, "/orders/dlq/status", all).json();
    println!("dead letters after {:?}", began.elapsed());
    let latest = listed["latest"].as_array().unwrap();
    assert_eq!(latest.len(), stuck.min(10), "{listed}");
    for letter in latest {
        assert_eq!(letter["service"], "payment", "{letter}");
        assert!(letter["verb"] == "commit" || letter["verb"] == "abort", "{letter}");
        assert!(letter["attempts"].as_u64() >= Some(20), "{letter}");
    }

    // The service is back, and an operator has the letters sent again.
    client.done("/payment/fault/clear");
    for letter in server.ask_operator("GET", "/transactions?state=stuck").json().as_array().unwrap() {
        let id = letter["id"].as_str().unwrap();
        assert_eq!(server.ask_operator("POST", &format!("/transactions/{id}/retry")).status, 200);
    }
    client.wait_until_settled();
    wait_for(&mut client, "/orders/dlq/status", |answer| answer.json()["count"] == 0);
    wait_for(&mut client, "/health/deep", |answer| answer.status == 200);
    assert_text(&client.check_out(&order), "Checkout successful");
    let sold = orders.iter().filter(|order| client.order(order).paid).count() as i64 + 1;
    assert_eq!((client.stock(&item), client.credit(&user)), (20 - sold, 100 - sold));
    server.audit();
}
