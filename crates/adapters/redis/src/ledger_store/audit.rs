//! The audit of a ledger that goes on meanwhile: page by page, and then what is held against who holds it, at one moment.

use std::collections::BTreeSet;
use std::sync::Arc;

use ledger::audit::Discrepancy;
use ledger::{Account, EntityId, Totals};
use orchestrator::{Done, LedgerAnswer, LedgerAudit, StoreFailure};
use protocol::limits::MAX_SCRIPT_ITEMS;
use redis::Value;

use super::codec::{LOW_BITS, holds_call, page_call};
use crate::answers::{Unreadable, unreadable, words};
use crate::link::shown;
use crate::queue::{Answers, Job, Shared};

/// How often the audit begins anew because accounts were replaced while it went on.
const ATTEMPTS: usize = 5;

type Finished = Done<Result<LedgerAnswer, StoreFailure>>;

/// What `Replace` last made of accounts, the newest first.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Seeds {
    layers: Vec<Seed>,
    /// The sum of all that was ever seeded.
    total: i128,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Seed {
    pub(super) generation: u64,
    count: u64,
}

impl Seeds {
    pub(super) fn of(&self, id: EntityId) -> Option<Seed> {
        let n = id.as_number()?;
        self.layers.iter().copied().find(|seed| n < seed.count)
    }

    /// How many accounts there are by seeding alone.
    pub(super) fn covered(&self) -> u64 {
        self.layers.iter().map(|seed| seed.count).max().unwrap_or(0)
    }
}

/// One that is under way.
pub(crate) struct Audit {
    shared: Arc<Shared>,
    base: Arc<str>,
    attempts: usize,
    seeds: Option<Seeds>,
    /// Where the server goes on, and who was seen: an account may stand on two pages.
    cursor: String,
    seen: BTreeSet<EntityId>,
    found: LedgerAudit,
    held: BTreeSet<EntityId>,
    done: Finished,
}

impl Audit {
    pub(crate) fn begin(shared: Arc<Shared>, base: Arc<str>, done: Finished) {
        let audit = Self {
            shared,
            base,
            attempts: ATTEMPTS,
            seeds: None,
            cursor: "0".to_owned(),
            seen: BTreeSet::new(),
            found: LedgerAudit::default(),
            held: BTreeSet::new(),
            done,
        };
        audit.next_page(Shared::submit);
    }

    fn next_page(self, send: fn(&Shared, Job)) {
        let (shared, calls) = (Arc::clone(&self.shared), page_call(&self.base, &self.cursor, MAX_SCRIPT_ITEMS));
        let done = Box::new(move |answer: Answers| match answer {
            Err(failure) => (self.done)(Err(failure)),
            Ok(values) => self.turn(&values),
        });
        send(&shared, Job::new(calls, done));
    }

    fn turn(mut self, values: &[Value]) {
        match self.take(values) {
            Err(Unreadable(why)) => (self.done)(Err(StoreFailure::NotDone(why))),
            Ok(Page::Replaced) if self.attempts == 0 => {
                let why = "accounts were replaced again and again while they were audited: try again".to_owned();
                (self.done)(Err(StoreFailure::NotDone(why)));
            }
            Ok(Page::Replaced) => {
                let anew = Self {
                    attempts: self.attempts - 1,
                    seeds: None,
                    cursor: "0".to_owned(),
                    seen: BTreeSet::new(),
                    found: LedgerAudit::default(),
                    held: BTreeSet::new(),
                    ..self
                };
                anew.next_page(Shared::go_on);
            }
            Ok(Page::More) => self.next_page(Shared::go_on),
            Ok(Page::Last) => self.compare_holds(),
        }
    }

    /// Takes a page in.
    fn take(&mut self, values: &[Value]) -> Result<Page, Unreadable> {
        let [page] = values else { return Err(Unreadable("not one answer to one call".to_owned())) };
        let Value::Array(parts) = page else { return Err(unreadable(page)) };
        let [seeds, high, low, ids, rows, cursor] = parts.as_slice() else { return Err(unreadable(page)) };
        let seeds = read_seeds(&shown(seeds), &shown(high), &shown(low)).ok_or_else(|| unreadable(page))?;
        match &self.seeds {
            Some(known) if *known != seeds => return Ok(Page::Replaced),
            Some(_) => {}
            None => {
                self.found.accounts = seeds.covered();
                self.found.totals.available = seeds.total;
                self.found.totals.credited = seeds.total;
                self.seeds = Some(seeds.clone());
            }
        }
        let (ids, Value::Array(rows)) = (words(ids)?, rows) else { return Err(unreadable(page)) };
        for (id, row) in ids.iter().zip(rows) {
            let id = id.and_then(|id| id.parse().ok()).ok_or_else(|| unreadable(page))?;
            let row = Row::read(&words(row)?).ok_or_else(|| unreadable(row))?;
            if self.seen.insert(id) {
                self.add(id, &row, seeds.of(id));
            }
        }
        self.cursor = shown(cursor);
        Ok(if self.cursor == "0" { Page::Last } else { Page::More })
    }

