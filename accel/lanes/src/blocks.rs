//! Montgomery products by blocks of five digits: the loops that do all the work of RSA.
//!
//! ```text
//! for k in 0 .. 2 n/5:                          one column of blocks a step
//!     columns  = sum of a[i] * b[k - i]         operands; a square takes each cross product once and doubles
//!     columns += sum of q[i] * m[k - i], i < k  what the reduction has found so far
//!     columns += carry of step k - 1
//!     k < n/5:  find the five digits q[k] that clear the low half of the columns, one after the other
//!     k >= n/5: the low half of the columns is five digits of the result
//! ```
//!
//! What each choice buys:
//!
//! * A block product is 50 multiply-adds on ten operands: loads stay far below the load ports' limit.
//! * Low and high product halves have columns of their own, 18 chains of at most 5 links: a link takes 4 cycles and 50
//!   multiply-adds take 25, so no chain is the limit.
//! * Sums stay in registers for the whole step; no partial product goes through memory.
//! * Finding q\[k\] is a chain of about 45 cycles: a multiply-add for a digit, another for its product, an addition. The
//!   operand products of step k + 1 do not depend on it and stand before it in the program, so the processor works on
//!   them meanwhile. That is why product and reduction share one loop.
//! * The code is a few hundred instructions for any size: unrolled kernels of 1536 bits and more leave the instruction
//!   caches and run at half the speed.
//!
//! The range of every sum is derived in the crate's documentation.
#![expect(
    clippy::needless_range_loop,
    reason = "indices read as in the formulas: sums[d + j] += digit[d] * m[j]"
)]

use crate::vector::{Kernel, Row, Vector};

/// Digits in a block. Moduli have a multiple of five digits.
pub(crate) const BLOCK: usize = 5;
/// Columns that a product of two blocks touches, low and high halves counted apart.
const SPAN: usize = 2 * BLOCK - 1;
/// The largest digit, 2^52 - 1.
pub(crate) const DIGIT_MASK: u64 = (1 << 52) - 1;

/// Five digits of eight numbers, in memory.
pub(crate) type BlockRows = [Row; BLOCK];

/// The sums of one column of blocks: `low[c]` belongs to column `c`, `high[c]` to column `c + 1`.
struct Columns<V> {
    low: [V; SPAN],
    high: [V; SPAN],
}

impl<V: Vector> Columns<V> {
    #[inline(always)]
    fn zero(token: V::Token) -> Self {
        let zero = V::splat(token, 0);
        Self {
            low: [zero; SPAN],
            high: [zero; SPAN],
        }
    }

    /// Adds the product of two blocks.
    #[inline(always)]
    fn add_product(&mut self, a: &[V; BLOCK], b: &[V; BLOCK]) {
        for i in 0..BLOCK {
            for j in 0..BLOCK {
                self.low[i + j] = self.low[i + j].madd52lo(a[i], b[j]);
                self.high[i + j] = self.high[i + j].madd52hi(a[i], b[j]);
            }
        }
    }

    /// Adds all block products `a[i] * b[l - i]`, `l` being the last index.
    #[inline(always)]
    fn add_products(&mut self, token: V::Token, a: &[BlockRows], b: &[BlockRows]) {
        for (a, b) in a.iter().zip(b.iter().rev()) {
            let (a, b) = (load(token, a), load(token, b));
            self.add_product(&a, &b);
        }
    }

    /// Adds the products of different digits of one block, each once.
    #[inline(always)]
    fn add_cross(&mut self, a: &[V; BLOCK]) {
        for i in 0..BLOCK {
            for j in i + 1..BLOCK {
                self.low[i + j] = self.low[i + j].madd52lo(a[i], a[j]);
                self.high[i + j] = self.high[i + j].madd52hi(a[i], a[j]);
            }
        }
    }

    /// Adds the squares of the digits of one block.
    #[inline(always)]
    fn add_squares(&mut self, a: &[V; BLOCK]) {
        for i in 0..BLOCK {
            self.low[2 * i] = self.low[2 * i].madd52lo(a[i], a[i]);
            self.high[2 * i] = self.high[2 * i].madd52hi(a[i], a[i]);
        }
    }

    /// Doubles every sum.
    #[inline(always)]
    fn double(&mut self) {
        for c in 0..SPAN {
            self.low[c] = self.low[c].add(self.low[c]);
            self.high[c] = self.high[c].add(self.high[c]);
        }
    }

    /// The ten columns, with what was carried into the lower five.
    #[inline(always)]
    fn sums(&self, token: V::Token, carry: &[V; BLOCK]) -> [V; 2 * BLOCK] {
        let mut sums = [V::splat(token, 0); 2 * BLOCK];
        sums[..SPAN].copy_from_slice(&self.low);
        for c in 0..SPAN {
            sums[c + 1] = sums[c + 1].add(self.high[c]);
        }
        for c in 0..BLOCK {
            sums[c] = sums[c].add(carry[c]);
        }
        sums
    }
}

