//! The TLS signature schemes of the operations that check what they sign.

use std::fmt;

/// Writes the enum, its numbers and its names from one table, so that they cannot disagree.
macro_rules! schemes {
    ($($(#[$doc:meta])* $variant:ident = $number:literal, $name:literal;)*) => {
        /// A TLS `SignatureScheme` (RFC 8446, section 4.2.3), as it stands in
        /// [`Request::signature_scheme`](crate::Request::signature_scheme).
        ///
        /// Only the schemes that [`Opcode::SignTls13`](crate::Opcode::SignTls13) and
        /// [`Opcode::SignTls12`](crate::Opcode::SignTls12) know: none with SHA-1.
        #[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
        #[non_exhaustive]
        #[repr(u16)]
        pub enum SignatureScheme {
            $($(#[$doc])* $variant = $number,)*
        }

        impl SignatureScheme {
            /// Every scheme, by rising number.
            pub const ALL: [Self; [$($number),*].len()] = [$(Self::$variant),*];

            /// The scheme with this number.
            #[must_use]
            pub const fn from_u16(number: u16) -> Option<Self> {
                match number {
                    $($number => Some(Self::$variant),)*
                    _ => None,
                }
            }

            /// The name that RFC 8446 and IANA's registry use.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => $name,)*
                }
            }
        }
    };
}

schemes! {
    /// RSASSA-PKCS1-v1_5 with SHA-256. TLS 1.2 only.
    RsaPkcs1Sha256 = 0x0401, "rsa_pkcs1_sha256";
    /// ECDSA with SHA-256; in TLS 1.3 on P-256 only.
    EcdsaP256Sha256 = 0x0403, "ecdsa_secp256r1_sha256";
    /// RSASSA-PKCS1-v1_5 with SHA-384. TLS 1.2 only.
    RsaPkcs1Sha384 = 0x0501, "rsa_pkcs1_sha384";
    /// ECDSA with SHA-384; in TLS 1.3 on P-384 only.
    EcdsaP384Sha384 = 0x0503, "ecdsa_secp384r1_sha384";
    /// RSASSA-PKCS1-v1_5 with SHA-512. TLS 1.2 only.
    RsaPkcs1Sha512 = 0x0601, "rsa_pkcs1_sha512";
    /// RSASSA-PSS with SHA-256 and a key of the type rsaEncryption.
    RsaPssSha256 = 0x0804, "rsa_pss_rsae_sha256";
    /// RSASSA-PSS with SHA-384.
    RsaPssSha384 = 0x0805, "rsa_pss_rsae_sha384";
    /// RSASSA-PSS with SHA-512.
    RsaPssSha512 = 0x0806, "rsa_pss_rsae_sha512";
    /// Ed25519.
    Ed25519 = 0x0807, "ed25519";
    /// ML-DSA-44. TLS 1.3 only, as the other two.
    MlDsa44 = 0x0904, "mldsa44";
    /// ML-DSA-65.
    MlDsa65 = 0x0905, "mldsa65";
    /// ML-DSA-87.
    MlDsa87 = 0x0906, "mldsa87";
}

impl SignatureScheme {
    /// The number on the wire.
    #[must_use]
    pub const fn as_u16(self) -> u16 {
        self as u16
    }
}

impl fmt::Display for SignatureScheme {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_names_agree_both_ways() {
        let known: Vec<_> = (0..=u16::MAX)
            .filter_map(SignatureScheme::from_u16)
            .collect();
        assert_eq!(known, SignatureScheme::ALL);
        for scheme in SignatureScheme::ALL {
            assert_eq!(SignatureScheme::from_u16(scheme.as_u16()), Some(scheme));
            let same_name = SignatureScheme::ALL
                .iter()
                .filter(|other| other.name() == scheme.name());
            assert_eq!(same_name.count(), 1, "{scheme}");
        }
    }

    #[test]
    fn there_is_none_with_sha_1() {
        for number in [0x0201, 0x0202, 0x0203] {
            assert_eq!(SignatureScheme::from_u16(number), None);
        }
    }
}
