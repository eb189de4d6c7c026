//! The way out: questions at once, commands together with others for the same service.
//!
//! ```text
//!   send ──► queue (bounded) ──► one lane a service ──► a message of up to 64 commands
//! ```
//!
//! A lane sends at once what comes while nothing of it is under way: whoever is alone never waits. Otherwise it sends when an answer has come
//! since it sent last, when 64 wait, or 4 ms after it sent last, whichever is first. So a busy lane has few messages under way,
//! each with many commands, and a participant that does not answer holds nobody up for longer than that. A commit is no reason to send: nobody
//! waits for it. It goes along with what is, or after 10 ms.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use async_nats::{HeaderMap, Subject};
use bytes::Bytes;
use protocol::limits::{GATHER_COMMANDS_MS, GATHER_COMMITS_MS, MAX_COMMANDS_TOGETHER};
use tokio::sync::mpsc;

use crate::link::Shared;
use crate::pending::Lost;
use crate::statistics::count;
use crate::trace::TraceContext;
use crate::wire::{Filling, Parcel};

/// Messages taken out of the queue in one go.
const TAKEN: usize = 256;
/// How long a lane waits for company at most.
const GATHER: Duration = Duration::from_millis(GATHER_COMMANDS_MS);
/// How long a command that nobody waits for waits for one that somebody does.
const PATIENCE: Duration = Duration::from_millis(GATHER_COMMITS_MS);

/// The commands for one service.
#[derive(Debug)]
pub(crate) struct Lane {
    subject: Subject,
    /// Which participant they are for.
    addressee: OnceLock<Box<str>>,
    /// Commands that wait, or are under way.
    alive: AtomicUsize,
    /// Whether one of them was answered, or given up, since the last message.
    relieved: AtomicBool,
}

/// A command's place in its lane, until it is answered or given up.
#[derive(Debug)]
pub(crate) struct Place(Arc<Lane>);

impl Lane {
    pub(crate) fn new(subject: String) -> Arc<Self> {
        let (alive, relieved) = (AtomicUsize::new(0), AtomicBool::new(false));
        Arc::new(Self { subject: subject.into(), addressee: OnceLock::new(), alive, relieved })
    }

    /// Says for whom they are. Whether nobody else was named before.
    pub(crate) fn address(&self, identity: &str) -> bool {
        &**self.addressee.get_or_init(|| identity.into()) == identity
    }

    fn addressee(&self) -> &str {
        self.addressee.get().map_or("", |identity| identity)
    }

    pub(crate) fn place(self: &Arc<Self>) -> Place {
        self.alive.fetch_add(1, Ordering::AcqRel);
        Place(Arc::clone(self))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.alive.fetch_sub(1, Ordering::AcqRel);
        self.0.relieved.store(true, Ordering::Release);
    }
}

/// A message on its way out.
pub(crate) struct Outgoing {
    /// Whose answer it asks for.
    pub(crate) id: u64,
    /// When that is not wanted any more.
    pub(crate) until: Instant,
    pub(crate) payload: Bytes,
    pub(crate) trace: Option<TraceContext>,
    pub(crate) way: Way,
    /// Since when it waits, if nobody waits for it.
    pub(crate) patient: Option<Instant>,
}

pub(crate) enum Way {
    /// A question, to this subject.
    Question(Subject),
    /// A command, in a lane.
    Command(Arc<Lane>),
}

/// What waits in a lane.
struct Waiting {
    lane: Arc<Lane>,
    commands: Vec<Outgoing>,
    sent: Option<Instant>,
}

impl Waiting {
    /// Whether a message should go out now.
    fn is_due(&self, now: Instant) -> bool {
        let waiting = self.commands.len();
        waiting > 0
            && (waiting >= MAX_COMMANDS_TOGETHER || self.is_urgent(now))
            && (waiting >= MAX_COMMANDS_TOGETHER
                || self.lane.alive.load(Ordering::Acquire) <= waiting
                || self.lane.relieved.load(Ordering::Acquire)
                || self.sent.is_none_or(|sent| now.duration_since(sent) >= GATHER))
    }

    /// Whether somebody waits for one of the commands, or has long enough for the others. The first one waits longest.
    fn is_urgent(&self, now: Instant) -> bool {
        let oldest = self.commands.first().and_then(|command| command.patient);
        oldest.is_none_or(|since| now.duration_since(since) >= PATIENCE)
            || self.commands.iter().any(|command| command.patient.is_none())
    }

