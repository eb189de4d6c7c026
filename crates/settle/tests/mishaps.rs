//! Mishaps of a shop that runs for years, through the real program: what an operator settled is forgotten late, a clock was set back, a
//! disk is full at the start or in the middle of a checkout. Time and age are put into the journals by the library, before a start.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod common;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use common::{Folder, PATIENCE, Server, fine, settle, stderr, stdout, stuck, unusable};
use embedded::{Machine, Store};
use ledger::{EntityId, Entry, Ledger, LedgerCommand, entries};
use protocol::log::LogCommand;
use protocol::{BranchId, Timestamp, TransactionId, Verb};
use rustix::process::{Pid, Resource, Rlimit, Signal, kill_process, prlimit};
use shop::orders::{OrderBook, OrdersCommand};

/// Carries commands out in a database of a shop that does not run.
fn put<M: Machine>(folder: &Folder, service: &str, commands: impl IntoIterator<Item = M::Command>) {
    let (store, _) = Store::<M>::open(&folder.data().join(service), embedded::Options::default()).unwrap();
    for command in commands {
        store.submit(command, |answer| assert!(answer.is_ok()));
    }
    store.close().unwrap();
}

/// What the log does to everything finished, once enough has come behind it.
fn forget_all_that_is_finished() -> OrdersCommand {
    let end = Timestamp(u64::MAX);
    OrdersCommand::Log(LogCommand::Forget { finished_before: end, keep: 0, spare_since: end })
}

#[test]
fn what_was_resolved_by_hand_is_committed_by_its_participant_however_much_later_it_asks() {
    let (folder, server, id) = stuck();
    fine(&folder.tool(&["tx", "resolve", &id, "--step", "1", "--operator", "ann", "--reason", "ticket 4711"]));
    assert_eq!(folder.the_one("finished"), id);
    drop(server);
    put::<OrderBook>(&folder, "orders", [forget_all_that_is_finished()]);
    assert_eq!(folder.the_one("finished"), id, "it is still there to be asked about");
    // At the start payment asks about the branch that it has prepared.
    let server = folder.serve(&["--protocol", "2pc"]);
    fine(&folder.tool(&["audit"]));
    let told = fine(&folder.tool(&["tx", "show", &id]));
    assert!(told.contains("step 1 (payment) settled by hand · by ann: ticket 4711"), "{told}");
    server.stop();
}

#[test]
fn after_the_clock_was_set_back_checkouts_go_on_at_once() {
    let folder = Folder::new();
    let server = folder.serve(&["--protocol", "2pc"]);
    server.seed();
    server.stop();
    // All three have forgotten transactions that were born in an hour: to them whatever is born now is long expired.
    let now = u64::try_from(std::time::UNIX_EPOCH.elapsed().unwrap().as_millis()).unwrap();
    let later = TransactionId::new(Timestamp(now + 3_600_000), [7; 16]);
    let end = Timestamp(u64::MAX);
    for (step, service) in [(0, "stock"), (1, "payment")] {
        let payload = entries::encode(&[Entry { account: EntityId::number(0), amount: 1 }]).unwrap();
        let branch = BranchId { transaction: later, step };
        let command = |verb| LedgerCommand::Branch(protocol::Command { branch, verb, payload: payload.clone() });
        let forget = LedgerCommand::Forget { born_before: end, keep: 0, spare_since: end };
        put::<Ledger>(&folder, service, [command(Verb::Prepare), command(Verb::Abort), forget]);
    }
    let ask = OrdersCommand::Log(LogCommand::Ask { ids: vec![later], now: Timestamp(now) });
    put::<OrderBook>(&folder, "orders", [ask, forget_all_that_is_finished()]);

    let server = folder.serve(&["--protocol", "2pc"]);
    server.must("/orders/checkout/0");
    fine(&folder.tool(&["audit"]));
    let born: TransactionId = folder.the_one("finished").parse().unwrap();
    assert!(born.birth() > later.birth(), "ids go on behind the youngest that is known");
    server.stop();
}

/// Begins a checkout that stays undecided for two seconds: the connection that waits for it, and its id.
fn in_flight(folder: &Folder, server: &Server) -> (TcpStream, String) {
    server.must("/stock/fault/set?point=before_prepare&action=delay&delay_ms=60000");
    let mut stream = TcpStream::connect(&server.address).unwrap();
    stream.write_all(b"POST /orders/checkout/0 HTTP/1.1\r\nHost: test\r\nContent-Length: 0\r\n\r\n").unwrap();
    let id = folder.the_one("in-flight");
    (stream, id)
}

