//! Questions between services: bytes out, bytes back. They change nothing, so whoever gets no answer asks again.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::StreamExt as _;
use orchestrator::Done;
use protocol::Name;
use tokio::sync::oneshot;

use crate::desk::{Desk, Slip};
use crate::error::{StartError, Unanswered};
use crate::link::{Nats, Shared, heard};
use crate::names::GROUP;
use crate::outbox::{Outgoing, Way};
use crate::pending::{Lost, Waiting};
use crate::serve::Serving;
use crate::statistics::count;
use crate::trace::TraceContext;
use crate::wire;

/// Whom a question is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum To {
    /// Any one instance of a service.
    Service(Name),
    /// The instance of this name.
    Instance(Name),
}

/// Answers questions. Also any closure of the same shape.
pub trait Answerer: Send + Sync + 'static {
    /// Answers a question: at once or later, on any thread. `None`, or dropping `done`, says that there is no answer. An answer has at most
    /// [`protocol::limits::MAX_MESSAGE_BYTES`] less two. Must not block.
    fn answer(&self, question: Bytes, done: Done<Option<Vec<u8>>>);
}

impl<F: Fn(Bytes, Done<Option<Vec<u8>>>) + Send + Sync + 'static> Answerer for F {
    fn answer(&self, question: Bytes, done: Done<Option<Vec<u8>>>) {
        self(question, done);
    }
}

impl Nats {
    /// Asks, and waits for the answer at most `timeout`.
    ///
    /// # Errors
    /// If there is none.
    pub async fn ask(&self, to: To, question: &[u8], timeout: Duration) -> Result<Bytes, Unanswered> {
        let (send, answer) = oneshot::channel();
        self.ask_then(to, question, timeout, Box::new(move |answer| _ = send.send(answer)));
        heard(answer).await
    }

    /// Asks from any thread; `done` is called exactly once, with the answer or why there is none, on a task of the runtime or at once.
    pub fn ask_then(&self, to: To, question: &[u8], timeout: Duration, done: Done<Result<Bytes, Unanswered>>) {
        let shared = &self.shared;
        count(&shared.statistics.asked);
        let fail = |done: Done<Result<Bytes, Unanswered>>, why| {
            count(&shared.statistics.unanswered);
            done(Err(why));
        };
        let payload = match wire::encode_question(question) {
            Ok(payload) => payload,
            Err(why) => return fail(done, why),
        };
        let subject = match to {
            To::Service(service) => shared.names.question(service),
            To::Instance(instance) => shared.names.at(instance),
        };
        let trace = shared.options.tracing.as_ref().and_then(|tracing| tracing.outgoing());
        let until = Instant::now() + timeout;
        match shared.pending.put(until, Waiting::Question(done)) {
            Ok(id) if !shared.is_connected() => shared.pending.give_up(id, Lost::Unreachable),
            Ok(id) => {
                shared.send(Outgoing { id, until, payload, trace, way: Way::Question(subject.into()), patient: None })
            }
            Err(Waiting::Question(done)) => fail(done, Unanswered::TooMany),
            Err(waiting @ Waiting::Command(..)) => waiting.give_up(Lost::Unreachable, &shared.statistics),
        }
    }

    /// Tells every instance of a service something, this one included: it comes to their [`Answerer`]s, whose answers go nowhere. Returns when
    /// the server has it; an instance that is not connected does not hear of it.
    ///
    /// # Errors
    /// If the server does not have it in time.
    pub async fn tell(&self, service: Name, news: &[u8]) -> Result<(), Unanswered> {
        let shared = &self.shared;
        let payload = wire::encode_question(news)?;
        if !shared.is_connected() {
            return Err(Unanswered::Nobody);
        }
        let told = async {
            shared.client.publish(shared.names.all(service), payload).await.map_err(|_| Unanswered::Nobody)?;
            shared.round_trip().await.map_err(|_| Unanswered::Timeout)
        };
        tokio::time::timeout(shared.options.timeout, told).await.unwrap_or(Err(Unanswered::Timeout))
    }

    /// Answers the questions to a service, shared among its instances, and those to this instance, and takes in what all of them are told.
    /// Once it returns, questions arrive.
    ///
    /// # Errors
    /// If the server refuses it.
    pub async fn answer(&self, service: Name, answerer: Arc<dyn Answerer>) -> Result<Serving, StartError> {
        let shared = &self.shared;
        let refused = |error| shared.refused("subscribe", error);
        let of_service = shared.client.queue_subscribe(shared.names.question(service), GROUP.to_owned());
        let of_service = of_service.await.map_err(refused)?;
        let of_instance = shared.client.subscribe(shared.names.at(shared.options.instance)).await.map_err(refused)?;
        let of_all = shared.client.subscribe(shared.names.all(service)).await.map_err(refused)?;
        shared.round_trip().await?;
        let desk = Desk::new(shared, wire::encode_answer(None));
        let mut serving = Serving::new(self.clone(), Arc::clone(&desk));
        let mut stop = serving.stopped();
        let of_instance = futures_util::stream::select(of_instance, of_all);
        let mut questions = futures_util::stream::select(of_service, of_instance);
        let shared = Arc::clone(shared);
        serving.run(async move {
            loop {
                let message = tokio::select! {
                    biased;
                    () = stop.stopped() => return,
                    message = questions.next() => message,
                };
                let Some(message) = message else { return };
                take_in(&shared, &desk, &*answerer, message);
            }
        });
        Ok(serving)
    }
}

fn take_in(shared: &Shared, desk: &Arc<Desk>, answerer: &dyn Answerer, message: async_nats::Message) {
    count(&shared.statistics.questions);
    let Some(slip) = desk.open_if_free(message.reply) else { return count(&shared.statistics.turned_away) };
    let question = match wire::decode_question(&message.payload) {
        Ok(question) => question,
        Err(error) => {
            count(&shared.statistics.poison);
            tracing::error!(%error, "a question cannot be read");
            return slip.finish(wire::encode_answer(None));
        }
    };
    let context = shared.options.tracing.as_ref().and(TraceContext::read(message.headers.as_ref()));
    let done = |slip: Slip| -> Done<Option<Vec<u8>>> {
        Box::new(move |answer| slip.finish(wire::encode_answer(answer.as_deref())))
    };
    crate::serve::with_trace(shared, context.as_ref(), || answerer.answer(question, done(slip)));
}
