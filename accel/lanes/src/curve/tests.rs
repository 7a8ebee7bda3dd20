//! The kernels against the naive oracle, against one number at a time, and against published values; every test runs
//! on every path of this CPU.

use super::comb::{BaseMultiply, Comb, WINDOW_BITS};
use super::prime::{DIGIT_MASK, Element, Field, Montgomery, Plain, Prime, Sum};
use super::shared::{Products, inverse_montgomery, inverse_plain, multiply_lanes};
use super::single::{Single, SinglePoint};
use super::{Curve, P256, P384, p256, p384};
use crate::oracle::{Number, Random, below, cases, number, product, reduce, same};
use crate::token::Path;
use crate::vector::{Kernel, LANES, Row, Vector, run};
use core::marker::PhantomData;

/// The paths of this CPU, named once in the output.
fn paths() -> Vec<Path> {
    let paths = Path::all();
    eprintln!("curve kernels run here on: {:?}", paths);
    paths
}

/// Every field operation over two numbers a lane.
struct Operations<'a, P, const N: usize> {
    a: &'a [Row; N],
    b: &'a [Row; N],
    prime: PhantomData<P>,
}

/// What [`Operations`] gives; `PartialEq` compares paths.
#[derive(PartialEq, Debug)]
struct Outcome<const N: usize> {
    product: [Row; N],
    square: [Row; N],
    difference: [Row; N],
    settled: [Row; N],
    number: [Row; N],
    zero: u8,
}

impl<P: Prime<N>, const N: usize> Kernel for Operations<'_, P, N> {
    type Output = Outcome<N>;

    #[inline(always)]
    fn run<V: Vector>(self, token: V::Token) -> Outcome<N> {
        let field: Field<V, P, N> = Field::new(token);
        let a: Element<V, P, Montgomery, N> = field.load(self.a);
        let b: Element<V, P, Montgomery, N> = field.load(self.b);
        let [
            mut product,
            mut square,
            mut difference,
            mut settled,
            mut number,
        ] = [[Row::ZERO; N]; 5];
        field.product(&a, &b).store(&mut product);
        field.carry(field.square(&a)).store(&mut square);
        // Below 2 p, so that differences stay within the digits.
        let (c, d) = (field.product(&a, &b), field.product(&b, &b));
        field
            .carry(field.sub(c.sum(), d.sum(), 4))
            .store(&mut difference);
        let many: Sum<V, P, Montgomery, N> = c.sum().plus(c.sum()).plus(c.sum());
        field
            .settle(field.sub(many, d.sum(), 4))
            .store(&mut settled);
        let plain = field.number(&c);
        plain.store(&mut number);
        let zero = V::bits(field.is_zero(&plain));
        Outcome {
            product,
            square,
            difference,
            settled,
            number,
            zero,
        }
    }
}

fn digits_of<const N: usize>(rows: &[Row; N], lane: usize) -> [u64; N] {
    rows.map(|row| row.0[lane])
}

fn splat<const N: usize>(digits: &[u64; N]) -> [Row; N] {
    digits.map(Row::splat)
}