/// `settle serve` in a shell that has files written beyond a limit fail, as on a full disk, instead of killing the process.
fn serve_short_of_disk(folder: &Folder, limit: Option<usize>, flags: &[&str]) -> Child {
    let script = format!(
        "trap '' XFSZ; exec {} \"$@\"",
        limit.map(|bytes| format!("prlimit --fsize={bytes}:{bytes}")).unwrap_or_default()
    );
    let plain = settle();
    let mut command = Command::new("sh");
    for (name, _) in plain.get_envs() {
        command.env_remove(name);
    }
    command.args(["-c", &script, "sh"]).arg(plain.get_program());
    command.args(["serve", "--listen", "127.0.0.1:0", "--data"]).arg(folder.data()).args(flags);
    command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

/// Waits until the process has ended by itself: its code, and what it said on stderr.
fn ended(child: &mut Child) -> (Option<i32>, String) {
    let until = Instant::now() + PATIENCE;
    let status = loop {
        if let Some(status) = child.try_wait().unwrap() {
            break status;
        }
        if Instant::now() >= until {
            child.kill().unwrap();
            panic!("the process hangs");
        }
        std::thread::sleep(Duration::from_millis(5));
    };
    let mut said = String::new();
    child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
    (status.code(), said)
}

#[test]
fn a_server_serves_whether_or_not_anybody_reads_its_greeting() {
    let folder = Folder::new();
    let address = format!("127.0.0.1:{}", servers::free_port().unwrap());
    let mut command = settle();
    command.args(["serve", "--listen", &address, "--data"]).arg(folder.data());
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take());
    let until = Instant::now() + PATIENCE;
    let mut stream = loop {
        match TcpStream::connect(&address) {
            Ok(stream) => break stream,
            Err(error) => assert!(Instant::now() < until, "it does not listen: {error}"),
        }
        std::thread::sleep(Duration::from_millis(5));
    };
    write!(stream, "GET /health HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    // A panic would close the connection.
    _ = stream.read_to_string(&mut answer);
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer} {:?}", ended(&mut child));
    kill_process(Pid::from_child(&child), Signal::TERM).unwrap();
    let (code, said) = ended(&mut child);
    assert_eq!(code, Some(0), "{said}");
    assert!(!said.contains("panicked"), "{said}");
}

#[test]
fn a_database_in_the_place_of_another_is_refused() {
    let folder = Folder::new();
    let server = folder.serve(&[]);
    server.seed();
    server.stop();
    let place = |name: &str| folder.data().join(name);
    for [from, to] in [["stock", "aside"], ["payment", "stock"], ["aside", "payment"]] {
        std::fs::rename(place(from), place(to)).unwrap();
    }
    let audit = folder.tool(&["audit"]);
    unusable(&audit, &["the stock database", "is the database of payment", "its own place"]);
    let mut child = serve_short_of_disk(&folder, None, &[]);
    let (code, said) = ended(&mut child);
    assert!(code != Some(0) && said.contains("is the database of payment"), "{code:?}: {said}");
    for [from, to] in [["stock", "aside"], ["payment", "stock"], ["aside", "payment"]] {
        std::fs::rename(place(from), place(to)).unwrap();
    }
    let server = folder.serve(&[]);
    server.must("/orders/checkout/0");
    server.stop();
    fine(&folder.tool(&["audit"]));
}

#[test]
fn a_database_that_can_not_be_opened_for_writing_ends_the_process_and_says_so() {
    let folder = Folder::new();
    let server = folder.serve(&[]);
    server.seed();
    server.must("/orders/checkout/0");
    server.stop();
    // One block: the lock still gets its line, and no journal takes another batch.
    let (code, said) = ended(&mut serve_short_of_disk(&folder, Some(512), &[]));
    assert_eq!(code, Some(2), "{said}");
    for words in ["the orders database", "journal-00000000000000000001.seg", "cannot make", "File too large"] {
        assert!(said.contains(words), "`{words}` is missing in: {said}");
    }
    assert!(!said.contains("panicked"), "{said}");
    let server = folder.serve(&[]);
    fine(&folder.tool(&["audit"]));
    server.stop();
}

/// Where the next batch of a database with one journal segment begins: batches fill sectors of 512 bytes.
fn end_of_journal(folder: &Folder, service: &str) -> usize {
    let bytes = std::fs::read(folder.data().join(service).join("journal-00000000000000000001.seg")).unwrap();
    bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1).next_multiple_of(512)
}

