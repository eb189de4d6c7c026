//! The order book in the embedded store: as a machine, and as the orchestrator's log.

use std::io::{self, Read, Write};

use embedded::{Applied, Machine, Store, StoreError, rows};
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
    const VERSION: u16 = 2;

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

    fn read_snapshot(input: &mut dyn Read, _: u16) -> io::Result<Self> {
        let (mut orders, mut records) = (Table::default(), Vec::new());
        rows::read(input, |(id, order)| _ = orders.insert(id, order))?;
        rows::read(input, |row| records.push(row))?;
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
