//! The description of the API: each route is declared together with what it takes and what it answers, and the document is made of that.
//!
//! ```text
//!   Api::get(path, handler, Description) ──► the router
//!                                     └──► the operations ──► document(): OpenAPI 3.1, at /openapi.json; a page that shows it, at /api
//! ```
//!
//! A handler that is no part of an [`Api`] is no route. A test asks every operation for whatever its parameters allow and do not allow, and holds the
//! answers against the document.

use std::collections::BTreeMap;

use axum::Router;
use axum::handler::Handler;
use axum::http::{HeaderValue, header};
use axum::routing::{get, post, put};
use protocol::limits::{MAX_AMOUNT, MAX_BATCH};
use serde_json::{Map, Value, json};

use crate::problem::PROBLEM_JSON;

mod schemas;

const JSON: &str = "application/json";
const TEXT: &str = "text/plain";
/// The page that shows the document. It loads nothing but that.
const PAGE: &str = include_str!("openapi/page.html");

/// What an operation takes and answers.
#[derive(Debug, Clone)]
pub(crate) struct Description {
    id: &'static str,
    summary: &'static str,
    parameters: Vec<Value>,
    body: Option<Value>,
    answers: BTreeMap<u16, Answer>,
}

#[derive(Debug, Clone)]
struct Answer {
    says: String,
    /// By content type.
    bodies: Vec<(&'static str, Value)>,
    retry_after: bool,
}

/// The answer is one of the document's schemas.
pub(crate) fn schema(name: &str) -> Value {
    json!({ "$ref": format!("#/components/schemas/{name}") })
}

impl Description {
    /// An operation with an id of its own.
    pub(crate) fn new(id: &'static str, summary: &'static str) -> Self {
        Self { id, summary, parameters: Vec::new(), body: None, answers: BTreeMap::new() }
    }

