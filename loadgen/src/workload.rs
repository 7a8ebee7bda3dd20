//! The requests of a run, made before it starts: inputs, the keys they name, and what answers must satisfy.
//!
//! Inputs are drawn once per class and reused, so that sending allocates and hashes nothing. The answers are checked
//! against the same table, off the hot path, by [`crate::verify`].

use std::sync::atomic::{AtomicU64, Ordering};

use aws_lc_rs::digest;
use aws_lc_rs::rsa::{Pkcs1PublicEncryptingKey, PublicEncryptingKey};
use aws_lc_rs::signature::{self, ParsedPublicKey, VerificationAlgorithm};
use keyless_protocol::{Opcode, Request, SignatureScheme, Ski};

use crate::keys::PublicKey;
use crate::mix::{Class, KeyKind, Mix, Pad};
use crate::random::Random;

/// Inputs per class; with more keys than that, one input per key.
const INPUTS_PER_CLASS: usize = 256;
/// Bytes in a ping. With the padding of the protocol every frame is 1024 bytes anyway.
const PING_BYTES: usize = 32;
/// Bytes encrypted into each block to be decrypted: what an RSA key exchange carries (RFC 5246, 7.4.7.1).
pub(crate) const SECRET_BYTES: usize = 48;

/// What requests carry besides their payload; only servers that list it in their information understand it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Manner {
    /// Ask for the newer error codes, and for when to try again (tag 0x32).
    pub extended: bool,
    /// Microseconds for which the answer is of use (tag 0x30).
    pub deadline_us: Option<u32>,
}

/// One prepared request.
#[derive(Debug)]
pub struct Entry {
    /// Position of its class in the mix.
    pub part: usize,
    opcode: Opcode,
    scheme: Option<SignatureScheme>,
    ski: Option<Ski>,
    payload: Vec<u8>,
    /// What its answers must satisfy.
    pub(crate) check: Check,
}

impl Entry {
    /// The request, ready to be sent with this id.
    #[must_use]
    pub fn request(&self, id: u32, manner: Manner) -> Request<'_> {
        Request {
            ski: self.ski,
            payload: &self.payload,
            signature_scheme: self.scheme.map(SignatureScheme::as_u16),
            extended: manner.extended,
            deadline_us: manner.deadline_us,
            ..Request::new(id, self.opcode)
        }
    }

    /// Whether a pong carries what the ping carried. Anything else is checked by [`crate::verify`].
    #[must_use]
    pub fn echoes(&self, answer: &[u8]) -> bool {
        self.payload == answer
    }
}

/// How an answer is checked.
#[derive(Debug)]
pub(crate) enum Check {
    /// It repeats the payload.
    Echo,
    /// It is the PKCS#1 block of `k` bytes around this secret.
    Block {
        secret: [u8; SECRET_BYTES],
        block_bytes: usize,
    },
    /// It is a signature over this message by the key at this position of [`Workload::verifiers`].
    Signature { message: Vec<u8>, verifier: usize },
}

/// All prepared requests of a run, shared by its threads.
#[derive(Debug)]
pub struct Workload {
    mix: Mix,
    entries: Vec<Entry>,
    /// Range of `entries` per part of the mix.
    ranges: Vec<std::ops::Range<usize>>,
    pub(crate) verifiers: Vec<ParsedPublicKey>,
    /// Distinct keys in use.
    pub keys: usize,
    /// Inputs of a class, unless there are more keys.
    inputs: usize,
    /// Inputs taken so far per part of the mix; empty where they are drawn at random.
    taken: Vec<AtomicU64>,
}

impl Workload {
    /// Prepares the inputs of every class of the mix.
    ///
    /// # Errors
    /// Which class has no key to ask for, and what there is.
    pub fn new(mix: Mix, pad: Pad, keys: &[PublicKey], seed: u64) -> Result<Self, String> {
        Self::with_inputs(mix, pad, keys, seed, None)
    }

    /// The same with so many inputs of each class, of which none is asked for again before all have been: for servers
    /// that answer a ciphertext once.
    ///
    /// # Errors
    /// As [`Self::new`].
    pub fn with_inputs(
        mix: Mix,
        pad: Pad,
        keys: &[PublicKey],
        seed: u64,
        fresh: Option<usize>,
    ) -> Result<Self, String> {
        // Threads use the streams from 0 up, the inputs the last one.
        let mut random = Random::new(seed, u64::MAX);
        let mut workload = Self {
            entries: Vec::new(),
            ranges: Vec::new(),
            verifiers: Vec::new(),
            keys: 0,
            inputs: fresh.unwrap_or(INPUTS_PER_CLASS),
            taken: Vec::new(),
            mix,
        };
        let mut in_use = Vec::new();
        let parts = workload.mix.parts().to_vec();
        for (part, (class, _)) in parts.into_iter().enumerate() {
            let start = workload.entries.len();
            if class == Class::Ping {
                workload.add_pings(part, &mut random);
            } else {
                let fitting: Vec<&PublicKey> =
                    keys.iter().filter(|key| key.serves(class)).collect();
                if fitting.is_empty() {
                    return Err(no_key(class, keys));
                }
                in_use.extend(fitting.iter().map(|key| key.ski));
                workload.add_operations(part, class, pad, &fitting, &mut random)?;
            }
            workload.ranges.push(start..workload.entries.len());
        }
        if fresh.is_some() {
            workload
                .taken
                .resize_with(workload.ranges.len(), AtomicU64::default);
        }
        in_use.sort_unstable();
        in_use.dedup();
        workload.keys = in_use.len();
        Ok(workload)
    }

