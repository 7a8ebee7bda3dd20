//! One private-key operation: what goes in, what comes out.

use zeroize::Zeroize;

use crate::aws_lc;
use crate::class::KeyType;
use crate::error::JobError;
use crate::key::Key;
use crate::key_exchange::KeyExchange;

/// Length in bytes of the longest hash value.
pub(crate) const MAX_HASH_LEN: usize = 64;

/// The hash function whose value is signed. The caller has already hashed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Hash {
    /// MD5 followed by SHA-1, as TLS 1.0 and 1.1 sign (RFC 2246, section 7.4.3).
    Md5Sha1,
    /// SHA-1.
    Sha1,
    /// SHA-224.
    Sha224,
    /// SHA-256.
    Sha256,
    /// SHA-384.
    Sha384,
    /// SHA-512.
    Sha512,
}

#[expect(
    clippy::len_without_is_empty,
    reason = "a hash function always has output; empty is not a question one can ask"
)]
impl Hash {
    /// Every hash function.
    pub const ALL: [Self; 6] = [
        Self::Md5Sha1,
        Self::Sha1,
        Self::Sha224,
        Self::Sha256,
        Self::Sha384,
        Self::Sha512,
    ];

    /// Length of a hash value in bytes.
    #[must_use]
    pub const fn len(self) -> usize {
        match self {
            Self::Md5Sha1 => 36,
            Self::Sha1 => 20,
            Self::Sha224 => 28,
            Self::Sha256 => 32,
            Self::Sha384 => 48,
            Self::Sha512 => 64,
        }
    }

    /// The hash value of a message, for callers that are given the message; nothing for
    /// [`Hash::Md5Sha1`], whose values always come from elsewhere. Allocates nothing.
    #[must_use]
    pub fn digest(self, message: &[u8]) -> Option<Digest> {
        let bytes = aws_lc::digest(self, message)?;
        Some(Digest { bytes, hash: self })
    }
}

/// A hash value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Digest {
    bytes: [u8; MAX_HASH_LEN],
    hash: Hash,
}

impl AsRef<[u8]> for Digest {
    fn as_ref(&self) -> &[u8] {
        self.bytes.get(..self.hash.len()).unwrap_or(&self.bytes)
    }
}

/// What to do with a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Operation {
    /// RSASSA-PKCS1-v1_5 over a hash value (RFC 8017, section 8.2). With [`Hash::Md5Sha1`] there is
    /// no `DigestInfo`, as TLS 1.0 wants it. Output: k bytes, k being the length of the modulus.
    RsaPkcs1Sign(Hash),
    /// RSASSA-PSS over a hash value, MGF1 with the same hash, a salt as long as the hash (RFC 8017,
    /// section 8.1). [`Hash::Md5Sha1`] is [`JobError::WrongKey`]. Output: k bytes.
    RsaPssSign(Hash),
    /// The bare RSA private operation c^d mod n. Input and output: exactly k bytes, big endian;
    /// the input must lie strictly between 1 and n-1, because 0, 1 and n-1 map to themselves and
    /// are only ever sent to probe. Padding stays in place.
    RsaPrivate,
    /// ECDSA over a hash value, which is truncated to the curve's order (FIPS 186-5, section 6.4).
    /// Output: `ECDSA-Sig-Value` in DER.
    EcdsaSign(Hash),
    /// Ed25519 over a message (RFC 8032, pure). Output: 64 bytes.
    Ed25519Sign,
    /// ML-DSA over a message with an empty context (FIPS 204, pure, hedged). Output: the signature.
    MlDsaSign,
}

impl Operation {
    /// Whether a key of this type can do this operation at all.
    #[must_use]
    pub const fn fits(self, key_type: KeyType) -> bool {
        match self {
            Self::RsaPkcs1Sign(_) | Self::RsaPrivate => matches!(key_type, KeyType::Rsa { .. }),
            Self::RsaPssSign(hash) => {
                matches!(key_type, KeyType::Rsa { .. }) && !matches!(hash, Hash::Md5Sha1)
            }
            Self::EcdsaSign(_) => {
                matches!(key_type, KeyType::P256 | KeyType::P384 | KeyType::P521)
            }
            Self::Ed25519Sign => matches!(key_type, KeyType::Ed25519),
            Self::MlDsaSign => {
                matches!(
                    key_type,
                    KeyType::MlDsa44 | KeyType::MlDsa65 | KeyType::MlDsa87
                )
            }
        }
    }
}

