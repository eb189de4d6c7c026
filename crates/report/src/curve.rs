//! The numbers behind the lines.

use crate::limits::{MAX_NINES, MAX_POINTS};
use crate::run::{Latency, PERCENTILES, Run};

/// A line in pieces: where there is nothing to draw, it is interrupted.
pub type Pieces = Vec<Vec<(f64, f64)>>;

/// How many nines a quantile has: 0.9 has one, 0.99 two, 0.5 about a third of one. This is the x of a percentile curve.
#[must_use]
pub fn nines(quantile: f64) -> f64 {
    // Never -0: that would be written so.
    -(1.0 - quantile).max(f64::MIN_POSITIVE).log10() + 0.0
}

/// How many nines so many answers can tell: the axis of theirs ends here.
#[must_use]
#[expect(clippy::cast_precision_loss, reason = "a count is drawn, not summed up")]
pub fn nines_of(count: u64) -> f64 {
    (count.max(1) as f64).log10().min(MAX_NINES)
}

/// Latency by percentile: points of nines and microseconds.
///
/// With a histogram it is exact, and therefore made of steps: level for as many answers as took that long. It ends where the
/// slowest answer stands alone, since no number of answers can say anything of rarer ones. Without a histogram it goes straight from one
/// known percentile to the next.
#[must_use]
#[expect(clippy::cast_precision_loss, reason = "counts are drawn, not summed up")]
pub fn by_percentile(latency: &Latency) -> Vec<(f64, f64)> {
    let end = nines_of(latency.count);
    let mut points: Vec<(f64, f64)> = Vec::new();
    if latency.histogram.is_empty() {
        let known = PERCENTILES.iter().zip(latency.percentiles);
        points.extend(known.filter_map(|((quantile, _), us)| Some((nines(*quantile).min(end), us? as f64))));
        points.push((end, latency.max as f64));
        return points;
    }
    let mut above = latency.histogram.iter().map(|(_, count)| *count as f64).sum::<f64>();
    let total = above;
    let mut from = 0.0;
    for &(us, count) in latency.histogram.iter().filter(|(_, count)| *count > 0) {
        if from >= MAX_NINES {
            break;
        }
        above -= count as f64;
        let to = if above > 0.0 { (total / above).log10().min(end) } else { end };
        points.push((from, us as f64));
        if to > from {
            points.push((to, us as f64));
        }
        from = to;
    }
    points
}

/// Over how many seconds each point of a line over time is taken, so that none of these runs has more than [`MAX_POINTS`].
#[must_use]
pub fn seconds_a_point(runs: &[Run]) -> usize {
    runs.iter().map(|run| run.seconds.len()).max().unwrap_or(0).div_ceil(MAX_POINTS).max(1)
}

/// Committed per second over time: each point in the middle of the time that it is about, in seconds since the start.
///
/// The last second of a run is usually not a whole one, and counts by its length; less than a tenth of one says nothing and is left out.
#[must_use]
#[expect(clippy::cast_precision_loss, reason = "counts are drawn, not summed up")]
pub fn rates(run: &Run, seconds_a_point: usize) -> Pieces {
    let points = parts(run, seconds_a_point).map(|(middle, length, seconds)| {
        (middle, seconds.iter().map(|second| second.committed as f64).sum::<f64>() / length)
    });
    in_pieces(points.map(Some))
}

/// The slowest answer over time, in microseconds. Interrupted where nobody was answered.
#[must_use]
#[expect(clippy::cast_precision_loss, reason = "latencies are drawn, not summed up")]
pub fn slowest(run: &Run, seconds_a_point: usize) -> Pieces {
    in_pieces(parts(run, seconds_a_point).map(|(middle, _, seconds)| {
        let slowest = seconds.iter().filter_map(|second| second.slowest_us).max().filter(|us| *us > 0)?;
        Some((middle, slowest as f64))
    }))
}

/// Middle, length and seconds of each part of a run.
#[expect(clippy::cast_precision_loss, reason = "a day has few seconds")]
fn parts(run: &Run, seconds_a_point: usize) -> impl Iterator<Item = (f64, f64, &[crate::run::Second])> {
    let whole = run.seconds.len().saturating_sub(1);
    let last = run.elapsed - whole as f64;
    // A file that says otherwise is not of `settle load`: take its last second as a whole one.
    let last = if last > 0.0 && last <= 1.0 { last } else { 1.0 };
    let drawn = if last < 0.1 && whole > 0 { whole } else { run.seconds.len() };
    run.seconds[..drawn].chunks(seconds_a_point).enumerate().map(move |(place, seconds)| {
        let start = place * seconds_a_point;
        let ends_last = start + seconds.len() > whole;
        let length = seconds.len() as f64 - if ends_last { 1.0 - last } else { 0.0 };
        (start as f64 + length / 2.0, length, seconds)
    })
}

fn in_pieces(points: impl Iterator<Item = Option<(f64, f64)>>) -> Pieces {
    let mut pieces: Pieces = vec![Vec::new()];
    for point in points {
        match (point, pieces.last_mut()) {
            (Some(point), Some(piece)) => piece.push(point),
            (None, Some(piece)) if !piece.is_empty() => pieces.push(Vec::new()),
            _ => {}
        }
    }
    pieces.retain(|piece| !piece.is_empty());
    pieces
}
