//! A hash table by agent key, whose values hold their keys.
//!
//! Each message sent by key looks one up, among up to a million: the cost is the number of cache lines touched, here
//! those of the table and of the value. The table is split into shards, each with a lock of its own, so that senders
//! seldom contend and a growing shard delays few.

use std::{
    cmp::Ordering,
    collections::{BinaryHeap, hash_map::RandomState},
    hash::BuildHasher,
    sync::atomic::{self, AtomicUsize},
};

use hashbrown::HashTable;
use parking_lot::RwLock;

/// A power of two.
const SHARDS: usize = 64;
/// Pruning goes through at least so many shards at a time …
const PRUNED_SHARDS: usize = SHARDS / 16;
/// … and through more until it has looked at so many places, …
const PRUNED_PLACES: usize = 16_384;
/// … at so many at most under one lock.
const PLACES_A_LOCK: usize = 1_024;

/// A value with a key, which stays the same.
pub(crate) trait Keyed: Clone {
    fn key(&self) -> &str;
}

/// A value in the order of its key.
struct ByKey<T>(T);

impl<T: Keyed> Ord for ByKey<T> {
    fn cmp(&self, other: &Self) -> Ordering {
        self.0.key().cmp(other.0.key())
    }
}

impl<T: Keyed> PartialOrd for ByKey<T> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl<T: Keyed> PartialEq for ByKey<T> {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl<T: Keyed> Eq for ByKey<T> {}

/// Values by their keys.
pub(crate) struct Table<T> {
    hasher: RandomState,
    shards: Box<[RwLock<HashTable<T>>]>,
    /// How many shards have been pruned.
    pruned: AtomicUsize,
}

impl<T> Default for Table<T> {
    fn default() -> Self {
        let shards = (0..SHARDS).map(|_| RwLock::new(HashTable::new())).collect();
        Self { hasher: RandomState::new(), shards, pruned: AtomicUsize::new(0) }
    }
}

impl<T: Keyed> Table<T> {
    /// The shard and the hash of a key. The table takes its slots from the low bits, and tells them apart by
    /// the highest.
    #[inline]
    fn place(&self, key: &str) -> (&RwLock<HashTable<T>>, u64) {
        let hash = self.hasher.hash_one(key);
        let at = (hash >> 40) as usize & (SHARDS - 1);
        (&self.shards[at], hash)
    }

    #[inline]
    pub(crate) fn get(&self, key: &str) -> Option<T> {
        let (shard, hash) = self.place(key);
        shard.read().find(hash, |value| value.key() == key).cloned()
    }

    /// The value of `key`, made where there was none, while nobody else can make one.
    pub(crate) fn get_or_insert_with(&self, key: &str, make: impl FnOnce() -> T) -> T {
        let (shard, hash) = self.place(key);
        let mut shard = shard.write();
        let entry = shard.entry(hash, |value| value.key() == key, |value| self.hasher.hash_one(value.key()));
        entry.or_insert_with(make).get().clone()
    }

    /// Puts a value in, in the place of another with its key.
    pub(crate) fn insert(&self, value: T) {
        let (shard, hash) = self.place(value.key());
        let mut shard = shard.write();
        let same = |other: &T| other.key() == value.key();
        let before = match shard.find_mut(hash, same) {
            Some(other) => Some(std::mem::replace(other, value)),
            None => {
                shard.insert_unique(hash, value, |value| self.hasher.hash_one(value.key()));
                None
            }
        };
        drop(shard);
        drop(before);
    }

    /// Takes the value of `key` out, if it is the one that is meant.
    pub(crate) fn remove_if(&self, key: &str, is: impl FnOnce(&T) -> bool) {
        let (shard, hash) = self.place(key);
        let mut shard = shard.write();
        let found = shard.find_entry(hash, |value| value.key() == key);
        let out = found.ok().filter(|entry| is(entry.get())).map(|entry| entry.remove().0);
        drop(shard);
        drop(out);
    }

    /// Takes out the values of which `is_over` holds, and tells how many: asked under the lock, when nobody else can
    /// get them. Not among all at once, but among a part that follows upon that of the last time.
    pub(crate) fn prune(&self, mut is_over: impl FnMut(&mut T) -> bool) -> usize {
        let (mut places, mut out) = (0, 0);
        for n in 0..SHARDS {
            if n >= PRUNED_SHARDS && places >= PRUNED_PLACES {
                break;
            }
            let at = self.pruned.fetch_add(1, atomic::Ordering::Relaxed) & (SHARDS - 1);
            places += self.prune_shard(&self.shards[at], &mut is_over, &mut out);
        }
        out
    }

    /// Tells how many places the shard has.
    fn prune_shard(
        &self,
        shard: &RwLock<HashTable<T>>,
        is_over: &mut impl FnMut(&mut T) -> bool,
        out: &mut usize,
    ) -> usize {
        let mut at = 0;
        loop {
            let mut over = Vec::new();
            let mut shard = shard.write();
            let places = shard.num_buckets();
            if at >= places {
                // What many keys have needed once is given back.
                if shard.len().saturating_mul(8) < places {
                    let room = shard.len().saturating_mul(2);
                    shard.shrink_to(room, |value| self.hasher.hash_one(value.key()));
                }
                return places;
            }
            for place in at..places.min(at + PLACES_A_LOCK) {
                if shard.get_bucket_mut(place).is_some_and(&mut *is_over)
                    && let Ok(entry) = shard.get_bucket_entry(place)
                {
                    over.push(entry.remove().0);
                }
            }
            drop(shard);
            at += PLACES_A_LOCK;
            *out += over.len();
        }
    }

