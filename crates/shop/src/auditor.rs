//! The continuous audit: the leader goes through the three databases again and again, a page at a time, and says what is off.
//!
//! ```text
//!   every tick:  Pass::ask ──► Books ──► orders' database, or a ledger (a call, or a question to its service)
//!                Pass::take ◄──────────── one page, seen at one moment
//!   at its end:  findings, metrics, suspects for the next pass
//! ```
//!
//! | file         | what it is                                                         |
//! |--------------|--------------------------------------------------------------------|
//! | `pass.rs`    | what to ask next, and what an answer means; no I/O, no clock       |
//! | `finding.rs` | what is said of a finding: transactions and branches               |
//! | `full.rs`    | everything at once, for whoever wants to know now                  |
//! | `http.rs`    | `GET` and `POST /admin/audit`                                      |
//! | `tests.rs`   | a pass among checkouts, step by step, in every order that chance brings |
//!
//! **It never raises a false alarm**, whatever runs meanwhile, since it asserts only what holds at every moment, and looks at that at one moment:
//!
//! | what is asserted                                                    | seen at one moment because                                    |
//! |---------------------------------------------------------------------|---------------------------------------------------------------|
//! | an account adds up, and is not overdrawn                            | an account is one row                                         |
//! | what is held is what the prepared branches hold                     | the accounts and all open branches are read in one step       |
//! | an order is claimed by an undecided transaction about it, or paid by a committed one | orders and log are one machine               |
//! | every branch of a finished transaction became what was decided      | a transaction is finished for good once all have acknowledged |
//! | an account settled what the paid orders that name it come to        | see below                                                     |
//!
//! The last holds only where nothing is under way, and no moment can be looked at in three databases at once. So an account whose sums differ in one
//! pass is a *suspect*, and no more. The next pass looks at it (1) before it reads the first order and (2) after it has read the last. It is a finding
//! if no open branch named it at (1) nor at (2), if it had settled as much at (1) as at (2), and if that is not what its paid orders come to. Then
//! nothing of it moved in between: a checkout that was paid after (1) was captured, or executed, between the two, or its branch was open at one of them,
//! for a branch is prepared before the decision and captured behind it, and an executed one is open until the log said that it stands. What is captured
//! between the two raises the sum; what lowers it again is a compensation, of a branch that was open at (1) or executed in between. So the sum is the
//! same only if nothing was committed, and then each order was read as it was all the while. Orders that are replaced meanwhile void the comparison.
//!
//! **It misses nothing that stays off while the shop is at rest**: every row that is there all the while is met, no branch is open then, and a suspect
//! stays one.
//!
//! **It costs little**: a page of some hundred rows a tick, where branches are few enough to look at all of them; otherwise that part waits.

mod finding;
mod full;
pub(crate) mod http;
mod pass;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use orchestrator::{Clock, Look, Seen};
use parking_lot::Mutex;
use protocol::limits::{MAX_AUDIT_FINDINGS, SHOWN_FINDINGS};
use protocol::{Name, Timestamp};
use serde::{Deserialize, Serialize};

use crate::audit::Finding;
use crate::metrics::Metrics;
use crate::order_store::{OrderStore, OrdersAnswer, OrdersQuery, Sum};
use crate::ports::Looks;
use crate::request::called;
use finding::sum_of;
pub(crate) use finding::word;
use pass::{Ask, Part, Pass, Told, Yield};

pub use finding::{Found, Named};

/// How long an answer may take before the pass is given up.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long to wait when somebody did not answer.
const AGAIN: Duration = Duration::from_secs(1);

/// How fast to go.
#[derive(Debug, Clone, Copy)]
pub struct Pace {
    /// Between two questions of the first pass: until that has come to its end, nobody knows whether the books are right.
    pub first: Duration,
    /// For how long that one asks on without a pause. Where everybody is busy, an answer alone takes longer.
    pub burst: Duration,
    /// Between two questions of the passes behind it.
    pub tick: Duration,
    /// From the begin of one pass to that of the next, at least.
    pub rest: Duration,
}

impl Pace {
    /// For databases in this process: a page takes some 20 µs.
    pub const HERE: Self = Self {
        first: Duration::from_millis(2),
        burst: Duration::from_micros(500),
        tick: Duration::from_millis(10),
        rest: Duration::from_secs(5),
    };
    /// For databases elsewhere: a page takes the server some 300 µs.
    pub const ELSEWHERE: Self = Self {
        first: Duration::from_millis(20),
        burst: Duration::ZERO,
        tick: Duration::from_millis(50),
        rest: Duration::from_secs(5),
    };
}

