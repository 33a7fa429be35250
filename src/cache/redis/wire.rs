//! The format of entries in Redis, and of the notices between nodes.
//!
//! ```text
//! value    epoch 8 · version 8 · use by 8 · checksum 8 · bytes     (a mark of removal: the first 16)
//! message  after 8 · seq 8 · checksum 8 · bytes
//! notice   origin 16 · kind 1 · version 8 · id
//! ```
//!
//! Numbers are big-endian, so that scripts compare them byte by byte: as numbers of theirs they
//! would lose their last digits.

use std::{fmt, sync::Arc};

use uuid::Uuid;
use xxhash_rust::xxh3::xxh3_64_with_seed;

use crate::{
    cache::{CachedState, Item, Shelf, Tail},
    model::id::AgentId,
};

/// How long the mark of a removed document is.
const STAMP: usize = 16;
const VALUE_HEAD: usize = 32;
pub(super) const ITEM_HEAD: usize = 24;
const NOTICE_HEAD: usize = 25;

/// Where an entry stands.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Place {
    State(AgentId),
    Document(Shelf, String),
    Tail(String),
}

impl Place {
    fn kind(&self) -> u8 {
        match self {
            Self::State(_) => b'a',
            Self::Document(Shelf::Conversations, _) => b'c',
            Self::Document(Shelf::Sessions, _) => b's',
            Self::Tail(_) => b'm',
        }
    }

    /// The key below a prefix.
    pub(super) fn key(&self, prefix: &str) -> String {
        match self {
            Self::State(id) => format!("{prefix}state:{}", id.0),
            Self::Document(Shelf::Conversations, id) => format!("{prefix}conversation:{id}"),
            Self::Document(Shelf::Sessions, id) => format!("{prefix}session:{id}"),
            Self::Tail(id) => format!("{prefix}messages:{id}"),
        }
    }
}

/// What a node tells the others: forget what you hold here, if it is older than this version.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Notice {
    pub(super) place: Place,
    /// [`ANY`]: whatever its version.
    pub(super) version: i64,
}

/// The version of a notice that is about any version.
pub(super) const ANY: i64 = -1;

impl Notice {
    pub(super) fn write(&self, origin: Uuid) -> Vec<u8> {
        let id = match &self.place {
            Place::State(id) => id.0.to_string(),
            Place::Document(_, id) | Place::Tail(id) => id.clone(),
        };
        let mut bytes = Vec::with_capacity(NOTICE_HEAD + id.len());
        bytes.extend_from_slice(origin.as_bytes());
        bytes.push(self.place.kind());
        bytes.extend_from_slice(&self.version.to_be_bytes());
        bytes.extend_from_slice(id.as_bytes());
        bytes
    }

    /// Who says it, and what; `None` for what is none of ours.
    pub(super) fn read(bytes: &[u8]) -> Option<(Uuid, Self)> {
        let (origin, rest) = bytes.split_at_checked(16)?;
        let (kind, rest) = rest.split_first()?;
        let (version, id) = rest.split_at_checked(8)?;
        let id = std::str::from_utf8(id).ok()?.to_owned();
        let place = match kind {
            b'a' => Place::State(AgentId(id.parse().ok()?)),
            b'c' => Place::Document(Shelf::Conversations, id),
            b's' => Place::Document(Shelf::Sessions, id),
            b'm' => Place::Tail(id),
            _ => return None,
        };
        let version = i64::from_be_bytes(version.try_into().ok()?);
        Some((Uuid::from_slice(origin).ok()?, Self { place, version }))
    }
}

/// An entry that has changed on its way: as good as none.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Corrupt;

impl fmt::Display for Corrupt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("its checksum does not fit")
    }
}

/// A value. `use_by`: when it goes however often it is used, in milliseconds of the server's clock.
pub(super) fn value(epoch: i64, version: i64, use_by: i64, bytes: &[u8]) -> Vec<u8> {
    let mut value = Vec::with_capacity(VALUE_HEAD + bytes.len());
    for number in [epoch, version, use_by] {
        value.extend_from_slice(&number.to_be_bytes());
    }
    value.extend_from_slice(&checksum(epoch, version, bytes).to_be_bytes());
    value.extend_from_slice(bytes);
    value
}

/// What stands where a document was removed.
pub(super) fn removed() -> Vec<u8> {
    [0, i64::MAX].map(i64::to_be_bytes).concat()
}

