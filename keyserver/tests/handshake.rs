//! The languages that 0x40 and 0x41 sign share no string with each other, with delegated
//! credentials, or with what is signed outside of TLS.
//!
//! What is signed under 0x40 is always a string of [`CertificateVerify`], also when a handshake was
//! sent; so the strings are what has to be told apart, and not the payloads.
#![expect(
    clippy::unwrap_used,
    reason = "a test ends where something is wrong, and says so by panicking there"
)]

use keyserver::handshake::{CertificateVerify, ServerKeyExchange, Transcript};
use proptest::prelude::*;

/// RFC 9345, section 4: what follows the 64 spaces.
const DELEGATED: &[u8] = b"TLS, server delegated credentials\0";

/// Where each language has its first byte of its own.
const DECIDING: usize = 64;

fn is_tls13(string: &[u8]) -> bool {
    CertificateVerify::check(string).is_ok()
}

fn is_tls12(string: &[u8]) -> bool {
    ServerKeyExchange::read(string).is_ok()
}

fn is_delegated(string: &[u8]) -> bool {
    string.starts_with(&[&[b' '; 64], DELEGATED].concat())
}

fn tls13(hash: usize) -> Vec<u8> {
    let string = CertificateVerify::of(&vec![0x5a; hash]).unwrap();
    string.as_ref().to_vec()
}

/// A string of TLS 1.2 with this head and a point that X25519 takes.
fn tls12(prefix: &[u8; 64], curve: u16, length: u8, point: &[u8]) -> Vec<u8> {
    let [high, low] = curve.to_be_bytes();
    [&prefix[..], &[3, high, low, length], point].concat()
}

fn delegated(rest: usize) -> Vec<u8> {
    [&[b' '; 64], DELEGATED, &vec![0x30; rest]].concat()
}

fn languages(string: &[u8]) -> usize {
    [is_tls13(string), is_tls12(string), is_delegated(string)]
        .into_iter()
        .filter(|is_in| *is_in)
        .count()
}

/// Byte 64 decides: whatever the length and the other bytes, each language takes one value there,
/// and the two that take the same one part three bytes later.
#[test]
fn byte_64_tells_the_languages_apart() {
    let point = [9; 32];
    let bases = [
        tls13(32),
        tls13(48),
        delegated(32),
        delegated(500),
        tls12(&[b' '; 64], 29, 32, &point),
        tls12(&[0; 64], 29, 32, &point),
    ];
    for base in &bases {
        for value in 0..=255 {
            let mut string = base.clone();
            string[DECIDING] = value;
            assert!(!is_tls13(&string) || value == b'T');
            assert!(!is_delegated(&string) || value == b'T');
            assert!(!is_tls12(&string) || value == 3);
            assert!(languages(&string) <= 1, "{value}");
        }
    }
    // "TLS 1.3" and "TLS, server".
    for value in 0..=255 {
        for base in &bases[..4] {
            let mut string = base.clone();
            string[DECIDING + 3] = value;
            assert!(!is_tls13(&string) || value == b' ');
            assert!(!is_delegated(&string) || value == b',');
        }
    }
}

/// The proof that no string is in two of the languages, at the two bytes that it rests on.
///
/// ```text
///            byte 64      65 66   byte 67
///  TLS 1.3   'T' (0x54)   "LS"    ' ' (0x20)             both readers compare these bytes with constants, whatever
///  RFC 9345  'T'          "LS"    ',' (0x2c)             the length, so a string that is taken has this pair here
///  TLS 1.2   0x03         curve   0x20, 0x41 or 0x61     the type of curve and the length of the point
/// ```
///
/// The pairs (byte 64, byte 67) of the three have nothing in common: hence no string is in two. The test goes through
/// all 65,536 pairs in strings of each language, and through every length with each value of byte 64.
#[test]
fn the_pairs_that_decide_belong_to_one_language_each() {
    let allowed = |string: &[u8]| {
        let (first, second) = (string[DECIDING], string[DECIDING + 3]);
        [
            is_tls13(string).then_some((first, second) == (b'T', b' ')),
            is_delegated(string).then_some((first, second) == (b'T', b',')),
            is_tls12(string).then_some(first == 3 && [0x20, 0x41, 0x61].contains(&second)),
        ]
    };
    let point = [9; 32];
    let bases = [
        tls13(32),
        tls13(48),
        delegated(2),
        delegated(32),
        delegated(48),
        delegated(500),
        tls12(&[b' '; 64], 29, 32, &point),
        tls12(&[0x54; 64], 29, 32, &point),
    ];
    let check = |string: &[u8]| {
        let verdicts: Vec<bool> = allowed(string).into_iter().flatten().collect();
        assert!(verdicts.len() <= 1, "in two languages: {string:02x?}");
        assert!(verdicts.iter().all(|good| *good), "{string:02x?}");
        verdicts.len()
    };
    for base in &bases {
        let mut string = base.clone();
        let mut taken = 0;
        for pair in 0..=u16::MAX {
            let [first, second] = pair.to_be_bytes();
            (string[DECIDING], string[DECIDING + 3]) = (first, second);
            taken += check(&string);
        }
        // With its own pair and no other.
        assert_eq!(taken, 1, "{base:02x?}");
    }
    for base in &bases {
        for length in DECIDING + 4..200 {
            let mut string = base.clone();
            string.resize(length, b' ');
            for value in 0..=u8::MAX {
                string[DECIDING] = value;
                check(&string);
            }
        }
    }
}

