//! Multiples of the generator: eight different scalars at once, every table entry read for each of them.

use core::marker::PhantomData;

use super::Curve;
use super::point::{Affine, Point};
use super::prime::{DIGIT_BITS, Element, Field, Prime};
use super::shared::{Products, multiply_lanes};
use super::single::{SinglePoint, to_affine};
use crate::vector::{Kernel, LANES, Row, Vector};

/// Bits of the scalar that one addition consumes.
pub(crate) const WINDOW_BITS: usize = 7;
/// The bit of a window that tells its sign.
const SIGN_BIT: u32 = 6;
const _: () = assert!(SIGN_BIT as usize + 1 == WINDOW_BITS);
/// Entries a position: the odd multiples 1, 3, ... 2^7 - 1.
const ENTRIES: usize = 1 << (WINDOW_BITS - 1);
/// Rows that hold one digit of all entries of a position.
const ROWS: usize = ENTRIES / LANES;
/// Rows that one permutation looks into.
const PAIR: usize = 2;

/// The odd multiples of `2^(7 i) G` for one `i`: for x and y, for each digit, the entries eight to a row.
type Position<const N: usize> = [[[Row; ROWS]; N]; 2];

/// The table of a curve: all positions, the most significant first, in the order in which they are used.
pub(crate) struct Comb<const N: usize>(Vec<Position<N>>);

impl<const N: usize> Comb<N> {
    /// Computes the table. It takes a few milliseconds and is done once in the life of a process.
    pub(crate) fn new<C: Curve<N>>() -> Self {
        let mut points = Vec::with_capacity(C::WINDOWS * ENTRIES);
        let mut base = SinglePoint::<C, N>::generator();
        for _ in 0..C::WINDOWS {
            let step = base.double();
            let mut entry = base;
            for i in 0..ENTRIES {
                // 3 P = P + 2 P and so on: never equal, never opposite.
                if i > 0 {
                    entry = entry.add(step);
                }
                points.push(entry);
            }
            for _ in 0..WINDOW_BITS {
                base = base.double();
            }
        }
        let affine = to_affine(&points);
        let mut positions = Vec::with_capacity(C::WINDOWS);
        for entries in affine.chunks_exact(ENTRIES).rev() {
            let mut position: Position<N> = [[[Row::ZERO; ROWS]; N]; 2];
            for (i, entry) in entries.iter().enumerate() {
                for (coordinate, value) in position.iter_mut().zip(entry) {
                    for (digit, value) in coordinate.iter_mut().zip(value.0) {
                        digit[i / LANES].0[i % LANES] = value;
                    }
                }
            }
            positions.push(position);
        }
        Self(positions)
    }
}

#[cfg(test)]
impl<const N: usize> Comb<N> {
    /// Damages x of entry 3 in the least significant position.
    pub(crate) fn flip_bit(&mut self) {
        self.0.last_mut().expect("a position")[0][0][0].0[3] ^= 1 << 17;
    }
}

/// Eight entries out of a position. `window` is seven bits `B` of the recoded scalar, which stand for the odd digit
/// `2 B + 1 - 2^7`: the top bit is the sign, and the others, complemented if negative, are the entry.
#[inline(always)]
fn look_up<V: Vector, C: Curve<N>, const N: usize>(
    token: V::Token,
    position: &Position<N>,
    window: V,
) -> Affine<V, C, N> {
    let zero = V::splat(token, 0);
    let sign = window.shr::<SIGN_BIT>();
    let negative = sign.eq(zero);
    // All ones where negative: 0 - 1.
    let complement = sign.sub(V::splat(token, 1));
    let index = window
        .xor(complement)
        .and(V::splat(token, ENTRIES as u64 - 1));
    let block = index.shr::<4>();
    let mut in_block = [zero.eq(zero); ROWS / PAIR];
    for (number, mask) in (0..).zip(&mut in_block) {
        *mask = block.eq(V::splat(token, number));
    }
    let [x, y] = position;
    Affine {
        x: look_up_coordinate(token, x, index, &in_block),
        y: look_up_coordinate(token, y, index, &in_block),
        negative,
    }
}

/// One coordinate: all rows are read, whatever the index.
#[inline(always)]
fn look_up_coordinate<V: Vector, P: Prime<N>, D, const N: usize>(
    token: V::Token,
    rows: &[[Row; ROWS]; N],
    index: V,
    in_block: &[V::Mask; ROWS / PAIR],
) -> Element<V, P, D, N> {
    let mut digits = [index; N];
    for (digit, rows) in digits.iter_mut().zip(rows) {
        let mut found = index;
        for (block, mask) in in_block.iter().enumerate() {
            let low = V::load(token, &rows[PAIR * block]);
            let high = V::load(token, &rows[PAIR * block + 1]);
            found = V::select(*mask, V::permute2(index, low, high), found);
        }
        *digit = found;
    }
    Element::from_digits(digits)
}

