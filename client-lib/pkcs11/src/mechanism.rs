//! Mechanisms: which there are, and what each asks the server for.
//!
//! A PKCS#11 host hands over finished digests: `CKM_RSA_PKCS` takes a `DigestInfo`, `CKM_ECDSA` the
//! digest alone. The server signs typed digests, so each input is recognised here, strictly; what
//! is not recognised is not sent.

use aws_lc_rs::digest::{self, Algorithm, Context};
use cryptoki_sys as ck;
use cryptoki_sys::{CK_FLAGS, CK_MECHANISM_TYPE, CK_ULONG};
use keyserver_client::SignatureAlgorithm;

use crate::failure::Failure;
use crate::object::Opens;
use crate::public_key::Kind;

/// A mechanism of the token: its name, key sizes in bits, and what it does.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Mechanism {
    pub(crate) name: CK_MECHANISM_TYPE,
    pub(crate) bits_min: CK_ULONG,
    pub(crate) bits_max: CK_ULONG,
    pub(crate) flags: CK_FLAGS,
}

const EC_FLAGS: CK_FLAGS =
    ck::CKF_SIGN | ck::CKF_EC_F_P | ck::CKF_EC_NAMEDCURVE | ck::CKF_EC_UNCOMPRESS;

const fn rsa(name: CK_MECHANISM_TYPE, flags: CK_FLAGS) -> Mechanism {
    Mechanism {
        name,
        bits_min: 2048,
        bits_max: 8192,
        flags,
    }
}

/// Every mechanism.
pub(crate) const MECHANISMS: [Mechanism; 8] = [
    rsa(ck::CKM_RSA_PKCS, ck::CKF_SIGN | ck::CKF_DECRYPT),
    rsa(ck::CKM_RSA_X_509, ck::CKF_DECRYPT),
    rsa(ck::CKM_RSA_PKCS_PSS, ck::CKF_SIGN),
    rsa(ck::CKM_SHA256_RSA_PKCS, ck::CKF_SIGN),
    rsa(ck::CKM_SHA384_RSA_PKCS, ck::CKF_SIGN),
    rsa(ck::CKM_SHA512_RSA_PKCS, ck::CKF_SIGN),
    Mechanism {
        name: ck::CKM_ECDSA,
        bits_min: 256,
        bits_max: 521,
        flags: EC_FLAGS,
    },
    Mechanism {
        name: ck::CKM_EDDSA,
        bits_min: 255,
        bits_max: 255,
        flags: ck::CKF_SIGN,
    },
];

/// How a signature is to be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Signing {
    /// PKCS#1 v1.5 over a `DigestInfo`, or over 36 bytes of MD5 and SHA-1.
    RsaDigestInfo,
    /// PSS over a digest.
    RsaPss(Hash),
    /// PKCS#1 v1.5 over a message, hashed here.
    RsaMessage(Hash),
    /// ECDSA over a digest.
    Ecdsa,
    /// Ed25519 over a message.
    Ed25519,
}

/// How a decryption is to be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Decryption {
    /// The padding of PKCS#1 v1.5 is taken off.
    Pkcs1,
    /// The same, by the server, which hands out premaster secrets and no padding.
    Premaster,
    /// The whole block.
    Raw,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Hash {
    Sha256,
    Sha384,
    Sha512,
}

impl Hash {
    const fn algorithm(self) -> &'static Algorithm {
        match self {
            Self::Sha256 => &digest::SHA256,
            Self::Sha384 => &digest::SHA384,
            Self::Sha512 => &digest::SHA512,
        }
    }

    const fn pkcs1(self) -> SignatureAlgorithm {
        match self {
            Self::Sha256 => SignatureAlgorithm::RsaPkcs1Sha256,
            Self::Sha384 => SignatureAlgorithm::RsaPkcs1Sha384,
            Self::Sha512 => SignatureAlgorithm::RsaPkcs1Sha512,
        }
    }

    const fn pss(self) -> SignatureAlgorithm {
        match self {
            Self::Sha256 => SignatureAlgorithm::RsaPssSha256,
            Self::Sha384 => SignatureAlgorithm::RsaPssSha384,
            Self::Sha512 => SignatureAlgorithm::RsaPssSha512,
        }
    }
}

