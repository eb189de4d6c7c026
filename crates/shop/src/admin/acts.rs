//! What operators do, each deed written into the [trail](crate::trail) before it is done, and what came of it behind it.

use axum::Json;
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use orchestrator::{LogError, Retried};
use protocol::limits::{MAX_PAGE, MAX_TEXT_BYTES};
use protocol::log::{LogReply, Resolution};
use protocol::message::bounded;
use protocol::{Name, TransactionId};
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::{parse, record_of, unknown};
use crate::ledger_http::read_failed;
use crate::order_service::OrderService;
use crate::order_store::{OrdersAnswer, OrdersQuery};
use crate::orders::{OrdersCommand, OrdersReply};
use crate::ports::{Operated, Operation};
use crate::problem::Problem;
use crate::request::{heard, stored};
use crate::trail::{Act, Entry, Note};

/// Who an operator is who does not say.
const NOBODY: &str = "not said";
/// Entries of the trail that are shown if nobody says how many.
const USUAL: usize = 100;

/// What an operator may say when having a transaction tried again.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RetryRequest {
    /// Who.
    pub operator: Option<String>,
    /// Why.
    pub reason: Option<String>,
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

/// Refuses what is empty or too long.
fn check(name: &str, said: &str) -> Result<(), Problem> {
    if said.trim().is_empty() || said.len() > MAX_TEXT_BYTES {
        return Err(Problem::bad_argument(format!("`{name}` must have 1 to {MAX_TEXT_BYTES} bytes")));
    }
    Ok(())
}

/// What came of a deed: a word for the trail, and the answer to whoever asked for it.
type Deed = (String, Result<Response, Problem>);

/// Does something, between an entry in the trail and its outcome. If the entry cannot be written, it is not done.
async fn in_the_trail(
    orders: &OrderService,
    note: Note,
    deed: impl AsyncFnOnce(&OrderService) -> Deed,
) -> Result<Response, Problem> {
    let (id, act) = (note.transaction, note.act);
    let written = stored(|done| orders.store().submit(OrdersCommand::Note(note), done)).await;
    let number = match written {
        Ok(OrdersReply::Noted(number)) => number,
        // Whether the entry is there or not, what it would be about is not.
        unwritten => {
            let why = unwritten
                .map_or_else(|failure| failure.to_string(), |other| format!("an unexpected answer: {other:?}"));
            let detail = format!("nothing was done, since it could not be written into the operators' trail: {why}");
            return Err(Problem::unavailable(detail));
        }
    };
    let (outcome, answer) = deed(orders).await;
    let command = OrdersCommand::NoteOutcome { number, outcome: bounded(&outcome).into() };
    if let Err(error) = stored(|done| orders.store().submit(command, done)).await {
        // The entry stands, and says that its outcome must be looked up.
        tracing::warn!(transaction = %id, %act, outcome, ?error, "an outcome was not written into the operators' trail");
    }
    answer
}

pub(super) async fn retry(
    State(orders): State<OrderService>,
    Path(text): Path<String>,
    request: Option<Json<RetryRequest>>,
) -> Result<Response, Problem> {
    let id = parse(&text)?;
    let RetryRequest { operator, reason } = request.map(|Json(request)| request).unwrap_or_default();
    for (name, said) in [("operator", &operator), ("reason", &reason)] {
        said.iter().try_for_each(|said| check(name, said))?;
    }
    let engine = orders.orchestrator().engine();
    if engine.state_of(id).is_none() && record_of(&orders, id).await?.is_none() {
        return Err(unknown(&text));
    }
    let operator = operator.as_deref().unwrap_or(NOBODY).into();
    let reason = reason.map(Into::into);
    let note = Note { at: engine.now(), operator, act: Act::Retry, transaction: id, step: None, reason };
    in_the_trail(&orders, note, async |orders| {
        let done = retry_now(orders, id, &text).await;
        (outcome_of(&done, "sent again"), done)
    })
    .await
}

/// The word for the trail.
fn outcome_of(answer: &Result<Response, Problem>, done: &str) -> String {
    match answer {
        Ok(_) => done.to_owned(),
        Err(problem) => problem.summary(),
    }
}

async fn retry_now(orders: &OrderService, id: TransactionId, text: &str) -> Result<Response, Problem> {
    let engine = orders.orchestrator().engine();
    match engine.retry(id) {
        Retried::SentAgain => return Ok(Json(json!({ "status": "sent again" })).into_response()),
        Retried::Finished => return Err(finished(text)),
        Retried::NotDriven => {}
    }
    let record = record_of(orders, id).await?.ok_or_else(|| unknown(text))?;
    if record.finished.is_some() {
        return Err(finished(text));
    }
    let elsewhere = record.owner.filter(|owner| *owner != engine.instance());
    let Some(owner) = elsewhere else {
        let detail = format!("nobody drives transaction `{text}` here yet: recovery will take it up");
        return Err(Problem::new(StatusCode::CONFLICT, "not_driven", detail));
    };
    retry_at(orders, owner, id, text).await
}

