//! `settle up`: the whole distributed system on this machine, from installed servers.
//!
//! ```text
//!   options ─► plan (names, ports, files, commands) ─► Member × n ─► table, lines or logs
//!                                                        │  ▲
//!                           start, in stages, each ready ─┘  └─ SIGCHLD: it ended → told, and started again with --restart
//!   up.json: what runs, for `settle chaos`       hold-NAME: do not start NAME again while this file is there
//! ```
//!
//! | file         | what it is                                                       |
//! |--------------|------------------------------------------------------------------|
//! | `options.rs` | what it can be told                                              |
//! | `plan.rs`    | components: ports, configuration files, commands                 |
//! | `child.rs`   | a child that ends when this process ends, even by `kill -9`      |
//! | `member.rs`  | one component while the system runs                              |
//! | `proxy.rs`   | a proxy before databases and broker, to part them from the others |
//! | `roles.rs`   | who is master                                                    |
//! | `show.rs`    | the table, plain lines, logs                                     |
//! | `page.rs`    | the page in the browser, on a listener of its own                |
//! | `pass.rs`    | what the page asks of the gateway and of order instances         |
//! | `state.rs`   | `up.json` and the lock of the folder                             |
//!
//! One thread starts and watches everything and sleeps while nothing happens. The children belong to it: the system kills them when it ends.

pub(crate) mod child;
pub(crate) mod held;
pub(crate) mod member;
mod options;
mod page;
mod pass;
pub(crate) mod plan;
mod proxy;
pub(crate) mod roles;
mod show;
pub(crate) mod state;

use std::collections::{BTreeMap, BTreeSet};
use std::net::TcpListener;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::dashboard;
use crate::exit::Stopped;
use member::{Life, Member, foreign, located};
pub(crate) use options::UpArgs;
use options::UpOptions;
use page::{Page, PageOptions};
use plan::{Kind, REPLICAS};
use show::Show;
use state::{Folder, State};

/// How long one component may take to be ready at the start.
const START_PATIENCE: Duration = Duration::from_secs(60);
/// How long the services may take to finish what is in flight, and the others to end.
const STOP_PATIENCE: Duration = Duration::from_secs(45);
/// How often one that is starting, ending or to be started again is looked at.
const BUSY: Duration = Duration::from_millis(50);
/// How often the table is drawn and logs are read.
const LOOK: Duration = Duration::from_secs(1);
/// The port at which HAProxy shows how it is.
const STATISTICS: &str = "gateway-statistics";
/// The port at which the page is served.
pub(crate) const DASHBOARD: &str = "dashboard";

/// Starts the system and keeps it until it is told to stop.
pub(crate) fn up(args: UpArgs) -> anyhow::Result<ExitCode> {
    let options = args.options()?;
    // One thread: whoever starts a child must live as long as this process.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("cannot start")?;
    runtime.block_on(async {
        let mut system = System::plan(options)?;
        let result = system.run().await;
        // What ends because it was told to has not failed.
        system.page.watch_no_more();
        system.stop().await;
        if result.is_ok() {
            dashboard::note_stop(&system.folder.path);
        }
        result
    })
}

struct System {
    options: UpOptions,
    folder: Folder,
    ports: BTreeMap<String, u16>,
    members: Vec<Member>,
    show: Show,
    page: Page,
    terminate: Signal,
    interrupt: Signal,
    child: Signal,
}

/// What woke the watch.
#[derive(Debug, PartialEq, Eq)]
enum Woken {
    Stop,
    Child,
    Time,
}

