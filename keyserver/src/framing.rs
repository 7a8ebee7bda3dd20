//! Cuts the plaintext of a connection into whole frames.
//!
//! Records, reads and frames have no relation to each other: one record may carry a byte or many
//! frames. A frame cannot announce more than 65,535 bytes of body, so what is gathered here is
//! bounded by one frame and one read.
//!
//! Some requests hold secrets, and nobody knows before they are whole. So what was served is wiped where its server
//! says so, and no bytes are left where others were moved away from.

use keyless_protocol::{Frame, HEADER_LEN, Header, split_frame};
use zeroize::Zeroize;

use crate::wiped;

/// The major version of the protocol that this server speaks.
const MAJOR_VERSION: u8 = 1;

/// Plaintext that has not been cut yet.
#[derive(Debug, Default)]
pub(crate) struct FrameBuffer {
    bytes: Vec<u8>,
    start: usize,
}

/// What is at the front of a [`FrameBuffer`].
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Front<'a> {
    /// A whole frame, and the number of bytes to [`FrameBuffer::consume`] for it.
    Frame(Frame<'a>, usize),
    /// The beginning of a frame, or nothing.
    Incomplete,
    /// A header of another protocol version. Its length cannot be trusted, so nothing after it can
    /// be read; it is found as soon as the header is there.
    WrongVersion {
        /// The request id it carries, for the error reply.
        id: u32,
    },
}

impl FrameBuffer {
    /// Appends plaintext.
    pub(crate) fn push(&mut self, plain: &[u8]) {
        // It is rare that it grows: a buffer that has grown is kept.
        wiped::reserve(&mut self.bytes, plain.len());
        self.bytes.extend_from_slice(plain);
    }

    /// Overwrites the next `len` bytes.
    pub(crate) fn wipe(&mut self, len: usize) {
        let rest = self.bytes.get_mut(self.start..).unwrap_or_default();
        let end = len.min(rest.len());
        if let Some(frame) = rest.get_mut(..end) {
            frame.zeroize();
        }
    }

    /// Looks at the next frame.
    pub(crate) fn front(&self) -> Front<'_> {
        let rest = self.bytes.get(self.start..).unwrap_or_default();
        let Some(header) = rest.first_chunk::<HEADER_LEN>() else {
            return Front::Incomplete;
        };
        let header = Header::decode(header);
        if header.major != MAJOR_VERSION {
            return Front::WrongVersion { id: header.id };
        }
        split_frame(rest).map_or(Front::Incomplete, |(frame, len)| Front::Frame(frame, len))
    }

    /// The whole frames that are there, the next one first. Their versions are not looked at.
    pub(crate) fn ahead(&self) -> impl Iterator<Item = Frame<'_>> {
        let mut rest = self.bytes.get(self.start..).unwrap_or_default();
        std::iter::from_fn(move || {
            let (frame, len) = split_frame(rest)?;
            rest = rest.get(len..)?;
            Some(frame)
        })
    }

    /// Drops `len` bytes from the front.
    pub(crate) fn consume(&mut self, len: usize) {
        self.start = self.start.saturating_add(len).min(self.bytes.len());
    }

    /// Moves what is left to the beginning. Called once a turn, so that a byte moves at most once
    /// however many frames a read carried.
    pub(crate) fn compact(&mut self) {
        if self.start > 0 {
            let left = self.move_to_front();
            self.bytes.truncate(left);
            self.start = 0;
        }
    }

    /// Moves what is left, and gives its length. Where it was is overwritten, as far as it is not where it now is:
    /// it may be the beginning of a secret.
    fn move_to_front(&mut self) -> usize {
        let left = self.bytes.len().saturating_sub(self.start);
        self.bytes.copy_within(self.start.., 0);
        if let Some(old) = self.bytes.get_mut(left.max(self.start)..) {
            old.fill(0);
        }
        left
    }

    /// Gives the memory back when there is nothing in it.
    pub(crate) fn shrink(&mut self) {
        if self.bytes.is_empty() {
            self.bytes = Vec::new();
        }
    }

    /// Whether a frame, or the refusal of one, could be taken now.
    pub(crate) fn has_work(&self) -> bool {
        self.front() != Front::Incomplete
    }
}

