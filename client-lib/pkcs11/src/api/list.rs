//! The function lists, and the three symbols by which a host finds them.
//!
//! Entries that the module does not have are there all the same and return
//! `CKR_FUNCTION_NOT_SUPPORTED`: hosts call through the list without looking for null.

use cryptoki_sys as ck;
use cryptoki_sys::{
    CK_FLAGS, CK_FUNCTION_LIST, CK_FUNCTION_LIST_3_0, CK_INTERFACE, CK_RV, CK_ULONG, CK_UTF8CHAR,
    CK_VERSION,
};

use super::boundary::{entry, give_list, write};
use super::{general, operations, sessions};
use crate::failure::Failure;

/// A C function type that has a function of it which refuses to do anything.
trait Refusing {
    const REFUSED: Self;
}

macro_rules! refusing {
    ($(($($argument:ident)*))*) => {
        $(impl<$($argument),*> Refusing for Option<unsafe extern "C" fn($($argument),*) -> CK_RV> {
            const REFUSED: Self = {
                extern "C" fn refuse<$($argument),*>($(_: $argument),*) -> CK_RV {
                    ck::CKR_FUNCTION_NOT_SUPPORTED
                }
                Some(refuse::<$($argument),*>)
            };
        })*
    };
}
// For every number of arguments that the standard's functions have.
refusing! {
    (A) (A B) (A B C) (A B C D) (A B C D E) (A B C D E F) (A B C D E F G) (A B C D E F G H)
    (A B C D E F G H I) (A B C D E F G H I J) (A B C D E F G H I J K)
}

/// Both lists have the same functions as far as the older goes.
macro_rules! function_list {
    ($list:ident, $version:expr $(, $more:ident: $value:expr)*) => {
        $list {
            version: $version,
            C_Initialize: Some(general::initialize),
            C_Finalize: Some(general::finalize),
            C_GetInfo: Some(general::info),
            C_GetFunctionList: Some(C_GetFunctionList),
            C_GetSlotList: Some(general::slot_list),
            C_GetSlotInfo: Some(general::slot_info),
            C_GetTokenInfo: Some(general::token_info),
            C_GetMechanismList: Some(general::mechanism_list),
            C_GetMechanismInfo: Some(general::mechanism_info),
            C_InitToken: Refusing::REFUSED,
            C_InitPIN: Refusing::REFUSED,
            C_SetPIN: Refusing::REFUSED,
            C_OpenSession: Some(sessions::open),
            C_CloseSession: Some(sessions::close),
            C_CloseAllSessions: Some(sessions::close_all),
            C_GetSessionInfo: Some(sessions::info),
            C_GetOperationState: Refusing::REFUSED,
            C_SetOperationState: Refusing::REFUSED,
            C_Login: Some(sessions::login),
            C_Logout: Some(sessions::logout),
            C_CreateObject: Refusing::REFUSED,
            C_CopyObject: Refusing::REFUSED,
            C_DestroyObject: Refusing::REFUSED,
            C_GetObjectSize: Refusing::REFUSED,
            C_GetAttributeValue: Some(sessions::attribute_values),
            C_SetAttributeValue: Refusing::REFUSED,
            C_FindObjectsInit: Some(sessions::find_init),
            C_FindObjects: Some(sessions::find),
            C_FindObjectsFinal: Some(sessions::find_final),
            C_EncryptInit: Refusing::REFUSED,
            C_Encrypt: Refusing::REFUSED,
            C_EncryptUpdate: Refusing::REFUSED,
            C_EncryptFinal: Refusing::REFUSED,
            C_DecryptInit: Some(operations::decrypt_init),
            C_Decrypt: Some(operations::decrypt),
            C_DecryptUpdate: Refusing::REFUSED,
            C_DecryptFinal: Refusing::REFUSED,
            C_DigestInit: Refusing::REFUSED,
            C_Digest: Refusing::REFUSED,
            C_DigestUpdate: Refusing::REFUSED,
            C_DigestKey: Refusing::REFUSED,
            C_DigestFinal: Refusing::REFUSED,
            C_SignInit: Some(operations::sign_init),
            C_Sign: Some(operations::sign),
            C_SignUpdate: Some(operations::sign_update),
            C_SignFinal: Some(operations::sign_final),
            C_SignRecoverInit: Refusing::REFUSED,
            C_SignRecover: Refusing::REFUSED,
            C_VerifyInit: Refusing::REFUSED,
            C_Verify: Refusing::REFUSED,
            C_VerifyUpdate: Refusing::REFUSED,
            C_VerifyFinal: Refusing::REFUSED,
            C_VerifyRecoverInit: Refusing::REFUSED,
            C_VerifyRecover: Refusing::REFUSED,
            C_DigestEncryptUpdate: Refusing::REFUSED,
            C_DecryptDigestUpdate: Refusing::REFUSED,
            C_SignEncryptUpdate: Refusing::REFUSED,
            C_DecryptVerifyUpdate: Refusing::REFUSED,
            C_GenerateKey: Refusing::REFUSED,
            C_GenerateKeyPair: Refusing::REFUSED,
            C_WrapKey: Refusing::REFUSED,
            C_UnwrapKey: Refusing::REFUSED,
            C_DeriveKey: Refusing::REFUSED,
            C_SeedRandom: Refusing::REFUSED,
            C_GenerateRandom: Refusing::REFUSED,
            C_GetFunctionStatus: Refusing::REFUSED,
            C_CancelFunction: Refusing::REFUSED,
            C_WaitForSlotEvent: Refusing::REFUSED,
            $($more: $value,)*
        }
    };
}

