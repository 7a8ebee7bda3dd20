//! Cuts the plaintext of a connection into whole frames.
//!
//! Records, reads and frames have no relation to each other: one record may carry a byte or many
//! frames. A frame cannot announce more than 65,535 bytes of body, so what is gathered here is
//! bounded by one frame and one read.

use keyless_protocol::{Frame, HEADER_LEN, Header, split_frame};

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
    /// Where plaintext is appended.
    pub(crate) fn tail(&mut self) -> &mut Vec<u8> {
        &mut self.bytes
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

    /// Drops `len` bytes from the front.
    pub(crate) fn consume(&mut self, len: usize) {
        self.start = self.start.saturating_add(len).min(self.bytes.len());
    }

    /// Moves what is left to the beginning. Called once a turn, so that a byte moves at most once
    /// however many frames a read carried.
    pub(crate) fn compact(&mut self) {
        if self.start > 0 {
            self.bytes.drain(..self.start);
            self.start = 0;
        }
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
                buffer.tail().extend_from_slice(now);
                while let Front::Frame(frame, len) = buffer.front() {
                    ids.push(frame.header.id);
                    buffer.consume(len);
                }
                buffer.compact();
            }
            prop_assert_eq!(ids, (0..9).collect::<Vec<_>>());
            prop_assert!(!buffer.has_work() && buffer.tail().is_empty());
        });
    }

    #[test]
    fn another_version_is_refused_before_its_body_is_awaited() {
        let mut buffer = FrameBuffer::default();
        buffer
            .tail()
            .extend_from_slice(&[2, 0, 0xFF, 0xFF, 0, 0, 0]);
        assert_eq!(buffer.front(), Front::Incomplete);
        buffer.tail().push(9);
        assert_eq!(buffer.front(), Front::WrongVersion { id: 9 });
    }
}
