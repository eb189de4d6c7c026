//! The stock service over HTTP.

use axum::extract::{Path, State};
use axum::http::HeaderMap;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use ledger::{Account, Change};
use protocol::limits::MAX_AMOUNT;
use serde_json::json;

use crate::ledger_http::{ITEMS, batch_init, change, fault_routes, find};
use crate::ledger_service::LedgerService;
use crate::problem::Problem;
use crate::request::{amount, id, new_id, number, text_or_json};

pub(crate) fn routes() -> Router<LedgerService> {
    Router::new()
        .route("/item/create/{price}", post(create))
        .route("/find/{item}", get(find_item))
        .route("/add/{item}/{amount}", post(add))
        .route("/subtract/{item}/{amount}", post(subtract))
        .route("/batch_init/{n}/{stock}/{price}", post(init))
        .nest("/fault", fault_routes())
}

async fn create(
    State(service): State<LedgerService>,
    Path(price): Path<String>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let open = Change::Open { account: new_id(), price: number("the price", &price, 0, MAX_AMOUNT)? };
    let (item, _) = change(&service, ITEMS, open, &headers, &["item/create", &price]).await?;
    Ok(Json(json!({ "item_id": item.to_string() })).into_response())
}

async fn find_item(State(service): State<LedgerService>, Path(item): Path<String>) -> Result<Response, Problem> {
    let account = find(&service, ITEMS, id("item", &item)?).await?;
    Ok(Json(json!({ "stock": account.available, "price": account.price })).into_response())
}

fn updated(headers: &HeaderMap, item: &str, account: &Account) -> Response {
    let stock = account.available;
    text_or_json(
        headers,
        format!("Item: {item} stock updated to: {stock}"),
        || json!({ "item_id": item, "stock": stock }),
    )
}

async fn add(
    State(service): State<LedgerService>,
    Path((item, units)): Path<(String, String)>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let credit = Change::Credit { amount: amount("the amount", &units)?, account: id("item", &item)? };
    let (_, account) = change(&service, ITEMS, credit, &headers, &["add", &item, &units]).await?;
    Ok(updated(&headers, &item, &account))
}

async fn subtract(
    State(service): State<LedgerService>,
    Path((item, units)): Path<(String, String)>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let debit = Change::Debit { amount: amount("the amount", &units)?, account: id("item", &item)? };
    let (_, account) = change(&service, ITEMS, debit, &headers, &["subtract", &item, &units]).await?;
    Ok(updated(&headers, &item, &account))
}

async fn init(
    State(service): State<LedgerService>,
    Path((n, stock, price)): Path<(String, String, String)>,
) -> Result<Response, Problem> {
    batch_init(&service, (&n, &stock, &price), "stock").await
}
