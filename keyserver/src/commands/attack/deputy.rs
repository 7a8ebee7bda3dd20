//! The confused deputy: a server that signs for a right reason what was made for another one.
//!
//! Each object is sent to 0x40 and 0x41 as it is and as its hash value, under every scheme of the key. A server that
//! holds signs none of them.

use keyless_protocol::Opcode;

use super::forge::name_of;
use super::line::{Answer, Trouble};
use super::objects::{self, Object};
use super::rsa::sha256;
use super::target::{Target, Victim, honest_handshakes, still_signs};
use super::verdict::Verdict;

/// The operations that sign for TLS.
pub(super) const CHECKED: [Opcode; 2] = [Opcode::SignTls13, Opcode::SignTls12];

/// A certificate request.
pub(super) fn certificate_request(target: &mut Target) -> Result<Verdict, Trouble> {
    sign(target, objects::certificate_requests)
}

/// A web signature.
pub(super) fn web_signature(target: &mut Target) -> Result<Verdict, Trouble> {
    sign(target, objects::web_signatures)
}

/// The revocation of a certificate.
pub(super) fn revocation(target: &mut Target) -> Result<Verdict, Trouble> {
    sign(target, objects::revocations)
}

/// A delegated credential.
pub(super) fn delegated_credential(target: &mut Target) -> Result<Verdict, Trouble> {
    sign(target, objects::delegated_credentials)
}

/// What else is signed with keys.
pub(super) fn other(target: &mut Target) -> Result<Verdict, Trouble> {
    sign(target, objects::others)
}

fn sign(target: &mut Target, objects: fn(&Victim) -> Vec<Object>) -> Result<Verdict, Trouble> {
    let keys = match target.signers() {
        Ok(keys) => keys,
        Err(verdict) => return Ok(verdict),
    };
    let (mut refused, mut honest) = (0, 0);
    for victim in &keys {
        let signed = honest_handshakes(&mut target.us.line, victim)?;
        honest += signed;
        for object in objects(victim) {
            match deceive(target, victim, &object)? {
                Ok(count) => refused += count,
                Err(why) => return Ok(Verdict::broken(why)),
            }
        }
        still_signs(&mut target.us.line, victim, signed)?;
    }
    Ok(Verdict::held(format!(
        "{refused} tries with {} were refused, {}",
        count_of(keys.len(), "key"),
        of_honest(honest)
    )))
}

/// "1 key", "3 keys".
pub(super) fn count_of(count: usize, what: &str) -> String {
    let plural = if count == 1 { "" } else { "s" };
    format!("{count} {what}{plural}")
}

/// Whether a refusal of all this says more than that the client may sign nothing.
pub(super) fn of_honest(honest: usize) -> String {
    match honest {
        0 => "and so were honest handshakes".to_owned(),
        _ => format!("{} signed", count_of(honest, "honest handshake")),
    }
}

/// Sends an object in every dress; how often it was refused, or what was signed.
fn deceive(
    target: &mut Target,
    victim: &Victim,
    object: &Object,
) -> Result<Result<usize, String>, Trouble> {
    let dresses = [object.bytes.clone(), sha256(&object.bytes).to_vec()];
    let mut refused = 0;
    for opcode in CHECKED {
        for scheme in victim.schemes() {
            for dress in &dresses {
                let request = victim.signing(opcode, *scheme, dress);
                let Answer::Given(signature) = target.us.line.ask(&request)? else {
                    refused += 1;
                    continue;
                };
                let verified = victim.verifies(*scheme, &object.bytes, &signature);
                let proof = match verified {
                    Some(true) => "and the signature verifies",
                    _ => "with a signature of something",
                };
                return Ok(Err(format!(
                    "{}, {scheme}: {} was taken, {proof}, by {}",
                    name_of(opcode),
                    object.what,
                    victim.label
                )));
            }
        }
    }
    Ok(Ok(refused))
}