    fn answer(mut self, status: u16, says: impl Into<String>, bodies: Vec<(&'static str, Value)>) -> Self {
        self.answers.insert(status, Answer { says: says.into(), bodies, retry_after: false });
        self
    }

    /// 200, as JSON.
    pub(crate) fn json(self, schema: Value) -> Self {
        self.answer(200, "Done", vec![(JSON, schema)])
    }

    /// 200, as text; as JSON for whoever accepts that.
    pub(crate) fn text_or_json(self, schema: Value) -> Self {
        self.answer(
            200,
            "Done; as JSON with `Accept: application/json`",
            vec![(TEXT, json!({ "type": "string" })), (JSON, schema)],
        )
    }

    /// 200, in one of the text formats of Prometheus.
    pub(crate) fn figures(self) -> Self {
        let text = || json!({ "type": "string" });
        self.answer(
            200,
            "As Prometheus reads it; as OpenMetrics, with exemplars, for whoever accepts that",
            vec![(TEXT, text()), ("application/openmetrics-text", text())],
        )
    }

    /// An answer of this status and type that is no failure in problem details.
    pub(crate) fn also(self, status: u16, says: &str, kind: &'static str, schema: Value) -> Self {
        self.answer(status, says, vec![(kind, schema)])
    }

    /// A failure with one of these codes.
    pub(crate) fn fails(self, status: u16, codes: &[&str]) -> Self {
        let says = format!("Refused: `{}`", codes.join("`, `"));
        let members = json!({ "properties": { "status": { "const": status }, "code": { "enum": codes } } });
        let mut operation =
            self.answer(status, says, vec![(PROBLEM_JSON, json!({ "allOf": [schema("Problem"), members] }))]);
        if status == 429
            && let Some(answer) = operation.answers.get_mut(&status)
        {
            answer.retry_after = true;
        }
        operation
    }

    /// What anything that reads a database can answer.
    pub(crate) fn reads(self) -> Self {
        self.fails(424, &["service_unavailable"])
    }

    /// What anything that writes to a database can answer.
    pub(crate) fn writes(self) -> Self {
        self.reads().fails(504, &["in_doubt"])
    }

    /// What any seeding can answer.
    pub(crate) fn seeds(self) -> Self {
        self.fails(403, &["not_in_production"]).fails(409, &["busy"])
    }

    /// It takes an `Idempotency-Key`.
    pub(crate) fn keyed(self) -> Self {
        let key = json!({ "type": "string", "minLength": 1, "maxLength": protocol::limits::MAX_IDEMPOTENCY_KEY_BYTES });
        let says = "A repeat with the same key gets the first answer and changes nothing";
        let parameter = json!({ "name": "Idempotency-Key", "in": "header", "description": says, "schema": key });
        self.with(parameter).fails(400, &["bad_argument"]).fails(422, &["idempotency_key_reused"])
    }

    /// It takes an argument behind the question mark.
    pub(crate) fn query(self, name: &str, says: &str, schema: Value) -> Self {
        self.with(json!({ "name": name, "in": "query", "description": says, "schema": schema }))
            .fails(400, &["bad_argument"])
    }

    /// It takes a body.
    pub(crate) fn body(mut self, schema: Value, required: bool) -> Self {
        self.body = Some(json!({ "required": required, "content": { JSON: { "schema": schema } } }));
        // The framework reads two megabytes at most.
        self.fails(413, &["bad_argument"])
    }

    fn with(mut self, parameter: Value) -> Self {
        self.parameters.push(parameter);
        self
    }

    /// Everything that stands in the path.
    fn in_path(mut self, path: &str) -> Self {
        let names: Vec<&str> = path.split(['{', '}']).skip(1).step_by(2).collect();
        if !names.is_empty() && !self.answers.contains_key(&400) {
            self = self.fails(400, &["bad_argument"]);
        }
        let parameter = |name: &&str| {
            let (says, schema) = argument(name);
            json!({ "name": name, "in": "path", "required": true, "description": says, "schema": schema })
        };
        let parameters: Vec<Value> = names.iter().map(parameter).collect();
        self.parameters.splice(0..0, parameters);
        self
    }

    fn document(&self, tag: &str) -> Value {
        let answer = |(status, answer): (&u16, &Answer)| {
            let bodies = answer.bodies.iter().map(|(kind, schema)| ((*kind).to_owned(), json!({ "schema": schema })));
            let mut said = json!({ "description": answer.says, "content": bodies.collect::<Map<_, _>>() });
            if answer.retry_after {
                said["headers"] =
                    json!({ "Retry-After": { "description": "Seconds", "schema": { "type": "integer" } } });
            }
            (status.to_string(), said)
        };
        let answers: Map<String, Value> = self.answers.iter().map(answer).collect();
        let mut all = json!({ "operationId": self.id, "tags": [tag], "summary": self.summary });
        if !self.parameters.is_empty() {
            all["parameters"] = json!(self.parameters);
        }
        if let Some(body) = &self.body {
            all["requestBody"] = body.clone();
        }
        all["responses"] = Value::Object(answers);
        all
    }
}

/// What is known of an argument by its name.
fn argument(name: &str) -> (&'static str, Value) {
    let whole =
        |least: i64, most: i64| json!({ "type": "integer", "format": "int64", "minimum": least, "maximum": most });
    let id = json!({ "type": "string", "minLength": 1, "examples": ["0", "0190b6e2-7c1f-7c3a-8f00-000000000001"] });
    let batch = MAX_BATCH as i64;
    match name {
        "order" => ("The order's id", id),
        "item" => ("The item's id", id),
        "user" => ("The user's id", id),
        "id" => ("The transaction's id", json!({ "type": "string", "format": "uuid" })),
        "n" => ("How many", whole(1, batch)),
        "items" => ("Items are 0 to this - 1", whole(1, batch)),
        "users" => ("Users are 0 to this - 1", whole(1, batch)),
        "order_price" => ("The price of each item", whole(0, MAX_AMOUNT / 2)),
        "price" => ("The price of a unit", whole(0, MAX_AMOUNT)),
        "stock" => ("Units of each item", whole(0, MAX_AMOUNT)),
        "money" => ("What each user has", whole(0, MAX_AMOUNT)),
        "quantity" => ("Units", whole(1, MAX_AMOUNT)),
        "amount" => ("How much", whole(1, MAX_AMOUNT)),
        _ => ("", json!({ "type": "string" })),
    }
}

#[derive(Debug, Clone)]
struct Route {
    method: &'static str,
    path: String,
    operation: Description,
}

/// Routes with their descriptions.
#[derive(Debug, Clone)]
pub struct Api<S = ()> {
    router: Router<S>,
    routes: Vec<Route>,
}

impl<S: Clone + Send + Sync + 'static> Default for Api<S> {
    /// None yet.
    fn default() -> Self {
        Self { router: Router::new(), routes: Vec::new() }
    }
}

impl<S: Clone + Send + Sync + 'static> Api<S> {
    pub(crate) fn get<H: Handler<T, S>, T: 'static>(mut self, path: &str, handler: H, operation: Description) -> Self {
        self.router = self.router.route(path, get(handler));
        self.described("get", path, operation)
    }

    pub(crate) fn post<H: Handler<T, S>, T: 'static>(mut self, path: &str, handler: H, operation: Description) -> Self {
        self.router = self.router.route(path, post(handler));
        self.described("post", path, operation)
    }

    pub(crate) fn put<H: Handler<T, S>, T: 'static>(mut self, path: &str, handler: H, operation: Description) -> Self {
        self.router = self.router.route(path, put(handler));
        self.described("put", path, operation)
    }

    fn described(mut self, method: &'static str, path: &str, operation: Description) -> Self {
        self.routes.push(Route { method, path: path.to_owned(), operation: operation.in_path(path) });
        self
    }

    /// All of `other` below `prefix`.
    pub(crate) fn nest(mut self, prefix: &str, other: Self) -> Self {
        self.router = self.router.nest(prefix, other.router);
        let below = |route: Route| Route { path: format!("{prefix}{}", route.path), ..route };
        self.routes.extend(other.routes.into_iter().map(below));
        self
    }

    /// All of `other` beside this.
    pub(crate) fn merge(mut self, other: Self) -> Self {
        self.router = self.router.merge(other.router);
        self.routes.extend(other.routes);
        self
    }

    /// Each operation with what the operators' [guard](crate::guard) answers to whom it does not let in.
    pub(crate) fn guarded(mut self) -> Self {
        let guard = |route: Route| Route {
            operation: route
                .operation
                .fails(401, &["unauthorized"])
                .fails(403, &["cross_site", "strange_host", "operators_only"]),
            ..route
        };
        self.routes = self.routes.into_iter().map(guard).collect();
        self
    }

    pub(crate) fn with_state<T>(self, state: S) -> Api<T> {
        Api { router: self.router.with_state(state), routes: self.routes }
    }
}

