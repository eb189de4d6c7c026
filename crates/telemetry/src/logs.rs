//! What is logged: a filter that can be changed while the process runs, and lines on standard error.
//!
//! | level   | what it means                                                          |
//! |---------|-------------------------------------------------------------------------|
//! | `error` | a person must act                                                      |
//! | `warn`  | something is degraded, and is dealt with                               |
//! | `info`  | the life of a process: never one line a request                        |
//! | `debug` | the story of each transaction                                          |
//! | `trace` | what is of interest to whoever changes the code                        |
//!
//! Passwords and payloads are never written. Of other people's crates, lines below `info` are not written, whatever the filter says: nobody here
//! knows what stands in them.

use std::io::{IsTerminal, Write as _};
use std::sync::OnceLock;

use protocol::limits::MAX_LOG_FILTER_BYTES;
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::layer::{Context, SubscriberExt};
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer, Registry, reload};

use crate::line::{Style, write_line};
use crate::scope::Scope;

/// What lets through what, if nobody says otherwise.
pub const DEFAULT_FILTER: &str = "info";
/// The variable with the filter that a process starts with.
pub const VARIABLE: &str = "SETTLE_LOG";

/// How lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Format {
    /// For people on a terminal, otherwise JSON.
    #[default]
    Auto,
    /// A JSON object a line.
    Json,
    /// For people.
    Pretty,
}

/// Whose lines they are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin {
    /// `settle-order`, say.
    pub service: String,
    /// The instance's name.
    pub instance: String,
}

struct Started {
    filter: reload::Handle<EnvFilter, Registry>,
    json: bool,
}

static STARTED: OnceLock<Started> = OnceLock::new();

/// A filter that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BadFilter(String);

impl std::fmt::Display for BadFilter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for BadFilter {}

fn parse(filter: &str) -> Result<EnvFilter, BadFilter> {
    let allowed = "a filter is a level (error, warn, info, debug, trace, off), or several with the parts of the program that they are for, \
                   such as `warn,orchestrator=debug`";
    if filter.trim().is_empty() || filter.len() > MAX_LOG_FILTER_BYTES {
        return Err(BadFilter(format!("{allowed}; of 1 to {MAX_LOG_FILTER_BYTES} bytes")));
    }
    // A word that is no level would be taken for the name of a part, and everything else be silent.
    let level = |word: &str| {
        let levels = ["error", "warn", "info", "debug", "trace", "off"];
        levels.iter().any(|level| word.trim().eq_ignore_ascii_case(level))
    };
    for directive in filter.split(',').filter(|directive| !directive.trim().is_empty()) {
        let ends_well = directive.rsplit_once('=').map_or(directive, |(_, end)| end);
        if !level(ends_well) {
            return Err(BadFilter(format!("`{}` does not end in a level: {allowed}", directive.trim())));
        }
    }
    EnvFilter::try_new(filter).map_err(|error| BadFilter(format!("`{filter}`: {error}; {allowed}")))
}

/// Begins to write lines, for the rest of the process. Only the first call has an effect. A filter in [`VARIABLE`] that cannot be used is told,
/// and [`DEFAULT_FILTER`] used.
pub fn start(format: Format, origin: Origin) {
    let said = std::env::var(VARIABLE).ok().filter(|said| !said.is_empty());
    let parsed = said.map(|said| parse(&said));
    let (filter, bad) = match parsed {
        Some(Ok(filter)) => (filter, None),
        Some(Err(bad)) => (EnvFilter::new(DEFAULT_FILTER), Some(bad)),
        None => (EnvFilter::new(DEFAULT_FILTER), None),
    };
    let on_terminal = std::io::stderr().is_terminal();
    let style = match format {
        Format::Json => Style::Json,
        Format::Auto if !on_terminal => Style::Json,
        Format::Auto | Format::Pretty => Style::Pretty { colours: on_terminal },
    };
    let (filter, handle) = reload::Layer::new(filter);
    let lines = Lines { style, origin, write: Box::new(write_to_stderr) };
    if tracing_subscriber::registry().with(filter).with(lines).try_init().is_err() {
        return;
    }
    let json = style == Style::Json;
    _ = STARTED.set(Started { filter: handle, json });
    if json {
        std::panic::set_hook(Box::new(tell_of_panic));
    }
    if let Some(bad) = bad {
        tracing::warn!(why = %bad, "the filter in {VARIABLE} is not used, but `{DEFAULT_FILTER}`");
    }
}

