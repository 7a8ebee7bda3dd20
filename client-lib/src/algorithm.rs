//! The signature algorithms a key server offers, and what each takes as input.

use aws_lc_rs::digest;
use keyless_protocol::{Opcode, SignatureScheme};

use crate::error::Error;

/// How to sign.
///
/// All but [`SignatureAlgorithm::Ed25519`] take the *hash* of the message; Ed25519 takes the message.
/// RSA results have the length of the modulus, ECDSA results are DER `ECDSA-Sig-Value`s, Ed25519
/// results are 64 bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum SignatureAlgorithm {
    /// RSASSA-PKCS1-v1_5 over MD5 and SHA-1 together (36 bytes), as in TLS 1.0 and 1.1.
    RsaPkcs1Md5Sha1,
    /// RSASSA-PKCS1-v1_5 with SHA-1.
    RsaPkcs1Sha1,
    /// RSASSA-PKCS1-v1_5 with SHA-224.
    RsaPkcs1Sha224,
    /// RSASSA-PKCS1-v1_5 with SHA-256.
    RsaPkcs1Sha256,
    /// RSASSA-PKCS1-v1_5 with SHA-384.
    RsaPkcs1Sha384,
    /// RSASSA-PKCS1-v1_5 with SHA-512.
    RsaPkcs1Sha512,
    /// RSASSA-PSS with SHA-256, MGF1 with SHA-256 and a salt of 32 bytes.
    RsaPssSha256,
    /// RSASSA-PSS with SHA-384, MGF1 with SHA-384 and a salt of 48 bytes.
    RsaPssSha384,
    /// RSASSA-PSS with SHA-512, MGF1 with SHA-512 and a salt of 64 bytes.
    RsaPssSha512,
    /// ECDSA over MD5 and SHA-1 together (36 bytes).
    EcdsaMd5Sha1,
    /// ECDSA over SHA-1.
    EcdsaSha1,
    /// ECDSA over SHA-224.
    EcdsaSha224,
    /// ECDSA over SHA-256.
    EcdsaSha256,
    /// ECDSA over SHA-384.
    EcdsaSha384,
    /// ECDSA over SHA-512.
    EcdsaSha512,
    /// Ed25519 over the message itself.
    Ed25519,
}

impl SignatureAlgorithm {
    /// Every algorithm.
    pub const ALL: [Self; 16] = [
        Self::RsaPkcs1Md5Sha1,
        Self::RsaPkcs1Sha1,
        Self::RsaPkcs1Sha224,
        Self::RsaPkcs1Sha256,
        Self::RsaPkcs1Sha384,
        Self::RsaPkcs1Sha512,
        Self::RsaPssSha256,
        Self::RsaPssSha384,
        Self::RsaPssSha512,
        Self::EcdsaMd5Sha1,
        Self::EcdsaSha1,
        Self::EcdsaSha224,
        Self::EcdsaSha256,
        Self::EcdsaSha384,
        Self::EcdsaSha512,
        Self::Ed25519,
    ];

    /// The opcode that asks for it.
    #[must_use]
    pub const fn opcode(self) -> Opcode {
        match self {
            Self::RsaPkcs1Md5Sha1 => Opcode::RsaSignMd5Sha1,
            Self::RsaPkcs1Sha1 => Opcode::RsaSignSha1,
            Self::RsaPkcs1Sha224 => Opcode::RsaSignSha224,
            Self::RsaPkcs1Sha256 => Opcode::RsaSignSha256,
            Self::RsaPkcs1Sha384 => Opcode::RsaSignSha384,
            Self::RsaPkcs1Sha512 => Opcode::RsaSignSha512,
            Self::RsaPssSha256 => Opcode::RsaPssSignSha256,
            Self::RsaPssSha384 => Opcode::RsaPssSignSha384,
            Self::RsaPssSha512 => Opcode::RsaPssSignSha512,
            Self::EcdsaMd5Sha1 => Opcode::EcdsaSignMd5Sha1,
            Self::EcdsaSha1 => Opcode::EcdsaSignSha1,
            Self::EcdsaSha224 => Opcode::EcdsaSignSha224,
            Self::EcdsaSha256 => Opcode::EcdsaSignSha256,
            Self::EcdsaSha384 => Opcode::EcdsaSignSha384,
            Self::EcdsaSha512 => Opcode::EcdsaSignSha512,
            Self::Ed25519 => Opcode::Ed25519Sign,
        }
    }

