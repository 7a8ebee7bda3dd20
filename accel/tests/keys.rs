//! Keys from every form they come in, and the bad ones that must be refused. The files are made by
//! `keys/make.py`.

#![expect(
    clippy::expect_used,
    reason = "helpers of tests: a failure ends the test"
)]

use accel::{Class, Key, KeyError, KeyRules, KeyType, Operation};
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::ParsedExtension;
use x509_parser::prelude::FromDer;

fn read(name: &str) -> Vec<u8> {
    let path = format!("{}/tests/keys/{name}", env!("CARGO_MANIFEST_DIR"));
    std::fs::read(&path).expect(&path)
}

fn load(name: &str) -> Result<Key, KeyError> {
    Key::from_bytes(&read(name))
}

#[test]
fn every_form_gives_the_same_key() {
    for names in [
        &[
            "rsa2048.pkcs8.pem",
            "rsa2048.pkcs8.der",
            "rsa2048.pkcs1.pem",
            "rsa2048.pkcs1.der",
        ][..],
        &[
            "p256.pkcs8.pem",
            "p256.pkcs8.der",
            "p256.sec1.pem",
            "p256.sec1.der",
            "p256-parameters.sec1.pem",
            "p256-no-public.sec1.pem",
            "p256-compressed.sec1.pem",
        ],
    ] {
        let first = load(names[0]).unwrap();
        for name in names {
            let key = load(name).unwrap_or_else(|error| panic!("{name}: {error}"));
            assert_eq!(key.ski(), first.ski(), "{name}");
            assert_eq!(key.spki_der(), first.spki_der(), "{name}");
            assert_eq!(key.modulus_digest(), first.modulus_digest(), "{name}");
        }
    }
}

#[test]
fn types_and_classes() {
    for (name, key_type, class, text) in [
        (
            "rsa2048.pkcs8.pem",
            KeyType::Rsa { bits: 2048 },
            Class::Rsa2048,
            "rsa-2048",
        ),
        (
            "rsa2052.pkcs1.pem",
            KeyType::Rsa { bits: 2052 },
            Class::RsaOther,
            "rsa-2052",
        ),
        (
            "rsa3072.pkcs8.pem",
            KeyType::Rsa { bits: 3072 },
            Class::Rsa3072,
            "rsa-3072",
        ),
        (
            "rsa4096.pkcs8.pem",
            KeyType::Rsa { bits: 4096 },
            Class::Rsa4096,
            "rsa-4096",
        ),
        (
            "rsa8192.pkcs8.pem",
            KeyType::Rsa { bits: 8192 },
            Class::RsaOther,
            "rsa-8192",
        ),
        ("p256.pkcs8.pem", KeyType::P256, Class::P256, "p-256"),
        ("p384.pkcs8.pem", KeyType::P384, Class::P384, "p-384"),
        ("p521.pkcs8.pem", KeyType::P521, Class::P521, "p-521"),
        (
            "ed25519.pkcs8.pem",
            KeyType::Ed25519,
            Class::Ed25519,
            "ed25519",
        ),
        (
            "ml-dsa-44.pkcs8.pem",
            KeyType::MlDsa44,
            Class::MlDsa,
            "ml-dsa-44",
        ),
        (
            "ml-dsa-65.pkcs8.pem",
            KeyType::MlDsa65,
            Class::MlDsa,
            "ml-dsa-65",
        ),
        (
            "ml-dsa-87.pkcs8.pem",
            KeyType::MlDsa87,
            Class::MlDsa,
            "ml-dsa-87",
        ),
    ] {
        let key = load(name).unwrap();
        assert_eq!((key.key_type(), key.class()), (key_type, class), "{name}");
        assert_eq!(key.key_type().name(), text);
        let is_rsa = matches!(key_type, KeyType::Rsa { .. });
        assert_eq!(key.supports(Operation::RsaPrivate), is_rsa, "{name}");
        assert_eq!(key.modulus_digest().is_some(), is_rsa, "{name}");
    }
}

/// OpenSSL put its own idea of the public key and its identifier into a certificate.
#[test]
fn public_key_and_identifier_are_those_of_openssl() {
    for (name, certificate) in [
        ("rsa2048.pkcs8.pem", "rsa2048.crt"),
        ("p256.pkcs8.pem", "p256.crt"),
        ("ed25519.pkcs8.pem", "ed25519.crt"),
    ] {
        let text = read(certificate);
        let (_, pem) = x509_parser::pem::parse_x509_pem(&text).unwrap();
        let certificate: X509Certificate<'_> = pem.parse_x509().unwrap();
        let key = load(name).unwrap();
        assert_eq!(key.spki_der(), certificate.public_key().raw, "{name}");
        let identifier = certificate.extensions().iter().find_map(|extension| {
            match extension.parsed_extension() {
                ParsedExtension::SubjectKeyIdentifier(identifier) => Some(identifier.0),
                _ => None,
            }
        });
        assert_eq!(identifier, Some(&key.ski()[..]), "{name}");
    }
}

/// `openssl rsa -modulus` prints the modulus in upper-case hex; `sha256sum` over that text.
#[test]
fn modulus_digest_is_over_the_upper_case_hex_text() {
    let key = load("rsa2052.pkcs1.pem").unwrap();
    let (_, spki) = x509_parser::x509::SubjectPublicKeyInfo::from_der(key.spki_der()).unwrap();
    let x509_parser::public_key::PublicKey::RSA(rsa) = spki.parsed().unwrap() else {
        panic!("not RSA");
    };
    // 2052 bits are 513 hex digits: the text begins with one digit, not with a zero.
    let text: String = rsa
        .modulus
        .iter()
        .map(|byte| format!("{byte:02X}"))
        .collect();
    let text = text.trim_start_matches('0');
    assert_eq!(text.len(), 513);
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, text.as_bytes());
    assert_eq!(
        key.modulus_digest().as_ref().map(|d| &d[..]),
        Some(digest.as_ref())
    );
}

