//! `settle chaos`: breaks one part after another of the system that `settle up` runs, or the one process of `settle serve --restart`, under load, and
//! audits after each.
//!
//! ```text
//!   for each event:  clients go ── 1 s ── hit ── while it lasts ── let go ── everybody ready, one checkout paid ── 1 s ── clients wait
//!                                                                                                                              │
//!                    ask again for what nobody answered ◄──────────────────────────────────────────────────────────────────────┘
//!                    until nothing is under way and the books match: how long, or never
//! ```
//!
//! While it lasts: what is killed is started again by `settle up --restart` or `settle serve --restart`, as by any supervisor, at once; a master of replicas is held down until one
//! of them was promoted. What is lost, frozen or parted stays so for `--down`.
//!
//! | file         | what it is                                         |
//! |--------------|----------------------------------------------------|
//! | `events.rs`  | who is hit and how; the schedule                   |
//! | `system.rs`  | `up.json` or `serve.json`, roles                   |
//! | `harm.rs`    | what is being done, and that it is undone          |
//! | `interrupt.rs` | SIGINT, SIGTERM, SIGHUP: everything is undone |
//! | `clients.rs` | the load, and every answer it got                  |
//! | `books.rs`   | what was answered against what is there            |
//! | `report.rs`  | a row an event                                     |

mod books;
mod clients;
mod events;
mod harm;
mod interrupt;
mod report;
mod system;

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context;
use clap::Args;
use load::client::{Answer, Target};

use crate::exit::OFF;
use crate::output::say;
use books::Books;
use clients::{Clients, Heard};
use events::{Act, Event, Shape, random, schedule};
use harm::Harms;
use report::{Report, Row};
use system::{System, Victim};

/// How long the load runs before something is hit, and after everything is back.
const AROUND: Duration = Duration::from_secs(1);
/// How long faults are injected.
const FAULTS: Duration = Duration::from_secs(3);
/// How long Sentinels may take to promote a replica.
const PROMOTION: Duration = Duration::from_secs(20);
/// How often it is looked whether checkouts succeed again.
const GLANCE: Duration = Duration::from_millis(50);
/// Between two acts of one event.
const BETWEEN: Duration = Duration::from_secs(1);
/// How long everybody may take to be ready again.
const BACK: Duration = Duration::from_secs(60);

/// What `settle chaos` can be told.
#[derive(Debug, Args)]
#[command(
    after_help = "Start a system first, in another terminal:\n  settle serve --restart --chaos      # one process\n  settle up --restart --chaos         # the distributed system\n\nExamples:\n  settle chaos\n  settle chaos --only leader --only NATS\n  settle chaos --random 20 --seed 7 --json chaos.json\n\nCAUTION: it replaces orders, items and users \"0\" to \"n-1\" (batch_init), and has its own load: run `settle load` before or after it, not beside it.\n\nCtrl-C lets go whoever is frozen, held down or parted, takes faults back, and ends the run with exit code 2."
)]
pub(crate) struct ChaosArgs {
    /// The data folder of the `settle up`, or of the `settle serve --restart`, that is to be broken; settle-up or settle-data, whichever runs, unless told.
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// Only the events of the schedule whose name has one of these in it.
    #[arg(long, value_name = "TEXT")]
    only: Vec<String>,
    /// So many events at random instead of the schedule.
    #[arg(long, value_name = "N", conflicts_with = "only")]
    random: Option<usize>,
    /// Repeats the choices of a run.
    #[arg(long, value_name = "NUMBER")]
    seed: Option<u64>,
    /// Goes through the schedule so often.
    #[arg(long, default_value_t = 3, value_name = "N", conflicts_with = "random", value_parser = clap::value_parser!(u32).range(1..=1000))]
    times: u32,
    /// A gap longer than its goal is a failure, too: exit code 1.
    #[arg(long)]
    goals: bool,
    /// How long a component stays lost, frozen or parted. Seconds.
    #[arg(long, default_value_t = 7, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..=600))]
    down: u64,
    /// Clients, each with one checkout at a time.
    #[arg(long, default_value_t = 8, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1000))]
    clients: u16,
    /// How long everything may take to be settled after an event. Seconds.
    #[arg(long, default_value_t = 120, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..=3600))]
    patience: u64,
    /// Write what was found to this file.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Print the schedules, and do nothing.
    #[arg(long)]
    list: bool,
}

/// Breaks things, and says what it cost.
pub(crate) fn chaos(args: &ChaosArgs) -> anyhow::Result<ExitCode> {
    let harms = Harms::default();
    let done = run(args, &harms);
    // Whoever heard the signal ends this process, when faults are taken back, too.
    while harms.is_over() {
        std::thread::park();
    }
    done
}

