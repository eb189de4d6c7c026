//! What a system on one machine consists of: components with their ports, files and commands. Nothing is started here.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::DASHBOARD;
use super::options::{Level, UpOptions};
use crate::config::Service;
use crate::gateway::{Gateway, Instances, program};

/// The Sentinels that watch the databases; two of them agree on a death.
const SENTINELS: u32 = 3;
/// How long a master may be silent before a Sentinel calls it dead. Milliseconds.
const DOWN_AFTER_MS: u32 = 2_000;
/// Replicas of each master.
pub(super) const REPLICAS: u32 = 2;

/// What Prometheus records, and when it calls somebody.
const RULES: &str = include_str!("../../../../deploy/observability/rules.yml");

/// What kind of thing a component is. In the order in which they are started.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Kind {
    /// The broker.
    Nats,
    /// A database, master or replica: that changes.
    Redis,
    /// Watches the databases.
    Sentinel,
    /// An instance of the order service.
    Order,
    /// An instance of the stock service.
    Stock,
    /// An instance of the payment service.
    Payment,
    /// HAProxy.
    Gateway,
    /// Prometheus, which watches everybody.
    Prometheus,
    /// The whole shop in one process, which `settle serve --restart` keeps.
    Shop,
}

impl Kind {
    pub(crate) fn of(service: Service) -> Self {
        match service {
            Service::Orders => Self::Order,
            Service::Stock => Self::Stock,
            Service::Payment => Self::Payment,
        }
    }

    /// The service that it is an instance of.
    pub(crate) fn service(self) -> Option<Service> {
        Service::ALL.into_iter().find(|service| Self::of(*service) == self)
    }
}

/// One process of the system.
#[derive(Debug, Clone)]
pub(super) struct Component {
    pub(super) name: String,
    pub(super) kind: Kind,
    pub(super) port: u16,
    /// The program and what it is told. The program `settle` is this one.
    pub(super) command: Vec<String>,
    /// Files that must stand in its folder before it starts; those that it rewrites itself are not overwritten.
    pub(super) files: Vec<FileOf>,
}

/// A file in a component's folder.
#[derive(Debug, Clone)]
pub(super) struct FileOf {
    pub(super) name: &'static str,
    pub(super) text: String,
    /// Whether the component keeps what it knows in it, so that it is written once only.
    pub(super) kept: bool,
}

/// The names of all components and their kinds: what needs a port.
pub(super) fn names(options: &UpOptions) -> Vec<(String, Kind)> {
    let mut names = vec![("nats".to_owned(), Kind::Nats)];
    for service in Service::ALL {
        let section = service.section();
        names.push((format!("redis-{section}-1"), Kind::Redis));
        if !options.small {
            names.extend((2..=REPLICAS + 1).map(|n| (format!("redis-{section}-{n}"), Kind::Redis)));
        }
    }
    if !options.small {
        names.extend((1..=SENTINELS).map(|n| (format!("sentinel-{n}"), Kind::Sentinel)));
    }
    if !options.infrastructure_only {
        for service in Service::ALL {
            let named = |n| (format!("{}-{n}", program(service)), Kind::of(service));
            names.extend((1..=options.instances).map(named));
        }
        names.push(("gateway".to_owned(), Kind::Gateway));
        if options.observability {
            names.push(("prometheus".to_owned(), Kind::Prometheus));
        }
    }
    names
}

/// The name of the port behind a component's proxy.
pub(super) fn behind(name: &str) -> String {
    format!("{name}-behind")
}

/// Whether a component of this kind has a proxy before it, when there are proxies.
pub(super) fn has_proxy(kind: Kind) -> bool {
    matches!(kind, Kind::Nats | Kind::Redis)
}

/// The components, each after those it needs. `ports` has one for every name, and `gateway-statistics`.
pub(super) fn plan(options: &UpOptions, data: &Path, ports: &BTreeMap<String, u16>) -> Vec<Component> {
    let plan = Plan { options, data, ports };
    names(options).into_iter().map(|(name, kind)| plan.component(&name, kind)).collect()
}

struct Plan<'a> {
    options: &'a UpOptions,
    data: &'a Path,
    ports: &'a BTreeMap<String, u16>,
}

