//! ECDSA signing of eight digests with eight keys (FIPS 186-5, section 6.4.1).
//!
//! ```text
//! k = nonce mod n                  wide nonces, 512 bits            Nonces
//! r = x(k G) mod n                 one comb walk                    BaseMultiply
//! 1/k mod n, 1/ZZ mod p            one inversion each for eight     invert_both
//! s = (e + r d) / k mod n                                           Finish
//! ```

use core::fmt;
use core::marker::PhantomData;

use zeroize::Zeroize;

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
    }
}

/// Signs one batch; `L` limbs of 62 bits hold a number of the curve, `B` bytes its order.
fn sign<C: Curve<N>, const N: usize, const L: usize, const B: usize>(
    path: Path,
    batches: usize,
    requests: &[Request<'_>],
) -> [Result<Signature<B>, SignError>; LANES] {
    let mut batch = Batch::<N>::EMPTY;
    let accepted = batch.fill::<B>(requests);
    let mut valid = run(
        path,
        Nonces::<C, N> {
            batch: &mut batch,
            curve: PhantomData,
        },
    );
    valid &= run(
        path,
        BaseMultiply {
            scalars: &batch.scalar,
            x: &mut batch.x,
            products: &mut batch.zz_products,
            comb: C::comb(),
            curve: PhantomData::<C>,
        },
    );
    let mut inverses = invert_both::<C::Coordinate, C::Order, N, L>(
        batches,
        [&batch.zz_products.total(), &batch.scalar_products.total()],
    );
    let mut r = [Row::ZERO; N];
    let mut s = [Row::ZERO; N];
    valid &= run(
        path,
        Finish::<C, N> {
            batch: &batch,
            inverses: &inverses,
            r: &mut r,
            s: &mut s,
            curve: PhantomData,
        },
    );
    inverses.zeroize();
    core::array::from_fn(|lane| {
        let bit = 1 << lane;
        if accepted & bit == 0 {
            Err(SignError::Length)
        } else if valid & bit == 0 {
            Err(SignError::Nonce)
        } else {
            Ok(Signature {
                r: to_bytes(&r, lane),
                s: to_bytes(&s, lane),
            })
        }
    })
}

impl<const N: usize> Batch<N> {
    /// Takes in the requests that are well formed; says which lanes they are in.
    fn fill<const B: usize>(&mut self, requests: &[Request<'_>]) -> u8 {
        let mut accepted = 0;
        for (lane, request) in requests.iter().take(LANES).enumerate() {
            let (Ok(key), Ok(digest)) = (
                <&[u8; B]>::try_from(request.key),
                <&[u8; B]>::try_from(request.digest),
            ) else {
                continue;
            };
            accepted |= 1 << lane;
            put(&mut self.key, lane, key);
            put(&mut self.digest, lane, digest);
            let [low, high] = &mut self.nonce;
            let (above, below) = request.nonce.split_at(NONCE_LEN - B);
            put(low, lane, below);
            put(high, lane, above);
        }
        accepted
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

/// Puts `r` and `s` together.
struct Finish<'a, C: Curve<N>, const N: usize> {
    batch: &'a Batch<N>,
    /// Of the products of all `ZZ` and of all nonces.
    inverses: &'a [[u64; N]; 2],
    r: &'a mut [Row; N],
    s: &'a mut [Row; N],
    curve: PhantomData<C>,
}

impl<C: Curve<N>, const N: usize> Kernel for Finish<'_, C, N> {
    /// Lanes where neither `r` nor `s` is zero.
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
        let inverse = inverse_montgomery(&order, inverse_scalar, &batch.scalar_products.others);
        let key = order.enter(&order.load(&batch.key));
        let sum = order
            .product(&r, &key)
            .sum()
            .plus(order.load(&batch.digest).sum());
        let s = order.product(&order.carry(sum), &inverse);
        let s = order.canonical(&s);
        r.store(self.r);
        s.store(self.s);
        !(V::bits(order.is_zero(&r)) | V::bits(order.is_zero(&s)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(hex: &str) -> Vec<u8> {
        let digits = hex.as_bytes().chunks_exact(2);
        digits
            .map(|pair| u8::from_str_radix(core::str::from_utf8(pair).unwrap(), 16).unwrap())
            .collect()
    }

    /// A known nonce as a wide one.
    fn wide(nonce: &[u8]) -> [u8; NONCE_LEN] {
        let mut wide = [0; NONCE_LEN];
        wide[NONCE_LEN - nonce.len()..].copy_from_slice(nonce);
        wide
    }

    /// The leftmost `len` bytes, or zeros and all of it.
    fn leftmost(digest: &[u8], len: usize) -> Vec<u8> {
        let taken = &digest[..digest.len().min(len)];
        let mut result = vec![0; len - taken.len()];
        result.extend_from_slice(taken);
        result
    }

    /// `[digest, key, nonce, r, s]` of one curve.
    fn vectors(curve: &str) -> Vec<[Vec<u8>; 5]> {
        include_str!("vectors/rfc6979.txt")
            .lines()
            .filter_map(|line| line.strip_prefix(curve))
            .map(|line| {
                let fields: Vec<_> = line.split_whitespace().map(bytes).collect();
                fields.try_into().unwrap()
            })
            .collect()
    }

    /// Signs with each vector in every fill from 1 to 8, vectors changing from lane to lane.
    fn check_vectors<const B: usize>(
        vectors: &[[Vec<u8>; 5]],
        sign: impl Fn(Path, &[Request<'_>]) -> [Result<Signature<B>, SignError>; LANES],
    ) {
        assert_eq!(vectors.len(), 10);
        for path in Path::all() {
            for fill in 1..=LANES {
                for start in 0..vectors.len() {
                    let chosen: Vec<_> = (0..fill)
                        .map(|i| &vectors[(start + i) % vectors.len()])
                        .collect();
                    let digests: Vec<_> = chosen.iter().map(|v| leftmost(&v[0], B)).collect();
                    let nonces: Vec<_> = chosen.iter().map(|v| wide(&v[2])).collect();
                    let requests: Vec<_> = chosen
                        .iter()
                        .zip(digests.iter().zip(&nonces))
                        .map(|(v, (digest, nonce))| Request {
                            key: &v[1],
                            digest,
                            nonce,
                        })
                        .collect();
                    let signatures = sign(path, &requests);
                    for (lane, signature) in signatures.iter().enumerate() {
                        let expected = chosen.get(lane).map_or(Err(SignError::Length), |v| {
                            Ok(Signature {
                                r: v[3].as_slice().try_into().unwrap(),
                                s: v[4].as_slice().try_into().unwrap(),
                            })
                        });
                        assert_eq!(*signature, expected, "{} fill {fill}", path.name());
                    }
                }
            }
            eprintln!(
                "fixed nonces give the published signatures on {}",
                path.name()
            );
        }
    }

    #[test]
    fn p256_gives_the_published_signatures() {
        check_vectors::<32>(&vectors("p256 "), sign_p256);
    }

    #[test]
    fn p384_gives_the_published_signatures() {
        check_vectors::<48>(&vectors("p384 "), sign_p384);
    }

    #[test]
    fn a_useless_nonce_fails_alone() {
        let vector = &vectors("p256 ")[2];
        let digest = leftmost(&vector[0], 32);
        let good = wide(&vector[2]);
        let order = bytes("ffffffff00000000ffffffffffffffffbce6faada7179e84f3b9cac2fc632551");
        // Zero, the order, and the order times 2^256.
        let mut shifted = [0; NONCE_LEN];
        shifted[..32].copy_from_slice(&order);
        for path in Path::all() {
            for bad in [[0; NONCE_LEN], wide(&order), shifted] {
                let nonces = [&good, &bad, &good, &good, &bad, &good, &good, &good];
                let requests = nonces.map(|nonce| Request {
                    key: &vector[1],
                    digest: &digest,
                    nonce,
                });
                let signatures = sign_p256(path, &requests);
                for (lane, signature) in signatures.iter().enumerate() {
                    match lane {
                        1 | 4 => assert_eq!(*signature, Err(SignError::Nonce)),
                        _ => assert_eq!(signature.unwrap().r.as_slice(), vector[3]),
                    }
                }
            }
        }
    }

    #[test]
    fn zero_s_is_refused() {
        // With r = x(G) and k = 1: s = e + r d = 0 for e = n - r d; with d = 1, e = n - r.
        let r = bytes("6b17d1f2e12c4247f8bce6e563a440f277037d812deb33a0f4a13945d898c296");
        let e = bytes("94e82e0c1ed3bdb90743191a9c5bbf0d45e37d2c792c6ae3ff18917d23ca62bb");
        let mut key = [0; 32];
        key[31] = 1;
        let nonce = wide(&key);
        for path in Path::all() {
            let request = Request {
                key: &key,
                digest: &e,
                nonce: &nonce,
            };
            assert_eq!(sign_p256(path, &[request])[0], Err(SignError::Nonce));
            let request = Request {
                digest: &r,
                ..request
            };
            let signature = sign_p256(path, &[request])[0].unwrap();
            assert_eq!(signature.r.as_slice(), r);
        }
    }

    #[test]
    fn a_wide_nonce_is_taken_modulo_the_order() {
        let vector = &vectors("p256 ")[4];
        let digest = leftmost(&vector[0], 32);
        // k + 0xffff_ffff * n, which is wider than the order.
        let mut sum = [0u64; 16];
        let order = bytes("ffffffff00000000ffffffffffffffffbce6faada7179e84f3b9cac2fc632551");
        let word = |bytes: &[u8], i: usize| {
            bytes.rchunks(4).nth(i).map_or(0, |chunk| {
                u64::from(u32::from_be_bytes(chunk.try_into().unwrap()))
            })
        };
        let mut carry = 0;
        for (i, digit) in sum.iter_mut().enumerate() {
            let total = word(&vector[2], i) + word(&order, i) * 0xffff_ffff + carry;
            *digit = total & 0xffff_ffff;
            carry = total >> 32;
        }
        let mut nonce = [0; NONCE_LEN];
        for (chunk, digit) in nonce.rchunks_mut(4).zip(sum) {
            chunk.copy_from_slice(&u32::try_from(digit).unwrap().to_be_bytes());
        }
        for path in Path::all() {
            let request = Request {
                key: &vector[1],
                digest: &digest,
                nonce: &nonce,
            };
            let signature = sign_p256(path, &[request])[0].unwrap();
            assert_eq!(signature.r.as_slice(), vector[3]);
            assert_eq!(signature.s.as_slice(), vector[4]);
        }
    }

    #[test]
    fn wrong_lengths_are_refused() {
        let nonce = [1; NONCE_LEN];
        let long = [1; 48];
        let requests = [
            Request {
                key: &long[..32],
                digest: &long[..32],
                nonce: &nonce,
            },
            Request {
                key: &long[..31],
                digest: &long[..32],
                nonce: &nonce,
            },
            Request {
                key: &long[..32],
                digest: &long[..33],
                nonce: &nonce,
            },
            Request {
                key: &long,
                digest: &long,
                nonce: &nonce,
            },
        ];
        for path in Path::all() {
            let [a, b, c, d, ..] = sign_p256(path, &requests);
            assert_eq!(a.map(drop), Ok(()));
            assert_eq!([b, c, d], [Err(SignError::Length); 3]);
            let [a, b, c, d, ..] = sign_p384(path, &requests);
            assert_eq!([a, b, c], [Err(SignError::Length); 3]);
            assert_eq!(d.map(drop), Ok(()));
        }
    }
}
