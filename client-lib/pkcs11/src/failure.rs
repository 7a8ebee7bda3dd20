//! Why a call failed: a return code for the host, and words for whoever debugs it.

use std::borrow::Cow;

use cryptoki_sys::{
    CK_RV, CKR_ARGUMENTS_BAD, CKR_DATA_LEN_RANGE, CKR_DEVICE_ERROR, CKR_ENCRYPTED_DATA_INVALID,
    CKR_FUNCTION_FAILED, CKR_GENERAL_ERROR, CKR_KEY_FUNCTION_NOT_PERMITTED,
};
use keyserver_client::{Error, ErrorCode};

/// A failed call. The host sees `code`; `why` goes to the debug log, which is off by default.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) code: CK_RV,
    pub(crate) why: Cow<'static, str>,
}

impl Failure {
    pub(crate) fn new(code: CK_RV, why: impl Into<Cow<'static, str>>) -> Self {
        Self {
            code,
            why: why.into(),
        }
    }

    /// The host called in a way that the standard does not allow.
    pub(crate) fn arguments(why: impl Into<Cow<'static, str>>) -> Self {
        Self::new(CKR_ARGUMENTS_BAD, why)
    }

    /// The module was set up wrong.
    pub(crate) fn configuration(why: impl Into<Cow<'static, str>>) -> Self {
        Self::new(CKR_GENERAL_ERROR, why)
    }

    /// What a failed signature is to the host. Everything that another try may mend is a device
    /// error: hosts give up on the one handshake and go on.
    pub(crate) fn signing(error: &Error) -> Self {
        Self::remote(error, CKR_FUNCTION_FAILED)
    }

    /// As [`Self::signing`], for a decryption.
    pub(crate) fn decrypting(error: &Error) -> Self {
        Self::remote(error, CKR_ENCRYPTED_DATA_INVALID)
    }

    fn remote(error: &Error, crypto_failure: CK_RV) -> Self {
        let code = match error {
            Error::Refused(ErrorCode::CryptoFailure) => crypto_failure,
            // Servers do not tell a key that they do not have from one that is not granted.
            Error::Refused(
                ErrorCode::KeyNotFound
                | ErrorCode::Denied
                | ErrorCode::KeyDisabled
                | ErrorCode::BadOpcode,
            ) => CKR_KEY_FUNCTION_NOT_PERMITTED,
            Error::Input(_) => CKR_DATA_LEN_RANGE,
            _ => CKR_DEVICE_ERROR,
        };
        Self::new(code, error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_may_pass_is_a_device_error_and_what_may_not_is_named() {
        let code = |error| Failure::signing(&error).code;
        assert_eq!(code(Error::Busy { retry_after: None }), CKR_DEVICE_ERROR);
        assert_eq!(code(Error::Closed), CKR_DEVICE_ERROR);
        let denied = Error::Refused(ErrorCode::Denied);
        assert_eq!(code(denied), CKR_KEY_FUNCTION_NOT_PERMITTED);
        let bad = Error::Refused(ErrorCode::CryptoFailure);
        assert_eq!(code(bad.clone()), CKR_FUNCTION_FAILED);
        assert_eq!(Failure::decrypting(&bad).code, CKR_ENCRYPTED_DATA_INVALID);
    }
}
