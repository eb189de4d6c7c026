//! Failures as RFC 9457 problem details, always a 4xx where the outcome is known.

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::{Map, Value};

pub(crate) const PROBLEM_JSON: &str = "application/problem+json";

/// A failure to be told to a client.
#[derive(Debug, Clone)]
pub struct Problem {
    status: StatusCode,
    code: &'static str,
    detail: String,
    members: Map<String, Value>,
    retry_after: bool,
}

impl Problem {
    /// A problem of this status and stable code; `detail` is for people.
    pub fn new(status: StatusCode, code: &'static str, detail: impl Into<String>) -> Self {
        Self { status, code, detail: detail.into(), members: Map::new(), retry_after: false }
    }

    /// 400: an argument that is no good.
    pub fn bad_argument(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "bad_argument", detail)
    }

    /// 424: a dependency did not answer, and nothing was changed that will not be undone.
    pub fn unavailable(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::FAILED_DEPENDENCY, "service_unavailable", detail)
    }

    /// 504: nobody knows whether it was done. The one failure that is no 4xx, because it is not known to be one.
    pub fn in_doubt(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::GATEWAY_TIMEOUT, "in_doubt", detail)
    }

    /// Adds an id that the caller needs to act.
    #[must_use]
    pub fn with(mut self, member: &str, value: impl ToString) -> Self {
        self.members.insert(member.to_owned(), Value::String(value.to_string()));
        self
    }

    /// Its code and detail, in a line.
    pub(crate) fn summary(&self) -> String {
        format!("{}: {}", self.code, self.detail)
    }

    /// Tells the client to come back in a second.
    #[must_use]
    pub fn retry_later(mut self) -> Self {
        self.retry_after = true;
        self
    }
}

/// The longest refusal of a path, a query or a body that is passed on. Bytes.
const MAX_REASON: usize = 4096;

/// Puts into problem details what the framework refused by itself: a path or a body that is no text, or is too long.
pub(crate) async fn in_problem_details(response: Response) -> Response {
    let said =
        response.headers().get(header::CONTENT_TYPE).is_some_and(|kind| kind.as_bytes() == PROBLEM_JSON.as_bytes());
    let status = response.status();
    if said || !status.is_client_error() {
        return response;
    }
    let reason = axum::body::to_bytes(response.into_body(), MAX_REASON).await.unwrap_or_default();
    Problem::new(status, "bad_argument", String::from_utf8_lossy(&reason)).into_response()
}

impl Problem {
    pub(crate) fn status(&self) -> StatusCode {
        self.status
    }

    pub(crate) fn asks_to_retry(&self) -> bool {
        self.retry_after
    }

    /// The details, as RFC 9457 has them.
    pub(crate) fn into_json(self) -> String {
        let mut body = Map::new();
        let title = self.code.replace('_', " ");
        body.insert("type".to_owned(), Value::String(format!("urn:settle:problem:{}", self.code)));
        body.insert("title".to_owned(), Value::String(title));
        body.insert("status".to_owned(), Value::from(self.status.as_u16()));
        body.insert("code".to_owned(), Value::from(self.code));
        body.insert("detail".to_owned(), Value::String(self.detail));
        body.extend(self.members);
        Value::Object(body).to_string()
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let (status, retry_after) = (self.status, self.retry_after);
        let mut response = (status, self.into_json()).into_response();
        let json = HeaderValue::from_static(PROBLEM_JSON);
        response.headers_mut().insert(header::CONTENT_TYPE, json);
        if retry_after {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
        }
        response
    }
}
