//! What a device can take: sessions, operations at once, requests that wait.

use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use accel::pkcs11::{SlotSettings, TokenFailure};

use super::device::{Device, Load, PATIENCE, settings, sign};

/// A device of 20 ms that runs 16 at once: from below and from above the limit comes near 16 and stays. That is a quarter of
/// a processor's work: a machine that gives less would be the narrower device, and its limit the right one to find. What
/// a device of 5 ms gives in figures, on a machine that does nothing else, `benches/pkcs11.rs` measures.
#[test]
fn the_limit_is_found_from_below_and_from_above_timing() {
    for start in [4, 64] {
        let settings = SlotSettings {
            sessions: 64,
            start_limit: Some(start),
            queue: Some(512),
            ..SlotSettings::default()
        };
        let Some(device) = Device::new(settings) else {
            return;
        };
        let key = device.load(&["one"]);
        let control = &device.one.control;
        control.tell("latency C_Sign 20000");
        control.tell("width 16");
        let load = Load::start(&key, 96);
        let end = Instant::now() + 2 * PATIENCE;
        // Trials pass through it on their way: it has to stay.
        let mut near = 0;
        while near < 100 {
            thread::sleep(Duration::from_millis(10));
            near = if (12..=32).contains(&device.status("one").limit) {
                near + 1
            } else {
                0
            };
            assert!(
                Instant::now() < end,
                "from {start}: {:?}",
                device.status("one")
            );
        }
        load.stop_without_loss(&device);
    }
}

#[test]
fn a_token_with_few_sessions_is_used_with_those() {
    let Some(device) = Device::new(SlotSettings {
        sessions: 8,
        ..settings()
    }) else {
        return;
    };
    let key = device.load(&["one"]);
    device.wait_for("one", |status| status.sessions == 8);
    let control = &device.one.control;
    // The device takes all sessions away and gives four back: one for the login and three to work with.
    control.tell("sessions 4");
    control.tell(&format!("close {}", device.status("one").slot_id));
    let load = Load::start(&key, 16);
    load.more(&device, 300);
    let status = device.wait_for("one", |status| status.sessions <= 3 && status.limit <= 3);
    assert!(
        status
            .errors
            .iter()
            .any(|(name, _)| name == "CKR_SESSION_COUNT"),
        "{status:?}"
    );
    load.more(&device, 200);
    load.stop_without_loss(&device);
}

#[test]
fn a_full_queue_refuses_as_busy() {
    let settings = SlotSettings {
        sessions: 1,
        queue: Some(2),
        call_timeout: PATIENCE,
        ..settings()
    };
    let Some(device) = Device::new(settings) else {
        return;
    };
    let key = device.load(&["one"]);
    device.one.control.tell("hang C_Sign *");
    let waiting: Vec<_> = (0..3)
        .map(|turn| {
            let shared = Arc::clone(&key);
            let thread = thread::spawn(move || sign(&shared, b"waits", Duration::from_secs(60)));
            // One runs, two wait: each in its place before the next comes.
            device.wait_for("one", |status| status.in_flight + status.queued > turn);
            thread
        })
        .collect();
    let result = sign(&key, b"too many", Duration::from_secs(60));
    assert_eq!(result, Err(TokenFailure::Busy));
    device.one.control.tell("release");
    for thread in waiting {
        thread.join().unwrap().unwrap();
    }
}

/// What waits longer than its deadline is answered, and not run.
#[test]
fn the_queue_honours_deadlines() {
    let Some(device) = Device::new(SlotSettings {
        sessions: 1,
        call_timeout: PATIENCE,
        ..settings()
    }) else {
        return;
    };
    let key = device.load(&["one"]);
    device.one.control.tell("hang C_Sign *");
    let first = {
        let shared = Arc::clone(&key);
        thread::spawn(move || sign(&shared, b"hangs", Duration::from_secs(60)))
    };
    device.wait_for("one", |status| status.in_flight == 1);
    let result = sign(&key, b"waits", Duration::from_millis(200));
    assert_eq!(result, Err(TokenFailure::Deadline));
    let before = device.one.control.count("C_Sign");
    device.one.control.tell("release");
    first.join().unwrap().unwrap();
    sign(&key, b"after", Duration::from_secs(60)).unwrap();
    assert_eq!(device.one.control.count("C_Sign"), before + 1);
}

#[test]
fn idle_sessions_are_kept_alive() {
    let Some(device) = Device::new(settings()) else {
        return;
    };
    let _key = device.load(&["one"]);
    device.wait_for("one", |status| status.sessions == 4);
    let before = device.one.control.count("C_GetSessionInfo");
    // Four workers and the keeper.
    device.wait_for("one", |_| {
        device.one.control.count("C_GetSessionInfo") >= before + 10
    });
}

/// The same key in two slots: the least loaded gets the next request.
#[test]
fn load_is_spread_over_slots_that_hold_the_same_key() {
    let Some(device) = Device::new(settings()) else {
        return;
    };
    let mut spec = device.spec(&["one", "two"]);
    spec.choice = accel::pkcs11::SlotChoice::LeastLoaded;
    let key = Arc::new(device.tokens.load_key(&spec).unwrap());
    for shim in [&device.one, &device.two] {
        shim.control.tell("latency C_Sign 2000");
    }
    let load = Load::start(&key, 12);
    load.more(&device, 600);
    load.stop_without_loss(&device);
    let (one, two) = (
        device.status("one").operations,
        device.status("two").operations,
    );
    assert!(one.min(two) * 2 > one.max(two), "{one} and {two}");
}
