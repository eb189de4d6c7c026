//! The distributed system that `settle up` starts, measured against what the same machine does without any work: the ceilings.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use serde_json::Value;

use super::{BenchArgs, Goals, Scratch, figure, load, median, p50, p99};
use crate::run::root;
use crate::server::{Server, settle};

/// How long the system may take to stop in good order.
const STOPPING: Duration = Duration::from_secs(60);
/// `SET` commands in one pipeline.
const PIPELINE: usize = 64;
/// How long the processor time of an idle system is watched.
const IDLE: Duration = Duration::from_secs(10);

/// The system, stopped in good order when it goes.
struct Up {
    child: Child,
    url: String,
    scratch: Scratch,
}

impl Up {
    fn start(words: &[&str]) -> anyhow::Result<Self> {
        let scratch = Scratch::new("up")?;
        let port = free_port()?.to_string();
        let mut command = Command::new(settle());
        command.args(["up", "--port", &port, "--data"]).arg(&scratch.0).args(words).env("SETTLE_LOG", "warn");
        let mut child = command.stdout(Stdio::piped()).spawn().context("cannot start settle up")?;
        let output = child.stdout.take().context("settle up has no output")?;
        let mut lines = BufReader::new(output).lines();
        let url = format!("http://127.0.0.1:{port}");
        for line in &mut lines {
            if line?.contains(&url) {
                std::thread::spawn(move || lines.for_each(drop));
                return Ok(Self { child, url, scratch });
            }
        }
        bail!("settle up ended before the system was ready: {}", child.wait()?)
    }

    /// What runs, from `up.json`.
    fn components(&self) -> anyhow::Result<Vec<Value>> {
        let state: Value = serde_json::from_slice(&std::fs::read(self.scratch.0.join("up.json"))?)?;
        state.get("components").and_then(Value::as_array).cloned().context("no components in up.json")
    }

    /// Processor seconds of every component so far, by kind.
    fn processor_seconds(&self) -> anyhow::Result<Vec<(String, f64)>> {
        let mut kinds: Vec<(String, f64)> = Vec::new();
        for component in self.components()? {
            let word = |key: &str| component.get(key).and_then(Value::as_str).unwrap_or("?").to_owned();
            let Some(pid) = component.get("pid").and_then(Value::as_u64) else { continue };
            let seconds = processor_seconds(pid)?;
            let kind = word("kind");
            match kinds.iter_mut().find(|(known, _)| *known == kind) {
                Some((_, sum)) => *sum += seconds,
                None => kinds.push((kind, seconds)),
            }
        }
        Ok(kinds)
    }
}

impl Drop for Up {
    fn drop(&mut self) {
        _ = Command::new("kill").args(["-TERM", &self.child.id().to_string()]).status();
        let until = Instant::now() + STOPPING;
        while Instant::now() < until {
            if !matches!(self.child.try_wait(), Ok(None)) {
                return;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        _ = self.child.kill();
        _ = self.child.wait();
    }
}

fn free_port() -> anyhow::Result<u16> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}

fn processor_seconds(pid: u64) -> anyhow::Result<f64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or("").split_whitespace().collect();
    let ticks = |at: usize| fields.get(at).and_then(|text| text.parse::<f64>().ok()).unwrap_or(0.0);
    Ok((ticks(11) + ticks(12)) / 100.0)
}

/// A handler that does nothing behind a HAProxy that does nothing else.
struct Ceiling {
    _proxy: Child,
    _empty: Server,
    direct: String,
    proxied: String,
}

impl Ceiling {
    fn start(scratch: &Path) -> anyhow::Result<Self> {
        let empty = Server::start(Command::new(root().join("target/release/examples/empty_handler")).arg("0"))?;
        let port = free_port()?;
        let back = empty.url.trim_start_matches("http://");
        let file = scratch.join("haproxy.cfg");
        let text = format!(
            "global\n maxconn 2000\ndefaults\n mode http\n timeout connect 1s\n timeout client 60s\n timeout server 60s\n \
             http-reuse always\nfrontend f\n bind 127.0.0.1:{port}\n default_backend b\nbackend b\n server s {back}\n"
        );
        std::fs::write(&file, text)?;
        let proxy = Command::new("haproxy").arg("-f").arg(&file).stdout(Stdio::null()).spawn()?;
        let until = Instant::now() + Duration::from_secs(10);
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            anyhow::ensure!(Instant::now() < until, "haproxy does not listen");
            std::thread::sleep(Duration::from_millis(20));
        }
        let direct = empty.url.clone();
        Ok(Self { _proxy: proxy, _empty: empty, direct, proxied: format!("http://127.0.0.1:{port}") })
    }
}

impl Drop for Ceiling {
    fn drop(&mut self) {
        _ = self._proxy.kill();
        _ = self._proxy.wait();
    }
}

