//! Taking the padding of PKCS#1 v1.5 off a decrypted block.
//!
//! Servers answer with the whole block, because whether its padding is right must not be told to
//! whoever sent the ciphertext (Bleichenbacher 1998). The host needs the contents, so the padding is
//! looked at here, every byte of it whatever it is, without a branch on any of them. The answer that
//! the host then gets, contents or an error, is for the host to keep to itself: RFC 5246, section
//! 7.4.7.1, tells TLS stacks how.

use zeroize::Zeroizing;

/// Fewest random bytes between the two zero bytes (RFC 8017, section 7.2.2).
const RANDOM_MIN: u64 = 8;

/// The contents of `block`: `00 02 (eight or more bytes other than 0) 00 contents`.
pub(crate) fn contents(block: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
    let (mut good, mut searching, mut start) = (u64::MAX, u64::MAX, 0_u64);
    for (index, &byte) in (0_u64..).zip(block) {
        let zero = mask_of_zero(u64::from(byte));
        match index {
            0 => good &= zero,
            1 => good &= mask_of_zero(u64::from(byte ^ 2)),
            _ => {
                start |= searching & zero & (index + 1);
                searching &= !zero;
            }
        }
    }
    good &= !searching;
    // The contents start after 2 + RANDOM_MIN + 1 bytes or later.
    let too_early = std::hint::black_box(start).wrapping_sub(2 + RANDOM_MIN + 1) >> 63;
    good &= too_early.wrapping_sub(1);
    let start = usize::try_from(start).ok()?;
    let contents = block.get(start..)?;
    (std::hint::black_box(good) != 0).then(|| Zeroizing::new(contents.to_vec()))
}

/// All bits when `value`, below 2^63, is zero; none when it is not.
fn mask_of_zero(value: u64) -> u64 {
    let sign = std::hint::black_box(value).wrapping_sub(1) >> 63;
    0_u64.wrapping_sub(sign)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn block(random: usize, contents: &[u8]) -> Vec<u8> {
        [&[0, 2][..], &vec![0xa5; random], &[0], contents].concat()
    }

    #[test]
    fn contents_come_out_whatever_their_length() {
        for contents in [&b""[..], b"x", &[0; 48], &[3; 245]] {
            let block = block(253 - contents.len(), contents);
            assert_eq!(super::contents(&block).unwrap()[..], *contents);
        }
        assert_eq!(contents(&block(8, b"least")).unwrap()[..], *b"least");
    }

    #[test]
    fn what_is_not_padded_has_none() {
        assert!(contents(&block(7, b"short")).is_none());
        assert!(contents(&[0, 2]).is_none());
        assert!(contents(&[]).is_none());
        let mut endless = vec![1; 256];
        (endless[0], endless[1]) = (0, 2);
        assert!(contents(&endless).is_none(), "no second zero");
        for (position, value) in [(0, 1), (1, 1), (1, 3), (2, 0), (9, 0)] {
            let mut bad = block(100, b"contents");
            bad[position] = value;
            assert!(contents(&bad).is_none(), "byte {position}");
        }
    }
}
