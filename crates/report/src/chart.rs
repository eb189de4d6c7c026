//! Lines between two axes, each with its name at its end.

use crate::axis::Axis;
use crate::curve::Pieces;
use crate::style::LOOKS;
use crate::svg::{Anchor, Drawing};
use crate::words;

/// For which width something is drawn: an SVG does not break lines, so narrow screens get drawings of their own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Size {
    Wide,
    Narrow,
}

impl Size {
    /// Of the whole drawing, in px.
    pub(crate) fn width(self) -> f64 {
        match self {
            Self::Wide => 880.0,
            Self::Narrow => 340.0,
        }
    }

    fn height(self) -> f64 {
        match self {
            Self::Wide => 380.0,
            Self::Narrow => 290.0,
        }
    }

    /// How many characters of a label stand at the end of a line.
    pub(crate) fn label_chars(self) -> usize {
        match self {
            Self::Wide => 24,
            Self::Narrow => 11,
        }
    }

    /// The most ticks of each axis, so that their words do not touch.
    fn ticks(self) -> usize {
        match self {
            Self::Wide => 6,
            Self::Narrow => 4,
        }
    }
}

/// What one character takes, px: a wide guess, since nobody can ask the font.
pub(crate) const CHAR: f64 = 6.9;
/// The same of a name, which is bold, px.
const NAME_CHAR: f64 = 8.3;
/// Above the plot, for the name of the y axis.
const ABOVE: f64 = 30.0;
/// Below it, for ticks and the name of the x axis.
const BELOW: f64 = 44.0;
/// From one marker of a line to its next at least, px.
const MARK_GAP: f64 = 16.0;
/// From one name to the next.
const NAME_GAP: f64 = 17.0;
/// From the plot to the names, for their leaders.
const LEADER: f64 = 14.0;

/// One run's line.
pub(crate) struct Line {
    /// Which of [`LOOKS`].
    pub(crate) look: usize,
    pub(crate) label: String,
    pub(crate) pieces: Pieces,
    /// Places with a marker, and what it says to whoever points at it.
    pub(crate) marks: Vec<(f64, f64, String)>,
}

/// Lines between two axes.
pub(crate) struct Chart {
    pub(crate) x: Axis,
    pub(crate) y: Axis,
    pub(crate) x_name: &'static str,
    pub(crate) y_name: &'static str,
    pub(crate) lines: Vec<Line>,
}

/// The rectangle in which values are drawn, px.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Plot {
    left: f64,
    right: f64,
    top: f64,
    bottom: f64,
}

impl Chart {
    fn plot(&self, size: Size) -> Plot {
        let chars = |text: &str| text.chars().count() as f64;
        let ticks = self.y.ticks(size.ticks()).iter().map(|(_, word)| chars(word)).fold(3.0, f64::max);
        let names = self.lines.iter().map(|line| chars(&words::shortened(&line.label, size.label_chars())));
        Plot {
            left: ticks * CHAR + 10.0,
            right: size.width() - names.fold(4.0, f64::max) * NAME_CHAR - LEADER - 14.0,
            top: ABOVE,
            bottom: size.height() - BELOW,
        }
    }

    /// The drawing, and its height.
    pub(crate) fn draw(&self, size: Size) -> (Drawing, f64) {
        let mut drawing = Drawing::default();
        let plot = self.plot(size);
        let at = |(x, y): (f64, f64)| {
            (
                plot.left + self.x.place(x) * (plot.right - plot.left),
                plot.bottom - self.y.place(y) * (plot.bottom - plot.top),
            )
        };
        self.draw_axes(&mut drawing, size, plot, at);
        for line in &self.lines {
            for piece in &line.pieces {
                let points: Vec<_> = piece.iter().map(|point| at(*point)).collect();
                drawing.polyline(&points, &format!("line r{}", line.look));
            }
        }
        for line in &self.lines {
            let mut last = f64::NEG_INFINITY;
            for (x, y, says) in &line.marks {
                let place = at((*x, *y));
                if place.0 - last >= MARK_GAP {
                    drawing.shape(place, LOOKS[line.look].marker, &format!("mark r{}", line.look), says);
                    last = place.0;
                }
            }
        }
        self.draw_names(&mut drawing, size, plot, at);
        (drawing, size.height())
    }

    fn draw_axes(&self, drawing: &mut Drawing, size: Size, plot: Plot, at: impl Fn((f64, f64)) -> (f64, f64)) {
        let Plot { left, right, top, bottom } = plot;
        drawing.text(0.0, 13.0, Anchor::Start, "q", self.y_name);
        for (value, word) in self.y.ticks(size.ticks()) {
            let (_, y) = at((0.0, value));
            drawing.line((left, y), (right, y), "grid");
            drawing.text(left - 8.0, y + 4.0, Anchor::End, "q", &word);
        }
        let mut free_from = f64::NEG_INFINITY;
        for (value, word) in self.x.ticks(size.ticks()) {
            let (x, _) = at((value, 0.0));
            drawing.line((x, top), (x, bottom), "grid");
            let half = word.chars().count() as f64 * CHAR / 2.0;
            if x - half >= free_from {
                drawing.text(x, bottom + 18.0, Anchor::Middle, "q", &word);
                free_from = x + half + 4.0;
            }
        }
        drawing.line((left, bottom), (right, bottom), "base");
        drawing.text(right, bottom + 37.0, Anchor::End, "q", self.x_name);
    }

