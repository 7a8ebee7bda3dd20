//! What every entry goes through: a panic becomes a return code, pointers become slices.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::slice;

use cryptoki_sys as ck;
use cryptoki_sys::{CK_BYTE, CK_RV, CK_ULONG};

use crate::failure::Failure;
use crate::log;
use crate::session::{Answer, Room};

/// Runs the body of an entry. The standard has no code for a fault of the module itself but
/// `CKR_GENERAL_ERROR`.
pub(super) fn entry(function: &str, body: impl FnOnce() -> Result<(), Failure>) -> CK_RV {
    // What a panic leaves half done is behind locks that take over what they find, or is swapped
    // whole, so it may be looked at again.
    let outcome = catch_unwind(AssertUnwindSafe(|| {
        let outcome = body();
        log::call(function, outcome.as_ref().err());
        outcome
    }));
    match outcome {
        Ok(Ok(())) => ck::CKR_OK,
        Ok(Err(failure)) => failure.code,
        Err(_) => ck::CKR_GENERAL_ERROR,
    }
}

/// Writes `value` where the host wants it.
///
/// # Safety
///
/// `to` is null, or valid for writing one `T`.
pub(super) unsafe fn write<T>(to: *mut T, value: T) -> Result<(), Failure> {
    if to.is_null() {
        return Err(null());
    }
    // SAFETY: not null, so valid for writing by this function's contract.
    unsafe { to.write(value) };
    Ok(())
}

/// The `length` elements at `from`.
///
/// # Safety
///
/// `from` is null, or valid for reading `length` elements for as long as `'a`.
pub(super) unsafe fn elements<'a, T>(from: *const T, length: CK_ULONG) -> Result<&'a [T], Failure> {
    let length = element_count::<T>(length)?;
    if length == 0 {
        return Ok(&[]);
    }
    if from.is_null() {
        return Err(null());
    }
    // SAFETY: not null and, by this function's contract, valid; the length is not absurd.
    Ok(unsafe { slice::from_raw_parts(from, length) })
}

/// As [`elements`], to write to.
///
/// # Safety
///
/// `from` is null, or valid for reading and writing `length` elements for as long as `'a`, and
/// nothing else refers to them.
pub(super) unsafe fn elements_mut<'a, T>(
    from: *mut T,
    length: CK_ULONG,
) -> Result<&'a mut [T], Failure> {
    let length = element_count::<T>(length)?;
    if length == 0 {
        return Ok(&mut []);
    }
    if from.is_null() {
        return Err(null());
    }
    // SAFETY: not null and, by this function's contract, valid and ours alone; the length is not
    // absurd.
    Ok(unsafe { slice::from_raw_parts_mut(from, length) })
}

/// A count whose elements can exist at all.
fn element_count<T>(length: CK_ULONG) -> Result<usize, Failure> {
    usize::try_from(length)
        .ok()
        .filter(|length| {
            let bytes = length.checked_mul(size_of::<T>());
            bytes.is_some_and(|bytes| isize::try_from(bytes).is_ok())
        })
        .ok_or_else(|| Failure::arguments("a length that no memory has"))
}

/// A buffer of the host for a result, with its length beside it.
pub(super) struct Output {
    buffer: *mut CK_BYTE,
    length: *mut CK_ULONG,
}

impl Output {
    /// # Safety
    ///
    /// `length` is null or valid for reading and writing; `buffer` is null or valid for writing as
    /// many bytes as `length` says. Both stay so as long as this value is used.
    pub(super) unsafe fn new(buffer: *mut CK_BYTE, length: *mut CK_ULONG) -> Result<Self, Failure> {
        if length.is_null() {
            return Err(null());
        }
        Ok(Self { buffer, length })
    }

    pub(super) fn room(&self) -> Room {
        if self.buffer.is_null() {
            return Room::Ask;
        }
        // SAFETY: not null, and valid by the contract of `new`.
        let length = unsafe { self.length.read() };
        Room::Bytes(usize::try_from(length).unwrap_or(usize::MAX))
    }

    pub(super) fn give(self, answer: &Answer) -> Result<(), Failure> {
        let (bytes, length): (&[u8], usize) = match answer {
            Answer::Result(bytes) => (bytes, bytes.len()),
            Answer::Length(length) | Answer::TooSmall(length) => (&[], *length),
        };
        let number = CK_ULONG::try_from(length).unwrap_or(CK_ULONG::MAX);
        if let Room::Bytes(room) = self.room()
            && !bytes.is_empty()
        {
            if bytes.len() > room {
                return Err(too_small());
            }
            // SAFETY: the buffer holds `room` bytes, by the contract of `new`, and so this many.
            unsafe {
                self.buffer
                    .copy_from_nonoverlapping(bytes.as_ptr(), bytes.len())
            };
        }
        // SAFETY: not null, and valid by the contract of `new`.
        unsafe { self.length.write(number) };
        match answer {
            Answer::TooSmall(_) => Err(too_small()),
            Answer::Result(_) | Answer::Length(_) => Ok(()),
        }
    }
}

/// Gives a list: its length alone when `list` is null, or as much as fits, which must be all.
///
/// # Safety
///
/// `count` is null or valid for reading and writing; `list` is null or valid for writing as many
/// elements as `count` says.
pub(super) unsafe fn give_list<T: Copy>(
    values: &[T],
    list: *mut T,
    count: *mut CK_ULONG,
) -> Result<(), Failure> {
    if count.is_null() {
        return Err(null());
    }
    let number = CK_ULONG::try_from(values.len()).unwrap_or(CK_ULONG::MAX);
    // SAFETY: not null, so valid by this function's contract.
    let room = unsafe { count.read() };
    // SAFETY: as above.
    unsafe { count.write(number) };
    if list.is_null() {
        return Ok(());
    }
    if room < number {
        return Err(too_small());
    }
    // SAFETY: valid for `room` elements by this function's contract, and `number` are no more.
    unsafe { list.copy_from_nonoverlapping(values.as_ptr(), values.len()) };
    Ok(())
}

pub(super) fn null() -> Failure {
    Failure::arguments("a null pointer")
}

pub(super) fn too_small() -> Failure {
    Failure::new(ck::CKR_BUFFER_TOO_SMALL, "the host's buffer is too small")
}