/// Every pair of curve and length byte, each with the one total length that fits it: 2^24 heads.
/// Three are of the language, each of one length; none is 130 or 146, as TLS 1.3 strings are.
#[test]
fn of_all_heads_of_tls_1_2_three_are_taken() {
    let base_point = {
        let mut point = [0; 32];
        point[0] = 9;
        point
    };
    let mut points = vec![base_point.to_vec()];
    for digits in [
        "046b17d1f2e12c4247f8bce6e563a440f277037d812deb33a0f4a13945d898c296\
         4fe342e2fe1a7f9b8ee7eb4a7c0f9e162bce33576b315ececbb6406837bf51f5",
        "04aa87ca22be8b05378eb1c71ef320ad746e1d3b628ba79b9859f741e082542a385502f25dbf55296c3a545e3872760ab7\
         3617de4a96262c6f5d9e98bf9292dc29f8f41dbd289a147ce9da3113b5f0b8c00a60b1ce1d7e819d7a431d7c90ea0e5f",
    ] {
        let bytes = digits.as_bytes().chunks(2);
        let byte = |pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap();
        points.push(bytes.map(byte).collect());
    }
    let mut taken = Vec::new();
    for length in 0..=255 {
        let point = points
            .iter()
            .find(|point| point.len() == usize::from(length));
        let point = point.cloned().unwrap_or_else(|| vec![4; length.into()]);
        let mut string = tls12(&[0; 64], 0, length, &point);
        for curve in 0..=u16::MAX {
            string[65..67].copy_from_slice(&curve.to_be_bytes());
            if is_tls12(&string) {
                taken.push((curve, length, string.len()));
            }
        }
    }
    assert_eq!(taken, [(29, 32, 100), (23, 65, 133), (24, 97, 165)]);
}

/// What a certificate authority, an ACME server, a browser or an SSH server would take.
#[test]
fn nothing_that_is_signed_elsewhere_is_in_them() {
    for (what, string) in foreign() {
        assert!(!is_tls13(&string), "{what}");
        assert!(!is_tls12(&string), "{what}");
        // Nor does any cut of it, or any filling up to a length of the language, become one.
        for length in 0..=200 {
            let mut other = string.clone();
            other.resize(length, b' ');
            assert!(!is_tls13(&other), "{what} at {length}");
            assert!(!is_tls12(&other), "{what} at {length}");
        }
    }
}

