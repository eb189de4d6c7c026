//! `GET /admin/audit`: the last word of the continuous audit, whichever instance is asked. `POST /admin/audit`: everything, now.

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use orchestrator::{LogAnswer, LogQuery};
use protocol::recovery::leader;

use super::{Auditor, AuditorView};
use crate::audit::AuditReport;
use crate::openapi::{Api, Description, schema};
use crate::order_service::OrderService;
use crate::problem::Problem;
use crate::request::{called, heard};

/// How long an audit waits for a moment at which nothing is under way, and orders can be compared with ledgers: what was answered a moment ago is
/// settled behind its answer.
const REST: Duration = Duration::from_secs(2);
/// How soon it looks again.
const AGAIN: Duration = Duration::from_millis(100);

/// What the handlers need.
#[derive(Clone)]
struct Desk {
    auditor: Arc<Auditor>,
    orders: OrderService,
}

/// `/audit`, as operators have it: below `/admin`, on their own socket without that, too.
pub(crate) fn routes(auditor: Arc<Auditor>, orders: OrderService) -> Api {
    let says = Description::new("lastAudit", "The last word of the continuous audit").json(schema("Auditor")).reads();
    let audits = Description::new("audit", "Audits everything, now")
        .json(schema("AuditReport"))
        .fails(409, &["audit_runs"])
        .reads();
    Api::default().get("/audit", last, says).post("/audit", now, audits).with_state(Desk { auditor, orders })
}

/// The leader's word.
async fn last(State(Desk { auditor, orders }): State<Desk>) -> Result<Json<AuditorView>, Problem> {
    let engine = orders.orchestrator().engine();
    if engine.is_leader() {
        return Ok(Json(auditor.view()));
    }
    let found = called(|done| orders.store().read(LogQuery::Open, done)).await?;
    let LogAnswer::Open { instances, now, .. } = found.map_err(|error| Problem::unavailable(error.to_string()))? else {
        return Err(Problem::unavailable("an answer to another question"));
    };
    let leases = instances.iter().map(|(name, lease)| (name, lease));
    let leads = leader(leases, now.unwrap_or_else(|| engine.now())).filter(|leads| *leads != engine.instance());
    let Some(leads) = leads else {
        return Err(Problem::unavailable("no order instance leads yet: ask again in a moment"));
    };
    let told = heard(|done| orders.peers().auditor(leads, done)).await.flatten();
    let view = told.and_then(|told| serde_json::from_slice(&told).ok());
    view.map(Json).ok_or_else(|| Problem::unavailable(format!("`{leads}`, which leads, does not answer")))
}

/// An audit of everything; one at a time.
async fn now(State(Desk { auditor, .. }): State<Desk>) -> Result<Json<AuditReport>, Problem> {
    let Ok(_alone) = auditor.full.try_lock() else {
        let detail = "an audit is under way already: ask again when it has ended";
        return Err(Problem::new(StatusCode::CONFLICT, "audit_runs", detail));
    };
    let until = Instant::now() + REST;
    loop {
        let report = auditor.books.audit().await.map_err(Problem::unavailable)?;
        if report.compared || !report.is_clean() || Instant::now() >= until {
            return Ok(Json(report));
        }
        tokio::time::sleep(AGAIN).await;
    }
}
