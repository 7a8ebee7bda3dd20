//! Keys in tokens, made by `pkcs11-tool` in SoftHSM and, for ML-DSA, in Kryoptic, through the real daemon.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};
use std::time::Duration;

use aws_lc_rs::signature::{ML_DSA_44, ML_DSA_65, ML_DSA_87, UnparsedPublicKey};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use keyserver_client::{Error, ErrorCode, KeyId, SignatureScheme};
use keyserver_tests::softhsm::PIN;
use keyserver_tests::{ClientRule, Fixture, KeyKind, KeyServer, ServerConfig, SoftHsm, binaries};
use pkcs11_shim::Kryoptic;

use crate::verify::all_operations;
use crate::{World, on_both_backends};

on_both_backends!(
    every_kind_of_key_in_a_token_is_served,
    a_key_moves_between_file_and_token,
    ml_dsa_keys_in_a_token_sign_for_tls,
);

/// Every kind of key that SoftHSM has.
const KINDS: [KeyKind; 7] = [
    KeyKind::Rsa2048,
    KeyKind::Rsa3072,
    KeyKind::Rsa4096,
    KeyKind::P256,
    KeyKind::P384,
    KeyKind::P521,
    KeyKind::Ed25519,
];

/// A module with the token `bank` and these keys in it, each labelled with the name of its kind.
fn hsm(kinds: &[KeyKind]) -> Option<SoftHsm> {
    let hsm = SoftHsm::new()?;
    hsm.add_token("bank");
    for (id, kind) in (1..).zip(kinds) {
        hsm.add_key("bank", *kind, kind.name(), id);
    }
    Some(hsm)
}

fn entries(hsm: &SoftHsm, kinds: &[KeyKind]) -> String {
    kinds
        .iter()
        .map(|kind| hsm.entry("bank", kind.name()))
        .collect()
}

fn start(hsm: &SoftHsm, fixture: Fixture, config: &ServerConfig) -> World {
    let server = KeyServer::start_under(&hsm.wrapper(), &fixture, config);
    World { fixture, server }
}

/// These tests ask much of one slot, and are not about how fast it is on a busy machine.
const PATIENT: &str = "[pkcs11]\ndeadline = \"30s\"\n";

fn with_keys(backend: &str, keys: String) -> ServerConfig {
    let mut config = ServerConfig::default().io_backend(backend);
    config.extra = PATIENT.to_owned() + &keys;
    config
}

/// Runs the daemon's own binary to its end, with the module's configuration in place.
fn keyserver(hsm: &SoftHsm, arguments: &[&str]) -> Output {
    Command::new(binaries::keyserver())
        .args(arguments)
        .env("SOFTHSM2_CONF", hsm.configuration())
        .env("KEYSERVER_LOG", "trace")
        .output()
        .unwrap()
}

fn printed(output: &Output) -> String {
    let text = [output.stdout.as_slice(), output.stderr.as_slice()].concat();
    let text = String::from_utf8(text).unwrap();
    assert!(!text.contains(PIN), "the PIN was printed:\n{text}");
    text
}

async fn every_kind_of_key_in_a_token_is_served(backend: &str) {
    let Some(hsm) = hsm(&KINDS) else { return };
    let world = start(
        &hsm,
        Fixture::new(),
        &with_keys(backend, entries(&hsm, &KINDS)),
    );
    let client = world.client().await;
    let operations = all_operations(&client).await;
    // A ping; six signatures and a decryption of each RSA key; a signature of each other.
    assert_eq!(operations.len(), 1 + 3 * 7 + 4);
    let calls: Vec<_> = (0..400_u32)
        .map(|number| {
            let client = client.clone();
            let operation = operations[number as usize % operations.len()].clone();
            tokio::spawn(async move { operation.run(&client, number).await })
        })
        .collect();
    let mut busy = 0;
    for call in calls {
        match call.await.unwrap() {
            Ok(()) => {}
            // 400 at once are more than the queue of one slot holds.
            Err(Error::Busy { .. }) => busy += 1,
            Err(other) => panic!("{other}"),
        }
    }
    assert!(busy < 400 - 64, "{busy} of 400 were refused");
    let done = world
        .server
        .metric(&["keyserver_hsm_operations_total{", "token=\"bank\""]);
    assert!(done.is_some_and(|done| done >= 64.0), "{done:?}");
    assert_eq!(
        world
            .server
            .metric(&["keyserver_hsm_up{", "token=\"bank\""]),
        Some(1.0)
    );
    assert!(world.server.stop().success());
}

