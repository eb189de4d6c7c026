//! The files in `deploy`, and a real HAProxy before instances that misbehave.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use servers::haproxy::{Haproxy, check};
use servers::{free_port, wait_until};

use super::*;
use fake::Fake;

mod fake;

#[test]
fn the_files_in_deploy_are_those_that_are_generated_and_haproxy_takes_them() {
    let deploy = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../deploy/haproxy");
    for profile in Profile::ALL {
        let file = deploy.join(format!("{}.cfg", profile.name()));
        let generated = profile.gateway().configuration();
        let stands = std::fs::read_to_string(&file).unwrap_or_default();
        let name = profile.name();
        assert!(stands == generated, "settle config haproxy {name} > deploy/haproxy/{name}.cfg");
        check(&file).unwrap();
    }
}

struct Front {
    port: u16,
    statistics: u16,
    _haproxy: Haproxy,
}

/// By the order's id, whatever is under way; and as it comes: what is true of orders' instances is true of both.
const TOGETHER_OR_NOT: [u32; 2] = [0, TOGETHER];

/// The fakes of orders, stock and payment.
type Fakes<'a> = [&'a [&'a Fake]; 3];

fn front(fakes: Fakes<'_>, change: impl FnOnce(&mut Gateway)) -> Front {
    let services = fakes.map(|fakes| {
        let named = fakes.iter().enumerate().map(|(n, fake)| (format!("instance-{n}"), fake.address.to_string()));
        Instances::At(named.collect())
    });
    let mut gateway = Gateway::new("A test.".to_owned(), String::new(), String::new(), services);
    gateway.connections = 1_000;
    change(&mut gateway);
    // A port that is free may be somebody else's a moment later: then others are tried.
    let mut last = None;
    for _ in 0..5 {
        let (port, statistics) = (free_port().unwrap(), free_port().unwrap());
        gateway.bind = format!("127.0.0.1:{port}");
        gateway.statistics = format!("127.0.0.1:{statistics}");
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("haproxy.cfg"), gateway.configuration()).unwrap();
        match Haproxy::start(folder, port) {
            Ok(haproxy) => return Front { port, statistics, _haproxy: haproxy },
            Err(error) => last = Some(error),
        }
    }
    panic!("no HAProxy: {last:?}");
}

struct Said {
    status: u16,
    head: String,
    body: String,
}

impl Front {
    fn send(&self, method: &str, path: &str) -> TcpStream {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        let request =
            format!("{method} {path} HTTP/1.1\r\nhost: shop\r\nconnection: close\r\ncontent-length: 0\r\n\r\n");
        stream.write_all(request.as_bytes()).unwrap();
        stream
    }

    /// What the gateway tells operators, as lines of values.
    fn statistics(&self) -> String {
        let mut stream = TcpStream::connect(("127.0.0.1", self.statistics)).unwrap();
        stream.write_all(b"GET /;csv HTTP/1.0\r\n\r\n").unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        text
    }

    fn ask(&self, method: &str, path: &str) -> Said {
        answer(self.send(method, path))
    }

    /// Asks again until the gateway has seen what became of its instances.
    fn ask_until(&self, path: &str, expected: u16) -> Said {
        let until = Instant::now() + Duration::from_secs(10);
        loop {
            let said = self.ask("GET", path);
            if said.status == expected || Instant::now() > until {
                return said;
            }
        }
    }
}

fn answer(mut stream: TcpStream) -> Said {
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no answer but `{text}`"));
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or_default();
    Said { status, head: head.to_lowercase(), body: body.to_owned() }
}

impl Said {
    /// Checks that this is a problem of the contract's kind.
    fn is_problem(&self, status: u16, code: &str) {
        assert_eq!(self.status, status, "{}\n{}", self.head, self.body);
        assert!(self.head.contains("content-type: application/problem+json"), "{}", self.head);
        let body: serde_json::Value = serde_json::from_str(&self.body).unwrap_or_else(|e| panic!("{e}: {}", self.body));
        assert_eq!(body["code"], code);
        assert_eq!(body["status"], status);
        assert_eq!(body["type"], format!("urn:settle:problem:{code}"));
        assert!(body["detail"].as_str().is_some_and(|detail| detail.len() > 10), "{}", self.body);
        let again = matches!(code, "overloaded" | "service_unavailable");
        assert_eq!(self.head.contains("retry-after: 1"), again, "{}", self.head);
    }
}

