//! Whether all is well, in a sentence. The worst level that a row gives is the verdict; its rows are the reasons, the first ones told.
//!
//! | level   | when                                                         | words                                                  |
//! |---------|--------------------------------------------------------------|--------------------------------------------------------|
//! | bad     | the auditor found something                                  | `The audit found 2 things that are off`                |
//! | bad     | a command contradicted its branch                            | `1 barrier violation`                                  |
//! | bad     | a commit found no prepared branch                            | `1 barrier repair: a database lost data`               |
//! | bad     | no instance of shop, order, stock, payment or gateway is up  | `Nobody serves stock`                                  |
//! | bad     | no instance that is up reaches a database                    | `Nobody reaches the stock database`                    |
//! | bad     | customers ask, and none gets an answer that is one           | `No checkout is served: 299 a second are turned away or undone` |
//! | warning | transactions are stuck                                       | `1 transaction is stuck`, `1,000 or more transactions are stuck` |
//! | warning | one checkout in a hundred is not served                      | `15 % of checkouts are turned away or undone`, `…: payment does not answer` |
//! | warning | a breaker is open, or several are                            | `Checkouts are turned away: payment and stock do not answer` |
//! | warning | an instance is down or frozen                                | `redis-stock-1 is down`                                |
//! | warning | no leader is seen, though somebody serves orders              | `No leader is seen: what is stuck is not known`        |
//! | warning | an instance does not reach its database                      | `order-1 does not reach the orders database`           |
//! | warning | one checkout in a hundred takes more than a second, and there are any | `Slow: p99 1.5 s`                             |
//! | warning | recovery left transactions undecided for ten seconds         | `1 transaction is in doubt`                            |
//! | warning | the auditor has run for an hour, and never got to the end    | `The audit has never finished`                         |
//! | warning | its last word is older than an hour                         | `The last audit was 80 minutes ago`                    |
//! | good    | none of these                                                | `Money and stock agree · 0 stuck · p99 12 ms`          |
//! | unknown | the same, while the auditor goes through everything for the first time | `The books are gone through anew: 31,500 rows so far · 0 stuck · p99 12 ms` |
//! | unknown | the same, and no auditor has said anything                   | `Not audited yet · 0 stuck · p99 12 ms`                |
//!
//! What is bad is told without the warnings, save that nobody is served: these may say why.
//!
//! Behind the reasons stands what the audit says, unless it is one of them: `order-1 is down · money and stock agree`, `… · not audited yet`.
//! While a transaction is stuck or in doubt, its money or its stock is neither here nor there, and an audit of everything says that it could not compare.
//! What the auditor knows then is that `all that is settled agrees`.
//!
//! Barrier violations and repairs are never forgotten while somebody watches: each is a bug, or lost data.

use crate::limits::{LASTING_DOUBT_MS, MAX_REASONS, SLOW_MS, STALE_AUDIT_MS, UNSERVED};
use crate::snapshot::{Instance, Kind, Level, Rates, Snapshot, State, Verdict};
use crate::words::{digits, do_not, number, stuck_are};

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
    let mut reasons = bad(snapshot);
    let effect = unserved(snapshot);
    let level = if reasons.is_empty() && effect.is_none() { Level::Warning } else { Level::Bad };
    // That nothing is served is an effect: behind it stands what may be its cause.
    if level == Level::Warning || effect.is_some() {
        reasons.extend(effect);
        reasons.extend(warnings(snapshot, in_doubt_ms));
    }
    if let Some(mut text) = told(reasons) {
        if let Some(books) = books(snapshot) {
            text = format!("{text} · {books}");
        }
        return Verdict { level, text };
    }
    let (level, audited) = match snapshot.audit {
        Some(audit) if audit.complete && is_open(snapshot) => (Level::Good, "All that is settled agrees".to_owned()),
        Some(audit) if audit.complete => (Level::Good, "Money and stock agree".to_owned()),
        Some(audit) => {
            (Level::Unknown, format!("The books are gone through anew: {} rows so far", digits(audit.checked)))
        }
        None => (Level::Unknown, "Not audited yet".to_owned()),
    };
    // Slow, and not a warning: those that were are over, and nobody waits.
    let now = snapshot.latency_ms.p99.filter(|p99| *p99 <= SLOW_MS || is_asked(snapshot));
    let latency = now.map_or("no checkouts".to_owned(), |p99| format!("p99 {}", duration(p99)));
    let stuck = snapshot.stuck.map_or("nobody here knows what is stuck".to_owned(), |stuck| format!("{stuck} stuck"));
    Verdict { level, text: format!("{audited} · {stuck} · {latency}") }
}

