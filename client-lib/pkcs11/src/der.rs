//! Just enough DER (X.690) for what PKCS#11 wants in pieces: the names and the serial number of a
//! certificate, the parts of a public key, the two numbers of an ECDSA signature.

pub(crate) const INTEGER: u8 = 0x02;
pub(crate) const BIT_STRING: u8 = 0x03;
pub(crate) const OID: u8 = 0x06;
pub(crate) const SEQUENCE: u8 = 0x30;
pub(crate) const EXPLICIT_0: u8 = 0xa0;

/// One element: all of its bytes, and its contents alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Element<'a> {
    pub(crate) whole: &'a [u8],
    pub(crate) contents: &'a [u8],
}

/// Reads elements one after the other.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    pub(crate) const fn new(input: &'a [u8]) -> Self {
        Self { rest: input }
    }

    pub(crate) const fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    /// The tag of the next element.
    pub(crate) fn peek(&self) -> Option<u8> {
        self.rest.first().copied()
    }

    /// The next element. `None`, and nothing read, when it has another tag, an indefinite or
    /// overlong length, or reaches past the end.
    pub(crate) fn next(&mut self, tag: u8) -> Option<Element<'a>> {
        let (&found, after_tag) = self.rest.split_first()?;
        if found != tag {
            return None;
        }
        let (&first, after_length) = after_tag.split_first()?;
        let (length, body) = match first {
            0..=0x7f => (usize::from(first), after_length),
            0x81..=0x83 => {
                let (octets, body) = after_length.split_at_checked(usize::from(first & 0x7f))?;
                let length = octets
                    .iter()
                    .fold(0, |sum, &octet| sum << 8 | usize::from(octet));
                let shortest = match first {
                    0x81 => 0x80,
                    0x82 => 0x100,
                    _ => 0x1_0000,
                };
                if length < shortest {
                    return None;
                }
                (length, body)
            }
            _ => return None,
        };
        let (contents, rest) = body.split_at_checked(length)?;
        let whole = self.rest.get(..self.rest.len() - rest.len())?;
        self.rest = rest;
        Some(Element { whole, contents })
    }

    /// A reader of the contents of the next element, which is a sequence.
    pub(crate) fn sequence(&mut self) -> Option<Self> {
        self.next(SEQUENCE)
            .map(|element| Self::new(element.contents))
    }

    /// The bytes of the next element, an integer that is not negative, without leading zeros.
    pub(crate) fn unsigned(&mut self) -> Option<&'a [u8]> {
        let contents = self.next(INTEGER)?.contents;
        match contents {
            [0, rest @ ..] if rest.first().is_some_and(|byte| *byte >= 0x80) => Some(rest),
            [0] => Some(&[]),
            [first, ..] if (1..0x80).contains(first) => Some(contents),
            _ => None,
        }
    }
}

/// `contents` as an OCTET STRING.
pub(crate) fn octet_string(contents: &[u8]) -> Vec<u8> {
    let mut out = vec![0x04];
    match contents.len() {
        length @ 0..=0x7f => out.extend(u8::try_from(length)),
        length => {
            let octets = length.to_be_bytes();
            let skipped = octets.iter().take_while(|octet| **octet == 0).count();
            let octets = octets.get(skipped..).unwrap_or_default();
            out.extend(u8::try_from(0x80 | octets.len()));
            out.extend(octets);
        }
    }
    out.extend(contents);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_are_read_and_written_alike() {
        for length in [0, 1, 0x7f, 0x80, 0xff, 0x100, 0xffff, 0x1_0000] {
            let text = octet_string(&vec![7; length]);
            let mut reader = Reader::new(&text);
            let element = reader.next(0x04).unwrap();
            assert_eq!((element.contents.len(), element.whole), (length, &text[..]));
            assert!(reader.is_empty());
        }
    }

    #[test]
    fn what_is_not_der_is_refused() {
        for bad in [
            &[0x30][..],
            &[0x30, 0x80, 0, 0],
            &[0x30, 0x81, 0x01, 0],
            &[0x30, 2, 0],
            &[0x31, 0],
        ] {
            assert!(Reader::new(bad).next(SEQUENCE).is_none(), "{bad:?}");
        }
    }

    #[test]
    fn integers_are_minimal_and_not_negative() {
        let number = |bytes: &[u8]| Reader::new(bytes).unsigned().map(<[u8]>::to_vec);
        assert_eq!(number(&[2, 1, 5]), Some(vec![5]));
        assert_eq!(number(&[2, 2, 0, 0x80]), Some(vec![0x80]));
        assert_eq!(number(&[2, 1, 0]), Some(vec![]));
        for bad in [&[2, 0][..], &[2, 1, 0x80], &[2, 2, 0, 5]] {
            assert_eq!(number(bad), None, "{bad:?}");
        }
    }
}
