//! A batch on its way to the back end: OTLP in protobuf, over HTTP/1.1 or gRPC.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::client::conn::{http1, http2};
use hyper::header::{CONTENT_TYPE, HOST, HeaderName, HeaderValue, TE};
use hyper::{Method, Request, Response, Version};
use hyper_util::rt::{TokioExecutor, TokioIo};
use opentelemetry_proto::tonic::collector::trace::v1::{ExportTraceServiceRequest, ExportTraceServiceResponse};
use prost::Message as _;
use tokio::net::TcpStream;

/// How long a connection may take.
const CONNECT: Duration = Duration::from_secs(2);
/// The longest answer that is read. Bytes.
const MAX_ANSWER: usize = 64 * 1024;
const GRPC_METHOD: &str = "/opentelemetry.proto.collector.trace.v1.TraceService/Export";

/// How batches travel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Protocol {
    /// gRPC; port 4317 unless another is given.
    #[default]
    Grpc,
    /// Protobuf in HTTP/1.1, to `/v1/traces`; port 4318 unless another is given.
    Http,
}

/// Where a back end, or a collector before it, listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    protocol: Protocol,
    /// Host and port.
    authority: String,
    /// Before `/v1/traces`; without an end.
    path: String,
}

/// An address that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BadEndpoint(&'static str);

impl fmt::Display for BadEndpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

impl std::error::Error for BadEndpoint {}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "http://{}{}", self.authority, self.path)
    }
}

impl FromStr for Protocol {
    type Err = BadEndpoint;

    /// `grpc`, `http`, or as OTEL_EXPORTER_OTLP_PROTOCOL has it: `http/protobuf`.
    fn from_str(text: &str) -> Result<Self, BadEndpoint> {
        match text {
            "grpc" => Ok(Self::Grpc),
            "http" | "http/protobuf" => Ok(Self::Http),
            _ => Err(BadEndpoint("it is grpc or http")),
        }
    }
}

impl Endpoint {
    /// The back end at `url`, such as `http://127.0.0.1:4317`.
    ///
    /// # Errors
    /// If that is no such address. TLS is left to a collector on the same machine.
    pub fn new(protocol: Protocol, url: &str) -> Result<Self, BadEndpoint> {
        let rest = url.strip_prefix("http://").ok_or(BadEndpoint(
            "it is http://HOST:PORT; what should travel further than this network goes by way of a collector, which has TLS",
        ))?;
        let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
        let strange = |c: char| c.is_whitespace() || c.is_control() || matches!(c, '@' | '?' | '#' | ',');
        if authority.is_empty() || authority.starts_with(':') || rest.contains(strange) || !rest.is_ascii() {
            return Err(BadEndpoint("it is http://HOST:PORT, without a password"));
        }
        let port = match protocol {
            Protocol::Grpc => 4317,
            Protocol::Http => 4318,
        };
        let has_port = authority.rsplit_once(':').is_some_and(|(host, port)| {
            !port.is_empty() && !host.ends_with(':') && port.bytes().all(|b| b.is_ascii_digit())
        });
        if has_port && authority.rsplit_once(':').is_none_or(|(_, port)| port.parse::<u16>().is_err()) {
            return Err(BadEndpoint("its port is none"));
        }
        let authority = if has_port { authority.to_owned() } else { format!("{authority}:{port}") };
        Ok(Self { protocol, authority, path: path.trim_end_matches('/').to_owned() })
    }

    /// Where that is: `HOST:PORT`.
    pub fn authority(&self) -> &str {
        &self.authority
    }
}

enum Link {
    Http(http1::SendRequest<Full<Bytes>>),
    Grpc(http2::SendRequest<Full<Bytes>>),
}

/// A connection to a back end, made when it is needed.
pub(super) struct Sender {
    endpoint: Endpoint,
    headers: Vec<(HeaderName, HeaderValue)>,
    link: Option<Link>,
}

impl Sender {
    pub(super) fn new(endpoint: Endpoint, headers: Vec<(String, String)>) -> Self {
        let header = |(name, value): (String, String)| {
            let mut value = HeaderValue::from_str(&value).ok()?;
            value.set_sensitive(true);
            Some((name.parse().ok()?, value))
        };
        Self { endpoint, headers: headers.into_iter().filter_map(header).collect(), link: None }
    }

    pub(super) fn hang_up(&mut self) {
        self.link = None;
    }

    /// Sends a batch; how many of its spans were not wanted.
    ///
    /// # Errors
    /// If it was not taken.
    pub(super) async fn send(&mut self, batch: &ExportTraceServiceRequest) -> Result<u64, String> {
        // A connection that was idle for long may be gone: it is made anew, once.
        let mut kept = self.link.take();
        let is_ready = match &mut kept {
            Some(kept) => kept.is_ready().await,
            None => false,
        };
        let mut link = match kept.filter(|_| is_ready) {
            Some(kept) => kept,
            None => self.connect().await?,
        };
        let (request, is_grpc) = self.request(batch)?;
        let answer = match &mut link {
            Link::Http(requests) => requests.send_request(request).await,
            Link::Grpc(requests) => requests.send_request(request).await,
        };
        let answer = answer.map_err(|error| error.to_string())?;
        let rejected = if is_grpc { grpc_answer(answer).await } else { http_answer(answer).await };
        self.link = Some(link);
        rejected
    }

