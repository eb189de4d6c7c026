//! Asks another process over HTTP, on one connection that stays.

use std::time::Duration;

use http_body_util::{BodyExt, Empty, Limited};
use hyper::Request;
use hyper::body::Bytes;
use hyper::client::conn::http1::{self, SendRequest};
use hyper::header::{ACCEPT, HOST};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::TcpStream;
use tokio::time::timeout_at;

use crate::collector::Seen;
use crate::figures::Figures;
use crate::limits::{MAX_TEXT_BYTES, MAX_WORD_BYTES, PATIENCE_MS};
use crate::openmetrics::parse;
use crate::snapshot::{Kind, State};

/// The longest reason that is passed on. Characters.
const MAX_DETAIL: usize = 300;

/// A process whose metrics are read.
#[derive(Debug)]
pub struct Instance {
    name: String,
    kind: Kind,
    /// Whether its kind is not known but from what it says.
    guessed: bool,
    /// `HOST:PORT`.
    address: String,
    /// What its paths begin with; empty or such as `/stock`.
    prefix: String,
    connection: Option<SendRequest<Empty<Bytes>>>,
    /// Where whoever asks listens itself, if that is known.
    own_port: Option<u16>,
    /// Whether whoever asks was found to ask itself.
    own: bool,
}

/// Where a process answers: `http://HOST:PORT`, with a path or without.
///
/// # Errors
/// In words for people, if it is none.
pub fn base_url(url: &str) -> Result<(String, String), String> {
    let wrong = || format!("`{url}` is no base URL such as http://10.0.0.7:8001");
    let rest = url.strip_prefix("http://").ok_or_else(wrong)?;
    let (address, prefix) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    let prefix = prefix.trim_end_matches('/');
    let strange = |c: char| c.is_whitespace() || c.is_control() || matches!(c, '@' | ',' | '?' | '#' | '"' | '\\');
    let (host, port) = match address.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => (host, port.parse::<u16>().map_err(|_| wrong())?),
        _ => (address, 80),
    };
    if host.is_empty() || rest.contains(strange) || port == 0 {
        return Err(wrong());
    }
    Ok((format!("{host}:{port}"), prefix.to_owned()))
}

/// What a process is, by the databases that it has.
fn kind_of(figures: &Figures) -> Option<Kind> {
    let mut stores = figures.stores.keys().map(String::as_str);
    match (stores.next(), stores.next()) {
        (Some("orders"), None) => Some(Kind::Order),
        (Some("stock"), None) => Some(Kind::Stock),
        (Some("payment"), None) => Some(Kind::Payment),
        (Some(_), Some(_)) => Some(Kind::Shop),
        _ => None,
    }
}

impl Instance {
    /// One at an address, `HOST:PORT`, whose paths begin with `prefix`.
    pub fn new(name: impl Into<String>, kind: Kind, address: impl Into<String>, prefix: impl Into<String>) -> Self {
        let (name, address, prefix) = (name.into(), address.into(), prefix.into());
        Self { name, kind, guessed: false, address, prefix, connection: None, own_port: None, own: false }
    }

    /// One at a base URL, by whose address it is called, unless a name stands before it: `order-2=http://10.0.0.7:8001`. What it is, it tells by
    /// the databases that it has.
    ///
    /// # Errors
    /// See [`base_url`].
    pub fn at(url: &str) -> Result<Self, String> {
        let is_name = |word: &str| {
            let usual = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
            !word.is_empty() && word.len() <= MAX_WORD_BYTES && word.chars().all(usual)
        };
        let (name, url) = match url.split_once('=') {
            Some((name, url)) if is_name(name) => (Some(name), url),
            _ => (None, url),
        };
        let (address, prefix) = base_url(url)?;
        let name = name.unwrap_or(&address).to_owned();
        Ok(Self { guessed: true, ..Self::new(name, Kind::Order, address, prefix) })
    }

