//! The history of a run: one line an event.

use std::fmt::Write;

use crate::network::Node;

/// Time, who, what; kept only if somebody wants to read it.
#[derive(Debug, Default)]
pub(crate) struct History {
    lines: Option<String>,
}

impl History {
    pub(crate) fn new(kept: bool) -> Self {
        Self { lines: kept.then(String::new) }
    }

    pub(crate) fn is_kept(&self) -> bool {
        self.lines.is_some()
    }

    pub(crate) fn add(&mut self, micros: u64, who: Node, what: &str) {
        if let Some(lines) = &mut self.lines {
            let who = who.to_string();
            // Writing to a string does not fail.
            _ = writeln!(lines, "{:>6}.{:06}  {who:<8}  {what}", micros / 1_000_000, micros % 1_000_000);
        }
    }

    pub(crate) fn take(&mut self) -> String {
        self.lines.take().unwrap_or_default()
    }
}
