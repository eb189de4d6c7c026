//! Who is master, who follows, who leads: asked on a thread of its own, since a frozen server takes its time not to answer.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use servers::redis::ask_within;

use super::member::ask_service;
use super::plan::Kind;

/// How often everybody is asked.
const PERIOD: Duration = Duration::from_secs(2);
/// How long one may take.
const GLANCE: Duration = Duration::from_millis(300);
/// How long a service may take, which asks others.
const PATIENCE: Duration = Duration::from_millis(1_500);

/// The roles as they were said last, by component.
#[derive(Debug, Clone, Default)]
pub(super) struct Roles(Arc<Mutex<BTreeMap<String, String>>>);

impl Roles {
    /// Begins to ask these components.
    pub(super) fn watch(members: Vec<(String, Kind, u16)>) -> std::io::Result<Self> {
        let roles = Self::default();
        let shared = roles.clone();
        std::thread::Builder::new().name("roles".to_owned()).spawn(move || {
            loop {
                for (name, kind, port) in &members {
                    let role = role(*kind, *port);
                    if let Ok(mut known) = shared.0.lock() {
                        known.insert(name.clone(), role);
                    }
                }
                std::thread::sleep(PERIOD);
            }
        })?;
        Ok(roles)
    }

    pub(super) fn of(&self, name: &str) -> String {
        self.0.lock().ok().and_then(|known| known.get(name).cloned()).unwrap_or_default()
    }
}

/// What a component says it is now; empty if its kind has no roles, or it does not answer.
pub(crate) fn role(kind: Kind, port: u16) -> String {
    if kind == Kind::Order {
        let said = ask_service(port, "/health/deep", PATIENCE).unwrap_or_default();
        return if said["leader"] == true { "leader".to_owned() } else { String::new() };
    }
    if kind != Kind::Redis {
        return String::new();
    }
    let said = ask_within(GLANCE, port, "ROLE").unwrap_or_default();
    let mut words = said.lines().filter(|line| !line.starts_with(['*', '$', ':']));
    match words.next() {
        Some("master") => "master".to_owned(),
        Some("slave") => match words.find(|word| *word == "connected") {
            Some(_) => "replica".to_owned(),
            None => "replica, not in touch".to_owned(),
        },
        _ => String::new(),
    }
}
