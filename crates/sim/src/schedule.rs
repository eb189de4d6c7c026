//! What happens next: events by their time, and by the seed among those of one time.

use std::collections::BTreeMap;

use crate::random::Random;

/// The queue of events, and the simulated time: microseconds since the start of the run.
#[derive(Debug)]
pub(crate) struct Schedule<E> {
    now: u64,
    sequence: u64,
    queue: BTreeMap<(u64, u64, u64), E>,
}

impl<E> Default for Schedule<E> {
    fn default() -> Self {
        Self { now: 0, sequence: 0, queue: BTreeMap::new() }
    }
}

impl<E> Schedule<E> {
    pub(crate) fn now(&self) -> u64 {
        self.now
    }

    /// Puts an event `after` microseconds from now. Among events of one microsecond the seed decides.
    pub(crate) fn after(&mut self, after: u64, random: &mut Random, event: E) {
        let tie = random.next() | 1;
        self.put(self.now + after, tie, event);
    }

    /// Puts an event at a time, before all others of that microsecond, and behind those put there the same way.
    pub(crate) fn in_order(&mut self, at: u64, event: E) {
        self.put(at.max(self.now), 0, event);
    }

    fn put(&mut self, at: u64, tie: u64, event: E) {
        self.sequence += 1;
        self.queue.insert((at, tie, self.sequence), event);
    }

    /// Takes the next event out, and moves the time on to it.
    pub(crate) fn next(&mut self) -> Option<E> {
        let ((at, ..), event) = self.queue.pop_first()?;
        self.now = at;
        Some(event)
    }

    pub(crate) fn any(&self, wanted: impl FnMut(&E) -> bool) -> bool {
        self.queue.values().any(wanted)
    }

    pub(crate) fn clear(&mut self) {
        self.queue.clear();
    }
}
