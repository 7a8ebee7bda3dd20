//! Two inversions in constant time: one modulo the field's prime, one modulo the order.
//!
//! The algorithm is Bernstein and Yang's ("Fast constant-time gcd computation and modular inversion", 2019) in the
//! variant that starts with delta = 1/2, which needs `(45907 b + 26313) / 19929` steps for numbers of `b` bits (proven
//! in Hvass, Aranha, Spitters, "High-assurance field inversion for curve-based cryptography", 2021): 591 for 256 bits,
//! 885 for 384. Steps are gathered in a matrix of 62-bit
//! numbers and applied to the long numbers a batch at a time.
//!
//! A step is a chain of dependent instructions; the processor has room for two chains, so both inversions advance in
//! the same loop. Nothing branches on a value, and every loop has a fixed length.

use zeroize::Zeroize;

use super::prime::{DIGIT_BITS, DIGIT_MASK, Prime};

/// Bits in a limb of the long numbers; limbs are signed.
const LIMB_BITS: usize = 62;
const LIMB_MASK: i64 = (1 << LIMB_BITS) - 1;

/// A number in signed limbs: five for 256 bits, seven for 384.
type Long<const L: usize> = [i64; L];

/// Steps in a batch: as many as a limb has bits, less two, in two halves.
const STEPS: usize = 60;
/// Batches for 256 bits: 600 steps, of which 591 are needed.
pub(crate) const BATCHES_256: usize = 10;
/// Batches for 384 bits: 900 steps, of which 885 are needed.
pub(crate) const BATCHES_384: usize = 15;

/// What a batch of steps does to `(f, g)`, times `2^62`: `f' = u f + v g`, `g' = q f + r g`.
#[derive(Clone, Copy, Debug)]
struct Matrix {
    u: i64,
    v: i64,
    q: i64,
    r: i64,
}

/// One inversion under way: `f = d x` and `g = e x` modulo the modulus, up to powers of two.
#[derive(Debug)]
struct Inversion<const L: usize> {
    modulus: Long<L>,
    /// `1 / modulus mod 2^62`.
    modulus_inverse: i64,
    zeta: i64,
    f: Long<L>,
    g: Long<L>,
    d: Long<L>,
    e: Long<L>,
}

impl<const L: usize> Drop for Inversion<L> {
    fn drop(&mut self) {
        for long in [&mut self.f, &mut self.g, &mut self.d, &mut self.e] {
            long.zeroize();
        }
    }
}

/// `1 / values[0] mod P` and `1 / values[1] mod Q`, for plain numbers below the primes; the inverse of zero is zero.
/// `L` limbs of 62 bits must hold the primes and a sign.
pub(crate) fn invert_both<P: Prime<N>, Q: Prime<N>, const N: usize, const L: usize>(
    batches: usize,
    values: [&[u64; N]; 2],
) -> [[u64; N]; 2] {
    let mut states = [
        Inversion::<L>::new(&P::MODULUS, values[0]),
        Inversion::<L>::new(&Q::MODULUS, values[1]),
    ];
    for _ in 0..batches {
        let matrices = advance(&mut states);
        for (state, matrix) in states.iter_mut().zip(&matrices) {
            state.apply(matrix);
        }
    }
    let [first, second] = &mut states;
    [first.finish(), second.finish()]
}

/// [`STEPS`] divsteps of both numbers, decided by their lowest limbs alone.
fn advance<const L: usize>(states: &mut [Inversion<L>; 2]) -> [Matrix; 2] {
    let [first, second] = states;
    let mut a = Steps::new(first);
    let mut b = Steps::new(second);
    let halves = [0; 2].map(|_| {
        for _ in 0..STEPS / 2 {
            a.step();
            b.step();
        }
        [a.take_matrix(), b.take_matrix()]
    });
    first.zeta = a.zeta;
    second.zeta = b.zeta;
    let [[a, b], [a_then, b_then]] = halves;
    [a.followed_by(&a_then), b.followed_by(&b_then)]
}

