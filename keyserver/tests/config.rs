//! What people read when a configuration is wrong, word for word; and what a right one means.

#![allow(
    clippy::allow_attributes,
    clippy::unwrap_used,
    clippy::panic,
    clippy::assertions_on_result_states,
    reason = "test helpers fail the test; the lints exempt only the test functions themselves"
)]

mod common;

use std::fs;
use std::path::Path;
use std::time::Duration;

use accel::VerifyRate;
use common::{MINIMAL, Site};
use keyserver::config::{Config, EngineChoice, IoBackend, KeyLocation, Match, TlsVersion};
use keyserver::policy::{Hours, Purpose, Right, Weekday};

fn parse(text: &str) -> Result<Config, String> {
    Config::parse(Path::new("keyserver.toml"), text).map_err(|error| error.to_string())
}

fn errors(text: &str) -> String {
    parse(text).map(|_| "no error").unwrap_err()
}

/// [`MINIMAL`] with one line replaced, and the error for it.
fn error_with(line: &str, instead: &str) -> String {
    let text = MINIMAL.trim_start().replace(line, instead);
    assert_ne!(
        text,
        MINIMAL.trim_start(),
        "{line} is not in the configuration"
    );
    errors(&text)
}

#[test]
fn defaults_are_as_documented() {
    let config = parse(MINIMAL).unwrap();
    assert_eq!(config.listen.address, "127.0.0.1:0".parse().unwrap());
    assert_eq!(config.listen.backlog, 4096);
    assert_eq!(config.tls.minimum, TlsVersion::V1_2);
    assert!(!config.tls.require_post_quantum);
    assert_eq!(config.io.backend, IoBackend::Auto);
    assert_eq!(config.accel.engine, EngineChoice::Auto);
    assert_eq!(config.accel.verify_ecdsa, VerifyRate::permille(10));
    assert!(!config.accel.precompute_ecdsa);
    assert_eq!(config.limits.connections, 10_000);
    assert_eq!(config.limits.in_flight_per_connection, 256);
    assert_eq!(config.limits.output_bytes, 256 * 1024);
    assert_eq!(config.limits.handshake_deadline, Duration::from_secs(2));
    assert_eq!(config.shutdown.spread, Duration::from_secs(10));
    assert_eq!(config.shutdown.limit, Duration::from_secs(30));
    assert_eq!(
        config.keys[0].location,
        KeyLocation::Directory("keys".into())
    );
    assert_eq!(config.clients[0].matches, [Match::Dns("edge-1".into())]);
    assert_eq!(config.clients[0].weight, 1);
    assert_eq!(config.limits.queue_time, Duration::from_millis(8));
    let allow = config.clients[0].grants[0].allow;
    let expected = [Right::Tls13Sign, Right::Tls12Sign, Right::SignDigest];
    assert!(allow.iter().eq(expected), "{allow:?}");
}

