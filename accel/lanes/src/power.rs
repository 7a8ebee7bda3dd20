//! Exponentiation with secret exponents: fixed windows, and a table that is read in full for every window.
//!
//! The table is read between the steps of the squarings, a digit at a time: loads and bit operations have units of their
//! own, which idle while the multipliers work. Windows of five bits would save three multiplications in a hundred and
//! cost more than that in reading: their tables leave the first-level cache at 1536 bits and up.

use core::ops::Range;

use zeroize::Zeroize;

use crate::blocks::Aside;
use crate::montgomery::{Encoded, Moduli, Residue};
use crate::vector::{Row, Vector};

/// Bits of an exponent in one row: a multiple of every window width up to 6, so that no window straddles two rows.
pub(crate) const EXPONENT_ROW_BITS: usize = 60;

/// Bits of a window.
const WINDOW: usize = 4;
/// Entries of a table.
const ENTRIES: usize = 1 << WINDOW;

/// The powers of eight numbers of `N` digits that an exponentiation multiplies with: for each digit, that of all entries
/// side by side.
pub(crate) type Table<const N: usize> = [[Row; ENTRIES]; N];

/// A table that holds nothing yet.
pub(crate) const fn empty_table<const N: usize>() -> Table<N> {
    [[Row::ZERO; ENTRIES]; N]
}

/// Windows of exponents of so many bits.
pub(crate) const fn windows(bits: usize) -> usize {
    bits.div_ceil(WINDOW)
}

/// Starts eight powers, each with its own base, exponent and modulus: fills the table, which stays with this
/// exponentiation, and returns the power for the topmost window alone.
///
/// `bits` is the public upper bound of the exponents' length; `one` is 1 encoded. Time and addresses depend on `bits`
/// and `N` alone, here and in [`advance`].
#[inline(always)]
pub(crate) fn start<V: Vector, M, const N: usize>(
    token: V::Token,
    moduli: &mut Moduli<M, N>,
    base: &Residue<M, Encoded, N>,
    one: &Residue<M, Encoded, N>,
    exponents: &[Row],
    bits: usize,
    table: &mut Table<N>,
) -> Residue<M, Encoded, N> {
    fill::<V, M, N>(token, moduli, base, one, table);
    let mut lookup = Lookup::<N>::new(table);
    lookup.start::<V>(token, window::<V>(token, exponents, windows(bits) - 1));
    for digit in 0..N {
        lookup.pick::<V>(token, digit);
    }
    let power = Residue::assume(lookup.picked);
    lookup.zeroize();
    power
}

/// Carries powers on through some windows, from the highest of the range to the lowest. Ranges follow one another downwards
/// from `0..windows(bits) - 1`.
#[inline(always)]
pub(crate) fn advance<V: Vector, M, const N: usize>(
    token: V::Token,
    moduli: &mut Moduli<M, N>,
    power: &mut Residue<M, Encoded, N>,
    exponents: &[Row],
    range: Range<usize>,
    table: &Table<N>,
) {
    let mut lookup = Lookup::<N>::new(table);
    for w in range.rev() {
        lookup.start::<V>(token, window::<V>(token, exponents, w));
        for s in 0..WINDOW {
            lookup.next = s * N.div_ceil(WINDOW);
            moduli.square_aside::<V>(token, power, &mut lookup);
        }
        let factor = Residue::assume(lookup.picked);
        moduli.multiply::<V, _>(token, power, &factor);
    }
    lookup.zeroize();
}

/// Writes `base^i` for each index `i` into the table. Even powers are squares, which cost less than products.
#[inline(always)]
fn fill<V: Vector, M, const N: usize>(
    token: V::Token,
    moduli: &mut Moduli<M, N>,
    base: &Residue<M, Encoded, N>,
    one: &Residue<M, Encoded, N>,
    table: &mut Table<N>,
) {
    let mut next = one.clone();
    for i in 0..ENTRIES {
        match i {
            0 => {}
            1 => next.rows = base.rows,
            _ if i % 2 == 1 => moduli.multiply::<V, _>(token, &mut next, base),
            _ => {
                for (row, entries) in next.rows.iter_mut().zip(&*table) {
                    *row = entries[i / 2];
                }
                moduli.square::<V>(token, &mut next);
            }
        }
        for (entries, row) in table.iter_mut().zip(&next.rows) {
            entries[i] = *row;
        }
    }
    next.zeroize();
}

/// Window `w` of each exponent, counted from the low end.
#[inline(always)]
fn window<V: Vector>(token: V::Token, exponents: &[Row], w: usize) -> V {
    let per_row = EXPONENT_ROW_BITS / WINDOW;
    let shift = (w % per_row) * WINDOW;
    #[expect(clippy::cast_possible_truncation, reason = "at most 60")]
    let window = V::load(token, &exponents[w / per_row]).shr_by(shift as u32);
    window.and(V::splat(token, (1 << WINDOW) - 1))
}

/// A constant-time lookup in progress, a digit at a time, between the steps of the squarings that come before the
/// factor is needed. A window has as many squarings as bits, and each looks up its share of the digits.
struct Lookup<'a, const N: usize> {
    table: &'a Table<N>,
    /// For each entry, all ones in the lanes that want it: secret.
    masks: [Row; ENTRIES],
    /// The first digit of the share of the squaring at hand.
    next: usize,
    picked: [Row; N],
}

impl<'a, const N: usize> Lookup<'a, N> {
    #[inline(always)]
    const fn new(table: &'a Table<N>) -> Self {
        Self {
            table,
            masks: [Row::ZERO; ENTRIES],
            next: 0,
            picked: [Row::ZERO; N],
        }
    }

    #[inline(always)]
    fn zeroize(&mut self) {
        self.masks.zeroize();
        self.picked.zeroize();
    }

    /// Starts a lookup: all ones in the lanes that want entry 0, entry 1, and so on.
    #[inline(always)]
    fn start<V: Vector>(&mut self, token: V::Token, index: V) {
        let (ones, zero) = (V::splat(token, u64::MAX), V::splat(token, 0));
        let mut number = zero;
        for mask in &mut self.masks {
            V::select(index.eq(number), ones, zero).store(mask);
            number = number.add(V::splat(token, 1));
        }
    }

    /// Copies one digit of each lane's entry. Reads this digit of every entry: they lie side by side.
    #[inline(always)]
    fn pick<V: Vector>(&mut self, token: V::Token, digit: usize) {
        let rows = &self.table[digit];
        let mut picked = [V::splat(token, 0); 4];
        for i in 0..ENTRIES {
            picked[i % 4] =
                picked[i % 4].or(V::load(token, &rows[i]).and(V::load(token, &self.masks[i])));
        }
        picked[0]
            .or(picked[1])
            .or(picked[2].or(picked[3]))
            .store(&mut self.picked[digit]);
    }
}

impl<const N: usize> Aside for Lookup<'_, N> {
    #[inline(always)]
    fn piece<V: Vector>(&mut self, token: V::Token, k: usize) {
        let digit = self.next + k;
        if k < N.div_ceil(WINDOW) && digit < N {
            self.pick::<V>(token, digit);
        }
    }
}
