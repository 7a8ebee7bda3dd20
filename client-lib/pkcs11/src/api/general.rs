//! Initialising, and what the one slot, its token and its mechanisms are.

use core::ffi::c_void;

use cryptoki_sys as ck;
use cryptoki_sys::{
    CK_BBOOL, CK_C_INITIALIZE_ARGS, CK_INFO, CK_MECHANISM_INFO, CK_MECHANISM_TYPE, CK_RV,
    CK_SLOT_ID, CK_SLOT_INFO, CK_TOKEN_INFO, CK_ULONG, CK_VERSION,
};

use super::boundary::{entry, give_list, write};
use super::list::VERSION_2;
use crate::failure::Failure;
use crate::library::{self, SESSIONS_MAX};
use crate::log;
use crate::mechanism::MECHANISMS;

/// The only slot.
const SLOT: CK_SLOT_ID = 0;

const MANUFACTURER: &str = "keyserver";

/// The package's version; a number too large for a byte is shown as 255.
fn version() -> CK_VERSION {
    let number = |text: &str| text.parse().unwrap_or(u8::MAX);
    CK_VERSION {
        major: number(env!("CARGO_PKG_VERSION_MAJOR")),
        minor: number(env!("CARGO_PKG_VERSION_MINOR")),
    }
}

/// Text as the standard has it: filled up with blanks, and without an end.
fn padded<const N: usize>(text: &str) -> [u8; N] {
    let mut field = [b' '; N];
    for (place, byte) in field.iter_mut().zip(text.bytes()) {
        *place = byte;
    }
    field
}

pub(super) fn check_slot(slot: CK_SLOT_ID) -> Result<(), Failure> {
    if slot == SLOT {
        Ok(())
    } else {
        Err(Failure::new(ck::CKR_SLOT_ID_INVALID, "the only slot is 0"))
    }
}

pub(super) unsafe extern "C" fn initialize(arguments: *mut c_void) -> CK_RV {
    entry("C_Initialize", || {
        if !arguments.is_null() {
            let arguments = arguments.cast::<CK_C_INITIALIZE_ARGS>();
            // SAFETY: not null, so these arguments, by the contract of every entry.
            let arguments = unsafe { arguments.read() };
            check_arguments(&arguments)?;
        }
        library::initialize().inspect_err(|failure| {
            if failure.code == ck::CKR_GENERAL_ERROR {
                log::configuration(failure);
            }
        })
    })
}

/// The module takes the locks of the operating system whatever the host offers, and starts no
/// threads, so of the host's wishes only contradictions matter.
fn check_arguments(arguments: &CK_C_INITIALIZE_ARGS) -> Result<(), Failure> {
    let functions = [
        arguments.CreateMutex.is_some(),
        arguments.DestroyMutex.is_some(),
        arguments.LockMutex.is_some(),
        arguments.UnlockMutex.is_some(),
    ];
    if functions.contains(&true) && functions.contains(&false) {
        return Err(Failure::arguments("some mutex functions, but not all four"));
    }
    if !arguments.pReserved.is_null() {
        return Err(Failure::arguments("pReserved is not null"));
    }
    Ok(())
}

pub(super) unsafe extern "C" fn finalize(reserved: *mut c_void) -> CK_RV {
    entry("C_Finalize", || {
        if !reserved.is_null() {
            return Err(Failure::arguments("pReserved is not null"));
        }
        library::finalize()
    })
}

pub(super) unsafe extern "C" fn info(to: *mut CK_INFO) -> CK_RV {
    entry("C_GetInfo", || {
        library::current()?;
        let info = CK_INFO {
            cryptokiVersion: VERSION_2,
            manufacturerID: padded(MANUFACTURER),
            flags: 0,
            libraryDescription: padded("keys on a key server"),
            libraryVersion: version(),
        };
        // SAFETY: the host's pointer, by the contract of every entry.
        unsafe { write(to, info) }
    })
}