    /// Adds what a written account did beyond what it was seeded with, which `total` has.
    fn add(&mut self, id: EntityId, row: &Row, seed: Option<Seed>) {
        let Row { account, past, .. } = row;
        let stands = seed.is_none_or(|seed| seed.generation == row.generation);
        let (seeded, totals) = (i128::from(row.seed), &mut self.found.totals);
        totals.add(account);
        totals.available += past.credited - past.settled - past.debited - seeded;
        totals.settled += past.settled;
        totals.credited += past.credited - seeded;
        totals.debited += past.debited;
        let settled = past.settled + i128::from(account.settled);
        if settled != 0 {
            self.found.settled.insert(id, settled);
        }
        if !stands {
            return;
        }
        if seed.is_none() {
            self.found.accounts += 1;
        }
        let off_by = account.discrepancy();
        if off_by != 0 {
            self.found.discrepancies.push(Discrepancy::NotConserved { account: id, off_by });
        }
        if account.available < 0 {
            let off_by = -i128::from(account.available);
            self.found.discrepancies.push(Discrepancy::Overdrawn { account: id, off_by });
        }
        if account.held != 0 {
            self.held.insert(id);
        }
    }

    /// The pages were read at different moments, and branches came and went between them. So the accounts that hold something are looked
    /// at once more, all of them and all the open branches at the same moment.
    fn compare_holds(self) {
        let suspects: Vec<EntityId> = self.held.iter().copied().collect();
        let (shared, calls) = (Arc::clone(&self.shared), holds_call(&self.base, &suspects));
        let done = Box::new(move |answer: Answers| match answer {
            Err(failure) => (self.done)(Err(failure)),
            Ok(values) => self.finish(&values),
        });
        shared.go_on(Job::new(calls, done));
    }

    fn finish(mut self, values: &[Value]) {
        match read_holds(values) {
            Err(Unreadable(why)) => (self.done)(Err(StoreFailure::NotDone(why))),
            Ok(differences) => {
                let off = differences.into_iter().filter(|(_, off_by)| *off_by != 0);
                let finding = |(account, off_by)| Discrepancy::HeldByNobody { account, off_by };
                self.found.discrepancies.extend(off.map(finding));
                (self.done)(Ok(LedgerAnswer::Audit(Box::new(self.found))));
            }
        }
    }
}

enum Page {
    More,
    Last,
    Replaced,
}

/// An account as it is written down.
pub(super) struct Row {
    pub(super) generation: u64,
    /// What it had available at first.
    seed: i64,
    pub(super) account: Account,
    /// What its replaced predecessors did beyond what they were seeded with.
    pub(super) past: Totals,
}

impl Row {
    pub(super) fn read(parts: &[Option<&str>]) -> Option<Self> {
        let number = |at: usize| parts.get(at).copied().flatten()?.parse::<i64>().ok();
        let past = read_past(parts.get(8).copied().flatten())?;
        let account = Account {
            available: number(3)?,
            held: number(4)?,
            settled: number(5)?,
            credited: number(6)?,
            debited: number(7)?,
            price: number(2)?,
        };
        Some(Self { generation: number(0)?.unsigned_abs(), seed: number(1)?, account, past })
    }
}

/// What the replaced predecessors of an account did, as the script keeps it.
pub(super) fn read_past(past: Option<&str>) -> Option<Totals> {
    let Some(past) = past else { return Some(Totals::default()) };
    match past.split(' ').collect::<Vec<_>>()[..] {
        [a, b, c, d, e, f] => Some(Totals {
            credited: two_parts(a, b)?,
            settled: two_parts(c, d)?,
            debited: two_parts(e, f)?,
            ..Totals::default()
        }),
        _ => None,
    }
}

fn two_parts(high: &str, low: &str) -> Option<i128> {
    let (high, low) = (high.parse::<i64>().ok()?, low.parse::<i64>().ok()?);
    Some((i128::from(high) << LOW_BITS) + i128::from(low))
}

pub(super) fn read_seeds(text: &str, high: &str, low: &str) -> Option<Seeds> {
    let seed = |layer: &str| {
        let mut words = layer.split(' ');
        Some(Seed { generation: words.next()?.parse().ok()?, count: words.next()?.parse().ok()? })
    };
    let layers = text.split_terminator(';').map(seed).collect::<Option<Vec<_>>>()?;
    Some(Seeds { layers, total: two_parts(high, low)? })
}

/// What each account holds beyond what the open branches say that it holds.
fn read_holds(values: &[Value]) -> Result<Vec<(EntityId, i128)>, Unreadable> {
    let [value] = values else { return Err(Unreadable("not one answer to one call".to_owned())) };
    let row = |row: &[Option<&str>]| {
        let number = |word: Option<&str>| word?.parse::<i128>().ok();
        Some((row[0]?.parse().ok()?, number(row[1])? - number(row[2])?))
    };
    words(value)?.chunks_exact(3).map(row).collect::<Option<Vec<_>>>().ok_or_else(|| unreadable(value))
}
