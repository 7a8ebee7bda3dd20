//! What is tried to log in with: no PIN that was refused, whoever offers it, and none where a good one is known.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::time::{Duration, Instant};

use accel::pkcs11::{BreakerState, PinSource, TokenError, TokenKeySpec};

use super::device::{Device, PATIENCE, settings, sign};

/// The key `shop` of token one, with a PIN source of its own.
fn with_pin(device: &Device, name: &str, pin: &str) -> TokenKeySpec {
    let path = device.hsm.folder().join(name);
    fs::write(&path, pin).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    let uri = device.uri("one");
    let (without_source, _) = uri.rsplit_once("&pin-source=").unwrap();
    let mut spec = device.spec(&[]);
    spec.uris = vec![without_source.parse().unwrap()];
    spec.pin = Some(PinSource::File(path));
    spec
}

/// The token forgets its login; returns how many attempts it took until the slot was ready again.
fn attempts_after_logout(device: &Device) -> u64 {
    let (status, control) = (device.status("one"), &device.one.control);
    let before = control.count("C_Login");
    control.tell(&format!("logout {}", status.slot_id));
    device.wait_for("one", |now| {
        now.generation > status.generation && Device::is_ready(now)
    });
    control.count("C_Login") - before
}

#[test]
fn no_refused_pin_is_tried_again_whoever_offers_it() {
    let Some(device) = Device::new(settings()) else {
        return;
    };
    let wrong = [
        with_pin(&device, "a", "161803"),
        with_pin(&device, "b", "271828"),
    ];
    for spec in wrong.iter().chain(&wrong) {
        let error = device.tokens.load_key(spec).unwrap_err();
        assert!(matches!(error, TokenError::PinRefused { .. }), "{error}");
    }
    let control = &device.one.control;
    assert_eq!(control.count("C_Login"), 2);
    assert_eq!(device.status("one").breaker, BreakerState::Terminal);
    // The right one is tried, and the others are of no consequence any more.
    let key = device.load(&["one"]);
    for spec in &wrong {
        device.tokens.load_key(spec).unwrap();
    }
    assert_eq!(control.count("C_Login"), 3);
    assert_eq!(attempts_after_logout(&device), 1);
    sign(&key, b"after", Duration::from_secs(10)).unwrap();
}

/// A stale PIN beside the one that has logged in is kept aside, and does not lock the slot at the next login.
#[test]
fn a_pin_that_works_is_not_replaced_by_one_that_was_not_tried() {
    let Some(device) = Device::new(settings()) else {
        return;
    };
    let key = device.load(&["one"]);
    let stale = device.tokens.load_key(&with_pin(&device, "b", "271828"));
    assert_eq!(attempts_after_logout(&device), 1);
    sign(&key, b"after", Duration::from_secs(10)).unwrap();
    sign(&stale.unwrap(), b"after", Duration::from_secs(10)).unwrap();
}

/// A reload gives the new PIN while the old login still holds: it is tried when the old one is refused, and from then
/// on. One attempt each time the slot tries to recover.
#[test]
fn a_rotated_pin_is_used_at_the_next_login() {
    let Some(device) = Device::new(settings()) else {
        return;
    };
    let key = device.load(&["one"]);
    let stale = with_pin(&device, "b", "271828");
    device.tokens.load_key(&stale).unwrap();
    device.one.control.tell("pin 314159");
    fs::write(device.hsm.pin_file(), "314159").unwrap();
    device.load(&["one"]);
    device.tokens.load_key(&stale).unwrap();
    assert_eq!(device.one.control.count("C_Login"), 1, "not tried yet");
    assert_eq!(attempts_after_logout(&device), 2, "the old one, the newest");
    assert_eq!(attempts_after_logout(&device), 1, "the new one");
    sign(&key, b"after", Duration::from_secs(10)).unwrap();
}

/// A slot that no key uses is closed. When it is opened again it knows what was refused before.
#[test]
fn a_slot_that_is_opened_again_remembers_what_was_refused() {
    let Some(device) = Device::new(settings()) else {
        return;
    };
    let wrong = with_pin(&device, "a", "161803");
    device.tokens.load_key(&wrong).unwrap_err();
    device.load(&["one"]);
    let end = Instant::now() + PATIENCE;
    while !device.tokens.slots().is_empty() {
        assert!(Instant::now() < end, "it is unused");
        std::thread::sleep(Duration::from_millis(10));
    }
    // The token is logged in for as long as a session is open, and who opens another then need not log in.
    let control = &device.one.control;
    while control.count("C_CloseSession") < control.count("C_OpenSession") {
        assert!(Instant::now() < end, "the sessions are closed");
        std::thread::sleep(Duration::from_millis(10));
    }
    let attempts = device.one.control.count("C_Login");
    let error = device.tokens.load_key(&wrong).unwrap_err();
    assert!(matches!(error, TokenError::PinRefused { .. }), "{error}");
    assert_eq!(device.one.control.count("C_Login"), attempts);
    device.load(&["one"]);
    assert_eq!(device.one.control.count("C_Login"), attempts + 1);
}
