//! Just enough DER (X.690) to walk from a certificate to the public key inside it.

/// An identifier octet.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Tag(u8);

impl Tag {
    pub(crate) const INTEGER: Self = Self(0x02);
    pub(crate) const BIT_STRING: Self = Self(0x03);
    pub(crate) const OBJECT: Self = Self(0x06);
    pub(crate) const SEQUENCE: Self = Self(0x30);
    pub(crate) const EXPLICIT_0: Self = Self(0xa0);
}

/// The contents of the element that `input` begins with, and what follows it. `None` when it has
/// another tag, an indefinite length, or reaches past the end.
pub(crate) fn value(input: &[u8], tag: Tag) -> Option<(&[u8], &[u8])> {
    let (&found, rest) = input.split_first()?;
    if Tag(found) != tag {
        return None;
    }
    let (&first, rest) = rest.split_first()?;
    let (length, rest) = match first {
        0..=0x7f => (usize::from(first), rest),
        // Up to 3 octets of length: nothing here is larger than 16 MiB.
        0x81..=0x83 => {
            let (octets, rest) = rest.split_at_checked(usize::from(first & 0x7f))?;
            let length = octets
                .iter()
                .fold(0, |sum, &octet| sum << 8 | usize::from(octet));
            (length, rest)
        }
        _ => return None,
    };
    rest.split_at_checked(length)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_and_long_lengths() {
        assert_eq!(
            value(&[0x02, 1, 7, 9], Tag::INTEGER),
            Some((&[7][..], &[9][..]))
        );
        let mut long = vec![0x30, 0x82, 0x01, 0x00];
        long.extend([5; 256]);
        assert_eq!(value(&long, Tag::SEQUENCE).unwrap().0.len(), 256);
        assert!(value(&long[..200], Tag::SEQUENCE).is_none());
        assert!(value(&long, Tag::INTEGER).is_none());
        assert!(
            value(&[0x30, 0x80, 0, 0], Tag::SEQUENCE).is_none(),
            "indefinite length"
        );
    }
}
