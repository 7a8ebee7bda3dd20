//! What the compiled grants allow.

use std::sync::Arc;
use std::time::Duration;

use super::*;
use crate::clock;
use crate::config::{Date, Grant, KeyPattern, Place};
use crate::policy::{Conditions, Hours, Limits, Prefix, Purpose, Rate, Weekday, Window};

/// Sign keys all. Labels need not be unique over several directories.
const LABELS: [&str; 4] = ["shop", "shop-2", "bank", "shop"];

/// A policy over keys with these labels and the SKIs 1, 1, ...; 2, 2, ...
fn compile(clients: &[Client], generation: u64) -> Policy {
    compile_for(clients, &Arc::default(), generation)
}

fn compile_for(clients: &[Client], usage: &Arc<KeyUse>, generation: u64) -> Policy {
    let keys = (0u8..).zip(LABELS).map(|(index, label)| KeyName {
        index: index.into(),
        label,
        ski: [index + 1; 20],
        usage,
    });
    Policy::compile(clients, &keys.collect::<Vec<_>>(), generation)
}

fn ask(client: ClientId, key: u32, right: Right) -> Ask<'static> {
    Ask {
        client,
        key,
        right,
        facts: None,
        lifetime: None,
        address: [192, 0, 2, 1].into(),
        now: clock::now(),
        at: None,
    }
}

fn allows(policy: &Policy, client: ClientId, key: u32, right: Right) -> bool {
    policy.decide(&ask(client, key, right), Count::Use).is_ok()
}

fn label(glob: &str) -> KeyPattern {
    KeyPattern::Label(glob.to_owned())
}

fn grant(keys: Vec<KeyPattern>, right: Right) -> Grant {
    let allow = Rights::NONE.with(right);
    Grant {
        keys,
        allow,
        expires: None,
        conditions: Conditions::default(),
        max_credential_lifetime: None,
        sources: Vec::new(),
        window: Window::default(),
        limits: Limits::default(),
        place: Place::new("test".into(), 1, Vec::new()),
    }
}

fn client(name: &str, matches: Vec<Match>, grants: Vec<Grant>) -> Client {
    Client {
        name: name.to_owned(),
        weight: 1,
        matches,
        grants,
        place: Place::default(),
    }
}

fn peer(dns: &str) -> PeerIdentity {
    PeerIdentity {
        dns: vec![dns.to_owned()],
        uri: vec!["spiffe://bank/edge".to_owned()],
        subject: "CN=edge,O=Bank".to_owned(),
        spki_sha256: [7; 32],
    }
}

/// The only client of a policy with these grants, and what it may sign with.
fn signs_with(grants: Vec<Grant>) -> Vec<u32> {
    let clients = [client("edge", vec![Match::Dns("edge".to_owned())], grants)];
    let policy = compile(&clients, 1);
    let id = policy.client(&peer("edge")).expect("the client is known");
    (0..5)
        .filter(|key| allows(&policy, id, *key, Right::SignDigest))
        .collect()
}

#[test]
fn nothing_is_allowed_that_is_not_granted() {
    assert_eq!(signs_with(vec![]), [0_u32; 0]);
    assert_eq!(
        signs_with(vec![grant(vec![label("*")], Right::DecryptRaw)]),
        [0_u32; 0]
    );
}

#[test]
fn keys_are_named_by_label_glob_and_ski() {
    let sign = |pattern| signs_with(vec![grant(vec![pattern], Right::SignDigest)]);
    assert_eq!(sign(label("shop")), [0, 3]);
    assert_eq!(sign(label("shop*")), [0, 1, 3]);
    assert_eq!(sign(label("????")), [0, 2, 3]);
    assert_eq!(sign(KeyPattern::Ski([3; 20])), [2]);
    assert_eq!(sign(label("none")), [0_u32; 0]);
    // Every key is every key, also one that this policy has no name for.
    assert_eq!(sign(label("*")), [0, 1, 2, 3, 4]);
}

