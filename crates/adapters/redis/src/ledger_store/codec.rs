//! Commands as calls of the script, and its answers as replies.
//!
//! The barrier is not written down a second time: each command carries its verb's column of [`protocol::barrier`]'s table, and the script
//! looks the branch's state up in it.

use std::sync::LazyLock;

use ledger::{Account, Branch, Change, Denial, EntityId, Entry, LedgerCommand, LedgerReply, entries};
use orchestrator::StoreFailure;
use protocol::barrier::{Action, Memory, barrier};
use protocol::limits::{
    MAX_AMOUNT, MAX_AUDIT_ENTRIES_EACH, MAX_AUDIT_OPEN_REMOTE, MAX_AUDIT_PAGE, MAX_BATCH, MAX_SCRIPT_ITEMS,
    MAX_SEED_LAYERS, MAX_TERMINATION_BATCH,
};
use protocol::{BranchId, BranchState, Command, Name, Refusal, Reply, Timestamp, TransactionId, Verb};
use redis::Value;

use crate::answers::{Unreadable, unreadable, words};
use crate::keys::{KEYS_LUA, key_words};
use crate::link::shown;
use crate::script::{Script, Words, call};

const ACCOUNTS_LUA: &str = include_str!("../scripts/ledger/accounts.lua");
/// The commands of branches, for stock and payment alike; many at a time.
pub(crate) static BRANCHES: LazyLock<Script> =
    LazyLock::new(|| Script::new(&[ACCOUNTS_LUA, include_str!("../scripts/ledger/branches.lua")]));
/// One account.
pub(crate) static ACCOUNT: LazyLock<Script> =
    LazyLock::new(|| Script::new(&[ACCOUNTS_LUA, include_str!("../scripts/ledger/account.lua")]));
/// Everything else that a ledger is told or asked.
pub(crate) static LEDGER: LazyLock<Script> =
    LazyLock::new(|| Script::new(&[ACCOUNTS_LUA, KEYS_LUA, include_str!("../scripts/ledger/ledger.lua")]));

/// What the script holds exactly, as it holds every number, in 53 bits.
const EXACT: u64 = MAX_AMOUNT as u64;
/// Sums without a bound are kept in two parts; the lower one has so many bits.
pub(crate) const LOW_BITS: u32 = 40;

const STATES: [(BranchState, &str, char); 5] = [
    (BranchState::Prepared, "prepared", 'p'),
    (BranchState::Committed, "committed", 'c'),
    (BranchState::Aborted, "aborted", 'a'),
    (BranchState::Executed, "executed", 'e'),
    (BranchState::Compensated, "compensated", 'x'),
];

/// For each verb, in the order of [`Verb::ALL`]: two letters for each memory of a branch.
static COLUMNS: LazyLock<[String; 6]> = LazyLock::new(|| Verb::ALL.map(column));

fn column(verb: Verb) -> String {
    let known = STATES.map(|(state, ..)| Memory::Known(state));
    let memories = [Memory::None, Memory::Forgotten].into_iter().chain(known);
    let letter = |state| STATES.into_iter().find(|(known, ..)| *known == state).map_or('-', |(.., letter)| letter);
    let pair = |memory| match barrier(memory, verb) {
        Action::Hold => ['H', '-'],
        Action::Charge => ['C', '-'],
        Action::Capture => ['K', '-'],
        Action::Repair => ['R', '-'],
        Action::Release => ['L', '-'],
        Action::Restore => ['S', '-'],
        Action::Poison(state) => ['P', letter(state)],
        Action::Repeat(state) => ['=', letter(state)],
        Action::Refuse => ['N', '-'],
        Action::RefuseExpired => ['X', '-'],
        Action::Violate(state) => ['V', letter(state)],
    };
    memories.flat_map(pair).collect()
}

fn branch_word(id: &BranchId) -> String {
    format!("{}/{:02}", id.transaction, id.step)
}

