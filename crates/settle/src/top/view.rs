//! A snapshot and its history as lines, for any width.

use std::collections::VecDeque;
use std::time::Instant;

use protocol::Timestamp;
use watch::Snapshot;
use watch::limits::{EVERY_MS, LATENCY_WINDOW_MS, MAX_POINTS, RATE_WINDOW_MS};
use watch::snapshot::{Instance, Level, Point, State};
use watch::verdict::duration;
use watch::words::{digits, number, stuck};

use crate::output::time;

/// Columns of what stands before a line.
const TITLE: usize = 12;
/// Marks that are shown.
const MARKS: usize = 5;

/// What was heard.
#[derive(Debug, Default)]
pub(super) struct Seen {
    pub(super) snapshot: Option<Snapshot>,
    pub(super) points: VecDeque<Point>,
    /// Since when nothing is heard any more, and why.
    pub(super) lost: Option<(Instant, String)>,
}

impl Seen {
    pub(super) fn add(&mut self, point: Point) {
        if self.points.len() >= MAX_POINTS {
            self.points.pop_front();
        }
        self.points.push_back(point);
    }
}

/// All of it: at most so many lines of at most so many columns. If there are too many, instances that are up are left out first.
pub(super) fn view(seen: &Seen, columns: usize, lines: usize) -> Vec<String> {
    let Some(snapshot) = &seen.snapshot else { return vec!["nothing was heard yet".to_owned()] };
    let mut shown = head(seen, snapshot);
    shown.extend(figures(snapshot, &seen.points, columns));
    let marks = marks(snapshot);
    // A line for the table's head, one for what is left out, and one empty.
    let room = lines.saturating_sub(shown.len() + marks.len() + 3);
    shown.extend(instances(snapshot, room));
    shown.extend(marks);
    shown.truncate(lines);
    shown.iter().map(|line| line.trim_end().chars().take(columns).collect()).collect()
}

/// The most important of it in one line.
pub(super) fn line(seen: &Seen) -> String {
    let Some(snapshot) = &seen.snapshot else { return "nothing was heard yet".to_owned() };
    if let Some((since, why)) = &seen.lost {
        return format!("nothing heard for {} s: {why}", since.elapsed().as_secs());
    }
    let Snapshot { rates, latency_ms, verdict, .. } = snapshot;
    format!(
        "{} {} | {}/s committed, {}/s refused | p50 {} p99 {} | {} in flight | {}",
        time(Timestamp(snapshot.at)),
        word(verdict.level),
        rate(rates.committed),
        rate(rates.refused),
        latency(latency_ms.p50),
        latency(latency_ms.p99),
        snapshot.in_flight,
        verdict.text
    )
}

fn word(level: Level) -> &'static str {
    match level {
        Level::Good => "GOOD",
        Level::Unknown => "UNKNOWN",
        Level::Warning => "WARNING",
        Level::Bad => "BAD",
    }
}

fn head(seen: &Seen, snapshot: &Snapshot) -> Vec<String> {
    let mut modes = vec![];
    if snapshot.chaos {
        modes.push("  faults may be injected".to_owned());
    }
    if !snapshot.faults.is_empty() {
        let set: Vec<&str> = snapshot.faults.iter().map(|it| &*it.words).collect();
        modes.push(format!(", and are: {}", set.join(", ")));
    }
    if snapshot.production {
        modes.push("  production".to_owned());
    }
    let Snapshot { title, version, verdict, .. } = snapshot;
    let mut lines = vec![format!("{title} {version}  {}{}", time(Timestamp(snapshot.at)), modes.concat())];
    lines.push(format!("{}  {}", word(verdict.level), verdict.text));
    if let Some((since, why)) = &seen.lost {
        lines.push(format!("nothing heard for {} s: {why}", since.elapsed().as_secs()));
    }
    lines.push(String::new());
    lines
}

