//! What was seen, kept in a file: whoever opens the page behind a crash sees what was before it.
//!
//! ```text
//! {"point":{"at":1763750000000,"committed":812.4,…}}      one a second
//! {"ended":"stock after_prepare"}                        where a fault ended the process, if one did
//! "stopped"                                              it was told to stop, and did
//! {"marks":{"marks":[{"at":…,"what":"order-1 is down",…}],"times":{},"began":{}}}      all of them, whenever they changed
//! ```
//!
//! Lines are appended and never flushed to disk: the file is for people, and outlives the process, not a power cut. Its last line may be torn.
//! Whatever cannot be read is passed over. A file that grew long is written anew, with what still counts.

use std::fs::{File, OpenOptions, remove_file, rename};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::limits::{EVERY_MS, MAX_DIARY_BYTES, MAX_POINTS};
use crate::marks::Told;
use crate::snapshot::Point;

/// A line of the file.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Line {
    Point(Point),
    Marks(Told),
    /// Where a fault was about to end the process.
    Ended(String),
    /// It did as it was told.
    Stopped,
}

/// What stood in the file, as far as it still counts.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Remembered {
    /// The oldest first.
    pub(crate) points: Vec<Point>,
    pub(crate) marks: Told,
    /// How the process came to its end, if it could say so.
    pub(crate) ended: Option<End>,
}

/// How a process came to its end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum End {
    /// By an injected fault, and which.
    Fault(String),
    /// As it was told.
    Told,
}

/// The file.
#[derive(Debug)]
pub struct Diary {
    path: PathBuf,
    /// Nothing before the first line is written, and after a line could not be: then it is written anew.
    open: Option<Open>,
    /// Whether it was told that it cannot be written.
    told: bool,
}

#[derive(Debug)]
struct Open {
    file: File,
    bytes: u64,
    /// The last line of marks.
    marks: String,
}

fn note(path: &Path, what: &Line) {
    if let Ok(mut file) = OpenOptions::new().append(true).open(path) {
        // Nobody is left to hear that it failed.
        _ = file.write_all(line(what).as_bytes());
    }
}

impl Diary {
    /// The one at this path, in a folder that nobody else writes to; it may not be there yet.
    pub fn at(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into(), open: None, told: false }
    }

    /// What stands in it and is younger than ten minutes; nothing if it cannot be read.
    pub(crate) fn read(&self, now: u64) -> Remembered {
        let mut text = vec![];
        // One line longer than the limit at most, since it is written anew then; more is not ours.
        let read = File::open(&self.path).and_then(|file| file.take(2 * MAX_DIARY_BYTES).read_to_end(&mut text));
        match read {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                tracing::warn!(path = %self.path.display(), %error, "what the page showed before cannot be read");
            }
            _ => {}
        }
        let mut found = Remembered::default();
        for line in text.split(|byte| *byte == b'\n') {
            match serde_json::from_slice(line) {
                Ok(Line::Point(point)) if counts(point.at, now) => {
                    found.ended = None;
                    if found.points.last().is_none_or(|last| last.at < point.at) {
                        found.points.push(point);
                    }
                }
                Ok(Line::Marks(marks)) => found.marks = marks,
                Ok(Line::Ended(why)) => found.ended = Some(End::Fault(why)),
                Ok(Line::Stopped) => found.ended = Some(End::Told),
                Ok(Line::Point(_)) | Err(_) => {}
            }
        }
        let surplus = found.points.len().saturating_sub(MAX_POINTS);
        found.points.drain(..surplus);
        found.marks.keep(|mark| mark.since <= mark.at && counts(mark.at, now));
        found
    }

    /// Notes, from whatever thread, that a fault at this place is about to end the process.
    pub fn note_end(path: &Path, why: &str) {
        note(path, &Line::Ended(why.to_owned()));
    }

    /// Notes that the process has done as it was told, and ends. Nobody writes behind it.
    pub fn note_stop(path: &Path) {
        note(path, &Line::Stopped);
    }

    /// Writes what is new. `all`: every point that counts, this one included.
    pub(crate) fn write(&mut self, point: Option<Point>, all: impl FnOnce() -> Vec<Point>, marks: Told) {
        let marks = line(&Line::Marks(marks));
        let written = match &mut self.open {
            Some(open) if open.bytes < MAX_DIARY_BYTES => open.append(point, marks),
            _ => self.anew(&all(), marks),
        };
        if let Err(error) = written {
            self.open = None;
            if !std::mem::replace(&mut self.told, true) {
                tracing::warn!(path = %self.path.display(), %error, "what the page shows is not kept for the next start");
            }
        }
    }

    /// Written aside and renamed: a crash meanwhile leaves the one before.
    fn anew(&mut self, points: &[Point], marks: String) -> io::Result<()> {
        let aside = self.path.with_extension("tmp");
        // One that was left behind unfinished, if any: what is there is appended to, also by whoever notes the end.
        _ = remove_file(&aside);
        let file = OpenOptions::new().append(true).create_new(true).mode(0o600).open(&aside)?;
        let mut open = Open { file, bytes: 0, marks: String::new() };
        let points: String = points.iter().map(|point| line(&Line::Point(*point))).collect();
        open.add(&points)?;
        open.append(None, marks)?;
        rename(&aside, &self.path)?;
        self.open = Some(open);
        Ok(())
    }
}

