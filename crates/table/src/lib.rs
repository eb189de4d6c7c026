//! A keyed table whose snapshots cost nothing while they are being written out.
//!
//! ```text
//!   index: hash(key) ─► slot number          (16 to 32 bytes a row, never part of a snapshot)
//!   pages: [Arc<[row; 128]>, Arc<[row; 128]>, …]
//!                │
//!   freeze() ────┴─► Frozen: clones the Arcs, not the rows
//! ```
//!
//! A state machine that serves while its snapshot is written needs a picture of itself that stands still. [`Table::freeze`]
//! hands one out by cloning one pointer for every 128 rows; a row changed afterwards copies its page once (copy on write).
//! Iteration runs in slot order: it depends on the history of operations alone, never on a hash seed, so that replaying a
//! journal gives the same order again.

mod index;

use std::hash::{BuildHasher, Hash};
use std::sync::Arc;

use foldhash::fast::RandomState;

use crate::index::Index;

/// Rows in a page: the unit of copy on write.
const PAGE: usize = 128;

/// Rows stand in the page itself: a look-up follows one pointer fewer than through a vector.
type Page<K, V> = Arc<[Option<(K, V)>]>;

/// What a table can be asked by.
pub trait Key: Clone + Eq {
    /// Its hash: [alone](Hasher::alone), or [beside](Hasher::beside) others that are asked for at the same time.
    fn hash_by(&self, hasher: &Hasher) -> u64;
}

/// Hashes the keys of one table, with a seed of its own: keys that are in each other's way cannot be prepared.
#[derive(Debug, Clone, Default)]
pub struct Hasher(RandomState);

impl Hasher {
    /// The hash of a key that has nothing to do with any other.
    pub fn alone(&self, key: impl Hash) -> u64 {
        self.0.hash_one(key)
    }

    /// The hash of a key with neighbours: the eight that differ in their last three bits stand side by side in the index, in one cache line. Where keys are
    /// given in their order, and asked for soon after each other, one look-up brings the line for all of them. `of` tells families of keys apart.
    pub fn beside(&self, key: u128, of: u8) -> u64 {
        (self.0.hash_one((key & !7, of)) & !7) | (key & 7) as u64
    }
}

impl Key for Arc<str> {
    fn hash_by(&self, hasher: &Hasher) -> u64 {
        hasher.alone(self)
    }
}

/// A map from `K` to `V` that can be [frozen](Table::freeze).
#[derive(Debug)]
pub struct Table<K, V> {
    index: Index,
    hasher: Hasher,
    pages: Vec<Page<K, V>>,
    /// Vacant slots below `next`, the last vacated first.
    free: Vec<u32>,
    /// The first slot that was never used.
    next: u32,
}

/// A consistent picture of a [`Table`], cheap to take and safe to read from another thread.
#[derive(Debug, Clone)]
pub struct Frozen<K, V> {
    pages: Vec<Page<K, V>>,
    len: usize,
}

impl<K, V> Default for Table<K, V> {
    fn default() -> Self {
        Self { index: Index::default(), hasher: Hasher::default(), pages: Vec::new(), free: Vec::new(), next: 0 }
    }
}

impl<K: Key, V: Clone> Clone for Table<K, V> {
    fn clone(&self) -> Self {
        Self {
            index: self.index.clone(),
            hasher: self.hasher.clone(),
            pages: self.pages.clone(),
            free: self.free.clone(),
            next: self.next,
        }
    }
}

impl<K, V> Table<K, V> {
    /// The number of rows.
    pub fn len(&self) -> usize {
        self.index.len()
    }

    /// Whether there are no rows.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The rows in slot order.
    pub fn iter(&self) -> impl Iterator<Item = (&K, &V)> {
        rows(&self.pages)
    }

    /// The rows of `slots` slots from `from` on, and where to go on; `None` behind the last. A row stays in its slot as long as it is there: whoever
    /// goes on from page to page meets each row that was there all the while, once, whatever is put in and taken out meanwhile.
    pub fn page(&self, from: u32, slots: u32) -> (impl Iterator<Item = (&K, &V)>, Option<u32>) {
        let to = from.saturating_add(slots).min(self.next);
        let row = |slot| {
            let (page, row) = place(slot);
            self.pages.get(page)?.get(row)?.as_ref().map(|(key, value)| (key, value))
        };
        ((from..to).filter_map(row), (to < self.next).then_some(to))
    }

    /// A picture of the table as it is now. Costs one pointer per 128 rows.
    pub fn freeze(&self) -> Frozen<K, V> {
        Frozen { pages: self.pages.clone(), len: self.len() }
    }
}

impl<K: Key, V: Clone> Table<K, V> {
    fn find(&self, key: &K) -> Option<u32> {
        self.find_hashed(key.hash_by(&self.hasher), key)
    }

    fn find_hashed(&self, hash: u64, key: &K) -> Option<u32> {
        self.index.find(hash, |slot| key_at(&self.pages, slot) == Some(key))
    }

    /// The value under `key`.
    pub fn get(&self, key: &K) -> Option<&V> {
        let (page, row) = place(self.find(key)?);
        self.pages.get(page)?.get(row)?.as_ref().map(|(_, value)| value)
    }

    /// The value under `key`, to change. Copies its page if a [`Frozen`] still looks at it.
    pub fn get_mut(&mut self, key: &K) -> Option<&mut V> {
        let (page, row) = place(self.find(key)?);
        Arc::make_mut(self.pages.get_mut(page)?).get_mut(row)?.as_mut().map(|(_, value)| value)
    }

