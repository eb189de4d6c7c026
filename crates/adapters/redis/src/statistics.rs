//! Numbers for whoever watches a store.

use std::time::Duration;

/// How many buckets a distribution has. Bucket `n` counts values from 2ⁿ to 2ⁿ⁺¹ − 1, the first one also 0, the last one also everything
/// larger.
pub const BUCKETS: usize = 26;

/// What a store has done since it was opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Statistics {
    /// Batches that the server answered, whether or not its replicas acknowledged them in time.
    pub batches: u64,
    /// Scripts in them.
    pub scripts: u64,
    /// How many batches had how many scripts.
    pub batch_scripts: [u64; BUCKETS],
    /// How many batches took how many microseconds, from the first byte sent until the last answer, the wait for replicas included.
    pub batch_microseconds: [u64; BUCKETS],
    /// The sum of those times, in nanoseconds.
    pub batch_nanoseconds: u64,
    /// Scripts whose outcome nobody knows.
    pub unknown: u64,
    /// Connections made, the first included.
    pub connections: u64,
    /// Times that the Sentinels named a master at another address.
    pub failovers: u64,
}

fn bucket(value: u64) -> usize {
    (value.max(1).ilog2() as usize).min(BUCKETS - 1)
}

impl Statistics {
    /// Counts a batch that the server answered.
    pub(crate) fn answered(&mut self, scripts: u64, took: Duration) {
        let nanoseconds = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        self.batches += 1;
        self.scripts += scripts;
        self.batch_scripts[bucket(scripts)] += 1;
        self.batch_microseconds[bucket(nanoseconds / 1_000)] += 1;
        self.batch_nanoseconds = self.batch_nanoseconds.saturating_add(nanoseconds);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_is_counted_where_its_size_and_its_time_belong() {
        let mut counted = Statistics::default();
        for (scripts, micros) in [(1, 0), (3, 1_023), (64, 1_024), (64, u64::MAX / 1_000)] {
            counted.answered(scripts, Duration::from_micros(micros));
        }
        let filled = |buckets: [u64; BUCKETS]| {
            buckets.into_iter().enumerate().filter(|(_, count)| *count > 0).collect::<Vec<_>>()
        };
        assert_eq!((counted.batches, counted.scripts), (4, 132));
        assert_eq!(filled(counted.batch_scripts), [(0, 1), (1, 1), (6, 2)]);
        assert_eq!(filled(counted.batch_microseconds), [(0, 1), (9, 1), (10, 1), (BUCKETS - 1, 1)]);
    }
}
