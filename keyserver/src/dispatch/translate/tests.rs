//! Schemes against keys, and handshakes of OpenSSL (`tests/handshake/*.txt`) against its signatures.

use std::collections::HashMap;
use std::path::Path;

use accel::KeyType;
use aws_lc_rs::signature::{self, UnparsedPublicKey, VerificationAlgorithm};

use super::*;
use crate::handshake::{Claim, ServerKeyExchange, Statement, Transcript, Version};

#[test]
fn a_scheme_that_fits_a_key_maps_to_an_operation_that_does() {
    for key in [
        KeyType::Rsa { bits: 2048 },
        KeyType::P256,
        KeyType::P384,
        KeyType::P521,
        KeyType::Ed25519,
        KeyType::MlDsa44,
        KeyType::MlDsa65,
        KeyType::MlDsa87,
    ] {
        for scheme in SignatureScheme::ALL {
            let operation = operation_of(scheme).expect("every scheme is served");
            for version in [Version::Tls12, Version::Tls13] {
                assert!(
                    !version.lets(key, scheme) || operation.fits(key),
                    "{scheme} {key:?}"
                );
            }
        }
    }
}

struct Vector {
    name: String,
    fields: HashMap<String, String>,
}

impl Vector {
    fn bytes(&self, field: &str) -> Vec<u8> {
        let digits = self.fields[field].as_bytes().chunks(2);
        let byte = |pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap();
        digits.map(byte).collect()
    }

    fn scheme(&self) -> u16 {
        u16::from_be_bytes(self.bytes("scheme").try_into().unwrap())
    }

    /// Asserts that OpenSSL's signature is one of `string`.
    fn check(&self, spki: &[u8], string: &[u8]) {
        let key = self.fields["key"].as_str();
        let algorithm: &dyn VerificationAlgorithm = match (self.scheme(), key) {
            (0x0403, "p256") => &signature::ECDSA_P256_SHA256_ASN1,
            (0x0403, "p384") => &signature::ECDSA_P384_SHA256_ASN1,
            (0x0503, "p384") => &signature::ECDSA_P384_SHA384_ASN1,
            (0x0501, _) => &signature::RSA_PKCS1_2048_8192_SHA384,
            (0x0804, _) => &signature::RSA_PSS_2048_8192_SHA256,
            (0x0807, _) => &signature::ED25519,
            other => panic!("no vector is of {other:?}"),
        };
        UnparsedPublicKey::new(algorithm, spki)
            .verify(string, &self.bytes("signature"))
            .unwrap_or_else(|_| panic!("{}: it is not what OpenSSL signed", self.name));
    }
}

fn vectors() -> Vec<Vector> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/handshake");
    let mut vectors = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "txt") {
            let text = std::fs::read_to_string(&path).unwrap();
            let fields = text
                .lines()
                .filter_map(|line| line.split_once(" ="))
                .map(|(field, value)| (field.to_owned(), value.trim().to_owned()));
            vectors.push(Vector {
                name: path.display().to_string(),
                fields: fields.collect(),
            });
        }
    }
    vectors
}

/// The public key of a test key of `accel`.
fn spki(name: &str) -> Vec<u8> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../accel/tests/keys");
    let file = std::fs::read(folder.join(format!("{name}.pkcs8.pem"))).unwrap();
    accel::Key::from_bytes(&file).unwrap().spki_der().to_vec()
}

#[test]
fn from_a_handshake_of_openssl_the_string_is_made_that_openssl_signed() {
    let mut seen = 0;
    for vector in vectors() {
        let Some(_) = vector.fields.get("handshake") else {
            continue;
        };
        seen += 1;
        let handshake = vector.bytes("handshake");
        let claim = Claim::read(Opcode::SignTls13, Some(vector.scheme()), &handshake);
        let Ok(Some(claim)) = claim else {
            panic!("{}: {claim:?}", vector.name);
        };
        let Statement::Transcript(transcript) = claim.statement else {
            panic!("{}: {claim:?}", vector.name);
        };
        let text = |field: &str| Some(vector.fields[field].clone()).filter(|text| !text.is_empty());
        let sent =
            |bytes: Option<&[u8]>| bytes.map(|bytes| String::from_utf8(bytes.to_vec()).unwrap());
        assert_eq!(
            sent(transcript.server_name()),
            text("server-name"),
            "{}",
            vector.name
        );
        assert_eq!(
            sent(transcript.protocol()),
            text("protocol"),
            "{}",
            vector.name
        );
        let spki = spki(&vector.fields["key"]);
        assert_eq!(transcript.public_key(), spki, "{}", vector.name);

        let hash = transcript_hash(transcript.shape(), &handshake).unwrap();
        let string = CertificateVerify::of(hash.as_ref()).unwrap();
        vector.check(&spki, string.as_ref());
        // And what the engine gets is that string, or its hash.
        let signs = Signs {
            scheme: claim.scheme,
            transcript: Some(transcript.shape()),
        };
        let from_handshake = signing(signs, &handshake).unwrap();
        let signs = Signs {
            transcript: None,
            ..signs
        };
        let from_string = signing(signs, string.as_ref()).unwrap();
        assert_eq!(from_handshake.operation, from_string.operation);
        assert_eq!(from_handshake.input.as_ref(), from_string.input.as_ref());
    }
    assert_eq!(seen, 6);
}

#[test]
fn what_openssl_signs_in_tls_1_2_is_accepted() {
    let mut seen = 0;
    for vector in vectors() {
        let Some(_) = vector.fields.get("string") else {
            continue;
        };
        seen += 1;
        let string = vector.bytes("string");
        let exchange = ServerKeyExchange::read(&string).expect("a string that OpenSSL signed");
        // s_server speaks TLS 1.3 as well, and says so.
        assert!(exchange.says_downgrade, "{}", vector.name);
        vector.check(&spki(&vector.fields["key"]), &string);
    }
    assert_eq!(seen, 4);
}

#[test]
fn no_cut_of_a_handshake_is_one() {
    for vector in vectors() {
        let Some(_) = vector.fields.get("handshake") else {
            continue;
        };
        let handshake = vector.bytes("handshake");
        for length in 0..handshake.len() {
            Transcript::read(&handshake[..length]).unwrap_err();
        }
        let longer = [&handshake[..], &[0]].concat();
        Transcript::read(&longer).unwrap_err();
        let twice = [&handshake[..], &handshake[..]].concat();
        Transcript::read(&twice).unwrap_err();
    }
}
