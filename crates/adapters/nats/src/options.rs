//! Where the servers are, and how commands travel.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use protocol::Name;
use protocol::limits::{MAX_HANDLED, MAX_NATS_SERVERS, MAX_PENDING, MAX_SEND_QUEUE};

use crate::dead::DeadLetter;
use crate::error::StartError;
use crate::trace::Tracing;

/// How commands travel. Questions always travel by core NATS.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Request and reply, to one of the service's instances. What no instance takes now is unknown.
    Core,
    /// A work queue for each service, in which a command waits for an instance, and from which it is given to another one when the first
    /// does not acknowledge it.
    JetStream {
        /// Where the queue is kept.
        storage: Storage,
        /// On how many servers: 1 to 5; more than one needs a cluster.
        replicas: u8,
    },
}

impl Default for Mode {
    fn default() -> Self {
        Self::JetStream { storage: Storage::Memory, replicas: 1 }
    }
}

/// Where a work queue is kept. Neither is a record of anything: the log and the ledgers are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Storage {
    /// In the server's memory: a restart of the server empties it, and the coordinator sends again.
    #[default]
    Memory,
    /// In files. The server acknowledges before they are flushed.
    File,
}

/// Who Settle is to the servers.
#[derive(Clone, Default, PartialEq, Eq)]
pub enum Credentials {
    /// Nobody in particular.
    #[default]
    None,
    /// A user and a password.
    Password {
        /// The user.
        user: String,
        /// The password.
        password: String,
    },
    /// A token.
    Token(String),
    /// A `.creds` file, as `nsc` writes it: a JWT and the seed of its key.
    File(PathBuf),
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::None => f.write_str("None"),
            Self::Password { user, .. } => {
                f.debug_struct("Password").field("user", user).field("password", &"hidden").finish()
            }
            Self::Token(_) => f.write_str("Token(hidden)"),
            Self::File(path) => f.debug_tuple("File").field(path).finish(),
        }
    }
}

/// Encryption.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tls {
    /// Whether to refuse a server that does not encrypt.
    pub required: bool,
    /// Certificates, in PEM, of authorities that are trusted beside the system's.
    pub authorities: Vec<PathBuf>,
    /// The client's own certificate and key, in PEM, if the server asks for one.
    pub identity: Option<(PathBuf, PathBuf)>,
}

/// Is told of every dead letter, on a task of the runtime. Must not block.
pub type DeadLetterHook = Arc<dyn Fn(&DeadLetter) + Send + Sync>;

/// How a process takes part.
#[derive(Clone)]
pub struct Options {
    /// Where the servers are: `nats://host:port`, 1 to [`MAX_NATS_SERVERS`]. Credentials do not belong here.
    pub servers: Vec<String>,
    /// The name of this process, unlike any other's: questions can be asked of it by this name.
    pub instance: Name,
    /// The first word of every subject and stream: systems with different ones share servers without meeting. `settle` unless told.
    pub prefix: Name,
    /// Who Settle is to the servers.
    pub credentials: Credentials,
    /// Encryption; none unless told, or asked for by the server.
    pub tls: Tls,
    /// How commands travel. Every process of a system must say the same.
    pub mode: Mode,
    /// How long a command may go unanswered before it is unknown: 100 ms to 60 s; 1 s unless told. A command that waited twice as long in
    /// a queue is thrown away: its coordinator has long counted it as unknown.
    pub timeout: Duration,
    /// How long a start waits for the server, JetStream and the queues, and a stop for the work in hand: 10 ms to 10 minutes; 10 s unless told.
    pub patience: Duration,
    /// How long an instance may be silent about a command before that is given to another: 50 ms to 60 s; 500 ms unless told, half the
    /// time-out. An instance that is at work on it says so three times as often, however long the work takes.
    pub ack_wait: Duration,
    /// How often a silent server is asked whether it is there; after three questions without an answer it is taken for gone: 100 ms to
    /// 60 s; 1 s unless told.
    pub ping: Duration,
    /// Commands (and, counted apart, questions) that one instance of a service works on at once: 1 to [`MAX_HANDLED`]; 1024 unless told.
    pub in_flight: usize,
    /// Commands and questions that may wait for an answer: 1 to [`MAX_PENDING`], which it is unless told. One more is unknown at once.
    pub pending: usize,
    /// Commands that may wait to be sent: 1 to [`MAX_SEND_QUEUE`], which it is unless told. One more is unknown at once.
    pub send_queue: usize,
    /// Messages that may wait in a service's queue, each of up to 64 commands: 1 to 10 million; 100,000 unless told. The server refuses one more,
    /// whose commands are then unknown.
    pub backlog: u64,
    /// Who is told of dead letters, beside the log and the stream.
    pub on_dead_letter: Option<DeadLetterHook>,
    /// How traces go along.
    pub tracing: Option<Arc<dyn Tracing>>,
}

