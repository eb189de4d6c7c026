//! The text format of OpenMetrics, and of Prometheus before it, as far as processes of ours write it.
//!
//! ```text
//!   # TYPE settle_transactions counter                                        comments say nothing here
//!   settle_transactions_total{definition="checkout",outcome="refused"} 12 1763750000.1 # {trace="…"} 1
//!   └─ name ─────────────────┘└─ labels ──────────────────────────────┘ value  time      exemplar: both are passed over
//! ```
//!
//! A line that cannot be read is passed over and counted: nothing that somebody writes makes this panic, or take more than the maxima.

use std::borrow::Cow;

use crate::limits::{MAX_LABELS, MAX_SAMPLES, MAX_TEXT_BYTES};

/// One sample.
#[derive(Debug, Clone, PartialEq)]
pub struct Sample<'a> {
    /// Its whole name, such as `settle_transactions_total`.
    pub name: &'a str,
    /// Its labels, as they were written.
    pub labels: Vec<(&'a str, Cow<'a, str>)>,
    /// Its value, which may be infinite or none.
    pub value: f64,
}

impl Sample<'_> {
    /// What a label says; empty if there is none.
    pub fn label(&self, name: &str) -> &str {
        self.labels.iter().find(|(known, _)| *known == name).map_or("", |(_, value)| value)
    }
}

/// What was read.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Exposition<'a> {
    /// At most [`MAX_SAMPLES`].
    pub samples: Vec<Sample<'a>>,
    /// Lines that could not be read.
    pub unreadable: usize,
    /// Whether the end was reached: a text that was cut off has none.
    pub complete: bool,
}

/// Reads a text: at most [`MAX_TEXT_BYTES`] of it.
pub fn parse(text: &str) -> Exposition<'_> {
    let mut read = Exposition::default();
    let mut end = text.len().min(MAX_TEXT_BYTES);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    for line in text.get(..end).unwrap_or_default().lines() {
        let line = line.trim();
        if line == "# EOF" {
            read.complete = true;
            break;
        }
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        if read.samples.len() >= MAX_SAMPLES {
            break;
        }
        match sample(line) {
            Some(sample) => read.samples.push(sample),
            None => read.unreadable += 1,
        }
    }
    read
}

fn sample(line: &str) -> Option<Sample<'_>> {
    let (name, rest) = word(line)?;
    let (labels, rest) = match rest.strip_prefix('{') {
        Some(inner) => labels(inner)?,
        None => (vec![], rest),
    };
    // Between a name without labels and its value there must be something.
    let value = rest.strip_prefix([' ', '\t'])?.split_ascii_whitespace().next()?;
    Some(Sample { name, labels, value: value.parse().ok()? })
}

/// A name, and what is behind it.
fn word(text: &str) -> Option<(&str, &str)> {
    let end = text.find(|c: char| !(c.is_ascii_alphanumeric() || c == '_' || c == ':')).unwrap_or(text.len());
    let (word, rest) = text.split_at(end);
    let begins = word.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_' || c == ':');
    begins.then_some((word, rest))
}

type Labels<'a> = Vec<(&'a str, Cow<'a, str>)>;

/// Labels, and what is behind the bracket that closes them.
fn labels(mut text: &str) -> Option<(Labels<'_>, &str)> {
    let mut labels = vec![];
    loop {
        text = text.trim_start();
        if let Some(rest) = text.strip_prefix('}') {
            return Some((labels, rest));
        }
        if labels.len() >= MAX_LABELS {
            return None;
        }
        let (name, rest) = word(text)?;
        let (value, rest) = quoted(rest.trim_start().strip_prefix('=')?.trim_start().strip_prefix('"')?)?;
        labels.push((name, value));
        text = rest.trim_start();
        // A comma behind the last one is allowed.
        match text.strip_prefix(',') {
            Some(rest) => text = rest,
            None if text.starts_with('}') => {}
            None => return None,
        }
    }
}

/// A text up to the quote that ends it, and what is behind that.
fn quoted(text: &str) -> Option<(Cow<'_, str>, &str)> {
    let end = text.find(['"', '\\'])?;
    if text.get(end..)?.starts_with('"') {
        return Some((Cow::Borrowed(text.get(..end)?), text.get(end + 1..)?));
    }
    let mut value = String::new();
    let mut letters = text.char_indices();
    while let Some((at, letter)) = letters.next() {
        match letter {
            '"' => return Some((Cow::Owned(value), text.get(at + 1..)?)),
            '\\' => match letters.next()?.1 {
                'n' => value.push('\n'),
                other => value.push(other),
            },
            other => value.push(other),
        }
    }
    None
}