#[test]
fn a_database_that_stops_while_it_recovers_ends_the_process_and_says_so() {
    let folder = Folder::new();
    let server = folder.serve(&["--protocol", "2pc", "--chaos"]);
    server.seed();
    // Stock's journal is the longest by far: where it ends, the others have room.
    for _ in 0..40 {
        server.must("/stock/add/0/1");
    }
    let (_stream, id) = in_flight(&folder, &server);
    // Killed in the middle of a checkout: recovery asks stock, and what stock answers does not fit.
    drop(server);
    let limit = end_of_journal(&folder, "stock");
    assert!(end_of_journal(&folder, "orders") + 4096 < limit);
    let (code, said) = ended(&mut serve_short_of_disk(&folder, Some(limit), &["--protocol", "2pc"]));
    assert_eq!(code, Some(1), "a supervisor may try again: {said}");
    for words in ["the stock database stopped", "the journal could not be written", "File too large"] {
        assert!(said.contains(words), "`{words}` is missing in: {said}");
    }
    assert!(!said.contains("panicked"), "{said}");
    let server = folder.serve(&["--protocol", "2pc"]);
    assert_eq!(folder.the_one("finished"), id, "with room to write it goes on from there");
    fine(&folder.tool(&["audit"]));
    server.stop();
}

#[test]
fn a_keyed_checkout_whose_key_can_not_be_remembered_is_paid_and_not_called_a_failure() {
    let folder = Folder::new();
    let mut child = serve_short_of_disk(&folder, None, &["--protocol", "2pc", "--chaos"]);
    let mut complaints = BufReader::new(child.stderr.take().unwrap());
    let mut server = Folder::greeted(child);
    server.seed();
    // Everything is prepared and staged, and only stock's answer is missing.
    server.must("/stock/fault/set?point=after_prepare&action=delay&delay_ms=1500");
    let address = server.address.clone();
    let shopper = std::thread::spawn(move || {
        let mut stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let request = "POST /orders/checkout/0 HTTP/1.1\r\nHost: test\r\nIdempotency-Key: k\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
        stream.write_all(request.as_bytes()).unwrap();
        let mut status = String::new();
        // No answer at all is what a client gets of a process that ends.
        _ = BufReader::new(stream).read_line(&mut status);
        status
    });
    let until = Instant::now() + PATIENCE;
    while folder.transactions(&["--state", "in-flight"]).is_empty() {
        assert!(Instant::now() < until, "the checkout never was under way");
    }
    // The prepares went out with the stage; this waits until all that the three have applied is durable.
    let mut stream = TcpStream::connect(&server.address).unwrap();
    stream.write_all(b"GET /health/deep HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n").unwrap();
    let mut health = String::new();
    stream.read_to_string(&mut health).unwrap();
    assert!(health.starts_with("HTTP/1.1 200"), "{health}");
    let full = Rlimit { current: Some(0), maximum: Some(0) };
    prlimit(Some(Pid::from_child(&server.child)), Resource::Fsize, full).unwrap();
    let heard = shopper.join().unwrap();
    assert!(heard.is_empty() || heard.starts_with("HTTP/1.1 200"), "a paid order is called a failure: {heard}");
    let until = Instant::now() + PATIENCE;
    while server.child.try_wait().unwrap().is_none() {
        assert!(Instant::now() < until, "the process hangs");
        std::thread::sleep(Duration::from_millis(5));
    }
    let mut said = String::new();
    complaints.read_to_string(&mut said).unwrap();
    assert!(said.contains("the journal could not be written") && !said.contains("panicked"), "{said}");
    drop(server);

    let server = folder.serve(&["--protocol", "2pc"]);
    let audit = fine(&folder.tool(&["audit"]));
    assert!(audit.starts_with("Audit OK: 1 paid order for 10"), "{audit}");
    server.must("/orders/checkout/0");
    assert_eq!(fine(&folder.tool(&["audit"])), audit, "and it is not charged again");
    server.stop();
}

#[test]
fn transactions_are_listed_as_in_flight_while_one_works_on_them_and_as_in_doubt_when_nobody_does() {
    let folder = Folder::new();
    let server = folder.serve(&["--protocol", "2pc", "--chaos"]);
    server.seed();
    let (_stream, id) = in_flight(&folder, &server);
    assert!(folder.transactions(&["--state", "in-doubt"]).is_empty());
    // Killed before its deadline: nobody has decided anything.
    drop(server);
    assert!(folder.transactions(&["--state", "in-flight"]).is_empty());
    let doubted = folder.transactions(&["--state", "in-doubt"]);
    assert_eq!(doubted.iter().map(|one| &one["id"]).collect::<Vec<_>>(), [id.as_str()]);
    for other in ["stuck", "settling", "finished"] {
        assert!(folder.transactions(&["--state", other]).is_empty(), "{other}");
    }
    // Recovery decides it, and then it is neither.
    let server = folder.serve(&["--protocol", "2pc"]);
    assert_eq!(folder.the_one("finished"), id);
    assert!(folder.transactions(&["--state", "in-doubt"]).is_empty());
    server.stop();
}

