//! The report as one SVG: the table, and the drawings under each other.

use crate::chart::Size;
use crate::figures::{self, Cell};
use crate::outcomes::PATTERNS;
use crate::run::Run;
use crate::style::{LOOKS, drawing_rules};
use crate::svg::{Anchor, Drawing, escape, px};
use crate::words;

/// Around everything, px.
const MARGIN: f64 = 24.0;
/// A caption's line, px.
const LINE: f64 = 17.0;
const ROW: f64 = 40.0;
/// The table's first column, px: the names.
const NAMES: f64 = 150.0;
/// So many characters fit into a caption's line.
const CAPTION_CHARS: usize = 132;

/// The report of these runs, at least one, as the text of an SVG file.
#[must_use]
pub fn sheet(runs: &[Run]) -> String {
    let width = Size::Wide.width();
    let mut sheet = Drawing::default();
    let (title, said) = figures::headline(runs);
    sheet.text(0.0, 16.0, Anchor::Start, "h", &title);
    let mut y = 36.0;
    for line in lines(&said) {
        sheet.text(0.0, y, Anchor::Start, "q", &line);
        y += LINE;
    }
    for note in figures::notes(runs) {
        for line in lines(&note.text) {
            sheet.text(0.0, y, Anchor::Start, if note.is_bad { "bad" } else { "" }, &line);
            y += LINE;
        }
    }
    y = draw_table(&mut sheet, runs, y + 12.0);
    for figure in figures::figures(runs) {
        y += 34.0;
        sheet.text(0.0, y, Anchor::Start, "h", figure.title);
        y += 8.0;
        for line in lines(&figure.caption) {
            y += LINE;
            sheet.text(0.0, y, Anchor::Start, "q", &line);
        }
        let (drawing, height) = figure.draw(Size::Wide);
        sheet.place((0.0, y + 16.0), &drawing);
        y += 16.0 + height;
    }
    let (width, height) = (width + 2.0 * MARGIN, y + 2.0 * MARGIN);
    let mut whole = Drawing::default();
    whole.rect((0.0, 0.0), (width, height), "surface");
    whole.place((MARGIN, MARGIN), &sheet);
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {w} {h}\" width=\"{w}\" height=\"{h}\" role=\"img\" aria-label=\"{title}\">\n\
         <title>{title}</title>\n<style>\n{rules}</style>\n{PATTERNS}\n{}</svg>\n",
        whole.as_str(),
        w = px(width),
        h = px(height),
        title = escape(&title),
        rules = drawing_rules(),
    )
}

/// Draws the table from this height on; the height at which it ends.
fn draw_table(sheet: &mut Drawing, runs: &[Run], top: f64) -> f64 {
    let Some(first) = runs.first() else { return top };
    let width = Size::Wide.width();
    let columns = figures::columns();
    let rows: Vec<_> = runs.iter().map(|run| figures::row(run, first)).collect();
    // Each column gets room by its longest word, and what is left is shared.
    let longest = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.value.chars().count());
        cells.chain([columns[column].chars().count()]).max().unwrap_or(0) as f64 + 2.0
    };
    let widths: Vec<f64> = (0..columns.len()).map(longest).collect();
    let unit = (width - NAMES) / widths.iter().sum::<f64>();
    let right_of = |column: usize| NAMES + unit * widths[..=column].iter().sum::<f64>();
    let mut y = top + 12.0;
    for (column, name) in columns.iter().enumerate() {
        sheet.text(right_of(column), y, Anchor::End, "q", name);
    }
    y += 8.0;
    for (place, (run, row)) in runs.iter().zip(&rows).enumerate() {
        sheet.line((0.0, y), (width, y), "grid");
        sheet.shape((6.0, y + 14.0), LOOKS[place].marker, &format!("mark r{place}"), "");
        sheet.text(18.0, y + 18.0, Anchor::Start, "b", &words::shortened(&run.label, 16));
        for (column, Cell { value, ratio, is_bad }) in row.iter().enumerate() {
            sheet.text(right_of(column), y + 18.0, Anchor::End, if *is_bad { "bad" } else { "" }, value);
            sheet.text(right_of(column), y + 32.0, Anchor::End, "q", ratio.as_deref().unwrap_or_default());
        }
        y += ROW;
    }
    y
}

/// The text in lines that fit. Words longer than a line are not parted.
fn lines(text: &str) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in text.split_whitespace() {
        match lines.last_mut() {
            Some(line) if line.chars().count() + word.chars().count() < CAPTION_CHARS => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(word.to_owned()),
        }
    }
    lines
}
