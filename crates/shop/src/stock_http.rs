//! The stock service over HTTP.

use axum::Json;
use axum::extract::{Path, State};
use axum::http::HeaderMap;
use axum::response::{IntoResponse, Response};
use ledger::{Account, Change};
use protocol::limits::MAX_AMOUNT;
use serde_json::json;

use crate::ledger_http::{ITEMS, batch_init, change, changes, fault_routes, find};
use crate::ledger_service::LedgerService;
use crate::openapi::{Api, Description, schema};
use crate::problem::Problem;
use crate::request::{amount, id, new_id, number, text_or_json};

pub(crate) fn routes() -> Api<LedgerService> {
    let creates =
        Description::new("createItem", "Makes an item with nothing in stock").json(schema("ItemId")).keyed().writes();
    let finds = Description::new("findItem", "Shows what is available of an item, and its price")
        .json(schema("Item"))
        .fails(404, &["item_not_found"])
        .reads();
    let changes = |id, summary| changes(id, summary, "ItemStock", ITEMS);
    let takes = changes("subtractStock", "Takes units out of stock").fails(409, &["insufficient_stock"]);
    let seeds = Description::new("seedItems", "Replaces the items 0 to n - 1").json(schema("Message")).seeds().writes();
    Api::default()
        .post("/item/create/{price}", create, creates)
        .get("/find/{item}", find_item, finds)
        .post("/add/{item}/{amount}", add, changes("addStock", "Adds units to the stock"))
        .post("/subtract/{item}/{amount}", subtract, takes)
        .post("/batch_init/{n}/{stock}/{price}", init, seeds)
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
