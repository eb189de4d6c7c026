//! The page and `settle top`, from outside: real processes, read as a browser and a terminal read them.

#![allow(clippy::unwrap_used, reason = "in a test a broken expectation is a failed test")]

mod common;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use common::{Folder, fine, settle, stderr, stdout};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

/// How soon a page must show what happened.
const SEEN_WITHIN: Duration = Duration::from_secs(2);
/// How long the test waits for what must come some time.
const PATIENCE: Duration = Duration::from_secs(60);

/// A page's events, as a browser hears them.
struct Events(BufReader<TcpStream>);

impl Events {
    fn listen(address: &str) -> Self {
        let mut stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        // HTTP/1.0: what comes is not put into chunks.
        write!(stream, "GET /dashboard/events HTTP/1.0\r\nHost: {address}\r\n\r\n").unwrap();
        let mut events = BufReader::new(stream);
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            assert!(events.read_line(&mut head).unwrap() > 0, "{head}");
        }
        assert!(head.contains(" 200 ") && head.contains("content-type: text/event-stream"), "{head}");
        Self(events)
    }

    /// The next event: its kind, its id, and what it says.
    fn next(&mut self) -> (String, u64, Value) {
        let (mut kind, mut id, mut data) = (String::new(), 0, Value::Null);
        loop {
            let mut line = String::new();
            assert!(self.0.read_line(&mut line).unwrap() > 0, "the events ended");
            match line.trim_end().split_once(": ") {
                Some(("event", text)) => text.clone_into(&mut kind),
                Some(("id", text)) => id = text.parse().unwrap(),
                Some(("data", text)) => data = serde_json::from_str(text).unwrap(),
                Some(_) => {}
                None if kind.is_empty() => {}
                None => return (kind, id, data),
            }
        }
    }

    /// Waits for a snapshot of which something holds; how long that took since `since`.
    fn until(&mut self, what: &str, since: Instant, holds: impl Fn(&Value) -> bool) -> Duration {
        loop {
            let (kind, _, snapshot) = self.next();
            if kind == "snapshot" && holds(&snapshot) {
                return since.elapsed();
            }
            assert!(since.elapsed() < PATIENCE, "waited in vain: {what}: {snapshot}");
        }
    }
}

