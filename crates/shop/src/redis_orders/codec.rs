//! Commands to the orders as calls of their script, and its answers as replies.

use std::str::FromStr;

use ledger::EntityId;
use orchestrator::StoreFailure;
use protocol::limits::{KEPT_TRAIL, MAX_AMOUNT, MAX_BATCH, MAX_ORDER_LINES, MAX_SEED_LAYERS};
use redis_store::answers::{Unreadable, list, text, unreadable, words};
use redis_store::{Value, Words, key_words};

use super::RedisOrders;
use super::recollection::{Replacement, Shown};
use crate::orders::{Line, Order, OrderState, OrdersCommand, OrdersReply, seeded};
use crate::trail::Entry;

/// What the script holds exactly, as it holds every number, in 53 bits.
const EXACT: u64 = MAX_AMOUNT as u64;

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
        // A repeat is not told what the order is now.
        [Some("total"), Some(total)] | [Some("total"), Some(total), Some(_)] => {
            OrdersReply::Total(total.parse().map_err(|_| strange())?)
        }
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

/// The order as the answer to an added item shows it, if it does.
pub(super) fn added_to(id: EntityId, value: &Value) -> Option<Shown> {
    match words(value).ok()?.as_slice() {
        [Some("total"), Some(_), Some(written)] => shown(id, written),
        _ => None,
    }
}

/// An order as the script shows it, if there is one.
pub(super) fn order(id: EntityId, value: &Value) -> Result<Option<Shown>, Unreadable> {
    let Some(written) = text(value)? else { return Ok(None) };
    shown(id, written).map(Some).ok_or_else(|| unreadable(value))
}

/// VERSION|STATE|GENERATION|USER|LINES, of one that nobody has touched with |COUNT behind it.
fn shown(id: EntityId, written: &str) -> Option<Shown> {
    let fields: Vec<&str> = written.split('|').collect();
    let [version, state_word, generation, user, lines, count @ ..] = &fields[..] else { return None };
    let version = version.parse().ok()?;
    let untouched = match count {
        [] => None,
        [count] => {
            let (count, generation) = (count.parse().ok()?, generation.parse().ok()?);
            let before = u64::checked_sub(version, id.as_number()?)?.checked_sub(1)?;
            let (ids, price, seed) = drawn_from(lines)?;
            Some(Replacement { generation, count, before, ids, price, seed })
        }
        _ => return None,
    };
    let (user, lines) = content(id, user, lines)?;
    Some(Shown { order: Order { user, lines, state: state(state_word)?, version }, untouched })
}

/// An order's user and lines; or what its seed, `@ITEMS USERS PRICE HIGH LOW`, makes of its number.
pub(super) fn content(id: EntityId, user: &str, written: &str) -> Option<(EntityId, Box<[Line]>)> {
    if !written.starts_with('@') {
        return Some((user.parse().ok()?, lines(written)?));
    }
    let (ids, price, seed) = drawn_from(written)?;
    Some(seeded(id.as_number()?, ids, price, seed))
}

/// What lines are drawn from: the numbers of items and users, the price, and the seed.
fn drawn_from(lines: &str) -> Option<((u64, u64), i64, u64)> {
    let numbers =
        lines.strip_prefix('@')?.split(' ').map(|number| number.parse().ok()).collect::<Option<Vec<u64>>>()?;
    let [items, users, price, high, low] = numbers[..] else { return None };
    Some(((items, users), i64::try_from(price).ok()?, high << 32 | low))
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
