//! Documents by id: opaque bytes with a version, newer wins. Kept within the process.

use std::{
    fmt,
    sync::Arc,
    time::{Duration, Instant},
};

use moka::{Expiry, ops::compute::Op, sync};

use super::{options::Room, stats::Strategy};

/// What an entry takes besides its bytes, roughly.
pub(super) const OVERHEAD: usize = 128;
/// How long a removed document stays so: longer than any reader needs to put what it had loaded.
pub(super) const REMOVED: Duration = Duration::from_secs(60);

/// Which documents.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Shelf {
    /// Conversations that are in use.
    Conversations,
    /// Sessions: their time to live starts again with each use.
    Sessions,
}

impl Shelf {
    /// The strategy that it follows.
    pub fn strategy(self) -> Strategy {
        match self {
            Self::Conversations => Strategy::Conversation,
            Self::Sessions => Strategy::Session,
        }
    }
}

/// Bytes as they once were committed.
#[derive(Clone, PartialEq, Eq)]
pub struct Versioned {
    /// Which version of the document this is; at least 0, and never twice for different bytes.
    pub version: i64,
    /// The document.
    pub bytes: Arc<Vec<u8>>,
}

impl fmt::Debug for Versioned {
    /// What people say is not for logs.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Versioned {{ version: {}, bytes: {} }}", self.version, self.bytes.len())
    }
}

/// What stands under an id: a document, or the least version that may come (none, if it was removed).
#[derive(Debug, Clone)]
enum Entry {
    Kept(Versioned),
    AtLeast(i64),
}

impl Entry {
    fn version(&self) -> i64 {
        match self {
            Self::Kept(document) => document.version,
            Self::AtLeast(version) => *version,
        }
    }
}

/// One shelf within the process.
#[derive(Debug, Clone)]
pub(super) struct Documents {
    entries: sync::Cache<String, Entry>,
}

/// How long entries live.
struct Lives {
    ttl: Duration,
    sliding: bool,
}

impl Lives {
    fn fresh(&self, entry: &Entry) -> Duration {
        match entry {
            Entry::Kept(_) => self.ttl,
            Entry::AtLeast(i64::MAX) => REMOVED,
            Entry::AtLeast(_) => self.ttl.min(REMOVED),
        }
    }
}

impl Expiry<String, Entry> for Lives {
    fn expire_after_create(&self, _: &String, entry: &Entry, _: Instant) -> Option<Duration> {
        Some(self.fresh(entry))
    }

    fn expire_after_update(
        &self,
        _: &String,
        entry: &Entry,
        _: Instant,
        _: Option<Duration>,
    ) -> Option<Duration> {
        Some(self.fresh(entry))
    }

    fn expire_after_read(
        &self,
        _: &String,
        entry: &Entry,
        _: Instant,
        left: Option<Duration>,
        _: Instant,
    ) -> Option<Duration> {
        if self.sliding && matches!(entry, Entry::Kept(_)) { Some(self.ttl) } else { left }
    }
}

impl Documents {
    /// A shelf of this size; `sliding`: a use starts the time to live again.
    pub(super) fn new(room: Room, sliding: bool) -> Self {
        let weigh = |id: &String, entry: &Entry| {
            let bytes = match entry {
                Entry::Kept(document) => document.bytes.len(),
                Entry::AtLeast(_) => 0,
            };
            u32::try_from(bytes.saturating_add(id.len() + OVERHEAD)).unwrap_or(u32::MAX)
        };
        let entries = sync::Cache::builder()
            .max_capacity(room.max_size)
            .weigher(weigh)
            .expire_after(Lives { ttl: room.ttl, sliding })
            .build();
        Self { entries }
    }

    pub(super) fn get(&self, id: &str) -> Option<Versioned> {
        match self.entries.get(id)? {
            Entry::Kept(document) => Some(document),
            Entry::AtLeast(_) => None,
        }
    }

    /// Keeps a document, unless a newer one is kept or awaited.
    pub(super) fn put(&self, id: &str, document: Versioned) {
        self.set(id, Entry::Kept(document));
    }

    /// Forgets what is older than `version`, and takes nothing older.
    pub(super) fn at_least(&self, id: &str, version: i64) {
        let newer = |kept: &Entry| matches!(kept, Entry::Kept(_)) && kept.version() == version;
        self.entries.entry_by_ref(id).and_compute_with(|kept| match kept {
            Some(kept) if newer(kept.value()) || kept.value().version() > version => Op::Nop,
            _ => Op::Put(Entry::AtLeast(version)),
        });
    }

    /// Forgets a document, of whatever version.
    pub(super) fn forget(&self, id: &str) {
        self.entries.entry_by_ref(id).and_compute_with(|_| Op::<Entry>::Remove);
    }

    /// Forgets a document, and takes none for a while.
    pub(super) fn remove(&self, id: &str) {
        self.set(id, Entry::AtLeast(i64::MAX));
    }

    fn set(&self, id: &str, entry: Entry) {
        self.entries.entry_by_ref(id).and_compute_with(|kept| match kept {
            Some(kept) if kept.value().version() > entry.version() => Op::Nop,
            _ => Op::Put(entry),
        });
    }

    #[cfg(test)]
    pub(super) fn size(&self) -> (u64, u64) {
        self.entries.run_pending_tasks();
        (self.entries.entry_count(), self.entries.weighted_size())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(version: i64) -> Versioned {
        Versioned { version, bytes: Arc::new(vec![1]) }
    }

    #[test]
    fn a_notice_drops_what_is_older_and_keeps_late_readers_out() {
        let shelf = Documents::new(Room { max_size: 1 << 20, ttl: Duration::from_secs(60) }, false);
        shelf.put("a", of(5));
        shelf.at_least("a", 5);
        assert_eq!(shelf.get("a"), Some(of(5)));
        // A reader has asked the server for 5, the notice of 6 overtakes the answer.
        shelf.at_least("a", 6);
        shelf.put("a", of(5));
        assert_eq!(shelf.get("a"), None);
        shelf.put("a", of(6));
        assert_eq!(shelf.get("a"), Some(of(6)));
        // A late notice of what is older still changes nothing.
        shelf.at_least("a", 4);
        assert_eq!(shelf.get("a"), Some(of(6)));
        shelf.forget("a");
        shelf.put("a", of(1));
        assert_eq!(shelf.get("a"), Some(of(1)));
        shelf.remove("a");
        shelf.at_least("a", 9);
        shelf.put("a", of(9));
        assert_eq!(shelf.get("a"), None);
    }

    #[test]
    fn entries_end_at_their_time() {
        let shelf = Documents::new(Room { max_size: 1 << 20, ttl: Duration::from_millis(20) }, false);
        shelf.put("a", of(1));
        let began = Instant::now();
        while shelf.get("a").is_some() {
            assert!(began.elapsed() < Duration::from_secs(5));
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}