fn ask(address: &str, head: &str) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    write!(stream, "{head}\r\nConnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

fn get(address: &str, path: &str) -> String {
    ask(address, &format!("GET {path} HTTP/1.1\r\nHost: {address}"))
}

#[test]
fn a_running_shop_shows_itself_second_by_second() {
    let folder = Folder::new();
    let server = folder.serve(&["--chaos"]);
    let page = get(&server.address, "/");
    assert!(page.contains("text/html") && page.contains("content-security-policy: default-src 'self'"), "{page}");
    assert!(get(&server.address, "/dashboard/style.css").contains("text/css"));
    assert!(get(&server.address, "/nothing").contains("\"code\":\"no_such_route\""), "the contract's words stay");

    let mut events = Events::listen(&server.address);
    assert_eq!(events.next().0, "history");
    let begun = events.until("it is up", Instant::now(), |now| now["instances"][0]["state"] == "up");
    assert!(begun < SEEN_WITHIN, "{begun:?}");
    server.seed();
    server.must("/orders/checkout/0");
    let since = Instant::now();
    let holds = |now: &Value| now["rates"]["committed"].as_f64() > Some(0.0) && now["latency_ms"]["p99"].is_number();
    let seen = events.until("the checkout is shown", since, holds);
    assert!(seen < SEEN_WITHIN, "{seen:?}");
    // One a second, each later than the one before.
    let (mut ids, begun) = (vec![], Instant::now());
    for _ in 0..3 {
        let (kind, id, snapshot) = events.next();
        assert_eq!((kind.as_str(), snapshot["at"].as_u64()), ("snapshot", Some(id)));
        ids.push(id);
    }
    assert!(ids.is_sorted() && ids[2] - ids[0] > 1_500 && begun.elapsed() > Duration::from_millis(1_500), "{ids:?}");
    let snapshot = events.next().2;
    assert_eq!(
        (&snapshot["title"], &snapshot["chaos"], &snapshot["leader"]),
        (&"settle serve".into(), &true.into(), &"shop".into())
    );
    let members: Vec<&String> = snapshot.as_object().unwrap().keys().collect();
    assert_eq!(members.len(), 29, "{members:?}");
    assert_eq!(snapshot["stores"].as_array().unwrap().len(), 3);
    let late = Events::listen(&server.address).next();
    assert!(late.2["points"].as_array().unwrap().len() >= 4, "whoever comes late is told of before: {}", late.2);
    // An open page does not hold the end up.
    let stopping = Instant::now();
    server.stop();
    assert!(stopping.elapsed() < Duration::from_secs(10), "{:?}", stopping.elapsed());
}

#[test]
fn whoever_opens_the_page_behind_a_kill_sees_what_was_before_it() {
    let folder = Folder::new();
    let server = folder.serve(&[]);
    server.seed();
    server.must("/orders/batch_init/3/1/1/5");
    server.must("/orders/checkout/0");
    let mut events = Events::listen(&server.address);
    events.until("the checkout is shown", Instant::now(), |now| now["rates"]["committed"].as_f64() > Some(0.0));
    let (_, last, _) = events.next();
    // The log's clock is behind by a tick of the kernel, 10 ms at most: what was decided so soon behind a look counts to it, as far as one can tell.
    std::thread::sleep(Duration::from_millis(20));
    // What is answered from here on, nobody looks at any more. Dropped, it is killed.
    server.must("/orders/checkout/1");
    server.must("/orders/checkout/2");
    drop(server);

    let server = folder.serve(&[]);
    let mut events = Events::listen(&server.address);
    let history = events.next().2;
    let before: Vec<&Value> =
        history["points"].as_array().unwrap().iter().filter(|it| it["at"].as_u64() <= Some(last)).collect();
    assert!(before.iter().any(|it| it["committed"].as_f64() > Some(0.0)), "{history}");
    let counted = |events: &mut Events, what: &str| {
        events.until(what, Instant::now(), |now| now["answers"]["committed"] == 3);
    };
    counted(&mut events, "what was answered just before the kill is counted");
    let tells = |events: &mut Events, end: &str| {
        events.until("what happened is told", Instant::now(), |now| {
            let mut told: Vec<&str> =
                now["marks"].as_array().unwrap().iter().map(|mark| mark["what"].as_str().unwrap()).collect();
            // Whether they were settled by then is chance.
            told.retain(|what| !what.contains("took up"));
            told.ends_with(&[end, "shop started"])
        });
    };
    tells(&mut events, "settle serve was killed, or crashed");
    drop(events);
    server.stop();
    let server = folder.serve(&[]);
    let mut events = Events::listen(&server.address);
    tells(&mut events, "settle serve was told to stop");
    counted(&mut events, "nothing is counted twice");
}

#[test]
fn a_process_that_stood_still_says_so_to_whoever_comes_later() {
    let folder = Folder::new();
    let server = folder.serve(&[]);
    Events::listen(&server.address).until("it is up", Instant::now(), |now| now["instances"][0]["state"] == "up");
    let process = Pid::from_child(&server.child);
    kill_process(process, Signal::STOP).unwrap();
    // How long it stands still is what is told.
    std::thread::sleep(Duration::from_secs(4));
    kill_process(process, Signal::CONT).unwrap();
    Events::listen(&server.address).until("it is told", Instant::now(), |now| {
        now["marks"].to_string().contains("settle serve stood still for about ")
    });
}

#[test]
fn a_fault_that_ended_the_process_is_told_behind_it() {
    let folder = Folder::new();
    let mut server = folder.serve(&["--chaos", "--protocol", "2pc"]);
    server.seed();
    // With a second in it, so that there is something to go on from.
    Events::listen(&server.address).until("it is up", Instant::now(), |now| now["instances"][0]["state"] == "up");
    server.must("/stock/fault/set?point=after_commit&action=crash");
    // It is decided, and nobody is left to settle it.
    let mut checkout = TcpStream::connect(&server.address).unwrap();
    write!(checkout, "POST /orders/checkout/0 HTTP/1.1\r\nHost: {}\r\n\r\n", server.address).unwrap();
    server.wait();
    let server = folder.serve(&[]);
    Events::listen(&server.address).until("what ended it is told", Instant::now(), |now| {
        let told = now["marks"].to_string();
        told.contains("settle serve ended by an injected fault: stock after commit")
            && told.contains("shop started")
            && told.contains("shop took up 1 transaction that was left unfinished")
    });
}

#[test]
fn a_shop_whose_books_wait_for_somebody_says_so() {
    let (_folder, server, _) = common::stuck();
    let mut events = Events::listen(&server.address);
    events.until("it is stuck", Instant::now(), |now| {
        now["stuck"] == 1
            && now["verdict"]["level"] == "warning"
            && now["verdict"]["text"].as_str().unwrap().contains("1 transaction is stuck")
    });
}

#[test]
fn top_says_once_or_as_json_how_a_shop_is_and_two_if_nobody_answers() {
    let folder = Folder::new();
    let server = folder.serve(&[]);
    let url = format!("http://{}", server.address);
    // Before the first look nothing is known of any instance, and before the first audit nothing of the books.
    Events::listen(&server.address).until("all is well", Instant::now(), |now| now["verdict"]["level"] == "good");
    let once = fine(&settle().args(["top", "--once", "--url", &url]).output().unwrap());
    for word in
        ["settle serve", "GOOD  ", "0 stuck", "checkouts ", "in flight 0", "leader       shop", "shop              up"]
    {
        assert!(once.contains(word), "`{word}` is missing in:\n{once}");
    }
    assert!(!once.contains('\x1b'), "no terminal, no control characters: {once}");
    let json = fine(&settle().args(["top", "--json", "--url", &url]).output().unwrap());
    let snapshot: Value = serde_json::from_str(&json).unwrap();
    assert_eq!((snapshot["verdict"]["level"].as_str(), json.lines().count()), (Some("good"), 1));

    // Without a terminal it prints lines until nobody reads them, or it is told to stop.
    let mut top = settle().args(["top", "--url", &url]).stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(top.stdout.take().unwrap()).lines().map(Result::unwrap);
    let two = [lines.next().unwrap(), lines.next().unwrap()];
    assert!(
        two.iter().all(|line| line.contains(" GOOD | ") && line.contains("0 in flight")) && two[0] != two[1],
        "{two:?}"
    );
    drop(server);
    assert!(lines.any(|line| line.starts_with("nothing heard for ")));
    kill_process(Pid::from_child(&top), Signal::TERM).unwrap();
    assert_eq!(top.wait().unwrap().code(), Some(0));

    for arguments in [&["top", "--once"][..], &["top"], &["top", "--json"]] {
        let nobody = settle().args(arguments).args(["--url", &url]).output().unwrap();
        assert_eq!(nobody.status.code(), Some(2), "{}", stdout(&nobody));
        let said = stderr(&nobody);
        assert!(
            said.contains("shows nothing: is it a running `settle serve`") && said.contains("cannot connect"),
            "{said}"
        );
    }
    let wrong = settle().args(["top", "--url", "ftp://x"]).output().unwrap();
    assert_eq!(wrong.status.code(), Some(2));
    let no_folder = settle().args(["top", "--up"]).arg(folder.data()).output().unwrap();
    assert!(no_folder.status.code() == Some(2) && stderr(&no_folder).contains("no up.json"), "{}", stderr(&no_folder));
}

#[test]
fn top_gives_a_terminal_back_as_it_was() {
    use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
    use rustix::termios::{LocalModes, Winsize, tcgetattr, tcsetwinsize};
    let folder = Folder::new();
    let server = folder.serve(&[]);
    for end in ["q", "signal"] {
        let terminal = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
        grantpt(&terminal).unwrap();
        unlockpt(&terminal).unwrap();
        tcsetwinsize(&terminal, Winsize { ws_row: 12, ws_col: 40, ws_xpixel: 0, ws_ypixel: 0 }).unwrap();
        let name = ptsname(&terminal, vec![]).unwrap().into_string().unwrap();
        let side = || std::fs::OpenOptions::new().read(true).write(true).open(&name).unwrap();
        let kept = side();
        let mut top = settle();
        top.args(["top", "--url", &format!("http://{}", server.address)]);
        let mut top = top.stdin(side()).stdout(side()).stderr(side()).spawn().unwrap();
        let mut screen = std::fs::File::from(terminal);
        let mut shown = String::new();
        let mut piece = [0; 4096];
        let until = |shown: &mut String, piece: &mut [u8], screen: &mut std::fs::File, what: &str| {
            while !shown.contains(what) {
                let bytes = screen.read(piece).unwrap();
                shown.push_str(&String::from_utf8_lossy(&piece[..bytes]));
            }
        };
        until(&mut shown, &mut piece, &mut screen, "GOOD");
        assert!(shown.starts_with("\x1b[?1049h\x1b[?25l"), "{shown:?}");
        assert!(!tcgetattr(&kept).unwrap().local_modes.contains(LocalModes::ICANON));
        match end {
            "q" => screen.write_all(b"q").unwrap(),
            _ => kill_process(Pid::from_child(&top), Signal::INT).unwrap(),
        }
        until(&mut shown, &mut piece, &mut screen, "\x1b[?25h\x1b[?1049l");
        assert_eq!(top.wait().unwrap().code(), Some(0), "{end}");
        assert!(tcgetattr(&kept).unwrap().local_modes.contains(LocalModes::ICANON | LocalModes::ECHO), "{end}");
        // Narrow and low: no line is wider than the terminal, and no screen higher.
        let frame = shown.split("\x1b[H").nth(1).unwrap().split("\x1b[J").next().unwrap();
        let lines: Vec<&str> =
            frame.split("\r\n").map(|line| line.trim_end_matches('\r').trim_end_matches("\x1b[K")).collect();
        assert!(lines.len() <= 12 && lines.iter().all(|line| line.chars().count() <= 40), "{lines:#?}");
    }
}

/// A running `settle up`, killed when dropped: its children follow it by themselves.
struct Up(Child);

impl Drop for Up {
    fn drop(&mut self) {
        _ = self.0.kill();
        _ = self.0.wait();
    }
}

fn state(data: &Path) -> Option<Value> {
    serde_json::from_slice(&std::fs::read(data.join("up.json")).ok()?).ok()
}

fn component<'a>(state: &'a Value, name: &str) -> &'a Value {
    state["components"].as_array().unwrap().iter().find(|it| it["name"] == name).unwrap()
}

