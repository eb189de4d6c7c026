//! The order service over HTTP.

use std::time::{Duration, Instant};

use axum::Json;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use ledger::EntityId;
use orchestrator::{LogAnswer, LogQuery, StoreFailure};
use protocol::TransactionId;
use protocol::limits::{MAX_AMOUNT, MAX_BATCH, MAX_ORDER_LINES, MAX_PAGE, SHOWN_DEAD_LETTERS};
use protocol::log::Standing;
use serde_json::json;

use crate::checkout_http::check_out;
use crate::ledger_http::{BATCH_PATIENCE, read_failed, write_failed};
use crate::ledger_service::check_development;
use crate::openapi::{Api, Description, schema};
use crate::order_service::OrderService;
use crate::order_store::{OrdersAnswer, OrdersQuery};
use crate::orders::{Line, Order, OrderState, OrdersCommand, OrdersReply};
use crate::ports::Told;
use crate::problem::Problem;
use crate::request::{
    amount, called, id, idempotency_key, key_reused, new_id, number, overflow, stored, text_or_json, unknown,
};

pub(crate) fn routes() -> Api<OrderService> {
    let creates = Description::new("createOrder", "Makes an empty order")
        .json(schema("OrderId"))
        .fails(404, &["user_not_found"])
        .keyed()
        .writes();
    let finds =
        Description::new("findOrder", "Shows an order").json(schema("Order")).fails(404, &["order_not_found"]).reads();
    let adds = Description::new("addItem", "Adds units of an item to an order, at its price of now")
        .text_or_json(schema("OrderTotal"))
        .fails(404, &["order_not_found", "item_not_found"])
        .fails(409, &["order_paid", "order_checking_out"])
        .keyed()
        .writes();
    let checks_out =
        Description::new("checkOut", "Takes the stock and the credit of an order, all or nothing; the answer is final")
            .text_or_json(schema("Paid"))
            .fails(404, &["order_not_found"])
            .fails(
                409,
                &[
                    "insufficient_stock",
                    "insufficient_credit",
                    "item_not_found",
                    "user_not_found",
                    "order_empty",
                    "order_changed",
                    "refused",
                ],
            )
            .fails(429, &["overloaded"])
            .keyed()
            .writes();
    let seeds =
        Description::new("seedOrders", "Replaces the orders 0 to n - 1").json(schema("Message")).seeds().writes();
    let letters = Description::new("deadLetters", "Branches that do not acknowledge: how many, and the latest")
        .json(schema("DeadLetters"))
        .reads();
    Api::default()
        .post("/create/{user}", create, creates)
        .get("/find/{order}", find, finds)
        .post("/addItem/{order}/{item}/{quantity}", add_item, adds)
        .post("/checkout/{order}", check_out, checks_out)
        .post("/batch_init/{n}/{items}/{users}/{order_price}", batch_init, seeds)
        .get("/dlq/status", dead_letters, letters)
}

