//! Which keys are taken, which are refused, and why.

use std::fs;
use std::time::Duration;

use accel::pkcs11::{
    BreakerState, PinSource, SlotSettings, TokenError, Tokens, UnusablePlace, list_module,
};
use accel::{Key, KeyType};

use super::device::{Device, settings};

#[test]
fn a_key_in_a_token_looks_like_any_other() {
    let Some(device) = Device::new(settings()) else {
        return;
    };
    let key = device.load(&["one"]);
    let file = fs::read(concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/tests/keys/p256.pkcs8.pem"
    ))
    .unwrap();
    let twin = Key::from_bytes(&file).unwrap();
    assert_eq!(key.ski(), twin.ski());
    assert_eq!(key.spki_der(), twin.spki_der());
    assert_eq!(key.key_type(), KeyType::P256);
    assert_eq!(key.token().unwrap().label(), "shop");
    assert!(twin.token().is_none());
    assert!(key.token().unwrap().is_available());
    assert!(!format!("{key:?} {:?}", device.tokens).contains(pkcs11_shim::SoftHsm::PIN));
}

/// A slot that no key uses is closed at the next keepalive, and a key that comes just then opens it again.
#[test]
fn a_key_that_comes_while_its_slot_closes_is_loaded() {
    let Some(device) = Device::new(SlotSettings {
        sessions: 1,
        keepalive: Duration::from_micros(500),
        ..settings()
    }) else {
        return;
    };
    for turn in 0..400 {
        let key = device.load(&["one"]);
        drop(key);
        std::thread::sleep(Duration::from_micros(turn * 2));
    }
}

#[test]
fn the_key_must_be_the_one_of_the_certificate() {
    let Some(device) = Device::new(settings()) else {
        return;
    };
    let other = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/keys/p256-b.pkcs8.pem");
    let other = Key::from_bytes(&fs::read(other).unwrap()).unwrap();
    let mut spec = device.spec(&["one"]);
    spec.expected_spki = Some(other.spki_der().to_vec());
    let error = device.tokens.load_key(&spec).unwrap_err();
    assert!(matches!(error, TokenError::Mismatch(_)), "{error}");
}

#[test]
fn what_is_not_there_is_said() {
    let Some(device) = Device::new(settings()) else {
        return;
    };
    let module = &device.one.module;
    let load = |uri: &str| {
        let mut spec = device.spec(&[]);
        spec.uris = vec![uri.parse().unwrap()];
        device.tokens.load_key(&spec).unwrap_err()
    };
    let error = load(&device.hsm.uri("one", "nothing", module));
    assert!(
        matches!(
            error,
            TokenError::NoKey {
                logged_in: true,
                ..
            }
        ),
        "{error}"
    );
    let error = load(&device.hsm.uri("three", "shop", module));
    assert!(matches!(error, TokenError::NoToken(_)), "{error}");
    let error = load(&format!(
        "pkcs11:object=shop?module-path={}",
        module.display()
    ));
    assert!(
        matches!(error, TokenError::SeveralTokens { count: 2, .. }),
        "{error}"
    );
    let without_pin = format!(
        "pkcs11:token=two;object=shop?module-path={}",
        module.display()
    );
    let error = load(&without_pin);
    assert!(
        matches!(
            error,
            TokenError::NoKey {
                logged_in: false,
                ..
            }
        ),
        "{error}"
    );
    let error = load("pkcs11:token=one;object=shop");
    assert!(matches!(error, TokenError::NoModule(_)), "{error}");
    let error = load("pkcs11:token=one;object=shop?module-path=/nowhere/x.so");
    assert!(matches!(error, TokenError::Module { .. }), "{error}");
    let missing = format!("{without_pin}&pin-source=file:/nowhere/pin");
    assert!(matches!(load(&missing), TokenError::Pin(_)));
    device.hsm.generate("one", "EC:prime256v1", "shop", "02");
    let error = load(&device.uri("one"));
    assert!(
        matches!(error, TokenError::SeveralKeys { count: 2, .. }),
        "{error}"
    );
}

/// Tokens lock after a few wrong PINs: one attempt, whatever comes after, until the PIN changes.
#[test]
fn a_wrong_pin_is_tried_once() {
    let Some(device) = Device::new(settings()) else {
        return;
    };
    fs::write(device.hsm.pin_file(), "161803").unwrap();
    let spec = device.spec(&["one"]);
    for _ in 0..5 {
        let error = device.tokens.load_key(&spec).unwrap_err();
        assert!(matches!(error, TokenError::PinRefused { .. }), "{error}");
        assert!(!error.to_string().contains("161803"), "{error}");
    }
    assert_eq!(device.status("one").breaker, BreakerState::Terminal);
    std::thread::sleep(Duration::from_secs(2));
    assert_eq!(device.one.control.count("C_Login"), 1);
    // Corrected, it is tried again, without a restart.
    fs::write(device.hsm.pin_file(), pkcs11_shim::SoftHsm::PIN).unwrap();
    device.tokens.load_key(&spec).unwrap();
    assert_eq!(device.one.control.count("C_Login"), 2);
    assert!(Device::is_ready(&device.status("one")));
}

/// A reload that no longer names a key closes its slot; one that names it again opens it.
#[test]
fn a_slot_without_keys_is_closed() {
    let Some(device) = Device::new(settings()) else {
        return;
    };
    let key = device.load(&["one"]);
    assert_eq!(device.tokens.slots().len(), 1);
    drop(key);
    let end = std::time::Instant::now() + super::device::PATIENCE;
    while !device.tokens.slots().is_empty() {
        assert!(std::time::Instant::now() < end);
        std::thread::sleep(Duration::from_millis(10));
    }
    device.load(&["one"]);
    assert_eq!(device.tokens.slots().len(), 1);
}

