//! Ids of accounts, and of whatever else an application keeps beside them.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use uuid::Uuid;

/// An id in 16 bytes: a number below 2^64, written in decimal ("0", "42"), or a UUID, written with hyphens.
///
/// The numbers are those of seeded accounts; a UUID of any version is never below 2^64, so the two never meet.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EntityId([u8; 16]);

impl EntityId {
    /// The id of the number `n`.
    pub const fn number(n: u64) -> Self {
        Self((n as u128).to_be_bytes())
    }

    /// The id of a UUID.
    pub fn uuid(uuid: Uuid) -> Self {
        Self(uuid.into_bytes())
    }

    /// The number, if it is one.
    pub fn as_number(self) -> Option<u64> {
        u64::try_from(u128::from_be_bytes(self.0)).ok()
    }
}

/// Nobody's neighbour: accounts and orders are asked for in no order.
impl table::Key for EntityId {
    fn hash_by(&self, hasher: &table::Hasher) -> u64 {
        hasher.alone(u128::from_be_bytes(self.0))
    }
}

impl fmt::Display for EntityId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.as_number() {
            Some(n) => n.fmt(f),
            None => Uuid::from_bytes(self.0).hyphenated().fmt(f),
        }
    }
}

impl fmt::Debug for EntityId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A text that is the id of nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not an id: expected a number such as 42, or a UUID")]
pub struct NotAnId;

impl FromStr for EntityId {
    type Err = NotAnId;

    /// Reads the one way of writing each id: "007" is not 7.
    fn from_str(text: &str) -> Result<Self, NotAnId> {
        if text.len() <= 20 && !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
            let canonical = text == "0" || !text.starts_with('0');
            return text.parse().ok().filter(|_| canonical).map(Self::number).ok_or(NotAnId);
        }
        if text.len() != 36 {
            return Err(NotAnId);
        }
        let id = Uuid::parse_str(text).map(Self::uuid).map_err(|_| NotAnId)?;
        if id.as_number().is_some() { Err(NotAnId) } else { Ok(id) }
    }
}

impl Serialize for EntityId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if serializer.is_human_readable() { serializer.collect_str(self) } else { self.0.serialize(serializer) }
    }
}

impl<'de> Deserialize<'de> for EntityId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        if deserializer.is_human_readable() {
            String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
        } else {
            <[u8; 16]>::deserialize(deserializer).map(Self)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_id_is_written_in_one_way() {
        for text in ["0", "7", "99999", "18446744073709551615", "0190b6e2-7c1f-7c3a-8f00-000000000001"] {
            assert_eq!(text.parse::<EntityId>().unwrap().to_string(), text);
        }
        for text in ["", "007", "-1", "18446744073709551616", "x", "00000000-0000-0000-0000-000000000007", "1 "] {
            assert!(text.parse::<EntityId>().is_err(), "{text}");
        }
    }
}
