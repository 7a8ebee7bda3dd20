//! Whether a block conforms to PKCS #1 v1.5 encryption, as a mask, and the selection by it.
//!
//! Both functions use nothing but exclusive-or, and, or, and a subtraction whose borrow makes the mask: no
//! comparison, no branch, no index that depends on a byte of the block. They are never inlined, so that
//! their assembly can be found and read, and so that no caller's knowledge of a block turns into a
//! branch in them.

use std::hint::black_box;

/// Bytes of a premaster secret: the only thing TLS ever encrypts under this padding.
pub(super) const SECRET_LEN: usize = 48;

/// All ones or all zeros.
#[derive(Clone, Copy)]
pub(super) struct Mask(u8);

/// All ones where `byte` is zero, by the borrow of `byte - 1`.
const fn zero_mask(byte: u8) -> u8 {
    let [_, high] = (byte as u16).wrapping_sub(1).to_le_bytes();
    high
}

/// Whether `padding`, all of a block before the last [`SECRET_LEN`] bytes, is `00 02`, then bytes none of
/// which is zero, then `00` (RFC 8017, section 7.2.2; the length of the message is known, so the
/// separator is looked at in its place and never searched).
#[inline(never)]
pub(super) fn conforms(padding: &[u8]) -> Mask {
    let ([leading, block_type], rest) = match padding.split_first_chunk::<2>() {
        Some(split) => split,
        None => (&[1, 1], &[][..]),
    };
    let (separator, filler) = match rest.split_last() {
        Some(split) => split,
        None => (&1, &[][..]),
    };
    let mut zero_in_filler = 0;
    for byte in filler {
        zero_in_filler |= zero_mask(*byte);
    }
    let wrong = leading | (block_type ^ 2) | separator | zero_in_filler;
    // Opaque from here on: the compiler must not learn that a mask has two values and branch on them.
    Mask(black_box(zero_mask(wrong)))
}

/// Copies `yes` where the mask is all ones, else `no`.
#[inline(never)]
pub(super) fn select<const N: usize>(mask: Mask, yes: &[u8; N], no: &[u8; N], out: &mut [u8; N]) {
    let mask = black_box(mask.0);
    for ((out, yes), no) in out.iter_mut().zip(yes).zip(no) {
        *out = no ^ (mask & (yes ^ no));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zero_alone_has_a_mask() {
        for byte in 0..=u8::MAX {
            assert_eq!(zero_mask(byte), if byte == 0 { 0xff } else { 0 });
        }
    }

    #[test]
    fn selection_follows_the_mask() {
        let (yes, no) = ([0x5a; 48], [0xc3; 48]);
        let mut out = [0; 48];
        select(Mask(0xff), &yes, &no, &mut out);
        assert_eq!(out, yes);
        select(Mask(0), &yes, &no, &mut out);
        assert_eq!(out, no);
    }

    /// Every position of the padding, every value of the byte there, for a 2048-bit modulus.
    #[test]
    fn exactly_the_standards_form_conforms() {
        let mut padding = [0xaa_u8; 208];
        padding[0] = 0;
        padding[1] = 2;
        padding[207] = 0;
        assert_eq!(conforms(&padding).0, 0xff);
        for position in 0..padding.len() {
            for value in 0..=u8::MAX {
                let mut changed = padding;
                changed[position] = value;
                let good = match position {
                    0 | 207 => value == 0,
                    1 => value == 2,
                    _ => value != 0,
                };
                let expected = if good { 0xff } else { 0 };
                assert_eq!(conforms(&changed).0, expected, "{position} {value}");
            }
        }
    }

    #[test]
    fn what_is_too_short_does_not_conform() {
        for length in 0..3 {
            assert_eq!(conforms(&[0, 2, 0][..length]).0, 0, "{length}");
        }
    }
}
