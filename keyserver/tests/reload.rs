//! What a reload changes, on real files.

#![allow(
    clippy::allow_attributes,
    clippy::unwrap_used,
    reason = "test helpers fail the test; the lints exempt only the test functions themselves"
)]

mod common;

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use accel::{Engine, EngineChoice, EngineConfig, VerifyRate};
use common::{MINIMAL, Site};
use keyserver::config::Config;
use keyserver::policy::PeerIdentity;
use keyserver::snapshot::LoadError;
use keyserver::state::ServerState;
use nix::fcntl::OFlag;

fn engine() -> Arc<Engine> {
    let config = EngineConfig {
        engine: EngineChoice::Single,
        verify_ecdsa: VerifyRate::ALWAYS,
        calibration: Duration::ZERO,
    };
    Arc::new(Engine::new(config).unwrap())
}

#[test]
fn a_reload_takes_effect_as_a_whole_or_not_at_all() {
    let site = Site::new();
    site.add_key("shop");
    let state = ServerState::load(Config::load(&site.config()).unwrap(), engine()).unwrap();
    let before = state.snapshot.load_full();

    site.add_key("bank");
    let report = state.reload().unwrap();
    assert_eq!(
        (report.generation, report.keys, report.added, report.removed),
        (2, 2, 1, 0)
    );
    assert!(report.needs_restart.is_empty());
    assert_eq!(before.keys.len(), 1, "work in progress keeps its snapshot");

    site.write_private("keys/broken.key", "-----BEGIN PRIVATE KEY-----\nAAAA\n");
    let error = state.reload().unwrap_err().to_string();
    assert!(error.contains("keys/broken.key"), "{error}");
    assert_eq!(state.snapshot.load().generation, 2);
    assert!(!state.metrics.last_reload_ok());
    let metrics = state.metrics.encode().unwrap();
    assert!(
        metrics.contains("\nkeyserver_config_last_reload_successful 0\n"),
        "{metrics}"
    );
    assert!(metrics.contains("\nkeyserver_keys 2\n"), "{metrics}");

    fs::remove_file(site.path("keys/broken.key")).unwrap();
    fs::remove_file(site.path("keys/shop.key")).unwrap();
    site.configure(&MINIMAL.replace("127.0.0.1:0\"\n\n[tls]", "127.0.0.1:1\"\n\n[tls]"));
    let report = state.reload().unwrap();
    assert_eq!((report.generation, report.added, report.removed), (3, 0, 1));
    assert_eq!(report.needs_restart, ["listen"]);
    assert!(state.metrics.last_reload_ok());

    site.configure("[listen]\nadress = 1\n");
    assert!(matches!(state.reload(), Err(LoadError::Config(_))));
    assert_eq!(state.snapshot.load().generation, 3);
}

/// One copy of a key, whatever is reloaded; another key under the same name is another.
#[test]
fn a_reload_keeps_the_objects_of_keys_that_are_the_same() {
    let site = Site::new();
    site.add_key("bank");
    site.add_key("shop");
    let state = ServerState::load(Config::load(&site.config()).unwrap(), engine()).unwrap();
    let key = |position| Arc::clone(state.snapshot.load().key_at(position).unwrap().0);
    let [bank, shop] = [0, 1].map(key);
    site.add_key("shop");
    // In front of the others, which keep their objects at other places.
    site.add_key("aunt");
    let report = state.reload().unwrap();
    assert_eq!((report.keys, report.added, report.removed), (3, 2, 1));
    assert!(Arc::ptr_eq(&key(1), &bank));
    assert!(!Arc::ptr_eq(&key(2), &shop));
    let label = state.snapshot.load().key_at(1).unwrap().1.to_owned();
    assert_eq!(label, "bank");
}

#[test]
fn a_client_that_is_removed_is_nobody_after_the_reload() {
    let site = Site::new();
    site.add_key("shop");
    let state = ServerState::load(Config::load(&site.config()).unwrap(), engine()).unwrap();
    let identity = PeerIdentity::from_certificate(site.client("edge-1").der()).unwrap();
    assert!(state.snapshot.load().policy.client(&identity).is_some());
    site.configure(&MINIMAL.replace("dns:edge-1", "dns:edge-7"));
    state.reload().unwrap();
    assert_eq!(state.snapshot.load().policy.client(&identity), None);
}

/// A reload that reads from a disk that does not answer, a pipe here, keeps no other waiting.
#[test]
fn a_second_reload_is_refused_while_one_is_under_way() {
    let site = Site::new();
    let state = ServerState::load(Config::load(&site.config()).unwrap(), engine()).unwrap();
    let text = fs::read_to_string(site.config()).unwrap();
    fs::remove_file(site.config()).unwrap();
    nix::unistd::mkfifo(&site.config(), nix::sys::stat::Mode::S_IRWXU).unwrap();
    let reload = || {
        let (state, (done, outcome)) = (Arc::clone(&state), channel());
        // Whoever asked may have given up waiting.
        std::thread::spawn(move || drop(done.send(state.reload())));
        outcome
    };
    let first = reload();
    // It can be written to as soon as somebody reads from it.
    let mut pipe = loop {
        let opened = File::options()
            .write(true)
            .custom_flags(OFlag::O_NONBLOCK.bits())
            .open(site.config());
        if let Ok(pipe) = opened {
            break pipe;
        }
        std::thread::sleep(Duration::from_millis(5));
    };
    let second = reload().recv_timeout(Duration::from_secs(20));
    let error = second.expect("it waits for the first").unwrap_err();
    assert!(error.to_string().contains("under way"), "{error}");
    // Signals cannot be told so: one of them waits, and reads what is there then.
    let signals = [(); 2].map(|()| {
        let (state, (done, outcome)) = (Arc::clone(&state), channel());
        std::thread::spawn(move || drop(done.send(state.reload_at_signal())));
        outcome
    });
    let waits = |outcome: &Receiver<_>| outcome.recv_timeout(Duration::from_millis(200)).is_err();
    let waiting: Vec<_> = signals.into_iter().filter(waits).collect();
    assert_eq!(waiting.len(), 1);
    fs::remove_file(site.config()).unwrap();
    fs::write(site.config(), &text).unwrap();
    pipe.write_all(text.as_bytes()).unwrap();
    drop(pipe);
    let report = first.recv_timeout(Duration::from_secs(60)).unwrap();
    assert_eq!(report.unwrap().generation, 2);
    let report = waiting[0].recv_timeout(Duration::from_secs(60)).unwrap();
    assert_eq!(report.unwrap().unwrap().generation, 3);
}
