//! A batch of eight RSA operations in memory: packing lanes into rows, the steps as kernels, taking the results out.

use core::marker::PhantomData;
use core::ops::Range;

use zeroize::Zeroize;

use crate::blocks::{self, DIGIT_MASK};
use crate::digits::{DIGIT_BITS, Modulus, join, split_into};
use crate::montgomery::{Encoded, ModN, ModP, ModQ, Moduli, Plain, Residue};
use crate::power::{self, EXPONENT_ROW_BITS, Table};
use crate::rsa::{Lane, Renewal};
use crate::rsa_key::{Key, Size};
use crate::token::Path;
use crate::vector::{Kernel, LANES, Row, Vector, run};

/// Everything eight operations touch. `H` digits for a prime, `F` = 2 `H` for the modulus. [`Batch::wipe`] follows each
/// use; a batch that is dropped has been wiped as well.
pub(crate) struct Batch<const H: usize, const F: usize> {
    n: Moduli<ModN, F>,
    p: Prime<ModP, H>,
    q: Prime<ModQ, H>,
    qinv: Residue<ModP, Encoded, H>,
    /// r^e, and 1/r.
    factor: Residue<ModN, Encoded, F>,
    inverse: Residue<ModN, Encoded, F>,
    input: Residue<ModN, Plain, F>,
    result: Residue<ModN, Plain, F>,
    table: Table<H>,
    bits: usize,
}

/// One prime's share.
struct Prime<M, const H: usize> {
    moduli: Moduli<M, H>,
    one: Residue<M, Encoded, H>,
    /// In groups of 60 bits, so no more rows than digits.
    exponents: [Row; H],
    /// The power on its way, and at its end.
    encoded: Residue<M, Encoded, H>,
    power: Residue<M, Plain, H>,
}

impl<M, const N: usize> Moduli<M, N> {
    const fn zero() -> Self {
        Self {
            digits: [Row::ZERO; N],
            k0: Row::ZERO,
            rr: [Row::ZERO; N],
            quotient: [Row::ZERO; N],
            domain: PhantomData,
        }
    }

    fn pack(&mut self, lane: usize, modulus: &Modulus) {
        pack(&mut self.digits, lane, &modulus.digits);
        pack(&mut self.rr, lane, &modulus.rr);
        self.k0.0[lane] = modulus.k0;
    }
}

impl<M, const H: usize> Prime<M, H> {
    const fn zero() -> Self {
        const { assert!(EXPONENT_ROW_BITS >= DIGIT_BITS) };
        Self {
            moduli: Moduli::zero(),
            one: Residue::zero(),
            exponents: [Row::ZERO; H],
            encoded: Residue::zero(),
            power: Residue::zero(),
        }
    }

    fn pack(&mut self, lane: usize, modulus: &Modulus, exponent: &[u64]) {
        self.moduli.pack(lane, modulus);
        pack(&mut self.one.rows, lane, &modulus.one);
        pack(&mut self.exponents, lane, exponent);
    }

    fn zeroize(&mut self) {
        self.moduli.zeroize();
        self.one.zeroize();
        self.exponents.zeroize();
        self.encoded.zeroize();
        self.power.zeroize();
    }
}

/// Writes one number into its lane.
fn pack(rows: &mut [Row], lane: usize, digits: &[u64]) {
    for (row, digit) in rows.iter_mut().zip(digits) {
        row.0[lane] = *digit;
    }
}

/// Reads one number out of its lane.
fn unpack(rows: &[Row], lane: usize) -> impl Iterator<Item = u64> {
    rows.iter().map(move |row| row.0[lane])
}

impl<const H: usize, const F: usize> Drop for Batch<H, F> {
    fn drop(&mut self) {
        self.wipe();
    }
}

impl<const H: usize, const F: usize> Batch<H, F> {
    pub(crate) fn new(size: Size) -> Box<Self> {
        let bits = size.bits();
        Box::new(Self {
            n: Moduli::zero(),
            p: Prime::zero(),
            q: Prime::zero(),
            qinv: Residue::zero(),
            factor: Residue::zero(),
            inverse: Residue::zero(),
            input: Residue::zero(),
            result: Residue::zero(),
            table: power::empty_table(),
            bits,
        })
    }

