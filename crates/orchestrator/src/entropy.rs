//! SplitMix64: randomness without a lock, and the same numbers from the same seed.

use std::sync::atomic::{AtomicU64, Ordering};

/// The increment of SplitMix64: 2^64 over the golden ratio.
pub(crate) const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;

/// The output function of SplitMix64 (Steele, Lea, Flood 2014).
pub(crate) fn mix(state: u64) -> u64 {
    let mut z = state;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// What makes transaction ids different, eight by eight: those of one eight differ in the last three bits of their tenth byte only, which is the last one that an id
/// has. Born in the same millisecond, they stand side by side wherever they are looked up (see `table::Hasher::beside`).
pub(crate) struct InEights {
    seed: u64,
    drawn: AtomicU64,
}

impl InEights {
    pub(crate) fn new(seed: u64) -> Self {
        Self { seed, drawn: AtomicU64::new(0) }
    }

    pub(crate) fn draw(&self) -> [u8; 16] {
        let drawn = self.drawn.fetch_add(1, Ordering::Relaxed);
        let word = |nth: u64| mix(self.seed.wrapping_add((drawn / 8 * 2 + nth).wrapping_mul(GOLDEN)));
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&word(0).to_le_bytes());
        bytes[8..].copy_from_slice(&word(1).to_le_bytes());
        bytes[9] = bytes[9] & !7 | (drawn % 8) as u8;
        bytes
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use protocol::{Timestamp, TransactionId};

    use super::*;

    #[test]
    fn no_id_comes_twice_and_eight_in_a_row_differ_in_three_bits() {
        let ids = |seed| {
            let bits = InEights::new(seed);
            (0..20_000).map(|_| TransactionId::new(Timestamp(7), bits.draw())).collect::<Vec<_>>()
        };
        let (some, others) = (ids(1), ids(2));
        let different: BTreeSet<_> = some.iter().chain(&others).collect();
        assert_eq!(different.len(), some.len() + others.len());
        let eight = |id: &TransactionId| u128::from_be_bytes(*id.as_bytes()) >> 3;
        for run in some.chunks(8) {
            assert!(run.iter().all(|id| eight(id) == eight(&run[0])));
        }
        assert_eq!(some.iter().map(eight).collect::<BTreeSet<_>>().len(), some.len() / 8);
    }
}
