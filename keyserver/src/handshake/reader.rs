//! The presentation language of TLS (RFC 8446, section 3): numbers and length-prefixed vectors.

use super::Fault;

/// What is left of a message. Every step takes from its front; nothing is copied.
#[derive(Debug, Clone, Copy)]
pub(super) struct Reader<'a> {
    rest: &'a [u8],
}

/// Ends inside of something.
const CUT: Fault = Fault("a message or a field of it is cut short");

impl<'a> Reader<'a> {
    pub(super) const fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    /// Everything that has not been taken.
    pub(super) const fn rest(self) -> &'a [u8] {
        self.rest
    }

    pub(super) const fn is_empty(self) -> bool {
        self.rest.is_empty()
    }

    /// The next `count` bytes.
    pub(super) fn take(&mut self, count: usize) -> Result<&'a [u8], Fault> {
        let (taken, rest) = self.rest.split_at_checked(count).ok_or(CUT)?;
        self.rest = rest;
        Ok(taken)
    }

    /// The next `N` bytes.
    pub(super) fn array<const N: usize>(&mut self) -> Result<&'a [u8; N], Fault> {
        let (taken, rest) = self.rest.split_first_chunk().ok_or(CUT)?;
        self.rest = rest;
        Ok(taken)
    }

    pub(super) fn u8(&mut self) -> Result<u8, Fault> {
        self.array().map(|[byte]| *byte)
    }

    pub(super) fn u16(&mut self) -> Result<u16, Fault> {
        self.array().map(|bytes| u16::from_be_bytes(*bytes))
    }

    fn u24(&mut self) -> Result<usize, Fault> {
        let [high, middle, low] = *self.array()?;
        Ok(usize::from(high) << 16 | usize::from(middle) << 8 | usize::from(low))
    }

    /// A vector with a length of one byte.
    pub(super) fn vector8(&mut self) -> Result<&'a [u8], Fault> {
        let length = self.u8()?;
        self.take(length.into())
    }

    /// A vector with a length of two bytes.
    pub(super) fn vector16(&mut self) -> Result<&'a [u8], Fault> {
        let length = self.u16()?;
        self.take(length.into())
    }

    /// A vector with a length of three bytes.
    pub(super) fn vector24(&mut self) -> Result<&'a [u8], Fault> {
        let length = self.u24()?;
        self.take(length)
    }

    /// Refuses anything that is left.
    pub(super) fn end(self) -> Result<(), Fault> {
        if self.rest.is_empty() {
            Ok(())
        } else {
            Err(Fault("bytes follow where a message or a field of it ends"))
        }
    }
}

/// Whether a list of two-byte numbers holds `wanted`. A list of an odd length holds nothing.
pub(super) fn lists(numbers: &[u8], wanted: u16) -> bool {
    let (pairs, odd) = numbers.as_chunks::<2>();
    odd.is_empty() && pairs.contains(&wanted.to_be_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn vectors_end_where_their_length_says() {
        let mut reader = Reader::new(&[1, 0xaa, 0, 1, 0xbb, 0, 0, 1, 0xcc, 0xdd]);
        assert_eq!(reader.vector8(), Ok(&[0xaa][..]));
        assert_eq!(reader.vector16(), Ok(&[0xbb][..]));
        assert_eq!(reader.vector24(), Ok(&[0xcc][..]));
        assert!(reader.end().is_err() && !reader.is_empty());
        assert_eq!(reader.u8(), Ok(0xdd));
        assert!(reader.end().is_ok() && reader.is_empty());
        assert_eq!(reader.u16(), Err(CUT));
    }

    #[test]
    fn a_list_is_searched_by_whole_numbers() {
        assert!(lists(&[0, 1, 0, 2], 2));
        assert!(!lists(&[0, 1, 0, 2], 0x0100));
        assert!(!lists(&[0, 2, 0], 2));
    }
}
