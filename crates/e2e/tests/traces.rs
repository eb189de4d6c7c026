//! What a back end for traces is sent by real processes.

#![allow(clippy::unwrap_used, reason = "in a test a broken expectation is a failed test")]

use std::time::{Duration, Instant};

use e2e::client::PATIENCE;
use e2e::otlp::{BackEnd, Span, assert_is_tree};
use e2e::world::Shop;
use e2e::{Client, Server, System};

/// Client and server of one call, `settle.command.stock` between them, are of the same name.
const TREE: [&str; 8] = [
    "POST /orders/checkout/{order_id}",
    "checkout",
    "decide",
    "payment/commit",
    "payment/prepare",
    "stage",
    "stock/commit",
    "stock/prepare",
];

fn names(spans: &[Span]) -> Vec<&str> {
    let mut names: Vec<_> = spans.iter().map(|span| span.name.as_str()).collect();
    names.sort_unstable();
    names
}

fn named<'a>(spans: &'a [Span], name: &str) -> &'a Span {
    spans.iter().find(|span| span.name == name).unwrap_or_else(|| panic!("no {name} in {spans:#?}"))
}

fn an_order(client: &mut Client, credit: i64) -> String {
    let (item, user) = (client.new_item(5, 30), client.new_user(credit));
    client.new_order(&user, &[(&item, 1)])
}

fn figure(client: &mut Client, name: &str) -> u64 {
    let metrics = client.get("/metrics").body;
    let line = metrics.lines().find(|line| line.starts_with(&format!("{name}_total "))).unwrap().to_owned();
    line.rsplit(' ').next().unwrap().parse().unwrap()
}

#[test]
fn a_checkout_is_one_tree_over_either_protocol() {
    for (protocol, kind) in [("grpc", "application/grpc"), ("http", "application/x-protobuf")] {
        let back_end = BackEnd::start();
        let arguments = [
            "--otlp-endpoint",
            &back_end.url(),
            "--otlp-protocol",
            protocol,
            "--trace-ratio",
            "1",
            "--protocol",
            "2pc",
        ];
        let server = Server::start_with(&arguments, |command| {
            command.env("OTEL_EXPORTER_OTLP_HEADERS", "authorization=Bearer%20hush").env("SETTLE_LOG", "trace");
        });
        let mut client = server.client();
        let order = an_order(&mut client, 100);
        assert_eq!(client.check_out(&order).status, 200);
        let tree = back_end.wait_for("the whole checkout", |spans| names(spans) == TREE);
        assert_is_tree(&tree, TREE[0]);
        let request = named(&tree, TREE[0]);
        for (name, value) in [
            ("http.request.method", "POST"),
            ("http.route", "/orders/checkout/{order_id}"),
            ("http.response.status_code", "200"),
            ("url.path", &format!("/orders/checkout/{order}")),
            ("url.scheme", "http"),
            ("settle.order.id", &order),
        ] {
            assert_eq!(request.attributes.get(name).map(String::as_str), Some(value), "{name} in {request:#?}");
        }
        assert_eq!((request.kind, request.parent.as_str(), request.failed), (2, "", false));
        let transaction = named(&tree, "checkout");
        let id = transaction.attributes["settle.transaction.id"].replace('-', "");
        assert_eq!(transaction.trace, id, "whoever knows the transaction finds its trace");
        assert_eq!(transaction.attributes["settle.transaction.outcome"], "committed");
        let prepare = named(&tree, "stock/prepare");
        assert_eq!(
            (prepare.attributes["rpc.method"].as_str(), prepare.attributes["settle.result"].as_str()),
            ("stock/prepare", "done")
        );
        assert!(tree.iter().all(|span| (span.service.as_str(), span.instance.as_str()) == ("settle", "shop")));
        assert_eq!(back_end.asked()[0], ("Bearer hush".to_owned(), kind.to_owned()));
        assert!(!server.said().contains("hush"), "a secret is in the log");
        // They are counted when the back end has answered, which is after it was seen to have them.
        let until = Instant::now() + PATIENCE;
        while figure(&mut client, "settle_trace_spans_exported") < 8 {
            assert!(Instant::now() < until, "they are not counted: {}", client.get("/metrics").body);
        }
        let lines = server.said();
        let story =
            lines.lines().filter(|line| line.contains(&id) && line.contains("\"span_id\"") && line.contains(&order));
        assert!(story.count() > 5, "log lines name the trace, the span and the order: {lines}");
    }
}

