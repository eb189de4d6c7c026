//! What no compiler checks.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use anyhow::bail;

use crate::run::root;

/// The longest Rust file.
const MAX_LINES: usize = 640;
/// What must not stand in the project.
const UNFINISHED: [&str; 3] = ["todo!(", "unimplemented!(", "#[ignore"];

/// Checks file sizes, unfinished code, the map in ARCHITECTURE.md, links between documents, and what is fuzzed.
pub(crate) fn tidy() -> anyhow::Result<()> {
    let mut wrong = Vec::new();
    let files = files(&root())?;
    let map = std::fs::read_to_string(root().join("ARCHITECTURE.md")).unwrap_or_default();
    for file in &files {
        let name = file.strip_prefix(root()).unwrap_or(file).display().to_string();
        let Ok(text) = std::fs::read_to_string(file) else { continue };
        if name.ends_with(".rs") {
            let lines = text.lines().count();
            if lines > MAX_LINES {
                wrong.push(format!("{name} has {lines} lines, the limit is {MAX_LINES}: part it"));
            }
            if name != "xtask/src/tidy.rs" {
                let found = UNFINISHED.iter().filter(|word| text.contains(**word));
                wrong.extend(found.map(|word| format!("{name} contains `{word}`")));
            }
        }
        if name.ends_with("Cargo.toml") && name.starts_with("crates/") {
            let folder = name.trim_end_matches("/Cargo.toml");
            if !map.contains(folder) {
                wrong.push(format!("ARCHITECTURE.md does not mention {folder}"));
            }
        }
        if name.ends_with(".md") {
            wrong.extend(broken_links(file, &text).into_iter().map(|link| format!("{name}: nothing at `{link}`")));
        }
    }
    for mentioned in map.split('`').filter(|word| word.starts_with("crates/") || word.starts_with("docs/")) {
        if !root().join(mentioned).exists() {
            wrong.push(format!("ARCHITECTURE.md mentions `{mentioned}`, which does not exist"));
        }
    }
    wrong.extend(fuzzed_in_other_versions());
    if !wrong.is_empty() {
        bail!("not tidy:\n{}", wrong.join("\n"));
    }
    println!("tidy: {} files", files.len());
    Ok(())
}

/// The packages that the fuzz targets run in a version in which the workspace does not have them: what is fuzzed is what is shipped.
fn fuzzed_in_other_versions() -> Vec<String> {
    let [shipped, fuzzed] = ["Cargo.lock", "fuzz/Cargo.lock"].map(|name| locked(&root().join(name)));
    let known: BTreeSet<&str> = shipped.iter().map(|(name, _)| name.as_str()).collect();
    fuzzed
        .difference(&shipped)
        .filter(|(name, _)| known.contains(name.as_str()))
        .map(|(name, version)| format!("fuzz/Cargo.lock has {name} {version}, Cargo.lock has not: copy that over it"))
        .collect()
}

/// The packages of a lock file, with their versions.
fn locked(file: &Path) -> BTreeSet<(String, String)> {
    let text = std::fs::read_to_string(file).unwrap_or_default();
    let mut lines = text.lines().filter_map(|line| line.split_once(" = ")).peekable();
    let mut found = BTreeSet::new();
    while let Some((key, name)) = lines.next() {
        if let Some((_, version)) = lines.next_if(|(next, _)| key == "name" && *next == "version") {
            found.insert((name.to_owned(), version.to_owned()));
        }
    }
    found
}

/// The relative links of a document that lead nowhere.
fn broken_links(file: &Path, text: &str) -> Vec<String> {
    let folder = file.parent().unwrap_or(file);
    let inline = text.split("](").skip(1).filter_map(|rest| rest.split(')').next());
    let referenced = text.lines().filter(|line| line.starts_with('[')).filter_map(|line| line.split("]: ").nth(1));
    inline
        .chain(referenced)
        .map(|link| link.split('#').next().unwrap_or("").trim())
        .filter(|link| !link.is_empty() && !link.contains("://") && !link.starts_with("mailto:"))
        .filter(|link| !folder.join(link).exists())
        .map(str::to_owned)
        .collect()
}

fn files(folder: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        if path.is_dir() {
            if !matches!(name.as_str(), "target" | ".git" | "settle-data" | "corpus" | "artifacts") {
                found.extend(files(&path)?);
            }
        } else {
            found.push(path);
        }
    }
    Ok(found)
}
