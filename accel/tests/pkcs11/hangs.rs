//! Calls that do not return.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::{Duration, Instant};

use accel::pkcs11::{BreakerState, SlotSettings, TokenFailure};

use super::device::{Device, Load, settings, sign};

#[test]
fn a_hung_call_is_answered_at_its_deadline() {
    let Some(device) = Device::new(settings()) else {
        return;
    };
    let key = device.load(&["one"]);
    sign(&key, b"before", Duration::from_secs(10)).unwrap();
    device.one.control.tell("hang C_Sign *");
    let begun = Instant::now();
    let result = sign(&key, b"hung", Duration::from_millis(300));
    assert_eq!(result, Err(TokenFailure::Deadline));
    let elapsed = begun.elapsed();
    assert!(elapsed >= Duration::from_millis(300), "{elapsed:?}");
    assert!(elapsed < Duration::from_secs(5), "{elapsed:?}");
    device.one.control.tell("release");
    device.wait_for("one", |status| status.stuck_threads == 0);
    sign(&key, b"after", Duration::from_secs(10)).unwrap();
}

/// Threads are given up and replaced, up to twice as many as there are sessions; the module is not initialized
/// while they are stuck; and when the device answers again, all is as before.
#[test]
fn threads_that_hang_are_replaced_but_not_without_end() {
    let settings = SlotSettings {
        call_timeout: Duration::from_millis(300),
        ..settings()
    };
    let Some(device) = Device::new(settings) else {
        return;
    };
    let key = device.load(&["one"]);
    let load = Load::start(&key, 16);
    load.more(&device, 100);
    let control = &device.one.control;
    let initialized = control.count("C_Initialize");
    control.tell("hang * *");
    device.wait_for("one", |status| status.stuck_threads >= 5);
    device.wait_for("one", |status| !status.ready);
    thread::sleep(Duration::from_millis(1500));
    let status = device.status("one");
    assert!(
        status.stuck_threads <= 2 * settings.sessions + 1,
        "{status:?}"
    );
    assert_eq!(control.count("C_Initialize"), initialized);
    control.tell("release");
    device.wait_for("one", |status| {
        status.stuck_threads == 0 && Device::is_ready(status)
    });
    load.more(&device, 200);
    let outcomes = load.stop();
    assert_eq!(outcomes.wrong.load(Ordering::Relaxed), 0);
    let status = device.wait_for("one", |status| status.sessions == settings.sessions);
    assert_eq!(status.in_flight, 0);
}

/// While one slot hangs, the other serves the key they share: first what comes, and then what is stuck.
#[test]
fn a_hung_slot_loses_nothing_that_another_can_do() {
    let Some(device) = Device::new(settings()) else {
        return;
    };
    let key = device.load(&["one", "two"]);
    let load = Load::start(&key, 8);
    load.more(&device, 100);
    device.one.control.tell("hang C_Sign *");
    device.wait_for("one", |status| status.stuck_threads > 0);
    load.more(&device, 500);
    device.one.control.tell("release");
    device.wait_for("one", |status| status.stuck_threads == 0);
    load.stop_without_loss(&device);
}

/// A device that fails hangs as well when it is asked to close the session: the thread is given up and replaced,
/// and the operation is done elsewhere.
#[test]
fn a_session_that_cannot_be_closed_costs_its_thread_and_nothing_else() {
    for code in ["0x91", "0x30"] {
        let settings = settings();
        let Some(device) = Device::new(settings) else {
            return;
        };
        let key = device.load(&["one", "two"]);
        let load = Load::start(&key, 8);
        load.more(&device, 100);
        let control = &device.one.control;
        control.tell("hang C_CloseSession *");
        control.tell(&format!("fail C_Sign {code} 1 1 *"));
        device.wait_for("one", |status| status.stuck_threads == 1);
        // As many work as before.
        device.wait_for("one", |status| status.sessions > settings.sessions);
        load.more(&device, 500);
        control.tell("release");
        device.wait_for("one", |status| {
            status.stuck_threads == 0 && status.sessions == settings.sessions
        });
        load.stop_without_loss(&device);
    }
}

/// A key in another slot notices nothing.
#[test]
fn a_hung_slot_does_not_touch_another() {
    let Some(device) = Device::new(settings()) else {
        return;
    };
    let (hung, other) = (device.load(&["one"]), device.load(&["two"]));
    device.one.control.tell("hang C_Sign *");
    let stuck: Vec<_> = (0..4)
        .map(|_| {
            let key = Arc::clone(&hung);
            thread::spawn(move || sign(&key, b"hung", Duration::from_secs(1)))
        })
        .collect();
    device.wait_for("one", |status| status.in_flight == 4);
    for _ in 0..200 {
        sign(&other, b"well", Duration::from_secs(10)).unwrap();
    }
    for thread in stuck {
        assert_eq!(thread.join().unwrap(), Err(TokenFailure::Deadline));
    }
    device.one.control.tell("release");
    device.wait_for("one", |status| status.stuck_threads == 0);
}

