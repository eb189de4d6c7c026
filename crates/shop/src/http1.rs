//! As much of HTTP/1.1 (RFC 9112) as a plain checkout needs. What is not exactly that is left to hyper.

use std::cell::Cell;
use std::time::{SystemTime, UNIX_EPOCH};

use axum::http::StatusCode;
use ledger::EntityId;

use crate::front::CHECKOUT_ROUTE;
use crate::problem::{PROBLEM_JSON, Problem};

/// The longest head that is looked at here. Bytes.
const MAX_HEAD: usize = 8 * 1024;
/// Header fields of a plain request.
const MAX_FIELDS: usize = 24;

/// What the bytes read so far begin with.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Head {
    /// A plain checkout, whose request has so many bytes.
    Checkout {
        /// Of this order.
        order: EntityId,
        /// The request's length: it has no body.
        bytes: usize,
    },
    /// A head that is not complete.
    Incomplete,
    /// Anything else, nonsense included.
    Other,
}

/// Looks at what a client sent.
pub(crate) fn head(read: &[u8]) -> Head {
    if read.is_empty() {
        return Head::Incomplete;
    }
    let mut fields = [httparse::EMPTY_HEADER; MAX_FIELDS];
    let mut request = httparse::Request::new(&mut fields);
    let bytes = match request.parse(read) {
        Ok(httparse::Status::Complete(bytes)) => bytes,
        Ok(httparse::Status::Partial) if read.len() < MAX_HEAD => return Head::Incomplete,
        Ok(httparse::Status::Partial) | Err(_) => return Head::Other,
    };
    let order = request.path.and_then(|path| path.strip_prefix(CHECKOUT_ROUTE)).and_then(|order| order.parse().ok());
    match order {
        Some(order) if request.method == Some("POST") && request.version == Some(1) && is_plain(request.headers) => {
            Head::Checkout { order, bytes }
        }
        _ => Head::Other,
    }
}