pub(crate) async fn submit(orders: &OrderService, command: OrdersCommand) -> Result<OrdersReply, Problem> {
    stored(|done| orders.store().submit(command, done)).await.map_err(|failure| write_failed(&failure))
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

async fn create(
    State(orders): State<OrderService>,
    Path(user): Path<String>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let key = idempotency_key(&headers, &["create", &user])?;
    let command = OrdersCommand::Create { order: new_id(), user: id("user", &user)?, key };
    match submit(&orders, command).await? {
        OrdersReply::Created(order) => Ok(Json(json!({ "order_id": order.to_string() })).into_response()),
        OrdersReply::KeyReused => Err(key_reused()),
        other => Err(unexpected(&other)),
    }
}

fn unexpected(reply: &OrdersReply) -> Problem {
    Problem::unavailable(format!("an unexpected answer: {reply:?}"))
}

async fn find(State(orders): State<OrderService>, Path(order): Path<String>) -> Result<Response, Problem> {
    let found = settled_order(&orders, id("order", &order)?).await?.ok_or_else(|| unknown("order", &order))?;
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

/// How long a reader waits for somebody who can say how far a checkout is.
const READER_PATIENCE: Duration = Duration::from_secs(10);
/// How soon it looks again.
const LOOK_AGAIN: Duration = Duration::from_millis(50);

/// Reads an order as anybody may see it.
///
/// One that is being checked out is not paid as long as nobody was told that it is: whoever drives the transaction knows. If that one is
/// gone, it may have told somebody, whatever the database shows after a failover; then recovery decides first.
async fn settled_order(orders: &OrderService, id: EntityId) -> Result<Option<Order>, Problem> {
    let until = Instant::now() + READER_PATIENCE;
    loop {
        let found = read_order(orders, id, read_failed).await?;
        let Some(OrderState::CheckingOut(transaction)) = found.as_ref().map(|order| order.state) else {
            return Ok(found);
        };
        let told = told_of(orders, transaction).await?;
        if told == Told::Unanswered {
            return Ok(found);
        }
        if Instant::now() >= until {
            let detail = "the order is being checked out, and nobody can say yet how that ends: look again";
            return Err(Problem::unavailable(detail).with("transaction_id", transaction));
        }
        tokio::time::sleep(LOOK_AGAIN).await;
    }
}

/// How far a transaction is, as whoever drives it says.
async fn told_of(orders: &OrderService, id: TransactionId) -> Result<Told, Problem> {
    let engine = orders.orchestrator().engine();
    if engine.is_answered(id).is_some() {
        return Ok(orders.told_here(id).await);
    }
    let Ok(LogAnswer::Transaction(Some(record))) =
        called(|done| orders.store().read(LogQuery::Transaction(id), done)).await?
    else {
        return Ok(Told::Nothing);
    };
    match record.owner {
        Some(owner) if owner != engine.instance() => called(|done| orders.peers().ask(owner, id, false, done)).await,
        _ => Ok(Told::Nothing),
    }
}

/// Reads an order, as it is durable.
///
/// `failed` says what it means if that fails: for a mere reader nothing, for a checkout that it is in doubt.
pub(crate) async fn read_order(
    orders: &OrderService,
    id: EntityId,
    failed: fn(&StoreFailure) -> Problem,
) -> Result<Option<Order>, Problem> {
    let found = stored(|done| orders.store().query(OrdersQuery::Order(id), done)).await;
    match found.map_err(|failure| failed(&failure))? {
        OrdersAnswer::Order(order) => Ok(order),
        other => Err(Problem::unavailable(format!("an unexpected answer: {other:?}"))),
    }
}

async fn add_item(
    State(orders): State<OrderService>,
    Path((order, item, quantity)): Path<(String, String, String)>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let quantity_wanted = amount("the quantity", &quantity)?;
    let (order_id, item_id) = (id("order", &order)?, id("item", &item)?);
    let key = idempotency_key(&headers, &["addItem", &order, &item, &quantity])?;
    let price = called(|done| orders.prices().price(item_id, done)).await?;
    let price = price.map_err(|why| Problem::unavailable(format!("the stock service does not answer: {why}")))?;
    let price = price.ok_or_else(|| unknown("item", &item))?;
    let line = Line { item: item_id, quantity: quantity_wanted, price };
    match submit(&orders, OrdersCommand::AddItem { order: order_id, line, key }).await? {
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

async fn batch_init(
    State(orders): State<OrderService>,
    Path((n, items, users, price)): Path<(String, String, String, String)>,
) -> Result<Response, Problem> {
    check_development(orders.is_production(), "batch_init")?;
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
        match submit(&orders, command).await? {
            OrdersReply::Done => {
                return Ok(Json(json!({ "msg": "Batch init for orders successful" })).into_response());
            }
            OrdersReply::Busy(_) if Instant::now() < until => tokio::time::sleep(Duration::from_millis(20)).await,
            OrdersReply::Busy(open) => {
                let these = if open == 1 { "1 transaction is".to_owned() } else { format!("{open} transactions are") };
                let detail = format!("{these} not settled yet: try again when that is done");
                return Err(Problem::new(StatusCode::CONFLICT, "busy", detail));
            }
            other => return Err(unexpected(&other)),
        }
    }
}

async fn dead_letters(State(orders): State<OrderService>) -> Result<Response, Problem> {
    let query = LogQuery::Listing { standing: Some(Standing::Stuck), limit: MAX_PAGE };
    let found = called(|done| orders.store().read(query, done)).await?;
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
