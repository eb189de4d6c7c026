//! The data folder, for tools: whether a shop has it open, and its stores when none has.

use std::path::PathBuf;

use anyhow::{Context, bail};
use clap::Args;
use embedded::{Machine, OpenError, Options, Store};
use shop::OpenShopError;
use shop::server::open_store;

use crate::admin_client::AdminClient;

/// Which shop a tool is about.
#[derive(Debug, Clone, Args)]
pub(crate) struct Folder {
    /// The data folder of the shop, running or not.
    #[arg(long, env = "SETTLE_DATA", default_value = "settle-data", value_name = "DIR")]
    pub(crate) data: PathBuf,
}

impl Folder {
    /// Reaches the shop that has this folder open; `None` if none runs.
    pub(crate) fn running(&self) -> anyhow::Result<Option<AdminClient>> {
        AdminClient::reach(&self.data.join(shop::admin::SOCKET))
    }

    /// The same, for what only a running shop can do.
    pub(crate) fn must_run(&self, what: &str) -> anyhow::Result<AdminClient> {
        let data = self.data.display();
        let running = self.running()?;
        if running.is_none() {
            self.is_of_one_shop()?;
        }
        running.with_context(|| {
            format!("no shop is running on {data}, and only a running one can {what}: start it with `settle serve --data {data}`")
        })
    }

    /// Refuses the folder of a `settle up`: its databases are those of servers, which are asked with another flag.
    fn is_of_one_shop(&self) -> anyhow::Result<()> {
        let data = self.data.display();
        if self.data.join("up.json").is_file() {
            bail!(
                "{data} is the data folder of a `settle up`, and not of one shop: name it with --up {data} while that runs"
            );
        }
        Ok(())
    }

    /// Opens one of the stores while no shop runs: exclusively, as the shop would.
    pub(crate) fn open<M: Machine>(&self, service: &'static str) -> anyhow::Result<Store<M>> {
        let folder = self.data.join(service);
        // Opening would make a folder that is missing.
        if !folder.is_dir() {
            self.is_of_one_shop()?;
            bail!(
                "{} is no data folder of a shop: it has no folder `{service}`; name another with --data",
                self.data.display()
            );
        }
        match open_store(&self.data, service, &Options::default()) {
            Ok((store, _)) => Ok(store),
            Err(OpenShopError::Store(_, OpenError::InUse { holder, .. })) => bail!(
                "{} is in use by {holder}, which does not answer on {}: if a shop is starting or stopping there, try again \
                 in a moment",
                self.data.display(),
                shop::admin::SOCKET
            ),
            Err(error) => Err(error.into()),
        }
    }
}
