//! The one place that maps the protocol's opcodes to the engine's operations.

use accel::{Digest, Hash, KeyExchange, Operation, Prf, Seed};
use keyless_protocol::key_exchange::{MasterRequest, MasterSeed, PremasterRequest, PrfHash};
use keyless_protocol::{ErrorCode, Opcode, SignatureScheme};

use crate::handshake::CertificateVerify;
use crate::handshake::certificate_verify::TranscriptHash;
use crate::handshake::transcript::{TranscriptShape, message_hash_head};
use crate::policy::{Admitted, Right, Signs};

/// What the engine has to do for an admitted request.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Task<'p> {
    /// What to do with the key.
    pub(crate) operation: Operation,
    /// What becomes of an opened ciphertext.
    pub(crate) exchange: Option<KeyExchange>,
    /// What goes in.
    pub(crate) input: Input<'p>,
}

/// The input of an operation: what the client sent, or what was made from it here.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Input<'p> {
    /// The payload as it is.
    Payload(&'p [u8]),
    /// The hash value of what is signed.
    Digest(Digest),
    /// The string that a transcript leads to, for schemes that sign messages.
    Message(CertificateVerify),
}

impl AsRef<[u8]> for Input<'_> {
    fn as_ref(&self) -> &[u8] {
        match self {
            Self::Payload(payload) => payload,
            Self::Digest(digest) => digest.as_ref(),
            Self::Message(string) => string.as_ref(),
        }
    }
}

/// What the engine has to do for an admitted request.
///
/// # Errors
///
/// [`ErrorCode::CryptoFailure`] when the key is of another type than the opcode needs, or the
/// input has a length that no caller of that opcode can mean. A stock server signs anyway, which
/// makes an oracle of it.
pub(crate) fn translate<'p>(admitted: &Admitted, payload: &'p [u8]) -> Result<Task<'p>, ErrorCode> {
    let task = match admitted.signs() {
        Some(signs) => signing(signs, payload).ok_or(ErrorCode::CryptoFailure)?,
        None if admitted.right().is_key_exchange() => {
            opening(admitted.right(), payload).ok_or(ErrorCode::CryptoFailure)?
        }
        None => Task {
            operation: operation(admitted.opcode()).ok_or(ErrorCode::BadOpcode)?,
            exchange: None,
            input: Input::Payload(payload),
        },
    };
    if !admitted.key().supports(task.operation) {
        return Err(ErrorCode::CryptoFailure);
    }
    // What anybody can see is wrong is never recorded as opened.
    if task.exchange.is_some() && !admitted.key().accepts_raw_input(task.input.as_ref()) {
        return Err(ErrorCode::CryptoFailure);
    }
    if hash(task.operation).is_some_and(|hash| task.input.as_ref().len() != hash.len()) {
        return Err(ErrorCode::CryptoFailure);
    }
    Ok(task)
}

/// How to sign a string or a handshake that policy has read.
fn signing(signs: Signs, payload: &[u8]) -> Option<Task<'_>> {
    let operation = operation_of(signs.scheme)?;
    let made = match signs.transcript {
        None => None,
        Some(shape) => Some(CertificateVerify::of(
            transcript_hash(shape, payload)?.as_ref(),
        )?),
    };
    let input = match (hash(operation), made) {
        (Some(hash), Some(string)) => Input::Digest(hash.digest(string.as_ref())?),
        (Some(hash), None) => Input::Digest(hash.digest(payload)?),
        (None, Some(string)) => Input::Message(string),
        (None, None) => Input::Payload(payload),
    };
    Some(Task {
        operation,
        exchange: None,
        input,
    })
}

/// How to sign a string that was made here. `None` for a scheme that is not served.
pub(crate) fn signing_of(scheme: SignatureScheme, message: &[u8]) -> Option<Task<'_>> {
    let operation = operation_of(scheme)?;
    let input = match hash(operation) {
        Some(hash) => Input::Digest(hash.digest(message)?),
        None => Input::Payload(message),
    };
    Some(Task {
        operation,
        exchange: None,
        input,
    })
}

/// How to open a key exchange under a right.
fn opening(right: Right, payload: &[u8]) -> Option<Task<'_>> {
    let (exchange, ciphertext) = match right {
        Right::DecryptCompatible => (KeyExchange::Compatible, payload),
        Right::DecryptPremaster => {
            let request = PremasterRequest::decode(payload).ok()?;
            let client_version = request.client_version;
            (
                KeyExchange::Premaster { client_version },
                request.ciphertext,
            )
        }
        Right::Tls12Master => {
            let request = MasterRequest::decode(payload).ok()?;
            (master(&request)?, request.ciphertext)
        }
        _ => return None,
    };
    Some(Task {
        operation: Operation::RsaPrivate,
        exchange: Some(exchange),
        input: Input::Payload(ciphertext),
    })
}

