//! The newest messages of conversations, within the process.
//!
//! A list is a run without a gap, so it may only grow behind its last message. A reader that finds
//! nothing is given a ticket; whoever appends meanwhile makes that ticket worthless, because the
//! reader may have looked into the store before that message was there:
//!
//! ```text
//!              get: ticket              fill with that ticket
//!   nothing ────────────────► awaited ────────────────────────► kept ◄──┐ append behind the last
//!      ▲                         │                                │ └───┘
//!      └─────── append, drop ────┴──── append elsewhere, drop ────┘
//! ```

use std::{fmt, sync::Arc, time::Duration};

use moka::{Expiry, ops::compute::Op, sync};

use super::{document::OVERHEAD, options::Room};

/// How long a reader has to bring what it loads.
pub(super) const AWAITED: Duration = Duration::from_secs(10);

/// A message as it was committed.
#[derive(Clone, PartialEq, Eq)]
pub struct Item {
    /// Its sequence number within its conversation: positive, growing.
    pub seq: i64,
    /// The message.
    pub bytes: Arc<Vec<u8>>,
}

impl fmt::Debug for Item {
    /// What people say is not for logs.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Item {{ seq: {}, bytes: {} }}", self.seq, self.bytes.len())
    }
}

/// The newest messages of a conversation, without a gap.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tail {
    /// The sequence number of the message before the first one here; 0: there is none before.
    pub after: i64,
    /// The messages, oldest first.
    pub items: Vec<Item>,
}

impl Tail {
    /// The newest `n` of these.
    #[must_use]
    pub fn newest(mut self, n: usize) -> Self {
        let skip = self.items.len().saturating_sub(n);
        if let Some(last) = self.items.drain(..skip).next_back() {
            self.after = last.seq;
        }
        self
    }

    /// Whether these are all there are, or at least `n`.
    pub fn answers(&self, n: usize) -> bool {
        self.after == 0 || self.items.len() >= n
    }

    /// The last sequence number.
    pub(super) fn last(&self) -> i64 {
        self.items.last().map_or(self.after, |item| item.seq)
    }

    /// What it weighs, as `TailRoom::max_bytes` counts.
    pub(super) fn bytes(&self) -> usize {
        self.items.iter().map(|item| item.bytes.len().saturating_add(OVERHEAD)).fold(0, usize::saturating_add)
    }

    /// Drops the oldest until it fits.
    pub(super) fn fit(mut self, room: &TailRoom) -> Self {
        let (mut n, mut bytes) = (self.items.len(), self.bytes());
        for item in &self.items {
            if n <= room.keep && bytes <= room.max_bytes {
                break;
            }
            n -= 1;
            bytes = bytes.saturating_sub(item.bytes.len().saturating_add(OVERHEAD));
        }
        if n < self.items.len() {
            self = self.newest(n);
        }
        self
    }
}

/// The right to fill a list, given to a reader that found none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ticket(pub(super) u64);

/// What is known of the newest messages.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Recent {
    /// The newest `n`, or all if there are fewer.
    Hit(Tail),
    /// Not enough. With a ticket: read [`super::Cache::keeps`] messages from the store *after* this
    /// answer, and bring them with [`super::Cache::fill_recent`].
    Miss(Option<Ticket>),
}

/// How much of one conversation is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct TailRoom {
    pub(super) keep: usize,
    pub(super) max_bytes: usize,
}

impl TailRoom {
    pub(super) fn new(keep: usize) -> Self {
        Self { keep, max_bytes: MAX_TAIL }
    }
}

#[derive(Debug, Clone)]
enum Slot {
    Awaited(Ticket),
    Kept(Arc<Tail>),
}

/// The lists within the process.
#[derive(Debug, Clone)]
pub(super) struct Tails {
    slots: sync::Cache<String, Slot>,
    room: TailRoom,
}

struct Lives(Duration);

impl Lives {
    fn fresh(&self, slot: &Slot) -> Duration {
        match slot {
            Slot::Awaited(_) => AWAITED,
            Slot::Kept(_) => self.0,
        }
    }
}

