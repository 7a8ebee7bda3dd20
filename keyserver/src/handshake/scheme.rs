//! Which signature scheme goes with which TLS version and which key.

use accel::KeyType;
use keyless_protocol::SignatureScheme as Scheme;

/// The protocol version whose handshake is signed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Version {
    /// TLS 1.2.
    Tls12,
    /// TLS 1.3.
    Tls13,
}

impl Version {
    /// Whether a server may sign with this scheme: TLS 1.3 has done away with PKCS#1 v1.5
    /// (RFC 8446, section 4.2.3), and Ed25519 and ML-DSA are served for TLS 1.3 only.
    #[must_use]
    pub const fn knows(self, scheme: Scheme) -> bool {
        match scheme {
            Scheme::RsaPkcs1Sha256 | Scheme::RsaPkcs1Sha384 | Scheme::RsaPkcs1Sha512 => {
                matches!(self, Self::Tls12)
            }
            Scheme::EcdsaP256Sha256
            | Scheme::EcdsaP384Sha384
            | Scheme::RsaPssSha256
            | Scheme::RsaPssSha384
            | Scheme::RsaPssSha512 => true,
            // Ed25519, ML-DSA, and whatever is numbered later.
            _ => matches!(self, Self::Tls13),
        }
    }

    /// Whether a key of this type signs with this scheme. TLS 1.3 ties each ECDSA scheme to a
    /// curve; TLS 1.2 names the hash only (RFC 5246, section 7.4.1.4.1).
    #[must_use]
    pub const fn lets(self, key: KeyType, scheme: Scheme) -> bool {
        let fits = match scheme {
            Scheme::RsaPkcs1Sha256
            | Scheme::RsaPkcs1Sha384
            | Scheme::RsaPkcs1Sha512
            | Scheme::RsaPssSha256
            | Scheme::RsaPssSha384
            | Scheme::RsaPssSha512 => matches!(key, KeyType::Rsa { .. }),
            Scheme::EcdsaP256Sha256 | Scheme::EcdsaP384Sha384 => match self {
                Self::Tls12 => matches!(key, KeyType::P256 | KeyType::P384 | KeyType::P521),
                Self::Tls13 => matches!(
                    (key, scheme),
                    (KeyType::P256, Scheme::EcdsaP256Sha256)
                        | (KeyType::P384, Scheme::EcdsaP384Sha384)
                ),
            },
            Scheme::Ed25519 => matches!(key, KeyType::Ed25519),
            Scheme::MlDsa44 => matches!(key, KeyType::MlDsa44),
            Scheme::MlDsa65 => matches!(key, KeyType::MlDsa65),
            Scheme::MlDsa87 => matches!(key, KeyType::MlDsa87),
            _ => false,
        };
        fits && self.knows(scheme)
    }

    /// Whether there is a scheme with which a key of this type signs.
    #[must_use]
    pub const fn has_a_scheme_for(self, key: KeyType) -> bool {
        match self {
            Self::Tls12 => matches!(
                key,
                KeyType::Rsa { .. } | KeyType::P256 | KeyType::P384 | KeyType::P521
            ),
            Self::Tls13 => !matches!(key, KeyType::P521),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    pub(crate) const KEYS: [KeyType; 8] = [
        KeyType::Rsa { bits: 2048 },
        KeyType::P256,
        KeyType::P384,
        KeyType::P521,
        KeyType::Ed25519,
        KeyType::MlDsa44,
        KeyType::MlDsa65,
        KeyType::MlDsa87,
    ];

    #[test]
    fn the_schemes_of_each_version_are_these() {
        let known = |version: Version| {
            Scheme::ALL
                .into_iter()
                .filter(|scheme| version.knows(*scheme))
                .map(Scheme::as_u16)
                .collect::<Vec<_>>()
        };
        assert_eq!(
            known(Version::Tls13),
            [
                0x0403, 0x0503, 0x0804, 0x0805, 0x0806, 0x0807, 0x0904, 0x0905, 0x0906
            ]
        );
        assert_eq!(
            known(Version::Tls12),
            [
                0x0401, 0x0403, 0x0501, 0x0503, 0x0601, 0x0804, 0x0805, 0x0806
            ]
        );
    }

    #[test]
    fn a_key_has_a_scheme_where_one_lets_it() {
        for version in [Version::Tls12, Version::Tls13] {
            for key in KEYS {
                let any = Scheme::ALL.iter().any(|scheme| version.lets(key, *scheme));
                assert_eq!(any, version.has_a_scheme_for(key), "{version:?} {key:?}");
            }
        }
    }

    #[test]
    fn tls_1_3_ties_ecdsa_to_its_curve() {
        assert!(Version::Tls12.lets(KeyType::P384, Scheme::EcdsaP256Sha256));
        assert!(!Version::Tls13.lets(KeyType::P384, Scheme::EcdsaP256Sha256));
        assert!(!Version::Tls13.lets(KeyType::P256, Scheme::EcdsaP384Sha384));
    }
}
