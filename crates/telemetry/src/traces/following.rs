//! A transaction under way, as the engine tells it: notes while it runs, spans once it is known that somebody wants them.
//!
//! | when                        | what is made                                                                       |
//! |-----------------------------|-------------------------------------------------------------------------------------|
//! | its caller is answered      | if it is sampled, failed or slow: its own span, and those of what has ended by then |
//! | it is let go of             | if so: the spans of what went on behind the answer                                 |
//! | it is stuck, or contradicted | the same, from then on, however it was answered                                   |

use std::any::Any;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use orchestrator::{Followed, Follower, Mark, Observation, Observer, Origin, outcome_word};
use parking_lot::Mutex;
use protocol::limits::{MAX_NOTES, MAX_STEPS};
use protocol::{Decision, Name, Outcome, Protocol, Reply, Transaction, Verb};

use super::request::{Request, derived};
use super::span::{Kind, Span};
use super::{Tracer, mix, tracer};
use crate::ids::{SpanId, TraceContext, TraceId};
use crate::scope::Scope;

/// A transaction that was answered, and whose trace is on its way to the back end.
#[derive(Debug, Clone, Copy)]
pub struct Kept {
    /// The trace.
    pub trace: TraceId,
    /// Its definition.
    pub definition: Name,
    /// The protocol that it used.
    pub protocol: Protocol,
    /// [`outcome_word`] of what the caller heard.
    pub outcome: &'static str,
    /// From its begin. Microseconds.
    pub micros: u64,
}

/// Who is told of those: seldom, and while a caller waits for its answer.
pub type Listener = Arc<dyn Fn(&Kept) + Send + Sync>;

/// The observer, which also has transactions traced, if this process traces, and a listener told of those that are kept.
pub fn observing(inner: Arc<dyn Observer>, listener: Listener) -> Arc<dyn Observer> {
    match tracer() {
        None => inner,
        Some(tracer) => Arc::new(Observing { inner, tracer: Arc::clone(tracer), listener }),
    }
}

struct Observing {
    inner: Arc<dyn Observer>,
    tracer: Arc<Tracer>,
    listener: Listener,
}

impl Observer for Observing {
    fn observe(&self, observation: &Observation<'_>) {
        self.inner.observe(observation);
    }

    fn origin(&self) -> Origin {
        let request = Scope::current_request()?;
        Some(request as Arc<dyn Any + Send + Sync>)
    }

    fn within(&self, transaction: &Transaction, work: &mut dyn FnMut()) {
        self.inner.within(transaction, work);
    }

    fn follow(&self, followed: &Followed<'_>, origin: Origin) -> Option<Arc<dyn Follower>> {
        let request = origin.and_then(|origin| origin.downcast::<Request>().ok());
        Some(Arc::new(Following::begin(&self.tracer, &self.listener, *followed, request)))
    }
}

/// The trace of a transaction that nobody gave another one, and the span that is the transaction itself. Eight transactions in a row differ in their last three bits only:
/// who samples by the numbers of traces takes or leaves such eights.
pub(super) fn own(id: protocol::TransactionId) -> (TraceId, SpanId) {
    let bytes = id.as_bytes();
    let mut span = [0; 8];
    // The half of a UUID that is random, save for two bits which are never both zero.
    span.copy_from_slice(&bytes[8..]);
    (TraceId(*bytes), SpanId(span))
}

struct Following {
    tracer: Arc<Tracer>,
    listener: Listener,
    transaction: Arc<Transaction>,
    recovered: bool,
    request: Option<Arc<Request>>,
    trace: TraceId,
    span: SpanId,
    began: u64,
    /// What the ids of its commands' spans follow from.
    seed: u64,
    /// Whether its times are exact.
    exact: bool,
    /// Nobody wants to know more.
    over: AtomicBool,
    state: Mutex<State>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wanted {
    /// Nobody knows yet.
    Perhaps,
    Yes,
    No,
}

struct State {
    wanted: Wanted,
    notes: Vec<(u64, Note)>,
    /// Why steps refused.
    refusals: Vec<(u8, Name)>,
    lost: u64,
    outcome: Option<&'static str>,
}

/// What a participant said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Word {
    Done,
    Refused,
    Violation,
    Unknown,
}

impl Word {
    fn of(reply: &Reply) -> Self {
        match reply {
            Reply::Done(_) => Self::Done,
            Reply::Refused(_) => Self::Refused,
            Reply::Violation(_) => Self::Violation,
            Reply::Unknown(_) => Self::Unknown,
        }
    }

    fn text(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Refused => "refused",
            Self::Violation => "violation",
            Self::Unknown => "unknown",
        }
    }
}

