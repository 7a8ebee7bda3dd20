//! Uses every key of a server once, as a client, and verifies every answer with the public key.
//!
//! The verification is that of the TLS library, not the one the server checked itself with.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use keyserver_client::{Client, KeyEntry, KeyId, SignatureAlgorithm, TlsIdentity};
use x509_parser::prelude::FromDer;
use x509_parser::public_key::PublicKey;
use x509_parser::x509::SubjectPublicKeyInfo;

use super::trial::Pki;
use super::{Failure, output};
use crate::clock;
use crate::tls::verify::Scheme;

/// What is signed.
const MESSAGE: &[u8] = b"keyserver demo";

/// What stands before a SHA-256 hash in a PKCS#1 v1.5 signature (RFC 8017, section 9.2, note 1).
const SHA256_PREFIX: [u8; 19] = [
    0x30, 0x31, 0x30, 0x0d, 0x06, 0x09, 0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x02, 0x01, 0x05,
    0x00, 0x04, 0x20,
];

/// Connects as the trial client, signs once with every key and decrypts once with every RSA key.
/// Returns the number of operations.
pub(crate) async fn use_every_key(address: &str, pki: &Pki) -> Result<usize, Failure> {
    let identity = TlsIdentity::from_files(&pki.ca, &pki.client, &pki.client_key)
        .map_err(|error| Failure::run(format!("client certificate: {error}")))?;
    let client = Client::builder(address, "localhost", identity)
        .connect()
        .await
        .map_err(|error| Failure::run(format!("connecting to {address}: {error}")))?;
    let keys = client
        .keys()
        .await
        .map_err(|error| Failure::run(format!("asking for the keys: {error}")))?;
    output::line(&output::paint_out(
        "1",
        &row(["key", "type", "operation", "result", "time"]),
    ));
    let mut count = 0;
    for key in &keys {
        for operation in Operation::of(key) {
            let began = clock::now();
            let answer = operation.ask(&client, key).await;
            let micros = clock::now().saturating_duration_since(began).as_micros();
            let good = answer.and_then(|answer| {
                if operation.verify(key, &answer) {
                    Ok(())
                } else {
                    Err("it does not verify".into())
                }
            });
            good.map_err(|error| {
                Failure::run(format!("key {}: {}: {error}", key.label, operation.name))
            })?;
            let time = format!("{micros} us");
            output::line(&row([
                &key.label,
                &key.key_type,
                operation.name,
                "verified",
                &time,
            ]));
            count += 1;
        }
    }
    client.close();
    Ok(count)
}

fn row(cells: [&str; 5]) -> String {
    let [key, kind, operation, result, time] = cells;
    format!("{key:<15} {kind:<10} {operation:<22} {result:<10} {time:>9}")
}

/// Something to do with a key.
#[derive(Debug, Clone, Copy)]
struct Operation {
    name: &'static str,
    /// `None`: decrypt.
    algorithm: Option<SignatureAlgorithm>,
    /// How the answer is verified.
    scheme: Scheme,
}

impl Operation {
    /// A signature with every key, a decryption with the RSA ones.
    fn of(key: &KeyEntry) -> Vec<Self> {
        let ecdsa_sha256 = Self {
            name: "sign ECDSA SHA-256",
            algorithm: Some(SignatureAlgorithm::EcdsaSha256),
            scheme: Scheme::EcdsaSha256,
        };
        let ecdsa_sha384 = Self {
            name: "sign ECDSA SHA-384",
            algorithm: Some(SignatureAlgorithm::EcdsaSha384),
            scheme: Scheme::EcdsaSha384,
        };
        let ed25519 = Self {
            name: "sign Ed25519",
            algorithm: Some(SignatureAlgorithm::Ed25519),
            scheme: Scheme::Ed25519,
        };
        let pss = Self {
            name: "sign RSA-PSS SHA-256",
            algorithm: Some(SignatureAlgorithm::RsaPssSha256),
            scheme: Scheme::RsaPssSha256,
        };
        let decrypt = Self {
            name: "decrypt",
            algorithm: None,
            scheme: Scheme::RsaPkcs1Sha256,
        };
        match key.key_type.as_str() {
            "p-256" => vec![ecdsa_sha256],
            "p-384" | "p-521" => vec![ecdsa_sha384],
            "ed25519" => vec![ed25519],
            _ => vec![pss, decrypt],
        }
    }

    /// Asks the server.
    async fn ask(self, client: &Client, entry: &KeyEntry) -> Result<Vec<u8>, String> {
        let key = KeyId::try_from(entry).map_err(|error| error.to_string())?;
        let hash = self.scheme.input(MESSAGE).ok_or("no hash function")?;
        match self.algorithm {
            Some(algorithm) => client.sign(&key, algorithm, &hash).await,
            None => {
                let block = ciphertext(entry, &hash).ok_or("the public key cannot be read")?;
                client.decrypt(&key, &block).await
            }
        }
        .map_err(|error| error.to_string())
    }

    /// Whether `answer` is right for the public key of `entry`.
    fn verify(self, entry: &KeyEntry, answer: &[u8]) -> bool {
        let spki = STANDARD.decode(&entry.spki);
        spki.is_ok_and(|spki| self.scheme.verifies(&spki, MESSAGE, answer))
    }
}

/// A ciphertext whose decryption can be checked with nothing but the public key: the block that a
/// PKCS#1 v1.5 signature of [`MESSAGE`] opens to. The right answer is the only number whose
/// e-th power is this block, so verifying it as a signature checks the decryption in full.
///
/// It also shows why decrypting without padding is full use of the key.
fn ciphertext(entry: &KeyEntry, hash: &[u8]) -> Option<Vec<u8>> {
    let der = STANDARD.decode(&entry.spki).ok()?;
    let (_, spki) = SubjectPublicKeyInfo::from_der(&der).ok()?;
    let PublicKey::RSA(key) = spki.parsed().ok()? else {
        return None;
    };
    let length = key.key_size().div_ceil(8);
    let padding = length.checked_sub(3 + SHA256_PREFIX.len() + hash.len())?;
    let mut block = vec![0x00, 0x01];
    block.resize(2 + padding, 0xff);
    block.push(0x00);
    block.extend_from_slice(&SHA256_PREFIX);
    block.extend_from_slice(hash);
    Some(block)
}
