//! How an operation is put to a token: which mechanism, which bytes go in, what comes out.
//!
//! | operation | mechanism | in | out |
//! |---|---|---|---|
//! | RSA PKCS#1 | `CKM_RSA_PKCS` | `DigestInfo` | signature |
//! | RSA PSS | `CKM_RSA_PKCS_PSS`, else `CKM_RSA_X_509` over our own padding | hash value | signature |
//! | RSA raw | `CKM_RSA_X_509` by decryption, else by signing | ciphertext | block, padding in place |
//! | ECDSA | `CKM_ECDSA` | hash value, cut to the order | r and s, made DER here |
//! | Ed25519 | `CKM_EDDSA` | message | signature |
//! | ML-DSA | `CKM_ML_DSA` (PKCS#11 3.2) | message | signature |
//!
//! A token never takes padding off: a decryption that fails visibly would be an oracle.

use cryptoki::mechanism::dsa::{HedgeType, SignAdditionalContext};
use cryptoki::mechanism::eddsa::{EddsaParams, EddsaSignatureScheme};
use cryptoki::mechanism::rsa::{PkcsMgfType, PkcsPssParams};
use cryptoki::mechanism::{Mechanism, MechanismType};
use zeroize::Zeroizing;

use super::raw::Call;
use crate::class::KeyType;
use crate::der;
use crate::job::{Hash, Operation};
use crate::parts::MAX_MODULUS_LEN;
use crate::simd::padding;

/// Longest result in bytes: ML-DSA-87 (FIPS 204, table 2), rounded up.
pub(super) const MAX_RESULT_LEN: usize = 4864;

/// What a token and a key on it allow.
#[expect(
    clippy::struct_excessive_bools,
    reason = "a set of independent yes-or-no answers of the token"
)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Abilities {
    /// The key may sign (`CKA_SIGN`).
    pub(super) sign: bool,
    /// The key may decrypt (`CKA_DECRYPT`).
    pub(super) decrypt: bool,
    /// `CKM_RSA_PKCS` is listed.
    pub(super) pkcs1: bool,
    /// `CKM_RSA_PKCS_PSS` is listed.
    pub(super) pss: bool,
    /// `CKM_RSA_X_509` is listed.
    pub(super) raw_rsa: bool,
    /// `CKM_ECDSA` is listed.
    pub(super) ecdsa: bool,
    /// `CKM_EDDSA` is listed.
    pub(super) eddsa: bool,
    /// `CKM_ML_DSA` is listed.
    pub(super) ml_dsa: bool,
}

impl Abilities {
    /// What the token's list of mechanisms offers; the key's own rights are added later.
    pub(super) fn of_token(mechanisms: &[MechanismType]) -> Self {
        let has = |wanted| mechanisms.contains(&wanted);
        Self {
            sign: false,
            decrypt: false,
            pkcs1: has(MechanismType::RSA_PKCS),
            pss: has(MechanismType::RSA_PKCS_PSS),
            raw_rsa: has(MechanismType::RSA_X_509),
            ecdsa: has(MechanismType::ECDSA),
            eddsa: has(MechanismType::EDDSA),
            ml_dsa: has(MechanismType::ML_DSA),
        }
    }

    /// Whether this token can do `operation` with this key, in one way or another.
    pub(super) const fn allow(self, operation: Operation) -> bool {
        match operation {
            Operation::RsaPkcs1Sign(_) => self.sign && (self.pkcs1 || self.raw_rsa),
            Operation::RsaPssSign(_) => self.sign && (self.pss || self.raw_rsa),
            Operation::RsaPrivate => (self.sign || self.decrypt) && self.raw_rsa,
            Operation::EcdsaSign(_) => self.sign && self.ecdsa,
            Operation::Ed25519Sign => self.sign && self.eddsa,
            Operation::MlDsaSign => self.sign && self.ml_dsa,
        }
    }
}

/// One operation as the token will get it.
pub(super) struct Request<'a> {
    /// Which pair of functions.
    pub(super) call: Call,
    /// With which mechanism.
    pub(super) mechanism: Mechanism<'a>,
    /// What goes in.
    pub(super) input: Zeroizing<Vec<u8>>,
}

/// No mechanism of this token does this operation with this key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct NoMechanism;

