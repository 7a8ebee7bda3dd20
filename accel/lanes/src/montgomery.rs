//! Numbers modulo eight different moduli, with the modulus and the encoding in the type.
//!
//! A [`Residue`] says which modulus it belongs to (`M`: one of the markers below) and whether it is multiplied by
//! R = 2^(52 N) (`E`: [`Plain`] or [`Encoded`]). Mixing p with q, or a plain number with an encoded one where it
//! matters, does not compile. Values are *almost* reduced, below twice the modulus, except where a method says more.

use core::marker::PhantomData;

use zeroize::Zeroize;

use crate::blocks::{Aside, Context, DIGIT_MASK, Multiply, Reduce, Square};
use crate::vector::{Row, Vector};

/// Marks residues modulo n, the public modulus.
pub(crate) enum ModN {}
/// Marks residues modulo p, the first prime.
pub(crate) enum ModP {}
/// Marks residues modulo q, the second prime.
pub(crate) enum ModQ {}

/// The number itself.
pub(crate) enum Plain {}
/// The number times R: the Montgomery domain.
pub(crate) enum Encoded {}

/// Eight numbers of `N` digits, each below twice its modulus.
pub(crate) struct Residue<M, E, const N: usize> {
    pub(crate) rows: [Row; N],
    domain: PhantomData<(M, E)>,
}

impl<M, E, const N: usize> Residue<M, E, N> {
    /// Takes digits for what the caller says they are: below twice the modulus, in encoding `E`.
    #[inline(always)]
    pub(crate) const fn assume(rows: [Row; N]) -> Self {
        Self {
            rows,
            domain: PhantomData,
        }
    }

    #[inline(always)]
    pub(crate) const fn zero() -> Self {
        Self::assume([Row::ZERO; N])
    }
}

impl<M, E, const N: usize> Clone for Residue<M, E, N> {
    #[inline(always)]
    fn clone(&self) -> Self {
        Self::assume(self.rows)
    }
}

impl<M, E, const N: usize> Zeroize for Residue<M, E, N> {
    fn zeroize(&mut self) {
        self.rows.zeroize();
    }
}

/// Eight odd moduli of `N` digits, below R / 4, with what Montgomery multiplication needs.
pub(crate) struct Moduli<M, const N: usize> {
    /// The moduli.
    pub(crate) digits: [Row; N],
    /// `-1 / modulus` modulo 2^52.
    pub(crate) k0: Row,
    /// R^2 modulo the modulus: what encodes a number.
    pub(crate) rr: [Row; N],
    /// Working space of the reduction; holds nothing between calls.
    pub(crate) quotient: [Row; N],
    pub(crate) domain: PhantomData<M>,
}

impl<M, const N: usize> Zeroize for Moduli<M, N> {
    fn zeroize(&mut self) {
        self.digits.zeroize();
        self.k0.zeroize();
        self.rr.zeroize();
        self.quotient.zeroize();
    }
}

