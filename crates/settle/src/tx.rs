//! `settle tx`: the transactions, and what an operator can do about them.

use std::io::{IsTerminal, Write};
use std::process::ExitCode;

use anyhow::{Context, bail};
use clap::{Args, Subcommand, ValueEnum};
use embedded::Store;
use orchestrator::{LogAnswer, LogQuery, answer};
use protocol::TransactionId;
use protocol::limits::{KEPT_TRAIL, MAX_PAGE};
use protocol::log::Standing;
use serde_json::{Value, json};
use shop::admin::{ResolveRequest, RetryRequest, TransactionView, tell};
use shop::orders::OrderBook;
use shop::trail::Entry;

use crate::door::Door;
use crate::folder::Folder;
use crate::output::{say, time};
use crate::{decode, history, journal};

const EXAMPLES: &str = "\
Examples:
  settle tx list --state stuck
  settle tx show 0190b6e2-7c1f-7c3a-8f00-000000000000
  settle tx retry 0190b6e2-7c1f-7c3a-8f00-000000000000
  settle tx resolve 0190b6e2-7c1f-7c3a-8f00-000000000000 --step 1 --operator alice --reason 'ticket 4711'
  settle tx trail
Of the distributed system; any order instance will do:
  settle tx list --state stuck --up settle-up
  settle tx list --state stuck --socket /run/settle/order-1.sock

A transaction goes through these states:
  in-flight   not decided; its coordinator is on it
  in-doubt    not decided, and left to recovery, which asks the participants
  settling    decided; not every participant has acknowledged
  stuck       decided; a participant still has not acknowledged: a person should look
  finished    decided and acknowledged

Of a data folder, `list`, `show` and `trail` work whether the shop runs or not; `retry` and `resolve` need it to run.
Exit code: 0 done; 2 it could not be done, and the message says why.";

/// Looks at transactions, and settles those that are stuck.
#[derive(Debug, Clone, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct TxArgs {
    #[command(subcommand)]
    command: TxCommand,
}

#[derive(Debug, Clone, Subcommand)]
enum TxCommand {
    /// List transactions, the latest first.
    List(ListArgs),
    /// Tell one transaction's whole history.
    Show(ShowArgs),
    /// Try at once everything that is left of a transaction.
    ///
    /// Do this when the cause is mended: a stuck transaction is tried every ten seconds anyhow.
    Retry(RetryArgs),
    /// Count one step of a stuck transaction as acknowledged, so that it can finish without its service.
    ///
    /// This changes no balance. A branch that the service still holds open is settled as decided when the service next asks the
    /// log about it, some seconds after its birth or when it is back: do not settle the same by hand as well. Who did it, and why, is
    /// kept with the transaction; until the service has done its part, `settle audit` shows what is missing.
    Resolve(ResolveArgs),
    /// Tell what operators did: who, when, to which transaction, why, and what came of it; the latest first.
    Trail(TrailArgs),
}

#[derive(Debug, Clone, Args)]
struct ListArgs {
    /// Only those in this state.
    #[arg(long, value_enum)]
    state: Option<State>,
    /// List so many at most, up to 1000.
    #[arg(long, value_name = "N", default_value_t = 50, value_parser = clap::value_parser!(u16).range(1..=MAX_PAGE as i64))]
    limit: u16,
    /// Print a JSON object a line.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    door: Door,
}

#[derive(Debug, Clone, Args)]
struct ShowArgs {
    /// The transaction.
    id: TransactionId,
    /// Print one line of JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    door: Door,
}

#[derive(Debug, Clone, Args)]
struct TrailArgs {
    /// Tell so much at most, up to 1000.
    #[arg(long, value_name = "N", default_value_t = 50, value_parser = clap::value_parser!(u16).range(1..=MAX_PAGE as i64))]
    limit: u16,
    /// Print a JSON object a line.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    door: Door,
}

#[derive(Debug, Clone, Args)]
struct RetryArgs {
    /// The transaction.
    id: TransactionId,
    /// Who does it; the user of this system unless told.
    #[arg(long, value_name = "NAME")]
    operator: Option<String>,
    #[command(flatten)]
    door: Door,
}

#[derive(Debug, Clone, Args)]
struct ResolveArgs {
    /// The transaction.
    id: TransactionId,
    /// Which of its steps, from 0, as `settle tx show` numbers them.
    #[arg(long, value_name = "N")]
    step: u8,
    /// Why this is right. Asked for if missing, on a terminal.
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
    /// Who does it; the user of this system unless told.
    #[arg(long, value_name = "NAME")]
    operator: Option<String>,
    #[command(flatten)]
    door: Door,
}