#[test]
fn every_setting_is_read() {
    let text = MINIMAL.replace(
        "[admin]",
        "minimum = \"1.3\"\nrequire_post_quantum = true\n[admin]",
    ) + r#"
allow_nothing_here_but = 1
"#;
    assert!(errors(&text).contains("unknown key `allow_nothing_here_but` in [clients.grants]"));
    let text = MINIMAL.replace(
        "[admin]",
        "minimum = \"1.3\"\nrequire_post_quantum = true\n[admin]",
    ) + r#"
expires = 2031-02-03
[[clients.grants]]
keys = ["0102030405060708090a0b0c0d0e0f1011121314", "shop-*"]
allow = "decrypt-raw"
expires = "2031-02-03"
[io]
backend = "epoll"
threads = 2
[accel]
engine = "single"
threads = 3
verify_ecdsa = "0.5%"
[limits]
connections = 12
in_flight_per_connection = 34
output_per_connection = "1MiB"
handshake_deadline = "500ms"
job_deadline = "1s"
queue_time = "20ms"
[shutdown]
spread = "0s"
limit = "2min"
"#;
    let config = parse(&text).unwrap();
    assert_eq!(config.tls.minimum, TlsVersion::V1_3);
    assert!(config.tls.require_post_quantum);
    assert_eq!(
        (config.io.backend, config.io.threads),
        (IoBackend::Epoll, Some(2))
    );
    assert_eq!(
        (config.accel.engine, config.accel.threads),
        (EngineChoice::Single, Some(3))
    );
    assert_eq!(config.accel.verify_ecdsa, VerifyRate::permille(5));
    assert_eq!(
        (
            config.limits.connections,
            config.limits.in_flight_per_connection
        ),
        (12, 34)
    );
    assert_eq!(config.limits.output_bytes, 1 << 20);
    assert_eq!(config.limits.handshake_deadline, Duration::from_millis(500));
    assert_eq!(config.limits.job_deadline, Duration::from_secs(1));
    assert_eq!(config.limits.queue_time, Duration::from_millis(20));
    assert_eq!(config.shutdown.spread, Duration::ZERO);
    assert_eq!(config.shutdown.limit, Duration::from_secs(120));
    let grants = &config.clients[0].grants;
    assert_eq!(grants[0].expires, grants[1].expires);
    assert_eq!(grants[1].expires.unwrap().to_string(), "2031-02-03");
}

/// [`MINIMAL`] with more settings of its grant, and a state directory.
fn with_grant(settings: &str) -> String {
    MINIMAL
        .replace("[admin]\n", "[admin]\nstate = \"state\"\n")
        .trim_start()
        .to_owned()
        + settings
}

#[test]
fn circumstances_and_limits_of_a_grant_are_read() {
    let settings = "source = [\"10.1.0.0/16\", \"::1\"]\ndays = [\"mon\", \"sun\"]\nhours = \"22:00-06:00\"\n\
                    rate = \"600/min\"\ndaily = 5000\n";
    let config = parse(&with_grant(settings)).unwrap();
    let grant = &config.clients[0].grants[0];
    let sources: Vec<_> = grant.sources.iter().map(ToString::to_string).collect();
    assert_eq!(sources, ["10.1.0.0/16", "::1/128"]);
    assert_eq!(grant.window.days, [Weekday::Monday, Weekday::Sunday]);
    assert_eq!(grant.window.hours, [Hours::parse("22:00-06:00").unwrap()]);
    let rate = grant.limits.rate.unwrap();
    // A burst that is not given is what a second brings.
    assert_eq!(
        (rate.count, rate.period, rate.burst),
        (600, Duration::from_secs(60), 10)
    );
    assert_eq!(grant.limits.daily, Some(5000));
    let slow = parse(&with_grant("rate = \"2/h\"\nburst = 5\n")).unwrap();
    assert_eq!(slow.clients[0].grants[0].limits.rate.unwrap().burst, 5);
    // Where it stands, for the one who asks which line decided.
    assert_eq!(grant.place.to_string(), "keyserver.toml:21");
    assert_eq!(grant.place.of("daily"), "keyserver.toml:28");
    let usage = &config.keys[0].usage;
    assert_eq!((usage.purpose, usage.dual_use_until), (Purpose::Sign, None));
    let dual = with_grant("").replace(
        "\"keys\"\n",
        "\"keys\"\npurpose = \"key-exchange\"\ndual_use_until = 2027-06-30\n",
    );
    let usage = &parse(&dual).unwrap().keys[0].usage;
    assert_eq!(usage.purpose, Purpose::KeyExchange);
    assert_eq!(usage.dual_use_until.unwrap().to_string(), "2027-06-30");
}

