//! Items: a tag byte, a 16-bit big-endian length, and that many bytes of value.

use crate::error::EncodeError;
use crate::header::{HEADER_LEN, Header, MAX_BODY, MIN_FRAME};
use crate::tag::Tag;

/// Bytes in an item before its value.
pub const ITEM_HEADER_LEN: usize = 3;

/// One item as it stands in a body, its tag not yet interpreted.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Item<'a> {
    /// The tag byte; [`Tag::from_byte`] says whether it is known.
    pub tag: u8,
    /// The value.
    pub value: &'a [u8],
}

/// An item claims more bytes than the body has left.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct PastEnd;

/// The items of a body, in order. Ends after the first [`PastEnd`].
///
/// One or two bytes after the last item are too few to be an item and are ignored, as existing
/// servers do.
#[derive(Clone, Copy, Debug)]
pub struct Items<'a> {
    rest: &'a [u8],
}

impl<'a> Items<'a> {
    /// Walks this body.
    #[must_use]
    pub const fn new(body: &'a [u8]) -> Self {
        Self { rest: body }
    }
}

impl<'a> Iterator for Items<'a> {
    type Item = Result<Item<'a>, PastEnd>;

    fn next(&mut self) -> Option<Self::Item> {
        let (&[tag, hi, lo], rest) = self.rest.split_first_chunk::<ITEM_HEADER_LEN>()?;
        let length = usize::from(u16::from_be_bytes([hi, lo]));
        let Some((value, rest)) = rest.split_at_checked(length) else {
            self.rest = &[];
            return Some(Err(PastEnd));
        };
        self.rest = rest;
        Some(Ok(Item { tag, value }))
    }
}

/// Bytes an item with this value takes; saturates rather than overflows.
pub(crate) const fn item_len(value: &[u8]) -> usize {
    value.len().saturating_add(ITEM_HEADER_LEN)
}

/// As [`item_len`], nothing when the item is left out.
pub(crate) const fn optional_len(value: Option<&[u8]>) -> usize {
    match value {
        Some(value) => item_len(value),
        None => 0,
    }
}

/// How one frame will be laid out, known before its first byte is written.
///
/// Below [`MIN_FRAME`] one padding item of zeros brings the frame there. When 1 to 3 bytes are
/// missing, an empty padding item overshoots to at most 1026 bytes.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Layout {
    /// Header and items, without padding.
    used: usize,
    /// Value bytes of the padding item.
    padding: Option<usize>,
}

impl Layout {
    /// Plans a frame whose items take `items` bytes.
    pub(crate) const fn new(items: usize) -> Result<Self, EncodeError> {
        if items > MAX_BODY {
            return Err(EncodeError { body_bytes: items });
        }
        let used = HEADER_LEN + items;
        let padding = if used < MIN_FRAME {
            Some(MIN_FRAME.saturating_sub(used + ITEM_HEADER_LEN))
        } else {
            None
        };
        Ok(Self { used, padding })
    }

    /// Bytes of the whole frame.
    const fn total(self) -> usize {
        match self.padding {
            Some(padding) => self.used + ITEM_HEADER_LEN + padding,
            None => self.used,
        }
    }

    /// Reserves room for the whole frame and writes its header.
    pub(crate) fn begin(self, id: u32, out: &mut Vec<u8>) {
        out.reserve(self.total());
        let body_len = low_u16(self.total() - HEADER_LEN);
        out.extend_from_slice(&Header::new(body_len, id).encode());
    }

    /// Ends the frame with its padding, if it needs any.
    pub(crate) fn finish(self, out: &mut Vec<u8>) {
        if let Some(padding) = self.padding {
            put_header(Tag::Padding, padding, out);
            out.resize(out.len() + padding, 0);
        }
    }
}

/// Appends one item. The caller has planned it with [`Layout`], so its length fits 16 bits.
pub(crate) fn put(tag: Tag, value: &[u8], out: &mut Vec<u8>) {
    put_header(tag, value.len(), out);
    out.extend_from_slice(value);
}

/// Appends one item unless it is left out.
pub(crate) fn put_optional(tag: Tag, value: Option<&[u8]>, out: &mut Vec<u8>) {
    if let Some(value) = value {
        put(tag, value, out);
    }
}

fn put_header(tag: Tag, length: usize, out: &mut Vec<u8>) {
    let [hi, lo] = low_u16(length).to_be_bytes();
    out.extend_from_slice(&[tag.as_byte(), hi, lo]);
}

/// The low 16 bits of a length that [`Layout`] has bounded.
const fn low_u16(length: usize) -> u16 {
    let [low, high, ..] = length.to_le_bytes();
    u16::from_le_bytes([low, high])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn padding_brings_every_short_frame_to_1024_bytes_or_just_past_it() {
        for used in HEADER_LEN..=1030 {
            let layout = Layout::new(used - HEADER_LEN).unwrap();
            let expected = match used {
                0..=1021 => 1024,
                1022 => 1025,
                1023 => 1026,
                _ => used,
            };
            assert_eq!(layout.total(), expected, "with {used} bytes used");
        }
    }

    #[test]
    fn the_longest_body_fits_and_one_byte_more_does_not() {
        assert_eq!(Layout::new(MAX_BODY).unwrap().total(), crate::MAX_FRAME);
        assert_eq!(
            Layout::new(MAX_BODY + 1),
            Err(EncodeError {
                body_bytes: MAX_BODY + 1
            })
        );
    }

    #[test]
    fn items_end_cleanly_with_up_to_two_trailing_bytes() {
        for trailing in [&[][..], &[0x11], &[0x11, 0x00]] {
            let body = [&[0x12, 0, 1, 0xAA, 0x99, 0, 0][..], trailing].concat();
            let items: Vec<_> = Items::new(&body).map(Result::unwrap).collect();
            assert_eq!(
                items,
                [
                    Item {
                        tag: 0x12,
                        value: &[0xAA]
                    },
                    Item {
                        tag: 0x99,
                        value: &[]
                    }
                ],
            );
        }
    }

    #[test]
    fn an_item_past_the_end_is_reported_once() {
        let mut items = Items::new(&[0x11, 0, 2, 0x05]);
        assert_eq!(items.next(), Some(Err(PastEnd)));
        assert_eq!(items.next(), None);
    }
}
