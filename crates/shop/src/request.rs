//! What every handler needs: arguments out of paths, idempotency keys, answers as text or JSON, and waiting for a callback.

use std::str::FromStr;

use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use ledger::{EntityId, IdempotencyKey};
use orchestrator::{Clock as _, Done, StoreFailure, SystemClock};
use protocol::limits::{MAX_AMOUNT, MAX_IDEMPOTENCY_KEY_BYTES};
use serde_json::Value;
use tokio::sync::oneshot;
use uuid::Uuid;

use crate::problem::Problem;

/// Reads a number of a path: from `least` to `most`.
pub(crate) fn number(name: &str, text: &str, least: i64, most: i64) -> Result<i64, Problem> {
    let said: String = text.chars().take(40).collect();
    let bad = |why: String| Problem::bad_argument(format!("{name} `{said}` {why}"));
    if text.is_empty() || text.len() > 40 || text.starts_with('+') {
        return Err(bad("is not a whole number".to_owned()));
    }
    let value = i128::from_str(text).map_err(|_| bad("is not a whole number".to_owned()))?;
    i64::try_from(value)
        .ok()
        .filter(|value| (least..=most).contains(value))
        .ok_or_else(|| bad(format!("must be {least} to {most}")))
}

/// Reads an amount: 1 to [`MAX_AMOUNT`].
pub(crate) fn amount(name: &str, text: &str) -> Result<i64, Problem> {
    number(name, text, 1, MAX_AMOUNT)
}

/// Reads an id; a text that is the id of nothing is an unknown id.
pub(crate) fn id(kind: &'static str, text: &str) -> Result<EntityId, Problem> {
    text.parse().map_err(|_| unknown(kind, &text.chars().take(64).collect::<String>()))
}

/// 404: there is no order, item or user of this id.
pub(crate) fn unknown(kind: &'static str, id: &str) -> Problem {
    let code = match kind {
        "order" => "order_not_found",
        "item" => "item_not_found",
        _ => "user_not_found",
    };
    Problem::new(StatusCode::NOT_FOUND, code, format!("there is no {kind} `{id}`")).with(&format!("{kind}_id"), id)
}

/// A fresh id, which sorts by its time of birth.
pub(crate) fn new_id() -> EntityId {
    EntityId::uuid(Uuid::now_v7())
}

/// The client's idempotency key, if it sent one, with a digest of what it is for.
pub(crate) fn idempotency_key(headers: &HeaderMap, what: &[&str]) -> Result<Option<IdempotencyKey>, Problem> {
    let mut values = headers.get_all("idempotency-key").iter();
    let Some(value) = values.next() else { return Ok(None) };
    // Which of them counts, the next one on the way may see otherwise.
    if values.any(|other| other != value) {
        return Err(Problem::bad_argument("there are several Idempotency-Keys, and they differ"));
    }
    let key = value.to_str().map_err(|_| Problem::bad_argument("the Idempotency-Key is not plain text"))?;
    if key.is_empty() || key.len() > MAX_IDEMPOTENCY_KEY_BYTES {
        let detail = format!("an Idempotency-Key has 1 to {MAX_IDEMPOTENCY_KEY_BYTES} bytes");
        return Err(Problem::bad_argument(detail));
    }
    // FNV-1a: stable across versions and machines. A mistake of a client is to be noticed, not an attack withstood.
    let mut fingerprint: u64 = 0xcbf2_9ce4_8422_2325;
    for byte in what.iter().flat_map(|part| part.bytes().chain([b'/'])) {
        fingerprint = (fingerprint ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    }
    Ok(Some(IdempotencyKey { key: key.into(), fingerprint, at: SystemClock::default().now() }))
}

/// 422: the key was used for another request.
pub(crate) fn key_reused() -> Problem {
    let detail = "this Idempotency-Key was used for another request: use a new one";
    Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "idempotency_key_reused", detail)
}

/// 409: a balance would become too large.
pub(crate) fn overflow(what: &str) -> Problem {
    Problem::bad_argument(format!("{what} would exceed {MAX_AMOUNT}"))
}

/// 200: the text, or for a client that accepts JSON the members.
pub(crate) fn text_or_json(headers: &HeaderMap, text: String, members: impl FnOnce() -> Value) -> Response {
    let wants_json = headers
        .get(header::ACCEPT)
        .and_then(|accept| accept.to_str().ok())
        .is_some_and(|accept| accept.contains("application/json"));
    if wants_json { axum::Json(members()).into_response() } else { text.into_response() }
}

/// Waits for the callback of a question. Gives [`Problem::unavailable`] if the one who was to call it is gone.
pub(crate) async fn called<T: Send + 'static>(start: impl FnOnce(Done<T>)) -> Result<T, Problem> {
    heard(start).await.ok_or_else(|| Problem::unavailable("the service is shutting down"))
}

/// Waits for a database's callback. If the one who was to call it is gone, nobody knows what was done.
pub(crate) async fn stored<T: Send + 'static>(
    start: impl FnOnce(Done<Result<T, StoreFailure>>),
) -> Result<T, StoreFailure> {
    heard(start).await.unwrap_or_else(|| Err(StoreFailure::Unknown("the service is shutting down".to_owned())))
}

/// Waits for a callback; `None` if the one who was to call it is gone.
pub(crate) async fn heard<T: Send + 'static>(start: impl FnOnce(Done<T>)) -> Option<T> {
    let (send, receive) = oneshot::channel();
    start(Box::new(move |value| _ = send.send(value)));
    receive.await.ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger_http::{read_failed, write_failed};

    #[tokio::test]
    async fn a_change_whose_callback_is_dropped_is_in_doubt_and_a_question_is_not() {
        let asked = called(drop::<Done<()>>).await.unwrap_err();
        assert_eq!(asked.status(), StatusCode::FAILED_DEPENDENCY);
        let lost = stored(drop::<Done<Result<(), StoreFailure>>>).await.unwrap_err();
        assert_eq!(write_failed(&lost).status(), StatusCode::GATEWAY_TIMEOUT);
        assert_eq!(read_failed(&lost).status(), StatusCode::FAILED_DEPENDENCY);
    }
}