/// A setting, what is wrong with it, and what to do.
const WRONG: [(&str, &str, &str); 12] = [
    (
        "source = \"10.1.2.3/8\"",
        "`clients.grants.source` = \"10.1.2.3/8\" is not understood",
        "no bit set behind the prefix",
    ),
    (
        "source = []",
        "`clients.grants.source` lets nothing through",
        "or leave it out",
    ),
    (
        "days = [\"monday\"]",
        "`clients.grants.days` = \"monday\" is not understood",
        "[\"mon\", \"tue\"]",
    ),
    (
        "hours = \"8:00-18:00\"",
        "`clients.grants.hours` = \"8:00-18:00\" is not understood",
        "times of day in UTC",
    ),
    (
        "hours = 8",
        "`clients.grants.hours` is a number",
        "times of day in UTC",
    ),
    (
        "rate = \"100\"",
        "`clients.grants.rate` = \"100\" is not understood",
        "\"600/min\"",
    ),
    (
        "rate = \"0/s\"",
        "`clients.grants.rate` = \"0/s\" is not understood",
        "\"600/min\"",
    ),
    (
        "burst = 5",
        "`clients.grants.burst` is nothing without `rate`",
        "rate = \"100/s\"",
    ),
    (
        "rate = \"1/s\"\nburst = 0",
        "`clients.grants.burst` = 0 is out of bounds",
        "from 1 to ",
    ),
    (
        "daily = 0",
        "`clients.grants.daily` = 0 is out of bounds",
        "from 1 to ",
    ),
    (
        "expires = \"soon\"",
        "`clients.grants.expires` = soon is not a day",
        "like 2027-06-30",
    ),
    (
        "max_credential_lifetime = \"1h\"",
        "is for the right delegate",
        "allow \"delegate\"",
    ),
];

#[test]
fn circumstances_that_mean_nothing_say_what_would() {
    for (setting, what, fix) in WRONG {
        let error = errors(&with_grant(&format!("{setting}\n")));
        assert!(
            error.contains(what) && error.contains(fix),
            "{setting}: {error}"
        );
    }
    let error = errors(&(MINIMAL.to_owned() + "daily = 5\n"));
    assert!(
        error.contains("`admin.state` is missing, and a grant has `daily`"),
        "{error}"
    );
    let error = error_with("\"sign-digest\"]", "\"decrypt-raw\"]");
    assert!(
        error.contains("a grant of decrypt-raw needs an end"),
        "{error}"
    );
    let error = error_with(
        "directory = \"keys\"",
        "directory = \"keys\"\npurpose = \"both\"",
    );
    assert!(
        error.contains("`keys.purpose` = \"both\" is not understood"),
        "{error}"
    );
}

#[test]
fn a_misspelt_key_is_named_with_the_one_that_was_meant() {
    assert_eq!(
        error_with("client_ca   =", "clientca ="),
        "keyserver.toml:4: `tls.client_ca` is missing\n  4 | [tls]\n  \
         fix: add `client_ca = \"pki/ca.pem\"`\n\
         keyserver.toml:7: unknown key `clientca` in [tls]\n  7 | clientca = \"pki/ca.pem\"\n  \
         fix: did you mean `client_ca`?"
    );
    assert_eq!(
        error_with("[metrics]", "[metric]"),
        "keyserver.toml:11: unknown key `metric` at the top of the file\n  11 | [metric]\n  \
         fix: did you mean `metrics`?"
    );
    assert_eq!(
        error_with("socket =", "path ="),
        "keyserver.toml:10: unknown key `path` in [admin]\n  10 | path = \"run/admin.sock\"\n  \
         fix: remove it; known here: socket, state"
    );
}

