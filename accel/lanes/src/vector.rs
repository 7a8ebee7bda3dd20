//! Eight 64-bit lanes: what an algorithm may ask of a vector, and how it gets to run on the right one.
//!
//! An algorithm is written once, generic over [`Vector`], as the body of a [`Kernel`]. [`run`] instantiates it twice:
//! over `[u64; 8]` ([`crate::portable`]) and over 512-bit registers inside one function compiled for AVX-512 IFMA
//! ([`crate::avx512`]). Everything between `run` and the instructions is `#[inline(always)]`, so that no call
//! boundary remains inside the function that has the feature.
//!
//! **A value is a proof.** The functions that create a vector from nothing (`splat`, `load`) take the path's token; all
//! others take a vector. So a vector of the AVX-512 type exists only where its instructions exist, and every method is
//! safe to call.

use zeroize::DefaultIsZeroes;

use crate::token::Path;

/// Lanes in a vector: operations that run side by side.
pub const LANES: usize = 8;

/// One digit of eight numbers, as it lies in memory: lane `l` belongs to number `l`. Aligned for one 512-bit access.
///
/// `Debug` shows no value: rows hold secrets.
#[derive(Clone, Copy, PartialEq, Eq, Default)]
#[repr(C, align(64))]
pub struct Row(pub [u64; LANES]);

impl Row {
    /// All lanes zero.
    pub const ZERO: Self = Self([0; LANES]);

    /// All lanes `value`.
    #[must_use]
    pub const fn splat(value: u64) -> Self {
        Self([value; LANES])
    }
}

impl core::fmt::Debug for Row {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("Row(..)")
    }
}

/// Rows are wiped whole.
impl DefaultIsZeroes for Row {}

/// Eight unsigned 64-bit lanes. All arithmetic is lane by lane and wraps modulo 2^64; no method branches on a value.
pub trait Vector: Copy {
    /// What proves that this type's instructions exist here.
    type Token: Copy;
    /// One bit a lane, from a comparison.
    type Mask: Copy;

    /// Runs a kernel in a function of its own: for what is used in many places and does not sit in the innermost loop.
    /// Inlined everywhere, it would cost the compiler minutes and the processor its instruction cache.
    fn call<K: Kernel>(token: Self::Token, kernel: K) -> K::Output;

    /// Every lane `value`.
    fn splat(token: Self::Token, value: u64) -> Self;
    /// Reads a row.
    fn load(token: Self::Token, row: &Row) -> Self;
    /// Writes a row.
    fn store(self, row: &mut Row);

    /// `self + (a[51:0] * b[51:0])[51:0]`: the low half of the 104-bit product. Bits 52 and up of `a`, `b` are ignored.
    #[must_use]
    fn madd52lo(self, a: Self, b: Self) -> Self;
    /// `self + (a[51:0] * b[51:0])[103:52]`: the high half of the 104-bit product.
    #[must_use]
    fn madd52hi(self, a: Self, b: Self) -> Self;

    /// `self + other`.
    #[must_use]
    fn add(self, other: Self) -> Self;
    /// `self - other`.
    #[must_use]
    fn sub(self, other: Self) -> Self;
    /// Bitwise and.
    #[must_use]
    fn and(self, other: Self) -> Self;
    /// Bitwise or.
    #[must_use]
    fn or(self, other: Self) -> Self;
    /// Bitwise exclusive or.
    #[must_use]
    fn xor(self, other: Self) -> Self;
    /// Logical shift right by the constant `K` (0..=63).
    #[must_use]
    fn shr<const K: u32>(self) -> Self;
    /// Arithmetic shift right by the constant `K` (0..=63): the lane's top bit is copied.
    #[must_use]
    fn sar<const K: u32>(self) -> Self;
    /// Shift left by the constant `K` (0..=63).
    #[must_use]
    fn shl<const K: u32>(self) -> Self;

    /// Logical shift right of all lanes by `bits` (0..=63), a public number.
    #[must_use]
    fn shr_by(self, bits: u32) -> Self;

    /// Which lanes are equal.
    fn eq(self, other: Self) -> Self::Mask;
    /// Which lanes of `self` are below `other`, unsigned.
    fn lt(self, other: Self) -> Self::Mask;
    /// Lanes of `set` where the mask has a one, lanes of `clear` elsewhere.
    #[must_use]
    fn select(mask: Self::Mask, set: Self, clear: Self) -> Self;
    /// The mask as bits, lane 0 lowest.
    fn bits(mask: Self::Mask) -> u8;

