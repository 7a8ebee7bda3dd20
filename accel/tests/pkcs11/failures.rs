//! Every row of the table of failures, under load: the action, no wrong answer, recovery without a restart.

use std::sync::Arc;
use std::time::Duration;

use accel::Key;
use accel::pkcs11::{BreakerState, SlotSettings, TokenFailure};
use pkcs11_shim::Control;

use super::device::{Device, Load, Outcomes, settings, sign};

const CALLERS: usize = 8;

/// Puts load on slot one, lets `torment` do something to it, waits until it is ready again, and until
/// operations succeed again. The test keeps the key: a slot that no key uses is closed.
fn under_load(device: &Device, key: &Arc<Key>, torment: impl FnOnce(&Control)) -> Arc<Outcomes> {
    let load = Load::start(key, CALLERS);
    load.more(device, 200);
    torment(&device.one.control);
    device.wait_for("one", Device::is_ready);
    load.more(device, 200);
    let outcomes = load.stop();
    assert_eq!(
        outcomes.wrong.load(std::sync::atomic::Ordering::Relaxed),
        0,
        "{outcomes:?}"
    );
    outcomes
}

/// Waits until a slot has met an error so often.
fn met(device: &Device, name: &str, times: u64) {
    device.wait_for("one", |status| {
        status
            .errors
            .iter()
            .any(|(at, count)| at == name && *count >= times)
    });
}

#[test]
fn the_callers_mistakes_are_answered_and_cost_nothing_else() {
    let Some(device) = Device::new(settings()) else {
        return;
    };
    let key = device.load(&["one"]);
    for (code, name) in [
        ("0x21", "CKR_DATA_LEN_RANGE"),
        ("0x20", "CKR_DATA_INVALID"),
        ("0x71", "CKR_MECHANISM_PARAM_INVALID"),
        ("0x68", "CKR_KEY_FUNCTION_NOT_PERMITTED"),
    ] {
        let outcomes = under_load(&device, &key, |control| {
            control.tell(&format!("fail C_SignInit {code} 3 1 *"));
            met(&device, name, 3);
        });
        assert_eq!(
            outcomes.failed.load(std::sync::atomic::Ordering::Relaxed),
            3,
            "{outcomes:?}"
        );
        assert_eq!(outcomes.lost(), 3, "{outcomes:?}");
        assert_eq!(device.status("one").breaker, BreakerState::Closed);
        // Four workers and the keeper, whichever round it is.
        assert_eq!(
            device.one.control.count("C_OpenSession"),
            5,
            "sessions are kept"
        );
    }
}

#[test]
fn a_session_that_is_gone_is_replaced_and_the_operation_retried() {
    let Some(device) = Device::new(settings()) else {
        return;
    };
    let key = device.load(&["one"]);
    for (function, code, name) in [
        ("C_Sign", "0xb3", "CKR_SESSION_HANDLE_INVALID"),
        ("C_SignInit", "0xb0", "CKR_SESSION_CLOSED"),
        ("C_SignInit", "0x90", "CKR_OPERATION_ACTIVE"),
        ("C_Sign", "0x91", "CKR_OPERATION_NOT_INITIALIZED"),
    ] {
        let outcomes = under_load(&device, &key, |control| {
            let before = control.count("C_OpenSession");
            // So far apart that an operation that was hit is done before the next is.
            control.tell(&format!("fail {function} {code} 3 401 *"));
            met(&device, name, 3);
            device.wait_for("one", |_| control.count("C_OpenSession") >= before + 3);
        });
        assert_eq!(
            outcomes.lost(),
            0,
            "{name}: {outcomes:?} {:#?}",
            device.tokens.slots()
        );
    }
}

#[test]
fn all_sessions_closed_by_the_device_come_back_with_their_login() {
    let Some(device) = Device::new(settings()) else {
        return;
    };
    let key = device.load(&["one"]);
    let outcomes = under_load(&device, &key, |control| {
        let (slot, generation) = {
            let status = device.status("one");
            (status.slot_id, status.generation)
        };
        control.tell(&format!("close {slot}"));
        device.wait_for("one", |status| status.generation > generation);
    });
    assert_eq!(
        outcomes.lost(),
        0,
        "{outcomes:?} {:#?}",
        device.tokens.slots()
    );
}

