//! Names, ids and times. All of them are values: nothing here asks a clock or a random source.

use std::fmt;
use std::num::NonZeroU8;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use uuid::Uuid;

use crate::limits::MAX_NAME_BYTES;

/// A point in time: milliseconds since the Unix epoch, as handed in by whoever has a clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Timestamp(pub u64);

impl Timestamp {
    /// This time plus `millis` milliseconds; stays at the end of time instead of wrapping.
    #[must_use]
    pub fn plus(self, millis: u64) -> Self {
        Self(self.0.saturating_add(millis))
    }

    /// This time less `millis` milliseconds; stays at zero instead of wrapping.
    #[must_use]
    pub fn minus(self, millis: u64) -> Self {
        Self(self.0.saturating_sub(millis))
    }

    /// Milliseconds from `earlier` to this time, zero if `earlier` is later.
    pub fn since(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

/// The id of a transaction: a UUIDv7, which carries its time of birth.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct TransactionId(Uuid);

impl TransactionId {
    /// Makes an id born at `now` from 16 random bytes, of which 74 bits are used: those of the first ten bytes that a UUIDv7 leaves free.
    pub fn new(now: Timestamp, random: [u8; 16]) -> Self {
        let mut tail = [0; 10];
        tail.copy_from_slice(&random[..10]);
        Self(uuid::Builder::from_unix_timestamp_millis(now.0, &tail).into_uuid())
    }

    /// When the transaction was born, by the clock of its coordinator. Millisecond precision.
    pub fn birth(self) -> Timestamp {
        let bytes = self.0.as_bytes();
        let mut millis = [0; 8];
        millis[2..].copy_from_slice(&bytes[..6]);
        Timestamp(u64::from_be_bytes(millis))
    }

    /// The id as 16 bytes.
    pub fn as_bytes(&self) -> &[u8; 16] {
        self.0.as_bytes()
    }
}

/// Those that differ in their last three bits are neighbours: whoever gives ids gives them in a row.
impl table::Key for TransactionId {
    fn hash_by(&self, hasher: &table::Hasher) -> u64 {
        hasher.beside(self.0.as_u128(), 0)
    }
}

impl fmt::Display for TransactionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.hyphenated().fmt(f)
    }
}

impl fmt::Debug for TransactionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A text that is not a transaction id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a transaction id: expected a UUID such as 0190b6e2-7c1f-7c3a-8f00-000000000000")]
pub struct NotATransactionId(String);

impl FromStr for TransactionId {
    type Err = NotATransactionId;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let shown = || NotATransactionId(text.chars().take(64).collect());
        if text.len() != 36 {
            return Err(shown());
        }
        Uuid::parse_str(text).map(Self).map_err(|_| shown())
    }
}

/// One step of one transaction, as its participant sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct BranchId {
    /// The transaction.
    pub transaction: TransactionId,
    /// The position of the step in the transaction, from 0.
    pub step: u8,
}

impl table::Key for BranchId {
    fn hash_by(&self, hasher: &table::Hasher) -> u64 {
        hasher.beside(self.transaction.0.as_u128(), self.step)
    }
}

impl fmt::Display for BranchId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.transaction, self.step)
    }
}

/// The fencing token of an instance: rises whenever the instance starts anew or is taken over. An append under an old epoch is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Epoch(pub u64);

/// A short name of a service, a definition, an instance or a reason: 1 to [`MAX_NAME_BYTES`] bytes of `a-z A-Z 0-9 . _ -`.
///
/// Kept in place, so that copying one costs no allocation.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Name {
    /// Never zero, so that none at all takes no more room.
    length: NonZeroU8,
    bytes: [u8; MAX_NAME_BYTES],
}

/// A text that cannot be a [`Name`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a name: expected 1 to {MAX_NAME_BYTES} of the characters a-z A-Z 0-9 . _ -")]
pub struct NotAName(String);

impl Name {
    /// Makes a name out of `text`.
    ///
    /// # Errors
    /// If it is empty, too long, or has a character that names don't have.
    pub fn new(text: &str) -> Result<Self, NotAName> {
        let fits = (1..=MAX_NAME_BYTES).contains(&text.len());
        if !fits || !text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-')) {
            return Err(NotAName(text.chars().take(64).collect()));
        }
        Ok(Self::copied(text))
    }

    /// A name known when the program is written. A text that is no name does not compile when used in a `const`.
    pub const fn literal(text: &'static str) -> Self {
        assert!(!text.is_empty() && text.len() <= MAX_NAME_BYTES, "a name has 1 to MAX_NAME_BYTES bytes");
        Self::copied(text)
    }

    const fn copied(text: &str) -> Self {
        let source = text.as_bytes();
        let mut bytes = [0; MAX_NAME_BYTES];
        let mut at = 0;
        while at < source.len() {
            bytes[at] = source[at];
            at += 1;
        }
        let length = NonZeroU8::new(source.len() as u8).expect("no name is empty, as those who call this have seen to");
        Self { length, bytes }
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.bytes[..usize::from(self.length.get())]).expect("names are made of ASCII only")
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.as_str(), f)
    }
}

impl FromStr for Name {
    type Err = NotAName;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::new(text)
    }
}

impl Serialize for Name {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

impl<'de> Deserialize<'de> for Name {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl de::Visitor<'_> for Visitor {
            type Value = Name;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a name")
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<Name, E> {
                Name::new(text).map_err(E::custom)
            }
        }
        deserializer.deserialize_str(Visitor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_carries_its_birth() {
        let id = TransactionId::new(Timestamp(1_790_000_000_123), [7; 16]);
        assert_eq!(id.birth(), Timestamp(1_790_000_000_123));
        assert_eq!(id.to_string().parse(), Ok(id));
    }

    #[test]
    fn ids_of_later_births_sort_later() {
        let early = TransactionId::new(Timestamp(1000), [255; 16]);
        let late = TransactionId::new(Timestamp(1001), [0; 16]);
        assert!(early < late);
    }

    #[test]
    fn names_are_bounded_and_plain() {
        assert_eq!(Name::new("payment").unwrap().as_str(), "payment");
        for bad in ["", "a b", "ü", "0123456789012345678901234567890123456789"] {
            assert!(Name::new(bad).is_err(), "{bad}");
        }
    }
}
