//! The 8-byte header, and cutting a byte stream into frames.
//!
//! ```text
//! 0        1        2        3        4                                   8
//! | major  | minor  | body length     | request id                        | body ...
//! ```
//!
//! All numbers are big endian. The body length does not count the header. The client chooses the
//! id; the server echoes it, and may answer in any order.

use std::fmt;

/// Bytes in a frame's header.
pub const HEADER_LEN: usize = 8;

/// The longest body: what the 16-bit length field can say.
pub const MAX_BODY: usize = 65_535;

/// The longest frame, header included.
pub const MAX_FRAME: usize = HEADER_LEN + MAX_BODY;

/// The longest payload that fits beside an opcode item: the body, less 4 bytes for the opcode item
/// and 3 for the payload item's own tag and length.
pub const MAX_PAYLOAD: usize = MAX_BODY - 4 - 3;

/// Senders pad shorter frames to this many bytes, header included, so that a frame's size tells an
/// onlooker little about what it asks. Receivers do not demand it.
pub const MIN_FRAME: usize = 1024;

/// The TCP port key servers listen on by convention.
pub const DEFAULT_PORT: u16 = 2407;

/// The major version this crate speaks. A frame with another one is refused.
pub const MAJOR_VERSION: u8 = 1;

/// The minor version this crate writes. Any minor version is accepted.
pub const MINOR_VERSION: u8 = 0;

/// The fixed part at the start of every frame.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct Header {
    /// Major version; [`MAJOR_VERSION`] unless the peer speaks something else.
    pub major: u8,
    /// Minor version; ignored by receivers.
    pub minor: u8,
    /// Bytes that follow the header.
    pub body_len: u16,
    /// Chosen by the client and echoed by the server.
    pub id: u32,
}

impl Header {
    /// A header of the version this crate speaks.
    #[must_use]
    pub const fn new(body_len: u16, id: u32) -> Self {
        Self {
            major: MAJOR_VERSION,
            minor: MINOR_VERSION,
            body_len,
            id,
        }
    }

    /// Reads a header. Every 8 bytes are one; whether the version is acceptable is for the caller.
    #[must_use]
    pub const fn decode(bytes: &[u8; HEADER_LEN]) -> Self {
        let [major, minor, l0, l1, i0, i1, i2, i3] = *bytes;
        Self {
            major,
            minor,
            body_len: u16::from_be_bytes([l0, l1]),
            id: u32::from_be_bytes([i0, i1, i2, i3]),
        }
    }

    /// Writes the header.
    #[must_use]
    pub const fn encode(self) -> [u8; HEADER_LEN] {
        let [l0, l1] = self.body_len.to_be_bytes();
        let [i0, i1, i2, i3] = self.id.to_be_bytes();
        [self.major, self.minor, l0, l1, i0, i1, i2, i3]
    }
}

/// One whole frame, borrowed from the buffer it arrived in.
#[derive(Clone, Copy, Eq, PartialEq)]
pub struct Frame<'a> {
    /// The header as sent.
    pub header: Header,
    /// The items; exactly [`Header::body_len`] bytes when made by [`split_frame`].
    pub body: &'a [u8],
}

/// Shows the header and the size only: a body may hold a decrypted secret.
impl fmt::Debug for Frame<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Frame")
            .field("header", &self.header)
            .field("body_bytes", &self.body.len())
            .finish()
    }
}

/// The first whole frame of `buf` and its length with the header, or `None` when more bytes are
/// needed.
///
/// Nothing is refused here. A body cannot be longer than [`MAX_BODY`] because its length field has
/// 16 bits, so a receive buffer of [`MAX_FRAME`] bytes always suffices for progress.
///
/// ```
/// use keyless_protocol::{Header, split_frame};
///
/// let mut wire = Header::new(2, 9).encode().to_vec();
/// assert!(split_frame(&wire).is_none(), "the body is not here yet");
/// wire.extend_from_slice(&[0xAA, 0xBB, 0x01]);
/// let (frame, length) = split_frame(&wire).unwrap();
/// assert_eq!((frame.header.id, frame.body, length), (9, &[0xAA, 0xBB][..], 10));
/// ```
#[must_use]
pub fn split_frame(buf: &[u8]) -> Option<(Frame<'_>, usize)> {
    let (header, rest) = buf.split_first_chunk::<HEADER_LEN>()?;
    let header = Header::decode(header);
    let body_len = usize::from(header.body_len);
    let body = rest.get(..body_len)?;
    Some((Frame { header, body }, HEADER_LEN + body_len))
}
