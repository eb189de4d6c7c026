//! A request under way: noted from its arrival, made a span when it is answered, if anybody wants that.

use std::fmt::Display;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use ledger::EntityId;

use super::span::{Kind, Span};
use super::{Tracer, span_id};
use crate::ids::{SpanId, TraceContext, TraceId};
use crate::scope::Scope;

/// A request under way.
#[derive(Debug)]
pub struct Request {
    tracer: Arc<Tracer>,
    pub(super) began: u64,
    /// What the client said.
    parent: Option<TraceContext>,
    /// What its span's id and its trace's follow from.
    seed: u64,
    /// Whether it is traced however it ends.
    pub(super) sampled: bool,
    /// Whether something in it is worth being looked at.
    kept: AtomicBool,
    trace: OnceLock<TraceId>,
    pub(crate) order: Option<EntityId>,
}

/// How a request was answered.
#[derive(Clone, Copy)]
pub struct Answered<'a> {
    /// `POST`.
    pub method: &'a str,
    /// `/orders/checkout/{order_id}`.
    pub route: &'static str,
    /// `/orders/checkout/7`; written only if somebody wants it.
    pub path: &'a dyn Display,
    /// 200.
    pub status: u16,
}

impl Answered<'_> {
    /// Whether somebody will want to know why: the service, or one behind it, failed. What a client did wrong is the client's.
    fn is_failure(self) -> bool {
        self.status >= 500 || self.status == 424
    }
}

impl Request {
    /// A request that has just arrived, with what its client says of its trace, and the order that it is about.
    pub fn begin(tracer: &Arc<Tracer>, parent: Option<TraceContext>, order: Option<EntityId>) -> Arc<Self> {
        let seed = tracer.random();
        let sampled = parent.as_ref().map_or_else(|| tracer.samples(seed), |parent| parent.sampled);
        Arc::new(Self {
            began: tracer.time(sampled),
            parent,
            seed,
            sampled,
            kept: AtomicBool::new(false),
            trace: OnceLock::new(),
            order,
            tracer: Arc::clone(tracer),
        })
    }

    /// What is done for it is done in this scope.
    pub fn scope(self: &Arc<Self>) -> Scope {
        Scope { request: Some(Arc::clone(self)), ..Scope::default() }
    }

    /// Its trace: that of its client; or, if it has none, the one that is told first.
    pub(super) fn trace(&self, otherwise: impl FnOnce() -> TraceId) -> TraceId {
        self.parent.as_ref().map_or_else(|| *self.trace.get_or_init(otherwise), |parent| parent.trace)
    }

    /// Its place in its trace.
    pub fn context(&self) -> TraceContext {
        let anew = || {
            let halves = [self.tracer.random().max(1), self.tracer.random()];
            let mut id = [0; 16];
            id.iter_mut().zip(halves.into_iter().flat_map(u64::to_be_bytes)).for_each(|(to, from)| *to = from);
            TraceId(id)
        };
        let sampled = self.sampled || self.kept.load(Ordering::Relaxed);
        let state = self.parent.as_ref().and_then(|parent| parent.state.clone());
        TraceContext { trace: self.trace(anew), span: self.span(), sampled, state }
    }

    /// The span that what is done for it belongs to.
    pub(super) fn span(&self) -> SpanId {
        derived(self.seed, [0; 3])
    }

    pub(super) fn state(&self) -> Option<Arc<str>> {
        self.parent.as_ref()?.state.clone()
    }

    /// Something in it is worth being looked at.
    pub(super) fn keep(&self) {
        self.kept.store(true, Ordering::Relaxed);
    }

    /// It is answered. Its trace, if somebody will be sent it.
    pub fn answered(&self, answered: Answered<'_>) -> Option<TraceId> {
        let failure = answered.is_failure();
        let kept = self.sampled || failure || self.kept.load(Ordering::Relaxed);
        let ended = self.tracer.time(self.sampled);
        if !kept && !self.tracer.is_slow(self.began, ended) {
            return None;
        }
        let TraceContext { trace, span, state, .. } = self.context();
        let Answered { method, route, path, status } = answered;
        let mut made = Span::new(format!("{method} {route}"), Kind::Server, (trace, span), (self.began, ended));
        made.parent = self.parent.as_ref().map(|parent| parent.span);
        made.state = state;
        made.text("http.request.method", method);
        made.text("http.route", route);
        made.text("url.path", path.to_string());
        made.text("url.scheme", "http");
        made.text("network.protocol.version", "1.1");
        made.number("http.response.status_code", i64::from(status));
        if let Some(order) = self.order {
            made.text("settle.order.id", order.to_string());
        }
        if failure {
            made.text("error.type", status.to_string());
        }
        // By the conventions, a client's mistake is no error of the server's; and this one's 424 is an outage behind it.
        made.failed = failure.then(String::new);
        self.tracer.export(made).then_some(trace)
    }
}

/// A span's id that follows from others: the same wherever it is worked out.
pub(super) fn derived(seed: u64, what: [u64; 3]) -> SpanId {
    span_id(what.into_iter().fold(seed, |seed, part| super::mix(seed ^ part.wrapping_add(0x9e37_79b9_7f4a_7c15))))
}