fn master(request: &MasterRequest<'_>) -> Option<KeyExchange> {
    Some(KeyExchange::Master {
        client_version: request.client_version,
        prf: match request.prf {
            PrfHash::Sha256 => Prf::Sha256,
            PrfHash::Sha384 => Prf::Sha384,
        },
        seed: match (request.seed, request.prf) {
            (MasterSeed::Randoms(randoms), _) => Seed::Randoms(*randoms),
            (MasterSeed::SessionHash(hash), PrfHash::Sha256) => {
                Seed::SessionHash256(hash.try_into().ok()?)
            }
            (MasterSeed::SessionHash(hash), PrfHash::Sha384) => {
                Seed::SessionHash384(hash.try_into().ok()?)
            }
        },
    })
}

/// The hash value of a handshake. Only one with a retry, which few handshakes have, is copied.
fn transcript_hash(shape: TranscriptShape, handshake: &[u8]) -> Option<Digest> {
    let hash = match shape.hash {
        TranscriptHash::Sha256 => Hash::Sha256,
        TranscriptHash::Sha384 => Hash::Sha384,
    };
    let Some(length) = shape.replaced else {
        return hash.digest(handshake);
    };
    let (first, rest) = handshake.split_at_checked(length)?;
    let mut hashed = Vec::with_capacity(4 + hash.len() + rest.len());
    hashed.extend_from_slice(&message_hash_head(shape.hash));
    hashed.extend_from_slice(hash.digest(first)?.as_ref());
    hashed.extend_from_slice(rest);
    hash.digest(&hashed)
}

/// The operation of a signature scheme.
fn operation_of(scheme: SignatureScheme) -> Option<Operation> {
    Some(match scheme {
        SignatureScheme::RsaPkcs1Sha256 => Operation::RsaPkcs1Sign(Hash::Sha256),
        SignatureScheme::RsaPkcs1Sha384 => Operation::RsaPkcs1Sign(Hash::Sha384),
        SignatureScheme::RsaPkcs1Sha512 => Operation::RsaPkcs1Sign(Hash::Sha512),
        SignatureScheme::RsaPssSha256 => Operation::RsaPssSign(Hash::Sha256),
        SignatureScheme::RsaPssSha384 => Operation::RsaPssSign(Hash::Sha384),
        SignatureScheme::RsaPssSha512 => Operation::RsaPssSign(Hash::Sha512),
        SignatureScheme::EcdsaP256Sha256 => Operation::EcdsaSign(Hash::Sha256),
        SignatureScheme::EcdsaP384Sha384 => Operation::EcdsaSign(Hash::Sha384),
        SignatureScheme::Ed25519 => Operation::Ed25519Sign,
        SignatureScheme::MlDsa44 | SignatureScheme::MlDsa65 | SignatureScheme::MlDsa87 => {
            Operation::MlDsaSign
        }
        // A scheme that the codec learns later is not served until it stands here.
        _ => return None,
    })
}

/// The operation of an opcode, if it uses a private key as it is.
fn operation(opcode: Opcode) -> Option<Operation> {
    Some(match opcode {
        Opcode::RsaDecrypt | Opcode::RsaDecryptRaw => Operation::RsaPrivate,
        Opcode::RsaSignMd5Sha1 => Operation::RsaPkcs1Sign(Hash::Md5Sha1),
        Opcode::RsaSignSha1 => Operation::RsaPkcs1Sign(Hash::Sha1),
        Opcode::RsaSignSha224 => Operation::RsaPkcs1Sign(Hash::Sha224),
        Opcode::RsaSignSha256 => Operation::RsaPkcs1Sign(Hash::Sha256),
        Opcode::RsaSignSha384 => Operation::RsaPkcs1Sign(Hash::Sha384),
        Opcode::RsaSignSha512 => Operation::RsaPkcs1Sign(Hash::Sha512),
        Opcode::RsaPssSignSha256 => Operation::RsaPssSign(Hash::Sha256),
        Opcode::RsaPssSignSha384 => Operation::RsaPssSign(Hash::Sha384),
        Opcode::RsaPssSignSha512 => Operation::RsaPssSign(Hash::Sha512),
        Opcode::EcdsaSignMd5Sha1 => Operation::EcdsaSign(Hash::Md5Sha1),
        Opcode::EcdsaSignSha1 => Operation::EcdsaSign(Hash::Sha1),
        Opcode::EcdsaSignSha224 => Operation::EcdsaSign(Hash::Sha224),
        Opcode::EcdsaSignSha256 => Operation::EcdsaSign(Hash::Sha256),
        Opcode::EcdsaSignSha384 => Operation::EcdsaSign(Hash::Sha384),
        Opcode::EcdsaSignSha512 => Operation::EcdsaSign(Hash::Sha512),
        Opcode::Ed25519Sign => Operation::Ed25519Sign,
        _ => return None,
    })
}

fn hash(operation: Operation) -> Option<Hash> {
    match operation {
        Operation::RsaPkcs1Sign(hash)
        | Operation::RsaPssSign(hash)
        | Operation::EcdsaSign(hash) => Some(hash),
        Operation::RsaPrivate | Operation::Ed25519Sign | Operation::MlDsaSign => None,
    }
}

#[cfg(test)]
mod tests;
