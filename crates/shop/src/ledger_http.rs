//! What stock and payment have in common over HTTP: changes of accounts, `batch_init`, faults.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use axum::extract::{Query, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use embedded::StoreError;
use ledger::{Account, Change, Denial, EntityId, LedgerCommand, LedgerReply};
use protocol::limits::{MAX_AMOUNT, MAX_BATCH};
use serde_json::json;

use crate::faults::{Fault, MAX_DELAY_MS, Point, Rule};
use crate::participant::LedgerService;
use crate::problem::Problem;
use crate::request::{called, idempotency_key, key_reused, number, overflow, unknown};
use crate::server::Shop;

/// How long `batch_init` waits for open branches.
pub(crate) const BATCH_PATIENCE: Duration = Duration::from_secs(5);

/// How a ledger's words are said in its service.
#[derive(Clone, Copy)]
pub(crate) struct Words {
    pub(crate) kind: &'static str,
    pub(crate) insufficient: &'static str,
}

pub(crate) const ITEMS: Words = Words { kind: "item", insufficient: "insufficient_stock" };
pub(crate) const USERS: Words = Words { kind: "user", insufficient: "insufficient_credit" };

/// Submits a change and waits until it is durable.
pub(crate) async fn change(
    service: &LedgerService,
    words: Words,
    change: Change,
    headers: &HeaderMap,
    what: &[&str],
) -> Result<(EntityId, Account), Problem> {
    let key = idempotency_key(headers, what)?;
    let command = LedgerCommand::Change { change, key };
    let reply = called(|done| service.store.submit(command, done)).await?;
    let account = match change {
        Change::Open { account, .. } | Change::Credit { account, .. } | Change::Debit { account, .. } => account,
    };
    match reply.map_err(|error| write_failed(&error))? {
        LedgerReply::Account(id, account) => Ok((id, account)),
        LedgerReply::KeyReused => Err(key_reused()),
        LedgerReply::Denied(Denial::UnknownAccount) => Err(unknown(words.kind, &account.to_string())),
        LedgerReply::Denied(Denial::Overflow) => Err(overflow("the balance")),
        LedgerReply::Denied(Denial::Insufficient) => {
            let detail = format!("{} `{account}` has less than that", words.kind);
            Err(Problem::new(StatusCode::CONFLICT, words.insufficient, detail)
                .with(&format!("{}_id", words.kind), account))
        }
        other => Err(Problem::unavailable(format!("an unexpected answer: {other:?}"))),
    }
}

/// Reads an account, as it is durable.
pub(crate) async fn find(service: &LedgerService, words: Words, id: EntityId) -> Result<Account, Problem> {
    let found = called(|done| service.store.read_durable(move |ledger| ledger.account(id).copied(), done)).await?;
    found.map_err(|error| store_failed(&error))?.ok_or_else(|| unknown(words.kind, &id.to_string()))
}

/// A write that failed: once a store has stopped, nobody knows what of its last batch will be found at the next start.
pub(crate) fn write_failed(error: &StoreError) -> Problem {
    match error {
        StoreError::Stopped { .. } => Problem::in_doubt(format!("it is not known whether this was done: {error}")),
        certain => store_failed(certain),
    }
}

/// A read that failed, or a write that was refused: nothing was changed.
pub(crate) fn store_failed(error: &StoreError) -> Problem {
    Problem::unavailable(error.to_string())
}

