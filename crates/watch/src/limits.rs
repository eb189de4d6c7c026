//! Every maximum of this crate.

/// The longest text of metrics that is read. Bytes. What is behind it is not read.
pub const MAX_TEXT_BYTES: usize = 4 << 20;
/// Samples read out of one text. What is behind them is not read.
pub const MAX_SAMPLES: usize = 20_000;
/// Labels of one sample. One with more is not read.
pub const MAX_LABELS: usize = 32;
/// Different services, definitions or stores of one process. Figures of further ones are not looked at.
pub const MAX_WORDS: usize = 64;
/// The longest name of one. Bytes. Longer ones are not looked at.
pub const MAX_WORD_BYTES: usize = 64;

/// How often everybody is looked at. Milliseconds.
pub const EVERY_MS: u64 = 1_000;
/// How long one may take to answer: less than [`EVERY_MS`], so that whoever does not answer is seen by the next look. Milliseconds.
pub const PATIENCE_MS: u64 = 700;
/// Whoever has not looked for so long stood still: two looks and the longest wait for an answer fit. Milliseconds.
pub const STANDSTILL_MS: u64 = 2_900;
/// Points kept: ten minutes of them.
pub const MAX_POINTS: usize = 600;
/// Marks kept.
pub const MAX_MARKS: usize = 100;
/// What happens again within so long of the last time is one story, and one mark. Milliseconds.
pub const SAME_STORY_MS: u64 = 10_000;
/// The same, of a protocol that changes: near its threshold it goes there and back, and a process that was started begins with the first one.
pub const PROTOCOL_STORY_MS: u64 = 60_000;
/// A dead letter tells for so long why transactions became stuck: the leader counts these some seconds later. Milliseconds.
pub const DEAD_LETTER_AGE_MS: u64 = 30_000;
/// How long a mark is kept. Milliseconds.
pub const MARK_AGE_MS: u64 = MAX_POINTS as u64 * EVERY_MS;
/// A diary that is longer is written anew. Bytes: several times what counts of it.
pub const MAX_DIARY_BYTES: u64 = 1 << 20;
/// The longest words of a note. Characters.
pub const MAX_NOTE_CHARS: usize = 200;
/// So much of a file of notes is read at a time, from its end; at half of it, it is begun anew. Bytes.
pub const MAX_NOTES_BYTES: u64 = 64 << 10;
/// Those who listen to one process at a time. Further ones are told 503.
pub const MAX_LISTENERS: usize = 100;
/// Over how long rates are taken. Milliseconds.
pub const RATE_WINDOW_MS: u64 = 5_000;
/// Over how long percentiles are taken. Milliseconds.
pub const LATENCY_WINDOW_MS: u64 = 10_000;
/// So short that it reaches from one look to the one before it. Milliseconds.
pub const ANY_WINDOW_MS: u64 = 1;
/// The last figures of an instance count for so long after it was asked in vain. Milliseconds.
pub const FIGURES_AGE_MS: u64 = 2_500;
/// A connection on which nothing happens is sent a comment after so long. Milliseconds.
pub const HEARTBEAT_MS: u64 = 5_000;
/// Instances of other processes that one process looks at.
pub const MAX_INSTANCES: usize = 64;

/// Slower checkouts than this are worth a warning. Milliseconds, of the 99th percentile.
pub const SLOW_MS: f64 = 1_000.0;
/// So many checkouts a second that are turned away or undone, while none is served, are no chance: two in [`RATE_WINDOW_MS`].
pub const UNSERVED: f64 = 0.4;
/// Transactions that recovery took up are worth a warning if some are undecided for so long. Milliseconds.
pub const LASTING_DOUBT_MS: u64 = 10_000;
/// An audit that is older than this is worth a warning. Milliseconds.
pub const STALE_AUDIT_MS: u64 = 60 * 60 * 1_000;
/// Reasons told in one verdict.
pub const MAX_REASONS: usize = 3;

const _: () = assert!(PATIENCE_MS < EVERY_MS && RATE_WINDOW_MS <= LATENCY_WINDOW_MS && FIGURES_AGE_MS > 2 * EVERY_MS);
