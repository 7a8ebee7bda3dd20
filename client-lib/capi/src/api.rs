//! The functions of the header.
//!
//! The safety contract is C's: a pointer is null or points to what its type and the length beside it
//! say, for the duration of the call, and what is written to is nobody else's meanwhile. A client is
//! one that [`keyserver_client_new`] gave and [`keyserver_client_free`] did not take; any number of
//! threads may use it at once.
#![expect(
    unsafe_code,
    reason = "C hands over pointers; each is looked at here and nowhere else"
)]

use std::ffi::{CStr, c_char, c_int, c_void};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::slice;
use std::sync::Arc;
use std::time::Duration;

use client::blocking::Client;
use client::{KeyId, Operation, TlsIdentity};

use crate::completions::{Completions, User};
use crate::status::{self, Failure};
use crate::types::{
    KEYSERVER_OUTPUT_MAX, KEYSERVER_SKI_BYTES, KeyserverAlgorithm, KeyserverCompletion,
    KeyserverOptions, KeyserverStatus,
};

/// Connections to the servers, and the calls over them.
pub struct KeyserverClient {
    client: Client,
    completions: Arc<Completions>,
}

impl std::fmt::Debug for KeyserverClient {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("KeyserverClient").finish_non_exhaustive()
    }
}

/// Runs the body of a function. What a panic leaves half done is behind locks that take over what
/// they find.
fn guarded(body: impl FnOnce() -> Result<(), Failure>) -> KeyserverStatus {
    let outcome = catch_unwind(AssertUnwindSafe(body)).unwrap_or_else(|_| {
        let why = "a fault of the library; please report it";
        Err(Failure::new(KeyserverStatus::Internal, why))
    });
    match outcome {
        Ok(()) => KeyserverStatus::Ok,
        Err(failure) => {
            failure.remember();
            failure.status
        }
    }
}

fn null(what: &str) -> Failure {
    Failure::argument(format!("{what} is null"))
}

/// # Safety
///
/// `text` is null or a string that ends with a zero byte.
unsafe fn text<'a>(text: *const c_char, what: &str) -> Result<&'a str, Failure> {
    if text.is_null() {
        return Err(null(what));
    }
    // SAFETY: not null, so a string by this function's contract.
    let text = unsafe { CStr::from_ptr(text) };
    text.to_str()
        .map_err(|_| Failure::argument(format!("{what} is not UTF-8")))
}

/// # Safety
///
/// `from` is null or valid for reading `length` elements for as long as `'a`.
unsafe fn elements<'a, T>(from: *const T, length: usize, what: &str) -> Result<&'a [T], Failure> {
    if length == 0 {
        return Ok(&[]);
    }
    let bytes = length.checked_mul(size_of::<T>());
    if from.is_null() || bytes.is_none_or(|bytes| isize::try_from(bytes).is_err()) {
        return Err(null(what));
    }
    // SAFETY: not null, of a length that exists, and valid by this function's contract.
    Ok(unsafe { slice::from_raw_parts(from, length) })
}

/// # Safety
///
/// As the module says of clients.
unsafe fn of<'a>(client: *const KeyserverClient) -> Result<&'a KeyserverClient, Failure> {
    // SAFETY: null, or a client that lives for the duration of the call.
    unsafe { client.as_ref() }.ok_or_else(|| null("client"))
}

/// # Safety
///
/// `ski` is null or valid for reading 20 bytes.
unsafe fn key(ski: *const u8) -> Result<KeyId, Failure> {
    // SAFETY: this function's contract.
    let bytes = unsafe { elements(ski, KEYSERVER_SKI_BYTES, "ski") }?;
    let ski = bytes.try_into().map_err(|_| null("ski"))?;
    Ok(KeyId::from_ski(ski))
}

