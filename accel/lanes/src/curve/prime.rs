//! Arithmetic modulo a prime: eight numbers at once, in digits of 52 bits.
//!
//! The bounds quoted here are derived in the module documentation of [`crate::curve`].

use core::marker::PhantomData;

use crate::vector::{Kernel, Row, Vector};

/// Bits in a digit: what one multiply-add takes.
pub(crate) const DIGIT_BITS: usize = 52;
/// The bits of a digit.
pub(crate) const DIGIT_MASK: u64 = (1 << DIGIT_BITS) - 1;

/// Plain numbers: `x` stands for `x`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Plain;
/// The Montgomery domain: `x * R` stands for `x`, with `R = 2^(52 N)`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Montgomery;

/// Eight numbers modulo `P` in domain `D`, every digit below 2^52: what a multiplication takes.
///
/// The numbers are lazily reduced: each use says how many times the prime they may reach.
#[derive(Clone, Copy)]
pub(crate) struct Element<V, P, D, const N: usize>(pub(crate) [V; N], PhantomData<(P, D)>);

/// Eight numbers whose digits wait for their carries, or are negative: what additions give and take.
#[derive(Clone, Copy)]
pub(crate) struct Sum<V, P, D, const N: usize>(pub(crate) [V; N], PhantomData<(P, D)>);

/// A prime of at most `52 N` bits, and the cheapest way to reduce modulo it.
pub(crate) trait Prime<const N: usize>: Copy + PartialEq {
    /// The prime.
    const MODULUS: [u64; N];
    /// `R mod p`: one, in the Montgomery domain.
    const R1: [u64; N] = power_of_two(&Self::MODULUS, DIGIT_BITS * N);
    /// `R^2 mod p`: multiplied by, it leads into the Montgomery domain.
    const R2: [u64; N] = power_of_two(&Self::MODULUS, 2 * DIGIT_BITS * N);
    /// `R^3 mod p`: multiplied by, it turns the inverse of `x R` into the inverse of `x`, in the Montgomery domain.
    const R3: [u64; N] = power_of_two(&Self::MODULUS, 3 * DIGIT_BITS * N);
    /// [`Field::settle`] gives numbers below this many times the prime (rounded up).
    const SETTLED: u64;

    /// What the reduction keeps in registers.
    type Constants<V: Vector>: Copy;
    /// Fills the registers.
    fn constants<V: Vector>(token: V::Token) -> Self::Constants<V>;

    /// One step of Montgomery's reduction: adds the multiple of the prime that clears the lowest digit of `window`, and
    /// returns the window one digit further up, `top` being the digit that comes in.
    fn step<V: Vector>(constants: &Self::Constants<V>, zero: V, window: [V; N], top: V) -> [V; N];
    /// `a * b / R mod p`, below `(a b / (p R) + 1) p`, carries pending.
    fn multiply<V: Vector>(
        constants: &Self::Constants<V>,
        zero: V,
        a: &[V; N],
        b: &[V; N],
    ) -> [V; N];
    /// `a * a / R mod p`, as [`Prime::multiply`] but with each cross product computed once.
    fn square<V: Vector>(constants: &Self::Constants<V>, zero: V, a: &[V; N]) -> [V; N];
    /// Folds the bits above the prime's length back into a sum that is not negative and below `2^(52 N)`.
    fn fold<V: Vector>(digits: [V; N]) -> [V; N];
}

/// A field with its constants in registers.
pub(crate) struct Field<V: Vector, P: Prime<N>, const N: usize> {
    token: V::Token,
    constants: P::Constants<V>,
    zero: V,
    mask: V,
}

impl<V: Vector, P: Prime<N>, const N: usize> Field<V, P, N> {
    /// Loads the constants.
    #[inline(always)]
    pub(crate) fn new(token: V::Token) -> Self {
        Self {
            token,
            constants: P::constants(token),
            zero: V::splat(token, 0),
            mask: V::splat(token, DIGIT_MASK),
        }
    }