#[test]
fn a_clients_trace_is_gone_on_with_and_answered() {
    let back_end = BackEnd::start();
    let server = Server::start(&["--otlp-endpoint", &back_end.url(), "--trace-ratio", "0", "--protocol", "2pc"]);
    let mut client = server.client();
    let [wanted, unwanted] = [0, 1].map(|_| an_order(&mut client, 100));
    let check_out = |order: &str, flags: &str| {
        let parent = format!("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-{flags}");
        let answer =
            server.client().send("POST", &format!("/orders/checkout/{order}"), &[("traceparent", &parent)], "");
        assert_eq!(answer.status, 200);
        answer.header("traceresponse").to_owned()
    };
    let told = check_out(&unwanted, "00");
    assert!(told.starts_with("00-0af7651916cd43dd8448eb211c80319c-") && told.ends_with("-00"), "{told}");
    let told = check_out(&wanted, "01");
    let tree = back_end.wait_for("the client's trace", |spans| names(spans) == TREE);
    let request = named(&tree, TREE[0]);
    assert_eq!(
        (request.trace.as_str(), request.parent.as_str()),
        ("0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331")
    );
    assert_eq!(told, format!("00-{}-{}-01", request.trace, request.id));
    assert_eq!(
        request.attributes["settle.order.id"], wanted,
        "what its client did not want is not there: one tree, not two"
    );
    assert!(client.check_out(&wanted).header("traceresponse").is_empty(), "whoever sent none is told none");
}

#[test]
fn failures_and_slow_ones_are_kept_though_nothing_is_sampled() {
    let back_end = BackEnd::start();
    let arguments = [
        "--otlp-endpoint",
        &back_end.url(),
        "--trace-ratio",
        "0",
        "--trace-slow-ms",
        "300",
        "--protocol",
        "2pc",
        "--chaos",
    ];
    let server = Server::start(&arguments);
    let mut client = server.client();
    let [plain, slow, failing] = [0, 1, 2].map(|_| an_order(&mut client, 100));
    assert_eq!(client.check_out(&plain).status, 200);
    client.done("/stock/fault/set?point=before_prepare&action=delay&delay_ms=400&times=1");
    assert_eq!(client.check_out(&slow).status, 200);
    let tree = back_end.wait_for("the slow checkout", |spans| names(spans) == TREE);
    assert_is_tree(&tree, TREE[0]);
    let prepare = named(&tree, "stock/prepare");
    assert!(prepare.times.1 - prepare.times.0 >= 380_000_000, "it says where the time went: {prepare:#?}");
    client.done("/payment/fault/set?point=before_prepare&action=error");
    let failed = client.try_send("POST", &format!("/orders/checkout/{failing}"), &[], "").unwrap();
    assert_eq!(failed.status, 424, "{failed:?}");
    let tree = back_end.wait_for("the failure", |spans| spans.iter().any(|span| span.failed && span.name == TREE[0]));
    assert_eq!(named(&tree, TREE[0]).attributes["error.type"], "424");
    back_end.wait_for("what was the matter", |spans| {
        spans.iter().any(|span| span.failed && span.name == "payment/prepare")
            && spans.iter().any(|span| span.name == "checkout")
    });
    let orders: Vec<_> =
        back_end.spans().iter().filter_map(|span| span.attributes.get("settle.order.id").cloned()).collect();
    assert!(!orders.contains(&plain), "one that went well is not exported");
}

