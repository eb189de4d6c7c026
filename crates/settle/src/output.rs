//! Lines on standard output, and times in them.

use std::io::{ErrorKind, Write};

use anyhow::Context;
use protocol::Timestamp;
use time::OffsetDateTime;

/// Writes a line to standard output. `false`: nobody reads any more, as after `| head`, and that is no failure.
pub(crate) fn say(line: &str) -> anyhow::Result<bool> {
    match writeln!(std::io::stdout(), "{line}") {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(false),
        Err(error) => Err(error).context("cannot write to standard output"),
    }
}

/// Writes a line that a server says of itself. It serves whether or not anybody reads that.
pub(crate) fn tell(line: &str) {
    if let Err(error) = say(line) {
        tracing::warn!("{error:#}: {line}");
    }
}

/// A time as RFC 3339 in UTC, to the millisecond: `2026-10-01T12:00:00.123Z`; one that no calendar has, in milliseconds.
pub(crate) fn time(at: Timestamp) -> String {
    let date = i64::try_from(at.0 / 1000).ok().and_then(|seconds| OffsetDateTime::from_unix_timestamp(seconds).ok());
    let Some(date) = date else { return format!("{} ms after 1970", at.0) };
    let (hour, minute, second) = date.to_hms();
    format!("{}T{hour:02}:{minute:02}:{second:02}.{:03}Z", date.date(), at.0 % 1000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_as_the_calendar_has_them() {
        for (millis, text) in [
            (0, "1970-01-01T00:00:00.000Z"),
            (951_782_399_999, "2000-02-28T23:59:59.999Z"),
            (951_782_400_000, "2000-02-29T00:00:00.000Z"),
            (1_790_000_000_123, "2026-09-21T14:13:20.123Z"),
            (4_107_542_400_000, "2100-03-01T00:00:00.000Z"),
        ] {
            assert_eq!(time(Timestamp(millis)), text);
        }
        // The end of time is far away, but no reason to panic.
        assert_eq!(time(Timestamp(u64::MAX)), "18446744073709551615 ms after 1970");
    }
}