impl Open {
    fn append(&mut self, point: Option<Point>, marks: String) -> io::Result<()> {
        let mut text = point.map(|point| line(&Line::Point(point))).unwrap_or_default();
        if marks != self.marks {
            text += &marks;
            self.marks = marks;
        }
        self.add(&text)
    }

    fn add(&mut self, text: &str) -> io::Result<()> {
        self.file.write_all(text.as_bytes())?;
        self.bytes += text.len() as u64;
        Ok(())
    }
}

/// Whether what was at this time is still shown. What is of a later time was written under another clock.
fn counts(at: u64, now: u64) -> bool {
    at <= now && now - at <= MAX_POINTS as u64 * EVERY_MS
}

fn line(line: &Line) -> String {
    // Numbers, texts and maps from text: nothing of it can fail.
    serde_json::to_string(line).map(|text| text + "\n").unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::collector::{Collector, Titles};
    use crate::snapshot::Mark;

    const NOW: u64 = 1_763_750_000_000;

    fn point(at: u64) -> Point {
        let mut snapshot = Collector::new(Titles::default()).blank(at);
        snapshot.rates.committed = (at % 1_000) as f64;
        Point::of(&snapshot)
    }

    fn told(whats: &[&str]) -> Told {
        let mut told = Told::default();
        told.marks.extend(whats.iter().map(|what| Mark::new(NOW - 1_000, (*what).to_owned())));
        told
    }

    fn write(diary: &mut Diary, points: &[Point], marks: &Told) {
        for at in 0..points.len() {
            diary.write(Some(points[at]), || points[..=at].to_vec(), marks.clone());
        }
    }

    #[test]
    fn what_is_written_is_read_as_long_as_it_counts() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("watch.jsonl");
        assert_eq!(Diary::at(&path).read(NOW), Remembered::default(), "there is none yet");
        let points: Vec<Point> = (1..=4).rev().map(|second| point(NOW - second * 1_000)).collect();
        write(&mut Diary::at(&path), &points, &told(&["order-1 is down"]));
        let read = Diary::at(&path).read(NOW);
        assert_eq!(read, Remembered { points: points.clone(), marks: told(&["order-1 is down"]), ended: None });
        assert_eq!(Diary::at(&path).read(NOW - 2_000).points, points[..3], "of another clock");
        assert_eq!(Diary::at(&path).read(NOW + 598_000).points, points[2..]);
        assert_eq!(Diary::at(&path).read(NOW + 700_000), Remembered::default(), "too old");
    }

    #[test]
    fn points_of_a_version_that_told_less_are_read_too() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("watch.jsonl");
        write(&mut Diary::at(&path), &[point(NOW - 1_000)], &told(&[]));
        let (now, before) = (fs::read_to_string(&path).unwrap(), "\"slowest\":null,");
        assert!(now.contains(before), "{now}");
        fs::write(&path, now.replace(before, "")).unwrap();
        assert_eq!(Diary::at(&path).read(NOW).points, [point(NOW - 1_000)]);
    }

    #[test]
    fn a_torn_line_costs_that_line_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("watch.jsonl");
        let points = [point(NOW - 3_000), point(NOW - 2_000), point(NOW - 1_000)];
        write(&mut Diary::at(&path), &points, &told(&["a"]));
        let whole = fs::read(&path).unwrap();
        for end in 0..whole.len() {
            fs::write(&path, &whole[..end]).unwrap();
            let read = Diary::at(&path).read(NOW);
            assert!(points.starts_with(&read.points), "{end}: {read:?}");
        }
        for nonsense in [&b"\xFF\n{}\n[1]\n{\"point\":{\"at\":-1}}\n"[..], b"{\"marks\":7}", &[b'{'; 9_000], &[0; 500]]
        {
            fs::write(&path, [nonsense, b"\n", &whole].concat()).unwrap();
            assert_eq!(Diary::at(&path).read(NOW).points, points);
        }
    }

    #[test]
    fn a_fault_that_ended_the_process_is_told_until_another_has_served() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("watch.jsonl");
        Diary::note_end(&path, "stock before_prepare");
        assert!(!path.exists(), "nothing was seen: nothing is told");
        let points = [point(NOW - 3_000), point(NOW - 2_000), point(NOW - 1_000)];
        let mut diary = Diary::at(&path);
        write(&mut diary, &points[..2], &told(&["a"]));
        Diary::note_end(&path, "stock before_prepare");
        assert_eq!(Diary::at(&path).read(NOW).ended, Some(End::Fault("stock before_prepare".to_owned())));
        Diary::note_stop(&path);
        assert_eq!(Diary::at(&path).read(NOW).ended, Some(End::Told));
        diary.write(Some(points[2]), || points.to_vec(), told(&["a"]));
        let read = Diary::at(&path).read(NOW);
        assert_eq!((read.points.len(), read.ended), (3, None));
    }

    #[test]
    fn it_does_not_grow_for_ever_and_keeps_what_counts() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("watch.jsonl");
        let mut diary = Diary::at(&path);
        let points: Vec<Point> = (0..5_000_u64).map(|second| point(NOW + second * 1_000)).collect();
        let mut longest = 0;
        for at in 0..points.len() {
            let kept = at.saturating_sub(MAX_POINTS - 1);
            // The marks change every second.
            let marks = told(&[&"x".repeat(500 + at % 7)]);
            diary.write(Some(points[at]), || points[kept..=at].to_vec(), marks);
            longest = longest.max(fs::metadata(&path).unwrap().len());
        }
        assert!(longest < MAX_DIARY_BYTES + 10_000, "{longest}");
        let last = points[points.len() - 1].at;
        assert_eq!(diary.read(last).points, points[points.len() - MAX_POINTS..]);
    }

    #[test]
    fn a_file_that_could_not_be_written_is_written_whole_once_it_can_be() {
        let folder = tempfile::tempdir().unwrap();
        let gone = folder.path().join("not-there");
        let mut diary = Diary::at(gone.join("watch.jsonl"));
        let points = [point(NOW - 2_000), point(NOW - 1_000)];
        write(&mut diary, &points[..1], &told(&[]));
        fs::create_dir(&gone).unwrap();
        diary.write(Some(points[1]), || points.to_vec(), told(&["b"]));
        assert_eq!(diary.read(NOW), Remembered { points: points.to_vec(), marks: told(&["b"]), ended: None });
    }
}
