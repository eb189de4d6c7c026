//! Draft.

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
        eprintln!("{name} ...");
        let verdict = report::check(Checked::new(configuration.clone()));
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
