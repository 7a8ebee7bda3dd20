//! Meters over reloads, restarts and crashes.

use std::fs::File;
use std::os::unix::fs::OpenOptionsExt;
use std::sync::Arc;

use nix::fcntl::OFlag;

use super::*;
use crate::clock;
use crate::config::{Client, KeyPattern, Place};
use crate::policy::{Ask, Conditions, Count, KeyName, Limits, Right, Rights, Unmet, Window};

fn grant(label: &str, daily: u64) -> Grant {
    Grant {
        keys: vec![KeyPattern::Label(label.to_owned())],
        allow: Rights::NONE.with(Right::SignDigest),
        expires: None,
        conditions: Conditions::default(),
        max_credential_lifetime: None,
        sources: Vec::new(),
        window: Window::default(),
        limits: Limits {
            rate: None,
            daily: Some(daily),
        },
        place: Place::default(),
    }
}

fn policy(meters: &Meters, grants: &[Grant]) -> Policy {
    let mut policy = detached(grants);
    meters.attach(&mut policy).unwrap();
    policy
}

fn detached(grants: &[Grant]) -> Policy {
    let client = Client {
        name: "edge".to_owned(),
        weight: 1,
        matches: Vec::new(),
        grants: grants.to_vec(),
        place: Place::default(),
    };
    let usage = Arc::default();
    let keys = [0, 1].map(|index| KeyName {
        index,
        label: ["shop", "bank"][index as usize],
        ski: [0; 20],
        usage: &usage,
    });
    Policy::compile(&[client], &keys, 1)
}

/// How often key `key` can be used until a refusal, with what is written down on the way.
fn uses(meters: &Meters, policy: &Policy, key: u32, most: usize) -> usize {
    let ask = Ask {
        client: policy.client_named("edge").unwrap(),
        key,
        right: Right::SignDigest,
        facts: None,
        lifetime: None,
        address: [192, 0, 2, 1].into(),
        now: clock::now(),
        at: None,
    };
    for count in 0..most {
        loop {
            match policy.decide(&ask, Count::Use) {
                Ok(()) => break,
                Err(Unmet::Rate { .. }) => meters.write().unwrap(),
                Err(_) => return count,
            }
        }
    }
    most
}

#[test]
fn reloads_go_on_counting_whatever_else_changes() {
    let directory = tempfile::tempdir().unwrap();
    let meters = Meters::open(Some(directory.path())).unwrap();
    let old = policy(&meters, &[grant("shop", 20), grant("bank", 20)]);
    assert_eq!(uses(&meters, &old, 0, 15), 15);
    // Another order, another limit, another source: the same grant.
    let mut changed = grant("shop", 30);
    changed.sources = vec![crate::policy::Prefix::parse("192.0.2.0/24").unwrap()];
    let new = policy(&meters, &[grant("bank", 20), changed]);
    assert_eq!(uses(&meters, &new, 0, 100), 15);
    assert_eq!(uses(&meters, &new, 1, 100), 20);
    let [bank, shop] = &meters.exhausted()[..] else {
        panic!("{:?}", meters.exhausted())
    };
    assert!(
        bank.contains("all 20 uses") && shop.contains("all 30 uses"),
        "{bank} {shop}"
    );
    // The old policy, under which requests may still be on their way, counts with it.
    assert_eq!(uses(&meters, &old, 0, 1), 0);
}

#[test]
fn grants_that_are_equal_count_apart() {
    let meters = Meters::open(None).unwrap();
    let both = policy(&meters, &[grant("shop", 5), grant("shop", 5)]);
    assert_eq!(uses(&meters, &both, 0, 100), 10);
}

#[test]
fn a_restart_goes_on_and_a_crash_gives_nothing_back() {
    let directory = tempfile::tempdir().unwrap();
    let open = || Meters::open(Some(directory.path())).unwrap();
    let grants = [grant("shop", 100)];
    let mut total = 0;
    for clean in [true, true, false, true] {
        let meters = open();
        let policy = policy(&meters, &grants);
        assert!(meters.exhausted().is_empty());
        total += uses(&meters, &policy, 0, 10);
        if clean {
            meters.close().unwrap();
        }
    }
    let meters = open();
    let policy = policy(&meters, &grants);
    let rest = uses(&meters, &policy, 0, 1000);
    // Eight at most were written down ahead.
    assert!((92..=100).contains(&(total + rest)), "{total} {rest}");
    assert_eq!(uses(&open(), &self::policy(&open(), &grants), 0, 1), 0);
}

#[test]
fn a_grant_that_comes_back_has_not_forgotten() {
    let directory = tempfile::tempdir().unwrap();
    let meters = Meters::open(Some(directory.path())).unwrap();
    let first = policy(&meters, &[grant("shop", 20)]);
    assert_eq!(uses(&meters, &first, 0, 100), 20);
    drop(first);
    drop(policy(&meters, &[grant("bank", 20)]));
    drop(policy(&meters, &[grant("bank", 20)]));
    assert_eq!(lock(&meters.inside).by_id.len(), 1);
    let again = policy(&meters, &[grant("shop", 20)]);
    assert_eq!(uses(&meters, &again, 0, 100), 0);
}

