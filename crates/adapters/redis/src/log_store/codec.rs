//! Commands to the log as calls of its scripts, and their answers as replies.

use std::sync::Arc;

use orchestrator::StoreFailure;
use protocol::limits::{MAX_HANDOVERS, MAX_LEASE_MS, MAX_SCRIPT_ITEMS};
use protocol::log::{
    DeadLetter, Handover, History, Lease, LogCommand, LogReply, Record, Resolution, StageRefusal, Tries, Verdict,
    Writer,
};
use protocol::record::{self, RecordError};
use protocol::{Cause, Decision, Epoch, Name, Payload, Refusal, Timestamp, Transaction, TransactionId};
use redis::Value;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::RedisLog;
use crate::answers::{Unreadable, bytes, list, only, text, unreadable, words};
use crate::script::Words;

/// A record that cannot be written: never for the types of this project.
fn unwritable(error: &RecordError) -> StoreFailure {
    StoreFailure::NotDone(error.to_string())
}

fn encode<T: Serialize>(value: &T) -> Result<Vec<u8>, StoreFailure> {
    record::encode(value, Vec::with_capacity(256)).map_err(|error| unwritable(&error))
}

/// As text, for what stands among words.
fn encode_text<T: Serialize>(value: &T) -> Result<String, StoreFailure> {
    let digit = |n: u8| char::from_digit(u32::from(n), 16).unwrap_or('0');
    Ok(encode(value)?.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]).collect())
}

fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Unreadable> {
    record::decode(bytes).map_err(|error| Unreadable(format!("a record of the log: {error}")))
}

fn decode_text<T: DeserializeOwned>(text: &str) -> Result<T, Unreadable> {
    let nibble = |digit: &u8| char::from(*digit).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    let byte = |pair: &[u8]| Some(nibble(pair.first()?)? << 4 | nibble(pair.get(1)?)?);
    let bytes: Option<Vec<u8>> = text.as_bytes().chunks(2).map(byte).collect();
    decode(&bytes.ok_or_else(|| Unreadable(format!("not hexadecimal: {text}")))?)
}

/// `c`, or `a` and the cause.
fn decision_word(decision: &Decision) -> Result<String, StoreFailure> {
    match decision {
        Decision::Commit => Ok("c".to_owned()),
        Decision::Abort(cause) => Ok(format!("a{}", encode_text(cause)?)),
    }
}

fn read_decision(word: &str) -> Result<Decision, Unreadable> {
    match word.split_at_checked(1) {
        Some(("c", "")) => Ok(Decision::Commit),
        Some(("a", cause)) => decode_text::<Cause>(cause).map(Decision::Abort),
        _ => Err(Unreadable(format!("no decision: {word}"))),
    }
}

fn time_word(time: Timestamp) -> String {
    time.0.to_string()
}

impl RedisLog {
    fn call(&self, what: &str) -> Words {
        let mut words = self.store.call(&self.scripts.log);
        words.word(what);
        words
    }

    fn call_by(&self, what: &str, writer: &Writer) -> Words {
        let mut words = self.call(what);
        by(&mut words, writer);
        words
    }

