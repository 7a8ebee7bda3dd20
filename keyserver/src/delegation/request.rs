//! What is checked before a credential is signed, and what is signed.

use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_ASN1, ECDSA_P384_SHA384_ASN1, ED25519, UnparsedPublicKey,
    VerificationAlgorithm,
};
use keyless_protocol::SignatureScheme;
use keyless_protocol::delegation::{Credential, EXPORTER_LEN, Request};

use super::certificate::Delegator;
use super::outstanding::{Account, Outstanding, Reservation};
use crate::ending::Now;
use crate::handshake::{Fault, Version};
use crate::limits::{CREDENTIAL_LIFETIME, CREDENTIAL_LIFETIME_MAX};
use crate::policy::Admitted;

/// What stands in front of what a server's certificate signs (RFC 9345, section 4).
const CONTEXT: &[u8] = b"TLS, server delegated credentials\0";

/// The kinds of credential keys: scheme, what their SubjectPublicKeyInfo begins with, its length, how they verify. DER has
/// one form only, so a prefix and a length are the whole grammar. `rsaEncryption` is not among them (RFC 9345,
/// section 4.1.1), nor is anything that TLS 1.3 signs with rarely.
type Kind = (
    SignatureScheme,
    &'static [u8],
    usize,
    &'static dyn VerificationAlgorithm,
);

const KINDS: [Kind; 3] = [
    (
        SignatureScheme::EcdsaP256Sha256,
        &[
            0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06,
            0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00,
        ],
        65,
        &ECDSA_P256_SHA256_ASN1,
    ),
    (
        SignatureScheme::EcdsaP384Sha384,
        &[
            0x30, 0x76, 0x30, 0x10, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06,
            0x05, 0x2b, 0x81, 0x04, 0x00, 0x22, 0x03, 0x62, 0x00,
        ],
        97,
        &ECDSA_P384_SHA384_ASN1,
    ),
    (
        SignatureScheme::Ed25519,
        &[
            0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00,
        ],
        32,
        &ED25519,
    ),
];

/// What one connection asks for.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ask<'a> {
    /// The payload.
    pub(crate) payload: &'a [u8],
    /// Item 0x31: what the certificate's key shall sign with.
    pub(crate) scheme: Option<u16>,
    /// The exporter of the connection; none where it has none that can be trusted.
    pub(crate) exporter: Option<&'a [u8; EXPORTER_LEN]>,
    /// When it asks.
    pub(crate) now: Now,
}

/// A credential that may be signed.
#[derive(Debug)]
pub(crate) struct Issue {
    /// What the certificate's key signs with.
    pub(crate) scheme: SignatureScheme,
    /// The whole string to be signed.
    pub(crate) message: Vec<u8>,
    /// The credential up to its signature.
    pub(crate) head: Vec<u8>,
    /// Its place among those that are about; given back unless it is kept.
    pub(crate) reservation: Reservation,
}

/// Checks a request under a right that was found, and reserves a place for the credential.
///
/// # Errors
///
/// [`Fault`], for the operator's log. The client is told what anybody is told who may not do something.
pub(crate) fn prepare(
    admitted: &Admitted,
    outstanding: &Arc<Outstanding>,
    ask: &Ask<'_>,
) -> Result<Issue, Fault> {
    let snapshot = admitted.snapshot();
    let ski = admitted.key().ski();
    let delegator = snapshot.certificates.of(&ski).map_err(Fault)?;
    let number = ask
        .scheme
        .ok_or(Fault("the request names no signature scheme (item 0x31)"))?;
    let scheme = SignatureScheme::from_u16(number)
        .filter(|scheme| Version::Tls13.lets(admitted.key().key_type(), *scheme))
        .ok_or(Fault("the signature scheme does not fit the key"))?;
    let request = Request::decode(ask.payload)
        .map_err(|_| Fault("the request for a credential is malformed"))?;
    let longest = admitted.max_credential_lifetime();
    let end = end_of(request.lifetime, longest, delegator, ask.now.wall)?;
    check_key(&request, &ski, ask.exporter)?;
    let valid_time = u32::try_from(end.saturating_sub(delegator.not_before)).map_err(|_| {
        Fault("the certificate has been valid for too long to count a credential's end from")
    })?;
    let mut head = Vec::with_capacity(request.spki.len() + 16);
    Credential {
        valid_time,
        algorithm: request.algorithm,
        spki: request.spki,
        scheme: scheme.as_u16(),
        signature: &[],
    }
    .encode_signed(&mut head);
    let account = Account {
        client: snapshot.policy.client_name(admitted.client()).to_owned(),
        ski,
    };
    let quota = snapshot.config.limits.live_credentials;
    let reservation = outstanding.reserve(account, end, ask.now, quota)?;
    Ok(Issue {
        scheme,
        message: [&[b' '; 64][..], CONTEXT, &delegator.certificate, &head].concat(),
        head,
        reservation,
    })
}

/// When a credential of this lifetime ends, seconds since 1970.
fn end_of(lifetime: u32, longest: Duration, delegator: &Delegator, now: u64) -> Result<u64, Fault> {
    let longest = longest.min(CREDENTIAL_LIFETIME_MAX);
    let lifetime = if lifetime == 0 {
        CREDENTIAL_LIFETIME.min(longest)
    } else {
        Duration::from_secs(lifetime.into())
    };
    if lifetime > longest {
        return Err(Fault(
            "the credential would live longer than the grant allows, or than seven days",
        ));
    }
    let end = now.saturating_add(lifetime.as_secs());
    if now < delegator.not_before || end > delegator.not_after {
        return Err(Fault(
            "the credential would not lie within its certificate's validity",
        ));
    }
    Ok(end)
}