pub(super) const VERSION_2: CK_VERSION = CK_VERSION {
    major: 2,
    minor: 40,
};
const VERSION_3: CK_VERSION = CK_VERSION { major: 3, minor: 0 };

static LIST_2: CK_FUNCTION_LIST = function_list!(CK_FUNCTION_LIST, VERSION_2);

static LIST_3: CK_FUNCTION_LIST_3_0 = function_list!(
    CK_FUNCTION_LIST_3_0, VERSION_3,
    C_GetInterfaceList: Some(C_GetInterfaceList),
    C_GetInterface: Some(C_GetInterface),
    C_LoginUser: Refusing::REFUSED,
    C_SessionCancel: Refusing::REFUSED,
    C_MessageEncryptInit: Refusing::REFUSED,
    C_EncryptMessage: Refusing::REFUSED,
    C_EncryptMessageBegin: Refusing::REFUSED,
    C_EncryptMessageNext: Refusing::REFUSED,
    C_MessageEncryptFinal: Refusing::REFUSED,
    C_MessageDecryptInit: Refusing::REFUSED,
    C_DecryptMessage: Refusing::REFUSED,
    C_DecryptMessageBegin: Refusing::REFUSED,
    C_DecryptMessageNext: Refusing::REFUSED,
    C_MessageDecryptFinal: Refusing::REFUSED,
    C_MessageSignInit: Refusing::REFUSED,
    C_SignMessage: Refusing::REFUSED,
    C_SignMessageBegin: Refusing::REFUSED,
    C_SignMessageNext: Refusing::REFUSED,
    C_MessageSignFinal: Refusing::REFUSED,
    C_MessageVerifyInit: Refusing::REFUSED,
    C_VerifyMessage: Refusing::REFUSED,
    C_VerifyMessageBegin: Refusing::REFUSED,
    C_VerifyMessageNext: Refusing::REFUSED,
    C_MessageVerifyFinal: Refusing::REFUSED
);

/// The standard's name for its own functions, as C has it.
const INTERFACE_NAME: &std::ffi::CStr = c"PKCS 11";

/// An interface description that may be shared: what it points to never changes.
struct Interface(CK_INTERFACE);

// SAFETY: all its pointers lead to statics that nobody writes to; they are `*mut` because C has it
// so.
unsafe impl Sync for Interface {}

const fn interface(functions: *const core::ffi::c_void) -> Interface {
    Interface(CK_INTERFACE {
        pInterfaceName: INTERFACE_NAME.as_ptr().cast::<CK_UTF8CHAR>().cast_mut(),
        pFunctionList: functions.cast_mut(),
        flags: 0,
    })
}

/// The newest first: it is the one a host gets that does not say which it wants.
static INTERFACES: [Interface; 2] = [
    interface((&raw const LIST_3).cast()),
    interface((&raw const LIST_2).cast()),
];

/// The functions of version 2.40.
///
/// # Safety
///
/// As the standard says: see [`super`].
#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn C_GetFunctionList(list: *mut *mut CK_FUNCTION_LIST) -> CK_RV {
    entry("C_GetFunctionList", || {
        // SAFETY: the host's pointer, by the contract of every entry.
        unsafe { write(list, (&raw const LIST_2).cast_mut()) }
    })
}

