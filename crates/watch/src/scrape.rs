//! Asks another process over HTTP, on one connection that stays.

use std::time::Duration;

use http_body_util::{BodyExt, Empty, Limited};
use hyper::Request;
use hyper::body::Bytes;
use hyper::client::conn::http1::{self, SendRequest};
use hyper::header::HOST;
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::TcpStream;
use tokio::time::timeout_at;

use crate::collector::Seen;
use crate::figures::Figures;
use crate::limits::{MAX_TEXT_BYTES, PATIENCE_MS};
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
        Self { name, kind, guessed: false, address, prefix, connection: None }
    }

    /// One at a base URL, by whose address it is called. What it is, it tells by the databases that it has.
    ///
    /// # Errors
    /// See [`base_url`].
    pub fn at(url: &str) -> Result<Self, String> {
        let (address, prefix) = base_url(url)?;
        Ok(Self { guessed: true, ..Self::new(address.clone(), Kind::Order, address, prefix) })
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
                let shaken = http1::handshake(TokioIo::new(stream)).await;
                let (requests, connection) = shaken.map_err(|error| format!("{address}: {error}"))?;
                // Its failure is also that of the request under way.
                tokio::spawn(async move { _ = connection.await });
                requests
            }
        };
        let request = Request::get(format!("{}{path}", self.prefix)).header(HOST, address.as_str());
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
