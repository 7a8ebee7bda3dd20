//! Every condition: a request that it lets through, one that it refuses, and the line that decides.

use std::collections::HashMap;

use super::*;

/// Seconds of a day.
const DAY: u64 = 86_400;
const RSA_PSS_SHA256: u16 = 0x0804;
const RSA_PSS_SHA384: u16 = 0x0805;

/// Days of the week and hours in which it is now, and for long enough; and others.
struct Times {
    days: String,
    other_days: String,
    hours: String,
    other_hours: String,
}

impl Times {
    fn now() -> Self {
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap()
            .as_secs();
        let names = ["thu", "fri", "sat", "sun", "mon", "tue", "wed"];
        let today = usize::try_from(now / DAY % 7).unwrap();
        // A test that begins before midnight may end after it.
        let list = |places: &[usize]| {
            let days: Vec<_> = places
                .iter()
                .map(|place| names[(today + place) % 7])
                .collect();
            format!("days = {days:?}")
        };
        let hour = now % DAY / 3600;
        let hours = |from, to| {
            format!(
                "hours = \"{:02}:00-{:02}:00\"",
                (hour + from) % 24,
                (hour + to) % 24
            )
        };
        Self {
            days: list(&[0, 1]),
            other_days: list(&[2, 3, 4, 5]),
            hours: hours(23, 26),
            other_hours: hours(6, 9),
        }
    }
}

/// What is asked, and whether it is allowed.
struct Case {
    client: &'static str,
    key: &'static str,
    right: &'static str,
    scheme: u16,
    payload: Vec<u8>,
    /// Options that say the same to `ksctl acl explain`.
    options: &'static [&'static str],
    /// The setting that refuses, if one does.
    unmet: Option<&'static str>,
}

fn clients(times: &Times) -> Vec<ClientRule> {
    let tls13 = ["tls13-sign"];
    vec![
        rule("edge-1", &["tls13-sign", "tls12-sign"], ""),
        rule(
            "source",
            &tls13,
            "source = [\"127.0.0.0/8\", \"2001:db8::/32\"]",
        ),
        rule("not-source", &tls13, "source = [\"192.0.2.0/24\"]"),
        rule("days", &tls13, &times.days),
        rule("not-days", &tls13, &times.other_days),
        rule("hours", &tls13, &times.hours),
        rule("not-hours", &tls13, &times.other_hours),
        rule("expires", &tls13, "expires = 2099-12-31"),
        rule("not-expires", &tls13, "expires = 2020-12-31"),
        rule("schemes", &tls13, "schemes = [\"rsa_pss_rsae_sha256\"]"),
        rule("transcript", &tls13, "transcript = \"required\""),
        rule("sni", &tls13, "sni = [\"shop.example\", \"*.cdn.example\"]"),
        rule("alpn", &tls13, "alpn = [\"h2\"]"),
        rule("post-quantum", &tls13, "post_quantum = \"if-offered\""),
        rule(
            "sentinel",
            &["tls12-sign"],
            "downgrade_sentinel = \"required\"",
        ),
        ClientRule {
            keys: vec!["shop".into()],
            ..rule("keys", &tls13, "")
        },
    ]
}

/// Requests whose circumstances are what differs.
fn circumstances() -> Vec<Case> {
    let case = |client, unmet| Case {
        client,
        key: "shop",
        right: "tls13-sign",
        scheme: ECDSA,
        payload: tls13_string(),
        options: &["--source", "127.0.0.1"],
        unmet,
    };
    vec![
        case("edge-1", None),
        case("source", None),
        case("not-source", Some("source")),
        case("days", None),
        case("not-days", Some("days")),
        case("hours", None),
        case("not-hours", Some("hours")),
        case("expires", None),
        case("not-expires", Some("expires")),
        case("keys", None),
        Case {
            key: "rsa",
            scheme: RSA_PSS_SHA256,
            ..case("keys", Some(""))
        },
        Case {
            right: "tls12-sign",
            payload: tls12_string(true),
            ..case("keys", Some("allow"))
        },
        Case {
            right: "tls12-sign",
            payload: tls12_string(true),
            ..case("edge-1", None)
        },
    ]
}

