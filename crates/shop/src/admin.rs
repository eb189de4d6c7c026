//! The operators' door: transactions, what was done about them, and the audit; on a socket in the data folder that only its owner can open, on an address of
//! its own, and under `/admin` on the public listener for whom [`guard`](crate::guard) admits.
//!
//! | file          | what it is                                                    |
//! |---------------|----------------------------------------------------------------|
//! | `listing.rs`  | transactions by state, service, order, user and age            |
//! | `timeline.rs` | one transaction as everything that is known to have happened   |
//! | `acts.rs`     | retry and resolve, each written into the trail; the trail      |
//!
//! It does not matter which of several order instances is asked: what became of a transaction, and what an operator says of it, stands in the log.
//! Whoever drives it is told to try again, or to heed what the log says, at once; if that instance cannot be reached, it finds it in the log
//! with its next renewal, and if it is gone, whoever takes it over does.

mod acts;
mod listing;
mod timeline;

use std::collections::BTreeMap;

use axum::http::StatusCode;
use ledger::EntityId;
use orchestrator::{LogAnswer, LogQuery};
use protocol::log::{Record, Standing};
use protocol::{Name, Sending, TransactionId};
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::checkout::asked;
use crate::openapi::{Api, Description, schema};
use crate::order_service::OrderService;
use crate::ports::{Driven, Operated, Operation};
use crate::problem::Problem;
use crate::request::{called, heard};

pub use acts::{ResolveRequest, RetryRequest};
pub use timeline::{Happening, What, tell};

/// The name of the socket in the data folder.
pub const SOCKET: &str = "admin.sock";

/// A transaction as operators see it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct TransactionView {
    /// Its id.
    pub id: TransactionId,
    /// Where it stands.
    pub standing: Standing,
    /// What its coordinator is doing, if whoever drives it could be asked.
    pub driven: Option<String>,
    /// Its record in the log.
    pub record: Record,
    /// The order that it is about.
    #[serde(default)]
    pub order: Option<EntityId>,
    /// Whose that order is.
    #[serde(default)]
    pub user: Option<EntityId>,
    /// What each of its steps asks its service for, in words; `None` where the log does not keep that any more.
    #[serde(default)]
    pub parts: Vec<Option<String>>,
    /// How long ago it was born. Milliseconds.
    #[serde(default)]
    pub age_ms: u64,
    /// How far each participant is, if whoever drives it could be asked.
    #[serde(default)]
    pub sendings: Vec<Sending>,
    /// Everything that is known to have happened to it, if it was asked for alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeline: Option<Vec<Happening>>,
    /// Where its trace is to be found, if it was asked for alone; `None` if no trace of it was kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trace: Option<Trace>,
}

/// Where the trace of a transaction is to be found.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Trace {
    /// The trace's id, as back ends have it.
    pub id: String,
    /// Whether it was sent there; otherwise only another instance, or an earlier process, could know.
    pub certain: bool,
}

impl TransactionView {
    /// A transaction of which only the log is known.
    pub fn undriven(id: TransactionId, record: Record) -> Self {
        let standing = record.standing();
        let order = listing::order_of(&record);
        let parts = record.transaction.iter().flat_map(|it| it.steps.iter()).map(asked).collect();
        Self {
            id,
            standing,
            driven: None,
            record,
            order,
            user: None,
            parts,
            age_ms: 0,
            sendings: Vec::new(),
            timeline: None,
            trace: None,
        }
    }
}

