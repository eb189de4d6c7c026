//! The exhaustive check: every interleaving of the real coordinator, log and ledger, within small bounds.
//!
//! ```text
//!            ┌────────────── World: one state of everything ──────────────┐
//!   caller ◄─┤ A  Coordinator ──calls──►  LogState on disk + unflushed    │   Happening: deliver, append, flush, wake,
//!            │ B  Coordinator ──────────►     ▲            ▲              ├─► crash, lose, take over, ask, forget, ...
//!            │      └── Message ──► Ledger ───┘ ask        └ recovery     │   each gives the next World
//!            └────────────────────────────────────────────────────────────┘
//! ```
//!
//! `cargo run -p model` checks every configuration of [`configuration::regular`] and prints what it saw; `--deep` adds
//! larger ones. A broken property ends it with code 1 and the shortest way there. [`stateright`] keeps the books; what is checked
//! is the code that runs in production:
//!
//! | real code                                                     | here                                                     |
//! |---------------------------------------------------------------|----------------------------------------------------------|
//! | `Coordinator::{begin, resume, handle, next_wake}`             | one for each instance that drives the transaction        |
//! | `LogState::apply`                                             | the log, once on disk and once with what is not flushed  |
//! | `recovery::plan`                                              | what an instance takes up when it starts or takes over   |
//! | `Ledger::apply` (and with it `barrier`), `ledger::terminate`, `audit` | one ledger with one account for each participant |
//!
//! What the engine does between them (carrying effects out, looking up what another owner decided) is retold in [`world`].
//!
//! | left out of the picture                    | instead, and why nothing is lost                                               |
//! |--------------------------------------------|--------------------------------------------------------------------------------|
//! | time                                       | every event comes at 0, a timer's at its own time or long after: a deadline may pass at any moment, and an owner may stall for ever |
//! | how often a message arrives, and when      | a message stays on its way for ever and may be taken any number of times, in any order: late, doubled and reordered ones are all there |
//! | a lost message                             | one that is never taken; and, so that a coordinator which does not retry is found out, some are taken off the way for good |
//! | a retry of what is still on its way        | nothing: the set of messages has it already                                    |
//! | answers to a verb that the coordinator no longer delivers | dropped when the next verb is sent: `Common::awaits` ignores them |
//! | a participant's crash                      | it answers only what is durable, so work that is lost unflushed looks like a command that never came |
//! | a participant that loses what it acknowledged | nothing: no protocol survives that. The ledger's repair is checked elsewhere |
//! | several transactions                       | nothing: they share accounts, and holds commute; the ledger's own tests have them |
//! | back-off and jitter                        | all pauses are of one length, so that a failed attempt and a silent one are the same state |
//! | `Park`, dead letters in the log            | that one was written is recorded: the log's letters change nothing that is checked |
//! | patience of participants                   | they ask when nothing else can happen; where "eager asks" is on, at any moment |
//!
//! | always                                                        |                                                          |
//! |---------------------------------------------------------------|----------------------------------------------------------|
//! | no branch committed beside one aborted                        | of two-phase commit, at any moment                       |
//! | what a caller was told stays true                             | committed: no branch is ever undone. Undone: it is never committed |
//! | no command contradicts its branch                             | no violation, no repair, no alarm                        |
//! | at most one durable decision                                  |                                                          |
//! | accounts are conserved, and hold what their branches say      | and the ledger's own audit finds nothing                 |
//! | what is finished is done everywhere                           | without help from a participant that asks                |
//! | what ends is settled                                          | where nothing can happen any more, every branch is as decided, the caller has heard, the log has finished: this stands in for liveness |
//!
//! Besides, each configuration must come to what it is there for (a commit, an abort, recovery to both, a tombstone, a dead letter),
//! and the tests switch deliberate bugs on and expect each to be caught. Three are out of reach: nothing that is correct elsewhere
//! ever brings a late abort to a committed branch or a commit to an aborted one; and in the
//! worlds tried, with their one transaction, fencing alone keeps a second decision out before the log's compare-and-set has to.

mod configuration;
mod model;
mod parts;
mod report;
#[cfg(test)]
mod tests;
mod world;

use std::process::ExitCode;

use clap::Parser;
use comfy_table::{CellAlignment, Table, presets::UTF8_BORDERS_ONLY};

use crate::model::Checked;

/// Checks every interleaving of the real coordinator, log and ledger within small bounds.
#[derive(Debug, Parser)]
struct Arguments {
    /// Checks larger worlds too: minutes, and gigabytes of memory.
    #[arg(long)]
    deep: bool,
    /// Checks only the configurations whose name contains this.
    #[arg(long, default_value = "")]
    only: String,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let mut configurations = configuration::regular();
    if arguments.deep {
        configurations.extend(configuration::deep());
    }
    configurations.retain(|configuration| configuration.to_string().contains(&arguments.only));
    if configurations.is_empty() {
        eprintln!("no configuration's name contains `{}`", arguments.only);
        return ExitCode::FAILURE;
    }
    let mut table = Table::new();
    table.load_style(UTF8_BORDERS_ONLY);
    table.set_header(["configuration", "states", "unique", "depth", "seconds", "properties"]);
    let mut sound = true;
    let (mut states, mut unique, mut seconds) = (0, 0, 0.0);
    for configuration in configurations {
        let name = configuration.to_string();
        let verdict = report::check(Checked::new(configuration.clone()));
        eprintln!("{name}: {} states, {} unique, {:.1} s", verdict.states, verdict.unique, verdict.took.as_secs_f64());
        let properties = if verdict.failed.is_empty() {
            format!("{} hold", verdict.held)
        } else {
            sound = false;
            match report::shortest_counterexample(&configuration) {
                Some(told) => eprintln!("{name}: {told}"),
                None => eprintln!("{name}: never seen: {}", verdict.failed.join("; ")),
            }
            format!("FAILED: {}", verdict.failed.join("; "))
        };
        states += verdict.states;
        unique += verdict.unique;
        seconds += verdict.took.as_secs_f64();
        table.add_row([
            name,
            verdict.states.to_string(),
            verdict.unique.to_string(),
            verdict.depth.to_string(),
            format!("{:.1}", verdict.took.as_secs_f64()),
            properties,
        ]);
    }
    let total = ["total".to_owned(), states.to_string(), unique.to_string(), String::new(), format!("{seconds:.1}")];
    table.add_row(total);
    for column in table.column_iter_mut().skip(1).take(4) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    println!("{table}");
    if sound { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