    /// Shows each value, under its shard's lock: `show` is to be short, and to ask nothing of the table.
    pub(crate) fn each(&self, mut show: impl FnMut(&T)) {
        self.shards.iter().for_each(|shard| shard.read().iter().for_each(&mut show));
    }

    /// The first `limit` values behind a key of which this holds, by their keys. All are looked at, once; few are
    /// touched.
    pub(crate) fn behind(&self, after: Option<&str>, limit: usize, is: impl Fn(&T) -> bool) -> Vec<T> {
        let mut first: BinaryHeap<ByKey<T>> = BinaryHeap::with_capacity(limit.saturating_add(1).min(1_024));
        self.each(|value| {
            let is_behind = after.is_none_or(|after| value.key() > after);
            let has_room = first.len() < limit || first.peek().is_some_and(|last| value.key() < last.0.key());
            if limit > 0 && is_behind && has_room && is(value) {
                first.push(ByKey(value.clone()));
                if first.len() > limit {
                    first.pop();
                }
            }
        });
        first.into_sorted_vec().into_iter().map(|ByKey(value)| value).collect()
    }

    /// All values, a shard at a time: those that come or go meanwhile may be among them.
    pub(crate) fn all(&self) -> impl Iterator<Item = T> {
        self.shards.iter().flat_map(|shard| shard.read().iter().cloned().collect::<Vec<_>>())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[derive(Clone, PartialEq, Debug)]
    struct Word(Arc<str>, u32);
    impl Keyed for Word {
        fn key(&self) -> &str {
            &self.0
        }
    }

    fn word(n: u32, of: u32) -> Word {
        Word(format!("word {n}").into(), of)
    }

    #[test]
    fn values_are_found_by_their_keys_alone() {
        let table = Table::default();
        for n in 0..10_000 {
            table.insert(word(n, 0));
            assert_eq!(table.get_or_insert_with(&format!("word {n}"), || unreachable!()), word(n, 0));
        }
        table.insert(word(7, 1));
        assert_eq!(table.get("word 7"), Some(word(7, 1)), "it took the other's place");
        assert_eq!(table.get_or_insert_with("word x", || Word("word x".into(), 2)).1, 2);
        assert_eq!((table.get("word"), table.all().count()), (None, 10_001));
        table.remove_if("word 7", |word| word.1 == 0);
        assert!(table.get("word 7").is_some(), "another one was meant");
        for n in (0..10_000).filter(|n| n % 3 > 0) {
            table.remove_if(&format!("word {n}"), |_| true);
        }
        assert!((0..10_000).all(|n| table.get(&format!("word {n}")).is_some() == (n % 3 == 0)));
        assert_eq!(table.all().count(), 3_335);
        let mut shown = 0;
        table.each(|_| shown += 1);
        assert_eq!(shown, 3_335);
    }

    #[test]
    fn pages_go_on_behind_a_key() {
        let table = Table::default();
        (0..1_000).for_each(|n| table.insert(word(n, 0)));
        let mut keys: Vec<String> = (0..1_000).map(|n| format!("word {n}")).collect();
        keys.sort_unstable();
        let (mut read, mut after) = (Vec::new(), None::<String>);
        loop {
            let page = table.behind(after.as_deref(), 70, |_| true);
            read.extend(page.iter().map(|word| word.key().to_owned()));
            match page.last() {
                Some(last) if page.len() == 70 => after = Some(last.key().to_owned()),
                _ => break,
            }
        }
        assert_eq!(read, keys);
        assert_eq!(table.behind(Some("word 999"), 70, |_| true), []);
        assert_eq!(table.behind(None, 0, |_| true), []);
    }

    #[test]
    fn what_is_over_is_taken_out_and_its_room_is_given_back() {
        let table = Table::default();
        (0..10_000).for_each(|n| table.insert(word(n, n)));
        let places = || table.shards.iter().map(|shard| shard.read().num_buckets()).sum::<usize>();
        assert!(places() > 10_000);
        assert_eq!(table.prune(|word| word.1 % 100 > 0), 9_900);
        assert!(places() < 1_000, "{}", places());
        assert!((0..10_000).all(|n| table.get(&format!("word {n}")).is_some() == (n % 100 == 0)));
        assert_eq!((table.prune(|_| true), table.all().count()), (100, 0));
        assert_eq!(table.prune(|_| true), 0);
        table.insert(word(7, 0));
        assert_eq!(table.get("word 7"), Some(word(7, 0)));
    }

    #[test]
    fn a_large_table_is_pruned_a_part_at_a_time() {
        let table = Table::default();
        (0..100_000).for_each(|n| table.insert(word(n, 0)));
        let mut most = 0;
        for _ in 0..16 {
            let mut looked = 0;
            table.prune(|word| {
                word.1 += 1;
                looked += 1;
                false
            });
            most = most.max(looked);
        }
        assert!(most < 2 * PRUNED_PLACES, "it looked at {most} at once");
        assert!(table.all().all(|word| word.1 > 0), "in the end it has seen all");
    }

    #[test]
    fn whoever_comes_at_the_same_time_gets_the_same_value() {
        let table = Table::default();
        let one = |me: u32| {
            (0..1_000)
                .map(|n| table.get_or_insert_with(&format!("word {n}"), || word(n, me)))
                .collect::<Vec<_>>()
        };
        let (a, b) = std::thread::scope(|scope| {
            let (a, b) = (scope.spawn(|| one(1)), scope.spawn(|| one(2)));
            (a.join().unwrap(), b.join().unwrap())
        });
        assert_eq!(a, b);
    }
}