    /// The calls that carry a command out.
    pub(super) fn calls(&self, command: &LogCommand) -> Result<Vec<Words>, StoreFailure> {
        let mut words = match command {
            LogCommand::Stage { writer, transaction } => return Ok(vec![self.stage(writer, transaction)?]),
            LogCommand::Decide { writer, id, decision, now } => {
                let mut words = Words::of(&self.scripts.commands);
                by(words.word("decide").word(&id.to_string()), writer);
                words.word(&decision_word(decision)?).word(&time_word(*now));
                return Ok(vec![words]);
            }
            LogCommand::Finish { writer, ids, now } => {
                let finish = |ids: &[TransactionId]| {
                    let mut words = self.call_by("finish", writer);
                    words.word(&time_word(*now));
                    ids.iter().for_each(|id| _ = words.word(&id.to_string()));
                    words
                };
                // One at least: whoever is fenced hears of it.
                let mut parts: Vec<Words> = ids.chunks(MAX_SCRIPT_ITEMS).map(finish).collect();
                if parts.is_empty() {
                    parts.push(finish(&[]));
                }
                return Ok(parts);
            }
            LogCommand::Ask { ids, now } => {
                let tombstone = decision_word(&Decision::Abort(Cause::NeverStaged))?;
                let ask = |ids: &[TransactionId]| {
                    let mut words = self.call("ask");
                    words.word(&time_word(*now)).word(&tombstone);
                    ids.iter().for_each(|id| _ = words.word(&id.to_string()));
                    words
                };
                return Ok(ids.chunks(MAX_SCRIPT_ITEMS).map(ask).collect());
            }
            LogCommand::Register { .. } => self.call("register"),
            LogCommand::Renew { writer, .. } => self.call_by("renew", writer),
            LogCommand::TakeOver { writer, .. } => self.call_by("take", writer),
            LogCommand::Park { writer, .. } => self.call_by("park", writer),
            LogCommand::Tried { writer, .. } => self.call_by("tried", writer),
            LogCommand::Resolve { .. } => self.call("resolve"),
            LogCommand::Forget { .. } => self.call("forget"),
        };
        match command {
            LogCommand::Register { instance, now, lease } => {
                words.word(instance.as_str()).word(&self.lease_time(*now)).word(&lease.to_string());
                words.word(&MAX_LEASE_MS.to_string()).word(&MAX_HANDOVERS.to_string());
            }
            LogCommand::Renew { now, lease, .. } => {
                words.word(&self.lease_time(*now)).word(&lease.to_string()).word(&MAX_LEASE_MS.to_string());
            }
            LogCommand::TakeOver { from, now, .. } => {
                words.word(from.as_str()).word(&self.lease_time(*now)).word(&MAX_HANDOVERS.to_string());
            }
            LogCommand::Park { id, letter, .. } => {
                let (step, at) = (letter.step.to_string(), time_word(letter.at));
                words.word(&id.to_string()).word(&step).word(&at).word(&encode_text(letter)?);
            }
            LogCommand::Resolve { id, resolution } => {
                let (step, at) = (resolution.step.to_string(), time_word(resolution.at));
                words.word(&id.to_string()).word(&step).word(&at).word(&encode_text(resolution)?);
            }
            LogCommand::Tried { id, tries, .. } => {
                words.word(&id.to_string());
                for tries in tries {
                    words.word(&format!("{} {}", tries.step, tries.verb)).word(&encode_text(tries)?);
                }
            }
            LogCommand::Forget { finished_before, keep, spare_since } => {
                words.word(&time_word(*finished_before)).word(&keep.to_string()).word(&time_word(*spare_since));
                words.word(&MAX_SCRIPT_ITEMS.to_string());
            }
            LogCommand::Stage { .. }
            | LogCommand::Decide { .. }
            | LogCommand::Finish { .. }
            | LogCommand::Ask { .. } => {}
        }
        Ok(vec![words])
    }

    /// The time that a lease goes by: nothing, for the server's.
    fn lease_time(&self, now: Timestamp) -> String {
        if self.by_callers_time { time_word(now) } else { String::new() }
    }

    fn stage(&self, writer: &Writer, transaction: &Transaction) -> Result<Words, StoreFailure> {
        let payloads: Vec<&Payload> = transaction.steps.iter().map(|step| &step.payload).collect();
        let payloads = encode(&payloads)?;
        let bare = Transaction { steps: transaction.bare_steps(), ..transaction.clone() };
        let mut words = Words::of(&self.scripts.commands);
        by(words.word("stage").word(&transaction.id.to_string()), writer);
        words.word(&encode(&bare)?).word(&payloads);
        (self.claim)(transaction, &mut words);
        Ok(words)
    }

    pub(super) fn oldest_call(&self, after: &str) -> Vec<Words> {
        let mut words = self.call("oldest");
        words.word(after).word(&MAX_SCRIPT_ITEMS.to_string());
        vec![words]
    }

    pub(super) fn latest_call(&self, before: &str) -> Vec<Words> {
        let mut words = self.call("latest");
        words.word(before).word(&MAX_SCRIPT_ITEMS.to_string());
        vec![words]
    }

    pub(super) fn finished_call(&self, limit: usize) -> Vec<Words> {
        let mut words = self.call("finished");
        words.word(&limit.to_string());
        vec![words]
    }

    pub(super) fn ended_call(&self, cursor: &str, about: usize) -> Vec<Words> {
        let mut words = self.call("ended");
        words.word(cursor).word(&about.to_string());
        vec![words]
    }

    pub(super) fn transaction_call(&self, id: TransactionId) -> Vec<Words> {
        let mut words = self.call("transaction");
        words.word(&id.to_string());
        vec![words]
    }

    pub(super) fn plain_call(&self, what: &str) -> Vec<Words> {
        vec![self.call(what)]
    }
}

fn by(words: &mut Words, writer: &Writer) {
    words.word(writer.instance.as_str()).word(&writer.epoch.0.to_string());
}

