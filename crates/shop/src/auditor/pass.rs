//! One pass of the continuous audit: what to ask next, and what an answer means. It asks nobody and knows no time: see [the module](super) for why
//! nothing that it finds can be a false alarm.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque};

use ledger::EntityId;
use ledger::audit::Discrepancy;
use orchestrator::{AccountSeen, Look, Seen, Standing};
use protocol::limits::{
    MAX_AUDIT_COUNTED, MAX_AUDIT_PAGE, MAX_AUDIT_SUMS, MAX_AUDIT_SUSPECTS, MAX_SCRIPT_ITEMS, SHOWN_FINDINGS,
};
use protocol::log::Record;
use protocol::{BranchId, BranchState, Decision, Name, Protocol, Timestamp, TransactionId};

use super::finding::{Named, Watch, key_of, sum_of};
use crate::audit::Finding;
use crate::checkout::{Claim, PAYMENT, STOCK};
use crate::order_store::{OrdersLook, OrdersSeen, Sum};
use crate::orders::{Order, OrderState};

/// A question.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Ask {
    Ledger(Name, Look),
    Orders(OrdersLook),
}

/// An answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Told {
    Ledger(Seen),
    Orders(OrdersSeen),
}

/// What is to be done, in order.
#[derive(Debug)]
enum Step {
    Accounts {
        service: Name,
        after: String,
    },
    Holds {
        service: Name,
        accounts: Vec<EntityId>,
    },
    Before {
        service: Name,
        accounts: Vec<EntityId>,
    },
    Orders {
        after: String,
    },
    Replaced {
        after: String,
    },
    /// Looks at the suspects again, now that all orders were counted.
    Again,
    After {
        service: Name,
        accounts: Vec<EntityId>,
    },
    /// Asks what became of the branches of transactions that may have caused a finding.
    Trace,
    Traced {
        service: Name,
        branches: Vec<BranchId>,
    },
    Ended {
        after: String,
    },
    Outcomes {
        service: Name,
        expected: Vec<Expected>,
    },
}

/// What a finished transaction says of one of its branches.
#[derive(Debug, Clone, Copy)]
struct Expected {
    branch: BranchId,
    order: Option<EntityId>,
    committed: bool,
    protocol: Protocol,
}

impl Expected {
    fn agrees(&self, state: Option<BranchState>, floor: Timestamp) -> bool {
        match state {
            Some(BranchState::Committed) => self.committed && self.protocol == Protocol::TwoPhase,
            Some(BranchState::Executed) => self.committed && self.protocol == Protocol::Saga,
            Some(BranchState::Aborted | BranchState::Compensated) => !self.committed,
            Some(BranchState::Prepared) => false,
            // A saga that is undone may never have told a later step anything.
            None => !self.committed || self.branch.transaction.birth() <= floor,
        }
    }
}

/// The sums that a pass keeps: all, or the part of a number of parts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Part {
    pub(super) number: u64,
    pub(super) of: u64,
}

impl Part {
    pub(super) const WHOLE: Self = Self { number: 0, of: 1 };

