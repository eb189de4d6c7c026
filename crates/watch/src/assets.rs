//! The files of the page, which are part of the program: nothing is fetched from anywhere else, and nothing is built.

/// A file of the page.
#[derive(Debug, Clone, Copy)]
pub struct Asset {
    /// Its name in `page/`, and behind `/dashboard/`.
    pub name: &'static str,
    /// Its media type.
    pub kind: &'static str,
    /// What stands in it.
    pub text: &'static str,
}

macro_rules! asset {
    ($name:literal, $kind:ident) => {
        Asset { name: $name, kind: $kind, text: include_str!(concat!("../page/", $name)) }
    };
}

const HTML: &str = "text/html; charset=utf-8";
const CSS: &str = "text/css; charset=utf-8";
const IMAGE: &str = "image/svg+xml";
const SCRIPT: &str = "text/javascript; charset=utf-8";

/// What is served at `/`.
pub const PAGE: Asset = asset!("index.html", HTML);

/// What is served behind `/dashboard/`: every other file of the folder, as a test sees to.
pub const ASSETS: &[Asset] = &[
    asset!("style.css", CSS),
    asset!("icon.svg", IMAGE),
    asset!("main.js", SCRIPT),
    asset!("dom.js", SCRIPT),
    asset!("api.js", SCRIPT),
    asset!("kept.js", SCRIPT),
    asset!("live.js", SCRIPT),
    asset!("gate.js", SCRIPT),
    asset!("chart.js", SCRIPT),
    asset!("overview.js", SCRIPT),
    asset!("transactions.js", SCRIPT),
    asset!("timeline.js", SCRIPT),
    asset!("acts.js", SCRIPT),
    asset!("stuck.js", SCRIPT),
    asset!("shop.js", SCRIPT),
    asset!("chaos.js", SCRIPT),
    asset!("audit.js", SCRIPT),
];

impl Asset {
    /// What changes when the text does, in quotes.
    pub fn tag(&self) -> String {
        // FNV-1a: it only has to be another for another text.
        let hash = self
            .text
            .bytes()
            .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
        format!("\"{hash:016x}\"")
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_file_of_the_page_is_served_and_fetches_nothing_from_elsewhere() {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/page");
        let there: BTreeSet<String> =
            std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        let served: BTreeSet<String> = ASSETS.iter().chain([&PAGE]).map(|asset| asset.name.to_owned()).collect();
        assert_eq!(there, served, "assets.rs must name every file of page/");
        for asset in ASSETS.iter().chain([&PAGE]) {
            assert!(!asset.text.contains("https://"), "{} speaks of another place", asset.name);
        }
    }

    #[test]
    fn another_text_has_another_tag() {
        let other = Asset { text: "other", ..PAGE };
        assert_ne!(PAGE.tag(), other.tag());
        assert_eq!(PAGE.tag(), PAGE.tag());
    }
}
