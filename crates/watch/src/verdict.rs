//! Whether all is well, in a sentence. The worst level that a row gives is the verdict; its rows are the reasons, the first ones told.
//!
//! | level   | when                                                         | words                                                  |
//! |---------|--------------------------------------------------------------|--------------------------------------------------------|
//! | bad     | the auditor found something                                  | `The audit found 2 things that are off`                |
//! | bad     | a command contradicted its branch                            | `1 barrier violation`                                  |
//! | bad     | a commit found no prepared branch                            | `1 barrier repair: a database lost data`               |
//! | bad     | no instance of shop, order, stock, payment or gateway is up  | `Nobody serves stock`                                  |
//! | bad     | no instance that is up reaches a database                    | `Nobody reaches the stock database`                    |
//! | warning | transactions are stuck                                       | `1 transaction is stuck`                               |
//! | warning | a breaker is open                                            | `Checkouts are turned away: stock does not answer`     |
//! | warning | an instance is down or frozen                                | `redis-stock-1 is down`                                |
//! | warning | an instance does not reach its database                      | `order-1 does not reach the orders database`           |
//! | warning | one checkout in a hundred takes more than a second           | `Slow: p99 1.5 s`                                      |
//! | warning | recovery left transactions undecided for ten seconds         | `1 transaction is in doubt`                            |
//! | warning | the auditor runs, and never went through everything          | `The audit has not finished yet`                       |
//! | warning | its last word is older than a quarter of an hour             | `The last audit was 20 minutes ago`                    |
//! | good    | none of these                                                | `Money and stock agree · 0 stuck · p99 12 ms`          |
//! | good    | the same, without an auditor                                 | `Not audited yet · 0 stuck · p99 12 ms`                |
//!
//! Barrier violations and repairs are never forgotten while somebody watches: each is a bug, or lost data.

use crate::limits::{LASTING_DOUBT_MS, MAX_REASONS, SLOW_MS, STALE_AUDIT_MS};
use crate::snapshot::{Kind, Level, Snapshot, State, Verdict};

/// What a client needs: at least one instance of each kind that there is.
const SERVING: [(Kind, &str); 5] = [
    (Kind::Shop, "the shop"),
    (Kind::Order, "orders"),
    (Kind::Stock, "stock"),
    (Kind::Payment, "payment"),
    (Kind::Gateway, "at the gateway"),
];

/// Judges a snapshot, whatever its own verdict says. `in_doubt_ms`: for how long there has been a transaction in doubt without a pause.
pub fn verdict(snapshot: &Snapshot, in_doubt_ms: u64) -> Verdict {
    for (level, reasons) in [(Level::Bad, bad(snapshot)), (Level::Warning, warnings(snapshot, in_doubt_ms))] {
        if let Some(text) = told(reasons) {
            return Verdict { level, text };
        }
    }
    let audited = if snapshot.audit.is_some() { "Money and stock agree" } else { "Not audited yet" };
    let latency = snapshot.latency_ms.p99.map_or("no checkouts".to_owned(), |p99| format!("p99 {}", duration(p99)));
    Verdict { level: Level::Good, text: format!("{audited} · {} stuck · {latency}", snapshot.stuck) }
}

fn told(mut reasons: Vec<String>) -> Option<String> {
    let more = reasons.len().saturating_sub(MAX_REASONS);
    reasons.truncate(MAX_REASONS);
    if more > 0 {
        reasons.push(format!("and {more} more"));
    }
    (!reasons.is_empty()).then(|| reasons.join(" · "))
}

fn bad(snapshot: &Snapshot) -> Vec<String> {
    let mut reasons = vec![];
    if let Some(audit) = snapshot.audit.filter(|audit| audit.findings > 0) {
        let verb = if audit.findings == 1 { "is" } else { "are" };
        reasons.push(format!("The audit found {} that {verb} off", number(audit.findings, "thing")));
    }
    if snapshot.violations > 0 {
        reasons.push(number(snapshot.violations, "barrier violation"));
    }
    if snapshot.repairs > 0 {
        reasons.push(format!("{}: a database lost data", number(snapshot.repairs, "barrier repair")));
    }
    for (kind, what) in SERVING {
        let mut of_kind = snapshot.instances.iter().filter(|it| it.kind == kind).peekable();
        // One that finishes what it has in hand still serves.
        let serves = |state| matches!(state, State::Up | State::Draining);
        if of_kind.peek().is_some() && !of_kind.any(|it| serves(it.state)) {
            reasons.push(format!("Nobody serves {what}"));
        }
    }
    for service in services(snapshot) {
        if stores(snapshot, service).all(|store| !store.up) {
            reasons.push(format!("Nobody reaches the {service} database"));
        }
    }
    reasons
}

fn warnings(snapshot: &Snapshot, in_doubt_ms: u64) -> Vec<String> {
    let mut reasons = vec![];
    if snapshot.stuck > 0 {
        reasons.push(are(snapshot.stuck, "stuck"));
    }
    for breaker in snapshot.breakers.iter().filter(|breaker| breaker.open) {
        reasons.push(format!("Checkouts are turned away: {} does not answer", breaker.service));
    }
    for it in &snapshot.instances {
        if matches!(it.state, State::Down | State::Frozen) {
            reasons.push(format!("{} is {}", it.name, it.state.words()));
        }
    }
    for service in services(snapshot) {
        for store in stores(snapshot, service).filter(|store| !store.up) {
            reasons.push(format!("{} does not reach the {service} database", store.instance));
        }
    }
    if let Some(p99) = snapshot.latency_ms.p99.filter(|p99| *p99 > SLOW_MS) {
        reasons.push(format!("Slow: p99 {}", duration(p99)));
    }
    if snapshot.in_doubt > 0 && in_doubt_ms >= LASTING_DOUBT_MS {
        reasons.push(are(snapshot.in_doubt, "in doubt"));
    }
    if let Some(audit) = snapshot.audit {
        let age = snapshot.at.saturating_sub(audit.at);
        if !audit.complete {
            reasons.push("The audit has not finished yet".to_owned());
        } else if age > STALE_AUDIT_MS {
            reasons.push(format!("The last audit was {} minutes ago", age / 60_000));
        }
    }
    reasons
}

fn services(snapshot: &Snapshot) -> Vec<&str> {
    let mut services: Vec<&str> = snapshot.stores.iter().map(|store| store.service.as_str()).collect();
    services.sort_unstable();
    services.dedup();
    services
}

fn stores<'a>(snapshot: &'a Snapshot, service: &'a str) -> impl Iterator<Item = &'a crate::snapshot::Store> {
    snapshot.stores.iter().filter(move |store| store.service == service)
}

fn number(count: u64, thing: &str) -> String {
    format!("{count} {thing}{}", if count == 1 { "" } else { "s" })
}

fn are(count: u64, what: &str) -> String {
    format!("{} {} {what}", number(count, "transaction"), if count == 1 { "is" } else { "are" })
}

/// A time for people: `0.4 ms`, `12 ms`, `1.5 s`.
pub fn duration(ms: f64) -> String {
    match ms {
        ms if ms < 9.95 => format!("{ms:.1} ms"),
        ms if ms < 999.5 => format!("{ms:.0} ms"),
        ms => format!("{:.1} s", ms / 1e3),
    }
}
