//! How long answers took: percentiles, and the slowest.

use super::*;
use crate::snapshot::Point;

#[test]
fn percentiles_are_those_of_all_instances_together() {
    let buckets = |name: &str, fast: u64, slow: u64| {
        let all = fast + slow;
        let of = "definition=\"checkout\",protocol=\"2pc\",outcome=\"committed\"";
        let line =
            |le: &str, count: u64| format!("settle_transaction_duration_seconds_bucket{{le=\"{le}\",{of}}} {count}\n");
        says(
            name,
            1,
            &(line("0.001", 0) + &line("0.002", fast) + &line("0.5", fast) + &line("1.0", all) + &line("+Inf", all)),
        )
    };
    let mut history = History::new();
    history.second(vec![buckets("order-1", 0, 0), buckets("order-2", 0, 0)]);
    // 90 of 100 take one to two milliseconds, and 10 half a second to a whole one.
    let snapshot = history.second(vec![buckets("order-1", 90, 0), buckets("order-2", 0, 10)]);
    let Latency { p50, p90, p99, p999, slowest } = snapshot.latency_ms;
    assert_eq!((p50, p90, p99, p999), (Some(1.56), Some(2.0), Some(950.0), Some(995.0)));
    assert_eq!(slowest, Some(1_000.0));
    // Ten seconds later nobody knows of them any more.
    for _ in 0..9 {
        assert!(history.second(vec![buckets("order-1", 90, 0), buckets("order-2", 0, 10)]).latency_ms.p50.is_some());
    }
    assert_eq!(
        history.second(vec![buckets("order-1", 90, 0), buckets("order-2", 0, 10)]).latency_ms,
        Latency::default()
    );
}

#[test]
fn a_few_that_waited_are_told_in_their_second_though_they_move_no_percentile() {
    let answered = |fast: u64, slow: u64| {
        let line =
            |le: &str, count: u64| format!("settle_transaction_duration_seconds_bucket{{le=\"{le}\"}} {count}\n");
        let (all, buckets) =
            (fast + slow, [("0.002", fast), ("0.05", fast), ("5.0", fast + slow), ("30.0", fast + slow)]);
        let lines: String = buckets.into_iter().map(|(le, count)| line(le, count)).collect();
        says("order-1", 1, &(lines + &line("+Inf", all)))
    };
    let mut history = History::new();
    history.second(vec![answered(100_000, 0)]);
    history.second(vec![answered(110_000, 0)]);
    // Those who asked while it stood still.
    let Latency { p999, slowest, .. } = history.second(vec![answered(120_000, 19)]).latency_ms;
    assert_eq!((p999.map(|ms| ms <= 2.0), slowest), (Some(true), Some(5_000.0)));
    let after = history.second(vec![answered(130_000, 19)]);
    assert_eq!(Point::of(&after).slowest, Some(2.0), "they waited a second ago");
    let nobody = history.second(vec![answered(130_000, 19)]).latency_ms;
    assert_eq!((nobody.p50.is_some(), nobody.slowest), (true, None));
}