/// # Safety
///
/// As [`keyserver_sign`] demands of its arguments.
unsafe fn signing(
    ski: *const u8,
    algorithm: u32,
    input: *const u8,
    length: usize,
) -> Result<Operation, Failure> {
    // SAFETY: this function's contract.
    let key = unsafe { key(ski) }?;
    // SAFETY: as above.
    let input = unsafe { elements(input, length, "input") }?;
    let algorithm = KeyserverAlgorithm::from_number(algorithm)
        .ok_or_else(|| Failure::argument(format!("{algorithm:#x} is no algorithm")))?;
    Ok(Operation::sign(&key, algorithm, input)?)
}

/// Makes a client. Nothing is connected, and no thread started, before the first call.
///
/// On success `*client` is a client to be freed by keyserver_client_free; otherwise it is null.
///
/// # Safety
///
/// As the module says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keyserver_client_new(
    options: *const KeyserverOptions,
    client: *mut *mut KeyserverClient,
) -> KeyserverStatus {
    guarded(|| {
        if client.is_null() {
            return Err(null("client"));
        }
        // SAFETY: not null, so the caller's place for a client.
        unsafe { client.write(std::ptr::null_mut()) };
        // SAFETY: null, or the caller's options.
        let options = unsafe { options.as_ref() }.ok_or_else(|| null("options"))?;
        // SAFETY: the caller's options, and so everything in them.
        let made = unsafe { make(options) }?;
        // SAFETY: as before.
        unsafe { client.write(Box::into_raw(Box::new(made))) };
        Ok(())
    })
}

/// # Safety
///
/// The pointers of `options` are null or to strings.
unsafe fn make(options: &KeyserverOptions) -> Result<KeyserverClient, Failure> {
    // SAFETY: this function's contract.
    let ca = unsafe { text(options.ca_file, "ca_file") }?;
    // SAFETY: as above.
    let certificate = unsafe { text(options.certificate_file, "certificate_file") }?;
    // SAFETY: as above.
    let private_key = unsafe { text(options.private_key_file, "private_key_file") }?;
    let identity = TlsIdentity::from_files(ca, certificate, private_key)?;
    // SAFETY: as above.
    let name = unsafe { text(options.server_name, "server_name") }?;
    let mut builder = Client::builder(name, identity);
    // SAFETY: as above.
    for server in unsafe { elements(options.servers, options.server_count, "servers") }? {
        // SAFETY: as above.
        builder = builder.server(unsafe { text(*server, "a server") }?);
    }
    if options.deadline_ms > 0 {
        let deadline = Duration::from_millis(options.deadline_ms.into());
        // A caller that gives a slow path more time means the connection too.
        builder = builder.deadline(deadline).connect_limit(deadline);
    }
    Ok(KeyserverClient {
        client: builder.build()?,
        completions: Completions::new()?,
    })
}

/// Closes a client's connections and frees it; null is allowed. No other thread may be in a call of
/// it. Calls that were submitted and not taken are forgotten.
///
/// # Safety
///
/// As the module says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keyserver_client_free(client: *mut KeyserverClient) {
    guarded(|| {
        if !client.is_null() {
            // SAFETY: not null, so made by `keyserver_client_new` and given back once.
            drop(unsafe { Box::from_raw(client) });
        }
        Ok(())
    });
}

/// Computes the name of the key of a certificate, PEM or DER: 20 bytes to `ski`.
///
/// # Safety
///
/// As the module says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keyserver_ski_of_certificate(
    certificate: *const u8,
    length: usize,
    ski: *mut u8,
) -> KeyserverStatus {
    guarded(|| {
        // SAFETY: the caller's bytes.
        let certificate = unsafe { elements(certificate, length, "certificate") }?;
        let name = KeyId::from_certificate(certificate)
            .map_err(|error| Failure::argument(error.to_string()))?;
        if ski.is_null() {
            return Err(null("ski"));
        }
        // SAFETY: not null, so the caller's place for 20 bytes.
        unsafe { ski.copy_from_nonoverlapping(name.ski().as_ptr(), KEYSERVER_SKI_BYTES) };
        Ok(())
    })
}