/// What is noted of a [`Mark`]: small, since some fifteen are noted of every transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Note {
    Staging,
    Staged(Option<bool>),
    Sent(u8, Verb, u16),
    Replied(u8, Verb, u16, Word),
    Deciding,
    Decided { commit: bool },
    Durable,
}

impl Following {
    fn begin(tracer: &Arc<Tracer>, listener: &Listener, followed: Followed<'_>, request: Option<Arc<Request>>) -> Self {
        let (of_its_own, span) = own(followed.transaction.id);
        // What recovery takes up began elsewhere under that id.
        let span = if followed.recovered { tracer.new_span() } else { span };
        let trace = request.as_ref().map_or(of_its_own, |request| request.trace(|| of_its_own));
        if !followed.recovered {
            tracer.remembered.begun(followed.transaction.id);
        }
        let seed = tracer.random();
        let sampled =
            followed.recovered || request.as_ref().map_or_else(|| tracer.samples(seed), |request| request.sampled);
        let wanted = if sampled { Wanted::Yes } else { Wanted::Perhaps };
        let state = State { wanted, notes: Vec::with_capacity(16), refusals: Vec::new(), lost: 0, outcome: None };
        Self {
            transaction: Arc::clone(followed.transaction),
            recovered: followed.recovered,
            request,
            trace,
            span,
            began: tracer.time(sampled),
            // Not the number that decided: those that are sampled would all be small.
            seed: mix(!seed),
            exact: sampled,
            over: AtomicBool::new(false),
            state: Mutex::new(state),
            tracer: Arc::clone(tracer),
            listener: Arc::clone(listener),
        }
    }

    fn service(&self, step: u8) -> Name {
        let step = self.transaction.steps.get(usize::from(step));
        step.map_or(self.transaction.definition, |step| step.service)
    }

    fn of_command(&self, (step, verb, attempt): (u8, Verb, u16)) -> SpanId {
        derived(self.seed, [u64::from(step), verb as u64, u64::from(attempt)])
    }

    fn context(&self, span: SpanId) -> TraceContext {
        let state = self.request.as_ref().and_then(|request| request.state());
        TraceContext { trace: self.trace, span, sampled: self.state.lock().wanted == Wanted::Yes, state }
    }

    fn note(&self, note: Note) {
        if self.over.load(Ordering::Relaxed) {
            return;
        }
        let mut state = self.state.lock();
        if state.wanted == Wanted::No {
            return;
        }
        if state.notes.len() < MAX_NOTES {
            let now = self.tracer.time(self.exact);
            state.notes.push((now, note));
        } else {
            state.lost += 1;
        }
    }

    fn answered(&self, outcome: &Outcome, micros: u64) {
        let ended = self.tracer.time(self.exact);
        let began = self.request.as_ref().map_or(self.began, |request| request.began);
        let failed = matches!(outcome, Outcome::RolledBack { .. } | Outcome::InDoubt);
        let mut state = self.state.lock();
        state.outcome = Some(outcome_word(outcome));
        if state.wanted != Wanted::Yes {
            if !failed && !self.tracer.is_slow(began, ended) {
                state.wanted = Wanted::No;
                state.notes = Vec::new();
                self.over.store(true, Ordering::Relaxed);
                return;
            }
            state.wanted = Wanted::Yes;
        }
        if let Some(request) = &self.request {
            request.keep();
        }
        if self.export_itself(&state, failed, ended) {
            let Transaction { definition, protocol, .. } = *self.transaction;
            (self.listener)(&Kept { trace: self.trace, definition, protocol, outcome: outcome_word(outcome), micros });
        }
        self.export_parts(&mut state, false);
    }

    /// It is worth being looked at, whatever was thought of it before.
    fn keep(&self, why: &'static str) {
        let mut state = self.state.lock();
        if state.wanted == Wanted::No {
            // The notes of its beginning are gone; its span says what it was.
            state.outcome = state.outcome.or(Some(why));
            self.export_itself(&state, true, self.tracer.time(self.exact));
        }
        state.wanted = Wanted::Yes;
        self.over.store(false, Ordering::Relaxed);
    }

