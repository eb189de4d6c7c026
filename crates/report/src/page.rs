//! The report as one HTML page: no script, nothing from elsewhere. It is well-formed XML, too, so that a test can read it.

use std::fmt::Write;

use crate::chart::Size;
use crate::figures::{self, Figure};
use crate::limits::MAX_REASONS;
use crate::outcomes::PATTERNS;
use crate::run::Run;
use crate::style::{LOOKS, SCHEMES, Scheme, drawing_rules};
use crate::svg::{escape, px};
use crate::words;

const RULES: &str = include_str!("page.css");

/// The report of these runs, at least one, as the text of an HTML file.
#[must_use]
pub fn page(runs: &[Run]) -> String {
    let (title, said) = figures::headline(runs);
    let figures: String = figures::figures(runs).iter().map(section).collect();
    format!(
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\"/>\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\"/>\n\
         <meta name=\"color-scheme\" content=\"light dark\"/>\n<title>{title}</title>\n\
         <style>\n{RULES}{page_rules}{drawing_rules}</style>\n</head>\n<body>\n\
         <svg class=\"defs\" aria-hidden=\"true\">{PATTERNS}</svg>\n\
         <header><h1>{title}</h1><p class=\"quiet\">{said}</p>{notes}</header>\n<main>\n{table}{figures}{facts}</main>\n\
         <footer class=\"quiet\">Made by <code>settle bench report</code> {version}.</footer>\n</body>\n</html>\n",
        title = escape(&title),
        said = escape(&said),
        page_rules = page_rules(),
        drawing_rules = drawing_rules(),
        notes = notes(runs),
        table = table(runs),
        facts = facts(runs),
        version = env!("CARGO_PKG_VERSION"),
    )
}

fn page_rules() -> String {
    let [light, dark] = SCHEMES.each_ref().map(|scheme| {
        let Scheme { ground, surface, text, quiet, border, strong, bad, bad_ground, note_ground, refused, .. } = *scheme;
        format!(
            "html{{background:{ground};color:{text}}}section{{background:{surface};border-color:{border}}}\
             .quiet,figcaption,small,thead th,dt{{color:{quiet}}}tbody tr{{border-color:{border}}}.scroll:focus-visible{{outline-color:{strong}}}\
             .bad{{color:{bad}}}.note{{background:{note_ground};border-color:{refused}}}.note.bad{{background:{bad_ground};border-color:{bad}}}\n"
        )
    });
    format!(
        "{light}@media screen and (prefers-color-scheme:dark){{{dark}}}\n@media print{{html,section{{background:#fff}}}}\n"
    )
}

fn notes(runs: &[Run]) -> String {
    let notes = figures::notes(runs);
    if notes.is_empty() {
        return String::new();
    }
    let class = |is_bad| if is_bad { "note bad" } else { "note" };
    let items = notes.iter().map(|note| format!("<li class=\"{}\">{}</li>", class(note.is_bad), escape(&note.text)));
    format!("<ul class=\"notes\">{}</ul>", items.collect::<String>())
}

fn swatch(place: usize) -> String {
    format!(
        "<svg width=\"12\" height=\"12\" viewBox=\"-6 -6 12 12\" aria-hidden=\"true\"><path d=\"{}\" class=\"mark r{place}\"/></svg>",
        LOOKS[place].marker
    )
}

fn table(runs: &[Run]) -> String {
    let Some(first) = runs.first() else { return String::new() };
    let mut html = String::from(
        "<section><h2 id=\"runs\">Figures</h2><div class=\"scroll\" tabindex=\"0\" role=\"region\" aria-labelledby=\"runs\"><table>\
         <thead><tr><th scope=\"col\">run</th>",
    );
    for column in figures::columns() {
        html.push_str(&format!("<th scope=\"col\">{column}</th>"));
    }
    html.push_str("</tr></thead>\n<tbody>\n");
    for (place, run) in runs.iter().enumerate() {
        html.push_str(&format!("<tr><th scope=\"row\"><span>{}{}</span></th>", swatch(place), escape(&run.label)));
        for cell in figures::row(run, first) {
            let class = if cell.is_bad { " class=\"bad\"" } else { "" };
            let ratio = cell.ratio.map(|ratio| format!("<small>{}</small>", escape(&ratio))).unwrap_or_default();
            html.push_str(&format!("<td{class}>{}{ratio}</td>", escape(&cell.value)));
        }
        html.push_str("</tr>\n");
    }
    html.push_str("</tbody></table></div></section>\n");
    html
}

fn section(figure: &Figure<'_>) -> String {
    let mut html =
        format!("<section><figure><h2>{}</h2><figcaption>{}</figcaption>\n", figure.title, escape(&figure.caption));
    for (size, class) in [(Size::Wide, "wide"), (Size::Narrow, "narrow")] {
        let (drawing, height) = figure.draw(size);
        write!(
            html,
            "<svg class=\"plot {class}\" viewBox=\"0 0 {} {}\" role=\"img\" aria-label=\"{}\">\n{}</svg>\n",
            px(size.width()),
            px(height),
            escape(figure.title),
            drawing.as_str()
        )
        .expect("a string takes every text");
    }
    html.push_str("</figure></section>\n");
    html
}

/// What each run was, and why it was refused what it was.
fn facts(runs: &[Run]) -> String {
    let mut html = String::from("<section><h2>The runs</h2><div class=\"runs\">\n");
    for (place, run) in runs.iter().enumerate() {
        html.push_str(&format!("<div><h3>{} {}</h3><dl>", swatch(place), escape(&run.label)));
        let facts = run.facts.iter().map(|(what, value)| (*what, value.clone()));
        let file = std::iter::once(("file", run.file.clone()));
        let reasons =
            ["refused", "failed"].into_iter().zip(&run.reasons).flat_map(|(what, reasons)| in_words(what, reasons));
        for (what, value) in facts.chain(file).chain(reasons) {
            html.push_str(&format!("<dt>{what}</dt><dd>{}</dd>", escape(&value)));
        }
        html.push_str("</dl></div>\n");
    }
    html.push_str("</div></section>\n");
    html
}

/// The most frequent reasons, and how many others there are.
fn in_words<'a>(what: &'static str, reasons: &'a [(String, u64)]) -> impl Iterator<Item = (&'static str, String)> + 'a {
    let told =
        reasons.iter().take(MAX_REASONS).map(move |(reason, n)| (what, format!("{} × {reason}", words::count(*n))));
    let rest = reasons.len().saturating_sub(MAX_REASONS);
    told.chain((rest > 0).then(|| (what, format!("and {rest} other reasons"))))
}
