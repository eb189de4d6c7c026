//! Which shop `settle tx` is about: a data folder, or the operators' door of a running order instance.

use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use clap::Args;

use crate::admin_client::AdminClient;
use crate::folder::Folder;
use crate::up::member::is_ready;
use crate::up::plan::Kind;
use crate::up::state::{Entry, State};

/// The variable with the password of a door that has one.
const PASSWORD: &str = "SETTLE_ADMIN__PASSWORD";

/// Which shop it is about.
#[derive(Debug, Clone, Args)]
pub(crate) struct Door {
    #[command(flatten)]
    pub(crate) folder: Folder,
    /// The data folder of a running `settle up`: any of its order instances is asked.
    #[arg(long, value_name = "DIR", conflicts_with_all = ["socket", "url"])]
    up: Option<PathBuf>,
    /// The operators' socket of an order instance: its `admin.listen`.
    #[arg(long, value_name = "PATH", conflicts_with = "url")]
    socket: Option<PathBuf>,
    /// The operators' address of an order instance: its `admin.listen`. The password, if it has one, in SETTLE_ADMIN__PASSWORD.
    #[arg(long, value_name = "URL")]
    url: Option<String>,
}

impl Door {
    /// Whether it is about a data folder, which can be looked at while no shop runs.
    pub(crate) fn is_folder(&self) -> bool {
        self.up.is_none() && self.socket.is_none() && self.url.is_none()
    }

    /// What must be given once more to ask the same shop again.
    pub(crate) fn again(&self) -> String {
        match (&self.up, &self.socket, &self.url) {
            (Some(up), ..) => format!(" --up {}", up.display()),
            (_, Some(socket), _) => format!(" --socket {}", socket.display()),
            (.., Some(url)) => format!(" --url {url}"),
            (None, None, None) => String::new(),
        }
    }

    /// Reaches the shop; `None` if none runs on the data folder.
    pub(crate) fn running(&self) -> anyhow::Result<Option<AdminClient>> {
        if let Some(up) = &self.up {
            return reach_up(up).map(Some);
        }
        if let Some(socket) = &self.socket {
            let nobody = || {
                format!(
                    "nobody listens on {}: does the instance run, with that as its `admin.listen`?",
                    socket.display()
                )
            };
            return AdminClient::reach(socket)?.with_context(nobody).map(Some);
        }
        if let Some(url) = &self.url {
            return AdminClient::connect(url, std::env::var(PASSWORD).ok().filter(|text| !text.is_empty())).map(Some);
        }
        self.folder.running()
    }

    /// The same, for what only a running shop can do.
    pub(crate) fn must_run(&self, what: &str) -> anyhow::Result<AdminClient> {
        if self.is_folder() {
            return self.folder.must_run(what);
        }
        self.running()?.context("nobody answers")
    }
}

/// Any order instance of a `settle up` that lets operators in.
fn reach_up(data: &Path) -> anyhow::Result<AdminClient> {
    let shown = data.display();
    let state = State::read(data)?;
    let state = state.with_context(|| format!("{shown} is no data folder of `settle up`: it has no up.json"))?;
    // One that stands still would take the question, and not answer.
    let answers = |entry: &&Entry| entry.kind == Kind::Order && entry.pid.is_some() && is_ready(entry.kind, entry.port);
    for entry in state.components.iter().filter(answers) {
        if let Some(client) = AdminClient::reach(&data.join(&entry.name).join(shop::admin::SOCKET))? {
            return Ok(client);
        }
    }
    bail!("no order instance of the `settle up` in {shown} answers: does it run?")
}
