//! What became of an event, for people and as JSON.

use load::audit::{Finding, Verdict};
use serde::Serialize;

/// What one event cost.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Row {
    /// What was done, and to whom.
    pub(super) event: String,
    /// The components that were hit.
    pub(super) hit: Vec<String>,
    /// Checkouts answered 200 while it lasted.
    pub(super) paid: u64,
    /// Answered with a 4xx.
    pub(super) refused: u64,
    /// Not answered, or by neither.
    pub(super) unknown: u64,
    /// The longest time without a checkout that succeeded. Milliseconds.
    pub(super) gap_ms: u64,
    /// What that was to be at most. Milliseconds.
    pub(super) goal_ms: u64,
    /// Whether Sentinels promoted a replica, where they had to.
    pub(super) promoted: Option<bool>,
    /// From the end of the fault until nothing was under way and the books matched; `None`: not in time. Milliseconds.
    pub(super) settled_ms: Option<u64>,
    /// Transactions called stuck.
    pub(super) stuck: u64,
    /// Answers that did not stay true.
    pub(super) lost_answers: u64,
    /// Users who were charged too much.
    pub(super) overcharged: u64,
    /// Other accounts that do not match the paid orders.
    pub(super) off: u64,
    /// The first of what was found.
    pub(super) findings: Vec<String>,
    /// Components that did not come back in time.
    pub(super) missing: Vec<String>,
}

impl Row {
    /// Counts what an audit found.
    pub(super) fn count(&mut self, verdict: &Verdict) {
        for finding in &verdict.findings {
            match finding {
                Finding::SoldButUnpaid { .. }
                | Finding::RefusedButPaid { .. }
                | Finding::PaidUnasked { .. }
                | Finding::NoLongerPaid { .. } => self.lost_answers += 1,
                Finding::Credit { off_by, .. } if *off_by < 0 => self.overcharged += 1,
                _ => self.off += 1,
            }
        }
        // Beyond those that are spelt out.
        self.off += verdict.findings_total - verdict.findings.len() as u64;
        self.findings = verdict.findings.iter().take(10).map(ToString::to_string).collect();
    }

    /// Whether anything was lost, or did not come back; or nothing was at stake.
    pub(super) fn is_bad(&self) -> bool {
        self.paid == 0
            || self.lost_answers + self.overcharged + self.off + self.stuck > 0
            || self.settled_ms.is_none()
            || !self.missing.is_empty()
            || self.promoted == Some(false)
    }

    /// Whether checkouts stood still for longer than they should.
    pub(super) fn is_late(&self) -> bool {
        self.gap_ms > self.goal_ms
    }

    pub(super) fn head() -> String {
        format!(
            "{:<52} {:>6} {:>7} {:>7} {:>6} {:>6} {:>8} {:>5} {:>4} {:>6} {:>4}",
            "event", "paid", "refused", "unknown", "gap s", "goal s", "settled", "stuck", "lost", "double", "off"
        )
    }

    pub(super) fn line(&self) -> String {
        let seconds = |ms: u64| format!("{:.1}", std::time::Duration::from_millis(ms).as_secs_f64());
        let settled = self.settled_ms.map_or("no".to_owned(), seconds);
        let late = if self.is_late() { "!" } else { "" };
        let mut line = format!(
            "{:<52} {:>6} {:>7} {:>7} {:>6} {:>6} {:>8} {:>5} {:>4} {:>6} {:>4}",
            self.event,
            self.paid,
            self.refused,
            self.unknown,
            seconds(self.gap_ms) + late,
            seconds(self.goal_ms),
            settled,
            self.stuck,
            self.lost_answers,
            self.overcharged,
            self.off
        );
        for finding in &self.findings {
            line.push_str("\n    ");
            line.push_str(finding);
        }
        if self.promoted == Some(false) {
            line.push_str("\n    no replica was promoted");
        }
        if !self.missing.is_empty() {
            line.push_str(&format!("\n    not back in time: {}", self.missing.join(", ")));
        }
        line
    }
}

/// A whole run.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Report {
    /// What repeats the choices of a run.
    pub(super) seed: u64,
    /// Event by event.
    pub(super) events: Vec<Row>,
    /// Of all orders, at the end.
    pub(super) audit: Verdict,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sound() -> Row {
        Row {
            event: "an event".to_owned(),
            hit: vec![],
            paid: 10,
            refused: 0,
            unknown: 0,
            gap_ms: 0,
            goal_ms: 5_000,
            promoted: None,
            settled_ms: Some(1),
            stuck: 0,
            lost_answers: 0,
            overcharged: 0,
            off: 0,
            findings: vec![],
            missing: vec![],
        }
    }

    #[test]
    fn whatever_was_lost_or_did_not_come_back_makes_an_event_a_failure() {
        assert!(!sound().is_bad());
        let order = || "1".into();
        for (finding, lost, overcharged, off) in [
            (Finding::SoldButUnpaid { order: order() }, 1, 0, 0),
            (Finding::RefusedButPaid { order: order(), status: 409 }, 1, 0, 0),
            (Finding::NoLongerPaid { order: order() }, 1, 0, 0),
            (Finding::Credit { user: order(), expected: 5, actual: 3, off_by: -2 }, 0, 1, 0),
            (Finding::Credit { user: order(), expected: 5, actual: 7, off_by: 2 }, 0, 0, 1),
            (Finding::Stock { item: order(), expected: 5, actual: 3, off_by: -2 }, 0, 0, 1),
        ] {
            let mut row = sound();
            row.count(&Verdict { findings_total: 1, findings: vec![finding], ..Verdict::default() });
            assert_eq!((row.lost_answers, row.overcharged, row.off), (lost, overcharged, off));
            assert!(row.is_bad() && row.findings.len() == 1);
        }
        assert!(Row { settled_ms: None, ..sound() }.is_bad());
        assert!(Row { stuck: 1, ..sound() }.is_bad());
        assert!(Row { missing: vec!["nats".to_owned()], ..sound() }.is_bad());
        assert!(Row { paid: 0, ..sound() }.is_bad(), "nothing was at stake");
        assert!(Row { promoted: Some(false), ..sound() }.is_bad() && !Row { promoted: Some(true), ..sound() }.is_bad());
        let late = Row { gap_ms: 5_001, ..sound() };
        assert!(late.is_late() && !late.is_bad() && late.line().contains("5.0!"), "{}", late.line());
        assert!(!Row { gap_ms: 5_000, ..sound() }.is_late());
    }
}