/// Checks one batch on every path against the oracle.
fn check_against_oracle<P: Prime<N>, const N: usize>(paths: &[Path], a: &[Row; N], b: &[Row; N]) {
    let modulus = number(&splat(&P::MODULUS), 0);
    let times = |k: u64| -> Number { product(&modulus, &[k]) };
    for path in paths {
        let outcome = run(
            *path,
            Operations::<P, N> {
                a,
                b,
                prime: PhantomData,
            },
        );
        for lane in 0..LANES {
            let (x, y) = (number(a, lane), number(b, lane));
            let reduced = |x: &[u64], y: &[u64]| reduce(&product(x, y), &modulus, 52 * N);
            let context = || format!("{} lane {lane}: {x:x?} {y:x?}", path.name());
            let c = reduced(&x, &y);
            assert!(same(&number(&outcome.product, lane), &c), "{}", context());
            let squared = reduced(&x, &x);
            assert!(
                same(&number(&outcome.square, lane), &squared),
                "{}",
                context()
            );
            let d = reduced(&y, &y);
            let plus = |a: &[u64], b: &[u64]| add(a, b);
            let difference = plus(&number(&outcome.difference, lane), &d);
            assert!(same(&difference, &plus(&c, &times(4))), "{}", context());
            // 3 c + 4 p - d, less any multiple of p, and below the promised bound.
            let settled = number(&outcome.settled, lane);
            assert!(below(&settled, &times(P::SETTLED)), "{}", context());
            let whole = plus(&product(&c, &[3]), &times(4));
            let candidate = plus(&settled, &d);
            assert!(
                (0..16).any(|k| same(&plus(&candidate, &times(k)), &whole)),
                "{}",
                context()
            );
            let mut one = vec![0; 1];
            one[0] = 1;
            let plain = number(&outcome.number, lane);
            assert!(below(&plain, &modulus), "{}", context());
            let left = reduced(&c, &one);
            assert!(
                same(&left, &plain) || same(&left, &plus(&plain, &modulus)),
                "{}",
                context()
            );
            let zero = plain.iter().all(|limb| *limb == 0);
            assert_eq!(outcome.zero >> lane & 1 == 1, zero, "{}", context());
        }
    }
}

fn add(a: &[u64], b: &[u64]) -> Number {
    let mut carry = 0;
    let mut sum: Number = (0..a.len().max(b.len()) + 1)
        .map(|i| {
            let digit = a.get(i).unwrap_or(&0) + b.get(i).unwrap_or(&0) + carry;
            carry = digit >> 32;
            digit & 0xffff_ffff
        })
        .collect();
    sum.push(carry);
    sum
}

/// 0, 1, the prime and its neighbours, all-ones digits, single digits of ones.
fn edges<P: Prime<N>, const N: usize>(bits: usize) -> Vec<[u64; N]> {
    let mut one = [0; N];
    one[0] = 1;
    let mut less = P::MODULUS;
    less[0] -= 1;
    let mut more = P::MODULUS;
    more[0] += 1;
    let full: [u64; N] = core::array::from_fn(|i| {
        let room = bits.saturating_sub(52 * i).min(52);
        (1u64 << room) - 1
    });
    let mut result = vec![[0; N], one, less, P::MODULUS, P::R1, P::R2, full];
    if more[0] <= DIGIT_MASK {
        result.push(more);
    }
    for i in 0..N {
        let mut digit = [0; N];
        digit[i] = full[i];
        result.push(digit);
    }
    result
}

/// Edges against edges and random numbers against the oracle: `a` of up to `a_bits`, `b` of up to `b_bits`.
fn field_agrees_with_the_oracle<P: Prime<N>, const N: usize>(a_bits: usize, b_bits: usize) {
    let paths = paths();
    let b_edges = edges::<P, N>(b_bits);
    for x in edges::<P, N>(a_bits.min(b_bits + 2)) {
        for chunk in b_edges.chunks(LANES) {
            let b: [Row; N] = core::array::from_fn(|i| {
                Row(core::array::from_fn(|lane| chunk[lane % chunk.len()][i]))
            });
            check_against_oracle::<P, N>(&paths, &splat(&x), &b);
        }
    }
    let mut random = Random(0x1234_5678_9abc_def1 ^ P::MODULUS[0]);
    for _ in 0..cases(1_200) / LANES {
        let (a, b) = (random.rows(a_bits.min(b_bits + 2)), random.rows(b_bits));
        check_against_oracle::<P, N>(&paths, &a, &b);
    }
}