/// All interfaces.
///
/// # Safety
///
/// As the standard says: see [`super`].
#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn C_GetInterfaceList(
    list: *mut CK_INTERFACE,
    count: *mut CK_ULONG,
) -> CK_RV {
    entry("C_GetInterfaceList", || {
        let interfaces = [INTERFACES[0].0, INTERFACES[1].0];
        // SAFETY: the host's pointers, by the contract of every entry.
        unsafe { give_list(&interfaces, list, count) }
    })
}

/// The interface of this name and version; the newest when they are null.
///
/// # Safety
///
/// As the standard says: see [`super`].
#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn C_GetInterface(
    name: *mut CK_UTF8CHAR,
    version: *mut CK_VERSION,
    found: *mut *mut CK_INTERFACE,
    flags: CK_FLAGS,
) -> CK_RV {
    entry("C_GetInterface", || {
        let known = name.is_null() || {
            // SAFETY: not null, so a string that ends with a zero byte, by the standard.
            let name = unsafe { std::ffi::CStr::from_ptr(name.cast()) };
            name == INTERFACE_NAME
        };
        let index = if version.is_null() {
            Some(0)
        } else {
            // SAFETY: not null, so the host's own version, by the contract of every entry.
            let version = unsafe { version.read() };
            match (version.major, version.minor) {
                (3, 0) => Some(0),
                (2, 40) => Some(1),
                _ => None,
            }
        };
        // The module has no interface that survives a fork untouched, and so no flag.
        match index.and_then(|index| INTERFACES.get(index)) {
            Some(interface) if known && flags == 0 => {
                // SAFETY: the host's pointer, by the contract of every entry.
                unsafe { write(found, (&raw const interface.0).cast_mut()) }
            }
            _ => Err(Failure::new(
                ck::CKR_FUNCTION_FAILED,
                "no such interface: there are `PKCS 11` 3.0 and 2.40, without flags",
            )),
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Reads a list as the row of pointers that it is for C.
    fn pointers<T>(list: &'static T) -> Vec<usize> {
        let first = align_of::<usize>(); // The version, and what aligns the first pointer.
        let count = (size_of::<T>() - first) / size_of::<usize>();
        let row = std::ptr::from_ref(list).cast::<u8>();
        (0..count)
            .map(|index| {
                // SAFETY: inside the list, which has nothing but pointers behind its version.
                let entry = unsafe { row.add(first + index * size_of::<usize>()) };
                // SAFETY: as above, and aligned as the list is.
                unsafe { entry.cast::<usize>().read() }
            })
            .collect()
    }

    #[test]
    fn no_entry_is_null() {
        assert_eq!(pointers(&LIST_2).len(), 68);
        assert_eq!(pointers(&LIST_3).len(), 92);
        assert!(pointers(&LIST_2).iter().all(|entry| *entry != 0));
        assert!(pointers(&LIST_3).iter().all(|entry| *entry != 0));
    }

    #[test]
    fn what_is_not_there_says_so() {
        let generate = LIST_2.C_GenerateRandom.unwrap();
        // SAFETY: it looks at none of its arguments.
        let code = unsafe { generate(0, std::ptr::null_mut(), 0) };
        assert_eq!(code, ck::CKR_FUNCTION_NOT_SUPPORTED);
    }

    #[test]
    fn interfaces_are_found_by_name_and_version() {
        let find = |name: Option<&std::ffi::CStr>, version: Option<CK_VERSION>, flags| {
            let name = name.map_or(std::ptr::null_mut(), |it| it.as_ptr().cast_mut().cast());
            let mut version = version;
            let version = version
                .as_mut()
                .map_or(std::ptr::null_mut(), std::ptr::from_mut);
            let mut found = std::ptr::null_mut();
            // SAFETY: all pointers are null or to locals that outlive the call.
            let code = unsafe { C_GetInterface(name, version, &raw mut found, flags) };
            // SAFETY: it succeeded, so it gave a static.
            (code == ck::CKR_OK).then(|| unsafe { (*found).pFunctionList.cast_const() })
        };
        let (list_2, list_3) = ((&raw const LIST_2).cast(), (&raw const LIST_3).cast());
        assert_eq!(find(None, None, 0), Some(list_3));
        assert_eq!(find(Some(c"PKCS 11"), Some(VERSION_2), 0), Some(list_2));
        assert_eq!(find(Some(c"PKCS 11"), Some(VERSION_3), 0), Some(list_3));
        assert_eq!(find(Some(c"Vendor"), None, 0), None);
        let newer = CK_VERSION { major: 3, minor: 9 };
        assert_eq!(find(None, Some(newer), 0), None);
        assert_eq!(find(None, None, ck::CKF_INTERFACE_FORK_SAFE), None);
    }
}
