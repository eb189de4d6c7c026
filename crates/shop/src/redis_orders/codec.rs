//! Commands to the orders as calls of their script, and its answers as replies.

use std::str::FromStr;

use ledger::{EntityId, IdempotencyKey};
use orchestrator::StoreFailure;
use protocol::limits::{KEPT_TRAIL, MAX_AMOUNT, MAX_BATCH, MAX_IDEMPOTENCY_KEYS, MAX_ORDER_LINES, MAX_SEED_LAYERS};
use redis_store::answers::{Unreadable, list, text, unreadable, words};
use redis_store::{Value, Words};

use super::RedisOrders;
use crate::orders::{Line, Order, OrderState, OrdersCommand, OrdersReply, seeded};
use crate::trail::Entry;

/// What the script holds exactly, as it holds every number, in 53 bits.
const EXACT: u64 = MAX_AMOUNT as u64;

fn key_words(call: &mut Words, key: &IdempotencyKey) {
    call.word(&*key.key).word(&format!("{:x}", key.fingerprint)).word(&MAX_IDEMPOTENCY_KEYS.to_string());
}

impl RedisOrders {
    pub(super) fn command_call(&self, command: &OrdersCommand) -> Result<Words, StoreFailure> {
        let call = match command {
            OrdersCommand::Create { order, user, key } => {
                let mut call = self.call("create");
                call.word(&order.to_string()).word(&user.to_string());
                key.iter().for_each(|key| key_words(&mut call, key));
                call
            }
            OrdersCommand::AddItem { order, line, key } => {
                let amounts = 0..=MAX_AMOUNT;
                if !amounts.contains(&line.quantity) || !amounts.contains(&line.price) {
                    let why = format!("{} units at {}: expected 0 to {MAX_AMOUNT} of each", line.quantity, line.price);
                    return Err(StoreFailure::NotDone(why));
                }
                let mut call = self.call("add");
                call.word(&order.to_string()).word(&line.item.to_string());
                call.number(line.quantity).number(line.price).word(&MAX_ORDER_LINES.to_string());
                key.iter().for_each(|key| key_words(&mut call, key));
                call
            }
            OrdersCommand::Remember { order, key } => {
                let mut call = self.call("remember");
                key_words(call.word(&order.to_string()), key);
                call
            }
            OrdersCommand::Replace { count, items, users, price, seed } => {
                if *items > EXACT || *users > EXACT {
                    return Err(StoreFailure::NotDone(format!("more than {EXACT} items or users")));
                }
                let valid = *count <= MAX_BATCH && *items > 0 && *users > 0 && (0..=MAX_AMOUNT / 2).contains(price);
                let mut call = self.call("replace");
                call.number(valid.into()).word(&count.to_string()).word(&items.to_string()).word(&users.to_string());
                call.number(*price).word(&(seed >> 32).to_string()).word(&(seed & 0xffff_ffff).to_string());
                call.word(&MAX_SEED_LAYERS.to_string());
                call
            }
            OrdersCommand::Note(note) => {
                let written = serde_json::to_string(note).map_err(|error| StoreFailure::NotDone(error.to_string()))?;
                let mut call = self.call("note");
                call.word(&written).word(&KEPT_TRAIL.to_string());
                call
            }
            OrdersCommand::NoteOutcome { number, outcome } => {
                let mut call = self.call("note_outcome");
                call.word(&number.to_string()).word(&**outcome);
                call
            }
            OrdersCommand::Log(_) => {
                return Err(StoreFailure::NotDone("a command to the log goes to the log".to_owned()));
            }
        };
        Ok(call)
    }
}

pub(super) fn reply(value: &Value) -> Result<OrdersReply, Unreadable> {
    let strange = || unreadable(value);
    let reply = match words(value)?.as_slice() {
        [Some("created"), Some(order)] => OrdersReply::Created(order.parse().map_err(|_| strange())?),
        [Some("total"), Some(total)] => OrdersReply::Total(total.parse().map_err(|_| strange())?),
        [Some("not_found")] => OrdersReply::NotFound,
        [Some("not_open"), Some(word)] => OrdersReply::NotOpen(state(word).ok_or_else(strange)?),
        [Some("overflow")] => OrdersReply::Overflow,
        [Some("too_many_lines")] => OrdersReply::TooManyLines,
        [Some("reused")] => OrdersReply::KeyReused,
        [Some("busy"), Some(open)] => OrdersReply::Busy(open.parse().map_err(|_| strange())?),
        [Some("ok")] => OrdersReply::Done,
        [Some("noted"), Some(number)] => OrdersReply::Noted(number.parse().map_err(|_| strange())?),
        _ => return Err(strange()),
    };
    Ok(reply)
}

/// The trail: NUMBER, the note, and the outcome if there is one; each.
pub(super) fn trail(value: &Value) -> Result<Vec<Entry>, Unreadable> {
    let entry = |row: &Value| {
        let [Some(number), Some(note), outcome] = words(row)?[..] else { return Err(unreadable(row)) };
        let read = || Some((number.parse().ok()?, serde_json::from_str(note).ok()?));
        let (number, note) = read().ok_or_else(|| unreadable(row))?;
        Ok(Entry { number, note, outcome: outcome.map(Into::into) })
    };
    list(value)?.iter().map(entry).collect()
}

/// A number in decimal.
pub(super) fn number<N: FromStr>(value: &Value) -> Result<N, Unreadable> {
    text(value)?.and_then(|text| text.parse().ok()).ok_or_else(|| unreadable(value))
}

/// `o`, or `c` or `p` and the transaction.
pub(super) fn state(word: &str) -> Option<OrderState> {
    let (letter, transaction) = word.split_at_checked(1)?;
    match letter {
        "o" if transaction.is_empty() => Some(OrderState::Open),
        "c" => transaction.parse().ok().map(OrderState::CheckingOut),
        "p" => transaction.parse().ok().map(OrderState::Paid),
        _ => None,
    }
}

/// An order as the script writes it: VERSION|STATE|GENERATION|USER|LINES.
pub(super) fn order(id: EntityId, value: &Value) -> Result<Option<Order>, Unreadable> {
    let Some(written) = text(value)? else { return Ok(None) };
    let read = || {
        let fields: Vec<&str> = written.split('|').collect();
        let [version, state_word, _generation, user, lines] = fields[..] else { return None };
        let (user, lines) = content(id, user, lines)?;
        Some(Order { user, lines, state: state(state_word)?, version: version.parse().ok()? })
    };
    read().map(Some).ok_or_else(|| unreadable(value))
}

/// An order's user and lines; or what its seed, `@ITEMS USERS PRICE HIGH LOW`, makes of its number.
pub(super) fn content(id: EntityId, user: &str, written: &str) -> Option<(EntityId, Box<[Line]>)> {
    let Some(seed) = written.strip_prefix('@') else { return Some((user.parse().ok()?, lines(written)?)) };
    let numbers = seed.split(' ').map(|number| number.parse().ok()).collect::<Option<Vec<u64>>>()?;
    let [items, users, price, high, low] = numbers[..] else { return None };
    Some(seeded(id.as_number()?, (items, users), i64::try_from(price).ok()?, high << 32 | low))
}

/// Lines: ITEM QUANTITY PRICE; each.
fn lines(text: &str) -> Option<Box<[Line]>> {
    let line = |line: &str| {
        let mut words = line.split(' ');
        let item: EntityId = words.next()?.parse().ok()?;
        let line = Line { item, quantity: words.next()?.parse().ok()?, price: words.next()?.parse().ok()? };
        words.next().is_none().then_some(line)
    };
    text.split_terminator(';').map(line).collect()
}
