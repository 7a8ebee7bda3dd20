//! What a result must be, worked out from the public key alone and straight from the standards.
//!
//! It shares no code with the crate under test. Hash functions come from `aws-lc-rs`.

use accel::{Hash, Key, KeyType};
use aws_lc_rs::digest;
use x509_parser::prelude::FromDer;
use x509_parser::x509::SubjectPublicKeyInfo;

use super::numbers::{Modulus, Number, add_mod, from_bytes, is_zero, less, sub_mod, to_bytes};

/// An RSA public key.
pub(crate) struct RsaPublic {
    n: Modulus,
    e: Number,
    /// Length of the modulus in bytes.
    pub(crate) k: usize,
    bits: usize,
}

/// The bits of `subjectPublicKey`.
pub(crate) fn public_bits(key: &Key) -> Vec<u8> {
    let (rest, spki) = SubjectPublicKeyInfo::from_der(key.spki_der()).expect("good SPKI");
    assert!(rest.is_empty());
    spki.subject_public_key.data.to_vec()
}

impl RsaPublic {
    pub(crate) fn of(key: &Key) -> Self {
        Self::from_spki(key.spki_der())
    }

    pub(crate) fn from_spki(der: &[u8]) -> Self {
        let (_, spki) = SubjectPublicKeyInfo::from_der(der).expect("good SPKI");
        let x509_parser::public_key::PublicKey::RSA(rsa) = spki.parsed().expect("known key") else {
            panic!("not an RSA key");
        };
        let zeros = rsa.modulus.iter().take_while(|byte| **byte == 0).count();
        let modulus = &rsa.modulus[zeros..];
        let limbs = modulus.len().div_ceil(8);
        Self {
            n: Modulus::new(from_bytes(modulus, limbs)),
            e: from_bytes(rsa.exponent, limbs),
            k: modulus.len(),
            bits: modulus.len() * 8 - modulus[0].leading_zeros() as usize,
        }
    }

    /// n plus a small number, in k bytes.
    pub(crate) fn modulus_plus(&self, offset: i64) -> Vec<u8> {
        let mut n = to_bytes(&self.n.m, self.k);
        let last = i64::from(n[self.k - 1]) + offset;
        n[self.k - 1] = u8::try_from(last).expect("small offset");
        n
    }

    /// c^e mod n in k bytes; `None` unless c has k bytes and is below n. There is exactly one c below n for each
    /// result, so this decides whether c is the right answer of a private operation.
    pub(crate) fn public(&self, c: &[u8]) -> Option<Vec<u8>> {
        let number = from_bytes(c, self.n.m.len().max(c.len().div_ceil(8)));
        if c.len() != self.k || !less(&number, &self.n.m) {
            return None;
        }
        Some(to_bytes(&self.n.pow(&number, &self.e), self.k))
    }

    /// RFC 8017, section 8.2.2, by comparing encodings.
    pub(crate) fn verify_pkcs1(&self, hash: Hash, digest: &[u8], signature: &[u8]) -> bool {
        self.public(signature) == Some(self.encode_pkcs1(hash, digest))
    }

    /// RFC 8017, section 9.2; for MD5+SHA-1 without `DigestInfo`, RFC 2246, section 7.4.3.
    fn encode_pkcs1(&self, hash: Hash, digest: &[u8]) -> Vec<u8> {
        let info: &[u8] = match hash {
            Hash::Md5Sha1 => &[],
            Hash::Sha1 => b"\x30\x21\x30\x09\x06\x05\x2b\x0e\x03\x02\x1a\x05\x00\x04\x14",
            Hash::Sha224 => {
                b"\x30\x2d\x30\x0d\x06\x09\x60\x86\x48\x01\x65\x03\x04\x02\x04\x05\x00\x04\x1c"
            }
            Hash::Sha256 => {
                b"\x30\x31\x30\x0d\x06\x09\x60\x86\x48\x01\x65\x03\x04\x02\x01\x05\x00\x04\x20"
            }
            Hash::Sha384 => {
                b"\x30\x41\x30\x0d\x06\x09\x60\x86\x48\x01\x65\x03\x04\x02\x02\x05\x00\x04\x30"
            }
            Hash::Sha512 => {
                b"\x30\x51\x30\x0d\x06\x09\x60\x86\x48\x01\x65\x03\x04\x02\x03\x05\x00\x04\x40"
            }
        };
        let filler = self.k - 3 - info.len() - digest.len();
        [&[0, 1][..], &vec![0xff; filler], &[0], info, digest].concat()
    }