#[test]
fn values_that_mean_nothing_say_what_would() {
    assert_eq!(
        error_with(
            "address = \"127.0.0.1:0\"\n\n[tls]",
            "address = \"localhost\"\n\n[tls]"
        ),
        "keyserver.toml:2: `listen.address` = \"localhost\" is not understood\n  \
         2 | address = \"localhost\"\n  \
         fix: give an IP address and a port, like \"127.0.0.1:2407\" or \"[::]:2407\""
    );
    assert_eq!(
        error_with("\"sign-digest\"]", "\"sign-digset\"]"),
        "keyserver.toml:22: there is no right \"sign-digset\"\n  \
         22 | allow  = [\"tls13-sign\", \"tls12-sign\", \"sign-digset\"]\n  \
         fix: did you mean `sign-digest`?"
    );
    assert_eq!(
        error_with("\"dns:edge-1\"", "\"dns:*.example.com\""),
        "keyserver.toml:19: `clients.match` = \"dns:*.example.com\" is not understood\n  \
         19 | match  = \"dns:*.example.com\"\n  \
         fix: give one name of the certificate in full; wildcards are not expanded"
    );
    assert_eq!(
        error_with("name   = \"edge-1\"", "name   = \"edge-1\"\nweight = 0"),
        "keyserver.toml:19: `clients.weight` = 0 is out of bounds\n  \
         19 | weight = 0\n  fix: give a whole number from 1 to 1000"
    );
    assert_eq!(
        error_with("[admin]", "[limits]\nhandshake_deadline = 2\n[admin]"),
        "keyserver.toml:10: `limits.handshake_deadline` is a number\n  \
         10 | handshake_deadline = 2\n  fix: give a time with a unit, like \"500ms\" or \"10s\""
    );
    assert_eq!(
        error_with("name   = \"edge-1\"", "name   = \"edge-1"),
        "keyserver.toml:18: this is not TOML: invalid basic string, expected `\"`\n  \
         18 | name   = \"edge-1\n  \
         fix: compare the line with systemd/keyserver.toml; strings stand in double quotes"
    );
}

#[test]
fn everything_that_is_wrong_is_said_at_once() {
    let text = "[listen]\naddress = 5\n[shutdown]\nspread = \"20s\"\nlimit = \"5s\"\n[[keys]]\n";
    assert_eq!(
        errors(text),
        "keyserver.toml: `tls.certificate` is missing\n  \
         fix: add [tls] `certificate = \"pki/server.pem\"`\n\
         keyserver.toml: `tls.private_key` is missing\n  \
         fix: add [tls] `private_key = \"pki/server-key.pem\"`\n\
         keyserver.toml: `tls.client_ca` is missing\n  \
         fix: add [tls] `client_ca = \"pki/ca.pem\"`\n\
         keyserver.toml:2: `listen.address` is a number\n  2 | address = 5\n  \
         fix: give an IP address and a port, like \"127.0.0.1:2407\" or \"[::]:2407\"\n\
         keyserver.toml:3: `shutdown.limit` (5s) is shorter than `shutdown.spread` (20s)\n  \
         3 | [shutdown]\n  \
         fix: raise the limit: connections are closed politely during the spread, cut at the limit\n\
         keyserver.toml:6: this [[keys]] entry does not say where its keys are\n  6 | [[keys]]\n  \
         fix: add `directory = \"keys\"`, `file = \"keys/shop.key\"` or `uri = \"pkcs11:...\"`"
    );
}

#[test]
fn clients_that_contradict_each_other_are_refused() {
    let second = MINIMAL.to_owned()
        + "[[clients]]\nname = \"edge-1\"\nmatch = [\"DNS:x\", \"dns:EDGE-1\"]\n";
    let error = errors(&second);
    assert!(
        error.contains("client \"edge-1\" is already defined at keyserver.toml:18"),
        "{error}"
    );
    assert!(
        error.contains("dns:edge-1 is claimed by client \"edge-1\" and by client"),
        "{error}"
    );
    assert!(
        error.contains("`clients.match` = \"DNS:x\" is not understood"),
        "{error}"
    );
}

#[test]
fn files_that_do_not_exist_are_found_with_their_line() {
    let site = Site::new();
    fs::remove_file(site.path("pki/ca.pem")).unwrap();
    fs::remove_dir(site.path("keys")).unwrap();
    let error = Config::load(&site.config()).unwrap_err().to_string();
    let error = error.replace(&site.path("").display().to_string(), "DIR/");
    let fix = "fix: paths are relative to the directory of the main configuration file; \
               the server's user must be able to reach it";
    assert_eq!(
        error,
        format!(
            "DIR/keyserver.toml:8: DIR/pki/ca.pem cannot be opened: No such file or directory \
             (os error 2)\n  8 | client_ca   = \"pki/ca.pem\"\n  {fix}\n\
             DIR/keyserver.toml:16: DIR/keys cannot be opened: No such file or directory \
             (os error 2)\n  16 | directory = \"keys\"\n  {fix}"
        )
    );
}

