//! The 68 functions of PKCS#11 2.40: each asks [`faults`] what is to go wrong, and calls the real module.
//!
//! Nearly all are made by one macro. Written out are those that a fault changes: the list of slots, what a token is,
//! the opening and closing of sessions, the login, and the two operations.

#![expect(
    unsafe_code,
    reason = "a C interface between two others, for tests only"
)]
#![expect(non_snake_case, reason = "the names of the standard")]

mod bare;
mod control;
mod faults;
mod install;
mod kryoptic;
mod sleep;
mod softhsm;

use std::ffi::{CStr, OsStr, c_void};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::sync::{OnceLock, PoisonError, RwLock};

use cryptoki_sys::{
    CK_ATTRIBUTE, CK_BBOOL, CK_BYTE, CK_FALSE, CK_FLAGS, CK_FUNCTION_LIST, CK_INFO, CK_MECHANISM,
    CK_MECHANISM_INFO, CK_MECHANISM_TYPE, CK_NOTIFY, CK_OBJECT_HANDLE, CK_RV, CK_SESSION_HANDLE,
    CK_SESSION_INFO, CK_SLOT_ID, CK_SLOT_INFO, CK_TOKEN_INFO, CK_ULONG, CK_USER_TYPE, CK_UTF8CHAR,
    CK_VERSION, CKR_ARGUMENTS_BAD, CKR_FUNCTION_NOT_SUPPORTED, CKR_GENERAL_ERROR, CKR_OK,
    CKR_PIN_INCORRECT, CKR_SESSION_COUNT, CKR_SESSION_HANDLE_INVALID, Pkcs11,
};

pub use bare::bare_loop;
pub use control::Control;
pub use install::{Installed, install};
pub use kryoptic::Kryoptic;
pub use softhsm::SoftHsm;

use faults::{FAULTS, Verdict};

/// The real module.
static REAL: OnceLock<Option<Real>> = OnceLock::new();

struct Real {
    functions: CK_FUNCTION_LIST,
    /// Keeps it loaded.
    _library: Pkcs11,
}

/// Held for reading within each call into the real module, and for writing by what happens behind its users'
/// backs: a device may forget at any time, but SoftHSM crashes when it is finalized within a call.
static CALLS: RwLock<()> = RwLock::new(());

fn real() -> Option<&'static CK_FUNCTION_LIST> {
    Some(&REAL.get_or_init(load).as_ref()?.functions)
}

/// Reads the configuration beside this library and loads what it names.
fn load() -> Option<Real> {
    let own = own_path()?;
    let text = std::fs::read_to_string(own.with_extension("conf")).ok()?;
    let mut module = None;
    for line in text.lines() {
        match line.split_once('=') {
            Some(("module", path)) => module = Some(PathBuf::from(path)),
            Some(("socket", path)) => control::listen(path.into()),
            Some(("do", command)) => {
                let words: Vec<_> = command.split(' ').collect();
                FAULTS.command(&words)?;
            }
            Some((name, value)) => {
                let name = name.strip_prefix("env ")?;
                // SAFETY: the test that loads this module does so before it starts threads that read the
                // environment, as with any module that does the same.
                unsafe { std::env::set_var(name, value) };
            }
            None => return None,
        }
    }
    // SAFETY: loads what the test has named: a PKCS#11 module, whose initialisers are made to run here.
    let library = unsafe { Pkcs11::new(module?) }.ok()?;
    let entry = *library.C_GetFunctionList.as_ref().ok()?;
    let mut list = std::ptr::null_mut();
    // SAFETY: may be called before C_Initialize, and writes one pointer.
    if unsafe { entry(&raw mut list) } != CKR_OK {
        return None;
    }
    // SAFETY: on success the pointer leads to the module's list, a constant as long as it is loaded.
    let functions = *unsafe { list.as_ref() }?;
    Some(Real {
        functions,
        _library: library,
    })
}

