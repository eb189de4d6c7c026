//! The operators' door of a running shop, from outside.

use std::fmt::Display;
use std::io::ErrorKind;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, bail};
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1::{self, SendRequest};
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, HOST};
use hyper::{Request, StatusCode};
use hyper_util::rt::TokioIo;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio::runtime::Runtime;

/// How long a connection over the network may take.
const CONNECT: Duration = Duration::from_secs(5);
/// How long an answer may take: an audit of millions of accounts takes seconds.
const PATIENCE: Duration = Duration::from_secs(60);
/// After so long people are told that it may as well never come.
const LONG: Duration = Duration::from_secs(5);
const DOCTOR: &str = "If that is odd, `settle doctor` looks why";

/// One connection to an operators' door. Blocks while it asks.
pub(crate) struct AdminClient {
    runtime: Runtime,
    requests: SendRequest<Full<Bytes>>,
    /// Under which name the shop is asked.
    host: String,
    password: Option<String>,
}

impl AdminClient {
    /// Reaches whoever listens on a Unix socket; `None` if nobody does.
    pub(crate) fn reach(socket: &Path) -> anyhow::Result<Option<Self>> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("cannot start")?;
        let stream = match runtime.block_on(UnixStream::connect(socket)) {
            Ok(stream) => stream,
            // No socket, or one that a killed shop left behind.
            Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::ConnectionRefused) => {
                return Ok(None);
            }
            Err(error) => return Err(error).with_context(|| format!("cannot connect to {}", socket.display())),
        };
        Self::over(runtime, stream, None, &socket.display(), "localhost").map(Some)
    }

    /// Reaches whoever listens at an address, such as `http://127.0.0.1:9001`.
    pub(crate) fn connect(url: &str, password: Option<String>) -> anyhow::Result<Self> {
        let address = url.strip_prefix("http://").unwrap_or(url).trim_end_matches('/').to_owned();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("cannot start")?;
        let connecting = async { tokio::time::timeout(CONNECT, TcpStream::connect(&address)).await };
        let connected = runtime.block_on(connecting);
        let connected = connected.with_context(|| format!("{address} does not answer in {} s", CONNECT.as_secs()))?;
        let stream = connected.with_context(|| format!("cannot connect to {address}"))?;
        Self::over(runtime, stream, password, &address, &address)
    }

    fn over<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(
        runtime: Runtime,
        stream: S,
        password: Option<String>,
        name: &dyn Display,
        host: &str,
    ) -> anyhow::Result<Self> {
        let shaken = runtime.block_on(http1::handshake(TokioIo::new(stream)));
        let (requests, connection) = shaken.with_context(|| format!("{name} speaks no HTTP"))?;
        // Its failure is also that of the request under way, which tells it.
        runtime.spawn(async move { _ = connection.await });
        Ok(Self { runtime, requests, host: host.to_owned(), password })
    }

    /// Asks for something.
    pub(crate) fn get<T: DeserializeOwned>(&mut self, path: &str) -> anyhow::Result<T> {
        let answer = self.send("GET", path, Bytes::new())?;
        serde_json::from_slice(&answer).with_context(|| {
            format!("the shop's answer to {path} cannot be read: is it another version of this program?")
        })
    }

    /// Has something done.
    pub(crate) fn post(&mut self, path: &str, body: &impl Serialize) -> anyhow::Result<()> {
        self.send("POST", path, serde_json::to_vec(body)?.into()).map(|_| ())
    }

    /// Has something replaced.
    pub(crate) fn put<T: DeserializeOwned>(&mut self, path: &str, body: &impl Serialize) -> anyhow::Result<T> {
        let answer = self.send("PUT", path, serde_json::to_vec(body)?.into())?;
        serde_json::from_slice(&answer).with_context(|| format!("the shop's answer to {path} cannot be read"))
    }

    /// Asks whether it answers at all, and what, good or bad.
    pub(crate) fn ask_within(&mut self, patience: Duration, path: &str) -> anyhow::Result<(StatusCode, Bytes)> {
        self.exchange(patience, "GET", path, Bytes::new())
    }

    /// Sends a request and returns the body of its 2xx answer; a problem becomes an error in the shop's own words.
    fn send(&mut self, method: &str, path: &str, body: Bytes) -> anyhow::Result<Bytes> {
        let (status, body) = self.exchange(PATIENCE, method, path, body)?;
        if status.is_success() {
            return Ok(body);
        }
        let problem: Value = serde_json::from_slice(&body).unwrap_or_default();
        match problem.get("detail").and_then(Value::as_str) {
            Some(detail) => bail!("{detail}"),
            None => bail!("the shop answered {status}: {}", String::from_utf8_lossy(&body)),
        }
    }

    fn exchange(
        &mut self,
        patience: Duration,
        method: &str,
        path: &str,
        body: Bytes,
    ) -> anyhow::Result<(StatusCode, Bytes)> {
        let request = Request::builder().method(method).uri(path).header(HOST, &self.host);
        let request = match &self.password {
            Some(password) => request.header(AUTHORIZATION, format!("Bearer {password}")),
            None => request,
        };
        let request = request.header(CONTENT_TYPE, "application/json").body(Full::new(body))?;
        let requests = &mut self.requests;
        let exchange = async {
            requests.ready().await?;
            let answer = requests.send_request(request).await?;
            Ok::<_, hyper::Error>((answer.status(), answer.into_body().collect().await?.to_bytes()))
        };
        let answered = self.runtime.block_on(async {
            let mut exchange = std::pin::pin!(exchange);
            match tokio::time::timeout(patience.min(LONG), &mut exchange).await {
                Err(_) if patience > LONG => {
                    let left = (patience - LONG).as_secs();
                    eprintln!("settle: no answer for {} s; waiting for {left} s more. {DOCTOR}", LONG.as_secs());
                    tokio::time::timeout(patience - LONG, exchange).await
                }
                answered => answered,
            }
        });
        let hint = if patience > LONG { format!(". {DOCTOR}") } else { String::new() };
        let answered =
            answered.with_context(|| format!("the shop did not answer in {} s{hint}", patience.as_secs()))?;
        answered.context("the shop broke the connection off; whether it did what was asked is not known")
    }
}