#[test]
fn grants_add_up_whatever_their_order() {
    let all = grant(vec![label("*")], Right::SignDigest);
    let one = grant(vec![label("bank")], Right::Tls13Sign);
    for grants in [vec![all.clone(), one.clone()], vec![one, all]] {
        let clients = [client("edge", vec![Match::Dns("edge".to_owned())], grants)];
        let policy = compile(&clients, 1);
        let id = policy.client(&peer("edge")).expect("the client is known");
        let now = Moment::now();
        let both = Rights::NONE.with(Right::SignDigest).with(Right::Tls13Sign);
        assert_eq!(policy.rights(id, 2, now), both);
        assert_eq!(
            policy.rights(id, 0, now),
            Rights::NONE.with(Right::SignDigest)
        );
    }
}

#[test]
fn a_grant_counts_through_its_last_day() {
    let day = |offset: i64| {
        let now = clock::wall();
        let days = Duration::from_secs(86_400 * offset.unsigned_abs());
        Some(Date::of(if offset < 0 { now - days } else { now + days }))
    };
    let sign = grant(vec![label("bank")], Right::SignDigest);
    for (expires, expected) in [(day(-2), vec![]), (day(2), vec![2]), (None, vec![2])] {
        let dated = Grant {
            expires,
            ..sign.clone()
        };
        assert_eq!(signs_with(vec![dated]), expected, "{expires:?}");
    }
}

#[test]
fn a_grant_ends_and_a_window_opens_while_the_server_runs() {
    let at = |day: u64, hour: u64| {
        // 2027-01-01 is day 20,819, a Friday.
        Some(UNIX_EPOCH + Duration::from_hours((20_818 + day) * 24 + hour))
    };
    let office = Window {
        days: vec![Weekday::Friday],
        hours: vec![Hours::parse("08:00-18:00").unwrap()],
    };
    let dated = Grant {
        expires: Date::new(2027, 1, 8),
        window: office,
        ..grant(vec![label("bank")], Right::SignDigest)
    };
    let (policy, id) = only_client(vec![dated]);
    for (at, expected) in [
        (at(1, 9), Ok(())),
        (at(1, 18), Err(Unmet::Hours)),
        (at(2, 9), Err(Unmet::Days)),
        (at(8, 17), Ok(())),
        (at(9, 9), Err(Unmet::Expires)),
        (at(15, 9), Err(Unmet::Expires)),
    ] {
        let ask = Ask {
            at,
            ..ask(id, 2, Right::SignDigest)
        };
        assert_eq!(policy.decide(&ask, Count::Use), expected, "{at:?}");
    }
}

/// The clock was at the day after, and is set back: what had ended by its date stays ended.
#[test]
fn a_clock_that_is_set_back_gives_back_nothing_that_had_ended() {
    let today = Moment::now().day;
    let dated = Grant {
        expires: Some(Date::from_days(today + 1)),
        ..grant(vec![label("bank")], Right::SignDigest)
    };
    let dual = KeyUse {
        purpose: Purpose::Sign,
        dual_use_until: Some(Date::from_days(today + 1)),
        ..KeyUse::default()
    };
    let decrypting = grant(vec![label("bank")], Right::DecryptPremaster);
    let clients = [client("edge", vec![], vec![dated, decrypting])];
    let policy = compile_for(&clients, &Arc::new(dual), 1);
    let id = policy.client_named("edge").unwrap();
    let decide = |right| policy.decide(&ask(id, 2, right), Count::Use);
    let both = Rights::NONE
        .with(Right::SignDigest)
        .with(Right::DecryptPremaster);
    assert_eq!(decide(Right::SignDigest), Ok(()));
    assert_eq!(decide(Right::DecryptPremaster), Ok(()));
    assert_eq!(policy.rights(id, 2, policy.now()), both);

    policy.latest_day.see(today + 2);
    assert_eq!(decide(Right::SignDigest), Err(Unmet::Expires));
    assert_eq!(decide(Right::DecryptPremaster), Err(Unmet::Purpose));
    assert_eq!(policy.rights(id, 2, policy.now()), Rights::NONE);
    // Hours and days of the week are those of the clock.
    assert_eq!(policy.now().day, Moment::now().day);
    // Whoever asks about a time is told about that time.
    let at = Some(Date::from_days(today).begins());
    let question = Ask {
        at,
        ..ask(id, 2, Right::SignDigest)
    };
    assert_eq!(policy.decide(&question, Count::Look), Ok(()));
}