#[test]
fn what_cannot_be_written_is_not_handed_out_and_what_is_damaged_is_not_read() {
    let directory = tempfile::tempdir().unwrap();
    let gone = directory.path().join("gone");
    std::fs::create_dir(&gone).unwrap();
    let meters = Meters::open(Some(&gone)).unwrap();
    let policy = policy(&meters, &[grant("shop", 100)]);
    std::fs::remove_dir_all(&gone).unwrap();
    assert!(meters.write().is_err());
    let ask = Ask {
        client: policy.client_named("edge").unwrap(),
        key: 0,
        right: Right::SignDigest,
        facts: None,
        lifetime: None,
        address: [192, 0, 2, 1].into(),
        now: clock::now(),
        at: None,
    };
    let handed_out = (0..100).filter(|_| policy.decide(&ask, Count::Use).is_ok());
    assert_eq!(handed_out.count(), 8);

    let file = directory.path().join("meters");
    std::fs::write(&file, "0000\n{}\n").unwrap();
    let error = Meters::open(Some(directory.path()))
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("it is damaged; it says how often"),
        "{error}"
    );
}

#[test]
fn a_reload_that_fails_leaves_the_limits_in_force_as_they_were() {
    let directory = tempfile::tempdir().unwrap();
    let state = directory.path().join("state");
    std::fs::create_dir(&state).unwrap();
    let meters = Meters::open(Some(&state)).unwrap();
    let both = [grant("shop", 100), grant("bank", 100)];
    let old = policy(&meters, &both);
    // The reload takes `daily` from one of them, and the disk does not take that.
    std::fs::rename(&state, directory.path().join("away")).unwrap();
    let mut without = grant("shop", 100);
    without.limits.daily = None;
    without.limits.rate = Some(crate::policy::Rate {
        count: 1,
        period: std::time::Duration::from_secs(1),
        burst: 1,
    });
    let mut new = detached(&[without, grant("bank", 100)]);
    meters.attach(&mut new).unwrap_err();
    assert!(!meters.health().is_writable());
    let trouble = meters.health().trouble().unwrap();
    assert!(trouble.contains("give nothing more"), "{trouble}");
    drop(new);
    std::fs::rename(directory.path().join("away"), &state).unwrap();
    // Written down as it is used, to the last.
    assert_eq!(uses(&meters, &old, 0, 1000), 100);
    assert!(meters.health().is_writable());
    assert_eq!(meters.exhausted().len(), 1);
}

/// A disk that takes a file and does not answer: a pipe without a reader in the place of the new file.
#[test]
fn a_disk_that_hangs_keeps_nobody_waiting_who_asks() {
    let directory = tempfile::tempdir().unwrap();
    let meters = Meters::open(Some(directory.path())).unwrap();
    let policy = policy(&meters, &[grant("shop", 100)]);
    let new = directory.path().join("meters.new");
    nix::unistd::mkfifo(&new, nix::sys::stat::Mode::S_IRWXU).unwrap();
    std::thread::scope(|scope| {
        let writer = scope.spawn(|| meters.write());
        let limit = clock::now() + std::time::Duration::from_secs(20);
        while !meters.health().is_hung() {
            assert!(clock::now() < limit, "nobody is told");
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
        assert!(meters.exhausted().is_empty() && !meters.health().is_writable());
        assert!(
            meters
                .health()
                .trouble()
                .unwrap()
                .contains("does not answer")
        );
        assert!(!writer.is_finished());
        // A pipe cannot be flushed: the write ends with an error.
        let pipe = File::options()
            .read(true)
            .custom_flags(OFlag::O_NONBLOCK.bits())
            .open(&new);
        std::fs::remove_file(&new).unwrap();
        writer.join().unwrap().unwrap_err();
        drop(pipe);
    });
    assert!(!meters.health().is_hung());
    meters.write().unwrap();
    assert!(meters.health().is_writable());
    assert_eq!(uses(&meters, &policy, 0, 1000), 100);
}

/// The clock was ahead of what it is now when the server last ran.
#[test]
fn what_had_ended_by_its_date_has_ended_after_a_restart_with_an_old_clock() {
    let directory = tempfile::tempdir().unwrap();
    let open = || Meters::open(Some(directory.path()));
    let today = today();
    let dated = Grant {
        expires: Some(Date::from_days(today + 1)),
        limits: Limits::default(),
        ..grant("shop", 1)
    };
    let decide = |meters: &Meters| {
        let policy = policy(meters, std::slice::from_ref(&dated));
        let ask = Ask {
            client: policy.client_named("edge").unwrap(),
            key: 0,
            right: Right::SignDigest,
            facts: None,
            lifetime: None,
            address: [192, 0, 2, 1].into(),
            now: clock::now(),
            at: None,
        };
        policy.decide(&ask, Count::Use)
    };
    let meters = open().unwrap();
    meters.write_day(today).unwrap();
    assert_eq!(decide(&meters), Ok(()));
    assert_eq!(meters.clock_is_behind(), None);
    meters.write_day(today + 3).unwrap();
    assert_eq!(decide(&meters), Err(Unmet::Expires));

    let again = open().unwrap();
    assert_eq!(decide(&again), Err(Unmet::Expires));
    let line = again.clock_is_behind().unwrap();
    let file = directory.path().join("calendar");
    assert!(line.contains(file.to_str().unwrap()), "{line}");
    // The day that was wrong is not written over, and a damaged file is not taken for none.
    again.write_day(today).unwrap();
    let whole = std::fs::read(&file).unwrap();
    for length in 0..whole.len() {
        std::fs::write(&file, &whole[..length]).unwrap();
        assert!(open().is_err(), "{length} bytes of it");
    }
    // What the owner is told to do.
    std::fs::remove_file(&file).unwrap();
    let reset = open().unwrap();
    assert_eq!(decide(&reset), Ok(()));
    assert_eq!(reset.clock_is_behind(), None);
}
