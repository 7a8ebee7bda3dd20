//! PKCS#11 URIs: whatever the text, an answer; what is read means the same after it was written, and no
//! error repeats what may be a PIN.
#![no_main]

use accel::pkcs11::TokenUri;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Ok(text) = std::str::from_utf8(data) else { return };
    match text.parse::<TokenUri>() {
        Ok(uri) => assert_eq!(uri.to_string().parse(), Ok(uri)),
        Err(error) => assert!(!error.to_string().is_empty()),
    }
});