/// 100,000 products and squares of lazily reduced numbers: all paths give the same digits, and the right number.
fn field_agrees_with_one_at_a_time<P: Prime<N>, const N: usize>(bits: usize) {
    let paths = paths();
    let mut random = Random(0x0bad_cafe_f00d_0001 ^ P::MODULUS[1]);
    for _ in 0..cases(100_000) / LANES {
        let (a, b) = (random.rows::<N>(bits + 2), random.rows::<N>(bits));
        let outcomes: Vec<_> = paths
            .iter()
            .map(|path| {
                run(
                    *path,
                    Operations::<P, N> {
                        a: &a,
                        b: &b,
                        prime: PhantomData,
                    },
                )
            })
            .collect();
        for outcome in &outcomes {
            assert_eq!(
                outcome.product.map(|row| row.0),
                outcomes[0].product.map(|row| row.0)
            );
            assert!(*outcome == outcomes[0], "paths differ");
        }
        for lane in 0..LANES {
            let single = |rows: &[Row; N]| Single::<P, N>::reduced(&digits_of(rows, lane));
            let outcome = &outcomes[outcomes.len() - 1];
            let expected = single(&a).mul(single(&b));
            assert!(single(&outcome.product) == expected);
            assert!(single(&outcome.square) == single(&a).mul(single(&a)));
        }
    }
}

#[test]
fn p256_coordinates_agree_with_the_oracle() {
    field_agrees_with_the_oracle::<p256::Coordinate, 5>(260, 256);
}

#[test]
fn p256_scalars_agree_with_the_oracle() {
    field_agrees_with_the_oracle::<p256::Order, 5>(258, 256);
}

#[test]
fn p384_coordinates_agree_with_the_oracle() {
    field_agrees_with_the_oracle::<p384::Coordinate, 8>(394, 392);
}

#[test]
fn p384_scalars_agree_with_the_oracle() {
    field_agrees_with_the_oracle::<p384::Order, 8>(394, 392);
}

#[test]
fn a_hundred_thousand_products_agree() {
    field_agrees_with_one_at_a_time::<p256::Coordinate, 5>(256);
    field_agrees_with_one_at_a_time::<p256::Order, 5>(256);
    field_agrees_with_one_at_a_time::<p384::Coordinate, 8>(390);
    field_agrees_with_one_at_a_time::<p384::Order, 8>(390);
}

/// Eight multiples of the generator in the form of [`BaseMultiply`].
struct Multiples<const N: usize> {
    x: [Row; N],
    products: Products<N>,
    valid: u8,
}

fn multiply<C: Curve<N>, const N: usize>(
    path: Path,
    comb: &Comb<N>,
    scalars: &[Row; N],
) -> Multiples<N> {
    let mut result = Multiples {
        x: [Row::ZERO; N],
        products: Products::EMPTY,
        valid: 0,
    };
    result.valid = run(
        path,
        BaseMultiply {
            scalars,
            x: &mut result.x,
            products: &mut result.products,
            comb,
            curve: PhantomData::<C>,
        },
    );
    result
}

/// Whether a lane's x coordinate is that of the point: `ZZ` of the lane is `total / others`.
fn same_x<C: Curve<N>, const N: usize>(
    multiples: &Multiples<N>,
    lane: usize,
    point: &SinglePoint<C, N>,
) -> bool {
    let single = |rows: &[Row; N]| Single::<C::Coordinate, N>::reduced(&digits_of(rows, lane));
    let left = single(&multiples.x).mul(single(&multiples.products.others));
    left.mul(point.zz).0 == point.x.mul(single(&multiples.products.total)).0
}

/// `k G` by doubling and adding, for `k` of at least 2.
fn double_and_add<C: Curve<N>, const N: usize>(scalar: &[u64; N]) -> SinglePoint<C, N> {
    let generator = SinglePoint::<C, N>::generator();
    let bit = |i: usize| (scalar[i / 52] >> (i % 52)) & 1 == 1;
    let top = (0..52 * N).rev().find(|i| bit(*i)).expect("not zero");
    let mut point = generator;
    for i in (0..top).rev() {
        point = point.double();
        if bit(i) {
            // The point is 2 G or more, and n - 1 is even: neither equal nor opposite to G, except at 2 G + G.
            point = point.add(generator);
        }
    }
    point
}