/// The registers of one chain. Two entries of the matrix share a register, as the number `u + 2^32 v`: every operation
/// below is linear, so it does to the sum what it would do to the parts, and parts of at most 2^30 come apart again.
struct Steps {
    zeta: i64,
    f: i64,
    g: i64,
    uv: i64,
    qr: i64,
}

impl Steps {
    const fn new<const L: usize>(state: &Inversion<L>) -> Self {
        Self {
            zeta: state.zeta,
            f: state.f[0],
            g: state.g[0],
            uv: 1,
            qr: 1 << 32,
        }
    }

    /// If `zeta < 0` and `g` is odd, `(f, g)` becomes `(g, (g - f) / 2)`; otherwise `(f, (g + f) / 2)` or `(f, g / 2)`,
    /// whichever is whole. All three are computed as one, with masks. The matrix grows by a factor of 2 instead.
    #[inline(always)]
    const fn step(&mut self) {
        let below = self.zeta >> 63;
        let odd = (self.g & 1).wrapping_neg();
        // plus or minus (f, u, v), added to (g, q, r) where g is odd
        let x = (self.f ^ below).wrapping_sub(below);
        let y = (self.uv ^ below).wrapping_sub(below);
        self.g = self.g.wrapping_add(x & odd);
        self.qr = self.qr.wrapping_add(y & odd);
        // (f, u, v) becomes the old (g, q, r), which is the sum of both, where the roles change
        let swap = below & odd;
        self.zeta = (self.zeta ^ swap).wrapping_sub(1);
        self.f = self.f.wrapping_add(self.g & swap);
        self.uv = self.uv.wrapping_add(self.qr & swap);
        self.g >>= 1;
        self.uv = self.uv.wrapping_shl(1);
    }

    /// The matrix of the steps so far, times two to their number; the next ones start from the identity.
    const fn take_matrix(&mut self) -> Matrix {
        let (u, v) = apart(self.uv);
        let (q, r) = apart(self.qr);
        self.uv = 1;
        self.qr = 1 << 32;
        Matrix { u, v, q, r }
    }
}

/// The parts of `low + 2^32 high`, each less than 2^31 in size.
#[expect(
    clippy::cast_possible_truncation,
    reason = "the low half, with its sign, is what is asked for"
)]
const fn apart(pair: i64) -> (i64, i64) {
    let low = pair as i32 as i64;
    (low, pair.wrapping_sub(low) >> 32)
}

impl Matrix {
    /// Both halves of a batch as one, times `2^62`: each half is times `2^30`.
    const fn followed_by(&self, then: &Self) -> Self {
        const SCALE: i64 = 1 << (LIMB_BITS - STEPS);
        Self {
            u: (then.u * self.u + then.v * self.q) * SCALE,
            v: (then.u * self.v + then.v * self.r) * SCALE,
            q: (then.q * self.u + then.r * self.q) * SCALE,
            r: (then.q * self.v + then.r * self.r) * SCALE,
        }
    }
}

impl<const L: usize> Inversion<L> {
    fn new<const N: usize>(modulus: &[u64; N], value: &[u64; N]) -> Self {
        let modulus: Long<L> = to_limbs(modulus);
        let mut inverse = 1i64;
        for _ in 0..6 {
            inverse = inverse.wrapping_mul(2i64.wrapping_sub(modulus[0].wrapping_mul(inverse)));
        }
        let mut one = [0; L];
        one[0] = 1;
        Self {
            modulus,
            modulus_inverse: inverse & LIMB_MASK,
            zeta: -1,
            f: modulus,
            g: to_limbs(value),
            d: [0; L],
            e: one,
        }
    }

