//! One number as digits of 52 bits, the lowest first, and the scalar arithmetic that prepares constants.
//!
//! Constants are made once per key; clarity counts more than speed here. The moduli are secret primes, so nothing
//! branches on a digit.

use zeroize::{Zeroize, ZeroizeOnDrop};

use crate::blocks::DIGIT_MASK;

/// Bits of a digit.
pub(crate) const DIGIT_BITS: usize = 52;

/// Splits a big-endian number into `len` groups of `bits` bits (at most 60). Higher bits that do not fit are dropped.
pub(crate) fn split(number: &[u8], bits: usize, len: usize) -> Vec<u64> {
    let mut digits = vec![0; len];
    split_into(number, bits, digits.iter_mut());
    digits
}

/// The same into digits that lie wherever they lie. Takes the number a word of 64 bits at a time.
pub(crate) fn split_into<'a>(
    number: &[u8],
    bits: usize,
    digits: impl Iterator<Item = &'a mut u64>,
) {
    let mask = (1 << bits) - 1;
    let (mut pending, mut held) = (0_u128, 0);
    let mut words = number.rchunks(8);
    for digit in digits {
        if held < bits {
            pending |= u128::from(words.next().map_or(0, be_word)) << held;
            held += 64;
        }
        *digit = low_word(pending) & mask;
        pending >>= bits;
        held -= bits;
    }
    pending.zeroize();
}

/// Writes digits of 52 bits as a big-endian number, modulo 2^(8 len).
pub(crate) fn join(digits: impl Iterator<Item = u64>, out: &mut [u8]) {
    let mut digits = digits;
    let (mut pending, mut held) = (0_u128, 0);
    for bytes in out.rchunks_mut(8) {
        while held < 64 {
            pending |= u128::from(digits.next().unwrap_or(0)) << held;
            held += DIGIT_BITS;
        }
        let word = low_word(pending).to_be_bytes();
        bytes.copy_from_slice(&word[8 - bytes.len()..]);
        pending >>= 64;
        held -= 64;
    }
    pending.zeroize();
}

/// At most eight bytes, big endian.
fn be_word(bytes: &[u8]) -> u64 {
    <[u8; 8]>::try_from(bytes).map_or_else(
        |_| {
            bytes
                .iter()
                .fold(0, |word, byte| word << 8 | u64::from(*byte))
        },
        u64::from_be_bytes,
    )
}

#[expect(
    clippy::cast_possible_truncation,
    reason = "the low word is what is asked for"
)]
const fn low_word(number: u128) -> u64 {
    number as u64
}

/// An odd modulus and its Montgomery constants, R being 2^(52 len).
#[derive(Zeroize, ZeroizeOnDrop)]
pub(crate) struct Modulus {
    /// The modulus.
    pub(crate) digits: Vec<u64>,
    /// `-1 / modulus` modulo 2^52.
    pub(crate) k0: u64,
    /// R modulo the modulus: one, encoded.
    pub(crate) one: Vec<u64>,
    /// R^2 modulo the modulus.
    pub(crate) rr: Vec<u64>,
}

impl Modulus {
    /// `None` unless the modulus is odd, has exactly `bits` bits, and leaves two bits of its `len` digits free.
    pub(crate) fn new(modulus: &[u8], bits: usize, len: usize) -> Option<Self> {
        let odd = modulus.last().is_some_and(|byte| byte % 2 == 1);
        let exact = modulus.len() == bits / 8 && modulus.first().is_some_and(|byte| byte >> 7 == 1);
        if !odd || !exact || !bits.is_multiple_of(8) || bits + 2 > DIGIT_BITS * len {
            return None;
        }
        let digits = split(modulus, DIGIT_BITS, len);
        let k0 = negative_inverse(digits[0]);
        let mut this = Self {
            digits,
            k0,
            one: Vec::new(),
            rr: Vec::new(),
        };
        // 2^bits - m is 2^bits modulo m, because m has its top bit set; doubling leads from there to R and on.
        let mut value = this.complement(bits);
        for _ in bits..DIGIT_BITS * len {
            this.double(&mut value);
        }
        this.one.clone_from(&value);
        // R 2^h, squared s times, is R 2^(h 2^s): choose h 2^s = 52 len.
        let squarings = (DIGIT_BITS * len).trailing_zeros();
        for _ in 0..(DIGIT_BITS * len) >> squarings {
            this.double(&mut value);
        }
        for _ in 0..squarings {
            value = this.multiply(&value, &value);
        }
        this.rr = value;
        Some(this)
    }