/// Signs, and waits for the signature at most until the deadline.
///
/// `algorithm` is a KeyserverAlgorithm. `*output_length` is the size of `output` before, and that of
/// the signature after; KEYSERVER_OUTPUT_MAX bytes are always enough.
///
/// # Safety
///
/// As the module says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keyserver_sign(
    client: *const KeyserverClient,
    ski: *const u8,
    algorithm: u32,
    input: *const u8,
    input_length: usize,
    output: *mut u8,
    output_length: *mut usize,
) -> KeyserverStatus {
    guarded(|| {
        // SAFETY: the caller's client.
        let client = unsafe { of(client) }?;
        // SAFETY: the caller's name and input.
        let operation = unsafe { signing(ski, algorithm, input, input_length) }?;
        // SAFETY: the caller's buffer.
        unsafe { call(client, operation, output, output_length) }
    })
}

/// RSA-decrypts, and waits as keyserver_sign does. The result is the whole block with its padding
/// still on; taking it off without telling an attacker whether it was right is the caller's duty.
///
/// # Safety
///
/// As the module says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keyserver_decrypt(
    client: *const KeyserverClient,
    ski: *const u8,
    ciphertext: *const u8,
    ciphertext_length: usize,
    output: *mut u8,
    output_length: *mut usize,
) -> KeyserverStatus {
    guarded(|| {
        // SAFETY: the caller's client.
        let client = unsafe { of(client) }?;
        // SAFETY: the caller's name.
        let key = unsafe { key(ski) }?;
        // SAFETY: the caller's bytes.
        let input = unsafe { elements(ciphertext, ciphertext_length, "ciphertext") }?;
        // SAFETY: the caller's buffer.
        unsafe {
            call(
                client,
                Operation::decrypt(&key, input),
                output,
                output_length,
            )
        }
    })
}

/// # Safety
///
/// `length` is null or valid; `output` is null or valid for writing as many bytes as `length` says.
unsafe fn call(
    client: &KeyserverClient,
    operation: Operation,
    output: *mut u8,
    length: *mut usize,
) -> Result<(), Failure> {
    if output.is_null() || length.is_null() {
        return Err(null("output"));
    }
    let result = zeroize::Zeroizing::new(client.client.call(operation)?);
    // SAFETY: not null, and valid by this function's contract.
    let room = unsafe { length.replace(result.len()) };
    if room < result.len() {
        return Err(Failure::argument(format!(
            "the output has {} bytes and the buffer {room}",
            result.len()
        )));
    }
    // SAFETY: valid for `room` bytes, and these are no more.
    unsafe { output.copy_from_nonoverlapping(result.as_ptr(), result.len()) };
    Ok(())
}

/// The descriptor that is readable when keyserver_completions has something to give. It is the
/// client's: watch it, and do not read or close it. -1 for a null client.
///
/// # Safety
///
/// As the module says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keyserver_descriptor(client: *const KeyserverClient) -> c_int {
    let mut descriptor = -1;
    guarded(|| {
        // SAFETY: the caller's client.
        descriptor = unsafe { of(client) }?.completions.descriptor();
        Ok(())
    });
    descriptor
}

/// Begins a signature and returns at once. Its completion carries `user`. Unless this returns OK,
/// nothing was begun and no completion comes. The input is copied.
///
/// # Safety
///
/// As the module says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keyserver_submit_sign(
    client: *const KeyserverClient,
    ski: *const u8,
    algorithm: u32,
    input: *const u8,
    input_length: usize,
    user: *mut c_void,
) -> KeyserverStatus {
    guarded(|| {
        // SAFETY: the caller's client.
        let client = unsafe { of(client) }?;
        // SAFETY: the caller's name and input.
        let operation = unsafe { signing(ski, algorithm, input, input_length) }?;
        submit(client, operation, user)
    })
}

