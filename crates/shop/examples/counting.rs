//! Measures what counting costs: everything that the shop counts and times for one paid checkout, over and over, by as many threads on the same figures as
//! there are in `settle serve` on this machine: one where there are two processors at most, else two; and what telling all of it to a scraper costs. Prints
//! nanoseconds for each: by the clock, so that they are no less than the processor's.
//!
//! `cargo run --release -p settle-shop --example counting -- [CHECKOUTS]`

use std::error::Error;
use std::hint::black_box;
use std::time::{Duration, Instant};

use axum::http::StatusCode;
use orchestrator::{Name, Observation, Observer, Outcome};
use protocol::{BranchId, BranchState, Protocol, Reply, Timestamp, TransactionId, Verb};
use shop::checkout::{CHECKOUT, PAYMENT, STOCK};
use shop::metrics::Metrics;

/// What is told of one paid checkout by two-phase commit, its request included; `micros` differ as those of real ones do.
fn tell(metrics: &Metrics, id: TransactionId, micros: u64) {
    let replied = |service: Name, step: u8, verb: Verb| {
        let branch = BranchId { transaction: id, step };
        let reply = Reply::Done(if verb == Verb::Commit { BranchState::Committed } else { BranchState::Prepared });
        metrics.observe(&Observation::Replied { branch, service, verb, attempt: 1, reply: black_box(&reply) });
    };
    // As around a request: when it came, and when it was answered.
    let came = Instant::now();
    replied(STOCK, 0, Verb::Prepare);
    replied(PAYMENT, 1, Verb::Prepare);
    let outcome = Outcome::Committed;
    metrics.observe(&Observation::Answered {
        id,
        definition: CHECKOUT,
        protocol: Protocol::TwoPhase,
        outcome: black_box(&outcome),
        recovered: false,
        micros,
    });
    let took = came.elapsed() + Duration::from_micros(micros);
    metrics.request("/orders/checkout/{order_id}", black_box(StatusCode::OK), took.as_secs_f64());
    replied(STOCK, 0, Verb::Commit);
    replied(PAYMENT, 1, Verb::Commit);
}

fn main() -> Result<(), Box<dyn Error>> {
    let threads = if std::thread::available_parallelism()?.get() > 2 { 2 } else { 1 };
    let checkouts: u64 = std::env::args().nth(1).map_or(Ok(2_000_000), |many| many.parse())?;
    let metrics = Metrics::default();
    let took = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..threads)
            .map(|thread| {
                let metrics = &metrics;
                scope.spawn(move || {
                    let id = TransactionId::new(Timestamp(thread), [7; 16]);
                    let began = Instant::now();
                    for n in 0..checkouts / threads {
                        tell(metrics, id, 500 + n % 20_000);
                    }
                    began.elapsed()
                })
            })
            .collect();
        threads.into_iter().filter_map(|thread| thread.join().ok()).sum::<Duration>()
    });
    println!("{:.0} ns a checkout", took.as_nanos() as f64 / checkouts as f64);
    const SCRAPES: u32 = 1_000;
    let began = Instant::now();
    let bytes: usize = (0..SCRAPES).map(|_| black_box(metrics.text()).len()).sum();
    let each = began.elapsed() / SCRAPES;
    println!("{} ns a scrape of {} bytes", each.as_nanos(), bytes / SCRAPES as usize);
    Ok(())
}