fn run(args: &ChaosArgs, harms: &Harms) -> anyhow::Result<ExitCode> {
    let seed = args.seed.unwrap_or_else(|| fastrand::u64(..1_000_000));
    let mut chance = fastrand::Rng::with_seed(seed);
    let wanted = |event: &Event| {
        let name = event.to_string();
        args.only.is_empty() || args.only.iter().any(|text| name.contains(text.as_str()))
    };
    if args.list {
        return list();
    }
    anyhow::ensure!(
        args.random.is_some() || everything().any(|event| wanted(&event)),
        "no event has that in its name: `settle chaos --list` shows them"
    );
    let mut system = System::at(args.data.as_deref(), harms)?;
    let shape = system.shape()?;
    let events: Vec<Event> = match args.random {
        Some(count) => (0..count).map(|_| random(&mut chance, shape)).collect(),
        None => (0..args.times).flat_map(|_| schedule(shape)).filter(wanted).collect(),
    };
    anyhow::ensure!(
        !events.is_empty(),
        "this system has nobody of that kind: `settle up --small` has no replicas and no Sentinels, only `settle up --proxied` can be parted, and \
         `settle serve` is one process"
    );
    let target = Arc::new(Target::new(&system.gateway()?)?);
    let faults = events.iter().any(Event::injects).then(|| Arc::clone(&target));
    interrupt::heed(harms.clone(), system.data().to_owned(), faults)?;
    for name in system.begin(BACK)? {
        say(&format!("{name} stood still (SIGSTOP), as a run that is killed leaves it: it goes on."))?;
    }
    let mut books = Books::open(Arc::clone(&target))?;
    let clients = Clients::start(target, usize::from(args.clients), books::ORDERS)?;
    say(&format!("{} events, --seed {seed}", events.len()))?;
    say(&Row::head())?;
    let mut rows = vec![];
    for (n, event) in events.iter().enumerate() {
        system.note(&format!("settle chaos, {} of {}: {event}", n + 1, events.len()));
        let row = happen(event, args, &system, &clients, &mut books, &mut chance)?;
        say(&row.line())?;
        rows.push(row);
    }
    let audit = books.audit_everything(clients.begun())?;
    say(&load::report::verdict_text(&audit))?;
    let bad = rows.iter().filter(|row| row.is_bad()).count();
    let late = rows.iter().filter(|row| row.is_late()).count();
    for line in worst(&rows) {
        say(&line)?;
    }
    let clean = audit.is_clean();
    let report = Report { seed, events: rows, audit };
    if let Some(file) = &args.json {
        let text = serde_json::to_vec_pretty(&report).context("a report is JSON")?;
        std::fs::write(file, text).with_context(|| format!("cannot write {}", file.display()))?;
    }
    if late > 0 {
        say(&format!("{late} of {} gaps were longer than their goals.", report.events.len()))?;
    }
    let of = report.events.len();
    if bad == 0 && clean {
        let events = if of == 1 { "its event".to_owned() } else { format!("{of} events") };
        let gaps = match late {
            0 => ", each gap within its goal".to_owned(),
            1 => "; 1 gap was longer than its goal".to_owned(),
            _ => format!("; {late} gaps were longer than their goals"),
        };
        system
            .note(&format!("settle chaos is through with {events}: nothing was lost, and everything came back{gaps}"));
        say("Nothing was lost, and everything came back.")?;
        return Ok(if args.goals && late > 0 { ExitCode::from(OFF) } else { ExitCode::SUCCESS });
    }
    let said = format!("{bad} of {of} events lost something, or did not settle in time.");
    system.note(&format!("settle chaos is through: {said}"));
    say(&said)?;
    Ok(ExitCode::from(OFF))
}

