//! `settle bench report`: flags in, a file out.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use crate::limits::MAX_RUNS;
use crate::run::{Latencies, Run};
use crate::{Error, page, sheet};

const EXAMPLES: &str = "\
Examples:
  Two runs side by side, in report.html:
    settle load --json before.json
    settle load --json after.json
    settle bench report before.json after.json

  One picture, and other names than those of the files:
    settle bench report a.json b.json --label 2pc --label saga --out compared.svg

Exit code: 0 the report is written; 2 a file that is no run, or a report that cannot be written.";

/// What is made of measurements.
#[derive(Debug, Clone, clap::Args)]
pub struct BenchArgs {
    #[command(subcommand)]
    command: BenchCommand,
}

#[derive(Debug, Clone, clap::Subcommand)]
enum BenchCommand {
    /// Plot what `settle load --json` wrote: latency, throughput and outcomes, runs side by side.
    Report(ReportArgs),
}

/// The flags of `settle bench report`.
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct ReportArgs {
    /// Files that `settle load --json` wrote, up to 8; ratios are to the first
    #[arg(value_name = "RUN.json", required = true)]
    pub runs: Vec<PathBuf>,

    /// The report: a page if the name ends in .html, a picture if it ends in .svg
    #[arg(long, value_name = "FILE", default_value = "report.html")]
    pub out: PathBuf,

    /// What a run is called, once for each in their order [default: the name of the file]
    #[arg(long = "label", value_name = "NAME")]
    pub labels: Vec<String>,

    /// Whose latency to draw
    #[arg(long, value_enum, default_value_t)]
    pub latency: Latencies,
}

/// Makes the report. What it says goes to standard output: the file, and what is left out of it.
///
/// # Errors
/// Whatever keeps it from being made: see [`enum@Error`]. The report is not touched then.
pub fn main_bench(args: &BenchArgs) -> Result<String, Error> {
    let BenchCommand::Report(args) = &args.command;
    make(args)
}

/// Makes the report; what there is to say about it.
///
/// # Errors
/// As [`main_bench`].
pub fn make(args: &ReportArgs) -> Result<String, Error> {
    let out_problem = |problem: &str| Error::Out { file: args.out.clone(), problem: problem.to_owned() };
    let draw = match args.out.extension().and_then(|e| e.to_str()).map(str::to_ascii_lowercase).as_deref() {
        Some("html" | "htm") => page::page,
        Some("svg") => sheet::sheet,
        _ => return Err(out_problem("the name must end in .html, for a page, or in .svg, for a picture")),
    };
    if let Some(first_too_many) = args.runs.get(MAX_RUNS) {
        return Err(Error::TooMany { given: args.runs.len(), first_too_many: first_too_many.clone() });
    }
    if let Some(label) = args.labels.get(args.runs.len()) {
        return Err(Error::LabelWithoutRun { label: label.clone(), runs: args.runs.len() });
    }
    if let Ok(out) = args.out.canonicalize()
        && args.runs.iter().any(|run| run.canonicalize().is_ok_and(|run| run == out))
    {
        return Err(out_problem("that is one of the runs, and would be written over; give another name"));
    }
    let labels = labels(&args.runs, &args.labels);
    let read = args.runs.iter().zip(&labels).map(|(file, label)| Run::read(file, label, args.latency));
    let runs: Vec<Run> = read.collect::<Result<_, _>>()?;
    std::fs::write(&args.out, draw(&runs)).map_err(|cause| Error::Write { file: args.out.clone(), cause })?;
    let mut said = vec![format!("Wrote {}: {}.", args.out.display(), labels.join(", "))];
    said.extend(
        runs.iter().flat_map(|run| run.left_out.iter().map(move |what| format!("{}: left out is {what}.", run.file))),
    );
    Ok(said.join("\n"))
}

/// What each run is called: as given, or by its file; numbered where two would be the same.
fn labels(runs: &[PathBuf], given: &[String]) -> Vec<String> {
    let stem = |run: &Path| run.file_stem().unwrap_or(run.as_os_str()).to_string_lossy().into_owned();
    let stems: Vec<String> = runs.iter().map(|run| stem(run)).collect();
    let mut taken = HashSet::new();
    let mut labels = Vec::with_capacity(runs.len());
    for (place, run) in runs.iter().enumerate() {
        let is_stem_unique = stems.iter().filter(|other| **other == stems[place]).count() == 1;
        let by_file = || if is_stem_unique { stems[place].clone() } else { run.display().to_string() };
        let wanted = given.get(place).filter(|label| !label.trim().is_empty()).cloned().unwrap_or_else(by_file);
        let mut label = wanted.clone();
        let mut number = 2;
        while !taken.insert(label.clone()) {
            label = format!("{wanted} ({number})");
            number += 1;
        }
        labels.push(label);
    }
    labels
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(runs: &[&str], given: &[&str]) -> Vec<String> {
        let runs: Vec<PathBuf> = runs.iter().map(PathBuf::from).collect();
        labels(&runs, &given.iter().map(ToString::to_string).collect::<Vec<_>>())
    }

    #[test]
    fn runs_are_called_by_their_files_unless_told() {
        assert_eq!(named(&["x/a.json", "b.json"], &[]), ["a", "b"]);
        assert_eq!(named(&["x/a.json", "y/a.json", "b.json"], &[]), ["x/a.json", "y/a.json", "b"]);
        assert_eq!(named(&["a.json", "a.json"], &[]), ["a.json", "a.json (2)"]);
        assert_eq!(named(&["a.json", "b.json", "c.json"], &["one", " "]), ["one", "b", "c"]);
        assert_eq!(named(&["a.json", "b.json"], &["same", "same"]), ["same", "same (2)"]);
    }
}
