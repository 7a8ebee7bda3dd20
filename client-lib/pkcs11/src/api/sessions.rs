//! Sessions, the login that is none, and finding objects.

use core::ffi::c_void;

use cryptoki_sys as ck;
use cryptoki_sys::{
    CK_ATTRIBUTE, CK_FLAGS, CK_NOTIFY, CK_OBJECT_HANDLE, CK_RV, CK_SESSION_HANDLE, CK_SESSION_INFO,
    CK_SLOT_ID, CK_ULONG, CK_USER_TYPE, CK_UTF8CHAR,
};

use super::boundary::{elements, elements_mut, entry, too_small, write};
use super::general::check_slot;
use crate::attribute::{self, Value};
use crate::failure::Failure;
use crate::library;

/// Most attributes in one template. Hosts use a handful.
const TEMPLATE_MAX: CK_ULONG = 1024;

pub(super) unsafe extern "C" fn open(
    slot: CK_SLOT_ID,
    flags: CK_FLAGS,
    _application: *mut c_void,
    _notify: CK_NOTIFY,
    handle: *mut CK_SESSION_HANDLE,
) -> CK_RV {
    entry("C_OpenSession", || {
        let library = library::current()?;
        check_slot(slot)?;
        if flags & ck::CKF_SERIAL_SESSION == 0 {
            return Err(Failure::new(
                ck::CKR_SESSION_PARALLEL_NOT_SUPPORTED,
                "CKF_SERIAL_SESSION is not set, which the standard demands",
            ));
        }
        if handle.is_null() {
            return Err(super::boundary::null());
        }
        let opened = library.open_session(flags)?;
        // SAFETY: the host's pointer, by the contract of every entry.
        unsafe { write(handle, opened) }
    })
}

pub(super) unsafe extern "C" fn close(session: CK_SESSION_HANDLE) -> CK_RV {
    entry("C_CloseSession", || {
        library::current()?.close_session(session)
    })
}

pub(super) unsafe extern "C" fn close_all(slot: CK_SLOT_ID) -> CK_RV {
    entry("C_CloseAllSessions", || {
        let library = library::current()?;
        check_slot(slot)?;
        library.close_all_sessions();
        Ok(())
    })
}

pub(super) unsafe extern "C" fn info(
    session: CK_SESSION_HANDLE,
    to: *mut CK_SESSION_INFO,
) -> CK_RV {
    entry("C_GetSessionInfo", || {
        let library = library::current()?;
        let flags = library.with_session(session, |session| Ok(session.flags))?;
        let info = CK_SESSION_INFO {
            slotID: 0,
            state: if flags & ck::CKF_RW_SESSION == 0 {
                ck::CKS_RO_USER_FUNCTIONS
            } else {
                ck::CKS_RW_USER_FUNCTIONS
            },
            flags,
            ulDeviceError: 0,
        };
        // SAFETY: the host's pointer, by the contract of every entry.
        unsafe { write(to, info) }
    })
}

/// Every login is good, and its pin not looked at: the module's client certificate is the
/// credential, and whoever can load the module has it.
pub(super) unsafe extern "C" fn login(
    session: CK_SESSION_HANDLE,
    _user: CK_USER_TYPE,
    _pin: *mut CK_UTF8CHAR,
    _length: CK_ULONG,
) -> CK_RV {
    entry("C_Login", || {
        library::current()?.with_session(session, |_| Ok(()))
    })
}

pub(super) unsafe extern "C" fn logout(session: CK_SESSION_HANDLE) -> CK_RV {
    entry("C_Logout", || {
        library::current()?.with_session(session, |_| Ok(()))
    })
}