    /// RFC 8017, sections 8.1.2 and 9.1.2, with a salt as long as the hash.
    pub(crate) fn verify_pss(&self, hash: Hash, digest: &[u8], signature: &[u8]) -> bool {
        let Some(block) = self.public(signature) else {
            return false;
        };
        let em_bits = self.bits - 1;
        let em_len = em_bits.div_ceil(8);
        let (head, em) = block.split_at(self.k - em_len);
        let h_len = hash.len();
        if head.iter().any(|byte| *byte != 0) || em_len < 2 * h_len + 2 || em[em_len - 1] != 0xbc {
            return false;
        }
        let (masked_db, rest) = em.split_at(em_len - h_len - 1);
        let h = &rest[..h_len];
        let top_mask = 0xff_u8 >> (8 * em_len - em_bits);
        if masked_db[0] & !top_mask != 0 {
            return false;
        }
        let mut db = xor(masked_db, &mgf1(hash, h, masked_db.len()));
        db[0] &= top_mask;
        let (padding, salt) = db.split_at(db.len() - h_len);
        let (one, zeros) = padding.split_last().expect("not empty");
        if *one != 1 || zeros.iter().any(|byte| *byte != 0) {
            return false;
        }
        hash_of(hash, &[&[0; 8], digest, salt].concat()) == h
    }
}

fn xor(a: &[u8], b: &[u8]) -> Vec<u8> {
    a.iter().zip(b).map(|(a, b)| a ^ b).collect()
}

/// RFC 8017, appendix B.2.1.
fn mgf1(hash: Hash, seed: &[u8], length: usize) -> Vec<u8> {
    let mut mask = Vec::new();
    for counter in 0_u32.. {
        if mask.len() >= length {
            break;
        }
        mask.extend(hash_of(hash, &[seed, &counter.to_be_bytes()].concat()));
    }
    mask.truncate(length);
    mask
}

pub(crate) fn hash_of(hash: Hash, message: &[u8]) -> Vec<u8> {
    let algorithm = match hash {
        Hash::Md5Sha1 => panic!("there is no MD5 here"),
        Hash::Sha1 => &digest::SHA1_FOR_LEGACY_USE_ONLY,
        Hash::Sha224 => &digest::SHA224,
        Hash::Sha256 => &digest::SHA256,
        Hash::Sha384 => &digest::SHA384,
        Hash::Sha512 => &digest::SHA512,
    };
    digest::digest(algorithm, message).as_ref().to_vec()
}

/// The message in a PKCS#1 v1.5 encryption block (RFC 8017, section 7.2.2).
pub(crate) fn unpad_pkcs1(block: &[u8]) -> Option<&[u8]> {
    let rest = block.strip_prefix(&[0, 2])?;
    let zero = rest.iter().position(|byte| *byte == 0)?;
    (zero >= 8).then(|| &rest[zero + 1..])
}

/// The message in an OAEP block (RFC 8017, section 7.1.2, step 3).
pub(crate) fn unpad_oaep(hash: Hash, mgf: Hash, label: &[u8], block: &[u8]) -> Option<Vec<u8>> {
    let h_len = hash.len();
    let (zero, rest) = block.split_first()?;
    let (masked_seed, masked_db) = rest.split_at_checked(h_len)?;
    let seed = xor(masked_seed, &mgf1(mgf, masked_db, h_len));
    let db = xor(masked_db, &mgf1(mgf, &seed, masked_db.len()));
    let (label_hash, rest) = db.split_at_checked(h_len)?;
    let one = rest.iter().position(|byte| *byte != 0)?;
    let good = *zero == 0 && label_hash == hash_of(hash, label) && rest[one] == 1;
    good.then(|| rest[one + 1..].to_vec())
}

/// A prime curve y^2 = x^3 - 3x + b (FIPS 186-5, SP 800-186).
struct Curve {
    p: Modulus,
    n: Modulus,
    /// Bits of the order.
    n_bits: usize,
    g: Point,
    len: usize,
}

/// A point in Jacobian coordinates; z = 0 is the neutral one.
#[derive(Clone)]
struct Point {
    x: Number,
    y: Number,
    z: Number,
}

