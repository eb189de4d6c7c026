//! What an audit that goes on meanwhile asks of a ledger: little at a time, each answer seen at one moment.
//!
//! | question              | at one moment                                                                    |
//! |-----------------------|----------------------------------------------------------------------------------|
//! | [`Look::Accounts`]    | each account of a page in itself                                                 |
//! | [`Look::Standing`]    | accounts against all branches that are open; not answered if those are too many  |
//! | [`Look::Outcomes`]    | what became of branches, and below which birth one may be forgotten              |

use std::collections::{BTreeMap, BTreeSet};

use ledger::{Account, EntityId, Ledger};
use protocol::limits::{MAX_AUDIT_ENTRIES_EACH, MAX_AUDIT_OPEN, MAX_AUDIT_PAGE, MAX_SCRIPT_ITEMS};
use protocol::{BranchId, BranchState, Timestamp};
use serde::{Deserialize, Serialize};

/// A question of an audit to a ledger.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Look {
    /// Some accounts: about [`MAX_AUDIT_PAGE`] of them. Who goes on until there is no next page meets each that was there all the while; one may be met twice.
    Accounts {
        /// Where the page begins: empty for the first, then what the page before said.
        after: String,
    },
    /// These accounts, up to [`MAX_AUDIT_PAGE`], and all that prepared branches name, against the branches that are open at that moment.
    Standing(Vec<EntityId>),
    /// What became of these branches: up to [`MAX_SCRIPT_ITEMS`].
    Outcomes(Vec<BranchId>),
}

/// The answer to a [`Look`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Seen {
    /// To [`Look::Accounts`].
    Accounts {
        /// The accounts: those that somebody has touched. Others are as they were seeded.
        rows: Vec<AccountSeen>,
        /// Where the next page begins, if there is one.
        next: Option<String>,
        /// How many accounts there are by seeding, those of `rows` that were seeded included; 0 if all stand on the pages.
        seeded: u64,
    },
    /// To [`Look::Standing`], in the order of the ids; `None` if too many branches are open to look at all of them at one moment.
    Standing(Option<Vec<Standing>>),
    /// To [`Look::Outcomes`].
    Outcomes {
        /// In the order of the question.
        states: Vec<Option<BranchState>>,
        /// A branch without a record whose transaction was born at or before this is forgotten, and was final.
        floor: Timestamp,
    },
}

/// An account as an audit sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AccountSeen {
    /// Which.
    pub id: EntityId,
    /// What it is; `None` if all of it was replaced, and nobody has touched what took its place.
    pub account: Option<Account>,
    /// What it has settled, that of its replaced predecessors included.
    pub settled: i128,
    /// Whether it is one of those counted as seeded.
    pub seeded: bool,
}

/// How an account stands to the branches that are open.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Standing {
    /// Which account.
    pub id: EntityId,
    /// What it holds; 0 if there is no such account.
    pub held: i64,
    /// What the prepared branches say that it holds.
    pub promised: i128,
    /// Whether any open branch names it: prepared, or executed and not known to stand.
    pub touched: bool,
    /// What it has settled, that of its replaced predecessors included.
    pub settled: i128,
}

/// Looks at a ledger that is held in memory.
pub(crate) fn look(ledger: &Ledger, look: &Look) -> Seen {
    match look {
        Look::Accounts { after } => {
            let slots = u32::try_from(MAX_AUDIT_PAGE).unwrap_or(u32::MAX);
            let (rows, next) = ledger.account_page(after.parse().unwrap_or(0), slots);
            let seen = |(id, account): (EntityId, &Account)| AccountSeen {
                id,
                account: Some(*account),
                settled: ledger.settled_ever(id),
                seeded: false,
            };
            Seen::Accounts { rows: rows.map(seen).collect(), next: next.map(|next| next.to_string()), seeded: 0 }
        }
        Look::Standing(accounts) => Seen::Standing(standing(ledger, accounts)),
        Look::Outcomes(branches) => {
            let state = |id: &BranchId| ledger.get_branch(*id).map(|branch| branch.state);
            Seen::Outcomes {
                states: branches.iter().take(MAX_SCRIPT_ITEMS).map(state).collect(),
                floor: ledger.floor(),
            }
        }
    }
}

fn standing(ledger: &Ledger, accounts: &[EntityId]) -> Option<Vec<Standing>> {
    if ledger.open_count() > MAX_AUDIT_OPEN {
        return None;
    }
    let mut room = MAX_AUDIT_OPEN * MAX_AUDIT_ENTRIES_EACH;
    // What prepared branches promise, account by account; nothing for one that only executed branches name.
    let mut named: BTreeMap<EntityId, Option<i128>> = BTreeMap::new();
    for (id, state) in ledger.open_branches() {
        let entries = ledger.get_branch(id).map_or(&[][..], |branch| &branch.entries);
        room = room.checked_sub(entries.len())?;
        for entry in entries {
            let promised = named.entry(entry.account).or_default();
            if state == BranchState::Prepared {
                *promised = Some(promised.unwrap_or_default() + i128::from(entry.amount));
            }
        }
    }
    let promised = named.iter().filter(|(_, promised)| promised.is_some()).map(|(id, _)| *id);
    let all: BTreeSet<EntityId> = accounts.iter().copied().take(MAX_AUDIT_PAGE).chain(promised).collect();
    let stands = |id: EntityId| Standing {
        id,
        held: ledger.account(id).map_or(0, |account| account.held),
        promised: named.get(&id).copied().flatten().unwrap_or_default(),
        touched: named.contains_key(&id),
        settled: ledger.settled_ever(id),
    };
    Some(all.into_iter().map(stands).collect())
}
