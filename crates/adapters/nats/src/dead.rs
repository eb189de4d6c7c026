//! Messages that cannot be read: kept whole, for people to look at.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_nats::jetstream::context::PublishErrorKind;
use async_nats::{HeaderMap, Subject};
use bytes::Bytes;
use protocol::{Name, Reply, Unknown};

use crate::desk::Slip;
use crate::error::Unreadable;
use crate::link::Shared;
use crate::options::Mode;
use crate::statistics::count;
use crate::streams::{self, When};
use crate::wire;

/// Headers of a dead letter.
const SERVICE: &str = "Settle-Service";
const WHY: &str = "Settle-Why";
const CUT: &str = "Settle-Cut-From";
/// What a dead letter's headers take at most.
const HEADER_BYTES: usize = 4096;
/// How long the server may take for a dead letter.
const PATIENCE: Duration = Duration::from_secs(2);

/// A message that could not be read.
#[derive(Clone)]
pub struct DeadLetter {
    /// For which service it was.
    pub service: Name,
    /// What is wrong with it.
    pub why: Unreadable,
    /// All of it: the whole message if its frame is broken or of another version, else the one command.
    pub bytes: Bytes,
    /// Whether it is kept in the stream `PREFIX-dead`. Without JetStream nobody but you has it.
    pub kept: bool,
}

impl fmt::Debug for DeadLetter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DeadLetter")
            .field("service", &self.service)
            .field("why", &self.why)
            .field("bytes", &self.bytes.len())
            .field("kept", &self.kept)
            .finish()
    }
}

/// What cannot be read.
pub(crate) struct Poison {
    pub(crate) bytes: Bytes,
    pub(crate) why: Unreadable,
    /// What tells it from all others.
    pub(crate) identity: Option<String>,
}

/// Keeps what cannot be read, then answers and acknowledges it. If it can't be kept it is not acknowledged, and comes again.
pub(crate) fn bury(shared: Arc<Shared>, service: Name, poison: Poison, slip: Slip) {
    let runtime = shared.runtime.clone();
    runtime.spawn(async move {
        let Poison { bytes, why, identity } = poison;
        tracing::error!(participant = %service, %why, bytes = bytes.len(), "a message cannot be read: kept as a dead letter");
        let queued = matches!(shared.options.mode, Mode::JetStream { .. });
        let kept = keep(&shared, service, &bytes, &why, identity).await;
        if let Err(error) = &kept {
            count(&shared.statistics.letters_failed);
            tracing::error!(participant = %service, %error, "a dead letter could not be kept");
        }
        let kept = kept.is_ok();
        if kept || !queued {
            let letter = DeadLetter { service, why, bytes, kept };
            if let Some(hook) = &shared.options.on_dead_letter {
                crate::pending::call(|| hook(&letter));
            }
        }
        // The branch, if there is one, is as it was: whoever sent this may try again.
        let Ok(failed) = wire::encode(&Reply::Unknown(Unknown::Failed)) else { return };
        if kept || !queued { slip.finish(failed) } else { slip.abandon(failed) }
    });
}

/// What tells a command of a message of a stream from all others, so that one that is given out twice becomes one dead letter: the message's place in
/// the stream and its time (a stream that was made anew counts from one again), and the command's place in it; 0 for the whole message.
pub(crate) fn identity(acknowledge: Option<&Subject>, place: usize) -> Option<String> {
    let words: Vec<&str> = acknowledge?.split('.').collect();
    let at = if words.len() >= 11 { 4 } else { 2 };
    Some(format!("{}:{}:{}:{place}", words.get(at)?, words.get(at + 3)?, words.get(at + 5)?))
}

async fn keep(
    shared: &Shared,
    service: Name,
    bytes: &Bytes,
    why: &Unreadable,
    identity: Option<String>,
) -> Result<(), String> {
    let mut headers = HeaderMap::new();
    headers.insert(SERVICE, service.as_str());
    let why: String = why.to_string().chars().filter(|c| *c == ' ' || c.is_ascii_graphic()).take(512).collect();
    headers.insert(WHY, why);
    if let Some(identity) = identity {
        headers.insert(async_nats::header::NATS_MESSAGE_ID, identity);
    }
    let room = shared.client.max_payload().saturating_sub(HEADER_BYTES);
    if bytes.len() > room {
        headers.insert(CUT, bytes.len().to_string());
    }
    let body = bytes.slice(..bytes.len().min(room));
    let subject = shared.names.dead(service);
    for last in [false, true] {
        let written = async {
            let acknowledged =
                shared.jetstream.publish_with_headers(subject.clone(), headers.clone(), body.clone()).await?;
            acknowledged.await
        };
        match tokio::time::timeout(PATIENCE, written).await {
            Ok(Ok(_)) => return Ok(()),
            Ok(Err(error)) if !last && error.kind() == PublishErrorKind::StreamNotFound => {
                if let Err(error) = streams::dead_stream(shared, When::Repair).await {
                    return Err(error.to_string());
                }
            }
            Ok(Err(error)) => return Err(error.to_string()),
            Err(_) => return Err("the server did not acknowledge it in time".to_owned()),
        }
    }
    Err("the stream was lost again".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_message_given_out_twice_has_one_identity() {
        let of = |subject: &str| identity(Some(&Subject::from(subject)), 3).unwrap();
        let first = of("$JS.ACK.settle-command-stock.instances.1.7.7.1790.0");
        assert_eq!(first, "settle-command-stock:7:1790:3");
        assert_eq!(of("$JS.ACK.settle-command-stock.instances.2.7.9.1790.3"), first);
        assert_eq!(of("$JS.ACK.hub.ACCOUNT.settle-command-stock.instances.2.7.9.1790.3"), first);
        assert_ne!(of("$JS.ACK.settle-command-stock.instances.1.7.7.1791.0"), first, "of a stream made anew");
    }
}
