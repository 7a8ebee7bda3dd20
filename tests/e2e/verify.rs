//! Operations on the keys that a server lists, and whether the answers are right. The public keys
//! come from the list itself; the verification is aws-lc-rs's own.

use aws_lc_rs::rsa::{Pkcs1PublicEncryptingKey, PublicEncryptingKey};
use aws_lc_rs::{digest, signature};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use keyserver_client::{Client, Error, KeyEntry, KeyId, SignatureAlgorithm as Algorithm};

/// One thing to ask of a server.
#[derive(Clone, Debug)]
pub(crate) enum Operation {
    Ping,
    Sign(Key, Algorithm),
    Decrypt(Key),
}

/// A key as the server lists it.
#[derive(Clone, Debug)]
pub(crate) struct Key {
    pub(crate) id: KeyId,
    spki: Vec<u8>,
}

/// A ping, and everything that the listed keys can do.
pub(crate) async fn all_operations(client: &Client) -> Vec<Operation> {
    let mut operations = vec![Operation::Ping];
    for entry in client.keys().await.unwrap() {
        operations.extend(operations_of(&entry));
    }
    operations
}

/// The key of an entry, whose identifier must be that of its public key.
pub(crate) fn key_of(entry: &KeyEntry) -> Key {
    let key = Key {
        id: KeyId::try_from(entry).unwrap(),
        spki: STANDARD.decode(&entry.spki).unwrap(),
    };
    assert_eq!(
        KeyId::from_public_key(&key.spki).unwrap(),
        key.id,
        "{}",
        entry.label
    );
    key
}

fn operations_of(entry: &KeyEntry) -> Vec<Operation> {
    let key = key_of(entry);
    let algorithms: &[Algorithm] = match entry.key_type.as_str() {
        "rsa-2048" | "rsa-3072" | "rsa-4096" => &[
            Algorithm::RsaPkcs1Sha256,
            Algorithm::RsaPkcs1Sha384,
            Algorithm::RsaPkcs1Sha512,
            Algorithm::RsaPssSha256,
            Algorithm::RsaPssSha384,
            Algorithm::RsaPssSha512,
        ],
        "p-256" => &[Algorithm::EcdsaSha256],
        "p-384" => &[Algorithm::EcdsaSha384],
        "p-521" => &[Algorithm::EcdsaSha512],
        "ed25519" => &[Algorithm::Ed25519],
        other => panic!("no operation is known for {other}"),
    };
    let mut operations: Vec<_> = algorithms
        .iter()
        .map(|algorithm| Operation::Sign(key.clone(), *algorithm))
        .collect();
    if entry.key_type.starts_with("rsa") {
        operations.push(Operation::Decrypt(key));
    }
    operations
}

impl Operation {
    /// Asks for it once, on input made from `number`, and verifies the answer.
    pub(crate) async fn run(&self, client: &Client, number: u32) -> Result<(), Error> {
        let message = format!("message {number}").into_bytes();
        match self {
            Self::Ping => assert_eq!(client.ping(&message).await?, message),
            Self::Sign(key, algorithm) => {
                let input = input(*algorithm, &message);
                let signature = client.sign(&key.id, *algorithm, &input).await?;
                key.verify(*algorithm, &message, &signature);
            }
            Self::Decrypt(key) => {
                let block = client.decrypt(&key.id, &key.encrypt(&message)).await?;
                assert_eq!(block[..2], [0, 2], "the padding is kept");
                assert!(block.ends_with(&message));
            }
        }
        Ok(())
    }
}

/// What has to be given to sign `message`.
fn input(algorithm: Algorithm, message: &[u8]) -> Vec<u8> {
    let hash = match algorithm.hash_len() {
        None => return message.to_vec(),
        Some(32) => &digest::SHA256,
        Some(48) => &digest::SHA384,
        Some(64) => &digest::SHA512,
        Some(other) => panic!("no hash of {other} bytes is used here"),
    };
    digest::digest(hash, message).as_ref().to_vec()
}

impl Key {
    fn verify(&self, algorithm: Algorithm, message: &[u8], signature: &[u8]) {
        let verification: &dyn signature::VerificationAlgorithm = match algorithm {
            Algorithm::RsaPkcs1Sha256 => &signature::RSA_PKCS1_2048_8192_SHA256,
            Algorithm::RsaPkcs1Sha384 => &signature::RSA_PKCS1_2048_8192_SHA384,
            Algorithm::RsaPkcs1Sha512 => &signature::RSA_PKCS1_2048_8192_SHA512,
            Algorithm::RsaPssSha256 => &signature::RSA_PSS_2048_8192_SHA256,
            Algorithm::RsaPssSha384 => &signature::RSA_PSS_2048_8192_SHA384,
            Algorithm::RsaPssSha512 => &signature::RSA_PSS_2048_8192_SHA512,
            Algorithm::EcdsaSha256 => &signature::ECDSA_P256_SHA256_ASN1,
            Algorithm::EcdsaSha384 => &signature::ECDSA_P384_SHA384_ASN1,
            Algorithm::EcdsaSha512 => &signature::ECDSA_P521_SHA512_ASN1,
            Algorithm::Ed25519 => &signature::ED25519,
            other => panic!("no verification for {other:?} is needed here"),
        };
        signature::UnparsedPublicKey::new(verification, &self.spki)
            .verify(message, signature)
            .unwrap_or_else(|_| panic!("{algorithm:?} with key {} does not verify", self.id));
    }

    pub(crate) fn encrypt(&self, message: &[u8]) -> Vec<u8> {
        let key = PublicEncryptingKey::from_der(&self.spki).unwrap();
        let key = Pkcs1PublicEncryptingKey::new(key).unwrap();
        let mut ciphertext = vec![0; key.ciphertext_size()];
        key.encrypt(message, &mut ciphertext).unwrap().to_vec()
    }
}