#[inline(always)]
fn load<V: Vector>(token: V::Token, rows: &BlockRows) -> [V; BLOCK] {
    let mut block = [V::splat(token, 0); BLOCK];
    for i in 0..BLOCK {
        block[i] = V::load(token, &rows[i]);
    }
    block
}

/// Which block indices `i` of `0..blocks` have a partner `k - i` in `0..blocks`: from the first number up to, not
/// including, the second.
#[inline(always)]
fn partners(k: usize, blocks: usize) -> (usize, usize) {
    ((k + 1).saturating_sub(blocks), (k + 1).min(blocks))
}

/// A modulus in use: what the loops need of it, and the sums on their way from one column of blocks to the next.
struct Reduction<'a, V: Vector> {
    token: V::Token,
    modulus: &'a [BlockRows],
    k0: V,
    quotient: &'a mut [BlockRows],
    carry: [V; BLOCK],
}

impl<'a, V: Vector> Reduction<'a, V> {
    #[inline(always)]
    fn new<const N: usize>(token: V::Token, context: Context<'a, N>) -> Self {
        Self {
            token,
            modulus: blocks_of(context.modulus),
            k0: V::load(token, context.k0),
            quotient: context.quotient.as_chunks_mut::<BLOCK>().0,
            carry: [V::splat(token, 0); BLOCK],
        }
    }

    /// Step `k`: takes the operands' share of the columns. From step `modulus.len()` on, returns five digits of the
    /// result.
    #[inline(always)]
    fn step(&mut self, k: usize, mut columns: Columns<V>) -> Option<[V; BLOCK]> {
        let (token, blocks) = (self.token, self.modulus.len());
        let first = partners(k, blocks).0;
        let known = k.min(blocks);
        columns.add_products(
            token,
            &self.quotient[first..known],
            &self.modulus[k + 1 - known..=k - first],
        );
        let mut sums = columns.sums(token, &self.carry);
        let digits = if k < blocks {
            let digits = self.clear(&mut sums);
            for d in 0..BLOCK {
                digits[d].store(&mut self.quotient[k][d]);
            }
            None
        } else {
            Some(normalise(token, &mut sums))
        };
        self.carry.copy_from_slice(&sums[BLOCK..]);
        digits
    }

    /// Finds the five quotient digits that make the lower five columns vanish modulo 2^260, and adds their products
    /// with the modulus' lowest block.
    #[inline(always)]
    fn clear(&self, sums: &mut [V; 2 * BLOCK]) -> [V; BLOCK] {
        let token = self.token;
        let zero = V::splat(token, 0);
        let ones = V::splat(token, DIGIT_MASK);
        let modulus = load::<V>(token, &self.modulus[0]);
        let mut digits = [zero; BLOCK];
        for d in 0..BLOCK {
            let digit = zero.madd52lo(sums[d], self.k0);
            // sums[d] + low(digit * m[0]) is a multiple of 2^52, so its carry is sums[d] / 2^52 rounded up: the
            // product itself is not needed.
            let carry = sums[d].add(ones).shr::<52>();
            // The next digit needs this sum and two products of this digit. They are computed side by side and added,
            // because one on top of the other would take three cycles longer.
            let high = carry.madd52hi(digit, modulus[0]);
            sums[d + 1] = sums[d + 1].madd52lo(digit, modulus[1]).add(high);
            for j in 2..BLOCK {
                sums[d + j] = sums[d + j].madd52lo(digit, modulus[j]);
            }
            for j in 1..BLOCK {
                sums[d + j + 1] = sums[d + j + 1].madd52hi(digit, modulus[j]);
            }
            digits[d] = digit;
        }
        digits
    }
}

/// Turns the lower five sums into digits and carries the rest into the sixth.
#[inline(always)]
fn normalise<V: Vector>(token: V::Token, sums: &mut [V; 2 * BLOCK]) -> [V; BLOCK] {
    let ones = V::splat(token, DIGIT_MASK);
    let mut digits = [V::splat(token, 0); BLOCK];
    for d in 0..BLOCK {
        digits[d] = sums[d].and(ones);
        sums[d + 1] = sums[d + 1].add(sums[d].shr::<52>());
    }
    digits
}

/// The blocks of a number whose length is a multiple of five digits.
#[inline(always)]
fn blocks_of(rows: &[Row]) -> &[BlockRows] {
    rows.as_chunks::<BLOCK>().0
}

#[inline(always)]
fn store_block<V: Vector>(digits: &[V; BLOCK], rows: &mut [Row], block: usize) {
    for (digit, row) in digits.iter().zip(&mut rows[block * BLOCK..]) {
        digit.store(row);
    }
}

/// Work that has nothing to do with a product, done in small pieces between its steps: the multipliers are busy with
/// what was issued before, the other units are not.
pub(crate) trait Aside {
    /// Piece `k`, of at least `2 N / 5`.
    fn piece<V: Vector>(&mut self, token: V::Token, k: usize);
}