impl Expiry<String, Slot> for Lives {
    fn expire_after_create(&self, _: &String, slot: &Slot, _: std::time::Instant) -> Option<Duration> {
        Some(self.fresh(slot))
    }

    fn expire_after_update(
        &self,
        _: &String,
        slot: &Slot,
        _: std::time::Instant,
        _: Option<Duration>,
    ) -> Option<Duration> {
        Some(self.fresh(slot))
    }
}

impl Tails {
    pub(super) fn new(room: Room, keep: usize) -> Self {
        let weigh = |id: &String, slot: &Slot| {
            let bytes = match slot {
                Slot::Kept(tail) => tail.bytes(),
                Slot::Awaited(_) => 0,
            };
            u32::try_from(bytes.saturating_add(id.len() + OVERHEAD)).unwrap_or(u32::MAX)
        };
        let slots = sync::Cache::builder()
            .max_capacity(room.max_size)
            .weigher(weigh)
            .expire_after(Lives(room.ttl))
            .build();
        Self { slots, room: TailRoom::new(keep) }
    }

    pub(super) fn room(&self) -> TailRoom {
        self.room
    }

    pub(super) fn get(&self, conversation: &str, n: usize) -> Recent {
        if let Some(Slot::Kept(tail)) = self.slots.get(conversation) {
            // A fill of the same messages would be no longer.
            return if tail.answers(n) { Recent::Hit((*tail).clone().newest(n)) } else { Recent::Miss(None) };
        }
        let fresh = Ticket(fastrand::u64(..));
        let mut given = None;
        self.slots.entry_by_ref(conversation).and_compute_with(|slot| match slot.map(|s| s.into_value()) {
            Some(Slot::Awaited(ticket)) => {
                given = Some(ticket);
                Op::Nop
            }
            Some(Slot::Kept(_)) => Op::Nop,
            None => {
                given = Some(fresh);
                Op::Put(Slot::Awaited(fresh))
            }
        });
        Recent::Miss(given)
    }

    pub(super) fn fill(&self, conversation: &str, ticket: Ticket, tail: Tail) {
        let tail = tail.fit(&self.room);
        self.slots.entry_by_ref(conversation).and_compute_with(|slot| match slot.map(|s| s.into_value()) {
            Some(Slot::Awaited(awaited)) if awaited == ticket => {
                if tail.items.is_empty() {
                    Op::Remove
                } else {
                    Op::Put(Slot::Kept(Arc::new(tail)))
                }
            }
            _ => Op::Nop,
        });
    }

    pub(super) fn append(&self, conversation: &str, after: i64, item: Item) {
        self.slots.entry_by_ref(conversation).and_compute_with(|slot| match slot.map(|s| s.into_value()) {
            None => Op::Nop,
            Some(Slot::Awaited(_)) => Op::Remove,
            // The reader that filled it has seen this message.
            Some(Slot::Kept(tail)) if tail.last() == item.seq => Op::Nop,
            Some(Slot::Kept(tail)) if tail.last() == after => {
                let mut tail = Arc::unwrap_or_clone(tail);
                tail.items.push(item);
                let tail = tail.fit(&self.room);
                if tail.items.is_empty() { Op::Remove } else { Op::Put(Slot::Kept(Arc::new(tail))) }
            }
            Some(Slot::Kept(_)) => Op::Remove,
        });
    }

    /// Not `invalidate`, which an append that has begun would undo.
    pub(super) fn drop(&self, conversation: &str) {
        self.slots.entry_by_ref(conversation).and_compute_with(|_| Op::<Slot>::Remove);
    }

    #[cfg(test)]
    pub(super) fn size(&self) -> (u64, u64) {
        self.slots.run_pending_tasks();
        (self.slots.entry_count(), self.slots.weighted_size())
    }
}

/// The most that is kept of one conversation, in bytes.
pub(super) const MAX_TAIL: usize = 1 << 20;
