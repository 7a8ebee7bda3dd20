//! Every operation with every key, judged by the oracle and by `aws-lc-rs`.

use accel::{Backend, Hash, Job, JobError, Key, KeyType, Operation};
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_ASN1, ECDSA_P256_SHA384_ASN1, ECDSA_P256_SHA512_ASN1, ECDSA_P384_SHA256_ASN1,
    ECDSA_P384_SHA384_ASN1, ECDSA_P384_SHA512_ASN1, ECDSA_P521_SHA256_ASN1, ECDSA_P521_SHA384_ASN1,
    ECDSA_P521_SHA512_ASN1, ED25519, ML_DSA_44, ML_DSA_65, ML_DSA_87, RSA_PKCS1_2048_8192_SHA256,
    RSA_PKCS1_2048_8192_SHA384, RSA_PKCS1_2048_8192_SHA512, RSA_PSS_2048_8192_SHA256,
    RSA_PSS_2048_8192_SHA384, RSA_PSS_2048_8192_SHA512, UnparsedPublicKey, VerificationAlgorithm,
};

use super::oracle::{self, RsaPublic};
use super::{backends, key, random, run_all, run_if_accepted};

const RSA_KEYS: [&str; 8] = [
    "rsa2048.pkcs8.pem",
    "rsa2048-uneven.pkcs1.pem",
    "rsa2052.pkcs1.pem",
    "rsa2304.pkcs8.pem",
    "rsa3072.pkcs8.pem",
    "rsa4096.pkcs8.pem",
    "rsa8192.pkcs8.pem",
    "bad/exponent-3.pem",
];

fn sign(backend: &dyn Backend, key: &Key, operation: Operation, input: &[u8]) -> Option<Vec<u8>> {
    run_if_accepted(backend, key, operation, input).map(|result| {
        result.unwrap_or_else(|error| panic!("{}: {key:?} {operation:?}: {error}", backend.name()))
    })
}

#[test]
fn rsa_signatures_verify_by_the_book() {
    for name in RSA_KEYS {
        let (key, public) = (key(name), RsaPublic::of(&key(name)));
        let digests = Hash::ALL.map(|hash| (hash, random(hash.len())));
        let mut rows = Vec::new();
        for (hash, digest) in &digests {
            rows.push((&key, Operation::RsaPkcs1Sign(*hash), &digest[..]));
            if *hash != Hash::Md5Sha1 {
                rows.push((&key, Operation::RsaPssSign(*hash), &digest[..]));
            }
        }
        for backend in backends() {
            for ((_, operation, digest), signature) in rows.iter().zip(run_all(&*backend, &rows)) {
                let Some(signature) = signature else { continue };
                let verify = |digest: &[u8]| match *operation {
                    Operation::RsaPkcs1Sign(hash) => public.verify_pkcs1(hash, digest, &signature),
                    Operation::RsaPssSign(hash) => public.verify_pss(hash, digest, &signature),
                    _ => false,
                };
                assert!(verify(digest), "{} {name} {operation:?}", backend.name());
                assert!(!verify(&random(digest.len())), "{name} {operation:?}");
            }
        }
    }
}

/// The salt of PSS is fresh each time; PKCS#1 v1.5 has nothing fresh in it.
#[test]
fn pss_is_salted_and_pkcs1_is_not() {
    let key = key("rsa2048.pkcs8.pem");
    let digest = random(32);
    for backend in backends() {
        let twice = |operation| {
            let first = sign(&*backend, &key, operation, &digest);
            first == sign(&*backend, &key, operation, &digest)
        };
        assert!(
            !twice(Operation::RsaPssSign(Hash::Sha256)),
            "{}",
            backend.name()
        );
        assert!(
            twice(Operation::RsaPkcs1Sign(Hash::Sha256)),
            "{}",
            backend.name()
        );
    }
}

#[test]
fn raw_rsa_inverts_the_public_operation() {
    for name in RSA_KEYS {
        let (key, public) = (key(name), RsaPublic::of(&key(name)));
        let k = public.k;
        let mut small = vec![0; k];
        small[k - 1] = 2;
        let mut high_zero = random(k);
        high_zero[..3].fill(0);
        let inputs = [small, public.modulus_plus(-2), high_zero.clone(), {
            // All ones below the modulus.
            high_zero.fill(0xff);
            high_zero[0] = 0;
            high_zero
        }];
        for backend in backends() {
            for input in &inputs {
                if let Some(result) = sign(&*backend, &key, Operation::RsaPrivate, input) {
                    assert_eq!(public.public(&result).as_ref(), Some(input), "{name}");
                }
            }
        }
    }
}

