//! Ids of traces and spans, and how the W3C's Trace Context writes them: `00-<trace>-<span>-<flags>`.

use std::fmt;
use std::sync::Arc;

use protocol::limits::MAX_TRACE_STATE_BYTES;

/// A trace. Never all zeros.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct TraceId(pub [u8; 16]);

/// A span. Never all zeros.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct SpanId(pub [u8; 8]);

fn write_hex(f: &mut fmt::Formatter<'_>, bytes: &[u8]) -> fmt::Result {
    bytes.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
}

impl fmt::Display for TraceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_hex(f, &self.0)
    }
}

impl fmt::Debug for TraceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_hex(f, &self.0)
    }
}

impl fmt::Display for SpanId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_hex(f, &self.0)
    }
}

impl fmt::Debug for SpanId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_hex(f, &self.0)
    }
}

/// A place in a trace: what a span's children, here or in another process, are told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TraceContext {
    /// The trace.
    pub trace: TraceId,
    /// The span whose children come.
    pub span: SpanId,
    /// Whether the trace is recorded wherever it goes.
    pub sampled: bool,
    /// What others want to be passed on.
    pub state: Option<Arc<str>>,
}

/// Lower-case hexadecimal digits, as the recommendation demands, that are not all zeros.
fn hex<const N: usize>(text: &[u8]) -> Option<[u8; N]> {
    let digit = |byte: u8| match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        _ => None,
    };
    let mut bytes = [0; N];
    if text.len() != 2 * N {
        return None;
    }
    for (byte, pair) in bytes.iter_mut().zip(text.chunks_exact(2)) {
        *byte = digit(pair[0])? << 4 | digit(pair[1])?;
    }
    Some(bytes)
}

impl TraceContext {
    /// Reads a `traceparent`, and passes a `tracestate` on. `None` if it is none: then a trace begins anew.
    pub fn read(parent: &str, state: Option<&str>) -> Option<Self> {
        let bytes = parent.as_bytes();
        if bytes.len() < 55 || bytes[2] != b'-' || bytes[35] != b'-' || bytes[52] != b'-' {
            return None;
        }
        let [version] = hex::<1>(&bytes[..2])?;
        // A version to come may append to what is known.
        let fits = if version == 0 { bytes.len() == 55 } else { bytes.get(55).is_none_or(|next| *next == b'-') };
        let trace = TraceId(hex(&bytes[3..35])?);
        let span = SpanId(hex(&bytes[36..52])?);
        let [flags] = hex::<1>(&bytes[53..55])?;
        if version == 0xff || !fits || trace.0 == [0; 16] || span.0 == [0; 8] {
            return None;
        }
        let printable = |state: &&str| {
            (1..=MAX_TRACE_STATE_BYTES).contains(&state.len())
                && state.bytes().all(|b| b == b' ' || b.is_ascii_graphic())
        };
        Some(Self { trace, span, sampled: flags & 1 == 1, state: state.filter(printable).map(Into::into) })
    }

    /// The `traceparent`.
    pub fn parent(&self) -> String {
        format!("00-{}-{}-0{}", self.trace, self.span, u8::from(self.sampled))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    #[test]
    fn a_context_is_read_and_written_as_the_recommendation_has_it() {
        let read = TraceContext::read(PARENT, Some("a=1,b=2")).unwrap();
        assert_eq!((read.parent().as_str(), read.sampled, read.state.as_deref()), (PARENT, true, Some("a=1,b=2")));
        let unsampled = PARENT.replace("-01", "-00");
        assert!(!TraceContext::read(&unsampled, None).unwrap().sampled);
        assert_eq!(TraceContext::read(&unsampled, None).unwrap().parent(), unsampled);
        let later = PARENT.replacen("00", "01", 1) + "-what else";
        assert_eq!(TraceContext::read(&later, None).unwrap().parent(), PARENT, "a later version is read as this one");
        assert_eq!(TraceContext::read(PARENT, Some("a\u{fc}")).unwrap().state, None, "the state alone is lost");
    }

    #[test]
    fn what_is_no_context_begins_a_trace() {
        for bad in [
            "",
            "00",
            &PARENT[..54],
            &format!("{PARENT}-"),
            &PARENT.to_uppercase(),
            &PARENT.replacen("00", "ff", 1),
            &PARENT.replace('-', "_"),
            "00-00000000000000000000000000000000-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01",
            "00-0af7651916cd43dd8448eb211c80319\u{e9}-b7ad6b7169203331-01",
            "01-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01x",
        ] {
            assert_eq!(TraceContext::read(bad, None), None, "{bad}");
        }
    }
}
