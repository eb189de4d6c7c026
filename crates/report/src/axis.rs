//! Where a value lands, and where the ticks are.

use crate::curve::nines;
use crate::words;

/// What an axis is of, and so how it is divided.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A rate, from zero.
    Rate,
    /// Seconds, from zero.
    Time,
    /// Microseconds, from zero.
    Latency,
    /// Microseconds, each power of ten as long as the next.
    LogLatency,
    /// Nines of a percentile, from none: each nine as long as the next.
    Nines,
}

/// The part of an axis that is drawn.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Axis {
    kind: Kind,
    low: f64,
    high: f64,
}

/// From this ratio on latencies are drawn in powers of ten.
const LOG_FROM: f64 = 10.0;

impl Axis {
    /// An axis from zero to `high`, or a little above.
    pub(crate) fn from_zero(kind: Kind, high: f64) -> Self {
        let high = if high.is_finite() && high > 0.0 { high } else { 1.0 };
        let high = match kind {
            Kind::Time | Kind::Nines => high,
            _ => (high / step(high, 5) - 1e-9).ceil() * step(high, 5),
        };
        Self { kind, low: 0.0, high }
    }

    /// An axis for latencies from `low` to `high`, in powers of ten if they differ much.
    pub(crate) fn latency(low: f64, high: f64) -> Self {
        let low = low.max(1.0);
        if high / low < LOG_FROM {
            return Self::from_zero(Kind::Latency, high);
        }
        let ends = marks().filter(|mark| *mark >= high).min_by(f64::total_cmp).unwrap_or(high);
        let begins = marks().filter(|mark| *mark <= low).max_by(f64::total_cmp).unwrap_or(low);
        Self { kind: Kind::LogLatency, low: begins, high: ends }
    }

    /// Whether equal lengths are equal ratios.
    pub(crate) fn is_log(&self) -> bool {
        self.kind == Kind::LogLatency
    }

    /// Where a value lies between the axis' beginning, 0, and its end, 1. Values beyond lie at the nearest end.
    pub(crate) fn place(&self, value: f64) -> f64 {
        let share = if self.is_log() {
            (value.max(self.low) / self.low).ln() / (self.high / self.low).ln()
        } else {
            (value - self.low) / (self.high - self.low)
        };
        if share.is_finite() { share.clamp(0.0, 1.0) } else { 0.0 }
    }

    /// The values that have a line and a word, rising. About `wanted` of them.
    pub(crate) fn ticks(&self, wanted: usize) -> Vec<(f64, String)> {
        let values: Vec<f64> = match self.kind {
            Kind::Nines => [0.5, 0.9, 0.99, 0.999, 0.9999, 0.999_99, 0.999_999].map(nines).to_vec(),
            Kind::LogLatency => {
                let decades = (self.high / self.low).log10();
                let leads: &[f64] = if decades > 2.5 { &[1.0] } else { &[1.0, 2.0, 5.0] };
                marks()
                    .filter(|mark| leads.iter().any(|lead| is_close(*mark / 10_f64.powf(mark.log10().floor()), *lead)))
                    .collect()
            }
            Kind::Time => (0..=wanted * 2).map(|n| n as f64 * time_step(self.high, wanted)).collect(),
            Kind::Rate | Kind::Latency => (0..=wanted * 3).map(|n| n as f64 * step(self.high, wanted)).collect(),
        };
        let is_drawn = |value: &f64| *value >= self.low * (1.0 - 1e-9) && *value <= self.high * (1.0 + 1e-9);
        values.into_iter().filter(is_drawn).map(|value| (value, self.word(value))).collect()
    }

    fn word(&self, value: f64) -> String {
        match self.kind {
            Kind::Rate if value == 0.0 => "0".into(),
            Kind::Rate if self.high < 10.0 => format!("{value:.1}"),
            Kind::Rate if value < 99.5 => format!("{value:.0}"),
            Kind::Rate => words::rate(value.round()),
            Kind::Time => words::span(value),
            Kind::Latency if value == 0.0 => "0".into(),
            Kind::Latency | Kind::LogLatency => words::latency_tick(value),
            Kind::Nines => {
                let percent = format!("{:.4}", 100.0 * (1.0 - 10_f64.powf(-value)));
                percent.trim_end_matches('0').trim_end_matches('.').to_owned()
            }
        }
    }
}

/// One, two and five microseconds, ten, twenty, fifty, and so on, to beyond what a number in a file can say.
fn marks() -> impl Iterator<Item = f64> {
    (0..20).flat_map(|power| [1.0, 2.0, 5.0].map(|lead| lead * 10_f64.powi(power)))
}

