//! Which drawings a report has, the table of its runs, and what has to be said about them.

use crate::axis::{Axis, Kind};
use crate::chart::{Chart, Line, Size};
use crate::curve::{self, Pieces};
use crate::limits::MAX_MARKERS;
use crate::outcomes;
use crate::run::{Audit, PERCENTILES, Run};
use crate::svg::Drawing;
use crate::words;

/// A drawing with its words.
pub(crate) struct Figure<'a> {
    pub(crate) title: &'static str,
    pub(crate) caption: String,
    what: What<'a>,
}

enum What<'a> {
    Chart(Chart),
    Outcomes(&'a [Run]),
}

impl Figure<'_> {
    /// The drawing, and its height in px.
    pub(crate) fn draw(&self, size: Size) -> (Drawing, f64) {
        match &self.what {
            What::Chart(chart) => chart.draw(size),
            What::Outcomes(runs) => outcomes::draw(runs, size),
        }
    }
}

/// The drawings for which the runs have something.
pub(crate) fn figures(runs: &[Run]) -> Vec<Figure<'_>> {
    let outcomes = Figure {
        title: "Outcomes",
        caption: "Of all checkouts that were asked for: committed is any 2xx, refused any 4xx, failed is neither, its outcome unknown to the client."
            .to_owned(),
        what: What::Outcomes(runs),
    };
    [percentiles(runs), throughput(runs), slowest(runs)].into_iter().flatten().chain([outcomes]).collect()
}

fn percentiles(runs: &[Run]) -> Option<Figure<'_>> {
    let lines = lines(runs, |run| {
        let latency = run.latency.as_ref()?;
        let marks = PERCENTILES.iter().zip(latency.percentiles).filter_map(|((quantile, name), us)| {
            let us = us? as f64;
            Some((curve::nines(*quantile), us, format!("{}: {name} {}", run.label, words::latency(us))))
        });
        Some((vec![curve::by_percentile(latency)], marks.collect()))
    });
    let (low, high) = ends(&lines)?;
    let y = Axis::latency(low, high);
    let nines = runs.iter().filter_map(|run| Some(curve::nines_of(run.latency.as_ref()?.count))).fold(1.0, f64::max);
    Some(Figure {
        title: "Latency by percentile",
        caption: format!(
            "How long the fastest 50, 90, 99 … of a hundred took at most: each nine to the right is a tenth of the answers before it.{} A line ends \
             where its run has but one slower answer.",
            if y.is_log() { " The scale of latency is logarithmic." } else { "" }
        ),
        what: What::Chart(Chart {
            x: Axis::from_zero(Kind::Nines, nines),
            y,
            x_name: "percentile",
            y_name: "latency",
            lines,
        }),
    })
}

fn throughput(runs: &[Run]) -> Option<Figure<'_>> {
    let (each, over) = resolution(runs);
    let lines = lines(runs, |run| {
        Some(with_marks(curve::rates(run, each), |t, rate| {
            format!("{}, {}: {} per second", run.label, words::span(t), words::rate(rate))
        }))
    });
    let (_, high) = ends(&lines)?;
    Some(Figure {
        title: "Throughput over time",
        caption: format!("Committed checkouts per second, {over}."),
        what: What::Chart(Chart {
            x: time(runs),
            y: Axis::from_zero(Kind::Rate, high),
            x_name: "since the start",
            y_name: "committed per second",
            lines,
        }),
    })
}

fn slowest(runs: &[Run]) -> Option<Figure<'_>> {
    let (each, over) = resolution(runs);
    let lines = lines(runs, |run| {
        Some(with_marks(curve::slowest(run, each), |t, us| {
            format!("{}, {}: {}", run.label, words::span(t), words::latency(us))
        }))
    });
    let (low, high) = ends(&lines)?;
    let y = Axis::latency(low, high);
    Some(Figure {
        title: "Slowest answer over time",
        caption: format!(
            "The longest that any checkout took, {over}, whatever it was answered; a stall shows as a peak or a gap.{}",
            if y.is_log() { " The scale is logarithmic." } else { "" }
        ),
        what: What::Chart(Chart { x: time(runs), y, x_name: "since the start", y_name: "slowest answer", lines }),
    })
}

/// Over how many seconds each point is taken, also in words.
fn resolution(runs: &[Run]) -> (usize, String) {
    match curve::seconds_a_point(runs) {
        1 => (1, "second by second".to_owned()),
        each => (each, format!("each point over {}", words::span(each as f64))),
    }
}

fn time(runs: &[Run]) -> Axis {
    let longest = runs.iter().map(|run| run.elapsed.min(run.seconds.len() as f64)).fold(0.0, f64::max);
    Axis::from_zero(Kind::Time, longest)
}

/// The lines of those runs for which there is one.
fn lines(runs: &[Run], draw: impl Fn(&Run) -> Option<(Pieces, Vec<(f64, f64, String)>)>) -> Vec<Line> {
    let drawn = runs.iter().enumerate().filter_map(|(look, run)| Some((look, run, draw(run)?)));
    let lines = drawn.map(|(look, run, (pieces, marks))| Line { look, label: run.label.clone(), pieces, marks });
    lines.filter(|line| !line.pieces.is_empty()).collect()
}

