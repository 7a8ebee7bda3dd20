//! The two calls of an operation, made directly: one round trip to the device instead of two.
//!
//! `cryptoki` asks a module for the length of a signature before it asks for the signature. A module that
//! forwards over a network pays a round trip for each. Here the buffer is always long enough, so the
//! question is not asked. Everything else, being rare, goes through `cryptoki`.

#![expect(
    unsafe_code,
    reason = "loads a module and calls its C functions; the one file of this folder that does"
)]

use std::fmt;
use std::path::Path;

use cryptoki::context::{Function, Pkcs11};
use cryptoki::error::{Error, Rv};
use cryptoki::mechanism::Mechanism;
use cryptoki::session::Session;
use cryptoki_sys as sys;

use super::failure::Failure;

/// A loaded module: `cryptoki`'s handle, and the entry points that are called directly.
pub(super) struct Raw {
    context: Pkcs11,
    sign_init: sys::CK_C_SignInit,
    sign: sys::CK_C_Sign,
    decrypt_init: sys::CK_C_DecryptInit,
    decrypt: sys::CK_C_Decrypt,
    /// Keeps the library loaded for as long as its functions can be called.
    _library: sys::Pkcs11,
}

impl fmt::Debug for Raw {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Raw").finish_non_exhaustive()
    }
}

/// Which of the two functions an operation uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Call {
    /// `C_SignInit` and `C_Sign`.
    Sign,
    /// `C_DecryptInit` and `C_Decrypt`.
    Decrypt,
}

impl Raw {
    /// Loads the shared library. It runs its own initialisers, so the path must come from the operator.
    pub(super) fn load(path: &Path) -> Result<Self, Failure> {
        let context = Pkcs11::new(path)?;
        // SAFETY: loading runs the library's initialisers, and `Pkcs11::new` has just done so for this
        // very path: the loader returns the library that is already there.
        let library = unsafe { sys::Pkcs11::new(path) }.map_err(Error::LibraryLoading)?;
        let entry = library
            .C_GetFunctionList
            .as_ref()
            .map_err(|_| Error::MissingSymbol("C_GetFunctionList"))?;
        let mut list = std::ptr::null_mut();
        // SAFETY: PKCS#11 lets this be called before C_Initialize, and it writes one pointer.
        let code = unsafe { entry(&raw mut list) };
        Rv::from(code).into_result(Function::GetFunctionList)?;
        // SAFETY: on success the pointer is null or leads to the module's list, which is a constant of the
        // library; the four first-version functions read here are in every version of that list.
        let list = unsafe { list.as_ref() }.ok_or(Error::NullFunctionPointer)?;
        Ok(Self {
            sign_init: list.C_SignInit,
            sign: list.C_Sign,
            decrypt_init: list.C_DecryptInit,
            decrypt: list.C_Decrypt,
            context,
            _library: library,
        })
    }

    /// The handle for everything that is not on the path of a request.
    pub(super) const fn context(&self) -> &Pkcs11 {
        &self.context
    }

    /// One operation: starts it and finishes it. Returns how many bytes of `out` the module filled.
    ///
    /// `session` must be of this module; a key handle that the module does not know is an error of its.
    pub(super) fn run(
        &self,
        call: Call,
        session: &Session,
        mechanism: &Mechanism<'_>,
        key: u64,
        input: &[u8],
        out: &mut [u8],
    ) -> Result<usize, Failure> {
        let mut mechanism = sys::CK_MECHANISM::from(mechanism);
        let key: sys::CK_OBJECT_HANDLE = key;
        let (init, begun, run, done) = match call {
            Call::Sign => (
                self.sign_init,
                Function::SignInit,
                self.sign,
                Function::Sign,
            ),
            Call::Decrypt => (
                self.decrypt_init,
                Function::DecryptInit,
                self.decrypt,
                Function::Decrypt,
            ),
        };
        let init = init.ok_or(Error::NullFunctionPointer)?;
        let run = run.ok_or(Error::NullFunctionPointer)?;
        // SAFETY: the function is of the library that `self` keeps loaded. It reads the mechanism, whose
        // parameter, if any, `cryptoki` points into the value that our caller lends for this call.
        let code = unsafe { init(session.handle(), &raw mut mechanism, key) };
        Rv::from(code).into_result(begun)?;
        let given = sys::CK_ULONG::try_from(input.len()).map_err(Error::TryFromInt)?;
        let mut written = sys::CK_ULONG::try_from(out.len()).map_err(Error::TryFromInt)?;
        // SAFETY: the module reads `given` bytes of `input`, which it must not change whatever its C
        // prototype says, and writes at most `written` bytes to `out`; both are live slices of that length.
        let code = unsafe {
            run(
                session.handle(),
                input.as_ptr().cast_mut(),
                given,
                out.as_mut_ptr(),
                &raw mut written,
            )
        };
        Rv::from(code).into_result(done)?;
        let written = usize::try_from(written).map_err(Error::TryFromInt)?;
        // A module that claims more than the buffer holds has broken the contract above.
        if written > out.len() {
            return Err(Error::InvalidValue.into());
        }
        Ok(written)
    }
}