fn only_client(grants: Vec<Grant>) -> (Policy, ClientId) {
    let clients = [client("edge", vec![Match::Dns("edge".to_owned())], grants)];
    let policy = compile(&clients, 1);
    let id = policy.client(&peer("edge")).expect("the client is known");
    (policy, id)
}

#[test]
fn a_source_is_the_address_of_the_connection() {
    let inside = Grant {
        sources: vec![
            Prefix::parse("10.0.0.0/8").unwrap(),
            Prefix::parse("::1").unwrap(),
        ],
        ..grant(vec![label("*")], Right::SignDigest)
    };
    let (policy, id) = only_client(vec![inside]);
    for (address, expected) in [
        ("10.1.2.3", Ok(())),
        ("::1", Ok(())),
        ("192.0.2.1", Err(Unmet::Source)),
    ] {
        let ask = Ask {
            address: address.parse().unwrap(),
            ..ask(id, 0, Right::SignDigest)
        };
        assert_eq!(policy.decide(&ask, Count::Use), expected, "{address}");
    }
}

#[test]
fn limits_count_for_all_keys_of_a_grant_and_the_next_grant_takes_over() {
    let limited = |daily| Grant {
        limits: Limits {
            rate: None,
            daily: Some(daily),
        },
        ..grant(vec![label("*")], Right::SignDigest)
    };
    let (policy, id) = only_client(vec![limited(3), limited(2)]);
    let decide = |key, count| policy.decide(&ask(id, key, Right::SignDigest), count);
    for key in [0, 1, 2, 0, 1] {
        assert_eq!(decide(key, Count::Look), Ok(()));
        assert_eq!(decide(key, Count::Use), Ok(()));
    }
    assert_eq!(decide(2, Count::Use), Err(Unmet::Daily));
    assert_eq!(decide(2, Count::Nothing), Ok(()));
    let used: Vec<_> = policy
        .grants()
        .map(|(_, grant)| grant.meter().used_on(0))
        .collect();
    assert_eq!(used, [3, 2]);
}

#[test]
fn a_rate_refuses_for_a_time() {
    let slow = Grant {
        limits: Limits {
            rate: Some(Rate {
                count: 1,
                period: Duration::from_hours(1),
                burst: 2,
            }),
            daily: None,
        },
        ..grant(vec![label("*")], Right::SignDigest)
    };
    let (policy, id) = only_client(vec![slow]);
    let ask = ask(id, 0, Right::SignDigest);
    assert_eq!([0; 2].map(|_| policy.decide(&ask, Count::Use)), [Ok(()); 2]);
    let retry_after = Duration::from_hours(1);
    assert_eq!(
        policy.decide(&ask, Count::Use),
        Err(Unmet::Rate { retry_after })
    );
    // What is not granted is told nothing about rates.
    let other = Ask {
        right: Right::Tls13Sign,
        ..ask
    };
    assert_eq!(policy.decide(&other, Count::Use), Err(Unmet::Allow));
}

#[test]
fn of_several_limits_the_one_that_passes_first_is_told() {
    let limited = |hours, daily| Grant {
        limits: Limits {
            rate: Some(Rate {
                count: 1,
                period: Duration::from_hours(hours),
                burst: 1,
            }),
            daily,
        },
        ..grant(vec![label("*")], Right::SignDigest)
    };
    let grants = vec![limited(3, None), limited(2, None), limited(1, Some(1))];
    let (policy, id) = only_client(grants);
    let ask = ask(id, 0, Right::SignDigest);
    assert_eq!([0; 3].map(|_| policy.decide(&ask, Count::Use)), [Ok(()); 3]);
    let retry_after = Duration::from_hours(2);
    assert_eq!(
        policy.decide(&ask, Count::Use),
        Err(Unmet::Rate { retry_after })
    );
}

