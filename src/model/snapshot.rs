//! A snapshot: an agent's stored state, with a header that identifies it and a checksum over all of it.
//!
//! ```text
//!  0  magic "GRSN"     4
//!  4  format           1
//!  5  codec            1
//!  6  zero             2
//!  8  agent id        16
//! 24  version          8   little-endian, like all that follows
//! 32  epoch            8
//! 40  schema version   4
//! 44  body length      4
//! 48  checksum         8   xxh3-64 of the body, seeded with the xxh3-64 of bytes 0..48
//! 56  body
//! ```
//!
//! A store for which bytes are expensive may keep a frame [packed](pack): its body compressed, under a codec of
//! its own. Other code does not see that: what is loaded is [unpacked](unpack).

use std::borrow::Cow;

use uuid::Uuid;
use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

use super::id::AgentId;

/// How many bytes stand before the body.
pub const HEADER_BYTES: usize = 56;
const MAGIC: [u8; 4] = *b"GRSN";
const FORMAT: u8 = 1;
const CODEC_AT: usize = 5;
const LENGTH_AT: usize = 44;
const CHECKSUM_AT: usize = 48;

/// How the body is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Codec {
    /// JSON text.
    Json = 1,
    /// JSON text in an lz4 block with its length in front; only in [packed](pack) frames.
    JsonLz4 = 2,
}

/// Whose state it is, and which.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// How the body is written.
    pub codec: Codec,
    /// Whose.
    pub agent: AgentId,
    /// The version that this state is.
    pub version: i64,
    /// The epoch under which it was written.
    pub epoch: i64,
    /// The schema version of the state.
    pub schema_version: u32,
}

/// Why bytes are not the snapshot that they should be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SnapshotError {
    /// It ends too early.
    #[error("the snapshot is cut off: {found} bytes where {expected} were written")]
    Truncated {
        /// How many bytes it should have.
        expected: u64,
        /// How many it has.
        found: u64,
    },
    /// It does not begin as a snapshot does.
    #[error("this is not a snapshot")]
    BadMagic,
    /// A newer program wrote it.
    #[error("the snapshot has format {format}, codec {codec}; this program cannot read it")]
    UnknownFormat {
        /// The format's number.
        format: u8,
        /// The codec's number.
        codec: u8,
    },
    /// Its bytes have changed since they were written.
    #[error("the snapshot's checksum does not fit its bytes")]
    Checksum,
    /// The state does not fit into a frame.
    #[error("a state of {0} bytes is too large for a snapshot")]
    TooLarge(u64),
    /// It belongs to another agent.
    #[error("the snapshot belongs to agent {found}, not to {expected}")]
    WrongAgent {
        /// Whose it should be.
        expected: Uuid,
        /// Whose it is.
        found: Uuid,
    },
    /// It is another version of the state.
    #[error("the snapshot is version {found:?}, not {expected:?} (epoch, version)")]
    WrongVersion {
        /// Epoch and version as they should be.
        expected: (i64, i64),
        /// Epoch and version as they are.
        found: (i64, i64),
    },
}

impl Header {
    /// Whether the snapshot is the one that the store's row speaks of.
    ///
    /// # Errors
    /// [`SnapshotError::WrongAgent`] and [`SnapshotError::WrongVersion`].
    pub fn matches(&self, agent: AgentId, epoch: i64, version: i64) -> Result<(), SnapshotError> {
        if self.agent != agent {
            return Err(SnapshotError::WrongAgent { expected: agent.0, found: self.agent.0 });
        }
        if (self.epoch, self.version) != (epoch, version) {
            return Err(SnapshotError::WrongVersion {
                expected: (epoch, version),
                found: (self.epoch, self.version),
            });
        }
        Ok(())
    }
}

/// Whether a frame has no content: it stands for an agent that was deleted, at the version of its end.
pub fn is_empty(frame: &[u8]) -> bool {
    frame.len() == HEADER_BYTES
}

/// Starts a frame in `buffer`, which is emptied: append the body, then [`seal`] it.
pub fn begin(header: &Header, buffer: &mut Vec<u8>) {
    buffer.clear();
    buffer.extend_from_slice(&MAGIC);
    buffer.extend_from_slice(&[FORMAT, header.codec as u8, 0, 0]);
    buffer.extend_from_slice(header.agent.0.as_bytes());
    buffer.extend_from_slice(&header.version.to_le_bytes());
    buffer.extend_from_slice(&header.epoch.to_le_bytes());
    buffer.extend_from_slice(&header.schema_version.to_le_bytes());
    buffer.extend_from_slice(&[0; HEADER_BYTES - LENGTH_AT]);
}

