//! The [`Ledger`] as a machine of this store.

use std::io::{self, Read, Write};

use ::ledger::{FrozenLedger, Ledger, LedgerCommand, LedgerReply};
use table::Table;

use crate::{Applied, Machine, rows};

impl Machine for Ledger {
    type Command = LedgerCommand;
    type Reply = LedgerReply;
    type Frozen = FrozenLedger;

    const NAME: &'static str = "ledger";
    const VERSION: u16 = 2;

    fn new() -> Self {
        Self::default()
    }

    fn apply(&mut self, command: &LedgerCommand) -> Applied<LedgerReply> {
        let (reply, changed) = Ledger::apply(self, command);
        Applied { reply, changed }
    }

    fn freeze(&self) -> FrozenLedger {
        Ledger::freeze(self)
    }

    fn write_snapshot(frozen: &FrozenLedger, out: &mut dyn Write) -> io::Result<()> {
        rows::write(frozen.accounts.len(), frozen.accounts.iter(), out)?;
        rows::write(frozen.branches.len(), frozen.branches.iter(), out)?;
        rows::write_row(&frozen.rest, &mut Vec::new(), out)
    }

    fn read_snapshot(input: &mut dyn Read, _: u16) -> io::Result<Self> {
        let (mut accounts, mut branches) = (Table::default(), Table::default());
        rows::read(input, |(id, account)| _ = accounts.insert(id, account))?;
        rows::read(input, |(id, branch)| _ = branches.insert(id, branch))?;
        let rest = rows::read_row(&mut Vec::new(), input)?;
        Ok(Self::thaw(accounts, branches, rest))
    }
}