impl System {
    fn plan(options: UpOptions) -> anyhow::Result<Self> {
        let folder = Folder::lock(&options.data)?;
        let before = State::read(&folder.path)?;
        if let Some(before) = &before
            && before.ports.contains_key("sentinel-1") == options.small
        {
            bail!(
                "{} holds a system {} replicas: start it {} --small, or choose another folder with --data",
                folder.path.display(),
                if options.small { "with" } else { "without" },
                if options.small { "without" } else { "with" },
            );
        }
        if let Some(before) = &before
            && before.proxied != options.proxied
        {
            bail!(
                "{} holds a system {} proxies: start it {} --proxied, or choose another folder with --data",
                folder.path.display(),
                if before.proxied { "with" } else { "without" },
                if before.proxied { "with" } else { "without" },
            );
        }
        let ports = ports(&options, before.map(|before| before.ports).unwrap_or_default())?;
        let components = plan::plan(&options, &folder.path, &ports);
        let needed: BTreeSet<&str> = components.iter().filter_map(foreign).collect();
        let missing: Vec<&str> = needed.into_iter().filter(|program| located(program).is_none()).collect();
        if !missing.is_empty() {
            bail!("not installed: {}. On Debian or Ubuntu: apt install {}", missing.join(", "), missing.join(" "));
        }
        let members: Vec<Member> = components.into_iter().map(|it| Member::new(it, &folder.path)).collect();
        if options.proxied {
            let proxied = members.iter().filter(|it| plan::has_proxy(it.component.kind)).map(|it| proxy::Proxied {
                name: it.component.name.clone(),
                front: it.component.port,
                behind: ports.get(&plan::behind(&it.component.name)).copied().unwrap_or_default(),
            });
            proxy::start(proxied.collect(), &folder.path)?;
        }
        let show = Show::new(&options.logs, &members)?;
        let page = Page::serve(PageOptions {
            port: ports.get(DASHBOARD).copied().unwrap_or_default(),
            gateway: (!options.infrastructure_only).then_some(options.port),
            data: folder.path.clone(),
            chaos: options.chaos,
        })?;
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            child: signal(SignalKind::child())?,
            options,
            folder,
            ports,
            members,
            show,
            page,
        })
    }

    async fn run(&mut self) -> anyhow::Result<ExitCode> {
        // The ports first: a server keeps those that it is told of, even if another does not come up.
        self.write_state()?;
        let stages: [&[Kind]; 6] = [
            &[Kind::Nats, Kind::Redis],
            &[Kind::Sentinel],
            &[Kind::Stock, Kind::Payment],
            &[Kind::Order],
            &[Kind::Gateway],
            &[Kind::Prometheus],
        ];
        for stage in stages {
            if self.start(stage).await? == Woken::Stop {
                return Ok(ExitCode::SUCCESS);
            }
        }
        self.greet();
        self.watch().await
    }

    /// Starts the components of these kinds and waits until they are ready.
    async fn start(&mut self, kinds: &[Kind]) -> anyhow::Result<Woken> {
        for member in self.members.iter_mut().filter(|member| kinds.contains(&member.component.kind)) {
            member.start(&self.folder.path)?;
        }
        let since = Instant::now();
        loop {
            let mut waiting = vec![];
            for member in self.members.iter_mut().filter(|member| kinds.contains(&member.component.kind)) {
                if let Some(how) = member.look()? {
                    let (name, log) = (&member.component.name, member.log().display());
                    bail!(Stopped(format!(
                        "{name} {how} before it was ready; it said last:\n{}\nAll of it: {log}",
                        member.said_last(15)
                    )));
                }
                if member.become_ready() {
                    let (name, port) = (&member.component.name, member.component.port);
                    let pid = member.pid().unwrap_or_default();
                    self.show.tell(&format!("{name} is ready: process {pid}, port {port}"));
                }
                if let Some(why) = member.takes_long() {
                    self.show.tell(&why);
                }
                if matches!(member.life, Life::Starting(_)) {
                    waiting.push(member.component.name.clone());
                }
            }
            // Sentinels that do not know every replica yet would promote none.
            if waiting.is_empty() && kinds == [Kind::Sentinel] && !self.sentinels_know_all() {
                waiting.push("the Sentinels, which look for the replicas".to_owned());
            }
            self.publish();
            if waiting.is_empty() {
                self.write_state()?;
                return Ok(Woken::Time);
            }
            if since.elapsed() > START_PATIENCE {
                let logs = self.folder.path.display();
                bail!(Stopped(format!(
                    "not ready within {START_PATIENCE:?}: {}. Their logs: {logs}/NAME/output.log",
                    waiting.join(", ")
                )));
            }
            self.show.draw(&self.members);
            if self.pause(BUSY).await == Woken::Stop {
                return Ok(Woken::Stop);
            }
        }
    }

    fn sentinels_know_all(&self) -> bool {
        let mut sentinels = self.members.iter().filter(|member| member.component.kind == Kind::Sentinel);
        sentinels.all(|sentinel| {
            crate::config::Service::ALL.into_iter().all(|service| {
                let question = format!("SENTINEL REPLICAS {}", service.section());
                let told = servers::redis::ask(sentinel.component.port, &question).unwrap_or_default();
                told.matches("slave-priority").count() == REPLICAS as usize
            })
        })
    }

    fn greet(&mut self) {
        let data = self.folder.path.display().to_string();
        let what = if self.options.infrastructure_only {
            format!("The infrastructure runs, with its data in {data}. Ctrl-C stops it.")
        } else {
            format!(
                "Settle serves the shop at http://127.0.0.1:{}, with its data in {data}. Ctrl-C stops it.",
                self.options.port
            )
        };
        self.show.tell(&what);
        if let Some(port) = self.ports.get(DASHBOARD) {
            self.show.tell(&format!("What it does: http://127.0.0.1:{port}/ in a browser, or settle top --up {data}"));
        }
        if !self.options.infrastructure_only {
            self.show.tell(&format!("Operators: settle tx list --up {data}, settle audit --up {data}"));
        }
        if let Some(port) = self.ports.get("prometheus").filter(|_| self.options.observability) {
            self.show.tell(&format!("Prometheus: http://127.0.0.1:{port}, its alerts at /alerts"));
        }
        if self.options.durability != options::Level::Replicated && !self.options.small {
            self.show.tell("A failover may lose checkouts that were acknowledged: --durability is below `replicated`.");
        }
    }

    async fn watch(&mut self) -> anyhow::Result<ExitCode> {
        loop {
            self.show.draw(&self.members);
            let changing = |member: &Member| match member.life {
                Life::Starting(_) => true,
                Life::Ended(_) => self.options.restart,
                Life::Planned | Life::Running(_) => false,
            };
            let pause = match self.members.iter().any(changing) {
                true => BUSY,
                false if self.show.wants_looking() => LOOK,
                // Nothing happens until somebody ends.
                false => Duration::from_secs(3_600),
            };
            if self.pause(pause).await == Woken::Stop {
                return Ok(ExitCode::SUCCESS);
            }
            let mut changed = false;
            let sentinels: Vec<u16> = self
                .members
                .iter()
                .filter(|it| it.component.kind == Kind::Sentinel)
                .map(|it| it.component.port)
                .collect();
            for member in &mut self.members {
                let name = member.component.name.clone();
                if let Some(how) = member.look()? {
                    let held = held::told(member.held(&self.folder.path).as_deref());
                    self.show.tell(&format!("{name} {how}{held}; its log: {}", member.log().display()));
                    changed = true;
                }
                if self.options.restart && member.start_again(&self.folder.path, &sentinels)? {
                    self.show.tell(&format!("{name} is started again"));
                    changed = true;
                }
                if member.become_ready() {
                    self.show.tell(&format!("{name} is ready: process {}", member.pid().unwrap_or_default()));
                    changed = true;
                }
                if let Some(why) = member.takes_long() {
                    self.show.tell(&why);
                }
            }
            // Whoever is frozen, or goes on again, wakes this too.
            self.publish();
            if changed {
                self.write_state()?;
            }
        }
    }

    /// Waits for so long, or until there is a signal.
    async fn pause(&mut self, time: Duration) -> Woken {
        tokio::select! {
            _ = self.terminate.recv() => Woken::Stop,
            _ = self.interrupt.recv() => Woken::Stop,
            _ = self.child.recv() => Woken::Child,
            () = tokio::time::sleep(time) => Woken::Time,
        }
    }

    /// Ends everything, services first so that they finish what is in flight; a second signal ends it at once.
    async fn stop(&mut self) {
        let stages: [&[Kind]; 4] = [
            &[Kind::Order, Kind::Stock, Kind::Payment],
            &[Kind::Gateway, Kind::Prometheus],
            &[Kind::Sentinel],
            &[Kind::Redis, Kind::Nats],
        ];
        for stage in stages {
            let since = Instant::now();
            for member in self.members.iter_mut().filter(|member| stage.contains(&member.component.kind)) {
                if let Some(process) = member.process() {
                    // A frozen one hears nothing; one that has ended needs to hear nothing.
                    _ = process.terminate();
                    _ = process.thaw();
                }
            }
            loop {
                let mut left = vec![];
                for member in self.members.iter_mut().filter(|member| stage.contains(&member.component.kind)) {
                    if member.look().is_ok() && member.pid().is_some() {
                        left.push(member.component.name.clone());
                    }
                }
                if left.is_empty() {
                    break;
                }
                if since.elapsed() > STOP_PATIENCE || self.pause(BUSY).await == Woken::Stop {
                    self.show.tell(&format!("not waited for: {}", left.join(", ")));
                    // Dropping a process kills it.
                    self.members.clear();
                    return;
                }
            }
        }
        self.show.tell("everything has stopped");
        _ = self.write_state();
    }

    fn publish(&self) {
        self.page.publish(self.members.iter().map(|member| member.told(&self.folder.path)).collect());
    }

    fn write_state(&self) -> anyhow::Result<()> {
        let state = State {
            pid: std::process::id(),
            gateway: format!("http://127.0.0.1:{}", self.options.port),
            restart: self.options.restart,
            proxied: self.options.proxied,
            ports: self.ports.clone(),
            components: self.members.iter().map(Member::entry).collect(),
        };
        state.write(&self.folder.path)
    }
}