/// The reply to a command, out of the answers to its calls.
pub(super) fn reply(values: &[Value]) -> Result<LogReply, Unreadable> {
    let mut replies = values.iter().map(one_reply).collect::<Result<Vec<_>, _>>()?;
    if replies.iter().all(|reply| matches!(reply, LogReply::Verdicts(_))) {
        let of = |reply| if let LogReply::Verdicts(verdicts) = reply { verdicts } else { Vec::new() };
        return Ok(LogReply::Verdicts(replies.into_iter().flat_map(of).collect()));
    }
    // Of several parts, the first that was not done says why.
    let at = replies.iter().position(|reply| *reply != LogReply::Done).unwrap_or(0);
    Ok(replies.swap_remove(at))
}

fn one_reply(value: &Value) -> Result<LogReply, Unreadable> {
    let parts = words(value)?;
    let reply = match parts.as_slice() {
        [Some("staged")] => LogReply::Staged,
        [Some("decided"), Some(word), Some(first)] => {
            LogReply::Decided { decision: read_decision(word)?, first: *first == "1" }
        }
        [Some("ok"), ..] => LogReply::Done,
        [Some("fenced")] => LogReply::Fenced,
        [Some("not_staged")] => LogReply::NotStaged,
        [Some("not_found")] => LogReply::NotFound,
        [Some("not_stuck")] => LogReply::NotStuck,
        [Some("alive")] => LogReply::StillAlive,
        [Some("refused"), Some("decided")] => LogReply::StageRefused(StageRefusal::Decided),
        [Some("refused"), Some("expired")] => LogReply::StageRefused(StageRefusal::Expired),
        [Some("refused"), Some("fenced")] => LogReply::StageRefused(StageRefusal::Fenced),
        [Some("refused"), Some("application"), Some(code), Some(detail)] => {
            let code = Name::new(code).map_err(|_| unreadable(value))?;
            LogReply::StageRefused(StageRefusal::Application(Refusal::new(code, detail)))
        }
        [Some("taken"), Some(count)] => LogReply::Taken(count.parse().map_err(|_| unreadable(value))?),
        [Some("registered"), Some(epoch)] => LogReply::Registered(Epoch(epoch.parse().map_err(|_| unreadable(value))?)),
        [Some("verdicts"), Some(letters)] => {
            let verdict = |letter| match letter {
                'c' => Some(Verdict::Committed),
                'a' => Some(Verdict::Aborted),
                'p' => Some(Verdict::Pending),
                'f' => Some(Verdict::Forgotten),
                _ => None,
            };
            let verdicts: Option<Vec<_>> = letters.chars().map(verdict).collect();
            LogReply::Verdicts(verdicts.ok_or_else(|| unreadable(value))?)
        }
        _ => return Err(unreadable(value)),
    };
    Ok(reply)
}

type Rows = Vec<(TransactionId, Record)>;

/// A page of finished transactions, and where the next one begins.
pub(super) fn ended(values: &[Value]) -> Result<(Rows, Option<String>), Unreadable> {
    let page = only(values)?;
    let [cursor, found] = list(page)? else { return Err(unreadable(page)) };
    let cursor = text(cursor)?.ok_or_else(|| unreadable(page))?;
    Ok((rows(found)?, Some(cursor.to_owned()).filter(|cursor| cursor != "0")))
}

/// Transactions, out of the lists of what is known of them. One that is not known is left out.
pub(super) fn rows(value: &Value) -> Result<Rows, Unreadable> {
    let lists = list(value)?.iter().map(list).collect::<Result<Vec<_>, _>>()?;
    let [ids, records, payloads, letters, resolutions, handovers, tries] = lists[..] else {
        return Err(unreadable(value));
    };
    if lists.iter().any(|list| list.len() != ids.len()) {
        return Err(unreadable(value));
    }
    let mut found = Vec::with_capacity(ids.len());
    for (at, id) in ids.iter().enumerate() {
        let id = text(id)?.and_then(|id| id.parse().ok()).ok_or_else(|| unreadable(id))?;
        let Some(record) = bytes(&records[at])? else { continue };
        let beside = Beside {
            payloads: bytes(&payloads[at])?,
            letters: text(&letters[at])?.unwrap_or_default(),
            resolutions: text(&resolutions[at])?.unwrap_or_default(),
            handovers: text(&handovers[at])?.unwrap_or_default(),
            tries: text(&tries[at])?.unwrap_or_default(),
        };
        found.push((id, read_record(record, &beside).map_err(|Unreadable(why)| Unreadable(format!("{id}: {why}")))?));
    }
    Ok(found)
}

/// What is kept of a transaction beside its record.
struct Beside<'a> {
    payloads: Option<&'a [u8]>,
    letters: &'a str,
    resolutions: &'a str,
    handovers: &'a str,
    tries: &'a str,
}

