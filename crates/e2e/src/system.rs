//! The services as processes of their own, on servers of their own, behind a gateway.

use std::io::{self, BufRead, BufReader};
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, ExitStatus, Output};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use servers::redis::Persistence;
use servers::{nats, redis};
use tempfile::TempDir;

use crate::client::{Client, PATIENCE};
use crate::gateway::Gateway;
use crate::http::{self, Response};
use crate::server::{collect, free_port, settle};
use crate::world::Shop;

/// The services: the command that serves it, the first segment of its paths, which is also its section in the configuration.
const SERVICES: [(&str, &str); 3] = [("order", "orders"), ("stock", "stock"), ("payment", "payment")];

/// One instance of a service. Dropped, it is killed; it must not have panicked.
#[derive(Debug)]
pub struct Instance {
    name: String,
    service: usize,
    arguments: Vec<String>,
    child: Child,
    address: SocketAddr,
    said: Arc<Mutex<String>>,
    greeted: Arc<AtomicBool>,
}

impl Instance {
    fn spawn(service: usize, name: &str, arguments: &[String], folder: &Path) -> Self {
        let door = format!("admin.listen={}", socket(folder, name).display());
        let mut all = ["--instance", name, "--set", &door].map(str::to_owned).to_vec();
        all.extend_from_slice(arguments);
        Self::spawn_at(SocketAddr::from((Ipv4Addr::LOCALHOST, free_port())), service, name, all)
    }

    fn spawn_at(address: SocketAddr, service: usize, name: &str, arguments: Vec<String>) -> Self {
        let (command, section) = SERVICES[service];
        let listen = address.to_string();
        let all: Vec<&str> = ["--listen", &listen].into_iter().chain(arguments.iter().map(String::as_str)).collect();
        let mut child = settle(command, &all).env("SETTLE_LOG", "warn,settle=info").spawn().unwrap();
        let said = Arc::new(Mutex::new(String::new()));
        collect(child.stderr.take().unwrap(), &said);
        let output = BufReader::new(child.stdout.take().unwrap());
        let greeted = Arc::<AtomicBool>::default();
        let greet = Arc::clone(&greeted);
        let words = format!("Settle serves {section} at http://{address}");
        std::thread::spawn(move || {
            for line in output.lines().map_while(Result::ok) {
                if line.contains(&words) {
                    greet.store(true, Ordering::Relaxed);
                }
            }
        });
        Self { name: name.to_owned(), service, arguments, child, address, said, greeted }
    }

    /// Starts it again, once it has ended, as what it was, where it was; and waits until it serves.
    #[must_use]
    pub fn restart(self) -> Self {
        let again = Self::spawn_at(self.address, self.service, &self.name, self.arguments.clone());
        again.wait_until_it_serves();
        again
    }

