//! The [`Ledger`] as a machine of this store.

use std::io::{self, Read, Write};

use ::ledger::{FrozenLedger, Keys, Ledger, LedgerCommand, LedgerReply};
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
        rows::write(frozen.keys.len(), frozen.keys.iter(), out)?;
        rows::write_row(&frozen.rest, &mut Vec::new(), out)
    }

    fn read_snapshot(input: &mut dyn Read, _: u16) -> io::Result<Self> {
        let (mut accounts, mut branches, mut keys) = (Table::default(), Table::default(), Table::default());
        rows::read(input, |(id, account)| _ = accounts.insert(id, account))?;
        rows::read(input, |(id, branch)| _ = branches.insert(id, branch))?;
        rows::read(input, |(key, found)| _ = keys.insert(key, found))?;
        let rest = rows::read_row(&mut Vec::new(), input)?;
        Ok(Self::thaw(accounts, branches, Keys::thaw(keys), rest))
    }
}

#[cfg(test)]
mod tests {
    use ::ledger::{Change, EntityId, IdempotencyKey};
    use protocol::Timestamp;
    use protocol::limits::MAX_IDEMPOTENCY_KEYS;

    use super::*;

    #[test]
    fn as_many_keys_as_are_ever_kept_fit_in_a_snapshot() {
        let account = EntityId::number(1);
        let keyed = |n: usize| LedgerCommand::Change {
            change: Change::Credit { account, amount: 1 },
            key: Some(IdempotencyKey { key: format!("{n:036}").into(), fingerprint: u64::MAX, at: Timestamp(1) }),
        };
        let mut ledger = Ledger::default();
        ledger.apply(&LedgerCommand::Change { change: Change::Open { account, price: 0 }, key: None });
        let first = ledger.apply(&keyed(0));
        (1..MAX_IDEMPOTENCY_KEYS).for_each(|n| _ = ledger.apply(&keyed(n)));
        let mut bytes = Vec::new();
        <Ledger as Machine>::write_snapshot(&ledger.freeze(), &mut bytes).unwrap();
        let mut back = <Ledger as Machine>::read_snapshot(&mut &bytes[..], Ledger::VERSION).unwrap();
        assert_eq!(back.apply(&keyed(0)), (first.0, false), "the oldest is there");
        back.apply(&keyed(MAX_IDEMPOTENCY_KEYS));
        assert!(back.apply(&keyed(0)).1 && !back.apply(&keyed(2)).1, "and is still the oldest");
    }
}
