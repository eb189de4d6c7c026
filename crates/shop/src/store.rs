//! The order book in the embedded store: as a machine, and as the orchestrator's log.

use std::io::{self, Read, Write};
use std::sync::Arc;

use embedded::{Applied, Machine, Store, StoreError, rows};
use orchestrator::{Done, Log, LogAnswer, LogError, LogQuery, answer};
use protocol::log::{DeadLetter, LogCommand, LogReply, LogState, Record, Resolution};
use protocol::{Decision, Name, Timestamp, Transaction, TransactionId};
use serde::Deserialize;
use table::Table;

use crate::orders::{FrozenOrders, OrderBook, OrdersCommand, OrdersReply};
use crate::trail::Trail;

impl Machine for OrderBook {
    type Command = OrdersCommand;
    type Reply = OrdersReply;
    type Frozen = FrozenOrders;

    const NAME: &'static str = "orders";
    const VERSION: u16 = 4;
    /// 2 differs in that its records have no history.
    const OLDEST_READ: u16 = 2;

    fn new() -> Self {
        Self::default()
    }

    fn apply(&mut self, command: &OrdersCommand) -> Applied<OrdersReply> {
        let (reply, changed) = Self::apply(self, command);
        Applied { reply, changed }
    }

    fn freeze(&self) -> FrozenOrders {
        Self::freeze(self)
    }

    fn write_snapshot(frozen: &FrozenOrders, out: &mut dyn Write) -> io::Result<()> {
        let buffer = &mut Vec::new();
        rows::write(frozen.orders.len(), frozen.orders.iter(), out)?;
        rows::write(frozen.log.records.len(), frozen.log.records.iter(), out)?;
        rows::write_row(&frozen.log.instances, buffer, out)?;
        rows::write_row(&frozen.log.finished, buffer, out)?;
        rows::write_row(&frozen.log.floor, buffer, out)?;
        rows::write_row(&frozen.rest, buffer, out)?;
        let trail = frozen.trail.entries();
        rows::write(trail.len(), trail.iter(), out)
    }

    fn read_snapshot(input: &mut dyn Read, version: u16) -> io::Result<Self> {
        let (mut orders, mut records) = (Table::default(), Vec::new());
        rows::read(input, |(id, order)| _ = orders.insert(id, order))?;
        match version {
            2 => rows::read(input, |(id, record): (TransactionId, Record2)| records.push((id, record.into())))?,
            _ => rows::read(input, |row| records.push(row))?,
        }
        let buffer = &mut Vec::new();
        let instances = rows::read_row(buffer, input)?;
        let finished = rows::read_row(buffer, input)?;
        let floor = rows::read_row(buffer, input)?;
        let rest = rows::read_row(buffer, input)?;
        let mut trail = Vec::new();
        rows::read(input, |entry| trail.push(entry))?;
        Ok(Self::thaw(orders, LogState::thaw(records, instances, finished, floor), rest, Trail::of(trail)))
    }
}

/// A record as version 2 wrote it.
#[derive(Deserialize)]
#[cfg_attr(test, derive(serde::Serialize))]
struct Record2 {
    transaction: Option<Arc<Transaction>>,
    owner: Option<Name>,
    decided: Option<(Decision, Timestamp)>,
    finished: Option<Timestamp>,
    letters: Vec<DeadLetter>,
    resolutions: Vec<Resolution>,
}

impl From<Record2> for Record {
    fn from(old: Record2) -> Self {
        let Record2 { transaction, owner, decided, finished, letters, resolutions } = old;
        Self {
            transaction,
            owner,
            decided,
            finished,
            letters: letters.into(),
            resolutions: resolutions.into(),
            history: None,
        }
    }
}

/// The transaction log that lives with the orders.
#[derive(Clone, Debug)]
pub struct OrderLog(pub Store<OrderBook>);

fn log_reply(answer: Result<OrdersReply, StoreError>) -> Result<LogReply, LogError> {
    match answer {
        Ok(OrdersReply::Log(reply)) => Ok(reply),
        Ok(other) => Err(LogError(format!("an answer to no log command: {other:?}"))),
        Err(error) => Err(LogError(error.to_string())),
    }
}

impl Log for OrderLog {
    fn append(&self, command: LogCommand, done: Done<Result<LogReply, LogError>>) {
        self.0.submit(OrdersCommand::Log(command), |answer| done(log_reply(answer)));
    }

    fn decide(
        &self,
        command: LogCommand,
        readable: Done<Result<LogReply, LogError>>,
        durable: Done<Result<LogReply, LogError>>,
    ) {
        let applied = self.0.submit_applied(OrdersCommand::Log(command), |answer| durable(log_reply(answer)));
        readable(log_reply(applied));
    }

    fn read(&self, query: LogQuery, done: Done<Result<LogAnswer, LogError>>) {
        let look = move |book: &OrderBook| answer(book.transactions(), query);
        self.0.read_durable(look, |found| done(found.map_err(|error| LogError(error.to_string()))));
    }
}

#[cfg(test)]
mod tests {
    use protocol::log::{Handover, History, Standing};

    use super::*;
    use crate::orders::OrdersRest;

    fn id(n: u8) -> TransactionId {
        TransactionId::new(Timestamp(1_000), [n; 16])
    }

    fn read(bytes: &[u8], version: u16) -> Vec<(TransactionId, Record)> {
        let mut left = bytes;
        let book = <OrderBook as Machine>::read_snapshot(&mut left, version).unwrap();
        assert!(left.is_empty());
        match answer(book.transactions(), LogQuery::Listing { standing: Some(Standing::Settling), limit: 9 }) {
            LogAnswer::Listing(found) => found,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_snapshot_of_the_version_before_is_read_and_this_ones_keeps_histories() {
        let owner = Some(Name::literal("single"));
        let decided = Some((Decision::Commit, Timestamp(7)));
        let old = Record2 { transaction: None, owner, decided, finished: None, letters: vec![], resolutions: vec![] };
        let (mut bytes, buffer) = (Vec::new(), &mut Vec::new());
        rows::write(0, std::iter::empty::<()>(), &mut bytes).unwrap();
        rows::write(1, [(id(1), old)].into_iter(), &mut bytes).unwrap();
        rows::write_row(&std::collections::BTreeMap::<Name, ()>::new(), buffer, &mut bytes).unwrap();
        rows::write_row(&Vec::<TransactionId>::new(), buffer, &mut bytes).unwrap();
        rows::write_row(&Timestamp(5), buffer, &mut bytes).unwrap();
        rows::write_row(&OrdersRest::default(), buffer, &mut bytes).unwrap();
        rows::write(0, std::iter::empty::<()>(), &mut bytes).unwrap();
        let mut found = read(&bytes, 2);
        assert_eq!(found[0].1.decided_by(), owner);

        let from = Handover { from: Name::literal("a"), to: Name::literal("single"), at: Timestamp(8), decided: true };
        found[0].1.history = Some(Box::new(History { handovers: vec![from], tries: vec![] }));
        let book = |records| {
            let log = LogState::thaw(records, Default::default(), Default::default(), Timestamp(5));
            OrderBook::thaw(Table::default(), log, OrdersRest::default(), Trail::default())
        };
        let mut bytes = Vec::new();
        <OrderBook as Machine>::write_snapshot(&book(found.clone()).freeze(), &mut bytes).unwrap();
        assert_eq!(read(&bytes, 3), found);
    }
}
