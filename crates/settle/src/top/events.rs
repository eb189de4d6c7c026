//! Listens to whoever serves a page: server-sent events over HTTP.

use anyhow::{Context, bail};
use bytes::Bytes;
use http_body_util::{BodyExt, Empty, Limited};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper::header::HOST;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::TcpStream;
use watch::snapshot::{History, Point};

use super::view::Seen;

/// The longest answer, and the longest event: a history of ten minutes has some hundred thousand bytes.
const MAX_BYTES: usize = 4 << 20;

/// Events as they come.
pub(super) struct Events {
    body: Incoming,
    read: Vec<u8>,
}

impl Events {
    /// Begins to listen.
    pub(super) async fn listen(address: &str, prefix: &str) -> anyhow::Result<Self> {
        let answer = ask(address, &format!("{prefix}/dashboard/events")).await?;
        let kind = answer.headers().get(hyper::header::CONTENT_TYPE).map_or(&b""[..], |kind| kind.as_bytes());
        if !kind.starts_with(b"text/event-stream") {
            bail!("{address} answers something else than events");
        }
        Ok(Self { body: answer.into_body(), read: vec![] })
    }

    /// Waits for the next event, and takes it in.
    pub(super) async fn next(&mut self, seen: &mut Seen) -> anyhow::Result<()> {
        loop {
            if let Some(end) = self.read.windows(2).position(|two| two == b"\n\n") {
                let event: Vec<u8> = self.read.drain(..end + 2).collect();
                return take(&String::from_utf8_lossy(&event), seen);
            }
            let Some(frame) = self.body.frame().await else { bail!("it has ended") };
            if let Ok(data) = frame.context("the connection broke")?.into_data() {
                self.read.extend_from_slice(&data);
            }
            if self.read.len() > MAX_BYTES {
                bail!("an event is longer than {MAX_BYTES} bytes");
            }
        }
    }
}

/// Takes in one event. A comment, or an event of a kind that is not known, says nothing.
fn take(event: &str, seen: &mut Seen) -> anyhow::Result<()> {
    let field = |name: &str| event.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
    let data = field("data").unwrap_or_default();
    match field("event") {
        Some("history") => {
            let history: History = serde_json::from_str(data).context("a history that cannot be read")?;
            seen.points = history.points.into();
        }
        Some("snapshot") => {
            let snapshot: watch::Snapshot = serde_json::from_str(data).context("a snapshot that cannot be read")?;
            if seen.points.back().is_none_or(|last| last.at < snapshot.at) {
                seen.add(Point::of(&snapshot));
            }
            (seen.snapshot, seen.lost) = (Some(snapshot), None);
        }
        _ => {}
    }
    Ok(())
}

/// The body of an answer.
pub(super) async fn get(address: &str, path: &str) -> anyhow::Result<String> {
    let answer = ask(address, path).await?;
    let body = Limited::new(answer.into_body(), MAX_BYTES).collect().await;
    let body = body.map_err(|error| anyhow::anyhow!("the connection broke: {error}"))?.to_bytes();
    Ok(String::from_utf8_lossy(&body).into_owned())
}

/// A 200; a problem becomes an error in the other's own words.
async fn ask(address: &str, path: &str) -> anyhow::Result<Response<Incoming>> {
    let stream = TcpStream::connect(address).await.with_context(|| format!("cannot connect to {address}"))?;
    let (mut requests, connection) = http1::handshake(TokioIo::new(stream)).await.context("it speaks no HTTP")?;
    // Its failure is also that of the answer.
    tokio::spawn(async move { _ = connection.await });
    let request = Request::get(path).header(HOST, address).body(Empty::<Bytes>::new())?;
    let answer = requests.send_request(request).await.context("it speaks no HTTP")?;
    let status = answer.status();
    if status.is_success() {
        return Ok(answer);
    }
    let body =
        Limited::new(answer.into_body(), MAX_BYTES).collect().await.map(|body| body.to_bytes()).unwrap_or_default();
    let problem: Value = serde_json::from_slice(&body).unwrap_or_default();
    match problem["detail"].as_str() {
        Some(detail) => bail!("{address} answers {status}: {detail}"),
        None => bail!("{address} answers {status}"),
    }
}