/// The parameters of `CKM_RSA_PKCS_PSS` (`CK_RSA_PKCS_PSS_PARAMS`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PssParameters {
    pub(crate) hash: CK_MECHANISM_TYPE,
    pub(crate) mask: CK_ULONG,
    pub(crate) salt_bytes: CK_ULONG,
}

impl Signing {
    /// What a host asks for with `C_SignInit` on a key of this kind.
    pub(crate) fn new(
        name: CK_MECHANISM_TYPE,
        pss: Option<PssParameters>,
        kind: &Kind,
    ) -> Result<Self, Failure> {
        let signing = match name {
            ck::CKM_RSA_PKCS => Self::RsaDigestInfo,
            ck::CKM_SHA256_RSA_PKCS => Self::RsaMessage(Hash::Sha256),
            ck::CKM_SHA384_RSA_PKCS => Self::RsaMessage(Hash::Sha384),
            ck::CKM_SHA512_RSA_PKCS => Self::RsaMessage(Hash::Sha512),
            ck::CKM_RSA_PKCS_PSS => Self::RsaPss(pss_hash(pss)?),
            ck::CKM_ECDSA => Self::Ecdsa,
            ck::CKM_EDDSA => Self::Ed25519,
            _ => return Err(unknown(name)),
        };
        let fits = match signing {
            Self::RsaDigestInfo | Self::RsaPss(_) | Self::RsaMessage(_) => {
                matches!(kind, Kind::Rsa { .. })
            }
            Self::Ecdsa => matches!(kind, Kind::Ec { .. }),
            Self::Ed25519 => matches!(kind, Kind::Ed25519 { .. }),
        };
        fits.then_some(signing).ok_or_else(inconsistent)
    }

    /// The algorithm to ask the server for, and the input to send, given what the host hands over.
    pub(crate) fn request(self, data: &[u8]) -> Result<(SignatureAlgorithm, Vec<u8>), Failure> {
        let wrong_length = || {
            let bytes = data.len();
            let why = format!("{bytes} bytes are no digest that this mechanism signs");
            Failure::new(ck::CKR_DATA_LEN_RANGE, why)
        };
        match self {
            Self::RsaDigestInfo => {
                let (algorithm, hash) = digest_info(data)?;
                Ok((algorithm, hash.to_vec()))
            }
            Self::RsaPss(hash) if data.len() == hash.algorithm().output_len() => {
                Ok((hash.pss(), data.to_vec()))
            }
            Self::RsaPss(_) => Err(wrong_length()),
            Self::RsaMessage(hash) => {
                let digest = digest::digest(hash.algorithm(), data);
                Ok((hash.pkcs1(), digest.as_ref().to_vec()))
            }
            Self::Ecdsa => {
                let algorithm = match data.len() {
                    20 => SignatureAlgorithm::EcdsaSha1,
                    28 => SignatureAlgorithm::EcdsaSha224,
                    32 => SignatureAlgorithm::EcdsaSha256,
                    48 => SignatureAlgorithm::EcdsaSha384,
                    64 => SignatureAlgorithm::EcdsaSha512,
                    _ => return Err(wrong_length()),
                };
                Ok((algorithm, data.to_vec()))
            }
            Self::Ed25519 => Ok((SignatureAlgorithm::Ed25519, data.to_vec())),
        }
    }

    /// What gathers a message that comes in parts.
    pub(crate) fn gather(self) -> Gathered {
        match self {
            Self::RsaMessage(hash) => Gathered::Hash(hash, Context::new(hash.algorithm())),
            Self::RsaDigestInfo | Self::RsaPss(_) | Self::Ecdsa | Self::Ed25519 => {
                Gathered::Bytes(Vec::new())
            }
        }
    }
}

/// A message in parts. Where the mechanism hashes it, only the hash is kept.
pub(crate) enum Gathered {
    Hash(Hash, Context),
    Bytes(Vec<u8>),
}