/// Completes a frame that [`begin`] started: fills in length and checksum.
///
/// # Errors
/// [`SnapshotError::TooLarge`] past 4 GiB; [`SnapshotError::Truncated`] where nothing was begun.
pub fn seal(frame: &mut [u8]) -> Result<(), SnapshotError> {
    let found = frame.len() as u64;
    let Some((header, body)) = frame.split_first_chunk_mut::<HEADER_BYTES>() else {
        return Err(SnapshotError::Truncated { expected: HEADER_BYTES as u64, found });
    };
    let length = u32::try_from(body.len()).map_err(|_| SnapshotError::TooLarge(body.len() as u64))?;
    put(header, LENGTH_AT, &length.to_le_bytes());
    let checksum = checksum(header, body);
    put(header, CHECKSUM_AT, &checksum.to_le_bytes());
    Ok(())
}

/// Opens a frame: its header and its body, both proved to be as they were written.
///
/// # Errors
/// Every [`SnapshotError`] that speaks of bytes; whose it is, [`Header::matches`] tells.
pub fn open(frame: &[u8]) -> Result<(Header, &[u8]), SnapshotError> {
    let found = frame.len() as u64;
    let Some((header, body)) = frame.split_first_chunk::<HEADER_BYTES>() else {
        return Err(SnapshotError::Truncated { expected: HEADER_BYTES as u64, found });
    };
    if get::<4>(header, 0) != MAGIC {
        return Err(SnapshotError::BadMagic);
    }
    let [format, codec, ..] = get::<4>(header, 4);
    if format != FORMAT {
        return Err(SnapshotError::UnknownFormat { format, codec });
    }
    let length = u64::from(u32::from_le_bytes(get(header, LENGTH_AT)));
    if length != body.len() as u64 {
        return Err(SnapshotError::Truncated { expected: HEADER_BYTES as u64 + length, found });
    }
    if u64::from_le_bytes(get(header, CHECKSUM_AT)) != checksum(header, body) {
        return Err(SnapshotError::Checksum);
    }
    if codec != Codec::Json as u8 {
        return Err(SnapshotError::UnknownFormat { format, codec });
    }
    let header = Header {
        codec: Codec::Json,
        agent: AgentId(Uuid::from_bytes(get(header, 8))),
        version: i64::from_le_bytes(get(header, 24)),
        epoch: i64::from_le_bytes(get(header, 32)),
        schema_version: u32::from_le_bytes(get(header, 40)),
    };
    Ok((header, body))
}

/// The frame with its body compressed, where the body has at least `from` bytes and a quarter of them
/// can be saved; else the frame as it is.
pub fn pack(frame: &[u8], from: usize) -> Cow<'_, [u8]> {
    let Some((header, body)) = frame.split_first_chunk::<HEADER_BYTES>() else { return frame.into() };
    if body.len() < from || codec_of(header) != Codec::Json as u8 {
        return frame.into();
    }
    let packed = lz4_flex::block::compress_prepend_size(body);
    if packed.len() > body.len() / 4 * 3 {
        return frame.into();
    }
    with_body(header, Codec::JsonLz4, &packed).map_or(frame.into(), Cow::Owned)
}

/// A loaded frame as it was before it was [packed](pack). One that is not packed, or not sound, stays
/// as it is: [`open`] will tell.
pub fn unpack(frame: Vec<u8>) -> Vec<u8> {
    let Some((header, body)) = frame.split_first_chunk::<HEADER_BYTES>() else { return frame };
    if codec_of(header) != Codec::JsonLz4 as u8
        || u64::from_le_bytes(get(header, CHECKSUM_AT)) != checksum(header, body)
    {
        return frame;
    }
    let unpacked = lz4_flex::block::decompress_size_prepended(body).ok();
    unpacked.and_then(|body| with_body(header, Codec::Json, &body)).unwrap_or(frame)
}

fn codec_of(header: &[u8; HEADER_BYTES]) -> u8 {
    let [codec] = get::<1>(header, CODEC_AT);
    codec
}

/// The same header around another form of the body.
fn with_body(header: &[u8; HEADER_BYTES], codec: Codec, body: &[u8]) -> Option<Vec<u8>> {
    let mut frame = Vec::with_capacity(HEADER_BYTES + body.len());
    frame.extend_from_slice(header);
    *frame.get_mut(CODEC_AT)? = codec as u8;
    frame.extend_from_slice(body);
    seal(&mut frame).ok()?;
    Some(frame)
}

fn checksum(header: &[u8; HEADER_BYTES], body: &[u8]) -> u64 {
    let (covered, _) = header.split_at(CHECKSUM_AT);
    xxh3_64_with_seed(body, xxh3_64(covered))
}