impl Curve {
    fn of(key_type: KeyType) -> Self {
        let (len, n_bits, p, n, gx, gy): (_, usize, _, _, _, _) = match key_type {
            KeyType::P256 => (
                32,
                256,
                "ffffffff00000001000000000000000000000000ffffffffffffffffffffffff",
                "ffffffff00000000ffffffffffffffffbce6faada7179e84f3b9cac2fc632551",
                "6b17d1f2e12c4247f8bce6e563a440f277037d812deb33a0f4a13945d898c296",
                "4fe342e2fe1a7f9b8ee7eb4a7c0f9e162bce33576b315ececbb6406837bf51f5",
            ),
            KeyType::P384 => (
                48,
                384,
                "fffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffeffffffff0000000000000000ffffffff",
                "ffffffffffffffffffffffffffffffffffffffffffffffffc7634d81f4372ddf581a0db248b0a77aecec196accc52973",
                "aa87ca22be8b05378eb1c71ef320ad746e1d3b628ba79b9859f741e082542a385502f25dbf55296c3a545e3872760ab7",
                "3617de4a96262c6f5d9e98bf9292dc29f8f41dbd289a147ce9da3113b5f0b8c00a60b1ce1d7e819d7a431d7c90ea0e5f",
            ),
            KeyType::P521 => (
                66,
                521,
                "01ffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff",
                "01fffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffa51868783bf2f966b7fcc0148f709a5d03bb5c9b8899c47aebb6fb71e91386409",
                "00c6858e06b70404e9cd9e3ecb662395b4429c648139053fb521f828af606b4d3dbaa14b5e77efe75928fe1dc127a2ffa8de3348b3c1856a429bf97e7e31c2e5bd66",
                "011839296a789a3bc0045c8a5fb42c7d1bd998f54449579b446817afbd17273e662c97ee72995ef42640c550b9013fad0761353c7086a272c24088be94769fd16650",
            ),
            other => panic!("no curve for {other:?}"),
        };
        let limbs = n_bits.div_ceil(64);
        let number = |text| from_bytes(&super::hex(text), limbs);
        Self {
            p: Modulus::new(number(p)),
            n: Modulus::new(number(n)),
            n_bits,
            g: Point {
                x: number(gx),
                y: number(gy),
                z: from_bytes(&[1], limbs),
            },
            len,
        }
    }

    fn mul(&self, a: &Number, b: &Number) -> Number {
        self.p.mul(a, b)
    }

    fn sub(&self, a: &Number, b: &Number) -> Number {
        sub_mod(a, b, &self.p.m)
    }

    fn twice(&self, a: &Number) -> Number {
        add_mod(a, a, &self.p.m)
    }

    /// The formulas for a = -3 of Bernstein and Lange, `dbl-2001-b`.
    fn double(&self, point: &Point) -> Point {
        let delta = self.mul(&point.z, &point.z);
        let gamma = self.mul(&point.y, &point.y);
        let beta = self.mul(&point.x, &gamma);
        let product = self.mul(
            &self.sub(&point.x, &delta),
            &add_mod(&point.x, &delta, &self.p.m),
        );
        let alpha = add_mod(&self.twice(&product), &product, &self.p.m);
        let beta4 = self.twice(&self.twice(&beta));
        let x = self.sub(&self.mul(&alpha, &alpha), &self.twice(&beta4));
        let y_plus_z = add_mod(&point.y, &point.z, &self.p.m);
        let z = self.sub(&self.sub(&self.mul(&y_plus_z, &y_plus_z), &gamma), &delta);
        let gamma8 = self.twice(&self.twice(&self.twice(&self.mul(&gamma, &gamma))));
        let y = self.sub(&self.mul(&alpha, &self.sub(&beta4, &x)), &gamma8);
        Point { x, y, z }
    }