    /// Whether there is a value under `key`.
    pub fn contains(&self, key: &K) -> bool {
        self.find(key).is_some()
    }

    /// Puts `value` under `key` and returns what was there.
    pub fn insert(&mut self, key: K, value: V) -> Option<V> {
        let hash = key.hash_by(&self.hasher);
        if let Some(slot) = self.find_hashed(hash, &key) {
            let (page, row) = place(slot);
            return Arc::make_mut(&mut self.pages[page])[row].replace((key, value)).map(|(_, old)| old);
        }
        let slot = self.vacant_slot();
        let (page, row) = place(slot);
        Arc::make_mut(&mut self.pages[page])[row] = Some((key, value));
        self.index.insert(hash, slot);
        None
    }

    /// Takes the value under `key` out.
    pub fn remove(&mut self, key: &K) -> Option<V> {
        let hash = key.hash_by(&self.hasher);
        let pages = &self.pages;
        let slot = self.index.remove(hash, |slot| key_at(pages, slot) == Some(key))?;
        let (page, row) = place(slot);
        let taken = Arc::make_mut(&mut self.pages[page])[row].take();
        self.free.push(slot);
        taken.map(|(_, value)| value)
    }

    fn vacant_slot(&mut self) -> u32 {
        if let Some(slot) = self.free.pop() {
            return slot;
        }
        let slot = self.next;
        self.next = slot.checked_add(1).expect("limits keep every table far below 2^32 rows");
        if place(slot).0 == self.pages.len() {
            self.pages.push((0..PAGE).map(|_| None).collect());
        }
        slot
    }
}

impl<K: Key, V: Clone> FromIterator<(K, V)> for Table<K, V> {
    fn from_iter<I: IntoIterator<Item = (K, V)>>(rows: I) -> Self {
        let mut table = Self::default();
        for (key, value) in rows {
            table.insert(key, value);
        }
        table
    }
}

impl<K, V> Frozen<K, V> {
    /// The number of rows.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are no rows.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The rows in slot order.
    pub fn iter(&self) -> impl Iterator<Item = (&K, &V)> {
        rows(&self.pages)
    }
}

fn rows<K, V>(pages: &[Page<K, V>]) -> impl Iterator<Item = (&K, &V)> {
    pages.iter().flat_map(|page| page.iter().flatten().map(|(key, value)| (key, value)))
}

fn place(slot: u32) -> (usize, usize) {
    (slot as usize / PAGE, slot as usize % PAGE)
}

fn key_at<K, V>(pages: &[Page<K, V>], slot: u32) -> Option<&K> {
    let (page, row) = place(slot);
    pages.get(page)?.get(row)?.as_ref().map(|(key, _)| key)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    impl Key for u16 {
        fn hash_by(&self, hasher: &Hasher) -> u64 {
            hasher.beside(u128::from(*self), 0)
        }
    }

    /// Those in a family's eight differ in nothing but where they stand in one cache line of the index; others are anywhere.
    #[test]
    fn eight_neighbours_stand_side_by_side() {
        let hasher = Hasher::default();
        let blocks = |keys: std::ops::Range<u128>, of| -> BTreeMap<u64, Vec<u64>> {
            keys.fold(BTreeMap::new(), |mut blocks, key| {
                let hash = hasher.beside(key, of);
                blocks.entry(hash / 8).or_default().push(hash % 8);
                blocks
            })
        };
        let all = blocks(0..8_000, 0);
        assert_eq!(all.len(), 1_000);
        assert!(all.values().all(|places| *places == [0, 1, 2, 3, 4, 5, 6, 7]));
        assert!(blocks(0..8, 1).keys().all(|block| !all.contains_key(block)), "another family is another place");
    }

    proptest! {
        #[test]
        fn behaves_like_a_map_and_a_frozen_picture_stands_still(
            operations in prop::collection::vec((0u8..3, 0u16..400, any::<u32>()), 0..2000),
            freeze_at in 0usize..2000,
        ) {
            let mut table = Table::default();
            let mut model = BTreeMap::new();
            let mut picture = None;
            for (at, (operation, key, value)) in operations.into_iter().enumerate() {
                if at == freeze_at {
                    picture = Some((table.freeze(), model.clone()));
                }
                match operation {
                    0 => prop_assert_eq!(table.insert(key, value), model.insert(key, value)),
                    1 => prop_assert_eq!(table.remove(&key), model.remove(&key)),
                    _ => {
                        if let Some(present) = table.get_mut(&key) { *present ^= value; }
                        if let Some(present) = model.get_mut(&key) { *present ^= value; }
                    }
                }
                prop_assert_eq!(table.get(&key), model.get(&key));
                prop_assert_eq!(table.len(), model.len());
            }
            let sorted: BTreeMap<_, _> = table.iter().map(|(k, v)| (*k, *v)).collect();
            prop_assert_eq!(&sorted, &model);
            let (mut paged, mut from) = (BTreeMap::new(), Some(0));
            while let Some(at) = from {
                let (rows, next) = table.page(at, 7);
                paged.extend(rows.map(|(k, v)| (*k, *v)));
                from = next;
            }
            prop_assert_eq!(&paged, &model);
            if let Some((frozen, then)) = picture {
                let sorted: BTreeMap<_, _> = frozen.iter().map(|(k, v)| (*k, *v)).collect();
                prop_assert_eq!(frozen.len(), then.len());
                prop_assert_eq!(sorted, then);
            }
        }
    }
}
