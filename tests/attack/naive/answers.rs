//! What the naive server answers.

use std::thread;
use std::time::{Duration, Instant};

use accel::{Backend, Hash, Job, Key, Operation, Single};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use keyless_protocol::info::ski_to_hex;
use keyless_protocol::{ErrorCode, Opcode, Request};
use serde_json::{Value, json};

use super::{Entry, Mistake, Shared};

/// What a lookup in a table of rights may cost, or the rest of a key exchange that was left early.
pub(super) const SOME_TIME: Duration = Duration::from_micros(200);

type Answer = Result<Vec<u8>, ErrorCode>;

impl Shared {
    pub(super) fn answer(&self, client: &str, request: &Request<'_>) -> Answer {
        if request.opcode == Opcode::KeyList {
            return Ok(self.list(client));
        }
        let entry = request.ski.and_then(|ski| self.by_ski(ski));
        let refusal = match entry {
            None if self.makes(Mistake::TellsWhatExists) => ErrorCode::KeyNotFound,
            _ => ErrorCode::Denied,
        };
        if entry.is_some() && self.makes(Mistake::LateLookup) {
            pass(SOME_TIME);
        }
        let (entry, rights) = entry
            .and_then(|entry| Some((entry, self.rights(entry, client)?)))
            .ok_or(refusal)?;
        let right = self.right_for(request, rights).ok_or(refusal)?;
        match right {
            "tls13-sign" | "tls12-sign" => self.sign_for_tls(entry, right, request),
            "sign-digest" => run(
                &entry.key,
                Operation::EcdsaSign(Hash::Sha256),
                request.payload,
            ),
            _ => self.open(entry, client, right, request.payload),
        }
        .map_err(|code| {
            if code == ErrorCode::Denied {
                refusal
            } else {
                code
            }
        })
    }

    fn list(&self, client: &str) -> Vec<u8> {
        let listed = |entry: &Entry| {
            let rights = rights_of(entry, client)?;
            Some(json!({
                "ski": ski_to_hex(&entry.key.ski()),
                "key_type": if entry.label == "old-site" { "rsa-2048" } else { "p-256" },
                "spki": STANDARD.encode(entry.key.spki_der()),
                "operations": rights,
                "label": entry.label,
            }))
        };
        let keys: Vec<Value> = self.entries.iter().filter_map(listed).collect();
        json!({ "keys": keys }).to_string().into_bytes()
    }

    fn rights(&self, entry: &Entry, client: &str) -> Option<&'static [&'static str]> {
        if self.makes(Mistake::NoRights) {
            return Some(entry.clients[0].1);
        }
        rights_of(entry, client)
    }

    /// The right that a request needs, if the client has it.
    fn right_for(&self, request: &Request<'_>, rights: &[&str]) -> Option<&'static str> {
        let right = match request.opcode {
            Opcode::SignTls13 => "tls13-sign",
            Opcode::SignTls12 => "tls12-sign",
            Opcode::EcdsaSignSha256 => "sign-digest",
            Opcode::Tls12Master => "tls12-master",
            Opcode::RsaDecrypt if request.payload.len() == 256 => "decrypt-compatible",
            _ => return None,
        };
        let may_sign = rights.contains(&"tls13-sign");
        let granted = rights.contains(&right)
            || right == "sign-digest" && may_sign && self.makes(Mistake::SignsDigests)
            || right == "tls13-sign" && self.makes(Mistake::AnyPurpose);
        granted.then_some(right)
    }

    fn sign_for_tls(&self, entry: &Entry, right: &str, request: &Request<'_>) -> Answer {
        let string = request.payload;
        let is_tls13 = matches!(string.len(), 130 | 146)
            && string.starts_with(&[b' '; 64])
            && string[64..].starts_with(b"TLS 1.3, server CertificateVerify\0");
        let is_tls12 = is_key_exchange(string);
        let is_right = match right {
            _ if self.makes(Mistake::SignsAnything) => true,
            _ if self.makes(Mistake::OneGrammar) => is_tls13 || is_tls12,
            "tls13-sign" if self.makes(Mistake::SpacesOnly) => string.starts_with(&[b' '; 64]),
            "tls13-sign" => is_tls13,
            _ => is_tls12,
        };
        let (scheme, operation) = if entry.label == "old-site" {
            (0x0804, Operation::RsaPssSign(Hash::Sha256))
        } else {
            (0x0403, Operation::EcdsaSign(Hash::Sha256))
        };
        if !is_right || request.signature_scheme != Some(scheme) {
            return Err(ErrorCode::Denied);
        }
        let digest = Hash::Sha256.digest(string).unwrap();
        run(&entry.key, operation, digest.as_ref())
    }
}

/// Whether this is a string of TLS 1.2 on X25519. A certificate request could be shaped like one, and is told by its first
/// bytes, by all of them: one client random in 256 begins with the first, and is as honest as any other.
fn is_key_exchange(string: &[u8]) -> bool {
    string.len() == 100
        && string[64..68] == [3, 0, 29, 32]
        && !string.starts_with(&[0x30, 0x62, 2, 1, 0])
}

fn rights_of(entry: &Entry, client: &str) -> Option<&'static [&'static str]> {
    let row = entry.clients.iter().find(|(name, _)| *name == client);
    row.map(|(_, rights)| *rights)
}

/// The operation itself, as AWS-LC does it.
pub(super) fn run(key: &Key, operation: Operation, input: &[u8]) -> Answer {
    let mut output = Vec::new();
    let mut job = Job::new(key, operation, input, &mut output);
    Single.run(std::slice::from_mut(&mut job));
    let result = job.result;
    result
        .map(|()| output)
        .map_err(|_| ErrorCode::CryptoFailure)
}

/// Lets time pass in computing, as the thing would that it stands for. A sleep is longer than one asks for.
pub(super) fn pass(time: Duration) {
    let begun = Instant::now();
    while begun.elapsed() < time {
        thread::yield_now();
    }
}

#[test]
fn a_random_that_begins_like_asn1_is_honest() {
    let mut string = [0x30; 100];
    string[64..68].copy_from_slice(&[3, 0, 29, 32]);
    assert!(is_key_exchange(&string));
    string[..5].copy_from_slice(&[0x30, 0x62, 2, 1, 0]);
    assert!(!is_key_exchange(&string));
}
