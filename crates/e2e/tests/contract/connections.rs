//! One connection, whatever comes on it in whatever pieces: every request is answered once, in order.

use std::io::{self, BufReader, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::time::{Duration, Instant};

use e2e::Server;
use e2e::http::read_response;

/// A server with `orders` orders of two units of one item, at a price of 1.
fn seeded(orders: u64) -> Server {
    let server = Server::start(&[]);
    let mut client = server.client();
    client.done("/stock/batch_init/1/1000000/1");
    client.done("/payment/batch_init/1/1000000");
    client.done(&format!("/orders/batch_init/{orders}/1/1/1"));
    server
}

/// Gives what came byte by byte: whoever reads one answer takes nothing of the next.
struct Bytewise(BufReader<TcpStream>);

impl Read for Bytewise {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let one = buffer.len().min(1);
        self.0.read(&mut buffer[..one])
    }
}

fn connect(server: &Server) -> (TcpStream, Bytewise) {
    let stream = TcpStream::connect(server.address()).unwrap();
    stream.set_nodelay(true).unwrap();
    let reader = Bytewise(BufReader::new(stream.try_clone().unwrap()));
    (stream, reader)
}

/// A connection that has room for few requests and few answers only, so that it does not take tens of thousands to fill it.
fn connect_with_little_room(server: &Server) -> TcpStream {
    use rustix::net::{AddressFamily, SocketType, connect, socket, sockopt};
    let socket = socket(AddressFamily::INET, SocketType::STREAM, None).unwrap();
    sockopt::set_socket_recv_buffer_size(&socket, 4096).unwrap();
    sockopt::set_socket_send_buffer_size(&socket, 4096).unwrap();
    connect(&socket, &server.address()).unwrap();
    TcpStream::from(socket)
}

fn checkout(order: u64) -> String {
    format!("POST /orders/checkout/{order} HTTP/1.1\r\nHost: shop\r\nContent-Length: 0\r\n\r\n")
}

#[test]
fn requests_sent_ahead_are_answered_in_their_order() {
    let server = seeded(100);
    let (mut stream, mut reader) = connect(&server);
    // Checkouts of open orders, of one twice, of none, and between them what is none.
    let find = "GET /orders/find/7 HTTP/1.1\r\nHost: shop\r\n\r\n";
    let mut sent: String = (0..50).map(checkout).collect();
    sent.push_str(&checkout(7));
    sent.push_str(&checkout(4_711));
    sent.push_str(find);
    sent.push_str(&checkout(60));
    stream.write_all(sent.as_bytes()).unwrap();
    for order in 0..51 {
        let answer = read_response(&mut reader).unwrap();
        assert_eq!((answer.status, &*answer.body), (200, "Checkout successful"), "{order}");
    }
    assert_eq!(read_response(&mut reader).unwrap().status, 404);
    let found = read_response(&mut reader).unwrap();
    assert_eq!((found.status, &found.json()["paid"]), (200, &true.into()));
    assert_eq!(read_response(&mut reader).unwrap().status, 200);
    assert_eq!(server.client().stock("0"), 1_000_000 - 2 * 51, "each was paid once");
    server.audit();
}

#[test]
fn a_request_may_come_byte_by_byte() {
    let server = seeded(2);
    let (mut stream, mut reader) = connect(&server);
    for order in 0..2 {
        for byte in checkout(order).bytes() {
            stream.write_all(&[byte]).unwrap();
        }
        assert_eq!(read_response(&mut reader).unwrap().status, 200);
    }
}

#[test]
fn a_client_that_says_no_more_is_answered_all_the_same() {
    let server = seeded(3);
    let (mut stream, mut reader) = connect(&server);
    stream.write_all((0..3).map(checkout).collect::<String>().as_bytes()).unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    for order in 0..3 {
        assert_eq!(read_response(&mut reader).unwrap().status, 200, "{order}");
    }
}

#[test]
fn whatever_a_client_that_says_no_more_asked_for_is_answered() {
    let server = seeded(3);
    let close = "Connection: close\r\n";
    let asked = [
        ("/payment/add_funds/0/5", "", 1),
        ("/orders/checkout/0", "Idempotency-Key: once\r\n", 1),
        ("/orders/checkout/1", "Accept: application/json\r\n", 1),
        ("/orders/checkout/2", close, 1),
        ("/payment/add_funds/0/5", close, 1),
        ("/payment/add_funds/0/5", "", 20),
    ];
    for (path, fields, times) in asked {
        let (mut stream, mut reader) = connect(&server);
        let request = format!("POST {path} HTTP/1.1\r\nHost: shop\r\nContent-Length: 0\r\n{fields}\r\n");
        stream.write_all(request.repeat(times).as_bytes()).unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
        for at in 0..times {
            assert_eq!(read_response(&mut reader).unwrap().status, 200, "{path}, {fields} {at}");
        }
        let mut rest = Vec::new();
        reader.read_to_end(&mut rest).unwrap();
        assert!(rest.is_empty(), "and then the connection is closed");
    }
    assert_eq!(server.client().credit("0"), 1_000_000 - 3 * 2 + 22 * 5);
    server.audit();
}

