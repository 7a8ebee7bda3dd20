//! The numbers of an RSA key, read from its file, and the weaknesses they can show.

use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use crate::der::RsaPrivateKey;
use crate::error::KeyError;

/// Smallest modulus that is loaded, in bits.
pub(crate) const MIN_MODULUS_BITS: usize = 2048;
/// Largest modulus that is loaded, in bits.
pub(crate) const MAX_MODULUS_BITS: usize = 8192;
/// Largest modulus in bytes; buffers on the stack are this long.
pub(crate) const MAX_MODULUS_LEN: usize = MAX_MODULUS_BITS / 8;
/// The exponent practically every key has, and the only one loaded without being allowed by name.
pub(crate) const USUAL_EXPONENT: u64 = 65_537;
/// The largest exponent AWS-LC takes, 33 bits: a longer one makes each check needlessly dear.
const MAX_EXPONENT_BITS: usize = 33;

/// The numbers of an RSA private key, big endian, without leading zero bytes; wiped on drop.
///
/// AWS-LC gives no way to read the primes back from its own object, and the lane engine needs them.
#[derive(Zeroize, ZeroizeOnDrop)]
pub(crate) struct RsaParts {
    /// Modulus.
    pub(crate) n: Vec<u8>,
    /// Public exponent.
    pub(crate) e: u64,
    /// First prime.
    pub(crate) p: Vec<u8>,
    /// Second prime.
    pub(crate) q: Vec<u8>,
    /// d mod (p - 1).
    pub(crate) dp: Vec<u8>,
    /// d mod (q - 1).
    pub(crate) dq: Vec<u8>,
    /// 1/q mod p.
    pub(crate) qinv: Vec<u8>,
}

impl RsaParts {
    /// Copies the numbers out of a decoded `RSAPrivateKey` and refuses weak ones. That they belong
    /// together (n = p*q and so on) is AWS-LC's to check, when it builds its object from the same bytes.
    pub(crate) fn new(decoded: &RsaPrivateKey<'_>, any_exponent: bool) -> Result<Self, KeyError> {
        let bits = bit_length(decoded.n);
        if bits < MIN_MODULUS_BITS {
            return Err(KeyError::ModulusTooShort { bits });
        }
        if bits > MAX_MODULUS_BITS {
            return Err(KeyError::ModulusTooLong { bits });
        }
        let e = exponent(decoded.e)?;
        if e != USUAL_EXPONENT && !any_exponent {
            return Err(KeyError::Exponent { e });
        }
        if decoded.p == decoded.q {
            return Err(KeyError::EqualPrimes);
        }
        if primes_are_close(decoded.p, decoded.q, bits) {
            return Err(KeyError::ClosePrimes);
        }
        Ok(Self {
            n: decoded.n.to_vec(),
            e,
            p: decoded.p.to_vec(),
            q: decoded.q.to_vec(),
            dp: decoded.dp.to_vec(),
            dq: decoded.dq.to_vec(),
            qinv: decoded.qinv.to_vec(),
        })
    }

    /// Length of the modulus in bytes, called k in RFC 8017.
    pub(crate) const fn modulus_len(&self) -> usize {
        self.n.len()
    }

    /// The private exponent modulo each prime less one, that of the larger prime first, each in k bytes. The exponent itself
    /// may be written modulo either of two numbers, Euler's and Carmichael's, and the primes in either order: this is the
    /// same for all forms of a key. (AWS-LC refuses a key whose two are not reduced.)
    pub(crate) fn exponents(&self) -> Zeroizing<Vec<u8>> {
        // Neither has leading zeros.
        let p_is_larger = (self.p.len(), &self.p) > (self.q.len(), &self.q);
        let (first, second) = if p_is_larger {
            (&self.dp, &self.dq)
        } else {
            (&self.dq, &self.dp)
        };
        let len = self.modulus_len();
        let mut exponents = Zeroizing::new(Vec::with_capacity(2 * len));
        for (number, end) in [(first, len), (second, 2 * len)] {
            exponents.resize(end.saturating_sub(number.len()), 0);
            exponents.extend_from_slice(number);
        }
        exponents
    }

    /// Length of the modulus in bits.
    pub(crate) fn modulus_bits(&self) -> usize {
        bit_length(&self.n)
    }

    /// Whether `input` may enter the bare private operation: k bytes, and 1 < input < n - 1.
    ///
    /// Ciphertexts are public, so this need not be constant time.
    pub(crate) fn accepts_raw_input(&self, input: &[u8]) -> bool {
        is_raw_input(input, &self.n)
    }
}