    /// The mix it was made for.
    #[must_use]
    pub fn mix(&self) -> &Mix {
        &self.mix
    }

    /// The entry at a position that [`Self::draw`] gave.
    #[must_use]
    pub fn entry(&self, index: u32) -> Option<&Entry> {
        self.entries
            .get(usize::try_from(index).unwrap_or(usize::MAX))
    }

    /// Draws the position of the next request to send: a class by weight, then one of its inputs.
    pub fn draw(&self, random: &mut Random) -> u32 {
        let part = self.mix.draw(random);
        let range = self.ranges.get(part).cloned().unwrap_or_default();
        let length = range.len() as u64;
        let place = match self.taken.get(part) {
            Some(taken) => taken.fetch_add(1, Ordering::Relaxed) % length.max(1),
            None => random.below(length),
        };
        let index = range.start as u64 + place;
        u32::try_from(index).unwrap_or(0)
    }

    fn add_pings(&mut self, part: usize, random: &mut Random) {
        for _ in 0..INPUTS_PER_CLASS {
            let mut payload = vec![0; PING_BYTES];
            random.fill(&mut payload);
            self.entries.push(Entry {
                part,
                opcode: Opcode::Ping,
                scheme: None,
                ski: None,
                payload,
                check: Check::Echo,
            });
        }
    }

    fn add_operations(
        &mut self,
        part: usize,
        class: Class,
        pad: Pad,
        keys: &[&PublicKey],
        random: &mut Random,
    ) -> Result<(), String> {
        let first_verifier = self.verifiers.len();
        let mut encrypters = Vec::new();
        for key in keys {
            match class {
                Class::Decrypt(_) => encrypters.push(encrypter(key)?),
                Class::Ping => {}
                Class::Sign(kind) | Class::Tls12(kind) | Class::Tls13(kind) => {
                    let pad = if matches!(class, Class::Tls13(_)) {
                        Pad::Pss
                    } else {
                        pad
                    };
                    let parsed = ParsedPublicKey::new(verification(kind, pad), &key.spki).map_err(
                        |error| format!("{}: not a usable public key: {error}", key.origin),
                    )?;
                    self.verifiers.push(parsed);
                }
            }
        }
        for index in 0..self.inputs.max(keys.len()) {
            let position = index % keys.len();
            let (payload, check) = match (class, encrypters.get(position)) {
                (Class::Decrypt(_), Some(key)) => encrypted_block(key, random)?,
                _ => {
                    let message = message(class, random);
                    let payload = to_sign(class, &message);
                    (
                        payload,
                        Check::Signature {
                            message,
                            verifier: first_verifier + position,
                        },
                    )
                }
            };
            let ski = keys.get(position).map(|key| key.ski);
            self.entries.push(Entry {
                part,
                opcode: class.opcode(pad),
                scheme: class.scheme(pad),
                ski,
                payload,
                check,
            });
        }
        Ok(())
    }
}

/// What is signed: a TLS string where the class says so, with random numbers where TLS has them.
fn message(class: Class, random: &mut Random) -> Vec<u8> {
    let mut filled = |length| {
        let mut bytes = vec![0; length];
        random.fill(&mut bytes);
        bytes
    };
    match class {
        // RFC 8446, section 4.4.3.
        Class::Tls13(_) => [
            vec![b' '; 64],
            b"TLS 1.3, server CertificateVerify\0".to_vec(),
            filled(32),
        ]
        .concat(),
        // RFC 8422, section 5.4, with a point of X25519.
        Class::Tls12(_) => [filled(64), vec![3, 0, 29, 32], filled(32)].concat(),
        Class::Decrypt(_) | Class::Ping | Class::Sign(_) => filled(32),
    }
}

/// The bytes sent to be signed: the hash that fits the key, or for Ed25519 and TLS the message itself.
fn to_sign(class: Class, message: &[u8]) -> Vec<u8> {
    let algorithm = match class {
        Class::Sign(KeyKind::Ed25519) | Class::Tls12(_) | Class::Tls13(_) => {
            return message.to_vec();
        }
        Class::Sign(KeyKind::P384) => &digest::SHA384,
        Class::Sign(KeyKind::P521) => &digest::SHA512,
        _ => &digest::SHA256,
    };
    digest::digest(algorithm, message).as_ref().to_vec()
}

