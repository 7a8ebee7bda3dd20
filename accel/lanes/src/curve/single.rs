//! One number at a time, for public values: the table of the generator's multiples is made with it.
//!
//! Numbers are in the Montgomery domain and below the prime. Nothing here runs in constant time.

use core::marker::PhantomData;

use super::Curve;
use super::prime::{DIGIT_BITS, DIGIT_MASK, Prime, negated_inverse};

/// A number modulo `P`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Single<P, const N: usize>(pub(crate) [u64; N], PhantomData<P>);

impl<P: Prime<N>, const N: usize> Single<P, N> {
    /// One.
    pub(crate) const ONE: Self = Self(P::R1, PhantomData);

    /// Takes a plain number below the prime into the Montgomery domain.
    pub(crate) fn new(digits: &[u64; N]) -> Self {
        Self(*digits, PhantomData).mul(Self(P::R2, PhantomData))
    }

    /// The product, digit by digit as in [`super::prime::generic_step`].
    pub(crate) fn mul(self, other: Self) -> Self {
        let inverse = u128::from(negated_inverse(P::MODULUS[0]));
        let mut window = [0u128; N];
        for a in self.0 {
            let a = u128::from(a);
            for (digit, b) in window.iter_mut().zip(other.0) {
                *digit += a * u128::from(b);
            }
            // Only the low digit of the product is wanted, so it may wrap.
            let q = window[0].wrapping_mul(inverse) & u128::from(DIGIT_MASK);
            for (digit, modulus) in window.iter_mut().zip(P::MODULUS) {
                *digit += q * u128::from(modulus);
            }
            let carry = window[0] >> DIGIT_BITS;
            window.copy_within(1.., 0);
            window[N - 1] = 0;
            window[0] += carry;
        }
        let mut digits = [0; N];
        let mut carry = 0;
        for (digit, wide) in digits.iter_mut().zip(window) {
            let wide = wide + carry;
            *digit = low_digit(wide);
            carry = wide >> DIGIT_BITS;
        }
        Self(subtract_once::<P, N>(digits), PhantomData)
    }

    /// The sum.
    pub(crate) fn add(self, other: Self) -> Self {
        let mut digits = [0; N];
        let mut carry = 0;
        for (digit, (a, b)) in digits.iter_mut().zip(self.0.into_iter().zip(other.0)) {
            let sum = a + b + carry;
            *digit = sum & DIGIT_MASK;
            carry = sum >> DIGIT_BITS;
        }
        Self(subtract_once::<P, N>(digits), PhantomData)
    }

    /// The difference.
    pub(crate) fn sub(self, other: Self) -> Self {
        let (negated, _) = subtract(&P::MODULUS, &other.0);
        self.add(Self(negated, PhantomData))
    }

    /// The inverse, as the power `p - 2`.
    pub(crate) fn invert(self) -> Self {
        let mut two = [0; N];
        two[0] = 2;
        let (exponent, _) = subtract(&P::MODULUS, &two);
        let mut result = Self::ONE;
        for bit in (0..N * DIGIT_BITS).rev() {
            result = result.mul(result);
            if (exponent[bit / DIGIT_BITS] >> (bit % DIGIT_BITS)) & 1 == 1 {
                result = result.mul(self);
            }
        }
        result
    }
}

#[expect(clippy::cast_possible_truncation, reason = "masked to 52 bits")]
const fn low_digit(wide: u128) -> u64 {
    (wide & DIGIT_MASK as u128) as u64
}

/// `a - b`, and whether it borrowed.
fn subtract<const N: usize>(a: &[u64; N], b: &[u64; N]) -> ([u64; N], bool) {
    let mut result = [0; N];
    let mut borrow = 0;
    for (digit, (a, b)) in result.iter_mut().zip(a.iter().zip(b)) {
        let difference = a.wrapping_sub(*b).wrapping_sub(borrow);
        *digit = difference & DIGIT_MASK;
        borrow = difference >> 63;
    }
    (result, borrow == 1)
}

#[cfg(test)]
impl<P: Prime<N>, const N: usize> Single<P, N> {
    /// Digits that are in the Montgomery domain and below the prime already.
    pub(crate) fn raw(digits: &[u64; N]) -> Self {
        Self(*digits, PhantomData)
    }

