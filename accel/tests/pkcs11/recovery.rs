//! Ways back for a slot that fails, and when it must be shut first.

use std::sync::Arc;
use std::time::Duration;

use accel::pkcs11::{BreakerState, SlotSettings, SlotStatus, TokenFailure};

use super::device::{Device, Load, settings, sign};

const LIMIT: Duration = Duration::from_secs(10);

fn is_open(status: &SlotStatus) -> bool {
    matches!(status.breaker, BreakerState::Open { .. })
}

/// The session cannot be opened after the first new start of the module; then the module forgets: it is started once
/// more, as often as it takes.
#[test]
fn a_module_is_initialized_again_as_often_as_it_takes() {
    let Some(device) = Device::new(SlotSettings {
        initialize_after: Duration::from_millis(500),
        ..settings()
    }) else {
        return;
    };
    let key = device.load(&["one"]);
    // No worker meets what is meant for the keeper's session.
    device.wait_for("one", |status| status.sessions == 4);
    let control = &device.one.control;
    let before = control.count("C_Initialize");
    control.tell("fail C_Sign 0x5 * 1 *");
    for _ in 0..5 {
        sign(&key, b"fails", LIMIT).unwrap_err();
    }
    control.tell("fail C_OpenSession 0x54 * 1 *");
    device.wait_for("one", |_| {
        device.errors("one", "CKR_FUNCTION_NOT_SUPPORTED") >= 1
    });
    assert_eq!(control.count("C_Initialize"), before + 1);
    control.tell("finalize");
    control.tell("reset");
    device.wait_for("one", Device::is_ready);
    sign(&key, b"after", LIMIT).unwrap();
}

/// A worker that has just dropped its session learns from the opening of the next that the module has forgotten.
#[test]
fn a_module_that_forgets_is_initialized_again_by_a_worker_without_a_session() {
    let Some(device) = Device::new(SlotSettings {
        sessions: 1,
        keepalive: Duration::from_secs(120),
        ..settings()
    }) else {
        return;
    };
    let key = device.load(&["one"]);
    let control = &device.one.control;
    control.tell("fail C_Sign 0x30 1 1 *");
    let failed = sign(&key, b"fails", LIMIT);
    assert_eq!(failed, Err(TokenFailure::Unavailable));
    device.wait_for("one", |status| status.sessions == 0);
    control.tell("finalize");
    sign(&key, b"after", LIMIT).unwrap();
}

/// Logging in succeeds each time, and the operation fails each time: that is a slot in trouble.
#[test]
fn a_login_that_heals_nothing_shuts_the_slot() {
    let Some(device) = Device::new(settings()) else {
        return;
    };
    let key = device.load(&["one", "two"]);
    device.one.control.tell("fail C_SignInit 0x101 * 1 *");
    let mut turns = 0;
    while !is_open(&device.status("one")) {
        sign(&key, b"elsewhere", LIMIT).unwrap();
        turns += 1;
        assert!(turns <= 20, "{:?}", device.status("one"));
    }
    device.one.control.tell("reset");
    device.wait_for("one", Device::is_ready);
}

/// The sessions that are open fail for good, the keeper's among them; the module works, as its other slot shows.
#[test]
fn a_session_that_fails_each_probe_is_replaced() {
    let Some(device) = Device::new(settings()) else {
        return;
    };
    let key = device.load(&["one"]);
    let mut spec = device.spec(&[]);
    let uri = device.hsm.uri("two", "shop", &device.one.module);
    spec.uris = vec![uri.parse().unwrap()];
    let neighbour = Arc::new(device.tokens.load_key(&spec).unwrap());
    let load = Load::start(&neighbour, 2);
    let (control, slot) = (&device.one.control, device.status("one").slot_id);
    let initialized = control.count("C_Initialize");
    // How many signatures fail in a new session depends on which workers meet them. So they all do, until the slot is
    // shut, and none after: the probes wait longer each time, and would be minutes in using up a number of failures.
    control.tell(&format!("fail C_Sign 0x30 * 1 {slot}"));
    control.tell(&format!("spoil 0x30 {slot}"));
    while !is_open(&device.status("one")) {
        sign(&key, b"fails", LIMIT).unwrap_err();
    }
    control.tell("heal C_Sign");
    device.wait_for("one", Device::is_ready);
    // Those of the workers that had nothing to do meanwhile, too: none of them costs an operation.
    let after = Load::start(&key, 8);
    after.more(&device, 200);
    after.stop_without_loss(&device);
    assert_eq!(control.count("C_Initialize"), initialized);
    load.stop_without_loss(&device);
}
