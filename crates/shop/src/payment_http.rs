//! The payment service over HTTP.

use axum::extract::{Path, State};
use axum::http::HeaderMap;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use ledger::{Account, Change};
use serde_json::json;

use crate::ledger_http::{USERS, batch_init, change, fault_routes, find};
use crate::problem::Problem;
use crate::request::{amount, id, new_id, text_or_json};
use crate::server::Shop;

pub(crate) fn routes() -> Router<Shop> {
    Router::new()
        .route("/create_user", post(create))
        .route("/find_user/{user}", get(find_user))
        .route("/add_funds/{user}/{amount}", post(add))
        .route("/pay/{user}/{amount}", post(pay))
        .route("/batch_init/{n}/{money}", post(init))
        .nest("/fault", fault_routes(Shop::payment))
}

async fn create(State(shop): State<Shop>, headers: HeaderMap) -> Result<Response, Problem> {
    let open = Change::Open { account: new_id(), price: 0 };
    let (user, _) = change(shop.payment(), USERS, open, &headers, &["create_user"]).await?;
    Ok(Json(json!({ "user_id": user.to_string() })).into_response())
}

async fn find_user(State(shop): State<Shop>, Path(user): Path<String>) -> Result<Response, Problem> {
    let account = find(shop.payment(), USERS, id("user", &user)?).await?;
    Ok(Json(json!({ "user_id": user, "credit": account.available })).into_response())
}

fn updated(headers: &HeaderMap, user: &str, account: &Account, done: bool) -> Response {
    let credit = account.available;
    text_or_json(headers, format!("User: {user} credit updated to: {credit}"), || {
        let mut members = json!({ "user_id": user, "credit": credit });
        if done {
            members["done"] = json!(true);
        }
        members
    })
}

async fn add(
    State(shop): State<Shop>,
    Path((user, sum)): Path<(String, String)>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let credit = Change::Credit { amount: amount("the amount", &sum)?, account: id("user", &user)? };
    let (_, account) = change(shop.payment(), USERS, credit, &headers, &["add_funds", &user, &sum]).await?;
    Ok(updated(&headers, &user, &account, true))
}

async fn pay(
    State(shop): State<Shop>,
    Path((user, sum)): Path<(String, String)>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let debit = Change::Debit { amount: amount("the amount", &sum)?, account: id("user", &user)? };
    let (_, account) = change(shop.payment(), USERS, debit, &headers, &["pay", &user, &sum]).await?;
    Ok(updated(&headers, &user, &account, false))
}

async fn init(State(shop): State<Shop>, Path((n, money)): Path<(String, String)>) -> Result<Response, Problem> {
    batch_init(&shop, shop.payment(), (&n, &money, "0"), "users").await
}
