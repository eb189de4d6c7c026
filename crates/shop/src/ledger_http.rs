//! What stock and payment have in common over HTTP: changes of accounts, `batch_init`, faults.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use axum::Json;
use axum::extract::{Query, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use ledger::{Account, Change, Denial, EntityId, LedgerCommand, LedgerReply};
use orchestrator::{LedgerAnswer, LedgerQuery, StoreFailure};
use protocol::limits::{MAX_AMOUNT, MAX_BATCH};
use serde_json::json;

use crate::faults::{ALWAYS, Fault, FaultChange, Faults, MAX_DELAY_MS, Point};
use crate::ledger_service::LedgerService;
use crate::openapi::{Api, Description, schema};
use crate::problem::Problem;
use crate::request::{called, idempotency_key, key_reused, number, overflow, stored, unknown};

/// How long `batch_init` waits for open branches.
pub(crate) const BATCH_PATIENCE: Duration = Duration::from_secs(5);

/// How a ledger's words are said in its service.
#[derive(Clone, Copy)]
pub(crate) struct Words {
    pub(crate) kind: &'static str,
    pub(crate) unknown: &'static str,
    pub(crate) insufficient: &'static str,
}

pub(crate) const ITEMS: Words = Words { kind: "item", unknown: "item_not_found", insufficient: "insufficient_stock" };
pub(crate) const USERS: Words = Words { kind: "user", unknown: "user_not_found", insufficient: "insufficient_credit" };

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
    let reply = stored(|done| service.store().submit(command, done)).await;
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
    let found = called(|done| service.store().read(LedgerQuery::Account(id), done)).await?;
    match found.map_err(|error| read_failed(&error))? {
        LedgerAnswer::Account(account) => account.ok_or_else(|| unknown(words.kind, &id.to_string())),
        other => Err(Problem::unavailable(format!("an unexpected answer: {other:?}"))),
    }
}

/// A write that failed: it may be that nobody knows whether it was done.
pub(crate) fn write_failed(failure: &StoreFailure) -> Problem {
    match failure {
        StoreFailure::Unknown(_) => Problem::in_doubt(failure.to_string()),
        StoreFailure::NotDone(why) => Problem::unavailable(why),
    }
}

/// A read that failed: nothing was changed, whatever is not known.
pub(crate) fn read_failed(failure: &StoreFailure) -> Problem {
    let (StoreFailure::Unknown(why) | StoreFailure::NotDone(why)) = failure;
    Problem::unavailable(why)
}