fn is(now: &Value, name: &str, state: &str) -> bool {
    now["instances"].as_array().unwrap().iter().any(|it| it["name"] == name && it["state"] == state)
}

fn has_mark(now: &Value, what: &str) -> bool {
    now["marks"].as_array().unwrap().iter().any(|mark| mark["what"] == what)
}

#[test]
fn the_page_of_a_system_shows_a_kill_a_freeze_and_the_recovery_within_two_seconds() {
    let data = tempfile::tempdir().unwrap();
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port().to_string();
    let mut command = Command::new(env!("CARGO_BIN_EXE_settle"));
    command.args(["up", "--small", "--restart", "--port", &free, "--data"]).arg(data.path());
    command.env("SETTLE_HOSTS", "shop.example");
    let mut up = Up(command.stdout(Stdio::piped()).spawn().unwrap());
    let mut said = BufReader::new(up.0.stdout.take().unwrap()).lines().map(Result::unwrap);
    let line = said.find(|line| line.starts_with("What it does: http://")).expect("it says where its page is");
    // It goes on to say what happens, which must not fill the pipe.
    std::thread::spawn(move || said.for_each(drop));
    let now = state(data.path()).unwrap();
    let address = format!("127.0.0.1:{}", now["ports"]["dashboard"]);
    assert!(line.contains(&format!("http://{address}/ in a browser, or settle top --up ")), "{line}");

    let mut events = Events::listen(&address);
    let all = [
        "nats",
        "redis-orders-1",
        "redis-stock-1",
        "redis-payment-1",
        "order-1",
        "order-2",
        "stock-1",
        "stock-2",
        "payment-1",
        "payment-2",
        "gateway",
    ];
    events.until("all are up, one leads, and the master is known", Instant::now(), |now| {
        all.iter().all(|name| is(now, name, "up"))
            && !now["leader"].is_null()
            && now["instances"][1]["role"] == "master"
    });
    for name in ["redis-stock-1", "stock-1", "gateway", "nats"] {
        // Held down, so that it stays so for as long as the test looks.
        let hold = data.path().join(format!("hold-{name}"));
        std::fs::write(&hold, "").unwrap();
        let pid = component(&state(data.path()).unwrap(), name)["pid"].as_i64().unwrap();
        let killed = Instant::now();
        kill_process(Pid::from_raw(i32::try_from(pid).unwrap()).unwrap(), Signal::KILL).unwrap();
        let seen = events.until("the kill", killed, |now| {
            is(now, name, "down") && has_mark(now, &format!("{name} was killed (SIGKILL)"))
        });
        std::fs::remove_file(&hold).unwrap();
        // It is back when `settle up` has found it ready.
        let until = Instant::now() + PATIENCE;
        while component(&state(data.path()).unwrap(), name)["ready"] != true {
            assert!(Instant::now() < until, "{name} does not come back");
            std::thread::sleep(Duration::from_millis(10));
        }
        let back = Instant::now();
        let recovered =
            events.until("the recovery", back, |now| is(now, name, "up") && has_mark(now, &format!("{name} is back")));
        println!("{name}: killed, shown after {seen:?}; ready again, shown after {recovered:?}");
        assert!(seen < SEEN_WITHIN && recovered < SEEN_WITHIN, "{name}: {seen:?}, {recovered:?}");
    }
    for name in ["redis-payment-1", "order-2"] {
        let pid = component(&state(data.path()).unwrap(), name)["pid"].as_i64().unwrap();
        let pid = Pid::from_raw(i32::try_from(pid).unwrap()).unwrap();
        let frozen = Instant::now();
        kill_process(pid, Signal::STOP).unwrap();
        let seen = events.until("the freeze", frozen, |now| is(now, name, "frozen"));
        let thawed = Instant::now();
        kill_process(pid, Signal::CONT).unwrap();
        let back = events.until("the thaw", thawed, |now| is(now, name, "up"));
        println!("{name}: frozen, shown after {seen:?}; thawed, shown after {back:?}");
        assert!(seen < SEEN_WITHIN && back < SEEN_WITHIN, "{name}: {seen:?}, {back:?}");
    }

    // The page speaks to one origin: customers' requests go to the gateway, and operators' to an order instance.
    let post = |path: &str, headers: &str| {
        ask(&address, &format!("POST {path} HTTP/1.1\r\nHost: {address}\r\nContent-Length: 0{headers}"))
    };
    assert!(post("/stock/item/create/5", "").contains("item_id"));
    assert!(post("/stock/item/create/5", "\r\nOrigin: http://evil.example").contains("\"code\":\"cross_site\""));
    assert!(ask(&address, "GET / HTTP/1.1\r\nHost: evil.example").contains("\"code\":\"strange_host\""));
    assert!(ask(&address, "GET / HTTP/1.1\r\nHost: shop.example").starts_with("HTTP/1.1 200 "));
    assert!(get(&address, "/admin/nothing").contains("\"code\":\"no_such_route\""), "the instance's own words");
    let gateway = state(data.path()).unwrap()["ports"]["gateway"].as_u64().unwrap();
    let said = get(&format!("127.0.0.1:{gateway}"), "/");
    assert!(said.contains(&format!("the page is at http://{address}/")), "who opens the gateway is told: {said}");
    let once = fine(&settle().args(["top", "--once", "--up"]).arg(data.path()).output().unwrap());
    assert!(
        once.contains("settle up") && once.contains("redis-stock-1     up") && once.contains("order-2 is back"),
        "{once}"
    );
    // An order instance shows itself.
    let own = format!("127.0.0.1:{}", component(&now, "order-1")["port"]);
    assert!(get(&own, "/dashboard/snapshot").contains("\"title\":\"order-1\""));
}

#[test]
fn where_traces_are_shown_is_told_if_there_are_any_and_is_an_address() {
    let shown = |flags: &[&str]| {
        let folder = Folder::new();
        let server = folder.serve(flags);
        let answer = get(&server.address, "/dashboard/snapshot");
        let body: Value = serde_json::from_str(answer.split_once("\r\n\r\n").unwrap().1).unwrap();
        assert!(body.as_object().unwrap().contains_key("trace_url"), "{body}");
        body["trace_url"].clone()
    };
    let url = "https://traces.example/trace/{trace_id}";
    assert_eq!(shown(&["--trace-url", url, "--otlp-endpoint", "http://127.0.0.1:9"]), url);
    assert_eq!(shown(&["--trace-url", url]), Value::Null, "nothing is traced");
    for wrong in ["javascript:alert('{trace_id}')", "http://traces.example/trace", "http://{trace_id}/"] {
        let folder = Folder::new();
        common::unusable(
            &folder.tool(&["serve", "--listen", "127.0.0.1:0", "--trace-url", wrong]),
            &[&format!("--trace-url is `{wrong}`: it is an address such as http://127.0.0.1:16686/trace/{{trace_id}}")],
        );
    }
}