/// The algorithm that verifies what [`Class::opcode`] asks for.
fn verification(kind: KeyKind, pad: Pad) -> &'static dyn VerificationAlgorithm {
    match (kind, pad) {
        (KeyKind::Ed25519, _) => &signature::ED25519,
        (KeyKind::P256, _) => &signature::ECDSA_P256_SHA256_ASN1,
        (KeyKind::P384, _) => &signature::ECDSA_P384_SHA384_ASN1,
        (KeyKind::P521, _) => &signature::ECDSA_P521_SHA512_ASN1,
        (_, Pad::Pss) => &signature::RSA_PSS_2048_8192_SHA256,
        (_, Pad::Pkcs1) => &signature::RSA_PKCS1_2048_8192_SHA256,
    }
}

fn encrypter(key: &PublicKey) -> Result<Pkcs1PublicEncryptingKey, String> {
    let unusable = || format!("{}: not a usable RSA public key", key.origin);
    let public = PublicEncryptingKey::from_der(&key.spki).map_err(|_| unusable())?;
    Pkcs1PublicEncryptingKey::new(public).map_err(|_| unusable())
}

/// A ciphertext as an RSA key exchange sends it, and what must come back.
fn encrypted_block(
    key: &Pkcs1PublicEncryptingKey,
    random: &mut Random,
) -> Result<(Vec<u8>, Check), String> {
    let mut secret = [0; SECRET_BYTES];
    random.fill(&mut secret);
    let mut ciphertext = vec![0; key.ciphertext_size()];
    let length = key
        .encrypt(&secret, &mut ciphertext)
        .map_err(|_| "could not encrypt a block to be decrypted".to_owned())?
        .len();
    ciphertext.truncate(length);
    Ok((
        ciphertext,
        Check::Block {
            secret,
            block_bytes: key.key_size_bytes(),
        },
    ))
}

fn no_key(class: Class, keys: &[PublicKey]) -> String {
    let offered: Vec<String> = Class::all()
        .into_iter()
        .filter(|other| *other == Class::Ping || keys.iter().any(|key| key.serves(*other)))
        .map(|class| class.to_string())
        .collect();
    format!(
        "no key for `{class}`: the keys this client may use serve {}; change --mix, or grant the client such a key",
        offered.join(", ")
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::units::float;

    #[test]
    fn fresh_inputs_are_asked_for_once_each() {
        let make_of = |mix: &str, fresh| {
            let mix = mix.parse().unwrap();
            Workload::with_inputs(mix, Pad::Pss, &[p256_key()], 1, fresh).unwrap()
        };
        let make = |fresh| make_of("p256=1", fresh);
        let draw = |workload: &Workload| {
            let mut random = Random::new(1, 0);
            (0..500)
                .map(|_| workload.draw(&mut random))
                .collect::<Vec<_>>()
        };
        let fresh = draw(&make(Some(500)));
        assert_eq!(fresh, (0..500).collect::<Vec<_>>());
        assert_ne!(draw(&make(None)), fresh, "from a few, at random");
        // Of a mix, each class goes through its own.
        let mut mixed = draw(&make_of("p256=1,ping=1", Some(500)));
        mixed.retain(|&index| index < 500);
        assert_eq!(
            mixed,
            (0..u32::try_from(mixed.len()).unwrap()).collect::<Vec<_>>()
        );
    }

    fn p256_key() -> PublicKey {
        let pair = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap();
        let spki = rcgen::PublicKeyData::subject_public_key_info(&pair);
        PublicKey::from_spki(&spki, "test").unwrap().unwrap()
    }

    #[test]
    fn the_same_seed_asks_the_same_questions_in_the_asked_proportions() {
        let key = p256_key();
        let make = |seed| {
            Workload::new(
                "p256=3,ping=1".parse().unwrap(),
                Pad::Pss,
                std::slice::from_ref(&key),
                seed,
            )
            .unwrap()
        };
        let workload = make(1);
        assert_eq!(workload.keys, 1);
        let (mut one, mut other) = (Random::new(1, 0), Random::new(1, 0));
        let mut pings = 0;
        for _ in 0..40_000 {
            let entry = workload.draw(&mut one);
            assert_eq!(entry, workload.draw(&mut other));
            pings += u64::from(workload.entry(entry).unwrap().part == 1);
        }
        // 10,000 expected, standard deviation 87.
        assert!((float(pings) - 10_000.0).abs() < 5.0 * 87.0, "{pings}");
        let payload = |workload: &Workload| workload.entry(0).unwrap().payload.clone();
        assert_eq!(payload(&workload), payload(&make(1)));
        assert_ne!(payload(&workload), payload(&make(2)));
    }

    #[test]
    fn a_class_without_a_key_says_what_there_is() {
        let error =
            Workload::new("rsa2048=1".parse().unwrap(), Pad::Pss, &[p256_key()], 1).unwrap_err();
        assert!(
            error.contains("`rsa2048`") && error.contains("p256, ping"),
            "{error}"
        );
    }
}