/// Begins a decryption, as keyserver_submit_sign does a signature.
///
/// # Safety
///
/// As the module says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keyserver_submit_decrypt(
    client: *const KeyserverClient,
    ski: *const u8,
    ciphertext: *const u8,
    ciphertext_length: usize,
    user: *mut c_void,
) -> KeyserverStatus {
    guarded(|| {
        // SAFETY: the caller's client.
        let client = unsafe { of(client) }?;
        // SAFETY: the caller's name.
        let key = unsafe { key(ski) }?;
        // SAFETY: the caller's bytes.
        let input = unsafe { elements(ciphertext, ciphertext_length, "ciphertext") }?;
        submit(client, Operation::decrypt(&key, input), user)
    })
}

fn submit(
    client: &KeyserverClient,
    operation: Operation,
    user: *mut c_void,
) -> Result<(), Failure> {
    let completions = &client.completions;
    completions.begin()?;
    let (user, done) = (User(user.expose_provenance()), Arc::clone(completions));
    let submitted = client
        .client
        .submit(operation, move |outcome| done.finish(user, outcome));
    submitted.map_err(|error| {
        completions.did_not_begin();
        error.into()
    })
}

/// Takes up to `most` completions, in the order in which they came. Returns how many were written.
/// Never waits. In a child of the process that made the client it takes nothing.
///
/// # Safety
///
/// As the module says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keyserver_completions(
    client: *const KeyserverClient,
    list: *mut KeyserverCompletion,
    most: usize,
) -> usize {
    let mut written = 0;
    guarded(|| {
        // SAFETY: the caller's client.
        let client = unsafe { of(client) }?;
        if list.is_null() {
            return Err(null("list"));
        }
        for completion in client.completions.take(most)? {
            let empty = KeyserverCompletion {
                user: std::ptr::with_exposed_provenance_mut(completion.user.0),
                status: KeyserverStatus::Ok,
                output_length: 0,
                output: [0; KEYSERVER_OUTPUT_MAX],
            };
            // SAFETY: the caller's list has `most` places, and no more were taken.
            let place = unsafe { list.add(written) };
            // SAFETY: one of those places.
            unsafe { place.write(empty) };
            // The result goes to the caller's place and to no copy here, which would have to be wiped.
            // SAFETY: it has just been written, and is nobody else's during this call.
            let given = unsafe { &mut *place };
            match completion.outcome {
                Ok(bytes) => match given.output.get_mut(..bytes.len()) {
                    Some(room) => {
                        room.copy_from_slice(&bytes);
                        given.output_length = bytes.len();
                    }
                    None => given.status = KeyserverStatus::Protocol,
                },
                Err(error) => given.status = status::status(&error),
            }
            written += 1;
        }
        Ok(())
    });
    written
}

/// Writes why the last call of this thread failed, ended by a zero byte and cut to `size`. Returns
/// how many bytes the whole has, without the zero.
///
/// # Safety
///
/// As the module says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn keyserver_last_error(buffer: *mut c_char, size: usize) -> usize {
    let mut length = 0;
    guarded(|| {
        let words = status::last();
        length = words.len();
        if !buffer.is_null() && size > 0 {
            let shown = words.floor_char_boundary(size - 1);
            // SAFETY: the caller's buffer has `size` bytes, and these and a zero are no more.
            unsafe { buffer.copy_from_nonoverlapping(words.as_ptr().cast(), shown) };
            // SAFETY: as above.
            let end = unsafe { buffer.add(shown) };
            // SAFETY: as above.
            unsafe { end.write(0) };
        }
        Ok(())
    });
    length
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_is_a_status() {
        let status = guarded(|| panic!("caught"));
        assert_eq!(status, KeyserverStatus::Internal);
        assert!(
            status::last().contains("please report"),
            "{}",
            status::last()
        );
    }
}