/// Reads a value; `None`: a mark of removal.
pub(super) fn read_value(mut value: Vec<u8>) -> Result<Option<CachedState>, Corrupt> {
    if value.len() == STAMP {
        return Ok(None);
    }
    let epoch = number(&value, 0).ok_or(Corrupt)?;
    let version = number(&value, 8).ok_or(Corrupt)?;
    let sum = number(&value, 24).ok_or(Corrupt)?;
    value.drain(..VALUE_HEAD);
    if checksum(epoch, version, &value) != sum {
        return Err(Corrupt);
    }
    Ok(Some(CachedState { epoch, version, bytes: Arc::new(value) }))
}

/// A message of a list, and the number before it.
pub(super) fn item(after: i64, item: &Item) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(ITEM_HEAD + item.bytes.len());
    for number in [after, item.seq, checksum(after, item.seq, &item.bytes)] {
        bytes.extend_from_slice(&number.to_be_bytes());
    }
    bytes.extend_from_slice(&item.bytes);
    bytes
}

/// Reads a list, whose messages must follow each other.
pub(super) fn read_tail(list: Vec<Vec<u8>>) -> Result<Tail, Corrupt> {
    let mut tail = Tail::default();
    for mut bytes in list {
        let after = number(&bytes, 0).ok_or(Corrupt)?;
        let seq = number(&bytes, 8).ok_or(Corrupt)?;
        let sum = number(&bytes, 16).ok_or(Corrupt)?;
        bytes.drain(..ITEM_HEAD);
        if checksum(after, seq, &bytes) != sum || (!tail.items.is_empty() && tail.last() != after) {
            return Err(Corrupt);
        }
        if tail.items.is_empty() {
            tail.after = after;
        }
        tail.items.push(Item { seq, bytes: Arc::new(bytes) });
    }
    Ok(tail)
}

fn number(bytes: &[u8], at: usize) -> Option<i64> {
    Some(i64::from_be_bytes(bytes.get(at..at.checked_add(8)?)?.try_into().ok()?))
}

/// Over the bytes and the numbers that stand before them.
fn checksum(first: i64, second: i64, bytes: &[u8]) -> i64 {
    xxh3_64_with_seed(bytes, (first as u64).rotate_left(32) ^ second as u64) as i64
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn values_come_back_and_any_flipped_bit_is_seen(
            epoch in 0..i64::MAX, version in 0..i64::MAX,
            bytes in prop::collection::vec(any::<u8>(), 0..40),
        ) {
            let whole = value(epoch, version, 7, &bytes);
            let read = read_value(whole.clone()).unwrap().unwrap();
            prop_assert_eq!((read.epoch, read.version, &*read.bytes), (epoch, version, &bytes));
            for bit in (0..whole.len() * 8).filter(|bit| !(128..192).contains(bit)) {
                let mut bad = whole.clone();
                bad[bit / 8] ^= 1 << (bit % 8);
                prop_assert_eq!(read_value(bad), Err(Corrupt), "bit {} went unseen", bit);
            }
            for len in (0..whole.len()).filter(|len| *len != STAMP) {
                prop_assert_eq!(read_value(whole[..len].to_vec()), Err(Corrupt));
            }
        }

        #[test]
        fn numbers_compare_as_their_bytes(a in 0..i64::MAX, b in 0..i64::MAX) {
            prop_assert_eq!(a.cmp(&b), a.to_be_bytes().cmp(&b.to_be_bytes()));
        }

        #[test]
        fn any_notice_is_read_without_harm(bytes in prop::collection::vec(any::<u8>(), 0..60)) {
            let _ = Notice::read(&bytes);
        }
    }

    #[test]
    fn notices_come_back() {
        let origin = Uuid::now_v7();
        for place in [
            Place::State(AgentId::of("tally", "a")),
            Place::Document(Shelf::Conversations, "ä".to_owned()),
            Place::Document(Shelf::Sessions, String::new()),
            Place::Tail("x".to_owned()),
        ] {
            for version in [ANY, 0, i64::MAX] {
                let bytes = Notice { place: place.clone(), version }.write(origin);
                assert_eq!(Notice::read(&bytes), Some((origin, Notice { place: place.clone(), version })));
            }
        }
    }

    #[test]
    fn a_list_with_a_gap_is_none() {
        let of = |after, seq| item(after, &Item { seq, bytes: Arc::new(vec![1]) });
        let tail = read_tail(vec![of(4, 5), of(5, 9)]).unwrap();
        assert_eq!((tail.after, tail.items.len(), tail.last()), (4, 2, 9));
        assert_eq!(read_tail(vec![of(4, 5), of(6, 7)]), Err(Corrupt));
        assert_eq!(read_tail(vec![of(4, 5), vec![0; 30]]), Err(Corrupt));
        assert_eq!(removed().len(), STAMP);
        assert_eq!(read_value(removed()), Ok(None));
    }
}