fn exact(time: Timestamp) -> String {
    // Births have 48 bits: whatever is above EXACT is later than all of them, and so is EXACT.
    time.0.min(EXACT).to_string()
}

/// The calls that carry a command out.
pub(crate) fn calls(base: &str, command: &LedgerCommand) -> Result<Vec<Words>, StoreFailure> {
    if let LedgerCommand::Branch(command) = command {
        return Ok(vec![branch(command)]);
    }
    let mut words = call(&LEDGER, base);
    match command {
        LedgerCommand::Branch(_) => {}
        LedgerCommand::Change { change, key } => {
            let (kind, account, number) = match *change {
                Change::Open { account, price } => ("open", account, price),
                Change::Credit { account, amount } => ("credit", account, amount),
                Change::Debit { account, amount } => ("debit", account, amount),
            };
            if kind != "open" && !(0..=MAX_AMOUNT).contains(&number) {
                return Err(StoreFailure::NotDone(format!("{number} is no amount: expected 0 to {MAX_AMOUNT}")));
            }
            words.word("change").word(kind).word(&account.to_string()).number(number);
            if let Some(key) = key {
                key_words(&mut words, key);
            }
        }
        LedgerCommand::Retire(ids) => return Ok(in_parts(base, "retire", ids)),
        LedgerCommand::Replace { count, available, price } => {
            let sum = u128::from(*count) * u128::from(available.unsigned_abs());
            words.word("replace").word(&count.to_string()).number(*available).number(*price);
            words.word(&(sum >> LOW_BITS).to_string()).word(&(sum & ((1 << LOW_BITS) - 1)).to_string());
            words.word(&MAX_BATCH.to_string()).word(&MAX_SEED_LAYERS.to_string());
        }
        LedgerCommand::Forget { born_before, keep, spare_since } => {
            let keep = (*keep as u64).min(EXACT).to_string();
            words.word("forget").word(&exact(*born_before)).word(&keep).word(&exact(*spare_since));
            words.word(&MAX_SCRIPT_ITEMS.to_string());
        }
    }
    Ok(vec![words])
}

fn branch(command: &Command) -> Words {
    let mut words = Words::of(&BRANCHES);
    let verb = Verb::ALL.iter().position(|verb| *verb == command.verb).unwrap_or_default();
    words.word(&branch_word(&command.branch)).word(&exact(command.branch.transaction.birth())).word(&COLUMNS[verb]);
    // The others know the entries from the branch, or need none.
    if !command.verb.begins() && command.verb != Verb::Commit {
        return words;
    }
    match entries::decode(&command.payload) {
        Ok(entries) => {
            for entry in &entries {
                words.word(&entry.account.to_string()).number(entry.amount);
            }
        }
        Err(refusal) => _ = words.word("malformed").word(refusal.code.as_str()).word(&*refusal.detail),
    }
    words
}

fn in_parts(base: &str, what: &str, ids: &[BranchId]) -> Vec<Words> {
    let part = |ids: &[BranchId]| {
        let mut words = call(&LEDGER, base);
        words.word(what);
        ids.iter().for_each(|id| _ = words.word(&branch_word(id)));
        words
    };
    ids.chunks(MAX_SCRIPT_ITEMS).map(part).collect()
}

pub(crate) fn account_call(base: &str, id: EntityId) -> Vec<Words> {
    let mut words = call(&ACCOUNT, base);
    words.word("account").word(&id.to_string());
    vec![words]
}

pub(crate) fn branches_calls(base: &str, ids: &[BranchId]) -> Vec<Words> {
    in_parts(base, "branches", &ids[..ids.len().min(MAX_TERMINATION_BATCH)])
}

pub(crate) fn open_call(
    base: &str,
    prepared_before: Timestamp,
    executed_before: Timestamp,
    limit: usize,
) -> Vec<Words> {
    let mut words = call(&LEDGER, base);
    words.word("open").word(&exact(prepared_before)).word(&exact(executed_before));
    words.word(&limit.min(MAX_TERMINATION_BATCH).to_string());
    vec![words]
}

