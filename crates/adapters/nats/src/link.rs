//! One process's connection: what goes out, the inbox in which answers arrive, and who waits for them.

use std::fmt;
use std::sync::atomic::Ordering;
use std::sync::{Arc, OnceLock};

use async_nats::connection::State;
use async_nats::jetstream::{self, Context};
use async_nats::{Client, ConnectErrorKind, ConnectOptions, Event, StatusCode};
use bytes::Bytes;
use futures_util::StreamExt as _;
use parking_lot::Mutex;
use protocol::limits::{MAX_MESSAGE_BYTES, MAX_PENDING};
use tokio::runtime::Handle;
use tokio::sync::{Notify, mpsc, watch};
use tokio::task::JoinHandle;

use crate::error::{StartError, Unanswered};
use crate::names::Names;
use crate::on_the_way::OnTheWay;
use crate::options::{Credentials, Mode, Options};
use crate::outbox::{self, Outgoing};
use crate::pending::{Lost, Pending, Waiting, call};
use crate::statistics::{Statistics, count};
use crate::wire;

/// Messages that the client library holds for the connection. What is in it at the end of a connection is sent on the next one.
const CLIENT_CAPACITY: usize = 1024;
/// How long one attempt to connect may take.
const CONNECTING: std::time::Duration = std::time::Duration::from_secs(2);
/// Room in headers, beside a message's bytes.
const HEADER_BYTES: usize = 4096;

pub(crate) struct Shared {
    pub(crate) options: Options,
    pub(crate) names: Names,
    pub(crate) client: Client,
    pub(crate) jetstream: Context,
    pub(crate) statistics: Arc<Statistics>,
    pub(crate) pending: Pending,
    pub(crate) runtime: Handle,
    /// Counts the connections.
    pub(crate) connections: watch::Receiver<u64>,
    /// A stream was found to be missing.
    pub(crate) missing: Notify,
    /// A stream whose files were found to be missing.
    pub(crate) broken: Mutex<Option<String>>,
    pub(crate) outgoing: mpsc::Sender<Outgoing>,
    /// Commands were answered: more may go out.
    pub(crate) relieved: Notify,
    pub(crate) on_the_way: OnTheWay,
    pub(crate) inbox: String,
    identity: OnceLock<Box<str>>,
}

impl Shared {
    /// By what this process's participants go.
    pub(crate) fn identity(&self) -> &str {
        self.identity.get().map_or("", |identity| identity)
    }

    pub(crate) fn is_connected(&self) -> bool {
        self.client.connection_state() == State::Connected
    }

    /// Puts a message on its way. Whoever waits under its id is told if there is no way.
    pub(crate) fn send(&self, message: Outgoing) {
        if !self.is_connected() {
            return self.pending.give_up(message.id, Lost::Unreachable);
        }
        if let Err(mpsc::error::TrySendError::Full(back) | mpsc::error::TrySendError::Closed(back)) =
            self.outgoing.try_send(message)
        {
            self.pending.give_up(back.id, Lost::Unreachable);
        }
    }

    /// Where the replies to commands arrive, many in a message.
    pub(crate) fn inbox_of_replies(&self) -> String {
        format!("{}b", self.inbox)
    }

    /// Tells whoever waits for the commands of a message that nothing came of it.
    pub(crate) fn give_up_message(&self, number: u64) {
        for id in self.on_the_way.take(number) {
            self.pending.give_up(id, Lost::Unreachable);
        }
    }

    /// Hands out what arrives in the inbox, for ever.
    async fn receive_all(&self, mut inbox: async_nats::Subscriber) {
        while let Some(message) = inbox.next().await {
            let Some(rest) = message.subject.strip_prefix(self.inbox.as_str()) else { continue };
            if rest == "b" {
                self.replied(&message.payload);
                continue;
            }
            let Some((kind, id)) = parse(rest) else { continue };
            match kind {
                'a' => self.acknowledged(id, &message),
                _ => self.answered(id, &message),
            }
        }
    }

    /// The server's word on a message of commands; or that of an instance which could not read it.
    fn acknowledged(&self, number: u64, message: &async_nats::Message) {
        if message.status == Some(StatusCode::NO_RESPONDERS) {
            self.missing.notify_one();
            return self.give_up_message(number);
        }
        let Some((error, stream)) = refusal(&message.payload) else {
            self.on_the_way.take(number);
            return;
        };
        // What a server says that was told to forget a stream in files, and to make it again, in one breath. It does not mend that itself.
        if error.contains("no such file") {
            *self.broken.lock() = stream;
            self.missing.notify_one();
        }
        tracing::debug!(error, "commands were not taken");
        for id in self.on_the_way.take(number) {
            count(&self.statistics.refused);
            self.pending.give_up(id, Lost::Unreachable);
        }
    }

