//! The order service over HTTP, the checkout among it.

use std::time::{Duration, Instant};

use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use embedded::StoreError;
use ledger::{EntityId, INSUFFICIENT, UNKNOWN_ACCOUNT};
use orchestrator::{Log, LogAnswer, LogQuery, TurnedAway};
use protocol::limits::{MAX_AMOUNT, MAX_BATCH, MAX_ORDER_LINES, MAX_PAGE, SHOWN_DEAD_LETTERS};
use protocol::log::Standing;
use protocol::{Outcome, Refusal, TransactionId};
use serde_json::json;

use crate::checkout::{CHECKOUT, Claim, PAYMENT, STOCK, steps};
use crate::flights::Boarding;
use crate::ledger_http::{BATCH_PATIENCE, store_failed, write_failed};
use crate::orders::{Line, Order, OrderState, OrdersCommand, OrdersReply, refusals};
use crate::problem::Problem;
use crate::request::{
    amount, called, id, idempotency_key, key_reused, new_id, number, overflow, text_or_json, unknown,
};
use crate::server::Shop;
use crate::store::OrderLog;

/// How often a checkout begins anew because its order changed under it.
const CLAIM_ATTEMPTS: usize = 10;
/// How long a checkout waits for another one of the same order that this instance does not drive.
const PATIENCE: Duration = Duration::from_secs(10);

pub(crate) fn routes() -> Router<Shop> {
    Router::new()
        .route("/create/{user}", post(create))
        .route("/find/{order}", get(find))
        .route("/addItem/{order}/{item}/{quantity}", post(add_item))
        .route("/checkout/{order}", post(check_out))
        .route("/batch_init/{n}/{items}/{users}/{price}", post(batch_init))
        .route("/dlq/status", get(dead_letters))
}

async fn submit(shop: &Shop, command: OrdersCommand) -> Result<OrdersReply, Problem> {
    called(|done| shop.orders().submit(command, done)).await?.map_err(|error| write_failed(&error))
}

fn not_open(id: &str, state: OrderState) -> Problem {
    let (code, detail) = match state {
        OrderState::Paid(_) => ("order_paid", format!("order `{id}` is paid")),
        OrderState::CheckingOut(_) | OrderState::Open => {
            ("order_checking_out", format!("order `{id}` is being checked out"))
        }
    };
    Problem::new(StatusCode::CONFLICT, code, detail).with("order_id", id)
}

async fn create(State(shop): State<Shop>, Path(user): Path<String>, headers: HeaderMap) -> Result<Response, Problem> {
    let key = idempotency_key(&headers, &["create", &user])?;
    let command = OrdersCommand::Create { order: new_id(), user: id("user", &user)?, key };
    match submit(&shop, command).await? {
        OrdersReply::Created(order) => Ok(Json(json!({ "order_id": order.to_string() })).into_response()),
        OrdersReply::KeyReused => Err(key_reused()),
        other => Err(unexpected(&other)),
    }
}

fn unexpected(reply: &OrdersReply) -> Problem {
    Problem::unavailable(format!("an unexpected answer: {reply:?}"))
}

async fn find(State(shop): State<Shop>, Path(order): Path<String>) -> Result<Response, Problem> {
    let found = read_order(&shop, id("order", &order)?, store_failed).await?.ok_or_else(|| unknown("order", &order))?;
    let mut items: Vec<(String, i64)> = Vec::with_capacity(found.lines.len());
    for line in &found.lines {
        let item = line.item.to_string();
        match items.iter_mut().find(|(known, _)| *known == item) {
            Some((_, quantity)) => *quantity += line.quantity,
            None => items.push((item, line.quantity)),
        }
    }
    let body = json!({
        "order_id": order,
        "paid": found.is_paid(),
        "items": items,
        "user_id": found.user.to_string(),
        "total_cost": found.total_cost(),
    });
    Ok(Json(body).into_response())
}

