//! An event as a line: a JSON object, or text for people.
//!
//! A JSON line begins with `time`, `level`, `service`, `instance`, then `trace_id`, `span_id`, `transaction` and `order` where there is one, `message`,
//! what the event says besides, and `target`: the part of the program.

use std::fmt::{Debug, Write as _};
use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::{Map, Value};
use time::OffsetDateTime;
use tracing::field::{Field, Visit};
use tracing::{Event, Level};

use crate::logs::Origin;
use crate::scope::Scope;

/// How a line looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Style {
    Json,
    Pretty { colours: bool },
}

/// What every line says of itself. An event's own member of such a name gets an underscore.
const OWN: [&str; 8] = ["time", "level", "service", "instance", "trace_id", "span_id", "message", "target"];

#[derive(Default)]
struct Fields {
    message: String,
    transaction: Option<Value>,
    order: Option<Value>,
    rest: Vec<(String, Value)>,
}

impl Fields {
    fn put(&mut self, field: &Field, value: Value) {
        match field.name() {
            "message" => {
                self.message = match value {
                    Value::String(text) => text,
                    other => other.to_string(),
                }
            }
            "transaction" => self.transaction = Some(value),
            "order" => self.order = Some(value),
            // A record of the crate `log` repeats where it is from.
            name if name.starts_with("log.") => {}
            name if OWN.contains(&name) => self.rest.push((format!("{name}_"), value)),
            name => self.rest.push((name.to_owned(), value)),
        }
    }
}

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.put(field, Value::String(format!("{value:?}")));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.put(field, value.into());
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.put(field, value.into());
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.put(field, value.into());
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        self.put(field, value.into());
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.put(field, value.into());
    }
}

/// The line, with its end.
pub(crate) fn write_line(style: Style, origin: &Origin, scope: Option<&Scope>, event: &Event<'_>) -> Vec<u8> {
    let mut fields = Fields::default();
    event.record(&mut fields);
    if fields.order.is_none() {
        fields.order = scope.and_then(Scope::order).map(|order| Value::from(order.to_string()));
    }
    match style {
        Style::Json => json(origin, scope, event, fields),
        Style::Pretty { colours } => pretty(colours, event, fields),
    }
}

fn json(origin: &Origin, scope: Option<&Scope>, event: &Event<'_>, fields: Fields) -> Vec<u8> {
    let level = match *event.metadata().level() {
        Level::ERROR => "error",
        Level::WARN => "warn",
        Level::INFO => "info",
        Level::DEBUG => "debug",
        Level::TRACE => "trace",
    };
    let mut line = Map::new();
    let mut put = |name: &str, value: Value| _ = line.insert(name.to_owned(), value);
    put("time", now().into());
    put("level", level.into());
    put("service", origin.service.as_str().into());
    put("instance", origin.instance.as_str().into());
    if let Some(trace) = scope.and_then(Scope::context) {
        put("trace_id", trace.trace.to_string().into());
        put("span_id", trace.span.to_string().into());
    }
    let named = [("transaction", fields.transaction), ("order", fields.order)];
    named.into_iter().filter_map(|(name, value)| Some((name, value?))).for_each(|(name, value)| put(name, value));
    put("message", fields.message.into());
    fields.rest.into_iter().for_each(|(name, value)| put(&name, value));
    put("target", event.metadata().target().into());
    // An object of texts and numbers always can be written.
    let mut bytes = serde_json::to_vec(&line).unwrap_or_default();
    bytes.push(b'\n');
    bytes
}

fn pretty(colours: bool, event: &Event<'_>, fields: Fields) -> Vec<u8> {
    let (level, colour) = match *event.metadata().level() {
        Level::ERROR => ("ERROR", 31),
        Level::WARN => (" WARN", 33),
        Level::INFO => (" INFO", 32),
        Level::DEBUG => ("DEBUG", 34),
        Level::TRACE => ("TRACE", 35),
    };
    let mut line = String::with_capacity(160);
    let said = |value: &Value| match value {
        Value::String(text) => one_line(text),
        other => other.to_string(),
    };
    // A string always can be written to.
    _ = match colours {
        true => write!(line, "\x1b[2m{}\x1b[0m \x1b[{colour}m{level}\x1b[0m {}", now(), one_line(&fields.message)),
        false => write!(line, "{} {level} {}", now(), one_line(&fields.message)),
    };
    let named = [("transaction", fields.transaction), ("order", fields.order)];
    let named = named.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?)));
    for (name, value) in named.chain(fields.rest) {
        _ = write!(line, " {name}={}", said(&value));
    }
    _ = writeln!(line, " ({})", event.metadata().target());
    line.into_bytes()
}

/// Nobody's text begins a line of its own, or tells a terminal what to do.
fn one_line(text: &str) -> String {
    if !text.contains(char::is_control) {
        return text.to_owned();
    }
    text.chars().map(|c| if c.is_control() { c.escape_default().to_string() } else { c.to_string() }).collect()
}

/// The time as RFC 3339 in UTC, to the microsecond.
fn now() -> String {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let seconds = i64::try_from(since.as_secs()).unwrap_or(0);
    let date = OffsetDateTime::from_unix_timestamp(seconds).unwrap_or(OffsetDateTime::UNIX_EPOCH);
    let (hour, minute, second) = date.to_hms();
    format!("{}T{hour:02}:{minute:02}:{second:02}.{:06}Z", date.date(), since.subsec_micros())
}