/// Requests that differ in what is to be signed.
#[expect(
    clippy::too_many_lines,
    reason = "a table of cases, a line or few each"
)]
fn handshakes(certificate: &str) -> Vec<Case> {
    let shown = |server_name, protocol, hybrid| {
        Handshake {
            server_name,
            protocol,
            hybrid,
            certificate,
        }
        .encode()
    };
    let string = |client, unmet| Case {
        client,
        key: "shop",
        right: "tls13-sign",
        scheme: ECDSA,
        payload: tls13_string(),
        options: &[],
        unmet,
    };
    let with = |client, payload, options, unmet| Case {
        payload,
        options,
        ..string(client, unmet)
    };
    let rsa = |scheme, options, unmet| Case {
        key: "rsa",
        scheme,
        options,
        ..string("schemes", unmet)
    };
    let tls12 = |says_downgrade, options, unmet| Case {
        right: "tls12-sign",
        ..with("sentinel", tls12_string(says_downgrade), options, unmet)
    };
    let (good, other) = (
        shown("Shop.Example", "h2", true),
        shown("bank.example", "http/1.1", false),
    );
    vec![
        rsa(RSA_PSS_SHA256, &["--scheme", "rsa_pss_rsae_sha256"], None),
        rsa(
            RSA_PSS_SHA384,
            &["--scheme", "rsa_pss_rsae_sha384"],
            Some("schemes"),
        ),
        with("transcript", other.clone(), &["--transcript"], None),
        string("transcript", Some("transcript")),
        with("sni", good.clone(), &["--sni", "shop.example"], None),
        with(
            "sni",
            shown("a.cdn.example", "h2", true),
            &["--sni", "a.cdn.example"],
            None,
        ),
        with(
            "sni",
            shown("a.b.cdn.example", "h2", true),
            &["--sni", "a.b.cdn.example"],
            Some("sni"),
        ),
        with(
            "sni",
            other.clone(),
            &["--sni", "bank.example"],
            Some("sni"),
        ),
        string("sni", Some("sni")),
        with("alpn", good.clone(), &["--alpn", "h2"], None),
        with("alpn", other.clone(), &["--alpn", "http/1.1"], Some("alpn")),
        string("alpn", Some("alpn")),
        with("post-quantum", good, &["--transcript"], None),
        with(
            "post-quantum",
            other,
            &["--classical"],
            Some("post_quantum"),
        ),
        tls12(true, &["--downgrade-sentinel"], None),
        tls12(false, &[], Some("downgrade_sentinel")),
    ]
}

/// Holds an answer, and the line that `explain` names, against what should have decided.
fn check(site: &Site, client: &str, unmet: Option<&str>, answer: &Answer, decided: &str) {
    let Some(setting) = unmet else {
        assert!(answer.is_ok(), "{client}: {answer:?}");
        assert!(
            decided.ends_with("`allow`: the grant covers it"),
            "{decided}"
        );
        return;
    };
    assert_eq!(*answer, DENIED, "{client}");
    if setting.is_empty() {
        assert!(
            decided.ends_with("no grant of the client names the key"),
            "{decided}"
        );
        return;
    }
    let text = std::fs::read_to_string(site.fixture.path("keyserver.toml")).unwrap();
    let number: usize = decided.split(':').nth(1).unwrap().parse().unwrap();
    let line = text.lines().nth(number - 1).unwrap();
    assert!(
        line.starts_with(&format!("{setting} = ")),
        "{client}: {decided}: {line}"
    );
    assert!(decided.contains(&format!(": `{setting}`: ")), "{decided}");
}