/// The same key, once in a file and once in a token: a reload moves it, under load, and back.
async fn a_key_moves_between_file_and_token(backend: &str) {
    let Some(hsm) = SoftHsm::new() else { return };
    hsm.add_token("bank");
    let fixture = Fixture::new();
    let file = fixture.add_key("shop", KeyKind::P256);
    let pkcs8 = fs::read(&file).unwrap();
    hsm.import_der("bank", &pkcs8, "shop", 1);
    let other = fixture.add_key("other", KeyKind::Ed25519);
    let config = with_keys(backend, String::new());
    let world = start(&hsm, fixture, &config);
    let client = world.client().await;
    let listed = client.keys().await.unwrap();
    let shop = listed
        .iter()
        .find(|key| key.label == "shop")
        .unwrap()
        .clone();
    let in_token = ServerConfig {
        extra: PATIENT.to_owned() + &hsm.entry("bank", "shop"),
        ..config.clone()
    };
    for round in 0..3 {
        fs::remove_file(&file).unwrap();
        world.fixture.write_config(&in_token);
        reload(&world, true);
        assert_same(&client, &shop).await;
        assert!(
            world
                .server
                .metric(&["keyserver_hsm_operations_total{"])
                .is_some(),
            "round {round}: the key is in the token"
        );
        world
            .fixture
            .write(file.strip_prefix(world.fixture.path("")).unwrap(), &pkcs8);
        world.fixture.write_config(&config);
        reload(&world, true);
        assert_same(&client, &shop).await;
    }
    // Both at once are one key too many, and nothing changes.
    world.fixture.write_config(&in_token);
    let refusal = reload(&world, false);
    assert!(refusal.contains("holds the same key"), "{refusal}");
    assert_same(&client, &shop).await;
    assert!(other.exists());
    assert_eq!(client.keys().await.unwrap().len(), 2);
}

/// What a TLS 1.3 server signs (RFC 8446, section 4.4.3).
fn certificate_verify(transcript_hash: &[u8]) -> Vec<u8> {
    let context = b"TLS 1.3, server CertificateVerify\0";
    [&[b' '; 64][..], context, transcript_hash].concat()
}

/// Each ML-DSA key signs what a TLS 1.3 server signs, with the scheme of its own parameter set and no other.
async fn ml_dsa_keys_in_a_token_sign_for_tls(backend: &str) {
    let Some(token) = Kryoptic::new() else { return };
    let shim = token.shim();
    token.generate_ml_dsa(&shim);
    let kinds = [
        ("ml-dsa-44", SignatureScheme::MlDsa44, &ML_DSA_44, 1312),
        ("ml-dsa-65", SignatureScheme::MlDsa65, &ML_DSA_65, 1952),
        ("ml-dsa-87", SignatureScheme::MlDsa87, &ML_DSA_87, 2592),
    ];
    let keys = kinds.map(|(label, ..)| {
        format!(
            "[[keys]]\nuri = \"pkcs11:token=bank;object={label}?module-path={}\"\npin_source = \"file:{}\"\n",
            shim.module.display(),
            token.pin_file().display()
        )
    });
    let mut config = with_keys(backend, keys.concat());
    config.clients = vec![ClientRule::new("edge-1", &["tls13-sign"])];
    let fixture = Fixture::new();
    let server = KeyServer::start(&fixture, &config);
    let world = World { fixture, server };
    let client = world.client().await;
    let listed = client.keys().await.unwrap();
    assert_eq!(listed.len(), kinds.len(), "{listed:?}");
    for (label, scheme, algorithm, public_len) in kinds {
        let entry = listed.iter().find(|entry| entry.label == label).unwrap();
        assert_eq!(entry.key_type, label);
        let id = KeyId::try_from(entry).unwrap();
        let spki = STANDARD.decode(&entry.spki).unwrap();
        // Judged by another implementation than the token's.
        let judge = UnparsedPublicKey::new(algorithm, &spki[spki.len() - public_len..]);
        for hash in [&[1; 32][..], &[2; 48]] {
            let string = certificate_verify(hash);
            let signature = client.sign_tls13(&id, scheme, &string).await.unwrap();
            judge.verify(&string, &signature).unwrap();
        }
        let string = certificate_verify(&[1; 32]);
        for (_, other, ..) in kinds.into_iter().filter(|kind| kind.0 != label) {
            let refusal = client.sign_tls13(&id, other, &string).await;
            assert!(
                matches!(refusal, Err(Error::Refused(ErrorCode::Denied))),
                "{label} with {other}: {refusal:?}"
            );
        }
        // What is not a string of TLS is not signed.
        let refusal = client.sign_tls13(&id, scheme, &string[1..]).await;
        assert!(
            matches!(refusal, Err(Error::Refused(ErrorCode::Denied))),
            "{refusal:?}"
        );
    }
    let metric = |name: &str| world.server.metric(&[name, "token=\"bank\""]);
    // One more for each key, which has signed before it was served.
    assert!(metric("keyserver_hsm_operations_total{").is_some_and(|done| done >= 6.0));
    assert_eq!(metric("keyserver_hsm_check_failures_total{"), Some(0.0));
    assert!(world.server.stop().success());
}