/// The credential's key is of a kind that is served, and the client has it, on this very connection.
fn check_key(
    request: &Request<'_>,
    ski: &[u8; 20],
    exporter: Option<&[u8; EXPORTER_LEN]>,
) -> Result<(), Fault> {
    let exporter = exporter.ok_or(Fault("a credential is issued over TLS 1.3 only"))?;
    let kind = KINDS
        .iter()
        .find(|(scheme, ..)| scheme.as_u16() == request.algorithm);
    let (_, prefix, length, verification) =
        kind.ok_or(Fault("the credential's algorithm is none that is served"))?;
    let public = request
        .spki
        .strip_prefix(*prefix)
        .filter(|public| public.len() == *length)
        .ok_or(Fault(
            "the credential's public key does not fit its algorithm",
        ))?;
    UnparsedPublicKey::new(*verification, public)
        .verify(&request.proven(exporter, ski), request.proof)
        .map_err(|_| Fault("the proof of possession is not right for this connection"))
}

#[cfg(test)]
mod tests {
    use aws_lc_rs::signature::{
        ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair as _,
    };

    use super::*;

    const SKI: [u8; 20] = [7; 20];
    const EXPORTER: [u8; 32] = [9; 32];

    fn delegator() -> Delegator {
        Delegator {
            certificate: vec![1; 400],
            not_before: 1_000_000,
            not_after: 2_000_000,
        }
    }

    #[test]
    fn a_credential_ends_within_its_limits() {
        const DAY: u32 = 86_400;
        let (hour, week) = (Duration::from_hours(1), CREDENTIAL_LIFETIME_MAX);
        for (lifetime, longest, now, end) in [
            (0, week, 1_100_000, Some(1_103_600)),
            (0, Duration::from_mins(10), 1_100_000, Some(1_100_600)),
            (60, hour, 1_100_000, Some(1_100_060)),
            (3600, hour, 1_100_000, Some(1_103_600)),
            (3601, hour, 1_100_000, None),
            (7 * DAY, week, 1_100_000, Some(1_704_800)),
            (7 * DAY + 1, week, 1_100_000, None),
            (7 * DAY + 1, week * 2, 1_100_000, None),
            (60, week, 1_999_940, Some(2_000_000)),
            (61, week, 1_999_940, None),
            (60, week, 999_999, None),
            (60, week, 2_000_001, None),
            (u32::MAX, week, u64::MAX, None),
        ] {
            let found = end_of(lifetime, longest, &delegator(), now);
            assert_eq!(found.ok(), end, "{lifetime} {longest:?} {now}");
        }
    }

    fn spki(kind: usize, public: &[u8]) -> Vec<u8> {
        [KINDS[kind].1, public].concat()
    }

    #[test]
    fn only_who_has_the_key_on_this_connection_gets_a_credential() {
        let key = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_ASN1_SIGNING).unwrap();
        let spki = spki(0, key.public_key().as_ref());
        let bare = Request {
            lifetime: 60,
            algorithm: 0x0403,
            spki: &spki,
            proof: &[],
        };
        let random = aws_lc_rs::rand::SystemRandom::new();
        let proof = key.sign(&random, &bare.proven(&EXPORTER, &SKI)).unwrap();
        let good = Request {
            proof: proof.as_ref(),
            ..bare
        };
        check_key(&good, &SKI, Some(&EXPORTER)).unwrap();
        check_key(&good, &SKI, None).unwrap_err();
        check_key(&good, &SKI, Some(&[8; 32])).unwrap_err();
        check_key(&good, &[8; 20], Some(&EXPORTER)).unwrap_err();
        check_key(
            &Request {
                lifetime: 61,
                ..good
            },
            &SKI,
            Some(&EXPORTER),
        )
        .unwrap_err();
        check_key(&bare, &SKI, Some(&EXPORTER)).unwrap_err();
        for algorithm in [0x0503, 0x0807, 0x0804, 0x0401, 0] {
            let other = Request { algorithm, ..good };
            check_key(&other, &SKI, Some(&EXPORTER)).unwrap_err();
        }
        let longer = [&spki[..], &[0]].concat();
        check_key(
            &Request {
                spki: &longer,
                ..good
            },
            &SKI,
            Some(&EXPORTER),
        )
        .unwrap_err();
    }

    #[test]
    fn ed25519_proves_itself_and_rsa_is_not_taken() {
        let key = Ed25519KeyPair::generate().unwrap();
        let spki = spki(2, key.public_key().as_ref());
        let bare = Request {
            lifetime: 0,
            algorithm: 0x0807,
            spki: &spki,
            proof: &[],
        };
        let proof = key.sign(&bare.proven(&EXPORTER, &SKI));
        let good = Request {
            proof: proof.as_ref(),
            ..bare
        };
        check_key(&good, &SKI, Some(&EXPORTER)).unwrap();
        // rsaEncryption, whose use RFC 9345 forbids.
        let rsa = [
            &[
                0x30, 0x82, 1, 0x22, 0x30, 0x0d, 6, 9, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, 1,
                5, 0,
            ][..],
            &[0; 271],
        ]
        .concat();
        for algorithm in [0x0804, 0x0809, 0x0401] {
            let request = Request {
                algorithm,
                spki: &rsa,
                ..good
            };
            check_key(&request, &SKI, Some(&EXPORTER)).unwrap_err();
        }
    }
}
