//! What a module's return codes mean, and what is done about each.
//!
//! | class | what is done |
//! |---|---|
//! | caller | the request is answered with the error; the session is kept |
//! | session | the session is dropped, another opened, the operation retried once |
//! | login | the slot logs in again, finds its keys again, checks them, the operation is retried once |
//! | busy | the concurrency limit shrinks; the operation is retried with growing pauses until its deadline |
//! | slot | counted by the breaker; another slot that holds the key takes over |
//! | library | the module is finalized and initialized again once nobody uses it; one retry |
//! | terminal | the slot stays shut until its PIN is changed: tokens lock after a few wrong ones |
//!
//! A login that fails with a code outside the standard is terminal too, see `keeper.rs`: it may say that the PIN is wrong.

use std::fmt;

use cryptoki::error::{Error, RvError};

/// What to do about a return code.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Class {
    /// The request does not suit the key or the mechanism.
    Caller,
    /// This session is no longer usable.
    Session,
    /// The login is gone, or with it the handles.
    Login,
    /// The device has no room just now.
    Busy,
    /// The device or token is in trouble.
    Slot,
    /// The module has forgotten that it was initialized.
    Library,
    /// A further attempt could lock the token.
    Terminal,
}

/// A call that failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Failure {
    /// How metrics and messages name it: `CKR_PIN_INCORRECT`, or a word of ours.
    pub(super) name: String,
    /// What to do about it.
    pub(super) class: Class,
    /// For the class `Caller`: whether the input was at fault, and not the key's rights.
    pub(super) input: bool,
}

impl Failure {
    /// Something a module said that makes no sense, or nothing at all.
    pub(super) fn slot(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            class: Class::Slot,
            input: false,
        }
    }
}

impl Failure {
    /// Whether the session itself is gone, so that its number may be another's by now.
    pub(super) fn says_session_is_gone(&self) -> bool {
        [
            "CKR_SESSION_HANDLE_INVALID",
            "CKR_SESSION_CLOSED",
            "CKR_DEVICE_REMOVED",
            "CKR_TOKEN_NOT_PRESENT",
            "CKR_CRYPTOKI_NOT_INITIALIZED",
        ]
        .contains(&&*self.name)
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        match error {
            Error::Pkcs11(code, _) => Self {
                name: name(code),
                class: classify(code),
                input: matches!(
                    code,
                    RvError::DataLenRange
                        | RvError::DataInvalid
                        | RvError::EncryptedDataInvalid
                        | RvError::EncryptedDataLenRange
                ),
            },
            // The loader's own words tell what is wrong with the file.
            Error::LibraryLoading(error) => Self::slot(&format!("not loaded: {error}")),
            Error::NullFunctionPointer => Self::slot("a function is missing"),
            Error::MissingSymbol(symbol) => Self::slot(&format!("{symbol} is missing")),
            _ => Self::slot("answer not understood"),
        }
    }
}

/// The table above. A code that is not in it, a vendor's among them, counts against the slot: the breaker
/// and another slot are the safe answer to what is not understood.
const fn classify(code: RvError) -> Class {
    match code {
        RvError::DataLenRange
        | RvError::DataInvalid
        | RvError::EncryptedDataInvalid
        | RvError::EncryptedDataLenRange
        | RvError::MechanismInvalid
        | RvError::MechanismParamInvalid
        | RvError::KeyFunctionNotPermitted
        | RvError::KeyTypeInconsistent
        | RvError::KeySizeRange => Class::Caller,
        RvError::SessionHandleInvalid
        | RvError::SessionClosed
        | RvError::OperationActive
        | RvError::OperationNotInitialized => Class::Session,
        RvError::UserNotLoggedIn | RvError::KeyHandleInvalid | RvError::ObjectHandleInvalid => {
            Class::Login
        }
        RvError::FunctionFailed
        | RvError::DeviceMemory
        | RvError::HostMemory
        | RvError::SessionCount => Class::Busy,
        RvError::CryptokiNotInitialized => Class::Library,
        RvError::PinIncorrect
        | RvError::PinInvalid
        | RvError::PinLenRange
        | RvError::PinLocked
        | RvError::PinExpired
        | RvError::UserPinNotInitialized => Class::Terminal,
        _ => Class::Slot,
    }
}

/// `PinIncorrect` as the standard writes it: `CKR_PIN_INCORRECT`.
fn name(code: RvError) -> String {
    match code {
        RvError::VendorDefined(code) => format!("CKR_VENDOR_DEFINED_{code:#x}"),
        RvError::UnknownErrorCode(code) => format!("CKR_{code:#x}"),
        known => {
            let mut name = String::from("CKR");
            for letter in format!("{known:?}").chars() {
                if letter.is_ascii_uppercase() {
                    name.push('_');
                }
                name.push(letter.to_ascii_uppercase());
            }
            name
        }
    }
}

#[cfg(test)]
mod tests {
    use cryptoki::context::Function;

    use super::*;

    #[test]
    fn every_row_of_the_table_has_its_class() {
        for (class, codes) in [
            (
                Class::Caller,
                &[
                    RvError::DataLenRange,
                    RvError::DataInvalid,
                    RvError::MechanismParamInvalid,
                    RvError::KeyFunctionNotPermitted,
                ][..],
            ),
            (
                Class::Session,
                &[
                    RvError::SessionHandleInvalid,
                    RvError::SessionClosed,
                    RvError::OperationActive,
                    RvError::OperationNotInitialized,
                ],
            ),
            (
                Class::Login,
                &[
                    RvError::UserNotLoggedIn,
                    RvError::KeyHandleInvalid,
                    RvError::ObjectHandleInvalid,
                ],
            ),
            (
                Class::Busy,
                &[
                    RvError::FunctionFailed,
                    RvError::DeviceMemory,
                    RvError::HostMemory,
                    RvError::SessionCount,
                ],
            ),
            (
                Class::Slot,
                &[
                    RvError::DeviceError,
                    RvError::DeviceRemoved,
                    RvError::TokenNotPresent,
                    RvError::TokenNotRecognized,
                    RvError::SlotIdInvalid,
                    RvError::GeneralError,
                    RvError::VendorDefined(0x8000_0001),
                ],
            ),
            (Class::Library, &[RvError::CryptokiNotInitialized]),
            (
                Class::Terminal,
                &[
                    RvError::PinIncorrect,
                    RvError::PinLocked,
                    RvError::PinExpired,
                ],
            ),
        ] {
            for code in codes {
                let failure = Failure::from(Error::Pkcs11(*code, Function::Sign));
                assert_eq!(failure.class, class, "{code:?}");
            }
        }
    }

    #[test]
    fn names_are_those_of_the_standard() {
        assert_eq!(name(RvError::PinIncorrect), "CKR_PIN_INCORRECT");
        assert_eq!(name(RvError::SlotIdInvalid), "CKR_SLOT_ID_INVALID");
        assert_eq!(
            name(RvError::VendorDefined(0x8000_0001)),
            "CKR_VENDOR_DEFINED_0x80000001"
        );
    }
}