    /// Replies to commands.
    fn replied(&self, message: &[u8]) {
        let replies = match wire::open_replies(message) {
            Ok(replies) => replies,
            Err(error) => {
                // Whoever waits has a time-out.
                count(&self.statistics.poison);
                return tracing::error!(%error, "answers of a participant cannot be read");
            }
        };
        for (id, reply) in replies {
            let Some(Waiting::Command(done, place)) = self.pending.take(id) else {
                count(&self.statistics.late);
                continue;
            };
            drop(place);
            count(&self.statistics.replied);
            let reply = wire::decode_reply(reply).unwrap_or_else(|error| {
                count(&self.statistics.poison);
                tracing::error!(%error, "an answer of a participant cannot be read");
                protocol::Reply::Unknown(protocol::Unknown::Failed)
            });
            call(|| done(reply));
        }
        self.relieved.notify_one();
    }

    /// An answer to a question.
    fn answered(&self, id: u64, message: &async_nats::Message) {
        let Some(waiting) = self.pending.take(id) else { return count(&self.statistics.late) };
        if message.status == Some(StatusCode::NO_RESPONDERS) {
            return waiting.give_up(Lost::Unreachable, &self.statistics);
        }
        match waiting {
            // Nobody answers a command so.
            waiting @ Waiting::Command(..) => waiting.give_up(Lost::Unreachable, &self.statistics),
            Waiting::Question(done) => {
                let answer = wire::decode_answer(&message.payload);
                if answer.is_err() {
                    count(&self.statistics.unanswered);
                }
                call(|| done(answer));
            }
        }
    }

    /// Waits until the server has seen everything that was sent before.
    pub(crate) async fn round_trip(&self) -> Result<(), StartError> {
        let nobody = self.names.nobody();
        match self.client.request(nobody, Bytes::new()).await {
            Err(error) if error.kind() != async_nats::RequestErrorKind::NoResponders => Err(StartError::Server {
                servers: self.options.shown_servers(),
                request: "answer".to_owned(),
                why: error.to_string(),
            }),
            _ => Ok(()),
        }
    }

    pub(crate) fn refused(&self, request: &str, why: impl fmt::Display) -> StartError {
        StartError::Server { servers: self.options.shown_servers(), request: request.to_owned(), why: why.to_string() }
    }
}

/// `r17` as its kind and number.
fn parse(rest: &str) -> Option<(char, u64)> {
    let kind = rest.chars().next()?;
    Some((kind, rest.get(1..)?.parse().ok()?))
}

/// What the server says against a message for a stream, if it did not take it, and the stream.
fn refusal(word: &[u8]) -> Option<(String, Option<String>)> {
    #[derive(serde::Deserialize)]
    struct Word {
        error: Option<Why>,
        stream: Option<String>,
    }
    #[derive(serde::Deserialize)]
    struct Why {
        #[serde(default)]
        description: String,
    }
    // Its usual word, for which no parser need be asked.
    if word.starts_with(b"{\"stream\":") {
        return None;
    }
    match serde_json::from_slice::<Word>(word) {
        Ok(word) => word.error.map(|why| (why.description, word.stream)),
        Err(error) => Some((error.to_string(), None)),
    }
}

/// A process's connection to NATS. Cheap to clone; the last clone that goes away (transports and [`Serving`](crate::Serving)s hold one) closes it,
/// and tells everybody who waits that there is no answer.
#[derive(Clone)]
pub struct Nats {
    pub(crate) shared: Arc<Shared>,
    _guard: Arc<Guard>,
}

impl fmt::Debug for Nats {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Nats").field("options", &self.shared.options).finish_non_exhaustive()
    }
}

/// Ends the tasks with the last handle.
struct Guard {
    shared: Arc<Shared>,
    tasks: Mutex<Vec<JoinHandle<()>>>,
}

impl Drop for Guard {
    fn drop(&mut self) {
        for task in self.tasks.lock().drain(..) {
            task.abort();
        }
        self.shared.pending.close();
    }
}

/// Whether a message has room for it.
pub(crate) fn check_identity(identity: &str) -> Result<(), StartError> {
    let (found, most) = (identity.len(), wire::MAX_IDENTITY_BYTES);
    if found <= most {
        return Ok(());
    }
    Err(StartError::Option { option: "identity", why: format!("it has {found} bytes: {most} at most") })
}

