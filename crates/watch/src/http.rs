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

#[cfg(test)]
mod tests {
    use axum::body::{Body, Bytes};
    use http_body_util::BodyExt;
    use tower_service::Service;

    use super::*;
    use crate::collector::{Collector, Titles};

    fn watch() -> (Watch, Router) {
        let watch = Watch::of(Collector::new(Titles::default()).blank(1));
        let operators: OperatorsOf = Arc::new(|parts: &Parts| match parts.headers.contains_key("x-operator") {
            true => Operators::yes(),
            false => Operators::no("who are you"),
        });
        let routes = watch.routes(operators);
        (watch, routes)
    }

    async fn ask(routes: &Router, path: &str, headers: &[(&str, &str)]) -> Response {
        let request = headers.iter().fold(Request::get(path), |request, (name, value)| request.header(*name, *value));
        routes.clone().call(request.body(Body::empty()).unwrap()).await.unwrap()
    }

    async fn piece(body: &mut Body) -> String {
        let frame = tokio::time::timeout(Duration::from_secs(20), body.frame()).await.expect("something comes");
        let frame = frame.unwrap().unwrap().into_data().unwrap_or_else(|_| Bytes::new());
        String::from_utf8(frame.to_vec()).unwrap()
    }

    fn at(at: u64) -> Snapshot {
        Collector::new(Titles::default()).blank(at)
    }

    #[tokio::test]
    async fn every_answer_forbids_what_a_page_does_not_need() {
        let (_watch, routes) = watch();
        for path in ["/", "/dashboard/style.css", "/dashboard/snapshot", "/dashboard/events", "/dashboard/nothing"] {
            let answer = ask(&routes, path, &[]).await;
            let said = |name: &str| answer.headers().get(name).map_or("", |value| value.to_str().unwrap());
            let policy = said("content-security-policy");
            assert!(policy.starts_with("default-src 'self';") && policy.contains("frame-ancestors 'none'"), "{path}");
            assert!(!policy.contains("unsafe") && said("x-content-type-options") == "nosniff", "{path}");
            assert_eq!(said("referrer-policy"), "no-referrer", "{path}");
        }
        assert_eq!(ask(&routes, "/dashboard/nothing", &[]).await.status(), StatusCode::NOT_FOUND);
    }

    #[tokio::test]
    async fn a_file_is_sent_again_only_if_it_is_another() {
        let (_watch, routes) = watch();
        let first = ask(&routes, "/", &[]).await;
        assert_eq!(
            (first.status(), &first.headers()["cache-control"]),
            (StatusCode::OK, &HeaderValue::from_static("no-cache"))
        );
        let tag = first.headers()["etag"].to_str().unwrap().to_owned();
        for known in [tag.clone(), format!("W/{tag}"), format!("\"x\", {tag}")] {
            let again = ask(&routes, "/", &[("if-none-match", &known)]).await;
            assert_eq!(again.status(), StatusCode::NOT_MODIFIED, "{known}");
            assert!(again.into_body().collect().await.unwrap().to_bytes().is_empty());
        }
        assert_eq!(ask(&routes, "/", &[("if-none-match", "\"x\"")]).await.status(), StatusCode::OK);
    }

    #[tokio::test]
    async fn whoever_asks_is_told_what_he_may_do() {
        let (_watch, routes) = watch();
        for (headers, allowed) in [(&[][..], "no"), (&[("x-operator", "1")], "yes")] {
            let body =
                ask(&routes, "/dashboard/snapshot", headers).await.into_body().collect().await.unwrap().to_bytes();
            let snapshot: serde_json::Value = serde_json::from_slice(&body).unwrap();
            assert_eq!(snapshot["operators"]["allowed"], allowed);
        }
    }

    #[tokio::test]
    async fn a_slow_listener_is_sent_the_history_and_then_the_newest() {
        let (watch, routes) = watch();
        watch.tell(at(2));
        let mut body = ask(&routes, "/dashboard/events", &[]).await.into_body();
        let history = piece(&mut body).await;
        assert!(
            history.starts_with("event: history\nid: 2\ndata: {\"every_ms\":1000,\"points\":[{\"at\":2,"),
            "{history}"
        );
        // What is known already comes at once.
        assert!(piece(&mut body).await.starts_with("event: snapshot\nid: 2\n"));
        for n in 3..9 {
            watch.tell(at(n));
        }
        assert!(piece(&mut body).await.starts_with("event: snapshot\nid: 8\n"));
        let none = tokio::time::timeout(Duration::from_millis(50), body.frame()).await;
        assert!(none.is_err(), "nothing is sent twice");
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_on_which_nothing_happens_is_kept_alive() {
        let (_watch, routes) = watch();
        let mut body = ask(&routes, "/dashboard/events", &[]).await.into_body();
        assert!(piece(&mut body).await.starts_with("event: history"));
        assert!(piece(&mut body).await.starts_with("event: snapshot"));
        assert_eq!(piece(&mut body).await, ": still here\n\n");
    }

    #[tokio::test]
    async fn only_so_many_listen_and_who_leaves_makes_room() {
        let (watch, routes) = watch();
        assert!(!watch.is_watched());
        let mut listeners = vec![];
        for _ in 0..MAX_LISTENERS {
            listeners.push(ask(&routes, "/dashboard/events", &[]).await);
        }
        let one_more = ask(&routes, "/dashboard/events", &[]).await;
        assert_eq!(one_more.status(), StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(one_more.headers()["content-type"], "application/problem+json");
        assert!(watch.is_watched());
        listeners.pop();
        assert_eq!(ask(&routes, "/dashboard/events", &[]).await.status(), StatusCode::OK);
        drop(listeners);
        assert!(!watch.is_watched());
    }

    #[test]
    fn ten_minutes_are_kept_and_no_more() {
        let (watch, _) = watch();
        for n in 0..700 {
            watch.tell(at(n * 1_000));
            // Something happened between two seconds.
            watch.tell(at(n * 1_000 + 300));
        }
        let points = watch.history().points;
        assert_eq!((points.len(), points[0].at, points[599].at), (600, 100_000, 699_000));
    }
}
