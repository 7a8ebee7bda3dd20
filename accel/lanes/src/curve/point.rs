//! Points in XYZZ coordinates: `x = X / ZZ`, `y = Y / ZZZ`, `ZZ^3 = ZZZ^2`.
//!
//! Adding an affine point costs 8 multiplications and 2 squarings (Sutherland; `madd-2008-s` of the Explicit-Formulas
//! Database), one squaring less than the best Jacobian formula, and ECDSA needs only `X / ZZ` at the end.

use super::Curve;
use super::prime::{Element, Field, Montgomery, Sum};
use crate::vector::Vector;

/// A coordinate of eight points.
pub(crate) type Coordinate<V, C, const N: usize> =
    Element<V, <C as Curve<N>>::Coordinate, Montgomery, N>;

/// Eight points. `x` is settled, `y` below 5 p, `zz` and `zzz` below 2 p.
#[derive(Clone, Copy)]
pub(crate) struct Point<V: Vector, C: Curve<N>, const N: usize> {
    pub(crate) x: Coordinate<V, C, N>,
    pub(crate) y: Coordinate<V, C, N>,
    pub(crate) zz: Coordinate<V, C, N>,
    pub(crate) zzz: Coordinate<V, C, N>,
}

/// Eight affine points out of a table, and which of them are to be negated. Coordinates are below p.
#[derive(Clone, Copy)]
pub(crate) struct Affine<V: Vector, C: Curve<N>, const N: usize> {
    pub(crate) x: Coordinate<V, C, N>,
    pub(crate) y: Coordinate<V, C, N>,
    pub(crate) negative: V::Mask,
}

impl<V: Vector, C: Curve<N>, const N: usize> Point<V, C, N> {
    /// The point as it stands, `negative` ignored: the top window is never negative.
    #[inline(always)]
    pub(crate) fn from_affine(field: &Field<V, C::Coordinate, N>, point: &Affine<V, C, N>) -> Self {
        let one = field.splat(&<C::Coordinate as super::Prime<N>>::R1);
        Self {
            x: point.x,
            y: point.y,
            zz: one,
            zzz: one,
        }
    }

    /// `self + other`. Where the two are equal or opposite the result has `ZZ = 0`, and so has every sum made from it.
    #[inline(always)]
    pub(crate) fn add(&self, field: &Field<V, C::Coordinate, N>, other: &Affine<V, C, N>) -> Self {
        let settled = <C::Coordinate as super::Prime<N>>::SETTLED;
        // Independent products stand side by side, so that the processor overlaps them: one alone leaves half of the
        // multiplier idle. The four before x do not wait for the long way from x to y, nor do the next two of the
        // following addition.
        let u2 = field.mul(&other.x, &self.zz);
        let s2 = field.mul(&other.y, &self.zzz).negate_where(other.negative);
        let p = field.carry(field.sub(u2, self.x.sum(), settled));
        let r = field.carry(field.sub(s2, self.y.sum(), 6));
        let pp = field.carry(field.square(&p));
        let rr = field.square(&r);
        let ppp = field.carry(field.mul(&p, &pp));
        let q: Sum<V, _, _, N> = field.mul(&self.x, &pp);
        let x = field.settle(field.sub(rr, ppp.sum().plus(q).plus(q), 4));
        let zz = field.carry(field.mul(&self.zz, &pp));
        let y_ppp = field.mul(&self.y, &ppp);
        let zzz = field.carry(field.mul(&self.zzz, &ppp));
        let slope = field.carry(field.sub(q, x.sum(), settled));
        let y = field.carry(field.sub(field.mul(&r, &slope), y_ppp, 2));
        Self { x, y, zz, zzz }
    }

    /// Which lanes hold a point of the curve other than the neutral one: `ZZ^3 = ZZZ^2`,
    /// `Y^2 = X^3 - 3 X ZZ^2 + b ZZ^3` and `ZZ != 0`.
    #[inline(always)]
    pub(crate) fn is_on_curve(&self, field: &Field<V, C::Coordinate, N>) -> V::Mask {
        let b = field.enter(&field.splat(&C::B));
        let zz2 = field.product(&self.zz, &self.zz);
        let zz3 = field.product(&self.zz, &zz2);
        let zzz2 = field.product(&self.zzz, &self.zzz);
        let x2 = field.product(&self.x, &self.x);
        let x3 = field.product(&self.x, &x2).sum();
        let xz = field.product(&self.x, &zz2).sum();
        let right = x3.plus(field.product(&zz3, &b).sum());
        let right = field.carry(field.sub(right, xz.plus(xz).plus(xz), 6));
        let left = field.product(&self.y, &self.y);

        let wrong = field
            .difference(&zz3, &zzz2)
            .or(field.difference(&left, &right));
        let zz = field.number(&self.zz);
        // A lane whose ZZ is zero differs, whatever the equations say.
        let wrong = V::select(field.is_zero(&zz), field.ones(), wrong);
        wrong.eq(field.zero())
    }
}
