//! Streams and consumers: made when they are not there, changed when they differ, at the start and whenever they were lost.

use std::time::Duration;

use async_nats::jetstream::consumer::{AckPolicy, DeliverPolicy, pull};
use async_nats::jetstream::context::{CreateStreamErrorKind, GetStreamErrorKind, RequestErrorKind};
use async_nats::jetstream::response::Response;
use async_nats::jetstream::stream::{Config, ConsumerErrorKind, DiscardPolicy, RetentionPolicy, StorageType};
use async_nats::jetstream::{self, ErrorCode};
use protocol::Name;
use protocol::limits::{KEPT_DEAD_MESSAGE_BYTES, KEPT_DEAD_MESSAGES};

use crate::error::StartError;
use crate::link::Shared;
use crate::names::GROUP;
use crate::options::{Mode, Storage};
use crate::statistics::count;

/// How long a dead letter is kept.
const DEAD_FOR: Duration = Duration::from_secs(30 * 24 * 60 * 60);
/// Bytes of commands that wait for one service, at most.
const MAX_BACKLOG_BYTES: i64 = 1 << 30;
/// Between two attempts.
const BREATH: Duration = Duration::from_millis(100);

/// How long after it was found to be gone a stream or consumer in files is made again: a server that is told to forget one removes its folder a moment later,
/// and with it the files of one that was made too early.
const AFTERMATH: Duration = Duration::from_millis(500);

/// When a stream is looked after.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum When {
    /// At the start of a process.
    Start,
    /// Later, since it may be gone.
    Repair,
}

/// What came of one attempt.
pub(crate) enum Attempt {
    /// It is there; whether it had to be made.
    There { made: bool },
    /// Not yet; waiting may help.
    NotYet(StartError),
}

type Attempted = Result<Attempt, StartError>;

/// Tries until it is there, for as long as the patience lasts.
pub(crate) async fn at_start<F: Future<Output = Attempted>>(
    shared: &Shared,
    attempt: impl Fn() -> F,
) -> Result<(), StartError> {
    let until = tokio::time::Instant::now() + shared.options.patience;
    loop {
        match attempt().await? {
            Attempt::There { .. } => return Ok(()),
            Attempt::NotYet(why) if tokio::time::Instant::now() >= until => return Err(why),
            Attempt::NotYet(_) => tokio::time::sleep(BREATH).await,
        }
    }
}

/// Tries until it is there, however long that takes.
pub(crate) async fn until_there<F: Future<Output = Attempted>>(shared: &Shared, attempt: impl Fn() -> F) {
    let mut told = false;
    loop {
        match attempt().await {
            Ok(Attempt::There { made }) => {
                if made {
                    count(&shared.statistics.repairs);
                    tracing::warn!("a stream or consumer of NATS was gone, and was made again");
                }
                return;
            }
            Ok(Attempt::NotYet(why)) | Err(why) => {
                if !std::mem::replace(&mut told, true) {
                    tracing::warn!(%why, "a stream or consumer of NATS is not there: trying again");
                }
                tokio::time::sleep(BREATH).await;
            }
        }
    }
}

/// Whether there is JetStream at all.
pub(crate) async fn check_jetstream(shared: &Shared) -> Result<(), StartError> {
    let missing = |why: String| StartError::NoJetStream { servers: shared.options.shown_servers(), why };
    let attempt = || async {
        // Servers of different versions say different things about an account; only whether there is one matters.
        let told: Result<Response<serde::de::IgnoredAny>, _> = shared.jetstream.request("INFO", &()).await;
        match told {
            Ok(Response::Ok(_)) => Ok(Attempt::There { made: false }),
            Ok(Response::Err { error }) => match error.error_code() {
                ErrorCode::JETSTREAM_NOT_ENABLED | ErrorCode::JETSTREAM_NOT_ENABLED_FOR_ACCOUNT => {
                    Err(missing(error.to_string()))
                }
                _ => Ok(Attempt::NotYet(missing(error.to_string()))),
            },
            Err(error) if error.kind() == RequestErrorKind::NoResponders && !shared.client.server_info().jetstream => {
                Err(missing(error.to_string()))
            }
            Err(error) => Ok(Attempt::NotYet(missing(error.to_string()))),
        }
    };
    at_start(shared, attempt).await
}

fn mode(shared: &Shared) -> (StorageType, usize) {
    match shared.options.mode {
        Mode::JetStream { storage: Storage::Memory, replicas } => (StorageType::Memory, usize::from(replicas)),
        Mode::JetStream { storage: Storage::File, replicas } => (StorageType::File, usize::from(replicas)),
        Mode::Core => (StorageType::File, 1),
    }
}

