//! What a key is, and which queue its jobs wait in.

/// The algorithm and size of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum KeyType {
    /// RSA with a modulus of `bits` bits, 2048 to 8192.
    Rsa {
        /// Length of the modulus in bits.
        bits: u16,
    },
    /// ECDSA on NIST P-256 (secp256r1).
    P256,
    /// ECDSA on NIST P-384 (secp384r1).
    P384,
    /// ECDSA on NIST P-521 (secp521r1).
    P521,
    /// Ed25519, RFC 8032.
    Ed25519,
    /// ML-DSA-44, FIPS 204.
    MlDsa44,
    /// ML-DSA-65, FIPS 204.
    MlDsa65,
    /// ML-DSA-87, FIPS 204.
    MlDsa87,
}

impl KeyType {
    /// The name used in key lists and logs: `rsa-2048`, `p-256`, `ed25519`, `ml-dsa-44`.
    #[must_use]
    pub fn name(self) -> String {
        match self {
            Self::Rsa { bits } => format!("rsa-{bits}"),
            Self::P256 => "p-256".into(),
            Self::P384 => "p-384".into(),
            Self::P521 => "p-521".into(),
            Self::Ed25519 => "ed25519".into(),
            Self::MlDsa44 => "ml-dsa-44".into(),
            Self::MlDsa65 => "ml-dsa-65".into(),
            Self::MlDsa87 => "ml-dsa-87".into(),
        }
    }

    /// The queue class of this type.
    #[must_use]
    pub const fn class(self) -> Class {
        match self {
            Self::Rsa { bits: 2048 } => Class::Rsa2048,
            Self::Rsa { bits: 3072 } => Class::Rsa3072,
            Self::Rsa { bits: 4096 } => Class::Rsa4096,
            Self::Rsa { .. } => Class::RsaOther,
            Self::P256 => Class::P256,
            Self::P384 => Class::P384,
            Self::P521 => Class::P521,
            Self::Ed25519 => Class::Ed25519,
            Self::MlDsa44 | Self::MlDsa65 | Self::MlDsa87 => Class::MlDsa,
        }
    }
}

/// A group of keys whose operations cost about the same and can share a batch.
///
/// A queue holds jobs of one class; [`crate::Engine::run`] takes jobs of one class.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Class {
    /// ECDSA on P-256.
    P256,
    /// ECDSA on P-384.
    P384,
    /// ECDSA on P-521.
    P521,
    /// Ed25519.
    Ed25519,
    /// ML-DSA of any parameter set.
    MlDsa,
    /// RSA with a modulus of exactly 2048 bits.
    Rsa2048,
    /// RSA with a modulus of exactly 3072 bits.
    Rsa3072,
    /// RSA with a modulus of exactly 4096 bits.
    Rsa4096,
    /// RSA of any other size.
    RsaOther,
}

impl Class {
    /// Every class, in the order of [`Class::index`].
    pub const ALL: [Self; 9] = [
        Self::P256,
        Self::P384,
        Self::P521,
        Self::Ed25519,
        Self::MlDsa,
        Self::Rsa2048,
        Self::Rsa3072,
        Self::Rsa4096,
        Self::RsaOther,
    ];

    /// Position in [`Class::ALL`], for tables indexed by class.
    #[must_use]
    pub const fn index(self) -> usize {
        self as usize
    }

    /// The name used in metrics and options: `p256`, `rsa2048`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::P256 => "p256",
            Self::P384 => "p384",
            Self::P521 => "p521",
            Self::Ed25519 => "ed25519",
            Self::MlDsa => "mldsa",
            Self::Rsa2048 => "rsa2048",
            Self::Rsa3072 => "rsa3072",
            Self::Rsa4096 => "rsa4096",
            Self::RsaOther => "rsaother",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_is_in_index_order() {
        for (position, class) in Class::ALL.into_iter().enumerate() {
            assert_eq!(class.index(), position);
        }
    }
}
