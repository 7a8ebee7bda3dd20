//! What a configuration may say about keys in tokens, and what people read when it is wrong.

#![cfg(feature = "pkcs11")]
#![allow(
    clippy::allow_attributes,
    clippy::unwrap_used,
    clippy::panic,
    clippy::assertions_on_result_states,
    reason = "test helpers fail the test; the lints exempt only the test functions themselves"
)]

mod common;

use std::path::{Path, PathBuf};
use std::time::Duration;

use accel::pkcs11::{PinSource, SlotChoice};
use common::{MINIMAL, Site};
use keyserver::config::{Config, KeyLocation, Pkcs11, TokenKeySource};

const MODULE: &str = "?module-path=/usr/lib/libhsm.so";

fn parse(text: &str) -> Result<Config, String> {
    Config::parse(Path::new("keyserver.toml"), text).map_err(|error| error.to_string())
}

/// [`MINIMAL`] with this as its only `[[keys]]` entry.
fn with_keys(entry: &str) -> String {
    MINIMAL
        .trim_start()
        .replace("directory = \"keys\"\n", &format!("{entry}\n"))
}

fn error(entry: &str) -> String {
    parse(&with_keys(entry)).unwrap_err()
}

/// The same without the place in the file and the line.
fn short_error(entry: &str) -> String {
    let error = error(entry);
    let (what, rest) = error.split_once("\n  ").unwrap();
    let what = what.split_once(": ").unwrap().1;
    format!("{what}; {}", rest.rsplit_once("fix: ").unwrap().1)
}

