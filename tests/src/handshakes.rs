//! What TLS servers sign, made by hand: strings, and the messages of a handshake.

use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;

/// `X25519MLKEM768`
const HYBRID: u16 = 0x11ec;
/// `x25519`
const CLASSICAL: u16 = 0x001d;

/// The string of a TLS 1.3 server (RFC 8446, section 4.4.3).
pub fn tls13_string() -> Vec<u8> {
    let mut string = vec![b' '; 64];
    string.extend_from_slice(b"TLS 1.3, server CertificateVerify\0");
    string.extend_from_slice(&[0xa5; 32]);
    string
}

/// The string of a TLS 1.2 server over X25519 (RFC 8422, section 5.4).
pub fn tls12_string(says_downgrade: bool) -> Vec<u8> {
    let mut string = vec![0x5a; 64];
    if says_downgrade {
        string[56..].copy_from_slice(b"DOWNGRD\x01");
    }
    string.extend_from_slice(&[3, 0, 0x1d, 32]);
    // The base point: of prime order.
    string.push(9);
    string.resize(100, 0);
    string
}

/// A TLS 1.3 handshake up to the server's certificate.
pub struct Handshake<'a> {
    /// The name that the client asks for.
    pub server_name: &'a str,
    /// The protocol that it offers and the server selects.
    pub protocol: &'a str,
    /// The server selects X25519MLKEM768, which the client offers.
    pub hybrid: bool,
    /// PEM.
    pub certificate: &'a str,
}

impl Handshake<'_> {
    /// Its messages.
    pub fn encode(&self) -> Vec<u8> {
        let name = self.server_name.as_bytes();
        let alpn = vector16(&vector16(&vector8(self.protocol.as_bytes())));
        let share = |group: u16| [&group.to_be_bytes()[..], &vector16(&[7; 32])].concat();
        let groups = [HYBRID.to_be_bytes(), CLASSICAL.to_be_bytes()].concat();
        let schemes = [0x08, 0x04, 0x08, 0x05, 0x04, 0x03, 0x08, 0x07];
        let client_hello = [
            &[3, 3][..],
            &[1; 32],
            &vector8(&[]),
            &vector16(&[0x13, 0x01]),
            &vector8(&[0]),
            &vector16(
                &[
                    extension(0, &vector16(&[&[0][..], &vector16(name)].concat())),
                    extension(10, &vector16(&groups)),
                    extension(13, &vector16(&schemes)),
                    [&[0, 16][..], &alpn].concat(),
                    extension(43, &vector8(&[3, 4])),
                    extension(51, &vector16(&[share(HYBRID), share(CLASSICAL)].concat())),
                ]
                .concat(),
            ),
        ];
        let group = if self.hybrid { HYBRID } else { CLASSICAL };
        let server_hello = [
            &[3, 3][..],
            &[2; 32],
            &vector8(&[]),
            &[0x13, 0x01, 0],
            &vector16(&[extension(43, &[3, 4]), extension(51, &share(group))].concat()),
        ];
        let encrypted = vector16(&[&[0, 16][..], &alpn].concat());
        let der =
            CertificateDer::from_pem_slice(self.certificate.as_bytes()).expect("a certificate");
        let entry = [&vector24(&der)[..], &vector16(&[])].concat();
        let certificate = [&vector8(&[])[..], &vector24(&entry)].concat();
        [
            message(1, &client_hello.concat()),
            message(2, &server_hello.concat()),
            message(8, &encrypted),
            message(11, &certificate),
        ]
        .concat()
    }
}

fn message(kind: u8, body: &[u8]) -> Vec<u8> {
    [&[kind][..], &vector24(body)].concat()
}

fn extension(kind: u16, data: &[u8]) -> Vec<u8> {
    [&kind.to_be_bytes()[..], &vector16(data)].concat()
}

fn vector8(data: &[u8]) -> Vec<u8> {
    let length = u8::try_from(data.len()).expect("a short vector");
    [&[length][..], data].concat()
}

fn vector16(data: &[u8]) -> Vec<u8> {
    let length = u16::try_from(data.len()).expect("a vector");
    [&length.to_be_bytes()[..], data].concat()
}

fn vector24(data: &[u8]) -> Vec<u8> {
    let length = u32::try_from(data.len()).expect("a vector").to_be_bytes();
    [&length[1..], data].concat()
}