pub(crate) fn youngest_call(base: &str) -> Vec<Words> {
    let mut words = call(&LEDGER, base);
    words.word("youngest");
    vec![words]
}

pub(crate) fn page_call(base: &str, after: &str, about: usize) -> Vec<Words> {
    let mut words = call(&LEDGER, base);
    words.word("page").word(after).word(&about.to_string());
    vec![words]
}

pub(crate) fn standing_call(base: &str, accounts: &[EntityId]) -> Vec<Words> {
    let mut words = call(&LEDGER, base);
    let entries = MAX_AUDIT_OPEN_REMOTE * MAX_AUDIT_ENTRIES_EACH;
    words.word("standing").word(&MAX_AUDIT_OPEN_REMOTE.to_string()).word(&entries.to_string());
    accounts.iter().take(MAX_AUDIT_PAGE).for_each(|id| _ = words.word(&id.to_string()));
    vec![words]
}

pub(crate) fn outcomes_call(base: &str, ids: &[BranchId]) -> Vec<Words> {
    let mut words = call(&LEDGER, base);
    words.word("outcomes");
    ids.iter().take(MAX_SCRIPT_ITEMS).for_each(|id| _ = words.word(&branch_word(id)));
    vec![words]
}

/// What became of branches, by the letters of their states, and the floor.
pub(crate) fn found_outcomes(value: &Value) -> Result<(Vec<Option<BranchState>>, Timestamp), Unreadable> {
    let strange = || unreadable(value);
    let [Some(letters), Some(floor)] = words(value)?[..] else { return Err(strange()) };
    let state = |letter| {
        let known = STATES.into_iter().find(|(.., known)| *known == letter).map(|(state, ..)| Some(state));
        known.or((letter == '-').then_some(None))
    };
    let states = letters.chars().map(state).collect::<Option<Vec<_>>>().ok_or_else(strange)?;
    Ok((states, Timestamp(floor.parse().map_err(|_| strange())?)))
}

pub(crate) fn holds_call(base: &str, accounts: &[EntityId]) -> Vec<Words> {
    let mut words = call(&LEDGER, base);
    words.word("holds");
    accounts.iter().for_each(|id| _ = words.word(&id.to_string()));
    vec![words]
}

fn state(word: &str) -> Option<BranchState> {
    STATES.into_iter().find(|(_, known, _)| *known == word).map(|(state, ..)| state)
}

fn account(parts: &[Option<&str>]) -> Option<(EntityId, Account)> {
    let [Some(id), Some(available), Some(held), Some(settled), Some(credited), Some(debited), Some(price)] = *parts
    else {
        return None;
    };
    let account = Account {
        available: available.parse().ok()?,
        held: held.parse().ok()?,
        settled: settled.parse().ok()?,
        credited: credited.parse().ok()?,
        debited: debited.parse().ok()?,
        price: price.parse().ok()?,
    };
    Some((id.parse().ok()?, account))
}

/// The reply to a command.
pub(crate) fn reply(value: &Value) -> Result<LedgerReply, Unreadable> {
    let parts = words(value)?;
    let branch = |reply, repaired| Some(LedgerReply::Branch { reply, repaired });
    let reply = match parts.as_slice() {
        [Some("done"), Some(word)] => state(word).and_then(|state| branch(Reply::Done(state), false)),
        [Some("repaired"), Some(word)] => state(word).and_then(|state| branch(Reply::Done(state), true)),
        [Some("violation"), Some(word)] => state(word).and_then(|state| branch(Reply::Violation(state), false)),
        [Some("refused"), Some(code), Some(detail)] => {
            refusal(code, detail).and_then(|refusal| branch(Reply::Refused(refusal), false))
        }
        [Some("account"), rest @ ..] => account(rest).map(|(id, account)| LedgerReply::Account(id, account)),
        [Some("denied"), Some("unknown_account")] => Some(LedgerReply::Denied(Denial::UnknownAccount)),
        [Some("denied"), Some("insufficient")] => Some(LedgerReply::Denied(Denial::Insufficient)),
        [Some("denied"), Some("overflow")] => Some(LedgerReply::Denied(Denial::Overflow)),
        [Some("reused")] => Some(LedgerReply::KeyReused),
        [Some("busy"), Some(open)] => open.parse().ok().map(LedgerReply::Busy),
        [Some("ok"), ..] => Some(LedgerReply::Done),
        _ => None,
    };
    reply.ok_or_else(|| unreadable(value))
}