#[test]
fn the_first_segment_of_the_path_says_which_service() {
    let (orders, stock, payment) = (Fake::start("orders"), Fake::start("stock"), Fake::start("payment"));
    let page = |gateway: &mut Gateway| gateway.page = Some("http://127.0.0.1:8099/".to_owned());
    let front = front([&[&orders], &[&stock], &[&payment]], page);
    for (path, body) in [
        ("/orders/find/1", "orders /orders/find/1"),
        ("/orders", "orders /orders"),
        ("/stock/find/1", "stock /stock/find/1"),
        ("/payment/find_user/1?x=/stock", "payment /payment/find_user/1?x=/stock"),
        ("/health", "orders /health"),
        ("/health/deep", "orders /health/deep"),
        ("/metrics", "orders /metrics"),
        ("/openapi.json", "orders /openapi.json"),
        ("/api", "orders /api"),
    ] {
        let said = front.ask_until(path, 200);
        assert_eq!((said.status, said.body.as_str()), (200, body));
    }
    for path in
        ["/", "/admin/transactions", "/dashboard/snapshot", "/apis", "/stocks/find/1", "/ordersx", "/x/orders/find/1"]
    {
        front.ask("GET", path).is_problem(404, "no_such_route");
    }
    let said = front.ask("GET", "/").body;
    assert!(said.contains("; the page is at http://127.0.0.1:8099/ on the"), "{said}");
    // What an instance says itself is passed on, whatever it is.
    let said = front.ask("GET", "/orders/unwell");
    assert_eq!((said.status, said.body.as_str()), (503, "orders /orders/unwell"));
    let mut stream = TcpStream::connect(("127.0.0.1", front.port)).unwrap();
    stream.write_all(b"this is no HTTP\r\n\r\n").unwrap();
    assert_eq!(answer(stream).status, 400);
}

#[test]
fn an_instance_that_nobody_can_connect_to_is_passed_over_even_by_changes() {
    for together in TOGETHER_OR_NOT {
        let (one, other) = (Fake::start("one"), Fake::start("other"));
        let front = front([&[&one, &other], &[], &[]], |gateway| gateway.together = together);
        assert_eq!(front.ask_until("/orders/find/1", 200).status, 200);
        one.end();
        let done = |said: &Said| said.status == 200 && said.body == "other /orders/create/1";
        // Until its health was looked at again, and after. HAProxy ends what an instance has when it finds it dead: that may catch a request which is just being
        // passed over to another. Of changes one at a time it is one at the most, and nobody is told that it was not done.
        let down = if together == 0 { "orders,instance-0," } else { "orders-together,instance-0," };
        let (mut caught, until) = (0, Instant::now() + Duration::from_secs(10));
        while !front.statistics().lines().any(|line| line.starts_with(down) && line.contains("DOWN")) {
            assert!(Instant::now() < until, "it is not found dead");
            let said = front.ask("POST", "/orders/create/1");
            if !done(&said) {
                caught += 1;
                let cut_off = said.status == 200 && "other /orders/create/1".starts_with(&said.body);
                assert!(said.status == 504 || cut_off, "{}\n{}", said.head, said.body);
            }
        }
        assert!(caught <= 1, "{caught} were not passed over");
        for _ in 0..20 {
            let said = front.ask("POST", "/orders/create/1");
            assert!(done(&said), "{}\n{}", said.head, said.body);
        }
    }
}