    /// The same number in every lane.
    #[inline(always)]
    pub(crate) fn splat<D>(&self, digits: &[u64; N]) -> Element<V, P, D, N> {
        let mut result = [self.zero; N];
        for (vector, digit) in result.iter_mut().zip(digits) {
            *vector = V::splat(self.token, *digit);
        }
        Element(result, PhantomData)
    }

    /// Reads eight numbers whose digits are below 2^52.
    #[inline(always)]
    pub(crate) fn load<D>(&self, rows: &[Row; N]) -> Element<V, P, D, N> {
        let mut result = [self.zero; N];
        for (vector, row) in result.iter_mut().zip(rows) {
            *vector = V::load(self.token, row);
        }
        Element(result, PhantomData)
    }

    /// `a * b / R`: the product, when one factor is in the Montgomery domain.
    #[inline(always)]
    pub(crate) fn mul<D>(
        &self,
        a: &Element<V, P, D, N>,
        b: &Element<V, P, Montgomery, N>,
    ) -> Sum<V, P, D, N> {
        Sum(
            P::multiply(&self.constants, self.zero, &a.0, &b.0),
            PhantomData,
        )
    }

    /// The square.
    #[inline(always)]
    pub(crate) fn square(&self, a: &Element<V, P, Montgomery, N>) -> Sum<V, P, Montgomery, N> {
        Sum(P::square(&self.constants, self.zero, &a.0), PhantomData)
    }

    /// [`Self::mul`] with its carries done, in a function of its own: for all but the comb walk.
    #[inline(always)]
    pub(crate) fn product<D>(
        &self,
        a: &Element<V, P, D, N>,
        b: &Element<V, P, Montgomery, N>,
    ) -> Element<V, P, D, N> {
        let mut rows = [[Row::ZERO; N]; 2];
        let [first, second] = &mut rows;
        a.store(first);
        b.store(second);
        V::call(
            self.token,
            Multiply {
                factor: first,
                other: second,
                prime: PhantomData::<P>,
            },
        );
        self.load(first)
    }

    /// Into the Montgomery domain.
    #[inline(always)]
    pub(crate) fn enter(&self, a: &Element<V, P, Plain, N>) -> Element<V, P, Montgomery, N> {
        let square_of_r = self.splat::<Montgomery>(&P::R2);
        Element(self.product(a, &square_of_r).0, PhantomData)
    }

    /// Out of the Montgomery domain: at most the prime itself.
    #[inline(always)]
    pub(crate) fn leave(&self, a: &Element<V, P, Montgomery, N>) -> Element<V, P, Plain, N> {
        let mut one = [0; N];
        one[0] = 1;
        let one: Element<V, P, Plain, N> = self.splat(&one);
        self.product(&one, a)
    }

    /// The one plain representative in `0..p`.
    #[inline(always)]
    pub(crate) fn number(&self, a: &Element<V, P, Montgomery, N>) -> Element<V, P, Plain, N> {
        self.canonical(&self.leave(a))
    }

    /// Moves the carries up, so that every digit is below 2^52. The number must not be negative, though its digits
    /// may be, and must be below `2^(52 N)`.
    #[inline(always)]
    pub(crate) fn carry<D>(&self, a: Sum<V, P, D, N>) -> Element<V, P, D, N> {
        let mut digits = a.0;
        for i in 1..N {
            digits[i] = digits[i].add(digits[i - 1].sar::<52>());
            digits[i - 1] = digits[i - 1].and(self.mask);
        }
        Element(digits, PhantomData)
    }

    /// [`Self::carry`] after folding: the result is below [`Prime::SETTLED`] times the prime.
    #[inline(always)]
    pub(crate) fn settle<D>(&self, a: Sum<V, P, D, N>) -> Element<V, P, D, N> {
        self.carry(Sum(P::fold(a.0), PhantomData))
    }

