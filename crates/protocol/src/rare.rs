//! A list that nearly every record has empty.

use std::ops::Deref;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A list in one word: nothing is allocated for an empty one. Written as a `Vec` is.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Rare<T>(
    /// Never `Some` of an empty list.
    #[expect(clippy::box_collection, reason = "one word is the point")]
    Option<Box<Vec<T>>>,
);

impl<T> Rare<T> {
    /// Puts one behind the others.
    pub fn push(&mut self, one: T) {
        self.0.get_or_insert_default().push(one);
    }

    /// Keeps those of which `keep` holds.
    pub fn retain(&mut self, keep: impl FnMut(&T) -> bool) {
        if let Some(list) = &mut self.0 {
            list.retain(keep);
            if list.is_empty() {
                self.0 = None;
            }
        }
    }
}

impl<T> Default for Rare<T> {
    fn default() -> Self {
        Self(None)
    }
}

impl<T> Deref for Rare<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        self.0.as_ref().map_or(&[], |list| list)
    }
}

impl<T> From<Vec<T>> for Rare<T> {
    fn from(list: Vec<T>) -> Self {
        Self(if list.is_empty() { None } else { Some(Box::new(list)) })
    }
}

impl<T: Serialize> Serialize for Rare<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        (**self).serialize(serializer)
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Rare<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Vec::deserialize(deserializer).map(Self::from)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_written_as_a_vec_is_and_equal_to_one_that_never_had_anything_when_empty() {
        let mut rare = Rare::default();
        assert_eq!(postcard::to_stdvec(&rare), postcard::to_stdvec(&Vec::<u8>::new()));
        for list in [vec![], vec![7], vec![1, 2, 3]] {
            let written = postcard::to_stdvec(&Rare::from(list.clone())).unwrap();
            assert_eq!(Ok(&written), postcard::to_stdvec(&list).as_ref());
            assert_eq!(*postcard::from_bytes::<Rare<u8>>(&written).unwrap(), list[..]);
        }
        rare.push(1);
        rare.push(2);
        assert_eq!(*rare, [1, 2]);
        rare.retain(|one| *one == 2);
        assert_eq!(*rare, [2]);
        rare.retain(|_| false);
        assert_eq!(rare, Rare::default());
        assert_eq!(size_of::<Rare<u8>>(), size_of::<usize>());
    }
}