/// Eight multiples of the generator, up to sign.
pub(crate) struct BaseMultiply<'a, C: Curve<N>, const N: usize> {
    /// Scalars in `1..n`.
    pub(crate) scalars: &'a [Row; N],
    /// Receives `X`: the x coordinate is `X / ZZ`.
    pub(crate) x: &'a mut [Row; N],
    /// Receives what the inversion of `ZZ` needs; lanes that failed count as one.
    pub(crate) products: &'a mut Products<N>,
    /// The table.
    pub(crate) comb: &'a Comb<N>,
    /// The curve of the table.
    pub(crate) curve: PhantomData<C>,
}

impl<C: Curve<N>, const N: usize> Kernel for BaseMultiply<'_, C, N> {
    /// Lanes whose result is a point of the curve other than the neutral one. Zero bits: a fault, or the one scalar
    /// (of about 2^256 or 2^384) for which the last addition would have had to be a doubling.
    type Output = u8;

    #[inline(always)]
    fn run<V: Vector>(self, token: V::Token) -> u8 {
        let field: Field<V, C::Coordinate, N> = Field::new(token);
        let recoded = recode::<V, C, N>(token, self.scalars);
        let mut positions = self.comb.0.iter();
        let mut bit = C::WINDOWS * WINDOW_BITS;
        let Some(first) = positions.next() else {
            return 0;
        };
        bit -= WINDOW_BITS;
        let first = look_up(token, first, window(token, &recoded, bit));
        let mut point = Point::<V, C, N>::from_affine(&field, &first);
        for position in positions {
            bit -= WINDOW_BITS;
            let next = look_up(token, position, window(token, &recoded, bit));
            point = point.add(&field, &next);
        }
        let valid = point.is_on_curve(&field);
        point.x.store(self.x);
        let zz = Element::select(valid, &point.zz, &field.splat(&C::Coordinate::R1));
        multiply_lanes(token, &field, &zz, self.products);
        V::bits(valid)
    }
}

/// Writes the odd one of `k` and `n - k` with digits 1 and -1 only: `b = (k - 1) / 2 + 2^(bits - 1)` has a one where
/// the digit is 1.
#[inline(always)]
fn recode<V: Vector, C: Curve<N>, const N: usize>(token: V::Token, scalars: &[Row; N]) -> [Row; N] {
    let order: Field<V, C::Order, N> = Field::new(token);
    let scalar: Element<V, C::Order, super::prime::Plain, N> = order.load(scalars);
    let modulus = order.splat(&<C::Order as Prime<N>>::MODULUS);
    let negated = order.carry(modulus.sum().minus(scalar.sum()));
    let one = V::splat(token, 1);
    let odd = scalar.0[0].and(one).eq(one);
    let scalar = Element::select(odd, &scalar, &negated);
    let mut result = [Row::ZERO; N];
    let sign_bit = C::WINDOWS * WINDOW_BITS - 1;
    for (i, row) in result.iter_mut().enumerate() {
        let mut digit = scalar.0[i].shr::<1>();
        if let Some(above) = scalar.0.get(i + 1) {
            digit = digit.or(above.and(one).shl::<51>());
        }
        if i == sign_bit / DIGIT_BITS {
            digit = digit.or(V::splat(token, 1 << (sign_bit % DIGIT_BITS)));
        }
        digit.store(row);
    }
    result
}

/// Seven bits of the recoded scalars, from `bit` on.
#[inline(always)]
#[expect(
    clippy::cast_possible_truncation,
    reason = "an offset within a digit is below 52"
)]
fn window<V: Vector, const N: usize>(token: V::Token, recoded: &[Row; N], bit: usize) -> V {
    let (digit, offset) = (bit / DIGIT_BITS, bit % DIGIT_BITS);
    let mask = V::splat(token, (1 << WINDOW_BITS) - 1);
    let low = V::load(token, &recoded[digit]).shr_by(offset as u32);
    if digit + 1 == N || offset + WINDOW_BITS <= DIGIT_BITS {
        return low.and(mask);
    }
    // A product by a power of two is a shift up, and the branch depends on the position only.
    let high = V::load(token, &recoded[digit + 1]);
    low.madd52lo(high, V::splat(token, 1 << (DIGIT_BITS - offset)))
        .and(mask)
}
