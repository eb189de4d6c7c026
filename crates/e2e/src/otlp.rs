//! A back end for traces: takes OTLP over HTTP and gRPC on one port, and keeps what it is sent.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt as _, Full, StreamBody};
use hyper::body::{Bytes, Frame, Incoming};
use hyper::service::service_fn;
use hyper::{HeaderMap, Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use opentelemetry_proto::tonic::collector::trace::v1::{ExportTraceServiceRequest, ExportTraceServiceResponse};
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue};
use prost::Message as _;

use crate::client::PATIENCE;

/// A span as it arrived, its ids in hexadecimal digits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Span {
    /// `service.name` of whose it is.
    pub service: String,
    /// `service.instance.id` of whose it is.
    pub instance: String,
    /// What it is called.
    pub name: String,
    /// The trace.
    pub trace: String,
    /// Its own id.
    pub id: String,
    /// Its parent's; empty if it has none.
    pub parent: String,
    /// 1 internal, 2 server, 3 client.
    pub kind: i32,
    /// Nanoseconds since 1970.
    pub times: (u64, u64),
    /// Whether it says that it failed.
    pub failed: bool,
    /// Everything else that it says.
    pub attributes: BTreeMap<String, String>,
    /// The traces that it points to.
    pub links: Vec<String>,
}

/// The back end. It goes on until the process ends.
#[derive(Debug, Clone)]
pub struct BackEnd {
    address: SocketAddr,
    spans: Arc<Mutex<Vec<Span>>>,
    asked: Arc<Mutex<Vec<(String, String)>>>,
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn texts(pairs: Vec<KeyValue>) -> BTreeMap<String, String> {
    let text = |value: Option<AnyValue>| match value.and_then(|value| value.value) {
        Some(Value::StringValue(text)) => text,
        Some(Value::IntValue(number)) => number.to_string(),
        other => format!("{other:?}"),
    };
    pairs.into_iter().map(|pair| (pair.key, text(pair.value))).collect()
}

fn spans(batch: ExportTraceServiceRequest) -> Vec<Span> {
    let mut all = Vec::new();
    for of in batch.resource_spans {
        let resource = texts(of.resource.unwrap_or_default().attributes);
        let about = |name: &str| resource.get(name).cloned().unwrap_or_default();
        for span in of.scope_spans.into_iter().flat_map(|scope| scope.spans) {
            all.push(Span {
                service: about("service.name"),
                instance: about("service.instance.id"),
                trace: hex(&span.trace_id),
                id: hex(&span.span_id),
                parent: hex(&span.parent_span_id),
                kind: span.kind,
                times: (span.start_time_unix_nano, span.end_time_unix_nano),
                failed: span.status.is_some_and(|status| status.code == 2),
                attributes: texts(span.attributes),
                links: span.links.iter().map(|link| hex(&link.trace_id)).collect(),
                name: span.name,
            });
        }
    }
    all
}

impl BackEnd {
    /// Starts on a free port of 127.0.0.1.
    pub fn start() -> Self {
        let listener = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap();
        listener.set_nonblocking(true).unwrap();
        let (spans, asked) = (Arc::default(), Arc::default());
        let back_end = Self { address: listener.local_addr().unwrap(), spans, asked };
        let served = back_end.clone();
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(served.serve(listener));
        });
        back_end
    }

    /// Its address, as a process is told.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// What has arrived.
    pub fn spans(&self) -> Vec<Span> {
        self.spans.lock().unwrap().clone()
    }

    /// The headers `authorization` and `content-type` of every batch.
    pub fn asked(&self) -> Vec<(String, String)> {
        self.asked.lock().unwrap().clone()
    }

    /// Waits until a trace is as wanted, and gives its spans.
    ///
    /// # Panics
    /// If it does not become so.
    pub fn wait_for(&self, what: &str, wanted: impl Fn(&[Span]) -> bool) -> Vec<Span> {
        let until = Instant::now() + PATIENCE;
        loop {
            let spans = self.spans();
            let traces: std::collections::BTreeSet<&str> = spans.iter().map(|span| span.trace.as_str()).collect();
            for trace in traces {
                let of: Vec<Span> = spans.iter().filter(|span| span.trace == trace).cloned().collect();
                if wanted(&of) {
                    return of;
                }
            }
            assert!(Instant::now() < until, "no trace has {what}: {spans:#?}");
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    async fn serve(self, listener: std::net::TcpListener) {
        let listener = tokio::net::TcpListener::from_std(listener).unwrap();
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let back_end = self.clone();
            let service = service_fn(move |request| {
                let back_end = back_end.clone();
                async move { Ok::<_, Infallible>(back_end.take(request).await) }
            });
            tokio::spawn(async move {
                let connection = auto::Builder::new(TokioExecutor::new());
                _ = connection.serve_connection(TokioIo::new(stream), service).await;
            });
        }
    }

    async fn take(&self, request: Request<Incoming>) -> Response<BoxBody<Bytes, Infallible>> {
        let (path, headers) = (request.uri().path().to_owned(), request.headers().clone());
        let field = |name: &str| headers.get(name).map_or("", |value| value.to_str().unwrap()).to_owned();
        let body = request.into_body().collect().await.unwrap().to_bytes();
        let grpc = path == "/opentelemetry.proto.collector.trace.v1.TraceService/Export";
        assert!(grpc || path == "/v1/traces", "{path}");
        let message = if grpc {
            assert_eq!((body[0], u32::from_be_bytes(body[1..5].try_into().unwrap()) as usize), (0, body.len() - 5));
            body.slice(5..)
        } else {
            body
        };
        let batch = ExportTraceServiceRequest::decode(message).unwrap();
        self.asked.lock().unwrap().push((field("authorization"), field("content-type")));
        self.spans.lock().unwrap().extend(spans(batch));
        let answer = ExportTraceServiceResponse::default().encode_to_vec();
        if !grpc {
            return Response::new(Full::new(Bytes::from(answer)).boxed());
        }
        let framed = [&[0][..], &u32::try_from(answer.len()).unwrap().to_be_bytes(), &answer].concat();
        let mut trailers = HeaderMap::new();
        trailers.insert("grpc-status", "0".parse().unwrap());
        let frames = [Frame::data(Bytes::from(framed)), Frame::trailers(trailers)];
        let body = StreamBody::new(futures_util::stream::iter(frames.map(Ok::<_, Infallible>)));
        Response::builder()
            .header("content-type", "application/grpc")
            .body(http_body_util::BodyExt::boxed(body))
            .unwrap()
    }
}

/// Every span but one has its parent among the others, and the one that has not is called so.
///
/// # Panics
/// If it is otherwise.
pub fn assert_is_tree(spans: &[Span], root: &str) {
    let orphans: Vec<_> =
        spans.iter().filter(|span| !spans.iter().any(|other| other.id == span.parent)).map(|span| &span.name).collect();
    assert_eq!(orphans, [root], "{spans:#?}");
    assert!(spans.iter().all(|span| span.times.0 <= span.times.1 && span.times.0 > 1_700_000_000_000_000_000));
    let ids: std::collections::BTreeSet<_> = spans.iter().map(|span| &span.id).collect();
    assert_eq!(ids.len(), spans.len(), "an id twice: {spans:#?}");
}