impl Drop for FrameBuffer {
    fn drop(&mut self) {
        self.bytes.as_mut_slice().zeroize();
    }
}

#[cfg(test)]
mod tests {
    use keyless_protocol::{Opcode, Request};

    use super::*;

    fn pings(count: u32) -> Vec<u8> {
        let mut bytes = Vec::new();
        for id in 0..count {
            let payload = vec![7; usize::try_from(id).expect("small") * 700];
            let mut ping = Request::new(id, Opcode::Ping);
            ping.payload = &payload;
            ping.encode(&mut bytes).expect("encodes");
        }
        bytes
    }

    #[test]
    fn what_is_ahead_is_every_whole_frame_that_was_not_consumed() {
        let bytes = pings(4);
        let (_, first) = split_frame(&bytes).expect("a frame");
        let mut buffer = FrameBuffer::default();
        buffer.push(&bytes[..bytes.len() - 1]);
        let ids = |buffer: &FrameBuffer| -> Vec<_> {
            buffer.ahead().map(|frame| frame.header.id).collect()
        };
        assert_eq!(ids(&buffer), [0, 1, 2]);
        buffer.consume(first);
        assert_eq!(ids(&buffer), [1, 2]);
        buffer.push(&bytes[bytes.len() - 1..]);
        assert_eq!(ids(&buffer), [1, 2, 3]);
        buffer.consume(bytes.len());
        assert!(ids(&buffer).is_empty());
    }

    /// However the bytes arrive, the same frames come out in the same order.
    #[test]
    fn any_fragmentation_gives_the_same_frames() {
        use proptest::prelude::*;
        let bytes = pings(9);
        proptest!(|(cuts in prop::collection::vec(1_usize..4000, 1..60))| {
            let mut buffer = FrameBuffer::default();
            let mut ids = Vec::new();
            let mut rest = bytes.as_slice();
            let mut cuts = cuts.iter().cycle();
            while !rest.is_empty() {
                let (now, later) = rest.split_at((*cuts.next().expect("cycle")).min(rest.len()));
                rest = later;
                buffer.push(now);
                while let Front::Frame(frame, len) = buffer.front() {
                    ids.push(frame.header.id);
                    buffer.consume(len);
                }
                buffer.compact();
            }
            prop_assert_eq!(ids, (0..9).collect::<Vec<_>>());
            prop_assert!(!buffer.has_work() && buffer.bytes.is_empty());
        });
    }

    #[test]
    fn another_version_is_refused_before_its_body_is_awaited() {
        let mut buffer = FrameBuffer::default();
        buffer.push(&[2, 0, 0xFF, 0xFF, 0, 0, 0]);
        assert_eq!(buffer.front(), Front::Incomplete);
        buffer.push(&[9]);
        assert_eq!(buffer.front(), Front::WrongVersion { id: 9 });
    }

    /// What was served and wiped, and what was moved, is nowhere else in the memory that is kept.
    #[test]
    fn no_copy_is_left_in_the_buffer() {
        let secret = [0xA5; 900];
        let mut request = Request::new(1, Opcode::Seal);
        request.payload = &secret;
        let mut bytes = Vec::new();
        request.encode(&mut bytes).expect("encodes");
        let frame = bytes.len();
        bytes.extend_from_within(..);
        // The second frame arrives in two parts, shorter or longer than what is in front of it.
        for (first, part) in [(1, 700), (1, 150), (0, 700)] {
            let mut buffer = FrameBuffer::default();
            let start = frame * first;
            buffer.push(&bytes[..start + part]);
            buffer.wipe(start);
            buffer.consume(start);
            assert!(buffer.bytes[..start].iter().all(|byte| *byte == 0));
            let left = buffer.move_to_front();
            assert_eq!(left, part);
            assert_eq!(buffer.bytes[..left], bytes[..left]);
            assert!(!buffer.bytes[left.max(start)..].contains(&0xA5));
        }
    }
}