fn foreign() -> Vec<(&'static str, Vec<u8>)> {
    let key = rcgen::KeyPair::generate().unwrap();
    let parameters = rcgen::CertificateParams::new(vec!["shop.example".to_owned()]).unwrap();
    let request = parameters.serialize_request(&key).unwrap();
    let certificate = parameters.clone().self_signed(&key).unwrap();
    let to_be_signed = |object: &[u8]| {
        // The first element inside of a signed object (X.509, PKCS#10, CRL, OCSP).
        let header = if object[1] < 0x80 {
            2
        } else {
            2 + usize::from(object[1] & 0x7f)
        };
        object[header..].to_vec()
    };
    let mut authority = rcgen::CertificateParams::default();
    authority.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    authority.key_usages = vec![rcgen::KeyUsagePurpose::CrlSign];
    let issuer = rcgen::Issuer::new(authority, key);
    let list = rcgen::CertificateRevocationListParams {
        this_update: rcgen::date_time_ymd(2026, 1, 1),
        next_update: rcgen::date_time_ymd(2027, 1, 1),
        crl_number: rcgen::SerialNumber::from(1),
        issuing_distribution_point: None,
        revoked_certs: Vec::new(),
        key_identifier_method: rcgen::KeyIdMethod::Sha256,
    };
    let list = list.signed_by(&issuer).unwrap();
    let jws = |header: &str, payload: &[u8]| {
        use base64::Engine as _;
        let encode = |bytes: &[u8]| base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(bytes);
        format!("{}.{}", encode(header.as_bytes()), encode(payload)).into_bytes()
    };
    let revocation = r#"{"alg":"ES256","nonce":"n","url":"https://acme.example/revoke","jwk":{}}"#;
    // RFC 6960, section 4.2.1: ResponseData of a responder named by key, with one answer.
    let ocsp = [
        &[0x30, 0x2f, 0xa2, 0x16, 0x04, 0x14][..],
        &[7; 20],
        b"\x18\x0f20261122200000Z",
        &[0x30, 0x04, 0x30, 0x02, 0x05, 0x00],
    ]
    .concat();
    vec![
        ("a certificate request", to_be_signed(request.der())),
        ("a certificate", to_be_signed(certificate.der())),
        ("a revocation list", to_be_signed(list.der())),
        ("an OCSP response", ocsp),
        ("a JWS", jws(r#"{"alg":"ES256"}"#, br#"{"sub":"admin"}"#)),
        (
            "an ACME revocation",
            jws(revocation, br#"{"certificate":"MIIB"}"#),
        ),
        ("an SSH login", ssh_login()),
        ("an SSH file signature", ssh_file(8)),
        ("an SSH key exchange", vec![0x77; 64]),
        ("a delegated credential", delegated(300)),
    ]
}

/// RFC 4252, section 7, with the shortest user name and a P-256 key.
fn ssh_login() -> Vec<u8> {
    let mut string = Vec::new();
    let mut put = |bytes: &[u8]| {
        string.extend(u32::try_from(bytes.len()).unwrap().to_be_bytes());
        string.extend(bytes);
    };
    put(&[3; 32]);
    put(b"u");
    put(b"ssh-connection");
    put(b"publickey");
    put(b"ecdsa-sha2-nistp256");
    put(&[5; 104]);
    string.insert(36, 50);
    string
}

/// PROTOCOL.sshsig of OpenSSH, for a namespace of this length: the rest is a hash value.
fn ssh_file(namespace: u8) -> Vec<u8> {
    [
        &b"SSHSIG\0\0\0"[..],
        &[namespace],
        &vec![b'n'; namespace.into()],
        b"\0\0\0\0\0\0\0\x06sha512\0\0\0\x40",
        &[0; 64],
    ]
    .concat()
}

/// The string of TLS 1.2 leaves its first 64 bytes to the parties. The objects below are what
/// somebody would choose them for: all fit the grammar but for what they would mean elsewhere.
#[test]
fn objects_shaped_to_fit_are_refused() {
    let point = [9; 32];
    // A certificate request with a P-256 key whose coordinates happen to read as curve and length.
    let mut request = [0x11; 64];
    request[..9].copy_from_slice(&[0x30, 0x62, 2, 1, 0, 0x30, 0, 0x30, 0x5b]);
    // SSHSIG with eight bytes of namespace: its hash value reaches from byte 36 to byte 99.
    let mut file = [0; 64];
    file.copy_from_slice(&ssh_file(8)[..64]);
    // A CWT: COSE_Sign1 under ES256, with 81 bytes of payload that hold curve and length.
    let mut token = [0x11; 64];
    token[..20].copy_from_slice(b"\x84\x6aSignature1\x43\xa1\x01\x26\x40\x58\x51\xa4");
    for prefix in [request, file, token] {
        let string = tls12(&prefix, 29, 32, &point);
        assert!(!is_tls12(&string), "{string:02x?}");
        // It is that beginning, and nothing else, that is refused.
        let mut harmless = prefix;
        harmless[0] ^= 0x40;
        assert!(is_tls12(&tls12(&harmless, 29, 32, &point)));
    }
}

/// What fuzzing keeps: handshakes and strings of OpenSSL, and each without its last byte.
#[test]
fn the_fuzz_corpus_is_read_or_refused() {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut read = 0;
    for entry in std::fs::read_dir(root.join("../tests/fuzz/corpus/handshake")).unwrap() {
        let entry = entry.unwrap();
        let bytes = std::fs::read(entry.path()).unwrap();
        let is_one = is_tls13(&bytes) || is_tls12(&bytes) || Transcript::read(&bytes).is_ok();
        let name = entry.file_name().into_string().unwrap();
        assert_eq!(is_one, !name.ends_with("-cut"), "{name}");
        read += 1;
    }
    assert!(read >= 21, "{read}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn no_string_is_in_two_languages(
        prefix in prop_oneof![Just([b' '; 64]), any::<[u8; 64]>()],
        middle in prop_oneof![
            Just(b"TLS 1.3, server CertificateVerify\0".to_vec()),
            Just(DELEGATED.to_vec()),
            Just(vec![3, 0, 29, 32]),
            Just(vec![3, 0, 23, 65, 4]),
            proptest::collection::vec(any::<u8>(), 0..40),
        ],
        rest in proptest::collection::vec(any::<u8>(), 0..120),
    ) {
        let string = [&prefix[..], &middle, &rest].concat();
        prop_assert!(languages(&string) <= 1);
    }

    /// Printable text, as web signatures are, is in neither.
    #[test]
    fn no_text_is_in_them(text in "[A-Za-z0-9._~ -]{0,200}") {
        prop_assert!(!is_tls12(text.as_bytes()));
        prop_assert!(!is_tls13(text.as_bytes()));
    }
}