/// Where this very copy of the library was loaded from.
fn own_path() -> Option<PathBuf> {
    let mut info = libc::Dl_info {
        dli_fname: std::ptr::null(),
        dli_fbase: std::ptr::null_mut(),
        dli_sname: std::ptr::null(),
        dli_saddr: std::ptr::null_mut(),
    };
    let address: *const OnceLock<Option<Real>> = &raw const REAL;
    // SAFETY: the address is of a static of this library, and `info` is a live structure to write to.
    if unsafe { libc::dladdr(address.cast(), &raw mut info) } == 0 || info.dli_fname.is_null() {
        return None;
    }
    // SAFETY: dladdr has set the name to a string that lives as long as the library is loaded.
    let name = unsafe { CStr::from_ptr(info.dli_fname) };
    Some(PathBuf::from(OsStr::from_bytes(name.to_bytes())))
}

/// The list that programs get.
static LIST: CK_FUNCTION_LIST = function_list();

/// Where programs begin.
///
/// # Safety
///
/// `list` must be null or valid for writing one pointer, as PKCS#11 demands.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn C_GetFunctionList(list: *mut *mut CK_FUNCTION_LIST) -> CK_RV {
    if list.is_null() {
        return CKR_ARGUMENTS_BAD;
    }
    if real().is_none() {
        return CKR_GENERAL_ERROR;
    }
    // SAFETY: not null, and so valid by the duty above. That the list is not to be written to, the standard
    // says, though its type does not.
    unsafe { *list = (&raw const LIST).cast_mut() };
    CKR_OK
}

/// Calls a function of the real module.
macro_rules! call {
    ($name:ident($($argument:expr),*)) => {{
        let _call = CALLS.read().unwrap_or_else(PoisonError::into_inner);
        call_alone!($name($($argument),*))
    }};
}

/// The same for a caller that holds the lock.
macro_rules! call_alone {
    ($name:ident($($argument:expr),*)) => {
        match real().and_then(|real| real.$name) {
            // SAFETY: the arguments are the caller's own, passed on unchanged to the function of the same
            // name: what the standard asks of the caller holds for the callee.
            Some(function) => unsafe { function($($argument),*) },
            None => CKR_FUNCTION_NOT_SUPPORTED,
        }
    };
}

macro_rules! forward {
    (@slot slot $first:ident) => { Some($first) };
    (@slot session $first:ident) => { FAULTS.slot_of($first) };
    (@spoiled slot $first:ident) => { None };
    (@spoiled session $first:ident) => { FAULTS.spoiled($first) };
    ($($kind:ident $name:ident($first:ident: $first_type:ty $(, $argument:ident: $type:ty)*);)*) => {
        $(
            extern "C" fn $name($first: $first_type $(, $argument: $type)*) -> CK_RV {
                match FAULTS.enter(stringify!($name), forward!(@slot $kind $first)) {
                    Verdict::Fail(code) => code,
                    Verdict::Pass => match forward!(@spoiled $kind $first) {
                        Some(code) => code,
                        None => call!($name($first $(, $argument)*)),
                    },
                }
            }
        )*
    };
}

