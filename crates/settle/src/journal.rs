//! `settle journal cat`: the journal of one store, as lines a person can read.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::bail;
use clap::{Args, Subcommand};
use embedded::Machine;
use embedded::journal::{cat, machine_name};
use ledger::Ledger;
use serde::Serialize;
use serde_json::Value;
use shop::orders::OrderBook;

use crate::{decode, output};

/// Reads a store's journal. Takes no lock and changes nothing.
#[derive(Debug, Clone, Args)]
pub(crate) struct JournalArgs {
    #[command(subcommand)]
    command: JournalCommand,
}

#[derive(Debug, Clone, Subcommand)]
enum JournalCommand {
    /// Print the commands in a store's journal, oldest first, one JSON object a line.
    ///
    /// The shop may be running. What a snapshot has made needless is gone from the journal. Payloads and contexts are shown as
    /// bytes in hexadecimal, and beside them decoded, as `entries` and `claim`.
    #[command(after_help = CAT_EXAMPLES)]
    Cat(CatArgs),
}

const CAT_EXAMPLES: &str = "\
Examples:
  Everything that happened to the orders:
    settle journal cat settle-data/orders

  What became of one order, with jq:
    settle journal cat settle-data/orders |
      jq -c 'select(.command.log.stage.transaction.claim.order? == \"7\")'

  Ten commands from the thousandth on:
    settle journal cat settle-data/payment --from 1000 --limit 10

Exit code: 0 printed; 2 the folder is no store, or its journal is damaged: the message says in which file, at
which byte, and what to do. What stands before the damage is printed.";

#[derive(Debug, Clone, Args)]
struct CatArgs {
    /// The folder of one store: settle-data/orders, settle-data/stock or settle-data/payment.
    #[arg(value_name = "DIR")]
    folder: PathBuf,
    /// Begin with this sequence number; the first command ever has 1.
    #[arg(long, value_name = "SEQ", default_value_t = 1)]
    from: u64,
    /// Print so many commands at most.
    #[arg(long, value_name = "N")]
    limit: Option<usize>,
}

/// A command of the journal as it is printed.
#[derive(Serialize)]
struct Line<'a> {
    file: &'a str,
    offset: u64,
    sequence: u64,
    version: u16,
    command: Value,
}

pub(crate) fn journal(args: JournalArgs) -> anyhow::Result<ExitCode> {
    let JournalCommand::Cat(args) = args.command;
    if args.folder.join(OrderBook::NAME).is_dir() {
        let data = args.folder.display();
        bail!("{data} is a whole shop, with three stores: name one of {data}/orders, {data}/stock and {data}/payment");
    }
    match machine_name(&args.folder)?.as_deref() {
        Some(OrderBook::NAME) => print::<OrderBook>(&args),
        Some(Ledger::NAME) => print::<Ledger>(&args),
        Some(other) => bail!("{} is the store of a {other:?}, which this program does not know", args.folder.display()),
        None => bail!("{} is no store: it has no journal-….seg", args.folder.display()),
    }
}

fn print<M: Machine>(args: &CatArgs) -> anyhow::Result<ExitCode> {
    let mut left = args.limit.unwrap_or(usize::MAX);
    for entry in cat::<M>(&args.folder)? {
        if left == 0 {
            break;
        }
        let entry = entry?;
        if entry.sequence < args.from {
            continue;
        }
        let mut command = serde_json::to_value(&entry.command)?;
        decode::annotate(&mut command);
        let file = entry.file.file_name().unwrap_or_default().to_string_lossy();
        let line =
            Line { file: &file, offset: entry.offset, sequence: entry.sequence, version: entry.version, command };
        if !output::say(&serde_json::to_string(&line)?)? {
            break;
        }
        left -= 1;
    }
    Ok(ExitCode::SUCCESS)
}

/// The transaction as it was staged, payloads included, if the journal of the orders still has it. The log itself drops the
/// payloads of what is finished.
pub(crate) fn staged(data: &Path, id: protocol::TransactionId) -> Option<std::sync::Arc<protocol::Transaction>> {
    use protocol::log::LogCommand;
    use shop::orders::OrdersCommand;
    let entries = cat::<OrderBook>(&data.join("orders")).ok()?;
    entries.map_while(Result::ok).find_map(|entry| match entry.command {
        OrdersCommand::Log(LogCommand::Stage { transaction, .. }) if transaction.id == id => Some(transaction),
        _ => None,
    })
}
