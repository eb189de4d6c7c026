//! The payload of a ledger's branch: how much of which accounts.

use serde::{Deserialize, Serialize};

use protocol::limits::{MAX_AMOUNT, MAX_ENTRIES};
use protocol::record::{self, RecordError};
use protocol::{Name, Payload, Refusal};

use crate::id::EntityId;

/// So much of one account.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// The account.
    pub account: EntityId,
    /// How much: 1 to [`MAX_AMOUNT`].
    pub amount: i64,
}

/// The reason of a refused payload that is none.
pub const MALFORMED: Name = Name::literal("malformed");

/// Writes entries as a payload.
///
/// # Errors
/// Never for entries; see [`record::payload`].
pub fn encode(entries: &[Entry]) -> Result<Payload, RecordError> {
    record::payload(&entries)
}

/// Reads a payload.
///
/// # Errors
/// A refusal, if it is no list of 1 to [`MAX_ENTRIES`] entries of different accounts with positive amounts.
pub fn decode(payload: &Payload) -> Result<Box<[Entry]>, Refusal> {
    let malformed = |why: &str| Refusal::new(MALFORMED, why);
    let entries: Vec<Entry> = record::decode(payload.as_slice()).map_err(|error| malformed(&error.to_string()))?;
    if entries.is_empty() || entries.len() > MAX_ENTRIES {
        return Err(malformed(&format!("a branch has 1 to {MAX_ENTRIES} entries, this one has {}", entries.len())));
    }
    if let Some(entry) = entries.iter().find(|entry| !(1..=MAX_AMOUNT).contains(&entry.amount)) {
        return Err(malformed(&format!("{} is no amount for account {}", entry.amount, entry.account)));
    }
    let twice = match entries.as_slice() {
        [_] => None,
        [first, second] => (first.account == second.account).then_some(first.account),
        many => {
            let mut sorted: Vec<EntityId> = many.iter().map(|entry| entry.account).collect();
            sorted.sort_unstable();
            sorted.windows(2).find(|pair| pair[0] == pair[1]).map(|pair| pair[0])
        }
    };
    match twice {
        Some(account) => Err(malformed(&format!("account {account} stands there twice"))),
        None => Ok(entries.into_boxed_slice()),
    }
}
