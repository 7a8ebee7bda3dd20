//! Meters over reloads, restarts and crashes.

use std::sync::Arc;

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
    let mut policy = Policy::compile(&[client], &keys, 1);
    meters.attach(&mut policy).unwrap();
    policy
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
    assert_eq!(meters.lock().by_id.len(), 1);
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