#[test]
fn a_lost_login_is_renewed_and_the_operation_retried() {
    let Some(device) = Device::new(settings()) else {
        return;
    };
    let key = device.load(&["one"]);
    for (function, code, name) in [
        ("C_SignInit", "0x101", "CKR_USER_NOT_LOGGED_IN"),
        ("C_SignInit", "0x60", "CKR_KEY_HANDLE_INVALID"),
        ("C_SignInit", "0x82", "CKR_OBJECT_HANDLE_INVALID"),
    ] {
        let outcomes = under_load(&device, &key, |control| {
            let generation = device.status("one").generation;
            control.tell(&format!("fail {function} {code} 1 1 *"));
            met(&device, name, 1);
            device.wait_for("one", |status| status.generation > generation);
        });
        assert_eq!(
            outcomes.lost(),
            0,
            "{name}: {outcomes:?} {:#?}",
            device.tokens.slots()
        );
    }
}

/// The real thing: the token forgets the login, and with it all handles.
#[test]
fn a_token_that_logs_out_by_itself_is_logged_in_again() {
    let Some(device) = Device::new(settings()) else {
        return;
    };
    let key = device.load(&["one"]);
    let logins = std::cell::Cell::new(0);
    let outcomes = under_load(&device, &key, |control| {
        let status = device.status("one");
        logins.set(control.count("C_Login"));
        control.tell(&format!("logout {}", status.slot_id));
        device.wait_for("one", |now| now.generation > status.generation);
    });
    assert_eq!(
        outcomes.lost(),
        0,
        "{outcomes:?} {:#?}",
        device.tokens.slots()
    );
    assert_eq!(device.one.control.count("C_Login"), logins.get() + 1);
}

#[test]
fn a_busy_device_gets_less_and_is_asked_again() {
    let Some(device) = Device::new(settings()) else {
        return;
    };
    let key = device.load(&["one"]);
    for (function, code, name) in [
        ("C_Sign", "0x6", "CKR_FUNCTION_FAILED"),
        ("C_Sign", "0x31", "CKR_DEVICE_MEMORY"),
        ("C_SignInit", "0x2", "CKR_HOST_MEMORY"),
    ] {
        let outcomes = under_load(&device, &key, |control| {
            control.tell(&format!("fail {function} {code} 40 2 *"));
            device.wait_for("one", |status| status.limit < 4);
            met(&device, name, 40);
        });
        assert_eq!(
            outcomes.lost(),
            0,
            "{name}: {outcomes:?} {:#?}",
            device.tokens.slots()
        );
    }
}

#[test]
fn a_slot_in_trouble_is_shut_probed_and_opened_again() {
    let Some(device) = Device::new(settings()) else {
        return;
    };
    let key = device.load(&["one", "two"]);
    for (code, name) in [
        ("0x30", "CKR_DEVICE_ERROR"),
        ("0x32", "CKR_DEVICE_REMOVED"),
        ("0xe1", "CKR_TOKEN_NOT_RECOGNIZED"),
        ("0x3", "CKR_SLOT_ID_INVALID"),
        ("0x5", "CKR_GENERAL_ERROR"),
    ] {
        let outcomes = under_load(&device, &key, |control| {
            let generation = device.status("one").generation;
            control.tell(&format!("fail C_Sign {code} 12 1 *"));
            device.wait_for("one", |status| !Device::is_ready(status));
            control.tell("reset");
            device.wait_for("one", |status| status.generation > generation);
        });
        assert_eq!(
            outcomes.lost(),
            0,
            "{name}: the second slot takes over: {outcomes:?}"
        );
        assert!(device.errors("one", name) >= 5, "{name}");
    }
}

/// Whatever shuts the slot, a worker or the watchdog, and however long its keeper would have slept.
#[test]
fn a_slot_that_was_shut_is_probed_long_before_the_next_keepalive() {
    let Some(device) = Device::new(SlotSettings {
        keepalive: Duration::from_secs(120),
        call_timeout: Duration::from_millis(300),
        ..settings()
    }) else {
        return;
    };
    let key = device.load(&["one"]);
    let control = &device.one.control;
    // A slot that has recovered once waits for the next keepalive as well.
    for _ in 0..2 {
        control.tell("fail C_Sign 0x30 5 1 *");
        for _ in 0..5 {
            sign(&key, b"fails", Duration::from_secs(10)).unwrap_err();
        }
        back_soon(&device);
        sign(&key, b"after", Duration::from_secs(10)).unwrap();
    }
    control.tell("hang C_Sign *");
    let hung: Vec<_> = (0..5)
        .map(|_| {
            let key = Arc::clone(&key);
            std::thread::spawn(move || sign(&key, b"hung", Duration::from_secs(10)))
        })
        .collect();
    device.wait_for("one", |status| {
        matches!(status.breaker, BreakerState::Open { .. })
    });
    control.tell("release");
    back_soon(&device);
    for thread in hung {
        // Some came back in time, others did not.
        let _ = thread.join().unwrap();
    }
}

