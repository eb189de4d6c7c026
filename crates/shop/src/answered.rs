//! What the log says of checkouts that nobody counted: whoever was killed had not told what it answered in its last second.

use protocol::log::{LogState, Record};
use protocol::{Cause, Decision, Timestamp};

/// How many checkouts had which outcome.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Answered {
    /// Committed. Recovery may have been the first to decide so; then the client may have heard nothing, and the order is paid.
    pub committed: u64,
    /// Refused by a service.
    pub refused: u64,
    /// Undone, since a service did not answer. What recovery undid had no answer, and is not among them.
    pub undone: u64,
}

/// What was decided after this moment, as the log's clock has it: that is right to a tick of the kernel, 10 ms at most, so a checkout that was decided so
/// soon behind a look may be missing.
pub(crate) fn answered_since(log: &LogState, since: Timestamp) -> Answered {
    let mut answered = Answered::default();
    let finished_since = log.finished().take_while(|(_, record)| record.finished.is_some_and(|at| at > since));
    for (_, record) in log.open().chain(finished_since) {
        count(&mut answered, record, since);
    }
    answered
}

fn count(answered: &mut Answered, record: &Record, since: Timestamp) {
    let Some((decision, at)) = &record.decided else { return };
    if *at <= since {
        return;
    }
    match decision {
        Decision::Commit => answered.committed += 1,
        Decision::Abort(Cause::Refused { .. }) => answered.refused += 1,
        Decision::Abort(Cause::Unavailable { .. }) => answered.undone += 1,
        Decision::Abort(Cause::Recovered | Cause::NeverStaged) => {}
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use protocol::log::{LogCommand, LogReply, Writer};
    use protocol::{Name, Order, Protocol, Recovery, Refusal, Transaction, TransactionId};

    use super::*;

    #[test]
    fn what_was_decided_since_is_counted_finished_or_not_and_once() {
        let (mut log, shop) = (LogState::default(), Name::literal("shop"));
        let register = LogCommand::Register { instance: shop, now: Timestamp(1), lease: 1_000 };
        let (LogReply::Registered(epoch), _) = log.apply(&register) else { panic!("it is registered") };
        let writer = Writer { instance: shop, epoch };
        let refused = Cause::Refused { step: 0, refusal: Box::new(Refusal::new(Name::literal("insufficient"), "")) };
        let outcomes = [
            Decision::Commit,
            Decision::Abort(refused),
            Decision::Abort(Cause::Unavailable { step: Some(1) }),
            Decision::Abort(Cause::Recovered),
        ];
        let mut n = 0;
        for at in [100, 101] {
            for finishes in [true, false] {
                for decision in &outcomes {
                    n += 1;
                    let id = TransactionId::new(Timestamp(50), [n; 16]);
                    let transaction = Transaction {
                        id,
                        definition: Name::literal("checkout"),
                        protocol: Protocol::TwoPhase,
                        order: Order::Parallel,
                        recovery: Recovery::Backward,
                        steps: [].into(),
                        context: Vec::new().into(),
                    };
                    log.apply(&LogCommand::Stage { writer, transaction: Arc::new(transaction) });
                    let now = Timestamp(at);
                    log.apply(&LogCommand::Decide { writer, id, decision: decision.clone(), now });
                    if finishes {
                        log.apply(&LogCommand::Finish { writer, ids: vec![id], now: Timestamp(at + 1) });
                    }
                }
            }
        }
        assert_eq!(answered_since(&log, Timestamp(100)), Answered { committed: 2, refused: 2, undone: 2 });
        assert_eq!(answered_since(&log, Timestamp(99)), Answered { committed: 4, refused: 4, undone: 4 });
        assert_eq!(answered_since(&log, Timestamp(101)), Answered::default());
    }
}