fn figures(snapshot: &Snapshot, points: &VecDeque<Point>, columns: usize) -> Vec<String> {
    let Snapshot { rates, latency_ms, .. } = snapshot;
    let each = |name: &str, value: f64| format!("{name} {}/s", rate(value));
    let mut lines = flow(
        "checkouts",
        columns,
        [
            each("committed", rates.committed),
            each("refused", rates.refused),
            each("conflict", rates.conflict),
            each("rolled back", rates.rolled_back),
            each("in doubt", rates.in_doubt),
            each("turned away", rates.turned_away),
        ],
    );
    let committed = |highest: f64| format!("{} committed/s", rate(highest));
    lines.extend(history(columns, points.iter().map(|point| (point.at, Some(point.committed))), committed));
    let told = [
        ("p50", latency_ms.p50),
        ("p90", latency_ms.p90),
        ("p99", latency_ms.p99),
        ("p999", latency_ms.p999),
        // The bound of a bucket of the histogram.
        ("slowest ≤", slowest_lately(points)),
    ];
    lines.extend(flow("latency", columns, told.map(|(name, ms)| format!("{name} {}", latency(ms)))));
    let p99 = points.iter().map(|point| (point.at, point.p99));
    lines.extend(history(columns, p99, |ms| format!("p99 {}", duration(ms))));
    lines.extend(flow(
        "now",
        columns,
        [
            ("in flight", snapshot.in_flight),
            ("queued", snapshot.queued),
            ("unsettled", snapshot.unsettled),
            ("in doubt", snapshot.in_doubt),
            ("dead letters", snapshot.dead_letters),
            ("violations", snapshot.violations),
            ("repairs", snapshot.repairs),
        ]
        .map(|(name, count)| format!("{name} {}", digits(count)))
        .into_iter()
        .chain([format!("stuck {}", snapshot.stuck.map_or("–".to_owned(), stuck))]),
    ));
    for it in &snapshot.definitions {
        let parts = [
            it.protocol.clone(),
            format!("{} % abort", it.abort_percent),
            if it.fixed { "fixed by configuration".to_owned() } else { number(it.switches, "change") + " of protocol" },
        ];
        lines.extend(flow(&it.name, columns, parts));
    }
    let breakers = snapshot.breakers.iter().map(|it| {
        format!("{} {} (opened {})", it.service, if it.open { "OPEN" } else { "closed" }, number(it.trips, "time"))
    });
    lines.extend(flow("breakers", columns, breakers));
    lines.extend(flow("leader", columns, snapshot.leader.clone()));
    lines.extend(flow("audit", columns, [audit(snapshot)]));
    let stores = snapshot.stores.iter().map(|it| {
        let slow = it.flush_p99_ms.map_or(String::new(), |ms| format!(", flush p99 {}", duration(ms)));
        let state = if it.up { "" } else { " AWAY" };
        format!("{} at {}{state} {}/s{slow}", it.service, it.instance, rate(it.commands))
    });
    lines.extend(flow("stores", columns, stores));
    lines.push(String::new());
    lines
}

/// The slowest among the answers that the percentiles are of.
fn slowest_lately(points: &VecDeque<Point>) -> Option<f64> {
    let since = points.back().map_or(0, |last| last.at.saturating_sub(LATENCY_WINDOW_MS));
    points.iter().filter(|point| point.at > since).filter_map(|point| point.slowest).reduce(f64::max)
}

fn audit(snapshot: &Snapshot) -> String {
    match &snapshot.audit {
        None => "not audited yet".to_owned(),
        Some(audit) if !audit.complete => format!("{} looked at, not finished yet", audit.checked),
        Some(audit) => format!(
            "{}, {} looked at, last {} s ago",
            number(audit.findings, "finding"),
            digits(audit.checked),
            snapshot.at.saturating_sub(audit.at) / 1_000
        ),
    }
}

/// A table of the instances, with so many rows: those that are not up first, if there are more.
fn instances(snapshot: &Snapshot, room: usize) -> Vec<String> {
    let row = |it: &Instance| {
        let for_seconds = snapshot.at.saturating_sub(it.since) / 1_000;
        let since = match for_seconds {
            seconds @ 0..60 => format!("{seconds} s"),
            seconds @ 60..3_600 => format!("{} min", seconds / 60),
            seconds => format!("{} h", seconds / 3_600),
        };
        let cpu = it.cpu_percent.map_or(String::new(), |percent| format!("{percent:.1} %"));
        let memory = it.memory_bytes.map_or(String::new(), |bytes| format!("{} MiB", bytes >> 20));
        let role = it.role.as_deref().unwrap_or_default();
        let detail = it.detail.as_deref().unwrap_or_default();
        format!("{:<17} {:<9} {since:>7}  {role:<10} {cpu:>8} {memory:>9}  {detail}", it.name, state(it.state))
    };
    let mut lines =
        vec![format!("{:<17} {:<9} {:>7}  {:<10} {:>8} {:>9}", "instance", "state", "for", "role", "cpu", "memory")];
    if snapshot.instances.len() <= room {
        lines.extend(snapshot.instances.iter().map(row));
        return lines;
    }
    let (up, others): (Vec<&Instance>, Vec<&Instance>) =
        snapshot.instances.iter().partition(|it| it.state == State::Up);
    let all_up = others.len() <= room;
    lines.extend(others.into_iter().chain(up).take(room).map(row));
    let left = snapshot.instances.len() - room;
    lines.push(format!("and {left} more{}", if all_up { ", up" } else { "" }));
    lines
}

fn state(state: State) -> String {
    // What is not well is to be seen at a glance, without colours too.
    let words = state.words();
    if state == State::Up { words.to_owned() } else { words.to_uppercase() }
}

