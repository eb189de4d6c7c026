//! From a hash to the slot of a row, in one array.
//!
//! ```text
//!   hash ─► home ─► [tag, slot] [tag, slot] [vacant] …      8 bytes each, so that eight share a cache line
//! ```
//!
//! Open addressing with linear probing; what is taken out is filled from behind, so that there are no tombstones (Knuth, The Art of Computer Programming,
//! volume 3, section 6.4, algorithms L and R). A look-up meets one cache line that is not at hand before it meets the row; with control bytes in an
//! array of their own, as in most hash tables, it would be two. An entry has 32 bits of the hash, and growing needs no more: no row is looked at.
//!
//! Half of it is vacant. [Neighbours](crate::Hasher::beside) come in runs of eight, so what is in the way of a key is as much longer: when half is taken, the first
//! of eight is missed after 12 entries on average, in two and a half cache lines, and finds the next ones' lines for them; when two thirds are, after 28.

/// Where nothing is. No row has this slot: [`Table`](crate::Table) gives none so high.
const VACANT: Entry = Entry { tag: 0, slot: u32::MAX };
/// Entries of an index that is not empty, at least.
const LEAST: usize = 8;

/// See the [module](self).
#[derive(Debug, Clone, Default)]
pub(crate) struct Index {
    /// None, or a power of two of them. Half of them are vacant at least.
    entries: Vec<Entry>,
    len: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Entry {
    tag: u32,
    slot: u32,
}

/// The part of a hash that is kept.
fn tag(hash: u64) -> u32 {
    (hash ^ (hash >> 32)) as u32
}

impl Index {
    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// The slot under this hash for which `is` holds.
    pub(crate) fn find(&self, hash: u64, is: impl Fn(u32) -> bool) -> Option<u32> {
        self.position(tag(hash), is).map(|at| self.entries[at].slot)
    }

    /// Puts a slot under a hash, beside those that are there.
    pub(crate) fn insert(&mut self, hash: u64, slot: u32) {
        debug_assert!(slot != VACANT.slot, "that slot says that nothing is there");
        if (self.len + 1) * 2 > self.entries.len() {
            self.grow();
        }
        self.place(Entry { tag: tag(hash), slot });
        self.len += 1;
    }

    /// Takes out the slot under this hash for which `is` holds.
    pub(crate) fn remove(&mut self, hash: u64, is: impl Fn(u32) -> bool) -> Option<u32> {
        let at = self.position(tag(hash), is)?;
        let slot = self.entries[at].slot;
        self.len -= 1;
        // Whoever stands behind and would be found no more if this place were vacant moves up; then so for its place.
        let (mut hole, mut next) = (at, self.behind(at));
        while self.entries[next] != VACANT {
            let passed = |from: usize| next.wrapping_sub(from) & (self.entries.len() - 1);
            if passed(self.home(self.entries[next].tag)) >= passed(hole) {
                self.entries[hole] = self.entries[next];
                hole = next;
            }
            next = self.behind(next);
        }
        self.entries[hole] = VACANT;
        Some(slot)
    }

    fn home(&self, tag: u32) -> usize {
        tag as usize & (self.entries.len() - 1)
    }

    fn behind(&self, at: usize) -> usize {
        (at + 1) & (self.entries.len() - 1)
    }

    fn position(&self, tag: u32, is: impl Fn(u32) -> bool) -> Option<usize> {
        if self.entries.is_empty() {
            return None;
        }
        let mut at = self.home(tag);
        // Ends: half is vacant.
        loop {
            let entry = self.entries[at];
            if entry == VACANT {
                return None;
            }
            if entry.tag == tag && is(entry.slot) {
                return Some(at);
            }
            at = self.behind(at);
        }
    }

    fn place(&mut self, entry: Entry) {
        let mut at = self.home(entry.tag);
        while self.entries[at] != VACANT {
            at = self.behind(at);
        }
        self.entries[at] = entry;
    }

    fn grow(&mut self) {
        let wanted = (self.entries.len() * 2).max(LEAST);
        let before = std::mem::replace(&mut self.entries, vec![VACANT; wanted]);
        for entry in before {
            if entry != VACANT {
                self.place(entry);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Hashes of few bits, so that there are long chains that end at the array's end, and slots with the same hash.
        #[test]
        fn behaves_like_a_map_however_bad_the_hashes_are(
            bits in 0u32..8,
            operations in prop::collection::vec((any::<bool>(), 0u32..300), 0..1_500),
        ) {
            let hash = |slot: u32| {
                let mixed = u64::from(slot).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40;
                // The last ones of the array are homes, too.
                u64::from(u32::MAX) - (mixed & ((1 << bits) - 1))
            };
            let (mut index, mut model) = (Index::default(), BTreeMap::new());
            for (puts, slot) in operations {
                if puts && !model.contains_key(&slot) {
                    index.insert(hash(slot), slot);
                    model.insert(slot, ());
                } else if !puts {
                    prop_assert_eq!(index.remove(hash(slot), |it| it == slot), model.remove(&slot).map(|()| slot));
                }
                prop_assert_eq!(index.len(), model.len());
                prop_assert!(index.len() * 2 <= index.entries.len());
            }
            for slot in 0..300 {
                let found = index.find(hash(slot), |it| it == slot);
                prop_assert_eq!(found, model.get(&slot).map(|()| slot));
            }
        }
    }
}