forward! {
    slot C_GetSlotInfo(a: CK_SLOT_ID, b: *mut CK_SLOT_INFO);
    slot C_GetMechanismList(a: CK_SLOT_ID, b: *mut CK_MECHANISM_TYPE, c: *mut CK_ULONG);
    slot C_GetMechanismInfo(a: CK_SLOT_ID, b: CK_MECHANISM_TYPE, c: *mut CK_MECHANISM_INFO);
    slot C_InitToken(a: CK_SLOT_ID, b: *mut CK_UTF8CHAR, c: CK_ULONG, d: *mut CK_UTF8CHAR);
    session C_InitPIN(a: CK_SESSION_HANDLE, b: *mut CK_UTF8CHAR, c: CK_ULONG);
    session C_SetPIN(
        a: CK_SESSION_HANDLE, b: *mut CK_UTF8CHAR, c: CK_ULONG, d: *mut CK_UTF8CHAR, e: CK_ULONG
    );
    session C_GetSessionInfo(a: CK_SESSION_HANDLE, b: *mut CK_SESSION_INFO);
    session C_GetOperationState(a: CK_SESSION_HANDLE, b: *mut CK_BYTE, c: *mut CK_ULONG);
    session C_SetOperationState(
        a: CK_SESSION_HANDLE, b: *mut CK_BYTE, c: CK_ULONG, d: CK_OBJECT_HANDLE,
        e: CK_OBJECT_HANDLE
    );
    session C_Logout(a: CK_SESSION_HANDLE);
    session C_CreateObject(
        a: CK_SESSION_HANDLE, b: *mut CK_ATTRIBUTE, c: CK_ULONG, d: *mut CK_OBJECT_HANDLE
    );
    session C_CopyObject(
        a: CK_SESSION_HANDLE, b: CK_OBJECT_HANDLE, c: *mut CK_ATTRIBUTE, d: CK_ULONG,
        e: *mut CK_OBJECT_HANDLE
    );
    session C_DestroyObject(a: CK_SESSION_HANDLE, b: CK_OBJECT_HANDLE);
    session C_GetObjectSize(a: CK_SESSION_HANDLE, b: CK_OBJECT_HANDLE, c: *mut CK_ULONG);
    session C_GetAttributeValue(
        a: CK_SESSION_HANDLE, b: CK_OBJECT_HANDLE, c: *mut CK_ATTRIBUTE, d: CK_ULONG
    );
    session C_SetAttributeValue(
        a: CK_SESSION_HANDLE, b: CK_OBJECT_HANDLE, c: *mut CK_ATTRIBUTE, d: CK_ULONG
    );
    session C_FindObjectsInit(a: CK_SESSION_HANDLE, b: *mut CK_ATTRIBUTE, c: CK_ULONG);
    session C_FindObjects(
        a: CK_SESSION_HANDLE, b: *mut CK_OBJECT_HANDLE, c: CK_ULONG, d: *mut CK_ULONG
    );
    session C_FindObjectsFinal(a: CK_SESSION_HANDLE);
    session C_EncryptInit(a: CK_SESSION_HANDLE, b: *mut CK_MECHANISM, c: CK_OBJECT_HANDLE);
    session C_Encrypt(
        a: CK_SESSION_HANDLE, b: *mut CK_BYTE, c: CK_ULONG, d: *mut CK_BYTE, e: *mut CK_ULONG
    );
    session C_EncryptUpdate(
        a: CK_SESSION_HANDLE, b: *mut CK_BYTE, c: CK_ULONG, d: *mut CK_BYTE, e: *mut CK_ULONG
    );
    session C_EncryptFinal(a: CK_SESSION_HANDLE, b: *mut CK_BYTE, c: *mut CK_ULONG);
    session C_DecryptInit(a: CK_SESSION_HANDLE, b: *mut CK_MECHANISM, c: CK_OBJECT_HANDLE);
    session C_DecryptUpdate(
        a: CK_SESSION_HANDLE, b: *mut CK_BYTE, c: CK_ULONG, d: *mut CK_BYTE, e: *mut CK_ULONG
    );
    session C_DecryptFinal(a: CK_SESSION_HANDLE, b: *mut CK_BYTE, c: *mut CK_ULONG);
    session C_DigestInit(a: CK_SESSION_HANDLE, b: *mut CK_MECHANISM);
    session C_Digest(
        a: CK_SESSION_HANDLE, b: *mut CK_BYTE, c: CK_ULONG, d: *mut CK_BYTE, e: *mut CK_ULONG
    );
    session C_DigestUpdate(a: CK_SESSION_HANDLE, b: *mut CK_BYTE, c: CK_ULONG);
    session C_DigestKey(a: CK_SESSION_HANDLE, b: CK_OBJECT_HANDLE);
    session C_DigestFinal(a: CK_SESSION_HANDLE, b: *mut CK_BYTE, c: *mut CK_ULONG);
    session C_SignInit(a: CK_SESSION_HANDLE, b: *mut CK_MECHANISM, c: CK_OBJECT_HANDLE);
    session C_SignUpdate(a: CK_SESSION_HANDLE, b: *mut CK_BYTE, c: CK_ULONG);
    session C_SignFinal(a: CK_SESSION_HANDLE, b: *mut CK_BYTE, c: *mut CK_ULONG);
    session C_SignRecoverInit(a: CK_SESSION_HANDLE, b: *mut CK_MECHANISM, c: CK_OBJECT_HANDLE);
    session C_SignRecover(
        a: CK_SESSION_HANDLE, b: *mut CK_BYTE, c: CK_ULONG, d: *mut CK_BYTE, e: *mut CK_ULONG
    );
    session C_VerifyInit(a: CK_SESSION_HANDLE, b: *mut CK_MECHANISM, c: CK_OBJECT_HANDLE);
    session C_Verify(
        a: CK_SESSION_HANDLE, b: *mut CK_BYTE, c: CK_ULONG, d: *mut CK_BYTE, e: CK_ULONG
    );
    session C_VerifyUpdate(a: CK_SESSION_HANDLE, b: *mut CK_BYTE, c: CK_ULONG);
    session C_VerifyFinal(a: CK_SESSION_HANDLE, b: *mut CK_BYTE, c: CK_ULONG);
    session C_VerifyRecoverInit(a: CK_SESSION_HANDLE, b: *mut CK_MECHANISM, c: CK_OBJECT_HANDLE);
    session C_VerifyRecover(
        a: CK_SESSION_HANDLE, b: *mut CK_BYTE, c: CK_ULONG, d: *mut CK_BYTE, e: *mut CK_ULONG
    );
    session C_DigestEncryptUpdate(
        a: CK_SESSION_HANDLE, b: *mut CK_BYTE, c: CK_ULONG, d: *mut CK_BYTE, e: *mut CK_ULONG
    );
    session C_DecryptDigestUpdate(
        a: CK_SESSION_HANDLE, b: *mut CK_BYTE, c: CK_ULONG, d: *mut CK_BYTE, e: *mut CK_ULONG
    );
    session C_SignEncryptUpdate(
        a: CK_SESSION_HANDLE, b: *mut CK_BYTE, c: CK_ULONG, d: *mut CK_BYTE, e: *mut CK_ULONG
    );
    session C_DecryptVerifyUpdate(
        a: CK_SESSION_HANDLE, b: *mut CK_BYTE, c: CK_ULONG, d: *mut CK_BYTE, e: *mut CK_ULONG
    );
    session C_GenerateKey(
        a: CK_SESSION_HANDLE, b: *mut CK_MECHANISM, c: *mut CK_ATTRIBUTE, d: CK_ULONG,
        e: *mut CK_OBJECT_HANDLE
    );
    session C_GenerateKeyPair(
        a: CK_SESSION_HANDLE, b: *mut CK_MECHANISM, c: *mut CK_ATTRIBUTE, d: CK_ULONG,
        e: *mut CK_ATTRIBUTE, f: CK_ULONG, g: *mut CK_OBJECT_HANDLE, h: *mut CK_OBJECT_HANDLE
    );
    session C_WrapKey(
        a: CK_SESSION_HANDLE, b: *mut CK_MECHANISM, c: CK_OBJECT_HANDLE, d: CK_OBJECT_HANDLE,
        e: *mut CK_BYTE, f: *mut CK_ULONG
    );
    session C_UnwrapKey(
        a: CK_SESSION_HANDLE, b: *mut CK_MECHANISM, c: CK_OBJECT_HANDLE, d: *mut CK_BYTE,
        e: CK_ULONG, f: *mut CK_ATTRIBUTE, g: CK_ULONG, h: *mut CK_OBJECT_HANDLE
    );
    session C_DeriveKey(
        a: CK_SESSION_HANDLE, b: *mut CK_MECHANISM, c: CK_OBJECT_HANDLE, d: *mut CK_ATTRIBUTE,
        e: CK_ULONG, f: *mut CK_OBJECT_HANDLE
    );
    session C_SeedRandom(a: CK_SESSION_HANDLE, b: *mut CK_BYTE, c: CK_ULONG);
    session C_GenerateRandom(a: CK_SESSION_HANDLE, b: *mut CK_BYTE, c: CK_ULONG);
    session C_GetFunctionStatus(a: CK_SESSION_HANDLE);
    session C_CancelFunction(a: CK_SESSION_HANDLE);
}

