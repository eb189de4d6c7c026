//! The checkout over HTTP: an order is paid once, whoever asks, and everybody gets the same answer.

use std::time::{Duration, Instant};

use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use ledger::{EntityId, INSUFFICIENT, UNKNOWN_ACCOUNT};
use orchestrator::{Executed, LogAnswer, LogQuery, StoreFailure, TurnedAway, outcome_word};
use protocol::log::Record;
use protocol::{Decision, Name, Outcome, Payload, Refusal, Step, TransactionId};
use serde_json::json;
use tokio::sync::oneshot;

use crate::checkout::{CHECKOUT, Claim, PAYMENT, STOCK, steps};
use crate::flights::Boarding;
use crate::order_service::OrderService;
use crate::order_store::{OrdersAnswer, OrdersQuery};
use crate::orders::{Order, OrderState, OrdersCommand, OrdersReply, refusals};
use crate::orders_http::{read_order, submit};
use crate::problem::Problem;
use crate::request::{heard, id, idempotency_key, key_reused, stored, text_or_json, unknown};

/// What a client hears whose order is paid.
pub(crate) const PAID: &str = "Checkout successful";
/// How often a checkout begins anew because its order changed under it.
const CLAIM_ATTEMPTS: usize = 10;
/// How long a checkout waits for another one of the same order that this instance does not drive.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long a checkout that this instance drives is waited for. It is decided in seconds, unless the database of the orders is away; and it
/// goes on when nobody waits for it any more.
const ANSWER: Duration = Duration::from_secs(20);
/// How soon the log is asked again for what became of it, at first and at last, if its own instance says nothing.
const LOOK_AGAIN: [Duration; 2] = [Duration::from_millis(10), Duration::from_millis(500)];
/// How long the answer of an abort waits for the releases behind it.
const RELEASES: Duration = Duration::from_secs(1);