/// All the streams that these services have, and their coordinators.
pub(crate) fn wanted(shared: &Shared, services: &[Name]) -> Vec<Config> {
    let queues = services.iter().map(|service| queue(shared, *service));
    queues.chain([dead_letters(shared)]).collect()
}

/// The queue of a service.
pub(crate) async fn command_stream(shared: &Shared, service: Name, when: When) -> Attempted {
    stream(shared, queue(shared, service), when).await
}

fn queue(shared: &Shared, service: Name) -> Config {
    let (storage, replicas) = mode(shared);
    let max_age = shared.options.max_age();
    Config {
        name: shared.names.command_stream(service),
        subjects: vec![shared.names.command(service)],
        retention: RetentionPolicy::WorkQueue,
        storage,
        num_replicas: replicas,
        discard: DiscardPolicy::New,
        max_messages: i64::try_from(shared.options.backlog).unwrap_or(i64::MAX),
        max_bytes: MAX_BACKLOG_BYTES,
        max_age,
        // Nothing is deduplicated here, but the server wants a window that is not longer than the age.
        duplicate_window: max_age.min(Duration::from_secs(1)),
        ..Config::default()
    }
}

/// Where undecodable messages are kept.
pub(crate) async fn dead_stream(shared: &Shared, when: When) -> Attempted {
    stream(shared, dead_letters(shared), when).await
}

fn dead_letters(shared: &Shared) -> Config {
    let (_, replicas) = mode(shared);
    Config {
        name: shared.names.dead_stream(),
        subjects: vec![shared.names.all_dead()],
        retention: RetentionPolicy::Limits,
        storage: StorageType::File,
        num_replicas: replicas,
        discard: DiscardPolicy::Old,
        max_messages: i64::try_from(KEPT_DEAD_MESSAGES).unwrap_or(i64::MAX),
        max_bytes: i64::try_from(KEPT_DEAD_MESSAGE_BYTES).unwrap_or(i64::MAX),
        max_age: DEAD_FOR,
        duplicate_window: Duration::from_secs(120),
        ..Config::default()
    }
}

async fn stream(shared: &Shared, wanted: Config, when: When) -> Attempted {
    let found = shared.jetstream.get_stream(&wanted.name).await;
    let found = match found {
        Ok(stream) => stream.cached_info().config.clone(),
        Err(error) => match error.kind() {
            GetStreamErrorKind::JetStream(why) if why.error_code() == ErrorCode::STREAM_NOT_FOUND => {
                if when == When::Repair && wanted.storage == StorageType::File {
                    tokio::time::sleep(AFTERMATH).await;
                }
                let request = format!("create stream `{}`", wanted.name);
                return match shared.jetstream.create_stream(wanted.clone()).await {
                    Ok(_) => Ok(Attempt::There { made: true }),
                    Err(error) => failed(shared, &wanted, &request, &error),
                };
            }
            _ => {
                let request = format!("look stream `{}` up", wanted.name);
                return Ok(Attempt::NotYet(shared.refused(&request, error)));
            }
        },
    };
    if let Some(strange) = contradiction(&found, &wanted) {
        return Err(strange);
    }
    let settings = |config: &Config| {
        let limits = (config.max_messages, config.max_bytes, config.max_age, config.duplicate_window);
        (config.subjects.clone(), config.num_replicas, config.discard, limits)
    };
    if settings(&found) == settings(&wanted) {
        return Ok(Attempt::There { made: false });
    }
    let request = format!("change stream `{}`", wanted.name);
    match shared.jetstream.update_stream(&wanted).await {
        Ok(_) => Ok(Attempt::There { made: false }),
        Err(error) => failed(shared, &wanted, &request, &error),
    }
}

/// What cannot be changed in a stream that is there.
pub(crate) fn contradiction(found: &Config, wanted: &Config) -> Option<StartError> {
    let strange = |setting, found: String, wanted_so: String| {
        Some(StartError::Strange { stream: wanted.name.clone(), setting, found, wanted: wanted_so })
    };
    if found.storage != wanted.storage {
        return strange("storage", format!("{:?}", found.storage), format!("{:?}", wanted.storage));
    }
    if found.retention != wanted.retention {
        return strange("retention", format!("{:?}", found.retention), format!("{:?}", wanted.retention));
    }
    None
}

