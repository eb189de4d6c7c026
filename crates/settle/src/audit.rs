//! `settle audit`: whether a cent or an item is off.
//!
//! | where           | how                                                                                |
//! |-----------------|------------------------------------------------------------------------------------|
//! | a running shop  | the shop audits itself, asked over the operators' socket until the picture is at rest |
//! | a data folder   | the three stores are opened and audited                                            |
//! | `--url`         | over the public contract, on any server: see the crate `load`                       |

use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::Context;
use clap::Args;
use ledger::Ledger;
use shop::audit::{AuditReport, audit as audit_stores};
use shop::orders::OrderBook;

use crate::exit::{OFF, UNUSABLE};
use crate::folder::Folder;
use crate::output::say;

/// How long to wait before looking at a busy shop again.
const AGAIN: Duration = Duration::from_millis(100);

const EXAMPLES: &str = "\
Examples:
  The shop in ./settle-data, running or not:
    settle audit
    settle audit --data /var/lib/settle --json

  Any server that speaks the contract, over HTTP; given what each item and user started with
  (batch_init), to the last one:
    settle audit --url http://127.0.0.1:8000 --orders 1000 --items 100 --users 100
    settle audit --url http://127.0.0.1:8000 --orders 1000 --stock 1000000 --credit 1000000

Of a data folder it checks that every account adds up, that what is held is held by an open branch,
and, once no transaction is open, that every user was charged, and every item sold, exactly as the
paid orders say. Over HTTP: run it while no checkout is running.

Exit code: 0 nothing is off; 1 something is; 2 bad input, or orders and ledgers could not
be compared.";

/// Which books to check.
#[derive(Debug, Clone, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct BooksArgs {
    #[command(flatten)]
    folder: Folder,
    /// How long to wait for a running shop to come to rest. Seconds, up to an hour.
    #[arg(long, value_name = "SECONDS", default_value_t = 10, value_parser = clap::value_parser!(u64).range(..=3600))]
    wait: u64,
    /// Print the report as one line of JSON.
    #[arg(long, conflicts_with_all = ["url", "orders", "items", "users", "stock", "credit", "timeout"])]
    json: bool,
    #[command(flatten, next_help_heading = "Over HTTP")]
    over_http: Option<load::AuditArgs>,
}

pub(crate) fn audit(args: BooksArgs) -> anyhow::Result<ExitCode> {
    if let Some(over_http) = &args.over_http {
        return Ok(load::main_audit(over_http));
    }
    let report = match args.folder.running()? {
        Some(mut shop) => {
            let until = Instant::now() + Duration::from_secs(args.wait);
            loop {
                let report: AuditReport = shop.get("/audit")?;
                if report.compared || !report.is_clean() || Instant::now() >= until {
                    break report;
                }
                std::thread::sleep(AGAIN);
            }
        }
        None => audit_folder(&args.folder)?,
    };
    say(&if args.json { serde_json::to_string(&report)? } else { text(&report) })?;
    Ok(match (report.is_clean(), report.compared) {
        (false, _) => ExitCode::from(OFF),
        (true, true) => ExitCode::SUCCESS,
        (true, false) => ExitCode::from(UNUSABLE),
    })
}

fn audit_folder(folder: &Folder) -> anyhow::Result<AuditReport> {
    let orders = folder.open::<OrderBook>("orders")?;
    let stock = folder.open::<Ledger>("stock")?;
    let payment = folder.open::<Ledger>("payment")?;
    let look = |orders: &OrderBook| stock.read(|stock| payment.read(|payment| audit_stores(orders, stock, payment)));
    let report = orders.read(look).and_then(|inner| inner).and_then(|inner| inner);
    report.context("a store stopped while it was read")
}

fn text(report: &AuditReport) -> String {
    let AuditReport { off, findings, paid_orders, paid_cost, items, users, open_transactions, compared } = report;
    let checked = format!("{items} items and {users} users add up");
    if report.is_clean() && *compared {
        return format!(
            "Audit OK: {paid_orders} paid orders for {paid_cost} in all; {checked}, and match them exactly."
        );
    }
    let not_compared = format!(
        "{open_transactions} transactions are not settled yet, so orders could not be compared with the ledgers; only the \
         ledgers in themselves were checked."
    );
    if report.is_clean() {
        return format!(
            "Audit incomplete: {checked}, but {not_compared}\nLet the shop run and settle them (`settle tx list` shows them), \
             then audit again, or with a longer --wait."
        );
    }
    let mut text = format!("Audit FAILED: {off} things are off.");
    for finding in findings {
        text.push_str(&format!("\n  {finding}"));
    }
    if *off > findings.len() {
        text.push_str(&format!("\n  and {} more", off - findings.len()));
    }
    if !compared {
        text.push_str(&format!("\n{not_compared}"));
    }
    text
}
