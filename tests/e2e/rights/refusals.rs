//! One refusal for all reasons: the same bytes.

use std::collections::BTreeMap;

use super::*;

#[test]
#[expect(
    clippy::too_many_lines,
    reason = "a table of cases, a line or few each"
)]
fn every_refusal_has_the_same_bytes() {
    clock::wait_past_midnight();
    let fixture = Fixture::new();
    fixture.add_key("rsa", KeyKind::Rsa2048);
    fixture.write_identity("stranger", &fixture.pki.client("stranger"));
    let config = ServerConfig {
        clients: vec![
            rule("edge-1", &["tls13-sign", "decrypt-compatible"], ""),
            rule("elsewhere", &["tls13-sign"], "source = [\"192.0.2.1\"]"),
            rule("over", &["tls13-sign"], "daily = 1"),
            ClientRule {
                keys: vec!["other*".into()],
                ..rule("other-key", &["tls13-sign"], "")
            },
            rule("other-right", &["sign-digest"], ""),
            rule("retries", &["decrypt-compatible"], ""),
        ],
        extra: "[ledger]\ndirectory = \"ledger\"\n".into(),
        ..ServerConfig::default()
    };
    let site = Site::start(fixture, config);
    let (shop, rsa) = (site.ski("shop"), site.ski("rsa"));
    let string = tls13_string();
    let longer = [&string[..], &[0]].concat();
    let ciphertext = [&[0][..], &[0x33; 255]].concat();
    site.connect("edge-1")
        .ask(&request(Opcode::RsaDecrypt, rsa, &ciphertext))
        .unwrap();
    while sign13(&mut site.connect("over"), shop).is_ok() {}
    let signing = |ski, payload| Request {
        signature_scheme: Some(ECDSA),
        ..request(Opcode::SignTls13, ski, payload)
    };
    let reasons = [
        ("unknown key", "edge-1", signing([9; 20], &string[..])),
        (
            "unknown key and another shape",
            "edge-1",
            signing([9; 20], &string[1..]),
        ),
        (
            "no key named",
            "edge-1",
            Request {
                ski: None,
                ..signing(shop, &string)
            },
        ),
        ("no right on the key", "other-key", signing(shop, &string)),
        (
            "no right of the kind",
            "other-right",
            signing(shop, &string),
        ),
        (
            "another shape, shorter",
            "edge-1",
            signing(shop, &string[1..]),
        ),
        ("another shape, longer", "edge-1", signing(shop, &longer)),
        (
            "another scheme",
            "edge-1",
            Request {
                signature_scheme: Some(0x0807),
                ..signing(shop, &string)
            },
        ),
        (
            "no scheme",
            "edge-1",
            Request {
                signature_scheme: None,
                ..signing(shop, &string)
            },
        ),
        ("another place", "elsewhere", signing(shop, &string)),
        (
            "another place, unknown key",
            "elsewhere",
            signing([9; 20], &string),
        ),
        ("used up", "over", signing(shop, &string)),
        ("unknown client", "stranger", signing(shop, &string)),
        (
            "replay by another",
            "retries",
            request(Opcode::RsaDecrypt, rsa, &ciphertext),
        ),
        (
            "decryption without the right",
            "over",
            request(Opcode::RsaDecrypt, rsa, &ciphertext),
        ),
        (
            "decryption with an unknown key",
            "edge-1",
            request(Opcode::RsaDecrypt, [9; 20], &ciphertext),
        ),
    ];
    for extended in [true, false] {
        let mut answers: BTreeMap<Vec<u8>, Vec<&str>> = BTreeMap::new();
        for (reason, client, asked) in reasons {
            let mut wire = site.connect(client);
            let answer = wire.exchange(&Request { extended, ..asked }).to_vec();
            answers.entry(answer).or_default().push(reason);
        }
        assert_eq!(answers.len(), 1, "{answers:?}");
    }
    // The operator sees them apart.
    for reason in [
        "unknown-key",
        "no-key-named",
        "acl",
        "not-tls",
        "daily-ceiling",
        "unknown-client",
        "replay",
    ] {
        let count = site
            .server
            .metric(&["keyserver_rejected_total", &format!("\"{reason}\"")]);
        assert!(count.unwrap_or(0.0) >= 2.0, "{reason}: {count:?}");
    }
}
