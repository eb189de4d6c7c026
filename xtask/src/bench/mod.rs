//! The figures of docs/benchmarks.md, each as a ratio within this run: machines differ, and so does one machine from minute to minute.

mod distributed;
mod telemetry;

use std::path::PathBuf;
use std::process::Command;
use std::time::Instant;

use anyhow::{Context, bail};
use clap::Args;
use serde_json::Value;

use crate::run::{cargo_with, root, step};
use crate::server::{Server, settle};

/// What to measure, and how long.
#[derive(Debug, Args)]
pub(crate) struct BenchArgs {
    /// Rounds; each measures every contender once, and the medians are compared.
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Seconds of one measurement.
    #[arg(long, default_value_t = 4)]
    seconds: u64,
    /// Leave the run of a million checkouts out.
    #[arg(long)]
    short: bool,
    /// Measure the distributed system instead: `settle up`, through its gateway.
    #[arg(long)]
    distributed: bool,
    /// Measure nothing but what metrics and traces cost.
    #[arg(long)]
    telemetry: bool,
}

/// Measures and prints. Fails if a goal is missed.
pub(crate) fn bench(args: &BenchArgs) -> anyhow::Result<()> {
    step("settle", &mut cargo_with(&["build", "--release", "--quiet", "-p", "settle"]))?;
    let handler = ["build", "--release", "--quiet", "-p", "settle-load", "--example", "empty_handler"];
    step("the empty handler", &mut cargo_with(&handler))?;
    std::fs::create_dir_all(root().join("target/bench"))?;
    let mut goals = Goals::default();
    if args.distributed {
        crate::install::system_packages(true)?;
        distributed::distributed(args, &mut goals)?;
        return goals.print();
    }
    if args.telemetry {
        telemetry::telemetry(args, &mut goals)?;
        return goals.print();
    }
    let recovery = ["build", "--release", "--quiet", "-p", "settle-shop", "--example", "recovery"];
    step("the recovery", &mut cargo_with(&recovery))?;
    throughput(args, &mut goals)?;
    lone(args, &mut goals)?;
    telemetry::telemetry(args, &mut goals)?;
    recovery_time(&mut goals)?;
    if !args.short {
        million(&mut goals)?;
    }
    goals.print()
}

#[derive(Default)]
struct Goals(Vec<(String, String, bool)>);

impl Goals {
    fn at_least(&mut self, what: &str, measured: f64, least: f64) {
        self.0.push((what.to_owned(), format!("{measured:.3}, wanted at least {least}"), measured >= least));
    }

    fn at_most(&mut self, what: &str, measured: f64, most: f64) {
        self.0.push((what.to_owned(), format!("{measured:.3}, wanted at most {most}"), measured <= most));
    }

    fn print(&self) -> anyhow::Result<()> {
        println!("\n── goals");
        for (what, figures, met) in &self.0 {
            println!("{} {what}: {figures}", if *met { "met   " } else { "MISSED" });
        }
        let missed = self.0.iter().filter(|(.., met)| !met).count();
        if missed > 0 { bail!("{missed} of {} goals missed", self.0.len()) } else { Ok(()) }
    }
}

/// A folder that is removed when it goes.
struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str) -> anyhow::Result<Self> {
        let path = root().join("target/bench").join(format!("{name}-{}", std::process::id()));
        _ = std::fs::remove_dir_all(&path);
        std::fs::create_dir_all(&path)?;
        Ok(Self(path))
    }

    fn bytes(&self) -> u64 {
        fn size(folder: &std::path::Path) -> u64 {
            let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
            entries
                .map(|entry| match entry.metadata() {
                    Ok(found) if found.is_dir() => size(&entry.path()),
                    Ok(found) => found.len(),
                    Err(_) => 0,
                })
                .sum()
        }
        size(&self.0)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        _ = std::fs::remove_dir_all(&self.0);
    }
}

fn load(url: &str, words: &[&str]) -> anyhow::Result<Value> {
    let file = root().join("target/bench").join(format!("load-{}.json", std::process::id()));
    let mut command = Command::new(settle());
    command.args(["load", "--url", url, "--quiet", "--json"]).arg(&file).args(words);
    let status = command.status()?;
    if !status.success() {
        bail!("the load, or its audit, failed: {command:?}");
    }
    let report = std::fs::read_to_string(&file)?;
    _ = std::fs::remove_file(&file);
    Ok(serde_json::from_str(&report)?)
}

