//! Eight lanes in one 512-bit register, over the compiler's stable intrinsics.
//!
//! This file holds all the `unsafe` code of the vector layer, for one reason: an instruction must exist before it runs.
//! [`Lanes512`] is private to hold and only made from an [`Ifma`] token, which only detection hands out, so wherever
//! a method below has a `self`, the instructions exist.
#![expect(
    unsafe_code,
    reason = "vector instructions need a feature that the compiler cannot see; the token proves it"
)]

use core::arch::x86_64::{
    __m512i, __mmask8, _mm512_add_epi64, _mm512_and_si512, _mm512_cmpeq_epu64_mask,
    _mm512_cmplt_epu64_mask, _mm512_load_si512, _mm512_madd52hi_epu64, _mm512_madd52lo_epu64,
    _mm512_mask_blend_epi64, _mm512_or_si512, _mm512_permutex2var_epi64, _mm512_permutexvar_epi64,
    _mm512_set1_epi64, _mm512_slli_epi64, _mm512_srai_epi64, _mm512_srli_epi64, _mm512_srlv_epi64,
    _mm512_store_si512, _mm512_sub_epi64, _mm512_xor_si512,
};
use core::ptr;

use crate::token::Ifma;
use crate::vector::{Kernel, Row, Vector};

/// Eight lanes in a register. Exists only where AVX-512 IFMA does.
#[derive(Clone, Copy)]
#[repr(transparent)]
pub(crate) struct Lanes512(__m512i);

/// Runs a kernel over 512-bit registers.
#[inline]
pub(crate) fn run<K: Kernel>(token: Ifma, kernel: K) -> K::Output {
    // SAFETY: the token was handed out by detection, so the CPU has the features `enter` is compiled for.
    unsafe { enter(token, kernel) }
}

/// The one function compiled for the feature; kernels are inlined into it.
#[inline(never)]
#[target_feature(enable = "avx512f,avx512ifma")]
fn enter<K: Kernel>(token: Ifma, kernel: K) -> K::Output {
    kernel.run::<Lanes512>(token)
}

/// Calls an intrinsic that touches registers only.
macro_rules! instruction {
    ($($call:tt)+) => {{
        // SAFETY: a `Lanes512` or an `Ifma` token is among the caller's arguments, and both exist only after AVX-512F
        // and IFMA were detected; the intrinsic works on registers and has no other demand.
        unsafe { $($call)+ }
    }};
}

impl Vector for Lanes512 {
    type Token = Ifma;
    type Mask = __mmask8;

    #[inline(always)]
    fn call<K: Kernel>(token: Ifma, kernel: K) -> K::Output {
        run(token, kernel)
    }

    #[inline(always)]
    fn splat(_: Ifma, value: u64) -> Self {
        Self(instruction!(_mm512_set1_epi64(value.cast_signed())))
    }

    #[inline(always)]
    fn load(_: Ifma, row: &Row) -> Self {
        // SAFETY: the token proves the instruction; a `Row` is 64 bytes, initialised and aligned to 64.
        Self(unsafe { _mm512_load_si512(ptr::from_ref(row).cast()) })
    }

    #[inline(always)]
    fn store(self, row: &mut Row) {
        // SAFETY: `self` proves the instruction; a `Row` is 64 bytes, aligned to 64, and borrowed for writing.
        unsafe { _mm512_store_si512(ptr::from_mut(row).cast(), self.0) }
    }

    #[inline(always)]
    fn madd52lo(self, a: Self, b: Self) -> Self {
        Self(instruction!(_mm512_madd52lo_epu64(self.0, a.0, b.0)))
    }

    #[inline(always)]
    fn madd52hi(self, a: Self, b: Self) -> Self {
        Self(instruction!(_mm512_madd52hi_epu64(self.0, a.0, b.0)))
    }

    #[inline(always)]
    fn add(self, other: Self) -> Self {
        Self(instruction!(_mm512_add_epi64(self.0, other.0)))
    }

    #[inline(always)]
    fn sub(self, other: Self) -> Self {
        Self(instruction!(_mm512_sub_epi64(self.0, other.0)))
    }

    #[inline(always)]
    fn and(self, other: Self) -> Self {
        Self(instruction!(_mm512_and_si512(self.0, other.0)))
    }

    #[inline(always)]
    fn or(self, other: Self) -> Self {
        Self(instruction!(_mm512_or_si512(self.0, other.0)))
    }

    #[inline(always)]
    fn xor(self, other: Self) -> Self {
        Self(instruction!(_mm512_xor_si512(self.0, other.0)))
    }

    #[inline(always)]
    fn shr<const K: u32>(self) -> Self {
        Self(instruction!(_mm512_srli_epi64::<K>(self.0)))
    }

    #[inline(always)]
    fn sar<const K: u32>(self) -> Self {
        Self(instruction!(_mm512_srai_epi64::<K>(self.0)))
    }

    #[inline(always)]
    fn shl<const K: u32>(self) -> Self {
        Self(instruction!(_mm512_slli_epi64::<K>(self.0)))
    }

    #[inline(always)]
    fn shr_by(self, bits: u32) -> Self {
        Self(instruction!(_mm512_srlv_epi64(
            self.0,
            _mm512_set1_epi64(i64::from(bits & 63))
        )))
    }

    #[inline(always)]
    fn eq(self, other: Self) -> __mmask8 {
        instruction!(_mm512_cmpeq_epu64_mask(self.0, other.0))
    }

    #[inline(always)]
    fn lt(self, other: Self) -> __mmask8 {
        instruction!(_mm512_cmplt_epu64_mask(self.0, other.0))
    }

    #[inline(always)]
    fn select(mask: __mmask8, set: Self, clear: Self) -> Self {
        Self(instruction!(_mm512_mask_blend_epi64(mask, clear.0, set.0)))
    }

    #[inline(always)]
    fn bits(mask: __mmask8) -> u8 {
        mask
    }

    #[inline(always)]
    fn permute2(index: Self, low: Self, high: Self) -> Self {
        Self(instruction!(_mm512_permutex2var_epi64(
            low.0, index.0, high.0
        )))
    }

    #[inline(always)]
    fn permute(self, index: Self) -> Self {
        Self(instruction!(_mm512_permutexvar_epi64(index.0, self.0)))
    }
}