    /// Whether it is on its way.
    fn export_itself(&self, state: &State, failed: bool, ended: u64) -> bool {
        let (Transaction { id, definition, protocol, steps, .. }, recovered) = (&*self.transaction, self.recovered);
        let name = if recovered { format!("recover {definition}") } else { definition.to_string() };
        let mut span = Span::new(name, Kind::Internal, (self.trace, self.span), (self.began, ended));
        span.parent = self.request.as_ref().map(|request| request.span());
        span.state = self.request.as_ref().and_then(|request| request.state());
        span.text("settle.transaction.id", id.to_string());
        span.word("settle.transaction.protocol", if *protocol == Protocol::TwoPhase { "2pc" } else { "saga" });
        span.word("settle.transaction.outcome", state.outcome.unwrap_or("unanswered"));
        span.number("settle.transaction.steps", i64::try_from(steps.len()).unwrap_or(i64::MAX));
        if let Some(order) = self.request.as_ref().and_then(|request| request.order) {
            span.text("settle.order.id", order.to_string());
        }
        if state.lost > 0 {
            span.number("settle.notes_lost", i64::try_from(state.lost).unwrap_or(i64::MAX));
        }
        if recovered {
            let (trace, began_as) = own(*id);
            span.link = Some(TraceContext { trace, span: began_as, sampled: false, state: None });
        }
        if failed {
            span.word("error.type", state.outcome.unwrap_or("unanswered"));
            span.failed = Some(String::new());
        }
        let sent = self.tracer.export(span);
        if sent {
            self.tracer.remembered.sent(*id, self.trace);
        }
        sent
    }

    /// Exports what has begun and ended; at last also what will not end here any more.
    fn export_parts(&self, state: &mut State, at_last: bool) {
        let notes = std::mem::take(&mut state.notes);
        let now = self.tracer.time(self.exact);
        let mut used = vec![false; notes.len()];
        for (at, (began, note)) in notes.iter().enumerate() {
            let end =
                |is: &dyn Fn(&Note) -> bool| (at..notes.len()).find(|other| !used[*other] && is(&notes[*other].1));
            let part = match *note {
                Note::Staging => Part { name: "stage".into(), end: end(&|n| matches!(n, Note::Staged(_))), of: None },
                Note::Deciding => Part {
                    name: "decide".into(),
                    // Readable is what the answer waits for; durable what the commands behind it do.
                    end: end(&|n| *n == Note::Durable).or_else(|| end(&|n| matches!(n, Note::Decided { .. }))),
                    of: None,
                },
                Note::Sent(step, verb, attempt) => Part {
                    name: format!("{}/{}", self.service(step), verb.as_str()),
                    end: end(&|n| matches!(n, Note::Replied(s, v, a, ..) if (*s, *v, *a) == (step, verb, attempt))),
                    of: Some((step, verb, attempt)),
                },
                Note::Staged(_) | Note::Replied(..) | Note::Decided { .. } | Note::Durable => continue,
            };
            // The decision's span is the whole of it: it waits for the disk even if the answer does not.
            let waits = part.end.is_none_or(|end| *note == Note::Deciding && notes[end].1 != Note::Durable);
            if waits && !at_last {
                continue;
            }
            used[at] = true;
            let ended = part.end.map_or(now, |end| notes[end].0);
            let said = part.end.map(|end| notes[end].1);
            if let Some(end) = part.end {
                used[end] = true;
            }
            self.export_part(&part, said, (*began, ended), &state.refusals);
        }
        if !at_last {
            state.notes = notes.into_iter().zip(used).filter(|(_, used)| !used).map(|(note, _)| note).collect();
        }
    }

    fn export_part(&self, part: &Part, said: Option<Note>, times: (u64, u64), refusals: &[(u8, Name)]) {
        let id = part.of.map_or_else(|| self.tracer.new_span(), |command| self.of_command(command));
        let remote = part.of.is_some() && self.tracer.remote;
        let kind = if remote { Kind::Client } else { Kind::Internal };
        let mut span = Span::new(part.name.clone(), kind, (self.trace, id), times);
        span.parent = Some(self.span);
        if let Some((step, _, attempt)) = part.of {
            span.word("rpc.system.name", "settle");
            span.text("rpc.method", part.name.clone());
            if remote {
                span.word("messaging.system", "nats");
                span.text("server.address", self.service(step).to_string());
            }
            span.number("settle.step", i64::from(step));
            span.number("settle.attempt", i64::from(attempt));
        }
        let (word, failed) = match said {
            Some(Note::Replied(step, _, _, word)) => {
                let why = refusals.iter().find(|(of, _)| word == Word::Refused && *of == step);
                if let Some((_, code)) = why {
                    span.text("settle.refusal", code.to_string());
                }
                (word.text(), matches!(word, Word::Unknown | Word::Violation))
            }
            Some(Note::Staged(answer)) => match answer {
                Some(true) => ("staged", false),
                Some(false) => ("refused", false),
                None => ("unknown", true),
            },
            Some(Note::Decided { commit }) => (if commit { "commit" } else { "abort" }, false),
            Some(Note::Durable) => ("durable", false),
            _ => ("unanswered", true),
        };
        span.word("settle.result", word);
        if failed {
            span.word("error.type", word);
            span.failed = Some(String::new());
        }
        self.tracer.export(span);
    }