/// For the functions that belong to no slot.
macro_rules! forward_without_slot {
    ($($name:ident($($argument:ident: $type:ty),*);)*) => {
        $(
            extern "C" fn $name($($argument: $type),*) -> CK_RV {
                match FAULTS.enter(stringify!($name), None) {
                    Verdict::Fail(code) => code,
                    Verdict::Pass => call!($name($($argument),*)),
                }
            }
        )*
    };
}

forward_without_slot! {
    C_Initialize(a: *mut c_void);
    C_GetInfo(a: *mut CK_INFO);
    C_WaitForSlotEvent(a: CK_FLAGS, b: *mut CK_SLOT_ID, c: *mut c_void);
}

extern "C" fn C_Finalize(reserved: *mut c_void) -> CK_RV {
    match FAULTS.enter("C_Finalize", None) {
        Verdict::Fail(code) => code,
        Verdict::Pass => {
            FAULTS.closed_everything();
            call!(C_Finalize(reserved))
        }
    }
}

extern "C" fn C_GetSlotList(
    with_token: CK_BBOOL,
    list: *mut CK_SLOT_ID,
    count: *mut CK_ULONG,
) -> CK_RV {
    if let Verdict::Fail(code) = FAULTS.enter("C_GetSlotList", None) {
        return code;
    }
    let code = call!(C_GetSlotList(with_token, list, count));
    if code != CKR_OK || list.is_null() || with_token == CK_FALSE {
        // Asked for the number alone, more places than slots do no harm.
        return code;
    }
    // SAFETY: the real module has succeeded, so `count` is valid.
    let found = usize::try_from(unsafe { *count }).unwrap_or(0);
    // SAFETY: and `list` holds that many slots.
    let slots = unsafe { std::slice::from_raw_parts_mut(list, found) };
    let mut kept = 0;
    for at in 0..slots.len() {
        let Some(slot) = slots
            .get(at)
            .copied()
            .filter(|slot| !FAULTS.is_removed(*slot))
        else {
            continue;
        };
        if let Some(place) = slots.get_mut(kept) {
            *place = slot;
        }
        kept += 1;
    }
    // SAFETY: as above; the number has only become smaller.
    unsafe { *count = CK_ULONG::try_from(kept).unwrap_or(0) };
    CKR_OK
}