/// Nothing to do aside.
impl Aside for () {
    #[inline(always)]
    fn piece<V: Vector>(&mut self, _: V::Token, _: usize) {}
}

/// A modulus, as the loops take it.
pub(crate) struct Context<'a, const N: usize> {
    /// The digits.
    pub(crate) modulus: &'a [Row; N],
    /// -1 / modulus modulo 2^52.
    pub(crate) k0: &'a Row,
    /// Working space.
    pub(crate) quotient: &'a mut [Row; N],
}

/// `a = a^2 / R`, R being 2^(52 N).
///
/// In place: a digit of the result is written after the last step that reads the operand's digit there.
pub(crate) struct Square<'a, A, const N: usize> {
    pub(crate) context: Context<'a, N>,
    pub(crate) a: &'a mut [Row; N],
    pub(crate) aside: &'a mut A,
}

impl<A: Aside, const N: usize> Kernel for Square<'_, A, N> {
    type Output = ();

    #[inline(always)]
    fn run<V: Vector>(self, token: V::Token) {
        let Self { context, a, aside } = self;
        let blocks = N / BLOCK;
        let mut reduction = Reduction::<V>::new(token, context);
        for k in 0..2 * blocks {
            aside.piece::<V>(token, k);
            let mut columns = Columns::zero(token);
            let first = partners(k, blocks).0;
            // Pairs i < k - i; the block at i = k - i follows by itself.
            let half = k.div_ceil(2);
            let operand = blocks_of(a);
            columns.add_products(
                token,
                &operand[first..half],
                &operand[k + 1 - half..=k - first],
            );
            if k % 2 == 0 {
                let middle = load(token, &operand[k / 2]);
                columns.add_cross(&middle);
                columns.double();
                columns.add_squares(&middle);
            } else {
                columns.double();
            }
            if let Some(digits) = reduction.step(k, columns) {
                store_block(&digits, a, k - blocks);
            }
        }
    }
}

/// `a = a b / R`, in place likewise.
pub(crate) struct Multiply<'a, const N: usize> {
    pub(crate) context: Context<'a, N>,
    pub(crate) a: &'a mut [Row; N],
    pub(crate) b: &'a [Row; N],
}

impl<const N: usize> Kernel for Multiply<'_, N> {
    type Output = ();

    #[inline(always)]
    fn run<V: Vector>(self, token: V::Token) {
        let Self { context, a, b } = self;
        let blocks = N / BLOCK;
        let mut reduction = Reduction::<V>::new(token, context);
        for k in 0..2 * blocks {
            let mut columns = Columns::zero(token);
            let (first, end) = partners(k, blocks);
            columns.add_products(
                token,
                &blocks_of(a)[first..end],
                &blocks_of(b)[k + 1 - end..=k - first],
            );
            if let Some(digits) = reduction.step(k, columns) {
                store_block(&digits, a, k - blocks);
            }
        }
    }
}

/// `out = wide / R` for a `wide` of up to 2 N digits.
pub(crate) struct Reduce<'a, const N: usize> {
    pub(crate) context: Context<'a, N>,
    pub(crate) wide: &'a [Row],
    pub(crate) out: &'a mut [Row; N],
}

impl<const N: usize> Kernel for Reduce<'_, N> {
    type Output = ();

    #[inline(always)]
    fn run<V: Vector>(self, token: V::Token) {
        let Self { context, wide, out } = self;
        let blocks = N / BLOCK;
        let mut reduction = Reduction::<V>::new(token, context);
        for k in 0..2 * blocks {
            let mut columns = Columns::zero(token);
            if let Some(rows) = blocks_of(wide).get(k) {
                for d in 0..BLOCK {
                    columns.low[d] = V::load(token, &rows[d]);
                }
            }
            if let Some(digits) = reduction.step(k, columns) {
                store_block(&digits, out, k - blocks);
            }
        }
    }
}

/// `out = a b + c`, over the integers; `out` has 2 N digits.
#[inline(always)]
pub(crate) fn multiply_add<V: Vector, const N: usize>(
    token: V::Token,
    a: &[Row; N],
    b: &[Row; N],
    c: &[Row; N],
    out: &mut [Row],
) {
    let blocks = N / BLOCK;
    let mut carry = [V::splat(token, 0); BLOCK];
    for k in 0..2 * blocks {
        let mut columns = Columns::<V>::zero(token);
        let (first, end) = partners(k, blocks);
        columns.add_products(
            token,
            &blocks_of(a)[first..end],
            &blocks_of(b)[k + 1 - end..=k - first],
        );
        if let Some(rows) = blocks_of(c).get(k) {
            for d in 0..BLOCK {
                columns.low[d] = columns.low[d].add(V::load(token, &rows[d]));
            }
        }
        let mut sums = columns.sums(token, &carry);
        store_block(&normalise(token, &mut sums), out, k);
        carry.copy_from_slice(&sums[BLOCK..]);
    }
}
