//! Strings of one TLS operation sent to another, and everything next to a border of the grammars: every cut, every
//! byte that decides changed, a byte more and a byte less.

use std::collections::BTreeSet;

use keyless_protocol::Opcode;

use super::deputy::{count_of, of_honest};
use super::forge::name_of;
use super::line::Trouble;
use super::objects;
use super::rsa::random;
use super::target::{Target, Victim, honest_handshakes, still_signs, tls12_string, tls13_string};
use super::verdict::Verdict;

/// Where a string of TLS 1.3 has its first byte that one of TLS 1.2 cannot have.
const DECIDING: usize = 64;

/// A string, what is wrong with it, and where it is sent.
type Try = (Opcode, &'static str, Vec<u8>);

/// Sends them all.
pub(super) fn run(target: &mut Target) -> Result<Verdict, Trouble> {
    let keys = match target.signers() {
        Ok(keys) => keys,
        Err(verdict) => return Ok(verdict),
    };
    let (mut refused, mut honest) = (0, 0);
    for victim in &keys {
        let signed = honest_handshakes(&mut target.us.line, victim)?;
        honest += signed;
        let Some(scheme) = victim.schemes().first() else {
            continue;
        };
        for (opcode, what, string) in tries(victim) {
            let answer = target
                .us
                .line
                .ask(&victim.signing(opcode, *scheme, &string))?;
            if answer.is_given() {
                return Ok(Verdict::broken(format!(
                    "{}: {what}, {} bytes, was signed by {}",
                    name_of(opcode),
                    string.len(),
                    victim.label
                )));
            }
            refused += 1;
        }
        still_signs(&mut target.us.line, victim, signed)?;
    }
    Ok(Verdict::held(format!(
        "{refused} strings with {} were refused, {}",
        count_of(keys.len(), "key"),
        of_honest(honest)
    )))
}

fn tries(victim: &Victim) -> Vec<Try> {
    let mut tries = Vec::new();
    crossed(victim, &mut tries);
    let short = tls13_string(&random::<32>());
    let long = tls13_string(&random::<48>());
    bent(
        Opcode::SignTls13,
        &long,
        &BTreeSet::from([130, 146]),
        &mut tries,
    );
    let one_of_tls12 = tls12_string(&random::<64>());
    bent(
        Opcode::SignTls12,
        &one_of_tls12,
        &BTreeSet::from([100]),
        &mut tries,
    );
    // Every value of the byte that decides, for both.
    for value in (0..=u8::MAX).filter(|value| *value != b'T') {
        tries.push((
            Opcode::SignTls13,
            "another byte 64",
            with(&short, DECIDING, value),
        ));
    }
    for value in (0..=u8::MAX).filter(|value| *value != 3) {
        let string = with(&one_of_tls12, DECIDING, value);
        tries.push((Opcode::SignTls12, "another type of curve", string));
    }
    // Every byte before the hash value, turned.
    for at in 0..98 {
        let turned = short.get(at).map_or(0, |byte| byte ^ 1);
        let string = with(&short, at, turned);
        tries.push((Opcode::SignTls13, "a changed byte of the context", string));
    }
    for at in 65..68 {
        let turned = one_of_tls12.get(at).map_or(0, |byte| byte ^ 1);
        let string = with(&one_of_tls12, at, turned);
        tries.push((Opcode::SignTls12, "another curve or length", string));
    }
    tries
}

/// Strings of one language where another is spoken.
fn crossed(victim: &Victim, tries: &mut Vec<Try>) {
    for hash in [&random::<32>()[..], &random::<48>()] {
        let string = tls13_string(hash);
        tries.push((Opcode::SignTls12, "a string of TLS 1.3", string));
    }
    let spaces = [b' '; 64];
    for randoms in [random(), spaces, [0; 64]] {
        let string = tls12_string(&randoms);
        tries.push((Opcode::SignTls13, "a string of TLS 1.2", string));
    }
    // As long as a string of TLS 1.3, by a point that does not end there.
    let padded = [&tls12_string(&spaces)[..], &[0; 30]].concat();
    tries.push((Opcode::SignTls13, "a longer string of TLS 1.2", padded));
    for object in objects::delegated_credentials(victim) {
        for length in [100, 130, 133, 146, 165, object.bytes.len()] {
            let mut string = object.bytes.clone();
            string.resize(length, 0);
            for opcode in [Opcode::SignTls13, Opcode::SignTls12] {
                tries.push((opcode, object.what, string.clone()));
            }
        }
    }
}

/// Every cut of a string, and some more bytes behind it, but for those that are of the language again.
fn bent(opcode: Opcode, string: &[u8], legal: &BTreeSet<usize>, tries: &mut Vec<Try>) {
    for length in (0..string.len() + 24).filter(|length| !legal.contains(length)) {
        let mut other = string.to_vec();
        other.resize(length, 0x20);
        let what = if length < string.len() {
            "a cut of a string"
        } else {
            "a string with more behind it"
        };
        tries.push((opcode, what, other));
    }
}

/// The same with one byte replaced.
fn with(string: &[u8], at: usize, value: u8) -> Vec<u8> {
    let mut other = string.to_vec();
    if let Some(byte) = other.get_mut(at) {
        *byte = value;
    }
    other
}