/// The client still has a key of this identity, and every operation with every key works.
async fn assert_same(client: &keyserver_client::Client, entry: &keyserver_client::KeyEntry) {
    let id = KeyId::try_from(entry).unwrap();
    let keys = client.keys().await.unwrap();
    assert!(
        keys.iter()
            .any(|key| KeyId::try_from(key).unwrap() == id && key.spki == entry.spki),
        "{keys:?}"
    );
    for operation in all_operations(client).await {
        operation.run(client, 1).await.unwrap();
    }
}

/// Asks for a reload and returns what `ksctl` printed.
fn reload(world: &World, succeeds: bool) -> String {
    let output = Command::new(binaries::ksctl())
        .arg("--socket")
        .arg(world.fixture.path("run/admin.sock"))
        .args(["reload", "--wait"])
        .output()
        .unwrap();
    let text = printed(&output);
    assert_eq!(
        output.status.success(),
        succeeds,
        "{text}\n{}",
        world.server.log()
    );
    text
}

/// Everything that the daemon prints at the most talkative level, everything that it serves, its
/// arguments and its environment: the PIN is in none of it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_pin_is_seen_nowhere() {
    let Some(hsm) = hsm(&[KeyKind::P256]) else {
        return;
    };
    let mut wrapper = hsm.wrapper();
    wrapper.push("KEYSERVER_LOG=trace".into());
    let fixture = Fixture::new();
    let config = with_keys("epoll", entries(&hsm, &[KeyKind::P256]));
    let server = KeyServer::start_under(&wrapper, &fixture, &config);
    let world = World { fixture, server };
    let client = world.client().await;
    for operation in all_operations(&client).await {
        operation.run(&client, 1).await.unwrap();
    }
    reload(&world, true);
    let mut seen = world.server.metrics();
    for path in ["/state", "/readyz", "/livez"] {
        let answer = keyserver_tests::http::get(world.server.metrics_address(), path).unwrap();
        seen.push_str(&answer.body);
    }
    for file in ["cmdline", "environ"] {
        let path = format!("/proc/{}/{file}", world.server.pid());
        // Its environment is shown to root alone.
        seen.push_str(&String::from_utf8_lossy(
            &fs::read(path).unwrap_or_default(),
        ));
    }
    let log = world.server.log().clone();
    assert!(world.server.stop().success());
    log.wait_until_closed();
    assert!(!log.matching("serving").is_empty(), "{log}");
    seen.push_str(&log.to_string());
    assert!(!seen.contains(PIN), "{seen}");
}

/// A wrong PIN is tried once by everything that starts, and everything ends with exit code 3, at which
/// systemd does not start it again.
#[test]
fn a_wrong_pin_is_tried_once_and_not_again() {
    let kinds = [KeyKind::P256, KeyKind::Rsa2048, KeyKind::Ed25519];
    let Some(hsm) = hsm(&kinds) else { return };
    let wrong = "55520918273645";
    fs::write(hsm.pin_file(), wrong).unwrap();
    let fixture = Fixture::new();
    let config = with_keys("epoll", entries(&hsm, &kinds));
    let (status, log) = KeyServer::start_failing_under(&hsm.wrapper(), &fixture, &config);
    assert_eq!(status.code(), Some(3), "{log}");
    assert!(log.to_string().contains("refused the PIN"), "{log}");
    assert!(!log.to_string().contains(wrong), "{log}");
    let path = fixture.path("keyserver.toml");
    let path = path.to_str().unwrap();
    // Without --online nobody logs in.
    let check = keyserver(&hsm, &["check", "--config", path]);
    assert!(check.status.success(), "{}", printed(&check));
    assert!(
        printed(&check).contains("not looked at: p-256, rsa-2048, ed25519"),
        "{}",
        printed(&check)
    );
    let check = keyserver(&hsm, &["check", "--online", "--config", path]);
    assert_eq!(check.status.code(), Some(3), "{}", printed(&check));
    assert!(!printed(&check).contains(wrong), "{}", printed(&check));
    let module = hsm.module().to_str().unwrap();
    let source = format!("file:{}", hsm.pin_file().display());
    let list = keyserver(
        &hsm,
        &["hsm", "list", "--module", module, "--pin-source", &source],
    );
    assert_eq!(list.status.code(), Some(3), "{}", printed(&list));
    assert!(!printed(&list).contains(wrong), "{}", printed(&list));
    // Somebody gives the PIN in place of its source.
    let list = keyserver(
        &hsm,
        &["hsm", "list", "--module", module, "--pin-source", PIN],
    );
    assert_eq!(list.status.code(), Some(2), "{}", printed(&list));
}