/// Whether this process writes its lines as JSON: then everything that it says on standard error should be a line of the log.
pub fn is_json() -> bool {
    STARTED.get().is_some_and(|started| started.json)
}

/// The filter in use; `None` if this process does not log.
pub fn filter() -> Option<String> {
    STARTED.get()?.filter.with_current(ToString::to_string).ok()
}

/// Whether this is a filter.
///
/// # Errors
/// If it is none.
pub fn check_filter(filter: &str) -> Result<(), BadFilter> {
    parse(filter).map(|_| ())
}

/// Uses another filter from now on.
///
/// # Errors
/// If it is none, or this process does not log.
pub fn set_filter(filter: &str) -> Result<(), BadFilter> {
    let parsed = parse(filter)?;
    let started = STARTED.get().ok_or_else(|| BadFilter("this process does not log".to_owned()))?;
    let before = started.filter.with_current(ToString::to_string).unwrap_or_default();
    started.filter.reload(parsed).map_err(|error| BadFilter(error.to_string()))?;
    // Whoever reads the log should know why lines begin, or end, here. At the one level that nearly every filter lets through.
    tracing::warn!(before, now = filter, "the log's filter was changed");
    Ok(())
}

fn tell_of_panic(panic: &std::panic::PanicHookInfo<'_>) {
    let thread = std::thread::current();
    let place = panic.location().map(ToString::to_string).unwrap_or_default();
    let said = panic.payload_as_str().unwrap_or_default();
    let thread = thread.name().unwrap_or("unnamed");
    tracing::error!("thread {thread} panicked at {place}: {said}: this is a defect, please report it");
}

fn write_to_stderr(line: &[u8]) {
    // Nobody is left to be told if it cannot be written. One write, so that lines of several threads do not mix.
    _ = std::io::stderr().lock().write_all(line);
}

/// Whether a line of this part of the program may be written below `info`.
fn is_ours(target: &str) -> bool {
    const OURS: [&str; 13] = [
        "settle",
        "shop",
        "orchestrator",
        "protocol",
        "ledger",
        "table",
        "embedded",
        "nats",
        "redis_store",
        "servers",
        "load",
        "telemetry",
        "watch",
    ];
    let part = target.split("::").next().unwrap_or_default();
    OURS.contains(&part)
}

/// Takes a line.
type Write = Box<dyn Fn(&[u8]) + Send + Sync>;

/// Writes events as lines.
struct Lines {
    style: Style,
    origin: Origin,
    write: Write,
}

impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for Lines {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let about = event.metadata();
        if *about.level() > Level::INFO && !is_ours(about.target()) {
            return;
        }
        let scope = Scope::current();
        (self.write)(&write_line(self.style, &self.origin, scope.as_ref(), event));
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use serde_json::Value;

    use super::*;
    use crate::ids::TraceContext;

    /// What is written while `work` runs.
    fn written(style: Style, filter: &str, work: impl FnOnce()) -> Vec<String> {
        let said = Arc::new(Mutex::new(Vec::new()));
        let hear = Arc::clone(&said);
        let write = Box::new(move |line: &[u8]| hear.lock().unwrap().extend_from_slice(line));
        let origin = Origin { service: "settle-order".to_owned(), instance: "order-1".to_owned() };
        let lines = Lines { style, origin, write };
        let subscriber = tracing_subscriber::registry().with(parse(filter).unwrap()).with(lines);
        tracing::subscriber::with_default(subscriber, work);
        let text = String::from_utf8(said.lock().unwrap().clone()).unwrap();
        text.lines().map(str::to_owned).collect()
    }

    #[test]
    fn a_line_is_an_object_with_what_it_belongs_to() {
        let trace = TraceContext::read("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", None);
        let scope = Scope { trace, order: Some(ledger::EntityId::number(17)), request: None };
        let lines = written(Style::Json, "info", || {
            scope.within(|| {
                tracing::error!(transaction = %"0190b6e2", step = 1, service = "stock", why = "a \"quoted\"\nline", "stuck");
            });
            tracing::info!(order = 3, ratio = 0.5, ok = true, negative = -4, wide = u128::MAX, "by itself");
        });
        let [stuck, alone] = [0, 1].map(|n| serde_json::from_str::<Value>(&lines[n]).unwrap());
        assert_eq!(lines.len(), 2, "{lines:?}");
        let of = |line: &Value, key: &str| line[key].clone();
        for (key, expected) in [
            ("level", "error"),
            ("service", "settle-order"),
            ("instance", "order-1"),
            ("trace_id", "0af7651916cd43dd8448eb211c80319c"),
            ("span_id", "b7ad6b7169203331"),
            ("transaction", "0190b6e2"),
            ("order", "17"),
            ("target", "telemetry::logs::tests"),
            ("message", "stuck"),
            ("why", "a \"quoted\"\nline"),
            ("service_", "stock"),
        ] {
            assert_eq!(of(&stuck, key), expected, "{key} in {stuck}");
        }
        assert_eq!(of(&stuck, "step"), 1);
        assert_eq!((of(&alone, "order"), of(&alone, "trace_id")), (3.into(), Value::Null), "{alone}");
        assert_eq!(
            (of(&alone, "ratio"), of(&alone, "ok"), of(&alone, "negative")),
            (0.5.into(), true.into(), (-4).into())
        );
        let time = of(&stuck, "time");
        let time = time.as_str().unwrap();
        assert!(time.len() == 27 && time.starts_with("20") && time.ends_with('Z'), "{time}");
    }

    #[test]
    fn a_line_for_people_has_the_same() {
        let scope = Scope { order: Some(ledger::EntityId::number(17)), ..Scope::default() };
        let lines = written(Style::Pretty { colours: false }, "info", || {
            scope.within(|| tracing::warn!(transaction = %"0190b6e2", "slow\nor so"));
        });
        assert_eq!(lines.len(), 1, "{lines:?}");
        let line = &lines[0];
        assert!(line.contains(" WARN slow\\nor so transaction=0190b6e2 order=17 (telemetry::logs::tests)"), "{line}");
    }

    #[test]
    fn other_peoples_lines_are_written_from_info_on() {
        let lines = written(Style::Json, "trace", || {
            tracing::trace!(target: "async_nats::connection", "PUB hunter2");
            tracing::debug!(target: "h2", "hunter2");
            tracing::info!(target: "async_nats", "connected");
            tracing::trace!(target: "nats::outbox", "ours");
            tracing::trace!("ours, too");
        });
        assert!(lines.len() == 3 && !lines.concat().contains("hunter2"), "{lines:?}");
    }

    #[test]
    fn what_is_no_filter_is_said_to_be_none_and_why() {
        for bad in
            ["", " ", "loud", "orchestrator", "orchestrator=loud", "info,shop", "info,[=debug", &"x".repeat(1_001)]
        {
            let why = parse(bad).map(|_| ()).unwrap_err().to_string();
            assert!(why.contains("level"), "{bad}: {why}");
        }
        for good in ["info", "WARN", "off", "warn,orchestrator=debug", "info,", "shop::checkout_http=trace"] {
            assert!(parse(good).is_ok(), "{good}");
        }
    }
}
