//! The server under attack, as its clients see it: who we are, which keys we may use, and how to ask.

use std::path::PathBuf;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use keyless_protocol::{KeyEntry, Opcode, Request, SignatureScheme, Ski};

use super::line::{Answer, Door, Line, Trouble};
use super::rsa::{RsaPublic, random};
use super::verdict::Verdict;
use crate::tls::verify::Scheme;

/// At most this many keys are attacked: one of each type and set of rights.
const KEYS_MAX: usize = 24;

/// Everything the attacks work with.
#[derive(Debug)]
pub(super) struct Target {
    /// The client whose rights are tried.
    pub(super) us: Party,
    /// A second client, if one was given.
    pub(super) other: Option<Party>,
    /// Requests of each kind where time is compared.
    pub(super) samples: usize,
    /// Where an exchange is kept to be replayed by a later run.
    pub(super) recording: Option<PathBuf>,
    /// Signing is tried with this key only, named by label or SKI.
    pub(super) sign_key: Option<String>,
}

/// A client of the server.
#[derive(Debug)]
pub(super) struct Party {
    /// Its connection.
    pub(super) line: Line,
    /// Every key that it may use.
    pub(super) listed: Vec<KeyEntry>,
    /// Of those, one of each type and set of rights.
    pub(super) keys: Vec<Victim>,
}

/// A key that is attacked.
#[derive(Debug, Clone)]
pub(super) struct Victim {
    pub(super) label: String,
    pub(super) ski: Ski,
    pub(super) spki: Vec<u8>,
    pub(super) key_type: String,
    /// What the server says that we may do with it.
    pub(super) rights: Vec<String>,
    /// The public key, where it is RSA.
    pub(super) rsa: Option<RsaPublic>,
}

impl Party {
    /// Connects and asks for the keys.
    pub(super) fn connect(door: &Door) -> Result<Self, Trouble> {
        let mut line = Line::open(door)?;
        let listed = line.keys()?;
        let mut keys: Vec<Victim> = Vec::new();
        for entry in &listed {
            let same = |known: &Victim| {
                known.key_type == entry.key_type && known.rights == entry.operations
            };
            if keys.len() < KEYS_MAX && !keys.iter().any(same) {
                keys.extend(Victim::new(entry));
            }
        }
        Ok(Self { line, listed, keys })
    }

    /// Whether this party is told of a key.
    pub(super) fn lists(&self, ski: &Ski) -> bool {
        (self.listed.iter()).any(|entry| entry.ski_bytes().as_ref() == Some(ski))
    }
}

impl Target {
    /// The keys with which signing is tried; says so where there is none.
    pub(super) fn signers(&self) -> Result<Vec<Victim>, Verdict> {
        let keys = match &self.sign_key {
            None => self.us.keys.clone(),
            Some(name) => (self.us.listed.iter())
                .filter(|entry| entry.label == *name || entry.ski == *name)
                .filter_map(Victim::new)
                .collect(),
        };
        match &self.sign_key {
            _ if !keys.is_empty() => Ok(keys),
            Some(name) => Err(Verdict::skipped(format!(
                "this client may use no such key as {name}"
            ))),
            None => Err(Verdict::skipped("this client may use no key at all")),
        }
    }

    /// The RSA keys; says so where there is none.
    pub(super) fn rsa_keys(&self) -> Result<Vec<(Victim, RsaPublic)>, Verdict> {
        let keys: Vec<_> = (self.us.keys.iter())
            .filter_map(|key| Some((key.clone(), key.rsa.clone()?)))
            .collect();
        if keys.is_empty() {
            return Err(Verdict::skipped("this client may use no RSA key"));
        }
        Ok(keys)
    }
}

impl Victim {
    /// The key of an entry of the list; nothing for one that cannot be read.
    pub(super) fn new(entry: &KeyEntry) -> Option<Self> {
        let spki = STANDARD.decode(&entry.spki).ok()?;
        Some(Self {
            label: entry.label.clone(),
            ski: entry.ski_bytes()?,
            rsa: RsaPublic::from_spki(&spki),
            spki,
            key_type: entry.key_type.clone(),
            rights: entry.operations.clone(),
        })
    }

    /// Whether the list names one of these rights.
    pub(super) fn has_right(&self, rights: &[&str]) -> bool {
        self.rights.iter().any(|right| rights.contains(&&**right))
    }