#[test]
fn what_was_granted_is_told_also_when_the_grant_has_ended() {
    let ended = Grant {
        expires: Date::new(2020, 12, 31),
        ..grant(vec![label("shop")], Right::Tickets)
    };
    let (policy, id) = only_client(vec![ended]);
    assert!(policy.was_granted(id, Right::Tickets, 0));
    assert!(!policy.was_granted(id, Right::Seal, 0));
    assert!(!policy.was_granted(id, Right::Tickets, 2));
    assert!(!policy.is_granted(Right::Tickets, 0, Moment::now()));
}

#[test]
fn a_key_has_one_purpose() {
    let grants = vec![
        grant(vec![label("*")], Right::SignDigest),
        grant(vec![label("*")], Right::Tls12Master),
    ];
    let clients = [client("edge", vec![Match::Dns("edge".to_owned())], grants)];
    let today = Date::of(clock::wall());
    let later = Date::new(9999, 1, 1);
    for (purpose, dual_use_until, signs, opens) in [
        (Purpose::Sign, None, true, false),
        (Purpose::KeyExchange, None, false, true),
        (Purpose::Sign, later, true, true),
        (Purpose::KeyExchange, later, true, true),
        (Purpose::Sign, Some(today), true, true),
        (Purpose::Sign, Date::new(2020, 1, 1), true, false),
    ] {
        let usage = KeyUse {
            purpose,
            dual_use_until,
            place: Place::default(),
        };
        let policy = compile_for(&clients, &Arc::new(usage), 1);
        assert_eq!(
            policy.conflicts(),
            [""; 0],
            "globs name nothing in particular"
        );
        let id = policy.client_named("edge").unwrap();
        let decide = |right| policy.decide(&ask(id, 0, right), Count::Use);
        let expected = |allowed: bool| if allowed { Ok(()) } else { Err(Unmet::Purpose) };
        assert_eq!(
            decide(Right::SignDigest),
            expected(signs),
            "{purpose:?} {dual_use_until:?}"
        );
        assert_eq!(
            decide(Right::Tls12Master),
            expected(opens),
            "{purpose:?} {dual_use_until:?}"
        );
        assert_eq!(
            policy
                .rights(id, 0, Moment::now())
                .contains(Right::Tls12Master),
            opens
        );
        let text = policy.warnings().join("\n");
        let in_force = dual_use_until.is_some_and(|until| until >= today);
        assert_eq!(
            text.contains("may both sign and open key exchanges, until"),
            in_force,
            "{text}"
        );
        let idle = !opens || !signs;
        assert_eq!(
            text.contains("no key that fits \"*\" is for "),
            idle,
            "{text}"
        );
    }
}

#[test]
fn a_grant_that_names_a_key_of_the_other_purpose_is_a_conflict() {
    for pattern in [label("bank"), KeyPattern::Ski([3; 20])] {
        let grants = vec![grant(vec![pattern], Right::Tls12Master)];
        let clients = [client("edge", vec![Match::Dns("edge".to_owned())], grants)];
        let policy = compile(&clients, 1);
        let [conflict] = policy.conflicts() else {
            panic!("{:?}", policy.conflicts())
        };
        assert!(
            conflict.starts_with(
                "test:1: client \"edge\" is granted tls12-master on key \"bank\", which is for `purpose = \"sign\"`"
            ),
            "{conflict}"
        );
        let ended = KeyUse {
            dual_use_until: Date::new(2020, 1, 1),
            ..KeyUse::default()
        };
        // A date that passes must not keep the server from starting.
        assert_eq!(
            compile_for(&clients, &Arc::new(ended), 1).conflicts(),
            [""; 0]
        );
    }
}