fn marks(snapshot: &Snapshot) -> Vec<String> {
    let last = snapshot.marks.len().saturating_sub(MARKS);
    let mut lines: Vec<String> = snapshot.marks[last..]
        .iter()
        .map(|mark| {
            let clock = |at| time(Timestamp(at))[11..19].to_owned();
            let since = if mark.since < mark.at { format!("{}–", clock(mark.since)) } else { String::new() };
            format!("{since}{}  {}", clock(mark.at), mark.what)
        })
        .collect();
    if !lines.is_empty() {
        lines.insert(0, String::new());
    }
    lines
}

/// Parts behind a title, on as many lines as they need; none if there are no parts.
fn flow(title: &str, columns: usize, parts: impl IntoIterator<Item = String>) -> Vec<String> {
    let mut lines: Vec<String> = vec![];
    for part in parts {
        match lines.last_mut() {
            Some(line) if line.chars().count() + 3 + part.chars().count() <= columns => {
                line.push_str("   ");
                line.push_str(&part);
            }
            Some(_) => lines.push(format!("{:TITLE$} {part}", "")),
            None => lines.push(format!("{title:TITLE$} {part}")),
        }
    }
    lines
}

/// A history in little bars, one a second, the newest to the right, and how high the highest is; nothing if there was nothing. Seconds that nobody
/// knows of, such as those between a stop and a start, are blank.
fn history(
    columns: usize,
    values: impl DoubleEndedIterator<Item = (u64, Option<f64>)>,
    told: impl Fn(f64) -> String,
) -> Vec<String> {
    const BARS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
    // Bars leave some columns for the words.
    let width = columns.saturating_sub(TITLE + 36).clamp(8, 60);
    let seconds = by_second(values, width);
    let highest = seconds.iter().flatten().copied().fold(0.0, f64::max);
    if highest <= 0.0 {
        return vec![];
    }
    let bar = |value: f64| BARS[((value / highest * 8.0).ceil() as usize).clamp(1, 8) - 1];
    let bars: String = seconds.iter().rev().map(|value| value.map_or(' ', bar)).collect();
    vec![format!("{:TITLE$} {bars} up to {}, last {} s", "", told(highest), seconds.len())]
}

/// What was in each of the last seconds, the newest first, up to the oldest of them of which something is known.
fn by_second(values: impl DoubleEndedIterator<Item = (u64, Option<f64>)>, most: usize) -> Vec<Option<f64>> {
    let mut seconds: Vec<Option<f64>> = vec![];
    let mut newest = None;
    // The time of the point behind, and what was there.
    let mut later: Option<(u64, f64)> = None;
    for (at, value) in values.rev() {
        let value = value.unwrap_or_default();
        let ago = newest.get_or_insert(at).saturating_sub(at).saturating_add(EVERY_MS / 2) / EVERY_MS;
        let place = usize::try_from(ago).unwrap_or(usize::MAX);
        if place >= most {
            break;
        }
        // A look that came late tells of the seconds before it, too: it looks back that far.
        let meanwhile = later.filter(|(then, _)| then.saturating_sub(at) <= RATE_WINDOW_MS).map(|(_, value)| value);
        while seconds.len() < place {
            seconds.push(meanwhile);
        }
        match seconds.get_mut(place) {
            Some(second) => *second = Some(second.unwrap_or_default().max(value)),
            None => seconds.push(Some(value)),
        }
        later = Some((at, value));
    }
    seconds
}

fn rate(value: f64) -> String {
    match value {
        value if value >= 99.95 => format!("{value:.0}"),
        value => format!("{value:.1}"),
    }
}

fn latency(ms: Option<f64>) -> String {
    ms.map_or("-".to_owned(), duration)
}

#[cfg(test)]
mod tests {
    use watch::collector::{Collector, Titles};
    use watch::{Kind, Seen as SeenOf};

    use super::*;

    /// Twenty instances, of which two are not well, after a minute of traffic.
    fn seen() -> Seen {
        let titles =
            Titles { title: "settle up".to_owned(), version: "0.1.0".to_owned(), chaos: true, ..Titles::default() };
        let mut collector = Collector::new(titles);
        let state = |n: u64, second: u64| match n {
            17 if second > 0 => State::Down,
            18 if second > 0 => State::Frozen,
            _ => State::Up,
        };
        let mut seen = Seen::default();
        for second in 0..60 {
            let instances = (0..20).map(|n| SeenOf::new(format!("redis-{n}"), Kind::Redis, state(n, second)));
            let mut snapshot = collector.look(1_763_750_000_000 + second * 1_000, instances.collect());
            snapshot.rates.committed = second as f64;
            snapshot.latency_ms.p99 = (second >= 30).then_some(12.0);
            snapshot.latency_ms.slowest =
                [(49, 7_000.0), (52, 5_000.0), (58, 30.0)].into_iter().find(|it| it.0 == second).map(|it| it.1);
            seen.add(Point::of(&snapshot));
            seen.snapshot = Some(snapshot);
        }
        seen
    }

