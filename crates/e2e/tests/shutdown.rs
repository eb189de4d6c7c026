//! SIGTERM: whoever is in the middle of a checkout is answered, the process ends with code 0, and the restart shows everything.

#![allow(clippy::unwrap_used, reason = "in a test a broken expectation is a failed test")]

use std::time::{Duration, Instant};

use e2e::world::{Heard, Size};
use e2e::{Client, Server, World};

/// So many checkouts are in flight for certain when the signal comes.
const IN_FLIGHT: u64 = 50;

fn those_in_flight_are_answered(protocol: &str, verb: &str) {
    let mut server = Server::start(&["--protocol", protocol, "--chaos"]);
    let mut client = server.client();
    client.done("/stock/batch_init/1/1000/1");
    client.done("/payment/batch_init/1/1000");
    client.done(&format!("/orders/batch_init/{IN_FLIGHT}/1/1/1"));
    client.done(&format!("/stock/fault/set?point=before_{verb}&action=delay&delay_ms=400"));
    std::thread::scope(|scope| {
        let check_out = |order: u64| {
            let mut client = server.client();
            move || (client.check_out(&order.to_string()), client)
        };
        let threads: Vec<_> = (0..IN_FLIGHT).map(|order| scope.spawn(check_out(order))).collect();
        let until = Instant::now() + Duration::from_secs(10);
        while client.get("/health/deep").json()["in_flight"] != IN_FLIGHT {
            assert!(Instant::now() < until, "they never were in flight together");
        }
        server.tell_to_end();
        let clients: Vec<_> = threads.into_iter().map(|thread| thread.join().unwrap()).collect();
        for (answer, _) in &clients {
            assert_eq!((answer.status, &*answer.body), (200, "Checkout successful"));
        }
        // They keep their connections open, which must not hold the end up.
        let began = Instant::now();
        let status = server.wait();
        assert_eq!(status.code(), Some(0), "{status}: {}", server.said());
        assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    });
    let server = server.restart();
    let mut client = server.client();
    assert!((0..IN_FLIGHT).all(|order| client.order(&order.to_string()).paid));
    let all = 2 * IN_FLIGHT as i64;
    assert_eq!((client.stock("0"), client.credit("0")), (1_000 - all, 1_000 - all));
    server.audit();
}

#[test]
fn those_in_flight_are_answered_under_two_phase_commit() {
    those_in_flight_are_answered("2pc", "prepare");
}

#[test]
fn those_in_flight_are_answered_under_sagas() {
    those_in_flight_are_answered("saga", "execute");
}

/// So many checkouts have been answered under load before the signal comes.
const UNDER_LOAD: u64 = 200;

/// How many transactions have been answered, by the shop's own count.
fn answered(metrics: &str) -> u64 {
    let counts = metrics.lines().filter(|line| line.starts_with("settle_transactions_total"));
    counts.filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok()).sum()
}

fn nothing_is_lost_under_load(protocol: &str) {
    let mut server = Server::start(&["--protocol", protocol]);
    let mut world = World::seed(&mut server.client(), Size { items: 20, users: 50, orders: 100_000 });
    for _ in 0..3 {
        let address = server.address();
        let (status, took) = world.load(address, 8, || {
            // Not before the clients are in the middle of it: so many checkouts have been answered.
            let mut onlooker = Client::new(address);
            let answered = |onlooker: &mut Client| answered(&onlooker.get("/metrics").body);
            let (before, until) = (answered(&mut onlooker), Instant::now() + Duration::from_secs(30));
            while answered(&mut onlooker) < before + UNDER_LOAD {
                assert!(Instant::now() < until, "there is no load");
            }
            drop(onlooker);
            let began = Instant::now();
            server.tell_to_end();
            (server.wait(), began.elapsed())
        });
        assert_eq!(status.code(), Some(0), "{status}: {}", server.said());
        println!("{protocol}: ended {took:?} after the signal");
        server = server.restart();
        world.verify(&server);
    }
    world.ask_again(&server);
    world.verify_everything(&server);
    assert!(world.count(Heard::Paid) > 0 && world.count(Heard::Refused) > 0, "there was load of either kind");
}

#[test]
fn nothing_is_lost_under_load_with_two_phase_commit() {
    nothing_is_lost_under_load("2pc");
}

#[test]
fn nothing_is_lost_under_load_with_sagas() {
    nothing_is_lost_under_load("saga");
}

#[test]
fn an_idle_connection_holds_nothing_up() {
    let mut server = Server::start(&[]);
    let mut idle = server.client();
    idle.get("/health");
    let silent = std::net::TcpStream::connect(server.address()).unwrap();
    let began = Instant::now();
    server.tell_to_end();
    assert_eq!(server.wait().code(), Some(0), "{}", server.said());
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    drop(silent);
}

#[test]
fn a_half_sent_request_holds_nothing_up() {
    use std::io::Write;
    for before in ["", "GET /health HTTP/1.1\r\nHost: shop\r\n\r\n"] {
        let mut server = Server::start(&[]);
        let mut half = std::net::TcpStream::connect(server.address()).unwrap();
        half.write_all(format!("{before}POST /orders/check").as_bytes()).unwrap();
        // It has been read, and by whom, when others that came later are answered.
        server.client().get("/health");
        let began = Instant::now();
        server.tell_to_end();
        assert_eq!(server.wait().code(), Some(0), "{}", server.said());
        assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    }
}

#[test]
fn a_client_that_takes_no_answers_holds_nothing_up() {
    use std::io::Write;
    for (threads, request) in [
        ("1", "POST /orders/checkout/0 HTTP/1.1\r\nHost: shop\r\nContent-Length: 0\r\n\r\n"),
        ("2", "POST /orders/checkout/0 HTTP/1.1\r\nHost: shop\r\nContent-Length: 0\r\n\r\n"),
        ("1", "GET /orders/find/0 HTTP/1.1\r\nHost: shop\r\n\r\n"),
    ] {
        let mut server = Server::start(&["--threads", threads]);
        let mut client = server.client();
        client.done("/stock/batch_init/1/10/1");
        client.done("/payment/batch_init/1/10");
        client.done("/orders/batch_init/1/1/1/1");
        // It sends until the server reads no more.
        let mut deaf = std::net::TcpStream::connect(server.address()).unwrap();
        deaf.set_write_timeout(Some(Duration::from_secs(1))).unwrap();
        let many = request.repeat(100);
        while deaf.write_all(many.as_bytes()).is_ok() {}
        assert_eq!(client.check_out("0").status, 200, "others are served");
        let began = Instant::now();
        server.tell_to_end();
        assert_eq!(server.wait().code(), Some(0), "{}", server.said());
        assert!(began.elapsed() < Duration::from_secs(5), "{threads} {request}: {:?}", began.elapsed());
        assert!(!server.said().contains("not everything was settled"), "{}", server.said());
        drop(deaf);
    }
}
