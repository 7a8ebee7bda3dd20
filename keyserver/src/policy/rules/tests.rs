//! What the compiled grants allow.

use super::*;

const KEYS: [KeyName<'static>; 4] = [
    KeyName {
        index: 0,
        label: "shop",
        ski: [1; 20],
    },
    KeyName {
        index: 1,
        label: "shop-2",
        ski: [2; 20],
    },
    KeyName {
        index: 2,
        label: "bank",
        ski: [3; 20],
    },
    // Labels need not be unique over several directories.
    KeyName {
        index: 3,
        label: "shop",
        ski: [4; 20],
    },
];

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
        origin: "test:1".to_owned(),
    }
}

fn client(name: &str, matches: Vec<Match>, grants: Vec<Grant>) -> Client {
    Client {
        name: name.to_owned(),
        weight: 1,
        matches,
        grants,
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
    let policy = Policy::compile(&clients, &KEYS, 1);
    let id = policy.client(&peer("edge")).expect("the client is known");
    (0..5)
        .filter(|key| policy.allows(id, *key, Right::SignDigest, None))
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
    let one = grant(vec![label("bank")], Right::DecryptRaw);
    for grants in [vec![all.clone(), one.clone()], vec![one, all]] {
        let clients = [client("edge", vec![Match::Dns("edge".to_owned())], grants)];
        let policy = Policy::compile(&clients, &KEYS, 1);
        let id = policy.client(&peer("edge")).expect("the client is known");
        let both = Rights::NONE.with(Right::SignDigest).with(Right::DecryptRaw);
        assert_eq!(policy.rights(id, 2), both);
        assert_eq!(policy.rights(id, 0), Rights::NONE.with(Right::SignDigest));
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
fn a_grant_that_ends_while_the_server_runs_gives_nothing_from_then_on() {
    let yesterday = Date::of(clock::wall() - Duration::from_secs(2 * 86_400));
    let mut rights = KeyRights::default();
    rights.add_to_all(Rights::NONE.with(Right::SignDigest));
    let policy = Policy {
        generation: 1,
        clients: vec![CompiledClient {
            name: "edge".to_owned(),
            weight: 1,
            permanent: KeyRights::default(),
            limited: vec![Limited {
                last_day: Some(yesterday),
                conditions: Conditions::default(),
                rights,
            }],
            lifetimes: Vec::new(),
        }],
        by_match: HashMap::new(),
        warnings: Vec::new(),
    };
    let id = ClientId {
        index: 0,
        generation: 1,
    };
    assert!(!policy.allows(id, 0, Right::SignDigest, None));
    assert!(policy.rights(id, 0).is_empty());
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
        let policy = Policy::compile(clients, &KEYS, 1);
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
    let old = Policy::compile(&clients, &KEYS, 1);
    let new = Policy::compile(&clients, &KEYS, 2);
    let id = old.client(&peer("edge")).expect("the client is known");
    assert!(old.allows(id, 0, Right::SignDigest, None));
    assert!(!new.allows(id, 0, Right::SignDigest, None));
    assert_eq!(new.client_name(id), "unknown");
}

#[test]
fn the_longest_life_of_a_credential_is_that_of_the_grants_on_the_key() {
    let delegate = |pattern, hours| Grant {
        max_credential_lifetime: Some(Duration::from_hours(hours)),
        ..grant(vec![pattern], Right::Delegate)
    };
    let grants = vec![
        delegate(label("shop*"), 2),
        delegate(label("shop-2"), 24),
        grant(vec![label("bank")], Right::Delegate),
    ];
    let clients = [client("edge", vec![Match::Dns("edge".to_owned())], grants)];
    let policy = Policy::compile(&clients, &KEYS, 1);
    let id = policy.client(&peer("edge")).expect("the client is known");
    let longest = [0, 1, 2].map(|key| policy.max_credential_lifetime(id, key));
    assert_eq!(longest, [2, 24, 1].map(Duration::from_hours));
}

#[test]
fn warnings_name_the_place_and_the_client() {
    let grants = vec![
        grant(vec![label("gone")], Right::SignDigest),
        grant(vec![label("shop")], Right::Delegate),
        grant(vec![label("shop")], Right::DecryptRaw),
    ];
    let clients = [client("edge", vec![Match::Dns("edge".to_owned())], grants)];
    let policy = Policy::compile(&clients, &KEYS, 1);
    let [gone, idle, raw] = policy.warnings() else {
        panic!("{:?}", policy.warnings())
    };
    assert!(
        gone.starts_with("test:1: client \"edge\": no loaded key fits \"gone\""),
        "{gone}"
    );
    assert!(
        idle.contains("no operation of this version uses delegate"),
        "{idle}"
    );
    assert!(
        raw.contains("decrypt-raw, without an end; set `expires"),
        "{raw}"
    );
}

#[test]
fn globs_fit_like_those_of_a_shell() {
    for (glob, text, fits) in [
        ("*", "", true),
        ("a*c", "abbbc", true),
        ("a*c", "abbb", false),
        ("*shop*", "my-shop-2", true),
        ("a?c", "ac", false),
        ("a**b", "ab", true),
        ("", "", true),
        ("", "a", false),
        ("ä?", "äö", true),
        ("*a*b*c", "xaxbxbxc", true),
    ] {
        assert_eq!(glob_fits(glob, text), fits, "{glob:?} {text:?}");
    }
}
