//! Bounds and contradictions, all of them at once, each with its key and where it was given.

use figment::Figment;
use protocol::limits::{MAX_NATS_SERVERS, MAX_SENTINELS};
use watch::limits::MAX_INSTANCES;

use super::{Config, Door, Durability, Service, Store, keys};
use crate::runtime::MAX_THREADS;

/// The times that a database's `wait_ms` and `patience_ms` may be.
const TIMES: std::ops::RangeInclusive<u64> = 10..=60_000;

/// Names of one server, and the bytes of each: DNS has no longer ones.
const MAX_HOSTS: usize = 64;
const MAX_HOST_BYTES: usize = 253;

/// Everything that is wrong with a configuration.
pub(super) fn check(config: &Config, figment: &Figment) -> Vec<String> {
    let mut problems = Problems { found: vec![], figment };
    if !(1..=1_000).contains(&config.attempts) {
        problems.bounds("attempts", config.attempts);
    }
    if config.threads > MAX_THREADS {
        problems.bounds("threads", config.threads);
    }
    if config.hosts.len() > MAX_HOSTS {
        problems.bounds("hosts", config.hosts.len());
    }
    for host in config.hosts.iter().filter(|host| !is_name(host)) {
        problems.bounds("hosts", host);
    }
    if config.production && config.chaos {
        problems.say("chaos", "excludes `production`");
    }
    let nats = &config.nats;
    if !(1..=MAX_NATS_SERVERS).contains(&nats.url.len()) {
        problems.bounds("nats.url", nats.url.len());
    }
    for url in &nats.url {
        let host = url.strip_prefix("nats://").or_else(|| url.strip_prefix("tls://")).unwrap_or(url);
        if host.contains('@') {
            let variable = keys::variable("nats.password");
            problems.say("nats.url", &format!("holds a user or a password: give `nats.username` and set {variable}"));
        } else if !is_host_and_port(host) {
            problems.bounds("nats.url", url);
        }
    }
    if ![1, 3, 5].contains(&nats.replicas) {
        problems.bounds("nats.replicas", nats.replicas);
    }
    if let Some(admin) = &config.admin
        && admin.listen.as_ref().is_none_or(String::is_empty)
    {
        problems.found.push(format!("[admin] has no `listen`: {}", keys::ADMIN[0].allowed));
    }
    if config.watched().len() > MAX_INSTANCES {
        problems.bounds("watch.instances", config.watched().len());
    }
    for url in config.watched().iter().filter(|url| watch::scrape::Instance::at(url).is_err()) {
        problems.bounds("watch.instances", url);
    }
    for service in Service::ALL {
        if let Some(store) = config.store(service) {
            problems.store(service.section(), store);
        }
    }
    problems.found
}

/// What is wrong with where traces go.
pub(super) fn traces(config: &Config, figment: &Figment) -> Option<String> {
    let of_url = || Some(("trace_url", crate::traces::check_trace_url(config.trace_url()?).err()?));
    let (key, what) = config.traces().and_then(|told| told.problem()).or_else(of_url)?;
    let path = format!("telemetry.{key}");
    let source = figment.find_metadata(&path).map_or_else(String::new, |from| format!(" in {}", from.name));
    Some(format!("`{path}`{source}: {what}"))
}

/// What is wrong with a door that anybody could open. Known only with the passwords.
pub(super) fn open_door(config: &Config) -> Option<String> {
    match config.door() {
        Some(Door::Address(address, None)) if !address.ip().is_loopback() => {
            let variable = keys::variable("admin.password");
            Some(format!(
                "`admin.listen` is `{address}`, which is no loopback address: whoever reaches it could settle transactions by hand. Set \
                 {variable}, or give the path of a Unix socket"
            ))
        }
        _ => None,
    }
}

/// Whether it is what stands in a `Host` before the port.
fn is_name(host: &str) -> bool {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_');
    (1..=MAX_HOST_BYTES).contains(&host.len()) && host.bytes().all(fits)
}

struct Problems<'a> {
    found: Vec<String>,
    figment: &'a Figment,
}

impl Problems<'_> {
    fn say(&mut self, path: &str, what: &str) {
        let source = self.figment.find_metadata(path).map_or_else(String::new, |from| format!(" in {}", from.name));
        self.found.push(format!("`{path}`{source}: {what}"));
    }

    fn bounds(&mut self, path: &str, is: impl std::fmt::Display) {
        let allowed = keys::find(path).map_or("", |key| key.allowed);
        self.say(path, &format!("is `{is}`; allowed: {allowed}"));
    }

    fn store(&mut self, section: &str, store: &Store) {
        let at = |key: &str| format!("{section}.{key}");
        match (&store.redis, store.sentinels.is_empty() && store.master.is_none()) {
            (Some(address), true) if is_host_and_port(address) => {}
            (Some(address), true) => self.bounds(&at("redis"), address),
            (Some(_), false) => self.say(&at("redis"), "excludes `sentinels` and `master`: give one or the others"),
            (None, true) => self.found.push(format!(
                "[{section}] does not say where the database is: give `redis`, or `sentinels` and `master`"
            )),
            (None, false) => self.sentinels(section, store),
        }
        if store.redis.is_none()
            && !store.may_lose_acknowledged_writes
            && matches!(store.durability, Durability::Memory | Durability::Fsync)
        {
            self.say(
                &at("durability"),
                "replicas are told of a write after it is acknowledged, so a failover by Sentinel could lose it: set \
                 `replicated`, or say `may_lose_acknowledged_writes = true`",
            );
        }
        if !(1..=100).contains(&store.replicas) {
            self.bounds(&at("replicas"), store.replicas);
        }
        for (key, time) in [("wait_ms", store.wait_ms), ("patience_ms", store.patience_ms)] {
            if !TIMES.contains(&time) {
                self.bounds(&at(key), time);
            }
        }
    }

    fn sentinels(&mut self, section: &str, store: &Store) {
        if !(1..=MAX_SENTINELS).contains(&store.sentinels.len()) {
            self.bounds(&format!("{section}.sentinels"), store.sentinels.len());
        }
        for address in store.sentinels.iter().filter(|address| !is_host_and_port(address)) {
            self.bounds(&format!("{section}.sentinels"), address);
        }
        if store.master.as_ref().is_none_or(String::is_empty) {
            self.found.push(format!("[{section}] has `sentinels` but no `master`: {}", keys::STORE[2].allowed));
        }
    }
}

fn is_host_and_port(text: &str) -> bool {
    let strange = |c: char| c.is_whitespace() || c.is_control() || matches!(c, '/' | '@' | ',');
    text.rsplit_once(':').is_some_and(|(host, port)| {
        !host.is_empty() && !host.contains(strange) && port.parse::<u16>().is_ok_and(|p| p > 0)
    })
}