fn refusal(code: &str, detail: &str) -> Option<Refusal> {
    Name::new(code).ok().map(|code| Refusal::new(code, detail))
}

pub(crate) fn found_account(value: &Value) -> Result<Option<Account>, Unreadable> {
    match words(value)?.as_slice() {
        [Some("none")] => Ok(None),
        [Some("account"), rest @ ..] => {
            account(rest).map(|(_, account)| Some(account)).ok_or_else(|| unreadable(value))
        }
        _ => Err(unreadable(value)),
    }
}

/// Branches as they are written down: the letter of the state; behind it the entries while it is open, or code and detail if it was refused.
pub(crate) fn found_branches(value: &Value) -> Result<Vec<Option<Branch>>, Unreadable> {
    let row = |row: &Option<&str>| {
        let Some(written) = row else { return Ok(None) };
        let read = || {
            let mut rest = written.chars();
            let letter = rest.next()?;
            let (state, ..) = STATES.into_iter().find(|(.., known)| *known == letter)?;
            let rest = rest.as_str();
            let is_open = matches!(state, BranchState::Prepared | BranchState::Executed);
            let refusal = match rest.split_once(' ') {
                Some((code, detail)) if !is_open => Some(Box::new(refusal(code, detail)?)),
                _ => None,
            };
            let entries = held(if is_open { rest } else { "" })?;
            Some(Branch { state, refusal, entries })
        };
        read().map(Some).ok_or_else(|| unreadable(value))
    };
    words(value)?.iter().map(row).collect()
}

/// Accounts and amounts, in turn.
fn held(text: &str) -> Option<Box<[Entry]>> {
    let words: Vec<&str> = text.split_ascii_whitespace().collect();
    let entry = |pair: &[&str]| Some(Entry { account: pair[0].parse().ok()?, amount: pair[1].parse().ok()? });
    let pairs = words.chunks_exact(2);
    if pairs.remainder().is_empty() { pairs.map(entry).collect() } else { None }
}

pub(crate) fn found_open(value: &Value, limit: usize) -> Result<Vec<(BranchId, BranchState)>, Unreadable> {
    let Value::Array(lists) = value else { return Err(unreadable(value)) };
    let [prepared, executed] = lists.as_slice() else { return Err(unreadable(value)) };
    let mut open = Vec::new();
    for (list, state) in [(prepared, BranchState::Prepared), (executed, BranchState::Executed)] {
        for word in words(list)? {
            open.push((word.and_then(branch_id).ok_or_else(|| unreadable(list))?, state));
        }
    }
    open.sort_unstable();
    open.truncate(limit);
    Ok(open)
}

fn branch_id(word: &str) -> Option<BranchId> {
    let (transaction, step) = word.split_once('/')?;
    Some(BranchId { transaction: transaction.parse::<TransactionId>().ok()?, step: step.parse().ok()? })
}

pub(crate) fn found_youngest(value: &Value) -> Result<Timestamp, Unreadable> {
    shown(value).parse().map(Timestamp).map_err(|_| unreadable(value))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_columns_are_the_barriers_table() {
        let expected = [
            "H-X-=p=cN-VeN-", // prepare
            "R-=cK-=cVaVeVx", // commit
            "Pa=aL-Vc=aVe=x", // abort
            "C-X-VpVcN-=eN-", // execute
            "Px=xVpVc=aS-=x", // compensate
            "Pa=a=p=c=a=e=x", // inquire
        ];
        assert_eq!(*COLUMNS, expected);
    }
}