/// What the audit says, whatever else is wrong; `None` if that is among the reasons, or there is nothing to be said.
fn books(snapshot: &Snapshot) -> Option<&'static str> {
    match snapshot.audit {
        Some(audit) if audit.findings > 0 => None,
        Some(audit) if audit.complete && is_stale(snapshot, audit.at) => Some("money and stock agreed then"),
        Some(audit) if audit.complete && is_open(snapshot) => Some("all that is settled agrees"),
        Some(audit) if audit.complete => Some("money and stock agree"),
        Some(_) if longest_up_ms(snapshot) > STALE_AUDIT_MS => None,
        _ => Some("not audited yet"),
    }
}

/// Whether there are transactions that nothing can be said of yet, and that do not go by in a moment.
fn is_open(snapshot: &Snapshot) -> bool {
    snapshot.in_doubt > 0 || snapshot.stuck.is_some_and(|stuck| stuck > 0)
}

fn is_stale(snapshot: &Snapshot, audited: u64) -> bool {
    snapshot.at.saturating_sub(audited) > STALE_AUDIT_MS
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

/// A second: checkouts that got no answer which is one, and those that did.
fn served(snapshot: &Snapshot) -> (f64, f64) {
    let Rates { committed, refused, conflict, rolled_back, in_doubt, turned_away, .. } = snapshot.rates;
    (rolled_back + in_doubt + turned_away, committed + refused + conflict)
}

/// How many in a hundred are not served, if others are, and it is no chance.
fn partly_unserved(snapshot: &Snapshot) -> Option<u64> {
    let (unserved, served) = served(snapshot);
    let percent = (100.0 * unserved / (unserved + served)).round().min(99.0) as u64;
    (unserved >= UNSERVED && served > 0.0 && percent > 0).then_some(percent)
}

fn unserved(snapshot: &Snapshot) -> Option<String> {
    let (unserved, served) = served(snapshot);
    (unserved >= UNSERVED && served <= 0.0).then(|| {
        let count =
            if unserved < 1.0 { "all".to_owned() } else { format!("{} a second", digits(unserved.round() as u64)) };
        format!("No checkout is served: {count} are turned away or undone")
    })
}

fn warnings(snapshot: &Snapshot, in_doubt_ms: u64) -> Vec<String> {
    let mut reasons = vec![];
    if let Some(count) = snapshot.stuck.filter(|count| *count > 0) {
        reasons.push(format!("{} stuck", stuck_are(count)));
    }
    let open: Vec<&str> = snapshot.breakers.iter().filter(|it| it.open).map(|it| &*it.service).collect();
    let why = if open.is_empty() { String::new() } else { format!(": {}", do_not(&open, "answer")) };
    match partly_unserved(snapshot) {
        Some(percent) => reasons.push(format!("{percent} % of checkouts are turned away or undone{why}")),
        None if !open.is_empty() => reasons.push(format!("Checkouts are turned away{why}")),
        None => {}
    }
    for it in &snapshot.instances {
        if matches!(it.state, State::Down | State::Frozen) {
            reasons.push(format!("{} is {}", it.name, it.state.words()));
        }
    }
    let leads_or_could = |it: &Instance| matches!(it.kind, Kind::Shop | Kind::Order) && it.state == State::Up;
    if snapshot.stuck.is_none() && snapshot.instances.iter().any(leads_or_could) {
        reasons.push("No leader is seen: what is stuck is not known".to_owned());
    }
    for service in services(snapshot) {
        for store in stores(snapshot, service).filter(|store| !store.up) {
            reasons.push(format!("{} does not reach the {service} database", store.instance));
        }
    }
    if let Some(p99) = snapshot.latency_ms.p99.filter(|p99| *p99 > SLOW_MS && is_asked(snapshot)) {
        reasons.push(format!("Slow: p99 {}", duration(p99)));
    }
    if snapshot.in_doubt > 0 && in_doubt_ms >= LASTING_DOUBT_MS {
        reasons.push(are(snapshot.in_doubt, "in doubt"));
    }
    if let Some(audit) = snapshot.audit {
        if !audit.complete && longest_up_ms(snapshot) > STALE_AUDIT_MS {
            reasons.push("The audit has never finished".to_owned());
        } else if audit.complete && is_stale(snapshot, audit.at) {
            let age = snapshot.at.saturating_sub(audit.at);
            reasons.push(format!("The last audit was {} minutes ago", age / 60_000));
        }
    }
    reasons
}

/// Whether there are checkouts now: percentiles look back further than that. What waits for its answer is one, however long it waits.
fn is_asked(snapshot: &Snapshot) -> bool {
    let Rates { committed, refused, conflict, rolled_back, in_doubt, .. } = snapshot.rates;
    snapshot.in_flight + snapshot.queued > 0 || committed + refused + conflict + rolled_back + in_doubt > 0.0
}

/// For how long there has been an instance that audits. Milliseconds.
fn longest_up_ms(snapshot: &Snapshot) -> u64 {
    let audits = |it: &&Instance| matches!(it.kind, Kind::Shop | Kind::Order) && it.state == State::Up;
    let since = snapshot.instances.iter().filter(audits).map(|it| it.since).min();
    since.map_or(0, |since| snapshot.at.saturating_sub(since))
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::collector::{Collector, Titles};
    use crate::snapshot::{Audit, Breaker, Store};

    const NOW: u64 = 10_000_000;

    fn instance(name: &str, kind: Kind, state: State) -> Instance {
        let (started, role, detail, ended, cpu_percent, memory_bytes) = (None, None, None, None, None, None);
        let (since, recovered) = (0, 0);
        Instance {
            name: name.to_owned(),
            kind,
            state,
            since,
            started,
            role,
            detail,
            ended,
            cpu_percent,
            memory_bytes,
            recovered,
        }
    }

    fn store(service: &str, instance: &str, up: bool) -> Store {
        let (flushes, commands, flush_p99_ms, batch_mean) = (0.0, 0.0, None, None);
        Store {
            service: service.to_owned(),
            instance: instance.to_owned(),
            up,
            flushes,
            commands,
            flush_p99_ms,
            batch_mean,
        }
    }

    fn audit(at: u64, findings: u64, complete: bool) -> Option<Audit> {
        Some(Audit { at, checked: 7, findings, complete })
    }

    /// A system of two instances of each, of which all is well.
    fn well() -> Snapshot {
        let mut snapshot = Collector::new(Titles::default()).blank(NOW);
        for (name, kind) in [("order", Kind::Order), ("stock", Kind::Stock), ("payment", Kind::Payment)] {
            for n in 1..=2 {
                snapshot.instances.push(instance(&format!("{name}-{n}"), kind, State::Up));
            }
        }
        snapshot.instances.push(instance("gateway", Kind::Gateway, State::Up));
        snapshot.instances.push(instance("redis-stock-1", Kind::Redis, State::Up));
        snapshot.stores = vec![store("orders", "order-1", true), store("orders", "order-2", true)];
        snapshot.breakers = vec![Breaker { service: "stock".to_owned(), open: false, trips: 3 }];
        snapshot.audit = audit(NOW - 1_000, 0, true);
        snapshot.latency_ms.p99 = Some(12.3);
        snapshot.rates.committed = 40.0;
        snapshot.stuck = Some(0);
        snapshot
    }

    fn judged(change: impl Fn(&mut Snapshot), in_doubt_ms: u64) -> (Level, String) {
        let mut snapshot = well();
        change(&mut snapshot);
        let Verdict { level, text } = verdict(&snapshot, in_doubt_ms);
        (level, text)
    }

    fn of(snapshot: &mut Snapshot, kind: Kind, state: State) {
        snapshot.instances.iter_mut().filter(|it| it.kind == kind).for_each(|it| it.state = state);
    }

    fn nobody_is_served(snapshot: &mut Snapshot) {
        snapshot.rates = Rates { turned_away: 297.0, rolled_back: 1.6, in_doubt: 0.4, ..Rates::default() };
    }

    fn begun_a_moment_ago(snapshot: &mut Snapshot) {
        snapshot.audit = Some(Audit { at: 0, checked: 31_500, findings: 0, complete: false });
        snapshot.instances.iter_mut().for_each(|it| it.since = NOW - 5_000);
    }

    type Change = fn(&mut Snapshot);

    #[test]
    fn every_row_of_the_table_is_judged_as_it_says() {
        use Level::{Bad, Good, Unknown, Warning};
        let rows: &[(Change, Level, &str)] = &[
            (|it| it.audit = audit(NOW, 2, true), Bad, "The audit found 2 things that are off"),
            (|it| it.audit = audit(NOW, 1, false), Bad, "The audit found 1 thing that is off"),
            (|it| it.violations = 1, Bad, "1 barrier violation"),
            (|it| it.repairs = 2, Bad, "2 barrier repairs: a database lost data"),
            (|it| of(it, Kind::Order, State::Down), Bad, "Nobody serves orders"),
            (|it| of(it, Kind::Stock, State::Frozen), Bad, "Nobody serves stock"),
            (|it| of(it, Kind::Payment, State::Starting), Bad, "Nobody serves payment"),
            (|it| of(it, Kind::Gateway, State::Down), Bad, "Nobody serves at the gateway"),
            (|it| it.instances = vec![instance("shop", Kind::Shop, State::Down)], Bad, "Nobody serves the shop"),
            (|it| it.stores.iter_mut().for_each(|it| it.up = false), Bad, "Nobody reaches the orders database"),
            (|it| it.stuck = Some(1), Warning, "1 transaction is stuck"),
            (|it| it.stuck = Some(3), Warning, "3 transactions are stuck"),
            (|it| it.stuck = Some(1_000), Warning, "1,000 or more transactions are stuck"),
            (|it| it.stuck = None, Warning, "No leader is seen: what is stuck is not known"),
            (|it| nobody_is_served(it), Bad, "No checkout is served: 299 a second are turned away or undone"),
            // One that is refused is served, and one in five seconds may be chance.
            (
                |it| it.rates = Rates { turned_away: 299.0, refused: 0.2, ..Rates::default() },
                Warning,
                "99 % of checkouts are turned away or undone",
            ),
            (
                |it| it.rates = Rates { turned_away: 119.0, rolled_back: 3.0, committed: 683.0, ..Rates::default() },
                Warning,
                "15 % of checkouts are turned away or undone",
            ),
            (
                |it| {
                    it.rates = Rates { rolled_back: 15.0, committed: 85.0, ..Rates::default() };
                    it.breakers[0].open = true;
                },
                Warning,
                "15 % of checkouts are turned away or undone: stock does not answer",
            ),
            (
                |it| it.rates = Rates { turned_away: 4.0, committed: 996.0, ..Rates::default() },
                Good,
                "Money and stock agree · 0 stuck · p99 12 ms",
            ),
            (
                |it| (it.rates.rolled_back, it.rates.committed) = (0.4, 0.0),
                Bad,
                "No checkout is served: all are turned away or undone",
            ),
            (
                |it| (it.rates.turned_away, it.rates.committed) = (0.2, 0.0),
                Good,
                "Money and stock agree · 0 stuck · p99 12 ms",
            ),
            (|it| it.breakers[0].open = true, Warning, "Checkouts are turned away: stock does not answer"),
            (
                |it| {
                    let open = |service: &str| Breaker { service: service.to_owned(), open: true, trips: 1 };
                    it.breakers = vec![open("payment"), open("stock")];
                },
                Warning,
                "Checkouts are turned away: payment and stock do not answer",
            ),
            (|it| it.instances[0].state = State::Down, Warning, "order-1 is down"),
            (|it| it.instances[7].state = State::Frozen, Warning, "redis-stock-1 is frozen"),
            (|it| it.stores[1].up = false, Warning, "order-2 does not reach the orders database"),
            (|it| it.latency_ms.p99 = Some(1_500.0), Warning, "Slow: p99 1.5 s"),
            (|it| it.audit = audit(0, 0, false), Warning, "The audit has never finished"),
            (
                |it| begun_a_moment_ago(it),
                Unknown,
                "The books are gone through anew: 31,500 rows so far · 0 stuck · p99 12 ms",
            ),
            (
                |it| it.audit = audit(NOW - 80 * 60_000, 0, true),
                Warning,
                "The last audit was 80 minutes ago · money and stock agreed then",
            ),
            (|_| {}, Good, "Money and stock agree · 0 stuck · p99 12 ms"),
            (|it| it.latency_ms.p99 = Some(1_000.0), Good, "Money and stock agree · 0 stuck · p99 1.0 s"),
            (|it| it.latency_ms.p99 = None, Good, "Money and stock agree · 0 stuck · no checkouts"),
            // Nobody asks any more, or everybody waits.
            (
                |it| (it.latency_ms.p99, it.rates.committed) = (Some(1_600.0), 0.0),
                Good,
                "Money and stock agree · 0 stuck · no checkouts",
            ),
            (
                |it| (it.latency_ms.p99, it.rates.committed, it.in_flight) = (Some(1_600.0), 0.0, 1),
                Warning,
                "Slow: p99 1.6 s",
            ),
            (|it| it.in_doubt = 1, Good, "All that is settled agrees · 0 stuck · p99 12 ms"),
            (|it| it.audit = None, Unknown, "Not audited yet · 0 stuck · p99 12 ms"),
            (|it| it.audit = audit(NOW - 14 * 60_000, 0, true), Good, "Money and stock agree · 0 stuck · p99 12 ms"),
            // One of two is enough to serve, and one that is told to stop serves.
            (|it| it.instances[2].state = State::Draining, Good, "Money and stock agree · 0 stuck · p99 12 ms"),
            (|it| of(it, Kind::Order, State::Draining), Good, "Money and stock agree · 0 stuck · p99 12 ms"),
        ];
        for (change, level, text) in rows {
            let of_the_books = matches!(level, Warning | Bad)
                && !text.starts_with("The audit ")
                && !text.starts_with("The last audit ");
            let books = if text.ends_with("stuck") { "all that is settled agrees" } else { "money and stock agree" };
            let text = if of_the_books { format!("{text} · {books}") } else { (*text).to_owned() };
            assert_eq!(judged(change, 0), (*level, text));
        }
    }

    #[test]
    fn what_the_audit_says_is_told_whatever_else_is_wrong() {
        let stuck = |audit: Option<Audit>| {
            let change = |it: &mut Snapshot| {
                begun_a_moment_ago(it);
                (it.stuck, it.audit) = (Some(1), audit);
            };
            judged(change, 0).1
        };
        assert_eq!(stuck(audit(NOW, 0, true)), "1 transaction is stuck · all that is settled agrees");
        assert_eq!(stuck(audit(0, 0, false)), "1 transaction is stuck · not audited yet");
        assert_eq!(stuck(None), "1 transaction is stuck · not audited yet");
        assert_eq!(
            stuck(audit(NOW - 80 * 60_000, 0, true)),
            "1 transaction is stuck · The last audit was 80 minutes ago · money and stock agreed then"
        );
        assert_eq!(stuck(audit(NOW, 1, true)), "The audit found 1 thing that is off", "and not that they agree");
    }

    #[test]
    fn doubt_is_worth_a_warning_once_it_lasts() {
        let in_doubt = |it: &mut Snapshot| it.in_doubt = 1;
        assert_eq!(judged(in_doubt, LASTING_DOUBT_MS - 1).0, Level::Good);
        assert_eq!(
            judged(in_doubt, LASTING_DOUBT_MS),
            (Level::Warning, "1 transaction is in doubt · all that is settled agrees".to_owned())
        );
        assert_eq!(judged(|_| {}, LASTING_DOUBT_MS).0, Level::Good);
    }

    #[test]
    fn the_worst_is_told_and_no_more_reasons_than_people_read() {
        let change = |it: &mut Snapshot| {
            (it.violations, it.stuck) = (1, Some(1));
            of(it, Kind::Order, State::Down);
        };
        assert_eq!(
            judged(change, 0),
            (Level::Bad, "1 barrier violation · Nobody serves orders · all that is settled agrees".to_owned())
        );
        let change = |it: &mut Snapshot| it.instances.iter_mut().step_by(2).for_each(|it| it.state = State::Down);
        let (level, text) = judged(change, 0);
        assert_eq!((level, text.as_str()), (Level::Bad, "Nobody serves at the gateway · money and stock agree"));
        let change = |it: &mut Snapshot| {
            it.stuck = Some(1);
            for at in [0, 2, 4, 7] {
                it.instances[at].state = State::Down;
            }
        };
        let expected =
            "1 transaction is stuck · order-1 is down · stock-1 is down · and 2 more · all that is settled agrees";
        assert_eq!(judged(change, 0), (Level::Warning, expected.to_owned()));
    }

    #[test]
    fn that_nobody_is_served_is_told_with_what_may_be_the_cause() {
        let change = |it: &mut Snapshot| {
            nobody_is_served(it);
            of(it, Kind::Redis, State::Down);
        };
        let (level, text) = judged(change, 0);
        let reasons: Vec<&str> = text.split(" · ").collect();
        assert!(level == Level::Bad && reasons[0].starts_with("No checkout is served"), "{text}");
        assert!(reasons[1].starts_with("redis-") && reasons[1].ends_with(" is down"), "{text}");
    }

    #[test]
    fn times_are_told_as_people_read_them() {
        for (ms, text) in
            [(0.04, "0.0 ms"), (0.42, "0.4 ms"), (9.96, "10 ms"), (12.3, "12 ms"), (999.4, "999 ms"), (999.6, "1.0 s")]
        {
            assert_eq!(duration(ms), text);
        }
    }
}