    /// Waits until it serves.
    ///
    /// # Panics
    /// If it does not.
    pub fn wait_until_it_serves(&self) {
        let until = Instant::now() + PATIENCE;
        while !self.serves() {
            assert!(Instant::now() < until, "{} does not serve: {}", self.name, self.said());
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Waits until it says that a checkout could be served: that it has found those that it belongs to, too.
    ///
    /// # Panics
    /// If it does not.
    pub fn wait_until_it_is_ready(&self) {
        let until = Instant::now() + PATIENCE;
        loop {
            let health = self.client().try_send("GET", "/health/deep", &[], "").unwrap();
            if health.status == 200 {
                return;
            }
            assert!(Instant::now() < until, "{} is not ready: {health:?}, {}", self.name, self.said());
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Whether it serves already.
    pub fn serves(&self) -> bool {
        self.greeted.load(Ordering::Relaxed)
    }

    /// A client of this instance alone.
    pub fn client(&self) -> Client {
        Client::new(self.address)
    }

    /// Where it serves.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What it said about itself so far.
    pub fn said(&self) -> String {
        self.said.lock().unwrap().clone()
    }

    /// Ends the process at once, as a crash would.
    pub fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Has the process stand still.
    pub fn freeze(&self) {
        kill_process(Pid::from_child(&self.child), Signal::STOP).unwrap();
    }

    /// Lets it go on.
    pub fn thaw(&self) {
        kill_process(Pid::from_child(&self.child), Signal::CONT).unwrap();
    }

    /// Tells the process to end, as a service manager would.
    pub fn tell_to_end(&self) {
        kill_process(Pid::from_child(&self.child), Signal::TERM).unwrap();
    }

    /// Waits until the process has ended.
    ///
    /// # Panics
    /// If it does not.
    pub fn wait(&mut self) -> ExitStatus {
        let until = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            assert!(Instant::now() < until, "{} does not end: {}", self.name, self.said());
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Drop for Instance {
    fn drop(&mut self) {
        _ = self.child.kill();
        _ = self.child.wait();
        let said = self.said();
        if std::thread::panicking() {
            eprintln!("{} said: {said}", self.name);
        } else {
            assert!(!said.contains("panicked at"), "{} panicked: {said}", self.name);
        }
    }
}

/// The whole system.
#[derive(Debug)]
pub struct System {
    /// Order instances, stock instances, payment instances. Killed before their servers are.
    pub services: [Vec<Instance>; 3],
    /// The three databases, in the same order.
    pub databases: Vec<redis::Server>,
    /// The broker.
    pub broker: nats::Server,
    gateway: Gateway,
    arguments: Vec<String>,
    folder: TempDir,
}

/// The operators' socket of an order instance.
fn socket(folder: &Path, name: &str) -> PathBuf {
    folder.join(format!("{name}.sock"))
}

impl System {
    /// Starts so many instances of each service, on Redis that flushes before it answers, with these arguments for all of them.
    pub fn start(instances: usize, arguments: &[&str]) -> Self {
        let databases: Vec<_> = (0..3).map(|_| redis::Server::start(Persistence::Always).unwrap()).collect();
        let broker = nats::Server::start().unwrap();
        let folder = tempfile::tempdir().unwrap();
        let mut configuration = String::new();
        let mut all: Vec<String> = arguments.iter().map(ToString::to_string).collect();
        let mut set = |key: &str, value: &str| all.extend(["--set".to_owned(), format!("{key}={value}")]);
        set("nats.url", &broker.address());
        for ((_, section), database) in SERVICES.iter().zip(&databases) {
            set(&format!("{section}.redis"), &database.address());
            set(&format!("{section}.durability"), "fsync");
            let redis = database.address();
            configuration.push_str(&format!("[{section}]\nredis = \"{redis}\"\ndurability = \"fsync\"\n"));
        }
        std::fs::write(folder.path().join("settle.toml"), configuration).unwrap();
        let gateway = Gateway::open();
        let mut system = Self { services: Default::default(), databases, broker, gateway, arguments: all, folder };
        for (service, (command, _)) in SERVICES.iter().enumerate() {
            for number in 1..=instances {
                let name = format!("{command}-{number}");
                system.services[service].push(Instance::spawn(service, &name, &system.arguments, system.folder.path()));
            }
        }
        system.services.iter().flatten().for_each(Instance::wait_until_it_serves);
        system.services.iter().flatten().for_each(Instance::wait_until_it_is_ready);
        system.route();
        system
    }

    /// Starts another instance of a service (0 orders, 1 stock, 2 payment), and has the gateway know it.
    pub fn add(&mut self, service: usize, name: &str) {
        let instance = Instance::spawn(service, name, &self.arguments, self.folder.path());
        instance.wait_until_it_serves();
        self.services[service].push(instance);
        self.route();
    }

    /// Starts the first instance of a service again, once it has ended, and waits until it serves. It is the last one then.
    pub fn restart(&mut self, service: usize) {
        let again = self.services[service].remove(0).restart();
        self.services[service].push(again);
    }

    /// Has the gateway go by the instances that there are.
    pub fn route(&self) {
        for (service, (_, segment)) in SERVICES.iter().enumerate() {
            let addresses = self.services[service].iter().map(|instance| instance.address).collect();
            self.gateway.route(segment, addresses);
        }
    }

    /// Starts an instance without waiting for it.
    pub fn spawn(&self, service: usize, name: &str) -> Instance {
        Instance::spawn(service, name, &self.arguments, self.folder.path())
    }

    /// Starts an instance with further arguments, without waiting for it. The gateway does not know it.
    pub fn spawn_aside(&self, service: usize, name: &str, further: &[&str]) -> Instance {
        let further = further.iter().map(ToString::to_string);
        let arguments: Vec<String> = self.arguments.iter().cloned().chain(further).collect();
        Instance::spawn(service, name, &arguments, self.folder.path())
    }

    /// The same, and waits until it serves.
    pub fn spawn_with(&self, service: usize, name: &str, further: &[&str]) -> Instance {
        let instance = self.spawn_aside(service, name, further);
        instance.wait_until_it_serves();
        instance
    }

    /// Where the gateway listens.
    pub fn address(&self) -> SocketAddr {
        self.gateway.address()
    }

    /// Drives the system with `settle load`, which audits it afterwards.
    pub fn load(&self, arguments: &[&str]) -> Output {
        let url = format!("http://{}", self.address());
        settle("load", &[&["--url", &url], arguments].concat()).output().unwrap()
    }

    /// An operator's tool, at the door of this order instance.
    pub fn operate(&self, name: &str, arguments: &[&str]) -> Output {
        let door = socket(self.folder.path(), name).display().to_string();
        settle(arguments[0], &[&arguments[1..], &["--socket", &door]].concat()).output().unwrap()
    }

    /// Asks at the operators' socket of this order instance.
    ///
    /// # Errors
    /// Those of the socket: the instance is gone, perhaps.
    pub fn ask_operator(&self, name: &str, method: &str, target: &str) -> io::Result<Response> {
        let mut stream = UnixStream::connect(socket(self.folder.path(), name))?;
        stream.set_read_timeout(Some(PATIENCE))?;
        http::exchange(&mut stream, &http::request(method, target, &[], ""))
    }

    /// `settle audit` of the databases.
    pub fn audit_databases(&self) -> Output {
        let file = self.folder.path().join("settle.toml").display().to_string();
        settle("audit", &["--config", &file]).output().unwrap()
    }

    /// Waits until a fault is set at every instance of a service (1 stock, 2 payment), or is cleared: they tell each other.
    ///
    /// # Panics
    /// If they don't.
    pub fn wait_for_fault(&self, service: usize, point: &str, is_set: bool) {
        let until = Instant::now() + PATIENCE;
        let rules = format!("/{}/fault/rules", SERVICES[service].1);
        for instance in &self.services[service] {
            while instance.client().get(&rules).json()["rules"][point].is_null() == is_set {
                assert!(Instant::now() < until, "{}: {point} is not as it was set", instance.name());
            }
        }
    }

    /// How many branches the participants hold prepared, as the first instance of each says.
    ///
    /// # Panics
    /// If one does not say.
    pub fn prepared(&self) -> u64 {
        let until = Instant::now() + PATIENCE;
        let held = |service: usize| loop {
            let health = self.services[service][0].client().try_send("GET", "/health/deep", &[], "").unwrap().json();
            // A busy database may not say in time.
            match health["prepared"].as_u64() {
                Some(held) => return held,
                None => assert!(Instant::now() < until, "{health}"),
            }
        };
        held(1) + held(2)
    }

    /// The order instances.
    pub fn orders(&mut self) -> &mut Vec<Instance> {
        &mut self.services[0]
    }
}

impl Shop for System {
    fn client(&self) -> Client {
        Client::new(self.address())
    }

    fn wait_until_settled(&self) {
        self.services[0].iter().for_each(|instance| instance.client().wait_until_settled());
        // What a killed instance prepared and did not stage is nobody's until stock and payment ask.
        let until = Instant::now() + PATIENCE;
        for instance in self.services[1..].iter().filter_map(|instances| instances.first()) {
            loop {
                let answer = instance.client().try_send("GET", "/health/deep", &[], "").unwrap();
                if answer.json()["prepared"] == 0 {
                    break;
                }
                assert!(Instant::now() < until, "it does not settle: {answer:?}");
                std::thread::sleep(Duration::from_millis(50));
            }
        }
    }

    fn audit(&self) {
        self.wait_until_settled();
        let audit = self.audit_databases();
        let said = [audit.stdout, audit.stderr].concat();
        assert!(audit.status.success(), "{}: {}", audit.status, String::from_utf8_lossy(&said));
    }
}
