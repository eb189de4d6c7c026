//! Which transactions' traces were sent on, so that nobody is pointed to one that was not kept.

use std::collections::BTreeMap;
use std::sync::OnceLock;

use parking_lot::Mutex;
use protocol::limits::REMEMBERED_TRACES;
use protocol::{Timestamp, TransactionId};

use super::following::own;
use crate::ids::TraceId;

/// The trace of a transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TraceOf {
    /// Its id.
    pub trace: TraceId,
    /// Whether it was sent on; otherwise nobody here knows whether anybody did.
    pub certain: bool,
}

/// The youngest transactions whose traces were sent on.
#[derive(Debug, Default)]
pub(super) struct Remembered {
    /// When the first was born that began in this process: of an earlier one it cannot know.
    since: OnceLock<Timestamp>,
    sent: Mutex<Sent>,
}

#[derive(Debug, Default)]
struct Sent {
    traces: BTreeMap<TransactionId, TraceId>,
    /// Of transactions up to this one some are forgotten.
    floor: Option<TransactionId>,
}

impl Remembered {
    /// A transaction began here.
    pub(super) fn begun(&self, id: TransactionId) {
        self.since.get_or_init(|| id.birth());
    }

    /// Its trace was sent on.
    pub(super) fn sent(&self, id: TransactionId, trace: TraceId) {
        let mut sent = self.sent.lock();
        sent.traces.insert(id, trace);
        if sent.traces.len() > REMEMBERED_TRACES {
            let oldest = sent.traces.pop_first().map(|(id, _)| id);
            sent.floor = sent.floor.max(oldest);
        }
    }

    /// The trace of a transaction, unless it is known that none was kept; `driven_here`: no other process can have sent it on.
    pub(super) fn trace_of(&self, id: TransactionId, driven_here: bool) -> Option<TraceOf> {
        let sent = self.sent.lock();
        if let Some(trace) = sent.traces.get(&id) {
            return Some(TraceOf { trace: *trace, certain: true });
        }
        let all_is_known = self.since.get().is_some_and(|since| id.birth() >= *since) && Some(id) > sent.floor;
        let (trace, _) = own(id);
        (!(driven_here && all_is_known)).then_some(TraceOf { trace, certain: false })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(birth: u64) -> TransactionId {
        TransactionId::new(Timestamp(birth), [7; 16])
    }

    #[test]
    fn a_trace_is_certain_not_kept_or_not_known_of() {
        let remembered = Remembered::default();
        let perhaps = |birth| Some(TraceOf { trace: own(id(birth)).0, certain: false });
        assert_eq!(remembered.trace_of(id(5), true), perhaps(5), "nothing began here yet");
        remembered.begun(id(10));
        remembered.begun(id(11));
        let clients = TraceId([3; 16]);
        remembered.sent(id(11), clients);
        assert_eq!(remembered.trace_of(id(11), false), Some(TraceOf { trace: clients, certain: true }));
        assert_eq!(remembered.trace_of(id(10), true), None, "it began here, and was not sent on");
        assert_eq!(remembered.trace_of(id(10), false), perhaps(10), "another may have sent it on");
        assert_eq!(remembered.trace_of(id(9), true), perhaps(9), "it began before this process did");
    }

    #[test]
    fn the_oldest_are_forgotten_and_no_longer_said_not_to_be_kept() {
        let remembered = Remembered::default();
        remembered.begun(id(0));
        for birth in 1..=(REMEMBERED_TRACES as u64 + 2) {
            remembered.sent(id(2 * birth), own(id(2 * birth)).0);
        }
        let certain = |birth| remembered.trace_of(id(birth), true).map(|found| found.certain);
        assert_eq!([4, 5, 6, 7].map(certain), [Some(false), None, Some(true), None]);
        assert_eq!(certain(3), Some(false), "that, too, may be forgotten");
        // One that is older than all of those is not taken for the beginning of what is known.
        remembered.sent(id(1), own(id(1)).0);
        assert_eq!([1, 4, 5].map(certain), [Some(false), Some(false), None]);
    }
}