extern "C" fn C_GetTokenInfo(slot: CK_SLOT_ID, info: *mut CK_TOKEN_INFO) -> CK_RV {
    if let Verdict::Fail(code) = FAULTS.enter("C_GetTokenInfo", Some(slot)) {
        return code;
    }
    let code = call!(C_GetTokenInfo(slot, info));
    if code == CKR_OK && FAULTS.are_twins() {
        // SAFETY: the real module has succeeded, so `info` is valid.
        if let Some(info) = unsafe { info.as_mut() } {
            info.label = [b't'; 32];
            info.serialNumber = [b'1'; 16];
        }
    }
    code
}

extern "C" fn C_Login(
    session: CK_SESSION_HANDLE,
    user: CK_USER_TYPE,
    pin: *mut CK_UTF8CHAR,
    length: CK_ULONG,
) -> CK_RV {
    if let Verdict::Fail(code) = FAULTS.enter("C_Login", FAULTS.slot_of(session)) {
        return code;
    }
    if let Some(code) = FAULTS.spoiled(session) {
        return code;
    }
    let given = usize::try_from(length).unwrap_or(0);
    // SAFETY: the caller passes a PIN of that length, as the standard asks.
    let given = unsafe { std::slice::from_raw_parts(pin.cast_const(), given) };
    match FAULTS.takes_pin(given) {
        Some(true) => {
            let own = SoftHsm::PIN;
            let length = CK_ULONG::try_from(own.len()).unwrap_or(0);
            call!(C_Login(session, user, own.as_ptr().cast_mut(), length))
        }
        Some(false) => CKR_PIN_INCORRECT,
        None => call!(C_Login(session, user, pin, length)),
    }
}

