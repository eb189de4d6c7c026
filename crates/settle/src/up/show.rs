//! What `settle up` shows: a table that is drawn over itself on a terminal, plain lines elsewhere, or logs.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{IsTerminal, Read, Seek, SeekFrom, Write};

use super::member::{Member, RUNNING};
use super::roles::Roles;

/// How much of a log is read at once. Bytes.
const PIECE: usize = 64 * 1024;

/// Where the user looks.
#[derive(Debug)]
pub(super) enum Show {
    /// A table, as it was drawn last.
    Table { drawn: Drawn, roles: Roles },
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
        Ok(Self::Table { drawn: Drawn::default(), roles: Roles::watch(asked.collect())? })
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
        if let Self::Table { drawn, .. } = self {
            // Above the table, which is drawn anew below.
            _ = write!(out, "{}", drawn.clear());
        }
        // Nobody may read any more; the system goes on.
        _ = writeln!(out, "{what}");
        _ = out.flush();
    }

    /// Shows how things are.
    pub(super) fn draw(&mut self, members: &[Member]) {
        match self {
            Self::Lines => {}
            Self::Table { drawn, roles } => {
                let rows: Vec<Row> = members.iter().map(|member| Row::of(member, roles)).collect();
                let mut out = std::io::stdout().lock();
                _ = write!(out, "{}", drawn.draw(&table(&rows, size())));
                _ = out.flush();
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

/// The terminal's lines and columns; those of old if it does not say.
fn size() -> (usize, usize) {
    let told = rustix::termios::tcgetwinsize(std::io::stdout()).ok();
    told.filter(|size| size.ws_row > 0 && size.ws_col > 0)
        .map_or((24, 80), |size| (size.ws_row.into(), size.ws_col.into()))
}

/// What stands on the terminal, the cursor being on the line below.
#[derive(Debug, Default)]
pub(super) struct Drawn(String);

impl Drawn {
    /// What to write so that it stands there no more, and the cursor is where it began.
    fn clear(&mut self) -> String {
        let lines = std::mem::take(&mut self.0).lines().count();
        if lines == 0 { String::new() } else { format!("\x1b[{lines}A\r\x1b[J") }
    }

    /// What to write so that `text` stands there instead; nothing if it does already.
    fn draw(&mut self, text: &str) -> String {
        if self.0 == text {
            return String::new();
        }
        let written = self.clear() + text;
        text.clone_into(&mut self.0);
        written
    }
}

/// One component as the table shows it.
#[derive(Debug, Clone)]
struct Row {
    name: String,
    state: String,
    pid: Option<u32>,
    port: u16,
    restarts: u32,
    role: String,
}

/// The role to show of a component in a state, which said this when it was asked last: whoever does not run may not know that another is master.
fn role_of(state: &str, said: String) -> String {
    if state == RUNNING || said.is_empty() { said } else { format!("was {said}") }
}

impl Row {
    fn of(member: &Member, roles: &Roles) -> Self {
        let state = member.state();
        Self {
            name: member.component.name.clone(),
            role: role_of(&state, roles.of(&member.component.name)),
            state,
            pid: member.pid(),
            port: member.component.port,
            restarts: member.restarts,
        }
    }

    fn line(&self) -> String {
        let Self { name, state, port, restarts, role, .. } = self;
        let pid = self.pid.map_or_else(String::new, |pid| pid.to_string());
        format!("{name:<16} {state:<28} {pid:>8} {port:>6} {restarts:>8}  {role}")
    }
}

/// The table, on a terminal of so many lines and columns. What does not fit on it could not be drawn over: lines are cut, and if there are too many,
/// those of components that run are left out.
fn table(rows: &[Row], (lines, columns): (usize, usize)) -> String {
    let mut shown =
        vec![format!("{:<16} {:<28} {:>8} {:>6} {:>8}  {}", "name", "state", "pid", "port", "restarts", "role")];
    // One line for the head, one for the cursor.
    let room = lines.saturating_sub(2);
    if rows.len() <= room {
        shown.extend(rows.iter().map(Row::line));
    } else {
        // And one for how many are left out.
        let room = room.saturating_sub(1);
        let runs = |row: &&Row| row.state == RUNNING;
        let (running, others): (Vec<&Row>, Vec<&Row>) = rows.iter().partition(runs);
        let left = rows.len().saturating_sub(room);
        shown.extend(others.iter().chain(&running).take(room).map(|row| row.line()));
        let all_run = others.len() <= room;
        shown.push(format!("and {left} more{}", if all_run { ", running" } else { "" }));
    }
    let cut = |line: &String| line.trim_end().chars().take(columns).collect::<String>() + "\n";
    shown.iter().map(cut).collect()
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

#[cfg(test)]
mod tests {
    use super::*;

    /// A terminal of so many lines: what stands on it, as text.
    struct Screen {
        lines: Vec<String>,
        at: usize,
        height: usize,
    }

    impl Screen {
        fn new(height: usize) -> Self {
            Self { lines: vec![String::new(); height], at: 0, height }
        }

        fn write(&mut self, text: &str) {
            let mut rest = text;
            while let Some(next) = rest.chars().next() {
                if let Some(code) = rest.strip_prefix("\x1b[") {
                    let end = code.find(|c: char| c.is_ascii_alphabetic()).expect("a code ends with a letter");
                    match (&code[end..=end], code[..end].parse::<usize>()) {
                        // As a terminal does: no further than the first line.
                        ("A", Ok(up)) => self.at = self.at.saturating_sub(up),
                        ("J", Err(_)) => self.lines[self.at..].iter_mut().for_each(String::clear),
                        other => panic!("what is {other:?}?"),
                    }
                    rest = &code[end + 1..];
                    continue;
                }
                match next {
                    '\n' if self.at + 1 == self.height => {
                        self.lines.remove(0);
                        self.lines.push(String::new());
                    }
                    '\n' => self.at += 1,
                    '\r' => {}
                    letter => self.lines[self.at].push(letter),
                }
                rest = &rest[next.len_utf8()..];
            }
        }

        fn shown(&self) -> Vec<&str> {
            self.lines.iter().map(String::as_str).filter(|line| !line.is_empty()).collect()
        }
    }

    fn row(name: &str, state: &str, role: &str) -> Row {
        let pid = (state == "running").then_some(4711);
        Row { name: name.to_owned(), state: state.to_owned(), pid, port: 6379, restarts: 2, role: role.to_owned() }
    }

    #[test]
    fn the_table_stands_once_on_the_screen_below_what_was_told() {
        let mut rows = vec![row("nats", "starting", ""), row("redis-stock-1", "planned", "")];
        let (mut screen, mut drawn) = (Screen::new(10), Drawn::default());
        for _ in 0..5 {
            screen.write(&drawn.draw(&table(&rows, (10, 80))));
        }
        rows[0] = row("nats", "running", "");
        screen.write(&drawn.clear());
        screen.write("nats is ready: process 4711, port 6379\n");
        screen.write(&drawn.draw(&table(&rows, (10, 80))));
        rows[1] = row("redis-stock-1", "running", "master");
        let text = drawn.draw(&table(&rows, (10, 80)));
        screen.write(&text);
        assert_eq!(
            screen.shown(),
            [
                "nats is ready: process 4711, port 6379",
                "name             state                             pid   port restarts  role",
                "nats             running                          4711   6379        2",
                "redis-stock-1    running                          4711   6379        2  master",
            ]
        );
        assert!(text.len() > 10 && drawn.draw(&table(&rows, (10, 80))).is_empty(), "nothing has changed");
        // It stays where it is when it is told of many things, until these fill the screen.
        for n in 0..20 {
            screen.write(&drawn.clear());
            screen.write(&format!("event {n}\n"));
            screen.write(&drawn.draw(&table(&rows, (10, 80))));
        }
        let shown = screen.shown();
        assert_eq!(shown.iter().filter(|line| line.starts_with("name")).count(), 1, "{shown:#?}");
        assert_eq!(shown[5], "event 19");
    }

    #[test]
    fn whoever_does_not_run_was_master() {
        let roles = ["running", "frozen", "was killed (SIGKILL)"].map(|state| role_of(state, "master".to_owned()));
        assert_eq!(roles, ["master", "was master", "was master"]);
        assert_eq!(role_of("frozen", String::new()), "");
    }

    #[test]
    fn on_a_small_terminal_it_shows_whoever_is_not_well_and_fits() {
        let mut rows: Vec<Row> =
            (0..20).map(|n| row(&format!("redis-orders-{n}"), "running", "replica, not in touch")).collect();
        rows[17].state = "was killed (SIGKILL)".to_owned();
        rows[18].state = "starting".to_owned();
        let (mut screen, mut drawn) = (Screen::new(8), Drawn::default());
        for restarts in 0..4 {
            rows[0].restarts = restarts;
            screen.write(&drawn.draw(&table(&rows, (8, 60))));
        }
        let shown = screen.shown();
        assert_eq!(shown.len(), 7, "{shown:#?}");
        assert!(shown.iter().all(|line| line.chars().count() <= 60));
        assert!(shown[1].starts_with("redis-orders-17  was killed (SIGKILL)"), "{shown:#?}");
        assert!(
            shown[2].starts_with("redis-orders-18  starting") && shown[3].starts_with("redis-orders-0 "),
            "{shown:#?}"
        );
        assert_eq!(shown[6], "and 15 more, running");
        for row in &mut rows {
            row.state = "planned".to_owned();
        }
        assert!(table(&rows, (8, 60)).ends_with("and 15 more\n"));
        assert_eq!(table(&rows, (0, 0)).lines().count(), 2, "whatever a terminal says of itself");
    }
}