fn failed(
    shared: &Shared,
    wanted: &Config,
    request: &str,
    error: &async_nats::jetstream::context::CreateStreamError,
) -> Attempted {
    let servers = shared.options.shown_servers();
    let replicas = |why: &jetstream::Error| StartError::Replicas {
        servers: servers.clone(),
        stream: wanted.name.clone(),
        replicas: wanted.num_replicas,
        why: why.to_string(),
    };
    match error.kind() {
        CreateStreamErrorKind::JetStream(why) => match why.error_code() {
            ErrorCode::STREAM_REPLICAS_NOT_SUPPORTED => Err(replicas(&why)),
            // A cluster that is just starting has not met its peers yet.
            ErrorCode::CLUSTER_NO_PEERS | ErrorCode::INSUFFICIENT_RESOURCES if wanted.num_replicas > 1 => {
                Ok(Attempt::NotYet(replicas(&why)))
            }
            // Somebody else made it a moment ago, or is making it now: its subjects are taken before its name is. Or the cluster has no leader.
            ErrorCode::STREAM_NAME_EXIST | ErrorCode::STREAM_SUBJECT_OVERLAP | ErrorCode::CLUSTER_NOT_AVAILABLE => {
                Ok(Attempt::NotYet(shared.refused(request, why)))
            }
            ErrorCode::JETSTREAM_NOT_ENABLED | ErrorCode::JETSTREAM_NOT_ENABLED_FOR_ACCOUNT => {
                Err(StartError::NoJetStream { servers, why: why.to_string() })
            }
            _ => Err(shared.refused(request, why)),
        },
        CreateStreamErrorKind::TimedOut | CreateStreamErrorKind::JetStreamUnavailable => {
            Ok(Attempt::NotYet(shared.refused(request, error)))
        }
        _ => Err(shared.refused(request, error)),
    }
}

/// All that a participant needs. One attempt looks at all of it, since one part may go while another comes.
pub(crate) async fn everything(shared: &Shared, service: Name, when: When) -> Attempted {
    let mut anything = false;
    let parts = [
        dead_stream(shared, when).await?,
        command_stream(shared, service, when).await?,
        consumer(shared, service, when).await?,
    ];
    for part in parts {
        match part {
            Attempt::There { made } => anything |= made,
            Attempt::NotYet(why) => return Ok(Attempt::NotYet(why)),
        }
    }
    Ok(Attempt::There { made: anything })
}

/// Removes a stream whose files are gone, so that it is made anew. What is in it is sent again by its coordinators.
pub(crate) async fn remove_broken(shared: &Shared, stream: &str) {
    tracing::error!(stream, "the files of a stream of NATS are gone: it is removed and made again");
    if let Err(error) = shared.jetstream.delete_stream(stream).await {
        tracing::warn!(stream, %error, "a broken stream could not be removed");
    }
}

/// The one consumer of a service's queue, which all its instances share.
pub(crate) async fn consumer(shared: &Shared, service: Name, when: When) -> Attempted {
    let (storage, _) = mode(shared);
    let name = shared.names.command_stream(service);
    let config = pull::Config {
        durable_name: Some(GROUP.to_owned()),
        ack_policy: AckPolicy::Explicit,
        ack_wait: shared.options.ack_wait,
        deliver_policy: DeliverPolicy::All,
        // What bounds the work is each instance's own limit.
        max_ack_pending: i64::try_from(shared.options.backlog).unwrap_or(i64::MAX),
        memory_storage: storage == StorageType::Memory,
        ..pull::Config::default()
    };
    let found = shared.jetstream.get_consumer_from_stream::<pull::Config, _, _>(GROUP, &name).await;
    let made = match &found {
        Ok(consumer) if consumer.cached_info().config.ack_wait == config.ack_wait => {
            return Ok(Attempt::There { made: false });
        }
        Ok(_) => false,
        Err(error) => match error.kind() {
            ConsumerErrorKind::JetStream(why) if why.error_code() == ErrorCode::CONSUMER_NOT_FOUND => true,
            _ => {
                let request = format!("look the consumer of stream `{name}` up");
                return Ok(Attempt::NotYet(shared.refused(&request, error)));
            }
        },
    };
    if made && when == When::Repair && storage == StorageType::File {
        tokio::time::sleep(AFTERMATH).await;
    }
    match shared.jetstream.create_consumer_on_stream(config, &name).await {
        Ok(_) => Ok(Attempt::There { made }),
        Err(error) => {
            let why = shared.refused(&format!("make the consumer of stream `{name}`"), &error);
            match error.kind() {
                ConsumerErrorKind::JetStream(code) if code.error_code() == ErrorCode::STREAM_NOT_FOUND => {
                    Ok(Attempt::NotYet(why))
                }
                ConsumerErrorKind::JetStream(code) if code.to_string().contains("creating store") => {
                    remove_broken(shared, &name).await;
                    Ok(Attempt::NotYet(why))
                }
                ConsumerErrorKind::JetStream(code) if code.error_code() != ErrorCode::CLUSTER_NOT_AVAILABLE => Err(why),
                _ => Ok(Attempt::NotYet(why)),
            }
        }
    }
}
