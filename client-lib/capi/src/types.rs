//! The types of the header.

use std::ffi::{c_char, c_void};

use client::SignatureAlgorithm;

/// Most bytes of a result: what an RSA key of 8192 bits gives.
pub const KEYSERVER_OUTPUT_MAX: usize = 1024;

/// Bytes of a key's name: its subject key identifier (RFC 5280, section 4.2.1.2, method 1).
pub const KEYSERVER_SKI_BYTES: usize = 20;

/// What became of a call.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyserverStatus {
    /// It succeeded.
    Ok = 0,
    /// A null pointer, an input of the wrong length, a buffer that is too small: the caller's mistake.
    Argument = 1,
    /// An address, a name, a certificate or a key that cannot be used.
    Configuration = 2,
    /// No server can be reached, or the connection was lost.
    Network = 3,
    /// The two sides do not accept each other's certificates or versions of TLS.
    Tls = 4,
    /// What answers does not speak the protocol.
    Protocol = 5,
    /// The server has no such key, does not grant its use, or it does not fit. Do not ask again.
    Refused = 6,
    /// The server has more work than it can do. Ask later.
    Busy = 7,
    /// No answer came within the deadline.
    Deadline = 8,
    /// As many calls are on their way, or wait to be taken, as the client may hold.
    Overloaded = 9,
    /// The client was freed, or belongs to the parent of this process.
    Closed = 10,
    /// A fault of this library, which caught it.
    Internal = 11,
}

/// How to sign. All but Ed25519 take the hash of the message; Ed25519 takes the message.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names say it")]
pub enum KeyserverAlgorithm {
    RsaPkcs1Md5Sha1 = 0x02,
    RsaPkcs1Sha1 = 0x03,
    RsaPkcs1Sha256 = 0x05,
    RsaPkcs1Sha384 = 0x06,
    RsaPkcs1Sha512 = 0x07,
    EcdsaSha1 = 0x13,
    EcdsaSha256 = 0x15,
    EcdsaSha384 = 0x16,
    EcdsaSha512 = 0x17,
    Ed25519 = 0x18,
    RsaPssSha256 = 0x35,
    RsaPssSha384 = 0x36,
    RsaPssSha512 = 0x37,
}

impl KeyserverAlgorithm {
    const ALL: [(Self, SignatureAlgorithm); 13] = [
        (Self::RsaPkcs1Md5Sha1, SignatureAlgorithm::RsaPkcs1Md5Sha1),
        (Self::RsaPkcs1Sha1, SignatureAlgorithm::RsaPkcs1Sha1),
        (Self::RsaPkcs1Sha256, SignatureAlgorithm::RsaPkcs1Sha256),
        (Self::RsaPkcs1Sha384, SignatureAlgorithm::RsaPkcs1Sha384),
        (Self::RsaPkcs1Sha512, SignatureAlgorithm::RsaPkcs1Sha512),
        (Self::EcdsaSha1, SignatureAlgorithm::EcdsaSha1),
        (Self::EcdsaSha256, SignatureAlgorithm::EcdsaSha256),
        (Self::EcdsaSha384, SignatureAlgorithm::EcdsaSha384),
        (Self::EcdsaSha512, SignatureAlgorithm::EcdsaSha512),
        (Self::Ed25519, SignatureAlgorithm::Ed25519),
        (Self::RsaPssSha256, SignatureAlgorithm::RsaPssSha256),
        (Self::RsaPssSha384, SignatureAlgorithm::RsaPssSha384),
        (Self::RsaPssSha512, SignatureAlgorithm::RsaPssSha512),
    ];

    /// The algorithm with this number: C may pass any.
    pub(crate) fn from_number(number: u32) -> Option<SignatureAlgorithm> {
        let found = Self::ALL.into_iter().find(|(own, _)| *own as u32 == number);
        found.map(|(_, algorithm)| algorithm)
    }
}

/// How to reach the servers. Everything it points to may be freed after keyserver_client_new.
#[repr(C)]
#[derive(Debug)]
pub struct KeyserverOptions {
    /// `host:port` each; all hold the same keys.
    pub servers: *const *const c_char,
    /// How many.
    pub server_count: usize,
    /// The name in the servers' certificates.
    pub server_name: *const c_char,
    /// A PEM file: who signs the servers' certificates.
    pub ca_file: *const c_char,
    /// A PEM file: this client's certificate and its chain.
    pub certificate_file: *const c_char,
    /// A PEM file: the private key of that certificate.
    pub private_key_file: *const c_char,
    /// How long a call may take, in milliseconds; 0 for 2000.
    pub deadline_ms: u32,
}

/// The outcome of a submitted call.
#[repr(C)]
#[derive(Debug)]
pub struct KeyserverCompletion {
    /// What was given when the call was submitted.
    pub user: *mut c_void,
    /// What became of it.
    pub status: KeyserverStatus,
    /// Bytes of the result; 0 unless it succeeded.
    pub output_length: usize,
    /// The result: `k` bytes for RSA, DER for ECDSA, 64 bytes for Ed25519.
    pub output: [u8; KEYSERVER_OUTPUT_MAX],
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_is_the_opcode_of_its_algorithm() {
        for number in 0..=0xff {
            if let Some(algorithm) = KeyserverAlgorithm::from_number(number) {
                assert_eq!(u32::from(algorithm.opcode().as_byte()), number);
            }
        }
        assert_eq!(KeyserverAlgorithm::from_number(0x01), None, "a decryption");
        assert_eq!(KeyserverAlgorithm::from_number(0x115), None);
    }
}