/// Replaces the first accounts, once no branch is open.
pub(crate) async fn batch_init(
    shop: &Shop,
    service: &LedgerService,
    (count, available, price): (&str, &str, &str),
    what: &'static str,
) -> Result<Response, Problem> {
    shop.check_development("batch_init")?;
    let count = number("the count", count, 1, MAX_BATCH as i64)?.unsigned_abs();
    let available = number("the amount", available, 0, MAX_AMOUNT)?;
    let price = number("the price", price, 0, MAX_AMOUNT)?;
    let until = Instant::now() + BATCH_PATIENCE;
    loop {
        service.terminate_executed(shop.orchestrator().engine());
        let command = LedgerCommand::Replace { count, available, price };
        let reply = called(|done| service.store.submit(command, done)).await?;
        match reply.map_err(|error| write_failed(&error))? {
            LedgerReply::Done => {
                let msg = format!("Batch init for {what} successful");
                return Ok(Json(json!({ "msg": msg })).into_response());
            }
            LedgerReply::Busy(_) if Instant::now() < until => tokio::time::sleep(Duration::from_millis(20)).await,
            LedgerReply::Busy(open) => {
                let detail =
                    format!("{open} branches are still open: try again when the checkouts in flight are settled");
                return Err(Problem::new(StatusCode::CONFLICT, "busy", detail));
            }
            other => return Err(Problem::unavailable(format!("an unexpected answer: {other:?}"))),
        }
    }
}

/// The routes under `/fault` of one service.
pub(crate) fn fault_routes(service: fn(&Shop) -> &LedgerService) -> Router<Shop> {
    let set = move |State(shop): State<Shop>, Query(query): Query<HashMap<String, String>>, body: String| async move {
        set_fault(&shop, service(&shop), query, &body)
    };
    let clear = move |State(shop): State<Shop>, Query(query): Query<HashMap<String, String>>| async move {
        let faults = &enabled(&shop, service(&shop))?.faults;
        let point = query.get("point").map(|point| point.parse::<Point>()).transpose();
        faults.clear(point.map_err(Problem::bad_argument)?);
        Ok::<_, Problem>(Json(json!({ "status": "ok" })))
    };
    let rules = move |State(shop): State<Shop>| async move {
        let faults = &enabled(&shop, service(&shop))?.faults;
        Ok::<_, Problem>(Json(json!({ "status": "ok", "rules": faults.rules() })))
    };
    Router::new().route("/set", post(set)).route("/clear", post(clear)).route("/rules", get(rules))
}

fn enabled<'a>(shop: &Shop, service: &'a LedgerService) -> Result<&'a LedgerService, Problem> {
    if service.faults.enabled() {
        return Ok(service);
    }
    let detail = if shop.is_production() {
        "faults cannot be injected in production"
    } else {
        "fault injection is off: start with --chaos"
    };
    Err(Problem::new(StatusCode::FORBIDDEN, "fault_injection_disabled", detail))
}

/// Takes `point`, `action` (crash, delay, error, error_after), `delay_ms` and `times` from the query or a JSON body.
fn set_fault(
    shop: &Shop,
    service: &LedgerService,
    mut arguments: HashMap<String, String>,
    body: &str,
) -> Result<Response, Problem> {
    let faults = &enabled(shop, service)?.faults;
    if !body.trim().is_empty() {
        let bad = |error: serde_json::Error| Problem::bad_argument(format!("the body is not a JSON object: {error}"));
        let members: serde_json::Map<String, serde_json::Value> = serde_json::from_str(body).map_err(bad)?;
        for (name, value) in members {
            let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
            arguments.insert(name, text);
        }
    }
    let point = arguments.get("point").ok_or_else(|| Problem::bad_argument("`point` is missing"))?;
    let point: Point = point.parse().map_err(Problem::bad_argument)?;
    let fault = match arguments.get("action").map(String::as_str) {
        Some("crash") => Fault::Crash,
        Some("error") => Fault::Error,
        Some("error_after") => Fault::ErrorAfterwards,
        Some("delay") => {
            let ms = arguments.get("delay_ms").ok_or_else(|| Problem::bad_argument("`delay_ms` is missing"))?;
            Fault::Delay { ms: number("delay_ms", ms, 1, MAX_DELAY_MS as i64)?.unsigned_abs() }
        }
        _ => return Err(Problem::bad_argument("`action` must be crash, delay, error or error_after")),
    };
    let times = arguments.get("times").map(|times| number("times", times, 1, MAX_AMOUNT)).transpose()?;
    faults.set(point, Rule { fault, times: times.map(i64::unsigned_abs) });
    Ok(Json(json!({ "status": "ok" })).into_response())
}