#[test]
fn each_condition_lets_through_and_refuses_and_the_line_is_named() {
    let fixture = Fixture::new();
    fixture.add_key("rsa", KeyKind::Rsa2048);
    let clients = clients(&Times::now());
    let config = ServerConfig {
        clients,
        ..ServerConfig::default()
    };
    let site = Site::start(fixture, config);
    let certificate = {
        let key = std::fs::read(site.fixture.path("keys/shop.key")).unwrap();
        site.fixture.pki.site(&key)
    };
    let skis = HashMap::from(["shop", "rsa"].map(|key| (key, site.ski(key))));
    for case in circumstances().into_iter().chain(handshakes(&certificate)) {
        let Case {
            client,
            key,
            right,
            scheme,
            payload,
            options,
            unmet,
        } = case;
        let opcode = if right == "tls13-sign" {
            Opcode::SignTls13
        } else {
            Opcode::SignTls12
        };
        let answer = sign(
            &mut site.connect(client),
            opcode,
            skis[&key],
            scheme,
            &payload,
        );
        let asked = [
            &["--client", client, "--key", key, "--op", right][..],
            options,
        ]
        .concat();
        let (yes, decided) = site.explain(&asked);
        assert_eq!(yes, unmet.is_none(), "{client}: {decided}");
        check(&site, client, unmet, &answer, &decided);
    }
    // The log names the setting too, and the metrics count; nobody is told.
    let log = site.server.log();
    let named = log.wait_for(Duration::from_secs(30), |line| {
        line.contains("keyserver::refused")
            && line.contains("no grant of tls13-sign covers it: `sni`")
    });
    assert!(named.is_some(), "{log}");
    let refused = site
        .server
        .metric(&["keyserver_rejected_total", "acl"])
        .unwrap();
    assert!(refused >= 10.0, "{refused}");
}

#[test]
fn a_client_is_told_what_its_grants_are_bound_to() {
    clock::wait_past_midnight();
    let conditions = "source = [\"127.0.0.0/8\"]\nhours = \"00:00-24:00\"\nrate = \"600/min\"\ndaily = 1000\n\
                      expires = 2099-06-30\nschemes = [\"ecdsa_secp256r1_sha256\"]";
    let clients = vec![rule("edge-1", &["tls13-sign"], conditions)];
    let site = Site::start(
        Fixture::new(),
        ServerConfig {
            clients,
            ..ServerConfig::default()
        },
    );
    let mut wire = site.connect("edge-1");
    sign13(&mut wire, site.ski("shop")).unwrap();
    let client = info(&mut wire).client.unwrap();
    let [terms] = &client.terms[..] else {
        panic!("{client:?}")
    };
    assert_eq!(terms.operations, ["tls13-sign"]);
    assert_eq!(
        (terms.rate.as_deref(), terms.burst),
        (Some("600/min"), Some(10))
    );
    assert_eq!((terms.daily, terms.daily_left), (Some(1000), Some(999)));
    assert_eq!(terms.expires.as_deref(), Some("2099-06-30"));
    assert_eq!(
        (&terms.source[..], &terms.hours[..]),
        (
            &["127.0.0.0/8".to_owned()][..],
            &["00:00-24:00".to_owned()][..]
        )
    );
    let listed = keys(&mut wire);
    let [entry] = &listed.keys[..] else {
        panic!("{listed:?}")
    };
    assert_eq!(entry.terms, client.terms);
    assert_eq!(entry.schemes, ["ecdsa_secp256r1_sha256"]);
    assert_eq!(entry.dual_use_until.as_deref(), Some("2099-12-31"));
}