    /// `multiple` times the prime, to be added where a difference could be negative.
    #[inline(always)]
    fn multiple<D>(&self, multiple: u64) -> Sum<V, P, D, N> {
        let mut result = [self.zero; N];
        for (vector, digit) in result.iter_mut().zip(times(&P::MODULUS, multiple)) {
            *vector = V::splat(self.token, digit);
        }
        Sum(result, PhantomData)
    }

    /// `a - b + multiple * p`.
    #[inline(always)]
    pub(crate) fn sub<D>(
        &self,
        a: Sum<V, P, D, N>,
        b: Sum<V, P, D, N>,
        multiple: u64,
    ) -> Sum<V, P, D, N> {
        a.plus(self.multiple(multiple)).minus(b)
    }

    /// The one representative in `0..p`, from one below `2 p`.
    #[inline(always)]
    pub(crate) fn canonical<D>(&self, a: &Element<V, P, D, N>) -> Element<V, P, D, N> {
        let mut reduced = Sum(a.0, PhantomData).minus(self.multiple::<D>(1)).0;
        for i in 1..N {
            reduced[i] = reduced[i].add(reduced[i - 1].sar::<52>());
            reduced[i - 1] = reduced[i - 1].and(self.mask);
        }
        // The top digit is below 2^52, so its sign bit tells whether the difference is negative.
        let negative = self.zero.lt(reduced[N - 1].shr::<63>());
        let mut result = a.0;
        for (kept, reduced) in result.iter_mut().zip(reduced) {
            *kept = V::select(negative, *kept, reduced);
        }
        Element(result, PhantomData)
    }

    /// Which lanes hold a zero; the numbers must be canonical.
    #[inline(always)]
    pub(crate) fn is_zero<D>(&self, a: &Element<V, P, D, N>) -> V::Mask {
        let mut bits = self.zero;
        for digit in a.0 {
            bits = bits.or(digit);
        }
        bits.eq(self.zero)
    }

    /// Zero in the lanes where `a` and `b` are the same modulo the prime, anything else elsewhere.
    #[inline(always)]
    pub(crate) fn difference(
        &self,
        a: &Element<V, P, Montgomery, N>,
        b: &Element<V, P, Montgomery, N>,
    ) -> V {
        let mut bits = self.zero;
        for (a, b) in self.number(a).0.into_iter().zip(self.number(b).0) {
            bits = bits.or(a.xor(b));
        }
        bits
    }

    /// A digit of ones in every lane.
    #[inline(always)]
    pub(crate) fn ones(&self) -> V {
        self.mask
    }

    /// Zero in every lane.
    #[inline(always)]
    pub(crate) fn zero(&self) -> V {
        self.zero
    }
}

impl<V: Vector, P, D, const N: usize> Element<V, P, D, N> {
    /// Digits below 2^52, taken as a number of this domain.
    #[inline(always)]
    pub(crate) fn from_digits(digits: [V; N]) -> Self {
        Self(digits, PhantomData)
    }

    /// As one side of an addition.
    #[inline(always)]
    pub(crate) fn sum(self) -> Sum<V, P, D, N> {
        Sum(self.0, PhantomData)
    }

    /// Lanes of `set` where the mask has a one, lanes of `clear` elsewhere.
    #[inline(always)]
    pub(crate) fn select(mask: V::Mask, set: &Self, clear: &Self) -> Self {
        let mut result = clear.0;
        for (digit, set) in result.iter_mut().zip(set.0) {
            *digit = V::select(mask, set, *digit);
        }
        Self(result, PhantomData)
    }

    /// Lane `l` becomes lane `index[l]`.
    #[inline(always)]
    pub(crate) fn permute(&self, index: V) -> Self {
        let mut result = self.0;
        for digit in &mut result {
            *digit = digit.permute(index);
        }
        Self(result, PhantomData)
    }

    /// Writes the digits.
    #[inline(always)]
    pub(crate) fn store(&self, rows: &mut [Row; N]) {
        for (digit, row) in self.0.into_iter().zip(rows) {
            digit.store(row);
        }
    }
}

