//! What can go wrong, told so that a person can act on it.

use std::time::Duration;

/// Why a start failed. Nothing was sent.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StartError {
    /// An option is out of its bounds.
    #[error("option {option}: {why}")]
    Option {
        /// The option's name.
        option: &'static str,
        /// Its bounds, and what was given.
        why: String,
    },
    /// No server answered in time.
    #[error("no NATS server at {servers} within {patience:?}: {why}. Is it running, and is the address right?")]
    Unreachable {
        /// Where they should be.
        servers: String,
        /// How long was waited.
        patience: Duration,
        /// What happened last.
        why: String,
    },
    /// The server does not let us in.
    #[error("{servers} refused the credentials: {why}")]
    Refused {
        /// The servers.
        servers: String,
        /// What it said.
        why: String,
    },
    /// The credentials or certificates cannot be read.
    #[error("cannot use {what}: {why}")]
    Unusable {
        /// Which file or text.
        what: String,
        /// What is wrong with it.
        why: String,
    },
    /// The server has no JetStream.
    #[error(
        "{servers} has no JetStream ({why}): start nats-server with `-js`, enable it for the account, or use mode `core`"
    )]
    NoJetStream {
        /// The servers.
        servers: String,
        /// What it said.
        why: String,
    },
    /// The server can't keep as many replicas.
    #[error(
        "{servers} cannot keep {replicas} replicas of stream `{stream}` ({why}): run a cluster of at least as many servers, or ask for \
         fewer"
    )]
    Replicas {
        /// The servers.
        servers: String,
        /// The stream.
        stream: String,
        /// How many were asked for.
        replicas: usize,
        /// What it said.
        why: String,
    },
    /// The server or the account has no room for what services keep there.
    #[error(
        "{servers} would not keep {streams}, {mib} MiB at most, in {place} ({why}): raise `{setting}` of the server or the limit of its \
         account, or remove streams that nobody needs"
    )]
    NoRoom {
        /// The servers.
        servers: String,
        /// The streams.
        streams: String,
        /// What they may take at most, together.
        mib: i64,
        /// Where they are kept.
        place: &'static str,
        /// What bounds it.
        setting: &'static str,
        /// What it said.
        why: String,
    },
    /// A stream or consumer is there already, and is another than is needed.
    #[error(
        "stream `{stream}` has {setting} {found}, and {wanted} is needed, which cannot be changed in place: let the services stop, \
         `nats stream rm {stream}`, and start again (commands in it are sent again by their coordinators)"
    )]
    Strange {
        /// The stream.
        stream: String,
        /// What differs.
        setting: &'static str,
        /// What it is.
        found: String,
        /// What it should be.
        wanted: String,
    },
    /// The server takes smaller messages than are sent.
    #[error("{servers} takes messages of {found} bytes at most, and {wanted} are needed: raise `max_payload`")]
    SmallMessages {
        /// The servers.
        servers: String,
        /// Its limit.
        found: usize,
        /// What is needed.
        wanted: usize,
    },
    /// The server refused a request.
    #[error("{servers} refused to {request}: {why}")]
    Server {
        /// The servers.
        servers: String,
        /// What was asked.
        request: String,
        /// What it said.
        why: String,
    },
}

/// Why a question has no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Unanswered {
    /// Nobody of that name is there, or the server isn't.
    #[error("nobody is there to answer")]
    Nobody,
    /// None came in time.
    #[error("no answer in time")]
    Timeout,
    /// Too many questions wait for an answer already.
    #[error("too many questions are open")]
    TooMany,
    /// The question, or the answer, is longer than [`protocol::limits::MAX_MESSAGE_BYTES`].
    #[error("the question or its answer is too long")]
    TooLong,
    /// Who was asked failed, is overloaded, or speaks another version.
    #[error("who was asked could not answer")]
    Failed,
}

/// A message that cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unreadable {
    /// It has no bytes.
    #[error("the message is empty")]
    Empty,
    /// It is of a version that this program does not know.
    #[error("the message is of version {found}, and only version {known} is known: update the services together")]
    Version {
        /// Its version.
        found: u8,
        /// The one that is known.
        known: u8,
    },
    /// It is longer than any message may be.
    #[error("the message has {found} bytes, and {most} are allowed")]
    TooLong {
        /// Its length.
        found: usize,
        /// The limit.
        most: usize,
    },
    /// Its bytes make no sense.
    #[error("the message makes no sense: {0}")]
    Nonsense(String),
}