/// The three databases, as an audit reads them.
#[derive(Clone)]
pub struct Books {
    /// The orders and the log.
    pub orders: Arc<dyn OrderStore>,
    /// Stock and payment.
    pub ledgers: Arc<dyn Looks>,
}

impl Books {
    async fn ask(&self, ask: Ask) -> Result<Told, String> {
        match ask {
            Ask::Ledger(service, look) => self.look(service, look).await.map(Told::Ledger),
            Ask::Orders(look) => match self.query(OrdersQuery::Look(look)).await? {
                OrdersAnswer::Seen(seen) => Ok(Told::Orders(seen)),
                _ => Err("the orders answered another question".to_owned()),
            },
        }
    }

    async fn look(&self, service: Name, look: Look) -> Result<Seen, String> {
        let asked = called(|done| self.ledgers.look(service, look, done));
        let answer = tokio::time::timeout(PATIENCE, asked).await.map_err(|_| format!("{service} does not answer"))?;
        answer.map_err(|_| format!("{service} stopped"))?
    }

    async fn query(&self, query: OrdersQuery) -> Result<OrdersAnswer, String> {
        let asked = called(|done| self.orders.query(query, done));
        let answer = tokio::time::timeout(PATIENCE, asked).await.map_err(|_| "the orders do not answer".to_owned())?;
        answer.map_err(|_| "the orders stopped".to_owned())?.map_err(|failure| failure.to_string())
    }
}

/// The last word of the continuous audit, as operators see it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuditorView {
    /// Whose word it is: the leader's. `None` if none could be reached.
    pub by: Option<Name>,
    /// Full passes since this instance leads.
    pub runs: u64,
    /// When the last of them ended. Milliseconds since 1970.
    pub at: Option<Timestamp>,
    /// Accounts, orders and transactions looked at since this instance started.
    pub checked: u64,
    /// Comparisons that the last pass put off: too much was under way. They are made as soon as it is less.
    pub postponed: u64,
    /// Whether the last pass put nothing off.
    pub complete: bool,
    /// Why the last attempt at a pass was given up, if it was.
    pub trouble: Option<String>,
    /// How many things are off.
    pub off: usize,
    /// The first of them.
    pub findings: Vec<Found>,
}

/// The continuous audit of one instance.
pub struct Auditor {
    books: Books,
    instance: Name,
    metrics: Arc<Metrics>,
    clock: Arc<dyn Clock>,
    pace: Pace,
    shown: Mutex<Shown>,
    full: tokio::sync::Mutex<()>,
}

#[derive(Default)]
struct Shown {
    view: AuditorView,
    findings: BTreeMap<String, Found>,
}

/// What a pass needs of the one before.
struct Memory {
    suspects: BTreeMap<Sum, i128>,
    part: Part,
    number: u64,
}

impl Default for Memory {
    fn default() -> Self {
        Self { suspects: BTreeMap::new(), part: Part::WHOLE, number: 0 }
    }
}

impl Auditor {
    /// An auditor that goes by `clock`, in the name of `instance`.
    pub fn new(books: Books, instance: Name, metrics: Arc<Metrics>, clock: Arc<dyn Clock>, pace: Pace) -> Arc<Self> {
        let (shown, full) = (Mutex::default(), tokio::sync::Mutex::default());
        Arc::new(Self { books, instance, metrics, clock, pace, shown, full })
    }

    /// Audits as long as this instance leads and its database goes on: pass after pass, from the begin after every start.
    pub async fn run(self: Arc<Self>, leads: impl Fn() -> bool + Send) {
        let mut memory = Memory::default();
        while self.books.orders.stopped().is_none() {
            if !leads() {
                self.forget();
                memory = Memory::default();
                tokio::time::sleep(AGAIN).await;
                continue;
            }
            let began = tokio::time::Instant::now();
            let rest = match self.pass(&mut memory, &leads).await {
                // What is suspected is known soon.
                Ok(()) if !memory.suspects.is_empty() => AGAIN,
                Ok(()) => self.pace.rest,
                Err(why) => {
                    tracing::debug!(%why, "a pass of the audit was given up");
                    self.shown.lock().view.trouble = Some(why);
                    AGAIN
                }
            };
            tokio::time::sleep_until(began + rest.max(self.pace.tick)).await;
        }
    }

