//! The order book in the embedded store: as a machine, and as the orchestrator's log.

use std::io::{self, Read, Write};

use embedded::{Applied, Machine, Store, StoreError, rows};
use ledger::Keys;
use orchestrator::{Done, Log, LogAnswer, LogError, LogQuery, answer};
use protocol::log::{LogCommand, LogReply, LogState};
use table::Table;

use crate::orders::{FrozenOrders, OrderBook, OrdersCommand, OrdersReply};
use crate::trail::Trail;

impl Machine for OrderBook {
    type Command = OrdersCommand;
    type Reply = OrdersReply;
    type Frozen = FrozenOrders;

    const NAME: &'static str = "orders";
    const VERSION: u16 = 4;

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
        rows::write(frozen.keys.len(), frozen.keys.iter(), out)?;
        rows::write_row(&frozen.rest, buffer, out)?;
        let trail = frozen.trail.entries();
        rows::write(trail.len(), trail.iter(), out)
    }

    fn read_snapshot(input: &mut dyn Read, _: u16) -> io::Result<Self> {
        let (mut orders, mut records, mut keys) = (Table::default(), Vec::new(), Table::default());
        rows::read(input, |(id, order)| _ = orders.insert(id, order))?;
        rows::read(input, |row| records.push(row))?;
        let buffer = &mut Vec::new();
        let instances = rows::read_row(buffer, input)?;
        let finished = rows::read_row(buffer, input)?;
        let floor = rows::read_row(buffer, input)?;
        rows::read(input, |(key, found)| _ = keys.insert(key, found))?;
        let rest = rows::read_row(buffer, input)?;
        let mut trail = Vec::new();
        rows::read(input, |entry| trail.push(entry))?;
        let log = LogState::thaw(records, instances, finished, floor);
        Ok(Self::thaw(orders, log, Keys::thaw(keys), rest, Trail::of(trail)))
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
    use protocol::log::{Handover, History, Record, Standing};
    use protocol::{Decision, Name, Timestamp, TransactionId};

    use super::*;
    use crate::orders::OrdersRest;

    #[test]
    fn a_snapshot_keeps_histories() {
        let handover = Handover { from: Name::literal("a"), to: Name::literal("b"), at: Timestamp(8), decided: true };
        let record = Record {
            transaction: None,
            owner: Some(Name::literal("b")),
            decided: Some((Decision::Commit, Timestamp(7))),
            finished: None,
            letters: Default::default(),
            resolutions: Default::default(),
            history: Some(Box::new(History { handovers: vec![handover], tries: vec![] })),
        };
        let records = vec![(TransactionId::new(Timestamp(1_000), [1; 16]), record)];
        let log = LogState::thaw(records.clone(), Default::default(), Default::default(), Timestamp(5));
        let book = OrderBook::thaw(Table::default(), log, Keys::default(), OrdersRest::default(), Trail::default());
        let mut bytes = Vec::new();
        <OrderBook as Machine>::write_snapshot(&book.freeze(), &mut bytes).unwrap();
        let mut left = &bytes[..];
        let book = <OrderBook as Machine>::read_snapshot(&mut left, OrderBook::VERSION).unwrap();
        assert!(left.is_empty());
        match answer(book.transactions(), LogQuery::Listing { standing: Some(Standing::Settling), limit: 9 }) {
            LogAnswer::Listing(found) => assert_eq!(found, records),
            other => panic!("{other:?}"),
        }
    }
}
