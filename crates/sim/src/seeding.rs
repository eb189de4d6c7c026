//! `batch_init`: replaces accounts or orders in the middle of everything, once nothing is open there.

use ledger::{LedgerCommand, LedgerReply};
use shop::orders::{OrdersCommand, OrdersReply};

use crate::invariants::replaced;
use crate::network::Node;
use crate::world::{Event, MILLI, World};

/// How often it looks whether nothing is open any more.
const PATIENCE: u32 = 60;

impl World {
    pub(crate) fn on_reseed(&mut self) {
        if self.calm {
            return;
        }
        let mean = self.conditions.reseed;
        let next = self.random.between(mean / 4, 2 * mean) * MILLI;
        self.after(next, Event::Reseed);
        let node = *self.random.pick(&[Node::Orders, Node::Ledger(0), Node::Ledger(1)]);
        self.on_replace(node, PATIENCE);
    }

    pub(crate) fn on_replace(&mut self, node: Node, tries: u32) {
        let busy = match node {
            Node::Orders if self.orders.is_up() => self.replace_orders(),
            Node::Ledger(participant) if self.ledgers[participant].is_up() => self.replace_accounts(participant),
            _ => true,
        };
        if busy && tries > 0 && !self.calm {
            self.after(30 * MILLI, Event::Replace(node, tries - 1));
        }
    }

    fn replace_orders(&mut self) -> bool {
        let count = self.random.between(1, self.orders_made);
        let price = self.random.between(0, 4) as i64;
        let (items, users, seed) = (self.conditions.items, self.conditions.users, self.random.next());
        let open = self.orders.applied().transactions().open().next().map(|(id, _)| id);
        let reply = self.apply_orders(&OrdersCommand::Replace { count, items, users, price, seed });
        if reply == OrdersReply::Done {
            let check = replaced::orders(open, self.orders.applied(), (count, items, users), price);
            self.check(check);
        }
        matches!(reply, OrdersReply::Busy(_))
    }

    fn replace_accounts(&mut self, participant: usize) -> bool {
        let (count, available) = match participant {
            0 => (self.conditions.items, self.conditions.stock),
            _ => (self.conditions.users, self.conditions.credit),
        };
        let open = self.ledgers[participant].applied().open_branches().next().map(|(id, _)| id);
        let reply = self.apply_ledger(participant, &LedgerCommand::Replace { count, available, price: 0 });
        if reply == LedgerReply::Done {
            let check = replaced::accounts(open, self.ledgers[participant].applied(), count, available);
            self.check(check);
        }
        matches!(reply, LedgerReply::Busy(_))
    }
}