fn figure(report: &Value, path: &str) -> anyhow::Result<f64> {
    report.pointer(path).and_then(Value::as_f64).with_context(|| format!("no {path} in the report"))
}

/// The median.
fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

/// A counter of the server's own metrics, summed over its labels.
fn counter(url: &str, prefix: &str) -> anyhow::Result<f64> {
    let text = get(url, "/metrics")?;
    let values = text.lines().filter(|line| line.starts_with(prefix)).filter_map(|line| line.rsplit(' ').next());
    Ok(values.filter_map(|value| value.parse::<f64>().ok()).sum())
}

/// One plain request, and its body.
fn request(url: &str, method: &str, path: &str) -> anyhow::Result<String> {
    use std::io::{Read, Write};
    let address = url.trim_start_matches("http://");
    let mut stream = std::net::TcpStream::connect(address)?;
    write!(stream, "{method} {path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\ncontent-length: 0\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let (head, body) = answer.split_once("\r\n\r\n").context("no answer")?;
    if !head.starts_with("HTTP/1.1 200") {
        bail!("{method} {path}: {}", head.lines().next().unwrap_or(""));
    }
    Ok(body.to_owned())
}

fn get(url: &str, path: &str) -> anyhow::Result<String> {
    request(url, "GET", path)
}

/// Checkouts against a handler that does nothing, in turn. What is compared are servers that have been serving: a run that does not count comes before the one
/// that does, for the system gives memory for the first time at a price that has nothing to do with checkouts, and the handler needs none.
fn throughput(args: &BenchArgs, goals: &mut Goals) -> anyhow::Result<()> {
    println!("\n── throughput: {} rounds of {} s, 64 connections", args.rounds, args.seconds);
    let mut handler = Command::new(root().join("target/release/examples/empty_handler"));
    let empty = Server::start(handler.arg("0"))?;
    let contenders =
        [("uniform 2pc", "2pc", "uniform"), ("hot-item 2pc", "2pc", "hot-item"), ("uniform saga", "saga", "uniform")];
    let duration = format!("{}s", args.seconds);
    // More than any machine that this was run on checks out in the time; every one is read twice by the audit.
    let orders = (args.seconds * 70_000).to_string();
    let mut rates: Vec<Vec<f64>> = vec![Vec::new(); 1 + contenders.len()];
    let mut tails: Vec<Vec<f64>> = rates.clone();
    let mut flushes = Vec::new();
    let nothing = ["--scenario", "post:/empty", "--duration", &duration];
    load(&empty.url, &nothing)?;
    for _ in 0..args.rounds {
        let report = load(&empty.url, &nothing)?;
        rates[0].push(figure(&report, "/committed_per_second")?);
        tails[0].push(p99(&report)?);
        for (at, (_, protocol, scenario)) in contenders.iter().enumerate() {
            let scratch = Scratch::new("throughput")?;
            let shop = Server::settle(&scratch.0, &["--protocol", protocol])?;
            let words = ["--scenario", scenario, "--duration", &duration, "--orders", &orders];
            load(&shop.url, &words)?;
            let flushed = flushes_of(&shop.url)?;
            let report = load(&shop.url, &words)?;
            rates[at + 1].push(figure(&report, "/committed_per_second")?);
            tails[at + 1].push(p99(&report)?);
            if at == 0 {
                let committed = figure(&report, "/committed")?;
                flushes.push((flushes_of(&shop.url)? - flushed) / committed);
            }
        }
    }
    let names = ["empty handler"].into_iter().chain(contenders.iter().map(|(name, ..)| *name));
    let rate: Vec<f64> = rates.into_iter().map(median).collect();
    let tail: Vec<f64> = tails.into_iter().map(median).collect();
    for (at, name) in names.enumerate() {
        println!("{name:<14} {:>9.0}/s  p99 {:>7.3} ms  × {:.2}", rate[at], tail[at], rate[at] / rate[0]);
    }
    println!("flushes of all three stores per checkout: {:.3}", median(flushes));
    goals.at_least("uniform 2pc / empty handler", rate[1] / rate[0], 0.5);
    goals.at_least("hot-item / uniform", rate[2] / rate[1], 0.8);
    goals.at_most("p99 of a checkout / p99 of the empty handler", tail[1] / tail[0], 10.0);
    Ok(())
}

/// How often all three stores have flushed.
fn flushes_of(url: &str) -> anyhow::Result<f64> {
    let of = |service| counter(url, &format!("settle_store_flushes_total{{service=\"{service}\"}}"));
    Ok(of("orders")? + of("stock")? + of("payment")?)
}

/// The 99th percentile of committed requests, in milliseconds.
fn p99(report: &Value) -> anyhow::Result<f64> {
    Ok(figure(report, "/operations/0/committed_latency_us/p99")? / 1000.0)
}

/// The median of committed requests, in milliseconds.
fn p50(report: &Value) -> anyhow::Result<f64> {
    Ok(figure(report, "/operations/0/committed_latency_us/p50")? / 1000.0)
}

/// A lone checkout costs one durable round, not two: with pauses between, in which what is behind the answer of the last one is flushed
/// too. Without pauses, the next one waits for that.
fn lone(args: &BenchArgs, goals: &mut Goals) -> anyhow::Result<()> {
    println!("\n── a lone checkout");
    let scratch = Scratch::new("lone")?;
    let shop = Server::settle(&scratch.0, &["--protocol", "2pc"])?;
    let duration = format!("{}s", args.seconds);
    let paces: [(&str, &[&str]); 2] = [("200 a second", &["--rate", "200"]), ("one behind the other", &[])];
    // One durable write of one store, over the same HTTP: what one flush costs here and now.
    let writes = ["checkout", "post:/payment/add_funds/0/1"];
    let mut latencies: [[Vec<f64>; 2]; 2] = Default::default();
    for _ in 0..args.rounds {
        for ((_, pace), latencies) in paces.iter().zip(&mut latencies) {
            for (write, latencies) in writes.iter().zip(latencies) {
                let scenario = if *write == "checkout" { "uniform" } else { write };
                let words = ["--connections", "1", "--duration", &duration, "--orders", "100000"];
                let report = load(&shop.url, &[&words, &["--scenario", scenario][..], pace].concat())?;
                latencies.push(p50(&report)?);
            }
        }
    }
    for ((pace, _), latencies) in paces.iter().zip(latencies) {
        let [checkout, write] = latencies.map(median);
        println!("{pace}: checkout p50 {checkout:.3} ms; one durable write of one store p50 {write:.3} ms");
        if *pace == "200 a second" {
            // Two rounds would be 2 at the least.
            goals.at_most("a lone checkout / one durable write", checkout / write, 1.5);
        }
    }
    let began = Instant::now();
    request(&shop.url, "POST", "/orders/batch_init/100000/1000/1000/1")?;
    let seeding = began.elapsed();
    println!("batch_init of 100,000 orders: {:.3} s", seeding.as_secs_f64());
    goals.at_most("batch_init of 100,000 orders, seconds", seeding.as_secs_f64(), 2.0);
    Ok(())
}

fn recovery_time(goals: &mut Goals) -> anyhow::Result<()> {
    println!("\n── recovery of 10,000 transactions in doubt");
    let output = Command::new(root().join("target/release/examples/recovery")).output()?;
    let text = String::from_utf8_lossy(&output.stdout);
    let report: Value = serde_json::from_str(text.trim())
        .with_context(|| format!("the recovery failed: {}", String::from_utf8_lossy(&output.stderr)))?;
    let (serving, settled) = (figure(&report, "/serving_seconds")?, figure(&report, "/settled_seconds")?);
    println!("serving after {serving:.3} s, everything settled after {settled:.3} s");
    goals.at_most("10,000 in doubt settled, seconds", settled, 2.0);
    Ok(())
}

/// A million checkouts: memory and disk stay bounded.
fn million(goals: &mut Goals) -> anyhow::Result<()> {
    println!("\n── a million checkouts of ten times 100,000 orders");
    let scratch = Scratch::new("million")?;
    let shop = Server::settle(&scratch.0, &["--protocol", "2pc"])?;
    let began = shop.processor_seconds()?;
    let (mut resident, mut disk, mut committed) = (0, 0, 0.0);
    for _ in 0..10 {
        let report = load(&shop.url, &["--duration", "120s", "--orders", "100000"])?;
        committed += figure(&report, "/committed")?;
        (resident, disk) = (shop.resident()?, scratch.bytes());
        println!("after {:>7.0}: {:>4} MiB resident, {:>4} MiB on disk", committed, resident >> 20, disk >> 20);
    }
    println!("processor time: {:.1} s", shop.processor_seconds()? - began);
    goals.at_least("checkouts committed", committed, 1e6);
    goals.at_most("MiB resident", resident as f64 / f64::from(1 << 20), 300.0);
    goals.at_most("GiB on disk", disk as f64 / f64::from(1 << 30), 2.0);
    Ok(())
}
