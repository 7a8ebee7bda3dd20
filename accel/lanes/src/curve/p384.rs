//! P-384: eight digits, a prime of five terms, and 32 bits to spare.

use std::sync::OnceLock;

use super::Curve;
use super::comb::Comb;
use super::prime::{GenericConstants, Prime, generic_step, hex, products, shift};
use crate::vector::Vector;

/// Digits of a number: 416 bits, 32 more than the prime has.
pub(crate) const DIGITS: usize = 8;

/// The field: `p = 2^384 - 2^128 - 2^96 + 2^32 - 1`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Coordinate;

/// The terms of `p` by digit: `2^32 - 1` at 0, `-2^44` at 1, `-2^24` at 2, `2^20` at 7.
#[derive(Clone, Copy)]
pub(crate) struct CoordinateConstants<V> {
    digit_0: V,
    digit_1: V,
    digit_2: V,
    digit_7: V,
}

impl Prime<DIGITS> for Coordinate {
    const MODULUS: [u64; DIGITS] = hex(
        "fffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffeffffffff0000000000000000ffffffff",
    );
    const SETTLED: u64 = 8;

    type Constants<V: Vector> = CoordinateConstants<V>;

    #[inline(always)]
    fn constants<V: Vector>(token: V::Token) -> Self::Constants<V> {
        CoordinateConstants {
            digit_0: V::splat(token, 1 << 32),
            digit_1: V::splat(token, 1 << 44),
            digit_2: V::splat(token, 1 << 24),
            digit_7: V::splat(token, 1 << 20),
        }
    }

    /// `-1/p = 1 + 2^32` modulo a digit, so `q` is the low digit of `u = t0 + low(2^32 t0)`, and the carry out of digit
    /// 0 is `u >> 52` and the high half of `2^32 q`. The two negative terms are gathered apart and subtracted.
    #[inline(always)]
    fn step<V: Vector>(
        constants: &Self::Constants<V>,
        zero: V,
        mut window: [V; DIGITS],
        top: V,
    ) -> [V; DIGITS] {
        let q = window[0].madd52lo(window[0], constants.digit_0);
        let below_1 = zero.madd52lo(q, constants.digit_1);
        let below_2 = zero
            .madd52hi(q, constants.digit_1)
            .madd52lo(q, constants.digit_2);
        let below_3 = zero.madd52hi(q, constants.digit_2);
        window[1] = window[1].madd52hi(q, constants.digit_0).sub(below_1);
        window[2] = window[2].sub(below_2);
        window[3] = window[3].sub(below_3);
        window[7] = window[7].madd52lo(q, constants.digit_7);
        let top = top.madd52hi(q, constants.digit_7);
        shift(window, top, q.sar::<52>())
    }

    products!(8, [0, 1, 2, 3, 4, 5, 6, 7]);

    /// Nothing to do: 32 spare bits hold every sum that occurs.
    #[inline(always)]
    fn fold<V: Vector>(digits: [V; DIGITS]) -> [V; DIGITS] {
        digits
    }
}

/// The order of the generator.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Order;

impl Prime<DIGITS> for Order {
    const MODULUS: [u64; DIGITS] = hex(
        "ffffffffffffffffffffffffffffffffffffffffffffffffc7634d81f4372ddf581a0db248b0a77aecec196accc52973",
    );
    const SETTLED: u64 = 16;

    type Constants<V: Vector> = GenericConstants<V, DIGITS>;

    #[inline(always)]
    fn constants<V: Vector>(token: V::Token) -> Self::Constants<V> {
        GenericConstants::new(token, &Self::MODULUS)
    }

    #[inline(always)]
    fn step<V: Vector>(
        constants: &Self::Constants<V>,
        zero: V,
        window: [V; DIGITS],
        top: V,
    ) -> [V; DIGITS] {
        generic_step(constants, zero, window, top)
    }

    products!(8, [0, 1, 2, 3, 4, 5, 6, 7]);

    #[inline(always)]
    fn fold<V: Vector>(digits: [V; DIGITS]) -> [V; DIGITS] {
        digits
    }
}

/// NIST P-384 (FIPS 186-5, SP 800-186 section 3.2.1.4; secp384r1).
#[derive(Clone, Copy, Debug)]
pub(crate) struct P384;

impl Curve<DIGITS> for P384 {
    type Coordinate = Coordinate;
    type Order = Order;

    const BYTES: usize = 48;
    const B: [u64; DIGITS] = hex(
        "b3312fa7e23ee7e4988e056be3f82d19181d9c6efe8141120314088f5013875ac656398d8a2ed19d2a85c8edd3ec2aef",
    );
    const GENERATOR: [[u64; DIGITS]; 2] = [
        hex(
            "aa87ca22be8b05378eb1c71ef320ad746e1d3b628ba79b9859f741e082542a385502f25dbf55296c3a545e3872760ab7",
        ),
        hex(
            "3617de4a96262c6f5d9e98bf9292dc29f8f41dbd289a147ce9da3113b5f0b8c00a60b1ce1d7e819d7a431d7c90ea0e5f",
        ),
    ];
    const WINDOWS: usize = 55;

    fn comb() -> &'static Comb<DIGITS> {
        static COMB: OnceLock<Comb<DIGITS>> = OnceLock::new();
        COMB.get_or_init(Comb::new::<Self>)
    }
}
