//! A look at whether a server would keep the streams of services, for people who want to know before they start.
//!
//! A server tells nobody how much room it has, but looks for it before it looks at subjects. So it is asked for each stream under a subject that
//! another one has, and refuses for the one reason or for the other. That other one, the anchor, is made for the moment.

use async_nats::jetstream::ErrorCode;
use async_nats::jetstream::context::{CreateStreamErrorKind, GetStreamErrorKind};
use async_nats::jetstream::stream::{Config, StorageType};
use protocol::Name;

use crate::error::StartError;
use crate::link::{Nats, Shared};
use crate::options::Mode;
use crate::streams;

/// The room of the stream that has the subject.
const ANCHOR_BYTES: i64 = 1;

impl Nats {
    /// Why the server would not keep the queues of these services, or their dead letters, or what it has in their place. Nothing stays behind.
    pub async fn refusals(&self, services: &[Name]) -> Vec<StartError> {
        let shared = &*self.shared;
        let mut refusals = Vec::new();
        if shared.options.mode == Mode::Core {
            return refusals;
        }
        let mut missing = Vec::new();
        for wanted in streams::wanted(shared, services) {
            match shared.jetstream.get_stream(&wanted.name).await {
                Ok(found) => refusals.extend(streams::contradiction(&found.cached_info().config, &wanted)),
                Err(error) => match error.kind() {
                    GetStreamErrorKind::JetStream(why) if why.error_code() == ErrorCode::STREAM_NOT_FOUND => {
                        missing.push(wanted);
                    }
                    // Nothing is known, and nothing is said.
                    _ => {}
                },
            }
        }
        for storage in [StorageType::Memory, StorageType::File] {
            let wanted: Vec<&Config> = missing.iter().filter(|wanted| wanted.storage == storage).collect();
            if !wanted.is_empty() {
                refusals.extend(refusal(shared, storage, &wanted).await);
            }
        }
        refusals
    }
}

/// Why one of the streams, or all together, would be refused.
async fn refusal(shared: &Shared, storage: StorageType, wanted: &[&Config]) -> Option<StartError> {
    let anchor = shared.names.nobody();
    let name = anchor.replace('.', "-");
    let smallest = Config {
        name: name.clone(),
        subjects: vec![anchor.clone()],
        storage,
        max_bytes: ANCHOR_BYTES,
        ..Config::default()
    };
    if let Some((_, why)) = refused(shared, smallest).await {
        return Some(told(shared, wanted, why));
    }
    let mut found = None;
    for alone in wanted {
        found = found.or(would_be_refused(shared, alone, alone.max_bytes, &anchor).await);
    }
    let all = wanted.iter().map(|wanted| wanted.max_bytes).sum();
    // A limit of each stream is not one of all.
    let together = would_be_refused(shared, wanted[0], all, &anchor).await.filter(|(code, _)| is_about_room(*code));
    _ = shared.jetstream.delete_stream(&name).await;
    let (code, why) = found.or(together)?;
    if code == ErrorCode::STREAM_REPLICAS_NOT_SUPPORTED {
        let (servers, stream, replicas) =
            (shared.options.shown_servers(), wanted[0].name.clone(), wanted[0].num_replicas);
        return Some(StartError::Replicas { servers, stream, replicas, why });
    }
    Some(told(shared, wanted, why))
}

async fn would_be_refused(shared: &Shared, wanted: &Config, bytes: i64, anchor: &str) -> Option<(ErrorCode, String)> {
    let name = shared.names.nobody().replace('.', "-");
    // The anchor has one of them.
    let max_bytes = bytes - ANCHOR_BYTES;
    let asked = Config { name: name.clone(), subjects: vec![anchor.to_owned()], max_bytes, ..wanted.clone() };
    let refused = refused(shared, asked).await;
    if refused.is_none() {
        // It did not answer in time, or does not mind the subject.
        _ = shared.jetstream.delete_stream(&name).await;
    }
    refused.filter(|(code, _)| *code != ErrorCode::STREAM_SUBJECT_OVERLAP)
}

async fn refused(shared: &Shared, asked: Config) -> Option<(ErrorCode, String)> {
    match shared.jetstream.create_stream(asked).await.err()?.kind() {
        CreateStreamErrorKind::JetStream(why) => Some((why.error_code(), why.to_string())),
        _ => None,
    }
}

fn is_about_room(code: ErrorCode) -> bool {
    matches!(
        code,
        ErrorCode::MEMORY_RESOURCES_EXCEEDED
            | ErrorCode::STORAGE_RESOURCES_EXCEEDED
            | ErrorCode::ACCOUNT_RESOURCES_EXCEEDED
            | ErrorCode::INSUFFICIENT_RESOURCES
    )
}

fn told(shared: &Shared, wanted: &[&Config], why: String) -> StartError {
    let bytes: i64 = wanted.iter().map(|wanted| wanted.max_bytes).sum();
    let (place, setting) = match wanted[0].storage {
        StorageType::Memory => ("memory", "max_memory_store"),
        StorageType::File => ("files", "max_file_store"),
    };
    StartError::NoRoom {
        servers: shared.options.shown_servers(),
        streams: wanted.iter().map(|wanted| format!("`{}`", wanted.name)).collect::<Vec<_>>().join(", "),
        mib: bytes >> 20,
        place,
        setting,
        why,
    }
}
