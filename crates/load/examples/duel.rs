//! Which of some servers is faster, on a machine whose speed changes from second to second: load that goes from one to the other every fifth of a second.
//!
//! ```text
//! settle serve --listen 127.0.0.1:8001 --data one --protocol 2pc        # three terminals, two programs
//! settle serve --listen 127.0.0.1:8002 --data two --protocol 2pc
//! cargo run --release -p settle-load --example duel -- 60 http://127.0.0.1:8001 http://127.0.0.1:8002
//! ```
//!
//! The arguments are how many seconds it takes and the servers; `empty:URL` is one whose answers cost nothing, as the example `empty_handler`'s do. 64 connections each check
//! orders out, one behind the other, every order once, in no order; the servers are seeded anew as often as it takes. In a round each server has two turns, there and back,
//! and the next round begins with the next server: who follows itself finds the processor's caches as it left them. What is compared is the rates of one round.
//!
//! The middle of a hundred rounds is right to two or three hundredths on a machine where that of ten pairs of runs of three seconds each is right to a tenth.

use std::cell::RefCell;
use std::fmt::Display;
use std::process::ExitCode;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use load::client::{Answer, Client, Target};
use tokio::task::{JoinSet, LocalSet};

const CONNECTIONS: usize = 64;
const TURN: Duration = Duration::from_millis(200);
/// Long enough for what a server does behind its answers.
const PAUSE: Duration = Duration::from_millis(70);
const PATIENCE: Duration = Duration::from_secs(30);
const ORDERS: u64 = 200_000;
/// No turn needs more.
const LOW: usize = 40_000;
const ITEMS: u64 = 1000;
const PLENTY: u64 = 100_000_000;
/// What a new process does for the first time costs more.
const WARM_UP: Duration = Duration::from_secs(6);

struct Server {
    /// Which argument it is.
    nth: usize,
    url: String,
    clients: Vec<Client>,
    /// The orders that are still open, in no order; `None` where nothing is checked out.
    open: Option<Rc<RefCell<Vec<u64>>>>,
    /// Answers a second, round by round.
    rates: Vec<f64>,
}

fn failed(what: impl Display) -> String {
    format!("duel: {what}")
}

impl Server {
    async fn new(nth: usize, argument: &str) -> Result<Self, String> {
        let empty = argument.strip_prefix("empty:");
        let url = empty.unwrap_or(argument).to_owned();
        let target = Arc::new(Target::new(&url).map_err(failed)?);
        let mut clients: Vec<Client> = (0..CONNECTIONS).map(|_| Client::new(Arc::clone(&target), PATIENCE)).collect();
        for client in &mut clients {
            client.connect().await.map_err(failed)?;
        }
        Ok(Self { nth, url, clients, open: empty.is_none().then(Rc::default), rates: Vec::new() })
    }

    async fn seed_if_low(&mut self) -> Result<(), String> {
        let (Some(open), Some(client)) = (&self.open, self.clients.first_mut()) else { return Ok(()) };
        if open.borrow().len() >= LOW {
            return Ok(());
        }
        tokio::time::sleep(PAUSE).await;
        for path in [
            format!("/stock/batch_init/{ITEMS}/{PLENTY}/1"),
            format!("/payment/batch_init/{ITEMS}/{PLENTY}"),
            format!("/orders/batch_init/{ORDERS}/{ITEMS}/{ITEMS}/1"),
        ] {
            let answer = client.post(format_args!("{path}")).await;
            if answer != Answer::Accepted {
                return Err(failed(format_args!("{} answered POST {path} with {answer:?}", self.url)));
            }
        }
        let mut orders: Vec<u64> = (0..ORDERS).collect();
        fastrand::shuffle(&mut orders);
        open.replace(orders);
        tokio::time::sleep(PAUSE).await;
        Ok(())
    }

    /// The rate of one turn.
    async fn turn(&mut self) -> Result<f64, String> {
        self.seed_if_low().await?;
        let began = Instant::now();
        let mut busy = JoinSet::new();
        for mut client in self.clients.drain(..) {
            let open = self.open.clone();
            busy.spawn_local(async move {
                let mut accepted = 0_u64;
                while began.elapsed() < TURN {
                    let answer = match &open {
                        Some(open) => {
                            let Some(order) = open.borrow_mut().pop() else { break };
                            client.post(format_args!("/orders/checkout/{order}")).await
                        }
                        None => client.post(format_args!("/empty")).await,
                    };
                    if answer != Answer::Accepted {
                        return Err(failed(format_args!(
                            "answered with {answer:?}: {}",
                            String::from_utf8_lossy(client.body())
                        )));
                    }
                    accepted += 1;
                }
                Ok((client, accepted))
            });
        }
        let mut accepted = 0;
        while let Some(ended) = busy.join_next().await {
            let (client, its) = ended.map_err(failed)??;
            accepted += its;
            self.clients.push(client);
        }
        let rate = accepted as f64 / began.elapsed().as_secs_f64();
        tokio::time::sleep(PAUSE).await;
        Ok(rate)
    }
}

async fn duel(seconds: u64, arguments: &[String]) -> Result<(), String> {
    let mut servers = Vec::new();
    for (nth, argument) in arguments.iter().enumerate() {
        servers.push(Server::new(nth, argument).await?);
    }
    for lasts in [WARM_UP, Duration::from_secs(seconds)] {
        servers.iter_mut().for_each(|server| server.rates.clear());
        let began = Instant::now();
        while began.elapsed() < lasts {
            for server in &mut servers {
                let rate = server.turn().await?;
                server.rates.push(rate / 2.0);
            }
            for server in servers.iter_mut().rev() {
                let rate = server.turn().await?;
                if let Some(round) = server.rates.last_mut() {
                    *round += rate / 2.0;
                }
            }
            servers.rotate_left(1);
        }
    }
    servers.sort_by_key(|server| server.nth);
    let Some((first, others)) = servers.split_first() else { return Ok(()) };
    let mean = |server: &Server| server.rates.iter().sum::<f64>() / server.rates.len() as f64;
    println!("{}: {:.0} a second", first.url, mean(first));
    for other in others {
        let mut ratios: Vec<f64> = other.rates.iter().zip(&first.rates).map(|(theirs, its)| theirs / its).collect();
        ratios.sort_by(f64::total_cmp);
        let at = |part: f64| ratios[((ratios.len() - 1) as f64 * part).round() as usize];
        println!(
            "{}: {:.0} a second; over the first {:.3} in the middle of {} rounds, {:.3} to {:.3} in half of them",
            other.url,
            mean(other),
            at(0.5),
            ratios.len(),
            at(0.25),
            at(0.75)
        );
    }
    Ok(())
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let Some((seconds, servers)) = arguments.split_first().and_then(|(first, servers)| {
        let seconds: u64 = first.parse().ok().filter(|seconds| (1..=3_600).contains(seconds))?;
        (servers.len() >= 2).then_some((seconds, servers))
    }) else {
        eprintln!("duel: wants how many seconds it takes, 1 to 3600, and two servers or more: URL, or empty:URL");
        return ExitCode::from(2);
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let ended = runtime.map_err(failed).and_then(|runtime| LocalSet::new().block_on(&runtime, duel(seconds, servers)));
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("{why}");
            ExitCode::FAILURE
        }
    }
}
