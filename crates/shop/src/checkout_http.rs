//! The checkout over HTTP: an order is paid once, whoever asks, and everybody gets the same answer.

use std::time::{Duration, Instant};

use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use ledger::{EntityId, INSUFFICIENT, UNKNOWN_ACCOUNT};
use orchestrator::{Log, LogAnswer, LogQuery, TurnedAway};
use protocol::{Outcome, Payload, Refusal, Step, TransactionId};
use serde_json::json;

use crate::checkout::{CHECKOUT, Claim, PAYMENT, STOCK, steps};
use crate::flights::Boarding;
use crate::orders::{Order, OrderState, OrdersCommand, OrdersReply, refusals};
use crate::orders_http::{read_order, store_failed, submit, write_failed};
use crate::problem::Problem;
use crate::request::{called, id, idempotency_key, key_reused, text_or_json, unknown};
use crate::server::Shop;
use crate::store::OrderLog;

/// What a client hears whose order is paid.
pub(crate) const PAID: &str = "Checkout successful";
/// How often a checkout begins anew because its order changed under it.
const CLAIM_ATTEMPTS: usize = 10;
/// How long a checkout waits for another one of the same order that this instance does not drive.
const PATIENCE: Duration = Duration::from_secs(10);

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
    Ok(text_or_json(&headers, PAID.to_owned(), || json!({ "order_id": order, "paid": true })))
}

/// Has the order paid, once, whoever else tries the same: all get the same answer, and it is final.
pub(crate) async fn pay_for(shop: &Shop, id: EntityId, text: &str) -> Result<(), Problem> {
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
pub(crate) async fn pay(shop: &Shop, id: EntityId, text: &str) -> Result<(), Problem> {
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
            outcome => return Err(failure(&outcome, order.total_cost(), text, transaction)),
        }
    }
    let detail = format!("order `{text}` keeps changing while it is checked out");
    Err(Problem::new(StatusCode::CONFLICT, "order_changed", detail).with("order_id", text))
}

async fn begin(shop: &Shop, id: EntityId, order: &Order) -> Result<(TransactionId, Outcome), Problem> {
    let Plan { steps, claim, .. } = plan(id, order)?;
    shop.orchestrator().execute(CHECKOUT, steps, claim).await.map_err(turned_away)
}

/// What the checkout of an open order comes to.
pub(crate) struct Plan {
    pub(crate) steps: Vec<Step>,
    pub(crate) claim: Payload,
    pub(crate) total_cost: i64,
}

pub(crate) fn plan(id: EntityId, order: &Order) -> Result<Plan, Problem> {
    let claim = Claim { order: id, version: order.version };
    let planned = steps(order).and_then(|steps| Ok((steps, claim.encode()?)));
    let (steps, claim) = planned.map_err(|error| Problem::unavailable(error.to_string()))?;
    Ok(Plan { steps, claim, total_cost: order.total_cost() })
}

/// Says why nothing was begun.
pub(crate) fn turned_away(away: TurnedAway) -> Problem {
    match away {
        TurnedAway::Overloaded => {
            Problem::new(StatusCode::TOO_MANY_REQUESTS, "overloaded", "too many checkouts at once: try again")
                .retry_later()
        }
        // Begun or not, nobody is left to say.
        TurnedAway::Lost => Problem::in_doubt(
            "the shop is stopping, and does not know what became of the checkout: look at the order again",
        ),
        TurnedAway::Oversized(error) => Problem::bad_argument(error.to_string()),
        TurnedAway::Unavailable(service) => {
            Problem::unavailable(format!("the {service} service is unavailable; nothing was begun"))
                .with("service", service)
        }
        other => Problem::unavailable(other.to_string()),
    }
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
pub(crate) fn failure(outcome: &Outcome, total_cost: i64, text: &str, transaction: TransactionId) -> Problem {
    let problem = match outcome {
        Outcome::Refused { step, refusal } => refused(*step, refusal, total_cost),
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

fn refused(step: u8, refusal: &Refusal, total_cost: i64) -> Problem {
    let payment = step == 1;
    let detail = &refusal.detail;
    if refusal.code == INSUFFICIENT {
        if payment {
            let why = format!("user `{detail}` has less credit than the order costs ({total_cost})");
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