#[test]
fn the_first_entry_that_fits_is_the_client() {
    let clients = [
        client(
            "by-uri",
            vec![Match::Uri("spiffe://bank/edge".to_owned())],
            vec![],
        ),
        client("by-name", vec![Match::Dns("edge".to_owned())], vec![]),
        client(
            "by-subject",
            vec![Match::Subject("CN=edge,O=Bank".to_owned())],
            vec![],
        ),
    ];
    let name = |clients: &[Client], dns: &str| {
        let policy = compile(clients, 1);
        let id = policy.client(&peer(dns))?;
        Some(policy.client_name(id).to_owned())
    };
    assert_eq!(name(&clients, "edge").as_deref(), Some("by-uri"));
    assert_eq!(name(&clients[1..], "edge").as_deref(), Some("by-name"));
    assert_eq!(name(&clients[1..], "other").as_deref(), Some("by-subject"));
    assert_eq!(name(&clients[1..2], "other"), None);
    let by_key = [client("by-key", vec![Match::SpkiSha256([7; 32])], vec![])];
    assert_eq!(name(&by_key, "x").as_deref(), Some("by-key"));
}

#[test]
fn an_id_of_another_generation_is_nobody() {
    let grants = vec![grant(vec![label("*")], Right::SignDigest)];
    let clients = [client("edge", vec![Match::Dns("edge".to_owned())], grants)];
    let old = compile(&clients, 1);
    let new = compile(&clients, 2);
    let id = old.client(&peer("edge")).expect("the client is known");
    assert!(allows(&old, id, 0, Right::SignDigest));
    assert!(!allows(&new, id, 0, Right::SignDigest));
    assert_eq!(new.client_name(id), "unknown");
}

#[test]
fn a_credential_may_live_as_long_as_the_grant_says_that_pays_for_it() {
    let delegate = |pattern, hours, daily| Grant {
        max_credential_lifetime: Some(Duration::from_hours(hours)),
        limits: Limits { rate: None, daily },
        ..grant(vec![pattern], Right::Delegate)
    };
    let (policy, id) = only_client(vec![
        delegate(label("shop*"), 2, None),
        delegate(label("shop-2"), 168, Some(1)),
        grant(vec![label("bank")], Right::Delegate),
    ]);
    let longest = |key, hours: Option<u64>| {
        let ask = Ask {
            lifetime: hours.map(Duration::from_hours),
            ..ask(id, key, Right::Delegate)
        };
        let grant = policy.grant_for(&ask, Count::Use)?;
        Ok(grant.credential_lifetime().as_secs() / 3600)
    };
    assert_eq!(longest(0, None), Ok(2));
    assert_eq!(longest(0, Some(2)), Ok(2));
    assert_eq!(longest(0, Some(3)), Err(Unmet::Lifetime));
    // An hour where nothing is said.
    assert_eq!(longest(2, Some(1)), Ok(1));
    assert_eq!(longest(2, Some(2)), Err(Unmet::Lifetime));
    // The long ones are those of the grant that counts them.
    assert_eq!(longest(1, Some(168)), Ok(168));
    assert_eq!(longest(1, Some(168)), Err(Unmet::Daily));
    assert_eq!([(); 3].map(|()| longest(1, Some(1))), [Ok(2); 3]);
    assert_eq!(longest(1, None), Ok(2));
}

#[test]
fn warnings_name_the_place_and_the_client() {
    let grants = vec![
        grant(vec![label("gone")], Right::SignDigest),
        grant(vec![label("shop")], Right::Tls12MasterProof),
        Grant {
            expires: Date::new(9999, 1, 1),
            ..grant(vec![label("shop")], Right::DecryptRaw)
        },
    ];
    let clients = [client("edge", vec![Match::Dns("edge".to_owned())], grants)];
    let usage = Arc::new(KeyUse {
        dual_use_until: Date::new(9999, 1, 1),
        ..KeyUse::default()
    });
    let policy = compile_for(&clients, &usage, 1);
    let [_dual, gone, idle, raw] = policy.warnings() else {
        panic!("{:?}", policy.warnings())
    };
    assert!(
        gone.starts_with("test:1: client \"edge\": no loaded key fits \"gone\""),
        "{gone}"
    );
    assert!(
        idle.contains("no operation of this version uses tls12-master-proof"),
        "{idle}"
    );
    assert!(
        raw.contains("decrypt-raw, until 9999-01-01. It is full use"),
        "{raw}"
    );
}