/// Where a transaction stands, as an operator sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum State {
    /// Not decided; its coordinator is on it.
    InFlight,
    /// Not decided, and left to recovery.
    InDoubt,
    /// Decided, and a person should look.
    Stuck,
    /// Decided, not acknowledged by everyone.
    Settling,
    /// Decided and acknowledged.
    Finished,
}

impl State {
    fn of(view: &TransactionView) -> Self {
        match (view.standing, view.driven.as_deref()) {
            (Standing::Undecided, None | Some("inquiring" | "deciding")) => Self::InDoubt,
            (Standing::Undecided, Some(_)) => Self::InFlight,
            (Standing::Stuck, _) => Self::Stuck,
            (Standing::Settling, _) => Self::Settling,
            (Standing::Finished, _) => Self::Finished,
        }
    }

    /// What the log calls it, which does not know who drives what.
    fn standing(self) -> Standing {
        match self {
            Self::InFlight | Self::InDoubt => Standing::Undecided,
            Self::Stuck => Standing::Stuck,
            Self::Settling => Standing::Settling,
            Self::Finished => Standing::Finished,
        }
    }

    fn word(self) -> &'static str {
        match self {
            Self::InFlight => "in-flight",
            Self::InDoubt => "in-doubt",
            Self::Stuck => "stuck",
            Self::Settling => "settling",
            Self::Finished => "finished",
        }
    }
}

pub(crate) fn tx(args: TxArgs) -> anyhow::Result<ExitCode> {
    match args.command {
        TxCommand::List(args) => list(&args)?,
        TxCommand::Show(args) => show(&args)?,
        TxCommand::Retry(args) => retry(&args)?,
        TxCommand::Resolve(args) => resolve(args)?,
        TxCommand::Trail(args) => trail(&args)?,
    }
    Ok(ExitCode::SUCCESS)
}

fn list(args: &ListArgs) -> anyhow::Result<()> {
    let limit = usize::from(args.limit);
    // Two states are one to the log: of those, all that it will list are looked through.
    let asked = if args.state.is_some_and(|state| state.standing() == Standing::Undecided) { MAX_PAGE } else { limit };
    let standing = args.state.map(State::standing);
    let mut views: Vec<TransactionView> = match args.door.running()? {
        Some(mut shop) => {
            let standing = standing.map(serde_json::to_value).transpose()?;
            let state = standing.as_ref().and_then(Value::as_str).map(|word| format!("&state={word}"));
            shop.get(&format!("/transactions?limit={asked}{}", state.unwrap_or_default()))?
        }
        None => look(&args.door.folder, |book| listing(book, standing, asked))?,
    };
    views.retain(|view| args.state.is_none_or(|state| State::of(view) == state));
    views.truncate(limit);
    if args.json {
        for view in &views {
            if !say(&json_line(view)?)? {
                break;
            }
        }
        return Ok(());
    }
    if views.is_empty() {
        let which = args.state.map(|state| format!("{} ", state.word())).unwrap_or_default();
        say(&format!("No {which}transactions."))?;
        return Ok(());
    }
    say(&row("TRANSACTION", "STATE", "DECISION", "PROTOCOL", "BORN", "ORDER"))?;
    for view in &views {
        let transaction = view.record.transaction.as_deref();
        let decision =
            view.record.decision().map_or("-", |decision| if decision.is_commit() { "commit" } else { "abort" });
        let protocol = transaction.map_or_else(|| "-".to_owned(), |transaction| transaction.protocol.to_string());
        let order = transaction.and_then(decode::order).map_or_else(|| "-".to_owned(), |order| order.to_string());
        let born = time(view.id.birth());
        if !say(&row(&view.id.to_string(), State::of(view).word(), decision, &protocol, &born, &order))? {
            break;
        }
    }
    Ok(())
}

fn row(id: &str, state: &str, decision: &str, protocol: &str, born: &str, order: &str) -> String {
    format!("{id:36}  {state:9}  {decision:8}  {protocol:8}  {born:24}  {order}")
}

fn show(args: &ShowArgs) -> anyhow::Result<()> {
    let mut view: TransactionView = match args.door.running()? {
        Some(mut shop) => shop.get(&format!("/transactions/{}", args.id))?,
        None => match look(&args.door.folder, |book| alone(book, args.id))? {
            Some(view) => view,
            None => {
                bail!("there is no transaction `{}`: it was never staged here, or is finished and forgotten", args.id)
            }
        },
    };
    if view.standing == Standing::Finished
        && view.record.transaction.is_some()
        && args.door.is_folder()
        && let Some(staged) = journal::staged(&args.door.folder.data, args.id)
    {
        view.record.transaction = Some(staged);
    }
    say(&if args.json { json_line(&view)? } else { history::tell(&view, State::of(&view).word()) })?;
    Ok(())
}