#[test]
fn raw_rsa_refuses_what_is_out_of_range() {
    for name in RSA_KEYS {
        let (key, public) = (key(name), RsaPublic::of(&key(name)));
        let k = public.k;
        let mut one = vec![0; k];
        one[k - 1] = 1;
        let bad = [
            vec![0; k],
            one,
            public.modulus_plus(-1),
            public.modulus_plus(0),
            public.modulus_plus(1),
            vec![0xff; k],
            Vec::new(),
            vec![2; k - 1],
            [&[0][..], &vec![2; k]].concat(),
        ];
        for backend in backends() {
            for input in &bad {
                let result = run_if_accepted(&*backend, &key, Operation::RsaPrivate, input);
                assert!(
                    matches!(result, None | Some(Err(JobError::Input))),
                    "{name} {result:?}"
                );
            }
        }
    }
}

type Case = (&'static str, Operation, &'static dyn VerificationAlgorithm);

/// Each operation that `aws-lc-rs` has a verifier for.
fn verifiable() -> Vec<Case> {
    let ecdsa = Operation::EcdsaSign;
    let mut cases: Vec<Case> = vec![
        ("ed25519.pkcs8.pem", Operation::Ed25519Sign, &ED25519),
        ("ml-dsa-44.pkcs8.pem", Operation::MlDsaSign, &ML_DSA_44),
        ("ml-dsa-65.pkcs8.pem", Operation::MlDsaSign, &ML_DSA_65),
        ("ml-dsa-87.pkcs8.pem", Operation::MlDsaSign, &ML_DSA_87),
        (
            "p256.pkcs8.pem",
            ecdsa(Hash::Sha256),
            &ECDSA_P256_SHA256_ASN1,
        ),
        (
            "p256.pkcs8.pem",
            ecdsa(Hash::Sha384),
            &ECDSA_P256_SHA384_ASN1,
        ),
        (
            "p256.pkcs8.pem",
            ecdsa(Hash::Sha512),
            &ECDSA_P256_SHA512_ASN1,
        ),
        (
            "p384.pkcs8.pem",
            ecdsa(Hash::Sha256),
            &ECDSA_P384_SHA256_ASN1,
        ),
        (
            "p384.pkcs8.pem",
            ecdsa(Hash::Sha384),
            &ECDSA_P384_SHA384_ASN1,
        ),
        (
            "p384.pkcs8.pem",
            ecdsa(Hash::Sha512),
            &ECDSA_P384_SHA512_ASN1,
        ),
        (
            "p521.pkcs8.pem",
            ecdsa(Hash::Sha256),
            &ECDSA_P521_SHA256_ASN1,
        ),
        (
            "p521.pkcs8.pem",
            ecdsa(Hash::Sha384),
            &ECDSA_P521_SHA384_ASN1,
        ),
        (
            "p521.pkcs8.pem",
            ecdsa(Hash::Sha512),
            &ECDSA_P521_SHA512_ASN1,
        ),
    ];
    cases.extend(verifiable_rsa());
    cases
}

fn verifiable_rsa() -> Vec<Case> {
    let (pkcs1, pss) = (Operation::RsaPkcs1Sign, Operation::RsaPssSign);
    let mut cases: Vec<Case> = Vec::new();
    for name in [
        "rsa2048.pkcs8.pem",
        "rsa3072.pkcs8.pem",
        "rsa4096.pkcs8.pem",
    ] {
        cases.extend::<[Case; 6]>([
            (name, pkcs1(Hash::Sha256), &RSA_PKCS1_2048_8192_SHA256),
            (name, pkcs1(Hash::Sha384), &RSA_PKCS1_2048_8192_SHA384),
            (name, pkcs1(Hash::Sha512), &RSA_PKCS1_2048_8192_SHA512),
            (name, pss(Hash::Sha256), &RSA_PSS_2048_8192_SHA256),
            (name, pss(Hash::Sha384), &RSA_PSS_2048_8192_SHA384),
            (name, pss(Hash::Sha512), &RSA_PSS_2048_8192_SHA512),
        ]);
    }
    cases
}

