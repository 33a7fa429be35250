//! A table: a map that can be reset to its last saved version.

use std::{
    collections::BTreeMap,
    ops::{Bound, RangeBounds},
};

/// Rows by key, in the order of their keys.
pub(super) struct Table<K, V> {
    rows: BTreeMap<K, V>,
    /// What the changed rows were, in the order of the changes; `None`: there was none.
    before: Vec<(K, Option<V>)>,
}

impl<K, V> Default for Table<K, V> {
    fn default() -> Self {
        Self { rows: BTreeMap::new(), before: Vec::new() }
    }
}

impl<K: Ord + Clone, V: Clone> Table<K, V> {
    pub(super) fn get(&self, key: &K) -> Option<&V> {
        self.rows.get(key)
    }

    pub(super) fn has(&self, key: &K) -> bool {
        self.rows.contains_key(key)
    }

    pub(super) fn get_mut(&mut self, key: &K) -> Option<&mut V> {
        let row = self.rows.get_mut(key)?;
        self.before.push((key.clone(), Some(row.clone())));
        Some(row)
    }

    pub(super) fn insert(&mut self, key: K, row: V) {
        let before = self.rows.insert(key.clone(), row);
        self.before.push((key, before));
    }

    pub(super) fn remove(&mut self, key: &K) -> Option<V> {
        let (key, row) = self.rows.remove_entry(key)?;
        self.before.push((key, Some(row.clone())));
        Some(row)
    }

    pub(super) fn iter(&self) -> impl DoubleEndedIterator<Item = (&K, &V)> {
        self.rows.iter()
    }

    pub(super) fn range(&self, keys: impl RangeBounds<K>) -> impl DoubleEndedIterator<Item = (&K, &V)> {
        self.rows.range(keys)
    }

    /// Those before a key; all of them where there is none.
    pub(super) fn before(&self, key: Option<&K>) -> impl DoubleEndedIterator<Item = (&K, &V)> {
        let end = key.map_or(Bound::Unbounded, Bound::Excluded);
        self.rows.range((Bound::Unbounded, end))
    }

    /// The keys of the first rows that are wanted.
    pub(super) fn some(&self, at_most: usize, wanted: impl Fn(&V) -> bool) -> Vec<K> {
        self.iter().filter(|(_, row)| wanted(row)).take(at_most).map(|(key, _)| key.clone()).collect()
    }
}

/// What every table can do, whatever it holds.
pub(super) trait Undo {
    /// From here on there is no way back.
    fn keep(&mut self);
    /// Goes back to where it was last kept.
    fn undo(&mut self);
}

impl<K: Ord, V> Undo for Table<K, V> {
    fn keep(&mut self) {
        self.before.clear();
    }

    fn undo(&mut self) {
        while let Some((key, row)) = self.before.pop() {
            match row {
                Some(row) => self.rows.insert(key, row),
                None => self.rows.remove(&key),
            };
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_table_goes_back_to_where_it_was_kept(
            first in prop::collection::vec((0u8..8, any::<u8>()), 0..8),
            // A key, and what becomes of it: written, changed in place, removed.
            then in prop::collection::vec((0u8..8, 0u8..3, any::<u8>()), 0..40),
        ) {
            let mut table = Table::default();
            first.into_iter().for_each(|(key, row)| table.insert(key, row));
            table.keep();
            let before = table.rows.clone();
            for (key, what, row) in then {
                match what {
                    0 => table.insert(key, row),
                    1 => table.get_mut(&key).into_iter().for_each(|there| *there = row),
                    _ => drop(table.remove(&key)),
                }
            }
            table.undo();
            prop_assert_eq!(&table.rows, &before);
            table.undo();
            prop_assert_eq!(table.rows, before);
        }
    }
}
