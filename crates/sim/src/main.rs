//! The simulator's command line.
//!
//! | exit code | meaning                                        |
//! |-----------|------------------------------------------------|
//! | 0         | every run was clean; every mutation was caught |
//! | 1         | a rule was broken, or a mutation lives         |
//! | 2         | something was not settled in time              |
//! | 3         | the arguments make no sense                    |
//! | 101       | a panic                                        |

use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::Parser;
use protocol::simulation::{Mutation, take_marks};
use sim::{Ending, mutations, run};

/// Drives the whole of Settle through faults, everything from one seed.
#[derive(Debug, Parser)]
#[command(name = "sim")]
struct Arguments {
    /// Runs this one seed and prints its history: time in seconds, who, what.
    #[arg(long)]
    seed: Option<u64>,
    /// Runs the seeds FROM..TO, the last one not included.
    #[arg(long, value_name = "FROM..TO", value_parser = range, conflicts_with = "seed")]
    seeds: Option<std::ops::Range<u64>>,
    /// Runs so many seeds.
    #[arg(long, default_value_t = 1_000)]
    count: u64,
    /// Runs for so many minutes at most; without --count or --seeds, for exactly so many.
    #[arg(long)]
    minutes: Option<u64>,
    /// Switches a deliberate bug on.
    #[arg(long, value_parser = mutation)]
    mutation: Option<Mutation>,
    /// Looks for the first seed that catches each deliberate bug, and prints the table.
    #[arg(long)]
    mutations: bool,
    /// Prints how often each rare path was reached.
    #[arg(long)]
    marks: bool,
}

fn range(text: &str) -> Result<std::ops::Range<u64>, String> {
    let parts = text.split_once("..").and_then(|(from, to)| Some(from.parse().ok()?..to.parse().ok()?));
    parts.filter(|range| range.start < range.end).ok_or_else(|| format!("`{text}` is no range such as 0..300"))
}

fn mutation(text: &str) -> Result<Mutation, String> {
    let named = |mutation: &&Mutation| format!("{mutation:?}").eq_ignore_ascii_case(&text.replace(['-', '_'], ""));
    Mutation::ALL.iter().find(named).copied().ok_or_else(|| {
        let known: Vec<String> = Mutation::ALL.iter().map(|mutation| format!("{mutation:?}")).collect();
        format!("no mutation `{text}`; there are {}", known.join(", "))
    })
}

fn main() -> ExitCode {
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => {
            let code = if error.use_stderr() { 3 } else { 0 };
            // Nobody is left to tell if this cannot be printed.
            _ = error.print();
            return ExitCode::from(code);
        }
    };
    let code = if arguments.mutations {
        check_mutations()
    } else if let Some(seed) = arguments.seed {
        replay(seed, arguments.mutation)
    } else {
        soak(&arguments)
    };
    if arguments.marks {
        for (mark, count) in take_marks() {
            println!("{count:>10}  {mark}");
        }
    }
    ExitCode::from(code)
}

fn exit_code(ending: &Ending) -> u8 {
    match ending {
        Ending::Clean => 0,
        Ending::Unsafe(_) => 1,
        Ending::Stuck(_) => 2,
    }
}

fn replay(seed: u64, mutation: Option<Mutation>) -> u8 {
    let run = run(seed, mutation, true);
    print!("{}", run.history);
    println!("seed {seed}: {}", run.ending);
    exit_code(&run.ending)
}

fn soak(arguments: &Arguments) -> u8 {
    let began = Instant::now();
    let until = arguments.minutes.map(|minutes| Duration::from_secs(60 * minutes));
    let count = if until.is_some() && arguments.count == 1_000 { u64::MAX / 2 } else { arguments.count };
    let seeds = arguments.seeds.clone().unwrap_or_else(|| {
        let first = sim::fresh_seed();
        first..first.saturating_add(count)
    });
    let (first, mut done, mut told) = (seeds.start, 0, 0);
    for seed in seeds {
        if until.is_some_and(|until| began.elapsed() >= until) {
            break;
        }
        let run = run(seed, arguments.mutation, false);
        done += 1;
        told += run.answers.values().sum::<u64>();
        if run.ending != Ending::Clean {
            println!("seed {seed}, number {done}: {}", run.ending);
            let mutation = arguments.mutation.map(|m| format!(" --mutation {m:?}")).unwrap_or_default();
            println!("replay it with: cargo run -p sim -- --seed {seed}{mutation}");
            return exit_code(&run.ending);
        }
    }
    let seconds = began.elapsed().as_secs_f64();
    println!("{done} seeds from {first}: clean; {told} answers; {:.0} seeds/s", done as f64 / seconds);
    0
}

fn check_mutations() -> u8 {
    let mut alive = 0;
    println!("{:<36} {:>6}  {:<17} first caught by", "deliberate bug", "seeds", "");
    for mutation in Mutation::ALL {
        match mutations::hunt(mutation, mutations::SEEDS) {
            Some(caught) => {
                let name = format!("{mutation:?}");
                println!("{name:<36} {:>6}  {:<17} {}", caught.seeds, caught.by, caught.what);
            }
            None => {
                println!("{:<36} {:>6}  LIVES", format!("{mutation:?}"), mutations::SEEDS);
                alive += 1;
            }
        }
    }
    println!("{}", summary(alive, Mutation::ALL.len()));
    u8::from(alive > 0)
}

fn summary(alive: usize, all: usize) -> String {
    match alive {
        0 => format!("all {all} deliberate bugs are caught"),
        alive => format!("{alive} of {all} deliberate bugs LIVE: the simulator does not see what it is there for"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_word_says_whether_every_deliberate_bug_was_caught() {
        assert_eq!(summary(0, 12), "all 12 deliberate bugs are caught");
        assert!(summary(1, 12).starts_with("1 of 12 deliberate bugs LIVE"));
    }
}