fn check_scalars<C: Curve<N>, const N: usize>(paths: &[Path], scalars: &[[u64; N]]) {
    for chunk in scalars.chunks(LANES) {
        let rows: [Row; N] = core::array::from_fn(|i| {
            Row(core::array::from_fn(|lane| chunk[lane % chunk.len()][i]))
        });
        let points: Vec<_> = chunk.iter().map(double_and_add::<C, N>).collect();
        for path in paths {
            let multiples = multiply::<C, N>(*path, C::comb(), &rows);
            assert_eq!(multiples.valid, 0xff, "{}", path.name());
            for lane in 0..LANES {
                let point = &points[lane % chunk.len()];
                assert!(
                    same_x(&multiples, lane, point),
                    "{} lane {lane}",
                    path.name()
                );
            }
        }
    }
}

/// Small scalars, powers of two, their neighbours, and the same below the order.
fn edge_scalars<C: Curve<N>, const N: usize>() -> Vec<[u64; N]> {
    let mut result = Vec::new();
    let order = <C::Order as Prime<N>>::MODULUS;
    for small in 1..300 {
        let mut scalar = [0; N];
        scalar[0] = small;
        result.push(scalar);
        let mut scalar = order;
        scalar[0] -= small;
        result.push(scalar);
    }
    for bit in 9..8 * C::BYTES - 1 {
        let mut scalar = [0; N];
        scalar[bit / 52] = 1 << (bit % 52);
        result.push(scalar);
        scalar[0] |= 1;
        result.push(scalar);
    }
    result
}

#[test]
fn edge_scalars_give_the_right_points() {
    let paths = paths();
    check_scalars::<P256, 5>(&paths, &edge_scalars::<P256, 5>());
    check_scalars::<P384, 8>(&paths, &edge_scalars::<P384, 8>());
}

#[test]
fn random_scalars_give_the_right_points() {
    let paths = paths();
    let mut random = Random(77);
    for _ in 0..cases(320) / LANES {
        let (a, b) = (random.rows::<5>(255), random.rows::<8>(383));
        let a: Vec<_> = (0..LANES).map(|lane| digits_of(&a, lane)).collect();
        let b: Vec<_> = (0..LANES).map(|lane| digits_of(&b, lane)).collect();
        check_scalars::<P256, 5>(&paths, &a);
        check_scalars::<P384, 8>(&paths, &b);
    }
}

/// Walks through all 128 windows of a position: from one to the next the scalar grows by `2^(7 i + 1)`.
fn every_window_is_looked_up<C: Curve<N>, const N: usize>(path: Path) {
    let mut random = Random(4242);
    // The scalar is 2 b + 1, with the top window left to the recoding's sign bit.
    let top = 8 * C::BYTES - 1;
    for position in 0..top / WINDOW_BITS {
        let lane_bits = random.rows::<N>(top - WINDOW_BITS);
        let mut scalar = digits_of(&lane_bits, 0);
        scalar[0] |= 1;
        for bit in WINDOW_BITS * position + 1..WINDOW_BITS * (position + 1) + 1 {
            scalar[bit / 52] &= !(1 << (bit % 52));
        }
        let mut step = [0; N];
        let first_bit = WINDOW_BITS * position + 1;
        step[first_bit / 52] = 1 << (first_bit % 52);
        let step_point = double_and_add::<C, N>(&step);
        let mut point = double_and_add::<C, N>(&scalar);
        for _ in 0..(1 << WINDOW_BITS) / LANES {
            let mut scalars = [Row::ZERO; N];
            let mut points = Vec::new();
            for lane in 0..LANES {
                for (row, digit) in scalars.iter_mut().zip(scalar) {
                    row.0[lane] = digit;
                }
                points.push(point);
                for (digit, step) in scalar.iter_mut().zip(step) {
                    *digit += step;
                }
                for i in 1..N {
                    scalar[i] += scalar[i - 1] >> 52;
                    scalar[i - 1] &= DIGIT_MASK;
                }
                point = point.add(step_point);
            }
            let multiples = multiply::<C, N>(path, C::comb(), &scalars);
            assert_eq!(multiples.valid, 0xff);
            for (lane, point) in points.iter().enumerate() {
                assert!(
                    same_x(&multiples, lane, point),
                    "position {position} lane {lane}"
                );
            }
        }
    }
}

