//! Versioned binary records: what is written today is read tomorrow, or refused by name; never misread.
//!
//! A record is one version byte and the body in [postcard](https://docs.rs/postcard). A reader knows the versions it can read;
//! anything else is an error that names the version.

use std::cell::Cell;

use serde::{Serialize, de::DeserializeOwned};

use crate::message::Payload;

/// The version that this program writes.
pub const VERSION: u8 = 1;

/// A record that can't be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    /// No bytes at all.
    #[error("an empty record")]
    Empty,
    /// Written by another version of the program.
    #[error(
        "the record has version {found}; this program reads version {VERSION}. Use the program that wrote it, or a later one"
    )]
    UnknownVersion {
        /// The version found.
        found: u8,
    },
    /// The body does not fit the version.
    #[error("the body of a version {VERSION} record does not decode: {0}")]
    Malformed(String),
}

/// Appends a record to `out`.
///
/// # Errors
/// Never for the types of this project; a type whose serializer fails yields its error.
pub fn encode<T: Serialize>(value: &T, out: Vec<u8>) -> Result<Vec<u8>, RecordError> {
    let mut out = out;
    out.push(VERSION);
    postcard::to_extend(value, out).map_err(|error| RecordError::Malformed(error.to_string()))
}

thread_local! {
    /// An empty buffer, kept for its memory.
    static BUFFER: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

/// A record as a payload.
///
/// # Errors
/// Those of [`encode`].
pub fn payload<T: Serialize>(value: &T) -> Result<Payload, RecordError> {
    let mut bytes = encode(value, BUFFER.take())?;
    let payload = Payload::from(bytes.as_slice());
    bytes.clear();
    BUFFER.set(bytes);
    Ok(payload)
}

/// Reads a record that must fill `bytes` wholly.
///
/// # Errors
/// If the version is unknown, the body does not decode, or bytes are left over.
pub fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, RecordError> {
    let (&version, body) = bytes.split_first().ok_or(RecordError::Empty)?;
    if version != VERSION {
        return Err(RecordError::UnknownVersion { found: version });
    }
    let (value, rest) = postcard::take_from_bytes(body).map_err(|error| RecordError::Malformed(error.to_string()))?;
    if rest.is_empty() { Ok(value) } else { Err(RecordError::Malformed(format!("{} bytes left over", rest.len()))) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_version_is_named() {
        let mut bytes = encode(&"text", Vec::new()).unwrap();
        assert_eq!(decode::<String>(&bytes).unwrap(), "text");
        bytes[0] = 9;
        assert_eq!(decode::<String>(&bytes), Err(RecordError::UnknownVersion { found: 9 }));
    }

    #[test]
    fn bytes_left_over_are_an_error() {
        let mut bytes = encode(&7_u32, Vec::new()).unwrap();
        bytes.push(0);
        assert!(matches!(decode::<u32>(&bytes), Err(RecordError::Malformed(_))));
    }
}