    /// Digits that are in the Montgomery domain, of any size: subtracts the prime until they are below it.
    pub(crate) fn reduced(digits: &[u64; N]) -> Self {
        // One leads back to the same number, below the prime.
        let mut digits = *digits;
        let mut top = P::MODULUS;
        let mut doublings = 0;
        while top[N - 1] < 1 << 50 {
            top = super::prime::times(&top, 2);
            doublings += 1;
        }
        for _ in 0..=doublings {
            loop {
                let (less, borrowed) = subtract(&digits, &top);
                if borrowed {
                    break;
                }
                digits = less;
            }
            for i in 0..N {
                let above = top.get(i + 1).map_or(0, |digit| digit & 1);
                top[i] = top[i] >> 1 | above << (DIGIT_BITS - 1);
            }
        }
        Self(digits, PhantomData)
    }

    /// The inverse of the digits as they stand, as a plain number.
    pub(crate) fn invert_plain(self) -> [u64; N] {
        // invert: 1/x in the Montgomery domain is R^2 / (x R); leaving it twice gives 1 / (x R).
        let mut one = [0; N];
        one[0] = 1;
        let leave = Self(one, PhantomData);
        self.invert().mul(leave).mul(leave).0
    }
}

/// Brings a number below twice the prime below it.
fn subtract_once<P: Prime<N>, const N: usize>(digits: [u64; N]) -> [u64; N] {
    let (reduced, borrowed) = subtract(&digits, &P::MODULUS);
    if borrowed { digits } else { reduced }
}

/// A point in XYZZ coordinates.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SinglePoint<C: Curve<N>, const N: usize> {
    pub(crate) x: Single<C::Coordinate, N>,
    y: Single<C::Coordinate, N>,
    pub(crate) zz: Single<C::Coordinate, N>,
    zzz: Single<C::Coordinate, N>,
}

impl<C: Curve<N>, const N: usize> SinglePoint<C, N> {
    /// The generator.
    pub(crate) fn generator() -> Self {
        let [x, y] = C::GENERATOR;
        Self {
            x: Single::new(&x),
            y: Single::new(&y),
            zz: Single::ONE,
            zzz: Single::ONE,
        }
    }

    /// Twice the point (`dbl-2008-s-1`); the neutral point has no place here.
    pub(crate) fn double(self) -> Self {
        let u = self.y.add(self.y);
        let v = u.mul(u);
        let w = u.mul(v);
        let s = self.x.mul(v);
        // 3 X^2 - 3 ZZ^2 = 3 (X - ZZ) (X + ZZ)
        let m = self.x.sub(self.zz).mul(self.x.add(self.zz));
        let m = m.add(m).add(m);
        let x = m.mul(m).sub(s).sub(s);
        Self {
            x,
            y: m.mul(s.sub(x)).sub(w.mul(self.y)),
            zz: v.mul(self.zz),
            zzz: w.mul(self.zzz),
        }
    }

    /// The sum of two points that are neither equal nor opposite (`add-2008-s`).
    pub(crate) fn add(self, other: Self) -> Self {
        let u1 = self.x.mul(other.zz);
        let s1 = self.y.mul(other.zzz);
        let p = other.x.mul(self.zz).sub(u1);
        let r = other.y.mul(self.zzz).sub(s1);
        let pp = p.mul(p);
        let ppp = p.mul(pp);
        let q = u1.mul(pp);
        let x = r.mul(r).sub(ppp).sub(q).sub(q);
        Self {
            x,
            y: r.mul(q.sub(x)).sub(s1.mul(ppp)),
            zz: self.zz.mul(other.zz).mul(pp),
            zzz: self.zzz.mul(other.zzz).mul(ppp),
        }
    }
}

/// The affine coordinates of many points, for the price of one inversion (Montgomery's trick).
pub(crate) fn to_affine<C: Curve<N>, const N: usize>(
    points: &[SinglePoint<C, N>],
) -> Vec<[Single<C::Coordinate, N>; 2]> {
    let mut before = Vec::with_capacity(points.len());
    let mut product = Single::ONE;
    for point in points {
        before.push(product);
        product = product.mul(point.zzz);
    }
    let mut inverse = product.invert();
    let mut result = Vec::with_capacity(points.len());
    for (point, before) in points.iter().zip(before).rev() {
        let inverse_zzz = inverse.mul(before);
        inverse = inverse.mul(point.zzz);
        // ZZ / ZZZ is 1 / Z, as ZZ^3 = ZZZ^2.
        let inverse_z = point.zz.mul(inverse_zzz);
        let inverse_zz = inverse_z.mul(inverse_z);
        result.push([point.x.mul(inverse_zz), point.y.mul(inverse_zzz)]);
    }
    result.reverse();
    result
}
