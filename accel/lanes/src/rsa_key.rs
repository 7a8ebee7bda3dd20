//! What the lanes need of an RSA private key, computed once per key.

use core::fmt;

use zeroize::{Zeroize, ZeroizeOnDrop};

use crate::digits::{DIGIT_BITS, Modulus, split};
use crate::power::EXPONENT_ROW_BITS;

/// The lengths the lanes compute with. Eight operations of one length run together.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Size {
    /// A 2048-bit modulus.
    Rsa2048,
    /// A 3072-bit modulus.
    Rsa3072,
    /// A 4096-bit modulus.
    Rsa4096,
}

impl Size {
    /// Every size.
    pub const ALL: [Self; 3] = [Self::Rsa2048, Self::Rsa3072, Self::Rsa4096];

    /// The size of a modulus of so many bits.
    #[must_use]
    pub const fn from_bits(bits: usize) -> Option<Self> {
        match bits {
            2048 => Some(Self::Rsa2048),
            3072 => Some(Self::Rsa3072),
            4096 => Some(Self::Rsa4096),
            _ => None,
        }
    }

    /// Bits of the modulus n.
    #[must_use]
    pub const fn bits(self) -> usize {
        match self {
            Self::Rsa2048 => 2048,
            Self::Rsa3072 => 3072,
            Self::Rsa4096 => 4096,
        }
    }

    /// Bytes of the modulus, and so of every input and output.
    #[must_use]
    pub const fn bytes(self) -> usize {
        self.bits() / 8
    }

    /// Digits of a prime: 20, 30 or 40. The modulus has twice as many.
    #[must_use]
    pub const fn half_digits(self) -> usize {
        match self {
            Self::Rsa2048 => 20,
            Self::Rsa3072 => 30,
            Self::Rsa4096 => 40,
        }
    }
}

/// The numbers of a private key as they stand in its file: unsigned, big endian, no leading zeros. The public exponent
/// is 65537.
#[derive(Clone, Copy)]
pub struct Numbers<'a> {
    /// The modulus, p q.
    pub n: &'a [u8],
    /// The first prime.
    pub p: &'a [u8],
    /// The second prime.
    pub q: &'a [u8],
    /// d modulo p - 1.
    pub dp: &'a [u8],
    /// d modulo q - 1.
    pub dq: &'a [u8],
    /// 1 / q modulo p.
    pub qinv: &'a [u8],
}

impl fmt::Debug for Numbers<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Numbers(..)")
    }
}

/// An exponent in groups of 60 bits, from which windows are cut.
pub(crate) type Exponent = Vec<u64>;

/// An RSA private key ready for the lanes; wiped on drop.
#[derive(Zeroize, ZeroizeOnDrop)]
pub struct Key {
    #[zeroize(skip)]
    pub(crate) size: Size,
    pub(crate) n: Modulus,
    pub(crate) p: Modulus,
    pub(crate) q: Modulus,
    pub(crate) dp: Exponent,
    pub(crate) dq: Exponent,
    /// -d modulo p - 1 and q - 1: what makes a blinding pair.
    pub(crate) minus_dp: Exponent,
    pub(crate) minus_dq: Exponent,
    /// 1 / q modulo p, encoded.
    pub(crate) qinv: Vec<u64>,
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Key")
            .field("size", &self.size)
            .finish_non_exhaustive()
    }
}

impl Key {
    /// `None` if the lanes cannot take this key: another length, primes that are not exactly half as long as the
    /// modulus, or numbers that are too long to belong to them.
    ///
    /// That the numbers belong together is the caller's to know. Where they do not, every operation with the key fails
    /// its check.
    #[must_use]
    pub fn new(numbers: Numbers<'_>) -> Option<Self> {
        let size = Size::from_bits(numbers.n.len() * 8)?;
        let (bits, half) = (size.bits(), size.half_digits());
        let n = Modulus::new(numbers.n, bits, 2 * half)?;
        let p = Modulus::new(numbers.p, bits / 2, half)?;
        let q = Modulus::new(numbers.q, bits / 2, half)?;
        let half_bytes = bits / 16;
        if [numbers.dp, numbers.dq, numbers.qinv]
            .iter()
            .any(|number| number.len() > half_bytes)
        {
            return None;
        }
        let exponent = |number: &[u8]| {
            split(
                number,
                EXPONENT_ROW_BITS,
                (bits / 2).div_ceil(EXPONENT_ROW_BITS),
            )
        };
        let negative = |prime: &[u8], number: &[u8]| {
            let mut difference = minus(prime, number);
            let result = exponent(&difference);
            difference.zeroize();
            result
        };
        let mut plain = split(numbers.qinv, DIGIT_BITS, half);
        let qinv = p.multiply(&plain, &p.rr);
        plain.zeroize();
        Some(Self {
            size,
            dp: exponent(numbers.dp),
            dq: exponent(numbers.dq),
            minus_dp: negative(numbers.p, numbers.dp),
            minus_dq: negative(numbers.q, numbers.dq),
            qinv,
            n,
            p,
            q,
        })
    }

    /// The key's length.
    #[must_use]
    pub const fn size(&self) -> Size {
        self.size
    }
}

/// `prime - 1 - number` for big-endian numbers, `number` below the odd `prime`.
fn minus(prime: &[u8], number: &[u8]) -> Vec<u8> {
    let mut difference = prime.to_vec();
    if let Some(last) = difference.last_mut() {
        *last &= 0xfe;
    }
    let mut borrow = 0;
    let digits = number.iter().rev().copied().chain(core::iter::repeat(0));
    for (byte, other) in difference.iter_mut().rev().zip(digits) {
        let value = 0x100 + u16::from(*byte) - u16::from(other) - borrow;
        *byte = value.to_le_bytes()[0];
        borrow = 1 - (value >> 8);
    }
    difference
}
