//! Big numbers the slow and obvious way: 64-bit limbs, lowest first, all as long as the modulus.

/// A number as long as its modulus.
pub(crate) type Number = Vec<u64>;

pub(crate) fn from_bytes(bytes: &[u8], limbs: usize) -> Number {
    let mut number = vec![0; limbs];
    for (position, byte) in bytes.iter().rev().enumerate() {
        if *byte != 0 {
            number[position / 8] |= u64::from(*byte) << (position % 8 * 8);
        }
    }
    number
}

pub(crate) fn to_bytes(number: &Number, length: usize) -> Vec<u8> {
    let mut bytes: Vec<u8> = number.iter().flat_map(|limb| limb.to_le_bytes()).collect();
    bytes.resize(length, 0);
    bytes.reverse();
    bytes
}

pub(crate) fn less(a: &Number, b: &Number) -> bool {
    a.iter().rev().lt(b.iter().rev())
}

pub(crate) fn is_zero(a: &Number) -> bool {
    a.iter().all(|limb| *limb == 0)
}

fn subtract(a: &Number, b: &Number) -> Number {
    let mut borrow = false;
    a.iter()
        .zip(b)
        .map(|(a, b)| {
            let (first, under) = a.overflowing_sub(*b);
            let (second, again) = first.overflowing_sub(u64::from(borrow));
            borrow = under || again;
            second
        })
        .collect()
}

pub(crate) fn add_mod(a: &Number, b: &Number, modulus: &Number) -> Number {
    let mut carry = false;
    let sum = a
        .iter()
        .zip(b)
        .map(|(a, b)| {
            let (first, over) = a.overflowing_add(*b);
            let (second, again) = first.overflowing_add(u64::from(carry));
            carry = over || again;
            second
        })
        .collect();
    if carry || !less(&sum, modulus) {
        subtract(&sum, modulus)
    } else {
        sum
    }
}

pub(crate) fn sub_mod(a: &Number, b: &Number, modulus: &Number) -> Number {
    if is_zero(b) {
        a.clone()
    } else {
        add_mod(a, &subtract(modulus, b), modulus)
    }
}

fn bits(number: &Number) -> impl Iterator<Item = bool> {
    number
        .iter()
        .rev()
        .flat_map(|limb| (0..64).rev().map(move |bit| limb >> bit & 1 == 1))
        .skip_while(|bit| !bit)
}

/// a * b mod m: double, and add b for each bit of a.
fn mul_mod(a: &Number, b: &Number, modulus: &Number) -> Number {
    let mut product = vec![0; modulus.len()];
    for bit in bits(a) {
        product = add_mod(&product, &product, modulus);
        if bit {
            product = add_mod(&product, b, modulus);
        }
    }
    product
}

/// An odd modulus with what Montgomery's method needs, because the obvious way takes seconds on the larger
/// curves.
pub(crate) struct Modulus {
    pub(crate) m: Number,
    /// -1/m mod 2^64.
    minus_inverse: u64,
    /// 2^(128 limbs) mod m.
    r_squared: Number,
}

impl Modulus {
    pub(crate) fn new(m: Number) -> Self {
        // Each step doubles the number of right bits.
        let inverse = (0..6).fold(m[0], |x, _| {
            x.wrapping_mul(2_u64.wrapping_sub(m[0].wrapping_mul(x)))
        });
        let mut r_squared = from_bytes(&[1], m.len());
        for _ in 0..m.len() * 128 {
            r_squared = add_mod(&r_squared, &r_squared, &m);
        }
        Self {
            minus_inverse: inverse.wrapping_neg(),
            r_squared,
            m,
        }
    }

    /// a * b / 2^(64 limbs) mod m, a digit of b at a time.
    fn montgomery(&self, a: &Number, b: &Number) -> Number {
        let mut t = vec![0_u64; self.m.len() + 1];
        for digit in b {
            let over = add_product(&mut t, a, *digit);
            let q = t[0].wrapping_mul(self.minus_inverse);
            let over = over + add_product(&mut t, &self.m, q);
            assert_eq!(t[0], 0);
            t.rotate_left(1);
            let last = t.len() - 1;
            t[last] = over;
        }
        let top = t.pop();
        if top == Some(1) || !less(&t, &self.m) {
            subtract(&t, &self.m)
        } else {
            t
        }
    }

    pub(crate) fn mul(&self, a: &Number, b: &Number) -> Number {
        self.montgomery(&self.montgomery(a, &self.r_squared), b)
    }

    /// base^exponent: square, and multiply for each bit of the exponent.
    pub(crate) fn pow(&self, base: &Number, exponent: &Number) -> Number {
        let mut power = from_bytes(&[1], self.m.len());
        for bit in bits(exponent) {
            power = self.mul(&power, &power);
            if bit {
                power = self.mul(&power, base);
            }
        }
        power
    }

    /// 1/a by Fermat's little theorem; the modulus must be prime.
    pub(crate) fn invert(&self, a: &Number) -> Number {
        let two = from_bytes(&[2], self.m.len());
        self.pow(a, &subtract(&self.m, &two))
    }
}

/// t += a * digit; returns what runs over the top.
fn add_product(t: &mut Number, a: &Number, digit: u64) -> u64 {
    let mut carry = 0_u128;
    for (at, sum) in t.iter_mut().enumerate() {
        let limb = a.get(at).copied().unwrap_or(0);
        carry += u128::from(*sum) + u128::from(limb) * u128::from(digit);
        *sum = carry as u64;
        carry >>= 64;
    }
    carry as u64
}

#[test]
fn numbers_agree_with_the_machine() {
    let modulus = vec![0xffff_ffff_ffff_ffc5_u64];
    for (a, b) in [
        (0, 5),
        (3, 4),
        (u64::MAX - 100, 0xffff_ffff_ffff_ff00),
        (1 << 63, 1 << 63),
    ] {
        let (wide, m) = (|x: u64| u128::from(x), u128::from(modulus[0]));
        let expect = |x: u128| vec![u64::try_from(x % m).unwrap()];
        assert_eq!(
            add_mod(&vec![a], &vec![b], &modulus),
            expect(wide(a) + wide(b))
        );
        assert_eq!(
            sub_mod(&vec![a], &vec![b], &modulus),
            expect(wide(a) + m - wide(b))
        );
        assert_eq!(
            mul_mod(&vec![a], &vec![b], &modulus),
            expect(wide(a) * wide(b))
        );
    }
    let prime = Modulus::new(modulus.clone());
    assert_eq!(
        mul_mod(&prime.invert(&vec![12345]), &vec![12345], &modulus),
        [1]
    );
    assert_eq!(to_bytes(&from_bytes(&[1, 2, 3], 2), 4), [0, 1, 2, 3]);
}

#[test]
fn the_quick_product_is_the_obvious_one() {
    for limbs in [1, 4, 6, 9, 32] {
        for _ in 0..20 {
            let number = || from_bytes(&super::random(limbs * 8), limbs);
            let (mut m, mut a, mut b) = (number(), number(), number());
            m[0] |= 1;
            m[limbs - 1] |= 1 << 63;
            a[limbs - 1] >>= 1;
            b[limbs - 1] >>= 1;
            assert_eq!(Modulus::new(m.clone()).mul(&a, &b), mul_mod(&a, &b, &m));
        }
    }
}
