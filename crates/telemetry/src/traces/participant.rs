//! A participant behind a message, traced: a span for each command, whose parent is that of whoever sent it.
//!
//! Whether a trace is wanted is often known only once the transaction is answered. So the spans of commands that were not sampled are kept a little
//! while: the command that settles the branch says whether they were worth it.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use orchestrator::{Done, Participant};
use parking_lot::Mutex;
use protocol::limits::{KEPT_SPANS, KEPT_TRACES};
use protocol::{Command, Name, Reply, TransactionId, Verb};

use super::Tracer;
use super::following::own;
use super::span::{Kind, Span};
use crate::ids::TraceContext;
use crate::scope::Scope;

/// A participant, traced.
pub struct Traced {
    inner: Arc<dyn Participant>,
    service: Name,
    tracer: Arc<Tracer>,
    kept: Arc<Mutex<Kept>>,
}

/// Spans that nobody wants so far.
#[derive(Default)]
struct Kept {
    spans: HashMap<TransactionId, Vec<Span>>,
    oldest: VecDeque<TransactionId>,
}

impl Kept {
    fn keep(&mut self, id: TransactionId, span: Span) {
        let spans = self.spans.entry(id).or_insert_with(|| {
            self.oldest.push_back(id);
            Vec::new()
        });
        if spans.len() < KEPT_SPANS {
            spans.push(span);
        }
        // Some of them were taken out before.
        while self.oldest.len() > KEPT_TRACES {
            if let Some(id) = self.oldest.pop_front() {
                self.spans.remove(&id);
            }
        }
    }

    fn take(&mut self, id: TransactionId) -> Vec<Span> {
        self.spans.remove(&id).unwrap_or_default()
    }
}

impl Traced {
    /// The participant itself, unless this process traces.
    pub fn participant(service: Name, inner: Arc<dyn Participant>) -> Arc<dyn Participant> {
        match super::tracer() {
            None => inner,
            Some(tracer) => Arc::new(Self { inner, service, tracer: Arc::clone(tracer), kept: Arc::default() }),
        }
    }
}

/// Whether nothing follows for a branch.
fn settles(verb: Verb) -> bool {
    matches!(verb, Verb::Commit | Verb::Abort | Verb::Compensate)
}

impl Participant for Traced {
    fn handle(&self, command: Command, done: Done<Reply>) {
        let (id, verb, step) = (command.branch.transaction, command.verb, command.branch.step);
        let sender = Scope::current().and_then(|scope| scope.trace.clone()).unwrap_or_else(|| {
            let (trace, span) = own(id);
            TraceContext { trace, span, sampled: false, state: None }
        });
        let (tracer, began, span, service) =
            (Arc::clone(&self.tracer), self.tracer.now(), self.tracer.new_span(), self.service);
        let kept = Arc::clone(&self.kept);
        let here = Scope { trace: Some(TraceContext { span, ..sender.clone() }), ..Scope::default() };
        let done: Done<Reply> = Box::new(move |reply| {
            let ended = tracer.now();
            let name = format!("{service}/{}", verb.as_str());
            let mut made = Span::new(name.clone(), Kind::Server, (sender.trace, span), (began, ended));
            made.parent = Some(sender.span);
            made.state = sender.state;
            made.word("rpc.system.name", "settle");
            made.text("rpc.method", name);
            made.word("messaging.system", "nats");
            made.text("settle.transaction.id", id.to_string());
            made.number("settle.step", i64::from(step));
            let (word, failed) = match &reply {
                Reply::Done(_) => ("done", false),
                Reply::Refused(_) => ("refused", false),
                Reply::Violation(_) => ("violation", true),
                Reply::Unknown(_) => ("unknown", true),
            };
            made.word("settle.result", word);
            if failed {
                made.word("error.type", word);
                made.failed = Some(String::new());
            }
            let wanted = sender.sampled || failed || tracer.is_slow(began, ended);
            let before = if wanted || settles(verb) { kept.lock().take(id) } else { Vec::new() };
            if wanted {
                before.into_iter().for_each(|span| _ = tracer.export(span));
                tracer.export(made);
            } else if !settles(verb) {
                kept.lock().keep(id, made);
            }
            done(reply);
        });
        here.within(|| self.inner.handle(command, done));
    }
}
