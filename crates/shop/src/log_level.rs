//! The log's filter, looked at and changed while the process runs: `GET` and `PUT /log-level` at the operators' door.
//!
//! An order instance passes it on if it is asked to, since stock and payment have no door: `{"filter": "debug", "service": "stock"}` reaches every
//! instance of stock that is connected.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use protocol::Name;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use telemetry::logs;

use crate::openapi::{Api, Description, schema};
use crate::order_service::OrderService;
use crate::problem::Problem;
use crate::request::called;

pub(crate) fn routes() -> Api<OrderService> {
    let shows = Description::new("logLevel", "What this process logs").json(schema("LogLevel")).reads();
    let changes = Description::new("setLogLevel", "Has this process, or all of a service, log something else")
        .body(schema("LogLevelChange"), true)
        .json(schema("LogLevel"))
        .fails(400, &["bad_argument"])
        .fails(415, &["bad_argument"])
        .fails(422, &["bad_argument"])
        .reads();
    Api::default().get("/log-level", show, shows).put("/log-level", change, changes)
}

/// What an operator wants to be logged.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FilterRequest {
    /// The filter, such as `warn,orchestrator=debug`.
    pub filter: String,
    /// Whose: all instances of this service; or, without it, of this process alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service: Option<String>,
}

async fn show() -> Result<Json<Value>, Problem> {
    let filter = logs::filter().ok_or_else(|| Problem::unavailable("this process does not log"))?;
    Ok(Json(json!({ "filter": filter })))
}

async fn change(
    State(orders): State<OrderService>,
    Json(FilterRequest { filter, service }): Json<FilterRequest>,
) -> Result<Json<Value>, Problem> {
    let Some(service) = service else {
        logs::set_filter(&filter).map_err(|bad| Problem::bad_argument(bad.to_string()))?;
        return show().await;
    };
    logs::check_filter(&filter).map_err(|bad| Problem::bad_argument(bad.to_string()))?;
    let name = ["orders", "stock", "payment"].contains(&service.as_str()).then(|| Name::new(&service).ok()).flatten();
    let name = name.ok_or_else(|| {
        let said: String = service.chars().take(40).collect();
        Problem::bad_argument(format!("there is no service `{said}`: it is orders, stock or payment"))
    })?;
    let told = called(|done| orders.peers().set_log_filter(name, filter.clone(), done)).await?;
    told.map_err(|why| Problem::new(StatusCode::FAILED_DEPENDENCY, "service_unavailable", why))?;
    Ok(Json(json!({ "filter": filter, "service": service })))
}