    /// The same, asked by a process that listens at this port, and may be the one at that address: all instances can be given one list.
    #[must_use]
    pub fn asked_from(self, own_port: u16) -> Self {
        Self { own_port: Some(own_port), ..self }
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Where it is: `HOST:PORT`.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// Whether it is the process that asks, as was found with the first connection.
    pub fn is_own(&self) -> bool {
        self.own
    }

    /// Asks how it is, and what it counts; the answer comes within [`PATIENCE_MS`], whatever it does.
    pub async fn look(&mut self) -> Seen {
        let until = tokio::time::Instant::now() + Duration::from_millis(PATIENCE_MS);
        let health = timeout_at(until, self.get("/health")).await;
        let (status, body) = match health {
            Ok(Ok(answer)) => answer,
            Ok(Err(why)) => return self.down(why),
            Err(_) => return self.down(format!("{} does not answer in {PATIENCE_MS} ms", self.address)),
        };
        let said: Value = serde_json::from_str(&body).unwrap_or_default();
        let state = match (status, said["status"].as_str()) {
            (200, _) => State::Up,
            (_, Some("draining")) => State::Draining,
            _ => State::Down,
        };
        let mut seen = Seen::new(&*self.name, self.kind, state);
        if state != State::Up {
            seen.detail = said["detail"].as_str().map(|text| text.chars().take(MAX_DETAIL).collect());
        }
        // Its figures may take longer, since it asks its database. It is up all the same.
        if let Ok(Ok((200, text))) = timeout_at(until, self.get("/metrics")).await {
            let exposition = parse(&text);
            seen.figures = exposition.complete.then(|| Figures::of(&exposition));
            if let Some(kind) = seen.figures.as_ref().and_then(kind_of).filter(|_| self.guessed) {
                (self.kind, seen.kind) = (kind, kind);
            }
        }
        seen
    }

    fn down(&self, why: String) -> Seen {
        let seen = Seen::new(&*self.name, self.kind, State::Down);
        Seen { detail: Some(why), ..seen }
    }

    /// A connection that is given up before its answer came is not used again.
    async fn get(&mut self, path: &str) -> Result<(u16, String), String> {
        let address = &self.address;
        let mut connection = match self.connection.take().filter(|it| !it.is_closed()) {
            Some(connection) => connection,
            None => {
                let stream = TcpStream::connect(address).await.map_err(|error| format!("{address}: {error}"))?;
                _ = stream.set_nodelay(true);
                if let (Ok(from), Ok(to), Some(own)) = (stream.local_addr(), stream.peer_addr(), self.own_port) {
                    // Who speaks to an address of its own machine does so from that address.
                    self.own = from.ip() == to.ip() && to.port() == own;
                }
                let shaken = http1::handshake(TokioIo::new(stream)).await;
                let (requests, connection) = shaken.map_err(|error| format!("{address}: {error}"))?;
                // Its failure is also that of the request under way.
                tokio::spawn(async move { _ = connection.await });
                requests
            }
        };
        let request = Request::get(format!("{}{path}", self.prefix)).header(HOST, address.as_str());
        let request = request.header(ACCEPT, "application/openmetrics-text");
        let request = request.body(Empty::new()).map_err(|error| error.to_string())?;
        let failed = |error: hyper::Error| format!("{address}: {error}");
        connection.ready().await.map_err(failed)?;
        let answer = connection.send_request(request).await.map_err(failed)?;
        let status = answer.status().as_u16();
        let body = Limited::new(answer.into_body(), MAX_TEXT_BYTES).collect().await;
        let body = body.map_err(|error| format!("{address}: {error}"))?.to_bytes();
        self.connection = Some(connection);
        Ok((status, String::from_utf8_lossy(&body).into_owned()))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::time::Instant;

    use axum::http::StatusCode;
    use axum::routing::get;
    use axum::{Json, Router};
    use tokio::net::TcpListener;

    use super::*;

    #[test]
    fn a_base_url_is_a_host_a_port_and_perhaps_a_path() {
        let good = |url: &str| base_url(url).map(|(address, prefix)| address + &prefix);
        assert_eq!(good("http://10.0.0.7:8001").unwrap(), "10.0.0.7:8001");
        assert_eq!(good("http://stock-1:8001/stock/").unwrap(), "stock-1:8001/stock");
        assert_eq!(good("http://stock-1").unwrap(), "stock-1:80");
        assert_eq!(good("http://[::1]:8001/").unwrap(), "[::1]:8001");
        for wrong in [
            "",
            "10.0.0.7:8001",
            "https://x:1",
            "http://",
            "http://:80",
            "http://x:0",
            "http://x:99999",
            "http://u@x:1",
            "http://x:1/a b",
            "http://x:1/?q",
        ] {
            assert!(base_url(wrong).is_err_and(|why| why.contains("is no base URL")), "{wrong}");
        }
    }

    #[test]
    fn one_may_be_given_a_name() {
        let named = |text: &str| Instance::at(text).map(|it| (it.name, it.address));
        let at = |name: &str| Ok((name.to_owned(), "10.0.0.7:8001".to_owned()));
        assert_eq!(named("order-2=http://10.0.0.7:8001"), at("order-2"));
        assert_eq!(named("http://10.0.0.7:8001"), at("10.0.0.7:8001"));
        for wrong in ["=http://10.0.0.7:8001", "order 2=http://10.0.0.7:8001", "order-2=10.0.0.7:8001", "order-2"] {
            assert!(named(wrong).is_err(), "{wrong}");
        }
    }

    /// A process whose metrics say that it keeps stock, with a health of its own; how many connections it was asked on.
    async fn process(status: StatusCode, health: &'static str) -> (String, Arc<AtomicUsize>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let health =
            move || async move { (status, Json(serde_json::json!({ "status": health, "detail": "since it must" }))) };
        let metrics = || async { "settle_store_up{service=\"stock\"} 1\nsettle_transactions_queued 3\n# EOF\n" };
        let routes = Router::new().route("/health", get(health)).route("/metrics", get(metrics));
        let accepted = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&accepted);
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                counted.fetch_add(1, Ordering::Relaxed);
                let service = hyper_util::service::TowerToHyperService::new(routes.clone());
                let connection =
                    hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service);
                tokio::spawn(async move { _ = connection.await });
            }
        });
        (address, accepted)
    }

    #[tokio::test]
    async fn one_that_answers_is_read_on_one_connection_and_known_by_its_database() {
        let (address, accepted) = process(StatusCode::OK, "ok").await;
        let mut instance = Instance::at(&format!("http://{address}")).unwrap();
        for _ in 0..3 {
            let seen = instance.look().await;
            assert_eq!(
                (seen.name.as_str(), seen.kind, seen.state, seen.detail),
                (address.as_str(), Kind::Stock, State::Up, None)
            );
            assert_eq!(seen.figures.unwrap().queued, 3);
        }
        assert_eq!(accepted.load(Ordering::Relaxed), 1);
    }

    #[tokio::test]
    async fn who_asks_itself_finds_out() {
        let (address, _) = process(StatusCode::OK, "ok").await;
        let port = address.rsplit_once(':').unwrap().1.parse().unwrap();
        for (own_port, is_own) in [(port, true), (port ^ 1, false)] {
            let mut instance = Instance::at(&format!("http://{address}")).unwrap().asked_from(own_port);
            assert!(!instance.is_own());
            instance.look().await;
            assert_eq!(instance.is_own(), is_own);
        }
    }

    #[tokio::test]
    async fn one_that_stops_or_is_down_says_why() {
        for (word, state) in [("draining", State::Draining), ("down", State::Down)] {
            let (address, _) = process(StatusCode::SERVICE_UNAVAILABLE, word).await;
            let seen = Instance::new("it", Kind::Order, address, "").look().await;
            assert_eq!((seen.kind, seen.state, seen.detail.as_deref()), (Kind::Order, state, Some("since it must")));
            assert!(seen.figures.is_some());
        }
    }

    #[tokio::test]
    async fn one_that_does_not_answer_is_down_before_the_next_look() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let mut instance = Instance::new("it", Kind::Order, address.to_string(), "");
        let begun = Instant::now();
        let seen = instance.look().await;
        assert!(begun.elapsed() < Duration::from_millis(crate::limits::EVERY_MS), "{:?}", begun.elapsed());
        assert_eq!((seen.state, seen.detail), (State::Down, Some(format!("{address} does not answer in 700 ms"))));
        drop(listener);
        let seen = instance.look().await;
        assert!(seen.state == State::Down && seen.detail.unwrap().contains("refused"));
        // Somebody else listens there now.
        let (address, _) = process(StatusCode::OK, "ok").await;
        instance.address = address;
        assert_eq!(instance.look().await.state, State::Up);
    }
}
