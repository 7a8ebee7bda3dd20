//! The naive arithmetic that kernels are tested against: big numbers as on paper, sixteen bits of the quotient at a time.

#[cfg(test)]
use crate::vector::LANES;
use crate::vector::Row;

/// A number in base 2^32, lowest digit first.
pub(crate) type Number = Vec<u64>;

/// The number in one lane of rows of 52-bit digits.
///
/// # Panics
///
/// Where a digit is longer.
pub(crate) fn number(rows: &[Row], lane: usize) -> Number {
    let mut limbs = vec![0_u64; (rows.len() * 52).div_ceil(32) + 1];
    for (i, row) in rows.iter().enumerate() {
        assert!(
            row.0[lane] < 1 << 52,
            "digit {i} of lane {lane} is not normalised"
        );
        for bit in 0..52 {
            limbs[(52 * i + bit) / 32] |= ((row.0[lane] >> bit) & 1) << ((52 * i + bit) % 32);
        }
    }
    limbs
}

/// `a b`.
pub(crate) fn product(a: &[u64], b: &[u64]) -> Number {
    let mut product = vec![0_u64; a.len() + b.len()];
    for (i, a) in a.iter().enumerate() {
        let mut carry = 0;
        for (j, b) in b
            .iter()
            .chain(core::iter::repeat_n(&0, product.len() - i - b.len()))
            .enumerate()
        {
            let sum = product[i + j] + a * b + carry;
            product[i + j] = sum & 0xffff_ffff;
            carry = sum >> 32;
        }
    }
    product
}

/// `a + b`, as long as `a`.
pub(crate) fn sum(a: &[u64], b: &[u64]) -> Number {
    let mut carry = 0;
    let digits = a.iter().zip(b.iter().chain(core::iter::repeat(&0)));
    digits
        .map(|(a, b)| {
            let digit = a + b + carry;
            carry = digit >> 32;
            digit & 0xffff_ffff
        })
        .collect()
}

/// `wide / 2^bits` modulo the odd `m`: adds the multiple of `m` that clears the low 16 bits, then drops them.
pub(crate) fn reduce(wide: &[u64], m: &[u64], bits: usize) -> Number {
    // The multiple is unique, so the result is the very number every Montgomery reduction finds, not just a congruent one.
    let inverse = (0..1 << 16)
        .find(|x| (x * m[0] + 1).is_multiple_of(1 << 16))
        .unwrap_or(0);
    let mut rest = wide.to_vec();
    rest.resize(wide.len().max(m.len()) + 2, 0);
    let (steps, last) = (bits / 16, bits % 16);
    for width in core::iter::repeat_n(16, steps).chain((last > 0).then_some(last)) {
        let mask = (1 << width) - 1;
        let word = (rest[0] * inverse) & mask;
        let mut carry = 0;
        for (i, limb) in rest.iter_mut().enumerate() {
            let sum = *limb + word * m.get(i).unwrap_or(&0) + carry;
            *limb = sum & 0xffff_ffff;
            carry = sum >> 32;
        }
        for i in 0..rest.len() {
            let above = rest.get(i + 1).map_or(0, |limb| limb & mask);
            rest[i] = (rest[i] >> width) | (above << (32 - width));
        }
    }
    rest
}

/// Whether two numbers of any length are equal.
pub(crate) fn same(a: &[u64], b: &[u64]) -> bool {
    let len = a.len().max(b.len());
    (0..len).all(|i| a.get(i).unwrap_or(&0) == b.get(i).unwrap_or(&0))
}

/// Whether `a < b`.
pub(crate) fn below(a: &[u64], b: &[u64]) -> bool {
    let len = a.len().max(b.len());
    let digit = |number: &[u64], i: usize| number.get(i).copied().unwrap_or(0);
    let differs = (0..len).rev().find(|i| digit(a, *i) != digit(b, *i));
    differs.is_some_and(|i| digit(a, i) < digit(b, i))
}

/// How many random inputs a test takes that takes fewer in an ordinary run; `LANES_CASES=100000` is the long run.
///
/// # Panics
///
/// Where the variable holds no number: a long run that silently was a short one would prove nothing.
#[cfg(test)]
pub(crate) fn cases(ordinary: usize) -> usize {
    std::env::var("LANES_CASES").map_or(ordinary, |cases| {
        cases.parse().expect("LANES_CASES is a number of inputs")
    })
}

/// Test numbers from a seed (the generator is xorshift64*; its quality does not matter here).
#[cfg(test)]
pub(crate) struct Random(pub(crate) u64);

#[cfg(test)]
impl Random {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// Eight numbers of `N` digits and at most `bits` bits; every fourth digit or so is all zeros or all ones.
    pub(crate) fn rows<const N: usize>(&mut self, bits: usize) -> [Row; N] {
        let mut rows = [Row::ZERO; N];
        for (i, row) in rows.iter_mut().enumerate() {
            let room = bits.saturating_sub(52 * i).min(52);
            for lane in 0..LANES {
                let digit = match self.next() % 16 {
                    0 => 0,
                    1..=3 => u64::MAX,
                    _ => self.next(),
                };
                row.0[lane] = digit & ((1 << room) - 1);
            }
        }
        rows
    }
}