    /// Each line's name beside its end, moved up or down where two would touch, with a leader from the end to the name.
    fn draw_names(&self, drawing: &mut Drawing, size: Size, plot: Plot, at: impl Fn((f64, f64)) -> (f64, f64)) {
        let ends = self.lines.iter().filter_map(|line| Some((line, at(*line.pieces.last()?.last()?))));
        let mut ends: Vec<_> = ends.collect();
        ends.sort_by(|one, other| one.1.1.total_cmp(&other.1.1));
        let wanted: Vec<f64> = ends.iter().map(|(_, (_, y))| *y).collect();
        let x = plot.right + LEADER;
        for ((line, end), y) in ends.iter().zip(spread(&wanted, plot.top, plot.bottom)) {
            drawing.line((end.0 + 2.0, end.1), (x - 1.0, y), "lead");
            drawing.shape((x + 5.0, y), LOOKS[line.look].marker, &format!("mark r{}", line.look), "");
            let name = words::shortened(&line.label, size.label_chars());
            drawing.text(x + 14.0, y + 4.0, Anchor::Start, "b", &name);
        }
    }
}

/// Heights as near to the wanted ones (which rise) as they can be, each [`NAME_GAP`] below the one before.
fn spread(wanted: &[f64], top: f64, bottom: f64) -> Vec<f64> {
    let mut heights: Vec<f64> = Vec::with_capacity(wanted.len());
    for height in wanted {
        let least = heights.last().map_or(top, |last| last + NAME_GAP);
        heights.push(height.max(least));
    }
    let mut most = bottom;
    for height in heights.iter_mut().rev() {
        *height = height.min(most);
        most = *height - NAME_GAP;
    }
    heights
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::axis::Kind;

    fn chart(points: &[(f64, f64)]) -> Chart {
        Chart {
            x: Axis::from_zero(Kind::Time, 10.0),
            y: Axis::from_zero(Kind::Rate, 1000.0),
            x_name: "time",
            y_name: "rate",
            lines: vec![Line {
                look: 0,
                label: "one".into(),
                pieces: vec![points.to_vec()],
                marks: vec![(5.0, 500.0, "middle <&>".into())],
            }],
        }
    }

    #[test]
    fn points_land_where_they_belong() {
        // Ticks such as 1,000 make 5 × 6.9 + 10 = 44.5 on the left; a name counts 4 characters at least: 880 - 4 × 8.3 - 28 = 818.8.
        let plot = chart(&[]).plot(Size::Wide);
        assert_eq!((plot.left, plot.right, plot.top, plot.bottom), (44.5, 818.8, 30.0, 336.0));
        let (drawing, height) = chart(&[(0.0, 0.0), (2.5, 250.0), (10.0, 1000.0)]).draw(Size::Wide);
        assert_eq!(height, 380.0);
        // A quarter of the way from 44.5 to 818.8 is 238.075; of that from 336 up to 30 it is 259.5.
        assert!(
            drawing.as_str().contains(r#"<path d="M44.5 336L238.1 259.5L818.8 30" class="line r0"/>"#),
            "{}",
            drawing.as_str()
        );
        assert!(drawing.as_str().contains(r#"<path transform="translate(431.6 183)""#), "{}", drawing.as_str());
        assert!(drawing.as_str().contains("<title>middle &lt;&amp;&gt;</title>"));
        assert!(
            drawing.as_str().contains(r#"<text x="36.5" y="156.4" text-anchor="end" class="q">600</text>"#),
            "{}",
            drawing.as_str()
        );
    }

    #[test]
    fn names_keep_apart_and_inside() {
        assert_eq!(spread(&[50.0, 100.0], 0.0, 200.0), [50.0, 100.0]);
        assert_eq!(spread(&[100.0, 100.0, 100.0], 0.0, 200.0), [100.0, 117.0, 134.0]);
        assert_eq!(spread(&[199.0, 199.0, 200.0], 0.0, 200.0), [166.0, 183.0, 200.0]);
        let crowd = spread(&[150.0; crate::limits::MAX_RUNS], ABOVE, Size::Narrow.height() - BELOW);
        assert!(crowd.windows(2).all(|pair| pair[1] - pair[0] >= NAME_GAP) && crowd[0] >= ABOVE, "{crowd:?}");
    }

    #[test]
    fn a_line_without_points_is_not_named() {
        let mut chart = chart(&[]);
        chart.lines[0].pieces.clear();
        assert!(!chart.draw(Size::Wide).0.as_str().contains(">one<"));
    }
}