/// The first probe is due after a second: nowhere near a minute passes, whatever else the machine does.
fn back_soon(device: &Device) {
    let begun = std::time::Instant::now();
    device.wait_for("one", Device::is_ready);
    let elapsed = begun.elapsed();
    assert!(elapsed < Duration::from_secs(15), "{elapsed:?}");
}

#[test]
fn a_token_that_is_pulled_out_comes_back_by_itself() {
    let Some(device) = Device::new(settings()) else {
        return;
    };
    let key = device.load(&["one", "two"]);
    let outcomes = under_load(&device, &key, |control| {
        let status = device.status("one");
        control.tell(&format!("remove {}", status.slot_id));
        device.wait_for("one", |status| {
            matches!(status.breaker, BreakerState::Open { .. })
        });
        control.tell(&format!("insert {}", status.slot_id));
    });
    assert_eq!(
        outcomes.lost(),
        0,
        "{outcomes:?} {:#?}",
        device.tokens.slots()
    );
}

/// Without a second slot, what the failures hit is refused, with its own code; everything after is served.
#[test]
fn a_single_slot_in_trouble_refuses_and_recovers() {
    let Some(device) = Device::new(settings()) else {
        return;
    };
    let key = device.load(&["one"]);
    let outcomes = under_load(&device, &key, |control| {
        // Until it is told otherwise: the probes fail, too.
        control.tell("fail C_Sign 0x30 * 1 *");
        device.wait_for("one", |status| {
            matches!(status.breaker, BreakerState::Open { .. })
        });
        let late = device.load_anyway(&["one"]);
        assert!(!late.token().unwrap().is_available());
        let refused = sign(&late, b"refused", Duration::from_secs(10));
        assert_eq!(refused, Err(TokenFailure::Unavailable));
        control.tell("reset");
    });
    let unavailable = outcomes
        .unavailable
        .load(std::sync::atomic::Ordering::Relaxed);
    assert!(unavailable > 0);
    assert_eq!(outcomes.lost(), unavailable, "{outcomes:?}");
}

#[test]
fn a_module_that_forgets_is_initialized_again() {
    let Some(device) = Device::new(settings()) else {
        return;
    };
    let key = device.load(&["one"]);
    let outcomes = under_load(&device, &key, |control| {
        let generation = device.status("one").generation;
        let before = control.count("C_Initialize");
        control.tell("finalize");
        device.wait_for("one", |status| status.generation > generation);
        assert!(control.count("C_Initialize") > before);
    });
    assert_eq!(
        outcomes.lost(),
        0,
        "{outcomes:?} {:#?}",
        device.tokens.slots()
    );
}

/// What only a new start of the module heals, is healed by one: once the breaker has been open for long enough.
#[test]
fn a_module_that_stays_ill_is_initialized_again() {
    let Some(device) = Device::new(SlotSettings {
        initialize_after: Duration::from_secs(2),
        ..settings()
    }) else {
        return;
    };
    let key = device.load(&["one", "two"]);
    let before = std::cell::Cell::new(0);
    let outcomes = under_load(&device, &key, |control| {
        before.set(control.count("C_Initialize"));
        control.tell("ail 0x5");
        device.wait_for("one", |status| {
            matches!(status.breaker, BreakerState::Open { .. })
        });
    });
    assert_eq!(
        outcomes.lost(),
        0,
        "the second slot took over: {outcomes:?}"
    );
    let control = &device.one.control;
    assert_eq!(control.count("C_Initialize"), before.get() + 1);
    assert!(
        device.errors("one", "CKR_GENERAL_ERROR") >= 6,
        "a probe failed, too"
    );
}

/// The module is left alone while another of its slots works: that one's sessions would be lost.
#[test]
fn a_module_with_a_slot_that_works_is_not_initialized_again() {
    let Some(device) = Device::new(SlotSettings {
        initialize_after: Duration::from_millis(500),
        ..settings()
    }) else {
        return;
    };
    // Both tokens through one module.
    let mut spec = device.spec(&["one"]);
    spec.uris = vec![
        device
            .hsm
            .uri("two", "shop", &device.one.module)
            .parse()
            .unwrap(),
    ];
    let neighbour = Arc::new(device.tokens.load_key(&spec).unwrap());
    let key = device.load(&["one"]);
    let load = Load::start(&neighbour, 4);
    let control = &device.one.control;
    let (before, slot) = (control.count("C_Initialize"), device.status("one").slot_id);
    control.tell(&format!("fail C_Sign 0x5 * 1 {slot}"));
    for _ in 0..5 {
        sign(&key, b"fails", Duration::from_secs(10)).unwrap_err();
    }
    // The first probe, after a second, is past the time as well.
    let probes = control.count("C_OpenSession");
    device.wait_for("one", |_| device.errors("one", "CKR_GENERAL_ERROR") >= 7);
    assert!(control.count("C_OpenSession") >= probes);
    assert_eq!(control.count("C_Initialize"), before);
    control.tell("reset");
    device.wait_for("one", Device::is_ready);
    load.stop_without_loss(&device);
}