    /// The textbook addition, with its special cases spelled out.
    fn add(&self, a: &Point, b: &Point) -> Point {
        if is_zero(&a.z) {
            return b.clone();
        }
        if is_zero(&b.z) {
            return a.clone();
        }
        let (a_zz, b_zz) = (self.mul(&a.z, &a.z), self.mul(&b.z, &b.z));
        let (u1, u2) = (self.mul(&a.x, &b_zz), self.mul(&b.x, &a_zz));
        let s1 = self.mul(&a.y, &self.mul(&b.z, &b_zz));
        let s2 = self.mul(&b.y, &self.mul(&a.z, &a_zz));
        let (h, r) = (self.sub(&u2, &u1), self.sub(&s2, &s1));
        if is_zero(&h) && is_zero(&r) {
            return self.double(a);
        }
        let hh = self.mul(&h, &h);
        let (hhh, v) = (self.mul(&h, &hh), self.mul(&u1, &hh));
        let x = self.sub(&self.sub(&self.mul(&r, &r), &hhh), &self.twice(&v));
        let y = self.sub(&self.mul(&r, &self.sub(&v, &x)), &self.mul(&s1, &hhh));
        let z = self.mul(&h, &self.mul(&a.z, &b.z));
        Point { x, y, z }
    }

    fn times(&self, scalar: &Number, point: &Point) -> Point {
        let zero = vec![0; self.p.m.len()];
        let mut sum = Point {
            x: zero.clone(),
            y: zero.clone(),
            z: zero,
        };
        for bit in (0..self.p.m.len() * 64).rev() {
            sum = self.double(&sum);
            if scalar[bit / 64] >> (bit % 64) & 1 == 1 {
                sum = self.add(&sum, point);
            }
        }
        sum
    }
}

/// FIPS 186-5, section 6.4.2, over a DER signature and an uncompressed public point.
pub(crate) fn verify_ecdsa(
    key_type: KeyType,
    public: &[u8],
    digest: &[u8],
    signature: &[u8],
) -> bool {
    let curve = Curve::of(key_type);
    let limbs = curve.p.m.len();
    let Some((r, s)) = split_signature(signature) else {
        return false;
    };
    if r.len().max(s.len()) > curve.len {
        return false;
    }
    let (r, s) = (from_bytes(r, limbs), from_bytes(s, limbs));
    if is_zero(&r) || is_zero(&s) || !less(&r, &curve.n.m) || !less(&s, &curve.n.m) {
        return false;
    }
    // The leftmost bits of the digest, as many as the order has; on these curves that is whole bytes,
    // or on P-521 all of every digest there is.
    let digest = &digest[..digest.len().min(curve.n_bits.div_ceil(8))];
    let mut e = from_bytes(digest, limbs);
    if !less(&e, &curve.n.m) {
        e = sub_mod(&e, &curve.n.m, &curve.n.m);
    }
    let w = curve.n.invert(&s);
    let (u1, u2) = (curve.n.mul(&e, &w), curve.n.mul(&r, &w));
    let q = Point {
        x: from_bytes(&public[1..=curve.len], limbs),
        y: from_bytes(&public[1 + curve.len..], limbs),
        z: from_bytes(&[1], limbs),
    };
    let sum = curve.add(&curve.times(&u1, &curve.g), &curve.times(&u2, &q));
    if is_zero(&sum.z) {
        return false;
    }
    let z_inverse = curve.p.invert(&sum.z);
    let x = curve.mul(&sum.x, &curve.mul(&z_inverse, &z_inverse));
    let x = if less(&x, &curve.n.m) {
        x
    } else {
        sub_mod(&x, &curve.n.m, &curve.n.m)
    };
    x == r
}

/// The two integers of an `ECDSA-Sig-Value` in strict DER, without sign bytes.
fn split_signature(der: &[u8]) -> Option<(&[u8], &[u8])> {
    let content = match der {
        [0x30, length @ 0..=0x7f, rest @ ..] if usize::from(*length) == rest.len() => rest,
        [0x30, 0x81, length @ 0x80..=0xff, rest @ ..] if usize::from(*length) == rest.len() => rest,
        _ => return None,
    };
    let (r, rest) = integer(content)?;
    let (s, rest) = integer(rest)?;
    rest.is_empty().then_some((r, s))
}

fn integer(der: &[u8]) -> Option<(&[u8], &[u8])> {
    let [0x02, length @ 1..=0x7f, rest @ ..] = der else {
        return None;
    };
    let (content, rest) = rest.split_at_checked(usize::from(*length))?;
    match content {
        [0x80..=0xff, ..] | [0, 0..=0x7f, ..] => None,
        [0, number @ ..] if !number.is_empty() => Some((number, rest)),
        _ => Some((content, rest)),
    }
}
