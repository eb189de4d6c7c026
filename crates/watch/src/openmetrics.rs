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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_our_processes_write_is_read() {
        let text = "# HELP settle_x Of this.\n# TYPE settle_x counter\nsettle_x_total{service=\"stock\",le=\"+Inf\"} 12\n\
                    plain 0.5 1763750000.1\nexemplar_total{a=\"b\",} 7 # {trace=\"x y\"} 1.0 2\nnan NaN\ninf +Inf\n# EOF\nbehind 1\n";
        let read = parse(text);
        let names: Vec<&str> = read.samples.iter().map(|sample| sample.name).collect();
        assert_eq!(names, ["settle_x_total", "plain", "exemplar_total", "nan", "inf"]);
        assert_eq!((read.unreadable, read.complete), (0, true));
        let first = &read.samples[0];
        assert_eq!((first.label("service"), first.label("le"), first.label("none")), ("stock", "+Inf", ""));
        assert_eq!((first.value, read.samples[1].value, read.samples[2].value), (12.0, 0.5, 7.0));
        assert!(read.samples[3].value.is_nan() && read.samples[4].value.is_infinite());
    }

    #[test]
    fn a_line_that_cannot_be_read_costs_itself_alone() {
        for line in [
            "1x 2",
            "x",
            "x{",
            "x{a} 1",
            "x{a=} 1",
            "x{a=\"b} 1",
            "x{a=\"b\"c=\"d\"} 1",
            "x{a=\"b\"}1",
            "x y",
            "{} 1",
            "x{a=\"\\",
            "é 1",
        ] {
            let text = format!("before 1\n{line}\nafter 2\n# EOF\n");
            let read = parse(&text);
            assert_eq!((read.samples.len(), read.unreadable, read.complete), (2, 1, true), "{line}");
        }
        assert!(!parse("x 1\n").complete, "it was cut off");
    }

    #[test]
    fn no_more_is_read_than_the_maxima() {
        let lines = "x 1\n".repeat(MAX_SAMPLES + 10);
        assert_eq!(parse(&lines).samples.len(), MAX_SAMPLES);
        // Cut within a letter of several bytes.
        let long = format!("x 1\n#{}é\ny 1\n# EOF\n", "a".repeat(MAX_TEXT_BYTES - 6));
        let read = parse(&long);
        assert_eq!((read.samples.len(), read.complete), (1, false));
        let labels: Vec<String> = (0..=MAX_LABELS).map(|n| format!("l{n}=\"\"")).collect();
        let (all, fitting) = (labels.join(","), labels[1..].join(","));
        assert_eq!(parse(&format!("x{{{all}}} 1")).unreadable, 1);
        assert_eq!(parse(&format!("x{{{fitting}}} 1")).samples.len(), 1);
    }

    fn escaped(text: &str) -> String {
        text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
    }

    proptest! {
        #[test]
        fn nothing_that_somebody_writes_makes_it_panic(text in ".{0,400}") {
            _ = parse(&text);
        }

        /// Texts that look much like the format, broken at some place.
        #[test]
        fn nothing_that_is_nearly_right_does(text in "([a-z_]{1,3}|[{}=\",\\\\# \\n+.0-9-]|\\PC){0,200}") {
            let read = parse(&text);
            prop_assert!(read.samples.len() + read.unreadable <= text.lines().count());
        }

        #[test]
        fn what_is_written_is_read_again(
            name in "[a-zA-Z_:][a-zA-Z0-9_:]{0,20}",
            labels in prop::collection::vec(("[a-zA-Z_][a-zA-Z0-9_]{0,8}", "[^\r\u{2028}]{0,12}"), 0..5),
            value in any::<f64>().prop_filter("a number", |value| value.is_finite()),
        ) {
            // A line ends at a line feed, which is written as two letters.
            let written: Vec<String> = labels.iter().map(|(name, text)| format!("{name}=\"{}\"", escaped(text))).collect();
            let brackets = if labels.is_empty() { String::new() } else { format!("{{{}}}", written.join(",")) };
            let text = format!("{name}{brackets} {value}\n# EOF\n");
            let read = parse(&text);
            prop_assert_eq!(read.unreadable, 0, "{}", text);
            let sample = &read.samples[0];
            prop_assert_eq!((sample.name, sample.value), (name.as_str(), value));
            let found: Vec<(String, String)> =
                sample.labels.iter().map(|(name, text)| ((*name).to_owned(), text.clone().into_owned())).collect();
            prop_assert_eq!(found, labels);
        }
    }
}
