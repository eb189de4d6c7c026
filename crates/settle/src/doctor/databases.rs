//! The three databases in a data folder, read as a start would read them, and not changed.

use std::path::Path;
use std::time::Duration;

use embedded::{Machine, OpenError};
use ledger::Ledger;
use shop::OpenShopError;
use shop::orders::OrderBook;
use shop::server::{Found, SERVICES, check_all_there, examine_store, missing};

use super::Findings;
use crate::admin_client::AdminClient;

/// Where the handbook says what to do about a damaged one.
const DAMAGED: &str = "docs/operating.md#a-damaged-journal";
/// How long a shop that runs may take to answer a question that costs nothing.
const PATIENCE: Duration = Duration::from_secs(2);

/// Looks at what is in a data folder that is there.
pub(super) fn examine(data: &Path, findings: &mut Findings) {
    let about = "databases";
    let shown = data.display();
    if data.join("up.json").is_file() {
        return findings.wrong(
            about,
            format!(
                "{shown} is the data folder of a `settle up`, not of a `settle serve`: look at it with `settle doctor --config \
                 {shown}/order-1/settle.toml` while it runs, and at its books with `settle audit --up {shown}`"
            ),
        );
    }
    let missing = missing(data);
    if missing.len() == SERVICES.len() {
        return findings.ok(about, format!("there are none in {shown} yet: the first start makes them"));
    }
    match check_all_there(data) {
        Err(error) => findings.wrong(about, error.to_string()),
        Ok(()) if !missing.is_empty() => {
            let missing = missing.join(" and ");
            findings.ok(about, format!("{missing} will be made in {shown}: a first start came to its end half way"));
        }
        Ok(()) => {}
    }
    let mut holder = None;
    for service in SERVICES.into_iter().filter(|service| !missing.contains(service)) {
        let held = match service {
            "orders" => one::<OrderBook>(data, service, findings),
            _ => one::<Ledger>(data, service, findings),
        };
        holder = holder.or(held);
    }
    if let Some(holder) = holder {
        shop(data, &holder, findings);
    }
}

/// Asks the shop that has the databases open whether it is there.
fn shop(data: &Path, holder: &str, findings: &mut Findings) {
    let socket = data.join(shop::admin::SOCKET);
    let asked = AdminClient::reach(&socket)
        .and_then(|client| client.map(|mut client| client.ask_within(PATIENCE, "/log-level")).transpose());
    match asked {
        Ok(Some(_)) => findings.ok("shop", format!("it runs, and answers on {}", socket.display())),
        // The databases are open before the socket is there, and after.
        Ok(None) => findings.ok("shop", format!("it starts or stops: nobody listens on {} yet or any more", socket.display())),
        Err(why) => findings.wrong(
            "shop",
            format!(
                "{holder} stands still or has far too much to do: {why}. If `ps` shows it as stopped (`T`), `kill -CONT` lets it go on; if \
                 nothing helps, `kill -KILL` it and start it again, which loses nothing that was acknowledged"
            ),
        ),
    }
}

/// Looks at one database, and says who has it open.
fn one<M: Machine>(data: &Path, service: &'static str, findings: &mut Findings) -> Option<String> {
    let about = format!("{service} database");
    match examine_store::<M>(data, service) {
        Ok(Found { opened, .. }) => {
            let torn = match opened.torn_bytes {
                0 => String::new(),
                torn => format!("; {torn} bytes behind them were never acknowledged, and the next start cuts them off"),
            };
            findings
                .ok(&about, format!("whole: it opens with {} commands of its journal replayed{torn}", opened.replayed));
        }
        Err(OpenShopError::Store(_, OpenError::InUse { holder, .. })) => {
            findings.ok(&about, format!("in use by {holder}, and so not looked at: ask the shop, `/health/deep`"));
            return Some(holder);
        }
        Err(OpenShopError::Store(_, error @ OpenError::Damaged { .. })) => {
            findings.wrong(&about, format!("{error}. See {DAMAGED}"));
        }
        Err(OpenShopError::Store(_, error)) => findings.wrong(&about, error.to_string()),
        Err(OpenShopError::Label(_, why)) => findings.wrong(&about, why),
        Err(error) => findings.wrong(&about, error.to_string()),
    }
    None
}