    /// Writes zeros over everything.
    pub(crate) fn wipe(&mut self) {
        self.n.zeroize();
        self.p.zeroize();
        self.q.zeroize();
        self.qinv.zeroize();
        self.factor.zeroize();
        self.inverse.zeroize();
        self.input.zeroize();
        self.result.zeroize();
        self.table.zeroize();
    }

    /// See [`crate::rsa::private`]. 1 to 8 lanes.
    pub(crate) fn private(
        &mut self,
        path: Path,
        lanes: &mut [Lane<'_>],
        between: &mut dyn FnMut(),
    ) {
        for l in 0..LANES {
            // Lanes nobody asked for repeat those somebody did.
            let lane = &lanes[l % lanes.len()];
            self.pack_key(l, lane.key, &lane.key.dp, &lane.key.dq);
            self.pack_input(l, lane.input);
            pack(&mut self.factor.rows, l, &lane.blinding.factor);
            pack(&mut self.inverse.rows, l, &lane.blinding.inverse);
        }
        let mut blinded = run(
            path,
            Blind {
                n: &mut self.n,
                input: &self.input,
                factor: &mut self.factor,
            },
        );
        self.powers(path, &blinded, between);
        blinded.zeroize();
        let correct = run(
            path,
            Finish {
                n: &mut self.n,
                result: &mut self.result,
                inverse: &mut self.inverse,
                input: &self.input,
            },
        );
        for (l, lane) in lanes.iter_mut().enumerate() {
            lane.correct = (correct >> l) & 1 == 1;
            if lane.correct {
                join(unpack(&self.result.rows, l), lane.output);
            }
            lane.blinding
                .put(unpack(&self.factor.rows, l), unpack(&self.inverse.rows, l));
        }
    }

    /// See [`crate::rsa::renew`]. 1 to 8 rows.
    pub(crate) fn renew(&mut self, path: Path, rows: &mut [Renewal<'_>]) {
        for l in 0..LANES {
            let row = &rows[l % rows.len()];
            self.pack_key(l, row.key, &row.key.minus_dp, &row.key.minus_dq);
            self.pack_input(l, row.random);
            // Below 2^(bits - 1), hence below n.
            let top = (self.bits - 1) / DIGIT_BITS;
            self.input.rows[top].0[l] &= (1 << ((self.bits - 1) % DIGIT_BITS)) - 1;
        }
        let mut input = self.input.clone();
        self.powers(path, &input, &mut || ());
        input.zeroize();
        let correct = run(
            path,
            Pair {
                n: &mut self.n,
                x: &self.input,
                power: &self.result,
                factor: &mut self.factor,
                inverse: &mut self.inverse,
            },
        );
        for (l, row) in rows.iter_mut().enumerate() {
            row.correct = (correct >> l) & 1 == 1;
            if row.correct {
                row.blinding
                    .put(unpack(&self.factor.rows, l), unpack(&self.inverse.rows, l));
            }
        }
    }

    fn pack_key(&mut self, lane: usize, key: &Key, dp: &[u64], dq: &[u64]) {
        self.n.pack(lane, &key.n);
        self.p.pack(lane, &key.p, dp);
        self.q.pack(lane, &key.q, dq);
        pack(&mut self.qinv.rows, lane, &key.qinv);
    }

    fn pack_input(&mut self, lane: usize, input: &[u8]) {
        let digits = self.input.rows.iter_mut().map(|row| &mut row.0[lane]);
        split_into(input, DIGIT_BITS, digits);
    }

    /// Both half-length exponentiations of `base`, and their recombination into `result`, below twice the modulus.
    fn powers(&mut self, path: Path, base: &Residue<ModN, Plain, F>, between: &mut dyn FnMut()) {
        let (bits, table) = (self.bits / 2, &mut self.table);
        self.p.power(path, &base.rows, bits, table, between);
        self.q.power(path, &base.rows, bits, table, between);
        let (p, q, qinv) = (&mut self.p, &self.q, &self.qinv);
        run(
            path,
            Combine {
                p,
                q,
                qinv,
                result: &mut self.result,
            },
        );
    }
}

/// Windows of an exponentiation with so many digits that take about 120 us: after each the caller may do something else.
const fn windows_in_a_slice(digits: usize) -> usize {
    match digits {
        ..=20 => 128,
        21..=30 => 64,
        _ => 32,
    }
}

impl<M, const H: usize> Prime<M, H> {
    /// `power = wide^exponent`, at most the prime; calls `between` after every slice.
    fn power(
        &mut self,
        path: Path,
        wide: &[Row],
        bits: usize,
        table: &mut Table<H>,
        between: &mut dyn FnMut(),
    ) {
        run(
            path,
            Start {
                prime: self,
                wide,
                bits,
                table,
            },
        );
        let mut left = power::windows(bits) - 1;
        while left > 0 {
            let from = left.saturating_sub(windows_in_a_slice(H));
            run(
                path,
                Advance {
                    prime: self,
                    range: from..left,
                    table,
                },
            );
            left = from;
            between();
        }
        run(path, End { prime: self });
    }
}

/// `input r^e`, and the next r^e.
struct Blind<'a, const F: usize> {
    n: &'a mut Moduli<ModN, F>,
    input: &'a Residue<ModN, Plain, F>,
    factor: &'a mut Residue<ModN, Encoded, F>,
}

impl<const F: usize> Kernel for Blind<'_, F> {
    type Output = Residue<ModN, Plain, F>;

