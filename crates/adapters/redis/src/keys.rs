//! Idempotency keys, for the scripts of any store that remembers them.

use ledger::IdempotencyKey;
use protocol::limits::{IDEMPOTENCY_KEY_MS, KEPT_IDEMPOTENCY_KEYS, MAX_AMOUNT, MAX_IDEMPOTENCY_KEYS};

use crate::script::Words;

/// Lua that defines `remember_key`, and needs `call` and `base`.
pub const KEYS_LUA: &str = include_str!("scripts/keys.lua");

/// The key as a script takes it: what it is and is for, when it came, and how long keys are remembered.
pub fn key_words(call: &mut Words, key: &IdempotencyKey) {
    // What Lua holds exactly; no clock goes so far.
    let at = key.at.0.min(MAX_AMOUNT as u64);
    call.word(&*key.key).word(&format!("{:x}", key.fingerprint)).word(&at.to_string());
    for bound in [KEPT_IDEMPOTENCY_KEYS as u64, MAX_IDEMPOTENCY_KEYS as u64, IDEMPOTENCY_KEY_MS] {
        call.word(&bound.to_string());
    }
}
