//! What an attacker can compute with an RSA public key: the public operation, and the blocks that stand for
//! signatures and ciphertexts.
//!
//! All numbers here are public or the attacker's own. Nothing is constant time, and nothing needs to be.

use aws_lc_rs::{digest, rand};
use x509_parser::prelude::FromDer;
use x509_parser::public_key::PublicKey;
use x509_parser::x509::SubjectPublicKeyInfo;

/// What stands before a SHA-256 value in a PKCS#1 v1.5 signature (RFC 8017, section 9.2, note 1).
const SHA256_PREFIX: [u8; 19] = [
    0x30, 0x31, 0x30, 0x0d, 0x06, 0x09, 0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x02, 0x01, 0x05,
    0x00, 0x04, 0x20,
];

/// An RSA public key. Numbers are limbs of 64 bits, least significant first.
#[derive(Debug, Clone)]
pub(super) struct RsaPublic {
    n: Vec<u64>,
    /// `-1/n` modulo 2^64.
    n0: u64,
    /// R^2 modulo n, with R = 2^(64 limbs).
    r2: Vec<u64>,
    e: u64,
    /// The modulus as the protocol's certificate digest wants it: upper-case hexadecimal.
    modulus_hex: String,
    /// Bytes of the modulus.
    pub(super) k: usize,
}

impl RsaPublic {
    /// From a DER SubjectPublicKeyInfo; nothing for another type of key.
    pub(super) fn from_spki(der: &[u8]) -> Option<Self> {
        let (_, spki) = SubjectPublicKeyInfo::from_der(der).ok()?;
        let PublicKey::RSA(key) = spki.parsed().ok()? else {
            return None;
        };
        let leading = key.modulus.iter().take_while(|byte| **byte == 0).count();
        let modulus = key.modulus.get(leading..)?;
        let e = key.try_exponent().ok()?;
        let n = limbs(modulus);
        let mut inverse = 1_u64;
        let lowest = *n.first()?;
        // Newton: each step doubles the bits that are right.
        for _ in 0..6 {
            inverse = inverse.wrapping_mul(2_u64.wrapping_sub(lowest.wrapping_mul(inverse)));
        }
        let mut public = Self {
            n0: inverse.wrapping_neg(),
            r2: Vec::new(),
            e,
            modulus_hex: modulus.iter().map(|byte| format!("{byte:02X}")).collect(),
            k: modulus.len(),
            n,
        };
        let mut r2 = vec![0; public.n.len()];
        *r2.first_mut()? = 1;
        for _ in 0..128 * public.n.len() {
            r2 = public.doubled(&r2);
        }
        public.r2 = r2;
        Some(public)
    }

    /// The digest by which old clients name the key (item 0x01).
    pub(super) fn certificate_digest(&self) -> [u8; 32] {
        sha256(self.modulus_hex.as_bytes())
    }

    /// `block^e mod n`, in k bytes: encryption, and the check of a signature.
    pub(super) fn public(&self, block: &[u8]) -> Vec<u8> {
        let mut base = limbs(block);
        base.resize(self.n.len(), 0);
        let base = self.product(&base, &self.r2);
        let mut power = base.clone();
        // The bits of e below the highest, from the top.
        let bits = u64::BITS - self.e.leading_zeros();
        for bit in (0..bits.saturating_sub(1)).rev() {
            power = self.product(&power, &power);
            if self.e >> bit & 1 == 1 {
                power = self.product(&power, &base);
            }
        }
        let mut one = vec![0; self.n.len()];
        if let Some(first) = one.first_mut() {
            *first = 1;
        }
        self.bytes(&self.product(&power, &one))
    }

    /// `block * 2^e mod n`, in k bytes: a ciphertext that opens to twice what `block` opens to.
    pub(super) fn blinded(&self, block: &[u8]) -> Vec<u8> {
        let mut two = vec![0; self.k];
        if let Some(last) = two.last_mut() {
            *last = 2;
        }
        let mut factor = limbs(&self.public(&two));
        let mut number = limbs(block);
        factor.resize(self.n.len(), 0);
        number.resize(self.n.len(), 0);
        self.bytes(&self.product(&self.product(&number, &self.r2), &factor))
    }