impl<M, const N: usize> Moduli<M, N> {
    #[inline(always)]
    const fn context(&mut self) -> Context<'_, N> {
        Context {
            modulus: &self.digits,
            k0: &self.k0,
            quotient: &mut self.quotient,
        }
    }

    /// `a = a^2`.
    #[inline(always)]
    pub(crate) fn square<V: Vector>(&mut self, token: V::Token, a: &mut Residue<M, Encoded, N>) {
        self.square_aside::<V>(token, a, &mut ());
    }

    /// `a = a^2`, and some other work between the steps.
    #[inline(always)]
    pub(crate) fn square_aside<V: Vector>(
        &mut self,
        token: V::Token,
        a: &mut Residue<M, Encoded, N>,
        aside: &mut impl Aside,
    ) {
        V::call(
            token,
            Square {
                context: self.context(),
                a: &mut a.rows,
                aside,
            },
        );
    }

    /// `a = a b`. One encoded factor leaves the other's encoding as it is.
    #[inline(always)]
    pub(crate) fn multiply<V: Vector, E>(
        &mut self,
        token: V::Token,
        a: &mut Residue<M, E, N>,
        b: &Residue<M, Encoded, N>,
    ) {
        V::call(
            token,
            Multiply {
                context: self.context(),
                a: &mut a.rows,
                b: &b.rows,
            },
        );
    }

    /// The number times R.
    #[inline(always)]
    pub(crate) fn encode<V: Vector>(
        &mut self,
        token: V::Token,
        a: Residue<M, Plain, N>,
    ) -> Residue<M, Encoded, N> {
        let mut a = Residue::assume(a.rows);
        let context = Context {
            modulus: &self.digits,
            k0: &self.k0,
            quotient: &mut self.quotient,
        };
        V::call(
            token,
            Multiply {
                context,
                a: &mut a.rows,
                b: &self.rr,
            },
        );
        a
    }

    /// The number without the factor R; at most the modulus.
    #[inline(always)]
    pub(crate) fn decode<V: Vector>(
        &mut self,
        token: V::Token,
        a: &Residue<M, Encoded, N>,
    ) -> Residue<M, Plain, N> {
        let mut plain = Residue::zero();
        V::call(
            token,
            Reduce {
                context: self.context(),
                wide: &a.rows,
                out: &mut plain.rows,
            },
        );
        plain
    }

    /// A number of up to 2 N digits, below R times the modulus, modulo the modulus and encoded.
    #[inline(always)]
    pub(crate) fn encode_wide<V: Vector>(
        &mut self,
        token: V::Token,
        wide: &[Row],
    ) -> Residue<M, Encoded, N> {
        let mut a = Residue::<M, Plain, N>::zero();
        V::call(
            token,
            Reduce {
                context: self.context(),
                wide,
                out: &mut a.rows,
            },
        );
        // That divided by R; two encodings multiply by R twice.
        let once = Residue::assume(self.encode::<V>(token, a).rows);
        self.encode::<V>(token, once)
    }

    /// Subtracts the modulus once where the value is not below it. Values below twice the modulus become canonical.
    #[inline(always)]
    pub(crate) fn canonicalise<V: Vector, E>(&self, token: V::Token, a: &mut Residue<M, E, N>) {
        let ones = V::splat(token, DIGIT_MASK);
        let zero = V::splat(token, 0);
        let mut borrow = zero;
        let mut difference = [Row::ZERO; N];
        for ((difference, a), m) in difference.iter_mut().zip(&a.rows).zip(&self.digits) {
            let digit = V::load(token, a).sub(V::load(token, m)).add(borrow);
            digit.and(ones).store(difference);
            borrow = digit.sar::<52>();
        }
        // The last borrow is -1 where the value was below the modulus, else 0.
        let below = V::eq(borrow, V::splat(token, u64::MAX));
        for (a, difference) in a.rows.iter_mut().zip(&difference) {
            V::select(below, V::load(token, a), V::load(token, difference)).store(a);
        }
        difference.zeroize();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oracle::{Random, below, cases, number, product};
    use crate::properties::{Task, check};
    use crate::token::Path;
    use crate::vector::LANES;

    /// Random operands per kernel, modulus length and path.
    const CASES: usize = 100_000;

    /// A number just under twice a modulus just under 2^bits, and the other corners of the ranges.
    fn corners<const N: usize>(bits: usize) -> Vec<[Row; N]> {
        let power = |bits: usize| {
            let mut rows = [Row::ZERO; N];
            rows[bits / 52] = Row::splat(1 << (bits % 52));
            rows
        };
        let ones = |bits: usize| {
            let mut rows = [Row::ZERO; N];
            for (i, row) in rows.iter_mut().enumerate() {
                *row = Row::splat((1 << bits.saturating_sub(52 * i).min(52)) - 1);
            }
            rows
        };
        let mut one = [Row::ZERO; N];
        one[0] = Row::splat(1);
        vec![
            [Row::ZERO; N],
            one,
            ones(52),
            ones(bits - 1),
            power(bits - 1),
            ones(bits),
            power(bits),
        ]
    }

    fn suite<const N: usize>(task: Task, bits: usize, cases: usize) {
        eprintln!("{N} digits on {:?}", Path::all());
        // Odd moduli with the top bit set: the smallest, the largest, and one with a sparse low end.
        let (mut smallest, mut largest, mut sparse) =
            ([Row::ZERO; N], [Row::ZERO; N], [Row::ZERO; N]);
        for (i, row) in largest.iter_mut().enumerate() {
            *row = Row::splat((1 << (bits.saturating_sub(52 * i).min(52))) - 1);
        }
        smallest[0] = Row::splat(1);
        smallest[(bits - 1) / 52] = Row::splat(1 << ((bits - 1) % 52));
        sparse[0] = Row::splat(DIGIT_MASK);
        sparse[(bits - 1) / 52] = Row::splat(1 << ((bits - 1) % 52));
        for m in [smallest, largest, sparse] {
            let corners = corners::<N>(bits);
            for a in &corners {
                for b in &corners {
                    // 2^bits is not below twice the smallest modulus, which is what operands must be.
                    if (0..LANES).all(|lane| {
                        let bound = product(&number(&m, lane), &[2]);
                        below(&number(a, lane), &bound) && below(&number(b, lane), &bound)
                    }) {
                        check(task, m, *a, *b);
                    }
                }
            }
            // m - 1, m itself where it is allowed, and 2 m - 1.
            let mut minus_one = m;
            minus_one[0] = Row::splat(m[0].0[0] - 1);
            check(task, m, minus_one, minus_one);
            check(task, m, m, m);
        }
        let mut random = Random(0x1a_2b3c ^ u64::try_from(N).unwrap());
        for _ in 0..cases / LANES {
            let mut m = random.rows::<N>(bits);
            for lane in 0..LANES {
                m[0].0[lane] |= 1;
                m[(bits - 1) / 52].0[lane] |= 1 << ((bits - 1) % 52);
            }
            // At most `bits` bits: below twice any modulus with its top bit set.
            check(task, m, random.rows(bits), random.rows(bits));
        }
    }

    #[test]
    fn squares_of_1024_bits() {
        suite::<20>(Task::Square, 1024, CASES);
    }

    #[test]
    fn squares_of_1536_bits() {
        suite::<30>(Task::Square, 1536, CASES);
    }

    #[test]
    fn squares_of_2048_bits() {
        suite::<40>(Task::Square, 2048, CASES);
    }

    #[test]
    fn products_of_1024_bits() {
        suite::<20>(Task::Multiply, 1024, CASES);
    }

    #[test]
    fn products_of_1536_bits() {
        suite::<30>(Task::Multiply, 1536, CASES);
    }

    #[test]
    fn products_of_2048_bits() {
        suite::<40>(Task::Multiply, 2048, CASES);
    }

    /// The check with the public exponent uses the longer ones, a dozen times an operation.
    #[test]
    fn squares_and_products_of_3072_and_4096_bits() {
        let cases = cases(CASES / 50);
        suite::<60>(Task::Square, 3072, cases);
        suite::<60>(Task::Multiply, 3072, cases);
        suite::<80>(Task::Square, 4096, cases);
        suite::<80>(Task::Multiply, 4096, cases);
    }

    #[test]
    fn decoding_and_canonical_form() {
        for task in [Task::Decode, Task::Canonicalise] {
            suite::<20>(task, 1024, cases(CASES / 10));
            suite::<30>(task, 1536, cases(CASES / 10));
            suite::<40>(task, 2048, cases(CASES / 10));
        }
    }
}