impl Nats {
    /// Connects, and looks whether everything that the options ask for is there.
    ///
    /// Call it on the runtime that is to do the work. It waits for a server that is not there yet, and for JetStream, as long as
    /// [`Options::patience`] says; what waiting can't mend fails at once.
    ///
    /// # Errors
    /// What is missing.
    pub async fn connect(options: Options) -> Result<Self, StartError> {
        options.check()?;
        let statistics = Arc::new(Statistics::default());
        let (connected, connections) = watch::channel(0);
        let client = dial(&options, &statistics, connected).await?;
        let found = client.server_info().max_payload;
        let wanted = MAX_MESSAGE_BYTES + HEADER_BYTES;
        if found < wanted {
            return Err(StartError::SmallMessages { servers: options.shown_servers(), found, wanted });
        }
        let jetstream = jetstream::ContextBuilder::new().timeout(CONNECTING).build(client.clone());
        let names = Names::new(options.prefix);
        let inbox = names.inbox();
        let (outgoing, queue) = mpsc::channel(options.send_queue);
        let shared = Arc::new(Shared {
            pending: Pending::new(options.pending, Arc::clone(&statistics)),
            names,
            client,
            jetstream,
            statistics,
            runtime: Handle::current(),
            connections,
            missing: Notify::new(),
            broken: Mutex::default(),
            outgoing,
            relieved: Notify::new(),
            on_the_way: OnTheWay::default(),
            inbox,
            identity: OnceLock::new(),
            options,
        });
        if matches!(shared.options.mode, Mode::JetStream { .. }) {
            crate::streams::check_jetstream(&shared).await?;
        }
        let subject = format!("{}*", shared.inbox);
        let answers = shared.client.subscribe(subject).await.map_err(|error| shared.refused("subscribe", error))?;
        shared.round_trip().await?;
        let tasks = [
            tokio::spawn({
                let shared = Arc::clone(&shared);
                async move { shared.receive_all(answers).await }
            }),
            tokio::spawn({
                let shared = Arc::clone(&shared);
                async move { outbox::send_all(&shared, queue).await }
            }),
            tokio::spawn({
                let shared = Arc::clone(&shared);
                async move { shared.pending.watch().await }
            }),
        ];
        let guard = Guard { shared: Arc::clone(&shared), tasks: Mutex::new(tasks.into()) };
        Ok(Self { shared, _guard: Arc::new(guard) })
    }

    /// Says by what the participants of this process go, before they are served: the identity of their database. Commands that are
    /// [for](crate::NatsTransport::address) another are not carried out, but answered as failed: several systems may have come to one broker without
    /// meaning to, and a database that was given up may come back.
    ///
    /// # Errors
    /// If that is longer than 64 bytes, or another was told before.
    pub fn go_by(&self, identity: &str) -> Result<(), StartError> {
        check_identity(identity)?;
        let told = self.shared.identity.get_or_init(|| identity.into());
        if **told == *identity {
            return Ok(());
        }
        Err(StartError::Option { option: "identity", why: format!("it goes by {told} already, and not by {identity}") })
    }

    /// What is counted.
    pub fn statistics(&self) -> &Arc<Statistics> {
        &self.shared.statistics
    }

    /// Whether there is a connection now.
    pub fn is_connected(&self) -> bool {
        self.shared.is_connected()
    }

    /// Waits until everything that was sent is on its way to the server; for a stop. Answers still arrive until the last clone goes away.
    pub async fn flush(&self) {
        // Without a connection there is nothing to wait for.
        if self.is_connected() {
            _ = tokio::time::timeout(self.shared.options.patience, self.shared.client.flush()).await;
        }
    }

    /// Keeps a task for as long as there is a handle.
    pub(crate) fn keep(&self, task: JoinHandle<()>) {
        self._guard.tasks.lock().push(task);
    }
}

/// Connects within the patience.
async fn dial(
    options: &Options,
    statistics: &Arc<Statistics>,
    connected: watch::Sender<u64>,
) -> Result<Client, StartError> {
    let until = tokio::time::Instant::now() + options.patience;
    let connect = connect_options(options, statistics, connected).await?;
    let mut why = "it did not answer".to_owned();
    loop {
        let attempt = tokio::time::timeout_at(until, connect.clone().connect(options.servers.as_slice())).await;
        match attempt {
            Ok(Ok(client)) => return Ok(client),
            Ok(Err(error)) => {
                let servers = options.shown_servers();
                why = error.to_string();
                match error.kind() {
                    ConnectErrorKind::AuthorizationViolation | ConnectErrorKind::Authentication => {
                        return Err(StartError::Refused { servers, why });
                    }
                    ConnectErrorKind::ServerParse => return Err(StartError::Option { option: "servers", why }),
                    ConnectErrorKind::Tls => return Err(StartError::Unusable { what: "TLS".to_owned(), why }),
                    _ => {}
                }
            }
            Err(_) => {}
        }
        if tokio::time::Instant::now() >= until {
            return Err(StartError::Unreachable { servers: options.shown_servers(), patience: options.patience, why });
        }
        tokio::time::sleep_until(until.min(tokio::time::Instant::now() + options.patience / 50)).await;
    }
}

