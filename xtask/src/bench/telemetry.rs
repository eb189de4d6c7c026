//! What watching costs: checkouts while figures are scraped and one request in a hundred is traced, against checkouts that nobody watches.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::{BenchArgs, Goals, Scratch, counter, figure, get, load, median};
use crate::server::Server;

/// What a process counts it always counts; what can be left out is to ask it.
pub(super) fn telemetry(args: &BenchArgs, goals: &mut Goals) -> anyhow::Result<()> {
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