extern "C" fn C_OpenSession(
    slot: CK_SLOT_ID,
    flags: CK_FLAGS,
    application: *mut c_void,
    notify: CK_NOTIFY,
    session: *mut CK_SESSION_HANDLE,
) -> CK_RV {
    if let Verdict::Fail(code) = FAULTS.enter("C_OpenSession", Some(slot)) {
        return code;
    }
    if !FAULTS.may_open() {
        return CKR_SESSION_COUNT;
    }
    let code = call!(C_OpenSession(slot, flags, application, notify, session));
    // SAFETY: where the real module has succeeded, it has written a handle there.
    let opened = (code == CKR_OK).then(|| unsafe { *session });
    FAULTS.opened(opened, slot);
    code
}

extern "C" fn C_CloseSession(session: CK_SESSION_HANDLE) -> CK_RV {
    match FAULTS.enter("C_CloseSession", FAULTS.slot_of(session)) {
        Verdict::Fail(code) => code,
        Verdict::Pass => {
            FAULTS.closed(session);
            call!(C_CloseSession(session))
        }
    }
}

extern "C" fn C_CloseAllSessions(slot: CK_SLOT_ID) -> CK_RV {
    match FAULTS.enter("C_CloseAllSessions", Some(slot)) {
        Verdict::Fail(code) => code,
        Verdict::Pass => close_all(slot),
    }
}

fn close_all(slot: CK_SLOT_ID) -> CK_RV {
    let _alone = CALLS.write().unwrap_or_else(PoisonError::into_inner);
    FAULTS.closed_all(slot);
    call_alone!(C_CloseAllSessions(slot))
}

/// Logs a slot out behind its user's back.
fn log_out(slot: CK_SLOT_ID) -> CK_RV {
    let _alone = CALLS.write().unwrap_or_else(PoisonError::into_inner);
    match FAULTS.session_in(slot) {
        Some(session) => call_alone!(C_Logout(session)),
        None => CKR_SESSION_HANDLE_INVALID,
    }
}

/// Makes the real module forget everything.
fn forget() -> CK_RV {
    let _alone = CALLS.write().unwrap_or_else(PoisonError::into_inner);
    FAULTS.closed_everything();
    call_alone!(C_Finalize(std::ptr::null_mut()))
}

/// One operation in the device: it waits for its turn, and takes the time it is told to take.
fn operate(
    name: &'static str,
    session: CK_SESSION_HANDLE,
    output: *mut CK_BYTE,
    length: *mut CK_ULONG,
    operation: impl FnOnce() -> CK_RV,
) -> CK_RV {
    if let Verdict::Fail(code) = FAULTS.enter_before_latency(name, FAULTS.slot_of(session)) {
        return code;
    }
    if let Some(code) = FAULTS.spoiled(session) {
        return code;
    }
    let turn = FAULTS.turn(name);
    let code = operation();
    if code == CKR_OK && !output.is_null() && FAULTS.is_wrong() {
        // SAFETY: the real module has succeeded, so `length` is valid.
        let written = usize::try_from(unsafe { *length }).unwrap_or(0);
        // SAFETY: and `output`, which is not null, holds that many bytes.
        let result = unsafe { std::slice::from_raw_parts_mut(output, written) };
        if let Some(last) = result.last_mut() {
            *last ^= 1;
        }
    }
    turn.wait();
    code
}

extern "C" fn C_Sign(
    session: CK_SESSION_HANDLE,
    data: *mut CK_BYTE,
    data_length: CK_ULONG,
    signature: *mut CK_BYTE,
    length: *mut CK_ULONG,
) -> CK_RV {
    operate("C_Sign", session, signature, length, || {
        call!(C_Sign(session, data, data_length, signature, length))
    })
}

extern "C" fn C_Decrypt(
    session: CK_SESSION_HANDLE,
    data: *mut CK_BYTE,
    data_length: CK_ULONG,
    output: *mut CK_BYTE,
    length: *mut CK_ULONG,
) -> CK_RV {
    operate("C_Decrypt", session, output, length, || {
        call!(C_Decrypt(session, data, data_length, output, length))
    })
}

