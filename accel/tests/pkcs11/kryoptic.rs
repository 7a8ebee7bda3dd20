//! The pool over another module: Kryoptic, which has PKCS#11 3.2 and with it ML-DSA.

use accel::pkcs11::{Blocking, SlotChoice, TokenKeySpec, Tokens};
use accel::{Backend, Hash, Job, JobError, Key, KeyType, Operation};
use aws_lc_rs::signature::{ML_DSA_44, ML_DSA_65, ML_DSA_87, UnparsedPublicKey};
use pkcs11_shim::{Installed, Kryoptic};

use super::device::settings;

struct World {
    token: Kryoptic,
    shim: Installed,
    tokens: Tokens,
}

impl Drop for World {
    fn drop(&mut self) {
        self.tokens.stop();
    }
}

impl World {
    fn new() -> Option<Self> {
        let token = Kryoptic::new()?;
        let kinds = ["rsa:2048", "EC:prime256v1", "EC:secp384r1"];
        for (kind, id) in kinds.into_iter().zip(["01", "02", "03"]) {
            token.generate(kind, kind, id);
        }
        let shim = token.shim();
        token.generate_ml_dsa(&shim);
        Some(Self {
            token,
            shim,
            tokens: Tokens::new(settings()),
        })
    }

    fn load(&self, label: &str) -> Key {
        let label = label.replace(':', "%3A");
        let spec = TokenKeySpec {
            label: label.clone(),
            uris: vec![self.token.uri(&label, &self.shim.module).parse().unwrap()],
            choice: SlotChoice::Ordered,
            pin: None,
            expected_spki: None,
        };
        self.tokens.load_key(&spec).unwrap()
    }
}

fn run(key: &Key, operation: Operation, input: &[u8]) -> Result<Vec<u8>, JobError> {
    let mut output = Vec::new();
    let mut job = [Job::new(key, operation, input, &mut output)];
    Blocking::default().run(&mut job);
    job[0].result.map(|()| output)
}

#[test]
fn ml_dsa_keys_sign() {
    let Some(world) = World::new() else { return };
    let kinds = [
        ("ml-dsa-44", KeyType::MlDsa44, &ML_DSA_44, 1312),
        ("ml-dsa-65", KeyType::MlDsa65, &ML_DSA_65, 1952),
        ("ml-dsa-87", KeyType::MlDsa87, &ML_DSA_87, 2592),
    ];
    for (label, key_type, algorithm, public_len) in kinds {
        let key = world.load(label);
        assert_eq!(key.key_type(), key_type);
        let spki = key.spki_der();
        let public = &spki[spki.len() - public_len..];
        // Judged by another implementation.
        let judge = UnparsedPublicKey::new(algorithm, public);
        for message in [&b""[..], b"a message", &[7; 5000]] {
            let signature = run(&key, Operation::MlDsaSign, message).unwrap();
            judge.verify(message, &signature).unwrap();
            let again = run(&key, Operation::MlDsaSign, message).unwrap();
            assert_ne!(signature, again, "{label}: hedged, as FIPS 204 prefers");
        }
        assert_eq!(
            run(&key, Operation::Ed25519Sign, b"a message"),
            Err(JobError::WrongKey)
        );
        // A signature that came out wrong stays here.
        world.shim.control.tell("wrong 1");
        run(&key, Operation::MlDsaSign, b"a message").unwrap_err();
    }
    assert_eq!(world.tokens.slots()[0].check_failures, 3);
}

/// A second implementation of the standard beside SoftHSM.
#[test]
fn other_keys_sign_and_decrypt() {
    let Some(world) = World::new() else { return };
    let rsa = world.load("rsa:2048");
    assert_eq!(rsa.key_type(), KeyType::Rsa { bits: 2048 });
    let mut block = vec![0x5a; 256];
    block[0] = 0;
    // Every result has been verified with the public key before it gets here.
    for (operation, input) in [
        (Operation::RsaPkcs1Sign(Hash::Sha256), &[7; 32][..]),
        (Operation::RsaPssSign(Hash::Sha384), &[7; 48]),
        (Operation::RsaPrivate, &block),
    ] {
        assert_eq!(run(&rsa, operation, input).unwrap().len(), 256);
    }
    for (label, key_type) in [
        ("EC:prime256v1", KeyType::P256),
        ("EC:secp384r1", KeyType::P384),
    ] {
        let key = world.load(label);
        assert_eq!(key.key_type(), key_type);
        for hash in [Hash::Sha256, Hash::Sha384, Hash::Sha512] {
            run(&key, Operation::EcdsaSign(hash), &vec![7; hash.len()]).unwrap();
        }
    }
    assert_eq!(world.tokens.slots()[0].check_failures, 0);
}
