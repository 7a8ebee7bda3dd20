//! P-256: five digits, and a prime of four terms.

use std::sync::OnceLock;

use super::Curve;
use super::comb::Comb;
use super::prime::{GenericConstants, Prime, generic_step, hex, products, shift};
use crate::vector::Vector;

/// Digits of a number: 260 bits, four more than the prime has.
pub(crate) const DIGITS: usize = 5;

/// The field: `p = 2^256 - 2^224 + 2^192 + 2^96 - 1`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Coordinate;

/// `p + 1` without its zero digits: `2^44` at digit 1, `2^36` at digit 3, `2^48 - 2^16` at digit 4.
#[derive(Clone, Copy)]
pub(crate) struct CoordinateConstants<V> {
    digit_1: V,
    digit_3: V,
    digit_4: V,
}

impl Prime<DIGITS> for Coordinate {
    const MODULUS: [u64; DIGITS] =
        hex("ffffffff00000001000000000000000000000000ffffffffffffffffffffffff");
    const SETTLED: u64 = 2;

    type Constants<V: Vector> = CoordinateConstants<V>;

    #[inline(always)]
    fn constants<V: Vector>(token: V::Token) -> Self::Constants<V> {
        CoordinateConstants {
            digit_1: V::splat(token, 1 << 44),
            digit_3: V::splat(token, 1 << 36),
            digit_4: V::splat(token, (1 << 48) - (1 << 16)),
        }
    }

    /// As `p = -1` modulo a digit, `q` is the lowest digit itself, and `t + q p = (t - q) + q (p + 1)`.
    #[inline(always)]
    fn step<V: Vector>(
        constants: &Self::Constants<V>,
        _zero: V,
        mut window: [V; DIGITS],
        mut top: V,
    ) -> [V; DIGITS] {
        let q = window[0];
        window[1] = window[1].madd52lo(q, constants.digit_1);
        window[2] = window[2].madd52hi(q, constants.digit_1);
        window[3] = window[3].madd52lo(q, constants.digit_3);
        window[4] = window[4].madd52hi(q, constants.digit_3);
        window[4] = window[4].madd52lo(q, constants.digit_4);
        top = top.madd52hi(q, constants.digit_4);
        shift(window, top, q.sar::<52>())
    }

    products!(5, [0, 1, 2, 3, 4]);

    /// Subtracts `h p` for the four bits `h` above bit 256.
    #[inline(always)]
    fn fold<V: Vector>(mut digits: [V; DIGITS]) -> [V; DIGITS] {
        let above = digits[4].sar::<48>();
        digits[0] = digits[0].add(above);
        digits[1] = digits[1].sub(above.shl::<44>());
        digits[3] = digits[3].sub(above.shl::<36>());
        digits[4] = digits[4].sub(above.shl::<48>()).add(above.shl::<16>());
        digits
    }
}

/// The order of the generator.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Order;

impl Prime<DIGITS> for Order {
    const MODULUS: [u64; DIGITS] =
        hex("ffffffff00000000ffffffffffffffffbce6faada7179e84f3b9cac2fc632551");
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

    products!(5, [0, 1, 2, 3, 4]);

    #[inline(always)]
    fn fold<V: Vector>(digits: [V; DIGITS]) -> [V; DIGITS] {
        digits
    }
}

/// NIST P-256 (FIPS 186-5, SP 800-186 section 3.2.1.3; secp256r1).
#[derive(Clone, Copy, Debug)]
pub(crate) struct P256;

impl Curve<DIGITS> for P256 {
    type Coordinate = Coordinate;
    type Order = Order;

    const BYTES: usize = 32;
    const B: [u64; DIGITS] =
        hex("5ac635d8aa3a93e7b3ebbd55769886bc651d06b0cc53b0f63bce3c3e27d2604b");
    const GENERATOR: [[u64; DIGITS]; 2] = [
        hex("6b17d1f2e12c4247f8bce6e563a440f277037d812deb33a0f4a13945d898c296"),
        hex("4fe342e2fe1a7f9b8ee7eb4a7c0f9e162bce33576b315ececbb6406837bf51f5"),
    ];
    const WINDOWS: usize = 37;

    fn comb() -> &'static Comb<DIGITS> {
        static COMB: OnceLock<Comb<DIGITS>> = OnceLock::new();
        COMB.get_or_init(Comb::new::<Self>)
    }
}
