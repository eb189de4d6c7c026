//! What the database and the broker of a service say for its metrics.

use std::sync::atomic::{AtomicU64, Ordering};

use nats::Nats;
use redis_store::Statistics;
use shop::metrics::{Batches, Metrics, StoreFigures};

pub(super) fn database(statistics: Statistics, up: bool) -> StoreFigures {
    StoreFigures {
        up,
        connections: statistics.connections,
        flushes: statistics.batches,
        commands: statistics.scripts,
        unknown: Some(statistics.unknown),
        failovers: Some(statistics.failovers),
        disk_bytes: None,
        batches: Some(Batches {
            commands: statistics.batch_scripts.to_vec(),
            microseconds: statistics.batch_microseconds.to_vec(),
            seconds: statistics.batch_nanoseconds as f64 / 1e9,
        }),
    }
}

pub(super) fn broker(metrics: &Metrics, nats: &Nats) {
    let counted = &**nats.statistics();
    let now = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
    let events = [
        ("reconnected", now(&counted.reconnects)),
        ("dropped", now(&counted.dropped)),
        ("sent", now(&counted.sent)),
        ("message", now(&counted.messages)),
        ("replied", now(&counted.replied)),
        ("timed_out", now(&counted.timed_out)),
        ("unreachable", now(&counted.unreachable)),
        ("refused", now(&counted.refused)),
        ("late", now(&counted.late)),
        ("handled", now(&counted.handled)),
        ("redelivered", now(&counted.redelivered)),
        ("failed", now(&counted.failed)),
        ("misdirected", now(&counted.misdirected)),
        ("poison", now(&counted.poison)),
        ("letter_failed", now(&counted.letters_failed)),
        ("asked", now(&counted.asked)),
        ("unanswered", now(&counted.unanswered)),
        ("questioned", now(&counted.questions)),
        ("turned_away", now(&counted.turned_away)),
        ("repaired", now(&counted.repairs)),
    ];
    metrics.broker("nats", nats.is_connected(), &events);
}