/// Most bytes that are gathered for a mechanism that does not hash: more than any digest, and than
/// any message that one request to a server can carry.
const GATHERED_MAX: usize = 65_536;

impl Gathered {
    pub(crate) fn add(&mut self, part: &[u8]) -> Result<(), Failure> {
        match self {
            Self::Hash(_, context) => context.update(part),
            Self::Bytes(bytes) if bytes.len() + part.len() <= GATHERED_MAX => bytes.extend(part),
            Self::Bytes(_) => {
                return Err(Failure::new(
                    ck::CKR_DATA_LEN_RANGE,
                    format!("more than {GATHERED_MAX} bytes to sign"),
                ));
            }
        }
        Ok(())
    }

    /// As [`Signing::request`], for what has been gathered.
    pub(crate) fn request(
        &self,
        signing: Signing,
    ) -> Result<(SignatureAlgorithm, Vec<u8>), Failure> {
        match self {
            Self::Hash(hash, context) => {
                let digest = context.clone().finish();
                Ok((hash.pkcs1(), digest.as_ref().to_vec()))
            }
            Self::Bytes(bytes) => signing.request(bytes),
        }
    }
}

impl Decryption {
    /// What a host asks for with `C_DecryptInit` on a key of this kind.
    pub(crate) fn new(name: CK_MECHANISM_TYPE, kind: &Kind, opens: Opens) -> Result<Self, Failure> {
        let decryption = match (name, opens) {
            (ck::CKM_RSA_PKCS, Opens::Premasters) => Self::Premaster,
            (ck::CKM_RSA_PKCS, _) => Self::Pkcs1,
            (ck::CKM_RSA_X_509, Opens::Premasters) => {
                let why = "this edge may open premaster secrets, and no whole blocks";
                return Err(Failure::new(ck::CKR_KEY_FUNCTION_NOT_PERMITTED, why));
            }
            (ck::CKM_RSA_X_509, _) => Self::Raw,
            _ => return Err(unknown(name)),
        };
        let fits = matches!(kind, Kind::Rsa { .. });
        fits.then_some(decryption).ok_or_else(inconsistent)
    }
}

fn unknown(name: CK_MECHANISM_TYPE) -> Failure {
    let why = format!("mechanism {name:#x} is not offered for this");
    Failure::new(ck::CKR_MECHANISM_INVALID, why)
}

fn inconsistent() -> Failure {
    let why = "the mechanism is for another type of key";
    Failure::new(ck::CKR_KEY_TYPE_INCONSISTENT, why)
}

/// The hash of PSS parameters, which must be those of TLS: one hash throughout, and a salt as long
/// as it (RFC 8446, section 4.2.3). Servers offer nothing else.
fn pss_hash(parameters: Option<PssParameters>) -> Result<Hash, Failure> {
    let wrong = |why| Failure::new(ck::CKR_MECHANISM_PARAM_INVALID, why);
    let parameters = parameters.ok_or_else(|| wrong("PSS without its parameters"))?;
    match (parameters.hash, parameters.mask, parameters.salt_bytes) {
        (ck::CKM_SHA256, ck::CKG_MGF1_SHA256, 32) => Ok(Hash::Sha256),
        (ck::CKM_SHA384, ck::CKG_MGF1_SHA384, 48) => Ok(Hash::Sha384),
        (ck::CKM_SHA512, ck::CKG_MGF1_SHA512, 64) => Ok(Hash::Sha512),
        _ => Err(wrong(
            "PSS parameters other than SHA-256, SHA-384 or SHA-512 throughout with a salt of the \
             hash's length",
        )),
    }
}

