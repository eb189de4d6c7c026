//! Reports of runs whose figures are known.

#![allow(clippy::unwrap_used, reason = "in a test a broken expectation is a failed test")]

mod common;

use common::{known, parse, read};
use report::run::{Audit, Second};
use report::{Latencies, Run, curve, page, sheet};
use serde_json::{Value, json};

/// All text of a report.
fn text(document: &roxmltree::Document<'_>) -> String {
    document.descendants().filter(|node| node.is_text()).map(|node| node.text().unwrap()).collect::<Vec<_>>().join("\n")
}

fn assert_points(points: &[(f64, f64)], expected: &[(f64, f64)]) {
    let is_same = |((x, y), (a, b)): (&(f64, f64), &(f64, f64))| (x - a).abs() < 1e-9 && (y - b).abs() < 1e-9;
    assert!(
        points.len() == expected.len() && points.iter().zip(expected).all(is_same),
        "{points:?} instead of {expected:?}"
    );
}

#[test]
fn a_curve_by_percentile_is_exact() {
    let run = parse(&known(), "one").unwrap();
    let latency = run.latency.unwrap();
    assert_eq!(latency.percentiles, [Some(1000), Some(2000), Some(4000), None, None], "100 answers know no p99.9");
    let half = 2_f64.log10();
    let steps =
        [(0.0, 1000.0), (half, 1000.0), (half, 2000.0), (1.0, 2000.0), (1.0, 4000.0), (2.0, 4000.0), (2.0, 9000.0)];
    assert_points(&curve::by_percentile(&latency), &steps);
}

#[test]
fn without_a_histogram_a_curve_goes_through_what_is_known() {
    let mut file = known();
    let latency = &mut file["operations"][0]["committed_latency_us"];
    latency.as_object_mut().unwrap().remove("histogram");
    let run = parse(&file, "one").unwrap();
    let through = [(2_f64.log10(), 1000.0), (1.0, 2000.0), (2.0, 4000.0), (2.0, 9000.0)];
    assert_points(&curve::by_percentile(&run.latency.unwrap()), &through);
    assert_eq!(run.left_out, ["the latency between the percentiles: the file has no `histogram`"]);
}

#[test]
fn percentiles_are_those_that_the_load_client_says() {
    let histogram: Vec<(u64, u64)> = (1..=1000).map(|us| (us * 10, 10)).collect();
    let mut file = known();
    file["operations"][0]["committed_latency_us"] = json!({"count": 10_000, "histogram": histogram});
    let latency = parse(&file, "one").unwrap().latency.unwrap();
    assert_eq!(latency.percentiles, [5000, 9000, 9900, 9990, 10_000].map(Some));
    assert_eq!(latency.max, 10_000);
}

#[test]
fn a_rate_is_that_of_its_second_and_the_last_counts_by_its_length() {
    let mut file = known();
    let run = parse(&file, "one").unwrap();
    assert_points(&curve::rates(&run, 1)[0], &[(0.5, 30.0), (1.5, 50.0), (2.25, 40.0)]);
    assert_points(&curve::rates(&run, 2)[0], &[(1.0, 40.0), (2.25, 40.0)]);
    assert_points(&curve::slowest(&run, 2)[0], &[(1.0, 9000.0), (2.25, 2000.0)]);
    file["elapsed_seconds"] = json!(2.05);
    assert_points(&curve::rates(&parse(&file, "one").unwrap(), 1)[0], &[(0.5, 30.0), (1.5, 50.0)]);
}

#[test]
fn a_long_run_is_drawn_in_averages_and_a_standstill_as_a_gap() {
    let mut run = parse(&known(), "one").unwrap();
    let second = |t: usize| Second { committed: 7, slowest_us: Some(if (500..600).contains(&t) { 0 } else { 90 }) };
    run.seconds = (0..1000).map(second).collect();
    run.elapsed = 1000.0;
    let each = curve::seconds_a_point(std::slice::from_ref(&run));
    assert_eq!(each, 5);
    let rates = curve::rates(&run, each);
    assert_eq!((rates.len(), rates[0].len()), (1, 200));
    assert!(rates[0].iter().all(|(_, rate)| (rate - 7.0).abs() < 1e-9));
    let pieces: Vec<_> = curve::slowest(&run, each).iter().map(|piece| (piece[0].0, piece.len())).collect();
    assert_eq!(pieces, [(2.5, 100), (602.5, 80)]);
}