/// Reads an order, as it is durable.
///
/// `failed` says what it means if the store has stopped: for a mere reader nothing, for a checkout that it is in doubt.
async fn read_order(shop: &Shop, id: EntityId, failed: fn(&StoreError) -> Problem) -> Result<Option<Order>, Problem> {
    let found = called(|done| shop.orders().read_durable(move |book| book.order(id).cloned(), done)).await?;
    found.map_err(|error| failed(&error))
}

async fn add_item(
    State(shop): State<Shop>,
    Path((order, item, quantity)): Path<(String, String, String)>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let quantity_wanted = amount("the quantity", &quantity)?;
    let (order_id, item_id) = (id("order", &order)?, id("item", &item)?);
    let key = idempotency_key(&headers, &["addItem", &order, &item, &quantity])?;
    let price = called(|done| shop.stock().price(item_id, done)).await?;
    let price = price.ok_or_else(|| Problem::unavailable("the stock service does not answer"))?;
    let price = price.ok_or_else(|| unknown("item", &item))?;
    let line = Line { item: item_id, quantity: quantity_wanted, price };
    match submit(&shop, OrdersCommand::AddItem { order: order_id, line, key }).await? {
        OrdersReply::Total(total) => {
            let text = format!("Item: {item} added to: {order} price updated to: {total}");
            Ok(text_or_json(&headers, text, || json!({ "order_id": order, "item_id": item, "total_cost": total })))
        }
        OrdersReply::NotFound => Err(unknown("order", &order)),
        OrdersReply::NotOpen(state) => Err(not_open(&order, state)),
        OrdersReply::Overflow => Err(overflow("the order's total").with("order_id", order)),
        OrdersReply::TooManyLines => {
            Err(Problem::bad_argument(format!("an order has at most {MAX_ORDER_LINES} lines")).with("order_id", order))
        }
        OrdersReply::KeyReused => Err(key_reused()),
        other => Err(unexpected(&other)),
    }
}

pub(crate) async fn check_out(
    State(shop): State<Shop>,
    Path(order): Path<String>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let key = idempotency_key(&headers, &["checkout", &order])?;
    let order_id = id("order", &order)?;
    if let Some(key) = &key {
        // The order itself makes a checkout idempotent; the key is remembered only to notice its use for something else.
        let known = shop.orders().read(|book| book.is_key_reused(key)).map_err(|error| store_failed(&error))?;
        if known {
            return Err(key_reused());
        }
    }
    pay_for(&shop, order_id, &order).await?;
    if let Some(key) = key {
        // The order is paid, whatever becomes of the key.
        match submit(&shop, OrdersCommand::Remember { order: order_id, key }).await {
            Ok(OrdersReply::KeyReused) => {
                tracing::warn!(%order, "an Idempotency-Key was used for two requests at the same time");
            }
            Ok(_) => {}
            Err(problem) => tracing::warn!(%order, ?problem, "the Idempotency-Key of a paid order was not remembered"),
        }
    }
    Ok(text_or_json(&headers, "Checkout successful".to_owned(), || json!({ "order_id": order, "paid": true })))
}

/// Has the order paid, once, whoever else tries the same: all get the same answer, and it is final.
async fn pay_for(shop: &Shop, id: EntityId, text: &str) -> Result<(), Problem> {
    loop {
        match shop.flights().board(id) {
            Boarding::Pilot(pilot) => {
                let landed = pay(shop, id, text).await;
                pilot.land(&landed);
                return landed;
            }
            Boarding::Passenger(landing) => {
                if let Ok(landed) = landing.await {
                    return landed;
                }
            }
        }
    }
}

