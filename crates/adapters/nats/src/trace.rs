//! Traces that go along with commands and questions, as the W3C's headers `traceparent` and `tracestate`.

use async_nats::HeaderMap;

const PARENT: &str = "traceparent";
const STATE: &str = "tracestate";
/// Longer than any `traceparent` of a version to come is likely to be.
const MAX_PARENT_BYTES: usize = 128;
/// As the recommendation says.
const MAX_STATE_BYTES: usize = 512;

/// Where a trace stands, in the W3C's own words. This crate passes it on and does not read it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TraceContext {
    parent: Box<str>,
    state: Option<Box<str>>,
}

impl TraceContext {
    /// A context of a `traceparent` and, perhaps, a `tracestate`. `None` if they are too long or not printable ASCII; a `tracestate` alone
    /// is left out then.
    pub fn new(parent: &str, state: Option<&str>) -> Option<Self> {
        let fits = |text: &str, most| {
            (1..=most).contains(&text.len()) && text.bytes().all(|b| b == b' ' || b.is_ascii_graphic())
        };
        let state = state.filter(|state| fits(state, MAX_STATE_BYTES)).map(Into::into);
        fits(parent, MAX_PARENT_BYTES).then(|| Self { parent: parent.into(), state })
    }

    /// The `traceparent`.
    pub fn parent(&self) -> &str {
        &self.parent
    }

    /// The `tracestate`.
    pub fn state(&self) -> Option<&str> {
        self.state.as_deref()
    }

    pub(crate) fn read(headers: Option<&HeaderMap>) -> Option<Self> {
        let headers = headers?;
        Self::new(headers.get(PARENT)?.as_str(), headers.get(STATE).map(async_nats::HeaderValue::as_str))
    }

    pub(crate) fn write(&self, headers: &mut HeaderMap) {
        headers.insert(PARENT, &*self.parent);
        if let Some(state) = &self.state {
            headers.insert(STATE, &**state);
        }
    }
}

/// How traces get in and out. Without one, nothing is spent on them.
pub trait Tracing: Send + Sync + 'static {
    /// The context to send along with a command or a question. Called on the thread that sends it.
    fn outgoing(&self) -> Option<TraceContext>;

    /// Calls `work`, once, with `context` as the current one: the context that came along with a command or a question.
    fn incoming(&self, context: &TraceContext, work: &mut dyn FnMut());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_context_cannot_smuggle_headers_in() {
        for bad in ["", "a\r\nNats-Msg-Id: 1", "\u{fc}", &"a".repeat(MAX_PARENT_BYTES + 1)] {
            assert_eq!(TraceContext::new(bad, None), None, "{bad}");
        }
        let kept = TraceContext::new("00-1-2-01", Some("a=1\n")).unwrap();
        assert_eq!((kept.parent(), kept.state()), ("00-1-2-01", None));
    }

    #[test]
    fn what_was_written_is_read() {
        let context = TraceContext::new("00-1-2-01", Some("a=1,b=2")).unwrap();
        let mut headers = HeaderMap::new();
        context.write(&mut headers);
        assert_eq!(TraceContext::read(Some(&headers)), Some(context));
    }
}