impl fmt::Debug for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Options")
            .field("servers", &self.servers.iter().map(|server| shown(server)).collect::<Vec<_>>())
            .field("instance", &self.instance)
            .field("prefix", &self.prefix)
            .field("credentials", &self.credentials)
            .field("tls", &self.tls)
            .field("mode", &self.mode)
            .field("timeout", &self.timeout)
            .field("patience", &self.patience)
            .field("ack_wait", &self.ack_wait)
            .field("ping", &self.ping)
            .field("in_flight", &self.in_flight)
            .field("pending", &self.pending)
            .field("send_queue", &self.send_queue)
            .field("backlog", &self.backlog)
            .finish_non_exhaustive()
    }
}

impl Options {
    /// The defaults, for an instance of this name and one server.
    pub fn new(instance: Name, server: impl Into<String>) -> Self {
        Self {
            servers: vec![server.into()],
            instance,
            prefix: Name::literal("settle"),
            credentials: Credentials::None,
            tls: Tls::default(),
            mode: Mode::default(),
            timeout: Duration::from_secs(1),
            patience: Duration::from_secs(10),
            ack_wait: Duration::from_millis(500),
            ping: Duration::from_secs(1),
            in_flight: 1024,
            pending: MAX_PENDING,
            send_queue: MAX_SEND_QUEUE,
            backlog: 100_000,
            on_dead_letter: None,
            tracing: None,
        }
    }

    /// How long a command is kept in a queue.
    pub(crate) fn max_age(&self) -> Duration {
        2 * self.timeout.max(self.ack_wait)
    }

    /// The servers as a person may see them.
    pub(crate) fn shown_servers(&self) -> String {
        self.servers.iter().map(|server| shown(server)).collect::<Vec<_>>().join(", ")
    }

    pub(crate) fn check(&self) -> Result<(), StartError> {
        let wrong = |option, why: String| Err(StartError::Option { option, why });
        let second = Duration::from_secs(1);
        let times = [
            ("timeout", self.timeout, Duration::from_millis(100)..=60 * second),
            ("patience", self.patience, Duration::from_millis(10)..=600 * second),
            ("ack_wait", self.ack_wait, Duration::from_millis(50)..=60 * second),
            ("ping", self.ping, Duration::from_millis(100)..=60 * second),
        ];
        for (option, time, bounds) in times {
            if !bounds.contains(&time) {
                return wrong(option, format!("must be {:?} to {:?}, is {time:?}", bounds.start(), bounds.end()));
            }
        }
        let counts = [
            ("in_flight", self.in_flight as u64, MAX_HANDLED as u64),
            ("pending", self.pending as u64, MAX_PENDING as u64),
            ("send_queue", self.send_queue as u64, MAX_SEND_QUEUE as u64),
            ("backlog", self.backlog, 10_000_000),
            ("servers", self.servers.len() as u64, MAX_NATS_SERVERS as u64),
        ];
        for (option, count, most) in counts {
            if !(1..=most).contains(&count) {
                return wrong(option, format!("must be 1 to {most}, is {count}"));
            }
        }
        if let Mode::JetStream { replicas, .. } = self.mode
            && !(1..=5).contains(&replicas)
        {
            return wrong("replicas", format!("must be 1 to 5, is {replicas}"));
        }
        match self.servers.iter().find(|server| server.contains('@')) {
            Some(server) => wrong("servers", format!("`{}` has credentials in it: give them apart", shown(server))),
            None => Ok(()),
        }
    }
}

/// An address without the credentials that somebody may have put into it.
fn shown(server: &str) -> String {
    let (scheme, rest) = server.split_once("://").map_or(("", server), |(scheme, rest)| (scheme, rest));
    let rest = rest.rsplit_once('@').map_or(rest, |(_, rest)| rest);
    if scheme.is_empty() { rest.to_owned() } else { format!("{scheme}://{rest}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HERE: Name = Name::literal("here");

    #[test]
    fn no_secret_is_ever_shown() {
        let mut options = Options::new(HERE, "nats://user:s3cret@127.0.0.1:4222");
        assert!(options.check().unwrap_err().to_string().contains("credentials"));
        assert!(!options.check().unwrap_err().to_string().contains("s3cret"));
        for credentials in [
            Credentials::Password { user: "settle".to_owned(), password: "s3cret".to_owned() },
            Credentials::Token("s3cret".to_owned()),
        ] {
            options.credentials = credentials;
            assert!(!format!("{options:?}").contains("s3cret"), "{options:?}");
        }
        assert_eq!(options.shown_servers(), "nats://127.0.0.1:4222");
    }

    #[test]
    fn an_option_out_of_its_bounds_is_named() {
        let good = Options::new(HERE, "127.0.0.1:4222");
        assert_eq!(good.check(), Ok(()));
        let bad = [
            ("timeout", Options { timeout: Duration::from_secs(61), ..good.clone() }),
            ("in_flight", Options { in_flight: 0, ..good.clone() }),
            ("pending", Options { pending: MAX_PENDING + 1, ..good.clone() }),
            ("servers", Options { servers: vec![], ..good.clone() }),
            ("replicas", Options { mode: Mode::JetStream { storage: Storage::File, replicas: 0 }, ..good.clone() }),
        ];
        for (option, options) in bad {
            assert!(options.check().unwrap_err().to_string().contains(option), "{option}");
        }
    }
}