/// What the wide drawing under this headline has for a line: its points.
fn drawn(document: &roxmltree::Document<'_>, headline: &str, class: &str) -> Vec<(f64, f64)> {
    let line = wide(document, headline).descendants().find(|node| node.attribute("class") == Some(class)).unwrap();
    let data = line.attribute("d").unwrap().replace(['M', 'L'], ";");
    let pair = |point: &str| point.split_once(' ').map(|(x, y)| (x.parse().unwrap(), y.parse().unwrap())).unwrap();
    data.split(';').skip(1).map(pair).collect()
}

fn wide<'a>(document: &'a roxmltree::Document<'a>, headline: &str) -> roxmltree::Node<'a, 'a> {
    let is_head = |node: &roxmltree::Node<'_, '_>| node.has_tag_name("h2") && node.text() == Some(headline);
    let figure = document.descendants().find(is_head).unwrap().parent().unwrap();
    figure.children().find(|node| node.attribute("class") == Some("plot wide")).unwrap()
}

fn tick(drawing: roxmltree::Node<'_, '_>, word: &str, at: &str) -> f64 {
    let tick = drawing.descendants().find(|node| node.has_tag_name("text") && node.text() == Some(word));
    tick.unwrap_or_else(|| panic!("no {word}")).attribute(at).unwrap().parse().unwrap()
}

#[test]
fn lines_lie_at_their_ticks() {
    read(&page(&[parse(&known(), "one").unwrap()]), |document| {
        let percentiles = wide(document, "Latency by percentile");
        let points = drawn(document, "Latency by percentile", "line r0");
        // Words stand 4 px lower than their ticks. Everything is written to a tenth.
        assert!((points[1].0 - tick(percentiles, "50", "x")).abs() < 0.11, "{points:?}");
        let height = |word| tick(percentiles, word, "y") - 4.0;
        for (point, percentile, latency) in [(3, "90", "2 ms"), (5, "99", "4 ms")] {
            assert!((points[point].0 - tick(percentiles, percentile, "x")).abs() < 0.11, "{percentile}: {points:?}");
            assert!((points[point].1 - height(latency)).abs() < 0.11, "{latency}: {points:?}");
        }
        let throughput = wide(document, "Throughput over time");
        let points = drawn(document, "Throughput over time", "line r0");
        assert!((points[0].1 - (tick(throughput, "30", "y") - 4.0)).abs() < 0.11, "{points:?}");
        assert!((points[1].1 - (tick(throughput, "50", "y") - 4.0)).abs() < 0.11, "{points:?}");
        let middle = f64::midpoint(tick(throughput, "1 s", "x"), tick(throughput, "2 s", "x"));
        assert!((points[1].0 - middle).abs() < 0.11, "{points:?}");
    });
}

fn cells(document: &roxmltree::Document<'_>) -> Vec<Vec<String>> {
    let rows = document.descendants().filter(|node| node.has_tag_name("tr"));
    let all_text = |cell: roxmltree::Node<'_, '_>| {
        cell.descendants()
            .filter(roxmltree::Node::is_text)
            .map(|node| node.text().unwrap())
            .collect::<Vec<_>>()
            .join(" ")
    };
    rows.map(|row| row.children().filter(roxmltree::Node::is_element).map(all_text).collect()).collect()
}

#[test]
fn the_table_sets_each_run_beside_the_first() {
    let one = parse(&known(), "one").unwrap();
    let mut file = known();
    file["operations"][0]["committed_latency_us"] = json!({"count": 100, "histogram": [[500, 90], [8000, 10]]});
    file["elapsed_seconds"] = json!(5.0);
    file["operations"][0]["failed"] = json!(3);
    file["audit"]["done"]["findings_total"] = json!(2);
    let two = parse(&file, "two").unwrap();
    assert_eq!(two.audit, Audit::Off(2));
    read(&page(&[one, two]), |document| {
        let rows = cells(document);
        assert_eq!(rows[1][..5], ["one", "40.0", "1.00 ms", "2.00 ms", "4.00 ms"]);
        assert_eq!(rows[2][..5], ["two", "20.0 ×0.50", "500 µs ×0.50", "500 µs ×0.25", "8.00 ms ×2.00"]);
        assert_eq!(rows[1][5..], ["–", "–", "9.00 ms", "100", "10", "0", "OK"]);
        assert_eq!(rows[2][5..], ["–", "–", "8.00 ms ×0.89", "100", "10", "3", "2 off"]);
        assert!(text(document).contains("two: money or stock is off: the audit behind this run has 2 findings."));
        assert!(text(document).contains("10 × 409 insufficient_stock"));
    });
}