#[test]
fn a_back_end_that_is_down_costs_nothing_but_a_counter() {
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let server = Server::start(&["--otlp-endpoint", &format!("http://{nobody}"), "--trace-ratio", "1"]);
    let mut client = server.client();
    let until = Instant::now() + PATIENCE;
    while figure(&mut client, "settle_trace_export_failures") == 0
        || figure(&mut client, "settle_trace_spans_dropped") == 0
    {
        assert!(Instant::now() < until, "nothing is counted");
        let order = an_order(&mut client, 100);
        assert_eq!(client.check_out(&order).status, 200);
    }
    assert_eq!(figure(&mut client, "settle_trace_spans_exported"), 0);
    server.audit();
}

#[test]
fn nothing_is_there_for_traces_unless_they_are_asked_for() {
    let threads = |server: &Server| {
        let tasks = std::fs::read_dir(format!("/proc/{}/task", server.process())).unwrap();
        let names = tasks.map(|task| std::fs::read_to_string(task.unwrap().path().join("comm")).unwrap_or_default());
        names.filter(|name| name.trim() == "traces").count()
    };
    let off = Server::start(&[]);
    let mut client = off.client();
    let order = an_order(&mut client, 100);
    let parent = ("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01");
    let answer = client.send("POST", &format!("/orders/checkout/{order}"), &[parent], "");
    assert_eq!((answer.status, answer.header("traceresponse")), (200, ""));
    assert_eq!((threads(&off), figure(&mut client, "settle_trace_spans_exported")), (0, 0));
    let back_end = BackEnd::start();
    assert_eq!(
        threads(&Server::start(&["--otlp-endpoint", &back_end.url()])),
        1,
        "or this test would find nothing ever"
    );
}

#[test]
fn a_trace_goes_through_all_processes() {
    let back_end = BackEnd::start();
    let endpoint = format!("telemetry.endpoint={}", back_end.url());
    let ratio = [
        "--protocol",
        "2pc",
        "--chaos",
        "--set",
        &endpoint,
        "--set",
        "telemetry.sample_ratio=1",
        "--set",
        "telemetry.slow_ms=700",
    ];
    let mut system = System::start(1, &ratio);
    let mut client = system.client();
    let order = an_order(&mut client, 100);
    assert_eq!(client.check_out(&order).status, 200);
    let whole = |spans: &[Span]| {
        names(spans).into_iter().filter(|name| name.contains("/commit")).count() == 4 && spans.len() == 12
    };
    let tree = back_end.wait_for("the checkout and its commands on both sides", whole);
    assert_is_tree(&tree, TREE[0]);
    for command in ["stock/prepare", "stock/commit", "payment/prepare", "payment/commit"] {
        let of = |kind: i32| tree.iter().find(|span| span.name == command && span.kind == kind).unwrap();
        let (sent, handled) = (of(3), of(2));
        assert_eq!((&handled.parent, sent.service.as_str()), (&sent.id, "settle-order"), "{command}");
        let (service, _) = command.split_once('/').unwrap();
        assert_eq!(handled.service, format!("settle-{service}"), "{command}");
    }
    // Nothing is sampled at an instance that samples nothing; but what is slow is kept, in all processes.
    let none = system.spawn_with(0, "order-none", &["--set", "telemetry.sample_ratio=0"]);
    let [quick, slow] = [0, 1].map(|_| an_order(&mut client, 100));
    let mut at = none.client();
    assert_eq!(at.check_out(&quick).status, 200);
    client.done("/stock/fault/set?point=before_prepare&action=delay&delay_ms=900&times=1");
    system.wait_for_fault(1, "before_prepare", true);
    assert_eq!(at.check_out(&slow).status, 200);
    let of_none = |spans: &[Span]| whole(spans) && spans.iter().any(|span| span.instance == "order-none");
    let tree = back_end.wait_for("the slow checkout", of_none);
    assert_is_tree(&tree, TREE[0]);
    assert_eq!(named(&tree, TREE[0]).attributes["settle.order.id"], slow);
    std::thread::sleep(Duration::from_millis(500));
    let orders = back_end.spans().into_iter().filter(|span| span.instance == "order-none");
    let orders: Vec<_> = orders.filter_map(|span| span.attributes.get("settle.order.id").cloned()).collect();
    assert!(!orders.contains(&quick), "one that went well is not exported");
    system.orders().clear();
}