fn finished(text: &str) -> Problem {
    let detail = format!("transaction `{text}` is finished: there is nothing to try again");
    Problem::new(StatusCode::CONFLICT, "finished", detail)
}

async fn retry_at(orders: &OrderService, owner: Name, id: TransactionId, text: &str) -> Result<Response, Problem> {
    match heard(|done| orders.peers().operate(owner, Operation::Retry(id), done)).await.flatten() {
        Some(Operated::Driven(true)) => Ok(Json(json!({ "status": "sent again", "by": owner })).into_response()),
        Some(Operated::Finished) => Err(finished(text)),
        answer => {
            // It may have been finished, and the log told, while its owner was asked.
            if record_of(orders, id).await?.is_some_and(|record| record.finished.is_some()) {
                return Err(finished(text));
            }
            let why = if answer.is_some() { "does not drive it" } else { "does not answer" };
            let detail = format!(
                "transaction `{text}` is that of instance `{owner}`, which {why}: if that one is gone, another takes the \
                 transaction over within seconds, and tries it; look again"
            );
            Err(Problem::new(StatusCode::CONFLICT, "not_driven", detail))
        }
    }
}

pub(super) async fn resolve(
    State(orders): State<OrderService>,
    Path(text): Path<String>,
    Json(request): Json<ResolveRequest>,
) -> Result<Response, Problem> {
    let id = parse(&text)?;
    check("operator", &request.operator)?;
    check("reason", &request.reason)?;
    if record_of(&orders, id).await?.is_none() {
        return Err(unknown(&text));
    }
    let ResolveRequest { step, operator, reason } = request;
    let (operator, reason): (Box<str>, Box<str>) = (operator.into(), reason.into());
    let at = orders.orchestrator().engine().now();
    let (who, why) = (operator.clone(), Some(reason.clone()));
    let note = Note { at, operator: who, act: Act::Resolve, transaction: id, step: Some(step), reason: why };
    let resolution = Resolution { step, operator, reason, at };
    in_the_trail(&orders, note, async |orders| {
        let done = resolve_now(orders, id, resolution, &text).await;
        (outcome_of(&done, "resolved"), done)
    })
    .await
}

async fn resolve_now(
    orders: &OrderService,
    id: TransactionId,
    resolution: Resolution,
    text: &str,
) -> Result<Response, Problem> {
    let step = resolution.step;
    let engine = orders.orchestrator().engine();
    let answer = heard(|done| engine.resolve(id, resolution, done)).await;
    let answer =
        answer.ok_or_else(|| Problem::in_doubt("the service is shutting down: look at the transaction again"))?;
    let lost = |error: LogError| Problem::in_doubt(format!("{error}: look at the transaction again"));
    match answer.map_err(lost)? {
        LogReply::Done => {
            tell_owner(orders, id, step).await;
            Ok(Json(json!({ "status": "resolved" })).into_response())
        }
        LogReply::NotStuck => {
            let detail = format!(
                "step {step} of transaction `{text}` is no dead letter of a decided transaction: there is nothing to resolve"
            );
            Err(Problem::new(StatusCode::CONFLICT, "not_stuck", detail))
        }
        _ => Err(unknown(text)),
    }
}

/// Tells whoever drives a transaction what now stands in the log. Nothing depends on it: that one reads the log, too, a little later.
async fn tell_owner(orders: &OrderService, id: TransactionId, step: u8) {
    let engine = orders.orchestrator().engine();
    if let Ok(Some(record)) = record_of(orders, id).await
        && let Some(owner) = record.owner.filter(|owner| *owner != engine.instance())
    {
        _ = heard(|done| orders.peers().operate(owner, Operation::Resolved { id, step }, done)).await;
    }
}

/// How much of the trail to show.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Showing {
    limit: Option<usize>,
}

pub(super) async fn trail(
    State(orders): State<OrderService>,
    Query(showing): Query<Showing>,
) -> Result<Json<Vec<Entry>>, Problem> {
    latest(&orders, showing.limit.unwrap_or(USUAL).min(MAX_PAGE)).await.map(Json)
}

/// The latest entries of the trail, the latest first.
pub(super) async fn latest(orders: &OrderService, limit: usize) -> Result<Vec<Entry>, Problem> {
    let answer = stored(|done| orders.store().query(OrdersQuery::Trail(limit), done)).await;
    match answer.map_err(|failure| read_failed(&failure))? {
        OrdersAnswer::Trail(entries) => Ok(entries),
        _ => Err(Problem::unavailable("an answer to another question")),
    }
}