    /// `number / 2 mod n`, in k bytes: an odd number gets the modulus added first.
    pub(super) fn half(&self, number: &[u8]) -> Vec<u8> {
        let mut sum = limbs(number);
        sum.resize(self.n.len() + 1, 0);
        if sum.first().is_some_and(|lowest| lowest & 1 == 1) {
            add_product(&mut sum, 1, &self.n);
        }
        let above: Vec<u64> = sum.iter().skip(1).copied().chain([0]).collect();
        for (limb, above) in sum.iter_mut().zip(above) {
            *limb = *limb >> 1 | above << 63;
        }
        self.bytes(&sum)
    }

    /// Montgomery's product: `a b / R mod n`.
    fn product(&self, a: &[u64], b: &[u64]) -> Vec<u64> {
        let length = self.n.len();
        let mut sum = vec![0; length + 2];
        for limb in a {
            add_product(&mut sum, *limb, b);
            let lowest = sum.first().copied().unwrap_or(0);
            add_product(&mut sum, lowest.wrapping_mul(self.n0), &self.n);
            // The lowest limb is zero now: divide by 2^64.
            sum.rotate_left(1);
        }
        self.reduced(sum)
    }

    fn doubled(&self, number: &[u64]) -> Vec<u64> {
        let mut sum = vec![0; self.n.len() + 1];
        add_product(&mut sum, 2, number);
        self.reduced(sum)
    }

    /// A number below 2n, with limbs to spare, modulo n.
    fn reduced(&self, mut number: Vec<u64>) -> Vec<u64> {
        let padded = self.n.iter().copied().chain(std::iter::repeat(0));
        let n: Vec<u64> = padded.take(number.len()).collect();
        if number.iter().rev().ge(n.iter().rev()) {
            let mut borrow = false;
            for (limb, n) in number.iter_mut().zip(&n) {
                let (difference, first) = limb.overflowing_sub(*n);
                let (difference, second) = difference.overflowing_sub(borrow.into());
                (*limb, borrow) = (difference, first | second);
            }
        }
        number.truncate(self.n.len());
        number
    }

    fn bytes(&self, number: &[u64]) -> Vec<u8> {
        let mut bytes: Vec<u8> = number.iter().flat_map(|limb| limb.to_le_bytes()).collect();
        bytes.resize(self.k, 0);
        bytes.reverse();
        bytes
    }

    /// The block that a PKCS#1 v1.5 signature of `message` with SHA-256 opens to (RFC 8017, section 9.2).
    pub(super) fn pkcs1_block(&self, message: &[u8]) -> Vec<u8> {
        let hash = sha256(message);
        let mut block = vec![0x00, 0x01];
        block.resize(self.k - SHA256_PREFIX.len() - hash.len() - 1, 0xff);
        block.push(0x00);
        block.extend_from_slice(&SHA256_PREFIX);
        block.extend_from_slice(&hash);
        block
    }

    /// The block that a PSS signature of `message` opens to: SHA-256, MGF1 with it, a salt of 32 bytes
    /// (RFC 8017, section 9.1.1).
    pub(super) fn pss_block(&self, message: &[u8]) -> Vec<u8> {
        let salt = random::<32>();
        let hash = sha256(&[&[0; 8], &sha256(message)[..], &salt].concat());
        let mut masked = vec![0; self.k - 32 - 1 - 32 - 1];
        masked.push(1);
        masked.extend_from_slice(&salt);
        for (counter, chunk) in (0_u32..).zip(masked.chunks_mut(32)) {
            let mask = sha256(&[&hash[..], &counter.to_be_bytes()].concat());
            chunk.iter_mut().zip(mask).for_each(|(out, m)| *out ^= m);
        }
        // The modulus has its highest bit set, so one bit of the block is not used.
        if let Some(first) = masked.first_mut() {
            *first &= 0x7f;
        }
        [&masked[..], &hash, &[0xbc]].concat()
    }

