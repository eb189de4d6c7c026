//! `settle serve` as a child process on a free port of 127.0.0.1.

use std::io::{BufRead, BufReader, Read};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, OnceLock};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tempfile::TempDir;

use crate::client::{Client, PATIENCE};
use crate::http;
use crate::world::Shop;

/// The binary under test: `SETTLE_BIN` if that is set; otherwise built once, in the profile that the tests were built in.
///
/// # Panics
/// If it can't be built.
pub fn binary() -> &'static Path {
    static BINARY: OnceLock<PathBuf> = OnceLock::new();
    BINARY.get_or_init(|| std::env::var_os("SETTLE_BIN").map_or_else(build, PathBuf::from))
}

fn build() -> PathBuf {
    // This test lies in target/<profile>/deps; the profile `dev` has its folder named `debug`.
    let test = std::env::current_exe().unwrap();
    let folder = test.ancestors().nth(2).and_then(Path::file_name).and_then(|name| name.to_str()).unwrap();
    let profile = if folder == "debug" { "dev" } else { folder };
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let built = Command::new(cargo)
        .args(["build", "--quiet", "--package", "settle", "--bin", "settle", "--profile", profile])
        .arg("--message-format=json-render-diagnostics")
        .stderr(Stdio::inherit())
        .output()
        .unwrap();
    assert!(built.status.success(), "cargo could not build the binary under test");
    let messages = String::from_utf8(built.stdout).unwrap();
    let executable = |line: &str| {
        let message: Value = serde_json::from_str(line).ok()?;
        Some(PathBuf::from(message.get("executable")?.as_str()?))
    };
    messages.lines().filter_map(executable).next_back().expect("cargo names the binary that it built")
}

/// A port that nobody has. Below those that the system gives to outgoing connections, so that none of these takes it while the server
/// is down.
pub(crate) fn free_port() -> u16 {
    static NEXT: Mutex<Option<u16>> = Mutex::new(None);
    let mut next = NEXT.lock().unwrap();
    // Tests of other processes begin their search elsewhere.
    let mut port = next.unwrap_or(12_000 + (std::process::id() % 1_000) as u16 * 16);
    loop {
        port = if port >= 30_000 { 12_000 } else { port + 1 };
        if TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
            *next = Some(port);
            return port;
        }
    }
}

/// A server under test. Dropped, it is killed; it must not have panicked.
#[derive(Debug)]
pub struct Server {
    child: Child,
    address: SocketAddr,
    data: PathBuf,
    arguments: Vec<String>,
    /// Kept as long as the server is, unless the folder is someone else's.
    folder: Option<TempDir>,
    said: Arc<Mutex<String>>,
    listeners: Vec<JoinHandle<()>>,
    started_in: Duration,
}

/// `settle serve` with these arguments, and with nothing of the environment that would change it.
pub fn serve(arguments: &[&str]) -> Command {
    settle("serve", arguments)
}