#[expect(clippy::too_many_lines, reason = "a table: one line a function")]
const fn function_list() -> CK_FUNCTION_LIST {
    CK_FUNCTION_LIST {
        version: CK_VERSION {
            major: 2,
            minor: 40,
        },
        C_Initialize: Some(C_Initialize),
        C_Finalize: Some(C_Finalize),
        C_GetInfo: Some(C_GetInfo),
        C_GetFunctionList: Some(C_GetFunctionList),
        C_GetSlotList: Some(C_GetSlotList),
        C_GetSlotInfo: Some(C_GetSlotInfo),
        C_GetTokenInfo: Some(C_GetTokenInfo),
        C_GetMechanismList: Some(C_GetMechanismList),
        C_GetMechanismInfo: Some(C_GetMechanismInfo),
        C_InitToken: Some(C_InitToken),
        C_InitPIN: Some(C_InitPIN),
        C_SetPIN: Some(C_SetPIN),
        C_OpenSession: Some(C_OpenSession),
        C_CloseSession: Some(C_CloseSession),
        C_CloseAllSessions: Some(C_CloseAllSessions),
        C_GetSessionInfo: Some(C_GetSessionInfo),
        C_GetOperationState: Some(C_GetOperationState),
        C_SetOperationState: Some(C_SetOperationState),
        C_Login: Some(C_Login),
        C_Logout: Some(C_Logout),
        C_CreateObject: Some(C_CreateObject),
        C_CopyObject: Some(C_CopyObject),
        C_DestroyObject: Some(C_DestroyObject),
        C_GetObjectSize: Some(C_GetObjectSize),
        C_GetAttributeValue: Some(C_GetAttributeValue),
        C_SetAttributeValue: Some(C_SetAttributeValue),
        C_FindObjectsInit: Some(C_FindObjectsInit),
        C_FindObjects: Some(C_FindObjects),
        C_FindObjectsFinal: Some(C_FindObjectsFinal),
        C_EncryptInit: Some(C_EncryptInit),
        C_Encrypt: Some(C_Encrypt),
        C_EncryptUpdate: Some(C_EncryptUpdate),
        C_EncryptFinal: Some(C_EncryptFinal),
        C_DecryptInit: Some(C_DecryptInit),
        C_Decrypt: Some(C_Decrypt),
        C_DecryptUpdate: Some(C_DecryptUpdate),
        C_DecryptFinal: Some(C_DecryptFinal),
        C_DigestInit: Some(C_DigestInit),
        C_Digest: Some(C_Digest),
        C_DigestUpdate: Some(C_DigestUpdate),
        C_DigestKey: Some(C_DigestKey),
        C_DigestFinal: Some(C_DigestFinal),
        C_SignInit: Some(C_SignInit),
        C_Sign: Some(C_Sign),
        C_SignUpdate: Some(C_SignUpdate),
        C_SignFinal: Some(C_SignFinal),
        C_SignRecoverInit: Some(C_SignRecoverInit),
        C_SignRecover: Some(C_SignRecover),
        C_VerifyInit: Some(C_VerifyInit),
        C_Verify: Some(C_Verify),
        C_VerifyUpdate: Some(C_VerifyUpdate),
        C_VerifyFinal: Some(C_VerifyFinal),
        C_VerifyRecoverInit: Some(C_VerifyRecoverInit),
        C_VerifyRecover: Some(C_VerifyRecover),
        C_DigestEncryptUpdate: Some(C_DigestEncryptUpdate),
        C_DecryptDigestUpdate: Some(C_DecryptDigestUpdate),
        C_SignEncryptUpdate: Some(C_SignEncryptUpdate),
        C_DecryptVerifyUpdate: Some(C_DecryptVerifyUpdate),
        C_GenerateKey: Some(C_GenerateKey),
        C_GenerateKeyPair: Some(C_GenerateKeyPair),
        C_WrapKey: Some(C_WrapKey),
        C_UnwrapKey: Some(C_UnwrapKey),
        C_DeriveKey: Some(C_DeriveKey),
        C_SeedRandom: Some(C_SeedRandom),
        C_GenerateRandom: Some(C_GenerateRandom),
        C_GetFunctionStatus: Some(C_GetFunctionStatus),
        C_CancelFunction: Some(C_CancelFunction),
        C_WaitForSlotEvent: Some(C_WaitForSlotEvent),
    }
}