    /// The block of an RSA key exchange, `00 02 filler 00 secret` (RFC 8017, section 7.2.1), with a fresh filler.
    pub(super) fn encryption_block(&self, secret: &[u8]) -> Vec<u8> {
        let filler = self.k.saturating_sub(3 + secret.len());
        let mut block = vec![0; 2 + filler];
        // A generator that fails leaves zeros, which the next line makes ones.
        let _ = rand::fill(&mut block);
        block
            .iter_mut()
            .for_each(|byte| *byte |= u8::from(*byte == 0));
        block.splice(..2, [0, 2]);
        block.push(0);
        block.extend_from_slice(secret);
        block
    }
}

/// SHA-256.
pub(super) fn sha256(bytes: &[u8]) -> [u8; 32] {
    let value = digest::digest(&digest::SHA256, bytes);
    value.as_ref().try_into().unwrap_or([0; 32])
}

/// Fresh random bytes.
pub(super) fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    // Without randomness the attacks are the same ones each time, and no less attacks.
    let _ = rand::fill(&mut bytes);
    bytes
}

/// Big-endian bytes as limbs, least significant first.
fn limbs(bytes: &[u8]) -> Vec<u64> {
    bytes
        .rchunks(8)
        .map(|chunk| {
            chunk
                .iter()
                .fold(0, |limb, byte| limb << 8 | u64::from(*byte))
        })
        .collect()
}

/// `sum += factor * number`. `sum` has room for the result.
fn add_product(sum: &mut [u64], factor: u64, number: &[u64]) {
    let mut carry = 0_u128;
    let padded = number.iter().copied().chain(std::iter::repeat(0));
    for (limb, digit) in sum.iter_mut().zip(padded) {
        let all = u128::from(factor) * u128::from(digit) + u128::from(*limb) + carry;
        *limb = low(all);
        carry = all >> 64;
    }
}

#[expect(
    clippy::cast_possible_truncation,
    reason = "the low half is what is wanted"
)]
const fn low(number: u128) -> u64 {
    number as u64
}

#[cfg(test)]
mod tests {
    use accel::{Backend, Job, Key, Operation, Single};

    use super::*;
    use crate::tls::verify::Scheme;

    const KEYS: [&[u8]; 2] = [
        include_bytes!("../../../../accel/tests/keys/rsa2048.pkcs8.pem"),
        include_bytes!("../../../../accel/tests/keys/rsa3072.pkcs8.pem"),
    ];

    fn private(key: &Key, input: &[u8]) -> Vec<u8> {
        let mut output = Vec::new();
        let mut job = Job::new(key, Operation::RsaPrivate, input, &mut output);
        Single.run(std::slice::from_mut(&mut job));
        job.result.unwrap();
        output
    }

    #[test]
    fn the_public_operation_undoes_the_private_one() {
        for pem in KEYS {
            let key = Key::from_bytes(pem).unwrap();
            let public = RsaPublic::from_spki(key.spki_der()).unwrap();
            for _ in 0..4 {
                let block = public.encryption_block(&random::<48>());
                assert_eq!(block.len(), public.k);
                assert_eq!(private(&key, &public.public(&block)), block);
                let twice = private(&key, &public.blinded(&public.public(&block)));
                assert_eq!(public.half(&twice), block);
            }
        }
    }

    #[test]
    fn what_the_private_operation_makes_of_the_blocks_are_signatures() {
        for pem in KEYS {
            let key = Key::from_bytes(pem).unwrap();
            let public = RsaPublic::from_spki(key.spki_der()).unwrap();
            for (block, scheme) in [
                (public.pkcs1_block(b"message"), Scheme::RsaPkcs1Sha256),
                (public.pss_block(b"message"), Scheme::RsaPssSha256),
            ] {
                let signature = private(&key, &block);
                assert!(scheme.verifies(key.spki_der(), b"message", &signature));
            }
        }
    }

    #[test]
    fn the_digest_that_names_a_key_is_the_servers() {
        let key = Key::from_bytes(KEYS[0]).unwrap();
        let public = RsaPublic::from_spki(key.spki_der()).unwrap();
        assert_eq!(Some(public.certificate_digest()), key.modulus_digest());
    }
}
