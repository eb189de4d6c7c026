//! The operators' door: transactions and the audit, on a socket in the data folder that only its owner can open.
//!
//! It does not matter which of several order instances is asked: what became of a transaction, and what an operator says of it, stands in the log.
//! Whoever drives it is told to try again, or to heed what the log says, at once; if that instance cannot be reached, it finds it in the log
//! with its next renewal, and if it is gone, whoever takes it over does.

use std::collections::BTreeMap;

use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use orchestrator::{LogAnswer, LogError, LogQuery};
use protocol::limits::{MAX_PAGE, MAX_TEXT_BYTES};
use protocol::log::{LogReply, Record, Resolution, Standing};
use protocol::{Name, TransactionId};
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::order_service::OrderService;
use crate::ports::{Operated, Operation};
use crate::problem::Problem;
use crate::request::{called, heard};

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
        .merge(crate::log_level::routes())
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

/// Transactions with what their coordinators are doing, as far as those who drive them say.
async fn views(orders: &OrderService, found: Vec<(TransactionId, Record)>) -> Vec<TransactionView> {
    let engine = orders.orchestrator().engine();
    let mut views: Vec<_> = found
        .into_iter()
        .map(|(id, record)| {
            let driven = engine.state_of(id).map(str::to_owned);
            TransactionView { id, standing: record.standing(), driven, record }
        })
        .collect();
    let mut elsewhere: BTreeMap<Name, Vec<usize>> = BTreeMap::new();
    for (at, view) in views.iter().enumerate().filter(|(_, view)| view.standing != Standing::Finished) {
        if let Some(owner) = view.record.owner.filter(|owner| view.driven.is_none() && *owner != engine.instance()) {
            elsewhere.entry(owner).or_default().push(at);
        }
    }
    for (owner, places) in elsewhere {
        let asked = Operation::States(places.iter().map(|at| views[*at].id).collect());
        if let Some(Some(Operated::States(states))) = heard(|done| orders.peers().operate(owner, asked, done)).await {
            for (at, driven) in places.into_iter().zip(states) {
                views[at].driven = driven;
            }
        }
    }
    views
}

async fn list(State(orders): State<OrderService>, Query(listing): Query<Listing>) -> Result<Response, Problem> {
    let limit = listing.limit.unwrap_or(50).min(MAX_PAGE);
    match read(&orders, LogQuery::Listing { standing: listing.state, limit }).await? {
        LogAnswer::Listing(found) => Ok(Json(views(&orders, found).await).into_response()),
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
    let LogAnswer::Transaction(Some(record)) = read(&orders, LogQuery::Transaction(id)).await? else {
        return Err(unknown(&text));
    };
    let view = views(&orders, vec![(id, *record)]).await.pop();
    view.map(|view| Json(view).into_response()).ok_or_else(|| unknown(&text))
}

async fn retry(State(orders): State<OrderService>, Path(text): Path<String>) -> Result<Response, Problem> {
    let id = parse(&text)?;
    let engine = orders.orchestrator().engine();
    if engine.retry(id) {
        return Ok(Json(json!({ "status": "sent again" })).into_response());
    }
    let LogAnswer::Transaction(Some(record)) = read(&orders, LogQuery::Transaction(id)).await? else {
        return Err(unknown(&text));
    };
    if record.finished.is_some() {
        let detail = format!("transaction `{text}` is finished: there is nothing to try again");
        return Err(Problem::new(StatusCode::CONFLICT, "finished", detail));
    }
    let elsewhere = record.owner.filter(|owner| *owner != engine.instance());
    let Some(owner) = elsewhere else {
        let detail = format!("nobody drives transaction `{text}` here yet: recovery will take it up");
        return Err(Problem::new(StatusCode::CONFLICT, "not_driven", detail));
    };
    match heard(|done| orders.peers().operate(owner, Operation::Retry(id), done)).await.flatten() {
        Some(Operated::Driven(true)) => Ok(Json(json!({ "status": "sent again", "by": owner })).into_response()),
        answer => {
            let why = if answer.is_some() { "does not drive it yet" } else { "does not answer" };
            let detail = format!(
                "transaction `{text}` is that of instance `{owner}`, which {why}: if that one is gone, another takes the \
                 transaction over within seconds, and tries it; look again"
            );
            Err(Problem::new(StatusCode::CONFLICT, "not_driven", detail))
        }
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
    let engine = orders.orchestrator().engine();
    let ResolveRequest { step, operator, reason } = request;
    let resolution = Resolution { step, operator: operator.into(), reason: reason.into(), at: engine.now() };
    let answer = heard(|done| engine.resolve(id, resolution, done)).await;
    let answer =
        answer.ok_or_else(|| Problem::in_doubt("the service is shutting down: look at the transaction again"))?;
    let lost = |error: LogError| Problem::in_doubt(format!("{error}: look at the transaction again"));
    match answer.map_err(lost)? {
        LogReply::Done => {
            tell_owner(&orders, id, step).await;
            Ok(Json(json!({ "status": "resolved" })).into_response())
        }
        LogReply::NotStuck => {
            let detail = format!(
                "step {step} of transaction `{text}` is no dead letter of a decided transaction: there is nothing to resolve"
            );
            Err(Problem::new(StatusCode::CONFLICT, "not_stuck", detail))
        }
        _ => Err(unknown(&text)),
    }
}

/// Tells whoever drives a transaction what now stands in the log. Nothing depends on it: that one reads the log, too, a little later.
async fn tell_owner(orders: &OrderService, id: TransactionId, step: u8) {
    let engine = orders.orchestrator().engine();
    if let Ok(LogAnswer::Transaction(Some(record))) = read(orders, LogQuery::Transaction(id)).await
        && let Some(owner) = record.owner.filter(|owner| *owner != engine.instance())
    {
        _ = heard(|done| orders.peers().operate(owner, Operation::Resolved { id, step }, done)).await;
    }
}
