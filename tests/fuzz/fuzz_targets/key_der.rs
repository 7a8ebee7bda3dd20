#![no_main]
//! The key reader must never panic, and what it takes must be usable.

use accel::{Key, KeyRules};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let Ok(key) = Key::from_bytes_with(bytes, KeyRules { any_exponent: true }) else {
        return;
    };
    assert!(!key.spki_der().is_empty());
    assert!(!format!("{key:?}").is_empty());
    // Strict rules may refuse it, but must not see another key.
    if let Ok(strict) = Key::from_bytes(bytes) {
        assert_eq!(strict.ski(), key.ski());
    }
});