/// Runs a tool on a terminal at which somebody types a line. Its code, and what it said.
fn at_a_terminal(folder: &Folder, arguments: &[&str], typed: &str) -> std::process::Output {
    use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
    let person = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
    grantpt(&person).unwrap();
    unlockpt(&person).unwrap();
    let name = ptsname(&person, Vec::new()).unwrap();
    let terminal = std::fs::OpenOptions::new().read(true).write(true).open(name.to_str().unwrap()).unwrap();
    let mut command = settle();
    command.args(arguments).arg("--data").arg(folder.data()).stdin(terminal);
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    std::fs::File::from(person.try_clone().unwrap()).write_all(typed.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    drop(person);
    output
}

#[test]
fn who_resolves_at_a_terminal_is_asked_for_the_reason() {
    let (folder, server, id) = stuck();
    let resolve = ["tx", "resolve", &id, "--step", "1", "--operator", "ann"];
    let silent = at_a_terminal(&folder, &resolve, "  \n");
    unusable(&silent, &["What did you do about step 1", "without a reason"]);
    assert_eq!(folder.the_one("stuck"), id);
    let told = at_a_terminal(&folder, &resolve, "paid out by hand, ticket 4712\n");
    assert!(fine(&told).contains("By ann: paid out by hand, ticket 4712"), "{}", stdout(&told));
    assert!(stderr(&told).contains(&format!("What did you do about step 1 of {id}, and why is it right?")));
    assert_eq!(folder.the_one("finished"), id);
    drop(server);
}

#[test]
fn a_place_that_cannot_be_listened_at_is_told_with_what_to_do() {
    let folder = Folder::new();
    let serve =
        |place: &str| settle().args(["serve", "--listen", place, "--data"]).arg(folder.data()).output().unwrap();
    for place in ["localhost:8000", "8000"] {
        unusable(&serve(place), &[place, "an IP address and a port, such as 127.0.0.1:8000"]);
    }
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let holder = std::net::TcpListener::bind(taken).unwrap();
    let who = format!("`ss -ltnp sport = :{}` says who has it", taken.port());
    let words = [&format!("cannot listen on {taken}: Address already in use"), &*who, "--listen"];
    unusable(&serve(&taken.to_string()), &words);
    drop(holder);
    assert!(!folder.data().exists());
}

#[test]
fn the_folder_of_a_settle_up_is_pointed_to_with_another_flag() {
    let folder = Folder::new();
    std::fs::create_dir(folder.data()).unwrap();
    std::fs::write(folder.data().join("up.json"), "{}").unwrap();
    let another = format!("--up {}", folder.data().display());
    for tool in [&["audit"][..], &["tx", "list"], &["tx", "retry", "0190b6e2-7c1f-7c3a-8f00-000000000000"]] {
        unusable(&folder.tool(tool), &["is the data folder of a `settle up`", &another]);
    }
}

#[test]
fn a_data_folder_whose_path_is_too_long_for_the_operators_is_refused_before_anything_is_made() {
    let folder = Folder::new();
    let data = folder.folder.path().join("d".repeat(120));
    let output = settle().args(["serve", "--listen", "127.0.0.1:0", "--data"]).arg(&data).output().unwrap();
    unusable(&output, &["choose a shorter one"]);
    assert!(!data.exists());
}

#[test]
fn a_variable_that_is_misspelt_is_refused_before_anything_is_made_and_one_for_another_command_is_not() {
    let folder = Folder::new();
    let start = |data: &Path, variables: &[(&str, &str)]| {
        let variables = variables.iter().copied();
        settle().args(["serve", "--listen", "127.0.0.1:0", "--data"]).arg(data).envs(variables).output().unwrap()
    };
    let misspelt = [("SETTLE_PRODUCTOIN", "1"), ("SETTLE_LOG", "warn")];
    unusable(&start(&folder.data(), &misspelt), &["SETTLE_PRODUCTOIN", "did you mean SETTLE_PRODUCTION?"]);
    assert!(!folder.data().exists());
    // What is said of the path is said later.
    let too_long = folder.folder.path().join("d".repeat(120));
    let others = [("SETTLE_LOG", "warn"), ("SETTLE_STOCK__PASSWORD", "hush"), ("SETTLE_SERVICE_HOST", "10.0.0.1")];
    unusable(&start(&too_long, &others), &["choose a shorter one"]);
}