async fn connect_options(
    options: &Options,
    statistics: &Arc<Statistics>,
    connected: watch::Sender<u64>,
) -> Result<ConnectOptions, StartError> {
    let connected = Arc::new(connected);
    let statistics = Arc::clone(statistics);
    let heard = move |event: Event| {
        match &event {
            Event::Connected => {
                statistics.connected.store(true, Ordering::Relaxed);
                connected.send_modify(|connections| {
                    if *connections > 0 {
                        count(&statistics.reconnects);
                        tracing::info!("connected to NATS again");
                    }
                    *connections += 1;
                });
            }
            Event::Disconnected | Event::Closed => {
                statistics.connected.store(false, Ordering::Relaxed);
                tracing::warn!(
                    "the connection to NATS is lost: what was under way is sent again once it is back, and until then \
                     nothing begins that needs another service"
                );
            }
            Event::SlowConsumer(_) => {
                count(&statistics.dropped);
                tracing::warn!(
                    "a message was dropped, since this process does not keep up with what it is sent: whoever sent it sends it again"
                );
            }
            other => tracing::warn!(
                event = %other,
                "the broker has something to say: nothing is lost by that, and what is not answered is sent again"
            ),
        }
        std::future::ready(())
    };
    let mut connect = ConnectOptions::new()
        .name(format!("{} {}", options.prefix, options.instance))
        .event_callback(heard)
        .ping_interval(options.ping)
        .connection_timeout(CONNECTING.min(options.patience))
        .request_timeout(Some(CONNECTING))
        .client_capacity(CLIENT_CAPACITY)
        // For each that waits there may be an answer and the server's word.
        .subscription_capacity(2 * MAX_PENDING)
        .require_tls(options.tls.required)
        .reconnect_delay_callback(delay);
    for authority in &options.tls.authorities {
        connect = connect.add_root_certificates(authority.clone());
    }
    if let Some((certificate, key)) = &options.tls.identity {
        connect = connect.add_client_certificate(certificate.clone(), key.clone());
    }
    match &options.credentials {
        Credentials::None => Ok(connect),
        Credentials::Password { user, password } => Ok(connect.user_and_password(user.clone(), password.clone())),
        Credentials::Token(token) => Ok(connect.token(token.clone())),
        Credentials::File(path) => connect
            .credentials_file(path)
            .await
            .map_err(|error| StartError::Unusable { what: path.display().to_string(), why: error.to_string() }),
    }
}

/// Between two attempts to connect again: from 10 ms to half a second, so that the end of an outage is noticed at once, with jitter, so
/// that not everybody comes at once.
fn delay(attempts: usize) -> std::time::Duration {
    let longest = (10_u64 << attempts.min(6)).min(500);
    std::time::Duration::from_millis(fastrand::u64(longest / 2..=longest))
}

/// Waits for an answer as a future.
pub(crate) async fn heard<T>(answer: tokio::sync::oneshot::Receiver<Result<T, Unanswered>>) -> Result<T, Unanswered> {
    // The callback is called in any case; if not, there is nobody left.
    answer.await.unwrap_or(Err(Unanswered::Nobody))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_servers_word_is_understood() {
        assert_eq!(refusal(br#"{"stream":"settle-command-stock", "seq":7}"#), None);
        let full = br#"{"error":{"code":503,"err_code":10077,"description":"maximum messages exceeded"},"stream":"x","seq":0}"#;
        assert_eq!(refusal(full), Some(("maximum messages exceeded".to_owned(), Some("x".to_owned()))));
        assert!(refusal(b"what?").is_some(), "what is not understood is no acknowledgement");
    }

    #[test]
    fn an_inbox_takes_numbers_only() {
        assert_eq!(parse("r17"), Some(('r', 17)));
        for bad in ["", "r", "rx", "\u{e9}1", "r-1"] {
            assert_eq!(parse(bad), None, "{bad}");
        }
    }
}