    /// 2^bits minus the modulus.
    fn complement(&self, bits: usize) -> Vec<u64> {
        let mut value = vec![0; self.digits.len()];
        if let Some(top) = value.get_mut(bits / DIGIT_BITS) {
            *top = 1 << (bits % DIGIT_BITS);
        }
        self.subtract_if_not_below(&mut value);
        value
    }

    /// `value = 2 value` modulo the modulus, for a canonical value.
    fn double(&self, value: &mut [u64]) {
        let mut carry = 0;
        for digit in value.iter_mut() {
            let sum = 2 * *digit + carry;
            *digit = sum & DIGIT_MASK;
            carry = sum >> DIGIT_BITS;
        }
        self.subtract_if_not_below(value);
    }

    /// Subtracts the modulus once where the value is not below it.
    pub(crate) fn subtract_if_not_below(&self, value: &mut [u64]) {
        let mut difference = subtract(value, &self.digits);
        // The top digit of a negative difference has its sign above the digit.
        let below = difference.1.wrapping_neg();
        for (digit, other) in value.iter_mut().zip(&difference.0) {
            *digit = (*digit & below) | (*other & !below);
        }
        difference.0.zeroize();
    }

    /// `a b / R`, canonical, for factors below twice the modulus.
    pub(crate) fn multiply(&self, a: &[u64], b: &[u64]) -> Vec<u64> {
        let len = self.digits.len();
        let mut sum = vec![0_u128; len + 1];
        for digit in b {
            for (sum, a) in sum.iter_mut().zip(a) {
                *sum += u128::from(*a) * u128::from(*digit);
            }
            let low = u64::try_from(sum[0] & u128::from(DIGIT_MASK)).unwrap_or(0);
            let quotient = low.wrapping_mul(self.k0) & DIGIT_MASK;
            for (sum, m) in sum.iter_mut().zip(&self.digits) {
                *sum += u128::from(*m) * u128::from(quotient);
            }
            // Column 0 is a multiple of 2^52: it leaves, its carry stays.
            let carry = sum[0] >> DIGIT_BITS;
            sum.rotate_left(1);
            sum[len] = 0;
            sum[0] += carry;
        }
        let mut result = Vec::with_capacity(len);
        let mut carry = 0_u128;
        for sum in &mut sum[..len] {
            let digit = *sum + carry;
            result.push(u64::try_from(digit & u128::from(DIGIT_MASK)).unwrap_or(0));
            carry = digit >> DIGIT_BITS;
        }
        sum.zeroize();
        self.subtract_if_not_below(&mut result);
        result
    }
}

/// `a - b` modulo 2^(52 len), and 1 if that wrapped, else 0.
pub(crate) fn subtract(a: &[u64], b: &[u64]) -> (Vec<u64>, u64) {
    let mut borrow = 0;
    let mut difference = Vec::with_capacity(a.len());
    for (a, b) in a.iter().zip(b) {
        let digit = a.wrapping_sub(*b).wrapping_sub(borrow);
        difference.push(digit & DIGIT_MASK);
        borrow = digit >> 63;
    }
    (difference, borrow)
}

/// `-1 / m` modulo 2^52 for an odd `m`, by Newton's iteration: each round doubles the number of right bits.
fn negative_inverse(m: u64) -> u64 {
    // m m = 1 modulo 8, so m is its own inverse to three bits.
    let mut inverse = m;
    for _ in 0..5 {
        inverse = inverse.wrapping_mul(2_u64.wrapping_sub(m.wrapping_mul(inverse)));
    }
    inverse.wrapping_neg() & DIGIT_MASK
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Bit by bit, which is how one would define it.
        #[test]
        fn digits_are_groups_of_bits(number in prop::collection::vec(any::<u8>(), 0..70), bits in 1..=60_usize) {
            let len = (8 * number.len()).div_ceil(bits) + 2;
            let bit = |i: usize| {
                let byte = number.iter().rev().nth(i / 8).copied().unwrap_or(0);
                u64::from(byte >> (i % 8) & 1)
            };
            let digits = split(&number, bits, len);
            for (i, digit) in digits.iter().enumerate() {
                let expected = (0..bits).fold(0, |sum, k| sum | bit(i * bits + k) << k);
                prop_assert_eq!(*digit, expected);
            }
        }

        #[test]
        fn joining_undoes_splitting(number in prop::collection::vec(any::<u8>(), 0..70)) {
            let digits = split(&number, DIGIT_BITS, (8 * number.len()).div_ceil(DIGIT_BITS));
            let mut again = vec![0xee; number.len()];
            join(digits.into_iter(), &mut again);
            prop_assert_eq!(again, number);
        }
    }
}
