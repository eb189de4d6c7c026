//! Colours, dashes and markers, for both colour schemes.
//!
//! Every line is told by its colour, its dashes, its marker and the name at its end: any two of them may be lost, as in print or to
//! whoever sees no colours. The rules name colours outright instead of variables, since not every viewer of pictures knows those.

use std::fmt::Write;

/// How one run is drawn.
pub(crate) struct Look {
    /// On a light ground, and on a dark one.
    colours: [&'static str; 2],
    /// Lengths of dashes and gaps; empty for a whole line.
    dashes: &'static str,
    /// The outline of its marker around a place, some 4 px to each side.
    pub(crate) marker: &'static str,
}

/// The looks, in the order in which runs get them: one for each of [`crate::limits::MAX_RUNS`].
pub(crate) const LOOKS: [Look; crate::limits::MAX_RUNS] = [
    Look { colours: ["#0b5cad", "#74b3f0"], dashes: "", marker: "M-4 0a4 4 0 1 0 8 0a4 4 0 1 0 -8 0Z" },
    Look { colours: ["#b3470b", "#f5a06a"], dashes: "9 4", marker: "M-3.6 -3.6H3.6V3.6H-3.6Z" },
    Look { colours: ["#14733a", "#63cf8f"], dashes: "3 3", marker: "M0 -5L4.8 3.6H-4.8Z" },
    Look { colours: ["#8a2f9c", "#d79be6"], dashes: "12 3 2.5 3", marker: "M0 -5.2L5.2 0L0 5.2L-5.2 0Z" },
    Look { colours: ["#a3123f", "#ff8fa8"], dashes: "6 2 1.5 2 1.5 2", marker: "M0 5L4.8 -3.6H-4.8Z" },
    Look {
        colours: ["#0f6f78", "#5fcbd6"],
        dashes: "16 5",
        marker: "M-5 -1.7H-1.7V-5H1.7V-1.7H5V1.7H1.7V5H-1.7V1.7H-5Z",
    },
    Look { colours: ["#6b5200", "#dcc05a"], dashes: "1.5 4", marker: "M-5 -2.2H5V2.2H-5Z" },
    Look { colours: ["#4b5563", "#b8c4d0"], dashes: "10 3 2.5 3 2.5 3", marker: "M-2.2 -5H2.2V5H-2.2Z" },
];

/// The colours of one scheme.
pub(crate) struct Scheme {
    pub(crate) ground: &'static str,
    pub(crate) surface: &'static str,
    pub(crate) text: &'static str,
    pub(crate) quiet: &'static str,
    pub(crate) border: &'static str,
    pub(crate) strong: &'static str,
    pub(crate) committed: &'static str,
    pub(crate) refused: &'static str,
    pub(crate) bad: &'static str,
    pub(crate) bad_ground: &'static str,
    pub(crate) note_ground: &'static str,
}

/// Light, and dark.
pub(crate) const SCHEMES: [Scheme; 2] = [
    Scheme {
        ground: "#f4f6f8",
        surface: "#ffffff",
        text: "#17212b",
        quiet: "#51606f",
        border: "#d6dde4",
        strong: "#7b8894",
        committed: "#3d8f63",
        refused: "#a86e00",
        bad: "#b3231b",
        bad_ground: "#fce8e6",
        note_ground: "#fdf0d9",
    },
    Scheme {
        ground: "#0e1318",
        surface: "#161d24",
        text: "#e4eaf0",
        quiet: "#9cabba",
        border: "#2a353f",
        strong: "#6b7a88",
        committed: "#4fa577",
        refused: "#d79a2b",
        bad: "#ff938a",
        bad_ground: "#3d1a18",
        note_ground: "#35270d",
    },
];

/// The rules of everything that is drawn. The dark ones hold on screens alone: paper is white.
pub(crate) fn drawing_rules() -> String {
    let font = "system-ui, -apple-system, 'Segoe UI', Roboto, 'DejaVu Sans', sans-serif";
    let mut rules = format!(
        "svg text{{font-family:{font};font-size:12px;font-variant-numeric:tabular-nums}}\n\
         svg text.h{{font-size:15px;font-weight:650}}\nsvg text.b{{font-weight:650}}\n\
         .grid{{stroke-width:1}}.base{{stroke-width:1}}.lead{{stroke-width:1;stroke-dasharray:1 3}}\n\
         .line{{fill:none;stroke-width:2;stroke-linejoin:round;stroke-linecap:butt}}\n\
         .mark{{stroke-width:1.2}}.refused{{fill:url(#refused)}}.failed{{fill:url(#failed)}}\n"
    );
    for (place, look) in LOOKS.iter().enumerate().filter(|(_, look)| !look.dashes.is_empty()) {
        rules.push_str(&format!(".line.r{place}{{stroke-dasharray:{}}}\n", look.dashes));
    }
    rules.push_str(&colours(0));
    format!("{rules}@media screen and (prefers-color-scheme:dark){{\n{}}}\n", colours(1))
}

fn colours(scheme: usize) -> String {
    let Scheme { surface, text, quiet, border, strong, committed, refused, bad, .. } = SCHEMES[scheme];
    let mut rules = format!(
        "svg text{{fill:{text}}}svg text.q{{fill:{quiet}}}svg text.bad{{fill:{bad}}}.surface{{fill:{surface}}}.grid{{stroke:{border}}}\
         .base,.lead{{stroke:{strong}}}\n\
         .committed{{fill:{committed}}}.hatched{{stroke:{refused}}}.crossed{{stroke:{bad}}}.track{{fill:{border}}}\n"
    );
    for (place, look) in LOOKS.iter().enumerate() {
        let colour = look.colours[scheme];
        write!(rules, ".line.r{place}{{stroke:{colour}}}.mark.r{place}{{fill:{colour};stroke:{surface}}}")
            .expect("a string takes all");
    }
    rules.push('\n');
    rules
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The contrast of two colours as the WCAG has it, 1 to 21.
    fn contrast(one: &str, other: &str) -> f64 {
        let luminance = |colour: &str| {
            let channel = |at: usize| {
                let value = f64::from(u8::from_str_radix(&colour[at..at + 2], 16).unwrap()) / 255.0;
                if value <= 0.04045 { value / 12.92 } else { ((value + 0.055) / 1.055).powf(2.4) }
            };
            0.2126 * channel(1) + 0.7152 * channel(3) + 0.0722 * channel(5)
        };
        let (one, other) = (luminance(one), luminance(other));
        (one.max(other) + 0.05) / (one.min(other) + 0.05)
    }

    #[test]
    fn contrasts_are_those_of_the_wcag() {
        assert!((contrast("#000000", "#ffffff") - 21.0).abs() < 1e-9);
        for (number, scheme) in SCHEMES.iter().enumerate() {
            let Scheme {
                ground, surface, text, quiet, strong, committed, refused, bad, bad_ground, note_ground, ..
            } = *scheme;
            for on in [ground, surface, bad_ground, note_ground] {
                assert!(contrast(text, on) >= 4.5 && contrast(quiet, on) >= 4.5, "text on {on}");
            }
            assert!(contrast(bad, surface) >= 4.5 && contrast(bad, bad_ground) >= 4.5);
            for graphic in [strong, committed, refused, bad] {
                assert!(contrast(graphic, surface) >= 3.0, "{graphic} on {surface}");
            }
            for look in &LOOKS {
                assert!(contrast(look.colours[number], surface) >= 4.5, "{}", look.colours[number]);
            }
        }
    }

    #[test]
    fn no_two_runs_look_alike_even_without_colours() {
        for (place, one) in LOOKS.iter().enumerate() {
            for other in &LOOKS[place + 1..] {
                assert!(one.dashes != other.dashes && one.marker != other.marker);
                assert!(one.colours[0] != other.colours[0] && one.colours[1] != other.colours[1]);
            }
        }
    }
}
