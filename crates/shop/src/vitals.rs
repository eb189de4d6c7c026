//! What a process says about how it fares: health and metrics, the same routes whatever it serves.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::{Json, Router, middleware};
use serde_json::{Value, json};

use crate::metrics::classic;
use crate::openapi::{Api, Description, schema};
use crate::problem::{Problem, in_problem_details};

/// Why a process should be given no requests.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ailment {
    /// `draining`, `down`: one word.
    pub status: &'static str,
    /// For people.
    pub detail: String,
}

/// What `/health/deep` found.
#[derive(Debug, Clone, PartialEq)]
pub struct Examination {
    /// Whether a checkout could be served.
    pub well: bool,
    /// What was found, by name; `status` is put before it.
    pub findings: serde_json::Map<String, Value>,
}

/// How a process fares.
pub trait Vitals: Send + Sync + 'static {
    /// Why it should be given no requests, if so. Costs nothing, and asks nobody.
    fn ailment(&self) -> Option<Ailment>;

    /// Looks at everything that a checkout needs.
    fn examine(&self) -> Pin<Box<dyn Future<Output = Examination> + Send + '_>>;

    /// Its metrics as Prometheus reads them.
    fn figures(&self) -> Pin<Box<dyn Future<Output = String> + Send + '_>>;
}

type Of = Arc<dyn Vitals>;

/// `/health` and `/metrics`.
pub(crate) fn routes(vitals: Of) -> Api {
    let says = Description::new("health", "Whether to send requests here").json(schema("Health")).also(
        503,
        "Not now: `status` and `detail` say why",
        "application/json",
        schema("Health"),
    );
    let counts = Description::new("metrics", "What this process counts").figures();
    Api::default().get("/health", health, says).get("/metrics", metrics, counts).with_state(vitals)
}

/// `/health/deep`.
pub(crate) fn deep_route(vitals: Of) -> Api {
    let says = Description::new("deepHealth", "Whether a checkout could be served").json(schema("DeepHealth")).also(
        503,
        "It could not",
        "application/json",
        schema("DeepHealth"),
    );
    Api::default().get("/health/deep", deep_health, says).with_state(vitals)
}

/// What is there for every path, and failures as problem details.
pub(crate) fn finish(routes: Router) -> Router {
    let routes = routes.fallback(no_such_route).method_not_allowed_fallback(wrong_method);
    routes.layer(middleware::map_response(in_problem_details))
}

async fn health(State(vitals): State<Of>) -> Response {
    match vitals.ailment() {
        None => Json(json!({ "status": "ok" })).into_response(),
        Some(Ailment { status, detail }) => {
            (StatusCode::SERVICE_UNAVAILABLE, Json(json!({ "status": status, "detail": detail }))).into_response()
        }
    }
}

async fn deep_health(State(vitals): State<Of>) -> Response {
    let Examination { well, findings } = vitals.examine().await;
    let mut body = serde_json::Map::new();
    body.insert("status".to_owned(), json!(if well { "ok" } else { "down" }));
    body.extend(findings);
    let code = if well { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (code, Json(body)).into_response()
}

async fn metrics(State(vitals): State<Of>, asked: HeaderMap) -> Response {
    let text = vitals.figures().await;
    let accepts = asked.get_all(header::ACCEPT).iter().filter_map(|accepts| accepts.to_str().ok());
    // Whoever does not ask for OpenMetrics may read it as the older format, and stumble.
    let (kind, text) = if accepts.into_iter().any(|accepts| accepts.contains("application/openmetrics-text")) {
        ("application/openmetrics-text; version=1.0.0; charset=utf-8", text)
    } else {
        ("text/plain; version=0.0.4; charset=utf-8", classic(&text))
    };
    ([(header::CONTENT_TYPE, HeaderValue::from_static(kind))], text).into_response()
}

async fn no_such_route(request: Request) -> Problem {
    let path: String = request.uri().path().chars().take(200).collect();
    Problem::new(StatusCode::NOT_FOUND, "no_such_route", format!("there is nothing at {} {path}", request.method()))
}

async fn wrong_method(request: Request) -> Problem {
    let path: String = request.uri().path().chars().take(200).collect();
    let detail = format!("{} is not the method of {path}", request.method());
    Problem::new(StatusCode::METHOD_NOT_ALLOWED, "wrong_method", detail)
}