    #[inline(always)]
    fn run<V: Vector>(self, token: V::Token) -> Self::Output {
        let mut blinded = self.input.clone();
        self.n.multiply::<V, _>(token, &mut blinded, self.factor);
        self.n.square::<V>(token, self.factor);
        blinded
    }
}

/// The beginning of a power modulo one prime.
struct Start<'a, M, const H: usize> {
    prime: &'a mut Prime<M, H>,
    /// Below twice the public modulus, which is below R times the prime.
    wide: &'a [Row],
    bits: usize,
    table: &'a mut Table<H>,
}

impl<M, const H: usize> Kernel for Start<'_, M, H> {
    type Output = ();

    #[inline(always)]
    fn run<V: Vector>(self, token: V::Token) {
        let Prime {
            moduli,
            one,
            exponents,
            encoded,
            ..
        } = self.prime;
        let mut base = moduli.encode_wide::<V>(token, self.wide);
        *encoded =
            power::start::<V, M, H>(token, moduli, &base, one, exponents, self.bits, self.table);
        base.zeroize();
    }
}

/// Some windows of it.
struct Advance<'a, M, const H: usize> {
    prime: &'a mut Prime<M, H>,
    range: Range<usize>,
    table: &'a Table<H>,
}

impl<M, const H: usize> Kernel for Advance<'_, M, H> {
    type Output = ();

    #[inline(always)]
    fn run<V: Vector>(self, token: V::Token) {
        let Prime {
            moduli,
            exponents,
            encoded,
            ..
        } = self.prime;
        power::advance::<V, M, H>(token, moduli, encoded, exponents, self.range, self.table);
    }
}

/// Its end.
struct End<'a, M, const H: usize> {
    prime: &'a mut Prime<M, H>,
}

impl<M, const H: usize> Kernel for End<'_, M, H> {
    type Output = ();

    #[inline(always)]
    fn run<V: Vector>(self, token: V::Token) {
        let Prime {
            moduli,
            encoded,
            power,
            ..
        } = self.prime;
        *power = moduli.decode::<V>(token, encoded);
    }
}

/// Garner: `result = b + q ((a - b) / q mod p)`.
struct Combine<'a, const H: usize, const F: usize> {
    p: &'a mut Prime<ModP, H>,
    q: &'a Prime<ModQ, H>,
    qinv: &'a Residue<ModP, Encoded, H>,
    result: &'a mut Residue<ModN, Plain, F>,
}

