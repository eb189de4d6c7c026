//! `settle audit`: whether a cent or an item is off.
//!
//! | where           | how                                                                                |
//! |-----------------|------------------------------------------------------------------------------------|
//! | a running shop  | the shop audits itself, asked over the operators' socket until the picture is at rest |
//! | a data folder   | the three stores are opened and audited                                            |
//! | `--up`, `--config` | the three databases of the distributed system are audited, while its services run or not |
//! | `--url`         | over the public contract, on any server: see the crate `load`                       |

use std::fmt::Display;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use clap::Args;
use ledger::Ledger;
use orchestrator::{Done, LedgerAnswer, LedgerQuery, LedgerStore, StoreFailure};
use redis_store::{RedisLedger, meta};
use shop::audit::{AuditReport, audit as audit_stores, compare};
use shop::checkout::{PAYMENT, STOCK};
use shop::order_store::{OrderStore, OrdersAnswer, OrdersQuery};
use shop::orders::OrderBook;
use shop::redis_orders::{ORDERS, RedisOrders};

use crate::config::{Config, ConfigArgs, Service};
use crate::exit::{OFF, UNUSABLE};
use crate::folder::Folder;
use crate::output::say;
use crate::service::apart;
use crate::up::plan::Kind;
use crate::up::state::State;

/// A service's configuration in its folder, as `settle up` writes it.
const CONFIGURATION: &str = "settle.toml";
/// How long to wait before looking at a busy shop again.
const AGAIN: Duration = Duration::from_millis(100);

const EXAMPLES: &str = "\
Examples:
  The shop in ./settle-data, running or not:
    settle audit
    settle audit --data /var/lib/settle --json

  The distributed system, asked at its databases, while the services run or not:
    settle audit --up settle-up
    settle audit --config settle.toml

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
    /// The data folder of a running `settle up`.
    #[arg(long, value_name = "DIR", conflicts_with_all = ["config", "url"])]
    up: Option<PathBuf>,
    /// The configuration of the distributed services, with all three databases in it.
    #[arg(long, value_name = "FILE", conflicts_with = "url")]
    config: Option<PathBuf>,
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
    let wait = Duration::from_secs(args.wait);
    let report = match args.configuration()? {
        Some(config) => {
            let databases = Databases::open(&config)?;
            at_rest(wait, || databases.audit())?
        }
        None => match args.folder.running()? {
            Some(mut shop) => at_rest(wait, || shop.get("/audit/live"))?,
            None => audit_folder(&args.folder)?,
        },
    };
    say(&if args.json { serde_json::to_string(&report)? } else { text(&report) })?;
    Ok(match (report.is_clean(), report.compared) {
        (false, _) => ExitCode::from(OFF),
        (true, true) => ExitCode::SUCCESS,
        (true, false) => ExitCode::from(UNUSABLE),
    })
}

/// Audits until the picture is one at rest, or the time is over.
fn at_rest(wait: Duration, mut audit: impl FnMut() -> anyhow::Result<AuditReport>) -> anyhow::Result<AuditReport> {
    let until = Instant::now() + wait;
    loop {
        let report = audit()?;
        if report.compared || !report.is_clean() || Instant::now() >= until {
            return Ok(report);
        }
        std::thread::sleep(AGAIN);
    }
}

impl BooksArgs {
    /// The configuration of the distributed system, if it is about one.
    fn configuration(&self) -> anyhow::Result<Option<Config>> {
        let file = match (&self.up, &self.config) {
            (Some(data), _) => {
                let state = State::read(data)?;
                let state = state.with_context(|| {
                    format!("{} is no data folder of `settle up`: it has no up.json", data.display())
                })?;
                let service = state.components.iter().find(|entry| entry.kind == Kind::Order);
                let service =
                    service.context("that `settle up` runs the infrastructure only: there is nothing to audit")?;
                data.join(&service.name).join(CONFIGURATION)
            }
            (None, Some(file)) => file.clone(),
            (None, None) => return Ok(None),
        };
        Ok(Some(ConfigArgs::of_file(file).load()?))
    }
}

/// The databases of the distributed system.
struct Databases {
    orders: RedisOrders,
    stock: RedisLedger,
    payment: RedisLedger,
}

impl Databases {
    fn open(config: &Config) -> anyhow::Result<Self> {
        let [orders, stock, payment] = [Service::Orders, Service::Stock, Service::Payment].map(|it| config.redis(it));
        let (orders, stock, payment) = (orders?, stock?, payment?);
        let found = Self {
            orders: RedisOrders::open(&orders).context("the orders database")?,
            stock: RedisLedger::open(STOCK, &stock).context("the stock database")?,
            payment: RedisLedger::open(PAYMENT, &payment).context("the payment database")?,
        };
        let of = meta(ORDERS, &orders)?;
        for (service, ledger) in [(STOCK, &stock), (PAYMENT, &payment)] {
            if let Some(why) = apart(service, &meta(service, ledger)?, &of) {
                bail!("these books are not of one system: {why}. Audit those that belong together");
            }
        }
        Ok(found)
    }

    fn audit(&self) -> anyhow::Result<AuditReport> {
        let OrdersAnswer::Audit(orders) = told(|done| self.orders.query(OrdersQuery::Audit, done))? else {
            bail!("the orders database answered another question");
        };
        let ledger = |ledger: &RedisLedger| match told(|done| ledger.read(LedgerQuery::Audit, done))? {
            LedgerAnswer::Audit(found) => Ok(*found),
            _ => bail!("a ledger's database answered another question"),
        };
        let (stock, payment) = (ledger(&self.stock)?, ledger(&self.payment)?);
        let now = told(|done| self.orders.query(OrdersQuery::Progress, done))?;
        let stood_still = now == OrdersAnswer::Progress(orders.ended);
        Ok(compare(*orders, stock, payment, stood_still))
    }
}

/// Waits for a database.
fn told<T: Send + 'static>(ask: impl FnOnce(Done<Result<T, StoreFailure>>)) -> anyhow::Result<T> {
    let (send, answer) = channel();
    ask(Box::new(move |told| _ = send.send(told)));
    Ok(answer.recv().context("a database stopped while it was asked")??)
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
    let AuditReport { off, findings, paid_orders, paid_cost, items, users, open_transactions, compared, .. } = report;
    let checked = format!("{} and {} add up", number(*items, "item"), number(*users, "user"));
    if report.is_clean() && *compared {
        let paid = number(*paid_orders, "paid order");
        return format!("Audit OK: {paid} for {paid_cost} in all; {checked}, and match them exactly.");
    }
    let not_compared = format!(
        "{} not settled yet, so orders could not be compared with the ledgers; only the ledgers in themselves were checked.",
        are(*open_transactions, "transaction")
    );
    if report.is_clean() {
        return format!(
            "Audit incomplete: {checked}, but {not_compared}\nLet the shop run and settle them (`settle tx list` shows them), \
             then audit again, or with a longer --wait."
        );
    }
    let mut text = format!("Audit FAILED: {} off.", are(*off, "thing"));
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

/// `1 item`, `1000 items`: without commas, for scripts read these.
fn number<N: PartialEq + From<u8> + Display>(count: N, thing: &str) -> String {
    format!("{count} {thing}{}", if count == N::from(1) { "" } else { "s" })
}

fn are(count: usize, thing: &str) -> String {
    format!("{} {}", number(count, thing), if count == 1 { "is" } else { "are" })
}