/// Replaces the first accounts, once no branch is open.
pub(crate) async fn batch_init(
    service: &LedgerService,
    (count, available, price): (&str, &str, &str),
    what: &'static str,
) -> Result<Response, Problem> {
    service.check_development("batch_init")?;
    let count = number("the count", count, 1, MAX_BATCH as i64)?.unsigned_abs();
    let available = number("the amount", available, 0, MAX_AMOUNT)?;
    let price = number("the price", price, 0, MAX_AMOUNT)?;
    let until = Instant::now() + BATCH_PATIENCE;
    loop {
        service.terminate_executed();
        let command = LedgerCommand::Replace { count, available, price };
        let reply = stored(|done| service.store().submit(command, done)).await;
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

/// The routes under `/fault`.
pub(crate) fn fault_routes() -> Api<LedgerService> {
    let fault = |id, summary, answer| {
        Description::new(id, summary).json(schema(answer)).fails(403, &["fault_injection_disabled"])
    };
    let points: Vec<String> = Point::all().map(|point| point.to_string()).collect();
    let point = json!({ "enum": points });
    let sets =
        fault("setFault", "Has something go wrong at a point, in every instance; by the query, or by a body", "Status")
            .query("point", "Where", point.clone())
            .query("action", "What", json!({ "enum": ["crash", "delay", "error", "error_after"] }))
            .query(
                "delay_ms",
                "How long a delay is",
                json!({ "type": "integer", "minimum": 1, "maximum": MAX_DELAY_MS }),
            )
            .query(
                "times",
                "How often; without it until cleared",
                json!({ "type": "integer", "minimum": 1, "maximum": MAX_AMOUNT }),
            )
            .query(
                "percent",
                "In how many of a hundred cases, by chance; without it always",
                json!({ "type": "integer", "minimum": 1, "maximum": ALWAYS }),
            )
            .body(schema("Fault"), false)
            .reads();
    let clears = fault("clearFaults", "Clears one point, or all", "Status").query("point", "Which", point).reads();
    Api::default().post("/set", set_fault, sets).post("/clear", clear_faults, clears).get(
        "/rules",
        rules,
        fault("faultRules", "What is to go wrong", "FaultRules"),
    )
}

/// The ways to change an account: what is found, and what is refused.
pub(crate) fn changes(id: &'static str, summary: &'static str, answer: &str, words: Words) -> Description {
    Description::new(id, summary).text_or_json(schema(answer)).fails(404, &[words.unknown]).keyed().writes()
}

async fn rules(State(service): State<LedgerService>) -> Result<Response, Problem> {
    Ok(Json(json!({ "status": "ok", "rules": enabled(&service)?.rules() })).into_response())
}

async fn clear_faults(
    State(service): State<LedgerService>,
    Query(query): Query<HashMap<String, String>>,
) -> Result<Response, Problem> {
    enabled(&service)?;
    let point = query.get("point").map(|point| point.parse::<Point>()).transpose();
    change_faults(&service, FaultChange::Clear { point: point.map_err(Problem::bad_argument)? }).await
}

/// Changes what is to go wrong here, and in every other instance of the service: the next command may go to any of them.
async fn change_faults(service: &LedgerService, change: FaultChange) -> Result<Response, Problem> {
    service.faults().change(&change);
    let told = called(|done| service.others().spread(&change, done)).await?;
    told.map_err(|why| Problem::unavailable(format!("the other instances could not be told: {why}")))?;
    Ok(Json(json!({ "status": "ok" })).into_response())
}

fn enabled(service: &LedgerService) -> Result<&Faults, Problem> {
    if service.faults().enabled() {
        return Ok(service.faults());
    }
    let detail = if service.is_production() {
        "faults cannot be injected in production"
    } else {
        "fault injection is off: start with --chaos"
    };
    Err(Problem::new(StatusCode::FORBIDDEN, "fault_injection_disabled", detail))
}

/// What [`set_fault`] can be told.
const FAULT_ARGUMENTS: [&str; 5] = ["point", "action", "delay_ms", "times", "percent"];

/// Takes `point`, `action` (crash, delay, error, error_after), `delay_ms`, `times` and `percent` from the query or a JSON body.
async fn set_fault(
    State(service): State<LedgerService>,
    Query(mut arguments): Query<HashMap<String, String>>,
    body: String,
) -> Result<Response, Problem> {
    enabled(&service)?;
    if !body.trim().is_empty() {
        let bad = |error: serde_json::Error| Problem::bad_argument(format!("the body is not a JSON object: {error}"));
        let members: serde_json::Map<String, serde_json::Value> = serde_json::from_str(&body).map_err(bad)?;
        for (name, value) in members {
            let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
            arguments.insert(name, text);
        }
    }
    // A fault that is set for ever because of a slip of the pen is hard to understand.
    if let Some(strange) = arguments.keys().find(|name| !FAULT_ARGUMENTS.contains(&name.as_str())) {
        let known = FAULT_ARGUMENTS.join(", ");
        return Err(Problem::bad_argument(format!(
            "there is no argument `{}`: there are {known}",
            strange.escape_debug()
        )));
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
    let percent = arguments.get("percent").map(|percent| number("percent", percent, 1, ALWAYS.into())).transpose()?;
    let percent = percent.and_then(|percent| u8::try_from(percent).ok()).unwrap_or(ALWAYS);
    let times = times.map(i64::unsigned_abs);
    change_faults(&service, FaultChange::Set { point, fault, times, percent }).await
}
