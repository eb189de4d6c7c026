//! Figures for people: counts, times, rates, ratios.

use std::time::Duration;

use time::OffsetDateTime;

/// `34,653`.
#[must_use]
pub fn count(count: u64) -> String {
    let digits = count.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A rate without its unit: whole from a hundred on, with three digits below. `1,946`, `12.3`, `0.50`.
#[must_use]
pub fn rate(per_second: f64) -> String {
    if per_second >= 99.95 {
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a float too large becomes the largest count"
        )]
        return count(per_second.round() as u64);
    }
    three_digits(per_second)
}

/// A time given in microseconds, with three digits: `850 µs`, `1.25 ms`, `12.5 ms`, `2.00 s`, `1 min 40 s`.
#[must_use]
pub fn latency(us: f64) -> String {
    match us {
        _ if !us.is_finite() => "–".into(),
        _ if us < 999.5 => format!("{us:.0} µs"),
        _ if us < 999_500.0 => format!("{} ms", three_digits(us / 1e3)),
        _ if us < 99_950_000.0 => format!("{} s", three_digits(us / 1e6)),
        _ => span(us / 1e6),
    }
}

/// The same for a tick: without zeros that say nothing. `1 ms`, `2.5 s`.
#[must_use]
pub fn latency_tick(us: f64) -> String {
    let text = latency(us);
    match text.split_once(' ') {
        Some((number, unit)) if number.contains('.') => {
            format!("{} {unit}", number.trim_end_matches('0').trim_end_matches('.'))
        }
        _ => text,
    }
}

/// A length of time given in seconds: `8.4 s`, `30 s`, `1 min 40 s`, `2 h`.
#[must_use]
pub fn span(seconds: f64) -> String {
    let Ok(whole) = Duration::try_from_secs_f64(seconds.round()).map(|duration| duration.as_secs()) else {
        return "–".into();
    };
    if whole < 60 {
        let text = format!("{seconds:.1}");
        return format!("{} s", text.strip_suffix(".0").unwrap_or(&text));
    }
    let (large, small) = if whole < 3600 { (60, 1) } else { (3600, 60) };
    let (large_unit, small_unit) = if whole < 3600 { ("min", "s") } else { ("h", "min") };
    match whole % large / small {
        0 => format!("{} {large_unit}", count(whole / large)),
        rest => format!("{} {large_unit} {rest} {small_unit}", count(whole / large)),
    }
}

/// `×1.94`; nothing to divide by is no ratio.
#[must_use]
pub fn ratio(of: f64, to: f64) -> String {
    let ratio = of / to;
    if !ratio.is_finite() || of < 0.0 || to < 0.0 {
        return "–".into();
    }
    if ratio >= 99.95 {
        return format!("×{}", rate(ratio));
    }
    if ratio > 0.0 && ratio < 0.005 { "×<0.01".into() } else { format!("×{}", three_digits(ratio)) }
}

/// A date and time in UTC, to the second: `2026-11-21 20:15:09 UTC`; `None` if no calendar has it.
#[must_use]
pub fn date(unix_ms: u64) -> Option<String> {
    let date = OffsetDateTime::from_unix_timestamp(i64::try_from(unix_ms / 1000).ok()?).ok()?;
    let (hour, minute, second) = date.to_hms();
    Some(format!("{} {hour:02}:{minute:02}:{second:02} UTC", date.date()))
}

/// The text, cut off with a … if it is longer than that many characters.
#[must_use]
pub fn shortened(text: &str, most: usize) -> String {
    // Signs of eastern Asia and emojis are twice as wide as letters.
    let width = |c: char| if c >= '\u{1100}' { 2 } else { 1 };
    if text.chars().map(width).sum::<usize>() <= most {
        return text.to_owned();
    }
    let mut taken = 1;
    let fits = |c: &char| {
        taken += width(*c);
        taken <= most
    };
    let mut short: String = text.chars().take_while(fits).collect();
    short.push('…');
    short
}

fn three_digits(value: f64) -> String {
    match value {
        _ if value < 9.995 => format!("{value:.2}"),
        _ if value < 99.95 => format!("{value:.1}"),
        _ => format!("{value:.0}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_as_people_write_them() {
        assert_eq!([0, 999, 1000, 34_653, 1_000_000].map(count), ["0", "999", "1,000", "34,653", "1,000,000"]);
        assert_eq!([0.0, 0.5, 12.34, 99.96, 1945.6].map(rate), ["0.00", "0.50", "12.3", "100", "1,946"]);
        let times = [0.0, 850.0, 999.6, 1250.0, 12_500.0, 999_600.0, 2e6, 1e8, 7.2e9];
        let words = ["0 µs", "850 µs", "1.00 ms", "1.25 ms", "12.5 ms", "1.00 s", "2.00 s", "1 min 40 s", "2 h"];
        assert_eq!(times.map(latency), words);
        assert_eq!([1e3, 2.5e6, 1e5, 100.0].map(latency_tick), ["1 ms", "2.5 s", "100 ms", "100 µs"]);
        assert_eq!(
            [0.25, 8.44, 30.0, 59.99, 90.0, 3600.0, 5400.0].map(span),
            ["0.2 s", "8.4 s", "30 s", "1 min", "1 min 30 s", "1 h", "1 h 30 min"]
        );
        assert_eq!(date(951_782_399_999).as_deref(), Some("2000-02-28 23:59:59 UTC"));
        assert_eq!(date(1_790_000_000_123).as_deref(), Some("2026-09-21 14:13:20 UTC"));
        assert_eq!(date(u64::MAX), None);
    }

    #[test]
    fn a_ratio_is_to_something() {
        assert_eq!(ratio(1946.0, 1012.0), "×1.92");
        assert_eq!([ratio(0.0, 5.0), ratio(5.0, 0.0), ratio(0.0, 0.0), ratio(f64::NAN, 1.0)], ["×0.00", "–", "–", "–"]);
        assert_eq!([ratio(12.34, 1.0), ratio(1234.0, 1.0), ratio(0.001, 1.0)], ["×12.3", "×1,234", "×<0.01"]);
    }

    #[test]
    fn a_long_text_is_cut_by_its_width() {
        assert_eq!(shortened("short", 5), "short");
        assert_eq!(shortened("longer", 5), "long…");
        assert_eq!(shortened("長い名前", 5), "長い…");
        assert_eq!(shortened("x", 0), "…");
    }
}
