//! Runs with known figures, and a reader of reports.

use report::{Latencies, Run};
use serde_json::{Value, json};

/// A hundred checkouts in two seconds and a half: 50 took 1 ms, 40 took 2, 9 took 4, and one 9. Ten more were refused.
pub(crate) fn known() -> Value {
    let latency = json!({"count": 100, "mean": 1800.0, "p50": 1000, "p90": 2000, "p99": 4000, "p999": 9000, "p9999": 9000, "max": 9000,
        "histogram": [[1000, 50], [2000, 40], [4000, 9], [9000, 1]]});
    let second = |committed: u64, slowest: u64| json!({"requests": committed, "committed": committed, "refused": 0, "failed": 0, "slowest_us": slowest});
    json!({
        "settle_version": "0.1.0", "started_at_unix_ms": 1_790_000_000_123_u64,
        "config": {"url": "http://127.0.0.1:8000", "scenario": "uniform", "connections": 64, "rate": null},
        "elapsed_seconds": 2.5, "requests": 110, "committed": 100, "committed_per_second": 40.0, "overdue": 0,
        "operations": [{"operation": "checkout", "requests": 110, "committed": 100, "refused": 10, "failed": 0,
            "refused_by": [{"reason": "409 insufficient_stock", "count": 10}], "failed_by": [],
            "committed_latency_us": latency, "all_latency_us": latency}],
        "seconds": [second(30, 4000), second(50, 9000), second(20, 2000)],
        "audit": {"done": {"orders": 110, "findings_total": 0, "findings": []}}, "sales": null
    })
}

pub(crate) fn parse(run: &Value, label: &str) -> Result<Run, String> {
    Run::parse(run.to_string().as_bytes(), "folder/run.json", label, Latencies::Committed)
}

/// Reads a report, which must be well-formed, and checks that it needs nothing and runs nothing.
pub(crate) fn read<T>(report: &str, look: impl Fn(&roxmltree::Document<'_>) -> T) -> T {
    let text = report.strip_prefix("<!DOCTYPE html>").unwrap_or(report);
    let document = roxmltree::Document::parse(text).unwrap_or_else(|error| panic!("{error}: {text}"));
    let mut ids = std::collections::HashSet::new();
    for element in document.descendants().filter(roxmltree::Node::is_element) {
        let name = element.tag_name().name();
        assert!(
            !["script", "link", "img", "image", "iframe", "object", "use", "a", "foreignObject"].contains(&name),
            "{name}"
        );
        for attribute in element.attributes() {
            let (name, value) = (attribute.name(), attribute.value());
            assert!(!name.starts_with("on") && !["href", "src", "style"].contains(&name), "{name}={value}");
            assert!(name != "id" || ids.insert(value.to_owned()), "twice: {value}");
            let is_number =
                ["x", "y", "x1", "x2", "y1", "y2", "width", "height", "d", "transform", "viewBox"].contains(&name);
            assert!(!is_number || !(value.contains("NaN") || value.contains("inf")), "{name}={value}");
        }
        if name == "style" {
            let rules = element.text().unwrap();
            assert!(!rules.contains("@import") && rules.matches("url(").count() == rules.matches("url(#").count());
        }
    }
    look(&document)
}