    /// Lane `l` becomes entry `index[l] & 15` of the sixteen lanes of `low` then `high`: a lookup whose time and
    /// memory accesses do not depend on the index.
    #[must_use]
    fn permute2(index: Self, low: Self, high: Self) -> Self;
    /// Lane `l` becomes lane `index[l] & 7` of `self`.
    #[must_use]
    fn permute(self, index: Self) -> Self;
}

/// An algorithm with its arguments, ready to run over any vector.
///
/// Implementations mark `run` and everything generic below it `#[inline(always)]`, and avoid closures over vectors:
/// what is not inlined is compiled without the feature, and slow.
pub trait Kernel {
    /// What the algorithm returns.
    type Output;
    /// The algorithm.
    fn run<V: Vector>(self, token: V::Token) -> Self::Output;
}

/// Runs a kernel on the path chosen at start.
#[inline]
pub fn run<K: Kernel>(path: Path, kernel: K) -> K::Output {
    match path {
        #[cfg(target_arch = "x86_64")]
        Path::Ifma(token) => crate::avx512::run(token, kernel),
        #[cfg(not(target_arch = "x86_64"))]
        Path::Ifma(_) => crate::portable::run(crate::token::Portable, kernel),
        Path::Portable(token) => crate::portable::run(token, kernel),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oracle::cases;

    /// Every method of the trait over three rows, gathered so that two paths can be compared.
    struct Every<'a>(&'a [Row; 3]);

    impl Kernel for Every<'_> {
        type Output = (Vec<Row>, [u8; 2]);

        #[inline(always)]
        fn run<V: Vector>(self, token: V::Token) -> Self::Output {
            let [a, b, c] = self.0;
            let (a, b, c) = (V::load(token, a), V::load(token, b), V::load(token, c));
            let (eq, lt) = (
                a.and(V::splat(token, 1)).eq(b.and(V::splat(token, 1))),
                a.lt(b),
            );
            let results = [
                a.madd52lo(b, c),
                a.madd52hi(b, c),
                a.add(b),
                a.sub(b),
                a.and(b),
                a.or(b),
                a.xor(b),
                a.shr::<52>(),
                a.sar::<52>(),
                a.shl::<12>(),
                V::select(eq, a, b),
                V::select(lt, a, b),
                V::permute2(c, a, b),
                a.permute(c),
                a.shr_by(13),
            ];
            let mut rows = Vec::new();
            for result in results {
                let mut row = Row::ZERO;
                result.store(&mut row);
                rows.push(row);
            }
            (rows, [V::bits(eq), V::bits(lt)])
        }
    }

    #[test]
    fn the_portable_vector_says_what_each_method_means() {
        let a = Row([u64::MAX, 1 << 63, 3, 4, 5, 6, 7, 8]);
        let b = Row([(1 << 52) - 1, 2, 3, 1, 0, 1 << 51, 9, u64::MAX]);
        let c = Row([(1 << 52) - 1, 15, 8, 7, 0, 2, 1, 1 << 52]);
        let (rows, [eq, lt]) = run(Path::portable(), Every(&[a, b, c]));
        // (2^52-1)^2 = 2^104 - 2^53 + 1: low half 1, high half 2^52 - 2.
        assert_eq!(rows[0].0, [0, (1 << 63) + 30, 27, 11, 5, 6, 16, 8]);
        assert_eq!(rows[1].0[0], (1u64 << 52) - 3);
        assert_eq!(rows[1].0[5], 6 + 1);
        assert_eq!(rows[8].0[1], u64::MAX << 11);
        assert_eq!(
            rows[12].0,
            [
                u64::MAX,
                u64::MAX,
                b.0[0],
                8,
                u64::MAX,
                3,
                1 << 63,
                u64::MAX
            ]
        );
        assert_eq!(eq, 0b0110_0111);
        assert_eq!(lt, 0b1110_0000);
    }

    #[test]
    fn every_path_agrees_with_the_portable_one() {
        // A multiplicative generator is enough here: the point is to touch all bits of all lanes.
        let mut state = 0x9e37_79b9_7f4a_7c15_u64;
        for round in 0..cases(16_000) / LANES {
            let mut rows = [Row::ZERO; 3];
            for lane in rows.iter_mut().flat_map(|row| row.0.iter_mut()) {
                state = state
                    .wrapping_mul(0x5851_f42d_4c95_7f2d)
                    .wrapping_add(0x1405_7b7e_f767_814f);
                *lane = (state ^ (state >> 29)) >> (round % 64);
            }
            let expected = run(Path::portable(), Every(&rows));
            for path in Path::all() {
                assert_eq!(run(path, Every(&rows)), expected, "{}", path.name());
            }
        }
    }
}