/// `hsm list` prints a URI that serves when it is pasted.
#[test]
fn what_is_listed_can_be_pasted() {
    let Some(hsm) = hsm(&[KeyKind::P256, KeyKind::Rsa2048]) else {
        return;
    };
    let module = hsm.module().to_str().unwrap();
    let public = keyserver(&hsm, &["hsm", "list", "--module", module]);
    assert!(public.status.success(), "{}", printed(&public));
    assert!(
        printed(&public).contains("add --pin-source, and --token \"bank\""),
        "{}",
        printed(&public)
    );
    let source = format!("file:{}", hsm.pin_file().display());
    let list = keyserver(
        &hsm,
        &[
            "hsm",
            "list",
            "--json",
            "--module",
            module,
            "--token",
            "bank",
            "--pin-source",
            &source,
        ],
    );
    let text = printed(&list);
    let document: serde_json::Value = serde_json::from_slice(&list.stdout).unwrap();
    assert_eq!(document["schema"], "keyserver.hsm/1", "{text}");
    let slot = &document["slots"][0];
    assert_eq!(slot["token"], "bank");
    let mechanisms = slot["mechanisms"].as_array().unwrap();
    assert!(mechanisms.iter().any(|name| name == "CKM_ECDSA"), "{text}");
    let uris: Vec<&str> = slot["objects"]
        .as_array()
        .unwrap()
        .iter()
        .filter_map(|object| object["uri"].as_str())
        .collect();
    assert_eq!(uris.len(), 2, "{text}");
    let fixture = Fixture::new();
    let keys: String = uris
        .iter()
        .map(|uri| format!("[[keys]]\nuri = \"{uri}\"\npin_source = \"{source}\"\n"))
        .collect();
    let config = fixture.write_config(&with_keys("epoll", keys));
    let check = keyserver(
        &hsm,
        &["check", "--online", "--config", config.to_str().unwrap()],
    );
    let text = printed(&check);
    assert!(check.status.success(), "{text}");
    for label in [
        "\"p-256\": p-256, has signed",
        "\"rsa-2048\": rsa-2048, has signed",
    ] {
        assert!(text.contains(label), "{text}");
    }
}

/// What `check --online` finds: a certificate for another key, a key that is not there, two that fit.
#[test]
fn check_online_names_what_is_wrong() {
    let Some(hsm) = hsm(&[KeyKind::P256]) else {
        return;
    };
    hsm.add_key("bank", KeyKind::P256, "twin", 7);
    hsm.add_key("bank", KeyKind::P256, "twin", 8);
    let fixture = Fixture::new();
    let check = |entry: &str| {
        let config = fixture.write_config(&with_keys("epoll", entry.to_owned()));
        let output = keyserver(
            &hsm,
            &["check", "--online", "--config", config.to_str().unwrap()],
        );
        (output.status.code(), printed(&output))
    };
    let (code, text) = check(&hsm.entry("bank", "p-256"));
    assert_eq!(code, Some(0), "{text}");
    for (entry, expected) in [
        (
            hsm.entry("bank", "p-256") + "certificate = \"pki/server.pem\"\n",
            "is not the one of the certificate",
        ),
        (hsm.entry("bank", "nothing"), "no such private key"),
        (hsm.entry("bank", "twin"), "2 private keys fit"),
        (hsm.entry("other", "p-256"), "no slot holds such a token"),
    ] {
        let (code, text) = check(&entry);
        assert_eq!(code, Some(2), "{text}");
        assert!(text.contains(expected), "{expected}: {text}");
    }
}

