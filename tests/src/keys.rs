//! Private keys of every type the server loads, made for one test.

use aws_lc_rs::encoding::{AsDer, Pkcs8V1Der};
use aws_lc_rs::rsa::{self, KeySize};
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_ASN1_SIGNING, ECDSA_P384_SHA384_ASN1_SIGNING, ECDSA_P521_SHA512_ASN1_SIGNING,
    EcdsaKeyPair, EcdsaSigningAlgorithm, Ed25519KeyPair, ML_DSA_44_SIGNING, ML_DSA_65_SIGNING,
    ML_DSA_87_SIGNING, PqdsaKeyPair, PqdsaSigningAlgorithm,
};

/// A type of key.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum KeyKind {
    /// RSA, 2048 bits.
    Rsa2048,
    /// RSA, 3072 bits.
    Rsa3072,
    /// RSA, 4096 bits.
    Rsa4096,
    /// ECDSA on NIST P-256.
    P256,
    /// ECDSA on NIST P-384.
    P384,
    /// ECDSA on NIST P-521.
    P521,
    /// Ed25519.
    Ed25519,
    /// ML-DSA-44 (FIPS 204).
    MlDsa44,
    /// ML-DSA-65 (FIPS 204).
    MlDsa65,
    /// ML-DSA-87 (FIPS 204).
    MlDsa87,
}

impl KeyKind {
    /// Every type, cheapest to generate last.
    pub const ALL: [Self; 10] = [
        Self::Rsa4096,
        Self::Rsa3072,
        Self::Rsa2048,
        Self::MlDsa87,
        Self::MlDsa65,
        Self::MlDsa44,
        Self::P521,
        Self::P384,
        Self::P256,
        Self::Ed25519,
    ];

    /// The name the server and the protocol use: `rsa-2048`, `p-256` ...
    pub const fn name(self) -> &'static str {
        match self {
            Self::Rsa2048 => "rsa-2048",
            Self::Rsa3072 => "rsa-3072",
            Self::Rsa4096 => "rsa-4096",
            Self::P256 => "p-256",
            Self::P384 => "p-384",
            Self::P521 => "p-521",
            Self::Ed25519 => "ed25519",
            Self::MlDsa44 => "ml-dsa-44",
            Self::MlDsa65 => "ml-dsa-65",
            Self::MlDsa87 => "ml-dsa-87",
        }
    }

    /// A fresh private key, PKCS#8 DER.
    pub fn generate(self) -> Vec<u8> {
        match self {
            Self::Rsa2048 => rsa_key(KeySize::Rsa2048),
            Self::Rsa3072 => rsa_key(KeySize::Rsa3072),
            Self::Rsa4096 => rsa_key(KeySize::Rsa4096),
            Self::P256 => ecdsa_key(&ECDSA_P256_SHA256_ASN1_SIGNING),
            Self::P384 => ecdsa_key(&ECDSA_P384_SHA384_ASN1_SIGNING),
            Self::P521 => ecdsa_key(&ECDSA_P521_SHA512_ASN1_SIGNING),
            Self::Ed25519 => {
                let key = Ed25519KeyPair::generate().expect("an Ed25519 key");
                key.to_pkcs8v1().expect("PKCS#8").as_ref().to_vec()
            }
            Self::MlDsa44 => ml_dsa_key(&ML_DSA_44_SIGNING),
            Self::MlDsa65 => ml_dsa_key(&ML_DSA_65_SIGNING),
            Self::MlDsa87 => ml_dsa_key(&ML_DSA_87_SIGNING),
        }
    }
}

fn rsa_key(size: KeySize) -> Vec<u8> {
    let key = rsa::KeyPair::generate(size).expect("an RSA key");
    AsDer::<Pkcs8V1Der<'_>>::as_der(&key)
        .expect("PKCS#8")
        .as_ref()
        .to_vec()
}

fn ecdsa_key(algorithm: &'static EcdsaSigningAlgorithm) -> Vec<u8> {
    let key = EcdsaKeyPair::generate(algorithm).expect("an ECDSA key");
    key.to_pkcs8v1().expect("PKCS#8").as_ref().to_vec()
}

fn ml_dsa_key(algorithm: &'static PqdsaSigningAlgorithm) -> Vec<u8> {
    let key = PqdsaKeyPair::generate(algorithm).expect("an ML-DSA key");
    key.to_pkcs8v1().expect("PKCS#8").as_ref().to_vec()
}
