//! Lines on standard output, and times in them.

use std::io::{ErrorKind, Write};

use anyhow::Context;
use protocol::Timestamp;

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

/// A time as RFC 3339 in UTC, to the millisecond: `2026-10-01T12:00:00.123Z`.
pub(crate) fn time(at: Timestamp) -> String {
    let (seconds, millis) = (at.0 / 1000, at.0 % 1000);
    let (days, of_day) = (seconds / 86_400, seconds % 86_400);
    let (hour, minute, second) = (of_day / 3600, of_day / 60 % 60, of_day % 60);
    // Howard Hinnant's civil_from_days: years of 400-year eras that begin in March, so that a leap day ends its year.
    let since_era_zero = days + 719_468;
    let (era, day_of_era) = (since_era_zero / 146_097, since_era_zero % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{millis:03}Z")
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
        assert!(time(Timestamp(u64::MAX)).ends_with('Z'));
    }
}
