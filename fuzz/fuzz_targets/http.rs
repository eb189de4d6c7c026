//! Whatever is asked, the shop answers with success or a 4xx, and its books stay sound.
//! `cargo fuzz run http`
//!
//! The input: a byte for the method, a byte for the number of header bytes, the path up to a newline, then headers and body.

#![no_main]

use std::sync::OnceLock;

use axum::body::Body;
use axum::http::{Method, Request};
use libfuzzer_sys::fuzz_target;
use shop::{Config, Front, Shop};
use tokio::runtime::Runtime;
use tower_service::Service;

fn shop() -> &'static (Runtime, Shop, Front) {
    static SHOP: OnceLock<(Runtime, Shop, Front)> = OnceLock::new();
    SHOP.get_or_init(|| {
        let runtime = Runtime::new().expect("a runtime can be made");
        let data = std::env::temp_dir().join(format!("settle-fuzz-{}", std::process::id()));
        let config = Config { data, ..Config::default() };
        let (shop, _) = runtime.block_on(Shop::open(config)).expect("a fresh shop opens");
        let front = shop.front();
        (runtime, shop, front)
    })
}

fuzz_target!(|bytes: &[u8]| {
    let [method, split, rest @ ..] = bytes else { return };
    let (path, rest) = rest.split_at(rest.iter().position(|byte| *byte == b'\n').unwrap_or(rest.len()));
    let (header, body) = rest.split_at(usize::from(*split).min(rest.len()));
    let method = [Method::POST, Method::GET, Method::PUT, Method::DELETE][usize::from(*method) % 4].clone();
    let request = Request::builder()
        .method(method)
        .uri([b"/", path].concat().as_slice())
        .header("idempotency-key", header)
        .body(Body::from(body.to_vec()));
    // What is no request never reaches the shop.
    let Ok(request) = request else { return };
    let (runtime, shop, front) = shop();
    let response = runtime.block_on(front.clone().call(request)).expect("the front never fails");
    assert!(!response.status().is_server_error(), "{}", response.status());
    let audit = |ledger: &ledger::Ledger| ledger::audit::audit(ledger).is_empty();
    assert!(shop.ledgers().stock.read(audit).expect("the store runs"), "stock is off");
    assert!(shop.ledgers().payment.read(audit).expect("the store runs"), "payment is off");
});