#[test]
fn every_table_entry_is_reached() {
    for path in paths() {
        every_window_is_looked_up::<P256, 5>(path);
        every_window_is_looked_up::<P384, 8>(path);
    }
}

/// The last addition would be a doubling only for `k = n - 2 u` with `-u` as the lowest digit: no such `u` exists.
#[test]
fn no_scalar_needs_a_doubling() {
    for low in [
        <p256::Order as Prime<5>>::MODULUS[0],
        <p384::Order as Prime<8>>::MODULUS[0],
    ] {
        for u in (1..1i64 << WINDOW_BITS).step_by(2) {
            let k = low.wrapping_sub(2 * u.cast_unsigned());
            let digit = i64::try_from(k % 256).expect("below 256") - 128;
            assert_ne!(digit, -u);
        }
    }
}

#[test]
fn a_damaged_table_is_noticed_in_the_lanes_that_use_it() {
    for path in paths() {
        let mut comb = Comb::new::<P256>();
        // Entry 3 of the least significant position, x, one bit: used by scalars whose low digit is 7 or -7.
        comb.flip_bit();
        let scalars = [
            Row([128 + 7, 128 - 7, 1, 9, 11, 128 + 7 + 256, 13, 15]),
            Row::ZERO,
            Row::ZERO,
            Row::ZERO,
            Row::ZERO,
        ];
        let multiples = multiply::<P256, 5>(path, &comb, &scalars);
        assert_eq!(multiples.valid, 0b1101_1100, "{}", path.name());
    }
}

/// Inverts eight lanes and multiplies back.
struct Inverses<'a, P, const N: usize> {
    values: &'a [Row; N],
    prime: PhantomData<P>,
}

impl<P: Prime<N>, const N: usize> Kernel for Inverses<'_, P, N> {
    type Output = bool;

    #[inline(always)]
    fn run<V: Vector>(self, token: V::Token) -> bool {
        let field: Field<V, P, N> = Field::new(token);
        let values = field.enter(&field.load::<Plain>(self.values));
        let mut products = Products::EMPTY;
        multiply_lanes(token, &field, &values, &mut products);
        let mut inverse = [0; N];
        inverse.copy_from_slice(&Single::<P, N>::raw(&products.total()).invert_plain());
        let plain = inverse_plain(&field, &inverse, &products.others);
        let montgomery = inverse_montgomery(&field, &inverse, &products.others);
        let mut one = [0; N];
        one[0] = 1;
        let one = field.splat::<Plain>(&one);
        let first = field.canonical(&field.product(&plain, &values));
        let second = field.number(&field.product(&montgomery, &values));
        let mut rows = [[Row::ZERO; N]; 3];
        let [a, b, c] = &mut rows;
        first.store(a);
        second.store(b);
        one.store(c);
        rows[0] == rows[2] && rows[1] == rows[2]
    }
}

#[test]
fn shared_inverses_are_inverses() {
    let mut random = Random(99);
    for path in paths() {
        for _ in 0..cases(400) / LANES {
            let mut values = random.rows::<5>(255);
            values[0].0 = values[0].0.map(|digit| digit | 1);
            assert!(run(
                path,
                Inverses::<p256::Coordinate, 5> {
                    values: &values,
                    prime: PhantomData
                }
            ));
            assert!(run(
                path,
                Inverses::<p256::Order, 5> {
                    values: &values,
                    prime: PhantomData
                }
            ));
            let mut values = random.rows::<8>(383);
            values[0].0 = values[0].0.map(|digit| digit | 1);
            assert!(run(
                path,
                Inverses::<p384::Order, 8> {
                    values: &values,
                    prime: PhantomData
                }
            ));
        }
    }
}
