//! What watching costs: checkouts while figures are scraped and one request in a hundred is traced, against checkouts that nobody watches.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::Context;

use super::{BenchArgs, Goals, Scratch, counter, figure, get, load, median};
use crate::run::{cargo_with, root, step};
use crate::server::Server;

/// What a process counts it always counts; what can be left out is to ask it. What counting costs is measured by itself.
pub(super) fn telemetry(args: &BenchArgs, goals: &mut Goals) -> anyhow::Result<()> {
    let counting_alone = ["build", "--release", "--quiet", "-p", "settle-shop", "--example", "counting"];
    step("counting", &mut cargo_with(&counting_alone))?;
    println!("\n── telemetry: {} rounds of {} s, 64 connections, in turn", args.rounds, args.seconds);
    let sink = sink()?;
    let (duration, orders) = (format!("{}s", args.seconds), (args.seconds * 70_000).to_string());
    let mut rates: [Vec<f64>; 2] = Default::default();
    let mut exported = 0.0;
    for round in 0..args.rounds {
        // Whoever comes second finds a warmer machine: they take turns.
        for watched in [round % 2 == 0, round % 2 != 0] {
            let scratch = Scratch::new("telemetry")?;
            let traced = ["--otlp-endpoint", &sink, "--otlp-protocol", "http", "--trace-ratio", "0.01"];
            let mut flags = vec!["--protocol", "2pc"];
            flags.extend(traced.iter().filter(|_| watched));
            let shop = Server::settle(&scratch.0, &flags)?;
            let stop = Arc::new(AtomicBool::new(!watched));
            let scraper = std::thread::spawn({
                let (stop, url) = (Arc::clone(&stop), shop.url.clone());
                move || {
                    while !stop.load(Ordering::Relaxed) {
                        _ = get(&url, "/metrics");
                        std::thread::sleep(Duration::from_secs(1));
                    }
                }
            });
            let report = load(&shop.url, &["--scenario", "uniform", "--duration", &duration, "--orders", &orders])?;
            stop.store(true, Ordering::Relaxed);
            rates[usize::from(watched)].push(figure(&report, "/committed_per_second")?);
            if watched {
                exported += counter(&shop.url, "settle_trace_spans_exported_total")?;
            }
            _ = scraper.join();
        }
    }
    let [off, on] = rates.map(median);
    println!(
        "nobody watches {off:>9.0}/s\nwatched        {on:>9.0}/s  × {:.3}; {exported:.0} spans exported",
        on / off
    );
    goals.at_least("metrics scraped and 1 % traced / neither", on / off, 0.95);
    goals.at_least("spans exported", exported, 1.0);
    counting(off, goals)
}

/// What counting takes of the processor at `rate` checkouts a second, scraped every second. Less than rounds can tell apart: measured by itself.
fn counting(rate: f64, goals: &mut Goals) -> anyhow::Result<()> {
    let mut runs = [Vec::new(), Vec::new()];
    for _ in 0..5 {
        let output = Command::new(root().join("target/release/examples/counting")).output()?;
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        for (line, runs) in said.lines().zip(&mut runs) {
            let nanos = line.split(' ').next().and_then(|number| number.parse::<f64>().ok());
            runs.push(nanos.with_context(|| format!("the example `counting` said: {said}"))?);
        }
    }
    let [checkout, scrape] = runs.map(median);
    let cores = std::thread::available_parallelism()?.get() as f64;
    let share = (checkout * rate + scrape) / 1e9 / cores;
    println!(
        "counting       {checkout:>9.0} ns a checkout, {:.0} µs a scrape: {:.2} % of {cores} cores",
        scrape / 1e3,
        share * 100.0
    );
    goals.at_most("counting, in percent of the processor", share * 100.0, 2.0);
    Ok(())
}

/// A back end that takes everything and looks at nothing.
fn sink() -> anyhow::Result<String> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let url = format!("http://{}", listener.local_addr()?);
    std::thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            std::thread::spawn(move || take_all(stream));
        }
    });
    Ok(url)
}

fn take_all(stream: TcpStream) {
    let Ok(mut answers) = stream.try_clone() else { return };
    let mut requests = BufReader::new(stream);
    loop {
        let (mut length, mut line) = (0, String::new());
        while line != "\r\n" {
            line.clear();
            if !requests.read_line(&mut line).is_ok_and(|bytes| bytes > 0) {
                return;
            }
            if let Some(said) = line.to_lowercase().strip_prefix("content-length:") {
                length = said.trim().parse().unwrap_or(0);
            }
        }
        let mut body = vec![0; length];
        if requests.read_exact(&mut body).is_err()
            || answers.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").is_err()
        {
            return;
        }
    }
}
