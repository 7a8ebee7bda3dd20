//! RSA key exchanges with keys in tokens: opened there, judged here, in constant time.

use std::path::Path;
use std::slice;
use std::time::Duration;

use accel::pkcs11::Tokens;
use accel::{Engine, EngineConfig, Job, Key, KeyExchange};
use aws_lc_rs::rsa::{Pkcs1PublicEncryptingKey, PublicEncryptingKey};

use super::device::{Device, settings};

const VERSION: [u8; 2] = [3, 3];

fn open(engine: &Engine, key: &Key, ciphertext: &[u8]) -> Vec<u8> {
    let exchange = KeyExchange::Premaster {
        client_version: VERSION,
    };
    let mut output = Vec::new();
    let mut job = Job::key_exchange(key, exchange, ciphertext, &mut output);
    engine.run(slice::from_mut(&mut job));
    job.result.unwrap();
    output
}

/// Good blocks give their secret; all others one substitute each, the same from every token with the key.
#[test]
fn tokens_open_key_exchanges_without_telling_about_the_padding() {
    let Some(device) = Device::new(settings()) else {
        return;
    };
    let pem = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/keys/rsa2048.pkcs8.pem");
    let tokens: &Tokens = &device.tokens;
    let keys = [("one", &device.one), ("two", &device.two)].map(|(token, shim)| {
        device.hsm.import(token, "rsa", "02", &pem);
        let mut spec = device.spec(&[]);
        spec.uris = vec![device.hsm.uri(token, "rsa", &shim.module).parse().unwrap()];
        tokens.load_key(&spec).unwrap()
    });
    let config = EngineConfig {
        calibration: Duration::ZERO,
        ..EngineConfig::default()
    };
    let engine = Engine::new(config).unwrap();
    for key in &keys {
        engine.prepare_key_exchange(key).unwrap();
    }

    let mut secret = [7; 48];
    let public = PublicEncryptingKey::from_der(keys[0].spki_der()).unwrap();
    let public = Pkcs1PublicEncryptingKey::new(public).unwrap();
    let mut ciphertext = vec![0; public.ciphertext_size()];
    public.encrypt(&secret, &mut ciphertext).unwrap();
    secret[..2].copy_from_slice(&VERSION);
    for key in &keys {
        assert_eq!(open(&engine, key, &ciphertext), secret);
    }

    let bad = [5; 256];
    let substitute = open(&engine, &keys[0], &bad);
    assert_eq!(substitute.len(), 48);
    assert_eq!(open(&engine, &keys[0], &bad), substitute, "asked twice");
    assert_eq!(open(&engine, &keys[1], &bad), substitute, "asked elsewhere");
    assert_ne!(open(&engine, &keys[0], &[6; 256]), substitute);
}
