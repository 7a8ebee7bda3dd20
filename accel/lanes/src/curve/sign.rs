//! ECDSA signing of eight digests with eight keys (FIPS 186-5, section 6.4.1).
//!
//! ```text
//! k = nonce mod n                  wide nonces, 512 bits            Nonces
//! x(k G)                           one comb walk                    BaseMultiply
//! 1/k mod n, 1/ZZ mod p            one inversion each for eight     invert_both
//! r = x(k G) mod n                                                  Conclude
//! s = (e + r d) / k mod n                                           Assemble
//! ```
//!
//! All but the last line depends on the nonce alone, so it can be done before there is anything to sign: [`prepare_p256`]
//! stops there, and [`sign_prepared_p256`] goes on.

use core::fmt;
use core::marker::PhantomData;

use zeroize::{DefaultIsZeroes, Zeroize};

use super::comb::BaseMultiply;
use super::divstep::{BATCHES_256, BATCHES_384, invert_both};
use super::prime::{DIGIT_BITS, DIGIT_MASK, Element, Field, Montgomery, Plain};
use super::shared::{Products, inverse_montgomery, inverse_plain, multiply_lanes};
use super::{Curve, P256, P384};
use crate::token::Path;
use crate::vector::{Kernel, LANES, Row, Vector, run};

/// Bytes of a wide nonce.
pub const NONCE_LEN: usize = 64;

/// What one lane is to sign. `Debug` shows nothing: a nonce gives the key away.
#[derive(Clone, Copy)]
pub struct Request<'a> {
    /// The private scalar, big endian, exactly as long as the order; between 1 and the order less one.
    pub key: &'a [u8],
    /// The digest as FIPS 186-5 takes it: its leftmost bytes, or all of it with zero bytes in front, exactly as long as
    /// the order. It need not be below the order.
    pub digest: &'a [u8],
    /// 512 uniformly random secret bits, never used twice. Taken modulo the order, of which they exceed the length by
    /// 128 bits or more, they make a nonce whose bias is below 2^-128.
    pub nonce: &'a [u8; NONCE_LEN],
}

impl fmt::Debug for Request<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Request(..)")
    }
}

/// `r` and `s`, big endian, `B` bytes each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Signature<const B: usize> {
    /// The x coordinate of the nonce's point, modulo the order.
    pub r: [u8; B],
    /// The proof of the private key.
    pub s: [u8; B],
}

/// Why a lane has no signature.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SignError {
    /// A key or a digest that is not exactly as long as the order.
    Length,
    /// This nonce does not do: it is a multiple of the order, or gives `r = 0` or `s = 0`, or is the one scalar the comb
    /// cannot walk; or a fault put a point off its curve. Sign again with another nonce: of honest nonces one in 2^255
    /// fails, so a second failure is a fault.
    Nonce,
}

/// Digits of the longer of both orders.
const MAX_DIGITS: usize = 8;

/// A nonce that has been worked on already: `1/k` and `r`. As secret as the nonce, and as much to be used once.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Prepared {
    inverse: [u64; MAX_DIGITS],
    r: [u64; MAX_DIGITS],
}

impl Prepared {
    /// The place for one. What it signs is refused with [`SignError::Nonce`].
    pub const EMPTY: Self = Self {
        inverse: [0; MAX_DIGITS],
        r: [0; MAX_DIGITS],
    };
}

impl fmt::Debug for Prepared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Prepared(..)")
    }
}

impl Default for Prepared {
    fn default() -> Self {
        Self::EMPTY
    }
}

impl DefaultIsZeroes for Prepared {}

/// What one lane is to sign with a prepared nonce.
#[derive(Clone, Copy)]
pub struct PreparedRequest<'a> {
    /// As [`Request::key`].
    pub key: &'a [u8],
    /// As [`Request::digest`].
    pub digest: &'a [u8],
    /// Made for the same curve, and never used before.
    pub nonce: &'a Prepared,
}

impl fmt::Debug for PreparedRequest<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PreparedRequest(..)")
    }
}

/// Does what can be done with eight nonces of P-256 before there is anything to sign. Each is 512 uniformly random
/// secret bits, as in [`Request::nonce`]. Where one does not do, [`Prepared::EMPTY`] is written in its place.
pub fn prepare_p256(path: Path, nonces: &[[u8; NONCE_LEN]; LANES], out: &mut [Prepared; LANES]) {
    prepare::<P256, 5, 5, 32>(path, BATCHES_256, nonces, out);
}

/// The same for P-384.
pub fn prepare_p384(path: Path, nonces: &[[u8; NONCE_LEN]; LANES], out: &mut [Prepared; LANES]) {
    prepare::<P384, 8, 7, 48>(path, BATCHES_384, nonces, out);
}