/// Digests from real messages, so that a verifier of `aws-lc-rs` can judge.
#[test]
fn aws_lc_rs_accepts_what_it_can_verify() {
    let cases: Vec<_> = verifiable()
        .into_iter()
        .flat_map(|(name, operation, algorithm)| {
            [0, 1000].map(|length| {
                let message = random(length);
                let input = match operation {
                    Operation::RsaPkcs1Sign(hash)
                    | Operation::RsaPssSign(hash)
                    | Operation::EcdsaSign(hash) => oracle::hash_of(hash, &message),
                    _ => message.clone(),
                };
                (key(name), operation, algorithm, message, input)
            })
        })
        .collect();
    let rows: Vec<_> = cases
        .iter()
        .map(|(key, operation, _, _, input)| (key, *operation, &input[..]))
        .collect();
    for backend in backends() {
        let signatures = run_all(&*backend, &rows);
        for ((key, operation, algorithm, message, _), signature) in cases.iter().zip(signatures) {
            let public = UnparsedPublicKey::new(*algorithm, oracle::public_bits(key));
            if let Some(signature) = signature {
                let verdict = public.verify(message, &signature);
                assert!(verdict.is_ok(), "{} {key:?} {operation:?}", backend.name());
            }
        }
    }
}

/// Short hashes, which no verifier of `aws-lc-rs` takes, long ones, which are truncated, and digests at the edges of
/// the order.
#[test]
fn ecdsa_signatures_verify_by_the_book() {
    let short = [Hash::Md5Sha1, Hash::Sha1, Hash::Sha224];
    for (name, hashes) in [
        ("p256.pkcs8.pem", &Hash::ALL[..]),
        ("p384.pkcs8.pem", &short[..]),
        ("p521.pkcs8.pem", &short[..1]),
    ] {
        let key = key(name);
        let public = oracle::public_bits(&key);
        for backend in backends() {
            for hash in hashes {
                let digest = random(hash.len());
                let operation = Operation::EcdsaSign(*hash);
                if let Some(signature) = sign(&*backend, &key, operation, &digest) {
                    let good = oracle::verify_ecdsa(key.key_type(), &public, &digest, &signature);
                    assert!(good, "{} {name} {hash:?}", backend.name());
                }
            }
        }
    }
    let key = key("p256.pkcs8.pem");
    let public = oracle::public_bits(&key);
    for digest in [[0; 32], [0xff; 32]] {
        for backend in backends() {
            let operation = Operation::EcdsaSign(Hash::Sha256);
            if let Some(signature) = sign(&*backend, &key, operation, &digest) {
                assert!(oracle::verify_ecdsa(
                    KeyType::P256,
                    &public,
                    &digest,
                    &signature
                ));
                let other = [1; 32];
                assert!(!oracle::verify_ecdsa(
                    KeyType::P256,
                    &public,
                    &other,
                    &signature
                ));
            }
        }
    }
}

/// A repeated nonce gives the key away.
#[test]
fn ecdsa_never_repeats_a_nonce() {
    for name in ["p256.pkcs8.pem", "p384.pkcs8.pem", "p521.pkcs8.pem"] {
        let key = key(name);
        for backend in backends() {
            let mut seen = std::collections::HashSet::new();
            for _ in 0..50 {
                let operation = Operation::EcdsaSign(Hash::Sha256);
                let Some(signature) = sign(&*backend, &key, operation, &[7; 32]) else {
                    break;
                };
                // r is the first integer: same key, same digest, so it repeats if the nonce does.
                let at = if signature[1] == 0x81 { 3 } else { 2 };
                let r = signature[at..at + 2 + usize::from(signature[at + 1])].to_vec();
                assert!(seen.insert(r), "{} {name}", backend.name());
            }
        }
    }
}

/// A caller that keeps its output buffer pays for it once.
#[test]
fn outputs_keep_their_buffers() {
    for (name, operation) in [
        ("rsa2048.pkcs8.pem", Operation::RsaPkcs1Sign(Hash::Sha256)),
        ("rsa2048.pkcs8.pem", Operation::RsaPssSign(Hash::Sha256)),
        ("p256.pkcs8.pem", Operation::EcdsaSign(Hash::Sha256)),
        ("ed25519.pkcs8.pem", Operation::Ed25519Sign),
    ] {
        let key = key(name);
        for backend in backends() {
            if !backend.accepts(&key, operation) {
                continue;
            }
            let mut output = Vec::with_capacity(512);
            let before = (output.as_ptr(), output.capacity());
            for round in 0..3 {
                let input = [round; 32];
                let mut job = Job::new(&key, operation, &input, &mut output);
                backend.run(std::slice::from_mut(&mut job));
                assert_eq!(job.result, Ok(()), "{} {name}", backend.name());
                assert_eq!(
                    (output.as_ptr(), output.capacity()),
                    before,
                    "{} {name}",
                    backend.name()
                );
            }
        }
    }
}