fn get<const N: usize>(header: &[u8; HEADER_BYTES], at: usize) -> [u8; N] {
    header.get(at..at + N).and_then(|b| b.try_into().ok()).unwrap_or([0; N])
}

fn put(header: &mut [u8; HEADER_BYTES], at: usize, bytes: &[u8]) {
    if let Some(to) = header.get_mut(at..at + bytes.len()) {
        to.copy_from_slice(bytes);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn frame(header: &Header, body: &[u8]) -> Vec<u8> {
        let mut buffer = vec![7; 3];
        begin(header, &mut buffer);
        buffer.extend_from_slice(body);
        seal(&mut buffer).unwrap();
        buffer
    }

    fn headers() -> impl Strategy<Value = Header> {
        (any::<u128>(), any::<i64>(), any::<i64>(), any::<u32>()).prop_map(
            |(agent, version, epoch, schema_version)| Header {
                codec: Codec::Json,
                agent: AgentId(Uuid::from_u128(agent)),
                version,
                epoch,
                schema_version,
            },
        )
    }

    proptest! {
        #[test]
        fn what_was_sealed_opens_as_it_was(header in headers(), body in prop::collection::vec(any::<u8>(), 0..600)) {
            let frame = frame(&header, &body);
            prop_assert_eq!(open(&frame), Ok((header, body.as_slice())));
        }

        #[test]
        fn a_cut_anywhere_is_seen(header in headers(), body in prop::collection::vec(any::<u8>(), 0..300), cut in any::<prop::sample::Index>()) {
            let frame = frame(&header, &body);
            let cut = cut.index(frame.len());
            let seen = matches!(open(&frame[..cut]), Err(SnapshotError::Truncated { .. }));
            prop_assert!(seen);
        }

        #[test]
        fn bytes_at_the_end_are_seen(header in headers(), body in prop::collection::vec(any::<u8>(), 0..300), more in prop::collection::vec(any::<u8>(), 1..9)) {
            let mut frame = frame(&header, &body);
            frame.extend(more);
            prop_assert!(open(&frame).is_err());
        }

        #[test]
        fn what_was_packed_comes_back(header in headers(), word in "[a-z]{1,9}", times in 0usize..400, from in 0usize..900) {
            let whole = frame(&header, word.repeat(times).as_bytes());
            let packed = pack(&whole, from).into_owned();
            prop_assert!(packed.len() <= whole.len());
            prop_assert_eq!(unpack(packed), whole);
        }

        #[test]
        fn any_flipped_bit_of_a_packed_frame_is_seen(header in headers(), bit in any::<prop::sample::Index>()) {
            let packed = pack(&frame(&header, "tally ".repeat(50).as_bytes()), 16).into_owned();
            let mut broken = packed.clone();
            let bit = bit.index(packed.len() * 8);
            broken[bit / 8] ^= 1 << (bit % 8);
            prop_assert!(open(&unpack(broken)).is_err(), "bit {} went unseen", bit);
        }

        #[test]
        fn any_flipped_bit_is_seen(header in headers(), body in prop::collection::vec(any::<u8>(), 0..40)) {
            let whole = frame(&header, &body);
            for bit in 0..whole.len() * 8 {
                let mut frame = whole.clone();
                frame[bit / 8] ^= 1 << (bit % 8);
                prop_assert!(open(&frame).is_err(), "bit {} went unseen", bit);
            }
        }
    }

    #[test]
    fn what_would_not_shrink_is_left_alone() {
        let header = Header {
            codec: Codec::Json,
            agent: AgentId::of("a", "b"),
            version: 1,
            epoch: 1,
            schema_version: 1,
        };
        let mut dice = fastrand::Rng::with_seed(1);
        let noise: Vec<u8> = (0..2_000).map(|_| dice.u8(..)).collect();
        let whole = frame(&header, &noise);
        assert_eq!(pack(&whole, 0), whole);
        let small = frame(&header, "x".repeat(99).as_bytes());
        assert_eq!(pack(&small, 100), small);
        assert!(pack(&small, 99).len() < small.len());
    }

    #[test]
    fn a_frame_knows_whose_it_is() {
        let (me, other) = (AgentId::of("tally", "a"), AgentId::of("tally", "b"));
        let header = Header { codec: Codec::Json, agent: me, version: 4, epoch: 2, schema_version: 0 };
        assert_eq!(header.matches(me, 2, 4), Ok(()));
        assert!(matches!(header.matches(other, 2, 4), Err(SnapshotError::WrongAgent { .. })));
        assert!(matches!(header.matches(me, 3, 4), Err(SnapshotError::WrongVersion { .. })));
        assert!(matches!(header.matches(me, 2, 5), Err(SnapshotError::WrongVersion { .. })));
    }
}
