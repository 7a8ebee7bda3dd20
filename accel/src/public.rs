//! The public half of a key whose private half is elsewhere, in a token.

use aws_lc_rs::signature::{ML_DSA_44, ML_DSA_65, ML_DSA_87, ParsedPublicKey};

use crate::aws_lc::{Curve, Ec, Rsa, verify_ed25519};
use crate::class::KeyType;
use crate::der::{self, PublicKeyInfo};
use crate::error::KeyError;
use crate::job::Operation;
use crate::key::oid;
use crate::parts::{self, MAX_MODULUS_BITS, MIN_MODULUS_BITS};
use crate::verify::is_preimage;

/// A public key, ready to check results with.
pub(crate) enum PublicKey {
    /// With its modulus, big endian, without leading zeros.
    Rsa(Rsa, Vec<u8>),
    Ec(Ec),
    Ed25519([u8; 32]),
    MlDsa(ParsedPublicKey),
}

impl PublicKey {
    /// Reads a `SubjectPublicKeyInfo`. RSA moduli must be 2048 to 8192 bits long and exponents odd, from 3
    /// to 33 bits: which exponent to make a key with was for the token's owner to decide.
    pub(crate) fn from_spki(spki: &[u8]) -> Result<(KeyType, Self), KeyError> {
        let info = PublicKeyInfo::decode(spki)?;
        let curve = |key_type, curve| {
            let ec = Ec::from_point(curve, info.public_key).map_err(|_| KeyError::Inconsistent)?;
            Ok((key_type, Self::Ec(ec)))
        };
        let ml_dsa = |key_type, algorithm| {
            let parsed = ParsedPublicKey::new(algorithm, info.public_key)
                .map_err(|_| KeyError::Inconsistent)?;
            Ok((key_type, Self::MlDsa(parsed)))
        };
        match (info.algorithm, info.curve) {
            (oid::RSA, None) => Self::rsa(info.public_key),
            (oid::EC, Some(oid::P256)) => curve(KeyType::P256, Curve::P256),
            (oid::EC, Some(oid::P384)) => curve(KeyType::P384, Curve::P384),
            (oid::EC, Some(oid::P521)) => curve(KeyType::P521, Curve::P521),
            (oid::ED25519, None) => {
                let public = info
                    .public_key
                    .try_into()
                    .map_err(|_| KeyError::Malformed)?;
                Ok((KeyType::Ed25519, Self::Ed25519(public)))
            }
            (oid::ML_DSA_44, None) => ml_dsa(KeyType::MlDsa44, &ML_DSA_44),
            (oid::ML_DSA_65, None) => ml_dsa(KeyType::MlDsa65, &ML_DSA_65),
            (oid::ML_DSA_87, None) => ml_dsa(KeyType::MlDsa87, &ML_DSA_87),
            _ => Err(KeyError::UnsupportedAlgorithm),
        }
    }

    fn rsa(der: &[u8]) -> Result<(KeyType, Self), KeyError> {
        let (n, e) = der::decode_rsa_public_key(der)?;
        let bits = parts::bit_length(n);
        if bits < MIN_MODULUS_BITS {
            return Err(KeyError::ModulusTooShort { bits });
        }
        if bits > MAX_MODULUS_BITS {
            return Err(KeyError::ModulusTooLong { bits });
        }
        parts::exponent(e)?;
        let rsa = Rsa::from_public(der).map_err(|_| KeyError::Inconsistent)?;
        let bits = u16::try_from(bits).map_err(|_| KeyError::Malformed)?;
        Ok((KeyType::Rsa { bits }, Self::Rsa(rsa, n.to_vec())))
    }

    /// The modulus of an RSA key.
    pub(crate) fn modulus(&self) -> Option<&[u8]> {
        match self {
            Self::Rsa(_, n) => Some(n),
            Self::Ec(_) | Self::Ed25519(_) | Self::MlDsa(_) => None,
        }
    }

    /// Whether `output` is a correct result of `operation` on `input`.
    pub(crate) fn verifies(&self, operation: Operation, input: &[u8], output: &[u8]) -> bool {
        match (self, operation) {
            (Self::Rsa(rsa, _), Operation::RsaPkcs1Sign(hash)) => {
                rsa.verify_pkcs1(hash, input, output)
            }
            (Self::Rsa(rsa, _), Operation::RsaPssSign(hash)) => rsa.verify_pss(hash, input, output),
            (Self::Rsa(rsa, n), Operation::RsaPrivate) => is_preimage(rsa, n.len(), input, output),
            (Self::Ec(ec), Operation::EcdsaSign(_)) => ec.verify(input, output),
            (Self::Ed25519(public), Operation::Ed25519Sign) => {
                verify_ed25519(public, input, output)
            }
            (Self::MlDsa(public), Operation::MlDsaSign) => public.verify_sig(input, output).is_ok(),
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::job::Hash;
    use crate::key::Key;

    const KEYS: [&[u8]; 3] = [
        include_bytes!("calibrate/rsa-2048.der"),
        include_bytes!("calibrate/p256.der"),
        include_bytes!("../tests/keys/ed25519.pkcs8.pem"),
    ];

    #[test]
    fn the_public_half_judges_what_the_private_half_made() {
        for bytes in KEYS {
            let key = Key::from_bytes(bytes).unwrap();
            let (key_type, public) = PublicKey::from_spki(key.spki_der()).unwrap();
            assert_eq!(key_type, key.key_type());
            let operations = [
                Operation::RsaPkcs1Sign(Hash::Sha256),
                Operation::RsaPssSign(Hash::Sha256),
                Operation::RsaPrivate,
                Operation::EcdsaSign(Hash::Sha256),
                Operation::Ed25519Sign,
            ];
            for operation in operations.into_iter().filter(|it| it.fits(key_type)) {
                let input = match operation {
                    Operation::RsaPrivate => vec![7; 256],
                    _ => vec![7; 32],
                };
                let mut output = Vec::new();
                let mut job = crate::Job::new(&key, operation, &input, &mut output);
                crate::Backend::run(&crate::Single, std::slice::from_mut(&mut job));
                job.result.unwrap();
                assert!(public.verifies(operation, &input, &output), "{operation:?}");
                *output.last_mut().unwrap() ^= 1;
                assert!(
                    !public.verifies(operation, &input, &output),
                    "{operation:?}"
                );
                assert!(!public.verifies(operation, &input, &[]), "{operation:?}");
            }
        }
    }

    #[test]
    fn weak_and_strange_public_keys_are_refused() {
        assert!(matches!(
            PublicKey::from_spki(&[0x30, 0]),
            Err(KeyError::Malformed)
        ));
        let key = Key::from_bytes(KEYS[1]).unwrap();
        let mut spki = key.spki_der().to_vec();
        // A coordinate changed: the point leaves the curve.
        *spki.last_mut().unwrap() ^= 1;
        assert!(matches!(
            PublicKey::from_spki(&spki),
            Err(KeyError::Inconsistent)
        ));
        let small = der::rsa_public_key(&[0xff; 128], &[1, 0, 1]);
        let spki = der::subject_public_key_info(oid::RSA, der::NULL_PARAMETERS, &small);
        assert!(matches!(
            PublicKey::from_spki(&spki),
            Err(KeyError::ModulusTooShort { bits: 1024 })
        ));
    }
}
