//! The routes.
//!
//! | route                     | what is answered                                                                        |
//! |---------------------------|-----------------------------------------------------------------------------------------|
//! | `GET /`                   | the page                                                                                |
//! | `GET /dashboard/{file}`   | its other files                                                                         |
//! | `GET /dashboard/snapshot` | the [`Snapshot`] of now                                                                 |
//! | `GET /dashboard/events`   | server-sent events: `history` once, then `snapshot` once a second                       |
//!
//! Whoever reads slowly is sent the newest snapshot when he is ready for one, and none of those between.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Path, Request, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::middleware::{Next, from_fn};
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use futures_util::stream;
use serde_json::json;

use crate::assets::{ASSETS, Asset, PAGE};
use crate::limits::{HEARTBEAT_MS, MAX_LISTENERS};
use crate::snapshot::{Operators, Snapshot};
use crate::watcher::Watch;

/// Says what whoever sent a request may do as an operator.
pub type OperatorsOf = Arc<dyn Fn(&Parts) -> Operators + Send + Sync>;

#[derive(Clone)]
struct Web {
    watch: Watch,
    operators: OperatorsOf,
}

impl Watch {
    /// The routes. `operators` says what whoever asks may do.
    pub fn routes(&self, operators: OperatorsOf) -> Router {
        Router::new()
            .route("/", get(page))
            .route("/dashboard/snapshot", get(snapshot))
            .route("/dashboard/events", get(events))
            .route("/dashboard/{file}", get(asset))
            .with_state(Web { watch: self.clone(), operators })
            .layer(from_fn(guarded))
    }
}

/// The page may load what comes from here, and nothing else; nobody may put it into a page of his own.
const POLICY: &str =
    "default-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'; object-src 'none'";

async fn guarded(request: Request, next: Next) -> Response {
    let mut response = next.run(request).await;
    let headers = response.headers_mut();
    for (name, value) in [
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "no-referrer"),
        (header::X_FRAME_OPTIONS, "DENY"),
        (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
        (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    response
}

async fn page(headers: HeaderMap) -> Response {
    file(&PAGE, &headers)
}

async fn asset(Path(name): Path<String>, headers: HeaderMap) -> Response {
    match ASSETS.iter().find(|asset| asset.name == name) {
        Some(asset) => file(asset, &headers),
        None => {
            let name: String = name.chars().take(200).collect();
            problem(StatusCode::NOT_FOUND, "no_such_route", format!("there is nothing at /dashboard/{name}"))
        }
    }
}

/// A file, or that it is still the one that is known.
fn file(asset: &Asset, headers: &HeaderMap) -> Response {
    let tag = asset.tag();
    let known = headers.get(header::IF_NONE_MATCH).and_then(|known| known.to_str().ok());
    let same = known.is_some_and(|known| known.split(',').any(|one| one.trim().trim_start_matches("W/") == tag));
    // Looked for again every time: another version of the program has other files.
    let common = [(header::ETAG, tag), (header::CACHE_CONTROL, "no-cache".to_owned())];
    match same {
        true => (StatusCode::NOT_MODIFIED, common).into_response(),
        false => (common, [(header::CONTENT_TYPE, asset.kind)], asset.text).into_response(),
    }
}

async fn snapshot(State(web): State<Web>, request: Request) -> Response {
    let (parts, _) = request.into_parts();
    let snapshot = shown(&web.watch.latest(), (web.operators)(&parts));
    ([(header::CACHE_CONTROL, "no-store")], Json(snapshot)).into_response()
}

/// A snapshot as one is shown it who may do so much.
fn shown(snapshot: &Snapshot, operators: Operators) -> Snapshot {
    Snapshot { operators, ..snapshot.clone() }
}

async fn events(State(web): State<Web>, request: Request) -> Response {
    let Ok(place) = web.watch.places().try_acquire_owned() else {
        let detail =
            format!("{MAX_LISTENERS} others listen already: close another page, or ask for /dashboard/snapshot");
        let mut response = problem(StatusCode::SERVICE_UNAVAILABLE, "too_many_listeners", detail);
        response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("5"));
        return response;
    };
    let (parts, _) = request.into_parts();
    let operators = (web.operators)(&parts);
    let mut receiver = web.watch.listen();
    // What is known now is news to this one.
    receiver.mark_changed();
    let history = Some(web.watch.history());
    let listened = (receiver, history, operators, place);
    let events = stream::unfold(listened, |(mut receiver, mut history, operators, place)| async move {
        let event = match history.take() {
            Some(history) => event("history", history.points.last().map_or(0, |last| last.at), &history),
            None => {
                receiver.changed().await.ok()?;
                let latest = Arc::clone(&receiver.borrow_and_update());
                event("snapshot", latest.at, &shown(&latest, operators.clone()))
            }
        };
        Some((Ok::<_, Infallible>(event), (receiver, history, operators, place)))
    });
    let alive = KeepAlive::new().interval(Duration::from_millis(HEARTBEAT_MS)).text("still here");
    let unbuffered = (HeaderName::from_static("x-accel-buffering"), "no");
    ([unbuffered], Sse::new(events).keep_alive(alive)).into_response()
}

fn event(name: &str, id: u64, data: &impl serde::Serialize) -> Event {
    // Figures and words always have a text in JSON.
    let data = serde_json::to_string(data).unwrap_or_default();
    Event::default().event(name).id(id.to_string()).data(data)
}

/// RFC 9457 problem details.
fn problem(status: StatusCode, code: &str, detail: String) -> Response {
    let body = json!({
        "type": format!("urn:settle:problem:{code}"),
        "title": code.replace('_', " "),
        "status": status.as_u16(),
        "code": code,
        "detail": detail,
    });
    (status, [(header::CONTENT_TYPE, "application/problem+json")], body.to_string()).into_response()
}