impl<const H: usize, const F: usize> Kernel for Combine<'_, H, F> {
    type Output = ();

    #[inline(always)]
    fn run<V: Vector>(self, token: V::Token) {
        let (a, b) = (&self.p.power, &self.q.power);
        // a + 2 p - b: both primes have the same length, so b <= q < 2 p, and the difference lies between 0 and 3 p.
        let ones = V::splat(token, DIGIT_MASK);
        let mut carry = V::splat(token, 0);
        let mut difference = Residue::<ModP, Plain, H>::zero();
        for i in 0..H {
            let p = V::load(token, &self.p.moduli.digits[i]);
            let digit = V::load(token, &a.rows[i])
                .sub(V::load(token, &b.rows[i]))
                .add(p)
                .add(p)
                .add(carry);
            digit.and(ones).store(&mut difference.rows[i]);
            carry = digit.sar::<52>();
        }
        self.p
            .moduli
            .multiply::<V, _>(token, &mut difference, self.qinv);
        blocks::multiply_add::<V, H>(
            token,
            &difference.rows,
            &self.q.moduli.digits,
            &b.rows,
            &mut self.result.rows,
        );
        difference.zeroize();
    }
}

/// `x^65536`, encoded.
#[inline(always)]
fn power_65536<V: Vector, const F: usize>(
    token: V::Token,
    n: &mut Moduli<ModN, F>,
    mut x: Residue<ModN, Encoded, F>,
) -> Residue<ModN, Encoded, F> {
    for _ in 0..16 {
        n.square::<V>(token, &mut x);
    }
    x
}

/// Lanes in which two canonical numbers are equal, as bits.
#[inline(always)]
fn equal<V: Vector>(token: V::Token, a: &[Row], b: &[Row]) -> u8 {
    let mut difference = V::splat(token, 0);
    for (a, b) in a.iter().zip(b) {
        difference = difference.or(V::load(token, a).xor(V::load(token, b)));
    }
    V::bits(difference.eq(V::splat(token, 0)))
}

/// Unblinds and checks the results; says which lanes are right. Makes the next 1/r.
struct Finish<'a, const F: usize> {
    n: &'a mut Moduli<ModN, F>,
    result: &'a mut Residue<ModN, Plain, F>,
    inverse: &'a mut Residue<ModN, Encoded, F>,
    input: &'a Residue<ModN, Plain, F>,
}

impl<const F: usize> Kernel for Finish<'_, F> {
    type Output = u8;

    #[inline(always)]
    fn run<V: Vector>(self, token: V::Token) -> u8 {
        self.n.multiply::<V, _>(token, self.result, self.inverse);
        self.n.canonicalise::<V, _>(token, self.result);
        self.n.square::<V>(token, self.inverse);
        let encoded = self.n.encode::<V>(token, self.result.clone());
        let power = power_65536::<V, F>(token, self.n, encoded);
        let mut check = self.result.clone();
        self.n.multiply::<V, _>(token, &mut check, &power);
        self.n.canonicalise::<V, _>(token, &mut check);
        equal::<V>(token, &check.rows, &self.input.rows)
    }
}

/// Makes a blinding pair of x and x^-d; says which lanes belong together.
struct Pair<'a, const F: usize> {
    n: &'a mut Moduli<ModN, F>,
    x: &'a Residue<ModN, Plain, F>,
    power: &'a Residue<ModN, Plain, F>,
    factor: &'a mut Residue<ModN, Encoded, F>,
    inverse: &'a mut Residue<ModN, Encoded, F>,
}

impl<const F: usize> Kernel for Pair<'_, F> {
    type Output = u8;

    #[inline(always)]
    fn run<V: Vector>(self, token: V::Token) -> u8 {
        *self.factor = self.n.encode::<V>(token, self.x.clone());
        *self.inverse = self.n.encode::<V>(token, self.power.clone());
        // (x^-d)^65537 x = 1.
        let power = power_65536::<V, F>(token, self.n, self.inverse.clone());
        let mut check = self.x.clone();
        self.n.multiply::<V, _>(token, &mut check, &power);
        self.n.multiply::<V, _>(token, &mut check, self.inverse);
        self.n.canonicalise::<V, _>(token, &mut check);
        let mut one = [Row::ZERO; F];
        one[0] = Row::splat(1);
        equal::<V>(token, &check.rows, &one)
    }
}
