//! What is left of the steps of finished transactions: which services took part. It is the same of most, and kept once.

use std::sync::Arc;

use crate::transaction::{Step, Transaction};

/// So many are looked for: as many as an application has definitions, as a rule. A transaction with yet others has its own.
const KEPT: usize = 16;

/// Steps without payloads, shared by all transactions of the same services.
#[derive(Debug, Clone, Default)]
pub(super) struct BareSteps {
    known: Vec<Arc<[Step]>>,
}

impl BareSteps {
    /// Drops the payloads of a transaction's steps.
    pub(super) fn strip(&mut self, transaction: &mut Arc<Transaction>) {
        let services = |steps: &Arc<[Step]>| {
            steps.iter().map(|step| step.service).eq(transaction.steps.iter().map(|step| step.service))
        };
        let bare = match self.known.iter().find(|steps| services(steps)) {
            Some(known) => Arc::clone(known),
            None => {
                let bare = transaction.bare_steps();
                if self.known.len() < KEPT {
                    self.known.push(Arc::clone(&bare));
                }
                bare
            }
        };
        Arc::make_mut(transaction).steps = bare;
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::ids::{Name, Timestamp, TransactionId};
    use crate::log::{LogState, Record};
    use crate::message::Payload;
    use crate::rare::Rare;
    use crate::transaction::{Decision, Order, Protocol, Recovery};

    fn transaction(services: &[&str]) -> Arc<Transaction> {
        let step = |name: &&str| Step { service: Name::new(name).unwrap(), payload: Payload::from(&[1, 2, 3][..]) };
        Arc::new(Transaction {
            id: TransactionId::new(Timestamp(1_000), [7; 16]),
            definition: Name::literal("any"),
            protocol: Protocol::TwoPhase,
            order: Order::Parallel,
            recovery: Recovery::Backward,
            steps: services.iter().map(step).collect(),
            context: Payload::from(&[9][..]),
        })
    }

    /// A log remembers these by the hundred thousand, and a process pays for memory when it first meets it: whoever makes it more should know.
    #[test]
    fn a_row_of_the_log_takes_no_more_room_than_it_did() {
        assert!(size_of::<Option<(TransactionId, Record)>>() <= 112);
    }

    #[test]
    fn a_log_that_was_thawed_keeps_them_once_as_well() {
        let records = [1, 2].map(|n| {
            let mut whole = Arc::unwrap_or_clone(transaction(&["a", "b"]));
            whole.id = TransactionId::new(Timestamp(1_000), [n; 16]);
            whole.steps = whole.bare_steps();
            let record = Record {
                transaction: Some(Arc::new(whole.clone())),
                owner: None,
                decided: Some((Decision::Commit, Timestamp(1_001))),
                finished: Some(Timestamp(1_002)),
                letters: Rare::default(),
                resolutions: Rare::default(),
                history: None,
            };
            (whole.id, record)
        });
        let ids = records.clone().map(|(id, _)| id);
        let log = LogState::thaw(records.to_vec(), BTreeMap::new(), ids.into(), Timestamp(0));
        let [one, other] = ids.map(|id| log.get(id).and_then(|record| record.transaction.as_ref()).unwrap());
        assert!(Arc::ptr_eq(&one.steps, &other.steps));
        assert_eq!(one.steps, records[0].1.transaction.as_ref().unwrap().steps);
    }

    #[test]
    fn services_stay_and_are_kept_once_in_their_order_and_nobody_elses_copy_changes() {
        let mut bare = BareSteps::default();
        let mut strip = |services: &[&str]| {
            let whole = transaction(services);
            let mut stripped = Arc::clone(&whole);
            bare.strip(&mut stripped);
            assert_eq!(whole, transaction(services), "whoever else has it has it whole");
            let left: Vec<&str> = stripped.steps.iter().map(|step| step.service.as_str()).collect();
            assert_eq!(left, services);
            assert!(stripped.steps.iter().all(|step| step.payload == Payload::EMPTY));
            assert_eq!(stripped.context, whole.context);
            stripped
        };
        let first = strip(&["a", "b"]);
        assert!(Arc::ptr_eq(&first.steps, &strip(&["a", "b"]).steps));
        for other in [&["b", "a"][..], &["a"], &["a", "b", "c"]] {
            assert!(!Arc::ptr_eq(&first.steps, &strip(other).steps));
        }
        // However many there are, few are looked through.
        for n in 0..3 * KEPT {
            strip(&[&format!("service-{n}")]);
        }
        assert!(Arc::ptr_eq(&first.steps, &strip(&["a", "b"]).steps));
        assert_eq!(bare.known.len(), KEPT);
    }
}
