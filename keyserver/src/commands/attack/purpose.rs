//! Uses of a key that its owner did not mean: a decryption key that signs, a signing key that decrypts, a right that
//! gives more than it says.

use keyless_protocol::{Opcode, Request, SignatureScheme};

use super::deputy::count_of;
use super::line::Trouble;
use super::rsa::random;
use super::target::{Target, Victim, tls12_string, tls13_string};
use super::verdict::Verdict;
use super::ways::{Way, fresh};

/// An honest use of a key, and the rights one of which allows it.
pub(super) struct Use {
    pub(super) rights: &'static [&'static str],
    /// What it is: for a report.
    pub(super) what: &'static str,
    pub(super) opcode: Opcode,
    scheme: Option<SignatureScheme>,
    extended: bool,
    payload: Vec<u8>,
}

impl Use {
    /// The request to make of a key.
    pub(super) fn request<'a>(&'a self, victim: &Victim) -> Request<'a> {
        Request {
            signature_scheme: self.scheme.map(SignatureScheme::as_u16),
            extended: self.extended,
            ..victim.request(self.opcode, &self.payload)
        }
    }
}

/// Every use that fits the type of a key.
pub(super) fn uses(victim: &Victim) -> Vec<Use> {
    let signing = |rights, what, opcode, payload: Vec<u8>| Use {
        rights,
        what,
        opcode,
        scheme: victim.schemes().first().copied(),
        extended: true,
        payload,
    };
    let mut uses = vec![
        signing(
            &["tls13-sign"],
            "sign a TLS 1.3 handshake",
            Opcode::SignTls13,
            tls13_string(&random::<32>()),
        ),
        signing(
            &["tls12-sign"],
            "sign a TLS 1.2 handshake",
            Opcode::SignTls12,
            tls12_string(&random::<64>()),
        ),
    ];
    if let Some((opcode, _, input)) = victim.digest_signing(b"anything") {
        uses.push(signing(&["sign-digest"], "sign a digest", opcode, input));
    }
    if let Some(rsa) = &victim.rsa {
        uses.extend(Way::ALL.map(|way| {
            let payload = way.payload(&fresh(rsa), &random());
            let request = way.request(victim, &payload);
            Use {
                rights: way.rights(),
                what: "open a ciphertext",
                opcode: request.opcode,
                scheme: None,
                extended: request.extended,
                payload: payload.clone(),
            }
        }));
    }
    uses
}

/// Every use that the key list does not name must be refused.
pub(super) fn run(target: &mut Target) -> Result<Verdict, Trouble> {
    if target.us.keys.is_empty() {
        return Ok(Verdict::skipped("this client may use no key at all"));
    }
    let mut refused = 0;
    for victim in target.us.keys.clone() {
        for attempt in uses(&victim) {
            if victim.has_right(attempt.rights) {
                continue;
            }
            if target.us.line.ask(&attempt.request(&victim))?.is_given() {
                return Ok(Verdict::broken(format!(
                    "{} may be used for {} and did {} as well ({})",
                    victim.label,
                    victim.rights.join(", "),
                    attempt.what,
                    attempt.opcode.name()
                )));
            }
            refused += 1;
        }
    }
    Ok(Verdict::held(format!(
        "{} that no right of the list names were refused, of {}",
        count_of(refused, "use"),
        count_of(target.us.keys.len(), "key")
    )))
}