/// Has the order paid. Nobody else in this process does the same.
async fn pay(shop: &Shop, id: EntityId, text: &str) -> Result<(), Problem> {
    let until = Instant::now() + PATIENCE;
    for _ in 0..CLAIM_ATTEMPTS {
        // What is read here need not be durable: the claim names its version, and is flushed behind it.
        // If the store has stopped, somebody's checkout of this order may be under way all the same: in doubt, not refused.
        let order = shop.orders().read(|book| book.order(id).cloned()).map_err(|error| write_failed(&error))?;
        let order = order.ok_or_else(|| unknown("order", text))?;
        let (transaction, outcome) = match order.state {
            OrderState::Paid(_) => {
                let paid = read_order(shop, id, write_failed).await?.is_some_and(|order| order.is_paid());
                return if paid { Ok(()) } else { Err(Problem::unavailable("the order changed under the checkout")) };
            }
            OrderState::CheckingOut(other) => (other, wait_for(shop, id, other, until).await?),
            OrderState::Open => {
                if order.lines.is_empty() {
                    let detail = format!("order `{text}` has no items");
                    return Err(Problem::new(StatusCode::CONFLICT, "order_empty", detail).with("order_id", text));
                }
                begin(shop, id, &order).await?
            }
        };
        match outcome {
            Outcome::Committed => return Ok(()),
            // Another checkout was faster, or the order changed: look again.
            Outcome::Conflict(refusal) if refusal.code != refusals::ORDER_NOT_FOUND => {}
            outcome => return Err(failure(&outcome, &order, text, transaction)),
        }
    }
    let detail = format!("order `{text}` keeps changing while it is checked out");
    Err(Problem::new(StatusCode::CONFLICT, "order_changed", detail).with("order_id", text))
}

async fn begin(shop: &Shop, id: EntityId, order: &Order) -> Result<(TransactionId, Outcome), Problem> {
    let encoded = steps(order).and_then(|steps| Ok((steps, Claim { order: id, version: order.version }.encode()?)));
    let (steps, claim) = encoded.map_err(|error| Problem::unavailable(error.to_string()))?;
    shop.orchestrator().execute(CHECKOUT, steps, claim).await.map_err(|away| match away {
        TurnedAway::Overloaded => {
            Problem::new(StatusCode::TOO_MANY_REQUESTS, "overloaded", "too many checkouts at once: try again")
                .retry_later()
        }
        TurnedAway::Oversized(error) => Problem::bad_argument(error.to_string()),
        TurnedAway::Unavailable(service) => {
            Problem::unavailable(format!("the {service} service is unavailable; nothing was begun"))
                .with("service", service)
        }
        other => Problem::unavailable(other.to_string()),
    })
}