impl Plan<'_> {
    fn port(&self, name: &str) -> u16 {
        self.ports.get(name).copied().unwrap_or_default()
    }

    /// Where the server itself listens: behind its proxy, if it has one.
    fn own_port(&self, name: &str) -> u16 {
        if self.options.proxied { self.port(&behind(name)) } else { self.port(name) }
    }

    fn at(&self, name: &str) -> String {
        format!("127.0.0.1:{}", self.port(name))
    }

    /// The instances of all services.
    fn services(&self) -> impl Iterator<Item = String> {
        let named = |service| (1..=self.options.instances).map(move |n| format!("{}-{n}", program(service)));
        Service::ALL.into_iter().flat_map(named)
    }

    fn path(&self, name: &str, file: &str) -> String {
        self.data.join(name).join(file).display().to_string()
    }

    fn component(&self, name: &str, kind: Kind) -> Component {
        let (program, file, text, kept) = match kind {
            Kind::Nats => ("nats-server", "nats.conf", self.nats(name), false),
            Kind::Redis => ("redis-server", "redis.conf", self.redis(name), true),
            Kind::Sentinel => ("redis-sentinel", "sentinel.conf", self.sentinel(name), true),
            Kind::Gateway => ("haproxy", "haproxy.cfg", self.gateway(name), false),
            Kind::Prometheus => ("prometheus", "prometheus.yml", self.prometheus(), false),
            // No plan has a shop: it is a system by itself.
            Kind::Order | Kind::Stock | Kind::Payment | Kind::Shop => {
                ("settle", "settle.toml", self.service(name, kind), false)
            }
        };
        let told = self.path(name, file);
        let words: Vec<String> = match kind {
            Kind::Nats => vec!["-c".to_owned(), told],
            Kind::Redis | Kind::Sentinel => vec![told],
            Kind::Gateway => vec!["-db".to_owned(), "-f".to_owned(), told],
            Kind::Prometheus => vec![
                format!("--config.file={told}"),
                format!("--storage.tsdb.path={}", self.path(name, "series")),
                format!("--web.listen-address={}", self.at(name)),
                "--storage.tsdb.retention.time=2d".to_owned(),
                "--enable-feature=exemplar-storage".to_owned(),
                "--log.level=warn".to_owned(),
            ],
            Kind::Order | Kind::Stock | Kind::Payment | Kind::Shop => {
                let word = kind.service().map_or("serve", crate::gateway::program);
                vec![word.to_owned(), "--config".to_owned(), told]
            }
        };
        let command = std::iter::once(program.to_owned()).chain(words).collect();
        let mut files = vec![FileOf { name: file, text, kept }];
        if kind == Kind::Prometheus {
            files.push(FileOf { name: "rules.yml", text: RULES.to_owned(), kept: false });
        }
        Component { name: name.to_owned(), kind, port: self.port(name), command, files }
    }

    fn nats(&self, name: &str) -> String {
        let store = serde_json::Value::from(self.path(name, "jetstream")).to_string();
        format!(
            "server_name: settle\nhost: 127.0.0.1\nport: {}\njetstream {{ store_dir: {store} }}\n",
            self.own_port(name)
        )
    }

    fn redis(&self, name: &str) -> String {
        let port = self.own_port(name);
        let folder = self.data.join(name).display().to_string();
        let (append, flush) = match self.options.durability {
            Level::Memory => ("no", "everysec"),
            Level::Fsync | Level::Replicated => ("yes", "always"),
        };
        let mut text = format!(
            "port {port}\nbind 127.0.0.1\ndir \"{folder}\"\nsave \"\"\nappendonly {append}\nappendfsync {flush}\n\
             maxmemory-policy noeviction\nrepl-diskless-sync yes\nrepl-diskless-sync-delay 0\nrepl-backlog-size 32mb\n"
        );
        if self.options.proxied {
            let front = self.port(name);
            text.push_str(&format!("replica-announce-ip 127.0.0.1\nreplica-announce-port {front}\n"));
        }
        let (service, number) = name.rsplit_once('-').unwrap_or((name, "1"));
        if number != "1" {
            text.push_str(&format!("replicaof 127.0.0.1 {}\n", self.port(&format!("{service}-1"))));
        }
        text
    }

    fn sentinel(&self, name: &str) -> String {
        let folder = self.data.join(name).display().to_string();
        let mut text = format!("port {}\nbind 127.0.0.1\ndir \"{folder}\"\n", self.port(name));
        for service in Service::ALL {
            let section = service.section();
            let master = self.port(&format!("redis-{section}-1"));
            text.push_str(&format!(
                "sentinel monitor {section} 127.0.0.1 {master} {quorum}\nsentinel down-after-milliseconds {section} {DOWN_AFTER_MS}\n\
                 sentinel failover-timeout {section} 6000\nsentinel parallel-syncs {section} {REPLICAS}\n",
                quorum = SENTINELS / 2 + 1
            ));
        }
        text
    }

    fn service(&self, name: &str, kind: Kind) -> String {
        let options = self.options;
        let mut text = format!(
            "# Written by `settle up` at every start.\ninstance = \"{name}\"\nlisten = \"{}\"\nprotocol = \"{}\"\nchaos = {}\n\n\
             [nats]\nurl = \"nats://{}\"\n",
            self.at(name),
            options.protocol,
            options.chaos,
            self.at("nats"),
        );
        // Beside this file, where it is started: a path that holds however deep the folder is.
        text.push_str(&format!("\n[admin]\nlisten = \"{}\"\n", shop::admin::SOCKET));
        if kind == Kind::Order {
            let others = self.services().filter(|other| other != name);
            let others: Vec<_> = others.map(|other| format!("\"{other}=http://{}\"", self.at(&other))).collect();
            text.push_str(&format!("\n[watch]\ninstances = [{}]\n", others.join(", ")));
        }
        for service in Service::ALL {
            let section = service.section();
            text.push_str(&format!("\n[{section}]\ndurability = \"{}\"\n", options.durability.word()));
            if options.small {
                text.push_str(&format!("redis = \"{}\"\n", self.at(&format!("redis-{section}-1"))));
                continue;
            }
            let sentinels = (1..=SENTINELS).map(|n| format!("\"{}\"", self.at(&format!("sentinel-{n}"))));
            let sentinels = sentinels.collect::<Vec<_>>().join(", ");
            text.push_str(&format!("sentinels = [{sentinels}]\nmaster = \"{section}\"\n"));
            match options.durability {
                Level::Replicated => text.push_str(&format!("replicas = {REPLICAS}\n")),
                // Asked for with --durability, which says what that costs.
                Level::Fsync | Level::Memory => text.push_str("may_lose_acknowledged_writes = true\n"),
            }
        }
        text
    }

    /// The instances themselves are asked: each has figures of its own, and the gateway would ask any.
    fn prometheus(&self) -> String {
        let mut text =
            "# Written by `settle up` at every start.\nglobal: { scrape_interval: 2s, evaluation_interval: 2s }\n\
                        rule_files: [rules.yml]\nscrape_configs:\n  - job_name: settle\n    static_configs:\n"
                .to_owned();
        for name in self.services() {
            text.push_str(&format!(
                "      - {{ targets: [\"{}\"], labels: {{ instance: {name} }} }}\n",
                self.at(&name)
            ));
        }
        text.push_str(&format!(
            "  - job_name: gateway\n    static_configs: [{{ targets: [\"{}\"] }}]\n",
            self.at("gateway-statistics")
        ));
        text
    }

    fn gateway(&self, name: &str) -> String {
        let services = Service::ALL.map(|service| {
            let named = (1..=self.options.instances).map(|n| {
                let instance = format!("{}-{n}", program(service));
                let at = self.at(&instance);
                (instance, at)
            });
            Instances::At(named.collect())
        });
        let title = "Written by `settle up` at every start.".to_owned();
        let mut gateway = Gateway::new(title, self.at(name), self.at("gateway-statistics"), services);
        // Two descriptors a connection, on a machine that has a thousand of them for everybody at worst.
        gateway.connections = 4_000;
        gateway.page = Some(format!("http://{}/", self.at(DASHBOARD)));
        gateway.configuration()
    }
}

/// Writes the files of a component into its folder.
pub(super) fn write_files(component: &Component, data: &Path) -> std::io::Result<()> {
    let folder: PathBuf = data.join(&component.name);
    std::fs::create_dir_all(&folder)?;
    for file in &component.files {
        let path = folder.join(file.name);
        if !(file.kept && path.exists()) {
            std::fs::write(path, &file.text)?;
        }
    }
    Ok(())
}