    async fn connect(&self) -> Result<Link, String> {
        let connecting = tokio::time::timeout(CONNECT, TcpStream::connect(&self.endpoint.authority));
        let stream = connecting.await.map_err(|_| "no connection in time".to_owned())?;
        let stream = stream.map_err(|error| error.to_string())?;
        _ = stream.set_nodelay(true);
        let io = TokioIo::new(stream);
        let broken = |error: hyper::Error| error.to_string();
        // How a connection ends, whoever sends on it is told.
        match self.endpoint.protocol {
            Protocol::Http => {
                let (requests, connection) = http1::handshake(io).await.map_err(broken)?;
                tokio::spawn(async move { _ = connection.await });
                Ok(Link::Http(requests))
            }
            Protocol::Grpc => {
                let (requests, connection) = http2::handshake(TokioExecutor::new(), io).await.map_err(broken)?;
                tokio::spawn(async move { _ = connection.await });
                Ok(Link::Grpc(requests))
            }
        }
    }

    fn request(&self, batch: &ExportTraceServiceRequest) -> Result<(Request<Full<Bytes>>, bool), String> {
        let Endpoint { protocol, authority, path } = &self.endpoint;
        let builder = Request::builder().method(Method::POST);
        let (mut builder, body, is_grpc) = match protocol {
            Protocol::Http => {
                let builder = builder.uri(format!("{path}/v1/traces")).header(HOST, authority);
                (builder.header(CONTENT_TYPE, "application/x-protobuf"), batch.encode_to_vec(), false)
            }
            Protocol::Grpc => {
                let builder = builder.version(Version::HTTP_2).uri(format!("http://{authority}{GRPC_METHOD}"));
                let message = batch.encode_to_vec();
                // Not compressed, then the length, then the message.
                let length = u32::try_from(message.len()).map_err(|_| "a batch is too long".to_owned())?;
                let framed = [&[0], &length.to_be_bytes()[..], &message].concat();
                (builder.header(CONTENT_TYPE, "application/grpc").header(TE, "trailers"), framed, true)
            }
        };
        for (name, value) in &self.headers {
            builder = builder.header(name, value);
        }
        let request = builder.body(Full::new(Bytes::from(body))).map_err(|error| error.to_string())?;
        Ok((request, is_grpc))
    }
}

impl Link {
    async fn is_ready(&mut self) -> bool {
        match self {
            Self::Http(requests) => requests.ready().await.is_ok(),
            Self::Grpc(requests) => requests.ready().await.is_ok(),
        }
    }
}

fn rejected(message: &[u8]) -> u64 {
    // Whoever takes a batch and says nothing that can be read has taken it.
    let answer = ExportTraceServiceResponse::decode(message).unwrap_or_default();
    answer.partial_success.map_or(0, |partial| u64::try_from(partial.rejected_spans).unwrap_or(0))
}

async fn http_answer(answer: Response<hyper::body::Incoming>) -> Result<u64, String> {
    let status = answer.status();
    let body = Limited::new(answer.into_body(), MAX_ANSWER).collect().await.map_err(|error| error.to_string())?;
    if status.is_success() { Ok(rejected(&body.to_bytes())) } else { Err(format!("it answered {status}")) }
}

async fn grpc_answer(answer: Response<hyper::body::Incoming>) -> Result<u64, String> {
    let (head, body) = answer.into_parts();
    let body = Limited::new(body, MAX_ANSWER).collect().await.map_err(|error| error.to_string())?;
    // Without a message the status stands in the head.
    let status =
        body.trailers().and_then(|trailers| trailers.get("grpc-status")).or_else(|| head.headers.get("grpc-status"));
    match status.map(HeaderValue::as_bytes) {
        Some(b"0") => Ok(rejected(body.to_bytes().get(5..).unwrap_or_default())),
        Some(code) => Err(format!("it answered with the gRPC status {}", String::from_utf8_lossy(code))),
        None => Err(format!("it answered {} and no gRPC status: is it gRPC that it speaks?", head.status)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_endpoint_is_read_as_people_write_it() {
        for (protocol, url, shown) in [
            (Protocol::Grpc, "http://127.0.0.1:14317", "http://127.0.0.1:14317"),
            (Protocol::Grpc, "http://jaeger", "http://jaeger:4317"),
            (Protocol::Http, "http://jaeger/", "http://jaeger:4318"),
            (Protocol::Http, "http://jaeger:80/otlp/", "http://jaeger:80/otlp"),
            (Protocol::Http, "http://[::1]:4318", "http://[::1]:4318"),
        ] {
            assert_eq!(Endpoint::new(protocol, url).unwrap().to_string(), shown, "{url}");
        }
        for bad in [
            "",
            "jaeger:4317",
            "https://jaeger",
            "http://",
            "http://:1",
            "http://a b",
            "http://me:secret@jaeger",
            "http://a:99999",
        ] {
            assert!(Endpoint::new(Protocol::Grpc, bad).is_err(), "{bad}");
        }
    }
}