    fn let_go(&self) {
        let mut state = self.state.lock();
        if state.wanted == Wanted::Yes {
            if state.outcome.is_none() {
                state.outcome = Some("unanswered");
                self.export_itself(&state, false, self.tracer.time(self.exact));
            }
            self.export_parts(&mut state, true);
        }
        // Whatever comes is late.
        state.wanted = Wanted::No;
        state.notes = Vec::new();
    }
}

/// Attempts are counted on for as long as there are any; nobody looks at the sixty-thousandth.
fn short(attempt: u32) -> u16 {
    u16::try_from(attempt).unwrap_or(u16::MAX)
}

struct Part {
    name: String,
    end: Option<usize>,
    of: Option<(u8, Verb, u16)>,
}

impl Follower for Following {
    fn mark(&self, mark: &Mark<'_>) {
        match *mark {
            Mark::Staging => self.note(Note::Staging),
            Mark::Staged(answer) => self.note(Note::Staged(answer)),
            Mark::Sent { step, verb, attempt, .. } => self.note(Note::Sent(step, verb, short(attempt))),
            Mark::Replied { step, verb, attempt, reply, .. } => {
                if matches!(reply, Reply::Violation(_)) {
                    self.keep("violation");
                }
                if let Reply::Refused(refusal) = reply {
                    let mut state = self.state.lock();
                    if state.refusals.len() < MAX_STEPS {
                        state.refusals.push((step, refusal.code));
                    }
                }
                self.note(Note::Replied(step, verb, short(attempt), Word::of(reply)));
            }
            Mark::Deciding => self.note(Note::Deciding),
            Mark::Decided(decision) => {
                self.note(Note::Decided { commit: matches!(decision, Decision::Commit) });
            }
            Mark::Durable => self.note(Note::Durable),
            Mark::Answered { outcome, micros } => self.answered(outcome, micros),
            Mark::Stuck { .. } => {
                self.keep("stuck");
                self.export_parts(&mut self.state.lock(), false);
            }
            Mark::LetGo => self.let_go(),
            _ => {}
        }
    }

    fn within(&self, command: Option<(u8, Verb, u32)>, work: &mut dyn FnMut()) {
        // A call in this process carries no context, and is far more frequent than what is logged in it.
        if command.is_some() && !self.tracer.remote {
            return work();
        }
        let span = command.map_or(self.span, |(step, verb, attempt)| self.of_command((step, verb, short(attempt))));
        // Of what recovery took up there is no request that knows the order; whoever has it told knows.
        let order = command.map_or_else(|| Scope::current()?.order(), |_| None);
        let scope = Scope { trace: Some(self.context(span)), request: self.request.clone(), order };
        scope.within(work);
    }
}

impl Drop for Following {
    fn drop(&mut self) {
        // Of one that is not let go of, as when the process stops, what is known is told.
        self.let_go();
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use ledger::EntityId;
    use protocol::{Payload, Timestamp, TransactionId};

    use super::*;
    use crate::logs::Origin;
    use crate::traces::{Endpoint, Settings};

    /// Nobody listens there: nothing is exported.
    fn tracing_to_nobody() -> Arc<Tracer> {
        let endpoint = Endpoint::new(crate::traces::Protocol::Grpc, "http://127.0.0.1:9").unwrap();
        let origin = Origin { service: "settle-order".to_owned(), instance: "order-1".to_owned() };
        let (headers, slow) = (vec![], Duration::from_secs(1));
        Tracer::start(Settings { endpoint, headers, ratio: 0.0, slow, origin, remote: false }).unwrap()
    }

    #[test]
    fn what_recovery_took_up_is_told_with_its_trace_and_with_the_order_that_the_observer_knows() {
        let transaction = Arc::new(Transaction {
            id: TransactionId::new(Timestamp(1), [7; 16]),
            definition: Name::literal("checkout"),
            protocol: Protocol::TwoPhase,
            order: protocol::transaction::Order::Parallel,
            recovery: protocol::transaction::Recovery::Backward,
            steps: [].into(),
            context: Payload::from(vec![]),
        });
        let followed = Followed { transaction: &transaction, recovered: true };
        let following = Following::begin(&tracing_to_nobody(), &(Arc::new(|_: &Kept| {}) as Listener), followed, None);
        let told = Scope { order: Some(EntityId::number(17)), ..Scope::default() };
        let mut seen = None;
        told.within(|| following.within(None, &mut || seen = Scope::current()));
        let seen = seen.unwrap();
        assert_eq!(seen.order(), Some(EntityId::number(17)));
        assert_eq!(seen.context().unwrap().trace.0, *transaction.id.as_bytes());
    }
}
