//! Whatever else may arrive: never a 5xx, never a crash.

use std::io::Write;
use std::net::{Shutdown, TcpStream};
use std::time::Duration;

use e2e::Server;
use e2e::http::read_response;

use crate::{assert_refused, assert_text, shared, visitor};

const GET_ROUTES: [&str; 14] = [
    "/orders/find/1",
    "/stock/find/1",
    "/payment/find_user/1",
    "/orders/dlq/status",
    "/stock/fault/rules",
    "/payment/fault/rules",
    "/health",
    "/health/deep",
    "/orders/health",
    "/stock/health",
    "/payment/health",
    "/metrics",
    "/orders/metrics",
    "/payment/metrics",
];

const POST_ROUTES: [&str; 17] = [
    "/orders/create/1",
    "/orders/addItem/1/1/1",
    "/orders/checkout/1",
    "/orders/batch_init/1/1/1/1",
    "/stock/item/create/1",
    "/stock/add/1/1",
    "/stock/subtract/1/1",
    "/stock/batch_init/1/1/1",
    "/stock/fault/set",
    "/stock/fault/clear",
    "/payment/create_user",
    "/payment/add_funds/1/1",
    "/payment/pay/1/1",
    "/payment/batch_init/1/1",
    "/payment/fault/set",
    "/payment/fault/clear",
    "/payment/fault/clear?point=before_commit",
];

#[test]
fn a_wrong_method_is_refused_on_every_route() {
    let mut client = visitor();
    for (method, routes) in [
        ("GET", &POST_ROUTES[..]),
        ("POST", &GET_ROUTES),
        ("PUT", &GET_ROUTES),
        ("DELETE", &POST_ROUTES),
        ("PATCH", &POST_ROUTES),
        ("OPTIONS", &POST_ROUTES),
        ("BREW", &GET_ROUTES),
    ] {
        for route in routes {
            let answer = client.send(method, route, &[], "");
            assert_eq!(answer.status, 405, "{method} {route}: {answer:?}");
            assert_refused(&answer, 405, "wrong_method", &[]);
        }
    }
}

#[test]
fn what_is_nowhere_is_not_found() {
    let mut client = visitor();
    for route in [
        "/orders",
        "/orders/",
        "/orders/find",
        "/orders/find/",
        "/orders/find/1/",
        "/orders//find/1",
        "/ORDERS/find/1",
        "/orders/checkout",
        "/stock/add/1",
        "/stock/add/1/1/1",
        "/orders/../stock/find/1",
        "/audit",
        "/audit/live",
        "/transactions",
        "/admin.sock",
    ] {
        let answer = client.get(route);
        assert_eq!(answer.status, 404, "{route}: {answer:?}");
        assert_refused(&answer, 404, "no_such_route", &[]);
    }
}

#[test]
fn a_body_where_none_is_expected_changes_nothing() {
    let mut client = visitor();
    let item = client.new_item(0, 1);
    for body in ["{\"amount\":100}", "amount=100", "\u{0}\u{1}", &"x".repeat(1 << 10)] {
        for content in ["application/json", "application/x-www-form-urlencoded", "image/png"] {
            let answer = client.send("POST", &format!("/stock/add/{item}/1"), &[("content-type", content)], body);
            assert_eq!(answer.status, 200, "{answer:?}");
        }
    }
    assert_eq!(client.stock(&item), 12);
}

#[test]
fn a_body_that_is_too_long_or_no_text_is_refused() {
    let server = Server::start(&["--chaos"]);
    // The server may hang up before it has heard all of it.
    send_bytes(&server, &e2e::http::request("POST", "/stock/fault/set", &[], &"x".repeat(4 << 20)));
    let mut stream = TcpStream::connect(server.address()).unwrap();
    let head = b"POST /stock/fault/set HTTP/1.1\r\nhost: shop\r\ncontent-length: 4\r\n\r\n\xFF\xFE\xFD\xFC";
    stream.write_all(head).unwrap();
    assert_refused(&read_response(&mut stream).unwrap(), 400, "bad_argument", &[]);
}

#[test]
fn queries_are_ignored_where_none_is_expected() {
    let mut client = visitor();
    let item = client.new_item(0, 1);
    let answer = client.post(&format!("/stock/add/{item}/2?amount=9&x[]=%FF&&&=="));
    assert_text(&answer, &format!("Item: {item} stock updated to: 2"));
}