/// Whether a request with these fields has no body, keeps the connection, and asks for plain text. Fields that are not known here may mean
/// something.
fn is_plain(fields: &[httparse::Header<'_>]) -> bool {
    let mut hosts = 0;
    let known = fields.iter().all(|field| {
        let is = |name: &str| field.name.eq_ignore_ascii_case(name);
        if is("host") {
            hosts += 1;
            return true;
        }
        if is("content-length") {
            return field.value == b"0";
        }
        if is("connection") {
            return field.value.eq_ignore_ascii_case(b"keep-alive");
        }
        if is("accept") {
            return field.value == b"*/*" || field.value == b"text/plain";
        }
        const HARMLESS: [&str; 6] = [
            "user-agent",
            "accept-encoding",
            "accept-language",
            "content-type",
            "x-forwarded-for",
            "x-forwarded-proto",
        ];
        HARMLESS.into_iter().any(is)
    });
    known && hosts == 1
}

/// 200 with a plain text.
pub(crate) fn text(text: &str) -> Vec<u8> {
    response(StatusCode::OK, "text/plain; charset=utf-8", false, text)
}

/// A failure with its problem details.
pub(crate) fn problem(problem: Problem) -> Vec<u8> {
    let (status, retry_later) = (problem.status(), problem.asks_to_retry());
    response(status, PROBLEM_JSON, retry_later, &problem.into_json())
}

fn response(status: StatusCode, kind: &str, retry_later: bool, body: &str) -> Vec<u8> {
    let mut out = Vec::with_capacity(192 + body.len());
    let mut line = |parts: &[&str]| {
        parts.iter().for_each(|part| out.extend_from_slice(part.as_bytes()));
        out.extend_from_slice(b"\r\n");
    };
    line(&["HTTP/1.1 ", status.as_str(), " ", status.canonical_reason().unwrap_or_default()]);
    line(&["content-type: ", kind]);
    if retry_later {
        line(&["retry-after: 1"]);
    }
    let mut digits = itoa::Buffer::new();
    line(&["content-length: ", digits.format(body.len())]);
    out.extend_from_slice(b"date: ");
    out.extend_from_slice(&date());
    out.extend_from_slice(b"\r\n\r\n");
    out.extend_from_slice(body.as_bytes());
    out
}

/// A date of RFC 9110 has this many bytes.
const DATE: usize = 29;

/// The time, as RFC 9110 writes it. It is written once a second by each thread.
fn date() -> [u8; DATE] {
    thread_local! {
        static WRITTEN: Cell<(u64, [u8; DATE])> = const { Cell::new((0, [b' '; DATE])) };
    }
    let now = SystemTime::now();
    let second = now.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let (of, written) = WRITTEN.get();
    if of == second {
        return written;
    }
    let mut fresh = [b' '; DATE];
    let text = httpdate::fmt_http_date(now);
    fresh.iter_mut().zip(text.bytes()).for_each(|(to, from)| *to = from);
    WRITTEN.set((second, fresh));
    fresh
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plain(fields: &str) -> String {
        format!("POST /orders/checkout/7 HTTP/1.1\r\nHost: shop\r\n{fields}\r\n")
    }

    #[test]
    fn a_plain_checkout_is_told_from_everything_else() {
        let request = plain("content-length: 0\r\nAccept: */*\r\n");
        let expected = Head::Checkout { order: EntityId::number(7), bytes: request.len() };
        assert_eq!(head(request.as_bytes()), expected);
        let two = format!("{request}{request}");
        assert_eq!(head(two.as_bytes()), expected, "the next request is left alone");
        for special in [
            "content-length: 1\r\n",
            "transfer-encoding: chunked\r\n",
            "expect: 100-continue\r\n",
            "connection: close\r\n",
            "idempotency-key: a\r\n",
            "accept: application/json\r\n",
            "traceparent: 00-0-0-00\r\n",
            "host: another\r\n",
        ] {
            assert_eq!(head(plain(special).as_bytes()), Head::Other, "{special}");
        }
        for other in [
            "GET /orders/checkout/7 HTTP/1.1\r\nhost: a\r\n\r\n",
            "POST /orders/checkout/7 HTTP/1.0\r\nhost: a\r\n\r\n",
            "POST /orders/checkout/7 HTTP/1.1\r\n\r\n",
            "POST /orders/checkout/007 HTTP/1.1\r\nhost: a\r\n\r\n",
            "POST /orders/checkout/7?a HTTP/1.1\r\nhost: a\r\n\r\n",
            "POST /orders/checkout/%37 HTTP/1.1\r\nhost: a\r\n\r\n",
            "POST /orders/checkout/7/ HTTP/1.1\r\nhost: a\r\n\r\n",
            "nonsense\r\n\r\n",
            "\0\0\0\0",
        ] {
            assert_eq!(head(other.as_bytes()), Head::Other, "{other}");
        }
    }

    #[test]
    fn an_incomplete_head_is_awaited_up_to_a_bound() {
        let request = plain("");
        for end in 0..request.len() {
            assert_eq!(head(&request.as_bytes()[..end]), Head::Incomplete, "{end}");
        }
        let endless = plain(&format!("x: {}", "a".repeat(MAX_HEAD)));
        assert_eq!(head(&endless.as_bytes()[..MAX_HEAD]), Head::Other);
    }

    #[test]
    fn a_response_is_what_any_client_reads() {
        let response = text("Checkout successful");
        let mut fields = [httparse::EMPTY_HEADER; 8];
        let mut parsed = httparse::Response::new(&mut fields);
        let httparse::Status::Complete(body) = parsed.parse(&response).unwrap() else { panic!("incomplete") };
        assert_eq!((parsed.code, parsed.reason), (Some(200), Some("OK")));
        let value = |name: &str| parsed.headers.iter().find(|field| field.name == name).map(|field| field.value);
        assert_eq!(value("content-length"), Some(b"19".as_slice()));
        let date = std::str::from_utf8(value("date").unwrap()).unwrap();
        assert!(httpdate::parse_http_date(date).is_ok(), "{date}");
        assert_eq!(&response[body..], b"Checkout successful");
    }
}