/// Signs with P-256 and nonces of [`prepare_p256`]; otherwise as [`sign_p256`].
pub fn sign_prepared_p256(
    path: Path,
    requests: &[PreparedRequest<'_>],
) -> [Result<Signature<32>, SignError>; LANES] {
    sign_prepared::<P256, 5, 32>(path, requests)
}

/// Signs with P-384 and nonces of [`prepare_p384`]; otherwise as [`sign_p256`].
pub fn sign_prepared_p384(
    path: Path,
    requests: &[PreparedRequest<'_>],
) -> [Result<Signature<48>, SignError>; LANES] {
    sign_prepared::<P384, 8, 48>(path, requests)
}

/// Signs with P-256; lane `l` of the result belongs to request `l`. At most eight requests; lanes without one say
/// [`SignError::Length`].
pub fn sign_p256(
    path: Path,
    requests: &[Request<'_>],
) -> [Result<Signature<32>, SignError>; LANES] {
    sign::<P256, 5, 5, 32>(path, BATCHES_256, requests)
}

/// Signs with P-384, as [`sign_p256`].
pub fn sign_p384(
    path: Path,
    requests: &[Request<'_>],
) -> [Result<Signature<48>, SignError>; LANES] {
    sign::<P384, 8, 7, 48>(path, BATCHES_384, requests)
}

/// Everything secret of a batch, wiped when it ends.
struct Batch<const N: usize> {
    key: [Row; N],
    digest: [Row; N],
    /// The wide nonce: its low bits, as many as the order has, and those above.
    nonce: [[Row; N]; 2],
    scalar: [Row; N],
    scalar_products: Products<N>,
    x: [Row; N],
    zz_products: Products<N>,
    /// 1/k, in the Montgomery domain.
    inverse: [Row; N],
    r: [Row; N],
    s: [Row; N],
}

impl<const N: usize> Batch<N> {
    const EMPTY: Self = Self {
        key: [Row::ZERO; N],
        digest: [Row::ZERO; N],
        nonce: [[Row::ZERO; N]; 2],
        scalar: [Row::ZERO; N],
        scalar_products: Products::EMPTY,
        x: [Row::ZERO; N],
        zz_products: Products::EMPTY,
        inverse: [Row::ZERO; N],
        r: [Row::ZERO; N],
        s: [Row::ZERO; N],
    };
}

impl<const N: usize> Drop for Batch<N> {
    fn drop(&mut self) {
        self.key.zeroize();
        self.nonce.zeroize();
        self.scalar.zeroize();
        self.scalar_products.zeroize();
        self.x.zeroize();
        self.zz_products.zeroize();
        self.inverse.zeroize();
    }
}

/// Signs one batch; `L` limbs of 62 bits hold a number of the curve, `B` bytes its order.
fn sign<C: Curve<N>, const N: usize, const L: usize, const B: usize>(
    path: Path,
    batches: usize,
    requests: &[Request<'_>],
) -> [Result<Signature<B>, SignError>; LANES] {
    let mut batch = Batch::<N>::EMPTY;
    let mut accepted = 0;
    for (lane, request) in requests.iter().take(LANES).enumerate() {
        if batch.put_message::<B>(lane, request.key, request.digest) {
            accepted |= 1 << lane;
            batch.put_nonce::<B>(lane, request.nonce);
        }
    }
    let valid = batch.work_on_nonces::<C, L>(path, batches);
    batch.sign::<C, B>(path, accepted, valid)
}

/// The first half of [`sign`].
fn prepare<C: Curve<N>, const N: usize, const L: usize, const B: usize>(
    path: Path,
    batches: usize,
    nonces: &[[u8; NONCE_LEN]; LANES],
    out: &mut [Prepared; LANES],
) {
    let mut batch = Batch::<N>::EMPTY;
    for (lane, nonce) in nonces.iter().enumerate() {
        batch.put_nonce::<B>(lane, nonce);
    }
    let valid = batch.work_on_nonces::<C, L>(path, batches);
    for (lane, out) in out.iter_mut().enumerate() {
        *out = Prepared::EMPTY;
        if (valid >> lane) & 1 == 1 {
            copy_out(&batch.inverse, lane, &mut out.inverse);
            copy_out(&batch.r, lane, &mut out.r);
        }
    }
}

/// The second half.
fn sign_prepared<C: Curve<N>, const N: usize, const B: usize>(
    path: Path,
    requests: &[PreparedRequest<'_>],
) -> [Result<Signature<B>, SignError>; LANES] {
    let mut batch = Batch::<N>::EMPTY;
    let mut accepted = 0;
    for (lane, request) in requests.iter().take(LANES).enumerate() {
        if batch.put_message::<B>(lane, request.key, request.digest) {
            accepted |= 1 << lane;
            copy_in(&mut batch.inverse, lane, &request.nonce.inverse);
            copy_in(&mut batch.r, lane, &request.nonce.r);
        }
    }
    // An empty pair has r = 0, which the last step refuses.
    batch.sign::<C, B>(path, accepted, u8::MAX)
}

/// Digits of a number into its lane.
fn copy_in(rows: &mut [Row], lane: usize, digits: &[u64]) {
    for (row, digit) in rows.iter_mut().zip(digits) {
        row.0[lane] = *digit;
    }
}

/// Digits of a number out of its lane.
fn copy_out(rows: &[Row], lane: usize, digits: &mut [u64]) {
    for (row, digit) in rows.iter().zip(digits) {
        *digit = row.0[lane];
    }
}

impl<const N: usize> Batch<N> {
    /// Takes in a key and a digest; `false` if one of them has the wrong length.
    fn put_message<const B: usize>(&mut self, lane: usize, key: &[u8], digest: &[u8]) -> bool {
        let (Ok(key), Ok(digest)) = (<&[u8; B]>::try_from(key), <&[u8; B]>::try_from(digest))
        else {
            return false;
        };
        put(&mut self.key, lane, key);
        put(&mut self.digest, lane, digest);
        true
    }

    fn put_nonce<const B: usize>(&mut self, lane: usize, nonce: &[u8; NONCE_LEN]) {
        let [low, high] = &mut self.nonce;
        let (above, below) = nonce.split_at(NONCE_LEN - B);
        put(low, lane, below);
        put(high, lane, above);
    }

    /// From nonces to `1/k` and `r`; says in which lanes they will do.
    fn work_on_nonces<C: Curve<N>, const L: usize>(&mut self, path: Path, batches: usize) -> u8 {
        let mut valid = run(
            path,
            Nonces::<C, N> {
                batch: self,
                curve: PhantomData,
            },
        );
        valid &= run(
            path,
            BaseMultiply {
                scalars: &self.scalar,
                x: &mut self.x,
                products: &mut self.zz_products,
                comb: C::comb(),
                curve: PhantomData::<C>,
            },
        );
        let mut inverses = invert_both::<C::Coordinate, C::Order, N, L>(
            batches,
            [&self.zz_products.total(), &self.scalar_products.total()],
        );
        valid &= run(
            path,
            Conclude::<C, N> {
                batch: self,
                inverses: &inverses,
                curve: PhantomData,
            },
        );
        inverses.zeroize();
        valid
    }

    /// The signatures of the accepted lanes, where `1/k` and `r` are valid.
    fn sign<C: Curve<N>, const B: usize>(
        &mut self,
        path: Path,
        accepted: u8,
        valid: u8,
    ) -> [Result<Signature<B>, SignError>; LANES] {
        let valid = valid
            & run(
                path,
                Assemble::<C, N> {
                    batch: self,
                    curve: PhantomData,
                },
            );
        core::array::from_fn(|lane| {
            let bit = 1 << lane;
            if accepted & bit == 0 {
                Err(SignError::Length)
            } else if valid & bit == 0 {
                Err(SignError::Nonce)
            } else {
                Ok(Signature {
                    r: to_bytes(&self.r, lane),
                    s: to_bytes(&self.s, lane),
                })
            }
        })
    }
}

/// Writes a big-endian number of at most 64 bytes, in whole words of eight, into a lane.
fn put<const N: usize>(rows: &mut [Row; N], lane: usize, bytes: &[u8]) {
    // One word more than the longest number, so that every digit lies in two words.
    let mut words = [0u64; 9];
    for (word, bytes) in words.iter_mut().zip(bytes.rchunks_exact(8)) {
        let mut chunk = [0; 8];
        chunk.copy_from_slice(bytes);
        *word = u64::from_be_bytes(chunk);
    }
    for (i, row) in rows.iter_mut().enumerate() {
        let (word, offset) = (i * DIGIT_BITS / 64, i * DIGIT_BITS % 64);
        // Shifted in two steps, because a shift by 64 is none.
        let digit = words[word] >> offset | words[word + 1] << (63 - offset) << 1;
        row.0[lane] = digit & DIGIT_MASK;
    }
    words.zeroize();
}

/// Reads a lane as `B` bytes, big endian; `B` is a multiple of eight.
fn to_bytes<const N: usize, const B: usize>(rows: &[Row; N], lane: usize) -> [u8; B] {
    let mut bytes = [0; B];
    for (i, chunk) in bytes.rchunks_exact_mut(8).enumerate() {
        let (digit, offset) = (i * 64 / DIGIT_BITS, i * 64 % DIGIT_BITS);
        // A word touches two digits, or three.
        let mut word = rows[digit].0[lane] >> offset;
        for (k, row) in rows.iter().skip(digit + 1).take(2).enumerate() {
            let shift = (k + 1) * DIGIT_BITS - offset;
            if shift < 64 {
                word |= row.0[lane] << shift;
            }
        }
        chunk.copy_from_slice(&word.to_be_bytes());
    }
    bytes
}

/// Takes the wide nonces modulo the order, and multiplies the lanes for their inversion.
struct Nonces<'a, C: Curve<N>, const N: usize> {
    batch: &'a mut Batch<N>,
    curve: PhantomData<C>,
}

impl<C: Curve<N>, const N: usize> Kernel for Nonces<'_, C, N> {
    /// Lanes whose nonce is not a multiple of the order.
    type Output = u8;

    #[inline(always)]
    fn run<V: Vector>(self, token: V::Token) -> u8 {
        let field: Field<V, C::Order, N> = Field::new(token);
        let [low, high] = &self.batch.nonce;
        let low: Element<V, C::Order, Plain, N> = field.load(low);
        let high: Element<V, C::Order, Plain, N> = field.load(high);
        // high * 2^bits is below 1.1 n, low below 1.1 n, so two subtractions make the sum canonical.
        let sum = field
            .product(&high, &field.splat(&C::ABOVE))
            .sum()
            .plus(low.sum());
        let scalar = field.canonical(&field.canonical(&field.carry(sum)));
        let zero = field.is_zero(&scalar);
        let mut one = [0; N];
        one[0] = 1;
        let scalar = Element::select(zero, &field.splat(&one), &scalar);
        scalar.store(&mut self.batch.scalar);
        let inside = field.enter(&scalar);
        multiply_lanes(token, &field, &inside, &mut self.batch.scalar_products);
        !V::bits(zero)
    }
}

/// Ends the work on the nonces: `1/k` and `r`.
struct Conclude<'a, C: Curve<N>, const N: usize> {
    batch: &'a mut Batch<N>,
    /// Of the products of all `ZZ` and of all nonces.
    inverses: &'a [[u64; N]; 2],
    curve: PhantomData<C>,
}

impl<C: Curve<N>, const N: usize> Kernel for Conclude<'_, C, N> {
    /// Lanes where `r` is not zero.
    type Output = u8;

    #[inline(always)]
    fn run<V: Vector>(self, token: V::Token) -> u8 {
        let batch = self.batch;
        let [inverse_zz, inverse_scalar] = self.inverses;

        let field: Field<V, C::Coordinate, N> = Field::new(token);
        let inverse_zz = inverse_plain(&field, inverse_zz, &batch.zz_products.others);
        let x = field.product(&inverse_zz, &field.load::<Montgomery>(&batch.x));
        let x = field.canonical(&x);

        // p is below twice the order.
        let order: Field<V, C::Order, N> = Field::new(token);
        let r = order.canonical(&Element::<V, C::Order, Plain, N>::from_digits(x.0));
        r.store(&mut batch.r);
        inverse_montgomery(&order, inverse_scalar, &batch.scalar_products.others)
            .store(&mut batch.inverse);
        !V::bits(order.is_zero(&r))
    }
}

/// Puts `s` together.
struct Assemble<'a, C: Curve<N>, const N: usize> {
    batch: &'a mut Batch<N>,
    curve: PhantomData<C>,
}

impl<C: Curve<N>, const N: usize> Kernel for Assemble<'_, C, N> {
    /// Lanes where neither `r` nor `s` is zero.
    type Output = u8;

    #[inline(always)]
    fn run<V: Vector>(self, token: V::Token) -> u8 {
        let batch = self.batch;
        let order: Field<V, C::Order, N> = Field::new(token);
        let r: Element<V, C::Order, Plain, N> = order.load(&batch.r);
        let inverse: Element<V, C::Order, Montgomery, N> = order.load(&batch.inverse);
        let key = order.enter(&order.load(&batch.key));
        let sum = order
            .product(&r, &key)
            .sum()
            .plus(order.load(&batch.digest).sum());
        let s = order.product(&order.carry(sum), &inverse);
        let s = order.canonical(&s);
        s.store(&mut batch.s);
        !(V::bits(order.is_zero(&r)) | V::bits(order.is_zero(&s)))
    }
}

#[cfg(test)]
mod tests;