/// Sends bytes, then nothing more. What comes back, if anything does, is no 5xx.
fn send_bytes(server: &Server, bytes: &[u8]) {
    let mut stream = TcpStream::connect(server.address()).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    // The server may hang up in the middle.
    if stream.write_all(bytes).and_then(|()| stream.shutdown(Shutdown::Write)).is_ok()
        && let Ok(answer) = read_response(&mut stream)
    {
        assert!(answer.status < 500, "{:?}: {answer:?}", String::from_utf8_lossy(&bytes[..bytes.len().min(80)]));
    }
}

#[test]
fn no_bytes_bring_the_server_down() {
    let server = Server::start(&[]);
    let mut client = server.client();
    let item = client.new_item(5, 1);
    let line = format!("POST /stock/add/{item}/1 HTTP/1.1\r\nhost: shop\r\n");
    let header = |bytes: usize| format!("{line}x: {}\r\n\r\n", "x".repeat(bytes)).into_bytes();
    let many = |count: usize| format!("{line}{}\r\n", "x: y\r\n".repeat(count)).into_bytes();
    let mut garbage: Vec<Vec<u8>> = vec![
        Vec::new(),
        b"\r\n\r\n\r\n".to_vec(),
        b"GET".to_vec(),
        b"GET / HTTP/9.9\r\n\r\n".to_vec(),
        b"GET http://elsewhere/health HTTP/1.1\r\n\r\n".to_vec(),
        b"CONNECT shop:80 HTTP/1.1\r\nhost: shop\r\n\r\n".to_vec(),
        b"OPTIONS * HTTP/1.1\r\nhost: shop\r\n\r\n".to_vec(),
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec(),
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03".to_vec(),
        b"GET /orders/find/\xff\xfe HTTP/1.1\r\nhost: shop\r\n\r\n".to_vec(),
        b"GET /health HTTP/1.1\r\nhost: shop\r\nidempotency-key: \xff\r\n\r\n".to_vec(),
        format!("{line}content-length: -1\r\n\r\n").into_bytes(),
        format!("{line}content-length: 99999999999999999999\r\n\r\n").into_bytes(),
        format!("{line}content-length: 10\r\n\r\nshort").into_bytes(),
        format!("{line}content-length: 1\r\ncontent-length: 2\r\n\r\nxx").into_bytes(),
        format!("{line}transfer-encoding: chunked\r\n\r\nnonsense\r\n").into_bytes(),
        format!("{line}transfer-encoding: chunked\r\n\r\nffffffffffffffffff\r\n").into_bytes(),
        format!("{line}expect: 100-continue\r\ncontent-length: 5\r\n\r\n").into_bytes(),
        format!("{line}upgrade: websocket\r\nconnection: upgrade\r\n\r\n").into_bytes(),
        format!("GET /{} HTTP/1.1\r\nhost: shop\r\n\r\n", "x".repeat(1 << 20)).into_bytes(),
        format!("{line}content-length: 4194304\r\n\r\n{}", "x".repeat(4 << 20)).into_bytes(),
        header(1 << 10),
        header(1 << 20),
        many(99),
        many(5_000),
    ];
    let mut random = fastrand::Rng::with_seed(7);
    garbage.extend((0..200).map(|_| std::iter::repeat_with(|| random.u8(..)).take(300).collect()));
    // A request in which one byte is another.
    garbage.extend((0..300).map(|_| {
        let mut bytes = format!("{line}idempotency-key: k\r\ncontent-length: 0\r\n\r\n").into_bytes();
        let at = random.usize(..bytes.len());
        bytes[at] = random.u8(..);
        bytes
    }));
    for bytes in &garbage {
        send_bytes(&server, bytes);
    }
    assert_eq!(client.get("/health").status, 200, "the connection that was there before is still served");
    assert_eq!(server.client().get("/health/deep").status, 200, "and new ones are");
    server.audit();
}

#[test]
fn requests_may_come_before_the_answers_to_the_ones_before() {
    let server = shared();
    let item = server.client().new_item(0, 1);
    let mut stream = TcpStream::connect(server.address()).unwrap();
    let one = e2e::http::request("POST", &format!("/stock/add/{item}/1"), &[], "");
    stream.write_all(&one.repeat(50)).unwrap();
    // All fifty answers in one stream: read them as text, for one read may bring many.
    let mut heard = String::new();
    let last = format!("Item: {item} stock updated to: 50");
    while !heard.contains(&last) {
        let mut chunk = [0; 4096];
        let read = std::io::Read::read(&mut stream, &mut chunk).unwrap();
        assert!(read > 0, "the server hung up: {heard}");
        heard.push_str(&String::from_utf8_lossy(&chunk[..read]));
    }
    assert_eq!(heard.matches("HTTP/1.1 200 OK").count(), 50);
}