#[test]
fn a_module_is_listed_with_the_uri_to_paste() {
    let Some(device) = Device::new(settings()) else {
        return;
    };
    let source = PinSource::File(device.hsm.pin_file());
    let listing = list_module(&device.one.module, Some((&source, Some("one")))).unwrap();
    let one = listing
        .slots
        .iter()
        .find(|slot| slot.token == "one")
        .unwrap();
    assert!(
        one.mechanisms.iter().any(|name| name == "CKM_ECDSA"),
        "{:?}",
        one.mechanisms
    );
    let private = one
        .objects
        .iter()
        .find(|object| object.class == "private key")
        .unwrap();
    let uri = private.uri.clone().unwrap();
    assert_eq!(
        (uri.token(), uri.object(), uri.id()),
        (Some("one"), Some("shop"), Some(&[1][..]))
    );
    let mut spec = device.spec(&[]);
    spec.uris = vec![uri.to_string().parse().unwrap()];
    spec.pin = Some(source);
    device.tokens.load_key(&spec).unwrap();
    let two = listing
        .slots
        .iter()
        .find(|slot| slot.token == "two")
        .unwrap();
    assert!(
        two.objects
            .iter()
            .all(|object| object.class != "private key"),
        "no login, no private keys"
    );
}

/// Some makers give all tokens of a device one label and serial number: the slot's number is then part of their name.
#[test]
fn tokens_that_only_their_slots_tell_apart_are_two() {
    let Some(device) = Device::new(settings()) else {
        return;
    };
    // Loads the module, and tells the numbers.
    let numbers = ["one", "two"].map(|token| {
        let uri = device.hsm.uri(token, "shop", &device.one.module);
        let mut spec = device.spec(&[]);
        spec.uris = vec![uri.parse().unwrap()];
        device.tokens.load_key(&spec).unwrap();
        device.status(token).slot_id
    });
    let control = &device.one.control;
    control.tell("twins");
    let tokens = Tokens::new(settings());
    let keys = numbers.map(|number| {
        let uri = device.uri("one");
        let (_, rest) = uri.split_once(';').unwrap();
        let mut spec = device.spec(&[]);
        spec.uris = vec![format!("pkcs11:slot-id={number};{rest}").parse().unwrap()];
        tokens.load_key(&spec).unwrap()
    });
    let mut slots: Vec<_> = tokens.slots().iter().map(|slot| slot.slot_id).collect();
    assert_eq!(slots, numbers);
    // Each finds its own again.
    let generations: Vec<_> = tokens.slots().iter().map(|slot| slot.generation).collect();
    for number in numbers {
        control.tell(&format!("close {number}"));
    }
    let end = std::time::Instant::now() + super::device::PATIENCE;
    while tokens
        .slots()
        .iter()
        .zip(&generations)
        .any(|(slot, before)| slot.generation == *before)
    {
        assert!(std::time::Instant::now() < end);
        std::thread::sleep(Duration::from_millis(5));
    }
    for key in &keys {
        super::device::sign(key, b"after", Duration::from_secs(10)).unwrap();
    }
    slots = tokens.slots().iter().map(|slot| slot.slot_id).collect();
    assert_eq!(slots, numbers);
    tokens.stop();
}

/// A slot that is away when a key is loaded is told of, and is not among those of the key; loading again finds it.
#[test]
fn a_slot_that_was_away_is_told_of_and_found_later() {
    let Some(device) = Device::new(settings()) else {
        return;
    };
    device.load(&["two"]);
    let slot = device.status("two").slot_id;
    device.two.control.tell(&format!("remove {slot}"));
    let mut away = Vec::new();
    let mut note =
        |place: &UnusablePlace<'_>| away.push((place.uri.clone(), place.joins_by_itself));
    let spec = device.spec(&["one", "two"]);
    let before = device.tokens.load_key_noting(&spec, &mut note).unwrap();
    assert_eq!(away.len(), 1, "{away:?}");
    assert_eq!((away[0].0.token(), away[0].1), (Some("two"), false));
    device.two.control.tell(&format!("insert {slot}"));
    let after = device.tokens.load_key(&spec).unwrap();
    let (before, after) = (before.token().unwrap(), after.token().unwrap());
    assert!(after.has_every_slot_of(before));
    assert!(!before.has_every_slot_of(after));
    assert_eq!((before.slots(), after.slots()), (1, 2));
}

/// A module that does not start may do so later, and costs nothing where another slot has the key. A file that is no
/// module stays none.
#[test]
fn a_module_that_does_not_start_now_may_later() {
    let Some(device) = Device::new(settings()) else {
        return;
    };
    device.two.from_the_start("fail C_Initialize 0x30 1 1 *");
    let key = device.load(&["one", "two"]);
    assert_eq!(key.token().unwrap().slots(), 1);
    assert_eq!(device.load(&["one", "two"]).token().unwrap().slots(), 2);
    let mut spec = device.spec(&["one"]);
    spec.uris.push(
        "pkcs11:token=one;object=shop?module-path=/nowhere/x.so"
            .parse()
            .unwrap(),
    );
    let error = device.tokens.load_key(&spec).unwrap_err();
    assert!(matches!(error, TokenError::Module { .. }), "{error}");
}
