//! A span, and what OTLP makes of it.

use std::borrow::Cow;
use std::sync::Arc;

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::{AnyValue, InstrumentationScope, KeyValue, any_value};
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::span::{Link, SpanKind};
use opentelemetry_proto::tonic::trace::v1::status::StatusCode;
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span as Proto, Status};

use crate::ids::{SpanId, TraceContext, TraceId};
use crate::logs::Origin;

/// Which side of a call a span is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Server,
    Client,
    Internal,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Value {
    Text(Cow<'static, str>),
    Number(i64),
}

/// A span that has ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Span {
    name: Cow<'static, str>,
    kind: Kind,
    trace: TraceId,
    span: SpanId,
    pub(super) parent: Option<SpanId>,
    pub(super) state: Option<Arc<str>>,
    /// Nanoseconds since 1970.
    began: u64,
    ended: u64,
    attributes: Vec<(&'static str, Value)>,
    pub(super) link: Option<TraceContext>,
    /// Why it failed, if it did; empty if that stands in the attributes.
    pub(super) failed: Option<String>,
}

impl Span {
    pub(super) fn new(
        name: impl Into<Cow<'static, str>>,
        kind: Kind,
        (trace, span): (TraceId, SpanId),
        (began, ended): (u64, u64),
    ) -> Self {
        let ended = ended.max(began);
        let (parent, state, link, failed) = (None, None, None, None);
        Self { name: name.into(), kind, trace, span, parent, state, began, ended, attributes: Vec::new(), link, failed }
    }

    pub(super) fn text(&mut self, name: &'static str, value: impl Into<String>) {
        self.attributes.push((name, Value::Text(Cow::Owned(value.into()))));
    }

    pub(super) fn word(&mut self, name: &'static str, value: &'static str) {
        self.attributes.push((name, Value::Text(Cow::Borrowed(value))));
    }

    pub(super) fn number(&mut self, name: &'static str, value: i64) {
        self.attributes.push((name, Value::Number(value)));
    }

    fn into_proto(self) -> Proto {
        let link = self.link.map(|to| Link {
            trace_id: to.trace.0.to_vec(),
            span_id: to.span.0.to_vec(),
            trace_state: to.state.as_deref().unwrap_or_default().to_owned(),
            ..Link::default()
        });
        let kind = match self.kind {
            Kind::Server => SpanKind::Server,
            Kind::Client => SpanKind::Client,
            Kind::Internal => SpanKind::Internal,
        };
        let attribute = |(name, value): (&'static str, Value)| match value {
            Value::Text(text) => pair(name, any_value::Value::StringValue(text.into_owned())),
            Value::Number(number) => pair(name, any_value::Value::IntValue(number)),
        };
        Proto {
            trace_id: self.trace.0.to_vec(),
            span_id: self.span.0.to_vec(),
            trace_state: self.state.as_deref().unwrap_or_default().to_owned(),
            parent_span_id: self.parent.map(|parent| parent.0.to_vec()).unwrap_or_default(),
            name: self.name.into_owned(),
            kind: kind.into(),
            start_time_unix_nano: self.began,
            end_time_unix_nano: self.ended,
            attributes: self.attributes.into_iter().map(attribute).collect(),
            links: link.into_iter().collect(),
            status: self.failed.map(|message| Status { message, code: StatusCode::Error.into() }),
            ..Proto::default()
        }
    }
}

fn pair(name: &str, value: any_value::Value) -> KeyValue {
    KeyValue { key: name.to_owned(), value: Some(AnyValue { value: Some(value) }), ..KeyValue::default() }
}

/// What a batch of spans is sent as.
pub(super) fn request(origin: &Origin, spans: Vec<Span>) -> ExportTraceServiceRequest {
    let text = |name: &str, value: &str| pair(name, any_value::Value::StringValue(value.to_owned()));
    let resource = Resource {
        attributes: vec![
            text("service.name", &origin.service),
            text("service.instance.id", &origin.instance),
            text("service.version", env!("CARGO_PKG_VERSION")),
            text("service.namespace", "settle"),
        ],
        ..Resource::default()
    };
    let scope = InstrumentationScope {
        name: "settle".to_owned(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        ..InstrumentationScope::default()
    };
    let spans = spans.into_iter().map(Span::into_proto).collect();
    let scope_spans = vec![ScopeSpans { scope: Some(scope), spans, ..ScopeSpans::default() }];
    let resource_spans = vec![ResourceSpans { resource: Some(resource), scope_spans, ..ResourceSpans::default() }];
    ExportTraceServiceRequest { resource_spans }
}
