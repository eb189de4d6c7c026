//! What others say that they do here, told among the marks: whoever breaks things on purpose says so, and the page has it beside what came of it.
//!
//! ```text
//! {"at":1763750000000,"what":"settle chaos, 3 of 13: freeze the shop"}      a line each, appended
//! ```
//!
//! A file in the data folder, so that it can be written while nobody runs. Only who may write to that folder can put anything on the page.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::limits::{MAX_NOTE_CHARS, MAX_NOTES_BYTES};

/// The file in a data folder.
const FILE: &str = "notes.jsonl";

/// Somebody's words, and when they were said, in milliseconds since 1970.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Note {
    pub(crate) at: u64,
    pub(crate) what: String,
}

/// The notes of a data folder, read as they come.
#[derive(Debug)]
pub struct Notes {
    path: PathBuf,
    /// Where the next one begins.
    read: u64,
}

impl Notes {
    /// Those in this folder; there may be none yet.
    pub fn of(data: &Path) -> Self {
        Self { path: data.join(FILE), read: 0 }
    }

    /// Says something, at a time in milliseconds since 1970. What is too long is cut.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn say(data: &Path, at: u64, what: &str) -> io::Result<()> {
        let path = data.join(FILE);
        // Begun anew now and then. Whoever reads sees that it became shorter.
        let is_long = path.metadata().is_ok_and(|it| it.len() > MAX_NOTES_BYTES / 2);
        let mut file = OpenOptions::new().create(true).append(!is_long).write(true).truncate(is_long).open(&path)?;
        let mut line = serde_json::to_vec(&Note { at, what: what.chars().take(MAX_NOTE_CHARS).collect() })?;
        line.push(b'\n');
        file.write_all(&line)
    }

    /// What was not read yet. What cannot be read is passed over.
    pub(crate) fn news(&mut self) -> Vec<Note> {
        self.try_news().unwrap_or_default()
    }

    fn try_news(&mut self) -> io::Result<Vec<Note>> {
        let length = self.path.metadata()?.len();
        if length < self.read {
            self.read = 0;
        }
        if length == self.read {
            return Ok(vec![]);
        }
        let mut file = File::open(&self.path)?;
        file.seek(SeekFrom::Start(self.read.max(length.saturating_sub(MAX_NOTES_BYTES))))?;
        let mut text = vec![];
        file.take(MAX_NOTES_BYTES).read_to_end(&mut text)?;
        // The last line may be being written.
        let whole = text.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
        self.read = length - (text.len() - whole) as u64;
        let lines = text[..whole].split(|byte| *byte == b'\n');
        Ok(lines.filter_map(|line| serde_json::from_slice(line).ok()).map(Note::shown).collect())
    }
}

impl Note {
    /// As it can be shown: somebody else may have written it.
    fn shown(self) -> Self {
        let shown = |it: char| if it.is_control() { ' ' } else { it };
        Self { what: self.what.chars().take(MAX_NOTE_CHARS).map(shown).collect(), ..self }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn whats(notes: &mut Notes) -> Vec<String> {
        notes.news().into_iter().map(|it| it.what).collect()
    }

    #[test]
    fn each_is_read_once_and_whole() {
        let folder = tempfile::tempdir().unwrap();
        let mut notes = Notes::of(folder.path());
        assert_eq!(whats(&mut notes), [""; 0]);
        Notes::say(folder.path(), 7, "one").unwrap();
        Notes::say(folder.path(), 8, &"é".repeat(MAX_NOTE_CHARS + 1)).unwrap();
        assert_eq!(
            notes.news(),
            [Note { at: 7, what: "one".to_owned() }, Note { at: 8, what: "é".repeat(MAX_NOTE_CHARS) }]
        );
        let mut file = OpenOptions::new().append(true).open(folder.path().join(FILE)).unwrap();
        file.write_all(b"nonsense\n\xff\n{\"at\":9,\"what\":\"three\\u001b[2J\\nand more\"}\n{\"at\":10,\"wh").unwrap();
        assert_eq!(whats(&mut notes), ["three [2J and more"]);
        file.write_all(b"at\":\"four\"}\n").unwrap();
        assert_eq!(whats(&mut notes), ["four"]);
        assert_eq!(whats(&mut notes), [""; 0]);
    }

    #[test]
    fn a_long_file_is_begun_anew_and_of_somebody_elses_the_end_is_read() {
        let folder = tempfile::tempdir().unwrap();
        let mut notes = Notes::of(folder.path());
        for n in 0..2_000 {
            Notes::say(folder.path(), n, &format!("{n} {}", "x".repeat(100))).unwrap();
            assert_eq!(notes.news().iter().map(|it| it.at).collect::<Vec<_>>(), [n]);
        }
        let path = folder.path().join(FILE);
        assert!(path.metadata().unwrap().len() <= MAX_NOTES_BYTES);
        std::fs::write(&path, "{\"at\":1,\"what\":\"x\"}\n".repeat(100_000)).unwrap();
        let read = notes.news();
        assert!(!read.is_empty() && read.len() < 10_000, "{}", read.len());
        assert!(notes.news().is_empty());
    }
}