/// Looks into the orders of a shop that is not running.
fn look<T>(folder: &Folder, read: impl FnOnce(&OrderBook) -> T) -> anyhow::Result<T> {
    let orders: Store<OrderBook> = folder.open("orders")?;
    orders.read(read).context("the store stopped while it was read")
}

fn listing(book: &OrderBook, standing: Option<Standing>, limit: usize) -> Vec<TransactionView> {
    match answer(book.transactions(), LogQuery::Listing { standing, limit }) {
        LogAnswer::Listing(found) => {
            found.into_iter().map(|(id, record)| TransactionView::undriven(id, record)).collect()
        }
        _ => Vec::new(),
    }
}

/// One transaction with everything that is known to have happened to it.
fn alone(book: &OrderBook, id: TransactionId) -> Option<TransactionView> {
    let mut view = TransactionView::undriven(id, book.transactions().get(id)?.clone());
    let trail: Vec<Entry> = book.trail().latest(KEPT_TRAIL).cloned().collect();
    view.timeline = Some(tell(&view, &trail));
    Some(view)
}

fn json_line(view: &TransactionView) -> anyhow::Result<String> {
    let mut value = serde_json::to_value(view)?;
    value["state"] = json!(State::of(view).word());
    decode::annotate(&mut value);
    Ok(value.to_string())
}

fn retry(args: &RetryArgs) -> anyhow::Result<()> {
    let mut shop = args.door.must_run("send anything again")?;
    let request = RetryRequest { operator: Some(named(args.operator.as_deref())), reason: None };
    shop.post(&format!("/transactions/{}/retry", args.id), &request)?;
    say(&format!("Sent again. See what comes of it: settle tx show {}{}", args.id, args.door.again()))?;
    Ok(())
}

fn resolve(args: ResolveArgs) -> anyhow::Result<()> {
    let ResolveArgs { id, step, reason, operator, door } = args;
    let mut shop = door.must_run("resolve a step")?;
    let reason = match reason {
        Some(reason) => reason,
        None => ask_why(id, step)?,
    };
    if reason.trim().is_empty() {
        bail!("a step is not resolved without a reason: say with --reason what was done, and why it is right");
    }
    let operator = named(operator.as_deref());
    let said = format!("Step {step} of {id} counts as acknowledged. By {operator}: {reason}");
    shop.post(&format!("/transactions/{id}/resolve"), &ResolveRequest { step, operator, reason })?;
    say(&said)?;
    Ok(())
}

fn trail(args: &TrailArgs) -> anyhow::Result<()> {
    let limit = usize::from(args.limit);
    let entries: Vec<Entry> = match args.door.running()? {
        Some(mut shop) => shop.get(&format!("/trail?limit={limit}"))?,
        None => look(&args.door.folder, |book| book.trail().latest(limit).cloned().collect())?,
    };
    if entries.is_empty() && !args.json {
        say("Operators have done nothing yet.")?;
    }
    for Entry { number, note, outcome } in &entries {
        let line = if args.json {
            json!({ "number": number, "note": note, "outcome": outcome }).to_string()
        } else {
            let step = note.step.map(|step| format!(" step {step}")).unwrap_or_default();
            let why = note.reason.as_deref().map(|why| format!(", because: {why}")).unwrap_or_default();
            let end = outcome.as_deref().unwrap_or("not known; look at the transaction");
            let (at, who, act, id) = (time(note.at), &note.operator, note.act, note.transaction);
            format!("{at}  {who}: {act} {id}{step}{why}\n    outcome: {end}")
        };
        if !say(&line)? {
            break;
        }
    }
    Ok(())
}

/// Who does it, for the trail: as was said; else whom this system has logged in; else whose process this is.
fn named(said: Option<&str>) -> String {
    let logged_in = std::env::var("USER").ok();
    let mut names = [said, logged_in.as_deref()].into_iter().flatten();
    names.find(|name| !name.trim().is_empty()).map_or_else(owner, str::to_owned)
}

/// Whose process this is: the name, if the system has a list of its users.
fn owner() -> String {
    let user = rustix::process::getuid().as_raw().to_string();
    let users = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
    let name = users.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next().filter(|name| !name.is_empty())?;
        (fields.nth(1)? == user).then_some(name)
    });
    name.map_or_else(|| format!("user {user}"), str::to_owned)
}

/// Asks a person for the reason; answers nothing if there is none.
fn ask_why(id: TransactionId, step: u8) -> anyhow::Result<String> {
    let mut reason = String::new();
    if std::io::stdin().is_terminal() {
        let mut screen = std::io::stderr();
        write!(screen, "What did you do about step {step} of {id}, and why is it right? ")?;
        screen.flush()?;
        std::io::stdin().read_line(&mut reason).context("cannot read the reason")?;
    }
    Ok(reason.trim().to_owned())
}