#[test]
fn without_an_instance_a_request_fails_as_not_done() {
    let one = Fake::start("one");
    let front = front([&[&one], &[], &[]], |_| {});
    assert_eq!(front.ask_until("/orders/find/1", 200).status, 200);
    for method in ["GET", "POST"] {
        front.ask(method, "/stock/add/1/1").is_problem(424, "service_unavailable");
    }
    one.end();
    // Until the health check has seen it, an instance that refuses connections counts as one that has no time.
    front.ask("POST", "/orders/create/1");
    front.ask_until("/orders/find/1", 424).is_problem(424, "service_unavailable");
    front.ask("POST", "/orders/checkout/1").is_problem(424, "service_unavailable");
}

#[test]
fn a_change_that_may_have_run_is_in_doubt_and_never_sent_again_a_read_is() {
    for together in TOGETHER_OR_NOT {
        let (one, other) = (Fake::start("one"), Fake::start("other"));
        let front = front([&[&one, &other], &[], &[]], |gateway| {
            gateway.together = together;
            gateway.patience = Duration::from_millis(700);
        });
        assert_eq!(front.ask_until("/orders/find/1", 200).status, 200);
        let asked = || one.asked() + other.asked();

        let before = asked();
        front.ask("POST", "/orders/die").is_problem(504, "in_doubt");
        assert_eq!(asked() - before, 1, "a change was sent twice");
        let before = asked();
        front.ask("POST", "/orders/hang").is_problem(504, "in_doubt");
        assert_eq!(asked() - before, 1, "a change was sent twice");

        let before = asked();
        front.ask("GET", "/orders/die").is_problem(424, "service_unavailable");
        assert!(asked() - before > 1, "a read was not tried again");
        front.ask("GET", "/orders/hang").is_problem(424, "service_unavailable");
        one.release();
        other.release();
    }
}

/// The kept connection of a client.
struct Kept(BufReader<TcpStream>);

impl Kept {
    fn open(front: &Front) -> Self {
        let stream = TcpStream::connect(("127.0.0.1", front.port)).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        Self(BufReader::new(stream))
    }

    /// `None` if the connection is closed without a word.
    fn ask(&mut self, method: &str, path: &str) -> Option<Said> {
        let request = format!("{method} {path} HTTP/1.1\r\nhost: shop\r\ncontent-length: 0\r\n\r\n");
        self.0.get_mut().write_all(request.as_bytes()).unwrap();
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            if self.0.read_line(&mut head).unwrap() == 0 {
                assert_eq!(head, "");
                return None;
            }
        }
        let head = head.to_lowercase();
        let length = head.split("content-length: ").nth(1).and_then(|rest| rest.lines().next()).unwrap();
        let mut body = vec![0; length.parse().unwrap()];
        self.0.read_exact(&mut body).unwrap();
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        Some(Said { status, head, body: String::from_utf8(body).unwrap() })
    }
}

#[test]
fn a_change_that_fails_on_a_kept_connection_is_answered_lest_the_client_sends_it_again() {
    let (one, other) = (Fake::start("one"), Fake::start("other"));
    let front = front([&[&one, &other], &[&one], &[]], |_| {});
    for path in ["/orders/find/1", "/stock/find/1"] {
        assert_eq!(front.ask_until(path, 200).status, 200);
    }
    let asked = || one.asked() + other.asked();
    for path in ["/orders/addItem/1/2/die", "/orders/die", "/stock/add/1/die"] {
        let mut kept = Kept::open(&front);
        for _ in 0..3 {
            assert_eq!(kept.ask("POST", "/orders/create/1").unwrap().status, 200);
            assert_eq!(kept.ask("POST", "/orders/checkout/1").unwrap().status, 200);
            assert_eq!(kept.ask("GET", "/orders/find/1").unwrap().status, 200);
        }
        let before = asked();
        let said = kept.ask("POST", path);
        said.unwrap_or_else(|| panic!("{path}: closed without a word")).is_problem(504, "in_doubt");
        assert_eq!(asked() - before, 1, "{path}: a change was sent twice");
        // The connection is as good as before.
        assert_eq!(kept.ask("POST", "/orders/create/1").unwrap().status, 200);
    }
}

