//! Whatever is asked, the shop answers with success or a 4xx, and its books stay sound. The same properties are fuzzed under `fuzz/`.

use axum::body::Body;
use axum::http::Request;
use proptest::prelude::*;
use shop::{Config, Shop};
use tower_service::Service;

/// Segments that routes are made of, and such as they are not.
fn segment() -> impl Strategy<Value = String> {
    prop_oneof![
        prop::sample::select(vec![
            "orders",
            "stock",
            "payment",
            "create",
            "find",
            "addItem",
            "checkout",
            "batch_init",
            "item",
            "add",
            "subtract",
            "create_user",
            "find_user",
            "add_funds",
            "pay",
            "health",
            "deep",
            "metrics",
            "dlq",
            "status",
            "fault",
            "set",
            "clear",
            "rules",
        ])
        .prop_map(str::to_owned),
        prop::sample::select(vec![
            "0",
            "1",
            "2",
            "-1",
            "007",
            "9007199254740991",
            "9007199254740992",
            "18446744073709551616",
            "1e3",
            "NaN",
            "",
            "%2e%2e",
            "%00",
            "%ff",
            "ü",
            "0190b6e2-7c1f-7c3a-8f00-000000000001",
        ])
        .prop_map(str::to_owned),
        "[a-zA-Z0-9%._-]{0,40}",
    ]
}

#[test]
fn whatever_is_asked_the_answer_is_success_or_a_4xx_and_the_books_stay_sound() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let config = Config { data: folder.path().to_owned(), ..Config::default() };
    let (shop, _) = runtime.block_on(Shop::open(config)).unwrap();
    let request = (
        prop::sample::select(vec!["GET", "POST", "PUT", "DELETE", "OPTIONS"]),
        prop::collection::vec(segment(), 0..7),
        prop::option::of("[ -~]{0,300}"),
        prop::collection::vec(any::<u8>(), 0..200),
    );
    // Seeding at random sizes takes seconds a time; what it may be asked is tested with the contract.
    let is_seeding = |path: &str| path.contains("batch_init");
    let config = ProptestConfig { cases: 4_000, failure_persistence: None, ..ProptestConfig::default() };
    let front = shop.front();
    proptest!(config, |((method, segments, key, body) in request)| {
        let path = format!("/{}", segments.join("/"));
        prop_assume!(!is_seeding(&path));
        let mut builder = Request::builder().method(method).uri(&path);
        if let Some(key) = key {
            builder = builder.header("idempotency-key", key);
        }
        let Ok(request) = builder.body(Body::from(body)) else { return Ok(()) };
        let response = runtime.block_on(front.clone().call(request)).unwrap();
        prop_assert!(!response.status().is_server_error(), "{method} {path}: {}", response.status());
    });
    assert!(shop.ledgers().stock.read(|ledger| ledger::audit::audit(ledger).is_empty()).unwrap());
    assert!(shop.ledgers().payment.read(|ledger| ledger::audit::audit(ledger).is_empty()).unwrap());
    runtime.block_on(shop.shut_down(std::time::Duration::from_secs(5)));
}
