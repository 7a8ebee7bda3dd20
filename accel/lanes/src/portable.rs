//! The portable twin: eight lanes as an array. It is what the kernels mean, and what they are tested against.

use crate::token::Portable;
use crate::vector::{Kernel, LANES, Row, Vector};

/// Eight lanes without any vector instruction.
#[derive(Clone, Copy)]
pub(crate) struct Lanes([u64; LANES]);

const LOW_52: u64 = (1 << 52) - 1;

/// Runs a kernel over arrays.
pub(crate) fn run<K: Kernel>(token: Portable, kernel: K) -> K::Output {
    kernel.run::<Lanes>(token)
}

/// The 104-bit product of the low 52 bits.
#[inline(always)]
fn product(a: u64, b: u64) -> u128 {
    u128::from(a & LOW_52) * u128::from(b & LOW_52)
}

/// Applies `f` to each pair of lanes.
#[inline(always)]
fn zip(a: Lanes, b: Lanes, f: impl Fn(u64, u64) -> u64) -> Lanes {
    let mut result = a;
    for (lane, other) in result.0.iter_mut().zip(b.0) {
        *lane = f(*lane, other);
    }
    result
}

/// All ones where `set`, without a branch.
#[inline(always)]
fn spread(mask: u8, lane: usize) -> u64 {
    u64::from((mask >> lane) & 1).wrapping_neg()
}

// Nothing here is inlined: a kernel's body is hundreds of these calls, each eight lanes long, and spelling them all out
// takes the compiler minutes for code that only tests run.
impl Vector for Lanes {
    type Token = Portable;
    type Mask = u8;

    #[inline(never)]
    fn call<K: Kernel>(token: Portable, kernel: K) -> K::Output {
        kernel.run::<Self>(token)
    }

    #[inline(never)]
    fn splat(_: Portable, value: u64) -> Self {
        Self([value; LANES])
    }

    #[inline(never)]
    fn load(_: Portable, row: &Row) -> Self {
        Self(row.0)
    }

    #[inline(never)]
    fn store(self, row: &mut Row) {
        row.0 = self.0;
    }

    #[inline(never)]
    #[expect(
        clippy::cast_possible_truncation,
        reason = "the low 52 bits are what is asked for"
    )]
    fn madd52lo(self, a: Self, b: Self) -> Self {
        let low = zip(a, b, |a, b| product(a, b) as u64 & LOW_52);
        zip(self, low, u64::wrapping_add)
    }

    #[inline(never)]
    #[expect(
        clippy::cast_possible_truncation,
        reason = "a 104-bit product shifted by 52 fits"
    )]
    fn madd52hi(self, a: Self, b: Self) -> Self {
        let high = zip(a, b, |a, b| (product(a, b) >> 52) as u64);
        zip(self, high, u64::wrapping_add)
    }

    #[inline(never)]
    fn add(self, other: Self) -> Self {
        zip(self, other, u64::wrapping_add)
    }

    #[inline(never)]
    fn sub(self, other: Self) -> Self {
        zip(self, other, u64::wrapping_sub)
    }

    #[inline(never)]
    fn and(self, other: Self) -> Self {
        zip(self, other, |a, b| a & b)
    }

    #[inline(never)]
    fn or(self, other: Self) -> Self {
        zip(self, other, |a, b| a | b)
    }

    #[inline(never)]
    fn xor(self, other: Self) -> Self {
        zip(self, other, |a, b| a ^ b)
    }

    #[inline(never)]
    fn shr<const K: u32>(self) -> Self {
        zip(self, self, |a, _| a >> K)
    }

    #[inline(never)]
    fn sar<const K: u32>(self) -> Self {
        zip(self, self, |a, _| (a.cast_signed() >> K).cast_unsigned())
    }

    #[inline(never)]
    fn shl<const K: u32>(self) -> Self {
        zip(self, self, |a, _| a << K)
    }

    #[inline(never)]
    fn shr_by(self, bits: u32) -> Self {
        zip(self, self, |a, _| a.wrapping_shr(bits))
    }

    #[inline(never)]
    fn eq(self, other: Self) -> u8 {
        let mut mask = 0;
        for (lane, (a, b)) in self.0.into_iter().zip(other.0).enumerate() {
            mask |= u8::from(a == b) << lane;
        }
        mask
    }

    #[inline(never)]
    fn lt(self, other: Self) -> u8 {
        let mut mask = 0;
        for (lane, (a, b)) in self.0.into_iter().zip(other.0).enumerate() {
            mask |= u8::from(a < b) << lane;
        }
        mask
    }

    #[inline(never)]
    fn select(mask: u8, set: Self, clear: Self) -> Self {
        let mut result = clear;
        for (lane, (value, set)) in result.0.iter_mut().zip(set.0).enumerate() {
            *value ^= (*value ^ set) & spread(mask, lane);
        }
        result
    }

    #[inline(never)]
    fn bits(mask: u8) -> u8 {
        mask
    }

    #[inline(never)]
    fn permute2(index: Self, low: Self, high: Self) -> Self {
        let mut result = [0; LANES];
        for (value, index) in result.iter_mut().zip(index.0) {
            for (entry, candidate) in (0u64..).zip(low.0.into_iter().chain(high.0)) {
                *value |= candidate & u64::from(entry == index & 15).wrapping_neg();
            }
        }
        Self(result)
    }

    #[inline(never)]
    fn permute(self, index: Self) -> Self {
        Self::permute2(zip(index, index, |a, _| a & 7), self, self)
    }
}
