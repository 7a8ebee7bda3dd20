//! Verifies signatures with a public key, for `keyserver demo`: by the TLS library, so by other
//! code than the server checks itself with.

use rustls::SignatureScheme;
use rustls::crypto::aws_lc_rs::{cipher_suite, default_provider};
use x509_parser::prelude::FromDer;
use x509_parser::x509::SubjectPublicKeyInfo;

/// A signature algorithm with its hash.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Scheme {
    /// ECDSA with SHA-256, on any curve.
    EcdsaSha256,
    /// ECDSA with SHA-384, on any curve.
    EcdsaSha384,
    /// Ed25519.
    Ed25519,
    /// RSASSA-PKCS1-v1_5 with SHA-256.
    RsaPkcs1Sha256,
    /// RSASSA-PSS with SHA-256.
    RsaPssSha256,
}

impl Scheme {
    /// What is handed to the signer for `message`: its hash, or for Ed25519 the message itself.
    pub(crate) fn input(self, message: &[u8]) -> Option<Vec<u8>> {
        let suite = match self {
            Self::Ed25519 => return Some(message.to_vec()),
            Self::EcdsaSha384 => cipher_suite::TLS13_AES_256_GCM_SHA384,
            Self::EcdsaSha256 | Self::RsaPkcs1Sha256 | Self::RsaPssSha256 => {
                cipher_suite::TLS13_AES_128_GCM_SHA256
            }
        };
        let hash = suite.tls13()?.common.hash_provider.hash(message);
        Some(hash.as_ref().to_vec())
    }

    /// Whether `signature` is one of `message` by the key `spki` (DER SubjectPublicKeyInfo).
    pub(crate) fn verifies(self, spki: &[u8], message: &[u8], signature: &[u8]) -> bool {
        let Ok((_, spki)) = SubjectPublicKeyInfo::from_der(spki) else {
            return false;
        };
        let wanted = match self {
            Self::EcdsaSha256 => SignatureScheme::ECDSA_NISTP256_SHA256,
            Self::EcdsaSha384 => SignatureScheme::ECDSA_NISTP384_SHA384,
            Self::Ed25519 => SignatureScheme::ED25519,
            Self::RsaPkcs1Sha256 => SignatureScheme::RSA_PKCS1_SHA256,
            Self::RsaPssSha256 => SignatureScheme::RSA_PSS_SHA256,
        };
        let algorithms = default_provider().signature_verification_algorithms;
        // For ECDSA there is one algorithm a curve. Those of another curve do not verify.
        (algorithms.mapping.iter())
            .filter(|(scheme, _)| *scheme == wanted)
            .flat_map(|(_, candidates)| *candidates)
            .any(|candidate| {
                let key = &spki.subject_public_key.data;
                candidate.verify_signature(key, message, signature).is_ok()
            })
    }
}

#[cfg(test)]
mod tests {
    use rcgen::{KeyPair, PublicKeyData, SigningKey};

    use super::*;

    #[test]
    fn good_signatures_verify_and_others_do_not() {
        for (kind, scheme) in [
            (&rcgen::PKCS_ECDSA_P256_SHA256, Scheme::EcdsaSha256),
            (&rcgen::PKCS_ECDSA_P384_SHA384, Scheme::EcdsaSha384),
            (&rcgen::PKCS_ECDSA_P521_SHA384, Scheme::EcdsaSha384),
            (&rcgen::PKCS_ED25519, Scheme::Ed25519),
        ] {
            let key = KeyPair::generate_for(kind).unwrap();
            let spki = key.subject_public_key_info();
            let mut signature = key.sign(b"message").unwrap();
            assert!(scheme.verifies(&spki, b"message", &signature), "{scheme:?}");
            assert!(!scheme.verifies(&spki, b"massage", &signature));
            *signature.last_mut().unwrap() ^= 1;
            assert!(!scheme.verifies(&spki, b"message", &signature));
            assert!(!scheme.verifies(b"junk", b"message", &signature));
        }
    }
}