#[test]
fn fragments_of_conf_d_add_and_override_in_name_order() {
    let site = Site::new();
    fs::create_dir(site.path("conf.d")).unwrap();
    site.write("conf.d/20-later.toml", "[limits]\nconnections = 20\n");
    site.write(
        "conf.d/10-first.toml",
        "[limits]\nconnections = 10\njob_deadline = \"1s\"\n",
    );
    site.write(
        "conf.d/30-client.toml",
        "[[clients]]\nname = \"edge-2\"\nmatch = \"dns:edge-2\"\n",
    );
    site.write("conf.d/ignored.toml.bak", "this is not TOML");
    let config = Config::load(&site.config()).unwrap();
    assert_eq!(config.limits.connections, 20);
    assert_eq!(config.limits.job_deadline, Duration::from_secs(1));
    let names: Vec<_> = config
        .clients
        .iter()
        .map(|client| client.name.as_str())
        .collect();
    assert_eq!(names, ["edge-1", "edge-2"]);
    site.write("conf.d/40-wrong.toml", "\n[limts]\n");
    let error = Config::load(&site.config()).unwrap_err().to_string();
    assert!(
        error.contains("conf.d/40-wrong.toml:2: unknown key `limts`"),
        "{error}"
    );
}

#[test]
fn credentials_are_paths_that_systemd_passes() {
    let error = error_with("\"pki/server-key.pem\"", "\"${env:KEY}\"");
    assert_eq!(
        error,
        "keyserver.toml:6: `tls.private_key` has a reference that is not understood\n  \
         6 | private_key = \"${env:KEY}\"\n  \
         fix: write ${credential:NAME}, with the NAME of a LoadCredential= line of the unit"
    );
    for name in ["../x", "", "..", "a/b"] {
        let reference = format!("\"${{credential:{name}}}\"");
        assert!(error_with("\"pki/server-key.pem\"", &reference).contains("not understood"));
    }
    let text = MINIMAL.replace("\"pki/server-key.pem\"", "\"${credential:tls-key}\"");
    assert!(parse(&text).unwrap().tls.private_key.ends_with("tls-key"));
}

/// The examples that people copy must be right.
#[test]
fn the_shipped_examples_are_read() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"));
    for example in ["src/commands/keyserver.toml", "../systemd/keyserver.toml"] {
        let text = fs::read_to_string(folder.join(example)).unwrap();
        parse(&text).unwrap_or_else(|error| panic!("{example}: {error}"));
        // What is shown as a default or an option must be readable too.
        let settings = text.lines().map(|line| {
            let bare = line.strip_prefix("# ").unwrap_or(line);
            let setting = bare.starts_with('[')
                || bare.split_once(" = ").is_some_and(|(key, _)| {
                    key.chars()
                        .all(|character| character.is_ascii_lowercase() || character == '_')
                });
            if setting { bare } else { line }
        });
        let all: Vec<_> = settings.collect();
        parse(&all.join("\n")).unwrap_or_else(|error| panic!("{example} in full: {error}"));
    }
}

/// Replays what the fuzzer has found interesting: no input may do more than fail with a message.
#[test]
fn the_fuzz_corpus_is_read_or_refused() {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fuzz/corpus/config");
    let mut count = 0;
    for entry in fs::read_dir(corpus).unwrap() {
        let bytes = fs::read(entry.unwrap().path()).unwrap();
        let text = String::from_utf8_lossy(&bytes);
        if let Err(error) = Config::parse(Path::new("keyserver.toml"), &text) {
            assert!(!error.problems().is_empty());
            assert!(error.to_string().contains("fix: "));
        }
        count += 1;
    }
    assert!(count >= 8, "{count} inputs");
}