#[test]
fn a_client_that_says_no_more_is_told_what_was_done() {
    let one = Fake::start("one");
    let front = front([&[&one], &[], &[]], |_| {});
    assert_eq!(front.ask_until("/orders/find/1", 200).status, 200);
    for path in ["/orders/create/hang", "/orders/checkout/hang"] {
        one.hold();
        let before = one.asked();
        let stream = front.send("POST", path);
        stream.shutdown(std::net::Shutdown::Write).unwrap();
        assert!(wait_until(Duration::from_secs(10), || one.asked() > before), "{path} does not arrive");
        one.release();
        assert_eq!(answer(stream).status, 200, "{path}");
    }
}

#[test]
fn whoever_finds_the_queue_full_or_waits_too_long_is_told_of_overload() {
    let one = Fake::start("one");
    let front = front([&[&one], &[], &[]], |gateway| {
        (gateway.in_instance, gateway.in_queue) = (1, 2);
        gateway.queue_patience = Duration::from_secs(4);
    });
    assert_eq!(front.ask_until("/orders/find/1", 200).status, 200);
    let under_way = front.send("POST", "/orders/hang");
    assert!(wait_until(Duration::from_secs(5), || one.asked() == 2));
    let queued = [front.send("POST", "/orders/create/1"), front.send("POST", "/orders/create/1")];
    assert!(wait_until(Duration::from_secs(3), || front.statistics().contains("\norders,instance-0,2,")));
    let turned_away = front.ask("POST", "/orders/create/1");
    turned_away.is_problem(429, "overloaded");
    for stream in queued {
        answer(stream).is_problem(429, "overloaded");
    }
    one.release();
    assert_eq!(answer(under_way).status, 200);
}

/// Who answers.
fn who(said: &Said) -> &str {
    assert_eq!(said.status, 200, "{}", said.body);
    said.body.split(' ').next().unwrap_or_default()
}

#[test]
fn of_many_requests_those_about_one_order_go_to_one_instance_and_orders_are_spread() {
    let fakes = [Fake::start("one"), Fake::start("two"), Fake::start("three")];
    let front = front([&fakes.each_ref(), &[], &[]], |gateway| gateway.together = 0);
    assert_eq!(front.ask_until("/orders/find/1", 200).status, 200);
    let mut homes = std::collections::BTreeMap::<String, usize>::new();
    for number in 0..90 {
        // Those of batch_init, and those of today.
        let order =
            if number % 2 == 0 { number.to_string() } else { format!("01A1fb5e-f480-7184-8000-d8fe73f8{number:04}") };
        let first = front.ask("POST", &format!("/orders/checkout/{order}"));
        let home = who(&first);
        for (method, path) in [
            ("GET", format!("/orders/find/{order}")),
            ("POST", format!("/orders/addItem/{order}/7/2")),
            ("POST", format!("/orders/checkout/{}", order.to_lowercase())),
            ("POST", format!("/orders/checkout/{}?x=1", order.replace('1', "%31"))),
        ] {
            assert_eq!(who(&front.ask(method, &path)), home, "{path}");
        }
        *homes.entry(home.to_owned()).or_default() += 1;
    }
    assert!(homes.len() == 3 && homes.values().all(|orders| *orders >= 15), "{homes:?}");
    let mut used = std::collections::BTreeSet::new();
    for _ in 0..60 {
        used.insert(who(&front.ask("POST", "/orders/create/1")).to_owned());
    }
    assert_eq!(used.len(), 3, "what is about no order goes anywhere");
}