/// What stands before the digest in a DER `DigestInfo` (RFC 8017, section 9.2, note 1), and the
/// digest's bytes.
const DIGEST_INFOS: [(SignatureAlgorithm, &[u8], usize); 5] = [
    (
        SignatureAlgorithm::RsaPkcs1Sha1,
        &[
            0x30, 0x21, 0x30, 0x09, 0x06, 0x05, 0x2b, 0x0e, 0x03, 0x02, 0x1a, 0x05, 0x00, 0x04,
            0x14,
        ],
        20,
    ),
    (
        SignatureAlgorithm::RsaPkcs1Sha224,
        &[
            0x30, 0x2d, 0x30, 0x0d, 0x06, 0x09, 0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x02,
            0x04, 0x05, 0x00, 0x04, 0x1c,
        ],
        28,
    ),
    (
        SignatureAlgorithm::RsaPkcs1Sha256,
        &[
            0x30, 0x31, 0x30, 0x0d, 0x06, 0x09, 0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x02,
            0x01, 0x05, 0x00, 0x04, 0x20,
        ],
        32,
    ),
    (
        SignatureAlgorithm::RsaPkcs1Sha384,
        &[
            0x30, 0x41, 0x30, 0x0d, 0x06, 0x09, 0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x02,
            0x02, 0x05, 0x00, 0x04, 0x30,
        ],
        48,
    ),
    (
        SignatureAlgorithm::RsaPkcs1Sha512,
        &[
            0x30, 0x51, 0x30, 0x0d, 0x06, 0x09, 0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x02,
            0x03, 0x05, 0x00, 0x04, 0x40,
        ],
        64,
    ),
];

/// Bytes of MD5 and SHA-1 together, which TLS 1.0 and 1.1 sign without a `DigestInfo`.
const MD5_SHA1: usize = 36;