fn is_close(one: f64, other: f64) -> bool {
    (one - other).abs() < 1e-6
}

/// The length between ticks of which about `wanted` make `high`: one, two or five, and zeros.
fn step(high: f64, wanted: usize) -> f64 {
    let least = high / wanted.max(1) as f64;
    let power = 10_f64.powf(least.log10().floor());
    let lead = [1.0, 2.0, 5.0].into_iter().find(|lead| lead * power >= least * (1.0 - 1e-9)).unwrap_or(10.0);
    lead * power
}

/// The same for time, of which sixty make one.
fn time_step(high: f64, wanted: usize) -> f64 {
    let known = [
        1.0, 2.0, 5.0, 10.0, 20.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1200.0, 1800.0, 3600.0, 7200.0, 14_400.0, 21_600.0,
    ];
    let least = high / wanted.max(1) as f64;
    if high < 2.0 {
        return step(high, wanted);
    }
    known.into_iter().find(|step| *step >= least).unwrap_or_else(|| step(high, wanted))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words_of(axis: Axis, wanted: usize) -> Vec<String> {
        axis.ticks(wanted).into_iter().map(|(_, word)| word).collect()
    }

    #[test]
    fn each_nine_is_as_long_as_the_next() {
        let axis = Axis::from_zero(Kind::Nines, 4.0);
        assert_eq!(words_of(axis, 0), ["50", "90", "99", "99.9", "99.99"]);
        for (quantile, place) in [(0.0, 0.0), (0.9, 0.25), (0.99, 0.5), (0.999, 0.75), (0.9999, 1.0)] {
            assert!((axis.place(nines(quantile)) - place).abs() < 1e-9, "{quantile}");
        }
        assert_eq!(words_of(Axis::from_zero(Kind::Nines, 6.0), 0).last().unwrap(), "99.9999");
    }

    #[test]
    fn much_different_latencies_lie_on_powers_of_ten() {
        let axis = Axis::latency(150.0, 80_000.0);
        assert!(axis.is_log());
        assert_eq!(words_of(axis, 5), ["100 µs", "1 ms", "10 ms", "100 ms"]);
        for (us, place) in [(100.0, 0.0), (1_000.0, 1.0 / 3.0), (10_000.0, 2.0 / 3.0), (100_000.0, 1.0)] {
            assert!((axis.place(us) - place).abs() < 1e-9, "{us}");
        }
        assert_eq!(words_of(Axis::latency(900.0, 9_500.0), 5), ["500 µs", "1 ms", "2 ms", "5 ms", "10 ms"]);
        assert_eq!(words_of(Axis::latency(900.0, 4_500.0), 5), ["0", "1 ms", "2 ms", "3 ms", "4 ms", "5 ms"]);
    }

    #[test]
    fn rates_and_times_begin_at_zero_and_have_round_ticks() {
        assert_eq!(words_of(Axis::from_zero(Kind::Rate, 1_946.0), 5), ["0", "500", "1,000", "1,500", "2,000"]);
        assert_eq!(words_of(Axis::from_zero(Kind::Rate, 42.0), 5), ["0", "10", "20", "30", "40", "50"]);
        assert_eq!(words_of(Axis::from_zero(Kind::Rate, 0.0), 5), ["0", "0.2", "0.4", "0.6", "0.8", "1.0"]);
        assert_eq!(words_of(Axis::from_zero(Kind::Time, 30.4), 6), ["0 s", "10 s", "20 s", "30 s"]);
        assert_eq!(
            words_of(Axis::from_zero(Kind::Time, 600.0), 5),
            ["0 s", "2 min", "4 min", "6 min", "8 min", "10 min"]
        );
        assert_eq!(
            words_of(Axis::from_zero(Kind::Time, 86_400.0), 6),
            ["0 s", "4 h", "8 h", "12 h", "16 h", "20 h", "24 h"]
        );
    }

    #[test]
    fn no_figure_lands_outside() {
        let figures = [0.0, 1e-9, 1.0, 1e9, 1e19, 1e300, f64::INFINITY, f64::NAN, -5.0];
        for high in figures {
            for low in figures {
                let axes = [Kind::Rate, Kind::Time, Kind::Latency, Kind::Nines].map(|kind| Axis::from_zero(kind, high));
                for axis in axes.into_iter().chain([Axis::latency(low, high)]) {
                    assert!(figures.iter().all(|value| (0.0..=1.0).contains(&axis.place(*value))), "{axis:?}");
                    assert!(axis.ticks(6).len() <= 60, "{axis:?}");
                }
            }
        }
    }
}
