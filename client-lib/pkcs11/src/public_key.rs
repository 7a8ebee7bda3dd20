//! Public keys, taken apart as PKCS#11 wants them.

use cryptoki_sys::{CK_KEY_TYPE, CKK_EC, CKK_EC_EDWARDS, CKK_RSA};
use keyserver_client::KeyId;

use crate::der::{self, BIT_STRING, OID, Reader};

/// A key whose private half is on the server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PublicKey {
    pub(crate) id: KeyId,
    /// DER `SubjectPublicKeyInfo`.
    pub(crate) spki: Vec<u8>,
    pub(crate) kind: Kind,
}

/// The parts of a key by its type.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Big-endian, without leading zeros.
    Rsa { modulus: Vec<u8>, exponent: Vec<u8> },
    /// ECDSA on a NIST curve.
    Ec {
        /// DER of the curve's object identifier.
        curve: Vec<u8>,
        /// The uncompressed point.
        point: Vec<u8>,
        /// Bytes of one number of a signature: those of the group's order.
        order_bytes: usize,
    },
    /// Ed25519; the 32 bytes of RFC 8032.
    Ed25519 { curve: Vec<u8>, point: Vec<u8> },
}

/// Object identifiers with their DER header.
const RSA_ENCRYPTION: &[u8] = &[0x06, 9, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, 1];
const EC_PUBLIC_KEY: &[u8] = &[0x06, 7, 0x2a, 0x86, 0x48, 0xce, 0x3d, 2, 1];
const ED25519: &[u8] = &[0x06, 3, 0x2b, 0x65, 0x70];
const P256: &[u8] = &[0x06, 8, 0x2a, 0x86, 0x48, 0xce, 0x3d, 3, 1, 7];
const P384: &[u8] = &[0x06, 5, 0x2b, 0x81, 0x04, 0x00, 0x22];
const P521: &[u8] = &[0x06, 5, 0x2b, 0x81, 0x04, 0x00, 0x23];

impl PublicKey {
    /// Reads a DER `SubjectPublicKeyInfo` (RFC 5280, section 4.1). `None` for a type that PKCS#11
    /// hosts cannot use through this module, ML-DSA for one.
    pub(crate) fn from_spki(spki: &[u8]) -> Option<Self> {
        let mut fields = Reader::new(spki).sequence()?;
        let mut algorithm = fields.sequence()?;
        let identifier = algorithm.next(OID)?.whole;
        let [0, bits @ ..] = fields.next(BIT_STRING)?.contents else {
            return None;
        };
        let kind = match identifier {
            RSA_ENCRYPTION => {
                let mut numbers = Reader::new(bits).sequence()?;
                Kind::Rsa {
                    modulus: numbers.unsigned()?.to_vec(),
                    exponent: numbers.unsigned()?.to_vec(),
                }
            }
            EC_PUBLIC_KEY => {
                let curve = algorithm.next(OID)?.whole;
                let order_bytes = match curve {
                    P256 => 32,
                    P384 => 48,
                    P521 => 66,
                    _ => return None,
                };
                Kind::Ec {
                    curve: curve.to_vec(),
                    point: bits.to_vec(),
                    order_bytes,
                }
            }
            ED25519 => Kind::Ed25519 {
                curve: identifier.to_vec(),
                point: bits.to_vec(),
            },
            _ => return None,
        };
        Some(Self {
            id: KeyId::from_public_key(spki).ok()?,
            spki: spki.to_vec(),
            kind,
        })
    }

    pub(crate) const fn key_type(&self) -> CK_KEY_TYPE {
        match self.kind {
            Kind::Rsa { .. } => CKK_RSA,
            Kind::Ec { .. } => CKK_EC,
            Kind::Ed25519 { .. } => CKK_EC_EDWARDS,
        }
    }

    /// Bytes of a signature as PKCS#11 has it: `k`, two numbers of the order's size, or 64.
    pub(crate) const fn signature_bytes(&self) -> usize {
        match &self.kind {
            Kind::Rsa { modulus, .. } => modulus.len(),
            Kind::Ec { order_bytes, .. } => 2 * *order_bytes,
            Kind::Ed25519 { .. } => 64,
        }
    }

    /// `CKA_EC_POINT`: the point as an OCTET STRING.
    pub(crate) fn wrapped_point(&self) -> Option<Vec<u8>> {
        match &self.kind {
            Kind::Rsa { .. } => None,
            Kind::Ec { point, .. } | Kind::Ed25519 { point, .. } => Some(der::octet_string(point)),
        }
    }
}

/// An ECDSA signature as PKCS#11 has it, `r` and `s` of `order_bytes` each, from the DER
/// `ECDSA-Sig-Value` (RFC 3279, section 2.2.3) that servers answer with.
pub(crate) fn raw_ecdsa(signature: &[u8], order_bytes: usize) -> Option<Vec<u8>> {
    let mut outer = Reader::new(signature);
    let mut numbers = outer.sequence()?;
    let mut raw = Vec::with_capacity(2 * order_bytes);
    for _ in 0..2 {
        let number = numbers.unsigned()?;
        let zeros = order_bytes.checked_sub(number.len())?;
        raw.resize(raw.len() + zeros, 0);
        raw.extend(number);
    }
    (numbers.is_empty() && outer.is_empty()).then_some(raw)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rcgen::{KeyPair, PublicKeyData};

    #[test]
    fn every_type_is_taken_apart() {
        for (algorithm, bytes) in [
            (&rcgen::PKCS_ECDSA_P256_SHA256, 64),
            (&rcgen::PKCS_ECDSA_P384_SHA384, 96),
            (&rcgen::PKCS_ECDSA_P521_SHA512, 132),
            (&rcgen::PKCS_ED25519, 64),
            (&rcgen::PKCS_RSA_SHA256, 256),
        ] {
            let pair = KeyPair::generate_for(algorithm).unwrap();
            let spki = pair.subject_public_key_info();
            let key = PublicKey::from_spki(&spki).unwrap();
            assert_eq!(key.signature_bytes(), bytes);
            assert_eq!(key.id, KeyId::from_public_key(&spki).unwrap());
            match (&key.kind, key.wrapped_point()) {
                (Kind::Rsa { exponent, .. }, None) => assert_eq!(exponent[..], [1, 0, 1]),
                (_, Some(point)) => assert!(point.ends_with(pair.der_bytes())),
                (kind, None) => panic!("{kind:?} has no point"),
            }
            for length in 0..spki.len() {
                assert_eq!(PublicKey::from_spki(&spki[..length]), None);
            }
        }
    }

    #[test]
    fn signatures_lose_their_wrapping_and_gain_their_zeros() {
        let der = [0x30, 7, 2, 1, 5, 2, 2, 0, 0x80];
        let mut wanted = vec![0; 64];
        (wanted[31], wanted[63]) = (5, 0x80);
        assert_eq!(raw_ecdsa(&der, 32), Some(wanted));
        assert_eq!(raw_ecdsa(&der[..8], 32), None);
        assert_eq!(raw_ecdsa(&[0x30, 3, 2, 1, 5], 32), None, "one number");
        assert_eq!(raw_ecdsa(&[0x30, 9, 2, 1, 5, 2, 1, 5, 2, 1, 5], 32), None);
        let long = [0x30, 6 + 31, 2, 1, 5, 2, 32 + 1, 1];
        let long = [&long[..], &[1; 32]].concat();
        assert_eq!(raw_ecdsa(&long, 32), None, "longer than the order");
    }
}
