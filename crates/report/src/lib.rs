//! Plots of load runs: what `settle load --json` wrote, as one page (HTML) or one picture (SVG) that needs nothing else.
//!
//! ```text
//!  RUN.json … ──▶ run ──────────▶ curve ─────────▶ figures ─────────────────▶ page   (HTML)
//!                 read, checked   points           chart, outcomes: SVG   └─▶ sheet  (SVG)
//! ```
//!
//! | module | what it is |
//! |---|---|
//! | [`cli`] | `settle bench report`: flags in, a file out |
//! | [`run`] | one file, read and checked; what an older version did not write is left out, and said |
//! | [`curve`] | latency by percentile, and rates over time, as points |
//! | [`words`] | counts, times, rates and ratios for people |
//! | `axis` | where a value lands, and where the ticks are |
//! | `svg` | the few elements that the charts need, and the escaping |
//! | `style` | colours, dashes and markers; both colour schemes |
//! | `chart`, `outcomes` | the drawings |
//! | `figures` | which drawings a report has, and the table of the runs |
//! | `page`, `sheet` | the two kinds of file |
//!
//! Nothing in here is shown unescaped: [`svg::escape`] is the one way of a text into either file. Neither has a script, and neither
//! asks for anything from anywhere.

use std::path::PathBuf;

use thiserror::Error;

mod axis;
mod chart;
pub mod cli;
pub mod curve;
mod figures;
pub mod limits;
mod outcomes;
mod page;
pub mod run;
mod sheet;
mod style;
pub mod svg;
pub mod words;

pub use cli::{BenchArgs, main_bench};
pub use page::page;
pub use run::{Latencies, Run};
pub use sheet::sheet;

/// Why there is no report. All of them are the caller's to mend.
#[derive(Debug, Error)]
pub enum Error {
    /// A file that is no run, or none that can be drawn.
    #[error("{}: {problem}", file.display())]
    Unusable {
        /// The file.
        file: PathBuf,
        /// What is wrong with it, and what to do.
        problem: String,
    },
    /// More runs than can be told apart.
    #[error(
        "{}: the report is full: {given} runs were given, and no more than {} can be told apart; give fewer", first_too_many.display(),
        limits::MAX_RUNS
    )]
    TooMany {
        /// How many runs were given.
        given: usize,
        /// The first that has no place.
        first_too_many: PathBuf,
    },
    /// More labels than runs.
    #[error("--label {label:?}: there is no run for it; labels go to the runs in their order, and there are {runs}")]
    LabelWithoutRun {
        /// The first label too many.
        label: String,
        /// How many runs there are.
        runs: usize,
    },
    /// The report's name does not say what it is to be, or it is that of a run.
    #[error("--out {}: {problem}", file.display())]
    Out {
        /// The name as given.
        file: PathBuf,
        /// What to give instead.
        problem: String,
    },
    /// The report cannot be written.
    #[error("cannot write {}: {cause}", file.display())]
    Write {
        /// The file.
        file: PathBuf,
        /// Why.
        cause: std::io::Error,
    },
}