/// The certificate of a key may be given, and a key that is not required may be away.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_that_is_not_required_may_be_away() {
    let Some(hsm) = hsm(&[KeyKind::P256]) else {
        return;
    };
    let fixture = Fixture::new();
    let away = hsm.entry("elsewhere", "p-256");
    let config = with_keys("epoll", hsm.entry("bank", "p-256") + &away);
    let (status, log) = KeyServer::start_failing_under(&hsm.wrapper(), &fixture, &config);
    assert_eq!(status.code(), Some(2), "{log}");
    assert!(
        log.to_string().contains("no slot holds such a token"),
        "{log}"
    );

    let away = away + "label = \"away\"\nrequired = false\n";
    let config = with_keys("epoll", hsm.entry("bank", "p-256") + &away);
    let world = start(&hsm, fixture, &config);
    let client = world.client().await;
    assert_eq!(client.keys().await.unwrap().len(), 1);
    let status = Command::new(binaries::ksctl())
        .arg("--socket")
        .arg(world.fixture.path("run/admin.sock"))
        .arg("status")
        .output()
        .unwrap();
    let text = printed(&status);
    assert!(text.contains("keys         1; ABSENT: away"), "{text}");
    assert!(text.contains("key \"away\" is not served: "), "{text}");

    // The token arrives. SoftHSM looks for new tokens only when it starts.
    hsm.add_token("elsewhere");
    hsm.add_key("elsewhere", KeyKind::P256, "p-256", 1);
    assert!(world.server.stop().success());
    let world = start(&hsm, world.fixture, &config);
    let client = world.client().await;
    assert_eq!(client.keys().await.unwrap().len(), 2);
    for operation in all_operations(&client).await {
        operation.run(&client, 1).await.unwrap();
    }
}

/// The number of the slot with this token, as the module tells it.
fn slot_number(hsm: &SoftHsm, module: &Path, token: &str) -> u64 {
    let module = module.to_str().unwrap();
    let list = keyserver(hsm, &["hsm", "list", "--json", "--module", module]);
    let document: serde_json::Value = serde_json::from_slice(&list.stdout).unwrap();
    let slots = document["slots"].as_array().unwrap();
    let slot = slots.iter().find(|slot| slot["token"] == token).unwrap();
    slot["slot"].as_u64().unwrap()
}

/// Of two slots with one key the second is away at the start, and said to be. When it is back, a reload is enough for it
/// to stand in for the first.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slot_that_was_away_at_the_start_joins_with_a_reload() {
    let Some(hsm) = SoftHsm::new() else { return };
    let fixture = Fixture::new();
    let file = fixture.add_key("shop", KeyKind::P256);
    let pkcs8 = fs::read(&file).unwrap();
    fs::remove_file(&file).unwrap();
    let modules = ["one", "two"].map(|token| {
        hsm.add_token(token);
        hsm.import_der(token, &pkcs8, "shop", 1);
        hsm.faulty(token)
    });
    let [one, two] = &modules;
    let numbers =
        [(one, "one"), (two, "two")].map(|(it, token)| slot_number(&hsm, &it.module, token));
    two.from_the_start(&format!("remove {}", numbers[1]));
    let uris =
        [(one, "one"), (two, "two")].map(|(it, token)| hsm.uri_through(&it.module, token, "shop"));
    let entry = format!(
        "[[keys]]\nuris = {uris:?}\npin_source = \"file:{}\"\n",
        hsm.pin_file().display()
    );
    let server = KeyServer::start(&fixture, &with_keys("epoll", entry));
    let world = World { fixture, server };
    let log = world.server.log();
    let said = log.wait_for_matching(Duration::from_secs(30), "not usable now", 1);
    assert_eq!(said.len(), 1, "{}", world.server.log());
    assert!(said[0].contains("token=two"), "{said:?}");
    assert!(said[0].contains("no slot holds such a token"), "{said:?}");
    two.control.tell(&format!("insert {}", numbers[1]));
    reload(&world, true);
    let client = world.client().await;
    one.control.tell(&format!("remove {}", numbers[0]));
    for _ in 0..10 {
        for operation in all_operations(&client).await {
            operation.run(&client, 1).await.unwrap();
        }
    }
    assert_eq!(world.server.log().matching("not usable now").len(), 1);
    assert!(world.server.stop().success());
}