/// Waits for the outcome of a checkout of the same order that was begun elsewhere, and gives the same.
async fn wait_for(shop: &Shop, order: EntityId, other: TransactionId, until: Instant) -> Result<Outcome, Problem> {
    if let Some(outcome) = shop.orchestrator().watch(other).await {
        return Ok(outcome);
    }
    // Not driven here: it was settled just now, or waits for recovery.
    loop {
        let query = LogQuery::Transaction(other);
        let found = called(|done| OrderLog(shop.orders().clone()).read(query, done)).await?;
        if let Ok(LogAnswer::Transaction(Some(record))) = &found
            && let Some(decision) = record.decision()
        {
            return Ok(Outcome::from(decision));
        }
        let state = read_order(shop, order, write_failed).await?.map(|order| order.state);
        if state != Some(OrderState::CheckingOut(other)) {
            // It is over, and nobody remembers how: look at the order again.
            return Ok(Outcome::Conflict(Refusal::new(refusals::ORDER_CHANGED, "")));
        }
        if Instant::now() >= until {
            return Ok(Outcome::InDoubt);
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Says why an order was not paid.
fn failure(outcome: &Outcome, order: &Order, text: &str, transaction: TransactionId) -> Problem {
    let problem = match outcome {
        Outcome::Refused { step, refusal } => refused(*step, refusal, order),
        Outcome::RolledBack { step } => {
            let service = if *step == Some(1) { PAYMENT } else { STOCK };
            let who = step.map_or_else(|| "a dependency".to_owned(), |_| format!("the {service} service"));
            Problem::unavailable(format!("{who} was unavailable; the checkout was rolled back, try again"))
        }
        Outcome::Conflict(_) => unknown("order", text),
        // Neither yes nor no is true yet: the one answer that is no 4xx, because it is not known to be a failure.
        Outcome::InDoubt | Outcome::Committed => {
            Problem::in_doubt("it is not known yet whether the order is paid: look at the order again")
        }
    };
    problem.with("order_id", text).with("transaction_id", transaction)
}

fn refused(step: u8, refusal: &Refusal, order: &Order) -> Problem {
    let payment = step == 1;
    let detail = &refusal.detail;
    if refusal.code == INSUFFICIENT {
        if payment {
            let why = format!("user `{detail}` has less credit than the order costs ({})", order.total_cost());
            return Problem::new(StatusCode::CONFLICT, "insufficient_credit", why).with("user_id", detail);
        }
        let why = format!("item `{detail}` has less stock than the order wants");
        return Problem::new(StatusCode::CONFLICT, "insufficient_stock", why).with("item_id", detail);
    }
    if refusal.code == UNKNOWN_ACCOUNT {
        let (code, kind) = if payment { ("user_not_found", "user") } else { ("item_not_found", "item") };
        let why = format!("the order names {kind} `{detail}`, which does not exist");
        return Problem::new(StatusCode::CONFLICT, code, why).with(&format!("{kind}_id"), detail);
    }
    Problem::new(StatusCode::CONFLICT, "refused", refusal.to_string())
}

async fn batch_init(
    State(shop): State<Shop>,
    Path((n, items, users, price)): Path<(String, String, String, String)>,
) -> Result<Response, Problem> {
    shop.check_development("batch_init")?;
    let bound = MAX_BATCH as i64;
    let count = number("the count", &n, 1, bound)?.unsigned_abs();
    let items = number("the number of items", &items, 1, bound)?.unsigned_abs();
    let users = number("the number of users", &users, 1, bound)?.unsigned_abs();
    let price = number("the price", &price, 0, MAX_AMOUNT / 2)?;
    let (seed, _) = uuid::Uuid::now_v7().as_u64_pair();
    let seed = seed ^ uuid::Uuid::now_v7().as_u64_pair().1;
    let until = Instant::now() + BATCH_PATIENCE;
    loop {
        let command = OrdersCommand::Replace { count, items, users, price, seed };
        match submit(&shop, command).await? {
            OrdersReply::Done => {
                return Ok(Json(json!({ "msg": "Batch init for orders successful" })).into_response());
            }
            OrdersReply::Busy(_) if Instant::now() < until => tokio::time::sleep(Duration::from_millis(20)).await,
            OrdersReply::Busy(open) => {
                let detail = format!("{open} transactions are not settled yet: try again when they are");
                return Err(Problem::new(StatusCode::CONFLICT, "busy", detail));
            }
            other => return Err(unexpected(&other)),
        }
    }
}

async fn dead_letters(State(shop): State<Shop>) -> Result<Response, Problem> {
    let query = LogQuery::Listing { standing: Some(Standing::Stuck), limit: MAX_PAGE };
    let found = called(|done| OrderLog(shop.orders().clone()).read(query, done)).await?;
    let Ok(LogAnswer::Listing(stuck)) = found else {
        return Err(Problem::unavailable("the transaction log does not answer"));
    };
    let letters = |(id, record): &(TransactionId, protocol::log::Record)| {
        let service = |step: u8| {
            let steps = record.transaction.as_ref().map(|transaction| &transaction.steps);
            steps.and_then(|steps| steps.get(usize::from(step))).map(|step| step.service.to_string())
        };
        let letter = |letter: &protocol::log::DeadLetter| {
            json!({
                "transaction_id": id.to_string(),
                "service": service(letter.step),
                "step": letter.step,
                "verb": letter.verb.as_str(),
                "attempts": letter.attempts,
                "error": letter.error,
                "at_ms": letter.at.0,
            })
        };
        record.open_letters().map(letter).collect::<Vec<_>>()
    };
    let all: Vec<serde_json::Value> = stuck.iter().flat_map(letters).collect();
    let latest: Vec<_> = all.iter().take(SHOWN_DEAD_LETTERS).collect();
    Ok(Json(json!({ "count": all.len(), "latest": latest })).into_response())
}