pub(crate) async fn check_out(
    State(orders): State<OrderService>,
    Path(order): Path<String>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let key = idempotency_key(&headers, &["checkout", &order])?;
    let order_id = id("order", &order)?;
    if let Some(key) = &key {
        // The order itself makes a checkout idempotent; the key is remembered only to notice its use for something else.
        let query = OrdersQuery::IsKeyReused(key.clone());
        // The order may have been paid by an earlier request with that key.
        let known = stored(|done| orders.store().peek(query, done)).await;
        if known.map_err(|failure| unread(&failure))? == OrdersAnswer::IsKeyReused(true) {
            return Err(key_reused());
        }
    }
    pay_for(&orders, order_id, &order).await?;
    if let Some(key) = key {
        // The order is paid, whatever becomes of the key.
        match submit(&orders, OrdersCommand::Remember { order: order_id, key }).await {
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
pub(crate) async fn pay_for(orders: &OrderService, id: EntityId, text: &str) -> Result<(), Problem> {
    loop {
        match orders.flights().board(id) {
            Boarding::Pilot(pilot) => {
                let landed = pay(orders, id, text).await;
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
pub(crate) async fn pay(orders: &OrderService, id: EntityId, text: &str) -> Result<(), Problem> {
    let until = Instant::now() + PATIENCE;
    let mut away = None;
    for attempt in 0..CLAIM_ATTEMPTS {
        let recalled = if attempt == 0 { orders.store().recall(id) } else { None };
        let is_recalled = recalled.is_some();
        let order = match recalled {
            Some(order) => order,
            None => look_at(orders, id).await?.ok_or_else(|| unknown("order", text))?,
        };
        let (transaction, outcome) = match order.state {
            OrderState::Paid(_) => {
                if read_order(orders, id, unread).await?.is_some_and(|order| order.is_paid()) {
                    return Ok(());
                }
                // It was replaced, or a failover took the payment back.
                continue;
            }
            OrderState::CheckingOut(other) => (other, wait_for(orders, id, other, until).await?),
            OrderState::Open => {
                if order.lines.is_empty() {
                    let detail = format!("order `{text}` has no items");
                    return Err(Problem::new(StatusCode::CONFLICT, "order_empty", detail).with("order_id", text));
                }
                if let Some(away) = away {
                    return Err(turned_away(away));
                }
                match begin(orders, id, &order).await? {
                    Ok(executed) => executed,
                    // It may be paid, or on its way to that, though it was not when it was seen.
                    Err(turned) if is_recalled && turned != TurnedAway::Lost => {
                        away = Some(turned);
                        continue;
                    }
                    Err(turned) => return Err(turned_away(turned)),
                }
            }
        };
        match outcome {
            Outcome::Committed => return Ok(()),
            // Another checkout of the order is under way, elsewhere: its answer is this one's, too.
            Outcome::Conflict(refusal) if refusal.code == refusals::CHECKING_OUT => {
                if let Ok(other) = refusal.detail.parse() {
                    match wait_for(orders, id, other, until).await? {
                        Outcome::Committed => return Ok(()),
                        Outcome::Conflict(_) => {}
                        outcome => {
                            // What the other one was refused for may be more than what was recalled.
                            let now = read_order(orders, id, unread).await?.unwrap_or(order);
                            return Err(failure(&outcome, now.total_cost(), text, other));
                        }
                    }
                }
            }
            // The order changed: look again.
            Outcome::Conflict(refusal) if refusal.code != refusals::ORDER_NOT_FOUND => {}
            outcome => match meanwhile(orders, id, transaction, &order, until).await? {
                Meanwhile::Paid => return Ok(()),
                // What was refused is not what the order is.
                Meanwhile::Changed if matches!(outcome, Outcome::Refused { .. }) => {}
                Meanwhile::Changed | Meanwhile::Nothing => {
                    return Err(failure(&outcome, order.total_cost(), text, transaction));
                }
            },
        }
    }
    let detail = format!("order `{text}` keeps changing while it is checked out");
    Err(Problem::new(StatusCode::CONFLICT, "order_changed", detail).with("order_id", text))
}

/// Looks at an order that is to be checked out. What is read need not be durable: the claim names its version, and is flushed behind it.
async fn look_at(orders: &OrderService, id: EntityId) -> Result<Option<Order>, Problem> {
    let order = stored(|done| orders.store().peek(OrdersQuery::Order(id), done)).await;
    // If the store has stopped, somebody's checkout of this order may be under way all the same: in doubt, not refused.
    match order.map_err(|failure| unread(&failure))? {
        OrdersAnswer::Order(order) => Ok(order),
        _ => Err(Problem::in_doubt("an answer to another question")),
    }
}

/// What became of an order whose checkout has failed.
enum Meanwhile {
    /// It is paid all the same, by a checkout that was begun elsewhere at the same time.
    Paid,
    /// It has other lines than those that the checkout was planned from.
    Changed,
    Nothing,
}

/// Looks what became of an order whose checkout, planned from what it was, has failed.
///
/// Two checkouts of it may each have found the other's credit or stock held; and a checkout that was planned from what the order no longer is may find too
/// little of what the order no longer wants. The vote that says so may come before the log's word that the order is claimed, or changed. The
/// loser's stage stands behind the winner's in the log, and its abort behind both, so that what is read now shows the winner.
async fn meanwhile(
    orders: &OrderService,
    id: EntityId,
    own: TransactionId,
    was: &Order,
    until: Instant,
) -> Result<Meanwhile, Problem> {
    let Some(is) = read_order(orders, id, unread).await? else { return Ok(Meanwhile::Nothing) };
    match is.state {
        OrderState::Paid(_) => Ok(Meanwhile::Paid),
        OrderState::CheckingOut(other) if other != own => match wait_for(orders, id, other, until).await? {
            Outcome::Committed => Ok(Meanwhile::Paid),
            Outcome::InDoubt => Err(Problem::in_doubt("another checkout of the order is under way: look at it again")),
            Outcome::Conflict(_) if read_order(orders, id, unread).await?.is_some_and(|order| order.is_paid()) => {
                Ok(Meanwhile::Paid)
            }
            Outcome::Conflict(_) | Outcome::Refused { .. } | Outcome::RolledBack { .. } => Ok(change(was, &is)),
        },
        OrderState::CheckingOut(_) | OrderState::Open => Ok(change(was, &is)),
    }
}

fn change(was: &Order, is: &Order) -> Meanwhile {
    if (was.user, &was.lines) == (is.user, &is.lines) { Meanwhile::Nothing } else { Meanwhile::Changed }
}

async fn begin(orders: &OrderService, id: EntityId, order: &Order) -> Result<Executed, Problem> {
    let Plan { steps, claim, .. } = plan(id, order)?;
    let executed = tokio::time::timeout(ANSWER, orders.orchestrator().execute(CHECKOUT, steps, claim)).await;
    let executed =
        executed.map_err(|_| Problem::in_doubt("the checkout is not decided yet: look at the order again"))?;
    if let Ok((transaction, outcome)) = &executed {
        tracing::debug!(order = %id, %transaction, outcome = outcome_word(outcome), "checked out");
    }
    Ok(executed)
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

/// A read that failed: another checkout of the order may be under way all the same, and end either way.
pub(crate) fn unread(failure: &StoreFailure) -> Problem {
    let (StoreFailure::Unknown(why) | StoreFailure::NotDone(why)) = failure;
    Problem::in_doubt(format!("it is not known whether the order is paid, or will be: {why}"))
}

/// Waits for the outcome of a checkout of the same order that was begun elsewhere, and gives the same.
///
/// What the outcome is stands in the log, and only there. Whoever drives the transaction is asked to say when it is time to look; that
/// makes it quick, and nothing depends on it.
async fn wait_for(
    orders: &OrderService,
    order: EntityId,
    other: TransactionId,
    until: Instant,
) -> Result<Outcome, Problem> {
    if let Some(outcome) = orders.orchestrator().watch(other).await {
        return Ok(outcome);
    }
    let ([mut pause, longest], mut told) = (LOOK_AGAIN, Telling::default());
    let mut released_by = None;
    loop {
        let stopping =
            || Problem::in_doubt("the shop is stopping while the order is being checked out: look at it again");
        let found = heard(|done| orders.store().read(LogQuery::Transaction(other), done)).await.ok_or_else(stopping)?;
        if let Ok(LogAnswer::Transaction(Some(record))) = &found {
            told.ask(orders, record.owner, other);
            if let Some(outcome) = concluded(record, &told, &mut released_by) {
                return Ok(outcome);
            }
        } else {
            let state = read_order(orders, order, unread).await?.map(|order| order.state);
            if state != Some(OrderState::CheckingOut(other)) {
                // It is over, and nobody remembers how: look at the order again.
                return Ok(Outcome::Conflict(Refusal::new(refusals::ORDER_CHANGED, "")));
            }
        }
        if Instant::now() >= until {
            return Ok(Outcome::InDoubt);
        }
        told.wait(pause).await;
        pause = (2 * pause).min(longest);
    }
}

/// What a transaction's record says of its outcome, once that may be told: an abort when what was held is released, or some time after.
fn concluded(record: &Record, told: &Telling, released_by: &mut Option<Instant>) -> Option<Outcome> {
    let decision = record.decision()?;
    let waits = matches!(decision, Decision::Abort(_)) && record.finished.is_none() && told.is_awaited();
    let by = *released_by.get_or_insert_with(|| Instant::now() + RELEASES);
    (!waits || Instant::now() >= by).then(|| Outcome::from(decision))
}

/// The word of a transaction's owner that its caller has been answered.
#[derive(Default)]
struct Telling {
    asked: Option<Name>,
    word: Option<oneshot::Receiver<()>>,
}

impl Telling {
    /// Asks the owner, once.
    fn ask(&mut self, orders: &OrderService, owner: Option<Name>, id: TransactionId) {
        let elsewhere = owner.filter(|owner| *owner != orders.orchestrator().engine().instance());
        if elsewhere.is_none() || elsewhere == self.asked {
            return;
        }
        self.asked = elsewhere;
        if let Some(owner) = elsewhere {
            let (send, word) = oneshot::channel();
            orders.peers().ask(owner, id, true, Box::new(move |_| _ = send.send(())));
            self.word = Some(word);
        }
    }

    /// Whether the owner has yet to say something.
    fn is_awaited(&self) -> bool {
        self.word.is_some()
    }

    /// Waits for its word, for a while.
    async fn wait(&mut self, at_most: Duration) {
        match &mut self.word {
            Some(word) => {
                if tokio::time::timeout(at_most, word).await.is_ok() {
                    self.word = None;
                }
            }
            None => tokio::time::sleep(at_most).await,
        }
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
