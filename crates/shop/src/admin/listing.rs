//! Transactions by state, service, order, user and age.

use axum::Json;
use axum::extract::{Path, Query, State};
use axum::response::{IntoResponse, Response};
use ledger::{EntityId, entries};
use orchestrator::{LogAnswer, LogQuery};
use protocol::limits::MAX_PAGE;
use protocol::log::{Record, Standing};
use protocol::{Name, Transaction, TransactionId};
use serde::Deserialize;
use tokio::sync::oneshot;

use super::{Trace, TransactionView, parse, read, record_of, timeline, unknown, views};
use crate::checkout::{Claim, PAYMENT};
use crate::order_service::OrderService;
use crate::order_store::{OrdersAnswer, OrdersQuery};
use crate::orders::OrderState;
use crate::problem::Problem;
use crate::request::called;

/// How many are listed if nobody says.
const USUAL: usize = 50;

/// Which transactions to list. What is not given is not asked for.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Listing {
    /// Where they stand.
    state: Option<Standing>,
    /// A service that takes part; of stuck ones, at which they are stuck.
    service: Option<String>,
    /// The order that they are about.
    order: Option<String>,
    /// Whose order it is.
    user: Option<String>,
    /// How old they are at least. Milliseconds.
    min_age_ms: Option<u64>,
    /// How many at most: up to [`MAX_PAGE`].
    limit: Option<usize>,
}

/// A listing's filters, understood.
struct Filters {
    only_stuck: bool,
    service: Option<Name>,
    order: Option<EntityId>,
    user: Option<EntityId>,
    min_age_ms: u64,
}

impl Filters {
    /// `None` if one of them is the name of nothing: then nothing is found.
    fn of(listing: &Listing) -> Option<Self> {
        fn said<T: std::str::FromStr>(text: Option<&str>) -> Option<Option<T>> {
            let text = text.map(str::trim).filter(|text| !text.is_empty());
            text.map_or(Some(None), |text| text.parse().ok().map(Some))
        }
        Some(Self {
            only_stuck: listing.state == Some(Standing::Stuck),
            service: said(listing.service.as_deref())?,
            order: said(listing.order.as_deref())?,
            user: said(listing.user.as_deref())?,
            min_age_ms: listing.min_age_ms.unwrap_or(0),
        })
    }

    /// Whether they let a transaction pass, as far as the log alone can say.
    fn admits(&self, view: &TransactionView) -> bool {
        let by_service = self.service.is_none_or(|service| takes_part(view, service, self.only_stuck));
        by_service && view.age_ms >= self.min_age_ms && self.order.is_none_or(|order| view.order == Some(order))
    }

    fn is_any(&self) -> bool {
        self.service.is_some() || self.order.is_some() || self.user.is_some() || self.min_age_ms > 0
    }
}

/// Whether a service takes part; or, if only stuck ones are asked for, whether it is stuck there.
fn takes_part(view: &TransactionView, service: Name, stuck: bool) -> bool {
    let Some(transaction) = &view.record.transaction else { return false };
    let at = |step: u8| transaction.steps.get(usize::from(step)).is_some_and(|step| step.service == service);
    if stuck {
        view.record.open_letters().any(|letter| at(letter.step))
    } else {
        transaction.steps.iter().any(|step| step.service == service)
    }
}

pub(super) async fn list(
    State(orders): State<OrderService>,
    Query(listing): Query<Listing>,
) -> Result<Response, Problem> {
    let limit = listing.limit.unwrap_or(USUAL).min(MAX_PAGE);
    let Some(filters) = Filters::of(&listing) else { return Ok(Json([(); 0]).into_response()) };
    // What the filters leave is looked for among the latest of all.
    let looked_at = if filters.is_any() { MAX_PAGE } else { limit };
    let query = LogQuery::Listing { standing: listing.state, limit: looked_at };
    let LogAnswer::Listing(mut found) = read(&orders, query).await? else {
        return Err(Problem::unavailable("an answer to another question"));
    };
    if let Some(order) = filters.order {
        add_present(&orders, order, listing.state, &mut found).await?;
    }
    let mut views = views(&orders, found).await;
    views.retain(|view| filters.admits(view));
    if filters.user.is_none() {
        views.truncate(limit);
    }
    name_users(&orders, &mut views).await;
    views.retain(|view| filters.user.is_none_or(|user| view.user == Some(user)));
    views.truncate(limit);
    Ok(Json(views).into_response())
}

/// An order says itself which transaction has claimed or paid it, however long ago that was.
async fn add_present(
    orders: &OrderService,
    order: EntityId,
    state: Option<Standing>,
    found: &mut Vec<(TransactionId, Record)>,
) -> Result<(), Problem> {
    let answer = called(|done| orders.store().query(OrdersQuery::Order(order), done)).await?;
    let Ok(OrdersAnswer::Order(Some(order))) = answer else { return Ok(()) };
    let (OrderState::CheckingOut(id) | OrderState::Paid(id)) = order.state else { return Ok(()) };
    if !found.iter().any(|(known, _)| *known == id)
        && let Some(record) = record_of(orders, id).await?
        && state.is_none_or(|state| record.standing() == state)
    {
        found.push((id, record));
    }
    Ok(())
}

pub(super) async fn show(State(orders): State<OrderService>, Path(text): Path<String>) -> Result<Response, Problem> {
    let id = parse(&text)?;
    let record = record_of(&orders, id).await?.ok_or_else(|| unknown(&text))?;
    let mut found = views(&orders, vec![(id, record)]).await;
    name_users(&orders, &mut found).await;
    let mut view = found.pop().ok_or_else(|| unknown(&text))?;
    let trail = super::acts::latest(&orders, MAX_PAGE).await?;
    view.timeline = Some(timeline::tell(&view, &trail));
    view.trace = trace_of(&view, orders.orchestrator().engine().instance());
    Ok(Json(view).into_response())
}

/// Where the trace of a transaction is to be found, if this process traces and does not know that none was kept.
fn trace_of(view: &TransactionView, here: Name) -> Option<Trace> {
    let found = telemetry::traces::trace_of(view.id, view.record.owner == Some(here))?;
    Some(Trace { id: found.trace.to_string(), certain: found.certain })
}

/// The order that a transaction is about.
pub(super) fn order_of(record: &Record) -> Option<EntityId> {
    let transaction = record.transaction.as_ref()?;
    Claim::decode(&transaction.context).ok().map(|claim| claim.order)
}

/// Who is charged, as long as the log keeps what the steps ask for.
fn charged(transaction: &Transaction) -> Option<EntityId> {
    let step = transaction.steps.iter().find(|step| step.service == PAYMENT)?;
    entries::decode(&step.payload).ok()?.first().map(|entry| entry.account)
}

/// Fills in whose orders they are. Those that the log no longer says are asked of the orders, all at once.
async fn name_users(orders: &OrderService, views: &mut [TransactionView]) {
    let mut asked = Vec::new();
    for (at, view) in views.iter_mut().enumerate() {
        view.user = view.record.transaction.as_deref().and_then(charged);
        if let Some(order) = view.order.filter(|_| view.user.is_none()) {
            let (send, receive) = oneshot::channel();
            orders.store().query(OrdersQuery::Order(order), Box::new(move |answer| _ = send.send(answer)));
            asked.push((at, receive));
        }
    }
    for (at, answer) in asked {
        if let Ok(Ok(OrdersAnswer::Order(Some(order)))) = answer.await {
            views[at].user = Some(order.user);
        }
    }
}