/// `SET` commands a second that one Redis without a journal does, in pipelines of [`PIPELINE`].
fn sets_per_second(seconds: u64) -> anyhow::Result<f64> {
    let port = free_port()?;
    let words = ["--port", &port.to_string(), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"];
    let mut server = Command::new("redis-server").args(words).stdout(Stdio::null()).spawn()?;
    let result = drive_sets(port, Duration::from_secs(seconds));
    _ = server.kill();
    _ = server.wait();
    result
}

fn drive_sets(port: u16, long: Duration) -> anyhow::Result<f64> {
    let until = Instant::now() + Duration::from_secs(10);
    let mut stream = loop {
        match TcpStream::connect(("127.0.0.1", port)) {
            Ok(stream) => break stream,
            Err(error) if Instant::now() >= until => return Err(error.into()),
            Err(_) => std::thread::sleep(Duration::from_millis(20)),
        }
    };
    let batch = b"*3\r\n$3\r\nSET\r\n$5\r\nkey:1\r\n$5\r\nvalue\r\n".repeat(PIPELINE);
    let mut answers = vec![0; PIPELINE * b"+OK\r\n".len()];
    let (began, mut sets) = (Instant::now(), 0_u64);
    while began.elapsed() < long {
        stream.write_all(&batch)?;
        stream.read_exact(&mut answers)?;
        sets += PIPELINE as u64;
    }
    Ok(sets as f64 / began.elapsed().as_secs_f64())
}

/// What is measured: the protocol, and the number of instances of each service.
const SHAPES: [(&str, u32); 3] = [("2pc", 2), ("saga", 2), ("2pc", 1)];
/// What a Python system of the same design did without replication and without a journal, in checkouts/s by protocol, beside these ceilings: 154,000 and
/// 75,000 requests/s, 138,000 SET/s.
const PYTHON: [(&str, f64); 2] = [("2pc", 405.0), ("saga", 629.0)];
/// The ceiling that both share: requests/s through HAProxy, on the machine of the Python system.
const PYTHONS_CEILING: f64 = 75_000.0;

/// What was measured of a shape, a round each.
#[derive(Default)]
struct Measured {
    /// Checkouts/s at 64 connections.
    rates: Vec<f64>,
    p50: Vec<f64>,
    p99: Vec<f64>,
    /// The p50 at 16 connections.
    middle: Vec<f64>,
}

/// Measures the system in all shapes, and prints where the time goes.
pub(super) fn distributed(args: &BenchArgs, goals: &mut Goals) -> anyhow::Result<()> {
    println!(
        "\n── distributed: `settle up`, replicated, through the gateway; {} rounds of {} s",
        args.rounds, args.seconds
    );
    let scratch = Scratch::new("ceiling")?;
    let ceiling = Ceiling::start(&scratch.0)?;
    let duration = format!("{}s", args.seconds);
    let orders = (args.seconds * 10_000).to_string();
    let empty = |url: &str| -> anyhow::Result<f64> {
        let words = ["--scenario", "post:/empty", "--duration", &duration, "--connections", "64"];
        figure(&load(url, &words)?, "/committed_per_second")
    };
    let (mut direct, mut proxied, mut sets) = (Vec::new(), Vec::new(), Vec::new());
    let mut all = Vec::new();
    for (at, (protocol, instances)) in SHAPES.into_iter().enumerate() {
        let up = Up::start(&["--protocol", protocol, "--instances", &instances.to_string()])?;
        if at == 0 {
            let before: f64 = up.processor_seconds()?.iter().map(|(_, seconds)| seconds).sum();
            std::thread::sleep(IDLE);
            let after: f64 = up.processor_seconds()?.iter().map(|(_, seconds)| seconds).sum();
            let idle = 100.0 * (after - before) / IDLE.as_secs_f64();
            println!("idle: {idle:.1} % of one processor, all {} components together", up.components()?.len());
            goals.at_most("processor time of the idle system, % of one processor", idle, 15.0);
        }
        let checkouts = |connections: &str| {
            load(&up.url, &["--duration", &duration, "--connections", connections, "--orders", &orders])
        };
        let before = up.processor_seconds()?;
        let (mut measured, mut committed) = (Measured::default(), 0.0);
        for _ in 0..args.rounds {
            direct.push(empty(&ceiling.direct)?);
            proxied.push(empty(&ceiling.proxied)?);
            sets.push(sets_per_second(args.seconds.min(2))?);
            let [many, some] = [checkouts("64")?, checkouts("16")?];
            measured.rates.push(figure(&many, "/committed_per_second")?);
            measured.p50.push(p50(&many)?);
            measured.p99.push(p99(&many)?);
            measured.middle.push(p50(&some)?);
            committed += figure(&many, "/committed")? + figure(&some, "/committed")?;
        }
        println!(
            "{protocol}, instances of each service: {instances}: processor microseconds a checkout, by kind of component, seeding and audits included:"
        );
        for ((kind, after), (_, before)) in up.processor_seconds()?.iter().zip(&before) {
            println!("  {kind:<16} {:>7.0}", 1e6 * (after - before) / committed);
        }
        all.push((protocol, instances, measured));
    }
    let (direct, proxied, sets) = (median(direct), median(proxied), median(sets));
    println!("ceilings: empty handler {direct:.0}/s, through HAProxy {proxied:.0}/s, one Redis {sets:.0} SET/s");
    for (protocol, instances, measured) in all {
        let rate = median(measured.rates);
        let [p50, p99, middle] = [measured.p50, measured.p99, measured.middle].map(median);
        println!(
            "{protocol:<5} with {instances} of each service: {rate:>6.0}/s  p50 {p50:>6.2} ms  p99 {p99:>6.2} ms; at 16 connections p50 {middle:>6.2} ms"
        );
        let shape = format!("{protocol}, replicated, instances of each service: {instances}");
        for (_, theirs) in PYTHON.iter().filter(|(theirs, _)| *theirs == protocol) {
            let ratio = (rate / proxied) / (theirs / PYTHONS_CEILING);
            goals.at_least(&format!("{shape}: times the Python system, per ceiling"), ratio, 20.0);
        }
        goals.at_most(&format!("{shape}: p50 at 16 connections, ms"), middle, 10.0);
    }
    Ok(())
}