/// Whether `input` is as long as the modulus `n` and 1 < input < n - 1.
pub(crate) fn is_raw_input(input: &[u8], n: &[u8]) -> bool {
    let (Some((last, head)), Some((n_last, n_head))) = (input.split_last(), n.split_last()) else {
        return false;
    };
    if input.len() != n.len() {
        return false;
    }
    let above_one = *last > 1 || head.iter().any(|byte| *byte != 0);
    // n is odd, so n - 1 differs from it in the last bit only.
    above_one && (head, *last) < (n_head, n_last & !1)
}

/// Number of bits of a big-endian number, leading zeros not counted.
pub(crate) fn bit_length(number: &[u8]) -> usize {
    let zeros = number.iter().take_while(|byte| **byte == 0).count();
    let rest = number.get(zeros..).unwrap_or_default();
    rest.first().map_or(0, |top| {
        rest.len() * 8 - usize::try_from(top.leading_zeros()).unwrap_or(0)
    })
}

pub(crate) fn exponent(e: &[u8]) -> Result<u64, KeyError> {
    if bit_length(e) > MAX_EXPONENT_BITS {
        return Err(KeyError::ExponentUnusable);
    }
    let value = e
        .iter()
        .fold(0_u64, |sum, byte| (sum << 8) | u64::from(*byte));
    if value < 3 || value % 2 == 0 {
        return Err(KeyError::ExponentUnusable);
    }
    Ok(value)
}

/// Whether |p - q| <= 2^(bits/2 - 100), which lets Fermat's method factor n (FIPS 186-5, section A.1.3).
fn primes_are_close(p: &[u8], q: &[u8], modulus_bits: usize) -> bool {
    let len = p.len().max(q.len());
    let (mut p_wide, mut q_wide) = (vec![0; len - p.len()], vec![0; len - q.len()]);
    p_wide.extend_from_slice(p);
    q_wide.extend_from_slice(q);
    let (larger, smaller) = if p_wide >= q_wide {
        (&p_wide, &q_wide)
    } else {
        (&q_wide, &p_wide)
    };
    let mut difference = vec![0; len];
    let mut borrow = false;
    for ((out, a), b) in difference.iter_mut().zip(larger).zip(smaller).rev() {
        let (partial, first) = a.overflowing_sub(*b);
        let (value, second) = partial.overflowing_sub(u8::from(borrow));
        *out = value;
        borrow = first || second;
    }
    let close = bit_length(&difference) <= (modulus_bits / 2).saturating_sub(100);
    p_wide.zeroize();
    q_wide.zeroize();
    difference.zeroize();
    close
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bits_are_counted_without_leading_zeros() {
        assert_eq!(bit_length(&[]), 0);
        assert_eq!(bit_length(&[0, 0]), 0);
        assert_eq!(bit_length(&[0, 1]), 1);
        assert_eq!(bit_length(&[0x80, 0]), 16);
    }

    #[test]
    fn closeness_is_the_bound_of_the_standard() {
        // 1024-bit "primes" of a 2048-bit modulus: the bound is a difference of 924 bits.
        let p = [0xff_u8; 128];
        let mut q = p;
        q[127] = 0;
        assert!(primes_are_close(&p, &q, 2048));
        // Bit 923 (counted from 0) is in byte 127 - 115 = 12, value 0x08: a 924-bit difference.
        let mut q = p;
        q[12] = 0xf7;
        assert!(primes_are_close(&p, &q, 2048));
        let mut q = p;
        q[12] = 0xef;
        assert!(!primes_are_close(&p, &q, 2048));
        assert!(!primes_are_close(&p, &[1], 2048));
    }

    #[test]
    fn exponents_outside_the_range_are_unusable() {
        for e in [
            &[][..],
            &[0],
            &[1],
            &[2],
            &[1, 0, 0, 0, 0],
            &[0x02, 0, 0, 0, 1],
        ] {
            assert!(
                matches!(exponent(e), Err(KeyError::ExponentUnusable)),
                "{e:?}"
            );
        }
        assert_eq!(exponent(&[3]).ok(), Some(3));
        assert_eq!(exponent(&[1, 0, 1]).ok(), Some(65_537));
        assert_eq!(exponent(&[1, 0, 0, 0, 1]).ok(), Some(0x1_0000_0001));
    }
}