#[test]
#[expect(
    clippy::too_many_lines,
    reason = "a table of cases, a line or few each"
)]
fn explain_refuses_what_makes_no_sense_and_sees_what_is_stopped() {
    let clients = vec![
        rule("edge-1", &["tls13-sign"], ""),
        rule(
            "bound",
            &["tls13-sign"],
            "schemes = [\"ecdsa_secp256r1_sha256\"]\nsource = [\"127.0.0.1\"]",
        ),
        rule("night", &["tls13-sign"], "hours = \"22:00-06:00\""),
    ];
    let site = Site::start(
        Fixture::new(),
        ServerConfig {
            clients,
            ..ServerConfig::default()
        },
    );
    let ask = |client, key, op, more: &[&'static str]| {
        [
            &[
                "acl", "explain", "--client", client, "--key", key, "--op", op,
            ][..],
            more,
        ]
        .concat()
    };
    for (arguments, code, says) in [
        (
            ask("nobody", "shop", "tls13-sign", &[]),
            1,
            "no [[clients]] entry is named \"nobody\"",
        ),
        (
            ask("edge-1", "gone", "tls13-sign", &[]),
            1,
            "no loaded key has the label \"gone\"",
        ),
        (
            ask(
                "edge-1",
                "0102030405060708090a0b0c0d0e0f1011121314",
                "tls13-sign",
                &[],
            ),
            1,
            "no loaded key has this SKI",
        ),
        (
            ask("edge-1", "shop", "sign", &[]),
            2,
            "possible values: tls13-sign",
        ),
        (
            ask("edge-1", "shop", "tls13-sign", &["--scheme", "md5"]),
            2,
            "possible values: ",
        ),
        (
            ask("edge-1", "shop", "tls13-sign", &["--source", "here"]),
            2,
            "invalid IP address",
        ),
        (
            ask("edge-1", "shop", "tls13-sign", &["--at", "noon"]),
            2,
            "like 2026-11-22T22:39Z",
        ),
        (
            ask("edge-1", "shop", "tls12-master", &[]),
            1,
            "a key of type p-256 cannot be used for tls12-master",
        ),
        (
            ask("edge-1", "shop", "tls13-sign", &["--scheme", "ed25519"]),
            1,
            "cannot be used for tls13-sign with ed25519",
        ),
        (
            ask("bound", "shop", "tls13-sign", &[]),
            1,
            "it depends on `source` of this grant; say --source ADDRESS",
        ),
        (
            ask("bound", "shop", "tls13-sign", &["--source", "127.0.0.1"]),
            1,
            "say --scheme NAME",
        ),
        (
            ask(
                "night",
                "shop",
                "tls13-sign",
                &["--at", "2026-11-23T23:00Z"],
            ),
            0,
            "the grant covers it",
        ),
        (
            ask(
                "night",
                "shop",
                "tls13-sign",
                &["--at", "2026-11-23T12:00Z"],
            ),
            1,
            "`hours`: it does not count at this hour",
        ),
    ] {
        let said = site.said(&arguments, code);
        assert!(said.contains(says), "{arguments:?}: {said}");
    }
    let json = site.said(
        &[&ask("edge-1", "shop", "tls13-sign", &[])[..], &["--json"]].concat(),
        0,
    );
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(
        (
            json["allowed"].as_bool(),
            json["decided"]["setting"].as_str()
        ),
        (Some(true), Some("allow"))
    );
    site.said(&["keys", "disable", "shop", "--reason", "lost"], 0);
    let said = site.said(&ask("edge-1", "shop", "tls13-sign", &[]), 1);
    assert!(
        said.contains("stopped by uid ") && said.contains("lost (`ksctl keys enable` ends it)"),
        "{said}"
    );
    // Without a server: the same answer, but for what is stopped.
    let offline = Command::new(binaries::keyserver())
        .args([
            "acl",
            "explain",
            "--client",
            "edge-1",
            "--key",
            "shop",
            "--op",
            "tls13-sign",
            "--config",
        ])
        .arg(site.fixture.path("keyserver.toml"))
        .output()
        .unwrap();
    let text = String::from_utf8(offline.stdout).unwrap();
    assert!(
        offline.status.success() && text.starts_with("yes\n"),
        "{text}"
    );
}