pub(super) unsafe extern "C" fn find_init(
    session: CK_SESSION_HANDLE,
    template: *mut CK_ATTRIBUTE,
    count: CK_ULONG,
) -> CK_RV {
    entry("C_FindObjectsInit", || {
        let library = library::current()?;
        if count > TEMPLATE_MAX {
            return Err(Failure::arguments(
                "a template of more than 1,024 attributes",
            ));
        }
        // SAFETY: the host's template, by the contract of every entry.
        let template = unsafe { elements(template, count) }?;
        let mut wanted = Vec::with_capacity(template.len());
        for attribute in template {
            let value = attribute.pValue.cast::<u8>().cast_const();
            // SAFETY: a value of the host's template, by the contract of every entry.
            let value = unsafe { elements(value, attribute.ulValueLen) }?;
            wanted.push((attribute.type_, value));
        }
        let objects = library.objects()?;
        let matching = objects.iter().filter(|object| object.matches(&wanted));
        let found = matching.map(|object| object.handle).collect();
        library.with_session(session, |session| session.begin_search(found))
    })
}

pub(super) unsafe extern "C" fn find(
    session: CK_SESSION_HANDLE,
    list: *mut CK_OBJECT_HANDLE,
    most: CK_ULONG,
    count: *mut CK_ULONG,
) -> CK_RV {
    entry("C_FindObjects", || {
        let library = library::current()?;
        if count.is_null() {
            return Err(super::boundary::null());
        }
        // SAFETY: the host's list, by the contract of every entry.
        let list = unsafe { elements_mut(list, most) }?;
        let found = library.with_session(session, |session| session.found(list.len()))?;
        for (place, handle) in list.iter_mut().zip(&found) {
            *place = *handle;
        }
        let found = CK_ULONG::try_from(found.len()).unwrap_or(0);
        // SAFETY: the host's pointer, by the contract of every entry.
        unsafe { write(count, found) }
    })
}

pub(super) unsafe extern "C" fn find_final(session: CK_SESSION_HANDLE) -> CK_RV {
    entry("C_FindObjectsFinal", || {
        library::current()?.with_session(session, |session| session.end_search())
    })
}

/// Answers every attribute, and returns what was wrong with the last that was wrong, as the
/// standard wants.
pub(super) unsafe extern "C" fn attribute_values(
    session: CK_SESSION_HANDLE,
    object: CK_OBJECT_HANDLE,
    template: *mut CK_ATTRIBUTE,
    count: CK_ULONG,
) -> CK_RV {
    entry("C_GetAttributeValue", || {
        let library = library::current()?;
        library.with_session(session, |_| Ok(()))?;
        let object = library.object(object)?;
        // SAFETY: the host's template, by the contract of every entry.
        let template = unsafe { elements_mut(template, count) }?;
        let mut outcome = Ok(());
        for place in template {
            // SAFETY: an attribute of the host's template, by the contract of every entry.
            let answered = unsafe { answer(place, &attribute::value(&object, place.type_)) };
            if answered.is_err() {
                place.ulValueLen = ck::CK_UNAVAILABLE_INFORMATION;
                outcome = answered;
            }
        }
        outcome
    })
}

/// Puts a value where the host wants it, or its length alone when there is no place for it.
///
/// # Safety
///
/// `place.pValue` is null, or valid for writing `place.ulValueLen` bytes.
unsafe fn answer(place: &mut CK_ATTRIBUTE, value: &Value<'_>) -> Result<(), Failure> {
    let wrong = |code, why| {
        Err(Failure::new(
            code,
            format!("attribute {:#x} {why}", place.type_),
        ))
    };
    let bytes = match value {
        Value::Bytes(bytes) => bytes,
        Value::Sensitive => return wrong(ck::CKR_ATTRIBUTE_SENSITIVE, "is secret"),
        Value::Unknown => return wrong(ck::CKR_ATTRIBUTE_TYPE_INVALID, "is none of this object"),
    };
    let length = CK_ULONG::try_from(bytes.len()).unwrap_or(CK_ULONG::MAX);
    if !place.pValue.is_null() {
        if place.ulValueLen < length {
            return Err(too_small());
        }
        // SAFETY: valid for `ulValueLen` bytes by this function's contract, and these are no more.
        let room = unsafe { elements_mut(place.pValue.cast::<u8>(), length) }?;
        room.copy_from_slice(bytes);
    }
    place.ulValueLen = length;
    Ok(())
}
