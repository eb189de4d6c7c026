//! Idempotency keys: a client's own name for a request, under which a repeat gets the first answer.
//!
//! Only successes are remembered: a request that was refused can be tried again at once, and may then succeed.

use std::collections::VecDeque;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use table::Table;

use protocol::limits::MAX_IDEMPOTENCY_KEYS;

/// A key together with a digest of the request that it names.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct IdempotencyKey {
    /// As the client sent it, bounded by [`protocol::limits::MAX_IDEMPOTENCY_KEY_BYTES`].
    pub key: Arc<str>,
    /// A digest of method, path and query: the same key with another one is a mistake of the client.
    pub fingerprint: u64,
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

/// The keys that a service remembers, the oldest dropped beyond [`MAX_IDEMPOTENCY_KEYS`].
#[derive(Debug, Clone)]
pub struct Keys<R> {
    answers: Table<Arc<str>, (u64, R)>,
    order: VecDeque<Arc<str>>,
}

impl<R> Default for Keys<R> {
    fn default() -> Self {
        Self { answers: Table::default(), order: VecDeque::new() }
    }
}

impl<R: Clone> Keys<R> {
    /// What is remembered under `key`.
    pub fn recall(&self, key: &IdempotencyKey) -> Recalled<'_, R> {
        match self.answers.get(&key.key) {
            None => Recalled::Fresh,
            Some((fingerprint, answer)) if *fingerprint == key.fingerprint => Recalled::Repeat(answer),
            Some(_) => Recalled::Reused,
        }
    }

    /// Remembers a success.
    pub fn remember(&mut self, key: &IdempotencyKey, answer: R) {
        if self.answers.insert(Arc::clone(&key.key), (key.fingerprint, answer)).is_none() {
            self.order.push_back(Arc::clone(&key.key));
            if self.order.len() > MAX_IDEMPOTENCY_KEYS
                && let Some(oldest) = self.order.pop_front()
            {
                self.answers.remove(&oldest);
            }
        }
    }

    /// Everything remembered, oldest first, for a snapshot.
    pub fn iter(&self) -> impl Iterator<Item = (IdempotencyKey, &R)> {
        self.order.iter().filter_map(|key| {
            let (fingerprint, answer) = self.answers.get(key)?;
            Some((IdempotencyKey { key: Arc::clone(key), fingerprint: *fingerprint }, answer))
        })
    }
}