/// Two threads for one session, and both hang: too few for the breaker to open by itself, but nobody works any more.
#[test]
fn a_slot_without_threads_is_shut_and_another_serves() {
    let settings = SlotSettings {
        sessions: 1,
        call_timeout: Duration::from_millis(300),
        ..settings()
    };
    let Some(device) = Device::new(settings) else {
        return;
    };
    let key = device.load(&["one", "two"]);
    let control = &device.one.control;
    control.tell("hang C_Sign *");
    for turn in 1..=2 {
        sign(&key, b"hangs, then elsewhere", Duration::from_secs(10)).unwrap();
        device.wait_for("one", |status| status.stuck_threads >= turn);
    }
    sign(&key, b"elsewhere", Duration::from_secs(10)).unwrap();
    assert!(!Device::is_ready(&device.status("one")));
    control.tell("release");
    device.wait_for("one", Device::is_ready);
    sign(&key, b"after", Duration::from_secs(10)).unwrap();
}

/// The device works, as each probe finds, but the threads hang in closing their sessions: the slot stays shut for as
/// long as there is nobody to work for it.
#[test]
fn a_slot_without_threads_is_not_opened_by_a_probe() {
    let settings = SlotSettings {
        sessions: 1,
        call_timeout: Duration::from_millis(300),
        ..settings()
    };
    let Some(device) = Device::new(settings) else {
        return;
    };
    let key = device.load(&["one", "two"]);
    let control = &device.one.control;
    control.tell("hang C_CloseSession *");
    control.tell("fail C_Sign 0x30 2 1 *");
    for turn in 1..=2 {
        sign(&key, b"elsewhere", Duration::from_secs(10)).unwrap();
        device.wait_for("one", |status| status.stuck_threads >= turn);
    }
    let signed = control.count("C_Sign");
    device.wait_for("one", |status| {
        assert!(
            !status.ready || control.count("C_Sign") == signed,
            "{status:?}"
        );
        device.errors("one", "every thread is stuck") >= 2
    });
    assert!(control.count("C_Sign") > signed, "it was probed");
    control.tell("release");
    device.wait_for("one", Device::is_ready);
    sign(&key, b"after", Duration::from_secs(10)).unwrap();
}

/// The login does not return: what waits for it goes to the other slot, and the slot is not said to be usable.
#[test]
fn a_slot_whose_login_hangs_is_shut_until_it_returns() {
    let settings = SlotSettings {
        call_timeout: Duration::from_millis(500),
        ..settings()
    };
    let Some(device) = Device::new(settings) else {
        return;
    };
    let (key, alone) = (device.load(&["one", "two"]), device.load(&["one"]));
    let load = Load::start(&key, 8);
    load.more(&device, 100);
    let control = &device.one.control;
    control.tell("hang C_Login *");
    control.tell(&format!("logout {}", device.status("one").slot_id));
    device.wait_for("one", |status| {
        matches!(status.breaker, BreakerState::Open { .. })
    });
    assert!(!alone.token().unwrap().is_available());
    load.more(&device, 200);
    control.tell("release");
    device.wait_for("one", Device::is_ready);
    sign(&alone, b"after", Duration::from_secs(10)).unwrap();
    load.stop_without_loss(&device);
}

/// Logging in and finding keys takes many calls. Each may take its time.
#[test]
fn a_slot_that_recovers_slowly_is_left_to_it() {
    let settings = SlotSettings {
        call_timeout: Duration::from_secs(2),
        ..settings()
    };
    let Some(device) = Device::new(settings) else {
        return;
    };
    let key = device.load(&["one"]);
    let (control, status) = (&device.one.control, device.status("one"));
    for function in [
        "C_GetSessionInfo",
        "C_Login",
        "C_FindObjectsInit",
        "C_GetAttributeValue",
    ] {
        control.tell(&format!("latency {function} 400000"));
    }
    control.tell(&format!("logout {}", status.slot_id));
    let begun = Instant::now();
    device.wait_for("one", |now| {
        assert_eq!(now.breaker, BreakerState::Closed, "{now:?}");
        now.generation > status.generation
    });
    assert!(
        begun.elapsed() > settings.call_timeout,
        "{:?}",
        begun.elapsed()
    );
    sign(&key, b"after", Duration::from_secs(10)).unwrap();
}

/// Two tokens behind one module: the slot that recovers asks about its own token, and not about one that hangs.
#[test]
fn a_hung_token_does_not_keep_its_neighbour_from_recovering() {
    let Some(device) = Device::new(settings()) else {
        return;
    };
    let key = device.load(&["one"]);
    let mut spec = device.spec(&[]);
    spec.uris = vec![
        device
            .hsm
            .uri("two", "shop", &device.one.module)
            .parse()
            .unwrap(),
    ];
    let _neighbour = device.tokens.load_key(&spec).unwrap();
    let control = &device.one.control;
    // Whichever of the two the module names first.
    for (recovers, hangs) in [("one", "two"), ("two", "one")] {
        let hangs = device.status(hangs).slot_id;
        control.tell(&format!("hang C_GetTokenInfo {hangs}"));
        let status = device.status(recovers);
        control.tell(&format!("close {}", status.slot_id));
        device.wait_for(recovers, |now| {
            now.generation > status.generation && Device::is_ready(now)
        });
        control.tell("release");
    }
    sign(&key, b"after", Duration::from_secs(10)).unwrap();
}