/// Prints the schedules.
fn list() -> anyhow::Result<ExitCode> {
    for (system, shape) in [("settle up --proxied", Shape::USUAL), ("settle serve --restart", Shape::ONE_PROCESS)] {
        let events = schedule(shape).into_iter().map(|event| format!("  {event}"));
        for line in std::iter::once(format!("against `{system}`:")).chain(events) {
            if !say(&line)? {
                return Ok(ExitCode::SUCCESS);
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// The events of all schedules.
fn everything() -> impl Iterator<Item = Event> {
    let usual = schedule(Shape::USUAL);
    let of_one = schedule(Shape::ONE_PROCESS).into_iter().filter(|event| !usual.contains(event)).collect::<Vec<_>>();
    usual.into_iter().chain(of_one)
}

/// Of events that happened several times: how often, and the middle and the longest of their gaps.
fn worst(rows: &[Row]) -> Vec<String> {
    let mut gaps: Vec<(&str, Vec<u64>)> = vec![];
    for row in rows {
        match gaps.iter_mut().find(|(event, _)| *event == row.event) {
            Some((_, gaps)) => gaps.push(row.gap_ms),
            None => gaps.push((&row.event, vec![row.gap_ms])),
        }
    }
    if gaps.iter().all(|(_, gaps)| gaps.len() < 2) {
        return vec![];
    }
    let seconds = |ms: u64| format!("{:.1}", Duration::from_millis(ms).as_secs_f64());
    let line = |(event, gaps): &mut (&str, Vec<u64>)| {
        gaps.sort_unstable();
        let (middle, longest) = (gaps[gaps.len() / 2], gaps[gaps.len() - 1]);
        format!("{event:<52} {:>5} {:>8} {:>9}", gaps.len(), seconds(middle), seconds(longest))
    };
    let head = format!("{:<52} {:>5} {:>8} {:>9}", "event", "times", "middle s", "longest s");
    std::iter::once(head).chain(gaps.iter_mut().map(line)).collect()
}

fn happen(
    event: &Event,
    args: &ChaosArgs,
    system: &System,
    clients: &Clients,
    books: &mut Books,
    chance: &mut fastrand::Rng,
) -> anyhow::Result<Row> {
    let began = Instant::now();
    clients.go();
    std::thread::sleep(AROUND);
    let (mut victims, mut hit) = (vec![], vec![]);
    for (n, act) in event.0.iter().enumerate() {
        if n > 0 {
            std::thread::sleep(BETWEEN);
        }
        match act {
            Act::Hit(who, how) => {
                if let Some(victim) = system.hit(*who, *how, chance)? {
                    hit.push(victim.name().to_owned());
                    victims.push(victim);
                }
            }
            Act::Crash(service, point) => books.set_fault(*service, *point, "crash", 1)?,
            Act::Err(service, point, times) => books.set_fault(*service, *point, "error_after", *times)?,
        }
    }
    let down = Duration::from_secs(args.down);
    if event.lasts() {
        std::thread::sleep(down);
    } else if event.injects() {
        std::thread::sleep(FAULTS);
    }
    let mut promoted = None;
    for victim in &victims {
        if let Some(service) = victim.replaced(down) {
            let one = system.wait_for_promotion(service, victim.name(), PROMOTION)?;
            promoted = Some(promoted.unwrap_or(true) && one);
        }
    }
    let killed: Vec<(String, u32)> = victims.iter().filter_map(Victim::killed).collect();
    drop(victims);
    let let_go = Instant::now();
    let missing = system.wait_until_complete(&killed, BACK)?;
    if event.injects() {
        books.clear_faults()?;
    }
    // A gap that has not ended yet is not over because everybody runs.
    let (back, until) = (Instant::now(), Instant::now() + Duration::from_secs(args.patience));
    while !clients.succeeded_since(back) && Instant::now() < until {
        std::thread::sleep(GLANCE);
    }
    std::thread::sleep(AROUND);
    clients.wait();
    let ended = Instant::now();
    let heard = clients.heard();
    let mut row = Row {
        event: event.to_string(),
        hit,
        paid: count(&heard, |answer| answer == Answer::Accepted),
        refused: count(&heard, |answer| matches!(answer, Answer::Refused(_))),
        unknown: count(&heard, |answer| matches!(answer, Answer::Unknown(_) | Answer::Unsent)),
        gap_ms: longest_gap(&heard, began, ended),
        goal_ms: u64::try_from(event.goal(down).as_millis()).unwrap_or(u64::MAX),
        promoted,
        settled_ms: None,
        stuck: 0,
        lost_answers: 0,
        overcharged: 0,
        off: 0,
        findings: vec![],
        missing,
    };
    let patience = Duration::from_secs(args.patience);
    let settled = books.settle(&heard, clients.open_questions(), patience, || system.unsettled())?;
    row.settled_ms = settled.at.map(|at| u64::try_from((at - let_go).as_millis()).unwrap_or(u64::MAX));
    row.stuck = books.stuck()?;
    row.count(&settled.verdict);
    Ok(row)
}

fn count(heard: &[Heard], is: impl Fn(Answer) -> bool) -> u64 {
    heard.iter().filter(|heard| is(heard.answer)).count() as u64
}

/// The longest time between two checkouts that succeeded, the begin and the end of the event included. Milliseconds.
fn longest_gap(heard: &[Heard], began: Instant, ended: Instant) -> u64 {
    let mut moments: Vec<Instant> =
        heard.iter().filter(|heard| heard.answer == Answer::Accepted).map(|heard| heard.at).collect();
    moments.push(ended);
    moments.sort();
    let mut last = began;
    let mut longest = Duration::ZERO;
    for moment in moments {
        longest = longest.max(moment.saturating_duration_since(last));
        last = moment;
    }
    u64::try_from(longest.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gap_lasts_from_one_success_to_the_next_whatever_failed_between() {
        let began = Instant::now();
        let at = |ms: u64, answer| Heard { order: 0, answer, at: began + Duration::from_millis(ms) };
        let ended = began + Duration::from_millis(1_000);
        let ok = Answer::Accepted;
        assert_eq!(longest_gap(&[], began, ended), 1_000);
        assert_eq!(longest_gap(&[at(900, ok), at(100, ok), at(500, Answer::Refused(424))], began, ended), 800);
        assert_eq!(longest_gap(&[at(100, ok), at(200, ok)], began, ended), 800);
    }
}