/// The port of every component: those of before, which replicas and Sentinels know each other by, and new ones for the rest.
fn ports(options: &UpOptions, before: BTreeMap<String, u16>) -> anyhow::Result<BTreeMap<String, u16>> {
    let mut ports = before;
    ports.insert("gateway".to_owned(), options.port);
    let names = plan::names(options).into_iter().flat_map(|(name, kind)| {
        let behind = (options.proxied && plan::has_proxy(kind)).then(|| plan::behind(&name));
        [Some(name), behind]
    });
    let names = names.flatten().chain([STATISTICS, DASHBOARD].map(str::to_owned));
    // Each is held until all are chosen, so that none is chosen twice.
    let mut held = vec![];
    let mut next = options.base_port;
    for name in names {
        if options.infrastructure_only && name == STATISTICS {
            continue;
        }
        let wanted = ports.get(&name).copied().or_else(|| {
            let port = next?;
            next = port.checked_add(1);
            Some(port)
        });
        let listener = TcpListener::bind(("127.0.0.1", wanted.unwrap_or(0))).with_context(|| {
            let port = wanted.unwrap_or_default();
            format!("port {port}, which is for {name}, is not free: stop who has it, or choose other ports")
        })?;
        ports.insert(name, listener.local_addr()?.port());
        held.push(listener);
    }
    Ok(ports)
}
