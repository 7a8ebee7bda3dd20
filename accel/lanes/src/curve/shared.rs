//! One inversion for eight lanes (Montgomery's trick): what is inverted is the product of all lanes, and each lane gets
//! its own inverse back by multiplying with the product of the seven others.
//!
//! No lane may hold a zero, for it would spoil all eight; callers put a one in its place first.

use zeroize::Zeroize;

use super::prime::{Element, Field, Montgomery, Plain, Prime};
use crate::vector::{LANES, Row, Vector};

/// What a batch keeps between the products and the inverse.
pub(crate) struct Products<const N: usize> {
    /// The product of all lanes, canonical, in every lane.
    pub(crate) total: [Row; N],
    /// For each lane, the product of the others.
    pub(crate) others: [Row; N],
}

impl<const N: usize> Products<N> {
    /// Nothing yet.
    pub(crate) const EMPTY: Self = Self {
        total: [Row::ZERO; N],
        others: [Row::ZERO; N],
    };

    /// The product of all lanes.
    pub(crate) fn total(&self) -> [u64; N] {
        self.total.map(|row| row.0[0])
    }
}

impl<const N: usize> Zeroize for Products<N> {
    fn zeroize(&mut self) {
        self.total.zeroize();
        self.others.zeroize();
    }
}

/// The lane that differs in one bit of its number.
const PARTNERS: [Row; 3] = [partners(1), partners(2), partners(4)];

const fn partners(bit: u64) -> Row {
    let mut row = [0; LANES];
    let mut lane = 0;
    while lane < LANES {
        row[lane] = lane as u64 ^ bit;
        lane += 1;
    }
    Row(row)
}

/// Multiplies pairs, then pairs of pairs, then both halves: five multiplications, three of them deep.
#[inline(always)]
pub(crate) fn multiply_lanes<V: Vector, P: Prime<N>, const N: usize>(
    token: V::Token,
    field: &Field<V, P, N>,
    values: &Element<V, P, Montgomery, N>,
    products: &mut Products<N>,
) {
    let [first, second, third] = &PARTNERS;
    let neighbour = values.permute(V::load(token, first));
    let pair = field.product(values, &neighbour);
    let other_pair = pair.permute(V::load(token, second));
    let half = field.product(&pair, &other_pair);
    let other_half = half.permute(V::load(token, third));
    let others = field.product(&neighbour, &other_pair);
    let total = field.product(&half, &other_half);
    field.canonical(&total).store(&mut products.total);
    field
        .product(&others, &other_half)
        .store(&mut products.others);
}

/// The inverse of each lane as a plain number, from the inverse of `total`. The digits of `total` are `x R`, so those
/// of its inverse are `1 / (x R)`; a multiplication by `R^2` makes that `1 / x`.
#[inline(always)]
pub(crate) fn inverse_plain<V: Vector, P: Prime<N>, const N: usize>(
    field: &Field<V, P, N>,
    total_inverse: &[u64; N],
    others: &[Row; N],
) -> Element<V, P, Plain, N> {
    let inverse: Element<V, P, Plain, N> = field.splat(total_inverse);
    let inverse = field.product(&inverse, &field.splat(&P::R2));
    field.product(&inverse, &field.load(others))
}

/// [`inverse_plain`], staying in the Montgomery domain: multiplied by `R^3` instead.
#[inline(always)]
pub(crate) fn inverse_montgomery<V: Vector, P: Prime<N>, const N: usize>(
    field: &Field<V, P, N>,
    total_inverse: &[u64; N],
    others: &[Row; N],
) -> Element<V, P, Montgomery, N> {
    let inverse: Element<V, P, Montgomery, N> = field.splat(total_inverse);
    let inverse = field.product(&inverse, &field.splat(&P::R3));
    field.product(&inverse, &field.load(others))
}
