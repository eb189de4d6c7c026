//! The cashier: credits accounts under idempotency keys, again and again until there is an answer.

use std::sync::Arc;

use ledger::{Change, EntityId, IdempotencyKey, LedgerCommand, LedgerReply};

use crate::invariants::idempotency;
use crate::network::Node;
use crate::world::{Event, LedgerWaiter, MILLI, World};

/// A credit that nobody has confirmed yet.
#[derive(Debug, Clone)]
pub(crate) struct Deposit {
    participant: usize,
    command: LedgerCommand,
}

/// The name under which the cashier repeats a deposit.
pub(crate) fn key(deposit: u64) -> Arc<str> {
    format!("deposit-{deposit}").into()
}

impl World {
    /// A change of an account that is no part of a transaction.
    pub(crate) fn on_top_up(&mut self) {
        if self.calm {
            return;
        }
        let after = self.random.between(300, 3_000) * MILLI;
        self.after(after, Event::TopUp);
        let participant = self.random.index(2);
        let accounts = if participant == 0 { self.conditions.items } else { self.conditions.users };
        let account = EntityId::number(self.random.below(accounts));
        let amount = self.random.between(1, 6) as i64;
        if self.random.chance(700) {
            let deposit = self.serial();
            let key = IdempotencyKey { key: key(deposit), fingerprint: deposit, at: self.true_time() };
            let command = LedgerCommand::Change { change: Change::Credit { account, amount }, key: Some(key) };
            self.deposits.insert(deposit, Deposit { participant, command });
            self.on_hand_in(deposit);
        } else if self.ledgers[participant].is_up() {
            self.apply_ledger(
                participant,
                &LedgerCommand::Change { change: Change::Debit { account, amount }, key: None },
            );
        }
    }

    /// Sends a deposit that is not confirmed yet, and looks again later.
    pub(crate) fn on_hand_in(&mut self, number: u64) {
        let Some(deposit) = self.deposits.get(&number).cloned() else { return };
        let again = self.random.chance(self.conditions.duplicate);
        for _ in 0..=u8::from(again) {
            let event = Event::Deposit(deposit.participant, number, deposit.command.clone());
            self.send(Node::Clients, Node::Ledger(deposit.participant), event);
        }
        let patience = self.random.between(20, 2_000) * MILLI;
        self.after(patience, Event::HandIn(number));
    }

    pub(crate) fn on_deposit(&mut self, participant: usize, number: u64, command: &LedgerCommand) {
        if !self.ledgers[participant].is_up() {
            return;
        }
        let reply = self.apply_ledger(participant, command);
        if let Some(waiter) = self.ledgers[participant].wait(LedgerWaiter::Deposit { number, reply }) {
            self.answer_from_ledger(participant, waiter);
        }
    }

    pub(crate) fn confirm(&mut self, participant: usize, number: u64, reply: &LedgerReply) {
        if let LedgerReply::Account(..) = reply {
            let check = idempotency::answered(&mut self.oracle, &key(number), format!("{reply:?}"));
            self.check(check);
            self.send(Node::Ledger(participant), Node::Clients, Event::Confirmed(number));
        }
    }
}