#[test]
fn bad_keys_are_refused_for_the_right_reason() {
    for (name, expected) in [
        ("bad/rsa1024.pem", KeyError::ModulusTooShort { bits: 1024 }),
        ("bad/rsa8200.pem", KeyError::ModulusTooLong { bits: 8200 }),
        ("bad/exponent-3.pem", KeyError::Exponent { e: 3 }),
        ("bad/exponent-40-bits.pem", KeyError::ExponentUnusable),
        ("bad/equal-primes.pem", KeyError::EqualPrimes),
        ("bad/close-primes.pem", KeyError::ClosePrimes),
        ("bad/wrong-modulus.pem", KeyError::Inconsistent),
        ("bad/wrong-exponent.pem", KeyError::Inconsistent),
        ("bad/unreduced-exponent.pem", KeyError::Inconsistent),
        ("bad/wrong-coefficient.pem", KeyError::Inconsistent),
        ("bad/p256-other-public.pem", KeyError::PublicKeyMismatch),
        ("bad/p256-scalar-zero.pem", KeyError::Inconsistent),
        ("bad/p256-scalar-order.pem", KeyError::Inconsistent),
        ("bad/ed25519-other-public.pem", KeyError::PublicKeyMismatch),
        ("bad/encrypted.pem", KeyError::Encrypted),
        ("bad/encrypted.der", KeyError::Encrypted),
        ("bad/encrypted-traditional.pem", KeyError::Encrypted),
        ("bad/secp256k1.pem", KeyError::UnsupportedAlgorithm),
        ("bad/x25519.pem", KeyError::UnsupportedAlgorithm),
        ("bad/p256-explicit.pem", KeyError::Malformed),
        ("bad/public-only.pem", KeyError::NoPrivateKey),
        ("rsa2048.crt", KeyError::NoPrivateKey),
        ("rsa2048.crt.der", KeyError::Malformed),
        ("bad/two-keys.pem", KeyError::SeveralKeys { count: 2 }),
        ("bad/truncated.pem", KeyError::Malformed),
        ("bad/truncated.der", KeyError::Malformed),
        ("bad/trailing-byte.der", KeyError::Malformed),
    ] {
        match load(name) {
            Err(error) => assert_eq!(error, expected, "{name}"),
            Ok(key) => panic!("{name} gave {key:?}"),
        }
    }
    for empty in [&b""[..], b" \n\n"] {
        assert_eq!(Key::from_bytes(empty).err(), Some(KeyError::Empty));
    }
    assert_eq!(Key::from_bytes(b"what?").err(), Some(KeyError::Malformed));
}

#[test]
fn an_unusual_exponent_needs_permission() {
    let bytes = read("bad/exponent-3.pem");
    let key = Key::from_bytes_with(&bytes, KeyRules { any_exponent: true }).unwrap();
    assert_eq!(key.key_type(), KeyType::Rsa { bits: 2048 });
    // Permission is for unusual exponents, not for useless ones.
    let bytes = read("bad/exponent-40-bits.pem");
    let error = Key::from_bytes_with(&bytes, KeyRules { any_exponent: true }).err();
    assert_eq!(error, Some(KeyError::ExponentUnusable));
}

/// Not one prefix of a key, nor a key with one byte changed, makes the readers panic, or comes out as
/// another key than it says.
#[test]
fn damaged_keys_are_refused() {
    for name in [
        "rsa2048.pkcs8.der",
        "p256.pkcs8.der",
        "p256.sec1.der",
        "rsa2048.pkcs1.der",
    ] {
        let good = read(name);
        let ski = Key::from_bytes(&good).unwrap().ski();
        for length in 0..good.len() {
            assert!(
                Key::from_bytes(&good[..length]).is_err(),
                "{name} cut at {length}"
            );
        }
        for at in 0..good.len() {
            let mut damaged = good.clone();
            damaged[at] ^= 0x04;
            if let Ok(key) = Key::from_bytes(&damaged) {
                panic!("{name}, byte {at} changed: {key:?} instead of {ski:02x?}");
            }
        }
    }
}

#[test]
fn debug_output_shows_nothing_secret() {
    let key = load("ed25519.pkcs8.pem").unwrap();
    let ski: String = key.ski().iter().map(|byte| format!("{byte:02x}")).collect();
    let text = format!("{key:?}");
    assert_eq!(text, format!("Key {{ key_type: Ed25519, ski: {ski}, .. }}"));
}

/// Inputs that a fuzzer found interesting, or that people thought of: none may panic.
#[test]
fn the_fuzz_corpus_replays() {
    let directory = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/fuzz/corpus/key_der");
    let mut count = 0;
    for entry in std::fs::read_dir(directory).expect(directory) {
        let bytes = std::fs::read(entry.unwrap().path()).unwrap();
        if let Ok(key) = Key::from_bytes_with(&bytes, KeyRules { any_exponent: true }) {
            assert!(!key.spki_der().is_empty());
        }
        count += 1;
    }
    assert!(count > 10, "{count} files in {directory}");
}