fn token(config: &Config) -> &TokenKeySource {
    match &config.keys[0].location {
        KeyLocation::Token(source) => source,
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_smallest_entry_has_defaults() {
    let entry = format!("uri = \"pkcs11:token=bank;object=shop{MODULE}\"");
    let config = parse(&with_keys(&entry)).unwrap();
    let source = token(&config);
    assert_eq!(config.keys[0].label.as_deref(), Some("shop"));
    assert_eq!(source.uris[0].token(), Some("bank"));
    assert_eq!(source.choice, SlotChoice::Ordered);
    assert_eq!(source.pin, None);
    assert!(source.required);
    assert_eq!(config.pkcs11, Pkcs11::default());
    let defaults = &config.pkcs11;
    assert_eq!((defaults.sessions, defaults.queue), (16, None));
    assert_eq!(defaults.deadline, Duration::from_secs(2));
    assert_eq!(defaults.call_timeout, Duration::from_secs(5));
    assert_eq!(defaults.keepalive, Duration::from_secs(20));
}

#[test]
fn every_setting_is_read() {
    let entry = "uris = [\"pkcs11:token=a;object=shop\", \"pkcs11:serial=77;id=%01?module-path=/b.so\"]\n\
                 choice = \"least-loaded\"\npin_source = \"credential:hsm-pin\"\nrequired = false\n\
                 label = \"front\"\ncertificate = \"shop.pem\"";
    let table = "[pkcs11]\nmodule = \"/usr/lib/a.so\"\nsessions = 8\nstart_limit = 4\ndeadline = \"3s\"\n\
                 call_timeout = \"4s\"\nkeepalive = \"10s\"\n";
    let config = parse(&(with_keys(entry) + table)).unwrap();
    let source = token(&config);
    let modules: Vec<_> = source
        .uris
        .iter()
        .map(|uri| uri.module_path().unwrap())
        .collect();
    assert_eq!(modules, [Path::new("/usr/lib/a.so"), Path::new("/b.so")]);
    assert_eq!(source.choice, SlotChoice::LeastLoaded);
    assert_eq!(
        source.pin,
        Some(PinSource::Credential("hsm-pin".to_owned()))
    );
    assert!(!source.required);
    assert_eq!(config.keys[0].label.as_deref(), Some("front"));
    assert_eq!(config.keys[0].certificate, Some("shop.pem".into()));
    let expected = Pkcs11 {
        module: Some("/usr/lib/a.so".into()),
        sessions: 8,
        start_limit: Some(4),
        queue: None,
        deadline: Duration::from_secs(3),
        call_timeout: Duration::from_secs(4),
        keepalive: Duration::from_secs(10),
    };
    assert_eq!(config.pkcs11, expected);
    let config = parse(&(with_keys(entry) + table + "queue = 7\n")).unwrap();
    assert_eq!(config.pkcs11.queue, Some(7));
}

#[test]
fn a_pin_in_a_file_is_found_beside_the_configuration() {
    let entry =
        format!("uri = \"pkcs11:token=a;object=b{MODULE}\"\npin_source = \"file:secrets/pin\"");
    let text = with_keys(&entry);
    let config = Config::parse(Path::new("/etc/keyserver/keyserver.toml"), &text).unwrap();
    let expected = PinSource::File(PathBuf::from("/etc/keyserver/secrets/pin"));
    assert_eq!(token(&config).pin, Some(expected));
}

#[test]
fn what_a_uri_lacks_is_said() {
    let list = "`keyserver hsm list --module PATH` prints whole URIs";
    for (entry, expected) in [
        (
            format!("uri = \"pkcs11:token=bank{MODULE}\""),
            format!(
                "this URI does not say which key of the token it means; \
                 add `object=LABEL` or `id=%01`; {list}"
            ),
        ),
        (
            format!("uri = \"pkcs11:object=shop{MODULE}\""),
            format!(
                "this URI does not say in which token the key is; \
                 add `token=LABEL` or `serial=NUMBER`; {list}"
            ),
        ),
        (
            "uri = \"pkcs11:token=bank;object=shop\"".to_owned(),
            "this URI names no module; add `?module-path=/usr/lib/.../lib.so` to it, or [pkcs11] \
             `module = \"...\"`"
                .to_owned(),
        ),
        (
            "uris = []".to_owned(),
            "`keys.uris` is empty; give the URI of the key".to_owned(),
        ),
        (
            format!("uri = \"pkcs11:token=a;id=%01{MODULE}\""),
            "this key has no label: its URI has an `id` but no `object`; \
             add `label = \"shop\"`; grants and logs name the key by it"
                .to_owned(),
        ),
        (
            format!("uri = \"pkcs11:token=a;object=b{MODULE}\"\nchoice = \"random\""),
            "`keys.choice` = \"random\" is not understood; give \"ordered\" or \"least-loaded\""
                .to_owned(),
        ),
        (
            format!("uri = \"pkcs11:token=a;object=b{MODULE}\"\nallow_exponents = [\"b\"]"),
            "`keys.allow_exponents` belongs to key files; remove it here".to_owned(),
        ),
        (
            "directory = \"keys\"\npin_source = \"env:PIN\"".to_owned(),
            "`keys.pin_source` belongs to a key in a token; remove it here".to_owned(),
        ),
        (
            format!("uri = \"pkcs11:token=a;object=b{MODULE}\"\npin-source = \"env:PIN\""),
            "unknown key `pin-source` in [keys]; did you mean `pin_source`?".to_owned(),
        ),
    ] {
        assert_eq!(short_error(&entry), expected);
    }
    let text = MINIMAL.to_owned() + "[pkcs11]\nsession = 3\n";
    assert!(
        parse(&text)
            .unwrap_err()
            .contains("did you mean `sessions`?")
    );
    let text = MINIMAL.to_owned() + "[pkcs11]\nqueue = 5000\n";
    assert!(parse(&text).unwrap_err().contains("from 1 to 1024"));
}

/// Somebody writes the PIN into the file all the same. They are told, and the PIN is not shown again.
#[test]
fn a_pin_in_the_configuration_is_refused_and_not_repeated() {
    let uri = format!("uri = \"pkcs11:token=a;object=b{MODULE}\"");
    for entry in [
        format!("{uri}\npin = \"73915028\""),
        format!("{uri}\npin = 73915028"),
        format!("{uri}\npin_source = \"73915028\""),
        format!("{uri}\npin_source = 73915028"),
        format!("{uri}\npin_source = \"pin:73915028\""),
        format!("{uri}\npin-source = \"73915028\""),
        format!("{uri}\npassword = \"73915028\""),
        format!("{uri}\npin_source = \"73915028"),
        format!("uri = \"pkcs11:token=a;object=b{MODULE}&pin-value=73915028\""),
        format!("uri = \"pkcs11:token=a;object=b;pin-value=73915028{MODULE}\""),
        format!("uri = \"pkcs11:token=a;object=b{MODULE}&pin-source=73915028\""),
    ] {
        let error = error(&entry);
        assert!(!error.contains("73915028"), "{error}");
        assert!(error.contains("keyserver.toml:1"), "{error}");
    }
    assert!(
        short_error(&format!("{uri}\npin = \"1\"")).starts_with(
            "a PIN does not belong in this file; write where the PIN is: `pin_source = \"credential:NAME\"`"
        )
    );
}

#[test]
fn a_module_or_pin_file_that_is_missing_is_found_with_its_line() {
    let site = Site::new();
    site.configure(&with_keys(
        "uri = \"pkcs11:token=a;object=b?module-path=/nowhere/x.so\"\npin_source = \"file:pin\"",
    ));
    let error = Config::load(&site.config()).unwrap_err().to_string();
    assert!(error.contains("/nowhere/x.so cannot be opened"), "{error}");
    assert!(error.contains("/pin cannot be opened"), "{error}");
}
