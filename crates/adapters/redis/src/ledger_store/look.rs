//! A little of an audit at a time: the script's pages, and its answers as what was seen.

use ledger::EntityId;
use orchestrator::{AccountSeen, Look, Seen, Standing};
use protocol::limits::MAX_AUDIT_PAGE;
use redis::Value;

use super::audit::{Row, read_past, read_seeds};
use super::codec::{found_outcomes, outcomes_call, page_call, standing_call};
use crate::answers::{Unreadable, list, unreadable, words};
use crate::link::shown;
use crate::script::Words;

/// Reads an answer.
type Read = fn(&Value) -> Result<Seen, Unreadable>;

/// What the script is asked, and how its answer is read.
pub(super) fn ask(base: &str, look: Look) -> (Vec<Words>, Read) {
    match look {
        Look::Accounts { after } => {
            // The server begins where it ends.
            let after = if after.is_empty() { "0" } else { &after };
            (page_call(base, after, MAX_AUDIT_PAGE), accounts)
        }
        Look::Standing(accounts) => (standing_call(base, &accounts), standing),
        Look::Outcomes(branches) => (outcomes_call(base, &branches), outcomes),
    }
}

fn accounts(page: &Value) -> Result<Seen, Unreadable> {
    let [seeds, high, low, ids, rows, cursor] = list(page)? else { return Err(unreadable(page)) };
    let seeds = read_seeds(&shown(seeds), &shown(high), &shown(low)).ok_or_else(|| unreadable(page))?;
    let seen = |(id, row): (Option<&str>, &Value)| {
        let id: EntityId = id.and_then(|id| id.parse().ok()).ok_or_else(|| unreadable(page))?;
        let Row { generation, account, past, .. } = Row::read(&words(row)?).ok_or_else(|| unreadable(row))?;
        let seed = seeds.of(id);
        let stands = seed.is_none_or(|seed| seed.generation == generation);
        let settled = past.settled + i128::from(account.settled);
        Ok(AccountSeen { id, account: stands.then_some(account), settled, seeded: seed.is_some() })
    };
    let rows = words(ids)?.into_iter().zip(list(rows)?).map(seen).collect::<Result<_, _>>()?;
    let next = Some(shown(cursor)).filter(|cursor| cursor != "0");
    Ok(Seen::Accounts { rows, next, seeded: seeds.covered() })
}

fn standing(value: &Value) -> Result<Seen, Unreadable> {
    if !matches!(value, Value::Array(_)) {
        return Ok(Seen::Standing(None));
    }
    let stands = |row: &Value| {
        let read = |parts: &[Option<&str>]| {
            let [Some(id), Some(held), Some(promised), Some(touched), Some(settled), Some(stale), Some(past)] = *parts
            else {
                return None;
            };
            let past = read_past(Some(past).filter(|past| !past.is_empty()))?;
            let settled = past.settled + settled.parse::<i128>().ok()? + stale.parse::<i128>().ok()?;
            let (held, promised) = (held.parse().ok()?, promised.parse().ok()?);
            Some(Standing { id: id.parse().ok()?, held, promised, touched: touched == "1", settled })
        };
        read(&words(row)?).ok_or_else(|| unreadable(row))
    };
    let mut standing = list(value)?.iter().map(stands).collect::<Result<Vec<_>, _>>()?;
    standing.sort_unstable_by_key(|standing| standing.id);
    Ok(Seen::Standing(Some(standing)))
}

fn outcomes(value: &Value) -> Result<Seen, Unreadable> {
    found_outcomes(value).map(|(states, floor)| Seen::Outcomes { states, floor })
}