/// The exemplars of `/metrics`: what their line is about, their trace, and the duration that they tell, which must be within their bucket.
fn exemplars(client: &mut Client) -> Vec<(String, String)> {
    let answer = client.send("GET", "/metrics", &[("accept", "application/openmetrics-text; version=1.0.0")], "");
    assert!(answer.header("content-type").starts_with("application/openmetrics-text"));
    let mut found = Vec::new();
    let mut before: (String, f64) = Default::default();
    for line in answer.body.lines() {
        let Some((series, rest)) = line.split_once("_bucket{le=\"") else { continue };
        let (bound, rest) = rest.split_once("\",").unwrap();
        let (labels, rest) = rest.split_once("} ").unwrap();
        let series = format!("{series}{{{labels}}}");
        let bound: f64 = bound.parse().unwrap();
        let below = if before.0 == series { before.1 } else { 0.0 };
        if let Some((_, exemplar)) = rest.split_once(" # {trace_id=\"") {
            let (trace, numbers) = exemplar.split_once("\"} ").unwrap();
            let (seconds, at) = numbers.split_once(' ').unwrap();
            let (seconds, at): (f64, f64) = (seconds.parse().unwrap(), at.parse().unwrap());
            assert!(seconds > below && seconds <= bound && at > 1.7e9, "{line}");
            found.push((series.clone(), trace.to_owned()));
        }
        before = (series, bound);
    }
    found
}

#[test]
fn durations_name_traces_that_the_back_end_has_and_no_others() {
    let back_end = BackEnd::start();
    let server = Server::start(&["--otlp-endpoint", &back_end.url(), "--trace-ratio", "0", "--protocol", "2pc"]);
    let mut client = server.client();
    let [wanted, unwanted, unsaid] = [0, 1, 2].map(|_| an_order(&mut client, 100));
    let mut check_out = |order: &str, parent: &[(&str, &str)]| {
        assert_eq!(client.send("POST", &format!("/orders/checkout/{order}"), parent, "").status, 200);
    };
    check_out(&unsaid, &[]);
    check_out(&unwanted, &[("traceparent", "00-11111111111111111111111111111111-b7ad6b7169203331-00")]);
    assert_eq!(exemplars(&mut server.client()), [], "nothing is kept yet");
    check_out(&wanted, &[("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")]);
    let mut found = exemplars(&mut client);
    found.sort();
    let trace = "0af7651916cd43dd8448eb211c80319c";
    let of = |series: &str| (series.to_owned(), trace.to_owned());
    assert_eq!(
        found,
        [
            of("settle_http_request_duration_seconds{route=\"/orders/checkout/\"}"),
            of("settle_transaction_duration_seconds{definition=\"checkout\",protocol=\"2pc\",outcome=\"committed\"}"),
        ]
    );
    back_end.wait_for("the trace that is named", |spans| spans[0].trace == trace && names(spans) == TREE);
    assert!(!client.get("/metrics").body.contains(trace), "who does not ask for OpenMetrics gets none");
}

#[test]
fn what_is_slow_is_named_though_nothing_is_sampled() {
    let back_end = BackEnd::start();
    let arguments = ["--chaos", "--otlp-endpoint", &back_end.url(), "--trace-ratio", "0", "--trace-slow-ms", "300"];
    let server = Server::start(&arguments);
    let mut client = server.client();
    let [quick, slow] = [0, 1].map(|_| an_order(&mut client, 100));
    assert_eq!(client.check_out(&quick).status, 200);
    client.done("/stock/fault/set?point=before_prepare&action=delay&delay_ms=400&times=1");
    assert_eq!(client.check_out(&slow).status, 200);
    let found = exemplars(&mut client);
    assert_eq!(found.len(), 2, "{found:?}");
    let trace = &found[0].1;
    let tree = back_end.wait_for("the slow checkout", |spans| spans[0].trace == *trace && spans.len() == TREE.len());
    assert_eq!(named(&tree, TREE[0]).attributes["settle.order.id"], slow);
    assert_eq!(found[1].1, *trace);
}