impl<V: Vector, P, D, const N: usize> Sum<V, P, D, N> {
    /// The sum, digit by digit.
    #[inline(always)]
    pub(crate) fn plus(self, other: Self) -> Self {
        let mut result = self.0;
        for (digit, other) in result.iter_mut().zip(other.0) {
            *digit = digit.add(other);
        }
        Self(result, PhantomData)
    }

    /// The difference, digit by digit.
    #[inline(always)]
    pub(crate) fn minus(self, other: Self) -> Self {
        let mut result = self.0;
        for (digit, other) in result.iter_mut().zip(other.0) {
            *digit = digit.sub(other);
        }
        Self(result, PhantomData)
    }

    /// Negated in the lanes of the mask.
    #[inline(always)]
    pub(crate) fn negate_where(self, mask: V::Mask) -> Self {
        let mut result = self.0;
        for digit in &mut result {
            let zero = digit.xor(*digit);
            *digit = V::select(mask, zero.sub(*digit), *digit);
        }
        Self(result, PhantomData)
    }
}

/// One product, out of line.
struct Multiply<'a, P, const N: usize> {
    /// A factor; the product takes its place.
    factor: &'a mut [Row; N],
    other: &'a [Row; N],
    prime: PhantomData<P>,
}

impl<P: Prime<N>, const N: usize> Kernel for Multiply<'_, P, N> {
    type Output = ();

    #[inline(always)]
    fn run<V: Vector>(self, token: V::Token) {
        let field: Field<V, P, N> = Field::new(token);
        let product = field.mul::<Plain>(&field.load(self.factor), &field.load(self.other));
        field.carry(product).store(self.factor);
    }
}

/// Writes [`Prime::multiply`] and [`Prime::square`] for a width: the rows are spelled out, because the compiler does
/// not unroll the outer of two loops, and a digit that is not in a register costs more than its multiplication.
macro_rules! products {
    ($n:literal, [$($i:literal),*]) => {
        #[inline(always)]
        fn multiply<V: Vector>(
            constants: &Self::Constants<V>,
            zero: V,
            a: &[V; $n],
            b: &[V; $n],
        ) -> [V; $n] {
            let mut window = [zero; $n];
            $({
                // Row i of the schoolbook product, then the step that clears its lowest digit.
                for j in 0..$n {
                    window[j] = window[j].madd52lo(a[$i], b[j]);
                }
                for j in 1..$n {
                    window[j] = window[j].madd52hi(a[$i], b[j - 1]);
                }
                let top = zero.madd52hi(a[$i], b[$n - 1]);
                window = Self::step(constants, zero, window, top);
            })*
            window
        }

        #[inline(always)]
        fn square<V: Vector>(
            constants: &Self::Constants<V>,
            zero: V,
            a: &[V; $n],
        ) -> [V; $n] {
            let mut t = [zero; 2 * $n];
            $(
                for (j, b) in a.iter().enumerate().skip($i + 1) {
                    t[$i + j] = t[$i + j].madd52lo(a[$i], *b);
                    t[$i + j + 1] = t[$i + j + 1].madd52hi(a[$i], *b);
                }
            )*
            for digit in t.iter_mut().skip(1) {
                *digit = digit.add(*digit);
            }
            $(
                t[2 * $i] = t[2 * $i].madd52lo(a[$i], a[$i]);
                t[2 * $i + 1] = t[2 * $i + 1].madd52hi(a[$i], a[$i]);
            )*
            let mut window = [zero; $n];
            for j in 0..$n {
                window[j] = t[j];
            }
            $(
                window = Self::step(constants, zero, window, t[$n + $i]);
            )*
            window
        }
    };
}
pub(crate) use products;

/// What [`generic_step`] keeps in registers.
#[derive(Clone, Copy)]
pub(crate) struct GenericConstants<V, const N: usize> {
    modulus: [V; N],
    /// `-1/p mod 2^52`.
    inverse: V,
}

