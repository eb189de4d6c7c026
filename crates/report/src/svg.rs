//! The few SVG elements that the charts need. All of them are looked after by classes, so that one drawing serves both colour schemes.

use std::fmt::Write;

/// The text as it may stand in an element or an attribute of either kind of file.
#[must_use]
pub fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in crate::run::visible(text).chars() {
        match c {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            c => escaped.push(c),
        }
    }
    escaped
}

/// A length to a tenth of a pixel, as short as it can be written.
#[must_use]
pub fn px(length: f64) -> String {
    let text = format!("{length:.1}");
    let text = text.strip_suffix(".0").unwrap_or(&text);
    if text == "-0" { "0".into() } else { text.into() }
}

/// At which end a text stands at its place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Anchor {
    Start,
    Middle,
    End,
}

/// A drawing that grows. Classes and path data come from this crate alone; texts may be anything.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(crate) struct Drawing(String);

impl Drawing {
    pub(crate) fn text(&mut self, x: f64, y: f64, anchor: Anchor, class: &str, text: &str) {
        let anchor = match anchor {
            Anchor::Start => "",
            Anchor::Middle => " text-anchor=\"middle\"",
            Anchor::End => " text-anchor=\"end\"",
        };
        self.push(format_args!(
            "<text x=\"{}\" y=\"{}\"{anchor} class=\"{class}\">{}</text>",
            px(x),
            px(y),
            escape(text)
        ));
    }

    pub(crate) fn line(&mut self, (x1, y1): (f64, f64), (x2, y2): (f64, f64), class: &str) {
        self.push(format_args!(
            "<line x1=\"{}\" y1=\"{}\" x2=\"{}\" y2=\"{}\" class=\"{class}\"/>",
            px(x1),
            px(y1),
            px(x2),
            px(y2)
        ));
    }

    pub(crate) fn rect(&mut self, (x, y): (f64, f64), (width, height): (f64, f64), class: &str) {
        self.push(format_args!(
            "<rect x=\"{}\" y=\"{}\" width=\"{}\" height=\"{}\" class=\"{class}\"/>",
            px(x),
            px(y),
            px(width),
            px(height)
        ));
    }

    /// A line through points. Points that would not be seen beside the last one are left out.
    pub(crate) fn polyline(&mut self, points: &[(f64, f64)], class: &str) {
        let mut data = String::new();
        let mut last: Option<(f64, f64)> = None;
        for (place, &(x, y)) in points.iter().enumerate() {
            let is_end = place + 1 == points.len();
            if last.is_some_and(|(x0, y0)| (x - x0).abs() < 0.25 && (y - y0).abs() < 0.25) && !is_end {
                continue;
            }
            data.push_str(if last.is_none() { "M" } else { "L" });
            data.push_str(&format!("{} {}", px(x), px(y)));
            last = Some((x, y));
        }
        self.push(format_args!("<path d=\"{data}\" class=\"{class}\"/>"));
    }

    /// A shape around a place, `path` being drawn from there, with a text for whoever points at it.
    pub(crate) fn shape(&mut self, (x, y): (f64, f64), path: &str, class: &str, title: &str) {
        let title = if title.is_empty() { String::new() } else { format!("<title>{}</title>", escape(title)) };
        self.push(format_args!(
            "<path transform=\"translate({} {})\" d=\"{path}\" class=\"{class}\">{title}</path>",
            px(x),
            px(y)
        ));
    }

    /// Another drawing, moved.
    pub(crate) fn place(&mut self, (x, y): (f64, f64), drawing: &Self) {
        self.push(format_args!("<g transform=\"translate({} {})\">{}</g>", px(x), px(y), drawing.0));
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }

    fn push(&mut self, element: std::fmt::Arguments<'_>) {
        self.0.write_fmt(element).expect("a string takes every text");
        self.0.push('\n');
    }
}
