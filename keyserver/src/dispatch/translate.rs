//! The one place that maps the protocol's opcodes to the engine's operations.

use accel::{Hash, Operation};
use keyless_protocol::{ErrorCode, Opcode};

use crate::policy::Admitted;

/// What the engine has to do for an admitted request.
///
/// # Errors
///
/// [`ErrorCode::CryptoFailure`] when the key is of another type than the opcode needs, or the
/// input has a length that no caller of that opcode can mean. A stock server signs anyway, which
/// makes an oracle of it.
pub(crate) fn translate(admitted: &Admitted, payload: &[u8]) -> Result<Operation, ErrorCode> {
    let operation = operation(admitted.opcode()).ok_or(ErrorCode::BadOpcode)?;
    if !admitted.key().supports(operation) {
        return Err(ErrorCode::CryptoFailure);
    }
    if hash(operation).is_some_and(|hash| payload.len() != hash.len()) {
        return Err(ErrorCode::CryptoFailure);
    }
    Ok(operation)
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
