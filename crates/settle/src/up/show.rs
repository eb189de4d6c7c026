//! What `settle up` shows: a table that is drawn over itself on a terminal, plain lines elsewhere, or logs.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{IsTerminal, Read, Seek, SeekFrom, Write};

use super::member::Member;
use super::roles::Roles;

/// How much of a log is read at once. Bytes.
const PIECE: usize = 64 * 1024;

/// Where the user looks.
#[derive(Debug)]
pub(super) enum Show {
    /// A table of so many lines, drawn last.
    Table { lines: usize, roles: Roles },
    /// A line for what happens.
    Lines,
    /// Logs: how far each was read, and the end of what was no whole line.
    Logs { names: Vec<String>, read: BTreeMap<String, (u64, String)> },
}

impl Show {
    pub(super) fn new(logs: &[String], members: &[Member]) -> anyhow::Result<Self> {
        if !logs.is_empty() {
            return Self::logs(logs, members);
        }
        if !std::io::stdout().is_terminal() {
            return Ok(Self::Lines);
        }
        let asked = members.iter().map(|m| (m.component.name.clone(), m.component.kind, m.component.port));
        Ok(Self::Table { lines: 0, roles: Roles::watch(asked.collect())? })
    }

    fn logs(logs: &[String], members: &[Member]) -> anyhow::Result<Self> {
        let all: Vec<&str> = members.iter().map(|member| member.component.name.as_str()).collect();
        let everybody = logs.iter().any(|name| name == "all");
        for name in logs.iter().filter(|name| *name != "all") {
            anyhow::ensure!(all.contains(&name.as_str()), "--logs {name}: there is only {}, and `all`", all.join(", "));
        }
        let names = if everybody { all.into_iter().map(str::to_owned).collect() } else { logs.to_vec() };
        // What was said in an earlier life is not news.
        let read = members.iter().map(|member| {
            let length = std::fs::metadata(member.log()).map_or(0, |found| found.len());
            (member.component.name.clone(), (length, String::new()))
        });
        Ok(Self::Logs { read: read.collect(), names })
    }

    /// Whether there is something to show now and then even if nothing happens.
    pub(super) fn wants_looking(&self) -> bool {
        !matches!(self, Self::Lines)
    }

    /// Tells of something that happened.
    pub(super) fn tell(&mut self, what: &str) {
        let mut out = std::io::stdout().lock();
        if let Self::Table { lines, .. } = self {
            // Above the table, which is drawn anew below.
            _ = write!(out, "{}", above(std::mem::take(lines)));
        }
        // Nobody may read any more; the system goes on.
        _ = writeln!(out, "{what}");
        _ = out.flush();
    }

    /// Shows how things are.
    pub(super) fn draw(&mut self, members: &[Member]) {
        match self {
            Self::Lines => {}
            Self::Table { lines, roles } => {
                let table = table(members, roles);
                let mut out = std::io::stdout().lock();
                _ = write!(out, "{}{table}", above(*lines));
                _ = out.flush();
                *lines = table.lines().count();
            }
            Self::Logs { names, read } => {
                for member in members.iter().filter(|member| names.contains(&member.component.name)) {
                    if let Some(entry) = read.get_mut(&member.component.name) {
                        follow(member, entry);
                    }
                }
            }
        }
    }
}

/// What takes the cursor to the first of so many lines, and clears from there.
fn above(lines: usize) -> String {
    if lines == 0 { String::new() } else { format!("\x1b[{lines}A\x1b[J") }
}

fn table(members: &[Member], roles: &Roles) -> String {
    let mut text = format!("{:<18} {:<28} {:>8} {:>6} {:>8}  {}\n", "name", "state", "pid", "port", "restarts", "role");
    for member in members {
        let name = &member.component.name;
        let pid = member.pid().map_or_else(String::new, |pid| pid.to_string());
        let (port, restarts) = (member.component.port, member.restarts);
        text.push_str(&format!(
            "{name:<18} {:<28} {pid:>8} {port:>6} {restarts:>8}  {}\n",
            member.state(),
            roles.of(name)
        ));
    }
    text
}

/// Prints the whole lines that came to a log since it was read last.
fn follow(member: &Member, (at, rest): &mut (u64, String)) {
    let Ok(mut file) = File::open(member.log()) else { return };
    let mut piece = vec![0; PIECE];
    loop {
        let read = file.seek(SeekFrom::Start(*at)).and_then(|_| file.read(&mut piece)).unwrap_or(0);
        if read == 0 {
            return;
        }
        *at += read as u64;
        rest.push_str(&String::from_utf8_lossy(&piece[..read]));
        let whole = rest.rfind('\n').map_or(0, |end| end + 1);
        let lines: String = rest.drain(..whole).collect();
        let mut out = std::io::stdout().lock();
        for line in lines.lines() {
            _ = writeln!(out, "{:<16} | {line}", member.component.name);
        }
    }
}