impl Api {
    /// The same routes, wrapped: what they do is described as before.
    #[must_use]
    pub fn wrapped(mut self, wrap: impl FnOnce(Router) -> Router) -> Self {
        self.router = wrap(self.router);
        self
    }

    /// The router, with the document and the page that shows it. `servers` are what paths may begin with.
    pub(crate) fn described_as(mut self, title: &str, servers: &[&str]) -> Router {
        let own = Description::new("describe", "This document").json(json!({ "type": "object" }));
        let page = Description::new("show", "A page that shows this document");
        let page = page.also(200, "The page", "text/html", json!({ "type": "string" }));
        self = self.described("get", "/openapi.json", own).described("get", "/api", page);
        let text = self.document(title, servers).to_string();
        let document = || async { ([(header::CONTENT_TYPE, HeaderValue::from_static(JSON))], text) };
        let shown = || async { ([(header::CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8"))], PAGE) };
        self.router.route("/openapi.json", get(document)).route("/api", get(shown))
    }

    fn document(&self, title: &str, servers: &[&str]) -> Value {
        let mut paths = Map::new();
        for Route { method, path, operation } in &self.routes {
            let tag = path.split('/').nth(1).filter(|first| ["orders", "stock", "payment", "admin"].contains(first));
            let entry = paths.entry(path.clone()).or_insert_with(|| json!({}));
            entry[*method] = operation.document(tag.unwrap_or("service"));
            let id = format!("{}_{}", operation.id, path.split('/').nth(1).unwrap_or_default());
            entry[*method]["operationId"] = json!(id);
        }
        let servers: Vec<Value> = servers.iter().map(|url| json!({ "url": url })).collect();
        json!({
            "openapi": "3.1.0",
            "info": {
                "title": title,
                "version": env!("CARGO_PKG_VERSION"),
                "description": "Failures are RFC 9457 problem details with a stable `code`; a known failure is always a 4xx.",
                "license": { "name": "Apache-2.0", "identifier": "Apache-2.0" },
            },
            "servers": servers,
            "paths": paths,
            "components": { "schemas": schemas::all() },
        })
    }
}
