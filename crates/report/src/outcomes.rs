//! What became of each run's checkouts, as one bar a run.

use crate::chart::{CHAR, Size};
use crate::run::Run;
use crate::style::LOOKS;
use crate::svg::{Anchor, Drawing};
use crate::words;

/// What became of checkouts, and how it is filled: whole, hatched, crossed.
pub(crate) const OUTCOMES: [(&str, &str); 3] =
    [("committed", "committed"), ("refused", "refused"), ("failed", "failed")];

/// Something that happened is seen, however seldom it did. px
const LEAST: f64 = 3.0;
const BAR: f64 = 20.0;
const ROW: f64 = 66.0;
const LEGEND: f64 = 30.0;

/// Patterns that the bars are filled with. They stand in a file once.
pub(crate) const PATTERNS: &str = concat!(
    r#"<defs><pattern id="refused" width="6" height="6" patternUnits="userSpaceOnUse" patternTransform="rotate(45)">"#,
    r#"<rect width="6" height="6" class="surface"/><path d="M1.5 0V6" class="hatched" stroke-width="3"/></pattern>"#,
    r#"<pattern id="failed" width="5" height="5" patternUnits="userSpaceOnUse" patternTransform="rotate(45)">"#,
    r#"<rect width="5" height="5" class="surface"/><path d="M0 2.5H5M2.5 0V5" class="crossed" stroke-width="2"/></pattern></defs>"#
);

/// Bars of these runs, and their height.
pub(crate) fn draw(runs: &[Run], size: Size) -> (Drawing, f64) {
    let mut drawing = Drawing::default();
    let mut x = 0.0;
    for (word, fill) in OUTCOMES {
        drawing.rect((x, 3.0), (16.0, 12.0), fill);
        drawing.text(x + 22.0, 13.0, Anchor::Start, "q", word);
        x += 22.0 + word.len() as f64 * CHAR + 18.0;
    }
    for (place, run) in runs.iter().enumerate() {
        let top = LEGEND + place as f64 * ROW;
        drawing.shape((6.0, top + 9.0), LOOKS[place].marker, &format!("mark r{place}"), "");
        drawing.text(18.0, top + 13.0, Anchor::Start, "b", &words::shortened(&run.label, size.label_chars() * 2));
        let counts = [run.committed, run.refused, run.failed];
        let mut left = 0.0;
        for ((width, (_, fill)), count) in widths(counts, size.width()).into_iter().zip(OUTCOMES).zip(counts) {
            if count > 0 {
                drawing.rect((left, top + 20.0), (width, BAR), fill);
            }
            left += width;
        }
        drawing.text(0.0, top + 20.0 + BAR + 15.0, Anchor::Start, "q", &in_words(counts));
    }
    (drawing, LEGEND + runs.len() as f64 * ROW)
}

/// `900 committed, 100 refused`
pub(crate) fn in_words(counts: [u64; 3]) -> String {
    let told = OUTCOMES.iter().zip(counts).filter(|(_, count)| *count > 0);
    told.map(|((word, _), count)| format!("{} {word}", words::count(count))).collect::<Vec<_>>().join(", ")
}

/// How much of a bar each count takes: its share, but never less than can be seen.
#[expect(clippy::cast_precision_loss, reason = "counts are drawn, not summed up")]
fn widths(counts: [u64; 3], width: f64) -> [f64; 3] {
    let total: f64 = counts.iter().map(|count| *count as f64).sum();
    let least = |count: u64| if count > 0 { LEAST } else { 0.0 };
    let spare = width - counts.into_iter().map(least).sum::<f64>();
    counts.map(|count| least(count) + if total > 0.0 { spare * count as f64 / total } else { 0.0 })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bar_is_parted_by_the_counts_and_shows_the_rarest() {
        assert_eq!(widths([100, 0, 0], 340.0), [340.0, 0.0, 0.0]);
        assert_eq!(widths([50, 50, 0], 340.0), [170.0, 170.0, 0.0]);
        let [committed, refused, failed] = widths([1_000_000, 0, 1], 340.0);
        assert!(refused == 0.0 && failed >= LEAST && (committed + failed - 340.0).abs() < 1e-9);
        assert_eq!(widths([u64::MAX; 3], 300.0), [100.0; 3]);
        assert_eq!(in_words([1_000, 0, 3]), "1,000 committed, 3 failed");
    }
}