#[test]
fn few_requests_about_orders_go_to_one_instance_and_more_are_spread() {
    let (one, other) = (Fake::start("one"), Fake::start("other"));
    let front = front([&[&one, &other], &[], &[]], |_| {});
    assert_eq!(front.ask_until("/orders/find/1", 200).status, 200);
    for _ in 0..2 {
        let before = [one.asked(), other.asked()];
        let came = || [one.asked() - before[0], other.asked() - before[1]];
        let hang = |orders: std::ops::Range<u32>| -> Vec<TcpStream> {
            orders.map(|order| front.send("POST", &format!("/orders/checkout/{order}/hang"))).collect()
        };
        let few = hang(0..TOGETHER);
        assert!(wait_until(Duration::from_secs(5), || came().iter().sum::<usize>() == few.len()));
        assert_eq!(came(), [few.len(), 0]);
        // It does not draw everybody in.
        let more = hang(TOGETHER..3 * TOGETHER);
        assert!(wait_until(Duration::from_secs(5), || came().iter().sum::<usize>() == few.len() + more.len()));
        assert!(came()[1] >= more.len() / 4 && came()[0] >= few.len() + more.len() / 4, "{:?}", came());
        one.release();
        other.release();
        for request in few.into_iter().chain(more) {
            assert_eq!(answer(request).status, 200);
        }
        one.hold();
        other.hold();
    }
}

#[test]
fn an_instance_that_cannot_serve_checkouts_has_none_of_few_and_if_none_can_they_are_spread() {
    let (one, other) = (Fake::start("one"), Fake::start("other"));
    let front = front([&[&one, &other], &[], &[]], |_| {});
    assert_eq!(front.ask_until("/orders/find/1", 200).status, 200);
    let homes = || -> std::collections::BTreeSet<String> {
        (0..40).map(|order| who(&front.ask("POST", &format!("/orders/checkout/{order}"))).to_owned()).collect()
    };
    let is_only = |name: &str| homes() == [name.to_owned()].into();
    assert!(is_only("one"));
    let before = one.asked();
    let under_way = front.send("POST", "/orders/checkout/1/hang");
    assert!(wait_until(Duration::from_secs(5), || one.asked() > before));
    one.shared.cut_off.store(true, Ordering::SeqCst);
    assert!(wait_until(Duration::from_secs(5), || is_only("other")));
    other.shared.cut_off.store(true, Ordering::SeqCst);
    assert!(wait_until(Duration::from_secs(5), || homes().len() == 2));
    one.shared.cut_off.store(false, Ordering::SeqCst);
    assert!(wait_until(Duration::from_secs(5), || is_only("one")));
    // What it had is its own throughout.
    one.release();
    assert_eq!(who(&answer(under_way)), "one");
}

#[test]
fn twins_meet_at_one_instance_even_if_nothing_else_is_under_way() {
    for together in TOGETHER_OR_NOT {
        let (one, other) = (Fake::start("one"), Fake::start("other"));
        let front = front([&[&one, &other], &[], &[]], |gateway| gateway.together = together);
        assert_eq!(front.ask_until("/orders/find/1", 200).status, 200);
        for order in 0..10 {
            let path = format!("/orders/checkout/{order}/hang");
            let before = [one.asked(), other.asked()];
            let twins = [front.send("POST", &path), front.send("POST", &path)];
            let came = || [one.asked() - before[0], other.asked() - before[1]];
            assert!(wait_until(Duration::from_secs(5), || came().iter().sum::<usize>() == 2));
            assert!(came().contains(&2), "order {order}: {:?}", came());
            one.release();
            other.release();
            let said = twins.map(|twin| answer(twin).body);
            assert_eq!(said[0], said[1]);
            one.hold();
            other.hold();
        }
    }
}

#[test]
fn orders_of_an_instance_that_is_gone_move_and_others_stay() {
    let fakes = [Fake::start("one"), Fake::start("two"), Fake::start("three")];
    let front = front([&fakes.each_ref(), &[], &[]], |gateway| gateway.together = 0);
    assert_eq!(front.ask_until("/orders/find/1", 200).status, 200);
    let home = |order: u32| who(&front.ask("POST", &format!("/orders/checkout/{order}"))).to_owned();
    let before: Vec<String> = (0..40).map(home).collect();
    fakes[1].end();
    // Before its health was looked at again, and after.
    for _ in 0..2 {
        for (order, before) in (0..).zip(&before) {
            let now = home(order);
            assert!(if before == "two" { now != "two" } else { now == *before }, "{order}: {before}, {now}");
        }
        assert!(wait_until(Duration::from_secs(5), || front.statistics().contains("DOWN")));
    }
}

