//! The participant's side: commands in, replies out.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use async_nats::{Message, Subject};
use bytes::Bytes;
use futures_util::StreamExt as _;
use orchestrator::{Done, Participant};
use protocol::{Command, Name, Reply, Unknown};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::dead::{self, Poison, identity};
use crate::desk::{Address, Desk, Slip};
use crate::error::StartError;
use crate::link::{Nats, Shared};
use crate::names::GROUP;
use crate::options::Mode;
use crate::statistics::{count, uncount};
use crate::streams::{self, When};
use crate::trace::TraceContext;
use crate::{pull, wire};

/// Something that is served, until this is dropped or [stopped](Serving::stop).
pub struct Serving {
    nats: Nats,
    desk: Arc<Desk>,
    stop: watch::Sender<bool>,
    tasks: Vec<JoinHandle<()>>,
}

impl std::fmt::Debug for Serving {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Serving").field("in_hand", &self.desk.taken()).finish_non_exhaustive()
    }
}

/// Says when to stop.
pub(crate) struct Stop(watch::Receiver<bool>);

impl Stop {
    pub(crate) async fn stopped(&mut self) {
        // A sender that is gone means the same.
        _ = self.0.wait_for(|stop| *stop).await;
    }
}

impl Serving {
    pub(crate) fn new(nats: Nats, desk: Arc<Desk>) -> Self {
        let (stop, _) = watch::channel(false);
        let sending = Arc::clone(&desk);
        let tasks = vec![nats.shared.runtime.spawn(async move { sending.send_all().await })];
        Self { nats, desk, stop, tasks }
    }

    pub(crate) fn stopped(&self) -> Stop {
        Stop(self.stop.subscribe())
    }

    pub(crate) fn run(&mut self, work: impl Future<Output = ()> + Send + 'static) {
        self.tasks.push(self.nats.shared.runtime.spawn(work));
    }

    /// Takes nothing more in, and waits until what is in hand is answered, as long as [`Options::patience`](crate::Options::patience)
    /// says. Whether all of it was.
    pub async fn stop(self) -> bool {
        _ = self.stop.send(true);
        let all_done = async {
            while self.desk.taken() > 0 {
                // A slip may have come back in between: look again soon in any case.
                _ = tokio::time::timeout(Duration::from_millis(20), self.desk.freed()).await;
            }
        };
        let done = tokio::time::timeout(self.nats.shared.options.patience, all_done).await.is_ok();
        self.nats.flush().await;
        done
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
    }
}

impl Nats {
    /// Serves a participant: hands it the commands for `service`, shared with the service's other instances, and sends its replies. Once it
    /// returns, commands arrive.
    ///
    /// A participant that panics, or drops its callback, is answered for: its store failed.
    ///
    /// # Errors
    /// If the service's queue cannot be made, or is another than is needed.
    pub async fn serve(&self, service: Name, participant: Arc<dyn Participant>) -> Result<Serving, StartError> {
        let shared = Arc::clone(&self.shared);
        let failed = wire::encode(&Reply::Unknown(Unknown::Failed)).map_err(|error| shared.refused("encode", error))?;
        let desk = Desk::new(&shared, failed);
        let mut serving = Serving::new(self.clone(), Arc::clone(&desk));
        let stop = serving.stopped();
        let counter = Counter { shared, service, participant, desk };
        match counter.shared.options.mode {
            Mode::Core => {
                let subject = counter.shared.names.command(service);
                let commands = counter.shared.client.queue_subscribe(subject, GROUP.to_owned()).await;
                let commands = commands.map_err(|error| counter.shared.refused("subscribe", error))?;
                counter.shared.round_trip().await?;
                serving.run(serve_core(counter, commands, stop));
            }
            Mode::JetStream { .. } => {
                streams::at_start(&counter.shared, || streams::everything(&counter.shared, service, When::Start))
                    .await?;
                let (reporting, every) = (Arc::clone(&counter.desk), counter.shared.options.ack_wait / 3);
                serving.run(async move { reporting.report_all(every).await });
                let commands = pull::Pull::start(&counter).await?;
                counter.shared.round_trip().await?;
                serving.run(commands.run(counter, stop));
            }
        }
        Ok(serving)
    }
}

async fn serve_core(counter: Counter, mut commands: async_nats::Subscriber, mut stop: Stop) {
    loop {
        let message = tokio::select! {
            biased;
            () = stop.stopped() => break,
            message = commands.next() => message,
        };
        let Some(message) = message else { return };
        counter.take_in(message, None).await;
    }
    _ = commands.unsubscribe().await;
}