    #[test]
    fn it_fits_whatever_terminal_there_is() {
        let seen = seen();
        for (columns, lines) in [(200, 100), (80, 24), (40, 12), (20, 5), (1, 1), (0, 0)] {
            let shown = view(&seen, columns, lines);
            assert!(shown.len() <= lines, "{} of {lines} lines", shown.len());
            assert!(shown.iter().all(|line| line.chars().count() <= columns), "{columns}: {shown:#?}");
        }
    }

    #[test]
    fn the_slowest_answer_is_told_as_long_as_the_percentiles_are_of_it() {
        let all = view(&seen(), 80, 100);
        let told = "latency      p50 -   p90 -   p99 12 ms   p999 -   slowest ≤ 5.0 s";
        assert!(all.iter().any(|line| line == told), "{all:#?}");
    }

    #[test]
    fn if_there_is_no_room_for_all_those_that_are_not_well_are_shown() {
        let all = view(&seen(), 120, 100);
        assert_eq!(all.iter().filter(|line| line.starts_with("redis-")).count(), 20);
        assert!(all[0].starts_with("settle up 0.1.0  2025-11-21T18:34:19.000Z  faults may be injected"), "{}", all[0]);
        assert!(all.iter().any(|line| line.ends_with("redis-17 is down")), "{all:#?}");
        let few = view(&seen(), 120, 26);
        let rows: Vec<&str> =
            few.iter().map(String::as_str).skip_while(|line| !line.starts_with("instance ")).skip(1).collect();
        assert!(
            rows[0].starts_with("redis-17          DOWN") && rows[1].starts_with("redis-18          FROZEN"),
            "{few:#?}"
        );
        assert!(rows.iter().any(|line| line.starts_with("and ") && line.ends_with(" more, up")), "{few:#?}");
    }

    /// One a second.
    fn every_second(values: impl IntoIterator<Item = Option<f64>>) -> Vec<(u64, Option<f64>)> {
        values.into_iter().enumerate().map(|(second, value)| (second as u64 * 1_000, value)).collect()
    }

    #[test]
    fn a_history_is_drawn_to_the_highest_and_none_is_not_drawn() {
        let four = every_second([1.0, 2.0, 4.0, 8.0].map(Some));
        let bars = history(40, four.into_iter(), |highest| format!("{highest} x"));
        assert_eq!(bars, ["             ▁▂▄█ up to 8 x, last 4 s"]);
        assert!(history(40, every_second([None, Some(0.0)]).into_iter(), |_| String::new()).is_empty());
        let long = every_second((0..600).map(|n| Some(f64::from(n))));
        let long = history(80, long.into_iter(), |highest| highest.to_string());
        assert_eq!(long[0].chars().filter(|c| !c.is_ascii()).count(), 32, "the latest, as many as fit");
    }

    #[test]
    fn a_history_has_a_column_for_each_second_whether_or_not_somebody_looked() {
        let shown = |points: &[(u64, f64)]| {
            history(40, points.iter().map(|(at, value)| (*at, Some(*value))), |highest| highest.to_string())
        };
        let before = [(0, 9.0), (1_000, 9.0)];
        let down = |ms: u64| [&before[..], &[(1_000 + ms, 4.0), (2_000 + ms, 8.0)]].concat();
        assert_eq!(
            shown(&down(180_000)),
            ["             ▄█ up to 8, last 2 s"],
            "what was minutes ago is not of these seconds"
        );
        assert_eq!(shown(&down(6_000)), ["             █     ▄█ up to 9, last 8 s"]);
        // Behind a look that was late nothing is missing, and one out of turn is no second more.
        assert_eq!(
            shown(&[(0, 2.0), (3_100, 4.0), (3_500, 2.0), (4_050, 8.0)]),
            ["             ▂▄▄▄█ up to 8, last 5 s"]
        );
    }

    #[test]
    fn one_line_has_what_matters_and_says_when_nothing_is_heard() {
        let mut seen = seen();
        let told = line(&seen);
        assert!(
            told.starts_with("2025-11-21T18:34:19.000Z WARNING | 59.0/s committed, 0.0/s refused | p50 - p99 12 ms"),
            "{told}"
        );
        seen.lost = Some((Instant::now(), "the connection broke".to_owned()));
        assert_eq!(line(&seen), "nothing heard for 0 s: the connection broke");
        assert!(view(&seen, 80, 24).contains(&line(&seen)));
    }
}
