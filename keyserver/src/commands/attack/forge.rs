//! Forging signatures with an operation that decrypts.
//!
//! Textbook RSA knows no difference between decrypting and signing: whoever sends the block of a signature as a
//! ciphertext gets the signature back. A filter on what such blocks look like does not help, because the block can be
//! blinded: `2^e * block` is opened to `2 * signature`.

use keyless_protocol::Opcode;

use super::line::{Answer, Trouble};
use super::objects;
use super::rsa::{RsaPublic, random};
use super::target::{Target, Victim, tls13_string};
use super::verdict::Verdict;
use super::ways::Way;
use crate::tls::verify::Scheme;

/// A PKCS#1 v1.5 signature of a certificate request.
pub(super) fn pkcs1(target: &mut Target) -> Result<Verdict, Trouble> {
    forge(
        target,
        Scheme::RsaPkcs1Sha256,
        "a certificate request",
        |victim, rsa| {
            let message = objects::certificate_request(victim);
            let block = rsa.pkcs1_block(&message);
            (message, block)
        },
    )
}

/// A PSS signature of a handshake: a valid CertificateVerify of TLS 1.3.
pub(super) fn pss(target: &mut Target) -> Result<Verdict, Trouble> {
    forge(
        target,
        Scheme::RsaPssSha256,
        "a TLS 1.3 handshake",
        |_, rsa| {
            let message = tls13_string(&random::<32>());
            let block = rsa.pss_block(&message);
            (message, block)
        },
    )
}

fn forge(
    target: &mut Target,
    scheme: Scheme,
    what: &str,
    make: impl Fn(&Victim, &RsaPublic) -> (Vec<u8>, Vec<u8>),
) -> Result<Verdict, Trouble> {
    let keys = match target.rsa_keys() {
        Ok(keys) => keys,
        Err(verdict) => return Ok(verdict),
    };
    let (mut asked, mut answered) = (0, 0);
    for (victim, rsa) in &keys {
        for way in [Way::Block, Way::Raw, Way::Premaster] {
            for blinded in [false, true] {
                let (message, block) = make(victim, rsa);
                let ciphertext = if blinded {
                    // (2^e * block)^d = 2 * block^d.
                    rsa.blinded(&block)
                } else {
                    block
                };
                let answer = way.ask(&mut target.us.line, victim, &ciphertext, &random())?;
                asked += 1;
                let Answer::Given(output) = answer else {
                    continue;
                };
                answered += 1;
                let signature = if blinded { rsa.half(&output) } else { output };
                if scheme.verifies(&victim.spki, &message, &signature) {
                    let how = if blinded { ", blinded" } else { "" };
                    return Ok(Verdict::broken(format!(
                        "{}{how}: the answer is a signature of {what} by {}{}",
                        way.name(),
                        victim.label,
                        full_use(victim),
                    )));
                }
            }
        }
    }
    for (victim, _) in &keys {
        for way in [Way::Block, Way::Raw, Way::Premaster] {
            if victim.has_right(way.rights()) && !way.is_open(&mut target.us.line, victim)? {
                let what = format!("{} with {}", way.name(), victim.label);
                return Err(Trouble::unanswered(what));
            }
        }
    }
    Ok(Verdict::held(format!(
        "of {asked} blocks of signatures {answered} were answered, none with a signature"
    )))
}

/// Why that is no wonder.
fn full_use(victim: &Victim) -> &'static str {
    if victim.has_right(&["decrypt-raw"]) {
        "; this client holds decrypt-raw, which is full use of the key"
    } else {
        ""
    }
}

/// Anything signed by the operations that sign a digest: what a stock edge that was taken over can do.
pub(super) fn digests(target: &mut Target) -> Result<Verdict, Trouble> {
    let keys = match target.signers() {
        Ok(keys) => keys,
        Err(verdict) => return Ok(verdict),
    };
    let mut asked = 0;
    for victim in &keys {
        let message = objects::certificate_request(victim);
        let Some((opcode, scheme, input)) = victim.digest_signing(&message) else {
            continue;
        };
        asked += 1;
        let answer = target.us.line.ask(&victim.request(opcode, &input))?;
        if let Answer::Given(signature) = answer {
            let verified = scheme.verifies(&victim.spki, &message, &signature);
            let granted = if victim.has_right(&["sign-digest"]) {
                "; this client holds sign-digest, which signs anything"
            } else {
                ""
            };
            return Ok(Verdict::broken(format!(
                "{}: {} by {}{granted}",
                name_of(opcode),
                if verified {
                    "a certificate request is signed"
                } else {
                    "something was signed"
                },
                victim.label,
            )));
        }
        if victim.has_right(&["sign-digest"]) {
            let what = format!("{} with {}", name_of(opcode), victim.label);
            return Err(Trouble::unanswered(what));
        }
    }
    Ok(Verdict::held(format!(
        "with {asked} keys the digest of a certificate request was refused"
    )))
}

/// An opcode as the documentation writes it.
pub(super) fn name_of(opcode: Opcode) -> String {
    format!("{:#04x} ({})", opcode.as_byte(), opcode.name())
}