#[test]
fn a_wrong_signature_is_never_released() {
    let Some(device) = Device::new(settings()) else {
        return;
    };
    let key = device.load(&["one", "two"]);
    let outcomes = under_load(&device, &key, |control| {
        control.tell("wrong 3");
        device.wait_for("one", |status| status.check_failures == 3);
    });
    assert_eq!(outcomes.lost(), 0, "another slot answered: {outcomes:?}");
}

/// The same where results are checked by other threads than those that got them: a slow device, and sessions that
/// it does not need.
#[test]
fn a_wrong_signature_of_a_slow_device_is_never_released() {
    let settings = SlotSettings {
        sessions: 8,
        start_limit: Some(2),
        ..settings()
    };
    let Some(device) = Device::new(settings) else {
        return;
    };
    let key = device.load(&["one", "two"]);
    let outcomes = under_load(&device, &key, |control| {
        control.tell("latency C_Sign 3000");
        control.tell("width 2");
        let before = device.status("one").operations;
        device.wait_for("one", |status| status.operations > before + 100);
        control.tell("wrong 4");
        device.wait_for("one", |status| status.check_failures == 4);
    });
    assert_eq!(outcomes.lost(), 0, "another slot answered: {outcomes:?}");
    let status = device.wait_for("one", |status| status.in_flight == 0);
    assert_eq!(status.queued, 0, "{status:?}");
}

#[test]
fn a_pin_that_is_refused_later_shuts_the_slot_for_good() {
    for (code, name) in [
        ("0xa0", "CKR_PIN_INCORRECT"),
        ("0xa4", "CKR_PIN_LOCKED"),
        ("0xa3", "CKR_PIN_EXPIRED"),
        // A vendor's own word for any of these, perhaps.
        ("0x80000123", "CKR_VENDOR_DEFINED_0x80000123"),
    ] {
        let Some(device) = Device::new(settings()) else {
            return;
        };
        let key = device.load(&["one", "two"]);
        let load = Load::start(&key, CALLERS);
        load.more(&device, 100);
        let control = &device.one.control;
        let before = control.count("C_Login");
        control.tell(&format!("fail C_Login {code} 1 1 *"));
        let slot = device.status("one").slot_id;
        control.tell(&format!("logout {slot}"));
        device.wait_for("one", |status| status.breaker == BreakerState::Terminal);
        load.more(&device, 200);
        // Time enough for many keepalives and for the first probe of a breaker.
        std::thread::sleep(Duration::from_secs(2));
        assert_eq!(control.count("C_Login"), before + 1, "{name}: tried once");
        assert_eq!(device.status("one").breaker, BreakerState::Terminal);
        let outcomes = load.stop();
        assert_eq!(
            outcomes.lost(),
            0,
            "{name}: {outcomes:?} {:#?}",
            device.tokens.slots()
        );
        assert_eq!(device.errors("one", name), 1);
    }
}

/// The keeper finds the login gone by itself, in the middle of its keepalive, while workers ask it to renew the login. What
/// it was asked for is not done once more behind its own try.
#[test]
fn a_login_that_is_renewed_by_two_at_once_is_tried_once() {
    let Some(device) = Device::new(SlotSettings {
        keepalive: Duration::from_millis(10),
        call_timeout: Duration::from_secs(30),
        ..settings()
    }) else {
        return;
    };
    let key = device.load(&["one", "two"]);
    let control = &device.one.control;
    let load = Load::start(&key, CALLERS);
    load.more(&device, 100);
    // Nearly always in this call. Workers with work make none of them.
    control.tell("latency C_GetSessionInfo 1000000");
    let calls = control.count("C_GetSessionInfo");
    device.wait_for("one", |_| control.count("C_GetSessionInfo") > calls);
    control.tell("fail C_Login 0xa0 * 1 *");
    control.tell(&format!("logout {}", device.status("one").slot_id));
    device.wait_for("one", |status| status.breaker == BreakerState::Terminal);
    load.more(&device, 200);
    load.stop_without_loss(&device);
    // What the keeper does after that one.
    let looked = control.count("C_OpenSession");
    std::thread::sleep(Duration::from_secs(2));
    assert_eq!(control.count("C_OpenSession"), looked);
    assert_eq!(device.errors("one", "CKR_PIN_INCORRECT"), 1);
}
