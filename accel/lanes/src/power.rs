//! Exponentiation with secret exponents: fixed windows, and a table that is read in full for every window.

use zeroize::Zeroize;

use crate::montgomery::{Encoded, Moduli, Residue};
use crate::vector::{Row, Vector};

/// Bits of an exponent in one row: a multiple of every window width up to 6, so that no window straddles two rows.
pub(crate) const EXPONENT_ROW_BITS: usize = 60;

/// Table entries for windows of `WINDOW` bits.
pub(crate) const fn entries(window: usize) -> usize {
    1 << window
}

/// `base ^ exponent`, eight at once, each with its own base, exponent and modulus.
///
/// `bits` is the public upper bound of the exponents' length; `one` is 1 encoded; `table` has [`entries`] entries.
/// Time and addresses depend on `bits`, `N` and `WINDOW` alone.
#[inline(always)]
pub(crate) fn power<V: Vector, M, const N: usize, const WINDOW: usize>(
    token: V::Token,
    moduli: &mut Moduli<M, N>,
    base: Residue<M, Encoded, N>,
    one: Residue<M, Encoded, N>,
    exponents: &[Row],
    bits: usize,
    table: &mut [[Row; N]],
) -> Residue<M, Encoded, N> {
    let table = &mut table[..entries(WINDOW)];
    fill::<V, M, N>(token, moduli, base, one, table);
    let windows = bits.div_ceil(WINDOW);
    let share = N.div_ceil(WINDOW);

    let mut picked = Residue::zero();
    let top = window::<V, WINDOW>(token, exponents, windows - 1);
    for first in (0..N).step_by(share) {
        pick::<V, M, N>(token, table, top, first, share, &mut picked);
    }
    let mut power = picked.clone();
    for w in (0..windows - 1).rev() {
        let index = window::<V, WINDOW>(token, exponents, w);
        for s in 0..WINDOW {
            moduli.square::<V>(token, &mut power);
            // A share of the table scan after each squaring: its loads and selects fill the cycles in which the
            // multipliers wait for the last carries.
            pick::<V, M, N>(token, table, index, s * share, share, &mut picked);
        }
        moduli.multiply::<V, _>(token, &mut power, &picked);
    }
    picked.zeroize();
    power
}

/// `table[i] = base^i`.
#[inline(always)]
fn fill<V: Vector, M, const N: usize>(
    token: V::Token,
    moduli: &mut Moduli<M, N>,
    base: Residue<M, Encoded, N>,
    one: Residue<M, Encoded, N>,
    table: &mut [[Row; N]],
) {
    let mut next = one;
    for entry in table.iter_mut() {
        *entry = next.rows;
        moduli.multiply::<V, _>(token, &mut next, &base);
    }
    next.zeroize();
}

/// Window `w` of each exponent, counted from the low end.
#[inline(always)]
fn window<V: Vector, const WINDOW: usize>(token: V::Token, exponents: &[Row], w: usize) -> V {
    let per_row = EXPONENT_ROW_BITS / WINDOW;
    let shift = (w % per_row) * WINDOW;
    #[expect(clippy::cast_possible_truncation, reason = "at most 60")]
    let window = V::load(token, &exponents[w / per_row]).shr_by(shift as u32);
    window.and(V::splat(token, (1 << WINDOW) - 1))
}

/// Copies digits `first..first + count` of entry `index` to `picked`, lane by lane. Reads these digits of every entry.
#[inline(always)]
fn pick<V: Vector, M, const N: usize>(
    token: V::Token,
    table: &[[Row; N]],
    index: V,
    first: usize,
    count: usize,
    picked: &mut Residue<M, Encoded, N>,
) {
    const GROUP: usize = 4;
    let end = (first + count).min(N);
    let mut start = first;
    while start < end {
        let mut digits = [V::splat(token, 0); GROUP];
        let mut number = V::splat(token, 0);
        for entry in table {
            let here = index.eq(number);
            for d in 0..GROUP {
                if start + d < end {
                    digits[d] = V::select(here, V::load(token, &entry[start + d]), digits[d]);
                }
            }
            number = number.add(V::splat(token, 1));
        }
        for (digit, row) in digits.iter().zip(&mut picked.rows[start..end]) {
            digit.store(row);
        }
        start += GROUP;
    }
}
