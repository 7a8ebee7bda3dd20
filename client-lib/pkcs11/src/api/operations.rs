//! Signing and decrypting.

use std::sync::Arc;

use cryptoki_sys as ck;
use cryptoki_sys::{
    CK_BYTE, CK_MECHANISM, CK_OBJECT_HANDLE, CK_RSA_PKCS_PSS_PARAMS, CK_RV, CK_SESSION_HANDLE,
    CK_ULONG,
};

use super::boundary::{Output, elements, entry, null};
use crate::failure::Failure;
use crate::library;
use crate::mechanism::{Decryption, PssParameters, Signing};
use crate::object::{Class, Object};

pub(super) unsafe extern "C" fn sign_init(
    session: CK_SESSION_HANDLE,
    mechanism: *mut CK_MECHANISM,
    key: CK_OBJECT_HANDLE,
) -> CK_RV {
    entry("C_SignInit", || {
        let library = library::current()?;
        // SAFETY: the host's mechanism, by the contract of every entry.
        let mechanism = unsafe { read_mechanism(mechanism) }?;
        let object = private_key(library.object(key))?;
        // SAFETY: as above.
        let pss = unsafe { pss_parameters(&mechanism) }?;
        let signing = Signing::new(mechanism.mechanism, pss, &object.key.kind)?;
        let key = Arc::clone(&object.key);
        library.with_session(session, |session| session.begin_signature(signing, key))
    })
}

pub(super) unsafe extern "C" fn sign(
    session: CK_SESSION_HANDLE,
    data: *mut CK_BYTE,
    data_length: CK_ULONG,
    signature: *mut CK_BYTE,
    signature_length: *mut CK_ULONG,
) -> CK_RV {
    entry("C_Sign", || {
        let library = library::current()?;
        // SAFETY: the host's data, by the contract of every entry.
        let data = unsafe { elements(data, data_length) }?;
        // SAFETY: the host's buffer, by the contract of every entry.
        let output = unsafe { Output::new(signature, signature_length) }?;
        let answer = library.with_session(session, |session| {
            session.sign(&library.remote, Some(data), output.room())
        })?;
        output.give(&answer)
    })
}

pub(super) unsafe extern "C" fn sign_update(
    session: CK_SESSION_HANDLE,
    part: *mut CK_BYTE,
    length: CK_ULONG,
) -> CK_RV {
    entry("C_SignUpdate", || {
        let library = library::current()?;
        // SAFETY: the host's data, by the contract of every entry.
        let part = unsafe { elements(part, length) }?;
        library.with_session(session, |session| session.add_to_signature(part))
    })
}

pub(super) unsafe extern "C" fn sign_final(
    session: CK_SESSION_HANDLE,
    signature: *mut CK_BYTE,
    signature_length: *mut CK_ULONG,
) -> CK_RV {
    entry("C_SignFinal", || {
        let library = library::current()?;
        // SAFETY: the host's buffer, by the contract of every entry.
        let output = unsafe { Output::new(signature, signature_length) }?;
        let answer = library.with_session(session, |session| {
            session.sign(&library.remote, None, output.room())
        })?;
        output.give(&answer)
    })
}

pub(super) unsafe extern "C" fn decrypt_init(
    session: CK_SESSION_HANDLE,
    mechanism: *mut CK_MECHANISM,
    key: CK_OBJECT_HANDLE,
) -> CK_RV {
    entry("C_DecryptInit", || {
        let library = library::current()?;
        // SAFETY: the host's mechanism, by the contract of every entry.
        let mechanism = unsafe { read_mechanism(mechanism) }?;
        let object = private_key(library.object_with_rights(key))?;
        let decryption = Decryption::new(mechanism.mechanism, &object.key.kind, object.opens)?;
        library.with_session(session, |session| {
            session.begin_decryption(decryption, object)
        })
    })
}

pub(super) unsafe extern "C" fn decrypt(
    session: CK_SESSION_HANDLE,
    ciphertext: *mut CK_BYTE,
    ciphertext_length: CK_ULONG,
    plain: *mut CK_BYTE,
    plain_length: *mut CK_ULONG,
) -> CK_RV {
    entry("C_Decrypt", || {
        let library = library::current()?;
        // SAFETY: the host's data, by the contract of every entry.
        let ciphertext = unsafe { elements(ciphertext, ciphertext_length) }?;
        // SAFETY: the host's buffer, by the contract of every entry.
        let output = unsafe { Output::new(plain, plain_length) }?;
        let answer = library.with_session(session, |session| {
            session.decrypt(&library.remote, ciphertext, output.room())
        })?;
        output.give(&answer)
    })
}

fn private_key(found: Result<Arc<Object>, Failure>) -> Result<Arc<Object>, Failure> {
    let object = found.map_err(|failure| Failure::new(ck::CKR_KEY_HANDLE_INVALID, failure.why))?;
    if object.class == Class::PrivateKey {
        return Ok(object);
    }
    let why = "the handle is that of an object other than a private key";
    Err(Failure::new(ck::CKR_KEY_HANDLE_INVALID, why))
}

/// # Safety
///
/// `mechanism` is null or valid for reading.
unsafe fn read_mechanism(mechanism: *mut CK_MECHANISM) -> Result<CK_MECHANISM, Failure> {
    if mechanism.is_null() {
        return Err(null());
    }
    // SAFETY: not null, so valid by this function's contract.
    Ok(unsafe { mechanism.read() })
}

/// The parameters of PSS; `None` for another mechanism.
///
/// # Safety
///
/// The mechanism's parameter is null, or valid for reading as many bytes as it says.
unsafe fn pss_parameters(mechanism: &CK_MECHANISM) -> Result<Option<PssParameters>, Failure> {
    if mechanism.mechanism != ck::CKM_RSA_PKCS_PSS {
        return Ok(None);
    }
    let length = usize::try_from(mechanism.ulParameterLen);
    if mechanism.pParameter.is_null() || length != Ok(size_of::<CK_RSA_PKCS_PSS_PARAMS>()) {
        let why = "PSS without its parameters";
        return Err(Failure::new(ck::CKR_MECHANISM_PARAM_INVALID, why));
    }
    let parameters = mechanism.pParameter.cast::<CK_RSA_PKCS_PSS_PARAMS>();
    // SAFETY: valid for as many bytes as the structure has; the host may have it unaligned.
    let parameters = unsafe { parameters.read_unaligned() };
    Ok(Some(PssParameters {
        hash: parameters.hashAlg,
        mask: parameters.mgf,
        salt_bytes: parameters.sLen,
    }))
}