    /// Applies a batch to `(f, g)`, exactly, and to `(d, e)`, modulo the modulus.
    fn apply(&mut self, matrix: &Matrix) {
        self.apply_to_coefficients(matrix);
        let Matrix { u, v, q, r } = *matrix;
        let mut f_sum = wide(u, self.f[0]) + wide(v, self.g[0]);
        let mut g_sum = wide(q, self.f[0]) + wide(r, self.g[0]);
        // The low limbs are zero by construction of the matrix.
        f_sum >>= LIMB_BITS;
        g_sum >>= LIMB_BITS;
        for i in 1..L {
            f_sum += wide(u, self.f[i]) + wide(v, self.g[i]);
            g_sum += wide(q, self.f[i]) + wide(r, self.g[i]);
            self.f[i - 1] = low(f_sum) & LIMB_MASK;
            self.g[i - 1] = low(g_sum) & LIMB_MASK;
            f_sum >>= LIMB_BITS;
            g_sum >>= LIMB_BITS;
        }
        self.f[L - 1] = low(f_sum);
        self.g[L - 1] = low(g_sum);
    }

    /// `(d, e)` stay in `-2 p < d < p`: a negative one first gets `p` added through the matrix, then the multiple of
    /// `p` is added that clears the lowest limb.
    fn apply_to_coefficients(&mut self, matrix: &Matrix) {
        let Matrix { u, v, q, r } = *matrix;
        let d_sign = self.d[L - 1] >> 63;
        let e_sign = self.e[L - 1] >> 63;
        let mut d_multiple = (u & d_sign).wrapping_add(v & e_sign);
        let mut e_multiple = (q & d_sign).wrapping_add(r & e_sign);
        let mut d_sum = wide(u, self.d[0]) + wide(v, self.e[0]);
        let mut e_sum = wide(q, self.d[0]) + wide(r, self.e[0]);
        let cleared = |sum: i128, multiple: i64| {
            multiple.wrapping_sub(
                self.modulus_inverse
                    .wrapping_mul(low(sum))
                    .wrapping_add(multiple)
                    & LIMB_MASK,
            )
        };
        d_multiple = cleared(d_sum, d_multiple);
        e_multiple = cleared(e_sum, e_multiple);
        d_sum = (d_sum + wide(self.modulus[0], d_multiple)) >> LIMB_BITS;
        e_sum = (e_sum + wide(self.modulus[0], e_multiple)) >> LIMB_BITS;
        for i in 1..L {
            d_sum += wide(u, self.d[i]) + wide(v, self.e[i]) + wide(self.modulus[i], d_multiple);
            e_sum += wide(q, self.d[i]) + wide(r, self.e[i]) + wide(self.modulus[i], e_multiple);
            self.d[i - 1] = low(d_sum) & LIMB_MASK;
            self.e[i - 1] = low(e_sum) & LIMB_MASK;
            d_sum >>= LIMB_BITS;
            e_sum >>= LIMB_BITS;
        }
        self.d[L - 1] = low(d_sum);
        self.e[L - 1] = low(e_sum);
    }

    /// Now `g = 0` and `f = 1 or -1`: the inverse is `d` times that sign, brought into `0..p`.
    fn finish<const N: usize>(&mut self) -> [u64; N] {
        let sign = self.f[L - 1] >> 63;
        let mut result = self.d;
        self.add_modulus_where(&mut result, self.d[L - 1] >> 63);
        for limb in &mut result {
            *limb = (*limb ^ sign).wrapping_sub(sign);
        }
        carry(&mut result);
        let negative = result[L - 1] >> 63;
        self.add_modulus_where(&mut result, negative);
        let digits = from_limbs(&result);
        result.zeroize();
        digits
    }

    fn add_modulus_where(&self, number: &mut Long<L>, mask: i64) {
        for (limb, modulus) in number.iter_mut().zip(self.modulus) {
            *limb += modulus & mask;
        }
        carry(number);
    }
}

/// Moves the carries up; the top limb keeps the sign.
fn carry<const L: usize>(number: &mut Long<L>) {
    for i in 1..L {
        number[i] += number[i - 1] >> LIMB_BITS;
        number[i - 1] &= LIMB_MASK;
    }
}

const fn wide(a: i64, b: i64) -> i128 {
    a as i128 * b as i128
}

#[expect(
    clippy::cast_possible_truncation,
    reason = "the low bits are what is asked for"
)]
const fn low(sum: i128) -> i64 {
    sum as i64
}

