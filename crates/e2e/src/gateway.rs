//! Who stands in for HAProxy: hands every request to an instance of its service, one after another, and sends none to one that is gone.

use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use crate::client::PATIENCE;
use crate::http::{self, Response};

/// Where the instances of each service are, by the first segment of the paths. Ends with the test.
#[derive(Debug)]
pub struct Gateway {
    address: SocketAddr,
    routes: Arc<Routes>,
}

#[derive(Debug, Default)]
struct Routes {
    instances: Mutex<BTreeMap<String, Vec<SocketAddr>>>,
    turn: AtomicUsize,
}

impl Routes {
    /// The instances of a path's service, beginning with the one whose turn it is.
    fn to(&self, path: &str) -> Vec<SocketAddr> {
        let segment = path.split('/').nth(1).unwrap_or_default();
        let instances = self.instances.lock().unwrap();
        // What belongs to no service is asked of the orders.
        let mut found = instances.get(segment).or_else(|| instances.get("orders")).cloned().unwrap_or_default();
        let turn = self.turn.fetch_add(1, Ordering::Relaxed);
        if !found.is_empty() {
            let by = turn % found.len();
            found.rotate_left(by);
        }
        found
    }
}

impl Gateway {
    /// Opens the gateway on a free port.
    pub fn open() -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = listener.local_addr().unwrap();
        let routes = Arc::<Routes>::default();
        let theirs = Arc::clone(&routes);
        std::thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                let routes = Arc::clone(&theirs);
                // How a connection ends concerns only its client.
                std::thread::spawn(move || _ = serve(client, &routes));
            }
        });
        Self { address, routes }
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Hands requests for a service to these instances from now on.
    pub fn route(&self, segment: &str, instances: Vec<SocketAddr>) {
        self.routes.instances.lock().unwrap().insert(segment.to_owned(), instances);
    }
}

fn serve(mut client: TcpStream, routes: &Routes) -> io::Result<()> {
    client.set_nodelay(true)?;
    let mut kept = BTreeMap::new();
    let mut read = Vec::new();
    while let Some((path, request)) = next_request(&mut client, &mut read)? {
        let mut answer = None;
        for instance in routes.to(&path) {
            let kept_one = kept.remove(&instance);
            let Ok(mut stream) = kept_one.map_or_else(|| connect(instance), Ok) else { continue };
            // Once it is sent, nobody else may be given it: it may have been carried out.
            let response = http::exchange(&mut stream, &request)?;
            if response.header("connection") != "close" {
                kept.insert(instance, stream);
            }
            answer = Some(response);
            break;
        }
        let answer = answer.ok_or(io::ErrorKind::ConnectionRefused)?;
        client.write_all(&bytes(&answer))?;
    }
    Ok(())
}

fn connect(instance: SocketAddr) -> io::Result<TcpStream> {
    let stream = TcpStream::connect(instance)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    Ok(stream)
}

/// The path and the bytes of the next request; `None` at the end of the connection.
fn next_request(client: &mut TcpStream, read: &mut Vec<u8>) -> io::Result<Option<(String, Vec<u8>)>> {
    loop {
        let mut headers = [httparse::EMPTY_HEADER; 32];
        let mut parsed = httparse::Request::new(&mut headers);
        let status = parsed.parse(read).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
        if let httparse::Status::Complete(head) = status {
            let length = parsed.headers.iter().find(|header| header.name.eq_ignore_ascii_case("content-length"));
            let length: usize = length.map_or(0, |header| String::from_utf8_lossy(header.value).parse().unwrap());
            if read.len() >= head + length {
                let path = parsed.path.unwrap_or_default().to_owned();
                let request = read.drain(..head + length).collect();
                return Ok(Some((path, request)));
            }
        }
        let mut chunk = [0; 4096];
        match client.read(&mut chunk)? {
            0 => return Ok(None),
            got => read.extend_from_slice(&chunk[..got]),
        }
    }
}

fn bytes(answer: &Response) -> Vec<u8> {
    let mut text = format!("HTTP/1.1 {} answered\r\n", answer.status);
    for (name, value) in &answer.headers {
        if !matches!(name.as_str(), "connection" | "content-length" | "transfer-encoding") {
            text.push_str(&format!("{name}: {value}\r\n"));
        }
    }
    text.push_str(&format!("content-length: {}\r\n\r\n{}", answer.body.len(), answer.body));
    text.into_bytes()
}