pub(super) unsafe extern "C" fn slot_list(
    _with_token: CK_BBOOL,
    list: *mut CK_SLOT_ID,
    count: *mut CK_ULONG,
) -> CK_RV {
    entry("C_GetSlotList", || {
        library::current()?;
        // SAFETY: the host's pointers, by the contract of every entry.
        unsafe { give_list(&[SLOT], list, count) }
    })
}

pub(super) unsafe extern "C" fn slot_info(slot: CK_SLOT_ID, to: *mut CK_SLOT_INFO) -> CK_RV {
    entry("C_GetSlotInfo", || {
        library::current()?;
        check_slot(slot)?;
        let info = CK_SLOT_INFO {
            slotDescription: padded("key server"),
            manufacturerID: padded(MANUFACTURER),
            flags: ck::CKF_TOKEN_PRESENT,
            hardwareVersion: version(),
            firmwareVersion: version(),
        };
        // SAFETY: the host's pointer, by the contract of every entry.
        unsafe { write(to, info) }
    })
}

pub(super) unsafe extern "C" fn token_info(slot: CK_SLOT_ID, to: *mut CK_TOKEN_INFO) -> CK_RV {
    entry("C_GetTokenInfo", || {
        let library = library::current()?;
        check_slot(slot)?;
        let unknown = ck::CK_UNAVAILABLE_INFORMATION;
        let sessions = CK_ULONG::try_from(library.session_count()).unwrap_or(unknown);
        let sessions_max = CK_ULONG::try_from(SESSIONS_MAX).unwrap_or(unknown);
        let info = CK_TOKEN_INFO {
            label: padded(&library.config.token_label),
            manufacturerID: padded(MANUFACTURER),
            model: padded("keyserver-pkcs11"),
            serialNumber: padded("1"),
            // No login: the client certificate is the credential. Not write-protected, although
            // nothing can be written: Java opens no session that it can sign with otherwise.
            flags: ck::CKF_TOKEN_INITIALIZED,
            ulMaxSessionCount: sessions_max,
            ulSessionCount: sessions,
            ulMaxRwSessionCount: sessions_max,
            ulRwSessionCount: unknown,
            ulMaxPinLen: 255,
            ulMinPinLen: 0,
            ulTotalPublicMemory: unknown,
            ulFreePublicMemory: unknown,
            ulTotalPrivateMemory: unknown,
            ulFreePrivateMemory: unknown,
            hardwareVersion: version(),
            firmwareVersion: version(),
            utcTime: padded(""),
        };
        // SAFETY: the host's pointer, by the contract of every entry.
        unsafe { write(to, info) }
    })
}

pub(super) unsafe extern "C" fn mechanism_list(
    slot: CK_SLOT_ID,
    list: *mut CK_MECHANISM_TYPE,
    count: *mut CK_ULONG,
) -> CK_RV {
    entry("C_GetMechanismList", || {
        library::current()?;
        check_slot(slot)?;
        let names = MECHANISMS.map(|mechanism| mechanism.name);
        // SAFETY: the host's pointers, by the contract of every entry.
        unsafe { give_list(&names, list, count) }
    })
}

pub(super) unsafe extern "C" fn mechanism_info(
    slot: CK_SLOT_ID,
    name: CK_MECHANISM_TYPE,
    to: *mut CK_MECHANISM_INFO,
) -> CK_RV {
    entry("C_GetMechanismInfo", || {
        library::current()?;
        check_slot(slot)?;
        let mechanism = MECHANISMS.iter().find(|mechanism| mechanism.name == name);
        let mechanism = mechanism.ok_or_else(|| {
            Failure::new(ck::CKR_MECHANISM_INVALID, format!("no mechanism {name:#x}"))
        })?;
        let info = CK_MECHANISM_INFO {
            ulMinKeySize: mechanism.bits_min,
            ulMaxKeySize: mechanism.bits_max,
            flags: mechanism.flags,
        };
        // SAFETY: the host's pointer, by the contract of every entry.
        unsafe { write(to, info) }
    })
}
