//! The operators' door: transactions and the audit, on a socket in the data folder that only its owner can open.

use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use orchestrator::{Clock, LogAnswer, LogQuery, SystemClock};
use protocol::limits::{MAX_PAGE, MAX_TEXT_BYTES};
use protocol::log::{LogReply, Record, Resolution, Standing};
use protocol::{Timestamp, TransactionId};
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::order_service::OrderService;
use crate::problem::Problem;
use crate::request::called;

/// The name of the socket in the data folder.
pub const SOCKET: &str = "admin.sock";

/// A transaction as operators see it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct TransactionView {
    /// Its id.
    pub id: TransactionId,
    /// Where it stands.
    pub standing: Standing,
    /// What its coordinator is doing, if this instance drives it.
    pub driven: Option<String>,
    /// Its record in the log.
    pub record: Record,
}

pub(crate) fn routes() -> Router<OrderService> {
    Router::new()
        .route("/transactions", get(list))
        .route("/transactions/{id}", get(show))
        .route("/transactions/{id}/retry", post(retry))
        .route("/transactions/{id}/resolve", post(resolve))
}

/// Which transactions to list.
#[derive(Debug, Deserialize)]
struct Listing {
    state: Option<Standing>,
    limit: Option<usize>,
}

async fn read(orders: &OrderService, query: LogQuery) -> Result<LogAnswer, Problem> {
    let found = called(|done| orders.store().read(query, done)).await?;
    found.map_err(|error| Problem::unavailable(error.to_string()))
}

fn view(orders: &OrderService, id: TransactionId, record: Record) -> TransactionView {
    let driven = orders.orchestrator().engine().state_of(id).map(str::to_owned);
    TransactionView { id, standing: record.standing(), driven, record }
}

async fn list(State(orders): State<OrderService>, Query(listing): Query<Listing>) -> Result<Response, Problem> {
    let limit = listing.limit.unwrap_or(50).min(MAX_PAGE);
    match read(&orders, LogQuery::Listing { standing: listing.state, limit }).await? {
        LogAnswer::Listing(found) => {
            let views: Vec<_> = found.into_iter().map(|(id, record)| view(&orders, id, record)).collect();
            Ok(Json(views).into_response())
        }
        _ => Err(Problem::unavailable("an answer to another question")),
    }
}

fn parse(id: &str) -> Result<TransactionId, Problem> {
    id.parse().map_err(|error: protocol::ids::NotATransactionId| Problem::bad_argument(error.to_string()))
}

fn unknown(id: &str) -> Problem {
    let detail = format!("there is no transaction `{id}`: it was never staged here, or is finished and forgotten");
    Problem::new(StatusCode::NOT_FOUND, "transaction_not_found", detail)
}

async fn show(State(orders): State<OrderService>, Path(text): Path<String>) -> Result<Response, Problem> {
    let id = parse(&text)?;
    match read(&orders, LogQuery::Transaction(id)).await? {
        LogAnswer::Transaction(Some(record)) => Ok(Json(view(&orders, id, *record)).into_response()),
        _ => Err(unknown(&text)),
    }
}

async fn retry(State(orders): State<OrderService>, Path(text): Path<String>) -> Result<Response, Problem> {
    if orders.orchestrator().engine().retry(parse(&text)?) {
        return Ok(Json(json!({ "status": "sent again" })).into_response());
    }
    match read(&orders, LogQuery::Transaction(parse(&text)?)).await? {
        LogAnswer::Transaction(Some(record)) if record.finished.is_some() => {
            let detail = format!("transaction `{text}` is finished: there is nothing to try again");
            Err(Problem::new(StatusCode::CONFLICT, "finished", detail))
        }
        LogAnswer::Transaction(Some(_)) => {
            let detail = format!("nobody drives transaction `{text}` here yet: recovery will take it up");
            Err(Problem::new(StatusCode::CONFLICT, "not_driven", detail))
        }
        _ => Err(unknown(&text)),
    }
}

/// What an operator says when settling a branch by hand.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ResolveRequest {
    /// Which step's branch.
    pub step: u8,
    /// Who.
    pub operator: String,
    /// Why this is right.
    pub reason: String,
}

async fn resolve(
    State(orders): State<OrderService>,
    Path(text): Path<String>,
    Json(request): Json<ResolveRequest>,
) -> Result<Response, Problem> {
    let id = parse(&text)?;
    for (name, said) in [("operator", &request.operator), ("reason", &request.reason)] {
        if said.trim().is_empty() || said.len() > MAX_TEXT_BYTES {
            return Err(Problem::bad_argument(format!("`{name}` must have 1 to {MAX_TEXT_BYTES} bytes")));
        }
    }
    let at: Timestamp = SystemClock::default().now();
    let ResolveRequest { step, operator, reason } = request;
    let resolution = Resolution { step, operator: operator.into(), reason: reason.into(), at };
    let answer = called(|done| orders.orchestrator().engine().resolve(id, resolution, done)).await?;
    match answer.map_err(|error| Problem::unavailable(error.to_string()))? {
        LogReply::Done => Ok(Json(json!({ "status": "resolved" })).into_response()),
        LogReply::NotStuck => {
            let detail = format!("step {step} of transaction `{text}` is no dead letter: there is nothing to resolve");
            Err(Problem::new(StatusCode::CONFLICT, "not_stuck", detail))
        }
        _ => Err(unknown(&text)),
    }
}