    /// Bytes of the hash to be signed; `None` where the message itself is given.
    #[must_use]
    pub const fn hash_len(self) -> Option<usize> {
        match self {
            Self::RsaPkcs1Md5Sha1 | Self::EcdsaMd5Sha1 => Some(36),
            Self::RsaPkcs1Sha1 | Self::EcdsaSha1 => Some(20),
            Self::RsaPkcs1Sha224 | Self::EcdsaSha224 => Some(28),
            Self::RsaPkcs1Sha256 | Self::RsaPssSha256 | Self::EcdsaSha256 => Some(32),
            Self::RsaPkcs1Sha384 | Self::RsaPssSha384 | Self::EcdsaSha384 => Some(48),
            Self::RsaPkcs1Sha512 | Self::RsaPssSha512 | Self::EcdsaSha512 => Some(64),
            Self::Ed25519 => None,
        }
    }

    /// The TLS `SignatureScheme` that uses it, where there is one (RFC 8446, section 4.2.3). TLS
    /// 1.3 ties each ECDSA scheme to one curve, which this type does not know.
    #[must_use]
    pub const fn scheme(self) -> Option<u16> {
        Some(match self {
            Self::RsaPkcs1Sha1 => 0x0201,
            Self::RsaPkcs1Sha256 => 0x0401,
            Self::RsaPkcs1Sha384 => 0x0501,
            Self::RsaPkcs1Sha512 => 0x0601,
            Self::RsaPssSha256 => 0x0804,
            Self::RsaPssSha384 => 0x0805,
            Self::RsaPssSha512 => 0x0806,
            Self::EcdsaSha1 => 0x0203,
            Self::EcdsaSha256 => 0x0403,
            Self::EcdsaSha384 => 0x0503,
            Self::EcdsaSha512 => 0x0603,
            Self::Ed25519 => 0x0807,
            Self::RsaPkcs1Md5Sha1
            | Self::RsaPkcs1Sha224
            | Self::EcdsaMd5Sha1
            | Self::EcdsaSha224 => return None,
        })
    }

    /// What a server that only signs digests has to be asked for instead of `scheme`, and the input
    /// made from the message; nothing where it cannot be asked.
    pub(crate) fn instead_of(scheme: SignatureScheme, message: &[u8]) -> Option<(Self, Vec<u8>)> {
        let algorithm = Self::ALL
            .into_iter()
            .find(|algorithm| algorithm.scheme() == Some(scheme.as_u16()))?;
        let hash = match algorithm.hash_len() {
            None => return Some((algorithm, message.to_vec())),
            Some(32) => &digest::SHA256,
            Some(48) => &digest::SHA384,
            Some(64) => &digest::SHA512,
            Some(_) => return None,
        };
        Some((algorithm, digest::digest(hash, message).as_ref().to_vec()))
    }

    /// Refuses an input that no server could sign with this algorithm.
    pub(crate) fn check(self, input: &[u8]) -> Result<(), Error> {
        match self.hash_len() {
            Some(wanted) if wanted != input.len() => Err(Error::input(format_args!(
                "{self:?} signs a hash of {wanted} bytes and was given {}",
                input.len()
            ))),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn every_algorithm_has_its_own_opcode_and_scheme() {
        let opcodes: HashSet<u8> = SignatureAlgorithm::ALL
            .iter()
            .map(|a| a.opcode().as_byte())
            .collect();
        assert_eq!(opcodes.len(), SignatureAlgorithm::ALL.len());
        let schemes: Vec<u16> = SignatureAlgorithm::ALL
            .iter()
            .filter_map(|a| a.scheme())
            .collect();
        assert_eq!(schemes.iter().collect::<HashSet<_>>().len(), schemes.len());
    }

    #[test]
    fn every_scheme_but_ml_dsa_has_a_digest_operation_of_its_own() {
        for scheme in SignatureScheme::ALL {
            match SignatureAlgorithm::instead_of(scheme, b"message") {
                Some((algorithm, input)) => algorithm.check(&input).unwrap(),
                None => assert!(scheme.name().starts_with("mldsa"), "{scheme}"),
            }
        }
    }

    #[test]
    fn a_hash_of_the_wrong_length_never_leaves() {
        for algorithm in SignatureAlgorithm::ALL {
            if let Some(length) = algorithm.hash_len() {
                algorithm.check(&vec![0; length]).unwrap();
                algorithm.check(&vec![0; length + 1]).unwrap_err();
                algorithm.check(&[]).unwrap_err();
            }
        }
        SignatureAlgorithm::Ed25519.check(&[]).unwrap();
    }
}
