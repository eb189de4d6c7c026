//! What a record tells people beside what decides: through whose hands a transaction went, and what did not succeed at the first attempt.
//! Nothing in here changes what becomes of a transaction; most have none of it.

use serde::{Deserialize, Serialize};

use super::Record;
use crate::ids::{Name, Timestamp};
use crate::limits::MAX_HANDOVERS;
use crate::message::{Unknown, Verb};

/// The hands and the attempts.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
pub struct History {
    /// Who had it before its owner, the first one first: at most [`MAX_HANDOVERS`]. Beyond that the latest takes the place of the one before it.
    pub handovers: Vec<Handover>,
    /// What took more than one attempt, by those who told the log: at most one for each verb to a step.
    pub tries: Vec<Tries>,
}

/// A transaction was taken over; or, if both are the same, taken up again by an instance that had ended and started again.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Handover {
    /// From whom.
    pub from: Name,
    /// By whom.
    pub to: Name,
    /// When.
    pub at: Timestamp,
    /// Whether it was decided by then.
    pub decided: bool,
}

/// What one participant was asked more than once.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Tries {
    /// Which step's.
    pub step: u8,
    /// What it was asked.
    pub verb: Verb,
    /// How often.
    pub attempts: u32,
    /// Whether it answered in the end, or an operator settled its part by hand.
    pub answered: bool,
    /// Why the last attempt that failed did.
    pub why: Unknown,
}

impl History {
    pub(super) fn hand_over(&mut self, handover: Handover) {
        if self.handovers.len() == MAX_HANDOVERS {
            self.handovers.pop();
        }
        self.handovers.push(handover);
    }

    pub(super) fn tried(&mut self, tries: &[Tries]) {
        for tries in tries {
            self.tries.retain(|old| (old.step, old.verb) != (tries.step, tries.verb));
            self.tries.push(tries.clone());
        }
    }
}

impl Record {
    /// Through whose hands it went before its owner has it, the first one first.
    pub fn handovers(&self) -> &[Handover] {
        self.history.as_ref().map_or(&[], |history| &history.handovers)
    }

    /// What took more than one attempt, as far as the log was told.
    pub fn tries(&self) -> &[Tries] {
        self.history.as_ref().map_or(&[], |history| &history.tries)
    }

    /// Whether others may have had it, whom the log does not name: before the last of the handovers that it remembers.
    pub fn has_nameless_owners(&self) -> bool {
        self.handovers().len() == MAX_HANDOVERS
    }

    /// Who put it into the log; `None` of a tombstone.
    pub fn staged_by(&self) -> Option<Name> {
        self.handovers().first().map(|first| first.from).or(self.owner)
    }

    /// Who decided it; `None` if nobody has, nobody owned it, or it went through so many hands that the log does not say.
    pub fn decided_by(&self) -> Option<Name> {
        self.decided.as_ref()?;
        let hands = self.handovers();
        match hands.iter().position(|handover| handover.decided) {
            Some(at) if at + 1 == hands.len() && self.has_nameless_owners() => None,
            Some(at) => Some(hands[at].from),
            None => hands.last().map(|last| last.to).or(self.owner),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rare::Rare;
    use crate::transaction::Decision;

    fn record(owner: &'static str, decided: bool, hands: &[(&'static str, bool)]) -> Record {
        let mut history = History::default();
        for (from, decided) in hands {
            let (from, to) = (Name::new(from).unwrap(), Name::new(owner).unwrap());
            history.hand_over(Handover { from, to, at: Timestamp(7), decided: *decided });
        }
        Record {
            transaction: None,
            owner: Some(Name::new(owner).unwrap()),
            decided: decided.then_some((Decision::Commit, Timestamp(5))),
            finished: None,
            letters: Rare::default(),
            resolutions: Rare::default(),
            history: Some(Box::new(history)),
        }
    }

    #[test]
    fn who_staged_and_who_decided_follow_from_the_hands() {
        let who = |record: &Record| [record.staged_by(), record.decided_by()].map(|name| name.map(|it| it.to_string()));
        let some = |name: &str| Some(name.to_owned());
        assert_eq!(who(&record("a", false, &[])), [some("a"), None]);
        assert_eq!(who(&record("a", true, &[])), [some("a"), some("a")]);
        assert_eq!(who(&record("b", false, &[("a", false)])), [some("a"), None]);
        assert_eq!(who(&record("b", true, &[("a", false)])), [some("a"), some("b")]);
        assert_eq!(who(&record("b", true, &[("a", true)])), [some("a"), some("a")]);
        assert_eq!(who(&record("c", true, &[("a", false), ("b", true)])), [some("a"), some("b")]);
        // It was finished by one that had had it before.
        let finished = Record { owner: Some(Name::literal("a")), ..record("b", true, &[("a", false)]) };
        assert_eq!(who(&finished), [some("a"), some("b")]);
    }

    #[test]
    fn of_very_many_hands_the_first_and_the_last_are_known() {
        let hands: Vec<_> = (0..MAX_HANDOVERS).map(|_| ("a", false)).chain([("y", false), ("z", true)]).collect();
        let record = record("b", true, &hands);
        assert_eq!(record.handovers().len(), MAX_HANDOVERS);
        assert_eq!(record.handovers().last().map(|last| last.from), Some(Name::literal("z")));
        assert_eq!(record.staged_by(), Some(Name::literal("a")));
        assert_eq!(record.decided_by(), None, "it may have been `y`");
    }

    #[test]
    fn what_is_told_again_takes_the_place_of_what_was_told() {
        let tries = |verb, attempts| Tries { step: 1, verb, attempts, answered: true, why: Unknown::Timeout };
        let mut history = History::default();
        history.tried(&[tries(Verb::Prepare, 2), tries(Verb::Commit, 3)]);
        history.tried(&[tries(Verb::Prepare, 4)]);
        assert_eq!(history.tries, [tries(Verb::Commit, 3), tries(Verb::Prepare, 4)]);
    }
}