fn read_record(record: &[u8], beside: &Beside<'_>) -> Result<Record, Unreadable> {
    let strange = || Unreadable("not a record of a log".to_owned());
    let end = record.iter().position(|byte| *byte == b'\n').ok_or_else(strange)?;
    let (header, transaction) = record.split_at(end);
    let header = std::str::from_utf8(header).map_err(|_| strange())?;
    let fields: Vec<&str> = header.splitn(4, '|').collect();
    let [owner, decided, finished, _note] = fields[..] else { return Err(strange()) };
    let time = |text: &str| text.parse().map(Timestamp).map_err(|_| strange());
    let transaction = &transaction[1..];
    let mut whole = if transaction.is_empty() { None } else { Some(decode::<Transaction>(transaction)?) };
    if let (Some(whole), Some(payloads)) = (&mut whole, beside.payloads) {
        let payloads: Vec<Payload> = decode(payloads)?;
        for (step, payload) in Arc::make_mut(&mut whole.steps).iter_mut().zip(payloads) {
            step.payload = payload;
        }
    }
    let decided = match decided.split_once('@') {
        Some((word, at)) => Some((read_decision(word)?, time(at)?)),
        None if decided.is_empty() => None,
        None => return Err(strange()),
    };
    // It is for people, and stops nobody.
    let history = read_history(beside).unwrap_or_else(|Unreadable(why)| {
        tracing::warn!(why, "a transaction's history cannot be read, and is left out");
        None
    });
    Ok(Record {
        transaction: whole.map(Into::into),
        owner: if owner.is_empty() { None } else { Some(Name::new(owner).map_err(|_| strange())?) },
        decided,
        finished: if finished.is_empty() { None } else { Some(time(finished)?) },
        letters: read_list::<DeadLetter>(beside.letters)?.into(),
        resolutions: read_list::<Resolution>(beside.resolutions)?.into(),
        history,
    })
}

fn read_history(beside: &Beside<'_>) -> Result<Option<Box<History>>, Unreadable> {
    let handover = |entry: &str| {
        let mut words = entry.split(' ');
        let mut name = || Name::new(words.next()?).ok();
        let (from, to) = (name()?, name()?);
        let (at, decided) = (words.next()?, words.next()?);
        Some(Handover { from, to, at: Timestamp(at.parse().ok()?), decided: decided == "1" })
    };
    let handovers: Option<Vec<_>> = beside.handovers.split_terminator(';').map(handover).collect();
    let handovers = handovers.ok_or_else(|| Unreadable(format!("no handovers: {}", beside.handovers)))?;
    let tries = read_list::<Tries>(beside.tries)?;
    let any = !handovers.is_empty() || !tries.is_empty();
    Ok(any.then(|| Box::new(History { handovers, tries })))
}

/// Letters, resolutions or tries: each with what the scripts know it by, and then the whole.
fn read_list<T: DeserializeOwned>(text: &str) -> Result<Vec<T>, Unreadable> {
    let one = |entry: &str| decode_text(entry.rsplit(' ').next().unwrap_or_default());
    text.split_terminator(';').map(one).collect()
}

/// A page of unfinished transactions, the instances, and a time.
type Open = (Rows, Vec<(Name, Lease)>, Timestamp);

/// A page of unfinished transactions; the instances, and the time that their leases go by.
pub(super) fn oldest(values: &[Value]) -> Result<Open, Unreadable> {
    let value = only(values)?;
    let [open, instances, now] = list(value)? else { return Err(unreadable(value)) };
    let now = text(now)?.and_then(|now| now.parse().ok()).map(Timestamp).ok_or_else(|| unreadable(now))?;
    let parts = words(instances)?;
    let instance = |pair: &[Option<&str>]| {
        let (epoch, expires) = pair.get(1).copied()??.split_once(' ')?;
        let expires = if expires.is_empty() { None } else { Some(Timestamp(expires.parse().ok()?)) };
        Some((Name::new(pair[0]?).ok()?, Lease { epoch: Epoch(epoch.parse().ok()?), expires }))
    };
    let instances: Option<Vec<_>> = parts.chunks(2).map(instance).collect();
    let mut instances = instances.ok_or_else(|| unreadable(value))?;
    instances.sort_unstable_by_key(|(name, _)| *name);
    Ok((rows(open)?, instances, now))
}

pub(super) fn youngest(values: &[Value]) -> Result<Timestamp, Unreadable> {
    let value = only(values)?;
    text(value)?.and_then(|text| text.parse().ok()).map(Timestamp).ok_or_else(|| unreadable(value))
}

/// How many records there ever were, and how many transactions are open.
pub(super) fn progress(values: &[Value]) -> Result<(u64, u64), Unreadable> {
    let value = only(values)?;
    let number = |word: Option<&str>| word?.parse().ok();
    match words(value)?.as_slice() {
        [ever, open] => number(*ever).zip(number(*open)).ok_or_else(|| unreadable(value)),
        _ => Err(unreadable(value)),
    }
}