    /// A request that names this key.
    pub(super) fn request<'a>(&self, opcode: Opcode, payload: &'a [u8]) -> Request<'a> {
        Request {
            ski: Some(self.ski),
            payload,
            extended: true,
            ..Request::new(0, opcode)
        }
    }

    /// A request to sign `payload` under 0x40 or 0x41.
    pub(super) fn signing<'a>(
        &self,
        opcode: Opcode,
        scheme: SignatureScheme,
        payload: &'a [u8],
    ) -> Request<'a> {
        Request {
            signature_scheme: Some(scheme.as_u16()),
            ..self.request(opcode, payload)
        }
    }

    /// The schemes that this type of key signs with.
    pub(super) fn schemes(&self) -> &'static [SignatureScheme] {
        match &*self.key_type {
            "p-256" => &[SignatureScheme::EcdsaP256Sha256],
            "p-384" => &[SignatureScheme::EcdsaP384Sha384],
            "p-521" => &[
                SignatureScheme::EcdsaP256Sha256,
                SignatureScheme::EcdsaP384Sha384,
            ],
            "ed25519" => &[SignatureScheme::Ed25519],
            "ml-dsa-44" => &[SignatureScheme::MlDsa44],
            "ml-dsa-65" => &[SignatureScheme::MlDsa65],
            "ml-dsa-87" => &[SignatureScheme::MlDsa87],
            _ => &[
                SignatureScheme::RsaPssSha256,
                SignatureScheme::RsaPkcs1Sha256,
            ],
        }
    }

    /// The operation that signs a digest with this type of key, and what it signs of `message`.
    pub(super) fn digest_signing(&self, message: &[u8]) -> Option<(Opcode, Scheme, Vec<u8>)> {
        let (opcode, scheme) = match &*self.key_type {
            "p-256" => (Opcode::EcdsaSignSha256, Scheme::EcdsaSha256),
            "p-384" | "p-521" => (Opcode::EcdsaSignSha384, Scheme::EcdsaSha384),
            "ed25519" => (Opcode::Ed25519Sign, Scheme::Ed25519),
            _ if self.rsa.is_some() => (Opcode::RsaSignSha256, Scheme::RsaPkcs1Sha256),
            _ => return None,
        };
        Some((opcode, scheme, scheme.input(message)?))
    }

    /// Whether a signature under a TLS scheme is one of `message`; `None` where this program cannot tell.
    pub(super) fn verifies(
        &self,
        scheme: SignatureScheme,
        message: &[u8],
        signature: &[u8],
    ) -> Option<bool> {
        let scheme = match scheme {
            SignatureScheme::EcdsaP256Sha256 => Scheme::EcdsaSha256,
            SignatureScheme::EcdsaP384Sha384 => Scheme::EcdsaSha384,
            SignatureScheme::Ed25519 => Scheme::Ed25519,
            SignatureScheme::RsaPssSha256 => Scheme::RsaPssSha256,
            SignatureScheme::RsaPkcs1Sha256 => Scheme::RsaPkcs1Sha256,
            _ => return None,
        };
        Some(scheme.verifies(&self.spki, message, signature))
    }
}

/// The string of a TLS 1.3 CertificateVerify for a hash value (RFC 8446, section 4.4.3).
pub(super) fn tls13_string(hash: &[u8]) -> Vec<u8> {
    [
        &[b' '; 64][..],
        b"TLS 1.3, server CertificateVerify\0",
        hash,
    ]
    .concat()
}

/// The string of a TLS 1.2 ServerKeyExchange on X25519 (RFC 8422, section 5.4).
pub(super) fn tls12_string(randoms: &[u8; 64]) -> Vec<u8> {
    let mut point = random::<32>();
    // Not one of the few points of low order, which no server signs.
    point[0] |= 0x10;
    [&randoms[..], &[3, 0, 29, 32], &point].concat()
}

/// Asks for one honest handshake of each kind; how many the server signed. Fails where it signs none with a key whose rights
/// promise it.
pub(super) fn honest_handshakes(line: &mut Line, victim: &Victim) -> Result<usize, Trouble> {
    let mut signed = 0;
    let mut randoms = random::<64>();
    // Nothing else that is signed begins like this. Of strings that begin at random, one in a hundred million looks like an
    // ASN.1 object, and a careful server refuses it.
    randoms[0] = 0x11;
    let strings = [
        (Opcode::SignTls13, tls13_string(&random::<32>())),
        (Opcode::SignTls12, tls12_string(&randoms)),
    ];
    for (opcode, string) in strings {
        for scheme in victim.schemes() {
            let answer = line.ask(&victim.signing(opcode, *scheme, &string))?;
            signed += usize::from(matches!(answer, Answer::Given(_)));
        }
    }
    if signed == 0 && victim.has_right(&["tls13-sign", "tls12-sign"]) {
        return Err(no_handshake(victim));
    }
    Ok(signed)
}

/// Fails where fewer honest handshakes are signed than before: what was refused in between may have been refused for that.
pub(super) fn still_signs(line: &mut Line, victim: &Victim, before: usize) -> Result<(), Trouble> {
    if honest_handshakes(line, victim)? < before {
        return Err(no_handshake(victim));
    }
    Ok(())
}

fn no_handshake(victim: &Victim) -> Trouble {
    Trouble::unanswered(format_args!("handshakes with {}", victim.label))
}
