//! Where a service would listen, and who listens where it would look.

use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream, ToSocketAddrs};
use std::path::Path;
use std::time::Duration;

use hyper::StatusCode;
use rustix::fs::{Access, access};
use serde_json::Value;
use watch::scrape::Instance;

use super::Findings;
use crate::admin_client::AdminClient;
use crate::config::{Config, Door, Service};

/// How long whoever listens may take to say who it is.
const PATIENCE: Duration = Duration::from_secs(2);
/// What costs an operators' door nothing.
const DOOR: &str = "/log-level";

/// Where requests and operators are to be let in.
pub(super) fn own(config: &Config, findings: &mut Findings) {
    let services: Vec<Service> = Service::ALL.into_iter().filter(|service| config.redis(*service).is_ok()).collect();
    // Held meanwhile: the operators' address may be the same, and must not.
    let _held = address("listen", config.listen, |url| serves_one_of(&services, url), findings);
    match config.door().filter(|_| services.contains(&Service::Orders)) {
        Some(Door::Address(place, password)) => {
            address("admin.listen", place, |url| answers(url, password.as_deref(), DOOR), findings);
        }
        Some(Door::Socket(path)) => socket(&path, findings),
        None => {}
    }
}

/// Takes an address for a moment; or finds out whether the service itself has it.
fn address(
    key: &str,
    place: SocketAddr,
    is_own: impl Fn(&str) -> anyhow::Result<bool>,
    findings: &mut Findings,
) -> Option<TcpListener> {
    let why = match TcpListener::bind(place) {
        Ok(listener) => {
            findings.ok(key, format!("{place} is free"));
            return Some(listener);
        }
        Err(why) => why,
    };
    match why.kind() {
        ErrorKind::AddrInUse => {
            let who = format!("`ss -ltnp sport = :{}` says who it is", place.port());
            match is_own(&url_of(place)) {
                Ok(true) => findings.ok(key, format!("{place} is taken by the service itself, which runs")),
                Ok(false) => findings.wrong(
                    key,
                    format!("somebody else listens on {place}, and the service cannot start: {who}; or set another `{key}`"),
                ),
                Err(_) => findings.wrong(
                    key,
                    format!(
                        "whoever listens on {place} does not answer: {who}. If it is the service, it stands still; if not, stop it, or set \
                         another `{key}`"
                    ),
                ),
            }
        }
        ErrorKind::AddrNotAvailable => {
            let host = place.ip();
            findings.warning(
                key,
                format!("{host} is no address of this machine, and the service can start only on the one that has it"),
            );
        }
        _ => findings.wrong(key, format!("the service cannot listen on {place}: {why}. Set another `{key}`")),
    }
    None
}

/// Where a listener at an address is asked.
fn url_of(place: SocketAddr) -> String {
    let host = if place.ip().is_unspecified() { IpAddr::V4(Ipv4Addr::LOCALHOST) } else { place.ip() };
    format!("http://{}", SocketAddr::new(host, place.port()))
}

/// Whether it is the process of one of these services. A whole shop, or a gateway, answers for every service.
fn serves_one_of(services: &[Service], url: &str) -> anyhow::Result<bool> {
    let mut found = Vec::new();
    for service in Service::ALL {
        if answers(url, None, &format!("/{}/health", service.section()))? {
            found.push(service);
        }
    }
    Ok(matches!(*found, [one] if services.contains(&one)))
}

/// Whether Settle answers a question there, if only why it does not let us in.
fn answers(url: &str, password: Option<&str>, question: &str) -> anyhow::Result<bool> {
    let mut client = AdminClient::connect(url, password.map(str::to_owned))?;
    let (status, said) = client.ask_within(PATIENCE, question)?;
    let said: Value = serde_json::from_slice(&said).unwrap_or_default();
    Ok(status != StatusCode::NOT_FOUND && (said.get("status").is_some() || said.get("filter").is_some()))
}

fn socket(path: &Path, findings: &mut Findings) {
    let (key, shown) = ("admin.listen", path.display());
    if path.is_relative() {
        return findings.ok(key, format!("{shown} will be in the folder that the service is started in"));
    }
    match AdminClient::reach(path).and_then(|client| client.map(|mut it| it.ask_within(PATIENCE, DOOR)).transpose()) {
        Ok(Some(_)) => return findings.ok(key, format!("{shown} is taken by an order instance that runs")),
        Ok(None) => {}
        Err(why) => return findings.wrong(key, format!("{why}. Mend it, or set another `{key}`")),
    }
    let folder = path.parent().unwrap_or(path);
    if !folder.is_dir() {
        findings.wrong(key, format!("there is no folder {} for {shown}: make it", folder.display()));
    } else if access(folder, Access::WRITE_OK | Access::EXEC_OK).is_err() {
        findings.wrong(key, format!("{shown} cannot be made: {} cannot be written to by this user", folder.display()));
    } else if path.exists() && !is_socket(path) {
        findings.wrong(key, format!("{shown} is there and is no socket: remove it, or set another `{key}`"));
    } else {
        findings.ok(key, format!("{shown} can be made"));
    }
}

fn is_socket(path: &Path) -> bool {
    use std::os::unix::fs::FileTypeExt;
    std::fs::symlink_metadata(path).is_ok_and(|found| found.file_type().is_socket())
}

/// What would be asked for figures, and told of traces.
pub(super) fn others(config: &Config, findings: &mut Findings) {
    let own = config.listen.to_string();
    let instances = config.watched().iter().filter_map(|url| Instance::at(url).ok());
    for instance in instances.filter(|instance| instance.address() != own) {
        let address = instance.address();
        if let Err(why) = somebody_listens(address) {
            findings.warning(
                "watch.instances",
                format!("nobody can be reached at {address} ({why}), and the page shows it as down: start it, or take it off the list"),
            );
        }
    }
    if let Some(address) = config.traces().and_then(|told| told.address())
        && let Err(why) = somebody_listens(&address)
    {
        findings.warning(
            "traces",
            format!(
                "nobody can be reached at {address} ({why}), and traces are dropped until somebody can: start it, or mend `telemetry.endpoint`"
            ),
        );
    }
}

fn somebody_listens(address: &str) -> std::io::Result<()> {
    let mut last = std::io::Error::from(ErrorKind::NotFound);
    for place in address.to_socket_addrs()? {
        match TcpStream::connect_timeout(&place, PATIENCE) {
            Ok(_) => return Ok(()),
            Err(why) => last = why,
        }
    }
    Err(last)
}
