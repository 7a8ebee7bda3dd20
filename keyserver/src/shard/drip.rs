//! How the handshake of a peer is read that says it byte by byte.
//!
//! A byte that is read alone costs as much as a thousand that are read together, and nobody knows yet who asks for that.
//! So the kernel keeps what comes until it completes a record of TLS (RFC 8446, section 5.1) or its header; and
//! who sends very short records is read from less and less often.

use super::stream::Stream;
use crate::limits;

/// Of a record: type, version, and the length of what follows.
const HEADER_BYTES: usize = 5;

/// What was read of one handshake.
#[derive(Debug)]
pub(super) struct Drip {
    /// How often.
    reads: u32,
    record: Record,
    /// What the kernel waits for now.
    low_water: usize,
}

impl Default for Drip {
    fn default() -> Self {
        Self {
            reads: 0,
            record: Record::default(),
            low_water: 1,
        }
    }
}

impl Drip {
    /// A read brought these bytes, and more of the handshake is to come: comes back when it is to be read.
    pub(super) async fn before_more(&mut self, stream: &impl Stream, bytes: &[u8]) {
        self.record.take(bytes);
        self.wait_for(stream, self.record.missing());
        self.reads += 1;
        if let Some(over) = self.reads.checked_sub(limits::HANDSHAKE_READS) {
            tokio::time::sleep(limits::DRIP_PAUSE * (1 << over.min(5))).await;
        }
    }

    /// The handshake is over: whatever comes is read at once.
    pub(super) fn end(&mut self, stream: &impl Stream) {
        self.wait_for(stream, 1);
    }

    fn wait_for(&mut self, stream: &impl Stream, bytes: usize) {
        if self.low_water != bytes {
            self.low_water = bytes;
            stream.wait_for(bytes);
        }
    }
}

/// Where in a record a stream of records is.
#[derive(Debug, Default)]
struct Record {
    header: [u8; HEADER_BYTES],
    /// Bytes of the header that are there.
    begun: usize,
    /// Bytes of the record itself that are not, once the header is.
    left: usize,
}

impl Record {
    fn take(&mut self, mut bytes: &[u8]) {
        while let Some((first, rest)) = bytes.split_first() {
            if self.left > 0 {
                let (_, rest) = bytes.split_at(self.left.min(bytes.len()));
                self.left -= bytes.len() - rest.len();
                bytes = rest;
                continue;
            }
            if let Some(byte) = self.header.get_mut(self.begun) {
                *byte = *first;
            }
            self.begun += 1;
            bytes = rest;
            if self.begun == HEADER_BYTES {
                let [.., high, low] = self.header;
                self.left = usize::from(u16::from_be_bytes([high, low]));
                self.begun = 0;
            }
        }
    }

    /// How many bytes it takes until there is something to do: 1 between two records.
    const fn missing(&self) -> usize {
        if self.left > 0 {
            self.left
        } else if self.begun > 0 {
            HEADER_BYTES - self.begun
        } else {
            1
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A record of 300 bytes, an empty one, and the header of one of 16,384.
    fn records() -> Vec<u8> {
        let mut bytes = vec![22, 3, 1, 1, 44];
        bytes.extend([7; 300]);
        bytes.extend([20, 3, 3, 0, 0, 23, 3, 3, 64, 0]);
        bytes
    }

    #[test]
    fn what_is_missing_is_the_rest_of_the_header_and_then_of_the_record() {
        let mut record = Record::default();
        assert_eq!(record.missing(), 1);
        for (at, byte) in records().into_iter().enumerate() {
            record.take(&[byte]);
            let expected = match at + 1 {
                have @ 1..5 => 5 - have,
                have @ 5..305 => 305 - have,
                305 | 310 => 1,
                have @ 306..310 => 310 - have,
                have @ 311..315 => 315 - have,
                _ => 16_384,
            };
            assert_eq!(record.missing(), expected, "after {} bytes", at + 1);
        }
    }

    #[test]
    fn it_does_not_depend_on_how_the_bytes_arrive() {
        let bytes = records();
        for cut in 0..bytes.len() {
            let (one, other) = bytes.split_at(cut);
            let mut record = Record::default();
            record.take(one);
            let first = record.missing();
            record.take(other);
            assert_eq!(record.missing(), 16_384, "cut after {cut}");
            assert!(first >= 1 && first <= bytes.len(), "cut after {cut}");
        }
    }
}