/// Markers on some of the points, as evenly as can be.
fn with_marks(pieces: Pieces, says: impl Fn(f64, f64) -> String) -> (Pieces, Vec<(f64, f64, String)>) {
    let every = pieces.iter().map(Vec::len).sum::<usize>().div_ceil(MAX_MARKERS).max(1);
    let marks = pieces.iter().flatten().step_by(every).map(|&(x, y)| (x, y, says(x, y))).collect();
    (pieces, marks)
}

/// The lowest and the highest point; `None` if there is none.
fn ends(lines: &[Line]) -> Option<(f64, f64)> {
    let heights = || lines.iter().flat_map(|line| &line.pieces).flatten().map(|(_, y)| *y);
    Some((heights().min_by(f64::total_cmp)?, heights().max_by(f64::total_cmp)?))
}

/// One figure of the table, and its ratio to that of the first run.
pub(crate) struct Cell {
    pub(crate) value: String,
    pub(crate) ratio: Option<String>,
    pub(crate) is_bad: bool,
}

/// The table's columns, but for the first, which names the run.
pub(crate) fn columns() -> Vec<&'static str> {
    let percentiles = PERCENTILES.iter().map(|(_, name)| *name);
    ["committed/s"]
        .into_iter()
        .chain(percentiles)
        .chain(["longest", "committed", "refused", "failed", "audit"])
        .collect()
}

/// One run's row.
#[expect(clippy::cast_precision_loss, reason = "a ratio of three digits")]
pub(crate) fn row(run: &Run, first: &Run) -> Vec<Cell> {
    let is_first = std::ptr::eq(run, first);
    let plain = |value: String, is_bad| Cell { value, ratio: None, is_bad };
    let latency = |of: &dyn Fn(&Run) -> Option<u64>| {
        let us = of(run);
        let ratio = us.zip(of(first)).filter(|_| !is_first).map(|(us, to)| words::ratio(us as f64, to as f64));
        Cell { value: us.map_or("–".into(), |us| words::latency(us as f64)), ratio, is_bad: false }
    };
    let rate = run.committed_per_second();
    let mut cells = vec![Cell {
        value: words::rate(rate),
        ratio: (!is_first).then(|| words::ratio(rate, first.committed_per_second())),
        is_bad: false,
    }];
    cells.extend((0..PERCENTILES.len()).map(|place| latency(&|run| run.latency.as_ref()?.percentiles[place])));
    cells.push(latency(&|run| Some(run.latency.as_ref()?.max)));
    cells.push(plain(words::count(run.committed), false));
    cells.push(plain(words::count(run.refused), false));
    cells.push(plain(words::count(run.failed), run.failed > 0));
    cells.push(match run.audit {
        Audit::Clean => plain("OK".into(), false),
        Audit::Off(findings) => plain(format!("{} off", words::count(findings)), true),
        Audit::Impossible => plain("impossible".into(), true),
        Audit::None => plain("–".into(), false),
    });
    cells
}

/// Something that a reader must know.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Note {
    pub(crate) is_bad: bool,
    pub(crate) text: String,
}

/// What has to be said about these runs, the worst first.
pub(crate) fn notes(runs: &[Run]) -> Vec<Note> {
    let mut notes = Vec::new();
    for Run { label, audit, .. } in runs {
        match audit {
            Audit::Off(findings) => notes.push(Note {
                is_bad: true,
                text: format!(
                    "{label}: money or stock is off: the audit behind this run has {} findings.",
                    words::count(*findings)
                ),
            }),
            Audit::Impossible => {
                notes.push(Note {
                    is_bad: true,
                    text: format!("{label}: the audit behind this run could not read the books."),
                });
            }
            Audit::Clean | Audit::None => {}
        }
    }
    let late = runs.iter().filter(|run| run.overdue > 0);
    notes.extend(late.map(|run| Note {
        is_bad: false,
        text: format!(
            "{}: {} requests were due and never sent, since every connection was busy: the latencies of those are missing.",
            run.label,
            words::count(run.overdue)
        ),
    }));
    let mut differ = Vec::new();
    for what in ["scenario", "pace"] {
        let mut values: Vec<_> =
            runs.iter().filter_map(|run| run.facts.iter().find(|fact| fact.0 == what)).map(|f| &f.1).collect();
        values.sort();
        values.dedup();
        if values.len() > 1 {
            differ.push(what);
        }
    }
    if !differ.is_empty() {
        notes.push(Note {
            is_bad: false,
            text: format!("These runs are not alike: they differ in {}.", differ.join(" and ")),
        });
    }
    for run in runs {
        notes.extend(
            run.left_out.iter().map(|what| Note { is_bad: false, text: format!("{}: left out is {what}.", run.label) }),
        );
    }
    notes
}

/// The headline, and the sentence under it.
pub(crate) fn headline(runs: &[Run]) -> (String, String) {
    match runs {
        [run] => (
            format!("Load run: {}", run.label),
            format!("{} in {}", outcomes::in_words([run.committed, run.refused, run.failed]), words::span(run.elapsed)),
        ),
        [first, ..] => (
            format!("{} load runs compared", runs.len()),
            format!("Each × is a ratio to the first run, {}.", first.label),
        ),
        [] => ("No load runs".to_owned(), String::new()),
    }
}
