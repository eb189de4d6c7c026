//! The network: how long a message takes, whether it comes at all, and who can't reach whom.

use std::collections::BTreeMap;

use crate::conditions::Conditions;
use crate::random::Random;

/// A machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Node {
    /// An instance of the shop: an engine.
    Instance(usize),
    /// 0: stock, 1: payment.
    Ledger(usize),
    /// Orders and the transaction log.
    Orders,
    /// All clients.
    Clients,
}

impl std::fmt::Display for Node {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Instance(n) => write!(f, "shop-{n}"),
            Self::Ledger(0) => f.write_str("stock"),
            Self::Ledger(_) => f.write_str("payment"),
            Self::Orders => f.write_str("orders"),
            Self::Clients => f.write_str("clients"),
        }
    }
}

/// A cut between two machines.
#[derive(Debug, Clone, Copy)]
struct Cut {
    until: u64,
    /// Messages wait for the end of it, instead of being lost.
    holds: bool,
}

/// What becomes of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fate {
    /// It comes after so many microseconds.
    Comes(u64),
    Lost,
}

#[derive(Debug, Default)]
pub(crate) struct Network {
    cuts: BTreeMap<(Node, Node), Cut>,
    /// Faults are over: nothing is lost any more.
    healed: bool,
}

impl Network {
    pub(crate) fn cut(&mut self, a: Node, b: Node, until: u64, holds: bool) {
        self.cuts.insert((a.min(b), a.max(b)), Cut { until, holds });
    }

    /// Whether nothing gets from one to the other now.
    pub(crate) fn is_cut(&self, a: Node, b: Node, now: u64) -> bool {
        self.cuts.get(&(a.min(b), a.max(b))).is_some_and(|cut| now < cut.until)
    }

    pub(crate) fn heal(&mut self) {
        self.cuts.clear();
        self.healed = true;
    }

    /// What becomes of a message sent now.
    pub(crate) fn fate(&self, from: Node, to: Node, now: u64, conditions: &Conditions, random: &mut Random) -> Fate {
        let mut delay = random.between(1, conditions.delay);
        let command = matches!((from, to), (Node::Instance(_), Node::Ledger(_)));
        // Where strikes are aimed, it is the late command that meets a recovery which was quicker.
        if !self.healed && (command || !conditions.aimed) && random.chance(conditions.straggler) {
            delay = delay.saturating_mul(1000).min(12_000_000);
        }
        let lost = random.chance(conditions.loss);
        if self.healed {
            return Fate::Comes(delay);
        }
        if let Some(cut) = self.cuts.get(&(from.min(to), from.max(to)))
            && now < cut.until
        {
            return if cut.holds { Fate::Comes(cut.until - now + delay) } else { Fate::Lost };
        }
        if lost { Fate::Lost } else { Fate::Comes(delay) }
    }
}