/// One row of a batch.
///
/// The caller owns every buffer. A backend clears `output`, fills it and sets `result`; on an error
/// `output` is empty and its old bytes are wiped. Reusing one `output` for many jobs costs no
/// allocation once it has grown.
#[derive(Debug)]
pub struct Job<'a> {
    /// The key to use.
    pub key: &'a Key,
    /// What to do with it.
    pub operation: Operation,
    /// What becomes of the result of [`Operation::RsaPrivate`] before the caller sees it. `None`: it is
    /// handed out as it is. Backends compute the bare operation either way; the answer is made by the
    /// engine, after every check. With any other operation the job is [`JobError::WrongKey`].
    pub exchange: Option<KeyExchange>,
    /// The hash value, message or ciphertext, see [`Operation`].
    pub input: &'a [u8],
    /// Where the result goes.
    pub output: &'a mut Vec<u8>,
    /// How it went. Meaningless until a backend has run the job.
    pub result: Result<(), JobError>,
}

impl<'a> Job<'a> {
    /// A job that has not run: its result is [`JobError::Failed`] until it does.
    #[must_use]
    pub const fn new(
        key: &'a Key,
        operation: Operation,
        input: &'a [u8],
        output: &'a mut Vec<u8>,
    ) -> Self {
        Self {
            key,
            operation,
            exchange: None,
            input,
            output,
            result: Err(JobError::Failed),
        }
    }

    /// The same for an RSA key exchange: `ciphertext` is opened, and answered as `exchange` says.
    #[must_use]
    pub const fn key_exchange(
        key: &'a Key,
        exchange: KeyExchange,
        ciphertext: &'a [u8],
        output: &'a mut Vec<u8>,
    ) -> Self {
        Self {
            exchange: Some(exchange),
            ..Self::new(key, Operation::RsaPrivate, ciphertext, output)
        }
    }

    /// Checks everything a caller can get wrong. Every backend calls this before it computes, so
    /// that all of them refuse the same inputs with the same error.
    ///
    /// # Errors
    ///
    /// [`JobError::WrongKey`] when the operation does not fit the key, [`JobError::Input`] when the
    /// input has the wrong length or, for [`Operation::RsaPrivate`], is not in 2..=n-2.
    pub fn validate(&self) -> Result<(), JobError> {
        if !self.operation.fits(self.key.key_type()) {
            return Err(JobError::WrongKey);
        }
        if self.exchange.is_some() && self.operation != Operation::RsaPrivate {
            return Err(JobError::WrongKey);
        }
        let good = match self.operation {
            Operation::RsaPkcs1Sign(hash)
            | Operation::RsaPssSign(hash)
            | Operation::EcdsaSign(hash) => self.input.len() == hash.len(),
            Operation::RsaPrivate => self.key.accepts_raw_input(self.input),
            Operation::Ed25519Sign | Operation::MlDsaSign => true,
        };
        if good { Ok(()) } else { Err(JobError::Input) }
    }

    /// Ends the job with an error: wipes and empties the output.
    pub fn fail(&mut self, error: JobError) {
        self.output.zeroize();
        self.result = Err(error);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The values for "abc" in the examples to FIPS 180-4.
    #[test]
    fn digests_are_those_of_the_standards() {
        for (hash, expected) in [
            (Hash::Sha1, "a9993e364706816aba3e25717850c26c9cd0d89d"),
            (
                Hash::Sha224,
                "23097d223405d8228642a477bda255b32aadbce4bda0b3f7e36c9da7",
            ),
            (
                Hash::Sha256,
                "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad",
            ),
            (
                Hash::Sha384,
                "cb00753f45a35e8bb5a03d699ac65007272c32ab0eded1631a8b605a43ff5bed8086072ba1e7cc2358baeca134c825a7",
            ),
            (
                Hash::Sha512,
                "ddaf35a193617abacc417349ae20413112e6fa4e89a97ea20a9eeee64b55d39a\
                 2192992a274fc1a836ba3c23a3feebbd454d4423643ce80e2a9ac94fa54ca49f",
            ),
        ] {
            let digest = hash.digest(b"abc").unwrap();
            let text: String = digest
                .as_ref()
                .iter()
                .map(|byte| format!("{byte:02x}"))
                .collect();
            assert_eq!(text, expected, "{hash:?}");
        }
    }
}