/// Where commands for one participant come in.
pub(crate) struct Counter {
    pub(crate) shared: Arc<Shared>,
    pub(crate) service: Name,
    pub(crate) participant: Arc<dyn Participant>,
    pub(crate) desk: Arc<Desk>,
}

impl Counter {
    /// Hands the commands of a message to the participant, and to the dead letters what cannot be read of it. A stream's message comes with
    /// where to acknowledge it.
    pub(crate) async fn take_in(&self, message: Message, acknowledge: Option<Subject>) {
        let letter = |pieces| acknowledge.as_ref().map(|subject| self.desk.letter(subject.clone(), pieces));
        let wire::Opened { addressee, inbox, parcels } = match wire::open(&message.payload) {
            Ok(opened) => opened,
            Err(why) => {
                // Whose commands they are nobody knows: only the sender of a message without a stream can be told.
                let to =
                    message.reply.clone().filter(|_| acknowledge.is_none()).map_or(Address::Nobody, Address::Subject);
                let slip = self.desk.open(to, letter(1)).await;
                return self
                    .bury(Poison { bytes: message.payload, why, identity: identity(acknowledge.as_ref(), 0) }, slip);
            }
        };
        let (inbox, letter) = (Subject::from(inbox), letter(parcels.len()));
        let is_ours = addressee == self.shared.identity();
        let misdirected = &self.shared.statistics.misdirected;
        if !is_ours && misdirected.fetch_add(parcels.len() as u64, Ordering::Relaxed) == 0 {
            tracing::error!(
                service = %self.service, addressee, own = self.shared.identity(),
                "commands for another database come to this instance, and are not carried out: they were still on their way to one whose place this has \
                 taken; or, if they keep coming, two systems share this broker and its prefix, or this database was given up for another one. They are sent \
                 again, and lose time over that"
            );
        }
        for (place, parcel) in parcels.into_iter().enumerate() {
            let slip = self.desk.open(Address::Inbox(inbox.clone(), parcel.number), letter.clone()).await;
            if !is_ours {
                // The coordinator sends it again, to an instance of its own perhaps.
                slip.turn_away();
                continue;
            }
            match wire::decode_command(parcel.bytes) {
                Ok(command) => {
                    let trace = parcel.trace.and_then(|(parent, state)| TraceContext::new(parent, state));
                    self.hand_over(command, trace, slip);
                }
                Err(why) => {
                    let identity = identity(acknowledge.as_ref(), place + 1);
                    self.bury(Poison { bytes: Bytes::copy_from_slice(parcel.bytes), why, identity }, slip);
                }
            }
        }
    }

    fn bury(&self, poison: Poison, slip: Slip) {
        count(&self.shared.statistics.poison);
        dead::bury(Arc::clone(&self.shared), self.service, poison, slip);
    }

    fn hand_over(&self, command: Command, trace: Option<TraceContext>, slip: Slip) {
        let statistics = &self.shared.statistics;
        count(&statistics.handled);
        count(&statistics.working);
        let working = Working(Arc::clone(&self.shared));
        let done: Done<Reply> = Box::new(move |reply| {
            // A reply is never too long: a refusal's text is bounded.
            if let Ok(payload) = wire::encode(&reply) {
                slip.finish(payload);
            }
            drop(working);
        });
        let context = trace.filter(|_| self.shared.options.tracing.is_some());
        with_trace(&self.shared, context.as_ref(), || self.participant.handle(command, done));
    }
}

struct Working(Arc<Shared>);

impl Drop for Working {
    fn drop(&mut self) {
        uncount(&self.0.statistics.working);
    }
}

/// Does the application's work, with its trace. A panic is its own: the slip that it held is answered as it is dropped.
pub(crate) fn with_trace(shared: &Shared, context: Option<&TraceContext>, work: impl FnOnce()) {
    let mut work = Some(work);
    let mut once = move || {
        if let Some(work) = work.take() {
            work();
        }
    };
    let done = catch_unwind(AssertUnwindSafe(|| match (&shared.options.tracing, context) {
        (Some(tracing), Some(context)) => tracing.incoming(context, &mut once),
        _ => once(),
    }));
    if done.is_err() {
        tracing::error!("the application panicked over a message: it is answered as failed");
    }
}
