//! Idempotency keys: a client's own name for a request, under which a repeat gets the first answer.
//!
//! Only successes are remembered: a request that was refused can be tried again at once, and may then succeed.

use std::collections::VecDeque;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use table::{Frozen, Table};

use protocol::Timestamp;
use protocol::limits::{IDEMPOTENCY_KEY_MS, KEPT_IDEMPOTENCY_KEYS, MAX_IDEMPOTENCY_KEYS};

/// A key together with a digest of the request that it names.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct IdempotencyKey {
    /// As the client sent it, bounded by [`protocol::limits::MAX_IDEMPOTENCY_KEY_BYTES`].
    pub key: Arc<str>,
    /// A digest of method, path and query: the same key with another one is a mistake of the client.
    pub fingerprint: u64,
    /// When it was sent, by the clock of whoever took it in. It says how long it is remembered, and nothing else.
    pub at: Timestamp,
}

/// What is remembered under a key.
#[derive(Debug, PartialEq, Eq)]
pub enum Recalled<'a, R> {
    /// Nothing: carry the request out.
    Fresh,
    /// The request was carried out, with this answer.
    Repeat(&'a R),
    /// The key was used for another request.
    Reused,
}

/// The keys that a service remembers: the latest [`KEPT_IDEMPOTENCY_KEYS`], and those that are younger than [`IDEMPOTENCY_KEY_MS`] up to
/// [`MAX_IDEMPOTENCY_KEYS`].
#[derive(Debug, Clone)]
pub struct Keys<R> {
    answers: Table<Arc<str>, Remembered<R>>,
    /// By age, the oldest first.
    order: VecDeque<(Timestamp, Arc<str>)>,
    /// The number of the next one.
    next: u64,
}

/// What is kept of a key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Remembered<R> {
    /// Says which of two came first.
    number: u64,
    fingerprint: u64,
    at: Timestamp,
    answer: R,
}

/// A picture of the [`Keys`] that stands still: there may be a million, so it is as cheap as one of any table, and is written row by row.
pub type FrozenKeys<R> = Frozen<Arc<str>, Remembered<R>>;

/// How many keys are forgotten at most as one is remembered: more than one, so that there are fewer again behind a rush.
const FORGOTTEN_AT_ONCE: usize = 2;

impl<R> Default for Keys<R> {
    fn default() -> Self {
        Self { answers: Table::default(), order: VecDeque::new(), next: 0 }
    }
}

impl<R: Clone> Keys<R> {
    /// What is remembered under `key`.
    pub fn recall(&self, key: &IdempotencyKey) -> Recalled<'_, R> {
        match self.answers.get(&key.key) {
            None => Recalled::Fresh,
            Some(found) if found.fingerprint == key.fingerprint => Recalled::Repeat(&found.answer),
            Some(_) => Recalled::Reused,
        }
    }

    /// Remembers a success.
    pub fn remember(&mut self, key: &IdempotencyKey, answer: R) {
        let found = Remembered { number: self.next, fingerprint: key.fingerprint, at: key.at, answer };
        if self.answers.insert(Arc::clone(&key.key), found).is_some() {
            return;
        }
        self.next += 1;
        self.order.push_back((key.at, Arc::clone(&key.key)));
        for _ in 0..FORGOTTEN_AT_ONCE {
            let many = self.order.len();
            let goes = |(at, _): &mut (Timestamp, _)| {
                many > MAX_IDEMPOTENCY_KEYS || (many > KEPT_IDEMPOTENCY_KEYS && key.at.since(*at) >= IDEMPOTENCY_KEY_MS)
            };
            let Some((_, oldest)) = self.order.pop_front_if(goes) else { return };
            self.answers.remove(&oldest);
        }
    }

    /// A picture that stands still.
    pub fn freeze(&self) -> FrozenKeys<R> {
        self.answers.freeze()
    }

    /// Rebuilds the keys from the rows of a picture, in any order.
    pub fn thaw(answers: Table<Arc<str>, Remembered<R>>) -> Self {
        let mut rows: Vec<_> = answers.iter().map(|(key, found)| (found.number, found.at, Arc::clone(key))).collect();
        rows.sort_unstable_by_key(|(number, ..)| *number);
        let next = rows.last().map_or(0, |(number, ..)| number + 1);
        Self { answers, order: rows.into_iter().map(|(_, at, key)| (at, key)).collect(), next }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(n: usize, at: u64) -> IdempotencyKey {
        IdempotencyKey { key: n.to_string().into(), fingerprint: 1, at: Timestamp(at) }
    }

    fn remembered(keys: &Keys<usize>, n: usize) -> bool {
        keys.recall(&key(n, 0)) == Recalled::Repeat(&n)
    }

    #[test]
    fn a_rush_of_keys_is_remembered_for_as_long_as_it_is_young() {
        let mut keys = Keys::default();
        let rush = KEPT_IDEMPOTENCY_KEYS + 1_000;
        (0..rush).for_each(|n| keys.remember(&key(n, 5), n));
        keys.remember(&key(rush, 4 + IDEMPOTENCY_KEY_MS), rush);
        assert!(remembered(&keys, 0), "nobody's keys push it out before its time");
        keys.remember(&key(rush + 1, 5 + IDEMPOTENCY_KEY_MS), rush + 1);
        assert!(!remembered(&keys, 0) && !remembered(&keys, 1) && remembered(&keys, 2), "two go as one comes");
        for n in rush + 2..rush + 3_000 {
            keys.remember(&key(n, 5 + IDEMPOTENCY_KEY_MS), n);
        }
        assert_eq!(keys.order.len(), KEPT_IDEMPOTENCY_KEYS, "so there are no more than usual again");
    }

    #[test]
    fn there_is_an_end_to_it() {
        let mut keys = Keys::default();
        (0..MAX_IDEMPOTENCY_KEYS + 3).for_each(|n| keys.remember(&key(n, 5), n));
        assert_eq!(keys.order.len(), MAX_IDEMPOTENCY_KEYS);
        assert!(!remembered(&keys, 2) && remembered(&keys, 3));
    }

    #[test]
    fn keys_come_back_from_a_snapshot_as_they_were() {
        let mut keys = Keys::default();
        let rush = KEPT_IDEMPOTENCY_KEYS + 3;
        // The youngest came first: its time says nothing about the others.
        (0..rush).for_each(|n| keys.remember(&key(n, if n == 0 { IDEMPOTENCY_KEY_MS } else { n as u64 }), n));
        let frozen = keys.freeze();
        let mut back = Keys::thaw(frozen.iter().map(|(key, found)| (Arc::clone(key), found.clone())).collect());
        assert_eq!((&back.order, back.next), (&keys.order, keys.next));
        back.remember(&key(rush, IDEMPOTENCY_KEY_MS), rush);
        assert!((0..=rush).all(|n| remembered(&back, n)), "and the youngest still holds back those behind it");
    }
}
