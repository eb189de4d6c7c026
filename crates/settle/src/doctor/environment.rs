//! What the environment tells a `settle serve` that is started with nothing on its command line.

use std::net::TcpListener;
use std::path::Path;

use super::Findings;
use crate::admin_client::AdminClient;
use crate::serve::{ServeArgs, misspelt_variables};

/// Looks at what a shop on `data` would be told.
pub(super) fn examine(args: &ServeArgs, data: Option<&Path>, findings: &mut Findings) {
    let about = "environment";
    for problem in misspelt_variables() {
        findings.wrong(about, problem);
    }
    if args.is_volatile() {
        findings.warning(
            about,
            "SETTLE_DURABILITY is `memory`: a power cut takes back what was answered. Take it out where money counts",
        );
    }
    if args.contradicts_itself() {
        findings.wrong(about, "a shop does not start with both SETTLE_CHAOS and SETTLE_PRODUCTION: take one out");
    } else if args.is_open_to_faults() {
        let what = format!(
            "SETTLE_CHAOS lets whoever reaches {} inject faults: take it out, or let SETTLE_LISTEN be on 127.0.0.1",
            args.address()
        );
        findings.warning(about, what);
    }
    let place = args.address();
    match TcpListener::bind(place) {
        Ok(_) => findings.ok("listen", format!("{place} is free")),
        Err(_) if runs_on(data.unwrap_or(args.data())) => findings.ok("listen", format!("{place} is taken; the shop runs")),
        Err(why) => findings.warning(
            "listen",
            format!(
                "a shop cannot listen on {place}: {why}. `ss -ltnp sport = :{}` says who has it; or start it with another --listen",
                place.port()
            ),
        ),
    }
}

/// Whether a shop has this data folder; one that stands still has it, too.
fn runs_on(data: &Path) -> bool {
    !matches!(AdminClient::reach(&data.join(shop::admin::SOCKET)), Ok(None))
}