/// From digits of 52 bits to limbs of 62.
fn to_limbs<const N: usize, const L: usize>(digits: &[u64; N]) -> Long<L> {
    let mut limbs = [0u64; L];
    for (i, digit) in digits.iter().enumerate() {
        let (limb, offset) = ((i * DIGIT_BITS) / LIMB_BITS, (i * DIGIT_BITS) % LIMB_BITS);
        limbs[limb] |= (digit << offset) & LIMB_MASK.cast_unsigned();
        if offset + DIGIT_BITS > LIMB_BITS && limb + 1 < L {
            limbs[limb + 1] |= digit >> (LIMB_BITS - offset);
        }
    }
    limbs.map(u64::cast_signed)
}

/// From limbs of 62 bits to digits of 52.
fn from_limbs<const N: usize, const L: usize>(limbs: &Long<L>) -> [u64; N] {
    let mut digits = [0; N];
    for (i, digit) in digits.iter_mut().enumerate() {
        let (limb, offset) = ((i * DIGIT_BITS) / LIMB_BITS, (i * DIGIT_BITS) % LIMB_BITS);
        *digit = limbs[limb].cast_unsigned() >> offset;
        if offset + DIGIT_BITS > LIMB_BITS && limb + 1 < L {
            *digit |= limbs[limb + 1].cast_unsigned() << (LIMB_BITS - offset);
        }
        *digit &= DIGIT_MASK;
    }
    digits
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::curve::{Curve, P256, P384, single::Single};
    use crate::oracle::cases;
    use proptest::prelude::*;

    /// Inverts both ways and multiplies back.
    fn check<C: Curve<N>, const N: usize, const L: usize>(batches: usize, a: [u64; N]) {
        let [p, n] = invert_both::<C::Coordinate, C::Order, N, L>(batches, [&a, &a]);
        let one = |ok: bool| assert!(ok, "{a:x?}");
        one(Single::<C::Coordinate, N>::new(&a).mul(Single::new(&p)) == Single::ONE);
        one(Single::<C::Order, N>::new(&a).mul(Single::new(&n)) == Single::ONE);
    }

    /// Any digits, brought below both primes.
    fn below<const N: usize>(mut digits: [u64; N], top: u64) -> [u64; N] {
        for digit in &mut digits {
            *digit &= DIGIT_MASK;
        }
        digits[N - 1] %= top;
        digits
    }

    #[test]
    fn the_inverse_of_zero_is_zero() {
        let zero = [&[0; 5]; 2];
        let inverses = invert_both::<<P256 as Curve<5>>::Coordinate, <P256 as Curve<5>>::Order, 5, 5>(
            BATCHES_256,
            zero,
        );
        assert_eq!(inverses, [[0; 5]; 2]);
    }

    #[test]
    fn edges_invert() {
        for bit in 0..255 {
            for less in 0..2 {
                let mut a = [0; 5];
                a[bit / 52] = 1 << (bit % 52);
                a[0] |= 1 - less;
                if a != [0; 5] {
                    check::<P256, 5, 5>(BATCHES_256, a);
                }
            }
        }
        for bit in 0..383 {
            let mut a = [0; 8];
            a[bit / 52] = 1 << (bit % 52);
            check::<P384, 8, 7>(BATCHES_384, a);
        }
        for k in 1..200 {
            let mut a = <<P256 as Curve<5>>::Order as Prime<5>>::MODULUS;
            a[0] -= k;
            check::<P256, 5, 5>(BATCHES_256, a);
            let mut a = <<P384 as Curve<8>>::Order as Prime<8>>::MODULUS;
            a[0] -= k;
            check::<P384, 8, 7>(BATCHES_384, a);
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(cases(5_000).try_into().expect("fewer than 2^32")))]

        #[test]
        fn a_number_times_its_inverse_is_one(a in any::<[u64; 5]>(), b in any::<[u64; 8]>()) {
            let a = below(a, 0xffff_ffff_0000);
            if a != [0; 5] {
                check::<P256, 5, 5>(BATCHES_256, a);
            }
            let b = below(b, 0xf_ffff);
            if b != [0; 8] {
                check::<P384, 8, 7>(BATCHES_384, b);
            }
        }
    }
}