#[test]
fn an_instance_that_takes_nearly_everything_in_is_passed_over() {
    let (one, other) = (Fake::start("one"), Fake::start("other"));
    let front = front([&[&one, &other], &[], &[]], |gateway| gateway.together = 0);
    assert_eq!(front.ask_until("/orders/find/1", 200).status, 200);
    // Orders of the same home, which hangs.
    let hung: Vec<u32> =
        (0..200).filter(|order| who(&front.ask("GET", &format!("/orders/find/{order}"))) == "one").collect();
    let before = [one.asked(), other.asked()];
    let waiting: Vec<TcpStream> =
        hung.iter().take(40).map(|order| front.send("POST", &format!("/orders/checkout/{order}/hang"))).collect();
    let came = || [one.asked() - before[0], other.asked() - before[1]];
    assert!(wait_until(Duration::from_secs(5), || came().iter().sum::<usize>() == 40));
    let [home, elsewhere] = came();
    assert!(home >= 30 && elsewhere >= 2, "{home}, {elsewhere}");
    one.release();
    other.release();
    for twin in waiting {
        assert_eq!(answer(twin).status, 200);
    }
}

#[test]
fn an_instance_that_is_stopping_gets_nothing_new_and_finishes_what_it_has() {
    for together in TOGETHER_OR_NOT {
        let (one, other) = (Fake::start("one"), Fake::start("other"));
        let front = front([&[&one, &other], &[], &[]], |gateway| gateway.together = together);
        assert_eq!(front.ask_until("/orders/find/1", 200).status, 200);
        let of_one = (0..100).find(|order| who(&front.ask("GET", &format!("/orders/find/{order}"))) == "one").unwrap();
        let before = one.asked();
        let under_way = front.send("POST", &format!("/orders/checkout/{of_one}/hang"));
        assert!(wait_until(Duration::from_secs(5), || one.asked() > before));
        one.shared.stopping.store(true, Ordering::SeqCst);
        let moved = || who(&front.ask("GET", &format!("/orders/find/{of_one}"))) == "other";
        assert!(wait_until(Duration::from_secs(5), moved));
        // More checks than it takes to call one dead.
        let checks = one.shared.checked.load(Ordering::SeqCst);
        assert!(wait_until(Duration::from_secs(20), || one.shared.checked.load(Ordering::SeqCst) >= checks + 5));
        assert!(moved());
        one.release();
        assert_eq!(who(&answer(under_way)), "one");
        // All of them are stopping: nobody is ready, and nothing was done.
        other.shared.stopping.store(true, Ordering::SeqCst);
        front.ask_until("/orders/find/1", 424).is_problem(424, "service_unavailable");
    }
}

#[test]
fn what_waits_for_a_frozen_instance_is_ended_once_that_is_seen() {
    for together in TOGETHER_OR_NOT {
        let (one, other) = (Fake::start("one"), Fake::start("other"));
        let front = front([&[&one, &other], &[], &[]], |gateway| gateway.together = together);
        assert_eq!(front.ask_until("/orders/find/1", 200).status, 200);
        let of_one = (0..100).find(|order| who(&front.ask("GET", &format!("/orders/find/{order}"))) == "one").unwrap();
        one.shared.frozen.store(true, Ordering::SeqCst);
        let before = one.asked() + other.asked();
        let began = Instant::now();
        let change = front.send("POST", &format!("/orders/checkout/{of_one}"));
        let read = front.send("GET", &format!("/orders/find/{of_one}"));
        answer(change).is_problem(504, "in_doubt");
        assert!(began.elapsed() < Duration::from_secs(8), "{:?}", began.elapsed());
        assert_eq!(who(&answer(read)), "other", "a read is tried again");
        assert_eq!(one.asked() + other.asked() - before, 3, "the change was sent once, the read twice");
        one.release();
    }
}