#[test]
fn runs_that_are_not_alike_are_called_so() {
    let mut file = known();
    file["config"] = json!({"scenario": "hot-item", "connections": 64, "rate": 50.0});
    let runs = [parse(&known(), "one").unwrap(), parse(&file, "two").unwrap()];
    assert!(page(&runs).contains("These runs are not alike: they differ in scenario and pace."));
    assert!(!page(&[runs[0].clone(), runs[0].clone()]).contains("not alike"));
}

#[test]
fn what_an_older_version_did_not_write_is_left_out_and_said() {
    let mut file = known();
    for gone in ["seconds", "config", "started_at_unix_ms", "settle_version", "audit", "overdue"] {
        file.as_object_mut().unwrap().remove(gone);
    }
    let run = parse(&file, "old").unwrap();
    for report in [page(std::slice::from_ref(&run)), sheet(std::slice::from_ref(&run))] {
        read(&report, |document| {
            let text = text(document);
            assert!(text.contains("old: left out is throughput over time: the file has no `seconds`."), "{text}");
            assert!(text.contains("Latency by percentile") && text.contains("Outcomes"));
            assert!(!text.contains("Throughput over time") && !text.contains("Slowest answer over time"));
        });
    }
    let mut file = known();
    for second in file["seconds"].as_array_mut().unwrap() {
        second.as_object_mut().unwrap().remove("slowest_us");
    }
    file["operations"][0].as_object_mut().unwrap().remove("committed_latency_us");
    read(&page(&[parse(&file, "old").unwrap()]), |document| {
        let text = text(document);
        assert!(text.contains("it is of an older version") && text.contains("the file has no `committed_latency_us`"));
        assert!(
            text.contains("Throughput over time")
                && !text.contains("Latency by percentile")
                && !text.contains("Slowest answer over")
        );
    });
}

#[test]
fn a_run_without_sales_is_drawn_without_their_latency() {
    let mut file = known();
    let checkout = &mut file["operations"][0];
    (checkout["committed"], checkout["committed_latency_us"]) =
        (json!(0), json!({"count": 0, "p50": 0, "max": 0, "histogram": []}));
    let run = parse(&file, "refused").unwrap();
    assert_eq!(run.left_out, ["latency: no answer was a sale; `--latency all` draws that of all answers"]);
    let all = Run::parse(file.to_string().as_bytes(), "f", "l", Latencies::All).unwrap();
    assert!(all.latency.is_some() && all.left_out.is_empty());
}

#[test]
fn nothing_in_a_file_or_label_can_break_out() {
    let nasty = "</title></style><script>alert(1)</script>\"'&\u{202e}\u{0}\u{1b}[31m<";
    let shown = "</title></style><script>alert(1)</script>\"'&\u{fffd}\u{fffd}\u{fffd}[31m<";
    let mut file = known();
    for place in ["/config/url", "/config/scenario", "/settle_version", "/operations/0/refused_by/0/reason"] {
        *file.pointer_mut(place).unwrap() = Value::from(nasty);
    }
    let run = Run::parse(file.to_string().as_bytes(), nasty, nasty, Latencies::Committed).unwrap();
    let (one, two) = ([run.clone()], [run.clone(), run]);
    for report in [page(&one), page(&two), sheet(&one), sheet(&two)] {
        assert!(read(&report, |document| text(document).contains(shown)), "{report}");
        assert!(!report.contains("<script") && !report.contains('\u{202e}') && !report.contains('\u{1b}'));
    }
}

#[test]
fn eight_runs_have_eight_looks() {
    let runs: Vec<Run> = (0..report::limits::MAX_RUNS).map(|n| parse(&known(), &format!("run {n}")).unwrap()).collect();
    for report in [page(&runs), sheet(&runs)] {
        read(&report, |document| {
            for n in 0..runs.len() {
                let lines = document
                    .descendants()
                    .filter(|node| node.attribute("class") == Some(&format!("line r{n}")))
                    .count();
                assert!(lines >= 3, "run {n} has {lines} lines");
            }
        });
    }
}