/// Puts a validated operation into the token's terms.
pub(super) fn request(
    operation: Operation,
    key_type: KeyType,
    abilities: Abilities,
    input: &[u8],
) -> Result<Request<'static>, NoMechanism> {
    if !abilities.allow(operation) {
        return Err(NoMechanism);
    }
    let sign = |mechanism, input| {
        Ok(Request {
            call: Call::Sign,
            mechanism,
            input: Zeroizing::new(input),
        })
    };
    match operation {
        Operation::RsaPkcs1Sign(hash) if abilities.pkcs1 => {
            let info = [padding::digest_info(hash), input].concat();
            sign(Mechanism::RsaPkcs, info)
        }
        Operation::RsaPkcs1Sign(hash) => {
            let mut block = vec![0; modulus_len(key_type)];
            padding::pkcs1(hash, input, &mut block).map_err(|_| NoMechanism)?;
            sign(Mechanism::RsaX509, block)
        }
        Operation::RsaPssSign(hash) if abilities.pss => {
            let parameters = pss_parameters(hash).ok_or(NoMechanism)?;
            sign(Mechanism::RsaPkcsPss(parameters), input.to_vec())
        }
        Operation::RsaPssSign(hash) => sign(Mechanism::RsaX509, pss_block(hash, input, key_type)?),
        Operation::RsaPrivate if abilities.decrypt => Ok(Request {
            call: Call::Decrypt,
            mechanism: Mechanism::RsaX509,
            input: Zeroizing::new(input.to_vec()),
        }),
        Operation::RsaPrivate => sign(Mechanism::RsaX509, input.to_vec()),
        Operation::EcdsaSign(_) => {
            // The leftmost bits count (FIPS 186-5, section 6.4.1); some tokens refuse to be given more.
            let order = scalar_len(key_type).ok_or(NoMechanism)?;
            let digest = input.get(..order).unwrap_or(input);
            sign(Mechanism::Ecdsa, digest.to_vec())
        }
        Operation::Ed25519Sign => sign(
            Mechanism::Eddsa(EddsaParams::new(EddsaSignatureScheme::Pure)),
            input.to_vec(),
        ),
        Operation::MlDsaSign => sign(
            Mechanism::MlDsa(SignAdditionalContext::new(HedgeType::Preferred, None)),
            input.to_vec(),
        ),
    }
}

/// Brings what the token returned into the form every backend returns; `None` when it has the wrong length.
pub(super) fn result(
    operation: Operation,
    key_type: KeyType,
    returned: &[u8],
) -> Option<Zeroizing<Vec<u8>>> {
    match operation {
        Operation::RsaPkcs1Sign(_) | Operation::RsaPssSign(_) | Operation::RsaPrivate => {
            // A few modules drop leading zeros from numbers.
            let length = modulus_len(key_type);
            let missing = length.checked_sub(returned.len())?;
            let mut block = Zeroizing::new(vec![0; length]);
            block.get_mut(missing..)?.copy_from_slice(returned);
            Some(block)
        }
        Operation::EcdsaSign(_) => {
            let order = scalar_len(key_type)?;
            let (r, s) = returned.split_at_checked(order)?;
            (s.len() == order).then(|| Zeroizing::new(der::ecdsa_signature(r, s)))
        }
        Operation::Ed25519Sign | Operation::MlDsaSign => Some(Zeroizing::new(returned.to_vec())),
    }
}

fn modulus_len(key_type: KeyType) -> usize {
    match key_type {
        KeyType::Rsa { bits } => usize::from(bits).div_ceil(8).min(MAX_MODULUS_LEN),
        _ => 0,
    }
}

const fn scalar_len(key_type: KeyType) -> Option<usize> {
    match key_type {
        KeyType::P256 => Some(32),
        KeyType::P384 => Some(48),
        KeyType::P521 => Some(66),
        _ => None,
    }
}

/// EMSA-PSS over a modulus whose length is a multiple of eight bits; other lengths need the token's own.
fn pss_block(hash: Hash, input: &[u8], key_type: KeyType) -> Result<Vec<u8>, NoMechanism> {
    let whole = matches!(key_type, KeyType::Rsa { bits } if bits % 8 == 0);
    if !whole {
        return Err(NoMechanism);
    }
    let mut block = vec![0; modulus_len(key_type)];
    padding::pss(hash, input, &mut block).map_err(|_| NoMechanism)?;
    Ok(block)
}

fn pss_parameters(hash: Hash) -> Option<PkcsPssParams> {
    let (hash_alg, mgf) = match hash {
        Hash::Md5Sha1 => return None,
        Hash::Sha1 => (MechanismType::SHA1, PkcsMgfType::MGF1_SHA1),
        Hash::Sha224 => (MechanismType::SHA224, PkcsMgfType::MGF1_SHA224),
        Hash::Sha256 => (MechanismType::SHA256, PkcsMgfType::MGF1_SHA256),
        Hash::Sha384 => (MechanismType::SHA384, PkcsMgfType::MGF1_SHA384),
        Hash::Sha512 => (MechanismType::SHA512, PkcsMgfType::MGF1_SHA512),
    };
    Some(PkcsPssParams {
        hash_alg,
        mgf,
        s_len: u64::try_from(hash.len()).ok()?.into(),
    })
}