/// A command of `settle` with these arguments, and with nothing of the environment that would change it.
pub fn settle(what: &str, arguments: &[&str]) -> Command {
    let mut command = Command::new(binary());
    for (name, _) in std::env::vars_os() {
        if ["SETTLE_", "OTEL_"].iter().any(|prefix| name.to_string_lossy().starts_with(prefix)) {
            command.env_remove(name);
        }
    }
    command.env("SETTLE_LOG", "error").arg(what).args(arguments);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

pub(crate) fn collect(from: impl Read + Send + 'static, into: &Arc<Mutex<String>>) -> JoinHandle<()> {
    let into = Arc::clone(into);
    std::thread::spawn(move || {
        for line in BufReader::new(from).lines().map_while(Result::ok) {
            let mut said = into.lock().unwrap();
            said.push_str(&line);
            said.push('\n');
        }
    })
}

impl Server {
    /// Starts a server on a fresh folder.
    pub fn start(arguments: &[&str]) -> Self {
        Self::start_with(arguments, |_| {})
    }

    /// The same, with a word about the command before it runs.
    pub fn start_with(arguments: &[&str], prepare: impl FnOnce(&mut Command)) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()));
        let data = folder.path().join("data");
        let mut server = Self::launch(&data, address, arguments.iter().map(ToString::to_string).collect(), prepare);
        server.folder = Some(folder);
        server
    }

    fn launch(data: &Path, address: SocketAddr, arguments: Vec<String>, prepare: impl FnOnce(&mut Command)) -> Self {
        let (listen, folder) = (address.to_string(), data.to_str().unwrap());
        let mut all = vec!["--listen", &listen, "--data", folder];
        all.extend(arguments.iter().map(String::as_str));
        let mut command = serve(&all);
        prepare(&mut command);
        let began = Instant::now();
        let mut child = command.spawn().unwrap();
        let said = Arc::new(Mutex::new(String::new()));
        let errors = collect(child.stderr.take().unwrap(), &said);
        let mut output = BufReader::new(child.stdout.take().unwrap());
        let mut heard = String::new();
        while !heard.contains(&format!("Settle serves the shop at http://{address}")) {
            if output.read_line(&mut heard).unwrap() == 0 {
                let status = child.wait().unwrap();
                errors.join().unwrap();
                panic!("the server did not start ({status}): {heard}{}", said.lock().unwrap());
            }
        }
        let started_in = began.elapsed();
        let listeners = vec![errors, collect(output, &said)];
        Self { child, address, data: data.to_owned(), arguments, folder: None, said, listeners, started_in }
    }

    /// Where it serves.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Its process id.
    pub fn process(&self) -> u32 {
        self.child.id()
    }

    /// A client of its own connection.
    pub fn client(&self) -> Client {
        Client::new(self.address)
    }

    /// How long it took from the start of the process until it served.
    pub fn started_in(&self) -> Duration {
        self.started_in
    }

    /// Ends the process at once, as a crash would.
    pub fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Waits until the process has ended by itself.
    ///
    /// # Panics
    /// If it does not.
    pub fn wait(&mut self) -> ExitStatus {
        let until = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            assert!(Instant::now() < until, "the server does not end");
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    /// Tells the process to end, as a service manager would.
    pub fn tell_to_end(&self) {
        kill_process(Pid::from_child(&self.child), Signal::TERM).unwrap();
    }

    /// Stops it where it stands, until it is thawed.
    pub fn freeze(&self) {
        kill_process(Pid::from_child(&self.child), Signal::STOP).unwrap();
    }

    /// Lets it go on.
    pub fn thaw(&self) {
        kill_process(Pid::from_child(&self.child), Signal::CONT).unwrap();
    }

    /// Starts it again, with the same folder, port and arguments. It must have ended.
    #[must_use]
    pub fn restart(mut self) -> Self {
        assert!(self.child.try_wait().unwrap().is_some(), "a server that runs can't be started");
        self.check_for_panics();
        let mut next = Self::launch(&self.data, self.address, std::mem::take(&mut self.arguments), |_| {});
        next.folder = self.folder.take();
        next
    }

    /// Starts it again and kills it after a while, wherever it then is in its recovery.
    #[must_use]
    pub fn restart_and_kill(mut self, after: Duration) -> Self {
        self.check_for_panics();
        let listen = self.address.to_string();
        let mut arguments = vec!["--listen", &listen, "--data", self.data.to_str().unwrap()];
        arguments.extend(self.arguments.iter().map(String::as_str));
        self.child = serve(&arguments).spawn().unwrap();
        self.listeners = vec![
            collect(self.child.stderr.take().unwrap(), &self.said),
            collect(self.child.stdout.take().unwrap(), &self.said),
        ];
        std::thread::sleep(after);
        self.kill();
        self
    }

    /// What the process said about itself so far.
    pub fn said(&self) -> String {
        self.said.lock().unwrap().clone()
    }

    /// Asks at the operators' socket.
    pub fn ask_operator(&self, method: &str, target: &str) -> http::Response {
        let mut stream = UnixStream::connect(self.data.join("admin.sock")).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        http::exchange(&mut stream, &http::request(method, target, &[], "")).unwrap()
    }

    /// Waits until everything is settled and audits the shop by its own books.
    ///
    /// # Panics
    /// If anything is off.
    pub fn audit(&self) {
        let until = Instant::now() + PATIENCE;
        loop {
            let report = self.ask_operator("GET", "/audit/live").json();
            assert_eq!(report["off"], 0, "{report}");
            // Orders are compared with the ledgers once the log has heard that every transaction is finished.
            if report["compared"] == true {
                return;
            }
            assert!(Instant::now() < until, "it does not settle: {report}");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    fn check_for_panics(&mut self) {
        for listener in self.listeners.drain(..) {
            listener.join().unwrap();
        }
        let said = self.said();
        assert!(!said.contains("panicked at"), "the server panicked: {said}");
    }
}

impl Shop for Server {
    fn client(&self) -> Client {
        Self::client(self)
    }

    fn wait_until_settled(&self) {
        Self::client(self).wait_until_settled();
    }

    fn audit(&self) {
        Self::audit(self);
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        _ = self.child.kill();
        _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("the server on {} said: {}", self.address, self.said());
        } else {
            self.check_for_panics();
        }
    }
}