/// The algorithm and the digest of a `DigestInfo`. Only the one DER encoding of each is taken.
fn digest_info(data: &[u8]) -> Result<(SignatureAlgorithm, &[u8]), Failure> {
    if data.len() == MD5_SHA1 {
        return Ok((SignatureAlgorithm::RsaPkcs1Md5Sha1, data));
    }
    DIGEST_INFOS
        .iter()
        .find_map(|(algorithm, prefix, bytes)| {
            let digest = data.strip_prefix(*prefix)?;
            (digest.len() == *bytes).then_some((*algorithm, digest))
        })
        .ok_or_else(|| {
            Failure::new(
                ck::CKR_DATA_INVALID,
                "CKM_RSA_PKCS over something that is neither the DigestInfo of SHA-1, SHA-224, \
                 SHA-256, SHA-384 or SHA-512 nor 36 bytes of MD5 and SHA-1",
            )
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rsa() -> Kind {
        Kind::Rsa {
            modulus: vec![0x80; 256],
            exponent: vec![1, 0, 1],
        }
    }

    fn code<T>(result: Result<T, Failure>) -> ck::CK_RV {
        result.map_or_else(|failure| failure.code, |_| ck::CKR_OK)
    }

    #[test]
    fn a_digest_info_is_recognised_whole_or_not_at_all() {
        for (algorithm, prefix, bytes) in DIGEST_INFOS {
            let info = [prefix, &vec![7; bytes]].concat();
            assert_eq!(
                usize::from(info[1]) + 2,
                info.len(),
                "the prefix's own length"
            );
            assert_eq!(algorithm.hash_len(), Some(bytes));
            let (found, digest) = digest_info(&info).unwrap();
            assert_eq!((found, digest), (algorithm, &vec![7; bytes][..]));
            assert!(digest_info(&info[..info.len() - 1]).is_err(), "cut short");
            // With one byte more, that of SHA-1 is as long as MD5 and SHA-1 together.
            let longer = [&info[..], &[0]].concat();
            assert_eq!(digest_info(&longer).is_ok(), longer.len() == MD5_SHA1);
            for position in 0..prefix.len() {
                let mut other = info.clone();
                other[position] ^= 1;
                assert_eq!(
                    code(digest_info(&other)),
                    ck::CKR_DATA_INVALID,
                    "byte {position}"
                );
            }
        }
        let (tls10, digest) = digest_info(&[9; 36]).unwrap();
        assert_eq!(
            (tls10, digest.len()),
            (SignatureAlgorithm::RsaPkcs1Md5Sha1, 36)
        );
        for bytes in [0, 20, 32, 35, 37, 64, 245, 256] {
            assert!(digest_info(&vec![9; bytes]).is_err(), "{bytes} bytes");
        }
    }

    #[test]
    fn mechanisms_keep_to_their_type_of_key() {
        let ec = Kind::Ec {
            curve: Vec::new(),
            point: Vec::new(),
            order_bytes: 32,
        };
        assert_eq!(
            Signing::new(ck::CKM_ECDSA, None, &ec).unwrap(),
            Signing::Ecdsa
        );
        let wrong = ck::CKR_KEY_TYPE_INCONSISTENT;
        assert_eq!(code(Signing::new(ck::CKM_ECDSA, None, &rsa())), wrong);
        assert_eq!(code(Signing::new(ck::CKM_RSA_PKCS, None, &ec)), wrong);
        assert_eq!(code(Signing::new(ck::CKM_EDDSA, None, &ec)), wrong);
        let new = |name, kind: &Kind, opens| Decryption::new(name, kind, opens);
        assert_eq!(code(new(ck::CKM_RSA_PKCS, &ec, Opens::Blocks)), wrong);
        let none = ck::CKR_MECHANISM_INVALID;
        assert_eq!(code(Signing::new(ck::CKM_RSA_X_509, None, &rsa())), none);
        assert_eq!(
            code(new(ck::CKM_RSA_PKCS_OAEP, &rsa(), Opens::Blocks)),
            none
        );
        let premaster = new(ck::CKM_RSA_PKCS, &rsa(), Opens::Premasters);
        assert_eq!(premaster.unwrap(), Decryption::Premaster);
        let whole = new(ck::CKM_RSA_X_509, &rsa(), Opens::Premasters);
        assert_eq!(code(whole), ck::CKR_KEY_FUNCTION_NOT_PERMITTED);
    }

    #[test]
    fn pss_is_that_of_tls() {
        let parameters = |hash, mask, salt_bytes| {
            let parameters = PssParameters {
                hash,
                mask,
                salt_bytes,
            };
            Signing::new(ck::CKM_RSA_PKCS_PSS, Some(parameters), &rsa())
        };
        let signing = parameters(ck::CKM_SHA256, ck::CKG_MGF1_SHA256, 32).unwrap();
        assert_eq!(
            signing.request(&[1; 32]).unwrap().0,
            SignatureAlgorithm::RsaPssSha256
        );
        assert_eq!(code(signing.request(&[1; 48])), ck::CKR_DATA_LEN_RANGE);
        for (hash, mask, salt) in [
            (ck::CKM_SHA256, ck::CKG_MGF1_SHA256, 20),
            (ck::CKM_SHA256, ck::CKG_MGF1_SHA1, 32),
            (ck::CKM_SHA_1, ck::CKG_MGF1_SHA1, 20),
        ] {
            assert_eq!(
                code(parameters(hash, mask, salt)),
                ck::CKR_MECHANISM_PARAM_INVALID
            );
        }
        Signing::new(ck::CKM_RSA_PKCS_PSS, None, &rsa()).unwrap_err();
    }

    #[test]
    fn ecdsa_goes_by_the_digests_length() {
        assert_eq!(
            Signing::Ecdsa.request(&[1; 48]).unwrap().0,
            SignatureAlgorithm::EcdsaSha384
        );
        assert_eq!(
            code(Signing::Ecdsa.request(&[1; 36])),
            ck::CKR_DATA_LEN_RANGE
        );
    }

    #[test]
    fn parts_are_the_same_as_the_whole() {
        for signing in [Signing::RsaMessage(Hash::Sha384), Signing::Ed25519] {
            let mut gathered = signing.gather();
            gathered.add(b"two ").unwrap();
            gathered.add(b"parts").unwrap();
            assert_eq!(
                gathered.request(signing).unwrap(),
                signing.request(b"two parts").unwrap()
            );
        }
        let mut bounded = Signing::Ed25519.gather();
        bounded.add(&vec![0; GATHERED_MAX]).unwrap();
        assert_eq!(code(bounded.add(&[0])), ck::CKR_DATA_LEN_RANGE);
    }
}
