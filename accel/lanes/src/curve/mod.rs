#![doc = include_str!("../../docs/curves.md")]

mod comb;
mod divstep;
mod nonce;
mod p256;
mod p384;
mod point;
mod prime;
mod shared;
mod sign;
mod single;
#[cfg(test)]
mod tests;

pub use nonce::{MAX_MESSAGE, TAG_LEN, hmac_sha512};
pub use sign::{
    NONCE_LEN, Prepared, PreparedRequest, Request, SignError, Signature, prepare_p256,
    prepare_p384, sign_p256, sign_p384, sign_prepared_p256, sign_prepared_p384,
};

pub(crate) use p256::P256;
pub(crate) use p384::P384;

use comb::Comb;
use prime::{DIGIT_BITS, Prime, power_of_two};

/// A curve `y^2 = x^3 - 3 x + b` of prime order, over numbers of `N` digits.
pub(crate) trait Curve<const N: usize>: Copy {
    /// The field of the coordinates.
    type Coordinate: Prime<N>;
    /// The field of the scalars.
    type Order: Prime<N>;

    /// Bytes of a scalar and of a coordinate.
    const BYTES: usize;
    /// The constant `b`.
    const B: [u64; N];
    /// The generator, affine.
    const GENERATOR: [[u64; N]; 2];
    /// Windows of [`comb::WINDOW_BITS`] that hold a scalar.
    const WINDOWS: usize;

    /// `2^bits` for the length of the order, in the Montgomery domain: it joins the halves of a wide nonce.
    const ABOVE: [u64; N] = power_of_two(&Self::Order::MODULUS, DIGIT_BITS * N + 8 * Self::BYTES);

    /// The multiples of the generator, made at first use.
    fn comb() -> &'static Comb<N>;
}