    /// One pass; given up when this instance no longer leads.
    async fn pass(&self, memory: &mut Memory, leads: &(impl Fn() -> bool + Send)) -> Result<(), String> {
        let mut pass = Pass::begin(std::mem::take(&mut memory.suspects), memory.part);
        let mut looked = 0;
        let Pace { first, burst, tick, .. } = self.pace;
        let (tick, burst) = if memory.number == 0 { (first, burst) } else { (tick, Duration::ZERO) };
        let mut since = Instant::now();
        while let Some(ask) = pass.ask() {
            if !leads() {
                return Err("another instance leads".to_owned());
            }
            let told = self.books.ask(ask).await?;
            pass.take(told)?;
            self.metrics.audit_looked(pass.yield_.checked - looked);
            self.shown.lock().view.checked += pass.yield_.checked - looked;
            looked = pass.yield_.checked;
            if since.elapsed() >= burst {
                tokio::time::sleep(tick).await;
                since = Instant::now();
            }
        }
        memory.number += 1;
        let brought = pass.end(memory.number);
        memory.suspects.clone_from(&brought.suspects);
        let Part { number, of } = memory.part;
        memory.part = if brought.overflowed {
            Part { number: 0, of: of.saturating_mul(2) }
        } else {
            Part { number: (number + 1) % of, of }
        };
        self.conclude(brought);
        Ok(())
    }

    /// Takes in what a pass has brought: what it did not find again is gone, if it looked there for certain.
    fn conclude(&self, brought: Yield) {
        let now = self.clock.now();
        let mut shown = self.shown.lock();
        let stays = |found: &Found| match &found.finding {
            Finding::Charged { user, .. } => !brought.certain.contains(&Sum::User(*user)),
            Finding::Sold { item, .. } => !brought.certain.contains(&Sum::Item(*item)),
            Finding::Account { service, discrepancy: ledger::audit::Discrepancy::HeldByNobody { account, .. } } => {
                brought.postponed > 0 && !brought.certain.contains(&sum_of(*service, *account))
            }
            Finding::Account { .. } | Finding::Order(_) | Finding::Branch { .. } => false,
        };
        let mut known = std::mem::take(&mut shown.findings);
        let mut findings = BTreeMap::new();
        let mut further = 0;
        for (key, (finding, mut transactions)) in brought.found {
            // Nobody reads a hundred thousand lines, and what is not kept would be news in every pass.
            if findings.len() >= MAX_AUDIT_FINDINGS && !known.contains_key(&key) {
                further += 1;
                continue;
            }
            transactions.sort_by_key(|named| !named.caused);
            let text = finding.to_string();
            let before = known.remove(&key);
            if before.is_none() {
                let named = transactions.first();
                let (transaction, branch) = (named.map(|it| it.transaction), named.map(Named::place));
                let order = named.and_then(|it| it.order);
                tracing::error!(
                    %text,
                    transaction = transaction.map(tracing::field::display),
                    order = order.map(tracing::field::display),
                    branch,
                    "the audit found something that is off: see `GET /admin/audit` and docs/operating.md, conservation broken"
                );
            }
            let since = before.map_or(now, |before| before.since);
            findings.insert(key, Found { finding, text, since, transactions });
        }
        for (key, found) in known {
            if stays(&found) {
                findings.insert(key, found);
            } else {
                tracing::info!(text = found.text, "what the audit had found is off no longer");
            }
        }
        if further > 0 {
            tracing::error!(further, kept = MAX_AUDIT_FINDINGS, "the audit found more that is off than it keeps");
        }
        shown.findings = findings;
        while shown.findings.len() > MAX_AUDIT_FINDINGS {
            shown.findings.pop_last();
        }
        let off = shown.findings.len();
        let findings = shown.findings.values().take(SHOWN_FINDINGS).cloned().collect();
        let view = &mut shown.view;
        view.by = Some(self.instance);
        view.runs += 1;
        view.at = Some(now);
        view.postponed = brought.postponed;
        view.complete = brought.postponed == 0;
        view.trouble = None;
        view.off = off;
        view.findings = findings;
        self.metrics.audited(off, now);
    }

    /// Another instance's business.
    fn forget(&self) {
        let mut shown = self.shown.lock();
        if shown.view.by.is_some() {
            *shown = Shown {
                view: AuditorView { checked: shown.view.checked, ..AuditorView::default() },
                ..Shown::default()
            };
            self.metrics.audits_no_longer();
        }
    }

    /// The last word.
    pub fn view(&self) -> AuditorView {
        self.shown.lock().view.clone()
    }
}
