//! What a reload changes, on real files.

#![allow(
    clippy::allow_attributes,
    clippy::unwrap_used,
    reason = "test helpers fail the test; the lints exempt only the test functions themselves"
)]

mod common;

use std::fs;
use std::sync::Arc;
use std::time::Duration;

use accel::{Engine, EngineChoice, EngineConfig, VerifyRate};
use common::{MINIMAL, Site};
use keyserver::config::Config;
use keyserver::policy::PeerIdentity;
use keyserver::snapshot::LoadError;
use keyserver::state::ServerState;

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