pub(crate) fn routes() -> Api<OrderService> {
    let whole = json!({ "type": "integer", "minimum": 0 });
    let lists = Description::new("listTransactions", "Transactions, the latest first, by whatever is given")
        .query("state", "Where they stand", json!({ "enum": ["undecided", "settling", "stuck", "finished"] }))
        .query(
            "service",
            "A service that takes part; of stuck ones, at which they are stuck",
            json!({ "type": "string" }),
        )
        .query("order", "The order's id", json!({ "type": "string" }))
        .query("user", "The id of the order's user", json!({ "type": "string" }))
        .query("min_age_ms", "How old they are at least, in milliseconds", whole.clone())
        .query("limit", "How many, at most", whole.clone())
        .json(json!({ "type": "array", "items": schema("Transaction") }))
        .reads();
    let shows =
        Description::new("showTransaction", "One transaction, with everything that is known to have happened to it")
            .json(schema("Transaction"))
            .fails(404, &["transaction_not_found"])
            .reads();
    let acts = |id, summary, body, required, refusals: &[&str]| {
        Description::new(id, summary)
            .body(schema(body), required)
            .json(schema("Status"))
            .fails(404, &["transaction_not_found"])
            .fails(409, refusals)
            .fails(415, &["bad_argument"])
            .fails(422, &["bad_argument"])
            .writes()
    };
    let retries =
        acts("retryTransaction", "Tries at once what is left of it", "Retry", false, &["finished", "not_driven"]);
    let resolves = acts(
        "resolveTransaction",
        "Counts a branch that is stuck as acknowledged, by hand",
        "Resolve",
        true,
        &["not_stuck"],
    );
    let trails = Description::new("trail", "What operators did, the latest first")
        .query("limit", "How many, at most", whole)
        .json(json!({ "type": "array", "items": schema("TrailEntry") }))
        .reads();
    Api::default()
        .get("/transactions", listing::list, lists)
        .get("/transactions/{id}", listing::show, shows)
        .post("/transactions/{id}/retry", acts::retry, retries)
        .post("/transactions/{id}/resolve", acts::resolve, resolves)
        .get("/trail", acts::trail, trails)
        .merge(crate::log_level::routes())
}

async fn read(orders: &OrderService, query: LogQuery) -> Result<LogAnswer, Problem> {
    let found = called(|done| orders.store().read(query, done)).await?;
    found.map_err(|error| Problem::unavailable(error.to_string()))
}

async fn record_of(orders: &OrderService, id: TransactionId) -> Result<Option<Record>, Problem> {
    match read(orders, LogQuery::Transaction(id)).await? {
        LogAnswer::Transaction(found) => Ok(found.map(|record| *record)),
        _ => Err(Problem::unavailable("an answer to another question")),
    }
}

/// Transactions with what their coordinators are doing, as far as those who drive them say.
async fn views(orders: &OrderService, found: Vec<(TransactionId, Record)>) -> Vec<TransactionView> {
    let engine = orders.orchestrator().engine();
    let now = engine.now();
    let mut views: Vec<_> = found
        .into_iter()
        .map(|(id, record)| {
            let mut view = TransactionView::undriven(id, record);
            view.age_ms = now.0.saturating_sub(id.birth().0);
            view.take_in(Driven::by(engine, id));
            view
        })
        .collect();
    let mut elsewhere: BTreeMap<Name, Vec<usize>> = BTreeMap::new();
    for (at, view) in views.iter().enumerate().filter(|(_, view)| view.standing != Standing::Finished) {
        if let Some(owner) = view.record.owner.filter(|owner| view.driven.is_none() && *owner != engine.instance()) {
            elsewhere.entry(owner).or_default().push(at);
        }
    }
    for (owner, places) in elsewhere {
        let asked = Operation::States(places.iter().map(|at| views[*at].id).collect());
        if let Some(Some(Operated::States(states))) = heard(|done| orders.peers().operate(owner, asked, done)).await {
            for (at, driven) in places.into_iter().zip(states) {
                views[at].take_in(driven);
            }
        }
    }
    views
}

impl TransactionView {
    fn take_in(&mut self, driven: Option<Driven>) {
        if let Some(Driven { state, sendings }) = driven {
            self.driven = Some(state);
            self.sendings = sendings;
        }
    }
}

fn parse(id: &str) -> Result<TransactionId, Problem> {
    id.parse().map_err(|error: protocol::ids::NotATransactionId| Problem::bad_argument(error.to_string()))
}

fn unknown(id: &str) -> Problem {
    let detail = format!("there is no transaction `{id}`: it was never staged here, or is finished and forgotten");
    Problem::new(StatusCode::NOT_FOUND, "transaction_not_found", detail).with("transaction_id", id)
}
