//! A key that is gone from a token that works.

use std::time::{Duration, Instant};

use accel::pkcs11::{SlotChoice, TokenFailure};

use super::device::{Device, PATIENCE, settings, sign};

const LIMIT: Duration = Duration::from_secs(10);

/// Takes the key `shop` from a token, and has the slot notice.
fn lose_the_key(device: &Device, token: &str) {
    for half in ["privkey", "pubkey"] {
        let delete = ["--delete-object", "--type", half, "--label", "shop"];
        device.hsm.tool(token, &delete);
    }
    let status = device.status(token);
    device
        .one
        .control
        .tell(&format!("logout {}", status.slot_id));
    device.wait_for(token, |now| {
        now.generation > status.generation && Device::is_ready(now)
    });
}

/// Requests for it are refused, those for the other keys of the slot are served; put back, it is found.
#[test]
fn a_key_that_is_gone_does_not_shut_the_slot_for_others() {
    let Some(device) = Device::new(settings()) else {
        return;
    };
    device.hsm.generate("one", "EC:prime256v1", "other", "02");
    let shop = device.load(&["one"]);
    let mut spec = device.spec(&[]);
    spec.uris = vec![
        device
            .hsm
            .uri("one", "other", &device.one.module)
            .parse()
            .unwrap(),
    ];
    let other = device.tokens.load_key(&spec).unwrap();
    lose_the_key(&device, "one");
    let generation = device.status("one").generation;
    for _ in 0..10 {
        let refused = sign(&shop, b"gone", LIMIT);
        assert_eq!(refused, Err(TokenFailure::Unavailable));
        sign(&other, b"well", LIMIT).unwrap();
    }
    assert!(!shop.token().unwrap().is_available());
    let pem = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/keys/p256.pkcs8.pem");
    device.hsm.import("one", "shop", "01", pem.as_ref());
    let end = Instant::now() + PATIENCE;
    while sign(&shop, b"back", LIMIT).is_err() {
        assert!(Instant::now() < end, "{:?}", device.status("one"));
        std::thread::sleep(Duration::from_millis(20));
    }
    // The slot was neither shut nor logged in again meanwhile.
    assert_eq!(device.status("one").generation, generation);
}

/// Whichever way slots are chosen, one without the key is not.
#[test]
fn another_slot_does_what_a_slot_without_the_key_cannot() {
    let Some(device) = Device::new(settings()) else {
        return;
    };
    let keys = [SlotChoice::Ordered, SlotChoice::LeastLoaded].map(|choice| {
        let mut spec = device.spec(&["one", "two"]);
        spec.choice = choice;
        device.tokens.load_key(&spec).unwrap()
    });
    lose_the_key(&device, "one");
    let before = device.status("two").operations;
    for key in keys.iter().cycle().take(20) {
        sign(key, b"elsewhere", LIMIT).unwrap();
    }
    assert_eq!(device.status("two").operations, before + 20);
    assert!(Device::is_ready(&device.status("one")));
}
