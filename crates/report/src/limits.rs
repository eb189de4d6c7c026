//! Every maximum of this crate.

/// Runs in one report: as many lines as can be told apart by colour, dashes and markers.
pub const MAX_RUNS: usize = 8;
/// The longest file that is read. Bytes. A run of a day, the longest there is, takes some 20 MiB.
pub const MAX_FILE_BYTES: u64 = 64 << 20;
/// The longest run. Seconds; `settle load` makes none that is longer.
pub const MAX_SECONDS: usize = 86_400;
/// The longest label. Characters; what is behind them is cut off.
pub const MAX_LABEL_CHARS: usize = 60;
/// Points of a line over time. Longer runs are drawn in averages of several seconds.
pub const MAX_POINTS: usize = 240;
/// Markers of a line over time.
pub const MAX_MARKERS: usize = 24;
/// Reasons told of each run's refusals, and of its failures.
pub const MAX_REASONS: usize = 6;
/// The percentile axis ends here at the latest: 99.9999.
pub const MAX_NINES: f64 = 6.0;