#[test]
fn a_client_that_never_reads_harms_nobody_and_loses_nothing() {
    let server = seeded(50_000);
    let mut stream = connect_with_little_room(&server);
    // More answers than the sockets hold: the server stops reading, and so this stops writing.
    stream.set_write_timeout(Some(Duration::from_secs(1))).unwrap();
    let written = (0..49_999).take_while(|order| stream.write_all(checkout(*order).as_bytes()).is_ok()).count();
    assert!((1..49_999).contains(&written), "{written}");
    let mut client = server.client();
    assert_eq!(client.check_out("49999").status, 200, "others are served");
    drop(stream);
    server.audit();
}

/// The server's end of a connection, as the system names it among the server's open files.
fn other_end(server: &Server, client: &TcpStream) -> String {
    let ports = [server.address().port(), client.local_addr().unwrap().port()];
    let table = std::fs::read_to_string("/proc/net/tcp").unwrap();
    let row = table.lines().map(|line| line.split_whitespace().collect::<Vec<_>>()).find(|row| {
        let port = |at: usize| u16::from_str_radix(row.get(at)?.rsplit_once(':')?.1, 16).ok();
        [port(1), port(2)] == ports.map(Some)
    });
    format!("socket:[{}]", row.unwrap()[9])
}

fn has_open(server: &Server, name: &str) -> bool {
    let files = std::fs::read_dir(format!("/proc/{}/fd", server.process())).unwrap();
    files.filter_map(|file| std::fs::read_link(file.ok()?.path()).ok()).any(|target| target.to_string_lossy() == name)
}

/// At the same time: each waits for so long, and the tests share as many threads as there are processors.
#[test]
fn a_connection_on_which_nothing_moves_is_left_after_75_seconds_and_not_before() {
    std::thread::scope(|both| {
        both.spawn(a_client_that_takes_no_answers_is_left);
        both.spawn(a_connection_without_a_request_is_closed);
    });
}

fn a_client_that_takes_no_answers_is_left() {
    let server = seeded(1);
    let find = "GET /orders/find/0 HTTP/1.1\r\nHost: shop\r\n\r\n".to_owned();
    let deaf = [checkout(0), find].map(|request| {
        let mut stream = connect_with_little_room(&server);
        stream.set_write_timeout(Some(Duration::from_secs(1))).unwrap();
        while stream.write_all(request.as_bytes()).is_ok() {}
        (other_end(&server, &stream), Instant::now(), stream)
    });
    let mut left: Vec<_> = deaf.iter().collect();
    while !left.is_empty() {
        left.retain(|(end, since, _)| {
            let (there, waited) = (has_open(&server, end), since.elapsed());
            assert!(there || waited > Duration::from_secs(60), "left too early: {waited:?}");
            assert!(waited < Duration::from_secs(120), "still there");
            there
        });
        std::thread::sleep(Duration::from_millis(100));
    }
}

fn a_connection_without_a_request_is_closed() {
    let server = seeded(1);
    let answered = format!("{}POST /orders/check", checkout(0));
    let routed = "GET /health HTTP/1.1\r\nHost: shop\r\n\r\n".to_owned();
    // Silent; in the middle of a head; idle behind a checkout; idle behind another request.
    let idle = [("", 0), ("POST /orders/check", 0), (&answered, 1), (&routed, 1)].map(|(sent, answers)| {
        let (mut stream, mut reader) = connect(&server);
        stream.write_all(sent.as_bytes()).unwrap();
        for _ in 0..answers {
            assert_eq!(read_response(&mut reader).unwrap().status, 200);
        }
        (stream, reader, Instant::now())
    });
    for (_stream, mut reader, since) in idle {
        let mut rest = Vec::new();
        // hyper says why (408); a connection that never got as far is just closed.
        _ = reader.read_to_end(&mut rest);
        let waited = since.elapsed();
        assert!((Duration::from_secs(70)..Duration::from_secs(90)).contains(&waited), "{waited:?}");
    }
}
