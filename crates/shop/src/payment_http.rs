//! The payment service over HTTP.

use axum::Json;
use axum::extract::{Path, State};
use axum::http::HeaderMap;
use axum::response::{IntoResponse, Response};
use ledger::{Account, Change};
use serde_json::json;

use crate::ledger_http::{USERS, batch_init, change, changes, fault_routes, find};
use crate::ledger_service::LedgerService;
use crate::openapi::{Api, Description, schema};
use crate::problem::Problem;
use crate::request::{amount, id, new_id, text_or_json};

pub(crate) fn routes() -> Api<LedgerService> {
    let creates = Description::new("createUser", "Makes a user without credit").json(schema("UserId")).keyed().writes();
    let finds = Description::new("findUser", "Shows the credit that a user has available")
        .json(schema("User"))
        .fails(404, &["user_not_found"])
        .reads();
    let changes = |id, summary| changes(id, summary, "User", USERS);
    let pays = changes("pay", "Takes credit from a user").fails(409, &["insufficient_credit"]);
    let seeds = Description::new("seedUsers", "Replaces the users 0 to n - 1").json(schema("Message")).seeds().writes();
    Api::default()
        .post("/create_user", create, creates)
        .get("/find_user/{user}", find_user, finds)
        .post("/add_funds/{user}/{amount}", add, changes("addFunds", "Adds to a user's credit"))
        .post("/pay/{user}/{amount}", pay, pays)
        .post("/batch_init/{n}/{money}", init, seeds)
        .nest("/fault", fault_routes())
}

async fn create(State(service): State<LedgerService>, headers: HeaderMap) -> Result<Response, Problem> {
    let open = Change::Open { account: new_id(), price: 0 };
    let (user, _) = change(&service, USERS, open, &headers, &["create_user"]).await?;
    Ok(Json(json!({ "user_id": user.to_string() })).into_response())
}

async fn find_user(State(service): State<LedgerService>, Path(user): Path<String>) -> Result<Response, Problem> {
    let account = find(&service, USERS, id("user", &user)?).await?;
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
    State(service): State<LedgerService>,
    Path((user, sum)): Path<(String, String)>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let credit = Change::Credit { amount: amount("the amount", &sum)?, account: id("user", &user)? };
    let (_, account) = change(&service, USERS, credit, &headers, &["add_funds", &user, &sum]).await?;
    Ok(updated(&headers, &user, &account, true))
}

async fn pay(
    State(service): State<LedgerService>,
    Path((user, sum)): Path<(String, String)>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let debit = Change::Debit { amount: amount("the amount", &sum)?, account: id("user", &user)? };
    let (_, account) = change(&service, USERS, debit, &headers, &["pay", &user, &sum]).await?;
    Ok(updated(&headers, &user, &account, false))
}

async fn init(
    State(service): State<LedgerService>,
    Path((n, money)): Path<(String, String)>,
) -> Result<Response, Problem> {
    batch_init(&service, (&n, &money, "0"), "users").await
}