impl<V: Vector, const N: usize> GenericConstants<V, N> {
    /// The constants of an odd modulus.
    #[inline(always)]
    pub(crate) fn new(token: V::Token, modulus: &[u64; N]) -> Self {
        let mut digits = [V::splat(token, 0); N];
        for (vector, digit) in digits.iter_mut().zip(modulus) {
            *vector = V::splat(token, *digit);
        }
        Self {
            modulus: digits,
            inverse: V::splat(token, negated_inverse(modulus[0])),
        }
    }
}

/// [`Prime::step`] for a prime without any structure: `q = -t0/p mod 2^52`, then `(t + q p) / 2^52`.
#[inline(always)]
pub(crate) fn generic_step<V: Vector, const N: usize>(
    constants: &GenericConstants<V, N>,
    zero: V,
    mut window: [V; N],
    mut top: V,
) -> [V; N] {
    let q = zero.madd52lo(window[0], constants.inverse);
    for (digit, modulus) in window.iter_mut().zip(constants.modulus) {
        *digit = digit.madd52lo(q, modulus);
    }
    for (digit, modulus) in window.iter_mut().skip(1).zip(constants.modulus) {
        *digit = digit.madd52hi(q, modulus);
    }
    top = top.madd52hi(q, constants.modulus[N - 1]);
    let carry = window[0].sar::<52>();
    shift(window, top, carry)
}

/// Drops the lowest digit, adds its carry to the next, and takes in `top`.
#[inline(always)]
pub(crate) fn shift<V: Vector, const N: usize>(window: [V; N], top: V, carry: V) -> [V; N] {
    let mut result = window;
    result[..N - 1].copy_from_slice(&window[1..]);
    result[N - 1] = top;
    result[0] = result[0].add(carry);
    result
}

/// `-1/a mod 2^52` for odd `a`, by Newton's iteration: each round doubles the number of right bits.
pub(crate) const fn negated_inverse(a: u64) -> u64 {
    let mut inverse = 1u64;
    let mut round = 0;
    while round < 6 {
        inverse = inverse.wrapping_mul(2u64.wrapping_sub(a.wrapping_mul(inverse)));
        round += 1;
    }
    inverse.wrapping_neg() & DIGIT_MASK
}

/// Digits of a big-endian hexadecimal constant.
pub(crate) const fn hex<const N: usize>(text: &str) -> [u64; N] {
    let text = text.as_bytes();
    let mut result = [0; N];
    let mut i = 0;
    while i < text.len() {
        let nibble = match text[text.len() - 1 - i] {
            byte @ b'0'..=b'9' => byte - b'0',
            byte => byte - b'a' + 10,
        };
        result[i / 13] |= (nibble as u64) << (4 * (i % 13));
        i += 1;
    }
    result
}

/// `2^exponent mod modulus`, by doubling.
pub(crate) const fn power_of_two<const N: usize>(modulus: &[u64; N], exponent: usize) -> [u64; N] {
    let mut result = [0; N];
    result[0] = 1;
    let mut round = 0;
    while round < exponent {
        result = double(&result, modulus);
        round += 1;
    }
    result
}

/// `2 a mod modulus` for `a` below the modulus.
const fn double<const N: usize>(a: &[u64; N], modulus: &[u64; N]) -> [u64; N] {
    let doubled = times(a, 2);
    let mut reduced = [0; N];
    let mut borrow = 0;
    let mut i = 0;
    while i < N {
        let difference = doubled[i].wrapping_sub(modulus[i]).wrapping_sub(borrow);
        borrow = difference >> 63;
        reduced[i] = difference & DIGIT_MASK;
        i += 1;
    }
    if borrow == 0 { reduced } else { doubled }
}

/// `multiple * a`, which must fit the digits.
pub(crate) const fn times<const N: usize>(a: &[u64; N], multiple: u64) -> [u64; N] {
    let mut result = [0; N];
    let mut carry = 0;
    let mut i = 0;
    while i < N {
        let digit = a[i] * multiple + carry;
        result[i] = digit & DIGIT_MASK;
        carry = digit >> DIGIT_BITS;
        i += 1;
    }
    result
}