    fn has(self, sum: Sum) -> bool {
        let (Sum::User(id) | Sum::Item(id)) = sum;
        // FNV-1a: the same for all passes.
        let mut hash: u64 = 0xcbf2_9ce4_8422_2325;
        for byte in id.to_string().bytes() {
            hash = (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
        self.of == 1 || hash % self.of == self.number
    }
}

/// A pass that is under way.
#[derive(Debug)]
pub(super) struct Pass {
    steps: VecDeque<Step>,
    part: Part,
    /// What each account settled less what its paid orders come to, each seen at some moment.
    sums: HashMap<Sum, i128>,
    suspects: BTreeMap<Sum, i128>,
    /// What suspects had settled when nothing open touched them, before any order was looked at.
    before: BTreeMap<Sum, i128>,
    /// What their paid orders come to, each counted once.
    paid: BTreeMap<Sum, i128>,
    counted: HashSet<EntityId>,
    replaced: BTreeMap<Sum, i128>,
    buried: Option<u64>,
    void: bool,
    watched: BTreeMap<Sum, Watch>,
    pub(super) yield_: Yield,
}

/// What a pass has brought.
#[derive(Debug, Default)]
pub(super) struct Yield {
    /// What is off, by what it is about.
    pub(super) found: BTreeMap<String, (Finding, Vec<Named>)>,
    /// Accounts whose sums were compared for certain.
    pub(super) certain: BTreeSet<Sum>,
    /// Whether accounts were not held against the open branches, since those were too many.
    pub(super) postponed: u64,
    /// Whether there were more accounts than it keeps sums of.
    pub(super) overflowed: bool,
    /// Accounts, orders and transactions looked at.
    pub(super) checked: u64,
    /// Accounts to look at twice in the next pass, and by how much each was off.
    pub(super) suspects: BTreeMap<Sum, i128>,
}

impl Pass {
    /// A pass that looks twice at these suspects, and whose number is `number`.
    pub(super) fn begin(suspects: BTreeMap<Sum, i128>, part: Part) -> Self {
        let ledgers = [STOCK, PAYMENT];
        let mut steps: VecDeque<Step> =
            ledgers.iter().map(|service| Step::Accounts { service: *service, after: String::new() }).collect();
        for service in ledgers {
            let of_service: Vec<EntityId> = ids(service, suspects.keys());
            let looks = of_service.chunks(MAX_AUDIT_PAGE);
            steps.extend(looks.map(|accounts| Step::Before { service, accounts: accounts.to_vec() }));
        }
        let first = String::new;
        steps.extend([Step::Orders { after: first() }, Step::Again, Step::Trace, Step::Ended { after: first() }]);
        let watched = suspects.iter().map(|(sum, off)| (*sum, Watch::new(*off))).collect();
        Self {
            steps,
            part,
            sums: HashMap::new(),
            suspects,
            before: BTreeMap::new(),
            paid: BTreeMap::new(),
            counted: HashSet::new(),
            replaced: BTreeMap::new(),
            buried: None,
            void: false,
            watched,
            yield_: Yield::default(),
        }
    }

    /// What to ask next; `None` when the pass is over.
    pub(super) fn ask(&mut self) -> Option<Ask> {
        loop {
            return Some(match self.steps.front()? {
                Step::Again => {
                    self.steps.pop_front();
                    self.look_again();
                    continue;
                }
                Step::Trace => {
                    self.steps.pop_front();
                    self.trace();
                    continue;
                }
                Step::Accounts { service, after } => Ask::Ledger(*service, Look::Accounts { after: after.clone() }),
                Step::Holds { service, accounts }
                | Step::Before { service, accounts }
                | Step::After { service, accounts } => Ask::Ledger(*service, Look::Standing(accounts.clone())),
                Step::Orders { after } => Ask::Orders(OrdersLook::Orders { after: after.clone() }),
                Step::Replaced { after } => Ask::Orders(OrdersLook::Replaced { after: after.clone() }),
                Step::Ended { after } => Ask::Orders(OrdersLook::Ended { after: after.clone() }),
                Step::Traced { service, branches } => Ask::Ledger(*service, Look::Outcomes(branches.clone())),
                Step::Outcomes { service, expected } => {
                    Ask::Ledger(*service, Look::Outcomes(expected.iter().map(|one| one.branch).collect()))
                }
            });
        }
    }

    /// Takes the answer to what was asked last.
    ///
    /// # Errors
    /// If it is the answer to another question.
    pub(super) fn take(&mut self, told: Told) -> Result<(), String> {
        let step = self.steps.pop_front().ok_or("nothing was asked")?;
        match (step, told) {
            (Step::Accounts { service, .. }, Told::Ledger(Seen::Accounts { rows, next, .. })) => {
                self.accounts(service, &rows, next);
            }
            (Step::Holds { service, .. }, Told::Ledger(Seen::Standing(standing))) => self.holds(service, standing),
            (Step::Before { service, .. }, Told::Ledger(Seen::Standing(Some(standing)))) => {
                let quiet = standing.iter().filter(|stands| !stands.touched && stands.held == 0);
                let settled = quiet.map(|stands| (sum_of(service, stands.id), stands.settled));
                let suspects = &self.suspects;
                self.before.extend(settled.filter(|(sum, _)| suspects.contains_key(sum)));
            }
            (Step::After { service, .. }, Told::Ledger(Seen::Standing(Some(standing)))) => {
                standing.iter().for_each(|stands| self.judge(service, stands));
            }
            (Step::Before { .. } | Step::After { .. }, Told::Ledger(Seen::Standing(None))) => {
                self.yield_.postponed += 1
            }
            (Step::Orders { .. }, Told::Orders(OrdersSeen::Orders { rows, looked, off, buried, next })) => {
                self.bury(buried);
                // Those that are open have nothing to be compared, and take as long: a pass goes on while it meets them.
                self.yield_.checked += looked;
                for (id, order) in &rows {
                    self.order(*id, order);
                }
                for contradiction in off {
                    self.find(Finding::Order(contradiction), Vec::new());
                }
                let after =
                    next.map_or_else(|| Step::Replaced { after: String::new() }, |after| Step::Orders { after });
                self.steps.push_front(after);
            }
            (Step::Replaced { .. }, Told::Orders(OrdersSeen::Replaced { sums, buried, next })) => {
                self.bury(buried);
                for (sum, amount) in sums {
                    self.add(sum, -amount);
                    if self.before.contains_key(&sum) {
                        self.replaced.insert(sum, amount);
                    }
                }
                self.first(next.map(|after| Step::Replaced { after }));
            }
            (Step::Traced { branches, .. }, Told::Ledger(Seen::Outcomes { states, floor })) => {
                let states: BTreeMap<_, _> = branches.into_iter().zip(states).collect();
                let named = self.yield_.found.values_mut().flat_map(|(_, named)| named);
                named.for_each(|named| named.trace(&states, floor));
            }
            (Step::Ended { .. }, Told::Orders(OrdersSeen::Ended { records, next })) => {
                self.yield_.checked += records.len() as u64;
                self.first(next.map(|after| Step::Ended { after }));
                for service in [STOCK, PAYMENT] {
                    let expected: Vec<_> =
                        records.iter().flat_map(|(id, record)| expected(service, *id, record)).collect();
                    for part in expected.chunks(MAX_SCRIPT_ITEMS) {
                        self.steps.push_front(Step::Outcomes { service, expected: part.to_vec() });
                    }
                }
            }
            (Step::Outcomes { service, expected }, Told::Ledger(Seen::Outcomes { states, floor })) => {
                for (expected, state) in expected.into_iter().zip(states) {
                    if !expected.agrees(state, floor) {
                        let Expected { branch, order, committed, .. } = expected;
                        let finding = Finding::Branch { service, branch, committed, state };
                        let named = Named::of_branch(service, branch, order, state);
                        self.find(finding, vec![named]);
                    }
                }
            }
            (step, _) => return Err(format!("an answer to another question than {step:?}")),
        }
        Ok(())
    }

    /// Whatever became of it, by the end.
    pub(super) fn end(mut self, number: u64) -> Yield {
        let mut off: Vec<(Sum, i128)> = self.sums.into_iter().filter(|(_, off)| *off != 0).collect();
        off.sort_unstable();
        // Those that stay off first; then others, in turn.
        let (stay, others): (Vec<_>, Vec<_>) =
            off.into_iter().partition(|(sum, off)| self.suspects.get(sum) == Some(off));
        let turn = usize::try_from(number).unwrap_or_default().wrapping_mul(MAX_AUDIT_SUSPECTS) % others.len().max(1);
        let next = stay.into_iter().chain(others[turn..].iter().chain(&others[..turn]).copied());
        self.yield_.suspects = next.take(MAX_AUDIT_SUSPECTS).collect();
        self.yield_
    }

    /// Does these before all else, the last of them first.
    fn first(&mut self, steps: impl IntoIterator<Item = Step>) {
        steps.into_iter().for_each(|step| self.steps.push_front(step));
    }

    fn accounts(&mut self, service: Name, rows: &[AccountSeen], next: Option<String>) {
        self.yield_.checked += rows.len() as u64;
        let mut held = Vec::new();
        for AccountSeen { id, account, settled, .. } in rows {
            self.add(sum_of(service, *id), *settled);
            let Some(account) = account else { continue };
            let off_by = account.discrepancy();
            if off_by != 0 {
                self.off(service, Discrepancy::NotConserved { account: *id, off_by });
            }
            if account.available < 0 {
                let off_by = -i128::from(account.available);
                self.off(service, Discrepancy::Overdrawn { account: *id, off_by });
            }
            if account.held != 0 {
                held.push(*id);
            }
        }
        let held = held.chunks(MAX_AUDIT_PAGE).map(<[_]>::to_vec);
        // At the end once more, for accounts that branches name and that are on no page.
        let looks = held.chain(next.is_none().then(Vec::new)).collect::<Vec<_>>();
        self.first(next.map(|after| Step::Accounts { service, after }));
        self.first(looks.into_iter().map(|accounts| Step::Holds { service, accounts }));
    }

    fn holds(&mut self, service: Name, standing: Option<Vec<Standing>>) {
        let Some(standing) = standing else {
            self.yield_.postponed += 1;
            return;
        };
        for Standing { id, held, promised, .. } in standing {
            let off_by = i128::from(held) - promised;
            if off_by != 0 {
                self.off(service, Discrepancy::HeldByNobody { account: id, off_by });
            }
        }
    }

    /// An account is off in itself.
    fn off(&mut self, service: Name, discrepancy: Discrepancy) {
        let (Discrepancy::NotConserved { account, off_by }
        | Discrepancy::HeldByNobody { account, off_by }
        | Discrepancy::Overdrawn { account, off_by }) = discrepancy;
        self.watched.entry(sum_of(service, account)).or_insert_with(|| Watch::new(off_by));
        self.find(Finding::Account { service, discrepancy }, Vec::new());
    }

    fn find(&mut self, finding: Finding, named: Vec<Named>) {
        self.yield_.found.insert(key_of(&finding), (finding, named));
    }

    /// Paid orders went over to the replaced ones meanwhile: one may have been counted twice, or not at all.
    fn bury(&mut self, buried: u64) {
        self.void |= *self.buried.get_or_insert(buried) != buried;
    }

    fn add(&mut self, sum: Sum, amount: i128) {
        if !self.part.has(sum) {
            return;
        }
        if self.sums.len() < MAX_AUDIT_SUMS || self.sums.contains_key(&sum) {
            *self.sums.entry(sum).or_default() += amount;
        } else {
            self.yield_.overflowed = true;
        }
    }

    /// An order that is paid or claimed.
    fn order(&mut self, id: EntityId, order: &Order) {
        let (OrderState::Paid(transaction) | OrderState::CheckingOut(transaction)) = order.state else { return };
        let mut amounts: Vec<(Sum, i128)> = vec![(Sum::User(order.user), i128::from(order.total_cost()))];
        amounts.extend(order.lines.iter().map(|line| (Sum::Item(line.item), i128::from(line.quantity))));
        let is_paid = order.is_paid();
        let suspected = is_paid && amounts.iter().any(|(sum, _)| self.before.contains_key(sum));
        if suspected && self.counted.len() >= MAX_AUDIT_COUNTED {
            self.void = true;
        }
        let counts = suspected && !self.void && self.counted.insert(id);
        for (sum, amount) in amounts {
            if is_paid {
                self.add(sum, -amount);
            }
            if counts && self.before.contains_key(&sum) {
                *self.paid.entry(sum).or_default() += amount;
            }
            if let Some(watch) = self.watched.get_mut(&sum) {
                watch.meet(sum, transaction, id, amount);
            }
        }
    }

    fn look_again(&mut self) {
        if self.void {
            self.yield_.postponed += u64::from(!self.before.is_empty());
            return;
        }
        for service in [STOCK, PAYMENT] {
            for accounts in ids(service, self.before.keys()).chunks(MAX_AUDIT_PAGE) {
                self.steps.push_front(Step::After { service, accounts: accounts.to_vec() });
            }
        }
    }

    /// Compares a suspect, if nothing open touched it before and after, and it settled nothing in between.
    fn judge(&mut self, service: Name, stands: &Standing) {
        let sum = sum_of(service, stands.id);
        let still = !stands.touched && stands.held == 0 && self.before.get(&sum) == Some(&stands.settled);
        if !still {
            return;
        }
        self.yield_.certain.insert(sum);
        let paid = |of: &BTreeMap<Sum, i128>| of.get(&sum).copied().unwrap_or_default();
        let off_by = stands.settled - paid(&self.paid) - paid(&self.replaced);
        if off_by != 0 {
            let finding = match sum {
                Sum::User(user) => Finding::Charged { user, off_by },
                Sum::Item(item) => Finding::Sold { item, off_by },
            };
            self.find(finding, Vec::new());
        }
    }

    /// Names the transactions that touched what is off, and asks what became of their branches there.
    fn trace(&mut self) {
        let mut asked: BTreeMap<Name, BTreeSet<BranchId>> = BTreeMap::new();
        for (finding, named) in self.yield_.found.values_mut().take(SHOWN_FINDINGS) {
            match finding {
                Finding::Order(off) => named.extend(Named::of_order(*off)),
                Finding::Branch { .. } => {}
                Finding::Account { service, discrepancy } => {
                    let (Discrepancy::NotConserved { account, .. }
                    | Discrepancy::HeldByNobody { account, .. }
                    | Discrepancy::Overdrawn { account, .. }) = discrepancy;
                    named.extend(self.watched.get(&sum_of(*service, *account)).map(Watch::named).unwrap_or_default());
                }
                Finding::Charged { user, .. } => {
                    named.extend(self.watched.get(&Sum::User(*user)).map(Watch::named).unwrap_or_default());
                }
                Finding::Sold { item, .. } => {
                    named.extend(self.watched.get(&Sum::Item(*item)).map(Watch::named).unwrap_or_default());
                }
            }
            named.iter().for_each(|named| _ = asked.entry(named.service).or_default().insert(named.branch()));
        }
        for (service, branches) in asked {
            let branches: Vec<BranchId> = branches.into_iter().collect();
            for part in branches.chunks(MAX_SCRIPT_ITEMS) {
                self.steps.push_front(Step::Traced { service, branches: part.to_vec() });
            }
        }
    }
}

/// The accounts of a service among these.
fn ids<'a>(service: Name, sums: impl Iterator<Item = &'a Sum>) -> Vec<EntityId> {
    let of = |sum: &Sum| match sum {
        Sum::User(id) => (service == PAYMENT).then_some(*id),
        Sum::Item(id) => (service == STOCK).then_some(*id),
    };
    sums.filter_map(of).collect()
}

/// What a finished transaction says of its branches at a service; what an operator settled by hand is left out.
fn expected(service: Name, id: TransactionId, record: &Record) -> Vec<Expected> {
    let (Some(transaction), Some(decision)) = (&record.transaction, record.decision()) else { return Vec::new() };
    let order = Claim::decode(&transaction.context).ok().map(|claim| claim.order);
    let by_hand = |step: u8| record.resolutions.iter().any(|done| done.step == step);
    let steps = transaction.steps.iter().zip(0_u8..);
    let of_service = steps.filter(|(step, number)| step.service == service && !by_hand(*number));
    let expect = |(_, step)| Expected {
        branch: BranchId { transaction: id, step },
        order,
        committed: Decision::is_commit(decision),
        protocol: transaction.protocol,
    };
    of_service.map(expect).collect()
}
