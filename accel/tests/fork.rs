//! A process that was forked has none of its parent's prepared nonces: two signatures with one nonce give the key away.

#![allow(
    clippy::allow_attributes,
    clippy::unwrap_used,
    clippy::exit,
    unsafe_code,
    reason = "test helpers fail the test; fork is unsafe to call where threads may hold locks"
)]

use std::collections::HashSet;
use std::io::{Read, Write};
use std::time::Duration;

use accel::{
    Class, Engine, EngineChoice, EngineConfig, Hash, Job, Key, Lanes, Operation, VerifyRate,
};
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{ForkResult, fork};

const SIGNATURES: usize = 64;

fn engine() -> Engine {
    let lanes = Lanes::detect().unwrap_or_else(Lanes::portable);
    let config = EngineConfig {
        engine: EngineChoice::Lanes,
        verify_ecdsa: VerifyRate::ALWAYS,
        calibration: Duration::ZERO,
    };
    let engine = Engine::with_lanes(config, Some(Box::new(lanes))).unwrap();
    engine.precompute_ecdsa()
}

/// Signs the same digest again and again; `r` of each signature, 32 bytes.
fn sign(engine: &Engine, key: &Key) -> Vec<[u8; 32]> {
    let mut rs = Vec::new();
    for _ in 0..SIGNATURES / 8 {
        let mut outputs = vec![Vec::new(); 8];
        let mut jobs: Vec<_> = outputs
            .iter_mut()
            .map(|output| Job::new(key, Operation::EcdsaSign(Hash::Sha256), &[7; 32], output))
            .collect();
        engine.run(&mut jobs);
        assert!(jobs.iter().all(|job| job.result.is_ok()));
        for output in outputs {
            let len = usize::from(output[3]);
            let mut r = [0; 33];
            r[33 - len..].copy_from_slice(&output[4..4 + len]);
            rs.push(r[1..].try_into().unwrap());
        }
    }
    rs
}

#[test]
fn a_child_shares_no_nonce_with_its_parent() {
    let engine = engine();
    let key = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/keys/p256.pkcs8.pem");
    let key = Key::from_bytes(&std::fs::read(key).unwrap()).unwrap();
    while engine.prepared(Class::P256) < SIGNATURES {
        assert!(engine.idle());
    }
    let waiting = engine.prepared(Class::P256);
    let (mut reader, mut writer) = std::io::pipe().unwrap();
    // SAFETY: no other thread of this process runs code of ours, so none can hold a lock that the child needs: the
    // test harness waits for this thread, and the C library puts its own locks in order when it forks.
    match unsafe { fork() }.unwrap() {
        ForkResult::Child => {
            let none = engine.prepared(Class::P256) == 0 && engine.prepared(Class::P384) == 0;
            let without = sign(&engine, &key);
            // Its own, from here on.
            while engine.prepared(Class::P256) < SIGNATURES {
                engine.idle();
            }
            let with = sign(&engine, &key);
            let sent = writer
                .write_all(&without.concat())
                .and_then(|()| writer.write_all(&with.concat()));
            // A failed assertion above unwinds into the harness, which ends with another code.
            std::process::exit(i32::from(!none || sent.is_err()));
        }
        ForkResult::Parent { child } => {
            drop(writer);
            let mut sent = Vec::new();
            reader.read_to_end(&mut sent).unwrap();
            assert_eq!(waitpid(child, None).unwrap(), WaitStatus::Exited(child, 0));
            assert_eq!(sent.len(), 2 * 32 * SIGNATURES);
            // The parent's still wait, and none of them was the child's.
            assert_eq!(engine.prepared(Class::P256), waiting);
            let mut seen: HashSet<[u8; 32]> = sign(&engine, &key).into_iter().collect();
            assert_eq!(engine.prepared(Class::P256), waiting - SIGNATURES);
            for r in sent.chunks_exact(32) {
                assert!(seen.insert(r.try_into().unwrap()), "a nonce was used twice");
            }
            assert_eq!(seen.len(), 3 * SIGNATURES);
        }
    }
}