    /// When a message should go out, if nothing else happens until then.
    fn due(&self, now: Instant) -> Option<Instant> {
        let oldest = self.commands.first()?;
        match (oldest.patient, self.sent) {
            (Some(since), _) if !self.is_urgent(now) => Some(since + PATIENCE),
            (_, sent) => sent.map(|sent| sent + GATHER),
        }
    }

    /// A message is about to go out: what came of those before it is no reason for the next one.
    fn is_sending(&mut self, now: Instant) {
        self.lane.relieved.store(false, Ordering::Release);
        self.sent = Some(now);
    }
}

/// Sends what is queued, for ever.
pub(crate) async fn send_all(shared: &Shared, mut queue: mpsc::Receiver<Outgoing>) {
    let mut lanes: Vec<Waiting> = Vec::new();
    let mut taken = Vec::with_capacity(TAKEN);
    loop {
        let now = Instant::now();
        let due = lanes.iter().filter_map(|lane| lane.due(now)).min();
        tokio::select! {
            many = queue.recv_many(&mut taken, TAKEN) => if many == 0 { return },
            () = shared.relieved.notified(), if due.is_some() => {}
            () = tokio::time::sleep_until(due.unwrap_or_else(Instant::now).into()), if due.is_some() => {}
        }
        for message in taken.drain(..) {
            match &message.way {
                Way::Question(subject) => {
                    let subject = subject.clone();
                    question(shared, subject, message).await;
                }
                Way::Command(lane) => {
                    let found = lanes.iter().position(|waiting| Arc::ptr_eq(&waiting.lane, lane));
                    let at = found.unwrap_or_else(|| {
                        lanes.push(Waiting { lane: Arc::clone(lane), commands: Vec::new(), sent: None });
                        lanes.len() - 1
                    });
                    lanes[at].commands.push(message);
                }
            }
        }
        for lane in &mut lanes {
            let now = Instant::now();
            while lane.is_due(now) {
                lane.is_sending(now);
                commands(shared, lane, now).await;
            }
        }
    }
}

/// Whether it is still to be sent. Whoever waits for one that is too late is told by the time-out.
fn is_wanted(shared: &Shared, message: &Outgoing, now: Instant) -> bool {
    if message.until <= now {
        return false;
    }
    let connected = shared.is_connected();
    if !connected {
        shared.pending.give_up(message.id, Lost::Unreachable);
    }
    connected
}

async fn question(shared: &Shared, subject: Subject, message: Outgoing) {
    if !is_wanted(shared, &message, Instant::now()) {
        return;
    }
    let answer = format!("{}r{}", shared.inbox, message.id);
    let sent = match message.trace {
        None => shared.client.publish_with_reply(subject, answer, message.payload).await,
        Some(context) => {
            let mut headers = HeaderMap::new();
            context.write(&mut headers);
            shared.client.publish_with_reply_and_headers(subject, answer, headers, message.payload).await
        }
    };
    if let Err(error) = sent {
        tracing::warn!(%error, "a question could not be given to the NATS client");
        shared.pending.give_up(message.id, Lost::Unreachable);
    }
}

/// Sends a message of commands that wait, as many as go together.
async fn commands(shared: &Shared, lane: &mut Waiting, now: Instant) {
    let mut message = Filling::of_commands(lane.lane.addressee(), &shared.inbox_of_replies());
    let (mut ids, mut until, mut gone) = (Vec::new(), now, 0);
    for command in &lane.commands {
        if message.many >= MAX_COMMANDS_TOGETHER || !message.fits(command.payload.len()) {
            break;
        }
        gone += 1;
        if !is_wanted(shared, command, now) {
            continue;
        }
        let trace = command.trace.as_ref().map(|trace| (trace.parent(), trace.state()));
        match message.add(&Parcel { number: command.id, trace, bytes: &command.payload }) {
            Ok(()) => {
                ids.push(command.id);
                until = until.max(command.until);
            }
            Err(error) => {
                tracing::error!(%error, "a command cannot be sent");
                shared.pending.give_up(command.id, Lost::Unreachable);
            }
        }
    }
    lane.commands.drain(..gone);
    if ids.is_empty() {
        return;
    }
    count(&shared.statistics.messages);
    shared.statistics.sent.fetch_add(ids.len() as u64, Ordering::Relaxed);
    // The server's word on it: that a stream took it, or that nobody is there.
    let number = shared.on_the_way.put(until, ids);
    let (subject, word) = (lane.lane.subject.clone(), format!("{}a{number}", shared.inbox));
    if let Err(error) = shared.client.publish_with_reply(subject, word, message.finish()).await {
        tracing::warn!(%error, "commands could not be given to the NATS client");
        shared.give_up_message(number);
    }
}
